"""Small real data sets that come with scikit-learn, by name: enough to try everything without a download."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from papertrial.data.images import Images


def digits() -> Images:
    """1 797 handwritten digits, 8 x 8 grey; the 17 levels of the source are spread over 0..255."""
    from sklearn.datasets import load_digits

    held = load_digits()
    pixels = (held.images * (255 / 16)).round().astype(np.uint8)
    return Images.from_arrays(pixels, held.target, [str(name) for name in held.target_names], name="digits")


def _table(name: str) -> Any:
    from sklearn import datasets

    from papertrial.data.table import Table

    held = getattr(datasets, f"load_{name}")(as_frame=True)
    frame = held.frame
    if "target_names" in held:
        frame = frame.assign(target=np.asarray(held.target_names)[frame["target"]])
    table = Table.from_frame(frame, target="target")
    table.name = name
    return table


BUILT_IN: dict[str, Callable[[], Any]] = {
    "digits": digits,
    "iris": lambda: _table("iris"),
    "wine": lambda: _table("wine"),
    "breast_cancer": lambda: _table("breast_cancer"),
    "diabetes": lambda: _table("diabetes"),
}
