"""My Paper - one line on what it is.

Its authors. Venue, arXiv 0000.00000.

The idea
    This page and the file below it are what `papertrial new` writes: a small convolutional network that works, in the
    order that every paper has. Replace them piece by piece; the checks pass from the start and should go on to.

The equation
    y = mean over positions of norm(a(W * x)), a(x) = max(x, 0)^2                                      (eq. 1)

What matters
    What the text says in passing and the results hang on.

Requires / Offers
    Requires images of any size. Offers embed (mean over positions), predict.

Relations
    What it builds on, and what came of it.

Try
    papertrial fit my_paper --data photos/

Cost
    tiny: seconds on a CPU. base: minutes on a CPU.

Notation
    B batch, C channels, H and W height and width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from papertrial.core.budget import Budget
from papertrial.core.facts import Facts
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced

PAPER = Paper(
    id="my_paper",
    title="My Paper",
    kind="architecture",
)


@checked
@dataclass(frozen=True)
class Config:
    width: int = sourced(
        64, "where the paper says so", "[1, 65536]", auto=lambda facts: 32 if facts.examples < 10_000 else None
    )
    depth: int = sourced(3, "where the paper says so", "[1, 256]")


def squared_relu(x: Tensor) -> Tensor:
    """max(x, 0)^2 of any shape. (eq. 1)"""
    return torch.relu(x).square()


class MyPaper(nn.Module):
    """The backbone: images (B, C, H, W) -> (B, width), the mean over positions."""

    def __init__(self, config: Config, channels: int) -> None:
        super().__init__()
        self.width = config.width
        self.convolutions = nn.ModuleList(
            nn.Conv2d(config.width if index else channels, config.width, 3, stride=1 + (index == 1), padding=1)
            for index in range(config.depth)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(1, config.width) for _ in range(config.depth))

    def forward(self, image: Tensor) -> Tensor:
        x = image
        for convolve, norm in zip(self.convolutions, self.norms, strict=True):
            x = norm(squared_relu(convolve(x)))
        return x.mean((2, 3))


def build(config: Config, facts: Facts, backbone: nn.Module | None = None) -> MyPaper:
    return MyPaper(config, facts.channels)


recipes = {
    "paper": Recipe("paper", config={"width": 64}, optim={"epochs": 100}, source="where the paper says so"),
    "base": Recipe("base", optim={"lr": 3e-3, "batch": 64}, source="chosen on data of your own"),
    "tiny": Recipe(
        "tiny",
        config={"width": 16, "depth": 2},
        optim={"lr": 5e-3, "batch": 32},
        budget=Budget(steps=60),
        source="small enough for tests",
    ),
}
