"""What the inputs of an exported model of tables mean, and rows to compare it on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def meanings(state: Mapping[str, Any], facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """See `Kind.meanings`."""
    missing = state.get("missing", [])
    columns = [
        {
            "name": "numeric",
            "dtype": "float32",
            "shape": [len(state["numeric"]) + len(missing)],
            "meaning": "these columns as they are; NaN is missing, no and yes are 0 and 1, dates are days since 1970, times are hours"
            + ("; whether one is missing is 1 or 0" if missing else ""),
            "columns": [*state["numeric"], *(f"{name} is missing" for name in missing)],
        },
        {
            "name": "categorical",
            "dtype": "int64",
            "shape": [len(state["categories"])],
            "meaning": "the place of the category in its column's list; the length of the list for any other or none",
            "columns": state["categories"],
        },
    ]
    return [entry for entry in columns if entry["shape"] != [0]]


def made_up(facts: Mapping[str, Any], rows: int) -> dict[str, np.ndarray]:
    """Numbers of all sizes, some of them missing, and categories at random."""
    rng = np.random.default_rng(0)
    numeric = rng.standard_normal((rows, facts["numeric"])) * 10 ** rng.uniform(-1, 3, (rows, 1))
    numeric[rng.random(numeric.shape) < 0.05] = np.nan
    codes = [rng.integers(0, size + 1, rows) for size in facts["cardinalities"]]
    categorical = np.stack(codes, 1) if codes else np.zeros((rows, 0), dtype=np.int64)
    return {"numeric": numeric.astype(np.float32), "categorical": categorical}
