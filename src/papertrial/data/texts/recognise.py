"""Which sources hold texts or pairs of them, and how they are opened."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from papertrial.core.errors import DataError
from papertrial.data import textfiles
from papertrial.data.base import Data
from papertrial.data.given import Given
from papertrial.data.tables import Table
from papertrial.data.texts import Texts, columns, judged
from papertrial.data.texts.pairs import Pairs


def opens(given: Given) -> Data | None:
    """Texts from files, or texts and pairs from strings; None for anything else."""
    if given.form == "strings":
        return _from_strings(given)
    if given.path is None or given.form == "hub":
        return None
    if given.is_folder or given.is_archive:
        return Texts.from_files(given.path) if given.mostly == "text" else None
    if given.is_sheet or given.is_pickle:
        return None
    plain = Path(textfiles.bare_name(given.path.name.lower()))
    if plain.suffix in textfiles.SUFFIXES or textfiles.looks_like_text(given.path):
        return Texts.from_files(given.path)
    return None


def _from_strings(given: Given) -> Data:
    """Strings or pairs of strings by part, alone or with labels or scores."""
    split = given.strings or {}
    texts = [text for some, _ in split.values() for text in some]
    lengths = [len(some) for some, _ in split.values()]
    targets = [[None] * len(some) if target is None else list(target) for some, target in split.values()]
    for (some, _), target in zip(split.values(), targets, strict=True):
        if len(target) != len(some):
            raise DataError(f"{len(some)} examples but {len(target)} labels", "give one value per example")
    known = any(target is not None for _, target in split.values())
    joined = [value for target in targets for value in target] if known else None
    part = np.repeat(list(split), lengths).astype(np.int8) if len(split) > 1 else None
    if given.in_pairs:
        return Pairs.from_strings(texts, joined, part)
    labels = None if joined is None else np.array(joined, object if None in joined else None)
    return Texts.from_strings(texts, labels, part=part)


def reads(table: Table, given: Given) -> Data | None:
    """The texts or pairs that a table holds, or None."""
    return columns.from_table(table, _columns(table, given), given.target, given.like)


def reads_judged(table: Table, given: Given) -> Data | None:
    """The judged outputs that a table holds, or None."""
    return judged.from_table(table, _columns(table, given), given.target, given.like)


def _columns(table: Table, given: Given) -> tuple[str, ...]:
    """The columns that the user named: one, where its own name has a comma."""
    return (given.column,) if len(given.columns) > 1 and given.column in table.columns else given.columns
