"""A system of stages: what each may spend and learns from, and that one that is interrupted goes on in the right stage."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from trainee import table, weights

from papertrial.core.budget import MEASURED, UNKNOWN, Budget, Energy, Meter
from papertrial.core.errors import Declined, TrainingStopped
from papertrial.core.files import read_json
from papertrial.core.recipe import Optim
from papertrial.core.run import Run
from papertrial.core.task import Split, Stage
from papertrial.train.stages import train_stages

SHARES = st.lists(st.integers(1, 20), min_size=1, max_size=5)


class Coder(nn.Module):
    """Learns to say its input again through few numbers, with dropout, so that a resume needs the random state too."""

    def __init__(self):
        super().__init__()
        self.narrow, self.wide, self.drop = nn.Linear(6, 3), nn.Linear(3, 6), nn.Dropout(0.1)

    def loss(self, batch):
        x = batch["numeric"]
        return F.mse_loss(self.wide(self.drop(self.narrow(x))), x)


class Reader(nn.Module):
    """Learns the label from the code."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3))

    def loss(self, batch):
        return F.cross_entropy(self.layers(batch["code"]), batch["label"])


class System(nn.Module):
    def __init__(self, shares=(0.25, 0.75), optim=None):
        super().__init__()
        self.coder, self.reader = Coder(), Reader()
        self.shares, self.optim, self.asked = shares, optim or {}, 0

    def stages(self):
        return (
            Stage("coder", self.coder, self.shares[0], optim={"ema": 0.9}),
            Stage("reader", self.reader, self.shares[1], rows=self.codes, optim=self.optim),
        )

    @torch.no_grad()
    def codes(self, split):
        self.asked += 1
        code = self.coder.narrow(torch.as_tensor(split["numeric"]))
        return Split({"code": code.numpy(), "label": split["label"]})


class Interrupt:
    """A technique that fails after so many updates of a model."""

    def __init__(self, kind, at):
        self.kind, self.left = kind, at

    def after_step(self, model):
        self.left -= isinstance(model, self.kind)
        if self.left == 0:
            raise KeyboardInterrupt


def start(folder, techniques=(), budget=None, **how):
    torch.manual_seed(0)
    system = System(**how)
    spent = train_stages(
        system, table(), Optim(batch=16), budget or Budget(steps=40), Run(folder), seed=1, progress=False, techniques=techniques
    )  # fmt: skip
    return system, *spent


def test_each_stage_has_its_share_its_folder_and_its_settings(tmp_path):
    system, spent, each = start(tmp_path, optim={"batch": 8})
    assert [(name, meter.steps, meter.samples) for name, meter in each.items()] == [
        ("coder", 10, 160),
        ("reader", 30, 240),
    ]
    assert (spent.steps, spent.samples) == (40, 400)
    assert spent.seconds == sum(meter.seconds for meter in each.values())
    assert not system.training and not system.coder.training
    stages = Run(tmp_path).stages
    assert [run.folder.name for run in stages.values()] == ["1-coder", "2-reader"] and list(stages) == [
        "coder",
        "reader",
    ]
    assert [run.history()[-1]["step"] for run in stages.values()] == [10, 30]


def test_a_stage_learns_from_what_the_one_before_has_learnt(tmp_path):
    system, _, _ = start(tmp_path)
    code = system.codes(table())["code"]
    torch.manual_seed(0)
    untrained = System().codes(table())["code"]
    assert not np.allclose(code, untrained, atol=1e-3)
    alone = Reader()
    torch.manual_seed(0)
    alone.load_state_dict(System().reader.state_dict())  # as it began
    from papertrial.train.loop import train

    rows = Split({"code": code, "label": table()["label"]})
    train(alone, rows, Optim(batch=16), Budget(steps=30), Run(tmp_path / "alone"), seed=1, progress=False)
    for name, tensor in alone.state_dict().items():
        assert torch.equal(tensor, system.reader.state_dict()[name]), name


def test_resumed_equals_uninterrupted(tmp_path):
    whole, spent, _ = start(tmp_path / "whole")
    for kind, at in ((Coder, 1), (Coder, 6), (Reader, 1), (Reader, 17)):
        with pytest.raises(KeyboardInterrupt):
            start(tmp_path / "parts", techniques=[Interrupt(kind, at)])
    resumed, again, _ = start(tmp_path / "parts")
    assert {name: tensor.tolist() for name, tensor in weights(whole).items()} == {
        name: tensor.tolist() for name, tensor in weights(resumed).items()
    }
    assert (again.steps, again.samples) == (spent.steps, spent.samples)


def test_the_rows_of_a_later_stage_are_made_when_it_begins(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, techniques=[Interrupt(Coder, 3)])
    assert list(Run(tmp_path).stages) == ["coder"]
    system, _, _ = start(tmp_path)
    assert system.asked == 1


def test_a_finished_run_keeps_the_logs_and_no_checkpoint(tmp_path):
    run = Run(tmp_path)
    run.begin({})
    start(tmp_path)
    assert all(stage.path("checkpoint.safetensors").exists() for stage in run.stages.values())
    run.finish({})
    assert not list(tmp_path.rglob("checkpoint.safetensors"))
    assert all(stage.history() for stage in run.stages.values())


def test_early_stopping_and_shares_that_do_not_add_up(tmp_path):
    with pytest.raises(Declined, match="leave patience out"):
        train_stages(System(), table(), Optim(patience=2), Budget(steps=4), Run(tmp_path), seed=0)
    for shares in ((0.5, 0.4), (1.0, 0.0)):
        with pytest.raises(ValueError, match="shares"):
            start(tmp_path, shares=shares)


@pytest.mark.filterwarnings("ignore:.*")
def test_what_goes_wrong_in_a_stage_names_it(tmp_path):
    with pytest.raises(TrainingStopped, match="stage reader: the"):
        start(tmp_path, optim={"lr": 1000.0, "clip": 0, "optimizer": "sgd"})


def test_a_budget_in_seconds_is_shared_out_and_planned_once(clock, tmp_path):
    with pytest.raises(KeyboardInterrupt):  # after the 23 steps of the measuring
        start(tmp_path, budget=Budget(seconds=8), techniques=[clock, Interrupt(Reader, 40)])
    plans = [read_json(run.path("plan.json")) for run in Run(tmp_path).stages.values()]
    assert [plan["seconds"] for plan in plans] == [pytest.approx(2), pytest.approx(6)]
    _, _, each = start(tmp_path, budget=Budget(seconds=8), techniques=[clock])
    assert [meter.steps for meter in each.values()] == [plan["steps"] for plan in plans]


@given(SHARES, st.integers(0, 10_000))
def test_parts_of_a_budget_join_up(weights, steps):
    edges = np.cumsum([0, *weights]) / sum(weights)
    parts = [Budget(steps=steps, seconds=60.0).between(*edge) for edge in itertools.pairwise(edges)]
    assert sum(part.seconds for part in parts) == pytest.approx(60.0)
    if steps >= 2 * sum(weights):
        assert sum(part.steps for part in parts) == steps
    assert all(part.steps >= min(1, steps) and part.samples is None for part in parts)


def test_meters_add_up():
    known = Meter(steps=2, samples=8, seconds=1.0, peak_bytes=5).with_energy(Energy(0.5, MEASURED, "a counter"))
    other = Meter(steps=1, samples=1, seconds=2.0, peak_bytes=3).with_energy(Energy(0.25, MEASURED, "a counter"))
    total = Meter.total([known, other])
    assert (total.steps, total.samples, total.seconds, total.peak_bytes, total.kwh) == (3, 9, 3.0, 5, 0.75)
    assert (total.energy, total.energy_how) == (MEASURED, "a counter")
    assert Meter.total([known, Meter(steps=1)]).energy == UNKNOWN
