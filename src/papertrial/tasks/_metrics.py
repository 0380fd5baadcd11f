"""Metrics of the supervised tasks: what there is to choose from, and how answers are scored, each with a 95 % interval.

A metric that is a smooth function of means has an influence value per example (`_influence.py`); the spread of its sums
over groups gives the interval, where a group is what is one chance: a patient, copies of one picture, or else a row.
Shares near 0 or 1 get Wilson's interval instead, so that a perfect score on few examples does not look certain. Beside each
value stands its floor, what the best answer gets that does not look at the inputs.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import ndtri, stdtrit

from papertrial.core.errors import DataError, PapertrialError, did_you_mean
from papertrial.core.stats import by_group
from papertrial.core.task import Ragged, Scores
from papertrial.tasks import _influence

Z = float(ndtri(0.975))
#: share of the labels under which a class is rare: then accuracy says little, and more is shown about that class
RARE = 0.1
_FAR = 3.0  # times what is real that a distance is far from it


@dataclass(frozen=True)
class Metric:
    """One way to judge answers.

    of: what is judged: classes, values, texts, rankings, agreement, sizes or pictures.  words: what it is, to a person.  low, high:
    the values that are possible.  floor: of the best answer that does not look at the inputs; None where that depends on
    the data, see `Scores.floors`.  ceiling: of perfect answers; None where nobody knows.  at: what stands behind `=` in
    the name, for metrics that need a number.
    """

    name: str
    of: str
    words: str
    higher: bool = True
    low: float = 0.0
    high: float = 1.0
    floor: float | None = None
    ceiling: float | None = 1.0
    at: float | None = None


def _lower(name: str, of: str, words: str, ceiling: float | None = 0.0, at: float | None = None) -> Metric:
    return Metric(name, of, words, higher=False, high=np.inf, ceiling=ceiling, at=at)


_EVERY = (
    Metric("accuracy", "classes", "share of right answers"),
    Metric("balanced_accuracy", "classes", "mean over classes of the share found"),
    Metric("macro_f1", "classes", "mean over classes of F1"),
    Metric("f1", "classes", "F1 of the rarest class"),
    Metric("auc", "classes", "area under the ROC curve", floor=0.5),
    Metric("average_precision", "classes", "mean precision over the thresholds, of the rarer of two classes"),
    Metric("recall@precision", "classes", "recall of the rarest class where its precision is still so high", at=0.9),
    Metric("precision@recall", "classes", "precision of the rarest class where so much of it is found", at=0.9),
    _lower("log_loss", "classes", "mean -log of the probability of the true class"),
    _lower("brier", "classes", "mean squared distance of the probabilities from the truth"),
    _lower("rmse", "values", "root of the mean squared error"),
    _lower("mae", "values", "mean absolute error"),
    _lower("median_absolute_error", "values", "median of the absolute errors"),
    _lower("quantile_loss", "values", "mean loss of an answer taken for that quantile", at=0.9),
    Metric("r2", "values", "share of the variance explained", low=-np.inf, floor=0.0),
    Metric("exact_match", "texts", "share of answers equal to the target"),
    Metric("chrf", "texts", "F of runs of characters"),
    Metric("ndcg@10", "rankings", "nDCG of the first 10"),
    Metric("mrr@10", "rankings", "reciprocal rank of the first hit among 10"),
    Metric("recall@10", "rankings", "share of the relevant among the first 10"),
    Metric("recall@100", "rankings", "share of the relevant among the first 100"),
    Metric("spearman", "agreement", "correlation of ranks", low=-1.0, floor=0.0),
    Metric("pearson", "agreement", "linear correlation", low=-1.0, floor=0.0),
    _lower("bits_per_byte", "sizes", "bits a byte of text takes", ceiling=None),
    Metric("caption_rank", "pictures", "share of other pictures that are farther from what was asked for", floor=0.5),
    _lower("frechet", "pictures", "distance of the drawn from the real pictures", ceiling=None),
)
#: all that can be the primary metric of a task, by name
METRICS = {metric.name: metric for metric in _EVERY}


def metric_named(name: str, of: str | None = None) -> Metric:
    """The metric a person names, such as `auc` or `recall@precision=0.95`, among those of one kind where it is given.

    Raises PapertrialError for another name, and for a number that is none or outside (0, 1).
    """
    base, _, number = name.strip().replace(" ", "_").replace("-", "_").lower().partition("=")
    known = {key: metric for key, metric in METRICS.items() if of in (None, metric.of)}
    if base not in known:
        near = difflib.get_close_matches(base, known, n=1, cutoff=0.5)
        raise PapertrialError(
            f"there is no metric {name!r} here", did_you_mean(base, known) if near else f"choose {', '.join(known)}"
        )
    metric = known[base]
    if metric.at is None:
        if number:
            raise PapertrialError(f"the metric {base} takes no number", f"write --metric {base}")
        return metric
    number = number or f"{metric.at:g}"
    if not re.fullmatch(r"0?\.\d+", number) or not float(number):
        raise PapertrialError(f"{name!r} needs a number between 0 and 1", f"write --metric {base}={metric.at:g}")
    return replace(metric, name=f"{base}={float(number):g}", at=float(number))


def primary(state: Mapping[str, Any], default: str) -> Metric:
    """The metric that was chosen when the data were prepared, `state["metric"]`, or the `default` of the task."""
    return metric_named(state.get("metric") or default)


def groups_of(split: Mapping[str, Any], judged: Any = slice(None)) -> np.ndarray | None:
    """int (rows judged,): the groups of the rows, from the column "group"; None where each row is its own."""
    groups = split.get("group")
    return None if groups is None else np.asarray(groups)[judged]


def possible(name: str, reference: float) -> tuple[float, float]:
    """What the difference to a `reference` can be, of the values of a metric; without ends where it is not in METRICS."""
    metric = METRICS.get(name.partition("=")[0])
    return (-np.inf, np.inf) if metric is None else (metric.low - reference, metric.high - reference)


def at_floor(
    name: str,
    metrics: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
    floors: Mapping[str, float],
) -> list[str]:
    """A sentence where a metric is not shown to be better than what the best answer gets that does not look at the inputs."""
    floor, metric = floors.get(name), METRICS[name.partition("=")[0]]
    if floor is None or name not in metrics:
        return []
    low, high = intervals.get(name, (metrics[name], metrics[name]))
    if low > floor if metric.higher else high < floor:
        return []
    than = "chance" if metric.of == "agreement" else "not looking at the inputs"
    return [f"by {name}, {metrics[name]:.3g}, it is not shown to do better than {than}, {floor:.3g}"]


def far_from_ceiling(name: str, metrics: Mapping[str, float], ceilings: Mapping[str, float]) -> list[str]:
    """A sentence where a distance is many times that of what is real."""
    metric = METRICS.get(name.partition("=")[0])
    if metric is None or metric.higher or name not in metrics or name not in ceilings:
        return []
    if metrics[name] <= _FAR * ceilings[name]:
        return []
    return [f"by {name}, {metrics[name]:.3g}, it is far from what real ones get, {ceilings[name]:.3g}"]


class _Found:
    """Metrics as they are found. groups: int (N,), equal for examples that are one chance; None: each is its own."""

    def __init__(self, groups: np.ndarray | None) -> None:
        self.groups = groups
        self.metrics: dict[str, float] = {}
        self.intervals: dict[str, tuple[float, float]] = {}
        self.floors: dict[str, float] = {}
        self.per_example: dict[str, np.ndarray] = {}
        self.remarks: list[str] = []

    def add(
        self,
        name: str,
        found: _influence.Influence,
        floor: float | None = None,
        values: np.ndarray | None = None,
        interval: tuple[float, float] | None = None,
        of: np.ndarray | None = None,
    ) -> None:
        """values: what the metric is the mean of, where it is one.  interval: instead of the usual one.  of: bool (N,), the
        examples that it is a share of. Where no example moves it, as where all answers are right, it is as uncertain as a
        share of that value: nothing was seen of what is rare."""
        value, influence = found
        metric = metric_named(name)
        self.metrics[name] = value
        self.per_example[name] = value + influence if values is None else values
        floor = metric.floor if floor is None else floor
        if floor is not None:
            self.floors[name] = float(floor)
        moves = by_group(influence[None], self.groups)[0]
        count = len(moves)
        if interval is None and count > 1:
            half = float(stdtrit(count - 1, 0.975) * moves.std(ddof=1) / np.sqrt(count))
            interval = (max(value - half, metric.low), min(value + half, metric.high))
            if not moves.any() and np.isfinite([metric.low, metric.high]).all():
                rests = np.ones(len(influence), dtype=bool) if of is None else of
                chances = int(rests.sum()) if self.groups is None else len(np.unique(self.groups[rests]))
                span = metric.high - metric.low
                share = wilson((value - metric.low) / span, max(1, chances))
                interval = (metric.low + span * share[0], metric.low + span * share[1])
        if interval is not None:
            self.intervals[name] = interval

    def share(self, name: str, right: np.ndarray, floor: float | None = None) -> None:
        """Of values (N,) that are 0 or 1."""
        self.add(name, _influence.mean(right), floor, right, wilson_of(right, self.groups))

    def scores(self, primary: str) -> Scores:
        groups = 0 if self.groups is None else len(np.unique(self.groups))
        beside = {"mae": self.per_example["mae"]} if primary in ("rmse", "r2") else {}
        remarks = [*self.remarks, *at_floor(primary, self.metrics, self.intervals, self.floors)]
        return Scores(
            self.metrics, self.per_example[primary], self.intervals, self.floors, groups=groups, beside=beside,
            remarks=tuple(remarks),
        )  # fmt: skip


def classification_scores(
    probabilities: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    primary: str = "accuracy",
    groups: np.ndarray | None = None,
    positive: int | None = None,
) -> Scores:
    """Accuracy, balanced accuracy, macro F1, AUC, average precision, log loss and the Brier score; for a rare class its F1,
    recall and precision too; and `primary`, one of METRICS for classes, whose value + influence is in per_example.

    probabilities: (N, classes) float.  labels: (N,) int in [0, classes).  groups: int (N,), equal for examples that are one
    chance.  positive: the class that f1, recall@precision and precision@recall speak of, and of two classes AUC and average
    precision, which are means over one-against-the-rest otherwise; by default the rarest that occurs. What needs two classes
    is left out where the test has one only. Accuracy has 1.0 per example where the answer is right.
    Raises DataError without examples, with outputs that are not finite or one class where `primary` needs two, ValueError
    for shapes that disagree, PapertrialError for a metric that is none of classes.
    """
    probabilities, labels = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    _check(probabilities, labels, (len(labels), len(class_names)))
    if labels.min() < 0 or labels.max() >= len(class_names):
        raise ValueError(f"labels reach from {labels.min()} to {labels.max()}, outside of {len(class_names)} classes")
    counts = np.bincount(labels, minlength=len(class_names))
    shares = counts[counts > 0] / len(labels)
    positive = rarest(labels) if positive is None else positive
    of_one = counts[positive] / len(labels)
    said = probabilities.argmax(axis=1)
    found = _Found(groups)
    if len(np.unique(said)) == 1 and len(labels) > 1 and len(class_names) > 1:
        found.remarks.append(f"the answer is {class_names[said[0]]!r} for each of the {len(labels):,} examples")

    right = (said == labels).astype(np.float64)
    found.share("accuracy", right, shares.max())
    interval = _mean_of_shares(
        [(right[labels == k], None if groups is None else groups[labels == k]) for k in np.flatnonzero(counts)]
    )
    found.add("balanced_accuracy", _influence.balanced_accuracy(said, labels), 1 / len(shares), interval=interval)
    best = 2 * shares.max() / (1 + shares.max()) / len(shares)  # the F1 of the commonest class, and 0 of the others
    found.add("macro_f1", _influence.macro_f1(said, labels), best)
    found.add("log_loss", _influence.log_loss(probabilities, labels), -(shares * np.log(shares)).sum())
    spread = (1 - (shares**2).sum()) / (2 if len(class_names) == 2 else 1)
    found.add("brier", _influence.brier(probabilities, labels), spread)

    if len(shares) > 1:
        for name, one in (("auc", _influence.auc), ("average_precision", _influence.average_precision)):
            floor = of_one if name == "average_precision" and len(class_names) == 2 else None
            floor = 1 / len(shares) if name == "average_precision" and floor is None else floor
            rarer = labels == (positive if len(shares) == 2 else rarest(labels))
            found.add(name, _influence.over_classes(one, probabilities, labels, positive), floor, of=rarer)
    wanted = metric_named(primary, "classes")
    scores, true = probabilities[:, positive], labels == positive
    for name in dict.fromkeys([*(_OF_ONE_CLASS if 0 < of_one < RARE else ()), wanted.name]):
        metric = metric_named(name)
        if name in found.metrics or not 0 < of_one < 1:
            continue
        if name == "f1":
            found.add(name, _influence.f1(said == positive, true), 2 * of_one / (1 + of_one), of=true)
        elif name.startswith("recall@"):
            least = float(of_one >= (metric.at or 0.0))
            found.add(name, _influence.recall_at(metric.at or 0.0)(scores, true), least, of=true)
        elif name.startswith("precision@"):
            found.add(name, _influence.precision_at(metric.at or 0.0)(scores, true), of_one, of=true)
    if wanted.name not in found.metrics:
        only = class_names[int(np.argmax(counts))]
        raise DataError(
            f"all test examples are of the class {only!r}, so {primary} cannot be told", "give the test part others too"
        )
    return found.scores(wanted.name)


_OF_ONE_CLASS = ("f1", "recall@precision=0.9", "precision@recall=0.9")


def rarest(labels: np.ndarray) -> int:
    """The class with the fewest labels (N,) of those that occur; the last of several."""
    counts = np.bincount(labels)
    return int(len(counts) - 1 - np.where(counts > 0, counts, len(labels) + 1)[::-1].argmin())


def regression_scores(
    values: np.ndarray, targets: np.ndarray, primary: str = "rmse", groups: np.ndarray | None = None
) -> Scores:
    """RMSE, MAE, median absolute error and R2 of `values` (N,) against `targets` (N,), and `primary`, one of METRICS for
    values, whose value + influence is in per_example; beside RMSE that of MAE is kept.

    groups: int (N,), equal for examples that are one chance.  R2 is left out where all targets are equal.
    Raises DataError without examples, with outputs that are not finite or equal targets where `primary` is R2, ValueError
    for shapes that disagree, PapertrialError for a metric that is none of values.
    """
    values, targets = np.asarray(values, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    _check(values, targets, (len(targets),))
    found = _Found(groups)
    wanted = metric_named(primary, "values")
    apart, middle = targets - targets.mean(), float(np.median(targets))
    found.add("rmse", _influence.rmse(values, targets), np.sqrt(np.square(apart).mean()))
    found.add("mae", _influence.mae(values, targets), np.abs(targets - middle).mean(), np.abs(values - targets))
    found.add("median_absolute_error", _influence.median_absolute_error(values, targets), _shortest_half(targets))
    if apart.any():
        found.add("r2", _influence.r2(values, targets))
    if wanted.at is not None:
        loss = _influence.quantile_loss(wanted.at)
        constant = np.full_like(targets, np.quantile(targets, wanted.at, method="inverted_cdf"))
        found.add(wanted.name, loss(values, targets), loss(constant, targets)[0])
    if wanted.name not in found.metrics:
        raise DataError("all targets of the test rows are equal, so r2 cannot be told", "add --metric rmse")
    return found.scores(wanted.name)


def _shortest_half(targets: np.ndarray) -> float:
    """The smallest median absolute error that a constant has: half the length of the shortest interval over half of them."""
    ordered, half = np.sort(targets), len(targets) // 2
    return float((ordered[half:] - ordered[: len(targets) - half]).min() / 2)


def text_scores(
    answers: Sequence[str], targets: Sequence[str], primary: str, groups: np.ndarray | None = None
) -> Scores:
    """Exact match and chrF of written answers; blanks around a text do not count.

    primary: `exact_match` or `chrf`, whose values per_example holds.  groups: int (N,), equal for examples that are one
    chance.  Raises DataError without examples, ValueError for lengths that disagree.
    """
    if not len(targets):
        raise DataError("there are no examples to judge on", "give the test part more rows")
    pairs = [(answer.strip(), target.strip()) for answer, target in zip(answers, targets, strict=True)]
    likeness = np.array([chrf(answer, target) for answer, target in pairs])
    found = _Found(groups)
    commonest = Counter(target for _, target in pairs).most_common(1)[0][1]
    found.share("exact_match", np.array([float(answer == target) for answer, target in pairs]), commonest / len(pairs))
    found.add("chrf", _influence.mean(likeness), values=likeness)
    return found.scores(metric_named(primary, "texts").name)


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


def ratio_scores(name: str, totals: np.ndarray, sizes: np.ndarray, groups: np.ndarray | None = None) -> Scores:
    """The sum of `totals` (N,) over the sum of `sizes` (N,), such as bits per byte.

    per_example: the ratio + (total - ratio size) / mean size: their mean is the ratio, and their spread is that of the
    ratio to first order.  groups: int (N,), equal for examples that are one chance.
    Raises DataError without examples or with totals that are not finite.
    """
    totals, sizes = np.asarray(totals, dtype=np.float64), np.asarray(sizes, dtype=np.float64)
    _check(totals, sizes, (len(sizes),))
    ratio = float(totals.sum() / sizes.sum())
    found = _Found(groups)
    found.add(name, (ratio, (totals - ratio * sizes) / sizes.mean()))
    return found.scores(name)


#: places of a ranking that each metric looks at; the last is the depth a method has to rank to
CUT, DEPTH = 10, 100


def ranking_scores(
    ranked: np.ndarray, judged: Ragged, primary: str = f"ndcg@{CUT}", groups: np.ndarray | None = None
) -> Scores:
    """nDCG@10 with linear gains, MRR@10 and recall@10 and @100, as trec_eval has them, means over queries.

    ranked: int (queries, places), the grades of what was found, best first; 0 for unjudged or none.  judged: Ragged int,
    all grades of each query; 1 or more is relevant, and every query needs one.  primary: whose values per_example
    holds.  groups: int (queries,), equal for queries that are one chance.
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
    values = {
        f"ndcg@{CUT}": gains[:, :CUT] @ discount[: gains[:, :CUT].shape[1]] / ideal,
        f"mrr@{CUT}": np.where(hits[:, :CUT].any(axis=1), 1 / (first + 1), 0.0),
        **{f"recall@{cut}": hits[:, :cut].sum(axis=1) / relevant for cut in (CUT, DEPTH)},
    }
    found = _Found(groups)
    for name, each in values.items():
        found.add(name, _influence.mean(each), values=each)
    return found.scores(metric_named(primary, "rankings").name)


def spearman_scores(
    values: np.ndarray, targets: np.ndarray, groups: np.ndarray | None = None, primary: str = "spearman"
) -> Scores:
    """Spearman's and Pearson's correlation of `values` (N,) with `targets` (N,).

    groups: int (N,), equal for examples that are one chance, such as outputs for one item.  per_example: the correlation
    plus the influence of the example on it. Their mean is the correlation, and the mean of differences of two methods
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
    found = _Found(groups)
    for name, measure in (("spearman", _influence.spearman), ("pearson", _influence.pearson)):
        value, influence = measure(values, targets)
        found.add(name, (value, influence), interval=_fisher(value, by_group(influence[None], groups)[0]))
    return found.scores(metric_named(primary, "agreement").name)


def _fisher(value: float, moves: np.ndarray) -> tuple[float, float] | None:
    if len(moves) <= 2 or abs(value) >= 1:
        return None
    half = stdtrit(len(moves) - 1, 0.975) * moves.std(ddof=1) / np.sqrt(len(moves)) / (1 - value**2)
    low, high = np.tanh(np.arctanh(value) + np.array([-half, half]))
    return float(low), float(high)


def _check(outputs: np.ndarray, targets: np.ndarray, shape: tuple[int, ...]) -> None:
    if not len(targets):
        raise DataError("there are no examples to judge on", "give the test part more rows")
    if outputs.shape != shape:
        raise ValueError(f"outputs have the shape {outputs.shape}, not {shape}")
    if not np.isfinite(outputs).all():
        raise DataError("the model's outputs are not all finite numbers", "train again with a smaller --set lr=")


def wilson(share: float, count: float, z: float = Z) -> tuple[float, float]:
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    low, high = (float(np.clip(end, 0.0, 1.0)) for end in (centre - half, centre + half))  # rounding leaves it
    return min(low, float(share)), max(high, float(share))


def wilson_of(right: np.ndarray, groups: np.ndarray | None = None) -> tuple[float, float]:
    """Wilson's interval of the share of ones in `right` (N,); over groups, with as many examples as would vary as much."""
    share = float(right.mean())
    if groups is None:
        return wilson(share, len(right))
    sums = by_group((right - share)[None], groups)[0]
    count = len(sums)
    if count < 2:
        return 0.0, 1.0
    variance = float(sums.var(ddof=1)) / count
    alike = count if variance == 0 else min(share * (1 - share) / variance, len(right))
    return wilson(share, alike, float(stdtrit(count - 1, 0.975)))


def _mean_of_shares(parts: Sequence[tuple[np.ndarray, np.ndarray | None]]) -> tuple[float, float]:
    """Interval of the mean of independent shares, from Wilson's interval of each (Zou and Donner 2008, MOVER).

    parts: (0 or 1, groups) of the examples of each."""
    low, high = np.array([wilson_of(*part) for part in parts]).T
    shares = np.array([right.mean() for right, _ in parts])
    mean = shares.mean()
    below, above = (np.sqrt(((shares - end) ** 2).sum()) / len(shares) for end in (low, high))
    return float(max(mean - below, 0.0)), float(min(mean + above, 1.0))
