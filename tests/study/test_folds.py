"""Few rows are judged in repeated folds: each is a test row once, paired between methods, and a killed comparison goes on."""

from __future__ import annotations

import json
import shlex

import numpy as np
import pandas as pd
import pytest

import papertrial.use.fit as use_fit
from papertrial.core import registry
from papertrial.core.budget import Budget, Energy, Meter
from papertrial.core.errors import PapertrialError
from papertrial.data import open as open_data
from papertrial.study.compare import compare
from papertrial.study.comparison import Comparison
from papertrial.study.entrants import pooled
from papertrial.study.report import report
from papertrial.use.choose import prepare
from papertrial.use.fit import Outcome
from papertrial.use.folds import shared
from webpage import Read

ASKED = {"baselines": "majority", "budget": "3trials", "worth": False, "progress": False, "echo": None}


def rows(count=90, seed=0):
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(count, 3))
    y = (x[:, 0] + draw.normal(size=count) > 0).astype(int)
    return pd.DataFrame(x, columns=list("abc")).assign(y=y)


def test_outcomes_of_folds_are_put_together_row_by_row(tmp_path):
    def outcome(values, **metrics):
        meter = Meter(10, 20, 3.0, 2, 100).with_energy(Energy(0.5, "measured"))
        return Outcome(tmp_path, "m", metrics, {}, {}, metrics["a"], np.array(values), meter)

    whole = pooled(
        [
            (outcome([1.0, 0.0], a=0.5, b=1.0), np.array([3, 0])),
            (outcome([0.0, 1.0, 1.0], a=2 / 3), np.array([1, 2, 4])),
        ]
    )
    assert whole.per_example.tolist() == [0.0, 0.0, 1.0, 1.0, 1.0]
    assert whole.metrics == {"a": pytest.approx(0.6)}
    assert (whole.meter.steps, whole.meter.seconds, whole.meter.trials, whole.meter.kwh) == (10, 3.0, 2, 0.5)


def test_every_row_is_judged_once_in_a_repeat_and_methods_are_paired_by_row(tmp_path):
    data = open_data(rows(), "y")
    found = compare("linear", data, folds=3, seeds=2, out=tmp_path / "study", **ASKED)
    expected = np.zeros((2, 90))
    linear, majority = registry.method("linear"), registry.method("majority")
    for repeat in range(2):
        for place in range(3):
            prepared = prepare(registry.task("tabular"), data, repeat, fold=(repeat, place, 3))
            outcomes = [
                Outcome.read(tmp_path / "study" / method.slug / f"seed{repeat}-fold{place}")
                for method in (linear, majority)
            ]
            mine = np.flatnonzero(np.isin(data.numeric(["a"])[:, 0], prepared.test["numeric"][:, 0]))
            expected[repeat, mine] += outcomes[0].per_example - outcomes[1].per_example
    verdict = found.verdicts["linear"]
    assert verdict.difference == pytest.approx(expected.mean())
    assert (verdict.seeds, verdict.examples) == (2, 90)
    assert "90 examples, each a test example once in 3 folds" in found.protocol
    assert "2 repeats of 3 folds" in found.protocol and "2 repeats of 3 folds" in found.sentences[0]


def test_few_rows_are_judged_in_folds_by_themselves_and_the_plan_says_so(tmp_path):
    said = []
    found = compare("linear", rows(), target="y", out=tmp_path / "study", **{**ASKED, "echo": said.append})
    assert (found.folds, found.seeds) == (5, 3)
    assert "x 3 repeats of 5 folds" in said[0] and "90 rows to judge by are few" in said[0]
    assert "repeat 1 of 3, fold 2 of 5: linear" in said
    assert Comparison.read(tmp_path / "study").folds == 5
    single = compare("linear", rows(), target="y", folds="none", out=tmp_path / "single", **ASKED)
    assert (single.folds, single.seeds) == (0, 5) and (tmp_path / "single" / "linear" / "seed4").exists()


def test_by_default_the_runs_of_folds_take_no_longer_together_than_on_one_test_part(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(use_fit, "fit_prepared", lambda *_, request, **__: asked.append(request.budget) or stop())

    def stop():
        raise KeyboardInterrupt

    for more in ({}, {"folds": "none"}, {"budget": "7s"}, {"total": "60s"}):
        with pytest.raises(KeyboardInterrupt):
            compare("linear", rows(), target="y", out=tmp_path / str(len(asked)), **{**ASKED, "budget": None, **more})
    assert [one.seconds for one in asked] == [10.0, 30.0, 7.0, 60 / (2 * 3 * 5)]


def test_a_comparison_in_folds_that_was_killed_goes_on_with_what_is_done(tmp_path, monkeypatch):
    asked = {**ASKED, "folds": 2, "seeds": 2, "target": "y"}
    whole = compare("linear", rows(), out=tmp_path / "whole", **asked)
    original, calls = use_fit.fit_prepared, []

    def killed(*arguments, out, **options):
        calls.append(out.name)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return original(*arguments, out=out, **options)

    monkeypatch.setattr(use_fit, "fit_prepared", killed)
    with pytest.raises(KeyboardInterrupt):
        compare("linear", rows(), out=tmp_path / "killed", **asked)
    assert not Comparison.read(tmp_path / "killed").complete
    said = []
    again = compare("linear", rows(), out=tmp_path / "killed", **{**asked, "echo": said.append})
    assert "minus 5 runs already done" in said[0]
    assert again.verdicts == whole.verdicts and again.complete
    assert sorted(set(calls)) == ["seed0-fold0", "seed0-fold1", "seed1-fold0", "seed1-fold1"]


def test_the_report_speaks_of_repeats_and_says_how_to_make_it_again(tmp_path):
    rows().to_csv(tmp_path / "few.csv", index=False)
    found = compare("linear", tmp_path / "few.csv", folds=2, seeds=2, metric="auc", out=tmp_path / "s", **ASKED)
    page = Read(report(tmp_path / "s").file)
    assert "2 repeats of 2 folds" in page.text and "Each circle is one repeat, the mean of its folds" in page.text
    words = shlex.split(page.inside["code"][0].splitlines()[0])
    for name, value in (("--folds", "2"), ("--seeds", "2"), ("--metric", "auc")):
        assert words[words.index(name) + 1] == value
    assert "The examples themselves are not shown" not in page.text
    row = next(row for row in found.rows if row.name == "linear")
    assert row.at_least < row.metric < row.at_most <= 1


def test_labels_are_worth_something_in_folds_too(tmp_path):
    found = compare("linear", rows(200), target="y", folds=2, seeds=2, out=tmp_path / "s", **{**ASKED, "worth": True})
    assert next(row for row in found.rows if row.name == "linear").worth is not None
    curve = sorted(path.name for path in (tmp_path / "s" / "majority").glob("*pct"))
    assert curve == ["seed0-fold0-25pct", "seed0-fold0-50pct", "seed1-fold1-25pct", "seed1-fold1-50pct"]


# --------------------------------------------------------------------------------------------------- groups, and time


def noise(seed, cases=30, copies=12):
    draw = np.random.default_rng(seed)
    x, y = draw.normal(size=(cases, 4)).round(3), draw.integers(0, 2, cases)
    return pd.DataFrame(np.repeat(x, copies, 0), columns=list("abcd")).assign(y=np.repeat(y, copies))


@pytest.mark.parametrize("seed", range(8))
def test_copies_of_cases_without_a_signal_get_no_verdict(seed, tmp_path):
    cases = noise(seed)
    split = cases.assign(split=np.repeat(["train", "test"], 180))
    found = compare("linear", split, target="y", seeds=2, against="majority", out=tmp_path / "s", **ASKED)
    assert found.verdicts["linear"].word == "cannot tell"
    assert "180 test examples in 15 groups" in found.protocol


def test_groups_count_once_in_folds_and_in_the_intervals_of_a_run(tmp_path):
    visits = noise(9)
    visits["a"] += np.random.default_rng(0).normal(0, 0.01, len(visits))
    visits["patient"] = np.repeat(np.arange(30), 12)
    found = compare("linear", visits, target="y", seeds=2, folds=2, out=tmp_path / "s", **ASKED)
    assert "360 examples in 30 groups, each a test example once in 2 folds" in found.protocol
    assert found.verdicts["linear"].examples == 30
    made = use_fit.fit("linear", visits, target="y", out=tmp_path / "by", budget="1trials", progress=False)
    alone = use_fit.fit(
        "linear", visits.drop(columns="patient"), target="y", group="none", out=tmp_path / "rows", budget="1trials",
        progress=False,
    )  # fmt: skip
    assert made.card["test"] == {"rows": 72, "groups": 6} and alone.card["test"]["groups"] > 40
    wide, narrow = (np.ptp(one.card["intervals"]["log_loss"]) for one in (made, alone))
    assert wide > 1.5 * narrow
    scores = made.evaluate(visits)  # the artifact knows what its groups were
    assert scores.groups == 30


def test_time_and_metric_are_part_of_what_a_comparison_is(tmp_path):
    frame = rows().assign(day=np.arange(90))
    asked = {**ASKED, "target": "y", "seeds": 2, "out": tmp_path / "s"}
    found = compare("linear", frame, time="day", metric="auc", **asked)
    assert found.metric == "auc" and found.folds == 0
    assert any(line.startswith("by day: trained on 0 to 56, validated on 57") for line in found.notes)
    with pytest.raises(PapertrialError, match="it differs in metric"):
        compare("linear", frame, time="day", **asked)
    with pytest.raises(PapertrialError, match="it differs in folds, time"):
        compare("linear", frame, metric="auc", **asked)


# --------------------------------------------------------------------------------------- one comparison after another


def test_another_paper_joins_the_comparison_that_is_there(tmp_path):
    said = []
    asked = {**ASKED, "target": "y", "seeds": 2, "folds": "none", "out": tmp_path / "s"}
    first = compare("linear", rows(), **asked)
    both = compare("xgboost", rows(), **{**asked, "echo": said.append})
    assert said[0] == "linear: compared here before, and part of this comparison too"
    assert set(both.verdicts) == {"linear", "xgboost"} and "minus 4 runs already done" in said[1]
    assert both.verdicts["linear"].difference == first.verdicts["linear"].difference
    kept = json.loads((tmp_path / "s" / "comparison.json").read_text())
    assert kept["asked"]["methods"] == ["linear", "xgboost"]
    again = compare("linear", rows(), **asked)
    assert again.verdicts == both.verdicts and again.earlier == both.earlier
    fresh = compare("linear", rows(), fresh=True, **asked)
    assert set(fresh.verdicts) == {"linear"} and not fresh.earlier


def test_what_was_said_against_something_else_is_not_forgotten(tmp_path):
    asked = {
        **ASKED,
        "target": "y",
        "seeds": 2,
        "folds": "none",
        "out": tmp_path / "s",
        "baselines": "majority,xgboost",
    }
    first = compare("linear", rows(), against="majority", **{**asked, "baselines": ["majority", "xgboost"]})
    second = compare("linear", rows(), against="xgboost", **{**asked, "baselines": ["majority", "xgboost"]})
    assert first.sentences[0] in second.earlier and not set(second.earlier) & set(second.sentences)
    assert any(line.startswith("note      said before, and replaced by the above: linear") for line in second.lines())


@pytest.mark.parametrize(
    ("usual", "runs", "seconds"), [(60, 15, 20), (60, 5, 60), (60, 3, 60), (60, 300, 5), (3, 300, 3), (None, 300, None)]
)
def test_runs_in_folds_take_no_longer_together_than_those_of_five_seeds(usual, runs, seconds):
    """But for 5 seconds, which each has at least where the task gives it as much."""
    assert shared(Budget(seconds=usual, steps=7), runs) == Budget(seconds=seconds, steps=7)
