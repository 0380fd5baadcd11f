"""A system is trained stage by stage: each has its share of the budget, its folder, its progress and its checkpoint.

    runs/a/stages/1-dvae/     plan.json  metrics.jsonl  checkpoint.safetensors
    runs/a/stages/2-prior/

A stage that ended keeps its checkpoint until the whole run is done, so a run killed at any moment puts the ended stages
back as they were, and goes on in the one it was in.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from papertrial.core.budget import Budget, Meter
from papertrial.core.errors import Declined, PapertrialError
from papertrial.core.recipe import Optim
from papertrial.core.run import Run
from papertrial.core.task import Split, Stage
from papertrial.train import processes
from papertrial.train.loop import train
from papertrial.train.technique import reshapes


def stages_of(model: nn.Module, optim: Optim) -> list[Stage]:
    """The stages of a system, checked. Raises Declined for early stopping, which would need the whole system, and
    ValueError for stages that are not as `Stage` asks."""
    stages = list(model.stages())
    if not stages or len({stage.name for stage in stages}) < len(stages):
        raise ValueError(f"the stages of a system need names of their own, and are {[stage.name for stage in stages]}")
    if any(stage.share <= 0 for stage in stages) or not math.isclose(sum(stage.share for stage in stages), 1.0):
        raise ValueError(f"the shares of the stages are {[stage.share for stage in stages]}, which do not add up to 1")
    if optim.patience:
        raise Declined(
            "a system of several stages is judged when all are trained, so none of them can stop early",
            "leave patience out",
        )
    return stages


def optim_of(stage: Stage, optim: Optim) -> Optim:
    """What the run was asked for, with what is particular to the stage."""
    return replace(optim, **stage.optim)


def rows_of(stage: Stage, split: Split) -> Any:
    """What the stage learns from, rows or a source of them; those before it are trained by then."""
    return split if stage.rows is None else stage.rows(split)


def train_stages(
    model: nn.Module,
    split: Split,
    optim: Optim,
    budget: Budget,
    run: Run,
    *,
    seed: int,
    progress: bool = True,
    techniques: Sequence[Any] = (),
    sharded: bool = False,
) -> tuple[Meter, dict[str, Meter]]:
    """Train all stages of `model` in place, in order, and say what they spent together and each.

    The arguments are those of `train.loop.train`; `optim` holds for all stages but for what a stage says itself.
    When `run` holds checkpoints the training goes on from them.  Raises what `train` raises, with the stage's name.
    """
    stages = stages_of(model, optim)
    if any(reshapes(technique) for technique in techniques):
        raise Declined(
            "a technique that adds parts to a network cannot train a system, which has several", "choose another"
        )
    spent: dict[str, Meter] = {}
    before = 0.0
    for place, stage in enumerate(stages, 1):
        part = budget.between(before, before + stage.share)
        before += stage.share
        own = Run(run.stage(place, stage.name))
        processes.once(partial(run.make_stage, place, stage.name))
        try:
            begun = time.monotonic()
            rows = rows_of(stage, split)
            making = time.monotonic() - begun  # what earlier stages answer is part of the training
            if part.seconds is not None:
                part = replace(part, seconds=max(0.1 * part.seconds, part.seconds - making))
            meter = train(
                stage.model, rows, optim_of(stage, optim), part, own, seed=seed, progress=progress,
                techniques=techniques, sharded=sharded, name=f"{stage.name} ({place} of {len(stages)})",
            )  # fmt: skip
            spent[stage.name] = replace(meter, seconds=meter.seconds + making)
        except PapertrialError as error:
            raise type(error)(f"stage {stage.name}: {error.problem}", error.fix) from error
    model.eval()
    return Meter.total(spent.values()), spent
