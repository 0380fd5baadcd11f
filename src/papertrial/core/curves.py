"""Learning curves turned round: at which amount of data does a curve reach an error?

"Worth x labels" of `compare` asks it of the baseline's curve, "effective data transferred" (`papers.transfer_scaling`) of
the curve of models from scratch. Two shapes answer: a power law, error(n) = a * n^-b + c with a, b, c >= 0 (Hestness et
al. 2017, arXiv 1712.00409; with the floor c, Rosenfeld et al. 2020, arXiv 1909.12673), smooth through three noisy points,
and a falling line through the points, which assumes nothing but that more data do not hurt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

#: exponents tried; measured ones lie between 0.05 and 1
_EXPONENTS = np.geomspace(0.02, 4.0, 240)


@dataclass(frozen=True)
class PowerLaw:
    """error(n) = scale * n^-exponent + floor; the fields are floats, or arrays of one shape for several curves."""

    scale: Any
    exponent: Any
    floor: Any

    def error(self, labels: Any) -> Any:
        return self.scale * np.power(labels, -self.exponent) + self.floor

    def labels(self, error: Any) -> Any:
        """Labels at which the error is `error`; inf where it lies on or below the floor."""
        above = np.asarray(error, dtype=np.float64) - self.floor
        with np.errstate(divide="ignore", over="ignore"):
            ratio = np.where(above > 0, self.scale / np.where(above > 0, above, 1.0), np.inf)
            return np.power(ratio, 1 / self.exponent)


def fit_power_law(labels: np.ndarray, errors: np.ndarray) -> PowerLaw:
    """Least squares for `errors` (..., K), nonnegative, at `labels` (K >= 2,), positive; leading axes are separate curves.

    For each exponent on a grid the best scale and floor have a closed form. The floor needs a third point to show and
    is zero for K = 2.
    """
    n, errors = np.asarray(labels, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    largest = n.max()
    x = (n / largest) ** -_EXPONENTS[:, None]  # (G, K); 1 at the largest n, so that large n do not underflow
    y = errors[..., None, :]
    x_mean, y_mean = x.mean(-1), y.mean(-1)
    slope = ((x - x_mean[:, None]) * (y - y_mean[..., None])).sum(-1) / np.square(x - x_mean[:, None]).sum(-1)
    through_zero = (x * y).sum(-1) / np.square(x).sum(-1)
    floor = y_mean - slope * x_mean
    bare = (floor < 0) | (len(n) < 3)
    scale = np.maximum(np.where(bare, through_zero, slope), 0.0)
    floor = np.where(bare, 0.0, np.where(slope < 0, y_mean, floor))
    residual = np.square(scale[..., None] * x + floor[..., None] - y).sum(-1)
    best = residual.argmin(-1)[..., None]
    exponent = _EXPONENTS[best[..., 0]]
    chosen = np.take_along_axis(scale, best, -1)[..., 0]
    return PowerLaw(chosen * largest**exponent, exponent, np.take_along_axis(floor, best, -1)[..., 0])


@dataclass(frozen=True)
class FallingLine:
    """A curve that never rises, straight in the logarithm of the amount between the points (K,) it was measured at."""

    amounts: np.ndarray
    errors: np.ndarray

    def labels(self, error: Any) -> Any:
        """The smallest amount at which the error is `error`: inf below every point of the line, 0 above every one.

        Nothing is extrapolated: inf and 0 say on which side of the measured amounts it lies.
        """
        wanted = np.asarray(error, dtype=np.float64)
        falls = np.append(True, np.diff(self.errors) < 0)  # of a level stretch, its beginning
        errors, amounts = self.errors[falls][::-1], self.amounts[falls][::-1]
        inside = np.exp(np.interp(wanted, errors, np.log(amounts)))
        return np.where(wanted < errors[0], np.inf, np.where(wanted > errors[-1], 0.0, inside))


def fit_falling_line(amounts: np.ndarray, errors: np.ndarray) -> FallingLine:
    """Isotonic regression: the errors (K,) that never rise with the amounts (K,) and are nearest to those measured.

    Amounts are positive, in any order, each once. Neighbours that rise are pooled at their mean until none do (Ayer et al.
    1955); the others stay as they are, to the last bit. Raises ValueError for other amounts.
    """
    order = np.argsort(amounts)
    n, y = np.asarray(amounts, dtype=np.float64)[order], np.asarray(errors, dtype=np.float64)[order]
    if n.size == 0 or n[0] <= 0 or (np.diff(n) <= 0).any():
        raise ValueError(f"amounts are {n.tolist()}, not positive and different")
    pools: list[tuple[float, int]] = []  # mean, points
    for error in y.tolist():
        pools.append((error, 1))
        while len(pools) > 1 and pools[-2][0] < pools[-1][0]:
            (late, more), (early, some) = pools.pop(), pools.pop()
            pools.append(((early * some + late * more) / (some + more), some + more))
    means, points = zip(*pools, strict=True)
    return FallingLine(n, np.repeat(means, points))
