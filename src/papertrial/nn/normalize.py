"""Input normalisation as part of the model, so that an exported model takes images in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalized(nn.Module):
    """A backbone that first takes the channel mean off its images and divides by the channel standard deviation.

    mean, std: one number per channel, of the training images in [0, 1].  Is itself a backbone: `width`,
    `forward((B, C, H, W)) -> (B, width)`, and `tokens`, `make_head`, `no_decay` where the inner one has them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.backbone = backbone
        self.width: int = backbone.width
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).clamp_min(1e-6).view(1, -1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        return self.backbone((image - self.mean) / self.std)

    def tokens(self, image: Tensor) -> Tensor:
        """(B, N, width); raises AttributeError when the backbone has no tokens."""
        return self.backbone.tokens((image - self.mean) / self.std)

    def make_head(self, outputs: int) -> nn.Module:
        make = getattr(self.backbone, "make_head", None)
        return make(outputs) if make else nn.Linear(self.width, outputs)

    def no_decay(self) -> set[str]:
        inner = getattr(self.backbone, "no_decay", None)
        return {f"backbone.{name}" for name in inner()} if inner else set()
