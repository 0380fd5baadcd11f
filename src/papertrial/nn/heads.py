"""Supervised training of any backbone: a head, a loss, and the names of the columns it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def fit_inputs(model: nn.Module, columns: Mapping[str, Any]) -> None:
    """Let the encoder of `model` take what it needs from its training inputs (quantiles, a vocabulary), if it does."""
    fit = getattr(getattr(model, "encoder", None), "fit_inputs", None)
    if fit is not None:
        fit(columns)


class Supervised(nn.Module):
    """Backbone, head and loss as one objective.

    inputs: names of the batch columns the backbone is called with, in order.  kind: `classes` (cross-entropy on the
    int64 column "label") or `value` (squared error on the float32 column "target", standardised with target_mean and
    target_std; `forward` answers on the original scale).  `forward(*inputs) -> (B, outputs)` logits, or (B,) values.
    """

    target_mean: Tensor
    target_std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        outputs: int,
        kind: str = "classes",
        inputs: Sequence[str] = ("image",),
        label_smoothing: float = 0.0,
        target_mean: float = 0.0,
        target_std: float = 1.0,
    ) -> None:
        super().__init__()
        if kind not in ("classes", "value"):
            raise ValueError(f"kind is {kind!r}, not 'classes' or 'value'")
        self.encoder = backbone
        make = getattr(backbone, "make_head", None)
        self.head = make(outputs) if make else nn.Linear(backbone.width, outputs)
        self.kind, self.inputs, self.label_smoothing = kind, tuple(inputs), label_smoothing
        self.register_buffer("target_mean", torch.tensor(float(target_mean)))
        self.register_buffer("target_std", torch.tensor(float(target_std)))

    def forward(self, *inputs: Tensor) -> Tensor:
        out = self.head(self.encoder(*inputs))
        return out if self.kind == "classes" else out.squeeze(-1) * self.target_std + self.target_mean

    def loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        out = self.head(self.encoder(*(batch[name] for name in self.inputs)))
        if self.kind == "classes":
            return F.cross_entropy(out, batch["label"], label_smoothing=self.label_smoothing)
        return F.mse_loss(out.squeeze(-1), (batch["target"] - self.target_mean) / self.target_std)

    def no_decay(self) -> set[str]:
        inner = getattr(self.encoder, "no_decay", None)
        return {f"encoder.{name}" for name in inner()} if inner else set()
