"""Random order - the first stage's documents, shuffled.

The idea
    What a reranker must beat before its order counts for anything: how far one gets by what was found alone.

The equation
    rank(d) = uniform

What matters
    Its recall@100 is that of the first stage, whatever the order.

Requires / Offers
    A collection with queries. Ranks.

Relations
    The floor of `retrieval`; `bm25` is what found the documents.

Try
    papertrial fit random_order --data beir_folder/

Cost
    Nothing.

Notation
    d a document that the first stage found.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from papertrial.core.budget import Budget, Meter
from papertrial.core.facts import Facts
from papertrial.core.files import read_json, write_json
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe
from papertrial.core.run import Run
from papertrial.data.collections import Queries

PAPER = Paper(
    id="random_order",
    title="Random order",
    kind="estimator",
    idea="The documents that the first stage found, shuffled.",
    method="RandomOrder",
    tasks=("retrieval",),
    tags=("baseline", "floor"),
)


@dataclass(frozen=True)
class Config:
    pass


class RandomOrder:
    """An Estimator that looks at neither query nor document."""

    seed = 0

    def fit(self, train: Queries, valid: Queries, facts: Facts, budget: Budget, seed: int, run: Run) -> Meter:
        self.seed = seed
        return Meter(trials=1)

    def most_trials(self, budget: Budget) -> int:
        return 1

    def outputs(self, split: Queries) -> np.ndarray:
        """int64 (N, 100): the candidates in an order that the seed decides, -1 at the end."""
        rows = split["candidates"]
        order = np.random.default_rng(self.seed).random(rows.shape)
        return np.take_along_axis(rows, np.where(rows >= 0, order, 2.0).argsort(axis=1), axis=1)

    def save(self, folder: Path | str) -> None:
        write_json(Path(folder) / "order.json", {"seed": self.seed})

    def load(self, folder: Path | str) -> RandomOrder:
        self.seed = int(read_json(Path(folder) / "order.json")["seed"])
        return self


def build(config: Config, facts: Facts, backbone: Any = None) -> RandomOrder:
    return RandomOrder()


recipes = {"base": Recipe("base"), "tiny": Recipe("tiny")}
