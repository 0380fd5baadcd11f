"""What the trends of guided diffusion are measured on: one training a seed, drawn from at several scales of guidance.

The data are MNIST at 16 x 16 pixels where PAPERTRIAL_DATA holds it, and scikit-learn's digits at 8 x 8 elsewhere and at the
smallest scale. All is kept within the process, so that claims share it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from papertrial.claims._lab import data, trial
from papertrial.core import registry
from papertrial.core.errors import Declined
from papertrial.core.task import Prepared
from papertrial.papers.guided_diffusion.walk import shrunk
from papertrial.tasks._image_quality import Drawn, Measures, draw, picture_scores

#: of guidance
SCALES = (0, 1, 2, 5, 10)
#: what `curve` measures at each
METRICS = ("frechet", "precision", "recall", "class_accuracy")


@dataclass(frozen=True)
class Effort:
    """steps: of both stages together.  share: of the classifier, whose steps are cheaper than those of the U-Net.  pictures:
    drawn at each scale.  walk: steps of a drawing."""

    recipe: str
    steps: int
    share: float
    batch: int
    pictures: int
    walk: int


EFFORT = {"tiny": Effort("tiny", 200, 0.5, 32, 64, 10), "base": Effort("base", 2000, 0.4, 32, 400, 25)}


@cache
def prepared(scale: str, seed: int) -> Prepared:
    task = registry.task("image_generation")
    if scale != "tiny":
        try:
            return task.prepare(data("images/mnist"), seed, size=16)
        except Declined:
            pass
    return task.prepare(data("digits"), seed)


def learned(name: str, scale: str, seed: int, steps: int) -> tuple[Any, float]:
    """A method after so many steps, and the CPU seconds they took."""
    effort = EFFORT[scale]
    # the share of a budget in steps; by itself it is a share of the seconds
    own = {"classifier_share": effort.share} if name == "guided_diffusion" else {}
    found = trial(
        name, "image_generation", prepared(scale, seed), seed, steps=steps, recipe=effort.recipe, config=own,
        optim={"batch": effort.batch},
    )  # fmt: skip
    return found.model, found.cpu_seconds


@cache
def guided(scale: str, seed: int) -> tuple[Any, float]:
    return learned("guided_diffusion", scale, seed, EFFORT[scale].steps)


@cache
def alone(scale: str, seed: int, low: bool) -> Any:
    """A U-Net, or one of half the side and an upsampler, after as many steps in all."""
    rows, effort = prepared(scale, seed), EFFORT[scale]
    config = {"classifier_share": 0.01, "low": max(rows.facts.height // 2, 4) if low else 0}
    return trial(
        "guided_diffusion", "image_generation", rows, seed, steps=effort.steps // 2, recipe=effort.recipe, config=config,
        optim={"batch": effort.batch},
    ).model  # fmt: skip


def distance(scale: str, seed: int, low: bool) -> float:
    """Frechet distance of what it draws, without guidance, from the test rows."""
    rows, effort = prepared(scale, seed), EFFORT[scale]
    made = draw(alone(scale, seed, low), range(effort.pictures // 2), guidance=0.0, steps=effort.walk)
    real = np.asarray(rows.test["image"])
    return float(picture_scores(Drawn.of(made), real, Measures.find(rows.state["measures"])).metrics["frechet"])


def kept(scale: str, seed: int) -> dict[str, float]:
    """Test images made smaller, enlarged by the upsampler and made smaller again: how far they are, in levels of 255, from
    what they were, and from what the next image was."""
    model, effort = alone(scale, seed, True), EFFORT[scale]
    real = torch.from_numpy(np.array(prepared(scale, seed).test["image"][: effort.pictures // 8])).permute(0, 3, 1, 2)
    size = model.first[1:]
    low = shrunk(real.float(), size).round()
    again = shrunk(model.upsample(range(len(low)), low.to(torch.uint8), steps=effort.walk).float(), size)
    return {"own": float((again - low).abs().mean()), "other": float((again - low.roll(1, 0)).abs().mean())}


@cache
def rival(scale: str, seed: int) -> tuple[Any, float]:
    """The convolutional GAN, after as many CPU seconds as both stages took."""
    seconds, pilot = guided(scale, seed)[1], 20
    each = learned("gan", scale, seed, pilot)[1] / pilot
    return learned("gan", scale, seed, max(pilot, round(seconds / each)))


@cache
def pictures(scale: str, seed: int, guidance: float | None) -> Drawn:
    """As many of each class, by the same seeds at every scale; by the GAN where guidance is None."""
    count, walk = EFFORT[scale].pictures, EFFORT[scale].walk
    asked = np.arange(count) % prepared(scale, seed).facts.classes
    if guidance is None:
        return Drawn.of(draw(rival(scale, seed)[0], range(count), labels=asked), asked)
    made = draw(guided(scale, seed)[0], range(count), labels=asked, guidance=guidance, steps=walk)
    return Drawn.of(made, asked)


@cache
def scores(scale: str, seed: int, guidance: float | None, part: str = "test") -> dict[str, float]:
    """Figures of `pictures` against the test rows, or the validation rows."""
    rows = prepared(scale, seed)
    real = np.asarray(getattr(rows, part)["image"])
    return picture_scores(pictures(scale, seed, guidance), real, Measures.find(rows.state["measures"])).metrics


def curve(scale: str, seed: int) -> dict[str, float]:
    """Every metric at every scale, such as "recall_5", and the CPU seconds of the training."""
    found = {f"{name}_{at}": scores(scale, seed, at)[name] for name in METRICS for at in SCALES}
    return found | {"cpu_seconds": guided(scale, seed)[1]}


def best(scale: str, seed: int) -> int:
    """The scale above 0 that is nearest to the validation rows."""
    return min(SCALES[1:], key=lambda at: scores(scale, seed, at, "valid")["frechet"])
