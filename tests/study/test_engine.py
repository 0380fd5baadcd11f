"""A comparison spread over a Ray cluster gives the table of the local engine, also when a worker is killed."""

from __future__ import annotations

import dataclasses
import importlib.util

import numpy as np
import psutil
import pytest

from papertrial.core.errors import PapertrialError
from papertrial.study import engine
from papertrial.study.compare import compare
from papertrial.study.engine import started

ASKED = {
    "budget": "60steps", "baselines": ["linear", "majority"], "recipe": "tiny", "seeds": 2, "progress": False,
}  # fmt: skip


def killed_once(folder, marker):
    """What a worker does, but that the first one of the run in `folder` kills itself at its twentieth step."""

    def work(job, source, cores):  # travels to the worker as it stands here
        import os
        import signal

        from papertrial.study import engine
        from papertrial.train.updates import Updates

        if job.folder == folder and not marker.exists():
            marker.write_text(str(os.getpid()))
            take = Updates.take

            def dying(self, step, total):
                if step == 20:
                    os.kill(os.getpid(), signal.SIGKILL)
                return take(self, step, total)

            Updates.take = dying
        return engine._work(job, source, cores)

    return work


def plain(result):
    """What a comparison found, less what depends on the clock and the place."""
    rows = [dataclasses.replace(row, seconds=None, peak_bytes=None, kwh=None) for row in result.rows]
    return dataclasses.replace(result, rows=tuple(rows), folder="", plan="")


def test_ray_gives_the_table_of_the_local_engine_when_a_worker_is_killed(tmp_path, monkeypatch):
    said = []
    marker = tmp_path / "killed"
    monkeypatch.setattr(engine, "_work", killed_once((tmp_path / "ray" / "rtdl-mlp" / "seed0").absolute(), marker))
    spread = compare(
        ["rtdl:mlp"], "wine", out=tmp_path / "ray", engine="ray", address="local", echo=said.append, **ASKED
    )
    assert not psutil.pid_exists(int(marker.read_text()))
    here = compare(["rtdl:mlp"], "wine", out=tmp_path / "here", echo=None, **ASKED)
    assert plain(spread) == plain(here)
    assert any(row.worth is not None for row in spread.rows)  # the runs on fewer labels were spread too
    folders = sorted(file.parent.relative_to(tmp_path / "here") for file in (tmp_path / "here").rglob("result.json"))
    assert len(folders) == 3 * 2 + 2 * 2
    for folder in folders:
        scores = [np.load(tmp_path / where / folder / "per_example.npy") for where in ("here", "ray")]
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
    ("name", "address", "words"),
    [("rya", None, "did you mean 'ray'"), ("local", "auto", "add --engine ray")],
)
def test_engines_that_cannot_be_used(name, address, words):
    with (
        pytest.raises(PapertrialError, match=words),
        started(name, "wine", None, "", "tabular", progress=False, address=address, cores=1),
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
