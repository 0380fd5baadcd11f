"""The claims of My Paper, and the experiments that try them."""

from __future__ import annotations

import torch

from papertrial.core.paper import claim
from papertrial.papers import my_paper as paper


@claim("The gradient of a unit sums to zero, and centring it again changes nothing.", where="eq. 1", kind="property")
def units_sum_to_zero(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    gradient = torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 2
    once = paper.centred(gradient)
    left, moved = float(once.flatten(1).sum(1).abs().max()), float((paper.centred(once) - once).abs().max())
    return left < 1e-12 and moved < 1e-12, {"left": left, "moved": moved}
