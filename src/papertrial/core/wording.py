"""Numbers in sentences, words in columns, and text that comes from data, which may hold anything."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029")


def printable(text: str, keep: str = "\n\t") -> str:
    """Text as a terminal may be sent it: what would control it, or turn the direction of writing, is escaped (`\\x1b`)."""
    if text.isprintable():
        return text
    return "".join(letter if letter in keep or not controls(letter) else escaped(letter) for letter in text)


def shortened(text: str, most: int = 2000) -> str:
    """Text from data as a person can read it: of more characters the beginning, and how many there are."""
    return text if len(text) <= most else f"{text[: most - 40]}... ({len(text):,} characters)"


def controls(letter: str) -> bool:
    """Whether a character does something in place of being shown; half a character of UTF-16 cannot be sent at all."""
    return unicodedata.category(letter) in ("Cc", "Cs") or letter in _TURNS


def escaped(letter: str) -> str:
    return f"\\x{ord(letter):02x}" if ord(letter) < 256 else f"\\u{ord(letter):04x}"


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
