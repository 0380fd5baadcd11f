"""Random picture - any training picture, whatever the caption says.

The idea
    What pictures that ignore their captions are worth: real ones, so nothing else is wrong with them.

The equation
    x = x_i, i uniform among the training pictures

What matters
    Its caption rank is 0.5, the value of chance, and its Frechet distance that of real pictures, which nothing drawn can beat.

Requires / Offers
    Requires images with captions. Offers generate, without a caption.

Relations
    A floor of image_text_generation, beside `nearest_caption`.

Try
    papertrial fit random_picture --data emoji/ --task image_text_generation

Cost
    None.

Notation
    x a picture, i its number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from papertrial.baselines._album import Album
from papertrial.core.facts import Facts
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe

PAPER = Paper(
    id="random_picture",
    title="A random training picture",
    kind="estimator",
    method="RandomPicture",
    idea="Any training picture, whatever the caption says.",
    tasks=("image_text_generation",),
    tags=("vision", "text", "generative", "baseline", "floor"),
    caveats=("It copies: its Frechet distance, precision and recall are those of real pictures.",),
)


@dataclass(frozen=True)
class Config:
    pass


class RandomPicture(Album):
    def choose(self, seeds: Sequence[int], captions: Sequence[str] | None) -> np.ndarray:
        return np.array([np.random.default_rng(seed).integers(len(self.pictures)) for seed in seeds], dtype=np.int64)


def build(config: Config, facts: Facts, backbone: Any = None) -> RandomPicture:
    return RandomPicture(facts)


recipes = {"base": Recipe("base"), "tiny": Recipe("tiny")}
