"""From judgements to a leaderboard: how well raters agree, which of them to trust, how systems rank, and what cannot be told.

    for board in boards(Judgements.read("answers.jsonl")):
        print(board.verdict)

Scores are means over items of the mean over raters, or Bradley-Terry strengths where people compared pairs; `standing` has
their uncertainty. Words on two systems keep a family-wise error of 5 % over all pairs of the board (Holm, `core.stats`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np
from scipy.special import expit
from scipy.stats import kendalltau, rankdata

from papertrial.core import stats
from papertrial.core.agreement import Alpha, agreement, alpha
from papertrial.core.errors import DataError, PapertrialError, did_you_mean
from papertrial.core.judgement import Check, Judgements
from papertrial.core.paper import Report
from papertrial.core.wording import counted
from papertrial.papers import genie
from papertrial.study.leaderboard import Answers, Standing, standing

BETTER, WORSE, CANNOT_TELL = "better", "worse", stats.CANNOT_TELL
DRAWS = 2000
_ALPHA_DRAWS = 500


@dataclass(frozen=True)
class Row:
    """A system. score: its mean rating; of pairs, the share in which it would be preferred over an average other system.

    low, high: 95 % interval.  rank: one more than there are systems that are better.  answers, items: that it rests on.
    strength: Bradley-Terry's, of mean zero; None of ratings.
    """

    system: str
    rank: int
    score: float
    low: float
    high: float
    answers: int
    items: int
    strength: float | None = None


@dataclass(frozen=True)
class Difference:
    """Two systems. word: better | worse | cannot tell, of the first.

    difference, low, high: of the mean ratings; of pairs, the share in which the first would be preferred, less one half.
    p: smallest level at which the word is not `cannot tell`.  more_answers: that would settle it with 80 % probability, by
    as many more raters on as many more items, if the difference seen is the true one; None: settled, or beyond reason.
    """

    first: str
    second: str
    word: str
    difference: float
    low: float
    high: float
    p: float
    more_answers: int | None = None
    reason: str = ""

    def __str__(self) -> str:
        change = f"{self.difference:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"
        if self.word != CANNOT_TELL:
            return f"{self.first} is {self.word} than {self.second}: {change}"
        if self.reason:
            return f"{self.first} and {self.second}: cannot tell, {change}; {self.reason}"
        more = "no reasonable number of answers would settle it"
        if self.more_answers is not None:
            more = f"about {_rounded(self.more_answers):,} more answers would settle it"
        pairs = (
            ""
            if self.low <= 0 <= self.high
            else " (on its own it would count, but all pairs are compared at once: Holm)"
        )
        return f"{self.first} and {self.second}: cannot tell, {change}{pairs}; {more}"


@dataclass(frozen=True)
class Rater:
    """agreement: with the others, 1 full, 0 as by chance; None where nothing is shared.  checks, right: answers to test
    questions, and those that were right.  noisy: the probability that GENIE's worker model gives; None without checks.
    seconds: the median of an answer, 0 when not known."""

    name: str
    answers: int
    agreement: float | None
    checks: int
    right: int
    noisy: float | None
    seconds: float = 0.0


@dataclass(frozen=True)
class Limits:
    """What a rater must not miss to be counted; None does not ask.

    noisy: most probability of being noisy (GENIE acts above 0.99).  right: least share of right answers to test questions.
    agreement: least agreement with the others.  To leave raters out because they disagree makes the rest agree: say so.
    """

    noisy: float | None = genie.Config().certain
    right: float | None = None
    agreement: float | None = None

    def broken(self, rater: Rater) -> str:
        """Why the rater is left out; empty when not."""
        if self.noisy is not None and rater.noisy is not None and rater.noisy > self.noisy:
            return f"noisy with probability {rater.noisy:.3f} by {rater.checks} test questions, {rater.right} right"
        if self.right is not None and rater.checks and not stats.reaches(rater.right, self.right * rater.checks):
            return f"{rater.right} of {rater.checks} test questions right"
        if (
            self.agreement is not None
            and rater.agreement is not None
            and not stats.reaches(rater.agreement, self.agreement)
        ):
            return f"agreement with the others {rater.agreement:.2f}"
        return ""


@dataclass(frozen=True)
class Board:
    """The leaderboard of one question. kind: rating | pair.

    rows: best first.  differences: of all pairs of systems, the one that ranks first first.  raters: of all answers, those
    left out too.  left_out: (rater, why).  full: the board with all raters, where some are left out.
    """

    question: str
    kind: str
    rows: tuple[Row, ...]
    differences: tuple[Difference, ...]
    raters: tuple[Rater, ...]
    alpha: Alpha
    answers: int
    items: int
    interval: str
    left_out: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    full: Board | None = field(default=None, repr=False)

    @property
    def verdict(self) -> str:
        """One sentence."""
        if len(self.rows) == 1:
            only = self.rows[0]
            return (
                f"{only.system} has {only.score:.3f} [{only.low:.3f}, {only.high:.3f}], and nothing to compare it with."
            )
        first = self.rows[0].system
        beaten = [d.second for d in self.differences if d.first == first and d.word == BETTER]
        level = [d.second for d in self.differences if d.first == first and d.word == CANNOT_TELL]
        if not level:
            return f"{first} is better than {'all others' if len(beaten) > 1 else beaten[0]}."
        if not any(d.word != CANNOT_TELL for d in self.differences):
            reasons = {d.reason for d in self.differences}
            why = f": {reasons.pop()}" if len(reasons) == 1 and reasons != {""} else ""
            return f"Cannot tell any two systems apart{why}."
        return f"{first} leads, but cannot be told apart from {_and(level)}."

    def report(self) -> Report:
        """The board as a report: a table of systems, and lines on agreement, raters and differences."""
        head = ("rank", "system", "score", "95 % interval", "answers", "items")
        rows = tuple(
            (str(r.rank), r.system, f"{r.score:.3f}", f"[{r.low:.3f}, {r.high:.3f}]", f"{r.answers:,}", f"{r.items:,}")
            for r in self.rows
        )
        facts = [
            (
                "judged",
                f"{self.answers:,} answers by {len(self.raters) - len(self.left_out)} raters on {self.items:,} items",
            ),
            ("agreement", self._agreement()),
            *(("left out", f"{name}: {why}") for name, why in self.left_out),
        ]
        facts += [("difference" if not place else "", str(d)) for place, d in enumerate(self.differences)]
        if self.full is not None:
            facts.append(("with all", self.full.verdict))
        return Report(
            f"What people say: {self.question}",
            self.verdict,
            tuple(facts),
            head,
            rows,
            self.to_json(),
            caveats=self.notes,
        )

    def _agreement(self) -> str:
        if self.alpha.reason:
            return f"not known: {self.alpha.reason}"
        ends = "" if math.isnan(self.alpha.low) else f" [{self.alpha.low:.2f}, {self.alpha.high:.2f}]"
        return f"Krippendorff's alpha ({self.alpha.level}) {self.alpha.value:.2f}{ends}; 1 is perfect, 0 is chance"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def boards(
    judgements: Judgements,
    *,
    limits: Limits | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    interval: str = "people",
) -> tuple[Board, ...]:
    """A board for each question, ratings before pairs.

    limits: leaves raters out, and adds the board with all of them; None keeps all.  draws, seed: of the bootstraps.
    interval: of the rows' scores, `people` (over items and raters) or `genie` (over items alone, for ratings). Words on two
    systems count raters in either case.
    Raises DataError without answers or where nobody is left, PapertrialError for another interval.
    """
    if interval not in ("people", "genie"):
        raise PapertrialError(f"there is no interval {interval!r}", did_you_mean(interval, ("people", "genie")))
    grouped: dict[tuple[str, str], list[Any]] = {}
    kinds: dict[str, Sequence[Any]] = {"rating": judgements.ratings, "pair": judgements.preferences}
    for kind, some in kinds.items():
        for row in some:
            grouped.setdefault((kind, row.question), []).append(row)
    if not grouped:
        raise DataError("there are no answers to rank by", "let people judge outputs first")
    chances = genie.noisy(judgements.checks)
    found = []
    for (kind, question), rows in grouped.items():
        answers = Answers.of(rows)
        raters = _raters(answers, rows, judgements.checks, chances)
        options: dict[str, Any] = {"draws": draws, "seed": seed, "interval": interval}
        board = _board(kind, question, answers, raters, **options)
        board = replace(board, notes=(*board.notes, *_unjudged(judgements)))
        broken = ((rater.name, limits.broken(rater)) for rater in raters) if limits else ()
        left_out = tuple((name, why) for name, why in broken if why)
        if left_out:
            kept = answers.without([name for name, _ in left_out])
            left = _board(kind, question, kept, raters, left_out=left_out, full=board, **options)
            board = replace(left, notes=(*left.notes, *_unjudged(judgements)))
        found.append(board)
    return tuple(found)


def _board(
    kind: str,
    question: str,
    answers: Answers,
    raters: tuple[Rater, ...],
    *,
    draws: int,
    seed: int,
    interval: str,
    left_out: tuple[tuple[str, str], ...] = (),
    full: Board | None = None,
) -> Board:
    where = standing(answers, draws, seed)
    order = np.argsort(-where.value, kind="stable")
    names = [answers.systems[place] for place in order]
    differences = _differences(where, order, names, kind, len(answers.items))
    worse_than = dict.fromkeys(names, 0)
    for d in differences:
        if d.word != CANNOT_TELL:
            worse_than[d.second if d.word == BETTER else d.first] += 1
    rows = []
    for place, name in zip(order, names, strict=True):
        mine = answers.system == place
        if answers.other is not None:
            mine |= answers.other == place
        score, low, high = _score(answers, where, int(place), kind, interval, draws, seed)
        strength = float(where.value[place]) if kind == "pair" else None
        rows.append(
            Row(
                name,
                1 + worse_than[name],
                score,
                low,
                high,
                int(mine.sum()),
                len(np.unique(answers.item[mine])),
                strength,
            )
        )
    level = "nominal" if kind == "pair" else "ordinal"
    return Board(
        question, kind, tuple(rows), differences, raters, alpha(answers.by_unit(), level, draws=min(draws, _ALPHA_DRAWS), seed=seed),
        len(answers), len(answers.items), interval, left_out, _notes(where, kind, interval), full,
    )  # fmt: skip


def _score(
    answers: Answers, where: Standing, place: int, kind: str, interval: str, draws: int, seed: int
) -> tuple[float, float, float]:
    """(score, low, high) of one system."""
    count = len(where.value)
    others = -1 / max(count - 1, 1) if kind == "pair" else 0.0  # strengths mean something against others alone
    contrast = np.where(np.arange(count) == place, 1.0, others)
    squares = where.squares(contrast)
    half = _half(squares, where)
    low, high = squares.mean - half, squares.mean + half
    if kind == "pair":
        score, low, high = (float(expit(end)) for end in (squares.mean, low, high))
        return score, low, high
    if interval == "genie":
        mine = answers.system == place
        item = np.unique(answers.item[mine], return_inverse=True)[1]
        low, high = genie.interval(np.bincount(item, answers.value[mine]) / np.bincount(item), draws, seed)
    return squares.mean, max(low, 0.0), min(high, 1.0)


def _half(squares: stats.MeanSquares, where: Standing) -> float:
    return float(stats.half_width(squares)) if where.items > 1.5 else math.nan


def _differences(
    where: Standing, order: np.ndarray, names: Sequence[str], kind: str, items: int
) -> tuple[Difference, ...]:
    """Of all pairs of systems; the words hold for all of them at once. items: that have an answer."""
    pairs = list(combinations(range(len(names)), 2))
    reason = ""
    if where.one_rater:
        reason = "there is only one rater, and another may judge differently"
    elif not stats.reaches(where.items, stats.FEWEST_EXAMPLES):
        uneven = items >= stats.FEWEST_EXAMPLES
        held = f": answers lie so unevenly on {items} that they weigh as on {where.items:.1f}" if uneven else ""
        reason = f"too few items to judge by{held}; at least {stats.FEWEST_EXAMPLES} are needed"
    squares = []
    for first, second in pairs:
        contrast = np.zeros(len(names))
        contrast[order[first]], contrast[order[second]] = 1.0, -1.0
        squares.append(where.squares(contrast))
    p_values = [1.0 if reason else stats.p_value(entry) for entry in squares]
    found = []
    for (first, second), entry, p, level in zip(pairs, squares, p_values, stats.holm(p_values), strict=True):
        half = _half(entry, where)
        ends = (entry.mean, entry.mean - half, entry.mean + half)
        difference, low, high = (float(expit(end)) - 0.5 for end in ends) if kind == "pair" else ends
        if kind == "rating":  # scores are shares of a scale
            low, high = max(low, -1.0), min(high, 1.0)
        told = not reason and p <= level
        word = (BETTER if entry.mean > 0 else WORSE) if told else CANNOT_TELL
        more = None if told or reason else where.more_answers(entry, level)
        found.append(
            Difference(names[first], names[second], word, difference, low, high, p, more, "" if told else reason)
        )
    return tuple(found)


def _unjudged(judgements: Judgements) -> tuple[str, ...]:
    """What raters could not judge, which no score holds."""
    count = sum(not remark.judged for remark in judgements.remarks)
    return (
        (f"{counted(count, 'time')} a rater said why something could not be judged: it counts nowhere",)
        if count
        else ()
    )


def _notes(where: Standing, kind: str, interval: str) -> tuple[str, ...]:
    notes = []
    if where.one_rater:
        notes.append("one rater gave all answers: intervals are over items alone")
    elif interval == "genie" and kind == "rating":
        notes.append("intervals of scores are GENIE's, over items alone: they take the raters as given")
    if kind == "pair":
        notes.append("ties count half a win for both; every system also has one imaginary tie with an average one")
    return tuple(notes)


def _raters(
    answers: Answers, rows: Sequence[Any], checks: Sequence[Check], chances: Mapping[str, float]
) -> tuple[Rater, ...]:
    """Of the answers to one question, and of all test questions, in the order of the names."""
    close = agreement(answers.by_unit())
    count = np.bincount(answers.rater, minlength=len(answers.raters))
    took: dict[str, list[float]] = {}
    for row in rows:
        if row.seconds:
            took.setdefault(row.rater, []).append(row.seconds)
    asked: dict[str, list[bool]] = {}
    for check in checks:
        asked.setdefault(check.rater, []).append(check.right)
    return tuple(
        Rater(
            name, int(count[place]), None if math.isnan(close[place]) else float(close[place]),
            len(asked.get(name, ())), sum(asked.get(name, ())), chances.get(name), float(np.median(took.get(name, [0.0]))),
        )
        for place, name in enumerate(answers.raters)
    )  # fmt: skip


# -- automatic metrics ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Correlation:
    """How an automatic metric agrees with people. level: system (over means of systems) or item (over outputs).

    pearson, spearman, kendall: (value, low, high), NaN where nothing can be said; 95 % percentile intervals of a bootstrap
    over items, all outputs of an item together.  count: systems or outputs.
    """

    metric: str
    level: str
    pearson: tuple[float, float, float]
    spearman: tuple[float, float, float]
    kendall: tuple[float, float, float]
    count: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def correlations(
    people: Mapping[tuple[str, str], float],
    metrics: Mapping[str, Mapping[tuple[str, str], float]],
    *,
    draws: int = 500,
    seed: int = 0,
) -> tuple[Correlation, ...]:
    """Each metric with people, at the level of systems and of outputs; ties share their mean rank (Kendall's tau-b).

    people, and each of metrics: (item, system) -> score; see `by_output`. Outputs that only one of them has are left out.
    Raises DataError where a metric has no output in common with people, or a score is not finite.
    """
    found = []
    for name, scores in metrics.items():
        both = sorted(people.keys() & scores.keys())
        if not both:
            raise DataError(f"{name} has no output that people judged", "name items and systems alike in both")
        values = np.array([(people[key], scores[key]) for key in both], dtype=np.float64)
        if not np.isfinite(values).all():
            raise DataError(f"some scores of {name} are not finite", "leave those outputs out")
        item, system = (np.unique(np.array(names), return_inverse=True)[1] for names in zip(*both, strict=True))
        rng = np.random.default_rng(seed)
        taken = [np.arange(len(both)), *_resampled(item, draws, rng)]
        for level in ("system", "item"):
            points = [_of_systems(values[rows], system[rows]) if level == "system" else values[rows] for rows in taken]
            drawn = np.array([_three(some) for some in points])
            known = drawn[1:][np.isfinite(drawn[1:]).all(axis=1)]
            low, high = np.percentile(known, [2.5, 97.5], axis=0) if len(known) else np.full((2, 3), math.nan)
            pearson, spearman, kendall = ((float(drawn[0, k]), float(low[k]), float(high[k])) for k in range(3))
            found.append(Correlation(name, level, pearson, spearman, kendall, len(points[0])))
    return tuple(found)


def by_output(judgements: Judgements, question: str = "") -> dict[tuple[str, str], float]:
    """(item, system) -> mean over raters, of the ratings of `question` (of the only one, where none is named).

    Raises DataError without such ratings, or with several questions and none named.
    """
    asked = list(dict.fromkeys(rating.question for rating in judgements.ratings))
    if not question and len(asked) > 1:
        raise DataError(f"there are ratings of several questions: {', '.join(asked)}", "name one")
    rows = [rating for rating in judgements.ratings if question in ("", rating.question)]
    if not rows:
        raise DataError("there are no such ratings", did_you_mean(question, asked))
    answers = Answers.of(rows)
    output, place = np.unique(np.stack([answers.item, answers.system]), axis=1, return_inverse=True)
    mean = np.bincount(place.reshape(-1), answers.value) / np.bincount(place.reshape(-1))
    return {(answers.items[i], answers.systems[s]): float(value) for i, s, value in zip(*output, mean, strict=True)}


def _resampled(item: np.ndarray, draws: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Rows of as many items as there are, drawn with replacement."""
    order = np.argsort(item, kind="stable")
    counts = np.bincount(item)
    starts = np.cumsum(counts) - counts
    found = []
    for _ in range(draws):
        chosen = rng.integers(len(counts), size=len(counts))
        size = counts[chosen]
        within = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        found.append(order[np.repeat(starts[chosen], size) + within])
    return found


def _of_systems(values: np.ndarray, system: np.ndarray) -> np.ndarray:
    """Means of the systems that occur, (systems, 2)."""
    count = np.bincount(system)
    here = count > 0
    return np.stack([np.bincount(system, column)[here] / count[here] for column in values.T], axis=1)


def _three(points: np.ndarray) -> tuple[float, float, float]:
    """Pearson, Spearman, Kendall of points (N, 2); NaN with fewer than three or where one side is constant."""
    if len(points) < 3 or (np.ptp(points, axis=0) == 0).any():
        return math.nan, math.nan, math.nan
    x, y = points.T
    straight, ranked = (float(np.corrcoef(some, rowvar=False)[0, 1]) for some in (points, rankdata(points, axis=0)))
    return straight, ranked, float(kendalltau(x, y).statistic)


def _rounded(count: int) -> int:
    """Two digits are all that such a figure knows."""
    return int(float(f"{count:.2g}"))


def _and(names: Sequence[str]) -> str:
    return " and ".join(([", ".join(names[:-1])] if names[:-1] else []) + [names[-1]])
