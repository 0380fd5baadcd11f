"""The two-layer perceptron of Transformers and Mixers, and the residual branch it lives in."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Mlp(nn.Module):
    """width -> hidden -> width with a GELU between: `forward(x (..., width)) -> (..., width)`.

    dropout: after each of the two layers.  approximate: `tanh` is the GELU of flax's default and of the weights trained
    with it, `none` the exact one.
    """

    def __init__(self, width: int, hidden: int, dropout: float = 0.0, approximate: str = "tanh") -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.gelu = nn.GELU(approximate=approximate)
        self.down = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.down(self.dropout(self.gelu(self.up(x)))))


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
