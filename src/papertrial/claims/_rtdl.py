"""Networks and boosted trees on many tables, each tuned with as many trials (sec. 4), smaller than the authors' study."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from papertrial.core import registry
from papertrial.core.budget import Budget
from papertrial.core.request import Request
from papertrial.core.task import Prepared
from papertrial.data import open as open_data
from papertrial.data.toy import at_hand
from papertrial.use.fit import Outcome, fit_prepared

#: tables and their targets: below $PAPERTRIAL_DATA, or built in where the target is None
TABLES: dict[str, str | None] = {
    "california_housing": "medianHouseValue",
    "kin8nm": "y",
    "house_8L": "price",
    "wine_quality": "quality",
    "adult": "income",
    "diabetes": None,
}
NETS, TREES = ("rtdl:ft_transformer", "rtdl:resnet"), ("catboost", "xgboost")

_RATES = {"lr": FloatDistribution(1e-4, 1e-2, log=True), "weight_decay": FloatDistribution(1e-6, 1e-3, log=True)}
#: what is tuned of a network: the supplement's spaces, with widths for a CPU
_SPACES: dict[str, Mapping[str, BaseDistribution]] = {
    "rtdl:ft_transformer": {
        "depth": IntDistribution(1, 3),
        "width": IntDistribution(16, 64, step=16),
        "expansion": FloatDistribution(2 / 3, 8 / 3),
        "attention_dropout": FloatDistribution(0.0, 0.5),
        "hidden_dropout": FloatDistribution(0.0, 0.5),
        "residual_dropout": FloatDistribution(0.0, 0.2),
        **_RATES,
    },
    "rtdl:resnet": {
        "depth": IntDistribution(1, 4),
        "width": IntDistribution(64, 256, step=64),
        "expansion": FloatDistribution(1.0, 4.0),
        "hidden_dropout": FloatDistribution(0.0, 0.5),
        "residual_dropout": FloatDistribution(0.0, 0.5),
        **_RATES,
    },
}


@dataclass(frozen=True)
class Effort:
    """trials: of each method.  rows: outside of the test.  epochs: of a network at most.  patience: epochs without a better
    validation that end it."""

    trials: int
    rows: int
    epochs: int
    patience: int


@dataclass(frozen=True)
class Found:
    """Error rate or RMSE of the trial that was best on the validation rows, there and on the test rows."""

    valid: float
    test: float


def table(name: str, seed: int, effort: Effort) -> Prepared:
    """Raises Declined where the data are not at hand."""
    target = TABLES[name]
    data = open_data(name) if target is None else open_data(at_hand(f"tabular/{name}.csv.gz"), target=target)
    fraction = min(1.0, effort.rows / (0.8 * data.rows))
    found: Prepared = registry.task("tabular").prepare(data, seed, fraction=fraction)
    return found


def tuned(name: str, prepared: Prepared, effort: Effort, seed: int) -> Found:
    """The best of `effort.trials` trials of one method, its defaults first. Trees tune themselves, networks by Optuna's TPE."""
    method = registry.method(name)
    if name in TREES:
        return _errors(
            _fitted(method, prepared, Request(budget=Budget(trials=effort.trials), seed=seed, progress=False))
        )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    budget = Budget(samples=effort.epochs * prepared.train.examples)
    found: list[Found] = []
    for trial in range(effort.trials):
        proposal = study.ask(dict(_SPACES[name])) if trial else None
        settings: dict[str, Any] = {"patience": effort.patience, **(proposal.params if proposal else {})}
        found.append(
            _errors(_fitted(method, prepared, Request(settings=settings, budget=budget, seed=seed, progress=False)))
        )
        if proposal:
            study.tell(proposal, found[-1].valid)
    return min(found, key=lambda each: each.valid)


def _fitted(method: Any, prepared: Prepared, request: Request) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="papertrial-claim-") as folder:
        return fit_prepared(method, registry.task("tabular"), prepared, out=Path(folder) / "run", request=request)


def _errors(outcome: Outcome) -> Found:
    if "accuracy" in outcome.metrics:
        return Found(1 - outcome.valid, 1 - outcome.metrics["accuracy"])
    return Found(-outcome.valid, outcome.metrics["rmse"])
