"""Alarms: values that are not finite, explained by layer, and representations that collapse."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from papertrial.core.errors import TrainingStopped
from papertrial.core.offers import offers
from papertrial.core.task import Split
from papertrial.nn.batches import to_tensors
from papertrial.nn.heads import Supervised
from papertrial.nn.modes import evaluating

_PROBE = 128  # rows
_CHECKS = 40  # looks over a whole training
_LOW = 0.05  # share of the largest spread seen that counts as collapsed
_REAL = 0.01  # a largest spread below this was never a representation, so it cannot collapse
_PATIENCE = 3  # looks in a row
_FLAT = 1e-3  # spread of outputs, relative to their size, below which all are called the same


def explain_nonfinite(model: nn.Module, batch: Mapping[str, Any], loss: Callable[[], Any]) -> str:
    """Where the first value that is not finite comes from, in words.

    `loss()` runs the forward pass again with the weights as they were before the step; gradients of the step are
    still in place.
    """
    for name, parameter in model.named_parameters():
        if not _finite(parameter):
            return f"the weights {name} were not finite before this step"
    first, source, largest = "", "", 0.0

    def hook(name: str) -> Callable[..., None]:
        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            nonlocal first, source, largest
            for tensor in _float_tensors(output):
                if first:
                    return
                if not _finite(tensor):
                    first = f"{name or 'the model'} ({type(module).__name__})"
                elif tensor.numel() and (size := float(tensor.abs().max())) > largest:
                    largest, source = size, name or "the model"

        return look

    hooks = [module.register_forward_hook(hook(name)) for name, module in model.named_modules()]
    try:
        with torch.no_grad():
            result = loss()
    finally:
        for handle in hooks:
            handle.remove()
    before = f", after a largest activation of {largest:.3g} in {source}" if source else ""
    values = ", ".join(
        f"{int((~torch.isfinite(value)).sum())} values of the batch column {name} are not finite"
        for name, value in batch.items()
        if isinstance(value, Tensor) and not _finite(value)
    )
    hint = f" ({values})" if values else ""
    if first:
        return f"it begins in the output of {first}{before}{hint}"
    if not _finite(result["loss"] if isinstance(result, Mapping) else result):
        return f"it begins in the loss itself{before}{hint}"
    bad = [name for name, p in model.named_parameters() if p.grad is not None and not _finite(p.grad)]
    if bad:
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        return f"the loss is finite, but not the gradient of {bad[-1]}{more}{before}{hint}"
    return f"the gradient's norm overflows{before}{hint}"


class CollapseWatch:
    """Looks at features of a fixed probe batch, in eval mode, about forty times in a training.

    Spread: per feature, standard deviation over the probe divided by root mean square, averaged over features: 1 for
    centred features, 0 when every example has the same. Effective rank: exp of the entropy of the singular values'
    shares (Roy & Vetterli 2007). A spread below a twentieth of the largest seen, three looks in a row, stops the
    training; not for `Supervised` models, whose identical outputs are only noted.
    `state` is kept in the checkpoint. Models without an `encoder`, or with one that does not take the columns of
    `split` (those in `model.inputs`, else "image", else "numeric" and "categorical"), are not watched.
    """

    def __init__(self, model: nn.Module, split: Split, device: torch.device, total: int) -> None:
        self.model = model
        self.encoder = offers(model).encoder
        self.every = max(25, total // _CHECKS)
        self.state: dict[str, Any] = {"largest": 0.0, "low": 0, "since": 0, "noted": False}
        self.inputs = _inputs(model, split)
        self.on = callable(self.encoder) and bool(self.inputs)
        if self.on:
            rows = np.linspace(0, split.examples - 1, min(_PROBE, split.examples)).astype(np.int64)
            probe = to_tensors({name: split[name][rows] for name in self.inputs}, device)
            self.probe = [probe[name] for name in self.inputs]
            try:
                with torch.no_grad(), evaluating(model):
                    self.state["largest"] = spread(self.encoder(*self.probe).flatten(1))
            except Exception:  # an encoder of other inputs than these is not watched
                self.on = False

    def due(self, step: int) -> bool:
        return self.on and step % self.every == 0

    def look(self, step: int) -> dict[str, Any]:
        """Figures for the log. Raises TrainingStopped when the features have collapsed."""
        with torch.no_grad(), evaluating(self.model):
            features = self.encoder(*self.probe).flatten(1)
            seen = spread(features)
            row: dict[str, Any] = {"feature_spread": seen, "feature_rank": effective_rank(features)}
            if isinstance(self.model, Supervised):
                return {**row, **self._note_flat(step)}
        self.state["largest"] = max(self.state["largest"], seen)
        if self.state["largest"] < _REAL or seen >= _LOW * self.state["largest"]:
            self.state["low"] = 0
            return row
        if self.state["low"] == 0:
            self.state["since"] = step
        self.state["low"] += 1
        if self.state["low"] >= _PATIENCE:
            raise TrainingStopped(
                f"the features collapsed: since step {self.state['since']} all examples have nearly the same "
                f"(spread {seen:.2g}, {self.state['largest']:.2g} at best)",
                "try a lower --set lr=..., a larger --set batch=..., or --set precision=fp32",
            )
        return row

    def _note_flat(self, step: int) -> dict[str, Any]:
        out = self.model(*self.probe).double()
        size = self.model.target_std if self.model.kind == "value" else out.abs().max()
        flat = len(out) > 1 and float(out.std(0, correction=0).max()) <= _FLAT * float(size)
        self.state["low"] = self.state["low"] + 1 if flat else 0
        if self.state["low"] < _PATIENCE or self.state["noted"]:
            return {}
        self.state["noted"] = True
        return {"note": f"at step {step} the model gives every example the same answer; a lower lr may help"}


def spread(features: Tensor) -> float:
    """(N, D) -> mean over D of standard deviation / root mean square; a feature that is always 0 counts as 0."""
    wide = features.double()
    deviation, size = wide.std(0, correction=0), wide.square().mean(0).sqrt()
    return float(torch.where(size > 0, deviation / size.clamp_min(torch.finfo(torch.float64).tiny), 0.0).mean())


def effective_rank(features: Tensor) -> float:
    """(N, D) -> exp of the entropy of the centred features' singular values as shares, between 1 and min(N - 1, D)."""
    wide = features.double()
    wide = wide - wide.mean(0)
    gram = wide @ wide.T if len(wide) < wide.shape[1] else wide.T @ wide
    values = torch.linalg.eigvalsh(gram.cpu()).clamp_min(0).sqrt()
    shares = values / values.sum().clamp_min(torch.finfo(torch.float64).tiny)
    return float(torch.special.entr(shares).sum().exp())


def _inputs(model: nn.Module, split: Split) -> tuple[str, ...]:
    named = offers(model).inputs
    if not named:
        named = ("image",) if "image" in split else tuple(name for name in ("numeric", "categorical") if name in split)
    return named if all(name in split for name in named) else ()


def _float_tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from _float_tensors(entry)
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _float_tensors(entry)


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())
