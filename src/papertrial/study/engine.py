"""Where the runs of a comparison happen: one after the other in this process, or spread over a Ray cluster.

An engine is told of jobs as soon as they are known (`submit`) and asked for their outcomes in the comparison's order
(`outcome`). A job is plain values: whoever runs it opens the data and makes it ready again, and the run's folder, on
storage that all machines share, holds what came out. So both engines give the same numbers, and a run whose worker is
killed goes on in its folder with another one.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import platform
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from papertrial.core import registry
from papertrial.core.errors import DataError, PapertrialError, did_you_mean, missing_extra, told_elsewhere
from papertrial.core.memory import OutOfMemory
from papertrial.core.request import Request
from papertrial.core.run import Run

if TYPE_CHECKING:
    from papertrial.core.task import Prepared, Task
    from papertrial.use.fit import Outcome

ENGINES = ("local", "ray")
_RETRIES = 3  # new workers for a run whose worker died


@dataclass(frozen=True)
class Job:
    """One run of a comparison."""

    method: str
    folder: Path
    request: Request

    def run(self, task: Task, prepared: Prepared, progress: bool) -> Outcome:
        """Here and now. Raises what `fit_prepared` raises."""
        from papertrial.use.fit import fit_prepared

        request = self.request.but(progress=progress)
        return fit_prepared(registry.method(self.method), task, prepared, out=self.folder, request=request)


class Engine(Protocol):
    """at_once: how many runs go on at the same time."""

    at_once: int

    def submit(self, jobs: Sequence[Job]) -> None:
        """These outcomes will be asked for, most likely in this order."""

    def outcome(self, job: Job, task: Task, prepared: Prepared) -> Outcome:
        """Of a job that was submitted; `prepared` is its data, made ready here. Raises what the run raised."""


@contextmanager
def started(name: str, data: Any, request: Request, fingerprint: str, task: str, **options: Any) -> Iterator[Engine]:
    """The engine called `name`. options: `progress` of the local one, `address` and `cores` of Ray.

    data: as `papertrial.open` takes it, as `request` says, with the fingerprint of what it gave here.  Raises PapertrialError for
    an unknown engine, a missing package, or a cluster that is not there.
    """
    if name not in ENGINES:
        raise PapertrialError(f"there is no engine {name!r}", did_you_mean(name, ENGINES))
    if name == "local":
        if options["address"] is not None:
            raise PapertrialError("an address was given, but the engine is local", "add --engine ray")
        yield Local(options["progress"])
        return
    with _connected(options["address"]) as ray:
        yield OnRay(ray, _Source(_anywhere(data), request, fingerprint, task), options["cores"])


class Local:
    """One run after the other, in this process."""

    at_once = 1

    def __init__(self, progress: bool) -> None:
        self.progress = progress

    def submit(self, jobs: Sequence[Job]) -> None:
        """Nothing starts before it is asked for."""

    def outcome(self, job: Job, task: Task, prepared: Prepared) -> Outcome:
        return job.run(task, prepared, self.progress)


@dataclass(frozen=True)
class _Source:
    """How a worker comes by the data. what: a path or name, or the user's object itself."""

    what: Any
    request: Request
    fingerprint: str
    task: str

    def open(self) -> Any:
        """Raises DataError when it is not the same data as where the comparison was started."""
        path = isinstance(self.what, str)
        data = _open_once(self.what, **self.request.reading) if path else content(self.what, self.request)
        if data.fingerprint != self.fingerprint:
            raise DataError(
                f"{self.what} is other data on {platform.node()} than where the comparison was started",
                "put it on storage that all machines share",
            )
        return data


class OnRay:
    """Runs spread over a Ray cluster; each has `cores` processor cores, and a GPU where there are some, to itself."""

    def __init__(self, ray: Any, source: _Source, cores: int) -> None:
        self.ray, self.cores = ray, cores
        self.source = ray.put(source)
        self.gpus = int(ray.cluster_resources().get("GPU", 0))
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        self.at_once = sum(int(machine.get("CPU", 0)) // cores for machine in machines)  # not of two machines
        if self.gpus:
            self.at_once = min(self.at_once, self.gpus)
        if not self.at_once:
            raise PapertrialError(f"no machine of the cluster has {cores} cores", "give fewer --cores")
        self.waiting: dict[Path, Any] = {}

    def submit(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if job.request.fresh:  # here and once: a worker that takes over must not start over
                with (run := Run(job.folder)).locked():
                    run.clear()
            gpus = 1 if self.gpus and registry.method(job.method).paper.kind != "estimator" else 0
            work = self.ray.remote(num_cpus=self.cores, num_gpus=gpus, max_retries=_RETRIES)(_work)
            self.waiting[job.folder] = work.remote(
                replace(job, folder=job.folder.absolute(), request=job.request.but(fresh=False)),
                self.source,
                self.cores,
            )

    def outcome(self, job: Job, task: Task, prepared: Prepared) -> Outcome:
        from papertrial.use.fit import Outcome

        try:
            failed = self.ray.get(self.waiting.pop(job.folder))
        except (self.ray.exceptions.WorkerCrashedError, self.ray.exceptions.RaySystemError) as error:
            raise PapertrialError(
                f"the workers for {job.folder} died {_RETRIES + 1} times ({type(error).__name__})",
                "look for too little memory; the same command goes on from the last checkpoint",
            ) from None
        except self.ray.exceptions.OutOfMemoryError:
            raise OutOfMemory(
                f"Ray stopped the run in {job.folder} because memory ran out", "give each run more --cores"
            ) from None
        if failed is not None:
            raise told_elsewhere(*failed)
        if not Run(job.folder).done:
            raise PapertrialError(
                f"{job.folder} is not the same folder on all machines", "choose an --out on storage that they share"
            )
        return Outcome.read(job.folder)


def _work(job: Job, source: _Source, cores: int) -> tuple[str, str, str] | None:
    """A worker's part: None when the run is done, or the name, problem and fix of its PapertrialError."""
    import torch

    from papertrial.use.choose import prepare

    torch.set_num_threads(cores)
    try:
        task = registry.task(source.task)
        job.run(task, prepare(task, source.open(), job.request.seed, **job.request.options), progress=False)
    except PapertrialError as error:
        return type(error).__name__, error.problem, error.fix
    return None


def content(data: Any, request: Request) -> Any:
    """The data opened as asked for; what is opened already is given its groups and times."""
    from papertrial.data import open as open_data

    if hasattr(data, "look"):
        return open_data(data, group=request.group, time=request.time) if request.group or request.time else data
    return open_data(data, **request.reading)


@cache
def _open_once(what: str, **reading: Any) -> Any:
    """A worker does several jobs."""
    from papertrial.data import open as open_data

    return open_data(what, **reading)


def _anywhere(data: Any) -> Any:
    """A path that means the same in a worker's folder; names and objects as they are."""
    if isinstance(data, str | Path):
        return str(Path(data).absolute()) if Path(data).exists() else str(data)
    return data


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """Ray, quiet and without a dashboard; None takes the cluster of this machine, or starts one for the time."""
    if importlib.util.find_spec("ray") is None:
        raise missing_extra("--engine ray", "ray", "cluster")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "error")
    import ray

    if ray.is_initialized():  # by the caller, who also ends it
        yield ray
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = f"no Ray cluster answers at {address}" if address else "Ray cannot be started"
        raise PapertrialError(
            f"{where} ({error})",
            "type: ray start --head, or leave --address out; a cluster that asks for a token needs RAY_AUTH_MODE=token here",
        ) from None
    try:
        yield ray
    finally:
        with contextlib.suppress(Exception):
            ray.shutdown()
