"""Do raters agree, beyond chance: Krippendorff's alpha, and the same for one rater against the others.

K. Krippendorff, Content Analysis, ch. 12; "Computing Krippendorff's alpha-reliability" (2011). With o_ck how often two
raters of one unit said c and k, each unit counted once per answer, and n_c the answers c,

    alpha = 1 - D_o / D_e,    D_o = sum_ck o_ck delta(c, k) / n,    D_e = sum_ck n_c n_k delta(c, k) / (n (n - 1))

1: full agreement; 0: as much as by chance; below 0: less. Units with fewer than two answers say nothing and are left out.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from papertrial.core.errors import PapertrialError

LEVELS = ("nominal", "ordinal", "interval")


@dataclass(frozen=True)
class Alpha:
    """value: NaN where nothing can be said.  low, high: 95 % interval, percentiles of a bootstrap over units.

    units: with two answers or more.  reason: why there is no value; empty where there is one.
    """

    value: float
    low: float
    high: float
    level: str
    units: int
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def alpha(answers: np.ndarray, level: str = "interval", *, draws: int = 0, seed: int = 0) -> Alpha:
    """Of `answers` (raters, units), real, NaN = none.

    level: nominal (equal or not), ordinal (by the ranks between), interval (squared distance).  draws: resamples of the
    units for the interval, 0 for none. Raters are not resampled: one who is drawn twice agrees with himself.
    Raises PapertrialError for another level or shape.
    """
    if level not in LEVELS:
        raise PapertrialError(f"there is no level {level!r}", f"choose {', '.join(LEVELS)}")
    answers = np.asarray(answers, dtype=np.float64)
    if answers.ndim != 2:
        raise PapertrialError(f"answers of shape {answers.shape} are not (raters, units)", "give a row per rater")
    values, counts = _counted(answers)
    reason = ""
    if len(counts) == 0:
        reason = "no output was judged by two raters"
    elif len(values) == 1:
        reason = "all answers are equal, so agreement cannot be told from chance"
    if reason:
        return Alpha(math.nan, math.nan, math.nan, level, len(counts), reason)
    low = high = math.nan
    if draws and len(counts) > 1:
        rng = np.random.default_rng(seed)
        weights = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=draws)
        found = np.array([_alpha(values, counts, weight, level) for weight in weights])
        low, high = (float(end) for end in np.nanpercentile(found, [2.5, 97.5]))
    return Alpha(_alpha(values, counts, np.ones(len(counts)), level), low, high, level, len(counts))


def _counted(answers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the distinct answers; int (units, answers): how often each was given), of units with two answers or more."""
    known = ~np.isnan(answers)
    enough = known.sum(axis=0) > 1
    rater, unit = np.nonzero(known[:, enough])
    values, code = np.unique(answers[:, enough][rater, unit], return_inverse=True)
    counts = np.zeros((int(enough.sum()), len(values)), dtype=np.int64)
    np.add.at(counts, (unit, code), 1)
    return values, counts


def _alpha(values: np.ndarray, counts: np.ndarray, weight: np.ndarray, level: str) -> float:
    """weight (units,): how often each unit counts."""
    share = weight / (counts.sum(axis=1) - 1)
    together = counts.T @ (share[:, None] * counts) - np.diag(share @ counts)
    often = weight @ counts
    apart = _distance(values, often, level)
    expected = float(often @ apart @ often)
    if expected == 0:
        return math.nan  # a resample in which all answers are equal
    return 1 - float((together * apart).sum()) * (float(often.sum()) - 1) / expected


def _distance(values: np.ndarray, often: np.ndarray, level: str) -> np.ndarray:
    """delta(c, k) for all pairs of answers."""
    if level == "nominal":
        return 1.0 - np.eye(len(values))
    if level == "ordinal":  # how many answers lie between the two, half of their own counted
        middle = np.cumsum(often) - often / 2
        return np.square(middle[:, None] - middle)
    return np.square(values[:, None] - values)


def agreement(answers: np.ndarray) -> np.ndarray:
    """Of each rater with the others, float64 (raters,): 1 - D_o / D_e with the squared differences that the rater has part in.

    answers: (raters, units), NaN = none.  One who answers at random has about 0, one who answers the opposite less.
    NaN where a rater shares no unit, or all answers are equal.
    """
    answers = np.asarray(answers, dtype=np.float64)
    known = ~np.isnan(answers)
    x = np.where(known, answers, 0.0)
    others = known.sum(axis=0) - known
    mine = known & (others > 0)
    both = others * x**2 - 2 * x * (x.sum(axis=0) - x) + ((x**2).sum(axis=0) - x**2)
    per_unit = np.where(mine, both / np.maximum(others, 1), 0.0)
    pooled = answers[:, known.sum(axis=0) > 1]
    pooled = pooled[~np.isnan(pooled)]
    expected = 2 * float(pooled.var(ddof=1)) if len(pooled) > 1 else 0.0
    shared = mine.sum(axis=1)
    found = np.full(len(answers), math.nan)
    if expected > 0:
        found[shared > 0] = 1 - per_unit.sum(axis=1)[shared > 0] / shared[shared > 0] / expected
    return found
