"""Labels of images in tables beside them, as competitions hand them out: labels.csv or train.csv with a column that names the
files, with or without their ending, and one of labels; or a column of zeros and ones for each class.

    images/0001.jpg   labels.csv: filename,label        train/0a1f.jpg   train.csv: id,breed

Which column names the files is seen by its values. What a table names and is not there, and what it does not name, is told.
"""

from __future__ import annotations

import csv
import io
import posixpath
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from papertrial.core.errors import DataError, did_you_mean
from papertrial.core.files import parse_json
from papertrial.core.wording import counted
from papertrial.data import textfiles
from papertrial.data.images import captions
from papertrial.data.images.captions import Place, Written, kind_of
from papertrial.data.images.decode import EXTENSIONS

_TABLES = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson")
#: what a column of labels may be called, the likeliest first
_LABEL = (
    "label",
    "labels",
    "class",
    "class_name",
    "category",
    "target",
    "species",
    "breed",
    "diagnosis",
    "cls",
    "tag",
)
_FORM = "sample_sub"  # what the name of a form for answers begins with; its labels are made up
_HALF = 0.5  # share of the rows that name an image here, from which a table is about the images
_SEEN = 200  # rows by which that is judged first
_NAMED = 5  # columns named in a note


@dataclass
class Labels:
    """By image: the words of the labels, "" where there is none, and int8 parts of the split, where the tables say.

    matched: bool (N,), the images that are named.  column: of the labels.  notes: lines worth saying.  files: how many tables.
    """

    words: list[str]
    part: np.ndarray | None
    matched: np.ndarray
    column: str
    notes: list[str]
    files: int


@dataclass
class _Table:
    name: str
    columns: list[str]
    rows: list[list[str]]
    file: int  # the column that names files


def find(
    names: Sequence[str],
    places: Iterable[Place],
    note: Callable[[str], None],
    target: str | None = None,
    likely: str | None = None,
) -> Labels | None:
    """The labels that tables beside the images `names` give them; None where no table is about them.

    target: the column of labels.  likely: one that is taken where it is there. Raises DataError where no table about the images has such a column.
    """
    known = captions.Rows(names)
    for place in places:
        tables = [table for name in place.beside if (table := _read(place, name, known, note))]
        if tables:
            return _labels(names, tables, known, note, target, likely)
    if target is not None:
        raise DataError(
            f"no table beside these images names them, so there is no column {target!r}", "leave the target out"
        )
    return None


def told(names: Sequence[str], places: Iterable[Place], column: str) -> list[str] | None:
    """What tables about the images `names` say of each in a column, "" where they say nothing; None where no table that names
    images has the column."""
    known, wanted = captions.Rows(names), column.strip().lower()
    for place in places:
        found: list[str] = [""] * len(names)
        tables = [table for name in place.beside if (table := _read(place, name, known, lambda line: None))]
        for table in (table for table in tables if wanted in table.columns):
            at = table.columns.index(wanted)
            for row in table.rows:
                image = known.of(table.name, row[table.file])
                if image is not None and image >= 0:
                    found[image] = found[image] or row[at]
        if any(found):
            return found
    return None


def _labels(
    names: Sequence[str],
    tables: list[_Table],
    known: captions.Rows,
    note: Callable[[str], None],
    target: str | None,
    likely: str | None,
) -> Labels | None:
    first = max(tables, key=lambda table: len(table.rows))
    if target is None and likely is not None and likely.strip().lower() in first.columns:
        target = likely
    column = _column(first, note, target)
    if column is None:
        return None
    alike = [table for table in tables if column == _ONE_HOT or column in table.columns]
    written = []
    for table in alike:
        labels: dict[str, str] = {}
        several = 0
        for row in table.rows:
            label = _hot(table, row) if column == _ONE_HOT else row[table.columns.index(column)]
            several += bool(label) and labels.get(row[table.file], label) != label
            if label:
                labels.setdefault(row[table.file], label)
        if several:
            note(
                f"{table.name}: {counted(several, 'row')} with another label of an image that has one: the first is used"
            )
        written.append(Written(table.name, labels=labels))
    found = captions.match(names, written)
    if found is None:
        return None
    what = "the column that is 1" if column == _ONE_HOT else f"column {column!r}"
    others = [name for name in first.columns if name not in (column, first.columns[first.file])]
    more = f"; other columns: {', '.join(others[:_NAMED])}{', ...' if others[_NAMED:] else ''}, choose with --target"
    notes = [f"labels from {', '.join(table.name for table in alike[:_NAMED])}, {what}"]
    notes[0] += more if others and column != _ONE_HOT else ""
    parts = [textfiles.part_of(posixpath.splitext(table.name)[0]) for table in alike]
    part = None
    if 0 in parts and (1 in parts or 2 in parts) and None not in parts:
        part = np.zeros(len(names), np.int8)
        for table, said in zip(alike, parts, strict=True):
            rows = [known.of(table.name, row[table.file]) for row in table.rows]
            part[[row for row in rows if row is not None and row >= 0]] = 0 if said is None else said
    if missing := int((~found.matched).sum()):
        some = [names[row] for row in np.flatnonzero(~found.matched)[:3]]
        notes.append(
            f"{counted(missing, 'image')} that no table gives a label: {', '.join(some)}{', ...' if missing > 3 else ''}"
        )
    words = [label or "" for label in found.labels]
    return Labels(words, part, found.matched, column, [*notes, *found.notes], len(alike))


_ONE_HOT = "\0one hot"


def _column(table: _Table, note: Callable[[str], None], target: str | None) -> str | None:
    """Which column holds the labels; None where none can be told, which `note` hears of."""
    others = [name for number, name in enumerate(table.columns) if number != table.file]
    if target is not None:
        if target.strip().lower() not in others:
            raise DataError(f"{table.name} has no column {target!r}", did_you_mean(target.lower(), others))
        return target.strip().lower()
    if len(others) > 1 and _is_one_hot(table):
        return _ONE_HOT
    named = [name for name in _LABEL if name in others]
    chosen = named[0] if named else others[0] if len(others) == 1 else None
    if chosen is None:
        repeating = [name for name in others if _repeats(table, name)]
        if len(repeating) != 1:
            note(
                f"{table.name} names these images, and its labels may be in {', '.join(others[:_NAMED])}: say with --target "
                "which column is meant"
            )
            return None
        chosen = repeating[0]
    if not _repeats(table, chosen):
        values = len({row[table.columns.index(chosen)] for row in table.rows})
        note(
            f"{table.name}: column {chosen!r} has {values:,} different values in {len(table.rows):,} rows, so they are no classes"
        )
        return None
    return chosen


def _repeats(table: _Table, column: str) -> bool:
    """Whether values of a column come often enough to be classes."""
    at = table.columns.index(column)
    counts = Counter(row[at] for row in table.rows if row[at])
    return 1 <= len(counts) <= max(2, sum(counts.values()) // 2)


def _is_one_hot(table: _Table) -> bool:
    """Whether each row has a 1 in one of the columns besides the file's, and 0 in the others."""
    return bool(table.rows) and all(
        sorted(_number(cell) for number, cell in enumerate(row) if number != table.file)
        == [0.0] * (len(row) - 2) + [1.0]
        for row in table.rows
    )


def _hot(table: _Table, row: list[str]) -> str:
    return next(name for number, name in enumerate(table.columns) if number != table.file and _number(row[number]) == 1)


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return -1.0


# ------------------------------------------------------------------------------------------------------------- reading


def _read(place: Place, name: str, known: captions.Rows, note: Callable[[str], None]) -> _Table | None:
    """A table that names images; None for any other file. `note` hears of one that is about them and cannot be read."""
    if kind_of(name) not in _TABLES:
        return None
    try:
        text = captions.decoded(bytes(textfiles.unpacked(name, place.content(name))))
    except (OSError, EOFError, zlib.error, textfiles.Refused):
        return None  # `captions` says it
    columns, rows = _cells(name, text)
    if len(columns) < 2 or not rows:
        return None
    file = _names_images(name, columns, rows[:_SEEN], known)
    if file is None:
        file = _names_images(name, columns, rows, known)
    if file is None:
        return None
    if posixpath.basename(name).lower().startswith(_FORM):
        note(f"{name} is a form for answers: its labels are not used")
        return None
    if known.of(name, columns[file]) is not None or posixpath.splitext(columns[file])[1].lower() in EXTENSIONS:
        note(f"{name} has no line that names its columns")
        rows, columns = [columns, *rows], [f"column {number}" for number in range(1, len(columns) + 1)]
    columns = [column.lower() for column in columns]
    short = sum(len(row) != len(columns) for row in rows)
    if short:
        note(f"{name}: left out {counted(short, 'row')} with more or fewer cells than there are columns")
    return _Table(name, columns, [row for row in rows if len(row) == len(columns)], file)


def _names_images(name: str, columns: list[str], rows: list[list[str]], known: captions.Rows) -> int | None:
    """The column of which most cells name an image."""
    hits = [
        sum(len(row) > at and bool(row[at]) and known.of(name, row[at]) is not None for row in rows)
        for at in range(len(columns))
    ]
    best = int(np.argmax(hits))
    return best if hits[best] >= _HALF * len(rows) else None


def _cells(name: str, text: str) -> tuple[list[str], list[list[str]]]:
    """The names of the columns, and the rows; blanks at the ends of cells go."""
    if kind_of(name) in (".jsonl", ".ndjson"):
        records = []
        for line in text.splitlines():
            try:
                record = parse_json(line)
            except ValueError:
                continue
            records += [record] if isinstance(record, dict) else []
        columns = list(dict.fromkeys(str(key) for record in records for key in record))
        return [key.strip() for key in columns], [[_plain(record.get(key)) for key in columns] for record in records]
    head = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(",\t;|", key=head.count)
    try:
        rows = [
            [cell.strip() for cell in row]
            for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
            if row
        ]
    except csv.Error:
        return [], []
    return (rows[0], rows[1:]) if rows else ([], [])


def _plain(value: object) -> str:
    return " ".join(str(value).split()) if isinstance(value, str | int | float) else ""
