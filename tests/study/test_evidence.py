"""The page of evidence: claims and figures of a paper from outside, evidence that is older or lacks claims, what a wrong file
costs, and what a browser makes of it."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import webpage
from papertrial.app.cli import main
from papertrial.claims import _lab
from papertrial.core import registry
from papertrial.core.errors import missing_extra
from papertrial.core.files import to_json
from papertrial.core.paper import Curve, Figure, claims_of
from papertrial.study import check as study
from papertrial.study.plot import draw
from papertrial.study.report import report
from webpage import Read

ROOT = Path(__file__).parents[2]
EVIL = "<script>alert(1)</script>"
#: a paper as its author would write it, in a package of theirs
OUTSIDE = """
from papertrial.core.errors import Declined
from papertrial.core.paper import Curve, Figure, Paper, claim

PAPER = Paper(id="elsewhere_fall", title="Things <b>fall</b>", kind="analysis", idea="things fall", year=1687,
              caveats=("Only & downwards.",))


def _fall(measured):
    curves = (Curve.over_seeds("<i>fall</i>", measured, "depth at {}"),)
    return Figure("Depth by time", "seconds", "metres", curves, "It falls.", log_x=True)


@claim("What falls, falls ever faster <script>alert(1)</script>.", where="fig. 1", kind="trend", plot=_fall)
def falls(scale, seed):
    depths = {t: 4.9 * t * t + seed for t in (0.5, 1, 2)}
    return True, {**{f"depth at {t}": depth for t, depth in depths.items()}, "margin": 0.1 + seed / 100}


@claim("Weight is no matter.", where="sec. 2", kind="property")
def weight_is_no_matter(scale, seed):
    return True, {"gap": 0.0}


@claim("On the moon too.", where="sec. 3", kind="number", plot=_fall)
def on_the_moon(scale, seed):
    raise Declined("needs a moon")
"""


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """The paper above, installed as `pip install` leaves it, in an empty working folder."""
    site = tmp_path / "site"
    info = site / "papertrial_elsewhere-0.1.0.dist-info"
    info.mkdir(parents=True)
    (site / "elsewhere_fall.py").write_text(OUTSIDE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: papertrial-elsewhere\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[papertrial.papers]\nelsewhere_fall = elsewhere_fall\n")
    monkeypatch.syspath_prepend(site)
    registry.entries.cache_clear()
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    yield here
    sys.modules.pop("elsewhere_fall", None)
    monkeypatch.undo()
    registry.entries.cache_clear()


@pytest.fixture
def papertrial(capsys, monkeypatch):
    def run(*words):
        monkeypatch.setattr(sys, "argv", ["papertrial", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        out = capsys.readouterr()
        return stop.value.code or 0, out.out, out.err

    return run


def rewritten(file: Path, change) -> None:
    """Every line of evidence as `change` leaves it; a line for which it returns False goes."""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    kept = [row for row in rows if change(row) is not False]
    file.write_text("".join(json.dumps(row) + "\n" for row in kept))


# curves from evidence


def test_a_curve_is_the_mean_over_seeds_with_every_seed():
    measured = [{"width_32": 0.5, "width_128": 0.7, "margin": 9.0}, {"width_32": 0.7, "width_128": 0.8, "width_x": 1.0}]
    curve = Curve.over_seeds("probe", measured, "width_{}")
    assert curve.x == (32.0, 128.0)
    assert curve.y == pytest.approx((0.6, 0.75))
    assert curve.low == (0.5, 0.7) and curve.high == (0.7, 0.8)
    assert curve.points == ((0.5, 0.7), (0.7, 0.8))


def test_what_is_not_finite_is_left_out():
    measured = [{"at 1": None, "at 2": float("nan"), "at 3": 1.0}, {"at 1": 2.0, "at 2": math.inf, "at 3": 3.0}]
    curve = Curve.over_seeds("", measured, "at {}")
    assert curve.x == (1.0, 3.0) and curve.y == (2.0, 2.0) and curve.points == ((2.0,), (1.0, 3.0))


@pytest.mark.parametrize("key", ["agc {} at 0.8", "({})", "{}", "a{}%", "gap+{}"])
@given(x=st.lists(st.floats(-1e9, 1e9).map(lambda x: float(f"{x:g}")), min_size=1, max_size=5, unique=True))
def test_numbers_are_found_as_python_writes_them(key, x):
    measured = [{key.replace("{}", f"{at:g}"): float(index) for index, at in enumerate(x)}]
    assert Curve.over_seeds("", measured, key).x == tuple(sorted(x))


def test_a_key_that_nothing_has():
    for measured in ([], [{}], [{"layer_": 1.0, "player_3": 1.0, "layer_3 ": 1.0, "layer_1e": 1.0, "layer_2": None}]):
        with pytest.raises(KeyError):
            Curve.over_seeds("", measured, "layer_{}")


def test_the_figure_shows_seeds_and_marks_its_points():
    measured = [{"at 0.2": 1.0, "at 3.2": 2.0}, {"at 0.2": 3.0, "at 3.2": 4.0}]
    figure = Figure("t", "x", "y", (Curve.over_seeds("c", measured, "at {}"),), log_x=True)
    band, points, line = draw(figure).data
    assert line["y"] == [2.0, 3.0] and points["y"] == [1.0, 3.0, 2.0, 4.0] and points["x"] == [0.2, 0.2, 3.2, 3.2]
    assert len(band["y"]) == 4 and not points["showlegend"]
    across = draw(figure).layout["xaxis"]
    assert across["type"] == "log" and across["ticktext"] == ["0.2", "3.2"]
    crowded = Curve.over_seeds("c", [{f"at {x}": 1.0 for x in (1, 1.05, 100)}], "at {}")
    assert draw(dataclasses.replace(figure, curves=(crowded,))).layout["xaxis"]["dtick"] == 1
    graph = pytest.importorskip("plotly.graph_objects", reason="needs plotly (the extra dev)")
    graph.Figure({"data": draw(figure).data, "layout": draw(figure).layout})  # raises for what Plotly does not know


# the figures of our own papers


def _nothing(*args, **options):
    return None


@pytest.mark.parametrize("scale", study.SCALES)
@pytest.mark.parametrize(
    ("paper", "name", "lines"),
    [
        ("nfnet", "agc_trains_where_unclipped_training_diverges", 2),
        ("nfnet", "threshold_is_forgiving", 4),
        ("rank_collapse", "attention_alone_loses_rank", 1),
        ("rank_collapse", "skip_connections_keep_rank", 2),
        ("rank_collapse", "long_paths_lose_rank", 1),
        ("rank_collapse", "trained_models_collapse_without_skips", 4),
        ("rtdl", "slide", 3),
        ("barlow_twins", "wider_projectors_are_better", 1),
        ("mlp_mixer", "gap_to_a_convnet_shrinks_with_data", 1),
    ],
)
def test_what_a_claim_measures_is_what_its_figure_shows(paper, name, lines, scale, monkeypatch):
    """With training left out: the names of the numbers are at stake here."""
    module = importlib.import_module(f"papertrial.claims.{paper}")
    if paper in ("nfnet", "barlow_twins"):
        monkeypatch.setattr(module, "_accuracy", lambda *args: 0.5)
    elif paper == "mlp_mixer":
        monkeypatch.setattr(module, "_accuracies", lambda method, fractions, *args: [0.5] * len(fractions))
    elif paper == "rank_collapse":
        monkeypatch.setattr(_lab, "train", _nothing)
    else:
        monkeypatch.setattr(_lab, "train", _nothing)
        trees = SimpleNamespace(fit=_nothing, outputs=lambda split: 0 * split["target"])
        monkeypatch.setattr(registry.load("catboost"), "build", lambda *args: trees)
        light, build = module.paper.Config(model="mlp", depth=1, width=8), module.paper.build
        monkeypatch.setattr(module.paper, "build", lambda config, facts: build(light, facts))
        monkeypatch.setattr(module, "interpolated", lambda alpha, rows, columns, *rest: _noise(rows, columns))
    claim = {claim.name: claim for claim in claims_of(module)}[name]
    torch.manual_seed(0)
    measured = [json.loads(to_json(claim(scale, seed)[1])) for seed in (0, 1)]
    figure = claim.plot(measured)
    assert len(figure.curves) == lines
    for curve in figure.curves:
        assert len(curve.x) >= 2 and all(len(points) == 2 for points in curve.points)
    assert draw(figure).layout["xaxis"]["title"]["text"]


def _noise(rows, columns):
    draw = np.random.default_rng(0)
    return draw.standard_normal((rows, columns), dtype=np.float32), draw.standard_normal(rows, dtype=np.float32)


# a paper from outside


def test_a_paper_from_outside_comes_with_its_figure(outside, papertrial):
    code, out, err = papertrial("check", "elsewhere_fall")
    assert code == 0, err
    assert "next        papertrial report evidence" in out
    code, out, err = papertrial("report", "evidence", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told["kind"] == "evidence" and told["file"] == "evidence/report.html"
    assert told["sections"] == ["Overview", "elsewhere_fall"]
    assert told["question"] == "Do the claims of elsewhere_fall hold?"
    assert told["answers"] == ["2 of 3 claims hold; 1 not run."]
    page = Read(Path(told["file"]))
    assert "Only & downwards." in page.text and "Things <b>fall</b>, 1687" in page.text and "Things fall." in page.text
    assert f"What falls, falls ever faster {EVIL}." in page.text
    assert "+0.110 [+0.085, +0.135]" in page.text.replace("\N{MINUS SIGN}", "-")
    assert "On the moon too. Needs a moon." in page.text
    assert "papertrial check elsewhere_fall --scale base" in "".join(page.inside["code"])
    assert "There is no evidence here on" in page.text and "rtdl" in page.text
    (plot,) = page.plots.values()
    assert plot["data"][-1]["x"] == [0.5, 1, 2]
    assert plot["data"][-1]["y"] == pytest.approx([2.225, 5.9, 20.6])
    assert plot["data"][-1]["name"] == "&lt;i&gt;fall&lt;/i&gt;"
    assert {attributes["src"] for attributes in page.all("img")} == set()
    assert len(page.all("script")) == 3


def test_one_file_and_a_place_of_ones_own(outside, tmp_path):
    study.check("elsewhere_fall", folder="kept")
    assert report("kept/elsewhere_fall.jsonl").file == Path("kept/elsewhere_fall.html")
    assert "There is no evidence here" not in Read(Path("kept/elsewhere_fall.html")).text
    file = report("kept", tmp_path / "mine.html").file
    assert "--evidence kept" in Read(file).text


def test_a_claim_without_a_plot_needs_none(outside):
    study.check("elsewhere_fall", claims=["weight_is_no_matter"], folder="evidence")
    page = Read(report("evidence").file)
    assert "Figures" not in page.inside["h3"] and not page.all("script")
    assert page.text.count("not run") >= 2, "the two claims that were never run are listed"


def test_a_browser_draws_the_page(outside):
    study.check("elsewhere_fall", folder="evidence")
    webpage.look(report("evidence").file.absolute())


# evidence that does not match the paper's file


def test_older_evidence_without_the_points(outside):
    study.check("elsewhere_fall", folder="evidence")
    file = Path("evidence/elsewhere_fall.jsonl")
    rewritten(file, lambda row: row.update(measured=[{"margin": 0.1}] * 3) if row["claim"] == "falls" else None)
    page = Read(report("evidence").file)
    assert "falls: measured before there was a figure" in page.text
    assert "papertrial check elsewhere_fall --claim falls --scale base" in "".join(page.inside["code"])
    assert not page.all("script")


@pytest.mark.parametrize(
    "plot", [lambda measured: 1 / 0, lambda measured: None, lambda measured: measured[0]["margin"]]
)
def test_a_plot_that_fails_costs_its_figure_alone(outside, monkeypatch, plot):
    study.check("elsewhere_fall", folder="evidence")
    module = registry.load("elsewhere_fall")
    monkeypatch.setattr(module, "falls", dataclasses.replace(module.falls, plot=plot))
    page = Read(report("evidence").file)
    assert "falls: its figure cannot be drawn (" in page.text and "Weight is no matter." in page.text


def test_a_claim_that_the_file_has_no_more(outside, monkeypatch):
    study.check("elsewhere_fall", folder="evidence")
    monkeypatch.delattr(registry.load("elsewhere_fall"), "weight_is_no_matter")
    page = Read(report("evidence").file)
    assert (
        "No longer among the paper's claims: weight_is_no_matter." in page.text and "Weight is no matter." in page.text
    )


def test_a_paper_that_is_not_installed_here(outside, monkeypatch):
    study.check("elsewhere_fall", folder="evidence")
    Path("evidence/elsewhere_fall.jsonl").rename("evidence/nobody_has.jsonl")
    told = report("evidence")
    page = Read(told.file)
    assert told.answers == ("2 of 3 claims hold; 1 not run.",)
    assert "This paper is not installed here" in page.text and "Weight is no matter." in page.text


def test_a_paper_that_cannot_be_imported_here(outside, monkeypatch):
    study.check("elsewhere_fall", folder="evidence")

    def load(name):
        raise missing_extra(name, "moon", "space")

    monkeypatch.setattr(registry, "load", load)
    text = Read(report("evidence").file).text
    assert "Its file cannot be imported here" in text and "Weight is no matter." in text and "Only & downwards." in text


def test_machines_are_told_apart_only_where_they_differ(outside):
    study.check("elsewhere_fall", folder="evidence")
    file = Path("evidence/elsewhere_fall.jsonl")
    rewritten(file, lambda row: row.update(environment={"date": "2026-01-02T03:04:05", "cpu": "one"}, commit="abc"))
    assert "2026-01-02 one, commit abc" in Read(report("evidence").file).text
    rewritten(file, lambda row: row["environment"].update(gpus=["fast"], cores=1) if row["claim"] == "falls" else None)
    text = Read(report("evidence").file).text
    assert "one, 1 core, fast, commit abc: falls" in text and "commit abc: weight_is_no_matter and on_the_moon" in text
    rewritten(file, lambda row: row.update(environment={}, commit=""))
    assert "unknown" in Read(report("evidence").file).text


# our own evidence, and what is none


def test_our_own_evidence_has_a_page(tmp_path):
    told = report(ROOT / "evidence", tmp_path / "ours.html")
    files = {file.stem for file in (ROOT / "evidence").glob("*.jsonl")}
    assert told.sections[0] == "Overview" and set(told.sections[1:]) == files
    order = [listed.paper.id for listed in registry.reading_list()]
    assert list(told.sections[1:]) == sorted(told.sections[1:], key=order.index)
    page = Read(told.file)
    for paper in files:
        for row in study.latest(study.history(ROOT / "evidence", paper)).values():
            assert " ".join(row["text"].split()) in page.text
    assert "cannot be drawn" not in page.text


def test_what_is_no_evidence_is_one_line(outside, papertrial):
    study.check("elsewhere_fall", folder="evidence")
    file = Path("evidence/elsewhere_fall.jsonl")
    Path("empty").mkdir()
    Path("log.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    Path("notes.txt").write_text("nothing")
    for path, wanted in [
        ("evidnce", "there is no folder evidnce; did you mean 'evidence'?"),
        ("evidence/elsewhere_fal.jsonl", "there is no file evidence/elsewhere_fal.jsonl; did you mean"),
        ("empty", "empty holds no run, no comparison and no evidence"),
        ("log.jsonl", "log.jsonl holds no evidence of claims"),
        ("notes.txt", "notes.txt holds no evidence of claims"),
    ]:
        code, out, err = papertrial("report", path)
        assert code == 2 and wanted in err and len(err.splitlines()) == 1 and not out
    whole = file.read_text()
    for damage, wanted in [
        (whole[:-20], "EOF while parsing"),
        (whole + "3\n", "is damaged (input should be a valid dictionary)"),
        (whole.replace('"verdict": "holds"', '"verdict": "maybe"'), "is damaged (verdict: "),
        (whole.replace('"scale"', '"size"'), "(scale: field required)"),
    ]:
        file.write_text(damage)
        code, _, err = papertrial("report", "evidence")
        assert code == 2 and wanted in err and len(err.splitlines()) == 1
    file.write_text(whole)
    assert papertrial("report", "evidence", "--out", "a.pdf")[0] == 2


def test_other_lines_in_the_folder_are_left_alone(outside):
    study.check("elsewhere_fall", folder="evidence")
    Path("evidence/answers.jsonl").write_text('{"example": "a", "prediction": 1}\n')
    Path("evidence/.elsewhere_fall-falls-tiny.json").write_text("{}")
    Path("evidence/bytes.jsonl").write_bytes(b"\xff\xfe\x00")
    assert report("evidence").sections == ("Overview", "elsewhere_fall")
