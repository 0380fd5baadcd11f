"""Evidence that knows when the code behind it has changed: a package whose code is changed, and what is said then."""

from __future__ import annotations

import importlib
import sys

import pytest

from papertrial.app.web import shelf
from papertrial.core import registry
from papertrial.core.errors import PapertrialError
from papertrial.core.ours import visible
from papertrial.core.paper import claims_of
from papertrial.study import check as study
from papertrial.study import code_marks, shelf_table
from papertrial.study.evidence import Tried, of_paper

TRIAL = """
import time
from papertrial.core.paper import claim
from toyland import maths

@claim("Twice two is four.", where="eq. 1", kind="trend", clock=("seconds",))
def doubles(scale, seed):
    if (scale, seed) in STOP:
        raise KeyboardInterrupt
    CALLS.append((scale, seed))
    twice = maths.double(2 if scale == "tiny" else 20)
    return twice > 0, {"twice": twice, "margin": twice + seed, "seconds": time.perf_counter()}

CALLS, STOP = [], []
"""


class Toyland:
    """A package in a folder, whose claim is that of `mlp_mixer`, and the folder of its evidence."""

    def __init__(self, place):
        self.package, self.evidence = place / "toyland", place / "evidence"
        self.package.mkdir()
        for name, text in {
            "__init__": "",
            "trial": TRIAL,
            "unused": "",
            "maths": "from toyland import numbers_\n",
        }.items():
            (self.package / f"{name}.py").write_text(text)
        (self.package / "numbers_.py").write_text("TWO = 2\n")
        self.change("maths", "from toyland.numbers_ import TWO\ndef double(x):\n    return TWO * x\n")

    def change(self, name, text):
        """Other code, as a new process would find it."""
        (self.package / f"{name}.py").write_text(text)
        for module in [name for name in sys.modules if name.partition(".")[0] == "toyland"]:
            del sys.modules[module]
        importlib.invalidate_caches()

    @property
    def trial(self):
        return importlib.import_module("toyland.trial")

    def check(self, scale="tiny", **words):
        said = []
        (found,) = study.check("mlp_mixer", scale=scale, folder=self.evidence, echo=said.append, **words)
        return found, [line.strip() for line in said if code_marks.CHANGED in line]

    def shown(self):
        """What the README's table, the page of claims, the page of evidence and the web's list say."""
        tried = Tried.read(self.evidence, "mlp_mixer")
        page = str(of_paper(tried))
        counts = shelf._counts("mlp_mixer", self.evidence, shelf.mark(self.evidence, "mlp_mixer"))
        rows = [row for row in shelf_table.table(self.evidence).splitlines() if row.startswith("| `mlp_mixer`")]
        return [*rows, shelf_table.ledger(self.evidence), page, str(counts)]


@pytest.fixture
def toyland(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(tmp_path)
    made = Toyland(tmp_path)
    claims = registry.claims
    monkeypatch.setattr(registry, "claims", lambda name: claims_of(made.trial) if name == "mlp_mixer" else claims(name))
    monkeypatch.setattr(code_marks, "roots", lambda paper: [made.package])
    monkeypatch.setattr(code_marks, "_RAN", {})
    yield made
    for module in [name for name in sys.modules if name.partition(".")[0] == "toyland"]:
        del sys.modules[module]


def test_base_evidence_keeps_its_tiny_figures_and_the_code_that_ran(toyland):
    found, remarks = toyland.check("base")
    assert found.verdict == "holds" and not remarks
    (kept,) = code_marks.read(toyland.evidence, "mlp_mixer").values()
    assert kept["measured"]["twice"] == 4 and found.measured[0]["twice"] == 40
    assert kept["files"] == [f"toyland/{name}.py" for name in ("__init__", "maths", "numbers_", "trial")]
    assert toyland.trial.CALLS == [("base", 0), ("base", 1), ("base", 2), ("tiny", 0)]
    assert visible(toyland.evidence) == ["mlp_mixer.jsonl", "tiny"]


def test_code_that_did_not_run_may_change(toyland):
    toyland.check("base")
    toyland.change("unused", "LARGE = 1")
    assert not code_marks.untried(toyland.evidence, "mlp_mixer")
    assert not toyland.check()[1]


def test_other_code_with_the_same_figures_leaves_the_evidence_standing(toyland):
    toyland.check("base")
    toyland.change("maths", "def double(x):\n    return x + x\n")
    assert code_marks.untried(toyland.evidence, "mlp_mixer") == {"doubles"}
    tried = Tried.read(toyland.evidence, "mlp_mixer")
    assert "has changed since" in str(of_paper(tried)) and "--scale tiny" in str(of_paper(tried))
    _, (remark,) = toyland.check()
    assert remark.endswith("the figures at tiny scale are the same: its evidence at base scale stands")
    assert not code_marks.untried(toyland.evidence, "mlp_mixer")
    assert not any("changed since" in words for words in toyland.shown())
    assert not toyland.check()[1]  # it is said once


def test_other_figures_are_shown_everywhere_until_the_claim_is_run_again(toyland):
    toyland.check("base")
    right = (toyland.package / "maths.py").read_text()
    toyland.change("numbers_", "TWO = 2.5\n")  # a constant: no function of that file ever runs
    _, (remark,) = toyland.check()
    assert "twice, margin differ at tiny scale" in remark
    assert all(code_marks.CHANGED in words for words in toyland.shown())
    assert toyland.check()[1]  # still
    toyland.check("base")
    assert not any(code_marks.CHANGED in words for words in toyland.shown())
    toyland.change("maths", right.replace("TWO * x", "0 * x"))
    toyland.check()
    toyland.change("maths", right)
    assert "stands" in toyland.check()[1][0]
    assert not any(code_marks.CHANGED in words for words in toyland.shown())


@pytest.mark.parametrize("other", ["unchanged", "maths", "numbers_"])
def test_a_half_finished_check_never_mixes_two_versions_of_the_code(toyland, other):
    toyland.trial.STOP.append(("base", 2))
    with pytest.raises(KeyboardInterrupt):
        toyland.check("base")
    assert toyland.trial.CALLS == [("base", 0), ("base", 1)]
    texts = {"maths": "def double(x):\n    return 3 * x\n", "numbers_": "TWO = 3\n", "unchanged": ""}
    toyland.change(other, texts[other])
    found, _ = toyland.check("base")
    fresh = [("base", 0), ("base", 1)] if other != "unchanged" else []
    assert [*fresh, ("base", 2), ("tiny", 0)] == toyland.trial.CALLS
    assert {row["twice"] for row in found.measured} == ({60} if fresh else {40})


def test_figures_of_another_machine_may_differ_in_their_last_digits(toyland):
    toyland.check("base")
    toyland.change("numbers_", "TWO = 2 * (1 + 1e-9)\n")
    assert "stands" in toyland.check()[1][0]
    toyland.change("numbers_", "TWO = 2 * (1 + 1e-4)\n")
    assert "differ" in toyland.check()[1][0]


def test_a_damaged_file_is_one_line(toyland):
    toyland.check("base")
    code_marks.file_of(toyland.evidence, "mlp_mixer").write_text("{")
    with pytest.raises(PapertrialError, match=r"line 1 of .*mlp_mixer.jsonl is damaged"):
        toyland.check()


def test_what_was_shared_by_an_earlier_claim_is_among_the_files(toyland):
    """The second claim of a paper finds what the first has trained, and depends on that code all the same."""
    with code_marks.watched("mlp_mixer"):
        toyland.trial.maths.double(1)
    with code_marks.watched("mlp_mixer") as files:
        pass
    assert "toyland/maths.py" in files
