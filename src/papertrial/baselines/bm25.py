"""BM25 - ranks documents by the words they share with the query, rare ones first.

Robertson et al., Okapi at TREC-3 (1994); Robertson and Zaragoza, The Probabilistic Relevance Framework (2009)

The idea
    A word counts more the rarer it is, less with every repetition, and less in a long document.

The equation
    score(q, d) = sum over w in q of  idf(w) c / (c + k1 (1 - b + b |d| / mean)),   idf(w) = ln(1 + (N - n + 1/2) / (n + 1/2))

What matters
    What counts as the same word (stems, stop words, accents: see `data/collections/analyse.py`), k1 (how soon repetitions
    stop counting) and b (how much length counts), all chosen on the queries outside of the test.

Requires / Offers
    A collection with queries and judgements. Ranks.

Relations
    What every reranker and dense retriever is measured against; the first stage of `retrieval` is the same, untuned.
    `hybrid` joins it with the vectors of `dense`.

Try
    papertrial fit bm25 --data beir_folder/

Cost
    About a second for each thousand queries and ten thousand documents, and each setting tried.

Notation
    N documents, n with the word, c its count in the document, |d| words of the document.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from papertrial.core.budget import Budget, Meter
from papertrial.core.facts import Facts
from papertrial.core.files import read_json, write_json
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced
from papertrial.core.run import Run
from papertrial.data.collections import Queries, texts_of
from papertrial.data.collections.analyse import USUAL, Analyser
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


@checked
@dataclass(frozen=True)
class Config:
    words: tuple[str, ...] = sourced(
        (USUAL, "stop stem fold", "", "stop"),
        "papertrial default; parts of `data.collections.analyse`, tried in this order",
        "1 to 32 of any",
    )
    k1s: tuple[float, ...] = sourced(
        (1.5, 0.6, 0.9, 1.2, 2.0, 3.0), "papertrial default; the first is that of bm25s", "1 to 32 of [0, 100]"
    )
    bs: tuple[float, ...] = sourced(
        (0.75, 0.3, 0.5, 0.9, 1.0), "papertrial default; the first is that of Lucene", "1 to 32 of [0, 1]"
    )


class Ranker:
    """An Estimator: BM25 with the words, k1 and b that rank best.

    analyser: makes the words; None until `fit` or `load`, where those of the first stage are taken.
    """

    def __init__(self, config: Config) -> None:
        self.config, self.k1, self.b = config, config.k1s[0], config.bs[0]
        self.analyser: Analyser | None = None
        self._counted: tuple[Any, Bm25] | None = None

    def fit(self, train: Queries, valid: Queries, facts: Facts, budget: Budget, seed: int, run: Run) -> Meter:
        """Try words, then k1 and b for the best of them, on all queries outside of the test, until the budget is spent."""
        started = time.perf_counter()
        language = train.bm25.analyser.language
        makers = [Analyser(language, parts) for parts in dict.fromkeys(self.config.words)]
        grid = sorted(product(self.config.k1s, self.config.bs), key=self._unusual)
        chosen = (makers[0], *grid[0])
        score, trials = -np.inf, 0

        def spent() -> bool:
            late = budget.seconds is not None and time.perf_counter() - started > budget.seconds
            return trials > 0 and (late or (budget.trials is not None and trials >= budget.trials))

        def tried(settings: list[tuple[Analyser, float, float]]) -> None:
            nonlocal score, chosen, trials
            for setting in settings:
                if spent():
                    return
                trials += 1
                self.analyser, self.k1, self.b = setting
                found = sum(queries.examples * self._ndcg(queries) for queries in (train, valid) if queries.examples)
                if found > score:
                    score, chosen = found, setting

        tried([(maker, *grid[0]) for maker in makers])
        tried([(chosen[0], *values) for values in grid[1:]])
        self.analyser, self.k1, self.b = chosen
        asked = train.examples + valid.examples
        return Meter(samples=asked * trials, seconds=time.perf_counter() - started, trials=trials)

    def again(self, rows: Queries, seed: int, found: Sequence[Path]) -> Meter:
        """Take the words, k1 and b that most of the earlier runs in these folders chose."""
        started = time.perf_counter()
        chosen = Counter(json.dumps(read_json(folder / "estimator" / "bm25.json"), sort_keys=True) for folder in found)
        self._take(json.loads(chosen.most_common(1)[0][0]))
        return Meter(samples=rows.examples, seconds=time.perf_counter() - started, trials=1)

    def _unusual(self, setting: tuple[float, float]) -> int:
        return self.config.k1s.index(setting[0]) + self.config.bs.index(setting[1])

    def _ndcg(self, queries: Queries) -> float:
        return ndcg(self._search(queries, 10), queries)

    def most_trials(self, budget: Budget) -> int:
        settings = len(set(self.config.words)) + len(self.config.k1s) * len(self.config.bs) - 1
        return min(settings, budget.trials or settings)

    def outputs(self, split: Queries) -> np.ndarray:
        """int64 (N, 100): rows of `split.documents`, best first, -1 where no further one has a word of the query."""
        return self._search(split, DEPTH)

    def scores(self, queries: Queries, row: int) -> np.ndarray:
        """float32 (documents,): what each document gets for one of the queries; 0: no word in common."""
        text = queries["text"][row].tobytes().decode("utf-8", "replace")
        return self._engine(queries).scores(text, self.k1, self.b)

    def _search(self, queries: Queries, most: int) -> np.ndarray:
        engine, place = self._engine(queries), queries.documents["place"]
        rows = np.full((queries.examples, most), -1, dtype=np.int64)
        for query, text in enumerate(texts_of(queries["text"])):
            found, _ = engine.top(text, most, place, self.k1, self.b, int(queries["itself"][query]))
            rows[query, : len(found)] = found
        return rows

    def _engine(self, queries: Queries) -> Bm25:
        if self.analyser is None or self.analyser == queries.bm25.analyser:
            return queries.bm25
        held = self._counted
        if held is None or held[0] is not queries.documents or held[1].analyser != self.analyser:
            counted = Bm25.of(texts_of(queries.documents["text"]), self.analyser)
            held = self._counted = queries.documents, counted
        return held[1]

    def save(self, folder: Path | str) -> None:
        words = {} if self.analyser is None else vars(self.analyser)
        write_json(Path(folder) / "bm25.json", {"k1": self.k1, "b": self.b, "words": words})

    def load(self, folder: Path | str) -> Ranker:
        self._take(read_json(Path(folder) / "bm25.json"))
        return self

    def _take(self, held: dict[str, Any]) -> None:
        self.k1, self.b = float(held["k1"]), float(held["b"])
        self.analyser = Analyser(**held["words"]) if held["words"] else None


def ndcg(found: np.ndarray, queries: Queries) -> float:
    """nDCG@10 of rows int64 (N, K), best first, -1 for none."""
    grades = np.zeros(found.shape, dtype=np.int64)
    for row in range(queries.examples):
        known = dict(zip(queries["relevant"][row].tolist(), queries["grade"][row].tolist(), strict=True))
        grades[row] = [known.get(document, 0) for document in found[row].tolist()]
    return ranking_scores(grades, queries["grade"]).metrics["ndcg@10"]


def build(config: Config, facts: Facts, backbone: Any = None) -> Ranker:
    return Ranker(config)


recipes = {
    "base": Recipe("base"),
    "tiny": Recipe("tiny", config={"words": (USUAL,), "k1s": (K1,), "bs": (B,)}),
}
