"""Files of papertrial's own that are damaged: one line with the file, and advice that repairs it when it is taken."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path

import pytest

from papertrial.discover.index import index
from papertrial.study.compare import compare
from papertrial.use.fit import fit

FIT = ["fit", "majority", "--data", "d.csv", "--out", "runs/one", "--quiet"]
COMPARE = {
    "methods": ["linear"], "data": "d.csv", "folds": "none", "seeds": 2, "budget": "1trials", "baselines": ["majority"],
    "worth": False, "out": "runs/study", "progress": False,
}  # fmt: skip
#: what becomes of a file
DAMAGES = {
    "a list": lambda content: b"[]",
    "a number": lambda content: b"3",
    "nothing in it": lambda content: b"{}",
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "not UTF-8": lambda content: content.replace(b'"', b'"\xff', 4),
    "deep": lambda content: b'{"a":' * 100_000,
    "a long number": lambda content: b'{"format": ' + b"9" * 5000 + b"}",
    "a digit": lambda content: re.sub(rb"\d", lambda digit: b"%d" % (9 - int(digit[0])), content, count=1),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with data, a run, a comparison and an index."""
    folder = tmp_path_factory.mktemp("whole")
    rows = "".join(f"{place % 7},{'abc'[place % 3]},{'yes' if place % 7 > 3 else 'no'}\n" for place in range(60))
    (folder / "d.csv").write_text("size,sort,y\n" + rows)
    documents = [{"id": f"d{place}", "title": f"On trees {place}", "abstract": "We grow them."} for place in range(6)]
    (folder / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in documents))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        fit("majority", "d.csv", out="runs/one", progress=False)
        compare(**COMPARE)
        index("c.jsonl", "runs/idx")
    return folder


@pytest.fixture
def here(whole, tmp_path, papertrial):
    """A copy of it, in which commands are run."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)

    def run(*words: str) -> tuple[int, str, str]:
        code, out, err = papertrial(*words)
        assert "a defect" not in err
        return code, out, err

    return run


def damage(file: str, how: str) -> None:
    place = Path(file)
    content = place.read_bytes()
    place.write_bytes(DAMAGES[how](content))
    assert place.read_bytes() != content


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", ["card.json", "config.json", "result.json"])
def test_a_damaged_file_of_a_run_is_one_line_and_the_advice_repairs_it(here, name, how):
    damage(f"runs/one/{name}", how)
    code, _, err = here("report", "runs/one")
    assert code == 2 and f"runs/one/{name}" in err and len(err.splitlines()) == 1 and len(err) < 600
    if name == "card.json":
        code, _, err = here("predict", "runs/one", "d.csv")
        assert code == 2 and "runs/one/card.json" in err and len(err.splitlines()) == 1
    assert "remove runs/one, and the same fit or compare trains it again" in err
    shutil.rmtree("runs/one")
    assert here(*FIT)[0] == 0 and here("predict", "runs/one", "d.csv")[0] == 0 and here("report", "runs/one")[0] == 0


@pytest.mark.parametrize("how", ["a list", "nothing in it", "cut", "deep", "a digit"])
def test_a_comparison_is_written_again_by_the_same_command(here, how, capsys):
    damage("runs/study/comparison.json", how)
    code, _, err = here("report", "runs/study")
    assert code == 2 and "comparison.json" in err and "the same compare writes it again" in err
    before = {file: file.stat().st_mtime_ns for file in Path("runs/study").glob("*/*/result.json")}
    compare(**COMPARE)
    assert "kept as runs/study/comparison.json.damaged" in capsys.readouterr().err
    assert before == {file: file.stat().st_mtime_ns for file in Path("runs/study").glob("*/*/result.json")}
    assert here("report", "runs/study")[0] == 0


def test_a_damaged_run_costs_the_report_of_its_comparison_that_run(here):
    damage("runs/study/majority/seed0/card.json", "cut")
    with open("runs/study/linear/seed0/metrics.jsonl", "ab") as log:
        log.write(b'3\n{"step": "x"}\n\xff\n')
    code, _, err = here("report", "runs/study")
    assert code == 0 and not err
    page = Path("runs/study/report.html").read_text()
    assert "Left out" in page and "majority/seed0/card.json is damaged" in page and "line 1 of" in page


@pytest.mark.parametrize("how", ["a list", "nothing in it", "cut", "deep", "a digit", "not UTF-8"])
def test_a_damaged_index_is_made_again_as_advised(here, how):
    for file in Path("runs/idx").rglob("manifest.json"):
        damage(str(file), how)
    code, _, err = here("search", "runs/idx", "trees")
    assert code == 2 and "manifest.json" in err and len(err.splitlines()) == 1
    advice = err.strip().partition("type: papertrial ")[2]
    assert advice == "index CORPUS --out runs/idx --fresh"
    assert here(*advice.replace("CORPUS", "c.jsonl").split())[0] == 0
    assert "On trees" in here("search", "runs/idx", "trees")[1]


@pytest.mark.parametrize("name", ["text", "offsets", "documents", "starts", "place", "word_offsets"])
def test_a_changed_array_of_an_index_is_told(here, name):
    (file,) = Path("runs/idx").rglob(f"{name}.npy")
    content = file.read_bytes()
    for changed in (content[:-8] + b"\xff" * 8, content[:-8], content[:60], b""):
        file.write_bytes(changed)
        code, _, err = here("search", "runs/idx", "trees")
        assert code == 2 and f"{name}.npy" in err and "--fresh" in err


def test_one_damaged_index_leaves_the_search_of_others(here):
    pytest.importorskip("fastapi", reason="needs the extra web")
    from starlette.testclient import TestClient

    from papertrial.app.web import make_web

    shutil.copytree("runs/idx", "runs/other")
    for file in Path("runs/idx").rglob("manifest.json"):
        damage(str(file), "deep")
    client = TestClient(make_web(Path("runs"), indexes=[Path("runs/idx")]).guard, base_url="http://127.0.0.1:8000")
    assert "On trees" in client.get("/search?q=trees&index=other").text
    page = client.get("/search?q=trees&index=idx")
    assert page.status_code == 200 and "is damaged" in page.text


def test_names_in_data_control_no_terminal(here):
    bad = "\x1b[31mred\x1b]0;title\x07\u202e\x9b2J"
    Path("bad.csv").write_text(
        "size,y\n" + "".join(f"{place % 7},{bad if place % 7 > 3 else 'no'}\n" for place in range(60))
    )
    for words in (
        ["look", "bad.csv"],
        ["look", "bad.csv", "--json"],
        ["look", f"no such {bad}"],
        ["predict", "runs/one", f"{bad}.csv"],
    ):
        _, out, err = here(*words)
        assert not set("\x1b\x07\u202e\x9b") & set(out + err)
        assert "x1b" in out + err or "u001b" in out


def test_a_cell_of_20_megabytes_is_looked_at_in_seconds_and_not_printed_whole(here):
    rows = "".join(f"{place % 7},{'abc'[place % 3]},{'yes' if place % 7 > 3 else 'no'}\n" for place in range(60))
    Path("big.csv").write_text("size,sort,y\n" + rows + f"1,{'a' * 20_000_000},yes\n")
    begun = time.process_time()
    _, out, err = here("look", "big.csv")
    assert len(out + err) < 20_000 and time.process_time() - begun < 20
