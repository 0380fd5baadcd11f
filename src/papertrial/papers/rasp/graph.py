"""What a program is: a graph of steps on sequences. Equal steps are one node, so that each is computed once.

A node is an s-op (one value for every position) or a selector (for every position, which positions it looks at).

    input                  tokens_str tokens_int tokens_float tokens_bool tokens_asis indices
    constant               one value everywhere
    map      f, args       values at one position to a value there: the work of a feed-forward layer
    aggregate  selector, values; default       the mean of the values looked at: the work of an attention head
    select   keys, queries; comparison     both, either, neither: selectors from selectors
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable
from typing import Any
from weakref import WeakValueDictionary

from papertrial.papers.rasp.syntax import RaspError, Span

Atom = bool | int | float | str
SELECTORS = ("select", "both", "either", "neither")
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge,
}  # fmt: skip
#: the element-wise operations; what they do to Python values is what they mean
MAPS: dict[str, Callable[..., Any]] = {
    **COMPARE,
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "%": operator.mod,
    "^": operator.pow,
    "negative": operator.neg,
    "positive": operator.pos,
    "and": lambda a, b: bool(a) and bool(b),
    "or": lambda a, b: bool(a) or bool(b),
    "not": operator.not_,
    "round": round,
    "indicator": lambda a: 1 if a else 0,
    "choice": lambda a, condition, b: a if condition else b,
}


class Node:
    """A step. kind: see above.  f: the operation, of a select the comparison.  detail: its constants.

    depth: the layer that can first hold its value; the inputs are at 0, an aggregate is one above what it needs.
    where: the text that asked for it last.  number: the order of creation, so that arguments come before.
    """

    __slots__ = ("__weakref__", "args", "below", "depth", "detail", "f", "kind", "number", "where")

    def __init__(self, kind: str, f: str, args: tuple[Node, ...], detail: Any, number: int) -> None:
        self.kind, self.f, self.args, self.detail, self.number = kind, f, args, detail, number
        self.where: Span | None = None
        self.below: tuple[Node, ...] | None = None
        self.depth: int = max((node.depth for node in args), default=0)
        if kind == "select":
            self.depth += 1
        elif kind == "aggregate":
            self.depth = max(args[0].depth, args[1].depth + 1)

    @property
    def selects(self) -> bool:
        return self.kind in SELECTORS

    @property
    def function(self) -> Callable[..., Any]:
        """What a map does to the values at one position, given as Python values."""
        if self.f == "item":
            return _item(self.detail)
        if self.f == "in":
            return lambda value: value in self.detail
        return MAPS[self.f]

    def steps(self) -> tuple[Node, ...]:
        """The node and all that it needs, arguments first."""
        if self.below is None:
            found, waiting = {self}, [self]
            while waiting:
                for node in waiting.pop().args:
                    if node not in found:
                        found.add(node)
                        waiting.append(node)
            self.below = tuple(sorted(found, key=lambda node: node.number))
        return self.below

    def __repr__(self) -> str:
        return f"<{self.kind} {self.f or self.detail!r} number {self.number}>"


_known: WeakValueDictionary[Hashable, Node] = WeakValueDictionary()
_count = 0


def make(kind: str, f: str = "", args: tuple[Node, ...] = (), detail: Any = None, where: Span | None = None) -> Node:
    """The node with these parts: the one that exists, or a new one."""
    global _count
    key = (kind, f, _exact(detail), *(id(node) for node in args))  # nodes keep their arguments alive, and so their ids
    node = _known.get(key)
    if node is None:
        _count += 1
        node = _known[key] = Node(kind, f, args, detail, _count)
    if where is not None:
        node.where = where
    return node


def constant(value: Atom) -> Node:
    return make("constant", detail=value)


def restricted(node: Node, region: Node) -> Node:
    """A program whose every selector is kept false where the selector `region` is (sec. 4, restricted attention).

    Layers and heads stay what they were. Raises RaspError for a region that hangs on more than the positions.
    """
    for step in region.steps():
        if step.kind == "aggregate" or (step.kind == "input" and step.f != "indices"):
            raise RaspError(
                "a region says which positions may see which, whatever the tokens are",
                fix="compare indices with each other and with numbers, such as window(2)",
            )
    within: dict[Node, Node] = {}
    for step in node.steps():
        args = tuple(within[arg] for arg in step.args)
        if step.kind == "aggregate":
            args = (make("both", "", (args[0], region)), *args[1:])
        within[step] = make(step.kind, step.f, args, step.detail, step.where)
    return make("both", "", (within[node], region)) if node.selects else within[node]


def _exact(value: Any) -> Hashable:
    """A key that tells 1, 1.0 and True apart, which Python calls equal."""
    if isinstance(value, dict):
        return tuple((_exact(key), _exact(entry)) for key, entry in value.items())
    if isinstance(value, list | tuple):
        return (type(value).__name__, *map(_exact, value))
    return (type(value).__name__, value)


def _item(container: Any) -> Callable[[Any], Any]:
    def find(index: Any) -> Any:
        try:
            return container[index]
        except KeyError:
            raise RaspError(f"{index!r} is no key of the dict") from None
        except IndexError:
            raise RaspError(f"index {index} is out of range: there are {len(container)} items") from None

    return find


#: a selector of every position
EVERYWHERE = make("select", "==", (constant(1), constant(1)))
INPUTS = {
    name: make("input", name)
    for name in ("tokens_asis", "tokens_str", "tokens_int", "tokens_float", "tokens_bool", "indices")
}
