"""The U-Net of guided diffusion against that of diffusers, and against the authors' own, in one process and in turns.

    python bench/guided_diffusion.py [--authors FOLDER] [--rounds 10] [--threads 1]

A training step is the forward pass, the backward pass and the gradient of every weight; a sampling step is the forward pass
without gradients. All have the same shapes, in float32: two levels, two ResBlocks each, attention in the second, class
embedding, variances beside the noise. FOLDER is a checkout of openai/guided-diffusion, whose attention always computes its
forward pass twice when it trains. Seconds are those of the CPU, so that other jobs on the machine count little; the ratios
are medians over rounds. Needs diffusers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from papertrial.papers.guided_diffusion.unet import Plan, UNet

#: rows, side, width
WORK = ((16, 16, 32), (16, 32, 32), (8, 32, 64), (4, 64, 64))
CLASSES = 10
_WARM = 2  # rounds


def theirs(side: int, width: int) -> Callable[..., Tensor]:
    from diffusers import UNet2DModel

    net = UNet2DModel(
        side, 3, 6, block_out_channels=(width, 2 * width), layers_per_block=2, freq_shift=0, norm_num_groups=32,
        down_block_types=("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "ResnetUpsampleBlock2D"), attention_head_dim=width, attn_norm_num_groups=32,
        downsample_type="resnet", upsample_type="resnet", resnet_time_scale_shift="scale_shift", num_class_embeds=CLASSES,
    )  # fmt: skip
    return _Sample(net)


class _Sample(nn.Module):
    """diffusers wraps its answer."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.net(*inputs).sample


def authors(folder: str, side: int, width: int) -> nn.Module:
    if folder not in sys.path:
        sys.path.insert(0, folder)
    from guided_diffusion.unet import UNetModel

    return UNetModel(
        side, 3, width, 6, 2, (2,), channel_mult=(1, 2), num_classes=CLASSES, num_head_channels=width,
        use_scale_shift_norm=True, resblock_updown=True, use_new_attention_order=True,
    )  # fmt: skip


def training(net: Any, inputs: tuple[Tensor, ...], mix: Tensor) -> Callable[[], None]:
    def once() -> None:
        net.zero_grad(set_to_none=True)
        (net(*inputs) * mix).sum().backward()

    return once


def sampling(net: Any, inputs: tuple[Tensor, ...]) -> Callable[[], None]:
    def once() -> None:
        with torch.no_grad():
            net(*inputs)

    return once


def race(work: tuple[int, int, int], rounds: int, folder: str) -> list[dict[str, object]]:
    rows, side, width = work
    torch.manual_seed(0)
    ours = UNet(Plan(3, width, (1, 2), 2, (1,), head_width=width, qkv_first=True), 6, CLASSES)
    nets = {"ours": ours, "diffusers": theirs(side, width)} | (
        {"authors": authors(folder, side, width)} if folder else {}
    )
    sizes = {name: sum(weight.numel() for weight in net.parameters()) for name, net in nets.items()}
    assert len(set(sizes.values())) == 1, f"the networks are not of one size: {sizes}"
    inputs = (torch.randn(rows, 3, side, side), torch.randint(1000, (rows,)), torch.randint(CLASSES, (rows,)))
    mix, found = torch.randn(rows, 6, side, side), []
    for what in ("training", "sampling"):
        steps = {
            name: training(net.train(), inputs, mix) if what == "training" else sampling(net.eval(), inputs)
            for name, net in nets.items()
        }
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        for index in range(_WARM + rounds):
            for name, step in steps.items():
                begun = time.process_time()
                step()
                if index >= _WARM:
                    seconds[name].append(time.process_time() - begun)
        row: dict[str, object] = {"work": work, "step": what, "weights": sizes["ours"]}
        for name, taken in seconds.items():
            ratios = [other / own for other, own in zip(taken, seconds["ours"], strict=True)]
            row[name] = f"{1000 * statistics.median(taken):.1f} ms"
            row |= {} if name == "ours" else {f"{name} / ours": round(statistics.median(ratios), 2)}
        found.append(row)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--authors", default="", metavar="FOLDER")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    for work in WORK:
        for row in race(work, chosen.rounds, chosen.authors):
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
