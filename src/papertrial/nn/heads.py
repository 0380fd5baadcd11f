"""Backbones with a loss: supervised training with a head of its own, and predicting the next token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from papertrial.core.offers import offers
from papertrial.nn.transformer import auxiliary


def fit_inputs(model: nn.Module, columns: Mapping[str, Any]) -> None:
    """Let the encoder of `model` take what it needs from its training inputs (quantiles, a vocabulary), if it does."""
    fit = offers(offers(model).encoder).fit_inputs
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
        backbone: Any,
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
        self.encoder: Any = backbone
        make = offers(backbone).make_head
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
            loss = F.cross_entropy(out, batch["label"], label_smoothing=self.label_smoothing)
        else:
            loss = F.mse_loss(out.squeeze(-1), (batch["target"] - self.target_mean) / self.target_std)
        return sum(auxiliary(self.encoder).values(), loss)

    def no_decay(self) -> set[str]:
        return offers(self.encoder).exempt("encoder")


class NextToken(nn.Module):
    """A causal text backbone as a language model: each token is predicted from those before it, the first one from `start`.

    backbone: has `tokeniser` and `logits(ids (B, N)) -> (B, N, V)`, where a token sees itself and those before it; of one
    with `figures() -> dict`, these numbers are logged beside the loss.  start: id that stands before every row, the
    tokeniser's `end` or, without one, its `pad`.  `forward(ids (B, N)) -> (B, N)`: nats of each token, 0 at padding.
    """

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.encoder: Any = backbone
        self.tells = offers(backbone).figures is not None
        tokeniser = backbone.tokeniser
        self.pad, self.start = tokeniser.pad, tokeniser.pad if tokeniser.end is None else tokeniser.end

    def forward(self, ids: Tensor) -> Tensor:
        # what is padded stands behind every token, so a causal model needs no other mask than this one
        nats = F.cross_entropy(self.logits(ids).flatten(0, 1), ids.flatten(), reduction="none")
        return nats.view(ids.shape) * self.held(ids)

    def logits(self, ids: Tensor) -> Tensor:
        """Of each token, given those before it: ids (B, N) -> (B, N, V)."""
        logits: Tensor = self.encoder.logits(F.pad(ids[:, :-1], (1, 0), value=self.start))
        return logits

    def loss(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Mean nats of a token of the column "ids" plus what the backbone adds to its loss, each of which is logged."""
        ids = batch["ids"]
        nats = self(ids).sum() / self.held(ids).sum()
        added = auxiliary(self.encoder)
        figures = self.encoder.figures() if self.tells else {}
        return {"loss": sum(added.values(), nats), "nats_per_token": nats.detach(), **added, **figures}

    def held(self, ids: Tensor) -> Tensor:
        """bool (B, N): up to the last token that is no padding, because `pad` may also be the `end` between two texts."""
        return ids.ne(self.pad).flip(1).cumsum(1).flip(1) > 0
