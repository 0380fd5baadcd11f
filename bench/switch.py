"""A switch layer against that of transformers, and both against the bare products of their experts, in turns, in one process.

    python bench/switch.py [--quick] [--rounds 20] [--threads 1] [--dtype float32 bfloat16] [--keep-memory]

Training mode with jitter, the same weights and tokens; forward alone without gradients, and forward and backward. Capacity is
1.25 times the even share, which transformers counts for each row. Ours also makes the auxiliary loss and the figures of the
log. Milliseconds are those of the processor, so that other jobs on the machine count little; ratios are medians over rounds.

`products`: the batched products of perceptrons with an equal share of the tokens each, and nothing else. Both layers have to
make them, so `at most` is how many times faster than transformers a layer could be that does nothing but these, and `share` is
how much of ours they are. `dense`: a perceptron of equal work for a token.

glibc maps tensors of more than 32 MB anew at each step, among them the gradients of experts in one tensor; --keep-memory
tells it not to, which shows what that costs (the last shape). Needs transformers.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from papertrial.nn.mlp import Mlp
from papertrial.papers.switch import SwitchMlp

#: rows, tokens of a row, width, hidden width and experts
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
GOAL = 2.0
_WARM = 3  # rounds
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of mallopt
Work = tuple[int, int, int, int, int]


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


def step(layer: nn.Module, x: Tensor, mix: Tensor, backward: bool) -> Callable[[], None]:
    def once() -> None:
        with torch.set_grad_enabled(backward):
            layer.zero_grad(set_to_none=True)
            # a copy, because transformers' jitter would change the input in place
            out = layer(x.clone().requires_grad_(backward) * 1.0)
            if backward:
                (out * mix).sum().backward()

    return once


@torch.no_grad()
def products(up: Tensor, down: Tensor, tokens: int, backward: bool) -> Callable[[], None]:
    """Two products forward, and of each one for the gradient of either side."""
    experts, hidden, width = up.shape
    x, h = (torch.randn(experts, max(1, tokens // experts), size).to(up.dtype) for size in (width, hidden))

    @torch.no_grad()
    def once() -> None:
        torch.bmm(x, up.mT), torch.bmm(h, down.mT)
        if backward:
            torch.bmm(h, up), torch.bmm(h.mT, x), torch.bmm(x, down), torch.bmm(x.mT, h)

    return once


def race(work: Work, dtype: torch.dtype, backward: bool, rounds: int) -> dict[str, float]:
    """Milliseconds of the contestants, and the medians of ratios."""
    rows, tokens, width, hidden, experts = work
    torch.manual_seed(0)
    ours = SwitchMlp(width, hidden, experts, jitter=0.01).train()
    other = theirs(ours, max(1, int(tokens / experts * 1.25))).to(dtype)
    ours, dense = ours.to(dtype), Mlp(width, hidden, activation=nn.ReLU(), bias=False).to(dtype)
    x, mix = (torch.randn(rows, tokens, width).to(dtype) for _ in range(2))
    contestants = {
        "transformers": step(other, x, mix, backward),
        "ours": step(ours, x, mix, backward),
        "products": products(ours.experts.up.detach(), ours.experts.down.detach(), rows * tokens, backward),
        "dense": step(dense, x, mix, backward),
    }
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + _WARM):
        for name in list(contestants)[:: 1 if turn % 2 else -1]:
            begun = time.process_time()
            contestants[name]()
            if turn >= _WARM:
                times[name].append(1e3 * (time.process_time() - begun))

    def ratio(above: str, below: str) -> float:
        return statistics.median(a / b for a, b in zip(times[above], times[below], strict=True))

    return {
        **{name: statistics.median(taken) for name, taken in times.items()},
        "times faster": ratio("transformers", "ours"),
        "at most": ratio("transformers", "products"),
        "share": ratio("products", "ours"),
    }


def line(work: Work, found: dict[str, float]) -> str:
    faster, most = found["times faster"], found["at most"]
    if faster >= GOAL:
        words = f"{GOAL:g} reached"
    elif most < GOAL:
        words = "out of reach: products alone take more than half of theirs"
    else:
        words = f"{GOAL:g} missed; products are {found['share']:.0%} of ours"
    cells = [
        " x ".join(map(str, work)),
        *(f"{found[name]:.2f}" for name in ("transformers", "ours", "products", "dense")),
    ]
    return " | ".join(["", *cells, f"{faster:.2f}", f"{most:.2f}", f"{found['share']:.2f}", words, ""]).strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three shapes and few rounds")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", nargs="+", choices=("float32", "bfloat16"), default=("float32", "bfloat16"))
    parser.add_argument("--keep-memory", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.keep_memory:
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, 2**30)
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    rounds = given.rounds or (5 if given.quick else 20)
    for dtype in given.dtype:
        for backward in (False, True):
            print(
                f"\n{dtype}, {'forward and backward' if backward else 'forward'}, {given.threads} thread(s), ms of the processor\n"
            )
            print(
                "| rows x tokens x width x hidden x experts | transformers | ours | products | dense | times faster | at most | share | |"
            )
            print("|---|---|---|---|---|---|---|---|---|")
            for work in WORK[1:4] if given.quick else WORK:
                print(line(work, race(work, getattr(torch, dtype), backward, rounds)), flush=True)


if __name__ == "__main__":
    main()
