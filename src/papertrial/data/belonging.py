"""Which rows are no chance of their own, and when rows are from: what the user names with `group` and `time`.

Twenty visits of a patient, or twenty copies of a row, are one chance to be right and not twenty. Rows of one group stay on
one side of every split that is made here, and count once in every interval.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timezone

import numpy as np

from papertrial.core.errors import DataError

#: what switches off a group that was guessed
NONE = "none"
TEST_SHARE, VALID_SHARE = 0.2, 0.16  # of the rows with a time: the last ones, and those before them
_DAY = 86_400.0


def joined(first: np.ndarray, second: np.ndarray | None) -> np.ndarray:
    """Groups int64 (N,) of rows that either puts together, straight or through others.

    second: int64 (N,), -1 for rows that it puts with no other; None for no groups at all.
    """
    if second is None:
        return first
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    one = np.unique(first, return_inverse=True)[1].reshape(-1)
    other = np.unique(second, return_inverse=True)[1].reshape(-1) + one.max(initial=-1) + 1
    linked = second >= 0
    size = int(other.max(initial=-1)) + 1
    graph = coo_matrix((np.ones(linked.sum(), dtype=bool), (one[linked], other[linked])), (size, size))
    return connected_components(graph, directed=False)[1].astype(np.int64)[one]


def coded(values: Sequence[str]) -> np.ndarray:
    """int64 (N,): equal for equal words, -1 for empty ones."""
    words = np.array(list(values), dtype=object).astype(str)
    codes = np.unique(words, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return np.where(words == "", -1, codes)


def is_pattern(words: str) -> bool:
    """Whether it is a pattern for paths, and no name of a column."""
    return any(sign in words for sign in "()[]\\^*+")


def found_in(names: Sequence[str], pattern: str, option: str) -> list[str]:
    """What the one group of the pattern finds in each name, "" where it finds nothing.

    Raises DataError for a pattern that is none, has not one group, or finds nothing in any name.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DataError(f"--{option} {pattern!r} is no regular expression ({error})", "mend it") from None
    if compiled.groups != 1:
        raise DataError(
            f"--{option} {pattern!r} has {compiled.groups} groups in brackets",
            f"give one, as in --{option} '^([^_]+)_'",
        )
    found = [(match[1] or "") if (match := compiled.search(name)) else "" for name in names]
    if not any(found):
        raise DataError(
            f"--{option} {pattern!r} finds nothing in {names[0]!r} or any other of {len(names):,} paths", "mend it"
        )
    return found


def moments(values: Sequence[str], option: str = "time") -> np.ndarray:
    """Numbers or ISO dates as float64 (N,), dates as days since 1970, NaN for what is empty.

    Raises DataError for what is neither, naming the first such value.
    """
    found = np.full(len(values), np.nan)
    for row, value in enumerate(values):
        if not value:
            continue
        try:
            found[row] = float(value)
            continue
        except ValueError:
            pass
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise DataError(
                f"{value!r} is neither a number nor a date such as 2024-05-31", f"name another --{option}"
            ) from None
        found[row] = moment.replace(tzinfo=moment.tzinfo or timezone.utc).timestamp() / _DAY
    return found


def by_time(times: np.ndarray, groups: np.ndarray, judged: np.ndarray) -> tuple[np.ndarray, int]:
    """(part int8 (N,), how many rows their group left out).

    times: float64 (N,), NaN where it is not known: such rows are left out (-1).  groups: int64 (N,); a group stands on the
    side where it first appears, and its later rows are left out.  judged: bool (N,), rows that can be tested on, of which
    the last fifth is the test. Rows of one time stay on one side.  Raises DataError where a side stays empty.
    """
    known = np.isfinite(times)
    ordered = np.sort(times[known & judged])
    part = np.full(len(times), -1, dtype=np.int8)
    if len(ordered):
        edges = ordered[[int(len(ordered) * (1 - TEST_SHARE - VALID_SHARE)), int(len(ordered) * (1 - TEST_SHARE))]]
        part[known] = np.searchsorted(edges, times[known], side="right")
    group = np.unique(groups, return_inverse=True)[1].reshape(-1)
    earliest = np.full(group.max(initial=-1) + 1, 2, dtype=np.int8)
    np.minimum.at(earliest, group[known], part[known])
    later = known & (part > earliest[group])
    part[later] = -1
    empty = [
        name for side, name in enumerate(("train on", "validate on", "test on")) if not (judged & (part == side)).any()
    ]
    if empty:
        why = " once rows of groups that were met before are left out" if later.any() else ""
        raise DataError(f"by time there are no rows to {empty[0]}{why}", "leave --time out, or name another column")
    return part, int(later.sum())


def when(value: float, dates: bool) -> str:
    """A time in words: a date, or the number."""
    if not dates:
        return f"{value:g}"
    moment = datetime.fromtimestamp(value * _DAY, tz=timezone.utc)
    return moment.strftime("%Y-%m-%d" if value == int(value) else "%Y-%m-%d %H:%M")
