"""Budgets (what a run may spend) and meters (what it spent)."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from papertrial.core.errors import PapertrialError
from papertrial.core.ranges import Range, shown

_SECONDS = {"s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SCALE = {"": 1, "k": 1_000, "m": 1_000_000}
#: of each sort, what a budget may be; none at all is a run with fresh weights
_RANGES = {
    "steps": Range.parse("[0, 1000000000000]", int),
    "samples": Range.parse("[0, 1000000000000000]", int),
    "seconds": Range.parse("[0, 1000000000]"),
    "trials": Range.parse("[0, 1000000000]", int),
}
_HELP = "write it as 90s, 10m, 2h, 500steps, 200ksamples or 20trials, and join several with '+'"


@dataclass(frozen=True)
class Budget:
    """What one run may spend; tuning and pre-training count. None: no limit of that sort.

    steps: optimiser steps.  samples: training examples seen.  seconds: training time on this machine; it is turned
    into steps once, by timing a few, so that a run resumed after a kill ends with the same weights.
    trials: configurations tried by methods that tune themselves.
    """

    steps: int | None = None
    samples: int | None = None
    seconds: float | None = None
    trials: int | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and value not in _RANGES[name]:
                raise PapertrialError(f"a budget of {shown(value)} {name} is not {_RANGES[name].words()}", _HELP)

    @classmethod
    def of(cls, given: Budget | str | None) -> Budget | None:
        """A budget that may stand as text."""
        return cls.parse(given) if isinstance(given, str) else given

    @classmethod
    def parse(cls, text: str) -> Budget:
        """`Budget.parse("10m")`; raises PapertrialError with the accepted forms, and for one that lets nothing be trained."""
        found: dict[str, Any] = {}
        for part in str(text).replace(" ", "").replace("_", "").lower().split("+"):
            match = re.fullmatch(r"(\d+(?:\.\d+)?)([a-z]*)", part)
            name, value = cls._unit(float(match[1]), match[2]) if match else ("", 0.0)
            if not name or name in found:
                raise PapertrialError(f"cannot read the budget {shown(text)}", _HELP)
            if not value:
                raise PapertrialError(f"a budget of {part} trains nothing", _HELP)
            found[name] = value
        return cls(**found)

    @staticmethod
    def _unit(number: float, unit: str) -> tuple[str, float | int]:
        if unit in _SECONDS:
            return "seconds", number * _SECONDS[unit]
        counted = re.fullmatch(r"([km]?)(steps?|samples?|trials?)", unit)
        if counted is None:
            return "", 0.0
        product = number * _SCALE[counted[1]]
        return counted[2].rstrip("s") + "s", int(product) if math.isfinite(product) else product

    def between(self, first: float, last: float) -> Budget:
        """The part from one fraction of it to another; parts that join up add up to the whole. At least one of what is counted,
        where there is any."""

        def counted(whole: int | None) -> int | None:
            return None if whole is None else max(min(1, whole), round(whole * last) - round(whole * first))

        seconds = None if self.seconds is None else self.seconds * (last - first)
        return Budget(counted(self.steps), counted(self.samples), seconds, counted(self.trials))

    def __str__(self) -> str:
        words = []
        if self.seconds is not None:
            words.append(duration(self.seconds))
        words += [
            f"{getattr(self, name):,} {name}"
            for name in ("steps", "samples", "trials")
            if getattr(self, name) is not None
        ]
        return " and ".join(words) or "no limit"

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}


MEASURED, ESTIMATED, UNKNOWN = "measured", "estimated", "unknown"
_LABELS = (MEASURED, ESTIMATED, UNKNOWN)


@dataclass(frozen=True)
class Energy:
    """Energy spent, and how it was found out.

    label: measured (a counter of the hardware), estimated (a model), or unknown, with `kwh` None.  how: in words.

    Parts of a machine and sittings of a run add up with `+`. A sum is labelled by the weakest of its parts, and is
    unknown as soon as one of them is: what a counter measured is never passed off as the whole.
    """

    kwh: float | None = 0.0
    label: str = MEASURED
    how: str = ""

    @classmethod
    def unknown(cls, why: str) -> Energy:
        return cls(None, UNKNOWN, why)

    def __add__(self, other: Energy) -> Energy:
        kwh = None if self.kwh is None or other.kwh is None else self.kwh + other.kwh
        words = [word for energy in (self, other) for word in energy.how.split("; ") if word]
        return Energy(kwh, max(self.label, other.label, key=_LABELS.index), "; ".join(dict.fromkeys(words)))

    def since(self, earlier: Energy) -> Energy:
        """What was added after `earlier`, a reading of the same meter."""
        return replace(self, kwh=None if self.kwh is None or earlier.kwh is None else self.kwh - earlier.kwh)

    def times(self, factor: float) -> Energy:
        return replace(self, kwh=None if self.kwh is None else factor * self.kwh)

    def __str__(self) -> str:
        """`21 Wh e`; e: estimated."""
        if self.kwh is None:
            return UNKNOWN
        return watt_hours(self.kwh) + (" e" if self.label == ESTIMATED else "")

    def sentence(self) -> str:
        """`21 Wh (CPU estimated: ...)`."""
        return (UNKNOWN if self.kwh is None else watt_hours(self.kwh)) + (f" ({self.how})" if self.how else "")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Meter:
    """What a run spent.

    seconds: training time, all sittings together. peak_bytes: None where it was not measured. kwh, energy, energy_how:
    of the machine during that time, see `Energy`; nothing is subtracted for what else it was doing.
    """

    steps: int = 0
    samples: int = 0
    seconds: float = 0.0
    trials: int = 0
    peak_bytes: int | None = None
    kwh: float | None = None
    energy: str = UNKNOWN
    energy_how: str = ""

    def with_energy(self, spent: Energy) -> Meter:
        return replace(self, kwh=spent.kwh, energy=spent.label, energy_how=spent.how)

    def spent(self) -> Energy:
        return Energy(self.kwh, self.energy, self.energy_how)

    @classmethod
    def total(cls, parts: Iterable[Meter]) -> Meter:
        """Of what was done one after the other; the peak is the highest."""
        meters = list(parts)
        peaks = [meter.peak_bytes for meter in meters if meter.peak_bytes is not None]
        counted = {
            name: sum(getattr(meter, name) for meter in meters) for name in ("steps", "samples", "seconds", "trials")
        }
        energy = functools.reduce(Energy.__add__, (meter.spent() for meter in meters))
        return cls(**counted, peak_bytes=max(peaks, default=None)).with_energy(energy)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def watt_hours(kwh: float) -> str:
    """`0.12 Wh`, `21 Wh`, `1.4 kWh`; two figures or more."""
    number, unit = (kwh, "kWh") if kwh >= 1 else (1000 * kwh, "Wh")
    if 0 < number < 0.01:
        return f"<0.01 {unit}"
    digits = 0 if number == 0 else max(0, 1 - math.floor(math.log10(number)))
    return f"{number:.{digits}f} {unit}"


def size_in_words(count: float) -> str:
    """Bytes, with three digits: `850 B`, `8.1 kB`, `658 MB`, `1.2 GB`."""
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= 0.9995 * limit:
            return f"{count / limit:.0f} {unit}" if count >= 999.5 * limit else f"{count / limit:.3g} {unit}"
    return f"{count:.0f} B"


def duration(seconds: float) -> str:
    """`8 s`, `2 min 05 s`, `3 h 10 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
