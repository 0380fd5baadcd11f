"""MLP-Mixer against timm's, whole networks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from bench.harness import Case, Race, Side, inference, renamed, training
from papertrial.papers.mlp_mixer import Config, MlpMixer, variants

_NAMES = {
    "patches.project": "stem.proj",
    "norm_tokens": "norm1",
    "norm_channels": "norm2",
    "mix_tokens": "mlp_tokens",
    "mix_channels": "mlp_channels",
    ".up.": ".fc1.",
    ".down.": ".fc2.",
}
#: a network for small images, as the base recipe builds
SMALL = {"patch": 4, "width": 64, "depth": 4, "token_hidden": 64, "channel_hidden": 256}


def networks(case: Case, side: int, size: dict[str, int]) -> tuple[nn.Module, nn.Module]:
    from timm.models.mlp_mixer import MlpMixer as Theirs

    ours = MlpMixer(Config(**size, stochastic_depth=0.0), 3, side, side)
    theirs = Theirs(
        num_classes=0,
        img_size=side,
        patch_size=size["patch"],
        num_blocks=size["depth"],
        embed_dim=size["width"],
        mlp_ratio=(size["token_hidden"] / size["width"], size["channel_hidden"] / size["width"]),
        act_layer=partial(nn.GELU, approximate="tanh"),
    )
    theirs.load_state_dict(renamed(ours.state_dict(), _NAMES))
    return case.place(ours), case.place(theirs)


def step(how: Callable[..., Side], side: int, size: dict[str, int]) -> Callable[[Case], tuple[Side, Side]]:
    def build(case: Case) -> tuple[Side, Side]:
        image = case.randn(case.size, 3, side, side)
        ours, theirs = networks(case, side, size)
        return how(case, ours, image), how(case, theirs, image)

    return build


def _images(*counts: int) -> dict[str, int]:
    return {f"{count} image{'s' * (count > 1)}": count for count in counts}


#: token mixing works on a transposed view on either side, so that not even a copy is left out
_SAME = "the same products and GELUs on both sides, which are nearly all of the time"

RACES = [
    Race("S/32 at 128, training step", "timm", step(training, 128, variants["S/32"]), _images(1, 2, 3, 4), bound=_SAME, typical="1 image"),
    Race("S/32 at 128, inference", "timm", step(inference, 128, variants["S/32"]), _images(1, 2, 4, 8), bound=_SAME, typical="1 image"),
    Race("small at 28, training step", "timm", step(training, 28, SMALL), _images(2, 4, 8, 16), bound=_SAME),
    Race("small at 28, inference", "timm", step(inference, 28, SMALL), _images(4, 8, 16, 32), bound=_SAME),
]  # fmt: skip
