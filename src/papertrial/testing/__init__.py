"""The battery every paper passes. `check_paper("barlow_twins")` runs it; packages with a paper of their own call it in their CI.

Each check takes a `Bench` (the method, a task of its own and a little real data every machine has) and raises
AssertionError with what it measured. `checks_for(name)` lists the ones that apply.
"""

from __future__ import annotations

import ast
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from papertrial.core import registry
from papertrial.core.budget import Budget
from papertrial.core.errors import Declined, PapertrialError
from papertrial.core.files import to_json
from papertrial.core.offers import offers
from papertrial.core.paper import Report
from papertrial.core.recipe import resolve
from papertrial.core.registry import Method
from papertrial.core.run import Run
from papertrial.core.task import Prepared, Split, Task
from papertrial.data import open as open_data
from papertrial.nn.batches import to_tensors
from papertrial.nn.views import Draw
from papertrial.testing.ranks import in_ranks, kept_folder
from papertrial.testing.settings import settings
from papertrial.testing.steps import first_batch, loss_of
from papertrial.train.loop import train
from papertrial.train.processes import is_main
from papertrial.train.sources import collected, is_source, learnt_from
from papertrial.train.trainer import Trainer
from papertrial.use.artifact import Artifact
from papertrial.use.card import Resolved, build_model
from papertrial.use.choose import default_backbone, host_of, prepare, resolve_method
from papertrial.use.fit import Outcome, fit, fit_prepared

HEADINGS = ("The idea", "The equation", "What matters", "Requires", "Offers", "Relations", "Try", "Cost", "Notation")
#: the task of a paper that trains nothing, or of a technique for all tasks
_SHOWN_ON = ("image_classification",)
#: parts of the names of settings that draw at random
_RANDOM = ("dropout", "stochastic", "jitter")
#: rows of one batch in the checks on values and gradients
_ROWS = 16
#: validation and test rows, at most: a method that answers these as it did answers others so
_JUDGED = 64
BF16_TOLERANCE = 0.08  # of the loss: bfloat16 keeps 8 bits of a mantissa


@dataclass(frozen=True)
class Bench:
    """A method under test, with data prepared for one of its tasks."""

    method: Method
    task: Task
    prepared: Prepared

    def resolved(self, recipe: str = "tiny", **settings: Any) -> Resolved:
        given = {**_backbone_settings(self), **settings}
        return resolve_method(
            self.method, self.prepared, task=self.task, recipe=recipe, backbone=_small_backbone(self), settings=given
        )

    def model(self, seed: int = 0, recipe: str = "tiny", **settings: Any) -> Any:
        """Fresh weights, with the statistics of the inputs fitted."""
        torch.manual_seed(seed)
        model = build_model(self.task, self.resolved(recipe, **settings), self.prepared)
        self.task.training(model, self.prepared)
        return model

    def still(self) -> Any:
        """A model without random masks, for checks that call it twice."""
        names = [entry.name for entry in fields(self.learner.module.Config)]
        below = "host." if self.method.paper.kind == "technique" else ""
        return self.model(**{f"{below}{name}": 0.0 for name in names if any(part in name for part in _RANDOM)})

    @property
    def learner(self) -> Method:
        """The method that makes the model: of a technique, its host."""
        return host_of(self.method, self.task) if self.method.paper.kind == "technique" else self.method

    def rows(self, model: Any) -> Any:
        """What the model is trained on, or a source of it."""
        return learnt_from(model, self.task.training(model, self.prepared))

    def batch(self, model: nn.Module) -> dict[str, Tensor]:
        """The first rows the model would be trained on, views made."""
        rows = self.rows(model)
        rows = collected(rows, model, self.resolved().optim, 0) if is_source(rows) else rows
        return first_batch(model, rows, _ROWS)

    @cached_property
    def trained(self) -> Outcome:
        """The run of the tiny recipe that several checks look at, in a folder that ends with the process."""
        return self.run(kept_folder() / "run")

    def run(self, folder: Path, **changes: Any) -> Outcome:
        return fit_prepared(
            self.method, self.task, self.prepared, out=folder, recipe="tiny", backbone=_small_backbone(self),
            settings=_backbone_settings(self), progress=False, **changes,
        )  # fmt: skip


Check = Callable[[Bench], None]


@cache
def bench(name: str) -> Bench:
    """The bench of a paper or baseline; raises PapertrialError when it has no task with built-in data."""
    method = registry.method(name)
    for key in method.paper.tasks or _SHOWN_ON * bool(method.paper.refusal or method.paper.kind == "technique"):
        task = registry.tasks().get(key)
        if task and registry.kind(task.kind).sample:
            return Bench(method, task, _prepared(key))
    raise PapertrialError(f"{name} names no task with built-in data (tasks: {', '.join(method.paper.tasks) or 'none'})")


@cache
def _prepared(key: str) -> Prepared:
    """The built-in data of a task, which its methods share, with few rows to be judged on."""
    task = registry.task(key)
    prepared = prepare(task, open_data(registry.kind(task.kind).sample), 0)
    return replace(prepared, valid=_spread(prepared.valid), test=_spread(prepared.test))


def _spread(rows: Split) -> Split:
    """`_JUDGED` rows, spread evenly."""
    return rows.take(np.arange(_JUDGED) * rows.examples // _JUDGED) if rows.examples > _JUDGED else rows


def checks_for(name: str) -> dict[str, Check]:
    """The checks that apply to a method, by name."""
    paper = registry.find(name).paper
    kind = paper.kind
    if paper.refusal:
        measured: dict[str, Check] = {"measures": measures} if kind == "analysis" else {}
        return {
            "page": page,
            "settings": settings,
            **measured,
            "declines_training": declines_training,
            "claims": claims,
        }
    found: dict[str, Check] = {
        "page": page,
        "recipes": recipes,
        "settings": settings,
        "unsuitable_data": unsuitable_data,
        "learns": learns,
        "same_seed_same_bits": same_seed_same_bits,
        "saved_and_loaded": saved_and_loaded,
        "claims": claims,
    }
    if kind == "technique":
        return {**found, "resume": resume, "technique_on_two_ranks": technique_on_two_ranks}
    if kind in ("architecture", "objective") and registry.method(name).module.recipes["tiny"].budget.steps != 0:
        found |= {
            "gradients": gradients,
            "directional_derivative": directional_derivative,
            "resume": resume,
            "bfloat16": bfloat16,
            "compiled": compiled,
            "two_ranks": two_ranks,
        }
    return found


def check_paper(name: str) -> None:
    """Run the whole battery on one method; raises AssertionError that lists every check that failed."""
    failures = []
    for label, check in checks_for(name).items():
        try:
            check(bench(name))
        except AssertionError as error:
            failures.append(f"{label}: {error}")
    if failures:
        raise AssertionError(f"{name} fails {len(failures)} checks:\n" + "\n".join(failures))


def page(b: Bench) -> None:
    """The file reads in the fixed order and its docstring has every heading."""
    entry = registry.find(b.method.id)
    tree = ast.parse(entry.file.read_text(encoding="utf-8"))
    text = ast.get_docstring(tree) or ""
    if entry.shelf != "baselines":
        missing = [heading for heading in HEADINGS if heading not in text]
        assert not missing, f"the docstring lacks {', '.join(missing)}"
        assert b.method.paper.arxiv, "PAPER has no arXiv id"
        assert b.method.paper.caveats, "PAPER has no caveats: say what the text hides, or that nothing was found"
    assert entry.file.stem in (b.method.id, "__init__"), f"the file is {entry.file.name} but the id is {b.method.id}"
    order = {"PAPER": 0, "Config": 1, "build": 3, "variants": 4, "recipes": 5}
    places = []
    for node in tree.body:
        names = (
            [node.name]
            if isinstance(node, ast.ClassDef | ast.FunctionDef)
            else [t.id for t in getattr(node, "targets", [getattr(node, "target", None)]) if isinstance(t, ast.Name)]
        )
        places += [order[name] for name in names if name in order]
    assert places == sorted(places), "the order is PAPER, Config, functions, modules, build, variants, recipes"


def recipes(b: Bench) -> None:
    """paper, base and tiny exist and build; variants too (on the meta device: no memory, no time)."""
    module = b.method.module
    if b.method.paper.arxiv:
        assert {"paper", "base", "tiny"} <= set(module.recipes), (
            f"recipes are {', '.join(module.recipes)}; paper, base and tiny are needed"
        )
    for recipe in module.recipes:
        with torch.device("meta"):
            assert build_model(b.task, b.resolved(recipe), b.prepared) is not None


def unsuitable_data(b: Bench) -> None:
    """Data of another kind is declined with a reason."""
    kind = registry.kind(b.task.kind)
    unsuitable = kind.unsuitable or next(name for name in ("table", "images") if name != kind.name)
    other = registry.kind(unsuitable).sample
    supports = b.task.supports(open_data(other).look())
    assert not supports, f"the task {b.task.name} accepts {other}"
    assert supports.why, "it declines without a reason"


def learns(b: Bench) -> None:
    """The tiny recipe lowers its loss and beats the trivial predictor on the test rows; a generator that is trained, which may
    need more than tests have to beat a floor that is not trivial, beats itself with fresh weights. A game has no loss to lower."""
    floor, model, outcome = registry.method(b.task.floors[-1]), b.model(), b.trained
    losses = [row["loss"] for row in Run(outcome.folder).history() if "loss" in row]
    with _folder() as folder:
        if isinstance(model, nn.Module) and offers(model).draw:
            name, trivial = "untrained", b.run(folder / "untrained", budget=Budget(steps=0))
        else:
            name = "trivial predictor's"
            trivial = fit_prepared(floor, b.task, b.prepared, out=folder / "floor", progress=False)
    metric, higher = b.task.primary_for(b.prepared.state)
    ours, least = outcome.metrics[metric], trivial.metrics[metric]
    if b.method.id != floor.id:
        assert (ours > least) == higher, f"{metric} is {ours:.3f}, {name} {least:.3f}"
    if len(losses) > 1 and offers(model).losses is None:
        assert losses[-1] < losses[0], f"the loss went from {losses[0]:.4f} to {losses[-1]:.4f}"


def same_seed_same_bits(b: Bench) -> None:
    """The same command twice gives the same weights and the same answers, bit for bit."""
    with _folder() as folder:
        first, second = b.trained, b.run(folder / "again")
        assert np.array_equal(first.per_example, second.per_example), "two runs of one seed answer differently"
        weights = [path / "model.safetensors" for path in (first.folder, second.folder)]
        if weights[0].exists():
            assert weights[0].read_bytes() == weights[1].read_bytes(), "two runs of one seed have different weights"


def saved_and_loaded(b: Bench) -> None:
    """The artifact answers on the test rows as the run did, in eval mode, in a new object."""
    outcome = b.trained
    artifact = Artifact.load(outcome.folder)
    again = b.task.score(
        b.task.outputs(artifact.model, artifact.head, b.prepared.test), b.prepared.test, b.prepared.state
    )
    assert np.array_equal(again.per_example, outcome.per_example), "the loaded model answers differently"


def claims(b: Bench) -> None:
    """Identity and property claims hold, and draw what they measured; trends and numbers are for `make claims`."""
    for claim in registry.claims(b.method.id):
        if claim.kind in ("identity", "property"):
            held, measured = claim("tiny", 0)
            assert held, f"{claim.name} ({claim.where}) does not hold: {measured}"
            assert claim.plot is None or claim.plot([measured]).curves, f"the figure of {claim.name} is empty"


def measures(b: Bench) -> None:
    """The tiny recipe measures an untrained model, or trains its own, says the same twice, and leaves a model as it was."""
    module = b.method.module
    config, _ = resolve(module.Config, None, {"tiny": module.recipes["tiny"].config})
    if b.method.paper.trains:
        data = open_data(registry.kind(b.task.kind).sample)
        trainer = Trainer.of(b.method.paper)
        first, second = (module.measure(data, data, config, trainer=trainer) for _ in range(2))
    else:
        model = bench("vit").model().encoder.train()
        images = to_tensors(b.prepared.test.take(slice(0, _ROWS)), torch.device("cpu"))["image"]
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        first, second = (module.measure(model, (images,), config) for _ in range(2))
        after = model.state_dict()
        assert model.training and all(torch.equal(tensor, after[name]) for name, tensor in before.items()), (
            "the measurement changed the model"
        )
    assert isinstance(first, Report), f"measure returns a {type(first).__name__}, not a Report"
    assert first == second, "the same measurement twice gives two reports"
    assert first.verdict.endswith("."), "the verdict is not a sentence"
    assert {len(row) for row in first.rows} == {len(first.head)}, "the rows of the table are not as long as its head"
    for curve in (curve for figure in first.figures for curve in figure.curves):
        assert len(curve.x) == len(curve.y) and np.isfinite(curve.y).all(), f"the curve {curve.name} cannot be drawn"
    assert "null" not in to_json(first.figures), "a figure holds numbers that are not finite"


def declines_training(b: Bench) -> None:
    """`fit` refuses it with a reason."""
    said = ""
    try:
        fit(b.method.name, registry.kind(b.task.kind).sample)
    except Declined as refusal:
        said = str(refusal)
    assert said, "fit accepts a paper that trains nothing"
    assert b.method.paper.refusal in said, f"it says no reason: {said}"


def gradients(b: Bench) -> None:
    """Every trainable parameter gets a finite gradient, and every one a non-zero gradient after a few steps."""
    model = b.model()
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.SGD(parameters.values(), lr=1e-2)
    moved: set[str] = set()
    batch = b.batch(model)
    for _ in range(4):  # zero-initialised layers pass no gradient below them at the first step
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        for name, parameter in parameters.items():
            assert parameter.grad is None or bool(torch.isfinite(parameter.grad).all()), (
                f"{name} has a non-finite gradient"
            )
            if parameter.grad is not None and bool(parameter.grad.abs().max() > 0):
                moved.add(name)
        optimizer.step()
    still = sorted(parameters.keys() - moved)
    assert not still, f"no gradient reaches {', '.join(still[:5])}"


def directional_derivative(b: Bench) -> None:
    """In float64 the gradient equals the slope of the loss along random directions (relative 1e-5); in a game, for each player
    the slope of its own loss along directions of its own parameters."""
    model = b.model().double().eval()
    batch = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in b.batch(model).items()}
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # away from zero-initialised heads, where most slopes vanish
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    loss_of(model, batch).backward()
    if offers(model).losses is None:
        _compare_slopes(model, lambda: loss_of(model, batch), generator)
        return
    for player in model.losses(batch):
        _compare_slopes(model.get_submodule(player), partial(_loss_of, model, batch, player), generator)


def _compare_slopes(module: nn.Module, loss: Callable[[], Tensor], generator: torch.Generator) -> None:
    """The gradients that the parameters of `module` have against finite differences of `loss`."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    for _ in range(3):
        direction = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters]
        scale = sum(float(d.square().sum()) for d in direction) ** 0.5
        slope = (
            sum(float((p.grad * d).sum()) for p, d in zip(parameters, direction, strict=True) if p.grad is not None)
            / scale
        )
        sides = []
        for step in (1e-6, -2e-6, 1e-6):  # forth, back, home again
            with torch.no_grad():
                for parameter, d in zip(parameters, direction, strict=True):
                    parameter.add_(d, alpha=step / scale)
            sides.append(float(loss().detach()))
        measured = (sides[0] - sides[1]) / 2e-6
        assert abs(measured - slope) <= 1e-5 * max(1.0, abs(slope)), f"slope {measured:.8g}, gradient says {slope:.8g}"


def resume(b: Bench) -> None:
    """Stopped at half and started again, training ends with the same weights, bit for bit."""
    optim = b.resolved().optim
    steps = 8
    with _folder() as folder:
        whole, halved = b.model(), b.model()
        _train(b, whole, optim, steps, folder / "whole")
        with _stopping_at(halved, steps // 2), suppress(KeyboardInterrupt):
            _train(b, halved, optim, steps, folder / "half")
        resumed = b.model(seed=1)  # other weights: everything must come from the checkpoint
        _train(b, resumed, optim, steps, folder / "half")
    for (name, ours), theirs in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), f"{name} differs after a resume"


def bfloat16(b: Bench) -> None:
    """Under bfloat16 autocast the loss stays within BF16_TOLERANCE of float32."""
    model = b.still()
    batch = b.batch(model)
    exact = float(loss_of(model, batch).detach())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = float(loss_of(model, batch).detach())
    assert abs(rounded - exact) <= BF16_TOLERANCE * max(abs(exact), 1e-3), (
        f"loss {exact:.5g} in float32, {rounded:.5g} in bfloat16"
    )


def compiled(b: Bench) -> None:
    """`torch.compile` traces the loss (ahead-of-time, eager kernels) and agrees on value and gradients to 1e-5."""
    model, twin = b.still(), b.still()
    batch = b.batch(model)
    with warnings.catch_warnings():  # where a part is left out of the graph, torch looks at tensors that have no .grad
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
        loss, traced = (
            loss_of(model, batch),
            torch.compile(lambda rows: loss_of(twin, rows), backend="aot_eager")(batch),
        )
    assert torch.allclose(loss, traced, rtol=1e-5, atol=1e-6), f"loss {loss.item():.7g}, compiled {traced.item():.7g}"
    loss.backward()
    traced.backward()
    for (name, ours), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        if ours.grad is not None:
            assert theirs.grad is not None, f"{name} has no gradient when compiled"
            assert torch.allclose(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5), (
                f"the gradient of {name} differs when compiled"
            )


def two_ranks(b: Bench) -> None:
    """The gradient of two processes on half a batch each equals one process on the whole batch (float64, 1e-9)."""
    with _folder() as folder:
        wait = in_ranks(_shared_gradient, b.method.name, folder)
        one = _gradient(b)
        wait()
        two = dict(np.load(folder / "gradient.npz", allow_pickle=False))
    for key, gradient in one.items():
        error = float(np.abs(gradient - two[key]).max()) / max(float(np.abs(gradient).max()), 1e-6)
        assert error <= 1e-9, f"the gradient of {key} is {error:.2e} off on two ranks"


def technique_on_two_ranks(b: Bench) -> None:
    """Two processes train with it to the weights of one (float64, 1e-9); where it shares gradients in a way of its own, both
    end with the same weights, which are finite."""
    with _folder() as folder:
        wait = in_ranks(_shared_training, b.method.name, folder)
        one = _trained_weights(b, folder / "one")
        wait()
        first, second = (dict(np.load(folder / f"rank{rank}.npz", allow_pickle=False)) for rank in range(2))
    resolved = b.resolved()
    alone = not any(hasattr(technique.made, "share_gradients") for technique in resolved.techniques)
    # Adam makes a step of about the learning rate out of any gradient, one that is nothing but rounding errors too
    least = max(1e-6, resolved.optim.lr)
    for key, weights in one.items():
        assert np.array_equal(first[key], second[key]), f"{key} differs between two ranks after the training"
        assert np.isfinite(first[key]).all(), f"{key} is not finite on two ranks"
        error = float(np.abs(weights - first[key]).max(initial=0.0)) / max(
            float(np.abs(weights).max(initial=0.0)), least
        )
        assert not alone or error <= 1e-9, f"{key} is {error:.2e} off on two ranks"


def _trained_weights(b: Bench, folder: Path) -> dict[str, np.ndarray]:
    """After a few steps in float64 without random masks."""
    model = b.still()
    rows, optim = b.rows(model), replace(b.resolved().optim, patience=0)
    loss = model.double().loss
    model.loss = lambda batch: loss({key: x.double() if x.is_floating_point() else x for key, x in batch.items()})
    _train(b, model, optim, 3, folder, rows)
    return {key: weights.detach().numpy() for key, weights in model.named_parameters()}


def _shared_training(rank: int, name: str, folder: Path) -> None:
    """In one of the two processes of `technique_on_two_ranks`."""
    # by which Accelerate counts processes; they have met already
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="localhost", MASTER_PORT="0")
    np.savez(folder / f"rank{rank}.npz", **_trained_weights(bench(name), folder / "two"))


def _gradient(b: Bench, rank: int = 0, world: int = 1) -> dict[str, np.ndarray]:
    """The gradient of a rank's slice of the global batch, averaged over ranks as DDP does, away from zero weights."""
    model = b.still().double().train()  # every rank draws its own masks: they are not part of this identity
    count = _ROWS // world
    rows = b.task.training(model, b.prepared).take(slice(rank * count, (rank + 1) * count))
    batch = to_tensors(rows, torch.device("cpu"))
    batch = {key: tensor.double() if tensor.is_floating_point() else tensor for key, tensor in batch.items()}
    views = offers(model).views
    if views:
        batch = views(batch, Draw(0, 0, _ROWS, rank * count, count, torch.device("cpu")))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    loss_of(model, batch).backward()
    gradients = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
    if world > 1:
        for gradient in gradients.values():
            torch.distributed.all_reduce(gradient)
    return {key: gradient.numpy() / world for key, gradient in gradients.items()}


def _shared_gradient(rank: int, name: str, folder: Path) -> None:
    """In one of the two processes of `two_ranks`; the first writes the gradient they share."""
    gradient = _gradient(bench(name), rank, 2)
    if rank == 0:
        np.savez(folder / "gradient.npz", **gradient)


def _loss_of(model: Any, batch: dict[str, Tensor], player: str) -> Tensor:
    """In a game, what the parameters of one player descend."""
    return model.losses(batch)[player]


def _small_backbone(b: Bench) -> str | None:
    """One that is trained from scratch within seconds."""
    if b.learner.paper.kind != "objective":
        return None
    return registry.kind(b.task.kind).small_backbone or default_backbone(b.task.kind)


def _backbone_settings(b: Bench) -> dict[str, Any]:
    """The tiny recipe of the backbone, so that the battery takes seconds."""
    under = _small_backbone(b)
    tiny = registry.method(under).module.recipes["tiny"].config if under else {}
    return {f"backbone.{name}": value for name, value in tiny.items()}


def _train(b: Bench, model: nn.Module, optim: Any, steps: int, folder: Path, rows: Any = None) -> None:
    run = Run(folder)
    with run.locked() if is_main() else nullcontext():
        train(
            model,
            b.rows(model) if rows is None else rows,
            optim,
            Budget(steps=steps),
            run,
            seed=0,
            progress=False,
            checkpoint_seconds=0.0,
            techniques=[technique.made for technique in b.resolved().techniques],
        )


@contextmanager
def _stopping_at(model: nn.Module, step: int) -> Iterator[None]:
    """Interrupt training in the middle of a step, as a user or a power cut would."""
    calls = 0
    inner = model.loss

    def loss(batch: dict[str, Tensor]) -> Any:
        nonlocal calls
        calls += 1
        if calls > step:
            raise KeyboardInterrupt
        return inner(batch)

    model.loss = loss  # type: ignore[assignment]
    try:
        yield
    finally:
        del model.loss


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="papertrial-check-") as folder:
        yield Path(folder)
