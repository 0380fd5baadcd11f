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
  .papertrial.json     the marker that makes the folder a run, and lists what is the run's (`core.ours`)
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

from typing_extensions import NotRequired, TypedDict

from papertrial.core import ours
from papertrial.core.doors import SUM, Door
from papertrial.core.errors import PapertrialError
from papertrial.core.files import disk_errors, to_json, write_text

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
#: what repairs a run
AGAIN = "remove {folder}, and the same fit or compare trains it again"
CONFIG = RESULT = Door(dict[str, Any], AGAIN)
ENVIRONMENT = Door(dict[str, Any], "remove it: nothing but reports reads it")


class Logged(TypedDict):
    """A line of metrics.jsonl; what else a method logs stands beside."""

    step: int
    loss: NotRequired[float | None]
    validation: NotRequired[float | None]
    seconds: NotRequired[float | None]


class Tried(TypedDict):
    """A line of trials.jsonl: a configuration that a method tried while it tuned itself."""

    number: int
    params: dict[str, Any]
    error: float
    log_loss: float | None
    seconds: float
    energy: dict[str, Any]


LOG = Door(Logged, "remove the line")
TRIED = Door(Tried, AGAIN)
#: what training writes, of a run and of each stage
_TRAINED = (
    "plan.json", "memory.json", "frozen.json", "metrics.jsonl", "checkpoint.safetensors", "tensorboard/",
)  # fmt: skip
_NAMES = (
    "config.json", "environment.json", *_TRAINED, "trials.jsonl", "scratch/", "model.safetensors", "estimator/",
    ".estimator.tmp/", "rows.npy", "measures.safetensors", "per_example.npy", "card.json", "result.json",
)  # fmt: skip
#: pictures that earlier versions wrote beside them
_SHEETS = ("drawn.png", "test.png")
#: by what a folder of an earlier version is told to be a run
_CONFIG, _ENVIRONMENT = {"method", "data", "seed"}, {"date", "python", "versions", "commit"}


def _recognised(folder: Path) -> list[str]:
    """Names of a run that an earlier version left without a marker; none where the folder is not plainly one."""
    config, begun = _object(folder / "config.json"), _object(folder / "environment.json")
    held = ours.visible(folder)
    if not (config.keys() >= _CONFIG and isinstance(config["data"], dict) and isinstance(config["seed"], int)):
        return []
    if not begun.keys() >= _ENVIRONMENT and held != ["config.json"]:  # killed between the first file and the second
        return []
    names = [*_NAMES, *(name for name in held if name in _SHEETS or fnmatch(name, "per_example-*.npy"))]
    return [*names, *(name for stage in Run(folder).stages.values() for name in _of_stage(stage.folder.name))]


def _of_stage(folder: str) -> list[str]:
    return [f"stages/{folder}/{name}" for name in _TRAINED]


def _object(file: Path) -> dict[str, Any]:
    """What a JSON file holds; empty where it is missing, no JSON or no object."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        if file.is_file():
            held = json.loads(file.read_text(encoding="utf-8"))
            return held if isinstance(held, dict) else {}
    return {}


class Run:
    """The folder of one run. Nothing here knows torch; `train.checkpoint` writes the tensors."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        #: under which other conditions than before it goes on, in words; empty where they are the same, and until `begin`
        self.moved = ""
        self._marked: ours.Marked | None = None
        self._opened = False
        self._tensorboard: Any = None

    def path(self, name: str) -> Path:
        return self.folder / name

    @property
    def scratch(self) -> Path:
        """A folder for what only the running method needs; removed when the run is done."""
        place = self.path("scratch")
        if place.is_symlink():
            raise ours.not_ours(place)
        return place

    def stage(self, place: int, name: str) -> Path:
        """The folder of a stage of the run, which counts from 1."""
        return self.folder / "stages" / f"{place}-{name}"

    def make_stage(self, place: int, name: str) -> None:
        """Make the folder of a stage, after what training writes there is listed."""
        folder = self.stage(place, name)
        self.will_write(*_of_stage(folder.name))
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def will_write(self, *names: str) -> None:
        """List files beside the usual ones as the run's, before they are written. Does nothing in a folder that is no run."""
        ours.will_write(self.folder, *names)

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
        """Own the folder; a second process is refused with PapertrialError. The lock dies with the process.

        Raises PapertrialError, before anything is changed, for a folder that holds other files than a run's.
        """
        with ours.held(self.folder, "run", _NAMES, _recognised) as self._marked:
            try:
                yield self
            finally:
                self.close()

    def begin(self, config: dict[str, Any]) -> bool:
        """Open the run for `config`: True when the same run was begun here before and goes on.

        What a killed process left half-written is removed.
        Raises PapertrialError when the folder holds a different run or other files.
        """
        made = self._marked.made if self._marked is not None else ()
        self._marked = ours.claim(self.folder, "run", _NAMES, _recognised)
        self._marked.made = self._marked.made or made
        held = self.path("config.json")
        wanted = json.loads(to_json(config))
        known = held.exists()
        if known:
            before = CONFIG.read(held)
            keys = (before.keys() | wanted.keys()) - {SUM}
            differing = sorted(key for key in keys if before.get(key) != wanted.get(key))
            if differing:
                raise PapertrialError(
                    f"{self.folder} holds another run (it differs in {', '.join(differing)})",
                    "choose another --out, or add --fresh to start it over",
                )
        elif any(self.path(name).exists() for name in self._marked.entries - {"environment.json"}):
            raise PapertrialError(
                f"{held} is missing, so what was run here is not known", "choose another --out, or add --fresh"
            )
        self._opened = True
        if not known:
            CONFIG.write(held, config)
        if not self.done and not (known and self.begun and self._sits_on()):
            ENVIRONMENT.write(self.path("environment.json"), environment())
        self._marked.sweep()
        if self.done:
            self._forget_the_way()
        return known

    def _sits_on(self) -> bool:
        """Note what has changed since the last sitting that changes the last digits of a sum; False without a record of it."""
        try:
            held = ENVIRONMENT.read(self.path("environment.json"))
            later = held.setdefault("later", [])
            changed = _changed({**held, **(later[-1] if later else {})}, now := environment())
        except (PapertrialError, AttributeError, TypeError, LookupError):  # damaged, or of another version
            return False
        if changed:
            self.moved = f"with other {', '.join(changed)}: {_DIGITS}"
            told = {**held, "later": [*later, {**now, "changed": self.moved}]}
            ENVIRONMENT.write(self.path("environment.json"), told)
        return True

    @property
    def sittings(self) -> list[str]:
        """A line for each time that the run went on under other conditions."""
        file = self.path("environment.json")
        later = ENVIRONMENT.read(file).get("later", []) if file.exists() else []
        return [f"on {entry['date'][:10]} it went on {entry['changed']}" for entry in later]

    @contextmanager
    def leaving_nothing_unless_begun(self) -> Iterator[None]:
        """A run that is refused before its first checkpoint (a setting, a full disk) leaves none of its files behind."""
        try:
            yield
        except PapertrialError:
            if self._marked is not None and self._opened and not self.begun and not self.scratch.exists():
                self._marked.delete()
            raise

    def clear(self) -> None:
        """Remove what an earlier run left here, and only that. Raises PapertrialError for a folder that is no run."""
        marked = ours.claim(self.folder, "run", _NAMES, _recognised)
        # killed on the way, it is the same run, not done, and goes on from nothing that has lost a part
        order = {"result.json": 0, "trials.jsonl": 1, "checkpoint.safetensors": 1, "config.json": 3}
        marked.remove(*sorted(marked.entries, key=lambda name: (order.get(name.rpartition("/")[2], 2), name)))
        if left := ours.visible(self.folder):
            print(f"{self.folder}: {', '.join(left)} stays, which is not the run's", file=sys.stderr, flush=True)

    def log(self, step: int, **values: Any) -> None:
        """Append one line to metrics.jsonl, and the numbers to TensorBoard where `tensorboard` was called."""
        with disk_errors(self.path("metrics.jsonl")), open(self.path("metrics.jsonl"), "a", encoding="utf-8") as stream:
            stream.write(to_json({"step": step, **values}) + "\n")
        if self._tensorboard is not None:
            for name, value in values.items():
                if isinstance(value, int | float) and not isinstance(value, bool):
                    self._tensorboard.add_scalar(name, value, step)

    def history(self) -> list[dict[str, Any]]:
        """The logged lines; those that cannot be read are left out, as is a last line cut short by a kill."""
        return LOG.rows(self.path("metrics.jsonl"), grows=True)[0]

    def rewind(self, step: int) -> None:
        """Drop logged lines after `step`, which a resumed run will write again."""
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
        RESULT.write(self.path("result.json"), result)
        self._forget_the_way()

    def _forget_the_way(self) -> None:
        """Delete the checkpoints, also of stages, and what only the method needed on its way."""
        if (marked := ours.read(self.folder)) is not None:
            ways = {"scratch", "checkpoint.safetensors"}
            marked.remove(*(name for name in marked.entries if Path(name).name in ways))


def environment() -> dict[str, Any]:
    """Versions, hardware and date of this process, for the run folder and the evidence."""
    found: dict[str, Any] = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "processes": int(os.environ.get("WORLD_SIZE", 1)),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "versions": dict(_versions()),
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
def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


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


@cache
def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
