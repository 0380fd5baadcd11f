"""What is said of results where they are shown as HTML, in a notebook: everything that comes from data is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def page(
    title: str,
    *,
    facts: Iterable[tuple[str, str]] = (),
    head: Sequence[object] = (),
    rows: Iterable[Sequence[object]] = (),
    lines: Iterable[str] = (),
) -> str:
    """A heading, labels with words, a table, and sentences, in this order; what is empty is left out."""
    parts = [f"<p><b>{escape(title)}</b></p>"] if title else []
    parts += _table([], [list(row) for row in facts], "left")
    parts += _table(head, [list(row) for row in rows], "right")
    parts += [f"<p>{escape(line)}</p>" for line in lines]
    return f"<div>{''.join(parts)}</div>"


def _table(head: Sequence[object], rows: list[list[object]], align: str) -> list[str]:
    """align: of all columns but the first."""
    if not rows:
        return []
    named = f"<thead>{_row('th', head, align)}</thead>" if head else ""
    return [f"<table>{named}<tbody>{''.join(_row('td', row, align) for row in rows)}</tbody></table>"]


def _row(tag: str, cells: Sequence[object], align: str) -> str:
    sides = ["left", *[align] * len(cells)]
    told = (
        f'<{tag} style="text-align:{side};white-space:pre-wrap">{escape(str(cell))}</{tag}>'
        for side, cell in zip(sides, cells, strict=False)
    )
    return f"<tr>{''.join(told)}</tr>"
