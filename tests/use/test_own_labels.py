"""A model answers with the labels as the user has them: numbers stay numbers, booleans booleans, texts texts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import papertrial as pt
from papertrial.use.card import CARD

ROWS = 60
CODES = np.arange(ROWS) % 2
X = np.stack([CODES + np.linspace(0, 0.1, ROWS), np.linspace(0, 1, ROWS)], 1)
IMAGES = (
    np.repeat((CODES * 200).astype(np.uint8), 64).reshape(ROWS, 8, 8) + np.arange(ROWS, dtype=np.uint8)[:, None, None]
)
OWN = {
    "int": CODES + 3,
    "negative": CODES - 1,
    "bool": CODES == 1,
    "float": CODES.astype(float),
    "text": np.where(CODES, "yes", "no"),
    "digits as text": np.where(CODES, "1", "0"),
    "objects": np.array([bool(code) for code in CODES], object),
}


class Items(torch.utils.data.Dataset):
    def __init__(self, pictures, labels):
        self.pictures, self.labels = pictures, labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, row):
        return torch.from_numpy(self.pictures[row][None].copy()), self.labels[row]


def answered(method, data, new, **how):
    """What the model says that is read back from its folder."""
    made = pt.fit(method, data, budget="2steps", progress=False, **how)
    return pt.load(made.folder).predict(new)["prediction"]


def same_kind(answers, own):
    """Equal types and values of the same sort, so that answers and labels can be compared."""
    answers = np.asarray(answers)
    assert set(answers.tolist()) <= set(own.tolist())
    assert {type(value) for value in answers.tolist()} == {type(value) for value in own.tolist()}


@pytest.mark.parametrize("own", OWN, ids=str)
def test_arrays_and_frames(own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    y = OWN[own]
    answers = answered("linear", (X, y), X)
    same_kind(answers, y)
    assert (np.asarray(answers) == y).mean() == 1.0
    frame = pd.DataFrame(X, columns=["a", "b"]).assign(y=y)
    answers = answered("linear", frame, frame, target="y", out="runs/frame")
    same_kind(answers, y)
    assert (answers == frame["y"]).all()


@pytest.mark.parametrize("own", [name for name in OWN if name != "negative"])
def test_pictures_and_texts(own, tmp_path, monkeypatch):
    """Of these a negative label says that there is none."""
    monkeypatch.chdir(tmp_path)
    y = OWN[own]
    same_kind(answered("majority", (IMAGES, y), IMAGES), y)
    same_kind(answered("majority", Items(IMAGES, y.tolist()), Items(IMAGES, y.tolist())), y)
    texts = [f"{'sun' if code else 'rain'} on day {row}" for row, code in enumerate(CODES)]
    answers = answered("majority", (texts, y.tolist()), texts, out="runs/texts")
    same_kind(answers, y)


@pytest.mark.parametrize(
    ("written", "own"),
    [
        (["3", "4"], [3, 4]),
        (["-1", "1"], [-1, 1]),
        (["0.5", "1.5"], [0.5, 1.5]),
        (["True", "False"], [True, False]),
        (["true", "false"], [True, False]),
        (["yes", "no"], ["yes", "no"]),
        (["01", "2x"], ["01", "2x"]),
    ],
    ids=str,
)
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_columns_of_files(written, own, ending, tmp_path, monkeypatch):
    """A CSV says by the way they are written what values are; the others say it themselves."""
    monkeypatch.chdir(tmp_path)
    held = written if ending == "csv" else own
    frame = pd.DataFrame(X, columns=["a", "b"]).assign(y=[held[code] for code in CODES])
    if ending == "csv":
        frame.to_csv("t.csv", index=False)
    elif ending == "parquet":
        frame.to_parquet("t.parquet")
    else:
        frame.to_json("t.jsonl", orient="records", lines=True)
    answers = answered("linear", f"t.{ending}", f"t.{ending}", target="y")
    same_kind(answers, np.array([own[code] for code in CODES]))
    assert list(answers) == [own[code] for code in CODES]


def test_a_table_of_labels_beside_pictures_and_folders(tmp_path, monkeypatch):
    """Numbers in a table are numbers; the names of folders are names."""
    monkeypatch.chdir(tmp_path)
    for row, picture in enumerate(IMAGES):
        place = tmp_path / "flat" / f"{row}.png"
        inside = tmp_path / "folders" / str(CODES[row]) / f"{row}.png"
        for path in (place, inside):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
    pd.DataFrame({"file": [f"{row}.png" for row in range(ROWS)], "label": CODES}).to_csv("flat/labels.csv", index=False)
    same_kind(answered("majority", "flat", "flat"), CODES)
    same_kind(answered("majority", "folders", "folders"), CODES.astype(str))


def test_a_threshold_answers_so_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    same_kind(answered("linear", (X, CODES == 1), X, threshold="recall=0.9"), CODES == 1)


def test_a_model_of_before_answers_with_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = pt.fit("linear", (X, CODES), progress=False)
    card = CARD.read(made.folder / "card.json")
    assert card["state"].pop("labels") == [0, 1]
    CARD.write(made.folder / "card.json", card)
    assert set(pt.load(made.folder).predict(X)["prediction"]) == {"0", "1"}
