"""What a comparison found, as a record that is kept, and as the table and the words people read."""

from __future__ import annotations

import math
import sys
import textwrap
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from papertrial.core.budget import ESTIMATED, UNKNOWN, Energy, duration, size_in_words
from papertrial.core.doors import Damaged
from papertrial.core.errors import PapertrialError
from papertrial.core.files import disk_errors
from papertrial.core.html import page
from papertrial.core.ours import visible
from papertrial.core.stats import Verdict
from papertrial.study.worth import Worth
from papertrial.use.final import COMPARISON

KIND, FILES = "comparison", ("comparison.json",)
FAILED = "failed"
#: what stands beside a metric in the table
BESIDE = {"average_precision": "auc"}
WIDTH = 100
_UNFINISHED = "not finished: the same command goes on from here"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    role: method | reference | baseline.  metric: the primary one, mean over seeds; at_least, at_most: its 95 % interval over
    seeds and test examples together.  metrics: all of them; valid: the
    primary one on the validation rows, signed so that higher is better.  difference, low, high: metric less that of the
    reference with its 95 % interval, in the metric's own direction.  seconds, steps, samples, kwh: means over seeds;
    energy, energy_how: how kwh was found out, by the weakest of the seeds.  peak_bytes: the largest.
    reason: why it failed.
    """

    name: str
    role: str
    metric: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    valid: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    seconds: float | None = None
    steps: float | None = None
    samples: float | None = None
    peak_bytes: int | None = None
    kwh: float | None = None
    energy: str = UNKNOWN
    energy_how: str = ""
    worth: Worth | None = None
    reason: str = ""


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    verdicts: by method; the differences in them are positive where the method is better.  failed, declined: names with
    their reasons.  complete: False while seeds are missing.  looks: numbers of seeds with which it was judged before.
    beside: a metric that is shown beside the one that is judged, where its own intervals would not hold.
    folds: how many of them make a repeat, of which there are `seeds`; 0: one test part.  earlier: sentences of comparisons
    that were made in this folder before of other methods, or against something else, and are not said any more.
    called: words for methods whose name says something else than what ran.
    """

    protocol: str
    plan: str
    metric: str
    higher_is_better: bool
    budget: str
    seeds: int
    reference: str
    rows: tuple[Row, ...]
    verdicts: dict[str, Verdict]
    sentences: tuple[str, ...]
    failed: dict[str, str]
    declined: dict[str, str]
    notes: tuple[str, ...]
    looks: tuple[int, ...] = ()
    complete: bool = True
    folder: str = ""
    beside: str = ""
    folds: int = 0
    earlier: tuple[str, ...] = ()
    called: dict[str, str] = field(default_factory=dict)

    def shown(self, name: str) -> str:
        """What a method is called."""
        return self.called.get(name, name)

    def __repr__(self) -> str:
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        head, *rows = _columns(self)
        names = [self.shown(row.name) for row in self.rows]
        notes = [*(f"skipped: {name}: {why}" for name, why in self.declined.items()), *self.notes]
        return page(
            self.protocol,
            head=["method", *head],
            rows=[[name, *cells] for name, cells in zip(names, rows, strict=True)],
            lines=[*self.sentences, *notes, *([] if self.complete else [_UNFINISHED])],
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"rows": [asdict(row) | {"worth": row.worth} for row in self.rows]}

    @property
    def digits(self) -> int:
        """Decimals that the metric and its differences are shown with."""
        return _digits(self)

    @classmethod
    def read(cls, folder: Path | str) -> Comparison:
        """As kept in a comparison's folder; raises PapertrialError where there is none."""
        file = Path(folder) / "comparison.json"
        held = COMPARISON.read(file)
        with COMPARISON.answers_for(file, held):
            return cls(
                **{entry.name: _again(entry.name, held[entry.name]) for entry in fields(cls) if entry.name in held}
            )

    def lines(self) -> list[str]:
        """The table and the verdicts as plain text, at most 100 columns wide."""
        return _lines(self)


def _again(name: str, value: Any) -> Any:
    """A field of a Comparison from JSON."""
    if name == "rows":
        return tuple(Row(**{**row, "worth": _worth_again(row["worth"])}) for row in value)
    if name == "verdicts":
        return {method: Verdict(**{**held, **_ends(held)}) for method, held in value.items()}
    return tuple(value) if isinstance(value, list) else value


def _worth_again(held: dict[str, Any] | None) -> Worth | None:
    return None if held is None else Worth(**{name: entry for name, entry in held.items() if name != "shown"})


def _ends(held: dict[str, Any]) -> dict[str, float]:
    """JSON has no NaN, which is what an interval that is not known ends in."""
    return {name: math.nan if held[name] is None else held[name] for name in ("low", "high")}


def _digits(result: Comparison) -> int:
    """Decimals that show three figures of the largest metric and one of the narrowest interval, six at most."""
    sizes = [abs(row.metric) for row in result.rows if row.metric]
    widths = [v.high - v.low for v in result.verdicts.values() if math.isfinite(v.low) and v.high > v.low]
    digits = 2 - math.floor(math.log10(0.9999 * max(sizes))) if sizes else 3
    if widths:
        digits = max(digits, -math.floor(math.log10(min(widths) / 2)))
    return min(6, max(0, digits))


def _lines(result: Comparison) -> list[str]:
    lines = _wrap(result.protocol, "protocol  ")
    for name, reason in result.declined.items():
        lines += _wrap(f"{name}: {reason}", "skipped   ")
    for note in result.notes:
        lines += _wrap(note, "note      ")
    lines += _table(result)
    for note in _energy_notes(result.rows):
        lines += _wrap(note, "note      ")
    unknown: dict[str, list[str]] = {}
    for row in result.rows:
        if row.worth is not None and row.worth.reason:
            unknown.setdefault(row.worth.reason, []).append(row.name)
    for reason, names in unknown.items():
        lines += _wrap(
            f"cannot say how many labels {', '.join(names)} {'is' if len(names) == 1 else 'are'} worth: {reason}",
            "note      ",
        )
    if any(row.worth is not None for row in result.rows):
        lines += _wrap(
            "worth = labels the reference would need to do as well, as a multiple of those it has [95 % interval over seeds]",
            "note      ",
        )
    for index, sentence in enumerate(result.sentences):
        lines += _wrap(sentence, " " * 10 if index else "verdict   ")
    for sentence in result.earlier:
        lines += _wrap(f"said before, and replaced by the above: {sentence}", "note      ")
    if not result.complete:
        lines += _wrap(_UNFINISHED, "note      ")
    return lines


def _table(result: Comparison) -> list[str]:
    """The table in columns, at most WIDTH wide."""
    table = _columns(result)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    room = max(12, WIDTH - sum(widths) - 2 * len(widths))
    names = [_cut(name, room) for name in ("method", *(result.shown(row.name) for row in result.rows))]
    table = [[name, *cells] for name, cells in zip(names, table, strict=True)]
    widths = [max(map(len, names)), *widths]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def _columns(result: Comparison) -> list[list[str]]:
    """The head and a row for each method, without their names."""
    digits = _digits(result)
    beside = [name for name in (result.beside or BESIDE.get(result.metric),) if name]
    against = _cut(f"vs {result.shown(result.reference)}", 24)
    table = [[_cut(result.metric, 20), *beside, against, "time", "peak memory", "energy"]]
    for row in result.rows:
        cells = _cells(row, digits)
        more = ["-" if name not in row.metrics else f"{row.metrics[name]:.{digits}f}" for name in beside]
        table.append([cells[0], *more, *cells[1:]])
    if any(row.worth is not None for row in result.rows):
        table[0].append("worth")
        for cells, row in zip(table[1:], result.rows, strict=True):
            cells.append("-" if row.worth is None else f"{row.worth} {row.worth.interval}".strip())
    return table


def _cells(row: Row, digits: int) -> list[str]:
    """All but the name and the worth."""
    if row.metric is None:
        return [FAILED, "-", "-", "-", "-"]
    if row.role == "reference":
        change = "reference"
    elif row.difference is None:
        change = "-"
    elif row.low is None or row.high is None:
        change = f"{row.difference:+.{digits}f}"
    else:
        change = f"{row.difference:+.{digits}f} [{row.low:+.{digits}f}, {row.high:+.{digits}f}]"
    time = "-" if row.seconds is None else duration(row.seconds)
    peak = "-" if row.peak_bytes is None else size_in_words(row.peak_bytes)
    return [f"{row.metric:.{digits}f}", change, time, peak, "-" if row.kwh is None else str(_energy(row))]


def _energy(row: Row) -> Energy:
    return Energy(row.kwh, row.energy, row.energy_how)


def _energy_notes(rows: tuple[Row, ...]) -> list[str]:
    """Where the energy of the table comes from."""
    run = [row for row in rows if row.metric is not None]
    modelled = list(dict.fromkeys(row.energy_how for row in run if row.energy == ESTIMATED))
    unknown = list(dict.fromkeys(row.energy_how for row in run if row.energy == UNKNOWN and row.energy_how))
    return [f"e = estimated, not measured; {how}" for how in modelled] + [f"energy: {how}" for how in unknown]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _wrap(text: str, head: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=head, subsequent_indent=" " * len(head))


# -------------------------------------------------------------------------------- in a folder


def recognised(folder: Path) -> list[str]:
    """What an earlier version wrote without a marker: the comparison, whole, or no more yet than runs of methods."""
    file = folder / "comparison.json"
    try:
        whole = file.exists() and bool(COMPARISON.read(file))
    except PapertrialError:
        return []
    runs = [next((folder / name).glob("seed*/config.json"), None) for name in visible(folder)]
    begun = bool(runs) and not file.exists() and all(runs)
    return [*FILES] if whole or begun else []


def kept(file: Path) -> dict[str, Any]:
    """What an earlier comparison found; nothing where there is none. A file that is damaged is set aside: the runs it speaks of
    are kept, and it is written again from them."""
    if not file.exists():
        return {}
    try:
        return dict(COMPARISON.read(file))
    except Damaged as damage:
        aside = file.with_name(f"{file.name}.damaged")
        with disk_errors(aside):
            file.replace(aside)
        print(f"{damage.problem}: kept as {aside}; what it said before is not known any more", file=sys.stderr)
        return {}


def before_in(folder: Path) -> dict[str, Any]:
    """Of comparisons that were finished in the folder, the methods that stay in it, and what was said of them; nothing where
    there is none. So papers that are asked about one after the other end in one table, also where adding one was interrupted."""
    file = folder / "comparison.json"
    held = kept(file)
    asked = held.get("asked", {})
    if not held.get("complete"):
        return (
            held | {"stays": asked["stays"], "earlier": asked["earlier"], "sentences": ()} if asked.get("stays") else {}
        )
    return held | {"stays": [name for name in asked.get("methods", ()) if name not in held.get("declined", ())]}


def said_before(before: dict[str, Any], methods: list[str], against: str | None, baselines: Any) -> tuple[str, ...]:
    """What was said by earlier comparisons in the folder that asked something else."""
    asked = before.get("asked", {})
    again = (set(asked.get("methods", ())), asked.get("against"), asked.get("baselines")) == (
        set(methods), against, baselines
    )  # fmt: skip
    return (*before.get("earlier", ()), *(() if again else before.get("sentences", ())))
