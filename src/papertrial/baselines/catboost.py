"""CatBoost, tuned within the budget - boosted trees that take categories as they are.
Prokhorenkova et al., NeurIPS 2018, arXiv 1706.09516

The idea
    Categories become target statistics of the rows that come earlier in a random order, so no row sees its own target;
    trees are symmetric: one split per level.

The equation
    code of category c in row i = (sum of y_j + a p) / (count + a), over rows j before i with the same category   (eq. 5)

What matters
    Early stopping on the validation rows, and tuning: the budget counts it. Its defaults are strong already.

Requires / Offers
    A table with a target; missing values and categories as they are. Predicts.

Relations
    `xgboost` and `lightgbm` boost too; `rtdl` is the net they are compared with.

Try
    papertrial fit catboost --data table.csv --target y --budget 30s

Cost
    20 000 rows and 8 columns: a few seconds per trial on one core.

Notation
    N rows, F numeric columns, C categorical columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import catboost
import numpy as np
from optuna.distributions import FloatDistribution, IntDistribution

from papertrial.baselines._trees import TunedTrees, shared_threads, target_of
from papertrial.core.budget import Budget
from papertrial.core.facts import Facts
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced
from papertrial.core.task import Split

PAPER = Paper(
    id="catboost",
    title="CatBoost: unbiased boosting with categorical features",
    kind="estimator",
    idea="Gradient-boosted symmetric trees with ordered statistics of categories, tuned within the budget.",
    authors="Liudmila Prokhorenkova, Gleb Gusev, Aleksandr Vorobev, Anna Veronika Dorogush, Andrey Gulin",
    year=2018,
    arxiv="1706.09516",
    method="CatBoost",
    tasks=("tabular",),
    tags=("tables", "trees", "baseline"),
    needs=("tabular",),
    official="https://github.com/catboost/catboost",
    licence="Apache-2.0",
)


@checked
@dataclass(frozen=True)
class Config:
    rounds: int = sourced(2000, "RTDL (arXiv 2106.11959), authors' repository", "[1, 1000000]")
    stop_after: int = sourced(50, "RTDL, authors' repository; rounds without a better validation loss", "[1, 1000000]")
    threads: int = sourced(0, "papertrial default; 0 is as many as the networks use", "[0, 1024]")


class CatBoost:
    """A `Library`: Pool in, CatBoost out."""

    # The space of RTDL (arXiv 2106.11959, supplement).
    # DIFF: theirs reaches a learning rate of 1e-5, at which 2000 rounds move nothing.
    space: ClassVar = {
        "learning_rate": FloatDistribution(5e-3, 1.0, log=True),
        "depth": IntDistribution(3, 10),
        "bagging_temperature": FloatDistribution(0.0, 1.0),
        "l2_leaf_reg": FloatDistribution(1.0, 10.0, log=True),
        "leaf_estimation_iterations": IntDistribution(1, 10),
    }
    # CatBoost's own defaults, but for the step, which it would choose by the number of rounds.
    first: ClassVar = {
        "learning_rate": 0.08,
        "depth": 6,
        "bagging_temperature": 1.0,
        "l2_leaf_reg": 3.0,
        "leaf_estimation_iterations": 1,
    }

    def __init__(self, config: Config, facts: Facts) -> None:
        self.config, self.facts = config, facts
        if facts.classes > 2:
            self.objective = {"loss_function": "MultiClass", "classes_count": facts.classes}
        else:
            self.objective = {"loss_function": "Logloss" if facts.classes else "RMSE"}

    def matrix(self, split: Split) -> catboost.Pool:
        numeric = np.ascontiguousarray(split["numeric"], dtype=np.float32)
        codes = split["categorical"].astype("S").astype(object)
        columns = catboost.FeaturesData(
            num_feature_data=numeric if self.facts.numeric else None,
            cat_feature_data=codes if self.facts.cardinalities else None,
        )
        return catboost.Pool(columns, label=target_of(split), thread_count=self.config.threads)

    def train(
        self,
        params: Mapping[str, Any],
        train: catboost.Pool,
        valid: catboost.Pool,
        seed: int,
        spent: Callable[[], bool],
    ) -> catboost.CatBoost:
        class StopWhenSpent:
            def after_iteration(self, info: Any) -> bool:
                return not spent()

        fixed = {
            **self.objective,
            "iterations": self.config.rounds,
            "early_stopping_rounds": self.config.stop_after,
            "bootstrap_type": "Bayesian",  # what bagging_temperature belongs to
            "use_best_model": True,
            "thread_count": self.config.threads,
            "random_seed": seed,
            "logging_level": "Silent",
            "allow_writing_files": False,
        }
        model = catboost.CatBoost({**params, **fixed})
        return model.fit(train, eval_set=valid, callbacks=[StopWhenSpent()])

    def outputs(self, model: catboost.CatBoost, rows: catboost.Pool) -> np.ndarray:
        kind = "Probability" if self.facts.classes else "RawFormulaVal"
        return model.predict(rows, prediction_type=kind, thread_count=self.config.threads)

    def rounds(self, model: catboost.CatBoost) -> int:
        return int(model.tree_count_)

    def save(self, model: catboost.CatBoost, folder: Path) -> None:
        model.save_model(str(folder / "model.cbm"))

    def load(self, folder: Path) -> catboost.CatBoost:
        return catboost.CatBoost().load_model(str(folder / "model.cbm"))


def build(config: Config, facts: Facts, backbone: Any = None) -> TunedTrees:
    config = replace(config, threads=config.threads or shared_threads())
    return TunedTrees(CatBoost(config, facts), facts)


recipes = {
    "paper": Recipe("paper", budget=Budget(trials=100), source="RTDL (arXiv 2106.11959), supplement"),
    "base": Recipe("base"),
    "tiny": Recipe("tiny", config={"rounds": 30}, budget=Budget(trials=2), cost="seconds on one core"),
}
