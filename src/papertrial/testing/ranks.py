"""Functions in several processes with a group of gloo, for checks of what methods do over ranks."""

from __future__ import annotations

import atexit
import multiprocessing
import multiprocessing.connection
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

#: what the server that ranks are forked from imports once for all of them: this package, and what their work would import
LOADED = [
    "papertrial.testing",
    "papertrial.app.cli",
    "papertrial.tasks.image_classification",
    "scipy.stats",
    "sklearn.datasets",
    "sklearn.linear_model",
    "torch.utils.tensorboard",
]


def in_ranks(work: Callable[..., None], *arguments: Any, count: int = 2) -> Callable[[], None]:
    """Start `work(rank, *arguments)` in `count` processes with a group of gloo, and return a function that waits for them.

    work: a function of a module, which the processes import.  They stay for the next work that as many are asked for, so
    it must not end their group.  The function that waits raises AssertionError with the traceback of a rank that failed.
    """
    known = (count, tuple(sys.path))  # ranks find the modules that were there when they began
    ranks = _idle.pop(known, None) or _Ranks(count)
    ranks.begin(work, arguments)

    def wait() -> None:
        ranks.end()
        _idle[known] = ranks

    return wait


#: ranks that wait for work, by their number and where they find modules
_idle: dict[tuple[int, tuple[str, ...]], _Ranks] = {}


class _Ranks:
    """Processes with a group of gloo that take work until whoever started them ends, or one of them fails."""

    def __init__(self, count: int) -> None:
        # children of a server that has imported torch once; where there is no such server, each imports it
        how = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        context: Any = multiprocessing.get_context(how)
        context.set_forkserver_preload(LOADED)
        meeting = f"file://{kept_folder()}/rendezvous"
        self.ends, theirs = zip(*(context.Pipe() for _ in range(count)), strict=True)
        # daemons end with whoever started them, waited for or not
        self.processes = [
            context.Process(target=_in_rank, args=(rank, count, meeting, end), daemon=True)
            for rank, end in enumerate(theirs)
        ]
        for process in self.processes:
            process.start()
        for end in theirs:
            end.close()

    def begin(self, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        for end in self.ends:
            end.send((work, arguments))

    def end(self) -> None:
        """Wait for the work that was begun; the first rank that fails ends them all, since the others may wait for it."""
        left = list(self.ends)
        while left:
            ready: list[Any] = multiprocessing.connection.wait(left)
            for end in ready:
                rank = self.ends.index(end)
                try:
                    error = end.recv()
                except EOFError:
                    self.processes[rank].join()
                    error = f"process {rank} ended with exit code {self.processes[rank].exitcode}"
                if error:
                    self.close()
                    raise AssertionError(f"a rank failed: {error.strip()[-500:]}")
                left.remove(end)

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()
        for end in self.ends:
            end.close()


def _in_rank(rank: int, count: int, meeting: str, end: Any) -> None:
    """The life of a rank: it does what it is sent, and answers with a traceback or with nothing."""
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=count)
    with suppress(EOFError):  # whoever started it has ended
        while True:
            work, arguments = end.recv()
            try:
                work(rank, *arguments)
                said = ""
            except BaseException:  # also what ends a process: the others must hear of it
                said = traceback.format_exc()
            end.send(said)


def kept_folder() -> Path:
    """A new folder that ends with the process."""
    folder = tempfile.mkdtemp(prefix="papertrial-check-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
