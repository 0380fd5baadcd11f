"""Where documents to search come from: BEIR and other JSON Lines, SQuAD, CSV, BibTeX, arXiv metadata, folders of text.

Every reader gives `Document`s one after the other, so that no file need fit into memory twice. Text that is no UTF-8 is
repaired with U+FFFD and counted. What a document is called is looked for among the usual names of a field.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from typing_extensions import NotRequired, TypedDict

from papertrial.core.doors import wrong
from papertrial.core.errors import DataError
from papertrial.core.files import parse_json
from papertrial.core.wording import counted
from papertrial.data.collections.bibtex import entries_in

_ID = ("_id", "id", "docid", "doc_id", "document_id", "pid", "passage_id", "key", "arxiv_id", "doi", "url")
_TITLE = ("title", "name", "heading", "headline", "subject")
_TEXT = ("text", "abstract", "contents", "content", "body", "passage", "document", "context", "summary", "description",
         "idea", "sentence")  # fmt: skip
_AUTHORS = ("authors", "author")
_TEXT_FILES = (".txt", ".md", ".rst", ".tex", ".py", ".html", ".htm", ".text", "")
_JSON_LINES, _TABLES = (".jsonl", ".ndjson"), (".csv", ".tsv", ".tab")
ACCEPTED = "give a BEIR folder, JSON Lines, SQuAD JSON, a CSV with a text column, BibTeX, or a folder of text files"


class Document(NamedTuple):
    id: str
    title: str
    text: str


def kind_of(path: Path) -> str:
    """The suffix that tells what a file holds, without `.gz`."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def documents_in(path: Path, note: Callable[[str], None]) -> Iterator[Document]:
    """The documents of a file or folder. Raises DataError that names the file, and the line where there is one."""
    if path.is_dir():
        yield from _folder(path, note)
        return
    kind = kind_of(path)
    if kind in _JSON_LINES:
        yield from map(_named(path), json_lines(path, note))
    elif kind == ".json":
        yield from map(_named(path), _json(path, note))
    elif kind in _TABLES:
        yield from map(_named(path), rows_of(path, note))
    elif kind == ".bib":
        yield from _bibtex(_text(path, note), path.name, note)
    elif kind in _TEXT_FILES:
        yield from _paragraphs(_text(path, note))
    else:
        raise DataError(f"{path} is not a kind of file that documents are read from", ACCEPTED)


def json_lines(path: Path, note: Callable[[str], None]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of a JSON Lines file. Raises DataError for a line that is no JSON object."""
    with _opened(path) as stream:
        repaired = 0
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            text = line.decode("utf-8-sig", "replace")
            repaired += "\ufffd" in text and b"\xef\xbf\xbd" not in line
            try:
                row = parse_json(text)
            except ValueError as error:
                raise DataError(f"{path}, line {number}: not JSON ({error})", "one JSON object per line") from None
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {number}: {type(row).__name__} instead of an object", "write {...}")
            yield number, row
        if repaired:
            note(f"{path.name}: {counted(repaired, 'line')} not in UTF-8; what could not be read became U+FFFD")


def rows_of(path: Path, note: Callable[[str], None]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, row) of a CSV or TSV file with a header. Raises DataError for one without rows."""
    text = _text(path, note)
    head = text[: text.find("\n") + 1 or None]
    delimiter = "\t" if kind_of(path) != ".csv" else max(",;\t|", key=head.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}", "is it a table?") from None


class _Question(TypedDict):
    question: str
    id: NotRequired[str | int]


class _Paragraph(TypedDict):
    context: str
    qas: NotRequired[list[_Question] | None]


class _Article(TypedDict):
    paragraphs: list[_Paragraph]
    title: NotRequired[str | None]


class _Squad(TypedDict):
    """What is read of SQuAD's layout."""

    data: list[_Article]


def squad(path: Path) -> list[Any]:
    """The articles of a file in SQuAD's layout. Raises DataError for other JSON."""
    content = _load_json(path)
    if why := wrong(_Squad, content):
        raise DataError(f"{path} is not laid out as SQuAD is ({why})", "data: a list of articles with paragraphs")
    return list(content["data"])


def looks_like_squad(path: Path) -> bool:
    """From the first bytes alone."""
    with contextlib.suppress(DataError), _opened(path) as stream:
        return b'"paragraphs"' in stream.read(1 << 16)
    return False


def field(row: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """The first of the fields that is there, as text; lists are joined. Empty when there is none."""
    found = next((row[name] for name in names if row.get(name) not in (None, "")), "")
    if isinstance(found, list):
        return ", ".join(_person(entry) for entry in found)
    return str(found).strip()


def _person(entry: Any) -> str:
    """`{"name": ...}`, arXiv's `[family, given, suffix]`, or plain words."""
    if isinstance(entry, dict):
        return str(entry.get("name", ""))
    return " ".join(map(str, [*entry[1:2], entry[0]])) if isinstance(entry, list) and entry else str(entry)


def _named(path: Path) -> Callable[[tuple[int, dict[str, Any]]], Document]:
    def read(numbered: tuple[int, dict[str, Any]]) -> Document:
        number, row = numbered
        row = {str(name).strip().lower(): value for name, value in row.items() if name is not None}
        title, text, authors = (field(row, names) for names in (_TITLE, _TEXT, _AUTHORS))
        if not any(name in row for name in (*_TITLE, *_TEXT)):
            raise DataError(
                f"{path}, line {number}: no field with text (it has {', '.join(list(row)[:8])})",
                f"call it one of {', '.join(_TEXT[:5])}",
            )
        return Document(field(row, _ID) or str(number), title, "\n".join(filter(None, (text, authors))))

    return read


def _json(path: Path, note: Callable[[str], None]) -> Iterator[tuple[int, dict[str, Any]]]:
    content = _load_json(path)
    held = content.values() if isinstance(content, dict) else [content]
    rows = next((value for value in held if isinstance(value, list)), None)
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path} holds no list of objects", ACCEPTED)
    yield from enumerate(rows, 1)


def _load_json(path: Path) -> Any:
    with _opened(path) as stream:
        try:
            return parse_json(stream.read().decode("utf-8-sig", "replace"))
        except ValueError as error:
            raise DataError(f"{path} is not JSON ({error})", "is it complete?") from None


def _folder(path: Path, note: Callable[[str], None]) -> Iterator[Document]:
    files = sorted(file for file in path.rglob("*") if file.is_file() and not _hidden(file, path))
    texts = [file for file in files if kind_of(file) in _TEXT_FILES and kind_of(file)]
    others = [file for file in files if kind_of(file) in (*_JSON_LINES, *_TABLES, ".json", ".bib")]
    if others and not texts:
        for file in others:
            yield from documents_in(file, note)
        return
    if not texts:
        raise DataError(f"{path} holds no text files", ACCEPTED)
    for file in texts:
        text = _text(file, note)
        first = next((line.strip("#=*- \t") for line in text.splitlines() if line.strip("#=*- \t")), "")
        name = file.relative_to(path).as_posix()
        yield Document(name, first if 0 < len(first) <= 120 else name, text)
    if len(texts) < len(files):
        note(f"left out: {counted(len(files) - len(texts), 'file')} that cannot be read as text")


def _hidden(file: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(root).parts)


def _paragraphs(text: str) -> Iterator[Document]:
    """One document per paragraph, as blank lines divide them."""
    for number, paragraph in enumerate(filter(str.strip, re.split(r"\n\s*\n", text)), 1):
        yield Document(str(number), "", paragraph.strip())


def _bibtex(text: str, name: str, note: Callable[[str], None]) -> Iterator[Document]:
    """Entries of a BibTeX file: title, then abstract, authors, place and year."""
    for key, fields in entries_in(text, name, note):
        place = field(fields, ("journal", "booktitle", "publisher"))
        about = " ".join(filter(None, (field(fields, ("author", "editor")), place, field(fields, ("year", "date")))))
        body = field(fields, ("abstract", "annote", "note"))
        yield Document(key, field(fields, ("title",)), "\n".join(filter(None, (body, about))))


def _text(path: Path, note: Callable[[str], None]) -> str:
    with _opened(path) as stream:
        content = stream.read()
    if b"\0" in content[:4096] and not content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path} holds binary data, not text", ACCEPTED)
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    text = content.decode(encoding, "replace")
    if "\ufffd" in text and b"\xef\xbf\xbd" not in content:
        note(f"{path.name} is not UTF-8; what could not be read became U+FFFD")
    return text


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else open(path, "rb") as stream:
            yield stream
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read ({getattr(error, 'strerror', None) or error})", "is it complete?"
        ) from None
