"""What became of the rows of new data between the file and a model, and which of them the model has met before.

Rows in = rows answered + rows left out, each with why. The rows a model was trained on, or chosen with, are kept as hashes
of 64 bits beside its weights: of more than KEPT the smallest, which are a fair sample of all.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from papertrial.core.doors import read_array
from papertrial.core.files import write_with
from papertrial.core.html import page
from papertrial.core.offers import task_offers
from papertrial.core.run import AGAIN
from papertrial.core.task import Prepared, Ragged, Scores, Split, Task
from papertrial.core.wording import counted
from papertrial.data.tables.row_hashes import combined
from papertrial.data.textfiles import lines_of

#: hashes of training rows that are kept at most: 1 MiB
KEPT = 1 << 17
HASHES = "rows.npy"
#: bytes of a line of running text that is told from others
_LINE = 32
_NAMED = 5  # labels named in a note
#: why a row is not judged
_NOT_KNOWN, _NO_LABEL, _NO_DOCUMENT = "label not known", "no label", "no relevant document"
_PIECE = 1024  # rows of a large column that are taken together


@dataclass
class Encoded:
    """New data as the columns of a model. names: of the examples in `split`, in their order.

    notes: lines worth saying, of reading the data and of encoding it.  left_out: why -> how many rows are no examples.
    """

    split: Split
    opened: Any
    names: np.ndarray
    notes: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """How many there were, with those that are left out."""
        return self.split.examples + sum(self.left_out.values())

    def to_json(self) -> dict[str, Any]:
        return {"rows_in": self.rows, "left_out": self.left_out, "notes": self.notes}


@dataclass(frozen=True, repr=False)
class Evaluation(Scores):
    """Scores on new data, with what was said of it. rows: how many there were.  left_out: why -> how many are not judged."""

    rows: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return "\n".join([super().__repr__(), *(f"note: {line}" for line in self.notes)])

    def _repr_html_(self) -> str:
        return page(self._head(), rows=self._rows(), lines=[*self.remarks, *(f"note: {line}" for line in self.notes)])


def encoded(task: Task, model: Any, state: dict[str, Any], opened: Any) -> Encoded:
    """Opened data as the columns of a model, with all that is lost on the way. Raises DataError as the task does."""
    before = set(opened.notes)
    split = task.encode(state, opened)
    held = task_offers(task)
    read = opened.notes if opened.read_notes is None else opened.read_notes
    lines = [*read, *(line for line in opened.notes if line not in before)]
    lines += held.unseen(state, split) if held.unseen else []
    lines += held.cut(model, split) if held.cut else []
    names, left_out = np.asarray(opened.names), dict(opened.lost)
    if "row" in split:  # of which a task has not taken all
        names = names[split["row"]]
        if missing := len(opened.names) - split.examples:
            why = "without a caption" if held.captions else "not taken by the task"
            left_out[why] = missing
            lines.append(f"left out: {counted(missing, 'row')} {why}")
    elif split.examples != len(names):  # windows of running text
        names = np.arange(1, split.examples + 1)
    return Encoded(split, opened, names, list(dict.fromkeys(lines)), left_out)


# ------------------------------------------------------------------------------------------------------------- labels


def without_label(
    given: Encoded, state: Mapping[str, Any], strict: bool = False
) -> tuple[np.ndarray, np.ndarray, dict[str, int], list[str]]:
    """Which rows cannot be judged as they are and which of them have a label all the same, one the model does not know: bool
    (N,) each; why -> how many are not judged; and lines that name the labels. strict: the latter are judged, as wrong."""
    split = given.split
    strange = np.zeros(split.examples, dtype=bool)
    if "label" in split:
        bare = np.asarray(split["label"]) < 0
    elif "target" in split and not isinstance(split["target"], Ragged):
        bare = ~np.isfinite(np.asarray(split["target"], dtype=np.float64))
    elif "grade" in split:
        bare = np.array([not (grade > 0).any() for grade in split["grade"]], dtype=bool)
    else:
        bare = strange
    if not bare.any():
        return bare, strange, {}, []
    lines = []
    if "label" in split and "class_names" in state:
        words = np.array(_words(given.opened, state.get("target")), dtype=object)
        words = words[split["row"]] if "row" in split and len(words) else words
        strange = bare & (words != "") if len(words) else strange
    if strange.any():
        found = Counter(words[strange].tolist())
        known = [str(name) for name in state["class_names"]]
        lines.append(
            f"{strange.sum():,} of {split.examples:,} rows have a label this model does not know: {_some(found)}; it knows "
            f"{', '.join(known[:_NAMED])}{', ...' if known[_NAMED:] else ''}: "
            f"{'counted wrong' if strict else 'not judged; --strict counts them wrong'}"
        )
    if without := int((bare & ~strange).sum()):
        what = ("query has", "queries have") if "grade" in split else ("row has", "rows have")
        lines.append(f"{counted(without, *what)} {_NO_LABEL if 'grade' not in split else _NO_DOCUMENT}: not judged")
    left_out = {
        _NOT_KNOWN: 0 if strict else int(strange.sum()),
        _NO_DOCUMENT if "grade" in split else _NO_LABEL: without,
    }
    return bare, strange, {why: count for why, count in left_out.items() if count}, lines


def _words(opened: Any, target: str | None) -> list[str]:
    """The labels as they stand in the data, of a table in the column of the target."""
    if opened.kind != "table" or target is None:
        return list(opened.label_words())
    return [text.strip() for text in opened.texts([target])[0].texts()]


def counted_wrong(outputs: np.ndarray, split: Split, state: dict[str, Any]) -> tuple[np.ndarray, Split, dict[str, Any]]:
    """Outputs, rows and state where each row without a known label is of a class more, which is never answered."""
    label = np.asarray(split["label"])
    label = np.where(label < 0, len(state["class_names"]), label)
    more = {**state, "class_names": [*state["class_names"], "(not known)"]}
    return np.pad(outputs, ((0, 0), (0, 1))), Split({**split, "label": label}), more


def _some(found: Mapping[str, int]) -> str:
    most = sorted(found.items(), key=lambda pair: -pair[1])
    named = ", ".join(f"{name[:40]!r} ({count:,})" for name, count in most[:_NAMED])
    return named + (f", and {len(most) - _NAMED} more" if most[_NAMED:] else "")


# ------------------------------------------------------------------------------------------------- rows that were met


def keep_hashes(folder: Path, task: Task, prepared: Prepared) -> None:
    """Write the hashes of the training and validation rows into the run's folder, where the task has rows to tell apart."""
    hashes = [row_hashes(task, part) for part in (prepared.train, prepared.valid) if part.examples]
    kept = np.unique(np.concatenate([found for found in hashes if found is not None] or [np.zeros(0, np.uint64)]))
    write_with(folder / HASHES, lambda temporary: _save(temporary, kept[:KEPT]))


def met(folder: Path, task: Task, split: Split) -> np.ndarray | None:
    """Which rows of `split` equal one that the model was trained on or chosen with: bool (N,), or of fewer rows, a sample,
    where the model saw more than KEPT. None where that is not known."""
    file = folder / HASHES
    hashes = row_hashes(task, split) if file.exists() else None
    if hashes is None or not len(hashes):
        return None
    kept = read_array(file, AGAIN.replace("{folder}", str(folder)), "u", 1)
    if len(kept) == KEPT:
        hashes = hashes[hashes <= kept[-1]]
    return np.isin(hashes, kept)


def row_hashes(task: Task, split: Split) -> np.ndarray | None:
    """uint64 (N,), equal for rows whose inputs are equal; of running text that of each longer line. None without inputs."""
    names = [name for name in task.inputs if name in split] or [name for name in ("text", "source") if name in split]
    columns = [split[name] for name in names if name not in ("query", "documents")]
    if not columns:
        return None
    if _is_running_text(task):
        lines = lines_of(columns[0].values[columns[0].offsets[0] : columns[0].offsets[-1]])[0]
        return _of_rows(lines[np.flatnonzero(lines.lengths >= _LINE)])
    plain: list[np.ndarray] = []
    for column in columns:
        if isinstance(column, Ragged) or column.ndim != 2:
            plain.append(_of_rows(column))
        else:
            values = np.asarray(column, dtype=np.float64) + 0.0  # one zero, and one NaN
            plain += list(np.where(np.isnan(values), np.nan, values).T)
    return combined(plain, split.examples)


def _of_rows(column: Any) -> np.ndarray:
    found = np.empty(len(column), np.uint64)
    for begin in range(0, len(column), _PIECE):
        for place, row in enumerate(column[begin : begin + _PIECE], begin):
            digest = hashlib.blake2b(np.ascontiguousarray(row).data, digest_size=8).digest()
            found[place] = int.from_bytes(digest, "little")
    return found


def _save(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as stream:
        np.save(stream, array, allow_pickle=False)


def said_of_met(seen: np.ndarray | None, task: Task, split: Split) -> list[str]:
    """A line where some rows are among those a model was trained on. seen: as `met` found them."""
    if seen is None or not seen.any():
        return []
    if _is_running_text(task):
        return [f"{seen.mean():.0%} of its longer lines are among those it was trained on or chosen with"]
    about = "" if len(seen) == split.examples else "about "
    count = round(split.examples * float(seen.mean()))
    return [f"{about}{count:,} of {split.examples:,} rows equal one that it was trained on or chosen with"]


def _is_running_text(task: Task) -> bool:
    return task.inputs == ("ids",) and task_offers(task).judged_without_labels
