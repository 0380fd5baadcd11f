"""Texts: UTF-8 bytes in one array, labels, parts, and which of them are the same. Pairs of texts are in `pairs`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from papertrial.core.errors import DataError
from papertrial.core.kind import Kind
from papertrial.core.task import Ragged
from papertrial.data import textfiles
from papertrial.data.base import Look, fingerprint, track
from papertrial.data.labels import as_labels, own_labels
from papertrial.data.layout import layout
from papertrial.data.texts.look import look
from papertrial.data.texts.pairs import Pairs
from papertrial.data.texts.parted import Parted
from papertrial.data.texts.utf8 import as_ragged, blank, chunks, concatenated, files_as_rows, same

__all__ = ["Pairs", "Texts", "as_ragged", "blank", "chunks", "files_as_rows", "same"]

KIND = Kind(
    name="text",
    data="papertrial.data.texts:Texts",
    opens="papertrial.data.texts.recognise:opens",
    order=60,
    reads="papertrial.data.texts.recognise:reads",
    samples={
        "python-lines": "papertrial.data.toy:python_lines",
        "python-docs": "papertrial.data.toy:python_docs",
        "python-source": "papertrial.data.toy:python_source",
    },
    labelled="a folder per class",
    backbones={"minilm": "encoder", "text_transformer": ""},
    pretrained="minilm",
    small_backbone="text_transformer",
    unsuitable="images",
    tokenised=True,
    shown="papertrial.study.examples:texts",
)

_MOSTLY = 0.9  # share of the files that must lie as classes do for folders to be classes


class Texts(Parted):
    """Texts with or without labels.

    texts: Ragged uint8, UTF-8.  labels: int64 (N,), -1 = unlabelled.  class_names: sorted.  names: file, line or row of
    each; unit: which of these.  part: int8 (N,), 0 = train or free, 1 = valid, 2 = test; texts that equal a training text
    are moved to its side.  copies: int64 (N,), equal for texts that differ in case, blanks and punctuation at most.  empty: bool (N,),
    nothing but blanks.  documents, document_part: the whole texts with their line breaks, for models of running text,
    where `texts` are lines of them; else the same as `texts`.  columns: what they were in a table, {"text": names,
    "target": name, "pairs": bool}, so that new data is read in the same way; empty elsewhere.  unreadable: how many files of a
    folder or archive of texts could not be read.
    """

    kind = "text"
    unreadable = 0

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
        self.target_is_column = bool(self.columns)
        self.documents = texts if documents is None else documents
        self.document_part = self._part if document_part is None else np.asarray(document_part, np.int8)
        key = fingerprint(texts.values, texts.offsets, self.labels, self._part, *self.class_names)
        super().__init__(name, key, notes)
        self.empty = blank(texts)
        if self.empty.all():
            raise DataError(f"{name} holds no text but blanks", "check how it was made")

    @property
    def lost(self) -> dict[str, int]:
        return {"file that cannot be read": self.unreadable} if self.unreadable else {}

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
                found = cls._of_documents(files, path.name, repairs)
                found.unreadable = len(repairs.refused)
                return found
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
        lines, numbers = concatenated([lines for lines, _ in read]), np.concatenate([row for _, row in read])
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
        made = cls(ragged, codes, names, part, name=name)
        made.own = own_labels(labels, names) if class_names is None else {}
        return made

    # -- facts --------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def copies(self) -> np.ndarray:
        return same(self.texts, fold=True)

    def look(self) -> Look:
        """The facts page: see `texts/look.py`."""
        return look(self)


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
