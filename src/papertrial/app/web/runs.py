"""What is in the runs folder, read while it is being written: states, progress, logs, comparisons and pictures.

Nothing here takes a lock or writes. Whose process owns a folder is read from the kernel's list of locks; asking for the
lock itself, even for a moment, could turn away a run that begins. Where a system has no such list (it is one of Linux), a
run that writes nothing for a while is of an unknown state. No link is followed, so that nothing outside is read.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from papertrial.core import registry
from papertrial.core.budget import Budget
from papertrial.core.doors import parsed
from papertrial.core.errors import PapertrialError, did_you_mean
from papertrial.core.run import LOG, Run
from papertrial.core.wording import counted
from papertrial.study.report_blocks import Record
from papertrial.use.card import ASKED
from papertrial.use.final import COMPARISON

#: the kind of a folder that the server may not look into
LOCKED = "folder"
RUNNING, DONE, STOPPED, UNREADABLE = "running", "done", "stopped", "unreadable"
#: has written nothing for a while, on a system that tells nobody who holds a lock
UNKNOWN = "unknown"
#: seconds in which a run writes something, even one on another machine, whose lock is not seen here: a checkpoint is due
#: every 30
_SILENCE = 45
#: folders of the list; older ones are left out
MOST = 300
_DEPTH = 3
_LARGEST_PICTURE = 64 << 20
_HEADER, _TAIL = 16 << 20, 1 << 16
#: what a folder that is changed while it is read, or holds something else than a run, can lead to
DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, PapertrialError)
_READ = (".json", ".jsonl", ".safetensors", ".npy")


@dataclass(frozen=True)
class Part:
    """A training: the whole run, or a stage of it. step: the last that was logged.  seconds: spent in training."""

    name: str
    step: float
    total: float | None
    unit: str = "steps"
    seconds: float = 0.0

    @property
    def share(self) -> float | None:
        return min(1.0, self.step / self.total) if self.total else None

    @property
    def left(self) -> float | None:
        """Seconds that are likely to be left."""
        if self.unit == "s" and self.total:
            return max(0.0, self.total - self.step)
        return self.seconds * (1 / self.share - 1) if self.share and self.seconds else None


@dataclass(frozen=True)
class Entry:
    """A run or a comparison as the list shows it.

    path: below the runs folder, with "/".  kind: run | comparison, or LOCKED.  changed: when something was last written, in seconds.
    parts: of a run, or the runs of a comparison.  runs: of a comparison, by state.  metric: the primary one with its value.  reason: why it is
    unreadable.
    """

    path: str
    kind: str
    state: str
    changed: float
    method: str = ""
    data: str = ""
    seed: int | None = None
    parts: tuple[Part, ...] = ()
    runs: tuple[Entry, ...] = ()
    metric: tuple[str, float] | None = None
    seconds: float | None = None
    words: str = ""
    reason: str = ""


class Runs:
    """The folder that the site may read, and nothing beside it."""

    def __init__(self, root: Path) -> None:
        """Raises PapertrialError when there is no such folder, it may not be read, or it is a run itself."""
        with suppress(PermissionError):
            if not root.is_dir():
                beside = [e.name for e in root.parent.iterdir() if e.is_dir()] if root.parent.is_dir() else []
                raise PapertrialError(f"there is no folder {root}", did_you_mean(root.name, beside))
        self.root = root.resolve()
        if _kind(self.root) == LOCKED:
            raise PapertrialError(
                f"{root} may not be read", "let whoever starts the server read it, or name another folder"
            )
        if _kind(self.root):
            raise PapertrialError(f"{root} is a {_kind(self.root)}", f"name the folder it is in: {self.root.parent}")

    def entries(self) -> list[Entry]:
        """All runs and comparisons, the last changed first."""
        held = _locked()
        found = [self._entry(folder, kind, held) for folder, kind in _search(self.root, _DEPTH)]
        return sorted(found, key=lambda entry: (entry.state != RUNNING, -entry.changed))

    def entry(self, path: str) -> Entry:
        """The run or comparison at a path below the folder. Raises FileNotFoundError where there is none."""
        folder = self.folder(path)
        kind = _kind(folder)
        if not kind:
            raise FileNotFoundError(path)
        return self._entry(folder, kind, _locked())

    def folder(self, path: str) -> Path:
        """A folder below the root, reached without links, with no links to what is read in it.

        Raises FileNotFoundError where there is none.
        """
        folder = self.root
        for part in path.split("/"):
            folder = folder / part
            try:
                found = _is_name(part) and not folder.is_symlink() and folder.is_dir()
            except PermissionError:  # it lies in a folder that may not be read
                found = False
            if not found:
                raise FileNotFoundError(path)
        if holds_links(folder):
            raise FileNotFoundError(path)
        return folder

    def picture(self, path: str) -> bytes:
        """A PNG file in the folder of a run. Raises FileNotFoundError for anything else."""
        parts = path.split("/")
        owners = (self.root.joinpath(*parts[:count]) for count in range(1, len(parts)))
        if not all(map(_is_name, parts)) or not _is_picture(parts[-1]) or not any(map(_kind, owners)):
            raise FileNotFoundError(path)
        with _opened(self.root, parts) as stream:
            if _size(stream) is None or os.fstat(stream.fileno()).st_size > _LARGEST_PICTURE:
                raise FileNotFoundError(path)
            stream.seek(0)
            return stream.read()

    def pictures(self, path: str) -> list[tuple[str, tuple[int, int]]]:
        """The PNG files in a run's folder and the folders in it, newest first: paths below the root, with width and
        height."""
        folder = self.folder(path)
        named: list[tuple[float, str]] = []
        for place in (folder, *_folders(folder)):
            with suppress(OSError), os.scandir(place) as entries:
                named += [
                    (entry.stat(follow_symlinks=False).st_mtime, Path(entry.path).relative_to(self.root).as_posix())
                    for entry in entries
                    if _is_picture(entry.name) and entry.is_file(follow_symlinks=False)
                ]
        found = []
        for _, name in sorted(named, reverse=True):
            with suppress(FileNotFoundError), _opened(self.root, name.split("/")) as stream:
                size = _size(stream)
                found += [(name, size)] if size else []
        return found

    def shown_on(self, path: str) -> str:
        """What is on a picture of a run, as far as its name and the list of what was generated tell."""
        *above, name = path.split("/")
        known = {"drawn.png": "What the model drew for test examples", "test.png": "The test examples themselves"}
        listed: list[dict[str, Any]] = []
        with suppress(FileNotFoundError, *DAMAGE), _opened(self.root, [*above, "pictures.jsonl"]) as stream:
            listed = [parsed(line) for line in stream.read(_TAIL).splitlines()]
        asked = {str(row["file"]): str(row.get("label") or row.get("caption") or "") for row in listed if "file" in row}
        if name == "grid.png" and asked:
            wishes = ", ".join(filter(None, dict.fromkeys(asked.values())))
            return f"{counted(len(asked), 'picture')} that the model drew" + (
                f", row by row: {wishes}" if wishes else ""
            )
        if name in asked:
            return "Drawn by the model" + (f": {asked[name]}" if asked[name] else "")
        return known.get(name, "A picture in the folder of the run")

    def _entry(self, folder: Path, kind: str, held: set[int] | None) -> Entry:
        path = folder.relative_to(self.root).as_posix()
        read: Callable[[Path, str, set[int] | None], Entry] = _run if kind == "run" else _comparison
        if kind == LOCKED:
            return Entry(path, kind, UNREADABLE, _changed(folder), reason="whoever started this server may not read it")
        try:
            if holds_links(folder):
                raise PapertrialError("it holds links or pipes, which are not followed")
            return read(folder, path, held)
        except DAMAGE as error:
            return Entry(path, kind, UNREADABLE, _changed(folder), reason=str(error) or type(error).__name__)


def records(folder: Path) -> list[Record]:
    """The runs of a comparison, or the run itself, by method and seed; those that cannot be read are left out."""
    found = []
    for file in [folder / "config.json"] if _kind(folder) == "run" else sorted(folder.glob("*/seed*/config.json")):
        with suppress(*DAMAGE):
            found.append(_record(file.parent))
    return sorted(found, key=lambda run: (run.method, run.percent or 100, run.seed))


def _record(folder: Path) -> Record:
    done = folder / "result.json"
    return _kept_record(folder, mark(done)) if done.exists() else Record.read(folder)


@lru_cache(maxsize=512)
def _kept_record(folder: Path, state: tuple[int, ...]) -> Record:
    """Of a run that is done, which changes no more unless it is started over."""
    return Record.read(folder)


def metric_of(card: Mapping[str, Any]) -> tuple[str, bool]:
    """The primary metric of a run that is done, and whether higher is better."""
    found: tuple[str, bool] = registry.task(card["task"]["name"]).primary_for(card["state"])
    return found


def mark(file: Path) -> tuple[int, ...]:
    """Changes with the file: what is kept of it is kept under its mark."""
    about = file.stat()
    return about.st_mtime_ns, about.st_size, about.st_ino


@lru_cache(maxsize=2048)
def _summary(folder: Path, state: tuple[int, ...]) -> tuple[str, str, int, tuple[str, float] | None, float | None]:
    """Method, data, seed, primary metric and seconds of a run that is done, without all that its card holds."""
    record = Record.read(folder)
    if record.card is None or record.result is None:
        raise FileNotFoundError(folder)
    metric, _ = metric_of(record.card)
    value = record.result["metrics"].get(metric)
    return (
        record.method,
        str(record.config["data"]["name"]),
        record.seed,
        None if value is None else (metric, float(value)),
        float(record.result["cost"]["seconds"]),
    )


def _run(folder: Path, path: str, held: set[int] | None) -> Entry:
    if (folder / "result.json").exists() and (folder / "card.json").exists():
        method, data, seed, metric, seconds = _summary(folder, mark(folder / "result.json"))
        changed = (folder / "result.json").stat().st_mtime
        return Entry(path, "run", DONE, changed, method, data, seed, metric=metric, seconds=seconds)
    config = ASKED.read(folder / "config.json")
    changed = _changed(folder)
    parts = tuple(_parts(folder, config))
    return Entry(
        path, "run", _state(folder, changed, held), changed, str(config["method"]), str(config["data"]["name"]),
        int(config["seed"]), parts, seconds=sum(part.seconds for part in parts),
    )  # fmt: skip


def _comparison(folder: Path, path: str, held: set[int] | None) -> Entry:
    runs = []
    for file in sorted(folder.glob("*/seed*/config.json")):
        own = f"{path}/{file.parent.relative_to(folder).as_posix()}"
        try:
            runs.append(_run(file.parent, own, held))
        except DAMAGE as error:
            runs.append(Entry(own, "run", UNREADABLE, _changed(file.parent), reason=str(error)))
    study = COMPARISON.read(folder / "comparison.json") if (folder / "comparison.json").exists() else {}
    changed = max([_changed(folder), *(run.changed for run in runs)])
    busy = any(run.state == RUNNING for run in runs) or time.time() - changed < _SILENCE
    state = DONE if study.get("complete") else RUNNING if busy else _silent(held)
    asked = study.get("asked", {}).get("methods") or _asked(folder, runs)
    total = study.get("asked", {}).get("runs")
    seconds = sum(run.seconds or 0.0 for run in runs)
    verdicts = study.get("verdicts", {})
    return Entry(
        path,
        "comparison",
        state,
        changed,
        ", ".join(map(str, asked)),
        next((run.data for run in runs if run.data), ""),
        parts=(Part("", _finished(runs), float(total) if total else None, "runs", seconds),),
        runs=tuple(runs),
        seconds=seconds,
        words=", ".join(f"{name}: {verdict['word']}" for name, verdict in verdicts.items()),
    )


def _finished(runs: Sequence[Entry]) -> float:
    """Runs that are done, and what is done of the others."""
    return sum(1.0 if run.state == DONE else (run.parts[0].share or 0.0) if run.parts else 0.0 for run in runs)


def _asked(folder: Path, runs: Sequence[Entry]) -> list[str]:
    """The methods of a comparison before it says so itself: those that are no baselines of the task."""
    methods = list(dict.fromkeys(run.method for run in runs if run.method))
    with suppress(*DAMAGE):
        config = ASKED.read(folder.joinpath(*runs[0].path.split("/")[-2:], "config.json"))
        task = registry.task(config["task"].partition(" ")[0])
        return [method for method in methods if method not in (*task.references, *task.floors)] or methods
    return methods


def _state(folder: Path, changed: float, held: set[int] | None) -> str:
    with suppress(OSError):
        if (folder / ".lock").stat().st_ino in (held or ()):
            return RUNNING
    return RUNNING if time.time() - changed < _SILENCE else _silent(held)


def _silent(held: set[int] | None) -> str:
    """The state of what has no lock that is seen, and writes nothing."""
    return UNKNOWN if held is None else STOPPED


def _locked() -> set[int] | None:
    """Inodes of the files that a process of this machine holds a lock on; None on a system that does not tell."""
    with suppress(OSError):
        lines = Path("/proc/locks").read_text(encoding="ascii", errors="replace").splitlines()
        return {int(inode) for line in lines for inode in re.findall(r"[\da-f]+:[\da-f]+:(\d+)", line)}
    return None


def _changed(folder: Path) -> float:
    """When a file of the folder was last written, in seconds; that of a stage counts too."""
    latest = 0.0
    for place in (folder, *_folders(folder / "stages")):
        with suppress(OSError), os.scandir(place) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # gone since it was listed
                    latest = max(latest, entry.stat(follow_symlinks=False).st_mtime)
    with suppress(OSError):
        return latest or folder.stat().st_mtime
    return latest


def _parts(folder: Path, config: dict[str, Any]) -> Iterator[Part]:
    budget = Budget(**{name: value for name, value in config["budget"].items() if value is not None})
    stages = Run(folder).stages
    for name, run in stages.items() or [("", Run(folder))]:
        row = _last(run.path("metrics.jsonl"))
        state = _checkpoint(run.path("checkpoint.safetensors"))
        total = state.get("total") or budget.steps
        if row or total:
            yield Part(name, row.get("step", 0), total, seconds=row.get("seconds", 0.0))
    if (folder / "trials.jsonl").exists():
        spent = [float(trial.get("seconds", 0.0)) for trial in Record(folder, config, None, None).trials]
        if budget.trials:
            yield Part("tuning", len(spent), budget.trials, "trials", sum(spent))
        else:
            yield Part("tuning", sum(spent), budget.seconds, "s", sum(spent))


def _last(file: Path) -> dict[str, Any]:
    """How far a log says that a training is: the last "step" and the last "seconds". Only the end of it is read."""
    found: dict[str, Any] = {}
    try:
        with open(file, "rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - _TAIL))
            lines = stream.read().splitlines()
    except FileNotFoundError:
        return found
    for line in reversed(lines):
        with suppress(ValueError, PapertrialError):
            row = LOG.checked(file, parsed(line))
            found = {name: row[name] for name in ("step", "seconds") if name in row} | found
        if len(found) == 2:
            break
    return found


def _checkpoint(file: Path) -> dict[str, Any]:
    """What a checkpoint says beside its tensors, which are not read. It is replaced as a whole, never changed."""
    with suppress(OSError, ValueError, LookupError, TypeError), open(file, "rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        if size <= _HEADER:
            return dict(parsed(parsed(stream.read(size))["__metadata__"]["papertrial"].encode()))
    return {}


def _search(folder: Path, depth: int) -> Iterator[tuple[Path, str]]:
    """Runs and comparisons below a folder, with their kind."""
    for inner in _folders(folder):
        kind = _kind(inner)
        if kind:
            yield inner, kind
        elif depth > 1:
            yield from _search(inner, depth - 1)


def _kind(folder: Path) -> str:
    """run | comparison, LOCKED where the server may not look, or empty. Runs named like those of a comparison make one before
    its first round is complete."""
    try:
        if (folder / "config.json").exists():
            return "run"
        if (folder / "comparison.json").exists() or next(folder.glob("*/seed*/config.json"), None) is not None:
            return "comparison"
    except PermissionError:
        return LOCKED
    except (FileNotFoundError, NotADirectoryError):  # gone since it was listed
        pass
    return ""


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder that can be named in an address; links are none."""
    with suppress(OSError):
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False) and _is_name(entry.name)]
        return [folder / name for name in sorted(names)]
    return []


def _is_name(name: str) -> bool:
    """Whether it is the plain name of something in a folder, not hidden, and no way to anywhere else."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:  # bytes that are no text, which no address can say
        return False
    return 0 < size <= 255 and not name.startswith(".") and re.search(r"[/\\\x00-\x1f\x7f]", name) is None


def holds_links(folder: Path, depth: int = _DEPTH + 1) -> bool:
    """Whether something that is read here lies elsewhere, or is no file at all, such as a pipe that would be waited for."""
    inner: list[str] = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                inner.append(entry.path)
            elif entry.is_dir() or (entry.name.endswith(_READ) and not entry.is_file(follow_symlinks=False)):
                return True
    return depth > 0 and any(holds_links(Path(path), depth - 1) for path in inner)


def _is_picture(name: str) -> bool:
    return _is_name(name) and name.lower().endswith(".png")


def _size(stream: BinaryIO) -> tuple[int, int] | None:
    """Width and height of a PNG file; None for another file."""
    about = os.fstat(stream.fileno())
    head = stream.read(24) if stat.S_ISREG(about.st_mode) else b""
    if len(head) < 24 or not head.startswith(b"\x89PNG\r\n\x1a\n"):
        return None
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


def _opened(root: Path, parts: Sequence[str]) -> BinaryIO:
    """The file at the end of a path, opened step by step from the root without following a link."""
    if not all(map(_is_name, parts)):
        raise FileNotFoundError("/".join(parts))
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for place, part in enumerate(parts, 1):
            kind = os.O_NONBLOCK if place == len(parts) else os.O_DIRECTORY  # a pipe would be waited for
            inner = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | kind, dir_fd=handle)
            os.close(handle)
            handle = inner
        return os.fdopen(handle, "rb")
    except OSError:  # a folder in place of the file is one too
        os.close(handle)
        raise FileNotFoundError("/".join(parts)) from None
