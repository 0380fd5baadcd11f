"""Alarms: what is not finite is named, collapse stops a training, healthy trainings are left alone."""

import numpy as np
import pytest
import torch
from torch import nn
from trainee import Double, Net, supervised, table, weights

from papertrial.core.budget import Budget
from papertrial.core.errors import TrainingStopped
from papertrial.core.recipe import Optim
from papertrial.core.run import Run
from papertrial.core.task import Split
from papertrial.nn.heads import Supervised
from papertrial.train import checkpoint
from papertrial.train.loop import train
from papertrial.train.watch import effective_rank, spread


def go(model, folder, split=None, steps=400, optim=None, **options):
    options = {"seed": 3, "progress": False, "device": "cpu", **options}
    optim = optim or Optim(batch=20, lr=1e-2)
    return train(model, split or table(), optim, Budget(steps=steps), Run(folder), **options)


class Bomb(nn.Module):
    """Goes off at a step of its own counting: in the forward pass, or in the backward pass only."""

    def __init__(self, at, kind):
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.at, self.kind = at, kind

    def forward(self, x):
        if self.training and torch.is_grad_enabled():
            self.count += 1
        if self.count != self.at:
            return x
        return x * float("inf") if self.kind == "forward" else x + (x * 0).abs().sqrt().sum() * 0


@pytest.mark.parametrize("kind", ["forward", "backward"])
def test_nonfinite_names_the_layer_and_keeps_the_checkpoint(kind, tmp_path):
    model = supervised()
    model.encoder.layers.insert(2, Bomb(6, kind))
    with pytest.raises(TrainingStopped) as stopped:
        go(model, tmp_path, checkpoint_seconds=0.0)
    assert stopped.value.exit_code == 3
    words = str(stopped.value)
    assert "step 6" in words
    assert "\n" not in words
    assert "checkpoint.safetensors" in words
    assert "lr=0.0033" in words
    if kind == "forward":
        assert "loss is not finite" in words
        assert "encoder.layers.2 (Bomb), after a largest activation of" in words
    else:
        assert "gradient is not finite" in words
        assert "encoder.layers.1" in words  # the last parameters below the bomb
    tensors, state = checkpoint.load(tmp_path / "checkpoint.safetensors")
    assert state["step"] == 5
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())


def test_nonfinite_column_is_named(tmp_path):
    split = table()
    split["numeric"][40, 2] = np.nan
    with pytest.raises(TrainingStopped, match=r"encoder.layers.0 \(Linear\).*1 values of the batch column numeric"):
        go(supervised(), tmp_path, split=split)


def test_nonfinite_weights_are_named_and_never_saved(tmp_path):
    model = supervised()
    with torch.no_grad():
        model.head.bias[0] = float("nan")
    with pytest.raises(TrainingStopped, match=r"head.bias are not finite"):
        go(model, tmp_path)
    assert not (tmp_path / "checkpoint.safetensors").exists()


class Poison:
    """Breaks the weights after the update, as an overflow of the optimiser would."""

    def after_step(self, model):
        with torch.no_grad():
            model.head.weight.mul_(float("inf"))


def test_weights_broken_by_the_optimiser(tmp_path):
    with pytest.raises(TrainingStopped, match="not finite"):
        go(supervised(), tmp_path, techniques=[Poison()], checkpoint_seconds=0.0)
    tensors, state = checkpoint.load(tmp_path / "checkpoint.safetensors")
    assert state["step"] == 0
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())


def test_delayed_alarm_goes_back_and_finds_the_step(tmp_path, monkeypatch):
    """On a GPU values are looked at now and then; the steps since the checkpoint are then taken again one by one."""
    from papertrial.train import loop

    begin = loop._Training._begin

    def delayed(self, budget):
        self.updates.every_step = False
        return begin(self, budget)

    monkeypatch.setattr(loop._Training, "_begin", delayed)
    model = supervised()
    model.encoder.layers.insert(2, Bomb(9, "forward"))
    with pytest.raises(TrainingStopped, match=r"step 9: .*encoder.layers.2 \(Bomb\)"):
        go(model, tmp_path, log_every=20)


class Collapsing(nn.Module):
    """An objective whose best answer is the same features for everyone (nothing pushes examples apart)."""

    inputs = ("numeric",)

    def __init__(self, encoder, pull=1.0):
        super().__init__()
        self.encoder, self.pull = encoder, pull

    def loss(self, batch):
        features = self.encoder(batch["numeric"])
        return self.pull * (features - features.mean(0)).square().mean() + (features.mean(0) - 1).square().mean()


def test_collapse_stops_and_says_since_when(tmp_path):
    with pytest.raises(TrainingStopped, match=r"features collapsed: since step \d+ .*try"):
        go(Collapsing(Double(6, 8, 4)), tmp_path, steps=2000, optim=Optim(batch=20, lr=2e-2, weight_decay=0))
    rows = [row for row in Run(tmp_path).history() if "feature_spread" in row]
    assert rows[0]["feature_spread"] > 10 * rows[-1]["feature_spread"]


def test_collapse_is_found_by_a_resumed_training_too(tmp_path):
    def stopped_at(folder, interrupt):
        class Interrupt:
            left = 333

            def after_step(self, model):
                self.left -= 1
                if interrupt and self.left == 0:
                    raise KeyboardInterrupt

        torch.manual_seed(0)
        optim = Optim(batch=20, lr=2e-2, weight_decay=0)
        with pytest.raises((TrainingStopped, KeyboardInterrupt)) as error:
            go(
                Collapsing(Double(6, 8, 4)),
                folder,
                steps=2000,
                optim=optim,
                techniques=[Interrupt()],
                checkpoint_seconds=0.0,
            )
        return error.value

    whole = stopped_at(tmp_path / "a", False)
    first = stopped_at(tmp_path / "b", True)
    second = stopped_at(tmp_path / "b", False) if isinstance(first, KeyboardInterrupt) else first
    assert second.problem == whole.problem


def test_no_alarm_for_constant_starts_and_healthy_objectives(tmp_path):
    zero = Double(6, 8, 4)
    nn.init.zeros_(zero.second.weight)
    nn.init.zeros_(zero.second.bias)
    assert go(Collapsing(zero, pull=1.0), tmp_path / "zero", steps=300).steps == 300
    assert go(Collapsing(Double(6, 8, 4), pull=-0.01), tmp_path / "apart", steps=300).steps == 300


@pytest.mark.parametrize("labels", ["learnable", "one class", "noise"])
def test_no_alarm_for_supervised_training(labels, tmp_path):
    split = table()
    if labels != "learnable":
        drawn = np.zeros(100, dtype=np.int64) if labels == "one class" else np.random.default_rng(5).integers(0, 2, 100)
        split = Split({"numeric": split["numeric"], "label": drawn})
    assert go(supervised(), tmp_path, split=split).steps == 400
    assert not any("note" in row for row in Run(tmp_path).history()) or labels == "one class"


@pytest.mark.parametrize("kind", ["classes", "value"])
def test_identical_answers_are_noted_once(kind, tmp_path):
    split = table()
    columns = {"numeric": split["numeric"], "label": split["label"], "target": 1e6 + split["label"].astype(np.float32)}
    model = Supervised(Net(), 2 if kind == "classes" else 1, kind, ("numeric",), target_mean=1e6, target_std=0.5)
    nn.init.zeros_(model.head.weight)
    model.head.weight.requires_grad_(False)
    assert go(model, tmp_path, split=Split(columns)).steps == 400
    notes = [row["note"] for row in Run(tmp_path).history() if "note" in row]
    assert len(notes) == 1
    assert "same answer" in notes[0]


def test_an_encoder_of_other_inputs_is_not_watched(tmp_path):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Bilinear(6, 6, 2)

        def loss(self, batch):
            return self.encoder(batch["numeric"], batch["numeric"]).square().mean()

    assert go(Odd(), tmp_path, steps=60).steps == 60


def test_watching_leaves_no_trace(tmp_path, monkeypatch):
    from papertrial.train import watch

    ends = []
    for checks in (1, 40):
        monkeypatch.setattr(watch, "_CHECKS", checks)
        model = supervised()
        go(model, tmp_path / str(checks), steps=200)
        ends.append(weights(model))
    for name, tensor in ends[0].items():
        assert torch.equal(tensor, ends[1][name])


def test_spread_and_rank():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 16, generator=generator)
    assert spread(x) == pytest.approx(1, abs=0.05)
    assert spread(x * 1e-20) == pytest.approx(spread(x))
    assert spread(torch.ones(64, 16) * 7) == 0
    assert spread(torch.zeros(64, 16)) == 0
    assert spread(x + 1000) < 2e-3
    massive = torch.cat([x, torch.full((64, 1), 1e6)], 1)  # one huge constant feature, as transformers grow them
    assert spread(massive) > 0.9
    assert 12 < effective_rank(x) <= 16
    assert effective_rank(x[:, :1] @ torch.ones(1, 200)) == pytest.approx(1, abs=0.01)
    assert effective_rank(torch.eye(16).repeat(4, 1)) == pytest.approx(15, abs=0.01)
    assert effective_rank(torch.zeros(64, 16)) == 1
    assert effective_rank(torch.randn(10, 300, generator=generator)) < 9.01
