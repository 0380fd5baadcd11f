"""TF-IDF and MiniLM, joined - counts of words beside the vector of a pretrained encoder, under one logistic regression.

The idea
    Counts know the words of this data, the vector knows what words mean elsewhere. Under one regression each mends what the
    other misses, for the price of reading the texts once.

The equation
    p(class | x) = softmax(W [t(x), s f(x)] + b) with penalty |W|^2 / 2C

What matters
    The scale s of the vector against the counts, which decides whose weights the penalty spares, and the penalty: both are
    chosen on the validation rows, as is which terms are counted.

Requires / Offers
    Texts with classes, in English; the extra `encoder`, whose weights come with it. Predicts.

Relations
    `tfidf` alone, and `untrained` with minilm, which is the vector alone.

Try
    papertrial fit tfidf_minilm --data reviews.csv

Cost
    A minute for 10 000 sentences on one core.

Notation
    t(x) the weighted counts and f(x) the mean over the tokens of the encoder's last layer, both of length one.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from papertrial.baselines import tfidf
from papertrial.baselines._sentences import vectors
from papertrial.core.budget import Budget, Meter
from papertrial.core.facts import Facts
from papertrial.core.files import read_json, write_json
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced
from papertrial.core.run import Run
from papertrial.core.task import Ragged, Split

PAPER = Paper(
    id="tfidf_minilm",
    title="TF-IDF and MiniLM, joined",
    kind="estimator",
    method="Joined",
    idea="Counts of words beside the vector of a pretrained encoder, under one logistic regression.",
    tasks=("text_classification",),
    tags=("text", "baseline", "pretrained"),
    builds_on=("tfidf",),
    needs=("encoder", "text"),
    licence="Apache-2.0",
    caveats=("The encoder's weights were trained on a billion pairs from the web: your test texts may be among them.",),
)


@checked
@dataclass(frozen=True)
class Config(tfidf.Config):
    terms: tuple[str, ...] = sourced(
        ("word:1-2", "word:1-2 char:2-5"), "papertrial default; tried in this order", "1 to 32 of any"
    )
    penalties: tuple[float, ...] = sourced(
        (10.0, 1.0, 30.0), "papertrial default; values of C, tried in this order", "1 to 32 of [1e-9, 1e9]"
    )
    scales: tuple[float, ...] = sourced(
        (1.0, 0.5), "papertrial default; of the vector, tried in this order", "1 to 32 of [0, 1000]"
    )


class Joined(tfidf.Tfidf):
    """An Estimator: TF-IDF whose rows go on with the vector of the text."""

    config: Config

    @property
    def scales(self) -> tuple[float, ...]:
        return self.config.scales

    def fit(self, train: Split, valid: Split, facts: Facts, budget: Budget, seed: int, run: Run) -> Meter:
        """Read the texts, then tune as TF-IDF does within what is left of the budget.

        Raises what TF-IDF raises, and Declined for more texts than there is time to read.
        """
        started = time.perf_counter()
        charged = sum(vectors(split["text"], budget)[1] for split in (train, valid))
        charged = max(charged, time.perf_counter() - started)
        left = None if budget.seconds is None else max(0.0, budget.seconds - charged)
        found = super().fit(train, valid, facts, replace(budget, seconds=left), seed, run)
        return replace(found, seconds=found.seconds + charged)

    def _beside_counts(self, counts: sparse.csr_matrix, texts: Ragged, scale: float) -> sparse.csr_matrix:
        return sparse.hstack([counts, scale * sparse.csr_matrix(vectors(texts)[0])], format="csr", dtype=np.float32)

    def save(self, folder: Path | str) -> None:
        super().save(folder)
        write_json(Path(folder) / "joined.json", {"encoder": "minilm", "scale": self.scale})

    def load(self, folder: Path | str) -> Joined:
        super().load(folder)
        self.scale = float(read_json(Path(folder) / "joined.json")["scale"])
        return self


def build(config: Config, facts: Facts, backbone: Any = None) -> Joined:
    return Joined(config, facts)


recipes = {
    "base": Recipe("base"),
    "tiny": Recipe("tiny", config={"terms": ("word:1-2",), "penalties": (10.0,), "scales": (1.0,)}),
}
