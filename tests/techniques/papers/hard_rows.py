"""Hard rows - an objective that learns from the rows on which it is worst now.
Loshchilov and Hutter, 2015, arXiv 1511.06343. The tests' own: small, and from outside of the package.

The idea      Rows with a larger loss teach more.
The equation  the rows with the largest loss of those that were looked at
What matters  Which rows these are changes with the weights.
Requires      Images.
Offers        A backbone that has learnt to draw a small copy of its input.
Relations     With all rows it is an autoencoder.
Try           papertrial fit hard_rows --data digits
Cost          A forward pass over the rows that are looked at, each round.
Notation      B rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from papertrial.core.budget import Budget
from papertrial.core.facts import Facts
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced
from papertrial.core.task import Split

PAPER = Paper(
    id="hard_rows",
    title="Online Batch Selection for Faster Training of Neural Networks",
    authors="Loshchilov and Hutter",
    year=2015,
    arxiv="1511.06343",
    kind="objective",
    idea="Learn from the rows that are hardest now.",
    tasks=("image_representation",),
    caveats=("The paper draws by rank: this is a test.",),
)


@checked
@dataclass(frozen=True)
class Config:
    every: int = sourced(5, "chosen for tests", "[1, 1000000]")
    looked_at: int = sourced(256, "chosen for tests", "[1, 1000000]")
    kept: int = sourced(128, "chosen for tests", "[1, 1000000], at most looked_at")


class Hard(nn.Module):
    def __init__(self, backbone: nn.Module, channels: int, config: Config) -> None:
        super().__init__()
        self.encoder, self.config = backbone, config
        self.decoder = nn.Linear(backbone.width, 16 * channels)

    def row_losses(self, image: Tensor) -> Tensor:
        drawn, wanted = self.decoder(self.encoder(image)), F.adaptive_avg_pool2d(image, 4).flatten(1)
        return (drawn - wanted).square().mean(1)

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        return self.row_losses(batch["image"]).mean()

    def row_source(self, rows: Split) -> Hardest:
        return Hardest(self, rows)


class Hardest:
    def __init__(self, model: Hard, rows: Split) -> None:
        self.model, self.rows, self.every = model, rows, model.config.every

    def collect(self, step: int, state: dict[str, np.ndarray], draw: np.random.Generator) -> tuple[Split, Any]:
        seen = state.get("seen", np.zeros(self.rows.examples, np.int64))
        config = self.model.config
        looked = draw.permutation(self.rows.examples)[: config.looked_at]
        pixels = torch.from_numpy(np.array(self.rows["image"][looked])).permute(0, 3, 1, 2) / 255
        weight = next(self.model.parameters())
        lost = self.model.row_losses(pixels.to(weight)).cpu().numpy()
        hard = looked[np.argsort(-lost, kind="stable")[: config.kept]]
        return self.rows.take(hard), {"seen": seen + np.isin(np.arange(len(seen)), hard)}


def build(config: Config, facts: Facts, backbone: nn.Module | None = None) -> Hard:
    return Hard(backbone, facts.channels, config)


recipes = {
    "paper": Recipe("paper"),
    "base": Recipe("base"),
    "tiny": Recipe("tiny", optim={"lr": 3e-3, "batch": 32}, budget=Budget(steps=60)),
}
