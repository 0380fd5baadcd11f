"""The table of papers and the page of claims are made from the evidence, and nobody types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from papertrial.core import registry
from papertrial.core.errors import PapertrialError
from papertrial.core.paper import Paper
from papertrial.study import check, shelf_table

ROOT = Path(__file__).parents[2]


def test_the_table_is_written_between_its_markers_only(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{shelf_table.START}\na line typed by hand\n{shelf_table.END}\nafter\n")
    assert shelf_table.write_table(readme, tmp_path) is True
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith("after\n")
    assert "`barlow_twins`" in text and "5 not run" in text and "typed by hand" not in text
    assert shelf_table.write_table(readme, tmp_path) is False
    (tmp_path / "bare.md").write_text("nothing")
    with pytest.raises(PapertrialError, match="markers"):
        shelf_table.write_table(tmp_path / "bare.md", tmp_path)


@pytest.mark.parametrize(("file", "make"), [("README.md", shelf_table.table), ("docs/claims.md", shelf_table.ledger)])
def test_the_page_shows_what_the_evidence_says(file, make):
    """`make claims` writes both."""
    text = (ROOT / file).read_text(encoding="utf-8")
    shown = text.split(shelf_table.START, 1)[1].split(shelf_table.END, 1)[0].strip()
    assert shown == make(ROOT / "evidence").strip(), "type: make claims, or python -m tools.site table"


def test_each_paper_of_the_table_leads_to_its_page_and_its_claims():
    rows = [line for line in shelf_table.table(ROOT / "evidence").splitlines() if line.startswith("| [")]
    assert len(rows) == len(registry.papers())
    headings = (ROOT / "docs" / "claims.md").read_text(encoding="utf-8")
    for row in rows:
        page, anchor = row.split("](", 1)[1].split(")", 1)[0], row.split("docs/claims.md#", 1)[1].split(")", 1)[0]
        assert (ROOT / page).is_file() and f"\n## {anchor}\n" in headings, row


def test_verdicts_are_counted_and_a_claim_is_written_out_with_its_bars_escaped(tmp_path):
    found = check.check("barlow_twins", kinds=["identity", "property"], scale="tiny", seeds=1, folder=tmp_path)
    assert len(found) == 3 and all(each.verdict == "holds" for each in found)
    assert "| [3 hold, 2 not run](docs/claims.md#barlow_twins) |" in shelf_table.table(tmp_path)
    (tmp_path / "docs").mkdir()
    for file in ("README.md", "docs/claims.md"):
        (tmp_path / file).write_text(f"{shelf_table.START}\n{shelf_table.END}\n")
    lines = [json.loads(line) for line in (tmp_path / "barlow_twins.jsonl").read_text().splitlines()]
    lines[0] |= {
        "verdict": "fails",
        "held": [False],
        "text": "A | B holds.",
        "reformed": "2026-12-01: it could not fail",
    }
    (tmp_path / "barlow_twins.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    shelf_table.write_table(tmp_path / "README.md", tmp_path)
    table, page = ((tmp_path / file).read_text() for file in ("README.md", "docs/claims.md"))
    assert "[2 hold, 1 fails, 2 not run](" in table
    assert (
        r"| **fails** | A \| B holds (re-formed 2026-12-01: it could not fail) | " in page
        and page.count("| **holds** |") == 2
    )
    assert {row.count("| ") - row.count(r"\| ") for row in page.splitlines() if row.startswith("| **")} == {9}


def test_one_is_told_from_several():
    assert shelf_table.tally(["holds"]) == "1 holds"
    assert shelf_table.tally(["fails", "cannot tell", "holds", "fails", "holds"]) == "2 hold, 2 fail, 1 cannot tell"
    assert shelf_table.tally(["a verdict of tomorrow", "not run"]) == "1 not run, 1 a verdict of tomorrow"


def test_a_paper_without_tasks_says_how_it_is_used():
    def paper(**words):
        return Paper(id="p", title="P", kind=words.pop("kind", "technique"), idea="", **words)

    assert shelf_table.use(paper(command="papertrial rasp")) == "`papertrial rasp`"
    assert shelf_table.use(paper(kind="analysis")) == "`papertrial measure p`"
    assert shelf_table.use(paper(techniques=("agc",))) == "`--technique agc`"
    assert shelf_table.use(paper()) == "none"


def test_the_command_writes_the_table(papertrial, tmp_path):
    (tmp_path / "README.md").write_text(f"{shelf_table.START}\n{shelf_table.END}\n")
    code, _, said = papertrial(
        "check", "barlow_twins", "--kind", "identity", "--evidence", "e", "--readme", "README.md"
    )
    assert code == 0, said
    assert "| [1 holds, 4 not run](" in (tmp_path / "README.md").read_text()
