"""Does a method help on this data? Methods and baselines, the same budget, the same test rows, several seeds, a verdict.

Every run is a folder `out/<method>/seed<k>` that resumes by itself; `comparison.json` beside them holds what was asked
and what came out so far. Seeds go round by round over all methods, so that an interrupted comparison has complete pairs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from papertrial.core import registry
from papertrial.core.budget import Budget, Energy, duration
from papertrial.core.errors import DataError, Declined, PapertrialError, TrainingStopped
from papertrial.core.files import read_json, to_json, write_json
from papertrial.core.offers import task_offers
from papertrial.core.request import Request
from papertrial.core.stats import CANNOT_TELL, HELPS, Verdict, verdicts
from papertrial.core.wording import counted, several
from papertrial.study.comparison import Comparison, Row
from papertrial.study.engine import Engine, Job, content, started
from papertrial.study.entrants import Entrant, entrants_of, idle, reasons, require_methods
from papertrial.study.origins import origins
from papertrial.study.worth import Worth
from papertrial.study.worth import worth as worth_in_labels

if TYPE_CHECKING:
    from papertrial.core.task import Prepared, Task
    from papertrial.use.fit import Outcome

#: shares of the labelled training examples on which the reference is trained again, for the worth in labels
FRACTIONS = (0.25, 0.5)
CURVE_SEEDS = 3
_LATE = 1.5  # times a run's share of time from which it is said


@dataclass
class _Study:
    """What stays fixed while the runs go on."""

    task: Task
    data: Any
    out: Path
    request: Request
    seeds: int
    against: str | None
    baselines: list[str]
    engine: Engine
    echo: Callable[[str], None]
    declined: dict[str, str]
    asked: dict[str, Any]
    plan: str = ""
    looks: tuple[int, ...] = ()
    prepared: Prepared | None = None
    metric: str = ""
    higher: bool = True

    @property
    def budget(self) -> Budget:
        assert self.request.budget is not None
        return self.request.budget

    def prepare(self, seed: int, fraction: float | None = None) -> Prepared:
        from papertrial.use.choose import prepare

        prepared = prepare(self.task, self.data, seed, **self.request.but(fraction=fraction).options)
        if not prepared.test.examples:
            raise DataError(f"{self.data.name} leaves no labelled test examples to compare on", "add labelled examples")
        return prepared

    def job(self, entrant: Entrant, seed: int, fraction: float | None = None) -> Job:
        part = "" if fraction is None else f"-{round(100 * fraction)}pct"
        request = entrant.request.but(seed=seed, fraction=fraction, budget=self.budget)
        return Job(entrant.name, self.out / entrant.method.slug / f"seed{seed}{part}", request)

    def run(self, job: Job, prepared: Prepared) -> Outcome:
        outcome = self.engine.outcome(job, self.task, prepared)
        if len(outcome.per_example) != prepared.test.examples:
            raise PapertrialError(
                f"{job.folder} was scored on {len(outcome.per_example)} test examples, the data now has"
                f" {prepared.test.examples}",
                "add --fresh to start it over",
            )
        if not np.isfinite(outcome.per_example).all():
            raise TrainingStopped(f"its scores are not finite with seed {job.request.seed}")
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
    host: str | None = None,
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
    host: what techniques are tried on; the same host without them takes part, and is what they are measured against unless
    `against` names something else.  backbone: for objectives, baselines among them.  labels, size: see `papertrial.fit`.  settings, techniques: for the
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
    from papertrial.use.choose import choose_task
    from papertrial.use.fit import default_folder

    request = Request(
        task,
        target,
        host,
        backbone,
        recipe,
        settings or {},
        techniques,
        None,
        labels,
        size,
        fresh=fresh,
        progress=progress,
    )
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
            with suppress(PapertrialError):  # where none fits, `entrants_of` says why they cannot take part
                chosen = choose_task(opened, key)
                break
    without_labels = task_offers(chosen).judged_without_labels
    if opened.look().numbers.get("labelled") == 0 and not without_labels:
        raise DataError(
            f"{opened.name} has no labels, so nothing can be compared on it", "papertrial fit learns without them"
        )
    worth = worth and not without_labels
    entrants, declined, listed, against = entrants_of(methods, chosen, request, against, baselines)
    require_methods(entrants, declined)

    with started(
        engine, data, target, opened.fingerprint, chosen.name, progress=progress, address=address, cores=cores
    ) as running:
        study = _Study(
            task=chosen,
            data=opened,
            out=Path(out) if out is not None else default_folder("compare", opened.name),
            request=request,
            seeds=seeds,
            against=against,
            baselines=listed,
            engine=running,
            echo=echo,
            declined=declined,
            asked={"methods": list(methods), "against": against, "baselines": baselines, "worth": worth},
        )
        curve_runs = len(FRACTIONS) * min(seeds, CURVE_SEEDS) if worth else 0
        trained = sum(not idle(entrant) for entrant in entrants)
        runs = trained * seeds + curve_runs
        study.request = request.but(budget=_budget(budget, total, runs, chosen.budget))
        study.plan = _plan(study, entrants, runs, curve_runs)
        return _carried_out(study, entrants, worth)


def _carried_out(study: _Study, entrants: list[Entrant], worth: bool) -> Comparison:
    config = _config(study)
    study.looks = () if study.request.fresh else _earlier_looks(study, config)
    study.echo(study.plan)
    for name, reason in study.declined.items():
        study.echo(f"skipped {name}: {reason}")

    study.engine.submit([study.job(entrant, seed) for seed in range(study.seeds) for entrant in entrants])
    for seed in range(study.seeds):
        _round(study, entrants, seed)
        require_methods(entrants, study.declined)
        _save(_judge(study, entrants, seed + 1, {}, complete=False), config, study)
    reference = _reference(study, entrants)
    curve = _curve(study, reference) if worth else {}
    result = _judge(study, entrants, study.seeds, curve, complete=True)
    _save(result, config, study)
    return result


def _budget(budget: Budget | str | None, total: Budget | str | None, runs: int, default: Budget) -> Budget:
    if budget is not None and total is not None:
        raise PapertrialError("a budget for each run and a total were both given", "give one of --budget and --total")
    if total is not None:
        whole = Budget.of(total) or default
        if whole.seconds is None or whole != Budget(seconds=whole.seconds):
            raise PapertrialError(f"the total {whole} is not a time", "write it as 30m or 2h")
        return Budget(seconds=whole.seconds / max(1, runs))
    return Budget.of(budget) or default


def _plan(study: _Study, entrants: list[Entrant], runs: int, curve_runs: int) -> str:
    """`plan: 4 methods x 5 seeds + 6 runs on fewer labels, 30 s each: about 13 min`; and how many run at once."""
    extra = f" + {curve_runs} runs on fewer labels" if curve_runs else ""
    seconds = study.budget.seconds
    together = study.engine.at_once
    time = "the time is not known beforehand"
    free = [e.name for e in entrants if e.method.paper.kind == "estimator" and not idle(e)]
    if seconds is None and study.budget.trials is None and free:
        time += f" (it does not limit {', '.join(free)}, trained without steps)"
    if seconds is not None:
        time = f"about {duration(math.ceil(runs / together) * seconds)}"
    if together > 1:
        time += f", up to {together} runs at once"
    folders = [study.out / entrant.method.slug / f"seed{seed}" for entrant in entrants for seed in range(study.seeds)]
    done = 0 if study.request.fresh else sum((folder / "result.json").exists() for folder in folders)
    already = f", minus {counted(done, 'run')} already done" if done else ""
    size = f"{counted(len(entrants), 'method')} x {counted(study.seeds, 'seed')}{extra}"
    return f"plan: {size}, {study.budget} each: {time}{already}"


def _config(study: _Study) -> dict[str, Any]:
    """What must not change between two sittings; seeds, methods and baselines may be added."""
    return {
        "task": f"{study.task.name} v{study.task.version}",
        "data": study.data.fingerprint,
        "budget": study.budget.to_json(),
        "recipe": study.request.recipe,
        "settings": study.request.settings,
        "techniques": study.request.techniques or None,
        "backbone": study.request.backbone,
        "labels": study.request.labels,
        "size": study.request.size,
        **({"host": study.request.host} if study.request.host else {}),
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


def _round(study: _Study, entrants: list[Entrant], seed: int) -> None:
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


def _reference(study: _Study, entrants: list[Entrant]) -> Entrant:
    """The one verdicts are measured against: named by the user, or the strongest by validation, never by test."""
    standing = [entrant for entrant in entrants if not entrant.stopped]
    if study.against is not None:
        for entrant in standing:
            if entrant.name == study.against:
                return entrant
        why = {entrant.name: entrant.stopped for entrant in entrants} | study.declined
        raise Declined(f"{study.against} cannot be compared against: {why.get(study.against, '')}")
    candidates = [entrant for entrant in standing if entrant.name in study.baselines]
    known = [one for one in candidates if one.is_host or one.name in study.task.references]
    strong = known or candidates
    # A method under test is measured against the others, unless it is the only reference there is.
    pool = [entrant for entrant in strong if not entrant.asked] or strong
    if not pool:
        raise Declined("no baseline could be run, so there is nothing to compare with: " + reasons(study.declined))
    return max(pool, key=lambda entrant: entrant.valid)


def _curve(study: _Study, reference: Entrant) -> dict[int, list[float]]:
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
    study: _Study, entrants: list[Entrant], seeds: int, curve: dict[int, list[float]], *, complete: bool
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
                    *origins(entrants),
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
    study: _Study, entrant: Entrant, reference: Entrant, verdict: Verdict | None, curve: dict[int, list[float]]
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


def _worth(study: _Study, entrant: Entrant, reference: Entrant, curve: dict[int, list[float]]) -> Worth:
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


def _tuned(study: _Study, entrants: Sequence[Entrant]) -> list[str]:
    """Who tunes itself, which only a budget of seconds or trials limits, where the budget has neither."""
    if study.budget.seconds is not None or study.budget.trials is not None:
        return []
    able = (entrant for entrant in entrants if entrant.method.paper.kind == "estimator" and not entrant.stopped)
    return [entrant.name for entrant in able if any(outcome.meter.trials > 1 for outcome in entrant.outcomes)]


def _unbound(study: _Study, entrants: Sequence[Entrant]) -> list[str]:
    names = _tuned(study, entrants)
    words = f"{', '.join(names)} tuned without a limit: {study.budget} do not limit tuning; a --budget in seconds limits all alike"
    return [words] if names else []


def _sentences(result: Comparison, entrants: list[Entrant], tuned: Collection[str]) -> list[str]:
    """tuned: who spent more than the budget says, with whom nobody is at an equal one."""
    found = [
        verdict.sentence(
            name,
            result.reference,
            result.metric,
            higher_is_better=result.higher_is_better,
            budget="" if {name, result.reference} & {*tuned} else result.budget,
            digits=result.digits,
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
