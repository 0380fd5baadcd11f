"""Random features - a backbone that never learns, with the same linear probe as every objective.

The idea
    The floor of self-supervised learning: what a linear probe gets from an untrained network. An objective that does
    not clear it has learned nothing of use.

The equation
    p(y | x) = softmax(W f(x) + b), f with the weights it was born with.

What matters
    Random convolutions keep much of an image, so this floor is higher than it sounds.

Requires / Offers
    Requires images or texts. Offers embed; a linear probe on it predicts.

Relations
    The floor for barlow_twins and every other objective.

Try
    papertrial fit random_features --data photos/

Cost
    No training; seconds for the probe.

Notation
    f the backbone, W and b the probe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from papertrial.core.budget import Budget
from papertrial.core.facts import Facts
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe

PAPER = Paper(
    id="random_features",
    title="Random features with a linear probe",
    kind="objective",
    method="RandomFeatures",
    idea="A linear probe on an untrained backbone: the floor of representation learning.",
    tasks=("image_representation", "image_classification", "text_classification", "sentence_similarity"),
    tags=("vision", "text", "floor"),
)


@dataclass(frozen=True)
class Config:
    """Nothing to set."""


class RandomFeatures(nn.Module):
    """An objective with nothing to learn: its loss is zero for any weights."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.encoder = backbone

    def loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        return 0.0 * self.encoder(batch["image" if "image" in batch else "ids"]).sum()


def build(config: Config, facts: Facts, backbone: nn.Module | None = None) -> RandomFeatures:
    if backbone is None:
        raise ValueError("random_features is a probe on a backbone, and none was given")
    return RandomFeatures(backbone)


_NOTHING = Budget(steps=0)
recipes = {
    name: Recipe(name, budget=_NOTHING, source="nothing is trained", cost="none") for name in ("paper", "base", "tiny")
}
