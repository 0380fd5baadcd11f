"""How large a transformer a program needs: every aggregate in the first layer that can hold it.

Heads are counted as distinct selectors among the aggregates of a layer; selectors with the same parts are one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from papertrial.papers.rasp import formatting
from papertrial.papers.rasp.graph import Node
from papertrial.papers.rasp.run import Run


@dataclass(frozen=True)
class Drawing:
    """Lines of text to show as they are."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """selectors: for each layer the distinct selectors, one head each."""

    selectors: tuple[tuple[Node, ...], ...]

    @property
    def layers(self) -> int:
        return len(self.selectors)

    @property
    def heads(self) -> int:
        """Of the widest layer."""
        return max(map(len, self.selectors), default=0)

    def sentence(self) -> str:
        if not self.layers:
            return "no layers"
        each = " + ".join(str(len(layer)) for layer in self.selectors)
        return f"{self.layers} layer{'s'[: self.layers > 1]}, heads {each}"


def plan(node: Node) -> Plan:
    """The layers and heads of an s-op, or of what a selector compares and the head that it is."""
    found: list[dict[Node, None]] = [{} for _ in range(node.depth)]
    for step in node.steps():
        if step.kind == "aggregate":
            found[step.depth - 1][step.args[0]] = None
    if node.selects:
        found[node.depth - 1][node] = None
    return Plan(tuple(tuple(layer) for layer in found))


def attention(node: Node, tokens: Any) -> list[np.ndarray]:
    """Where each head of a program looks on an input: for each layer float64 (heads, N, N), a row for each query.

    A row is even over what its selector looks at, as the mean of an aggregate is, and 0 where that is nothing.
    """
    run = Run(tokens)
    found = []
    for layer in plan(node).selectors:
        seen = np.stack([run(selector) for selector in layer]).astype(np.float64)
        found.append(seen / np.maximum(seen.sum(-1, keepdims=True), 1))
    return found


def draw(node: Node, name: str, tokens: Any) -> Drawing:
    """A program at work on an input: for each layer the pattern of each head and what it brings, then the result."""
    run = Run(tokens)
    lines = [f"{name}: {plan(node).sentence()}"]
    for number, layer in enumerate(plan(node).selectors, 1):
        for head, selector in enumerate(layer, 1):
            lines += [f"layer {number}, head {head}", *formatting.table(run(selector), run.tokens, "   ")]
            for step in node.steps():
                if step.kind == "aggregate" and step.args[0] is selector and step.depth == number:
                    lines.append(f"     {_values(run, step.args[1])} -> {_values(run, step)}")
    if not node.selects:
        lines.append(f"\t =  {_values(run, node)}")
    return Drawing(tuple(lines))


def _values(run: Run, node: Node) -> str:
    return f"[{', '.join(map(formatting.item, run(node).tolist()))}]"
