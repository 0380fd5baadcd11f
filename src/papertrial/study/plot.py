"""A report as one web page that needs nothing else: no network, no server, no second file."""

from __future__ import annotations

from html import escape
from math import log10
from typing import Any

from papertrial.core.errors import missing_extra
from papertrial.core.paper import Curve, Figure, Report

#: told apart by people who confuse red and green, and in grey (Okabe and Ito)
_COLOURS = ("#0072B2", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#56B4E9")
_DASHES = ("solid", "dash", "dot", "dashdot")
_MARKERS = ("circle", "diamond", "square", "triangle-up")

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; line-height: 1.25 } h2 { font-size: 1.05rem; margin: 2rem 0 .25rem }
.verdict { font-size: 1.1rem; border-left: 4px solid #0072B2; padding-left: .75rem }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: 1rem 0 } dt { color: #555 } dd { margin: 0 }
.caption { color: #555; font-size: .9rem; margin: 0 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums } th, td { text-align: right; padding: .15rem .9rem .15rem 0 }
th { border-bottom: 1px solid #999; font-weight: 600 } li { margin: .2rem 0 }
"""


def page(report: Report) -> str:
    """The verdict, the figures, the table and the caveats as HTML. Raises PapertrialError when plotly is missing."""
    try:
        from plotly.io import to_html
    except ImportError:
        raise missing_extra("the plot", "plotly", "report") from None
    parts = [f"<h1>{escape(report.title)}</h1>", f'<p class="verdict">{escape(report.verdict)}</p>']
    facts = "".join(f"<dt>{escape(label)}</dt><dd>{escape(words)}</dd>" for label, words in report.facts)
    parts.append(f"<dl>{facts}</dl>")
    for index, figure in enumerate(report.figures):
        drawn = to_html(
            draw(figure),
            full_html=False,
            include_plotlyjs=index == 0,
            config={"displaylogo": False, "responsive": True},
            default_height="26rem",
            div_id=f"figure-{index + 1}",
        )
        parts += [f"<h2>{escape(figure.title)}</h2>", drawn, f'<p class="caption">{escape(figure.caption)}</p>']
    head = "".join(f"<th>{escape(cell)}</th>" for cell in report.head)
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in report.rows)
    parts.append(f"<h2>The numbers</h2><table><tr>{head}</tr>{rows}</table>")
    if report.caveats:
        parts.append(f"<h2>Caveats</h2><ul>{''.join(f'<li>{escape(line)}</li>' for line in report.caveats)}</ul>")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(report.title)}</title><style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def draw(figure: Figure) -> Any:
    """The plotly figure of a `Figure`: lines with markers, bands, and a grey ground below the floor."""
    import plotly.graph_objects as go

    drawn = go.Figure()
    for index, curve in enumerate(figure.curves):
        colour = _COLOURS[index % len(_COLOURS)]
        if curve.low:
            drawn.add_trace(_band(curve, colour))
        drawn.add_trace(
            go.Scatter(
                x=curve.x, y=curve.y, name=curve.name, mode="lines+markers", legendgroup=curve.name,
                line={"color": colour, "width": 2.5, "dash": _DASHES[index % len(_DASHES)]},
                marker={"size": 8, "symbol": _MARKERS[index % len(_MARKERS)]},
                hovertemplate="%{y:.3g}",
            )
        )  # fmt: skip
    if figure.floor and any(y <= figure.floor for curve in figure.curves for y in curve.y):
        drawn.add_hrect(y0=figure.floor * 1e-9, y1=figure.floor, fillcolor="#888", opacity=0.15, line_width=0)
        drawn.add_annotation(
            text="rounding errors", x=0.01, xref="paper", xanchor="left", yanchor="top", showarrow=False,
            y=log10(figure.floor) if figure.log else figure.floor, font={"color": "#555", "size": 13},
        )  # fmt: skip
    axis = {"showgrid": True, "gridcolor": "#e5e5e5", "zeroline": False, "linecolor": "#999", "ticks": "outside"}
    vertical: dict[str, Any] = {**axis, "title": figure.y_title}
    if figure.log:
        vertical |= {"type": "log", "dtick": _decades(figure), "exponentformat": "power", "range": _log_range(figure)}
    whole = all(float(x).is_integer() for curve in figure.curves for x in curve.x)
    horizontal = {**axis, "title": figure.x_title, **({"dtick": _ticks(figure)} if whole else {})}
    drawn.update_layout(
        template="plotly_white", xaxis=horizontal, yaxis=vertical, hovermode="x unified",
        margin={"l": 70, "r": 20, "t": 60 if len(figure.curves) > 1 else 30, "b": 55}, font={"family": "system-ui, sans-serif", "size": 14},
        showlegend=len(figure.curves) > 1, legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    )  # fmt: skip
    return drawn


def _band(curve: Curve, colour: str) -> Any:
    import plotly.graph_objects as go

    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return go.Scatter(
        x=[*curve.x, *reversed(curve.x)], y=[*curve.high, *reversed(curve.low)], fill="toself", mode="none",
        fillcolor=f"rgba({red},{green},{blue},0.15)", legendgroup=curve.name, showlegend=False, hoverinfo="skip",
    )  # fmt: skip


def _log_range(figure: Figure) -> list[float]:
    """Decades of the axis: those of lines and bands, with a little room."""
    lowest = min((y for curve in figure.curves for y in (*curve.y, *curve.low) if y > 0), default=1.0)
    highest = max((y for curve in figure.curves for y in (*curve.y, *curve.high) if y > 0), default=1.0)
    return [log10(lowest) - 0.25, log10(highest) + 0.15]


def _decades(figure: Figure) -> int:
    low, high = _log_range(figure)
    return max(1, round((high - low) / 8))


def _ticks(figure: Figure) -> int:
    """Whole steps between the marks of the horizontal axis, twelve marks at most."""
    largest = max((max(curve.x) for curve in figure.curves if curve.x), default=1.0)
    return max(1, -int(-largest // 12))
