"""Numbers in sentences, and words in columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def counted(number: int, word: str, many: str = "") -> str:
    """1 query, 2,000 queries.  many: the plural, where it is more than an s."""
    return f"{number:,} {word if number == 1 else many or word + 's'}"


def several(names: str | Iterable[str]) -> list[str]:
    """Names as a list, where one may stand alone."""
    return [names] if isinstance(names, str) else list(names)


def aligned(rows: Iterable[Sequence[object]]) -> list[str]:
    """A line for each row (all of one length), its cells in columns."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
