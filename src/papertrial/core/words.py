"""Numbers in sentences."""

from __future__ import annotations


def counted(number: int, word: str, many: str = "") -> str:
    """1 query, 2,000 queries.  many: the plural, where it is more than an s."""
    return f"{number:,} {word if number == 1 else many or word + 's'}"
