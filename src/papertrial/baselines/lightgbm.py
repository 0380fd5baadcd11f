"""LightGBM, tuned within the budget - boosted trees on binned columns, grown leaf by leaf.
Ke et al., NeurIPS 2017

The idea
    Columns are binned once; the tree grows at the leaf that gains most instead of level by level.

The equation
    gain of a split = G_l^2 / (H_l + lambda) + G_r^2 / (H_r + lambda) - G^2 / (H + lambda), from sums per bin

What matters
    Early stopping on the validation rows, and tuning: the budget counts it.

Requires / Offers
    A table with a target; missing values and categories as they are. Predicts.

Relations
    `xgboost` and `catboost` boost too; `rtdl` is the net they are compared with.

Try
    papertrial fit lightgbm --data table.csv --target y --budget 30s

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

import lightgbm
import numpy as np
from optuna.distributions import FloatDistribution, IntDistribution

from papertrial.baselines._trees import TunedTrees, as_probabilities, nan_for_unseen, shared_threads, target_of
from papertrial.core.budget import Budget
from papertrial.core.facts import Facts
from papertrial.core.files import write_text
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced
from papertrial.core.task import Split

PAPER = Paper(
    id="lightgbm",
    title="LightGBM: A Highly Efficient Gradient Boosting Decision Tree",
    kind="estimator",
    idea="Gradient-boosted trees on binned columns, tuned within the budget.",
    authors="Guolin Ke, Qi Meng, Thomas Finley, Taifeng Wang, Wei Chen, Weidong Ma, Qiwei Ye, Tie-Yan Liu",
    year=2017,
    method="LightGBM",
    tasks=("tabular",),
    tags=("tables", "trees", "baseline"),
    needs=("tabular",),
    official="https://github.com/microsoft/LightGBM",
    licence="MIT",
)


@checked
@dataclass(frozen=True)
class Config:
    rounds: int = sourced(2000, "RTDL (arXiv 2106.11959), authors' repository", "[1, 1000000]")
    stop_after: int = sourced(50, "RTDL, authors' repository; rounds without a better validation loss", "[1, 1000000]")
    threads: int = sourced(0, "papertrial default; 0 is as many as the networks use", "[0, 1024]")


class LightGBM:
    """A `Library`: arrays in, Booster out."""

    # The space of RTDL (arXiv 2106.11959, authors' repository).
    # DIFF: theirs reaches a learning rate of 1e-3, too slow for 2000 rounds; and its zero with probability 1/2 for the
    # penalty is the low end of a logarithmic range here.
    space: ClassVar = {
        "learning_rate": FloatDistribution(5e-3, 1.0, log=True),
        "num_leaves": IntDistribution(10, 100),
        "min_sum_hessian_in_leaf": FloatDistribution(1e-5, 1e-1, log=True),
        "min_data_in_leaf": IntDistribution(2, 100),
        "bagging_fraction": FloatDistribution(0.5, 1.0),
        "feature_fraction": FloatDistribution(0.5, 1.0),
        "lambda_l2": FloatDistribution(1e-5, 1.0, log=True),
    }
    # LightGBM's own defaults, with a smaller step and rows and columns drawn.
    first: ClassVar = {
        "learning_rate": 0.05,
        "num_leaves": 31,
        "min_sum_hessian_in_leaf": 1e-3,
        "min_data_in_leaf": 20,
        "bagging_fraction": 0.8,
        "feature_fraction": 0.8,
        "lambda_l2": 1e-5,
    }

    def __init__(self, config: Config, facts: Facts) -> None:
        self.config, self.facts = config, facts
        if facts.classes > 2:
            self.objective = {"objective": "multiclass", "num_class": facts.classes}
        else:
            self.objective = {"objective": "binary" if facts.classes else "regression"}

    def matrix(self, split: Split) -> tuple[np.ndarray, np.ndarray | None]:
        return nan_for_unseen(split, self.facts.cardinalities), target_of(split)

    def train(
        self,
        params: Mapping[str, Any],
        train: tuple[np.ndarray, np.ndarray],
        valid: tuple[np.ndarray, np.ndarray],
        seed: int,
        spent: Callable[[], bool],
    ) -> lightgbm.Booster:
        def stop_when_spent(state: lightgbm.callback.CallbackEnv) -> None:
            if spent():
                raise lightgbm.callback.EarlyStopException(best[0], state.evaluation_result_list)

        best = [0, np.inf]

        def remember(state: lightgbm.callback.CallbackEnv) -> None:
            loss = state.evaluation_result_list[0][2]
            if loss < best[1]:
                best[:] = [state.iteration, loss]

        fixed = {
            **self.objective,
            "num_threads": self.config.threads,
            "seed": seed,
            "deterministic": True,
            "force_row_wise": True,
            "bagging_freq": 1,
            "verbosity": -1,
        }
        columns = range(self.facts.numeric, self.facts.numeric + len(self.facts.cardinalities))
        # The bins depend on parameters that are tuned (min_data_in_leaf), so each trial makes its own.
        rows = lightgbm.Dataset(
            *train, categorical_feature=list(columns), params={**params, **fixed}, free_raw_data=False
        )
        booster = lightgbm.train(
            {**params, **fixed},
            rows,
            num_boost_round=self.config.rounds,
            valid_sets=[lightgbm.Dataset(*valid, reference=rows)],
            callbacks=[remember, stop_when_spent, lightgbm.early_stopping(self.config.stop_after, verbose=False)],
        )
        return lightgbm.Booster(model_str=booster.model_to_string(num_iteration=best[0] + 1))

    def outputs(self, model: lightgbm.Booster, rows: tuple[np.ndarray, Any]) -> np.ndarray:
        out = np.asarray(model.predict(rows[0], num_threads=self.config.threads))
        return as_probabilities(out) if self.facts.classes == 2 else out

    def rounds(self, model: lightgbm.Booster) -> int:
        return model.current_iteration()

    def save(self, model: lightgbm.Booster, folder: Path) -> None:
        write_text(folder / "model.txt", model.model_to_string())

    def load(self, folder: Path) -> lightgbm.Booster:
        return lightgbm.Booster(model_file=folder / "model.txt")


def build(config: Config, facts: Facts, backbone: Any = None) -> TunedTrees:
    config = replace(config, threads=config.threads or shared_threads())
    return TunedTrees(LightGBM(config, facts), facts)


recipes = {
    "paper": Recipe("paper", budget=Budget(trials=100), source="RTDL (arXiv 2106.11959), supplement"),
    "base": Recipe("base"),
    "tiny": Recipe("tiny", config={"rounds": 30}, budget=Budget(trials=2), cost="seconds on one core"),
}
