"""Running a program on one input: columns of N values, and selectors as (N, N) boolean matrices (row = query).

A column is a numpy array of bool, int64 or float64, or of Python objects: strings, and numbers that fit no other type
(whole numbers among fractions, and those beyond int64). Where numpy could round or overflow, Python computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from papertrial.papers.rasp.graph import COMPARE, Atom, Node
from papertrial.papers.rasp.syntax import RaspError

_SAFE = 1 << 31  # sums, products and quotients of whole numbers below are exact in int64 and float64
_EXACT = 1 << 53  # whole numbers below are exact in float64
_COMPARE = {"==": np.equal, "!=": np.not_equal, "<": np.less, ">": np.greater, "<=": np.less_equal,
            ">=": np.greater_equal}  # fmt: skip
_VIEWS: dict[str, Callable[[Any], Any]] = {
    "tokens_asis": lambda token: token, "tokens_str": str, "tokens_int": int, "tokens_float": float, "tokens_bool": bool,
}  # fmt: skip


class Run:
    """One input, and every step computed on it so far.

    tokens: a string or a list of atoms.  Raises RaspError when there are none.
    """

    def __init__(self, tokens: str | Sequence[Atom]) -> None:
        self.tokens = list(tokens)
        if not self.tokens:
            raise RaspError("a program runs on one token or more, and here are none")
        self.known: dict[Node, np.ndarray] = {}
        self.weights: dict[Node, tuple[np.ndarray, np.ndarray]] = {}

    def __call__(self, node: Node) -> np.ndarray:
        """(N,) values of an s-op, or the (N, N) matrix of a selector.

        Raises RaspError with the place of the step that fails.
        """
        for step in node.steps():
            if step not in self.known:
                try:
                    self.known[step] = self._step(step, [self.known[below] for below in step.args])
                except RaspError as error:
                    raise RaspError(error.problem, error.where or step.where, error.fix) from None
                except (TypeError, ValueError, ArithmeticError) as error:
                    raise RaspError(str(error), step.where) from None
        return self.known[node]

    def _step(self, node: Node, args: list[np.ndarray]) -> np.ndarray:
        if node.kind == "map":
            return _map(node, args)
        if node.kind == "aggregate":
            return self._aggregate(node, args[0], args[1])
        if node.kind == "select":
            return compare(node.f, *args)
        if node.kind == "both":
            return args[0] & args[1]
        if node.kind == "either":
            return args[0] | args[1]
        if node.kind == "neither":
            return ~args[0]
        if node.kind == "constant":
            return column([node.detail] * len(self.tokens))
        if node.f == "indices":
            return np.arange(len(self.tokens))
        return column([_VIEWS[node.f](token) for token in self.tokens])

    def _aggregate(self, node: Node, matrix: np.ndarray, values: np.ndarray) -> np.ndarray:
        """The mean of the values each position looks at; one value alone keeps its type, none gives the default."""
        selector = node.args[0]
        if selector not in self.weights:
            self.weights[selector] = np.count_nonzero(matrix, axis=1), matrix.argmax(1)
        count, first = self.weights[selector]
        default = 0 if node.detail is None else node.detail
        out = values[first]
        many = count > 1
        if many.any():
            if kind_of(values) not in ("int", "float"):
                raise RaspError(
                    f"{int(count.max())} values are looked at and have no mean: they are {kind_of(values)}s",
                    fix="select one position, or aggregate numbers",
                )
            means = _sums(matrix[many], values) / count[many]
            out = out if out.dtype == np.float64 or many.all() else out.astype(object)
            out = means if many.all() else _put(out, many, means.tolist())
        if not count.all():
            out = _put(out.astype(object), count == 0, default)
        return column(out.tolist()) if out.dtype == object else out


def column(values: list[Any]) -> np.ndarray:
    """The array of a list of atoms; raises RaspError when they are of different types, or no atoms."""
    kinds = set(map(type, values))
    if kinds == {float}:
        return np.array(values, np.float64)
    if kinds == {bool}:
        return np.array(values, np.bool_)
    if kinds == {int} and min(values) > -_EXACT and max(values) < _EXACT:
        return np.array(values, np.int64)
    if not kinds <= {bool, int, float} and kinds != {str}:
        legal = kinds <= {bool, int, float, str}
        shown = ", ".join(map(repr, values[:6])) + (", ..." if len(values) > 6 else "")
        raise RaspError(
            f"the values of one sequence have one type, and here they differ: [{shown}]"
            if legal
            else f"the values of a sequence are strings, numbers or booleans, not [{shown}]"
        )
    out = np.empty(len(values), object)
    out[:] = values
    return out


def kind_of(values: np.ndarray) -> str:
    """bool, int, float or string. Booleans among whole numbers count as whole, whole numbers among fractions as float."""
    if values.dtype != object:
        return {"b": "bool", "i": "int", "f": "float"}[values.dtype.kind]
    kinds = set(map(type, values.tolist()))
    return "string" if str in kinds else "float" if float in kinds else "int"


def _put(out: np.ndarray, rows: np.ndarray, values: Any) -> np.ndarray:
    out = out.copy()
    out[rows] = values
    return out


def _sums(matrix: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The sums of the values in each row of a boolean matrix, as numbers that divide exactly as Python's do."""
    floats = values.astype(np.float64)
    if kind_of(values) == "float" or float(np.abs(floats).sum()) < _EXACT:
        sums: np.ndarray = matrix.astype(np.float64) @ floats
        return sums
    return np.array([sum(values[row].tolist()) for row in matrix], object)


def _map(node: Node, args: list[np.ndarray]) -> np.ndarray:
    if node.f in _FAST and all(arg.dtype != object for arg in args):
        with np.errstate(all="ignore"):
            out = _FAST[node.f](*args)
        if out is not None:
            return out
    return column(list(map(node.function, *(arg.tolist() for arg in args))))


def _small(*args: np.ndarray) -> bool:
    return all(arg.dtype.kind != "i" or bool((np.abs(arg) < _SAFE).all()) for arg in args)


def _whole(arg: np.ndarray) -> np.ndarray:
    return arg.astype(np.int64) if arg.dtype == np.bool_ else arg


def _arithmetic(f: Callable[..., np.ndarray], divides: bool = False) -> Callable[..., np.ndarray | None]:
    def fast(*args: np.ndarray) -> np.ndarray | None:
        if not _small(*args) or (divides and not args[1].all()):
            return None
        return f(*map(_whole, args))

    return fast


def _comparing(f: Callable[..., np.ndarray]) -> Callable[..., np.ndarray | None]:
    def fast(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
        return f(a, b) if a.dtype == b.dtype or _small(a, b) else None

    return fast


def _round(a: np.ndarray) -> np.ndarray | None:
    if a.dtype.kind != "f":
        return _whole(a)
    return np.rint(a).astype(np.int64) if bool((np.abs(a) < _EXACT).all()) else None


def _choice(a: np.ndarray, condition: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    return np.where(condition.astype(bool), a, b) if a.dtype == b.dtype else None


#: the same as MAPS on whole columns; None where numpy would answer otherwise than Python
_FAST: dict[str, Callable[..., np.ndarray | None]] = {
    **{sign: _comparing(f) for sign, f in _COMPARE.items()},
    "+": _arithmetic(np.add),
    "-": _arithmetic(np.subtract),
    "*": _arithmetic(np.multiply),
    "/": _arithmetic(np.true_divide, divides=True),
    "%": _arithmetic(np.mod, divides=True),
    "negative": _arithmetic(np.negative),
    "and": lambda a, b: a.astype(bool) & b.astype(bool),
    "or": lambda a, b: a.astype(bool) | b.astype(bool),
    "not": lambda a: ~a.astype(bool),
    "indicator": lambda a: a.astype(bool).astype(np.int64),
    "round": _round,
    "choice": _choice,
}


def compare(sign: str, keys: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """(queries, keys): whether the comparison holds of the key at the column and the query at the row."""
    if keys.dtype == object or queries.dtype == object:
        if {kind_of(keys), kind_of(queries)} == {"string"}:
            rank = {value: place for place, value in enumerate(sorted({*keys.tolist(), *queries.tolist()}))}
            keys, queries = (np.array([rank[value] for value in side.tolist()]) for side in (keys, queries))
        else:
            pairs = np.frompyfunc(COMPARE[sign], 2, 1)
            return pairs(keys[None, :].astype(object), queries[:, None].astype(object)).astype(bool)
    out: np.ndarray = _COMPARE[sign](keys[None, :], queries[:, None])
    return out
