"""How fast a training goes, and what that makes of a budget: the arithmetic behind budgets in seconds and `estimate`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from papertrial.core.budget import Budget, Energy
from papertrial.core.errors import PapertrialError

WARM, TIMED = 3, 20  # steps a budget in seconds is measured with
MEASURING = 0.05  # share of that budget the measuring may take
STEPS = 10  # an estimate is measured with, at least, after as many to warm up
_LOOKS, _SAVE_EVERY = 40, 30.0  # of a training: looks for collapse, and seconds from checkpoint to checkpoint


def planned_steps(budget: Budget, epochs: int, rows: int, per_epoch: int, steps_in: Callable[[float], int]) -> int:
    """The smallest of all limits, in steps of `rows`; at least 1. Raises PapertrialError when there is none.

    epochs: most that the recipe allows, 0 for no limit.  steps_in: steps that fit into some seconds.
    """
    limits = []
    if budget.steps is not None:
        limits.append(budget.steps)
    if budget.samples is not None:
        limits.append(budget.samples // rows)
    if epochs:
        limits.append(epochs * per_epoch)
    if budget.seconds is not None:
        limits.append(steps_in(budget.seconds))
    if not limits:
        raise PapertrialError("this training has no end", "give it one with --budget, such as --budget 10m")
    return max(1, min(limits))


def lines_every(steps: int) -> int:
    """Steps from one logged line to the next."""
    return max(1, min(100, steps // 50))


@dataclass(frozen=True)
class Pace:
    """What one of each costs in a training, in seconds: a step of `rows` rows, a validation, a look for collapse, a
    logged line, a checkpoint, and to start. per_epoch: steps.  steps: how many were measured.  power: energy per second.
    collecting: of the rows of each epoch, where they are collected anew."""

    rows: int
    per_epoch: int
    steps: int
    step: float
    peak_bytes: int
    power: Energy
    validation: float = 0.0
    look: float = 0.0
    log: float = 0.0
    save: float = 0.0
    start: float = 0.0
    collecting: float = 0.0

    def steps_in(self, seconds: float) -> int:
        """As `train` plans it: the measuring and a first validation come out of the budget too."""
        left = seconds - self._measuring(seconds)
        return max(1, int(left / (self.step + (self.validation + self.collecting) / self.per_epoch)))

    def plan(self, budget: Budget, epochs: int) -> int:
        """Steps of a training; raises PapertrialError without a limit."""
        return planned_steps(budget, epochs, self.rows, self.per_epoch, self.steps_in)

    def validating(self, steps: int) -> float:
        """Seconds of the validations, one after every epoch and one at the end, and of the line that each logs."""
        return -(-steps // self.per_epoch) * (self.validation + self.log) if self.validation else 0.0

    def seconds(self, steps: int, budget: Budget) -> float:
        """Of a whole training of `steps`."""
        between = self.start + self.step * steps + self.validating(steps)
        between += -(-steps // self.per_epoch) * self.collecting
        between += min(_LOOKS, steps // 25) * self.look + steps // lines_every(steps) * self.log
        if budget.seconds is not None:
            between += self._measuring(budget.seconds)
        return between + (2 + between // _SAVE_EVERY) * self.save

    def scaled(self, rows: int, per_epoch: int) -> Pace:
        """With more rows to a step. Fixed costs are scaled with them, which errs on the slow side."""
        return replace(self, rows=rows, per_epoch=per_epoch, step=self.step * rows / self.rows)

    def _measuring(self, seconds: float) -> float:
        steps = min(WARM + TIMED, max(2, int(MEASURING * seconds / self.step) + 1))
        return steps * self.step + self.validation
