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
from papertrial.core.task import Ragged
from papertrial.core.wording import counted
from papertrial.data.base import Data, Look, cached_array, fingerprint, track
from papertrial.data.images import captions, duplicates
from papertrial.data.images.decode import (
    DECODER,
    EXTENSIONS,
    GREY_MODES,
    Archive,
    Chosen,
    Folder,
    Headers,
    Pictures,
    Source,
    cover,
)
from papertrial.data.labels import as_labels
from papertrial.data.layout import layout
from papertrial.data.textfiles import ARCHIVES

TRAIN, VALID, TEST = 0, 1, 2
#: of what is left aside: one, and several
_SORTS = {
    "hidden": ("hidden file",),
    "linked folders": ("linked folder",),
    "folders that may not be read": ("folder that may not be read", "folders that may not be read"),
    "not images": ("file that is not an image", "files that are not images"),
}
SMALL, DEFAULT = 64, 64  # images of one size up to SMALL keep it; others are brought to DEFAULT
_FEW, _IMBALANCE = 10, 10  # labelled images of a class, and ratio of largest to smallest class, that look warns at
_SHOWN, _WIDTH = 3, 90  # captions shown, and characters of each
_MOSTLY = 0.5  # share of the captions in one language from which it is named
_MANY = 4096  # images among which duplicates are worth remembering
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
    """Images with or without labels and captions. Decoding waits until pixels, labels or the facts page are asked for.

    labels: int64 (N,), -1 = unlabelled.  class_names: sorted.  names: file (or index) per image.
    captions: text per image, "" where it has none; None where none has (captioned: whether any has, known without decoding).
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
        captions: Sequence[str] | None = None,
        name: str = "images",
        notes: Sequence[str] = (),
    ) -> None:
        """source: N images.  labels: int64 (N,) into class_names.  part: int8 (N,).  captions: one per image, "" where
        there is none. Raises DataError without images."""
        count = len(source.names)
        if count == 0:
            raise DataError(f"{name} holds no images", "give a folder, an archive or an array with images in it")
        self._source = source
        self._labels = np.full(count, -1, np.int64) if labels is None else np.asarray(labels, np.int64)
        self._part = np.zeros(count, np.int8) if part is None else np.asarray(part, np.int8)
        self.class_names = tuple(class_names)
        self._captions = None if captions is None or not any(captions) else tuple(captions)
        key = fingerprint(source.fingerprint, self._labels, self._part, *self.class_names, *(self._captions or ()))
        super().__init__(name, key, notes)
        if aside := _aside(source.others):
            self.note(f"not used: {aside}")

    @classmethod
    def from_files(cls, path: Path | str, column: str = "") -> Images:
        """A folder, an archive (tar, plain or compressed, or zip) or one image file; `layout` says how folders become
        labels, `captions` what texts beside the images are.

        column: of the captions, in place of the usual names. Raises DataError when no image is there.
        """
        path = Path(path)
        if path.is_dir():
            return cls.from_source(Folder(path), path.name or str(path), column)
        if path.suffix.lower() in EXTENSIONS:
            stat = path.stat()
            key = fingerprint(path.name, stat.st_size, stat.st_mtime_ns)
            return cls(Pictures([path.name], key, lambda _: path), name=path.name)
        return cls.from_source(Archive(path), path.name, column)

    @classmethod
    def from_source(cls, source: Folder | Archive, name: str, column: str = "") -> Images:
        """Labels and split from the folders in the names of `source`, captions from the files in or beside it. Raises
        DataError when it has no images."""
        if not source.names:
            aside = _aside(source.others) or "nothing"
            hint = "put images in it, in one folder per class for labels"
            if {".heic", ".heif"} & {*source.others}:
                hint = "save the .heic pictures as .jpg first: .heic is not read here"
            raise DataError(f"no images in {name} (it holds {aside})", hint)
        notes: list[str] = []
        places: list[captions.Place] = [source]
        if isinstance(source, Archive):
            places.append(captions.Nearby(source.path.parent))
        found = captions.find(source.names, places, notes.append, column)
        if found is not None and found.inside:
            source.others["not images"] -= found.inside
        return cls._described(source, found, name, notes)

    @classmethod
    def from_captions(cls, path: Path | str, column: str = "") -> Images | None:
        """The images that a file of captions names, from its folder or an archive in it; None where the file is about
        something else, or none of its images is there.

        Captions that lie in a folder `annotations` or `captions` may be about images beside that folder.
        """
        path = Path(path)
        table = captions.of_file(path, column)
        if table is None:
            return None
        folder = path.parent
        for root in (folder, folder.parent) if folder.name.lower() in ("annotations", "captions") else (folder,):
            table.name = path.relative_to(root).as_posix()
            source: Folder | Archive = Folder(root)
            if found := captions.match(source.names, [table]):
                notes = []
                break
        else:
            table.name = path.name
            packed = [Archive(file) for file in sorted(folder.iterdir()) if file.name.lower().endswith(ARCHIVES)]
            fitting = [(held, archive) for archive in packed if (held := captions.match(archive.names, [table]))]
            if not fitting:
                return None
            found, source = max(fitting, key=lambda pair: int(pair[0].matched.sum()))
            notes = [f"images from {source.what}"]
            notes += [
                f"{archive.what} holds {held.matched.sum():,} of these images too: give its path for those"
                for held, archive in fitting
                if archive is not source
            ]
        rows = np.flatnonzero(found.matched).tolist()
        chosen = Chosen(source, rows)
        found.texts, found.labels = [found.texts[row] for row in rows], [found.labels[row] for row in rows]
        return cls._described(chosen, found, path.name, notes)

    @classmethod
    def _described(cls, source: Source, found: captions.Captions | None, name: str, notes: list[str]) -> Images:
        """Images with the labels and parts of their folders and what is written about them."""
        folders = layout(source.names)
        labels, class_names = folders.labels, folders.class_names
        if found is None:
            return cls(source, labels, class_names, folders.part, name=name, notes=[*folders.notes, *notes])
        notes = [*folders.notes, *notes, *found.notes]
        if len(class_names) == 1:  # the folder that all captioned images lie in
            labels, class_names = np.full(len(source.names), -1, np.int64), ()
        if not class_names and any(found.labels):
            labels, class_names = as_labels(np.array(found.labels, object), len(found.labels), None)
        missing = sum(not text for text in found.texts)
        if 0 < missing < len(found.texts):
            notes.append(f"{counted(missing, 'image')} without a caption")
        return cls(source, labels, class_names, folders.part, captions=found.texts, name=name, notes=notes)

    @classmethod
    def from_arrays(
        cls,
        images: Any,
        labels: Any = None,
        class_names: Sequence[str] | None = None,
        part: Any = None,
        *,
        captions: Sequence[str] | None = None,
        name: str = "arrays",
    ) -> Images:
        """images: (N, H, W), (N, H, W, C) or (N, C, H, W) of bytes, integers, booleans or floats.

        labels: (N,) of integers or strings; -1, None and NaN mean unlabelled.  captions: a string per image. Raises
        DataError for anything else.
        """
        notes: list[str] = []
        array = _as_images(images, notes)
        codes, names = as_labels(labels, len(array), class_names)
        if part is not None and len(part) != len(array):
            raise DataError(f"{len(array)} images but {len(part)} entries of part", "give one per image")
        if captions is not None and len(captions) != len(array):
            raise DataError(f"{len(array)} images but {len(captions)} captions", "give one per image, '' for none")
        return cls(Arrays(array), codes, names, part, captions=captions, name=name, notes=notes)

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
            self.note(f"skipped {counted(len(bad), 'damaged file')}: {some}{', ...' if len(bad) > _NAMED else ''}")
        return pixels, np.setdiff1d(rows, list(bad)), bad

    @property
    def skipped(self) -> dict[str, str]:
        bad = self._decoded[2]
        return {self._name(row): bad[row] for row in sorted(bad)}

    @cached_property
    def labels(self) -> np.ndarray:
        return self._labels[self._decoded[1]]

    @property
    def captioned(self) -> bool:
        return self._captions is not None

    @cached_property
    def captions(self) -> tuple[str, ...] | None:
        if self._captions is None:
            return None
        return tuple(self._captions[row] for row in self._decoded[1].tolist())

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
            raise DataError(
                f"{self._name(row)} could be read before but cannot be read now ({why})", "open the data again"
            )
        return pixels

    @cached_property
    def _duplicates(self) -> duplicates.Duplicates:
        """Found once; those of many images are kept in the cache, for every look and every run asks again."""
        pixels, rows, _ = self._decoded
        if len(pixels) < _MANY:
            return duplicates.find(pixels)

        def fill(array: np.ndarray) -> None:
            found = duplicates.find(pixels)
            array[:] = found.exact, found.groups, found.constant

        key = fingerprint(DECODER, duplicates.VERSION, self._source.fingerprint, rows, *pixels.shape)
        exact, groups, constant = np.array(
            cached_array(f"duplicates-{key}", (3, len(pixels)), np.int64, fill, self.note)
        )
        return duplicates.Duplicates(exact, groups, constant.astype(bool))

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
                f"moved {counted(moved, 'duplicate')} of training images out of the other parts, where they would leak"
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
            **_caption_numbers(self.captions or ()),
        }
        facts = [
            ("images", self._examples_words(numbers)),
            ("classes", _class_words(numbers)),
            ("size", self._size_words(numbers)),
            ("channels", _channel_words(self.channels, numbers)),
            ("duplicates", f"{exact:,} exact, {groups - exact:,} near"),
            *_caption_facts(numbers),
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
    """What was left aside, counted by sort, and the endings of what is no image."""
    endings = sorted((ending for ending in others if ending.startswith(".")), key=lambda ending: -others[ending])
    named = f" ({', '.join(endings[:4])}{', ...' if len(endings) > 4 else ''})" if endings else ""
    return ", ".join(
        counted(count, *_SORTS[sort]) + (named if sort == "not images" else "")
        for sort, count in sorted(others.items())
        if count and sort in _SORTS
    )


def _class_words(numbers: dict[str, Any]) -> str:
    counts = numbers["class_counts"]
    if not counts:
        return "none"
    least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    if counts[least] == counts[most]:
        return f"{len(counts)} of {counted(counts[most], 'image')}"
    return f"{len(counts)}, from {counts[least]:,} ({least}) to {counts[most]:,} ({most}) images"


def _channel_words(channels: int, numbers: dict[str, Any]) -> str:
    name = {1: "grey", 3: "colour"}.get(channels, "")
    return f"{channels}{f' ({name})' if name else ''}, {numbers['dtype']}"


def _caption_numbers(captions: Sequence[str]) -> dict[str, Any]:
    """How many, how many different, how long, in which languages, and a few spread over the data."""
    given = [caption for caption in captions if caption]
    if not given:
        return {"captions": 0}
    from papertrial.data.languages import languages

    characters, words = (np.array(list(map(count, given))) for count in (len, lambda caption: len(caption.split())))
    encoded = Ragged.of_texts(given)
    spread = np.unique(np.linspace(0, len(given) - 1, _SHOWN).astype(np.int64))
    return {
        "captions": len(given),
        "unique_captions": len(set(given)),
        "caption_characters": {"median": int(np.median(characters)), "longest": int(characters.max())},
        "caption_words": {"median": int(np.median(words)), "longest": int(words.max())},
        "caption_length": int(np.quantile(encoded.lengths, 0.95)),
        "caption_languages": languages([encoded]),
        "captions_shown": [given[row] for row in spread.tolist()],
    }


def _caption_facts(numbers: dict[str, Any]) -> list[tuple[str, str]]:
    if not numbers["captions"]:
        return []
    characters, words = numbers["caption_characters"], numbers["caption_words"]
    language, share = next(iter(numbers["caption_languages"].items()))
    guess = f"; {language} (a guess)" if language != "unknown" and share >= _MOSTLY else ""
    return [
        (
            "captions",
            f"{numbers['captions']:,}, {numbers['unique_captions']:,} of them different; median "
            f"{counted(characters['median'], 'character')} ({counted(words['median'], 'word')}), "
            f"longest {characters['longest']:,} ({words['longest']:,}){guess}",
        ),
        *(("such as" if not place else "", _cut(text)) for place, text in enumerate(numbers["captions_shown"])),
    ]


def _cut(text: str) -> str:
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return line if len(line) <= _WIDTH else f"{line[: _WIDTH - 3]}..."


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
            lines.append(f"{counted(len(few), 'class', 'classes')} with {fewest} images: {some}")
            break
    if len(counts) > 1 and max(counts.values()) > _IMBALANCE * max(1, min(counts.values())):
        lines.append("the classes are imbalanced by more than 10 to 1: accuracy alone will look too good")
    if numbers["conflicting_labels"]:
        lines.append(f"{counted(numbers['conflicting_labels'], 'image')} given more than once, with different labels")
    if numbers["constant"]:
        lines.append(f"{counted(numbers['constant'], 'image')} of a single colour")
    grey = sum(count for mode, count in modes.items() if mode in GREY_MODES or mode.startswith("I;16"))
    if numbers["channels"] == 3 and grey:
        lines.append(f"{counted(grey, 'grey image')} among colour ones: repeated over three channels")
    clear = sum(modes.get(mode, 0) for mode in ("RGBA", "LA", "PA", "RGBa", "La"))
    if clear:
        lines.append(f"{counted(clear, 'image')} with transparency: put on white")
    deep = sum(count for mode, count in modes.items() if mode in ("I", "F") or mode.startswith("I;16"))
    if deep:
        lines.append(f"{counted(deep, 'image')} of more than 8 bits per channel: reduced to 8")
    if headers.animated:
        lines.append(f"{counted(headers.animated, 'animation')}: the first frame is used")
    if headers.turned:
        lines.append(f"{counted(headers.turned, 'image')} turned upright as the camera noted")
    return lines


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
