"""A perceptron over the points of a stroke."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from papertrial.core.budget import Budget
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced

PAPER = Paper(
    id="strokes_net",
    title="A perceptron over points",
    kind="architecture",
    idea="All points of a stroke at once.",
    tasks=("stroke_classification",),
)


@checked
@dataclass(frozen=True)
class Config:
    width: int = sourced(32, "chosen", "[1, 65536]")


class StrokesNet(nn.Module):
    """points (B, N, 2) -> (B, width)."""

    def __init__(self, points, width):
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(2 * points, width), nn.ReLU())

    def forward(self, points):
        return self.layers(points)


def build(config, facts, backbone=None):
    return StrokesNet(int(facts.more["points"]), config.width)


recipes = {
    name: Recipe(name, optim={"lr": 0.01, "batch": 16}, budget=Budget(steps=60)) for name in ("paper", "base", "tiny")
}
