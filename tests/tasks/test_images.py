"""The image tasks: what is split, what is revealed, what is refused, and the probe against scikit-learn."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from papertrial.core import registry
from papertrial.core.errors import DataError, Declined, PapertrialError
from papertrial.core.recipe import Optim, resolve
from papertrial.core.task import Split
from papertrial.data import open as open_data
from papertrial.data.base import Look
from papertrial.data.images import Images
from papertrial.nn.views import Draw
from papertrial.tasks import _images, _probe
from papertrial.tasks._probe import fit_probe, nearest, probe_outputs
from papertrial.tasks.image_classification import TASK as CLASSIFY
from papertrial.tasks.image_representation import TASK as REPRESENT


def noise(rows, classes=3, channels=1, side=8, seed=0, dtype=np.uint8):
    """Random images of which no two are alike, with a class each that shows in the brightness."""
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    pixels = rng.random((rows, side, side, channels)) * 0.5 + 0.5 * labels[:, None, None, None] / classes
    return (pixels * 255).astype(np.uint8) if dtype == np.uint8 else pixels.astype(dtype), labels


def data(rows=120, part=None, labels=None, **kind):
    pixels, known = noise(rows, **kind)
    return Images.from_arrays(pixels, known if labels is None else labels, part=part)


def hold(split):
    """The images of a split as hashable rows."""
    return {np.asarray(image).tobytes() for image in np.asarray(split["image"])}


@pytest.fixture(scope="module")
def digits():
    return open_data("digits")


# ------------------------------------------------------------------------------------------------------------ the split


def test_a_fifth_of_each_class_is_for_the_test_whatever_the_seed():
    images = data(300)
    prepared = [CLASSIFY.prepare(images, seed) for seed in range(3)]
    for other in prepared:
        assert np.bincount(other.test["label"]).tolist() == [20, 20, 20]
        assert np.bincount(other.valid["label"]).tolist() == [8, 8, 8]
        assert other.train.examples == 300 - 60 - 24
        assert hold(other.test) == hold(prepared[0].test)
        assert not hold(other.train) & hold(other.test)
        assert not hold(other.train) & hold(other.valid)
        assert not hold(other.valid) & hold(other.test)
    assert hold(prepared[0].valid) != hold(prepared[1].valid)
    assert any("same for every seed" in note for note in prepared[0].notes)


def test_the_same_seed_gives_the_same_split():
    first, second = (REPRESENT.prepare(data(300), 4, labels=5, fraction=0.5) for _ in range(2))
    for name in ("train", "valid", "test"):
        for column, values in getattr(first, name).items():
            assert np.array_equal(values, getattr(second, name)[column])


def test_a_given_split_is_kept():
    part = np.repeat(np.array([0, 1, 2], np.int8), 40)
    prepared = CLASSIFY.prepare(data(120, part), 3)
    pixels, labels = noise(120)
    assert (prepared.train.examples, prepared.valid.examples, prepared.test.examples) == (40, 40, 40)
    assert np.array_equal(np.asarray(prepared.test["image"]), pixels[80:])
    assert np.array_equal(prepared.test["label"], labels[80:])


def test_duplicates_stay_on_one_side():
    pixels, labels = noise(90)
    images = Images.from_arrays(np.concatenate([pixels, pixels, pixels]), np.tile(labels, 3))
    for seed in range(3):
        prepared = CLASSIFY.prepare(images, seed)
        parts = [hold(prepared.train), hold(prepared.valid), hold(prepared.test)]
        assert all(parts)
        assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])


def test_a_fraction_of_the_training_rows():
    full, part = (CLASSIFY.prepare(data(300), 0, fraction=share) for share in (1.0, 0.25))
    assert part.facts.examples == pytest.approx(full.facts.examples / 4, abs=3)
    assert hold(part.train) < hold(full.train)
    assert hold(part.test) == hold(full.test)


# ------------------------------------------------------------------------------------------------------------ the labels


def test_ten_labels_a_class_are_revealed_and_no_more_are_used_to_choose():
    prepared = REPRESENT.prepare(data(900), 0)
    shown = prepared.train["label"]
    assert np.bincount(shown[shown >= 0]).tolist() == [10, 10, 10]
    assert np.bincount(prepared.valid["label"]).tolist() == [10, 10, 10]
    assert prepared.facts.labelled == 30
    assert prepared.facts.examples == 900 - 180 - 30
    assert REPRESENT.prepare(data(900), 0, labels="all").facts.labelled == 900 - 180 - 72
    assert CLASSIFY.prepare(data(900), 0, labels="2").facts.labelled == 6


def test_hidden_labels_reach_no_method(digits):
    prepared = REPRESENT.prepare(digits, 0)
    objective, supervised = _model("untrained", prepared), _model("resnet", prepared)
    everything, few = REPRESENT.training(objective, prepared), REPRESENT.training(supervised, prepared)
    assert set(everything) == set(few) == {"image", "label"}
    assert everything.examples == prepared.train.examples
    assert (everything["label"] >= 0).sum() == few.examples == prepared.facts.labelled == 100
    assert (few["label"] >= 0).all()


def test_partly_unlabelled_images_are_learned_from_and_not_judged_on():
    _, labels = noise(120)
    labels[::2] = -1
    prepared = REPRESENT.prepare(data(120, labels=labels), 0, labels=5)
    assert (prepared.test["label"] >= 0).all()
    assert (prepared.valid["label"] >= 0).all()
    assert (prepared.train["label"] < 0).sum() >= 60
    part = np.repeat(np.array([0, 2], np.int8), 60)
    assert CLASSIFY.prepare(data(120, part, labels=labels), 0).test.examples == 30


def test_a_test_folder_without_labels_is_not_used_for_the_test():
    _, labels = noise(120)
    labels[60:] = -1
    part = np.repeat(np.array([0, 2], np.int8), 60)
    prepared = CLASSIFY.prepare(data(120, part, labels=labels), 0)
    assert prepared.test.examples == 12
    assert (prepared.test["label"] >= 0).all()


def test_without_labels_one_can_learn_and_not_be_judged():
    images = data(40, labels=np.full(40, -1))
    assert not CLASSIFY.supports(images.look())
    assert REPRESENT.supports(images.look())
    prepared = REPRESENT.prepare(images, 0)
    assert (prepared.train.examples, prepared.valid.examples, prepared.test.examples) == (40, 0, 0)
    model = _model("untrained", prepared)
    assert REPRESENT.finish(model, prepared, 0) == {}
    assert REPRESENT.embed(model, prepared.train).shape == (40, model.encoder.width)
    with pytest.raises(Declined, match="without labels"):
        REPRESENT.outputs(model, {}, prepared.train)
    with pytest.raises(Declined, match="learns from labels, and there are none"):
        _model("resnet", prepared)
    with pytest.raises(DataError, match="no labels"):
        CLASSIFY.prepare(images, 0)


@pytest.mark.parametrize("task", [CLASSIFY, REPRESENT])
def test_one_class_is_refused(task):
    images = data(40, labels=np.zeros(40, int))
    assert "same class" in task.supports(images.look()).why
    with pytest.raises(DataError, match="same class"):
        task.prepare(images, 0)


def test_too_few_images_are_refused():
    with pytest.raises(DataError, match="too few labelled images"):
        CLASSIFY.prepare(data(4, classes=2), 0)


def test_a_class_with_a_single_image_is_kept():
    _, labels = noise(60, classes=2)
    labels[7] = 2
    prepared = CLASSIFY.prepare(data(60, classes=2, labels=labels), 0)
    assert prepared.facts.classes == 3
    assert (prepared.train["label"] == 2).sum() == 1


@pytest.mark.parametrize(
    "options",
    [
        {"labels": 0},
        {"labels": "some"},
        {"labels": -3},
        {"fraction": 0},
        {"fraction": 1.5},
        {"size": 2},
        {"size": "big"},
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(PapertrialError, match=next(iter(options))):
        CLASSIFY.prepare(data(60), 0, **options)


def test_tables_are_refused():
    assert "images" in CLASSIFY.supports(Look("wine", "table")).why


# ------------------------------------------------------------------------------------------------------------ the columns


def test_facts_and_state(digits):
    prepared = CLASSIFY.prepare(digits, 0)
    facts, state = prepared.facts, prepared.state
    assert (facts.channels, facts.height, facts.width, facts.classes, facts.outputs) == (1, 8, 8, 10, 10)
    pixels = np.asarray(prepared.train["image"]) / 255
    assert state["mean"] == pytest.approx([pixels.mean()], rel=1e-5)
    assert state["std"] == pytest.approx([pixels.std()], rel=1e-5)
    assert CLASSIFY.primary_for(state) == ("accuracy", True)
    assert CLASSIFY.prepare(digits, 0, size=(16, 12)).facts.height == 16
    assert CLASSIFY.prepare(digits, 0, size=12).train["image"].shape[1:] == (12, 12, 1)


def test_new_images_become_the_columns_of_the_model():
    state = CLASSIFY.prepare(data(120, channels=3), 0).state
    grey, labels = noise(10, channels=1, side=20)
    names = ["2", "unheard of", "0"]
    split = CLASSIFY.encode(state, Images.from_arrays(grey, [names[label] for label in labels]))
    assert split["image"].shape == (10, 8, 8, 3)
    assert split["image"].dtype == np.uint8
    expected = np.array([2, -1, 0])[labels]
    assert np.array_equal(split["label"], expected)
    assert set(CLASSIFY.encode(state, Images.from_arrays(grey))) == {"image"}
    with pytest.raises(DataError, match="channels"):
        CLASSIFY.encode(state, Images.from_arrays(noise(4, channels=4)[0]))


def test_images_of_floats_are_brought_to_the_unit_range():
    pixels, labels = noise(120, dtype=np.float32)
    images = Images.from_arrays(pixels * 50 - 20, labels)
    prepared = CLASSIFY.prepare(images, 0)
    train = np.asarray(prepared.train["image"])
    assert train.dtype == np.float32
    assert train.min() == pytest.approx(0, abs=1e-6)
    assert train.max() == pytest.approx(1, abs=1e-6)
    again = CLASSIFY.encode(prepared.state, images)
    assert hold(prepared.test) <= hold(again)


def test_bytes_and_floats_of_the_same_images_agree():
    pixels, labels = noise(120)
    trained_on_bytes = CLASSIFY.prepare(Images.from_arrays(pixels, labels), 0).state
    floats = CLASSIFY.encode(trained_on_bytes, Images.from_arrays(pixels / np.float32(255), labels))
    np.testing.assert_allclose(floats["image"], pixels / 255, atol=1e-6)


def test_images_of_one_colour_do_not_divide_by_zero():
    shades = np.arange(60, dtype=np.uint8)[:, None, None, None]
    prepared = CLASSIFY.prepare(Images.from_arrays(np.broadcast_to(4 * shades, (60, 8, 8, 1)), np.arange(60) % 2), 0)
    assert np.isfinite(CLASSIFY.outputs(_model("resnet", prepared), {}, prepared.test)).all()


# ------------------------------------------------------------------------------------------------------------- the models


def _model(name, prepared, recipe="tiny", task=CLASSIFY):
    torch.manual_seed(0)
    method, resnet = registry.method(name), registry.method("resnet")
    config, _ = resolve(method.module.Config, prepared.facts, {"recipe": method.module.recipes[recipe].config})
    small, _ = resolve(resnet.module.Config, prepared.facts, {"recipe": resnet.module.recipes["tiny"].config})
    backbone = resnet.module.build(small, prepared.facts) if method.paper.kind == "objective" else None
    return task.build(method, config, Optim(), prepared, backbone)


def test_supervised_models_share_one_augmentation():
    rows = {"image": torch.rand(64, 3, 24, 24), "label": torch.zeros(64, dtype=torch.int64)}
    for channels, flips in ((1, False), (3, True), (4, False)):
        prepared = CLASSIFY.prepare(data(60, channels=channels), 0)
        for name in ("resnet", "vit", "mlp_mixer"):
            assert _model(name, prepared).flips is flips
    model = _model("resnet", CLASSIFY.prepare(data(60, channels=3), 0))
    changed = model.views(rows, Draw(0, 0, 64))
    assert torch.equal(changed["label"], rows["label"])
    moved = (changed["image"] - rows["image"]).flatten(1).abs().sum(1) > 0
    assert int(moved.sum()) > 40
    torch.testing.assert_close(changed["image"].sort(-1).values.shape, rows["image"].shape)


def test_a_method_for_other_data_is_declined(digits):
    prepared = CLASSIFY.prepare(digits, 0)
    method = SimpleNamespace(id="rtdl", paper=SimpleNamespace(kind="architecture", tasks=("tabular",)), module=None)
    with pytest.raises(Declined, match="rtdl is not made for the task image_classification"):
        CLASSIFY.build(method, None, Optim(), prepared)
    method.paper = SimpleNamespace(kind="technique", tasks=("image_classification",))
    with pytest.raises(Declined, match="kind technique"):
        CLASSIFY.build(method, None, Optim(), prepared)
    with pytest.raises(Declined, match="trains a backbone"):
        CLASSIFY.build(registry.method("barlow_twins"), None, Optim(), prepared)


def test_an_objective_is_judged_by_a_probe(digits):
    prepared = REPRESENT.prepare(digits, 0)
    model = _model("untrained", prepared, task=REPRESENT).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    head = REPRESENT.finish(model, prepared, 0)
    outputs = REPRESENT.outputs(model, head, prepared.test)
    assert outputs.shape == (prepared.test.examples, 10)
    np.testing.assert_allclose(outputs.sum(1), 1)
    scores = REPRESENT.score(outputs, prepared.test, prepared.state)
    assert scores.metrics["accuracy"] > 0.3
    assert scores.per_example.mean() == pytest.approx(scores.metrics["accuracy"])
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    extra = REPRESENT.extra_scores(model, prepared, 0)
    assert set(extra) == {"knn", "probe_10_per_class", "probe_1%", "probe_10%", "probe_100%"}
    assert extra["probe_100%"] > extra["probe_1%"]
    assert CLASSIFY.extra_scores(model, prepared, 0) == {}
    answers = REPRESENT.answers(outputs, prepared.state)
    assert answers["prediction"][0] == str(outputs[0].argmax())
    assert np.array_equal(answers["p(3)"], outputs[:, 3])


def test_a_supervised_model_answers_with_its_own_head(digits):
    prepared = CLASSIFY.prepare(digits, 0)
    model = _model("mlp_mixer", prepared)
    assert CLASSIFY.finish(model, prepared, 0) == {}
    outputs = CLASSIFY.outputs(model, {}, prepared.test)
    image = torch.from_numpy(np.asarray(prepared.test["image"])).permute(0, 3, 1, 2) / 255
    expected = torch.softmax(model.eval()(image).double(), 1).detach().numpy()
    np.testing.assert_allclose(outputs, expected, atol=1e-6)


def test_features_that_are_not_finite_are_reported(digits):
    prepared = REPRESENT.prepare(digits, 0)
    model = _model("untrained", prepared)
    with torch.no_grad():
        next(model.encoder.parameters()).fill_(float("nan"))
    with pytest.raises(PapertrialError, match="not all finite"):
        REPRESENT.finish(model, prepared, 0)


# -------------------------------------------------------------------------------------------------------------- the probe


@pytest.mark.parametrize("classes", [2, 4])
def test_the_probe_is_scikit_learns(classes):
    rng = np.random.default_rng(0)
    labels = np.arange(200) % classes
    features = (rng.normal(size=(200, 6)) * [1, 10, 1e3, 1e-3, 1, 1] + 5 * labels[:, None]).astype(np.float32)
    scaled = (features - features.mean(0, dtype=float)) / features.std(0, dtype=float)
    expected = LogisticRegression(max_iter=300).fit(scaled, labels).predict_proba(scaled)
    np.testing.assert_allclose(probe_outputs(fit_probe(features, labels, classes), features), expected, atol=1e-4)


@pytest.mark.parametrize("present", [[1], [0, 2], [0, 1, 3]], ids=str)
def test_a_class_without_examples_is_never_answered(present):
    rng = np.random.default_rng(0)
    labels = np.array(present)[np.arange(30) % len(present)]
    outputs = probe_outputs(fit_probe(rng.normal(size=(30, 4)).astype(np.float32), labels, 4), rng.normal(size=(9, 4)))
    absent = [index for index in range(4) if index not in present]
    assert outputs[:, absent].max() < 1e-20
    np.testing.assert_allclose(outputs.sum(1), 1)


def test_constant_features_are_no_reason_to_fail():
    features = np.column_stack([np.full(40, 7.3), np.full(40, 1e8), np.arange(40) % 2]).astype(np.float32)
    outputs = probe_outputs(fit_probe(features, np.arange(40) % 2, 2), features)
    assert (outputs.argmax(1) == np.arange(40) % 2).all()


@pytest.mark.parametrize("k", [1, 5, 500])
def test_nearest_neighbours_are_scikit_learns(k, monkeypatch):
    monkeypatch.setattr(_probe, "_CHUNK", 7)
    rng = np.random.default_rng(0)
    bank, queries, labels = rng.normal(size=(60, 8)), rng.normal(size=(23, 8)), np.arange(60) % 3
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (bank, queries)]
    theirs = KNeighborsClassifier(min(k, 60), weights=lambda distance: np.exp((1 - distance**2 / 2) / 0.07)).fit(
        unit[0], labels
    )
    votes = nearest(bank * 100, labels, queries, 3, k=k)
    np.testing.assert_allclose(votes / votes.sum(1, keepdims=True), theirs.predict_proba(unit[1]), atol=1e-4)


def test_rows_read_like_an_array():
    array = np.arange(20).reshape(10, 2)
    rows = _images.Rows(array, np.array([7, 1, 3]))
    assert rows.shape == (3, 2)
    assert np.array_equal(np.asarray(rows), array[[7, 1, 3]])
    assert np.array_equal(rows[1:], array[[1, 3]])
    assert np.array_equal(Split({"image": rows}).take(np.array([2]))["image"], array[[3]])
    assert np.array_equal(rows[:1], array[[7]])
