"""Tuned trees, the linear model and the majority: they learn, keep to the budget, resume, and save without pickling."""

from __future__ import annotations

import importlib
import json
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from optuna.distributions import FloatDistribution
from sklearn.linear_model import LogisticRegression, Ridge

from papertrial.baselines import _trees, majority
from papertrial.baselines._trees import TunedTrees
from papertrial.core.budget import Budget, Energy
from papertrial.core.errors import DataError
from papertrial.core.facts import Facts
from papertrial.core.recipe import resolve
from papertrial.core.registry import literal
from papertrial.core.run import Run
from papertrial.core.task import Estimator, Split

LIBRARIES = ("xgboost", "lightgbm", "catboost")
ALL = (*LIBRARIES, "linear", "majority")
KINDS = ("two", "three", "value")


def table(kind: str, rows: int = 400, seed: int = 0, numeric: int = 3, categorical: int = 2) -> tuple[Split, Facts]:
    draw = np.random.default_rng(seed)
    x = draw.standard_normal((rows, 3)).astype(np.float32)
    codes = draw.integers(0, 4, (rows, 2))
    signal = x[:, 0] * 2 + (codes[:, 0] == 1) * 3 + (codes[:, 1] % 2)
    x[draw.random(x.shape) < 0.1] = np.nan
    codes[draw.random(codes.shape) < 0.05] = 4  # unseen or missing
    classes = {"two": 2, "three": 3, "value": 0}[kind]
    columns = {"numeric": x[:, :numeric], "categorical": codes[:, :categorical]}
    if classes:
        columns["label"] = np.digitize(signal, [1.5] if classes == 2 else [0.5, 2.5]).astype(np.int64)
    else:
        columns["target"] = (signal * 10 + 500).astype(np.float32)
    facts = Facts(
        "table", rows, rows, numeric=numeric, cardinalities=(4,) * categorical, classes=classes, outputs=classes or 1
    )
    return Split(columns), facts


def make(name: str, facts: Facts, **settings):
    module = importlib.import_module(f"papertrial.baselines.{name}")
    config, _ = resolve(module.Config, facts, {"tiny": module.recipes["tiny"].config, "you": settings})
    return module.build(config, facts)


def wrong(outputs: np.ndarray, split: Split) -> float:
    if "label" in split:
        return float((outputs.argmax(1) != split["label"]).mean())
    return float(np.sqrt(np.mean((outputs - split["target"]) ** 2)))


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    return Run(folder)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ALL)
def test_it_learns_and_comes_back_from_disk(name, kind, run, tmp_path):
    train, facts = table(kind)
    valid, test = table(kind, seed=1)[0], table(kind, rows=2000, seed=2)[0]
    model = make(name, facts)
    assert isinstance(model, Estimator)
    meter = model.fit(train, valid, facts, Budget(trials=2), 0, run)
    assert meter.trials == {"linear": 1, "majority": 1}.get(name, 2)
    assert meter.seconds > 0
    out = model.outputs(test)
    assert out.dtype == np.float64
    assert out.shape == ((2000, facts.classes) if facts.classes else (2000,))
    if facts.classes:
        np.testing.assert_allclose(out.sum(1), 1, atol=1e-6)
    floor = make("majority", facts)
    floor.fit(train, valid, facts, Budget(), 0, run)
    if name != "majority":
        assert wrong(out, test) < 0.75 * wrong(floor.outputs(test), test)
    (tmp_path / "saved").mkdir()
    model.save(tmp_path / "saved")
    files = list((tmp_path / "saved").iterdir())
    assert [file.suffix for file in files] == [
        {"xgboost": ".ubj", "lightgbm": ".txt", "catboost": ".cbm"}.get(name, ".safetensors")
    ]
    again = make(name, facts).load(tmp_path / "saved")
    unlabelled = Split({key: test[key] for key in ("numeric", "categorical")})
    np.testing.assert_array_equal(again.outputs(unlabelled), out)
    assert len(again.outputs(unlabelled.take(slice(0)))) == 0


@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.parametrize(("numeric", "categorical"), [(3, 0), (0, 2)])
def test_a_table_of_one_sort_of_column(name, numeric, categorical, run):
    train, facts = table("two", numeric=numeric, categorical=categorical)
    model = make(name, facts)
    model.fit(train, train, facts, Budget(trials=1), 0, run)
    assert wrong(model.outputs(train), train) < 0.45


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_killed_run_proposes_and_ends_as_an_uninterrupted_one(name, tmp_path):
    train, facts = table("value", rows=200)
    valid = table("value", rows=200, seed=1)[0]
    whole, halved = Run(tmp_path / "whole"), Run(tmp_path / "halved")
    for run in (whole, halved):
        run.folder.mkdir()
    first = make(name, facts)
    first.fit(train, valid, facts, Budget(trials=13), 3, whole)
    make(name, facts).fit(train, valid, facts, Budget(trials=11), 3, halved)
    with halved.path("trials.jsonl").open("a") as stream:
        stream.write('{"number": 11, "par')  # what a kill in the middle of a line leaves
    second = make(name, facts)
    second.fit(train, valid, facts, Budget(trials=13), 3, halved)

    def proposals(run: Run) -> list[dict]:
        return [json.loads(line)["params"] for line in run.path("trials.jsonl").read_text().splitlines()]

    assert proposals(whole) == proposals(halved)
    assert all(a != b for a, b in pairwise(proposals(whole)))
    np.testing.assert_array_equal(first.outputs(valid), second.outputs(valid))
    assert len(list(halved.scratch.glob("trial-*"))) == 1
    third = make(name, facts)  # done already: nothing is trained again
    before = halved.path("trials.jsonl").read_text()
    third.fit(train, valid, facts, Budget(trials=13), 3, halved)
    assert halved.path("trials.jsonl").read_text() == before
    np.testing.assert_array_equal(first.outputs(valid), third.outputs(valid))


class Slow:
    """A library whose every trial takes three seconds of a clock and a watt-hour, and is better than the one before."""

    space = {"x": FloatDistribution(0, 1)}  # noqa: RUF012
    first = {"x": 0.5}  # noqa: RUF012

    def __init__(self, killed_in=0):
        self.now, self.trials, self.killed_in = 0.0, 0, killed_in

    def matrix(self, split):
        return split

    def train(self, params, train, valid, seed, spent):
        self.now, self.trials = self.now + 3, self.trials + 1
        if self.trials == self.killed_in:
            raise KeyboardInterrupt
        return params["x"]

    def outputs(self, model, rows):
        return np.full(rows.examples, model)

    def save(self, model, folder):
        (folder / "model").write_text(str(model))

    def load(self, folder):
        return float((folder / "model").read_text())


def test_time_and_energy_of_all_trials_count_those_before_a_kill_too(run, monkeypatch):
    train, facts = table("value", rows=20)
    slow = Slow(killed_in=3)
    reading = SimpleNamespace(read=lambda: Energy(slow.now / 3000, "measured"), close=lambda: None)
    monkeypatch.setattr(_trees, "time", SimpleNamespace(perf_counter=lambda: slow.now))
    monkeypatch.setattr(_trees, "EnergyMeter", lambda: reading)
    with pytest.raises(KeyboardInterrupt):
        TunedTrees(slow, facts).fit(train, train, facts, Budget(seconds=10), 0, run)
    slow = Slow()
    meter = TunedTrees(slow, facts).fit(train, train, facts, Budget(seconds=10), 0, run)
    assert slow.trials == 2  # six of the ten seconds were spent before
    assert (meter.trials, meter.seconds, meter.samples) == (4, 12, 80)
    assert meter.kwh == pytest.approx(0.004) and meter.energy == "measured"


@pytest.mark.parametrize("seconds", [1.0, 1e-9])
@pytest.mark.parametrize("name", LIBRARIES)
def test_seconds_end_a_trial_that_would_take_long(name, seconds, run):
    """100 000 rounds would outlast the test's time limit; a budget that is spent at once still gives a model."""
    train, facts = table("three", rows=4000)
    model = make(name, facts, rounds=100_000, stop_after=100_000)
    meter = model.fit(train, train, facts, Budget(seconds=seconds), 0, run)
    assert meter.trials >= 1
    assert np.isfinite(model.outputs(train)).all()


@pytest.mark.parametrize("name", [*LIBRARIES, "linear"])
def test_a_single_class_is_refused(name, run):
    train, facts = table("two")
    only = Split({**train, "label": np.zeros(400, dtype=np.int64)})
    with pytest.raises(DataError, match="single class"):
        make(name, facts).fit(only, only, facts, Budget(trials=1), 0, run)


@pytest.mark.parametrize("name", [*LIBRARIES, "linear"])
def test_a_class_that_training_lacks_keeps_its_place(name, run):
    train, facts = table("three")
    train = train.take(train["label"] != 1)
    model = make(name, facts)
    model.fit(train, train, facts, Budget(trials=1), 0, run)
    out = model.outputs(train)
    assert out.shape == (train.examples, 3)
    assert wrong(out, train) < 0.3


def test_linear_is_the_model_of_scikit_learn(run):
    for kind in ("two", "three", "value"):
        train, facts = table(kind)
        model = make("linear", facts, penalties=(0.5,), iterations=1000)
        model.fit(train, train, facts, Budget(), 0, run)
        x = (train["numeric"].astype(np.float64) - np.nanmean(train["numeric"], 0, dtype=np.float64)) / np.nanstd(
            train["numeric"].astype(np.float64), 0
        )
        hot = [(train["categorical"][:, [j]] == np.arange(4)).astype(float) for j in range(2)]
        features = np.concatenate([np.nan_to_num(x), *hot], axis=1)
        if facts.classes:
            expected = (
                LogisticRegression(C=0.5, max_iter=1000, tol=1e-8).fit(features, train["label"]).predict_proba(features)
            )
        else:
            expected = Ridge(alpha=2.0).fit(features, train["target"].astype(np.float64)).predict(features)
        np.testing.assert_allclose(model.outputs(train), expected, rtol=1e-2, atol=2e-3)


def test_linear_keeps_the_best_penalty(run):
    train, facts = table("value")
    valid = table("value", seed=1)[0]
    errors = {}
    for penalties in ((1e-6,), (1.0,), (1e-6, 1.0), (1.0, 1e-6)):
        model = make("linear", facts, penalties=penalties)
        model.fit(train, valid, facts, Budget(), 0, run)
        errors[penalties] = wrong(model.outputs(valid), valid)
    assert errors[(1e-6, 1.0)] == errors[(1.0, 1e-6)] == min(errors.values()) < errors[(1e-6,)]


def test_majority_ignores_the_unlabelled_and_works_without_inputs(run):
    labels = Split({"label": np.array([0, 2, 2, -1, -1, -1, -1])})
    model = majority.build(majority.Config(), Facts("images", 7, 3, classes=3, outputs=3))
    model.fit(labels, labels, model.facts, Budget(), 0, run)
    np.testing.assert_allclose(model.outputs(labels)[0], [1 / 3, 0, 2 / 3])
    with pytest.raises(DataError, match="no labelled"):
        model.fit(labels.take(slice(3, None)), labels, model.facts, Budget(), 0, run)


@pytest.mark.parametrize("name", ALL)
def test_the_facts_are_read_without_importing(name):
    module = importlib.import_module(f"papertrial.baselines.{name}")
    assert literal(Path(module.__file__)) == module.PAPER
    assert module.PAPER.kind == "estimator"
    assert module.PAPER.needs == (("tabular",) if name in LIBRARIES else ())
