"""Learning curves turned round: the falling line against scikit-learn, what it never does, and where it stops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from papertrial.core.curves import PowerLaw, fit_falling_line, fit_power_law

AMOUNTS = np.array([10.0, 30.0, 100.0, 300.0, 1000.0])
errors = st.lists(st.integers(0, 80).map(lambda eighths: eighths / 8), min_size=1, max_size=8)


@given(errors)
def test_the_line_equals_isotonic_regression(values):
    amounts = 10.0 * 3.0 ** np.arange(len(values))
    expected = IsotonicRegression(increasing=False).fit_transform(np.log(amounts), values)
    np.testing.assert_allclose(fit_falling_line(amounts, np.array(values)).errors, expected, atol=1e-9)


@given(errors, st.randoms(use_true_random=False))
def test_the_order_of_the_points_is_nothing(values, draw):
    amounts = 10.0 * 3.0 ** np.arange(len(values))
    mixed = list(range(len(values)))
    draw.shuffle(mixed)
    one, other = (fit_falling_line(amounts[rows], np.array(values)[rows]) for rows in (list(range(len(values))), mixed))
    np.testing.assert_array_equal(one.amounts, other.amounts)
    np.testing.assert_allclose(one.errors, other.errors, atol=1e-12)


@given(errors, st.lists(st.floats(-1.0, 11.0), min_size=2, max_size=20))
def test_a_smaller_error_never_takes_less(values, wanted):
    line = fit_falling_line(10.0 * 3.0 ** np.arange(len(values)), np.array(values))
    taken = line.labels(np.sort(wanted))
    assert (taken[1:] <= taken[:-1]).all()


def test_points_of_a_falling_curve_are_met_and_between_them_it_is_straight_in_the_logarithm():
    line = fit_falling_line(AMOUNTS, np.array([5.0, 4.0, 3.0, 2.0, 1.0]))
    np.testing.assert_allclose(line.labels(np.array([5.0, 3.0, 1.0])), [10, 100, 1000])
    assert line.labels(4.5) == pytest.approx(np.sqrt(300))


def test_nothing_is_said_beyond_what_was_measured():
    line = fit_falling_line(AMOUNTS, np.array([5.0, 4.0, 3.0, 2.0, 1.0]))
    np.testing.assert_array_equal(line.labels(np.array([0.999, 5.001])), [np.inf, 0.0])


def test_a_level_stretch_is_reached_at_its_beginning():
    line = fit_falling_line(AMOUNTS, np.array([5.0, 3.0, 2.0, 4.0, 3.0]))  # the last three have the mean 3
    assert line.labels(3.0) == pytest.approx(30)
    assert line.labels(2.9) == np.inf
    assert fit_falling_line(np.array([7.0]), np.array([2.0])).labels(2.0) == pytest.approx(7)


def test_line_and_law_agree_where_the_law_is_the_truth():
    law = PowerLaw(2.0, 0.5, 0.1)
    amounts = np.geomspace(10, 1e5, 60)
    wanted = law.error(np.array([20.0, 500.0, 3e4]))
    fitted = fit_power_law(amounts, law.error(amounts)).labels(wanted)
    np.testing.assert_allclose(fit_falling_line(amounts, law.error(amounts)).labels(wanted), fitted, rtol=0.1)


@pytest.mark.parametrize("amounts", [[], [10.0, 10.0], [0.0, 1.0]])
def test_amounts_that_make_no_curve_are_refused(amounts):
    with pytest.raises(ValueError, match="not positive and different"):
        fit_falling_line(np.array(amounts), np.ones(len(amounts)))
