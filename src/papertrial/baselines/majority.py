"""Majority - the answer that does not look at the example: class shares, the mean, or the shares of bytes.

The idea
    What a method must beat before its inputs count for anything.

The equation
    p(class) = its share of the training labels;  y = mean of the training targets;
    p(byte) = (its count + 1) / (all bytes + 256), whatever stands before it

What matters
    On unbalanced classes its accuracy is high and its balanced accuracy is one over the number of classes.

Requires / Offers
    Labels, a target, or running text. Predicts.

Relations
    The floor of every supervised task.

Try
    papertrial fit majority --data table.csv --target y

Cost
    Nothing.

Notation
    None.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from papertrial.core.budget import Budget, Meter
from papertrial.core.errors import DataError
from papertrial.core.facts import Facts
from papertrial.core.files import write_with
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe
from papertrial.core.run import Run
from papertrial.core.task import Split

PAPER = Paper(
    id="majority",
    title="Majority class or mean",
    kind="estimator",
    idea="The same answer for every example: class shares, the mean, the commonest text, or the shares of bytes.",
    method="Majority",
    tasks=(
        "tabular",
        "image_classification",
        "image_representation",
        "text_classification",
        "sentence_similarity",
        "language_modeling",
        "text_to_text",
    ),
    tags=("baseline", "floor"),
)


@dataclass(frozen=True)
class Config:
    pass


class Majority:
    """An Estimator that reads only "label" (-1: unlabelled), "target" (numbers or texts), or the bytes of "text"."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.answer = np.zeros(max(facts.classes, 1))

    def fit(self, train: Split, valid: Split, facts: Facts, budget: Budget, seed: int, run: Run) -> Meter:
        """Raises DataError without labelled examples."""
        started = time.perf_counter()
        if self.facts.causal:
            text = train["text"]
            counts = np.bincount(text.values[text.offsets[0] : text.offsets[-1]], minlength=256) + 1
            self.answer = counts / counts.sum()
            return Meter(samples=train.examples, seconds=time.perf_counter() - started, trials=1)
        if self.facts.writes:
            commonest, _ = Counter(train["target"].texts()).most_common(1)[0]
            self.answer = np.frombuffer(commonest.encode(), dtype=np.uint8)
            return Meter(samples=train.examples, seconds=time.perf_counter() - started, trials=1)
        known = train["label"][train["label"] >= 0] if self.facts.classes else train["target"]
        if not len(known):
            raise DataError("there are no labelled training examples", "add labels")
        if self.facts.classes:
            self.answer = np.bincount(known, minlength=self.facts.classes) / len(known)
        else:
            self.answer = np.mean(known, dtype=np.float64, keepdims=True)
        return Meter(samples=len(known), seconds=time.perf_counter() - started, trials=1)

    def most_trials(self, budget: Budget) -> int:
        return 1

    def outputs(self, split: Split) -> np.ndarray:
        """(N, classes) or (N,), float64; of running text the bits of each row; texts (N,) where texts are answers."""
        if self.facts.causal:
            text = split["text"]
            bits = np.concatenate([[0.0], np.cumsum(-np.log2(self.answer)[text.values])])
            return bits[text.offsets[1:]] - bits[text.offsets[:-1]]
        if self.facts.writes:
            return np.full(split.examples, self.answer.tobytes().decode(), dtype=object)
        if self.facts.classes:
            return np.tile(self.answer, (split.examples, 1))
        return np.full(split.examples, self.answer[0])

    def save(self, folder: Path | str) -> None:
        write_with(Path(folder) / "model.safetensors", lambda path: save_file({"answer": self.answer}, str(path)))

    def load(self, folder: Path | str) -> Majority:
        self.answer = load_file(str(Path(folder) / "model.safetensors"))["answer"]
        return self


def build(config: Config, facts: Facts, backbone: Any = None) -> Majority:
    return Majority(facts)


recipes = {"base": Recipe("base"), "tiny": Recipe("tiny")}
