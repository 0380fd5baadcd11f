"""Answers as a data frame whose rows are called as those that were asked about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from papertrial.data.arrays import pair_of


def framed(columns: Mapping[str, np.ndarray], kind: str, data: Any) -> pd.DataFrame:
    """`columns`, of which `example` names the rows, with the index of `data` where it is a pandas frame or series, alone or
    with labels; else the names of files or queries where the examples have names, and else places from 0.

    kind: of the data.
    """
    names = columns["example"]
    places = _places(names, kind)
    held = pair_of(data)[0]
    indexed = places is not None and isinstance(held, pd.DataFrame | pd.Series)
    if indexed:
        index = held.index[places]
    elif places is None:
        index = pd.Index(names, name="example")
    else:
        index = pd.RangeIndex(len(names)) if np.array_equal(places, np.arange(len(names))) else pd.Index(places)
    frame = pd.DataFrame({name: np.asarray(column) for name, column in columns.items()}, index=index)
    if indexed:
        frame["example"] = index.to_numpy()
    return frame


def _places(names: np.ndarray, kind: str) -> np.ndarray | None:
    """int64 (N,): where the examples stand in their source, from 0; None where they have names."""
    if names.dtype.kind in "iu":
        return names.astype(np.int64) - 1  # as people count rows and lines
    if kind == "images" and all(name.isdecimal() for name in names.tolist()):  # of arrays: files have endings
        return names.astype(np.int64)
    return None
