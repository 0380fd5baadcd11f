"""ResNet - the convolutional network that papers on images are compared with.

Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun. CVPR 2016, arXiv 1512.03385.

The idea
    Blocks of convolutions that add to what passes through them, so that depth costs no trainability.

The equation
    y = relu(x + F(x)), F = conv-BN-relu-conv-BN, and a strided projection of x where the size changes.

What matters
    The stem: 7x7 with pooling for photographs of 224 pixels, one 3x3 convolution for small images. The last norm of each
    block starts at zero, so that blocks start as identities.

Requires / Offers
    Requires images of any size. Offers embed (mean over positions), tokens (positions), predict.

Relations
    The supervised reference of the image tasks, and the default backbone of objectives.

Try
    papertrial fit resnet --data photos/

Cost
    tiny: seconds on a CPU. base: minutes on a CPU.

Notation
    B batch, C channels, H and W height and width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from papertrial.core.budget import Budget
from papertrial.core.facts import Facts
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced
from papertrial.nn.ranks import BatchNorm

PAPER = Paper(
    id="resnet",
    title="Deep Residual Learning for Image Recognition",
    kind="architecture",
    method="ResNet",
    idea="Convolutions in blocks that add to what passes through them.",
    authors="Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun",
    year=2016,
    arxiv="1512.03385",
    tasks=("image_classification", "image_representation"),
    tags=("vision", "convolution", "supervised"),
    caveats=(
        "Batch norm needs a batch of several examples in training; its statistics are those of the global batch on several ranks.",
    ),
)


def _small(facts: Facts) -> bool:
    return 0 < max(facts.height, facts.width) <= 96


@checked
@dataclass(frozen=True)
class Config:
    stem: str = sourced(
        "large",
        "table 1: 7x7 and pooling; `small` is one 3x3 convolution",
        "large | small",
        auto=lambda facts: "small" if _small(facts) else None,
    )
    block: str = sourced("basic", "table 1, 18 layers; `bottleneck` from 50 layers on", "basic | bottleneck")
    width: int = sourced(64, "table 1", "[1, 8192]", auto=lambda facts: 32 if _small(facts) else None)
    depths: tuple[int, ...] = sourced(
        (2, 2, 2, 2),
        "table 1, 18 layers",
        "1 to 8 of [1, 256]",
        auto=lambda facts: (1, 1, 1) if _small(facts) else None,
    )
    stem_stride: int = sourced(
        2, "table 1", "[1, 8]", auto=lambda facts: 1 + (facts.height > 24) if _small(facts) else None
    )


def convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    """Without bias, padded to keep the size at stride 1, He initialisation. Channels lie last in memory, which is faster."""
    layer = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer.to(memory_format=torch.channels_last)


class Block(nn.Module):
    """`basic`: two 3x3 convolutions. `bottleneck`: 1x1, 3x3 with the stride, 1x1 to four times the width."""

    def __init__(self, inputs: int, width: int, stride: int, kind: str) -> None:
        super().__init__()
        outputs = width if kind == "basic" else 4 * width
        shapes = [(inputs, width, 3, stride), (width, outputs, 3, 1)]
        if kind == "bottleneck":
            shapes = [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)]
        self.convolutions = nn.ModuleList(convolution(*shape) for shape in shapes)
        self.norms = nn.ModuleList(BatchNorm(shape[1]) for shape in shapes)
        nn.init.zeros_(self.norms[-1].weight)
        same = stride == 1 and inputs == outputs
        self.skip = (
            nn.Identity() if same else nn.Sequential(convolution(inputs, outputs, 1, stride), BatchNorm(outputs))
        )

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for index, (convolve, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            out = norm(convolve(F.relu(out) if index else out))
        return F.relu(out + self.skip(x))


class ResNet(nn.Module):
    """The backbone: images (B, C, H, W) -> (B, width), the mean over positions."""

    def __init__(self, config: Config, channels: int) -> None:
        super().__init__()
        large = config.stem == "large"
        pool = [nn.MaxPool2d(3, 2, 1)] if large else []
        stem = convolution(channels, config.width, 7 if large else 3, config.stem_stride)
        self.stem = nn.Sequential(stem, BatchNorm(config.width), nn.ReLU(), *pool)
        blocks: list[nn.Module] = []
        inputs = config.width
        for stage, depth in enumerate(config.depths):
            for index in range(depth):
                width = config.width * 2**stage
                blocks.append(Block(inputs, width, 2 if stage and not index else 1, config.block))
                inputs = width if config.block == "basic" else 4 * width
        self.blocks = nn.Sequential(*blocks)
        self.width = inputs

    def features(self, image: Tensor) -> Tensor:
        """(B, width, H', W')."""
        return self.blocks(self.stem(image.contiguous(memory_format=torch.channels_last)))

    def tokens(self, image: Tensor) -> Tensor:
        """(B, positions, width), row by row."""
        return self.features(image).flatten(2).transpose(1, 2)

    def forward(self, image: Tensor) -> Tensor:
        return self.features(image).mean((2, 3))


def build(config: Config, facts: Facts, backbone: nn.Module | None = None) -> ResNet:
    return ResNet(config, facts.channels)


#: table 1 of the paper, for photographs of 224 pixels
variants = {
    "18": {"stem": "large", "block": "basic", "width": 64, "depths": (2, 2, 2, 2), "stem_stride": 2},
    "50": {"stem": "large", "block": "bottleneck", "width": 64, "depths": (3, 4, 6, 3), "stem_stride": 2},
}

recipes = {
    "paper": Recipe(
        "paper",
        config=variants["18"],
        optim={
            "optimizer": "sgd",
            "lr": 0.1,
            "momentum": 0.9,
            "weight_decay": 1e-4,
            "batch": 256,
            "clip": 0.0,
            "epochs": 90,
        },
        budget=Budget(samples=90 * 1_281_167),
        source="sec. 3.4 with a cosine schedule, ImageNet at 224",
    ),
    "base": Recipe(
        "base",
        optim={"lr": 3e-3, "weight_decay": 0.05, "batch": 64, "warmup": 0.1},
        source="rates chosen on MNIST, the batch on CIFAR-10 and Fashion-MNIST",
    ),
    "tiny": Recipe(
        "tiny",
        config={"width": 8, "depths": (1, 1)},
        optim={"lr": 5e-3, "batch": 32},
        budget=Budget(steps=60),
        source="small enough for tests",
        cost="seconds on a CPU",
    ),
}
