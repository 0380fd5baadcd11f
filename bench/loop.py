"""What the training loop costs beside a bare PyTorch loop, and what the short form of Barlow Twins' loss saves.

    python bench/loop.py

Pairs run interleaved (A B A B) in one process after a warm-up; CPU seconds, the median ratio of the pairs and the range
of the middle half. A ratio above 1 means that papertrial is slower.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import papertrial  # noqa: F401 - sets how OpenMP waits, before torch is loaded

# isort: split
import torch
from torch import nn

from papertrial.core.budget import Budget
from papertrial.core.recipe import Optim
from papertrial.core.run import Run
from papertrial.core.task import Split
from papertrial.nn.heads import Supervised
from papertrial.papers.barlow_twins import barlow_loss, standardise
from papertrial.train.loop import train

ROUNDS = 15


class Perceptron(nn.Module):
    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.layers(image)


def loop(width: int, steps: int, batch: int = 128) -> tuple[Callable[[], None], Callable[[], None]]:
    """(ours, bare): the same steps on 28x28 images, AdamW with warm-up and cosine, gradients clipped."""
    draw = np.random.default_rng(0)
    split = Split(
        {"image": draw.integers(0, 256, (4096, 28, 28, 1), dtype=np.uint8), "label": draw.integers(0, 10, 4096)}
    )

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            model = Supervised(Perceptron(784, width), 10)
            run = Run(Path(folder))
            train(model, split, Optim(batch=batch), Budget(steps=steps), run, seed=0, progress=False)

    def bare() -> None:
        model = Supervised(Perceptron(784, width), 10)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps)
        order = np.random.default_rng(0)
        for _ in range(steps):
            rows = order.permutation(4096)[:batch]
            image = torch.from_numpy(split["image"][rows].transpose(0, 3, 1, 2).copy()) / 255
            loss = model.loss({"image": image, "label": torch.from_numpy(split["label"][rows])})
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()

    return ours, bare


def barlow(rows: int, width: int) -> tuple[Callable[[], None], Callable[[], None]]:
    """(ours, plain): loss and gradient of two embeddings; plain forms the D x D correlation matrix."""
    za, zb = (torch.randn(rows, width, requires_grad=True) for _ in range(2))

    def ours() -> None:
        barlow_loss(za, zb).backward()

    def plain() -> None:
        correlation = standardise(za).T @ standardise(zb) / rows
        diagonal = torch.diagonal(correlation)
        redundancy = correlation.square().sum() - diagonal.square().sum()
        ((1 - diagonal).square().sum() + 0.0051 * redundancy).backward()

    return ours, plain


def measure(name: str, pair: tuple[Callable[[], None], Callable[[], None]]) -> None:
    for call in pair:
        call()
    ratios, first = [], []
    for _ in range(ROUNDS):
        seconds = []
        for call in pair:
            begun = time.process_time()
            call()
            seconds.append(time.process_time() - begun)
        ratios.append(seconds[0] / seconds[1])
        first.append(seconds[0])
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"{name:<44} {statistics.median(first) * 1e3:9.1f} ms   ratio {middle:.2f} [{low:.2f}, {high:.2f}]")


def main() -> None:
    torch.set_num_threads(1)
    measure("loop, perceptron of 64, 300 steps", loop(64, 300))
    measure("loop, perceptron of 512, 300 steps", loop(512, 300))
    measure("Barlow Twins loss, 256 rows, width 1024", barlow(256, 1024))
    measure("Barlow Twins loss, 256 rows, width 4096", barlow(256, 4096))


if __name__ == "__main__":
    main()
