"""Memory, asked before a training: what a step will need, what there is, and an encoder that reads its rows in pieces.

A forward pass of a few rows says what autograd keeps of a row. Where a whole batch of that does not fit, the encoder, in
which nearly all of it lies, reads the batch piece by piece: of a piece its features alone are kept, and the rest is made
again when its gradient is due (Gao, Zhang, Han and Callan, arXiv 2101.06983, sec. 3; Chen et al., arXiv 1604.06174). The
loss sees the features of the whole batch, so that contrastive losses have all their negatives and the gradient is that of
the same batch; dropout draws anew for each piece. An encoder whose rows depend on each other (batch norm, experts with a
capacity) can't be read so, and a batch that does not fit is refused with the figures.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from papertrial.core.budget import size_in_words
from papertrial.core.errors import Declined
from papertrial.core.memory import free_memory, ran_out
from papertrial.core.offers import offers
from papertrial.core.task import Ragged
from papertrial.nn.batches import to_tensors
from papertrial.train.device import return_memory, seed_step

#: rows of the pass that is measured; fewer where even those do not fit
_ROWS = (8, 2, 1)
#: what a step takes beside what autograd keeps: as a factor, and as a number of the largest tensor, such as its gradient
_BESIDE, _COPIES = 1.25, 3
#: share of the free memory that a step may take, and a piece of one: small pieces cost next to no time, and heaps have holes
_SHARE, _PIECE = 0.85, 0.4
_RESERVE = 256_000_000  # for what is no step: logs, checkpoints, threads


@dataclass(frozen=True)
class Weight:
    """Bytes that autograd keeps of a row of the batch: in the encoder, and outside of it.

    largest: of these the largest tensor, by row of the batch, and by row that the encoder reads.  encoded: rows that the
    encoder reads for a row of the batch.  fixed: gradients and the state of the optimiser.
    """

    inside: float
    outside: float
    largest: tuple[float, float]
    encoded: float
    fixed: int

    @property
    def row(self) -> float:
        """What a step takes for each row of the batch."""
        return _BESIDE * (self.inside + self.outside) + _COPIES * self.largest[0]

    @property
    def piece(self) -> float:
        """What a piece takes for each row that the encoder reads."""
        return _BESIDE * self.inside / self.encoded + _COPIES * self.largest[1]

    def step(self, rows: int) -> int:
        return int(self.fixed + rows * self.row)


def plan(updates: Any, room: int | None = None) -> tuple[int, str]:
    """Rows of a piece in which the encoder has to read, 0 for all at once, and words where that is not as usual.

    updates: the `train.updates.Updates` of a training on one process.  room: bytes a step may take, by default a share of
    what is free.  Raises Declined where a step does not fit in any way.
    """
    room = max(0, int(_SHARE * free_memory(updates.device)) - _RESERVE) if room is None else room
    rows = max(last - first for first, last in updates.batches.spans)
    weight = weigh(updates, rows)
    if weight.step(rows) <= room:
        return 0, ""
    encoder = offers(updates.model).encoder
    needs = f"a step of {rows} rows needs about {size_in_words(weight.step(rows))} of memory"
    free = f"{size_in_words(room)} are free for it"
    left = room - weight.fixed - _BESIDE * rows * weight.outside
    piece = int(max(_PIECE * left // weight.piece, left >= weight.piece)) if weight.inside and left > 0 else 0
    if piece >= 1 and isinstance(encoder, nn.Module) and apart(encoder):
        words = f"{needs}, and {free}: the encoder reads {piece} rows at a time, twice; the result is that of the same batch"
        return piece, words
    fitting = int((room - weight.fixed) // weight.row)
    if fitting < 1:
        raise Declined(f"{needs}, and {free}; not even one row fits", "take a smaller model, or shorter rows")
    pieces = -(-rows // fitting) * updates.optim.accumulate
    raise Declined(f"{needs}, and {free}", f"use --set batch={fitting}, or keep it with --set accumulate={pieces}")


def weigh(updates: Any, most: int) -> Weight:
    """Measure it on some rows of the first batch, no more than `most`. Raises Declined where not even one fits."""
    for rows in _ROWS:
        try:
            return _weigh(updates, min(rows, most))
        except _DoesNotFit:
            gc.collect()  # what the error's frames hold
        finally:
            return_memory()
    free = size_in_words(free_memory(updates.device))
    raise Declined(
        f"{free} of memory are free, in which not even one row fits", "take a smaller model, or shorter rows"
    )


class _DoesNotFit(Exception):
    pass


def _weigh(updates: Any, rows: int) -> Weight:
    """On rows from the longest to the shortest. Model and random numbers stay as they are."""
    model, split = updates.model, updates.split
    chosen = updates.batches.rows(0)
    lengths = sum(
        (column.lengths[chosen] for column in split.values() if isinstance(column, Ragged)), np.zeros(len(chosen))
    )
    order = np.argsort(-lengths, kind="stable")[np.linspace(0, len(chosen) - 1, rows).astype(np.int64)]
    buffers = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    known = {tensor.untyped_storage().data_ptr() for tensor in model.parameters()}
    encoder = offers(model).encoder
    count = _Count(known)
    try:
        with torch.random.fork_rng(devices=[updates.device] if updates.device.type == "cuda" else []):
            seed_step(updates.seed, 0, updates.rank, updates.device)
            batch = to_tensors(split.take(chosen[order]), updates.device)
            with count.watching(encoder if isinstance(encoder, nn.Module) else None):
                kept = updates.tried(batch, rows)  # what autograd holds lives as long as this
    except (RuntimeError, MemoryError) as error:
        if ran_out(error) is not None:
            raise _DoesNotFit from None
        raise
    del kept
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])
    states = 2 if updates.optim.optimizer == "adamw" else 1
    trained = sum(parameter.nbytes for parameter in updates.trained)
    largest = count.largest / rows, count.largest_inside
    encoded = max(1.0, count.encoded / rows)
    return Weight(count.inside / rows, count.outside / rows, largest, encoded, (1 + states) * trained)


class _Count:
    """Bytes that autograd keeps, each storage once. known: storages that are there anyway."""

    def __init__(self, known: set[int]) -> None:
        self.seen, self.inside, self.outside, self.encoded = set(known), 0, 0, 0
        self.largest, self.largest_inside = 0, 0.0
        self.within: list[int] = []  # rows of the calls of the encoder that are going on

    @contextlib.contextmanager
    def watching(self, encoder: nn.Module | None) -> Iterator[None]:
        handles = []
        if encoder is not None:
            handles = [encoder.register_forward_pre_hook(self._enter), encoder.register_forward_hook(self._leave)]
        try:
            with torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.within.append(len(inputs[0]) if inputs and isinstance(inputs[0], Tensor) else 0)
        self.encoded += self.within[-1]

    def _leave(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self.within.pop()

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.seen:
            self.seen.add(storage.data_ptr())
            self.largest = max(self.largest, storage.nbytes())
            if self.within:
                self.inside += storage.nbytes()
                self.largest_inside = max(self.largest_inside, storage.nbytes() / max(1, self.within[-1]))
            else:
                self.outside += storage.nbytes()
        return tensor.detach()  # a result that its own graph holds would never be let go


def apart(encoder: nn.Module) -> bool:
    """Whether a row's features do not depend on the other rows: no batch norm, and no part that adds to the loss of a batch."""
    return not any(isinstance(part, _BatchNorm) or "aux" in vars(part) for part in encoder.modules())


@contextlib.contextmanager
def in_pieces(encoder: nn.Module, piece: int) -> Iterator[None]:
    """Within it `encoder(*inputs)` reads `piece` rows at a time where gradients are wanted; 0: as it is."""
    if not piece:
        yield
        return
    whole = encoder.forward
    return_memory(always=True)

    def forward(*inputs: Tensor) -> Tensor:
        rows = len(inputs[0])
        if rows <= piece or not (torch.is_grad_enabled() and encoder.training):
            return whole(*inputs)
        pieces = -(-rows // piece)
        edges = [rows * part // pieces for part in range(pieces + 1)]
        parts = [[column[first:last] for column in inputs] for first, last in itertools.pairwise(edges)]
        return torch.cat([checkpoint(whole, *part, use_reentrant=False) for part in parts])

    encoder.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        del encoder.forward
