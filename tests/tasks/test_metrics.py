"""Metrics against scikit-learn, their influence against what leaving an example out does, floors, and intervals over groups."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as sk

from papertrial.core.errors import DataError, PapertrialError
from papertrial.core.stats import by_group
from papertrial.core.task import Ragged
from papertrial.tasks import _influence
from papertrial.tasks._metrics import (
    METRICS,
    classification_scores,
    far_from_ceiling,
    metric_named,
    ranking_scores,
    rarest,
    ratio_scores,
    regression_scores,
    spearman_scores,
    text_scores,
    wilson,
    wilson_of,
)

NAMES = ["a", "b", "c"]
OF_CLASSES = [name for name, metric in METRICS.items() if metric.of == "classes"]
OF_VALUES = [name for name, metric in METRICS.items() if metric.of == "values"]


def answers(rows: int, shares: tuple[float, ...], seed: int = 0, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    labels = draw.choice(len(shares), rows, p=np.array(shares))
    found = draw.dirichlet(np.ones(len(shares)), rows) + 0.6 * np.eye(len(shares))[labels]
    if ties:
        found = np.round(found * 5) + 0.5
    return found / found.sum(axis=1, keepdims=True), labels


def scores(probabilities: np.ndarray, labels: np.ndarray, metric: str = "accuracy", **options: object):
    return classification_scores(probabilities, labels, NAMES[: probabilities.shape[1]], metric, **options)


@pytest.mark.parametrize("shares", [(0.93, 0.07), (0.5, 0.5), (0.6, 0.34, 0.06)])
@pytest.mark.parametrize("ties", [False, True])
def test_metrics_of_classes_are_scikit_learns(shares, ties):
    probabilities, labels = answers(600, shares, ties=ties)
    found = scores(probabilities, labels, "f1").metrics
    said, rare = probabilities.argmax(axis=1), rarest(labels)
    true, of_rare = labels == rare, probabilities[:, rare]
    assert found["macro_f1"] == pytest.approx(sk.f1_score(labels, said, average="macro"), abs=1e-12)
    assert found["f1"] == pytest.approx(sk.f1_score(true, said == rare), abs=1e-12)
    assert found["brier"] == pytest.approx(sk.brier_score_loss(labels, probabilities), abs=1e-12)
    target, asked = (true, of_rare) if len(shares) == 2 else (np.eye(3)[labels], probabilities)
    assert found["average_precision"] == pytest.approx(sk.average_precision_score(target, asked), abs=1e-12)
    assert found["auc"] == pytest.approx(sk.roc_auc_score(target, asked), abs=1e-12)
    precision, recall, _ = sk.precision_recall_curve(true, of_rare)
    for level in (0.5, 0.9):
        name = f"recall@precision={level}"
        # scikit-learn adds a last point of precision 1 and recall 0, which no threshold has
        expected = recall[:-1][precision[:-1] >= level].max(initial=0.0)
        assert scores(probabilities, labels, name).metrics[name] == pytest.approx(expected, abs=1e-12)
        name = f"precision@recall={level}"
        expected = precision[recall >= level - 1e-12].max()
        assert scores(probabilities, labels, name).metrics[name] == pytest.approx(expected, abs=1e-12)


def test_metrics_of_values_are_scikit_learns():
    draw = np.random.default_rng(1)
    targets = draw.gamma(2.0, size=401)
    values = targets + draw.standard_t(4, 401)
    found = regression_scores(values, targets, "quantile_loss=0.8").metrics
    assert found["quantile_loss=0.8"] == pytest.approx(sk.mean_pinball_loss(targets, values, alpha=0.8))
    assert found["median_absolute_error"] == pytest.approx(sk.median_absolute_error(targets, values))
    assert found["rmse"] == pytest.approx(sk.root_mean_squared_error(targets, values))
    assert found["r2"] == pytest.approx(sk.r2_score(targets, values))


SMOOTH = ["accuracy", "balanced_accuracy", "macro_f1", "f1", "auc", "average_precision", "log_loss", "brier"]


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("shares", [(0.7, 0.3), (0.5, 0.3, 0.2)])
def test_influence_is_what_leaving_an_example_out_does(name, shares):
    probabilities, labels = answers(300, shares, seed=2)
    found = scores(probabilities, labels, name)
    value, influence = found.metrics[name], found.per_example - found.metrics[name]
    assert influence.mean() == pytest.approx(0, abs=1e-12)
    rest = [np.delete(np.arange(300), row) for row in range(0, 300, 5)]
    moved = [299 * (value - scores(probabilities[rows], labels[rows], name).metrics[name]) for rows in rest]
    np.testing.assert_allclose(influence[::5], moved, atol=0.03 * np.ptp(moved))


@pytest.mark.parametrize("name", ["rmse", "mae", "r2", "quantile_loss=0.9"])
def test_influence_on_values_is_what_leaving_an_example_out_does(name):
    draw = np.random.default_rng(3)
    targets = draw.standard_normal(300)
    values = 0.8 * targets + 0.5 * draw.standard_normal(300)
    found = regression_scores(values, targets, name)
    assert found.per_example.mean() == pytest.approx(found.metrics[name])
    rest = [np.delete(np.arange(300), row) for row in range(300)]
    moved = [
        299 * (found.metrics[name] - regression_scores(values[rows], targets[rows], name).metrics[name])
        for rows in rest
    ]
    np.testing.assert_allclose(found.per_example - found.metrics[name], moved, atol=0.03 * np.ptp(moved))


@pytest.mark.parametrize(
    ("measure", "rare", "shift"),
    [
        (_influence.recall_at(0.7), 0.1, 2.0),
        (_influence.recall_at(0.5), 0.3, 1.0),
        (_influence.precision_at(0.9), 0.1, 2.0),
        (_influence.precision_at(0.5), 0.3, 1.0),
    ],
)
def test_influence_through_a_threshold_has_the_spread_that_data_drawn_anew_have(measure, rare, shift):
    draw = np.random.default_rng(4)
    values, errors = [], []
    for _ in range(400):
        true = draw.random(2000) < rare
        value, influence = measure(draw.standard_normal(2000) + shift * true, true)
        values.append(value)
        errors.append(influence.std() / np.sqrt(2000))
        assert influence.mean() == pytest.approx(0, abs=1e-9)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(values), rel=0.2)


def test_influence_on_a_median_has_the_spread_that_data_drawn_anew_have():
    draw = np.random.default_rng(5)
    found = [_influence.median_absolute_error(draw.standard_t(2.5, 500), np.zeros(500)) for _ in range(400)]
    errors = [influence.std() / np.sqrt(500) for _, influence in found]
    assert np.mean(errors) == pytest.approx(np.std([value for value, _ in found]), rel=0.12)


@pytest.mark.parametrize("shares", [(0.95, 0.05), (0.5, 0.5), (0.6, 0.3, 0.1)])
@pytest.mark.parametrize("name", OF_CLASSES)
def test_no_answer_that_does_not_look_beats_the_floor_and_one_reaches_it(name, shares):
    _, labels = answers(400, shares, seed=6)
    counts = np.bincount(labels, minlength=len(shares))
    chances = [counts / len(labels), *np.eye(len(shares))]
    found = [scores(np.tile(chance, (len(labels), 1)), labels, name) for chance in chances]
    known = metric_named(name)
    floor = found[0].floors[known.name]
    best = (max if known.higher else min)(one.metrics[known.name] for one in found)
    assert best == pytest.approx(floor, abs=1e-9)
    perfect = scores(np.eye(len(shares))[labels], labels, name).metrics[known.name]
    assert perfect == pytest.approx(known.ceiling, abs=1e-9)


@pytest.mark.parametrize("name", OF_VALUES)
def test_no_constant_beats_the_floor_and_one_reaches_it(name):
    targets = np.random.default_rng(7).gamma(2.0, size=301)
    known = metric_named(name)
    constants = np.linspace(targets.min(), targets.max(), 500)
    found = [regression_scores(np.full(301, constant), targets, name).metrics[known.name] for constant in constants]
    floor = regression_scores(targets, targets, name).floors[known.name]
    assert (max if known.higher else min)(found) == pytest.approx(floor, abs=0.02)
    assert all((value - floor) * (1 if known.higher else -1) <= 1e-9 for value in found)
    assert regression_scores(targets, targets, name).metrics[known.name] == pytest.approx(known.ceiling)


@pytest.mark.parametrize("name", OF_CLASSES)
def test_copies_in_one_group_add_nothing(name):
    probabilities, labels = answers(120, (0.6, 0.4), seed=8)
    known = metric_named(name).name
    once = scores(probabilities, labels, name)
    copies = scores(np.tile(probabilities, (20, 1)), np.tile(labels, 20), name, groups=np.tile(np.arange(120), 20))
    assert copies.groups == 120
    assert copies.metrics[known] == pytest.approx(once.metrics[known])
    # the density of scores around a threshold is estimated from more rows
    close = 0.3 if "@" in name else 0.04
    width, alone = (high - low for low, high in (copies.intervals[known], once.intervals[known]))
    assert width == pytest.approx(alone, rel=close)


def test_copies_of_values_texts_rankings_sizes_and_pairs_add_nothing():
    draw = np.random.default_rng(9)
    x, y = draw.standard_normal((2, 80))
    groups, many = np.tile(np.arange(80), 10), lambda column: np.tile(column, 10)
    words = [f"word {number}" for number in draw.integers(0, 9, 80)]
    said = [f"word {number}" for number in draw.integers(0, 9, 80)]
    ranked = draw.integers(0, 2, (80, 100))
    grades = [[1, 1, 1]] * 80
    found = [
        (regression_scores(x, y), regression_scores(many(x), many(y), groups=groups)),
        (spearman_scores(x, x + y), spearman_scores(many(x), many(x + y), groups)),
        (
            ratio_scores("bits_per_byte", x**2, y**2 + 1),
            ratio_scores("bits_per_byte", many(x**2), many(y**2 + 1), groups),
        ),
        (text_scores(said, words, "chrf"), text_scores(said * 10, words * 10, "chrf", groups)),
        (
            ranking_scores(ranked, Ragged.of(grades, np.int64)),
            ranking_scores(np.tile(ranked, (10, 1)), Ragged.of(grades * 10, np.int64), groups=groups),
        ),
    ]
    for once, copies in found:
        assert copies.metrics == pytest.approx(once.metrics, abs=1e-9)
        for name, interval in once.intervals.items():
            # Wilson's with Student's factor, and a density from more rows
            close = {"exact_match": 0.005, "median_absolute_error": 0.15}.get(name, 1e-9)
            assert copies.intervals[name] == pytest.approx(interval, abs=close), name


def test_shares_over_groups():
    right = np.random.default_rng(10).random(200) < 0.8
    rows, single = wilson_of(right * 1.0), wilson_of(right * 1.0, np.arange(200))
    assert single == pytest.approx(rows, abs=0.003)
    pairs = wilson_of(np.repeat(right[:100], 2) * 1.0, np.repeat(np.arange(100), 2))
    assert pairs == pytest.approx(wilson_of(right[:100] * 1.0), abs=0.005)
    assert wilson_of(np.ones(200), np.repeat(np.arange(10), 20))[0] < 0.75  # ten right answers, not two hundred
    assert wilson_of(np.ones(5), np.zeros(5)) == (0.0, 1.0)


def test_influences_of_groups_keep_the_mean():
    draw = np.random.default_rng(11)
    d, groups = draw.standard_normal((3, 50)), draw.integers(0, 7, 50) * 10
    found = by_group(d, groups)
    assert found.shape == (3, 7)
    np.testing.assert_allclose(found.mean(axis=1), d.mean(axis=1))
    np.testing.assert_allclose(found[:, 2], 7 / 50 * d[:, groups == np.unique(groups)[2]].sum(axis=1))
    np.testing.assert_array_equal(by_group(d, None), d)
    np.testing.assert_array_equal(by_group(d, np.arange(50)[::-1])[:, ::-1], d)
    with pytest.raises(ValueError, match="groups"):
        by_group(d, np.arange(49))


def test_a_metric_is_found_by_its_name_and_its_number():
    assert metric_named("recall@precision").name == "recall@precision=0.9"
    assert metric_named(" Balanced-Accuracy ").name == "balanced_accuracy"
    assert metric_named("recall@precision=.95", "classes").at == 0.95
    for wrong, message in (
        ("acuracy", "did you mean 'accuracy'"),
        ("qqqq", "choose accuracy, balanced_accuracy"),
        ("rmse", "there is no metric 'rmse' here"),
        ("auc=0.9", "takes no number"),
        ("recall@precision=1.5", "between 0 and 1"),
        ("precision@recall=high", "between 0 and 1"),
    ):
        with pytest.raises(PapertrialError, match=message):
            metric_named(wrong, "classes")


def test_a_metric_that_the_test_rows_cannot_tell_is_refused():
    one = np.tile([0.2, 0.8], (20, 1))
    for name in ("auc", "average_precision", "f1", "recall@precision=0.9"):
        with pytest.raises(DataError, match="all test examples are of the class 'b'"):
            scores(one, np.ones(20, dtype=int), name)
    with pytest.raises(DataError, match="all targets of the test rows are equal"):
        regression_scores(np.arange(5), np.ones(5), "r2")


def test_a_rare_class_is_shown_by_itself():
    probabilities, labels = answers(500, (0.95, 0.05), seed=12)
    found = scores(probabilities, labels)
    assert {"f1", "recall@precision=0.9", "precision@recall=0.9"} <= found.metrics.keys()
    assert found.intervals.keys() == found.metrics.keys() == found.floors.keys()
    assert "f1" not in scores(*answers(500, (0.6, 0.4), seed=12)).metrics
    assert rarest(np.array([0, 0, 2, 1, 1, 2])) == 2
    turned = scores(probabilities, labels, "f1", positive=0)
    assert turned.metrics["f1"] == pytest.approx(sk.f1_score(labels, probabilities.argmax(1), pos_label=0))


@pytest.mark.parametrize(("rows", "positives"), [(6, 3), (40, 4), (400, 200)])
def test_where_all_answers_are_right_no_metric_is_sure(rows, positives):
    labels = (np.arange(rows) < positives).astype(int)
    probabilities = np.where(np.eye(2)[labels] > 0, 0.99, 0.01)
    found = classification_scores(probabilities, labels, ["no", "yes"], "f1")
    for name, chances in (
        ("macro_f1", rows),
        ("accuracy", rows),
        ("f1", positives),
        ("auc", positives),
        ("average_precision", positives),
    ):
        assert found.metrics[name] == 1
        assert found.intervals[name] == pytest.approx(wilson(1.0, chances))
    groups = np.arange(rows) // 2 if positives % 2 == 0 else np.arange(rows)
    alike = classification_scores(probabilities, labels, ["no", "yes"], "f1", groups)
    assert alike.intervals["f1"] == pytest.approx(wilson(1.0, len(np.unique(groups[labels == 1]))))


def test_where_none_of_a_class_is_found_its_f1_may_still_be_more():
    labels = np.array([0] * 9 + [1])
    found = classification_scores(np.tile([0.9, 0.1], (10, 1)), labels, ["no", "yes"], "f1")
    assert found.metrics["f1"] == 0 and found.intervals["f1"] == pytest.approx(wilson(0.0, 1))


def test_rmse_keeps_the_absolute_errors_beside_it():
    found = regression_scores(np.array([1.0, 2.0, 5.0]), np.zeros(3))
    np.testing.assert_allclose(found.beside["mae"], [1, 2, 5])
    assert regression_scores(np.ones(3), np.arange(3), "mae").beside == {}


def test_what_is_no_better_than_not_looking_is_said_first():
    probabilities, labels = answers(400, (0.9, 0.1), seed=13)
    one = scores(np.tile([0.9, 0.1], (400, 1)), labels)
    assert one.remarks[0] == "the answer is 'a' for each of the 400 examples"
    floor = f"{one.floors['accuracy']:.3g}"
    assert (
        one.remarks[1] == f"by accuracy, {floor}, it is not shown to do better than not looking at the inputs, {floor}"
    )
    assert repr(one).startswith("the answer is 'a'")
    assert scores(probabilities, labels, "auc").remarks == ()
    noise = np.random.default_rng(14).dirichlet([1, 1], 400)
    assert scores(noise, labels, "average_precision").remarks[0].startswith("by average_precision, 0.")
    draw = np.random.default_rng(15)
    x, y = draw.standard_normal((2, 50))
    assert "than chance, 0" in spearman_scores(x, y).remarks[0]
    assert spearman_scores(x, x + 0.1 * y).remarks == ()
    assert "rmse" in regression_scores(x * 0 + y.mean(), y).remarks[0]
    assert regression_scores(y + 0.1 * x, y).remarks == ()
    assert far_from_ceiling("frechet", {"frechet": 10.6}, {"frechet": 0.9}) == [
        "by frechet, 10.6, it is far from what real ones get, 0.9"
    ]
    assert far_from_ceiling("frechet", {"frechet": 2.0}, {"frechet": 0.9}) == []
