"""Arrays as people hold them, in memory or in .npy and .npz files: (X, y) by part of the split."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from papertrial.core.errors import DataError
from papertrial.data.base import accepted
from papertrial.data.layout import PARTS

#: X and, where there are some, targets (N,), by part: 0 train, 1 valid, 2 test
Parts = dict[int, tuple[np.ndarray, np.ndarray | None]]

_X_NAMES, _Y_NAMES = ("x", "images", "image", "data", "features"), ("y", "labels", "label", "targets", "target")


def numpy_parts(path: Path) -> Parts:
    """part -> (X, y or None) of a .npy or .npz file, the latter with keys like x and y, or x_train and y_test.

    Raises DataError for pickled objects, which are never loaded, and for keys that are not understood.
    """
    try:
        with open(path, "rb") as stream:
            held = np.load(stream, allow_pickle=False)
            arrays = {"x": held} if isinstance(held, np.ndarray) else {key: held[key] for key in held.files}
    except (ValueError, OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        why = "it holds pickled objects" if "pickle" in str(error).lower() else str(error)
        raise DataError(
            f"{path} cannot be read as numpy arrays ({why})", "save plain arrays with numpy.savez"
        ) from None
    found: dict[int, dict[str, np.ndarray]] = {}
    for key, array in arrays.items():
        words = re.split(r"[_\-. ]+", key.lower())
        part = next((word for word in words if word in PARTS), "train")
        rest = [word for word in words if word not in PARTS]
        if len(rest) == 1 and rest[0] in (*_X_NAMES, *_Y_NAMES):
            found.setdefault(PARTS[part], {})["x" if rest[0] in _X_NAMES else "y"] = array
    if not found or any("x" not in pair for pair in found.values()):
        keys = ", ".join(arrays) or "(none)"
        raise DataError(f"{path} has the keys {keys}", "name them x and y, or x_train, y_train, x_test, y_test")
    return {part: (pair["x"], pair.get("y")) for part, pair in sorted(found.items())}


def pair_of(source: Any) -> tuple[Any, Any]:
    """(X, y), y None where `source` is X alone."""
    return source if isinstance(source, tuple) and len(source) == 2 else (source, None)


def array_of(values: Any) -> np.ndarray:
    """Raises DataError for what is no array of numbers or words."""
    kind = type(values).__name__
    if isinstance(values, io.IOBase):
        raise DataError(f"an open file ({kind}) is given", "give the path of the file")
    if hasattr(values, "toarray"):
        raise DataError(f"a {kind} is sparse", "give it as X.toarray()")
    detached = values.detach().cpu() if hasattr(values, "cpu") else values
    try:
        return np.asarray(detached)
    except (ValueError, TypeError):
        raise DataError(f"a {type(values).__name__} is not an array of even rows", accepted()) from None


def one_hot(values: np.ndarray) -> bool:
    """Whether each row (N, classes) is 0 but for one 1."""
    if values.dtype.kind not in "biuf":
        return False
    return bool(((values == 0) | (values == 1)).all() and (values.sum(axis=1) == 1).all())


def target_of(x: Any, y: Any) -> np.ndarray:
    """y as (N,). Raises DataError when it has another length than x or several columns."""
    values = array_of(y)
    values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    if values.ndim == 2 and len(values) == len(x) and one_hot(values):
        raise DataError(f"the labels are one-hot, of shape {values.shape}", "give class numbers: y.argmax(1)")
    if values.shape != (len(x),):
        raise DataError(f"{len(x)} examples but a target of shape {values.shape}", "give one value per example")
    return values
