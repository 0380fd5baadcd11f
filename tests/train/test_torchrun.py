"""Several processes give what one gives, end together with one line, and go on where others stopped."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ranks
import torch
from safetensors.torch import load_file
from test_train_resume import same

from papertrial.app import cli
from papertrial.core.errors import PapertrialError
from papertrial.core.run import Run
from papertrial.train import processes

PROGRAM = Path(__file__).with_name("ranks.py")


def torchrun(count, *program):
    """A started command; `-m papertrial ...` or a file."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", *program]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def said(errors):
    """What papertrial itself had to say, and the exit codes that torchrun lists."""
    lines = errors.splitlines()
    codes = {line.split(":")[1].split()[0] for line in lines if line.strip().startswith("exitcode")}
    return [line for line in lines if line.startswith("papertrial: ")], codes


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder in which one, then four, then two processes have trained everything."""
    folder = tmp_path_factory.mktemp("ranks")
    ranks.stop_half_way(folder / "1" / "half")
    for count in (4, 2):
        _, errors = (run := torchrun(count, str(PROGRAM), str(folder))).communicate(timeout=300)
        assert run.returncode == 0, errors
    return folder


def close(ours, theirs):
    """Equal to 1e-9 of each tensor's largest value (1e-11 for those that should be zero), whole numbers exactly."""
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        room = 1e-9 * max(float(tensor.abs().max()), 1e-2) if tensor.is_floating_point() else 0
        torch.testing.assert_close(theirs[name], tensor, rtol=0, atol=room)


@pytest.mark.parametrize("name", ranks.TRAININGS)
def test_any_number_of_processes_trains_the_same_weights(name, trained, tmp_path, monkeypatch):
    """Also with unequal shares of the batch, batch norm, micro-batches, LARS, an average of the weights, and split weights."""
    method, optim, _ = ranks.TRAININGS[name]
    monkeypatch.setitem(ranks.TRAININGS, name, (method, optim, False))
    alone = ranks.weights(ranks.start(name, tmp_path))
    for count in (2, 4):
        close(alone, load_file(trained / str(count) / f"{name}.safetensors"))
        logged = Run(trained / str(count) / name).history()
        for ours, theirs in zip(Run(tmp_path).history(), logged, strict=True):
            for key in ("loss", "gradient_norm", *(("invariance", "redundancy") if "barlow" in name else ())):
                assert ours[key] == pytest.approx(theirs[key], rel=1e-9), key


@pytest.mark.parametrize(("before", "after"), [(1, 2), (4, 2), (1, 4), (2, 1)])
def test_a_stopped_run_goes_on_with_more_or_fewer_processes(before, after, trained):
    if after == 1:
        resumed = ranks.weights(ranks.start(ranks.HALF, trained / str(before) / "half"))
    else:
        resumed = load_file(trained / str(after) / f"from-{before}.safetensors")
    close(load_file(trained / "2" / f"{ranks.HALF}.safetensors"), resumed)


@pytest.mark.parametrize("count", [2, 4])
def test_the_same_number_of_processes_resumes_bit_for_bit(count, trained):
    same(*(load_file(trained / str(count) / f"{name}.safetensors") for name in (ranks.HALF, f"from-{count}")))


def rank_of(pid):
    """(parent, rank) of a process; (0, "") for one that is gone."""
    with contextlib.suppress(OSError):
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        variables = Path(f"/proc/{pid}/environ").read_text().split("\0")
        return parent, next((entry[5:] for entry in variables if entry.startswith("RANK=")), "")
    return 0, ""


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the process to kill in /proc")
def test_a_killed_process_ends_the_run_and_one_process_finishes_it(tmp_path, monkeypatch):
    out = tmp_path / "run"
    command = ["fit", "mlp_mixer", "--data", "digits", "--recipe", "tiny", "--budget", "600steps", "--quiet"]
    command += ["--set", "optimizer=sgd", "--out", str(out)]
    run = torchrun(2, "-m", "papertrial", *command)
    deadline = time.monotonic() + 120
    while len(Run(out).history()) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    folders = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    (victim,) = [pid for pid in folders if rank_of(pid) == (run.pid, "1")]
    os.kill(victim, signal.SIGKILL)
    _, errors = run.communicate(timeout=180)
    lines, codes = said(errors)
    assert lines == [f"papertrial: {processes.ENDED}"], errors
    assert run.returncode == 1 and "-9" in codes
    assert not Run(out).done and (out / "checkpoint.safetensors").exists()
    before = Run(out).history()
    printed = io.StringIO()
    monkeypatch.setattr(sys, "argv", ["papertrial", *command, "--json"])
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code and json.loads(printed.getvalue())["cost"]["steps"] == 600
    steps = [row["step"] for row in Run(out).history()]
    assert Run(out).done and steps == sorted(set(steps)) and steps[: len(before)] == [row["step"] for row in before]


def test_an_error_is_said_once_with_its_exit_code(tmp_path):
    command = ["fit", "rtdl", "--data", "wine", "--recipe", "tiny", "--set", "lr=1e30", "--set", "clip=0", "--quiet"]
    _, errors = (run := torchrun(2, "-m", "papertrial", *command, "--out", str(tmp_path / "run"))).communicate(
        timeout=180
    )
    (line,), codes = said(errors)
    assert run.returncode == 1 and codes <= {"3", "-15"} and "3" in codes
    assert "not finite" in line and "lr" in line
    assert "Traceback" not in errors.partition("ChildFailedError")[0].partition(line)[0]


def test_what_is_not_trained_by_steps_is_fitted_once(tmp_path):
    command = ["fit", "linear", "--data", "wine", "--json", "--out", str(tmp_path / "run")]
    out, errors = (run := torchrun(2, "-m", "papertrial", *command)).communicate(timeout=180)
    assert run.returncode == 0, errors
    assert json.loads(out)["metrics"]["accuracy"] > 0.8
    assert said(errors) == ([], set())
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["processes"] == 2


def test_one_process_has_nothing_to_split(tmp_path):
    with pytest.raises(PapertrialError, match="there is one process"):
        ranks.start("mlp_mixer-split", tmp_path)
