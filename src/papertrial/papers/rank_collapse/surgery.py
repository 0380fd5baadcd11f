"""Takes skip connections and branches out of a running model, whatever it is made of, and keeps what its layers made.

The model is not rewritten: a torch function mode sees every operation of a forward pass, recognises attention, and
knows an addition `x + f(x)` by where its two terms came from.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from papertrial.core.errors import Declined

Inputs = Mapping[str, Tensor] | Sequence[Tensor]


@dataclass
class Trace:
    """One pass through a model.

    tables: the tokens before the first layer and after each, (B, N, D).  maps: the attention maps (B, H, N, N) in the
    order they were used.  skips: how many skip connections were met, around `attention` and around `other` branches.
    epsilon: of the coarsest floating type that took part in the layers.
    """

    tables: list[Tensor] = field(default_factory=list)
    maps: list[Tensor] = field(default_factory=list)
    skips: dict[str, int] = field(default_factory=lambda: {"attention": 0, "other": 0})
    epsilon: float = 0.0


_ADDS = {"add": False, "__add__": False, "__radd__": False, "add_": True, "__iadd__": True}  # name: in place
_LINEAR = {"linear", "matmul", "__matmul__", "bmm", "addmm", "baddbmm", "einsum", "conv1d", "conv2d"}

#: operations that leave the numbers as they are: what they return counts as the tensor it came from
_VIEWS = {"__getitem__", "view", "reshape", "contiguous", "transpose", "permute", "clone", "to", "dropout"}


class Surgery(TorchFunctionMode):
    """Watches every torch operation of a model, and takes skip connections or branches out of `x + f(x)`.

    An addition of two tables is a skip connection when one was computed from the other through a linear map or
    attention, and its branch f is attention when attention took part in it: no class of the model need be known.

    shapes: of the tables of tokens.  cut: by sort of branch (`attention` or `other`), `skip` to turn x + f(x) into
    f(x), `branch` to turn it into x.
    """

    def __init__(self, trace: Trace, shapes: set[torch.Size], cut: Mapping[str, str]) -> None:
        super().__init__()
        self.trace, self.shapes, self.cut = trace, shapes, cut
        self._number = 0
        self._histories = WeakTensorKeyDictionary()
        self._linear: set[int] = set()
        self._attention: set[int] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        sort, stream, branch = self._skip(args) if name in _ADDS else ("", None, None)
        if sort:
            self.trace.skips[sort] += 1
        if sort in self.cut:
            kept = branch if self.cut[sort] == "skip" else stream
            out = args[0].copy_(kept) if _ADDS[name] else kept.clone()
        else:
            out = func(*args, **kwargs)
        maps = _attention_maps(name, func, args, kwargs, out)
        made = [entry for entry in _tensors(out) if entry.is_floating_point()]
        if made:
            history = frozenset().union(*(self._history(entry) for entry in _tensors([*args, *kwargs.values()])))
            if name not in _VIEWS:
                self._number += 1
                history |= {self._number}
            for entry in made:
                self._histories[entry] = history
                if self.trace.tables:
                    self.trace.epsilon = max(self.trace.epsilon, torch.finfo(entry.dtype).eps)
        if name in _LINEAR:
            self._linear.add(self._number)
        if maps is not None and maps.shape[-1] == maps.shape[-2] and any(maps.shape[-1] in s[:2] for s in self.shapes):
            self.trace.maps.append(maps.detach())
            self._attention.add(self._number)
        return out

    def _history(self, tensor: Tensor) -> frozenset[int]:
        """Numbers of the operations a tensor came from, its own the largest; what is met first came from nothing."""
        if tensor not in self._histories:
            self._number += 1
            self._histories[tensor] = frozenset({self._number})
        return self._histories[tensor]

    def _skip(self, added: Sequence[Any]) -> tuple[str, Any, Any]:
        """(sort, stream, branch) of an addition; the sort is empty when it is no skip connection."""
        if len(added) == 2 and all(isinstance(entry, Tensor) and entry.shape in self.shapes for entry in added):
            for stream, branch in (added, added[::-1]):
                before, after = self._history(stream), self._history(branch)
                between = after - before
                if max(before) in after and between & (self._linear | self._attention):
                    return "attention" if between & self._attention else "other", stream, branch
        return "", None, None


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples, lists and mappings."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, tuple | list):
        for entry in value:
            yield from _tensors(entry)


def _attention_maps(name: str, func: Any, args: Any, kwargs: Mapping[str, Any], out: Any) -> Tensor | None:
    """The maps (B, H, N, N) of an operation that is attention, or the last step of one written out; else None."""
    if name == "multi_head_attention_forward":
        return func(*args, **{**kwargs, "need_weights": True, "average_attn_weights": False})[1]
    if name == "scaled_dot_product_attention":
        return _softmax(*args, **kwargs)
    if name == "softmax" and out.ndim in (3, 4):
        return out if out.ndim == 4 else out[:, None]
    return None


def _softmax(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """The map inside `scaled_dot_product_attention`."""
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
    logits = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        logits = logits.masked_fill(torch.ones_like(logits, dtype=torch.bool).triu(1), -math.inf)
    elif attn_mask is not None:
        logits = logits.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else logits + attn_mask
    return logits.softmax(-1)


def find_layers(model: nn.Module, data: Inputs, pattern: str = "") -> tuple[list[str], set[torch.Size]]:
    """Names of the modules that are the model's layers, and the shapes of their tables.

    A layer takes and returns a table (B, N, D) of one shape. They are the children of one list that are called most
    often, the outermost where several are; or all modules whose name `pattern` finds. Raises Declined when none is.
    """
    calls: dict[str, int] = {}
    shapes: dict[str, set[torch.Size]] = {}

    def hook(name: str) -> Any:
        def seen(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
            before, after = _table([*args, *kwargs.values()]), _table(out)
            if before is not None and after is not None and before.shape == after.shape:
                calls[name] = calls.get(name, 0) + 1
                shapes.setdefault(name, set()).add(before.shape)

        return seen

    with _hooked(
        module.register_forward_hook(hook(name), with_kwargs=True) for name, module in model.named_modules() if name
    ):
        _call(model, data)
    if pattern:
        found = [name for name in calls if re.search(pattern, name)]
        hint = f"layers it has: {', '.join(list(calls)[:8])}"
    else:
        stacks: dict[tuple[str, type], list[str]] = {}
        for name in sorted(calls, key=lambda name: [int(part) if part.isdigit() else -1 for part in name.split(".")]):
            parent, _, last = name.rpartition(".")
            if last.isdigit():
                stacks.setdefault((parent, type(model.get_submodule(name))), []).append(name)
        found = max(
            stacks.values(), key=lambda names: (sum(calls[name] for name in names), -names[0].count(".")), default=[]
        )
        hint = "name them with --set layers=PATTERN"
    if not found:
        raise Declined("no layers were found that take and return a table of tokens (examples, tokens, width)", hint)
    return found, set().union(*(shapes[name] for name in found))


def _table(value: Any) -> Tensor | None:
    return next((entry for entry in _tensors(value) if entry.ndim == 3 and entry.is_floating_point()), None)


@contextmanager
def _hooked(handles: Iterator[Any]) -> Iterator[None]:
    held = list(handles)
    try:
        yield
    finally:
        for handle in held:
            handle.remove()


def _call(model: nn.Module, data: Inputs) -> None:
    with torch.no_grad():
        model(**data) if isinstance(data, Mapping) else model(*data)


def trace(
    model: nn.Module, data: Inputs, layers: Sequence[str], shapes: set[torch.Size], cut: Mapping[str, str] | None = None
) -> Trace:
    """Run the model with some skip connections or branches cut (see Surgery) and keep what the layers made."""
    found = Trace()

    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        if not found.tables:
            found.tables.append(_table([*args, *kwargs.values()]).clone())

    def after(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        found.tables.append(_table(out).clone())

    modules = [model.get_submodule(name) for name in layers]
    hooks = [module.register_forward_pre_hook(before, with_kwargs=True) for module in modules]
    hooks += [module.register_forward_hook(after, with_kwargs=True) for module in modules]
    with _hooked(iter(hooks)), Surgery(found, shapes, cut or {}):
        _call(model, data)
    if found.maps and found.tables[0].shape[1] != found.maps[0].shape[-1]:  # tables (N, B, D), as torch once had them
        found.tables = [table.transpose(0, 1) for table in found.tables]
    return found
