"""What paired outcomes say: differences over groups, in a metric that can be judged, within what is possible."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from papertrial.core.budget import Energy, duration
from papertrial.core.stats import (
    ANYWHERE,
    CANNOT_TELL,
    HEAVY,
    TOO_FEW,
    Verdict,
    by_group,
    half_width,
    long_tailed,
    mean_squares,
    tail,
    verdicts,
)
from papertrial.core.wording import counted
from papertrial.study.comparison import Row
from papertrial.study.entrants import Entrant
from papertrial.study.worth import Worth
from papertrial.tasks._metrics import METRICS, possible

#: metrics of squared errors, which a few rows can decide, and the one that is judged in their place
_SQUARED, _INSTEAD = ("rmse", "r2"), "mae"
_NAMED = 5  # rows of a note
#: fewer steps than these are no training; nor are fewer than so many that do not pass over all rows once
LEAST_STEPS, ENOUGH_STEPS = 10, 100
#: how the reason begins for which a method gets no word
SILENT = ("not trained: ", "no word: ")
#: baselines that do not look at the inputs
BLIND = ("majority", "random_order", "random_picture")


@dataclass(frozen=True)
class Judge:
    """Judges outcomes in one metric. groups: int (test rows,), equal for rows that are one chance; None: each is its own.

    looks: how often the same comparison was judged before.
    """

    metric: str
    higher: bool
    groups: np.ndarray | None = None
    looks: int = 0

    def values(self, entrant: Entrant) -> np.ndarray:
        """(seeds, test rows), whose mean is the metric."""
        return np.stack([outcome.beside.get(self.metric, outcome.per_example) for outcome in entrant.outcomes])

    def gain(self, entrant: Entrant, base: Entrant) -> np.ndarray:
        """Differences (seeds, groups), positive where `entrant` is better."""
        apart = self.values(entrant) - self.values(base)
        return by_group(apart if self.higher else -apart, self.groups)

    def verdicts(self, entrants: Sequence[Entrant], base: Entrant) -> list[Verdict]:
        """Of several methods at once, each against `base`."""
        unit = "test example" if self.groups is None else "group"
        gains = [self.gain(entrant, base) for entrant in entrants]
        return verdicts(gains, looks=self.looks, bounds=self._bounds(base), unit=unit)

    def alone(self, entrant: Entrant, base: Entrant) -> Verdict:
        """The interval of one difference, of which no word is said."""
        return replace(self, looks=0).verdicts([entrant], base)[0]

    def _bounds(self, base: Entrant) -> tuple[float, float]:
        """What a gain over `base` can be, with the metric of `base` as uncertain as it is."""
        ends = self.interval(base)
        if self.metric.partition("=")[0] not in METRICS or ends is None:
            return ANYWHERE
        (low, _), (_, high) = possible(self.metric, ends[1]), possible(self.metric, ends[0])
        return (low, high) if self.higher else (-high, -low)

    def interval(self, entrant: Entrant) -> tuple[float, float] | None:
        """95 % of the metric itself, over seeds and groups; None where there is one of either."""
        values = by_group(self.values(entrant), self.groups)
        if min(values.shape) < 2:
            return None
        squares = mean_squares(values)
        metric = METRICS.get(self.metric.partition("=")[0])
        low, high = (float(squares.mean + side * half_width(squares, side=side)) for side in (-1, 1))
        return (low, high) if metric is None else (max(low, metric.low), min(high, metric.high))

    def floor(self, entrant: Entrant) -> float | None:
        """What the best answer gets that does not look at the inputs; None where that is not known."""
        known = [outcome.floors[self.metric] for outcome in entrant.outcomes if self.metric in outcome.floors]
        return float(np.mean(known)) if known else None

    def at_floor(self, entrant: Entrant) -> bool:
        """Whether the metric is not shown to be better than that."""
        floor, ends = self.floor(entrant), self.interval(entrant)
        return floor is not None and ends is not None and (ends[0] <= floor if self.higher else ends[1] >= floor)


def words_of(
    judge: Judge, asked: Sequence[Entrant], base: Entrant, rows: int, blind: Sequence[Entrant]
) -> dict[str, Verdict]:
    """A verdict on each method that was trained; on one that was not, or answers as one of `blind` does, no word and why.

    rows: that there were to train on.  blind: baselines that do not look at the inputs.
    """
    silent = {entrant.name: _untrained(entrant, rows) or _as_blind(judge, entrant, blind) for entrant in asked}
    judged = [entrant for entrant in asked if not silent[entrant.name]]
    told = {e.name: word for e, word in zip(judged, judge.verdicts(judged, base), strict=True)}
    for entrant in asked:
        if reason := silent[entrant.name]:
            shown = judge.alone(entrant, base)
            told[entrant.name] = replace(
                shown, word=CANNOT_TELL, reason=reason, p=1.0, more_seeds=None, more_examples=None
            )
    return {entrant.name: told[entrant.name] for entrant in asked}


def _untrained(entrant: Entrant, rows: int) -> str:
    """Why nothing can be said of a method that hardly trained; empty where it did, or has no steps."""
    meters = [outcome.meter for outcome in entrant.outcomes]
    steps, samples, seconds = (
        float(np.mean([getattr(meter, name) for meter in meters])) for name in ("steps", "samples", "seconds")
    )
    if entrant.method.paper.kind == "estimator" or not samples:
        return ""
    if steps >= LEAST_STEPS and (samples >= rows or steps >= ENOUGH_STEPS):
        return ""
    needed = max(rows / samples, LEAST_STEPS / max(steps, 1.0))
    seen = f"{counted(round(samples), 'example')}" if samples > rows else f"{round(samples):,} of {rows:,} examples"
    step = 60 if needed * seconds > 90 else 1
    needs = duration(step * math.ceil(needed * seconds / step))
    return f"{SILENT[0]}{counted(round(steps), 'step')}, {seen}; needs about {needs}"


def _as_blind(judge: Judge, entrant: Entrant, blind: Sequence[Entrant]) -> str:
    for one in blind:
        if one is not entrant and np.allclose(judge.values(entrant), judge.values(one), rtol=1e-6, atol=1e-9):
            return f"{SILENT[1]}it answers as {one.name} does on every test example"
    return ""


def judge_of(
    judge: Judge, entrants: Sequence[Entrant], base: Entrant, rows: np.ndarray | None
) -> tuple[Judge, list[str]]:
    """`judge`, or where it judges by squares that a few rows decide the one that does so by absolute errors; and what to say.

    rows: int (test rows,), their places in the data, where these are known.
    """
    able = all(_INSTEAD in outcome.beside for entrant in [*entrants, base] for outcome in entrant.outcomes)
    if judge.metric not in _SQUARED or not able or not entrants:
        return judge, []
    other, name = replace(judge, metric=_INSTEAD, higher=False), judge.metric.upper()
    found = [tail(judge.gain(entrant, base)) for entrant in entrants]
    share, top = max(found, key=lambda one: one[0])
    count = len(judge.gain(base, base)[0])
    long = any(long_tailed(other.values(entrant), count) for entrant in [*entrants, base])
    if share <= HEAVY and not long:
        return judge, []
    instead = f"the words are about {_INSTEAD.upper()}"
    if count < TOO_FEW and share <= HEAVY:
        return other, [f"of under {TOO_FEW} rows one cannot tell whether a few decide the {name}, so {instead}"]
    groups = np.arange(len(judge.values(base)[0])) if judge.groups is None else judge.groups
    places = np.flatnonzero(np.isin(groups, np.unique(groups)[top]))
    named = ", ".join(str(place + 1) for place in (places if rows is None else np.sort(rows[places]))[:_NAMED])
    more = ", ..." if len(places) > _NAMED else ""
    whose = "of the test" if rows is None else "of the data"
    decide = "decides" if len(places) == 1 else "decide"
    note = (
        f"{counted(len(places), 'row')} {decide} the {name} (number {named}{more} {whose}, counted from 1):"
        f" {share:.0%} of the squared differences are theirs, and no interval holds for such a mean; {instead}"
    )
    return other, [note]


def row_of(judge: Judge, entrant: Entrant, role: str, verdict: Verdict | None, worth: Worth | None) -> Row:
    """The line of the table of a method that finished; see `Row` for the role. verdict: its difference to the reference."""
    outcomes = entrant.outcomes
    meters = [outcome.meter for outcome in outcomes]
    peaks = [meter.peak_bytes for meter in meters if meter.peak_bytes is not None]
    energy = sum((meter.spent() for meter in meters), Energy()).times(1 / len(meters))
    names = set.intersection(*(set(outcome.metrics) for outcome in outcomes))
    metrics = {name: float(np.mean([outcome.metrics[name] for outcome in outcomes])) for name in sorted(names)}
    own = judge.interval(entrant)
    row = Row(
        entrant.name,
        role,
        metric=metrics[judge.metric],
        at_least=own[0] if own else None,
        at_most=own[1] if own else None,
        metrics=metrics,
        valid=entrant.valid if math.isfinite(entrant.valid) else None,
        seconds=float(np.mean([meter.seconds for meter in meters])),
        steps=float(np.mean([meter.steps for meter in meters])),
        samples=float(np.mean([meter.samples for meter in meters])),
        peak_bytes=max(peaks) if peaks else None,
        kwh=energy.kwh,
        energy=energy.label,
        energy_how=energy.how,
        worth=worth,
    )
    if verdict is None:
        return row
    ends = (verdict.low, verdict.high) if judge.higher else (-verdict.high, -verdict.low)
    known = not math.isnan(verdict.low)
    return replace(
        row,
        difference=verdict.difference if judge.higher else -verdict.difference,
        low=ends[0] if known else None,
        high=ends[1] if known else None,
    )
