"""Nearest - the answer of the most similar training source, or the source itself: nothing is written, only found.

The idea
    Much text is answered before: what was said to the most similar question is often right. Where source and target are
    nearly the same, as in corrections, the source itself is a hard answer to beat.

The equation
    answer(x) = target of the training source s with the largest x . s, both weighted by TF-IDF;  or answer(x) = x

What matters
    Words against letters, and copying: all are chosen on the validation rows.

Requires / Offers
    Texts with targets. Predicts targets that it has seen, or copies.

Relations
    The trivial reference of text_to_text that is hard to beat with little data; `tfidf` holds its weights.

Try
    papertrial fit nearest --data pairs.csv --task text_to_text

Cost
    Seconds for 10 000 pairs.

Notation
    x a source, s a training source.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from papertrial.baselines import tfidf
from papertrial.baselines.tfidf import Terms
from papertrial.core.budget import Budget, Meter
from papertrial.core.errors import DataError
from papertrial.core.facts import Facts
from papertrial.core.files import write_with
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced
from papertrial.core.run import Run
from papertrial.core.task import Ragged, Split
from papertrial.tasks._metrics import text_scores
from papertrial.tasks._texts import beyond_characters

PAPER = Paper(
    id="nearest",
    title="Nearest source by TF-IDF, or a copy",
    kind="estimator",
    method="Nearest",
    idea="The target of the most similar training source, or the source itself, whichever validates better.",
    tasks=("text_to_text",),
    tags=("text", "baseline"),
    builds_on=("tfidf",),
)
COPY = "copy"
_AT_A_TIME = 256


@checked
@dataclass(frozen=True)
class Config:
    terms: tuple[str, ...] = sourced(
        ("word:1-1", "char:2-5", COPY),
        "papertrial default; tried in this order: sorts of terms, or copy",
        "1 to 32 of any",
    )
    features: int = sourced(200_000, "papertrial default; the most frequent terms that are kept", "[1, 100000000]")
    longest: int = sourced(10_000, "papertrial default; characters read of a source", "[1, 100000000]")


class Nearest:
    """An Estimator. It keeps the training texts, and learns its terms again from them when it is read back."""

    def __init__(self, config: Config, facts: Facts) -> None:
        self.config, self.facts = config, facts
        self.sort = COPY
        self.sources, self.targets = Ragged.of_texts([]), Ragged.of_texts([])
        self._terms: Terms | None = None
        self._weighted: Any = None

    def fit(self, train: Split, valid: Split, facts: Facts, budget: Budget, seed: int, run: Run) -> Meter:
        """Try the sorts that the budget allows, on the validation rows; without any the first sort is taken."""
        started = time.perf_counter()
        self._keep(train)
        metric = facts.metric or ("chrf" if facts.kind == "pairs" else "exact_match")
        best, best_sort, trials = -1.0, COPY, 0
        for sort in self.config.terms:
            late = budget.seconds is not None and time.perf_counter() - started > budget.seconds
            if trials and (late or (budget.trials is not None and trials >= budget.trials)):
                break
            trials += 1
            try:
                self._learn(sort)
            except DataError:  # no terms of this sort, as in texts of marks alone
                continue
            found = 0.0
            if valid.examples:
                found = text_scores(self.outputs(valid), valid["target"].texts(), metric).metrics[metric]
            if found > best:
                best, best_sort = found, sort
        self._learn(best_sort)
        return Meter(samples=train.examples * trials, seconds=time.perf_counter() - started, trials=trials)

    def again(self, rows: Split, seed: int, found: Sequence[Path]) -> Meter:
        """Keep all `rows`, with the sort of terms that most of the earlier runs in these folders chose."""
        started = time.perf_counter()
        earlier = Counter(_sort_of(load_file(str(folder / "estimator" / "model.safetensors"))) for folder in found)
        self._keep(rows)
        self._learn(earlier.most_common(1)[0][0])
        return Meter(samples=rows.examples, seconds=time.perf_counter() - started, trials=1)

    def _keep(self, rows: Split) -> None:
        every = np.arange(rows.examples)
        self.sources, self.targets = rows["source"][every], rows["target"][every]

    def most_trials(self, budget: Budget) -> int:
        return min(len(self.config.terms), budget.trials or len(self.config.terms))

    def _learn(self, sort: str) -> None:
        self.sort = sort
        if sort != COPY:
            self._terms = Terms(sort, tfidf.Config(features=self.config.features))
            self._weighted = self._terms.learn(self._read(self.sources)).T.tocsr()

    def too_long(self, texts: Ragged) -> tuple[np.ndarray, str]:
        """Which texts are cut, bool (N,), and what is read of one."""
        return beyond_characters(texts, self.config.longest)

    def _read(self, texts: Ragged) -> list[str]:
        return [text[: self.config.longest] for text in texts.texts()]

    def outputs(self, split: Split) -> np.ndarray:
        """Texts (N,), str objects. Of equally near sources the first one answers."""
        if self.sort == COPY:
            return np.array(split["source"].texts(), dtype=object)
        assert self._terms is not None
        weighted = self._terms.weigh(self._read(split["source"]))
        places = [
            np.asarray((weighted[begin : begin + _AT_A_TIME] @ self._weighted).toarray().argmax(axis=1))
            for begin in range(0, split.examples, _AT_A_TIME)
        ]
        return np.array(self.targets[np.concatenate(places)].texts() if places else [], dtype=object)

    def save(self, folder: Path | str) -> None:
        held = {"sort": np.frombuffer(self.sort.encode(), dtype=np.uint8).copy()}
        for name, texts in (("source", self.sources), ("target", self.targets)):
            held |= {f"{name}.values": texts.values.copy(), f"{name}.offsets": texts.offsets.copy()}
        write_with(Path(folder) / "model.safetensors", lambda path: save_file(held, str(path)))

    def load(self, folder: Path | str) -> Nearest:
        held = load_file(str(Path(folder) / "model.safetensors"))
        self.sources, self.targets = (
            Ragged(held[f"{name}.values"], held[f"{name}.offsets"]) for name in ("source", "target")
        )
        self._learn(_sort_of(held))
        return self


def _sort_of(held: dict[str, np.ndarray]) -> str:
    return held["sort"].tobytes().decode()


def build(config: Config, facts: Facts, backbone: Any = None) -> Nearest:
    return Nearest(config, facts)


recipes = {"base": Recipe("base"), "tiny": Recipe("tiny")}
