"""Fits and comparisons that the site begins, stops and goes on with: processes of `papertrial` itself, one at a time.

Nothing of a request reaches a shell, and no word of it can be taken for an option: methods are those of the shelf, data
those that the keeper of the site named, everything else is a number or follows an `=`. What a job costs is estimated
before it can be started. A job is a process of its own and goes on when the site ends.

runs/.jobs/<id>.json   what it is, and its process      runs/.jobs/<id>.log   what it said
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from threading import Lock

import psutil
from typing_extensions import TypedDict

from papertrial.core import registry
from papertrial.core.budget import Budget
from papertrial.core.doors import Door
from papertrial.core.errors import PapertrialError, did_you_mean
from papertrial.use.final import COMPARISON

FIT, COMPARE = "fit", "compare"
PLANNING, PLANNED, REFUSED = "planning", "planned", "refused"
RUNNING, ENDED, DONE = "running", "ended", "done"
_COMMAND = (sys.executable, "-m", "papertrial")
_FOLDER = ".jobs"
#: processes that this one began: it alone can tell when they have ended
_OURS: dict[int, subprocess.Popen[bytes]] = {}
_TAIL = 1 << 15  # bytes of what a process said that are read


@dataclass(frozen=True)
class Job:
    """kind: FIT | COMPARE.  words: the command after `papertrial`.  out: the run's folder, below that of all runs.

    pid, born: of the process that was begun last, and when, by which it is told from a later one of that number; 0: none.
    stage: of that process, the estimate (`plan`) or the work itself (`run`).
    """

    id: str
    kind: str
    method: str
    data: str
    words: tuple[str, ...]
    estimate: tuple[str, ...]
    out: str
    stage: str = "plan"
    pid: int = 0
    born: float = 0.0

    @property
    def command(self) -> str:
        """As one would type it."""
        return shlex.join(["papertrial", *self.words])


class _Kept(TypedDict):
    """The file of a job."""

    id: str
    kind: str
    method: str
    data: str
    words: list[str]
    estimate: list[str]
    out: str
    stage: str
    pid: int
    born: float


_DOOR = Door(_Kept, "delete it: the run that it speaks of stays")


class Jobs:
    """The jobs of a runs folder. data: what they may be begun on."""

    def __init__(self, root: Path, data: Sequence[str]) -> None:
        """Raises PapertrialError for data that are not there."""
        self.root, self.data = root.resolve(), tuple(data)
        for name in data:
            if not Path(name.partition("#")[0]).exists() and name not in registry.samples():
                raise PapertrialError(f"there is no {name} here", "name a file, a folder or built-in data with --data")
        self._lock = Lock()

    # ---------------------------------------------------------------------------------------------------------- asking

    def all(self) -> Iterator[Job]:
        for file in sorted((self.root / _FOLDER).glob("*.json")):
            with suppress(PapertrialError):
                yield self.job(file.stem)

    def job(self, name: str) -> Job:
        """Raises PapertrialError where there is none of that id, or its file is damaged."""
        file = self.root / _FOLDER / f"{name}.json"
        if not re.fullmatch(r"[0-9a-f]{16}", name) or not file.is_file() or file.is_symlink():
            raise PapertrialError("there is no such job", "the list of runs shows what is there")
        held = _DOOR.read(file)
        own = {field.name: held[field.name] for field in fields(Job)}
        return Job(**{**own, "words": tuple(held["words"]), "estimate": tuple(held["estimate"])})

    def of(self, out: str) -> Job | None:
        """The job that writes a run or a comparison."""
        return next((job for job in self.all() if job.out == out and job.stage == "run"), None)

    def state(self, job: Job) -> str:
        """PLANNING, PLANNED, REFUSED: the estimate runs, is there, or ended without one; RUNNING, ENDED, DONE: the work
        itself, which has more to do where it ended."""
        if self._process(job) is not None:
            return PLANNING if job.stage == "plan" else RUNNING
        if job.stage == "run":
            return DONE if self._done(self.root / job.out) else ENDED
        return PLANNED if re.search(r"^total ", self.said(job), re.MULTILINE) else REFUSED

    def said(self, job: Job) -> str:
        """The end of what its process said."""
        with suppress(OSError), open(self._log(job), "rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - _TAIL))
            return stream.read().decode("utf-8", "replace")
        return ""

    # ----------------------------------------------------------------------------------------------------------- doing

    def plan(self, kind: str, method: str, data: str, *, target: str = "", budget: str = "", seeds: str = "") -> Job:
        """A new job, whose cost is being estimated. Raises PapertrialError for what cannot be begun."""
        known = [name for name, paper in registry.papers().items() if paper.tasks]
        if kind not in (FIT, COMPARE):
            raise PapertrialError("it is neither a fit nor a comparison", "choose one of them")
        if method not in known:
            raise PapertrialError(f"there is no paper {method!r} that can be fitted", did_you_mean(method, known))
        if data not in self.data:
            raise PapertrialError(f"{data!r} is not among the data of this site", "start it with --data to add some")
        shared = [f"--data={data}"]
        shared += [f"--target={target}"] if target else []
        if budget:
            Budget.parse(budget)
            shared.append(f"--budget={budget}")
        if kind == COMPARE and not (seeds.isascii() and seeds.isdigit() and 3 <= int(seeds) <= 50):
            raise PapertrialError("a comparison from here takes 3 to 50 seeds", "5 are usual")
        more = [f"--seeds={int(seeds)}"] if kind == COMPARE else []
        stem = re.sub(r"[^A-Za-z0-9_-]+", "-", f"{method}-{Path(data.partition('#')[0]).stem}").strip("-")
        job = Job(
            secrets.token_hex(8), kind, method, data,
            words=(kind, method, *shared, *more, f"--out={self.root / self._free(stem)}", "--quiet"),
            estimate=("estimate", method, *shared, *more), out=self._free(stem),
        )  # fmt: skip
        with self._lock:
            return self._begin(job, job.estimate)

    def start(self, job: Job) -> Job:
        """Begin what was planned, or go on with it where it ended. Raises PapertrialError before there is a plan."""
        with self._lock:
            if self.state(job) not in (PLANNED, ENDED):
                raise PapertrialError("it cannot be started now", "wait for its plan, or for its end")
            return self._begin(replace(job, stage="run"), job.words)

    def stop(self, job: Job) -> None:
        """Tell its process to end; what it has learned stays in its folder."""
        with self._lock:
            process = self._process(job)
            if process is not None:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGTERM)

    def _begin(self, job: Job, words: Sequence[str]) -> Job:
        busy = next((other for other in self.all() if self._process(other) is not None), None)
        if busy is not None:
            raise PapertrialError(
                f"{busy.method} on {busy.data} is at work, and two at once would falsify each other's times",
                "wait for it, or stop it",
            )
        (self.root / _FOLDER).mkdir(exist_ok=True)
        with open(self._log(job), "wb") as log:
            made = subprocess.Popen(
                [*_COMMAND, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        _OURS[made.pid] = made
        job = replace(job, pid=made.pid, born=psutil.Process(made.pid).create_time())
        _DOOR.write(self._file(job), asdict(job))
        return job

    def _process(self, job: Job) -> psutil.Process | None:
        """The process of a job while it lives."""
        own = _OURS.get(job.pid)
        if own is not None and own.poll() is not None:
            return None
        with suppress(psutil.Error):
            process = psutil.Process(job.pid) if job.pid else None
            if process is not None and abs(process.create_time() - job.born) < 0.5:
                return process if process.status() != psutil.STATUS_ZOMBIE else None
        return None

    @staticmethod
    def _done(folder: Path) -> bool:
        with suppress(PapertrialError):
            return (folder / "result.json").exists() or bool(
                COMPARISON.read(folder / "comparison.json").get("complete")
            )
        return False

    def _free(self, stem: str) -> str:
        taken = {job.out for job in self.all() if job.stage == "run"}
        names = (stem if number == 1 else f"{stem}-{number}" for number in range(1, 10_000))
        return next(name for name in names if name not in taken and not (self.root / name).exists())

    def _file(self, job: Job) -> Path:
        return self.root / _FOLDER / f"{job.id}.json"

    def _log(self, job: Job) -> Path:
        return self.root / _FOLDER / f"{job.id}.log"
