"""Text with a delimiter. How it is cut, what quotes mean in it and whether its first line holds names is decided by all lines."""

from __future__ import annotations

import csv
import io
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from papertrial.core.errors import DataError
from papertrial.core.wording import counted
from papertrial.data.tables import files
from papertrial.data.tables.files import (
    EVEN,
    SUFFIXES,
    Piece,
    first_line,
    open_arrow,
    open_bytes,
    readable,
    unique_names,
)
from papertrial.data.tables.reading import MISSING
from papertrial.data.tables.written import NUMBER

_SENTENCE = 4  # words in a cell that is no name
_ROWS = 3  # rows below the first from which it is told whether it is like them
_SEP = re.compile(r'^"?sep=(.)"?\s*$', re.IGNORECASE)  # what Excel writes and reads in the first line
_YEARS = range(1800, 2200)
_LONG = 10  # lines of one record that are worth saying


def is_header(first: list[str], rows: list[list[str]], names: Sequence[str] = ()) -> bool:
    """Whether the first row names the columns. names: those that the file should have, where they are known.

    It does not when it holds numbers alone; nor when one of its cells is a sentence while another is a number, empty, or a value
    that comes again below (`ham`, and then the message); nor when it holds numbers where numbers are below and no name above
    any, unless these count on (1990, 1991, ...); nor, where no column holds numbers, when most of its cells come again below.
    """
    cells = [cell.strip() for cell in first]
    numbers = [re.match(NUMBER, cell) is not None for cell in cells]
    if names:
        known = sum(cell in names for cell in cells)
        if known or all(re.fullmatch(r"c\d+", name) for name in names):
            return known > 0
    if all(numbers):
        return False
    others = [row for row in rows if len(row) == len(cells) and row != first]  # tables below each other repeat a header
    below = [[row[place].strip() for row in others] for place in range(len(cells))]
    again = [cell != "" and cell in values for cell, values in zip(cells, below, strict=True)]
    if len(cells) > 1 and any(len(cell.split()) >= _SENTENCE for cell in cells):
        return not any(numbers) and not any(again) and all(cells)
    if len(cells) == 1 or len(below[0]) < _ROWS:
        return True
    numeric = [_are_numbers(values) for values in below]
    if any(
        over and cell not in MISSING and not number for over, cell, number in zip(numeric, cells, numbers, strict=True)
    ):
        return True
    among = [place for place, over in enumerate(numeric) if over and numbers[place]]
    if among:
        return _count_on([cells[place] for place in among], [below[place] for place in among])
    return sum(again) < max(2, len(cells) / 2)


def _are_numbers(values: Sequence[str]) -> bool:
    known = [value for value in values if value not in MISSING]
    return len(known) >= _ROWS and sum(re.match(NUMBER, value) is not None for value in known) >= 0.9 * len(known)


def _count_on(cells: Sequence[str], below: Sequence[Sequence[str]]) -> bool:
    """Whether numbers are names: years or numbers that count on, unlike the values below them."""
    if not all(cell.isdigit() for cell in cells):
        return False
    found = [int(cell) for cell in cells]
    if len(found) > 1:
        steps = {later - earlier for earlier, later in pairwise(found)}
        known = len(found) > 2 or steps == {1} or all(one in _YEARS for one in found)
        return len(steps) == 1 and steps.pop() > 0 and known
    return found[0] in _YEARS and not any(value.isdigit() and int(value) in _YEARS for value in below[0])


def _before(rows: list[list[str]]) -> int:
    """How many rows stand before the table: blank ones, and remarks that begin with # and have another number of fields."""
    width = Counter(len(row) for row in rows if row).most_common(1)[0][0]
    return next(
        (at for at, row in enumerate(rows) if row and (len(row) == width or not row[0].lstrip().startswith("#"))),
        next(at for at, row in enumerate(rows) if row),
    )


class CsvFile:
    """Text with a delimiter. Values stay text; quoted values may hold line breaks.

    quoted: whether a value that begins with a quote ends at the next one.
    """

    def __init__(self, path: Path, names: Sequence[str] = ()) -> None:
        """names: of columns that it should have, by which a header is told."""
        self.path = path
        self.key = files.file_key(path)
        self.notes: list[str] = []
        self.quoted, self._spans, self._skipped = True, False, list[int]()
        self.encoding = self._find_encoding()
        self._named = self._separator()
        rows = self._sniff()
        self._before = _before(rows)
        if remarks := [row for row in rows[: self._before] if row]:
            words = self.delimiter.join(remarks[0]).strip()
            self.notes.append(
                f"{self.path.name} begins with {counted(len(remarks), 'line')} of remarks, such as {words[:60]!r}"
            )
        header, below = rows[self._before], [row for row in rows[self._before + 1 :] if row]
        self._headed = is_header(header, below, names)
        if self._headed:
            self.names, notes = unique_names(self._fitting(header, below))
            self.notes += notes
        else:
            self.names = [f"c{index}" for index in range(len(header))]
            self.notes.append(
                f"{path.name} has no header line, to judge by its first one: columns are called c0 to c{len(header) - 1}"
            )
        if not self._spans and len(self.names) > 1:
            self._find_empty_rows(self.delimiter.join(header))

    def _find_encoding(self) -> str:
        """UTF-8 where the whole file is, else what a byte-order mark says, else the Western encodings."""
        with readable(self.path), open_bytes(self.path) as stream:
            start = stream.read(4096)
        if start.startswith((b"\xff\xfe", b"\xfe\xff")):
            self._has_quotes = True
            return "utf-16"
        if b"\0" in start:
            raise DataError(f"{self.path} holds binary data, not text", f"known: {', '.join(SUFFIXES)}")
        for encoding in ("utf-8", "cp1252"):
            self._has_quotes = False
            try:
                with readable(self.path), open_bytes(self.path) as stream:
                    text = io.TextIOWrapper(stream, encoding=encoding, newline="")
                    while piece := text.read(files.PIECE_BYTES):
                        self._has_quotes |= '"' in piece
            except UnicodeDecodeError:
                continue
            if encoding != "utf-8":
                self.notes.append(f"{self.path.name} is not UTF-8; it was read as Windows-1252")
            return encoding
        self._has_quotes = True
        self.notes.append(f"{self.path.name} is not UTF-8; it was read as Latin-1")
        return "latin-1"

    @property
    def _decoding(self) -> str:
        return "utf-8-sig" if self.encoding == "utf-8" else self.encoding

    def _separator(self) -> str:
        """The delimiter that the first line names, as Excel has it; "" where it names none."""
        with readable(self.path), open_bytes(self.path) as stream:
            start = stream.read(64).decode(self._decoding, "ignore")
        found = _SEP.match(start.splitlines()[0].replace("\\t", "\t")) if start else None
        return found[1] if found else ""

    def _records(
        self, delimiter: str, strict: bool = False, quoted: bool | None = None
    ) -> Iterator[tuple[int, list[str]]]:
        """(line on which the record ends, fields) for every record, blank lines included, without the line that names the
        delimiter."""
        bare = not (self.quoted if quoted is None else quoted)
        with readable(self.path), open_bytes(self.path) as stream:
            text = io.TextIOWrapper(stream, encoding=self._decoding, newline="")
            before = 1 if self._named else 0
            if before:
                text.readline()
            reader = csv.reader(
                text, delimiter=delimiter, strict=strict, quoting=csv.QUOTE_NONE if bare else csv.QUOTE_MINIMAL
            )
            for record in reader:
                yield reader.line_num + before, record

    def _lines(self) -> Iterator[pa.StringArray]:
        """All lines in pieces, without their ends; quotes mean nothing here."""
        with readable(self.path), open_bytes(self.path) as stream:
            text, rest = io.TextIOWrapper(stream, encoding=self._decoding), ""
            if self._named:
                text.readline()
            while piece := text.read(files.PIECE_BYTES):
                *lines, rest = (rest + piece).split("\n")
                yield pa.array(lines, pa.string())
            yield pa.array([rest] if rest else [], pa.string())

    # -- how it is cut ------------------------------------------------------------------------------------------

    def _sniff(self) -> list[list[str]]:
        """Set `delimiter` and `quoted`; return the first rows."""
        ways = [files.cut(lambda mark: (record for _, record in self._records(mark, quoted=True)))]
        if self._has_quotes:
            ways.append(files.cut(lambda mark: (record for _, record in self._records(mark, quoted=False))))
        if not ways[0]:
            raise DataError(f"{self.path} holds no rows", "check how it was made")
        scores = {mark: max(way[mark][0] for way in ways if mark in way) for mark in ways[0]}
        best = max(scores, key=lambda mark: scores[mark])
        able = [mark for mark, (share, _) in scores.items() if share >= EVEN]
        self.delimiter = self._named or (self._most_even(able) if len(able) > 1 else best)
        if self._has_quotes:
            self._settle_quotes()
        return [record for _, record in islice(self._records(self.delimiter), 60)]

    def _most_even(self, able: Sequence[str]) -> str:
        """The delimiter that cuts all lines most evenly, of several that cut the first ones so; then into most fields."""
        counts = {mark: Counter[int]() for mark in able}
        for lines in self._lines():
            filled = lines.filter(pc.not_equal(lines, ""))
            for mark, seen in counts.items():
                # what stands in quotes cuts nothing
                bare = pc.replace_substring_regex(filled, '"[^"]*"', "") if self._has_quotes else filled
                found = pc.count_substring(bare, mark).value_counts()
                seen.update(dict(zip(found.field(0).to_pylist(), found.field(1).to_pylist(), strict=True)))

        def score(mark: str) -> tuple[float, int]:
            fields, times = counts[mark].most_common(1)[0]
            return times / counts[mark].total(), fields

        return max(able, key=score)

    def _settle_quotes(self) -> None:
        """Set `quoted`: quotes cut unless they do not close on their line, and all lines are of one width without them."""
        mark = re.escape(self.delimiter)
        value = rf'(?:"(?:[^"]|"")*"|[^"{mark}][^{mark}]*)?'
        whole = rf"^{value}(?:{mark}{value})*\r?$"
        widths, open_lines = set[int](), 0
        for lines in self._lines():
            quotes = lines.filter(pc.match_substring(lines, '"'))
            open_lines += len(quotes) - pc.match_substring_regex(quotes, whole).true_count
            filled = lines.filter(pc.match_substring_regex(lines, r"\S"))
            widths |= set(pc.count_substring(filled, self.delimiter).unique().to_pylist())
        if not open_lines:
            return
        if len(widths) == 1 and widths != {0}:
            self.quoted = False
            self.notes.append(
                f"{self.path.name}: quotes are part of the values ({counted(open_lines, 'line')} with one that does not close):"
                f" without them all lines have {counted(widths.pop() + 1, 'value')}"
            )
            return
        self._spans = True
        end, longest = 0, (0, 0)
        try:
            for line, _ in self._records(self.delimiter):
                longest = max(longest, (line - end, end + 1))
                end = line
        except csv.Error:
            return  # whoever reads it says so
        if longest[0] >= _LONG:
            self.notes.append(
                f"{self.path.name}: one value runs over {longest[0]} lines (from line {longest[1]}); is a quote never closed?"
            )

    def _fitting(self, header: list[str], below: list[list[str]]) -> list[str]:
        """The names, one for each value of the rows where these have one more, or one less, than the header."""
        widths = Counter(map(len, below))
        width = widths.most_common(1)[0][0] if widths else len(header)
        if len(widths) == 1 and width == len(header) + 1:
            if all(not row[-1].strip() for row in below):
                self.notes.append(f"{self.path.name}: lines end in a separator that the header has not")
                return [*header, ""]
            self.notes.append(f"{self.path.name}: the first column has no name in the header and is called 'row'")
            return ["row", *header]
        if len(widths) == 1 and width == len(header) - 1 and not header[-1].strip():
            return header[:-1]
        return header

    def _find_empty_rows(self, header: str) -> None:
        """Note which rows hold nothing but delimiters, and which repeat the header, so that they are left out."""
        nothing = self.delimiter * (len(self.names) - 1)
        if not self._holds([nothing, *([header] if self._headed else [])]):
            return
        row, blank, again = -self._before - self._headed, 0, 0
        for lines in self._lines():
            bare = pc.if_else(pc.equal(lines, nothing), "", lines) if len(lines) else lines
            twice = pc.equal(lines, header) if self._headed else pc.equal(lines, nothing)
            found = pc.or_(pc.and_(pc.equal(bare, ""), pc.not_equal(lines, "")), twice)
            if found.true_count:
                at = np.flatnonzero(found.to_numpy(zero_copy_only=False))
                filled = np.cumsum(pc.not_equal(lines, "").to_numpy(zero_copy_only=False)) - 1
                kind = pc.equal(bare, "").to_numpy(zero_copy_only=False)
                for place in at.tolist():
                    index = row + int(filled[place])
                    if index >= 0:
                        self._skipped.append(index)
                        blank, again = blank + bool(kind[place]), again + (not kind[place])
            row += pc.sum(pc.not_equal(lines, "")).as_py() or 0
        if blank:
            self.notes.append(f"{self.path.name}: left out {counted(blank, 'row')} without any value")
        if again:
            self.notes.append(f"{self.path.name}: left out {counted(again, 'row')} that repeat the header")

    def _holds(self, lines: Sequence[str]) -> bool:
        """Whether any of the lines stands below the first of the file; quick, as it hardly ever does."""
        wanted, rest = [f"\n{line}\n" for line in lines], ""
        keep = max(map(len, wanted))
        with readable(self.path), open_bytes(self.path) as stream:
            text = io.TextIOWrapper(stream, encoding=self._decoding)
            while piece := text.read(files.PIECE_BYTES):
                piece = rest + piece
                if any(line in piece for line in wanted):
                    return True
                rest = piece[-keep:]
        return any(line in rest + "\n" for line in wanted)

    # -- reading ------------------------------------------------------------------------------------------------

    def pieces(self, names: Sequence[str] | None = None) -> Iterator[Piece]:
        wanted = set(self.names if names is None else names)
        kept = [name for name in self.names if name in wanted]
        read = pa.csv.ReadOptions(
            column_names=self.names,
            skip_rows_after_names=self._before + self._headed + bool(self._named),
            block_size=files.PIECE_BYTES,
            encoding="utf8" if self.encoding == "utf-8" else self.encoding,
        )
        parse = pa.csv.ParseOptions(
            delimiter=self.delimiter,
            quote_char='"' if self.quoted else False,
            newlines_in_values=self.quoted,
            ignore_empty_lines=len(self.names) > 1,
        )
        convert = pa.csv.ConvertOptions(column_types={name: pa.string() for name in kept}, include_columns=kept)
        last, start = None, 0
        try:
            with open_arrow(self.path) as stream:
                for batch in pa.csv.open_csv(stream, read, parse, convert):
                    rows = batch.num_rows
                    if rows:
                        last = batch
                        left = self._without_skipped(batch, start)
                        if left.num_rows:
                            yield Piece(dict(zip(kept, left.columns, strict=True)), left.num_rows, kept)
                    start += rows
        except (pa.ArrowInvalid, OSError) as error:
            raise self._explained(error) from error
        if last is not None and any("\n" in (column[-1].as_py() or "") for column in last.columns):
            self._check_quotes()

    def _without_skipped(self, batch: pa.RecordBatch, start: int) -> pa.RecordBatch:
        """A batch that begins at row `start` without the rows that are left out."""
        low, high = (bisect_right(self._skipped, start + end - 1) for end in (0, batch.num_rows))
        if low == high:
            return batch
        kept = np.ones(batch.num_rows, bool)
        kept[np.array(self._skipped[low:high]) - start] = False
        return batch.filter(pa.array(kept))

    def _explained(self, error: Exception) -> DataError:
        """One line for what Arrow refused: the first row with another number of fields, where that is the reason."""
        if "columns" in str(error):
            try:
                for line, record in islice(self._records(self.delimiter), self._before, None):
                    if record and len(record) != len(self.names):
                        return DataError(
                            f"{self.path}, line {line}: {counted(len(record), 'value')}, but there are {counted(len(self.names), 'column')}",
                            "mend that line (a missing delimiter, or a quote that was never closed?)",
                        )
            except csv.Error:
                pass
        if "straddl" in str(error):
            return DataError(
                f"{self.path}: a row is longer than {files.PIECE_BYTES >> 20} MB", "is a quote never closed?"
            )
        return DataError(f"{self.path} cannot be read ({first_line(error)})", "is it complete, and a table?")

    def _check_quotes(self) -> None:
        """A quote that is never closed swallows the rest of the file into one value; Arrow does not mind, we do."""
        closed = 0
        try:
            for line, _ in self._records(self.delimiter, strict=True):
                closed = line
        except csv.Error as error:
            if "unexpected end" in str(error):
                raise DataError(f"{self.path}, line {closed + 1}: a quote is never closed", "mend that line") from None

    def place(self, row: int) -> str:
        """`line 17` of the file for data row `row` (quoted line breaks, blank lines and rows left out counted)."""
        whole = row
        for skipped in self._skipped:
            whole += skipped <= whole
        try:
            records = islice(self._records(self.delimiter), self._before, None)
            filled = (line for line, record in records if record or len(self.names) == 1)
            return f"line {next(islice(filled, whole + self._headed, None))}"
        except (csv.Error, StopIteration):
            return f"row {row + 1}"
