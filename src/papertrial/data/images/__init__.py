"""Images: pixels at a working size, labels, and what is worth knowing about them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from papertrial.core import registry
from papertrial.core.errors import DataError
from papertrial.core.kind import Kind
from papertrial.core.wording import counted
from papertrial.data.base import Data, Look, cached_array, fingerprint
from papertrial.data.belonging import is_pattern
from papertrial.data.images import alike, captions, duplicates, labelled
from papertrial.data.images.arrays import Arrays, as_images, with_channels
from papertrial.data.images.captions import Place
from papertrial.data.images.decode import (
    DECODER,
    GREY_MODES,
    Archive,
    Chosen,
    Folder,
    Headers,
    Pictures,
    Source,
)
from papertrial.data.images.look import look
from papertrial.data.labels import as_labels, as_words, own_labels, written_labels
from papertrial.data.layout import EXTENSIONS, TEST, layout
from papertrial.data.textfiles import ARCHIVES

KIND = Kind(
    name="images",
    data="papertrial.data.images:Images",
    opens="papertrial.data.images.recognise:opens",
    order=20,
    samples={"digits": "papertrial.data.toy:digits"},
    labelled="a folder per class",
    backbones={"resnet": ""},
    pretrained="efficientnet_lite",
    small_backbone="resnet",
    unsuitable="table",
    shown="papertrial.study.examples:pictures",
    meanings="papertrial.data.images.exported:meanings",
    made_up="papertrial.data.images.exported:made_up",
)

#: of what is left aside: one, and several
_SORTS = {
    "hidden": ("hidden file",),
    "linked folders": ("linked folder",),
    "folders that may not be read": ("folder that may not be read", "folders that may not be read"),
    "not images": ("file that is not an image", "files that are not images"),
}
_ASIDE = "not used: "
SMALL, DEFAULT = 64, 64  # images of one size up to SMALL keep it; others are brought to DEFAULT
_MANY = 4096  # images among which duplicates are worth remembering
_NAMED = 5  # skipped files named in a note


class Images(Data):
    """Images with or without labels and captions. Decoding waits until pixels, labels or the facts page are asked for.

    labels: int64 (N,), -1 = unlabelled.  class_names: sorted.  names: file (or index) per image.
    captions: text per image, "" where it has none; None where none has (captioned: whether any has, known without decoding).
    part: int8 (N,), 0 = train or free, 1 = valid, 2 = test; duplicates of a training image are moved to its side.
    copies: int64 (N,), equal for exact and near duplicates, so that a split can keep them together.
    given_split: whether the data came with test images.  channels, height, width: typical of the images as they
    came; uniform: whether all have that size.  working_size: (height, width) that `pixels()` uses by itself.

    columns: {"target": the column of labels in a table beside the images} where the user named one, so that new images are
    read in the same way; empty elsewhere.

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
        self.columns: dict[str, Any] = {}
        self._captions = None if captions is None or not any(captions) else tuple(captions)
        self.takes_columns = self.captioned  # `#` names that of the captions
        key = fingerprint(source.fingerprint, self._labels, self._part, *self.class_names, *(self._captions or ()))
        super().__init__(name, key, notes)
        if aside := _aside(source.others):
            self.note(f"{_ASIDE}{aside}")

    @classmethod
    def from_files(
        cls, path: Path | str, column: str = "", target: str | None = None, likely: str | None = None
    ) -> Images:
        """A folder, an archive (tar, plain or compressed, or zip) or one image file; `layout` says how folders become
        labels, `captions` what texts beside the images are, `labelled` which labels tables give them.

        column: of the captions, in place of the usual names.  target: of the labels in a table; likely: the same, where it is
        there. Raises DataError when no image is there.
        """
        path = Path(path)
        if path.is_dir():
            return cls.from_source(Folder(path), path.name or str(path), column, target, likely)
        if path.suffix.lower() in EXTENSIONS:
            stat = path.stat()
            key = fingerprint(path.name, stat.st_size, stat.st_mtime_ns)
            return cls(Pictures([path.name], key, lambda _: path), name=path.name)
        return cls.from_source(Archive(path), path.name, column, target, likely)

    @classmethod
    def from_source(
        cls, source: Folder | Archive, name: str, column: str = "", target: str | None = None, likely: str | None = None
    ) -> Images:
        """Labels and split from the folders in the names of `source`, captions and labels from the files in or beside it.
        Raises DataError when it has no images."""
        if not source.names:
            aside = _aside(source.others) or "nothing"
            hint = "put images in it, in one folder per class for labels"
            if {".heic", ".heif"} & {*source.others}:
                hint = "save the .heic pictures as .jpg first: .heic is not read here"
            raise DataError(f"no images in {name} (it holds {aside})", hint)
        notes: list[str] = []
        places: list[Place] = [source]
        if isinstance(source, Archive):
            places.append(captions.Nearby(source.path.parent))
        found = captions.find(source.names, places, notes.append, column)
        if found is not None and found.inside:
            source.others["not images"] -= found.inside
        if isinstance(source, Folder):
            notes += _folders_left_out(source)
        images = cls._described(source, found, name, notes)
        if target is not None or likely is not None or (found is None and len(images.class_names) < 2):
            return images._with_labels(places, target, likely)
        return images

    def _with_labels(self, places: Sequence[Place], target: str | None, likely: str | None) -> Images:
        """These images with the labels of a table beside them, where there is one; themselves where there is none."""
        source = self._source
        assert not isinstance(source, Arrays)
        told: list[str] = []
        found = labelled.find(source.names, places, told.append, target, likely)
        if found is None:
            for line in told:
                self.note(line)
            return self
        notes = [line for line in self.notes if not line.startswith(_ASIDE)]
        labels, class_names = as_labels(
            np.array([word or None for word in found.words], object), len(found.words), None
        )
        if places and places[0] is source and self._captions is None:
            source.others["not images"] -= found.files
        part = self._part if found.part is None else found.part
        if (part == TEST).any() and not (labels[part == TEST] >= 0).any():
            part = np.where(part == TEST, 0, part)
            told.append("the test images have no labels: they count as unlabelled ones to learn from")
        made = type(self)(
            source,
            labels,
            class_names,
            part,
            captions=self._captions,
            name=self.name,
            notes=[*notes, *told, *found.notes],
        )
        made.own = written_labels(class_names)
        made.target_is_column = True
        made.columns = {"target": found.column} if target is not None or likely is not None else {}
        return made

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
    def from_labels(cls, path: Path | str) -> Images | None:
        """The images that a file of labels names, from its folder; None where the file is about something else."""
        path = Path(path)
        if not captions.mentions_images(path):
            return None
        source, told = Folder(path.parent), list[str]()
        found = labelled.find(source.names, [captions.Nearby(path.parent, path.name)], told.append)
        if found is None:
            return None
        rows = np.flatnonzero(found.matched).tolist()
        words = [found.words[row] or None for row in rows]
        labels, class_names = as_labels(np.array(words, object), len(rows), None)
        part = None if found.part is None else found.part[rows]
        aside = len(source.names) - len(rows)
        notes = [f"{counted(aside, 'image')} beside {path.name} that it does not name: not used"] if aside else []
        notes += [line for line in (*told, *found.notes) if "that no table gives a label" not in line]
        made = cls(Chosen(source, rows), labels, class_names, part, name=path.name, notes=notes)
        made.own = written_labels(class_names)
        made.target_is_column = True
        return made

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
        array = as_images(images, notes)
        codes, names = as_labels(labels, len(array), class_names)
        if part is not None and len(part) != len(array):
            raise DataError(f"{len(array)} images but {len(part)} entries of part", "give one per image")
        if captions is not None and len(captions) != len(array):
            raise DataError(f"{len(array)} images but {len(captions)} captions", "give one per image, '' for none")
        made = cls(Arrays(array), codes, names, part, captions=captions, name=name, notes=notes)
        made.own = own_labels(labels, names) if class_names is None else {}
        return made

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

    @property
    def lost(self) -> dict[str, int]:
        bad = len(self._decoded[2])
        return {"damaged file": bad} if bad else {}

    @cached_property
    def labels(self) -> np.ndarray:
        return self._labels[self._decoded[1]]

    def label_words(self) -> list[str]:
        return as_words(self.labels, self.class_names)

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
            return with_channels(pixels, wanted)
        if min(size) < 1 or wanted < 1:
            raise DataError(f"images of {size[0]} x {size[1]} x {wanted} are asked for", "give positive numbers")
        pixels, bad = self._source.render(rows, *size, wanted, self.note)
        if bad:
            row, why = next(iter(bad.items()))
            raise DataError(
                f"{self._name(row)} could be read before but cannot be read now ({why})", "open the data again"
            )
        return pixels

    @property
    def larger(self) -> bool:
        """Whether the images hold clearly more than `pixels()` shows of them by itself."""
        return min(self.height, self.width) > 1.2 * max(self.working_size) and self._decoded[0].dtype == np.uint8

    def keys(self, rows: np.ndarray) -> list[str]:
        """What tells each of some images from all others, however the data are parted."""
        return [f"{self._source.fingerprint}:{row}" for row in self._decoded[1][rows].tolist()]

    def fresh(self, rows: np.ndarray, height: int, width: int, channels: int | None = None) -> np.ndarray:
        """Some of the images at a size of their own, decoded anew and not kept: uint8 (M, height, width, channels).

        rows: int64 (M,) of these images. Raises DataError when a file has become unreadable since.
        """
        order = np.argsort(rows, kind="stable")
        wanted, places = np.unique(self._decoded[1][rows[order]], return_inverse=True)
        found = self._source.fresh(wanted, height, width, channels or self.channels)
        for row, image in zip(wanted.tolist(), found, strict=True):
            if isinstance(image, str):
                raise DataError(
                    f"{self._name(row)} could be read before but cannot be read now ({image})", "open the data again"
                )
        pixels = np.empty((len(rows), height, width, channels or self.channels), np.uint8)
        pixels[order] = np.stack(found)[places] if found else pixels
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

    @cached_property
    def alike(self) -> np.ndarray | None:
        """Pairs of photographs that look alike, int64 (P, 2), the most alike first, and no duplicates; kept in the cache. None
        where they were not looked for: without the extra `vision`, in more than 2,000, or in pictures that are none."""
        pixels, rows, _ = self._decoded
        if len(pixels) > alike.MOST or not alike.photographs(pixels) or not registry.installed("vision"):
            return None

        def fill(array: np.ndarray) -> None:
            array[:] = alike.seen(pixels)

        key = fingerprint(DECODER, alike.VERSION, self._source.fingerprint, rows, *pixels.shape)
        features = cached_array(f"alike-{key}", (len(pixels), alike.WIDTH), np.float64, fill, self.note)
        return alike.pairs(np.asarray(features), self._duplicates.groups)

    @property
    def copies(self) -> np.ndarray:
        return self._duplicates.groups

    def _told(self, words: str, option: str) -> Sequence[str]:
        """By image, from its path, or from the column of a table beside the images."""
        if is_pattern(words):
            return super()._told(words, option)
        said = labelled.told(self._source.names, self._places(), words)
        if said is None:
            raise DataError(
                f"no table beside the images of {self.name} has a column {words!r}",
                f"name one of labels.csv or the like, or give a pattern for paths, as in --{option} '^([^_]+)_'",
            )
        return [said[row] for row in self._decoded[1].tolist()]

    def _places(self) -> list[Place]:
        """Where tables about the images may lie."""
        source = self._source.source if isinstance(self._source, Chosen) else self._source
        if not isinstance(source, Folder | Archive):
            return []
        return [source, *([captions.Nearby(source.path.parent)] if isinstance(source, Archive) else [])]

    @cached_property
    def _moved(self) -> tuple[np.ndarray, int]:
        """(part with every group of duplicates on its earliest side, how many images that moved)."""
        given = self._part[self._decoded[1]]
        earliest = np.full(int(self.copies.max()) + 1, TEST, np.int8)
        np.minimum.at(earliest, self.copies, given)
        part = earliest[self.copies]
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

    def _take_part(self, part: np.ndarray) -> None:
        self._moved = part, 0

    @property
    def given_split(self) -> bool:
        return bool((self.part == TEST).any())

    def look(self) -> Look:
        """The facts page; decodes everything once. Of 70 000 small images it takes seconds."""
        return look(self)


def _folders_left_out(source: Folder) -> list[str]:
    """Lines on folders that may have been meant as classes and hold no image, or are not read because they are links."""
    empty = [name for name in source.empty if not any(other.startswith(f"{name}/") for other in source.beside)]
    empty = [name for name in empty if name.rpartition("/")[0] not in empty]
    lines = []
    for names, what in ((empty, "without images"), (source.linked, "not read, since a link may lead anywhere")):
        if names:
            some = ", ".join(map(repr, names[:_NAMED])) + (", ..." if names[_NAMED:] else "")
            lines.append(f"{counted(len(names), 'folder')} {what}: {some}")
    return lines


def _aside(others: dict[str, int]) -> str:
    """What was left aside, counted by sort, and the endings of what is no image."""
    endings = sorted((ending for ending in others if ending.startswith(".")), key=lambda ending: -others[ending])
    named = f" ({', '.join(endings[:4])}{', ...' if len(endings) > 4 else ''})" if endings else ""
    return ", ".join(
        counted(count, *_SORTS[sort]) + (named if sort == "not images" else "")
        for sort, count in sorted(others.items())
        if count and sort in _SORTS
    )
