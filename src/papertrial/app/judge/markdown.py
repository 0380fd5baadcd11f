"""Markdown of others, safely: what it marks up is shown, and nothing in it leads, loads or runs.

HTML stands there as it was written (CommonMark, with tables and strikethrough). Links are their words and pictures their
descriptions: a rater stays on the page, and no other server hears of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup, escape


def rendered(text: str) -> Markup:
    """The text as HTML of paragraphs, lists, tables, code and emphasis."""
    return Markup(_reader().render(text))


@cache
def _reader() -> MarkdownIt:
    made = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"])
    rules = {
        "heading_open": _heading,
        "heading_close": _heading,
        "link_open": _link,
        "link_close": _link,
        "image": _image,
    }
    for name, rule in rules.items():
        made.add_render_rule(name, rule)
    return made


def _heading(renderer: Any, tokens: Sequence[Token], place: int, *_: Any) -> str:
    """Large, but none of the headings of the page."""
    return f'<p class="heading {tokens[place].tag}">' if tokens[place].nesting == 1 else "</p>\n"


def _link(renderer: Any, tokens: Sequence[Token], place: int, *_: Any) -> str:
    return "<u>" if tokens[place].nesting == 1 else "</u>"


def _image(renderer: Any, tokens: Sequence[Token], place: int, *_: Any) -> str:
    return str(escape(f"[picture: {tokens[place].content or 'no description'}]"))
