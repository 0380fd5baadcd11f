"""The claims of My Paper, and the experiments that try them."""

from __future__ import annotations

import torch

from papertrial.core.paper import claim
from papertrial.papers import my_paper as paper


@claim("Doubling the input of the activation makes its output four times as large.", where="eq. 1", kind="property")
def activation_is_of_degree_two(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    gap = float((paper.squared_relu(2 * x) - 4 * paper.squared_relu(x)).abs().max())
    return gap < 1e-12, {"gap": gap}
