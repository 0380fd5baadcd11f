"""What a method is worth in labels: how many labelled examples the baseline would have needed for the same metric.

The baseline's error on the user's own subsets is fitted with a power law (`core.curves`). Turned round, it says at which
n the baseline reaches the method's error; n over the labels there are is the worth. "Effective data transferred" of
Hernandez et al. 2021 (arXiv 2102.01293, sec. 2; `papers.transfer_scaling`) is the same quantity less the data there are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from papertrial.core.curves import fit_power_law

_DRAWS = 1000
#: a fall of the error counts when it is larger than so many of its standard errors
_CLEAR = 2.0


@dataclass(frozen=True)
class Worth:
    """factor: labels the baseline would need over labels there are; None: unknown, for `reason`.

    low, high: 95 % interval over seeds (None with one seed).  All are cut to [1/most, most], beyond which nothing was
    measured; `most` is the largest over the smallest number of labels on the curve.
    """

    factor: float | None
    low: float | None = None
    high: float | None = None
    most: float = 1.0
    reason: str = ""

    def __str__(self) -> str:
        """`1.9x`, `>4x`, `<0.25x` or `unknown`."""
        return "unknown" if self.factor is None else self._shown(self.factor) + "x"

    @property
    def interval(self) -> str:
        """`[1.2, >4]`, or nothing where there is none."""
        if self.low is None or self.high is None:
            return ""
        return f"[{self._shown(self.low)}, {self._shown(self.high)}]"

    def _shown(self, factor: float) -> str:
        if factor >= self.most:
            return f">{self.most:g}"
        return f"<{1 / self.most:.2g}" if factor <= 1 / self.most else f"{factor:.2g}"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "shown": str(self)}


def worth(
    labels: Sequence[int],
    curve: Sequence[np.ndarray],
    method: np.ndarray,
    *,
    higher_is_better: bool = True,
    best: float | None = None,
    seed: int = 0,
) -> Worth:
    """Turn a method's metric into labels of the baseline.

    labels: label counts of the curve, any order, the largest being what there is.  curve: for each of them the
    baseline's metric per seed, (S_k,).  method: the method's metric per seed, (S,), paired with the curve's at the
    largest count where both have as many seeds.  best: the metric of a perfect model, from which errors are counted
    (default 1 where higher is better, 0 otherwise).  seed: of the resampling.

    Unknown, with the reason, when more labels do not clearly help the baseline: where its curve is flat or rises, every
    number of labels explains the method's metric equally well.
    """
    order = np.argsort(labels)
    n = np.asarray(labels, dtype=np.float64)[order]
    goal = (1.0 if higher_is_better else 0.0) if best is None else best
    sign = -1.0 if higher_is_better else 1.0
    errors = [sign * (np.asarray(curve[index], dtype=np.float64) - goal) for index in order]
    own = sign * (np.asarray(method, dtype=np.float64) - goal)
    reason = _unusable(n, errors, own)
    if reason:
        return Worth(None, reason=reason)
    most = float(n[-1] / n[0])
    factor = _factor(n, np.array([e.mean() for e in errors]), own.mean(), most)
    if min(len(own), *(len(e) for e in errors)) < 2:
        return Worth(float(factor), most=most)
    draw = np.random.default_rng(seed)
    rows = [draw.integers(len(e), size=(_DRAWS, len(e))) for e in errors]
    own_rows = rows[-1] if len(own) == len(errors[-1]) else draw.integers(len(own), size=(_DRAWS, len(own)))
    points = np.stack([_resampled(e, chosen) for e, chosen in zip(errors, rows, strict=True)], axis=-1)
    drawn = _factor(n, points, _resampled(own, own_rows), most)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Worth(float(factor), float(low), float(high), most)


def _unusable(n: np.ndarray, errors: list[np.ndarray], own: np.ndarray) -> str:
    if len(n) < 2 or n[0] <= 0 or len(np.unique(n)) < len(n):
        return "the baseline's learning curve needs two different numbers of labels or more"
    if not all(np.isfinite(e).all() and len(e) for e in [*errors, own]):
        return "a metric on the baseline's learning curve is not finite"
    if min(e.min() for e in [*errors, own]) < 0:
        return "a metric is better than that of a perfect model, so errors cannot be counted"
    means = np.array([e.mean() for e in errors])
    noise = np.array([e.var(ddof=1) / len(e) if len(e) > 1 else 0.0 for e in errors])
    fall = means[:-1] - means[1:]
    clear = _CLEAR * np.sqrt(noise[:-1] + noise[1:])
    if (fall < -clear).any():
        at = int(np.argmax(fall < -clear))
        return f"the baseline's learning curve does not rise (it is worse with {n[at + 1]:.0f} labels than with {n[at]:.0f})"
    if means[0] - means[-1] <= _CLEAR * math.sqrt(noise[0] + noise[-1]):
        return f"the baseline's learning curve does not clearly rise between {n[0]:.0f} and {n[-1]:.0f} labels"
    return ""


def _factor(n: np.ndarray, errors: np.ndarray, own: Any, most: float) -> Any:
    return np.clip(fit_power_law(n, errors).labels(own) / n[-1], 1 / most, most)


def _resampled(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Bootstrap means, spread by sqrt(S / (S - 1)) to make up for the variance that few seeds hide."""
    means = values[rows].mean(-1)
    return values.mean() + math.sqrt(len(values) / (len(values) - 1)) * (means - values.mean())
