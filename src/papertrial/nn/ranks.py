"""Sums over all processes that gradients pass through, and batch normalisation with the statistics of the global batch.

The convention everywhere: the gradients of all ranks are averaged (as DistributedDataParallel does), and each rank
returns either the loss of its own rows or the same global loss. Both then give the gradient of one process that sees
the whole batch, because the backward pass of `all_sum` adds up the gradients of all ranks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def world_size() -> int:
    """Number of processes; 1 where nothing is distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _AllSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


def all_sum(x: Tensor) -> Tensor:
    """The sum of `x` over ranks, on every rank; the gradient is the sum of the ranks' gradients."""
    return _AllSum.apply(x) if world_size() > 1 else x


@torch.no_grad()
def mean_(tensors: Iterable[Tensor]) -> None:
    """Put the mean over ranks in the place of each tensor; no gradient passes. One exchange for all of a dtype."""
    world = world_size()
    if world == 1:
        return
    groups: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.dtype, []).append(tensor)
    for group in groups.values():
        flat = torch.cat([tensor.reshape(-1) for tensor in group])
        dist.all_reduce(flat)
        flat /= world
        for tensor, mean in zip(group, flat.split([tensor.numel() for tensor in group]), strict=True):
            tensor.copy_(mean.view_as(tensor))


def all_count(count: int, device: torch.device | str = "cpu") -> int:
    """The sum of a whole number over ranks."""
    if world_size() == 1:
        return count
    total = torch.tensor(count, device=device)
    dist.all_reduce(total)
    return int(total)


def all_rows(x: Tensor) -> Tensor:
    """The rows of all ranks in rank order, with gradient: (n, ...) -> (sum of n, ...); n may differ between ranks."""
    if world_size() == 1:
        return x
    counts = torch.zeros(world_size(), dtype=torch.int64, device=x.device)
    counts[dist.get_rank()] = len(x)
    dist.all_reduce(counts)
    start, total = int(counts[: dist.get_rank()].sum()), int(counts.sum())
    # each row has one owner, so a sum over zero-padded blocks is a gather, and its gradient is the one of `all_sum`
    return all_sum(torch.cat([x.new_zeros(start, *x.shape[1:]), x, x.new_zeros(total - start - len(x), *x.shape[1:])]))


def global_moments(x: Tensor) -> tuple[Tensor, Tensor, int]:
    """Mean (C,), biased variance (C,) and count of x (B, C, ...) per channel over the global batch.

    Two passes: the squares are of centred values, so that a large mean costs no digits.
    """
    axes = [axis for axis in range(x.ndim) if axis != 1]
    count = all_count(x.numel() // x.shape[1], x.device)
    mean = all_sum(x.sum(axes)) / count
    centred = x - mean.view(1, -1, *(1,) * (x.ndim - 2))
    return mean, all_sum(centred.square().sum(axes)) / count, count


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """`nn.BatchNorm1d` and `nn.BatchNorm2d` in one, normalising by the global batch when there are several ranks.

    `forward(x (B, C) or (B, C, ...))`. The same parameters, buffers and values as PyTorch's on one rank. Raises
    ValueError in training when there is one value per channel in the whole batch.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"expected (B, C, ...), got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        if world_size() == 1 or not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        # statistics in half precision would lose the mean of a large batch
        x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        mean, variance, count = global_moments(x)
        if count < 2:
            raise ValueError("batch norm needs more than one value per channel in training")
        if self.track_running_stats:
            self._track(mean.detach(), variance.detach() * count / (count - 1))
        shape = (1, -1, *(1,) * (x.ndim - 2))
        out = (x - mean.view(shape)) * torch.rsqrt(variance.view(shape) + self.eps)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.num_batches_tracked is not None and self.running_mean is not None and self.running_var is not None
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


def share_statistics(model: nn.Module) -> None:
    """Make every plain batch norm inside `model` normalise by the global batch, in place; parameters stay the same ones.

    Subclasses with a forward pass of their own are left as they are: on several ranks each sees its own rows only.
    """
    for module in model.modules():
        if type(module) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
            module.__class__ = BatchNorm  # the same state; only the forward pass differs
