"""One command in a process of its own, forked from this one, which has the seconds of imports behind it; and what is wrong with how it ended."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECONDS, BYTES = 60, 2 << 30
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
#: events of Python that change files, and which of their arguments name them
_EVENTS = {
    "os.remove": (0,), "os.rename": (0, 1), "os.mkdir": (0,), "os.rmdir": (0,), "os.link": (1,), "os.symlink": (1,),
    "os.truncate": (0,), "os.chmod": (0,), "shutil.rmtree": (0,), "shutil.move": (0, 1), "sqlite3.connect": (0,),
}  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a command ended. code: its exit code, negative for a signal."""

    words: Sequence[str]
    code: int
    said: str
    seconds: float
    peak: int

    @property
    def finding(self) -> str:
        """What is wrong with it; empty where nothing is."""
        if self.seconds >= SECONDS:
            return f"took over {SECONDS} s"
        if self.code < 0:
            return f"ended by signal {-self.code}"
        for words in ("a defect of papertrial", "Traceback (most recent call last)", "wrote outside"):
            if words in self.said:
                return words
        if self.peak > BYTES:
            return f"took {self.peak / 2**30:.1f} GiB"
        if self.code not in (0, 2, 3):
            return f"exit code {self.code}"
        if self.code and not self.said.strip():
            return "said nothing"
        if loose := sorted({letter for letter in self.said if letter in "\x1b\x07\x9b\u202e"}):
            return f"printed {loose!r} raw"
        return ""


class Started:
    """A command that runs in `folder`, where alone it may write."""

    def __init__(self, words: Sequence[str], folder: Path) -> None:
        self.words, self.begun = words, time.monotonic()
        self.out = folder.parent / f"{folder.name}.said"
        sys.stdout.flush()
        sys.stderr.flush()
        self.process = os.fork()
        if not self.process:
            _child(words, folder, self.out)

    def ended(self) -> Ended | None:
        """None while it runs; one that takes too long is killed."""
        seconds = time.monotonic() - self.begun
        if seconds > SECONDS + 5:
            os.kill(self.process, signal.SIGKILL)
        process, status, used = os.wait4(self.process, 0 if seconds > SECONDS + 5 else os.WNOHANG)
        if not process:
            return None
        said = self.out.read_text(encoding="utf-8", errors="replace")[-20_000:]
        self.out.unlink()
        return Ended(self.words, os.waitstatus_to_exitcode(status), said, seconds, used.ru_maxrss * 1024)


def _child(words: Sequence[str], folder: Path, out: Path) -> None:
    """Run the command, and end this process."""
    code = 70
    try:
        handle = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        os.chdir(folder)
        held = Path("/proc/self/statm").read_text().split()[0] if sys.platform.startswith("linux") else "0"
        most = int(held) * resource.getpagesize() + 3 * BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        (folder / "tmp").mkdir(exist_ok=True)
        os.environ |= {"HOME": str(folder), "TMPDIR": str(folder / "tmp"), "PAPERTRIAL_CACHE": str(folder / "cache")}
        _watch(folder)
        sys.argv = ["papertrial", *words]
        code = _run(words)
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run(words: Sequence[str]) -> int:
    if words[0] == "web":
        return _pages(words[1:])
    from papertrial.app.cli import main

    main()
    return 0


def _pages(addresses: Sequence[str]) -> int:
    """The pages of the site on the folder `runs`, in place of `papertrial web`, which would serve them until it is stopped."""
    from starlette.testclient import TestClient

    from papertrial.app.web import make_web

    runs = Path("runs") if Path("runs").is_dir() else None
    site: Any = make_web(runs, evidence=Path("evidence")).guard
    client = TestClient(site, base_url="http://127.0.0.1:8000")
    for address in addresses:
        answer = client.get(address)
        print(f"{answer.status_code} {address}")
        if answer.status_code >= 500:
            print("a defect of papertrial: a page that cannot be made")
    return 0


def _watch(folder: Path) -> None:
    """Say it on the error stream where Python changes a file outside of the folder."""
    import tempfile

    tempfile.tempdir = None
    inside = (f"{folder}/", "/dev/", "/proc/self/")

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING:
            names: tuple[Any, ...] = arguments[:1]
        elif event in _EVENTS:
            names = tuple(arguments[place] for place in _EVENTS[event])
        else:
            return
        for name in names:
            if isinstance(name, str | bytes | os.PathLike):
                path = os.path.abspath(os.fsdecode(name))
                if not f"{path}/".startswith(inside) and "__pycache__" not in path and ":memory:" not in path:
                    os.write(2, f"wrote outside: {event} {path}\n".encode(errors="replace"))

    sys.addaudithook(look)
