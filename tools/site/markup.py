"""Blocks of a report as Markdown with HTML tables, so that a page of the site says what `papertrial report` says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import Any

from papertrial.study import html_page as page

#: a figure's JSON, and what draws it; both scripts are files of the site
_SCRIPTS = '<script src="{root}assets/plotly.min.js"></script>\n<script src="{root}assets/figures.js"></script>'


def prose(text: str) -> str:
    """Text as it is: nothing in it is taken for Markdown, but for `code` between backquotes."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(
        part if part.startswith("`") and part.endswith("`") and len(part) > 1 else re.sub(r"([\\*_\[\]<>#|])", r"\\\1", part)
        for part in parts
    )  # fmt: skip


def inline(text: str) -> str:
    """The same as HTML: escaped, with `code` set as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))


def fence(text: str, language: str) -> str:
    return f"```{language}\n{text.strip()}\n```"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """A table of cells that are HTML already."""
    name = f' class="{kind}"' if kind else ""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table{name}>\n<thead><tr>{top}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'


def markdown(blocks: Sequence[Any], root: str) -> str:
    """The blocks one after the other. root: the way from the page to the top of the site, such as `../`."""
    name_of, plots = page.plots_of(blocks)
    parts = [_block(block, name_of) for block in blocks]
    if plots:
        parts.append(f'<script type="application/json" class="plots">{plots}</script>\n{_SCRIPTS.format(root=root)}')
    return "\n\n".join(parts)


def _block(block: Any, name_of: Any) -> str:
    if isinstance(block, page.Text):
        return prose(block.words)
    if isinstance(block, page.Items):
        return "\n".join(f"- {prose(entry)}" for entry in block.entries)
    if isinstance(block, page.Link):
        return f"[{prose(block.words)}]({block.address})"
    if isinstance(block, page.Facts):
        return table(["", ""], [[inline(label), inline(words)] for label, words in block.rows], "facts")
    if isinstance(block, page.Code):
        return fence(block.text, "sh")
    if isinstance(block, page.Heading):
        return f"### {prose(block.words)}"
    if isinstance(block, page.Table):
        kind = "claims" if block.stacked else ""  # a row begins with a sentence
        return table([_cell(cell) for cell in block.head], [[_cell(cell) for cell in row] for row in block.rows], kind)
    if isinstance(block, page.Figure):
        caption = f"<b>{escape(block.title)}</b> {escape(block.words)}"
        plot = f'<div class="plot" id="{name_of(block)}" style="height: {block.height}px"></div>'
        return f"<figure>\n<figcaption>{caption}</figcaption>\n{plot}\n</figure>"
    if isinstance(block, page.Grid):
        return "\n\n".join(_block(each, name_of) for each in block.blocks)
    if isinstance(block, page.Fold):
        inner = "\n".join(_block(each, name_of) for each in block.blocks)
        return f"<details><summary>{escape(block.title)}</summary>\n{inner}\n</details>"
    raise TypeError(f"a page of the site cannot show a {type(block).__name__}")


def _cell(cell: Any) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, page.Tag):
        return f'{inline(page.typeset(cell.text))} <span class="verdict {cell.tone}">{escape(cell.word)}</span>'
    return inline(page.typeset(str(cell)))
