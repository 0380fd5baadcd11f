"""My Paper - one line on what it is.

Its authors. Venue, arXiv 0000.00000.

The idea
    This page and the file below it are what `papertrial new` writes: a small analysis that asks how many directions the
    answers of a model use, in the order that every paper has. Replace them piece by piece; the checks pass from the start
    and should go on to.

The equation
    rank(X) = exp(-sum_i p_i log p_i), p_i = s_i / sum_j s_j, s the singular values of the centred X        (eq. 1)

What matters
    What the text says in passing and the results hang on.

Requires / Offers
    Requires any torch module that answers with tensors, and inputs for it. Offers measure.

Relations
    What it builds on, and what came of it.

Try
    papertrial measure my_paper vit --data digits

Cost
    tiny and base: one pass through the model.

Notation
    B examples, D values of an answer, s singular values.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from papertrial.core.paper import Curve, Figure, Paper, Report
from papertrial.core.recipe import Recipe, checked, sourced

PAPER = Paper(
    id="my_paper",
    title="My Paper",
    kind="analysis",
)


@checked
@dataclass(frozen=True)
class Config:
    least: float = sourced(
        1e-9, "where the paper says so; singular values below this share of the largest are zero", "[0, 1]"
    )


def spectrum(x_BD: Tensor, least: float = 1e-9) -> Tensor:
    """Shares of the singular values of the centred table (B, D), largest first: (min(B, D),), zeros for equal rows. (eq. 1)"""
    values = torch.linalg.svdvals(x_BD - x_BD.mean(0))
    values = torch.where(values > least * x_BD.abs().max(), values, 0.0)
    return values / values.sum().clamp_min(torch.finfo(values.dtype).tiny)


def effective_rank(x_BD: Tensor, least: float = 1e-9) -> float:
    """How many directions the rows of a table (B, D) use, from 1 to min(B, D); 1 for equal rows. (eq. 1)"""
    return float(torch.special.entr(spectrum(x_BD, least)).sum().exp())


@torch.no_grad()
def measure(model: nn.Module, data: Sequence[Tensor] | Mapping[str, Tensor], config: Config | None = None) -> Report:
    """The effective rank of the answers of `model`.

    model: a copy in eval mode is measured.  data: what it is called with, by position or by name.
    """
    config = config or Config()
    model = copy.deepcopy(model).eval()
    answers = model(**data) if isinstance(data, Mapping) else model(*data)
    x_BD = answers.double().flatten(1).cpu()
    rank, most = effective_rank(x_BD, config.least), min(x_BD.shape)
    shares = spectrum(x_BD, config.least).tolist()
    return Report(
        title="How many directions do the answers use?",
        verdict=f"The answers use {rank:.1f} of {most} directions.",
        facts=(("examples", str(len(x_BD))), ("values of an answer", str(x_BD.shape[1]))),
        head=("direction", "share"),
        rows=tuple((str(place), f"{share:.3f}") for place, share in enumerate(shares, 1)),
        numbers={"effective_rank": rank, "most": most, "shares": shares},
        figures=(
            Figure(
                "Directions of the answers",
                "direction",
                "share of the singular values",
                (Curve("this model", tuple(range(1, len(shares) + 1)), tuple(shares)),),
            ),
        ),
    )


recipes = {
    "paper": Recipe("paper", source="where the paper says so"),
    "base": Recipe("base", source="papertrial", cost="one pass through the model"),
    "tiny": Recipe("tiny", config={"least": 1e-6}, source="small enough for tests"),
}
