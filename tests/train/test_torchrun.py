"""Several processes give what one gives, end together with one line, and go on where others stopped."""

import contextlib
import io
import json
import shutil
import subprocess
import sys

import pytest
import ranks
import torch
from safetensors.torch import load_file
from test_train_resume import same
from together import together

from papertrial.app import cli
from papertrial.core.errors import PapertrialError
from papertrial.core.run import Run
from papertrial.train import processes

#: a command that two processes run: forked by the tests, or started by torchrun itself, each with its seconds of imports
LAUNCHERS = pytest.mark.parametrize("launcher", ["forked", pytest.param("torchrun", marks=pytest.mark.slow)])


def launched(launcher, folder, words, dies_at=0):
    """Exit codes other than 0, as text, what papertrial had to say, and both streams, of two processes that run `papertrial WORDS`."""
    if launcher == "forked":
        said = folder / "said"
        codes = together(ranks.command, words, dies_at, said=said)
        out, errors = said.with_suffix(".out").read_text(), said.read_text()
        codes = {str(code) for code in codes if code}
    else:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", ranks.__file__]
        run = subprocess.run([*command, str(dies_at), *words], capture_output=True, text=True)
        out, errors = run.stdout, run.stderr
        codes = {line.split(":")[1].split()[0] for line in errors.splitlines() if line.strip().startswith("exitcode")}
        assert run.returncode == bool(codes), errors
    return codes, [line for line in errors.splitlines() if line.startswith("papertrial: ")], out, errors


FOUR = pytest.param(4, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """count -> the folder in which so many processes have trained everything, after one has left a training half way."""
    folder = tmp_path_factory.mktemp("ranks")
    ranks.stop_half_way(folder / "1" / "half")

    def by(count):
        if not (folder / str(count)).exists():
            said = folder / f"said-{count}"
            assert together(ranks.program, folder, said=said, count=count) == [0] * count, said.read_text()
        return folder

    return by


def close(ours, theirs):
    """Equal to 1e-9 of each tensor's largest value (1e-11 for those that should be zero), whole numbers exactly."""
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        room = 1e-9 * max(float(tensor.abs().max()), 1e-2) if tensor.is_floating_point() else 0
        torch.testing.assert_close(theirs[name], tensor, rtol=0, atol=room)


@pytest.mark.parametrize("count", [2, FOUR])
@pytest.mark.parametrize("name", ranks.TRAININGS)
def test_any_number_of_processes_trains_the_same_weights(name, count, trained, tmp_path, monkeypatch):
    """Also with unequal shares of the batch, batch norm, micro-batches, LARS, an average of the weights, and split weights."""
    method, optim, _ = ranks.TRAININGS[name]
    monkeypatch.setitem(ranks.TRAININGS, name, (method, optim, False))
    alone, folder = ranks.weights(ranks.start(name, tmp_path)), trained(count) / str(count)
    close(alone, load_file(folder / f"{name}.safetensors"))
    for ours, theirs in zip(Run(tmp_path).history(), Run(folder / name).history(), strict=True):
        for key in ("loss", "gradient_norm", *(("invariance", "redundancy") if "barlow" in name else ())):
            assert ours[key] == pytest.approx(theirs[key], rel=1e-9), key


@pytest.mark.parametrize(
    ("before", "after"), [(1, 2), (2, 1), *(pytest.param(*pair, marks=pytest.mark.slow) for pair in ((4, 2), (1, 4)))]
)
def test_a_stopped_run_goes_on_with_more_or_fewer_processes(before, after, trained):
    whole = load_file(trained(2) / "2" / f"{ranks.HALF}.safetensors")
    half = trained(before if before > 1 else 2) / str(before) / "half"
    close(whole, goes_on(half, after, half.parent / f"then-{after}"))


@pytest.mark.parametrize("count", [2, FOUR])
def test_the_same_number_of_processes_resumes_bit_for_bit(count, trained):
    own = trained(count) / str(count)
    same(load_file(own / f"{ranks.HALF}.safetensors"), goes_on(own / "half", count, own / f"then-{count}"))


def goes_on(half, count, folder):
    """The weights that so many processes end with who go on where the training in `half` was stopped."""
    shutil.copytree(half, folder)
    if count == 1:
        return ranks.weights(ranks.start(ranks.HALF, folder))
    said = folder / "said"
    assert together(ranks.go_on, folder, said=said, count=count) == [0] * count, said.read_text()
    return load_file(folder / "end.safetensors")


@LAUNCHERS
def test_a_killed_process_ends_the_run_and_one_process_finishes_it(launcher, tmp_path, monkeypatch):
    out = tmp_path / "run"
    command = ["fit", "mlp_mixer", "--data", "digits", "--recipe", "tiny", "--budget", "12steps", "--quiet"]
    command += ["--set", "optimizer=sgd", "--out", str(out)]
    codes, lines, _, errors = launched(launcher, tmp_path, command, dies_at=5)
    assert lines == [f"papertrial: {processes.ENDED}"], errors
    assert "-9" in codes
    assert not Run(out).done and (out / "checkpoint.safetensors").exists()
    before = Run(out).history()
    printed = io.StringIO()
    monkeypatch.setattr(sys, "argv", ["papertrial", *command, "--json"])
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code and json.loads(printed.getvalue())["cost"]["steps"] == 12
    steps = [row["step"] for row in Run(out).history()]
    assert Run(out).done and steps == sorted(set(steps)) and steps[: len(before)] == [row["step"] for row in before]


@LAUNCHERS
def test_an_error_is_said_once_with_its_exit_code(launcher, tmp_path):
    command = [
        "fit",
        "rtdl",
        "--data",
        "wine",
        "--recipe",
        "tiny",
        "--set",
        "lr=1000",
        "--set",
        "optimizer=sgd",
        "--set",
        "clip=0",
        "--quiet",
    ]
    codes, (line,), _, errors = launched(launcher, tmp_path, [*command, "--out", str(tmp_path / "run")])
    assert codes <= {"3", "-15"} and "3" in codes
    assert "not finite" in line and "lr" in line
    assert "Traceback" not in errors.partition("ChildFailedError")[0].partition(line)[0]


@LAUNCHERS
def test_what_is_not_trained_by_steps_is_fitted_once(launcher, tmp_path):
    command = ["fit", "linear", "--data", "wine", "--json", "--out", str(tmp_path / "run")]
    codes, lines, out, errors = launched(launcher, tmp_path, command)
    assert (codes, lines) == (set(), []), errors
    assert json.loads(out)["metrics"]["accuracy"] > 0.8
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["processes"] == 2


def test_one_process_has_nothing_to_split(tmp_path):
    with pytest.raises(PapertrialError, match="there is one process"):
        ranks.start("mlp_mixer-split", tmp_path)
