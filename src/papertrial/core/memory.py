"""Memory: how much there is, asked before much of it is taken; and what could not be had, named as what it is, whoever asked
for it: Python, NumPy, Arrow, PyTorch, the system or a library beneath them."""

from __future__ import annotations

import errno
import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from papertrial.core.budget import size_in_words
from papertrial.core.errors import PapertrialError, TrainingStopped

#: what libraries write that have no exception of their own for it
_SAID = re.compile(
    r"can't allocate memory|cannot allocate memory|out of memory|unable to allocate|not enough memory|std::bad_alloc|"
    r"bad allocation|failed to allocate|_ALLOC_FAILED|os error 12\b|failed to map segment|can't start new thread|"
    r"could not create a (memory object|primitive)|alloc(ation)? of \d+ failed|malloc of size \d+ failed",
    re.IGNORECASE,
)
_ASKED = re.compile(
    r"(?:tried to allocate|unable to allocate|malloc of size|alloc(?:ation)? of)\s+([\d.]+)\s*(bytes|[KMGTPE]i?B)?",
    re.IGNORECASE,
)
_GPU = Path("/dev/nvidiactl")  # CUDA sets aside addresses without end
_CGROUPS = Path("/sys/fs/cgroup")
_WORTH_ASKING = 1 << 24  # bytes; asking takes a tenth of a millisecond
_NEXT_TO_NONE = 1 << 28
_UNITS = {"": 1, "BYTES": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50, "E": 2**60}


class OutOfMemory(TrainingStopped):
    """Memory ran out. Of a method in a comparison the others go on."""

    exit_code = 2


def ran_out(error: BaseException | None) -> str | None:
    """How much was asked for, in words; empty where that is not said, None where the error is another one.

    Errors behind the error count: many libraries put one of their own around it, and so do we where we name the cause.
    """
    seen = 0
    while error is not None and seen < 10:
        text = str(error)
        system = isinstance(error, OSError) and error.errno == errno.ENOMEM
        known = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        known = known or (isinstance(error, SystemError) and free_memory() < _NEXT_TO_NONE)  # C that says nothing
        if known or system or (not isinstance(error, PapertrialError) and _SAID.search(text)):
            asked = _ASKED.search(text)
            if asked is None:
                return ""
            unit = (asked[2] or "").upper()
            return (
                f"{size_in_words(float(asked[1]) * _UNITS[unit if unit == 'BYTES' else unit[:1]])} more were asked for"
            )
        ours = isinstance(error, PapertrialError)
        error, seen = error.__cause__ or (None if ours else error.__context__), seen + 1
    return None


def out_of_memory(error: BaseException, what: str, fix: str) -> OutOfMemory | None:
    """The error in one line, None where it is another one. what: who ran out of memory, "" for nobody in particular."""
    asked = ran_out(error)
    if asked is None:
        return None
    return OutOfMemory(f"{f'{what} ran ' if what else ''}out of memory{f': {asked}' if asked else ''}", fix)


def require(count: float, what: str, fix: str, device: Any = "cpu") -> None:
    """Raise OutOfMemory, with both figures, where `count` bytes for `what` are more than are free."""
    if count > _WORTH_ASKING and count > (free := free_memory(device)):
        raise OutOfMemory(
            f"{what} would take about {size_in_words(count)} of memory, and {size_in_words(free)} are free", fix
        )


@contextmanager
def naming(what: str, fix: str) -> Iterator[None]:
    """Raise OutOfMemory in place of an error that says in its own words that memory ran out."""
    try:
        yield
    except Exception as error:
        if named := None if isinstance(error, OutOfMemory) else out_of_memory(error, what, fix):
            raise named from error
        raise


def where() -> str:
    """Where a network would run: "cuda" where torch has been loaded and sees a GPU."""
    torch = sys.modules.get("torch")
    return "cuda" if torch is not None and torch.cuda.is_available() else "cpu"


def free_memory(device: Any = "cpu") -> int:
    """Bytes that this process may still take: of the GPU, or of the machine, its container and its limits (`ulimit -v`).

    What torch has set aside on a GPU and does not use counts as free.
    """
    import psutil

    if str(device).startswith("cuda"):
        cuda = sys.modules["torch"].cuda
        return int(cuda.mem_get_info()[0] + cuda.memory_reserved() - cuda.memory_allocated())
    free = [psutil.virtual_memory().available]
    free += [max(0, most - used) for most, used in _cgroups()]
    held = psutil.Process().memory_info()
    free += [max(0, most - used) for most, used in zip(_limits(), (held.vms, held.rss), strict=False)]
    return int(min(free))


def machine_memory(device: Any = "cpu") -> int:
    """Bytes a run may come to use: of the GPU, or the least of what the machine, its container and its limits give."""
    import psutil

    if str(device).startswith("cuda"):
        return int(sys.modules["torch"].cuda.mem_get_info()[1])
    return int(min([psutil.virtual_memory().total, *(most for most, _ in _cgroups()), *_limits()]))


def _limits() -> tuple[float, ...]:
    """Bytes of addresses and of data that this process may have; infinite without a limit, nothing where there are none."""
    try:
        resource: Any = importlib.import_module("resource")
    except ImportError:  # Windows
        return ()
    found = (resource.getrlimit(limit)[0] for limit in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    return tuple(float("inf") if most == resource.RLIM_INFINITY else most for most in found)


def _cgroups() -> list[tuple[int, int]]:
    """(most, used) of the control groups of this process that limit memory: version 2 and 1. Used leaves out cached files."""
    found = []
    with suppress(OSError, ValueError):
        own = [line.split(":", 2)[2] for line in Path("/proc/self/cgroup").read_text().splitlines()]
        folders = {_CGROUPS, _CGROUPS / "memory", *(_CGROUPS / name.lstrip("/") for name in own)}
        folders |= {_CGROUPS / "memory" / name.lstrip("/") for name in own}
        for folder in folders:
            for limit, usage in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
                with suppress(OSError, ValueError):  # `max` is no number: no limit
                    most, used = int((folder / limit).read_text()), int((folder / usage).read_text())
                    stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                    found.append((most, used - int(stat.get("inactive_file", 0))))
    return found


@contextmanager
def within_the_machine() -> Iterator[None]:
    """Within it a request for more memory than the machine or its container has fails at once, in words. Else Linux would promise
    it, and kill the process when it is used."""
    try:
        resource: Any = importlib.import_module("resource")
    except ImportError:  # Windows
        yield
        return
    import psutil

    before = resource.getrlimit(resource.RLIMIT_DATA)
    most = machine_memory() + psutil.swap_memory().total
    counts = sys.platform == "linux" and not _GPU.exists()
    with suppress(ValueError, OSError):
        if counts and (before[0] == resource.RLIM_INFINITY or most < before[0]):
            resource.setrlimit(resource.RLIMIT_DATA, (most, before[1]))
    try:
        yield
    finally:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_DATA, before)
