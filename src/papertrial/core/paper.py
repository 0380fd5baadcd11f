"""What a paper is to papertrial: a literal with its facts, claims that can be run, and what an analysis reports.

`PAPER = Paper(...)` in a paper's file holds literals only, so the registry reads it with `ast` and imports nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from papertrial.core.html import page
from papertrial.core.wording import aligned

if TYPE_CHECKING:
    from papertrial.core.budget import Budget
    from papertrial.core.recipe import Optim
    from papertrial.core.run import Run
    from papertrial.core.task import Split, Task

KINDS = ("architecture", "objective", "technique", "analysis", "system", "estimator")
CLAIM_KINDS = ("identity", "property", "trend", "number")


@dataclass(frozen=True)
class Paper:
    """A method and where it comes from.

    id: file name, command-line name and test name.  kind: one of KINDS; `estimator` is for baselines that are not
    trained by gradient steps.  method: the public class of the file.  month: when the reading list selected it.
    tasks: names of the tasks it can be compared on; of a technique, none means all.  techniques: names of those its file offers to any model.
    command: how it is used when it trains nothing, such as `papertrial rasp`.
    needs: extras of the package that must be installed.  trains: of an analysis, that it is given two data sets and trains
    models of its own on them, instead of a model.
    builds_on: ids of the papers whose code it imports.  caveats: what the text hides, what failed, each with its source.
    """

    id: str
    title: str
    kind: str
    idea: str
    authors: str = ""
    year: int = 0
    arxiv: str = ""
    month: str = ""
    method: str = ""
    tasks: tuple[str, ...] = ()
    techniques: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    baselines: tuple[str, ...] = ()
    builds_on: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    command: str = ""
    official: str = ""
    licence: str = ""
    caveats: tuple[str, ...] = ()
    trains: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"paper {self.id!r}: kind is {self.kind!r}, not one of {', '.join(KINDS)}")

    @property
    def refusal(self) -> str:
        """Why `fit` and `compare` decline it; empty when they do not."""
        if self.kind == "analysis" and self.trains:
            return f"it trains models of its own and keeps none: papertrial measure {self.id} SOURCE --data DATA"
        if self.kind == "analysis":
            return f"it measures models and trains none: papertrial measure {self.id} MODEL"
        return f"it trains nothing: {self.command}" if self.command else ""

    @property
    def offered(self) -> tuple[str, ...]:
        """Names of the techniques of its file, its own first where it is one."""
        return (self.id, *self.techniques) if self.kind == "technique" else self.techniques

    def takes(self, task: str) -> bool:
        """Whether it can be used for the task of that name; a technique that names none is for all."""
        return task in self.tasks or (self.kind == "technique" and not self.tasks)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper with a function that tries it: `function(scale, seed) -> (held, measured)`.

    plot: `plot(measured of each seed) -> Figure`, drawn from the evidence and nothing else; None where words are enough.
    margin: `margin(measured of one seed)`, how far a trend holds, negative where it does not; None where `measured` has a
    "margin" of its own, or there is none.
    clock: names (`*` stands for anything) of what is measured by the clock, "held" among them where the outcome hangs on it:
    two runs of the same code differ there.
    reformed: the day on which what is tried, or from where on it holds, was changed, and why: `2026-12-01: ...`.
    """

    name: str
    text: str
    where: str
    kind: str
    function: Callable[[str, int], tuple[bool, dict[str, float]]]
    cost: dict[str, str] = field(default_factory=dict)
    plot: Plot | None = None
    clock: tuple[str, ...] = ()
    margin: Margin | None = None
    reformed: str = ""

    def __call__(self, scale: str = "tiny", seed: int = 0) -> tuple[bool, dict[str, float]]:
        return self.function(scale, seed)


def claim(
    text: str,
    *,
    where: str,
    kind: str,
    cost: dict[str, str] | None = None,
    plot: Plot | None = None,
    clock: tuple[str, ...] = (),
    margin: Margin | None = None,
    reformed: str = "",
) -> Callable[[Callable[..., Any]], Claim]:
    """Turn a function `(scale, seed) -> (held, measured)` of a file of claims into one of them.

    kind: `identity` (exact), `property` (for any weights or data), `trend` (A above B at equal budget, over seeds),
    `number` (the paper's own figure, on its own data).  plot: makes a figure of what was measured, a mapping per seed as
    the evidence keeps it (a number that was not finite is None); `Curve.over_seeds` reads the lines from it.  clock, margin,
    reformed: see `Claim`; a trend without a margin is judged by the signs of its seeds alone, and needs six that agree.
    Raises ValueError for another kind.
    """
    if kind not in CLAIM_KINDS:
        raise ValueError(f"claim kind {kind!r} is not one of {', '.join(CLAIM_KINDS)}")

    def wrap(function: Callable[..., Any]) -> Claim:
        return Claim(function.__name__, text, where, kind, function, cost or {}, plot, clock, margin, reformed)

    return wrap


def claims_of(module: ModuleType) -> list[Claim]:
    """The claims defined in a paper's module, in the order of the file."""
    return [value for value in vars(module).values() if isinstance(value, Claim)]


@dataclass(frozen=True)
class Curve:
    """A line of a figure; low and high, when given, bound a band around it. points: at each x, the values behind y."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    points: tuple[tuple[float, ...], ...] = ()

    @classmethod
    def over_seeds(cls, name: str, measured: Measured, key: str) -> Curve:
        """The mean over seeds, and each seed, of the numbers called `key`, where `{}` stands for x.

        With the key `width_{}`, `width_32` is y at 32. What is not finite is left out.  Raises KeyError when nothing has
        such a name, as in evidence from before there was a figure.
        """
        pattern = re.compile(_X.join(map(re.escape, key.split("{}"))))
        found: dict[float, list[float]] = {}
        for word, value in (pair for row in measured for pair in row.items()):
            match = pattern.fullmatch(word)
            if match and value is not None and math.isfinite(value):
                found.setdefault(float(match[1]), []).append(float(value))
        if not found:
            raise KeyError(key)
        x = tuple(sorted(found))
        points = tuple(tuple(found[at]) for at in x)
        mean = tuple(math.fsum(values) / len(values) for values in points)
        return cls(name, x, mean, tuple(map(min, points)), tuple(map(max, points)), points)


@dataclass(frozen=True)
class Figure:
    """What to plot, without saying with what. caption: how to read it.  log, log_x: logarithmic axes.  floor: values
    below it are rounding errors."""

    title: str
    x_title: str
    y_title: str
    curves: tuple[Curve, ...]
    caption: str = ""
    log: bool = False
    floor: float = 0.0
    log_x: bool = False


#: of each seed, name -> number, as the evidence keeps them
Measured = Sequence[Mapping[str, Any]]
#: what a claim's `margin` is
Margin = Callable[[Mapping[str, Any]], float]
#: what a claim's `plot` is
Plot = Callable[[Measured], Figure]
#: a number as Python writes it
_X = r"([-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?)"


@dataclass(frozen=True)
class Report:
    """What an analysis found: `measure(model, data, config) -> Report` is what a paper of the kind `analysis` offers, or
    `measure(source, data, config, trainer=, folder=, seed=, progress=) -> Report` one that trains (`Paper.trains`).

    verdict: one sentence.  facts: (label, words) on what was measured.  head, rows: a table.  numbers: everything behind
    it, JSON-able.  caveats: what limits the finding.  files: where it was written.
    """

    title: str
    verdict: str
    facts: tuple[tuple[str, str], ...] = ()
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    numbers: dict[str, Any] = field(default_factory=dict)
    figures: tuple[Figure, ...] = ()
    caveats: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    def __repr__(self) -> str:
        table = aligned([self.head, *self.rows]) if self.head else []
        return "\n".join([self.title, *aligned(self.facts), *table, self.verdict])

    def _repr_html_(self) -> str:
        caveats = (f"caveat: {line}" for line in self.caveats)
        return page(self.title, facts=self.facts, head=self.head, rows=self.rows, lines=[self.verdict, *caveats])

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Trainer(Protocol):
    """What an analysis that trains models is handed, for a paper imports nothing that trains.

    task: the first that `Paper.tasks` names; it prepares data and judges models.
    """

    @property
    def task(self) -> Task: ...

    def train(
        self,
        model: Any,
        rows: Split,
        optim: Optim,
        budget: Budget,
        run: Run,
        *,
        seed: int,
        validate: Callable[[], float] | None = None,
        progress: bool = True,
    ) -> None:
        """Train `model` in place, from where `run` left it; with `optim.patience` until `validate` (higher is better) no
        longer rises. Raises TrainingStopped."""

    def save(self, model: Any, file: Path) -> None:
        """Keep the weights. Raises PapertrialError for a disk that is full."""

    def load(self, model: Any, file: Path) -> None:
        """Put weights that were kept into a model of the same shape. Raises PapertrialError for others."""
