"""Linear - logistic or ridge regression on standardised numbers and one-hot categories.

The idea
    What the columns say one by one, without any interaction: the simplest model that looks at the example.

The equation
    p = softmax(W x + b) with penalty |W|^2 / 2C;  y = w x + b with penalty |w|^2 / 2C

What matters
    The penalty, chosen on the validation rows from a short grid.

Requires / Offers
    A table with a target. Missing numbers count as the mean, unseen categories as none. Predicts.

Relations
    Where it is level with `catboost` and `rtdl`, the columns do not interact.

Try
    papertrial fit linear --data table.csv --target y

Cost
    Seconds for 20 000 rows.

Notation
    N rows, W weights, C inverse strength of the penalty.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from scipy import sparse
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor, nn

from papertrial.core.budget import Budget, Meter
from papertrial.core.errors import DataError
from papertrial.core.facts import Facts
from papertrial.core.files import write_with
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced
from papertrial.core.run import Run
from papertrial.core.task import Split
from papertrial.tasks._choosing import loss_by

PAPER = Paper(
    id="linear",
    title="Linear model",
    kind="estimator",
    idea="Logistic or ridge regression on standardised numbers and one-hot categories.",
    method="Linear",
    tasks=("tabular",),
    tags=("tables", "baseline", "floor"),
)


@checked
@dataclass(frozen=True)
class Config:
    penalties: tuple[float, ...] = sourced(
        (0.01, 1.0, 100.0), "papertrial default; values of C, strongest penalty first", "1 to 32 of [1e-9, 1e9]"
    )
    iterations: int = sourced(300, "papertrial default; most steps of the logistic solver", "[1, 1000000]")


class Linear:
    """An Estimator: the linear model of the best penalty."""

    def __init__(self, config: Config, facts: Facts) -> None:
        self.config, self.facts = config, facts
        self.arrays: dict[str, np.ndarray] = {}

    def fit(self, train: Split, valid: Split, facts: Facts, budget: Budget, seed: int, run: Run) -> Meter:
        """Try the penalties in order until the budget is spent. Raises DataError with a single class."""
        started = time.perf_counter()
        kind = "label" if self.facts.classes else "target"
        if self.facts.classes and len(np.unique(train["label"])) < 2:
            raise DataError("the training rows hold a single class", "give more rows")
        self._measure(train)
        features, trials, best = self._features(train), 0, np.inf
        for inverse in self.config.penalties[: budget.trials]:
            if trials and budget.seconds is not None and time.perf_counter() - started > budget.seconds:
                break
            trials += 1
            solved = self._solve(features, np.asarray(train[kind]), inverse) | {"penalty": np.array([inverse])}
            before, self.arrays = self.arrays, {**self.arrays, **solved}
            loss = self._loss(valid if valid.examples else train, kind)
            if loss < best:
                best = loss
            else:
                self.arrays = before
        return Meter(samples=train.examples * trials, seconds=time.perf_counter() - started, trials=trials)

    def again(self, rows: Split, seed: int, found: Sequence[Path]) -> Meter:
        """Learn from all `rows` with the penalty that most of the earlier runs in these folders chose."""
        started = time.perf_counter()
        earlier = [float(load_file(str(folder / "estimator" / "model.safetensors"))["penalty"][0]) for folder in found]
        inverse = max(self.config.penalties, key=lambda one: (sum(np.isclose(one, earlier)), -one))
        self._measure(rows)
        kind = "label" if self.facts.classes else "target"
        self.arrays |= self._solve(self._features(rows), np.asarray(rows[kind]), inverse) | {
            "penalty": np.array([inverse])
        }
        return Meter(samples=rows.examples, seconds=time.perf_counter() - started, trials=1)

    def _measure(self, rows: Split) -> None:
        """The mean and the spread of the numbers, by which they are standardised."""
        numeric = np.asarray(rows["numeric"], dtype=np.float64)
        known = np.isfinite(numeric)
        count = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, numeric, 0).sum(axis=0) / count
        std = np.sqrt((np.where(known, numeric - mean, 0) ** 2).sum(axis=0) / count)
        self.arrays = {"mean": mean, "std": np.where(std > 0, std, 1.0)}

    def most_trials(self, budget: Budget) -> int:
        return min(len(self.config.penalties), budget.trials or len(self.config.penalties))

    def _solve(self, features: Any, target: np.ndarray, inverse: float) -> dict[str, np.ndarray]:
        if not self.facts.classes:
            ridge = Ridge(alpha=1 / inverse).fit(features, target.astype(np.float64))
            return {"weight": ridge.coef_.reshape(1, -1), "bias": np.reshape(ridge.intercept_, 1).astype(np.float64)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a floor need not be at its optimum to the last digit
            logistic = LogisticRegression(C=inverse, max_iter=self.config.iterations).fit(features, target)
        # Classes that the training rows lack get no probability.
        weight = np.zeros((self.facts.classes, features.shape[1]))
        bias = np.full(self.facts.classes, -np.inf)
        two = len(logistic.classes_) == 2
        weight[logistic.classes_[-len(logistic.coef_) :]] = logistic.coef_
        bias[logistic.classes_] = [0.0, *logistic.intercept_] if two else logistic.intercept_
        return {"weight": weight, "bias": bias}

    def _loss(self, split: Split, kind: str) -> float:
        out = self.outputs(split)
        if (named := loss_by(self.facts.metric, out, split)) is not None:
            return named
        if kind == "target":
            return float(np.mean((out - split["target"]) ** 2))
        right = out[np.arange(len(out)), split["label"]]
        return float(-np.log(right.clip(1e-15)).mean())

    def _features(self, split: Split) -> Any:
        numeric = (np.asarray(split["numeric"], dtype=np.float64) - self.arrays["mean"]) / self.arrays["std"]
        numeric = np.where(np.isfinite(numeric), numeric, 0.0)
        if not self.facts.cardinalities:
            return numeric
        codes, sizes = np.asarray(split["categorical"]), np.asarray(self.facts.cardinalities)
        seen = codes < sizes
        columns = (codes + np.cumsum(sizes) - sizes)[seen]
        rows = np.nonzero(seen)[0]
        shape = (split.examples, int(sizes.sum()))
        hot = sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)
        return sparse.hstack([sparse.csr_array(numeric), hot], format="csr")

    def outputs(self, split: Split) -> np.ndarray:
        """Probabilities (N, classes) or values (N,), float64."""
        out = self._features(split) @ self.arrays["weight"].T + self.arrays["bias"]
        return softmax(out, axis=1) if self.facts.classes else out[:, 0]

    def as_module(self) -> nn.Module:
        """The same model in PyTorch, for export."""
        return Network(self.arrays, self.facts)

    def save(self, folder: Path | str) -> None:
        arrays = {name: np.ascontiguousarray(array) for name, array in self.arrays.items()}
        write_with(Path(folder) / "model.safetensors", lambda path: save_file(arrays, str(path)))

    def load(self, folder: Path | str) -> Linear:
        self.arrays = load_file(str(Path(folder) / "model.safetensors"))
        return self


class Network(nn.Module):
    """A fitted linear model: (B, F) numbers and (B, C) int64 codes -> logits (B, classes) or values (B,), float64."""

    def __init__(self, arrays: Mapping[str, np.ndarray], facts: Facts) -> None:
        super().__init__()
        numbers, categories = np.split(arrays["weight"].T, [facts.numeric])
        buffers = {"mean": arrays["mean"], "std": arrays["std"], "bias": arrays["bias"], "weight": numbers}
        if facts.cardinalities:
            buffers["table"] = np.concatenate([categories, np.zeros((1, categories.shape[1]))])  # the last row: unseen
            buffers["sizes"] = np.array(facts.cardinalities)
            buffers["first"] = np.cumsum(facts.cardinalities) - facts.cardinalities
        for name, array in buffers.items():
            self.register_buffer(name, torch.from_numpy(np.array(array)))
        self.facts = facts

    def forward(self, numeric: Tensor, categorical: Tensor) -> Tensor:
        scaled = (numeric.double() - self.mean) / self.std
        out = torch.where(scaled.isfinite(), scaled, 0.0) @ self.weight + self.bias
        if self.facts.cardinalities:
            rows = torch.where(categorical < self.sizes, categorical + self.first, len(self.table) - 1)
            out = out + self.table[rows].sum(1)
        return out if self.facts.classes else out[:, 0]


def build(config: Config, facts: Facts, backbone: Any = None) -> Linear:
    return Linear(config, facts)


recipes = {"base": Recipe("base"), "tiny": Recipe("tiny", config={"penalties": (1.0,)})}
