"""The marker of a folder: what is listed is deleted, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from papertrial.core import ours
from papertrial.core.errors import PapertrialError


def everything(folder: Path) -> dict[str, bytes | str]:
    """Every file below a folder with its content, links with where they lead."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        found[name] = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else "folder"
    return found


def test_only_what_is_listed_is_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "run"
    with ours.held(folder, "run", ["model.bin", "scratch/", "stages/1/log"]) as mine:
        for name in ("model.bin", "notes.txt", "scratch/trial", "stages/1/log", "stages/1/mine"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(name)
        assert mine.clear() == ["notes.txt", "stages"]
        assert ours.is_ours(folder, "run")
        mine.delete()
    assert set(everything(tmp_path)) == {
        "a",
        "a/run",
        "a/run/notes.txt",
        "a/run/stages",
        "a/run/stages/1",
        "a/run/stages/1/mine",
    }


def test_folders_made_for_it_go_with_it_and_others_stay(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    with ours.held(tmp_path / "theirs" / "made" / "run", "run") as mine:
        mine.delete()
    assert set(everything(tmp_path)) == {"theirs"}
    with ours.held(tmp_path / "theirs", "run") as mine:
        mine.delete()
    assert set(everything(tmp_path)) == {"theirs"}


def test_nothing_is_followed_through_a_link(tmp_path: Path) -> None:
    theirs, folder = tmp_path / "theirs", tmp_path / "run"
    theirs.mkdir()
    for name in ("log", "model.bin"):
        (theirs / name).write_text("precious")
    before = everything(theirs)
    mine = ours.claim(folder, "run", ["scratch/", "stages/log", "model.bin"])
    (folder / "scratch").symlink_to(theirs)
    (folder / "stages").symlink_to(theirs)
    (folder / "model.bin").symlink_to(theirs / "model.bin")
    with pytest.raises(PapertrialError, match="stages/other is not papertrial's"):
        mine.add("stages/other")
    mine.clear()
    assert everything(theirs) == before


@pytest.mark.parametrize("changed", ["list", "kind", "cut", "outside"])
def test_a_marker_that_was_changed_counts_as_none(tmp_path: Path, changed: str) -> None:
    folder = tmp_path / "index"
    ours.claim(folder, "index", ["generation-1/text"])
    marker = folder / ours.MARKER
    content = json.loads(marker.read_text())
    if changed == "list":
        content["entries"] = ["generation-2/text"]
    elif changed == "kind":
        content["kind"] = "run"
    elif changed == "outside":
        del content["sum"]
        content["entries"] = ["../theirs"]
        content["sum"] = ours._sum(content)
    marker.write_text(json.dumps(content)[: 40 if changed == "cut" else None])
    assert ours.read(folder) is None
    (folder / "generation-1").mkdir()
    with pytest.raises(PapertrialError, match="not empty and not an index"):
        ours.claim(folder, "index")


def test_what_was_there_before_is_not_listed(tmp_path: Path) -> None:
    mine = ours.claim(tmp_path / "run", "run", ["config.json"])
    (tmp_path / "run" / "plot.png").write_text("theirs")
    with pytest.raises(PapertrialError, match=r"plot\.png is not papertrial's"):
        mine.add("plot.png")
    mine.clear()
    assert (tmp_path / "run" / "plot.png").read_text() == "theirs"


def test_a_folder_of_an_earlier_version_is_marked_once_recognised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "old.json").write_text("{}")
    (tmp_path / "theirs.txt").write_text("theirs")
    with pytest.raises(PapertrialError, match="not empty and not a run"):
        ours.claim(tmp_path, "run", ["old.json"])
    mine = ours.claim(tmp_path, "run", ["old.json", "new.json"], lambda folder: ["old.json"])
    assert "marked as a run of an earlier papertrial, known by old.json" in capsys.readouterr().err
    assert ours.claim(tmp_path, "run", ["old.json"]).id == mine.id and not capsys.readouterr().err
    assert mine.clear() == ["theirs.txt"]


@pytest.mark.parametrize(
    "sort", ["a file", "below a file", "other kind", "lock with content", "lock that is a link", "link to nothing"]
)
def test_what_is_not_such_a_folder_is_refused_and_left_alone(tmp_path: Path, sort: str) -> None:
    place = tmp_path / "place"
    (tmp_path / "elsewhere").write_text("theirs")
    if sort == "a file":
        place.write_text("theirs")
    elif sort == "below a file":
        place.write_text("theirs")
        place = place / "run"
    elif sort == "link to nothing":
        place.symlink_to(tmp_path / "gone")
    elif sort == "other kind":
        ours.claim(place, "index")
    else:
        place.mkdir()
        lock = place / ours.LOCK
        lock.write_text("theirs") if sort == "lock with content" else lock.symlink_to(tmp_path / "elsewhere")
    before = everything(tmp_path)
    with pytest.raises(PapertrialError), ours.held(place, "run", ["config.json"]):
        raise AssertionError("not reached")
    assert everything(tmp_path) == before


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    with (
        ours.held(tmp_path / "run", "run"),
        pytest.raises(PapertrialError, match="another process is using"),
        ours.held(tmp_path / "run", "run"),
    ):
        raise AssertionError("not reached")
