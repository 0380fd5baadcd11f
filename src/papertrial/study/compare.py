"""Does a method help on this data? Methods and baselines, the same budget, the same test rows, several seeds, a verdict.

Every run is a folder `out/<method>/seed<k>` that resumes by itself; `comparison.json` beside them holds what was asked
and what came out so far. Seeds go round by round over all methods, so that an interrupted comparison has complete pairs.
"""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from papertrial.core import registry
from papertrial.core.budget import ESTIMATED, UNKNOWN, Budget, Energy, duration, size_in_words
from papertrial.core.errors import DataError, Declined, PapertrialError, TrainingStopped, missing_extra
from papertrial.core.files import read_json, to_json, write_json
from papertrial.core.paper import Paper
from papertrial.core.registry import Method
from papertrial.core.stats import CANNOT_TELL, HELPS, Verdict, verdicts
from papertrial.core.wording import counted, several
from papertrial.study.engine import Engine, Job, content, started
from papertrial.study.worth import Worth
from papertrial.study.worth import worth as worth_in_labels

if TYPE_CHECKING:
    from papertrial.core.task import Prepared, Task
    from papertrial.use.fit import Outcome

#: shares of the labelled training examples on which the reference is trained again, for the worth in labels
FRACTIONS = (0.25, 0.5)
CURVE_SEEDS = 3
FAILED = "failed"
WIDTH = 100
_LATE = 1.5  # times a run's share of time from which it is said


@dataclass(frozen=True)
class Row:
    """One line of the table.

    role: method | reference | baseline.  metric: the primary one, mean over seeds; metrics: all of them; valid: the
    primary one on the validation rows, signed so that higher is better.  difference, low, high: metric less that of the
    reference with its 95 % interval, in the metric's own direction.  seconds, steps, samples, kwh: means over seeds;
    energy, energy_how: how kwh was found out, by the weakest of the seeds.  peak_bytes: the largest.
    reason: why it failed.
    """

    name: str
    role: str
    metric: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    valid: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    seconds: float | None = None
    steps: float | None = None
    samples: float | None = None
    peak_bytes: int | None = None
    kwh: float | None = None
    energy: str = UNKNOWN
    energy_how: str = ""
    worth: Worth | None = None
    reason: str = ""


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    verdicts: by method; the differences in them are positive where the method is better.  failed, declined: names with
    their reasons.  complete: False while seeds are missing.  looks: numbers of seeds with which it was judged before.
    """

    protocol: str
    plan: str
    metric: str
    higher_is_better: bool
    budget: str
    seeds: int
    reference: str
    rows: tuple[Row, ...]
    verdicts: dict[str, Verdict]
    sentences: tuple[str, ...]
    failed: dict[str, str]
    declined: dict[str, str]
    notes: tuple[str, ...]
    looks: tuple[int, ...] = ()
    complete: bool = True
    folder: str = ""

    def __repr__(self) -> str:
        return "\n".join(self.lines())

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"rows": [asdict(row) | {"worth": row.worth} for row in self.rows]}

    @property
    def digits(self) -> int:
        """Decimals that the metric and its differences are shown with."""
        return _digits(self)

    @classmethod
    def read(cls, folder: Path | str) -> Comparison:
        """As kept in a comparison's folder; raises PapertrialError where there is none."""
        held = read_json(Path(folder) / "comparison.json")
        names = [entry.name for entry in fields(cls)]
        unknown = [name for name in names if name not in held]
        if unknown:
            raise PapertrialError(
                f"{folder} holds a comparison of another version of papertrial (it lacks {unknown[0]})",
                "run the comparison again",
            )
        return cls(**{name: _again(name, held[name]) for name in names})

    def lines(self) -> list[str]:
        """The table and the verdicts as plain text, at most 100 columns wide."""
        return _lines(self)


def _again(name: str, value: Any) -> Any:
    """A field of a Comparison from JSON."""
    if name == "rows":
        return tuple(Row(**{**row, "worth": _worth_again(row["worth"])}) for row in value)
    if name == "verdicts":
        return {method: Verdict(**{**held, **_ends(held)}) for method, held in value.items()}
    return tuple(value) if isinstance(value, list) else value


def _worth_again(held: dict[str, Any] | None) -> Worth | None:
    return None if held is None else Worth(**{name: entry for name, entry in held.items() if name != "shown"})


def _ends(held: dict[str, Any]) -> dict[str, float]:
    """JSON has no NaN, which is what an interval that is not known ends in."""
    return {name: math.nan if held[name] is None else held[name] for name in ("low", "high")}


@dataclass
class _Entrant:
    """A method that takes part, with its finished runs in the order of the seeds."""

    method: Method
    asked: bool
    outcomes: list[Outcome] = field(default_factory=list)
    stopped: str = ""

    @property
    def name(self) -> str:
        return self.method.name

    @property
    def valid(self) -> float:
        """Mean validation score; a method without one is never preferred."""
        mean = float(np.mean([outcome.valid for outcome in self.outcomes])) if self.outcomes else math.nan
        return -math.inf if math.isnan(mean) else mean


@dataclass
class _Study:
    """What stays fixed while the runs go on."""

    task: Task
    data: Any
    out: Path
    budget: Budget
    seeds: int
    labels: int | None
    size: int | None
    backbone: str | None
    settings: dict[str, Any]
    techniques: list[str]
    recipe: str
    against: str | None
    baselines: list[str]
    fresh: bool
    engine: Engine
    echo: Callable[[str], None]
    declined: dict[str, str]
    asked: dict[str, Any]
    plan: str = ""
    looks: tuple[int, ...] = ()
    prepared: Prepared | None = None
    metric: str = ""
    higher: bool = True

    def prepare(self, seed: int, fraction: float | None = None) -> Prepared:
        from papertrial.use.fit import prepare

        prepared = prepare(self.task, self.data, seed, labels=self.labels, size=self.size, fraction=fraction)
        if not prepared.test.examples:
            raise DataError(f"{self.data.name} leaves no labelled test examples to compare on", "add labelled examples")
        return prepared

    def job(self, entrant: _Entrant, seed: int, fraction: float | None = None) -> Job:
        method = entrant.method
        part = "" if fraction is None else f"-{round(100 * fraction)}pct"
        return Job(
            method.name,
            seed,
            self.out / method.slug / f"seed{seed}{part}",
            self.budget,
            _recipe(method, self.recipe, entrant.asked),
            self.backbone if method.paper.kind == "objective" else None,
            self.settings if entrant.asked else None,
            {"labels": self.labels, "size": self.size, "fraction": fraction},
            self.fresh,
            tuple(self.techniques) if entrant.asked else (),
        )

    def run(self, job: Job, prepared: Prepared) -> Outcome:
        outcome = self.engine.outcome(job, self.task, prepared)
        if len(outcome.per_example) != prepared.test.examples:
            raise PapertrialError(
                f"{job.folder} was scored on {len(outcome.per_example)} test examples, the data now has"
                f" {prepared.test.examples}",
                "add --fresh to start it over",
            )
        if not np.isfinite(outcome.per_example).all():
            raise TrainingStopped(f"its scores are not finite with seed {job.seed}")
        return outcome


def compare(
    methods: Sequence[str] | str,
    data: Any,
    *,
    task: str | None = None,
    target: str | None = None,
    budget: Budget | str | None = None,
    total: Budget | str | None = None,
    seeds: int = 5,
    against: str | None = None,
    baselines: Sequence[str] | str | None = None,
    backbone: str | None = None,
    settings: Mapping[str, Any] | None = None,
    techniques: Sequence[str] | str = (),
    recipe: str = "base",
    labels: int | None = None,
    size: int | None = None,
    out: Path | str | None = None,
    worth: bool = True,
    fresh: bool = False,
    progress: bool = True,
    engine: str = "local",
    address: str | None = None,
    cores: int = 1,
    echo: Callable[[str], None] | None = print,
) -> Comparison:
    """Compare `methods` with the task's baselines on the user's data, at an equal budget, over paired seeds.

    data: anything `papertrial.open` takes, or what it returned.  budget: of one run, by default the task's; total: time
    for everything, shared out evenly over the runs.  against: the baseline verdicts are measured against, by default
    the task's strongest reference by mean validation score.  baselines: names instead of the task's own, or "none".
    backbone: for objectives, baselines among them.  labels, size: see `papertrial.fit`.  settings, techniques: for the
    methods, not for the baselines.  worth: train the reference on a quarter and half of the labels too, to say what a
    method is worth in labels, where the task has any.
    out: by default `runs/compare-<data>`.  engine: "local", one run after the other, or "ray", spread over the Ray
    cluster at `address` (by default that of this machine, or one started for the time), each run on `cores` cores of its
    own; `data` and `out` must then mean the same on all machines.  echo: takes the lines said on the way; None for silence.

    A comparison that was interrupted goes on where it stopped, and one asked for again with more seeds or methods adds
    them; each such look at more seeds is tested at half the level of the one before (see `core.stats`).

    Raises PapertrialError for an unknown name, or when `out` holds a comparison of something else; DataError when no
    task fits the data; Declined when none of the methods can take part or no reference could be run.
    """
    from papertrial.use.fit import choose_task, default_folder

    echo, methods = echo or (lambda line: None), several(methods)
    if seeds < 1:
        raise PapertrialError(f"{seeds} seeds are too few", "give 3 or more, 5 are better")
    if not set(methods) - {against}:
        raise PapertrialError("no method was named to compare", "type: papertrial list")
    opened = content(data, target)
    chosen = choose_task(opened, task)
    made_for = [key for name in methods for key in registry.paper(name).tasks]
    if task is None and chosen.name not in made_for:
        for key in made_for:
            with suppress(PapertrialError):  # where none fits, `_entrants` says why they cannot take part
                chosen = choose_task(opened, key)
                break
    without_labels = getattr(chosen, "judged_without_labels", False)
    if opened.look().numbers.get("labelled") == 0 and not without_labels:
        raise DataError(
            f"{opened.name} has no labels, so nothing can be compared on it", "papertrial fit learns without them"
        )
    worth = worth and not without_labels
    entrants, declined, listed = _entrants(methods, chosen, against, baselines)
    _require_methods(entrants, declined)

    with started(
        engine, data, target, opened.fingerprint, chosen.name, progress=progress, address=address, cores=cores
    ) as running:
        study = _Study(
            task=chosen,
            data=opened,
            out=Path(out) if out is not None else default_folder("compare", opened.name),
            budget=chosen.budget,
            seeds=seeds,
            labels=labels,
            size=size,
            backbone=backbone,
            settings=dict(settings or {}),
            techniques=several(techniques),
            recipe=recipe,
            against=against,
            baselines=listed,
            fresh=fresh,
            engine=running,
            echo=echo,
            declined=declined,
            asked={"methods": list(methods), "against": against, "baselines": baselines, "worth": worth},
        )
        curve_runs = len(FRACTIONS) * min(seeds, CURVE_SEEDS) if worth else 0
        trained = sum(not _idle(entrant, recipe) for entrant in entrants)
        runs = trained * seeds + curve_runs
        study.budget = _budget(budget, total, runs, chosen.budget)
        study.plan = _plan(study, entrants, runs, curve_runs)
        return _carried_out(study, entrants, worth)


def _carried_out(study: _Study, entrants: list[_Entrant], worth: bool) -> Comparison:
    config = _config(study)
    study.looks = () if study.fresh else _earlier_looks(study, config)
    study.echo(study.plan)
    for name, reason in study.declined.items():
        study.echo(f"skipped {name}: {reason}")

    study.engine.submit([study.job(entrant, seed) for seed in range(study.seeds) for entrant in entrants])
    for seed in range(study.seeds):
        _round(study, entrants, seed)
        _require_methods(entrants, study.declined)
        _save(_judge(study, entrants, seed + 1, {}, complete=False), config, study)
    reference = _reference(study, entrants)
    curve = _curve(study, reference) if worth else {}
    result = _judge(study, entrants, study.seeds, curve, complete=True)
    _save(result, config, study)
    return result


def _entrants(
    methods: Sequence[str], task: Task, against: str | None, baselines: Sequence[str] | str | None
) -> tuple[list[_Entrant], dict[str, str], list[str]]:
    """Who takes part, who does not and why, and the names of the baselines. Raises PapertrialError for unknown names."""
    if baselines is None:
        listed = [*task.references, *task.floors]
    elif baselines == "none":
        listed = []
    else:
        listed = several(baselines)
    if against is not None and against not in listed:
        listed = [against, *listed]
    if not listed:
        raise PapertrialError(
            "a verdict needs something to compare with, and all baselines were left out",
            f"add --against, for example --against {(*task.references, *methods)[0]}",
        )
    listed = list(dict.fromkeys(listed))
    entrants, declined = [], {}
    asked = [name for name in dict.fromkeys(methods) if name != against]
    for name in [*asked, *(name for name in listed if name not in asked)]:
        paper = registry.paper(name)
        reason = _refusal(paper, task)
        if reason and name == against:
            raise Declined(f"{name} cannot be compared against: {reason}")
        if reason:
            declined[name] = reason
        else:
            entrants.append(_Entrant(registry.method(name), name in asked))
    return entrants, declined, listed


def _refusal(paper: Paper, task: Task) -> str:
    missing = registry.missing_package(paper)
    if missing is not None:
        return str(missing_extra(paper.id, *missing))
    if paper.refusal:
        return paper.refusal
    vouched = {name.partition(":")[0] for name in (*task.references, *task.floors)}  # by the task, whoever wrote it
    if task.name not in paper.tasks and paper.id not in vouched:
        return f"it is for {' or '.join(paper.tasks) or 'no task here'}, this is {task.name}"
    return ""


def _require_methods(entrants: list[_Entrant], declined: dict[str, str]) -> None:
    if not any(entrant.asked for entrant in entrants):
        raise Declined("none of the methods can be compared here: " + _reasons(declined))


def _reasons(declined: dict[str, str]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in declined.items())


def _recipe(method: Method, recipe: str, asked: bool) -> str:
    """Baselines that lack the recipe asked for take their `base`."""
    return recipe if asked or recipe in method.module.recipes else "base"


@dataclass(frozen=True)
class Planned:
    """A method as a comparison would run it. asked: named by the user, whose settings are for those alone."""

    method: Method
    recipe: str
    asked: bool
    reference: bool


def plan(methods: Sequence[str], task: Task, recipe: str = "base") -> list[Planned]:
    """The methods that a comparison of `methods` would run. Raises as `compare` does."""
    entrants, declined, _ = _entrants(methods, task, None, None)
    _require_methods(entrants, declined)
    return [
        Planned(
            entrant.method,
            _recipe(entrant.method, recipe, entrant.asked),
            entrant.asked,
            entrant.name in task.references,
        )
        for entrant in entrants
    ]


def _idle(entrant: _Entrant, recipe: str) -> bool:
    """Whether nothing is trained, as with untrained backbones, so that a run takes no time to speak of."""
    found = entrant.method.module.recipes.get(_recipe(entrant.method, recipe, entrant.asked))
    return found is not None and found.budget.steps == 0


def _budget(budget: Budget | str | None, total: Budget | str | None, runs: int, default: Budget) -> Budget:
    if budget is not None and total is not None:
        raise PapertrialError("a budget for each run and a total were both given", "give one of --budget and --total")
    if total is not None:
        whole = Budget.parse(total) if isinstance(total, str) else total
        if whole.seconds is None or whole != Budget(seconds=whole.seconds):
            raise PapertrialError(f"the total {whole} is not a time", "write it as 30m or 2h")
        return Budget(seconds=whole.seconds / max(1, runs))
    if budget is None:
        return default
    return Budget.parse(budget) if isinstance(budget, str) else budget


def _plan(study: _Study, entrants: list[_Entrant], runs: int, curve_runs: int) -> str:
    """`plan: 4 methods x 5 seeds + 6 runs on fewer labels, 30 s each: about 13 min`; and how many run at once."""
    extra = f" + {curve_runs} runs on fewer labels" if curve_runs else ""
    seconds = study.budget.seconds
    together = study.engine.at_once
    time = "the time is not known beforehand"
    free = [e.name for e in entrants if e.method.paper.kind == "estimator" and not _idle(e, study.recipe)]
    if seconds is None and study.budget.trials is None and free:
        time += f" (it does not limit {', '.join(free)}, trained without steps)"
    if seconds is not None:
        time = f"about {duration(math.ceil(runs / together) * seconds)}"
    if together > 1:
        time += f", up to {together} runs at once"
    folders = [study.out / entrant.method.slug / f"seed{seed}" for entrant in entrants for seed in range(study.seeds)]
    done = 0 if study.fresh else sum((folder / "result.json").exists() for folder in folders)
    already = f", minus {counted(done, 'run')} already done" if done else ""
    size = f"{counted(len(entrants), 'method')} x {counted(study.seeds, 'seed')}{extra}"
    return f"plan: {size}, {study.budget} each: {time}{already}"


def _config(study: _Study) -> dict[str, Any]:
    """What must not change between two sittings; seeds, methods and baselines may be added."""
    return {
        "task": f"{study.task.name} v{study.task.version}",
        "data": study.data.fingerprint,
        "budget": study.budget.to_json(),
        "recipe": study.recipe,
        "settings": study.settings,
        "techniques": study.techniques or None,
        "backbone": study.backbone,
        "labels": study.labels,
        "size": study.size,
    }


def _earlier_looks(study: _Study, config: dict[str, Any]) -> tuple[int, ...]:
    """Numbers of seeds, fewer than now, at which verdicts were given before; raises PapertrialError for another study."""
    file = study.out / "comparison.json"
    if not file.exists():
        return ()
    held = read_json(file)
    before, now = held.get("config", {}), _plain(config)
    differing = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    if differing:
        raise PapertrialError(
            f"{study.out} holds another comparison (it differs in {', '.join(differing)})",
            "choose another --out, or add --fresh to start it over",
        )
    told = {*held["looks"], *([held["seeds"]] if held["complete"] else [])}
    return tuple(sorted(count for count in told if count < study.seeds))


def _plain(content: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads(to_json(content)))


def _save(result: Comparison, config: dict[str, Any], study: _Study) -> None:
    write_json(study.out / "comparison.json", {"config": config, "asked": study.asked, **result.to_json()})


def _round(study: _Study, entrants: list[_Entrant], seed: int) -> None:
    """Run every method with one seed. A refusal takes it out, a collapse is its result."""
    prepared = study.prepared = study.prepare(seed)
    study.metric, study.higher = study.task.primary_for(prepared.state)
    for entrant in list(entrants):
        if entrant.stopped:
            continue
        study.echo(f"seed {seed + 1} of {study.seeds}: {entrant.name}")
        try:
            entrant.outcomes.append(study.run(study.job(entrant, seed), prepared))
        except Declined as refusal:
            study.declined[entrant.name] = str(refusal)
            entrants.remove(entrant)
            study.echo(f"skipped {entrant.name}: {refusal}")
        except TrainingStopped as stop:
            entrant.stopped = str(stop)
            study.echo(f"{entrant.name} failed: {stop}")


def _reference(study: _Study, entrants: list[_Entrant]) -> _Entrant:
    """The one verdicts are measured against: named by the user, or the strongest by validation, never by test."""
    standing = [entrant for entrant in entrants if not entrant.stopped]
    if study.against is not None:
        for entrant in standing:
            if entrant.name == study.against:
                return entrant
        why = {entrant.name: entrant.stopped for entrant in entrants} | study.declined
        raise Declined(f"{study.against} cannot be compared against: {why.get(study.against, '')}")
    candidates = [entrant for entrant in standing if entrant.name in study.baselines]
    strong = [entrant for entrant in candidates if entrant.name in study.task.references] or candidates
    # A method under test is measured against the others, unless it is the only reference there is.
    pool = [entrant for entrant in strong if not entrant.asked] or strong
    if not pool:
        raise Declined("no baseline could be run, so there is nothing to compare with: " + _reasons(study.declined))
    return max(pool, key=lambda entrant: entrant.valid)


def _curve(study: _Study, reference: _Entrant) -> dict[int, list[float]]:
    """The reference's metric by number of labels, one value per seed, fractions only."""
    found: dict[int, list[float]] = {}
    seeds = range(min(study.seeds, CURVE_SEEDS))
    study.engine.submit([study.job(reference, seed, fraction) for seed in seeds for fraction in FRACTIONS])
    for seed in seeds:
        for fraction in FRACTIONS:
            study.echo(f"seed {seed + 1} of {study.seeds}: {reference.name} on {fraction:.0%} of the labels")
            prepared = study.prepare(seed, fraction)
            try:
                outcome = study.run(study.job(reference, seed, fraction), prepared)
            except (Declined, TrainingStopped) as stop:
                study.echo(f"{reference.name} on {fraction:.0%} of the labels: {stop}")
                return {}
            found.setdefault(prepared.facts.labelled, []).append(outcome.metrics[study.metric])
    return found


def _judge(
    study: _Study, entrants: list[_Entrant], seeds: int, curve: dict[int, list[float]], *, complete: bool
) -> Comparison:
    reference = _reference(study, entrants)
    others = [entrant for entrant in entrants if entrant is not reference and not entrant.stopped]
    asked = [entrant for entrant in others if entrant.asked]
    base = np.stack([outcome.per_example for outcome in reference.outcomes])
    sign = 1.0 if study.higher else -1.0
    gains = {
        entrant.name: sign * (np.stack([outcome.per_example for outcome in entrant.outcomes]) - base)
        for entrant in others
    }
    judged = verdicts([gains[entrant.name] for entrant in asked], looks=len(study.looks))
    words = {entrant.name: verdict for entrant, verdict in zip(asked, judged, strict=True)}
    # Baselines get an interval each; no word is said of them, so they do not count as comparisons made.
    shown = words | {name: verdicts([gain])[0] for name, gain in gains.items() if name not in words}
    rows = [_row(study, entrant, reference, shown.get(entrant.name), curve) for entrant in entrants]
    failed = {entrant.name: entrant.stopped for entrant in entrants if entrant.stopped}
    assert study.prepared is not None
    result = Comparison(
        protocol=_protocol(study, seeds),
        plan=study.plan,
        metric=study.metric,
        higher_is_better=study.higher,
        budget=str(study.budget),
        seeds=seeds,
        reference=reference.name,
        rows=tuple(_sorted(rows)),
        verdicts=words,
        sentences=(),
        failed=failed,
        declined=dict(study.declined),
        notes=tuple(
            dict.fromkeys(
                [
                    *study.data.notes,
                    *study.prepared.notes,
                    *_caution(study, words),
                    *_late(study, rows),
                    *_unbound(study, entrants),
                ]
            )
        ),
        looks=study.looks,
        complete=complete,
        folder=str(study.out),
    )
    return replace(result, sentences=tuple(_sentences(result, entrants, _tuned(study, entrants))))


def _row(
    study: _Study, entrant: _Entrant, reference: _Entrant, verdict: Verdict | None, curve: dict[int, list[float]]
) -> Row:
    role = "reference" if entrant is reference else "method" if entrant.asked else "baseline"
    if entrant.stopped:
        return Row(entrant.name, role, reason=entrant.stopped)
    outcomes = entrant.outcomes
    meters = [outcome.meter for outcome in outcomes]
    peaks = [meter.peak_bytes for meter in meters if meter.peak_bytes is not None]
    energy = sum((meter.spent() for meter in meters), Energy()).times(1 / len(meters))
    names = set.intersection(*(set(outcome.metrics) for outcome in outcomes))
    metrics = {name: float(np.mean([outcome.metrics[name] for outcome in outcomes])) for name in sorted(names)}
    row = Row(
        entrant.name,
        role,
        metric=metrics[study.metric],
        metrics=metrics,
        valid=entrant.valid if math.isfinite(entrant.valid) else None,
        seconds=float(np.mean([meter.seconds for meter in meters])),
        steps=float(np.mean([meter.steps for meter in meters])),
        samples=float(np.mean([meter.samples for meter in meters])),
        peak_bytes=max(peaks) if peaks else None,
        kwh=energy.kwh,
        energy=energy.label,
        energy_how=energy.how,
        worth=_worth(study, entrant, reference, curve) if curve and role == "method" else None,
    )
    if verdict is None:
        return row
    ends = (verdict.low, verdict.high) if study.higher else (-verdict.high, -verdict.low)
    known = not math.isnan(verdict.low)
    return replace(
        row,
        difference=verdict.difference if study.higher else -verdict.difference,
        low=ends[0] if known else None,
        high=ends[1] if known else None,
    )


def _worth(study: _Study, entrant: _Entrant, reference: _Entrant, curve: dict[int, list[float]]) -> Worth:
    assert study.prepared is not None
    full = [outcome.metrics[study.metric] for outcome in reference.outcomes]
    points = {**curve, study.prepared.facts.labelled: full}
    own = np.array([outcome.metrics[study.metric] for outcome in entrant.outcomes])
    values = [np.array(metrics) for metrics in points.values()]
    return worth_in_labels(list(points), values, own, higher_is_better=study.higher)


def _sorted(rows: list[Row]) -> list[Row]:
    """The reference first, then methods, then the other baselines; failed ones last in their group."""
    place = {"reference": 0, "method": 1, "baseline": 2}
    return sorted(rows, key=lambda row: (place[row.role], row.metric is None))


def _protocol(study: _Study, seeds: int) -> str:
    assert study.prepared is not None
    prepared = study.prepared
    better = "higher" if study.higher else "lower"
    return (
        f"{study.task.name} v{study.task.version}: {study.metric} ({better} is better) on"
        f" {prepared.test.examples} test examples, the same for every seed;"
        f" {prepared.train.examples} to train on, {prepared.valid.examples} to validate on;"
        f" {counted(seeds, 'seed')}; {study.budget} per run"
    )


def _caution(study: _Study, words: dict[str, Verdict]) -> list[str]:
    """When a word is stricter than the interval beside it looks."""
    stricter = [
        name
        for name, verdict in words.items()
        if verdict.word == CANNOT_TELL and not verdict.reason and (verdict.low > 0 or verdict.high < 0)
    ]
    if not stricter:
        return []
    why = []
    if len(words) > 1:
        why.append(f"{len(words)} methods were tried at once (Holm)")
    if study.looks:
        why.append(f"it was judged before, with {', '.join(map(str, study.looks))} seeds")
    return [f"{', '.join(stricter)}: the interval excludes zero, but that is not enough yet, since {' and '.join(why)}"]


def _late(study: _Study, rows: Sequence[Row]) -> list[str]:
    """Which methods took clearly longer than their equal share of time, so that the word is not taken for what it was."""
    given = study.budget.seconds
    if not given:
        return []
    late = [row for row in rows if row.seconds is not None and row.seconds > _LATE * given]
    said = ", ".join(f"{row.name} {duration(row.seconds or 0.0)}" for row in late)
    why = "the machine was busy, or one step or trial takes that long; a larger --budget is kept more closely"
    return [f"took longer than the {duration(given)} of a run: {said}; {why}"] if late else []


def _tuned(study: _Study, entrants: Sequence[_Entrant]) -> list[str]:
    """Who tunes itself, which only a budget of seconds or trials limits, where the budget has neither."""
    if study.budget.seconds is not None or study.budget.trials is not None:
        return []
    able = (entrant for entrant in entrants if entrant.method.paper.kind == "estimator" and not entrant.stopped)
    return [entrant.name for entrant in able if any(outcome.meter.trials > 1 for outcome in entrant.outcomes)]


def _unbound(study: _Study, entrants: Sequence[_Entrant]) -> list[str]:
    names = _tuned(study, entrants)
    words = f"{', '.join(names)} tuned without a limit: {study.budget} do not limit tuning; a --budget in seconds limits all alike"
    return [words] if names else []


def _digits(result: Comparison) -> int:
    """Decimals that show three figures of the largest metric and one of the narrowest interval, six at most."""
    sizes = [abs(row.metric) for row in result.rows if row.metric]
    widths = [v.high - v.low for v in result.verdicts.values() if math.isfinite(v.low) and v.high > v.low]
    digits = 2 - math.floor(math.log10(0.9999 * max(sizes))) if sizes else 3
    if widths:
        digits = max(digits, -math.floor(math.log10(min(widths) / 2)))
    return min(6, max(0, digits))


def _sentences(result: Comparison, entrants: list[_Entrant], tuned: Collection[str]) -> list[str]:
    """tuned: who spent more than the budget says, with whom nobody is at an equal one."""
    found = [
        verdict.sentence(
            name,
            result.reference,
            result.metric,
            higher_is_better=result.higher_is_better,
            budget="" if {name, result.reference} & {*tuned} else result.budget,
            digits=_digits(result),
        )
        for name, verdict in result.verdicts.items()
    ]
    found += [
        f"{entrant.name} failed on this data: {entrant.stopped.rstrip('.')}."
        for entrant in entrants
        if entrant.asked and entrant.stopped
    ]
    helping = [name for name, verdict in result.verdicts.items() if verdict.word == HELPS]
    if not helping:
        known = [e for e in entrants if not e.stopped and (not e.asked or e.name == result.reference)]
        best = max(known, key=lambda entrant: entrant.valid)
        aside = "" if best.name == result.reference else f", and {best.name} validates better"
        found.append(f"No method is shown to beat {result.reference}{aside}: use {best.name} here.")
    return found


def _lines(result: Comparison) -> list[str]:
    lines = _wrap(result.protocol, "protocol  ")
    for name, reason in result.declined.items():
        lines += _wrap(f"{name}: {reason}", "skipped   ")
    for note in result.notes:
        lines += _wrap(note, "note      ")
    lines += _table(result)
    for note in _energy_notes(result.rows):
        lines += _wrap(note, "note      ")
    unknown: dict[str, list[str]] = {}
    for row in result.rows:
        if row.worth is not None and row.worth.reason:
            unknown.setdefault(row.worth.reason, []).append(row.name)
    for reason, names in unknown.items():
        lines += _wrap(
            f"cannot say how many labels {', '.join(names)} {'is' if len(names) == 1 else 'are'} worth: {reason}",
            "note      ",
        )
    if any(row.worth is not None for row in result.rows):
        lines += _wrap(
            "worth = labels the reference would need to do as well, as a multiple of those it has [95 % interval over seeds]",
            "note      ",
        )
    for index, sentence in enumerate(result.sentences):
        lines += _wrap(sentence, " " * 10 if index else "verdict   ")
    if not result.complete:
        lines += _wrap("not finished: the same command goes on from here", "note      ")
    return lines


def _table(result: Comparison) -> list[str]:
    digits = _digits(result)
    table = [[_cut(result.metric, 12), _cut(f"vs {result.reference}", 24), "time", "peak memory", "energy"]]
    table += [_cells(row, digits) for row in result.rows]
    if any(row.worth is not None for row in result.rows):
        table[0].append("worth")
        for cells, row in zip(table[1:], result.rows, strict=True):
            cells.append("-" if row.worth is None else f"{row.worth} {row.worth.interval}".strip())
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    room = max(12, WIDTH - sum(widths) - 2 * len(widths))
    names = [_cut(name, room) for name in ("method", *(row.name for row in result.rows))]
    table = [[name, *cells] for name, cells in zip(names, table, strict=True)]
    widths = [max(map(len, names)), *widths]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def _cells(row: Row, digits: int) -> list[str]:
    """All but the name and the worth."""
    if row.metric is None:
        return [FAILED, "-", "-", "-", "-"]
    if row.role == "reference":
        change = "reference"
    elif row.difference is None:
        change = "-"
    elif row.low is None or row.high is None:
        change = f"{row.difference:+.{digits}f}"
    else:
        change = f"{row.difference:+.{digits}f} [{row.low:+.{digits}f}, {row.high:+.{digits}f}]"
    time = "-" if row.seconds is None else duration(row.seconds)
    peak = "-" if row.peak_bytes is None else size_in_words(row.peak_bytes)
    return [f"{row.metric:.{digits}f}", change, time, peak, "-" if row.kwh is None else str(_energy(row))]


def _energy(row: Row) -> Energy:
    return Energy(row.kwh, row.energy, row.energy_how)


def _energy_notes(rows: tuple[Row, ...]) -> list[str]:
    """Where the energy of the table comes from."""
    run = [row for row in rows if row.metric is not None]
    modelled = list(dict.fromkeys(row.energy_how for row in run if row.energy == ESTIMATED))
    unknown = list(dict.fromkeys(row.energy_how for row in run if row.energy == UNKNOWN and row.energy_how))
    return [f"e = estimated, not measured; {how}" for how in modelled] + [f"energy: {how}" for how in unknown]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _wrap(text: str, head: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=head, subsequent_indent=" " * len(head))
