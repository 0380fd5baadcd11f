"""Weights of a compiled transformer: hidden units and heads as the compiler finds them, written into its matrices."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from papertrial.papers.rasp.network import LayerShape

FLAG, HERE = 0, 1  # lines that are 1 at BOS, and at every token


@dataclass
class Unit:
    """A hidden unit: relu(sum of weights of lines + bias), and the lines it adds to."""

    weights: dict[int, float]
    bias: float
    out: dict[int, float]


@dataclass
class Head:
    """Weights by (row, line) of a head; `rest` is what each row of the values is at BOS."""

    query: dict[tuple[int, int], float] = field(default_factory=dict)
    key: dict[tuple[int, int], float] = field(default_factory=dict)
    value: dict[tuple[int, int], float] = field(default_factory=dict)
    rest: list[float] = field(default_factory=list)
    out: list[int] = field(default_factory=list)
    width: int = 1
    conditions: int = 0


def write_attention(
    state: dict[str, np.ndarray],
    name: str,
    place: int,
    head: Head,
    shape: LayerShape,
    rest: np.ndarray,
    sharpness: float,
) -> None:
    """Write a head. At BOS its queries and keys hold nothing but the pull of BOS, its values the defaults."""
    pull = np.zeros(shape.head)
    for part, weights, first in (("query", head.query, 1.0), ("key", head.key, head.conditions - 0.5)):
        block = np.zeros((shape.head, len(rest)))
        fill(block, weights)
        pull[0] = first
        block[:, FLAG] += pull - block @ rest
        scale = sharpness * math.sqrt(shape.head) if part == "query" else 1.0
        state[f"{name}.{part}.weight"][place * shape.head : (place + 1) * shape.head] = block * scale
    block = np.zeros((shape.value, len(rest)))
    fill(block, head.value)
    block[: len(head.rest), FLAG] += head.rest - (block @ rest)[: len(head.rest)]
    start = place * shape.value
    state[f"{name}.value.weight"][start : start + shape.value] = block
    for row, line in enumerate(head.out):
        state[f"{name}.out.weight"][line, start + row] = 1.0


def write_feed_forward(state: dict[str, np.ndarray], name: str, units: list[Unit], rest: np.ndarray) -> None:
    """Write the hidden units, all of them silent at BOS."""
    into, bias, out = (state[f"{name}.{part}"] for part in ("into.weight", "into.bias", "out.weight"))
    for row, unit in enumerate(units):
        for line, weight in unit.weights.items():
            into[row, line] = weight
        for line, weight in unit.out.items():
            out[line, row] += weight
        bias[row] = unit.bias
        into[row, FLAG] -= unit.bias + into[row] @ rest + 1.0


def fill(block: np.ndarray, weights: dict[tuple[int, int], float]) -> None:
    for place, weight in weights.items():
        block[place] = weight
