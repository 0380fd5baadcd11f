"""Dense - ranks documents by the cosine of a pretrained encoder's vectors, as they come.

Nils Reimers and Iryna Gurevych, Sentence-BERT, EMNLP 2019, arXiv 1908.10084. The encoder is all-MiniLM-L6-v2.

The idea
    Query and document become a vector each. They match when these point the same way, whatever the words.

The equation
    score(q, d) = cos(f(q), f(d))

What matters
    The encoder, which was trained elsewhere on a billion pairs: it knows synonyms that BM25 does not, and no rare names or
    numbers that BM25 does. Only the first 256 tokens of a document are read.

Requires / Offers
    A collection with queries and judgements, in English; the extra `encoder`, whose weights come with it. Ranks.

Relations
    Beside `bm25` the other first stage; `hybrid` joins the two.

Try
    papertrial fit dense --data beir_folder/

Cost
    About a minute for 5 000 documents of a page on one core.

Notation
    f the mean over the tokens of the encoder's last layer.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from papertrial.baselines._sentences import vectors
from papertrial.core.budget import Budget, Meter
from papertrial.core.facts import Facts
from papertrial.core.files import write_json
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe
from papertrial.core.run import Run
from papertrial.data.collections import Queries
from papertrial.data.collections.bm25 import best
from papertrial.tasks._metrics import DEPTH

PAPER = Paper(
    id="dense",
    title="Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks",
    kind="estimator",
    idea="Ranks documents by the cosine of the vectors of a pretrained encoder, as they come.",
    authors="Nils Reimers, Iryna Gurevych",
    year=2019,
    arxiv="1908.10084",
    method="Dense",
    tasks=("retrieval",),
    tags=("text", "baseline", "pretrained"),
    needs=("encoder", "text"),
    licence="Apache-2.0",
    caveats=("The weights were trained on pairs from the web: your test queries may be among them.",),
)


@dataclass(frozen=True)
class Config:
    """Nothing to set."""


class Dense:
    """An Estimator that learns nothing."""

    def fit(self, train: Queries, valid: Queries, facts: Facts, budget: Budget, seed: int, run: Run) -> Meter:
        """Read the documents, which is all it costs. Raises Declined for more than there is time for."""
        started = time.perf_counter()
        _, seconds = vectors(train.documents["text"], budget)
        return Meter(seconds=max(seconds, time.perf_counter() - started), trials=1)

    def most_trials(self, budget: Budget) -> int:
        return 1

    def outputs(self, split: Queries) -> np.ndarray:
        """int64 (N, 100): rows of `split.documents`, best first, -1 where there are no more."""
        asked, documents = vectors(split["text"])[0], vectors(split.documents["text"])[0]
        rows = np.full((split.examples, DEPTH), -1, dtype=np.int64)
        for query in range(split.examples):
            found = best(documents @ asked[query], DEPTH, split.documents["place"], int(split["itself"][query]))
            rows[query, : len(found)] = found
        return rows

    def save(self, folder: Path | str) -> None:
        write_json(Path(folder) / "dense.json", {"encoder": "minilm"})

    def load(self, folder: Path | str) -> Dense:
        return self


def build(config: Config, facts: Facts, backbone: Any = None) -> Dense:
    return Dense()


recipes = {
    # DIFF: the paper trains its encoder on sentences that entail each other; this one was trained on pairs from the web
    "paper": Recipe("paper", source="sec. 3, the mean of all tokens", cost="seconds on a CPU"),
    "base": Recipe("base"),
    "tiny": Recipe("tiny"),
}
