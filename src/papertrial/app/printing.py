"""What the commands print: plain lines a tired person can read, no colour needed to understand them."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from papertrial.core.files import to_json
from papertrial.core.ranges import Range
from papertrial.core.recipe import Setting
from papertrial.core.wording import aligned, controls, printable, shortened

#: characters of a word, and of a fact or a note, that are shown
_WORD, _WORDS = 300, 8000
_LONG = re.compile(rf"\S{{{_WORD + 1},}}")


def say(*lines: str) -> None:
    for line in lines:
        print(shown(line))


def document(content: Any) -> None:
    """One JSON document."""
    text = to_json(content, indent=2)
    print(text if text.isascii() else "".join(_in_json(letter) if controls(letter) else letter for letter in text))


def _in_json(letter: str) -> str:
    """A character that does something to a terminal, as JSON escapes it; a line break is the document's own."""
    return letter if letter == "\n" else f"\\u{ord(letter):04x}"


def shown(line: str) -> str:
    """A line as a terminal may be sent it, and as a person can read it: data may hold escape sequences, and words of any length."""
    return printable(_LONG.sub(lambda word: shortened(word[0], _WORD), line))


def notes(lines: Iterable[str]) -> None:
    """On the error stream, so that they spoil neither a document nor a table."""
    for line in labelled(("note", line) for line in lines):
        print(shown(line), file=sys.stderr)


def terminal_width() -> int:
    """Width to print at: the terminal's, between 60 and 120."""
    return max(60, min(120, shutil.get_terminal_size((100, 24)).columns))


def labelled(rows: Iterable[tuple[str, str]], width: int = 12) -> list[str]:
    """`label   words`, wrapped under the words."""
    lines = []
    for label, words in rows:
        lead = f"{label:<{width - 2}}  "
        lines += textwrap.wrap(
            shown(shortened(str(words), _WORDS)),
            terminal_width(),
            initial_indent=lead,
            subsequent_indent=" " * len(lead),
            break_on_hyphens=False,
        ) or [lead.rstrip()]
    return lines


def table(head: Sequence[str], rows: Sequence[Sequence[str]], last_cut: bool = False) -> list[str]:
    """Aligned columns; with `last_cut` the last column is cut to the terminal's width (never in a pipe)."""
    cells = [list(map(str, row)) for row in [head, *rows]]
    if last_cut and sys.stdout.isatty():
        before = sum(max(map(len, column)) + 2 for column in zip(*(row[:-1] for row in cells), strict=True))
        for row in cells:
            row[-1] = textwrap.shorten(row[-1], max(20, terminal_width() - before), placeholder=" ...")
    return aligned(cells)


def settings(rows: Iterable[Setting], within: Mapping[str, Range] | None = None) -> list[str]:
    """`name  value  source`, one line each. within: ranges by name, which then stand between value and source."""
    rows = list(rows)
    columns = [[row.name for row in rows], [_cut(as_typed(row.value)) for row in rows]]
    if within is not None:
        columns.append([str(within.get(row.name, "")) for row in rows])
    widths = [min(most, max(map(len, column), default=0)) for most, column in zip((60, 24, 28), columns, strict=False)]
    return [
        "  " + "  ".join([*map(str.ljust, cells, widths), row.source])
        for row, *cells in zip(rows, *columns, strict=True)
    ]


def _cut(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[: most - 4]} ..."


def as_typed(value: Any) -> str:
    """A setting's value as one would type it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple | list):
        return ",".join(as_typed(entry) for entry in value) or "none"
    return "none" if value is None or value == "" else str(value)


def metrics(
    values: dict[str, float],
    intervals: dict[str, tuple[float, float]],
    floors: dict[str, float] | None = None,
    ceilings: dict[str, float] | None = None,
) -> list[str]:
    """`accuracy  0.972  [0.968, 0.976]  floor 0.510`, one line each. floors: what not looking at the inputs gets; ceilings: what
    is as good as the truth."""
    rows = []
    for name, value in values.items():
        low_high = intervals.get(name)
        between = f"[{number(low_high[0])}, {number(low_high[1])}]" if low_high else ""
        known = {"floor": (floors or {}).get(name), "real": (ceilings or {}).get(name)}
        rows.append(
            (
                name,
                number(value),
                between,
                ", ".join(f"{word} {number(end)}" for word, end in known.items() if end is not None),
            )
        )
    return [f"  {line}" for line in aligned(rows)]


def remarks(lines: Iterable[str]) -> list[str]:
    """What is to be said before any figure."""
    return [part for line in lines for part in textwrap.wrap(line[0].upper() + line[1:] + ".", 100)]


def number(value: float | None) -> str:
    """Four significant figures for large numbers, three decimals for shares; `-` where there is none."""
    if value is None or value != value:
        return "-"
    return f"{value:.3f}" if abs(value) < 10 and (abs(value) >= 0.001 or value == 0) else f"{value:.4g}"


class InTurn:
    """Prints texts that come side by side one after the other: the first as it comes, each other one when it is its turn.

    heads: what is printed before each.  Called with the place of a text and a piece of it, or None when it is complete. On
    a terminal, characters that would control it are not sent.
    """

    def __init__(self, heads: Sequence[str]) -> None:
        self.heads, self.turn, self.begun = heads, 0, False
        self.waiting: list[deque[str | None]] = [deque() for _ in heads]

    def __call__(self, place: int, piece: str | None) -> None:
        self.waiting[place].append(piece)
        while self.turn < len(self.heads) and self.waiting[self.turn]:
            piece = self.waiting[self.turn].popleft()
            if not self.begun:
                self._print(self.heads[self.turn])
            self._print("\n" if piece is None else piece)
            self.begun = piece is not None
            self.turn += piece is None

    def _print(self, text: str) -> None:
        if sys.stdout.isatty():
            text = printable(text)
        sys.stdout.write(text)
        sys.stdout.flush()
