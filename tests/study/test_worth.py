"""Worth in labels: on curves whose truth is known, for both directions, and where nothing can be said."""

from __future__ import annotations

import numpy as np
import pytest

from papertrial.core.curves import PowerLaw, fit_power_law
from papertrial.study.worth import Worth, worth

LABELS = (100, 200, 400)
TRUTH = PowerLaw(2.0, 0.5, 0.1)


def curve(draw, noise, seeds=(3, 3, 5), law=TRUTH):
    return [law.error(n) + noise * draw.standard_normal(count) for n, count in zip(LABELS, seeds, strict=True)]


@pytest.mark.parametrize("law", [PowerLaw(2.0, 0.5, 0.1), PowerLaw(5.0, 0.2, 0.0), PowerLaw(40.0, 1.0, 0.3)])
def test_the_law_is_recovered_from_exact_points(law):
    fitted = fit_power_law(np.array(LABELS), law.error(np.array(LABELS)))
    for n in (50, 100, 300, 1000):
        assert fitted.error(n) == pytest.approx(law.error(n), rel=0.02)
        assert fitted.labels(law.error(n)) == pytest.approx(n, rel=0.08)


def test_two_points_give_a_law_without_a_floor():
    fitted = fit_power_law(np.array([100, 400]), np.array([0.4, 0.2]))
    assert fitted.floor == 0.0
    assert fitted.exponent == pytest.approx(0.5, rel=0.02)


def test_fits_are_monotone_whatever_the_points():
    draw = np.random.default_rng(0)
    fitted = fit_power_law(np.array(LABELS), draw.random((200, 3)))
    grid = np.stack([fitted.error(n) for n in (50, 100, 200, 400, 1600)])
    assert (np.diff(grid, axis=0) <= 1e-12).all()
    assert (fitted.floor >= 0).all()
    assert (fitted.scale >= 0).all()


def test_many_curves_at_once_equal_one_by_one():
    errors = np.random.default_rng(1).random((5, 3))
    together = fit_power_law(np.array(LABELS), errors)
    for index, one in enumerate(errors):
        alone = fit_power_law(np.array(LABELS), one)
        assert (together.scale[index], together.exponent[index], together.floor[index]) == (
            alone.scale,
            alone.exponent,
            alone.floor,
        )


@pytest.mark.parametrize("higher", [True, False])
@pytest.mark.parametrize(("equivalent", "factor"), [(600, 1.5), (400, 1.0), (200, 0.5)])
def test_a_method_is_worth_the_labels_it_replaces(higher, equivalent, factor):
    draw = np.random.default_rng(2)
    errors, own = curve(draw, 1e-4), TRUTH.error(equivalent) + 1e-4 * draw.standard_normal(5)
    told = (
        worth(LABELS, [1 - e for e in errors], 1 - own)
        if higher
        else worth(LABELS, errors, own, higher_is_better=False)
    )
    assert told.factor == pytest.approx(factor, rel=0.05)
    assert told.low < told.factor < told.high


def test_order_of_the_points_does_not_matter():
    errors = curve(np.random.default_rng(3), 0.002)
    own = TRUTH.error(600) + np.zeros(5)
    one = worth(LABELS, errors, own, higher_is_better=False)
    assert worth(LABELS[::-1], errors[::-1], own, higher_is_better=False) == one


@pytest.mark.slow
def test_intervals_hold_the_truth_about_as_often_as_they_say():
    draw = np.random.default_rng(4)
    held = []
    for _ in range(150):
        told = worth(
            LABELS, curve(draw, 0.005), TRUTH.error(600) + 0.005 * draw.standard_normal(5), higher_is_better=False
        )
        held.append(told.low <= 1.5 <= told.high)
    # Three to five seeds, resampled: somewhat fewer than 95 %.
    assert np.mean(held) >= 0.85


def test_beyond_what_was_measured_is_cut_and_marked():
    errors = curve(np.random.default_rng(5), 1e-4)
    far = worth(LABELS, errors, np.full(5, 0.05), higher_is_better=False)
    assert (far.factor, str(far), far.interval) == (4.0, ">4x", "[>4, >4]")
    poor = worth(LABELS, errors, np.full(5, 0.9), higher_is_better=False)
    assert (poor.factor, str(poor)) == (0.25, "<0.25x")


def test_one_seed_gives_a_factor_without_an_interval():
    told = worth(
        LABELS, curve(np.random.default_rng(6), 0.0, (1, 1, 1)), np.array([TRUTH.error(600)]), higher_is_better=False
    )
    assert told.factor == pytest.approx(1.5, rel=0.05)
    assert told.interval == ""
    assert str(told) == "1.5x"


@pytest.mark.parametrize(
    ("errors", "why"),
    [
        ([[0.30, 0.31], [0.30, 0.32], [0.31, 0.30]], "does not clearly rise"),
        ([[0.40, 0.50, 0.20], [0.30, 0.5, 0.2], [0.3, 0.2, 0.4]], "does not clearly rise"),
        ([[0.40, 0.401], [0.30, 0.301], [0.35, 0.351]], "worse with 400 labels than with 200"),
        ([[0.30], [0.30], [0.30]], "does not clearly rise"),
        ([[0.40], [np.nan], [0.30]], "not finite"),
        ([[0.40], [0.30], [-0.10]], "perfect model"),
    ],
)
def test_unknown_with_the_reason(errors, why):
    told = worth(LABELS, [np.array(e) for e in errors], np.array([0.2, 0.21]), higher_is_better=False)
    assert told.factor is None
    assert str(told) == "unknown"
    assert why in told.reason


@pytest.mark.parametrize("labels", [(100,), (100, 100), (0, 100)])
def test_a_curve_needs_two_numbers_of_labels(labels):
    told = worth(labels, [np.array([0.5, 0.5])] * len(labels), np.array([0.4, 0.4]))
    assert "two different numbers" in told.reason


def test_json_says_what_is_shown():
    assert Worth(1.93, 1.2, 4.0, 4.0).to_json() == {
        "factor": 1.93, "low": 1.2, "high": 4.0, "most": 4.0, "reason": "", "shown": "1.9x",
    }  # fmt: skip
    assert Worth(1.93, 1.2, 4.0, 4.0).interval == "[1.2, >4]"
