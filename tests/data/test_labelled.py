"""Folders of images as people have them: labels in a table beside them, folders that are no classes, and what is lost on the way."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import papertrial as pt
from papertrial.core.errors import DataError
from papertrial.data.layout import layout


def pictures(root, names, seed=0):
    """A picture of noise at each path below `root`."""
    draw = np.random.default_rng(seed)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (10, 10, 3), dtype=np.uint8)).save(root / name)
    return root


def table(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in rows))
    return path


NAMES = [f"images/{row:03}.png" for row in range(12)]
KINDS = ["cat", "dog", "cow"]


def rows_of(names, file=lambda name: name.rpartition("/")[2], head=("filename", "label")):
    return [head, *((file(name), KINDS[row % 3]) for row, name in enumerate(names))]


@pytest.mark.parametrize(
    ("head", "file"),
    [
        (("filename", "label"), lambda name: name.rpartition("/")[2]),
        (("id", "breed"), lambda name: name.rpartition("/")[2].removesuffix(".png")),
        (("path", "class"), lambda name: name),
        (("Image_ID", "Species"), lambda name: name.rpartition("/")[2].replace(".png", ".jpg")),
        (("", ""), lambda name: name.rpartition("/")[2]),
    ],
)
def test_a_table_of_labels_beside_the_images(tmp_path, head, file):
    pictures(tmp_path, NAMES)
    table(tmp_path / "labels.csv", rows_of(NAMES, file, head)[not head[0] :])
    images = pt.open(tmp_path)
    assert images.kind == "images" and images.class_names == ("cat", "cow", "dog")
    assert images.label_words() == [KINDS[row % 3] for row in range(12)]
    assert any("labels from labels.csv" in note for note in images.notes)
    assert ("labels.csv has no line that names its columns" in images.notes) == (not head[0])
    assert not any("not used" in note or "no class" in note for note in images.notes if "folder" not in note)


def test_what_the_table_names_and_what_it_does_not_is_said(tmp_path):
    pictures(tmp_path, NAMES)
    rows = [*rows_of(NAMES[2:]), ("gone.png", "cat"), ("002.png", "dog")]
    table(tmp_path / "labels.csv", rows)
    images = pt.open(tmp_path)
    assert images.labels[:2].tolist() == [-1, -1] and (images.labels[2:] >= 0).all()
    said = "\n".join(images.notes)
    assert "2 images that no table gives a label: images/000.png, images/001.png" in said
    assert "labels.csv names 1 image (gone.png) that is not here" in said
    assert "labels.csv: 1 row with another label of an image that has one: the first is used" in said


def test_more_columns_and_which_is_meant(tmp_path):
    pictures(tmp_path, NAMES)
    rows = [(name.rpartition("/")[2], row / 7, KINDS[row % 3], "ab"[row % 2]) for row, name in enumerate(NAMES)]
    table(tmp_path / "labels.csv", [("file", "width", "label", "camera"), *rows])
    images = pt.open(tmp_path)
    assert images.class_names == ("cat", "cow", "dog")
    assert any("other columns: width, camera, choose with --target" in note for note in images.notes)
    assert pt.open(tmp_path, target="Camera").class_names == ("a", "b")
    with pytest.raises(DataError, match="no column 'camra'; did you mean 'camera'"):
        pt.open(tmp_path, target="camra")
    table(tmp_path / "labels.csv", [("file", "width", "animal", "camera"), *rows])
    images = pt.open(tmp_path)
    assert images.class_names == () and any(
        "may be in width, animal, camera: say with --target" in n for n in images.notes
    )
    table(tmp_path / "labels.csv", [("file", "width"), *((name, row) for name, row, *_ in rows)])
    assert any("12 different values in 12 rows, so they are no classes" in note for note in pt.open(tmp_path).notes)


def test_a_model_asks_new_data_for_the_column_it_learnt(tmp_path):
    names = [f"images/{row:03}.png" for row in range(40)]
    for seed, root in enumerate((tmp_path / "old", tmp_path / "new")):
        pictures(root, names, seed)
        rows = [(name.rpartition("/")[2], KINDS[row % 3], "ab"[row % 2]) for row, name in enumerate(names)]
        table(root / "labels.csv", [("file", "label", "camera"), *rows])
    model = pt.fit("majority", tmp_path / "old", target="camera", out=tmp_path / "run", progress=False)
    assert model.card["state"]["class_names"] == ["a", "b"]
    scores = model.evaluate(tmp_path / "new")
    assert (scores.rows, len(scores.per_example), dict(scores.left_out)) == (40, 40, {})
    assert not any("does not know" in note or "equal one" in note for note in scores.notes)
    assert any("equal one that it was trained on" in note for note in model.evaluate(tmp_path / "old").notes)


def test_a_column_for_each_class(tmp_path):
    pictures(tmp_path, NAMES)
    rows = [(name.rpartition("/")[2], *(int(row % 3 == kind) for kind in range(3))) for row, name in enumerate(NAMES)]
    table(tmp_path / "train.csv", [("image_id", *KINDS), *rows])
    images = pt.open(tmp_path)
    assert images.label_words() == [KINDS[row % 3] for row in range(12)]
    assert any("labels from train.csv, the column that is 1" in note for note in images.notes)


def test_a_competition_with_a_form_for_answers(tmp_path):
    train, test = ([f"{part}/{row}.png" for row in range(9)] for part in ("train", "test"))
    pictures(tmp_path, [name.replace("/", "/t") for name in train] + test)
    train = [name.replace("/", "/t") for name in train]
    table(tmp_path / "train.csv", rows_of(train, lambda name: name[6:-4], ("id", "label")))
    table(tmp_path / "sample_submission.csv", [("id", "label"), *((row, "cat") for row in range(9))])
    images = pt.open(tmp_path)
    assert sum(bool(word) for word in images.label_words()) == 9 and not (images.part == 2).any()
    said = "\n".join(images.notes)
    assert "sample_submission.csv is a form for answers: its labels are not used" in said
    assert "the test images have no labels: they count as unlabelled ones to learn from" in said


def test_tables_for_the_parts(tmp_path):
    pictures(tmp_path, NAMES)
    table(tmp_path / "train.csv", rows_of(NAMES[:6]))
    table(tmp_path / "test.csv", rows_of(NAMES[6:]))
    images = pt.open(tmp_path)
    assert images.part.tolist() == [0] * 6 + [2] * 6 and (images.labels >= 0).all()


def test_the_table_itself_opens_what_it_names(tmp_path):
    pictures(tmp_path, [*NAMES, "images/more.png"])
    path = table(tmp_path / "labels.csv", rows_of(NAMES))
    images = pt.open(path)
    assert images.kind == "images" and len(images) == 12 and images.class_names == ("cat", "cow", "dog")
    assert any("1 image beside labels.csv that it does not name: not used" in note for note in images.notes)
    other = table(tmp_path / "weather.csv", [("day", "rain"), *((row, row % 2) for row in range(20))])
    assert pt.open(other).kind == "table"


def test_captions_are_no_labels(tmp_path):
    pictures(tmp_path, NAMES)
    table(tmp_path / "captions.csv", [("file", "caption"), *((name, f"a picture of {name}") for name in NAMES)])
    images = pt.open(tmp_path)
    assert images.captioned and images.class_names == () and not any("classes" in note for note in images.notes)


@pytest.mark.parametrize(
    ("names", "words", "part"),
    [
        (["images/train/1", "images/train/2"], ["", ""], [0, 0]),
        (["train/1", "stray"], ["", ""], [0, 0]),
        (["photos/1", "photos/2"], ["", ""], [0, 0]),
        (["valid/1", "test/1"], ["", ""], [0, 0]),
        (["train/images/1", "test/images/2"], ["", ""], [0, 2]),
        (["train/all/a/1", "test/all/b/2"], ["a", "b"], [0, 2]),
        (["a/train/1", "a/test/2", "b/train/3"], ["a", "a", "b"], [0, 2, 0]),
        (["a/train/1", "b/train/3"], ["a", "b"], [0, 0]),
        (["photos/1", "drawings/2"], ["photos", "drawings"], [0, 0]),
    ],
)
def test_folders_that_are_no_classes(names, words, part):
    found = layout(names)
    assert [found.class_names[label] if label >= 0 else "" for label in found.labels] == words
    assert found.part.tolist() == part


def test_empty_and_linked_folders_and_equal_pictures_in_two_classes_are_said(tmp_path):
    root = pictures(tmp_path / "data", ["cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"])
    (root / "cow").mkdir()
    (root / "elsewhere").symlink_to(pictures(tmp_path / "other", ["1.png"]))
    (root / "dog" / "copy.png").write_bytes((root / "cat" / "1.png").read_bytes())
    images = pt.open(root)
    assert "1 folder without images: 'cow'" in images.notes
    assert "1 folder not read, since a link may lead anywhere: 'elsewhere'" in images.notes
    said = "1 image given more than once, with different labels: cat/1.png (cat), dog/copy.png (dog)"
    assert images.look().notes.count(said) == 1 and said in images.look().notes
