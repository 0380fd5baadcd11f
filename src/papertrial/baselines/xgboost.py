"""XGBoost, tuned within the budget - the usual thing to beat on tables.
Chen and Guestrin, KDD 2016, arXiv 1603.02754

The idea
    Trees are added one by one, each fitted to what the sum so far gets wrong, with a penalty on leaves.

The equation
    L = sum_i l(y_i, yhat_i + f(x_i)) + gamma T + lambda/2 |w|^2 + alpha |w|_1 for a tree f with T leaves w   (eq. 2)

What matters
    Early stopping on the validation rows, and tuning: the budget counts it.

Requires / Offers
    A table with a target; missing values and categories as they are. Predicts.

Relations
    `lightgbm` and `catboost` boost too; `rtdl` is the net they are compared with.

Try
    papertrial fit xgboost --data table.csv --target y --budget 30s

Cost
    20 000 rows and 8 columns: about a second per trial on one core.

Notation
    N rows, F numeric columns, C categorical columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import xgboost
from optuna.distributions import FloatDistribution, IntDistribution

from papertrial.baselines._trees import TunedTrees, as_probabilities, nan_for_unseen, shared_threads, target_of
from papertrial.core.budget import Budget
from papertrial.core.facts import Facts
from papertrial.core.files import write_bytes
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced
from papertrial.core.task import Split

PAPER = Paper(
    id="xgboost",
    title="XGBoost: A Scalable Tree Boosting System",
    kind="estimator",
    idea="Regularised gradient-boosted trees, tuned within the budget.",
    authors="Tianqi Chen, Carlos Guestrin",
    year=2016,
    arxiv="1603.02754",
    method="XGBoost",
    tasks=("tabular",),
    tags=("tables", "trees", "baseline"),
    needs=("tabular",),
    official="https://github.com/dmlc/xgboost",
    licence="Apache-2.0",
)


@checked
@dataclass(frozen=True)
class Config:
    rounds: int = sourced(2000, "RTDL (arXiv 2106.11959), authors' repository", "[1, 1000000]")
    stop_after: int = sourced(50, "RTDL, authors' repository; rounds without a better validation loss", "[1, 1000000]")
    threads: int = sourced(0, "papertrial default; 0 is as many as the networks use", "[0, 1024]")


class XGBoost:
    """A `Library`: DMatrix in, Booster out."""

    # The space of RTDL (arXiv 2106.11959, supplement).
    # DIFF: theirs reaches a learning rate of 1e-5, at which 2000 rounds move nothing; and its zero with probability 1/2
    # for the penalties is the low end of a logarithmic range here.
    space: ClassVar = {
        "learning_rate": FloatDistribution(5e-3, 1.0, log=True),
        "max_depth": IntDistribution(3, 10),
        "min_child_weight": FloatDistribution(1e-8, 1e5, log=True),
        "subsample": FloatDistribution(0.5, 1.0),
        "colsample_bytree": FloatDistribution(0.5, 1.0),
        "colsample_bylevel": FloatDistribution(0.5, 1.0),
        "gamma": FloatDistribution(1e-8, 1e2, log=True),
        "lambda": FloatDistribution(1e-8, 1e2, log=True),
        "alpha": FloatDistribution(1e-8, 1e2, log=True),
    }
    # XGBoost's own defaults, with a smaller step and rows and columns drawn.
    first: ClassVar = {
        "learning_rate": 0.05,
        "max_depth": 6,
        "min_child_weight": 1.0,
        "subsample": 0.8,
        "colsample_bytree": 0.8,
        "colsample_bylevel": 1.0,
        "gamma": 1e-8,
        "lambda": 1.0,
        "alpha": 1e-8,
    }

    def __init__(self, config: Config, facts: Facts) -> None:
        self.config, self.facts = config, facts
        if facts.classes > 2:
            self.objective = {"objective": "multi:softprob", "eval_metric": "mlogloss", "num_class": facts.classes}
        elif facts.classes:
            self.objective = {"objective": "binary:logistic", "eval_metric": "logloss"}
        else:
            self.objective = {"objective": "reg:squarederror", "eval_metric": "rmse"}

    def matrix(self, split: Split) -> xgboost.DMatrix:
        return xgboost.DMatrix(
            nan_for_unseen(split, self.facts.cardinalities),
            label=target_of(split),
            feature_types=["q"] * self.facts.numeric + ["c"] * len(self.facts.cardinalities),
            enable_categorical=True,
            nthread=self.config.threads,
        )

    def train(
        self,
        params: Mapping[str, Any],
        train: xgboost.DMatrix,
        valid: xgboost.DMatrix,
        seed: int,
        spent: Callable[[], bool],
    ) -> xgboost.Booster:
        class StopWhenSpent(xgboost.callback.TrainingCallback):
            def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
                return spent()

        fixed = {**self.objective, "nthread": self.config.threads, "seed": seed, "verbosity": 0}
        booster = xgboost.train(
            {**params, **fixed},
            train,
            num_boost_round=self.config.rounds,
            evals=[(valid, "valid")],
            early_stopping_rounds=self.config.stop_after,
            verbose_eval=False,
            callbacks=[StopWhenSpent()],
        )
        best = booster.attr("best_iteration")  # not there when the budget ended the first round
        return booster if best is None else booster[: int(best) + 1]

    def outputs(self, model: xgboost.Booster, rows: xgboost.DMatrix) -> np.ndarray:
        out = model.predict(rows)
        return as_probabilities(out.astype(np.float64)) if self.facts.classes == 2 else out

    def rounds(self, model: xgboost.Booster) -> int:
        return model.num_boosted_rounds()

    def save(self, model: xgboost.Booster, folder: Path) -> None:
        write_bytes(folder / "model.ubj", bytes(model.save_raw("ubj")))

    def load(self, folder: Path) -> xgboost.Booster:
        return xgboost.Booster({"nthread": self.config.threads}, model_file=folder / "model.ubj")


def build(config: Config, facts: Facts, backbone: Any = None) -> TunedTrees:
    config = replace(config, threads=config.threads or shared_threads())
    return TunedTrees(XGBoost(config, facts), facts)


recipes = {
    "paper": Recipe("paper", budget=Budget(trials=100), source="RTDL (arXiv 2106.11959), supplement"),
    "base": Recipe("base"),
    "tiny": Recipe("tiny", config={"rounds": 30}, budget=Budget(trials=2), cost="seconds on one core"),
}
