"""The authors' weights in our modules: what a network is, read off the names and shapes of its weights.

    guided_diffusion.load("64x64_diffusion.pt", "64x64_classifier.pt").draw(range(8), labels=...)
    papertrial fit guided_diffusion:64 --data photos/ --set pretrained=64x64_diffusion.pt,64x64_classifier.pt

A checkpoint is a plain state dict: a `.pt` file, of which only tensors are read, or safetensors. Names are those of
`openai/guided-diffusion` and `openai/improved-diffusion`.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from papertrial.core.errors import PapertrialError
from papertrial.papers.guided_diffusion.unet import Classifier, Plan, UNet

#: what the weights of the published U-Nets do not tell, by (width, blocks, multipliers): flags in the authors' README
PUBLISHED: dict[tuple[int, int, tuple[float, ...]], dict[str, Any]] = {
    (192, 3, (1, 2, 3, 4)): {"head_width": 64, "qkv_first": True, "side": 64, "schedule": "cosine"},
    (256, 2, (1, 1, 2, 3, 4)): {"heads": 4, "side": 128, "schedule": "linear"},
    (256, 2, (1, 1, 2, 2, 4, 4)): {"head_width": 64, "side": 256, "schedule": "linear"},
    (256, 2, (0.5, 1, 1, 2, 2, 4, 4)): {"head_width": 64, "side": 512, "schedule": "linear"},
    (192, 2, (1, 1, 2, 2, 4, 4)): {"heads": 4, "side": 256, "schedule": "linear"},
    (192, 2, (0.5, 1, 1, 2, 2, 4, 4)): {"head_width": 64, "side": 512, "schedule": "linear"},
}


def flags_of(plan: Plan) -> dict[str, Any]:
    """Those of a published U-Net of these sizes; none for any other."""
    return PUBLISHED.get((plan.width, plan.blocks, plan.multipliers), {})


def read(file: Path | str) -> dict[str, Tensor]:
    """The tensors of a file, float32. Nothing in it is run. Raises PapertrialError for a file that holds no state dict."""
    path = Path(file).expanduser()
    if not path.is_file():
        raise PapertrialError(f"there is no file {file}", "name a .pt or .safetensors file")
    try:
        safe = path.suffix == ".safetensors"
        held = load_file(str(path)) if safe else torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise PapertrialError(f"{file} holds more than tensors, or is damaged ({first})", "download it again") from None
    if not isinstance(held, Mapping) or not all(isinstance(value, Tensor) for value in held.values()):
        raise PapertrialError(f"{file} is no state dict, a table of names and tensors", "save model.state_dict()")
    return {str(name): tensor.float() if tensor.is_floating_point() else tensor for name, tensor in held.items()}


def plan_of(state: Mapping[str, Tensor], name: str = "the checkpoint", **known: Any) -> Plan:
    """The sizes of a U-Net, or of a classifier, whose weights these are.

    known: fields of `Plan` that weights do not tell: heads or head_width and qkv_first (known of the published models), groups
    (32 where not given), dropout.  Raises PapertrialError, one line, for what must be told, and for networks of another kind.
    """
    if "time_embed.0.weight" not in state or "input_blocks.0.0.weight" not in state:
        raise PapertrialError(
            f"{name} is no U-Net and no classifier of guided diffusion", "it has neither time_embed nor input_blocks"
        )
    width = state["time_embed.0.weight"].shape[1]
    stages = _count(state, "input_blocks")
    blocks = known.pop("blocks", None) or _blocks(state, stages, name)
    levels = stages // (blocks + 1)
    first = [1 + level * (blocks + 1) for level in range(levels)]  # of each level
    if stages != levels * (blocks + 1) or f"input_blocks.{first[-1]}.0.in_layers.2.weight" not in state:
        raise PapertrialError(
            f"{name} has {stages} blocks on its way down, which are no levels of {blocks}",
            "tell it the blocks of a level",
        )
    sizes = [state[f"input_blocks.{index}.0.in_layers.2.weight"].shape[0] for index in first]
    multipliers = tuple(_plain(size / width) for size in sizes)
    signal = state[f"input_blocks.{first[0]}.0.emb_layers.1.weight"].shape[0]
    plan = Plan(
        channels=state["input_blocks.0.0.weight"].shape[1],
        width=width,
        multipliers=multipliers,
        blocks=blocks,
        attention=tuple(level for level, index in enumerate(first) if f"input_blocks.{index}.1.qkv.weight" in state),
        adaptive=signal == 2 * sizes[0],
        biggan=not any(".op.weight" in key for key in state),
    )
    # all classifiers have heads of 64 channels, in the authors' code
    published = flags_of(plan) if _is_unet(state) else {"head_width": 64}
    if not {"heads", "head_width"} & known.keys():
        known = {key: published[key] for key in ("heads", "head_width", "qkv_first") if key in published} | known
    if not {"heads", "head_width"} & known.keys():
        raise PapertrialError(
            f"{name} does not say how many heads its attention has, and is none of the published models",
            "give heads= or head_width=, and qkv_first=True where the flag use_new_attention_order was set",
        )
    return replace(plan, **known)


def load(file: Path | str, **known: Any) -> UNet | Classifier:
    """The network of a file, in eval mode.  known: as in `plan_of`.  Raises PapertrialError, also for a network of its sizes
    that has other weights."""
    state = read(file)
    plan = plan_of(state, str(file), **known)
    network: UNet | Classifier
    with torch.device("meta"):
        if _is_unet(state):
            network = UNet(plan, len(state["out.2.weight"]), len(state.get("label_emb.weight", ())))
        elif "out.2.positional_embedding" in state:
            places = state["out.2.positional_embedding"].shape[1] - 1
            network = Classifier(plan, places, len(state["out.2.c_proj.weight"]))
        else:
            raise PapertrialError(
                f"{file} is a classifier that does not pool by attention", "only those that do are read"
            )
    _require_fit(state, network.state_dict(), f"{file} is not what its first layers say it is")
    network.load_state_dict(state, assign=True)
    return network.eval()


def start_from(unet: UNet, classifier: Classifier | None, file: str, upsampler: UNet | None = None) -> None:
    """Put the weights of a file into the one of them that it is of; an upsampler reads twice the channels of the U-Net.

    Where its classes are others, the table of classes, or the classifier's last layer, stays fresh.  Raises PapertrialError
    for weights of other sizes.
    """
    state = read(file)
    network = unet if _is_unet(state) else classifier
    first = state.get("input_blocks.0.0.weight")
    if network is unet and upsampler is not None and first is not None and first.shape[1] == upsampler.plan.channels:
        network = upsampler
    if network is None:
        raise PapertrialError(f"{file} is a classifier, and without labels there is none here", "leave it out")
    own = network.state_dict()
    for key in ("label_emb.weight", "out.2.c_proj.weight", "out.2.c_proj.bias"):
        if own.get(key, torch.empty(0)).shape != state.get(key, torch.empty(0)).shape:
            state.pop(key, None)
            state |= {key: own[key]} if key in own else {}
    _require_fit(state, own, f"{file} does not fit this model", _advice(state, file))
    network.load_state_dict(state)


def _require_fit(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor], problem: str, fix: str = "") -> None:
    for key in [*ours, *theirs]:
        shapes = [tuple(side[key].shape) if key in side else "not there" for side in (theirs, ours)]
        if shapes[0] != shapes[1]:
            raise PapertrialError(f"{problem}: {key} is {shapes[0]} in the file and {shapes[1]} here", fix)


def _advice(state: Mapping[str, Tensor], name: str) -> str:
    """How to make a model of the sizes of a file."""
    try:
        plan = plan_of(state, name, head_width=64)
    except PapertrialError:
        return "choose the variant it was trained as, such as guided_diffusion:64"
    prefix = "" if _is_unet(state) else "classifier_"
    sizes = (
        f"{prefix}width={plan.width} {prefix}blocks={plan.blocks} multipliers={','.join(map(str, plan.multipliers))}"
    )
    return f"it takes {plan.channels} channels and --set {sizes} groups=32, or a variant such as guided_diffusion:64"


def _is_unet(state: Mapping[str, Tensor]) -> bool:
    return "output_blocks.0.0.in_layers.0.weight" in state


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({key.split(".")[1] for key in state if key.startswith(f"{prefix}.")})


def _blocks(state: Mapping[str, Tensor], stages: int, name: str) -> int:
    """ResBlocks a level. A U-Net tells by the layers that go up a level, a classifier by the attention of its last level."""
    if _is_unet(state):
        layers = {tuple(key.split(".")[1:3]) for key in state if key.startswith("output_blocks.")}
        ups = sum(
            f"output_blocks.{block}.{layer}.{part}.weight" in state
            for block, layer in layers
            for part in ("in_layers.2", "conv")
            if layer != "0"
        )
        return stages // (ups + 1) - 1
    run = 0
    while f"input_blocks.{stages - 1 - run}.1.qkv.weight" in state:
        run += 1
    if not run:
        raise PapertrialError(f"{name} does not say how many blocks a level has", "give blocks=")
    return run


def _plain(number: float) -> float:
    return int(number) if number == int(number) else number
