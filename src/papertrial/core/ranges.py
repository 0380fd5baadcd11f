"""Which values a setting takes, stated beside its default and read by all that sets, shows or tries settings.

The notation:

- `[1, 64]` is from 1 to 64; a round bracket leaves its end out, so that `(0, 1]` is above 0, up to 1. What begins above 0
  and spans a thousandfold, as `[1e-9, 1000]`, is searched on a logarithmic scale. `0 or [0.5, 2]` can be switched off.
- `bytes | bpe` is one of these words; `any` is any text, such as a folder.
- `1 to 8 of [1, 64]` is a tuple: how many entries, and what each may be.
- `[1, 64], divides width` is held to another setting, `[2, 64], multiple of 2 heads` to a number of times it. Other verbs: at most,
  below, at least, above, as many as. `divides image` is said of both sides of the images, once they are known;
  `multiple of heads if model=mlp` holds where another setting has a value. A 0, which stands for off, all or automatic, is
  held to nothing.
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from papertrial.core.errors import PapertrialError, WrongValue, did_you_mean

#: what holds a value against another; how it is said; whether each entry of a tuple is held to it
_VERBS: dict[str, Callable[[Any, Any], bool]] = {
    "divides": lambda value, other: other % value == 0,
    "multiple of": lambda value, other: value % other == 0,
    "at most": lambda value, other: value <= other,
    "below": lambda value, other: value < other,
    "at least": lambda value, other: value >= other,
    "above": lambda value, other: value > other,
    "as many as": lambda value, other: len(value) == len(other),
}
_SAID = {
    "divides": "must divide",
    "multiple of": "must be a multiple of",
    "as many as": "must have as many entries as",
}
_INTERVAL = re.compile(r"(0 or )?([\[(])\s*([^,\s]+)\s*,\s*([^,\s]+)\s*([\])])")
_ENTRIES = re.compile(r"(\d+) to (\d+) of (.+)", re.DOTALL)
_RELATION = re.compile(rf"({'|'.join(_VERBS)}) (?:(\d+) (?=\w))?(\S+)(?: if (\w+)=(\S+))?")
_WORD = re.compile(r"[\w.+-]+")
#: the sides of the images that a model sees, in the place of another setting
IMAGE = "image"


@dataclass(frozen=True)
class Relation:
    """What a value is held to. to: a number, or the name of another setting, taken `times`.  when: (setting, value) it is
    restricted to."""

    verb: str
    to: float | str
    times: int = 1
    when: tuple[str, str] | None = None

    def __str__(self) -> str:
        return f"{self.verb} {self.other}" + (f" if {self.when[0]}={self.when[1]}" if self.when else "")

    @property
    def other(self) -> str:
        """`width`, `2 heads`."""
        named = self.to if isinstance(self.to, str) else _number(self.to)
        return f"{self.times} {named}" if self.times > 1 else named


@dataclass(frozen=True)
class Range:
    """The values of one setting. low, high: ends, left out where `open_low`, `open_high`.  zero: 0 too, below `low`.  scale: linear or log.  step: 1 for
    whole numbers, None for all.  choices: words or truth values, of which it is one; () for none.  free: any text.
    entries: least and most of a tuple, None for what is no tuple.  optional: None too.
    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    zero: bool = False
    scale: str = "linear"
    step: int | None = None
    choices: tuple[Any, ...] = ()
    free: bool = False
    entries: tuple[int, int] | None = None
    optional: bool = False
    relations: tuple[Relation, ...] = ()

    @classmethod
    def parse(cls, text: str, kind: type = float) -> Range:
        """Read the notation above. kind: of a value, or of an entry. Raises ValueError for what cannot be read, and for an
        interval of words or words for a number."""
        entries = _ENTRIES.fullmatch(text.strip())
        if entries is not None:
            return replace(cls.parse(entries[3], kind), entries=(int(entries[1]), int(entries[2])))
        interval = _INTERVAL.match(text)
        values = text[interval.end() :] if interval else text
        own, *rest = values.split(",")
        relations = tuple(_relation(part.strip()) for part in rest)
        if (interval is not None) is not (kind in (int, float)) or (interval is not None and own.strip()):
            raise ValueError(f"the range {text!r} is not one of {kind.__name__}")
        if interval is None:
            words = tuple(word.strip() for word in own.split("|"))
            if not all(_WORD.fullmatch(word) for word in words):
                raise ValueError(f"cannot read the range {text!r}")
            return cls(free=words == ("any",), choices=() if words == ("any",) else words, relations=relations)
        low, high = float(interval[3]), float(interval[4])
        if not low < high:
            raise ValueError(f"the range {text!r} is empty")
        scale, step = ("log" if low > 0 and high >= 1000 * low else "linear"), (1 if kind is int else None)
        return cls(
            low, high, interval[2] == "(", interval[5] == ")", bool(interval[1]), scale, step, relations=relations
        )

    def __str__(self) -> str:
        """The notation, but for what the type says: a whole number, none."""
        if self.free:
            values = "any"
        elif self.choices:
            values = " | ".join(str(choice).lower() if isinstance(choice, bool) else choice for choice in self.choices)
        else:
            brackets = "(" if self.open_low else "[", ")" if self.open_high else "]"
            values = f"{'0 or ' * self.zero}{brackets[0]}{_number(self.low)}, {_number(self.high)}{brackets[1]}"
        many = f"{self.entries[0]} to {self.entries[1]} of " if self.entries else ""
        return ", ".join([many + values, *map(str, self.relations)])

    def words(self) -> str:
        """What it takes, for a sentence: `a whole number from 1 to 64`."""
        if self.entries is not None:
            least, most = self.entries
            said = replace(self, entries=None).words()
            return f"{least if least == most else f'{least} to {most}'} values, each {said}"
        if self.free:
            return "text"
        if self.choices:
            return " or ".join(str(self)[: len(str(replace(self, relations=())))].split(" | "))
        noun = ("0, or " * self.zero) + ("a whole number" if self.step else "a number")
        low, high = _number(self.low), _number(self.high)
        if not (self.open_low or self.open_high):
            return f"{noun} from {low} to {high}"
        first = f"{'above' if self.open_low else 'of at least'} {low}"
        return f"{noun} {first} and {'below' if self.open_high else 'at most'} {high}"

    def __contains__(self, value: Any) -> bool:
        """Whether the value alone is one of these; relations to others are `broken`."""
        if value is None:
            return self.optional
        if self.entries is not None:
            inner = replace(self, entries=None, optional=False)
            several = isinstance(value, tuple | list)
            return several and self.entries[0] <= len(value) <= self.entries[1] and all(one in inner for one in value)
        if self.free:
            return isinstance(value, str) and "\0" not in value
        if self.choices:
            return value in self.choices and isinstance(value, type(self.choices[0]))
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            return False
        number: Any = value
        if self.zero and number == 0:
            return True
        if self.step and number != number // 1:
            return False
        above = number > self.low if self.open_low else number >= self.low
        return bool(above and (number < self.high if self.open_high else number <= self.high))

    def broken(self, value: Any, others: Mapping[str, Any]) -> tuple[Relation, Any] | None:
        """The first relation that the value does not keep, with what it was held against. others: values of other settings,
        and under `image` the sides of the images where they are known."""
        for relation in self.relations:
            if relation.when is not None and str(others.get(relation.when[0])).lower() != relation.when[1].lower():
                continue
            to = others.get(relation.to) if isinstance(relation.to, str) else relation.to
            if to is None or value is None:
                continue
            to = relation.times * to if relation.times > 1 else to
            kept = _VERBS[relation.verb]
            if relation.verb == "as many as":
                held = kept(value, to)
            else:
                held = all(
                    kept(one, other)
                    for one in (value if isinstance(value, tuple | list) else [value])
                    if one != 0
                    for other in (to if isinstance(to, tuple | list) else [to])
                    if other != 0 or relation.verb not in ("divides", "multiple of")
                )
            if not held:
                return relation, to
        return None

    def require(self, name: str, value: Any, default: Any = None, what: str = "the setting ") -> None:
        """Raise WrongValue, in one line with the range, for a value that is none of these."""
        if value in self:
            return
        fix = "" if default is None or default not in self else f"its default is {shown(default)}"
        if self.choices and self.entries is None and isinstance(value, str):
            fix = did_you_mean(value, map(str, self.choices))
        raise WrongValue(f"{what}{name} is {shown(value)}, but it takes {self.words()}", fix)

    def require_with(self, name: str, value: Any, others: Mapping[str, Any]) -> None:
        """Raise PapertrialError for a value that others do not leave room for."""
        found = self.broken(value, others)
        if found is None:
            return
        relation, to = found
        said = _SAID.get(relation.verb, f"must be {relation.verb}")
        if relation.to == IMAGE:
            against = f"both sides of the images, {'x'.join(map(str, to))}"
        elif isinstance(relation.to, str):
            against = f"{relation.other}, which is {shown(to)}"
        else:
            against = _number(relation.to)
        where = f" where {relation.when[0]} is {relation.when[1]}" if relation.when else ""
        raise PapertrialError(
            f"the setting {name} is {shown(value)}, but it {said} {against}{where}", _advice(relation, to)
        )


def _relation(text: str) -> Relation:
    found = _RELATION.fullmatch(text)
    if found is None:
        raise ValueError(f"cannot read {text!r} in a range")
    try:
        to: float | str = float(found[3])
    except ValueError:
        to = found[3]
    return Relation(found[1], to, int(found[2] or 1), (found[4], found[5]) if found[4] else None)


def _advice(relation: Relation, to: Any) -> str:
    if relation.verb != "divides":
        return ""
    common = math.gcd(*(int(one) for one in (to if isinstance(to, tuple | list) else [to])))
    fits = [size for size in range(1, min(common, 4096) + 1) if common % size == 0]
    return f"choose one of {', '.join(map(str, fits if len(fits) <= 12 else [*fits[:6], '...', *fits[-5:]]))}"


def _number(value: float) -> str:
    if abs(value) < 1e15 and value == value // 1:
        return f"{value:.0f}"
    return re.sub(r"e([+-])0*", lambda power: "e" + power[1].strip("+"), f"{value:g}")


def shown(value: Any) -> str:
    """A value in a message, cut where it is long."""
    try:
        number = isinstance(value, float) and math.isfinite(value)
        text = _number(value) if number else repr(value) if isinstance(value, str) else str(value)
    except ValueError:  # more digits than Python writes out
        text = "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:56]} ..."


#: numbers that are asked for beside a method's settings, by the name they have in Python and on the command line
NUMBERS = {
    name: Range.parse(text, kind)
    for name, text, kind in (
        ("seed", "[0, 2147483647]", int),  # 31 bits: what every library takes
        ("seeds", "[1, 200]", int),
        ("labels", "[1, 1000000000]", int),
        ("size", "[4, 1024]", int),
        ("fraction", "(0, 1]", float),
        ("jobs", "[1, 1024]", int),
        ("cores", "[1, 1024]", int),
        ("examples", "[1, 1000000]", int),
        ("tokens", "[2, 1000000]", int),
        ("most", "[1, 1000000]", int),
        ("length", "[1, 1000000]", int),
        ("temperature", "[0, 100]", float),  # at 100 the likeliest of 50 000 tokens hardly differs from the rest
        ("top_k", "[0, 1000000]", int),
        ("top_p", "(0, 1]", float),
        ("beams", "[1, 1024]", int),
        ("length_penalty", "[-100, 100]", float),
        ("samples", "[1, 1000000000000]", int),
        ("guidance", "[0, 1000]", float),
        ("steps", "[1, 100000]", int),
        ("strength", "(0, 1]", float),
        ("longest", "[1, 4096]", int),
        ("raters", "[1, 10000]", int),
        ("labels_per_item", "[1, 10000]", int),
        ("minutes", "[0.1, 1000000]", float),
    )
}


def require_numbers(**asked: float | None) -> None:
    """Raise WrongValue for a number of NUMBERS that is out of its range; None is none."""
    for name, value in asked.items():
        if value is not None:
            NUMBERS[name].require(name, value, what="")
