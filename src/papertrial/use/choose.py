"""What is to be trained on what: the task that fits the data, the rows it makes, the method with every setting decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from inspect import signature
from typing import Any

from papertrial.core import registry
from papertrial.core.budget import Budget
from papertrial.core.errors import DataError, Declined, PapertrialError, did_you_mean
from papertrial.core.offers import task_offers
from papertrial.core.ranges import require_numbers
from papertrial.core.recipe import Optim, Recipe, known_settings, resolve, unknown_settings
from papertrial.core.registry import Method, Technique
from papertrial.core.request import Request
from papertrial.core.task import Prepared, Task
from papertrial.use.card import Resolved
from papertrial.use.folds import parted

#: as `--backbone` and `--host`
PRETRAINED = "pretrained"


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
        unlabelled = task_offers(task).judged_without_labels
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
    return task_offers(task).captions != bool(look.numbers.get("captions"))


def task_for(method: Method, data: Any, name: str | None = None) -> Task:
    """The task named by the user, or the first of the paper's own tasks that fits the data and can judge on it."""
    if name is not None:
        return choose_task(data, name)
    if method.paper.kind == "technique" and not method.paper.tasks:
        return choose_task(data)
    look = data.look()
    known = registry.tasks()
    said = {key: known[key].supports(look) for key in method.paper.tasks if key in known}
    fitting = [known[key] for key, supports in said.items() if supports]
    if fitting:
        return min(fitting, key=lambda task: (not said[task.name].judges, _leaves_captions(task, look)))
    reasons = {key: said[key].why if key in said else "papertrial has no such task" for key in method.paper.tasks}
    told = "; ".join(f"{task}: {why}" for task, why in reasons.items()) or "it names no task it is for"
    raise Declined(
        f"{method.id} does not fit {data.name}: {told}",
        "type: papertrial look DATA",
    )


def check_request(method: Method, request: Request, **numbers: float | None) -> None:
    """Raise PapertrialError for what no data could make right, before any are opened: settings and techniques that there are not,
    and values out of range. numbers: asked for beside the request, see `core.ranges.NUMBERS`."""
    require_numbers(**numbers)
    own, inner, at_host = request.own(), request.below("backbone"), request.below("host")
    for text in request.techniques:
        registry.technique(text)
    trained = () if method.paper.kind == "estimator" else (Optim,)
    known_settings(own, method.module.Config, *trained)
    for name, given, part, more in (
        (request.backbone, inner, "backbone.", ()),
        (request.host, at_host, "host.", (Optim,)),
    ):
        if name is not None and name != PRETRAINED and given:
            known_settings(given, registry.method(name).module.Config, *more, part=part)


def resolve_method(
    method: Method, prepared: Prepared, request: Request | None = None, *, task: Task | None = None, **asked: Any
) -> Resolved:
    """Decide every setting of `method` on this data. asked: fields of the request, on top of `request`; its `techniques` come
    beside those of the recipe, or in their place where the name is the same.

    task: what it is trained for, by which a technique finds its host.  Raises PapertrialError for an unknown recipe, setting,
    technique, host or backbone, or one where none is used, and Declined for a technique on a method that takes no gradient steps.
    """
    request = (request or Request()).but(**asked)
    if method.paper.kind == "technique":
        return _on_host(method, prepared, request, task)
    request.refuse("host", f"{method.id} is no technique and is trained as it is")
    given = {name: value for name, value in request.settings.items() if not name.startswith("backbone.")}
    inner = request.below("backbone")
    module = method.module
    chosen = _recipe(method, request.recipe)
    estimator = method.paper.kind == "estimator"
    unknown_settings(given, module.Config, *(() if estimator else (Optim,)))
    layer, variant = _layer(chosen), _variant(method)
    config, config_settings = resolve(module.Config, prepared.facts, {layer: chosen.config, **variant, "you": given})
    optim, optim_settings = resolve(Optim, prepared.facts, {layer: chosen.optim, "you": given})
    if estimator and request.techniques:
        raise Declined(
            f"{method.id} takes no gradient steps, so {', '.join(request.techniques)} cannot change how it learns"
        )
    used = {made.id: made for made in (registry.technique(text, layer) for text in chosen.techniques)}
    used |= {made.id: made for made in map(registry.technique, request.techniques)}
    shown = [] if estimator else optim_settings + [setting for made in used.values() for setting in made.settings]
    resolved = Resolved(method, config, optim, config_settings + shown, chosen, techniques=tuple(used.values()))
    if method.paper.kind != "objective":
        if request.backbone or inner:
            raise PapertrialError(
                f"{method.id} is an {method.paper.kind} and takes no backbone", "leave --backbone out"
            )
        return resolved
    under = network_named(request.backbone or default_backbone(prepared.facts.kind), prepared.facts.kind)
    if under.paper.kind != "architecture":
        raise PapertrialError(
            f"{under.id} is an {under.paper.kind}, not an architecture, so it cannot be a backbone",
            "type: papertrial list",
        )
    unknown_settings(inner, under.module.Config)
    under_layers = {"recipe base": under.module.recipes["base"].config, **_variant(under), "you": inner}
    under_config, under_settings = resolve(under.module.Config, prepared.facts, under_layers, "backbone.")
    return replace(resolved, backbone=under, backbone_config=under_config, backbone_settings=tuple(under_settings))


def _on_host(method: Method, prepared: Prepared, request: Request, task: Task | None) -> Resolved:
    """A technique with the model it is tried on. Settings are the technique's by name, else of the training; those of the host,
    its training among them, are called `host.x`."""
    host = host_of(method, task, request.host)
    chosen = _recipe(method, request.recipe)
    config_class, own, at_host = method.module.Config, request.own(), request.below("host")
    unknown_settings(own, config_class, Optim)
    layer = _layer(chosen)
    config, settings = resolve(config_class, prepared.facts, {layer: chosen.config, **_variant(method), "you": own})
    under = resolve_method(host, prepared, for_host(request, host))
    fields = {setting.name for setting in settings}
    yours = {name: value for name, value in own.items() if name not in fields} | at_host
    layers = {f"{_layer(under.recipe)} of {host.id}": under.recipe.optim, layer: chosen.optim, "you": yours}
    optim, optim_settings = resolve(Optim, prepared.facts, layers)
    used = {made.id: made for made in under.techniques}
    used |= {made.id: made for made in (registry.technique(text, layer) for text in chosen.techniques)}
    used[method.id] = Technique(method.id, config, tuple(settings))
    names = {setting.name for setting in optim_settings}
    shown = [
        replace(row, name=f"host.{row.name}") for row in under.settings if row.name not in names and "." not in row.name
    ]
    beside = [row for made in used.values() if made.id != method.id for row in made.settings]
    return Resolved(
        method, config, optim, [*settings, *optim_settings, *shown, *beside], chosen, under.backbone, under.backbone_config,
        under.backbone_settings, tuple(used.values()), replace(under, optim=optim),
    )  # fmt: skip


def for_host(request: Request, host: Method) -> Request:
    """The request for a technique as one for its host alone. Hosts that lack the recipe asked for take their `base`."""
    inner = {f"backbone.{name}": value for name, value in request.below("backbone").items()}
    recipe = request.recipe if request.recipe in host.module.recipes else "base"
    return request.but(host=None, recipe=recipe, settings=request.below("host") | inner)


def host_of(method: Method, task: Task | None, name: str | None = None) -> Method:
    """The model that a technique is tried on: the one named, what its file suggests for the task (`hosts`), the task's first
    reference that is an architecture, or the backbone of its data.

    Raises Declined for one that takes no gradient steps, and where there is none.
    """
    if name is not None:
        host = network_named(name, task.kind if task else "")
        if host.paper.kind in ("estimator", "technique") or host.paper.refusal:
            why = host.paper.refusal or f"it is an {host.paper.kind}".replace("an technique", "a technique")
            raise Declined(
                f"{host.id} cannot be the host of {method.id}: {why}", "name an architecture or an objective"
            )
        return host
    if task is None:
        raise ValueError(f"the host of {method.id} depends on the task")
    suggested = getattr(method.module, "hosts", {}).get(task.name)
    if suggested is not None:
        return registry.method(suggested)
    for candidate in (*task.references, *registry.kind(task.kind).backbones):
        paper = registry.paper(candidate)
        if paper.kind == "architecture" and task.name in paper.tasks and registry.missing_package(paper) is None:
            return registry.method(candidate)
    raise Declined(
        f"{method.id} changes how a model is trained, and the task {task.name} suggests none", "name one with --host"
    )


def _recipe(method: Method, name: str) -> Recipe:
    recipes: Mapping[str, Recipe] = method.module.recipes
    if name not in recipes:
        raise PapertrialError(f"{method.id} has no recipe {name!r}", did_you_mean(name, recipes))
    return recipes[name]


def _layer(recipe: Recipe) -> str:
    return f"recipe {recipe.name}" + (f" ({recipe.source})" if recipe.source else "")


def _variant(method: Method) -> dict[str, dict[str, Any]]:
    return {f"variant {method.variant}": method.overrides} if method.variant else {}


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


def network_named(name: str, kind: str) -> Method:
    """The method called `name`; `pretrained` stands for the architecture with weights from elsewhere for this kind of data.

    Raises PapertrialError for an unknown name, and where nothing is known for the kind.
    """
    if name != PRETRAINED or not kind:
        return registry.method(name)
    known = registry.kind(kind)
    if not known.pretrained:
        raise PapertrialError(
            f"no pretrained network is known for {known.words or known.name}",
            "name an architecture, type: papertrial list",
        )
    return registry.method(known.pretrained)


def prepare(task: Task, data: Any, seed: int = 0, **options: Any) -> Prepared:
    """`task.prepare`, with the record of where the rows came from. options: `labels`, `fraction`, `size`, `metric` as the task
    takes them; `fold` (repeat, which, of how many) is the test, or nothing is with `final`."""
    fold, final = options.pop("fold", None), bool(options.pop("final", False))
    chosen = {name: value for name, value in options.items() if value is not None}
    for name in chosen:
        if name not in signature(task.prepare).parameters:
            raise PapertrialError(f"the task {task.name} takes no {name}", f"leave --{name} out")
    look = data.look()
    data, said = parted(task, data, fold, final)
    prepared = task.prepare(data, seed=seed, **chosen)
    protocol = {"fold": fold, "final": final, "group": data.group or data.asked_group, "time": data.time}
    origin = {
        "name": data.name,
        "fingerprint": data.fingerprint,
        "source": data.source,
        "options": chosen | {name: value for name, value in protocol.items() if value},
        "facts": look.facts,
        "numbers": look.numbers,
    }
    notes = dict.fromkeys([*data.notes, *said, *prepared.notes])
    state = prepared.state
    if "class_names" in state and (own := data.own_labels()):
        state = {**state, "labels": [own[name] for name in state["class_names"]]}
    return replace(prepared, notes=tuple(notes), origin=origin, state=state)


def budget_of(resolved: Resolved, task: Task, budget: Budget | None) -> Budget:
    """What a run may spend: what was asked for, else what its recipe names, else the task's."""
    if resolved.recipe.budget.steps == 0:  # nothing is trained, whatever the others may spend
        return resolved.recipe.budget
    return budget or (resolved.recipe.budget if resolved.recipe.budget != Budget() else task.budget)
