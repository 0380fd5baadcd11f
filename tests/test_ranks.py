"""The processes that `testing.in_ranks` starts stay for the next work, and one that fails says so."""

from __future__ import annotations

import os
import signal

import pytest
import torch

from papertrial.testing import in_ranks


def _leave_number(rank, folder):
    total = torch.tensor([rank + 1.0])
    torch.distributed.all_reduce(total)
    (folder / str(rank)).write_text(f"{os.getpid()} {total.item():g}")


def _fail(rank, how):
    if rank == 1:
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise SystemExit(3) if how == "ended" else ValueError("a thing of rank 1")
    torch.distributed.barrier()  # in which the other is never met


def _numbers(folder):
    folder.mkdir()
    in_ranks(_leave_number, folder)()
    said = [(folder / str(rank)).read_text().split() for rank in (0, 1)]
    assert [total for _, total in said] == ["3", "3"]
    return [pid for pid, _ in said]


@pytest.mark.parametrize(
    ("how", "words"),
    [("raised", "ValueError: a thing of rank 1"), ("ended", "SystemExit: 3"), ("killed", "process 1 ended .*-9")],
)
def test_they_stay_until_one_fails(how, words, tmp_path):
    first = _numbers(tmp_path / "first")
    assert _numbers(tmp_path / "second") == first
    with pytest.raises(AssertionError, match=f"a rank failed: (.|\n)*{words}"):
        in_ranks(_fail, how)()
    assert not set(_numbers(tmp_path / "third")) & set(first)


def test_work_that_begins_before_other_work_has_ended_has_ranks_of_its_own(tmp_path):
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    for wait in [in_ranks(_leave_number, folder) for folder in folders]:
        wait()
    one, other = ({file.read_text().split()[0] for file in folder.iterdir()} for folder in folders)
    assert len(one | other) == 4
