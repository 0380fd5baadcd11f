"""Memory that could not be had, named as what it is, whoever asked for it: Python, NumPy, Arrow, PyTorch, the system or a
library beneath them."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from papertrial.core.budget import size_in_words
from papertrial.core.errors import PapertrialError, TrainingStopped

#: what libraries write that have no exception of their own for it
_SAID = re.compile(
    r"can't allocate memory|cannot allocate memory|out of memory|unable to allocate|not enough memory|std::bad_alloc|"
    r"bad allocation|failed to allocate|_ALLOC_FAILED|alloc(ation)? of \d+ failed|malloc of size \d+ failed",
    re.IGNORECASE,
)
_ASKED = re.compile(
    r"(?:tried to allocate|unable to allocate|malloc of size|alloc(?:ation)? of)\s+([\d.]+)\s*(bytes|[KMGTPE]i?B)?",
    re.IGNORECASE,
)
_UNITS = {"": 1, "BYTES": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50, "E": 2**60}


class OutOfMemory(TrainingStopped):
    """Memory ran out. Of a method in a comparison the others go on."""

    exit_code = 2


def ran_out(error: BaseException | None) -> str | None:
    """How much was asked for, in words; empty where that is not said, None where the error is another one.

    Errors behind the error count: many libraries put one of their own around it.
    """
    seen = 0
    while error is not None and seen < 10:
        text = str(error)
        system = isinstance(error, OSError) and error.errno == errno.ENOMEM
        known = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        if known or system or (not isinstance(error, PapertrialError) and _SAID.search(text)):
            asked = _ASKED.search(text)
            if asked is None:
                return ""
            unit = (asked[2] or "").upper()
            return (
                f"{size_in_words(float(asked[1]) * _UNITS[unit if unit == 'BYTES' else unit[:1]])} more were asked for"
            )
        error, seen = error.__cause__ or error.__context__, seen + 1
    return None


def out_of_memory(error: BaseException, what: str, fix: str) -> OutOfMemory | None:
    """The error in one line, None where it is another one. what: who ran out of memory, "" for nobody in particular."""
    asked = ran_out(error)
    if asked is None:
        return None
    return OutOfMemory(f"{f'{what} ran ' if what else ''}out of memory{f': {asked}' if asked else ''}", fix)


@contextmanager
def naming(what: str, fix: str) -> Iterator[None]:
    """Raise OutOfMemory in place of an error that says in its own words that memory ran out."""
    try:
        yield
    except Exception as error:
        if named := None if isinstance(error, PapertrialError) else out_of_memory(error, what, fix):
            raise named from error
        raise
