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
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import TypedDict

from papertrial.core import stopping
from papertrial.core.budget import Budget, Energy, Meter, duration, size_in_words
from papertrial.core.doors import Door
from papertrial.core.errors import PapertrialError, TrainingStopped
from papertrial.core.memory import OutOfMemory, free_memory, ran_out
from papertrial.core.offers import offers
from papertrial.core.recipe import Optim
from papertrial.core.run import AGAIN, Run
from papertrial.core.task import Split
from papertrial.nn.modes import evaluating
from papertrial.train import checkpoint, memory
from papertrial.train.apart import gathered, join, merged, own_part
from papertrial.train.device import PeakMemory, accelerator, from_main, repeatable
from papertrial.train.energy import EnergyMeter
from papertrial.train.optim import Ema
from papertrial.train.pace import MEASURING, STEPS, TIMED, WARM, Pace, lines_every, planned_steps
from papertrial.train.progress import Display
from papertrial.train.shard import put, whole
from papertrial.train.sources import Rounds, is_source
from papertrial.train.technique import Proof, finish, prepare
from papertrial.train.updates import Update, Updates
from papertrial.train.watch import CollapseWatch


class _Planned(TypedDict):
    steps: int


class _Pieces(TypedDict):
    piece: int


PLAN, MEMORY = Door(_Planned, AGAIN), Door(_Pieces, AGAIN)


def train(
    model: nn.Module,
    split: Split | Any,
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

    split: the rows, or a source that collects them anew (`train.sources`).
    model: offers `loss(batch) -> Tensor | dict` (the dict has "loss", the rest is logged) and, if it likes,
    `views(batch, draw)`, `after_step(progress)`, `parameter_groups(optim)`, `no_decay()`, `encoder`.  What it carries
    from step to step must be parameters or buffers.
    validate: higher is better; called every epoch when `optim.patience` is set, on the weights that would be kept
    (the average with `optim.ema`); the best ones are restored at the end.
    optim.batch: rows per step over all processes and micro-batches; a smaller data set is one batch.
    Batch norm sees the global batch, as one process would.
    sharded: split weights, gradients and the optimiser's state over the processes (FSDP2) instead of holding all of
    them on each; `model` itself stays whole, on the device it is on, and is brought up to date when it is looked at.
    techniques: objects with any of the hooks of `train.technique`. Where one asks for the parameters that are trained, the
    others are proved unchanged, in `frozen.json` of the run.
    name: what the progress bar calls it.

    When `run` holds a checkpoint the training goes on from it.  An empty budget, or a model without trainable
    parameters, returns at once.  Raises TrainingStopped (values not finite, collapse; the last good checkpoint stays),
    and PapertrialError for settings that cannot work, a full disk, or a damaged checkpoint.
    """
    prepare(model, techniques, split)
    nothing = 0 in (budget.steps, budget.samples, budget.seconds)
    if nothing or not any(parameter.requires_grad for parameter in model.parameters()):
        finish(model, techniques)
        return Meter().with_energy(Energy(how="nothing was trained"))
    training = _Training(model, split, optim, run, seed, validate, device, techniques, sharded)
    try:
        with repeatable(training.device), training.within_memory(progress):
            training.fit(budget, progress, log_every, checkpoint_seconds, name)
    finally:
        training.close()
        run.close()
    training.proof.end()
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


def memory_plan(
    model: nn.Module, split: Split, optim: Optim, run: Run, *, seed: int, techniques: Sequence[Any] = ()
) -> tuple[int, str]:
    """Rows of a piece in which a training as by `train` would read, 0 for all at once, and words on it; nothing is trained.

    Raises Declined where no step fits into the memory there is.
    """
    training = _Training(model, split, optim, run, seed, None, None, techniques)
    try:
        return memory.plan(training.updates) if training.plans_memory else (0, "")
    finally:
        training.close()
        run.close()
        model.eval()


@dataclass
class _State:
    """What a checkpoint holds beside tensors. score: best validation so far; stale: epochs since; ranks: that were apart."""

    step: int = 0
    total: int = 0
    seconds: float = 0.0
    peak: int = 0
    energy: Energy = field(default_factory=Energy)
    score: float | None = None
    stale: int = 0
    complete: bool = False
    ranks: int = 1
    watch: dict[str, Any] = field(default_factory=dict)


class _Training:
    def __init__(
        self,
        model: nn.Module,
        split: Any,
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
        #: what the caller holds, and what is trained: a copy where that one is split over processes
        self.whole, self.sharded = model, sharded
        if sharded:
            self._refuse_to_shard(techniques)
            model = copy.deepcopy(model)
        self.optim, self.run, self.path = optim, run, run.path("checkpoint.safetensors")
        self.validate = validate if optim.patience else None
        self.proof = Proof(run, self.whole, techniques)
        self.state = _State()
        self.rounds: Rounds | None = None
        if is_source(split):
            self.rounds = Rounds(split, seed, self.accelerate)
            self._first_rows(self.whole.to(self.device))
            split = self.rounds.rows
        self.updates = Updates(model, split, optim, seed, self.accelerate, techniques, sharded, self.path)
        self.model, self.optimizer, self.ema = model, self.updates.optimizer, self.updates.ema
        #: whether all processes take part in what is kept: the weights are split over them, or differ
        self.together = sharded or self.updates.apart
        self.best: dict[str, Tensor] = {}
        self.earlier, self.earlier_energy = 0.0, Energy()  # seconds and energy of the sittings before this one
        self.peak = PeakMemory(self.device)
        self.watch: CollapseWatch | None = None
        self.energy = EnergyMeter(self.device)
        self.begun = time.monotonic()

    def close(self) -> None:
        self.updates.close()
        self.energy.close()

    @property
    def plans_memory(self) -> bool:
        """Several processes, compiled models and gradients of single rows take what they take."""
        updates = self.updates
        alone = self.accelerate.num_processes == 1 and not self.sharded
        return alone and not (updates.by_row or updates.compiled or updates.techniques.draws)

    @contextlib.contextmanager
    def within_memory(self, progress: bool) -> Iterator[None]:
        """Training within it takes the memory there is: see `train.memory`. A run that goes on reads as it did before.

        Raises Declined where no step fits, TrainingStopped where memory runs out all the same.
        """
        file, updates, piece = self.run.path("memory.json"), self.updates, 0
        try:
            if self.plans_memory:
                if self.path.exists():
                    piece = int(MEMORY.read(file)["piece"]) if file.exists() else 0
                else:
                    file.unlink(missing_ok=True)
                    piece, words = memory.plan(updates)
                    self.energy.close()  # asking is no more of the training than reading the data
                    self.energy, self.begun = EnergyMeter(self.device), time.monotonic()
                    if piece:
                        MEMORY.write(file, {"piece": piece, "words": words})
                        if progress:
                            print(f"memory: {words}", file=sys.stderr, flush=True)
            with memory.in_pieces(offers(self.model).encoder, piece):
                yield
        except (RuntimeError, MemoryError) as error:
            if ran_out(error) is None:
                raise
            free = size_in_words(free_memory(self.device))
            raise OutOfMemory(
                f"memory ran out in step {self.state.step + 1}, with {free} of it free",
                f"use --set batch={max(1, updates.batches.total // 2)}, or close what else takes memory",
            ) from error

    @property
    def per_epoch(self) -> int:
        """Steps of one pass over the rows, or of one round of those that are collected anew."""
        return self.rounds.source.every if self.rounds else self.updates.batches.per_epoch

    def _first_rows(self, model: nn.Module) -> None:
        """Those of the round a checkpoint was written in, or the first that the fresh model collects."""
        assert self.rounds is not None
        if from_main(self.rounds.accelerate, self.path.exists()):
            self.rounds.restore(checkpoint.part(checkpoint.load(self.path)[0], "rounds"))
        else:
            with torch.no_grad(), evaluating(model):
                self.rounds.collect(0)

    def _collect(self, step: int) -> None:
        """New rows where a round is over."""
        if self.rounds is None or not self.rounds.due(step):
            return
        with self._seen(), torch.no_grad():
            self.rounds.collect(step)
        self.updates.learn_from(self.rounds.rows, step)

    @contextlib.contextmanager
    def _seen(self) -> Iterator[None]:
        """The caller's model up to date and in eval mode, the same on every process; what is done with it is not compiled."""
        self._gather()
        with self.updates.eager(), evaluating(self.whole), merged(self.whole, self.updates.apart):
            yield

    # ---------------------------------------------------------------------------------------------- the whole training

    def fit(self, budget: Budget, progress: bool, log_every: int | None, checkpoint_seconds: float, name: str) -> None:
        total = self._begin(budget)
        self._gather()
        watched = Split({}) if self.rounds else self.updates.split  # rows that change say nothing of collapse
        self.watch = CollapseWatch(self.whole, watched, _device(self.whole), total)
        self.watch.state.update(self.state.watch)
        every = log_every or lines_every(total)
        if self.state.complete:
            return self._keep_best()
        if self.main:
            self.run.tensorboard()
        mark, marked_step, waited, saved = time.monotonic(), self.state.step, 0.0, time.monotonic()
        with Display(total, self.state.step, progress and self.main, name) as display, stopping.between_steps():
            while self.state.step < total and not self.state.complete:
                self._collect(self.state.step)
                outcome = self.updates.take(self.state.step, total)
                self.state.step += 1
                step, waited = self.state.step, waited + outcome.waited
                log, look = step % every == 0 or step == total, self.watch.due(step)
                judge = self.validate is not None and (step % self.per_epoch == 0 or step == total)
                if (log or judge) and self.updates.alarmed():
                    self._restore()
                    self.updates.every_step = True
                    continue
                if log or look or judge:
                    row = {}
                    if log:
                        row, mark = self._row(outcome, step - marked_step, mark, waited), time.monotonic()
                        marked_step, waited = step, 0.0
                        display.show(step, loss=row["loss"], rate=row["examples_per_second"])
                    if look:
                        with self._seen():
                            row.update(self.watch.look(step))
                    if judge:
                        row["validation"] = self._judge()
                    if self.main:
                        self.run.log(step, **row)
                display.show(step)
                if self._due(stopping.asked() or time.monotonic() - saved >= checkpoint_seconds, log):
                    self._save()
                    saved = time.monotonic()
                if self.main and (log or not self.together):  # the others end when they meet it no more
                    stopping.check()
        self.state.complete = True
        if self.main or self.together:
            self._save()
        self.accelerate.wait_for_everyone()
        self._keep_best()

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
        if self.main:
            self.proof.begin()
        if self.main or self.together:
            self._save()
        self.accelerate.wait_for_everyone()
        return self.state.total

    def _plan(self, budget: Budget) -> int:
        """The smallest of all limits, in steps; at least 1. Raises PapertrialError when there is none."""
        return planned_steps(budget, self.optim.epochs, self.updates.batches.total, self.per_epoch, self._steps_in)

    def _steps_in(self, seconds: float) -> int:
        """Steps that fit, from timing some; written to plan.json once, so that a resumed run keeps the number."""
        file = self.run.path("plan.json")
        if from_main(self.accelerate, file.exists()):
            return int(from_main(self.accelerate, PLAN.read(file)["steps"] if self.main else 0))
        each, check = self._time_steps(seconds)
        each += self.rounds.seconds / self.rounds.source.every if self.rounds else 0.0
        left = seconds - (time.monotonic() - self.begun)
        steps = int(from_main(self.accelerate, max(1, int(left / (each + check / self.per_epoch)))))
        if self.main:
            facts = {"steps": steps, "seconds": seconds, "seconds_per_step": each, "seconds_per_validation": check}
            PLAN.write(file, facts)
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
            self.updates.take(len(times), total=10**6)
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
        self.updates.forget_gradients()
        self.optimizer.state.clear()
        self.updates.alarm.zero_()
        if self.ema is not None:
            self.ema = self.updates.ema = Ema(self.model, self.optim.ema)
        return statistics.median(times[min(WARM, len(times) - 1) :]), check

    def pace(self, warm: int, steps: int, seconds: float, between: bool = False) -> Pace:
        """Cost of a step, and of what happens between steps if that is wanted."""
        for step in range(warm):
            self.updates.take(step, total=10**6)
        self._synchronize()
        step, begun, before = warm, time.perf_counter(), self.energy.read()
        while step < warm + steps or time.perf_counter() - begun < seconds:
            outcome = self.updates.take(step, total=10**6)
            step += 1
        self._synchronize()
        passed, spent = time.perf_counter() - begun, self.energy.read()
        return Pace(
            rows=self.updates.batches.total,
            per_epoch=self.per_epoch,
            steps=step - warm,
            step=passed / (step - warm),
            power=spent.since(before).times(1 / passed),
            **(self._between(outcome) if between else {}),
            peak_bytes=self.peak.read(),
        )

    def _between(self, outcome: Update) -> dict[str, float]:
        watch = self.watch = CollapseWatch(self.model, self.updates.split, self.device, 10**6)
        with self.updates.eager():
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
        with self.ema.loaded() if self.ema else contextlib.nullcontext(), self._seen():
            score = from_main(self.accelerate, float(self.validate()) if self.main and self.validate else 0.0)
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
        if self.updates.apart:
            join(self.model)
        self._gather()

    def _gather(self) -> None:
        """Bring the caller's model up to date where that is another one; every process takes part."""
        if self.sharded:
            held = {name: whole(tensor.detach()) for name, tensor in checkpoint.model_tensors(self.model).items()}
            checkpoint.load_model_tensors(self.whole, held)

    def _refuse_to_shard(self, techniques: Sequence[Any]) -> None:
        if self.accelerate.num_processes == 1:
            raise PapertrialError(
                "there is one process, so nothing can be split over several",
                "start it with torchrun --nproc-per-node N -m papertrial ..., or leave --shard out",
            )
        if techniques or offers(self.whole).after_step:
            raise PapertrialError(
                "weights that a method changes beside its gradients cannot be split over processes",
                "leave --shard out",
            )

    # ------------------------------------------------------------------------------------------------------ checkpoint

    def _due(self, late: bool, log: bool) -> bool:
        """Whether to write a checkpoint now: the main process's clock decides.

        What all processes take part in is gathered by them, who ask that clock at logged steps only.
        """
        late = late and not bool(self.updates.alarm)
        return log and from_main(self.accelerate, late) if self.together else self.main and late

    def _save(self) -> None:
        """By the main process, and by all where the model is split or differs."""
        held = checkpoint.model_tensors(self.model)
        tensors = {f"model/{name}": whole(tensor.detach()) for name, tensor in held.items()}
        self._refuse_nonfinite(tensors)
        tensors.update({f"extra/{name}": state for name, state in checkpoint.extra_states(self.model).items()})
        tensors.update({f"optimizer/{k}": v for k, v in checkpoint.optimizer_tensors(self.optimizer).items()})
        tensors.update({f"ema/{index}": whole(v) for index, v in enumerate(self.ema.average if self.ema else ())})
        if self.updates.apart:
            self.state.ranks = self.accelerate.num_processes
            tensors.update(gathered(tensors, self.accelerate.process_index, self.state.ranks))
        if self.rounds is not None:
            tensors.update({f"rounds/{name}": tensor for name, tensor in self.rounds.tensors().items()})
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
                    f"the weights {name[6:]} are not finite after step {self.state.step}", self.updates.what_to_try()
                )

    def _restore(self) -> None:
        tensors, state = checkpoint.load(self.path)
        self.state = _State(**{**state, "energy": Energy(**state["energy"])})
        where = self.accelerate
        tensors = own_part(tensors, self.state.ranks, where.process_index, where.num_processes)
        checkpoint.load_model_tensors(self.model, checkpoint.part(tensors, "model"))
        checkpoint.require_extra_states(self.model, checkpoint.part(tensors, "extra"))
        checkpoint.load_optimizer_tensors(self.optimizer, checkpoint.part(tensors, "optimizer"))
        self.best = checkpoint.part(tensors, "best")
        if self.ema is not None:
            for index, average in enumerate(self.ema.average):
                put(average, tensors[f"ema/{index}"])
        if self.rounds is not None:
            self.rounds.restore(checkpoint.part(tensors, "rounds"))
            self.updates.learn_from(self.rounds.rows, self.rounds.begun)
        if self.watch is not None:
            self.watch.state.update(self.state.watch)
        self.updates.alarm.zero_()
        if self.main:
            self.run.rewind(self.state.step)

    # -------------------------------------------------------------------------------------------------- logs and alarms

    def _row(self, outcome: Update, steps: int, mark: float, waited: float) -> dict[str, Any]:
        self._measure()
        passed = max(time.monotonic() - mark, 1e-9)
        extras = self.updates.averaged(outcome.extras())
        return {
            "loss": float(outcome.loss),
            "lr": self.optimizer.param_groups[0]["lr"],
            "gradient_norm": float(outcome.norm),
            "examples_per_second": steps * self.updates.batches.total / passed,
            "seconds": self.state.seconds,
            "waiting_for_data": min(1.0, waited / passed),
            **extras,
        }

    def _measure(self) -> None:
        self.state.seconds = self.earlier + time.monotonic() - self.begun
        self.state.peak = max(self.state.peak, self.peak.read())
        self.state.energy = self.earlier_energy + self.energy.read()

    def meter(self) -> Meter:
        return Meter(
            steps=self.state.step,
            samples=self.state.step * self.updates.batches.total,
            seconds=self.state.seconds,
            peak_bytes=self.state.peak,
        ).with_energy(self.state.energy)


def _device(model: nn.Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
