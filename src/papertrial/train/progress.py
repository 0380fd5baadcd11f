"""What a person sees while training: a bar on a terminal, a line that is written over in a notebook, and one now and then elsewhere.
All of it on stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from papertrial.core import notebook
from papertrial.core.budget import duration

_REFRESH, _LINE = 0.1, 30.0  # seconds


class Display:
    """`with Display(total, done, wanted) as display: display.show(step, loss=..., rate=...)`; silent when not wanted."""

    def __init__(self, total: int, done: int, wanted: bool, name: str = "training") -> None:
        self.name, self.total, self.first, self.wanted = name, total, done, wanted and total > done
        self._begun = self._shown = time.monotonic()
        self._facts = {"loss": float("nan"), "rate": 0.0}
        self._bar: Any = None
        self._line = notebook.Line() if notebook.inside() else None
        if self.wanted and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn(name),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("loss {task.fields[loss]:.4g}  {task.fields[rate]:,.0f} examples/s  left"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task(name, total=total, completed=done, **self._facts)

    def __enter__(self) -> Display:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._line is not None:
            self._line.end()

    def show(self, step: int, **facts: float) -> None:
        """`step` steps are done; `facts` (loss, rate) stay until they are given again."""
        if not self.wanted:
            return
        self._facts.update(facts)
        now = time.monotonic()
        if now - self._shown < (_LINE if self._bar is None and self._line is None else _REFRESH):
            return
        self._shown = now
        if self._bar is not None:
            self._bar.update(self._task, completed=step, **self._facts)
            return
        left = (now - self._begun) / max(1, step - self.first) * (self.total - step)
        text = f"{self.name}: step {step} of {self.total}, loss {self._facts['loss']:.4g}, {duration(left)} left"
        if self._line is not None:
            self._line.show(text)
        else:
            print(text, file=sys.stderr, flush=True)
