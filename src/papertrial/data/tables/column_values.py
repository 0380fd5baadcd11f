"""Columns of a table: what is seen of them in a first pass, what they mean, and their values as numbers or hashes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from papertrial.data.tables import written
from papertrial.data.tables.files import as_text
from papertrial.data.tables.written import DOTTED, FEW, ISO, LIKELY, NUMBER, STRAYS, mask, matches

CATEGORIES = 1000  # kept per column: the most common ones
_COUNTED = 1 << 18  # distinct texts whose counts are held while a column is read
_DISTINCT = 1 << 20  # distinct values are counted exactly up to here
_EXACT = 2.0**53  # whole numbers beyond this do not fit float64
_FLOAT = 300  # digits that a float64 surely holds, rounded; Python reads no more than 4300
_HEAD = 2000  # values by which a column is told from one that needs a closer look
_CLOSER = 0.5  # share of values that look like numbers, dates or times in a column of text that is looked at closer

LARGEST = float(np.finfo(np.float32).max)  # models are given float32

_BOOLEANS = ("true", "false", "True", "False", "TRUE", "FALSE")
_ZEROS = r"^[+-]?0\d+$"
_DIGITS = r"^[+-]?\d{16,}$"
_ID_NAME = r"(?i)^(id|index|key|uuid|guid|rowid|row|row[ _.]?(id|nr|num|number|index)|unnamed.*|.*[ _.-]id|id[ _.-].*|.*[a-z]I[dD])$"


@dataclass(frozen=True)
class Column:
    """One column of a table.

    type: numeric | categorical | boolean | date | checkbox | text | id | constant | empty.  form: how its values are held
    (number | boolean | date | text), whatever the type.  A checkbox has one value or none, and which of these says it all.
    missing, unique: counts (unique above a million is an estimate).  use: whether a model sees it; why: the reason when it
    does not, or what was left out when it does.
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

    rows: int = 0  # rows of the pieces that held the column
    values: int = 0
    numbers: int = 0
    booleans: int = 0
    dates: int = 0
    dotted: int = 0
    likely: int = 0  # texts that begin as numbers, dates or times do
    huge: int = 0
    lossy: int = 0  # whole numbers that float64 does not hold
    infinite: int = 0
    zeros: int = 0  # whole numbers that begin with a zero
    shortest: int = 1 << 30  # letters of a number
    longest: int = 0
    loose: bool = False
    grouped: bool = True  # whether all numbers seen may be thousands with a dot
    few: frozenset[float] = frozenset()
    marks: Counter[str] = field(default_factory=Counter)  # what was taken for missing

    def add(self, array: pa.Array, loose: bool, marks: pa.Array) -> None:
        """Take in one piece. marks: texts that stand for a missing value."""
        self.rows += len(array)
        self.loose |= loose
        kind = native_form(array.type)
        if kind == "number":
            self.grouped = False
            floats = to_floats(array, "number")
            self._add_numbers(floats)
            if pa.types.is_integer(array.type) or pa.types.is_decimal(array.type):
                self.lossy += _lossy(array, floats)
        elif kind in ("boolean", "date"):
            count = len(array) - array.null_count
            self.values += count
            setattr(self, f"{kind}s", getattr(self, f"{kind}s") + count)
        else:
            raw = trimmed(array)
            text = without(raw, marks)
            if text.null_count > raw.null_count:
                taken = raw.filter(pc.and_(text.is_null(), pc.not_equal(pc.fill_null(raw, ""), ""))).value_counts()
                self.marks.update(
                    dict(zip(taken.field("values").to_pylist(), taken.field("counts").to_pylist(), strict=True))
                )
            self._add_text(text, loose)

    def _add_numbers(self, floats: np.ndarray) -> None:
        floats = floats[~np.isnan(floats)]
        self.values += len(floats)
        self.numbers += len(floats)
        infinite = np.abs(floats) > LARGEST
        self.infinite += int(infinite.sum())
        self.huge += int((np.abs(floats) > _EXACT).sum() - infinite.sum())
        if len(self.few) <= FEW:
            self.few |= frozenset(pd.unique(floats)[: FEW + 1].tolist())

    def _add_text(self, text: pa.StringArray, loose: bool) -> None:
        if loose:
            try:
                floats = to_floats(text, "number", fast_only=True)
            except pa.ArrowInvalid:
                pass
            else:
                return self._add_spelled(text, floats)
        numeric = matches(text, NUMBER)
        if loose:
            numbers = text.filter(numeric)
            self._add_spelled(numbers, to_floats(numbers, "number"))
            text = text.filter(pc.invert(numeric))
        counted = text.drop_null().value_counts()
        texts, counts = counted.field("values"), counted.field("counts").to_numpy()
        self.values += int(counts.sum())
        self.booleans += int(counts[mask(pc.is_in(texts, pa.array(_BOOLEANS)))].sum())
        likely = matches(texts, LIKELY)
        self.likely += int(counts[mask(likely)].sum())
        dotted = matches(texts, DOTTED)
        dated = pc.or_(matches(texts, ISO), dotted)
        if dated.true_count:
            self.dates += int(counts[mask(dated)][~np.isnan(written.days(texts.filter(dated)))].sum())
            self.dotted += int(counts[mask(dotted)].sum())

    def _add_spelled(self, text: pa.StringArray, floats: np.ndarray) -> None:
        """Numbers, and what their digits tell beside their value."""
        self._add_numbers(floats)
        held = pc.starts_with(text, "0")
        if held.true_count:
            self.zeros += matches(text.filter(pc.fill_null(held, False)), _ZEROS).true_count
        bounds = pc.min_max(pc.binary_length(text)).as_py()
        if bounds["max"] is not None:
            self.shortest, self.longest = min(self.shortest, bounds["min"]), max(self.longest, bounds["max"])
        if self.longest > 15 and np.nanmax(np.abs(floats), initial=0) > _EXACT:
            digits = text.filter(matches(text, _DIGITS)).to_pylist()
            self.lossy += sum(len(one) > _FLOAT or int(one) != int(float(one)) for one in digits)
        if self.grouped:
            self.grouped = _may_be_thousands(floats[:_HEAD]) and _may_be_thousands(floats)

    @property
    def form(self) -> str:
        """How the column's values are read, as far as that can be told without a closer look: number | boolean | date | text."""
        strays = self.values - self.numbers
        if strays == 0:
            return "text" if self.is_codes or self.lossy else "number"
        if self.booleans == self.values or (self.booleans + self.numbers == self.values and self.few <= {0.0, 1.0}):
            return "boolean"
        if self.dates == self.values:
            return "date"
        if strays <= STRAYS * self.values and len(self.few) > FEW and not self.is_codes and not self.lossy:
            return "number"
        return "text"

    @property
    def is_codes(self) -> bool:
        """Whether numbers begin with zeros as postcodes do."""
        return self.zeros > STRAYS * self.numbers or (self.zeros > 0 and self.shortest == self.longest)

    @property
    def needs_a_closer_look(self) -> bool:
        if self.is_codes or self.lossy:
            return False
        if self.form == "number":
            return self.grouped and self.loose and any(value != int(value) for value in self.few)
        seen = self.numbers + self.likely
        return self.form == "text" and self.likely + self.loose > 0 and seen >= max(_CLOSER * self.values, 1)


def _may_be_thousands(floats: np.ndarray) -> bool:
    """Whether numbers can have been written as 1.234 for 1234: below a thousand, and three digits behind every point."""
    known = floats[~np.isnan(floats)]
    size = np.abs(known)
    if not len(size) or size.max() >= 1000:
        return not len(size)
    broken = size[size != np.floor(size)]
    if not len(broken):
        return True
    spelled = np.abs(broken * 1000 - np.round(broken * 1000)) < 1e-6
    shorter = np.abs(broken * 100 - np.round(broken * 100)) < 1e-6
    return bool(broken.min() >= 1 and spelled.all() and shorter.mean() < 0.5)


def _lossy(array: pa.Array, floats: np.ndarray) -> int:
    """How many whole numbers float64 does not hold."""
    rows = np.flatnonzero(np.abs(floats) > _EXACT)
    values = array.take(pa.array(rows)).to_pylist()
    return sum(int(value) != int(float(value)) for value in values)


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


def clean_text(array: pa.Array, marks: pa.Array) -> pa.StringArray:
    """Any Arrow array as text without blanks around it, null where one of the marks stands for a missing value."""
    return without(trimmed(array), marks)


def trimmed(array: pa.Array) -> pa.StringArray:
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
    return pc.utf8_trim_whitespace(array.cast(pa.string()))


def without(text: pa.StringArray, marks: pa.Array) -> pa.StringArray:
    return pc.if_else(pc.is_in(text, marks), pa.scalar(None, pa.string()), text)


def to_floats(array: pa.Array, form: str, *, marks: pa.Array | None = None, fast_only: bool = False) -> np.ndarray:
    """Values of a piece as float64, NaN for missing and for what `form` (see `written`) cannot read.

    Raises pyarrow.ArrowInvalid with `fast_only` when some text is not a number.
    """
    native = native_form(array.type)
    if native == "number" or native == "boolean":
        return array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    if native == "date":
        micros = array.cast(pa.timestamp("us"), safe=False)
        return written.micros_to_days(micros.to_numpy(zero_copy_only=False))
    text = array if marks is None else clean_text(array, marks)
    if form not in ("number", "comma"):
        coded = text.dictionary_encode()
        known = written.read(coded.dictionary, form)
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
    form = held_as(form)
    categories, length = texts.summary() if texts else ((), 0.0)
    column = Column(name, _TYPES[form], form, missing, unique, categories=categories)
    values = rows - missing
    if values == 0:
        return replace(column.unused("every value is missing"), type="empty")
    if unique == 1 and rows > 1:
        return (
            replace(column, type="checkbox")
            if missing
            else replace(column.unused("always the same value"), type="constant")
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


def held_as(form: str) -> str:
    """number | boolean | date | text, by the form in which values are written."""
    kind = form.partition(" ")[0]
    return kind if kind in _TYPES else "number"


_TYPES = {"number": "numeric", "boolean": "boolean", "date": "date", "text": "categorical"}
