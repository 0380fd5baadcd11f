"""A switch layer against that of transformers: training mode without jitter, the same weights, the same tokens find room.

Capacity is 1.25 times the even share of each row, as transformers counts it. Ours also makes the auxiliary loss and the
figures of the log. Its router is made decisive, because transformers rounds probabilities to the type of the tokens before it
chooses, and in bfloat16 would send tokens elsewhere where two are close.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

from bench.harness import Case, Race, Side, training
from papertrial.papers.switch import SwitchMlp


@register_flop_formula(torch.ops.aten._grouped_mm)
def _grouped(a: tuple[int, ...], b: tuple[int, ...], *rest: object, **options: object) -> int:
    return 2 * math.prod(a) * b[-1]


class Tokens(nn.Module):
    """Hands over a copy: the layer of transformers may change what it is given."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.clone())


def layers(rows: int, tokens: int, width: int, hidden: int, experts: int) -> tuple[SwitchMlp, nn.Module]:
    from transformers import SwitchTransformersConfig
    from transformers.models.switch_transformers.modeling_switch_transformers import SwitchTransformersSparseMLP

    places = max(1, int(tokens / experts * 1.25))
    ours = SwitchMlp(width, hidden, experts, row_capacity=places)
    config = SwitchTransformersConfig(
        d_model=width, d_ff=hidden, num_experts=experts, expert_capacity=places, dropout_rate=0.0, router_jitter_noise=0.0
    )  # fmt: skip
    theirs = SwitchTransformersSparseMLP(config)
    with torch.no_grad():
        ours.router.weight.mul_(20)
        theirs.router.classifier.weight.copy_(ours.router.weight)
        for index in range(experts):
            theirs.experts[f"expert_{index}"].wi.weight.copy_(ours.experts.up[index])
            theirs.experts[f"expert_{index}"].wo.weight.copy_(ours.experts.down[index])
    return ours, theirs


def forward(case: Case, layer: nn.Module, x: Tensor) -> Side:
    layer.train()
    call = case.ready(layer)

    @torch.no_grad()
    def once() -> Tensor:
        return call(x)

    return Side(once)


def step(case: Case, layer: nn.Module, x: Tensor) -> Side:
    return training(case, layer, x, optimizer=False)


def products(backward: bool) -> Callable[[Case], Side]:
    """The batched products of perceptrons with an equal share of the tokens each and nothing else: two forward, and of each one
    for the gradient of either side. No layer can be faster."""

    def build(case: Case) -> Side:
        rows, tokens, width, hidden, experts = case.size
        share = max(1, rows * tokens // experts)
        x, h = (case.randn(experts, share, size) for size in (width, hidden))
        up, down = case.randn(experts, hidden, width), case.randn(experts, width, hidden)

        def once() -> None:
            torch.bmm(x, up.mT), torch.bmm(h, down.mT)
            if backward:
                torch.bmm(h, up), torch.bmm(h.mT, x), torch.bmm(x, down), torch.bmm(x.mT, h)

        return Side(once)

    return build


def race(how: Callable[..., Side]) -> Callable[[Case], tuple[Side, Side]]:
    def build(case: Case) -> tuple[Side, Side]:
        ours, theirs = (case.place(Tokens(layer)) for layer in layers(*case.size))
        x = case.randn(*case.size[:2], case.size[2])
        return how(case, ours, x), how(case, theirs, x)

    return build


def _named(*shapes: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """By rows, tokens of a row, width, hidden width and experts."""
    return {" x ".join(map(str, shape)): shape for shape in shapes}


GROWING = (
    (
        "experts",
        _named(*((8, 128, 64, 256, experts) for experts in (8, 32, 64, 128)), (16, 128, 64, 256, 256)),
        lambda shape: shape[4],
    ),
    (
        "width",
        _named((8, 256, 128, 512, 16), (8, 256, 128, 512, 64), (4, 256, 256, 1024, 8), (2, 256, 512, 2048, 8)),
        lambda shape: shape[0] * shape[1] * shape[2] * shape[3],
    ),
)
RACES = [
    made
    for what, how, backward in (("forward", forward, False), ("forward and backward", step, True))
    for grown, sizes, grows in GROWING
    for made in (
        Race(
            f"layer by {grown}, {what}",
            "transformers",
            race(how),
            sizes,
            grows=grows,
            tolerance={"float32": 1e-3, "bfloat16": 0.2},  # such a router magnifies rounding
            compiled=False,  # how many tokens find room depends on values
            bound="the products of the experts and the router, which both make: the rows of the products alone say how long they take",
        ),
        Race(f"products alone, by {grown}, {what}", "", products(backward), sizes, grows=grows, compiled=False),
    )
]
