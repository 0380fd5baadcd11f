"""Images that are in memory already: arrays of any usual shape and type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from papertrial.core.errors import DataError
from papertrial.data.base import cached_array, fingerprint, track
from papertrial.data.images.decode import DECODER, Headers, cover

_USUAL = ((0, 1), (-1, 1), (0, 255))
_TOGETHER = 1024  # images that are looked at together


class Arrays:
    """Images that are in memory already: uint8 or float32 (N, H, W, C). A `Source` as far as `Images` needs one."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.names = [str(row) for row in range(len(array))]
        self.fingerprint = fingerprint(array)
        self.others: dict[str, int] = {}

    def headers(self) -> Headers:
        count, height, width, channels = self.array.shape
        mode = {1: "L", 3: "RGB"}.get(channels, f"{channels} channels")
        bad = {}
        if self.array.dtype != np.uint8:
            finite = np.isfinite(self.array).reshape(count, -1).all(axis=1)
            bad = {int(row): "holds NaN or infinite values" for row in np.flatnonzero(~finite)}
        return Headers([height] * count, [width] * count, [mode] * count, bad=bad)

    def render(
        self, rows: np.ndarray, height: int, width: int, channels: int, note: Callable[[str], None]
    ) -> tuple[np.ndarray, dict[int, str]]:
        array = self.array if len(rows) == len(self.array) else self.array[rows]
        if array.shape[1:3] != (height, width):
            held = array

            def fill(out: np.ndarray) -> None:
                for row, image in enumerate(track(held, len(held), "resizing")):
                    out[row] = _covering(image, height, width)

            name = f"pixels-{fingerprint(DECODER, self.fingerprint, rows)}-{height}x{width}x{array.shape[3]}"
            array = cached_array(name, (len(rows), height, width, array.shape[3]), array.dtype, fill, note)
        return with_channels(array, channels), {}

    def fresh(self, rows: np.ndarray, height: int, width: int, channels: int) -> list[np.ndarray | str]:
        """As `Source.fresh`."""
        images = with_channels(self.array[rows], channels)
        return [_covering(image, height, width) for image in images]


def _covering(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """One image (H, W, C) as (height, width, C)."""
    return np.stack([cover(Image.fromarray(plane), height, width) for plane in image.transpose(2, 0, 1)], -1)


def with_channels(array: np.ndarray, channels: int) -> np.ndarray:
    """Grey from colour or colour from grey; other numbers of channels have no meaning in common."""
    held = array.shape[3]
    if held == channels:
        return array
    if held == 1 and channels == 3:
        return np.repeat(array, 3, axis=3)
    if held == 3 and channels == 1:
        grey = array @ np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow converts
        return (grey.round() if array.dtype == np.uint8 else grey).astype(array.dtype)[..., None]
    raise DataError(f"images with {held} channels where {channels} are expected", "open data of the same kind")


def as_images(images: Any, notes: list[str]) -> np.ndarray:
    """uint8 or float32 (N, H, W, C)."""
    array = np.asarray(images)
    if array.ndim not in (3, 4) or array.dtype.kind not in "buif" or 0 in array.shape[1:]:
        raise DataError(
            f"an array of shape {array.shape} and type {array.dtype} is not a set of images",
            "give numbers of shape (N, height, width), (N, height, width, channels) or (N, channels, height, width)",
        )
    if array.ndim == 3:
        array = array[..., None]
    elif array.shape[3] > 4 and array.shape[1] in (1, 3) and min(array.shape[2:]) > array.shape[1]:
        array = array.transpose(0, 2, 3, 1)
        notes.append(f"read as (N, channels, height, width) with {array.shape[3]} channels")
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind == "b":
        return array.astype(np.uint8) * 255
    if array.dtype.kind in "ui" and array.size:
        low, high = array.min(), array.max()
        if low >= 0 and high <= 255 and array.dtype != np.uint16:
            return array.astype(np.uint8)
        if low >= 0 and high <= 65535:
            notes.append("16-bit values are divided by 65535")
            return (array / np.float32(65535)).astype(np.float32)
    with np.errstate(over="ignore"):  # what does not fit is infinite then, and skipped
        values = np.ascontiguousarray(array, np.float32)
    low, high = value_range(values)
    if usual_range(low, high) not in ((0, 1), (0, 255)):
        notes.append(
            f"values from {low:g} to {high:g}, not from 0 to 1 or from 0 to 255: the least that is trained on is read as black,"
            " the greatest as white"
        )
    return values


def value_range(values: np.ndarray) -> tuple[float, float]:
    """The least and the greatest finite value of images (N, ...), (0, 0) where there is none."""
    ends = []
    for begin in range(0, len(values), _TOGETHER):
        some = values[begin : begin + _TOGETHER]
        finite = some[np.isfinite(some)]
        ends += [float(finite.min()), float(finite.max())] if finite.size else []
    return (min(ends), max(ends)) if ends else (0.0, 0.0)


def usual_range(low: float, high: float) -> tuple[int, int] | None:
    """The narrowest of the ranges that pixels usually have which holds these values; None where none does."""
    return next(((first, last) for first, last in _USUAL if first <= low and high <= last), None)
