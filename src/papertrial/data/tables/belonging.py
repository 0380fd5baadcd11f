"""Which column of a table says what rows belong together, and which rows are the same."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from papertrial.data.belonging import joined
from papertrial.data.tables.column_values import Column
from papertrial.data.tables.row_hashes import DIGITS, combined

if TYPE_CHECKING:
    from papertrial.data.tables import Table

#: names of columns whose values are somebody or something that rows are about, alone or with the words of an id
_GROUP_NAME = re.compile(
    r"(patient|user|subject|speaker|person|participant|customer|client|student|pupil|author|donor|session|document|doc|case|"
    r"household|family|animal|visitor|member|respondent|conversation|dialogue|interview|recording|specimen)"
    r"([ _.-]?(id|nr|no|num|number|key|code|uid|uuid))?",
    re.IGNORECASE,
)
_FEWEST = 10  # groups
_MOST = 0.75  # groups for each row: an id whose values hardly repeat groups nothing
_LONG = 40  # characters of an id


def group_column(columns: Iterable[Column], rows: int, target: str | None) -> str | None:
    """The column that is obviously an id with repeats, None where there is none or more than one."""
    found = [
        column.name
        for column in columns
        if column.name != target
        and _GROUP_NAME.fullmatch(column.name)
        and _FEWEST <= column.unique <= _MOST * (rows - column.missing)
        and _are_ids(column)
    ]
    return found[0] if len(found) == 1 else None


def _are_ids(column: Column) -> bool:
    """Whether the values are whole numbers or short words, and not prose or measurements."""
    if column.form == "text":
        return all(len(value) <= _LONG and value.count(" ") < 3 for value in column.categories)
    return column.form == "number"


def same_rows(table: Table) -> np.ndarray:
    """int64 (rows,), equal for rows whose used columns are equal, and for rows that agree with their target to the digits that
    the facts page counts by; each row is its own where the columns have so few possible rows that repeats are to be expected."""
    if table.repeats_expected:
        return np.arange(table.rows)
    exact = np.unique(table.row_hashes, return_inverse=True)[1].reshape(-1).astype(np.int64)
    told = [*table.used, *(column for column in table.columns.values() if column.name == table.target)]
    views = [table.bits(column.name) if column.form == "text" else table.floats(column.name) for column in told]
    if not any(view.dtype == np.float64 for view in views):
        return exact
    rounded = combined(views, table.rows, DIGITS)
    if len(np.unique(rounded)) == len(np.unique(combined(views, table.rows))):
        return exact
    near = np.unique(rounded, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return joined(exact, near)
