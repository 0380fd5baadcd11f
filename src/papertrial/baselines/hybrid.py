"""Hybrid - BM25 and a pretrained encoder's vectors, joined.

The join by ranks: Cormack, Clarke and Buettcher, Reciprocal Rank Fusion, SIGIR 2009. The join by scores: Bruch, Gai and
Ingber, An Analysis of Fusion Functions for Hybrid Retrieval, TOIS 2023, arXiv 2210.11934.

The idea
    Words find names and numbers, vectors find what is said in other words. A document that both rank high is seldom wrong.

The equation
    by scores  s(q, d) = w cos(f(q), f(d)) + (1 - w) bm25(q, d) / max over d of bm25(q, d)
    by ranks   s(q, d) = 1 / (60 + place by words) + 1 / (60 + place by vectors)

What matters
    The weight, which is chosen on the queries outside of the test, as is whether scores or ranks are joined.

Requires / Offers
    A collection with queries and judgements, in English; the extra `encoder`, whose weights come with it. Ranks.

Relations
    `bm25`, tuned as alone, and `dense`. The mode `hybrid` of `papertrial search` joins by ranks.

Try
    papertrial fit hybrid --data beir_folder/

Cost
    That of `dense` and that of `bm25`.

Notation
    f the encoder, w the weight of the vectors.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from papertrial.baselines import bm25
from papertrial.baselines._sentences import vectors
from papertrial.core.budget import Budget, Meter
from papertrial.core.facts import Facts
from papertrial.core.files import read_json, write_json
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced
from papertrial.core.run import Run
from papertrial.data.collections import Queries
from papertrial.data.collections.bm25 import best
from papertrial.tasks._metrics import DEPTH

PAPER = Paper(
    id="hybrid",
    title="BM25 and vectors, joined",
    kind="estimator",
    idea="Adds BM25's score and the cosine of a pretrained encoder, or joins their ranks.",
    method="Hybrid",
    tasks=("retrieval",),
    tags=("text", "baseline", "pretrained"),
    builds_on=("bm25",),
    needs=("encoder", "text"),
    licence="Apache-2.0",
    caveats=("The encoder's weights were trained on pairs from the web: your test queries may be among them.",),
)
#: of reciprocal rank fusion, SIGIR 2009
_CONSTANT = 60


@checked
@dataclass(frozen=True)
class Config(bm25.Config):
    weights: tuple[float, ...] = sourced(
        (0.5, 0.3, 0.7, 0.1, 0.9), "papertrial default; of the vectors, tried in this order", "1 to 32 of [0, 1]"
    )
    ranks: bool = sourced(True, "papertrial default; try joining the ranks too")


class Hybrid:
    """An Estimator: tuned BM25 and vectors. weight: of the vectors; None joins ranks."""

    def __init__(self, config: Config) -> None:
        self.config, self.words = config, bm25.Ranker(config)
        self.weight: float | None = config.weights[0]

    def fit(self, train: Queries, valid: Queries, facts: Facts, budget: Budget, seed: int, run: Run) -> Meter:
        """Tune BM25, then the weight, on all queries outside of the test, until the budget is spent.

        Raises Declined for more documents than there is time to read.
        """
        started = time.perf_counter()
        _, charged = vectors(train.documents["text"], budget)
        charged = max(0.0, charged - (time.perf_counter() - started))
        left = None if budget.seconds is None else max(0.0, budget.seconds - charged - time.perf_counter() + started)
        mine = len(self._settings())
        trials = None if budget.trials is None else max(1, budget.trials - mine)
        spent = self.words.fit(train, valid, facts, replace(budget, seconds=left, trials=trials), seed, run)
        settings = self._settings()[: None if budget.trials is None else max(1, budget.trials - spent.trials)]
        asked = [part for part in (train, valid) if part.examples]
        found = [self._joined(part, settings, 10) for part in asked]
        scores = [
            sum(part.examples * bm25.ndcg(rows[place], part) for part, rows in zip(asked, found, strict=True))
            for place in range(len(settings))
        ]
        self.weight = settings[int(np.argmax(scores))]
        done = spent.trials + len(settings)
        rows = (train.examples + valid.examples) * done
        return Meter(samples=rows, seconds=charged + time.perf_counter() - started, trials=done)

    def _settings(self) -> list[float | None]:
        return [*self.config.weights, *([None] if self.config.ranks else [])]

    def most_trials(self, budget: Budget) -> int:
        most = self.words.most_trials(Budget()) + len(self._settings())
        return min(most, max(2, budget.trials or most))

    def outputs(self, split: Queries) -> np.ndarray:
        """int64 (N, 100): rows of `split.documents`, best first, -1 where there are no more."""
        return self._joined(split, [self.weight], DEPTH)[0]

    def _joined(self, queries: Queries, weights: Sequence[float | None], most: int) -> list[np.ndarray]:
        """For each of the weights int64 (N, most): rows of the documents, best first, -1 for none."""
        asked, documents = vectors(queries["text"])[0], vectors(queries.documents["text"])[0]
        rows, ties = (
            [np.full((queries.examples, most), -1, dtype=np.int64) for _ in weights],
            queries.documents["place"],
        )
        for query in range(queries.examples):
            words, cosine = self.words.scores(queries, query), documents @ asked[query]
            words = words / max(float(words.max(initial=0.0)), 1e-9)
            for place, weight in enumerate(weights):
                score = _by_ranks(words, cosine, ties) if weight is None else (1 - weight) * words + weight * cosine
                found = best(score, most, ties, int(queries["itself"][query]))
                rows[place][query, : len(found)] = found
        return rows

    def save(self, folder: Path | str) -> None:
        self.words.save(folder)
        write_json(Path(folder) / "hybrid.json", {"encoder": "minilm", "weight": self.weight})

    def load(self, folder: Path | str) -> Hybrid:
        self.words.load(folder)
        self.weight = read_json(Path(folder) / "hybrid.json")["weight"]
        return self


def _by_ranks(words: np.ndarray, cosine: np.ndarray, ties: np.ndarray) -> np.ndarray:
    """float32 (documents,): the sum of 1 / (60 + place) over the two orders, of the first hundred in each."""
    shares = np.zeros(len(words), dtype=np.float32)
    for scores, least in ((words, 0.0), (cosine, -np.inf)):
        found = best(scores, DEPTH, ties)
        found = found[scores[found] > least]
        shares[found] += 1 / (_CONSTANT + np.arange(1, len(found) + 1))
    return shares


def build(config: Config, facts: Facts, backbone: Any = None) -> Hybrid:
    return Hybrid(config)


recipes = {
    "base": Recipe("base"),
    "tiny": Recipe("tiny", config={**bm25.recipes["tiny"].config, "weights": (0.5,), "ranks": False}),
}
