"""Recipes and sourced defaults: every number a run uses knows where it came from.

A setting's value is taken from the first of: the user (`--set`), the variant (`mlp_mixer:B/16`), the recipe, the
field's `auto` rule on the facts of the data, the default. `resolve` keeps the winner's source beside the value.
Whoever makes a dataclass that is `checked`, its values lie within their ranges.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from papertrial.core.budget import Budget
from papertrial.core.errors import PapertrialError, did_you_mean
from papertrial.core.facts import Facts
from papertrial.core.ranges import IMAGE, Range, shown

Made = TypeVar("Made", bound=type)


def sourced(default: Any, where: str, within: str = "", auto: Callable[[Facts], Any] | None = None) -> Any:
    """A dataclass field with its source and its range, in the notation of `core.ranges`; a truth value needs none.

    `auto(facts)` gives the value for other data; None keeps the default.
    """
    return field(default=default, metadata={"where": where, "within": within, "auto": auto})


@functools.cache
def ranges(cls: type) -> dict[str, Range]:
    """The range of every setting of a dataclass that states one, by name; a truth value's follows from its type."""
    hints, found = typing.get_type_hints(cls), {}
    for entry in dataclasses.fields(cls):
        kind, many, optional = _kind(hints[entry.name])
        within = entry.metadata.get("within", "")
        if within:
            one = Range.parse(within, kind)
            if (one.entries is not None) is not many:
                raise ValueError(
                    f"the range of {entry.name} counts entries" if one.entries else f"{entry.name} is a tuple"
                )
            found[entry.name] = dataclasses.replace(one, optional=optional)
        elif kind is bool and not many:
            found[entry.name] = Range(choices=(False, True), optional=optional)
    return found


def _kind(hint: Any) -> tuple[type, bool, bool]:
    """The type of a value or of an entry, whether there are several, and whether it may be None."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    wanted = next(option for option in options if option is not type(None))
    many = (typing.get_origin(wanted) or wanted) is tuple
    kind = (typing.get_args(wanted) or (str,))[0] if many else wanted
    return kind, many, type(None) in options


def require(cls: type, values: Mapping[str, Any], facts: Facts | None = None, part: str = "") -> None:
    """Raise PapertrialError for a value of a setting of `cls` that is out of range, alone or beside the others.

    facts: by which values are held to the sides of the images.  part: what its settings are called by, such as `backbone.`.
    """
    usual = {entry.name: entry.default for entry in dataclasses.fields(cls)}
    held = {**values, **({IMAGE: (facts.height, facts.width)} if facts is not None and facts.height else {})}
    for name, one in ranges(cls).items():
        one.require(part + name, values[name], usual[name])
    for name, one in ranges(cls).items():
        one.require_with(part + name, values[name], held)


def checked(cls: Made) -> Made:
    """The dataclass, which refuses values out of range with PapertrialError, whoever makes one. Raises ValueError for a range
    that cannot be read, or a relation to a setting that there is not."""
    names = {entry.name for entry in dataclasses.fields(cls)} | {IMAGE}
    for name, found in ranges(cls).items():
        needed = {relation.to for relation in found.relations if isinstance(relation.to, str)}
        needed |= {relation.when[0] for relation in found.relations if relation.when}
        if not needed <= names:
            raise ValueError(
                f"{cls.__qualname__}.{name} is held to {', '.join(sorted(needed - names))}, which it lacks"
            )
    made: Any = vars(cls)["__init__"]

    @functools.wraps(made)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **kwargs)
        require(cls, vars(self))

    cls.__init__ = init  # type: ignore[misc]
    return cls


@checked
@dataclass(frozen=True)
class Optim:
    """How a method is trained; every field can be set by a recipe or with `--set`."""

    optimizer: str = sourced("adamw", "papertrial default", "adamw | sgd | lars | adafactor")
    lr: float = sourced(1e-3, "papertrial default", "[1e-9, 1000]")
    weight_decay: float = sourced(0.05, "papertrial default", "[0, 100]")
    momentum: float = sourced(0.9, "papertrial default; sgd and lars", "[0, 1)")
    beta2: float = sourced(0.999, "papertrial default; adamw", "[0, 1)")
    batch: int = sourced(
        256, "papertrial default", "[1, 1000000]", auto=lambda facts: max(8, min(256, facts.examples // 8))
    )
    accumulate: int = sourced(1, "papertrial default; micro-batches one optimiser step is made of", "[1, 65536]")
    schedule: str = sourced("cosine", "papertrial default", "cosine | constant")
    warmup: float = sourced(0.05, "papertrial default; share of the steps", "[0, 1]")
    end_lr: float = sourced(0.0, "papertrial default; share of lr at the last step", "[0, 1]")
    clip: float = sourced(1.0, "papertrial default; global norm, 0 is off", "[0, 1e6]")
    label_smoothing: float = sourced(0.0, "papertrial default", "[0, 1)")
    ema: float = sourced(0.0, "papertrial default; decay of the weight average, 0 is off", "[0, 1)")
    patience: int = sourced(0, "papertrial default; epochs without a better validation score, 0 is off", "[0, 1000000]")
    epochs: int = sourced(0, "papertrial default; most epochs a run may take, 0 is no limit", "[0, 1000000]")
    precision: str = sourced(
        "auto", "papertrial default; auto is bf16 on a GPU that has it and fp32 elsewhere", "auto | fp32 | bf16"
    )
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


def resolve(
    cls: type, facts: Facts | None, layers: Mapping[str, Mapping[str, Any]], part: str = ""
) -> tuple[Any, list[Setting]]:
    """Build the dataclass `cls` and say where each value came from.

    layers: source name -> values, weakest first. Names that `cls` does not have are ignored here; `unknown_settings`
    refuses them.  part: what its settings are called by, such as `backbone.`.  Raises PapertrialError for a value of the
    wrong type, and for one out of its range, alone or beside the other values and the facts.
    """
    settings = _settled(cls, facts, layers, part)
    values = {setting.name: setting.value for setting in settings}
    require(cls, values, facts, part)
    return cls(**values), settings


def defaults(cls: type) -> list[Setting]:
    """What the dataclass `cls` is set to where nothing is asked for, whether it can be made of that or not."""
    return _settled(cls, None, {})


def known_settings(given: Mapping[str, Any], *classes: type, part: str = "") -> None:
    """Raise PapertrialError for what no data make right: a name that none of the dataclasses has, a value of the wrong type or
    out of its range."""
    unknown_settings(given, *classes)
    for cls in classes:
        found, hints = ranges(cls), typing.get_type_hints(cls)
        for entry in dataclasses.fields(cls):
            if entry.name in given:
                value = _cast(part + entry.name, given[entry.name], hints[entry.name], found.get(entry.name))
                if entry.name in found:
                    found[entry.name].require(part + entry.name, value, entry.default)


def _settled(cls: type, facts: Facts | None, layers: Mapping[str, Mapping[str, Any]], part: str = "") -> list[Setting]:
    settings = []
    hints, found = typing.get_type_hints(cls), ranges(cls)
    for entry in dataclasses.fields(cls):
        value, source = entry.default, entry.metadata.get("where", "papertrial default")
        rule = entry.metadata.get("auto")
        if rule is not None and facts is not None and (suited := rule(facts)) is not None and suited != value:
            value, source = suited, f"suited to this data (default {entry.default!r}, {source})"
        for layer, given in layers.items():
            if entry.name in given:
                value = _cast(part + entry.name, given[entry.name], hints[entry.name], found.get(entry.name))
                source = layer
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


def _cast(name: str, value: Any, hint: Any, within: Range | None = None) -> Any:
    """Text from the command line becomes what the field holds; other values are checked."""
    wanted, many, optional = _kind(hint)
    if optional and (value is None or str(value).lower() in ("none", "null")):
        return None
    try:
        if many:
            entries = value.strip("()[] ").split(",") if isinstance(value, str) else value
            return tuple(wanted(entry) for entry in entries if str(entry).strip())
        if wanted is bool:
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[str(value).lower()]
        if wanted is int:
            number = value if isinstance(value, int) else float(value)
            if number != int(number):
                raise ValueError
            return int(number)
        return wanted(value)
    except (TypeError, ValueError, KeyError, OverflowError):
        words = {int: "a whole number", float: "a number", bool: "true or false"}
        says = within.words() if within else words.get(wanted, wanted.__name__)
        problem = f"the setting {name} is {shown(value)}, but it takes {says}"
        raise PapertrialError(problem, f"write it as {name}={'1,2,3' if many and not within else '...'}") from None
