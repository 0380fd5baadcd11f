"""Rows of a table as 64-bit hashes: which are equal, which are nearly equal, which stand in two parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: significant digits in which near duplicates agree
DIGITS = 3
_PIECE = 1 << 18  # rows at a time, so that the work needs little memory
_GOLDEN = 0x9E3779B97F4A7C15


def mixed(bits: np.ndarray) -> np.ndarray:
    """uint64 scrambled one to one: the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def combined(columns: Sequence[np.ndarray], rows: int, digits: int | None = None) -> np.ndarray:
    """One hash uint64 (rows,) per row over columns of uint64 (rows,).

    digits: columns that are views of float64 are first rounded to so many significant digits; which columns those
    are is told by their dtype, float64 instead of uint64.
    """
    result = np.zeros(rows, np.uint64)
    for start in range(0, rows, _PIECE):
        piece = slice(start, start + _PIECE)
        for index, column in enumerate(columns):
            values = column[piece]
            if values.dtype == np.float64:
                values = (values if digits is None else rounded(values, digits)).view(np.uint64)
            salt = np.uint64((index + 1) * _GOLDEN % 2**64)
            result[piece] += mixed(values + salt)
    return result


def rounded(values: np.ndarray, digits: int) -> np.ndarray:
    """float64 to so many significant digits; NaN and 0 stay."""
    size = np.abs(values)
    exponent = np.floor(np.log10(np.where(size > 0, size, 1.0)))
    unit = 10.0 ** (exponent - digits + 1)
    return np.round(values / unit) * unit + 0.0


def repeated(hashes: np.ndarray) -> int:
    """How many rows equal an earlier one."""
    ordered = np.sort(hashes)  # which is far faster than np.unique on numbers without order
    return int((ordered[1:] == ordered[:-1]).sum())


def conflicting(features: np.ndarray, targets: np.ndarray) -> int:
    """How many rows have a twin with the same features and another target (bits uint64, both (rows,))."""
    if not len(features):
        return 0
    order = np.lexsort((targets, features))
    same = features[order][1:] == features[order][:-1]
    other = same & (targets[order][1:] != targets[order][:-1])
    group = np.concatenate([[0], np.cumsum(~same)])
    return int(np.isin(group, group[1:][other]).sum())


def spread_over_parts(hashes: np.ndarray, part: np.ndarray) -> np.ndarray:
    """`part` int8 with equal rows in one part, the earliest of theirs (train before validation before test)."""
    distinct, group = np.unique(hashes, return_inverse=True)
    first = np.full(len(distinct), part.max(), part.dtype)
    np.minimum.at(first, group, part)
    return first[group]
