"""Image files to pixels: a folder, a tar or a zip archive, or Pillow images, each file decoded once.

Headers are read first (sizes and modes, for the facts page and the working size), pixels when they are asked for. A
file that cannot be decoded is named with its reason and left out; it never ends a run.
"""

from __future__ import annotations

import contextlib
import os
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from papertrial.core.errors import DataError
from papertrial.data.base import cache_folder, cached_array, fingerprint, recall, remember, track
from papertrial.data.layout import EXTENSIONS

#: endings of files beside images that may hold their captions; tables may be packed as .gz
BESIDE = frozenset((".txt", ".caption", ".cls", ".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".tab"))
GREY_MODES = ("1", "L", "LA", "La", "I", "F")  # and I;16 in its byte orders
_ORIENTATION = 0x0112  # the EXIF tag; values 5 to 8 swap height and width
_SMALL = 1 << 14  # bytes of a file below which it is read at once, and decoded by one thread
_LARGEST_FILE = 1 << 29  # bytes of one compressed image; anything above is not a picture
_LARGEST_TEXT = 1 << 28  # bytes of one file beside the images of an archive
DECODER = 1  # part of every cache key: raise it when decoding or scaling gives other pixels
_DAMAGED_ARCHIVE = (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, zlib.error, RuntimeError, ValueError)

Item = Any  # Path | bytes | PIL.Image.Image


@dataclass
class Headers:
    """What the headers of N files say. bad: row -> why its header cannot be read; other values of such a row are 0."""

    height: list[int] = field(default_factory=list)
    width: list[int] = field(default_factory=list)
    mode: list[str] = field(default_factory=list)
    animated: int = 0
    turned: int = 0
    bad: dict[int, str] = field(default_factory=dict)

    def add(self, item: Item) -> None:
        """Append the header of one image file (a str is the reason why there is none)."""
        row = len(self.mode)
        try:
            if isinstance(item, str):
                raise ValueError(item)
            with _opened(item) as image:
                height, width, mode = image.height, image.width, image.mode
                self.animated += bool(getattr(image, "is_animated", False))
                if _orientation(image) >= 5:
                    height, width = width, height
                    self.turned += 1
        except Exception as error:  # Pillow's readers raise nearly every type of exception on damaged files
            self.bad[row] = reason(error)
            height, width, mode = 0, 0, ""
        self.height.append(height)
        self.width.append(width)
        self.mode.append(mode)


def reason(error: Exception) -> str:
    """Why a file cannot be read, in a few words without addresses of objects in memory."""
    if isinstance(error, Image.DecompressionBombWarning | Image.DecompressionBombError):
        return "too many pixels"
    text = " ".join(str(error).split())
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image"
    return text[:80] or type(error).__name__


def _opened(item: Item) -> Image.Image:
    if isinstance(item, bytes):
        if not item:
            raise ValueError("empty file")
        return Image.open(BytesIO(item))
    if isinstance(item, Path):
        if item.stat().st_size == 0:
            raise ValueError("empty file")
        return Image.open(item)
    return item.copy()  # so that closing it leaves the caller's image alone


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) when there is none or it is damaged."""
    if "exif" not in image.info:
        return 1
    with contextlib.suppress(Exception):  # damaged EXIF is no reason to refuse the pixels
        return int(image.getexif().get(_ORIENTATION, 1))
    return 1


def decode(item: Item, height: int, width: int, channels: int) -> np.ndarray:
    """One image as uint8 (height, width, channels), channels 1 or 3: upright, on white where it is transparent,
    scaled to cover the frame and cropped at its centre. Raises whatever Pillow raises on a damaged file."""
    with _opened(item) as image:
        mode = "L" if channels == 1 else "RGB"
        side = 2 * max(height, width)
        image.draft(mode, (side, side))  # JPEG only: decodes a large photograph at a fraction of its size
        turned = ImageOps.exif_transpose(image) if _orientation(image) > 1 else image
        return cover(_plain(turned, mode), height, width).reshape(height, width, channels)


def _plain(image: Image.Image, mode: str) -> Image.Image:
    """The image in mode L or RGB."""
    if image.mode.startswith("I"):  # 16 bits a pixel; Pillow's own conversion would clip at 255
        values = np.asarray(image).astype(np.int64).clip(0, 65535) >> 8
        image = Image.fromarray(values.astype(np.uint8))
    elif image.mode == "F":
        values = np.asarray(image)
        if not np.isfinite(values).all():
            raise ValueError("holds NaN or infinite values")
        scale = 255 if values.min(initial=0) >= 0 and values.max(initial=0) <= 1 else 1
        image = Image.fromarray((values * scale).round().clip(0, 255).astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == mode else image.convert(mode)


def cover(image: Image.Image, height: int, width: int) -> np.ndarray:
    """Scale to cover (height, width) with an area-aware bicubic filter and crop the centre; an exact fit is untouched."""
    if image.size == (width, height):
        return np.asarray(image)
    scale = max(height / image.height, width / image.width)
    box_width, box_height = min(width / scale, image.width), min(height / scale, image.height)
    left, top = (image.width - box_width) / 2, (image.height - box_height) / 2
    box = (left, top, left + box_width, top + box_height)
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC, box=box, reducing_gap=2.0))


class Source:
    """N images by row. `names` tells them apart, `others` counts what was left aside, by sort.

    `items(rows)` yields a Path, bytes or Pillow image per row, in ascending order of the rows; a str in its place is
    the reason why there is none. sizes: bytes per file, 0 where not known.
    """

    what = "images"

    def __init__(self, names: Sequence[str], sizes: Sequence[int], key: str, others: dict[str, int]) -> None:
        self.names = list(names)
        self.sizes = sizes
        self.fingerprint = key
        self.others = others
        self._headers: Headers | None = None

    def items(self, rows: Sequence[int]) -> Iterator[Item]:
        raise NotImplementedError

    def headers(self) -> Headers:
        """The headers of all files; kept in the cache."""
        if self._headers is None:
            name = f"headers-{DECODER}-{self.fingerprint}"
            kept = recall(name)
            if kept is None:
                headers = Headers()
                with pillow_limits():
                    for item in track(self.items(range(len(self.names))), len(self.names), f"reading {self.what}"):
                        headers.add(item)
                remember(name, vars(headers))
            else:
                headers = _headers(kept)
            self._headers = headers
        return self._headers

    def render(
        self, rows: np.ndarray, height: int, width: int, channels: int, note: Callable[[str], None]
    ) -> tuple[np.ndarray, dict[int, str]]:
        """uint8 (M, height, width, channels) of the rows that decode, in order, and row -> reason for the others."""
        key = fingerprint(DECODER, self.fingerprint, len(rows), rows.astype(np.int64))
        name = f"pixels-{key}-{height}x{width}x{channels}"
        kept = recall(f"{name}-bad")
        if kept is None:  # never finished, or half of the cache was deleted
            with contextlib.suppress(OSError):
                (cache_folder() / f"{name}.npy").unlink()
        bad = {int(row): why for row, why in (kept or {}).items()}

        def fill(array: np.ndarray) -> None:
            bad.clear()
            place = 0
            decoded = self._decoded(rows.tolist(), height, width, channels)
            for row, result in zip(rows.tolist(), track(decoded, len(rows), f"decoding {self.what}"), strict=True):
                if isinstance(result, str):
                    bad[row] = result
                else:
                    array[place] = result
                    place += 1
            remember(f"{name}-bad", bad)

        array = cached_array(name, (len(rows), height, width, channels), np.uint8, fill, note)
        return array[: len(rows) - len(bad)], bad

    def fresh(self, rows: np.ndarray, height: int, width: int, channels: int) -> list[np.ndarray | str]:
        """Each of the ascending rows as uint8 (height, width, channels), or why it does not decode; nothing is kept."""
        return list(self._decoded(rows.tolist(), height, width, channels))

    def _decoded(self, rows: list[int], height: int, width: int, channels: int) -> Iterator[np.ndarray | str]:
        def one(item: Item) -> np.ndarray | str:
            try:
                return item if isinstance(item, str) else decode(item, height, width, channels)
            except Exception as error:  # see Headers.add
                return reason(error)

        # Pillow frees the interpreter while it decodes, so threads pay off for photographs (1.7x on 2 cores); for
        # thumbnails the hand-over costs more than it gains (0.6x).
        if not len(self.sizes) or np.mean(self.sizes) < _SMALL:
            with pillow_limits():
                yield from map(one, self.items(rows))
            return
        with pillow_limits(), ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            for batch in _batches(self.items(rows), 64):
                yield from pool.map(one, batch)


class Folder(Source):
    """Image files under a folder, in sorted order. Hidden files and linked folders are left aside.

    beside: names of other files that may hold captions.  empty: folders without an image in them, however deep.  linked:
    folders that are links, which may lead back, and are not followed.
    """

    def __init__(self, root: Path) -> None:
        others = _Others()
        begin = len(os.path.join(root, ""))  # names are cut by hand: Path would take as long as reading the headers

        def seen(entry: os.DirEntry[str]) -> tuple[str, int, int]:
            stat = entry.stat()
            return entry.path[begin:].replace(os.sep, "/"), stat.st_size, stat.st_mtime_ns

        found = sorted(seen(entry) for entry in _walk(root, others))
        super().__init__(
            [name for name, _, _ in found], [size for _, size, _ in found], fingerprint("folder", found), others
        )
        self.root = root
        holding = {str(parent) for name in self.names for parent in PurePosixPath(name).parents}
        folders = [path[begin:].replace(os.sep, "/") for path in others.folders]
        self.empty = sorted(name for name in folders if name and name not in holding)
        self.linked = sorted(path[begin:].replace(os.sep, "/") for path in others.linked)
        self.beside = sorted(Path(path).relative_to(root).as_posix() for path in others.beside)

    def items(self, rows: Sequence[int]) -> Iterator[Item]:
        begin = os.path.join(self.root, "")
        for row in rows:
            if self.sizes[row] >= _SMALL:
                yield self.root / self.names[row]
                continue
            try:
                with open(begin + self.names[row], "rb") as stream:
                    yield stream.read()
            except OSError as error:
                yield reason(error)

    def content(self, name: str, most: int = -1) -> bytes:
        """Of one of the files `beside` the images: its bytes, or the first ones."""
        with (self.root / name).open("rb") as stream:
            return stream.read(most)


class Archive(Source):
    """Image files in a tar (plain or compressed) or a zip, read in one pass and never unpacked to the disk.

    beside: names of other files that may hold captions.
    """

    def __init__(self, path: Path) -> None:
        stat = path.stat()
        key = fingerprint("archive", path.name, stat.st_size, stat.st_mtime_ns)
        self.path = path
        kept = recall(f"listing-{DECODER}-{key}")
        if kept is None:
            names, sizes, others, headers = [], [], _Others(), Headers()
            beside: dict[str, str] = {}  # JSON, which the cache is, holds no bytes
            with pillow_limits():
                for name, content in track(self._members(others, beside), None, f"reading {path.name}"):
                    names.append(name)
                    sizes.append(len(content))
                    headers.add(content)
            kept = {"names": names, "sizes": sizes, "others": others, "headers": vars(headers), "beside": beside}
            remember(f"listing-{DECODER}-{key}", kept)
        super().__init__(kept["names"], kept["sizes"], key, kept["others"])
        self._beside = kept["beside"]
        self.beside = sorted(self._beside)
        self.what = path.name
        self._headers = _headers(kept["headers"])

    def items(self, rows: Sequence[int]) -> Iterator[Item]:
        wanted = set(rows)
        for row, (_, content) in enumerate(self._members(_Others())):
            if row in wanted:
                yield content

    def content(self, name: str, most: int = -1) -> bytes:
        """Of one of the files `beside` the images: its bytes, or the first ones."""
        return self._beside[name].encode("latin-1")[: most if most >= 0 else None]

    def _members(self, others: _Others, beside: dict[str, str] | None = None) -> Iterator[tuple[str, bytes | str]]:
        """(name, content, or why there is none) of every image file in the order of the archive. Raises DataError for
        a damaged archive. beside: is filled with the other files that may hold captions, a character per byte."""
        read = 0
        try:
            for name, size, content in archive_members(self.path):
                if others.takes(name):
                    read += 1
                    yield name, _member(content) if size <= _LARGEST_FILE else "file too large"
                elif beside is not None and _may_caption(name) and size <= _LARGEST_TEXT:
                    text = _member(content)
                    if isinstance(text, bytes):
                        beside[name] = text.decode("latin-1")
        except _DAMAGED_ARCHIVE as error:
            raise DataError(
                f"{self.path} is damaged after {read} images ({reason(error)})", "download or pack the archive again"
            ) from None


class Pictures(Source):
    """Images that a function hands out one by one (a data set of another library)."""

    def __init__(self, names: Sequence[str], key: str, item: Callable[[int], Item]) -> None:
        super().__init__(names, (), key, {})
        self._item = item

    def items(self, rows: Sequence[int]) -> Iterator[Item]:
        return map(self._item, rows)


class Chosen(Source):
    """Some images of another source: those of the ascending `rows`."""

    def __init__(self, source: Source, rows: Sequence[int]) -> None:
        sizes = [source.sizes[row] for row in rows] if len(source.sizes) else ()
        key = fingerprint(source.fingerprint, np.asarray(rows, np.int64))
        super().__init__([source.names[row] for row in rows], sizes, key, {})
        self.what, self.source, self._rows = source.what, source, rows

    def items(self, rows: Sequence[int]) -> Iterator[Item]:
        return self.source.items([self._rows[row] for row in rows])


class _Others(dict[str, int]):
    """Counts of files left aside, by sort; those that are no images by ending, too. Where a folder is read, beside: paths of
    those that may hold captions; folders, linked: of the folders in it, and of those that are links."""

    def __init__(self) -> None:
        super().__init__()
        self.beside: list[str] = []
        self.folders: list[str] = []
        self.linked: list[str] = []

    def count(self, sort: str) -> None:
        self[sort] = self.get(sort, 0) + 1

    def takes(self, name: str) -> bool:
        """Whether a file of that name is one of the images; counts it otherwise."""
        if any(part.startswith(".") or part == "__MACOSX" for part in name.split("/")):
            self.count("hidden")
        elif os.path.splitext(name)[1].lower() not in EXTENSIONS:
            self.count("not images")
            self.count(os.path.splitext(name)[1].lower())
        else:
            return True
        return False


def _may_caption(name: str) -> bool:
    """Whether a file that is no image may hold captions: not when it is hidden, as `takes` says."""
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
    return not hidden and os.path.splitext(name.lower().removesuffix(".gz"))[1] in BESIDE


def _walk(root: Path, others: _Others) -> Iterator[os.DirEntry[str]]:
    folders = [str(root)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_symlink() and not entry.is_file():  # a linked folder may lead back to itself
                        others.count("linked folders")
                        others.linked.append(entry.path)
                    elif entry.is_dir() and not entry.name.startswith(".") and entry.name != "__MACOSX":
                        folders.append(entry.path)
                        others.folders.append(entry.path)
                    elif entry.is_file():
                        if others.takes(entry.name):
                            yield entry
                        elif _may_caption(entry.name):
                            others.beside.append(entry.path)
        except PermissionError:
            others.count("folders that may not be read")


def archive_members(path: Path) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
    """(name, bytes, read) of every regular file of a tar or zip; `read()` is to be called before the next one."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if not entry.is_dir():
                    yield entry.filename, entry.file_size, partial(archive.read, entry)
        return
    with tarfile.open(path, "r|*") as archive:  # a stream: seeking back in a compressed tar would start it over
        for member in archive:
            if member.isfile():
                yield (
                    member.name.removeprefix("./"),
                    member.size,
                    partial(_extracted, archive, member),
                )


def _extracted(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = archive.extractfile(member)
    return stream.read() if stream is not None else b""


def _member(content: Callable[[], bytes]) -> bytes | str:
    try:
        return content()
    except (zipfile.BadZipFile, zlib.error) as error:  # one damaged file of a zip; the others can still be read
        return reason(error)


@contextlib.contextmanager
def pillow_limits() -> Iterator[None]:
    """Refuse images that unfold to an absurd number of pixels; keep Pillow's remarks on odd files to ourselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _headers(kept: dict[str, Any]) -> Headers:
    return Headers(**{**kept, "bad": {int(row): why for row, why in kept["bad"].items()}})
