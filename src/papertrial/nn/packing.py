"""Where the tokens of a batch stand: padded to (B, N, ...), or packed without padding to (T, ...).

Everything that works token by token runs on either; `pack` and `unpack` go between them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor

#: a batch is packed when more than this share of its places is padding (bench/packing.py: it never cost time there)
WORTH_PACKING = 0.05
_only_padded: ContextVar[bool] = ContextVar("only_padded", default=False)
#: rows are attended to together when the shortest has at least this share of the longest's tokens
SIMILAR = 0.7


@contextmanager
def padded() -> Iterator[None]:
    """Nothing is packed for a while, as where `torch.func.vmap` maps a function over rows."""
    token = _only_padded.set(True)
    try:
        yield
    finally:
        _only_padded.reset(token)


@dataclass(frozen=True)
class Padded:
    """Tokens as (B, N, ...). valid: bool (B, N), None where every place holds a token.  at: int64 (N,) or (B, N), places
    counted from the start of the row."""

    valid: Tensor | None
    at: Tensor

    @property
    def longest(self) -> int:
        return self.at.shape[-1]

    def pack(self, x: Tensor) -> Tensor:
        return x

    def unpack(self, x: Tensor) -> Tensor:
        """With zeros where there is no token."""
        return x if self.valid is None else x * self.valid.view(*self.valid.shape, *(1,) * (x.ndim - 2)).to(x.dtype)


@dataclass(frozen=True)
class Group:
    """Rows of similar length that follow each other in a packed batch: tokens `first` to `last`, as (rows, longest, ...).

    place: int64 (last - first,), the place of each token among rows * longest; None where the rows are equally long.
    valid: bool (rows, longest), or None.
    """

    first: int
    last: int
    rows: int
    longest: int
    place: Tensor | None
    valid: Tensor | None

    def unpack(self, x: Tensor) -> Tensor:
        x = x[self.first : self.last]
        if self.place is not None:
            x = x.new_zeros(self.rows * self.longest, *x.shape[1:]).index_copy(0, self.place, x)
        return x.unflatten(0, (self.rows, self.longest))

    def pack(self, x: Tensor) -> Tensor:
        x = x.flatten(0, 1)
        return x if self.place is None else x.index_select(0, self.place)


@dataclass(frozen=True)
class Packed:
    """Tokens as (T, ...), row after row, the longest row first. shape: (B, N).  place: int64 (T,), the place of each token
    among B * N.  at: int64 (T,), its place in its row.  valid: bool (B, N)."""

    shape: tuple[int, int]
    place: Tensor
    at: Tensor
    valid: Tensor
    groups: tuple[Group, ...]

    @property
    def longest(self) -> int:
        return self.shape[1]

    def pack(self, x: Tensor) -> Tensor:
        return x.flatten(0, 1).index_select(0, self.place)

    def unpack(self, x: Tensor) -> Tensor:
        """With zeros where there is no token."""
        rows, longest = self.shape
        filled = x.new_zeros(rows * longest, *x.shape[1:]).index_copy(0, self.place, x)
        return filled.unflatten(0, (rows, longest))


Rows = Padded | Packed


def rows_of(valid: Tensor, packed: bool | None = None) -> Rows:
    """How to lay out a batch whose tokens are where `valid` (bool (B, N)) says; every row needs one.

    packed: None packs where that is worth it, which asks for the lengths and so waits for the device. A traced program
    (torch.compile, torch.export) is always padded, and so is all within `padded()`: shapes must not depend on values there.
    """
    rows, longest = valid.shape
    at = torch.arange(longest, device=valid.device)
    if torch.compiler.is_compiling() or _only_padded.get():
        return Padded(valid, at)
    lengths = valid.sum(1).tolist()
    total = sum(lengths)
    if total == rows * longest and not packed:
        return Padded(None, at)
    if not (packed if packed is not None else total < (1 - WORTH_PACKING) * rows * longest):
        return Padded(valid, at)
    order = sorted(range(rows), key=lambda row: -lengths[row])
    row, column = valid[order].nonzero(as_tuple=True)
    place = torch.tensor(order, device=valid.device)[row] * longest + column
    groups = _groups([lengths[row] for row in order], valid.device)
    return Packed((rows, longest), place, column, valid, groups)


def _groups(lengths: list[int], device: torch.device) -> tuple[Group, ...]:
    """Rows of falling length, cut where one is much shorter than the first of its group."""
    groups: list[Group] = []
    begin = first = 0
    while begin < len(lengths):
        longest = lengths[begin]
        sizes = [length for length in lengths[begin:] if length >= SIMILAR * longest]
        last = first + sum(sizes)
        place = valid = None
        if sizes[-1] < longest:
            valid = torch.arange(longest, device=device) < torch.tensor(sizes, device=device)[:, None]
            place = valid.flatten().nonzero()[:, 0]
        groups.append(Group(first, last, len(sizes), longest, place, valid))
        begin, first = begin + len(sizes), last
    return tuple(groups)
