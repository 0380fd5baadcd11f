"""The experts themselves: one product for all of them, and experts that lie on other processes."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn import functional as exchange
from torch.nn import functional as F

from papertrial.nn.ranks import world_size


def grouped(x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    """Each row times the matrix of its expert: x (K, in), rows of expert 0 first; weight (E, out, in); counts (E,) -> (K, out)."""
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(dtype), weight.to(dtype)
    aligned = all(size * x.element_size() % 16 == 0 for size in weight.shape[1:])
    if aligned and len(x) and x.dtype != torch.float64:
        return F.grouped_mm(x, weight.mT, offs=counts.cumsum(0).int())
    # in slots, as many for each expert as the fullest one has, where the kernel does not take the type or the width
    slots = int(counts.max())
    at = torch.arange(len(x), device=x.device) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    at = at + slots * torch.arange(len(counts), device=x.device).repeat_interleave(counts)
    filled = x.new_zeros(len(counts) * slots, x.shape[1]).index_copy(0, at, x).unflatten(0, (len(counts), slots))
    return torch.bmm(filled, weight.mT).flatten(0, 1).index_select(0, at)


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
        self.activation, self.dropout = activation or nn.ReLU(), nn.Dropout(dropout)
        self.processes = 1

    def forward(self, x: Tensor, counts: Tensor) -> Tensor:
        return self._own(x, counts) if self.processes == 1 else self._away(x, counts)

    def _own(self, x: Tensor, counts: Tensor) -> Tensor:
        hidden = self.dropout(self.activation(grouped(x, self.up, counts)))
        return grouped(hidden, self.down, counts).to(x.dtype)

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
        done = torch.zeros_like(done).index_copy(0, order, done)
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
