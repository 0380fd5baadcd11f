"""ViT - the Transformer on image patches that papers on images are compared with.

Alexey Dosovitskiy and others. ICLR 2021, arXiv 2010.11929.

The idea
    Cut the image into patches, embed each, add positions, and let attention mix them.

The equation
    x += Attention(LN(x)); x += MLP(LN(x)); then LN and the mean over tokens.

What matters
    Positions, and data: on few images it trails a convolutional network. Attention that begins as it ends in large models, each
    token looking at those near to it, makes up for a part (Trockman and Kolter, ICML 2023): `init=mimetic`, as recipe base has it.

Requires / Offers
    Requires images of one size that the patch divides. Offers embed (mean token), tokens (B, N, width), predict.

Relations
    MLP-Mixer replaces its attention by a perceptron across tokens.

Try
    papertrial fit vit --data photos/

Cost
    tiny: seconds on a CPU. base: minutes on a CPU.

Notation
    B batch, N tokens (patches), C width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from papertrial.core.budget import Budget
from papertrial.core.facts import Facts
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced
from papertrial.nn.attention import Attention
from papertrial.nn.mlp import Mlp, StochasticDepth, depth_rates, lecun_
from papertrial.nn.patch import Patches, suited_patch

PAPER = Paper(
    id="vit",
    title="An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale",
    kind="architecture",
    method="VisionTransformer",
    idea="A Transformer encoder on embedded image patches.",
    authors="Alexey Dosovitskiy, Lucas Beyer, Alexander Kolesnikov, Dirk Weissenborn, Xiaohua Zhai and others",
    year=2021,
    arxiv="2010.11929",
    tasks=("image_classification", "image_representation"),
    tags=("vision", "attention", "supervised"),
    caveats=(
        "Features are the mean over tokens and positions are fixed sines: the plain variant of 2205.01580, which learns "
        "faster than the class token and learned positions of the paper.",
    ),
)


def _small(facts: Facts) -> bool:
    return 0 < max(facts.height, facts.width) <= 96


@checked
@dataclass(frozen=True)
class Config:
    patch: int = sourced(
        16,
        "table 1, B/16",
        "[1, 1024], divides image",
        auto=lambda facts: suited_patch(facts.height, facts.width) if facts.height else None,
    )
    width: int = sourced(
        768,
        "table 1, base",
        "[4, 65536], multiple of heads, multiple of 4",
        auto=lambda facts: 64 if _small(facts) else None,
    )
    depth: int = sourced(12, "table 1, base", "[1, 256]", auto=lambda facts: 4 if _small(facts) else None)
    heads: int = sourced(12, "table 1, base", "[1, 1024]", auto=lambda facts: 4 if _small(facts) else None)
    hidden: int = sourced(3072, "table 1, base", "[1, 262144]", auto=lambda facts: 256 if _small(facts) else None)
    dropout: float = sourced(0.0, "papertrial default; table 3 has 0.1 on ImageNet", "[0, 1)")
    stochastic_depth: float = sourced(0.0, "papertrial default", "[0, 1)")
    init: str = sourced("xavier", "the authors' code; `mimetic` is 2305.09828, eq. 3 and 4", "xavier | mimetic")


class Layer(nn.Module):
    """Attention, then a perceptron, each on a normalised residual branch. (B, N, C) -> (B, N, C)."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float = 0.0, depth_rate: float = 0.0) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width, eps=1e-6)
        self.attention = Attention(width, heads)
        self.norm_mlp = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, hidden, dropout, approximate="none")
        self.depth = StochasticDepth(depth_rate)

    def forward(self, x_BNC: Tensor) -> Tensor:
        x_BNC = x_BNC + self.depth(self.attention(self.norm_attention(x_BNC)))
        return x_BNC + self.depth(self.mlp(self.norm_mlp(x_BNC)))


def sincos(rows: int, columns: int, width: int) -> Tensor:
    """(rows * columns, width): fixed positions, sines and cosines of both coordinates at width / 4 frequencies.

    Raises ValueError when 4 does not divide width.
    """
    if width % 4:
        raise ValueError(f"positions need a width that 4 divides, not {width}")
    frequency = 10_000 ** -torch.linspace(0, 1, width // 4)
    down = torch.arange(rows)[:, None] * frequency
    across = torch.arange(columns)[:, None] * frequency
    angle = torch.cat([down.repeat_interleave(columns, 0), across.repeat(rows, 1)], 1)
    return torch.cat([angle.sin(), angle.cos()], 1)


@torch.no_grad()
def mimetic_(attention: Attention, near: float = 0.7, turned: float = 0.4) -> None:
    """Weights that look as trained ones do (arXiv 2305.09828): query and key of each head multiply to near (Z + I), so that a
    token attends to those alike and, by their positions, near; value and output to turned (Z - I). Z is normal with variance
    1 / width, and the product is split in two by its singular values."""
    width, heads, span = attention.query.in_features, attention.heads, attention.head_width
    for head in range(heads):
        rows = slice(head * span, (head + 1) * span)
        left, size, right = torch.linalg.svd(near * (torch.randn(width, width) / width**0.5 + torch.eye(width)))
        attention.query.weight[rows] = (left[:, :span] * size[:span].sqrt()).T
        attention.key.weight[rows] = size[:span].sqrt()[:, None] * right[:span]
    left, size, right = torch.linalg.svd(turned * (torch.randn(width, width) / width**0.5 - torch.eye(width)))
    attention.value.weight.copy_((left * size.sqrt()).T)
    attention.out.weight.copy_((size.sqrt()[:, None] * right).T)


class VisionTransformer(nn.Module):
    """The backbone: images (B, channels, height, width) -> (B, width), the mean of the normalised tokens."""

    positions: Tensor

    def __init__(self, config: Config, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.width = config.width
        self.patches = Patches(channels, height, width, config.patch, config.width)
        self.register_buffer("positions", sincos(*self.patches.grid, config.width), persistent=False)
        rates = depth_rates(config.stochastic_depth, config.depth)
        self.layers = nn.Sequential(
            *(Layer(config.width, config.heads, config.hidden, config.dropout, rate) for rate in rates)
        )
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        lecun_(self.patches)
        for module in self.layers.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if config.init == "mimetic" and not self.positions.is_meta:
            for layer in self.layers:
                mimetic_(layer.attention)

    def tokens(self, image: Tensor) -> Tensor:
        """(B, N, width), patches row by row, after the last norm."""
        return self.norm(self.layers(self.patches(image) + self.positions))

    def forward(self, image: Tensor) -> Tensor:
        return self.tokens(image).mean(1)


def build(config: Config, facts: Facts, backbone: nn.Module | None = None) -> VisionTransformer:
    return VisionTransformer(config, facts.channels, facts.height, facts.width)


def _size(patch: int, width: int, depth: int, heads: int) -> dict[str, Any]:
    return {"patch": patch, "width": width, "depth": depth, "heads": heads, "hidden": 4 * width, "init": "xavier"}


#: S/16 from 2106.10270, the others from table 1 of the paper; they begin as published, whatever the recipe
variants = {
    "S/16": _size(16, 384, 12, 6),
    "B/32": _size(32, 768, 12, 12),
    "B/16": _size(16, 768, 12, 12),
    "L/16": _size(16, 1024, 24, 16),
}

# the patch stays with its rule, which is 16 at 224 pixels
_BASE = {name: value for name, value in variants["B/16"].items() if name != "patch"}

recipes = {
    "paper": Recipe(
        "paper",
        config={**_BASE, "dropout": 0.1},
        optim={"lr": 3e-3, "weight_decay": 0.3, "batch": 4096, "clip": 1.0, "warmup": 0.1, "epochs": 300},
        budget=Budget(samples=300 * 1_281_167),
        source="table 3, ImageNet alone at 224",
    ),
    "base": Recipe(
        "base",
        config={"init": "mimetic"},
        optim={"lr": 3e-3, "weight_decay": 0.05, "batch": 64, "warmup": 0.1},
        source="rates chosen on MNIST, the initialisation on CIFAR-10",
    ),
    "tiny": Recipe(
        "tiny",
        config={"width": 32, "depth": 2, "heads": 2, "hidden": 64},
        optim={"lr": 3e-3, "batch": 32},
        budget=Budget(steps=100),
        source="small enough for tests",
        cost="seconds on a CPU",
    ),
}
