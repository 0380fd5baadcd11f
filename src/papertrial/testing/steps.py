"""A step of any model, as the battery takes it: the first rows as a batch, and the loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from papertrial.core.offers import offers
from papertrial.core.task import Split
from papertrial.nn.batches import to_tensors
from papertrial.nn.views import Draw


def first_batch(model: Any, rows: Split, count: int) -> dict[str, Tensor]:
    """The first rows as a batch on the CPU, views made."""
    batch = to_tensors(rows.take(slice(0, count)), torch.device("cpu"))
    views = offers(model).views
    return views(batch, Draw(0, 0, count, 0, count, torch.device("cpu"))) if views else batch


def loss_of(model: Any, batch: dict[str, Tensor]) -> Tensor:
    value = model.loss(batch)
    loss: Tensor = value["loss"] if isinstance(value, dict) else value
    return loss
