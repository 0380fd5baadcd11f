"""Errors a user can act on: one line that says what is wrong, where, and what to type next.

The command line prints `str(error)` without a traceback and exits with `error.exit_code`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from papertrial.core.wording import printable, shortened


class PapertrialError(Exception):
    """Something the user can mend. `problem` says what and where, `fix` what to type (both one line, and nothing in them controls
    a terminal)."""

    exit_code = 2

    def __init__(self, problem: str, fix: str = "") -> None:
        self.problem = printable(" ".join(shortened(str(problem)).split()))
        self.fix = printable(" ".join(str(fix).split()))
        super().__init__(f"{self.problem}; {self.fix}" if self.fix else self.problem)


class DataError(PapertrialError, ValueError):
    """The data cannot be read, or cannot be used for what was asked."""


class WrongValue(PapertrialError, ValueError):
    """An argument of the right type has a value that cannot be."""


class WrongType(PapertrialError, TypeError):
    """An argument is of a type that cannot be, or is none that is taken."""


class Declined(PapertrialError):
    """A method says it does not suit this task or this data, and why."""


class TrainingStopped(PapertrialError):
    """Training collapsed or met non-finite values; the last good checkpoint is kept."""

    exit_code = 3


def told_elsewhere(kind: str, problem: str, fix: str) -> PapertrialError:
    """The error of another process, of which only words came over: the class `kind` where it is known here."""
    classes = [PapertrialError]
    for known in classes:  # which grows on the way
        classes += known.__subclasses__()
    error = Exception.__new__(next((known for known in classes if known.__name__ == kind), PapertrialError))
    PapertrialError.__init__(error, problem, fix)  # whatever the class itself is made from
    return error


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`did you mean 'mlp_mixer'?`, or the known names when nothing is close."""
    names = sorted(known)
    folded = {candidate.casefold(): candidate for candidate in names}
    close = difflib.get_close_matches(name.casefold(), list(folded), n=1, cutoff=0.5)
    if close:
        return f"did you mean {folded[close[0]]!r}?"
    return f"known: {', '.join(names)}" if names else "nothing is known here yet"


def missing_extra(what: str, package: str, extra: str) -> PapertrialError:
    """The error for an optional package that is not installed."""
    return PapertrialError(
        f"{what} needs the package {package}, which is not installed", f"type: pip install 'papertrial[{extra}]'"
    )
