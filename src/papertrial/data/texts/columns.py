"""Which columns of a table hold text, and the texts or pairs in them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from shlex import quote
from typing import Any

import numpy as np

from papertrial.core.errors import DataError, did_you_mean
from papertrial.core.task import Ragged
from papertrial.core.wording import counted
from papertrial.data import textfiles
from papertrial.data.tables import Table
from papertrial.data.tables.column_values import Column
from papertrial.data.texts import Texts
from papertrial.data.texts.pairs import Pairs
from papertrial.data.texts.utf8 import bytes_of

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
_FOREIGN = 0.4  # share of bytes beyond ASCII from which a file that is not UTF-8 is in no Western language
_ALIKE = 3.0  # most by which the mean lengths of two columns differ that hold pairs
# names of targets, the likeliest first
_TARGETS = ("target", "label", "labels", "class", "category", "sentiment", "topic", "score", "rating", "stars", "y")


def from_table(
    table: Table, text: Sequence[str] = (), target: str | None = None, like: Mapping[str, Any] | None = None
) -> Texts | Pairs | None:
    """The texts or pairs in a table, or None where it is a table like others.

    text: the columns that hold text, found where there are none: then all columns besides the target must be text, or
    not be of use.  target: as the user named it.  like: the `columns` of earlier data, read in the same way where the
    table has them.  Raises DataError for a column that is not there.
    """
    if like and "text" not in like:  # of a table that held no texts
        return None
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
        scores, labels, class_names = _pair_target(table, goal, notes)
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
    texts = Texts(read[0], labels, class_names, notes=notes, unit="row", **here)
    texts.own = {} if labels is None else table.own_labels(goal)
    return texts


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
        goals = [name for name in others if table.columns[name].unique > 1]
        what = f"column {prose[0]!r} holds" if len(prose) == 1 else f"columns {' and '.join(map(repr, prose[:2]))} hold"
        chosen = f" with {' or '.join(f'--target {name}' for name in goals[:3])}" if goals else ""
        table.note(
            f"{what} text, which is of no use to a table; to read it as such:"
            f" {quote(f'{table.name}#' + ','.join(prose[:2]))}{chosen}"
        )
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
    foreign = sum(int(np.count_nonzero(bytes_of(column) >= 128)) for column in read)
    if not table.utf8 and foreign > _FOREIGN * sum(column.nbytes for column in read):
        raise DataError(f"{table.name} is neither in UTF-8 nor in a Western encoding", "save it as UTF-8")


def _pair_target(
    table: Table, goal: str | None, notes: list[str]
) -> tuple[np.ndarray | None, np.ndarray | None, tuple[str, ...]]:
    if goal is None:
        return None, None, ()
    if missing := table.columns[goal].missing:
        notes.append(f"{counted(missing, 'row')} without a target: not used to train or score supervised methods")
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
    labels = table.labels(goal)
    notes += [line for line in table.notes if line.startswith(f"target {goal!r} holds several labels")]
    return labels


def _lines_together(columns: Sequence[Ragged]) -> Ragged:
    """The texts of several columns below each other, those that are empty left out."""
    rows = []
    for row in range(len(columns[0])):
        rows.append(b"\n".join(cell for cell in (column[row].tobytes() for column in columns) if cell.strip()))
    return textfiles.joined(rows)
