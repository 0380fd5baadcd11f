"""Boosted trees tuned within a budget: what xgboost, lightgbm and catboost share.

Every trial trains with early stopping on the validation rows; Optuna's TPE proposes the next one. A trial is judged as
the paper does, by accuracy or RMSE on the validation rows, or by the metric that is judged by; the log loss decides between
equal ones.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import optuna
import torch
from optuna.distributions import BaseDistribution

import papertrial
from papertrial.core.budget import Budget, Energy, Meter
from papertrial.core.errors import DataError, PapertrialError
from papertrial.core.facts import Facts
from papertrial.core.files import disk_errors, to_json, write_bytes
from papertrial.core.run import TRIED, Run
from papertrial.core.task import Split
from papertrial.tasks._choosing import loss_by
from papertrial.train.energy import EnergyMeter

#: trials when the budget names neither trials nor seconds (the paper's number, supplement)
TRIALS = 100
#: the folder in that of a run where `save` wrote
ESTIMATOR = "estimator"


class Library(Protocol):
    """One boosting library. `model` is its own booster; `rows` are what `matrix` makes of a split.

    config: has `rounds` and `stop_after`.  space: what is tuned.  first: the settings of the first trial.
    """

    config: Any
    space: Mapping[str, BaseDistribution]
    first: Mapping[str, Any]

    def matrix(self, split: Split) -> Any:
        """The columns (and the target, where the split has it) in the library's own form."""

    def train(self, params: Mapping[str, Any], train: Any, valid: Any, seed: int, spent: Callable[[], bool]) -> Any:
        """A booster cut back to its best round; stops early once `spent()` is true."""

    def outputs(self, model: Any, rows: Any) -> np.ndarray:
        """Probabilities (N, classes) or values (N,)."""

    def rounds(self, model: Any) -> int:
        """How many it has."""

    def save(self, model: Any, folder: Path) -> None: ...

    def load(self, folder: Path) -> Any: ...


@dataclass(frozen=True)
class Trial:
    """A finished trial, one line of trials.jsonl. error: share of wrong answers, RMSE, or what `loss_by` gives, on the
    validation rows."""

    number: int
    params: dict[str, Any]
    error: float
    log_loss: float
    seconds: float
    energy: Energy

    @property
    def rank(self) -> tuple[float, float]:
        return self.error, self.log_loss


class TunedTrees:
    """An Estimator: the best of several trials of one library.

    With `budget.trials` the result depends on the data and the seed alone; with `budget.seconds` also on the speed of
    the machine. Finished trials and the best model so far lie in the run's folder, so a killed run goes on.
    """

    def __init__(self, library: Library, facts: Facts) -> None:
        self.library, self.facts = library, facts
        self.model: Any = None

    def fit(self, train: Split, valid: Split, facts: Facts, budget: Budget, seed: int, run: Run) -> Meter:
        """Tune on `train` and `valid`. Raises DataError without validation rows or with a single class."""
        if not train.examples or not valid.examples:
            raise DataError("boosted trees need training and validation rows", "give more rows")
        if self.facts.classes and len(np.unique(train["label"])) < 2:
            raise DataError("the training rows hold a single class", "give more rows")
        most = self.most_trials(budget)
        trials = _read(run.path("trials.jsonl"))
        if trials and not _folder(run, min(trials, key=lambda done: done.rank).number).exists():
            run.path("trials.jsonl").unlink()  # the best model is gone, as where --fresh was killed: tuned again
            trials = []
        spent = sum(trial.seconds for trial in trials)
        started = time.perf_counter()

        def remaining() -> float:
            return float("inf") if budget.seconds is None else budget.seconds - spent - time.perf_counter() + started

        study = _study(self.library, trials)
        rows, held = (self.library.matrix(split) for split in (train, valid))
        before = started
        meter = EnergyMeter()
        counted = meter.read()
        while not trials or (remaining() > 0 and (most is None or len(trials) < most)):
            number = len(trials)
            # A sampler of its own for each trial: a resumed run proposes what an uninterrupted one would have.
            study.sampler = optuna.samplers.TPESampler(
                seed=int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
            )
            proposal = study.ask(dict(self.library.space))
            model = self.library.train(proposal.params, rows, held, seed, lambda: remaining() <= 0)
            error, log_loss = _judge(self.library.outputs(model, held), valid, self.facts.metric)
            study.tell(proposal, error)
            now = time.perf_counter()
            energy = meter.read()
            trial = Trial(number, dict(proposal.params), error, log_loss, now - before, energy.since(counted))
            before, counted = now, energy
            best = min(trials, key=lambda done: done.rank, default=None)
            if best is None or trial.rank < best.rank:
                self._keep(model, run, number)
            trials.append(trial)
            _append(run.path("trials.jsonl"), trial)
            if best is not None and trial.rank < best.rank:
                shutil.rmtree(_folder(run, best.number), ignore_errors=True)
        winner = min(trials, key=lambda done: done.rank)
        self.load(_folder(run, winner.number))
        meter.close()
        cost = Meter(samples=train.examples * len(trials), seconds=sum(t.seconds for t in trials), trials=len(trials))
        return cost.with_energy(sum((trial.energy for trial in trials), Energy()))

    def again(self, rows: Split, seed: int, found: Sequence[Path]) -> Meter:
        """Learn from all `rows` with the settings and the rounds of the best trial in the folders of earlier runs."""
        best = min(
            ((trial.rank, folder, trial) for folder in found for trial in _read(folder / "trials.jsonl")),
            key=lambda one: one[0],
        )
        _, folder, trial = best
        rounds = self.library.rounds(self.library.load(folder / ESTIMATOR))
        started = time.perf_counter()
        self.library.config = replace(self.library.config, rounds=rounds, stop_after=rounds + 1)
        matrix = self.library.matrix(rows)
        self.model = self.library.train(trial.params, matrix, matrix, seed, lambda: False)
        return Meter(samples=rows.examples, seconds=time.perf_counter() - started, trials=1)

    def most_trials(self, budget: Budget) -> int | None:
        """None: as many as there is time for."""
        return TRIALS if budget.trials is None and budget.seconds is None else budget.trials

    def outputs(self, split: Split) -> np.ndarray:
        """Probabilities (N, classes) or values (N,), float64."""
        if not split.examples:
            return np.zeros((0, self.facts.classes) if self.facts.classes else 0)
        columns = Split({name: split[name] for name in ("numeric", "categorical")})
        return np.asarray(self.library.outputs(self.model, self.library.matrix(columns)), dtype=np.float64)

    def save(self, folder: Path | str) -> None:
        """The booster in its library's own format."""
        with disk_errors(folder):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.library.save(self.model, Path(folder))

    def load(self, folder: Path | str) -> TunedTrees:
        self.model = self.library.load(Path(folder))
        return self

    def _keep(self, model: Any, run: Run, number: int) -> None:
        """Before the trial is written down, so that every trial on record that is the best has its model."""
        folder = _folder(run, number)
        with disk_errors(folder):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            self.library.save(model, folder)


def _folder(run: Run, number: int) -> Path:
    return run.scratch / f"trial-{number}"


def shared_threads() -> int:
    """As many threads as the networks they are compared with, if OpenMP was told in time to wait passively; else one.

    Two OpenMP runtimes in one process (torch brings the other) that wait actively stall each other for seconds.
    """
    return torch.get_num_threads() if papertrial.WAITS_PASSIVELY else 1


def nan_for_unseen(split: Split, cardinalities: tuple[int, ...]) -> np.ndarray:
    """Numeric columns, then category codes, (N, F + C) float32; unseen and missing categories are NaN."""
    codes = split["categorical"].astype(np.float32)
    codes[codes >= np.asarray(cardinalities, dtype=np.float32)] = np.nan
    return np.concatenate([split["numeric"].astype(np.float32), codes], axis=1)


def target_of(split: Split) -> np.ndarray | None:
    """The column "label" or "target", None where the split has neither."""
    return next((np.asarray(split[name]) for name in ("label", "target") if name in split), None)


def as_probabilities(positive: np.ndarray) -> np.ndarray:
    """(N,) probabilities of the second of two classes as (N, 2)."""
    return np.stack([1 - positive, positive], axis=1)


def _study(library: Library, trials: list[Trial]) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    if not trials:
        study.enqueue_trial(dict(library.first))
    for trial in trials:
        study.add_trial(
            optuna.trial.create_trial(params=trial.params, distributions=dict(library.space), value=trial.error)
        )
    return study


def _judge(outputs: np.ndarray, split: Split, metric: str = "") -> tuple[float, float]:
    outputs = np.asarray(outputs, dtype=np.float64)
    named = loss_by(metric, outputs, split)
    if "label" not in split:
        return float(np.sqrt(np.mean((outputs - split["target"]) ** 2))) if named is None else named, 0.0
    right = outputs[np.arange(len(outputs)), split["label"]]
    wrong = outputs.argmax(axis=1) != split["label"]
    return float(wrong.mean()) if named is None else named, float(-np.log(right.clip(1e-15)).mean())


def _read(path: Path) -> list[Trial]:
    """Trials on record; a last line cut short by a kill is removed. Raises PapertrialError for one that is damaged: what was tried
    next depends on all of them."""
    if not path.exists():
        return []
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        write_bytes(path, content[: content.rfind(b"\n") + 1])
    rows, damaged = TRIED.rows(path)
    if damaged:
        raise PapertrialError(damaged[0], TRIED.repair(path))
    return [Trial(**{**row, "energy": Energy(**row["energy"])}) for row in rows]


def _append(path: Path, trial: Trial) -> None:
    with disk_errors(path), path.open("a", encoding="utf-8") as stream:
        stream.write(to_json(asdict(trial)) + "\n")
        stream.flush()
