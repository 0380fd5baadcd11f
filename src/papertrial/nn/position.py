"""How a Transformer knows where a token stands: parts that act on the input, on queries and keys, or on the logits.

A `Position` does one of the three; a stack asks for all of them, and adds what it gets.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from papertrial.core.errors import PapertrialError


class Position(nn.Module):
    """No positions; what the others inherit from.

    longest: how many places there are, None for any number.
    """

    longest: int | None = None

    def embed(self, at: Tensor) -> Tensor | None:
        """Added to the embedded tokens: places at (...) -> (..., width)."""
        return None

    def turn(self, at: Tensor) -> tuple[Tensor, Tensor] | None:
        """Cosines and sines by which queries and keys are turned: places at (...) -> (..., head width / 2) each."""
        return None

    def bias(self, query_at: Tensor, key_at: Tensor) -> Tensor | None:
        """Added to the logits: query_at (M,) and key_at (N,) -> (1, heads, M, N), or with a leading B -> (B, heads, M, N)."""
        return None

    def check(self, longest: int) -> None:
        """Raises PapertrialError for a row of more tokens than there are places."""
        if self.longest is not None and longest > self.longest:
            raise PapertrialError(
                f"a row has {longest} tokens and the model has places for {self.longest}", "cut the texts"
            )


class Learned(Position):
    """A learned vector for each of `longest` places. offset: rows of the table before the first place (RoBERTa has 2)."""

    def __init__(self, longest: int, width: int, offset: int = 0) -> None:
        super().__init__()
        self.longest, self.offset = longest, offset
        self.table = nn.Embedding(longest + offset, width)

    def embed(self, at: Tensor) -> Tensor:
        return self.table(at + self.offset)


class Sinusoidal(Position):
    """Sines, then cosines, of the place at width / 2 frequencies (1706.03762). Raises ValueError for an odd width."""

    def __init__(self, width: int, base: float = 10_000.0) -> None:
        super().__init__()
        if width % 2:
            raise ValueError(f"sines and cosines need an even width, not {width}")
        self.width, self.base = width, base

    def embed(self, at: Tensor) -> Tensor:
        angle = _angle(at, self.width, self.base)
        return torch.cat([angle.sin(), angle.cos()], -1)


class Rotary(Position):
    """Queries and keys are turned by an angle that grows with the place (RoFormer, 2104.09864).

    Raises ValueError for an odd head width.
    """

    def __init__(self, head_width: int, base: float = 10_000.0) -> None:
        super().__init__()
        if head_width % 2:
            raise ValueError(f"turning needs an even head width, not {head_width}")
        self.head_width, self.base = head_width, base

    def turn(self, at: Tensor) -> tuple[Tensor, Tensor]:
        angle = _angle(at, self.head_width, self.base)
        return angle.cos(), angle.sin()


class RelativeBias(Position):
    """A learned number per head and bucket of distance (T5, 1910.10683): fine buckets near, logarithmic ones up to `reach`.

    two_sided: half of the buckets for keys behind the query, half for those ahead; one-sided ones put all that is ahead
    into the bucket of distance 0.
    """

    def __init__(self, heads: int, buckets: int = 32, reach: int = 128, two_sided: bool = True) -> None:
        super().__init__()
        self.buckets, self.reach, self.two_sided = buckets, reach, two_sided
        self.table = nn.Embedding(buckets, heads)

    def bucket(self, ahead: Tensor) -> Tensor:
        """int64 of the shape of `ahead`: the place of the key minus that of the query."""
        buckets = self.buckets // 2 if self.two_sided else self.buckets
        side = (ahead > 0) * buckets if self.two_sided else 0
        distance = ahead.abs() if self.two_sided else (-ahead).clamp_min(0)
        exact = buckets // 2
        # in float32 whatever the model has, because the edges of the buckets are part of the weights
        log = torch.log(distance.clamp_min(1).float() / exact) / math.log(self.reach / exact) * (buckets - exact)
        return side + torch.where(distance < exact, distance, (exact + log.long()).clamp_max(buckets - 1))

    def bias(self, query_at: Tensor, key_at: Tensor) -> Tensor:
        ahead = key_at.unsqueeze(-2) - query_at.unsqueeze(-1)
        bias = self.table(self.bucket(ahead)).movedim(-1, -3)
        return bias if bias.ndim == 4 else bias[None]


class Alibi(Position):
    """Logits fall linearly with distance, at a fixed slope per head (ALiBi, 2108.12409)."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        whole = 2 ** math.floor(math.log2(heads))
        slopes = [2 ** (-8 * (head + 1) / whole) for head in range(whole)]
        # heads beyond a power of two take every other slope of the next one
        self.slopes = slopes + [2 ** (-4 * (2 * head + 1) / whole) for head in range(heads - whole)]

    def bias(self, query_at: Tensor, key_at: Tensor) -> Tensor:
        distance = (key_at.unsqueeze(-2) - query_at.unsqueeze(-1)).abs().unsqueeze(-3)
        bias = -distance * torch.tensor(self.slopes, device=distance.device)[:, None, None]
        return bias if bias.ndim == 4 else bias[None]


def _angle(at: Tensor, width: int, base: float) -> Tensor:
    """Places (...) -> (..., width / 2) at falling frequencies; float32 also where the model is in half precision."""
    return at.unsqueeze(-1) * base ** (-torch.arange(0, width, 2, device=at.device) / width)
