"""Whole commands, as a user types them: journeys on data nobody prepared, and wrong input of every sort."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from papertrial.core.stopping import Stopped
from papertrial.train.processes import ENDED


@pytest.fixture
def refused(papertrial):
    """A command that must end in one clear line, exit code 2, no traceback, and write nothing."""

    def run(*words):
        before = sorted(os.listdir("."))
        code, out, err = papertrial(*words)
        assert code == 2, (out, err)
        assert "Traceback" not in err
        lines = [line for line in err.splitlines() if line.strip()]
        assert len(lines) == 1, err
        assert lines[0].startswith("papertrial: ")
        assert sorted(os.listdir(".")) == before, "something was left behind"
        return lines[0]

    return run


def shop(rows=400, seed=0):
    """A table as people have them: mixed types, missing values, a date, an id, a free text."""
    draw = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "order id": [f"A{index:05d}" for index in range(rows)],
            "when": pd.date_range("2020-01-01", periods=rows, freq="D").astype(str),
            "city": draw.choice(["Oslo", "Rome", "Lima"], rows),
            "price": draw.gamma(2, 20, rows).round(2),
            "visits": draw.poisson(3, rows).astype(float),
            "member": draw.choice(["yes", "no"], rows),
            "constant": 1,
        }
    )
    logit = 0.06 * (frame["price"] - 40) + 0.8 * (frame["city"] == "Rome") + 0.5 * (frame["visits"] - 3)
    frame["returned"] = np.where(draw.random(rows) < 1 / (1 + np.exp(-logit)), "back", "kept")
    frame.loc[draw.random(rows) < 0.1, "price"] = np.nan
    frame.loc[draw.random(rows) < 0.1, "city"] = None
    return frame


def photos(folder, per_class=24, size=20, seed=0):
    """RGB images of two sorts that differ in colour and pattern, of mixed sizes."""
    draw = np.random.default_rng(seed)
    for name, tint in (("leaf", (30, 160, 40)), ("brick", (170, 60, 40))):
        (folder / name).mkdir(parents=True)
        for index in range(per_class):
            side = size + int(draw.integers(0, 9))
            pixels = np.clip(draw.normal(tint, 40, (side, side + 3, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


def test_list_shows_the_whole_reading_list(papertrial):
    code, out, _ = papertrial("list")
    assert code == 0
    assert "barlow_twins" in out and "perceiver" in out and "not yet" in out and "on the shelf" in out
    code, out, _ = papertrial("list", "--json")
    rows = json.loads(out)
    assert len(rows) >= 45
    assert {row["id"] for row in rows if row["on_shelf"]} >= {"mlp_mixer", "barlow_twins", "rtdl"}


def test_read_a_paper_on_the_shelf_and_one_that_is_not(papertrial):
    code, out, _ = papertrial("read", "barlow_twins")
    assert code == 0 and "2103.03230" in out and "caveat" in out and "The equation" in out
    code, out, _ = papertrial("read", "asymmetric_self_play")
    assert code == 0 and "not on the shelf yet" in out and "2101.04882" in out


def test_help_of_a_paper_shows_options_with_defaults_and_sources(papertrial):
    code, out, _ = papertrial("fit", "barlow_twins", "--help")
    assert code == 0
    assert "lam" in out and "0.0051" in out and "authors" in out and "--recipe tiny" in out
    code, out, _ = papertrial("fit", "--help")
    assert code == 0 and "--budget" in out


def test_doctor(papertrial):
    code, out, _ = papertrial("doctor")
    assert code == 0 and "torch" in out and "openmp" in out
    assert "energy       ok     " in out and any(word in out for word in ("CPU measured", "CPU estimated"))


def test_a_table_from_look_to_predictions(papertrial, tmp_path):
    frame = shop()
    frame.iloc[:300].to_csv("shop.csv", index=False)
    frame.iloc[300:].drop(columns="returned").to_csv("new.csv", index=False)
    frame.iloc[300:].to_csv("judged.csv", index=False)

    code, out, err = papertrial("look", "shop.csv", "--target", "returned")
    assert code == 0, err
    assert "constant" in out and "order id" in out and "missing" in out and "tabular" in out and "rtdl" in out

    code, out, err = papertrial(
        "fit", "rtdl:mlp", "--data", "shop.csv", "--target", "returned", "--recipe", "tiny", "--out", "run", "-q"
    )
    assert code == 0, err
    assert "accuracy" in out and "saved in run" in out and "\nenergy      " in out
    assert out.splitlines()[-1].split("    ") == [
        "",
        "",
        "",
        "papertrial report run",
        "papertrial export run --to onnx",
    ]

    code, out, err = papertrial("predict", "run", "new.csv", "--out", "answers.csv")
    assert code == 0, err
    answers = pd.read_csv("answers.csv")
    assert len(answers) == 100
    assert set(answers["prediction"]) <= {"back", "kept"}
    assert np.allclose(answers.filter(like="p(").sum(axis=1), 1)

    for name in ("answers.jsonl", "answers.parquet"):
        code, _, err = papertrial("predict", "run", "new.csv", "--out", name)
        assert code == 0, err
    assert len(pd.read_json("answers.jsonl", lines=True)) == len(pd.read_parquet("answers.parquet")) == 100

    code, out, err = papertrial("evaluate", "run", "judged.csv", "--json")
    assert code == 0, err
    assert 0 <= json.loads(out)["metrics"]["accuracy"] <= 1

    code, out, err = papertrial("embed", "run", "new.csv", "--out", "features.npy")
    assert code == 0, err
    assert np.load("features.npy").shape[0] == 100

    # the same command again finds the run done; another budget on the same folder is refused
    code, out, _ = papertrial(
        "fit", "rtdl:mlp", "--data", "shop.csv", "--target", "returned", "--recipe", "tiny", "--out", "run", "-q"
    )
    assert code == 0
    code, _, err = papertrial(
        "fit",
        "rtdl:mlp",
        "--data",
        "shop.csv",
        "--target",
        "returned",
        "--recipe",
        "tiny",
        "--out",
        "run",
        "-q",
        "--seed",
        "1",
    )
    assert code == 2 and "another run" in err and "--fresh" in err


def test_unseen_categories_missing_values_and_extra_columns_are_answered(papertrial):
    frame = shop()
    frame.to_csv("shop.csv", index=False)
    code, _, err = papertrial(
        "fit", "rtdl:resnet", "--data", "shop.csv", "--target", "returned", "--recipe", "tiny", "--out", "run", "-q"
    )
    assert code == 0, err
    new = frame.head(20).drop(columns=["returned", "constant"])
    new["city"] = "Atlantis"
    new["price"] = np.nan
    new["extra"] = 3
    new.to_csv("new.csv", index=False)
    code, _, err = papertrial("predict", "run", "new.csv", "--out", "answers.csv")
    assert code == 0, err
    assert len(pd.read_csv("answers.csv")) == 20


def test_images_from_look_to_embeddings(papertrial, tmp_path):
    photos(tmp_path / "photos")
    (tmp_path / "photos" / "leaf" / "broken.png").write_bytes(b"\x89PNG not really")
    code, out, err = papertrial("look", "photos")
    assert code == 0, err
    assert "broken.png" in out and "2" in out and "mlp_mixer" in out and "image_classification" in out

    code, out, err = papertrial(
        "fit", "mlp_mixer", "--data", "photos", "--recipe", "tiny", "--size", "16", "--out", "run", "-q", "--json"
    )
    assert code == 0, err
    assert json.loads(out)["metrics"]["accuracy"] > 0.6

    (tmp_path / "loose").mkdir()
    for index in range(3):
        Image.new("RGB", (30, 18), (20, 170, 30)).save(tmp_path / "loose" / f"{index}.jpg")
    code, out, err = papertrial("predict", "run", "loose", "--out", "answers.csv")
    assert code == 0, err
    assert len(pd.read_csv("answers.csv")) == 3
    code, out, err = papertrial("predict", "run", "loose/0.jpg", "--out", "one.csv")
    assert code == 0, err
    assert len(pd.read_csv("one.csv")) == 1
    code, out, err = papertrial("embed", "run", "loose", "--out", "features.parquet")
    assert code == 0, err
    assert len(pd.read_parquet("features.parquet")) == 3


def test_learning_without_labels(papertrial, tmp_path):
    draw = np.random.default_rng(0)
    (tmp_path / "heap").mkdir()
    for index in range(40):
        Image.fromarray(draw.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(tmp_path / "heap" / f"{index}.png")
    words = (
        "--data",
        "heap",
        "--recipe",
        "tiny",
        "--backbone",
        "mlp_mixer",
        "--budget",
        "8steps",
        "--out",
        "run",
        "-q",
    )
    code, _, err = papertrial("fit", "barlow_twins", *words)
    assert code == 0, err
    code, _, err = papertrial("embed", "run", "heap")
    assert code == 0, err
    assert len(np.load("embeddings.npy")) == 40
    code, _out, err = papertrial("compare", "barlow_twins", "--data", "heap", "--seeds", "2")
    assert code == 2 and "label" in err


@pytest.mark.slow
def test_compare_says_a_verdict(papertrial):
    words = [
        "compare",
        "rtdl:mlp",
        "--data",
        "wine",
        "--folds",
        "none",
        "--seeds",
        "2",
        "--budget",
        "1s",
        "--recipe",
        "tiny",
        "--out",
        "runs/wine",
        "-q",
    ]
    code, out, err = papertrial(*words)
    assert code == 0, err
    assert "verdict" in out and "xgboost" in out and "majority" in out
    assert any(word in out for word in ("helps", "hurts", "cannot tell"))
    code, again, err = papertrial(*words)
    assert code == 0, err
    assert out.splitlines()[-12:] == again.splitlines()[-12:]


# --- wrong input ------------------------------------------------------------------------------------------------------


def test_unknown_names_are_answered_with_a_suggestion(refused):
    assert "mlp_mixer" in refused("read", "mlp_mixr")
    assert "barlow_twins" in refused("fit", "barlow_twin", "--data", "digits")
    assert "fit needs a paper; papertrial look digits says which fit" in refused("fit", "--data", "digits")
    assert "not on the shelf yet" in refused("fit", "dino", "--data", "digits")
    assert "compare" in refused("compar", "rtdl")
    assert "tabular" in refused("fit", "rtdl", "--data", "wine", "--task", "tabulr")
    assert "patch" in refused("fit", "mlp_mixer", "--data", "digits", "--set", "pach=2")
    assert "B/16" in refused("fit", "mlp_mixer:b16", "--data", "digits")
    assert "tiny" in refused("fit", "mlp_mixer", "--data", "digits", "--recipe", "tyni")
    assert "resnet" in refused("fit", "barlow_twins", "--data", "digits", "--backbone", "resnt")
    assert "'agc'" in refused("fit", "mlp_mixer", "--data", "digits", "--technique", "acg")
    assert "'clip'" in refused("compare", "mlp_mixer", "--data", "digits", "--technique", "agc:clp=1")


def test_wrong_values_are_named(refused):
    assert "10m" in refused("fit", "mlp_mixer", "--data", "digits", "--budget", "soon")
    assert "patch" in refused("fit", "mlp_mixer", "--data", "digits", "--set", "patch=big")
    assert "no backbone" in refused("fit", "mlp_mixer", "--data", "digits", "--backbone", "vit")
    assert "precision" in refused("fit", "mlp_mixer", "--data", "digits", "--set", "precision=fp16")


def test_bad_data(refused, tmp_path):
    assert "nowhere" in refused("look", "nowhere.csv")
    (tmp_path / "empty").mkdir()
    assert "empty" in refused("look", "empty")
    (tmp_path / "void.csv").write_text("")
    assert "void.csv" in refused("look", "void.csv")
    (tmp_path / "head.csv").write_text("a,b,target\n")
    assert "head.csv" in refused("look", "head.csv")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.txt").write_text("nothing")
    assert "notes" in refused("look", "notes")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.jpg").write_bytes(b"\xff\xd8 cut")
    assert "broken" in refused("look", "broken")


def test_bad_targets(refused, tmp_path):
    shop().to_csv("shop.csv", index=False)
    assert "returned" in refused("fit", "rtdl", "--data", "shop.csv", "--target", "return")
    frame = shop()
    frame["returned"] = "kept"
    frame.to_csv("one.csv", index=False)
    assert "one" in refused("fit", "rtdl", "--data", "one.csv", "--target", "returned")
    frame["returned"] = None
    frame.to_csv("none.csv", index=False)
    assert "returned" in refused("fit", "rtdl", "--data", "none.csv", "--target", "returned")


def test_one_class_of_images(refused, tmp_path):
    photos(tmp_path / "photos")
    import shutil

    shutil.rmtree(tmp_path / "photos" / "leaf")
    assert "class" in refused("fit", "mlp_mixer", "--data", "photos")


def test_wrong_kind_of_data(refused):
    assert "rtdl" in refused("fit", "rtdl", "--data", "digits")
    assert "mlp_mixer" in refused("fit", "mlp_mixer", "--data", "wine")


def test_prediction_refuses_what_the_model_cannot_read(papertrial, refused, tmp_path):
    shop().to_csv("shop.csv", index=False)
    code, _, err = papertrial(
        "fit", "rtdl:mlp", "--data", "shop.csv", "--target", "returned", "--recipe", "tiny", "--out", "run", "-q"
    )
    assert code == 0, err
    new = shop(30)
    new.drop(columns="price").to_csv("short.csv", index=False)
    assert "price" in refused("predict", "run", "short.csv")
    words = new.astype({"price": object})
    words.loc[3, "price"] = "cheap"
    words.to_csv("word.csv", index=False)
    code, out, err = papertrial("predict", "run", "word.csv")
    assert code == 0 and "'cheap' (line 5)" in " ".join((out + err).split()), err
    words.loc[:20, "price"] = "cheap"
    words.to_csv("words.csv", index=False)
    assert "text where numbers are expected" in refused("predict", "run", "words.csv", "--replace")
    assert "digits" in refused("predict", "run", "digits", "--replace")
    assert ".csv" in refused("predict", "run", "shop.csv", "--out", "answers.xlsx")
    assert "no trained model" in refused("predict", "nowhere", "shop.csv", "--replace")
    (tmp_path / "run" / "model.safetensors").write_bytes(b"cut")
    assert "model.safetensors" in refused("predict", "run", "shop.csv", "--replace")


def test_output_that_cannot_be_written(papertrial, refused, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert "file" in refused("fit", "rtdl:mlp", "--data", "wine", "--recipe", "tiny", "--out", "file/run")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep me")
    assert "not a run" in refused("fit", "rtdl:mlp", "--data", "wine", "--recipe", "tiny", "--out", "mine")
    assert "not a run" in refused("fit", "rtdl:mlp", "--data", "wine", "--recipe", "tiny", "--out", "mine", "--fresh")
    assert (tmp_path / "mine" / "letter.txt").read_text() == "keep me"


def test_a_gzipped_table_through_the_real_command(tmp_path):
    """A process of its own, as installed, with no environment prepared."""
    with gzip.open(tmp_path / "shop.csv.gz", "wt") as stream:
        shop(120).to_csv(stream, index=False)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OMP")}
    done = subprocess.run(
        [sys.executable, "-m", "papertrial", "look", "shop.csv.gz", "--json"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["numbers"]["examples"] == 120


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), Stopped(signal.SIGTERM), Stopped(signal.SIGTERM, ENDED)])
@pytest.mark.parametrize("late", [False, True])
def test_an_interrupt_is_said_whenever_it_comes(stop, late, papertrial, monkeypatch):
    """Also while another error is being told, as when the signal and the broken connection of a lost process race."""

    def interrupted(*words, **options):
        raise RuntimeError("Connection closed by peer (gloo)") if late else stop

    def too_late(error):
        raise stop

    monkeypatch.setattr("papertrial.use.fit.fit", interrupted)
    monkeypatch.setattr("papertrial.train.processes.lost", too_late)
    code, _, err = papertrial("fit", "rtdl", "--data", "iris")
    words = ENDED if str(stop) == ENDED else f"{str(stop) or 'stopped'}; the same command goes on from there"
    assert (code, err) == (143 if isinstance(stop, Stopped) else 130, f"papertrial: {words}\n")


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), Stopped(signal.SIGTERM), Stopped(signal.SIGTERM, ENDED)])
def test_an_interrupt_is_said_though_tidying_up_after_it_fails(stop, papertrial, monkeypatch):
    """Closing a log that the signal has half closed is an error of its own."""

    def interrupted(*words, **options):
        try:
            raise stop
        finally:
            raise OSError("Writer is closed")

    monkeypatch.setattr("papertrial.use.fit.fit", interrupted)
    code, _, err = papertrial("fit", "rtdl", "--data", "iris")
    words = ENDED if str(stop) == ENDED else f"{str(stop) or 'stopped'}; the same command goes on from there"
    assert (code, err) == (143 if isinstance(stop, Stopped) else 130, f"papertrial: {words}\n")
