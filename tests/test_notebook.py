"""In a notebook: what results look like, progress, and the notebook of the examples, which is executed."""

from __future__ import annotations

import contextlib
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import papertrial as pt
from papertrial.core import notebook
from papertrial.core.html import page
from papertrial.core.paper import Report
from papertrial.data.base import track
from papertrial.train.progress import Display

NASTY = "<script>alert('x')</script> & \"so\" on"
NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples").glob("*.ipynb"))


class Cells(HTMLParser):
    """The words of a page by tag, and whether all tags are closed in their order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.tags = [], [], set()
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """Results of each sort, made of data that hold HTML where words can stand."""
    place = tmp_path_factory.mktemp("shown")
    draw = np.random.default_rng(0)
    frame = pd.DataFrame({NASTY: draw.normal(size=60), "b": draw.normal(size=60)})
    frame["y"] = np.where(frame["b"] > 0, NASTY, "plain")
    made = pt.fit("linear", frame, target="y", out=place / "run", progress=False)
    compared = pt.compare(
        "linear",
        frame,
        target="y",
        baselines="majority",
        seeds=1,
        folds="none",
        worth=False,
        echo=None,
        out=place / "compared",
    )
    return {
        "facts": pt.open(frame, target="y", name=NASTY).look(),
        "look": pt.look(frame, target="y"),
        "artifact": made,
        "scores": made.evaluate(frame),
        "comparison": compared,
        "estimate": pt.estimate("linear", frame, target="y"),
        "page": pt.read("rtdl"),
        "report": Report(NASTY, NASTY, ((NASTY, NASTY),), (NASTY,), ((NASTY,),), caveats=(NASTY,)),
    }


SORTS = ("facts", "look", "artifact", "scores", "comparison", "estimate", "page", "report")


@pytest.mark.parametrize("sort", SORTS)
def test_a_table_whose_words_are_escaped(shown, sort):
    cells = Cells(shown[sort]._repr_html_())
    assert cells.tags <= {"div", "p", "b", "table", "thead", "tbody", "tr", "th", "td"} and "td" in cells.tags


def test_nasty_words_are_shown_as_they_are(shown):
    for sort in ("facts", "report"):
        assert any(NASTY in words for words in Cells(shown[sort]._repr_html_()).words)


def test_what_the_tables_say(shown):
    said = {sort: " ".join(Cells(shown[sort]._repr_html_()).words) for sort in SORTS}
    assert (
        "accuracy" in said["comparison"]
        and "majority" in said["comparison"]
        and shown["comparison"].sentences[0] in said["comparison"]
    )
    assert f"{shown['artifact'].card['metrics']['accuracy']:.3f}" in said["artifact"]
    assert "rtdl" in said["look"] and "60" in said["facts"]
    assert "95 %" in said["scores"] and "total" in said["estimate"] and "Revisiting" in said["page"]


def test_a_page_leaves_out_what_is_empty():
    assert page("") == "<div></div>"
    assert page("t", rows=[["a", 1]]).count("<tr>") == 1


class Stream(io.StringIO):
    """As ipykernel's, which is told by its module."""

    __module__ = "ipykernel.iostream"

    def isatty(self):
        return False


@contextlib.contextmanager
def in_a_notebook():
    with contextlib.redirect_stderr(Stream()) as stream:
        assert notebook.inside()
        yield stream


def test_training_writes_over_one_line(monkeypatch):
    monkeypatch.setattr(notebook, "_REFRESH", 0.0)
    monkeypatch.setattr("papertrial.train.progress._REFRESH", 0.0)
    with in_a_notebook() as stream, Display(10, 0, True) as display:
        for step in range(1, 11):
            display.show(step, loss=0.5)
    written = stream.getvalue()
    assert "\rtraining: step 10 of 10, loss 0.5" in written and written.count("\n") == 1 and written.endswith("\n")


def test_reading_writes_over_one_line(monkeypatch):
    monkeypatch.setattr(notebook, "_REFRESH", 0.0)
    monkeypatch.setattr("papertrial.data.base.time.monotonic", iter(range(0, 1000, 3)).__next__)
    with in_a_notebook() as stream:
        assert list(track(range(3), 3, "reading")) == [0, 1, 2]
    assert "\rreading: 3 of 3" in stream.getvalue()


def test_nothing_is_written_where_nobody_looks(capsys):
    with Display(10, 0, False) as display:
        display.show(5, loss=0.5)
    assert list(track(range(3), 3, "reading")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def _code(path):
    return [
        "".join(cell["source"]) for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_cells_run_in_order(path, tmp_path, monkeypatch):
    """As a kernel would run them: one namespace, each cell's last value shown as HTML where it has some."""
    import ast

    monkeypatch.chdir(tmp_path)
    names: dict = {}
    displayed = 0
    for source in _code(path):
        tree = ast.parse(source)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, path.name, "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), path.name, "eval"), names)
            if hasattr(value, "_repr_html_"):
                displayed += bool(value._repr_html_())
    assert displayed >= 3


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_in_a_kernel(path, tmp_path):
    """What a reader of the notebook sees; needs nbclient and ipykernel, which the extra `dev` brings."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    nbclient.NotebookClient(book, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("text/html" in output.get("data", {}) for output in shown)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_without_results(path):
    """Results would grow old, and differ with every machine."""
    book = json.loads(path.read_text("utf-8"))
    assert book["nbformat"] == 4
    assert all(
        not cell["outputs"] and cell["execution_count"] is None for cell in book["cells"] if cell["cell_type"] == "code"
    )
    assert all(cell["id"] for cell in book["cells"])
