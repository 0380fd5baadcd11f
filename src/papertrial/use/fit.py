"""Train one method on the user's data: resolve every setting with its source, train or fit, judge on the test rows, keep the artifact."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

import papertrial
from papertrial.core import registry
from papertrial.core.arguments import Names, require_gradients, typed
from papertrial.core.budget import Budget, Meter
from papertrial.core.doors import check_sums, read_array, sums
from papertrial.core.errors import DataError, Declined, PapertrialError
from papertrial.core.files import to_json, write_with
from papertrial.core.memory import naming
from papertrial.core.offers import offers, task_offers
from papertrial.core.recipe import Optim
from papertrial.core.registry import Method
from papertrial.core.request import Request
from papertrial.core.run import Run
from papertrial.core.task import Estimator, Prepared, Split, Task
from papertrial.core.wording import counted
from papertrial.tasks._calibration import asked as threshold_asked
from papertrial.tasks._calibration import chosen, on_test, reliability
from papertrial.tasks._metrics import far_from_ceiling
from papertrial.train import processes
from papertrial.train.randomness import drawing, own_randomness
from papertrial.use.account import keep_hashes
from papertrial.use.answer_files import write_picture
from papertrial.use.artifact import Artifact
from papertrial.use.card import CARD, RESULT, Resolved, build_model, card_of, save_weights
from papertrial.use.choose import budget_of, check_request, prepare, resolve_method, task_for
from papertrial.use.final import Found, found_of
from papertrial.use.room import require_room
from papertrial.use.uses import uses

#: classes up to which a confusion matrix is kept, and predicted values kept otherwise
MOST_CONFUSED, MOST_ANSWERS = 100, 500


@dataclass(frozen=True)
class Outcome:
    """A finished run, as read back from its folder.

    metrics: on the test rows, with `intervals` at 95 %.  valid: the primary metric on the validation rows, signed so
    that higher is better.  per_example: (test rows,) float64 whose mean is the primary metric.  beside: the same of others by
    name, which a verdict may have to speak of instead.  floors: what the best answer gets that does not look at the inputs.
    """

    folder: Path
    method: str
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    extra: dict[str, float]
    valid: float
    per_example: np.ndarray
    meter: Meter
    floors: dict[str, float] = field(default_factory=dict)
    beside: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Outcome:
        """Raises PapertrialError when the folder holds no finished run."""
        file = folder / "result.json"
        result = RESULT.read(file)
        check_sums(folder, result.get("sums", {}), RESULT.repair(file))
        return cls(
            folder,
            result["method"],
            result["metrics"],
            {name: (low, high) for name, (low, high) in result["intervals"].items()},
            result["extra"],
            float("nan") if result["valid"] is None else result["valid"],
            read_array(folder / "per_example.npy", RESULT.repair(file), "f", 1),
            Meter(**result["cost"]),
            result.get("floors", {}),
            {
                name: read_array(folder / f"per_example-{name}.npy", RESULT.repair(file), "f", 1)
                for name in result.get("beside", ())
            },
        )


@own_randomness()
def fit_prepared(
    method: Method,
    task: Task,
    prepared: Prepared,
    *,
    out: Path | str,
    request: Request | None = None,
    found: Found | None = None,
    **asked: Any,
) -> Outcome:
    """Run one method to its end in the folder `out`; goes on where an earlier run of the same command stopped.

    asked: fields of the request, on top of `request`; those that say how data are made ready mean nothing here.  found: by a
    comparison, of a final model, whose settings are in the request.

    Under `torchrun` all processes call this alike and train together; the main one alone owns the folder, judges and
    saves, and fits what is not trained by steps. Their number may differ from sitting to sitting.
    `shard` splits the weights over the processes (see `train.loop.train`); it is no part of what makes a run the same run.

    Raises Declined when the method does not suit the task, TrainingStopped on collapse or non-finite values,
    PapertrialError when `out` holds another run.
    """
    import torch

    from papertrial.train.technique import proofs

    require_gradients(f"{method.name} is trained")
    request = (request or Request()).but(**asked)
    if found is not None:
        prepared = replace(prepared, notes=(*prepared.notes, *found.notes(prepared.train.examples)))
    resolved = resolve_method(method, prepared, request, task=task)
    budget = budget_of(resolved, task, request.budget)
    require_room(task, resolved, prepared)
    processes.join()
    run = Run(out)
    with ExitStack() as held:

        def begin() -> bool:
            held.enter_context(run.locked())
            held.enter_context(run.leaving_nothing_unless_begun())
            if request.fresh:
                run.clear()
            run.begin(_asked(task, resolved, prepared, budget, request) | ({"final": found.to_json()} if found else {}))
            return run.done

        done = processes.once(begin)
        _require_sight(run)
        if done:
            return Outcome.read(run.folder)
        if run.moved:
            print(f"{run.folder} goes on {run.moved}", file=sys.stderr, flush=True)
        steps = (resolved.host or resolved).method.paper.kind != "estimator"
        less = f"type a smaller --set batch=... (it is {resolved.optim.batch})" if steps else "give it fewer rows"
        held.enter_context(naming(resolved.name, less))
        licence = _tell_licence(resolved)
        seed = request.seed
        with drawing:
            torch.manual_seed(seed)
            model = build_model(task, resolved, prepared)
            rows = task.training(model, prepared)
        meter, stages = Meter(), dict[str, Any]()
        if not isinstance(model, Estimator):
            meter, stages = _train(task, model, rows, prepared, resolved, budget, run, request)

        def conclude() -> None:
            spent = meter
            if isinstance(model, Estimator):
                held.enter_context(drawing)
                spent = _fit_estimator(model, rows, prepared, budget, run, seed, found)
            head = task.finish(model, prepared, seed)
            result = _judge(task, model, head, prepared, seed, request.threshold)
            result |= {"method": resolved.name, "cost": spent.to_json()}
            if stages:
                result["stages"] = stages
            per_example, sheets = result.pop("per_example"), result.pop("sheets")
            arrays = {"": per_example} | {f"-{name}": values for name, values in result.pop("beside").items()}
            result["beside"] = [name[1:] for name in arrays if name]
            weights = save_weights(run, model, head)
            keep_hashes(run.folder, task, prepared)
            if keep := task_offers(task).keep:
                keep(prepared.state, run.folder)
            run.will_write(*sheets, *(f"per_example{name}.npy" for name in arrays))
            for name, sheet in sheets.items():
                write_picture(run.path(name), sheet)
            for name, values in arrays.items():
                write_with(run.path(f"per_example{name}.npy"), partial(_save_array, array=values))
            result["sums"] = sums(run.folder, [f"per_example{name}.npy" for name in arrays])
            frozen = proofs([run, *run.stages.values()]) if isinstance(model, torch.nn.Module) else None
            told = replace(prepared, notes=(*prepared.notes, *run.sittings, *_cut(task, model, prepared)))
            card = card_of(task, resolved, told, model, budget, seed, licence, result, weights, frozen)
            card |= {"final": found.to_json()} if found else {}
            card["uses"] = uses(Artifact(run.folder, _as_read(card), task, model, head))
            CARD.write(run.path("card.json"), card)
            run.finish(result)

        processes.once(conclude)
    return Outcome.read(run.folder)


@typed
@own_randomness()
def fit(
    method: str,
    data: Any,
    *,
    task: str | None = None,
    target: str | int | None = None,
    group: str | None = None,
    time: str | None = None,
    dates: str | None = None,
    missing: Names | None = None,
    metric: str | None = None,
    threshold: str | None = None,
    out: Path | str | None = None,
    host: str | None = None,
    backbone: str | None = None,
    recipe: str = "base",
    settings: Mapping[str, Any] | None = None,
    techniques: Names = (),
    budget: Budget | str | None = None,
    labels: int | None = None,
    size: int | None = None,
    seed: int = 0,
    fresh: bool = False,
    progress: bool = True,
    shard: bool = False,
    final: bool = False,
    comparison: Path | str | None = None,
) -> Any:
    """Open the data, train `method` on it and return the `Artifact`.

    method: a paper or baseline, such as "mlp_mixer" or "rtdl:resnet".  data: anything `papertrial.open` takes.  target,
    group, time, dates, missing: as it takes them.  task: what is learned, by default the first of the paper's tasks that
    fits.  metric: what is judged and chosen by, such as "average_precision"; by default what the data call for.  out: the
    run's folder, by default `runs/<method>-<data>`.  host: the model that a technique is tried on, by default the one its
    task suggests.  backbone: the network of an objective.  recipe: paper, base or tiny.  settings: by name, such as `{"lr":
    0.001, "backbone.width": 64}`.  techniques: such as `["agc:clip=0.02"]`.  budget: such as "90s", "10m" or "500steps", by
    default that of the recipe or the task.  seed: of all that is drawn.  fresh: start over where the folder holds a run.
    progress: show a bar.  threshold: where the rarer of two classes begins, chosen on the validation rows, such as
    "recall=0.9".  final: learn from all rows, with the settings and for the steps that the `comparison` in a folder found
    (by default that of the data in `runs`), which also says what to expect.  labels: how many labels per class a method may
    see (image_representation).  size: side of the images in pixels.  shard, and several processes: see `fit_prepared`.

    Raises PapertrialError for an unknown name or setting, a value out of its range and an `out` that holds something else,
    DataError for data that cannot be read, Declined for a method that does not suit them, TrainingStopped on collapse.

        >>> import papertrial as pt
        >>> model = pt.fit("rtdl:mlp", "iris", budget="50steps", progress=False)
        >>> model.predict("iris")["prediction"].iloc[0]
        'setosa'
    """
    from papertrial.data import open as open_data

    require_gradients(f"{method} is trained")
    request = Request(
        task=task, target=target, group=group, time=time, dates=dates, missing=missing, metric=metric,
        threshold=threshold, host=host, backbone=backbone, recipe=recipe,
        settings=settings or {}, techniques=techniques, budget=Budget.of(budget), labels=labels, size=size, seed=seed,
        fresh=fresh, progress=progress, shard=shard, final=final or comparison is not None,
    )  # fmt: skip
    if threshold:
        threshold_asked(threshold)
    chosen = registry.method(method)
    if chosen.paper.refusal:
        raise Declined(f"{chosen.id} cannot be trained: {chosen.paper.refusal}")
    check_request(chosen, request)

    def read() -> tuple[Any, Task, Prepared, Request, Found | None]:
        opened = open_data(data, **request.reading)
        found, asked, task_name = None, request, request.task
        if request.final:
            where = Path(comparison) if comparison is not None else default_folder("compare", opened.name)
            found = found_of(chosen, opened.fingerprint, where)
            asked, task_name = found.request(request), request.task or found.task
        on = task_for(chosen, opened, task_name)
        return opened, on, prepare(on, opened, asked.seed, **asked.options), asked, found

    processes.join()
    opened, on, prepared, request, found = processes.first_here(read)
    folder = out or default_folder(f"{chosen.slug}-final" if found else chosen.slug, opened.name)
    outcome = fit_prepared(chosen, on, prepared, out=folder, request=request, found=found)
    return Artifact.load(outcome.folder)


def default_folder(what: str, data_name: str) -> Path:
    """`runs/<what>-<data>`, with only letters a file system likes."""
    tail = "".join(
        letter if letter.isalnum() or letter in "-_" else "-" for letter in Path(data_name).name.partition(".")[0]
    )
    return Path("runs") / f"{what}-{tail or 'data'}"


def _cut(task: Task, model: Any, prepared: Prepared) -> list[str]:
    """Lines on what the model does not read to its end; running text is read so, in rows."""
    cut = task_offers(task).cut
    if cut is None or (prepared.facts.writes and not prepared.facts.labelled):
        return []
    parts = {"training": prepared.train, "test": prepared.test}
    return [f"{name}: {line}" for name, rows in parts.items() if rows.examples for line in cut(model, rows)]


def _require_sight(run: Run) -> None:
    """Raise PapertrialError on a process, of another machine, that does not see what the main one has just written."""
    deadline = time.monotonic() + 60  # network file systems may show a new file late
    while not run.path("config.json").exists():
        if time.monotonic() > deadline:
            raise PapertrialError(
                f"{run.folder} is not the same folder on all machines", "choose an --out on storage that they share"
            )
        time.sleep(0.1)


def _asked(task: Task, resolved: Resolved, prepared: Prepared, budget: Budget, request: Request) -> dict[str, Any]:
    """What makes two runs the same run."""
    return {
        "method": resolved.method.name,
        "task": f"{task.name} v{task.version}",
        "data": {name: prepared.origin.get(name) for name in ("name", "fingerprint", "options")},
        "backbone": resolved.backbone.name if resolved.backbone else None,
        "recipe": request.recipe,
        "config": asdict(resolved.config),
        "backbone_config": asdict(resolved.backbone_config) if resolved.backbone else None,
        "optim": asdict(resolved.optim),
        "techniques": {made.id: asdict(made.made) for made in resolved.techniques} or None,
        "budget": budget.to_json(),
        "seed": request.seed,
        "version": papertrial.__version__,
        **({"threshold": request.threshold} if request.threshold else {}),
        **({"host": resolved.host.method.name, "host_config": asdict(resolved.host.config)} if resolved.host else {}),
    }


def _tell_licence(resolved: Resolved) -> str:
    """Whose weights training starts from; those from elsewhere are named on the error stream before they are used."""
    network, config = resolved.network
    if not hasattr(network.module, "licence"):
        return "fresh weights, so they are yours"
    licence: str = network.module.licence(config)
    if processes.is_main():
        _say_once(f"weights     {licence}")
    return licence


@cache
def _say_once(line: str) -> None:
    """On the error stream, so that it spoils no document; a comparison of many runs says it once."""
    print(line, file=sys.stderr, flush=True)


def _fit_estimator(
    model: Estimator, rows: Split, prepared: Prepared, budget: Budget, run: Run, seed: int, found: Found | None
) -> Meter:
    import torch

    from papertrial.train.device import PeakMemory
    from papertrial.train.energy import EnergyMeter

    peak = PeakMemory(torch.device("cpu"))
    with EnergyMeter() as energy:
        again = offers(model).again if found else None
        if found and again is None and found.trials > 1:
            raise Declined(
                "it tunes itself on validation rows, and cannot learn from all rows with what it found",
                "leave --final out",
            )
        if found and again is not None:
            meter: Meter = again(rows, seed, found.runs)
        else:
            meter = model.fit(rows, prepared.valid, prepared.facts, budget, seed, run)
        spent = energy.read()
    meter = replace(meter, peak_bytes=peak.read())
    return meter if meter.energy_how else meter.with_energy(spent)  # one that resumes keeps its own account


def _train(
    task: Task,
    model: Any,
    rows: Split,
    prepared: Prepared,
    resolved: Resolved,
    budget: Budget,
    run: Run,
    request: Request,
) -> tuple[Meter, dict[str, Meter]]:
    """What it cost, and each of its stages where there are several."""
    from papertrial.train.loop import train
    from papertrial.train.sources import learnt_from
    from papertrial.train.stages import train_stages

    techniques = [made.made for made in resolved.techniques]
    how: dict[str, Any] = {
        "seed": request.seed, "progress": request.progress, "techniques": techniques, "sharded": request.shard,
    }  # fmt: skip
    if offers(model).stages:
        return train_stages(model, rows, resolved.optim, budget, run, **how)
    early = validation(task, model, prepared, resolved.optim)
    return train(model, learnt_from(model, rows), resolved.optim, budget, run, validate=early, **how), {}


def validation(task: Task, model: Any, prepared: Prepared, optim: Optim) -> Callable[[], float] | None:
    """How `model` is validated while it is trained, higher being better; None where it is not."""

    def validate() -> float:
        return _signed(task, task.outputs(model, {}, prepared.valid), prepared)

    return validate if optim.patience and prepared.valid.examples else None


def _signed(task: Task, outputs: np.ndarray, prepared: Prepared) -> float:
    """The primary metric on the validation rows, higher being better; the usual one of the task where these are too few to tell
    it, such as an average precision without a row of the rare class."""
    held = prepared.valid
    for state in (prepared.state, {name: value for name, value in prepared.state.items() if name != "metric"}):
        metric, higher = task.primary_for(state)
        with suppress(DataError):
            value = task.score(outputs, held, state).metrics[metric]
            return value if higher else -value
    raise DataError(f"{metric} cannot be told of the {counted(held.examples, 'validation row')}", "give more rows")


def _judge(
    task: Task, model: Any, head: dict[str, np.ndarray], prepared: Prepared, seed: int, threshold: str | None = None
) -> dict[str, Any]:
    valid = float("nan")
    if prepared.valid.examples:
        valid = _signed(task, task.outputs(model, head, prepared.valid), prepared)
    result: dict[str, Any] = {
        "valid": valid,
        "metrics": {},
        "intervals": {},
        "extra": {},
        "floors": {},
        "ceilings": {},
        "said_first": [],
        "per_example": np.zeros(0),
        "beside": {},
        "sheets": {},
    }
    if threshold:
        result["threshold"] = _threshold(task, model, head, prepared, threshold)
    if prepared.test.examples:
        outputs = task.outputs(model, head, prepared.test)
        scores = task.score(outputs, prepared.test, prepared.state)
        result |= {
            "metrics": scores.metrics,
            "intervals": scores.intervals,
            "floors": scores.floors,
            "beside": scores.beside,
            "test": {"rows": len(scores.per_example), "groups": scores.groups or len(scores.per_example)},
            "answers": _answers(outputs, prepared.test, prepared.state),
            "per_example": np.asarray(scores.per_example, dtype=np.float64),
            "sheets": sheets(outputs, prepared.test) if (sheets := task_offers(task).sheets) else {},
        }
        result["extra"] = task.extra_scores(model, prepared, seed) | _calibrated(outputs, prepared, result)
        real = {name[5:]: value for name, value in result["extra"].items() if name.startswith("real_")}
        result["ceilings"] = scores.ceilings | {name: value for name, value in real.items() if name in scores.metrics}
        far = far_from_ceiling(task.primary_for(prepared.state)[0], scores.metrics, result["ceilings"])
        result["said_first"] = [*scores.remarks, *far]
    return result


def _threshold(task: Task, model: Any, head: dict[str, np.ndarray], prepared: Prepared, asked: str) -> dict[str, Any]:
    """Where a class begins, chosen on the validation rows. Raises PapertrialError where that cannot be."""
    valid, state = prepared.valid, prepared.state
    if "class_names" not in state or "label" not in valid or not valid.examples:
        raise PapertrialError(f"a threshold is of two classes, and {task.name} has none here", "leave --threshold out")
    known = np.asarray(valid["label"]) >= 0
    outputs = task.outputs(model, head, valid)[known]
    return chosen(asked, outputs, np.asarray(valid["label"])[known], state["class_names"], state.get("positive"))


def _calibrated(outputs: np.ndarray, prepared: Prepared, result: dict[str, Any]) -> dict[str, float]:
    """Of probabilities, their calibration error, and what the threshold gives on the test rows; the bins go to the answers."""
    test, names = prepared.test, prepared.state.get("class_names", ())
    if "label" not in test or outputs.ndim != 2 or outputs.shape != (test.examples, len(names)):
        return {}
    known = np.asarray(test["label"]) >= 0
    found, label = outputs[known], np.asarray(test["label"])[known]
    bins = reliability(found, label)
    result["answers"] = {**result["answers"], "reliability": bins}
    return {"ece": bins["ece"]} | (on_test(found, label, names, result["threshold"]) if "threshold" in result else {})


def _answers(outputs: np.ndarray, test: Split, state: Mapping[str, Any]) -> dict[str, Any]:
    """What was answered on the test rows, small enough to keep: a confusion matrix (rows: the truth), or some values."""
    if "class_names" in state and "label" in test and outputs.ndim == 2:
        count = len(state["class_names"])
        truth = np.asarray(test["label"])
        judged = truth >= 0
        if count > MOST_CONFUSED or len(outputs) != len(truth):
            return {}
        pairs = count * truth[judged] + outputs[judged].argmax(axis=1)
        return {"confusion": np.bincount(pairs, minlength=count**2).reshape(count, count)}
    if "target" in test and outputs.dtype.kind == "f" and len(outputs) == len(test["target"]):
        shown = np.unique(np.linspace(0, len(outputs) - 1, MOST_ANSWERS).round().astype(int))
        return {"truth": np.asarray(test["target"])[shown], "answer": outputs[shown]}
    return {}


def _as_read(card: dict[str, Any]) -> dict[str, Any]:
    """The card as it will be read back."""
    return dict(json.loads(to_json(card)))


def _save_array(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as stream:
        np.save(stream, array, allow_pickle=False)
