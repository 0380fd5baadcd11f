"""Claims as evidence: the verdict is computed, a flip is noticed, an interrupted check goes on, the table has one source."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
from types import ModuleType

import numpy as np
import pytest

from papertrial.core import registry
from papertrial.core.errors import Declined, PapertrialError
from papertrial.core.ours import MARKER, visible
from papertrial.core.paper import claim, claims_of
from papertrial.study import check as study


@pytest.mark.parametrize(
    ("kind", "held", "margins", "verdict"),
    [
        ("identity", [True], None, "holds"),
        ("property", [True, True, False], None, "fails"),
        ("trend", [True, True, True], None, "cannot tell"),
        ("trend", [True] * 6, None, "holds"),
        ("trend", [False] * 6, None, "fails"),
        ("trend", [True] * 9 + [False], None, "cannot tell"),
        ("trend", [True, True, True], [2, 2, 2], "cannot tell"),
        ("trend", [True] * 6, [2] * 6, "holds"),
        ("trend", [True, False, True], [0.10, 0.11, 0.12], "cannot tell"),
        ("trend", [False, False, False], [0.10, 0.11, 0.12], "cannot tell"),
        ("trend", [True, False, True], None, "cannot tell"),
        ("trend", [True, True, True], [0.10, 0.11, 0.12], "holds"),
        ("trend", [False, False, False], [-0.10, -0.11, -0.12], "fails"),
        ("trend", [True, True, False], [0.10, 0.11, -0.12], "cannot tell"),
        ("trend", [True, True, True], [0.01, 0.30, 0.02], "cannot tell"),
        ("trend", [True], [0.10], "cannot tell"),
        ("trend", [True, True, True], [0.1, float("nan"), 0.1], "cannot tell"),
        ("number", [True], None, "holds"),
        ("number", [], None, "not run"),
    ],
)
def test_the_verdict_is_computed(kind, held, margins, verdict):
    assert study.judge(kind, held, margins)[0] == verdict


NO_EFFECT = {
    "normal": lambda draw, shape: draw.standard_normal(shape),
    "the least of three": lambda draw, shape: draw.standard_normal((*shape, 3)).min(axis=-1) + 0.846,
    "a coin": lambda draw, shape: draw.choice([-1.0, 1.0], shape),
    "rounded": lambda draw, shape: draw.standard_normal(shape).round(),
    "three words": lambda draw, shape: draw.integers(-1, 2, shape).astype(float),
    "saturated": lambda draw, shape: draw.standard_normal(shape).clip(-0.5, 0.5),
}


@pytest.mark.parametrize("name", NO_EFFECT)
@pytest.mark.parametrize("seeds", [3, 6])
@pytest.mark.parametrize("margin", [True, False])
def test_what_has_no_effect_seldom_holds(name, seeds, margin):
    found = NO_EFFECT[name](np.random.default_rng(0), (2000, seeds))
    words = [study.judge("trend", [x > 0 for x in row], row.tolist() if margin else None)[0] for row in found]
    assert words.count("holds") / len(words) <= 0.05
    assert words.count("fails") / len(words) <= (0.05 if margin else 1)


def test_every_trend_has_a_margin_and_the_evidence_is_judged_by_it(tmp_path):
    shutil.copytree("evidence", tmp_path / "evidence")
    assert study.judge_again(tmp_path / "evidence") == []  # python -m tools.site again
    for paper in registry.papers():
        claims = {one.name: one for one in registry.claims(paper)}
        for name, row in study.latest(study.history("evidence", paper)).items():
            if row["kind"] == "trend" and name in claims and row["verdict"] != "not run":
                margins = [study.margin_of(claims[name], measured) for measured in row["measured"]]
                assert None not in margins, f"{paper}: {name} has no margin"


def test_a_word_is_judged_again_from_what_was_measured(paper, tmp_path):
    claims = {one.name: one for one in registry.claims("toy")}
    row = {"claim": "ones", "kind": "trend", "held": [True] * 3, "measured": [{"margin": 0.2}] * 3, "verdict": "holds"}
    assert study.again(claims["ones"], row)["verdict"] == "cannot tell"  # three ties say as little as three coins
    clear = {**row, "measured": [{"margin": value} for value in (0.2, 0.21, 0.19)], "verdict": "cannot tell"}
    assert study.again(claims["ones"], clear) | {"interval": ()} == clear | {
        "verdict": "holds",
        "margin": pytest.approx(0.2),
        "interval": (),
    }


def test_the_interval_is_students():
    from scipy import stats

    margins = [0.1, 0.2, 0.4, 0.1]
    _, interval = study.judge("trend", [True] * 4, margins)
    assert interval == pytest.approx(stats.t.interval(0.95, 3, loc=0.2, scale=stats.sem(margins)))


@pytest.fixture
def paper(monkeypatch):
    """A paper whose claims answer what `answers` says; `calls` records the seeds they were asked with."""
    module = ModuleType("toy")
    module.answers, module.calls = {}, []

    @claim("Ones are ones.", where="eq. 1", kind="trend")
    def ones(scale, seed):
        module.calls.append(seed)
        answer = module.answers.get(seed, 0.5)
        if isinstance(answer, BaseException):
            raise answer
        return answer > 0, {"margin": answer}

    module.ones = ones
    monkeypatch.setattr(registry, "claims", lambda name: claims_of(module))
    return module


def test_a_line_of_evidence_says_what_was_measured_where_and_when(paper, tmp_path):
    paper.answers = {0: 0.5, 1: 0.6, 2: 0.55}
    (found,) = study.check("toy", folder=tmp_path)
    assert found.verdict == "holds"
    (line,) = (tmp_path / "toy.jsonl").read_text().splitlines()
    row = json.loads(line)
    assert row["measured"] == [{"margin": 0.5}, {"margin": 0.6}, {"margin": 0.55}]
    assert row["environment"]["versions"]["numpy"]
    assert row["environment"]["date"] and row["seeds"] == [0, 1, 2]
    assert row["interval"][0] < row["margin"] < row["interval"][1]


def test_an_interrupted_check_goes_on_after_the_last_finished_seed(paper, tmp_path):
    paper.answers = {2: KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        study.check("toy", folder=tmp_path)
    assert not (tmp_path / "toy.jsonl").exists()
    paper.answers = {}
    study.check("toy", folder=tmp_path)
    assert paper.calls == [0, 1, 2, 2]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [MARKER, "toy.jsonl"]


def test_what_cannot_be_run_is_not_run(paper, tmp_path):
    paper.answers = {0: Declined("needs ImageNet")}
    (found,) = study.check("toy", folder=tmp_path)
    assert (found.verdict, found.reason) == ("not run", "needs ImageNet")


def test_a_claim_that_held_and_fails_now_is_noticed_at_its_scale(paper, tmp_path):
    paper.answers = {0: 0.5, 1: 0.6, 2: 0.55}
    study.check("toy", folder=tmp_path)
    before = study.history(tmp_path, "toy")
    paper.answers = {0: -0.5, 1: -0.6, 2: -0.55}
    now = study.check("toy", folder=tmp_path)
    assert study.flipped(before, now) == ["ones"]
    assert study.flipped(before, study.check("toy", scale="base", folder=tmp_path)) == []


def test_unknown_names_are_answered(paper, tmp_path):
    with pytest.raises(PapertrialError, match="did you mean 'ones'"):
        study.check("toy", claims=["one"], folder=tmp_path)
    with pytest.raises(PapertrialError, match="did you mean 'tiny'"):
        study.check("toy", scale="tinny", folder=tmp_path)


def test_base_scale_outranks_tiny(tmp_path):
    rows = [line("base", n=1), line("tiny", n=2)]
    assert study.latest(rows)["a"]["n"] == 1
    assert study.latest(reversed(rows))["a"]["n"] == 1


def test_what_was_measured_outranks_what_could_not_run(tmp_path):
    rows = [line("tiny", n=1), line("base", "not run", n=2), line("base", "not run", n=3)]
    assert study.latest(rows)["a"]["n"] == 1
    assert study.latest(rows[1:])["a"]["n"] == 3
    assert study.latest([*rows, line("base", "fails", n=4)])["a"]["n"] == 4


def line(scale, verdict="holds", **more):
    return {"claim": "a", "scale": scale, "verdict": verdict, **more}


@pytest.mark.slow
def test_side_by_side_the_same_is_measured(tmp_path):
    asked = {"kinds": ["identity", "property"], "scale": "tiny", "seeds": 2}
    alone = study.check(["rank_collapse", "barlow_twins"], folder=tmp_path / "one", **asked)
    both = study.check(["rank_collapse", "barlow_twins"], folder=tmp_path / "two", jobs=2, **asked)
    assert [(e.paper, e.claim, e.verdict, e.seeds) for e in alone] == [
        (e.paper, e.claim, e.verdict, e.seeds) for e in both
    ]
    for one, two in zip(alone, both, strict=True):
        for a, b in zip(one.measured, two.measured, strict=True):
            assert a == pytest.approx(b, rel=1e-6, abs=1e-9, nan_ok=True)
    assert visible(tmp_path / "two") == ["barlow_twins.jsonl", "rank_collapse.jsonl"]


def test_a_process_that_is_killed_is_one_line_and_loses_no_finished_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "_run_elsewhere", _killed)
    with pytest.raises(PapertrialError, match="killed"):
        study.check("barlow_twins", claims=["blind_to_scale_and_shift"], seeds=2, folder=tmp_path, jobs=2)
    assert not (tmp_path / "barlow_twins.jsonl").exists()


def _killed(*words):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_claim_that_was_reformed_counts_from_then_on(paper, tmp_path, monkeypatch):
    """Base evidence from before does not speak for the new form, even where that was tried at tiny scale alone."""
    study.check("toy", folder=tmp_path, scale="base")
    reformed = dataclasses.replace(paper.ones, reformed="2026-12-01: the rival was weak")
    monkeypatch.setattr(registry, "claims", lambda name: [reformed])
    (found,) = study.check("toy", folder=tmp_path)
    assert found.reformed == reformed.reformed
    newest = study.latest(study.history(tmp_path, "toy"))["ones"]
    assert (newest["scale"], newest["reformed"]) == ("tiny", reformed.reformed)
    study.check("toy", folder=tmp_path, scale="base")
    study.check("toy", folder=tmp_path)
    assert study.latest(study.history(tmp_path, "toy"))["ones"]["scale"] == "base"


def test_claims_that_were_reformed_say_when_and_why():
    formed = [one.reformed for name in registry.papers() for one in registry.claims(name) if one.reformed]
    assert len(formed) >= 3 and all(re.fullmatch(r"\d{4}-\d\d-\d\d: \S.{20,}", words) for words in formed)
