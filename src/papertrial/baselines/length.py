"""Length - outputs that are as long as their reference are taken to be good.

The idea
    What a metric of texts must beat before it counts for anything: it reads no word.

The equation
    length(output, reference) = min(o, r) / max(o, r), with their numbers of words o and r

What matters
    People do mind texts that are too short, so it is not always at zero.

Requires / Offers
    Outputs with references. Predicts.

Relations
    The floor of `human_judgement`.

Try
    papertrial compare rouge bertscore --data judged.csv

Cost
    Nothing.

Notation
    Words are what stands between blanks; two texts without words are alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from papertrial.core.budget import Budget, Meter
from papertrial.core.facts import Facts
from papertrial.core.files import write_json
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe
from papertrial.core.run import Run
from papertrial.core.task import Split

PAPER = Paper(
    id="length",
    title="Length",
    kind="estimator",
    method="Length",
    idea="An output is as good as its length is near that of the reference.",
    tasks=("human_judgement",),
    tags=("text", "baseline", "floor", "metric"),
)


@dataclass(frozen=True)
class Config:
    pass


class Length:
    """An Estimator that learns nothing."""

    def fit(self, train: Split, valid: Split, facts: Facts, budget: Budget, seed: int, run: Run) -> Meter:
        return Meter(trials=1)

    def most_trials(self, budget: Budget) -> int:
        return 1

    def outputs(self, split: Split) -> np.ndarray:
        """(N,) float64 in [0, 1]."""
        sides = (split[name].texts() for name in ("output", "reference"))
        output, reference = (np.array([len(text.split()) for text in side], dtype=np.float64) for side in sides)
        return np.minimum(output, reference) / np.maximum(np.maximum(output, reference), 1) + (output + reference == 0)

    def save(self, folder: Path | str) -> None:
        write_json(Path(folder) / "length.json", {})

    def load(self, folder: Path | str) -> Length:
        return self


def build(config: Config, facts: Facts, backbone: Any = None) -> Length:
    return Length()


recipes = {"base": Recipe("base"), "tiny": Recipe("tiny")}
