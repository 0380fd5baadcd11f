"""Images: pixels at a working size, labels, and what is worth knowing about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from papertrial.core.errors import DataError
from papertrial.data import duplicates
from papertrial.data.base import Data, Look, cached_array, fingerprint, track
from papertrial.data.decode import DECODER, EXTENSIONS, GREY_MODES, Archive, Folder, Headers, Pictures, Source, cover
from papertrial.data.layout import layout

TRAIN, VALID, TEST = 0, 1, 2
SMALL, DEFAULT = 64, 64  # images of one size up to SMALL keep it; others are brought to DEFAULT
_FEW, _IMBALANCE = 10, 10  # labelled images of a class, and ratio of largest to smallest class, that look warns at
_NAMED = 5  # skipped files named in a note


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
                    out[row] = np.stack(
                        [cover(Image.fromarray(plane), height, width) for plane in image.transpose(2, 0, 1)], -1
                    )

            name = f"pixels-{fingerprint(DECODER, self.fingerprint, rows)}-{height}x{width}x{array.shape[3]}"
            array = cached_array(name, (len(rows), height, width, array.shape[3]), array.dtype, fill, note)
        return _with_channels(array, channels), {}


def _with_channels(array: np.ndarray, channels: int) -> np.ndarray:
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


class Images(Data):
    """Images with or without labels. Decoding waits until pixels, labels or the facts page are asked for.

    labels: int64 (N,), -1 = unlabelled.  class_names: sorted.  names: file (or index) per image.
    part: int8 (N,), 0 = train or free, 1 = valid, 2 = test; duplicates of a training image are moved to its side.
    groups: int64 (N,), equal for exact and near duplicates, so that a split can keep them together.
    given_split: whether the data came with test images.  channels, height, width: typical of the images as they
    came; uniform: whether all have that size.  working_size: (height, width) that `pixels()` uses by itself.

    Damaged files are left out of everything and listed in `skipped` (name -> reason).
    """

    kind = "images"

    def __init__(
        self,
        source: Source | Arrays,
        labels: np.ndarray | None = None,
        class_names: Sequence[str] = (),
        part: np.ndarray | None = None,
        *,
        name: str = "images",
        notes: Sequence[str] = (),
    ) -> None:
        """source: N images.  labels: int64 (N,) into class_names.  part: int8 (N,). Raises DataError without images."""
        count = len(source.names)
        if count == 0:
            raise DataError(f"{name} holds no images", "give a folder, an archive or an array with images in it")
        self._source = source
        self._labels = np.full(count, -1, np.int64) if labels is None else np.asarray(labels, np.int64)
        self._part = np.zeros(count, np.int8) if part is None else np.asarray(part, np.int8)
        self.class_names = tuple(class_names)
        key = fingerprint(source.fingerprint, self._labels, self._part, *self.class_names)
        super().__init__(name, key, notes)
        if source.others:
            self.note(f"left aside: {_aside(source.others)}")

    @classmethod
    def from_files(cls, path: Path | str) -> Images:
        """A folder, an archive (tar, plain or compressed, or zip) or one image file; `layout` says how folders become
        labels. Raises DataError when no image is there."""
        path = Path(path)
        if path.is_dir():
            return cls.from_source(Folder(path), path.name or str(path))
        if path.suffix.lower() in EXTENSIONS:
            stat = path.stat()
            key = fingerprint(path.name, stat.st_size, stat.st_mtime_ns)
            return cls(Pictures([path.name], key, lambda _: path), name=path.name)
        return cls.from_source(Archive(path), path.name)

    @classmethod
    def from_source(cls, source: Source, name: str) -> Images:
        """Labels and split from the folders in the names of `source`. Raises DataError when it has no images."""
        if not source.names:
            aside = _aside(source.others) or "nothing"
            raise DataError(
                f"no images in {name} (it holds {aside})", "put images in it, in one folder per class for labels"
            )
        found = layout(source.names)
        return cls(source, found.labels, found.class_names, found.part, name=name, notes=found.notes)

    @classmethod
    def from_arrays(
        cls,
        images: Any,
        labels: Any = None,
        class_names: Sequence[str] | None = None,
        part: Any = None,
        *,
        name: str = "arrays",
    ) -> Images:
        """images: (N, H, W), (N, H, W, C) or (N, C, H, W) of bytes, integers, booleans or floats.

        labels: (N,) of integers or strings; -1, None and NaN mean unlabelled. Raises DataError for anything else.
        """
        notes: list[str] = []
        array = _as_images(images, notes)
        codes, names = as_labels(labels, len(array), class_names)
        if part is not None and len(part) != len(array):
            raise DataError(f"{len(array)} images but {len(part)} entries of part", "give one per image")
        return cls(Arrays(array), codes, names, part, name=name, notes=notes)

    @cached_property
    def _headers(self) -> Headers:
        return self._source.headers()

    @cached_property
    def _readable(self) -> np.ndarray:
        """Rows of the source whose header can be read."""
        rows = np.setdiff1d(np.arange(len(self._source.names)), list(self._headers.bad))
        if len(rows) == 0:
            row, why = next(iter(self._headers.bad.items()))
            raise self._unreadable(row, why)
        return rows

    def _unreadable(self, row: int, why: str) -> DataError:
        return DataError(
            f"none of the {len(self._source.names)} images of {self.name} can be read ({self._name(row)}: {why})",
            "check that the files open in an image viewer",
        )

    def _name(self, row: int) -> str:
        return self._source.names[row].encode("utf-8", "replace").decode()

    @cached_property
    def _sizes(self) -> np.ndarray:
        """(M, 2) heights and widths of the readable images."""
        return np.array([self._headers.height, self._headers.width], np.int64).T[self._readable]

    @property
    def uniform(self) -> bool:
        return bool((self._sizes == self._sizes[0]).all())

    @property
    def height(self) -> int:
        return int(np.median(self._sizes[:, 0]))

    @property
    def width(self) -> int:
        return int(np.median(self._sizes[:, 1]))

    @cached_property
    def channels(self) -> int:
        if isinstance(self._source, Arrays):
            return self._source.array.shape[3]
        modes = {self._headers.mode[row] for row in self._readable}
        return 1 if all(mode in GREY_MODES or mode.startswith("I;16") for mode in modes) else 3

    @property
    def working_size(self) -> tuple[int, int]:
        if self.uniform and max(self.height, self.width) <= SMALL:
            return max(4, 4 * round(self.height / 4)), max(4, 4 * round(self.width / 4))
        return DEFAULT, DEFAULT

    @cached_property
    def _decoded(self) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
        """(pixels at the working size, their rows in the source, row -> reason for the damaged ones)."""
        rows = self._readable
        pixels, bad = self._source.render(rows, *self.working_size, self.channels, self.note)
        if len(pixels) == 0:
            raise self._unreadable(*next(iter(bad.items())))
        bad = {**self._headers.bad, **bad}
        if bad:
            some = ", ".join(f"{self._name(row)} ({bad[row]})" for row in sorted(bad)[:_NAMED])
            self.note(f"skipped {_count(len(bad), 'damaged file')}: {some}{', ...' if len(bad) > _NAMED else ''}")
        return pixels, np.setdiff1d(rows, list(bad)), bad

    @property
    def skipped(self) -> dict[str, str]:
        bad = self._decoded[2]
        return {self._name(row): bad[row] for row in sorted(bad)}

    @cached_property
    def labels(self) -> np.ndarray:
        return self._labels[self._decoded[1]]

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(self._name(row) for row in self._decoded[1].tolist())

    def __len__(self) -> int:
        return len(self._decoded[1])

    def pixels(self, height: int | None = None, width: int | None = None, channels: int | None = None) -> np.ndarray:
        """(N, height, width, channels) uint8, or float32 for float sources; often memory-mapped and read-only.

        Without arguments at the working size: that of the images when all have one of at most 64, to the nearest
        multiple of 4, else 64 x 64. Images are scaled to cover the frame and cropped at the centre; height alone means
        a square. Raises DataError when a file has become unreadable since, or channels cannot be converted.
        """
        pixels, rows, _ = self._decoded
        default_height, default_width = self.working_size
        size = (height or width or default_height, width or height or default_width)
        wanted = channels or self.channels
        if size == (default_height, default_width):
            return _with_channels(pixels, wanted)
        if min(size) < 1 or wanted < 1:
            raise DataError(f"images of {size[0]} x {size[1]} x {wanted} are asked for", "give positive numbers")
        pixels, bad = self._source.render(rows, *size, wanted, self.note)
        if bad:
            row, why = next(iter(bad.items()))
            raise DataError(f"{self._name(row)} could be read before and now cannot ({why})", "open the data again")
        return pixels

    @cached_property
    def _duplicates(self) -> duplicates.Duplicates:
        return duplicates.find(self._decoded[0])

    @property
    def groups(self) -> np.ndarray:
        return self._duplicates.groups

    @cached_property
    def _moved(self) -> tuple[np.ndarray, int]:
        """(part with every group of duplicates on its earliest side, how many images that moved)."""
        given = self._part[self._decoded[1]]
        earliest = np.full(int(self.groups.max()) + 1, TEST, np.int8)
        np.minimum.at(earliest, self.groups, given)
        part = earliest[self.groups]
        moved = int((part != given).sum())
        if moved:
            self.note(
                f"moved {_count(moved, 'duplicate')} of training images out of the other parts, where they would leak"
            )
        if moved and not (part == TEST).any() and (given == TEST).any():
            self.note(
                "every test image was a duplicate of a training image: the split that came with the data is not used"
            )
            part = np.zeros_like(part)
        return part, moved

    @property
    def part(self) -> np.ndarray:
        return self._moved[0]

    @property
    def given_split(self) -> bool:
        return bool((self.part == TEST).any())

    def look(self) -> Look:
        """The facts page; decodes everything once. Of 70 000 small images it takes seconds."""
        labels, part, found = self.labels, self.part, self._duplicates
        labelled = int((labels >= 0).sum())
        counts = np.bincount(labels[labels >= 0], minlength=len(self.class_names))
        exact, groups = found.surplus(found.exact), found.surplus(found.groups)
        working, rows = self.working_size, self._decoded[1]
        sizes = self._sizes[np.searchsorted(self._readable, rows)]
        by_area = np.argsort(sizes.prod(axis=1), kind="stable")
        numbers: dict[str, Any] = {
            "examples": len(labels),
            "labelled": labelled,
            "unlabelled": len(labels) - labelled,
            "train": int((part == TRAIN).sum()),
            "valid": int((part == VALID).sum()),
            "test": int((part == TEST).sum()),
            "given_split": self.given_split,
            "classes": len(self.class_names),
            "class_counts": dict(zip(self.class_names, counts.tolist(), strict=True)),
            "target_kind": {0: None, 1: None, 2: "binary"}.get(len(self.class_names), "multiclass"),
            "channels": self.channels,
            "height": self.height,
            "width": self.width,
            "uniform": self.uniform,
            "smallest": sizes[by_area[0]].tolist(),
            "largest": sizes[by_area[-1]].tolist(),
            "working_height": working[0],
            "working_width": working[1],
            "dtype": str(self._decoded[0].dtype),
            "modes": dict(Counter(self._headers.mode[row] for row in rows.tolist()).most_common()),
            "skipped": self.skipped,
            "exact_duplicates": exact,
            "near_duplicates": groups - exact,
            "moved_duplicates": self._moved[1],
            "conflicting_labels": _conflicts(found.exact, labels),
            "constant": int(found.constant.sum()),
        }
        facts = [
            ("images", self._examples_words(numbers)),
            ("classes", _class_words(numbers)),
            ("size", self._size_words(numbers)),
            ("channels", _channel_words(self.channels, numbers)),
            ("duplicates", f"{exact:,} exact, {groups - exact:,} near"),
        ]
        return Look(self.name, self.kind, facts, [*self.notes, *_warnings(numbers, self._headers)], numbers)

    def _examples_words(self, numbers: dict[str, Any]) -> str:
        words = f"{numbers['examples']:,}"
        if not numbers["labelled"]:
            return f"{words}, none with a label"
        if self.given_split:
            parts = (f"{numbers[name]:,} {name}" for name in ("train", "valid", "test") if numbers[name])
            words += f" ({', '.join(parts)}, as given)"
        return words + (f", {numbers['unlabelled']:,} without a label" if numbers["unlabelled"] else "")

    def _size_words(self, numbers: dict[str, Any]) -> str:
        typical, used = (self.height, self.width), self.working_size
        words = f"all {_by(typical)}" if self.uniform else f"{_by(numbers['smallest'])} to {_by(numbers['largest'])}"
        if not self.uniform:
            words += f", typically {_by(typical)}"
        return words + ("" if self.uniform and used == typical else f"; used at {_by(used)}") + " (height x width)"


def _by(size: Sequence[int]) -> str:
    return f"{size[0]} x {size[1]}"


def _aside(others: dict[str, int]) -> str:
    """What was left aside, counted by sort."""
    return ", ".join(f"{count:,} {sort}" for sort, count in sorted(others.items()))


def _class_words(numbers: dict[str, Any]) -> str:
    counts = numbers["class_counts"]
    if not counts:
        return "none"
    least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    if counts[least] == counts[most]:
        return f"{len(counts)} of {_count(counts[most], 'image')}"
    return f"{len(counts)}, from {counts[least]:,} ({least}) to {counts[most]:,} ({most}) images"


def _channel_words(channels: int, numbers: dict[str, Any]) -> str:
    name = {1: "grey", 3: "colour"}.get(channels, "")
    return f"{channels}{f' ({name})' if name else ''}, {numbers['dtype']}"


def _conflicts(exact: np.ndarray, labels: np.ndarray) -> int:
    """Groups of equal images that carry more than one label."""
    pairs = np.unique(np.stack([exact, labels], axis=1)[labels >= 0], axis=0)
    return int((np.bincount(pairs[:, 0]) > 1).sum()) if len(pairs) else 0


def _warnings(numbers: dict[str, Any], headers: Headers) -> list[str]:
    """Lines on what may spoil training."""
    lines, modes, counts = [], numbers["modes"], numbers["class_counts"]
    if len(counts) == 1:
        lines.append(f"there is one class only ({next(iter(counts))}): nothing to tell apart")
    for fewest, limit in (("fewer than 2", 2), (f"fewer than {_FEW}", _FEW)):
        few = [name for name, count in counts.items() if count < limit]
        if few:
            some = ", ".join(few[:_NAMED]) + (", ..." if len(few) > _NAMED else "")
            lines.append(f"{_count(len(few), 'class', 'es')} with {fewest} images: {some}")
            break
    if len(counts) > 1 and max(counts.values()) > _IMBALANCE * max(1, min(counts.values())):
        lines.append("classes are out of balance by more than 10 to 1: accuracy alone will flatter")
    if numbers["conflicting_labels"]:
        lines.append(f"{_count(numbers['conflicting_labels'], 'image')} given more than once, with different labels")
    if numbers["constant"]:
        lines.append(f"{_count(numbers['constant'], 'image')} of a single colour")
    grey = sum(count for mode, count in modes.items() if mode in GREY_MODES or mode.startswith("I;16"))
    if numbers["channels"] == 3 and grey:
        lines.append(f"{_count(grey, 'grey image')} among colour ones: repeated over three channels")
    clear = sum(modes.get(mode, 0) for mode in ("RGBA", "LA", "PA", "RGBa", "La"))
    if clear:
        lines.append(f"{_count(clear, 'image')} with transparency: laid on white")
    deep = sum(count for mode, count in modes.items() if mode in ("I", "F") or mode.startswith("I;16"))
    if deep:
        lines.append(f"{_count(deep, 'image')} of more than 8 bits a channel: reduced to 8")
    if headers.animated:
        lines.append(f"{_count(headers.animated, 'animation')}: the first frame is used")
    if headers.turned:
        lines.append(f"{_count(headers.turned, 'image')} turned upright by the camera's note")
    return lines


def _count(number: int, word: str, plural: str = "s") -> str:
    return f"{number:,} {word}{'' if number == 1 else plural}"


def _as_images(images: Any, notes: list[str]) -> np.ndarray:
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
        return np.ascontiguousarray(array, np.float32)


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
