"""Gradients of single rows, all at once: what clipping before averaging needs (differential privacy).

`torch.func` differentiates the loss of a row alone and maps that over the rows. What a row costs must not depend on the rows
beside it, which batch norms and losses that compare rows break: these are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from papertrial.core.errors import Declined
from papertrial.nn.modes import evaluating
from papertrial.nn.packing import padded

_ROOM = 1 << 26  # numbers that the gradients of one piece may hold


class RowGradients:
    """objective: a module whose forward pass is the loss of a batch. Its parameters that ask for a gradient are looked at."""

    def __init__(self, objective: nn.Module) -> None:
        self.objective, self.checked = objective, False
        self._refuse_batch_norm()

    def __call__(
        self, batch: Mapping[str, Tensor], change: Callable[[dict[str, Tensor]], dict[str, Tensor]]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Add to `.grad` the sum over rows of `change({name: (rows, ...)})`. Returns the sums over rows of the loss, and of the
        numbers beside it.

        Raises Declined for a loss that looks across rows, or that cannot be mapped over them.
        """
        if not self.checked:
            self._refuse_neighbours(batch)
            self.checked = True
        parameters = {name: p for name, p in self.objective.named_parameters() if p.requires_grad}
        rows = len(next(iter(batch.values())))
        piece = max(1, _ROOM // max(1, sum(p.numel() for p in parameters.values())))
        total = torch.zeros((), device=next(iter(parameters.values())).device)
        beside: dict[str, Tensor] = {}
        for begin in range(0, rows, piece):
            part = {name: tensor[begin : begin + piece] for name, tensor in batch.items()}
            gradients, (losses, others) = self._mapped(parameters, part)
            for name, gradient in change(gradients).items():
                held, summed = parameters[name], gradient.sum(0)
                held.grad = summed if held.grad is None else held.grad + summed
            total = total + losses.sum()
            beside = {name: beside.get(name, 0.0) + values.sum() for name, values in others.items()}
        return total, beside

    def _mapped(self, parameters: dict[str, Tensor], batch: dict[str, Tensor]) -> Any:
        def loss(trained: dict[str, Tensor], row: dict[str, Tensor]) -> tuple[Tensor, tuple[Tensor, dict[str, Tensor]]]:
            alone = {name: tensor.unsqueeze(0) for name, tensor in row.items()}
            value, others = _parts(functional_call(self.objective, trained, (alone,)))
            return value, (value.detach(), others)

        detached = {name: p.detach() for name, p in parameters.items()}
        try:
            with padded(), sdpa_kernel(SDPBackend.MATH):  # the others are not mapped, but called row by row
                return vmap(grad(loss, has_aux=True), in_dims=(None, 0), randomness="different")(detached, batch)
        except (RuntimeError, NotImplementedError) as error:
            first = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise Declined(
                f"the model cannot be differentiated row by row ({first})", "choose another model with --host"
            ) from error

    def _refuse_batch_norm(self) -> None:
        for name, module in self.objective.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                raise Declined(
                    f"the model normalises each row by the others ({name.removeprefix('model.')}), so no row has a gradient of its own",
                    "choose a model without batch norm, such as --host vit or mlp_mixer",
                )

    @torch.no_grad()
    def _refuse_neighbours(self, batch: Mapping[str, Tensor]) -> None:
        """A row beside a copy of itself costs what it costs alone, unless the loss compares rows."""

        def loss(copies: int) -> Tensor:
            rows = {name: tensor[:1].repeat(copies, *(1,) * (tensor.ndim - 1)) for name, tensor in batch.items()}
            return _parts(self.objective(rows))[0]

        with evaluating(self.objective):
            alone, twice = loss(1), loss(2)
        if not torch.allclose(alone, twice, rtol=1e-4, atol=1e-6):
            raise Declined(
                "the loss of the model compares rows with each other, so no row has a gradient of its own",
                "choose another model with --host",
            )


def _parts(result: Any) -> tuple[Tensor, dict[str, Tensor]]:
    if not isinstance(result, Mapping):
        return result, {}
    others = {name: value.detach() for name, value in result.items() if name != "loss" and isinstance(value, Tensor)}
    return result["loss"], others
