"""Multi-head attention, with separate query, key and value maps.

An `Attention` holds the weights. What a query sees, and how positions weigh in, is a `View`: made once per forward pass
and used by all layers. Tokens are (B, N, ...), or packed as (T, ...); the view knows which. `attend` is the one place that
chooses how queries, keys and values are mixed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from papertrial.nn.modes import cpu_has_bf16
from papertrial.nn.packing import Packed, Rows

#: a view: `(q, k, v, scale, dropout) -> mixed`, all of them (..., heads, head width)
View = Callable[[Tensor, Tensor, Tensor, "float | None", float], Tensor]


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    causal: bool = False,
    dropout: float = 0.0,
    scale: float | None = None,
) -> Tensor:
    """softmax(scale q k^T + mask) v: q (B, H, M, D), k (B, H, N, D) and v (B, H, N, E) -> (B, H, M, E).

    mask: added to the logits (float) or true where a key is seen (bool); broadcasts to (B, H, M, N). A query that sees no
    key gets zeros.  causal: the query at place i sees the keys up to i; only without a mask.  dropout: of the map.
    scale: 1 / sqrt(D) where not given.
    The kernel of PyTorch, but where its gradients are slow: those in bfloat16 on a CPU with instructions for it take three to
    nine times as long as the product written out, or one to two times with dropout.
    """
    if _kernel_is_slow(q, k, v):
        return _written_out(q, k, v, mask, causal, dropout, scale)
    return F.scaled_dot_product_attention(q, k, v, mask, dropout, causal, scale=scale)


#: looked up once: a traced program cannot ask the processor
_CPU_HAS_BF16 = cpu_has_bf16()


def _kernel_is_slow(*given: Tensor) -> bool:
    device = given[0].device.type
    if device != "cpu" or not _CPU_HAS_BF16:
        return False
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else given[0].dtype
    return dtype == torch.bfloat16 and torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given)


def _written_out(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, dropout: float, scale: float | None
) -> Tensor:
    """What `scaled_dot_product_attention` gives, product by product."""
    logits = (q * (q.shape[-1] ** -0.5 if scale is None else scale)) @ k.transpose(-2, -1)
    if causal:
        mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=q.device).tril()
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=logits.dtype).masked_fill(~mask, -torch.inf)
    blind = None
    if mask is not None:
        blind = mask.isneginf().all(
            -1, keepdim=True
        )  # a softmax over nothing is no number, and neither is its gradient
        if torch.compiler.is_compiling() or blind.any():
            mask = mask.masked_fill(blind, 0.0)
        else:
            blind = None
        logits = logits + mask
    # in float32, like the kernel, whatever the products are in
    shares = logits.softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32)).to(v.dtype)
    if blind is not None:
        shares = shares.masked_fill(blind, 0.0)
    return (F.dropout(shares, dropout) if dropout else shares) @ v


class Attention(nn.Module):
    """Softmax attention with `heads` heads. `forward(query (B, M, width), context (B, N, width)) -> (B, M, width)`.

    dropout: on the attention map, in training only.  head_width: of one head, width / heads where not given.  scale: what
    logits are multiplied with, 1 / sqrt(head_width) where not given (T5 has 1).  view: what each query sees, everything
    where not given; context may also be what `keys_values` returned.
    Raises ValueError when heads does not divide width and head_width is not given.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        head_width: int | None = None,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        if head_width is None and width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}")
        self.heads, self.dropout, self.scale = heads, dropout, scale
        self.head_width = head_width or width // heads
        inner = heads * self.head_width
        self.query = nn.Linear(width, inner, bias=bias)
        self.key = nn.Linear(width, inner, bias=bias)
        self.value = nn.Linear(width, inner, bias=bias)
        self.out = nn.Linear(inner, width, bias=bias)

    def keys_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """(..., width) -> keys and values, each (..., heads, head width)."""
        return self._split(self.key(context)), self._split(self.value(context))

    def forward(
        self, query: Tensor, context: Tensor | tuple[Tensor, Tensor] | None = None, view: View | None = None
    ) -> Tensor:
        context = query if context is None else context
        keys, values = self.keys_values(context) if isinstance(context, Tensor) else context
        dropout = self.dropout if self.training else 0.0
        mixed = (view or Within())(self._split(self.query(query)), keys, values, self.scale, dropout)
        return self.out(mixed.flatten(-2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1))


@dataclass(frozen=True)
class Within:
    """Each row sees itself: q (B, M, H, D), k and v (B, N, H, D) -> (B, M, H, D).

    bias: added to the logits (float) or true where a key is seen (bool); broadcasts to (B, H, M, N).  causal: the query at
    place i sees the keys up to i; only without bias.  turn: (cos, sin) of rotary positions, for queries and keys.
    """

    bias: Tensor | None = None
    causal: bool = False
    turn: tuple[Tensor, Tensor] | None = None

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, scale: float | None, dropout: float) -> Tensor:
        q, k = turned(q, self.turn), turned(k, self.turn)
        bias = self.bias.to(q.dtype) if self.bias is not None and self.bias.is_floating_point() else self.bias
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return attend(q, k, v, bias, self.causal, dropout, scale).transpose(1, 2)


@dataclass(frozen=True)
class WithinPacked:
    """Each row of a packed batch sees itself: q, k, v (T, H, D) -> (T, H, D), one call per group of rows of similar length.

    Never traced: the number of groups is another one in every batch.
    """

    rows: Packed
    views: tuple[Within, ...]
    turn: tuple[Tensor, Tensor] | None = None

    @torch.compiler.disable
    def __call__(self, q: Tensor, k: Tensor, v: Tensor, scale: float | None, dropout: float) -> Tensor:
        q, k = turned(q, self.turn), turned(k, self.turn)
        mixed = [
            group.pack(view(group.unpack(q), group.unpack(k), group.unpack(v), scale, dropout))
            for group, view in zip(self.rows.groups, self.views, strict=True)
        ]
        return torch.cat(mixed)


@dataclass(frozen=True)
class Across:
    """Rows see the rows of another batch (cross-attention), where those have a token."""

    rows: Rows
    seen: Rows

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, scale: float | None, dropout: float) -> Tensor:
        k, v = (x if x.ndim == 4 else self.seen.unpack(x) for x in (k, v))
        bias = None if self.seen.valid is None else self.seen.valid[:, None, None]
        return self.rows.pack(Within(bias)(self.rows.unpack(q), k, v, scale, dropout))


@dataclass(frozen=True)
class Remembered:
    """Rows see what the cache holds of them and themselves: q, k, v (B, M, H, D), keys and values (B, longest, H, D).

    Writes k and v to the places `at` (B, M) of the cache, or (M,), its next ones, where all rows stand alike, and reads its
    first `used` places.  bias: as `Within` has it.
    """

    keys: Tensor
    values: Tensor
    at: Tensor
    used: int
    bias: Tensor | None
    turn: tuple[Tensor, Tensor] | None = None

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, scale: float | None, dropout: float) -> Tensor:
        place: Any = (slice(None), slice(self.used - q.shape[1], self.used))
        if self.at.ndim == 2:
            place = (torch.arange(len(q), device=q.device)[:, None], self.at)
        self.keys[place] = turned(k, self.turn).detach().to(self.keys.dtype)
        self.values[place] = v.detach().to(self.values.dtype)
        keys, values = (x[:, : self.used].to(q.dtype) for x in (self.keys, self.values))
        return Within(self.bias)(turned(q, self.turn), keys, values, scale, dropout)


def turned(x: Tensor, turn: tuple[Tensor, Tensor] | None) -> Tensor:
    """Rotary positions (2104.09864): x (..., H, D), cos and sin (..., D / 2); the halves of D are the two coordinates."""
    if turn is None:
        return x
    cos, sin = (part.unsqueeze(-2).to(x.dtype) for part in turn)
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def causal_bias(query_at: Tensor, key_at: Tensor) -> Tensor:
    """bool (..., M, N): a query sees the keys up to its own place. query_at (..., M), key_at (..., N)."""
    return key_at.unsqueeze(-2) <= query_at.unsqueeze(-1)


def joined(seen: Tensor | None, bias: Tensor | None) -> Tensor | None:
    """One mask of what is seen (bool) and what is added (float), None where there is neither."""
    if seen is None or bias is None:
        return bias if seen is None else seen
    return bias.masked_fill(~seen, -torch.inf)
