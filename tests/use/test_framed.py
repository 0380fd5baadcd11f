"""Answers are a data frame whose rows are called as those that were asked about."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import papertrial as pt

X = np.random.default_rng(0).normal(size=(40, 3))
Y = np.where(X[:, 0] > 0, "yes", "no")
FRAME = pd.DataFrame(X, columns=list("abc")).assign(y=Y)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return pt.fit("linear", FRAME, target="y", out=tmp_path_factory.mktemp("framed") / "run", progress=False)


INDICES = {
    "shuffled": np.random.default_rng(1).permutation(40) + 100,
    "words": [f"row {row}" for row in range(40)],
    "dates": pd.date_range("2024-01-01", periods=40),
    "twice the same": [0, 1] * 20,
    "levels": pd.MultiIndex.from_product([range(4), range(10)], names=["x", "y"]),
}


@pytest.mark.parametrize("name", INDICES)
def test_a_frame_keeps_its_index(model, name):
    frame = FRAME.set_axis(INDICES[name], axis=0)
    answers = model.predict(frame.drop(columns="y"))
    assert isinstance(answers, pd.DataFrame)
    assert answers.index.equals(frame.index) and answers.index.names == frame.index.names
    assert list(answers["example"]) == list(frame.index)
    assert (answers["prediction"] == frame["y"]).mean() > 0.8
    assert list(answers)[2:] == ["p(no)", "p(yes)"]


def test_files_and_arrays_count_from_0(model, tmp_path):
    FRAME.to_csv(tmp_path / "t.csv", index=False)
    answers = model.predict(tmp_path / "t.csv")
    assert answers.index.equals(pd.RangeIndex(40))
    assert answers["example"].tolist() == list(range(1, 41))  # as people count lines
    made = pt.fit("linear", (X, Y), out=tmp_path / "run", progress=False)
    assert made.predict(X).index.equals(pd.RangeIndex(40))


def test_a_folder_has_the_names_of_its_files(tmp_path):
    draw = np.random.default_rng(0)
    for sort in "ab":
        (tmp_path / "photos" / sort).mkdir(parents=True)
        for row in range(12):
            pixels = draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / sort / f"{row}.png")
    (tmp_path / "photos" / "a" / "torn.png").write_bytes(b"\x89PNG and no more")
    made = pt.fit("majority", tmp_path / "photos", out=tmp_path / "run", progress=False)
    answers = made.predict(tmp_path / "photos")
    assert answers.loc["a/3.png", "example"] == "a/3.png" and answers.index.name == "example"
    assert len(answers) == 24 and "a/torn.png" not in answers.index
    assert any("torn.png" in line for line in answers.attrs["notes"])


def test_pictures_that_are_left_out_leave_a_gap(tmp_path):
    images = np.random.default_rng(0).random((20, 8, 8))
    made = pt.fit("majority", (images, np.arange(20) % 2), out=tmp_path / "run", progress=False)
    images[3] = np.nan
    answers = made.predict(images)
    assert answers.index.tolist() == [row for row in range(20) if row != 3]


def test_texts_of_a_series(tmp_path):
    texts = pd.Series([f"{'sun' if row % 2 else 'rain'} on day {row}" for row in range(40)], index=range(7, 47))
    made = pt.fit("majority", (texts, list(np.arange(40) % 2)), out=tmp_path / "run", progress=False)
    assert made.predict(texts).index.equals(texts.index)


def test_answers_as_files(model, tmp_path):
    """`papertrial.predict` gives what it writes."""
    for ending, read in (("csv", pd.read_csv), ("parquet", pd.read_parquet)):
        answers = pt.predict(model.folder, FRAME, out=tmp_path / f"answers.{ending}")
        again = read(tmp_path / f"answers.{ending}")
        assert again["prediction"].tolist() == answers["prediction"].tolist()
        assert list(again) == list(answers)
