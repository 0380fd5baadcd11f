"""Paired intervals and verdicts: does a method differ from its baseline, and if that cannot be told, what would tell.

The data of one comparison are differences D (seeds x test examples), method minus baseline, on a test set that is the
same for every seed: a crossed design,

    D[i, j] = difference + seed[i] + example[j] + interaction[i, j].

Its mean squares are A (seeds; expects interaction + examples * seed variance), B (test examples; expects
interaction + seeds * example variance) and E (expects the interaction alone), and the variance of the grand mean is
(E[A] + E[B] - E[E]) / (seeds * examples).

The interval is mean +- h with

    h^2 = max( t_A^2 A + t_B^2 (B - E)+ , t_B^2 B ) / (seeds * examples),     t_A, t_B: Student, seeds-1 and examples-1

Each part keeps the Student factor of its own degrees of freedom. For independent mean squares a sum of this kind
covers at least its level whatever the variances are (Banerjee 1961, Sankhya A 23). Pooled degrees of freedom (Welch
1947, Satterthwaite 1946) do not: with 2 or 3 seeds the seed part is small by chance too often, and with no true
difference they spoke up in as many as 11 % of simulated comparisons at a nominal 5 %. The interaction, which A and B
both contain, is counted once (B - E); the second argument of max is there because B never overstates the variance.

Two margins keep the promise of 5 %. For scores that are 0 or 1 and for few test examples, B is computed as if two more
examples had been seen, one as far above and one as far below the mean as the furthest one (the "plus two" rule of
Agresti and Caffo 2000, for any score). And levels are multiplied by 0.6, which leaves 3 % where seeds decide everything
and less elsewhere: room for seeds that are not normal and for looking again. Whoever adds seeds because nothing could
be told gives chance a second chance; so each further look is tested at half the level of the one before, and the
advice on more seeds counts with that.

A test example here is what is one chance: where rows belong together, `by_group` makes D of groups. Differences without
bounds (errors, losses) can be skewed, with a tail that few examples have shown: the interval then reaches farther to the
side of the tail, as P. Hall's transformation has it (1992, J. R. Statist. Soc. B 54), and a few skewed examples get no word.
With a tail so heavy that one example in a hundred decides, no mean can be judged, see `tail`. `tests/core/test_stats.py`
and `tools/regimes.py` hold the simulations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from papertrial.core.errors import PapertrialError
from papertrial.core.wording import counted

HELPS, HURTS, CANNOT_TELL = "helps", "hurts", "cannot tell"
#: more seeds, or a test set so many times larger, is not a plan anybody follows
MOST_SEEDS, MOST_EXAMPLES = 200, 20
FEWEST_EXAMPLES = 10
EXAMPLE = "test example"
LEVEL, POWER = 0.05, 0.8
NEXT_LOOK = 0.5
_MARGIN = 0.6
_NODES = 256
#: under so many examples a skewness beyond this gets no word
FEW, SKEWED = 50, 2.0
#: share of the squared differences that one example in a hundred may carry, before the mean is theirs
HEAVY, TOP = 0.3, 0.01
#: kurtosis of errors from which a few may decide the mean of their squares: of many examples, and of few; with fewer than the
#: last number nobody can tell (normal errors have 3, and 5 is rare among 200)
LONG, LONG_OF_FEW, MANY, TOO_FEW = 5.0, 3.5, 200, 100
#: metrics are kept within these where nothing is known
ANYWHERE = (-math.inf, math.inf)


def reaches(value: float, least: float) -> bool:
    """Whether an estimate is `least` or more, but for the rounding of its last digits: 0.07 of 100 is 7.000000000000001."""
    return value >= least or math.isclose(value, least, rel_tol=1e-9)


def by_group(differences: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """The influences of groups, (seeds, G), from those of examples, (seeds, N): the unit of analysis where examples are no
    chances of their own (rows of one patient, copies of one picture).

    groups: int (N,), equal for examples of one group; None: each is its own.  d_g = G / N times the sum over the examples
    of g, in the order of the groups' numbers: the mean stays, and variance, degrees of freedom and the fewest that can be
    judged by follow from G.  Raises ValueError for lengths that disagree.
    """
    d = np.asarray(differences, dtype=np.float64)
    if groups is None:
        return d
    if np.shape(groups) != d.shape[1:]:
        raise ValueError(f"{np.shape(groups)} groups for differences of shape {d.shape}")
    _, place, count = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(place, kind="stable")
    starts = np.cumsum(count) - count
    return np.add.reduceat(d[:, order], starts, axis=1) * (len(count) / d.shape[1])


@dataclass(frozen=True)
class MeanSquares:
    """Analysis of variance of differences (..., seeds, examples); fields are arrays of the leading shape, or floats.

    mean: the grand mean.  by_seed, by_example, rest: the mean squares A, B, E above.  furthest: the largest distance
    of an example (averaged over seeds) from the mean.  skewness: of the examples (averaged over seeds), 0 where they have
    bounds.
    """

    mean: Any
    by_seed: Any
    by_example: Any
    rest: Any
    furthest: Any
    seeds: int
    examples: int
    skewness: Any = 0.0


@dataclass(frozen=True)
class Variances:
    """Of the effects of seeds, of test examples, and of their interaction; furthest, skewness: see MeanSquares."""

    seed: float
    example: float
    interaction: float
    furthest: float = 0.0
    skewness: float = 0.0


def mean_squares(differences: np.ndarray) -> MeanSquares:
    """Analyse `differences` (..., seeds >= 2, examples >= 2), any real dtype; leading axes are separate comparisons."""
    d = np.asarray(differences, dtype=np.float64)
    seeds, examples = d.shape[-2:]
    mean = d.mean((-2, -1))
    seed = d.mean(-1) - mean[..., None]
    example = d.mean(-2) - mean[..., None]
    rest = d - mean[..., None, None] - seed[..., :, None] - example[..., None, :]
    return MeanSquares(
        mean=mean,
        by_seed=examples * np.square(seed).sum(-1) / (seeds - 1),
        by_example=seeds * np.square(example).sum(-1) / (examples - 1),
        rest=np.square(rest).sum((-2, -1)) / ((seeds - 1) * (examples - 1)),
        furthest=np.abs(example).max(-1),
        seeds=seeds,
        examples=examples,
        skewness=_skewness(example),
    )


def _skewness(centred: np.ndarray) -> Any:
    """Fisher's G1 of values (..., examples) of mean 0, with a margin for few: a sample shows too little of a long tail."""
    count = centred.shape[-1]
    if count < 3:
        return np.zeros(centred.shape[:-1])
    spread = np.sqrt(np.square(centred).mean(-1))
    third = (centred / np.where(spread > 0, spread, 1.0)[..., None]) ** 3
    return third.mean(-1) * math.sqrt(count * (count - 1)) / (count - 2) * (1 + 3 / count)


def half_width(squares: MeanSquares, level: float = LEVEL, side: float = 0.0) -> Any:
    """h of the interval mean +- h, which misses the true difference with probability `level` at most.

    side: which end is asked for, negative for the lower and positive for the upper one; the one that a skewed tail points
    to lies farther out. 0: as if there were no skewness.
    """
    from scipy.special import stdtrit

    t_seed = stdtrit(squares.seeds - 1, _MARGIN * level / 2) ** 2
    t_example = -stdtrit(squares.examples - 1, _MARGIN * level / 2)
    t_example = _stretched(t_example, squares.skewness * np.sign(side), squares.examples) ** 2
    by_example = squares.by_example + 2 * squares.seeds * np.square(squares.furthest) / (squares.examples - 1)
    both = t_seed * squares.by_seed + t_example * np.maximum(by_example - squares.rest, 0)
    return np.sqrt(np.maximum(both, t_example * by_example) / (squares.seeds * squares.examples))


def _stretched(t: Any, towards: Any, count: float) -> Any:
    """Student's factor t for the end that lies where skewness is `towards`; never less than t.

    Hall's g(S) = S - a S^2 / 3 + a^2 S^3 / 27 - a / (6 n) of the studentised mean S, a the skewness on that side, is
    close to normal / sqrt(n) where S is not; its inverse is known.
    """
    a = np.maximum(towards, 0.0)
    some = np.where(a > 1e-6, a, 1.0)
    size = 3 / some * (1 - np.cbrt(1 - some * (t / math.sqrt(count) + some / (6 * count))))
    return np.maximum(t, np.where(a > 1e-6, size * math.sqrt(count), t))


def p_value(squares: MeanSquares) -> float:
    """The smallest level at which the interval of one comparison leaves out zero; 1 when none does."""
    size, side = abs(float(squares.mean)), -float(np.sign(squares.mean))
    if size <= half_width(squares, 1.0, side):
        return 1.0
    low, high = -40.0, 0.0  # log10 of the level; Student's quantiles are finite down to here
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if size > half_width(squares, 10.0**middle, side) else (middle, high)
    return float(10.0**high)


def variances(squares: MeanSquares) -> Variances:
    """Unbiased estimates of the variances of one comparison, cut off at zero."""
    return Variances(
        seed=max(0.0, float(squares.by_seed - squares.rest) / squares.examples),
        example=max(0.0, float(squares.by_example - squares.rest) / squares.seeds),
        interaction=float(squares.rest),
        furthest=float(squares.furthest),
        skewness=float(squares.skewness),
    )


def power(
    difference: float,
    seeds: int,
    examples: int,
    spread: Variances,
    *,
    level: float = LEVEL,
    same_examples: bool = False,
) -> float:
    """Chance that a comparison finds `difference` (says helps, or hurts when it is negative).

    same_examples: the test set is the one `difference` was seen on, so its examples add no chance of their own; this
    is the question "what would more seeds do". Otherwise seeds and test examples are drawn anew.
    The chance in the seeds' mean square is integrated over; the other mean squares are taken at their expectations.
    """
    from scipy.special import chdtri, ndtr

    if seeds < 2 or examples < FEWEST_EXAMPLES or difference == 0:
        return 0.0
    chance = (np.arange(_NODES) + 0.5) / _NODES
    expected = spread.interaction + examples * spread.seed
    squares = MeanSquares(
        mean=difference,
        by_seed=expected * chdtri(seeds - 1, chance) / (seeds - 1),
        by_example=spread.interaction + seeds * spread.example,
        rest=spread.interaction,
        furthest=spread.furthest,
        seeds=seeds,
        examples=examples,
        skewness=spread.skewness,
    )
    variance = (expected + (0.0 if same_examples else seeds * spread.example)) / (seeds * examples)
    beyond = abs(difference) - half_width(squares, level, -np.sign(difference))
    return float(ndtr(beyond / math.sqrt(variance)).mean() if variance > 0 else (beyond > 0).mean())


def seeds_needed(
    difference: float,
    examples: int,
    spread: Variances,
    *,
    level: float = LEVEL,
    wanted: float = POWER,
    most: int = MOST_SEEDS,
) -> int | None:
    """Fewest seeds with which the same test set shows `difference` with probability `wanted`; None beyond `most`."""
    return fewest(
        2, most, lambda seeds: power(difference, seeds, examples, spread, level=level, same_examples=True) >= wanted
    )


def examples_needed(
    difference: float, seeds: int, spread: Variances, *, level: float = LEVEL, wanted: float = POWER, most: int
) -> int | None:
    """Fewest test examples with which as many seeds show `difference` with probability `wanted`; None beyond `most`."""
    return fewest(
        FEWEST_EXAMPLES, most, lambda examples: power(difference, seeds, examples, spread, level=level) >= wanted
    )


def fewest(low: int, high: int, enough: Callable[[int], bool]) -> int | None:
    """Smallest integer in [low, high] that is enough, by bisection; None when `high` is not."""
    if not enough(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low


@dataclass(frozen=True)
class Verdict:
    """The outcome of one comparison. Positive differences are better, whatever the metric.

    word: helps | hurts | cannot tell.  low, high: the 95 % interval (NaN with one seed).  p: smallest level at which
    the word is not `cannot tell`.  level: the one it was tested at, less than 0.05 when several methods were compared
    or seeds were added.  power: chance of such a comparison to find a difference as large as the one seen.
    more_seeds, more_examples: what would settle it with 80 % probability if the difference seen is the true one;
    None: no reasonable number, or settled.  reason: why nothing can be said, where that is not chance.  unit: what an
    example is, to a person.
    """

    word: str
    difference: float
    low: float
    high: float
    seeds: int
    examples: int
    p: float
    level: float
    power: float
    more_seeds: int | None = None
    more_examples: int | None = None
    reason: str = ""
    unit: str = EXAMPLE

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def change(self, digits: int = 3, higher_is_better: bool = True) -> str:
        """`+0.031 [+0.010, +0.052]`, in the metric's own direction."""
        sign = 1.0 if higher_is_better else -1.0
        ends = sorted((sign * self.low, sign * self.high))
        shown = f"{sign * self.difference + 0.0:+.{digits}f}"
        return shown if math.isnan(self.low) else f"{shown} [{ends[0] + 0.0:+.{digits}f}, {ends[1] + 0.0:+.{digits}f}]"

    @property
    def advice(self) -> str:
        """What would settle it, as half a sentence; empty when it is settled."""
        if self.word != CANNOT_TELL:
            return ""
        if self.reason:
            return self.reason
        if self.more_seeds is not None:
            return f"about {counted(self.more_seeds, 'more seed')} would settle it"
        if self.more_examples is not None:
            more = counted(self.more_examples, f"more {self.unit}")
            return f"more seeds would not settle it, but about {more} would"
        return f"the difference is too small for any reasonable number of seeds (up to {MOST_SEEDS}) or {self.unit}s to settle"

    def sentence(
        self,
        method: str,
        reference: str,
        metric: str,
        *,
        higher_is_better: bool = True,
        budget: str = "",
        digits: int = 3,
        rounds: str = "",
    ) -> str:
        """The verdict in words, one sentence. rounds: what the seeds were, where they were more than seeds."""
        change = f"{metric} {self.change(digits, higher_is_better)}" + (
            "" if higher_is_better else ", lower is better,"
        )
        terms = (f" at an equal {budget}" if budget else "") + f", {rounds or counted(self.seeds, 'seed')}"
        if self.word != CANNOT_TELL:
            over = "over" if self.word == HELPS else "against"
            return f"{method} {self.word} on this data: {change} {over} {reference}{terms}."
        return f"{method}: cannot tell; {change} against {reference}{terms}; {self.advice}."


def verdict(
    differences: np.ndarray, *, looks: int = 0, bounds: tuple[float, float] = ANYWHERE, unit: str = EXAMPLE
) -> Verdict:
    """Judge one comparison from `differences` (seeds, examples), positive where the method is better.

    looks: how often the same comparison was judged before, with fewer seeds.  bounds: what their mean can be at all, such
    as from -1 to 1 for shares; intervals end there.  unit: what an example is, such as "group".
    Raises PapertrialError for another shape and for values that are not finite.
    """
    return verdicts([differences], looks=looks, bounds=bounds, unit=unit)[0]


def verdicts(
    comparisons: Sequence[np.ndarray],
    *,
    looks: int = 0,
    bounds: tuple[float, float] = ANYWHERE,
    unit: str = EXAMPLE,
) -> list[Verdict]:
    """Judge several comparisons at once: intervals are 95 % each, the words err in 5 % for all together (Holm 1979).

    Arguments and errors as for `verdict`.
    """
    checked = [_checked(differences) for differences in comparisons]
    analysed = [None if _reason(d, unit) else mean_squares(d) for d in checked]
    if math.isfinite(bounds[0]) and math.isfinite(bounds[1]):  # there is no tail beyond what was seen
        analysed = [None if squares is None else replace(squares, skewness=0.0) for squares in analysed]
    few = [squares is not None and _few_and_skewed(squares) for squares in analysed]
    p_values = [
        1.0 if squares is None or silent else p_value(squares) for squares, silent in zip(analysed, few, strict=True)
    ]
    levels = holm(p_values, LEVEL * NEXT_LOOK**looks)
    found = [
        _unjudged(d, own, unit) if squares is None else _judge(squares, p, own, unit, silent)
        for d, squares, p, own, silent in zip(checked, analysed, p_values, levels, few, strict=True)
    ]
    return [_within(one, *bounds) for one in found]


def _within(told: Verdict, low: float, high: float) -> Verdict:
    if math.isnan(told.low):
        return told
    return replace(told, low=min(max(told.low, low), told.difference), high=max(min(told.high, high), told.difference))


def _few_and_skewed(squares: MeanSquares) -> bool:
    return bool(squares.examples < FEW and abs(squares.skewness) > SKEWED)


def tail(differences: np.ndarray) -> tuple[float, np.ndarray]:
    """(the share of the squared differences that the largest hundredth of the examples carry, which these are).

    differences: (seeds, examples), of a metric of squares such as RMSE.  Beyond HEAVY their variance is that of a few
    examples, and need not be finite: no interval of the mean is worth its 95 %. Of absolute errors it is. Under normal
    errors the share is below that from 100 examples on in 9 of 10 test sets, from 1 000 on in almost all.
    """
    size = np.square(np.asarray(differences, dtype=np.float64).mean(axis=0))
    top = np.argsort(-size, kind="stable")[: max(1, round(TOP * len(size)))]
    whole = float(size.sum())
    return (float(size[top].sum()) / whole if whole > 0 else 0.0), top


def long_tailed(errors: np.ndarray, examples: int) -> bool:
    """Whether errors (seeds, rows) of one method may have so long a tail that the mean of their squares is not to be judged.

    examples: how many chances the rows are. The rows that decide may not have been seen yet, which differences of two
    methods do not show (`tail`), but the shape of the errors does.
    """
    squares = np.square(np.asarray(errors, dtype=np.float64))
    if examples < TOO_FEW:
        return True
    mean = squares.mean(axis=1)
    kurtosis = np.square(squares).mean(axis=1) / np.where(mean > 0, mean, 1.0) ** 2
    return float(kurtosis.mean()) > (LONG if examples >= MANY else LONG_OF_FEW)


def reach(seeds: int, tried: int = 1) -> float:
    """How many standard deviations between seeds a difference must have to be told, whatever the test examples say.

    tried: how many methods are judged at once.
    """
    from scipy.special import stdtrit

    return float(-stdtrit(seeds - 1, _MARGIN * LEVEL / tried / 2) / math.sqrt(seeds)) if seeds > 1 else math.inf


def holm(p_values: Sequence[float], level: float = LEVEL) -> list[float]:
    """Holm's step-down procedure as one level per hypothesis, rejected exactly when its p-value is at most that."""
    levels = [0.0] * len(p_values)
    current = 0.0
    open_ = True
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if open_:
            current = level / (len(p_values) - rank)
            open_ = p_values[index] <= current
        levels[index] = current
    return levels


def _checked(differences: np.ndarray) -> np.ndarray:
    d = np.asarray(differences, dtype=np.float64)
    if d.ndim != 2 or 0 in d.shape:
        raise PapertrialError(f"differences of shape {d.shape} are not (seeds, test examples)", "give one row per seed")
    if not np.isfinite(d).all():
        raise PapertrialError("some scores of a comparison are not finite", "look for a run that diverged")
    return d


def _reason(d: np.ndarray, unit: str) -> str:
    seeds, examples = d.shape
    if seeds < 2:
        return "one seed cannot show how much of the result is chance; use at least 3 seeds, better 5"
    if examples < FEWEST_EXAMPLES:
        return f"{counted(examples, unit)} are too few to judge by; at least {FEWEST_EXAMPLES} are needed"
    if not d.any():
        return f"both score the same on every {unit}"
    return ""


def _unjudged(d: np.ndarray, level: float, unit: str) -> Verdict:
    seeds, examples = d.shape
    end = 0.0 if min(d.shape) > 1 and not d.any() else math.nan
    reason = _reason(d, unit)
    return Verdict(CANNOT_TELL, float(d.mean()), end, end, seeds, examples, 1.0, level, 0.0, reason=reason, unit=unit)


def _judge(squares: MeanSquares, p: float, level: float, unit: str, silent: bool) -> Verdict:
    """silent: no word, since the examples are few and skewed."""
    seeds, examples, mean = squares.seeds, squares.examples, float(squares.mean)
    spread, (low, high) = variances(squares), (mean + side * float(half_width(squares, side=side)) for side in (-1, 1))
    chance = power(mean, seeds, examples, spread, level=level)
    if silent:
        return Verdict(
            CANNOT_TELL, mean, low, high, seeds, examples, p, level, chance,
            reason=f"a few of the {counted(examples, unit)} decide; bring {FEW} or more", unit=unit,
        )  # fmt: skip
    if p <= level:
        word = HELPS if mean > 0 else HURTS
        return Verdict(word, mean, low, high, seeds, examples, p, level, chance, unit=unit)
    total = seeds_needed(mean, examples, spread, level=NEXT_LOOK * level)
    larger = (
        None
        if total is not None
        else examples_needed(mean, seeds, spread, level=NEXT_LOOK * level, most=MOST_EXAMPLES * examples)
    )
    return Verdict(
        CANNOT_TELL, mean, low, high, seeds, examples, p, level, chance,
        more_seeds=None if total is None else max(1, total - seeds),
        more_examples=None if larger is None else max(1, larger - examples), unit=unit,
    )  # fmt: skip
