"""The authors' encoder.pkl and decoder.pkl, read by name without building, or importing, what they pickle.

Both are whole modules that `torch.save` wrote: a zip archive of a pickle that says how the modules are nested, and the
numbers beside it. A pickle is a program that may call anything, so nothing of it is: of all the names it may look up, those
of tensors become descriptions, those of modules become empty records, and any other refuses the file.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from papertrial.core.errors import DataError
from papertrial.papers.dalle.dvae import Decoder, Encoder

#: types of numbers that a storage may hold
_STORAGES = {"FloatStorage": np.float32, "DoubleStorage": np.float64, "HalfStorage": np.float16}
#: modules whose classes are read as records; nothing in them is imported
_RECORDS = ("torch.nn.modules.", "dall_e.")
#: what else a pickled module holds, also as records: its device, and a set of names that every module has
_ALSO = {("torch", "device"), ("__builtin__", "set"), ("builtins", "set")}
#: a pickle that nests modules is small; the numbers are beside it
_LARGEST = 1 << 24
_DEEPEST = 64


class Record:
    """Stands for a module: whatever is done with it, it only keeps its state."""

    state: Any = None

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


@dataclass(frozen=True)
class Numbers:
    """Stands for a storage: where its numbers lie in the archive."""

    kind: str
    key: str
    count: int


@dataclass(frozen=True)
class Strided:
    """Stands for a tensor."""

    numbers: Numbers
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def _strided(numbers: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> Strided:
    whole = all(type(value) is int and value >= 0 for value in (offset, *shape, *stride))
    if not isinstance(numbers, Numbers) or not whole or len(shape) != len(stride):
        raise pickle.UnpicklingError("it describes a tensor without numbers")
    return Strided(numbers, offset, tuple(shape), tuple(stride))


def _parameter(held: Any, *rest: Any) -> Any:
    return held


class _Reader(pickle.Unpickler):
    """Nothing that a name leads to is imported: the names below are answered here, and all others are refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _strided
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _parameter
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _STORAGES:
            return name
        if (module, name) in _ALSO or module.startswith(_RECORDS):
            return Record
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no weights need")

    def persistent_load(self, held: Any) -> Numbers:
        if not isinstance(held, tuple) or len(held) != 5 or held[0] != "storage" or held[1] not in _STORAGES:
            raise pickle.UnpicklingError("it asks for something that is no storage")
        return Numbers(held[1], str(held[2]), int(held[4]))


def read_pickled(path: Path | str) -> dict[str, Tensor]:
    """Names and tensors of a module that `torch.save` wrote whole, as its `state_dict()` would give them.

    No code of the file is run and none of its classes is imported. Raises DataError for a file that is no such archive, is
    damaged, or asks for anything but tensors and modules.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            programs = [name for name in entries if name.split("/")[1:] == ["data.pkl"]]
            if len(programs) != 1:
                raise DataError(
                    f"{path} is not an archive of torch.save", "give the authors' encoder.pkl or decoder.pkl"
                )
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
                raise DataError(f"{path} is compressed, which torch.save never does", "download the file again")
            if entries[programs[0]].file_size > _LARGEST:
                raise DataError(f"{path} says too much about its tensors", "download the file again")
            program = archive.read(programs[0])
            _refuse_bombs(program)
            held = _Reader(io.BytesIO(program)).load()
            folder = programs[0].removesuffix("data.pkl")
            big = f"{folder}byteorder" in entries and archive.read(f"{folder}byteorder") == b"big"
            found: dict[str, Strided] = {}
            _collect(held, "", found, 0)
            storages: dict[Numbers, Tensor] = {}
            for each in found.values():
                if each.numbers not in storages:
                    storages[each.numbers] = _read_numbers(
                        archive, f"{folder}data/{each.numbers.key}", each.numbers, big
                    )
            tensors = {name: _tensor(each, storages[each.numbers]) for name, each in found.items()}
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"cannot read {path}: {(error.strerror or str(error)).lower()}", "check the path") from error
    except zipfile.BadZipFile as error:
        raise DataError(
            f"{path} is not an archive of torch.save", "give the authors' encoder.pkl or decoder.pkl"
        ) from error
    except Exception as error:  # a damaged or hostile pickle fails in any way it likes
        raise DataError(f"{path} is not read as weights: {error}", "use a file from the authors") from error
    if not tensors:
        raise DataError(f"{path} holds no tensors", "give the authors' encoder.pkl or decoder.pkl")
    return tensors


def _refuse_bombs(program: bytes) -> None:
    """A place in the memo beyond the length of the program would take memory for nothing."""
    for opcode, argument, _ in pickletools.genops(program):
        if opcode.name.endswith("PUT") and argument > len(program):
            raise pickle.UnpicklingError(f"it remembers {argument} things in {len(program)} bytes")


def _collect(held: Any, prefix: str, found: dict[str, Strided], depth: int) -> None:
    """Parameters and buffers of a record and of those within it, by their dotted names."""
    if depth > _DEEPEST or not isinstance(held, Record) or not isinstance(held.state, dict):
        raise DataError(
            f"no module is pickled at {prefix or 'the top'}", "give the authors' encoder.pkl or decoder.pkl"
        )
    for group in ("_parameters", "_buffers"):
        for name, value in (held.state.get(group) or {}).items():
            if isinstance(value, Strided):
                found[f"{prefix}{name}"] = value
    for name, value in (held.state.get("_modules") or {}).items():
        if value is not None:
            _collect(value, f"{prefix}{name}.", found, depth + 1)


def _read_numbers(archive: zipfile.ZipFile, name: str, numbers: Numbers, big: bool) -> Tensor:
    kind = np.dtype(_STORAGES[numbers.kind]).newbyteorder(">" if big else "<")
    values = np.frombuffer(archive.read(name), kind)
    if len(values) != numbers.count:
        raise DataError(f"{name} holds {len(values)} numbers, not {numbers.count}", "download the file again")
    return torch.from_numpy(values.astype(kind.newbyteorder("=")))


def _tensor(each: Strided, values: Tensor) -> Tensor:
    last = each.offset + sum((size - 1) * step for size, step in zip(each.shape, each.stride, strict=True))
    if math.prod(each.shape) > len(values) or (0 not in each.shape and last >= len(values)):
        raise DataError("a tensor reaches beyond its numbers", "download the file again")
    return values.as_strided(each.shape, each.stride, each.offset).clone()


def _sizes(tensors: dict[str, Tensor], side: int) -> dict[str, int]:
    """groups, blocks and what the shapes of the first and last layer say. side: 1 where `input` has the codes."""
    groups = {name.split(".")[1] for name in tensors if name.startswith("blocks.group_")}
    blocks = {name.split(".")[2] for name in tensors if name.startswith("blocks.group_1.block_")}
    first, last = tensors["blocks.input.w"].shape, tensors["blocks.output.conv.w"].shape
    sizes = {"groups": len(groups), "blocks": len(blocks)}
    if side:
        return {**sizes, "codes": first[1], "first": first[0], "hidden": last[1], "channels": last[0] // 2}
    return {**sizes, "channels": first[1], "hidden": first[0], "codes": last[0]}


def load_encoder(path: Path | str) -> Encoder:
    """The authors' encoder, in `eval()`, its sizes found from the shapes. Raises DataError as `read_pickled`, or where names
    or shapes are others."""
    return _load(path, Encoder, 0)


def load_decoder(path: Path | str) -> Decoder:
    """The authors' decoder, in the same way."""
    return _load(path, Decoder, 1)


def _load(path: Path | str, made: type[nn.Module], side: int) -> Any:
    tensors = read_pickled(path)
    try:
        model = made(**_sizes(tensors, side))
        model.load_state_dict(tensors)
    except (KeyError, RuntimeError, ValueError, IndexError) as error:
        why = str(error).splitlines()[0]
        raise DataError(
            f"{path} holds no {made.__name__.lower()} of DALL-E ({why})", "give the authors' file"
        ) from error
    return model.eval()
