"""The reading list: every row can be shown, looked up and trusted."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from papertrial.core import registry
from papertrial.core.paper import KINDS, Paper

MONTHS = {"2021-01", "2021-03", "2021-04", "2021-06", "2021-07"}
ROWS = json.loads((Path(registry.__file__).parent / "reading_list.json").read_text(encoding="utf-8"))
#: released in January, on arXiv only at the end of February
LATE_ON_ARXIV = {"clip"}
GITHUB = r"https://github\.com/[\w.-]+/[\w.-]+(/tree/[\w./-]+)?"
each_row = pytest.mark.parametrize("row", [pytest.param(row, id=row["id"]) for row in ROWS])


def test_length_and_no_repeats():
    assert 45 <= len(ROWS) <= 55
    for key in ("id", "title", "arxiv", "idea"):
        repeated = [value for value, count in Counter(row[key] for row in ROWS if row[key]).items() if count > 1]
        assert not repeated, f"{key} occurs more than once: {repeated}"


def test_rows_are_in_order_of_selection():
    months = [row["month"] for row in ROWS]
    assert set(months) == MONTHS
    assert months == sorted(months)


@each_row
def test_identity(row):
    assert row["id"].isidentifier()
    assert row["id"] == row["id"].lower()
    assert row["title"] == row["title"].strip() != ""
    assert row["kind"] in KINDS
    assert row["kind"] != "estimator", "baselines are not on the reading list"


@each_row
def test_date(row):
    if not row["arxiv"]:
        assert row["year"] == 2021
        return
    assert re.fullmatch(r"\d{4}\.\d{5}", row["arxiv"])
    written = f"20{row['arxiv'][:2]}-{row['arxiv'][2:4]}"
    assert row["year"] == int(written[:4])
    assert written >= "2020-12"
    assert written <= row["month"] or row["id"] in LATE_ON_ARXIV, "selected before it was written"


@each_row
def test_code_and_its_licence(row):
    assert row["official"] == "" or re.fullmatch(GITHUB, row["official"])
    assert not (row["licence"] and not row["official"]), "a licence needs the code it covers"


@each_row
def test_authors(row):
    listed, _, others = row["authors"].partition(" and ")
    names = listed.split(", ")
    assert all(len(name.split()) >= 2 for name in names), "first and last names, separated by commas"
    assert len(set(names)) == len(names)
    if others:
        count = re.fullmatch(r"(\d+) others", others)
        assert count is not None
        assert len(names) == 8
        assert len(names) + int(count[1]) > 12
    else:
        assert len(names) <= 12


@each_row
def test_idea_is_one_short_sentence(row):
    idea = row["idea"]
    assert 40 <= len(idea) <= 120
    assert idea[0].isupper()
    assert idea.endswith(".")
    assert ". " not in idea
    assert "  " not in idea


@each_row
def test_tasks(row):
    assert 1 <= len(row["tasks"]) <= 2
    known = {*registry.tasks(), *registry.declared_tasks()}
    assert set(row["tasks"]) <= known, f"{set(row['tasks']) - known} is neither built nor declared in core/declared.py"


def test_a_declared_task_comes_with_papers_and_says_so(papertrial):
    assert registry.declared_tasks(), "every task is built: drop core/declared.py"
    waiting = {name for row in registry.reading_list() if not row.on_shelf for name in row.paper.tasks}
    assert set(registry.declared_tasks()) <= waiting, "a declared task that no paper of the list brings"
    assert not set(registry.declared_tasks()) & set(registry.tasks())
    code, out, _ = papertrial("list", "--task", "question_answering")
    assert code == 0
    assert "question_answering (not built yet) asks to answer questions" in " ".join(out.split())
    code, out, _ = papertrial("read", "paq")
    assert "question_answering (not built yet)" in " ".join(out.split())
    for command in ("fit", "compare"):
        code, out, err = papertrial(command, "byt5", "--data", "python-docs", "--task", "question_answering")
        assert (code, err) == (
            2,
            "papertrial: the task question_answering is not built yet: it comes with end_to_end_retriever, paq; type: "
            "papertrial list --task question_answering\n",
        )


def test_a_task_that_is_built_takes_the_place_of_its_declaration(monkeypatch):
    name = next(iter(registry.declared_tasks()))
    point = SimpleNamespace(name=name, value="elsewhere", load=lambda: SimpleNamespace(name=name))
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == "papertrial.tasks" else [])
    for held in (registry.tasks, registry.declared_tasks):
        held.cache_clear()
    try:
        assert name not in registry.declared_tasks()
        assert registry.task(name).name == name
    finally:
        monkeypatch.undo()
        for held in (registry.tasks, registry.declared_tasks):
            held.cache_clear()


def test_registry_lists_every_row_in_order():
    listed = registry.reading_list()
    assert [line.paper.id for line in listed[: len(ROWS)]] == [row["id"] for row in ROWS]
    for row, line in zip(ROWS, listed, strict=False):
        if not line.on_shelf:
            assert line.paper == Paper(**row)


@pytest.mark.parametrize("key", ["arxiv", "month", "year"])
def test_papers_on_the_shelf_agree_with_their_row(key):
    listed = zip(ROWS, registry.reading_list(), strict=False)
    both = {row["id"]: (getattr(line.paper, key), row[key]) for row, line in listed}
    assert {name: pair for name, pair in both.items() if pair[0] != pair[1]} == {}, "on the shelf, on the list"


def test_a_listed_paper_without_code_is_refused_with_its_name():
    waiting = [line.paper.id for line in registry.reading_list() if not line.on_shelf]
    if not waiting:
        pytest.skip("every paper of the list is on the shelf")
    with pytest.raises(registry.PapertrialError, match=f"{waiting[0]} is on the reading list but not on the shelf"):
        registry.find(waiting[0])
