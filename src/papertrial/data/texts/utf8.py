"""Texts as UTF-8 bytes in one array: from strings and files, in pieces, and which of them are blank or the same."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from papertrial.core.errors import DataError
from papertrial.core.task import Ragged

_PIECE = 1 << 22  # bytes of text worked on together
_BLANK = np.isin(np.arange(256), list(b" \t\n\r\x0b\x0c"))
# of each ASCII byte the lower case, and a blank for all that is no letter or digit; other bytes stay
_FOLDED = np.frombuffer(
    bytes(ord(chr(byte).lower()) if chr(byte).isalnum() else 32 for byte in range(128)) + bytes(range(128, 256)),
    np.uint8,
)


def as_ragged(texts: Sequence[Any]) -> Ragged:
    """Strings as UTF-8; None and NaN as empty. Raises DataError for anything else."""
    strings = ["" if text is None or text != text else text for text in texts]
    wrong = next((row for row, text in enumerate(strings) if not isinstance(text, str)), None)
    if wrong is not None:
        raise DataError(f"text {wrong + 1} is a {type(strings[wrong]).__name__}", "give strings")
    return Ragged.of_texts(strings)


def concatenated(parts: Sequence[Ragged]) -> Ragged:
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
    counts = [_per_row(~_BLANK[bytes_of(some)], some) for some in map(texts.__getitem__, chunks(texts))]
    return np.concatenate([np.zeros(0, np.int64), *counts]) == 0


def bytes_of(texts: Ragged) -> np.ndarray:
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
        held, begin = bytes_of(folded).tobytes(), int(folded.offsets[0])
        ends = (folded.offsets - begin).tolist()
        rows = np.empty(len(folded), object)
        rows[:] = [held[first:last] for first, last in itertools.pairwise(ends)]
        hashes.append(hash_array(rows, categorize=False))
    return np.unique(np.concatenate(hashes), return_inverse=True)[1].astype(np.int64)


def _folded(texts: Ragged) -> Ragged:
    """ASCII letters in lower case, and one blank for whatever stands between words."""
    values = _FOLDED[bytes_of(texts)]
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
