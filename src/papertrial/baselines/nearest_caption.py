"""Nearest caption - the training picture whose caption is most like the one that is asked for.

The idea
    Who has seen many captioned pictures can look one up instead of drawing.

The equation
    x = x_i, i = argmax_i cos(t(c), t(c_i)), with t the counts of letters in a row, weighted by rarity

What matters
    It copies: what it hands out is a real picture, but none of what the caption asks for that no training picture has. A
    generator that draws a new combination of known things beats it; one that has learned less does not.

Requires / Offers
    Requires images with captions. Offers generate, from a caption.

Relations
    A floor of image_text_generation, beside `random_picture`. The captions are compared as in `tfidf`.

Try
    papertrial fit nearest_caption --data emoji/ --task image_text_generation

Cost
    Seconds.

Notation
    c a caption, t(c) its vector, x a picture, i its number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from papertrial.baselines._album import Album
from papertrial.core.facts import Facts
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced

PAPER = Paper(
    id="nearest_caption",
    title="The training picture with the most similar caption",
    kind="estimator",
    method="NearestCaption",
    idea="The training picture whose caption is most like the one that is asked for, by TF-IDF.",
    tasks=("image_text_generation",),
    tags=("vision", "text", "generative", "retrieval", "baseline", "floor"),
    caveats=("It copies: its Frechet distance, precision and recall are those of real pictures.",),
)
_ALIKE = 1e-6  # difference of cosines within which captions are as near


@checked
@dataclass(frozen=True)
class Config:
    shortest: int = sourced(
        2, "that of tfidf: letters in a row that are counted, within words", "[1, 64], at most longest"
    )
    longest: int = sourced(5, "that of tfidf", "[1, 64]")


class NearestCaption(Album):
    """Where several captions are as near, or there is none, the seed chooses among them."""

    draws = frozenset({"captions"})

    def __init__(self, config: Config, facts: Facts) -> None:
        super().__init__(facts)
        self.terms = TfidfVectorizer(
            analyzer="char_wb", ngram_range=(config.shortest, config.longest), sublinear_tf=True, dtype=np.float32
        )

    def learn(self) -> None:
        self.known = self.terms.fit_transform(self.captions)

    def choose(self, seeds: Sequence[int], captions: Sequence[str] | None) -> np.ndarray:
        asked = self.terms.transform(captions if captions is not None else [""] * len(seeds))
        chosen = np.empty(len(seeds), dtype=np.int64)
        for place, seed in enumerate(seeds):
            alike = (self.known @ asked[place].T).toarray().ravel()
            best = np.flatnonzero(alike >= alike.max() - _ALIKE)
            chosen[place] = np.random.default_rng(seed).choice(best)
        return chosen


def build(config: Config, facts: Facts, backbone: Any = None) -> NearestCaption:
    return NearestCaption(config, facts)


recipes = {"base": Recipe("base"), "tiny": Recipe("tiny")}
