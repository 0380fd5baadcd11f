"""What a run or a comparison is expected to cost, as `estimate` found it, and as people read it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from papertrial.core.budget import Energy, duration, size_in_words
from papertrial.core.html import page
from papertrial.core.wording import aligned
from papertrial.use.folds import rounds


@dataclass(frozen=True)
class Cost:
    """What one run of a method is expected to cost.

    preparing, training, judging: seconds of reading and splitting the data, of the training with its validations (what
    a run reports as `seconds`), and of the final probe and scores.  steps, epochs, samples: of training; 0 for methods
    that are not trained by steps, which have trials.  peak_bytes: of the process, or of the GPU.  kwh, energy,
    energy_how: during the training, and how the power was found out.  measured: what it rests on.
    notes: where it may be off.
    """

    method: str
    recipe: str
    budget: str
    parameters: int
    preparing: float
    training: float
    validating: float
    judging: float
    steps: int
    epochs: float
    samples: int
    trials: int
    peak_bytes: int
    kwh: float | None
    energy: str
    energy_how: str
    measured: str
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        return self.preparing + self.training + self.judging

    def spent(self) -> Energy:
        return Energy(self.kwh, self.energy, self.energy_how)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "seconds": self.seconds}


@dataclass(frozen=True)
class Plan:
    """What a comparison is expected to cost: so many runs, one after another. costs: of one run of each method.

    kwh, energy, energy_how: as in `Cost`, of all runs.  notes: who would not take part.  folds: that each of the `seeds` cuts the
    rows into, 0 for one test part.
    """

    seeds: int
    runs: int
    seconds: float
    kwh: float | None
    energy: str
    energy_how: str
    costs: tuple[Cost, ...]
    notes: tuple[str, ...] = ()
    folds: int = 0

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class Estimate:
    """cost: of one run.  comparison: with the task's baselines over seeds, where that was asked for.

    starting: seconds of loading the packages that a run needs, which each process does once.
    decoding: seconds that reading the data took this time and will not take again, since what was decoded is cached.
    machine_bytes: memory there is.
    """

    data: str
    cost: Cost
    starting: float
    decoding: float
    machine_bytes: int
    comparison: Plan | None = None

    @property
    def seconds(self) -> float:
        """Of the whole command that makes one run."""
        return self.starting + self.cost.seconds

    def __repr__(self) -> str:
        return "\n".join(aligned(self.lines()))

    def _repr_html_(self) -> str:
        return page("", facts=self.lines())

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "seconds": self.seconds}

    def lines(self) -> list[tuple[str, str]]:
        """Labels and words, in order."""
        cost, comparison = self.cost, self.comparison
        once = f", and {duration(self.decoding)} more the first time" if self.decoding >= 1 else ""
        rows = [
            ("method", f"{cost.method}, recipe {cost.recipe}, budget {cost.budget}"),
            ("starting", f"{duration(self.starting)} to load what a run needs"),
            ("data", f"{self.data}: {duration(cost.preparing)} to prepare{once}"),
        ]
        if cost.parameters:
            rows.append(("model", f"{cost.parameters / 1e6:.2f} M weights, {size_in_words(4 * cost.parameters)}"))
        rows += [
            ("measured", cost.measured),
            ("training", _spent(cost)),
            ("judging", duration(cost.judging)),
            ("total", duration(self.seconds)),
            ("memory", f"{size_in_words(cost.peak_bytes)} at its peak, of {size_in_words(self.machine_bytes)}"),
            ("energy", cost.spent().sentence()),
        ]
        rows += [("note", note) for note in cost.notes]
        if comparison is not None:
            energy = Energy(comparison.kwh, comparison.energy)
            words = f"{rounds(comparison.seeds, comparison.folds)}, {comparison.runs} runs: {duration(comparison.seconds)}, {energy}"
            rows.append(("compare", words))
            rows += [("", f"{one.method}: {duration(one.seconds)} per run, {one.spent()}") for one in comparison.costs]
            rows += [("", note) for note in comparison.notes]
        return rows


def _spent(cost: Cost) -> str:
    if cost.trials:
        return f"{duration(cost.training)} for {cost.trials} trials"
    if not cost.steps:
        return "none"
    words = f"{duration(cost.training)} for {cost.steps} steps, {cost.epochs:.3g} epochs, {cost.samples} examples"
    return words + (f"; {duration(cost.validating)} of it to validate" if cost.validating else "")
