"""A comparison spread over a Ray cluster gives the table of the local engine, also when a worker is killed."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from papertrial.core.errors import PapertrialError
from papertrial.core.run import Run
from papertrial.study.compare import compare
from papertrial.study.engine import started

ASKED = {
    "budget": "600steps", "baselines": ["linear", "majority"], "recipe": "tiny", "seeds": 2, "progress": False,
}  # fmt: skip


class Killer(threading.Thread):
    """Kills the process that owns `folder` once it has taken some steps; `killed` is its number, `said` why there is none.

    The process is held from when it is found, and let go for moments until it has stepped: it cannot end meanwhile.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder, self.killed, self.said = folder, 0, "nobody owned it"

    def run(self) -> None:
        deadline = time.monotonic() + 300
        owner = None
        while owner is None and time.monotonic() < deadline and not Run(self.folder).done:
            owner = self._owner()
        if owner is None:
            return
        try:
            owner.suspend()
            while not Run(self.folder).history():
                owner.resume()
                time.sleep(0.05)
                owner.suspend()
            owner.kill()
            self.killed = owner.pid
        except psutil.Error as error:
            self.said = str(error)

    def _owner(self) -> psutil.Process | None:
        lock = str((self.folder / ".lock").resolve())
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if lock in (file.path for file in process.open_files()):
                    return process
        return None


def plain(result):
    """What a comparison found, less what depends on the clock and the place."""
    rows = [dataclasses.replace(row, seconds=None, peak_bytes=None, kwh=None) for row in result.rows]
    return dataclasses.replace(result, rows=tuple(rows), folder="", plan="")


def test_ray_gives_the_table_of_the_local_engine_when_a_worker_is_killed(tmp_path):
    said = []
    killer = Killer(tmp_path / "ray" / "rtdl-mlp" / "seed0")
    killer.start()
    spread = compare(
        ["rtdl:mlp"], "wine", out=tmp_path / "ray", engine="ray", address="local", echo=said.append, **ASKED
    )
    killer.join()
    assert killer.killed, killer.said
    here = compare(["rtdl:mlp"], "wine", out=tmp_path / "here", echo=None, **ASKED)
    assert plain(spread) == plain(here)
    assert any(row.worth is not None for row in spread.rows)  # the runs on fewer labels were spread too
    folders = sorted(file.parent.relative_to(tmp_path / "here") for file in (tmp_path / "here").rglob("result.json"))
    assert len(folders) == 3 * 2 + 2 * 2
    for folder in folders:
        scores = [np.load(tmp_path / engine / folder / "per_example.npy") for engine in ("here", "ray")]
        assert np.array_equal(*scores), folder
    assert said[0].startswith("plan: ") and "runs at once" in said[0]


def test_errors_of_a_worker_are_those_of_the_run(tmp_path, monkeypatch):
    """Without a cluster: what a worker does, in this process."""
    from papertrial.core.budget import Budget
    from papertrial.core.request import Request
    from papertrial.data import open as open_data
    from papertrial.study.engine import Job, _Source, _work

    wine = open_data("wine")
    job = Job("rtdl:mlp", tmp_path / "run", Request(recipe="tiny", settings={"lr": "fast"}, budget=Budget(steps=3)))
    name, problem, fix = _work(job, _Source("wine", None, wine.fingerprint, "tabular"), 1)
    assert name == "PapertrialError" and "lr" in problem and fix
    name, problem, _ = _work(job, _Source("iris", None, wine.fingerprint, "tabular"), 1)
    assert name == "DataError" and "iris is other data" in problem


@pytest.mark.parametrize(
    ("engine", "address", "words"),
    [("rya", None, "did you mean 'ray'"), ("local", "auto", "add --engine ray")],
)
def test_engines_that_cannot_be_used(engine, address, words):
    with (
        pytest.raises(PapertrialError, match=words),
        started(engine, "wine", None, "", "tabular", progress=False, address=address, cores=1),
    ):
        pass


def test_a_missing_ray_is_one_line(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with (
        pytest.raises(PapertrialError, match=r"papertrial\[cluster\]"),
        started("ray", "wine", None, "", "tabular", progress=False, address=None, cores=1),
    ):
        pass


def test_a_cluster_that_is_not_there_is_one_line(monkeypatch):
    import ray

    def init(**options):
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(ray, "init", init)
    with (
        pytest.raises(PapertrialError, match=r"no Ray cluster answers at auto .*ray start --head"),
        started("ray", "wine", None, "", "tabular", progress=False, address="auto", cores=1),
    ):
        pass
