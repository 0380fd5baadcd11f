"""A run is a folder: config.json, environment.json, metrics.jsonl, checkpoint, result. One process at a time owns it.

runs/a/
  config.json          what was asked and what it resolved to, with sources; decides whether a run is the same run
  environment.json     versions, hardware, date, threads
  plan.json            the number of steps a budget in seconds came to, measured once
  metrics.jsonl        one line per logged step; cut back to the checkpoint on resume
  checkpoint.safetensors   the last good state
  stages/1-a/          of a system of several stages: plan, metrics and checkpoint of each
  model.safetensors  card.json   the artifact
  result.json          metrics and cost; its presence means the run is done
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

from papertrial.core.errors import PapertrialError
from papertrial.core.files import disk_errors, read_json, sweep, to_json, write_json

_PACKAGES = (
    "papertrial",
    "torch",
    "accelerate",
    "numpy",
    "safetensors",
    "scikit-learn",
    "scipy",
    "pandas",
    "xgboost-cpu",
    "xgboost",
    "lightgbm",
    "catboost",
    "optuna",
)
#: of an environment, what changes the last digits of a sum, beside versions
_WHERE = ("cpu", "gpus", "threads", "processes", "commit")
_DIGITS = "the last digits may differ from those of a run in one go"


class Run:
    """The folder of one run. Nothing here knows torch; `train.checkpoint` writes the tensors."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        #: under which other conditions than before it goes on, in words; empty where they are the same, and until `begin`
        self.moved = ""
        self._tensorboard: Any = None

    def path(self, name: str) -> Path:
        return self.folder / name

    @property
    def scratch(self) -> Path:
        """A folder for what only the running method needs; removed when the run is done."""
        return self.path("scratch")

    def stage(self, place: int, name: str) -> Path:
        """The folder of a stage of the run, which counts from 1."""
        return self.folder / "stages" / f"{place}-{name}"

    @property
    def stages(self) -> dict[str, Run]:
        """Those that were begun, by name, in order; none for a run of one piece."""
        folders = sorted(self.path("stages").glob("[0-9]*-*"), key=lambda folder: int(folder.name.partition("-")[0]))
        return {folder.name.partition("-")[2]: Run(folder) for folder in folders}

    @property
    def done(self) -> bool:
        return self.path("result.json").exists()

    @property
    def begun(self) -> bool:
        """Whether there is something to go on from."""
        checkpoints = [run.path("checkpoint.safetensors") for run in (self, *self.stages.values())]
        return any(map(Path.exists, checkpoints)) or self.path("trials.jsonl").exists() or self.done

    @contextmanager
    def locked(self) -> Iterator[Run]:
        """Own the folder; a second process is refused with PapertrialError. The lock dies with the process."""
        from filelock import FileLock, Timeout

        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path(".lock"))
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise PapertrialError(
                    f"another process is using {self.folder}", "wait for it, or choose another folder with --out"
                ) from None
        try:
            yield self
        finally:
            self.close()
            lock.release()

    def begin(self, config: dict[str, Any]) -> bool:
        """Open the run for `config`: True when the same run was begun here before and goes on.

        What a killed process left half-written is removed.
        Raises PapertrialError when the folder holds a different run or other files.
        """
        held = self.path("config.json")
        wanted = json.loads(to_json(config))
        known = held.exists()
        if known:
            before = read_json(held)
            differing = sorted(key for key in before.keys() | wanted.keys() if before.get(key) != wanted.get(key))
            if differing:
                raise PapertrialError(
                    f"{self.folder} holds another run (it differs in {', '.join(differing)})",
                    "choose another --out, or add --fresh to start it over",
                )
        else:
            others = (
                [entry.name for entry in self.folder.iterdir() if not entry.name.startswith(".")]
                if self.folder.exists()
                else []
            )
            if others:
                raise PapertrialError(
                    f"{self.folder} is not empty and not a run (it holds {others[0]})",
                    "choose another folder with --out",
                )
            write_json(held, config)  # first, since it makes the folder a run
        if not self.done and not (known and self.begun and self._sits_on()):
            write_json(self.path("environment.json"), environment())
        for run in (self, *self.stages.values()):
            sweep(run.folder)
        if self.done:
            self._forget_the_way()
        return known

    def _sits_on(self) -> bool:
        """Note what has changed since the last sitting that changes the last digits of a sum; False without a record of it."""
        try:
            held = read_json(self.path("environment.json"))
            later = held.setdefault("later", [])
            changed = _changed({**held, **(later[-1] if later else {})}, now := environment())
        except (PapertrialError, AttributeError, TypeError, LookupError):
            return False
        if changed:
            self.moved = f"with other {', '.join(changed)}: {_DIGITS}"
            write_json(self.path("environment.json"), {**held, "later": [*later, {**now, "changed": self.moved}]})
        return True

    @property
    def sittings(self) -> list[str]:
        """A line for each time that the run went on under other conditions."""
        file = self.path("environment.json")
        later = read_json(file).get("later", []) if file.exists() else []
        return [f"on {entry['date'][:10]} it went on {entry['changed']}" for entry in later]

    @contextmanager
    def leaving_nothing_unless_begun(self) -> Iterator[None]:
        """A run that is refused before its first checkpoint (a setting, a full disk) leaves no folder behind."""
        try:
            yield
        except PapertrialError:
            others = {entry.name for entry in self.folder.iterdir()} - {
                ".lock",
                "config.json",
                "environment.json",
                "plan.json",
                "frozen.json",
                "stages",
            }
            if not self.begun and not others:
                shutil.rmtree(self.folder, ignore_errors=True)
                with contextlib.suppress(OSError):  # `runs/`, if this was to be the first
                    self.folder.parent.rmdir()
            raise

    def clear(self) -> None:
        """Remove what an earlier run left here, and only that."""
        if (
            self.folder.exists()
            and not self.path("config.json").exists()
            and any(not entry.name.startswith(".") for entry in self.folder.iterdir())
        ):
            raise PapertrialError(
                f"{self.folder} is not a run, so nothing in it is removed", "choose another folder with --out"
            )
        entries = list(self.folder.iterdir()) if self.folder.exists() else []
        for entry in sorted(entries, key=lambda entry: entry.name == "config.json"):  # last: it makes the folder a run
            if entry.name != ".lock":
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def log(self, step: int, **values: Any) -> None:
        """Append one line to metrics.jsonl, and the numbers to TensorBoard where `tensorboard` was called."""
        with disk_errors(self.path("metrics.jsonl")), open(self.path("metrics.jsonl"), "a", encoding="utf-8") as stream:
            stream.write(to_json({"step": step, **values}) + "\n")
        if self._tensorboard is not None:
            for name, value in values.items():
                if isinstance(value, int | float) and not isinstance(value, bool):
                    self._tensorboard.add_scalar(name, value, step)

    def history(self) -> list[dict[str, Any]]:
        """The logged lines; a last line cut short by a kill is left out."""
        rows = []
        if self.path("metrics.jsonl").exists():
            for line in self.path("metrics.jsonl").read_text(encoding="utf-8", errors="replace").splitlines():
                with contextlib.suppress(ValueError):
                    rows.append(json.loads(line))
        return rows

    def rewind(self, step: int) -> None:
        """Drop logged lines after `step`, which a resumed run will write again."""
        from papertrial.core.files import write_text

        if self.path("metrics.jsonl").exists():
            kept = [row for row in self.history() if row["step"] <= step]
            write_text(self.path("metrics.jsonl"), "".join(to_json(row) + "\n" for row in kept))

    def tensorboard(self) -> None:
        """Write TensorBoard events beside metrics.jsonl from now on."""
        from torch.utils.tensorboard import SummaryWriter

        self._tensorboard = SummaryWriter(str(self.path("tensorboard")))

    def close(self) -> None:
        if self._tensorboard is not None:
            self._tensorboard.close()
            self._tensorboard = None

    def finish(self, result: dict[str, Any]) -> None:
        """Write the result, which marks the run as done, and remove what only a resume would need."""
        write_json(self.path("result.json"), result)
        self._forget_the_way()

    def _forget_the_way(self) -> None:
        for run in (self, *self.stages.values()):
            run.path("checkpoint.safetensors").unlink(missing_ok=True)
        shutil.rmtree(self.scratch, ignore_errors=True)


def environment() -> dict[str, Any]:
    """Versions, hardware and date of this process, for the run folder and the evidence."""
    versions = {}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    found: dict[str, Any] = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "processes": int(os.environ.get("WORLD_SIZE", 1)),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "versions": versions,
        "commit": commit(),
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        found["threads"] = torch.get_num_threads()
        found["gpus"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return found


def _changed(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """`threads (1, now 2)`: of what changes the last digits of a sum, what was known then and is other now."""
    flat = [{**environment.get("versions", {}), **environment} for environment in (before, now)]
    names = [name for name in (*_WHERE, *_PACKAGES) if name in flat[0] and name in flat[1]]
    pairs = [(name, *(_short(held[name]) for held in flat)) for name in names]
    return [f"{name} ({was}, now {found})" for name, was, found in pairs if was != found]


def _short(value: Any) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


@cache
def commit() -> str:
    """The commit of the code in use, with `+` for uncommitted changes; empty outside a checkout."""
    checkout = Path(__file__).resolve().parents[3]
    if not (checkout / ".git").exists():
        return ""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=checkout, capture_output=True, text=True, check=True, timeout=30)
        return done.stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "src") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
