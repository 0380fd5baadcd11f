from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from papertrial.core.errors import PapertrialError
from papertrial.core.ours import MARKER
from papertrial.core.run import Run


def test_the_same_run_goes_on_and_another_is_refused(tmp_path):
    run = Run(tmp_path / "a")
    with run.locked():
        assert run.begin({"lr": 0.1, "sizes": (1, 2)}) is False
        assert run.begin({"lr": 0.1, "sizes": (1, 2)}) is True
        with pytest.raises(PapertrialError, match="differs in lr"):
            run.begin({"lr": 0.2, "sizes": (1, 2)})


def test_one_process_at_a_time_and_the_lock_dies_with_it(tmp_path):
    code = (
        "import sys, time\nfrom papertrial.core.run import Run\n"
        "with Run(sys.argv[1]).locked():\n    print('held', flush=True)\n    time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "a")], stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(PapertrialError, match="another process is using"), Run(tmp_path / "a").locked():
            raise AssertionError("two own it")
        holder.kill()
    refused = pytest.raises(PapertrialError, match="another process is using")
    with Run(tmp_path / "a").locked(), refused, Run(tmp_path / "a").locked():
        raise AssertionError("two own it")
    with Run(tmp_path / "a").locked():  # what was locked goes away with its folder
        shutil.rmtree(tmp_path / "a")
    with Run(tmp_path / "a").locked():
        assert (tmp_path / "a").is_dir()


def test_a_place_without_room_for_a_lock_is_told(tmp_path):
    (tmp_path / ".lock").mkdir()
    with pytest.raises(PapertrialError, match="is not papertrial's"), Run(tmp_path).locked():
        raise AssertionError("it was locked")


def test_other_peoples_files_are_neither_used_nor_removed(tmp_path):
    (tmp_path / "letter.txt").write_text("keep")
    run = Run(tmp_path)
    refused = pytest.raises(PapertrialError, match=r"not empty and not a run \(it holds letter\.txt\)")
    with refused, run.locked():
        raise AssertionError("it was locked")
    for call in (lambda: run.begin({}), run.clear):
        with pytest.raises(PapertrialError, match=r"letter\.txt"):
            call()
    assert os.listdir(tmp_path) == ["letter.txt"]


def test_clear_starts_over(tmp_path):
    run = Run(tmp_path / "a")
    with run.locked():
        run.begin({"lr": 0.1})
        run.log(1, loss=2.0)
        run.clear()
        assert run.begin({"lr": 0.2}) is False
        assert run.history() == []


def test_the_log_is_cut_back_and_a_torn_line_is_left_out(tmp_path):
    run = Run(tmp_path)
    for step in range(5):
        run.log(step, loss=float(step))
    with open(run.path("metrics.jsonl"), "a") as stream:
        stream.write('{"step": 5, "lo')
    assert [row["step"] for row in run.history()] == [0, 1, 2, 3, 4]
    run.rewind(2)
    assert [row["step"] for row in run.history()] == [0, 1, 2]


class Killed(BaseException):
    pass


def interrupt(monkeypatch, owner, name, at):
    """The call number `at` of `owner.name` never happens."""
    real, calls = getattr(owner, name), itertools.count(1)

    def call(*arguments, **more):
        if next(calls) == at:
            raise Killed
        return real(*arguments, **more)

    monkeypatch.setattr(owner, name, call)


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_run_that_is_killed_while_it_begins_begins_again(at, tmp_path, monkeypatch):
    run = Run(tmp_path / "a")
    with monkeypatch.context() as patched:
        interrupt(patched, os, "replace", at)
        with pytest.raises(Killed):
            run.begin({"lr": 0.1})
    half = tmp_path / "a" / ".config.json.abcd1234.tmp"
    half.mkdir()
    (half / "config.json").write_text("what a kill leaves half-written")
    (tmp_path / "a" / ".metrics.jsonl.abcd1234.tmp").write_text("and an earlier version")
    (tmp_path / "a" / ".mine.txt.abcd1234.tmp").write_text("not of the run")
    assert run.begin({"lr": 0.1}) is (at == 3)
    assert sorted(os.listdir(tmp_path / "a")) == [".mine.txt.abcd1234.tmp", MARKER, "config.json", "environment.json"]


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_run_that_is_killed_while_it_is_cleared_is_cleared_again(at, tmp_path, monkeypatch):
    run = Run(tmp_path / "a")
    run.begin({"lr": 0.1})
    run.log(1, loss=2.0)
    with monkeypatch.context() as patched:
        interrupt(patched, Path, "unlink", at)
        with pytest.raises(Killed):
            run.clear()
    run.clear()
    assert os.listdir(tmp_path / "a") == [MARKER]


def test_a_run_that_is_killed_right_after_its_result_forgets_the_way_later(tmp_path, monkeypatch):
    run = Run(tmp_path / "a")
    run.begin({"lr": 0.1})
    (tmp_path / "a" / "checkpoint.safetensors").write_text("the last good state")
    with monkeypatch.context() as patched:
        interrupt(patched, Path, "unlink", 1)
        with pytest.raises(Killed):
            run.finish({"accuracy": 1.0})
    assert run.done and run.path("checkpoint.safetensors").exists()
    assert run.begin({"lr": 0.1})
    assert sorted(os.listdir(tmp_path / "a")) == [MARKER, "config.json", "environment.json", "result.json"]


def test_a_run_that_goes_on_elsewhere_says_what_is_other(tmp_path, monkeypatch):
    here = {"date": "2021-03-01T10:00:00+00:00", "cpu": "A", "threads": 1, "gpus": [], "versions": {"torch": "2.9", "pandas": "2"}}  # fmt: skip
    monkeypatch.setattr("papertrial.core.run.environment", lambda: dict(here))
    run = Run(tmp_path / "a")
    run.begin({"lr": 0.1})
    here |= {"threads": 4}
    run.begin({"lr": 0.1})
    assert run.moved == "" and run.sittings == []  # nothing was there to go on from
    (tmp_path / "a" / "checkpoint.safetensors").write_text("the last good state")
    Run(tmp_path / "a").begin({"lr": 0.1})
    here |= {"threads": 2, "versions": {"torch": "2.10", "lightgbm": "4"}, "date": "2021-04-05T10:00:00+00:00"}
    run.begin({"lr": 0.1})
    told = "with other threads (4, now 2), torch (2.9, now 2.10): the last digits may differ"
    assert run.moved.startswith(told)
    again = Run(tmp_path / "a")
    again.begin({"lr": 0.1})  # as the last time
    assert again.moved == ""
    assert [line.startswith(f"on 2021-04-05 it went on {told}") for line in again.sittings] == [True]
    run.finish({})
    held = (tmp_path / "a" / "environment.json").read_text()
    here |= {"cpu": "B"}
    Run(tmp_path / "a").begin({"lr": 0.1})
    assert (tmp_path / "a" / "environment.json").read_text() == held


def test_a_damaged_record_of_where_it_ran_does_not_stop_a_run(tmp_path):
    run = Run(tmp_path / "a")
    run.begin({"lr": 0.1})
    (tmp_path / "a" / "checkpoint.safetensors").write_text("the last good state")
    (tmp_path / "a" / "environment.json").write_text("[]")
    assert run.begin({"lr": 0.1}) and run.sittings == []
