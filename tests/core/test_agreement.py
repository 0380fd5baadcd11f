"""Krippendorff's alpha equals the package `krippendorff`, with missing answers, ties and odd cases."""

from __future__ import annotations

import krippendorff
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from papertrial.core.agreement import LEVELS, agreement, alpha
from papertrial.core.errors import PapertrialError


def random_answers(seed: int, raters: int, units: int, values: int, missing: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    truth = rng.integers(values, size=units)
    noise = rng.integers(-1, 2, size=(raters, units))
    answers = np.clip(truth + noise, 0, values - 1) / (values - 1)
    answers[rng.random(answers.shape) < missing] = np.nan
    return answers


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    "shape", [(2, 10, 2, 0.0), (3, 200, 5, 0.0), (5, 60, 5, 0.4), (40, 50, 7, 0.9), (3, 30, 3, 0.6)]
)
def test_alpha_is_that_of_the_package(level, shape):
    for seed in range(3):
        answers = random_answers(seed, *shape)
        theirs = krippendorff.alpha(answers, level_of_measurement=level)
        assert alpha(answers, level).value == pytest.approx(theirs, abs=1e-12)


@given(arrays(np.float64, (3, 8), elements=st.sampled_from([0.0, 0.25, 1.0, np.nan])), st.sampled_from(LEVELS))
def test_alpha_of_anything(answers, level):
    found = alpha(answers, level)
    if found.reason:
        assert np.isnan(found.value)
    else:
        assert found.value == pytest.approx(krippendorff.alpha(answers, level_of_measurement=level), abs=1e-12)
        assert found.value <= 1
        assert alpha(answers[::-1], level).value == pytest.approx(found.value, abs=1e-12)  # whoever said it
        if level != "nominal":
            assert alpha(1 - answers, level).value == pytest.approx(found.value, abs=1e-9)


def test_the_example_of_krippendorff():
    """Krippendorff 2011, section C: four observers, twelve units, missing data."""
    rows = ["1 2 3 3 2 1 4 1 2 * * *", "1 2 3 3 2 2 4 1 2 5 * 3", "* 3 3 3 2 3 4 2 2 5 1 *", "1 2 3 3 2 4 4 1 2 5 1 *"]
    answers = np.array([[np.nan if word == "*" else float(word) for word in row.split()] for row in rows])
    assert [round(alpha(answers, level).value, 3) for level in LEVELS] == [0.743, 0.815, 0.849]


def test_what_cannot_be_said_has_a_reason():
    assert "two raters" in alpha(np.array([[0.0, 1.0, 0.5]])).reason
    assert "all answers are equal" in alpha(np.ones((3, 5))).reason
    assert "two raters" in alpha(np.array([[0.0, np.nan], [np.nan, 1.0]])).reason
    assert "two raters" in alpha(np.empty((2, 0))).reason
    with pytest.raises(PapertrialError, match="no level 'ratio'"):
        alpha(np.ones((2, 2)), "ratio")
    with pytest.raises(PapertrialError, match="not \\(raters, units\\)"):
        alpha(np.ones(3))


def test_the_interval_covers():
    """95 % intervals of alpha in 150 studies of 60 units, against alpha of 20,000 units."""
    rng = np.random.default_rng(0)

    def study(units: int) -> np.ndarray:
        truth = rng.integers(5, size=units)
        return np.clip(truth + rng.integers(-1, 2, size=(3, units)), 0, 4) / 4

    truth = alpha(study(20_000)).value
    held = []
    for seed in range(150):
        found = alpha(study(60), draws=200, seed=seed)
        held.append(found.low <= truth <= found.high)
    assert 0.88 <= np.mean(held) <= 0.99
    assert alpha(study(60), draws=50, seed=1).low < 1


def test_a_rater_against_the_others():
    rng = np.random.default_rng(0)
    truth = rng.random(400)
    close = np.clip(truth + 0.05 * rng.standard_normal((4, 400)), 0, 1)
    found = agreement(np.vstack([close, rng.random(400), 1 - truth, np.full(400, np.nan)]))
    assert (found[:4] > found[4] + 0.3).all() and abs(found[4]) < 0.35 and found[5] < found[4] and np.isnan(found[6])
    assert np.isnan(agreement(np.array([[0.0, 1.0]]))).all()
    assert np.isnan(agreement(np.ones((2, 3)))).all()
    # two raters: both have the pair's alpha, up to the small-sample factor of alpha
    pair = close[:2]
    assert agreement(pair) == pytest.approx([alpha(pair).value] * 2, abs=1e-12)
