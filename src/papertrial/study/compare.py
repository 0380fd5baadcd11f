"""Does a method help on this data? Methods and baselines, the same budget, the same test rows, several seeds, a verdict.

Every run is a folder `out/<method>/seed<k>` (or `seed<k>-fold<j>`) that resumes by itself; `comparison.json` beside them
holds what was asked and what came out so far. Seeds go round by round over all methods, so that an interrupted comparison
has complete pairs. Of few rows each is a test row once in every round (`use/folds.py`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from papertrial.core import registry
from papertrial.core.arguments import Names, require_gradients, typed
from papertrial.core.budget import Budget, duration
from papertrial.core.errors import DataError, Declined, PapertrialError, TrainingStopped
from papertrial.core.files import to_json
from papertrial.core.offers import task_offers
from papertrial.core.ours import examine, held
from papertrial.core.ranges import require_numbers
from papertrial.core.request import Request
from papertrial.core.stats import Verdict
from papertrial.core.wording import counted, several
from papertrial.study import sentences
from papertrial.study.comparison import FILES, KIND, Comparison, Row, before_in, kept, recognised, said_before
from papertrial.study.engine import Engine, Job, content, started
from papertrial.study.entrants import Entrant, entrants_of, idle, pooled, reasons, require_methods, require_settings
from papertrial.study.judging import BLIND, Judge, judge_of, row_of, words_of
from papertrial.study.naming import called, renamed
from papertrial.study.origins import origins
from papertrial.study.worth import Worth
from papertrial.study.worth import worth as worth_in_labels
from papertrial.train.randomness import own_randomness
from papertrial.use.final import COMPARISON
from papertrial.use.folds import REPEATS, SEEDS, Fold, assigned, choice, rounds, shared

if TYPE_CHECKING:
    from papertrial.core.task import Prepared, Task
    from papertrial.use.fit import Outcome

#: shares of the labelled training examples on which the reference is trained again, for the worth in labels
FRACTIONS = (0.25, 0.5)
CURVE_SEEDS = 3


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
    earlier: tuple[str, ...] = ()
    folds: int = 0
    prepared: Prepared | None = None
    metric: str = ""
    higher: bool = True

    @property
    def budget(self) -> Budget:
        assert self.request.budget is not None
        return self.request.budget

    @cached_property
    def strata(self) -> np.ndarray:
        strata = task_offers(self.task).strata
        assert strata is not None
        return np.asarray(strata(self.data))

    def tested(self, fold: Fold) -> np.ndarray:
        """Places of the rows of a fold among all that are tested."""
        found = assigned(self.strata, self.data.groups, self.folds, fold[0])
        return np.flatnonzero(found[found >= 0] == fold[1])

    @property
    def groups(self) -> np.ndarray | None:
        """int (test rows,), equal for rows that are one chance; None where each is its own."""
        if not self.folds:
            assert self.prepared is not None
            return self.prepared.test.get("group")
        groups = self.data.groups[self.rows]
        return None if len(np.unique(groups)) == len(groups) else groups

    @property
    def rows(self) -> np.ndarray | None:
        """int (test rows,), their places in the data; None where the task does not tell."""
        if self.folds:
            return np.flatnonzero(assigned(self.strata, self.data.groups, self.folds, 0) >= 0)
        assert self.prepared is not None
        return self.prepared.test.get("row")

    def units(self, seed: int) -> list[Fold | None]:
        """What is prepared and run with one seed: each of the folds, or the one split."""
        return [(seed, place, self.folds) for place in range(self.folds)] or [None]

    def prepare(self, seed: int, fold: Fold | None = None, fraction: float | None = None) -> Prepared:
        from papertrial.use.choose import prepare

        prepared = prepare(self.task, self.data, seed, **self.request.but(fraction=fraction, fold=fold).options)
        if not prepared.test.examples:
            raise DataError(f"{self.data.name} leaves no labelled test examples to compare on", "add labelled examples")
        return prepared

    def job(self, entrant: Entrant, seed: int, fold: Fold | None = None, fraction: float | None = None) -> Job:
        part = ("" if fold is None else f"-fold{fold[1]}") + (
            "" if fraction is None else f"-{round(100 * fraction)}pct"
        )
        request = entrant.request.but(seed=seed, fold=fold, fraction=fraction, budget=self.budget)
        return Job(entrant.name, self.out / entrant.method.slug / f"seed{seed}{part}", request)

    def place(self, seed: int, fold: Fold | None) -> str:
        if fold is None:
            return f"seed {seed + 1} of {self.seeds}"
        return f"repeat {seed + 1} of {self.seeds}, fold {fold[1] + 1} of {self.folds}"

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

    def whole(self, entrant: Entrant, seed: int) -> Outcome:
        """The outcome with one seed, of all its folds together."""
        units = self.units(seed)
        if units == [None]:
            return entrant.runs[seed, None]
        return pooled([(entrant.runs[seed, fold], self.tested(fold)) for fold in units if fold is not None])


@typed
@own_randomness()
def compare(
    methods: Names,
    data: Any,
    *,
    task: str | None = None,
    target: str | int | None = None,
    group: str | None = None,
    time: str | None = None,
    dates: str | None = None,
    missing: Names | None = None,
    metric: str | None = None,
    folds: int | str | None = None,
    budget: Budget | str | None = None,
    total: Budget | str | None = None,
    seeds: int | None = None,
    against: str | None = None,
    baselines: Names | None = None,
    host: str | None = None,
    backbone: str | None = None,
    settings: Mapping[str, Any] | None = None,
    techniques: Names = (),
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

    methods: papers, such as "rtdl" or ["rtdl:resnet", "rtdl:mlp"].  data: anything `papertrial.open` takes, or what it
    returned; target, group, time, dates, missing: as it takes them.  task: the one to compare on, by default the first that
    fits.  metric: what is judged and chosen by, by default what the data call for.  folds: every row is a test row once, in
    so many folds, cut anew with each seed; "none" for one test part; by default 5 where fewer than 2 000 rows can be judged
    and the data come without test rows.  seeds: 5, or 3 of folds, where not given.  budget: of one run, by default the
    task's, of which 15 runs in folds get a third each; total: time for everything, shared out evenly over the runs.
    against: the baseline verdicts are measured against, by default the task's strongest reference by mean validation score.
    baselines: names instead of the task's own, or "none".  host: what techniques are tried on; the same host without them
    takes part, and is what they are measured against unless `against` names something else.  backbone: for objectives,
    baselines among them.  labels, size: see `papertrial.fit`.  settings, techniques, recipe: for the methods, not for the
    baselines.  worth: train the reference on a quarter and half of the labels too, to say what a method is worth in labels,
    where the task has any.  out: by default `runs/compare-<data>`.  fresh: start over where it holds an earlier comparison.
    progress: show a bar for each run.  engine: "local", one run after the other, or "ray", spread over the Ray cluster at
    `address` (by default that of this machine, or one started for the time), each run on `cores` cores of its own; `data`
    and `out` must then mean the same on all machines.  echo: takes the lines said on the way; None for silence.

    A comparison that was interrupted goes on where it stopped, and one asked for again with more seeds or methods adds
    them; each such look at more seeds is tested at half the level of the one before (see `core.stats`).

    Raises PapertrialError for an unknown name, or when `out` holds a comparison of something else; DataError when no task
    fits the data; Declined when none of the methods can take part or no reference could be run.

        >>> import papertrial as pt
        >>> verdict = pt.compare("linear", "iris", baselines="majority", seeds=2, folds="none", worth=False, echo=None)
        >>> verdict.reference
        'majority'
    """
    from papertrial.use.choose import choose_task
    from papertrial.use.fit import default_folder

    require_gradients("methods are compared")
    request = Request(
        task=task, target=target, group=group, time=time, dates=dates, missing=missing, metric=metric, folds=folds, host=host, backbone=backbone,
        recipe=recipe, settings=settings or {}, techniques=techniques, labels=labels, size=size, fresh=fresh,
        progress=progress,
    )  # fmt: skip
    echo, methods = echo or (lambda line: None), several(methods)
    asked_now = methods
    require_numbers(seeds=seeds, cores=cores)
    if not set(methods) - {against}:
        raise PapertrialError("no method was named to compare", "type: papertrial list")
    require_settings(methods, request)
    opened = content(data, request)
    chosen = choose_task(opened, task)
    made_for = [key for name in methods for key in registry.paper(name).tasks]
    if task is None and chosen.name not in made_for:
        for key in made_for:
            with suppress(PapertrialError):  # where none fits, `entrants_of` says why they cannot take part
                chosen = choose_task(opened, key)
                break
    without_labels = task_offers(chosen).judged_without_labels
    strata = task_offers(
        chosen
    ).strata  # the task knows what it can judge: pairs of texts are answers without being labels
    judged = (strata(opened) >= 0).any() if strata else opened.look().numbers.get("labelled") != 0
    if not judged and not without_labels:
        raise DataError(
            f"{opened.name} has no labels, so nothing can be compared on it", "papertrial fit learns without them"
        )
    worth = worth and not without_labels
    parts, why = choice(chosen, opened, folds)
    seeds = seeds or (REPEATS if parts else SEEDS)
    folder = Path(out) if out is not None else default_folder("compare", opened.name)
    examine(folder, KIND, recognised)
    before = {} if fresh else before_in(folder)
    methods = [*(name for name in before.get("stays", ()) if name not in methods), *methods]
    if methods != asked_now:
        echo(f"{', '.join(methods[: -len(asked_now)])}: compared here before, and part of this comparison too")
    entrants, declined, listed, against = entrants_of(methods, chosen, request, against, baselines)
    require_methods(entrants, declined)

    with started(
        engine, data, request, opened.fingerprint, chosen.name, progress=progress, address=address, cores=cores
    ) as running:
        study = _Study(
            task=chosen,
            data=opened,
            out=folder,
            request=request,
            seeds=seeds,
            against=against,
            baselines=listed,
            engine=running,
            echo=echo,
            declined=declined,
            folds=parts,
            earlier=said_before(before, methods, against, baselines),
            asked={
                "methods": list(methods),
                "against": against,
                "baselines": baselines,
                "worth": worth,
                "folds": folds,
                "stays": list(before.get("stays", ())),
            },
        )
        curve_runs = len(FRACTIONS) * min(seeds, CURVE_SEEDS) if worth else 0
        trained = sum(not idle(entrant) for entrant in entrants)
        runs = trained * seeds * max(1, parts) + curve_runs
        usual = shared(chosen.budget, seeds * parts) if parts else chosen.budget
        study.request = request.but(budget=_budget(budget, total, runs, usual))
        study.asked["runs"] = len(entrants) * seeds * max(1, parts) + curve_runs
        study.plan = _plan(study, entrants, runs, curve_runs)
        if why:
            study.plan += f"\nfolds: {why}"
        with held(folder, KIND, FILES, recognised):
            return _carried_out(study, entrants, worth)


def _carried_out(study: _Study, entrants: list[Entrant], worth: bool) -> Comparison:
    config = _config(study)
    study.looks = () if study.request.fresh else _earlier_looks(study, config)
    for line in (study.plan, *sentences.few_seeds(study.seeds, sum(entrant.asked for entrant in entrants))):
        study.echo(line)
    for name, reason in study.declined.items():
        study.echo(f"skipped {name}: {reason}")

    study.engine.submit(
        [
            study.job(entrant, seed, fold)
            for seed in range(study.seeds)
            for fold in study.units(seed)
            for entrant in entrants
        ]
    )
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
    jobs = [study.job(one, seed, fold) for one in entrants for seed in range(study.seeds) for fold in study.units(seed)]
    done = 0 if study.request.fresh else sum((job.folder / "result.json").exists() for job in jobs)
    already = f", minus {counted(done, 'run')} already done" if done else ""
    size = f"{counted(len(entrants), 'method')} x {rounds(study.seeds, study.folds)}{extra}"
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
        **({"folds": study.folds} if study.folds else {}),
        **{
            name: value
            for name in ("group", "time", "dates", "missing", "metric")
            if (value := getattr(study.request, name)) is not None
        },
    }


def _earlier_looks(study: _Study, config: dict[str, Any]) -> tuple[int, ...]:
    """Numbers of seeds, fewer than now, at which verdicts were given before; raises PapertrialError for another study."""
    file = study.out / "comparison.json"
    held = kept(file)
    if not held:
        return ()
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
    COMPARISON.write(
        study.out / "comparison.json",
        {"config": config, "asked": {**study.asked, "earlier": study.earlier}, **result.to_json()},
    )


def _round(study: _Study, entrants: list[Entrant], seed: int) -> None:
    """Run every method with one seed, on each of its folds. A refusal takes it out, a collapse is its result."""
    for fold in study.units(seed):
        prepared = study.prepared = study.prepare(seed, fold)
        study.metric, study.higher = study.task.primary_for(prepared.state)
        for entrant in list(entrants):
            if entrant.stopped:
                continue
            study.echo(f"{study.place(seed, fold)}: {entrant.name}")
            try:
                entrant.runs[seed, fold] = study.run(study.job(entrant, seed, fold), prepared)
            except Declined as refusal:
                study.declined[entrant.name] = str(refusal)
                entrants.remove(entrant)
                study.echo(f"skipped {entrant.name}: {refusal}")
            except TrainingStopped as stop:
                entrant.stopped = str(stop)
                study.echo(f"{entrant.name} failed: {stop}")
    for entrant in entrants:
        if not entrant.stopped:
            entrant.outcomes.append(study.whole(entrant, seed))


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
    """The reference's metric by number of labels, one value per seed (on one of its folds), fractions only."""
    found: dict[int, list[float]] = {}
    units = _curve_units(study)
    study.engine.submit([study.job(reference, seed, fold, share) for seed, fold in units for share in FRACTIONS])
    for seed, fold in units:
        for fraction in FRACTIONS:
            study.echo(f"{study.place(seed, fold)}: {reference.name} on {fraction:.0%} of the labels")
            prepared = study.prepare(seed, fold, fraction)
            try:
                outcome = study.run(study.job(reference, seed, fold, fraction), prepared)
            except (Declined, TrainingStopped) as stop:
                study.echo(f"{reference.name} on {fraction:.0%} of the labels: {stop}")
                return {}
            found.setdefault(prepared.facts.labelled, []).append(outcome.metrics[study.metric])
    return found


def _curve_units(study: _Study) -> list[tuple[int, Fold | None]]:
    """Seeds of the learning curve, each with another of the folds where there are some."""
    return [(seed, study.units(seed)[seed % max(1, study.folds)]) for seed in range(min(study.seeds, CURVE_SEEDS))]


def _judge(
    study: _Study, entrants: list[Entrant], seeds: int, curve: dict[int, list[float]], *, complete: bool
) -> Comparison:
    reference = _reference(study, entrants)
    others = [entrant for entrant in entrants if entrant is not reference and not entrant.stopped]
    asked = [entrant for entrant in others if entrant.asked]
    chosen = Judge(study.metric, study.higher, study.groups, len(study.looks))
    judge, said = judge_of(chosen, asked, reference, study.rows)
    curve = curve if judge.metric == study.metric else {}
    assert study.prepared is not None
    names = {entrant.name: called(entrant.outcomes[0].folder, entrant.name) for entrant in entrants if entrant.outcomes}
    blind = [entrant for entrant in entrants if entrant.name in BLIND and not entrant.stopped]
    words = words_of(judge, asked, reference, study.prepared.train.examples, blind)
    # Baselines get an interval each; no word is said of them, so they do not count as comparisons made.
    shown = words | {one.name: judge.alone(one, reference) for one in others if not one.asked}
    rows = [_row(study, judge, entrant, reference, shown.get(entrant.name), curve) for entrant in entrants]
    failed = {entrant.name: entrant.stopped for entrant in entrants if entrant.stopped}
    result = Comparison(
        protocol=_protocol(study, seeds),
        plan=study.plan,
        metric=judge.metric,
        higher_is_better=judge.higher,
        budget=str(study.budget),
        seeds=seeds,
        folds=study.folds,
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
                    *said,
                    *origins(entrants),
                    *sentences.caution(words, study.looks),
                    *sentences.late(rows, study.budget),
                    *sentences.unbound(entrants, study.budget),
                ]
            )
        ),
        looks=study.looks,
        complete=complete,
        folder=str(study.out),
        beside=study.metric if judge.metric != study.metric else "",
        called={name: words for name, words in names.items() if words != name},
    )
    tuned = sentences.tuned(entrants, study.budget)
    spoken = sentences.verdict_words(result, entrants, tuned, judge, BLIND)
    said_of = tuple(renamed(text, result.called) for text in spoken)
    earlier = tuple(line for line in dict.fromkeys(study.earlier) if line not in said_of)
    return replace(result, sentences=said_of, earlier=earlier)


def _row(
    study: _Study,
    judge: Judge,
    entrant: Entrant,
    reference: Entrant,
    verdict: Verdict | None,
    curve: dict[int, list[float]],
) -> Row:
    role = "reference" if entrant is reference else "method" if entrant.asked else "baseline"
    if entrant.stopped:
        return Row(entrant.name, role, reason=entrant.stopped)
    worth = _worth(study, entrant, reference, curve) if curve and role == "method" else None
    return row_of(judge, entrant, role, verdict, worth)


def _worth(study: _Study, entrant: Entrant, reference: Entrant, curve: dict[int, list[float]]) -> Worth:
    assert study.prepared is not None
    runs = [
        one.runs.values() if not study.folds else [one.runs[unit] for unit in _curve_units(study)]
        for one in (reference, entrant)
    ]
    full, own = ([outcome.metrics[study.metric] for outcome in some] for some in runs)
    points = {**curve, study.prepared.facts.labelled: full}
    values = [np.array(metrics) for metrics in points.values()]
    return worth_in_labels(list(points), values, np.array(own), higher_is_better=study.higher)


def _sorted(rows: list[Row]) -> list[Row]:
    """The reference first, then methods, then the other baselines; failed ones last in their group."""
    place = {"reference": 0, "method": 1, "baseline": 2}
    return sorted(rows, key=lambda row: (place[row.role], row.metric is None))


def _protocol(study: _Study, seeds: int) -> str:
    assert study.prepared is not None
    prepared = study.prepared
    better = "higher" if study.higher else "lower"
    groups = study.groups
    among = "" if groups is None else f" in {counted(len(np.unique(groups)), 'group')}"
    if study.folds:
        tested, about = (
            f"{0 if study.rows is None else len(study.rows)} examples{among}, each a test example once in {study.folds} folds",
            "about ",
        )
    else:
        tested, about = f"{prepared.test.examples} test examples{among}, the same for every seed", ""
    return (
        f"{study.task.name} v{study.task.version}: {study.metric} ({better} is better) on {tested};"
        f" {about}{prepared.train.examples} to train on, {about}{prepared.valid.examples} to validate on;"
        f" {rounds(seeds, study.folds)}; {study.budget} per run"
    )
