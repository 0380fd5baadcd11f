"""The parts that the report of a run and that of a comparison share, each from records of runs to blocks of the page."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from papertrial.core import registry
from papertrial.core.budget import Energy, duration, size_in_words, watt_hours
from papertrial.core.run import LOG, TRIED, Run
from papertrial.core.wording import counted
from papertrial.study import examples, figures
from papertrial.study.figures import Line
from papertrial.study.html_page import Code, Facts, Fold, Grid, Heading, Heat, Items, Link, Table, Text, typeset
from papertrial.use.card import ASKED, CARD, RESULT

#: classes in a table or a chart
CLASSES = 20


@dataclass(frozen=True)
class Record:
    """What a run's folder holds. card and result are None for a run that stopped on the way.

    percent: of the training labels that it was given, where the comparison asked for fewer.
    """

    folder: Path
    config: dict[str, Any]
    card: dict[str, Any] | None
    result: dict[str, Any] | None
    percent: int | None = None

    @classmethod
    def read(cls, folder: Path) -> Record:
        card, result = folder / "card.json", folder / "result.json"
        done = card.exists() and result.exists()
        share = re.fullmatch(r"seed\d+(?:-fold\d+)?-(\d+)pct", folder.name)
        return cls(
            folder,
            ASKED.read(folder / "config.json"),
            CARD.read(card) if done else None,
            RESULT.read(result) if done else None,
            int(share[1]) if share else None,
        )

    @property
    def method(self) -> str:
        return str(self.config["method"])

    @property
    def seed(self) -> int:
        return int(self.config["seed"])

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        return Run(self.folder).history()

    @cached_property
    def trials(self) -> list[dict[str, Any]]:
        """Configurations that a method tried while tuning itself; lines that cannot be read are left out."""
        return TRIED.rows(self.folder / "trials.jsonl", grows=True)[0]

    @cached_property
    def damage(self) -> list[str]:
        """What its logs left out, a sentence each; a last line cut short by a kill is none."""
        runs = [Run(self.folder), *Run(self.folder).stages.values()]
        lines = [line for run in runs for line in LOG.rows(run.path("metrics.jsonl"), grows=True)[1]]
        return lines + TRIED.rows(self.folder / "trials.jsonl", grows=True)[1]

    @cached_property
    def stages(self) -> dict[str, list[dict[str, Any]]]:
        """The log of each stage of a system; that of the whole run, called "", where it is of one piece."""
        return {name: run.history() for name, run in Run(self.folder).stages.items()} or {"": self.history}

    def logged(self, name: str, stage: str = "") -> tuple[list[float], list[float]]:
        """(steps, values) of a number in the log."""
        history = self.stages.get(stage, []) if stage else self.history
        rows = [(row["step"], row[name]) for row in history if row.get(name) is not None]
        return [step for step, _ in rows], [value for _, value in rows]


def curves(
    runs: Sequence[Record],
    shade: Callable[[str], str],
    metric: str,
    higher_is_better: bool,
    going: Container[Path] = (),
) -> list[Any]:
    """Loss by method, then validation and tuning with all methods on one scale. metric: empty where it is not known yet.  going:
    folders of runs that go on."""
    blocks: list[Any] = []
    losses = []
    for method in dict.fromkeys(run.method for run in runs):
        of_method = [run for run in runs if run.method == method]
        for stage in dict.fromkeys(stage for run in of_method for stage in run.stages):
            own = [run for run in of_method if run.logged("loss", stage)[0]]
            drawn = [Line(method, run.seed, *run.logged("loss", stage), shade(method)) for run in own]
            if drawn:
                stopped = [run.seed for run in own if run.result is None and run.folder not in going]
                words = f"stopped with seed {listed(list(map(str, stopped)))}" if stopped else ""
                title = f"Loss of {method}" + (f", {stage}" if stage else "")
                losses.append(figures.lines(title, words, drawn, "steps", "loss", height=260))
    if losses:
        each = counted(len(losses[0].data), "seed") if len(losses) == 1 else "one line per seed"
        blocks += [
            Text(f"The loss on the training batches, {each}.", "note"),
            Grid(losses, 400) if losses[1:] else losses[0],
        ]
    sign = 1.0 if higher_is_better else -1.0
    checks = [(run, *run.logged("validation")) for run in runs]
    drawn = [Line(run.method, run.seed, x, [sign * v for v in y], shade(run.method)) for run, x, y in checks if x]
    if drawn:
        words = "on the validation rows after each epoch; the best weights are kept"
        blocks.append(figures.lines(f"Validation {metric or 'score'}", words, drawn, "steps", metric or "score"))
    tuned = [_tuning(run, shade(run.method), metric) for run in runs if run.trials]
    if tuned:
        words = "best configuration so far, on the same rows"
        name = metric or "error"
        blocks.append(figures.lines(f"Tuning: validation {name}", words, tuned, "seconds", name, steps=True))
    return blocks


def _tuning(run: Record, shade: str, metric: str) -> Line:
    """The best validation score of a method that tunes itself, by the seconds it had spent. Errors of classes are shares."""
    seconds = np.cumsum([trial["seconds"] for trial in run.trials])
    best = np.minimum.accumulate([trial["error"] for trial in run.trials])
    return Line(run.method, run.seed, seconds.tolist(), (1 - best if metric == "accuracy" else best).tolist(), shade)


def confusion(runs: Sequence[Record]) -> np.ndarray | None:
    """(K, K) counts summed over the runs; None where they were not kept."""
    kept = [run.result.get("answers", {}).get("confusion") for run in runs if run.result is not None]
    return np.sum(kept, axis=0) if kept and all(counts is not None for counts in kept) else None


def reliability(run: Record) -> Any:
    """How often answers are right by how sure they are, beside what would be calibrated; None where it was not kept."""
    bins = (run.result or {}).get("answers", {}).get("reliability")
    if not bins or len(bins["confidence"]) < 2:
        return None
    ends = [min(bins["confidence"]), 1.0]
    drawn = [
        Line(run.method, run.seed, bins["confidence"], bins["right"], figures.colour(0)),
        Line("calibrated", run.seed, ends, ends, figures.REFERENCE),
    ]
    words = f"test examples by how sure the answer is; calibration error {bins['ece']:.3f}"
    return figures.lines("Reliability", words, drawn, "confidence", "share that is right")


def share_right(held: Mapping[str, np.ndarray], classes: Sequence[str]) -> Table:
    """Per class, the share of its test examples that each method gets right; the hardest classes where there are many."""
    totals = np.max([counts.sum(axis=1) for counts in held.values()], axis=0)
    right = {name: np.diag(counts) / np.maximum(counts.sum(axis=1), 1) for name, counts in held.items()}
    mean = np.mean(list(right.values()), axis=0)
    order = np.flatnonzero(totals)
    caption = "Share of each class that is answered correctly"
    if len(order) > CLASSES:
        order = order[np.argsort(mean[order], kind="stable")][:CLASSES]
        caption += f"; the {CLASSES} hardest of {len(classes)} classes"
    rows = [
        [classes[index], *(Heat(f"{right[name][index]:.0%}", float(right[name][index])) for name in held)]
        for index in order.tolist()
    ]
    return Table(["class", *held], rows, caption=caption)


def scatter(run: Record) -> figures.Figure | None:
    """Predicted against true values; None where they were not kept."""
    held = (run.result or {}).get("answers", {})
    if "truth" not in held:
        return None
    words = f"seed {run.seed}, {counted(len(held['truth']), 'test example')}; on the line the answer equals the truth"
    return figures.answers(f"Answers of {run.method}", words, held["truth"], held["answer"])


def data(card: Mapping[str, Any], again: bool) -> list[Any]:
    """The facts as they were, and with `again` some of the examples."""
    origin, facts = card["data"], card["facts"]
    rows = [("name", origin["name"]), *((label, words) for label, words in origin.get("facts", []))]
    labelled = f", {facts['labelled']} with a label" if facts["labelled"] else ""
    rows.append(("to learn from", f"{facts['examples']} examples{labelled}"))
    blocks: list[Any] = [Facts([(label, typeset(words)) for label, words in rows])]
    counts = _class_counts(origin["numbers"])
    if counts:
        bars = examples.shares(
            "Classes", counts[:CLASSES], f"{CLASSES} largest of {len(counts)}" if counts[CLASSES:] else ""
        )
        blocks.append(Grid([bars], 320))
    return blocks + (examples.blocks(card) if again else [])


def _class_counts(numbers: Mapping[str, Any]) -> list[tuple[str, int]]:
    """(class, examples), the largest first where there are many. Tables keep two lists, images a mapping."""
    held = numbers.get("class_counts") or {}
    pairs = list(held.items()) if isinstance(held, dict) else list(zip(numbers["class_names"], held, strict=True))
    return sorted(pairs, key=lambda pair: -pair[1]) if len(pairs) > CLASSES else pairs


def settings(card: Mapping[str, Any], opened: bool) -> Fold:
    """Every setting with its value and source; those of the user are set off."""
    head = ("setting", "value", "where it comes from")
    parts: list[Any] = []
    for title, entries in (("", card["settings"]), (f"Backbone {card['backbone']}", card["backbone_settings"])):
        if entries:
            rows = [(entry["name"], typed(entry["value"]), entry["source"]) for entry in entries]
            marked = [index for index, entry in enumerate(entries) if entry["source"] == "you"]
            parts += [Heading(title)] if title else []
            parts.append(Table(head, rows, words=3, marked=marked, stacked=True))
    every = [*card["settings"], *card["backbone_settings"]]
    counts = {
        "set by you": sum(entry["source"] == "you" for entry in every),
        "suited to this data": sum(entry["source"].startswith("suited") for entry in every),
        "from its recipe or variant": sum(entry["source"].startswith(("recipe", "variant")) for entry in every),
    }
    told = ", ".join(f"{count} {words}" for words, count in counts.items() if count)
    name = card["method"]["name"] + (f" on {card['backbone']}" if card["backbone"] else "")
    return Fold(f"{name}: {counted(len(every), 'setting')}{f' ({told})' if told else ''}", parts, opened)


def papers(asked: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Title, idea and caveats of the methods asked for; of the others, folded, where they have caveats."""
    blocks: list[Any] = []
    for card in asked:
        blocks += _paper(card)
    names = [card["method"]["name"] for card in asked]
    rest = [card for card in others if card["method"]["name"] not in names and card["method"]["caveats"]]
    if rest:
        inner = [block for card in rest for block in _paper(card)]
        blocks.append(Fold("Baselines", inner))
    return blocks


def _paper(card: Mapping[str, Any]) -> list[Any]:
    method = card["method"]
    entry = registry.entries().get(method["name"].partition(":")[0])
    blocks: list[Any] = [Heading(f"{method['name']}: {method['title']}")]
    if entry is not None and entry.paper.idea:
        blocks.append(Text(sentence(entry.paper.idea)))
    blocks += [Items(method["caveats"])] if method["caveats"] else []
    blocks += [Link(f"arXiv {method['arxiv']}", f"https://arxiv.org/abs/{method['arxiv']}")] if method["arxiv"] else []
    return blocks


_COST = (
    "method",
    "runs",
    "time per run",
    "steps",
    "examples seen",
    "trials",
    "parameters",
    "peak memory",
    "energy per run",
)


def _cost_cells(name: str, runs: Sequence[Record]) -> list[Any]:
    costs = [run.result["cost"] for run in runs if run.result is not None]
    weights = next((run.card["weights"] for run in runs if run.card is not None), None)

    def mean(key: str) -> float:
        return float(np.mean([cost.get(key) or 0 for cost in costs]))

    energy = _energy(costs)
    peaks = [cost["peak_bytes"] for cost in costs if cost.get("peak_bytes") is not None]
    return [
        name,
        str(len(costs)),
        duration(mean("seconds")),
        *(f"{mean(key):,.0f}".replace(",", " ") if mean(key) else None for key in ("steps", "samples", "trials")),
        f"{weights['parameters']:,}".replace(",", " ") if weights else None,
        size_in_words(max(peaks)) if peaks else None,
        _energy_words(energy.times(1 / len(costs)) if energy else None),
    ]


def cost(runs: Mapping[str, Sequence[Record]]) -> Table:
    """A row for each method with finished runs, without columns that nothing is known of."""
    rows = [_cost_cells(name, own) for name, own in runs.items() if own]
    kept = [place for place in range(len(_COST)) if any(row[place] is not None for row in rows)]
    return Table([_COST[place] for place in kept], [[row[place] for place in kept] for row in rows])


def _energy(costs: Sequence[Mapping[str, Any]]) -> Energy | None:
    """The sum of what the meters say, labelled by the weakest of them; None where nothing was metered."""
    metered = [cost for cost in costs if cost.get("energy") and cost["seconds"]]
    read = [Energy(cost["kwh"], cost["energy"], cost.get("energy_how", "")) for cost in metered]
    return sum(read[1:], read[0]) if read else None


def _energy_words(energy: Energy | None) -> str | None:
    if energy is None:
        return None
    return energy.label if energy.kwh is None else f"{watt_hours(energy.kwh)} {energy.label}"


def total(runs: Sequence[Record]) -> str:
    costs = [run.result["cost"] for run in runs if run.result is not None]
    fewer = sum(run.percent is not None for run in runs)
    words = f"In all {counted(len(costs), 'run')}, {duration(sum(cost['seconds'] for cost in costs))} of training"
    words += f"; {fewer} of them on fewer labels, to find the worth" if fewer else ""
    energy = _energy(costs)
    if energy is None:
        return words + "."
    return f"{words}. Energy: {_energy_words(energy)}" + (f" ({energy.how})." if energy.how else ".")


def reproduce(folder: Path, runs: Sequence[Record], command: str, card: Mapping[str, Any]) -> list[Any]:
    cards = [run.card for run in runs if run.card is not None]
    places = [card["environment"] for card in cards]
    versions = card["environment"]["versions"]
    origin = card["data"]

    def told(of: Callable[[Mapping[str, Any]], Any]) -> str:
        """One value, or all of them where the runs differ."""
        return "; ".join(dict.fromkeys(str(value) for value in map(of, places) if value))

    dates = sorted(place["date"] for place in places)
    rows = [
        ("data", f"{origin['name']}, fingerprint {origin['fingerprint']}"),
        ("seeds", ", ".join(sorted({str(run.seed) for run in runs}, key=int))),
        ("date", _span(dates[0], dates[-1])),
        ("machine", told(lambda place: f"{place['cpu']}, {counted(place['cores'], 'core')}, {place['system']}")),
        ("GPU", told(lambda place: ", ".join(place.get("gpus") or [])) or "none used"),
        ("threads", told(lambda place: place.get("threads"))),
        ("commit", told(lambda place: place.get("commit")).replace("+", ", with uncommitted changes")),
        ("versions", f"Python {card['environment']['python']}, " + ", ".join(f"{k} {v}" for k, v in versions.items())),
        ("weights", "; ".join(dict.fromkeys(card["licence"]["weights"] for card in cards))),
    ]
    files = [[str(file.relative_to(folder)), size_in_words(size)] for file, size in _files(folder)]
    return [
        Code(command),
        Facts([row for row in rows if row[1]]),
        Fold(f"Files in {folder}", [Table(["file", "size"], files)]),
    ]


def _span(first: str, last: str) -> str:
    first, last = first.replace("T", " ").replace("+00:00", ""), last.replace("T", " ").replace("+00:00", "")
    return f"{first} UTC" if first == last else f"{first} to {last} UTC"


def _files(folder: Path) -> list[tuple[Path, int]]:
    """Files of a run; of a comparison its own and the folders of its runs, with what they hold."""
    found = []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") or entry.name == "report.html":
            continue
        inner = sorted(entry.glob("seed*")) if entry.is_dir() else []
        for path in inner or [entry]:
            size = (
                sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
                if path.is_dir()
                else path.stat().st_size
            )
            found.append((path, size))
    return found


def foot(card: Mapping[str, Any]) -> str:
    version = card["environment"]["versions"].get("papertrial", "")
    return f"Made by papertrial {version}. This page is a single file and loads nothing from the network."


def data_words(card: Mapping[str, Any]) -> list[str]:
    origin = card["data"]
    numbers = origin["numbers"]
    words = ["--data", origin.get("source") or "DATA"]
    if numbers.get("target"):
        words += ["--target", numbers["target"]]
    words += flags(**{name: origin.get("options", {}).get(name) for name in ("group", "time", "metric")})
    return [*words, "--task", card["task"]["name"]]


def given_from_python(card: Mapping[str, Any]) -> str:
    return "" if card["data"].get("source") else "\n# DATA was given from Python"


def budget_words(budget: Mapping[str, Any]) -> list[str]:
    parts = []
    for name, value in budget.items():
        if value and name == "seconds":
            parts.append(f"{value:.9f}".rstrip("0").rstrip(".") + "s")
        elif value:
            parts.append(f"{value}{name}")
    return ["--budget", "+".join(parts)] if parts else []


def flags(**values: Any) -> list[str]:
    return [word for name, value in values.items() if value is not None for word in (f"--{name}", str(value))]


def set_words(settings: Mapping[str, Any]) -> list[str]:
    return [word for name, value in settings.items() for word in ("--set", f"{name}={typed(value)}")]


def typed(value: Any) -> str:
    """A setting's value as one would type it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(map(typed, value)) or "none"
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return "none" if value is None or value == "" else str(value)


def signed(value: float, digits: int) -> str:
    return typeset(f"{value + 0.0:+.{digits}f}")


def number(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    return typeset(f"{value:.3f}" if abs(value) < 10 and (abs(value) >= 0.001 or value == 0) else f"{value:.4g}")


def listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1]))) if words else ""


def sentence(words: str) -> str:
    return words[:1].upper() + words[1:] + ("" if words.endswith(".") else ".")


def run_protocol(card: Mapping[str, Any], metric: str, higher: bool) -> list[str]:
    """What a run learned from and was judged on, line by line."""
    facts = card["facts"]
    return [
        f"Task {card['task']['name']} v{card['task']['version']}: {metric} ({'higher' if higher else 'lower'} is better)",
        f"{facts['examples']} examples to learn from"
        + (f", {facts['labelled']} of them with a label" if facts["labelled"] else ""),
        *(
            []
            if card.get("final")
            else ["The test rows depend on the data alone and are the same for every method and seed."]
        ),
        *_grouped(card),
        *card["notes"],
    ]


def _grouped(card: Mapping[str, Any]) -> list[str]:
    test = card.get("test", {"rows": 0, "groups": 0})
    if test["groups"] == test["rows"]:
        return []
    return [f"{test['rows']:,} test rows in {test['groups']:,} groups, each of which counts once in an interval"]
