"""Classes of a target: their names, and several labels in one row, whose order says nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

_SEPARATORS = ("|", ";", ",")
_WORDS = 3  # of a label


def look_up(bits: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Positions int32 in `known` of each entry of `bits`, -1 where it is not there."""
    if not len(known):
        return np.full(len(bits), -1, np.int32)
    order = np.argsort(known)
    found = order[np.minimum(np.searchsorted(known[order], bits), len(known) - 1)]
    return np.where(known[found] == bits, found, -1).astype(np.int32)


def class_name(value: float, form: str) -> str:
    """What a number is called as a class."""
    if form == "boolean":
        return "true" if value else "false"
    return str(int(value)) if value.is_integer() else repr(value)


def class_label(value: float, form: str, fractions: bool) -> bool | int | float:
    """What a number is as a label. fractions: whole numbers are kept as floats, since all labels are some."""
    if form == "boolean":
        return bool(value)
    return int(value) if value.is_integer() and not fractions else value


def class_value(name: str) -> float:
    """The number that a class is called by, NaN where it is none."""
    if name in ("true", "false"):
        return float(name == "true")
    try:
        return float(name)
    except ValueError:
        return np.nan


def label_sets(values: Sequence[str]) -> dict[str, str]:
    """Values that hold several labels, `b|a` or `["b", "a"]`, and each as its labels in order, `a|b`.

    Empty where the values are no such sets: they are where labels come again in others, or in another order.
    """
    for separator in (*_SEPARATORS, ""):
        parts = {value: _labels(value, separator) for value in values}
        several = [frozenset(labels) for labels in parts.values() if len(labels) > 1]
        names = {label for labels in parts.values() for label in labels}
        again = len(names) < len(values) or len(set(several)) < len(several)
        if len(several) > 1 and again and all(0 < len(name.split()) <= _WORDS for name in names):
            glue = {",": ", ", "": "|"}.get(separator, separator)
            ordered = {value: glue.join(sorted(set(labels))) or value for value, labels in parts.items()}
            return {value: combined for value, combined in ordered.items() if value != combined}
    return {}


def _labels(value: str, separator: str) -> list[str]:
    """The labels of a value. separator: "" for JSON lists."""
    if separator:
        return [label.strip() for label in value.split(separator)]
    if value[:1] != "[":
        return [value]
    try:
        held = json.loads(value)
    except (ValueError, RecursionError):
        return [value]
    return [str(label) for label in held] if isinstance(held, list) and held else [value]
