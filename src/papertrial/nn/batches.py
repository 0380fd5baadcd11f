"""Batches as a pure function of (seed, step), so that a resumed run sees exactly what an uninterrupted one saw.

Every epoch is a fresh permutation; rows that do not fill a last batch are left out of that epoch (other rows in the
next). With several processes each takes its slice of the same global batch, whatever their number.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from papertrial.core.errors import DataError
from papertrial.core.memory import ran_out, require
from papertrial.core.task import Ragged, Split

_WORTH_A_THREAD = 1 << 18  # bytes; gathering a smaller batch takes less time than handing it to another thread


def to_tensors(columns: Mapping[str, np.ndarray], device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Columns as a model reads them: floats as float32, whole numbers as int64, booleans as they are.

    "image" (B, H, W, C) becomes float32 (B, C, H, W); uint8 pixels are divided by 255.  Ragged rows become (B, N), filled
    at the end with their `pad` up to the longest of the batch.
    Raises DataError for a column of text or objects.
    """
    return _on_device({name: _host_tensor(name, column) for name, column in columns.items()}, torch.device(device))


class Batches:
    """`at(step)` gives this process's part of batch number `step`.

    total: rows per step over all processes, at most the rows there are.  pieces: micro-batches a step is made of, fewer
    where they would leave a process without rows.  spans: for each piece, where in the global batch the rows of this
    process begin and end; processes differ by one row where the piece does not divide.  count: rows of this process.
    per_epoch: steps in one pass over the rows.  Raises DataError when there is not a row for each process.
    """

    def __init__(
        self,
        split: Split,
        batch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
        pieces: int = 1,
    ) -> None:
        self.total = min(batch, split.examples)
        if self.total < world or self.total == 0:
            raise DataError(
                f"there are {split.examples} training rows for a batch of {batch} over {world} process(es)",
                "give more rows, or start fewer processes",
            )
        pieces = min(pieces, self.total // world)
        bounds = itertools.pairwise(self.total * piece // pieces for piece in range(pieces + 1))
        shares = [(first, last - first) for first, last in bounds]
        self.spans = [(first + size * rank // world, first + size * (rank + 1) // world) for first, size in shares]
        self.count = sum(last - first for first, last in self.spans)
        self.split, self.seed, self.device = split, seed, torch.device(device)
        self.per_epoch = split.examples // self.total
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)
        self._next: tuple[int, Future[dict[str, Tensor]]] | None = None
        row_bytes = sum(column[:1].nbytes for column in split.values())
        mapped = any(isinstance(column, np.memmap) for column in split.values())
        worth_it = mapped or self.device.type == "cuda" or row_bytes * self.count >= _WORTH_A_THREAD
        self._thread = ThreadPoolExecutor(1, "papertrial-batches") if worth_it else None

    def rows(self, step: int) -> np.ndarray:
        """int64 (count,): the rows of batch `step` that belong to this process, piece by piece."""
        epoch, index = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            counter_based = np.random.Generator(np.random.Philox(key=[self.seed % 2**64, epoch]))
            self._epoch, self._order = epoch, counter_based.permutation(self.split.examples)
        batch = self._order[index * self.total : (index + 1) * self.total]
        return np.concatenate([batch[first:last] for first, last in self.spans])

    def at(self, step: int) -> dict[str, Tensor]:
        """The batch on the device; meanwhile a thread gathers the one after it."""
        if self._thread is None:
            return _on_device(self._gather(step), self.device)
        if self._next is None or self._next[0] != step:
            self._next = (step, self._thread.submit(self._gather, step))
        gathered = self._next[1].result()
        self._next = (step + 1, self._thread.submit(self._gather, step + 1))
        return _on_device(gathered, self.device)

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)

    def _gather(self, step: int) -> dict[str, Tensor]:
        rows = self.rows(step)
        gathered = {name: _host_tensor(name, _take(column, rows)) for name, column in self.split.items()}
        if self.device.type == "cuda":
            return {name: tensor.pin_memory() for name, tensor in gathered.items()}
        return _on_device(gathered, self.device)


def forward_batches(
    function: Callable[..., Tensor],
    split: Split,
    inputs: Sequence[str],
    batch: int = 256,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """`function` of the named columns for all rows, in chunks and without gradients; (N, ...) on the CPU.

    bfloat16 and float16 answers come back as float32. Ragged rows are taken from the longest to the shortest, so that few
    places are filled up. Where memory runs out, half as many rows go at once. The caller puts the model into `eval()`. No
    rows: shape (0,).
    """
    ragged = [split[name].lengths for name in inputs if isinstance(split[name], Ragged)]
    order = np.argsort(-sum(ragged), kind="stable") if ragged else None
    parts = []
    begin = 0
    with torch.no_grad():
        while begin < split.examples:
            rows = slice(begin, begin + batch) if order is None else order[begin : begin + batch]
            columns = {name: split[name][rows] for name in inputs}
            try:
                out = function(*to_tensors(columns, device).values())
            except (RuntimeError, MemoryError) as error:
                if batch == 1 or ran_out(error) is None:
                    raise
                batch = max(1, batch // 2)
                continue
            out = out.float() if out.dtype in (torch.bfloat16, torch.float16) else out
            parts.append(out.cpu().numpy())
            if not begin:
                size = (
                    2 * parts[0].nbytes / len(parts[0]) * split.examples if len(parts[0]) else 0
                )  # parts, and all in one
                require(size, f"answers for {split.examples:,} rows", "give it a part of the rows at a time")
            begin += batch
    if not parts:
        return np.empty(0, dtype=np.float32)
    answers = np.concatenate(parts)
    return answers if order is None else answers[np.argsort(order)]


def _take(column: Any, rows: np.ndarray) -> Any:
    if not isinstance(column, np.memmap):
        return column[rows]
    order = np.argsort(rows)  # a file is read fastest from front to back
    taken = np.empty((len(rows), *column.shape[1:]), dtype=column.dtype)
    taken[order] = column[rows[order]]
    return taken


def _host_tensor(name: str, column: Any) -> Tensor:
    column = column.padded().astype(np.int64) if isinstance(column, Ragged) else np.asarray(column)
    is_image = name == "image" and column.ndim == 4
    if column.dtype.kind == "f":
        column = column.astype(np.float32, copy=False)
    elif column.dtype.kind in "iu" and not (is_image and column.dtype == np.uint8):
        column = column.astype(np.int64, copy=False)
    elif column.dtype.kind not in "iub":
        raise DataError(f"the column {name!r} holds {column.dtype}, not numbers", "encode it before training")
    if is_image:
        column = column.transpose(0, 3, 1, 2)
    column = np.ascontiguousarray(column)
    return torch.from_numpy(column if column.flags.writeable else column.copy())


def _on_device(tensors: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Bytes travel as bytes and become numbers in [0, 1] on the device."""
    moved = {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}
    return {name: tensor / 255 if tensor.dtype == torch.uint8 else tensor for name, tensor in moved.items()}
