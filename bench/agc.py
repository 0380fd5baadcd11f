"""Adaptive gradient clipping against timm's, on ResNet-50, in one process and in turns.

    python bench/agc.py [--rounds 20] [--threads 1]

`in training` clips the gradients of real backward passes, which are freshly allocated at every step; the others clip the
same gradients again and again, of which none, about half, or all are too long, with a heap in which temporaries find
room. The ratio is the median over rounds of timm's time by ours. Needs timm.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from papertrial.papers.nfnet import adaptive_clip_

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import peers

#: gradient norm over weight norm of a unit, as powers of 10: far below the threshold of 0.01, around it, far above
REGIMES = {"none clipped": (-5, -4), "half clipped": (-3, -1), "all clipped": (0, 1)}
_WARM = 2  # rounds


def gradients(parameters: list[nn.Parameter], low: float, high: float) -> list[Tensor]:
    """One per parameter; a unit's norm is that of its weights times 10 to a power drawn from [low, high]."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for p in parameters:
        units = len(p) if p.ndim > 1 else 1
        noise = torch.randn(units, p.numel() // units, generator=generator)
        wanted = p.detach().reshape(units, -1).norm(dim=1).clamp_min(1e-3)
        wanted *= 10 ** (low + (high - low) * torch.rand(units, generator=generator))
        found.append((noise * (wanted / noise.norm(dim=1)).unsqueeze(1)).view(p.shape))
    return found


def race(
    name: str, contestants: dict[str, Callable[[], None]], prepare: Callable[[], None], rounds: int
) -> dict[str, object]:
    """Time both in every round, in changing order, each after `prepare`."""
    times: dict[str, list[float]] = {contestant: [] for contestant in contestants}
    for turn in range(rounds + _WARM):
        for contestant in list(contestants)[:: 1 if turn % 2 else -1]:
            prepare()
            begun = time.perf_counter()
            contestants[contestant]()
            if turn >= _WARM:
                times[contestant].append(time.perf_counter() - begun)
    low, middle, high = statistics.quantiles([a / b for a, b in zip(*times.values(), strict=True)], n=4)
    return {
        "gradients": name,
        "milliseconds": {
            contestant: round(1000 * statistics.median(values), 2) for contestant, values in times.items()
        },
        "times_faster": round(middle, 2),
        "quartiles": [round(low, 2), round(high, 2)],
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=20)
    options.add_argument("--threads", type=int, default=1)
    asked = options.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    model = peers.timm("timm.models.resnet").resnet50()
    parameters = list(model.parameters())
    timms = peers.timm("timm.utils.agc").adaptive_clip_grad
    contestants: dict[str, Callable[[], None]] = {
        "timm": lambda: timms(parameters, 0.01),
        "papertrial": lambda: adaptive_clip_(parameters, 0.01),
    }

    def backward() -> None:
        model.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(model(torch.randn(4, 3, 64, 64)), torch.arange(4))
        loss.backward()

    print(json.dumps({"threads": asked.threads, "rounds": asked.rounds, "torch": torch.__version__}))
    print(json.dumps(race("in training", contestants, backward, asked.rounds)), flush=True)
    for regime, (low, high) in REGIMES.items():
        fresh = gradients(parameters, low, high)

        @torch.no_grad()
        def restore(fresh: list[Tensor] = fresh) -> None:
            torch._foreach_copy_([p.grad for p in parameters], fresh)

        print(json.dumps(race(regime, contestants, restore, asked.rounds)), flush=True)


if __name__ == "__main__":
    main()
