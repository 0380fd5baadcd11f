"""BLEU - the share of an output's runs of words that its reference has too.

Kishore Papineni, Salim Roukos, Todd Ward, Wei-Jing Zhu. ACL 2002. As sacrebleu computes it (Post 2018, arXiv 1804.08771).

The idea
    A good translation shares words, and runs of words, with one that a person wrote.

The equation
    BLEU = 100 min(1, exp(1 - r / o)) exp(mean_n log p_n),  p_n: share of the runs of n words that are in the reference

What matters
    Made for whole corpora. Of a single sentence a run length without a match would make it 0, so counts are smoothed, and
    runs longer than the sentence do not count ("effective order"). Its signature says how: without it no two are comparable.

Requires / Offers
    Outputs with references, and the extra `metrics`. Predicts, 0 to 100.

Relations
    `rouge` asks the reference instead, `bertscore` compares vectors of tokens.

Try
    papertrial compare bleu rouge bertscore --data judged.csv

Cost
    Some thousand sentences a second.

Notation
    o, r words of the output and of the reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from papertrial.core.budget import Budget, Meter
from papertrial.core.errors import PapertrialError
from papertrial.core.facts import Facts
from papertrial.core.files import read_json, write_json
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced
from papertrial.core.run import Run
from papertrial.core.task import Split

PAPER = Paper(
    id="bleu",
    title="BLEU: a Method for Automatic Evaluation of Machine Translation",
    kind="estimator",
    method="Bleu",
    idea="Runs of words that output and reference share.",
    authors="Kishore Papineni, Salim Roukos, Todd Ward, Wei-Jing Zhu",
    year=2002,
    tasks=("human_judgement",),
    tags=("text", "baseline", "metric"),
    needs=("metrics",),
)


@checked
@dataclass(frozen=True)
class Config:
    tokenise: str = sourced(
        "13a",
        "sacrebleu's default, that of WMT",
        "13a | intl | zh | ja-mecab | ko-mecab | char | none | flores101 | flores200",
    )
    smoothing: str = sourced("exp", "sacrebleu's default", "exp | floor | add-k | none")
    lowercase: bool = sourced(False, "sacrebleu's default")
    longest: int = sourced(4, "ACL 2002, sec. 2.3: words of a run", "[1, 16]")


class Bleu:
    """An Estimator that learns nothing. signature: sacrebleu's, of sentences; kept in the artifact."""

    def __init__(self, config: Config) -> None:
        from sacrebleu.metrics import BLEU

        self.metric = BLEU(
            lowercase=config.lowercase, tokenize=config.tokenise, smooth_method=config.smoothing,
            max_ngram_order=config.longest, effective_order=True,
        )  # fmt: skip
        self.signature = ""

    def fit(self, train: Split, valid: Split, facts: Facts, budget: Budget, seed: int, run: Run) -> Meter:
        self.metric.sentence_score("", [""])  # its signature counts the references of the last call
        self.signature = str(self.metric.get_signature())
        return Meter(trials=1)

    def most_trials(self, budget: Budget) -> int:
        return 1

    def outputs(self, split: Split) -> np.ndarray:
        """(N,) float64, 0 to 100."""
        pairs = zip(split["output"].texts(), split["reference"].texts(), strict=True)
        return np.array([self.metric.sentence_score(output, [reference]).score for output, reference in pairs])

    def save(self, folder: Path | str) -> None:
        write_json(Path(folder) / "bleu.json", {"signature": self.signature})

    def load(self, folder: Path | str) -> Bleu:
        self.signature = str(read_json(Path(folder) / "bleu.json")["signature"])
        return self


def build(config: Config, facts: Facts, backbone: Any = None) -> Bleu:
    """Raises PapertrialError for a tokeniser whose package is missing."""
    try:
        return Bleu(config)
    except (AssertionError, ImportError, KeyError, RuntimeError, ValueError) as error:
        raise PapertrialError(
            f"sacrebleu does not take these settings ({error})", "type: papertrial read bleu"
        ) from None


recipes = {"base": Recipe("base"), "tiny": Recipe("tiny")}
