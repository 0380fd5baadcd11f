"""Kinds of data are records: each of ours is whole, and one of another package goes all the way with no edit on our side."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import papertrial
from papertrial.core import registry
from papertrial.core.errors import PapertrialError
from papertrial.core.kind import Kind, load
from papertrial.core.offers import task_offers
from papertrial.data import Data
from papertrial.data import open as open_data
from papertrial.data.base import Look
from papertrial.testing import bench, unsuitable_data
from papertrial.use.choose import choose_task, default_backbone

ELSEWHERE = Path(__file__).parents[1] / "elsewhere"
DATA = Path(papertrial.__file__).parent / "data"
#: every module of the data layer
MODULES = sorted(
    "papertrial.data." + ".".join(file.relative_to(DATA).with_suffix("").parts).removesuffix(".__init__")
    for file in DATA.rglob("*.py")
    if file != DATA / "__init__.py"
)
FOUND = (registry.entries, registry.tasks, registry.declared_tasks, registry._found_kinds)


@pytest.mark.parametrize("name", ["images", "table", "text", "pairs", "judged", "collection"])
def test_a_kind_of_ours_is_whole(name):
    kind = registry.kind(name)
    held = kind.made("data")
    assert issubclass(held, Data)
    assert held.kind == name
    for field in ("opens", "reads", "shown", "meanings", "made_up"):
        assert getattr(kind, field) == "" or callable(kind.made(field)), f"{field} of {name} names nothing"
    assert all(callable(load(made)) for made in kind.samples.values())
    assert kind.sample, f"the battery has no data of the kind {name}"
    assert registry.kind(kind.unsuitable).sample, f"nothing is known that tasks on {name} decline"
    assert kind.shown
    for backbone in (*kind.backbones, *filter(None, [kind.small_backbone])):
        assert registry.find(backbone).paper.kind == "architecture"


def test_every_task_takes_kinds_that_are_known_and_the_first_one_comes_first():
    for task in registry.tasks().values():
        assert set(task_offers(task).kinds) <= set(registry.kinds())
        assert task.kind == task_offers(task).kinds[0]


def test_an_unknown_kind_is_an_error_with_a_suggestion():
    for ask in (registry.kind, default_backbone):
        with pytest.raises(PapertrialError, match=r"no kind of data called 'imges'; did you mean 'images'\?"):
            ask("imges")
    with pytest.raises(PapertrialError, match="no kind of data called 'imges'"):
        _ = Look("photos", "imges").what
    with pytest.raises(PapertrialError, match="nothing is known that an objective could learn with on a table; name"):
        default_backbone("table")


def test_the_backbone_is_the_first_whose_extra_is_installed(monkeypatch):
    assert default_backbone("images") == "resnet"
    for there, expected in ((True, ("minilm", "word_vectors")), (False, ("text_transformer", "text_transformer"))):
        monkeypatch.setattr(registry, "installed", lambda extra, there=there: there)
        assert (default_backbone("pairs"), default_backbone("collection")) == expected


def test_a_kind_that_names_no_code_is_refused_at_once():
    with pytest.raises(ValueError, match="kind 'audio': opens is 'opens', not module:name"):
        Kind("audio", "audio:Audio", opens="opens")


def test_kinds_are_read_and_not_imported():
    code = """
import sys
from papertrial.core import registry
assert len(registry.kinds()) == 6, list(registry.kinds())
loaded = {name for name in sys.modules if name.startswith(("papertrial.data", "numpy", "torch", "pandas", "PIL"))}
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_no_module_of_data_needs_another_to_be_imported_before_it():
    """Each is imported alone, as in a fresh interpreter: of this layer nothing else is loaded."""
    code = """
import importlib, sys
for name in sys.argv[1:]:
    for loaded in [loaded for loaded in sys.modules if loaded.startswith("papertrial.data")]:
        del sys.modules[loaded]
    try:
        importlib.import_module(name)
    except ImportError as error:
        raise SystemExit(f"{name} cannot be imported alone: {error}")
"""
    done = subprocess.run([sys.executable, "-c", code, *MODULES], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(MODULES) > 25


def test_no_file_of_data_is_over_600_lines():
    lengths = {file.name: len(file.read_text(encoding="utf-8").splitlines()) for file in DATA.rglob("*.py")}
    assert {name: lines for name, lines in lengths.items() if lines > 600} == {}


# -- a kind of another package --------------------------------------------------------------------------------------


@pytest.fixture
def strokes(tmp_path, monkeypatch):
    """The package `strokes` as `pip install` leaves it, and 60 of its strokes in a file and in a folder."""
    info = tmp_path / "site" / "strokes-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strokes\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(
        "[papertrial.kinds]\nstrokes = strokes.kind\n"
        "[papertrial.tasks]\nstroke_classification = strokes.task:TASK\n"
        "[papertrial.papers]\nstrokes_net = strokes.strokes_net\n"
    )
    for folder in (ELSEWHERE, info.parent):
        monkeypatch.syspath_prepend(folder)
    for held in FOUND:
        held.cache_clear()
    from strokes.kind import drawn

    lines = [json.dumps({"label": label, "points": points.tolist()}) for label, points in drawn(60)]
    (tmp_path / "pen.strokes").write_text("\n".join(lines))
    (tmp_path / "pens").mkdir()
    for place in range(2):
        (tmp_path / "pens" / f"{place}.strokes").write_text("\n".join(lines[place::2]))
    bench.cache_clear()
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "strokes"]:
        del sys.modules[name]
    monkeypatch.undo()
    for held in (*FOUND, bench):
        held.cache_clear()


def test_it_is_looked_at(strokes, papertrial):
    for source in (strokes / "pen.strokes", strokes / "pens", "scribbles"):
        code, out, err = papertrial("look", source, "--json")
        assert code == 0, err
        page = json.loads(out)
        assert page["kind"] == "strokes"
        assert page["tasks"]["stroke_classification"] == ""
        assert page["tasks"]["tabular"] == f"it takes a table, and {page['name']} is strokes of a pen"
        assert page["papers"]["strokes_net"] == ""
    code, out, _ = papertrial("look", strokes / "pen.strokes")
    assert "60 of 10 to 29 points" in out
    assert "papertrial compare strokes_net" in out


def test_it_is_fitted_asked_judged_and_reported(strokes, papertrial):
    code, _, err = papertrial("fit", "strokes_net", "--data", strokes / "pen.strokes", "--out", "run")
    assert code == 0, err
    code, _, err = papertrial("predict", "run", strokes / "pens", "--out", "answers.csv")
    assert code == 0, err
    rows = Path("answers.csv").read_text().splitlines()
    assert rows[0].startswith("example,prediction")
    assert len(rows) == 61
    code, out, err = papertrial("evaluate", "run", "scribbles", "--json")
    assert code == 0, err
    assert json.loads(out)["metrics"]["accuracy"] > 0.9
    code, _, err = papertrial("report", "run")
    assert code == 0, err
    page = next(Path("run").glob("*.html")).read_text()
    assert "Training strokes" in page
    code, _, err = papertrial("predict", "run", "iris")
    assert code == 2
    assert "iris is table, but this model was trained on strokes" in err


def test_it_is_compared(strokes, papertrial):
    code, out, err = papertrial(
        "compare",
        "strokes_net",
        "--data",
        strokes / "pen.strokes",
        "--seeds",
        "2",
        "--no-worth",
        "--budget",
        "40steps",
        "--out",
        "both",
    )
    assert code == 0, err
    assert "stroke_classification" in out
    assert "majority" in out
    code, _, err = papertrial("report", "both")
    assert code == 0, err
    assert "Training strokes" in next(Path("both").glob("*.html")).read_text()


def test_its_battery_its_backbone_and_its_exports_follow_from_the_record(strokes, tmp_path):
    import strokes.kind

    from papertrial.use import predictor

    assert default_backbone("strokes") == "strokes_net"
    assert choose_task(open_data("scribbles")).name == "stroke_classification"
    own = bench("strokes_net")
    assert own.prepared.origin["name"] == "scribbles"
    unsuitable_data(own)
    run = papertrial.load(own.run(tmp_path / "run").folder)
    assert predictor.input_meanings(run)[0]["shape"] == [16, 2]
    made_up = predictor._made_up(run)
    assert made_up["points"].shape == (predictor.ROWS, 16, 2)
    answers = run.task.outputs(run.model, run.head, made_up)
    np.testing.assert_allclose(answers.sum(axis=1), 1, rtol=1e-6)
    assert isinstance(open_data(strokes.kind.scribbles()), strokes.kind.Strokes)


def test_what_nobody_knows_is_refused_with_what_its_kind_accepts_too(strokes, tmp_path):
    (tmp_path / "some.bin").write_bytes(bytes(range(256)))
    with pytest.raises(PapertrialError, match=r"a BEIR folder, a .strokes file or a folder of them, hf:<data set>"):
        open_data(tmp_path / "some.bin")
    for source, problem in (
        (f"{strokes / 'pen.strokes'}#x", "pen.strokes is not a table, so it has no column 'x'"),
        ((strokes / "pen.strokes"), "pen.strokes holds strokes, whose labels are no column 'y'"),
    ):
        with pytest.raises(PapertrialError, match=problem):
            open_data(source, target=None if "#" in str(source) else "y")


def test_a_notebook_adds_a_kind_by_a_call(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ELSEWHERE)
    monkeypatch.setattr(registry, "_added_kinds", {})
    from strokes.kind import KIND, drawn

    (tmp_path / "a.strokes").write_text(json.dumps({"points": drawn(1)[0][1].tolist()}))
    with pytest.raises(PapertrialError, match="a file of a kind that is not known"):
        open_data(tmp_path / "a.strokes")
    registry.add_kind(KIND)
    assert open_data(tmp_path / "a.strokes").look().what == "strokes of a pen"
    registry.add_kind(dataclasses.replace(KIND, words="lines"))
    assert open_data("scribbles").look().what == "lines"
    with pytest.raises(PapertrialError, match="no task takes lines, as scribbles is"):
        choose_task(open_data("scribbles"))
    with pytest.raises(PapertrialError, match="a kind of data called 'images' already"):
        registry.add_kind(dataclasses.replace(KIND, name="images"))
