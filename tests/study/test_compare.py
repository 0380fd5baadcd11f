"""Comparisons with runs that cost nothing: order, resuming, refusals, failures, the reference, the words."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import papertrial.use.fit as use_fit
from papertrial.core import registry
from papertrial.core.budget import Budget, Energy, Meter
from papertrial.core.errors import DataError, Declined, PapertrialError, TrainingStopped
from papertrial.core.facts import Facts
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe
from papertrial.core.registry import Entry, Method
from papertrial.core.task import Prepared, Split
from papertrial.study.compare import compare
from papertrial.study.comparison import Comparison
from papertrial.use import choose

TEST = 200


@dataclass
class FakeTask:
    name: str = "toy"
    version: int = 2
    kind: str = "images"
    references: tuple[str, ...] = ("trees", "linear")
    floors: tuple[str, ...] = ("majority",)
    budget: Budget = field(default_factory=lambda: Budget(seconds=30))
    higher: bool = True

    def primary_for(self, state):
        return ("accuracy", True) if self.higher else ("rmse", False)


@dataclass
class FakeData:
    name: str = "table.csv"
    fingerprint: str = "abc"
    notes: tuple[str, ...] = ("31 near-duplicates were moved",)

    def look(self):
        return SimpleNamespace(numbers={})


@dataclass(frozen=True)
class NoSettings:
    """The Config of every method of this world."""


@dataclass
class World:
    """What the fake runs answer, and what was asked of them. `skill` is the mean score of a method at 400 labels."""

    task: FakeTask = field(default_factory=FakeTask)
    skill: dict = field(
        default_factory=lambda: {"trees": 0.70, "linear": 0.65, "majority": 0.50, "new": 0.80, "other": 0.70}
    )
    valid: dict = field(default_factory=dict)
    wobble: float = 0.005
    by_seed: float = 0.0  # what a seed, which draws the split for all, is worth more than the one before
    calls: list = field(default_factory=list)
    asked: dict = field(default_factory=dict)
    declines: set = field(default_factory=set)
    collapses: set = field(default_factory=set)
    interrupt_at: int = -1
    per_label: float = 0.1
    test: int = TEST

    energy: dict = field(default_factory=dict)
    floors: dict = field(default_factory=dict)
    took: dict = field(default_factory=dict)
    meters: dict = field(default_factory=dict)
    same: dict = field(default_factory=dict)
    validations: dict = field(default_factory=dict)
    beside: tuple = ()
    outlier: dict = field(default_factory=dict)
    trials: dict = field(default_factory=dict)

    def prepare(self, task, data, seed=0, labels=None, size=None, fraction=None):
        labelled = round(400 * (fraction or 1))
        splits = [Split({"x": np.zeros(count)}) for count in (labelled, 80, self.test)]
        return Prepared(*splits, Facts("table", labelled, labelled), {}, notes=("the target is numeric",))

    def fit(self, method, task, prepared, *, out, request):
        name, seed = method.name, request.seed
        if name in self.declines:
            raise Declined(f"{name} needs captions; your data has none")
        if (name, seed) in self.collapses:
            raise TrainingStopped("the features collapsed to one point at step 40", "lower the learning rate")
        file = Path(out) / "fake.json"
        done = file.exists() and not request.fresh
        if not done:
            if len(self.calls) == self.interrupt_at:
                raise KeyboardInterrupt
            self.calls.append((name, seed, prepared.facts.labelled))
            self.asked[name] = request
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("{}")
            (file.parent / "result.json").write_text("{}")
        name = self.same.get(name, name)
        draw = np.random.default_rng([sum(map(ord, name)), seed, prepared.facts.labelled])
        own = (
            self.skill[name]
            + self.per_label * np.log2(prepared.facts.labelled / 400)
            + self.by_seed * seed
            + self.wobble * draw.standard_normal()
        )
        scores = own + 0.1 * np.random.default_rng(0).standard_normal(self.test)
        scores += own - scores.mean() + 0.02 * draw.standard_normal(self.test)
        if not task.higher:
            scores = 1 - scores
        metric = task.primary_for({})[0]
        beside = dict.fromkeys(self.beside, 0.1 * scores + 0.4)
        scores = scores + self.outlier.get(name, 0.0) * (np.arange(self.test) == 17)
        steps, samples, seconds = self.meters.get(name, (100, 6400, self.took.get(name, 12.5)))
        rows = [{"step": step, "validation": value} for step, value in enumerate(self.validations.get(name, []))]
        (file.parent / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
        meter = Meter(steps, samples, seconds, self.trials.get(name, 0), None if name == "majority" else 250_000_000)
        meter = meter.with_energy(self.energy.get((name, seed), self.energy.get(name, meter.spent())))
        return use_fit.Outcome(
            Path(out),
            name,
            {metric: float(scores.mean()), "extra": 1.0, **{key: float(one.mean()) for key, one in beside.items()}},
            {},
            {},
            self.valid.get(name, self.skill[name]),
            scores,
            meter,
            self.floors,
            beside,
        )


PAPERS = {
    name: Paper(name, name, kind, "", tasks=tasks, needs=needs)
    for name, kind, tasks, needs in [
        ("trees", "estimator", ("toy",), ()),
        ("linear", "estimator", ("toy",), ()),
        ("majority", "estimator", ("toy",), ()),
        ("new", "architecture", ("toy",), ()),
        ("other", "objective", ("toy",), ()),
        ("boosted", "estimator", ("toy",), ("a_package_nobody_has",)),
        ("pictures", "architecture", ("image_classification",), ()),
    ]
}


@pytest.fixture
def world(monkeypatch):
    world = World()
    recipes = {"base": Recipe(name="base")}
    own = {
        "majority": {"base": Recipe(name="base", budget=Budget(steps=0))},
        "new": {**recipes, "tiny": Recipe(name="tiny")},
    }
    entries = {name: Entry(paper, f"fake.{name}", Path(f"{name}.py"), "papers") for name, paper in PAPERS.items()}
    monkeypatch.setattr(registry, "entries", lambda: entries)
    monkeypatch.setattr(
        registry,
        "method",
        lambda name: Method(name, "", SimpleNamespace(recipes=own.get(name, recipes), Config=NoSettings), PAPERS[name]),
    )
    monkeypatch.setattr(choose, "choose_task", lambda data, name=None: world.task)
    monkeypatch.setattr(choose, "prepare", world.prepare)
    monkeypatch.setattr(use_fit, "fit_prepared", world.fit)
    return world


@pytest.fixture
def said():
    return []


@pytest.fixture
def run(world, tmp_path, said):
    def run(methods=("new",), **options):
        options = {"out": tmp_path / "study", "seeds": 3, "worth": False, "echo": said.append, **options}
        return compare(list(methods), options.pop("data", FakeData()), **options)

    return run


def test_a_better_method_helps(run, world):
    found = run()
    assert found.reference == "trees"
    assert found.verdicts["new"].word == "helps"
    assert found.sentences[0].startswith("new helps on this data: accuracy +0.09")
    assert found.sentences[0].endswith("over trees at an equal 30 s, 3 seeds.")
    assert len(found.sentences) == 1
    assert [row.name for row in found.rows] == ["trees", "new", "linear", "majority"]
    assert [row.role for row in found.rows] == ["reference", "method", "baseline", "baseline"]
    new = found.rows[1]
    assert new.difference == pytest.approx(new.metric - found.rows[0].metric)
    assert new.low < new.difference < new.high
    assert (new.seconds, new.steps, new.samples, new.peak_bytes) == (12.5, 100, 6400, 250_000_000)
    assert found.complete


def test_one_name_may_stand_alone_and_a_comparison_is_shown_as_its_table(world, tmp_path):
    found = compare("new", FakeData(), out=tmp_path / "study", seeds=3, worth=False, baselines="linear", echo=None)
    assert [row.name for row in found.rows] == ["linear", "new"]
    assert repr(found) == str(found) == "\n".join(found.lines()) and found.sentences[0][:20] in str(found)


def test_energy_is_told_with_its_label_and_where_it_comes_from(run, world, tmp_path):
    world.energy = {
        "new": Energy(0.021, "measured", "CPU measured by RAPL (package-0)"),
        ("new", 2): Energy(0.024, "estimated", "CPU estimated: a model"),
        "trees": Energy(0.5, "measured", "CPU measured by RAPL (package-0)"),
        "linear": Energy.unknown("CPU measured by RAPL (package-0); GPU unknown: no NVML"),
    }
    found = run()
    trees, new, linear, majority = found.rows
    assert (new.kwh, new.energy) == (pytest.approx(0.022), "estimated")  # one seed of three was not measured
    assert (trees.kwh, trees.energy) == (0.5, "measured")
    assert linear.kwh is None and linear.energy == majority.energy == "unknown"
    lines = found.lines()
    head = next(line for line in lines if line.startswith("method"))
    cells = {
        line.split()[0]: line[head.index("energy") :].strip() for line in lines if line.startswith(("tr", "ne", "li"))
    }
    assert cells == {"trees": "500 Wh", "new": "22 Wh e", "linear": "-"}
    said = " ".join(" ".join(line.split()) for line in lines)
    assert "note e = estimated, not measured; CPU measured by RAPL (package-0); CPU estimated: a model" in said
    assert "GPU unknown: no NVML" in said
    assert all(len(line) <= 100 for line in lines)
    rows = json.loads((tmp_path / "study" / "comparison.json").read_text())["rows"]
    assert [row["kwh"] for row in rows] == [0.5, pytest.approx(0.022), None, None]
    assert rows[1]["energy"] == "estimated" and "a model" in rows[1]["energy_how"]


def test_a_worse_method_hurts_and_the_baseline_is_recommended(run, world):
    world.skill["new"] = 0.5
    found = run()
    assert found.verdicts["new"].word == "hurts"
    assert found.sentences[-1] == "No method is shown to beat trees: use trees here."


def test_the_best_test_figure_of_the_baselines_is_advised_and_not_the_best_validation(run, world, tmp_path):
    world.skill |= {"new": 0.5, "linear": 0.9}
    world.valid["trees"] = 2.0  # so that it is the reference
    sentence = "No method is shown to beat trees, and linear has the best test figure: use linear here."
    assert run().sentences[-1] == sentence
    world.valid["majority"] = 3.0
    assert run(out=tmp_path / "b").sentences[-1].endswith("use linear here.")


def test_where_nothing_can_be_told_apart_the_cheapest_is_advised(run, world, tmp_path):
    world.skill |= {"new": 0.701, "linear": 0.6995, "other": 0.2}
    world.wobble, world.took = 0.01, {"linear": 0.1}
    found = run()
    assert found.verdicts["new"].word == "cannot tell"
    assert found.sentences[-1].endswith("and took 0.1 s instead of 12 s.")
    assert found.sentences[-1].startswith("No method is shown to beat trees: use linear here, which cannot be told")
    # one that is cheap and worse is not
    world.skill["linear"] = 0.4
    assert run(out=tmp_path / "worse").sentences[-1].endswith("use trees here.")


def test_a_method_that_is_no_worse_and_cheaper_is_advised(run, world):
    world.skill |= {"new": 0.7005, "trees": 0.70}
    world.wobble, world.took = 0.001, {"new": 0.1, "trees": 0.4, "linear": 0.4, "majority": 0.0}
    world.meters["new"] = (100, 6400, 0.1)
    found = run()
    assert found.verdicts["new"].word == "cannot tell" and found.rows[1].metric > found.rows[0].metric
    advice = "No method is shown to beat trees: use new here, which has no lower a test figure and took 0.1 s."
    assert found.sentences[-1] == advice


def test_one_that_three_others_exceed_is_not_advised(run, world):
    world.skill |= {"new": 0.71, "other": 0.72, "linear": 0.69, "majority": 0.1, "trees": 0.70}
    world.wobble = 0.1
    found = run(["new", "other"], against="linear", baselines=["linear", "majority"])
    assert not any(verdict.word == "helps" for verdict in found.verdicts.values())
    best = max(found.rows, key=lambda row: row.metric).name
    advised = found.sentences[-1].rpartition("use ")[2].split()[0]
    above = sum(row.metric > next(r.metric for r in found.rows if r.name == advised) for row in found.rows)
    assert above < 3 or advised == best


def test_a_method_that_hardly_trained_gets_no_word(run, world, tmp_path):
    world.skill["new"] = 0.4
    world.meters["new"] = (1, 32, 10.0)
    found = run()
    told = found.verdicts["new"]
    assert told.word == "cannot tell" and told.p == 1
    assert found.sentences[0] == "new: not trained: 1 step, 32 of 400 examples; needs about 3 min."
    # of two methods only the one that trained counts in the family
    assert run(["new", "other"], out=tmp_path / "b").verdicts["other"].level == 0.05
    world.meters["new"] = (12, 384, 10.0)
    assert "not trained: 12 steps" in run(out=tmp_path / "c").sentences[0]
    world.meters["new"] = (13, 416, 10.0)
    assert run(out=tmp_path / "d").verdicts["new"].word == "hurts"


def test_a_method_that_answers_as_majority_does_gets_no_word(run, world):
    world.same["new"] = "majority"
    found = run()
    assert found.verdicts["new"].word == "cannot tell"
    assert found.sentences[0] == "new: no word: it answers as majority does on every test example."


def test_nothing_better_than_not_looking_is_said(run, world, tmp_path):
    world.floors = {"accuracy": 0.75}
    world.skill |= {"new": 0.5, "trees": 0.75, "linear": 0.7}
    said = run().sentences[-1]
    assert said.startswith(
        "Nothing here is shown to do better than not looking at the inputs, 0.750: the best is trees"
    )
    world.floors = {"accuracy": 0.6}
    assert run(out=tmp_path / "b").sentences[-1].endswith("use trees here.")


def test_a_budget_that_ended_too_early_is_told(run, world, tmp_path):
    world.skill["new"] = 0.5
    world.validations["new"] = [0.1, 0.2, 0.3, 0.4]
    assert run().sentences[0].endswith("3 seeds; at this budget: its validation was still rising after 100 steps.")
    world.validations["new"] = [0.1, 0.2, 0.5, 0.4]
    assert "rising" not in run(out=tmp_path / "b").sentences[0]


def test_two_seeds_say_beforehand_what_they_can_show(run, said):
    run(seeds=2)
    assert said[1].startswith(
        "two seeds show no difference under 15 standard deviations between seeds, five show one of 1.5"
    )
    said.clear()
    run(seeds=3, fresh=True)
    assert not any("standard deviations" in line for line in said)


def test_who_took_longer_than_an_equal_share_is_named(run):
    assert not [note for note in run(budget="10s").notes if note.startswith("took longer")]
    (note,) = [note for note in run(budget="5s", fresh=True).notes if note.startswith("took longer")]
    assert note.startswith("took longer than the 5 s of a run: ") and "new 12 s" in note and "larger --budget" in note


def test_a_budget_of_steps_is_not_called_equal_for_who_tunes_itself(run, world, said, tmp_path):
    world.trials = {"trees": 100, "linear": 1}
    found = run(budget="20steps")
    assert "(it does not limit trees, linear, trained without steps)" in said[0]
    assert (
        "trees tuned without a limit: 20 steps do not limit tuning; a --budget in seconds limits all alike"
        in found.notes
    )
    assert "over trees, 3 seeds" in found.sentences[0] and "equal" not in found.sentences[0]
    for budget in ("30s", "20trials"):
        limited = run(budget=budget, out=tmp_path / budget)
        assert not any("without a limit" in note for note in limited.notes) and "at an equal" in limited.sentences[0]
    world.trials = {}
    steps = run(budget="20steps", out=tmp_path / "none", methods=("new", "other"), baselines="none", against="other")
    assert "at an equal 20 steps" in steps.sentences[0] and "does not limit" not in steps.plan


def test_a_seed_of_the_method_is_held_against_the_same_seed_of_the_reference(run, world):
    """Seeds differ by far more than methods do, so that any other pairing finds nothing."""
    world.by_seed = 0.3
    found = run()
    verdict = found.verdicts["new"]
    assert verdict.word == "helps" and verdict.high - verdict.low < 0.1


def test_lower_is_better_is_told_in_the_metrics_own_direction(run, world):
    world.task.higher = False
    found = run()
    assert found.verdicts["new"].word == "helps"
    assert found.verdicts["new"].difference > 0
    new = found.rows[1]
    assert new.difference < 0
    assert new.low < new.difference < new.high < 0
    assert "rmse -0.09" in found.sentences[0]
    assert "lower is better" in found.sentences[0]
    assert found.reference == "trees"


def test_where_a_row_decides_the_rmse_the_words_are_about_mae(run, world, tmp_path):
    world.task.higher, world.beside = False, ("mae",)
    assert run().metric == "rmse" and run().beside == ""  # no row carries much of the differences
    world.outlier = {"new": 50.0}
    found = run(out=tmp_path / "heavy")
    assert (found.metric, found.beside) == ("mae", "rmse")
    assert found.sentences[0].startswith("new helps on this data: mae -0.009")
    (note,) = [note for note in found.notes if "the RMSE" in note]
    assert note.startswith("2 rows decide the RMSE (number ") and "18" in note and "words are about MAE" in note
    head = next(line for line in found.lines() if line.startswith("method"))
    assert head.split()[1:3] == ["mae", "rmse"]
    assert Comparison.read(tmp_path / "heavy") == found


def test_unsettled_says_what_would_settle_it(run, world):
    world.skill["new"], world.wobble = 0.71, 0.02
    found = run()
    assert found.verdicts["new"].word == "cannot tell"
    assert "would settle it" in found.sentences[0] or "reasonable number" in found.sentences[0]


def test_one_seed_cannot_tell(run):
    found = run(seeds=1)
    assert found.verdicts["new"].word == "cannot tell"
    assert "one seed" in found.sentences[0]
    assert found.rows[1].low is None
    assert all(len(line) <= 100 for line in found.lines())


def test_seeds_go_round_by_round(run, world):
    run(["new", "other"], seeds=2)
    assert [(name, seed) for name, seed, _ in world.calls] == [
        (name, seed) for seed in (0, 1) for name in ("new", "other", "trees", "linear", "majority")
    ]


def test_the_reference_is_chosen_by_validation_not_by_test(run, world):
    world.valid = {"linear": 0.9}
    assert run().reference == "linear"


def test_against_names_the_reference(run, tmp_path):
    assert run(against="majority").reference == "majority"
    assert run(["trees", "new"], against="new", out=tmp_path / "b").verdicts.keys() == {"trees"}
    with pytest.raises(PapertrialError, match="no method was named"):
        run(["trees"], against="trees")


def test_a_reference_under_test_is_measured_against_the_others(run, world):
    found = run(["trees"])
    assert found.reference == "linear"
    assert found.verdicts["trees"].word == "helps"


def test_baselines_can_be_chosen_or_left_out(run, world, tmp_path):
    assert [row.name for row in run(baselines=["linear"]).rows] == ["linear", "new"]
    with pytest.raises(PapertrialError, match="--against"):
        run(baselines="none", out=tmp_path / "b")
    found = run(["other"], baselines="none", against="new", out=tmp_path / "c")
    assert [row.name for row in found.rows] == ["new", "other"]
    assert found.verdicts["other"].word == "hurts"


def test_refusals_are_listed_and_skipped(run, world, said):
    world.declines = {"other"}
    found = run(["new", "other", "pictures"], baselines=["trees", "boosted"])
    assert set(found.declined) == {"other", "pictures", "boosted"}
    assert "pip install" in found.declined["boosted"]
    assert "image_classification" in found.declined["pictures"]
    assert "needs captions" in found.declined["other"]
    assert {row.name for row in found.rows} == {"new", "trees"}
    assert any(line.startswith("skipped boosted") for line in said)
    assert any(line.startswith("skipped   other") for line in found.lines())


def test_when_every_method_refuses_nothing_else_is_run(run, world):
    with pytest.raises(Declined, match="image_classification"):
        run(["pictures"])
    assert not world.calls
    world.declines = {"new"}
    with pytest.raises(Declined, match="needs captions"):
        run(["new"], seeds=3)
    assert {seed for _, seed, _ in world.calls} == {0}


def test_no_baseline_that_runs_is_an_error(run, world):
    world.declines = {"trees", "linear", "majority"}
    with pytest.raises(Declined, match="nothing to compare with"):
        run()


def test_unknown_names_are_errors_before_anything_runs(run, world):
    with pytest.raises(PapertrialError, match="did you mean 'trees'"):
        run(["tree"])
    with pytest.raises(PapertrialError, match="did you mean 'linear'"):
        run(baselines=["lineer"])
    assert not world.calls


def test_a_collapse_is_a_result(run, world):
    world.collapses = {("new", 1)}
    found = run(["new", "other"])
    assert "collapsed" in found.failed["new"]
    assert "new" not in found.verdicts
    assert "other" in found.verdicts
    assert any(sentence.startswith("new failed on this data: the features collapsed") for sentence in found.sentences)
    assert ("new", 2, 400) not in world.calls
    failed = next(row for row in found.rows if row.name == "new")
    assert failed.metric is None
    assert any(line.startswith("new") and "failed" in line for line in found.lines())


def test_a_reference_that_collapses_is_replaced(run, world):
    world.collapses = {("trees", 1)}
    assert run().reference == "linear"


def test_scores_that_are_not_finite_are_a_failure(run, world):
    world.skill["new"] = float("nan")
    assert "not finite" in run(["new", "other"]).failed["new"]


def test_an_interrupted_comparison_goes_on(run, world, tmp_path):
    world.interrupt_at = 6
    with pytest.raises(KeyboardInterrupt):
        run()
    held = json.loads((tmp_path / "study" / "comparison.json").read_text())
    assert held["complete"] is False
    assert held["seeds"] == 1
    world.interrupt_at = -1
    found = run()
    assert len(world.calls) == len(set(world.calls)) == 4 * 3
    assert found.complete
    assert found.looks == ()


def test_the_same_again_runs_nothing_and_says_the_same(run, world, said):
    first = run()
    calls = len(world.calls)
    again = run()
    assert len(world.calls) == calls
    assert again.sentences == first.sentences
    assert "minus 12 runs already done" in again.plan


def test_fresh_runs_all_again(run, world):
    run()
    found = run(fresh=True, seeds=4)
    assert len(world.calls) == 4 * 3 + 4 * 4
    assert found.looks == ()


def test_more_seeds_are_added_and_looked_at_more_strictly(run, world):
    world.skill["new"], world.wobble = 0.71, 0.02
    first = run(seeds=3)
    second = run(seeds=6)
    assert (first.looks, second.looks) == ((), (3,))
    assert second.verdicts["new"].level == pytest.approx(first.verdicts["new"].level / 2)
    assert run(seeds=6).looks == (3,)
    assert run(seeds=8).looks == (3, 6)
    assert len(world.calls) == 4 * 8


def test_methods_can_be_added(run, world):
    run(["new"])
    run(["new", "other"])
    assert len(world.calls) == 5 * 3


def test_adding_a_method_that_is_interrupted_forgets_nothing(run, world):
    """The one before stays in the table, and what was said of it stays said, whenever the addition comes to its end."""
    first = run(["new"])
    for after in (1, 0):  # the second is interrupted before its first round is kept
        world.interrupt_at = len(world.calls) + after
        with pytest.raises(KeyboardInterrupt):
            run(["other"])
    world.interrupt_at = -1
    found = run(["other"])
    assert found.complete and {"new", "other"} <= {row.name for row in found.rows}
    assert set(first.sentences) <= {*found.earlier, *found.sentences}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"budget": "1m"}, "budget"),
        ({"recipe": "tiny"}, "recipe"),
        ({"settings": {"lr": 1}}, "settings"),
        ({"data": FakeData(fingerprint="x")}, "data"),
    ],
)
def test_another_comparison_in_the_same_folder_is_refused(run, change, field):
    run()
    with pytest.raises(PapertrialError, match=f"differs in {field}.*--fresh"):
        run(**change)
    run(fresh=True, **change)


def test_all_that_another_comparison_differs_in_is_named_in_order(run):
    run()
    with pytest.raises(PapertrialError, match=r"differs in budget, recipe, settings\)"):
        run(settings={"lr": 1}, recipe="tiny", budget="1m")


def test_the_plan_is_said_first(run, said):
    run(["new", "other"], worth=True, seeds=5, budget="60s")
    # majority trains nothing: 4 x 5 runs, and 6 for the worth
    assert said[0] == "plan: 5 methods x 5 seeds + 6 runs on fewer labels, 1 min each: about 26 min"


def test_the_worth_in_labels_is_measured_unless_it_is_not_wanted(world, tmp_path):
    found = compare(["new"], FakeData(), out=tmp_path / "study", seeds=3, echo=None)
    assert {labels for _, _, labels in world.calls} == {100, 200, 400} and found.rows[1].worth is not None


def test_a_total_is_shared_out(run, world):
    run(total="3m", seeds=3)
    assert world.asked["new"].budget == world.asked["trees"].budget == Budget(seconds=20)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"budget": "1m", "total": "5m"}, "both given"),
        ({"total": "500steps"}, "not a time"),
        ({"seeds": 0}, "from 1 to 200"),
        ({"methods": []}, "no method"),
    ],
)
def test_wrong_options(run, options, why):
    with pytest.raises(PapertrialError, match=why):
        run(**options)


def test_settings_recipe_and_backbone_go_where_they_belong(run, world):
    run(["new", "other"], settings={"lr": 0.1}, backbone="vit")
    assert world.asked["new"].settings == world.asked["other"].settings == {"lr": 0.1}
    assert world.asked["trees"].settings == {}
    assert world.asked["other"].backbone == "vit"
    assert world.asked["new"].backbone is None


def test_baselines_without_the_recipe_take_base(run, world):
    run(["new"], recipe="tiny")
    assert (world.asked["new"].recipe, world.asked["trees"].recipe) == ("tiny", "base")


def test_no_test_examples(run, world):
    world.test = 0
    with pytest.raises(DataError, match="test examples"):
        run()


def test_scores_on_other_test_examples_are_refused(run, world, monkeypatch):
    def cut(*args, **options):
        outcome = world.fit(*args, **options)
        return use_fit.Outcome(**{**vars(outcome), "per_example": outcome.per_example[:-1]})

    monkeypatch.setattr(use_fit, "fit_prepared", cut)
    with pytest.raises(PapertrialError, match="199 test examples"):
        run()


def test_worth_comes_from_the_references_own_curve(run, world):
    # Scores rise by 0.1 with each doubling; the method is 0.05 above the reference, about one and a half times the labels.
    world.skill["new"], world.wobble = 0.75, 0.001
    found = run(worth=True, seeds=4)
    extra = [call for call in world.calls if call[2] < 400]
    assert sorted(extra) == sorted(("trees", seed, labels) for seed in (0, 1, 2) for labels in (100, 200))
    new = next(row for row in found.rows if row.name == "new")
    assert 1.2 < new.worth.factor < 1.9
    assert all(row.worth is None for row in found.rows if row.role != "method")
    lines = found.lines()
    assert any(line.startswith("new") and f"{new.worth} [" in line for line in lines)
    assert all(len(line) <= 100 for line in lines)


def test_a_flat_curve_leaves_the_worth_unknown(run, world):
    world.per_label = 0.0
    found = run(["new", "other"], worth=True)
    assert {row.worth.factor for row in found.rows if row.role == "method"} == {None}
    assert sum("cannot say how many labels new, other are worth" in line for line in found.lines()) == 1


def test_several_methods_share_the_level(run, world):
    alone = run(["new"]).verdicts["new"]
    both = run(["new", "other"]).verdicts
    assert alone.level == pytest.approx(0.05)
    assert both["new"].level == pytest.approx(0.025)
    assert (both["new"].low, both["new"].high) == (alone.low, alone.high)


def test_a_word_stricter_than_its_interval_is_explained(run, world, monkeypatch):
    import papertrial.study.judging as module
    from papertrial.core.stats import verdicts

    # As if a hundred looks had gone before: the interval still leaves out zero, the word says no more.
    monkeypatch.setattr(module, "verdicts", lambda gains, **options: verdicts(gains, **{**options, "looks": 100}))
    found = run(["new", "other"])
    assert found.verdicts["new"].word == "cannot tell"
    assert any("the interval excludes zero" in note and "Holm" in note for note in found.notes)


def test_the_file_holds_what_was_found(run, tmp_path):
    found = run(worth=True)
    held = json.loads((tmp_path / "study" / "comparison.json").read_text())
    assert held["config"]["task"] == "toy v2"
    assert held["reference"] == found.reference
    assert held["verdicts"]["new"]["word"] == "helps"
    assert [row["name"] for row in held["rows"]] == [row.name for row in found.rows]
    assert held["rows"][1]["worth"]["shown"] == str(found.rows[1].worth)
    assert held["sentences"] == list(found.sentences)
    assert "31 near-duplicates were moved" in held["notes"]
    assert "toy v2: accuracy (higher is better) on 200 test examples, the same for every seed" in held["protocol"]


def test_the_table_is_readable(run):
    lines = run(["new"]).lines()
    header = next(line for line in lines if line.startswith("method"))
    assert header.split() == ["method", "accuracy", "vs", "trees", "time", "peak", "memory", "energy"]
    row = next(line for line in lines if line.startswith("trees"))
    assert "reference" in row
    assert "250 MB" in row
    assert any(line.startswith("verdict   new helps") for line in lines)
    assert all(len(line) <= 100 and "\x1b" not in line for line in lines)


def test_silence(run, capsys):
    run(echo=None)
    assert capsys.readouterr().out == ""
