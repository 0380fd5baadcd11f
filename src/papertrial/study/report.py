"""A run, a comparison or evidence as one HTML page: the question, the answer, what it rests on, and how to get it again.

Everything is read from the folder. The training data alone are opened again for their pictures, from where they were,
and only shown when they are still the same. The page of evidence is made in `study.evidence`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from papertrial.core import registry
from papertrial.core.arguments import typed
from papertrial.core.budget import ESTIMATED, Energy, duration, size_in_words
from papertrial.core.curves import fit_power_law
from papertrial.core.errors import PapertrialError, did_you_mean
from papertrial.core.files import write_text
from papertrial.core.ours import require_free, will_write
from papertrial.core.stats import CANNOT_TELL, HELPS, HURTS
from papertrial.study import evidence, examples, figures, report_blocks
from papertrial.study.comparison import Comparison, Row
from papertrial.study.figures import REFERENCE, Difference, colour
from papertrial.study.html_page import (
    Answer,
    Axis,
    Fold,
    Forest,
    Grid,
    Heading,
    Items,
    Page,
    Section,
    Table,
    Tag,
    Text,
    render,
    typeset,
)
from papertrial.study.report_blocks import Record, listed, number, signed
from papertrial.study.report_commands import compare_command, fit_command
from papertrial.use.artifact import Artifact
from papertrial.use.final import COMPARISON
from papertrial.use.folds import rounds

TONES = {HELPS: "good", HURTS: "bad", CANNOT_TELL: "open", "failed": "bad"}
#: methods with a confusion matrix of their own
_CONFUSED = 4
#: damaged files and lines that are named one by one
_NAMED = 5
#: a scale reaches so many times as far as the methods in question; what lies beyond gets an arrow
_REACH = 2.5


@dataclass(frozen=True)
class Report:
    """A report that was written. sections: their titles, in the order of the page."""

    file: Path
    kind: str
    question: str
    answers: tuple[str, ...]
    sections: tuple[str, ...]
    size: int


@typed
def report(
    folder: Path | str | Artifact | Comparison,
    out: Path | str | None = None,
    *,
    data: bool = True,
    replace: bool = False,
) -> Report:
    """One HTML page that needs no network: the verdict, what it rests on, what it cost, how to reproduce it.

    folder: a run's or a comparison's, an `Artifact` or a `Comparison` itself, or evidence: a folder of it or one .jsonl
    file.  out: by default report.html in the folder, or beside a file, under its name.  data: open the training data again,
    for pictures and distributions.  replace: a file that is there already and was not written into the folder by an earlier
    call. Raises PapertrialError when there is none of them, and for such a file.

        >>> import papertrial as pt
        >>> model = pt.fit("linear", "iris", out="runs/iris", progress=False)
        >>> pt.report("runs/iris").file.name
        'report.html'
    """
    folder = Path(folder.folder if isinstance(folder, Artifact | Comparison) else folder)
    beside = folder.with_suffix(".html") if folder.suffix == ".jsonl" else folder / "report.html"
    file = Path(out) if out is not None else beside
    if file.suffix.lower() not in (".html", ".htm"):
        raise PapertrialError(f"a report is a web page, not {file.name}", "give --out a name that ends in .html")
    require_free(file, replace)
    kind, page = page_of(folder, data=data)
    text = render(page)
    if out is None and not replace:
        will_write(file.parent, file.name)
    write_text(file, text)
    return Report(
        file,
        kind,
        page.question,
        tuple(answer.sentence for answer in page.answers),
        tuple(section.title for section in page.sections if section.blocks),
        len(text.encode()),
    )


def page_of(folder: Path, *, data: bool = True) -> tuple[str, Page]:
    """The kind of report that `report` would write, and its page. Raises PapertrialError when there is none."""
    if (folder / "comparison.json").exists():
        return "comparison", _of_comparison(folder, data)
    if (folder / "config.json").exists():
        return "run", _of_run(folder, data)
    if files := evidence.evidence_files(folder):
        return "evidence", evidence.page(folder, files)
    raise _nothing(folder)


def standing(folder: Path) -> tuple[list[Answer], list[Any]]:
    """What a comparison has come to so far: its answers, and the table with its intervals. Raises PapertrialError before
    its first round is complete."""
    study = _read_comparison(folder)
    return _answers(study), _result(study)


def _nothing(folder: Path) -> PapertrialError:
    if not folder.exists():
        beside = [entry.name for entry in folder.parent.iterdir()] if folder.parent.is_dir() else []
        sort = "file" if folder.suffix == ".jsonl" else "folder"
        return PapertrialError(f"there is no {sort} {folder}", did_you_mean(folder.name, beside))
    if folder.is_file():
        return PapertrialError(
            f"{folder} holds no evidence of claims", "name a folder, or a .jsonl file that papertrial check wrote"
        )
    inside = sorted(folder.glob("*/comparison.json")) + sorted(folder.glob("*/card.json"))
    fix = f"name one in it, such as {inside[0].parent}" if inside else "type: papertrial compare PAPER --data DATA"
    return PapertrialError(f"{folder} holds no run, no comparison and no evidence", fix)


# ---------------------------------------------------------------------------------------------------------- comparison


@dataclass(frozen=True)
class _Compared:
    """A comparison with its runs. runs: finished with all labels, by method; fewer: the reference on fewer labels;
    every: all of them, those that stopped too.  unread: what is wrong with runs that cannot be read."""

    folder: Path
    found: Comparison
    config: dict[str, Any]
    asked: dict[str, Any]
    every: tuple[Record, ...]
    unread: tuple[str, ...] = ()

    @cached_property
    def runs(self) -> dict[str, list[Record]]:
        names = [row.name for row in self.found.rows]
        full = [
            run for run in self.every if run.card is not None and run.percent is None and run.seed < self.found.seeds
        ]
        return {name: [run for run in full if run.method == name] for name in names}

    @cached_property
    def fewer(self) -> list[Record]:
        return [
            run
            for run in self.every
            if run.card is not None and run.percent is not None and run.method == self.found.reference
        ]

    @property
    def card(self) -> dict[str, Any]:
        """A card of the reference, for what all runs share: the data, the environment."""
        card = self.runs[self.found.reference][0].card
        assert card is not None
        return card

    def colour(self, name: str) -> str:
        if name == self.found.reference:
            return REFERENCE
        return colour([row.name for row in self.found.rows if row.name != self.found.reference].index(name))

    def by_seed(self, name: str) -> list[float]:
        """The primary metric with each seed, the mean over its folds where there are some."""
        values: dict[int, list[float]] = {}
        for run in self.runs[name]:
            if run.result is not None:
                values.setdefault(run.seed, []).append(run.result["metrics"][self.found.metric])
        return [float(np.mean(values[seed])) for seed in sorted(values)]

    @property
    def rounds(self) -> str:
        """`5 seeds`, or `3 repeats of 5 folds`."""
        return rounds(self.found.seeds, self.found.folds)

    @property
    def limit(self) -> float:
        """Half the width of the scale of differences."""
        ends = {row.name: max(map(abs, _ends(row)), default=0.0) for row in self.found.rows}
        own = max((ends[row.name] for row in self.found.rows if row.role == "method"), default=0.0)
        near = [end for end in ends.values() if not own or end <= _REACH * own]
        return 1.05 * max(near) or 1.0


def _ends(row: Row) -> list[float]:
    """The difference and the ends of its interval, as far as they are known."""
    return [end for end in (row.difference, row.low, row.high) if end is not None]


def _read_comparison(folder: Path) -> _Compared:
    found = Comparison.read(folder)
    held = COMPARISON.read(folder / "comparison.json")
    every, unread = [], []
    for file in sorted(folder.glob("*/seed*/config.json")):
        try:
            every.append(Record.read(file.parent))
        except PapertrialError as error:  # it costs this run
            unread.append(str(error))
    every.sort(key=lambda run: (run.method, run.percent or 100, run.seed))
    study = _Compared(folder, found, held["config"], held.get("asked", {}), tuple(every), tuple(unread))
    if not study.runs[found.reference]:
        raise PapertrialError(
            f"the runs that {folder / 'comparison.json'} speaks of are not there", "run the same comparison again"
        )
    return study


def _of_comparison(folder: Path, data: bool) -> Page:
    study = _read_comparison(folder)
    found, name = study.found, study.card["data"]["name"]
    asked = [row.name for row in found.rows if row.role == "method"] or [found.reference]
    verb = "Do" if len(asked) > 1 else "Does"
    unfinished = "" if found.complete else "Not finished: the same command goes on from here."
    command = compare_command(found, study.config, study.asked, study.card, study.folder)
    left_out = _left_out([*study.unread, *(line for run in study.every for line in run.damage)])
    sections = [
        Section("Result", _result(study)),
        Section("Drawn pictures", examples.sheets(_first_runs(study))),
        Section("Data", report_blocks.data(study.card, data)),
        Section("Learning", _learning(study)),
        Section("Errors", _errors(study)),
        Section("Settings", _all_settings(study), "What each method ran with, and where every value comes from."),
        Section(
            "Papers and caveats",
            report_blocks.papers(_cards(study, asked), _cards(study, [r.name for r in found.rows])),
        ),
        Section("Cost", _cost(study)),
        Section("Protocol", _protocol(study)),
        Section(
            "How to reproduce",
            report_blocks.reproduce(folder, study.every, command, study.card),
        ),
    ]
    return Page(
        f"papertrial comparison · {found.metric} · {study.rounds} · {found.budget} per run",
        f"{verb} {listed(asked)} help on {name}?",
        _answers(study),
        sections,
        " ".join(filter(None, (unfinished, left_out))),
        report_blocks.foot(study.card),
    )


def _left_out(lines: Sequence[str]) -> str:
    """A sentence on what could not be read, the first few of it."""
    more = f"; and {len(lines) - _NAMED:,} more" if lines[_NAMED:] else ""
    return f"Left out: {'; '.join(lines[:_NAMED])}{more}." if lines else ""


def _answers(study: _Compared) -> list[Answer]:
    words = [verdict.word for verdict in study.found.verdicts.values()]  # their sentences come first
    sentences = study.found.sentences
    return [_answer(text, words[index] if index < len(words) else "") for index, text in enumerate(sentences)]


def _answer(sentence: str, word: str) -> Answer:
    """The verdict's sentence, cut after its word. word: "" for the sentences that follow the verdicts."""
    word = word or ("failed" if " failed on this data" in sentence else "")
    if not word:
        return Answer(sentence)
    end = re.search(rf"{word}( on this data)?", sentence)
    cut = end.end() if end else 0
    return Answer(sentence[:cut], sentence[cut:], TONES[word])


def _cards(study: _Compared, names: Sequence[str]) -> list[dict[str, Any]]:
    return [run.card for name in names for run in study.runs[name][:1] if run.card is not None]


def _first_runs(study: _Compared) -> dict[str, Path]:
    return {row.name: run.folder for row in study.found.rows for run in study.runs[row.name][:1]}


def _result(study: _Compared) -> list[Any]:
    found, limit = study.found, study.limit
    worth = any(row.worth is not None for row in found.rows)
    better = ("worse", "better") if found.higher_is_better else ("better", "worse")
    across = Axis((f"← {better[0]}", "", f"{better[1]} →"))
    head = ["method", found.metric, across, f"difference from {found.reference}", "time", "memory", "energy"]
    rows = [_result_cells(study, row, limit) + ([str(row.worth or "–")] if worth else []) for row in found.rows]
    scale = Axis((typeset(f"{-limit:+.2g}"), "0", f"{limit:+.2g}"))
    rows.append(["", "", scale, *[""] * (5 if worth else 4)])
    marked = [index for index, row in enumerate(found.rows) if row.role == "method"]
    notes = [
        "A square is the mean difference over the seeds, the bar its 95 % interval over seeds and test examples together;"
        " an arrow points at what lies beyond the scale."
    ]
    if any(row.energy == ESTIMATED for row in found.rows):
        notes.append("Energy marked e is estimated, not measured.")
    if worth:
        notes.append(
            f"Worth: labels that {found.reference} would need for the same {found.metric}, as a multiple of those it has."
        )
        unknown = [(row.worth.reason, row.name) for row in found.rows if row.worth is not None and row.worth.reason]
        for reason in dict.fromkeys(reason for reason, _ in unknown):
            named = [name for why, name in unknown if why == reason]
            verb = "is" if len(named) == 1 else "are"
            notes.append(f"Cannot say how many labels {listed(named)} {verb} worth: {reason}.")
    blocks: list[Any] = [
        Table([*head, *(["worth"] if worth else [])], rows, marked=marked),
        Text(" ".join(notes), "note"),
    ]
    blocks += _seed_by_seed(study, limit)
    names = list(dict.fromkeys(name for row in found.rows for name in row.metrics))
    if len(names) > 1:
        blocks.append(Fold("All metrics, means over the seeds", [_every_metric(found, names)]))
    return blocks


def _seed_by_seed(study: _Compared, limit: float) -> list[Any]:
    """The differences that the intervals come from, of the methods that lie on the scale."""
    found = study.found
    known = [row for row in found.rows if row.difference is not None]
    base = study.by_seed(found.reference)
    drawn = []
    for row in known:
        if row.difference is not None and abs(row.difference) <= limit:
            by_seed = [value - other for value, other in zip(study.by_seed(row.name), base, strict=False)]
            drawn.append(Difference(row.name, by_seed, row.difference, row.low, row.high, study.colour(row.name)))
    if not drawn:
        return []
    outside = [row.name for row in known if row.difference is not None and abs(row.difference) > limit]
    side = "right" if found.higher_is_better else "left"
    one = "one repeat, the mean of its folds" if found.folds else "one seed"
    words = f"Each circle is {one}, the square the mean with its interval; to the {side} is better."
    words += f" Beyond the scale: {listed(outside)}." if outside else ""
    across = f"{found.metric}, difference from {found.reference}"
    return [figures.differences("Seed by seed", words, drawn, across, limit)]


def _every_metric(found: Comparison, names: Sequence[str]) -> Table:
    rows = [row for row in found.rows if row.metrics]
    marked = [index for index, row in enumerate(rows) if row.role == "method"]
    return Table(
        ["method", *names],
        [[found.shown(row.name), *(number(row.metrics.get(n)) for n in names)] for row in rows],
        marked=marked,
    )


def _result_cells(study: _Compared, row: Row, limit: float) -> list[Any]:
    found, digits = study.found, study.found.digits
    if row.metric is None:
        return [
            Tag(found.shown(row.name), "failed", "bad"),
            None,
            Forest(None, None, None, limit),
            None,
            None,
            None,
            None,
        ]
    tone, word = "", {"reference": "reference"}.get(row.role, "")
    if row.name in found.verdicts:
        word = found.verdicts[row.name].word
        tone = TONES[word]
    change = "" if row.difference is None else signed(row.difference, digits)
    known = row.low is not None and row.high is not None
    if known:
        change += f" [{signed(row.low or 0.0, digits)}, {signed(row.high or 0.0, digits)}]"
    return [
        Tag(found.shown(row.name), word, tone or "plain"),
        f"{row.metric:.{digits}f}",
        Forest(row.difference, row.low, row.high, limit, tone, f"{row.name}: {change}"),
        change,
        None if row.seconds is None else duration(row.seconds),
        None if row.peak_bytes is None else size_in_words(row.peak_bytes),
        None if row.kwh is None else str(Energy(row.kwh, row.energy)),
    ]


def _learning(study: _Compared) -> list[Any]:
    found = study.found
    full = [run for run in study.every if run.percent is None and run.method in study.runs and run.seed < found.seeds]
    return [
        *report_blocks.curves(full, study.colour, found.metric, found.higher_is_better),
        *_worth_curve(study),
    ]


def _worth_curve(study: _Compared) -> list[Any]:
    """The reference on fewer labels, and the methods' levels beside it."""
    found = study.found
    points: dict[int, list[float]] = {}
    for run in [*study.fewer, *study.runs[found.reference]]:
        assert run.card is not None and run.result is not None
        points.setdefault(int(run.card["facts"]["labelled"]), []).append(run.result["metrics"][found.metric])
    if len(points) < 2:
        return []
    labels = sorted(points)
    goal = 1.0 if found.higher_is_better else 0.0
    errors = np.array([abs(goal - float(np.mean(points[count]))) for count in labels])
    fits = any(row.worth is not None and row.worth.factor is not None for row in found.rows)
    law = fit_power_law(np.array(labels), errors) if fits else None
    levels = [
        (row.name, row.metric, study.colour(row.name))
        for row in found.rows
        if row.role == "method" and row.metric is not None
    ]
    words = f"{found.metric} of {found.reference} by the labels it learned from; dashed: the methods with all of them"
    return [figures.worth("Worth in labels", words, points, law, goal, levels, found.reference, found.metric)]


def _errors(study: _Compared) -> list[Any]:
    found = study.found
    summed = {name: report_blocks.confusion(runs) for name, runs in study.runs.items()}
    held = {name: counts for name, counts in summed.items() if counts is not None}
    classes = study.card["state"].get("class_names", [])
    chosen = [row.name for row in found.rows if row.name in held and row.role != "baseline"][:_CONFUSED]
    if held:
        words = f"counts over {study.rounds}"
        drawn = [figures.confusion(name, words, held[name], classes) for name in chosen]
        return [
            report_blocks.share_right(held, classes),
            Heading("Confusion: truth by row, answer by column"),
            Grid(drawn, 400),
        ]
    scattered = [
        report_blocks.scatter(run) for row in found.rows if row.role != "baseline" for run in study.runs[row.name][:1]
    ]
    drawn = [figure for figure in scattered[:_CONFUSED] if figure is not None]
    return [Grid(drawn, 400)] if drawn else []


def _all_settings(study: _Compared) -> list[Any]:
    folds: list[Fold] = []
    for row in study.found.rows:
        for card in _cards(study, [row.name]):
            if card["settings"] or card["backbone_settings"]:
                folds.append(
                    report_blocks.settings(card, opened=row.role == "method" and not any(fold.open for fold in folds))
                )
    return folds


def _cost(study: _Compared) -> list[Any]:
    every = [run for run in study.every if run.result is not None]
    return [report_blocks.cost(study.runs), Text(report_blocks.total(every))]


def _protocol(study: _Compared) -> list[Any]:
    found = study.found
    said = found.protocol.partition(": ")
    items = [
        f"Task {said[0]}: {said[2]}.",
        f"Every method may spend {found.budget} per run, tuning and pre-training included, and answers the same test examples"
        " with the same seeds.",
        f"The reference, {found.reference}, "
        + (
            "was named by the user."
            if study.asked.get("against")
            else "is the strongest baseline by validation, never by test."
        ),
        "The interval of a difference is over seeds and test examples together. The chance of a verdict where there is no"
        " difference is at most 5 %, for all methods together.",
    ]
    items += [f"Said before, and replaced by this: {sentence}" for sentence in found.earlier]
    if found.looks:
        items.append(f"Judged before with {listed(list(map(str, found.looks)))} seeds; each further look is stricter.")
    items += [f"Left out: {name}, {reason}." for name, reason in found.declined.items()]
    items += [f"Failed: {name}, {reason}." for name, reason in found.failed.items()]
    return [Items(items), *([Heading("Notes"), Items(found.notes)] if found.notes else [])]


# ----------------------------------------------------------------------------------------------------------------- run


def _of_run(folder: Path, data: bool) -> Page:
    run = Record.read(folder)
    if run.card is None or run.result is None:
        raise PapertrialError(f"the run in {folder} is not finished", "the command that began it goes on with it")
    card, result = run.card, run.result
    metric, higher = registry.task(card["task"]["name"]).primary_for(card["state"])
    label = card["method"]["name"] + (f" on {card['backbone']}" if card["backbone"] else "")
    name = card["data"]["name"]
    lead = (
        "One run is not a verdict: it shows neither how much the seed matters nor whether something simpler does as well."
        f" To find out, type: {shlex.join(['papertrial', 'compare', card['method']['name'], *report_blocks.data_words(card)])}"
    )
    sections = [
        Section("Result", _run_result(card)),
        Section("Drawn pictures", examples.sheets({label: run.folder})),
        Section("Data", report_blocks.data(card, data)),
        Section("Learning", report_blocks.curves([run], lambda _: "var(--c0)", metric, higher)),
        Section("Errors", _run_errors(run)),
        Section(
            "Settings",
            [report_blocks.settings(card, opened=True)],
            "What it ran with, and where every value comes from.",
        ),
        Section("Papers and caveats", report_blocks.papers([card], [])),
        Section("Cost", [report_blocks.cost({card["method"]["name"]: [run]}), Text(report_blocks.total([run]))]),
        Section("Protocol", [Items(report_blocks.run_protocol(card, metric, higher))]),
        Section("How to reproduce", report_blocks.reproduce(folder, [run], fit_command(run), card)),
    ]
    return Page(
        f"papertrial run · {card['task']['name']} · seed {card['seed']}",
        f"How well does {label} do on {name}?",
        [Answer(_run_sentence(card, result, label, metric, higher))],
        sections,
        " ".join(filter(None, (lead, _left_out(run.damage)))),
        report_blocks.foot(card),
    )


def _run_sentence(card: Mapping[str, Any], result: Mapping[str, Any], label: str, metric: str, higher: bool) -> str:
    if metric not in result["metrics"]:
        return f"{label} has learned from {card['data']['name']}; there are no labelled test rows to judge it by."
    low_high = result["intervals"].get(metric)
    between = f" [{number(low_high[0])}, {number(low_high[1])}]" if low_high else ""
    better = "higher" if higher else "lower"
    first = "".join(f"{remark[0].upper()}{remark[1:]}. " for remark in result.get("said_first", ()))
    reached = f"{label} reaches {metric} {number(result['metrics'][metric])}{between} on test rows it has not seen ({better} is better)."
    return first + reached


def _run_result(card: Mapping[str, Any]) -> list[Any]:
    def between(name: str) -> str | None:
        low_high = card["intervals"].get(name)
        return f"{number(low_high[0])} to {number(low_high[1])}" if low_high else None

    ends = {
        title: card.get(key, {})
        for key, title in (("floors", "without looking"), ("ceilings", "real ones"))
        if card.get(key)
    }
    rows = [
        [
            name,
            number(value),
            between(name),
            *(number(known[name]) if name in known else None for known in ends.values()),
        ]
        for name, value in card["metrics"].items()
    ]
    if not rows:
        return [Text("No labelled test rows: nothing was judged.")]
    blocks: list[Any] = [Table(["metric", "on test rows", "95 % interval over test rows", *ends], rows)]
    if card["extra"]:
        extra = [[name, number(value)] for name, value in card["extra"].items()]
        blocks.append(Fold("Other metrics", [Table(["figure", "value"], extra)]))
    return blocks


def _run_errors(run: Record) -> list[Any]:
    counts = report_blocks.confusion([run])
    if counts is None:
        figure = report_blocks.scatter(run)
        return [figure] if figure else []
    assert run.card is not None
    classes = run.card["state"]["class_names"]
    drawn = figures.confusion("Confusion", "truth by row, answer by column", counts, classes)
    calibrated = report_blocks.reliability(run)
    return [report_blocks.share_right({"right": counts}, classes), drawn, *([calibrated] if calibrated else [])]
