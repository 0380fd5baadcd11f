"""What is judged by: the metric that the user names, or the one that the data call for; and all that tunes follows it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from papertrial.core import registry
from papertrial.core.errors import PapertrialError
from papertrial.core.task import Split
from papertrial.data import open as open_data
from papertrial.data.images import Images
from papertrial.data.texts import Pairs, Texts
from papertrial.tasks._choosing import chosen, for_classes, loss_by
from papertrial.use.choose import prepare
from papertrial.use.fit import _signed, fit

ROWS = 400


def labels(rare):
    return (np.arange(ROWS) < rare).astype(int)[np.random.default_rng(0).permutation(ROWS)]


def table(rare=200):
    x = np.random.default_rng(1).normal(size=(ROWS, 3))
    y = labels(rare)
    x[:, 0] += y
    return pd.DataFrame(x, columns=list("abc")).assign(y=np.where(y, "yes", "no"))


def words():
    return [f"text number {row} of {row % 7}" for row in range(ROWS)]


@pytest.mark.parametrize("task", ["tabular", "image_classification", "image_representation", "text_classification"])
def test_a_rare_class_is_judged_by_average_precision_and_the_reason_is_said(task):
    def made(rare):
        if task == "tabular":
            return open_data(table(rare), "y")
        if task == "text_classification":
            return Texts.from_strings(words(), labels(rare), ["no", "yes"])
        pixels = np.random.default_rng(0).integers(0, 256, (ROWS, 8, 8, 1), dtype=np.uint8)
        return Images.from_arrays(pixels, labels(rare), ["no", "yes"])

    named = registry.task(task)
    prepared = prepare(named, made(20))
    assert named.primary_for(prepared.state) == ("average_precision", True)
    assert prepared.facts.metric == "average_precision" and prepared.state["positive"] == 1
    assert any("5.0% of the" in line and "with AUC beside it" in line for line in prepared.notes)
    usual = prepare(named, made(200))
    assert named.primary_for(usual.state) == ("accuracy", True) and usual.facts.metric == ""
    asked = prepare(named, made(20), metric="balanced accuracy")
    assert named.primary_for(asked.state) == ("balanced_accuracy", True)
    assert not any("judged by" in line for line in asked.notes)


def test_many_balanced_classes_are_judged_by_accuracy_and_lopsided_ones_by_macro_f1():
    notes: list[str] = []
    even = np.arange(400) % 20
    assert for_classes(None, even, range(20), notes, "rows")["metric"] == "accuracy" and not notes
    lopsided = np.where(np.arange(400) < 350, 0, 1 + np.arange(400) % 2)
    assert for_classes(None, lopsided, range(3), notes, "rows") == {"metric": "macro_f1", "positive": 2}
    assert notes == ["88% of the labels are of one class: judged by macro F1"]


@pytest.mark.parametrize(
    ("task", "data", "asked", "wrong"),
    [
        ("tabular", lambda: open_data(table().assign(y=np.arange(ROWS) * 0.37), "y"), "mae", "auc"),
        (
            "sentence_similarity",
            lambda: Pairs.from_strings([(t, t[::-1]) for t in words()], range(ROWS)),
            "pearson",
            "mae",
        ),
        ("text_to_text", lambda: Pairs.from_strings([(t, t[::-1]) for t in words()]), "exact_match", "auc"),
    ],
)
def test_every_task_takes_a_metric_of_its_own_and_refuses_others(task, data, asked, wrong):
    named = registry.task(task)
    assert named.primary_for(prepare(named, data(), metric=asked).state)[0] == asked
    with pytest.raises(PapertrialError, match=f"no metric '{wrong}' here"):
        prepare(named, data(), metric=wrong)


def test_a_name_that_is_nearly_right_is_recognised():
    with pytest.raises(PapertrialError, match="did you mean 'average_precision'"):
        chosen("avarage_precision", "classes", "accuracy")
    with pytest.raises(PapertrialError, match="image_generation takes no metric"):
        prepare(registry.task("image_generation"), open_data("digits"), metric="auc")


def test_tuning_follows_the_metric_where_it_can_be_told():
    split = Split({"label": np.array([0, 0, 0, 1])})
    outputs = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.7, 0.3]])
    assert loss_by("", outputs, split) is None
    assert loss_by("auc", outputs, split) == pytest.approx(-2 / 3)
    assert loss_by("log_loss", outputs, split) > 0
    assert loss_by("auc", outputs[:3], Split({"label": np.zeros(3, int)})) is None
    assert loss_by("mae", np.array([1.0, 2.0]), Split({"target": np.array([2.0, 4.0])})) == 1.5


def test_what_cannot_be_told_of_the_validation_rows_is_chosen_by_the_usual_metric():
    named = registry.task("tabular")
    prepared = prepare(named, open_data(table(20), "y"))
    ordinary = prepared.valid.take(np.flatnonzero(prepared.valid["label"] == 0))
    outputs = np.tile([0.9, 0.1], (ordinary.examples, 1))
    without = type(prepared)(prepared.train, ordinary, prepared.test, prepared.facts, prepared.state)
    assert _signed(named, outputs, without) == 1.0


def test_fit_is_judged_by_the_named_metric_and_evaluate_by_another(tmp_path):
    table(20).to_csv(tmp_path / "rare.csv", index=False)
    made = fit("linear", tmp_path / "rare.csv", metric="brier", out=tmp_path / "run", progress=False)
    assert made.card["state"]["metric"] == "brier" and made.card["valid"] < 0
    found = made.evaluate(str(tmp_path / "rare.csv"), metric="recall@precision=0.5")
    assert 0 <= found.metrics["recall@precision=0.5"] <= 1 and "brier" in found.metrics
    with pytest.raises(PapertrialError, match="no metric 'rmse' here"):
        made.evaluate(str(tmp_path / "rare.csv"), metric="rmse")
