"""The report of the analysis: its verdict, table, figures and caveats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from papertrial.core.budget import size_in_words
from papertrial.core.paper import Curve, Figure, Report
from papertrial.papers.transfer_scaling.grid import Model, Side, losses_of

if TYPE_CHECKING:
    from papertrial.papers.transfer_scaling import Config, Law, Point


def report(
    sides: Mapping[str, Side],
    config: Config,
    results: Mapping[Model, Mapping[str, Any]],
    points: Sequence[Point],
    law: Law | str,
) -> Report:
    """What came of the grid, in words, a table and figures."""
    scratch, tuned = losses_of(results, "from scratch"), losses_of(results, "fine-tuned")
    cut = [model for model, result in results.items() if model.kind == "from scratch" and result["still_improving"]]
    source, target = (side.name for side in sides.values())
    return Report(
        title=f"What is pre-training on {source} worth, in bytes of {target}?",
        verdict=_verdict(points, law, source, target),
        facts=(
            ("pre-training", f"{source}, {size_in_words(sides['source'].bytes)}"),
            ("fine-tuning", f"{target}, of {size_in_words(sides['target'].bytes)}"),
            ("models", f"{len(results)}, of {', '.join(f'{size:,}' for size in scratch)} parameters, {config.pretrain} and {config.steps} steps at most"),
        ),
        head=("parameters", "fine-tuned on", "from scratch", "fine-tuned", "effective", "transferred", "times", "power law"),
        rows=tuple(_row(point) for point in points),
        numbers={
            "points": [point.to_json() for point in points],
            "law": asdict(law) if not isinstance(law, str) else None,
            "no_law": "" if not isinstance(law, str) else law,
            "from_scratch": scratch,
            "fine_tuned": tuned,
            "still_improving": [str(model) for model in cut],
        },
        figures=tuple(figure for figure in (_loss_figure(scratch, tuned), _transfer_figure(points, law)) if figure.curves),
        caveats=_caveats(points, law, cut, sum(map(len, scratch.values()))),
    )  # fmt: skip


def _row(point: Point) -> tuple[str, ...]:
    if point.state == "beyond":
        reached = (
            f">{size_in_words(point.most)}",
            f">{size_in_words(point.most - point.amount)}",
            f">{point.most / point.amount:.2g}x",
        )
    elif point.equivalent == 0:
        reached = (f"<{size_in_words(point.least)}", "hurts", f"<{point.least / point.amount:.2g}x")
    else:
        worth = size_in_words(point.transferred) if point.transferred >= 0 else f"-{size_in_words(-point.transferred)}"
        reached = (size_in_words(point.equivalent), worth, f"{point.equivalent / point.amount:.3g}x")
    by_law = size_in_words(point.by_law) if point.least <= point.by_law <= point.most else "outside"
    return (
        f"{point.size:,}",
        size_in_words(point.amount),
        f"{point.scratch:.3f}",
        f"{point.tuned:.3f}",
        *reached,
        by_law,
    )


def _verdict(points: Sequence[Point], law: Law | str, source: str, target: str) -> str:
    states = [point.state for point in points]
    known = [point.transferred for point in points if point.state == "measured"]
    parts = []
    if known:
        worth = size_in_words(min(known)) + (f" to {size_in_words(max(known))}" if len(known) > 1 else "")
        parts.append(f"pre-training on {source} is worth {worth} of {target} ({len(known)} of {len(points)} points)")
    if beyond := states.count("beyond"):
        most = size_in_words(max(point.most for point in points))
        parts.append(
            f"at {beyond} it is better than all training from scratch, with up to {most}, and its worth unknown"
        )
    if hurt := states.count("hurts"):
        parts.append(f"at {hurt} it hurts (ossification)")
    if none := states.count("nothing"):
        parts.append(f"at {none} it changes nothing")
    if not isinstance(law, str):
        parts.append(f"D_T = {law.k:.3g} D_F^{_with_interval(law, 1)} N^{_with_interval(law, 2)}")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _with_interval(law: Law, index: int) -> str:
    value = (law.alpha, law.beta)[index - 1]
    if law.intervals is None:
        return f"{value:.2f}"
    low, high = law.intervals[index]
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _caveats(points: Sequence[Point], law: Law | str, cut: Sequence[Model], scratch: int) -> tuple[str, ...]:
    found = ["One seed was trained: what differs between seeds is in no interval."]
    if cut:
        found.append(
            f"{len(cut)} of {scratch} models from scratch still improved at their last step; with more steps they would need "
            "less data, so that pre-training is worth less than it says here."
        )
    if isinstance(law, str):
        found.append(f"No power law: {law}.")
    else:
        left = len(points) - law.points
        if left:
            found.append(f"The law is fitted to {law.points} points; {left} have no logarithm or are not known.")
        if law.intervals is None:
            found.append("The law has as many coefficients as points: it fits whatever they are.")
    return tuple(found)


def _loss_figure(scratch: Mapping[int, Mapping[float, float]], tuned: Mapping[int, Mapping[float, float]]) -> Figure:
    curves = [
        Curve(f"{size:,} parameters, {kind}", tuple(sorted(losses)), tuple(losses[amount] for amount in sorted(losses)))
        for kind, table in (("from scratch", scratch), ("fine-tuned", tuned))
        for size, losses in table.items()
    ]
    return Figure(
        "Loss by the amount of data",
        "bytes trained or fine-tuned on",
        "bits per byte",
        tuple(curves),
        "The way to the right from a fine-tuned point to the curve from scratch is the data transferred.",
        log_x=True,
    )


def _transfer_figure(points: Sequence[Point], law: Law | str) -> Figure:
    curves = []
    for size in sorted({point.size for point in points}):
        own = [point for point in points if point.size == size and point.state == "measured"]
        if own:
            amounts = tuple(point.amount for point in own)
            curves.append(Curve(f"{size:,} parameters", amounts, tuple(point.transferred for point in own)))
            if not isinstance(law, str):
                fitted = tuple(float(law.transferred(amount, size)) for amount in amounts)
                curves.append(Curve(f"{size:,} parameters, power law", amounts, fitted))
    return Figure(
        "Effective data transferred",
        "bytes fine-tuned on",
        "bytes transferred",
        tuple(curves),
        "How many more bytes a model from scratch would have needed. Points that are censored are left out.",
        log=True,
        log_x=True,
    )
