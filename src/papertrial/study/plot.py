"""The page of what an analysis found (`core.paper.Report`), laid out as any report (`study.page`)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import log10
from typing import Any

from papertrial.core.paper import Curve, Figure, Report
from papertrial.study import figures
from papertrial.study.figures import colour, plain
from papertrial.study.html_page import Answer, Facts, Items, Page, Section, Table, render
from papertrial.study.html_page import Figure as Drawn

_DASHES = ("solid", "dash", "dot", "dashdot")
#: numbers that fit side by side under the horizontal axis
_FIT = 6
_MARKERS = ("circle", "diamond", "square", "triangle-up")


def page(report: Report) -> str:
    """The verdict, the figures, the table and the caveats as HTML."""
    return render(
        Page(
            "papertrial measure",
            report.title,
            [Answer(report.verdict)],
            [
                Section("What was measured", [Facts(report.facts)] if report.facts else []),
                Section("Figures", [draw(figure) for figure in report.figures]),
                Section("The numbers", [Table(report.head, report.rows)] if report.rows else []),
                Section("Caveats", [Items(report.caveats)] if report.caveats else []),
            ],
            foot="This page is a single file and loads nothing from the network.",
        )
    )


def draw(figure: Figure) -> Drawn:
    """Lines with markers, bands, the points behind them, and a grey ground below the floor."""
    traces: list[dict[str, Any]] = []
    for index, curve in enumerate(figure.curves):
        if curve.low:
            traces.append(_band(curve, colour(index)))
        if curve.points:
            traces.append(_points(curve, colour(index)))
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": list(curve.x),
                "y": list(curve.y),
                "name": plain(curve.name),
                "legendgroup": plain(curve.name),
                "line": {"color": colour(index), "width": 2.2, "dash": _DASHES[index % len(_DASHES)]},
                "marker": {"size": 8, "color": colour(index), "symbol": _MARKERS[index % len(_MARKERS)]},
                "hovertemplate": "%{y:.3g}",
            }
        )
    down = figures.axis(plain(figure.y_title))
    if figure.log:
        down |= {"type": "log", "dtick": _decades(figure), "exponentformat": "power", "range": _log_range(figure)}
    across = figures.axis(plain(figure.x_title)) | _marks(figure)
    layout = figures.layout(across, down) | {"hovermode": "x unified", "showlegend": len(figure.curves) > 1}
    if figure.floor and any(y <= figure.floor for curve in figure.curves for y in curve.y):
        layout |= _ground(figure)
    return Drawn(figure.title, traces, layout, figure.caption, 400)


def _band(curve: Curve, shade: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "none",
        "x": [*curve.x, *reversed(curve.x)],
        "y": [*curve.high, *reversed(curve.low)],
        "fill": "toself",
        "fillcolor": shade,
        "opacity": 0.15,
        "legendgroup": plain(curve.name),
        "showlegend": False,
        "hoverinfo": "skip",
    }


def _points(curve: Curve, shade: str) -> dict[str, Any]:
    pairs = [(x, y) for x, values in zip(curve.x, curve.points, strict=True) for y in values]
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [x for x, _ in pairs],
        "y": [y for _, y in pairs],
        "marker": {"size": 6, "color": shade, "symbol": "circle-open"},
        "legendgroup": plain(curve.name),
        "showlegend": False,
        "hoverinfo": "skip",
    }


def _ground(figure: Figure) -> dict[str, Any]:
    """The part below the floor, where values are rounding errors."""
    shape = {
        "type": "rect",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": figure.floor * 1e-9,
        "y1": figure.floor,
        "fillcolor": "var(--ref)",
        "opacity": 0.15,
        "line": {"width": 0},
    }
    words = {
        "text": "rounding errors",
        "x": 0.01,
        "xref": "paper",
        "xanchor": "left",
        "y": log10(figure.floor) if figure.log else figure.floor,
        "yanchor": "top",
        "showarrow": False,
        "font": {"color": "var(--soft)", "size": 13},
    }
    return {"shapes": [shape], "annotations": [words]}


def _log_range(figure: Figure) -> list[float]:
    """Decades of the axis: those of lines and bands, with a little room."""
    lowest = min((y for curve in figure.curves for y in (*curve.y, *curve.low) if y > 0), default=1.0)
    highest = max((y for curve in figure.curves for y in (*curve.y, *curve.high) if y > 0), default=1.0)
    return [log10(lowest) - 0.25, log10(highest) + 0.15]


def _decades(figure: Figure) -> int:
    low, high = _log_range(figure)
    return max(1, round((high - low) / 8))


def _marks(figure: Figure) -> dict[str, Any]:
    """Where the horizontal axis has its marks: at the points where there is room, else at decades or whole steps."""
    places = sorted({float(x) for curve in figure.curves for x in curve.x})
    own = {"tickvals": places, "ticktext": [f"{x:g}" for x in places]}
    if figure.log_x:
        return {
            "type": "log",
            "exponentformat": "none",
            **(own if _roomy([log10(x) for x in places]) else {"dtick": 1}),
        }
    if all(x.is_integer() for x in places):
        return {"dtick": max(1, -int(-max(places, default=1.0) // 12))}
    return own if _roomy(places) else {}


def _roomy(places: Sequence[float]) -> bool:
    """Whether each place has room for its number, also on a narrow screen."""
    return len(places) < 2 or min(b - a for a, b in pairwise(places)) >= (places[-1] - places[0]) / _FIT
