"""Schedules, groups, LARS, the weight average, accumulation, budgets and patience."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn
from trainee import CONFIGS, Twin, start, supervised, table, twin, weights

import papertrial as pt
from papertrial.core.budget import Budget
from papertrial.core.errors import DataError, PapertrialError, TrainingStopped
from papertrial.core.recipe import Optim, ranges
from papertrial.core.run import Run
from papertrial.core.task import Split
from papertrial.testing.settings import ends
from papertrial.train.device import accelerator, emulates_bf16
from papertrial.train.loop import train
from papertrial.train.optim import Ema, Lars, make_optimizer, parameter_groups, rate


def go(model, optim, budget, folder, split=None, **options):
    options = {"seed": 3, "progress": False, "device": "cpu", **options}
    return train(model, split or table(), optim, budget, Run(folder), **options)


@pytest.mark.parametrize("total", [1, 2, 7, 1000])
@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_rates(total, schedule):
    optim = Optim(schedule=schedule, warmup=0.1, end_lr=0.2)
    rates = [rate(step, total, optim) for step in range(total)]
    warm = round(0.1 * total)
    assert rates[:warm] == pytest.approx([(step + 1) / warm for step in range(warm)])
    assert rates[warm] == 1.0
    falling = np.diff(rates[warm:])
    assert (falling < 0).all() if schedule == "cosine" else (falling == 0).all()
    assert min(rates[warm:]) > 0.2
    if total == 1000 and schedule == "cosine":
        assert rates[-1] == pytest.approx(0.2, abs=1e-5)
        assert rates[550] == pytest.approx(0.6)  # half-way between 1 and 0.2


def test_warmup_only():
    assert rate(9, 10, Optim(warmup=1.0)) == 1.0


def test_default_groups():
    model = supervised()
    model.no_decay = lambda: {"head.weight"}
    decayed, plain = parameter_groups(model, Optim(weight_decay=0.3))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {names[id(p)] for p in decayed["params"]} == {"encoder.layers.0.weight", "encoder.layers.4.weight"}
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    assert len(decayed["params"]) + len(plain["params"]) == len(names)


def test_own_groups_win_and_keep_their_rate():
    model = supervised()
    heads = {"params": list(model.head.parameters()), "lr": 0.5, "weight_decay": 0.1, "momentum": 0.3}
    model.parameter_groups = lambda optim: [heads, {"params": list(model.encoder.parameters())}]
    optimizer = make_optimizer(model, Optim(optimizer="sgd", lr=0.01))
    assert [group["base_lr"] for group in optimizer.param_groups] == [0.5, 0.01]
    assert [group["momentum"] for group in optimizer.param_groups] == [0.3, 0.9]
    model.parameter_groups = lambda optim: [heads]
    with pytest.raises(ValueError, match="leaves out"):
        make_optimizer(model, Optim())
    model.parameter_groups = lambda optim: [heads, {"params": list(model.parameters())}]
    with pytest.raises(ValueError, match="repeats"):
        make_optimizer(model, Optim())


@pytest.mark.parametrize("name", [name for name, within in ranges(Optim).items() if within.choices != (False, True)])
def test_training_runs_at_the_ends_of_its_ranges(name, tmp_path):
    """It learns, or says why it does not: no step ends in an error of torch."""
    for place, value in enumerate(ends(ranges(Optim)[name])):
        for optimizer in ("adamw", "sgd") if name in ("lr", "weight_decay", "momentum") else ("adamw",):
            optim = dataclasses.replace(Optim(batch=20, optimizer=optimizer), **{name: value})
            try:
                meter = go(supervised(), optim, Budget(steps=2), tmp_path / f"{place}{optimizer}", validate=lambda: 0.0)
                assert meter.steps == 2
            except TrainingStopped:
                assert name in ("lr", "weight_decay")
            except PapertrialError:
                assert name in ("batch", "accumulate")


@pytest.mark.parametrize("change", [{"optimizer": "adamm"}, {"schedule": "cosin"}, {"precision": "bf61"}])
def test_unknown_names_are_met_with_the_known_ones(change, tmp_path):
    with pytest.raises(PapertrialError, match="did you mean"):
        go(supervised(), dataclasses.replace(Optim(batch=20), **change), Budget(steps=1), tmp_path)


def test_lars_equals_the_plain_formula():
    """Against a loop over parameters written from the formula, with a zero weight, a zero gradient and a 1-d weight."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 3), (5,), (2, 3, 2), (3, 3), (2, 2)]
    start_at = [
        torch.randn(shape, generator=generator, dtype=torch.float64) * 10.0**i for i, shape in enumerate(shapes)
    ]
    start_at[3].zero_()
    mine = [nn.Parameter(value.clone()) for value in start_at]
    optimizer = Lars([{"params": mine, "weight_decay": 0.1}], lr=0.3, momentum=0.8, eta=0.02)
    theirs, momenta = [value.clone() for value in start_at], [torch.zeros_like(value) for value in start_at]
    for _ in range(5):
        gradients = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
        gradients[4].zero_()
        for parameter, gradient in zip(mine, gradients, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
        for i, (weight, gradient) in enumerate(zip(theirs, gradients, strict=True)):
            move = gradient.clone()
            if weight.dim() > 1:
                move += 0.1 * weight
                a, b = math.sqrt((weight**2).sum()), math.sqrt((move**2).sum())
                if a > 0 and b > 0:
                    move *= 0.02 * a / b
            momenta[i] = 0.8 * momenta[i] + move
            theirs[i] = weight - 0.3 * momenta[i]
        for parameter, weight in zip(mine, theirs, strict=True):
            torch.testing.assert_close(parameter.detach(), weight, rtol=1e-13, atol=1e-13)


def test_lars_leaves_untouched_what_has_no_gradient():
    used, unused = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    used.grad = torch.ones(2, 2)
    Lars([used, unused], lr=1.0).step()
    assert torch.equal(unused, torch.ones(2, 2))
    assert not torch.equal(used, torch.ones(2, 2))


def test_average_is_the_formula():
    model = nn.Linear(3, 2).to(torch.bfloat16)
    model.bias.requires_grad_(False)
    ema = Ema(model, 0.9)
    expected = model.weight.detach().float()
    for t in range(1, 120):
        with torch.no_grad():
            model.weight.add_(torch.randn(2, 3).to(torch.bfloat16))
        decay = min(0.9, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * model.weight.detach().float()
        ema.update(t)
    assert len(ema.average) == 1
    torch.testing.assert_close(ema.average[0], expected, rtol=1e-5, atol=1e-5)
    before = model.weight.detach().clone()
    with ema.loaded():
        assert torch.equal(model.weight, expected.to(torch.bfloat16))
    assert torch.equal(model.weight, before)


def test_training_ends_with_the_average(tmp_path):
    class Recorder:
        def __init__(self):
            self.seen = []

        def after_step(self, model):
            self.seen.append(model.encoder.first.weight.detach().clone())

    recorder, model = Recorder(), twin()
    expected = model.encoder.first.weight.detach().clone()
    go(model, Optim(batch=20, ema=0.8), Budget(steps=9), tmp_path, techniques=[recorder])
    for t, weight in enumerate(recorder.seen, start=1):
        decay = min(0.8, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * weight
    torch.testing.assert_close(model.encoder.first.weight.detach(), expected, rtol=1e-12, atol=1e-12)
    assert not model.training


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lars"])
def test_micro_batches_equal_the_big_batch(optimizer, tmp_path):
    ends = []
    for accumulate in (1, 3, 20, 50):  # 20 rows: uneven, single rows, and more pieces than rows
        model = twin()
        optim = Optim(optimizer=optimizer, batch=20, lr=0.1, accumulate=accumulate, clip=0.05)
        go(model, optim, Budget(steps=6), tmp_path / str(accumulate))
        ends.append(weights(model))
    for end in ends[1:]:
        for name, tensor in end.items():
            torch.testing.assert_close(tensor, ends[0][name], rtol=1e-9, atol=1e-9)


def test_clipping_is_global(tmp_path):
    norms = []

    class Look:
        def after_step(self, model):
            norms.append(float(torch.stack([p.grad.norm() for p in model.parameters()]).norm()))

    go(twin(), Optim(batch=20, clip=1e-3), Budget(steps=3), tmp_path / "a", techniques=[Look()])
    assert norms == pytest.approx([1e-3] * 3, rel=1e-2)
    norms.clear()
    go(twin(), Optim(batch=20, clip=0), Budget(steps=3), tmp_path / "b", techniques=[Look()], log_every=1)
    assert norms == pytest.approx([row["gradient_norm"] for row in Run(tmp_path / "b").history()])
    assert min(norms) > 1e-3


@pytest.mark.parametrize(
    ("budget", "epochs", "steps"),
    [
        (Budget(steps=7), 0, 7),
        (Budget(samples=101), 0, 5),
        (Budget(samples=3), 0, 1),
        (Budget(steps=7, samples=60), 0, 3),
        (Budget(steps=70), 2, 10),
        (Budget(), 3, 15),
        (Budget(steps=0), 0, 0),
        (Budget(seconds=0.0), 4, 0),
    ],
)
def test_budgets(budget, epochs, steps, tmp_path):
    meter = go(supervised(), Optim(batch=20, epochs=epochs), budget, tmp_path)
    assert (meter.steps, meter.samples) == (steps, 20 * steps)
    assert meter.peak_bytes is None if steps == 0 else meter.peak_bytes > 1e6


def test_no_limit_is_refused(tmp_path):
    with pytest.raises(PapertrialError, match=r"no end.*--budget"):
        go(supervised(), Optim(batch=20), Budget(), tmp_path)


def test_nothing_to_train_returns_at_once(tmp_path):
    class Fixed(nn.Module):
        def loss(self, batch):
            raise AssertionError

    assert go(Fixed(), Optim(), Budget(seconds=1e9), tmp_path).steps == 0
    assert not list(tmp_path.iterdir())


def test_a_slow_validation_is_part_of_the_plan(clock, tmp_path):
    def validate():
        clock.now += 0.1
        return 0.0

    slow = Optim(batch=20, patience=1000)
    go(supervised(), slow, Budget(seconds=1.0), tmp_path, validate=validate, techniques=[clock])
    rows = Run(tmp_path).history()
    assert 0 < rows[0]["planned_steps"] <= 50  # 5 steps an epoch, so at most ten epochs
    assert rows[-1]["step"] == rows[0]["planned_steps"]


def test_float16_is_refused():
    with pytest.raises(PapertrialError, match=r"float16.*precision=bf16"):
        accelerator("fp16")
    with pytest.raises(
        PapertrialError, match=r"precision is 'fp16', but it takes auto or fp32 or bf16; did you mean 'bf16'"
    ):
        Optim(precision="fp16")


@pytest.mark.parametrize(
    ("has", "emulated"),
    [
        ({"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": False}, True),
        ({"architecture": "x86_64", "avx512_bf16": True}, False),
        ({"architecture": "x86_64", "amx_bf16": True}, False),
        ({"architecture": "aarch64"}, False),
        ({}, False),
    ],
)
def test_cpus_that_emulate_bfloat16(has, emulated, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert emulates_bf16() is emulated
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert not emulates_bf16()


def test_a_run_tells_that_bfloat16_is_slow_here(tmp_path, monkeypatch):
    how = {"recipe": "tiny", "budget": "2steps", "progress": False}
    monkeypatch.setattr("papertrial.train.device.emulates_bf16", lambda: True)
    for precision, told in (("bf16", True), ("fp32", False)):
        artifact = pt.fit("mlp_mixer", "digits", out=tmp_path / precision, settings={"precision": precision}, **how)
        assert any("bfloat16" in note for note in artifact.card["notes"]) is told


def test_missing_gpu_and_rows(tmp_path):
    if not torch.cuda.is_available():
        with pytest.raises(PapertrialError, match="no CUDA"):
            go(supervised(), Optim(), Budget(steps=1), tmp_path, device="cuda")
    with pytest.raises(DataError, match="0 training rows"):
        go(supervised(), Optim(), Budget(steps=1), tmp_path, split=table(rows=0))


def test_patience_keeps_the_best_weights(tmp_path):
    scores, seen = [0.1, 0.5, float("nan"), 0.4, 0.5, 0.9], []
    model = supervised()

    def validate():
        seen.append(weights(model))
        return scores[len(seen) - 1]

    meter = go(model, Optim(batch=20, patience=3), Budget(steps=1000), tmp_path, validate=validate)
    assert len(seen) == 5
    assert meter.steps == 25
    for name, tensor in weights(model).items():
        assert torch.equal(tensor, seen[1][name])
    logged = [row["validation"] for row in Run(tmp_path).history() if "validation" in row]
    assert logged == [0.1, 0.5, None, 0.4, 0.5]


def test_patience_judges_the_average_where_that_is_what_will_be_kept(tmp_path):
    """The averages that are judged are Ema's of the raw weights after each step; the training itself goes on with the raw ones."""
    model, judged, raw = supervised(), [], []

    class Recorder:
        def after_step(self, model):
            raw.append(weights(model))

    def validate():
        judged.append(weights(model))
        return float(len(judged))

    optim = Optim(batch=20, lr=0.05, ema=0.8, patience=9)
    go(model, optim, Budget(steps=10), tmp_path, validate=validate, techniques=[Recorder()])
    twin = supervised()
    ema, expected = Ema(twin, 0.8), []
    for step, held in enumerate(raw):
        twin.load_state_dict(held)
        ema.update(step + 1)
        if (step + 1) % 5 == 0:
            with ema.loaded():
                expected.append(weights(twin))
    assert len(judged) == 2
    for own, other, now in zip(judged, expected, (raw[4], raw[9]), strict=True):
        for name, tensor in own.items():
            torch.testing.assert_close(tensor, other[name])
        assert any(not torch.equal(tensor, now[name]) for name, tensor in own.items())


def test_techniques_are_called_in_order_and_choose_what_is_trained(tmp_path):
    calls = []

    class Technique:
        def prepare(self, model):
            calls.append("prepare")

        def parameters(self, model):
            return model.head.parameters()

        def before_step(self, model):
            assert model.head.weight.grad is not None
            assert model.encoder.layers[0].weight.grad is None
            calls.append("before_step")

        def after_step(self, model):
            calls.append("after_step")

        def finish(self, model):
            assert not model.training
            calls.append("finish")

    model = supervised()
    before = weights(model)
    go(model, Optim(batch=20), Budget(steps=2), tmp_path, techniques=[Technique(), object()])
    assert calls == ["prepare", "before_step", "after_step", "before_step", "after_step", "finish"]
    assert torch.equal(model.encoder.layers[0].weight, before["encoder.layers.0.weight"])
    assert not torch.equal(model.head.weight, before["head.weight"])


def test_channels_last_and_images(tmp_path):
    class Net(nn.Module):
        width = 4

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, image):
            assert not self.training or image.is_contiguous(memory_format=torch.channels_last)
            return self.conv(image).mean((2, 3))

    from papertrial.nn.heads import Supervised

    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (30, 6, 5, 3), dtype=np.uint8)
    split = Split({"image": pixels, "label": np.arange(30) % 3})
    model = Supervised(Net(), 3)
    assert go(model, Optim(batch=10, channels_last=True), Budget(steps=3), tmp_path, split=split).steps == 3


def test_compile_trains_and_a_failure_is_one_line(tmp_path, monkeypatch):
    import torch._dynamo.exc

    def fail(self, *arguments, **more):
        monkeypatch.setattr(nn.Module, "compile", lambda self: None)
        raise torch._dynamo.exc.Unsupported("graph break\nlong trace")

    monkeypatch.setattr(nn.Module, "compile", lambda self: None)
    monkeypatch.setattr(Twin, "loss", fail)
    with pytest.raises(PapertrialError, match=r"cannot compile this model \(graph break\); use --set compile=false"):
        go(twin(), Optim(batch=20, compile=True), Budget(steps=1), tmp_path)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch looks at it while tracing, and hides its own warning
def test_compiled_layers_learn_the_same_and_nothing_else_is_compiled(tmp_path, monkeypatch):
    """Rows of mixed lengths, compiled without a C++ compiler; a validation and what follows the training are not."""
    from torch._dynamo.testing import CompileCounter

    from papertrial.nn.transformer import Encoder, Ids, bert_layout

    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.encoder = Encoder(Ids(9), bert_layout(8, 2, 2, 16, longest=20, dropout=0.0))

        def loss(self, batch):
            return self.encoder(batch["ids"]).square().sum(1).mean()

    lengths = np.random.default_rng(0).integers(2, 12, 40)
    ids = np.random.default_rng(1).integers(1, 9, (40, 12)) * (np.arange(12) < lengths[:, None])
    counter, compile_ = CompileCounter(), nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: compile_(self, backend=counter))
    torch._dynamo.reset()
    found, programs = [], []
    for compiled in (False, True):
        model, optim = Reader(), Optim(batch=8, compile=compiled, patience=9, lr=1e-2)

        def judged(model=model):
            before = counter.frame_count
            value = -float(model.encoder(torch.from_numpy(ids[:7])).sum().detach())
            programs.append(counter.frame_count - before)
            return value

        go(model, optim, Budget(steps=12), tmp_path / str(compiled), Split({"ids": ids}), validate=judged)
        traced = counter.frame_count
        judged()
        assert counter.frame_count == traced and (traced > 0) == compiled
        found.append(weights(model))
    assert len(programs) > 3 and not any(programs), "a validation was compiled"
    for name, weight in found[0].items():
        torch.testing.assert_close(found[1][name], weight)


def test_two_precisions_in_one_process(tmp_path):
    one, _ = start("bf16", tmp_path / "a", steps=3)
    other, _ = start("adamw", tmp_path / "b", steps=3)
    assert {tensor.dtype for tensor in weights(one).values()} == {torch.float32, torch.int64}
    first, second = weights(one)["head.weight"], weights(other)["head.weight"]
    assert not torch.equal(first, second)
    torch.testing.assert_close(first, second, rtol=0, atol=0.02)


def test_same_seed_same_bits_other_seed_other_bits(tmp_path):
    ends = [
        weights(start("adamw", tmp_path / str(i), steps=4, seed=seed)[0])["head.weight"]
        for i, seed in enumerate((1, 1, 2))
    ]
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


def test_configurations_differ():
    assert len({repr(optim) for _, optim in CONFIGS.values()}) == len(CONFIGS)
