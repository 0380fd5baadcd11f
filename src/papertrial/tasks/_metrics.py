"""Metrics of the supervised tasks, each with a 95 % interval over the test examples.

A metric that is a smooth function of means has an influence value per example: how far one example moves it. Their
standard error gives the interval (the infinitesimal jackknife, which for the AUC is DeLong's). Shares near 0 or 1 get
Wilson's interval instead, so that a perfect score on few examples does not look certain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import scipy  # its `stats` takes longer to import than the rest of a task: loaded where it is used
from scipy.special import ndtri, stdtrit

from papertrial.core.errors import DataError
from papertrial.core.task import Ragged, Scores

Z = float(ndtri(0.975))


def classification_scores(probabilities: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> Scores:
    """Accuracy, balanced accuracy, AUC and log loss.

    probabilities: (N, classes) float.  labels: (N,) int in [0, classes).  The AUC is that of the second class where
    there are two, and the mean over one-against-the-rest otherwise; it is left out where the test has one class only.
    Balanced accuracy is the mean over the classes that occur.  per_example: 1.0 where the answer is right.
    Raises DataError without examples or with outputs that are not finite, ValueError for shapes that disagree.
    """
    probabilities, labels = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    _check(probabilities, labels, (len(labels), len(class_names)))
    if labels.min() < 0 or labels.max() >= len(class_names):
        raise ValueError(f"labels reach from {labels.min()} to {labels.max()}, outside of {len(class_names)} classes")
    right = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    metrics = {"accuracy": float(right.mean())}
    intervals = {"accuracy": wilson(right.mean(), len(right))}

    counts = np.bincount(labels, minlength=len(class_names))
    present = counts > 0
    recall = np.bincount(labels, weights=right, minlength=len(class_names))[present] / counts[present]
    metrics["balanced_accuracy"] = float(recall.mean())
    intervals["balanced_accuracy"] = _mean_of_shares(recall, counts[present])

    loss = -np.log(np.clip(probabilities[np.arange(len(labels)), labels], np.finfo(np.float64).eps, 1.0))
    _add(metrics, intervals, "log_loss", float(loss.mean()), loss - loss.mean(), low=0.0)

    positives = [1] if len(class_names) == 2 else list(np.flatnonzero(present))
    if present.sum() > 1:
        curves = [_auc(probabilities[:, index], labels == index) for index in positives]
        influence = np.mean([influence for _, influence in curves], axis=0)
        _add(metrics, intervals, "auc", float(np.mean([area for area, _ in curves])), influence, low=0.0, high=1.0)
    return Scores(metrics, right, intervals)


def regression_scores(values: np.ndarray, targets: np.ndarray) -> Scores:
    """RMSE, MAE and R2 of `values` (N,) against `targets` (N,).

    per_example: rmse + (e^2 - mse) / (2 rmse), with e the error of the example: their mean is the RMSE, and their
    spread is that of the RMSE to first order.  R2 is left out where all targets are equal.
    Raises DataError without examples or with outputs that are not finite, ValueError for shapes that disagree.
    """
    values, targets = np.asarray(values, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    _check(values, targets, (len(targets),))
    error = values - targets
    squared = error**2
    mse = squared.mean()
    rmse = float(np.sqrt(mse))
    influence = (squared - mse) / (2 * rmse) if rmse else np.zeros_like(squared)
    metrics: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    _add(metrics, intervals, "rmse", rmse, influence, low=0.0)
    _add(metrics, intervals, "mae", float(np.abs(error).mean()), np.abs(error) - np.abs(error).mean(), low=0.0)
    deviation = (targets - targets.mean()) ** 2
    variance = deviation.mean()
    if variance > 0:
        of_r2 = (mse / variance * (deviation - variance) - (squared - mse)) / variance
        _add(metrics, intervals, "r2", float(1 - mse / variance), of_r2, high=1.0)
    return Scores(metrics, rmse + influence, intervals)


def text_scores(answers: Sequence[str], targets: Sequence[str], primary: str) -> Scores:
    """Exact match and chrF of written answers; blanks around a text do not count.

    primary: `exact_match` or `chrf`, whose values per_example holds.  Raises DataError without examples, ValueError for
    lengths that disagree.
    """
    if not len(targets):
        raise DataError("there are no examples to judge on", "give the test part more rows")
    pairs = [(answer.strip(), target.strip()) for answer, target in zip(answers, targets, strict=True)]
    exact = np.array([float(answer == target) for answer, target in pairs])
    likeness = np.array([chrf(answer, target) for answer, target in pairs])
    metrics = {"exact_match": float(exact.mean())}
    intervals = {"exact_match": wilson(exact.mean(), len(exact))}
    _add(metrics, intervals, "chrf", float(likeness.mean()), likeness - likeness.mean(), low=0.0, high=1.0)
    return Scores(metrics, exact if primary == "exact_match" else likeness, intervals)


def chrf(answer: str, target: str, longest: int = 6, beta: float = 2.0) -> float:
    """chrF of one answer, in [0, 1] (Popović, WMT 2015): the F of the mean precision and the mean recall over runs of one to
    `longest` characters, blanks left out, where both texts have such runs. Equal texts have 1."""
    if answer == target:
        return 1.0
    answer, target = "".join(answer.split()), "".join(target.split())
    precision, recall = [], []
    for size in range(1, min(longest, len(answer), len(target)) + 1):
        ours, theirs = (
            Counter(text[at : at + size] for at in range(len(text) - size + 1)) for text in (answer, target)
        )
        common = (ours & theirs).total()
        precision.append(common / ours.total())
        recall.append(common / theirs.total())
    if not any(precision):
        return 0.0
    p, r = float(np.mean(precision)), float(np.mean(recall))
    return (1 + beta**2) * p * r / (beta**2 * p + r)


def ratio_scores(name: str, totals: np.ndarray, sizes: np.ndarray) -> Scores:
    """The sum of `totals` (N,) over the sum of `sizes` (N,), such as bits per byte.

    per_example: the ratio + (total - ratio size) / mean size: their mean is the ratio, and their spread is that of the
    ratio to first order.  Raises DataError without examples or with totals that are not finite.
    """
    totals, sizes = np.asarray(totals, dtype=np.float64), np.asarray(sizes, dtype=np.float64)
    _check(totals, sizes, (len(sizes),))
    ratio = float(totals.sum() / sizes.sum())
    influence = (totals - ratio * sizes) / sizes.mean()
    metrics: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    _add(metrics, intervals, name, ratio, influence, low=0.0)
    return Scores(metrics, ratio + influence, intervals)


#: places of a ranking that each metric looks at; the last is the depth a method has to rank to
CUT, DEPTH = 10, 100


def ranking_scores(ranked: np.ndarray, judged: Ragged) -> Scores:
    """nDCG@10 with linear gains, MRR@10 and recall@10 and @100, as trec_eval has them, means over queries.

    ranked: int (queries, places), the grades of what was found, best first; 0 for unjudged or none.  judged: Ragged int,
    all grades of each query; 1 or more is relevant, and every query needs one.  per_example: nDCG@10.
    Raises DataError without queries.
    """
    if not len(judged):
        raise DataError("there are no judged queries to rank for", "add judgements (qrels)")
    gains = np.maximum(ranked, 0).astype(np.float64)
    discount = 1 / np.log2(np.arange(2, CUT + 2))
    every = np.sort(np.maximum(judged.padded(), 0), axis=1)[:, ::-1]
    highest = every[:, :CUT]
    ideal = highest @ discount[: highest.shape[1]]
    relevant = (every > 0).sum(axis=1)
    if not relevant.all():
        raise ValueError("a query without a relevant document has no score")
    hits = gains > 0
    first = hits[:, :CUT].argmax(axis=1)
    found = {
        f"ndcg@{CUT}": gains[:, :CUT] @ discount[: gains[:, :CUT].shape[1]] / ideal,
        f"mrr@{CUT}": np.where(hits[:, :CUT].any(axis=1), 1 / (first + 1), 0.0),
        **{f"recall@{cut}": hits[:, :cut].sum(axis=1) / relevant for cut in (CUT, DEPTH)},
    }
    metrics: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    for name, values in found.items():
        _add(metrics, intervals, name, float(values.mean()), values - values.mean(), low=0.0, high=1.0)
    return Scores(metrics, found[f"ndcg@{CUT}"], intervals)


def with_macro_f1(scores: Scores, predicted: np.ndarray, labels: np.ndarray, primary: bool) -> Scores:
    """`scores` with the metric macro_f1 added, the mean of the F1 of the classes that occur in `labels`.

    predicted, labels: (N,) int.  primary: whether per_example becomes that of macro_f1: the value plus the influence of
    the example, whose mean is the value.
    """
    value, influence = _macro_f1(predicted, labels)
    metrics, intervals = dict(scores.metrics), dict(scores.intervals)
    _add(metrics, intervals, "macro_f1", value, influence, low=0.0, high=1.0)
    return Scores(metrics, value + influence if primary else scores.per_example, intervals)


def _macro_f1(predicted: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """The value and its influence values (N,).

    F1 = 2 a / (p + t) with a, p and t the shares of examples that are of a
    class and said to be, are said to be, and are; its derivatives give the influence of each example.
    """
    value, influence = 0.0, np.zeros(len(labels))
    present = np.unique(labels)
    for index in present:
        said, true = predicted == index, labels == index
        a, p, t = (said & true).mean(), said.mean(), true.mean()
        f1 = 2 * a / (p + t)
        value += f1 / len(present)
        influence += (2 * ((said & true) - a) - f1 * ((said - p) + (true - t))) / (p + t) / len(present)
    return float(value), influence


def spearman_scores(values: np.ndarray, targets: np.ndarray, groups: np.ndarray | None = None) -> Scores:
    """Spearman's and Pearson's correlation of `values` (N,) with `targets` (N,).

    groups: int (N,), equal for examples that are no chance of their own, such as outputs for one item; each is one where it
    is left out. The influence of a group then stands on its first example: the mean stays, and the spread is that of groups.

    per_example: the correlation of ranks plus the influence of the example on it. The ranks of all others move when an
    example does, which the influence counts in. Their mean is the correlation, and the mean of differences of two methods
    is the difference of their correlations, with its spread to first order. The intervals are Fisher's: symmetric for
    atanh(r), so that they stay within -1 and 1. Answers that are all equal have a correlation of 0.
    Raises DataError with fewer than two examples, targets that are all equal or outputs that are not finite, ValueError
    for shapes that disagree.
    """
    values, targets = np.asarray(values, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    _check(values, targets, (len(targets),))
    if np.ptp(targets) == 0:
        raise DataError(
            "all scores of the test pairs are equal, so nothing can agree with them", "give pairs that differ"
        )
    metrics: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    rank, influence = _rank_correlation(values, targets)
    straight, of_straight = _correlation(values, targets)
    influence, of_straight = _together(influence, groups), _together(of_straight, groups)
    for name, value, moves in (("spearman", rank, influence), ("pearson", straight, of_straight)):
        metrics[name] = value
        if len(moves) > 2 and abs(value) < 1:
            half = stdtrit(len(moves) - 1, 0.975) * moves.std(ddof=1) / np.sqrt(len(moves)) / (1 - value**2)
            low, high = np.tanh(np.arctanh(value) + np.array([-half, half]))
            intervals[name] = (float(low), float(high))
    return Scores(metrics, rank + influence, intervals)


def _together(influence: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """The sum over each group on its first example, and 0 on the others."""
    if groups is None:
        return influence
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    found = np.zeros_like(influence)
    found[first] = np.bincount(group, influence)
    return found


def _correlation(x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Pearson's r and its influence values."""
    spread = x.std(), y.std()
    if spread[0] <= 1e-12 * np.abs(x).max(initial=0.0):
        return 0.0, np.zeros(len(x))
    u, v = (x - x.mean()) / spread[0], (y - y.mean()) / spread[1]
    r = float((u * v).mean())
    return r, u * v - r / 2 * (u**2 + v**2)


def _rank_correlation(x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Spearman's rho, ties sharing their mean rank, and its influence values.

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


def _check(outputs: np.ndarray, targets: np.ndarray, shape: tuple[int, ...]) -> None:
    if not len(targets):
        raise DataError("there are no examples to judge on", "give the test part more rows")
    if outputs.shape != shape:
        raise ValueError(f"outputs have the shape {outputs.shape}, not {shape}")
    if not np.isfinite(outputs).all():
        raise DataError("the model's outputs are not all finite numbers", "train again with a smaller --set lr=")


def _add(
    metrics: dict[str, float],
    intervals: dict[str, tuple[float, float]],
    name: str,
    value: float,
    influence: np.ndarray,
    low: float = -np.inf,
    high: float = np.inf,
) -> None:
    metrics[name] = value
    count = len(influence)
    if count > 1:
        half = float(stdtrit(count - 1, 0.975) * influence.std(ddof=1) / np.sqrt(count))
        intervals[name] = (max(value - half, low), min(value + half, high))


def wilson(share: float, count: float) -> tuple[float, float]:
    centre = (share + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z / (1 + Z**2 / count) * np.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
    low, high = (float(np.clip(end, 0.0, 1.0)) for end in (centre - half, centre + half))  # rounding leaves it
    return min(low, float(share)), max(high, float(share))


def _mean_of_shares(shares: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Interval of the mean of independent shares, from Wilson's interval of each (Zou and Donner 2008, MOVER)."""
    low, high = np.array([wilson(share, count) for share, count in zip(shares, counts, strict=True)]).T
    mean = shares.mean()
    below, above = (np.sqrt(((shares - end) ** 2).sum()) / len(shares) for end in (low, high))
    return float(max(mean - below, 0.0)), float(min(mean + above, 1.0))


def _auc(scores: np.ndarray, positive: np.ndarray) -> tuple[float, np.ndarray]:
    """Area under the ROC curve, ties counting half, and its influence values (N,) (DeLong et al. 1988)."""
    ranks = scipy.stats.rankdata(scores)
    within = np.empty_like(ranks)
    for side in (positive, ~positive):
        within[side] = scipy.stats.rankdata(scores[side])
    count, others = positive.sum(), (~positive).sum()
    # share of the other side that an example is ranked on the right side of
    placement = np.where(positive, (ranks - within) / others, 1 - (ranks - within) / count)
    area = float(placement[positive].mean())
    return area, (placement - area) * len(scores) / np.where(positive, count, others)
