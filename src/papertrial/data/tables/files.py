"""Where tables come from: CSV, JSON, Parquet and frames, all as pieces of Arrow columns that can be read again.

Nothing here decides what a column means: CSV values stay text, typed sources keep their types. A source offers
`pieces(names)`, an iterator that may be asked for twice (once to settle the types, once to convert), `place(row)`,
which names a data row the way its reader would look for it, and `key`, which changes when the file does.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from papertrial.core.errors import DataError
from papertrial.core.files import parse_json
from papertrial.data.tables.written import NUMBER
from papertrial.data.textfiles import Refused, Repairs, to_utf8

PIECE_BYTES = 16 << 20  # of text read at a time; no row may be longer
PIECE_ROWS = 1 << 16  # of typed sources
SUFFIXES = (".csv", ".tsv", ".tab", ".txt", ".parquet", ".pq", ".jsonl", ".ndjson", ".json")
_ZIPPED = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".json")
DELIMITERS = "\t,;|"  # of those that cut equally well, the first
_START = 1 << 16  # bytes by which text is told from a table
_NUMBERED, _CLAUSE = (
    0.1,
    3,
)  # share of numbers among the cells of a table, at least; words of what commas cut in a sentence
EVEN = 0.95  # share of the first rows with as many fields as the others in a .txt file that is a table


class Piece(NamedTuple):
    """Some rows in a row. loose: columns whose text may stand for numbers (all of a CSV, none of a Parquet file)."""

    columns: dict[str, pa.Array]
    rows: int
    loose: Collection[str]


class Source(Protocol):
    key: str
    notes: list[str]
    delimiter: str

    def pieces(self, names: Sequence[str] | None = None) -> Iterator[Piece]: ...
    def place(self, row: int) -> str: ...


def is_table(path: Path) -> bool:
    """Whether the name says that the file holds a table."""
    return _kind(path) in SUFFIXES


def holds_prose(path: Path) -> bool:
    """Whether a .txt file is text rather than a table: no delimiter cuts its first lines evenly, or the one that does is
    punctuation, and they are no numbers."""
    with readable(path), open_bytes(path) as stream:
        start = stream.read(_START)
    try:
        text = bytes(to_utf8(np.frombuffer(start, np.uint8), Repairs())).decode("utf-8", "replace")
    except Refused:
        return True  # whoever reads it as text says what it is
    lines = text.split("\n")
    if len(start) == _START:
        del lines[-1]  # cut short
    ways = [cut(lambda mark: csv.reader(lines, delimiter=mark))]
    if '"' in text:  # which may mean nothing
        ways.append(cut(lambda mark: csv.reader(lines, delimiter=mark, quoting=csv.QUOTE_NONE)))
    scored = [(score, mark, rows) for way in ways for mark, (score, rows) in way.items()]
    if not scored:
        return bool(start)
    best = max(scored, key=lambda one: one[0])  # the first of equal ones
    found = best[1:]
    rows = [row for row in found[1] if row]
    if found[0] in ",;" and _is_punctuation(found[0], text, rows):
        return True
    if len(rows[0]) == 1:
        return not all(re.match(NUMBER, row[0].strip()) for row in rows[1:] or rows)
    return len(rows) < 2 or sum(len(row) == len(rows[0]) for row in rows) < EVEN * len(rows)


def _is_punctuation(mark: str, text: str, rows: list[list[str]]) -> bool:
    """Whether the mark stands in sentences: a blank or the end of a line comes after it nearly always, and what it cuts is
    words rather than numbers. `39, Private, 77516` is a table; `Doe, John` is not told from a sentence."""
    marks = text.count(mark)
    if not marks or len(re.findall(rf"{mark}(?=\s|$)", text)) < EVEN * marks:
        return False
    cells = [cell.strip() for row in rows for cell in row]
    numbers = sum(re.match(NUMBER, cell) is not None for cell in cells)
    return numbers < _NUMBERED * len(cells) or sum(map(len, map(str.split, cells))) >= _CLAUSE * len(cells)


def cut(records: Callable[[str], Iterable[list[str]]]) -> dict[str, tuple[tuple[float, int], list[list[str]]]]:
    """delimiter -> (share of the first rows with as many fields as most, and how many these are), and those rows."""
    found = {}
    for delimiter in DELIMITERS:
        rows: list[list[str]] = []
        with contextlib.suppress(csv.Error):  # a field longer than Python's reader takes: judge by the rows before it
            rows.extend(islice(records(delimiter), 60))
        counts = Counter(len(row) for row in rows if row)
        if counts:
            fields, times = counts.most_common(1)[0]
            found[delimiter] = (times / counts.total() if fields > 1 else 0.0, fields), rows
    return found


def source_of(path: Path | str, names: Sequence[str] = ()) -> Source:
    """The source for a file, by its suffix. names: of columns that it should have. Raises DataError for a missing, empty or unknown file."""
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} is not there", "check the path")
    kind = _kind(path)
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty", "check how it was made")
    if kind in (".parquet", ".pq"):
        return ParquetFile(path)
    if kind in (".jsonl", ".ndjson", ".json"):
        return JsonFile(path)
    if kind in SUFFIXES:
        from papertrial.data.tables.delimited import CsvFile

        return CsvFile(path, names)
    raise DataError(f"{path} is not a table papertrial knows", f"known: {', '.join(SUFFIXES)}, text also as .gz")


def zipped(path: Path) -> list[str]:
    """Names of the tables in a zip, without Parquet files, which cannot be read from inside one."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    except (zipfile.BadZipFile, OSError):
        return []
    inside = (name for name in names if not name.startswith("__MACOSX/") and not Path(name).name.startswith("."))
    return sorted(name for name in inside if Path(name).suffix.lower() in _ZIPPED)


def _kind(path: Path) -> str:
    if path.suffix.lower() == ".zip":
        found = zipped(path)
        return Path(found[0]).suffix.lower() if len(found) == 1 else ""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def file_key(path: Path) -> str:
    status = path.stat()
    return f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}"


def open_bytes(path: Path) -> Any:
    if path.suffix.lower() == ".zip":
        return zipfile.ZipFile(path).open(zipped(path)[0])
    return gzip.open(path) if path.suffix.lower() == ".gz" else open(path, "rb")


def open_arrow(path: Path) -> Any:
    """As `_open_bytes`, for Arrow, which unpacks .gz faster itself."""
    return open_bytes(path) if path.suffix.lower() == ".zip" else pa.input_stream(str(path), compression="detect")


def unique_names(raw: Iterable[Any]) -> tuple[list[str], list[str]]:
    """Column names as distinct, non-empty strings, and notes on what had to be changed."""
    names: list[str] = []
    notes = []
    taken = Counter[str]()
    for position, value in enumerate(raw):
        name = str(value).strip() if value is not None else ""
        if not name:
            name = f"unnamed_{position}"
            notes.append(f"column {position + 1} has no name and is called {name!r}")
        if name in taken:
            first = name
            while name in taken:
                taken[first] += 1
                name = f"{first}_{taken[first]}"
            notes.append(f"two columns are called {first!r}: the later one is called {name!r}")
        taken[name] += 1
        names.append(name)
    if len(notes) > 5:
        notes = [*notes[:5], f"{len(notes) - 5} more columns had no name or a name used twice"]
    return names, notes


class ParquetFile:
    """A Parquet file, read by row groups."""

    delimiter = ""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.key = file_key(path)
        with readable(path), pa.parquet.ParquetFile(path) as file:
            self._stored = file.schema_arrow.names
        self.names, self.notes = unique_names(self._stored)

    def pieces(self, names: Sequence[str] | None = None) -> Iterator[Piece]:
        wanted = set(self.names if names is None else names)
        with readable(self.path), pa.parquet.ParquetFile(self.path) as file:
            columns = [old for old, new in zip(self._stored, self.names, strict=True) if new in wanted]
            kept = [new for new in self.names if new in wanted]
            for batch in file.iter_batches(PIECE_ROWS, columns=columns):
                yield Piece(dict(zip(kept, batch.columns, strict=True)), batch.num_rows, ())

    def place(self, row: int) -> str:
        return f"row {row + 1}"


class JsonFile:
    """One JSON object per line; or one list of objects; or one object that holds a table: see `_rows_of`."""

    delimiter = ""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.key = file_key(path)
        self.notes: list[str] = []

    def _records(self) -> Iterator[dict[str, Any]]:
        with readable(self.path), open_bytes(self.path) as stream:
            text = io.TextIOWrapper(stream, encoding="utf-8-sig")
            try:
                if self._is_whole(text):
                    records = parse_json(text.read())
                    rows = records if isinstance(records, list) else _rows_of(records)
                    yield from (self._checked(record, f"item {index + 1}") for index, record in enumerate(rows))
                    return
                for line, content in enumerate(text, 1):
                    if content.strip():
                        yield self._checked(self._parsed(content, line), f"line {line}")
            except UnicodeDecodeError:
                raise DataError(
                    f"{self.path} is not UTF-8", "JSON is UTF-8 by its standard: convert the file"
                ) from None
            except json.JSONDecodeError as error:
                raise DataError(f"{self.path}, line {error.lineno}: not JSON ({error.msg})", "mend that line") from None

    def _is_whole(self, text: io.TextIOWrapper) -> bool:
        """Whether the file is one value and not one a line; the text stands at its beginning afterwards."""
        lines = (line.strip() for line in text if line.strip())
        first = next(lines, "")
        alone = first.startswith("{") and (not first.endswith("}") or next(lines, None) is None)
        text.seek(0)
        return alone or first.startswith("[")

    def _parsed(self, content: str, line: int) -> Any:
        try:
            return parse_json(content)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{self.path}, line {line}: not JSON ({error.msg})", "each line must be an object"
            ) from None

    def _checked(self, record: Any, where: str) -> dict[str, Any]:
        if not isinstance(record, dict):
            raise DataError(f"{self.path}, {where}: not an object", 'write rows as {"column": value, ...}')
        return record

    def pieces(self, names: Sequence[str] | None = None) -> Iterator[Piece]:
        wanted = None if names is None else set(names)
        records = self._records()
        while chunk := list(islice(records, PIECE_ROWS // 4)):
            found = dict.fromkeys(name for record in chunk for name in record)
            kept = [name for name in found if wanted is None or name in wanted]
            yield _piece({name: [record.get(name) for record in chunk] for name in kept}, len(chunk))

    def place(self, row: int) -> str:
        return f"record {row + 1}"


def _rows_of(held: dict[str, Any]) -> list[Any]:
    """The rows in one JSON object: a list of values for each column; as pandas writes a frame, where a column has its values
    by the number of the row, or names and rows stand apart; objects by a name each; a list of objects under some name. Else
    the object is the only row."""
    columns, data, values = held.get("columns"), held.get("data"), list(held.values())
    if isinstance(columns, list) and isinstance(data, list) and all(isinstance(row, list) for row in data):
        return [dict(zip(columns, row, strict=False)) for row in data]
    if all(isinstance(value, list) and not any(isinstance(one, dict) for one in value[:1]) for value in values):
        if len({len(value) for value in values}) == 1:
            return [dict(zip(held, row, strict=True)) for row in zip(*values, strict=True)]
    elif all(isinstance(value, dict) for value in values):
        rows = dict.fromkeys(key for value in values for key in value)
        if not all(key.isdecimal() for key in rows):
            return values
        return [{name: value.get(key) for name, value in held.items()} for key in rows]
    tables = [value for value in values if isinstance(value, list) and value and isinstance(value[0], dict)]
    return tables[0] if len(tables) == 1 else [held]


class Frame:
    """A pandas frame, an Arrow table, or anything `pandas.DataFrame` accepts."""

    delimiter = ""

    def __init__(self, frame: Any) -> None:
        if hasattr(frame, "to_arrow"):  # polars
            frame = frame.to_arrow()
        self.key = ""
        if isinstance(frame, pa.Table):
            self.names, self.notes = unique_names(frame.column_names)
            self._piece = Piece(
                {name: column.combine_chunks() for name, column in zip(self.names, frame.columns, strict=True)},
                frame.num_rows,
                (),
            )
            return
        import pandas as pd

        frame = frame if isinstance(frame, pd.DataFrame) else pd.DataFrame(frame)
        if isinstance(frame.columns, pd.MultiIndex):
            raise DataError(
                f"the columns of the frame are a MultiIndex of {frame.columns.nlevels} levels",
                "name each by one text: frame.columns = ['_'.join(map(str, names)) for names in frame.columns]",
            )
        self.names, self.notes = unique_names(frame.columns)
        columns = {name: frame.iloc[:, index] for index, name in enumerate(self.names)}
        self._piece = _piece(columns, len(frame))

    def holds_floats(self, name: str) -> bool:
        """Whether a column is one of floating-point numbers."""
        return name in self._piece.columns and pa.types.is_floating(self._piece.columns[name].type)

    def pieces(self, names: Sequence[str] | None = None) -> Iterator[Piece]:
        columns, rows, loose = self._piece
        wanted = set(columns if names is None else names)
        kept = {name: column for name, column in columns.items() if name in wanted}
        for start in range(0, rows, PIECE_ROWS):
            sliced = {name: column.slice(start, PIECE_ROWS) for name, column in kept.items()}
            yield Piece(sliced, min(PIECE_ROWS, rows - start), loose)

    def place(self, row: int) -> str:
        return f"row {row + 1}"


def _piece(columns: Mapping[str, Any], rows: int) -> Piece:
    """Columns of Python objects or pandas series as Arrow arrays; mixed ones become text that may stand for numbers."""
    arrays: dict[str, pa.Array] = {}
    loose = []
    for name, values in columns.items():
        try:
            array = pa.array(values, from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
            array = pa.array([as_text(value) for value in values], pa.string())
            loose.append(name)
        arrays[name] = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    return Piece(arrays, rows, loose)


def as_text(value: Any) -> str | None:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return None
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns what a damaged or unreadable file raises into one line that names it."""
    try:
        yield
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, pa.ArrowInvalid) as error:
        raise DataError(f"{path} cannot be read ({first_line(error)})", "is it complete?") from error


def first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
