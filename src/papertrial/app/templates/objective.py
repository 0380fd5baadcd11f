"""My Paper - one line on what it is.

Its authors. Venue, arXiv 0000.00000.

The idea
    This page and the file below it are what `papertrial new` writes: a small objective that learns from two views of an
    image, in the order that every paper has. Replace them piece by piece; the checks pass from the start and should go
    on to.

The equation
    L = mean |za - zb|^2 + weight * log mean_{i != j} exp(-2 |z_i - z_j|^2), za and zb on the unit sphere   (eq. 1)

What matters
    What the text says in passing and the results hang on.

Requires / Offers
    Requires images, no labels, and a batch of 2 or more. Offers embed; a linear probe on it predicts.

Relations
    What it builds on, and what came of it.

Try
    papertrial fit my_paper --data photos/ --backbone resnet

Cost
    tiny: seconds on a CPU. base: minutes on a CPU.

Notation
    B rows of the global batch, D width of the projection, za and zb projections of the two views.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from papertrial.core.budget import Budget
from papertrial.core.facts import Facts
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced
from papertrial.nn.ranks import all_rows
from papertrial.nn.views import Draw, gaussian_blur, random_resized_crop

PAPER = Paper(
    id="my_paper",
    title="My Paper",
    kind="objective",
)


@checked
@dataclass(frozen=True)
class Config:
    projection: int = sourced(64, "where the paper says so", "[1, 65536]")
    weight: float = sourced(1.0, "where the paper says so", "[0, 1000]")
    crop: float = sourced(0.3, "where the paper says so; least area of a crop", "(0, 1]")


def alignment(za_BD: Tensor, zb_BD: Tensor) -> Tensor:
    """Mean squared distance of the two views, a scalar. (eq. 1, first term)"""
    return (za_BD - zb_BD).square().sum(1).mean()


def uniformity(z_BD: Tensor) -> Tensor:
    """Logarithm of the mean of exp(-2 |z_i - z_j|^2) over pairs, a scalar; the rows are on the unit sphere. (eq. 1)"""
    similar_BB = 4 * (z_BD @ z_BD.T - 1)
    itself_BB = torch.eye(len(z_BD), dtype=torch.bool, device=z_BD.device)
    return similar_BB.masked_fill(itself_BB, -math.inf).logsumexp((0, 1)) - math.log(len(z_BD) * (len(z_BD) - 1))


class MyPaper(nn.Module):
    """The objective on any backbone. `loss({"view_a": (B, C, H, W), "view_b": ...})` gives the loss and its two terms."""

    def __init__(self, config: Config, backbone: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.encoder = backbone
        self.projector = nn.Linear(backbone.width, config.projection)

    def views(self, batch: Mapping[str, Tensor], draw: Draw) -> dict[str, Tensor]:
        """Two views of "image" (B, C, H, W) in [0, 1]."""
        return {name: self._view(batch["image"], draw) for name in ("view_a", "view_b")}

    def _view(self, image: Tensor, draw: Draw) -> Tensor:
        return gaussian_blur(random_resized_crop(image, draw, scale=(self.config.crop, 1.0)), draw, 0.5, (0.1, 0.5))

    def loss(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # all_rows: the loss looks across the batch, and the batch is that of all processes together
        za_BD, zb_BD = (
            all_rows(F.normalize(self.projector(self.encoder(batch[name])), dim=1)) for name in ("view_a", "view_b")
        )
        near, spread = alignment(za_BD, zb_BD), uniformity(torch.cat([za_BD, zb_BD]))
        return {"loss": near + self.config.weight * spread, "alignment": near.detach(), "uniformity": spread.detach()}


def build(config: Config, facts: Facts, backbone: nn.Module | None = None) -> MyPaper:
    if backbone is None:
        raise ValueError("my_paper trains a backbone, and none was given")
    return MyPaper(config, backbone)


recipes = {
    "paper": Recipe("paper", config={"projection": 128}, optim={"epochs": 100}, source="where the paper says so"),
    "base": Recipe("base", optim={"lr": 1e-3, "batch": 128}, source="chosen on data of your own"),
    "tiny": Recipe(
        "tiny",
        config={"projection": 32},
        optim={"lr": 2e-3, "batch": 64},
        budget=Budget(steps=60),
        source="small enough for tests",
    ),
}
