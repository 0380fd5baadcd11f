"""What is not papertrial's is never replaced or deleted: every command that writes, before everything that looks like ours;
and a process that is killed leaves a folder that the same command goes on in.

The commands are those of the command line itself: a new one fails here until it is put into one of the two tables.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import typer
from safetensors.numpy import save_file
from small_runs import run as small_run
from test_pictures import run as drawing_run

from papertrial.app.cli import app, main
from papertrial.core import ours
from papertrial.core.files import read_json


def options() -> dict[str, list[str]]:
    """Every command, with the names of its options and arguments."""

    def walk(command, name):
        for below, one in getattr(command, "commands", {}).items():
            yield from walk(one, f"{name} {below}".strip())
        if not hasattr(command, "commands"):
            yield name, [option for parameter in command.params for option in parameter.opts]

    return dict(walk(typer.main.get_command(app), ""))


OPTIONS = options()
#: how a command is told to write into the folder PLACE
FOLDERS = {
    "fit": "fit linear --data wine --recipe tiny --out PLACE",
    "compare": "compare linear --data wine --against majority --seeds 1 --no-worth --out PLACE",
    "check": "check genie --claim likelihood_is_beta_binomial --evidence PLACE",
    "measure": "measure rank_collapse vit --recipe tiny --out PLACE",
    "generate": "generate DRAWS --samples 1 --out PLACE",
    "eject": "eject RUN --out PLACE",
    "index": "index corpus.jsonl --out PLACE",
    "new": "new some_paper --out PLACE",
    "rasp": "rasp --compile indices --out PLACE",
}
#: and the file PLACE
FILES = {
    "predict": "predict RUN rows.csv --out PLACE.csv",
    "embed": "embed RUN rows.csv --out PLACE.npy",
    "export": "export RUN --to torch --out PLACE.pt2",
    "report": "report RUN --out PLACE.html",
    "judge export": "judge export study PLACE.csv --db mine.db",
    "judge new": "judge new study a=outputs.jsonl b=outputs.jsonl --template pairwise --db PLACE.db",
}
#: commands that write nothing where a user says
READING = {
    "list", "read", "look", "estimate", "evaluate", "search", "web", "doctor",
    "judge serve", "judge invite", "judge link", "judge status", "judge results",
}  # fmt: skip


def test_every_command_is_known_to_write_or_not_to():
    assert sorted(OPTIONS) == sorted([*FOLDERS, *FILES, *READING])
    for name in READING:
        assert not {"--out", "out", "--fresh", "--replace"} & set(OPTIONS[name]), name


# --------------------------------------------------------------------------------------------- what looks like ours


def _write(folder: Path, **files: str) -> None:
    for name, content in files.items():
        (folder / name.replace("__", "/")).parent.mkdir(parents=True, exist_ok=True)
        (folder / name.replace("__", "/")).write_text(content)


def hugging_face(place: Path) -> None:
    """A model as the hub has it."""
    config = {"model_type": "vit", "hidden_size": 8, "architectures": ["ViTModel"], "vocabulary": [], "values": []}
    _write(place, **{"config.json": json.dumps(config), "README.md": "mine", ".gitattributes": "mine"})
    save_file({"encoder.weight": np.ones((2, 2), np.float32)}, place / "model.safetensors")


def index_like(place: Path) -> None:
    """Folders of the names that an index has."""
    _write(
        place, **{"generation-1__photo.jpg": "mine", "encoded__film.mp4": "mine", "manifest.json": '{"name": "app"}'}
    )


def arrays_like(place: Path) -> None:
    """Somebody's arrays in a folder with a name of ours, beside another file."""
    _write(
        place, **{"generation-1__text.npy": "mine", "generation-1__ids.npy": "mine", "generation-1__notes.txt": "mine"}
    )


def run_like(place: Path) -> None:
    """What another tool calls a run."""
    config = {"method": "adam", "data": "photos/", "seed": 0, "lr": 0.1}
    _write(
        place,
        **{
            "config.json": json.dumps(config), "metrics.jsonl": '{"step": 1}\n', "result.json": '{"method": "adam"}',
            "card.json": "{}", "scratch__notes.txt": "mine", "estimator__model.bin": "mine", "stages__1-a__plan.json": "{}",
            "environment.json": '{"python": "3.12"}', "report.json": '{"title": "mine"}', "plot.html": "mine",
        },
    )  # fmt: skip


def photographs(place: Path) -> None:
    """Pictures with a list of them."""
    _write(place, **{"grid.png": "mine", "a.png": "mine", "pictures.jsonl": '{"file": "a.png", "seed": 1}\n'})


def comparison_like(place: Path) -> None:
    _write(place, **{"comparison.json": '{"complete": true, "asked": {}}', "linear__seed0__config.json": "{}"})


def evidence_like(place: Path) -> None:
    _write(
        place, **{"genie.jsonl": '{"claim": "of a lawyer"}\n', ".genie-likelihood_is_beta_binomial-tiny-0.json": "{}"}
    )


def a_file(place: Path) -> None:
    place.write_text("mine")


def below_a_file(place: Path) -> None:
    place.parent.write_text("mine")


def link_to_a_folder(place: Path) -> None:
    hugging_face(place.with_name("theirs"))
    place.symlink_to(place.with_name("theirs"))


def link_to_nothing(place: Path) -> None:
    place.symlink_to(place.with_name("gone"))


def of_another_kind(place: Path) -> None:
    """A folder of papertrial's that none of the commands writes."""
    ours.claim(place, "diary", ["diary.txt"])
    _write(place, **{"diary.txt": "mine", "notes.txt": "mine"})


def forged(place: Path) -> None:
    """A marker that was not written as it stands."""
    hugging_face(place)
    content = {"kind": "run", "version": 1, "id": "0", "entries": ["model.safetensors"], "sum": "0"}
    (place / ours.MARKER).write_text(json.dumps(content))


HOSTILE = (
    hugging_face, index_like, arrays_like, run_like, photographs, comparison_like, evidence_like, a_file, below_a_file,
    link_to_a_folder, link_to_nothing, of_another_kind, forged,
)  # fmt: skip


def _judged() -> str:
    """Outputs of two systems with a reference and a person's score: the more of the reference they keep, the higher."""
    draw, words = (
        np.random.default_rng(0),
        ["the", "cat", "sat", "on", "a", "mat", "and", "the", "dog", "ran", "to", "sea"],
    )
    lines = ["item,system,reference,output,score"]
    for item in range(24):
        reference = draw.choice(words, 8)
        for system, kept in (("good", 0.8), ("poor", 0.3)):
            output = np.where(draw.random(8) < kept, reference, draw.choice(words, 8))
            score = (output == reference).mean()
            lines.append(f"i{item},{system},{' '.join(reference)},{' '.join(output)},{score + draw.normal(0, 0.1):.3f}")
    return "\n".join(lines) + "\n"


@pytest.fixture
def call(papertrial, tmp_path):
    """Run a command of the tables on a place; returns (exit code, output, the one line of the error)."""
    _write(
        tmp_path,
        **{
            "corpus.jsonl": '{"_id": "a", "text": "apple pie"}\n', "rows.csv": "price\n1\n",
            "judged.csv": _judged(),
            "outputs.jsonl": "".join(f'{{"item": "{item}", "output": "words"}}\n' for item in "ab"),
        },
    )  # fmt: skip

    def run(words: str, place: Path | str, *more: str) -> tuple[int, str, str]:
        made = [word.replace("PLACE", str(place)) for word in words.split()]
        if "DRAWS" in made:
            made[made.index("DRAWS")] = str(drawing_run().folder)
        if "RUN" in made:
            made[made.index("RUN")] = str(small_run("linear").folder)
        return papertrial(*made, *more)

    return run


def seen(folder: Path) -> dict[str, object]:
    """All that lies below a folder: contents, links, folders."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        content = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else "folder"
        found[str(path.relative_to(folder))] = content
    return found


def _refused(call, words: str, place: Path, *more: str) -> None:
    before = seen(place.parent if place.parent.is_dir() else place.parent.parent)
    code, _, error = call(words, place, *more)
    assert code == 2, (words, error)
    line = error.strip().splitlines()[-1]
    assert line.startswith("papertrial: ") and "defect" not in line and "--fresh" not in line, line
    assert str(place.parent) in line or place.name in line, line  # it is the place that is refused
    assert seen(place.parent if place.parent.is_dir() else place.parent.parent) == before, words


@pytest.mark.parametrize("looks", HOSTILE, ids=lambda looks: looks.__name__)
@pytest.mark.parametrize("command", FOLDERS)
def test_a_folder_that_is_not_ours_is_refused_and_left_as_it_is(call, tmp_path, command, looks):
    place = tmp_path / "around" / "mine" / "place"
    place.parent.parent.mkdir()
    if looks is not below_a_file:
        place.parent.mkdir()
    looks(place)
    for more in ((), *((option,) for option in ("--fresh", "--replace") if option in OPTIONS[command])):
        _refused(call, FOLDERS[command], place, *more)


@pytest.mark.parametrize("command", FILES)
def test_a_file_that_is_not_ours_is_refused_and_left_as_it_is(call, tmp_path, command):
    here = tmp_path / "around"
    here.mkdir()
    words = FILES[command]
    suffix = Path(next(word for word in words.split() if "PLACE" in word)).suffix
    theirs = here / f"theirs{suffix}"
    if command == "judge new":  # which adds to a database of its own
        with closing(sqlite3.connect(theirs)) as connection:
            connection.execute("CREATE TABLE customers (name TEXT)")
            connection.commit()
    else:
        theirs.write_text("mine")
    (here / f"folder{suffix}").mkdir()
    (here / f"link{suffix}").symlink_to(theirs)
    if command != "judge new":
        (here / f"hanging{suffix}").symlink_to(here / "gone")
    if command == "judge export":
        assert call("judge new study a=outputs.jsonl b=outputs.jsonl --template pairwise --db mine.db", here)[0] == 0
    for name in ("theirs", "folder", "link", "hanging")[: 3 if command == "judge new" else 4]:
        _refused(call, words, here / name)
    _refused(call, words, theirs / "below")


@pytest.mark.parametrize("command", [*FOLDERS, *FILES])
def test_a_place_that_takes_nothing_is_one_line(call, command):
    if not Path("/proc/self").is_dir():
        pytest.skip("needs a file system in which nobody can write, and there is no /proc")
    code, _, error = call((FOLDERS | FILES)[command], "/proc/self/place")
    assert code == 2 and error.strip().splitlines()[-1].startswith("papertrial: "), error
    assert "defect" not in error and "Traceback" not in error


# ------------------------------------------------------------------------------------------------------ what is ours

#: commands that go on in a folder, with what says that they are done
GOING_ON = {
    "fit linear --data wine --recipe tiny --out PLACE": "result.json",
    "fit rtdl:mlp --data wine --recipe tiny --budget 3steps --out PLACE": "result.json",
    "fit lightgbm --data wine --recipe tiny --budget 2trials --out PLACE": "result.json",
    "compare bleu --data judged.csv --against length --seeds 1 --folds none --no-worth --out PLACE": "comparison.json",
    "index corpus.jsonl --out PLACE": "manifest.json",
}


def left(place: Path) -> set[str]:
    """Names of what is in a folder, but for what TensorBoard names by the moment, and an index by how often it was built."""
    names = (re.sub("generation-[0-9]+", "generation", name) for name in seen(place))
    return {name for name in names if not name.startswith("tensorboard/")}


@pytest.mark.parametrize("words", [words for words in GOING_ON if words.startswith("fit")])
def test_a_run_lists_all_that_it_writes_and_fresh_leaves_what_is_not_its_own(call, tmp_path, words):
    place = tmp_path / "place"
    assert call(words, place)[0] == 0
    marked = ours.read(place)
    written = {name for name, content in seen(place).items() if content != "folder"} - {ours.MARKER, ours.LOCK}
    whole = tuple(name for name in marked.entries if name.endswith("/"))
    assert {name for name in written if not name.startswith(whole)} <= marked.entries
    first = left(place)
    _write(place, **{"notes.txt": "mine", "photos__a.jpg": "mine", "my-scratch__a.txt": "mine"})
    code, _, error = call(words, place, "--fresh")
    assert code == 0 and f"{place}: my-scratch, notes.txt, photos stays" in error
    theirs = {"notes.txt", "photos", "photos/a.jpg", "my-scratch", "my-scratch/a.txt"}
    assert left(place) == first | theirs and (place / "photos" / "a.jpg").read_text() == "mine"


def killed(words: list[str], at: int) -> bool:
    """Run a command in a child that is killed before the call number `at` that changes a folder; False when it came to its end."""
    child = os.fork()
    if child == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            os.dup2(2, 1)
            count = [0]

            def dying(real):
                def call(*arguments, **more):
                    count[0] += 1
                    if count[0] == at:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return real(*arguments, **more)

                return call

            for name in ("replace", "rename", "unlink", "rmdir", "mkdir"):
                setattr(os, name, dying(getattr(os, name)))
            sys.argv = ["papertrial", *words]
            main()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def figures(place: Path, done: str) -> object:
    held = read_json(place / done)
    if done == "comparison.json":
        return held["complete"], held["reference"], [(row["name"], row["metric"]) for row in held["rows"]]
    return held.get("metrics") or held["documents"]


@pytest.mark.slow
@pytest.mark.parametrize("words", GOING_ON)
def test_killed_at_any_moment_the_same_command_goes_on(call, tmp_path, words):
    """SIGKILL before a step of the file system, somewhere between the first and the last of them; then the same command."""
    whole = tmp_path / "whole"
    assert call(words, whole)[0] == 0
    done = GOING_ON[words]
    at, killings = 1, 0
    while True:
        place = tmp_path / f"killed-{at}"
        if not killed(words.replace("PLACE", str(place)).split(), at):
            break
        killings += 1
        if place.exists():
            _write(place, **{".mine.txt": "mine"})
        code, _, error = call(words, place)
        assert code == 0, (at, error)
        assert figures(place, done) == figures(whole, done), at
        assert left(place) - {".mine.txt"} == left(whole), at
        at += max(1, at // 3)
    assert killings >= 8


@pytest.mark.slow
@pytest.mark.parametrize("words", GOING_ON)
def test_killed_while_it_starts_over_nothing_is_lost(call, tmp_path, words):
    """--fresh, killed while it clears the folder: the user's files are there, and the command without it ends well."""
    place = tmp_path / "place"
    assert call(words, place)[0] == 0
    before = figures(place, GOING_ON[words])
    (place / "notes.txt").write_text("mine")
    for at in (1, 2, 4, 7, 11):
        assert killed([*words.replace("PLACE", str(place)).split(), "--fresh"], at)
        code, _, error = call(words, place)
        assert code == 0, (at, error)
        assert figures(place, GOING_ON[words]) == before and (place / "notes.txt").read_text() == "mine"


def test_a_link_in_a_run_leads_nobody_out_of_it(call, tmp_path):
    """What a run deletes is not looked for behind links that were put into its folder."""
    theirs, place = tmp_path / "theirs", tmp_path / "place"
    _write(theirs, **{"a.txt": "mine", "model.safetensors": "mine", "trial-0__a.txt": "mine"})
    words = "fit rtdl:mlp --data wine --recipe tiny --budget 3steps --out PLACE"
    assert call(words, place)[0] == 0
    (place / "model.safetensors").unlink()
    (place / "model.safetensors").symlink_to(theirs / "model.safetensors")
    for name in ("scratch", "stages", "estimator"):
        (place / name).symlink_to(theirs)
    before = seen(theirs)
    code, _, error = call(words, place, "--fresh")
    assert seen(theirs) == before
    assert code == 0 and not (place / "model.safetensors").is_symlink(), error


@pytest.mark.slow
@pytest.mark.parametrize("words", GOING_ON)
def test_what_an_earlier_version_began_goes_on(call, tmp_path, words):
    """Killed halfway and without a marker, a folder is recognised by all that it holds, marked, and gone on with."""
    whole, place, done = tmp_path / "whole", tmp_path / "place", GOING_ON[words]
    assert call(words, whole)[0] == 0
    assert killed(words.replace("PLACE", str(place)).split(), 40 if "linear" not in words else 25)
    for marker in place.rglob(ours.MARKER):
        marker.unlink()
    (place / ".mine.txt").write_text("mine")
    code, _, error = call(words, place)
    assert code == 0 and f"{place} is marked as a" in error and "of an earlier papertrial, known by" in error, error
    assert figures(place, done) == figures(whole, done) and (place / ".mine.txt").exists()
    for marker in place.rglob(ours.MARKER):
        marker.unlink()
    (place / "notes.txt").write_text("mine")
    code, _, error = call(words, place, "--fresh")
    assert code == 0 and (place / "notes.txt").read_text() == "mine", error
    assert figures(place, done) == figures(whole, done)
