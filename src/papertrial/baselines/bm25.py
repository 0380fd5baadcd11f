"""BM25 - ranks documents by the words they share with the query, rare ones first.

Robertson et al., Okapi at TREC-3 (1994); Robertson and Zaragoza, The Probabilistic Relevance Framework (2009)

The idea
    A word counts more the rarer it is, less with every repetition, and less in a long document.

The equation
    score(q, d) = sum over w in q of  idf(w) c / (c + k1 (1 - b + b |d| / mean)),   idf(w) = ln(1 + (N - n + 1/2) / (n + 1/2))

What matters
    k1 (how soon repetitions stop counting) and b (how much length counts), chosen on the queries outside of the test.

Requires / Offers
    A collection with queries and judgements. Ranks.

Relations
    What every reranker and dense retriever is measured against; the first stage of `retrieval` is the same, untuned.

Try
    papertrial fit bm25 --data beir_folder/

Cost
    About a second for each thousand queries and ten thousand documents, and each setting tried.

Notation
    N documents, n with the word, c its count in the document, |d| words of the document.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from papertrial.core.budget import Budget, Meter
from papertrial.core.facts import Facts
from papertrial.core.files import read_json, write_json
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, sourced
from papertrial.core.run import Run
from papertrial.data.collections import Queries, texts_of
from papertrial.data.collections.bm25 import K1, B, Bm25
from papertrial.tasks._metrics import DEPTH, ranking_scores

PAPER = Paper(
    id="bm25",
    title="Okapi BM25",
    kind="estimator",
    idea="Ranks documents by the words they share with the query, rare ones first.",
    authors="Stephen Robertson, Steve Walker, Susan Jones, Micheline Hancock-Beaulieu, Mike Gatford",
    year=1994,
    method="Ranker",
    tasks=("retrieval",),
    tags=("text", "baseline"),
)


@dataclass(frozen=True)
class Config:
    k1s: tuple[float, ...] = sourced((1.5, 0.6, 0.9, 1.2, 2.0, 3.0), "papertrial default; the first is that of bm25s")
    bs: tuple[float, ...] = sourced((0.75, 0.3, 0.5, 0.9, 1.0), "papertrial default; the first is that of Lucene")
    stem: bool = sourced(False, "papertrial default; cuts English plurals, see data/collections/bm25.py")


class Ranker:
    """An Estimator: BM25 with the k1 and b that rank best."""

    def __init__(self, config: Config) -> None:
        self.config, self.k1, self.b = config, K1, B
        self._counted: tuple[Any, Bm25] | None = None

    def fit(self, train: Queries, valid: Queries, facts: Facts, budget: Budget, seed: int, run: Run) -> Meter:
        """Try k1 and b on all queries outside of the test, the defaults first, until the budget is spent."""
        started = time.perf_counter()
        grid = sorted(product(self.config.k1s, self.config.bs), key=self._unusual)
        score, trials = -np.inf, 0
        for k1, b in grid[: budget.trials]:
            if trials and budget.seconds is not None and time.perf_counter() - started > budget.seconds:
                break
            trials += 1
            found = sum(
                len(queries["id"]) * self._ndcg(queries, k1, b) for queries in (train, valid) if queries.examples
            )
            if found > score:
                score, self.k1, self.b = found, k1, b
        asked = train.examples + valid.examples
        return Meter(samples=asked * trials, seconds=time.perf_counter() - started, trials=trials)

    def _unusual(self, setting: tuple[float, float]) -> int:
        return self.config.k1s.index(setting[0]) + self.config.bs.index(setting[1])

    def _ndcg(self, queries: Queries, k1: float, b: float) -> float:
        found = self._search(queries, k1, b, 10)
        grades = np.zeros(found.shape, dtype=np.int64)
        for row in range(queries.examples):
            known = dict(zip(queries["relevant"][row].tolist(), queries["grade"][row].tolist(), strict=True))
            grades[row] = [known.get(document, 0) for document in found[row].tolist()]
        return ranking_scores(grades, queries["grade"]).metrics["ndcg@10"]

    def most_trials(self, budget: Budget) -> int:
        settings = len(self.config.k1s) * len(self.config.bs)
        return min(settings, budget.trials or settings)

    def outputs(self, split: Queries) -> np.ndarray:
        """int64 (N, 100): rows of `split.documents`, best first, -1 where no further one has a word of the query."""
        return self._search(split, self.k1, self.b, DEPTH)

    def _search(self, queries: Queries, k1: float, b: float, most: int) -> np.ndarray:
        engine, place = self._engine(queries), queries.documents["place"]
        rows = np.full((queries.examples, most), -1, dtype=np.int64)
        for query, text in enumerate(texts_of(queries["text"])):
            found, _ = engine.top(text, most, place, k1, b, int(queries["itself"][query]))
            rows[query, : len(found)] = found
        return rows

    def _engine(self, queries: Queries) -> Bm25:
        if not self.config.stem:
            return queries.bm25
        if self._counted is None or self._counted[0] is not queries.documents:
            self._counted = queries.documents, Bm25.of(texts_of(queries.documents["text"]), stem=True)
        return self._counted[1]

    def save(self, folder: Path | str) -> None:
        write_json(Path(folder) / "bm25.json", {"k1": self.k1, "b": self.b})

    def load(self, folder: Path | str) -> Ranker:
        held = read_json(Path(folder) / "bm25.json")
        self.k1, self.b = float(held["k1"]), float(held["b"])
        return self


def build(config: Config, facts: Facts, backbone: Any = None) -> Ranker:
    return Ranker(config)


recipes = {
    "base": Recipe("base"),
    "tiny": Recipe("tiny", config={"k1s": (K1,), "bs": (B,)}),
}
