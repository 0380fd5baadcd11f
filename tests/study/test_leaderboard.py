"""Estimates and their uncertainty: parity with independent fits, and intervals that hold the truth in simulated studies."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from papertrial.core import stats
from papertrial.core.errors import DataError
from papertrial.core.judgement import Preference, Rating
from papertrial.study.leaderboard import Answers, bradley_terry, standing


def ratings(items: int, raters: int, each: int, rng: np.random.Generator, systems: int = 2) -> Answers:
    """Answers with effects of item, rater, both with system, and a rest; the true scores are all 0.5."""
    item = np.repeat(np.arange(items), each)
    rater = ((rng.integers(raters, size=(items, 1)) + np.arange(each)) % raters).ravel()
    quality = rng.normal(0.5, 0.2, (items, 1)) + rng.normal(0, 0.1, (items, systems))
    leniency = rng.normal(0, 0.1, (raters, 1)) + rng.normal(0, 0.05, (raters, systems))
    value = quality[item] + leniency[rater] + rng.normal(0, 0.2, (len(item), systems))
    raters_here, rater = np.unique(rater, return_inverse=True)
    names = (tuple(map(str, range(count))) for count in (systems, items, len(raters_here)))
    return Answers(
        np.tile(np.arange(systems), len(item)), None, np.repeat(item, systems), np.repeat(rater, systems), value.ravel(), *names
    )  # fmt: skip


DESIGNS = {"crossed": (60, 3, 3), "many raters": (60, 12, 12), "one each": (200, 10, 1), "strangers": (200, 5000, 1)}


@pytest.mark.parametrize("design", DESIGNS)
def test_intervals_hold_the_truth_and_words_seldom_err(design):
    rng = np.random.default_rng(10)
    held, said, studies = np.zeros(2), 0, 200
    for seed in range(studies):
        found = standing(ratings(*DESIGNS[design], rng), 200, seed)
        one, two = found.squares(np.array([1.0, 0.0])), found.squares(np.array([1.0, -1.0]))
        held += [abs(one.mean - 0.5) <= stats.half_width(one), abs(two.mean) <= stats.half_width(two)]
        said += stats.p_value(two) <= 0.05
    assert (held / studies >= 0.93).all(), held / studies
    assert said / studies <= 0.06


def test_where_all_judge_all_it_is_the_crossed_design_of_core_stats():
    rng = np.random.default_rng(0)
    answers = ratings(80, 5, 5, rng)
    found = standing(answers, 4000)
    values = np.full((2, 5, 80), np.nan)
    values[answers.system, answers.rater, answers.item] = answers.value
    ours, theirs = found.squares(np.array([1.0, -1.0])), stats.mean_squares(values[0] - values[1])
    assert ours.mean == pytest.approx(theirs.mean, abs=1e-12)
    assert (ours.seeds, ours.examples) == pytest.approx((5, 80))
    assert ours.furthest == pytest.approx(theirs.furthest, rel=1e-9)
    assert ours.by_seed == pytest.approx(theirs.by_seed, rel=0.1)
    assert ours.by_example == pytest.approx(theirs.by_example, rel=0.1)
    assert stats.half_width(ours) == pytest.approx(stats.half_width(theirs), rel=0.1)


def test_products_of_weights_count_single_answers_three_times():
    """Why items and raters are resampled apart: with an answer each, by many raters, the pigeonhole is too wide by sqrt(3)."""
    rng = np.random.default_rng(0)
    answers = ratings(400, 100_000, 1, rng)
    weight = rng.exponential(size=(2000, 400))[:, answers.item] * rng.exponential(size=(2000, 400))[:, answers.rater]
    pigeonhole = answers.estimate(weight).var(axis=0)
    squares = standing(answers).squares(np.array([1.0, 0.0]))
    variance = (squares.by_seed + squares.by_example - squares.rest) / (squares.seeds * squares.examples)
    assert pigeonhole[0] / variance == pytest.approx(3, rel=0.2)
    truth = answers.value[answers.system == 0].var(ddof=1) / 400
    assert variance == pytest.approx(truth, rel=0.15)


def test_more_answers_settle_it_four_times_in_five():
    rng = np.random.default_rng(3)
    shift = 0.03
    answers = ratings(100, 20, 1, rng)
    answers.value[answers.system == 0] += shift
    found = standing(answers, 500)
    squares = stats.MeanSquares(**{**vars(found.squares(np.array([1.0, -1.0]))), "mean": shift})
    more = found.more_answers(squares, 0.05)
    assert more is not None and more % 1 == 0
    grown = 1 + more / len(answers)
    settled = []
    for seed in range(60):
        larger = ratings(round(100 * grown), round(20 * grown), 1, rng)
        larger.value[larger.system == 0] += shift
        settled.append(stats.p_value(standing(larger, 200, seed).squares(np.array([1.0, -1.0]))) <= 0.025)
    assert 0.6 <= np.mean(settled) <= 1.0
    assert found.more_answers(stats.MeanSquares(**{**vars(squares), "mean": 1e-6}), 0.05) is None


def games(rng: np.random.Generator, count: int, strength: np.ndarray, ties: float = 0.2) -> np.ndarray:
    wins = np.zeros((len(strength),) * 2)
    for _ in range(count):
        i, j = rng.choice(len(strength), 2, replace=False)
        outcome = 0.5 if rng.random() < ties else float(rng.random() < expit(strength[i] - strength[j]))
        wins[i, j] += outcome
        wins[j, i] += 1 - outcome
    return wins


@pytest.mark.parametrize("prior", [1.0, 0.1])
@pytest.mark.parametrize("count", [5, 300])
def test_strengths_are_those_of_a_logistic_regression(prior, count):
    """Each win is a row: +1 the winner, -1 the loser; the imaginary comparison has the system alone."""
    wins = games(np.random.default_rng(count), count, np.array([1.5, 0.2, 0.0, -1.0, -6.0]))
    systems = len(wins)
    rows, won, weight = [], [], []
    for i in range(systems):
        for j in range(systems):
            row = np.zeros(systems)
            row[i], row[j] = 1, -1
            if i != j and wins[i, j]:
                rows, won, weight = [*rows, row, -row], [*won, 1, 0], [*weight, wins[i, j] / 2, wins[i, j] / 2]
        rows, won, weight = [*rows, np.eye(systems)[i]], [*won, 1], [*weight, prior / 2]
        rows, won, weight = [*rows, np.eye(systems)[i]], [*won, 0], [*weight, prior / 2]
    fit = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-12, max_iter=10_000, solver="newton-cholesky")
    theirs = fit.fit(np.array(rows), won, weight).coef_[0]
    assert bradley_terry(wins, prior) == pytest.approx(theirs - theirs.mean(), abs=1e-6)


def test_strengths_of_odd_tables():
    undefeated = np.array([[0, 30, 30], [0, 0, 10], [0, 10, 0.0]])
    theta = bradley_terry(undefeated)
    assert np.isfinite(theta).all() and theta[0] > theta[1] == pytest.approx(theta[2]) and theta[0] < 10
    assert bradley_terry(np.zeros((3, 3))) == pytest.approx(0)
    apart = np.zeros((4, 4))
    apart[0, 1] = apart[2, 3] = 5  # two islands
    assert bradley_terry(apart) == pytest.approx(-bradley_terry(apart.T))
    both = np.stack([undefeated, undefeated.T])
    assert bradley_terry(both) == pytest.approx(np.stack([theta, -theta]), abs=1e-8)
    assert bradley_terry(1e6 * undefeated + 1.0)[0] > 10  # many games say more than the imaginary one


def preferences(
    rng: np.random.Generator, items: int, raters: int, strength: np.ndarray, spread: float
) -> list[Preference]:
    taste = strength + spread * rng.standard_normal((raters, len(strength)))
    found = []
    for item in range(items):
        i, j = rng.choice(len(strength), 2, replace=False)
        rater = rng.integers(raters)
        outcome = float(rng.random() < expit(taste[rater, i] - taste[rater, j]))
        found.append(Preference(str(item), f"s{i}", f"s{j}", f"r{rater}", "better", outcome))
    return found


def test_intervals_of_strengths_hold_the_truth():
    rng = np.random.default_rng(10)
    strength, held = np.array([0.8, 0.0, -0.8]), np.zeros(2)
    for seed in range(120):
        found = standing(Answers.of(preferences(rng, 250, 25, strength, 0.0)), 100, seed)
        for place, contrast in enumerate(([1.0, -1.0, 0.0], [1.0, 0.0, -1.0])):
            squares = found.squares(np.array(contrast))
            held[place] += abs(squares.mean - strength @ contrast) <= stats.half_width(squares)
    assert (held / 120 >= 0.93).all(), held / 120


def test_answers_from_rows():
    rows = [
        Rating("1", "b", "x", "q", 0.0),
        Rating("1", "a", "x", "q", 0.5),
        Rating("2", "b", "y", "q", 1.0),
        Rating("1", "b", "x", "q", 1.0),  # changed their mind
        Rating("1", "b", "y", "q", 0.5),
    ]
    answers = Answers.of(rows)
    assert len(answers) == 4 and answers.systems == ("a", "b") and answers.items == ("1", "2")
    # of b: item 1 has (1 + 0.5) / 2, item 2 has 1
    assert answers.estimate(np.ones((1, 4)))[0] == pytest.approx([0.5, 0.875])
    left = answers.without(["x"])
    assert (
        left.systems == ("b",) and left.raters == ("y",) and left.estimate(np.ones((1, 2)))[0] == pytest.approx([0.75])
    )
    with pytest.raises(DataError, match="all raters"):
        answers.without(["x", "y"])
    with pytest.raises(DataError, match="no answers"):
        Answers.of([])


def test_a_pair_is_one_thing_in_either_order():
    rows = [Preference("1", "b", "a", "x", "q", 1.0), Preference("1", "a", "b", "y", "q", 0.0)]
    answers = Answers.of(rows)
    assert (answers.value == 0).all() and answers.by_unit().shape == (2, 1)
    theta = answers.estimate(np.ones((1, 2)))[0]
    assert theta[0] < theta[1]
    # counted again with the sides exchanged nothing changes
    turned = [Preference(r.item, r.second, r.first, r.rater, r.question, 1 - r.outcome) for r in rows]
    assert Answers.of(turned).estimate(np.ones((1, 2)))[0] == pytest.approx(theta)
