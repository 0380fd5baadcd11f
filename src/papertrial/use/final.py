"""The model after the verdict: all rows are learnt from, with the settings and for the steps that a comparison found.

Nothing is left to judge it by, so what to expect is what the comparison measured of models that saw less.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import NotRequired, TypedDict

from papertrial.core.budget import Budget
from papertrial.core.doors import Door
from papertrial.core.errors import PapertrialError, did_you_mean
from papertrial.core.registry import Method
from papertrial.core.request import Request
from papertrial.core.run import Run
from papertrial.core.wording import counted
from papertrial.use.card import RESULT


class _Row(TypedDict):
    name: str
    role: str
    metric: float | None
    metrics: dict[str, float | None]
    worth: dict[str, Any] | None


class Compared(TypedDict):
    """What readers of comparison.json rely on; `study.compare` writes it."""

    config: dict[str, Any]
    asked: NotRequired[dict[str, Any]]
    protocol: str
    plan: str
    metric: str
    higher_is_better: bool
    budget: str
    seeds: int
    reference: str
    rows: list[_Row]
    verdicts: dict[str, dict[str, Any]]
    sentences: list[str]
    failed: dict[str, str]
    declined: dict[str, str]
    notes: list[str]
    complete: bool
    looks: list[int]


COMPARISON = Door(Compared, "the same compare writes it again, from the runs that are there")


@dataclass(frozen=True)
class Found:
    """What a comparison found of a method.

    folder: of the comparison.  runs: the folders of the method's runs there.  task: that it was judged on.  settings: fields of
    a `Request`.  steps: of a training by steps, the mean over runs of the step that validated best; 0 for other methods.
    metric, value, low, high: what was measured, with its 95 % interval where there is one.  protocol: how.  trials: most
    configurations that a run tried.
    """

    folder: Path
    runs: tuple[Path, ...]
    task: str
    settings: dict[str, Any]
    steps: int
    metric: str
    value: float
    low: float | None
    high: float | None
    protocol: str
    trials: int

    def request(self, asked: Request) -> Request:
        """What the user asked for, on top of what the comparison ran with."""
        held = {name: value for name, value in self.settings.items() if not getattr(asked, name)}
        settings = {**(self.settings.get("settings") or {}), **asked.settings}
        budget = asked.budget or (Budget(steps=self.steps) if self.steps else None)
        return asked.but(**{**held, "settings": settings, "budget": budget})

    @property
    def expectation(self) -> str:
        """`accuracy 0.963 [0.951, 0.975]`."""
        ends = "" if self.low is None or self.high is None else f" [{self.low:.3f}, {self.high:.3f}]"
        return f"{self.metric} {self.value:.3f}{ends}"

    def notes(self, rows: int) -> list[str]:
        """What the card says of it; `rows` were learnt from."""
        long = (
            f", {self.steps:,} steps, the mean over {counted(len(self.runs), 'run')} of where it validated best"
            if self.steps
            else ""
        )
        return [
            f"trained on all {counted(rows, 'row')}{long}; nothing is held out to judge it by",
            f"expect {self.expectation}: measured in {self.folder} of models that learnt from fewer rows ({self.protocol})",
        ]

    def to_json(self) -> dict[str, Any]:
        return {
            "comparison": str(self.folder),
            "steps": self.steps or None,
            "metric": self.metric,
            "expected": self.value,
            "interval": None if self.low is None else [self.low, self.high],
            "protocol": self.protocol,
        }


def found_of(method: Method, fingerprint: str, folder: Path) -> Found:
    """What the comparison in `folder` found of a method.

    fingerprint: of the data, which must be those that were compared on. Raises PapertrialError where there is no finished
    comparison, or one of other data or other methods.
    """
    file = folder / "comparison.json"
    if not file.exists():
        raise PapertrialError(
            f"{folder} holds no comparison, and a final model takes its steps and what to expect from one",
            f"type: papertrial compare {method.name} --data DATA, or name another folder with --from",
        )
    held = COMPARISON.read(file)
    config, rows = held["config"], {row["name"]: row for row in held["rows"]}
    if not held["complete"]:
        raise PapertrialError(f"the comparison in {folder} is not finished", "run the same comparison again")
    if config["data"] != fingerprint:
        raise PapertrialError(f"the comparison in {folder} is of other data", "name another with --from")
    if rows.get(method.name, {}).get("metric") is None:
        raise PapertrialError(f"{folder} compared no {method.name!r}", did_you_mean(method.name, rows))
    row = rows[method.name]
    runs = tuple(
        sorted(
            file.parent
            for file in (folder / method.slug).glob("seed*/result.json")
            if not file.parent.name.endswith("pct")
        )
    )
    costs = [RESULT.read(run / "result.json")["cost"] for run in runs]
    best = [_best_step(run, cost["steps"]) for run, cost in zip(runs, costs, strict=True)]
    asked = method.name in held["asked"]["methods"]
    names = ("backbone", "labels", "size", "metric") + (("host", "recipe", "settings", "techniques") if asked else ())
    settings = {name: config[name] for name in names if config.get(name)}
    recipe = settings.get("recipe", "base")
    settings["recipe"] = recipe if recipe in method.module.recipes else "base"
    return Found(
        folder, runs, config["task"].split()[0], settings, round(sum(best) / max(1, len(best))), held["metric"],
        row["metric"], row.get("at_least"), row.get("at_most"), held["protocol"],
        max((cost["trials"] for cost in costs), default=0),
    )  # fmt: skip


def _best_step(run: Path, steps: int) -> int:
    """The step whose weights were kept: that of the best validation, else the last."""
    judged = [(row["validation"], row["step"]) for row in Run(run).history() if "validation" in row]
    return max(judged, key=lambda pair: (pair[0], -pair[1]))[1] if judged else steps
