"""Reliability, and thresholds chosen on validation rows, kept in the artifact and used by `predict`."""

from __future__ import annotations

import numpy as np
import pytest

import papertrial as pt
from papertrial.core.errors import DataError, PapertrialError
from papertrial.tasks._calibration import answered, asked, chosen, on_test, reliability
from papertrial.use.predictor import sample


def test_calibrated_answers_have_no_error_and_boastful_ones_have_theirs():
    draw = np.random.default_rng(0)
    sure = draw.uniform(0.5, 1, 40_000)
    labels = (draw.random(40_000) > sure).astype(int)
    honest = reliability(np.stack([sure, 1 - sure], axis=1), labels)
    assert honest["ece"] < 0.01 and sum(honest["count"]) == 40_000 and len(honest["count"]) == 5
    np.testing.assert_allclose(honest["confidence"], honest["right"], atol=0.02)
    boast = np.tile([0.99, 0.01], (1000, 1))
    found = reliability(boast, np.repeat([0, 1], [700, 300]))
    assert found["ece"] == pytest.approx(0.29) and found["right"] == [0.7]


def test_the_threshold_meets_what_was_asked_and_costs_least():
    draw = np.random.default_rng(1)
    true = draw.random(500) < 0.1
    scores = 1 / (1 + np.exp(-(draw.standard_normal(500) + 2 * true - 3)))
    probabilities, labels = np.stack([1 - scores, scores], axis=1), true.astype(int)
    for name, value in (("recall", 0.9), ("precision", 0.6)):
        held = chosen(f"{name}={value}", probabilities, labels, ["no", "yes"])
        said = answered(probabilities, ["no", "yes"], held)
        hits = (said & true).sum()
        assert held["class"] == "yes" and held[name] >= value
        assert held["recall"] == pytest.approx(hits / true.sum()) and held["precision"] == pytest.approx(
            hits / said.sum()
        )
        told = on_test(probabilities, labels, ["no", "yes"], held)
        assert told == {"recall_at_threshold": held["recall"], "precision_at_threshold": held["precision"]}
        # the next threshold to the costly side does not meet it any more, or costs more
        other = np.unique(scores)
        for level in other:
            above = scores >= level
            figures = {"recall": (above & true).sum() / true.sum(), "precision": (above & true).sum() / above.sum()}
            if figures[name] >= value:
                cost = "precision" if name == "recall" else "recall"
                assert level <= held["at"] if name == "recall" else figures[cost] <= held[cost] + 1e-12


@pytest.mark.parametrize("text", ["recall", "recall=0", "recall=1.5", "accuracy=0.9", "0.5"])
def test_what_is_no_threshold_is_refused(text):
    with pytest.raises(PapertrialError, match=r"write it as --threshold recall=0\.9"):
        asked(text)


def test_thresholds_that_cannot_be_chosen_are_refused():
    half = np.tile([0.5, 0.5], (10, 1))
    with pytest.raises(DataError, match=r"0\.500 is the most there is"):
        chosen("precision=0.9", half, np.arange(10) % 2, ["a", "b"])
    with pytest.raises(PapertrialError, match="of two classes, and there are 3"):
        chosen("recall=0.9", np.ones((4, 3)) / 3, np.arange(4) % 3, ["a", "b", "c"])
    with pytest.raises(DataError, match="no validation row is 'b'"):
        chosen("recall=0.9", half, np.zeros(10, dtype=int), ["a", "b"], 1)


def test_predict_answers_by_the_threshold_of_the_artifact(tmp_path):
    pd = pytest.importorskip("pandas")
    draw = np.random.default_rng(2)
    x = draw.standard_normal((600, 3))
    y = np.where(x[:, 0] + draw.standard_normal(600) > 1.6, "yes", "no")
    table = pd.DataFrame(x, columns=list("abc")).assign(y=y)
    options = {"target": "y", "budget": "2trials", "progress": False}
    plain = pt.fit("linear", table, out=tmp_path / "plain", **options)
    held = pt.fit("linear", table, out=tmp_path / "held", threshold="recall=0.9", **options)
    assert held.card["threshold"]["class"] == "yes" and held.card["threshold"]["recall"] >= 0.9
    assert {"ece", "recall_at_threshold", "precision_at_threshold"} <= held.card["extra"].keys()
    usual, found = plain.predict(table), held.predict(table)
    np.testing.assert_array_equal(usual["p(yes)"], found["p(yes)"])
    np.testing.assert_array_equal(found["prediction"] == "yes", found["p(yes)"] >= held.card["threshold"]["at"])
    assert (found["prediction"] == "yes").sum() > (usual["prediction"] == "yes").sum()
    judged = held.evaluate(table).metrics
    said, true = found["prediction"] == "yes", y == "yes"
    assert judged["recall_at_threshold"] == pytest.approx((said & true).sum() / true.sum())
    assert judged["precision_at_threshold"] == pytest.approx((said & true).sum() / said.sum())
    assert "recall_at_threshold" not in plain.evaluate(table).metrics
    notes = {name: sample(one, table)[2] for name, one in (("held", held), ("plain", plain))}
    assert any("answer 'yes' from" in line for line in notes["held"]) and "recall=0.9" in " ".join(notes["held"])
    assert not any("answer 'yes' from" in line for line in notes["plain"])
    with pytest.raises(PapertrialError, match="no recall or precision"):
        pt.fit("linear", table, out=tmp_path / "wrong", threshold="most", **options)
    assert not (tmp_path / "wrong").exists()
