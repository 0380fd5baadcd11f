"""The plots of a report, as plain Plotly dictionaries in the colours of its page (`study.page`)."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from papertrial.core.curves import PowerLaw
from papertrial.study.html_page import Figure

REFERENCE = "var(--ref)"
_COLOURS = tuple(f"var(--c{index})" for index in range(8))
_POINTS = 1000  # of a line; more cannot be seen
_NAMED = 20  # classes up to which a confusion matrix is written out
_LONGEST = 18


def colour(index: int) -> str:
    """The index-th colour; they repeat after eight."""
    return _COLOURS[index % len(_COLOURS)]


@dataclass(frozen=True)
class Line:
    """One curve: of a method, with one seed."""

    method: str
    seed: int
    x: Sequence[float]
    y: Sequence[float]
    colour: str


def lines(
    title: str, words: str, drawn: Sequence[Line], x_title: str, y_title: str, *, height: int = 300, steps: bool = False
) -> Figure:
    """Curves, one colour a method, one line a seed. steps: values that hold until the next one."""
    methods = list(dict.fromkeys(line.method for line in drawn))
    told: set[str] = set()
    traces = []
    for line in drawn:
        x, y = _thinned(line.x, line.y)
        single = len(x) == 1
        traces.append(
            {
                "type": "scatter",
                "mode": "markers" if single else "lines",
                "x": x,
                "y": y,
                "name": plain(line.method),
                "legendgroup": plain(line.method),
                "showlegend": line.method not in told,
                "line": {"color": line.colour, "width": 1.6, "shape": "hv" if steps else "linear"},
                "marker": {"color": line.colour, "size": 7},
                "opacity": 0.85,
                "hovertemplate": f"seed {line.seed}: %{{y:.4g}} at %{{x:.4g}}<extra></extra>",
            }
        )
        told.add(line.method)
    told_apart = {"showlegend": len(methods) > 1}
    return Figure(title, traces, layout(axis(x_title, rangemode="tozero"), axis(y_title)) | told_apart, words, height)


@dataclass(frozen=True)
class Difference:
    """Of a method from the reference: by seed, and its mean with the 95 % interval (None where it is not known)."""

    method: str
    by_seed: Sequence[float]
    mean: float
    low: float | None
    high: float | None
    colour: str


def differences(title: str, words: str, drawn: Sequence[Difference], x_title: str, limit: float) -> Figure:
    """A row for each method: a dot for each seed, the mean and its interval, on a scale from -limit to limit."""
    traces: list[dict[str, Any]] = []
    for entry in drawn:
        row = plain(_cut(entry.method))
        known = entry.low is not None and entry.high is not None
        error = {
            "type": "data",
            "symmetric": False,
            "array": [(entry.high or 0.0) - entry.mean],
            "arrayminus": [entry.mean - (entry.low or 0.0)],
            "color": entry.colour,
            "thickness": 2,
            "width": 6,
            "visible": known,
        }
        traces += [
            {
                "type": "scatter",
                "mode": "markers",
                "x": [entry.mean],
                "y": [row],
                "error_x": error,
                "marker": {"symbol": "square", "size": 10, "color": entry.colour},
                "hovertemplate": "mean %{x:+.4f}<extra></extra>",
            },
            {
                "type": "scatter",
                "mode": "markers",
                "x": list(entry.by_seed),
                "y": [row] * len(entry.by_seed),
                "customdata": list(range(len(entry.by_seed))),
                "marker": {
                    "symbol": "circle-open",
                    "size": 11,
                    "color": entry.colour,
                    "line": {"width": 1.6, "color": entry.colour},
                },
                "hovertemplate": "seed %{customdata}: %{x:+.4f}<extra></extra>",
            },
        ]
    across = axis(x_title, zeroline=True, zerolinecolor="var(--soft)", zerolinewidth=1.5, range=[-limit, limit])
    down = axis("", type="category", autorange="reversed", showgrid=False)
    return Figure(title, traces, layout(across, down) | {"showlegend": False}, words, 90 + 44 * len(drawn))


def worth(
    title: str,
    words: str,
    points: Mapping[int, Sequence[float]],
    law: PowerLaw | None,
    goal: float,
    levels: Sequence[tuple[str, float, str]],
    reference: str,
    metric: str,
) -> Figure:
    """The reference's metric by number of labels, with the power law through it, and the level of each method.

    law: of the distance to `goal`, the metric of a perfect model; None where the points do not clearly follow one.
    levels: (method, metric, colour).
    """
    labels = sorted(points)
    means = [float(np.mean(points[count])) for count in labels]
    every = [(count, value) for count in labels for value in points[count]]
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "markers",
            "x": [count for count, _ in every],
            "y": [value for _, value in every],
            "showlegend": False,
            "marker": {"symbol": "circle-open", "size": 8, "color": REFERENCE},
            "hovertemplate": "%{x} labels: %{y:.4g}<extra></extra>",
        },
        {
            "type": "scatter",
            "mode": "markers+lines" if law is None else "markers",
            "x": labels,
            "y": means,
            "name": plain(reference),
            "marker": {"symbol": "square", "size": 9, "color": REFERENCE},
            "line": {"color": REFERENCE, "width": 1.5},
            "hovertemplate": "%{x} labels: mean %{y:.4g}<extra></extra>",
        },
    ]
    if law is not None:
        between = np.geomspace(labels[0], labels[-1], 60)
        sign = 1.0 if goal == 0 else -1.0
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": between,
                "y": goal + sign * law.error(between),
                "name": "power law",
                "line": {"color": REFERENCE, "width": 1.5, "dash": "dot"},
                "hoverinfo": "skip",
            }
        )
    for method, level, shade in levels:
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": [labels[0], labels[-1]],
                "y": [level, level],
                "name": plain(method),
                "line": {"color": shade, "width": 2, "dash": "dash"},
                "hovertemplate": "%{y:.4g}<extra></extra>",
            }
        )
    across = axis("labels to learn from", type="log", tickvals=labels, ticktext=list(map(str, labels)))
    return Figure(title, traces, layout(across, axis(metric)), words, 320)


def confusion(title: str, words: str, counts: np.ndarray, classes: Sequence[str]) -> Figure:
    """counts (K, K): rows are the truth. Tinted by the share of the row, written out up to 20 classes."""
    names = [plain(_cut(name)) for name in classes]
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    few = len(names) <= _NAMED
    trace = {
        "type": "heatmap",
        "z": share,
        "x": names,
        "y": names,
        "customdata": counts,
        "text": counts if few else None,
        "texttemplate": "%{text}" if few else "",
        "colorscale": [[0, "var(--card)"], [1, "var(--c0)"]],
        "zmin": 0,
        "zmax": 1,
        "showscale": False,
        "xgap": 1 if few else 0,
        "ygap": 1 if few else 0,
        "hovertemplate": "truth %{y}, answer %{x}: %{customdata} (%{z:.1%})<extra></extra>",
    }
    across = axis("answer", type="category", showgrid=False)
    down = axis("truth", type="category", autorange="reversed", showgrid=False)
    return Figure(title, [trace], layout(across, down), words, 300 if len(names) <= 6 else 380)


def answers(title: str, words: str, truth: Sequence[float], answer: Sequence[float]) -> Figure:
    """Predicted against true values, with the line on which they agree."""
    ends = [float(min(*truth, *answer)), float(max(*truth, *answer))]
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": ends,
            "y": ends,
            "line": {"color": "var(--soft)", "width": 1, "dash": "dot"},
            "hoverinfo": "skip",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "x": list(truth),
            "y": list(answer),
            "marker": {"color": "var(--c0)", "size": 6, "opacity": 0.6},
            "hovertemplate": "truth %{x:.4g}, answer %{y:.4g}<extra></extra>",
        },
    ]
    return Figure(title, traces, layout(axis("truth"), axis("answer")) | {"showlegend": False}, words, 340)


def plain(text: str) -> str:
    """Plotly reads some HTML in texts; names of the user's are to be seen as they are."""
    return html.escape(text, quote=False)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _thinned(x: Sequence[float], y: Sequence[float]) -> tuple[list[float], list[float]]:
    """At most as many points as can be seen, the last among them."""
    kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), _POINTS)).round().astype(int))
    return [x[index] for index in kept], [y[index] for index in kept]


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis in the style of the page."""
    return {
        "title": {"text": title, "font": {"size": 12.5, "color": "var(--soft)"}, "standoff": 8},
        "gridcolor": "var(--faint)",
        "linecolor": "var(--line)",
        "zeroline": False,
        "tickfont": {"size": 12, "color": "var(--soft)"},
        "ticks": "",
        "automargin": True,
        "fixedrange": True,
        **more,
    }


def layout(across: dict[str, Any], down: dict[str, Any]) -> dict[str, Any]:
    """A plot in the style of the page, with its two axes."""
    return {
        "xaxis": across,
        "yaxis": down,
        "margin": {"l": 56, "r": 12, "t": 10, "b": 44},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "var(--ink)"},
        "hoverlabel": {"bgcolor": "var(--card)", "bordercolor": "var(--line)", "font": {"color": "var(--ink)"}},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "hovermode": "closest",
        "dragmode": False,
        "autosize": True,
    }
