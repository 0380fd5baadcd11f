"""Texts to texts: what is source and target, which rows are judged, chrF, and the baselines."""

from __future__ import annotations

import numpy as np
import pytest

import papertrial
from papertrial.core import registry
from papertrial.core.errors import DataError, Declined, PapertrialError
from papertrial.core.task import Ragged
from papertrial.data.texts import Pairs, Texts
from papertrial.tasks._metrics import chrf, text_scores
from papertrial.tasks.text_to_text import MOST, TASK, _rows

CAPITALS = [(f"what is the capital of {a}, asked {n}", b) for n in range(8) for a, b in (
    ("France", "Paris"), ("Italy", "Rome"), ("Spain", "Madrid"), ("Poland", "Warsaw"), ("Norway", "Oslo"),
)]  # fmt: skip
LABELLED = Texts.from_strings([f"{word} text {n}" for n in range(20) for word in ("good", "bad")], ["yes", "no"] * 20)


def texts(prepared, part, column):
    return getattr(prepared, part)[column].texts()


def test_pairs_give_source_and_target_the_same_test_rows_for_every_seed():
    data = Pairs.from_strings(CAPITALS)
    one, two = (TASK.prepare(data, seed) for seed in (0, 1))
    assert texts(one, "test", "source") == texts(two, "test", "source")
    assert texts(one, "train", "source") != texts(two, "train", "source")
    both = dict(CAPITALS)
    for part in ("train", "valid", "test"):
        assert [both[text] for text in texts(one, part, "source")] == texts(one, part, "target")
    assert one.facts.writes and TASK.primary_for(one.state) == ("chrf", True)


def test_equal_sources_stay_on_one_side():
    data = Pairs.from_strings([(f"Question {n % 20}", f"answer {n}") for n in range(100)])
    prepared = TASK.prepare(data)
    sides = [set(texts(prepared, part, "source")) for part in ("train", "valid", "test")]
    assert not sides[0] & sides[2] and not sides[1] & sides[2] and not sides[0] & sides[1]


def test_labels_are_targets_by_name():
    prepared = TASK.prepare(LABELLED)
    assert set(texts(prepared, "test", "target")) == {"yes", "no"}
    assert TASK.primary_for(prepared.state) == ("exact_match", True)


def test_a_given_split_is_kept_and_many_rows_are_thinned():
    data = Pairs.from_strings([(f"a {n}", f"b {n}") for n in range(2000)], part=[2] * 1500 + [0] * 500)
    prepared = TASK.prepare(data)
    assert prepared.test.examples == MOST
    assert any("spread evenly" in note for note in prepared.notes)
    assert prepared.train.examples + prepared.valid.examples == 500


def test_what_does_not_fit_is_declined():
    scored = Pairs.from_strings([("a b", "b c"), ("c d", "d e")], [1.0, 2.0])
    for data, why in ((scored, "scores"), (papertrial.open("wine"), "table")):
        assert why in TASK.supports(data.look()).why
    with pytest.raises(DataError, match="scores"):
        TASK.prepare(scored)
    with pytest.raises(PapertrialError, match="fraction"):
        TASK.prepare(LABELLED, fraction=0)
    with pytest.raises(Declined, match="not made for"):
        TASK.build(registry.method("text_transformer"), None, None, TASK.prepare(LABELLED))


def test_empty_texts_are_left_out():
    data = Pairs.from_strings([*CAPITALS, ("", "nothing"), ("who", " ")])
    prepared = TASK.prepare(data)
    assert sum(part.examples for part in (prepared.train, prepared.valid, prepared.test)) == len(CAPITALS)
    assert any("empty" in note for note in prepared.notes)


def test_rows_hold_all_documents_but_single_tokens():
    ids = Ragged.of([[1, 2, 3, 4, 5], [], [6], [7, 8, 9, 10], [11, 12]])
    assert [row.tolist() for row in _rows(ids, 4)] == [[1, 2, 3, 4], [7, 8, 9, 10], [11, 12]]
    with pytest.raises(DataError, match="too short"):
        _rows(Ragged.of([[1]]), 4)


@pytest.mark.parametrize(
    ("answer", "target", "value"),
    [
        ("", "", 1.0),
        ("abc", "abc", 1.0),
        ("", "abc", 0.0),
        ("xyz", "abc", 0.0),
        # by hand: letters 2 of 2 and 2 of 3, pairs 1 of 1 and 1 of 2: precision 1, recall 7/12
        ("ab", "abc", 5 * (7 / 12) / (4 + 7 / 12)),
        ("a b", "abc", 5 * (7 / 12) / (4 + 7 / 12)),
    ],
)
def test_chrf_by_hand(answer, target, value):
    assert chrf(answer, target) == pytest.approx(value, abs=1e-12)


def test_scores_are_means_of_examples():
    answers, targets = ["Paris ", "Rom", "x"], ["Paris", "Rome", "Oslo"]
    for primary in ("exact_match", "chrf"):
        scores = text_scores(answers, targets, primary)
        assert scores.metrics[primary] == pytest.approx(scores.per_example.mean())
        low, high = scores.intervals[primary]
        assert 0 <= low <= scores.metrics[primary] <= high <= 1
    assert scores.metrics["exact_match"] == pytest.approx(1 / 3)
    with pytest.raises(DataError):
        text_scores([], [], "chrf")


@pytest.mark.parametrize("count", [1, 3, 40, 41, 997])
def test_the_interval_of_a_share_stays_within_0_and_1(count):
    none, every = (text_scores(["a"] * count, [target] * count, "exact_match") for target in "ba")
    assert none.intervals["exact_match"][0] == 0.0 and 0 < none.intervals["exact_match"][1] < 1
    assert every.intervals["exact_match"][1] == 1.0 and 0 < every.intervals["exact_match"][0] < 1


@pytest.mark.parametrize("name", ["nearest", "majority"])
def test_baselines_answer_again_when_read_back(name, tmp_path):
    made = papertrial.fit(name, Pairs.from_strings(CAPITALS), task="text_to_text", out=tmp_path / "run")
    assert made.card["metrics"]["exact_match"] == pytest.approx(1.0 if name == "nearest" else 0.2, abs=0.15)
    asked = ["what is the capital of Norway, asked 99"]
    assert made.predict(asked)["prediction"][0] == "Oslo" or name == "majority"
    assert made.evaluate(Pairs.from_strings(CAPITALS[:10])).metrics["chrf"] > 0


def test_the_source_is_copied_where_that_is_better(tmp_path):
    sources = [f"{n * 7919 % 9973:04d} {n * 104729 % 9973:04d}" for n in range(1, 61)]
    data = Pairs.from_strings([(source, source + "!") for source in sources])
    made = papertrial.fit("nearest", data, task="text_to_text", out=tmp_path / "run")
    assert made.model.sort == "copy"
    assert made.predict(["anything new"])["prediction"].tolist() == ["anything new"]


def test_labelled_texts_are_answered_and_judged_by_the_words(tmp_path):
    made = papertrial.fit("t5", LABELLED, task="text_to_text", recipe="tiny", out=tmp_path / "run", progress=False)
    assert made.card["metrics"]["exact_match"] > 0.6
    assert all(isinstance(text, str) for text in made.predict(["good text 7", "bad text 300"])["prediction"])
    assert made.evaluate(LABELLED).metrics["exact_match"] > 0.6
    assert made.embed(["a text", "another one"]).shape == (2, 32)
    with pytest.raises(DataError, match="pairs"):
        made.predict(Pairs.from_strings(CAPITALS))
    assert np.isfinite(made.card["cost"]["seconds"])
