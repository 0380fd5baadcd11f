"""One update after the other: a batch, its gradient over all processes and micro-batches, and the optimiser's step."""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from papertrial.core.errors import PapertrialError, TrainingStopped
from papertrial.core.offers import offers
from papertrial.core.recipe import Optim
from papertrial.core.task import Split
from papertrial.nn.batches import Batches, to_tensors
from papertrial.nn.ranks import mean_, share_statistics
from papertrial.nn.transformer import compile_
from papertrial.train.apart import agree
from papertrial.train.device import seed_step
from papertrial.train.optim import Ema, make_optimizer, rate, set_rate
from papertrial.train.per_example import RowGradients
from papertrial.train.randomness import drawing
from papertrial.train.shard import shard, whole
from papertrial.train.technique import Moment, Techniques
from papertrial.train.watch import explain_nonfinite

_ROUND = 0x9E3779B97F4A7C15
#: what torch and the blocks of nn/ say of a row alone
_ALONE = re.compile(r"more than (1|one) value per channel|batch of two or more|fewer than two rows")


class _Objective(nn.Module):
    """The loss as a forward pass, which is what DDP, autocast and torch.compile hook into."""

    def __init__(self, model: nn.Module, techniques: Techniques) -> None:
        super().__init__()
        self.model, self.techniques = model, techniques

    def forward(self, batch: Mapping[str, Any]) -> Tensor | dict[str, Any]:
        return self.techniques.loss(self.model, batch)


@dataclass
class Update:
    """What came of one. loss: of the global batch; norm: of its gradient; both on the device.

    parts: share of this process's rows and numbers to log, per micro-batch.
    """

    loss: Tensor
    norm: Tensor
    parts: list[tuple[float, Mapping[str, Any]]]
    waited: float

    def extras(self) -> dict[str, float]:
        """Averages of the numbers a loss returned beside "loss"."""
        if not self.parts:
            return {}
        return {name: sum(share * float(part[name]) for share, part in self.parts) for name in self.parts[0][1]}


class Updates:
    """What is trained, where, and how.

    model: what is trained.  apart: whether the processes may hold other weights than each other.  by_row: makes gradients of
    single rows, where a technique asks for them.  path: the checkpoint, for what is said of it.  alarm: on a GPU, whether a
    value was not finite since it was looked at last.
    """

    def __init__(
        self,
        model: nn.Module,
        split: Split,
        optim: Optim,
        seed: int,
        accelerate: Accelerator,
        techniques: Sequence[Any] = (),
        sharded: bool = False,
        path: Path | None = None,
    ) -> None:
        self.path = path
        self.accelerate, self.device = accelerate, accelerate.device
        self.rank, self.world = self.accelerate.process_index, self.accelerate.num_processes
        self.optim, self.seed, self.sharded = optim, seed, sharded
        self.techniques = Techniques(techniques)
        self.apart = self.world > 1 and bool(self.techniques.shares)
        self.learn_from(split)

        model.to(self.device)
        if optim.channels_last:
            model.to(memory_format=torch.channels_last)
        if self.world > 1 and self.device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(model)
        elif self.world > 1:
            share_statistics(model)
        model.train()
        self.model = model
        held = offers(model)
        self.views, self.after_step = held.views, held.after_step
        objective = _Objective(model, self.techniques)
        self.by_row = RowGradients(objective) if self.techniques.per_example else None
        self.compiled = compile_(objective) if optim.compile else []
        if sharded:
            shard(objective, self.device, self.world)
        # DDP would share gradients out by itself; FSDP does so in a way of its own.
        self.bare = sharded or bool(self.techniques.per_example or self.techniques.shares)
        # One process in float32 has nothing to be prepared for, and asking loads half a second of modules.
        alone = self.world == 1 and self.accelerate.mixed_precision == "no"
        self.objective = objective if self.bare or alone else self.accelerate.prepare_model(objective)
        if self.bare and not sharded:  # as DDP does
            agree(model)
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = make_optimizer(model, optim)
        self.ema = Ema(model, optim.ema) if optim.ema else None
        # A look at the values costs nothing on a CPU; on a GPU it would wait for the device at every step, so they
        # are looked at now and then, and the steps since the checkpoint taken again one by one when something is wrong.
        self.every_step = self.device.type == "cpu"
        self.alarm = torch.zeros((), dtype=torch.bool, device=self.device)

    def learn_from(self, split: Split, begun: int = 0) -> None:
        """Take batches from these rows from step `begun` on."""
        before: Batches | None = getattr(self, "batches", None)
        seed = self.seed ^ begun * _ROUND  # another order for each round
        batches = Batches(split, self.optim.batch, seed, self.rank, self.world, self.device, self.optim.accumulate)
        if before is not None:
            before.close()
            if before.total != batches.total:
                raise ValueError(f"a source collected {split.examples} rows, which are no batch of {before.total}")
        self.batches, self.split, self.begun = batches, split, begun

    def close(self) -> None:
        for part in self.compiled:  # torch has no other way back
            part._compiled_call_impl = None
        self.batches.close()

    def eager(self) -> contextlib.AbstractContextManager[Any]:
        """What happens between steps is not compiled: it is seldom, and has other shapes."""
        return torch.compiler.set_stance("force_eager") if self.compiled else contextlib.nullcontext()

    def take(self, step: int, total: int) -> Update:
        """One optimiser step on the global batch. Raises TrainingStopped where a value is not finite."""
        with drawing:
            return self._take(step, total)

    def _take(self, step: int, total: int) -> Update:
        begun = time.perf_counter()
        at = Moment(self.seed, step, total, self.rank, self.world, self.batches.total, self.device)
        batch, spans = self._batch(at)
        waited = time.perf_counter() - begun
        if self.optim.channels_last:
            batch = {name: _channels_last(tensor) for name, tensor in batch.items()}
        seed_step(self.seed, step, self.rank, self.device)
        set_rate(self.optimizer, rate(step, total, self.optim))
        self.forget_gradients()
        loss, parts = self._gradients(batch, spans, at)
        self.techniques.call("before_step", self.model, at)
        split_norm = nn.utils.get_total_norm(
            [parameter.grad for parameter in self.trained if parameter.grad is not None]
        )
        norm = self._mean(split_norm) if self.apart else whole(split_norm)
        if not self.every_step:
            self.alarm |= ~torch.isfinite(loss + norm)
        elif not math.isfinite(float(loss) + float(norm)):
            self._stop(batch, spans, at, float(loss), float(norm))
        if self.optim.clip:
            nn.utils.clip_grads_with_norm_(self.trained, self.optim.clip, split_norm)
        self.optimizer.step()
        self.techniques.call("after_step", self.model, at)
        if self.after_step:
            self.after_step((step + 1) / total)
        if self.ema is not None:
            self.ema.update(step + 1)
        return Update(loss, norm, parts, waited)

    def tried(self, batch: dict[str, Tensor], rows: int) -> Tensor | dict[str, Any]:
        """The loss of some rows as a step has it, with the graph behind it; nothing is moved by it."""
        if self.optim.channels_last:
            batch = {name: _channels_last(tensor) for name, tensor in batch.items()}
        return self._forward(self._views(batch, self.begun, 0, rows))

    def forget_gradients(self) -> None:
        for parameter in self.trained:
            parameter.grad = None

    def _batch(self, at: Moment) -> tuple[dict[str, Tensor], list[tuple[int, int]]]:
        """This process's rows, and which of the global batch they are, piece by piece."""
        if not self.techniques.draws:
            return self.batches.at(at.step - self.begun), self.batches.spans
        rows = self.techniques.draws[0].draws(at, self.split.examples)
        pieces = self.optim.accumulate
        edges = [len(rows) * part // (pieces * at.world) for part in range(pieces * at.world + 1)]
        spans = [(edges[part * at.world + at.rank], edges[part * at.world + at.rank + 1]) for part in range(pieces)]
        spans = [(first, last) for first, last in spans if last > first]
        if not spans:
            return {}, []
        own = np.concatenate([rows[first:last] for first, last in spans])
        return to_tensors(self.split.take(own), self.device), spans

    def _gradients(
        self, batch: dict[str, Tensor], spans: list[tuple[int, int]], at: Moment
    ) -> tuple[Tensor, list[tuple[float, Mapping[str, Any]]]]:
        """Back-propagate the mean loss over the global batch, of which DDP and FSDP average what each process has."""
        parts: list[tuple[float, Mapping[str, Any]]] = []
        loss = torch.zeros((), device=self.device)
        for left, (share, micro) in zip(reversed(range(len(spans))), self._micro(batch, spans, at), strict=True):
            if self.by_row is not None:
                found = self._row_by_row(micro, share, at)
            else:
                with self._waiting(left > 0), self._compiling():
                    result = self._forward(micro)
                    found = result if isinstance(result, Mapping) else {"loss": result}
                    self.accelerate.backward(found["loss"] * share if share != 1 else found["loss"])
            loss = loss + found["loss"].detach() * share
            if not self.techniques.draws:  # the shares of what is drawn add up to no 1
                parts.append((share, {name: _number(value) for name, value in found.items() if name != "loss"}))
        if self.by_row is not None:
            for parameter in self.trained:  # of a sum; no row of this process may have been drawn
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad *= at.world / at.rows
        if self.techniques.shares:
            self.techniques.call("share_gradients", self.model, at)
        elif self.bare and not self.sharded:
            mean_(parameter.grad for parameter in self.trained if parameter.grad is not None)
        return self._mean(loss), parts

    def _row_by_row(self, micro: dict[str, Any], share: float, at: Moment) -> dict[str, Tensor]:
        """Means over the rows of what was found."""
        assert self.by_row is not None
        rows = len(next(iter(micro.values())))
        with self.accelerate.autocast():
            loss, beside = self.by_row(micro, lambda gradients: self.techniques.changed(gradients, at))
        return {"loss": loss / rows, **{name: value / rows for name, value in beside.items()}}

    def _micro(
        self, batch: dict[str, Tensor], spans: list[tuple[int, int]], at: Moment
    ) -> Iterator[tuple[float, dict[str, Any]]]:
        """The micro-batches of this process with their views. Weights: their mean over processes adds up to 1."""
        begin = 0
        for first, last in spans:
            count = last - first
            rows = {name: tensor[begin : begin + count] for name, tensor in batch.items()}
            begin += count
            yield count * self.world / self.batches.total, self._views(rows, at.step, first, count)

    def _forward(self, micro: dict[str, Any]) -> Tensor | dict[str, Any]:
        try:
            with self.accelerate.autocast() if self.bare else contextlib.nullcontext():  # DDP has it built in
                return self.objective(micro)
        except ValueError as error:
            if _ALONE.search(str(error)) is None:
                raise
            raise PapertrialError(
                f"a step learns from {self.optim.batch} rows in {self.optim.accumulate} parts, and in a part of one row there are "
                f"no others to normalise it by, or to compare it with",
                "type a larger --set batch=... or a smaller accumulate=...",
            ) from error

    @contextlib.contextmanager
    def _waiting(self, more: bool) -> Iterator[None]:
        """Gradients are shared out among processes after the last micro-batch only."""
        if self.sharded:
            self.objective.set_requires_gradient_sync(not more)
            yield
        else:
            with self.accelerate.no_sync(self.objective) if more and not self.bare else contextlib.nullcontext():
                yield

    def _mean(self, value: Tensor) -> Tensor:
        """Over processes."""
        return self.accelerate.reduce(value, "mean") if self.world > 1 else value

    def averaged(self, values: dict[str, float]) -> dict[str, float]:
        """Numbers as their mean over processes."""
        if not values:
            return values
        means = self._mean(torch.tensor(list(values.values()), dtype=torch.float64, device=self.device))
        return dict(zip(values, means.tolist(), strict=True))

    def _views(self, batch: dict[str, Tensor], step: int, first: int, count: int) -> dict[str, Any]:
        if self.views is None:
            return batch
        from papertrial.nn.views import Draw

        with torch.no_grad():
            total = max(self.batches.total, first + count)
            return self.views(batch, Draw(self.seed, step, total, first, count, self.device))

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

    def alarmed(self) -> bool:
        """Whether a value since the last look was not finite, on any process."""
        if self.every_step:
            return False
        alarm = self.alarm.float()
        return bool(self.accelerate.reduce(alarm, "sum") if self.world > 1 else alarm)

    def _stop(
        self, batch: dict[str, Tensor], spans: list[tuple[int, int]], at: Moment, loss: float, norm: float
    ) -> None:
        """Explain and raise, on every process alike; the weights are still those before the step."""
        own = True

        def again() -> Any:
            nonlocal own
            seed_step(self.seed, at.step, self.rank, self.device)
            with self.accelerate.autocast():
                lost = self.objective if self.sharded else lambda rows: self.techniques.loss(self.model, rows)
                results = [lost(micro) for _, micro in self._micro(batch, spans, at)]
            losses = [result["loss"] if isinstance(result, Mapping) else result for result in results]
            own = not all(math.isfinite(value) for value in losses)
            return sum(losses, torch.zeros(()))

        what = "loss" if not math.isfinite(loss) else "gradient"
        why = explain_nonfinite(self.model, batch, again)
        if self.world > 1:  # the process whose rows they are knows best
            whys = gather_object([(not own, why)])
            why = min(whys)[1]
        raise TrainingStopped(f"the {what} is not finite at step {at.step + 1}: {why}", self.what_to_try())

    def what_to_try(self) -> str:
        precise = "" if self.accelerate.mixed_precision == "no" else " or --set precision=fp32"
        lower = f"try --set lr={self.optim.lr / 3:.2g}{precise} with another --out"
        kept = self.path is not None and self.path.exists()
        return f"{lower}; the last good state is in {self.path}" if kept else lower


def _number(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
