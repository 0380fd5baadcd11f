"""The tabular task on real tables and made ones, and the metrics against scikit-learn and the bootstrap."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import metrics as sk

from papertrial.baselines import majority
from papertrial.core.errors import DataError, Declined, PapertrialError
from papertrial.core.files import to_json
from papertrial.core.recipe import Optim, resolve
from papertrial.core.task import Split
from papertrial.data.base import Look
from papertrial.data.tables import Table
from papertrial.papers import rtdl
from papertrial.tasks._metrics import classification_scores, regression_scores
from papertrial.tasks.tabular import TASK, unseen

RTDL = SimpleNamespace(id="rtdl", paper=rtdl.PAPER, module=rtdl)


def frame(rows: int = 300, seed: int = 0) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    x = draw.standard_normal(rows)
    made = pd.DataFrame(
        {
            "size": np.where(draw.random(rows) < 0.1, np.nan, x),
            "paid": draw.random(rows) < 0.5,
            "day": pd.Timestamp("2020-01-01") + pd.to_timedelta(draw.integers(0, 900, rows), unit="D"),
            "colour": draw.choice(["red", "green", "blue"], rows),
            "empty": np.nan,
            "cost": x * 3 + 100,
        }
    )
    made["kind"] = np.where(x > 0.5, "large", np.where(x < -0.5, "small", "medium"))
    return made


def of_classes(rows: int = 300, **change) -> Table:
    return Table.from_frame(frame(rows).drop(columns="cost").assign(**change), "kind")


def of_numbers(rows: int = 300) -> Table:
    return Table.from_frame(frame(rows).drop(columns="kind"), "cost")


def test_classes_are_split_and_encoded():
    data = of_classes()
    prepared = TASK.prepare(data)
    assert (prepared.train.examples, prepared.valid.examples, prepared.test.examples) == pytest.approx(
        (192, 48, 60), abs=3
    )
    assert prepared.facts.numeric == 4  # and whether the size is missing
    assert prepared.state["missing"] == ["size"]
    np.testing.assert_array_equal(prepared.train["numeric"][:, 3], np.isnan(prepared.train["numeric"][:, 0]))
    assert prepared.facts.cardinalities == (3,)
    assert prepared.facts.classes == prepared.facts.outputs == 3
    assert prepared.state["class_names"] == ["large", "medium", "small"]
    assert prepared.train["numeric"].dtype == np.float32
    assert prepared.train["categorical"].dtype == prepared.train["label"].dtype == np.int64
    assert any("empty" in note for note in prepared.notes)
    assert json.loads(to_json(prepared.state)) == prepared.state
    whole = np.bincount(data.labels()[0]) / data.rows
    for part in (prepared.train, prepared.valid, prepared.test):
        np.testing.assert_allclose(np.bincount(part["label"]) / part.examples, whole, atol=0.02)


def rows_of(split: Split) -> set:
    return set(map(bytes, np.ascontiguousarray(split["numeric"])))


def test_the_test_rows_depend_on_the_data_alone():
    first, second = (TASK.prepare(of_numbers(), seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(first.test["target"], second.test["target"])
    assert rows_of(first.valid) != rows_of(second.valid)
    less = TASK.prepare(of_numbers(), fraction=0.25)
    np.testing.assert_array_equal(first.test["target"], less.test["target"])
    assert less.train.examples == pytest.approx(first.train.examples / 4, abs=1)
    for one, other in (("train", "valid"), ("train", "test"), ("valid", "test")):
        assert not rows_of(getattr(first, one)) & rows_of(getattr(first, other))


def test_equal_rows_stay_on_one_side():
    made = frame(200).drop(columns="kind")
    prepared = TASK.prepare(Table.from_frame(pd.concat([made, made, made], ignore_index=True), "cost"))
    assert not rows_of(prepared.train) & rows_of(prepared.test)
    assert not rows_of(prepared.train) & rows_of(prepared.valid)
    assert prepared.test.examples == 120


def test_a_given_split_is_kept():
    made = frame().drop(columns="kind").assign(split=["train"] * 200 + ["valid"] * 40 + ["test"] * 60)
    prepared = TASK.prepare(Table.from_frame(made, "cost"), seed=5)
    assert (prepared.train.examples, prepared.valid.examples, prepared.test.examples) == (200, 40, 60)
    np.testing.assert_allclose(prepared.test["target"], made["cost"][240:], rtol=1e-6)


def test_categories_come_from_the_training_rows():
    made = frame().drop(columns="kind").assign(split=["train"] * 200 + ["valid"] * 40 + ["test"] * 60)
    made.loc[250, "colour"] = "violet"
    made.loc[251, "colour"] = None
    prepared = TASK.prepare(Table.from_frame(made, "cost"))
    assert prepared.state["categories"] == {"colour": ["blue", "green", "red"]}
    np.testing.assert_array_equal(prepared.test["categorical"][10:12, 0], [3, 3])
    assert any("'colour': 2 of 60" in note for note in prepared.notes)
    expected = pd.Categorical(made["colour"][:200], ["blue", "green", "red"]).codes
    np.testing.assert_array_equal(prepared.train["categorical"][:, 0], expected)


def test_rows_without_a_target_are_left_out():
    made = frame().drop(columns="cost")
    made.loc[:29, "kind"] = None
    prepared = TASK.prepare(Table.from_frame(made, "kind"))
    parts = (prepared.train, prepared.valid, prepared.test)
    assert sum(part.examples for part in parts) == 270
    assert all((part["label"] >= 0).all() for part in parts)
    assert any("30 rows without a target" in note for note in prepared.notes)


def test_new_tables_are_encoded_alike():
    for data in (of_classes(), of_numbers()):
        prepared = TASK.prepare(data)
        state = json.loads(to_json(prepared.state))
        again = TASK.encode(state, data)
        name = "label" if "label" in again else "target"
        assert again.examples == data.rows
        assert rows_of(prepared.test) <= rows_of(again)
        known = {bytes(row): code for row, code in zip(again["numeric"], again["categorical"][:, 0], strict=True)}
        assert all(
            known[bytes(r)] == c
            for r, c in zip(prepared.test["numeric"], prepared.test["categorical"][:, 0], strict=True)
        )
        assert again[name].dtype == prepared.test[name].dtype
    new = frame(20, seed=1).drop(columns=["cost", "kind"])[::-1]
    new["colour"] = "mauve"
    coded = TASK.encode(state, Table.from_frame(new[["paid", "colour", "day", "size"]]))
    assert "target" not in coded
    assert (coded["categorical"] == 3).all()
    assert unseen(state, coded) == [
        "column 'colour': 20 of 20 rows have a missing value or a category unseen in training"
    ]


def test_new_tables_that_do_not_fit_are_refused_by_name():
    state = TASK.prepare(of_numbers()).state
    new = frame(20).drop(columns=["cost", "kind"])
    with pytest.raises(DataError, match="size"):
        TASK.encode(state, Table.from_frame(new.drop(columns="size")))
    with pytest.raises(DataError, match="colour"):
        TASK.encode(state, Table.from_frame(new.drop(columns="colour")))
    with pytest.raises(DataError, match="size"):
        TASK.encode(state, Table.from_frame(new.assign(size=["tall", "short"] * 10)))


@pytest.mark.parametrize(
    ("made", "target", "words"),
    [
        (frame(100)[["size", "kind"]].assign(kind="one"), "kind", "one value only"),
        (frame(100)[["kind"]], "kind", "no column but the target"),
        (frame(3)[["size", "cost"]], "cost", "too few rows"),
    ],
)
def test_what_cannot_be_learned_is_refused(made, target, words):
    with pytest.raises(DataError, match=words):
        TASK.prepare(Table.from_frame(made, target))


@pytest.mark.parametrize("option", [{"fraction": 0.0}, {"fraction": 2}, {"test_share": 1.0}, {"valid_share": -1}])
def test_shares_out_of_range_are_refused(option):
    with pytest.raises(PapertrialError, match="not between 0 and 1"):
        TASK.prepare(of_numbers(), **option)


def test_images_and_objectives_are_declined():
    assert not TASK.supports(Look("photos", "images"))
    prepared = TASK.prepare(of_numbers())
    images = SimpleNamespace(id="mixer", paper=SimpleNamespace(kind="architecture", tasks=("image_classification",)))
    with pytest.raises(Declined, match="not made for tables"):
        TASK.build(images, None, Optim(), prepared)
    objective = SimpleNamespace(id="views", paper=SimpleNamespace(kind="objective", tasks=("tabular",)))
    with pytest.raises(Declined, match="objective"):
        TASK.build(objective, None, Optim(), prepared)


@pytest.mark.parametrize("data", [of_classes, of_numbers])
def test_a_model_answers_embeds_and_is_scored(data):
    torch.manual_seed(0)
    prepared = TASK.prepare(data())
    config, _ = resolve(rtdl.Config, prepared.facts, {"tiny": rtdl.recipes["tiny"].config})
    model = TASK.build(RTDL, config, Optim(), prepared)
    model.encoder.fit_inputs(prepared.train)
    model.train()
    out = TASK.outputs(model, TASK.finish(model, prepared, 0), prepared.test)
    assert model.training
    assert out.dtype == np.float64
    assert np.isfinite(out).all()
    np.testing.assert_array_equal(out, TASK.outputs(model, {}, prepared.test))  # eval: no dropout
    assert TASK.embed(model, prepared.test).shape == (prepared.test.examples, 32)
    scores = TASK.score(out, prepared.test, prepared.state)
    name, higher = TASK.primary_for(prepared.state)
    assert (name, higher) == (("accuracy", True) if prepared.facts.classes else ("rmse", False))
    assert scores.per_example.mean() == pytest.approx(scores.metrics[name])
    answers = TASK.answers(out, prepared.state)
    assert len(answers["prediction"]) == prepared.test.examples
    assert len(answers) == (1 + prepared.facts.classes if prepared.facts.classes else 1)
    if not prepared.facts.classes:
        assert abs(out.mean() - 100) < 5  # answers are on the scale of the target


def test_trees_have_no_features():
    with pytest.raises(Declined, match="no features"):
        TASK.embed(majority.build(majority.Config(), TASK.prepare(of_numbers()).facts), Split({}))


def test_california_housing(shared_data):
    prepared = TASK.prepare(Table.from_file(shared_data / "tabular" / "california_housing.csv.gz"))
    assert prepared.facts.numeric == 8
    assert prepared.facts.classes == 0
    assert prepared.train.examples == pytest.approx(0.64 * 20640, abs=5)
    assert prepared.test.examples == pytest.approx(0.2 * 20640, abs=5)


# -- metrics ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("ties", [False, True])
def test_classification_agrees_with_scikit_learn(classes, ties):
    draw = np.random.default_rng(classes)
    labels = draw.choice(classes, 500, p=np.array([0.7, 0.3] if classes == 2 else [0.5, 0.3, 0.15, 0.05]))
    probabilities = draw.dirichlet(np.ones(classes), 500) + np.eye(classes)[labels] * 0.5
    probabilities /= probabilities.sum(1, keepdims=True)
    if ties:
        probabilities = (np.round(probabilities * 4) + 0.1) / (np.round(probabilities * 4) + 0.1).sum(1, keepdims=True)
    scores = classification_scores(probabilities, labels, [str(c) for c in range(classes)])
    found, guess = scores.metrics, probabilities.argmax(1)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(labels, guess), abs=1e-12)
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels, guess), abs=1e-12)
    assert found["log_loss"] == pytest.approx(sk.log_loss(labels, probabilities), abs=1e-12)
    asked = probabilities[:, 1] if classes == 2 else probabilities
    assert found["auc"] == pytest.approx(sk.roc_auc_score(labels, asked, multi_class="ovr"), abs=1e-12)
    assert scores.per_example.mean() == pytest.approx(found["accuracy"])
    assert all(low <= found[name] <= high for name, (low, high) in scores.intervals.items())
    assert scores.intervals.keys() == found.keys()


def test_regression_agrees_with_scikit_learn():
    draw = np.random.default_rng(0)
    target = draw.standard_normal(300) * 1e3 + 1e5
    values = target + draw.standard_cauchy(300)
    scores = regression_scores(values, target)
    assert scores.metrics["rmse"] == pytest.approx(sk.root_mean_squared_error(target, values))
    assert scores.metrics["mae"] == pytest.approx(sk.mean_absolute_error(target, values))
    assert scores.metrics["r2"] == pytest.approx(sk.r2_score(target, values))
    assert scores.per_example.mean() == pytest.approx(scores.metrics["rmse"])


def test_intervals_agree_with_the_bootstrap():
    draw = np.random.default_rng(0)
    labels = draw.choice(3, 400, p=[0.6, 0.3, 0.1])
    probabilities = draw.dirichlet(np.ones(3), 400) * 0.7 + np.eye(3)[labels] * 0.3
    target = draw.standard_normal(400)
    values = target + draw.standard_normal(400) * 0.5

    def resampled(rows: np.ndarray) -> dict[str, float]:
        classes = classification_scores(probabilities[rows], labels[rows], "abc").metrics
        return classes | regression_scores(values[rows], target[rows]).metrics

    draws = [resampled(draw.integers(0, 400, 400)) for _ in range(400)]
    intervals = (
        classification_scores(probabilities, labels, "abc").intervals | regression_scores(values, target).intervals
    )
    for name, (low, high) in intervals.items():
        expected = 2 * 1.96 * np.std([one[name] for one in draws])
        # the bootstrap of a median is rough itself, and the density at it is estimated from the errors around it
        assert high - low == pytest.approx(expected, rel=0.3 if "median" in name else 0.15), name


def test_metrics_of_awkward_outputs():
    sure = classification_scores(np.eye(2)[[0, 1, 1]], np.array([0, 1, 1]), "ab")
    assert sure.metrics["accuracy"] == 1
    assert sure.intervals["accuracy"][0] < 0.5  # three right answers prove little
    assert sure.intervals["balanced_accuracy"][0] < 0.6
    wrong = classification_scores(np.eye(2)[[1, 0]], np.array([0, 1]), "ab")
    assert np.isfinite(wrong.metrics["log_loss"])
    assert "auc" not in classification_scores(np.eye(2)[[0, 0]], np.array([0, 0]), "ab").metrics
    exact = regression_scores(np.ones(3), np.ones(3))
    assert exact.metrics == {"rmse": 0.0, "mae": 0.0, "median_absolute_error": 0.0}
    assert (exact.per_example == 0).all()
    assert regression_scores(np.ones(1), np.zeros(1)).intervals == {}
    with pytest.raises(DataError, match="finite"):
        regression_scores(np.array([np.nan]), np.ones(1))
    with pytest.raises(DataError, match="no examples"):
        classification_scores(np.zeros((0, 2)), np.zeros(0, dtype=int), "ab")
    with pytest.raises(ValueError, match="shape"):
        classification_scores(np.ones((3, 2)), np.zeros(3, dtype=int), "abc")
    with pytest.raises(ValueError, match="labels reach"):
        classification_scores(np.ones((1, 2)), np.array([-1]), "ab")
