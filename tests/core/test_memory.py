"""Memory that cannot be had is named as what it is: one line, what to type, exit code 2."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from papertrial.core import memory
from papertrial.core.doors import Damaged
from papertrial.core.errors import DataError, Declined, PapertrialError, TrainingStopped, told_elsewhere
from papertrial.core.memory import OutOfMemory, naming, ran_out, require, within_the_machine
from papertrial.core.task import Split
from papertrial.nn.batches import forward_batches
from papertrial.nn.cache import Cache
from papertrial.nn.decode import remembering


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


def test_an_error_of_ours_whose_cause_is_memory_is_told_as_that(papertrial, monkeypatch):
    """An exporter that cannot trace a model for want of memory is no reason to type something else."""

    def hidden(*rest, **more):
        try:
            torch_wants()
        except RuntimeError as error:
            raise PapertrialError("torch.export cannot trace this model", "eject it") from error

    with pytest.raises(OutOfMemory), naming("export", "type less"):
        hidden()
    monkeypatch.setattr("papertrial.use.artifact.Artifact.load", hidden)
    code, _, err = papertrial("export", "runs/x", "--to", "torch")
    assert code == 2 and err.startswith("papertrial: out of memory: 4000000 GB more were asked for; name fewer rows")


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


def test_a_network_that_is_trained_and_then_not_judged_for_want_of_memory_is_judged_later(
    papertrial, monkeypatch, tmp_path
):
    words = ["fit", "rtdl:mlp", "--data", "wine", "--recipe", "tiny", "--budget", "9steps", "--quiet", "--out", "run"]
    with monkeypatch.context() as patched:
        patched.setattr("papertrial.use.fit._judge", lambda *rest, **more: numpy_wants())
        code, _, err = papertrial(*words)
    assert code == 2 and err.startswith("papertrial: rtdl:mlp ran out of memory: 8005148 GB more were asked for; ")
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()

    def trained_again(*rest, **more):
        raise AssertionError

    monkeypatch.setattr("papertrial.train.updates.Updates.take", trained_again)
    assert papertrial(*words)[0] == 0
    assert (tmp_path / "run" / "result.json").exists()


@pytest.mark.parametrize(
    "error", [OutOfMemory("a", "b"), Declined("a", "b"), DataError("a", "b"), Damaged("file", "why", "b")]
)
def test_errors_of_other_processes_keep_what_they_are(error):
    """A comparison goes on where a run on another machine ran out of memory."""
    found = told_elsewhere(type(error).__name__, error.problem, error.fix)
    assert type(found) is type(error) and str(found) == str(error) and found.exit_code == error.exit_code
    assert type(told_elsewhere("Unheard", "a", "b")) is PapertrialError


# ------------------------------------------------------------------------------------------------ asked before it is taken


@pytest.fixture
def little(monkeypatch):
    """A machine with 1 GB that is free."""
    monkeypatch.setattr(memory, "free_memory", lambda device="cpu": 10**9)


def test_what_does_not_fit_is_refused_with_both_figures(little):
    require(10**9, "an index", "take less")
    with pytest.raises(
        OutOfMemory, match=r"^an index would take about 2.5 GB of memory, and 1 GB are free; take less$"
    ):
        require(2.5e9, "an index", "take less")


def test_answers_for_more_rows_than_memory_holds_are_refused_after_the_first(little):
    asked = []

    def wide(x):
        asked.append(len(x))
        return x.new_zeros(1).expand(len(x), 10**4)

    with pytest.raises(OutOfMemory, match=r"answers for 100,000 rows would take about 8 GB of memory"):
        forward_batches(wide, Split({"x": np.zeros((100_000, 1), np.float32)}), ("x",), 8)
    assert asked == [8]


def test_a_memory_of_tokens_that_does_not_fit_is_refused(little):
    class Writer:
        def cache(self, rows, longest):
            return Cache(12, rows, longest, 12, 64, torch.float32, "cpu")

    with pytest.raises(OutOfMemory, match=r"12 layers remember of 64 texts of 4,096 tokens .* --length"):
        remembering(Writer(), 64, 4096)
    assert remembering(Writer(), 2, 3).keys.shape == (12, 2, 12, 3, 64)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit is Linux's")
def test_more_than_the_machine_has_is_refused_at_once_and_only_by_commands(monkeypatch):
    import resource

    monkeypatch.setattr(memory, "_GPU", Path("/nowhere"))
    monkeypatch.setattr(memory, "_CGROUPS", Path("/nowhere"))
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with within_the_machine():
        most = resource.getrlimit(resource.RLIMIT_DATA)[0]
        assert memory.machine_memory() <= most < 2**62
        with pytest.raises(MemoryError):
            [np.empty(most // 3, np.uint8) for _ in range(4)]  # untouched, which Linux would promise
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
