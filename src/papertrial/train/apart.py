"""Processes that hold other weights than each other, as where a technique averages now and then only: looked at, kept, joined."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from papertrial.core.errors import PapertrialError
from papertrial.nn.ranks import mean_, world_size
from papertrial.train.checkpoint import model_tensors, part


@torch.no_grad()
def join(model: nn.Module) -> None:
    """Put the mean over processes in the place of each weight and of each buffer that is not a whole number."""
    mean_(tensor for tensor in model_tensors(model).values() if tensor.is_floating_point())


@torch.no_grad()
def agree(model: nn.Module) -> None:
    """Give every process the weights and buffers of the first."""
    if world_size() > 1:
        for tensor in model_tensors(model).values():
            dist.broadcast(tensor.data, 0)


@contextmanager
def merged(model: nn.Module, apart: bool) -> Iterator[None]:
    """The mean over processes in the model for a while, where they are apart."""
    if not apart:
        yield
        return
    own = {name: tensor.detach().clone() for name, tensor in model_tensors(model).items()}
    join(model)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, tensor in model_tensors(model).items():
                tensor.copy_(own[name])


def gathered(tensors: Mapping[str, Tensor], rank: int, world: int) -> dict[str, Tensor]:
    """On the main process what all others hold, as `rank1/name`; nothing on the others."""
    held: list[dict[str, Tensor]] | None = [{}] * world if rank == 0 else None
    dist.gather_object({name: tensor.detach().cpu() for name, tensor in tensors.items()}, held)
    return {f"rank{r}/{name}": tensor for r, own in enumerate(held or ()) if r for name, tensor in own.items()}


def own_part(tensors: dict[str, Tensor], ranks: int, rank: int, world: int) -> dict[str, Tensor]:
    """Of a checkpoint, what this process has left. ranks: how many were apart when it was written, 1 where none.

    Raises PapertrialError where their number is another one now."""
    if ranks not in (1, world):
        raise PapertrialError(
            f"the run was left by {ranks} processes whose weights differ, and goes on with as many",
            f"start it with torchrun --nproc-per-node {ranks}, or add --fresh to start over",
        )
    return {**tensors, **part(tensors, f"rank{rank}")} if ranks > 1 else tensors
