"""The two-layer perceptron of Transformers and Mixers, its GELU, and the residual branch it lives in."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: 2 sqrt(2 / pi), and the weight of x^3, of the tanh form of GELU (1606.08415, section 2)
_SLOPE, _CUBE = 2 * math.sqrt(2 / math.pi), 0.044715
#: elements from which the GELU below is faster than torch's on a CPU
_WORTH = 2**15


def tanh_gelu(x: Tensor) -> Tensor:
    """The tanh form of GELU, as `F.gelu(x, approximate="tanh")`; large tensors on a CPU take about half the time of that."""
    if torch.compiler.is_compiling():  # first, since what follows would tie a traced program to one size
        return F.gelu(x, approximate="tanh")
    slow = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and x.numel() >= _WORTH
    return _TanhGelu.apply(x) if slow else F.gelu(x, approximate="tanh")


class _TanhGelu(torch.autograd.Function):
    """x (1 + tanh(u / 2)) / 2 as x sigmoid(u), u = 2 sqrt(2 / pi) (x + 0.044715 x^3): torch's tanh is slow on a CPU.

    Backward takes the sigmoid from the output, which the next layer holds anyway.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return (x * x).mul_(_SLOPE * _CUBE).add_(_SLOPE).mul_(x).sigmoid_().mul_(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)
        ctx.save_for_forward(inputs[0])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        x, output = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient itself is to be differentiated
            return torch.ops.aten.gelu_backward(grad, x, approximate="tanh")
        sigmoid = (output / x).nan_to_num_(0.5)  # 0 / 0 where x is 0
        bend = (x * x).mul_(3 * _SLOPE * _CUBE).add_(_SLOPE).mul_(output)  # x sigmoid(u) du/dx
        return bend.addcmul_(bend, sigmoid, value=-1).add_(sigmoid) * grad

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return torch.ops.aten.gelu_backward(tangent, ctx.saved_tensors[0], approximate="tanh")


class TanhGelu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return tanh_gelu(x)


class Mlp(nn.Module):
    """width -> hidden -> width with a GELU between: `forward(x (..., width)) -> (..., width)`.

    dropout: after each of the two layers; hidden_dropout: another rate after the first.  approximate: `tanh` is the GELU
    of flax's default and of the weights trained with it, `none` the exact one.  activation: instead of a GELU.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        dropout: float = 0.0,
        approximate: str = "tanh",
        activation: nn.Module | None = None,
        bias: bool = True,
        hidden_dropout: float | None = None,
    ) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden, bias=bias)
        self.activation = activation or (TanhGelu() if approximate == "tanh" else nn.GELU())
        self.down = nn.Linear(hidden, width, bias=bias)
        self.hidden_dropout = nn.Dropout(dropout if hidden_dropout is None else hidden_dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.down(self.hidden_dropout(self.activation(self.up(x)))))


class GatedMlp(nn.Module):
    """A perceptron whose hidden units are multiplied by a second linear map (GEGLU and its kin, 2002.05202).

    `forward(x (..., width)) -> (..., width)` = down(activation(gate(x)) * up(x)).  dropout: on the hidden units and on
    the result.  activation: the tanh form of GELU where not given, as T5 1.1 has it.
    """

    def __init__(
        self, width: int, hidden: int, dropout: float = 0.0, activation: nn.Module | None = None, bias: bool = False
    ) -> None:
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=bias)
        self.up = nn.Linear(width, hidden, bias=bias)
        self.activation = activation or TanhGelu()
        self.down = nn.Linear(hidden, width, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.down(self.dropout(self.activation(self.gate(x)) * self.up(x))))


class StochasticDepth(nn.Module):
    """Drops a residual branch for a whole example with probability `rate` in training, and rescales the others (1603.09382).

    `forward(branch (B, ...)) -> (B, ...)`.  rescale: False leaves the others as they are, so that training sees smaller
    branches than answering does.
    """

    def __init__(self, rate: float = 0.0, rescale: bool = True) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"a stochastic depth rate of {rate} is not in [0, 1)")
        self.rate, self.rescale = rate, rescale

    def forward(self, branch: Tensor) -> Tensor:
        if self.rate == 0 or not self.training:
            return branch
        keep = torch.rand(len(branch), *(1,) * (branch.ndim - 1), device=branch.device) >= self.rate
        return branch * keep / (1 - self.rate) if self.rescale else branch * keep


def depth_rates(rate: float, depth: int) -> list[float]:
    """One stochastic depth rate per block, rising linearly from 0 to `rate`."""
    return [rate * index / max(depth - 1, 1) for index in range(depth)]


def lecun_(module: nn.Module) -> None:
    """Initialise every linear and convolution layer below as flax does by default: truncated LeCun normal, zero bias."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            fan_in = layer.weight[0].numel()
            # a normal cut at two standard deviations keeps 0.8796 of its standard deviation
            std = fan_in**-0.5 / 0.87962566103423978
            nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
