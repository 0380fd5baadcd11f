"""Runs and comparisons as pages: the report of those that are done, and of the others how far they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from papertrial.app.web.runs import (
    DAMAGE,
    DONE,
    RUNNING,
    STOPPED,
    UNKNOWN,
    UNREADABLE,
    Entry,
    Part,
    mark,
    metric_of,
    records,
)
from papertrial.core.budget import Budget, duration
from papertrial.core.errors import PapertrialError
from papertrial.core.run import ENVIRONMENT
from papertrial.core.wording import counted
from papertrial.study import report_blocks
from papertrial.study.figures import REFERENCE, colour
from papertrial.study.html_page import (
    Answer,
    Bars,
    Code,
    Facts,
    Fold,
    Grid,
    Page,
    Section,
    Table,
    Tag,
    Text,
    figures_in,
    render,
)
from papertrial.study.report import page_of, standing
from papertrial.study.report_blocks import number, typed
from papertrial.use.card import ASKED, CARD, RESULT
from papertrial.use.final import COMPARISON
from papertrial.use.uses import commands, of_card

TONES = {RUNNING: "busy", DONE: "good", STOPPED: "open", UNKNOWN: "open", UNREADABLE: "bad"}


#: orders of the list, and how they are called
ORDERS = {"changed": "last change", "path": "name", "result": "result", "time": "time spent"}


def chosen(entries: Sequence[Entry], q: str, state: str, sort: str) -> list[Entry]:
    """Those that hold all words of `q`, and are of the state; what runs comes first, and what cannot be ordered last."""
    words = q.casefold().split()
    found = [
        entry
        for entry in entries
        if state in ("", entry.state)
        and all(word in f"{entry.path} {entry.method} {entry.data} {entry.words}".casefold() for word in words)
    ]
    keys: dict[str, Callable[[Entry], Any]] = {
        "path": lambda entry: entry.path,
        "result": lambda entry: (entry.metric is None, entry.metric and (entry.metric[0], -entry.metric[1])),
        "time": lambda entry: -(entry.seconds or 0.0),
    }
    return sorted(found, key=keys[sort]) if sort in keys else found


def side_by_side(*pair: tuple[Entry, Path]) -> Page:
    """Results, cost, and the settings that differ. Raises PapertrialError for what is not done, or two of different kinds."""
    for entry, _ in pair:
        if entry.state != DONE or entry.kind != "run":
            raise PapertrialError(f"{entry.path} is no run that is done", "choose two single runs that are done")
    held = [_kept(folder) for _, folder in pair]
    cards, results = [card for card, _ in held], [result for _, result in held]
    names = [entry.path for entry, _ in pair]
    rows = [
        [name, *(number(result["metrics"].get(name)) for result in results)]
        for name in dict.fromkeys(name for result in results for name in result["metrics"])
    ]
    kept = [
        {entry["name"]: entry["value"] for entry in [*card["settings"], *card["backbone_settings"]]} for card in cards
    ]
    about = [{"method": e.method, "data": e.data, "seed": e.seed, "time": duration(e.seconds or 0.0)} for e, _ in pair]
    told = [
        {**own, **{name: typed(value) for name, value in some.items()}} for own, some in zip(about, kept, strict=True)
    ]
    differing = [
        [name, *(str(own.get(name, "–")) for own in told)]
        for name in dict.fromkeys(name for own in told for name in own)
        if len({str(own.get(name)) for own in told}) > 1
    ]
    runs = [records(folder)[0] for _, folder in pair]
    same = cards[0]["data"]["fingerprint"] == cards[1]["data"]["fingerprint"]
    metric, higher = metric_of(cards[0])
    curves: list[Any] = []
    for name, run, shade in zip(names, runs, map(colour, range(2)), strict=True):
        with suppress(*DAMAGE):
            own = report_blocks.curves([run], {run.method: shade}.__getitem__, metric, higher)
            curves += [replace(figure, title=f"{name}: {figure.title}") for figure in figures_in(own)]
    words = "Two runs are not a verdict: papertrial compare gives one, over seeds."
    answers = [Answer("The data differ", ": the figures do not compare.", "open")] if not same else []
    return Page(
        "side by side",
        " and ".join(names),
        answers,
        [
            Section("Results", [Table(["metric", *names], rows)] if rows else []),
            Section("What differs", [Table(["", *names], differing, words=3)] if differing else [Text("Nothing.")]),
            Section("Learning", [Grid(curves, 400)] if curves else []),
        ],
        words,
    )


def _kept(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    return CARD.read(folder / "card.json"), RESULT.read(folder / "result.json")


def page(entry: Entry, folder: Path) -> Page:
    """What is known of a run or a comparison at the moment. A folder that changes under the reader costs parts of the
    page, never the page."""
    if entry.state == UNREADABLE:
        return Page(entry.kind, entry.path, [Answer("It cannot be read", f": {entry.reason}.", "bad")], [])
    if entry.state == DONE:
        with suppress(*DAMAGE):
            return _done(entry, folder)
    return _run(entry, folder) if entry.kind == "run" else _comparison(entry, folder)


def file_of(entry: Entry, folder: Path) -> str:
    """The report as a file that needs no server. Raises FileNotFoundError while it is not done."""
    if entry.state != DONE:
        raise FileNotFoundError(entry.path)
    return render(_report(folder, mark(_last_file(entry, folder))))


def _last_file(entry: Entry, folder: Path) -> Path:
    return folder / ("result.json" if entry.kind == "run" else "comparison.json")


@lru_cache(maxsize=32)
def _report(folder: Path, state: tuple[int, ...]) -> Page:
    """Without the data: they lie elsewhere."""
    return page_of(folder, data=False)[1]


def _done(entry: Entry, folder: Path) -> Page:
    found = _report(folder, mark(_last_file(entry, folder)))
    if entry.kind == "comparison":
        more = [Section("Runs", [Fold(counted(len(entry.runs), "run"), [_runs(entry)])])]
    else:
        more = [Section("How to use it", _use(folder))]
    return Page(
        found.kicker, found.question, found.answers, [*found.sections[:1], *more, *found.sections[1:]], found.lead
    )


def _use(folder: Path) -> list[Any]:
    return [Code("\n".join(commands(of_card(CARD.read(folder / "card.json")), folder)))]


def _may_have_stopped(entry: Entry) -> Answer:
    words = f": it last wrote something {ago(entry.changed)}, and this system does not tell whether a process still owns it."
    return Answer(
        "It may have stopped", f"{words} The command that began it goes on with it, or says that it is in use.", "open"
    )


def _run(entry: Entry, folder: Path) -> Page:
    config = ASKED.read(folder / "config.json")
    (record,) = records(folder) or (None,)
    words = {
        RUNNING: Answer("It is running", f", and last wrote something {ago(entry.changed)}."),
        STOPPED: Answer("It was stopped", f" {ago(entry.changed)}. The command that began it goes on with it.", "open"),
        UNKNOWN: _may_have_stopped(entry),
        DONE: Answer("It is done", ", but its report cannot be made.", "open"),
    }
    blocks: list[Any] = []
    if record is not None:
        with suppress(*DAMAGE):  # the sign of a validation score is the metric's, which is known once the run is done
            blocks = report_blocks.curves([record], lambda _: colour(0), "", True, _going(entry, folder))
    return Page(
        f"run · {config['task']}",
        f"{entry.method} on {entry.data}",
        [words[entry.state]],
        [
            Section("Progress", _progress(entry)),
            Section("Learning", blocks),
            Section("The run", [Facts(_facts(entry, folder, config)), *_log(record)]),
            Section("Settings", _settings(config)),
        ],
    )


def _going(entry: Entry, folder: Path) -> list[Path]:
    """Folders of the runs that go on, of a comparison or the run itself."""
    inside = [folder / run.path.removeprefix(f"{entry.path}/") for run in entry.runs if run.state == RUNNING]
    return [*inside, folder] if entry.state == RUNNING else inside


def _progress(entry: Entry) -> list[Any]:
    if not entry.parts:
        return [Text("It has begun; no step is logged yet.", "note")]
    return [Bars("", [(part.name or "training", part.share or 0.0, progress(part)) for part in entry.parts])]


def progress(part: Part) -> str:
    """`24 of 702 steps, 1 min left`."""
    if part.unit == "s":
        done = duration(part.step) + (f" of {duration(part.total)}" if part.total else "")
    else:
        done = f"{part.step:,.0f}" + (f" of {part.total:,.0f}" if part.total else "") + f" {part.unit}"
    return done + (f", {duration(part.left)} left" if part.left and (part.share or 0) < 1 else "")


def _facts(entry: Entry, folder: Path, config: dict[str, Any]) -> list[tuple[str, str]]:
    budget = Budget(**{name: value for name, value in config["budget"].items() if value is not None})
    place: dict[str, Any] = {}
    with suppress(*DAMAGE):
        place = ENVIRONMENT.read(folder / "environment.json")
    rows = [
        ("method", entry.method + (f" on {config['backbone']}" if config.get("backbone") else "")),
        ("data", entry.data),
        ("seed", str(entry.seed)),
        ("budget", str(budget)),
        ("recipe", str(config.get("recipe", ""))),
        ("trained for", duration(entry.seconds) if entry.seconds else ""),
        ("begun", str(place.get("date", ""))[:16].replace("T", " ") + " UTC" if place.get("date") else ""),
        ("machine", f"{place['cpu']}, {counted(place['cores'], 'core')}" if {"cpu", "cores"} <= place.keys() else ""),
        ("folder", str(folder)),
    ]
    return [row for row in rows if row[1]]


def _log(record: report_blocks.Record | None) -> list[Any]:
    """The newest value of all that is logged."""
    newest: dict[str, Any] = {}
    with suppress(*DAMAGE):
        for history in record.stages.values() if record else ():
            for row in history:
                newest |= row
    rows = [[name, number(value) if isinstance(value, float) else str(value)] for name, value in newest.items()]
    return [Fold("The latest values in the log", [Table(["value", "newest"], rows)])] if rows else []


def _settings(config: dict[str, Any]) -> list[Any]:
    blocks: list[Any] = []
    for title, key in (
        ("of the method", "config"),
        ("of its backbone", "backbone_config"),
        ("of the training", "optim"),
    ):
        held = config.get(key) or {}
        if held:
            table = Table(
                ["setting", "value"], [[name, typed(value)] for name, value in held.items()], words=2, stacked=True
            )
            blocks.append(Fold(f"{counted(len(held), 'setting')} {title}", [table]))
    return blocks


def _comparison(entry: Entry, folder: Path) -> Page:
    answers = [Answer("No round is complete yet", ": a verdict needs every method with the same seeds.")]
    blocks: list[Any] = []
    with suppress(*DAMAGE):
        answers, blocks = standing(folder)
    if entry.state == STOPPED:
        answers = [
            Answer("It was stopped", f" {ago(entry.changed)}. The same command goes on with it.", "open"),
            *answers,
        ]
    elif entry.state == UNKNOWN:
        answers = [_may_have_stopped(entry), *answers]
    held = records(folder)
    names = list(dict.fromkeys(run.method for run in held))
    curves: list[Any] = []
    done = [run for run in held if run.card is not None]
    metric, higher, reference = "", True, ""
    with suppress(*DAMAGE):
        reference = COMPARISON.read(folder / "comparison.json")["reference"] if blocks else ""
        metric, higher = metric_of(done[0].card or {})

    def shade(name: str) -> str:
        others = [other for other in names if other != reference]
        return REFERENCE if name == reference else colour(others.index(name))

    with suppress(*DAMAGE):
        curves = report_blocks.curves(
            [run for run in held if run.percent is None], shade, metric, higher, _going(entry, folder)
        )
    return Page(
        "comparison",
        f"{entry.method} on {entry.data}" if entry.method else entry.path,
        answers,
        [
            Section("Progress", _progress(entry)),
            Section("Result", blocks, "From the rounds that are complete." if blocks else ""),
            Section("Runs", [_runs(entry)]),
            Section("Learning", curves),
            Section("Cost", [Text(report_blocks.total(done))] if done else []),
        ],
    )


def _runs(entry: Entry) -> Table:
    """Every run with its state, those that run now first."""
    order = sorted(entry.runs, key=lambda run: run.state != RUNNING)
    rows = [
        [
            Tag(f"{run.method or run.path}", run.state, TONES[run.state], address(run.path)),
            run.path.rpartition("/")[2].replace("seed", "seed "),
            f"{run.metric[0]} {number(run.metric[1])}"
            if run.metric
            else "; ".join(map(progress, run.parts)) or run.reason,
            duration(run.seconds) if run.seconds else None,
        ]
        for run in order
    ]
    return Table(["run", "seed", "result or progress", "time"], rows, words=3, stacked=True)


def address(path: str) -> str:
    """Of the page of a run or a comparison."""
    return f"/runs/{quote(path)}"


def ago(moment: float) -> str:
    """`12 s ago`, `3 h ago`, `on 2026-11-20`."""
    passed = max(0.0, time.time() - moment)
    for limit, unit, name in ((90, 1, "s"), (5400, 60, "min"), (172800, 3600, "h")):
        if passed < limit:
            return f"{passed / unit:.0f} {name} ago"
    return f"on {time.strftime('%Y-%m-%d', time.localtime(moment))}"


def told(entries: Sequence[Entry]) -> str:
    """`2 running, 5 done, 1 stopped`."""
    counts = {state: sum(entry.state == state for entry in entries) for state in TONES}
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count)
