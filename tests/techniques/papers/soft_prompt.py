"""Soft prompt - vectors in the place of words, trained while the model stays as it is.
Lester et al., EMNLP 2021, arXiv 2104.08691. The tests' own: small, and from outside of the package.

The idea      Some vectors before each text, and the input embeddings, are all that is trained.
The equation  x = [p_1 ... p_n; E(ids)]  (sec. 2)
What matters  The model itself ends as it began.
Requires      A model that reads tokens.
Offers        The technique `soft_prompt`.
Relations     P-tuning makes the vectors by a network.
Try           papertrial fit soft_prompt --data python-lines
Cost          Less than fine-tuning in memory, not in time.
Notation      n vectors, E the table of embeddings.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from papertrial.core.budget import Budget
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced

PAPER = Paper(
    id="soft_prompt",
    title="The Power of Scale for Parameter-Efficient Prompt Tuning",
    authors="Lester et al.",
    year=2021,
    arxiv="2104.08691",
    kind="technique",
    idea="Train vectors before the text and the input embeddings, nothing else.",
    tasks=("text_classification",),
    caveats=("The paper leaves the table alone: this is a test.",),
)


@checked
@dataclass(frozen=True)
class Config:
    tokens: int = sourced(4, "fig. 3 has up to 150", "[1, 1000]")

    def attach(self, model: nn.Module) -> None:
        first, longest = _words(model), model.encoder.longest

        def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            ids = inputs[0]
            prompt = torch.arange(first, first + self.tokens, device=ids.device).expand(len(ids), -1)
            return (torch.cat([prompt, ids], 1)[:, :longest], *inputs[1:])

        model.encoder.register_forward_pre_hook(before)

    def embed(self, table: nn.Embedding) -> nn.Module:
        return Prompted(table, self.tokens)

    def parameters(self, model: nn.Module) -> Iterable[nn.Parameter]:
        return next(module for module in model.modules() if isinstance(module, Prompted)).parameters()


class Prompted(nn.Module):
    """A table with rows for a prompt behind those of words. ids (B, N) -> (B, N, width)."""

    def __init__(self, table: nn.Embedding, tokens: int) -> None:
        super().__init__()
        self.table, self.prompt = table, nn.Parameter(table.weight[:tokens].detach().clone())

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, torch.cat([self.table.weight, self.prompt]))


def _words(model: nn.Module) -> int:
    return next(module for module in model.encoder.modules() if isinstance(module, nn.Embedding)).num_embeddings


hosts = {"text_classification": "text_transformer"}
recipes = {
    "paper": Recipe("paper", config={"tokens": 100}),
    "base": Recipe("base"),
    "tiny": Recipe("tiny", optim={"lr": 1e-2}, budget=Budget(steps=120)),
}
