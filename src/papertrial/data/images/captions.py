"""Captions of images: tables beside them, COCO's annotations, a text file per image as in a webdataset archive.

    captions.jsonl, captions.csv, metadata.csv, results.tsv   a column that names files, and one of text
    annotations/captions_train2017.json                       COCO: images and annotations
    0001.png 0001.txt (or .caption, .json; .cls for a class)  webdataset, and folders laid out like it

Nothing that is written about images can end a run: what fits no image, has no text or cannot be read is counted in a note.
An image has one caption; where several are given, the first counts.
"""

from __future__ import annotations

import csv
import io
import posixpath
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from papertrial.core.errors import DataError
from papertrial.core.files import parse_json
from papertrial.core.wording import counted
from papertrial.data import textfiles
from papertrial.data.images.decode import BESIDE, EXTENSIONS

_FILE = ("file_name", "file", "filename", "image", "image_file", "image_name", "image_path", "file_path", "filepath",
         "path", "img")  # fmt: skip
#: what a column or field of captions may be called, the likeliest first
TEXT = ("caption", "captions", "text", "description", "alt_text", "alt", "prompt", "sentence", "sentences", "comment",
        "title", "raw")  # fmt: skip
_LABEL = ("label", "class", "category", "cls")
_LINES, _ROWS = (".jsonl", ".ndjson"), (".csv", ".tsv", ".tab")
_TABLES = (*_LINES, *_ROWS, ".json")
_KNOWN = ("caption", "metadata")  # what the names of captions files begin with
_START = 1 << 16  # bytes by which a file of captions is told from others
_HALF = 0.5  # share of the images with a text file of their own from which these are captions
_NAMED = 3  # files named in a note
_SEVERAL = -1  # in place of a row, where a name is that of more than one image
_LONGEST_LABEL = 40  # characters


class Place(Protocol):
    """Where files of captions lie: a folder or an archive with the images, or the folder around an archive."""

    @property
    def beside(self) -> Sequence[str]:
        """Names of the files that may hold captions."""

    def content(self, name: str, most: int = -1) -> bytes:
        """The bytes of a file, or its first ones."""


class Nearby:
    """The files in one folder, not those of the folders in it."""

    def __init__(self, folder: Path, only: str = "") -> None:
        """only: the one file that counts; all where it is left out."""
        self.folder, self.only = folder, only

    @cached_property
    def beside(self) -> list[str]:
        if self.only:
            return [self.only]
        return sorted(file.name for file in self.folder.iterdir() if kind_of(file.name) in BESIDE and file.is_file())

    def content(self, name: str, most: int = -1) -> bytes:
        with (self.folder / name).open("rb") as stream:
            return stream.read(most)


@dataclass
class Written:
    """What one file says. texts: image as the file names it -> captions, in their order.  labels: image -> class."""

    name: str
    texts: dict[str, list[str]] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass
class Captions:
    """By image: texts, "" where there is none; labels, None where there is none.  matched: bool (N,), the images that
    were named.  inside: how many of the files in the folder or archive of the images these come from."""

    texts: list[str]
    labels: list[str | None]
    notes: list[str]
    matched: np.ndarray
    inside: int = 0


def find(
    names: Sequence[str], places: Iterable[Place], note: Callable[[str], None], column: str = ""
) -> Captions | None:
    """The captions of the images `names` in the first of the places that has some; None where none has.

    column: of the captions, in place of the usual names.  note: is told which files cannot be read. Raises DataError where
    no file has such a column.
    """
    for number, place in enumerate(places):
        written: list[Written] = []
        for name in candidates(place):
            try:
                table = read(place, name, column)
            except DataError as error:
                note(error.problem)
            else:
                written += [table] if table else []
        inside = number == 0  # rather than in the folder around an archive
        found = match(names, written) or (_one_each(names, place) if inside and not column else None)
        if found is not None:
            found.inside *= inside
            return found
    if column:
        raise DataError(
            f"no file beside these images has captions in a column {column!r}",
            "name a column of captions.csv or the like after #, or leave # and what follows out",
        )
    return None


def read(place: Place, name: str, column: str = "") -> Written | None:
    """What a table says about images; None where its first bytes name no files or no text, or it has no caption.

    Raises DataError for a file that is damaged or no text.
    """
    written = Written(name)
    try:
        if not _fits(kind_of(name), _start(place, name), column):
            return None
        text = decoded(bytes(textfiles.unpacked(name, place.content(name))))
        blank = _take(_records(name, text, written.notes), written, column)
    except (OSError, EOFError, zlib.error, textfiles.Refused) as error:
        raise DataError(f"{name}, which may hold captions, cannot be read ({error})", "is it complete?") from None
    if blank and written.texts:
        written.notes.append(f"{name}: {counted(blank, 'row')} without a file name or a caption")
    return written if written.texts else None


def of_file(path: Path, column: str = "") -> Written | None:
    """What a file says about images, where its start names image files; None for any other file."""
    place, kind = Nearby(path.parent), kind_of(path.name)
    if kind not in _TABLES:
        return None
    with suppress(OSError, EOFError, zlib.error, textfiles.Refused, DataError):
        start = _start(place, path.name)
        if any(ending in start for ending in EXTENSIONS) or ('"image_id"' in start and '"caption"' in start):
            return read(place, path.name, column)
    return None


def mentions_images(path: Path) -> bool:
    """Whether a table's start names files with the endings of images."""
    with suppress(OSError, EOFError, zlib.error, textfiles.Refused):
        start = _start(Nearby(path.parent), path.name) if kind_of(path.name) in _TABLES else ""
        return any(ending in start for ending in EXTENSIONS)
    return False


class Rows:
    """The rows of images by what files about them call them: the path from that file on, the name alone where no other image
    has it, or the name without the ending."""

    def __init__(self, names: Sequence[str]) -> None:
        self.full = {name: row for row, name in enumerate(names)}
        self.short = _unique(names, posixpath.basename)
        self.bare = _unique(names, lambda name: _stem(posixpath.basename(name)))

    def of(self, table: str, file: str) -> int | None:
        """The image that `table` calls `file`: its row, _SEVERAL where several are called so, None where none is."""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(table), file.replace("\\", "/").lstrip("/")))
        last = posixpath.basename(path)
        called = [self.full.get(path), self.short.get(last), self.bare.get(last)]
        if posixpath.splitext(last)[1].lower() in EXTENSIONS:  # .jpeg for a .jpg
            called.append(self.bare.get(_stem(last)))
        return next((row for row in called if row is not None), None)


def match(names: Sequence[str], files: Sequence[Written]) -> Captions | None:
    """Captions for the images `names`, found as `Rows` does it. None where not one is found."""
    if not files:
        return None
    known = Rows(names)
    texts: list[str] = [""] * len(names)
    labels: list[str | None] = [None] * len(names)
    notes: list[str] = []
    matched, several = np.zeros(len(names), bool), 0
    for written in files:
        missing: list[str] = []
        ambiguous: list[str] = []
        hit = 0
        for file in dict.fromkeys((*written.texts, *written.labels)):
            row = known.of(written.name, file)
            if row is None or row == _SEVERAL:
                (missing if row is None else ambiguous).append(file)
                continue
            hit += 1
            given = written.texts.get(file, [])
            several += len(set(given)) > 1 or bool(texts[row] and given and texts[row] != given[0])
            texts[row] = texts[row] or (given[0] if given else "")
            labels[row] = labels[row] or written.labels.get(file)
            matched[row] = True
        if hit:
            notes += written.notes
            if missing:
                notes.append(f"{written.name} names {_some(missing, 'image')} not here")
            if ambiguous:
                notes.append(
                    f"{written.name} names {_some(ambiguous, 'image')} in several folders: write the folder with the name"
                )
    if not matched.any():
        return None
    if several:
        notes.append(f"{counted(several, 'image')} with more than one caption: the first is used")
    return Captions(texts, labels, notes, matched, len(files))


def _one_each(names: Sequence[str], place: Place) -> Captions | None:
    """Captions in files that are called as their image is, as in a webdataset archive; None where few images have one."""
    parts: dict[str, dict[str, str]] = {}
    for name in place.beside:
        stem, dot = posixpath.splitext(name)
        if dot.lower() in (".txt", ".caption", ".cls", ".json"):
            parts.setdefault(stem, {})[dot.lower()] = name
    keys = [next((key for key in (_stem(name), _key(name)) if key in parts), None) for name in names]
    if np.mean([key is not None for key in keys]) < _HALF:
        return None
    texts: list[str] = [""] * len(names)
    labels: list[str | None] = [None] * len(names)
    used: set[str] = set()
    unread = several = 0
    for row, key in enumerate(keys):
        for ending, file in parts.get(key or "", {}).items():
            used.add(file)
            try:
                text = decoded(place.content(file))
                if ending == ".cls":
                    labels[row] = " ".join(text.split()) or None
                    continue
                held = _fields(parse_json(text)) if ending == ".json" else {"text": text.splitlines()}
            except (OSError, ValueError):  # textfiles.Refused is a ValueError
                unread += 1
                continue
            given = _texts(_first(held, TEXT))
            several += len(set(given)) > 1
            if given and (ending != ".json" or not texts[row]):
                texts[row] = given[0]
            labels[row] = labels[row] or _label(held)
    endings = sorted({posixpath.splitext(file)[1].lower() for file in used})
    notes = [f"captions from the {', '.join(endings)} file of each image"] if any(texts) else []
    if unread:
        notes.append(f"{counted(unread, 'file')} beside the images cannot be read")
    if several:
        notes.append(f"{counted(several, 'image')} with more than one caption: the first is used")
    matched = np.array([bool(text) or label is not None for text, label in zip(texts, labels, strict=True)])
    return Captions(texts, labels, notes, matched, len(used)) if matched.any() else None


# -------------------------------------------------------------------------------------------------------------- tables


def candidates(place: Place) -> list[str]:
    """Per folder the files called captions, or those called metadata, or else the only table."""
    folders: dict[str, list[str]] = {}
    for name in place.beside:
        if kind_of(name) in (*_TABLES, ".txt"):
            folders.setdefault(posixpath.dirname(name), []).append(name)
    chosen: list[str] = []
    for held in folders.values():
        captions, metadata = (
            [name for name in held if posixpath.basename(name).lower().startswith(start)] for start in _KNOWN
        )
        tables = [name for name in held if kind_of(name) in _TABLES]
        chosen += captions or metadata or (tables if len(tables) == 1 else [])
    return sorted(chosen)


def _start(place: Place, name: str) -> str:
    """The first characters of a file, in lower case."""
    content = place.content(name, _START)
    if name.lower().endswith(".gz"):
        content = zlib.decompressobj(wbits=31).decompress(content, _START)
    return decoded(content).lower()


def _fits(kind: str, start: str, column: str) -> bool:
    """Whether a table that starts so names files and may have captions."""
    if kind in (*_ROWS, ".txt"):
        return _cells(start) is not None
    if '"images"' in start or '"annotations"' in start or any(f'{ending}":' in start for ending in EXTENSIONS):
        return True
    texts = (column.lower(),) if column else TEXT
    return all(any(f'"{name}"' in start for name in names) for names in (_FILE, texts))


def _take(records: Iterator[Mapping[str, Any]], written: Written, column: str) -> int:
    """Fill `written`; the number of rows that say nothing."""
    blank, columns = 0, (column.lower(),) if column else TEXT
    used: dict[str, None] = {}
    for row in records:
        file, given = _first(row, _FILE), _texts(_first(row, columns))
        label = _label(row)
        if not isinstance(file, str) or not file.strip() or not (given or label):
            blank += 1
            continue
        file = file.strip()
        blank += not given
        if given:
            written.texts.setdefault(file, []).extend(given)
            used[next(name for name in columns if row.get(name) not in (None, ""))] = None
        if label:
            written.labels.setdefault(file, label)
    if used:
        written.notes.insert(0, f"captions from {written.name}, column {', '.join(used)}")
    return blank


def _records(name: str, text: str, notes: list[str]) -> Iterator[Mapping[str, Any]]:
    """Rows with the names of their columns in lower case."""
    kind = kind_of(name)
    if kind == ".json":
        try:
            content = parse_json(text)
        except ValueError:
            yield from _json_lines(name, text, notes)  # some write lines under this ending
        else:
            yield from map(_fields, _json_rows(content))
    elif kind in _LINES:
        yield from _json_lines(name, text, notes)
    else:
        yield from _table(name, text, notes)


def _json_lines(name: str, text: str, notes: list[str]) -> Iterator[Mapping[str, Any]]:
    bad = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            yield _fields(row)
        else:
            bad.append(number)
    if bad:
        notes.append(
            f"{name}: {counted(len(bad), 'line')} that are not JSON objects are left out, the first is line {bad[0]}"
        )


def _json_rows(content: Any) -> Iterator[Any]:
    """Rows of a list of objects, of COCO's images and annotations, of images with sentences, or of {file: caption}."""
    if isinstance(content, list):
        yield from content
        return
    if not isinstance(content, dict):
        return
    images, annotations = content.get("images"), content.get("annotations")
    if isinstance(images, list) and isinstance(annotations, list):
        files = {str(row.get("id")): row.get("file_name") for row in images if isinstance(row, dict)}
        for row in annotations:
            if isinstance(row, dict) and "caption" in row:
                yield {"file_name": files.get(str(row.get("image_id"))), "caption": row["caption"]}
    elif isinstance(images, list):
        yield from images
    else:
        named = ((file, text) for file, text in content.items() if posixpath.splitext(file)[1].lower() in EXTENSIONS)
        yield from ({"file": file, "caption": text} for file, text in named)


def _table(name: str, text: str, notes: list[str]) -> Iterator[Mapping[str, Any]]:
    found = _cells(text)
    if found is None:
        return
    delimiter, header, headed = found
    if not headed and _are_labels(text, delimiter):
        header = ["file", "label"]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        for number, cells in enumerate(reader):
            if cells and not (headed and number == 0):
                yield dict(zip(header, cells, strict=False))
    except csv.Error as error:
        notes.append(f"{name}: line {reader.line_num} and what follows are left out ({error})")


def _are_labels(text: str, delimiter: str) -> bool:
    """Whether what stands behind the names of files are labels: short, and few of them."""
    said = [line.partition(delimiter)[2].strip() for line in text.splitlines() if line.strip()]
    return len(set(said)) <= len(said) // 2 and max(map(len, said), default=0) <= _LONGEST_LABEL


def _cells(text: str) -> tuple[str, list[str], bool] | None:
    """(delimiter, columns in lower case, whether the first line names them) where a column names files and one is text.

    Without such a header, two columns of which the first is the name of an image are a file and its caption.
    """
    line = text.lstrip("\n").partition("\n")[0]
    for delimiter in ",\t;|":
        cells = [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]
        names = [cell.lower() for cell in cells]
        if len(names) > 1 and set(names) & set(_FILE) and set(names) - set(_FILE):
            return delimiter, names, True
        if len(cells) == 2 and posixpath.splitext(cells[0])[1].lower() in EXTENSIONS:
            return delimiter, ["file", "caption"], False
    return None


# --------------------------------------------------------------------------------------------------------------- words


def _fields(row: Any) -> dict[str, Any]:
    return {str(key).strip().lower(): value for key, value in row.items()} if isinstance(row, dict) else {}


def _first(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((row[name] for name in names if row.get(name) not in (None, "")), None)


def first_caption(value: Any) -> str:
    """The first caption in a value as data sets hold them, "" where there is none."""
    return next(iter(_texts(value)), "")


def _texts(value: Any) -> list[str]:
    """The captions in a value: a string, a list of them, or objects that hold them; blanks at the ends and in a row go."""
    if isinstance(value, str):
        text = " ".join(value.split())
        return [text] if text else []
    if isinstance(value, dict):
        return _texts(_first(_fields(value), TEXT))
    return [text for entry in value for text in _texts(entry)] if isinstance(value, list) else []


def _label(row: Mapping[str, Any]) -> str | None:
    value = _first(row, _LABEL)
    return " ".join(str(value).split()) or None if isinstance(value, str | int) else None


def decoded(content: bytes) -> str:
    """Raises textfiles.Refused for what is no text."""
    return textfiles.to_utf8(np.frombuffer(content, np.uint8), textfiles.Repairs()).tobytes().decode("utf-8", "replace")


def _unique(names: Sequence[str], short: Callable[[str], str]) -> dict[str, int]:
    """Short name -> row, _SEVERAL for one that several images have."""
    rows: dict[str, int] = {}
    for row, name in enumerate(names):
        word = short(name)
        rows[word] = _SEVERAL if word in rows else row
    return rows


def _stem(name: str) -> str:
    return posixpath.splitext(name)[0]


def _key(name: str) -> str:
    """What the parts of a webdataset sample have in common: the name up to its first dot."""
    folder, last = posixpath.split(name)
    return posixpath.join(folder, last.partition(".")[0])


def kind_of(name: str) -> str:
    return posixpath.splitext(name.lower().removesuffix(".gz"))[1]


def _some(names: Sequence[str], word: str) -> str:
    listed = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
    return f"{counted(len(names), word)} ({listed}) that {'is' if len(names) == 1 else 'are'}"
