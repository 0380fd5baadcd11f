"""The table of simulated regimes: what it says, and that it is what is simulated."""

from __future__ import annotations

import re

import pytest
from scipy.stats import binom
from tools.regimes import BEGIN, END, PAGE, REGIMES


def rows() -> list[list[str]]:
    text = PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.strip().splitlines()[2:]]


def test_the_page_has_every_regime_and_none_beyond_five_percent():
    assert [(kind, words) for kind, words, *_ in rows()] == [(regime.kind, regime.words) for regime in REGIMES]
    assert all(float(re.match(r"[\d.]+", now)[0]) <= 5.0 for _, _, now, _ in rows())


#: what takes seconds
QUICK = [
    regime
    for regime in REGIMES
    if regime.kind in ("independent", "grouped", "few rows") and "rows decide" not in regime.words
]


@pytest.mark.parametrize("regime", QUICK, ids=lambda regime: regime.words)
def test_regimes_are_as_the_page_says(regime):
    """Within what 150 comparisons can tell of the share that thousands gave."""
    shown = next(row for row in rows() if row[1] == regime.words)
    now, before = regime.rates(150)
    for found, text in ((now, shown[2]), (before, shown[3])):
        if text:
            said = float(re.match(r"[\d.]+", text)[0]) / 100
            assert binom.ppf(0.0005, 150, said) <= round(150 * found) <= binom.ppf(0.9995, 150, said)


@pytest.mark.slow
@pytest.mark.parametrize(
    "regime", [regime for regime in REGIMES if regime not in QUICK], ids=lambda regime: regime.words
)
def test_dear_regimes_are_as_the_page_says(regime):
    assert regime.rates(min(400, regime.count))[0] <= binom.ppf(0.9995, min(400, regime.count), 0.045) / min(
        400, regime.count
    )
