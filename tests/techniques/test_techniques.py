"""Technique papers of other packages: battery, fit, compare, estimate, read, with a host that the task chooses or the user names."""

from pathlib import Path

import numpy as np
import pytest

import papertrial as pt
from papertrial.core import registry
from papertrial.core.errors import Declined, PapertrialError
from papertrial.core.files import read_json
from papertrial.core.request import Request
from papertrial.study.compare import compare
from papertrial.study.entrants import plan
from papertrial.study.estimate import estimate
from papertrial.testing import bench, check_paper, checks_for
from papertrial.use.choose import host_of, resolve_method
from papertrial.use.eject import eject
from papertrial.use.export import export

TINY = {"recipe": "tiny", "budget": "6steps", "progress": False}


@pytest.fixture
def run(elsewhere, papertrial):
    """Commands, where the papers of the other package are known."""
    return papertrial


@pytest.mark.parametrize("name", ["clipped_rows", "local_steps", "soft_prompt"])
def test_the_battery(name, elsewhere):
    assert {"learns", "resume", "technique_on_two_ranks"} <= checks_for(name).keys()
    check_paper(name)


def test_the_battery_of_an_objective_that_collects_its_rows(elsewhere):
    for name in ("learns", "same_seed_same_bits", "saved_and_loaded", "gradients", "resume", "two_ranks"):
        checks_for("hard_rows")[name](bench("hard_rows"))


def test_it_is_read_and_its_options_are_shown(run):
    code, out, _ = run("read", "clipped_rows")
    assert code == 0
    assert "Clip the gradient of each row" in out and "kind        technique" in out
    assert "--technique clipped_rows, with any model" in out
    code, out, _ = run("fit", "clipped_rows", "--help")
    assert code == 0 and "bound" in out and "--host" in out


def test_fit_trains_the_host_that_the_task_suggests(run):
    code, out, err = run("fit", "clipped_rows", "-d", "digits", "--recipe", "tiny", "-b", "6steps", "--quiet")
    assert code == 0, err
    assert "method      clipped_rows on mlp_mixer" in out
    card = read_json(Path("runs/clipped_rows-digits/card.json"))
    assert (card["method"]["name"], card["host"]) == ("clipped_rows", "mlp_mixer")
    assert card["method"]["title"].startswith("Deep Learning with Differential Privacy")
    assert card["techniques"] == {"clipped_rows": {"bound": 1.0, "noise": 0.0, "poisson": False}}
    assert {"bound", "lr", "host.depth"} <= {entry["name"] for entry in card["settings"]}
    code, out, err = run("predict", "runs/clipped_rows-digits", "digits")
    assert code == 0, err
    code, out, err = run("report", "runs/clipped_rows-digits", "--no-data")
    assert code == 0, err


def test_settings_reach_the_technique_the_training_and_the_host(elsewhere):
    b = bench("clipped_rows")
    asked = Request(recipe="tiny", settings={"bound": "0.5", "lr": "0.1", "host.width": "48", "host.batch": "8"})
    found = resolve_method(b.method, b.prepared, asked, task=b.task)
    assert found.techniques[-1].made.bound == found.config.bound == 0.5
    assert (found.optim.lr, found.optim.batch, found.host.config.width) == (0.1, 8, 48)
    assert found.host.optim == found.optim and found.name == "clipped_rows+mlp_mixer"
    for settings, words in (({"bund": 1}, "bund"), ({"host.bound": 1}, "bound")):
        with pytest.raises(PapertrialError, match=words):
            resolve_method(b.method, b.prepared, asked.but(settings=settings), task=b.task)
    made = resolve_method(b.method, b.prepared, asked.but(techniques=["local_steps:every=5"]), task=b.task)
    assert [one.id for one in made.techniques] == ["local_steps", "clipped_rows"]


def test_refusals_say_why(elsewhere):
    with pytest.raises(Declined, match=r"normalises each row by the others .*--host"):
        pt.fit("clipped_rows", "digits", host="resnet", **TINY)
    with pytest.raises(Declined, match=r"majority cannot be the host of clipped_rows: it is an estimator"):
        pt.fit("clipped_rows", "digits", host="majority", **TINY)
    with pytest.raises(Declined, match=r"clipped_rows does not fit wine: image_classification: .+"):
        pt.fit("clipped_rows", "wine", **TINY)
    with pytest.raises(Declined, match=r"the task tabular suggests none; name one with --host"):
        pt.fit("local_steps", "wine", **TINY)
    with pytest.raises(Declined, match=r"reads no tokens|soft_prompt does not fit digits"):
        pt.fit("soft_prompt", "digits", **TINY)
    with pytest.raises(PapertrialError, match=r"mlp_mixer is no technique .*--host"):
        pt.fit("mlp_mixer", "digits", host="vit", **TINY)
    with pytest.raises(PapertrialError, match=r"takes no backbone"):
        pt.fit("clipped_rows", "digits", backbone="vit", **TINY)


def test_a_named_host_and_one_with_a_backbone(elsewhere):
    found = pt.fit("local_steps", "wine", host="rtdl:mlp", **TINY)
    assert found.card["host"] == "rtdl:mlp" and found.card["task"]["name"] == "tabular"
    found = pt.fit(
        "local_steps", "digits", task="image_representation", host="barlow_twins", backbone="mlp_mixer",
        settings={"backbone.depth": 1, "backbone.width": 16, "host.projector": 32}, out="two", **TINY,
    )  # fmt: skip
    assert (found.card["host"], found.card["backbone"]) == ("barlow_twins", "mlp_mixer")
    assert found.embed("digits").shape[1] == 16


def test_the_first_architecture_among_the_references_is_the_host(elsewhere):
    b = bench("local_steps")
    assert host_of(b.method, registry.task("language_modeling")).id == "text_transformer"
    assert host_of(b.method, registry.task("image_representation")).paper.kind == "architecture"


def test_frozen_weights_are_told(elsewhere):
    found = pt.fit("soft_prompt", "python-lines", **TINY)
    frozen = found.card["frozen"]
    total = sum(p.numel() for p in found.model.parameters())
    assert frozen["unchanged"] and frozen["trained"] + frozen["kept"] == total
    assert any(frozen["sha256"][:12] in note and "are what they were" in note for note in found.card["notes"])
    again = pt.load(found.folder)
    assert np.array_equal(again.outputs("python-lines"), found.outputs("python-lines"))
    with pytest.raises(Declined, match="soft_prompt has changed the parts of the network"):
        eject(found, "taken")


def test_a_trained_host_is_taken_away_like_any_network(elsewhere):
    found = pt.fit("clipped_rows", "digits", **TINY)
    about = eject(found, "taken")
    assert about["check"]["largest_difference"] < 1e-4
    assert export(found, "torch")["check"]["largest_difference"] < 1e-4


def test_it_is_compared_with_its_host(elsewhere):
    result = compare(
        ["clipped_rows"], "digits", recipe="tiny", budget="8steps", seeds=2, folds="none", worth=False, baselines=["majority"],
        settings={"bound": 0.01, "host.depth": 1}, progress=False, echo=None, out="study",
    )  # fmt: skip
    assert result.reference == "mlp_mixer"
    assert {row.name: row.role for row in result.rows} == {
        "mlp_mixer": "reference", "clipped_rows": "method", "majority": "baseline",
    }  # fmt: skip
    cards = [read_json(Path(f"study/{name}/seed0/card.json")) for name in ("mlp_mixer", "clipped_rows")]
    assert cards[0]["techniques"] == {} and cards[0]["config"] == cards[1]["host_config"]
    assert cards[0]["config"]["depth"] == 1
    rows = [np.load(f"study/{name}/seed0/per_example.npy") for name in ("mlp_mixer", "clipped_rows")]
    assert not np.array_equal(*rows)


def test_against_what_the_user_names(elsewhere):
    options = {"recipe": "tiny", "budget": "3steps", "seeds": 1, "folds": "none", "worth": False}
    options |= {"progress": False, "echo": None}
    result = compare(
        ["local_steps"], "digits", against="majority", baselines="none", host="mlp_mixer", out="a", **options
    )
    assert result.reference == "majority"
    assert {row.name for row in result.rows} == {"local_steps", "mlp_mixer", "majority"}
    with pytest.raises(Declined, match="normalises each row"):
        compare(["clipped_rows"], "digits", baselines=["majority"], host="resnet", out="b", **options)


def test_it_is_estimated(elsewhere, monkeypatch):
    monkeypatch.setattr("papertrial.study.estimate._WINDOW", 0.1)
    found = estimate("clipped_rows", "digits", recipe="tiny", budget="50steps")
    assert found.cost.method == "clipped_rows+mlp_mixer" and found.cost.steps == 50
    planned = plan(
        ["clipped_rows"], registry.task("image_classification"), Request(settings={"host.depth": 1, "lr": 1})
    )
    settings = {one.method.name: dict(one.request.settings) for one in planned}
    assert settings["mlp_mixer"] == {"depth": 1} and settings["resnet"] == {}
    assert settings["clipped_rows"] == {"host.depth": 1, "lr": 1}
    found = estimate("hard_rows", "digits", recipe="tiny", budget="50steps", backbone="mlp_mixer")
    assert any("collected every 5 steps" in note for note in found.cost.notes)
    assert found.cost.steps == 50 and found.cost.epochs == 10


def test_rows_are_collected_in_a_fit(elsewhere):
    found = pt.fit("hard_rows", "digits", recipe="tiny", backbone="mlp_mixer", budget="12steps", progress=False)
    assert found.card["cost"]["steps"] == 12
