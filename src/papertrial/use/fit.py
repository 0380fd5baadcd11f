"""Train one method on the user's data: resolve every setting with its source, train or fit, judge on the test rows, keep the artifact."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np

import papertrial
from papertrial.core import registry
from papertrial.core.budget import Budget, Meter
from papertrial.core.errors import DataError, Declined, PapertrialError, did_you_mean
from papertrial.core.files import disk_errors, read_json, write_json, write_with
from papertrial.core.offers import task_offers
from papertrial.core.recipe import Optim, Setting, resolve, unknown_settings
from papertrial.core.registry import Method, Technique
from papertrial.core.run import Run, environment
from papertrial.core.task import Estimator, Prepared, Split, Task
from papertrial.core.wording import several
from papertrial.train import processes
from papertrial.use.answer_files import write_picture

CARD_VERSION = 1
WEIGHTS, ESTIMATOR = "model.safetensors", "estimator"
#: classes up to which a confusion matrix is kept, and predicted values kept otherwise
MOST_CONFUSED, MOST_ANSWERS = 100, 500


@dataclass(frozen=True)
class Outcome:
    """A finished run, as read back from its folder.

    metrics: on the test rows, with `intervals` at 95 %.  valid: the primary metric on the validation rows, signed so
    that higher is better.  per_example: (test rows,) float64 whose mean is the primary metric.
    """

    folder: Path
    method: str
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    extra: dict[str, float]
    valid: float
    per_example: np.ndarray
    meter: Meter

    @classmethod
    def read(cls, folder: Path) -> Outcome:
        """Raises PapertrialError when the folder holds no finished run."""
        result = read_json(folder / "result.json")
        return cls(
            folder,
            result["method"],
            result["metrics"],
            {name: (low, high) for name, (low, high) in result["intervals"].items()},
            result["extra"],
            float("nan") if result["valid"] is None else result["valid"],
            np.load(folder / "per_example.npy", allow_pickle=False),
            Meter(**result["cost"]),
        )


@dataclass(frozen=True)
class Resolved:
    """A method with every setting decided."""

    method: Method
    config: Any
    optim: Optim
    settings: list[Setting]
    recipe: Any
    backbone: Method | None = None
    backbone_config: Any = None
    backbone_settings: tuple[Setting, ...] = ()
    techniques: tuple[Technique, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.method.name}+{self.backbone.name}" if self.backbone else self.method.name


def choose_task(data: Any, name: str | None = None) -> Task:
    """The task called `name`, or the first that fits the data; raises DataError otherwise, with the reasons of the tasks that
    take such data."""
    look = data.look()
    if name is not None:
        task = registry.task(name)
        supports = task.supports(look)
        if not supports:
            raise DataError(f"{data.name} does not fit the task {name}: {supports.why}", "type: papertrial look DATA")
        return task
    said = {name: task.supports(look) for name, task in registry.tasks().items()}

    def order(task: Task) -> tuple[bool, bool, bool, bool]:
        """First where methods can be judged, and what the data were made for; labels are there to be predicted, and captions,
        where there are no labels, to be drawn from."""
        leaves = _leaves_captions(task, look)
        unlabelled = getattr(task, "judged_without_labels", False)
        drawn = look.numbers.get("captions") and not look.numbers["labelled"] and not leaves
        return not said[task.name].judges, task.kind != look.kind, unlabelled and not drawn, leaves

    fitting = sorted((task for name, task in registry.tasks().items() if said[name]), key=order)
    if fitting:
        return fitting[0]
    taking = {name for name, task in registry.tasks().items() if look.kind in task_offers(task).kinds}
    if not taking:
        raise DataError(f"no task takes {look.what}, as {data.name} is", "type: papertrial look DATA --all")
    reasons = {name: supports.why for name, supports in said.items() if name in taking}
    raise DataError(f"no task fits {data.name}: " + "; ".join(f"{task}: {why}" for task, why in reasons.items()))


def _leaves_captions(task: Task, look: Any) -> bool:
    """Whether the data have captions and the task asks for none, or the other way round."""
    return getattr(task, "captions", False) != bool(look.numbers.get("captions"))


def task_for(method: Method, data: Any, name: str | None = None) -> Task:
    """The task named by the user, or the first of the paper's own tasks that fits the data and can judge on it."""
    if name is not None:
        return choose_task(data, name)
    look = data.look()
    known = registry.tasks()
    said = {key: known[key].supports(look) for key in method.paper.tasks if key in known}
    fitting = [known[key] for key, supports in said.items() if supports]
    if fitting:
        return min(fitting, key=lambda task: (not said[task.name].judges, _leaves_captions(task, look)))
    reasons = {key: supports.why for key, supports in said.items()}
    raise Declined(
        f"{method.id} does not fit {data.name}: " + "; ".join(f"{task}: {why}" for task, why in reasons.items()),
        "type: papertrial look DATA",
    )


def resolve_method(
    method: Method,
    prepared: Prepared,
    *,
    backbone: str | None = None,
    recipe: str = "base",
    settings: Mapping[str, Any] | None = None,
    techniques: Sequence[str] | str = (),
) -> Resolved:
    """Decide every setting of `method` on this data. `settings` named `backbone.x` go to the backbone; `techniques` come
    beside those of the recipe, or in their place where the name is the same.

    Raises PapertrialError for an unknown recipe, setting, technique or backbone, or a backbone where none is used, and
    Declined for a technique on a method that takes no gradient steps.
    """
    given, techniques = dict(settings or {}), several(techniques)
    inner = {name.removeprefix("backbone."): given.pop(name) for name in list(given) if name.startswith("backbone.")}
    module = method.module
    if recipe not in module.recipes:
        raise PapertrialError(f"{method.id} has no recipe {recipe!r}", did_you_mean(recipe, module.recipes))
    chosen = module.recipes[recipe]
    estimator = method.paper.kind == "estimator"
    unknown_settings(given, module.Config, *(() if estimator else (Optim,)))
    layer = f"recipe {recipe}" + (f" ({chosen.source})" if chosen.source else "")
    variant = {f"variant {method.variant}": method.overrides} if method.variant else {}
    config, config_settings = resolve(module.Config, prepared.facts, {layer: chosen.config, **variant, "you": given})
    optim, optim_settings = resolve(Optim, prepared.facts, {layer: chosen.optim, "you": given})
    if estimator and techniques:
        raise Declined(f"{method.id} takes no gradient steps, so {', '.join(techniques)} cannot change how it learns")
    used = {made.id: made for made in (registry.technique(text, layer) for text in chosen.techniques)}
    used |= {made.id: made for made in map(registry.technique, techniques)}
    shown = [] if estimator else optim_settings + [setting for made in used.values() for setting in made.settings]
    resolved = Resolved(method, config, optim, config_settings + shown, chosen, techniques=tuple(used.values()))
    if method.paper.kind != "objective":
        if backbone or inner:
            raise PapertrialError(
                f"{method.id} is an {method.paper.kind} and takes no backbone", "leave --backbone out"
            )
        return resolved
    under = registry.method(backbone or default_backbone(prepared.facts.kind))
    if under.paper.kind != "architecture":
        raise PapertrialError(
            f"{under.id} is an {under.paper.kind}, not an architecture, so it cannot be a backbone",
            "type: papertrial list",
        )
    unknown_settings(inner, under.module.Config)
    under_layers = {
        "recipe base": under.module.recipes["base"].config,
        **({f"variant {under.variant}": under.overrides} if under.variant else {}),
        "you": inner,
    }
    under_config, under_settings = resolve(under.module.Config, prepared.facts, under_layers)
    return replace(resolved, backbone=under, backbone_config=under_config, backbone_settings=tuple(under_settings))


def default_backbone(kind: str) -> str:
    """The backbone an objective gets when the user names none: what the kind of the data names, and is installed.

    Raises PapertrialError for a kind that nobody registered, or one that names no backbone.
    """
    known = registry.kind(kind)
    for name, extra in known.backbones.items():
        if not extra or registry.installed(extra):
            return name
    raise PapertrialError(
        f"nothing is known that an objective could learn with on {known.words or known.name}",
        "name an architecture with --backbone",
    )


def build_model(task: Task, resolved: Resolved, prepared: Prepared) -> Any:
    """The model of a resolved method, with fresh weights. Raises Declined when the task refuses the method."""
    backbone = resolved.backbone.module.build(resolved.backbone_config, prepared.facts) if resolved.backbone else None
    return task.build(resolved.method, resolved.config, resolved.optim, prepared, backbone)


def prepare(task: Task, data: Any, seed: int = 0, **options: Any) -> Prepared:
    """`task.prepare`, with the record of where the rows came from. options: `labels`, `fraction`, `size` as the task takes them."""
    chosen = {name: value for name, value in options.items() if value is not None}
    for name in chosen:
        if name not in signature(task.prepare).parameters:
            raise PapertrialError(f"the task {task.name} takes no {name}", f"leave --{name} out")
    prepared = task.prepare(data, seed=seed, **chosen)
    look = data.look()
    origin = {
        "name": data.name,
        "fingerprint": data.fingerprint,
        "source": data.source,
        "options": chosen,
        "facts": look.facts,
        "numbers": look.numbers,
    }
    return replace(prepared, origin=origin)


def fit_prepared(
    method: Method,
    task: Task,
    prepared: Prepared,
    *,
    out: Path | str,
    backbone: str | None = None,
    recipe: str = "base",
    settings: Mapping[str, Any] | None = None,
    techniques: Sequence[str] | str = (),
    budget: Budget | None = None,
    seed: int = 0,
    fresh: bool = False,
    progress: bool = True,
    shard: bool = False,
) -> Outcome:
    """Run one method to its end in the folder `out`; goes on where an earlier run of the same command stopped.

    Under `torchrun` all processes call this alike and train together; the main one alone owns the folder, judges and
    saves, and fits what is not trained by steps. Their number may differ from sitting to sitting.
    shard: split the weights over the processes (see `train.loop.train`); no part of what makes a run the same run.

    Raises Declined when the method does not suit the task, TrainingStopped on collapse or non-finite values,
    PapertrialError when `out` holds another run.
    """
    import torch

    resolved = resolve_method(
        method, prepared, backbone=backbone, recipe=recipe, settings=settings, techniques=techniques
    )
    budget = budget_of(resolved, task, budget)
    processes.join()
    run = Run(out)
    with ExitStack() as held:

        def begin() -> bool:
            held.enter_context(run.locked())
            held.enter_context(run.leaving_nothing_unless_begun())
            if fresh:
                run.clear()
            run.begin(_asked(task, resolved, prepared, recipe, budget, seed))
            return run.done

        done = processes.once(begin)
        _require_sight(run)
        if done:
            return Outcome.read(run.folder)
        licence = _tell_licence(resolved)
        torch.manual_seed(seed)
        model = build_model(task, resolved, prepared)
        rows = task.training(model, prepared)
        meter, stages = Meter(), {}
        if not isinstance(model, Estimator):
            meter, stages = _train(task, model, rows, prepared, resolved, budget, run, seed, progress, shard)

        def conclude() -> None:
            spent = _fit_estimator(model, rows, prepared, budget, run, seed) if isinstance(model, Estimator) else meter
            head = task.finish(model, prepared, seed)
            result = _judge(task, model, head, prepared, seed)
            result |= {"method": resolved.name, "cost": spent.to_json()}
            if stages:
                result["stages"] = stages
            per_example, sheets = result.pop("per_example"), result.pop("sheets")
            _save_weights(run, model, head)
            if hasattr(task, "keep"):
                task.keep(prepared.state, run.folder)
            for name, sheet in sheets.items():
                write_picture(run.path(name), sheet)
            write_with(run.path("per_example.npy"), lambda temporary: _save_array(temporary, per_example))
            write_json(run.path("card.json"), _card(task, resolved, prepared, model, budget, seed, licence, result))
            run.finish(result)

        processes.once(conclude)
    return Outcome.read(run.folder)


def fit(
    method: str,
    data: Any,
    *,
    task: str | None = None,
    target: str | None = None,
    out: Path | str | None = None,
    backbone: str | None = None,
    recipe: str = "base",
    settings: Mapping[str, Any] | None = None,
    techniques: Sequence[str] | str = (),
    budget: Budget | str | None = None,
    labels: int | None = None,
    size: int | None = None,
    seed: int = 0,
    fresh: bool = False,
    progress: bool = True,
    shard: bool = False,
) -> Any:
    """Open the data, train `method` on it and return the `Artifact`.

    data: anything `papertrial.open` takes.  out: the run's folder, by default `runs/<method>-<data>`.  techniques: such as
    `["agc:clip=0.02"]`.  labels: how many labels per class a method may see (image_representation).  size: side of the
    images in pixels.  shard, and several processes: see `fit_prepared`.
    """
    from papertrial.data import open as open_data
    from papertrial.use.artifact import Artifact

    chosen = registry.method(method)
    if chosen.paper.refusal:
        raise Declined(f"{chosen.id} cannot be trained: {chosen.paper.refusal}")

    def read() -> tuple[Any, Task, Prepared]:
        opened = open_data(data, target=target)
        on = task_for(chosen, opened, task)
        return opened, on, prepare(on, opened, seed, labels=labels, size=size)

    processes.join()
    opened, on, prepared = processes.first_here(read)
    outcome = fit_prepared(
        chosen,
        on,
        prepared,
        out=out or default_folder(chosen.slug, opened.name),
        backbone=backbone,
        recipe=recipe,
        settings=settings,
        techniques=techniques,
        budget=Budget.parse(budget) if isinstance(budget, str) else budget,
        seed=seed,
        fresh=fresh,
        progress=progress,
        shard=shard,
    )
    return Artifact.load(outcome.folder)


def default_folder(what: str, data_name: str) -> Path:
    """`runs/<what>-<data>`, with only letters a file system likes."""
    tail = "".join(
        letter if letter.isalnum() or letter in "-_" else "-" for letter in Path(data_name).name.partition(".")[0]
    )
    return Path("runs") / f"{what}-{tail or 'data'}"


def _require_sight(run: Run) -> None:
    """Raise PapertrialError on a process, of another machine, that does not see what the main one has just written."""
    deadline = time.monotonic() + 60  # network file systems may show a new file late
    while not run.path("config.json").exists():
        if time.monotonic() > deadline:
            raise PapertrialError(
                f"{run.folder} is not the same folder on all machines", "choose an --out on storage that they share"
            )
        time.sleep(0.1)


def budget_of(resolved: Resolved, task: Task, budget: Budget | None) -> Budget:
    """What a run may spend: what was asked for, else what its recipe names, else the task's."""
    if resolved.recipe.budget.steps == 0:  # nothing is trained, whatever the others may spend
        return resolved.recipe.budget
    return budget or (resolved.recipe.budget if resolved.recipe.budget != Budget() else task.budget)


def _asked(
    task: Task, resolved: Resolved, prepared: Prepared, recipe: str, budget: Budget, seed: int
) -> dict[str, Any]:
    """What makes two runs the same run."""
    return {
        "method": resolved.method.name,
        "task": f"{task.name} v{task.version}",
        "data": {name: prepared.origin.get(name) for name in ("name", "fingerprint", "options")},
        "backbone": resolved.backbone.name if resolved.backbone else None,
        "recipe": recipe,
        "config": asdict(resolved.config),
        "backbone_config": asdict(resolved.backbone_config) if resolved.backbone else None,
        "optim": asdict(resolved.optim),
        "techniques": {made.id: asdict(made.made) for made in resolved.techniques} or None,
        "budget": budget.to_json(),
        "seed": seed,
        "version": papertrial.__version__,
    }


def _tell_licence(resolved: Resolved) -> str:
    """Whose weights training starts from; those from elsewhere are named on the error stream before they are used."""
    network = resolved.backbone or resolved.method
    config = resolved.backbone_config if resolved.backbone else resolved.config
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


def _fit_estimator(model: Estimator, rows: Split, prepared: Prepared, budget: Budget, run: Run, seed: int) -> Meter:
    import torch

    from papertrial.train.device import PeakMemory
    from papertrial.train.energy import EnergyMeter

    peak = PeakMemory(torch.device("cpu"))
    with EnergyMeter() as energy:
        meter: Meter = model.fit(rows, prepared.valid, prepared.facts, budget, seed, run)
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
    seed: int,
    progress: bool,
    shard: bool,
) -> tuple[Meter, dict[str, Meter]]:
    """What it cost, and each of its stages where there are several."""
    from papertrial.train.loop import train
    from papertrial.train.stages import train_stages

    techniques = [made.made for made in resolved.techniques]
    how: dict[str, Any] = {"seed": seed, "progress": progress, "techniques": techniques, "sharded": shard}
    if hasattr(model, "stages"):
        return train_stages(model, rows, resolved.optim, budget, run, **how)
    early = validation(task, model, prepared, resolved.optim)
    return train(model, rows, resolved.optim, budget, run, validate=early, **how), {}


def validation(task: Task, model: Any, prepared: Prepared, optim: Optim) -> Callable[[], float] | None:
    """How `model` is validated while it is trained, higher being better; None where it is not."""
    metric, higher = task.primary_for(prepared.state)

    def validate() -> float:
        value = task.score(task.outputs(model, {}, prepared.valid), prepared.valid, prepared.state).metrics[metric]
        return value if higher else -value

    return validate if optim.patience and prepared.valid.examples else None


def _judge(task: Task, model: Any, head: dict[str, np.ndarray], prepared: Prepared, seed: int) -> dict[str, Any]:
    metric, higher = task.primary_for(prepared.state)
    valid = float("nan")
    if prepared.valid.examples:
        valid = task.score(task.outputs(model, head, prepared.valid), prepared.valid, prepared.state).metrics[metric]
    result: dict[str, Any] = {
        "valid": valid if higher else -valid,
        "metrics": {},
        "intervals": {},
        "extra": {},
        "per_example": np.zeros(0),
        "sheets": {},
    }
    if prepared.test.examples:
        outputs = task.outputs(model, head, prepared.test)
        scores = task.score(outputs, prepared.test, prepared.state)
        result |= {
            "metrics": scores.metrics,
            "intervals": scores.intervals,
            "answers": _answers(outputs, prepared.test, prepared.state),
            "per_example": np.asarray(scores.per_example, dtype=np.float64),
            "sheets": task.sheets(outputs, prepared.test) if hasattr(task, "sheets") else {},
        }
        result["extra"] = task.extra_scores(model, prepared, seed)
    return result


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


def _card(
    task: Task,
    resolved: Resolved,
    prepared: Prepared,
    model: Any,
    budget: Budget,
    seed: int,
    licence: str,
    result: dict[str, Any],
) -> dict[str, Any]:
    """The artifact's card: all that is needed to rebuild the model and to judge where it came from."""
    paper = resolved.method.paper
    cautions = [made.made.caution(resolved.optim) for made in resolved.techniques if hasattr(made.made, "caution")]
    if resolved.optim.precision == "bf16":
        from papertrial.train.device import emulates_bf16

        if emulates_bf16():
            cautions.append("this CPU has no instructions for bfloat16: --set precision=fp32 is faster")
    return {
        "format": CARD_VERSION,
        "method": {"name": resolved.method.name, "title": paper.title, "arxiv": paper.arxiv, "caveats": paper.caveats},
        "backbone": resolved.backbone.name if resolved.backbone else None,
        "task": {"name": task.name, "version": task.version},
        "data": prepared.origin,
        "facts": prepared.facts,
        "state": prepared.state,
        "notes": [*prepared.notes, *filter(None, cautions)],
        "recipe": resolved.recipe.name,
        "config": asdict(resolved.config),
        "backbone_config": asdict(resolved.backbone_config) if resolved.backbone else None,
        "optim": asdict(resolved.optim),
        "techniques": {made.id: asdict(made.made) for made in resolved.techniques},
        "settings": [asdict(setting) for setting in resolved.settings],
        "backbone_settings": [asdict(setting) for setting in resolved.backbone_settings],
        "budget": budget,
        "seed": seed,
        "weights": None
        if isinstance(model, Estimator)
        else {"file": WEIGHTS, "parameters": sum(p.numel() for p in model.parameters())},
        "licence": {
            "weights": f"trained here from {licence}",
            "code": "Apache-2.0",
            "data": "not known to papertrial: what it asks holds for these weights too",
        },
        "environment": environment(),
        **{
            name: result[name]
            for name in ("valid", "metrics", "intervals", "extra", "cost", "stages")
            if name in result
        },
    }


def _save_weights(run: Run, model: Any, head: Mapping[str, np.ndarray]) -> None:
    """`model.safetensors` with the model and the probe, or the folder `estimator` in the library's own format."""
    from safetensors.torch import save_file

    if isinstance(model, Estimator):
        target, temporary = run.path(ESTIMATOR), run.path(f".{ESTIMATOR}.tmp")
        with disk_errors(target):
            for folder in (temporary, target):
                shutil.rmtree(folder, ignore_errors=True)
            temporary.mkdir()
            try:
                model.save(temporary)
                temporary.rename(target)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return
    import torch

    tensors = {
        f"model.{name}": tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()
    }
    tensors |= {f"head.{name}": torch.from_numpy(np.ascontiguousarray(array)) for name, array in head.items()}
    write_with(run.path(WEIGHTS), lambda temporary: save_file(tensors, str(temporary)))


def _save_array(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as stream:
        np.save(stream, array, allow_pickle=False)
