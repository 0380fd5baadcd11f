"""My Paper - one line on what it is.

Its authors. Venue, arXiv 0000.00000.

The idea
    This page and the file below it are what `papertrial new` writes: a small technique that takes its mean out of the gradient
    of each unit, in the order that every paper has. Replace them piece by piece; the checks pass from the start and should go
    on to.

The equation
    g_u <- g_u - mean(g_u), for the weights u of one output of a layer                                     (eq. 1)

What matters
    What the text says in passing and the results hang on.

Requires / Offers
    Requires any model that is trained by gradient steps. Offers the technique `my_paper`.

Relations
    What it builds on, and what came of it.

Try
    papertrial compare my_paper --data digits
    papertrial fit mlp_mixer --data digits --technique my_paper

Cost
    tiny: seconds on a CPU. base: that of the host.

Notation
    O outputs of a layer, D weights of each.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from papertrial.core.budget import Budget
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced

PAPER = Paper(
    id="my_paper",
    title="My Paper",
    kind="technique",
)


@checked
@dataclass(frozen=True)
class Config:
    """The technique: the loop calls its hooks, see "Techniques" in docs/architecture.md."""

    share: float = sourced(1.0, "where the paper says so; how much of the mean is taken out", "[0, 1]")

    @torch.no_grad()
    def before_step(self, model: nn.Module) -> None:
        for parameter in model.parameters():
            if parameter.grad is not None and parameter.ndim > 1:
                parameter.grad.copy_(centred(parameter.grad, self.share))


def centred(gradient_OD: Tensor, share: float = 1.0) -> Tensor:
    """A gradient (O, ...) less `share` of the mean over all but its first dimension. (eq. 1)"""
    return gradient_OD - share * gradient_OD.mean(tuple(range(1, gradient_OD.ndim)), keepdim=True)


#: what it is tried on, by task; the first reference of a task where none is named
hosts = {"image_classification": "mlp_mixer"}
recipes = {
    "paper": Recipe("paper", source="where the paper says so"),
    "base": Recipe("base", source="papertrial"),
    "tiny": Recipe("tiny", optim={"lr": 3e-3, "batch": 32}, budget=Budget(steps=60), source="small enough for tests"),
}
