"""What answers of people say of systems, as numbers with their uncertainty: mean ratings, and Bradley-Terry strengths.

Another study would draw other items and ask other raters, so both are resampled. A bootstrap that gives each answer the
product of its item's and its rater's weight (the "pigeonhole bootstrap"; A. Owen 2007, arXiv 0712.1111) counts the noise of
single answers three times where every output has one rater, GENIE's own protocol, and its percentiles know nothing of how
few the raters are. So here items, raters, and cells (what one rater says of one item) are resampled apart, and the variance
of a difference is

    V = V_items + V_raters - V_cells                 (Cameron, Gelbach, Miller 2011, J. Bus. Econ. Stat. 29)

for what single cells add is in both of the first. Each part has the Student factor of its own number of items or raters,
by the rule of `core.stats`, whose crossed design (seeds x examples) this is when every rater judges everything.
Weights are exponential (the Bayesian bootstrap, Rubin 1981): never zero, so no system loses all its answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse
from scipy.special import expit

from papertrial.core import stats
from papertrial.core.errors import DataError
from papertrial.core.judgement import Preference, Rating

#: of an imaginary comparison of every system with one of average strength, half won: keeps the undefeated finite
PRIOR = 1.0
_CHUNK = 1 << 22  # weights made at a time
_STEPS, _LONGEST_STEP = 200, 1.0


@dataclass(frozen=True)
class Answers:
    """One question's answers as columns. A later answer of the same rater to the same thing replaces the earlier one.

    system: int (N,); other: int (N,), the system it was compared with, or None of ratings.  value: float64 (N,), of
    comparisons 1 where `system` was preferred.  item, rater: int (N,).  Places in the tuples of names.
    """

    system: np.ndarray
    other: np.ndarray | None
    item: np.ndarray
    rater: np.ndarray
    value: np.ndarray
    systems: tuple[str, ...]
    items: tuple[str, ...]
    raters: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.value)

    @classmethod
    def of(cls, rows: Sequence[Rating] | Sequence[Preference]) -> Answers:
        """From ratings or preferences of one question. Raises DataError without any."""
        if not rows:
            raise DataError("there are no answers", "let people judge first")
        paired = isinstance(rows[0], Preference)
        last: dict[tuple[str, ...], float] = {}
        for row in rows:
            if isinstance(row, Preference):  # in the order of the names, so that a pair is one thing
                turned = row.first > row.second
                pair = (row.second, row.first) if turned else (row.first, row.second)
                last[pair[0], pair[1], row.item, row.rater] = 1 - row.outcome if turned else row.outcome
            else:
                last[row.system, "", row.item, row.rater] = row.value
        columns = [np.array(column) for column in zip(*last, strict=True)]
        names = np.unique(np.concatenate(columns[: 1 + paired]))
        items, item = np.unique(columns[2], return_inverse=True)
        raters, rater = np.unique(columns[3], return_inverse=True)
        other = np.searchsorted(names, columns[1]) if paired else None
        return cls(
            np.searchsorted(names, columns[0]), other, item, rater, np.array(list(last.values())),
            *(tuple(map(str, some)) for some in (names, items, raters)),
        )  # fmt: skip

    def without(self, raters: Sequence[str]) -> Answers:
        """Those of the other raters. Raises DataError where none is left."""
        out = np.array([name in set(raters) for name in self.raters])
        keep = ~out[self.rater]
        if not keep.any():
            raise DataError("all raters would be left out", "ask less of the raters")
        systems, items = (np.array(names) for names in (self.systems, self.items))
        # names that lost all their answers go too
        here = np.unique(self.system[keep] if self.other is None else np.r_[self.system[keep], self.other[keep]])
        places = np.full(len(systems), -1)
        places[here] = np.arange(len(here))
        item_here, item = np.unique(self.item[keep], return_inverse=True)
        rater_here, rater = np.unique(self.rater[keep], return_inverse=True)
        return Answers(
            places[self.system[keep]], None if self.other is None else places[self.other[keep]], item, rater,
            self.value[keep], tuple(map(str, systems[here])), tuple(map(str, items[item_here])),
            tuple(self.raters[place] for place in rater_here),
        )  # fmt: skip

    def by_unit(self) -> np.ndarray:
        """float64 (raters, units), NaN = none; a unit is what was judged: an output, or a pair of them."""
        key = np.stack([self.item, self.system, self.system if self.other is None else self.other])
        units, unit = np.unique(key, axis=1, return_inverse=True)
        found = np.full((len(self.raters), units.shape[1]), np.nan)
        found[self.rater, unit.reshape(-1)] = self.value
        return found

    # -- estimates ----------------------------------------------------------------------------------------------

    def estimate(self, weight: np.ndarray) -> np.ndarray:
        """float64 (B, systems): mean ratings, or strengths, with the answers weighted by `weight` (B, N)."""
        return self._means(weight) if self.other is None else self._strengths(weight)

    def _means(self, weight: np.ndarray) -> np.ndarray:
        """Means over items of the means over raters: an answer counts one over the answers to its output."""
        with np.errstate(invalid="ignore"):
            return _times(weight, self._shares[0]) / _times(weight, self._shares[1])

    def _strengths(self, weight: np.ndarray) -> np.ndarray:
        count = len(self.systems)
        return bradley_terry(_times(weight, self._wins).reshape(len(weight), count, count))

    @cached_property
    def _shares(self) -> tuple[Any, Any]:
        output = self.item * len(self.systems) + self.system
        share = 1 / np.bincount(output)[output]
        places = (np.arange(len(self)), self.system)
        shape = (len(self), len(self.systems))
        return sparse.csr_array((share * self.value, places), shape), sparse.csr_array((share, places), shape)

    @cached_property
    def _wins(self) -> Any:
        """Answers x (winner, loser): a tie is half a win for both."""
        assert self.other is not None
        count, rows = len(self.systems), np.arange(len(self))
        places = np.r_[self.system * count + self.other, self.other * count + self.system]
        return sparse.csr_array(
            (np.r_[self.value, 1 - self.value], (np.r_[rows, rows], places)), (len(self), count * count)
        )


def _times(weight: np.ndarray, matrix: Any) -> np.ndarray:
    """weight (B, N) times a sparse (N, K)."""
    return np.asarray((matrix.T @ weight.T).T)


def bradley_terry(wins: np.ndarray, prior: float = PRIOR) -> np.ndarray:
    """Strengths theta, float64 (..., systems), of mean zero: P(i is preferred over j) = 1 / (1 + exp(theta_j - theta_i)).

    wins: float (..., systems, systems), how often i was preferred over j; a tie is half a win for each, which is what
    leaderboards of pairs commonly do, and needs no further parameter (R. R. Davidson 1970 has one for ties).
    prior: comparisons of each system with an imaginary one of strength 0, half of them won.
    By Newton's method; the likelihood is concave (Bradley and Terry 1952, Biometrika 39).
    """
    wins = np.asarray(wins, dtype=np.float64)
    games = wins + np.swapaxes(wins, -1, -2)
    theta = np.zeros(wins.shape[:-1])
    exact = 1e-10 * (1 + games.sum(-1).max(initial=0.0))
    for _ in range(_STEPS):
        chance = expit(theta[..., :, None] - theta[..., None, :])
        average = expit(theta)
        slope = (wins - games * chance).sum(-1) + prior * (0.5 - average)
        if np.abs(slope).max(initial=0.0) <= exact:
            break
        bend = games * chance * (1 - chance)
        own = bend.sum(-1) + prior * average * (1 - average)
        curvature = own[..., None] * np.eye(wins.shape[-1]) - bend
        step = np.linalg.solve(curvature, slope[..., None])[..., 0]
        theta = theta + np.clip(step, -_LONGEST_STEP, _LONGEST_STEP)
    return theta - theta.mean(-1, keepdims=True)


# -- uncertainty ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Standing:
    """Estimates with what resampling says of them.

    value: float64 (systems,).  by_item, by_rater, by_cell: covariances (systems, systems) of the three bootstraps.
    furthest: float64 (items, systems), how far each item lies from the mean (jackknife).  items, raters: how many, as if
    all had as many answers (one over the sum of the squared shares).  answers: how many.
    """

    value: np.ndarray
    by_item: np.ndarray
    by_rater: np.ndarray
    by_cell: np.ndarray
    furthest: np.ndarray
    items: float
    raters: float
    answers: int

    @property
    def one_rater(self) -> bool:
        return self.raters < 1.5

    def squares(self, contrast: np.ndarray) -> stats.MeanSquares:
        """The mean squares of `contrast @ value`, as `core.stats` takes them: raters are its seeds, items its examples.

        With one rater the items alone count: nobody knows how another would have judged.
        """
        by_item, by_rater, by_cell = (
            float(contrast @ matrix @ contrast) for matrix in (self.by_item, self.by_rater, self.by_cell)
        )
        if self.one_rater:
            by_rater = by_cell = 0.0
        raters = 2.0 if self.one_rater else self.raters
        size = raters * self.items
        return stats.MeanSquares(
            mean=float(contrast @ self.value),
            by_seed=by_rater * size,
            by_example=by_item * size,
            rest=by_cell * size,
            furthest=float(np.abs(self.furthest @ contrast).max(initial=0.0)),
            seeds=raters,  # type: ignore[arg-type]  # Student's quantiles take fractions
            examples=self.items,  # type: ignore[arg-type]
        )

    def more_answers(self, squares: stats.MeanSquares, level: float, most: int = stats.MOST_EXAMPLES) -> int | None:
        """How many more answers, by as many more raters on as many more items, show the difference with 80 % probability.

        None: more than `most` times those there are. The rule of `core.stats`, with everything grown in proportion.
        """
        spread = stats.variances(squares)

        def enough(total: int) -> bool:
            grown = total / self.answers
            wider = stats.Variances(spread.seed, spread.example, spread.interaction * grown, spread.furthest)
            seeds, examples = round(squares.seeds * grown), round(squares.examples * grown)
            return stats.power(squares.mean, seeds, examples, wider, level=stats.NEXT_LOOK * level) >= stats.POWER

        total = stats.fewest(self.answers + 1, most * self.answers, enough)
        return None if total is None else total - self.answers


def standing(answers: Answers, draws: int = 2000, seed: int = 0) -> Standing:
    """Estimates, and the three bootstraps of `draws` resamples each, the same for the same seed."""
    rng = np.random.default_rng(seed)
    items, raters = (_even(groups) for groups in (answers.item, answers.rater))
    # what one rater says of one item, of all systems: their answers stay together, as differences need them
    cells, cell = np.unique(answers.item * len(answers.raters) + answers.rater, return_inverse=True)
    by_item, by_rater, by_cell = (
        _covariance(answers, groups, size, draws, rng)
        for groups, size in ((answers.item, items), (answers.rater, raters), (cell, float(len(cells))))
    )
    value = answers.estimate(np.ones((1, len(answers))))[0]
    return Standing(value, by_item, by_rater, by_cell, _furthest(answers, value), items, raters, len(answers))


def _even(groups: np.ndarray) -> float:
    count = np.bincount(groups)
    return len(groups) ** 2 / int(np.square(count).sum())  # of whole numbers: ten equal shares are ten, not 9.999...


def _covariance(answers: Answers, groups: np.ndarray, size: float, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Of the estimates when groups of answers are resampled, as if there were `size` groups of equal weight."""
    count = int(groups.max()) + 1
    if count < 2:
        return np.zeros((len(answers.systems),) * 2)

    def weights(some: int) -> np.ndarray:
        return rng.exponential(size=(some, count))[:, groups]

    found = np.concatenate(_in_chunks(answers, draws, weights))
    found = found - found.mean(axis=0)
    # a Dirichlet weight of G groups has (G - 1) / (G + 1) of the variance that the mean of G groups has
    return found.T @ found / draws * (size + 1) / (size - 1)


def _in_chunks(answers: Answers, rows: int, weights: Callable[[int], np.ndarray]) -> list[np.ndarray]:
    step = max(1, _CHUNK // len(answers))
    return [answers.estimate(weights(min(step, rows - first))) for first in range(0, rows, step)]


def _furthest(answers: Answers, value: np.ndarray) -> np.ndarray:
    """(items - 1) (estimate with all - estimate without the item); 0 where a system has no other item."""
    count = len(answers.items)
    left_out = iter(range(count))

    def weights(some: int) -> np.ndarray:
        return np.stack([answers.item != next(left_out) for _ in range(some)]).astype(np.float64)

    without = np.concatenate(_in_chunks(answers, count, weights))
    return np.nan_to_num((count - 1) * (value - without))
