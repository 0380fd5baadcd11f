"""Rows in = rows answered + rows named, and what was said while training is said while answering."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
from PIL import Image
from small_runs import labelled, prose, run, sentences

import papertrial as pt
from papertrial.core.errors import Declined
from papertrial.core.task import Ragged, Split
from papertrial.use import account


@pytest.fixture
def table(tmp_path):
    """Made anew by each call: 120 rows of which `b` decides the label."""
    draw = np.random.default_rng(1)

    def make(name="table.csv", **changes):
        colour = draw.choice(["red", "blue"], 120)
        frame = pd.DataFrame(
            {"x": draw.normal(size=120).round(4), "b": colour, "y": np.where(colour == "red", "yes", "no")}
        )
        frame.assign(**{name: change(frame) for name, change in changes.items()}).to_csv(tmp_path / name, index=False)
        return tmp_path / name

    return make


@pytest.fixture
def trained(table, tmp_path):
    return pt.fit("linear", table("train.csv"), target="y", out=tmp_path / "run", progress=False)


def capitals(frame):
    return np.where(np.arange(len(frame)) % 3 == 0, frame["y"].str.upper(), frame["y"])


def test_labels_that_the_model_does_not_know_are_named_and_counted(trained, table):
    mixed = table("capitals.csv", y=capitals)
    scores = trained.evaluate(mixed)
    assert (scores.rows, len(scores.per_example), scores.left_out) == (120, 80, {"label not known": 40})
    line = next(note for note in scores.notes if "does not know" in note)
    assert line.startswith("40 of 120 rows have a label this model does not know: '") and "'NO' (" in line
    assert line.endswith("it knows no, yes: not judged; --strict counts them wrong")
    strict = trained.evaluate(mixed, strict=True)
    assert (strict.rows, len(strict.per_example), strict.left_out) == (120, 120, {})
    assert strict.metrics["accuracy"] == pytest.approx(scores.metrics["accuracy"] * 80 / 120)
    assert next(note for note in strict.notes if "does not know" in note).endswith("counted wrong")


def test_rows_without_a_label_are_told_from_those_with_a_strange_one(trained, table):
    def some(frame):
        return np.where(np.arange(len(frame)) < 5, "", np.where(np.arange(len(frame)) == 9, "perhaps", frame["y"]))

    scores = trained.evaluate(table("gaps.csv", y=some))
    assert scores.left_out == {"label not known": 1, "no label": 5} and len(scores.per_example) == 114
    assert "5 rows have no label: not judged" in scores.notes
    strict = trained.evaluate(table("gaps.csv", y=some), strict=True)
    assert strict.left_out == {"no label": 5} and len(strict.per_example) == 115


def test_numbers_without_a_target_are_counted_and_strict_is_declined(table, tmp_path):
    def value(frame):
        return np.where(np.arange(len(frame)) < 7, np.nan, frame["x"])

    model = pt.fit("linear", table("numbers.csv", y=lambda frame: frame["x"]), target="y", out=tmp_path / "numbers")
    scores = model.evaluate(table("gaps.csv", y=value))
    assert scores.left_out == {"no label": 7} and len(scores.per_example) == 113
    with pytest.raises(Declined, match="no labels to be strict about"):
        model.evaluate(table("gaps.csv", y=value), strict=True)


def test_every_command_shows_and_counts_what_was_lost(trained, table, papertrial):
    new = table("new.csv", b=lambda frame: np.full(len(frame), "green"))
    said = "column 'b': 120 of 120 rows have a missing value or a category unseen in training"
    for words in (("predict", trained.folder, new, "--replace"), ("evaluate", trained.folder, new)):
        code, out, err = papertrial(*words)
        assert code == 0 and said in " ".join(err.split()) and "unseen" not in out
        code, out, err = papertrial(*words, "--json")
        page = json.loads(out)
        assert not err and said in page["notes"] and page["rows_in"] == 120 and page["left_out"] == {}


def test_guesses_about_a_target_are_no_concern_of_a_model_that_has_one(trained, table):
    assert not any("guessed" in note for note in trained.encode(table("new.csv")).notes)


def test_data_it_was_trained_on(trained, table, tmp_path):
    again = trained.evaluate(tmp_path / "train.csv")
    assert again.notes[0].startswith("this is the data it was trained on; accuracy on the rows held out then: ")
    learned = round(120 * 0.8)
    assert f"{learned} of 120 rows equal one that it was trained on or chosen with" in again.notes
    frame = pd.read_csv(tmp_path / "train.csv")
    new = pd.read_csv(table("new.csv"))
    pd.concat([new, frame]).sample(frac=1, random_state=0).to_csv(tmp_path / "mixed.csv", index=False)
    assert (
        f"{learned} of 240 rows equal one that it was trained on or chosen with"
        in trained.evaluate(tmp_path / "mixed.csv").notes
    )
    assert not any("trained on" in note for note in trained.evaluate(table("new.csv")).notes)


def test_of_many_rows_a_fair_sample_is_kept(tmp_path, monkeypatch):
    draw, task = np.random.default_rng(0), type("Task", (), {"inputs": ("x",), "kind": "table"})()
    rows = Split({"x": draw.normal(size=(8000, 2))})
    prepared = type("Prepared", (), {"train": rows.take(slice(6000)), "valid": rows.take(slice(0))})()
    monkeypatch.setattr(account, "KEPT", 1000)
    account.keep_hashes(tmp_path, task, prepared)
    assert np.load(tmp_path / account.HASHES).nbytes == 8000
    seen = account.met(tmp_path, task, rows)
    assert 1100 < len(seen) < 1600 and abs(seen.mean() - 0.75) < 0.05
    assert account.said_of_met(seen, task, rows)[0].startswith("about 6,0")


def test_rows_are_equal_by_what_a_model_reads_of_them():
    task = type("Task", (), {"inputs": ("x", "text"), "kind": "any"})()
    numbers = np.array([[1.0, np.nan], [0.0, 2.0], [-0.0, 2.0], [1.0, 2.0], [2.0, 1.0]])
    texts = Ragged.of_texts(["a", "b", "b", "c", "c"])
    found = account.row_hashes(task, Split({"x": numbers, "text": texts}))
    assert found[1] == found[2] and len(set(found.tolist())) == 4


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Folders of bright and dark pictures, `no` and `yes` to learn from and `No` and `yes` to be asked for, with a damaged file."""
    draw = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("shapes")
    for where, names in (("train", ("no", "yes")), ("new", ("No", "yes"))):
        for number, name in enumerate(names):
            (root / where / name).mkdir(parents=True)
            for row in range(30):
                pixels = draw.integers(0, 90, (12, 12, 3), np.uint8) + np.uint8(150 * number)
                Image.fromarray(pixels).save(root / where / name / f"{row}.png")
    (root / "new" / "yes" / "broken.png").write_bytes(b"\x89PNG nothing")
    return root


def test_images_left_out_are_named_counted_and_not_answered(shapes, tmp_path, papertrial):
    model = pt.fit("majority", shapes / "train", out=tmp_path / "run", progress=False)
    scores = model.evaluate(shapes / "new")
    assert scores.rows == 61 and scores.left_out == {"damaged file": 1, "label not known": 30}
    assert len(scores.per_example) == 30
    assert any("30 of 60 rows have a label this model does not know: 'No' (30)" in note for note in scores.notes)
    assert any(note.startswith("skipped 1 damaged file: yes/broken.png") for note in scores.notes)
    assert len(model.evaluate(shapes / "new", strict=True).per_example) == 60
    code, out, err = papertrial("predict", model.folder, shapes / "new", "--out", tmp_path / "answers.csv")
    assert code == 0 and "left out of 61: 1 damaged file" in out and "yes/broken.png" in err
    assert len(pd.read_csv(tmp_path / "answers.csv")) == 60
    again = model.evaluate(shapes / "train")
    assert any("of 60 rows equal one that it was trained on" in note for note in again.notes)


def test_texts(tmp_path):
    model = run("text_transformer")
    new = pd.DataFrame(sentences(40, seed=9), columns=["text", "label"])
    new.loc[:9, "label"] = new.loc[:9, "label"].str.title()
    new.to_csv(tmp_path / "new.csv", index=False)
    scores = model.evaluate(tmp_path / "new.csv")
    assert scores.left_out == {"label not known": 10} and scores.rows == 40
    assert any("'Bad' (5)" in note or "'Good' (5)" in note for note in scores.notes)
    again = model.evaluate(labelled())
    assert any(note.startswith("this is the data it was trained on") for note in again.notes)
    assert any("of 90 rows equal one that it was trained on" in note for note in again.notes)


def test_what_is_cut_is_said_while_training_and_answering(tmp_path):
    rows = pd.DataFrame(sentences(60), columns=["text", "label"])
    rows.loc[:4, "text"] += " word" * 700
    rows.to_csv(tmp_path / "long.csv", index=False)
    model = run("byt5")
    said = next(note for note in model.encode(tmp_path / "long.csv").notes if "cut off" in note)
    assert said.endswith("of 60 texts longer than the 48 tokens that are read of one: the rest is cut off")
    counted = int((rows["text"].str.encode("utf-8").str.len() + 1 > 48).sum())
    assert said.startswith(f"{counted} of ") and 5 < counted < 60
    assert any(note.startswith("training: ") and "cut off" in note for note in model.card["notes"])
    short = pt.fit("tfidf", tmp_path / "long.csv", settings={"longest": 1000}, out=tmp_path / "tfidf", progress=False)
    assert any("texts longer than the 1,000 characters that are read of one" in note for note in short.card["notes"])


def test_windows_of_running_text_have_names_of_their_own(papertrial, tmp_path):
    model = run("language")
    code, out, _ = papertrial("embed", model.folder, prose(), "--out", tmp_path / "features.parquet")
    assert code == 0, out
    names = pyarrow.parquet.read_table(tmp_path / "features.parquet")["example"].to_pylist()
    assert names == [str(row + 1) for row in range(len(names))] and len(names) > 5
    assert any("% of its longer lines are among those" in note for note in model.evaluate(prose()).notes)
