"""The training loop: budgets, batches, updates, logs, validation, checkpoints and alarms for any model with a `loss`.

A run killed at any moment goes on from its last checkpoint and ends with the same weights, bit for bit: the order of
the rows, the random numbers of a step, and the learning rate are functions of (seed, step), and the number of steps is
settled before the first one. Under `torchrun` the same call trains on all processes.
"""

from __future__ import annotations

import contextlib
import copy
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from papertrial.core.budget import Budget, Energy, Meter, duration
from papertrial.core.errors import PapertrialError, TrainingStopped
from papertrial.core.files import read_json, write_json
from papertrial.core.recipe import Optim
from papertrial.core.run import Run
from papertrial.core.task import Split
from papertrial.nn.batches import Batches
from papertrial.nn.modes import evaluating
from papertrial.nn.ranks import share_statistics
from papertrial.nn.transformer import compile_
from papertrial.train import checkpoint
from papertrial.train.device import PeakMemory, accelerator, from_main, repeatable, seed_step
from papertrial.train.energy import EnergyMeter
from papertrial.train.optim import Ema, make_optimizer, rate, set_rate
from papertrial.train.pace import MEASURING, STEPS, TIMED, WARM, Pace, lines_every, planned_steps
from papertrial.train.progress import Display
from papertrial.train.shard import put, shard, whole
from papertrial.train.watch import CollapseWatch, explain_nonfinite


def train(
    model: nn.Module,
    split: Split,
    optim: Optim,
    budget: Budget,
    run: Run,
    *,
    seed: int,
    validate: Callable[[], float] | None = None,
    progress: bool = True,
    device: str | torch.device | None = None,
    log_every: int | None = None,
    checkpoint_seconds: float = 30.0,
    techniques: Sequence[Any] = (),
    sharded: bool = False,
    name: str = "training",
) -> Meter:
    """Train `model` in place on `split`, within `budget`, in the folder of `run`; it ends in `eval()`.

    model: offers `loss(batch) -> Tensor | dict` (the dict has "loss", the rest is logged) and, if it likes,
    `views(batch, draw)`, `after_step(progress)`, `parameter_groups(optim)`, `no_decay()`, `encoder`.  What it carries
    from step to step must be parameters or buffers.
    validate: higher is better; called every epoch when `optim.patience` is set, on the weights that would be kept
    (the average with `optim.ema`); the best ones are restored at the end.
    optim.batch: rows per step over all processes and micro-batches; a smaller data set is one batch.
    Batch norm sees the global batch, as one process would.
    sharded: split weights, gradients and the optimiser's state over the processes (FSDP2) instead of holding all of
    them on each; `model` itself stays whole, on the device it is on, and is brought up to date when it is looked at.
    techniques: objects with any of `prepare(model)`, `parameters(model)` (only these are trained),
    `before_step(model)` (gradients are there, not yet clipped), `after_step(model)`, `finish(model)`.
    name: what the progress bar calls it.

    When `run` holds a checkpoint the training goes on from it.  An empty budget, or a model without trainable
    parameters, returns at once.  Raises TrainingStopped (values not finite, collapse; the last good checkpoint stays),
    and PapertrialError for settings that cannot work, a full disk, or a damaged checkpoint.
    """
    prepare(model, techniques)
    nothing = 0 in (budget.steps, budget.samples, budget.seconds)
    if nothing or not any(parameter.requires_grad for parameter in model.parameters()):
        finish(model, techniques)
        return Meter().with_energy(Energy(how="nothing was trained"))
    training = _Training(model, split, optim, run, seed, validate, device, techniques, sharded)
    try:
        with repeatable(training.device):
            training.fit(budget, progress, log_every, checkpoint_seconds, name)
    finally:
        training.close()
        run.close()
    finish(model, techniques)
    return training.meter()


def pace(
    model: nn.Module,
    split: Split,
    optim: Optim,
    run: Run,
    *,
    seed: int,
    validate: Callable[[], float] | None = None,
    device: str | torch.device | None = None,
    seconds: float = 1.0,
    pilot: bool = False,
    techniques: Sequence[Any] = (),
) -> Pace:
    """What a training as by `train` costs, from real steps: ten, more where they fit into `seconds`.

    pilot: one step after another one, and nothing of what happens between steps.
    techniques: as those of `train`, but the caller calls `prepare` and `finish`, since one model is measured many times.

    `model` is trained a little by it, and what a training writes goes into the folder of `run`, which the caller
    removes. Raises what `train` raises.
    """
    training = _Training(model, split, optim, run, seed, validate, device, techniques)
    try:
        with repeatable(training.device):
            return training.pace(1, 1, 0.0) if pilot else training.pace(WARM, STEPS, seconds, between=True)
    finally:
        training.close()
        run.close()
        model.eval()


@dataclass
class _State:
    """What a checkpoint holds beside tensors. score: best validation so far; stale: epochs since."""

    step: int = 0
    total: int = 0
    seconds: float = 0.0
    peak: int = 0
    energy: Energy = field(default_factory=Energy)
    score: float | None = None
    stale: int = 0
    complete: bool = False
    watch: dict[str, Any] = field(default_factory=dict)


class _Objective(nn.Module):
    """`model.loss` as a forward pass, which is what DDP, autocast and torch.compile hook into."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Mapping[str, Any]) -> Tensor | dict[str, Any]:
        return self.model.loss(batch)


@dataclass
class _Outcome:
    """One update. loss: of the global batch; norm: of its gradient; both on the device.

    parts: share of this process's rows and numbers to log, per micro-batch.
    """

    loss: Tensor
    norm: Tensor
    parts: list[tuple[float, Mapping[str, Any]]]
    waited: float

    def extras(self) -> dict[str, float]:
        """Averages of the numbers a loss returned beside "loss"."""
        return {name: sum(share * float(part[name]) for share, part in self.parts) for name in self.parts[0][1]}


class _Training:
    def __init__(
        self,
        model: nn.Module,
        split: Split,
        optim: Optim,
        run: Run,
        seed: int,
        validate: Callable[[], float] | None,
        device: str | torch.device | None,
        techniques: Sequence[Any],
        sharded: bool = False,
    ) -> None:
        self.accelerate = accelerator(optim.precision, device)
        self.device, self.main = self.accelerate.device, self.accelerate.is_main_process
        self.rank, world = self.accelerate.process_index, self.accelerate.num_processes
        if optim.batch < 1 or optim.accumulate < 1:
            raise PapertrialError("batch and accumulate must be at least 1", "type --set batch=... or accumulate=...")
        self.optim, self.run, self.seed, self.techniques = optim, run, seed, techniques
        self.validate = validate if optim.patience else None
        self.batches = Batches(split, optim.batch, seed, self.rank, world, self.device, optim.accumulate)
        self.split = split
        self.path = run.path("checkpoint.safetensors")

        #: what the caller holds, and what is trained: a copy where that one is split over processes
        self.whole, self.sharded = model, sharded
        if sharded:
            self._refuse_to_shard()
            model = copy.deepcopy(model)
        model.to(self.device)
        if optim.channels_last:
            model.to(memory_format=torch.channels_last)
        if world > 1 and self.device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(model)
        elif world > 1:
            share_statistics(model)
        model.train()
        self.model = model
        objective = _Objective(model)
        self.compiled = compile_(objective) if optim.compile else []
        if sharded:
            shard(objective, self.device, world)
        # One process in float32 has nothing to be prepared for, and asking loads half a second of modules.
        alone = world == 1 and self.accelerate.mixed_precision == "no"
        self.objective = objective if sharded or alone else self.accelerate.prepare_model(objective)
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = make_optimizer(model, optim)
        self.ema = Ema(model, optim.ema) if optim.ema else None

        self.state = _State()
        self.best: dict[str, Tensor] = {}
        self.earlier, self.earlier_energy = 0.0, Energy()  # seconds and energy of the sittings before this one
        self.peak = PeakMemory(self.device)
        self.watch: CollapseWatch | None = None
        # A look at the values costs nothing on a CPU; on a GPU it would wait for the device at every step, so they
        # are looked at now and then, and the steps since the checkpoint taken again one by one when something is wrong.
        self.every_step = self.device.type == "cpu"
        self.alarm = torch.zeros((), dtype=torch.bool, device=self.device)
        self.energy = EnergyMeter(self.device)
        self.begun = time.monotonic()

    def close(self) -> None:
        for part in self.compiled:  # torch has no other way back
            part._compiled_call_impl = None
        self.batches.close()
        self.energy.close()

    def _eager(self) -> contextlib.AbstractContextManager[Any]:
        """What happens between steps is not compiled: it is seldom, and has other shapes."""
        return torch.compiler.set_stance("force_eager") if self.compiled else contextlib.nullcontext()

    # ---------------------------------------------------------------------------------------------- the whole training

    def fit(self, budget: Budget, progress: bool, log_every: int | None, checkpoint_seconds: float, name: str) -> None:
        total = self._begin(budget)
        self._gather()
        self.watch = CollapseWatch(self.whole, self.split, _device(self.whole), total)
        self.watch.state.update(self.state.watch)
        every = log_every or lines_every(total)
        if self.state.complete:
            return self._keep_best()
        if self.main:
            self.run.tensorboard()
        mark, marked_step, waited, saved = time.monotonic(), self.state.step, 0.0, time.monotonic()
        with Display(total, self.state.step, progress and self.main, name) as display:
            while self.state.step < total and not self.state.complete:
                outcome = self.update(self.state.step, total)
                self.state.step += 1
                step, waited = self.state.step, waited + outcome.waited
                log, look = step % every == 0 or step == total, self.watch.due(step)
                judge = self.validate is not None and (step % self.batches.per_epoch == 0 or step == total)
                if (log or judge) and self._alarmed():
                    self._restore()
                    self.every_step = True
                    continue
                if log or look or judge:
                    row = {}
                    if log:
                        row, mark = self._row(outcome, step - marked_step, mark, waited), time.monotonic()
                        marked_step, waited = step, 0.0
                        display.show(step, loss=row["loss"], rate=row["examples_per_second"])
                    if look:
                        self._gather()
                        with self._eager():
                            row.update(self.watch.look(step))
                    if judge:
                        row["validation"] = self._judge()
                    if self.main:
                        self.run.log(step, **row)
                display.show(step)
                if self._due(time.monotonic() - saved >= checkpoint_seconds, log):
                    self._save()
                    saved = time.monotonic()
        self.state.complete = True
        if self.main or self.sharded:
            self._save()
        self.accelerate.wait_for_everyone()
        self._keep_best()

    def update(self, step: int, total: int) -> _Outcome:
        """One optimiser step on the global batch."""
        begun = time.perf_counter()
        batch = self.batches.at(step)
        waited = time.perf_counter() - begun
        if self.optim.channels_last:
            batch = {name: _channels_last(tensor) for name, tensor in batch.items()}
        seed_step(self.seed, step, self.rank, self.device)
        set_rate(self.optimizer, rate(step, total, self.optim))
        self._forget_gradients()
        loss, parts = self._gradients(batch, step)
        for technique in self.techniques:
            _call(technique, "before_step", self.model)
        split_norm = nn.utils.get_total_norm(
            [parameter.grad for parameter in self.trained if parameter.grad is not None]
        )
        norm = whole(split_norm)
        if not self.every_step:
            self.alarm |= ~torch.isfinite(loss + norm)
        elif not math.isfinite(float(loss) + float(norm)):
            self._stop(batch, step, float(loss), float(norm))
        if self.optim.clip:
            nn.utils.clip_grads_with_norm_(self.trained, self.optim.clip, split_norm)
        self.optimizer.step()
        for technique in self.techniques:
            _call(technique, "after_step", self.model)
        if hasattr(self.model, "after_step"):
            self.model.after_step((step + 1) / total)
        if self.ema is not None:
            self.ema.update(step + 1)
        return _Outcome(loss, norm, parts, waited)

    def _gradients(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, list[tuple[float, Mapping[str, Any]]]]:
        """Back-propagate the mean loss over the global batch, of which DDP and FSDP average what each process has."""
        parts, loss = [], torch.zeros((), device=self.device)
        for left, (share, micro) in zip(
            reversed(range(len(self.batches.spans))), self._micro(batch, step), strict=True
        ):
            with self._waiting(left > 0), self._compiling():
                result = self._forward(micro)
                found = result if isinstance(result, Mapping) else {"loss": result}
                self.accelerate.backward(found["loss"] * share if share != 1 else found["loss"])
            loss = loss + found["loss"].detach() * share
            parts.append((share, {name: _number(value) for name, value in found.items() if name != "loss"}))
        return self._mean(loss), parts

    def _micro(self, batch: dict[str, Tensor], step: int) -> Iterator[tuple[float, dict[str, Any]]]:
        """The micro-batches of this process with their views. Weights: their mean over processes adds up to 1."""
        begin = 0
        for first, last in self.batches.spans:
            count = last - first
            rows = {name: tensor[begin : begin + count] for name, tensor in batch.items()}
            begin += count
            weight = count * self.accelerate.num_processes / self.batches.total
            yield weight, self._views(rows, step, first, count)

    def _forward(self, micro: dict[str, Any]) -> Tensor | dict[str, Any]:
        with self.accelerate.autocast() if self.sharded else contextlib.nullcontext():  # DDP has it built in
            return self.objective(micro)

    @contextlib.contextmanager
    def _waiting(self, more: bool) -> Iterator[None]:
        """Gradients are shared out among processes after the last micro-batch only."""
        if self.sharded:
            self.objective.set_requires_gradient_sync(not more)
            yield
        else:
            with self.accelerate.no_sync(self.objective) if more else contextlib.nullcontext():
                yield

    def _mean(self, value: Tensor) -> Tensor:
        """Over processes."""
        return self.accelerate.reduce(value, "mean") if self.accelerate.num_processes > 1 else value

    def _forget_gradients(self) -> None:
        for parameter in self.trained:
            parameter.grad = None

    def _views(self, batch: dict[str, Tensor], step: int, first: int, count: int) -> dict[str, Any]:
        if not hasattr(self.model, "views"):
            return batch
        from papertrial.nn.views import Draw

        with torch.no_grad():
            return self.model.views(batch, Draw(self.seed, step, self.batches.total, first, count, self.device))

    @contextlib.contextmanager
    def _compiling(self) -> Any:
        try:
            yield
        except Exception as error:
            if self.optim.compile and type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                first = next(iter(str(error).strip().splitlines()), type(error).__name__)
                raise PapertrialError(
                    f"torch.compile cannot compile this model ({first})", "use --set compile=false"
                ) from error
            raise

    # -------------------------------------------------------------------------------------------- how long, from where

    def _begin(self, budget: Budget) -> int:
        """Steps to take. Goes on from the checkpoint, or writes the first one, which also finds a full disk early."""
        if from_main(self.accelerate, self.path.exists()):
            self._restore()
            self.earlier, self.earlier_energy = self.state.seconds, self.state.energy
            return self.state.total
        if self.main:
            self.run.rewind(-1)
        self.state.total = self._plan(budget)
        if self.main or self.sharded:
            self._save()
        self.accelerate.wait_for_everyone()
        return self.state.total

    def _plan(self, budget: Budget) -> int:
        """The smallest of all limits, in steps; at least 1. Raises PapertrialError when there is none."""
        return planned_steps(budget, self.optim.epochs, self.batches.total, self.batches.per_epoch, self._steps_in)

    def _steps_in(self, seconds: float) -> int:
        """Steps that fit, from timing some; written to plan.json once, so that a resumed run keeps the number."""
        file = self.run.path("plan.json")
        if from_main(self.accelerate, file.exists()):
            return int(from_main(self.accelerate, read_json(file)["steps"] if self.main else 0))
        each, check = self._time_steps(seconds)
        left = seconds - (time.monotonic() - self.begun)
        steps = int(from_main(self.accelerate, max(1, int(left / (each + check / self.batches.per_epoch)))))
        if self.main:
            facts = {"steps": steps, "seconds": seconds, "seconds_per_step": each, "seconds_per_validation": check}
            write_json(file, facts)
            words = f"{duration(seconds)} on this machine are {steps} steps of {1000 * each:.3g} ms"
            self.run.log(0, planned_steps=steps, note=words)
        return steps

    def _time_steps(self, seconds: float) -> tuple[float, float]:
        """Median seconds of a step and seconds of a validation. Model, optimiser and average end as they began."""
        before = {name: tensor.detach().clone() for name, tensor in checkpoint.model_tensors(self.model).items()}
        times: list[float] = []
        begun = time.monotonic()
        enough = False
        while not enough:
            start = time.perf_counter()
            self.update(len(times), total=10**6)
            self._synchronize()
            times.append(time.perf_counter() - start)
            late = time.monotonic() - begun > MEASURING * seconds
            enough = from_main(self.accelerate, (late and len(times) > 1) or len(times) == WARM + TIMED)
        check = 0.0
        if self.validate is not None:
            start = time.perf_counter()
            self._gather()
            with evaluating(self.whole):
                if self.main:
                    self.validate()
            check = time.perf_counter() - start
        checkpoint.load_model_tensors(self.model, before)
        self._forget_gradients()
        self.optimizer.state.clear()
        self.alarm.zero_()
        if self.ema is not None:
            self.ema = Ema(self.model, self.optim.ema)
        return statistics.median(times[min(WARM, len(times) - 1) :]), check

    def pace(self, warm: int, steps: int, seconds: float, between: bool = False) -> Pace:
        """Cost of a step, and of what happens between steps if that is wanted."""
        for step in range(warm):
            self.update(step, total=10**6)
        self._synchronize()
        step, begun, before = warm, time.perf_counter(), self.energy.read()
        while step < warm + steps or time.perf_counter() - begun < seconds:
            outcome = self.update(step, total=10**6)
            step += 1
        self._synchronize()
        passed, spent = time.perf_counter() - begun, self.energy.read()
        return Pace(
            rows=self.batches.total,
            per_epoch=self.batches.per_epoch,
            steps=step - warm,
            step=passed / (step - warm),
            power=spent.since(before).times(1 / passed),
            **(self._between(outcome) if between else {}),
            peak_bytes=self.peak.read(),
        )

    def _between(self, outcome: _Outcome) -> dict[str, float]:
        watch = self.watch = CollapseWatch(self.model, self.split, self.device, 10**6)
        with self._eager():
            look = self._timed(lambda: watch.look(1)) if watch.on else 0.0
        return {
            "start": self._timed(self.run.tensorboard, times=1),
            "log": self._timed(lambda: self.run.log(1, **self._row(outcome, 1, self.begun, 0.0))),
            "look": look,
            "validation": self._timed(self._judge) if self.validate is not None else 0.0,
            "save": self._timed(self._save, times=1),
        }

    def _timed(self, action: Callable[[], Any], times: int = 9) -> float:
        """Median seconds of an action, which is not repeated when it takes long: the first time is often the slowest."""
        taken: list[float] = []
        while not taken or (len(taken) < times and sum(taken) < 0.5):
            begun = time.perf_counter()
            action()
            self._synchronize()
            taken.append(time.perf_counter() - begun)
        return statistics.median(taken)

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    # ------------------------------------------------------------------------------------- validation and what is kept

    def _judge(self) -> float:
        """Validate the weights that would be kept; every process learns the main one's score."""
        with self._eager(), evaluating(self.whole), self.ema.loaded() if self.ema else contextlib.nullcontext():
            self._gather()
            score = from_main(self.accelerate, float(self.validate()) if self.main else 0.0)
            better = math.isfinite(score) and (self.state.score is None or score > self.state.score)
            if better:
                held = checkpoint.model_tensors(self.whole)
                self.best = {name: tensor.detach().to("cpu", copy=True) for name, tensor in held.items()}
        self.state.score, self.state.stale = (score, 0) if better else (self.state.score, self.state.stale + 1)
        if self.state.stale >= self.optim.patience:
            self.state.complete = True
        return score

    def _keep_best(self) -> None:
        if self.best:
            checkpoint.load_model_tensors(self.whole, self.best)
            return
        if self.ema is not None:
            self.ema.load()
        self._gather()

    def _gather(self) -> None:
        """Bring the caller's model up to date where that is another one; every process takes part."""
        if self.sharded:
            held = {name: whole(tensor.detach()) for name, tensor in checkpoint.model_tensors(self.model).items()}
            checkpoint.load_model_tensors(self.whole, held)

    def _refuse_to_shard(self) -> None:
        if self.accelerate.num_processes == 1:
            raise PapertrialError(
                "there is one process, so nothing can be split over several",
                "start it with torchrun --nproc-per-node N -m papertrial ..., or leave --shard out",
            )
        if self.techniques or hasattr(self.whole, "after_step"):
            raise PapertrialError(
                "weights that a method changes beside its gradients cannot be split over processes",
                "leave --shard out",
            )

    # ------------------------------------------------------------------------------------------------------ checkpoint

    def _due(self, late: bool, log: bool) -> bool:
        """Whether to write a checkpoint now: the main process's clock decides.

        A split model is gathered by all processes, who ask that clock at logged steps only.
        """
        late = late and not bool(self.alarm)
        return log and from_main(self.accelerate, late) if self.sharded else self.main and late

    def _save(self) -> None:
        """By the main process, and by all where the model is split."""
        held = checkpoint.model_tensors(self.model)
        tensors = {f"model/{name}": whole(tensor.detach()) for name, tensor in held.items()}
        self._refuse_nonfinite(tensors)
        tensors.update({f"extra/{name}": state for name, state in checkpoint.extra_states(self.model).items()})
        tensors.update({f"optimizer/{k}": v for k, v in checkpoint.optimizer_tensors(self.optimizer).items()})
        tensors.update({f"ema/{index}": whole(v) for index, v in enumerate(self.ema.average if self.ema else ())})
        tensors.update({f"best/{name}": tensor for name, tensor in self.best.items()})
        self._measure()
        self.state.watch = dict(self.watch.state) if self.watch else {}
        if self.main:
            checkpoint.save(self.path, tensors, asdict(self.state))

    def _refuse_nonfinite(self, tensors: Mapping[str, Tensor]) -> None:
        """Weights that are not finite never replace a good checkpoint."""
        for name in [f"model/{name}" for name, _ in self.model.named_parameters()]:
            if not bool(torch.isfinite(tensors[name]).all()):
                raise TrainingStopped(
                    f"the weights {name[6:]} are not finite after step {self.state.step}", self._what_to_try()
                )

    def _restore(self) -> None:
        tensors, state = checkpoint.load(self.path)
        checkpoint.load_model_tensors(self.model, checkpoint.part(tensors, "model"))
        checkpoint.require_extra_states(self.model, checkpoint.part(tensors, "extra"))
        checkpoint.load_optimizer_tensors(self.optimizer, checkpoint.part(tensors, "optimizer"))
        self.best = checkpoint.part(tensors, "best")
        if self.ema is not None:
            for index, average in enumerate(self.ema.average):
                put(average, tensors[f"ema/{index}"])
        self.state = _State(**{**state, "energy": Energy(**state["energy"])})
        if self.watch is not None:
            self.watch.state.update(self.state.watch)
        self.alarm.zero_()
        if self.main:
            self.run.rewind(self.state.step)

    # -------------------------------------------------------------------------------------------------- logs and alarms

    def _row(self, outcome: _Outcome, steps: int, mark: float, waited: float) -> dict[str, Any]:
        self._measure()
        passed = max(time.monotonic() - mark, 1e-9)
        extras = outcome.extras()
        if extras:
            values = self._mean(torch.tensor(list(extras.values()), dtype=torch.float64, device=self.device))
            extras = dict(zip(extras, values.tolist(), strict=True))
        return {
            "loss": float(outcome.loss),
            "lr": self.optimizer.param_groups[0]["lr"],
            "gradient_norm": float(outcome.norm),
            "examples_per_second": steps * self.batches.total / passed,
            "seconds": self.state.seconds,
            "waiting_for_data": min(1.0, waited / passed),
            **extras,
        }

    def _measure(self) -> None:
        self.state.seconds = self.earlier + time.monotonic() - self.begun
        self.state.peak = max(self.state.peak, self.peak.read())
        self.state.energy = self.earlier_energy + self.energy.read()

    def _alarmed(self) -> bool:
        """Whether a value since the last look was not finite, on any process."""
        if self.every_step:
            return False
        alarm = self.alarm.float()
        return bool(self.accelerate.reduce(alarm, "sum") if self.accelerate.num_processes > 1 else alarm)

    def _stop(self, batch: dict[str, Tensor], step: int, loss: float, norm: float) -> None:
        """Explain and raise, on every process alike; the weights are still those before the step."""
        own = True

        def again() -> Any:
            nonlocal own
            seed_step(self.seed, step, self.rank, self.device)
            with self.accelerate.autocast():
                results = [
                    (self.objective if self.sharded else self.model.loss)(m) for _, m in self._micro(batch, step)
                ]
            losses = [result["loss"] if isinstance(result, Mapping) else result for result in results]
            own = not all(math.isfinite(value) for value in losses)
            return sum(losses)

        what = "loss" if not math.isfinite(loss) else "gradient"
        why = explain_nonfinite(self.model, batch, again)
        if self.accelerate.num_processes > 1:  # the process whose rows they are knows best
            whys = gather_object([(not own, why)])
            why = min(whys)[1]
        raise TrainingStopped(f"the {what} is not finite at step {step + 1}: {why}", self._what_to_try())

    def _what_to_try(self) -> str:
        precise = "" if self.accelerate.mixed_precision == "no" else " or --set precision=fp32"
        lower = f"try --set lr={self.optim.lr / 3:.2g}{precise} with another --out"
        return f"{lower}; the last good state is in {self.path}" if self.path.exists() else lower

    def meter(self) -> Meter:
        return Meter(
            steps=self.state.step,
            samples=self.state.step * self.batches.total,
            seconds=self.state.seconds,
            peak_bytes=self.state.peak,
        ).with_energy(self.state.energy)


def prepare(model: nn.Module, techniques: Sequence[Any]) -> None:
    """What techniques do to a model before it is trained; all that none of them asks to train is frozen, if any asks."""
    for technique in techniques:
        _call(technique, "prepare", model)
    asked = [technique.parameters(model) for technique in techniques if hasattr(technique, "parameters")]
    if asked:
        chosen = {id(parameter) for parameters in asked for parameter in parameters}
        for parameter in model.parameters():
            parameter.requires_grad_(id(parameter) in chosen)


def finish(model: nn.Module, techniques: Sequence[Any]) -> None:
    """What they do to it afterwards; it ends in `eval()`."""
    model.eval()
    for technique in techniques:
        _call(technique, "finish", model)


def _call(technique: Any, name: str, model: nn.Module) -> None:
    if hasattr(technique, name):
        getattr(technique, name)(model)


def _number(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def _device(model: nn.Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
