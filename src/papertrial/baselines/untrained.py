"""Untrained - a backbone as it came, with the same linear probe as every objective.

The idea
    What there is before any training: of random weights the floor of self-supervised learning, of pretrained ones what an
    afternoon of further training has to beat. An objective that does not clear it has learned nothing of use.

The equation
    p(y | x) = softmax(W f(x) + b), f with the weights it came with.

What matters
    Random convolutions keep much of an image, so this floor is higher than it sounds. A pretrained encoder as it came is
    often better than one that was trained on, a little, with another objective.

Requires / Offers
    Requires images or texts. Offers embed; a linear probe on it predicts, and the cosine of two embeddings compares.

Relations
    The floor for barlow_twins and every other objective.

Try
    papertrial fit untrained --data photos/

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
    id="untrained",
    title="A backbone as it came",
    kind="objective",
    method="Untrained",
    idea="The backbone as it came, random or pretrained, under a linear probe: what training has to beat.",
    tasks=("image_representation", "image_classification", "text_classification", "sentence_similarity"),
    tags=("vision", "text", "floor"),
)


@dataclass(frozen=True)
class Config:
    """Nothing to set."""


class Untrained(nn.Module):
    """An objective with nothing to learn: its loss is zero for any weights."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.encoder = backbone

    def loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        return 0.0 * self.encoder(batch["image" if "image" in batch else "ids"]).sum()


def build(config: Config, facts: Facts, backbone: nn.Module | None = None) -> Untrained:
    if backbone is None:
        raise ValueError("untrained is a probe on a backbone, and none was given")
    return Untrained(backbone)


_NOTHING = Budget(steps=0)
recipes = {
    name: Recipe(name, budget=_NOTHING, source="nothing is trained", cost="none") for name in ("paper", "base", "tiny")
}
