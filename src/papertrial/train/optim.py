"""Optimisers, parameter groups, schedules and the average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from papertrial.core.offers import offers
from papertrial.core.recipe import Optim


def rate(step: int, total: int, optim: Optim) -> float:
    """The share of lr that step `step` (from 0) of `total` is taken with: linear warm-up, then the schedule.

    The last warm-up step has the full rate, and so has every later one of `constant`; `cosine` falls to `end_lr`,
    which it would reach right after the last step, so that with `end_lr` 0 the last step still counts.
    """
    warm = round(optim.warmup * total)
    if step < warm:
        return (step + 1) / warm
    if optim.schedule == "constant":
        return 1.0
    return optim.end_lr + (1 - optim.end_lr) * 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))


def parameter_groups(model: nn.Module, optim: Optim) -> list[dict[str, Any]]:
    """Trainable parameters with lr and weight decay: `model.parameter_groups(optim)` where the model has it.

    Otherwise parameters of at most one dimension and those named by `model.no_decay()` are not decayed.
    Raises ValueError when the model's own groups leave a trainable parameter out, or hold one twice.
    """
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    held = offers(model)
    if held.parameter_groups:
        groups = [dict(group) for group in held.parameter_groups(optim)]
        for group in groups:
            group["params"] = [parameter for parameter in group["params"] if parameter.requires_grad]
        ids = [id(parameter) for group in groups for parameter in group["params"]]
        missing = [name for name, parameter in named.items() if id(parameter) not in ids]
        if missing or len(set(ids)) < len(ids):
            raise ValueError(f"parameter_groups leaves out {missing}" if missing else "parameter_groups repeats some")
    else:
        exempt = held.no_decay() if held.no_decay else set()
        plain = {name: parameter.ndim <= 1 or name in exempt for name, parameter in named.items()}
        groups = [
            {"params": [named[name] for name in named if not plain[name]], "weight_decay": optim.weight_decay},
            {"params": [named[name] for name in named if plain[name]], "weight_decay": 0.0},
        ]
    for group in groups:
        group["lr"] = group["base_lr"] = group.get("lr", optim.lr)
    return [group for group in groups if group["params"]]


def make_optimizer(model: nn.Module, optim: Optim) -> torch.optim.Optimizer:
    """The optimiser that `optim` names."""
    groups = parameter_groups(model, optim)
    if optim.optimizer == "adamw":
        parameters = [parameter for group in groups for parameter in group["params"]]
        fused = all(p.device.type in ("cuda", "cpu") and p.is_floating_point() for p in parameters)
        return torch.optim.AdamW(
            groups, lr=optim.lr, betas=(0.9, optim.beta2), weight_decay=optim.weight_decay, fused=fused
        )
    if optim.optimizer == "sgd":
        return torch.optim.SGD(
            groups,
            lr=optim.lr,
            momentum=optim.momentum,
            weight_decay=optim.weight_decay,
            nesterov=optim.momentum > 0,
            foreach=True,
        )
    if optim.optimizer == "adafactor":  # its step is lr, at most 1 / sqrt(steps), times the size of the weights
        return torch.optim.Adafactor(groups, lr=optim.lr, weight_decay=optim.weight_decay, foreach=True)
    return Lars(groups, lr=optim.lr, momentum=optim.momentum, weight_decay=optim.weight_decay)


def set_rate(optimizer: torch.optim.Optimizer, share: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * share


class Lars(torch.optim.Optimizer):
    """Layer-wise adaptive rates, You et al. 2017 (arXiv 1708.03888, algorithm 1), as Barlow Twins trains with it.

    d = gradient + weight_decay · w;  d ← d · eta |w| / |d|;  m ← momentum · m + d;  w ← w − lr · m.
    Parameters of at most one dimension (biases, norms) are neither decayed nor adapted (Barlow Twins, appendix A),
    and a factor with |w| = 0 or |d| = 0 is 1.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        eta: float = 1e-3,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "eta": eta})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            held = [parameter for parameter in group["params"] if parameter.grad is not None]
            for adapted in (True, False):
                weights = [parameter for parameter in held if (parameter.ndim > 1) == adapted]
                if weights:
                    self._update(weights, group, adapted)

    def _update(self, weights: list[Tensor], group: dict[str, Any], adapted: bool) -> None:
        steps: Any = [weight.grad for weight in weights]
        if adapted:
            steps = torch._foreach_add(steps, weights, alpha=group["weight_decay"])
            size = torch.stack(torch._foreach_norm(weights))
            length = torch.stack(torch._foreach_norm(steps))
            known = (size > 0) & (length > 0)
            factor = torch.where(known, group["eta"] * size / torch.where(known, length, 1.0), 1.0)
            torch._foreach_mul_(steps, list(factor.unbind()))
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["momentum"] = torch.zeros_like(weight)
        momenta = [self.state[weight]["momentum"] for weight in weights]
        torch._foreach_mul_(momenta, group["momentum"])
        torch._foreach_add_(momenta, steps)
        torch._foreach_add_(weights, momenta, alpha=-group["lr"])


class Ema:
    """An exponential moving average of the trainable weights, in float32 or wider.

    After update t (from 1) the decay is min(decay, (1 + t) / (10 + t)), so that short runs forget where they began.
    Buffers are not averaged: the averaged model has those of the trained one.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = [p for p in model.parameters() if p.requires_grad and p.is_floating_point()]
        self.average = [p.detach().to(torch.promote_types(p.dtype, torch.float32), copy=True) for p in self.weights]

    @torch.no_grad()
    def update(self, t: int) -> None:
        share = 1 - min(self.decay, (1 + t) / (10 + t))
        wide = [weight.to(average.dtype) for weight, average in zip(self.weights, self.average, strict=True)]
        torch._foreach_lerp_(self.average, wide, share)

    @torch.no_grad()
    def load(self) -> None:
        """Put the average into the model."""
        self._set(self.average)

    def _set(self, values: list[Tensor]) -> None:
        for weight, value in zip(self.weights, values, strict=True):  # `_foreach_copy_` does not know split tensors
            weight.copy_(value)

    @contextmanager
    def loaded(self) -> Iterator[None]:
        """The average in the model for a while."""
        trained = [weight.detach().clone() for weight in self.weights]
        self.load()
        try:
            yield
        finally:
            with torch.no_grad():
                self._set(trained)
