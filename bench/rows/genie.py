"""Krippendorff's alpha against the package krippendorff, and the likelihood of the worker model against scipy's."""

from __future__ import annotations

import numpy as np

from bench.harness import Case, Race, Side
from papertrial.core.agreement import alpha
from papertrial.papers.genie import log_likelihood

_LEVELS = ("nominal", "ordinal", "interval")


def agreement(level: str):
    def build(case: Case) -> tuple[Side, Side]:
        import krippendorff

        rng = np.random.default_rng(0)
        raters, units = 20, case.size
        answers = np.clip(np.round(rng.normal(3, 1, units) + rng.normal(0, 0.7, (raters, units))), 1, 5)
        answers[rng.random(answers.shape) < 0.7] = np.nan  # a few raters per unit
        return (
            Side(lambda: alpha(answers, level).value),
            Side(lambda: krippendorff.alpha(reliability_data=answers, level_of_measurement=level)),
        )

    return build


def likelihood(case: Case) -> tuple[Side, Side]:
    from scipy.stats import betabinom

    rng = np.random.default_rng(0)
    total = rng.integers(1, 60, case.size)
    right = rng.binomial(total, 0.7).astype(np.float64)
    wrong = total - right
    return Side(lambda: log_likelihood(right, wrong, 5.0, 2.0)), Side(lambda: betabinom.logpmf(right, total, 5.0, 2.0))


_UNITS = {f"20 raters, {units} units": units for units in (100, 400, 1600, 6400)}

RACES = [
    *(
        Race(
            f"alpha, {level}",
            "krippendorff",
            agreement(level),
            _UNITS,
            dtypes=("float64",),
            compiled=False,
            only_cpu="numpy",
        )
        for level in _LEVELS
    ),
    Race(
        "log-likelihood of the worker model",
        "scipy",
        likelihood,
        {f"{raters} raters": raters for raters in (100, 1000, 10_000, 100_000)},
        dtypes=("float64",),
        compiled=False,
        only_cpu="numpy",
    ),
]
