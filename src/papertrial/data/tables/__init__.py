"""Tables: columns with a meaning, a target, parts, and the arrays a task asks for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from papertrial.core.errors import DataError, did_you_mean
from papertrial.core.kind import Kind
from papertrial.core.task import Ragged
from papertrial.core.wording import counted
from papertrial.data.base import Data, Look, cache_folder, cached_array, fingerprint, recall, remember
from papertrial.data.belonging import NONE
from papertrial.data.layout import PARTS
from papertrial.data.tables.alike import merged, respelled
from papertrial.data.tables.belonging import group_column, same_rows
from papertrial.data.tables.classes import class_label, class_name, class_value, label_sets, look_up
from papertrial.data.tables.column_values import CATEGORIES, Column, describe, hash_text
from papertrial.data.tables.files import Frame, Source, source_of
from papertrial.data.tables.folders import files_of_one
from papertrial.data.tables.look import look
from papertrial.data.tables.passes import Converted, Lost, convert, distinct_texts, read_texts, reread_numbers, see
from papertrial.data.tables.reading import Reading
from papertrial.data.tables.row_hashes import combined, spread_over_parts

KIND = Kind(
    name="table",
    data="papertrial.data.tables:Table",
    words="a table",
    opens="papertrial.data.tables.recognise:opens",
    order=50,
    samples={
        "wine": "papertrial.data.toy:wine",
        "iris": "papertrial.data.toy:iris",
        "breast_cancer": "papertrial.data.toy:breast_cancer",
        "diabetes": "papertrial.data.toy:diabetes",
    },
    labelled="a folder per class",
    unsuitable="images",
    shown="papertrial.study.examples:columns",
    meanings="papertrial.data.tables.exported:meanings",
    made_up="papertrial.data.tables.exported:made_up",
)

IN_MEMORY = 256 << 20  # bytes of an array that stays in memory; larger ones are memory-mapped from the cache
_WORTH_KEEPING = (
    32 << 20
)  # bytes of a table from files from which it is: reading a million rows again takes ten seconds
_CACHE_VERSION = 2
_PART_COLUMN = r"(?i)^(split|part|partition|fold|subset|set)$"
_TARGET_NAMES = ("target", "label", "labels", "class", "y", "outcome", "response")
_MOST_CLASSES = 20  # whole numbers are classes up to here ...
_ROWS_PER_CLASS = 5  # ... with this many rows for each on average


class Table(Data):
    """A table read from files or taken from frames and arrays.

    columns: {name: Column} in their order, target and split column included (with `use` False).  target, target_kind:
    the column to predict and `binary` | `multiclass` | `regression`; None without a target, or where it has one value
    only.  rows: how many.  part: int8 (rows,), 0 = train or free, 1 = validation, 2 = test; moved: how many rows were
    put in an earlier part because they equal a row there.  given_split: whether the data came with test rows.
    split_column: the column that says the part.  utf8: whether no file had to be read in an older encoding.
    read_notes: those of `notes` that speak of reading, not of meaning.  reading: how it was to be read.
    """

    kind = "table"
    target_is_column = True
    takes_columns = True

    def __init__(
        self, sources: Sequence[tuple[int, Source]], target: str | None, name: str, reading: Reading | None = None
    ) -> None:
        """`sources`: (part, source) pairs whose rows follow each other. Raises DataError (see `from_file`)."""
        super().__init__(name, "", ())
        self.columns: dict[str, Column] = {}
        self.reading, self._given = reading or Reading(), list(sources)
        self._sources = [source for _, source in sources]
        for source in self._sources:
            for line in source.notes:
                self.note(line)
        self._read()
        self.read_notes = tuple(self.notes)
        self.utf8 = not any(getattr(source, "encoding", "") in ("cp1252", "latin-1") for source in self._sources)
        self._file_parts = np.repeat([part for part, _ in sources], self._source_rows).astype(np.int8)
        self.fingerprint = fingerprint(*self.columns, *self._forms.values(), self._array, self._file_parts)
        self._described, self._asked_target = dict(self.columns), target
        self._settle(None, None)

    def belong(self, group: str | None, time: str | None) -> None:
        """See `Data.belong`; the columns that are named are no inputs of a model."""
        for name in (group, time):
            if name and name != NONE and self.column(name).name == self._asked_target:
                raise DataError(f"column {name!r} is the target", "name another column with --group or --time")
        self.columns, self.notes = dict(self._described), list(self.read_notes)
        for found in ("row_hashes", "copies", "_facts_page"):
            self.__dict__.pop(found, None)
        self._settle(group, time)

    def _settle(self, group: str | None, time: str | None) -> None:
        """Give the columns their parts: groups, times, the split, the target, and inputs."""
        target = self._asked_target
        self._belong(group, time)
        self.split_column = None if self._file_parts.any() else self._find_split_column(target)
        self.target = self._choose_target(target)
        self.target_kind = None if self.target is None else self.kind_of_target(self.target)
        if self.target is not None:
            self.columns[self.target] = self.columns[self.target].unused("the target")
            self._tell_about_target()
        self.part, self.moved = self._settle_parts()
        self.tell_straddling()

    @classmethod
    def from_file(cls, path: Any, target: str | None = None, reading: Reading | None = None) -> Table:
        """A table from a file, a folder, or {part: file}.

        Files: .csv .tsv .txt .json .jsonl (each also .gz, or alone in a .zip) and .parquet. A folder holds one file, files of one table
        in pieces, or train.*, test.* (and valid.*) files. Raises DataError for what cannot be read, an empty table
        or an unknown target, naming the file and the line.
        """
        if isinstance(path, Mapping):
            return cls.from_parts(path, target, reading)
        path = Path(path)
        if path.is_dir():
            return cls.from_folder(path, target, reading=reading)
        return cls([(0, source_of(path, tuple(reading.forms) if reading else ()))], target, path.name, reading)

    @classmethod
    def from_folder(
        cls, folder: Path, target: str | None = None, named: Path | None = None, reading: Reading | None = None
    ) -> Table:
        """A table from the files of a folder: see `tables/folders.py`."""
        chosen = files_of_one(folder, named or folder, tuple(reading.forms) if reading else ())
        return cls(chosen, target, (named or folder).name, reading)

    @classmethod
    def from_frame(
        cls, frame: Any, target: str | None = None, name: str = "table", reading: Reading | None = None
    ) -> Table:
        """A table from a pandas or polars frame, an Arrow table, or what `pandas.DataFrame` accepts."""
        return cls([(0, Frame(frame))], target, name, reading)

    @classmethod
    def from_arrays(cls, X: Any, y: Any = None, names: Iterable[str] | None = None) -> Table:
        """A table from an array (rows, columns) and a target (rows,), which becomes the column `target`.

        Raises DataError when the lengths differ or X has not two dimensions.
        """
        import pandas as pd

        if isinstance(X, pd.DataFrame):
            frame = X.reset_index(drop=True)
        else:
            X = np.asarray(X)
            if X.ndim != 2:
                raise DataError(f"a table has two dimensions, not {X.ndim}", "pass an array of shape (rows, columns)")
            labels = [f"c{index}" for index in range(X.shape[1])] if names is None else list(names)
            if len(labels) != X.shape[1]:
                raise DataError(f"{len(labels)} names for {X.shape[1]} columns", "pass one name per column")
            frame = pd.DataFrame(X, columns=labels).infer_objects()
        if y is None:
            return cls.from_frame(frame)
        if len(y) != len(frame):
            raise DataError(f"X has {len(frame)} rows and y has {len(y)}", "pass one target per row")
        if "target" in frame.columns:
            raise DataError("X has a column called 'target' and y is given too", "rename that column")
        return cls.from_frame(frame.assign(target=np.asarray(y)), "target")

    @classmethod
    def from_parts(cls, parts: Mapping[str, Any], target: str | None = None, reading: Reading | None = None) -> Table:
        """A table from {"train": ..., "test": ...} (also "valid"): each a file or a frame."""
        sources = []
        for key, content in parts.items():
            if str(key).lower() not in PARTS:
                raise DataError(f"there is no part {key!r}", did_you_mean(str(key), PARTS))
            source = source_of(content) if isinstance(content, str | Path) else Frame(content)
            sources.append((PARTS[str(key).lower()], source))
        return cls(sources, target, " + ".join(map(str, parts)), reading)

    # -- reading ------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """Set `columns` and the array of their values, from the cache where an earlier reading is kept there."""
        how = str(self.reading.to_json())
        key = "tables/" + fingerprint(_CACHE_VERSION, how, *(source.key for source in self._sources))
        filed = all(source.key for source in self._sources)
        content: Any = recall(key) if filed else None
        kept = content is not None
        if kept:
            self._forms, self._source_rows, self._words = content["forms"], content["rows"], tuple(content["words"])
            for line in content["notes"]:
                self.note(line)
        else:
            seen = see(self._sources, self.reading, self.note)
            self._forms, self._source_rows, self._words = seen.forms, seen.rows, seen.words
            for name, there in seen.present.items():
                if there < sum(self._source_rows) and len(self._sources) > 1:
                    self.note(f"column {name!r} is not in every file: missing where it is not")
        self.rows = sum(self._source_rows)
        if not self.rows or not self._forms:
            raise DataError(f"{self.name} has no rows", "check how it was made")
        shape = (len(self._forms), self.rows)
        made = Converted()

        def fill(array: np.ndarray) -> None:
            nonlocal made
            made = convert(self._sources, self._forms, array, self.reading, self._words)

        if 8 * self.rows * len(self._forms) <= min(IN_MEMORY, _WORTH_KEEPING if filed else IN_MEMORY):
            self._array = np.empty(shape, np.uint64)
            fill(self._array)
        else:
            if not kept:
                (cache_folder() / f"{key}.npy").unlink(missing_ok=True)
            self._array = cached_array(key, shape, np.uint64, fill, self.note)
        if kept and not made.texts:
            self.columns = {entry["name"]: Column.from_json(entry) for entry in content["columns"]}
            self._lost = {name: Lost(**lost) for name, lost in content["lost"].items()}
            return
        self._lost = made.lost
        for name, lost in made.lost.items():
            for line in lost.lines(name, self._forms[name]):
                self.note(line)
        self.columns = {
            name: describe(name, form, bits, made.texts.get(name))
            for (name, form), bits in zip(self._forms.items(), self._array, strict=True)
        }
        if isinstance(self._array, np.memmap):
            remember(
                key,
                {
                    "forms": self._forms, "rows": self._source_rows, "words": list(self._words), "notes": self.notes,
                    "columns": [column.to_json() for column in self.columns.values()],
                    "lost": {name: asdict(lost) for name, lost in self._lost.items()},
                },
            )  # fmt: skip

    def read_as(self, names: Iterable[str]) -> dict[str, Any]:
        """How these columns were read, JSON-able: what `like` and `papertrial.open(..., like=...)` take."""
        forms = {name: self._forms[name] for name in names}
        return replace(self.reading, forms=forms, words=self._words, target=self.target).to_json()

    def like(self, known: Mapping[str, Any]) -> Table:
        """This table with its columns read as those of another were (see `read_as`): itself where that is so already."""
        reading = Reading.of(like=known)
        if self.reading.forms.keys() >= reading.forms.keys():
            return self  # opened so, with what the user says of it
        alike_now = all(self._forms[name] == form for name, form in reading.forms.items() if name in self._forms)
        if (
            alike_now
            and set(self._words) == set(reading.words or self._words)
            and self.reading.missing == reading.missing
        ):
            return self
        again = Table(self._given, self.target, self.name, reading)
        again.belong(self.group or NONE, self.time or None)
        for line in again.notes:
            self.note(line)
        return again

    # -- groups and times ---------------------------------------------------------------------------------------

    def _belong(self, group: str | None, time: str | None) -> None:
        """Set `together` and `times`, and take their columns from the inputs."""
        guessed = group_column(self.columns.values(), self.rows, self._asked_target) if group is None else None
        self.asked_group = group or ""
        self.group, self.time = ("" if group == NONE else group or guessed or ""), time or ""
        self.together, self.times, self.group_note = None, None, ""
        if self.group:
            self.together = self._codes_of(self.group)
            self.columns[self.group] = self.columns[self.group].unused("says which rows belong together")
            how = " (guessed; --group none makes an input of it)" if guessed else ""
            self._tell_groups(f"column {self.group!r} says which rows belong together{how}")
        if self.time:
            column = self.columns[self.time]
            if column.form not in ("number", "date"):
                raise DataError(
                    f"column {self.time!r} holds neither numbers nor dates that are read as such", "name another --time"
                )
            self.times, self.dates = self.floats(self.time), column.form == "date"
            self.columns[self.time] = column.unused("says when rows are from")

    def _codes_of(self, name: str) -> np.ndarray:
        """int64 (rows,): equal for equal values of a column, -1 for missing ones."""
        return np.where(self.absent(name), -1, np.unique(self.bits(name), return_inverse=True)[1].reshape(-1))

    @cached_property
    def copies(self) -> np.ndarray:
        """See `belonging.same_rows`."""
        return same_rows(self)

    # -- columns ------------------------------------------------------------------------------------------------

    def column(self, name: str) -> Column:
        """Raises DataError with a suggestion when there is no such column."""
        if name not in self.columns:
            raise DataError(f"{self.name} has no column {name!r}", did_you_mean(name, self.columns))
        return self.columns[name]

    def bits(self, name: str) -> np.ndarray:
        """A column's values as uint64 (rows,): equal bits for equal values. Text: a hash, 0 for missing; else float64."""
        return self._array[list(self.columns).index(self.column(name).name)]

    def absent(self, name: str) -> np.ndarray:
        """bool (rows,): where a column has no value."""
        bits = self.bits(name)
        return bits == 0 if self.columns[name].form == "text" else np.isnan(bits.view(np.float64))

    def texts(self, names: Sequence[str]) -> list[Ragged]:
        """Columns as they stand in the files, UTF-8 (rows,) each: nothing trimmed, empty for what is missing."""
        return read_texts(self._sources, [self.column(name).name for name in names])

    def floats(self, name: str) -> np.ndarray:
        """A column as float64 (rows,), NaN for missing: booleans 0 and 1, dates as days since 1970.

        Raises DataError naming the first value that is not a number.
        """
        if self.column(name).form == "text":
            return reread_numbers(self._sources, name, self.rows, self.reading)
        return self.bits(name).view(np.float64)

    def numeric(self, names: Sequence[str]) -> np.ndarray:
        """Columns as float32 (rows, len(names)), NaN for missing; memory-mapped when large.

        Any column whose values are numbers, dates or booleans will do, whatever its type here. Raises DataError for a
        column that is not there or holds text, naming the first such value and its line.
        """
        absent = [name for name in names if name not in self.columns]
        for name in names if self.reading.forms and not absent else ():
            self._lost.get(name, Lost()).refuse(name, self._forms[name])
        if absent:
            what = f"column {absent[0]!r}" if len(absent) == 1 else f"{len(absent)} columns ({', '.join(absent[:8])})"
            raise DataError(f"{self.name} lacks {what}", did_you_mean(absent[0], self.columns))

        def fill(array: np.ndarray) -> None:
            for index, name in enumerate(names):
                array[:, index] = self.floats(name)

        shape = (self.rows, len(names))
        if 4 * self.rows * len(names) > IN_MEMORY:
            key = f"tables/{self.fingerprint}-{fingerprint(*names)}"
            return cached_array(key, shape, np.float32, fill, self.note)
        array = np.empty(shape, np.float32)
        fill(array)
        return array

    def codes(self, name: str, categories: Sequence[str] | None = None) -> tuple[np.ndarray, tuple[str, ...]]:
        """A column as codes int32 (rows,) into the returned categories; -1 for a missing value or another category.

        categories: those of the training table; left out, the column's own (at most the 1000 most common, sorted).
        Numbers are taken as the text that stands in the file. Raises DataError when there is no such column.
        """
        column, bits = self.column(name), self.bits(name)
        if column.form != "text":
            array = np.empty((1, self.rows), np.uint64)
            made = convert(self._sources, {name: "text"}, array, self.reading, self._words)
            bits, column = array[0], replace(column, categories=made.texts[name].summary()[0])
        kept = column.categories if categories is None else tuple(categories)
        codes = look_up(bits, hash_text(kept))
        if categories is None:
            return merged(name, codes, kept, self.note)
        return respelled(
            name, bits, codes, kept, partial(distinct_texts, self._sources, name, self._words), self.note, fold=True
        ), kept

    def __len__(self) -> int:
        return self.rows

    # -- target -------------------------------------------------------------------------------------------------

    def labels(
        self, name: str | None = None, classes: Sequence[str] | None = None
    ) -> tuple[np.ndarray, tuple[str, ...]]:
        """Classes of the target (or of column `name`): codes int64 (rows,), -1 for a missing value, and their names.

        classes: names from training; a value that is none of them is -1 too. Left out, they are the sorted distinct
        values. Raises DataError without a target, with one class only, or with more than 1000.
        """
        column = self._target_column(name)
        if column.form == "text":
            found = column.categories
        else:
            floats = self.floats(column.name)
            known = np.unique(floats[~np.isnan(floats)]) if column.unique <= CATEGORIES else np.empty(0)
            found = tuple(class_name(value, column.form) for value in known.tolist())
        if classes is None:
            if column.unique > CATEGORIES:
                raise DataError(
                    f"{column.name!r} has {column.unique} different values: too many for classes",
                    "name another --target",
                )
            if len(found) < 2:
                raise DataError(
                    f"{column.name!r} has {'one class only' if found else 'no values'}", "classes need at least two"
                )
            sets = label_sets(found)
            if sets:
                one, combined = next(iter(sets.items()))
                self.note(
                    f"target {column.name!r} holds several labels in a row: each combination is one class, in any order"
                    f" ({one!r} is {combined!r}); to judge one label, give it a column of its own"
                )
            classes = tuple(sorted({sets.get(one, one) for one in found}))
        if column.form == "text":
            bits, asked = self.bits(column.name), partial(distinct_texts, self._sources, column.name, self._words)
            sets = label_sets(found) or label_sets((*found, *classes))
            codes = look_up(bits, hash_text(classes))
            codes = respelled(column.name, bits, codes, classes, asked, self.note, fold=False)
            ordered = {one: classes.index(combined) for one, combined in sets.items() if combined in classes}
            at = look_up(bits, hash_text(tuple(ordered)))
            return np.where(at >= 0, np.array([*ordered.values(), -1])[at], codes).astype(np.int64), tuple(classes)
        numbers = np.array([class_value(one) for one in classes], dtype=np.float64) + 0.0
        numbers[np.isnan(numbers)] = (
            np.inf
        )  # a name that is no number: in no row, and not what missing values look like
        return look_up(self.bits(column.name), numbers.view(np.uint64)).astype(np.int64), tuple(classes)

    def own_labels(self, name: str | None = None) -> dict[str, Any]:
        """See `Data.own_labels`, of the target or of column `name`."""
        column = self.columns.get(name or self.target or "")
        if column is None or column.form not in ("number", "boolean") or column.unique > CATEGORIES:
            return {}
        floats = self.floats(column.name)
        known = np.unique(floats[~np.isnan(floats)]).tolist()
        fractions = any(isinstance(source, Frame) and source.holds_floats(column.name) for source in self._sources)
        return {class_name(value, column.form): class_label(value, column.form, fractions) for value in known}

    def values(self, name: str | None = None) -> np.ndarray:
        """The target (or column `name`) as float32 (rows,), NaN for missing. Raises DataError when it holds text."""
        return self.floats(self._target_column(name).name).astype(np.float32)

    def _target_column(self, name: str | None) -> Column:
        if name is None and self.target is None:
            raise DataError(f"{self.name} has no target", "name the column to predict with --target")
        return self.column(name or self.target or "")

    def _choose_target(self, target: str | None) -> str | None:
        if target is not None:
            if target not in self.columns:
                raise DataError(f"{self.name} has no column {target!r} to predict", did_you_mean(target, self.columns))
            return target
        if self.reading.forms:
            return self.reading.target if self.reading.target in self.columns else None
        able = [column.name for column in self.columns.values() if column.type not in ("id", "text", "empty")]
        set_apart = (self.split_column, self.group, self.time)
        able = [name for name in able if name not in set_apart and not self.is_like_id(self.columns[name])]
        folded = {name.casefold(): name for name in reversed(able)}
        named = [folded[name] for name in _TARGET_NAMES if name in folded]
        if not able:
            self.note("no column can be a target")
            return None
        chosen, why = (named[0], "by its name") if named else (able[-1], "last column")
        self.note(f"target guessed: {chosen!r} ({why}); name another with --target")
        return chosen

    def is_like_id(self, column: Column) -> bool:
        """Whether it holds texts that hardly repeat."""
        return column.form == "text" and column.unique > max(100, 0.5 * (self.rows - column.missing))

    def are_few(self, column: Column) -> bool:
        """Whether the values of a column could be classes, by how many differ and how often each is there."""
        return column.unique <= _MOST_CLASSES and self.rows - column.missing >= _ROWS_PER_CLASS * column.unique

    def kind_of_target(self, name: str) -> str | None:
        """`binary`, `multiclass`, `regression`, or None for a column of one value.

        Text and booleans are classes; numbers are, when there are two, or when they count from 0 or 1 without gaps.
        Raises DataError for a column of texts that hardly repeat.
        """
        column = self.columns[name]
        values = self.rows - column.missing
        if column.unique < 2:
            return None
        if column.form == "text":
            if self.is_like_id(column):
                if label_sets(column.categories):
                    raise DataError(
                        f"target {column.name!r} holds several labels in a row, in {column.unique} combinations: too many for"
                        " classes",
                        "make a column for each label, and name one with --target",
                    )
                raise DataError(
                    f"target {column.name!r} has {column.unique} different texts in {values} rows: it looks like an id",
                    "name another column with --target",
                )
            return "binary" if column.unique == 2 else "multiclass"
        if column.unique == 2:
            return "binary"
        if column.form != "number" or not self.are_few(column):
            return "regression"
        floats = self.bits(column.name).view(np.float64)
        known = np.unique(floats[~np.isnan(floats)])
        if known[0] in (0.0, 1.0) and bool((np.diff(known) == 1.0).all()):
            return "multiclass"
        if bool((known == np.floor(known)).all()):
            self.note(
                f"target {column.name!r} holds {column.unique} different whole numbers with gaps: predicted as a number"
            )
        return "regression"

    def _tell_about_target(self) -> None:
        column = self.columns[self.target or ""]
        if column.missing:
            self.note(
                f"{counted(column.missing, 'row')} without a target: not used to train or score supervised methods"
            )
        if column.unique < 2:
            self.note(
                f"target {column.name!r} has {'one value only' if column.unique else 'no values'}: nothing can be learned from it"
            )
        elif self.target_kind != "regression" and column.unique <= CATEGORIES:
            codes, classes = self.labels()
            counts = np.bincount(codes[codes >= 0], minlength=len(classes))
            rare = [name for name, count in zip(classes, counts, strict=True) if count < 2]
            if rare:
                self.note(f"classes with one row only: {', '.join(rare[:5])}{' ...' if len(rare) > 5 else ''}")

    # -- parts --------------------------------------------------------------------------------------------------

    def _find_split_column(self, target: str | None) -> str | None:
        """A column called split, part or fold whose values are train and test (and validation)."""
        for column in self.columns.values():
            if column.name == target or column.form != "text" or not re.match(_PART_COLUMN, column.name):
                continue
            parts = {PARTS.get(value.lower()) for value in column.categories}
            if None not in parts and 0 in parts and len(parts) > 1 and not column.missing:
                self.columns[column.name] = column.unused("holds the given split")
                self.note(f"column {column.name!r} says which rows are for training and which for testing")
                return column.name
        return None

    def _settle_parts(self) -> tuple[np.ndarray, int]:
        """The part of each row, and how many rows were moved so that equal rows are in one part."""
        part = self._file_parts
        if self.split_column is not None:
            codes, names = self.codes(self.split_column)
            part = np.array([PARTS[name.lower()] for name in names], np.int8)[codes]
        if not part.any() or self.repeats_expected:
            return part, 0
        joined = spread_over_parts(self.row_hashes, part)
        if (part == 2).any() and not (joined == 2).any():
            self.note("every test row is also a training row: the given split is not used")
            return np.zeros_like(part), 0
        return joined, int(np.count_nonzero(joined != part))

    @property
    def names(self) -> np.ndarray:
        """(N,) int64: the rows as people count them, from 1."""
        return np.arange(1, self.rows + 1)

    @property
    def given_split(self) -> bool:
        return bool((self.part == 2).any())

    @property
    def used(self) -> list[Column]:
        """The columns a model sees."""
        return [column for column in self.columns.values() if column.use]

    @property
    def repeats_expected(self) -> bool:
        """Whether the columns have so few possible rows that equal rows are no sign of copying."""
        combinations = sum(np.log(column.unique + (column.missing > 0)) for column in self.used)
        return bool(combinations < np.log(100.0 * self.rows))

    @cached_property
    def row_hashes(self) -> np.ndarray:
        """uint64 (rows,): equal for rows whose used columns are equal, so that a split can keep them together."""
        return combined([self.bits(column.name) for column in self.used], self.rows)

    def look(self) -> Look:
        """The facts page (see `tables/look.py` for its numbers); worked out once."""
        page = deepcopy(self._facts_page)
        return replace(page, name=self.name, notes=[*page.notes, *self.notes])

    @cached_property
    def _facts_page(self) -> Look:
        return look(self)
