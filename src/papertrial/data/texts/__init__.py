"""Texts and pairs of texts: UTF-8 bytes in one array, labels or scores, parts, and which of them are the same."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from papertrial.core.errors import DataError, did_you_mean
from papertrial.core.task import Ragged
from papertrial.data import textfiles
from papertrial.data.base import Data, Look, fingerprint, track
from papertrial.data.labels import as_labels
from papertrial.data.layout import layout
from papertrial.data.tables import Table
from papertrial.data.tables.column_values import Column

_PIECE = 1 << 22  # bytes of text worked on together
_TEXT_NAME = re.compile(
    r"(?i)(.*[_ .-])?(text|texts|sentence|sentences|review|comment|content|body|message|question|query|abstract|tweet|"
    r"document|passage|premise|hypothesis|utterance|headline|title|description|summary|answer|string|sms|email)s?[_ ]?[0-9ab]?"
)
_PAIR_NAMES = (
    ("premise", "hypothesis"),
    ("source", "target"),
    ("src", "tgt"),
    ("anchor", "positive"),
    ("query", "passage"),
    ("question", "answer"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("input", "output"),
    ("document", "summary"),
    ("article", "summary"),
    ("text", "summary"),
)
_TRIPLET_NAMES = (("anchor", "positive", "negative"), ("sent0", "sent1", "hard_neg"), ("query", "positive", "negative"))
_WORDS, _NAMED_WORDS = 3.0, 1.2  # words a value has on average in a column of text, and in one called text
_DISTINCT = 0.3  # share of values that differ in a column of text
_MANY, _SENTENCE = 100, 5.0  # ... unless there are so many of so many words, as of questions with several answers
_MOSTLY = 0.9  # share of the files that must lie as classes do for folders to be classes
_FOREIGN = 0.4  # share of bytes beyond ASCII from which a file that is not UTF-8 is in no Western language
_ALIKE = 3.0  # most by which the mean lengths of two columns differ that hold pairs
# names of targets, the likeliest first
_TARGETS = ("target", "label", "labels", "class", "category", "sentiment", "topic", "score", "rating", "stars", "y")
_BLANK = np.isin(np.arange(256), list(b" \t\n\r\x0b\x0c"))
# of each ASCII byte the lower case, and a blank for all that is no letter or digit; other bytes stay
_FOLDED = np.frombuffer(
    bytes(ord(chr(byte).lower()) if chr(byte).isalnum() else 32 for byte in range(128)) + bytes(range(128, 256)),
    np.uint8,
)


class _Parted(Data):
    """Rows in given parts, of which those that are the same (`groups`) are kept together."""

    groups: np.ndarray
    _part: np.ndarray

    @cached_property
    def _moved(self) -> tuple[np.ndarray, int]:
        return _together(self._part, self.groups, self.note)

    @property
    def part(self) -> np.ndarray:
        return self._moved[0]

    @property
    def moved(self) -> int:
        """How many rows stand in another part than they were given in."""
        return self._moved[1]

    @property
    def given_split(self) -> bool:
        return bool((self.part == 2).any())


class Texts(_Parted):
    """Texts with or without labels.

    texts: Ragged uint8, UTF-8.  labels: int64 (N,), -1 = unlabelled.  class_names: sorted.  names: file, line or row of
    each; unit: which of these.  part: int8 (N,), 0 = train or free, 1 = valid, 2 = test; texts that equal a training text
    are moved to its side.  groups: int64 (N,), equal for texts that differ in case, blanks and punctuation at most.  empty: bool (N,),
    nothing but blanks.  documents, document_part: the whole texts with their line breaks, for models of running text,
    where `texts` are lines of them; else the same as `texts`.  columns: what they were in a table, {"text": names,
    "target": name, "pairs": bool}, so that new data is read in the same way; empty elsewhere.
    """

    kind = "text"

    def __init__(
        self,
        texts: Ragged,
        labels: np.ndarray | None = None,
        class_names: Sequence[str] = (),
        part: np.ndarray | None = None,
        *,
        name: str = "texts",
        names: Sequence[Any] | np.ndarray | None = None,
        unit: str = "text",
        notes: Sequence[str] = (),
        documents: Ragged | None = None,
        document_part: np.ndarray | None = None,
        columns: Mapping[str, Any] | None = None,
    ) -> None:
        """unit: what one of `texts` is, such as line.  Raises DataError where there is nothing but blanks."""
        count = len(texts)
        self.texts = texts
        self.labels = np.full(count, -1, np.int64) if labels is None else np.asarray(labels, np.int64)
        self.class_names = tuple(class_names)
        self._part = np.zeros(count, np.int8) if part is None else np.asarray(part, np.int8)
        self.names = np.arange(1, count + 1) if names is None else names
        self.unit, self.columns = unit, dict(columns or {})
        self.documents = texts if documents is None else documents
        self.document_part = self._part if document_part is None else np.asarray(document_part, np.int8)
        key = fingerprint(texts.values, texts.offsets, self.labels, self._part, *self.class_names)
        super().__init__(name, key, notes)
        self.empty = blank(texts)
        if self.empty.all():
            raise DataError(f"{name} holds no text but blanks", "check how it was made")

    # -- making -------------------------------------------------------------------------------------------------

    @classmethod
    def from_files(cls, path: Path | str) -> Texts:
        """A text file (plain or packed), whose lines are the texts; a folder or archive, whose files are the texts.

        A folder per class labels them. Files named after the parts of a split (train.txt, test.txt) are files of lines.
        Lines that all begin with a number or `__label__name` carry labels. Raises DataError without text.
        """
        path = Path(path)
        repairs = textfiles.Repairs()
        if path.is_dir() or path.name.lower().endswith(textfiles.ARCHIVES):
            files = _readable_members(path, repairs)
            parts = [textfiles.part_of(name) for name in files]
            if len(files) > 1 and (None in parts or len(set(parts)) == 1):
                return cls._of_documents(files, path.name, repairs)
            kinds = {textfiles.without_part(name) for name in files}
            if len(kinds) > 1:
                raise DataError(
                    f"{path} holds several data sets ({', '.join(sorted(kinds)[:5])})", "name one of the files"
                )
            return cls._of_lines(list(files.values()), [part or 0 for part in parts], path.name, repairs)
        return cls._of_lines([textfiles.read_file(path, repairs)], [0], path.name, repairs)

    @classmethod
    def _of_lines(cls, files: list[np.ndarray], parts: list[int], name: str, repairs: textfiles.Repairs) -> Texts:
        notes = repairs.notes()
        if 0 not in parts:  # a validation file alone is there to learn from
            parts = [0 if part == min(parts) else part for part in parts]
        if 2 not in parts and 1 in parts:
            parts = [2 if part == 1 else part for part in parts]
            notes.append("the validation file serves as the test part, as there is none")
        read = [textfiles.lines_of(file) for file in files]
        lines, numbers = _concatenated([lines for lines, _ in read]), np.concatenate([row for _, row in read])
        part = np.repeat(parts, [len(lines) for lines, _ in read]).astype(np.int8)
        labelled = textfiles.labelled_lines(lines)
        if labelled is not None:
            labels, texts = labelled
            notes.append("every line begins with a label, which was taken off")
            codes, class_names = as_labels(np.array(labels), len(labels), None)
            return cls(texts, codes, class_names, part, name=name, names=numbers, unit="line", notes=notes)
        return cls(
            lines, None, (), part, name=name, names=numbers, unit="line", notes=notes,
            documents=files_as_rows(files), document_part=np.array(parts, np.int8),
        )  # fmt: skip

    @classmethod
    def _of_documents(cls, files: Mapping[str, np.ndarray], name: str, repairs: textfiles.Repairs) -> Texts:
        names = list(files)
        found = layout(names, "texts")
        notes = [*repairs.notes(), *found.notes]
        labels, class_names = found.labels, found.class_names
        if class_names and not _are_classes(names, labels):
            if len(class_names) > 1:
                notes.append("files lie at different depths: their folders are not classes")
            labels, class_names = np.full(len(names), -1, np.int64), ()
        return cls(
            files_as_rows(list(files.values())), labels, class_names, found.part, name=name, names=names, unit="file", notes=notes
        )  # fmt: skip

    @classmethod
    def from_strings(
        cls,
        texts: Sequence[str],
        labels: Any = None,
        class_names: Sequence[str] | None = None,
        part: Any = None,
        *,
        name: str = "texts",
    ) -> Texts:
        """From strings (None counts as an empty one), and labels as `Images.from_arrays` takes them.

        Raises DataError for what is no string.
        """
        ragged = as_ragged(texts)
        codes, names = as_labels(labels, len(ragged), class_names, "texts")
        return cls(ragged, codes, names, part, name=name)

    # -- facts --------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def groups(self) -> np.ndarray:
        return same(self.texts, fold=True)

    def look(self) -> Look:
        """The facts page: see `textlook`."""
        from papertrial.data.texts.look import look

        return look(self)


class Pairs(_Parted):
    """Pairs of texts, with or without a score (how alike the two are) or a label.

    first, second: Ragged uint8, UTF-8.  scores: float64 (N,), NaN = none.  labels: int64 (N,), -1 = none.
    third: Ragged or None, for each pair a text that is not like the first (a hard negative).
    class_names, names, part, groups, empty, columns: as for `Texts`; a pair is the same the other way round.
    """

    kind = "pairs"

    def __init__(
        self,
        first: Ragged,
        second: Ragged,
        scores: np.ndarray | None = None,
        labels: np.ndarray | None = None,
        class_names: Sequence[str] = (),
        part: np.ndarray | None = None,
        *,
        name: str = "pairs",
        names: Sequence[Any] | np.ndarray | None = None,
        notes: Sequence[str] = (),
        columns: Mapping[str, Any] | None = None,
        third: Ragged | None = None,
    ) -> None:
        """Raises DataError when the sides differ in length, or hold nothing but blanks."""
        count = len(first)
        if len(second) != count:
            raise DataError(f"{count} first texts and {len(second)} second ones", "give pairs")
        if third is not None and len(third) != count:
            raise DataError(f"{count} pairs and {len(third)} third texts", "give triplets")
        self.first, self.second, self.third = first, second, third
        self.scores = np.full(count, np.nan) if scores is None else np.asarray(scores, np.float64)
        self.labels = np.full(count, -1, np.int64) if labels is None else np.asarray(labels, np.int64)
        self.class_names = tuple(class_names)
        self._part = np.zeros(count, np.int8) if part is None else np.asarray(part, np.int8)
        self.names = np.arange(1, count + 1) if names is None else names
        self.columns = dict(columns or {})
        pieces = (first.values, first.offsets, second.values, second.offsets, self.scores, self.labels, self._part)
        pieces += () if third is None else (third.values, third.offsets)
        super().__init__(name, fingerprint(*pieces, *self.class_names), notes)
        self.empty = blank(first) | blank(second) | (False if third is None else blank(third))
        if self.empty.all():
            raise DataError(f"{name} holds no pair of texts", "check how it was made")

    @classmethod
    def from_strings(
        cls, pairs: Sequence[tuple[str, str]], scores: Any = None, part: Any = None, *, name: str = "pairs"
    ) -> Pairs:
        """From pairs of strings and a number each, NaN or None where it is not known. Raises DataError for anything else."""
        if any(not isinstance(pair, tuple | list) or len(pair) != 2 for pair in pairs):
            raise DataError("some pairs are not of two texts", "give tuples (first, second)")
        first, second = (as_ragged([pair[side] for pair in pairs]) for side in (0, 1))
        try:
            values = None if scores is None else np.array([np.nan if s is None else s for s in scores], np.float64)
        except (TypeError, ValueError):
            raise DataError("the scores of the pairs are not numbers", "give a number for each pair") from None
        if values is not None and len(values) != len(first):
            raise DataError(f"{len(first)} pairs but {len(values)} scores", "give one per pair")
        return cls(first, second, values, part=part, name=name)

    def __len__(self) -> int:
        return len(self.first)

    @cached_property
    def sides(self) -> np.ndarray:
        """int64 (2, N): equal for equal texts on either side."""
        both = same(_concatenated([self.first, self.second]), fold=True)
        return both.reshape(2, -1)

    @cached_property
    def groups(self) -> np.ndarray:
        return np.unique(np.sort(self.sides, axis=0), axis=1, return_inverse=True)[1].reshape(-1).astype(np.int64)

    def look(self) -> Look:
        """The facts page: see `textlook`."""
        from papertrial.data.texts.look import look_pairs

        return look_pairs(self)


# -- tables that hold text --------------------------------------------------------------------------------------


def from_table(
    table: Table, text: Sequence[str] = (), target: str | None = None, like: Mapping[str, Any] | None = None
) -> Texts | Pairs | None:
    """The texts or pairs in a table, or None where it is a table like others.

    text: the columns that hold text, found where there are none: then all columns besides the target must be text, or
    not be of use.  target: as the user named it.  like: the `columns` of earlier data, read in the same way where the
    table has them.  Raises DataError for a column that is not there.
    """
    chosen, goal = _chosen(table, text, target, like)
    if not chosen:
        return None
    notes = list(table.read_notes)
    columns: dict[str, Any] = {"text": list(chosen), "target": goal, "pairs": False}
    guessed = [f"target guessed: {goal!r}; name another with --target"] if target is None and not like else []
    read = table.texts(chosen)
    here: dict[str, Any] = {"part": table.part, "name": table.name, "names": table.names, "columns": columns}
    _require_western(table, read)
    triplet = _triplet(chosen)
    if triplet:
        columns |= {"text": list(triplet), "pairs": True}
        order = [read[list(chosen).index(name)] for name in triplet]
        notes.append(f"pairs of the columns {triplet[0]!r} and {triplet[1]!r}, with {triplet[2]!r} unlike the first")
        return Pairs(order[0], order[1], notes=notes, third=order[2], **here)
    if len(chosen) == 2 and (like["pairs"] if like else bool(text) or _are_pairs(chosen, read)):
        columns["pairs"] = True
        scores, labels, class_names = _pair_target(table, goal)
        notes += guessed if goal is not None else []
        notes.append(f"pairs of the columns {chosen[0]!r} and {chosen[1]!r}")
        return Pairs(read[0], read[1], scores, labels, class_names, notes=notes, **here)
    labels, class_names = _class_target(table, goal, notes, asked=target is not None, again=bool(like))
    notes += guessed if labels is not None else []
    for column in table.columns.values() if goal is None and not like else ():
        if column.name.casefold() in _TARGETS and column.name not in chosen and column.why:
            notes.append(f"column {column.name!r} gives no labels: {column.why}")
    if len(chosen) > 1:
        notes.append(f"a text is made of the columns {', '.join(map(repr, chosen))}, a line for each")
        read = [_lines_together(read)]
    return Texts(read[0], labels, class_names, notes=notes, unit="row", **here)


def _chosen(
    table: Table, text: Sequence[str], target: str | None, like: Mapping[str, Any] | None
) -> tuple[Sequence[str], str | None]:
    """(the columns of text, the target); no columns where the table is not one of text."""
    for name in text:
        table.column(name)
    prose = [column.name for column in table.columns.values() if _is_prose(column, table.rows)]
    if like:
        return _chosen_like(table, prose, like)
    # what else a model could use: in a table of text it is the target alone
    skipped = {*text, *prose, table.split_column}
    others = [c.name for c in table.columns.values() if c.name not in skipped and (c.use or c.name == table.target)]
    goal = target or (others[0] if len(others) == 1 else None)
    if text:
        named = {name.casefold(): name for name in others}
        return text, goal or next((named[name] for name in _TARGETS if name in named), None)
    if target is None and (pair := _named_pair(table, prose, others)):
        return pair, None
    prose = [name for name in prose if name != goal]
    if prose and set(others) <= {goal}:
        return prose, goal
    if prose and table.target not in prose:
        table.note(f"text is of no use to a table: column {prose[0]!r} opens as text with DATA#{prose[0]}")
    return (), None


def _named_pair(table: Table, prose: Sequence[str], others: Sequence[str]) -> tuple[str, ...]:
    """The columns of pairs that are called so, in the order of the pair, where nothing else is of use; () where there are none.

    One may hold other values than prose if these hardly repeat, such as short answers.
    """
    folded = {name.casefold(): column for name, column in table.columns.items()}
    for names in _PAIR_NAMES:
        pair = [folded[name] for name in names if name in folded]
        called = {column.name for column in pair}
        if len(pair) == 2 and called & {*prose} and {*prose, *others} <= called:
            short = [column for column in pair if column.name not in prose]
            if all(column.unique > _DISTINCT * (table.rows - column.missing) for column in short):
                return tuple(column.name for column in pair)
    return ()


def _chosen_like(table: Table, prose: Sequence[str], like: Mapping[str, Any]) -> tuple[Sequence[str], str | None]:
    """The columns called as before, else as many of text as there were."""
    goal = like["target"] if like["target"] in table.columns else None
    found = like["text"] if all(name in table.columns for name in like["text"]) else [n for n in prose if n != goal]
    if len(found) < len(like["text"]):
        absent = next(name for name in like["text"] if name not in table.columns)
        raise DataError(f"{table.name} has no column {absent!r}", did_you_mean(absent, table.columns))
    return found[: len(like["text"])], goal


def _is_prose(column: Column, rows: int) -> bool:
    """Whether the values of a column read like text that people wrote."""
    if column.form != "text" or column.type not in ("text", "id", "categorical") or not column.categories:
        return False
    some = column.categories[:: max(1, len(column.categories) // 200)]
    words = float(np.mean([_words(value) for value in some]))
    named = _TEXT_NAME.fullmatch(column.name) is not None
    if words < (_NAMED_WORDS if named else _WORDS) or all(value[:1] in "{[" for value in some):
        return False
    distinct = column.unique > _DISTINCT * (rows - column.missing) or (column.unique >= _MANY and words >= _SENTENCE)
    return column.type != "categorical" or distinct


def _words(value: str) -> float:
    """Words of a text; two letters count as one where words are not set apart."""
    return len(value.split()) + sum(letter > "\u2e7f" or "\u0e00" <= letter < "\u0e80" for letter in value) / 2


def _are_pairs(names: Sequence[str], read: Sequence[Ragged]) -> bool:
    """By their names (sentence1 and sentence2, premise and hypothesis), else by their lengths."""
    stems = [re.sub(r"[_ .-]?[0-9ab]$", "", name.casefold()) for name in names]
    if stems[0] == stems[1] and stems[0] not in ("c", "column"):
        return True
    if any({first, second} <= set(map(str.casefold, names)) for first, second in _PAIR_NAMES):
        return True
    if all(_TEXT_NAME.fullmatch(name) for name in names):
        return False
    mean = sorted(float(column.lengths.mean()) for column in read)
    return mean[1] <= _ALIKE * mean[0]


def _triplet(names: Sequence[str]) -> tuple[str, ...]:
    """The columns of a sentence, one that means the same and one that does not, where three are called so."""
    found = {name.casefold(): name for name in names}
    order = next((known for known in _TRIPLET_NAMES if set(known) == set(found)), ())
    return tuple(found[name] for name in order)


def _require_western(table: Table, read: Sequence[Ragged]) -> None:
    """Raise DataError where text that was taken as Windows-1252 is full of letters that no Western language has so many of."""
    foreign = sum(int(np.count_nonzero(_bytes(column) >= 128)) for column in read)
    if not table.utf8 and foreign > _FOREIGN * sum(column.nbytes for column in read):
        raise DataError(f"{table.name} is neither in UTF-8 nor in a Western encoding", "save it as UTF-8")


def _pair_target(table: Table, goal: str | None) -> tuple[np.ndarray | None, np.ndarray | None, tuple[str, ...]]:
    if goal is None:
        return None, None, ()
    if table.columns[goal].form in ("number", "boolean", "comma"):
        return table.floats(goal), None, ()
    labels, class_names = table.labels(goal)
    return None, labels, class_names


def _class_target(
    table: Table, goal: str | None, notes: list[str], asked: bool, again: bool
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Labels and class names. asked: the user named the target, so that it must hold classes.  again: classes are known
    from earlier data, whatever the values here."""
    if goal is None:
        return None, ()
    column = table.columns[goal]
    if not asked and not again and table.is_like_id(column):
        notes.append(f"column {goal!r} holds {column.unique} different texts, which are not classes: no labels")
        return None, ()
    kind = table.kind_of_target(goal)
    if kind == "regression" and not again:
        if not table.are_few(column):
            if asked:
                raise DataError(
                    f"target {goal!r} holds {column.unique} different numbers, and texts are judged by classes",
                    "name a column of classes with --target, or leave it out",
                )
            notes.append(f"column {goal!r} holds numbers, not classes: no labels")
            return None, ()
        notes.append(f"target {goal!r} holds {column.unique} different numbers: each is taken as a class")
    if kind is None:
        notes.append(f"target {goal!r} has {'one value only' if column.unique else 'no values'}")
        codes, class_names = table.codes(goal)
        return codes.astype(np.int64), class_names
    return table.labels(goal)


def _lines_together(columns: Sequence[Ragged]) -> Ragged:
    """The texts of several columns below each other, those that are empty left out."""
    rows = []
    for row in range(len(columns[0])):
        rows.append(b"\n".join(cell for cell in (column[row].tobytes() for column in columns) if cell.strip()))
    return textfiles.joined(rows)


# -- bytes ------------------------------------------------------------------------------------------------------


def as_ragged(texts: Sequence[Any]) -> Ragged:
    """Strings as UTF-8; None and NaN as empty. Raises DataError for anything else."""
    strings = ["" if text is None or text != text else text for text in texts]
    wrong = next((row for row, text in enumerate(strings) if not isinstance(text, str)), None)
    if wrong is not None:
        raise DataError(f"text {wrong + 1} is a {type(strings[wrong]).__name__}", "give strings")
    return Ragged.of_texts(strings)


def _concatenated(parts: Sequence[Ragged]) -> Ragged:
    if len(parts) == 1:
        return parts[0]
    values = np.concatenate([part.values[part.offsets[0] : part.offsets[-1]] for part in parts])
    return Ragged(values, np.concatenate([[0], np.cumsum(np.concatenate([part.lengths for part in parts]))]))


def files_as_rows(files: Sequence[np.ndarray]) -> Ragged:
    """One row per file; a single one stays where it is, also on disk."""
    if len(files) == 1:
        return Ragged(files[0], np.array([0, len(files[0])]))
    return Ragged(np.concatenate([*files, np.zeros(0, np.uint8)]), np.cumsum([0, *map(len, files)]))


def chunks(texts: Ragged) -> list[slice]:
    """Slices of rows of some 4 MB each."""
    marks = texts.offsets[0] + np.arange(0, texts.nbytes, _PIECE)
    edges = np.unique([0, *np.searchsorted(texts.offsets[:-1], marks), len(texts)])
    return [slice(int(first), int(last)) for first, last in itertools.pairwise(edges)]


def blank(texts: Ragged) -> np.ndarray:
    """bool (N,): texts without a byte other than ASCII blanks."""
    counts = [_per_row(~_BLANK[_bytes(some)], some) for some in map(texts.__getitem__, chunks(texts))]
    return np.concatenate([np.zeros(0, np.int64), *counts]) == 0


def _bytes(texts: Ragged) -> np.ndarray:
    return texts.values[texts.offsets[0] : texts.offsets[-1]]


def _per_row(marks: np.ndarray, texts: Ragged) -> np.ndarray:
    """int64 (N,): how many bytes of each text are marked (bool)."""
    counts, filled = np.zeros(len(texts), np.int64), texts.lengths > 0
    if filled.any():
        begins = (texts.offsets[:-1] - texts.offsets[0])[filled]
        counts[filled] = np.add.reduceat(marks.view(np.uint8), begins, dtype=np.int64)
    return counts


def same(texts: Ragged, fold: bool = False) -> np.ndarray:
    """int64 (N,): equal for equal texts (by a hash of 64 bits). fold: also for those that differ in the case of ASCII
    letters, and in blanks and punctuation between words."""
    from pandas.util import hash_array

    hashes = [np.zeros(0, np.uint64)]
    for some in map(texts.__getitem__, chunks(texts)):
        folded = _folded(some) if fold else some
        held, begin = _bytes(folded).tobytes(), int(folded.offsets[0])
        ends = (folded.offsets - begin).tolist()
        rows = np.empty(len(folded), object)
        rows[:] = [held[first:last] for first, last in itertools.pairwise(ends)]
        hashes.append(hash_array(rows, categorize=False))
    return np.unique(np.concatenate(hashes), return_inverse=True)[1].astype(np.int64)


def _folded(texts: Ragged) -> Ragged:
    """ASCII letters in lower case, and one blank for whatever stands between words."""
    values = _FOLDED[_bytes(texts)]
    space = values == 32
    keep = np.concatenate([[True], space])  # first: whether a blank, or nothing, stands before
    keep[texts.offsets - texts.offsets[0]] = True
    keep = keep[:-1]
    keep &= space
    np.logical_not(keep, out=keep)
    kept, lengths = values[keep], _per_row(keep, texts)
    filled = np.flatnonzero(lengths)
    ends = np.cumsum(lengths)[filled] - 1
    trailing = kept[ends] == 32
    lengths[filled[trailing]] -= 1
    return Ragged(np.delete(kept, ends[trailing]), np.concatenate([[0], np.cumsum(lengths)]))


def _together(given: np.ndarray, groups: np.ndarray, note: Any) -> tuple[np.ndarray, int]:
    """(part with every group of duplicates on its earliest side, how many rows that moved)."""
    if not given.any():
        return given, 0
    earliest = np.full(int(groups.max()) + 1, 2, np.int8)
    np.minimum.at(earliest, groups, given)
    part = earliest[groups]
    moved = int((part != given).sum())
    if moved and not (part == 2).any() and (given == 2).any():
        note("every test row is also a training row: the given split is not used")
        return np.zeros_like(part), moved
    if moved:
        note(f"moved {moved:,} duplicates of training rows out of the other parts, where they would leak")
    return part, moved


# -- folders ----------------------------------------------------------------------------------------------------


def _readable_members(path: Path, repairs: textfiles.Repairs) -> dict[str, np.ndarray]:
    """{name: UTF-8} of the text files in a folder or archive; what cannot be read is told in `repairs`."""
    found: dict[str, np.ndarray] = {}
    others = []
    for name, read in track(textfiles.members(path), None, "reading texts"):
        if textfiles.is_text(name) or textfiles.part_of(name) is not None:
            try:
                raw = textfiles.unpacked(name, read())
                if len(raw):
                    found[name] = textfiles.to_utf8(raw, repairs)
                else:
                    repairs.refused[name] = "empty"
            except textfiles.Refused as error:
                repairs.refused[name] = str(error)
        else:
            others.append(name)
    if not found:
        why = ", ".join(f"{name}: {why}" for name, why in list(repairs.refused.items())[:3])
        held = f"{len(others)} other files" if others else "no files"
        raise DataError(f"no text in {path} ({why or f'it holds {held}'})", "give files such as .txt, in UTF-8")
    return dict(sorted(found.items()))


def _are_classes(names: Sequence[str], labels: np.ndarray) -> bool:
    """Whether the folders are classes: two or more, nearly all of their files right in them, and few files beside them."""
    depth = np.array([name.count("/") for name in names])
    labelled = depth[labels >= 0]
    if len(np.unique(labels[labels >= 0])) < 2:
        return False
    return bool((labelled == labelled.min()).mean() >= _MOSTLY and (depth == 0).mean() <= 1 - _MOSTLY)
