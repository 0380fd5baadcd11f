"""The claims of My Paper, and the experiments that try them."""

from __future__ import annotations

import torch

from papertrial.core.paper import claim
from papertrial.papers import my_paper as paper


@claim("Neither rotation nor scale changes the rank, and equal rows have 1.", where="eq. 1", kind="property")
def rank_is_of_the_shape(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    generator = torch.Generator().manual_seed(seed)
    x_BD = torch.randn(32, 8, generator=generator, dtype=torch.float64)
    turn_DD = torch.linalg.qr(torch.randn(8, 8, generator=generator, dtype=torch.float64)).Q
    gap = abs(paper.effective_rank(3 * x_BD @ turn_DD) - paper.effective_rank(x_BD))
    alone = paper.effective_rank(x_BD[:1].expand(32, -1))
    return gap < 1e-9 and alone == 1, {"gap": gap, "equal_rows": alone}
