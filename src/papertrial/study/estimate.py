"""What would it cost? Minutes, memory and energy of a run or a comparison before it starts, from a few of its real steps.

The model is built and trained for ten steps on the user's data, in a folder that is removed again. Where whole batches
would take too long or too much memory for that, steps with fewer rows are measured and scaled up, which is said.
"""

from __future__ import annotations

import functools
import gc
import importlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from papertrial.core import memory, registry
from papertrial.core.arguments import Names, require_gradients, typed
from papertrial.core.budget import Budget, Energy, duration, size_in_words
from papertrial.core.errors import Declined, PapertrialError
from papertrial.core.offers import offers, task_offers
from papertrial.core.recipe import Optim
from papertrial.core.request import Request
from papertrial.core.run import Run
from papertrial.core.task import Estimator, Prepared, Split, Task
from papertrial.study.compare import CURVE_SEEDS, FRACTIONS
from papertrial.study.cost import Cost, Estimate, Plan
from papertrial.study.entrants import plan
from papertrial.train.randomness import drawing, own_randomness
from papertrial.use.folds import choice, shared

if TYPE_CHECKING:
    from papertrial.train.pace import Pace
    from papertrial.use.card import Resolved

#: rows of the first steps tried; four times as many until a whole batch is reached or is known to be too much
_PILOT = 8
#: what a run loads, beyond the method's own
_PACKAGES = (
    "papertrial.train.loop",
    "papertrial.use.fit",
    "torch._dynamo",
    "torch.utils.tensorboard",
    "sklearn.linear_model",
    "scipy.stats",
)
_WINDOW = 3.0  # seconds that fast steps are measured for, so that a hiccup does not decide
_PATIENCE = 20.0  # seconds that the measured steps may take
_ROOM = 0.6  # share of the free memory that the measured steps may take
_FEW, _SOME, _SOME_SECONDS = 64, 2000, 2.0  # rows first tried, most rows, and about most seconds, for the judging


@typed
@own_randomness()
def estimate(
    method: str,
    data: Any,
    *,
    task: str | None = None,
    target: str | int | None = None,
    group: str | None = None,
    time: str | None = None,
    dates: str | None = None,
    missing: Names | None = None,
    host: str | None = None,
    backbone: str | None = None,
    recipe: str = "base",
    settings: Mapping[str, Any] | None = None,
    techniques: Names = (),
    budget: Budget | str | None = None,
    labels: int | None = None,
    size: int | None = None,
    seeds: int | None = None,
    folds: int | str | None = None,
    seed: int = 0,
) -> Estimate:
    """Minutes, memory and energy of `papertrial.fit` with the same arguments, before it starts.

    method, data, task, target, group, time, dates, missing, host, backbone, recipe, settings, techniques, budget, labels, size,
    seed: as `papertrial.fit` takes them.  seeds: estimate `papertrial.compare` with so many too, in `folds` as it takes them.

    Raises PapertrialError when a batch needs clearly more memory than there is, and whatever `fit` would refuse.

        >>> import papertrial as pt
        >>> pt.estimate("linear", "iris").cost.trials > 0
        True
    """
    from papertrial.data import open as open_data
    from papertrial.use.choose import check_request, prepare, task_for

    require_gradients("the cost of training is measured")
    request = Request(
        task=task, target=target, group=group, time=time, dates=dates, missing=missing, host=host, backbone=backbone, recipe=recipe,
        settings=settings or {}, techniques=techniques, budget=Budget.of(budget), labels=labels, size=size, seed=seed,
    )  # fmt: skip
    chosen = registry.method(method)
    check_request(chosen, request, seeds=seeds)
    starting, _ = _timed(lambda: _load(chosen))

    def read() -> tuple[Any, Task, Prepared]:
        opened = open_data(data, **request.reading)
        on = task_for(chosen, opened, request.task)
        return opened, on, prepare(on, opened, request.seed, **request.options)

    first, (opened, on, prepared) = _timed(read)
    cost = run_cost(chosen, on, prepared, request)
    again, _ = _timed(read)  # what is decoded once is in the cache now
    cost = replace(cost, preparing=again)
    comparison = None
    if seeds is not None:
        parts, _ = choice(on, opened, folds)
        limited = request.but(budget=request.budget or (shared(on.budget, seeds * parts) if parts else on.budget))
        comparison = _comparison(chosen.name, on, prepared, limited, seeds, parts, again)
    return Estimate(prepared.origin["name"], cost, starting, max(0.0, first - again), machine_memory(), comparison)


def _load(method: registry.Method) -> None:
    """All that a run imports, also what torch and others leave for their first use."""
    for name in _PACKAGES:
        importlib.import_module(name)
    _ = method.module


def run_cost(
    method: registry.Method, task: Task, prepared: Prepared, request: Request | None = None, **asked: Any
) -> Cost:
    """`Cost` of one run on prepared data; its `preparing` is 0. asked: fields of the request, on top of `request`."""
    import torch

    from papertrial.train.sources import learnt_from
    from papertrial.use.choose import budget_of, resolve_method
    from papertrial.use.fit import validation
    from papertrial.use.room import built

    request = (request or Request()).but(**asked)
    seed = request.seed
    resolved = resolve_method(method, prepared, request, task=task)
    spending = budget_of(resolved, task, request.budget)
    with tempfile.TemporaryDirectory(prefix="papertrial-estimate-") as folder:
        with drawing:
            torch.manual_seed(seed)
            model = built(task, resolved, prepared)
            rows = task.training(model, prepared)
        run = Run(Path(folder) / "run")
        if isinstance(model, Estimator):
            found = _trial(model, rows, prepared, spending, run, seed)
        elif 0 in (spending.steps, spending.samples, spending.seconds):
            found = _nothing(model)
        elif offers(model).stages:
            found = _staged_cost(resolved, model, rows, spending, run, seed)
        else:
            early = validation(task, model, prepared, resolved.optim)
            found = _training_cost(
                resolved, model, learnt_from(model, rows), resolved.optim, spending, run, seed, early
            )
        return Cost(
            resolved.name,
            request.recipe,
            str(spending),
            preparing=0.0,
            judging=_judging(task, model, prepared, seed),
            **found,
        )


# --------------------------------------------------------------------------------------- methods that are trained by steps


def _staged_cost(resolved: Resolved, model: Any, rows: Split, budget: Budget, run: Run, seed: int) -> dict[str, Any]:
    """Of all stages, one after the other; what an untrained stage hands on costs as much to learn from."""
    from papertrial.train.stages import optim_of, rows_of, stages_of

    found: list[dict[str, Any]] = []
    before = 0.0
    for stage in stages_of(model, resolved.optim):
        part = budget.between(before, before + stage.share)
        before += stage.share
        making, own = _timed(functools.partial(rows_of, stage, rows))
        cost = _training_cost(resolved, stage.model, own, optim_of(stage, resolved.optim), part, run, seed)
        within = 0.0 if budget.seconds is not None else making  # it comes out of a budget in seconds
        cost |= {"training": cost["training"] + within, "measured": f"{stage.name}: {cost['measured']}"}
        cost["notes"] = tuple(f"{stage.name}: {note}" for note in cost["notes"])
        found.append(cost)
    energy = functools.reduce(
        Energy.__add__, (Energy(cost["kwh"], cost["energy"], cost["energy_how"]) for cost in found)
    )
    summed = ("training", "validating", "steps", "epochs", "samples", "trials")
    return {
        "parameters": _parameters(model),
        **{name: sum(cost[name] for cost in found) for name in summed},
        "peak_bytes": max(cost["peak_bytes"] for cost in found),
        **_energy(energy),
        "measured": "; ".join(cost["measured"] for cost in found),
        "notes": tuple(note for cost in found for note in cost["notes"]),
    }


def _training_cost(
    resolved: Resolved,
    model: Any,
    rows: Any,
    optim: Optim,
    budget: Budget,
    run: Run,
    seed: int,
    validate: Callable[[], float] | None = None,
) -> dict[str, Any]:
    from papertrial.train.loop import memory_plan, pace
    from papertrial.train.memory import in_pieces
    from papertrial.train.sources import collected, is_source
    from papertrial.train.technique import finish, prepare

    techniques = [made.made for made in resolved.techniques]
    prepare(model, techniques, rows)
    collecting, every = 0.0, 0
    if is_source(rows):
        every = rows.every
        collecting, rows = _timed(functools.partial(collected, rows, model, optim, seed))
    batch = min(optim.batch, rows.examples)

    def measure(count: int, pilot: bool = False) -> Pace:
        gc.collect()  # what the last measurement held would be counted as growth
        part = replace(optim, batch=count)
        return pace(
            model, rows, part, run, seed=seed, validate=validate, seconds=_WINDOW, pilot=pilot, techniques=techniques
        )

    piece, words = memory_plan(model, rows, optim, run, seed=seed, techniques=techniques)
    with in_pieces(offers(model).encoder, piece):
        whole, peak = affordable(measure, batch, _PILOT * optim.accumulate)
    finish(model, techniques)
    measured = f"{whole.steps} steps of {whole.rows} rows, {_short(whole.step)} each"
    notes = [words] if words else []
    if whole.rows < batch:
        notes.append(f"the time of a step of {batch} rows is extrapolated from steps of {whole.rows}")
        whole = whole.scaled(batch, max(1, rows.examples // batch))
    if every:
        whole = replace(whole, per_epoch=every, collecting=collecting)
        notes.append(f"rows are collected every {every} steps, {_short(collecting)} each time with the first weights")
    steps = whole.plan(budget, optim.epochs)
    seconds = whole.seconds(steps, budget)
    if validate is not None:
        notes.append("training ends earlier once the validation score no longer improves")
    return {
        "parameters": _parameters(model),
        "training": seconds,
        "validating": whole.validating(steps),
        "steps": steps,
        "epochs": steps / whole.per_epoch,
        "samples": steps * whole.rows,
        "trials": 0,
        "peak_bytes": peak,
        **_energy(whole.power.times(seconds)),
        "measured": measured,
        "notes": tuple(notes),
    }


def affordable(measure: Callable[..., Pace], batch: int, first: int) -> tuple[Pace, int]:
    """The pace of steps of `batch` rows, or of as many as there is time and memory to try, and the peak memory of `batch`.

    measure(rows, pilot): the pace of so many rows, from two steps for a pilot. Pilots begin with `first` rows, and grow fourfold.
    Raises PapertrialError when `batch` rows need more memory than the machine has.
    """
    from papertrial.train.pace import STEPS, WARM

    count, seen = min(batch, first), []
    while count < batch:
        tried = measure(count, pilot=True)
        seen.append(tried)
        following = min(batch, 4 * count)
        slow = (WARM + STEPS) * tried.step * following / count > _PATIENCE
        large = _memory(seen, following) > tried.peak_bytes + _ROOM * free_memory()
        if len(seen) > 1 and (slow or large):
            break
        count = following
    if count < batch and _memory(seen, batch) > machine_memory():
        raise _too_large(seen, batch)
    seen.append(measure(count))
    return seen[-1], _memory(seen, batch)


def machine_memory() -> int:
    """Bytes a run may come to use: of the GPU where there is one, else what the machine, its container or a limit gives."""
    return memory.machine_memory(memory.where())


def free_memory() -> int:
    return memory.free_memory(memory.where())


def _memory(seen: list[Pace], rows: int) -> int:
    """Peak memory of steps of `rows` rows, by the line through the last two sizes that were tried."""
    last = seen[-1]
    before = next((pace for pace in reversed(seen) if pace.rows < last.rows), None)
    if before is None or rows <= last.rows:
        return last.peak_bytes
    each = max(0, last.peak_bytes - before.peak_bytes) / (last.rows - before.rows)
    return int(last.peak_bytes + each * (rows - last.rows))


def _too_large(seen: list[Pace], batch: int) -> PapertrialError:
    fitting = seen[-1].rows
    while _memory(seen, 2 * fitting) < 0.8 * machine_memory():
        fitting *= 2
    return PapertrialError(
        f"a step of {batch} rows needs about {size_in_words(_memory(seen, batch))} of memory,"
        f" and this machine has {size_in_words(machine_memory())}",
        f"use --set batch={fitting}, or keep it with --set accumulate={-(-batch // fitting)}",
    )


# ------------------------------------------------------------------------------------------------------------ other methods


def _trial(model: Any, rows: Split, prepared: Prepared, budget: Budget, run: Run, seed: int) -> dict[str, Any]:
    """One trial of a method that tunes itself; the others are taken to last as long."""
    import torch

    from papertrial.train.device import PeakMemory
    from papertrial.train.energy import EnergyMeter

    run.folder.mkdir(parents=True)
    peak = PeakMemory(torch.device("cpu"))
    with EnergyMeter() as meter:
        seconds, _ = _timed(lambda: model.fit(rows, prepared.valid, prepared.facts, Budget(trials=1), seed, run))
        energy = meter.read()
    trials = trials_within(budget, seconds, most(budget) if (most := offers(model).most_trials) else None)
    training = seconds * trials if budget.seconds is None else min(seconds * trials, max(seconds, budget.seconds))
    return {
        "parameters": 0,
        "training": training,
        "validating": 0.0,
        "steps": 0,
        "epochs": 0.0,
        "samples": rows.examples * trials,
        "trials": trials,
        "peak_bytes": peak.read(),
        **_energy(energy.times(training / seconds)),
        "measured": f"one trial, {_short(seconds)}",
        "notes": ("trials differ in length, so this is rough",) if trials > 1 else (),
    }


def trials_within(budget: Budget, each: float, most: int | None) -> int:
    """Trials of `each` seconds that a budget buys, where the method itself would make no more than `most`."""
    in_time = None if budget.seconds is None else max(1, -int(-budget.seconds // each))
    limits = [limit for limit in (budget.trials, in_time, most) if limit is not None]
    return max(1, min(limits, default=1))


def _nothing(model: Any) -> dict[str, Any]:
    import torch

    from papertrial.train.device import PeakMemory

    return {
        "parameters": _parameters(model),
        **dict.fromkeys(("training", "validating", "epochs"), 0.0),
        **dict.fromkeys(("steps", "samples", "trials"), 0),
        "peak_bytes": PeakMemory(torch.device("cpu")).read(),
        **_energy(Energy(how="nothing is trained")),
        "measured": "nothing is trained",
    }


def _judging(task: Task, model: Any, prepared: Prepared, seed: int) -> float:
    """Seconds of the probe, of the answers for validation and test rows, and of the further figures, tried on some rows."""
    if not prepared.test.examples and not prepared.facts.labelled:
        return 0.0
    column = "label" if "label" in prepared.train else "target"
    labelled = np.flatnonzero(prepared.train[column] >= 0) if column == "label" else np.arange(prepared.train.examples)
    asked = prepared.test if prepared.test.examples else prepared.train
    head: dict[str, np.ndarray] = {}

    def finish(rows: int) -> None:
        head.update(task.finish(model, replace(prepared, train=_some(prepared.train, labelled, rows)), seed))

    def answer(rows: int) -> None:
        task.outputs(model, head, _some(asked, np.arange(asked.examples), rows))

    finish(_FEW)
    few, _ = _timed(lambda: answer(_FEW))
    most = int(min(_SOME, max(_FEW, _FEW * _SOME_SECONDS / max(few, 1e-9))))

    def tried(rows: int, action: Callable[[int], Any]) -> float:
        """Seconds of `action` for `rows` rows, from its time for no more than `most`."""
        taken = min(rows, most)
        return _timed(lambda: action(taken))[0] * rows / taken if taken else 0.0

    def extra(rows: int) -> None:
        share = rows / looked_at
        train, test = (
            _some(split, np.arange(split.examples), round(share * count))
            for split, count in ((prepared.train, bank), (prepared.test, prepared.test.examples))
        )
        task.extra_scores(model, replace(prepared, train=train, test=test), seed)

    judged = prepared.valid.examples + prepared.test.examples
    bank = int(min(task_offers(task).bank, prepared.train.examples))
    looked_at = bank + prepared.test.examples
    seconds = tried(len(labelled), finish)
    return seconds + tried(judged, answer) + (tried(looked_at, extra) if prepared.test.examples else 0.0)


def _some(split: Split, rows: np.ndarray, count: int) -> Split:
    """`count` of the rows, evenly spread."""
    return split.take(rows[np.linspace(0, len(rows) - 1, count).astype(np.int64)])


# ------------------------------------------------------------------------------------------------------------- comparisons


def _comparison(
    method: str, task: Task, prepared: Prepared, request: Request, seeds: int, folds: int, preparing: float
) -> Plan:
    """`papertrial.compare` of one method: with the task's baselines, and the reference on fewer labels."""
    costs, notes, references = [], [], []
    for planned in plan([method], task, request):
        try:
            cost = run_cost(planned.method, task, prepared, planned.request)
        except Declined as refusal:
            notes.append(f"without {planned.method.name}: {refusal}")
            continue
        costs.append(cost)
        if planned.reference and not planned.asked:
            references.append(cost)
    return total(costs, references, seeds, preparing, notes, folds)


def total(
    costs: Sequence[Cost],
    references: Sequence[Cost],
    seeds: int,
    preparing: float,
    notes: Sequence[str],
    folds: int = 0,
) -> Plan:
    """All runs of a comparison. The one that will be the reference is not known yet: the dearest is taken."""
    curve = len(FRACTIONS) * min(seeds, CURVE_SEEDS) if references else 0
    each = seeds * max(1, folds)
    runs = [(cost, each) for cost in costs]
    if curve:
        runs.append((max(references, key=lambda cost: cost.seconds), curve))
    seconds = sum(cost.seconds * count for cost, count in runs) + preparing * (each + curve)
    energy = sum((cost.spent().times(count) for cost, count in runs), Energy())
    return Plan(
        seeds, sum(count for _, count in runs), seconds, **_energy(energy), costs=tuple(costs), notes=tuple(notes),
        folds=folds,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------------- words


def _short(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else duration(seconds)


def _energy(energy: Energy) -> dict[str, Any]:
    return {"kwh": energy.kwh, "energy": energy.label, "energy_how": energy.how}


def _parameters(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _timed(action: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.perf_counter()
    result = action()
    return time.perf_counter() - begun, result
