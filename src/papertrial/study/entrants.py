"""Who takes part in a comparison, how each is run, and who does not and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from papertrial.core import registry
from papertrial.core.budget import Meter
from papertrial.core.errors import Declined, PapertrialError, missing_extra
from papertrial.core.paper import Paper
from papertrial.core.registry import Method
from papertrial.core.request import Request
from papertrial.core.wording import several
from papertrial.use.folds import Fold

if TYPE_CHECKING:
    from papertrial.core.task import Task
    from papertrial.use.fit import Outcome


@dataclass
class Entrant:
    """A method that takes part, with how it is run but for the seed, its finished runs by seed and fold, and what came out in
    the order of the seeds.

    asked: named by the user as a method.  is_host: runs without a technique what that one is tried on.
    """

    method: Method
    asked: bool
    request: Request
    is_host: bool = False
    runs: dict[tuple[int, Fold | None], Outcome] = field(default_factory=dict)
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


def pooled(parts: Sequence[tuple[Outcome, np.ndarray]]) -> Outcome:
    """The outcomes of the folds of one seed as one. With each outcome, the places int64 of its rows among all that are tested.

    Metrics are means over rows; the cost is that of one run.
    """
    outcomes, places = zip(*parts, strict=True)
    weights = np.array([len(place) for place in places], dtype=np.float64)
    whole = {name: np.empty(int(weights.sum())) for name in ("", *outcomes[0].beside)}
    for outcome, place in parts:
        for name, values in whole.items():
            values[place] = outcome.beside[name] if name else outcome.per_example
    per_example = whole.pop("")
    floors = {
        name: float(np.average([one.floors[name] for one in outcomes], weights=weights))
        for name in outcomes[0].floors
        if all(name in one.floors for one in outcomes)
    }
    names = set.intersection(*(set(outcome.metrics) for outcome in outcomes))
    metrics = {
        name: float(np.average([one.metrics[name] for one in outcomes], weights=weights)) for name in sorted(names)
    }
    total = Meter.total(outcome.meter for outcome in outcomes)
    count = len(outcomes)
    meter = replace(
        total, steps=round(total.steps / count), samples=round(total.samples / count), seconds=total.seconds / count,
        trials=round(total.trials / count), kwh=None if total.kwh is None else total.kwh / count,
    )  # fmt: skip
    valid = float(np.mean([outcome.valid for outcome in outcomes]))
    return replace(
        outcomes[0], metrics=metrics, intervals={}, extra={}, valid=valid, per_example=per_example, meter=meter,
        floors=floors, beside=whole,
    )  # fmt: skip


def entrants_of(
    methods: Sequence[str], task: Task, request: Request, against: str | None, baselines: Sequence[str] | str | None
) -> tuple[list[Entrant], dict[str, str], list[str], str | None]:
    """Who takes part, who does not and why, the names of the baselines, and the one that verdicts are measured against where
    that is known beforehand. Raises PapertrialError for unknown names."""
    if baselines is None:
        listed = [*task.references, *task.floors]
    elif baselines == "none":
        listed = []
    else:
        listed = several(baselines)
    if against is not None and against not in listed:
        listed = [against, *listed]
    hosts, unhosted = _hosts(methods, task, request)
    if against is None and len(hosts) == 1 and not hosts.keys() & {*methods} and len(unhosted) == 0:
        against = next(iter(hosts)) if all(registry.paper(name).kind == "technique" for name in methods) else None
    listed = [*hosts, *(name for name in listed if name not in hosts)]
    if not listed:
        raise PapertrialError(
            "a verdict needs something to compare with, and all baselines were left out",
            f"add --against, for example --against {(*task.references, *methods)[0]}",
        )
    listed = list(dict.fromkeys(listed))
    entrants, declined = [], dict(unhosted)
    asked = [name for name in dict.fromkeys(methods) if name != against and name not in unhosted]
    for name in [*asked, *(name for name in listed if name not in asked)]:
        paper = registry.paper(name)
        reason = _refusal(paper, task)
        if reason and name == against:
            raise Declined(f"{name} cannot be compared against: {reason}")
        if reason:
            declined[name] = reason
            continue
        method = registry.method(name)
        own = _own(request, method, name in asked)
        entrants.append(Entrant(method, name in asked, own if name in asked else hosts.get(name, own), name in hosts))
    return entrants, declined, listed, against


def require_settings(methods: Sequence[str], request: Request) -> None:
    """Raise PapertrialError, before any data are opened, for settings that a method named by the user does not have or that are out
    of range."""
    from papertrial.use.choose import check_request

    for name in methods:
        paper = registry.paper(name)
        if not paper.refusal and registry.missing_package(paper) is None:
            method = registry.method(name)
            check_request(method, _own(request, method, True))


def _own(request: Request, method: Method, asked: bool) -> Request:
    """How a method is run: settings and techniques are for those that were asked for. Baselines that lack the recipe asked for
    take their `base`."""
    host = request.host if method.paper.kind == "technique" else None
    backbone = request.backbone if method.paper.kind == "objective" or host else None
    if asked:
        return request.but(host=host, backbone=backbone)
    return request.but(host=None, backbone=backbone, recipe=_recipe(method, request.recipe), settings={}, techniques=())


def _hosts(methods: Sequence[str], task: Task, request: Request) -> tuple[dict[str, Request], dict[str, str]]:
    """What the techniques among `methods` are tried on, by name, with how it is run without them; and those without a host."""
    from papertrial.use.choose import for_host, host_of

    hosts: dict[str, Request] = {}
    unhosted: dict[str, str] = {}
    for name in dict.fromkeys(methods):
        if registry.paper(name).kind != "technique" or _refusal(registry.paper(name), task):
            continue
        try:
            host = host_of(registry.method(name), task, request.host)
        except Declined as refusal:
            unhosted[name] = str(refusal)
            continue
        inner = for_host(request, host)
        hosts[host.name] = inner.but(backbone=request.backbone if host.paper.kind == "objective" else None)
    return hosts, unhosted


def _refusal(paper: Paper, task: Task) -> str:
    missing = registry.missing_package(paper)
    if missing is not None:
        return str(missing_extra(paper.id, *missing))
    if paper.refusal:
        return paper.refusal
    vouched = {name.partition(":")[0] for name in (*task.references, *task.floors)}  # by the task, whoever wrote it
    if not paper.takes(task.name) and paper.id not in vouched:
        return f"it is for {' or '.join(paper.tasks) or 'no task here'}, this is {task.name}"
    return ""


def require_methods(entrants: list[Entrant], declined: dict[str, str]) -> None:
    if not any(entrant.asked for entrant in entrants):
        raise Declined("none of the methods can be compared here: " + reasons(declined))


def reasons(declined: dict[str, str]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in declined.items())


def _recipe(method: Method, recipe: str) -> str:
    return recipe if recipe in method.module.recipes else "base"


@dataclass(frozen=True)
class Planned:
    """A method as a comparison would run it. asked: named by the user, whose settings are for those alone."""

    method: Method
    request: Request
    asked: bool
    reference: bool


def plan(methods: Sequence[str], task: Task, request: Request) -> list[Planned]:
    """The methods that a comparison of `methods` would run. Raises as `compare` does."""
    entrants, declined, *_ = entrants_of(methods, task, request, None, None)
    require_methods(entrants, declined)
    return [Planned(one.method, one.request, one.asked, one.name in task.references) for one in entrants]


def idle(entrant: Entrant) -> bool:
    """Whether nothing is trained, as with untrained backbones, so that a run takes no time to speak of."""
    found = entrant.method.module.recipes.get(entrant.request.recipe)
    return found is not None and found.budget.steps == 0
