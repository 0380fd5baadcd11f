"""What measures drawn pictures against independent formulas, and the task: split, scores, what it declines."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg

from papertrial.core import registry
from papertrial.core.errors import DataError, Declined, PapertrialError
from papertrial.data import open as open_data
from papertrial.data.images import Images
from papertrial.tasks import _image_quality
from papertrial.tasks._image_quality import Drawn, Measures, draw, frechet, grid, parts, precision_recall, shown
from papertrial.tasks.image_generation import TASK
from papertrial.use.choose import choose_task, prepare


@pytest.fixture(autouse=True)
def _short_training(monkeypatch):
    """Bars are learned in few steps."""
    monkeypatch.setattr(_image_quality, "STEPS", 60)


def cloud(rows, width, seed=0, scale=1.0, shift=0.0):
    draw = np.random.default_rng(seed)
    mixing = draw.standard_normal((width, width)) / np.sqrt(width)
    return scale * draw.standard_normal((rows, width)) @ mixing + shift + draw.standard_normal(width)


def textbook(drawn, real):
    """Heusel et al., eq. 6, with a general matrix square root."""
    gap = drawn.mean(0) - real.mean(0)
    ours, theirs = np.cov(drawn.T), np.cov(real.T)
    root = linalg.sqrtm(ours @ theirs)
    return gap @ gap + np.trace(ours + theirs - 2 * np.real(root))


# ----------------------------------------------------------------------------------------------------- the distance


@pytest.mark.parametrize(("scale", "shift"), [(1, 0), (1e-3, 0), (1, 1e3), (1e3, -50)])
def test_distance_is_that_of_the_textbook(scale, shift):
    drawn, real = cloud(60, 7, 1, scale, shift), cloud(90, 7, 2, scale, shift)
    assert frechet(drawn, real).value == pytest.approx(textbook(drawn, real), rel=1e-8)


@given(st.integers(2, 40), st.integers(2, 40), st.integers(1, 9), st.integers(0, 99))
def test_distance_of_few_rows_and_of_swapped_sides(rows, others, width, seed):
    """Covariances without full rank: equal to the sum of both variances less twice the nuclear norm."""
    drawn, real = cloud(rows, width, seed), cloud(others, width, seed + 1)
    found = frechet(drawn, real)
    centred = [(side - side.mean(0)) / np.sqrt(len(side) - 1) for side in (drawn, real)]
    both = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    gap = drawn.mean(0) - real.mean(0)
    wanted = gap @ gap + sum((side**2).sum() for side in centred) - 2 * both
    assert found.value == pytest.approx(wanted, rel=1e-6, abs=1e-9)
    assert frechet(real, drawn).value == pytest.approx(found.value, rel=1e-9, abs=1e-9)
    for influence in (found.of_drawn, found.of_real):
        assert abs(influence.mean()) < 1e-9 * (1 + np.abs(influence).max())


@pytest.mark.parametrize("awkward", ["plain", "constant", "twice", "one feature"])
def test_equal_sides_have_no_distance(awkward):
    same = cloud(30, 5)
    same[:, 2] = 4.0 if awkward == "constant" else same[:, 2]
    same = np.concatenate([same, same]) if awkward == "twice" else same
    same = same[:, :1] if awkward == "one feature" else same
    found = frechet(same, same)
    assert found.value == pytest.approx(0, abs=1e-10)
    assert np.abs(found.of_real).max() < 1e-7 and np.abs(found.of_drawn).max() < 1e-7
    assert all(hits.all() for hits in precision_recall(same, same))


def weighted(drawn, real, weight):
    """The distance where the rows of `real` count as `weight` says (they add up to 1), with covariances that divide by N."""
    mean = weight @ real
    theirs = (real - mean).T @ (weight[:, None] * (real - mean))
    gap, ours = drawn.mean(0) - mean, np.cov(drawn.T)
    return gap @ gap + np.trace(ours + theirs - 2 * np.real(linalg.sqrtm(ours @ theirs)))


def test_influence_is_the_slope_towards_each_row():
    """Finite differences in the weight of each row; N - 1 in place of N is a change of one in N."""
    drawn, real = cloud(200, 4, 1), cloud(4000, 4, 2)
    found, even = frechet(drawn, real), np.full(len(real), 1 / len(real))
    for row in range(0, len(real), 400):
        towards = np.zeros(len(real))
        towards[row] = 1
        step = 1e-5
        ends = [weighted(drawn, real, even + side * (towards - even)) for side in (step, -step)]
        assert found.of_real[row] == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=2e-3, abs=2e-3)


@pytest.mark.parametrize("side", ["drawn", "real"])
def test_influence_against_leaving_rows_out(side):
    """-(N - 1) times what a missing row changes, to first order."""
    drawn, real = cloud(700, 3, 1), cloud(900, 3, 2)
    found = frechet(drawn, real)
    held, influence = (drawn, found.of_drawn) if side == "drawn" else (real, found.of_real)
    rows = np.arange(0, len(held), 50)
    left = []
    for row in rows:
        less = np.delete(held, row, 0)
        left.append(textbook(less, real) if side == "drawn" else textbook(drawn, less))
    jackknife = -(len(held) - 1) * (np.array(left) - found.value)
    assert np.corrcoef(jackknife, influence[rows])[0, 1] > 0.999
    assert np.abs(jackknife - influence[rows]).max() < 0.03 * np.abs(influence).max()


def test_interval_is_that_of_many_data_sets():
    """The standard error from influences against the spread of the distance over fresh rows."""
    rng = np.random.default_rng(0)

    def sample():
        return rng.standard_normal((400, 3)) * [1, 2, 0.5], rng.standard_normal((300, 3)) + 0.5

    pairs = [sample() for _ in range(150)]
    found = [frechet(drawn, real) for drawn, real in pairs]
    said = [np.sqrt(one.of_drawn.var() / 400 + one.of_real.var() / 300) for one in found]
    assert np.std([one.value for one in found]) == pytest.approx(np.mean(said), rel=0.2)


@pytest.mark.parametrize("bad", [np.zeros((1, 3)), np.full((5, 3), np.nan)])
def test_distance_refuses(bad):
    with pytest.raises(ValueError, match="two rows or more"):
        frechet(bad, cloud(9, 3))
    with pytest.raises(ValueError, match="3 neighbours"):
        precision_recall(cloud(9, 3), cloud(3, 3))


@given(st.integers(4, 25), st.integers(4, 25), st.integers(0, 99), st.sampled_from([0.0, 1e6]))
def test_precision_and_recall_by_brute_force(rows, others, seed, shift):
    rng = np.random.default_rng(seed)
    drawn, real = (
        rng.integers(0, 4, (rows, 2)) + shift,
        rng.integers(0, 4, (others, 2)) + shift,
    )  # many ties and repeats

    def covered(points, by):
        inside = []
        for point in points:
            hit = False
            for row, centre in enumerate(by):
                others = sorted(np.linalg.norm(np.delete(by, row, 0) - centre, axis=1))
                hit = hit or np.linalg.norm(point - centre) <= others[2]
            inside.append(hit)
        return inside

    looks_real, is_covered = precision_recall(drawn, real)
    assert looks_real.tolist() == covered(drawn, real) and is_covered.tolist() == covered(real, drawn)


def test_precision_falls_with_noise_and_recall_with_copies():
    real, like = cloud(300, 3, 1), cloud(300, 3, 1)[::-1] + 0.01
    assert all(hits.mean() > 0.9 for hits in precision_recall(like, real))
    copies = np.repeat(real[:5], 60, 0) + 1e-6 * np.arange(300)[:, None]
    looks_real, is_covered = precision_recall(copies, real)
    assert looks_real.all() and is_covered.mean() < 0.1
    assert precision_recall(real + 100, real)[0].mean() == 0


# ----------------------------------------------------------------------------------------------------- the networks


def shapes(count, seed=0, height=9, width=12):
    """Bright bars, lying or standing, in colour: classes that a small network learns."""
    rng = np.random.default_rng(seed)
    pictures, label = rng.integers(0, 60, (count, height, width, 3), dtype=np.uint8), np.arange(count) % 2
    for picture, kind in zip(pictures, label, strict=True):
        place = rng.integers(1, 7)
        picture[(place, slice(None)) if kind else (slice(None), place)] = rng.integers(150, 256, 3)
    return pictures, label


def test_measures_are_trained_once_and_read_back(tmp_path, monkeypatch):
    monkeypatch.setenv("PAPERTRIAL_CACHE", str(tmp_path))
    monkeypatch.setattr(_image_quality, "_HELD", {})
    pictures, label = shapes(240)
    before = torch.get_rng_state()
    made = Measures.of(pictures, label, "bars")
    assert torch.equal(torch.get_rng_state(), before)  # what trains a method is not disturbed
    fresh, truth = shapes(100, seed=1)
    assert (made.judge.classes(fresh) == truth).mean() > 0.95
    features = made.space.features(fresh)
    assert features.shape == (100, 64) and features.dtype == np.float64
    assert made.space.features(pictures).var(0) == pytest.approx(1, abs=0.05)
    assert not np.array_equal(made.space.eye.head.weight, made.judge.eye.head.weight)  # two networks

    _image_quality._HELD.clear()
    again = Measures.find("bars")
    assert np.array_equal(again.space.features(fresh), features)
    assert np.array_equal(again.judge.classes(fresh), made.judge.classes(fresh))
    again.write(tmp_path / "elsewhere.safetensors")
    for file in tmp_path.glob("measures-*"):
        file.write_bytes(b"damaged")
    _image_quality._HELD.clear()
    with pytest.raises(PapertrialError, match="not here any more"):
        Measures.find("bars")
    assert np.array_equal(Measures.find("bars", tmp_path / "elsewhere.safetensors").space.features(fresh), features)
    _image_quality._HELD.clear()
    assert np.array_equal(Measures.of(pictures, label, "bars").space.features(fresh), features)  # the same training


@pytest.mark.parametrize("label", [np.full(60, -1), np.arange(60), np.zeros(60, np.int64)])
def test_without_labels_enough_the_convolutions_are_random(label):
    pictures, _ = shapes(60)
    made = Measures.of(pictures, label, f"few-{label[1]}")
    assert made.judge is None and made.space.words == "features of random convolutions"
    near, far = np.clip(pictures.astype(int) + 2, 0, 255).astype(np.uint8), 255 - pictures
    own = made.space.features(pictures)
    assert frechet(made.space.features(near), own).value < frechet(made.space.features(far), own).value


@pytest.mark.parametrize("shape", [(4, 4, 1), (8, 8, 1), (5, 30, 3), (64, 64, 3), (100, 40, 1)])
def test_networks_take_any_size(shape):
    pictures = np.random.default_rng(0).integers(0, 256, (30, *shape), dtype=np.uint8)
    assert Measures.of(pictures, np.full(30, -1), f"size-{shape}").space.features(pictures).shape == (30, 64)


def test_a_cache_that_cannot_be_written_costs_no_run(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PAPERTRIAL_CACHE", str(tmp_path / "file"))
    pictures, _ = shapes(40)
    made = Measures.of(pictures, np.full(40, -1), "nowhere")
    assert Measures.find("nowhere") is made


# --------------------------------------------------------------------------------------------------------- the task


def images(count=200, labelled=True, seed=0, **more):
    pictures, label = shapes(count, seed)
    return Images.from_arrays(pictures, np.array(["down", "up"])[label] if labelled else None, **more)


def test_test_rows_and_measures_are_the_same_for_every_seed():
    held = [TASK.prepare(images(), seed, fraction=fraction) for seed, fraction in ((0, 1.0), (1, 1.0), (1, 0.2))]
    tests = [np.asarray(prepared.test["image"]) for prepared in held]
    assert np.array_equal(tests[0], tests[1]) and np.array_equal(tests[0], tests[2])
    assert len({prepared.state["measures"] for prepared in held}) == 1
    assert [prepared.train.examples for prepared in held] == [144, 144, 29]
    valid = [np.asarray(prepared.valid["image"]) for prepared in held]
    assert not np.array_equal(valid[0], valid[1]) and len(valid[0]) == 16
    assert held[0].facts.classes == 2 and held[0].facts.labelled == 144
    assert "measured in features of a small classifier of this data" in held[0].notes


@given(st.integers(20, 300), st.integers(0, 50), st.sampled_from([0.1, 0.5, 1.0]), st.booleans())
def test_parts_share_no_duplicate(count, seed, fraction, given_test):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, count, count)
    part = np.where(groups % 5 == 0, 2, 0) if given_test else np.zeros(count, int)
    train, valid, test, known = parts(part, groups, seed, fraction, [])
    for one, other in ((train, test), (valid, test), (train, valid), (known, test)):
        assert not set(groups[one]) & set(groups[other])
    assert set(train) | set(valid) <= set(known) and len(train) >= 1


def test_many_test_rows_are_cut_evenly():
    part = np.repeat([0, 2], 5000)
    train, valid, test, known = parts(part, np.arange(10_000), 0, 1.0, notes := [])
    assert len(test) == 2000 and np.ptp(np.diff(test)) <= 1 and len(valid) == 500
    assert len(train) + len(valid) == len(known) == 5000 and "judged on 2,000" in notes[-1]


def test_unlabelled_images_and_those_of_one_class():
    prepared = TASK.prepare(images(labelled=False))
    assert prepared.test.examples == 40 and prepared.facts.classes == 0
    assert "measured in features of random convolutions" in prepared.notes
    one = Images.from_arrays(shapes(40)[0], ["cat"] * 40)
    assert TASK.prepare(one).facts.classes == 0


def test_floats_are_brought_to_bytes():
    pictures, label = shapes(100)
    prepared = TASK.prepare(Images.from_arrays(pictures.astype(np.float32) / 25.5 - 3, label))
    assert prepared.train["image"].dtype == np.uint8 and np.asarray(prepared.test["image"]).max() > 200
    new = TASK.encode(prepared.state, Images.from_arrays(pictures[:5].astype(np.float32) / 25.5 - 3))
    assert new["image"].dtype == np.uint8 and new["label"].tolist() == [-1] * 5


def test_which_task_the_data_get_has_not_changed():
    assert choose_task(images()).name == "image_classification"
    assert choose_task(images(labelled=False)).name == "image_representation"
    assert choose_task(images(labelled=False), "image_generation") is TASK


def test_what_it_declines():
    assert "takes 20 or more" in TASK.supports(images(19, labelled=False).look()).why
    assert "it takes images" in TASK.supports(open_data("wine").look()).why
    with pytest.raises(DataError, match="takes 20 or more"):
        TASK.prepare(images(10))
    for options in ({"fraction": 0}, {"size": 2}):
        with pytest.raises(PapertrialError):
            TASK.prepare(images(), **options)
    prepared = TASK.prepare(images())
    with pytest.raises(Declined, match="not made for the task"):
        TASK.build(registry.method("resnet"), None, None, prepared)
    with pytest.raises(Declined, match="no answer for each"):
        TASK.answers(np.zeros(0), {})


class Copies:
    """Draws the training rows in order, of the class that is asked for; some upside down."""

    def __init__(self, split, draws=("labels",), every=0):
        self.split, self.draws, self.every = split, frozenset(draws), every

    def draw(self, seeds, *, labels=None):
        image, label = np.asarray(self.split["image"]), np.asarray(self.split["label"])
        rows = [
            seed if labels is None else np.flatnonzero(label == labels[place])[seed] for place, seed in enumerate(seeds)
        ]
        pictures = torch.from_numpy(image[rows]).permute(0, 3, 1, 2)
        for place, seed in enumerate(seeds):
            if self.every and seed % self.every == 0:
                pictures[place] = 255 - pictures[place]
        return pictures


def test_scores_of_copies_and_of_worse():
    prepared = prepare(TASK, images(400), 0)
    scores = {}
    for every in (0, 8, 2):
        model = Copies(prepared.train, every=every)
        outputs = TASK.outputs(model, {}, prepared.test)
        assert outputs.dtype == np.uint8 and outputs.shape == prepared.test["image"].shape
        scores[every] = TASK.score(outputs, prepared.test, prepared.state)
    distance = [scores[every].metrics["frechet"] for every in (0, 8, 2)]
    assert distance == sorted(distance) and distance[2] > 2 * distance[0]
    best = scores[0]
    assert best.metrics["class_accuracy"] > 0.95 and best.per_example.mean() == pytest.approx(distance[0])
    assert len(best.per_example) == prepared.test.examples
    low, high = best.intervals["frechet"]
    assert 0 <= low < distance[0] < high
    real = TASK.extra_scores(None, prepared, 0)
    assert set(real) == {"real_frechet", "real_precision", "real_recall", "real_class_accuracy"}
    assert real["real_frechet"] < distance[1] and real["real_class_accuracy"] > 0.95


def test_no_class_was_asked_of_a_generator_without_classes():
    prepared = prepare(TASK, images(), 0)
    outputs = TASK.outputs(Copies(prepared.train, draws=()), {}, prepared.test)
    assert outputs.asked is None
    assert "class_accuracy" not in TASK.score(outputs, prepared.test, prepared.state).metrics
    with pytest.raises(DataError, match="takes 4 or more"):
        TASK.score(outputs[:3], prepared.test.take(slice(0, 3)), prepared.state)


@pytest.mark.parametrize("bad", [torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, dtype=torch.uint8)])
def test_what_a_generator_must_not_give(bad):
    class Wrong:
        def draw(self, seeds):
            return bad

    with pytest.raises(ValueError, match="draw gave"):
        draw(Wrong(), [1, 2])


def test_sheets_have_a_row_for_each_class():
    label = np.array([1] * 20 + [0] * 6 + [2] * 2 + [-1] * 9)
    rows, across = shown(label)
    assert across == 6 and label[rows].tolist() == [0] * 6 + [1] * 6
    rows, across = shown(np.full(100, -1))
    assert across == 8 and rows.tolist() == list(range(64))
    pictures = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((2, 3, 1), np.uint8)
    sheet = grid(pictures, 3)
    assert sheet.shape == (7, 13, 1) and sheet[0].min() == 255
    assert sheet[4, 1, 0] == 3 and sheet[4, 5, 0] == 4 and sheet[4, 9, 0] == 255
    assert Drawn.of(pictures).asked is None
