"""Image sets in binary files: idx (the MNIST family), CIFAR-10 batches. Plain, .gz or .xz."""

from __future__ import annotations

import gzip
import lzma
import re
import zlib
from pathlib import Path

import numpy as np

from papertrial.core.errors import DataError
from papertrial.data.images import Images
from papertrial.data.layout import TEST, TRAIN

_IDX_NAME = re.compile(r".*images?[-_.]idx3[-_.]ubyte(\.gz|\.xz)?")
_CIFAR_NAME = re.compile(r".*batch.*\.bin(\.gz|\.xz)?")
_CIFAR_RECORD = 1 + 3 * 32 * 32  # one label, then the red, green and blue planes
# batches.meta.txt of the binary version, https://www.cs.toronto.edu/~kriz/cifar.html
_CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def is_idx(path: Path) -> bool:
    return _IDX_NAME.fullmatch(path.name) is not None


def is_cifar(path: Path) -> bool:
    return _CIFAR_NAME.fullmatch(path.name) is not None


def unpacked(path: Path) -> bytes:
    """The content of a plain, .gz or .xz file. Raises DataError for a damaged one."""
    unpack = {".gz": gzip.decompress, ".xz": lzma.decompress}.get(path.suffix, bytes)
    try:
        return unpack(path.read_bytes())
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{path} cannot be read ({error})", "download it again") from None


def read_idx(path: Path) -> np.ndarray:
    """The uint8 array in an idx file: two zero bytes, the type, the number of axes, then their lengths, big-endian
    (http://yann.lecun.com/exdb/mnist). Raises DataError for another type or a wrong length."""
    content = unpacked(path)
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise DataError(f"{path} is not an idx file of bytes", "it must begin with the bytes 0 0 8")
    start = 4 + 4 * content[3]
    shape = tuple(np.frombuffer(content[4:start], ">u4").tolist()) if len(content) >= start else (-1,)
    if len(content) - start != int(np.prod(shape, dtype=object)):
        raise DataError(
            f"{path} holds {len(content) - start:,} bytes, not the {shape} its header says", "download it again"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def idx_images(paths: list[Path], name: str) -> Images:
    """Images from the image files of an idx set; the labels lie beside them under the usual names."""
    images, labels, part = [], [], []
    for path in sorted(paths, key=_idx_part):
        array = read_idx(path)
        beside = _idx_labels(path)
        if array.ndim != 3:
            raise DataError(f"{path} has {array.ndim} axes, not 3", "give the file of images")
        codes = np.full(len(array), -1, np.int64) if beside is None else read_idx(beside).astype(np.int64)
        if codes.shape != (len(array),):
            raise DataError(f"{path} has {len(array)} images, {beside} {codes.size} labels", "download them again")
        images.append(array)
        labels.append(codes)
        part.append(np.full(len(array), _idx_part(path) if len(paths) > 1 else TRAIN, np.int8))
    return Images.from_arrays(np.concatenate(images), np.concatenate(labels), part=np.concatenate(part), name=name)


def _idx_part(path: Path) -> int:
    return TEST if re.match(r".*(t10k|test)[-_.]?images?", path.name.lower()) else TRAIN


def _idx_labels(path: Path) -> Path | None:
    stem = path.name.removesuffix(".gz").removesuffix(".xz")
    for packed in ("", ".gz", ".xz"):
        beside = path.with_name(
            stem.replace("images", "labels").replace("image", "label").replace("idx3", "idx1") + packed
        )
        if beside.is_file():
            return beside
    return None


def cifar_images(paths: list[Path], name: str) -> Images:
    """Images from CIFAR-10 batches of the binary version; test batches become the test part."""
    pixels, labels, part = [], [], []
    for path in sorted(paths):
        content = unpacked(path)
        if len(content) == 0 or len(content) % _CIFAR_RECORD:
            raise DataError(
                f"{path} is {len(content):,} bytes, not records of {_CIFAR_RECORD}",
                "give the binary version of CIFAR-10",
            )
        records = np.frombuffer(content, np.uint8).reshape(-1, _CIFAR_RECORD)
        if records[:, 0].max() >= len(_CIFAR_CLASSES):
            raise DataError(f"{path} has a label {records[:, 0].max()}", "give the binary version of CIFAR-10")
        labels.append(records[:, 0].astype(np.int64))
        pixels.append(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        is_test = len(paths) > 1 and path.name.startswith("test")
        part.append(np.full(len(records), TEST if is_test else TRAIN, np.int8))
    return Images.from_arrays(
        np.concatenate(pixels), np.concatenate(labels), _CIFAR_CLASSES, np.concatenate(part), name=name
    )
