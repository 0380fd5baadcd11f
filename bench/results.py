"""Rows as JSON lines, and the page and the plot made of them."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench import harness
from papertrial.core import files

FILE, TOOL = (Path(__file__).parent / name for name in ("results.jsonl", "tool.jsonl"))
PAGE, PLOT = harness.ROOT / "docs" / "speed.md", harness.ROOT / "docs" / "speed.svg"
BEGIN, END = "<!-- rows: made by `python -m bench --page` -->", "<!-- end of rows -->"
#: what makes a row itself; a new measurement of it takes its place
KEY = ("paper", "what", "peer", "size", "dtype", "mode", "device", "threads")
#: the goals of the bench
LEAST, MEDIAN = 1.0, 1.5
Row = dict[str, Any]


def load(file: Path = FILE) -> list[Row]:
    return [json.loads(text) for text in file.read_text().splitlines()] if file.exists() else []


def save(rows: Sequence[Row], file: Path = FILE) -> None:
    """One line per row, in one step: whoever reads meanwhile sees the old or the new file."""
    files.write_text(file, "".join(files.to_json(row) + "\n" for row in rows))


def merge(old: Sequence[Row], new: Sequence[Row], *, whole: bool) -> list[Row]:
    """`new` in place of old rows of the same key; where `new` is the whole of its papers, old rows of theirs go.

    Rows on another device or with other threads stay. Sorted by paper, in the order of measuring.
    """

    def place(row: Row) -> tuple[Any, ...]:
        return row["paper"], row.get("device"), row.get("threads")

    fresh = {tuple(row.get(name) for name in KEY): row for row in new}
    measured = {place(row) for row in new}
    kept = []
    for row in old:
        key = tuple(row.get(name) for name in KEY)
        if key in fresh:
            if not whole:
                kept.append(fresh.pop(key))
        elif not (whole and place(row) in measured):
            kept.append(row)
    return sorted([*kept, *fresh.values()], key=lambda row: row["paper"])


def _faster(row: Row) -> str:
    return f"{row['ratio']:.2f} [{row['low']:.2f}, {row['high']:.2f}]" if "ratio" in row else "-"


def line(row: Row) -> str:
    """A row as it is printed while it runs."""
    share = f", {row['share']:.0%} of the limit" if "share" in row else ""
    names = (row[name] for name in ("what", "size", "dtype", "mode") if row.get(name))
    taken = f" {row['ours_ms']:g} ms" if "ours_ms" in row else ""
    against = f", {row['peer']} {row['peer_ms']:g} ms: {_faster(row)} times faster" if "ratio" in row else ""
    more = "".join(f"; {words}" for words in _more(row))
    return f"{row['paper'] + ': ' + ', '.join(names):<72}{taken}{against}{share}{more}"


#: what a row of the tool may hold beside its time, and how the page says it
_MORE = {
    "ours_p99_ms": "99 % within {:.3g} ms", "peer_p99_ms": "the peer's within {:.3g} ms", "recall": "recall {:.3g}",
    "disk_mb": "{:.3g} MB on disk", "peer_build_ms": "the peer builds in {:.3g} ms", "wall_s": "{:.2g} s by the clock",
    "share_of_run": "{:.2%} of a run that writes one each 30 s", "waiting": "{:.2%} of the training",
}  # fmt: skip


def _more(row: Row) -> list[str]:
    return [words.format(row[name]) for name, words in _MORE.items() if row.get(name) is not None]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    body = ["| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in rows]
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *body, ""]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _median(rows: Sequence[Row]) -> str:
    return f"{statistics.median(row['ratio'] for row in rows):.2f}" if rows else "not known how many"


def summary(rows: Sequence[Row]) -> list[str]:
    raced = [row for row in rows if "ratio" in row]
    if not raced:
        return ["No row has been raced.", ""]
    packages = [row for row in raced if row["peer"] in row["versions"]]
    below = [row for row in raced if row["ratio"] < LEAST]
    surely, hidden = (sum(map(kind, below)) for kind in (lambda row: row["high"] < LEAST, lambda row: not row["bound"]))
    parts = {
        "all rows": raced,
        "against packages": packages,
        **{mode: [row for row in raced if row["mode"] == mode] for mode in ("eager", "compiled")},
        **{dtype: [row for row in raced if row["dtype"] == dtype] for dtype in sorted({r["dtype"] for r in raced})},
    }
    return [
        f"{len(raced)} rows against {len({row['peer'] for row in raced})} peers: papertrial is {_median(packages)} times as fast in the median row against "
        f"a package (goal: {MEDIAN:g}), and slower in {len(below)} of all (goal: none): in {surely} of them beyond what the interval leaves open, in {hidden} "
        f"for no known reason.",
        "",
        *_table(
            ("rows", "how many", "median", "lowest", "highest", f"below {LEAST:g}"),
            (
                (
                    name,
                    str(len(part)),
                    _median(part),
                    f"{min(r['ratio'] for r in part):.2f}",
                    f"{max(r['ratio'] for r in part):.2f}",
                    str(sum(r["ratio"] < LEAST for r in part)),
                )
                for name, part in parts.items()
                if part
            ),
        ),
    ]


def _by(rows: Iterable[Row], *names: str) -> dict[tuple[Any, ...], list[Row]]:
    found = defaultdict(list)
    for row in rows:
        found[tuple(row[name] for name in names)].append(row)
    return dict(found)


def below(rows: Sequence[Row]) -> list[str]:
    slow = [row for row in rows if row.get("ratio", LEAST) < LEAST]
    if not slow:
        return []
    return [
        f"## Rows below {LEAST:g}",
        "",
        *_table(
            ("paper", "work", "peer", "size", "dtype", "mode", "times faster", "what bounds it"),
            (
                (
                    *(str(row[name]) for name in ("paper", "what", "peer", "size", "dtype", "mode")),
                    _faster(row),
                    row["bound"] or "not known",
                )
                for row in sorted(slow, key=lambda row: row["ratio"])
            ),
        ),
    ]


def growing(rows: Sequence[Row]) -> list[str]:
    found = []
    for (paper, what, peer, dtype, mode, device), series in _by(
        rows, "paper", "what", "peer", "dtype", "mode", "device"
    ).items():
        sizes = [row["scale"] for row in series]
        ours = harness.growth(sizes, [row["ours_ms"] for row in series]) if len(set(sizes)) == len(sizes) else None
        if ours is None:
            continue
        theirs = harness.growth(sizes, [row["peer_ms"] for row in series]) if peer else None
        cells = [
            f"{middle:.2f} [{low:.2f}, {high:.2f}]" for low, middle, high in (each for each in (ours, theirs) if each)
        ]
        where = "" if device == "cpu" else f", {device}"
        found.append(
            (paper, what, peer, f"{series[0]['size']} to {series[-1]['size']}", f"{dtype}, {mode}{where}", *cells, *[""] * (2 - len(cells)))
        )  # fmt: skip
    if not found:
        return []
    return [
        "## How cost grows",
        "",
        "Time grows as size to the power of the exponent (least squares on logarithms, 95 %).",
        "",
        *_table(("paper", "work", "peer", "sizes", "rows", "ours", "peer's"), found),
    ]


def tables(rows: Sequence[Row]) -> list[str]:
    found: list[str] = []
    for (paper,), part in _by(rows, "paper").items():
        found += [f"## {paper}", ""]
        for (hardware, threads, device), same in _by(
            [row | {"where": json.dumps(row["hardware"])} for row in part], "where", "threads", "device"
        ).items():
            machine = json.loads(hardware)
            chip = ", ".join(machine["gpus"]) if device != "cpu" else f"{machine['cpu']}, {threads} thread(s)"
            versions = {name: version for row in same for name, version in row["versions"].items()}
            dates = sorted({row["date"] for row in same})
            found += [
                f"{chip}; {', '.join(f'{name} {version}' for name, version in versions.items())}; {' to '.join(dict.fromkeys((dates[0], dates[-1])))}.",
                "",
                *_table(
                    ("work", "peer", "size", "dtype", "mode", "ours, ms", "peer, ms", "times faster", "memory, MB", "peer's, MB", "achieved", "share of limit"),
                    (
                        (
                            *(row[name] for name in ("what", "peer", "size", "dtype", "mode")),
                            _number(row["ours_ms"]), _number(row.get("peer_ms")), _faster(row),
                            _number(row.get("ours_mb")), _number(row.get("peer_mb")),
                            f"{_number(row['achieved'])} {row['unit']}" if "achieved" in row else "",
                            f"{row['share']:.0%}" if "share" in row else "",
                        )
                        for row in same
                    ),
                ),
            ]  # fmt: skip
        notes = {
            f"{row['what']}, {row['peer']}: answers differ, because {row['differs']}." for row in part if row["differs"]
        }
        found += [*sorted(notes), ""] if notes else []
    return found


def tool(rows: Sequence[Row]) -> list[str]:
    """The rows of `bench.tool`."""
    found = ["## The tool around the methods", ""] if rows else []
    for hardware, same in _by([row | {"where": row["hardware"]["cpu"]} for row in rows], "where").items():
        found += [
            f"{hardware[0]}; {', '.join(sorted({row['date'] for row in same}))}. Below 1, the peer does less, or the last column says what bounds it.",
            "",
            *_table(
                ("work", "size", "peer", "ours, ms", "peer, ms", "times faster", "memory, MB", "peer's, MB", "notes"),
                (
                    (
                        *(row[name] for name in ("what", "size", "peer")),
                        *(_number(row.get(name)) for name in ("ours_ms", "peer_ms")), _faster(row),
                        *(_number(row.get(name)) for name in ("ours_mb", "peer_mb")),
                        "; ".join([*_more(row), *(row[name] for name in ("differs", "bound") if row[name])]),
                    )
                    for row in same
                ),
            ),
        ]  # fmt: skip
    return found


def page(rows: Sequence[Row], of_the_tool: Sequence[Row] = ()) -> str:
    """What stands between the markers of docs/speed.md."""
    parts = [*summary(rows), "![times faster, by paper](speed.svg)", "", *below(rows), *growing(rows)]
    return "\n".join([BEGIN, "", *parts, *tool(of_the_tool), *tables(rows), END])


def write_page(
    rows: Sequence[Row], of_the_tool: Sequence[Row] = (), file: Path = PAGE, plot_file: Path | None = PLOT
) -> None:
    """Replace what stands between the markers. Raises ValueError where a marker is missing."""
    text = file.read_text()
    if BEGIN not in text or END not in text:
        raise ValueError(f"{file} has lost its markers: {BEGIN} ... {END}")
    head, foot = text.partition(BEGIN)[0], text.partition(END)[2]
    files.write_text(file, head + page(rows, of_the_tool) + foot)
    if plot_file is not None:
        plot(rows, plot_file)


def plot(rows: Sequence[Row], file: Path) -> None:
    """A dot for each row at its ratio, a line of dots for each paper. SVG or PNG, the same bytes for the same rows."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    raced = [row for row in rows if "ratio" in row]
    names = list(dict.fromkeys(row["paper"] for row in raced))[::-1]
    colours = {"float64": "#777777", "float32": "#1f5fa8", "bfloat16": "#c05a12"}
    with matplotlib.rc_context({"svg.hashsalt": "papertrial", "font.size": 10}):
        figure = Figure(figsize=(8, 1.6 + 0.45 * max(len(names), 1)), layout="constrained")
        axes = figure.add_subplot()
        for height, name in enumerate(names):
            part = [row for row in raced if row["paper"] == name]
            for index, row in enumerate(part):
                at = height + 0.56 * ((index + 0.5) / len(part) - 0.5)
                colour = colours[row["dtype"]]
                axes.plot([row["low"], row["high"]], [at, at], color=colour, linewidth=0.8, alpha=0.6)
                face = colour if row["mode"] == "eager" else "white"
                axes.plot(row["ratio"], at, "o", markersize=4, color=colour, markerfacecolor=face, markeredgewidth=0.9)
        if raced:
            middle = statistics.median(row["ratio"] for row in raced)
            axes.axvline(middle, color="#444444", linewidth=1, linestyle=":")
            words = {"xytext": (3, 0), "textcoords": "offset points", "va": "bottom", "fontsize": 9}
            axes.annotate(f"median {middle:.2f}", (middle, len(names) - 0.45), **words)
        axes.axvline(LEAST, color="#444444", linewidth=1)
        axes.set_xscale("log")
        axes.set_ylim(-0.6, len(names) - 0.1)
        axes.set_yticks(range(len(names)), names)
        ticks = [tick for tick in (0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256) if _reaches(raced, tick)]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        axes.set_xlabel("times as fast as the peer, with the 95 % interval of the median")
        axes.grid(axis="x", linewidth=0.4, alpha=0.5)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        used = [dtype for dtype in colours if any(row["dtype"] == dtype for row in raced)]
        keys = [
            Line2D([], [], marker="o", linestyle="", markersize=5, color=colours[dtype], label=f"{dtype}, eager")
            for dtype in used
        ]
        keys += [
            Line2D(
                [],
                [],
                marker="o",
                linestyle="",
                markersize=5,
                color="#444444",
                markerfacecolor="white",
                label="compiled",
            )
        ]
        figure.legend(handles=keys, loc="outside upper center", ncols=len(keys), frameon=False, fontsize=9)

        def write(temporary: Path) -> None:
            kind = file.suffix.lstrip(".")
            figure.savefig(temporary, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)

        files.write_with(file, write)


def _reaches(rows: Sequence[Row], tick: float) -> bool:
    ratios = [row["ratio"] for row in rows] or [1.0]
    return min(*ratios, 1.0) / 1.6 <= tick <= max(*ratios, 1.0) * 1.6
