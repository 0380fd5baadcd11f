"""Recipes and sourced defaults: every number a run uses knows where it came from.

A setting's value is taken from the first of: the user (`--set`), the variant (`mlp_mixer:B/16`), the recipe, the
field's `auto` rule on the facts of the data, the default. `resolve` keeps the winner's source beside the value.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from papertrial.core.budget import Budget
from papertrial.core.errors import PapertrialError, did_you_mean
from papertrial.core.facts import Facts


def sourced(default: Any, where: str, auto: Callable[[Facts], Any] | None = None) -> Any:
    """A dataclass field with its source. `auto(facts)` gives the value for other data; None keeps the default."""
    return field(default=default, metadata={"where": where, "auto": auto})


@dataclass(frozen=True)
class Optim:
    """How a method is trained; every field can be set by a recipe or with `--set`."""

    optimizer: str = sourced("adamw", "papertrial default")  # adamw | sgd | lars | adafactor
    lr: float = sourced(1e-3, "papertrial default")
    weight_decay: float = sourced(0.05, "papertrial default")
    momentum: float = sourced(0.9, "papertrial default; sgd and lars")
    beta2: float = sourced(0.999, "papertrial default; adamw")
    batch: int = sourced(256, "papertrial default", auto=lambda facts: max(8, min(256, facts.examples // 8)))
    accumulate: int = sourced(1, "papertrial default")  # micro-batches one optimiser step is made of
    schedule: str = sourced("cosine", "papertrial default")  # cosine | constant
    warmup: float = sourced(0.05, "papertrial default; share of the steps")
    end_lr: float = sourced(0.0, "papertrial default; share of lr at the last step")
    clip: float = sourced(1.0, "papertrial default; global norm, 0 is off")
    label_smoothing: float = sourced(0.0, "papertrial default")
    ema: float = sourced(0.0, "papertrial default; decay of the weight average, 0 is off")
    patience: int = sourced(0, "papertrial default; epochs without a better validation score, 0 is off")
    epochs: int = sourced(0, "papertrial default; most epochs a run may take, 0 is no limit")
    precision: str = sourced("auto", "papertrial default; auto is bf16 on a GPU that has it and fp32 elsewhere")
    channels_last: bool = sourced(False, "papertrial default")
    compile: bool = sourced(False, "papertrial default")


@dataclass(frozen=True)
class Recipe:
    """Settings that go together: `paper` (the authors'), `base` (one machine, minutes), `tiny` (CPU, seconds, runs in CI).

    config and optim hold only what differs from the defaults. techniques: as the user would name them, `agc:clip=0.02`.
    cost and expect are words for readers.
    """

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    optim: Mapping[str, Any] = field(default_factory=dict)
    budget: Budget = field(default_factory=Budget)
    techniques: tuple[str, ...] = ()
    source: str = ""
    cost: str = ""
    expect: str = ""


@dataclass(frozen=True)
class Setting:
    """One resolved value with its source, as printed and as kept in the card."""

    name: str
    value: Any
    source: str


def resolve(cls: type, facts: Facts | None, layers: Mapping[str, Mapping[str, Any]]) -> tuple[Any, list[Setting]]:
    """Build the dataclass `cls` and say where each value came from.

    layers: source name -> values, weakest first. Names that `cls` does not have are ignored here; `unknown_settings`
    refuses them. Raises PapertrialError for a value of the wrong type.
    """
    settings = _settled(cls, facts, layers)
    return cls(**{setting.name: setting.value for setting in settings}), settings


def defaults(cls: type) -> list[Setting]:
    """What the dataclass `cls` is set to where nothing is asked for, whether it can be made of that or not."""
    return _settled(cls, None, {})


def _settled(cls: type, facts: Facts | None, layers: Mapping[str, Mapping[str, Any]]) -> list[Setting]:
    settings = []
    hints = typing.get_type_hints(cls)
    for entry in dataclasses.fields(cls):
        value, source = entry.default, entry.metadata.get("where", "papertrial default")
        rule = entry.metadata.get("auto")
        if rule is not None and facts is not None and (suited := rule(facts)) is not None and suited != value:
            value, source = suited, f"suited to this data (default {entry.default!r}, {source})"
        for layer, given in layers.items():
            if entry.name in given:
                value, source = _cast(entry.name, given[entry.name], hints[entry.name]), layer
        settings.append(Setting(entry.name, value, source))
    return settings


#: what other libraries call our settings
_ELSEWHERE = {
    **dict.fromkeys(("learning_rate", "learningrate", "eta"), "lr"),
    **dict.fromkeys(("batch_size", "batchsize", "bs"), "batch"),
    **dict.fromkeys(("wd", "decay"), "weight_decay"),
    **dict.fromkeys(("num_epochs", "n_epochs", "max_epochs", "epoch"), "epochs"),
    **dict.fromkeys(("num_layers", "n_layers", "layers", "n_blocks", "num_hidden_layers"), "depth"),
    **dict.fromkeys(("hidden_size", "d_model", "dim", "embed_dim", "n_embd"), "width"),
    **dict.fromkeys(("num_heads", "n_heads", "nhead", "num_attention_heads"), "heads"),
    **dict.fromkeys(("warmup_steps", "warmup_ratio"), "warmup"),
    **dict.fromkeys(("max_length", "max_len", "seq_len", "block_size"), "longest"),
    **dict.fromkeys(("gradient_accumulation_steps", "grad_accum"), "accumulate"),
    **dict.fromkeys(("max_grad_norm", "grad_clip", "gradient_clip"), "clip"),
    **dict.fromkeys(("patch_size",), "patch"),
}


def unknown_settings(given: Mapping[str, Any], *classes: type) -> None:
    """Raise PapertrialError for a name that none of the dataclasses has."""
    known = [entry.name for cls in classes for entry in dataclasses.fields(cls)]
    for name in given:
        if name not in known:
            ours = _ELSEWHERE.get(name.casefold())
            hint = f"it is called {ours!r} here" if ours in known else did_you_mean(name, known)
            raise PapertrialError(f"there is no setting {name!r}", hint)


def parse_settings(texts: list[str]) -> dict[str, str]:
    """`["lr=1e-3", "patch=4"]` as a dict; raises PapertrialError for an entry without '='."""
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise PapertrialError(f"cannot read the setting {text!r}", "write it as name=value")
        pairs[name.strip()] = value.strip()
    return pairs


def _cast(name: str, value: Any, hint: Any) -> Any:
    """Text from the command line becomes what the field holds; other values are checked."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if type(None) in options and (value is None or str(value).lower() in ("none", "null")):
        return None
    wanted = next(option for option in options if option is not type(None))
    origin = typing.get_origin(wanted) or wanted
    try:
        if origin is tuple:
            entries = value.strip("()[] ").split(",") if isinstance(value, str) else value
            kind = (typing.get_args(wanted) or (str,))[0]
            return tuple(kind(entry) for entry in entries if str(entry).strip())
        if origin is bool:
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[str(value).lower()]
        if origin is int:
            number = float(value)
            if number != int(number):
                raise ValueError
            return int(number)
        return origin(value)
    except (TypeError, ValueError, KeyError, OverflowError):
        words = {int: "a whole number", float: "a number", bool: "true or false", tuple: "a list such as 1,2,3"}
        raise PapertrialError(
            f"the setting {name} is {value!r}, but it takes {words.get(origin, origin.__name__)}",
            f"write it as {name}=...",
        ) from None
