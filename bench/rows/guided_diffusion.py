"""The U-Net of guided diffusion against diffusers': a training step, the forward pass, and sampling by DDIM.

Two levels of two ResBlocks each, attention in the second, class embedding, variances beside the noise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bench.harness import Case, Race, Side, inference, training
from papertrial.papers.guided_diffusion import Config, GuidedDiffusion
from papertrial.papers.guided_diffusion.unet import Plan, UNet
from papertrial.papers.guided_diffusion.walk import Noise

CLASSES, STEPS = 10, 4
_PARTS = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection", "group_norm": "norm", "to_out.0": "proj_out",
}  # fmt: skip


class Sample(nn.Module):
    """diffusers wraps its answer."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.net(*inputs).sample


def networks(side: int, width: int, levels: int = 2, blocks: int = 2) -> tuple[UNet, nn.Module]:
    from diffusers import UNet2DModel

    theirs = UNet2DModel(
        side, 3, 6, block_out_channels=(width, 2 * width), layers_per_block=blocks, freq_shift=0, norm_num_groups=32,
        down_block_types=("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "ResnetUpsampleBlock2D"), attention_head_dim=width, attn_norm_num_groups=32,
        downsample_type="resnet", upsample_type="resnet", resnet_time_scale_shift="scale_shift", num_class_embeds=CLASSES,
    )  # fmt: skip
    ours = UNet(Plan(3, width, (1, 2), blocks, (1,), head_width=width, qkv_first=True), 6, CLASSES)
    names = _names(levels, blocks)
    state: dict[str, Tensor] = {}
    for full, tensor in theirs.state_dict().items():
        prefix = max((name for name in names if full.startswith(f"{name}.")), key=len)
        part, _, kind = full.removeprefix(f"{prefix}.").rpartition(".")
        state[f"{names[prefix]}.{_PARTS.get(part, part)}.{kind}".replace("..", ".")] = tensor
    for name in [name for name in state if ".to_q." in name]:
        state[name.replace("to_q", "qkv")] = torch.cat(
            [state.pop(name.replace("to_q", f"to_{letter}")) for letter in "qkv"]
        )
    shapes = ours.state_dict()
    ours.load_state_dict({name: tensor.view(shapes[name].shape) for name, tensor in state.items()})
    return ours, Sample(theirs)


def _names(levels: int, blocks: int) -> dict[str, str]:
    """What diffusers calls the parts of such a U-Net, and what we call them."""
    names = {
        "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2", "class_embedding": "label_emb",
        "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
        "mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1", "mid_block.resnets.1": "middle_block.2",
    }  # fmt: skip
    for level in range(levels):
        first = level * (blocks + 1)
        for index in range(blocks + 1):
            for kind, place in (("resnets", 0), ("attentions", 1)):
                names[f"up_blocks.{level}.{kind}.{index}"] = f"output_blocks.{first + index}.{place}"
                if index < blocks:
                    names[f"down_blocks.{level}.{kind}.{index}"] = f"input_blocks.{1 + first + index}.{place}"
        names[f"down_blocks.{level}.downsamplers.0"] = f"input_blocks.{1 + first + blocks}.0"
        names[f"up_blocks.{level}.upsamplers.0"] = f"output_blocks.{first + blocks}.{2 if level == 0 else 1}"
    return names


def step(how: Callable[..., Side]) -> Callable[[Case], tuple[Side, Side]]:
    def build(case: Case) -> tuple[Side, Side]:
        rows, side, width = case.size
        inputs = case.randn(rows, 3, side, side), case.randint(1000, rows), case.randint(CLASSES, rows)
        ours, theirs = (case.place(net) for net in networks(side, width))
        return how(case, ours, *inputs), how(case, theirs, *inputs)

    return build


def sampling(case: Case) -> tuple[Side, Side]:
    from diffusers import DDIMScheduler

    rows, side, width = case.size
    config = Config(draw_steps=STEPS, sampler="ddim", eta=0.0, noise_schedule="linear", steps=1000)
    unet, theirs = (case.place(net).eval() for net in networks(side, width))
    ours = GuidedDiffusion(config, (3, side, side), unet)
    seeds, labels = list(range(rows)), torch.arange(rows, device=case.device) % CLASSES
    scheduler = DDIMScheduler(1000, beta_schedule="linear", beta_start=1e-4, beta_end=0.02, timestep_spacing="linspace")
    call: Any = case.ready(theirs)
    if case.compiled:
        unet.compile()

    @torch.no_grad()
    def draw() -> Tensor:
        scheduler.set_timesteps(STEPS, case.device)
        x = Noise(seeds, (3, side, side), next(theirs.parameters()))()
        for time in scheduler.timesteps:
            noise = call(x, time.expand(rows), labels)[:, :3]
            x = scheduler.step(noise, time, x).prev_sample
        return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)

    return Side(lambda: ours.draw(seeds, labels=labels)), Side(draw)


_IMAGES = {f"{rows} x 16 x 16": (rows, 16, 32) for rows in (1, 2, 4, 8)}

_SAME = "the same convolutions on both sides; channels last made them no faster on a CPU"

RACES = [
    *(
        Race(
            f"U-Net of width 32, {what}",
            "diffusers",
            step(how),
            _IMAGES,
            grows=lambda size: size[0],
            typical="1 x 16 x 16",
            bound=_SAME,
        )
        for what, how in (("training step", training), ("inference", inference))
    ),
    Race(
        f"sampling, {STEPS} steps of DDIM",
        "diffusers",
        sampling,
        _IMAGES,
        grows=lambda size: size[0],
        dtypes=("float32",),
        typical="1 x 16 x 16",
        bound=_SAME,
        differs="their sampler goes from t to t - 250 whatever the spacing, ours to the next of its steps",
    ),
]
