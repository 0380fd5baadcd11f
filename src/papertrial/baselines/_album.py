"""Training pictures that are kept and handed out again: what the floors of drawing from captions have in common."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor

from papertrial.core.budget import Budget, Meter
from papertrial.core.facts import Facts
from papertrial.core.files import write_with
from papertrial.core.run import Run
from papertrial.core.task import Ragged, Split

#: bytes of pictures that are kept at most
_ROOM = 256 << 20


class Album:
    """An Estimator with `draw` that keeps training pictures, and whose `choose(seeds, captions) -> rows` says which to hand out.

    pictures: uint8 (N, H, W, C).  captions: N texts.
    """

    draws: frozenset[str] = frozenset()

    def __init__(self, facts: Facts) -> None:
        self.most = max(1, _ROOM // (facts.height * facts.width * facts.channels))
        self.pictures = np.zeros((0, facts.height, facts.width, facts.channels), dtype=np.uint8)
        self.captions: list[str] = []

    def choose(self, seeds: Sequence[int], captions: Sequence[str] | None) -> np.ndarray:
        raise NotImplementedError

    def learn(self) -> None:
        """Called when pictures and captions are there."""

    def fit(self, train: Split, valid: Split, facts: Facts, budget: Budget, seed: int, run: Run) -> Meter:
        started = time.perf_counter()
        rows = np.sort(np.random.default_rng(seed).permutation(train.examples)[: self.most])
        self.pictures, self.captions = np.asarray(train["image"][rows]), train["text"][rows].texts()
        self.learn()
        return Meter(samples=len(rows), seconds=time.perf_counter() - started, trials=1)

    def most_trials(self, budget: Budget) -> int:
        return 1

    def draw(
        self,
        seeds: Sequence[int],
        *,
        captions: Sequence[str] | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Tensor:
        """uint8 (N, C, H, W)."""
        pictures = self.pictures[self.choose(seeds, captions)]
        if progress is not None:
            progress(1.0)
        return torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy())

    def outputs(self, split: Split) -> np.ndarray:
        """A picture for each row by the seeds 0, 1, ...: uint8 (N, H, W, C)."""
        return self.pictures[self.choose(range(split.examples), split["text"].texts())]

    def save(self, folder: Path | str) -> None:
        texts = Ragged.of_texts(self.captions)
        held = {"pictures": self.pictures, "text": texts.values, "offsets": texts.offsets}
        write_with(Path(folder) / "model.safetensors", lambda path: save_file(held, str(path)))

    def load(self, folder: Path | str) -> Album:
        held = load_file(str(Path(folder) / "model.safetensors"))
        self.pictures, self.captions = held["pictures"], Ragged(held["text"], held["offsets"]).texts()
        self.learn()
        return self
