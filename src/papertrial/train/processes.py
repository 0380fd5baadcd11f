"""One command in several processes, as `torchrun` starts it: what is done once, and how all of them end with one line.

Every process runs the same code. What must happen once (owning the run's folder, judging, saving) the main one does
while the others wait, and an error there is an error everywhere. Words about an error are spoken by one process, the
first that has any. The notes they leave each other are in the store that torchrun keeps for them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from types import FrameType
from typing import Any, TypeVar

from papertrial.core import stopping
from papertrial.core.errors import PapertrialError, told_elsewhere

#: how long a process waits for the others in the middle of a training; one that dies is noticed at once
TIMEOUT = timedelta(minutes=30)
_POLL = 0.02  # seconds
ENDED = "another process of this run ended; the same command goes on from the last checkpoint"
_T = TypeVar("_T")


class _Notes:
    """Keys on the store; both counters run alike on all processes."""

    def __init__(self, store: Any) -> None:
        self.store, self.count = store, 0

    def next(self) -> str:
        self.count += 1
        return f"papertrial/{self.count}"

    def leave(self, key: str, content: dict[str, Any]) -> None:
        self.store.set(key, json.dumps(content))

    def wait(self, key: str) -> dict[str, Any]:
        while not self.store.check([key]):  # without a limit: decoding images, or judging, may take hours
            time.sleep(_POLL)
        return dict(json.loads(self.store.get(key)))


_notes: _Notes | None = None
_before: Any = signal.SIG_DFL  # what SIGTERM did


def several() -> bool:
    """Whether a launcher started this process as one of several."""
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys() and int(os.environ["WORLD_SIZE"]) > 1


def is_main() -> bool:
    return not several() or os.environ["RANK"] == "0"


def join() -> None:
    """Meet the other processes; nothing happens for one that is alone or has met them."""
    global _notes, _before
    if not several() or _notes is not None:
        return
    import torch
    import torch.distributed as dist

    store, rank, world = next(dist.rendezvous("env://", timeout=TIMEOUT))
    _notes = _Notes(store)
    _before = signal.signal(signal.SIGTERM, _stopped)
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(
            backend, store=dist.PrefixStore("group", store), rank=rank, world_size=world, timeout=TIMEOUT
        )


def once(work: Callable[[], Any]) -> Any:
    """`work()` on the main process while the others wait. Its answer (something JSON holds), or its PapertrialError,
    is that of every process."""
    if _notes is None:
        return work()
    return _first(work, _notes.next(), is_main())


def first_here(work: Callable[[], _T]) -> _T:
    """`work()` on every process, but on each machine one of them first, so that the others find its caches."""
    if _notes is None:
        return work()
    made: list[_T] = []
    lead = os.environ.get("LOCAL_RANK", "0") == "0"
    _first(lambda: made.append(work()), f"{_notes.next()}/{socket.gethostname()}", lead)
    return made[0] if lead else work()


def _first(work: Callable[[], Any], key: str, lead: bool) -> Any:
    assert _notes is not None
    if lead:
        try:
            answer = work()
        except PapertrialError as error:
            _notes.leave(key, {"error": type(error).__name__, "problem": error.problem, "fix": error.fix})
            raise
        _notes.leave(key, {"answer": answer})
        return answer
    found = _notes.wait(key)
    if "error" in found:
        raise told_elsewhere(found["error"], found["problem"], found["fix"])
    return found["answer"]


def lost(error: BaseException) -> bool:
    """Whether `error` says that another process is gone."""
    torch = sys.modules.get("torch")
    if _notes is None or torch is None:
        return False
    text = str(error).lower()
    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and ("gloo" in text or "nccl" in text)
    )


def may_speak() -> bool:
    """Whether this process is the one to say why the run ends."""
    if _notes is None:
        return is_main()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with contextlib.suppress(Exception):  # the store is gone, and who kept it cannot speak
        return bool(_notes.store.add("papertrial/said", 1) == 1)
    return True


def leave(code: int) -> None:
    """End this process. One of several goes at once: tidying up would wait for processes that are gone."""
    if _notes is not None and code:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def part() -> None:
    """Say goodbye to the others after a run that ended well."""
    global _notes
    if _notes is None:
        return
    import torch.distributed as dist

    once(lambda: None)  # who keeps the store must not go before the others have read it
    dist.destroy_process_group()
    signal.signal(signal.SIGTERM, _before)
    _notes = None


def _stopped(number: int, frame: FrameType | None) -> None:
    """torchrun sends SIGTERM to all when it is told to end, and to those that are left when one has ended."""
    stopping.arrived(stopping.Stopped(number, ENDED))
