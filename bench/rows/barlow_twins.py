"""The loss of Barlow Twins against lightly's: value and gradient for two batches of embeddings, by width and by rows."""

from __future__ import annotations

from bench.harness import Case, Race, Side
from papertrial.papers.barlow_twins import barlow_loss

LAM = 0.0051


def loss(case: Case) -> tuple[Side, Side]:
    from lightly.loss import BarlowTwinsLoss

    rows, width = case.size
    za, zb = (case.randn(rows, width).requires_grad_() for _ in range(2))
    ours, theirs = case.ready(lambda a, b: barlow_loss(a, b, LAM)), case.ready(BarlowTwinsLoss(lambda_param=LAM))

    def side(call) -> Side:
        def step() -> None:
            za.grad = zb.grad = None
            call(za, zb).backward()

        def answer():
            za.grad = zb.grad = None
            value = call(za, zb)
            value.backward()
            return value, za.grad, zb.grad

        return Side(step, answer)

    return side(ours), side(theirs)


_BOUND = "three products of matrices, which are nearly all of it where there are many rows; both sides standardise with one batch norm"

RACES = [
    Race(
        "loss and gradient, 256 rows",
        "lightly",
        loss,
        {f"width {width}": (256, width) for width in (256, 512, 1024, 2048)},
        grows=lambda size: size[1],
        typical="width 1024",
        bound=_BOUND,
    ),
    Race(
        "loss and gradient, width 1024",
        "lightly",
        loss,
        {f"{rows} rows": (rows, 1024) for rows in (128, 256, 512, 1024, 2048)},
        grows=lambda size: size[0],
        typical="512 rows",
        bound=_BOUND,
    ),
]
