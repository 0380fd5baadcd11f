"""A switch layer on the rows of one process or of several, run by the tests alone and in ranks.

Each rank leaves its outcome in FOLDER/<kind>-<rank>.pt: once with all experts on each of them, once with experts laid over them.
"""

from __future__ import annotations

import torch
import torch.distributed as dist

from papertrial.papers.switch import SwitchMlp
from papertrial.papers.switch.experts import spread

ROWS, TOKENS, WIDTH = 8, 6, 8


def outcome(spread_out=False, layer_of_all=False):
    """Of a loss like those in training: a mean over a rank's own rows, and the balance of the global batch."""
    torch.manual_seed(0)
    made = SwitchMlp(WIDTH, 12, 8, capacity=1.0, balance=0.3).double()
    x = torch.randn(ROWS, TOKENS, WIDTH, dtype=torch.float64)
    weight = torch.randn(ROWS, TOKENS, WIDTH, dtype=torch.float64)
    if not layer_of_all:
        share = ROWS // dist.get_world_size()
        mine = slice(dist.get_rank() * share, (dist.get_rank() + 1) * share)
        x, weight = x[mine], weight[mine]
    if spread_out:
        spread(made)
    x = x.clone().requires_grad_()
    out = made(x)
    loss = (out * weight).mean() + made.aux["balance_loss"]
    loss.backward()
    world = 1 if layer_of_all else dist.get_world_size()
    return {
        "out": out.detach(),
        "loss": loss.detach(),
        "x": x.grad / world,
        "up": made.experts.up.grad,
        "down": made.experts.down.grad,
        "router": made.router.weight.grad,
    }


def leave(rank, folder):
    for kind in ("everywhere", "spread"):
        torch.save(outcome(kind == "spread"), f"{folder}/{kind}-{rank}.pt")
