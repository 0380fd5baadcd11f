"""Outputs of systems beside a reference, with what people thought of them: what a metric of texts is judged on.

A table is read so where it has columns called as in NAMES for the system, the reference and the output. Several rows of one
output, as of several raters, become one with the mean of their scores. Of what `papertrial judge export` writes, the ratings
are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from papertrial.core.errors import DataError
from papertrial.core.kind import Kind
from papertrial.core.task import Ragged
from papertrial.data.base import Look
from papertrial.data.tables import Table
from papertrial.data.texts.pairs import Pairs
from papertrial.data.texts.utf8 import as_ragged, same

KIND = Kind(
    name="judged",
    data="papertrial.data.texts.judged:Judged",
    words="judged outputs",
    order=40,
    reads="papertrial.data.texts.recognise:reads_judged",
    samples={"python-outputs": "papertrial.data.toy:python_outputs"},
    labelled="a folder per class",
    unsuitable="pairs",
    shown="papertrial.study.examples:texts",
)

#: columns by what they hold, the likeliest name first
NAMES: Mapping[str, tuple[str, ...]] = {
    "system": ("system", "system_name", "model"),
    "reference": ("reference", "ref", "gold"),
    "output": ("output", "hypothesis", "candidate", "generated", "prediction", "summary"),
    "item": ("item", "item_id", "id", "segment", "segment_id", "doc_id", "example"),
    "score": ("score", "rating", "human_score", "human", "judgement", "judgment", "value"),
}
_NEEDED = ("system", "reference", "output")


class Judged(Pairs):
    """Pairs of a reference (`first`) and an output (`second`), with the system and the item of each.

    systems: names, sorted.  system: int64 (N,), places in them.  copies: int64 (N,), equal for outputs of one item, which
    stay on one side of a split; where the table names no items, outputs of one reference.  scores: of people, higher is
    better, NaN = none.  The rest is as for Pairs.
    """

    kind = "judged"

    def __init__(
        self, first: Ragged, second: Ragged, system: Sequence[str], item: Sequence[str] = (), *args: Any, **more: Any
    ) -> None:
        """item: the reference where it is empty; further arguments are those of Pairs."""
        names, codes = np.unique(np.array(system, dtype=object).astype(str), return_inverse=True)
        self.systems, self.system = tuple(map(str, names)), codes.astype(np.int64)
        self._item = list(item)
        super().__init__(first, second, *args, **more)

    @classmethod
    def from_rows(
        cls, rows: Sequence[tuple[str, str, str]], scores: Any = None, *, item: Sequence[str] = (), name: str = "judged"
    ) -> Judged:
        """From (system, reference, output) and a number each, NaN where it is not known."""
        system, reference, output = ([row[place] for row in rows] for place in range(3))
        return cls(as_ragged(reference), as_ragged(output), system, item, scores, name=name)

    @cached_property
    def copies(self) -> np.ndarray:
        if not self._item:
            return same(self.first, fold=True)
        return np.unique(np.array(self._item, dtype=object).astype(str), return_inverse=True)[1].astype(np.int64)

    def look(self) -> Look:
        """The facts page of pairs, and how many systems and items there are."""
        page = super().look()
        items = len(np.unique(self.copies))
        page.kind = page.numbers["kind"] = self.kind
        page.numbers.update(systems=len(self.systems), items=items)
        page.facts[0] = ("outputs", f"{len(self):,} of {len(self.systems)} systems for {items:,} items")
        shown = ", ".join(self.systems[:6]) + (f", and {len(self.systems) - 6} more" if len(self.systems) > 6 else "")
        page.facts.insert(1, ("systems", shown))
        page.numbers["near_duplicates"] = 0  # outputs of one item are kept together, and are none
        exact = page.numbers["exact_duplicates"]
        for place, (label, words) in enumerate(page.facts):
            if label == "scores":
                page.facts[place] = ("judged", words)
            elif label == "duplicates":
                page.facts[place] = (label, f"{exact:,} exact" if exact else "none")
        return page


def from_table(
    table: Table, text: Sequence[str] = (), target: str | None = None, like: Mapping[str, Any] | None = None
) -> Judged | None:
    """The judged outputs in a table, or None where it holds none. Arguments as for `texts.from_table`.

    Raises DataError for scores that are no numbers.
    """
    if text or (like and "system" not in like):
        return None
    folded = {name.casefold(): name for name in table.columns}
    found = {part: next((folded[name] for name in names if name in folded), None) for part, names in NAMES.items()}
    if any(found[part] is None for part in _NEEDED):
        return None
    score = target or found["score"]
    if score is not None and table.column(score).form not in ("number", "boolean", "comma"):
        raise DataError(
            f"the scores in column {score!r} of {table.name} are not numbers", "name the column with --target"
        )
    first, second, system = table.texts([str(found[part]) for part in ("reference", "output", "system")])
    item = table.texts([found["item"]])[0].texts() if found["item"] is not None else []
    scores = np.full(table.rows, np.nan) if score is None else table.floats(score)
    part, named = table.part, table.names
    columns = {part: name for part, name in found.items() if name is not None} | {"target": score}
    notes = [
        *table.read_notes,
        f"outputs in column {found['output']!r} beside references in column {found['reference']!r}",
    ]
    if score is not None and target is None and not like:
        notes.append(f"human scores in column {score!r}, higher is better; name another with --target")
    ratings = _ratings(table, folded)
    if ratings is not None:
        first, second, system, scores, part, named = (
            some[ratings] for some in (first, second, system, scores, part, named)
        )
        item = [item[row] for row in ratings] if item else []
        notes.append(f"{table.rows - len(ratings):,} rows that are no ratings are left out")
    # rows of one output are several raters'
    key = np.stack(
        [same(second), np.unique(system.texts(), return_inverse=True)[1], _codes(item) if item else same(first)]
    )
    leads, group = np.unique(key, axis=1, return_index=True, return_inverse=True)[1:]
    group = np.argsort(np.argsort(leads))[group.reshape(-1)]  # numbered in the order of the file
    leads = np.sort(leads)
    rows = len(group)
    if len(leads) < rows:
        known = np.isfinite(scores)
        count = np.bincount(group[known], minlength=len(leads))
        total = np.bincount(group[known], scores[known], minlength=len(leads))
        scores = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        notes.append(f"{rows:,} rows are of {len(leads):,} outputs: an output has the mean of its scores")
    names = system.texts()
    return Judged(
        first[leads], second[leads], [names[row] for row in leads], [item[row] for row in leads] if item else [], scores,
        part=part[leads], name=table.name, names=named[leads], notes=notes, columns=columns,
    )  # fmt: skip


def _ratings(table: Table, folded: Mapping[str, str]) -> np.ndarray | None:
    """Rows that hold a rating, where the kind of each row says that some hold something else; None where all do."""
    if "kind" not in folded:
        return None
    said = np.array(table.texts([folded["kind"]])[0].texts(), dtype=object)
    ours = np.isin(said, ["rating", "check", "remark"]).all()
    return np.flatnonzero(said == "rating") if ours and (said != "rating").any() else None


def _codes(words: Sequence[str]) -> np.ndarray:
    return np.unique(words, return_inverse=True)[1]
