"""Progress in a notebook: a line that is written over, since there is no terminal that could move a cursor."""

from __future__ import annotations

import sys
import time

_REFRESH = 0.5  # seconds
_WIDTH = 100


def inside() -> bool:
    """Whether the error stream goes into a notebook: Jupyter, JupyterLab, VS Code and Colab run on ipykernel."""
    return type(sys.stderr).__module__.partition(".")[0] == "ipykernel"


class Line:
    """`line.show("half")` writes over what it showed before, twice a second at most; `line.end()` leaves the last as it is."""

    def __init__(self) -> None:
        self._shown = 0.0

    def show(self, text: str) -> None:
        now = time.monotonic()
        if now - self._shown >= _REFRESH:
            self._shown = now
            print(f"\r{text[:_WIDTH]:<{_WIDTH}}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._shown:
            print(file=sys.stderr, flush=True)
