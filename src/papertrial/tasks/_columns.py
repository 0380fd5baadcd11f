"""The inputs that models get from the columns of a table, and how a new table is read alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

_NUMERIC = ("numeric", "boolean", "date")
_FEWEST = 5  # training rows with a value, and without one, from which a missing value is told from others


def chosen(data: Any, train: np.ndarray) -> tuple[dict[str, Any], dict[str, np.ndarray], list[str]]:
    """What a table gives to learn from: the state by which another is read alike, "numeric" float32 (rows, F) and "categorical"
    int64 (rows, C), and lines on what was not used.

    Numbers are followed by a column of 0 and 1 for each in `state["missing"]`: whether there is no value, which may say as
    much as a value does. They are the columns of which training rows lack values (one of several that lack the same), and
    those whose only value is there or not.
    """
    names = [column.name for column in data.used if column.type in _NUMERIC]
    boxes = [column.name for column in data.used if column.type == "checkbox"]
    categories, codes = {}, []
    for column in data.used:
        if column.type == "categorical":
            code, listed = data.codes(column.name)
            seen = np.unique(code[train])
            seen = seen[seen >= 0]
            categories[column.name] = [listed[index] for index in seen]
            place = np.full(len(listed) + 1, len(seen), dtype=np.int64)  # the last entry is for code -1
            place[seen] = np.arange(len(seen))
            codes.append(place[code])
    numbers = data.numeric(names)
    lacking = boxes + _telling(data, names, train)
    state = {
        "numeric": names,
        "categories": categories,
        "missing": lacking,
        "columns": data.read_as([*names, *boxes, *categories, data.target]),
    }
    notes = []
    if told := [name for name in lacking if name not in boxes]:
        listed = ", ".join(told[:6]) + (f" and {len(told) - 6} more" if told[6:] else "")
        notes.append(f"whether a value is missing is an input of its own for {listed}")
    left_out = [f"{c.name} ({c.why})" for c in data.columns.values() if not c.use and c.name != data.target]
    if left_out:
        notes.append(
            "not used: " + "; ".join(left_out[:6]) + (f"; and {len(left_out) - 6} more" if left_out[6:] else "")
        )
    return state, joined(numbers, data, lacking, codes), notes


def _telling(data: Any, names: list[str], train: np.ndarray) -> list[str]:
    """Those of the columns whose missing values may tell something: neither hardly any nor nearly all, and each pattern once."""
    found, patterns = [], set[bytes]()
    for name in names:
        column = data.columns[name]
        if not column.missing:
            continue
        absent = data.absent(name)[train]
        if (
            _FEWEST <= absent.sum() <= len(train) - _FEWEST
            and (pattern := np.packbits(absent).tobytes()) not in patterns
        ):
            patterns.add(pattern)
            found.append(name)
    return found


def joined(numbers: np.ndarray, data: Any, lacking: list[str], codes: list[np.ndarray]) -> dict[str, np.ndarray]:
    """The columns of a split."""
    if lacking:
        absent = np.stack([data.absent(name) for name in lacking], axis=1)
        numbers = np.concatenate([numbers, absent.astype(np.float32)], axis=1)
    categorical = np.stack(codes, axis=1) if codes else np.zeros((data.rows, 0), dtype=np.int64)
    return {"numeric": numbers, "categorical": categorical}


def again(state: Mapping[str, Any], data: Any) -> dict[str, np.ndarray]:
    """The columns of a new table, read as `state` says. Raises DataError naming a column that is missing or holds something else."""
    codes = []
    for name, categories in state["categories"].items():
        code = data.codes(name, categories)[0].astype(np.int64)
        codes.append(np.where(code < 0, len(categories), code))
    return joined(data.numeric(state["numeric"]), data, state.get("missing", []), codes)
