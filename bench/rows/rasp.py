"""The interpreter against a plain one: lists of Python values and of rows of booleans, a value and a comparison at a time.

The authors' interpreter is written so, and it has no package to install (github.com/tech-srl/RASP); this one is from the
paper's semantics, and leaves out what theirs does besides.
"""

from __future__ import annotations

import random
from typing import Any

from bench.harness import Case, Race, Side
from papertrial.claims.rasp import KNOWN
from papertrial.papers.rasp import program
from papertrial.papers.rasp.graph import COMPARE, Node
from papertrial.papers.rasp.run import Run


def plain(node: Node, tokens: str) -> list[Any]:
    """The values of a program, each step once, from its graph."""
    known: dict[Node, list[Any]] = {}
    for step in node.steps():
        known[step] = _step(step, [known[below] for below in step.args], tokens)
    return known[node]


def _step(node: Node, args: list[list[Any]], tokens: str) -> list[Any]:
    if node.kind == "input":
        return list(range(len(tokens))) if node.f == "indices" else list(tokens)
    if node.kind == "constant":
        return [node.detail for _ in tokens]
    if node.kind == "map":
        return [node.function(*values) for values in zip(*args, strict=True)]
    if node.kind == "select":
        keys, queries = args
        holds = COMPARE[node.f]
        return [[holds(key, query) for key in keys] for query in queries]
    if node.kind == "both":
        return [[a and b for a, b in zip(*rows, strict=True)] for rows in zip(*args, strict=True)]
    if node.kind == "either":
        return [[a or b for a, b in zip(*rows, strict=True)] for rows in zip(*args, strict=True)]
    if node.kind == "neither":
        return [[not a for a in row] for row in args[0]]
    return [_mean(row, args[1], 0 if node.detail is None else node.detail) for row in args[0]]


def _mean(row: list[bool], values: list[Any], default: Any) -> Any:
    looked_at = [value for value, looks in zip(values, row, strict=True) if looks]
    if len(looked_at) == 1:
        return looked_at[0]
    return sum(looked_at) / len(looked_at) if looked_at else default


def _numbers(values: list[Any]) -> list[float]:
    return [float(ord(value)) if isinstance(value, str) else float(value) for value in values]


def running(name: str):
    def build(case: Case) -> tuple[Side, Side]:
        known, draw = KNOWN[name], random.Random(0)
        letters = [draw.choice(known.letters) for _ in range(case.size - len(known.first))]
        tokens, node = known.first + "".join(letters), program(name)
        return (
            Side(lambda: Run(tokens)(node), lambda: _numbers(Run(tokens)(node).tolist())),
            Side(lambda: plain(node, tokens), lambda: _numbers(plain(node, tokens))),
        )

    return build


RACES = [
    Race(
        name,
        "lists",
        running(name),
        {f"{length} tokens": length for length in (64, 128, 256, 512)},
        typical="512 tokens",
        dtypes=("float64",),
        compiled=False,
        only_cpu="numpy",
    )
    for name in KNOWN
]
