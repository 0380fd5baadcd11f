"""The hooks of techniques against plain loops: gradients of single rows, processes that differ, weights that must not change."""

import os
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from trainee import Double, supervised, table

from papertrial.core.budget import Budget
from papertrial.core.errors import Declined, PapertrialError
from papertrial.core.files import read_json
from papertrial.core.recipe import Optim
from papertrial.core.run import Run
from papertrial.nn.batches import Batches
from papertrial.nn.ranks import mean_
from papertrial.testing import bench, in_ranks
from papertrial.train import checkpoint
from papertrial.train.loop import train
from papertrial.train.technique import Moment, Techniques, proofs

SGD = Optim(
    optimizer="sgd", momentum=0.0, lr=0.5, batch=20, clip=0.0, weight_decay=0.0, schedule="constant", warmup=0.0
)


class Plain(nn.Module):
    """Classes from a float64 network, a loss with a number beside it, and a weight that is used twice."""

    inputs = ("numeric",)

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.encoder = Double(6, 8, 6)
        self.head = nn.Linear(6, 2).double()

    def loss(self, batch):
        x = self.encoder(batch["numeric"])
        x = x + F.linear(x, self.encoder.second.weight.T[:6, :6])
        lost = F.cross_entropy(self.head(x), batch["label"])
        return {"loss": lost, "size": x.square().mean()}


@dataclass(frozen=True)
class Clip:
    bound: float = 0.1

    def per_example(self, gradients, at):
        norm = torch.stack([g.flatten(1).square().sum(1) for g in gradients.values()]).sum(0).sqrt()
        share = (self.bound / norm).clamp(max=1.0)
        return {name: g * share.view(-1, *(1,) * (g.ndim - 1)) for name, g in gradients.items()}


@dataclass(frozen=True)
class Poisson(Clip):
    def draws(self, at, examples):
        return (torch.rand(examples, generator=at.generator()) < at.rows / examples).nonzero().flatten().numpy()


@dataclass(frozen=True)
class Nobody(Clip):
    """No row at all at the second step."""

    def draws(self, at, examples):
        return np.arange(0 if at.step == 1 else 7)


def rows_of(step, optim=SGD):
    batches = Batches(table(), optim.batch, 3)
    return batches.rows(step)


def looped(model, rows, bound, total):
    """One step of SGD on clipped gradients, row by row."""
    split, sums = table(), {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for row in rows:
        batch = {name: torch.from_numpy(split[name][row : row + 1]) for name in ("numeric", "label")}
        model.zero_grad()
        model.loss(batch)["loss"].backward()
        norm = torch.stack([p.grad.square().sum() for p in model.parameters()]).sum().sqrt()
        for name, parameter in model.named_parameters():
            sums[name] += parameter.grad * min(1.0, bound / float(norm))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter -= SGD.lr * sums[name] / total


def start(folder, techniques, *, optim=SGD, steps=3, model=None, **more):
    model = model or Plain()
    options = {"seed": 3, "progress": False, "device": "cpu", "log_every": 1, "checkpoint_seconds": 0.0, **more}
    train(model, table(), optim, Budget(steps=steps), Run(folder), techniques=techniques, **options)
    return model


def close(one, other, tolerance=1e-12):
    for (name, ours), theirs in zip(one.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_rows_are_clipped_as_in_a_plain_loop(accumulate, tmp_path):
    plain = Plain()
    for step in range(3):
        looped(plain, rows_of(step), 0.1, 20)
    ours = start(tmp_path, [Clip()], optim=replace(SGD, accumulate=accumulate))
    close(ours, plain)
    far = start(tmp_path / "far", [Clip(bound=1e9)])
    with pytest.raises(AssertionError):
        close(far, plain, 1e-6)


def test_without_a_bound_it_is_plain_training(tmp_path):
    close(start(tmp_path / "a", [Clip(bound=1e9)]), start(tmp_path / "b", []))
    logged = [[(row["loss"], row["size"]) for row in Run(tmp_path / name).history()] for name in "ab"]
    assert np.allclose(*logged, rtol=1e-12)


def test_texts_of_different_length(tmp_path):
    """Without a bound, a text model with padding and attention learns what it learns otherwise."""
    b = bench("text_transformer")
    models = [b.model(), b.model()]
    for model, techniques in zip(models, ([Clip(bound=1e9)], []), strict=True):
        folder = tmp_path / str(len(techniques))
        optim = replace(SGD, batch=16, lr=0.1)
        train(
            model, b.rows(model), optim, Budget(steps=2), Run(folder), seed=3, progress=False, device="cpu",
            techniques=techniques,
        )  # fmt: skip
    close(*models, 1e-5)


def test_rows_of_a_step_may_be_any_number(tmp_path):
    """Poisson draws, none at all, and the divisor is what was asked for."""
    plain = Plain()
    drawn = [Poisson().draws(Moment(3, step, 3, 0, 1, 20, torch.device("cpu")), 100) for step in range(3)]
    assert len({len(rows) for rows in drawn}) > 1
    for rows in drawn:
        looped(plain, rows, 0.1, 20)
    close(start(tmp_path / "a", [Poisson()], optim=replace(SGD, accumulate=2)), plain)
    plain = Plain()
    for rows in (range(7), (), range(7)):
        looped(plain, rows, 0.1, 20)
    close(start(tmp_path / "b", [Nobody()]), plain)


def test_many_rows_go_in_pieces(tmp_path, monkeypatch):
    whole = start(tmp_path / "a", [Clip()])
    monkeypatch.setattr("papertrial.train.per_example._ROOM", 600)  # a few rows of this network
    close(start(tmp_path / "b", [Clip()]), whole)


def test_what_has_no_gradient_for_a_row_is_refused(tmp_path):
    with pytest.raises(Declined, match=r"normalises each row by the others .*layers.1.*--host"):
        start(tmp_path / "a", [Clip()], model=supervised())

    class Pairs(Plain):
        def loss(self, batch):
            x = self.encoder(batch["numeric"])
            return torch.logsumexp(x @ x.T, 1).mean()

    with pytest.raises(Declined, match="compares rows with each other"):
        start(tmp_path / "b", [Clip()], model=Pairs())

    class Asks(Plain):
        def loss(self, batch):
            if batch["numeric"].sum() > 1e9:
                return super().loss(batch)["loss"] * 2
            return super().loss(batch)["loss"]

    with pytest.raises(Declined, match="cannot be differentiated row by row"):
        start(tmp_path / "c", [Clip()], model=Asks())


def test_dropout_is_drawn_for_each_row(tmp_path):
    """Masks of a step depend on the step alone, so a resumed training repeats them."""

    class Dropped(Plain):
        def loss(self, batch):
            x = F.dropout(self.encoder(batch["numeric"]), 0.5, self.training)
            return F.cross_entropy(self.head(x), batch["label"])

    close(start(tmp_path / "a", [Clip()], model=Dropped()), start(tmp_path / "b", [Clip()], model=Dropped()), 0.0)


# processes that differ


@dataclass(frozen=True)
class Local:
    every: int = 2
    stop: int = 0

    def share_gradients(self, model, at):
        pass

    def after_step(self, model, at):
        if at.step + 1 == self.stop:
            raise KeyboardInterrupt
        if (at.step + 1) % self.every == 0:
            mean_([parameter.data for parameter in model.parameters()])


ADAM = Optim(batch=20, lr=1e-2, weight_decay=0.0, clip=0.0, schedule="constant", warmup=0.0, beta2=0.9)


def on_ranks(rank, folder):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="localhost", MASTER_PORT="0")

    def keep(name, model):
        held = {key: p.detach().contiguous() for key, p in model.named_parameters()}
        checkpoint.save_file(held, folder / f"{name}{rank}.safetensors")

    keep("whole", start(folder / "whole", [Local()], optim=ADAM, steps=5))
    for stop in (2, 4):  # while they differ, and in the step in which they meet
        with pytest.raises(KeyboardInterrupt):
            start(folder / "parts", [Local(stop=stop)], optim=ADAM, steps=5)
    keep("parts", start(folder / "parts", [Local()], optim=ADAM, steps=5))
    with pytest.raises(KeyboardInterrupt):
        start(folder / "left", [Local(stop=4)], optim=ADAM, steps=5)
    keep("rows", start(folder / "rows", [Clip()]))


def test_two_processes(tmp_path):
    wait = in_ranks(on_ranks, tmp_path)
    # what two processes do, written out: each its own rows and moments, and the mean of weights every two steps and at the end
    models = [Plain(), Plain()]
    optimizers = [torch.optim.AdamW(m.parameters(), lr=1e-2, betas=(0.9, 0.9), weight_decay=0.0) for m in models]
    split, batches = table(), [Batches(table(), 20, 3, rank, 2) for rank in range(2)]
    for step in range(5):
        for model, optimizer, own in zip(models, optimizers, batches, strict=True):
            rows = own.rows(step)
            optimizer.zero_grad()
            model.loss({name: torch.from_numpy(split[name][rows]) for name in ("numeric", "label")})["loss"].backward()
            optimizer.step()
        if step in (1, 3, 4):
            with torch.no_grad():
                for one, two in zip(*(model.parameters() for model in models), strict=True):
                    mean = (one + two) / 2
                    one.copy_(mean), two.copy_(mean)
    one = start(tmp_path / "one", [Clip()])
    wait()
    held = {
        (name, rank): load_file(tmp_path / f"{name}{rank}.safetensors")
        for name in ("whole", "parts", "rows")
        for rank in (0, 1)
    }
    for name, parameter in models[0].named_parameters():
        torch.testing.assert_close(held["whole", 0][name], parameter.detach(), rtol=1e-10, atol=1e-12)
        for key in (("whole", 1), ("parts", 0), ("parts", 1)):
            assert torch.equal(held[key][name], held["whole", 0][name]), (key, name)
    for name, parameter in one.named_parameters():  # single rows on two processes as on one
        torch.testing.assert_close(held["rows", 0][name], parameter.detach(), rtol=1e-12, atol=1e-12)
        assert torch.equal(held["rows", 0][name], held["rows", 1][name])
    # the weights of one of the two are not the whole state
    with pytest.raises(PapertrialError, match=r"left by 2 processes .* --nproc-per-node 2"):
        start(tmp_path / "left", [Local()], optim=ADAM, steps=5)


# what is trained, and what is not


class HeadOnly:
    def parameters(self, model):
        return model.head.parameters()


class Touches(HeadOnly):
    """Claims to train the head, and moves something else."""

    def after_step(self, model):
        model.encoder.first.weight.data[0, 0] += 1e-9


def test_what_is_not_trained_is_proved_unchanged(tmp_path):
    model = start(tmp_path / "a", [HeadOnly()])
    before = Plain()
    assert torch.equal(model.encoder.first.weight, before.encoder.first.weight)
    assert not torch.equal(model.head.weight, before.head.weight)
    found = proofs([Run(tmp_path / "a")])
    kept = sum(p.numel() for p in model.encoder.parameters())
    assert (found["trained"], found["kept"], found["unchanged"]) == (14, kept, True)
    assert proofs([Run(tmp_path / "b")]) is None
    with pytest.raises(PapertrialError, match=r"weights encoder.first.weight were not to be trained"):
        start(tmp_path / "b", [Touches()])
    assert "unchanged" not in read_json(tmp_path / "b" / "frozen.json")


def test_the_sum_is_of_the_beginning_also_after_a_resume(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, [HeadOnly(), Local(stop=2)])
    torch.manual_seed(2)
    other = Plain()
    other.encoder.first.weight.data.normal_()  # what it is built with is not what it began with
    start(tmp_path, [HeadOnly()], model=other)
    assert proofs([Run(tmp_path)])["unchanged"]


def test_no_parameters_to_train(tmp_path):
    class None_:
        def parameters(self, model):
            return []

    with pytest.raises(Declined, match="none of the parameters"):
        start(tmp_path, [None_()])


# the loss, and who decides


def test_a_technique_changes_the_loss(tmp_path):
    class Twice:
        def loss(self, model, batch, own):
            found = own(batch)
            return {**found, "loss": 2 * found["loss"], "once": found["loss"].detach()}

    half = replace(SGD, lr=SGD.lr / 2)
    close(start(tmp_path / "a", [Twice()], optim=half), start(tmp_path / "b", []))
    close(start(tmp_path / "c", [Twice(), Twice()], optim=replace(SGD, lr=SGD.lr / 4)), start(tmp_path / "d", []))
    row = Run(tmp_path / "a").history()[0]
    assert row["loss"] == pytest.approx(2 * row["once"])


def test_hooks_take_the_moment_where_they_ask_for_it(tmp_path):
    seen = []

    class Asks:
        def prepare(self, model, rows):
            seen.append(rows.examples)

        def before_step(self, model, at):
            seen.append((at.step, at.total, at.rank, at.world, at.rows))

        def after_step(self, model):
            seen.append("after")

    start(tmp_path, [Asks()], steps=2)
    assert seen == [100, (0, 2, 0, 1, 20), "after", (1, 2, 0, 1, 20), "after"]


def test_two_techniques_cannot_decide_the_same():
    with pytest.raises(Declined, match="how gradients are shared"):
        Techniques([Local(), Local()])

    class Draws:
        def draws(self, at, examples):
            return np.arange(3)

    with pytest.raises(ValueError, match="per_example"):
        Techniques([Draws()])


def test_a_model_that_reads_no_tokens_has_no_input_embeddings(tmp_path):
    class Feeds:
        def embed(self, table):
            return table

    with pytest.raises(Declined, match="reads no tokens"):
        start(tmp_path, [Feeds()])


def test_numbers_of_a_moment_depend_on_its_step_alone():
    here = Moment(3, 5, 9, 0, 2, 20, torch.device("cpu"))
    there = replace(here, rank=1)
    assert torch.equal(*(torch.randn(4, generator=m.generator(1)) for m in (here, there)))
    others = (replace(here, step=6).generator(1), here.generator(2), replace(here, seed=4).generator(1))
    assert all(
        not torch.equal(torch.randn(4, generator=here.generator(1)), torch.randn(4, generator=g)) for g in others
    )
