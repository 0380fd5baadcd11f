"""A switch layer against that of transformers and against the dense layer of equal work, in one process and in turns.

    python bench/switch.py [--rounds 20] [--threads 1]

Forward and backward, in float32, in training mode with jitter, on the same weights and tokens. `work` are rows, tokens of a
row, width, hidden width and experts; capacity is 1.25 times the even share, which transformers counts for each row. Ours also
makes the auxiliary loss and the figures of the log. Seconds are those of the CPU, so that other jobs on the machine count
little; the ratios are medians over rounds. Where the products of the experts are most of the work, both do the same ones.
Gradients of more than 32 MB are mapped anew by glibc at each step, which costs ours, with all experts in one tensor, a third
of the last row: MALLOC_MMAP_THRESHOLD_=4000000000 MALLOC_TRIM_THRESHOLD_=8000000000 show the products alone.
Needs transformers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from papertrial.nn.mlp import Mlp
from papertrial.papers.switch import SwitchMlp

WORK = (
    (8, 128, 64, 256, 8),
    (8, 128, 64, 256, 32),
    (8, 128, 64, 256, 64),
    (8, 128, 64, 256, 128),
    (16, 128, 64, 256, 256),
    (8, 256, 128, 512, 16),
    (8, 256, 128, 512, 64),
    (4, 256, 256, 1024, 8),
    (2, 256, 512, 2048, 8),
)
_WARM = 3  # rounds


def theirs(ours: SwitchMlp, room: int) -> nn.Module:
    from transformers import SwitchTransformersConfig
    from transformers.models.switch_transformers.modeling_switch_transformers import SwitchTransformersSparseMLP

    experts, hidden, width = ours.experts.up.shape
    config = SwitchTransformersConfig(
        d_model=width,
        d_ff=hidden,
        num_experts=experts,
        expert_capacity=room,
        dropout_rate=0.0,
        router_jitter_noise=0.01,
    )
    layer = SwitchTransformersSparseMLP(config).train()
    with torch.no_grad():
        layer.router.classifier.weight.copy_(ours.router.weight)
        for index in range(experts):
            layer.experts[f"expert_{index}"].wi.weight.copy_(ours.experts.up[index])
            layer.experts[f"expert_{index}"].wo.weight.copy_(ours.experts.down[index])
    return layer


def step(layer: nn.Module, x: Tensor, mix: Tensor) -> Callable[[], None]:
    def once() -> None:
        layer.zero_grad(set_to_none=True)
        # a copy, because transformers' jitter would change the input in place
        (layer(x.clone().requires_grad_() * 1.0) * mix).sum().backward()

    return once


def race(work: tuple[int, int, int, int, int], rounds: int) -> dict[str, object]:
    rows, tokens, width, hidden, experts = work
    torch.manual_seed(0)
    ours = SwitchMlp(width, hidden, experts, jitter=0.01).train()
    x, mix = torch.randn(rows, tokens, width), torch.randn(rows, tokens, width)
    contestants = {
        "transformers": step(theirs(ours, max(1, int(tokens / experts * 1.25))), x, mix),
        "ours": step(ours, x, mix),
        "dense": step(Mlp(width, hidden, activation=nn.ReLU(), bias=False), x, mix),
    }
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + _WARM):
        for name in list(contestants)[:: 1 if turn % 2 else -1]:
            begun = time.process_time()
            contestants[name]()
            if turn >= _WARM:
                times[name].append(time.process_time() - begun)
    ratios = {
        "times_faster_than_transformers": [a / b for a, b in zip(times["transformers"], times["ours"], strict=True)],
        "times_the_dense_layer": [a / b for a, b in zip(times["ours"], times["dense"], strict=True)],
    }
    return {
        "work": work,
        "cpu_milliseconds": {name: round(1000 * statistics.median(values), 2) for name, values in times.items()},
        **{name: round(statistics.median(values), 2) for name, values in ratios.items()},
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=20)
    options.add_argument("--threads", type=int, default=1)
    asked = options.parse_args()
    torch.set_num_threads(asked.threads)
    for work in WORK:
        print(json.dumps(race(work, asked.rounds)), flush=True)


if __name__ == "__main__":
    main()
