"""What texts and pairs have in common: rows in given parts, and copies that must not be parted."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from papertrial.data.base import Data
from papertrial.data.labels import as_words


class Parted(Data):
    """Rows in given parts, of which those that are the same (`copies`) are kept together."""

    _part: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]

    def label_words(self) -> list[str]:
        return as_words(self.labels, self.class_names)

    @cached_property
    def _moved(self) -> tuple[np.ndarray, int]:
        return _together(self._part, self.copies, self.note)

    @property
    def part(self) -> np.ndarray:
        return self._moved[0]

    def _take_part(self, part: np.ndarray) -> None:
        self._moved = part, 0

    @property
    def moved(self) -> int:
        """How many rows stand in another part than they were given in."""
        return self._moved[1]

    @property
    def given_split(self) -> bool:
        return bool((self.part == 2).any())


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
