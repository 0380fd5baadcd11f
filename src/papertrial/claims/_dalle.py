"""What the claims of DALL-E train and draw: once per scale and seed, shared by all of them within a process."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from papertrial.claims._lab import data, learn
from papertrial.core import registry
from papertrial.core.facts import Facts
from papertrial.core.recipe import Optim, resolve
from papertrial.core.task import Prepared, Ragged, Split
from papertrial.papers import dalle as paper
from papertrial.papers.dalle.dvae import perplexity
from papertrial.tasks._image_quality import Measures, draw, frechet

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
#: training pictures, test pictures, and pictures that are drawn
LEARNED, JUDGED, DRAWN = 8000, 2000, 500
#: steps of the two stages
STEPS = {"tiny": (60, 40), "base": (1000, 500)}
#: steps over which the use of the codes is followed, and how often it is looked at
FOLLOWED = {"tiny": (40, 20), "base": (300, 50)}
#: steps of the other method that are timed, to learn how many fit
_TIMED = 20


@dataclass(frozen=True)
class Drawings:
    """What a method made of captions: the distance, how often the class is right, and the seconds of one core it took."""

    distance: float
    accuracy: float
    training: float
    drawing: float


@cache
def digits() -> tuple[Prepared, Measures]:
    """MNIST at 16 x 16, or the digits of scikit-learn at 8 x 8 where it is not at hand, each with the word of its class."""
    images = data("images/mnist", "digits")
    side = 8 if images.name == "digits" else 16
    pixels, labels = np.asarray(images.pixels(side, side)), np.asarray(images.labels)
    order = np.random.default_rng(0).permutation(len(pixels))
    test, train = np.split(order, [min(JUDGED, len(order) // 4)])
    train = train[:LEARNED]

    def rows(chosen: np.ndarray) -> Split:
        words = Ragged.of_texts([WORDS[label] for label in labels[chosen]])
        return Split({"image": pixels[chosen], "label": labels[chosen], "text": words})

    facts = Facts(
        "images", len(train), len(train), 1, side, side, classes=10, outputs=10,
        bytes=int(rows(train)["text"].nbytes), length=5, captions=True,
    )  # fmt: skip
    state = {"class_names": list(WORDS), "height": side, "width": side, "channels": 1}
    measures = Measures.of(pixels[train], labels[train], f"dalle-{side}-{len(train)}")
    return Prepared(rows(train), rows(test[:0]), rows(test), facts, state), measures


def resolved(module: ModuleType, scale: str, **settings: Any) -> tuple[Any, Optim]:
    """The settings of a method's recipe for these pictures."""
    recipe, facts = module.recipes[scale], digits()[0].facts
    config, _ = resolve(module.Config, facts, {scale: recipe.config, "claim": settings})
    return config, resolve(Optim, facts, {scale: recipe.optim})[0]


def judged(model: nn.Module, training: float) -> Drawings:
    """Draw the captions of test pictures, and measure what came of them."""
    prepared, measures = digits()
    captions, labels = prepared.test["text"].texts()[:DRAWN], prepared.test["label"][:DRAWN]
    begun = time.process_time()
    drawn = draw(model, range(len(captions)), captions=captions)
    drawing = time.process_time() - begun
    real = measures.space.features(prepared.test["image"])
    right = measures.judge.classes(drawn) == labels if measures.judge else np.zeros(0)
    return Drawings(frechet(measures.space.features(drawn), real).value, float(right.mean()), training, drawing)


@cache
def dalle(scale: str, seed: int) -> Drawings:
    """Both stages, one after the other."""
    prepared, _ = digits()
    config, optim = resolved(paper, scale)
    torch.manual_seed(seed)
    model = paper.build(config, prepared.facts)
    begun = time.process_time()
    model.fit_inputs(prepared.train)
    for stage, steps in zip(model.stages(), STEPS[scale], strict=True):
        rows = prepared.train if stage.rows is None else stage.rows(prepared.train)
        learn(stage.model, rows, replace(optim, **stage.optim), steps, seed, device="cpu")
    return judged(model, time.process_time() - begun)


@cache
def pixels(scale: str, seed: int) -> Drawings:
    """The same kind of Transformer on pixels, trained for as many seconds of a core as both stages took."""
    prepared, _ = digits()
    method, task = registry.method("pixel_transformer"), registry.task("image_text_generation")
    config, optim = resolved(method.module, scale)
    seconds = dalle(scale, seed).training

    def fresh() -> tuple[nn.Module, Split]:
        torch.manual_seed(seed)
        model = task.build(method, config, optim, prepared)
        return model, task.training(model, prepared)

    begun = time.process_time()
    learn(*fresh(), optim, _TIMED, seed, device="cpu")
    each = (time.process_time() - begun) / _TIMED
    begun = time.process_time()
    model, rows = fresh()
    learn(model, rows, optim, max(_TIMED, round(seconds / each)), seed, device="cpu")
    return judged(model, time.process_time() - begun)


@cache
def use_of_codes(scale: str, seed: int, **settings: Any) -> Mapping[str, float]:
    """The perplexity of the codes of test pictures while a dVAE is trained, `at_{step}`, and how much of them comes back."""
    prepared, _ = digits()
    config, optim = resolved(paper, scale, **settings)
    torch.manual_seed(seed)
    model = paper.build(config, prepared.facts)
    stage = model.stages()[0]
    test = torch.from_numpy(prepared.test["image"]).permute(0, 3, 1, 2)
    steps, every = FOLLOWED[scale]
    found: dict[str, float] = {}

    class Followed(nn.Module):
        """The dVAE, with a look at the test pictures now and then."""

        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner, self.loss, self.views = inner, inner.loss, inner.views

        def after_step(self, progress: float) -> None:
            self.inner.after_step(progress)
            if round(progress * steps) % every == 0:
                self.inner.eval()
                counts = torch.bincount(model.encode(test).flatten(), minlength=config.codes)
                found[f"at_{round(progress * steps)}"] = float(perplexity(counts.double()))
                self.inner.train()

    assert stage.rows is not None
    learn(Followed(stage.model), stage.rows(prepared.train), replace(optim, **stage.optim), steps, seed, device="cpu")
    found["error"] = float((model.decode(model.encode(test)).double() - test).square().mean()) / 255**2
    return found
