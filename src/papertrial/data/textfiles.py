"""Text files as they lie on disks: found in folders and archives, unpacked, and brought to UTF-8 with \\n at line ends.

Encodings are read as what a byte-order mark says, else as UTF-8. Bytes that are not UTF-8 are taken as Windows-1252
(Latin-1 with the quotes and dashes people type), one by one, so that a file with a few old lines keeps its good ones.
A file in which such bytes abound is in another encoding, which nobody should guess: it is refused.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import os
import re
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from papertrial.core.errors import DataError
from papertrial.core.task import Ragged
from papertrial.core.wording import counted
from papertrial.data.layout import PARTS

#: endings of files that hold text; code is text
SUFFIXES = frozenset(
    (
        *(
            ".txt",
            ".text",
            ".md",
            ".markdown",
            ".rst",
            ".adoc",
            ".org",
            ".tex",
            ".log",
            ".srt",
            ".html",
            ".htm",
            ".css",
        ),
        *(".py", ".pyi", ".js", ".ts", ".jsx", ".tsx", ".c", ".h", ".cc", ".cpp", ".hpp", ".cs", ".java", ".kt", ".go"),
        *(".rs", ".rb", ".php", ".pl", ".r", ".jl", ".lua", ".sh", ".sql", ".scala", ".swift", ".hs", ".ml", ".m"),
    )
)
ARCHIVES = (".tar", ".tgz", ".tar.gz", ".txz", ".tar.xz", ".tbz2", ".tar.bz2", ".zip")
_PACKED: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress}
_DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
)
_MARKS = (
    (codecs.BOM_UTF8, "UTF-8 with a byte-order mark", "utf-8"),
    (codecs.BOM_UTF32_LE, "UTF-32", "utf-32"),
    (codecs.BOM_UTF32_BE, "UTF-32", "utf-32"),
    (codecs.BOM_UTF16_LE, "UTF-16", "utf-16"),
    (codecs.BOM_UTF16_BE, "UTF-16", "utf-16"),
)
_BLOCK = 1 << 23  # bytes looked at together
_START = 1 << 16  # bytes by which text is told from other content
_CONTROLS = 0.01  # share of control bytes from which content is no text
_FOREIGN = 0.3  # share of bytes that are not UTF-8 from which Windows-1252 is no longer believed
#: bytes that are marks in Windows-1252 and stand between two letters by chance only; in older encodings they are letters
_MARKS_1252 = bytes(
    [*range(0x80, 0x85), *range(0x86, 0x8A), 0x8B, 0x8D, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x98, 0x99, 0x9B, 0x9D]
)
_ODD = 0.2  # share of them among the bytes that are not UTF-8 from which Windows-1252 is not believed either
_CONTROL = np.isin(np.arange(256), [*range(9), *range(14, 27), *range(28, 32), 127])
_ABOUT = re.compile(r"(?i)(readme|licen[cs]e|copying|notice|changelog|changes|authors|citation)\b.*")
_LABELLED_LINE = re.compile(rb"(__label__\S+|[0-9]{1,3})[ \t]+(\S.*)", re.DOTALL)
_MOST_LABELS = 100


@dataclass
class Repairs:
    """What had to be mended on the way to UTF-8, over all files.

    marked: files by the encoding their byte-order mark names.  foreign: bytes taken as Windows-1252, and in how many
    files.  refused: name -> why a file was left out.
    """

    marked: Counter[str] = field(default_factory=Counter)
    foreign: int = 0
    foreign_files: int = 0
    refused: dict[str, str] = field(default_factory=dict)

    def notes(self) -> list[str]:
        lines = [f"{counted(files, 'file')} in {name}, read as such" for name, files in self.marked.items()]
        if self.foreign:
            lines.append(
                f"{counted(self.foreign, 'byte')} in {counted(self.foreign_files, 'file')} that are not UTF-8 were read as Windows-1252 (Latin-1)"
            )
        if self.refused:
            some = ", ".join(f"{name} ({why})" for name, why in list(self.refused.items())[:5])
            lines.append(
                f"left out {counted(len(self.refused), 'file')}: {some}{', ...' if len(self.refused) > 5 else ''}"
            )
        return lines


class Refused(ValueError):
    """Content that is no text, or in an encoding that cannot be known."""


def to_utf8(raw: np.ndarray, repairs: Repairs) -> np.ndarray:
    """uint8 (n,) of any encoding as UTF-8 with \\n at line ends; the very array when it is that already, which may lie
    on disk. Raises Refused for what is no text."""
    start = raw[:_START].tobytes()
    mark, name, encoding = next((known for known in _MARKS if start.startswith(known[0])), (b"", "", "utf-8"))
    if not mark and (encoding := _without_mark(start)) != "utf-8":
        name = "UTF-16 without a byte-order mark"
    if encoding != "utf-8":
        try:
            text = raw.tobytes().decode(encoding)
        except UnicodeDecodeError:
            raise Refused(f"damaged {name}") from None
        content = text.removeprefix("\ufeff").encode("utf-8", "replace")
    else:
        if not mark and _is_plain(raw):
            return raw
        content = _decoded(raw[len(mark) :], repairs)
    if name:
        repairs.marked[name] += 1
    return np.frombuffer(content.replace(b"\r\n", b"\n").replace(b"\r", b"\n"), np.uint8)


def _without_mark(start: bytes) -> str:
    """utf-8, or the UTF-16 in which every other byte of Western text is zero. Raises Refused for binary content."""
    held = np.frombuffer(start, np.uint8)
    even, odd = (float((held[side::2] == 0).mean()) if len(held) > 3 else 0.0 for side in (0, 1))
    if max(even, odd) > 0.4 and min(even, odd) < 0.05:
        return "utf-16-le" if odd > even else "utf-16-be"
    if len(held) and _CONTROL[held].mean() > _CONTROLS:
        raise Refused("binary data, not text")
    return "utf-8"


def _is_plain(raw: np.ndarray) -> bool:
    """Whether the bytes are UTF-8 with \\n at line ends, read in blocks."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(raw), _BLOCK):
            block = raw[start : start + _BLOCK].tobytes()
            decoder.decode(block, final=start + _BLOCK >= len(raw))
            if b"\r" in block:
                return False
    except UnicodeDecodeError:
        return False
    return True


def _decoded(raw: np.ndarray, repairs: Repairs) -> bytes:
    """UTF-8 in which bytes that were none are read as Windows-1252."""
    found = odd = 0

    def western(error: UnicodeError) -> tuple[str, int]:
        nonlocal found, odd
        assert isinstance(error, UnicodeDecodeError)
        wrong = error.object[error.start : error.end]
        found += len(wrong)
        around = error.object[max(0, error.start - 1) : error.end + 1]
        odd += len(around) == 3 and wrong[0] in _MARKS_1252 and around[:1].isalpha() and around[2:].isalpha()
        return "".join(_western(byte) for byte in wrong), error.end

    codecs.register_error("papertrial-western", western)
    decoder = codecs.getincrementaldecoder("utf-8")("papertrial-western")
    parts = []
    for start in range(0, len(raw), _BLOCK):
        text = decoder.decode(raw[start : start + _BLOCK].tobytes(), final=start + _BLOCK >= len(raw))
        parts.append(text.encode())
        if found > _FOREIGN * len(raw):
            break
    if found > _FOREIGN * len(raw) or odd > _ODD * found:
        raise Refused("neither UTF-8 nor Windows-1252, and its encoding cannot be known")
    repairs.foreign += found
    repairs.foreign_files += found > 0
    return b"".join(parts)


def _western(byte: int) -> str:
    """Windows-1252; the five bytes that it does not define become U+FFFD."""
    return bytes([byte]).decode("cp1252", "replace")


def read_file(path: Path, repairs: Repairs) -> np.ndarray:
    """The text of a file, plain (memory-mapped where it needs no repair) or .gz, .bz2 or .xz.

    Raises DataError for a damaged file, and for what is no text or in an unknown encoding.
    """
    unpack = _PACKED.get(path.suffix.lower())
    try:
        if unpack is not None:
            raw = np.frombuffer(unpack(path.read_bytes()), np.uint8)
        else:
            raw = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, np.uint8)
        return to_utf8(raw, repairs)
    except Refused as error:
        fix = "save it as UTF-8" if "encoding" in str(error) or "UTF" in str(error) else "give a text file"
        raise DataError(f"{path} is {error}", fix) from None
    except _DAMAGED as error:
        raise DataError(f"{path} cannot be read ({error})", "is it complete?") from None


def unpacked(name: str, content: bytes) -> np.ndarray:
    """The content of a member, which may be packed once more. Raises Refused for a damaged one."""
    unpack = _PACKED.get(PurePosixPath(name).suffix.lower(), bytes)
    try:
        return np.frombuffer(unpack(content), np.uint8)
    except _DAMAGED as error:
        raise Refused(f"damaged: {error}") from None


def looks_like_text(path: Path) -> bool:
    """Whether the first bytes of a file of an unknown ending are lines of text."""
    with open(path, "rb") as stream:
        start = stream.read(_START)
    try:
        return b"\n" in bytes(to_utf8(np.frombuffer(start[: start.rfind(b"\n") + 1], np.uint8), Repairs()))
    except Refused:
        return False


def members(path: Path) -> Iterator[tuple[str, Any]]:
    """(name, function that reads its bytes) of every file in a folder (sorted) or archive; hidden ones left aside.

    An archive in a folder is a folder of its name, unless there is one.  Raises DataError for a damaged archive.
    """
    if path.is_dir():
        root = os.path.join(path, "")
        found = [
            os.path.join(folder, name)[len(root) :].replace(os.sep, "/")
            for folder, _, files in os.walk(path)
            for name in files
        ]
        for name in sorted(found, key=lambda name: name.split("/")):
            if _is_hidden(name) or not os.path.isfile(root + name):
                continue
            ending = next((end for end in ARCHIVES if name.lower().endswith(end)), "")
            if not ending:
                yield name, partial(_read, root + name)
            elif not os.path.isdir(root + name[: -len(ending)]):
                for inner, read in members(Path(root + name)):
                    yield f"{name[: -len(ending)]}/{inner}", read
        return
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as zipped:
                for entry in sorted(zipped.infolist(), key=lambda entry: entry.filename):
                    if not entry.is_dir() and not _is_hidden(entry.filename):
                        yield entry.filename, lambda entry=entry: zipped.read(entry)
            return
        if path.suffix.lower() == ".zip":
            raise zipfile.BadZipFile("its end, where a zip lists its files, is not there")
        with tarfile.open(path) as tarred:
            for member in tarred:  # in their order, since a packed tar is read from front to back
                name = member.name.removeprefix("./")
                if member.isfile() and not _is_hidden(name):
                    yield name, lambda member=member: _content(tarred, member)
    except _DAMAGED as error:
        raise DataError(f"{path} is damaged ({error})", "is it complete?") from None


def _read(name: str) -> bytes:
    return Path(name).read_bytes()


def _content(tarred: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tarred.extractfile(member)
    return b"" if stream is None else stream.read()


def _is_hidden(name: str) -> bool:
    return any(word.startswith((".", "__")) for word in name.split("/")[:-1]) or name.rsplit("/", 1)[-1].startswith(".")


def bare_name(name: str) -> str:
    """Without the ending of a packed file."""
    stem, dot, ending = name.rpartition(".")
    return stem if dot and f".{ending.lower()}" in _PACKED else name


def part_of(name: str) -> int | None:
    """The part of a split that a file is named after: train.txt, reviews-test.csv, TREC.dev.all."""
    words = re.split(r"[._\- ]", PurePosixPath(name).name.lower())
    found = [PARTS[word] for word in words if word in PARTS]
    return found[0] if len(found) == 1 else None


def without_part(name: str) -> str:
    """A file's name without the word for its part and without its ending, so that the parts of one data set are alike."""
    words = re.split(r"[._\- ]", PurePosixPath(name).name.lower())
    return "-".join(word for word in words if word not in PARTS and f".{word}" not in (*SUFFIXES, *_PACKED))


def is_text(name: str) -> bool:
    """Whether a file's name says that it holds text, and not words about the data."""
    plain = bare_name(name)
    return os.path.splitext(plain)[1].lower() in SUFFIXES and not _ABOUT.fullmatch(os.path.basename(plain))


def blocks(document: np.ndarray) -> Iterator[bytes]:
    """A text in pieces of whole lines, some 8 MB each; one longer line is one piece."""
    start = 0
    while start < len(document):
        end = min(start + _BLOCK, len(document))
        while end < len(document) and not (cut := np.flatnonzero(document[start:end] == 10)).size:
            end = min(end + _BLOCK, len(document))
        if end < len(document):
            end = start + int(cut[-1]) + 1
        yield document[start:end].tobytes()
        start = end


def lines_of(document: np.ndarray) -> tuple[Ragged, np.ndarray]:
    """The lines of a text that hold more than blanks, without their line ends, and their numbers from 1, int64."""
    values = np.empty(len(document), np.uint8)
    lengths, numbers = [np.zeros(1, np.int64)], [np.zeros(0, np.int64)]
    first, filled = 1, 0
    for block in blocks(document):
        lines = block.split(b"\n")
        kept = np.flatnonzero([bool(line.strip()) for line in lines])
        content = b"".join(lines[row] for row in kept.tolist())
        values[filled : filled + len(content)] = np.frombuffer(content, np.uint8)
        filled += len(content)
        lengths.append(np.array([len(lines[row]) for row in kept.tolist()], np.int64))
        numbers.append(first + kept)
        first += len(lines) - 1
    return Ragged(values[:filled], np.cumsum(np.concatenate(lengths))), np.concatenate(numbers)


def labelled_lines(lines: Ragged) -> tuple[list[str], Ragged] | None:
    """Labels and texts where every line is `0 some text` or `__label__name some text`; None otherwise.

    Numbers must be few, as a numbered list has no labels.
    """
    if len(lines) < 4 or not all(_LABELLED_LINE.fullmatch(lines[row].tobytes()) for row in range(min(50, len(lines)))):
        return None
    labels, texts = [], []
    for row in range(len(lines)):
        found = _LABELLED_LINE.fullmatch(lines[row].tobytes())
        if found is None:
            return None
        labels.append(found[1].decode("utf-8", "replace").removeprefix("__label__"))
        texts.append(found[2])
    if not 2 <= len(set(labels)) <= min(_MOST_LABELS, len(labels) // 2):
        return None
    return labels, joined(texts)


def joined(texts: Sequence[bytes | np.ndarray]) -> Ragged:
    """Texts as bytes or uint8 arrays in one Ragged."""
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    return Ragged(
        np.frombuffer(b"".join(bytes(text) if isinstance(text, np.ndarray) else text for text in texts), np.uint8),
        np.concatenate([[0], np.cumsum(lengths)]),
    )
