"""A training that is interrupted ends with the same weights, bit for bit."""

import pytest
import torch
from trainee import CONFIGS, start, supervised, table, weights

from papertrial.core.budget import Budget
from papertrial.core.errors import PapertrialError
from papertrial.core.recipe import Optim
from papertrial.core.run import Run
from papertrial.train import checkpoint
from papertrial.train.loop import train


class Interrupt:
    """A technique that fails in the middle of an update, after the optimiser and before the average."""

    def __init__(self, at):
        self.left = at

    def after_step(self, model):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


@pytest.mark.parametrize("name", CONFIGS)
def test_resumed_equals_uninterrupted(name, tmp_path):
    whole, spent = start(name, tmp_path / "whole")
    assert spent.steps == 40 or name.startswith("patience")
    for at in (1, 7, 13):
        with pytest.raises(KeyboardInterrupt):
            start(name, tmp_path / "parts", techniques=[Interrupt(at)])
    resumed, again = start(name, tmp_path / "parts")
    same(weights(whole), weights(resumed))
    assert (again.steps, again.samples) == (spent.steps, spent.samples)
    timed = {"examples_per_second", "seconds", "waiting_for_data"}
    rows = [
        [{key: row[key] for key in row.keys() - timed} for row in Run(tmp_path / folder).history()]
        for folder in ("whole", "parts")
    ]
    assert rows[0] == rows[1]
    assert [row["step"] for row in rows[0]] == list(range(1, spent.steps + 1))


def test_the_best_weights_outlive_an_interruption(tmp_path):
    """Best in the first epoch, interrupted in the third: what is kept at the end is still of the first."""
    scores, seen = iter([0.9, 0.5, 0.4, 0.3, 0.2]), []
    model, optim = supervised(), Optim(batch=20, lr=1e-2, patience=9)

    def validate():
        seen.append(weights(model))
        return next(scores)

    options = {"seed": 3, "validate": validate, "progress": False, "device": "cpu", "checkpoint_seconds": 0.0}
    with pytest.raises(KeyboardInterrupt):
        train(model, table(), optim, Budget(steps=25), Run(tmp_path), techniques=[Interrupt(13)], **options)
    model = supervised()
    train(model, table(), optim, Budget(steps=25), Run(tmp_path), **options)
    assert len(seen) == 5
    same(weights(model), seen[0])


def test_finished_training_is_not_repeated(tmp_path):
    first, spent = start("patience-ema", tmp_path / "run")
    log = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    second, again = start("patience-ema", tmp_path / "run")
    same(weights(first), weights(second))
    assert again == spent
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == log


def test_budget_in_seconds_is_planned_once_and_resumes(clock, tmp_path):
    def go(folder, budget, techniques=()):
        model = supervised()
        train(
            model, table(), Optim(batch=20, ema=0.9), budget, Run(folder), seed=3, device="cpu",
            checkpoint_seconds=0.5, techniques=[clock, *techniques],
        )  # fmt: skip
        return weights(model)

    with pytest.raises(KeyboardInterrupt):  # well after the 23 steps of the measuring
        go(tmp_path / "a", Budget(seconds=4), [Interrupt(40)])
    planned = Run(tmp_path / "a").history()[0]["planned_steps"]
    assert 40 < planned <= 80
    resumed = go(tmp_path / "a", Budget(seconds=4))
    same(resumed, go(tmp_path / "b", Budget(steps=planned)))  # so the measuring left no trace either


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "foreign"])
def test_damaged_checkpoint_is_named(damage, tmp_path):
    start("adamw", tmp_path, steps=2)
    path = tmp_path / "checkpoint.safetensors"
    if damage == "foreign":
        checkpoint.save_file({"a": torch.zeros(2)}, path)
    else:
        content = path.read_bytes()
        path.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "text": b"not tensors at all"}[damage])
    with pytest.raises(PapertrialError, match=r"checkpoint.safetensors is damaged.*remove it"):
        start("adamw", tmp_path, steps=2)


def test_checkpoint_of_another_model(tmp_path):
    start("adamw", tmp_path, steps=2)
    with pytest.raises(PapertrialError, match="another model"):
        start("lars-accumulate", tmp_path, steps=2)


def test_checkpoint_holds_windows_and_shared_weights(tmp_path):
    """A buffer that is a window on a larger tensor, a transposed one, and tied weights survive the round trip."""
    model = torch.nn.Module()
    model.register_buffer("window", torch.arange(6.0)[2:4])
    model.register_buffer("turned", torch.arange(6.0).view(2, 3).T)
    model.a = torch.nn.Linear(3, 3)
    model.b = model.a
    before = weights(model)
    checkpoint.save(tmp_path / "c", checkpoint.model_tensors(model), {"x": 1})
    for tensor in checkpoint.model_tensors(model).values():
        tensor.detach().zero_()
    tensors, state = checkpoint.load(tmp_path / "c")
    checkpoint.load_model_tensors(model, tensors)
    same(before, weights(model))
    assert state == {"x": 1}
