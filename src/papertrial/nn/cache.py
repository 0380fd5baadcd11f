"""What a Transformer has read: an encoder's answer, and the keys and values of a decoder.

    Encoded   what an encoder made of a batch
    Cache     what a decoder has read, so that the next token costs one step

Notation as in `nn/transformer.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from papertrial.nn.attention import Remembered
from papertrial.nn.packing import Padded, Rows


@dataclass(frozen=True)
class Encoded:
    """What an encoder made of a batch: x (B, N, C) or packed (T, C), as `rows` lays it out."""

    x: Tensor
    rows: Rows

    def select(self, rows: Tensor) -> Encoded:
        """The same for rows (int64 (R,)) of the batch, which may repeat: as beams need it."""
        x = self.rows.unpack(self.x).index_select(0, rows)
        valid = None if self.rows.valid is None else self.rows.valid.index_select(0, rows)
        return Encoded(x, Padded(valid, torch.arange(x.shape[1], device=x.device)))


class Cache:
    """Keys and values of what a decoder has read. Tensors are made once and written in place; no gradient passes.

    keys, values: (layers, B, H, longest, D), so that a head reads its keys in one piece.
    length: int64 (B,), tokens each row holds.  used: the most any row may hold.
    """

    def __init__(
        self, layers: int, rows: int, longest: int, heads: int, head_width: int, dtype: torch.dtype, device: Any
    ) -> None:
        self.keys = torch.zeros(layers, rows, heads, longest, head_width, dtype=dtype, device=device)
        self.values = torch.zeros_like(self.keys)
        self.length = torch.zeros(rows, dtype=torch.int64, device=device)
        self.used = 0
        self._across: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def longest(self) -> int:
        return self.keys.shape[3]

    def select(self, rows: Tensor) -> None:
        """Keep rows (int64 (R,)) in this order; they may repeat. As many rows as before are moved in place."""
        for name in ("keys", "values"):
            held = getattr(self, name)
            if len(rows) == held.shape[1]:
                held[:, :, :, : self.used] = held[:, rows, :, : self.used]
            else:
                setattr(self, name, held.index_select(1, rows))
        self.length = self.length.index_select(0, rows)
        self._across = {
            layer: (keys.index_select(0, rows), values.index_select(0, rows))
            for layer, (keys, values) in self._across.items()
        }

    def view(self, layer: int, at: Tensor, bias: Tensor | None, turn: tuple[Tensor, Tensor] | None) -> Remembered:
        keys, values = (held[layer].transpose(1, 2) for held in (self.keys, self.values))
        return Remembered(keys, values, at, self.used + at.shape[-1], bias, turn)

    def across(self, layer: int, attention: Any, seen: Encoded) -> tuple[Tensor, Tensor]:
        """Keys and values of what the encoder made, projected at the first step only."""
        if layer not in self._across:
            keys, values = attention.keys_values(seen.x)
            self._across[layer] = (seen.rows.unpack(keys), seen.rows.unpack(values))
        return self._across[layer]

    def grow(self, valid: Tensor | None, tokens: int) -> None:
        """Count the tokens of a step: `tokens` places per row, of which `valid` (bool (B, M)) hold one."""
        self.used += tokens
        self.length += tokens if valid is None else valid.sum(1)
