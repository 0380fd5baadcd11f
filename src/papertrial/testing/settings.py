"""Settings at the ends of their ranges and beyond, one at a time; the battery asks it of every method.

Inside of its range a setting builds, and where the network is small it takes a step; what does not go together with the
others, or with the data, is refused in one line. Beyond its range it is refused in one line with the range, by the command
line's way in and by the dataclass itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import torch

from papertrial.core import registry
from papertrial.core.errors import PapertrialError
from papertrial.core.offers import offers
from papertrial.core.ranges import Range
from papertrial.core.recipe import known_settings, ranges
from papertrial.testing.steps import first_batch, loss_of
from papertrial.train.sources import collected, is_source, learnt_from
from papertrial.train.stages import optim_of, rows_of, stages_of
from papertrial.use.card import build_model
from papertrial.use.room import weights_of

_ROWS = 4
#: bytes of weights up to which a network takes a step
_SMALL = 4_000_000


def ends(within: Range) -> list[Any]:
    """Values at the ends of a range: the words, or the least and the most number, entries or text."""
    if within.entries is not None:
        least, most = within.entries
        one = ends(replace(within, entries=None))
        return [(value,) * max(1, least) for value in one] + [(one[0],) * most, ()][: 1 + (least == 0)] if one else []
    if within.choices:
        return list(within.choices)
    if within.free:
        return []
    low = math.nextafter(within.low, math.inf) if within.open_low else within.low
    high = math.nextafter(within.high, -math.inf) if within.open_high else within.high
    off = [math.nextafter(0, 1)] if low == 0 and not within.step else []  # what is nearly off is on
    off += [0.0] if within.zero else []
    return [int(end) if within.step and math.isfinite(end) else end for end in (low, *off, high)]


def beyond(within: Range) -> list[Any]:
    """Values just outside of a range, and what is no value at all."""
    if within.entries is not None:
        least, most = within.entries
        one = ends(replace(within, entries=None)) or ["a"]
        wrong = [(value,) * max(1, least) for value in beyond(replace(within, entries=None)) if value != ""]
        return [*wrong, (one[0],) * (most + 1), *([(one[0],) * (least - 1)] if least else [])]
    if within.choices:
        return ["no such word"]
    if within.free:
        return []
    below = within.low if within.open_low else within.low - 1
    above = within.high if within.open_high else within.high + max(1, abs(within.high) / 8)
    found = [int(end) if within.step and math.isfinite(end) else end for end in (below, above, 10.0**30)]
    return [value for value in (*found, math.nan, math.inf, -math.inf, "", "x") if value not in within]


def refused(cls: type, made: Any = None, part: str = "") -> None:
    """Every setting of the dataclass `cls` refuses what is beyond its range, in one line with name and range. made: one of
    them, of which changed copies are refused too."""
    found = ranges(cls)
    for name, within in found.items():
        for value in beyond(within):
            said = [_refusal(known_settings, {name: value}, cls, part=part)]
            said += [_refusal(replace, made, **{name: value})] if made is not None else []
            for line in said:
                assert line is not None, f"{part}{name}={value!r} is taken, and its range is {within}"
                assert "\n" not in line and name in line and within.words() in line, (
                    f"the refusal of {name}={value!r} does not say its range: {line}"
                )


def _refusal(call: Any, *arguments: Any, **named: Any) -> str | None:
    try:
        call(*arguments, **named)
    except PapertrialError as error:
        return str(error)
    return None


def settings(b: Any) -> None:
    """Every setting is refused beyond its range; at the ends it builds, as a shape, and a small network takes a step with a finite
    loss and finite gradients. What does not go together is refused in one line. b: the `Bench` of a method."""
    paper, config_class = b.method.paper, b.method.module.Config
    trained = not paper.refusal and paper.kind != "technique"
    refused(config_class, b.resolved().config if trained else None)
    for name in paper.techniques:
        refused(registry.technique_class(name), part=f"{name}.")
    wrong = list(filter(None, (_at(b, name, value) for name, value in _every_end(config_class) if trained)))
    assert not wrong, "within the ranges, " + "; ".join(wrong)


def _every_end(cls: type) -> Iterator[tuple[str, Any]]:
    """(name, value) for all settings of a dataclass at their ends, but weights from elsewhere."""
    for entry in fields(cls):
        within = ranges(cls).get(entry.name)
        if within is not None and entry.name != "pretrained":
            yield from ((entry.name, value) for value in ends(within) if value != entry.default)


def _at(b: Any, name: str, value: Any) -> str:
    """What is wrong with one setting at this value, in words; nothing where it is as it should be."""
    try:
        sizes = _step_with(b, name, value)
    except PapertrialError as refusal:
        return f"{name}={value!r} is refused in several lines" if "\n" in str(refusal) else ""
    except Exception as error:
        return f"{name}={value!r} ends as {error!r}"
    return "" if all(map(math.isfinite, sizes)) else f"{name}={value!r} has the loss {sizes[0]} or gradients like it"


def _step_with(b: Any, name: str, value: Any) -> list[float]:
    """The losses of a step, in a system of each stage, and the size of the gradients; none of a network that is not small."""
    resolved = b.resolved(**{name: value})
    untrained = b.method.module.recipes["tiny"].budget.steps == 0 or getattr(resolved.network[1], "pretrained", False)
    if b.method.paper.kind == "estimator" or untrained:
        build_model(b.task, resolved, b.prepared)
        return []
    if weights_of(b.task, resolved, b.prepared) > _SMALL:
        return []
    torch.manual_seed(0)
    model = build_model(b.task, resolved, b.prepared)
    few = replace(b.prepared, train=b.prepared.train.take(slice(0, 4 * _ROWS)))
    rows = b.task.training(model, few)
    parts = [(model, learnt_from(model, rows), resolved.optim)]
    if offers(model).stages:
        stages = stages_of(model, resolved.optim)
        parts = [(one.model, rows_of(one, rows), optim_of(one, resolved.optim)) for one in stages]
    sizes = []
    for part, own, optim in parts:
        split = collected(own, part, optim, 0) if is_source(own) else own
        loss = loss_of(part, first_batch(part, split, _ROWS))
        loss.backward()
        gradients = [p.grad for p in part.parameters() if p.grad is not None]
        sizes += [float(loss.detach()), *(float(gradient.abs().max()) for gradient in gradients if len(gradient.shape))]
    return sizes
