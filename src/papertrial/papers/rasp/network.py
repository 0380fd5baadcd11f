"""The transformer that programs compile to: nothing but PyTorch, no norms, and a residual stream of named lines.

x = tokens(id) + positions(place)       place 0 is the slot BOS, where attention rests that selects nothing
x = x + feed_forward(x)                 any number of them before the first layer and in each layer
x = x + attention(x)                    softmax(Q K^T / sqrt(d)) V, padding left out
answers(x)                              one number for each value the program can give
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from papertrial.nn.attention import attend

PAD, BOS = 0, 1
SPECIALS = 2  # ids before those of the vocabulary


@dataclass(frozen=True)
class LayerShape:
    """heads, width of their queries and keys, width of their values, and the hidden widths of the feed-forward maps."""

    heads: int
    head: int
    value: int
    hidden: tuple[int, ...]


@dataclass(frozen=True)
class Shape:
    """vocabulary: without the specials.  longest: tokens, without the slot BOS.  before: hidden widths of the feed-forward
    maps ahead of the first layer.  answers: values the program can give."""

    vocabulary: int
    longest: int
    width: int
    answers: int
    before: tuple[int, ...]
    layers: tuple[LayerShape, ...]


class FeedForward(nn.Module):
    """x (B, N, width) -> (B, N, width): one hidden layer of ReLUs, of any width."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.into = nn.Linear(width, hidden)
        self.out = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.into(x).relu())


class Attention(nn.Module):
    """x (B, N, width), seen (B, 1, 1, N) bool -> (B, N, width): multi-head attention; heads are as wide as they need."""

    def __init__(self, width: int, shape: LayerShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.query = nn.Linear(width, shape.heads * shape.head, bias=False)
        self.key = nn.Linear(width, shape.heads * shape.head, bias=False)
        self.value = nn.Linear(width, shape.heads * shape.value, bias=False)
        self.out = nn.Linear(shape.heads * shape.value, width, bias=False)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        q, k, v = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        return self.out(attend(q, k, v, seen).transpose(1, 2).flatten(2))


class Layer(nn.Module):
    def __init__(self, width: int, shape: LayerShape) -> None:
        super().__init__()
        self.attention = Attention(width, shape)
        self.maps = nn.ModuleList(FeedForward(width, hidden) for hidden in shape.hidden)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        x = x + self.attention(x, seen)
        for feed_forward in self.maps:
            x = x + feed_forward(x)
        return x


class Transformer(nn.Module):
    """ids (B, 1 + N) int64, BOS first and PAD behind -> scores (B, N, answers); the largest is the program's value."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.tokens = nn.Embedding(shape.vocabulary + SPECIALS, shape.width)
        self.positions = nn.Embedding(shape.longest + 1, shape.width)
        self.before = nn.ModuleList(FeedForward(shape.width, hidden) for hidden in shape.before)
        self.layers = nn.ModuleList(Layer(shape.width, layer) for layer in shape.layers)
        self.answers = nn.Linear(shape.width, shape.answers, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        seen = (ids != PAD)[:, None, None, :]
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))
        for feed_forward in self.before:
            x = x + feed_forward(x)
        for layer in self.layers:
            x = layer(x, seen)
        return self.answers(x[:, 1:])
