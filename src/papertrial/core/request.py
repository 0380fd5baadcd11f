"""What a user asks of a method: one frozen record that `fit`, `estimate`, `compare`, their engine and the command line pass on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from papertrial.core.arguments import Names
from papertrial.core.budget import Budget
from papertrial.core.errors import PapertrialError
from papertrial.core.ranges import require_numbers
from papertrial.core.wording import several


@dataclass(frozen=True)
class Request:
    """How a method is to be trained and on which part of the data; the method and the data themselves are not part of it.

    task: chosen from the data where None.  target: column to predict in a table.  group: what names rows that are no chance of
    their own, time: what says when they are from, dates and missing: how a table is read, see `papertrial.open`.
    metric: what is judged by, None for what the data call for.  threshold: where one class begins, such as `recall=0.9`.
    folds: of how many folds each is the test once, or none, None for what the data call for.  final: nothing is held out.
    host: what a technique is tried on, None
    for the one its task suggests.  backbone: architecture under an objective.  recipe: paper, base or tiny.  settings: by
    name, those of a backbone as `backbone.x`, of a host as `host.x`.  techniques: such as `agc:clip=0.02`.  budget: of one
    run, None for that of the recipe or the task.  labels: per class that may be seen.  size:
    side of the images in pixels.  fraction: of the labelled training rows.  fold: (repeat, which, of how many) is the test.
    fresh: start over.  progress: show a bar.  shard: split the weights over the processes.

    Raises PapertrialError for a number out of its range (`core.ranges.NUMBERS`).
    """

    task: str | None = None
    target: str | int | None = None
    group: str | None = None
    time: str | None = None
    dates: str | None = None
    missing: Names | None = None
    metric: str | None = None
    threshold: str | None = None
    folds: int | str | None = None
    final: bool = False
    host: str | None = None
    backbone: str | None = None
    recipe: str = "base"
    settings: Mapping[str, Any] = field(default_factory=dict)
    techniques: Names = ()
    budget: Budget | None = None
    labels: int | None = None
    size: int | None = None
    fraction: float | None = None
    fold: tuple[int, int, int] | None = None
    seed: int = 0
    fresh: bool = False
    progress: bool = True
    shard: bool = False

    def __post_init__(self) -> None:
        require_numbers(labels=self.labels, size=self.size, fraction=self.fraction, seed=self.seed)
        plain: dict[str, Any] = {
            "settings": dict(self.settings or {}),
            "techniques": tuple(several(self.techniques or ())),
            "target": None if self.target is None else str(self.target),  # columns of frames may be called by numbers
        }
        for name, value in plain.items():
            object.__setattr__(self, name, value)

    def but(self, **changes: Any) -> Request:
        """The same request with some fields changed."""
        return replace(self, **changes)

    @property
    def options(self) -> dict[str, Any]:
        """What `use.choose.prepare` is asked for, where anything is."""
        asked = {
            "labels": self.labels, "size": self.size, "fraction": self.fraction, "metric": self.metric, "fold": self.fold,
            "final": self.final or None,
        }  # fmt: skip
        return {name: value for name, value in asked.items() if value is not None}

    @property
    def reading(self) -> dict[str, Any]:
        """What `papertrial.open` is asked for besides the source."""
        return {
            "target": self.target, "group": self.group, "time": self.time, "dates": self.dates, "missing": self.missing,
        }  # fmt: skip

    def below(self, part: str) -> dict[str, Any]:
        """The settings called `part.x`, by their own names."""
        return {
            name.removeprefix(f"{part}."): value for name, value in self.settings.items() if name.startswith(f"{part}.")
        }

    def own(self) -> dict[str, Any]:
        """The settings of the method itself: those of no backbone and no host."""
        return {name: value for name, value in self.settings.items() if not name.startswith(("backbone.", "host."))}

    def refuse(self, name: str, reason: str) -> None:
        """Raise PapertrialError where the field `name` was given; `reason` says why it means nothing."""
        if getattr(self, name):
            raise PapertrialError(reason, f"leave --{name} out")
