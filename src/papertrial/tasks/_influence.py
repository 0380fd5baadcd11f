"""What metrics of classes and of values are, each with its influence values: how far one example moves it.

Each function gives (value, influence (N,)), the influence of mean 0: to first order, N answers drawn anew move the metric
by the mean of their influence. So its standard deviation over sqrt(N) is the standard error (the infinitesimal jackknife,
Efron 1982, which for the AUC is DeLong's), and paired differences of value + influence compare two methods on the same
examples as if the metric were a mean. Where the metric depends on one cut through the scores (a recall at a precision, a
median), the density of the answers there has a part in it, estimated from those around the cut.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy  # its `stats` takes longer to import than the rest of a task: loaded where it is used

Influence = tuple[float, np.ndarray]
#: examples on each side of a cut that tell the density there, times the square root of those above it
_AROUND = 2.0


def mean(values: np.ndarray) -> Influence:
    """Of values (N,)."""
    value = float(values.mean())
    return value, values - value


# -- classes: probabilities (N, classes) and labels (N,) --------------------------------------------------------------


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> Influence:
    """Mean of -log of the probability of the true class, in nats; probabilities under 2e-16 count as that."""
    true = probabilities[np.arange(len(labels)), labels]
    return mean(-np.log(np.clip(true, np.finfo(np.float64).eps, 1.0)))


def brier(probabilities: np.ndarray, labels: np.ndarray) -> Influence:
    """Mean squared distance of the probabilities from 0 and 1: of one class where there are two, summed over all otherwise."""
    apart = probabilities - np.eye(probabilities.shape[1])[labels]
    return mean(np.square(apart).sum(axis=1) / (2 if probabilities.shape[1] == 2 else 1))


def balanced_accuracy(said: np.ndarray, labels: np.ndarray) -> Influence:
    """Mean recall of the classes that occur."""
    present = np.unique(labels)
    value, influence = 0.0, np.zeros(len(labels))
    for index in present:
        true = labels == index
        recall = (said[true] == index).mean()
        value += recall / len(present)
        influence += true * ((said == index) - recall) / true.mean() / len(present)
    return float(value), influence


def macro_f1(said: np.ndarray, labels: np.ndarray) -> Influence:
    """Mean F1 of the classes that occur."""
    found = [f1(said == index, labels == index) for index in np.unique(labels)]
    return _averaged(found)


def f1(said: np.ndarray, true: np.ndarray) -> Influence:
    """Of one class, bool (N,) each.

    F1 = 2 a / (p + t) with a, p and t the shares of examples that are of the class and said to be, are said to be, and
    are; its derivatives give the influence of each example.
    """
    a, p, t = (said & true).mean(), said.mean(), true.mean()
    if p + t == 0:
        return 0.0, np.zeros(len(true))
    value = 2 * a / (p + t)
    return float(value), (2 * ((said & true) - a) - value * ((said - p) + (true - t))) / (p + t)


def over_classes(
    one: Callable[[np.ndarray, np.ndarray], Influence], probabilities: np.ndarray, labels: np.ndarray, positive: int
) -> Influence:
    """`one(scores, true)` of the class `positive` where there are two, and its mean over the classes that occur otherwise."""
    some = [positive] if probabilities.shape[1] == 2 else [int(index) for index in np.unique(labels)]
    return _averaged([one(probabilities[:, index], labels == index) for index in some])


def _averaged(found: list[Influence]) -> Influence:
    return float(np.mean([value for value, _ in found])), np.mean([moves for _, moves in found], axis=0)


def auc(scores: np.ndarray, true: np.ndarray) -> Influence:
    """Area under the ROC curve of scores (N,) of a class, ties counting half (DeLong et al. 1988). true: bool (N,)."""
    ranks = scipy.stats.rankdata(scores)
    within = np.empty_like(ranks)
    for side in (true, ~true):
        within[side] = scipy.stats.rankdata(scores[side])
    count, others = true.sum(), (~true).sum()
    # share of the other side that an example is ranked on the right side of
    placement = np.where(true, (ranks - within) / others, 1 - (ranks - within) / count)
    area = float(placement[true].mean())
    return area, (placement - area) * len(scores) / np.where(true, count, others)


def average_precision(scores: np.ndarray, true: np.ndarray) -> Influence:
    """Mean over the examples of a class of the precision among those that score as high or higher. true: bool (N,).

    With B(s) the share of examples at s or above and P(s) the precision there, an example at s0 moves P(s) by
    (true - P(s)) / B(s) at each s up to s0, and the mean over the class by its own precision.
    """
    _, level, size = np.unique(-scores, return_inverse=True, return_counts=True)
    hits = np.bincount(level, true, minlength=len(size))
    above = np.cumsum(size)
    precision = np.cumsum(hits) / above
    share = true.mean()
    value = float(hits @ precision / true.sum())
    # summed over the class at s0 or below: of 1 / B and of P / B, each divided by N
    inverse, ratio = (np.cumsum((hits * part / above)[::-1])[::-1] for part in (np.ones_like(precision), precision))
    others = (true * inverse[level] - ratio[level]) / share
    return value, (true * (precision[level] - value)) / share + others


def recall_at(precision: float) -> Callable[[np.ndarray, np.ndarray], Influence]:
    """The largest recall of a class at a threshold where the precision is still that; 0 where there is no such threshold.

    At the threshold the precision is given, so an example above it that lowers the precision moves the threshold up, which
    costs the positives that are there: a share q of the examples around it.
    """

    def measure(scores: np.ndarray, true: np.ndarray) -> Influence:
        cut = Cuts(scores, true)
        good = np.flatnonzero(cut.precision >= precision)
        if not len(good):
            return 0.0, np.zeros(len(true))
        at = good[-1]
        value, above, around = cut.recall[at], scores >= cut.scores[at], cut.around(at)
        around = min(around, 0.9 * precision)  # beyond the last threshold that is good enough it is lower
        moved = around / (precision - around) * above * (true - cut.precision[at])
        return float(value), (true * (above - value) + moved) / true.mean()

    return measure


def precision_at(recall: float) -> Callable[[np.ndarray, np.ndarray], Influence]:
    """The largest precision of a class at a threshold where the recall is at least that; see `recall_at`."""

    def measure(scores: np.ndarray, true: np.ndarray) -> Influence:
        cut = Cuts(scores, true)
        good = np.flatnonzero(cut.recall >= recall - 1e-12)
        at = good[np.argmax(cut.precision[good])]
        value, above, around = cut.precision[at], scores >= cut.scores[at], cut.around(at)
        moved = (1 - value / around) * true * (above - cut.recall[at])
        return float(value), (above * (true - value) - moved) / above.mean()

    return measure


class Cuts:
    """The thresholds of scores (N,), highest first, with the precision and the recall of a class, bool (N,), at each."""

    def __init__(self, scores: np.ndarray, true: np.ndarray) -> None:
        order = np.argsort(-scores, kind="stable")
        ordered, self.true = scores[order], true[order]
        last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
        self.scores, self.above = ordered[last], last + 1
        hits = np.cumsum(self.true)[last]
        self.precision, self.recall = hits / self.above, hits / true.sum()

    def around(self, at: int) -> float:
        """The share of the class among the examples next to a threshold, on both sides; more than none."""
        above = int(self.above[at])
        size = max(5, round(_AROUND * np.sqrt(above)))
        near = self.true[max(0, above - size) : above + size]
        return float(max(near.mean(), 1 / len(near)))


# -- values: answers (N,) and targets (N,) ------------------------------------------------------------------------------


def rmse(values: np.ndarray, targets: np.ndarray) -> Influence:
    """(e^2 - mse) / (2 rmse), with e the error of the example."""
    mse, moves = mean(np.square(values - targets))
    value = float(np.sqrt(mse))
    return value, moves / (2 * value) if value else np.zeros_like(moves)


def mae(values: np.ndarray, targets: np.ndarray) -> Influence:
    return mean(np.abs(values - targets))


def quantile_loss(quantile: float) -> Callable[[np.ndarray, np.ndarray], Influence]:
    """Mean of quantile * e where the target is e above the answer, and of (1 - quantile) * e where it is below."""

    def measure(values: np.ndarray, targets: np.ndarray) -> Influence:
        above = targets - values
        return mean(np.maximum(quantile * above, (quantile - 1) * above))

    return measure


def median_absolute_error(values: np.ndarray, targets: np.ndarray) -> Influence:
    """(1/2 - [e is no larger]) / density at the median, with the density from the errors around it (Hall and Sheather 1988)."""
    size = np.abs(values - targets)
    count, value = len(size), float(np.median(size))
    ordered = np.sort(size)
    reach = max(1.0, count ** (2 / 3) * (1.5 * 1.96**2 / (2 * np.pi)) ** (1 / 3))
    low, high = (int(np.clip(round((count - 1) / 2 + way * reach), 0, count - 1)) for way in (-1, 1))
    sparsity = (ordered[high] - ordered[low]) * count / max(1, high - low)
    side = np.sign(size - value) / 2
    return value, (side - side.mean()) * sparsity


def r2(values: np.ndarray, targets: np.ndarray) -> Influence:
    """1 - mse / variance of the targets, which must differ."""
    squared, deviation = np.square(values - targets), np.square(targets - targets.mean())
    mse, variance = squared.mean(), deviation.mean()
    return float(1 - mse / variance), (mse / variance * (deviation - variance) - (squared - mse)) / variance


# -- agreement of two columns ---------------------------------------------------------------------------------------------


def pearson(x: np.ndarray, y: np.ndarray) -> Influence:
    """Pearson's r; 0 where one side is constant."""
    spread = x.std(), y.std()
    if spread[0] <= 1e-12 * np.abs(x).max(initial=0.0):
        return 0.0, np.zeros(len(x))
    u, v = (x - x.mean()) / spread[0], (y - y.mean()) / spread[1]
    r = float((u * v).mean())
    return r, u * v - r / 2 * (u**2 + v**2)


def spearman(x: np.ndarray, y: np.ndarray) -> Influence:
    """Spearman's rho, ties sharing their mean rank; the ranks of all others move when an example does, which counts in.

    With u and v the shares of examples below each (half of those that tie), which have the mean 1/2,
    rho = (E[uv] - 1/4) / sqrt(var u var v), and var u = (1 - E[p^2]) / 12 with p the share of examples that tie.
    """
    (u, p), (v, q) = _places(x), _places(y)
    var_u, var_v = u.var(), v.var()
    if var_u <= 0:
        return 0.0, np.zeros(len(x))
    both = float((u * v).mean())
    rho = (both - 0.25) / np.sqrt(var_u * var_v)
    # an example moves E[uv] by its own product, and by its part in the places of the examples above it
    moves = (u * v - both) + (_mean_above(x, v) - both) + (_mean_above(y, u) - both)
    of_u, of_v = -((3 * p**2 - 3 * (p**2).mean()) / 12), -((3 * q**2 - 3 * (q**2).mean()) / 12)
    influence = moves / np.sqrt(var_u * var_v) - rho / 2 * (of_u / var_u + of_v / var_v)
    return float(rho), influence


def _places(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(share of examples below, half of the ties counted; share of examples that tie, itself among them)."""
    _, group, count = np.unique(x, return_inverse=True, return_counts=True)
    below = np.cumsum(count) - count
    return ((below + count / 2) / len(x))[group], (count / len(x))[group]


def _mean_above(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """For each example the sum of `weight` over those with a larger x, half of those that tie, divided by N."""
    _, group = np.unique(x, return_inverse=True)
    total = np.bincount(group, weight)
    return ((total.sum() - np.cumsum(total) + total / 2) / len(x))[group]
