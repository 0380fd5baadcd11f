"""The laboratory of the claims: data that is at hand, a model that is trained and scored, and how far two answers differ.

A claim says what it trains on what, and for how long; how a method is resolved, built, trained in a folder that is thrown
away, finished and scored is the same for all of them. What has loops of its own (systems that are watched while they learn,
programs, boosted trees) keeps them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from papertrial.core import registry
from papertrial.core.budget import Budget
from papertrial.core.errors import Declined
from papertrial.core.facts import Facts
from papertrial.core.offers import offers
from papertrial.core.recipe import Optim, resolve
from papertrial.core.run import Run
from papertrial.core.task import Prepared, Split, Task
from papertrial.data import open as open_data
from papertrial.data.toy import at_hand
from papertrial.train.loop import train
from papertrial.train.stages import train_stages


def data(*names: str) -> Any:
    """The first that is here, opened: `images/mnist` lies below $PAPERTRIAL_DATA, `digits` is built in (no slash).

    Raises Declined where none is.
    """
    for name in names[:-1]:
        try:
            return open_data(at_hand(name) if "/" in name else name)
        except Declined:
            continue
    return open_data(at_hand(names[-1]) if "/" in names[-1] else names[-1])


@dataclass(frozen=True)
class Trial:
    """A trained model. cpu_seconds: of the training alone."""

    model: Any
    task: Task
    prepared: Prepared
    seed: int
    cpu_seconds: float

    @cached_property
    def head(self) -> dict[str, np.ndarray]:
        """What the task adds to the model to answer, such as a probe."""
        return self.task.finish(self.model, self.prepared, self.seed)

    def scores(self, rows: Split) -> dict[str, float]:
        """Every metric on `rows`, which are prepared as the test rows are."""
        outputs = self.task.outputs(self.model, self.head, rows)
        return self.task.score(outputs, rows, self.prepared.state).metrics

    @cached_property
    def metrics(self) -> dict[str, float]:
        """On the test rows."""
        return self.scores(self.prepared.test)


def trial(
    method: str,
    task: str,
    on: Any,
    seed: int,
    *,
    steps: int = 0,
    samples: int = 0,
    recipe: str = "base",
    config: Mapping[str, Any] | None = None,
    optim: Mapping[str, Any] | None = None,
    backbone: str | Callable[[Facts], nn.Module] | None = None,
    techniques: Sequence[Any] = (),
    prepare: Mapping[str, Any] | None = None,
) -> Trial:
    """Train `method` (id or id:variant) for so many steps, or for so many samples; for neither, it has fresh weights.

    on: data, or what a task has prepared.  recipe: what the changes in `config` and `optim` go on top of; none when empty.
    backbone: of an objective, with the settings of its base recipe, or what makes it from the facts of the data.
    prepare: options of `task.prepare`.  Raises what training raises.
    """
    at, chosen = registry.task(task), registry.method(method)
    prepared = on if isinstance(on, Prepared) else at.prepare(on, seed, **(prepare or {}))
    facts, asked = prepared.facts, chosen.module.recipes[recipe] if recipe else None
    settings, _ = resolve(
        chosen.module.Config, facts, {recipe: asked.config if asked else {}, "variant": chosen.overrides, "claim": config or {}}
    )  # fmt: skip
    how, _ = resolve(Optim, facts, {recipe: asked.optim if asked else {}, "claim": optim or {}})
    torch.manual_seed(seed)
    under = _backbone(backbone, facts) if isinstance(backbone, str) else backbone(facts) if backbone else None
    model = at.build(chosen, settings, how, prepared, under)
    steps = steps or samples // how.batch
    spent = learn(model, at.training(model, prepared), how, steps, seed, techniques=techniques) if steps else 0.0
    return Trial(model, at, prepared, seed, spent)


def _backbone(name: str, facts: Facts) -> nn.Module:
    under = registry.method(name)
    layers = {"base": under.module.recipes["base"].config, "variant": under.overrides}
    made: nn.Module = under.module.build(resolve(under.module.Config, facts, layers)[0], facts)
    return made


def learn(
    model: Any,
    rows: Split,
    optim: Optim,
    steps: int,
    seed: int,
    *,
    techniques: Sequence[Any] = (),
    device: str | None = None,
) -> float:
    """Train `model` in place, stage by stage where it has stages, in a folder that is thrown away; the CPU seconds it took."""
    begun = time.process_time()
    with tempfile.TemporaryDirectory(prefix="papertrial-claim-") as folder:
        run, budget = Run(folder), Budget(steps=steps)
        words: dict[str, Any] = {"seed": seed, "progress": False, "techniques": techniques}
        if offers(model).stages:
            train_stages(model, rows, optim, budget, run, **words)
        else:
            train(model, rows, optim, budget, run, device=device, **words)
    return time.process_time() - begun


def gap(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference over the largest value."""
    return float((ours - theirs).detach().abs().max() / theirs.detach().abs().max())


def sizes(
    published: Mapping[str, float],
    parts: Callable[[str], Iterable[nn.Module]],
    *,
    unit: float = 1e6,
    rounded: Callable[[float], float] = round,
) -> tuple[bool, dict[str, float]]:
    """Whether models have as many weights as published, and how many they have, by name, in `unit` weights.

    parts: makes the modules whose weights are counted; on the meta device, where they take no memory.  rounded: to the
    digits that were published.
    """
    measured = {}
    for name in published:
        with torch.device("meta"):
            modules = list(parts(name))
        measured[name] = sum(weight.numel() for module in modules for weight in module.parameters()) / unit
    return all(rounded(measured[name]) == count for name, count in published.items()), measured
