"""ROUGE - how much of the reference an output has: its words, or the longest sequence of them in the same order.

Chin-Yew Lin. ACL workshop "Text Summarization Branches Out", 2004. As the package rouge-score computes it.

The idea
    A good summary has what the reference summary has.

The equation
    ROUGE-L = 2 P R / (P + R),  P = l / o,  R = l / r,  l: length of the longest common subsequence of words

What matters
    Words are stemmed. ROUGE-L takes the text as one sequence; ROUGE-Lsum sentence by sentence, which are its lines: the two
    differ wherever there is a line break.

Requires / Offers
    Outputs with references, and the extra `metrics`. Predicts, 0 to 1.

Relations
    `bleu` asks the output instead. `rouge:1`, `rouge:2` and `rouge:Lsum` are its other forms.

Try
    papertrial compare rouge:1 rouge:2 bleu --data judged.csv

Cost
    Some thousand short texts a second.

Notation
    o, r words of the output and of the reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from papertrial.core.budget import Budget, Meter
from papertrial.core.facts import Facts
from papertrial.core.files import read_json, write_json
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced
from papertrial.core.run import Run
from papertrial.core.task import Split

PAPER = Paper(
    id="rouge",
    title="ROUGE: A Package for Automatic Evaluation of Summaries",
    kind="estimator",
    method="Rouge",
    idea="Words of the reference that the output has, in their order.",
    authors="Chin-Yew Lin",
    year=2004,
    tasks=("human_judgement",),
    tags=("text", "baseline", "metric"),
    needs=("metrics",),
)
_FORMS = ("rouge1", "rouge2", "rougeL", "rougeLsum")


@checked
@dataclass(frozen=True)
class Config:
    form: str = sourced("rougeL", "papertrial default: the one without a length to choose", " | ".join(_FORMS))
    stemming: bool = sourced(True, "google-research/rouge, as summarisation papers use it")


class Rouge:
    """An Estimator that learns nothing. signature: form, stemming and version of the package; kept in the artifact."""

    def __init__(self, config: Config) -> None:
        from rouge_score.rouge_scorer import RougeScorer

        self.form = config.form
        self.scorer = RougeScorer([config.form], use_stemmer=config.stemming)
        stemmed = "yes" if config.stemming else "no"
        self.signature = f"{config.form}|f1|stem:{stemmed}|rouge-score:{version('rouge-score')}"

    def fit(self, train: Split, valid: Split, facts: Facts, budget: Budget, seed: int, run: Run) -> Meter:
        return Meter(trials=1)

    def most_trials(self, budget: Budget) -> int:
        return 1

    def outputs(self, split: Split) -> np.ndarray:
        """F1 (N,) float64, 0 to 1."""
        pairs = zip(split["output"].texts(), split["reference"].texts(), strict=True)
        return np.array([self.scorer.score(reference, output)[self.form].fmeasure for output, reference in pairs])

    def save(self, folder: Path | str) -> None:
        write_json(Path(folder) / "rouge.json", {"signature": self.signature})

    def load(self, folder: Path | str) -> Rouge:
        self.signature = str(read_json(Path(folder) / "rouge.json")["signature"])
        return self


def build(config: Config, facts: Facts, backbone: Any = None) -> Rouge:
    return Rouge(config)


variants = {"1": {"form": "rouge1"}, "2": {"form": "rouge2"}, "Lsum": {"form": "rougeLsum"}}

recipes = {"base": Recipe("base"), "tiny": Recipe("tiny")}
