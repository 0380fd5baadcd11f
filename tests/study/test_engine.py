"""A comparison spread over a Ray cluster gives the table of the local engine, also when a worker is killed."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest

from papertrial.core.errors import PapertrialError
from papertrial.core.request import Request
from papertrial.study import engine
from papertrial.study.compare import compare
from papertrial.study.engine import started

ASKED = {
    "budget": "60steps", "baselines": ["linear", "majority"], "recipe": "tiny", "seeds": 2, "progress": False,
}  # fmt: skip


def dying_in(folder):
    """What a worker does, and its process is killed in the middle of the first training in `folder`, once."""
    died = folder.parent / "died"

    def dies(job, source, cores):  # a function of no module, so that it is sent as it is
        from papertrial.study.engine import _work

        if job.folder == folder and not died.exists():
            from torch.optim.optimizer import register_optimizer_step_post_hook

            updates = []

            def count(*_):
                updates.append(None)
                if len(updates) == 20:
                    died.touch()
                    os.kill(os.getpid(), signal.SIGKILL)

            register_optimizer_step_post_hook(count)
        return _work(job, source, cores)

    return dies, died


class Here:
    """What a comparison asks of Ray, without processes."""

    exceptions = SimpleNamespace(WorkerCrashedError=OSError, RaySystemError=OSError, OutOfMemoryError=MemoryError)

    def put(self, value):
        return value

    def cluster_resources(self):
        return {"CPU": 2.0}

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": 2.0}}]

    def remote(self, **options):
        return lambda work: SimpleNamespace(remote=lambda *arguments: lambda: work(*arguments))

    def get(self, waiting):
        return waiting()


def plain(result):
    """What a comparison found, less what depends on the clock and the place."""
    rows = [dataclasses.replace(row, seconds=None, peak_bytes=None, kwh=None) for row in result.rows]
    return dataclasses.replace(result, rows=tuple(rows), folder="", plan="")


@pytest.mark.parametrize(
    ("cluster", "folds"), [("stand-in", "none"), ("stand-in", 2), pytest.param("ray", 2, marks=pytest.mark.slow)]
)
def test_ray_gives_the_table_of_the_local_engine_when_a_worker_is_killed(cluster, folds, tmp_path, monkeypatch):
    """The stand-in has no workers to kill; what the engine sends and takes back is the same."""
    said = []
    dies, died = dying_in(tmp_path / "ray" / "rtdl-mlp" / ("seed0" if folds == "none" else "seed0-fold1"))
    asked = {**ASKED, "folds": folds}
    if cluster == "ray":
        monkeypatch.setattr(engine, "_work", dies)
    else:
        monkeypatch.setattr(engine, "_connected", lambda address: contextlib.nullcontext(Here()))
    spread = compare(
        ["rtdl:mlp"], "wine", out=tmp_path / "ray", engine="ray", address="local", echo=said.append, **asked
    )
    assert died.exists() == (cluster == "ray")
    here = compare(["rtdl:mlp"], "wine", out=tmp_path / "here", echo=None, **asked)
    assert plain(spread) == plain(here)
    assert any(row.worth is not None for row in spread.rows)  # the runs on fewer labels were spread too
    folders = sorted(file.parent.relative_to(tmp_path / "here") for file in (tmp_path / "here").rglob("result.json"))
    assert len(folders) == (3 * 2 if folds == "none" else 3 * 2 * 2) + 2 * 2
    for folder in folders:
        scores = [np.load(tmp_path / place / folder / "per_example.npy") for place in ("here", "ray")]
        assert np.array_equal(*scores), folder
    assert said[0].startswith("plan: ") and "runs at once" in said[0]


def test_errors_of_a_worker_are_those_of_the_run(tmp_path, monkeypatch):
    """Without a cluster: what a worker does, in this process."""
    from papertrial.core.budget import Budget
    from papertrial.data import open as open_data
    from papertrial.study.engine import Job, _Source, _work

    wine = open_data("wine")
    job = Job("rtdl:mlp", tmp_path / "run", Request(recipe="tiny", settings={"lr": "fast"}, budget=Budget(steps=3)))
    name, problem, fix = _work(job, _Source("wine", Request(), wine.fingerprint, "tabular"), 1)
    assert name == "PapertrialError" and "lr" in problem and fix
    name, problem, _ = _work(job, _Source("iris", Request(), wine.fingerprint, "tabular"), 1)
    assert name == "DataError" and "iris is other data" in problem


@pytest.mark.parametrize(
    ("name", "address", "words"),
    [("rya", None, "did you mean 'ray'"), ("local", "auto", "add --engine ray")],
)
def test_engines_that_cannot_be_used(name, address, words):
    with (
        pytest.raises(PapertrialError, match=words),
        started(name, "wine", Request(), "", "tabular", progress=False, address=address, cores=1),
    ):
        pass


def test_a_missing_ray_is_one_line(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with (
        pytest.raises(PapertrialError, match=r"papertrial\[cluster\]"),
        started("ray", "wine", Request(), "", "tabular", progress=False, address=None, cores=1),
    ):
        pass


def test_a_cluster_that_is_not_there_is_one_line(monkeypatch):
    import ray

    def init(**options):
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(ray, "init", init)
    with (
        pytest.raises(PapertrialError, match=r"no Ray cluster answers at auto .*ray start --head"),
        started("ray", "wine", Request(), "", "tabular", progress=False, address="auto", cores=1),
    ):
        pass
