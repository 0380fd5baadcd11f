"""Memory asked before: what a step needs, the gradient of a batch read in pieces, and refusals under a real limit."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from trainee import supervised, table

from papertrial.core.budget import Budget
from papertrial.core.errors import Declined, TrainingStopped
from papertrial.core.memory import ran_out
from papertrial.core.recipe import Optim
from papertrial.core.run import Run
from papertrial.core.task import Split
from papertrial.nn.batches import forward_batches
from papertrial.train import checkpoint, memory
from papertrial.train.device import accelerator
from papertrial.train.loop import train
from papertrial.train.updates import Updates


class Wide(nn.Module):
    width = 4

    def __init__(self, hidden=1000):
        super().__init__()
        self.first, self.second = nn.Linear(6, hidden, dtype=torch.float64), nn.Linear(hidden, 4, dtype=torch.float64)

    def forward(self, x):
        return self.second(self.first(x.double()).tanh())


class Contrast(nn.Module):
    """An objective whose loss needs all rows of a batch at once."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder
        self.register_buffer("calls", torch.zeros(()))

    def loss(self, batch):
        self.calls += 1
        one, two = self.encoder(batch["numeric"]), self.encoder(batch["numeric"] + 0.1)
        return F.cross_entropy(F.normalize(one, dim=1) @ F.normalize(two, dim=1).T / 0.1, torch.arange(len(one)))


def contrast(**options):
    torch.manual_seed(0)
    return Contrast(Wide(**options))


def updates(model, batch=64):
    split = Split({"numeric": table(100)["numeric"]}) if isinstance(model, Contrast) else table(100)
    return Updates(model, split, Optim(batch=batch), 0, accelerator(device="cpu"))


def test_what_autograd_keeps_is_counted():
    weight = memory.weigh(updates(contrast()), 64)
    # of each of two views: the input as float64, the hidden layer once, and float32 of what the first view was made from
    assert weight.inside == pytest.approx(2 * 8 * (1000 + 6), rel=0.05) and weight.encoded == 2
    assert 0 < weight.outside < 1000 and weight.fixed == 3 * sum(p.nbytes for p in contrast().parameters())
    assert weight.largest == (8 * 1000, 8 * 1000) and weight.step(64) > 64 * weight.inside


def test_measuring_moves_nothing():
    model = contrast()
    held, before = updates(model), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    memory.weigh(held, 64)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("piece", [1, 5, 16, 63])
def test_the_gradient_is_that_of_the_same_batch(piece):
    rows = {"numeric": torch.from_numpy(table(64)["numeric"])}
    whole, cut = contrast(), contrast()
    most = []
    cut.encoder.first.register_forward_hook(lambda module, inputs, output: most.append(len(output)))
    whole.loss(rows).backward()
    with memory.in_pieces(cut.encoder, piece):
        loss = cut.loss(rows)
        loss.backward()
    assert loss.item() == pytest.approx(whole.loss(rows).item(), rel=1e-12)
    for one, other in zip(whole.parameters(), cut.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-10, atol=1e-14)
    assert max(most) <= piece and "forward" not in vars(cut.encoder)


def test_dropout_is_drawn_alike_when_a_piece_is_made_again():
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(6, 32), nn.Dropout(0.5), nn.Linear(32, 1, bias=False))
    x = torch.from_numpy(table(40)["numeric"])
    with memory.in_pieces(encoder, 7):
        out = encoder(x)
        out.sum().backward()
    # d out / d last weight is the hidden layer after dropout, summed over the rows: its product with the weight is the sum
    product = (encoder[2].weight.grad * encoder[2].weight.detach()).sum()
    assert product.item() == pytest.approx(out.sum().item(), rel=1e-4)


def test_the_plan_follows_the_room():
    held = updates(contrast())
    weight = memory.weigh(held, 64)
    assert memory.plan(held, weight.step(64)) == (0, "")
    piece, words = memory.plan(held, weight.step(64) - 1)
    assert 1 <= piece < 128 and "the result is that of the same batch" in words
    piece, _ = memory.plan(held, weight.fixed + int(1.25 * 64 * weight.outside + 1.5 * weight.piece))
    assert piece == 1
    with pytest.raises(
        Declined, match=r"a step of 64 rows needs about .* and 1 kB are free for it; not even one row fits"
    ):
        memory.plan(held, 1000)
    dependent = updates(supervised(), batch=64)  # its batch norm sees the whole batch
    with pytest.raises(Declined, match=r"use --set batch=\d+, or keep it with --set accumulate=\d+"):
        memory.plan(dependent, memory.weigh(dependent, 64).step(64) - 1)
    assert memory.apart(Wide()) and not memory.apart(supervised().encoder)


def test_a_training_reads_in_pieces_where_it_must_and_goes_on_so(tmp_path, monkeypatch, capsys):
    split, optim = Split({"numeric": table(100)["numeric"]}), Optim(batch=50, warmup=0.0)

    def go(folder, steps, **options):
        model = contrast()
        train(model, split, optim, Budget(steps=steps), Run(folder), seed=3, progress=True, device="cpu", **options)
        return model

    whole = go(tmp_path / "whole", 4)
    assert not (tmp_path / "whole" / "memory.json").exists()
    weight = memory.weigh(updates(contrast(), 50), 50)
    monkeypatch.setattr(
        memory, "free_memory", lambda device: int((weight.step(50) - 1 + memory._RESERVE) / memory._SHARE)
    )
    cut = go(tmp_path / "cut", 4)
    assert "memory: a step of 50 rows needs about" in capsys.readouterr().err
    held = json.loads((tmp_path / "cut" / "memory.json").read_text())
    assert 0 < held["piece"] < 100
    for one, other in zip(
        checkpoint.model_tensors(whole).values(), checkpoint.model_tensors(cut).values(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
    monkeypatch.setattr(memory, "plan", lambda updates: pytest.fail("a run that goes on asks nothing"))
    go(tmp_path / "cut", 4)


def test_memory_that_runs_out_on_the_way_is_named(tmp_path):
    model = contrast()
    calls = []

    def loss(batch, real=model.loss):
        calls.append(1)
        if len(calls) == 4:  # the first of them is that of the plan
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")
        return real(batch)

    model.loss = loss
    split = Split({"numeric": table(100)["numeric"]})
    with pytest.raises(TrainingStopped, match=r"memory ran out in step 3, .* use --set batch=25"):
        train(model, split, Optim(batch=50), Budget(steps=9), Run(tmp_path), seed=0, progress=False, device="cpu")


def test_answers_take_as_many_rows_as_fit():
    seen = []

    def function(x):
        seen.append(len(x))
        if len(x) > 10:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return 2 * x

    x = np.arange(37, dtype=np.float32)
    np.testing.assert_array_equal(forward_batches(function, Split({"x": x}), ("x",), 32), 2 * x)
    assert seen[:3] == [32, 16, 8] and sum(count for count in seen if count <= 10) == 37
    with pytest.raises(RuntimeError, match="shapes"):
        forward_batches(lambda x: (_ for _ in ()).throw(RuntimeError("shapes")), Split({"x": x}), ("x",), 32)


@pytest.mark.parametrize(
    ("error", "is_it"),
    [(MemoryError(), True), (np._core._exceptions._ArrayMemoryError((9,), np.dtype(float)), True),
     (torch.OutOfMemoryError("CUDA out of memory"), True), (RuntimeError("std::bad_alloc"), True),
     (OSError(12, "Cannot allocate memory"), True), (RuntimeError("mat1 and mat2 shapes"), False)],
)  # fmt: skip
def test_what_counts_as_out_of_memory(error, is_it):
    assert (ran_out(error) is not None) == is_it


LIMITED = """
import resource, sys
import psutil, torch
sys.path[:0] = sys.argv[2].split(":")
from test_memory import contrast, table, train, Optim, Budget, Run, Split
from papertrial.core import memory
torch.set_num_threads(1)
import torch._dynamo, torch.utils.tensorboard
held = psutil.Process().memory_info().vms
limit = held + int(sys.argv[3])
free = memory.free_memory()
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
assert memory.free_memory() < free and memory.free_memory() <= int(sys.argv[3]) and memory.machine_memory() == limit
split = Split({"numeric": table(1000)["numeric"]})
meter = train(contrast(hidden=40_000), split, Optim(batch=800), Budget(steps=1), Run(sys.argv[1]), seed=0, progress=True, device="cpu")
print(meter.steps)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space are Linux's")
@pytest.mark.parametrize(
    ("room", "said"), [(900_000_000, "the result is that of the same batch"), (200_000_000, "are free")]
)
def test_under_a_real_limit(tmp_path, room, said):
    """Two views of 800 rows keep 0.5 GB: read whole they are too much for both limits."""
    pytest.importorskip("resource")
    path = ":".join(folder for folder in sys.path if folder)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LIMITED, str(tmp_path / "run"), path, str(room)],
        capture_output=True,
        text=True,
    )
    assert said in done.stderr and "DefaultCPUAllocator" not in done.stderr, done.stderr[-600:]
    assert (done.returncode == 0) == (room > 5e8)
