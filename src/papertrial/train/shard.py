"""Weights, gradients and optimiser state split over the processes: FSDP2, which is `fully_shard` of torch.

Accelerate turns FSDP on for accelerators only. Calling torch's own function gives a CPU the same path, so that it is
tested where there is no GPU. Its modules take half a second to import, so they wait until they are needed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_WORTH = 100_000  # parameters a layer must have to be gathered for itself rather than with the rest of the model


def shard(objective: nn.Module, device: torch.device, world: int) -> None:
    """Split the parameters of `objective` in place: each large layer of a list or sequence, then what is left."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (world,))
    for parameter in objective.parameters():  # FSDP2 takes no other layout, such as channels last
        parameter.data = parameter.data.contiguous()
    layers = [
        layer
        for module in objective.modules()
        if isinstance(module, nn.ModuleList | nn.Sequential)
        for layer in module
        if not isinstance(layer, nn.ModuleList | nn.Sequential)
        and sum(parameter.numel() for parameter in layer.parameters()) >= _WORTH
    ]
    for layer in reversed(layers):  # from the inside out
        fully_shard(layer, mesh=mesh)
    fully_shard(objective, mesh=mesh)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be split; every process takes part."""
    return tensor.full_tensor() if _split(tensor) else tensor


def put(target: Tensor, value: Tensor) -> None:
    """Copy `value` into `target`, which may be split; every process holds all of `value`."""
    if _split(target) and not _split(value):
        from torch.distributed.tensor import distribute_tensor

        value = value.to(target.device, target.dtype)
        value = distribute_tensor(value, target.device_mesh, target.placements, src_data_rank=None)
    target.copy_(value)


def _split(tensor: Tensor) -> bool:
    return hasattr(tensor, "full_tensor")
