"""Labels as people keep them, numbers or words, as class numbers and class names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from papertrial.core.errors import DataError


def as_words(labels: np.ndarray, class_names: Sequence[str]) -> list[str]:
    """The name of each label int64 (N,), "" for -1."""
    names = [*map(str, class_names), ""]
    return [names[label] for label in np.asarray(labels).tolist()]


def own_labels(labels: Any, class_names: Sequence[str]) -> dict[str, Any]:
    """Name of a class -> what it is in `labels`, as people keep them (see `as_labels`): a whole number, a boolean or a
    fraction. Empty where it is the name."""
    held = np.asarray(labels)
    kind: str = held.dtype.kind
    if kind == "O":
        kinds = {
            np.asarray(value).dtype.kind for value in held.ravel().tolist() if value is not None and value == value
        }
        kind = kinds.pop() if len(kinds) == 1 else ""
    types: dict[str, Callable[[str], Any]] = {"b": lambda name: name == "1", "i": int, "u": int, "f": float}
    return {name: types[kind](name) for name in class_names} if kind in types else {}


def written_labels(class_names: Sequence[str]) -> dict[str, Any]:
    """The same of labels that stand in a file as text, where all are written as whole numbers, or as booleans."""
    if {name.casefold() for name in class_names} <= {"true", "false"}:
        return {name: name.casefold() == "true" for name in class_names}
    if all(name.removeprefix("-").isdecimal() and str(int(name)) == name for name in class_names):
        return {name: int(name) for name in class_names}
    return {}


def as_labels(
    labels: Any, count: int, class_names: Sequence[str] | None, what: str = "images"
) -> tuple[np.ndarray, tuple[str, ...]]:
    """(codes int64 (N,), class names) of labels as people keep them: numbers or words, -1, NaN or None where unknown.

    what: the examples, in the words of errors.  Numbers are places in `class_names` when those are given. Raises DataError for fractions and wrong lengths.
    """
    if labels is None:
        return np.full(count, -1, np.int64), tuple(class_names or ())
    values = np.asarray(labels)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.shape != (count,):
        raise DataError(f"{count} {what} but labels of shape {values.shape}", "give one label per image")
    if values.dtype.kind == "f" or (values.dtype.kind == "O" and not any(isinstance(value, str) for value in values)):
        values = np.array([-1 if value is None else value for value in values.tolist()], np.float64)
        values = np.where(np.isnan(values), -1, values)
        if (values != np.round(values)).any():
            raise DataError(
                f"the labels of the {what} are fractions", f"give class numbers or names; {what} are classified"
            )
    if values.dtype.kind in "biuf":
        codes = values.astype(np.int64)
        if class_names is not None:
            if codes.max(initial=-1) >= len(class_names):
                raise DataError(f"label {codes.max()} but only {len(class_names)} class names", "give a name per class")
            return np.maximum(codes, -1), tuple(class_names)
        known, inverse = np.unique(codes[codes >= 0], return_inverse=True)
        codes = np.full(count, -1, np.int64)
        codes[values >= 0] = inverse
        return codes, tuple(str(value) for value in known)
    missing = np.array([value is None or value != value for value in values.tolist()], bool)
    names = values.astype(str)
    known, inverse = np.unique(names[~missing], return_inverse=True)
    codes = np.full(count, -1, np.int64)
    codes[~missing] = inverse
    return codes, tuple(known.tolist())
