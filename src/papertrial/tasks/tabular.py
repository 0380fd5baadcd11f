"""Predict a column of a table from the others; papers are measured against boosted trees tuned within the same budget.

Protocol, version 1
    Split     The test rows are those given, or a fifth of the rows, the same for every seed. The validation rows are
              those given, or a fifth of the rest, drawn by the seed. Classes keep their shares, and groups that the user
              names and rows with equal columns stay on one side (unless the columns have so few possible rows that
              repeats are to be expected).
    Columns   Numbers, booleans and dates as numbers, NaN for missing; texts as the categories of the training rows. Whether
              a number is missing is a number of its own where training rows lack it.
    Metric    Accuracy for classes, but average precision where the rarer of two has less than a tenth of the rows, and macro
              F1 where one of more has three quarters; RMSE for numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import softmax
from torch import nn

from papertrial.core.budget import Budget
from papertrial.core.errors import DataError, Declined
from papertrial.core.facts import Facts
from papertrial.core.task import Prepared, Scores, Split, Supports
from papertrial.core.wording import counted
from papertrial.data.base import WHOLE
from papertrial.nn.heads import Supervised, fit_inputs
from papertrial.tasks import _columns
from papertrial.tasks._choosing import ACCURACY, RMSE, chosen, for_classes, unusual
from papertrial.tasks._common import Common, encoder_of, estimated, through
from papertrial.tasks._metrics import classification_scores, groups_of, primary, regression_scores
from papertrial.tasks._split import require_shares

SPLIT_SEED = 20_210_600
_CHUNK = 4096


class TabularTask(Common):
    """Columns "numeric" float32 (N, F), "categorical" int64 (N, C) with code == cardinality for unseen and missing, and
    "label" int64 (N,), -1 for missing, or "target" float32 (N,), NaN for missing."""

    name = "tabular"
    version = 1
    kind = "table"
    inputs = ("numeric", "categorical")
    references = ("catboost", "xgboost", "lightgbm")
    floors = ("linear", "majority")
    budget = Budget(seconds=30)

    def primary_for(self, state: Mapping[str, Any]) -> tuple[str, bool]:
        metric = primary(state, "accuracy" if "class_names" in state else "rmse")
        return metric.name, metric.higher

    def supports(self, look: Any) -> Supports:
        if look.kind != self.kind:
            return Supports(False, f"it takes a table, and {look.name} is {look.what}")
        if look.numbers.get("target") is None:
            return Supports(False, "there is no column to predict; name it with --target")
        if not look.numbers.get("labelled"):
            return Supports(False, f"the target {look.numbers['target']!r} has no values")
        if look.numbers.get("target_kind") is None:
            return Supports(False, f"the target {look.numbers['target']!r} has one value only")
        if not look.numbers.get("numeric") and not look.numbers.get("categorical"):
            return Supports(False, "no column but the target can be used")
        return Supports(True)

    def prepare(
        self,
        data: Any,
        seed: int = 0,
        fraction: float = 1.0,
        test_share: float = 0.2,
        valid_share: float = 0.2,
        metric: str | None = None,
    ) -> Prepared:
        """fraction: share of the rows outside of the test that is used.  test_share, valid_share: sizes of the parts that
        the data does not give.  metric: what is judged by, in place of what the data call for.

        Raises DataError when there is no target, no column to predict from, or too few rows, PapertrialError for a share
        out of range.
        """
        require_shares(fraction, test_share, valid_share)
        self.require(data)
        columns, class_names = self._target(data)
        target = next(iter(columns.values()))
        known = target >= 0 if class_names else np.isfinite(target)
        strata = target if class_names else np.zeros(data.rows, dtype=np.int64)
        train, valid, test, notes = self._split(data, strata, known, seed, fraction, test_share, valid_share)
        kept, inputs, left_out = _columns.chosen(data, train)
        state: dict[str, Any] = {**kept, "target": data.target}
        if class_names:
            state |= {"class_names": list(class_names), **for_classes(metric, target, class_names, notes, "rows")}
        else:
            mean, std = float(target[train].mean(dtype=np.float64)), float(target[train].std(dtype=np.float64))
            state |= {"target_mean": mean, "target_std": std or 1.0, "metric": chosen(metric, "values", RMSE)}
        whole = Split({**inputs, **columns})
        facts = Facts(
            "table",
            len(train),
            len(train),
            numeric=inputs["numeric"].shape[1],
            cardinalities=tuple(len(listed) for listed in state["categories"].values()),
            classes=len(class_names),
            outputs=len(class_names) or 1,
            metric=unusual(state["metric"], ACCURACY if class_names else RMSE),
        )
        notes += left_out
        choosing, judged = (whole.take(rows).grouped(data.groups[rows]) for rows in (valid, test))
        judged = Split({**judged, "row": test})
        notes += unseen(state, judged)
        return Prepared(whole.take(train), choosing, judged, facts, state, tuple(notes))

    def strata(self, data: Any) -> np.ndarray:
        """The class of each row, or 0 for numbers to predict; -1 without a target."""
        columns, class_names = self._target(data)
        target = next(iter(columns.values()))
        return target if class_names else np.where(np.isfinite(target), 0, -1)

    @staticmethod
    def _target(data: Any) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
        if data.target_kind == "regression":
            return {"target": data.values()}, ()
        label, class_names = data.labels()
        return {"label": label}, class_names

    @staticmethod
    def _split(
        data: Any,
        strata: np.ndarray,
        known: np.ndarray,
        seed: int,
        fraction: float,
        test_share: float,
        valid_share: float,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
        groups = data.groups
        part = np.where(known, data.part, -1)
        notes: list[str] = []
        if not known.all():
            without = int((~known).sum())  # in the words of the facts page, so that it is said once
            notes.append(f"{counted(without, 'row')} without a target: not used to train or score supervised methods")
        if (part == WHOLE).any():
            return np.flatnonzero(part == WHOLE), np.flatnonzero(part == 1), np.zeros(0, dtype=np.int64), notes
        if not (part == 2).any():
            free = np.flatnonzero(part == 0)
            part[free[drawn(strata[free], groups[free], test_share, np.random.default_rng(SPLIT_SEED))]] = 2
            notes.append(f"test: {(part == 2).sum()} of {known.sum()} rows, the same for every seed")
        if not (part == 1).any():
            free = np.flatnonzero(part == 0)
            part[free[drawn(strata[free], groups[free], valid_share, np.random.default_rng([seed, 0]))]] = 1
        for index in (0, 1):
            rows = np.flatnonzero(part == index)
            dropped = drawn(
                strata[rows], np.arange(len(rows)), 1 - float(fraction), np.random.default_rng([seed, 1, index])
            )
            part[rows[dropped]] = -1
        train, valid, test = (np.flatnonzero(part == index) for index in (0, 1, 2))
        if not len(train) or not len(valid) or not len(test):
            raise DataError(
                f"{data.name} has too few rows ({known.sum()} with a target) for training, validation and test",
                "give at least 10 rows, or a larger fraction",
            )
        return train, valid, test, notes

    def encode(self, state: Mapping[str, Any], data: Any) -> Split:
        """The columns of a new table. Raises DataError naming a column that is missing or no longer holds numbers."""
        data = data.like(state.get("columns") or {})
        columns = _columns.again(state, data)
        if state["target"] in data.columns:
            if "class_names" in state:
                columns["label"] = data.labels(state["target"], state["class_names"])[0]
            else:
                columns["target"] = data.values(state["target"])
        return Split(columns)

    def unseen(self, state: Mapping[str, Any], split: Split) -> list[str]:
        return unseen(state, split)

    def build(self, method: Any, config: Any, optim: Any, prepared: Prepared, backbone: nn.Module | None = None) -> Any:
        """Raises Declined when the method is not for tables."""
        facts, state = prepared.facts, prepared.state
        if self.name not in method.paper.tasks:
            raise Declined(f"{method.id} is not made for tables", "type: papertrial list")
        if method.paper.kind == "estimator":
            return method.module.build(config, facts)
        if method.paper.kind != "architecture":
            raise self.cannot_train(method)
        return Supervised(
            method.module.build(config, facts),
            facts.outputs,
            "classes" if facts.classes else "value",
            self.inputs,
            optim.label_smoothing,
            state.get("target_mean", 0.0),
            state.get("target_std", 1.0),
        )

    def training(self, model: Any, prepared: Prepared) -> Split:
        fit_inputs(model, prepared.train)
        return prepared.train

    def outputs(self, model: Any, head: Mapping[str, np.ndarray], split: Split) -> np.ndarray:
        """Probabilities (N, classes) or values (N,), float64."""
        if not isinstance(model, nn.Module):
            return estimated(model, split)
        out = self._through(model, model, split).astype(np.float64)
        return softmax(out, axis=1) if model.kind == "classes" else out

    def embed(self, model: Any, split: Split) -> np.ndarray:
        """(N, width) float32. Raises Declined for trees and other methods without features."""
        return self._through(model, encoder_of(model), split)

    def _through(self, model: nn.Module, part: nn.Module, split: Split) -> np.ndarray:
        return through(model, part, {name: split[name] for name in self.inputs}, _CHUNK)

    def score(self, outputs: np.ndarray, split: Split, state: Mapping[str, Any]) -> Scores:
        """Rows without a target are left out."""
        metric, _ = self.primary_for(state)
        if "class_names" in state:
            judged = split["label"] >= 0
            names, groups, positive = state["class_names"], groups_of(split, judged), state.get("positive")
            return classification_scores(outputs[judged], split["label"][judged], names, metric, groups, positive)
        judged = np.isfinite(split["target"])
        return regression_scores(outputs[judged], split["target"][judged], metric, groups_of(split, judged))


TASK = TabularTask()


def unseen(state: Mapping[str, Any], split: Split) -> list[str]:
    """A line for each categorical column with values in `split` that training did not have, or that are missing."""
    lines = []
    for index, (name, categories) in enumerate(state["categories"].items()):
        count = int((split["categorical"][:, index] == len(categories)).sum())
        if count:
            lines.append(
                f"column {name!r}: {count} of {split.examples} rows have a missing value or a category unseen in training"
            )
    return lines


def drawn(strata: np.ndarray, groups: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """A random mask (N,) with a share of each stratum, never all of it; rows of one group are taken together."""
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    label = strata[first]
    order = np.lexsort((rng.random(len(label)), label))
    _, start, count = np.unique(label[order], return_index=True, return_counts=True)
    wanted = np.minimum(np.floor(count * share + 0.5), count - 1)
    chosen = np.zeros(len(label), dtype=bool)
    chosen[order] = np.arange(len(label)) - np.repeat(start, count) < np.repeat(wanted, count)
    return chosen[group]
