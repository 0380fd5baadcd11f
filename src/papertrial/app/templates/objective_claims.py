"""The claims of My Paper, and the experiments that try them."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from papertrial.core.paper import claim
from papertrial.papers import my_paper as paper


@claim("Rows that are all the same have the worst uniformity, which is zero.", where="eq. 1", kind="property")
def collapse_is_the_worst(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    generator = torch.Generator().manual_seed(seed)
    z_BD = F.normalize(torch.randn(32, 8, generator=generator, dtype=torch.float64), dim=1)
    spread, collapsed = float(paper.uniformity(z_BD)), float(paper.uniformity(z_BD[:1].expand(32, -1)))
    return abs(collapsed) < 1e-12 and spread < 0, {"spread": spread, "collapsed": collapsed}
