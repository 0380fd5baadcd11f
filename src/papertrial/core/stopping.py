"""Signals that end a command: SIGTERM, by which machines are taken back, and SIGHUP, of a terminal that is gone.

A training is asked to stop between two steps, so that it can write a checkpoint; all else stops at once, as by Ctrl-C.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
)  # Windows has no SIGHUP


class Stopped(KeyboardInterrupt):
    """A signal came that ends the process. said: words in place of the usual ones."""

    def __init__(self, number: int, said: str = "") -> None:
        super().__init__(said or f"stopped by {signal.Signals(number).name}")
        self.number, self.said = number, said

    @property
    def exit_code(self) -> int:
        return 128 + self.number


_depth = 0
_waiting: Stopped | None = None


@contextmanager
def heard() -> Iterator[None]:
    """Within it the signals raise Stopped, but for those that are ignored, as SIGHUP is under `nohup`."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    taken = [number for number in SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, _heard)
    try:
        yield
    finally:
        for number in taken:
            if signal.getsignal(number) is _heard:  # a server listens until the process is gone
                signal.signal(number, signal.SIG_DFL)


def _heard(number: int, frame: FrameType | None) -> None:
    arrived(Stopped(number))


def arrived(stop: Stopped) -> None:
    """Raise `stop`; the first within `between_steps` waits for `check`, a second one does not."""
    global _waiting
    if _depth and _waiting is None:
        _waiting = stop
        return
    raise stop


@contextmanager
def between_steps() -> Iterator[None]:
    """Within it a signal waits for `check`, until the end of it at most."""
    global _depth, _waiting
    _depth += 1
    try:
        yield
        if _depth == 1:
            check()
    finally:
        _depth -= 1
        if not _depth:
            _waiting = None


def asked() -> bool:
    """Whether a signal waits."""
    return _waiting is not None


def check() -> None:
    """Raise Stopped where a signal waits."""
    if _waiting is not None:
        raise _waiting
