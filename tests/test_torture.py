"""Runs that are killed, disks that fill up, and two processes on one folder: the weights at the end are those of a run
that nothing happened to, bit for bit.

Commands run in processes of their own (see tortured.py). No moment is timed: a kill that comes too late does not count.
"""

import contextlib
import json
import os
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from papertrial.core.run import Run
from papertrial.train import checkpoint

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the processes are watched as Linux does")

PROGRAM = Path(__file__).with_name("tortured.py")
#: a table and images; validation and averages, views, probes, micro-batches, and a technique
RUNS = {
    "mlp": "rtdl:mlp --data wine --set patience=4 --set ema=0.9",
    "transformer": "rtdl --data wine --set optimizer=sgd --set lr=0.05 --set accumulate=2",
    "mixer": "mlp_mixer --data digits",
    "twins": "barlow_twins --data digits --backbone resnet --set backbone.width=8 --set backbone.depths=1,1",
    "nfnet": "nfnet --data digits",
}
#: of one folder: at any time, as soon as a file of this name is being written
KILLS = (None, "checkpoint.safetensors", None, "model.safetensors")


def words(name, folder):
    return ["fit", *RUNS[name].split(), "--recipe", "tiny", "--budget", "40steps", "--quiet", "--out", str(folder)]


def unfinished(folder):
    """Files that are being written, or were when their process ended."""
    return {name for name in os.listdir(folder) if name.endswith(".tmp")} if folder.exists() else set()


class Commands:
    """Runs commands, one at a time, in processes that start at once. before: words before those that start the server."""

    def __init__(self, folder, *before):
        self.said = folder / "said"
        self.server = subprocess.Popen(
            [*before, sys.executable, PROGRAM, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        self.run("list")  # the imports are over when this is

    def start(self, *command, **how):
        line = json.dumps({"words": command, "said": str(self.said), **how})
        self.server.stdin.write(line.encode() + b"\n")
        self.pid = int(self.server.stdout.readline())

    def ended(self):
        return bool(select.select([self.server.stdout], [], [], 0.0002)[0])

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)

    def halted(self):
        """Wait until the process has halted itself."""
        while Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            assert not self.ended()

    def go_on(self):
        os.kill(self.pid, signal.SIGCONT)

    def wait(self):
        """Exit code, and the lines on the error stream."""
        return int(self.server.stdout.readline()), self.said.read_text().splitlines()

    def run(self, *command, **how):
        self.start(*command, **how)
        return self.wait()

    def close(self):
        self.server.communicate(timeout=60)


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    with contextlib.closing(Commands(tmp_path_factory.mktemp("torture"))) as found:
        yield found


@pytest.fixture(scope="module")
def whole(commands, tmp_path_factory):
    """name -> the folder of a run that nothing happened to, with few checkpoints, and the seconds it took."""
    done = {}

    def get(name):
        if name not in done:
            folder, begun = tmp_path_factory.mktemp("whole") / name, time.monotonic()
            assert commands.run(*words(name, folder), every_step=False) == (0, [])
            done[name] = folder, time.monotonic() - begun
        return done[name]

    return get


def assert_same(folder, whole):
    """Weights, scores and log are those of the other run, and nothing is left behind."""
    assert (folder / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert (folder / "per_example.npy").read_bytes() == (whole / "per_example.npy").read_bytes()
    timed = {"examples_per_second", "seconds", "waiting_for_data"}
    logs = [[{key: row[key] for key in row.keys() - timed} for row in Run(at).history()] for at in (folder, whole)]
    assert logs[0] == logs[1]
    assert {path.name for path in folder.iterdir()} == {path.name for path in whole.iterdir()}


@pytest.mark.parametrize("where", ["save_file", "fsync", "replace"])
def test_a_run_killed_at_a_checkpoint_ends_as_one_that_was_not(where, commands, whole, tmp_path):
    """Before it is written, when it is written but not safe on the disk, and when it has not got its name."""
    folder = tmp_path / "run"
    commands.start(*words("mixer", folder), at=(where, 12, "halt"))
    commands.halted()
    commands.kill()
    assert commands.wait() == (-signal.SIGKILL, [])
    assert (folder / "checkpoint.safetensors").exists() and not (folder / "result.json").exists()
    assert commands.run(*words("mixer", folder)) == (0, [])
    assert_same(folder, whole("mixer")[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_told_to_end_writes_a_checkpoint_first(number, commands, whole, tmp_path):
    """None was due for half a minute."""
    folder = tmp_path / "run"
    commands.start(*words("mixer", folder), at=("log", 3, "halt"), every_step=False)
    commands.halted()
    _, before = checkpoint.load(folder / "checkpoint.safetensors")
    os.kill(commands.pid, number)
    commands.go_on()
    said = f"papertrial: stopped by {number.name}; the same command goes on from there"
    assert commands.wait() == (128 + number, [said])
    _, after = checkpoint.load(folder / "checkpoint.safetensors")
    assert before["step"] == 0 < after["step"] < 40
    assert commands.run(*words("mixer", folder)) == (0, [])
    assert_same(folder, whole("mixer")[0])


#: commands, where they are halted, and whether to let them go on later
OTHERS = {
    "compare": (
        "compare rtdl:mlp --data wine --recipe tiny --budget 20steps --seeds 1 --quiet --out OUT",
        "log",
        False,
    ),
    "index": ("index DOCUMENTS --out OUT", "replace", True),
    "check": ("check rtdl --kind identity --scale tiny --seeds 1 --evidence OUT", "replace", True),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_commands_that_are_told_to_end_say_so_and_go_on(name, commands, tmp_path):
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "one.txt").write_text("The first of all documents.")
    line, where, goes_on = OTHERS[name]
    line = line.replace("OUT", str(tmp_path / "out")).replace("DOCUMENTS", str(tmp_path / "documents")).split()
    commands.start(*line, at=(where, 0, "halt"))
    commands.halted()
    os.kill(commands.pid, signal.SIGTERM)
    commands.go_on()
    code, said = commands.wait()
    assert code == 143 and said[-1].startswith("papertrial: stopped by SIGTERM"), said
    assert "defect" not in said[-1] and not list((tmp_path / "out").rglob("*.tmp"))
    assert not goes_on or commands.run(*line)[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_killed_runs_end_as_one_that_was_not(name, commands, whole, tmp_path):
    """Four kills, at least one in the middle of a checkpoint; a folder that is done too early is followed by another."""
    reference, seconds = whole(name)
    draw, kills, torn = random.Random(name), 0, 0
    for number in range(20):
        folder = tmp_path / str(number)
        for file in KILLS:
            before = unfinished(folder)
            commands.start(*words(name, folder))
            time.sleep(draw.random() * seconds / 2)
            while file and not any(f".{file}." in path for path in unfinished(folder) - before):
                if commands.ended():
                    break
            commands.kill()
            code, said = commands.wait()
            if code == 0:
                break
            assert (code, said) == (-signal.SIGKILL, [])
            kills, torn = kills + 1, torn + any(".checkpoint." in path for path in unfinished(folder) - before)
        assert commands.run(*words(name, folder)) == (0, [])
        assert_same(folder, reference)
        if kills >= len(KILLS) and torn:
            return
    pytest.fail(f"of {kills} kills {torn} met a checkpoint that was being written")


@pytest.mark.slow
def test_a_second_process_on_the_folder_is_refused_and_spoils_nothing(commands, whole, tmp_path):
    folder = tmp_path / "run"
    commands.start(*words("mixer", folder), at=("save_file", 12, "halt"))
    commands.halted()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for more in ((), ("--fresh",)):
        second = [sys.executable, "-m", "papertrial", *words("mixer", folder), *more]
        done = subprocess.run(second, capture_output=True, text=True, timeout=300)
        (line,) = done.stderr.splitlines()
        assert done.returncode == 2
        assert line.startswith(f"papertrial: another process is using {folder}; ")
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    commands.go_on()
    assert commands.wait() == (0, [])
    assert_same(folder, whole("mixer")[0])


@pytest.mark.parametrize(
    ("where", "after"), [("replace", 12), ("fsync", 12), ("save_file", 12), ("fsync", 45), ("replace", 47)]
)
def test_a_run_that_finds_no_space_goes_on_when_there_is_some(where, after, commands, whole, tmp_path):
    """In the middle of the training, whatever finds out, and when the model or the result is written."""
    folder = tmp_path / "run"
    code, (line,) = commands.run(*words("mixer", folder), at=(where, after, "full"))
    assert code == 2
    assert line.startswith(f"papertrial: no space left on the disk while writing {folder}")
    _, state = checkpoint.load(folder / "checkpoint.safetensors")
    assert 0 < state["step"] <= 40
    assert not (folder / "result.json").exists() and not unfinished(folder)
    assert commands.run(*words("mixer", folder)) == (0, [])
    assert_same(folder, whole("mixer")[0])


@pytest.mark.parametrize(("where", "after"), [("replace", 0), ("fsync", 1), ("save_file", 0)])
def test_a_run_that_finds_no_space_to_begin_with_leaves_no_folder(where, after, commands, tmp_path):
    code, (line,) = commands.run(*words("mixer", tmp_path / "runs" / "run"), at=(where, after, "full"))
    assert code == 2 and "no space left on the disk" in line
    assert not list(tmp_path.iterdir())


#: what writes a file or a folder OUT, from a run RUN, and how many bytes of it a disk takes
WRITERS = {
    "csv": ("predict RUN wine --out OUT.csv", 1000),
    "jsonl": ("predict RUN wine --out OUT.jsonl", 1000),
    "parquet": ("predict RUN wine --out OUT.parquet", 1000),
    "npy": ("embed RUN wine --out OUT.npy", 1000),
    "features": ("embed RUN wine --out OUT.parquet", 1000),
    "torch": ("export RUN --to torch --out OUT.pt2", 10_000),
    "onnx": ("export RUN --to onnx --out OUT.onnx", 10_000),
    "eject": ("eject RUN --out OUT", 15_000),
    "report": ("report RUN --no-data --out OUT.html", 10_000),
    "linear": ("fit linear --data wine --quiet --out OUT", 1500),
    "xgboost": ("fit xgboost --data wine --quiet --budget 1trial --out OUT", 5000),
    "lightgbm": ("fit lightgbm --data wine --quiet --budget 1trial --out OUT", 5000),
    "catboost": ("fit catboost --data wine --quiet --budget 1trial --out OUT", 5000),
    "index": ("index DOCUMENTS --out OUT", 1000),
    "transformer": ("rasp --compile tokens --out OUT", 1000),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_whatever_is_written_is_written_whole_or_not_at_all(name, commands, whole, tmp_path):
    """By a disk that takes no more bytes of any file; what stood there before stands there still."""
    line, room = WRITERS[name]
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "one.txt").write_text("The first of all documents. " * 200)
    run = tmp_path / "run"
    if "RUN" in line:
        shutil.copytree(whole("mlp")[0], run)
    line = [
        word.replace("OUT", str(tmp_path / "out")).replace("DOCUMENTS", str(tmp_path / "documents"))
        for word in line.split()
    ]
    line = [str(run) if word == "RUN" else word for word in line]
    target = Path(line[-1])
    if target.suffix:
        target.write_text("what was here before")
        line.append("--replace")

    def files():
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"}

    before = files()
    code, said = commands.run(*line, at=("FSIZE", room, "full"))
    assert code == 2 and re.match("papertrial: (cannot write|no space left on the disk while writing) ", said[-1]), said
    after = files()
    assert {path: after.get(path) for path in before} == before
    more = {path.relative_to(tmp_path).parts[0] for path in after.keys() - before.keys()}
    assert more <= ({"out"} if line[0] in ("fit", "index") else set()), more
    assert not [path for path in after if path.name.endswith(".tmp")]
    assert commands.run(*line)[0] == 0


#: what takes memory, with as much of it as is there, and what the line speaks of
HUNGRY = {
    "weights": (
        "fit rtdl:mlp --data wine --set width=20000 --quiet --out OUT",
        300,
        "the weights of rtdl:mlp would take about",
    ),
    "training": ("fit rtdl:mlp --data wine --set width=3000 --quiet --out OUT", 200, "of memory"),
    "predict": ("predict RUN wine", 2, "memory"),
    "export": ("export RUN --to torch --out OUT.pt2", 10, "memory"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HUNGRY)
def test_memory_that_is_not_there_is_one_line(name, commands, whole, tmp_path):
    line, room, words = HUNGRY[name]
    run = whole("mlp")[0] if "RUN" in line else tmp_path
    line = line.replace("OUT", str(tmp_path / "out")).replace("RUN", str(run)).split()
    code, said = commands.run(*line, at=("AS", room * 10**6, "full"))
    assert code == 2 and said[-1].startswith("papertrial: ") and words in said[-1], said
    assert "defect" not in said[-1] and not list(tmp_path.rglob("*.tmp"))


@pytest.fixture
def small_disk(tmp_path):
    """Commands that see a disk of 4 MB of their own, and its folder as they and as we see it."""
    own = (
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-ec",
        'mount -t tmpfs -o size=4m none "$0"; exec "$@"',
    )
    disk = tmp_path / "disk"
    disk.mkdir()
    if not shutil.which("unshare") or subprocess.run([*own, disk, "true"], capture_output=True).returncode:
        pytest.skip("a disk of one's own needs user namespaces, which are not allowed here")
    with contextlib.closing(Commands(tmp_path, *own, disk)) as found:
        yield found, disk, Path(f"/proc/{found.server.pid}/root{disk}")


@pytest.mark.slow
def test_a_disk_that_fills_up_and_is_emptied_again(small_disk, whole):
    """A real one."""
    commands, disk, seen = small_disk
    assert shutil.disk_usage(seen).total == 4 << 20
    commands.start(*words("mixer", disk / "run"), at=("save_file", 12, "halt"))
    commands.halted()
    with contextlib.suppress(OSError), open(seen / "ballast", "wb", buffering=0) as ballast:
        while True:
            ballast.write(bytes(1000))
    commands.go_on()
    code, (line,) = commands.wait()
    assert code == 2
    assert line.startswith(f"papertrial: no space left on the disk while writing {disk / 'run'}")
    assert not unfinished(seen / "run")
    (seen / "ballast").unlink()
    assert commands.run(*words("mixer", disk / "run")) == (0, [])
    assert_same(seen / "run", whole("mixer")[0])
