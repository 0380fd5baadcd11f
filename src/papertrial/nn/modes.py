"""How a network runs: to answer or to learn, on which device, and in which arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """`eval()` for a while; afterwards every module is as it was (a frozen part stays in eval)."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def device_of(model: nn.Module) -> torch.device:
    """Where the parameters are; the CPU for a model without any."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def cpu_has_bf16() -> bool | None:
    """Whether this processor multiplies in bfloat16 by instructions of its own; None where that is not known."""
    has: dict[str, Any] = getattr(
        torch.cpu, "get_capabilities", dict
    )()  # newer than the oldest torch that is supported
    if has.get("architecture") != "x86_64":
        return None
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))
