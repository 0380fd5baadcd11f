"""What the compiler asks of a program: where chains of maps end, which conditions a selector is made of, and what their tables hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from papertrial.papers.rasp.graph import Atom, Node
from papertrial.papers.rasp.syntax import RaspError

#: most conditions of a selector
_CLAUSES = 64


class Never:
    """The value of a map where it fails: a combination that no input brings, or the interpreter fails there too."""


NEVER = Never()


def leaves(node: Node) -> dict[Node, None]:
    """The inputs and aggregates that a chain of maps ends at, in the order they are met."""
    found: dict[Node, None] = {}
    seen, waiting = {node}, [node]
    while waiting:
        step = waiting.pop()
        if step.kind != "map":
            found.update({step: None} if step.kind != "constant" else {})
            continue
        waiting += [arg for arg in dict.fromkeys(reversed(step.args)) if arg not in seen]
        seen.update(step.args)
    return found


def between(node: Node, reads: tuple[Node, ...]) -> list[Node]:
    """The maps from what is read to a node, arguments first."""
    found, waiting = set(), [node]
    while waiting:
        step = waiting.pop()
        if step.kind == "map" and step not in reads and step not in found:
            found.add(step)
            waiting += step.args
    return ordered(found)


def ordered(nodes: set[Node]) -> list[Node]:
    return sorted(nodes, key=lambda node: node.number)


def codes_of(table: np.ndarray, values: tuple[Atom, ...]) -> np.ndarray:
    """A table with the place of each value among `values`, -1 for NEVER."""
    places: dict[Any, int] = {value: place for place, value in enumerate(values)}
    return np.array([places.get(value, -1) for value in table.ravel().tolist()]).reshape(table.shape)


def filled(codes: np.ndarray) -> np.ndarray:
    """-1 along the last axis takes the value before it, at the start the one after."""
    codes = codes.copy()
    for row in codes.reshape(-1, codes.shape[-1]):
        known = np.flatnonzero(row >= 0)
        if len(known):
            row[:] = row[known[np.maximum(np.searchsorted(known, np.arange(len(row)), "right") - 1, 0)]]
    return codes


def merged(codes: np.ndarray, axes: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """One entry for values that behave alike on the first axes, and for each axis the group of every value."""
    groups = []
    for axis in range(axes):
        slices = np.moveaxis(codes, axis, 0).reshape(codes.shape[axis], -1)
        _, first, group = np.unique(slices, axis=0, return_index=True, return_inverse=True)
        codes = np.take(codes, first, axis=axis)
        groups.append(group.ravel())
    return codes, groups


def clauses_of(selector: Node) -> list[frozenset[tuple[Node, bool]]]:
    """A selector as conditions that all hold, each a set of comparisons of which one holds; (comparison, whether it does)."""
    found = _normal(selector, True)
    return [clause for clause in found if not any(other < clause for other in found)]


def _normal(selector: Node, positive: bool) -> list[frozenset[tuple[Node, bool]]]:
    if selector.kind == "select":
        return [frozenset([(selector, positive)])]
    if selector.kind == "neither":
        return _normal(selector.args[0], not positive)
    left, right = (_normal(arg, positive) for arg in selector.args)
    if (selector.kind == "both") == positive:
        return list(dict.fromkeys([*left, *right]))
    if len(left) * len(right) > _CLAUSES:
        raise RaspError(
            "this selector is too entangled to be the sum of conditions", selector.where, "aggregate in two steps"
        )
    return list(dict.fromkeys(a | b for a in left for b in right))


def sides_of(clause: frozenset[tuple[Node, bool]], at: int) -> list[Node]:
    """The keys (0) or queries (1) that a clause compares, constants left out."""
    return [atom.args[at] for atom, _ in clause if atom.args[at].kind != "constant"]


def distinct(values: Any) -> tuple[Atom, ...]:
    return tuple(dict.fromkeys(values))


def array_of(values: Sequence[Any]) -> np.ndarray:
    out = np.empty(len(values), object)
    out[:] = values
    return out
