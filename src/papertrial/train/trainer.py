"""What an analysis that trains models is handed: a task that prepares and judges, the loop that trains, and a place for weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from papertrial.core import registry
from papertrial.core.budget import Budget
from papertrial.core.paper import Paper
from papertrial.core.recipe import Optim
from papertrial.core.run import Run
from papertrial.core.task import Split, Task
from papertrial.train import checkpoint
from papertrial.train.loop import train


@dataclass(frozen=True)
class Trainer:
    """A `core.paper.Trainer`."""

    task: Task

    @classmethod
    def of(cls, paper: Paper) -> Trainer:
        """For an analysis with `trains`; raises PapertrialError for a task that is not there."""
        return cls(registry.task(paper.tasks[0]))

    def train(
        self,
        model: nn.Module,
        rows: Split,
        optim: Optim,
        budget: Budget,
        run: Run,
        *,
        seed: int,
        validate: Callable[[], float] | None = None,
        progress: bool = True,
    ) -> None:
        train(model, rows, optim, budget, run, seed=seed, validate=validate, progress=progress)

    def save(self, model: nn.Module, file: Path) -> None:
        checkpoint.save(file, checkpoint.model_tensors(model), {})

    def load(self, model: nn.Module, file: Path) -> None:
        checkpoint.load_model_tensors(model, checkpoint.load(file)[0])
