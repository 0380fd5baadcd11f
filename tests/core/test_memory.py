"""Memory that cannot be had is named as what it is: one line, what to type, exit code 2."""

from __future__ import annotations

import errno

import numpy as np
import pytest
import torch

from papertrial.core.errors import DataError, TrainingStopped
from papertrial.core.memory import OutOfMemory, naming, ran_out


def numpy_wants():
    np.empty(10**15)


def torch_wants():
    torch.empty(10**15)


def python_wants():
    return bytes(10**17)


def cuda_wants():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has 1.10 GiB free.")


def boosters_want():
    raise RuntimeError("[12:00:00] std::bad_alloc")


def system_wants():
    raise OSError(errno.ENOMEM, "Cannot allocate memory")


def wrapped():
    try:
        numpy_wants()
    except MemoryError as error:
        raise ValueError("the array could not be made") from error


WANTS = {
    numpy_wants: "8005148 GB more were asked for",
    torch_wants: "4000000 GB more were asked for",
    python_wants: "",
    cuda_wants: "2.68 GB more were asked for",
    boosters_want: "",
    system_wants: "",
    wrapped: "8005148 GB more were asked for",
}


@pytest.mark.parametrize("want", WANTS, ids=lambda want: want.__name__)
def test_all_that_may_run_out_of_memory(want):
    with pytest.raises(BaseException) as caught:
        want()
    assert ran_out(caught.value) == WANTS[want]
    with pytest.raises(OutOfMemory, match=r"^rtdl ran out of memory") as named, naming("rtdl", "type less"):
        want()
    assert named.value.fix == "type less" and named.value.exit_code == 2
    assert isinstance(named.value, TrainingStopped)  # a comparison goes on without it


@pytest.mark.parametrize(
    "error", [ValueError("a bad allocator of blame"), DataError("out of memory lane"), KeyError(3)]
)
def test_other_errors_stay_what_they_are(error):
    assert ran_out(error) is None
    with pytest.raises(type(error)), naming("rtdl", "type less"):
        raise error


@pytest.mark.parametrize(
    ("words", "place", "fix"),
    [
        (("fit", "linear", "--data", "iris"), "papertrial.data.open", "needs less; so do fewer rows"),
        (("look", "iris"), "papertrial.data.open", "a part of the data"),
        (("predict", "runs/x", "iris"), "papertrial.use.artifact.Artifact.load", "a part of the rows at a time"),
        (("generate", "runs/x"), "papertrial.use.artifact.Artifact.load", "--samples"),
    ],
)
def test_a_command_ends_in_one_line(words, place, fix, papertrial, monkeypatch):
    monkeypatch.setattr(place, lambda *rest, **more: torch_wants())
    code, _, err = papertrial(*words)
    assert code == 2 and err.startswith("papertrial: out of memory: 4000000 GB more were asked for; ") and fix in err
    assert err.count("\n") == 1 and "defect" not in err


def test_a_method_that_runs_out_is_named_and_leaves_nothing_half_written(papertrial, monkeypatch, tmp_path):
    monkeypatch.setattr("papertrial.baselines.linear.Linear.fit", lambda *rest, **more: numpy_wants())
    code, _, err = papertrial("fit", "linear", "--data", "iris", "--out", tmp_path / "run")
    assert code == 2
    assert err == "papertrial: linear ran out of memory: 8005148 GB more were asked for; give it fewer rows\n"
    assert not (tmp_path / "run" / "card.json").exists()
