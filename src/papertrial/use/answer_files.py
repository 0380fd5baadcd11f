"""Answers and features as files, written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from papertrial.core.errors import PapertrialError
from papertrial.core.files import write_with
from papertrial.core.ours import require_free

_TABLES = (".csv", ".jsonl", ".parquet")
_ARRAYS = (".npy", ".parquet")


def check_table_name(path: Path, replace: bool = False) -> None:
    """Raise PapertrialError before any work when `path` is not a file papertrial can write a table to; see `require_free`."""
    _check(path, _TABLES, replace)


def check_array_name(path: Path, replace: bool = False) -> None:
    """Raise PapertrialError before any work when `path` is not a file papertrial can write features to; see `require_free`."""
    _check(path, _ARRAYS, replace)


def _check(path: Path, accepted: Sequence[str], replace: bool) -> None:
    if path.suffix not in accepted:
        raise PapertrialError(
            f"cannot tell the format of {path}", f"end its name with {', '.join(accepted[:-1])} or {accepted[-1]}"
        )
    require_free(path, replace)


def write_table(path: Path, columns: Mapping[str, np.ndarray]) -> Path:
    """Columns of equal length as .csv, .jsonl or .parquet."""
    import pandas as pd

    frame = pd.DataFrame({name: np.asarray(column) for name, column in columns.items()})
    writers: dict[str, Any] = {
        ".csv": lambda temporary: frame.to_csv(temporary, index=False),
        ".jsonl": lambda temporary: frame.to_json(temporary, orient="records", lines=True, force_ascii=False),
        ".parquet": lambda temporary: frame.to_parquet(temporary, index=False),
    }
    return write_with(path, writers[path.suffix])


def write_array(path: Path, features: np.ndarray, names: Sequence[Any]) -> Path:
    """Features (N, width) as .npy, or as .parquet with the examples' names and one list column."""
    if path.suffix == ".npy":
        return write_with(path, lambda temporary: _npy(temporary, features))
    import pyarrow as pa
    import pyarrow.parquet as pq

    lists = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(features).ravel()), features.shape[1])
    table = pa.table({"example": pa.array([str(name) for name in names]), "embedding": lists})
    return write_with(path, lambda temporary: pq.write_table(table, temporary))


def _npy(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as stream:
        np.save(stream, array, allow_pickle=False)


def write_picture(path: Path, pixels: np.ndarray) -> Path:
    """uint8 (H, W, C) as PNG: grey with one channel, colour with three."""
    from PIL import Image

    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
    return write_with(path, lambda temporary: image.save(temporary, "png"))
