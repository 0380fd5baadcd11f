from __future__ import annotations

import subprocess
import sys

import pytest

from papertrial.core.errors import PapertrialError
from papertrial.core.run import Run


def test_the_same_run_goes_on_and_another_is_refused(tmp_path):
    run = Run(tmp_path / "a")
    with run.locked():
        assert run.begin({"lr": 0.1, "sizes": (1, 2)}) is False
        assert run.begin({"lr": 0.1, "sizes": (1, 2)}) is True
        with pytest.raises(PapertrialError, match="differs in lr"):
            run.begin({"lr": 0.2, "sizes": (1, 2)})


def test_other_peoples_files_are_neither_used_nor_removed(tmp_path):
    (tmp_path / "letter.txt").write_text("keep")
    run = Run(tmp_path)
    with run.locked():
        with pytest.raises(PapertrialError, match=r"letter\.txt"):
            run.begin({})
        with pytest.raises(PapertrialError, match="nothing in it is removed"):
            run.clear()
    assert (tmp_path / "letter.txt").read_text() == "keep"


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


def test_a_second_process_is_refused_and_the_lock_dies_with_its_owner(tmp_path):
    code = f"import sys\nfrom papertrial.core.run import Run\nwith Run({str(tmp_path)!r}).locked():\n    print('mine', flush=True)\n    sys.stdin.read()"
    owner = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert owner.stdout.readline().strip() == "mine"
    with pytest.raises(PapertrialError, match="another process"), Run(tmp_path).locked():
        pass
    owner.kill()
    owner.wait()
    owner.stdin.close()
    owner.stdout.close()
    with Run(tmp_path).locked():
        pass
