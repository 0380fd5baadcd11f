"""Reports of real runs and comparisons: what is on the page, in which order, that nothing on it can run or fetch anything,
what happens when pieces are missing, and what a browser makes of it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import webpage
from papertrial.app.cli import main
from papertrial.core.errors import PapertrialError
from papertrial.core.files import read_json, write_json
from papertrial.study import html_page as page
from papertrial.study.compare import Comparison, compare
from papertrial.study.report import report
from papertrial.use.fit import fit
from webpage import Read

EVIL = "<script>alert(1)</script>"
IMAGE = '"><img src=https://evil.example/x onerror=alert(2)>'
ORDER = [
    "Result",
    "Data",
    "Learning",
    "Errors",
    "Settings",
    "Papers and caveats",
    "Cost",
    "Protocol",
    "How to reproduce",
]


@pytest.fixture(scope="module")
def comparison(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wine") / "study"
    compare(
        ["rtdl:mlp"],
        "wine",
        folds="none",
        seeds=2,
        budget="20steps+2trials",
        baselines=["linear", "xgboost", "majority"],
        against="linear",
        out=folder,
        settings={"lr": "0.002"},
        progress=False,
        echo=None,
    )
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("digits") / "run"
    fit("mlp_mixer", "digits", recipe="tiny", budget="6steps", out=folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    """A run on a table that is called, and whose columns and classes are called, like HTML."""
    place = tmp_path_factory.mktemp("hostile")
    draw = np.random.default_rng(0)
    target = draw.integers(2, size=120)
    frame = pd.DataFrame(
        {
            EVIL: target + draw.normal(size=120),
            IMAGE: draw.choice(["a", EVIL, "b"], 120),
            "kind": np.array([EVIL, "'\"&amp;<b>"])[target],
        }
    )
    file = place / "<b>bold & <i>.csv"
    frame.to_csv(file, index=False)
    fit("linear", file, target="kind", out=place / "run", progress=False)
    return place / "run"


@pytest.fixture(scope="module")
def regression(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("diabetes") / "run"
    fit("rtdl:mlp", "diabetes", recipe="tiny", budget="10steps", settings={"patience": "4"}, out=folder, progress=False)
    return folder


def written(folder: Path, tmp_path: Path, **options) -> Read:
    return Read(report(folder, tmp_path / "report.html", replace=True, **options).file)


def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def changed(file: Path, change) -> None:
    content = read_json(file)
    change(content)
    write_json(file, content)


# ------------------------------------------------------------------------------------------------------------- content


def test_a_comparison_answers_its_question_in_this_order(comparison, tmp_path):
    found = Comparison.read(comparison)
    read = written(comparison, tmp_path)
    assert read.inside["h1"] == ["Does rtdl:mlp help on wine?"]
    assert read.inside["h2"] == ORDER
    for sentence in found.sentences:
        assert page.typeset(sentence) in read.text.replace(" ;", ";").replace(" :", ":")
    position = [
        read.text.index(page.typeset(found.sentences[0])[-30:]),
        *(read.text.index(word) for word in ("Seed by seed",)),
    ]
    assert position == sorted(position)
    forests = [svg for svg in read.all("svg") if "forest" in svg.get("class", "")]
    assert len(forests) == len(found.rows)
    row = next(row for row in found.rows if row.name == "rtdl:mlp")
    assert page.typeset(f"{row.difference:+.{found.digits}f} [{row.low:+.{found.digits}f}") in read.text
    titles = [figure["aria-label"] for figure in read.all("div") if figure.get("class") == "plot"]
    for beginning in (
        "Seed by seed",
        "Loss of rtdl:mlp",
        "Validation accuracy",
        "Tuning",
        "Worth in labels",
        "linear",
        "rtdl:mlp",
    ):
        assert any(title.startswith(beginning) for title in titles), (beginning, titles)
    assert "alcohol" in read.text and "Classes" in read.text  # the data were opened again
    assert "lr 0.002 you" in read.text
    assert "California Housing" in read.text  # a caveat of rtdl
    assert "In all 12 runs" in read.text and "4 of them on fewer labels" in read.text
    assert "fingerprint" in read.text and "torch 2" in read.text and "seeds 0, 1" in read.text


def test_what_is_kept_of_a_comparison_is_read_back(comparison):
    found = Comparison.read(comparison)
    assert found.seeds == 2 and found.complete and found.reference == "linear"
    assert found.lines()[-1].strip()
    held = read_json(comparison / "comparison.json")
    again = json.loads(json.dumps(found.to_json(), default=lambda value: value.to_json()))
    assert {name: held[name] for name in again if name != "rows"} == {n: v for n, v in again.items() if n != "rows"}
    assert [row["metrics"] for row in held["rows"]] == [row.metrics for row in found.rows]


def test_the_command_on_the_page_gives_the_run_again(images, tmp_path, monkeypatch):
    command = shlex.split(written(images, tmp_path).inside["code"][0])
    command[command.index("--out") + 1] = str(tmp_path / "again")
    monkeypatch.setattr(sys, "argv", [*command, "--quiet"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    first, second = (read_json(folder / "result.json") for folder in (images, tmp_path / "again"))
    assert first["metrics"] == second["metrics"] and first["answers"] == second["answers"]


def test_the_command_of_a_comparison_is_complete(comparison, tmp_path):
    command = written(comparison, tmp_path).inside["code"][0]
    words = shlex.split(command.splitlines()[0])
    assert words[:3] == ["papertrial", "compare", "rtdl:mlp"]
    for pair in (
        ["--data", "wine"],
        ["--seeds", "2"],
        ["--budget", "20steps+2trials"],
        ["--against", "linear"],
        ["--set", "lr=0.002"],
    ):
        assert words[words.index(pair[0]) + 1] == pair[1]
    assert "baselines=['linear', 'xgboost', 'majority']" in command  # what the command line cannot say


def test_images_show_some_of_each_class(images, tmp_path):
    read = written(images, tmp_path)
    pictures = read.all("img")
    assert {picture["alt"] for picture in pictures} == {str(digit) for digit in range(10)}
    assert len(pictures) == 80
    assert all(picture["src"].startswith("data:image/png;base64,") for picture in pictures)
    assert read.inside["h1"] == ["How well does mlp_mixer do on digits?"]
    assert "One run is not a verdict" in read.text
    assert not written(images, tmp_path, data=False).all("img")


def test_confusion_is_kept_and_adds_up(images, tmp_path):
    result = read_json(images / "result.json")
    counts = np.array(result["answers"]["confusion"])
    assert counts.shape == (10, 10)
    assert np.trace(counts) / counts.sum() == pytest.approx(result["metrics"]["accuracy"])
    heat = next(plot for plot in written(images, tmp_path).plots.values() if plot["data"][0]["type"] == "heatmap")
    assert heat["data"][0]["customdata"] == counts.tolist()


def test_numbers_show_answers_against_the_truth(regression, tmp_path):
    read = written(regression, tmp_path)
    answers = read_json(regression / "result.json")["answers"]
    drawn = next(plot for plot in read.plots.values() if plot["layout"]["xaxis"]["title"]["text"] == "truth")
    assert drawn["data"][1]["x"] == answers["truth"]
    assert "lower is better" in read.text
    validation = next(plot for plot in read.plots.values() if plot["layout"]["yaxis"]["title"]["text"] == "rmse")
    assert min(validation["data"][0]["y"]) > 0  # in the metric's own direction


# -------------------------------------------------------------------------------------------------------- safe, offline


@pytest.mark.parametrize("name", ["comparison", "images", "hostile", "regression"])
def test_the_page_fetches_nothing_and_runs_only_its_own_scripts(name, request, tmp_path):
    read = written(request.getfixturevalue(name), tmp_path)
    for tag, attributes in read.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        assert not [key for key in attributes if key.startswith("on")]
        assert attributes.get("src", "data:").startswith("data:")
        assert tag == "a" or "href" not in attributes
        assert "url(" not in attributes.get("style", "")
    assert not re.search(r"url\(|@import", read.inside["style"][0])
    assert all(link["href"].startswith(("#", "https://arxiv.org/abs/")) for link in read.all("a"))
    names = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(names) == len(set(names))
    assert {link["href"][1:] for link in read.all("a") if link["href"].startswith("#")} <= set(names)
    policy = next(meta["content"] for meta in read.all("meta") if "Content-Security-Policy" in meta.values())
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    data, *scripts = read.inside["script"]
    assert len(scripts) == 2
    for script in scripts:
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    assert not re.search("[<>&]", data)


def test_names_that_look_like_html_stay_text(hostile, tmp_path):
    read = written(hostile, tmp_path)
    assert EVIL in read.text and IMAGE in read.text and "'\"&amp;<b>" in read.text
    assert not read.all("b") or "bold" not in " ".join(read.inside["h1"]).replace("<b>bold & <i>.csv", "")
    assert "<b>bold & <i>.csv" in read.inside["h1"][0]
    labels = json.dumps(read.plots)
    assert "<script" not in labels and "&lt;script&gt;" in labels  # Plotly reads some HTML in its texts


def test_every_figure_is_one_that_plotly_knows(comparison, images, regression, tmp_path):
    graph = pytest.importorskip("plotly.graph_objects")
    for folder in (comparison, images, regression):
        for plot in written(folder, tmp_path).plots.values():
            graph.Figure(plot)  # raises for a property or a value that it does not have
            assert {trace["type"] for trace in plot["data"]} <= {
                "scatter",
                "heatmap",
            }  # the bundle holds these and few more


# ------------------------------------------------------------------------------------------------------- missing pieces


def test_data_that_are_gone_or_others_are_said_to_be(hostile, tmp_path):
    folder = copied(hostile, tmp_path)
    gone, other = tmp_path / "gone.csv", tmp_path / "other.csv"
    pd.DataFrame({"x": range(30), "kind": ["a", "b"] * 15}).to_csv(other, index=False)
    changed(folder / "card.json", lambda card: card["data"].update(source=str(gone)))
    assert "not shown: there is no" in written(folder, tmp_path).text
    changed(folder / "card.json", lambda card: card["data"].update(source=str(other)))
    assert "has changed since the run" in written(folder, tmp_path).text
    changed(folder / "card.json", lambda card: card["data"].update(source=""))
    read = written(folder, tmp_path)
    assert "given from Python" in read.text
    assert "--data DATA" in read.inside["code"][0]
    assert "Classes" in read.text  # what was counted then is still told


def test_a_method_that_failed_is_told_with_its_reason(comparison, tmp_path):
    folder = copied(comparison, tmp_path)

    def fail(content):
        row = next(row for row in content["rows"] if row["name"] == "rtdl:mlp")
        row.update(dict.fromkeys(("metric", "difference", "low", "high", "seconds", "peak_bytes", "worth")))
        row.update(metrics={}, reason="the loss is not finite at step 7")
        content["verdicts"] = {}
        content["failed"] = {"rtdl:mlp": "the loss is not finite at step 7"}
        content["sentences"] = [
            "rtdl:mlp failed on this data: the loss is not finite at step 7.",
            "No method is shown to beat linear: use linear here.",
        ]

    changed(folder / "comparison.json", fail)
    for run in (folder / "rtdl-mlp").iterdir():
        (run / "card.json").unlink()
        (run / "result.json").unlink()
    read = written(folder, tmp_path)
    assert "rtdl:mlp failed on this data" in read.text
    assert "stopped with seed 0 and 1" in read.text  # how far it came is still drawn
    assert read.inside["h1"] == ["Does rtdl:mlp help on wine?"]


def test_one_seed_has_no_interval_and_an_unfinished_one_says_so(tmp_path):
    folder = tmp_path / "study"
    compare(
        ["majority"],
        "iris",
        folds="none",
        seeds=1,
        budget="1trials",
        baselines=["linear"],
        worth=False,
        out=folder,
        progress=False,
        echo=None,
    )
    changed(folder / "comparison.json", lambda content: content.update(complete=False))
    assert Comparison.read(folder).rows[1].low is None
    read = written(folder, tmp_path)
    assert "Not finished" in read.text and "Worth" not in read.text
    assert "Learning" not in read.inside["h2"]  # nothing was logged or tuned
    traces = next(iter(read.plots.values()))["data"]
    assert traces[0]["error_x"]["visible"] is False


@pytest.mark.parametrize(
    ("kwh", "wanted"),
    [
        ((0.004, 0.004), "Energy: 32 Wh estimated (a model of it)."),  # the label of the weakest part
        ((0.004, None), "Energy: unknown (a model of it; no meter)."),  # and no sum with a part unknown
    ],
)
def test_energy_is_told_with_how_it_is_known(comparison, tmp_path, kwh, wanted):
    folder = copied(comparison, tmp_path)
    for file in folder.glob("*/seed*/result.json"):
        changed(file, lambda result: result["cost"].update(kwh=0.0, energy="measured", energy_how="", seconds=1.0))
    names = ["linear", "linear", "rtdl-mlp", "rtdl-mlp", "xgboost", "xgboost", "majority", "majority"]
    for index, name in enumerate(names):
        own = kwh[index // 4]
        told = {"kwh": own, "energy": "estimated", "energy_how": "a model of it"}
        if own is None:
            told = {"kwh": None, "energy": "unknown", "energy_how": "no meter"}
        changed(
            folder / name / f"seed{index % 2}" / "result.json", lambda result, told=told: result["cost"].update(told)
        )
    text = written(folder, tmp_path).text
    assert wanted in text
    assert "4.0 Wh estimated" in text  # a run of a method


def test_without_plots_no_script_is_on_the_page():
    bare = page.render(page.Page("", "Why?", [page.Answer("Because.")], [page.Section("A", [page.Text("b")])]))
    assert "<script" not in bare
    assert "script-src &#39;none&#39;" in bare
    assert 'id="b"' not in page.render(page.Page("", "Why?", [], [page.Section("B", [])]))


# ----------------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def papertrial(capsys, monkeypatch):
    def run(*words):
        monkeypatch.setattr(sys, "argv", ["papertrial", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        out = capsys.readouterr()
        return stop.value.code or 0, out.out, out.err

    return run


def test_the_command_writes_into_the_folder(papertrial, images, tmp_path):
    folder = copied(images, tmp_path)
    code, out, _ = papertrial("report", folder)
    assert code == 0 and "report.html" in out and (folder / "report.html").exists()
    code, out, _ = papertrial("report", folder, "--json", "--out", tmp_path / "b.html", "--no-data")
    told = json.loads(out)
    assert told["kind"] == "run" and told["sections"] == ORDER and told["file"] == str(tmp_path / "b.html")
    assert told["size"] == (tmp_path / "b.html").stat().st_size
    assert papertrial("report", folder)[0] == 0  # a page of the run's own is written again, any other only when told to
    code, _, err = papertrial("report", folder, "--out", tmp_path / "b.html")
    assert code == 2 and "b.html is there already; choose another --out, or add --replace" in err
    assert papertrial("report", folder, "--out", tmp_path / "b.html", "--replace")[0] == 0


def test_what_cannot_be_reported_is_one_line(papertrial, images, comparison, tmp_path, monkeypatch):
    folder = copied(images, tmp_path)
    for words, wanted in [
        ((tmp_path / "copi",), "did you mean 'copy'?"),
        ((tmp_path,), "name one in it, such as"),
        ((folder, "--out", tmp_path / "a.pdf"), "ends in .html"),
    ]:
        code, _, err = papertrial("report", *words)
        assert code == 2 and wanted in err and len(err.splitlines()) == 1
    (folder / "result.json").unlink()
    with pytest.raises(PapertrialError, match="not finished"):
        report(folder)
    lonely = tmp_path / "lonely"
    lonely.mkdir()
    shutil.copy(comparison / "comparison.json", lonely)
    with pytest.raises(PapertrialError, match="are not there"):
        report(lonely)
    assert not list(tmp_path.glob("*.html"))


# ----------------------------------------------------------------------------------------------------------- the browser


def test_a_report_weighs_less_than_two_megabytes(comparison, images, hostile, tmp_path):
    for name, folder in (("comparison", comparison), ("images", images), ("hostile", hostile)):
        assert report(folder, tmp_path / f"{name}.html").size < 2_000_000


def test_a_browser_draws_it_without_a_complaint(comparison, images, hostile, tmp_path):
    for name, folder in (("comparison", comparison), ("images", images), ("hostile", hostile)):
        webpage.look(report(folder, tmp_path / f"{name}.html").file)


@pytest.mark.parametrize("method", ["mlp_mixer", "nfnet"])  # nfnet's recipe has agc already
@pytest.mark.parametrize("technique", ["", "agc", "agc:clip=0.02"])
def test_the_command_names_the_techniques(method, technique, papertrial, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ["--data", "digits", "--recipe", "tiny", "--budget", "2steps", "--set", "lr=0.002"]
    asked += ["--technique", technique] if technique else []
    code, _, err = papertrial("fit", method, *asked, "--out", "run", "-q")
    assert code == 0, err
    finished = (tmp_path / "run" / "result.json").stat().st_mtime_ns
    code, _, err = papertrial("report", "run", "--no-data")
    assert code == 0, err
    command = next(text for text in Read(tmp_path / "run" / "report.html").inside["code"] if " fit " in text)
    assert ("--technique agc" in command) == bool(technique)
    code, _, err = papertrial(*shlex.split(command)[1:], "-q")
    assert code == 0, err
    assert (tmp_path / "run" / "result.json").stat().st_mtime_ns == finished  # the same run, so nothing was trained
