"""Columns of a table: how their values are read, what they mean, and their values as 64 bits each.

A table is read twice, in pieces. The first pass settles how each column's values are read (its *form*), which needs
the whole column: the ten-millionth row may be the first that is not a number. The second pass converts: numbers,
booleans and dates to float64 with NaN for missing; text to a 64-bit hash, 0 for missing. All columns are then rows
of one uint64 array, which may be larger than memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from papertrial.core.errors import DataError
from papertrial.core.task import Ragged
from papertrial.data.tables.files import NUMBER, Source, as_text

MISSING = (
    *("", "NA", "N/A", "n/a", "na", "#N/A", "<NA>", "nan", "NaN", "NAN", "NaT"),
    *("null", "NULL", "Null", "None", "?", "-"),
)
CATEGORIES = 1000  # kept per column: the most common ones
_COUNTED = 1 << 18  # distinct texts whose counts are held while a column is read
_STRAYS = 0.02  # share of values that may not be numbers in a column of numbers
_FEW = 20  # numbers: a column with no more than this many distinct ones and some text is a column of codes
_DISTINCT = 1 << 20  # distinct values are counted exactly up to here
_EXACT = 2.0**53  # whole numbers beyond this do not fit float64

_LARGEST = float(np.finfo(np.float32).max)  # models are given float32

_BOOLEANS = {"true": 1.0, "false": 0.0, "True": 1.0, "False": 0.0, "TRUE": 1.0, "FALSE": 0.0}
_DATE = r"^\d{4}([-/])\d{1,2}([-/])\d{1,2}([T ]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?$"
_DOTTED = r"^\d{1,2}\.\d{1,2}\.\d{4}( \d{1,2}:\d{2}(:\d{2})?)?$"  # day.month.year; with / or - it might be month first
_COMMA = r"^[+-]?\d*,\d+([eE][+-]?\d+)?$"
_ID_NAME = r"(?i)^(id|index|key|uuid|guid|rowid|row|row[ _.]?(id|nr|num|number|index)|unnamed.*|.*[ _.-]id|id[ _.-].*|.*[a-z]I[dD])$"

_MISSING_SET = pa.array(MISSING)


@dataclass(frozen=True)
class Column:
    """One column of a table.

    type: numeric | categorical | boolean | date | text | id | constant | empty.  form: how its values are held
    (number | boolean | date | text), whatever the type.  missing, unique: counts (unique above a million is an
    estimate).  use: whether a model sees it; why: the reason when it does not, or what was left out when it does.
    categories: of text columns, the most common ones (at most 1000), sorted.
    """

    name: str
    type: str
    form: str
    missing: int
    unique: int
    use: bool = True
    why: str = ""
    categories: tuple[str, ...] = ()

    def unused(self, why: str) -> Column:
        return replace(self, use=False, why=why)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Column:
        return cls(**{**content, "categories": tuple(content["categories"])})


@dataclass
class Sighting:
    """What the first pass has seen of one column."""

    comma_possible: bool = False  # a comma in a number can only be its decimal point
    rows: int = 0  # rows of the pieces that held the column
    values: int = 0
    numbers: int = 0
    commas: int = 0
    booleans: int = 0
    dates: int = 0
    dotted: int = 0
    huge: int = 0
    infinite: int = 0
    few: frozenset[float] = frozenset()
    stray: str = ""
    stray_row: int = -1

    def add(self, array: pa.Array, loose: bool, start: int) -> None:
        """Take in one piece that starts at row `start` of its source."""
        self.rows += len(array)
        kind = native_form(array.type)
        if kind == "number":
            self._add_numbers(to_floats(array, "number"))
        elif kind in ("boolean", "date"):
            count = len(array) - array.null_count
            self.values += count
            setattr(self, f"{kind}s", getattr(self, f"{kind}s") + count)
        else:
            self._add_text(clean_text(array), loose, start)

    def _add_numbers(self, floats: np.ndarray) -> None:
        floats = floats[~np.isnan(floats)]
        self.values += len(floats)
        self.numbers += len(floats)
        infinite = np.abs(floats) > _LARGEST
        self.infinite += int(infinite.sum())
        self.huge += int((np.abs(floats) > _EXACT).sum() - infinite.sum())
        if len(self.few) <= _FEW:
            self.few |= frozenset(pd.unique(floats)[: _FEW + 1].tolist())

    def _add_text(self, text: pa.StringArray, loose: bool, start: int) -> None:
        if loose:
            try:
                return self._add_numbers(to_floats(text, "number", fast_only=True))
            except pa.ArrowInvalid:
                pass
        numeric = matches(text, NUMBER)
        others = np.flatnonzero(_mask(pc.and_(text.is_valid(), pc.invert(numeric))))
        if self.stray_row < 0 and len(others):
            self.stray, self.stray_row = text[int(others[0])].as_py(), start + int(others[0])
        if loose:
            self._add_numbers(to_floats(text.filter(numeric), "number"))
            text = text.filter(pc.invert(numeric))
        counted = text.drop_null().value_counts()
        texts, counts = counted.field("values"), counted.field("counts").to_numpy()
        self.values += int(counts.sum())
        if self.comma_possible:
            self.commas += int(counts[_mask(matches(texts, _COMMA))].sum())
        self.booleans += int(counts[_mask(pc.is_in(texts, pa.array(list(_BOOLEANS))))].sum())
        dotted = matches(texts, _DOTTED)
        dated = pc.or_(matches(texts, _DATE), dotted)
        if dated.true_count:
            self.dates += int(counts[_mask(dated)][~np.isnan(_days(texts.filter(dated)))].sum())
            self.dotted += int(counts[_mask(dotted)].sum())

    @property
    def form(self) -> str:
        """How the column's values are read: number | comma | boolean | date | text (comma: 3,14)."""
        strays = self.values - self.numbers
        if strays == 0:
            return "number"
        if self.booleans == self.values:
            return "boolean"
        if self.dates == self.values:
            return "date"
        if self.commas and self.numbers + self.commas == self.values:
            return "comma"
        if strays <= _STRAYS * self.values and len(self.few) > _FEW:
            return "number"
        return "text"


def native_form(type_: pa.DataType) -> str:
    """number | boolean | date | text, for an Arrow type."""
    if pa.types.is_dictionary(type_):
        return "text"
    if (
        pa.types.is_integer(type_)
        or pa.types.is_floating(type_)
        or pa.types.is_decimal(type_)
        or pa.types.is_null(type_)
    ):
        return "number"
    if pa.types.is_boolean(type_):
        return "boolean"
    return "date" if pa.types.is_date(type_) or pa.types.is_timestamp(type_) else "text"


def clean_text(array: pa.Array) -> pa.StringArray:
    """Any Arrow array as text without blanks around it, null where a marker stands for a missing value."""
    type_ = array.type
    if pa.types.is_dictionary(type_):
        array = array.cast(type_.value_type)
        type_ = type_.value_type
    if pa.types.is_floating(type_):
        floats = to_floats(array, "number")
        whole = np.isnan(floats) | ((floats == np.floor(floats)) & (np.abs(floats) < _EXACT))
        array = pc.cast(pa.array(floats, from_pandas=True), pa.int64()) if whole.all() else array
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        try:
            array = array.cast(pa.string())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            array = pa.array([as_text(value) for value in array.to_pylist()], pa.string())
    array = pc.ascii_trim_whitespace(array.cast(pa.string()))
    return pc.if_else(pc.is_in(array, _MISSING_SET), pa.scalar(None, pa.string()), array)


def matches(text: pa.StringArray, pattern: str) -> pa.BooleanArray:
    return pc.fill_null(pc.match_substring_regex(text, pattern), False)


def _mask(truths: pa.BooleanArray) -> np.ndarray:
    return truths.to_numpy(zero_copy_only=False)


def to_floats(array: pa.Array, form: str, *, fast_only: bool = False) -> np.ndarray:
    """Values of a piece as float64, NaN for missing and for what `form` (see Sighting.form) cannot read.

    Raises pyarrow.ArrowInvalid with `fast_only` when some text is not a number.
    """
    native = native_form(array.type)
    if native == "number" or native == "boolean":
        return array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    if native == "date":
        micros = array.cast(pa.timestamp("us"), safe=False)
        return _micros_to_days(micros.to_numpy(zero_copy_only=False))
    text = array if fast_only else clean_text(array)
    if form in ("boolean", "date"):
        coded = text.dictionary_encode()
        known = _days(coded.dictionary) if form == "date" else _truths(coded.dictionary)
        codes = coded.indices.fill_null(len(known)).to_numpy(zero_copy_only=False)
        return np.append(known, np.nan)[codes]
    if form == "comma":
        text = pc.replace_substring(text, ",", ".")
    try:
        numbers = text.cast(pa.float64())
    except pa.ArrowInvalid:
        if fast_only:
            raise
        numbers = pc.if_else(matches(text, NUMBER), text, pa.scalar(None, pa.string())).cast(pa.float64())
    return numbers.to_numpy(zero_copy_only=False)


def _truths(text: pa.StringArray) -> np.ndarray:
    return np.array([_BOOLEANS.get(value, np.nan) for value in text.to_pylist()], dtype=np.float64)


def _days(text: pa.StringArray) -> np.ndarray:
    """ISO dates and times, and day.month.year, as days since 1970 (UTC), NaN where there is no such day."""
    for pattern, turned in (
        (r"^(\d)\.", r"0\1."),
        (r"^(\d\d)\.(\d)\.", r"\1.0\2."),
        (r"^(\d\d)\.(\d\d)\.(\d{4})", r"\3-\2-\1"),
    ):
        text = pc.replace_substring_regex(text, pattern, turned)
    series = pd.Series(pc.replace_substring(text, "/", "-").to_pandas(), dtype=object)
    return _micros_to_days(
        pd.to_datetime(series, errors="coerce", format="ISO8601", utc=True).dt.tz_localize(None).to_numpy()
    )


def _micros_to_days(times: np.ndarray) -> np.ndarray:
    micros = times.astype("datetime64[us]")
    return np.where(np.isnat(micros), np.nan, micros.astype(np.int64) / 86_400e6)


def hash_text(values: Iterable[str]) -> np.ndarray:
    """uint64 per string, the same in every process; never 0, which means missing."""
    objects = np.fromiter(values, dtype=object)
    return (
        np.maximum(pd.util.hash_array(objects, categorize=False), np.uint64(1))
        if len(objects)
        else np.empty(0, np.uint64)
    )


class Texts:
    """Counts of the distinct texts of one column, the commonest kept when there are very many."""

    def __init__(self) -> None:
        self._parts: list[pa.Table] = []
        self._pending = 0

    def add(self, text: pa.StringArray) -> np.ndarray:
        """Count a piece; its hashes, 0 for missing."""
        coded = text.dictionary_encode()
        known = hash_text(coded.dictionary.to_pylist())
        codes = coded.indices.fill_null(len(known)).to_numpy(zero_copy_only=False)
        counts = np.bincount(codes, minlength=len(known) + 1)[: len(known)]
        self._parts.append(pa.table({"text": coded.dictionary, "count": counts}))
        self._pending += len(known)
        if self._pending > 4 * _COUNTED:
            self._parts = [self._merged(_COUNTED)]
            self._pending = self._parts[0].num_rows
        return np.append(known, np.uint64(0))[codes]

    def _merged(self, most: int) -> pa.Table:
        table = pa.concat_tables(self._parts).group_by("text").aggregate([("count", "sum")])
        table = table.rename_columns(["text", "count"])
        order = [("count", "descending"), ("text", "ascending")]
        return (
            table.take(pc.select_k_unstable(table, min(most, table.num_rows), order))
            if table.num_rows > most
            else table
        )

    def summary(self) -> tuple[tuple[str, ...], float]:
        """The commonest texts, sorted, and the mean length over the rows counted."""
        if not self._pending:
            return (), 0.0
        table = self._merged(_COUNTED)
        lengths = pc.utf8_length(table["text"]).to_numpy()
        counts = table["count"].to_numpy()
        self._parts = [table]
        return tuple(sorted(self._merged(CATEGORIES)["text"].to_pylist())), float(lengths @ counts / counts.sum())


def see(sources: Sequence[Source], note: Callable[[str], None]) -> tuple[dict[str, str], list[int], dict[str, int]]:
    """First pass: the form of each column, the rows of each source, and the rows in which each column is there at all."""
    seen: dict[str, list[Sighting]] = {}
    rows = []
    for index, source in enumerate(sources):
        start = 0
        for columns, count, loose in source.pieces():
            for name, array in columns.items():
                sightings = seen.setdefault(name, [])
                while len(sightings) <= index:
                    sightings.append(Sighting(comma_possible=source.delimiter in (";", "\t", "|")))
                sightings[index].add(array, name in loose, start)
            start += count
        rows.append(start)
    forms = {}
    for name, sightings in seen.items():
        total = _sum(sightings)
        forms[name] = total.form
        _tell(name, total, sightings, sources, note)
    return forms, rows, {name: sum(one.rows for one in sightings) for name, sightings in seen.items()}


def _sum(sightings: Sequence[Sighting]) -> Sighting:
    total = Sighting(few=frozenset().union(*(one.few for one in sightings)))
    for count in ("rows", "values", "numbers", "commas", "booleans", "dates", "dotted", "huge", "infinite"):
        setattr(total, count, sum(getattr(one, count) for one in sightings))
    return total


def _tell(
    name: str, total: Sighting, sightings: Sequence[Sighting], sources: Sequence[Source], note: Callable[[str], None]
) -> None:
    """Say what reading a column as numbers loses."""
    if total.form == "comma":
        note(f"column {name!r}: numbers are written with a decimal comma")
    if total.form == "date" and total.dotted:
        note(f"column {name!r}: dates are read as day.month.year")
    if total.form != "number":
        return
    strays = total.values - total.numbers
    if strays:
        verb = "is not a number and counts" if strays == 1 else "are not numbers and count"
        first = next(
            (
                f"; the first is {one.stray!r} ({source.place(one.stray_row)})"
                for one, source in zip(sightings, sources, strict=False)
                if one.stray_row >= 0
            ),
            "",
        )
        note(f"column {name!r}: {strays} of {total.values} values {verb} as missing{first}")
    if total.infinite:
        note(f"column {name!r}: {total.infinite} values are infinite or beyond 3e38 and count as missing")
    if total.huge:
        note(f"column {name!r}: {total.huge} whole numbers above 2^53 are rounded")


def convert(sources: Sequence[Source], forms: dict[str, str], array: np.ndarray) -> dict[str, Texts]:
    """Second pass: fill `array` uint64 (columns, rows), float64 bits or text hashes, one row per entry of `forms`.

    Returns the counted texts of the text columns.
    """
    texts = {name: Texts() for name, form in forms.items() if form == "text"}
    absent = np.float64(np.nan).view(np.uint64)
    start = 0
    for source in sources:
        for columns, count, _ in source.pieces(list(forms)):
            for index, (name, form) in enumerate(forms.items()):
                if name not in columns:
                    array[index, start : start + count] = 0 if form == "text" else absent
                elif form == "text":
                    array[index, start : start + count] = texts[name].add(clean_text(columns[name]))
                else:
                    floats = to_floats(columns[name], form)
                    floats = np.where(
                        np.abs(floats) <= _LARGEST, floats + 0.0, np.nan
                    )  # + 0.0: one zero, so that equal rows have equal bits
                    array[index, start : start + count] = floats.view(np.uint64)
            start += count
    return texts


def reread_numbers(sources: Sequence[Source], name: str, rows: int) -> np.ndarray:
    """A text column as float64 all the same (numbers stored as text, or mostly dates or booleans), NaN for missing.

    Raises DataError with the first value that cannot be read so.
    """
    sighting = Sighting()
    for source in sources:
        for columns, _, _ in source.pieces([name]):
            if name in columns:
                sighting.add(columns[name], True, 0)
    counts = {"number": sighting.numbers, "date": sighting.dates, "boolean": sighting.booleans}
    form = max(counts, key=lambda key: counts[key])
    parts = []
    for source in sources:
        start = 0
        for columns, count, _ in source.pieces([name]):
            if name not in columns:
                parts.append(np.full(count, np.nan))
                continue
            text = clean_text(columns[name])
            floats = to_floats(text, form)
            bad = np.flatnonzero(np.isnan(floats) & _mask(text.is_valid()))
            if len(bad):
                expected = {"number": "numbers", "date": "dates", "boolean": "true and false"}[form]
                raise DataError(
                    f"column {name!r}: {text[int(bad[0])].as_py()!r} ({source.place(start + int(bad[0]))}), text where {expected} are expected",
                    "mend or empty that value",
                )
            parts.append(np.where(np.abs(floats) <= _LARGEST, floats, np.nan))
            start += count
    return np.concatenate(parts)


def read_texts(sources: Sequence[Source], names: Sequence[str]) -> list[Ragged]:
    """Columns as UTF-8, row after row over the sources; nothing is trimmed, and what is missing is empty."""
    values: list[list[np.ndarray]] = [[] for _ in names]
    lengths: list[list[np.ndarray]] = [[] for _ in names]
    for source in sources:
        for columns, count, _ in source.pieces(names):
            for index, name in enumerate(names):
                held = _large_text(columns.get(name, pa.nulls(count, pa.large_string())))
                _, marks, content = held.buffers()
                offsets = np.frombuffer(marks, np.int64)[held.offset : held.offset + count + 1]
                whole = np.frombuffer(content or b"", np.uint8)
                values[index].append(whole[offsets[0] : offsets[-1]])
                lengths[index].append(np.diff(offsets))
    return [
        Ragged(np.concatenate(parts), np.concatenate([[0], np.cumsum(np.concatenate(sizes))]))
        for parts, sizes in zip(values, lengths, strict=True)
    ]


def _large_text(array: pa.Array) -> pa.LargeStringArray:
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    try:
        text = array.cast(pa.large_string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        text = pa.array([as_text(value) for value in array.to_pylist()], pa.large_string())
    return pc.fill_null(text, "")


def distinct(bits: np.ndarray, missing: int) -> int:
    """How many distinct values a row of the array holds, missing ones left out; beyond a million, an estimate."""
    seen = np.empty(0, np.uint64)
    for start in range(0, len(bits), _DISTINCT):
        seen = pd.unique(np.concatenate([seen, pd.unique(bits[start : start + _DISTINCT])]))
        if len(seen) > _DISTINCT and start + _DISTINCT < len(bits):
            return round(len(seen) * len(bits) / (start + _DISTINCT))
    return len(seen) - (missing > 0)


def describe(name: str, form: str, bits: np.ndarray, texts: Texts | None) -> Column:
    """Settle what a column means, from its converted values."""
    rows = len(bits)
    missing = (
        int(np.count_nonzero(bits == 0)) if form == "text" else int(np.count_nonzero(np.isnan(bits.view(np.float64))))
    )
    unique = distinct(bits, missing)
    form = "number" if form == "comma" else form
    categories, length = texts.summary() if texts else ((), 0.0)
    column = Column(name, _TYPES[form], form, missing, unique, categories=categories)
    values = rows - missing
    if values == 0:
        return replace(column.unused("every value is missing"), type="empty")
    if unique == 1 and rows > 1:
        return replace(
            column.unused("always the same value" if not missing else "one value, or missing"), type="constant"
        )
    named = re.match(_ID_NAME, name) is not None
    if form == "number" and unique == values == rows and rows >= 10:
        floats = bits.view(np.float64)
        if named and bool((floats == np.floor(floats)).all()):
            return replace(column.unused("a different whole number in every row, named like an id"), type="id")
        if floats[0] in (0.0, 1.0) and bool((np.diff(floats) == 1.0).all()):
            return replace(column.unused("counts the rows"), type="id")
    if form == "text" and values >= 10:
        if length >= 30 and unique > 0.5 * values:
            return replace(
                column.unused(f"free text: {unique} different values, {length:.0f} letters on average"), type="text"
            )
        if unique == values or (named and unique > 0.9 * values):
            return replace(column.unused("a different text in every row"), type="id")
        if unique > CATEGORIES:
            return replace(
                column,
                why=f"{unique} categories; the {len(categories)} most common are kept, the others count as unseen",
            )
    return column


_TYPES = {"number": "numeric", "boolean": "boolean", "date": "date", "text": "categorical"}
