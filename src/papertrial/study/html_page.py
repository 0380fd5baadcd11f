"""A report as one HTML page that needs nothing else: no network, no server, no second file.

A page is a headline, its answers, and sections of blocks; what is said in them is up to the caller (`study.report`).
Every text is escaped. A content security policy lets run the two scripts of the page, by their hashes, and nothing
else: even a name in the data that were taken for HTML could neither run nor fetch anything.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from markupsafe import Markup

from papertrial.core.files import to_json

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Text:
    """A paragraph. style: "" | muted | note."""

    words: str
    style: str = ""
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Items:
    """A list of texts."""

    entries: Sequence[str]
    kind: ClassVar[str] = "items"


@dataclass(frozen=True)
class Link:
    """A line that leads elsewhere. address: https."""

    words: str
    address: str
    kind: ClassVar[str] = "link"


@dataclass(frozen=True)
class Facts:
    """Label and words, one pair a line."""

    rows: Sequence[tuple[str, str]]
    kind: ClassVar[str] = "facts"


@dataclass(frozen=True)
class Code:
    """What one types."""

    text: str
    kind: ClassVar[str] = "code"


@dataclass(frozen=True)
class Forest:
    """A cell with a point and its interval, drawn on a scale from -limit to limit that all cells of a column share.
    What lies beyond is an arrow."""

    value: float | None
    low: float | None
    high: float | None
    limit: float
    tone: str = ""
    words: str = ""
    kind: ClassVar[str] = "forest"

    def at(self, value: float) -> float:
        """Place on a drawing 200 wide."""
        return 100 + 94 * max(-1.0, min(1.0, value / self.limit))

    @property
    def reach(self) -> tuple[float, float] | None:
        """The interval, or the point where there is none."""
        if self.value is None:
            return None
        return (self.value, self.value) if self.low is None or self.high is None else (self.low, self.high)

    @property
    def ends(self) -> list[float]:
        """Places of those ends of the interval that lie on the scale."""
        return [self.at(end) for end in self.reach or () if abs(end) <= self.limit]

    @property
    def arrows(self) -> tuple[bool, bool]:
        """Whether it goes on to the left and to the right of the scale."""
        return (self.reach[0] < -self.limit, self.reach[1] > self.limit) if self.reach else (False, False)


@dataclass(frozen=True)
class Axis:
    """The scale over or under a column of `Forest` cells: the words at its left, middle and right."""

    ticks: tuple[str, str, str]
    kind: ClassVar[str] = "axis"


@dataclass(frozen=True)
class Tag:
    """A cell: a text with a word in a coloured label after it. tone: good | bad | open | plain.  address: where the text
    leads, on the same site."""

    text: str
    word: str
    tone: str = "plain"
    address: str = ""
    kind: ClassVar[str] = "tag"


@dataclass(frozen=True)
class Heat:
    """A cell tinted by `share` in [0, 1]."""

    text: str
    share: float
    kind: ClassVar[str] = "heat"


@dataclass(frozen=True)
class Table:
    """head, rows: cells, each a text or a Forest, Axis, Tag or Heat; None is a dash.  words: how many of the first
    columns are words (set left); the others are figures (set right).  marked: rows to set off, by index.  stacked: on a
    narrow screen a row is a paragraph, for rows that begin with a sentence."""

    head: Sequence[Any]
    rows: Sequence[Sequence[Any]]
    words: int = 1
    marked: Sequence[int] = ()
    caption: str = ""
    stacked: bool = False
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Figure:
    """A Plotly figure. A colour may be a variable of the page's style, as `var(--c0)`, which suits light and dark.

    data, layout: as Plotly takes them.  words: what it shows, also for those who do not see it.
    """

    title: str
    data: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any] = field(default_factory=dict)
    words: str = ""
    height: int = 300
    kind: ClassVar[str] = "figure"


@dataclass(frozen=True)
class Series:
    """One group of a histogram: its bars, in [0, 1]."""

    bars: Sequence[float]
    colour: str = "var(--c0)"

    def outline(self) -> str:
        """The bars as the points of an SVG polygon in a drawing of 100 x 40."""
        wide = 100 / max(1, len(self.bars))
        steps = [(place, height) for index, height in enumerate(self.bars) for place, height in
                 ((index * wide, height), ((index + 1) * wide, height))]  # fmt: skip
        return " ".join(f"{x:.4g},{40 - 38 * y:.4g}" for x, y in [(0.0, 0.0), *steps, (100.0, 0.0)])


@dataclass(frozen=True)
class Histogram:
    """A small drawing of a column. series: drawn over each other.  ends: the words under its left and right end."""

    title: str
    series: Sequence[Series]
    ends: tuple[str, str] = ("", "")
    note: str = ""
    kind: ClassVar[str] = "histogram"


@dataclass(frozen=True)
class Bars:
    """A small bar chart of shares in [0, 1]: (label, share, words)."""

    title: str
    rows: Sequence[tuple[str, float, str]]
    note: str = ""
    kind: ClassVar[str] = "bars"


@dataclass(frozen=True)
class Picture:
    """address: a data: address.  words: what it is."""

    address: str
    words: str
    width: int
    height: int


@dataclass(frozen=True)
class Pictures:
    """Rows of small pictures: (label, pictures). captions: whether labels are whole sentences, which then follow the pictures."""

    rows: Sequence[tuple[str, Sequence[Picture]]]
    captions: bool = False
    kind: ClassVar[str] = "pictures"


@dataclass(frozen=True)
class Sheet:
    """Many small pictures in one large one, under a title. rows: what each row of them shows, from the top, where that is known."""

    title: str
    picture: Picture
    rows: Sequence[str] = ()
    kind: ClassVar[str] = "sheet"


@dataclass(frozen=True)
class Legend:
    """Colours and what they stand for."""

    entries: Sequence[tuple[str, str]]
    kind: ClassVar[str] = "legend"


@dataclass(frozen=True)
class Grid:
    """Blocks side by side where there is room. least: width of one in pixels."""

    blocks: Sequence[Any]
    least: int = 320
    kind: ClassVar[str] = "grid"


@dataclass(frozen=True)
class Fold:
    """Blocks that open on a click; open in print."""

    title: str
    blocks: Sequence[Any]
    open: bool = False
    kind: ClassVar[str] = "fold"


@dataclass(frozen=True)
class Heading:
    words: str
    kind: ClassVar[str] = "heading"


@dataclass(frozen=True)
class Section:
    title: str
    blocks: Sequence[Any]
    lead: str = ""

    @property
    def anchor(self) -> str:
        return "".join(letter if letter.isalnum() else "-" for letter in self.title.lower())


@dataclass(frozen=True)
class Answer:
    """A sentence of the verdict: how it begins, which is set off, and how it goes on. tone: good | bad | open | plain."""

    begin: str
    rest: str = ""
    tone: str = "plain"

    @property
    def sentence(self) -> str:
        return self.begin + self.rest


@dataclass(frozen=True)
class Page:
    """kicker: what sort of report.  question: the headline.  answers: under it, large.  sections: empty ones are left
    out.  foot: the last lines."""

    kicker: str
    question: str
    answers: Sequence[Answer]
    sections: Sequence[Section]
    lead: str = ""
    foot: str = ""


def plotly() -> str:
    """The script that draws figures: Plotly's bundle of plots with axes, a third of the whole (MIT)."""
    return (_HERE / "plotly.min.js").read_text(encoding="utf-8")


def render(page: Page) -> str:
    """The page as HTML."""
    sections = [section for section in page.sections if section.blocks]
    name_of, plots = plots_of([block for section in sections for block in section.blocks])
    scripts = [_script(plotly()), _script((_HERE / "page.js").read_text(encoding="utf-8"))] if plots else []
    text = _template().render(
        page=page,
        sections=sections,
        name_of=name_of,
        style=Markup((_HERE / "page.css").read_text(encoding="utf-8")),
        plots=plots,
        scripts=[Markup(script) for script in scripts],
        hashes=" ".join(f"'sha256-{_hash(script)}'" for script in scripts) or "'none'",
    )
    return text.strip() + "\n"


@cache
def _template() -> Any:
    """The page with gaps, compiled once in a process."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["typeset"] = typeset
    return environment.get_template("page.html")


def typeset(text: str) -> str:
    """A true minus sign before figures."""
    return re.sub(r"(?<![\w.\-/])-(?=\d)", "\N{MINUS SIGN}", text)


def plots_of(blocks: Sequence[Any]) -> tuple[Callable[[Figure], str], Markup]:
    """What the templates need to show figures: the name of each, which follows from its title, and the JSON of all for
    the script that draws them; empty where there are none."""
    names: dict[int, str] = {}
    plots: dict[str, Any] = {}
    for figure in figures_in(blocks):
        name = "figure-" + re.sub(r"\W+", "-", figure.title.lower()).strip("-")
        while name in plots:
            name += "-"
        names[id(figure)] = name
        plots[name] = {"data": figure.data, "layout": figure.layout}
    return lambda figure: names[id(figure)], Markup(_json(plots) if plots else "")


def figures_in(blocks: Sequence[Any]) -> list[Figure]:
    """All figures, those within other blocks too, in their order."""
    found = []
    for block in blocks:
        if isinstance(block, Figure):
            found.append(block)
        elif isinstance(block, Grid | Fold):
            found += figures_in(block.blocks)
    return found


def _json(content: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = to_json(content)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def _script(text: str) -> str:
    """Line ends as the HTML parser makes them, so that the hash is that of what the browser sees."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
