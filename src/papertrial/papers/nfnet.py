"""NFNet - image recognition without normalisation layers, and adaptive gradient clipping for any model.

Andrew Brock, Soham De, Samuel L. Smith, Karen Simonyan. ICML 2021, arXiv 2102.06171.

The idea
    A residual network needs no batch norm when three things are seen to by hand: weights are standardised, every
    residual branch receives inputs of variance one and adds little at first, and no gradient is large compared with the
    weights it changes. The last is adaptive gradient clipping (AGC), a technique of its own: `--technique agc`.

The equation
    W^_i = gain_i (W_i - mean W_i) / sqrt(N var W_i)          per output unit i of fan-in N     (eq. 1)
    x_l+1 = x_l + alpha f(x_l / beta_l),  Var x_l = beta_l^2, known beforehand                  (sec. 3)
    G_i <- lam max(|W_i|, eps) / |G_i| G_i    where |G_i| > lam max(|W_i|, eps)                 (eq. 3)

What matters
    Activations are scaled to keep a variance of one. A learned gain starts every branch at zero. AGC compares norms unit
    by unit and leaves the last layer alone. Its threshold is 0.01 for batches of thousands, larger for small ones. The
    network is wide at its last stages and only slightly bottlenecked, to be fast in training rather than small.

Requires / Offers
    Requires images. Offers embed, tokens (positions), predict; `fold()` for answers; the technique agc for any model.

Relations
    ResNet without batch norm, so that no example sees another one. AGC is LARS with a ceiling in place of a fixed ratio.

Try
    papertrial fit nfnet --data photos/ --budget 10m
    papertrial compare mlp_mixer --technique agc --set optimizer=sgd --data photos/

Cost
    tiny: seconds on a CPU. base: minutes on a CPU. paper: 360 epochs of ImageNet at a batch of 4096.

Notation
    B batch, O output units, I inputs and H, W height and width of a kernel, N = I H W the fan-in; lam is `agc:clip`.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from papertrial.core.budget import Budget
from papertrial.core.facts import Facts
from papertrial.core.paper import Paper
from papertrial.core.recipe import Optim, Recipe, checked, sourced
from papertrial.nn.mlp import StochasticDepth, tanh_gelu

PAPER = Paper(
    id="nfnet",
    title="High-Performance Large-Scale Image Recognition Without Normalization",
    kind="architecture",
    method="NFNet",
    idea="Drops batch normalisation and clips gradients relative to weight size, so large batches train stably.",
    authors="Andrew Brock, Soham De, Samuel L. Smith, Karen Simonyan",
    year=2021,
    arxiv="2102.06171",
    month="2021-03",
    tasks=("image_classification", "image_representation"),
    techniques=("agc",),
    tags=("vision", "convolution", "optimisation", "supervised"),
    baselines=("resnet", "vit", "untrained", "majority"),
    official="https://github.com/google-deepmind/deepmind-research/tree/master/nfnets",
    licence="Apache-2.0",
    caveats=(
        "AGC must not clip the classifier (vballoli/nfnets-pytorch#8). The authors' code leaves its weight alone but clips "
        "its bias; here the whole head is left alone.",
        "AGC was made for SGD with momentum. With Adam at its default rate training was seen to blow up "
        "(huggingface/pytorch-image-models#498), and 0.01 is too tight for transformers under AdamW.",
        "The threshold, the batch and the rate go together: at small batches 0.01 slows training down.",
        "Gains that start at zero are clipped against eps: for about ten steps divided by the rate the residual branches "
        "hardly move, so very short trainings judge a shallower network.",
        "timm standardises weights with the 1e-5 of its batch norm where the authors floor the variance; keeps gains as "
        "(O, 1, 1, 1), so that its AGC clips them one by one and not as a whole; and uses the exact GELU, not the tanh form.",
        "The authors' stochastic depth does not rescale the branches it keeps; the text does not say so.",
    ),
)

#: what brings the variance of act(x), x ~ N(0, 1), back to one (authors' code)
GAMMA = {
    "gelu": 1.7015043497085571,
    "gelu_exact": 1.7015043497085571,
    "relu": 1.7139588594436646,
    "silu": 1.7881293296813965,
}
_ACTIVATIONS = {
    "gelu": tanh_gelu,  # the default of jax, which the authors use
    "gelu_exact": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
}
_STEMS = ("deep", "pool", "half", "full")


def _small(facts: Facts) -> bool:
    """Images for which the published sizes are far too large."""
    return 0 < max(facts.height, facts.width) <= 96


def _stem(facts: Facts) -> str | None:
    return ("half" if max(facts.height, facts.width) > 24 else "full") if _small(facts) else None


@checked
@dataclass(frozen=True)
class Config:
    stem: str = sourced(
        "deep",
        "sec. 5: four 3x3 convolutions, a quarter of the size; `pool` is 7x7 and pooling, `half` and `full` are one 3x3",
        " | ".join(_STEMS),
        auto=_stem,
    )
    widths: tuple[int, ...] = sourced(
        (256, 512, 1536, 1536),
        "sec. 5",
        "1 to 8 of [8, 65536]",
        auto=lambda facts: (64, 128, 256) if _small(facts) else None,
    )
    depths: tuple[int, ...] = sourced(
        (1, 2, 6, 3),
        "table 1, F0",
        "1 to 8 of [1, 256], as many as widths",
        auto=lambda facts: (2, 2, 2) if _small(facts) else None,
    )
    bottleneck: float = sourced(0.5, "sec. 5", "[0.125, 16]")
    group: int = sourced(
        128, "sec. 5: channels per group, 0 is one group", "[0, 65536]", auto=lambda facts: 0 if _small(facts) else None
    )
    extra_conv: bool = sourced(
        True, "sec. 5: a second 3x3 in each block", auto=lambda facts: False if _small(facts) else None
    )
    squeeze: float = sourced(0.5, "authors' code: squeeze and excite, 0 is none", "0 or [0.125, 16]")
    final: float = sourced(
        2.0,
        "authors' code: channels of the last 1x1 over those before, 0 is none",
        "0 or [0.125, 16]",
        auto=lambda facts: 0.0 if _small(facts) else None,
    )
    activation: str = sourced("gelu", "sec. 5", " | ".join(GAMMA), auto=lambda facts: "relu" if _small(facts) else None)
    alpha: float = sourced(0.2, "sec. 3: share of a residual branch", "[0, 100]")
    stochastic_depth: float = sourced(
        0.25, "appendix A, largest rate", "[0, 1)", auto=lambda facts: 0.0 if _small(facts) else None
    )
    head_dropout: float = sourced(0.2, "table 1, F0", "[0, 1)", auto=lambda facts: 0.0 if _small(facts) else None)
    same_padding: bool = sourced(True, "authors' code: uneven padding of strided layers, as TensorFlow's SAME")
    batch_norm_eps: bool = sourced(False, "authors' code floors the variance; true is timm's variance + 1e-5")


def standardise(weight_OIHW: Tensor, gain_O: Tensor, batch_norm_eps: bool = False) -> Tensor:
    """Scaled weight standardisation (eq. 1): mean 0 and variance 1/N over the fan-in N of each output unit, times its gain.

    batch_norm_eps: `var + 1e-5`, as in timm, in place of the authors' `max(N var, 1e-4)`.
    """
    if batch_norm_eps:
        fan_in = weight_OIHW[0].numel()
        rows = F.layer_norm(weight_OIHW.flatten(1), (fan_in,), eps=1e-5)
        return (rows * (gain_O * fan_in**-0.5)[:, None]).view_as(weight_OIHW)
    centred = weight_OIHW - weight_OIHW.mean((1, 2, 3), keepdim=True)
    # the root of N var; torch.var_mean takes many times as long on a CPU
    length = torch.linalg.vector_norm(centred, dim=(1, 2, 3), keepdim=True)
    return centred * (gain_O.view(-1, 1, 1, 1) / length.clamp_min(1e-2))


def activate(x: Tensor, kind: str, beta: float = 1.0) -> Tensor:
    """The activation, scaled so that a standard normal input comes out with variance one; then times `beta`."""
    return _ACTIVATIONS[kind](x) * (GAMMA[kind] * beta)


def pad_same(x: Tensor, size: int, stride: int) -> Tensor:
    """Zeros around (B, C, H, W) so that a layer of this size and stride gives ceil(H / stride); the odd one comes last."""
    missing = [max((math.ceil(side / stride) - 1) * stride + size - side, 0) for side in (x.shape[-1], x.shape[-2])]
    return F.pad(x, [part for gap in missing for part in (gap // 2, gap - gap // 2)])


def _factors(weight_norms: Tensor, gradient_norms: Tensor, clip: float, eps: float) -> Tensor:
    """What gradients are multiplied with: exactly 1, which keeps their bits, where they are small enough."""
    # the floor of 1e-6 is the authors'
    return weight_norms.clamp_(min=eps).mul_(clip).div_(gradient_norms.clamp_(min=1e-6)).clamp_(max=1.0)


@torch.no_grad()
def adaptive_clip_(parameters: Iterable[Tensor], clip: float = 0.01, eps: float = 1e-3) -> None:
    """Adaptive gradient clipping (eq. 3), in place: after it no unit's gradient is longer than `clip` times its weights.

    A unit is a row of the first dimension; a tensor of at most one dimension (gain, bias) is one unit. Weights shorter
    than `eps` count as `eps`. Gradients below the threshold keep their bits; parameters without a gradient are passed over.
    Values that are not finite stay so. Norms are taken in float32 or wider.
    """
    vectors: dict[tuple[torch.device, torch.dtype], list[Tensor]] = defaultdict(list)
    for p in parameters:
        if p.grad is None:
            continue
        if p.ndim <= 1:
            vectors[p.device, p.dtype].append(p)
            continue
        # a gradient is scaled right after it was measured, while it is still in the cache
        how = {"dim": tuple(range(1, p.ndim)), "keepdim": True, "dtype": torch.promote_types(p.dtype, torch.float32)}
        norms = torch.linalg.vector_norm(p, **how), torch.linalg.vector_norm(p.grad, **how)
        p.grad.mul_(_factors(*norms, clip, eps))
    for (_, dtype), weights in vectors.items():
        gradients, wide = [p.grad for p in weights], torch.promote_types(dtype, torch.float32)
        of_weights, of_gradients = (torch.stack(torch._foreach_norm(t, 2, wide)) for t in (weights, gradients))
        torch._foreach_mul_(gradients, list(_factors(of_weights, of_gradients, clip, eps).unbind()))


@checked
@dataclass(frozen=True)
class AGC:
    """Adaptive gradient clipping as a technique: `before_step(model)` clips the gradients of any model."""

    clip: float = sourced(0.01, "sec. 4.1, batch 4096; inf switches it off", "(0, inf]")
    eps: float = sourced(1e-3, "sec. 4: least norm of a unit's weights", "(0, 1000]")
    # DIFF: the authors' code leaves the weight of the last layer alone and clips its bias; the text excludes the layer
    skip: str = sourced("head", "sec. 4.1: the last layer is not clipped; name of the module, empty for none", "any")

    def caution(self, optim: Optim) -> str:
        """What a user should know before training with it; empty when there is nothing."""
        if optim.optimizer != "adamw":
            return ""
        return (
            "agc was made for SGD: Adam undoes the size of gradients, and the two were seen to diverge at Adam's default rate "
            "(pytorch-image-models#498); --set optimizer=sgd, or a lower lr, is safer"
        )

    def before_step(self, model: nn.Module) -> None:
        below = f"{self.skip}." if self.skip else None
        clipped = [p for name, p in model.named_parameters() if below is None or not name.startswith(below)]
        adaptive_clip_(clipped, self.clip, self.eps)


class SameConv(nn.Conv2d):
    """A convolution with a bias that keeps the size at stride 1, and divides it, rounded up, by larger strides.

    same: the uneven padding of TensorFlow for strides above 1; else PyTorch's even one. (B, C, H, W) -> (B, O, H', W').
    """

    def __init__(
        self, inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1, same: bool = True
    ) -> None:
        self.uneven = same and stride > 1
        super().__init__(inputs, outputs, size, stride, 0 if self.uneven else size // 2, groups=groups)

    def convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        if self.uneven:
            x = pad_same(x, self.kernel_size[0], self.stride[0])
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolve(x, self.weight)


class ScaledWSConv(SameConv):
    """A convolution whose weights are standardised at every use (eq. 1), with a learned gain (O,) and a bias."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        stride: int = 1,
        groups: int = 1,
        same: bool = True,
        batch_norm_eps: bool = False,
    ) -> None:
        super().__init__(inputs, outputs, size, stride, groups, same)
        self.batch_norm_eps = batch_norm_eps
        self.gain = nn.Parameter(torch.ones(outputs))
        nn.init.normal_(self.weight, std=self.weight[0].numel() ** -0.5)
        nn.init.zeros_(self.bias)

    def standardised(self) -> Tensor:
        return standardise(self.weight, self.gain, self.batch_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolve(x, self.standardised())

    def folded(self) -> SameConv:
        """A plain convolution with the standardised weights: the same outputs, bit for bit."""
        plain = SameConv(
            self.in_channels, self.out_channels, self.kernel_size[0], self.stride[0], self.groups, self.uneven
        )
        plain.weight = nn.Parameter(self.standardised().detach(), requires_grad=False)
        plain.bias = nn.Parameter(self.bias.detach().clone(), requires_grad=False)
        return plain


def fold(model: nn.Module) -> nn.Module:
    """A copy of any model in eval mode whose standardised convolutions are plain ones: faster answers, the same bits."""
    model = copy.deepcopy(model).eval()
    for name, layer in list(model.named_modules()):
        if isinstance(layer, ScaledWSConv):
            model.set_submodule(name, layer.folded())
    return model


class SqueezeExcite(nn.Module):
    """A gate per channel from the mean over positions: (B, C, H, W) -> (B, C, 1, 1), 1/2 on average at the start."""

    def __init__(self, channels: int, ratio: float) -> None:
        super().__init__()
        hidden = max(1, int(channels * ratio))
        self.down, self.up = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        for layer in (self.down, self.up):  # the default of haiku
            std = layer.in_features**-0.5
            nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3))))))
        return gate[:, :, None, None]


class Block(nn.Module):
    """h = act(x) / expected_std;  x' + alpha skip_gain f(h), where x' is x, or a projection of h where the size changes.

    f: 1x1, 3x3 with the stride (and a second 3x3), 1x1, squeeze and excite times 2, stochastic depth.
    """

    def __init__(
        self, config: Config, inputs: int, outputs: int, stride: int, expected_std: float, depth_rate: float
    ) -> None:
        super().__init__()
        hidden, groups = int(outputs * config.bottleneck), 1
        if config.group:
            groups = max(1, hidden // config.group)
            hidden = groups * config.group
        self.activation, self.alpha, self.beta, self.stride = config.activation, config.alpha, 1 / expected_std, stride
        shapes = [(inputs, hidden, 1, 1, 1), (hidden, hidden, 3, stride, groups)]
        shapes += [(hidden, hidden, 3, 1, groups)] * config.extra_conv
        shapes += [(hidden, outputs, 1, 1, 1)]
        self.convolutions = nn.ModuleList(_convolution(config, *shape) for shape in shapes)
        self.project = _convolution(config, inputs, outputs, 1) if stride > 1 or inputs != outputs else None
        self.squeeze = SqueezeExcite(outputs, config.squeeze) if config.squeeze else None
        self.depth = StochasticDepth(depth_rate, rescale=False)
        self.skip_gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        out = activate(x, self.activation, self.beta)
        if self.project is not None:
            pooled = F.avg_pool2d(out, 2, 2, ceil_mode=True, count_include_pad=False) if self.stride > 1 else out
            x = self.project(pooled)
        for index, convolve in enumerate(self.convolutions):
            out = convolve(activate(out, self.activation) if index else out)
        if self.squeeze is not None:
            out = 2 * self.squeeze(out) * out
        return torch.addcmul(x, self.skip_gain, self.depth(out), value=self.alpha)


def _convolution(
    config: Config, inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1
) -> ScaledWSConv:
    return ScaledWSConv(inputs, outputs, size, stride, groups, config.same_padding, config.batch_norm_eps)


class _Activation(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        return activate(x, self.kind)


class NFNet(nn.Module):
    """The backbone: images (B, C, H, W) -> (B, width), the mean over positions."""

    def __init__(self, config: Config, channels: int) -> None:
        super().__init__()
        self.config = config
        self.stem, inputs = self._stem(channels)
        blocks: list[Block] = []
        expected_std, count = 1.0, sum(config.depths)
        for stage, (width, depth) in enumerate(zip(config.widths, config.depths, strict=True)):
            for index in range(depth):
                stride = 2 if stage and not index else 1
                rate = config.stochastic_depth * len(blocks) / count
                blocks.append(Block(config, inputs, width, stride, expected_std, rate))
                # a stage begins with a projection of normalised inputs, so its variance starts over
                expected_std = math.hypot(expected_std if index else 1.0, config.alpha)
                inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.width = int(inputs * config.final) if config.final else inputs
        self.final = _convolution(config, inputs, self.width, 1) if config.final else nn.Identity()

    def _stem(self, channels: int) -> tuple[nn.Sequential, int]:
        """The layers before the first block, and how many channels they give."""
        config, width = self.config, self.config.widths[0]
        if config.stem == "deep":
            layers: list[nn.Module] = []
            inputs = channels
            for outputs, stride in ((width // 16, 2), (width // 8, 1), (width // 4, 1), (width // 2, 2)):
                layers += [_convolution(config, inputs, outputs, 3, stride), _Activation(config.activation)]
                inputs = outputs
            return nn.Sequential(*layers[:-1]), inputs
        if config.stem == "pool":
            # DIFF: even padding of the pooling also with same_padding; a border of one pixel differs
            pool = nn.MaxPool2d(3, 2, 1)
            return nn.Sequential(_convolution(config, channels, width // 4, 7, 2), pool), width // 4
        return nn.Sequential(_convolution(config, channels, width, 3, 1 + (config.stem == "half"))), width

    def features(self, image: Tensor) -> Tensor:
        """(B, width, H', W'), which lie in memory with the channels last: convolutions are faster so."""
        image = image.contiguous(memory_format=torch.channels_last)
        return activate(self.final(self.blocks(self.stem(image))), self.config.activation)

    def tokens(self, image: Tensor) -> Tensor:
        """(B, positions, width), row by row."""
        return self.features(image).flatten(2).transpose(1, 2)

    def forward(self, image: Tensor) -> Tensor:
        return self.features(image).mean((2, 3))

    def fold(self) -> nn.Module:
        """See `fold`."""
        return fold(self)

    def make_head(self, outputs: int) -> nn.Module:
        """Dropout and a linear layer that starts as N(0, 0.01) (sec. 5 and authors' code)."""
        linear = nn.Linear(self.width, outputs)
        nn.init.normal_(linear.weight, std=0.01)
        nn.init.zeros_(linear.bias)
        return nn.Sequential(nn.Dropout(self.config.head_dropout), linear)


def build(config: Config, facts: Facts, backbone: nn.Module | None = None) -> NFNet:
    return NFNet(config, facts.channels)


def _published(depth: int, head_dropout: float) -> dict[str, object]:
    """F0 times `depth`: every published size differs in depth and dropout alone (table 1)."""
    fixed = {entry: field.default for entry, field in Config.__dataclass_fields__.items()}
    return {**fixed, "depths": tuple(depth * blocks for blocks in (1, 2, 6, 3)), "head_dropout": head_dropout}


#: table 1 of the paper, and the network of its ablations
# DIFF: resnet50 projects after pooling, as timm's and the F-series; the authors' NF-ResNet strides its projection
variants = {
    **{f"F{index}": _published(index + 1, rate) for index, rate in enumerate((0.2, 0.3, 0.4, 0.4, 0.5, 0.5, 0.5))},
    "resnet50": {
        "stem": "pool",
        "widths": (256, 512, 1024, 2048),
        "depths": (3, 4, 6, 3),
        "bottleneck": 0.25,
        "group": 0,
        "extra_conv": False,
        "squeeze": 0.0,
        "final": 0.0,
        "activation": "relu",
        "stochastic_depth": 0.1,
        "head_dropout": 0.0,
    },
}

techniques = {"agc": AGC}

recipes = {
    "paper": Recipe(
        "paper",
        config=variants["F0"],
        optim={
            "optimizer": "sgd",
            "lr": 0.1 * 4096 / 256,
            "momentum": 0.9,
            "weight_decay": 2e-5,
            "batch": 4096,
            "warmup": 5 / 360,
            "clip": 0.0,
            "label_smoothing": 0.1,
            "ema": 0.99999,
            "epochs": 360,
        },
        budget=Budget(samples=360 * 1_281_167),
        techniques=("agc",),
        source="appendix A and authors' code, ImageNet at 192; RandAugment, mixup and cutmix are left out",
        expect="83.6 % on ImageNet with all augmentations (table 3)",
    ),
    "base": Recipe(
        "base",
        optim={"optimizer": "sgd", "lr": 0.5, "weight_decay": 5e-4, "batch": 64, "warmup": 0.1, "clip": 0.0},
        techniques=("agc:clip=0.02",),
        source="chosen on digits and Fashion-MNIST",
        expect="digits: 98.9 % after 150 steps, as the resnet baseline (one seed)",
    ),
    "tiny": Recipe(
        "tiny",
        config={"widths": (16, 32), "depths": (1, 1)},
        optim={"optimizer": "sgd", "lr": 0.1, "weight_decay": 5e-4, "batch": 32, "clip": 0.0},
        budget=Budget(steps=100),
        techniques=("agc:clip=0.08",),
        source="small enough for tests",
        cost="seconds on a CPU",
    ),
}
