"""Rows that are collected anew between steps, such as games that the current weights play.

A source is an object with `every`, a number of steps, and

    collect(step, state, draw) -> (rows, state)

step: how many steps were taken.  state: arrays by name, what it gave the time before; empty at the first one.  draw: a numpy
Generator that depends on (seed, step) alone; torch's global one is seeded alike.  rows: a Split that the next `every` steps learn
from, of at least a batch.  The model it looks at is in eval mode, without gradients.  So what is collected is a function of
(seed, step, state, weights), and a training that was killed goes on with the same rows: the checkpoint holds rows and state.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from papertrial.core.offers import offers
from papertrial.core.recipe import Optim
from papertrial.core.task import Ragged, Split
from papertrial.nn.modes import evaluating
from papertrial.train.device import accelerator, from_main, seed_step
from papertrial.train.randomness import drawing

_COLLECTING = 0x636F6C  # a stream of random numbers beside that of the steps


def is_source(rows: Any) -> bool:
    return hasattr(rows, "collect")


def learnt_from(model: Any, rows: Split) -> Any:
    """What `model` learns from: a source where it makes one of its rows (`row_source(rows)`), else the rows."""
    make = offers(model).row_source
    return make(rows) if make else rows


class Rounds:
    """The rows of the current round, and what the source keeps. begun: step at which they were collected.  seconds: of that.

    The main process collects, and the others get what it has: they would find the same, but for the last bits of other machines.
    """

    def __init__(self, source: Any, seed: int, accelerate: Accelerator) -> None:
        if source.every < 1:
            raise ValueError(f"a source collects every {source.every} steps")
        self.source, self.seed, self.accelerate = source, seed, accelerate
        self.rows, self.state, self.begun, self.seconds = Split({}), dict[str, Any](), -1, 0.0

    def due(self, step: int) -> bool:
        return step % self.source.every == 0 and step != self.begun

    def collect(self, step: int) -> None:
        """The caller has the model in eval mode, without gradients, and up to date."""
        begun = time.perf_counter()
        found = None
        if self.accelerate.is_main_process:
            draw = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, step, _COLLECTING])))
            with drawing:
                seed_step(self.seed ^ _COLLECTING, step, 0, self.accelerate.device)
                rows, state = self.source.collect(step, dict(self.state), draw)
            found = Split(rows).columns, {name: _array(value) for name, value in state.items()}
        columns, self.state = from_main(self.accelerate, found)
        self.rows, self.begun, self.seconds = Split(columns), step, time.perf_counter() - begun

    def tensors(self) -> dict[str, Tensor]:
        """For the checkpoint."""
        held: dict[str, Any] = {"begun": np.array(self.begun)}
        held |= {f"state/{name}": value for name, value in self.state.items()}
        for name, column in self.rows.items():
            if isinstance(column, Ragged):
                held |= {
                    f"values/{name}": column.values,
                    f"offsets/{name}": column.offsets,
                    f"pad/{name}": np.array(column.pad),
                }
            else:
                held[f"rows/{name}"] = column
        return {name: torch.from_numpy(np.array(value)) for name, value in held.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        held = {name: tensor.numpy() for name, tensor in tensors.items()}
        columns: dict[str, Any] = _under(held, "rows")
        for name, values in _under(held, "values").items():
            columns[name] = Ragged(values, held[f"offsets/{name}"], int(held[f"pad/{name}"]))
        self.rows, self.state, self.begun = Split(columns), _under(held, "state"), int(held["begun"])


def collected(source: Any, model: nn.Module, optim: Optim, seed: int) -> Split:
    """The first rows of a source, as the training of `model` would collect them."""
    where = accelerator(optim.precision)
    rounds = Rounds(source, seed, where)
    with torch.no_grad(), evaluating(model.to(where.device)):
        rounds.collect(0)
    return rounds.rows


def _under(held: Mapping[str, Any], part: str) -> dict[str, Any]:
    return {name.removeprefix(f"{part}/"): value for name, value in held.items() if name.startswith(f"{part}/")}


def _array(value: Any) -> np.ndarray:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
