from __future__ import annotations

import pytest

from papertrial.core.budget import Budget, duration, size_in_words
from papertrial.core.errors import PapertrialError


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("90s", Budget(seconds=90)),
        ("1.5h", Budget(seconds=5400)),
        ("10m", Budget(seconds=600)),
        ("500 steps", Budget(steps=500)),
        ("200k samples", Budget(samples=200_000)),
        ("20trials", Budget(trials=20)),
        ("60s+20 trials", Budget(seconds=60, trials=20)),
    ],
)
def test_budgets_are_read(text, budget):
    assert Budget.parse(text) == budget


@pytest.mark.parametrize(
    "text", ["", "soon", "10", "10 apples", "-5s", "1m+2m", "1e3s", "10mm", "0steps", "0s", "9" * 400 + "steps"]
)
def test_other_words_are_refused_with_the_forms(text):
    with pytest.raises(PapertrialError, match="10m"):
        Budget.parse(text)


def test_a_budget_reads_as_words():
    assert str(Budget(seconds=600, trials=20)) == "10 min and 20 trials"
    assert str(Budget(samples=200_000)) == "200,000 samples"
    assert str(Budget()) == "no limit"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.5, "0.5 s"), (8, "8 s"), (59.7, "1 min"), (125, "2 min 05 s"), (11400, "3 h 10 min")]
)
def test_durations(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (850, "850 B"),
        (999.6, "1 kB"),
        (8_120, "8.12 kB"),
        (658e6, "658 MB"),
        (999.6e6, "1 GB"),
        (1.25e12, "1250 GB"),
    ],
)
def test_bytes_in_words(count, words):
    assert size_in_words(count) == words
