"""A table is read twice, in pieces.

The first pass settles how each column's values are read (its *form*, see `written`), which needs the whole column: the
ten-millionth row may be the first that is not a number. The second pass converts: numbers, booleans, dates and times to
float64 with NaN for missing; text to a 64-bit hash, 0 for missing. All columns are then rows of one uint64 array, which may be
larger than memory. Columns that seem to hold numbers, dates or times, but none that all could read, are looked at once more
in between.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from papertrial.core.errors import DataError
from papertrial.core.task import Ragged
from papertrial.core.wording import counted
from papertrial.data.tables import written
from papertrial.data.tables.column_values import (
    LARGEST,
    Sighting,
    Texts,
    clean_text,
    held_as,
    native_form,
    to_floats,
)
from papertrial.data.tables.files import Source, as_text
from papertrial.data.tables.reading import STRONG, WEAK, Reading
from papertrial.data.tables.written import TRUTHS, Writing, mask

_LOST = 1 / 3  # share of values in another form than in training from which new data are refused
_WORDS = {"number": "numbers", "date": "dates", "boolean": "true and false", "hours": "times"}
_ONE = {"number": "a number", "date": "a date", "boolean": "true or false", "hours": "a time"}


@dataclass
class Seen:
    """What the first pass settles: the form of each column, the rows of each source, how many rows have each column at all,
    and the texts that stand for missing in columns of text."""

    forms: dict[str, str]
    rows: list[int]
    present: dict[str, int]
    words: tuple[str, ...]


@dataclass
class Lost:
    """Values of a column that its form does not read, and that are infinite."""

    values: int = 0
    strays: int = 0
    infinite: int = 0
    first: str = ""
    place: str = ""

    def lines(self, name: str, form: str) -> list[str]:
        """What is to be said of it."""
        lines, kind = [], _kind(form)
        if self.strays:
            verb = f"is not {_ONE[kind]} and counts" if self.strays == 1 else f"are not {_WORDS[kind]} and count"
            lines.append(
                f"column {name!r}: {self.strays} of {self.values} values {verb} as missing; the first is {self.first!r} ({self.place})"
            )
        if self.infinite:
            lines.append(f"column {name!r}: {self.infinite} values are infinite or beyond 3e38 and count as missing")
        return lines

    def refuse(self, name: str, form: str) -> None:
        """Raise DataError where so much is lost that the column is another one than in training."""
        if self.strays > _LOST * self.values:
            raise DataError(
                f"column {name!r}: {self.first!r} ({self.place}), text where {_WORDS[_kind(form)]} are expected",
                "mend or empty that value",
            )


def _kind(form: str) -> str:
    return "hours" if form == "hours" else held_as(form)


def see(sources: Sequence[Source], reading: Reading, note: Callable[[str], None]) -> Seen:
    """First pass, and a closer look at columns that need one."""
    seen: dict[str, list[Sighting]] = {}
    rows, marks = [], pa.array(reading.marks)
    for index, source in enumerate(sources):
        start = 0
        for columns, count, loose in source.pieces():
            for name, array in columns.items():
                sightings = seen.setdefault(name, [])
                while len(sightings) <= index:
                    sightings.append(Sighting())
                if name in reading.forms:
                    sightings[index].rows += len(array)
                else:
                    sightings[index].add(array, name in loose, marks)
            start += count
        rows.append(start)
    totals = {name: _sum(sightings) for name, sightings in seen.items()}
    forms = {name: reading.forms.get(name, total.form) for name, total in totals.items()}
    new = {name: total for name, total in totals.items() if name not in reading.forms}
    _settle_closer(
        sources, [name for name, total in new.items() if total.needs_a_closer_look], forms, new, reading, note
    )
    for name, total in new.items():
        _tell(name, total, forms[name], note)
    words = _words(new, forms, reading, note)
    return Seen(forms, rows, {name: total.rows for name, total in totals.items()}, words)


def _sum(sightings: Sequence[Sighting]) -> Sighting:
    total = Sighting(few=frozenset().union(*(one.few for one in sightings)))
    for count in (
        "rows",
        "values",
        "numbers",
        "booleans",
        "dates",
        "dotted",
        "likely",
        "huge",
        "lossy",
        "infinite",
        "zeros",
    ):
        setattr(total, count, sum(getattr(one, count) for one in sightings))
    total.shortest, total.longest = min(one.shortest for one in sightings), max(one.longest for one in sightings)
    total.loose, total.grouped = any(one.loose for one in sightings), all(one.grouped for one in sightings)
    total.marks = sum((one.marks for one in sightings), Counter())
    return total


def _settle_closer(
    sources: Sequence[Source],
    names: Sequence[str],
    forms: dict[str, str],
    totals: Mapping[str, Sighting],
    reading: Reading,
    note: Callable[[str], None],
) -> None:
    """Set the forms of columns that are no plain ones, and say how they are read."""
    if not names:
        return
    marks = pa.array(reading.marks)
    spaced = any(source.delimiter in (";", "\t", "|") for source in sources)
    writings = {name: Writing(spaced) for name in names}
    for source in sources:
        for columns, _, _ in source.pieces(names):
            for name, array in columns.items():
                if native_form(array.type) == "text":
                    writings[name].add(clean_text(array, marks))
    found = {name: writing.settled(reading.dates) for name, writing in writings.items()}
    told = {form.partition(" ")[2]: name for name, (form, _) in found.items() if form in ("date dmy", "date mdy")}
    for name, writing in writings.items():
        form, _ = found[name]
        if form == "?" and len(told) == 1:  # as the other dates of this table
            order, other = next(iter(told.items()))
            form = writing.settled(order)[0]
            note(f"column {name!r}: dates are read {_ORDER[order]}, as those of {other!r} must be")
        if form == "?":
            note(
                f"column {name!r} looks like dates ({writing.shown['either']!r}), day or month first? --dates dmy or --dates mdy;"
                " until then its values are taken as texts"
            )
        if form == "number" and not totals[name].loose:
            form = "text"  # numbers that a typed source holds as text are codes
        forms[name] = "text" if form == "?" else form
        _tell_writing(name, forms[name], writing, note)


_ORDER = {"dmy": "day first", "mdy": "month first"}


def _tell_writing(name: str, form: str, writing: Writing, note: Callable[[str], None]) -> None:
    """Say how a column that is no plain one is read, by an example."""
    kind, _, how = form.partition(" ")
    if kind in ("amount", "hours") or (kind == "number" and "point?" in writing.shown and writing.ambiguous):
        shown = writing.shown.get("number" if kind == "amount" else "point?" if kind == "number" else "hours", "")
        shown = writing.shown.get("point?", shown) if how == "," and writing.ambiguous else shown
        value = float(shown) if kind == "number" else float(written.read(pa.array([shown]), form)[0])
        note(f"column {name!r}: {shown!r} is read as {value:.10g}{' hours' if kind == 'hours' else ''}")
    elif form == "comma":
        note(f"column {name!r}: numbers are written with a decimal comma")
    elif kind == "date" and how:
        note(f"column {name!r}: dates such as {writing.shown['either']!r} are read {_ORDER[how]}")
    elif kind == "date" and "date" in writing.shown:
        shown = writing.shown["date"]
        day = np.datetime64(int(np.floor(written.days(pa.array([shown]))[0])), "D")
        note(f"column {name!r}: dates such as {shown!r} are read as {day}")
    elif kind == "text" and (why := writing.cliff()):
        note(f"column {name!r}: {why}")


def _tell(name: str, total: Sighting, form: str, note: Callable[[str], None]) -> None:
    """Say what is no number though it looks like one."""
    if form == "date" and total.dotted and total.dates == total.values:
        note(f"column {name!r}: dates are read as day.month.year")
    if total.lossy and form == "text":
        note(
            f"column {name!r}: {counted(total.lossy, 'whole number')} above 2^53, which numbers would round: taken as texts"
        )
    elif total.huge and form == "number":
        note(f"column {name!r}: {total.huge} numbers are above 2^53")
    if form == "text" and total.is_codes and not total.lossy:
        note(f"column {name!r}: numbers that begin with a zero are codes, and taken as texts")
    elif total.zeros and form == "number":
        note(f"column {name!r}: {counted(total.zeros, 'value')} that begin with a zero are read as numbers")


def _words(
    totals: Mapping[str, Sighting], forms: Mapping[str, str], reading: Reading, note: Callable[[str], None]
) -> tuple[str, ...]:
    """The texts that stand for missing in columns of text; says what was taken for missing, and what was not."""
    if reading.missing is None:
        among_numbers = {mark for name, total in totals.items() if forms[name] != "text" for mark in total.marks}
        words = reading.words or (*STRONG, *(mark for mark in WEAK if mark in among_numbers))
    else:
        words = reading.marks
    taken, kept = Counter[str](), dict[str, Counter[str]]()
    for name, total in totals.items():
        for mark, count in total.marks.items():
            if forms[name] != "text" or mark in words:
                taken[mark] += count
            else:
                kept.setdefault(mark, Counter())[name] += count
    if taken:
        listed = ", ".join(f"{mark!r} ({counted(count, 'value')})" for mark, count in taken.most_common(6))
        note(f"taken for missing: {listed}{', ...' if len(taken) > 6 else ''}; --missing says otherwise")
    for mark, columns in kept.items():
        named = ", ".join(f"{name!r}" for name, _ in columns.most_common(4)) + (", ..." if len(columns) > 4 else "")
        note(
            f"{mark!r} ({counted(columns.total(), 'value')} in {named}) is taken as a text; --missing {mark!r} for missing"
        )
    return words


@dataclass
class Converted:
    texts: dict[str, Texts] = field(default_factory=dict)
    lost: dict[str, Lost] = field(default_factory=dict)


def convert(
    sources: Sequence[Source],
    forms: Mapping[str, str],
    array: np.ndarray,
    reading: Reading,
    words: Sequence[str] | None = None,
) -> Converted:
    """Second pass: fill `array` uint64 (columns, rows), float64 bits or text hashes, one row per entry of `forms`.

    words: what stands for missing in columns of text.  Returns the counted texts of the text columns, and what was lost.
    """
    made = Converted({name: Texts() for name, form in forms.items() if form == "text"})
    absent = np.float64(np.nan).view(np.uint64)
    marks, own = pa.array(reading.marks), pa.array(STRONG if words is None else words)
    start = 0
    for source in sources:
        begin = start
        for columns, count, _ in source.pieces(list(forms)):
            for index, (name, form) in enumerate(forms.items()):
                rows = slice(start, start + count)
                if name not in columns:
                    array[index, rows] = 0 if form == "text" else absent
                elif form == "text":
                    array[index, rows] = made.texts[name].add(clean_text(columns[name], own))
                else:
                    lost = made.lost.setdefault(name, Lost())
                    floats = _floats(columns[name], form, marks, reading, lost, source, start - begin)
                    array[index, rows] = floats.view(np.uint64)
            start += count
    return made


def _floats(
    column: pa.Array, form: str, marks: pa.Array, reading: Reading, lost: Lost, source: Source, start: int
) -> np.ndarray:
    """A piece as float64 that begins at row `start` of its source."""
    if native_form(column.type) == "text":
        text = clean_text(column, marks)
        floats = to_floats(text, form)
        lost.values += len(text) - text.null_count
        if int(np.isnan(floats).sum()) > text.null_count:
            bad = np.flatnonzero(np.isnan(floats) & mask(text.is_valid()))
            said = text.take(pa.array(bad)).to_pylist()
            if form == "number" and all(word.casefold() in ("true", "false") for word in said):
                floats = floats.copy()
                floats[bad] = [TRUTHS[word.casefold()] for word in said]
            else:
                lost.strays += len(bad)
                if not lost.first:
                    lost.first, lost.place = said[0], source.place(start + int(bad[0]))
    else:
        floats = to_floats(column, form)
        lost.values += int(np.count_nonzero(~np.isnan(floats)))
    small = np.abs(floats) <= LARGEST
    lost.infinite += int(np.count_nonzero(~small & ~np.isnan(floats)))
    floats = np.where(small, floats + 0.0, np.nan)  # + 0.0: one zero, so that equal rows have equal bits
    if reading.numbers and held_as(form) == "number":
        floats[np.isin(floats, reading.numbers)] = np.nan
    return floats


def reread_numbers(sources: Sequence[Source], name: str, rows: int, reading: Reading) -> np.ndarray:
    """A text column as float64 all the same (numbers stored as text, or mostly dates or booleans), NaN for missing.

    Raises DataError with the first value that cannot be read so.
    """
    sighting, marks = Sighting(), pa.array(reading.marks)
    for source in sources:
        for columns, _, _ in source.pieces([name]):
            if name in columns:
                sighting.add(columns[name], True, marks)
    counts = {"number": sighting.numbers, "date": sighting.dates, "boolean": sighting.booleans}
    form = max(counts, key=lambda key: counts[key])
    array = np.empty((1, rows), np.uint64)
    lost = convert(sources, {name: form}, array, reading).lost.get(name, Lost())
    if lost.strays:
        raise DataError(
            f"column {name!r}: {lost.first!r} ({lost.place}), text where {_WORDS[form]} are expected",
            "mend or empty that value",
        )
    return array[0].view(np.float64)


def distinct_texts(sources: Sequence[Source], name: str, words: Sequence[str]) -> list[str]:
    """The different texts of a column, without what stands for missing."""
    marks, found = pa.array(words), set[str]()
    for source in sources:
        for columns, _, _ in source.pieces([name]):
            if name in columns:
                found |= set(clean_text(columns[name], marks).unique().drop_null().to_pylist())
    return sorted(found)


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
