"""Arguments of public functions, checked against their annotations before anything is read or written.

`@typed` refuses an argument of another type, a number out of the range that `ranges.NUMBERS` gives it, and an argument that there
is none of, each in one line with what would do. What is annotated with `Any` is left to the function.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, Union, get_args, get_origin

from papertrial.core.budget import Budget
from papertrial.core.errors import WrongType, WrongValue, did_you_mean
from papertrial.core.ranges import NUMBERS, require_numbers

P = ParamSpec("P")
R = TypeVar("R")

#: one or several
Names = str | Sequence[str]

_WORDS: dict[Any, str] = {
    str: "a text",
    int: "a whole number",
    bool: "True or False",
    float: "a number",
    Path: "a path",
    Budget: "a budget such as '90s', '10m' or '500steps'",
    Mapping: "a mapping such as {'lr': 0.01}",
    Sequence: "a list of texts",
    Callable: "a function",
}


def typed(function: Callable[P, R]) -> Callable[P, R]:
    """The function, which raises WrongType or WrongValue for arguments that its annotations do not allow."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        check(function, args, kwargs)
        return function(*args, **kwargs)

    return call


def check(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Raise WrongType or WrongValue, which name the argument, where the function cannot be called so."""
    called = function.__name__
    signature = inspect.signature(function)
    open_end = any(entry.kind is entry.VAR_KEYWORD for entry in signature.parameters.values())
    for name in kwargs.keys() - signature.parameters.keys() if not open_end else ():
        raise WrongType(f"{called} takes no argument {name!r}", did_you_mean(name, signature.parameters))
    try:
        given = signature.bind(*args, **kwargs).arguments
    except TypeError as error:
        raise WrongType(f"{called}: {error}", f"it is called as {called}{_shown(signature)}") from None
    hints = _hints(function)
    for name, value in given.items():
        if name in hints:
            _require(name, value, hints[name])


def require_gradients(what: str) -> None:
    """Raise WrongValue where torch keeps no gradients, since nothing could be learned."""
    torch = sys.modules.get("torch")
    if torch is not None and not torch.is_grad_enabled():
        how = "inference_mode" if torch.is_inference_mode_enabled() else "no_grad"
        raise WrongValue(f"{what} under torch.{how}(), where nothing can be learned", "call it outside of that")


def _shown(signature: inspect.Signature) -> str:
    """The arguments that must be given, and `...` for the others."""
    needed = [entry.name for entry in signature.parameters.values() if entry.default is entry.empty]
    return f"({', '.join([*needed, '...'])})"


@functools.cache
def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of the arguments; those of a rest (`**options`) and of a return value say nothing here."""
    held, space = inspect.get_annotations(function), inspect.unwrap(function).__globals__
    rest = {entry.name for entry in inspect.signature(function).parameters.values() if entry.kind is entry.VAR_KEYWORD}
    named = {name: hint for name, hint in held.items() if name != "return" and name not in rest}
    return {name: eval(hint, space) if isinstance(hint, str) else hint for name, hint in named.items()}


def _require(name: str, value: Any, hint: Any) -> None:
    if any(_is(value, kind) for kind in _choices(hint)):
        if name in NUMBERS and _is(value, float):
            require_numbers(**{name: value})
        return
    words = dict.fromkeys(_words(kind) for kind in _choices(hint) if kind is not type(None))
    if Budget in _choices(hint):
        words.pop(_WORDS[str], None)  # it is one that says a budget
    shown = " ".join(f"{value!r:.60}".split())
    raise WrongType(f"{name} is {shown}, of the type {type(value).__name__}", f"give {' or '.join(words)}")


def _choices(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _is(value: Any, kind: Any) -> bool:
    """Whether a value is of the kind that an annotation names."""
    origin, inside = get_origin(kind) or kind, get_args(kind)
    if kind is Any:
        return True
    if kind is None or kind is type(None):
        return value is None
    if kind is bool:
        return isinstance(value, bool) or type(value).__name__ in ("bool", "bool_")
    if kind in (int, float):
        return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    if origin is Callable or kind is Callable:
        return callable(value)
    if not isinstance(value, origin):
        return False
    if issubclass(origin, Collection) and origin not in (str, bytes):
        if isinstance(value, str | bytes):
            return False
        return not inside or inside[0] is not str or all(isinstance(key, str) for key in value)
    return True


def _words(choice: Any) -> str:
    kind = get_origin(choice) or choice
    return next((words for known, words in _WORDS.items() if known is kind), f"one of the type {kind.__name__}")
