"""The last good state of a training in one safetensors file: tensors, and the rest as JSON. Nothing is pickled, and the
SHA-256 of both is checked when it is read.

Names: `model/<parameter or buffer>`, `extra/<module>`, `optimizer/<index>/<entry>`, `ema/<index>`, `best/<parameter or buffer>`.
The file is written beside the old one and renamed, so a kill at any moment leaves one of the two whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from papertrial.core.doors import Damaged
from papertrial.core.errors import PapertrialError
from papertrial.core.files import to_json, write_with
from papertrial.train.shard import put, whole

_FORMAT = 1


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and all buffers, non-persistent ones too, each once; split ones stay split."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


@torch.no_grad()
def load_model_tensors(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy `tensors` into the model. Raises PapertrialError when names or shapes differ."""
    held = model_tensors(model)
    differing = sorted(held.keys() ^ tensors.keys())
    differing += [name for name in held.keys() & tensors.keys() if held[name].shape != tensors[name].shape]
    if differing:
        raise PapertrialError(
            f"the checkpoint is of another model (it differs in {differing[0]})", "choose another --out"
        )
    for name, tensor in held.items():
        put(tensor, tensors[name])


def extra_states(model: nn.Module) -> dict[str, Tensor]:
    """What modules keep beside parameters and buffers and training does not change, such as what a tokeniser has learnt."""
    states = {
        name: module.get_extra_state()
        for name, module in model.named_modules()
        if type(module).get_extra_state is not nn.Module.get_extra_state
    }
    return {name: state for name, state in states.items() if isinstance(state, Tensor)}


def require_extra_states(model: nn.Module, states: Mapping[str, Tensor]) -> None:
    """Raises PapertrialError when the model's are others: its data would not mean what the checkpoint's weights learnt."""
    held = extra_states(model)
    differing = sorted(held.keys() ^ states.keys())
    differing += [name for name in held.keys() & states.keys() if not torch.equal(held[name].cpu(), states[name])]
    if differing:
        raise PapertrialError(
            f"the checkpoint was made with another {differing[0] or 'model'} than the data gives now",
            "add --fresh to start over, or install the packages that the run began with",
        )


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state by index of the parameter; what is split over processes comes whole, and all of them take part."""
    return {
        f"{index}/{entry}": whole(value)
        for index, parameter in enumerate(_parameters(optimizer))
        for entry, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Replace the optimiser's state, in the memory layout of its parameters."""
    parameters = _parameters(optimizer)
    optimizer.state.clear()
    for name, value in tensors.items():
        index, _, entry = name.partition("/")
        parameter = parameters[int(index)]
        if value.shape == parameter.shape:
            held = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False)
            put(held, value)
            value = held
        elif optimizer.defaults.get("fused"):  # its step counters live beside the parameters
            value = value.to(parameter.device)
        optimizer.state[parameter][entry] = value


def save(path: Path, tensors: Mapping[str, Tensor], state: dict[str, Any]) -> None:
    """Raises PapertrialError when the disk is full or the place cannot be written; the old file then stays."""
    ready = {name: _own_memory(tensor) for name, tensor in tensors.items()}
    told = to_json({"format": _FORMAT, **state})
    metadata = {"papertrial": told, "sha256": _sum(ready, told)}
    write_with(path, lambda temporary: save_file(ready, temporary, metadata=metadata))


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors on the CPU, and the state. Raises PapertrialError for a file that is damaged or of another format."""
    anew = "remove it, and the run starts over with the same command"
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = json.loads(metadata["papertrial"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        version = state.pop("format")
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise Damaged(path, error, anew) from None
    if version != _FORMAT:
        raise PapertrialError(f"{path} was written by another version of papertrial", "add --fresh to start over")
    # earlier versions kept no sum
    if "sha256" in metadata and metadata["sha256"] != _sum(tensors, metadata["papertrial"]):
        raise Damaged(path, "its content is not what was written: the checksum differs", anew)
    return tensors, state


def _sum(tensors: Mapping[str, Tensor], told: str) -> str:
    digest = hashlib.sha256(told.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries under `prefix/`, without it."""
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}/")}


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _own_memory(tensor: Tensor) -> Tensor:
    """On the CPU, contiguous, and not a window on a larger tensor, which safetensors refuses."""
    tensor = tensor.detach().cpu().contiguous()
    return tensor.clone() if tensor.untyped_storage().nbytes() != tensor.nbytes else tensor
