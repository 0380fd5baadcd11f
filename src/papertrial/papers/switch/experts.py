"""The experts themselves: one product for all of them, and experts that lie on other processes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn import functional as exchange
from torch.nn import functional as F

from papertrial.nn.ranks import world_size


class _Product(torch.autograd.Function):
    """x (E, slots, in), weight (E, out, in) -> (E, slots, out).

    The gradient that torch derives for the weight lies in memory as (E, in, out), and the copy takes longer than the product.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.bmm(x, weight.mT)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return torch.bmm(gradient, weight), torch.bmm(gradient.mT, x)


def through(x: Tensor, counts: Tensor, up: Tensor, down: Tensor, between: Callable[[Tensor], Tensor]) -> Tensor:
    """Each row through the two matrices of its expert, and `between` them: x (K, width), rows of expert 0 first; counts (E,);
    up (E, hidden, width); down (E, width, hidden) -> (K, width)."""
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    inside = dtype if _has_products(dtype, kind) else torch.float32
    with torch.autocast(kind, enabled=False):
        return _through(x.to(inside), counts, up.to(inside), down.to(inside), between).to(dtype)


@cache
def _has_products(dtype: torch.dtype, device: str) -> bool:
    """Whether products of this type are fast: a CPU without instructions for 16 bits takes several times as long as in float32."""
    if device != "cpu" or dtype.itemsize != 2:
        return True
    if not torch.backends.mkldnn.is_available():
        return False
    name = "bf16" if dtype == torch.bfloat16 else "fp16"
    return bool(getattr(torch.ops.mkldnn, f"_is_mkldnn_{name}_supported")())


def _through(x: Tensor, counts: Tensor, up: Tensor, down: Tensor, between: Callable[[Tensor], Tensor]) -> Tensor:
    last = counts.cumsum(0)
    if not _in_slots(x, up, counts):
        hidden = between(F.grouped_mm(x, up.mT, offs=last.int()))
        return F.grouped_mm(hidden, down.mT, offs=last.int())
    experts, each = len(counts), int(counts.max())
    ahead = each * torch.arange(experts, device=x.device) - (last - counts)  # empty slots before those of an expert
    at = torch.arange(len(x), device=x.device) + ahead.repeat_interleave(counts, output_size=len(x))
    filled = x.new_zeros(experts * each, x.shape[1]).index_copy_(0, at, x).unflatten(0, (experts, each))
    return _Product.apply(between(_Product.apply(filled, up)), down).flatten(0, 1).index_select(0, at)


def _in_slots(x: Tensor, up: Tensor, counts: Tensor) -> bool:
    """Whether all experts get as many slots as the fullest one needs, for a batched product instead of the grouped kernel.

    So where that kernel does not take the type or a width. On a CPU it also makes one product after another, which takes
    numbers of 16 bits several times as long: those go to slots unless half of them would stay empty.
    """
    if x.dtype == torch.float64 or not len(x) or any(size * x.element_size() % 16 for size in up.shape[1:]):
        return True
    return x.device.type == "cpu" and x.element_size() == 2 and int(counts.max()) * len(counts) <= 2 * len(x)


class Experts(nn.Module):
    """E perceptrons without biases: x (K, width), expert by expert, and counts (E,) -> (K, width).

    dropout: on hidden units.  Where `spread` has laid them over processes, each holds E / processes of them, and all have
    to call it together.
    """

    def __init__(
        self, width: int, hidden: int, experts: int, dropout: float = 0.0, activation: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.empty(experts, hidden, width))
        self.down = nn.Parameter(torch.empty(experts, width, hidden))
        self.activation, self.dropout = activation or nn.ReLU(inplace=True), nn.Dropout(dropout)
        self.processes = 1

    def forward(self, x: Tensor, counts: Tensor) -> Tensor:
        return self._own(x, counts) if self.processes == 1 else self._away(x, counts)

    def _own(self, x: Tensor, counts: Tensor) -> Tensor:
        return through(x, counts, self.up, self.down, lambda hidden: self.dropout(self.activation(hidden))).to(x.dtype)

    def _away(self, x: Tensor, counts: Tensor) -> Tensor:
        """Send the tokens where their experts are, and take the answers back."""
        arriving = torch.empty_like(counts)
        dist.all_to_all_single(arriving, counts)
        out, back = (part.view(self.processes, -1) for part in (counts, arriving))
        sent, received = out.sum(1).tolist(), back.sum(1).tolist()
        there = exchange.all_to_all_single(x.new_empty(sum(received), x.shape[1]), x.contiguous(), received, sent)
        expert = torch.arange(back.shape[1], device=x.device).repeat(self.processes).repeat_interleave(back.flatten())
        order = expert.argsort(stable=True)
        done = self._own(there.index_select(0, order), back.sum(0))
        done = torch.zeros_like(done).index_copy_(0, order, done)
        return exchange.all_to_all_single(torch.empty_like(x), done, sent, received)


def spread(model: nn.Module) -> None:
    """Lay the experts of each `SwitchMlp` over all processes, in place: expert e on process e * processes // E.

    From then on all processes must call the model together, also to use it. Gradients of experts are those of the mean loss
    over processes without any exchange, so they must not be averaged again. Raises ValueError when the processes do not
    divide the experts.
    """
    world = world_size()
    for module in model.modules():
        if not isinstance(module, Experts) or world == 1:
            continue
        if len(module.up) % world:
            raise ValueError(f"{world} processes do not divide {len(module.up)} experts")
        module.processes = world
        for name in ("up", "down"):
            own = nn.Parameter(getattr(module, name).detach().chunk(world)[dist.get_rank()].clone())
            own.register_hook(lambda gradient: gradient / world)  # it has come from the losses of all processes, summed
            setattr(module, name, own)
