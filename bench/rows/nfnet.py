"""NFNet against timm's, and adaptive gradient clipping against timm's on the parameters of ResNets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from bench.harness import Case, Race, Side, inference, training
from papertrial.papers.nfnet import Config, NFNet, adaptive_clip_

#: as timm does it: the exact GELU, and batch norm's way of keeping a variance above zero
F0 = Config(activation="gelu_exact", stochastic_depth=0.0, head_dropout=0.0, batch_norm_eps=True)
#: F0 in miniature, for small images
SMALL = replace(F0, widths=(64, 64, 128, 128), depths=(1, 2, 1, 1), group=16, final=0.0)


def networks(config: Config) -> tuple[nn.Module, nn.Module]:
    """Ours, and timm's with our weights: both keep them in one order, but for the gains and the shape of a linear layer."""
    from timm.models.nfnet import NfCfg, NormFreeNet

    ours = NFNet(config, 3)
    cfg = NfCfg(
        depths=config.depths, channels=config.widths, alpha=config.alpha, stem_type="deep_quad", stem_chs=config.widths[0] // 2,
        group_size=config.group, attn_layer="se", attn_kwargs={"rd_ratio": config.squeeze, "rd_divisor": 1},
        bottle_ratio=config.bottleneck, num_features=int(config.widths[-1] * config.final), extra_conv=True,
        gamma_in_act=True, same_padding=True, skipinit=True, act_layer="gelu",
    )  # fmt: skip
    theirs = NormFreeNet(cfg, num_classes=0)
    shapes = {name: weight.shape for name, weight in theirs.named_parameters()}
    theirs.load_state_dict(
        {timms_name(n, config): w.view(shapes[timms_name(n, config)]) for n, w in ours.state_dict().items()}
    )
    return ours, theirs


def timms_name(name: str, config: Config) -> str:
    places = [(stage, index) for stage, depth in enumerate(config.depths) for index in range(depth)]
    part, *rest = name.split(".")
    if part == "stem":
        return ".".join(["stem", f"conv{int(rest[0]) // 2 + 1}", *rest[1:]])
    if part == "final":
        return ".".join(["final_conv", *rest])
    block, inner = rest[1], rest[2:]
    if block == "convolutions":
        inner = [("conv1", "conv2", "conv2b", "conv3")[int(inner[0])], *inner[1:]]
    elif block == "project":
        inner = ["downsample", "conv", *inner]
    elif block == "squeeze":
        inner = ["attn_last", {"down": "fc1", "up": "fc2"}[inner[0]], *inner[1:]]
    else:
        inner = ["skipinit_gain"]
    stage, index = places[int(rest[0])]
    return ".".join(["stages", f"{stage}.{index}", *inner])


def step(how: Callable[..., Side], config: Config, side: int) -> Callable[[Case], tuple[Side, Side]]:
    def build(case: Case) -> tuple[Side, Side]:
        ours, theirs = (case.place(net) for net in networks(config))
        if how is inference:  # as a trained model answers
            ours = ours.fold()
        nets = [nn.Sequential(ours), nn.Sequential(theirs, nn.Identity())]
        image = case.randn(case.size, 3, side, side)
        return how(case, nets[0], image), how(case, nets[1], image)

    return build


def clipping(case: Case) -> tuple[Side, Side]:
    """All parameters of a ResNet, of whose gradients about half are too long. Clipping again and again costs the same."""
    import timm
    from timm.utils.agc import adaptive_clip_grad

    parameters = list(case.place(timm.create_model(case.size)).parameters())
    fresh = [weight.detach() * 10 ** (4 * torch.rand(()).item() - 4) for weight in parameters]

    def side(clip: Callable[[], None]) -> Side:
        def restore() -> None:
            for weight, gradient in zip(parameters, fresh, strict=True):
                weight.grad = gradient.clone()

        def answer() -> list[Tensor]:
            restore()
            clip()
            return [weight.grad for weight in parameters]

        return Side(clip, answer)

    return side(lambda: adaptive_clip_(parameters, 0.01)), side(lambda: adaptive_clip_grad(parameters, 0.01))


#: both make one call to standardise a weight, and the same convolutions
_MANY = "small convolutions, the same on both sides, and the calls between them, which cost more than the arithmetic"
_SAME = "compiled, the same convolutions on both sides"
#: millions of weights
_RESNETS = {"resnet18": 11.7, "resnet34": 21.8, "resnet50": 25.6, "resnet101": 44.5}


def _images(*counts: int) -> dict[str, int]:
    return {f"{count} image{'s' * (count > 1)}": count for count in counts}


RACES = [
    Race(
        "F0 at 64, inference",
        "timm",
        step(inference, F0, 64),
        _images(1, 2, 3, 4),
        typical="1 image",
        dtypes=("float32",),
        bound=_SAME,
    ),
    Race("small at 32, training step", "timm", step(training, SMALL, 32), _images(2, 4, 8, 16), bound=_MANY),
    Race("small at 32, inference", "timm", step(inference, SMALL, 32), _images(2, 4, 8, 16), bound=_MANY),
    Race(
        "adaptive clipping",
        "timm",
        clipping,
        {f"{name}, {size:g} M weights": name for name, size in _RESNETS.items()},
        grows=lambda name: _RESNETS[name],
        typical="resnet50, 25.6 M weights",
        compiled=False,
        # weights and gradients are read in float32, gradients written
        moves=lambda name: 12e6 * _RESNETS[name],
        dtypes=("float32",),
    ),
]
