"""Pairs of texts, with or without a score or a label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from papertrial.core.errors import DataError
from papertrial.core.kind import Kind
from papertrial.core.task import Ragged
from papertrial.data.base import Look, fingerprint
from papertrial.data.texts.look import look_pairs
from papertrial.data.texts.parted import Parted
from papertrial.data.texts.utf8 import as_ragged, blank, concatenated, same

KIND = Kind(
    name="pairs",
    data="papertrial.data.texts.pairs:Pairs",
    order=70,
    samples={"python-pairs": "papertrial.data.toy:python_pairs"},
    labelled="a folder per class",
    backbones={"minilm": "encoder", "text_transformer": ""},
    pretrained="minilm",
    small_backbone="text_transformer",
    unsuitable="images",
    tokenised=True,
    shown="papertrial.study.examples:texts",
)


class Pairs(Parted):
    """Pairs of texts, with or without a score (how alike the two are) or a label.

    first, second: Ragged uint8, UTF-8.  scores: float64 (N,), NaN = none.  labels: int64 (N,), -1 = none.
    third: Ragged or None, for each pair a text that is not like the first (a hard negative).
    class_names, names, part, copies, empty, columns: as for `Texts`; a pair is the same the other way round.
    """

    kind = "pairs"
    target_is_column = True

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
        pieces = [first.values, first.offsets, second.values, second.offsets, self.scores, self.labels, self._part]
        pieces += [] if third is None else [third.values, third.offsets]
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
        both = same(concatenated([self.first, self.second]), fold=True)
        return both.reshape(2, -1)

    @cached_property
    def copies(self) -> np.ndarray:
        return np.unique(np.sort(self.sides, axis=0), axis=1, return_inverse=True)[1].reshape(-1).astype(np.int64)

    def look(self) -> Look:
        """The facts page: see `texts/look.py`."""
        return look_pairs(self)
