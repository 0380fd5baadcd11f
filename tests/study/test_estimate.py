"""Estimates: the arithmetic against real trainings under a clock that only the model moves, and what the command says.

How near they come on a real machine is measured by bench/estimate.py, not here.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from dataclasses import replace
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

import papertrial as pt
from papertrial.app.cli import main
from papertrial.core.budget import ESTIMATED, MEASURED, Budget, Energy
from papertrial.core.errors import PapertrialError
from papertrial.core.recipe import Optim
from papertrial.core.run import Run
from papertrial.core.task import Split
from papertrial.nn.heads import Supervised
from papertrial.papers import nfnet
from papertrial.papers.nfnet import AGC
from papertrial.study import estimate as module
from papertrial.study.estimate import Cost, affordable, estimate, total, trials_within
from papertrial.train import loop
from papertrial.train.pace import STEPS, Pace

GB = 10**9


class Clock:
    """Stands still unless somebody works."""

    def __init__(self):
        self.now = 5000.0

    def __call__(self):
        return self.now


class Slow(Supervised):
    """A step takes a tenth of a second, and two milliseconds more for each row."""

    def __init__(self, clock):
        backbone = nn.Linear(4, 3)
        backbone.width = 3
        super().__init__(backbone, 2, inputs=("numeric",))
        self.clock = clock

    def loss(self, batch):
        self.clock.now += 0.1 + 0.002 * len(batch["label"])
        return super().loss(batch)


class Costly:
    """A technique that takes a twentieth of a second a step."""

    def __init__(self, clock):
        self.clock = clock

    def before_step(self, model):
        self.clock.now += 0.05


class Meter:
    """A machine of 36 watts: 1e-5 kWh a second."""

    def __init__(self, clock):
        self.clock, self.begun = clock, clock()

    def read(self):
        return Energy(1e-5 * (self.clock() - self.begun), ESTIMATED, "36 W")

    def close(self):
        pass


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=clock, perf_counter=clock))
    monkeypatch.setattr(loop, "EnergyMeter", lambda device: Meter(clock))
    return clock


def rows(count=200):
    draw = np.random.default_rng(0)
    numeric = draw.normal(size=(count, 4)).astype(np.float32)
    return Split({"numeric": numeric, "label": (numeric[:, 0] > 0).astype(np.int64)})


def both(clock, tmp_path, budget, **options):
    """(what was foretold, what the training really took), with 20 rows a step and validations of 3 seconds."""
    optim = Optim(batch=20, **options)
    costly = [Costly(clock)]

    def validate():
        clock.now += 3.0
        return clock.now  # ever better

    torch.manual_seed(0)
    pace = loop.pace(
        Slow(clock), rows(), optim, Run(tmp_path / "pace"), seed=0, validate=validate, device="cpu", seconds=5.0,
        techniques=costly,
    )  # fmt: skip
    training = {"seed": 0, "validate": validate, "progress": False, "device": "cpu", "techniques": costly}
    meter = loop.train(Slow(clock), rows(), optim, budget, Run(tmp_path / "run"), **training)
    return pace, meter


def test_ten_steps_foretell_a_training_of_so_many_steps(clock, tmp_path):
    pace, meter = both(clock, tmp_path, Budget(steps=123), patience=99)
    assert pace.step == pytest.approx(0.19)
    assert pace.steps == 27  # as many as fit into five seconds
    assert pace.validation == pytest.approx(3.0)
    assert pace.plan(Budget(steps=123), 0) == meter.steps == 123
    assert pace.seconds(123, Budget(steps=123)) == pytest.approx(
        meter.seconds
    )  # 13 validations, one of them at the end
    assert pace.power.times(meter.seconds).kwh == pytest.approx(meter.kwh)


@pytest.mark.parametrize("seconds", [1.0, 20.0, 100.0])
@pytest.mark.parametrize("patience", [0, 99])
def test_ten_steps_foretell_what_a_time_buys(clock, tmp_path, seconds, patience):
    budget = Budget(seconds=seconds)
    pace, meter = both(clock, tmp_path, budget, patience=patience)
    steps = pace.plan(budget, 0)
    assert steps == pytest.approx(meter.steps, rel=0.02, abs=1)
    assert pace.seconds(steps, budget) == pytest.approx(meter.seconds, rel=0.02, abs=0.2)


def test_epochs_and_samples_are_limits_too(clock, tmp_path):
    pace, meter = both(clock, tmp_path, Budget(samples=500))
    assert pace.plan(Budget(samples=500), 0) == meter.steps == 25
    assert pace.plan(Budget(samples=500), 2) == 20
    with pytest.raises(PapertrialError, match="no end"):
        pace.plan(Budget(), 0)


def test_all_that_happens_between_steps_counts(clock):
    pace = Pace(10, 50, 10, step=0.01, peak_bytes=0, power=Energy(), look=0.5, save=2.0, log=0.1, start=1.0)
    assert pace.seconds(1000, Budget()) == pytest.approx(1 + 10 + 40 * 0.5 + 50 * 0.1 + 3 * 2)


# ------------------------------------------------------------------------------------------------- how much may be measured


@pytest.fixture
def machine(monkeypatch):
    """A machine of 16 GB, and a model of 1 GB that takes `per_row` bytes and `slow` seconds for each row of a step."""
    machine = SimpleNamespace(per_row=10_000_000, slow=0.001, asked=[])

    def measure(count, pilot=False):
        machine.asked.append((count, pilot))
        peak = GB + count * machine.per_row
        assert peak < 16 * GB, "the machine ran out of memory"
        return Pace(count, 1, 2 if pilot else 10, machine.slow * count, peak, Energy())

    machine.measure = measure
    monkeypatch.setattr(module, "machine_memory", lambda: 16 * GB)
    monkeypatch.setattr(module, "free_memory", lambda: 15 * GB)
    return machine


def test_a_batch_that_fits_is_measured_whole(machine):
    pace, peak = affordable(machine.measure, 100, 8)
    assert machine.asked == [(8, True), (32, True), (100, False)]
    assert (pace.rows, peak) == (100, GB + 100 * machine.per_row)


def test_a_small_batch_needs_no_pilot(machine):
    affordable(machine.measure, 8, 8)
    assert machine.asked == [(8, False)]


def test_a_batch_that_takes_too_long_is_scaled_up(machine):
    machine.slow = 0.02
    pace, peak = affordable(machine.measure, 1000, 8)
    assert machine.asked[-1] == (32, False)
    assert peak == pytest.approx(GB + 1000 * machine.per_row)
    assert pace.scaled(1000, 5).step == pytest.approx(20.0)


def test_a_batch_that_does_not_fit_is_refused_without_being_tried(machine):
    with pytest.raises(PapertrialError, match=r"a step of 4096 rows needs about 42 GB of memory.* 16 GB") as refusal:
        affordable(machine.measure, 4096, 8)
    assert "batch=1024" in str(refusal.value) and "accumulate=4" in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1
    assert not [count for count, pilot in machine.asked if not pilot]


def test_trials_are_bought_by_time_or_number_or_the_method_itself():
    assert trials_within(Budget(seconds=10), 3.0, None) == 4
    assert trials_within(Budget(seconds=1), 3.0, None) == 1
    assert trials_within(Budget(trials=7), 3.0, 100) == 7
    assert trials_within(Budget(seconds=60), 0.1, 5) == 5
    assert trials_within(Budget(), 0.1, None) == 1


def test_a_comparison_is_all_its_runs():
    cost = Cost("new", "base", "1 min", 10, 0.0, 60.0, 0.0, 5.0, 10, 1.0, 100, 0, GB, 0.1, MEASURED, "a counter", "")
    costs = [cost, replace(cost, method="trees", training=30.0, kwh=0.2, energy=ESTIMATED), replace(cost, training=0.0)]
    found = total(costs, costs[1:2], seeds=5, preparing=2.0, notes=())
    assert found.runs == 3 * 5 + 6  # and the reference on a quarter and half of the labels, with three seeds
    assert found.seconds == pytest.approx(5 * (65 + 35 + 5) + 6 * 35 + 11 * 2)
    assert found.kwh == pytest.approx(5 * 0.4 + 6 * 0.2)
    assert found.energy == ESTIMATED
    assert total(costs, [], seeds=2, preparing=0.0, notes=()).runs == 6


# -------------------------------------------------------------------------------------------------------------- whole commands


@pytest.fixture
def papertrial(capsys, monkeypatch, tmp_path):
    """Run a command in an empty folder, which stays empty; returns (exit code, stdout, stderr)."""
    (tmp_path / "here").mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(module, "_WINDOW", 0.1)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["papertrial", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        out = capsys.readouterr()
        assert not os.listdir(".") and not os.listdir("../temporary"), "a trace was left"
        return stop.value.code or 0, out.out, out.err

    return run


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("mlp_mixer", ("--data", "digits")),
        ("barlow_twins", ("--data", "digits", "--task", "image_representation", "--set", "backbone.width=8")),
        ("rtdl:mlp", ("--data", "wine", "--set", "patience=2")),
        ("linear", ("--data", "diabetes")),
        ("untrained", ("--data", "digits", "--set", "backbone.width=8")),
    ],
)
def test_the_command_says_what_a_run_costs(papertrial, method, options):
    code, out, err = papertrial("estimate", method, *options, "--recipe", "tiny")
    assert code == 0, err
    words = {line[:12].strip(): line[12:] for line in out.splitlines()}
    assert {
        "method",
        "starting",
        "data",
        "measured",
        "training",
        "judging",
        "total",
        "memory",
        "energy",
    } <= words.keys()
    assert ("model" in words) == (method != "linear")
    assert words["training"] == "none" if method == "untrained" else " for " in words["training"]


def test_the_document_adds_up_and_covers_a_comparison(papertrial):
    code, out, err = papertrial(
        "estimate",
        "rtdl:mlp",
        "--data",
        "wine",
        "--recipe",
        "tiny",
        "--budget",
        "30steps+1trials",
        "--seeds",
        3,
        "--json",
    )
    assert code == 0, err
    found = json.loads(out)
    cost, comparison = found["cost"], found["comparison"]
    assert cost["seconds"] == pytest.approx(cost["preparing"] + cost["training"] + cost["judging"])
    assert found["seconds"] == pytest.approx(found["starting"] + cost["seconds"])
    assert cost["steps"] == 30 and cost["samples"] == 30 * 64 and cost["parameters"] > 1000
    assert 0 < cost["peak_bytes"] < found["machine_bytes"]
    assert cost["energy"] in ("measured", "estimated", "unknown") and cost["energy_how"]
    names = [one["method"] for one in comparison["costs"]]
    assert names[0] == "rtdl:mlp" and {"xgboost", "majority"} <= set(names)
    assert comparison["folds"] == 5 and comparison["runs"] == 3 * 5 * len(names) + 6


def test_what_the_machine_cannot_hold_is_refused_in_one_line(papertrial, monkeypatch):
    monkeypatch.setattr(module, "machine_memory", lambda: 16 * GB)
    monkeypatch.setattr(module, "free_memory", lambda: 0)
    monkeypatch.setattr(module, "_memory", lambda seen, rows: rows * GB)
    code, out, err = papertrial("estimate", "mlp_mixer", "--data", "digits", "--recipe", "tiny", "--set", "batch=64")
    assert code == 2 and not out
    assert "a step of 64 rows needs about 64 GB of memory, and this machine has 16 GB" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("mlp_mixr", "--data", "digits"), "mlp_mixer"),
        (("mlp_mixer", "--data", "digits", "--recipe", "smal"), "recipe"),
        (("mlp_mixer", "--data", "wine"), "does not fit"),
        (("mlp_mixer", "--data", "digits", "--budget", "soon"), "10m"),
    ],
)
def test_wrong_words_end_in_one_line(papertrial, words, said):
    code, _, err = papertrial("estimate", *words)
    assert code == 2 and said in err and len(err.splitlines()) == 1


def test_a_run_leaves_its_energy_in_result_card_and_words(papertrial, monkeypatch, tmp_path):
    found = estimate("mlp_mixer", "digits", recipe="tiny", budget="20steps")
    artifact = pt.fit("mlp_mixer", "digits", recipe="tiny", budget="20steps", out=tmp_path / "run", progress=False)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert artifact.card["cost"] == result["cost"]
    assert result["cost"]["energy"] == found.cost.energy
    assert result["cost"]["energy_how"] == found.cost.energy_how


class Counted(AGC):
    """A technique that notes what is called."""

    called: ClassVar[list] = []

    def prepare(self, model):
        self.called.append("prepare")

    def before_step(self, model):
        self.called.append(self.clip)

    def finish(self, model):
        self.called.append("finish")


@pytest.mark.parametrize(("method", "words", "clip"), [("nfnet", [], 0.08), ("mlp_mixer", ["agc:clip=0.5"], 0.5)])
def test_techniques_of_the_recipe_and_of_the_user_are_part_of_the_steps(papertrial, monkeypatch, method, words, clip):
    monkeypatch.setattr(Counted, "called", [])
    monkeypatch.setitem(nfnet.techniques, "agc", Counted)
    options = [option for text in words for option in ("--technique", text)]
    code, _, err = papertrial("estimate", method, "--data", "digits", "--recipe", "tiny", *options)
    assert code == 0, err
    first, *steps, last = Counted.called
    assert (first, last) == ("prepare", "finish")  # once, though batches of several sizes are tried
    assert set(steps) == {clip} and len(steps) >= STEPS


def test_a_method_without_steps_declines_techniques(papertrial):
    code, _, err = papertrial("estimate", "linear", "--data", "wine", "--technique", "agc")
    assert code == 2 and "agc cannot change how it learns" in err and len(err.splitlines()) == 1


def test_estimate_is_on_the_public_face():
    assert pt.estimate is estimate
