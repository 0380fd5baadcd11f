"""MLP-Mixer - an all-MLP architecture for vision.

Ilya Tolstikhin, Neil Houlsby, Alexander Kolesnikov, Lucas Beyer and others. NeurIPS 2021, arXiv 2105.01601.

The idea
    Cut the image into patches, embed each, and apply two kinds of perceptron in turn: one across patches, the same for
    every channel, and one across channels, the same for every patch. No convolution beyond the patches, no attention,
    no positions: with enough data, little of the usual structure is needed.

The equation
    U = X + (W2 gelu(W1 LN(X)^T))^T        over the tokens, per channel      (eq. 1)
    Y = U + W4 gelu(W3 LN(U))              over the channels, per token      (eq. 1)
    then LN, the mean over tokens, and a linear head that starts at zero.

What matters
    The token perceptron has one weight per position: the size of the images is part of the model. Its hidden width is
    tied to the width of the model, not to the number of patches. The head starts at zero. On few images it overfits
    where a convolutional network does not: augmentation and stochastic depth matter more than size.

Requires / Offers
    Requires images of one size that the patch divides. Offers embed (mean token), tokens (B, N, width), predict.

Relations
    ViT with attention replaced by a perceptron; later gMLP, ResMLP. Any objective can train it.

Try
    papertrial fit mlp_mixer --data photos/ --budget 10m

Cost
    tiny: seconds on a CPU. base: minutes on a CPU. paper: days on a machine with 8 GPUs.

Notation
    B batch, N tokens (patches), C channels of the model (`width`), D_S token_hidden, D_C channel_hidden.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from papertrial.core.budget import Budget
from papertrial.core.facts import Facts
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced
from papertrial.nn.mlp import Mlp, StochasticDepth, depth_rates, lecun_
from papertrial.nn.patch import Patches, suited_patch

PAPER = Paper(
    id="mlp_mixer",
    title="MLP-Mixer: An all-MLP Architecture for Vision",
    kind="architecture",
    method="MlpMixer",
    idea="Perceptrons across patches and across channels, in turn, are enough for images when there is enough data.",
    authors="Ilya Tolstikhin, Neil Houlsby, Alexander Kolesnikov, Lucas Beyer, Xiaohua Zhai, Thomas Unterthiner, Jessica Yung, "
    "Andreas Steiner, Daniel Keysers, Jakob Uszkoreit, Mario Lucic, Alexey Dosovitskiy",
    year=2021,
    arxiv="2105.01601",
    month="2021-06",
    tasks=("image_classification", "image_representation"),
    tags=("vision", "mlp", "supervised"),
    baselines=("resnet", "vit", "untrained", "majority"),
    official="https://github.com/google-research/vision_transformer",
    licence="Apache-2.0",
    caveats=(
        "The size of the images is fixed when the model is built: the token perceptron has one weight per position.",
        "The text says nothing on learning rates and augmentation for small images (vision-transformers-cifar10#19): "
        "the base recipe here was chosen by us on small images.",
        "The authors' code uses the tanh form of GELU (the default of flax) and no dropout; timm uses the exact GELU.",
        "The hidden width of the token perceptron follows the width, not the number of patches; a popular port had this "
        "wrong until its version 0.3.0 (lucidrains/mlp-mixer-pytorch#16).",
    ),
)


def _small(facts: Facts) -> bool:
    """Images for which the published sizes are far too large."""
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
    width: int = sourced(768, "table 1, B/16", "[1, 65536]", auto=lambda facts: 64 if _small(facts) else None)
    depth: int = sourced(12, "table 1, B/16", "[1, 256]", auto=lambda facts: 4 if _small(facts) else None)
    token_hidden: int = sourced(384, "table 1, B/16", "[1, 65536]", auto=lambda facts: 64 if _small(facts) else None)
    channel_hidden: int = sourced(
        3072, "table 1, B/16", "[1, 262144]", auto=lambda facts: 256 if _small(facts) else None
    )
    dropout: float = sourced(0.0, "authors' code has none; the text uses it with extra data only", "[0, 1)")
    stochastic_depth: float = sourced(
        0.1, "appendix B, training on ImageNet alone", "[0, 1)", auto=lambda facts: 0.0 if _small(facts) else None
    )


class MixerBlock(nn.Module):
    """Token mixing, then channel mixing, each on a normalised residual branch (eq. 1). (B, N, C) -> (B, N, C)."""

    def __init__(
        self,
        tokens: int,
        width: int,
        token_hidden: int,
        channel_hidden: int,
        dropout: float = 0.0,
        depth_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm_tokens = nn.LayerNorm(width, eps=1e-6)  # the default of flax, which the authors use
        self.mix_tokens = Mlp(tokens, token_hidden, dropout)
        self.norm_channels = nn.LayerNorm(width, eps=1e-6)
        self.mix_channels = Mlp(width, channel_hidden, dropout)
        self.depth = StochasticDepth(depth_rate)

    def forward(self, x_BNC: Tensor) -> Tensor:
        x_BNC = x_BNC + self.depth(self.mix_tokens(self.norm_tokens(x_BNC).transpose(1, 2)).transpose(1, 2))
        return x_BNC + self.depth(self.mix_channels(self.norm_channels(x_BNC)))


class MlpMixer(nn.Module):
    """The backbone: images (B, channels, height, width) -> (B, width), the mean of the normalised tokens.

    Raises PapertrialError when the patch does not tile the images.
    """

    def __init__(self, config: Config, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.width = config.width
        self.patches = Patches(channels, height, width, config.patch, config.width)
        self.blocks = nn.Sequential(
            *(
                MixerBlock(
                    self.patches.count, config.width, config.token_hidden, config.channel_hidden, config.dropout, rate
                )
                for rate in depth_rates(config.stochastic_depth, config.depth)
            )
        )
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        lecun_(self)

    def tokens(self, image: Tensor) -> Tensor:
        """(B, N, width), patches row by row, after the last norm."""
        return self.norm(self.blocks(self.patches(image)))

    def forward(self, image: Tensor) -> Tensor:
        return self.tokens(image).mean(1)

    def make_head(self, outputs: int) -> nn.Linear:
        head = nn.Linear(self.width, outputs)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        return head


def build(config: Config, facts: Facts, backbone: nn.Module | None = None) -> MlpMixer:
    return MlpMixer(config, facts.channels, facts.height, facts.width)


def _size(patch: int, width: int, depth: int, token_hidden: int, channel_hidden: int) -> dict[str, int]:
    return {
        "patch": patch,
        "width": width,
        "depth": depth,
        "token_hidden": token_hidden,
        "channel_hidden": channel_hidden,
    }


#: table 1 of the paper
variants = {
    "S/32": _size(32, 512, 8, 256, 2048),
    "S/16": _size(16, 512, 8, 256, 2048),
    "B/32": _size(32, 768, 12, 384, 3072),
    "B/16": _size(16, 768, 12, 384, 3072),
    "L/32": _size(32, 1024, 24, 512, 4096),
    "L/16": _size(16, 1024, 24, 512, 4096),
    "H/14": _size(14, 1280, 32, 640, 5120),
}

# the patch stays with its rule, which is 16 at 224 pixels
_BASE = {name: value for name, value in variants["B/16"].items() if name != "patch"}

recipes = {
    # DIFF: the paper trains with Adam and weight decay 0.1 at batch 4096; AdamW with decoupled decay stands in
    "paper": Recipe(
        "paper",
        config={**_BASE, "stochastic_depth": 0.1},
        optim={"lr": 1e-3, "weight_decay": 0.1, "batch": 4096, "clip": 1.0, "warmup": 0.1, "epochs": 300},
        budget=Budget(samples=300 * 1_281_167),
        source="sec. 3.1 and appendix B, ImageNet at 224",
        cost="days on a machine with 8 GPUs",
        expect="76.44 % on ImageNet after training on ImageNet alone (table 3)",
    ),
    "base": Recipe(
        "base",
        optim={"lr": 3e-3, "weight_decay": 0.05, "batch": 64, "warmup": 0.1},
        source="chosen on MNIST",
        cost="minutes on a CPU",
        expect="MNIST: 98.2 % after 2 600 steps (156 s of one core)",
    ),
    "tiny": Recipe(
        "tiny",
        config={"width": 32, "depth": 2, "token_hidden": 16, "channel_hidden": 64},
        optim={"lr": 3e-3, "batch": 32},
        budget=Budget(steps=100),
        source="small enough for tests",
        cost="seconds on a CPU",
    ),
}
