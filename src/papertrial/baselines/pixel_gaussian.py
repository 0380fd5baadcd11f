"""Pixel Gaussian - pictures drawn from a normal distribution over all pixels, of each class its own.

The idea
    What a generator must beat before it has learned more than which pixels are bright together.

The equation
    x = m + sum_k sqrt(l_k) z_k u_k,   z_k ~ N(0, 1), with m the mean of the training pictures of the class and l_k, u_k the
    largest eigenvalues and eigenvectors of their covariance

What matters
    It has the mean and the covariance of the pixels right, and nothing else: no edges, no strokes.

Requires / Offers
    Requires images; classes where there are labels. Offers generate, of a class that is asked for.

Relations
    The floor of image_generation.

Try
    papertrial fit pixel_gaussian --data photos/ --task image_generation

Cost
    Seconds.

Notation
    x a picture as numbers in [0, 1], K the eigenvectors that are kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor

from papertrial.core.budget import Budget, Meter
from papertrial.core.facts import Facts
from papertrial.core.files import write_with
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced
from papertrial.core.run import Run
from papertrial.core.task import Split

PAPER = Paper(
    id="pixel_gaussian",
    title="A normal distribution over pixels",
    kind="estimator",
    method="PixelGaussian",
    idea="Pictures from a normal distribution with the mean and covariance of the training pixels, of each class its own.",
    tasks=("image_generation",),
    tags=("vision", "generative", "baseline", "floor"),
)


@checked
@dataclass(frozen=True)
class Config:
    components: int = sourced(256, "papertrial default: most eigenvectors of a class that are kept", "[1, 65536]")
    most: int = sourced(4096, "papertrial default: most pictures of a class that are looked at", "[2, 100000000]")


class PixelGaussian:
    """An Estimator with `draw`. Classes without a training picture are drawn like all others together, which is the last of
    the distributions: mean (classes + 1, pixels), basis (classes + 1, K, pixels), float32."""

    def __init__(self, config: Config, facts: Facts) -> None:
        self.config, self.facts = config, facts
        self.shape = (facts.height, facts.width, facts.channels)
        self.mean = np.zeros((facts.classes + 1, int(np.prod(self.shape))), dtype=np.float32)
        self.basis = np.zeros((facts.classes + 1, 0, self.mean.shape[1]), dtype=np.float32)
        self.draws = frozenset({"labels"} if facts.classes else ())

    def fit(self, train: Split, valid: Split, facts: Facts, budget: Budget, seed: int, run: Run) -> Meter:
        started, rng = time.perf_counter(), np.random.default_rng(seed)
        label = np.asarray(train["label"])
        kept = min(self.config.components, self.mean.shape[1], self.config.most)
        self.basis = np.zeros((facts.classes + 1, kept, self.mean.shape[1]), dtype=np.float32)
        for index in reversed(range(facts.classes + 1)):
            own = np.flatnonzero(label == index) if index < facts.classes else np.arange(train.examples)
            if index < facts.classes and len(own) < 2:
                self.mean[index], self.basis[index] = self.mean[-1], self.basis[-1]
                continue
            some = np.sort(rng.permutation(own)[: self.config.most])
            pixels = np.asarray(train["image"][some], dtype=np.float32).reshape(len(some), -1) / 255
            self.mean[index] = pixels.mean(0)
            _, sizes, directions = np.linalg.svd(pixels - self.mean[index], full_matrices=False)
            found = (sizes[:, None] * directions / np.sqrt(max(1, len(some) - 1)))[:kept]
            self.basis[index, : len(found)] = found
        return Meter(samples=train.examples, seconds=time.perf_counter() - started, trials=1)

    def most_trials(self, budget: Budget) -> int:
        return 1

    def draw(
        self, seeds: Sequence[int], *, labels: Tensor | None = None, progress: Callable[[float], None] | None = None
    ) -> Tensor:
        """uint8 (N, C, H, W). labels: int64 (N,), -1 for any class: then from the distribution of all."""
        dice = [np.random.default_rng(seed) for seed in seeds]
        wanted = np.full(len(seeds), -1) if labels is None else labels.numpy()
        pixels = np.stack(
            [self.mean[index] + die.standard_normal(self.basis.shape[1], np.float32) @ self.basis[index]
             for die, index in zip(dice, wanted, strict=True)]
        )  # fmt: skip
        if progress is not None:
            progress(1.0)
        pictures = (255 * pixels.clip(0, 1)).round().astype(np.uint8).reshape(-1, *self.shape)
        return torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy())

    def outputs(self, split: Split) -> np.ndarray:
        """A picture for each row by the seeds 0, 1, ...: uint8 (N, H, W, C)."""
        labels = torch.from_numpy(np.asarray(split["label"])) if self.draws else None
        return self.draw(range(split.examples), labels=labels).permute(0, 2, 3, 1).numpy()

    def save(self, folder: Path | str) -> None:
        held = {"mean": self.mean, "basis": self.basis}
        write_with(Path(folder) / "model.safetensors", lambda path: save_file(held, str(path)))

    def load(self, folder: Path | str) -> PixelGaussian:
        held = load_file(str(Path(folder) / "model.safetensors"))
        self.mean, self.basis = held["mean"], held["basis"]
        return self


def build(config: Config, facts: Facts, backbone: Any = None) -> PixelGaussian:
    return PixelGaussian(config, facts)


recipes = {"base": Recipe("base"), "tiny": Recipe("tiny")}
