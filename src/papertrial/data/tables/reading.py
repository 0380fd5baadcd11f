"""How a table is to be read: what the user says of it, and what was settled when a model was trained on one like it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from papertrial.core.errors import PapertrialError

#: texts that stand for a missing value, wherever they are
STRONG = ("", "#N/A", "<NA>", "nan", "NaN", "NAN", "NaT", "null", "NULL", "Null", "?", "-")
#: texts that do so where they stand among numbers, dates or booleans, or the table has them there; else they are categories
WEAK = ("NA", "N/A", "n/a", "N/a", "na", "Na", "None", "none", "NONE", "#n/a", "<na>", "Nan", "nat")
MISSING = (*STRONG, *WEAK)
ORDERS = ("dmy", "mdy")


@dataclass(frozen=True)
class Reading:
    """dates: `dmy` or `mdy` where the values of a column do not tell, "" for neither.  missing: the texts that alone stand for
    a missing value beside an empty cell, None for the usual ones.  forms: by column, how it is read (see `written`), settled
    on earlier data, of which target was the column to predict.  words: the texts that were taken for missing then, where a
    column holds texts."""

    dates: str = ""
    missing: tuple[str, ...] | None = None
    forms: Mapping[str, str] = field(default_factory=dict)
    words: tuple[str, ...] | None = None
    target: str | None = None

    @classmethod
    def of(
        cls, dates: str | None = None, missing: str | Sequence[str] | None = None, like: Mapping[str, Any] | None = None
    ) -> Reading:
        """From what a user gives, and from what earlier data left behind (see `to_json`), which the user overrules.

        missing: texts, or one text with commas between them; `none` for none.  Raises PapertrialError for another order.
        """
        if dates is not None and dates not in ORDERS:
            raise PapertrialError(f"--dates is {dates!r}", "type --dates dmy (day first) or --dates mdy (month first)")
        known = like if like and "forms" in like else {}
        if missing is None:
            marks = None if known.get("missing") is None else tuple(known["missing"])
        else:
            given = missing.split(",") if isinstance(missing, str) else missing
            marks = tuple(dict.fromkeys(str(mark).strip() for mark in given))
            marks = () if marks == ("none",) else marks
        words = known.get("words") if missing is None else None
        forms = {
            name: f"date {dates}" if dates and form.startswith("date ") else form
            for name, form in known.get("forms", {}).items()
        }
        return cls(
            dates or known.get("dates", ""), marks, forms, None if words is None else tuple(words), known.get("target")
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "dates": self.dates,
            "missing": None if self.missing is None else list(self.missing),
            "forms": dict(self.forms),
            "words": None if self.words is None else list(self.words),
            "target": self.target,
        }

    @property
    def marks(self) -> tuple[str, ...]:
        """What may stand for missing."""
        return MISSING if self.missing is None else ("", *self.missing)

    @property
    def numbers(self) -> list[float]:
        """Those of the marks that are numbers."""
        found = []
        for mark in self.missing or ():
            try:
                found.append(float(mark))
            except ValueError:
                continue
        return found
