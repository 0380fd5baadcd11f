"""Drawing from captions: which are held out, whether picture and caption belong together, and whole commands."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from papertrial.core.errors import DataError, Declined, PapertrialError
from papertrial.core.registry import method
from papertrial.data.images import Images
from papertrial.tasks._image_quality import Drawn, Measures
from papertrial.tasks.image_generation import TASK as PLAIN
from papertrial.tasks.image_text_generation import TASK, caption_ranks
from papertrial.use.choose import choose_task, task_for

COLOURS = {
    "red": (200, 20, 20),
    "green": (20, 180, 20),
    "blue": (20, 20, 220),
    "grey": (110, 110, 110),
    "gold": (220, 180, 0),
}
SHAPES = ("left half", "right half", "top half", "bottom half")


def picture(colour, shape, seed):
    """A half of one colour on white with strong noise, so that no two are near duplicates: (8, 8, 3)."""
    rng = np.random.default_rng(seed)
    pixels = np.full((8, 8, 3), 255.0)
    rows, columns = {"l": (slice(0, 8), slice(0, 4)), "r": (slice(0, 8), slice(4, 8)),
                     "t": (slice(0, 4), slice(0, 8)), "b": (slice(4, 8), slice(0, 8))}[shape[0]]  # fmt: skip
    pixels[rows, columns] = COLOURS[colour]
    return np.clip(pixels + rng.normal(0, 45, pixels.shape), 0, 255).astype(np.uint8)


def combinations(each=4, **kind):
    """`each` pictures of every colour and half, captioned with both."""
    pairs = [(colour, shape) for colour in COLOURS for shape in SHAPES for _ in range(each)]
    pixels = np.stack([picture(*pair, seed) for seed, pair in enumerate(pairs)])
    return Images.from_arrays(pixels, captions=[f"{colour} {shape}" for colour, shape in pairs], **kind)


def texts(split):
    return split["text"].texts()


# --------------------------------------------------------------------------------------------------------------- split


def test_no_caption_of_a_test_picture_is_met_elsewhere():
    data = combinations()
    prepared = TASK.prepare(data, 0)
    test, valid, train = (set(texts(split)) for split in (prepared.test, prepared.valid, prepared.train))
    assert not test & (train | valid)
    assert not valid & train
    assert prepared.test.examples == 4 * len(test)
    assert sum(split.examples for split in (prepared.test, prepared.valid, prepared.train)) == len(data)
    assert prepared.test["known"].all()  # new combinations of colours and halves that are known
    assert any("met nowhere else; of 100% all words are" in note for note in prepared.notes)
    assert texts(TASK.prepare(data, 5).test) == texts(prepared.test)
    assert set(texts(TASK.prepare(data, 5).valid)) != valid
    facts = prepared.facts
    assert facts.captions
    assert facts.bytes == sum(map(len, texts(prepared.train)))
    assert facts.length in (16, 17)
    assert not PLAIN.prepare(data, 0).facts.captions


def test_pictures_and_captions_stay_in_line():
    data = combinations()
    prepared = TASK.prepare(data, 0)
    captions = dict(zip(map(np.ndarray.tobytes, data.pixels()), data.captions, strict=True))
    for split in (prepared.train, prepared.valid, prepared.test):
        assert [captions[image.tobytes()] for image in np.asarray(split["image"])] == texts(split)


def test_a_word_that_training_has_not_is_not_known():
    data = combinations()
    first = texts(TASK.prepare(data, 0).test)[0]
    changed = [f"{text} again" if text == first else text for text in data.captions]
    prepared = TASK.prepare(Images.from_arrays(np.asarray(data.pixels()), captions=changed), 0)
    for text, known in zip(texts(prepared.test), prepared.test["known"].tolist(), strict=True):
        assert known == ("again" not in text)


def test_duplicates_of_pictures_stay_together_too():
    data = combinations(each=2)
    pixels = np.asarray(data.pixels()).copy()
    captions = [f"{text} {row}" for row, text in enumerate(data.captions)]  # all different
    pixels[1::2] = pixels[::2]
    prepared = TASK.prepare(Images.from_arrays(pixels, captions=captions), 0)
    number = [int(text.split()[-1]) // 2 for text in texts(prepared.test)]
    assert len(number) == 2 * len(set(number))


def test_captions_that_stand_for_classes_are_not_held_out():
    data = combinations(each=11)
    prepared = TASK.prepare(data, 0)
    assert set(texts(prepared.test)) <= set(texts(prepared.train))
    assert not prepared.test["known"].any()
    assert any("captions are met in training too" in note for note in prepared.notes)
    held = TASK.prepare(data, 0, held="captions")
    assert not set(texts(held.test)) & set(texts(held.train))
    few = TASK.prepare(combinations(), 0, held="images")
    assert set(texts(few.test)) & set(texts(few.train))


def test_the_name_of_its_class_is_a_caption_where_there_is_no_other(monkeypatch):
    monkeypatch.setattr("papertrial.tasks._image_quality.STEPS", 2)
    pixels = np.asarray(combinations(each=11).pixels())
    data = Images.from_arrays(pixels, [*np.repeat(["cat", "dog"], 110)])
    prepared = TASK.prepare(data, 0)
    assert set(texts(prepared.train)) == {"cat", "dog"}
    assert prepared.state["captions"] == "names"
    names = np.array(prepared.state["class_names"])
    assert names[prepared.test["label"]].tolist() == texts(prepared.test)
    assert any("the name of its class is the caption" in note for note in prepared.notes)


def test_pictures_without_a_caption_are_left_out():
    data = combinations()
    captions = ["" if row % 3 == 0 else text for row, text in enumerate(data.captions)]
    data = Images.from_arrays(np.asarray(data.pixels()), captions=captions)
    prepared = TASK.prepare(data, 0)
    assert "left out: 27 images without a caption" in prepared.notes
    assert all(text for split in (prepared.train, prepared.valid, prepared.test) for text in texts(split))
    assert TASK.encode(prepared.state, data).examples == 53
    with pytest.raises(DataError, match="has no captions"):
        TASK.encode(prepared.state, Images.from_arrays(np.asarray(data.pixels())))


def test_a_given_split_gives_up_test_pictures_whose_caption_is_learned():
    data = combinations()
    test = np.array([text.startswith("gold") for text in data.captions])
    part = np.where(test, 2, 0)
    part[np.flatnonzero(test)[0]] = 0  # one of four "gold left half" is to be learned from
    prepared = TASK.prepare(combinations(part=part), 0)
    assert set(texts(prepared.test)) == {f"gold {shape}" for shape in SHAPES[1:]}
    assert any("moved to training: 3 images whose caption is met there" in note for note in prepared.notes)
    part = np.arange(len(data)) % 4 // 3 * 2  # the fourth picture of every caption
    prepared = TASK.prepare(combinations(part=part), 0)
    assert "every caption of the given test images is met in training: the given split is not used" in prepared.notes
    assert not set(texts(prepared.test)) & set(texts(prepared.train))


@pytest.mark.parametrize("options", [{"held": "words"}, {"fraction": 0}, {"size": 2}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(PapertrialError):
        TASK.prepare(combinations(), 0, **options)


def test_what_fits():
    captioned, plain = combinations(), Images.from_arrays(np.asarray(combinations().pixels()))
    assert TASK.supports(captioned.look())
    assert TASK.supports(plain.look()).why == "there are no captions, nor classes whose names could be captions"
    few = Images.from_arrays(np.asarray(plain.pixels()), captions=["a cat"] * 5 + [""] * 75)
    assert TASK.supports(few.look()).why == "5 images have a caption, and it takes 20 or more"
    assert choose_task(captioned).name == "image_text_generation"
    assert choose_task(plain).name == "image_representation"
    labelled = Images.from_arrays(np.asarray(plain.pixels()), np.arange(80) % 2)
    assert choose_task(labelled).name == "image_classification"
    pixel = method("pixel_transformer")
    assert [task_for(pixel, data).name for data in (captioned, labelled)] == [
        "image_text_generation",
        "image_generation",
    ]
    with pytest.raises(Declined, match="not made for the task"):
        TASK.build(method("gan"), None, None, TASK.prepare(captioned, 0))


# -------------------------------------------------------------------------------------------------------------- figures


def test_ranks_by_hand():
    real = np.array([[0.0], [1.0], [5.0], [9.0]])
    caption = np.array([0, 1, 2, 0])
    ranks = caption_ranks(np.array([[0.4], [6.0], [3.0], [5.0]]), real, caption)
    # row 0 is at 0.4 from its own; 1 and 5 are farther.  row 1 is at 5 from its own: 0 is at 6, 5 at 1, 9 at 3.
    # row 2 is at 2: 0 is at 3, 1 at 2, which counts half, and 9 at 6.  row 3, at 4 from 9, of whose caption row 0 is too
    assert ranks.tolist() == [1.0, 1 / 3, 2.5 / 3, 0.25]


@settings(max_examples=25)
@given(st.integers(2, 30), st.integers(1, 6), st.integers(0, 1000))
def test_the_mean_rank_over_all_assignments_is_a_half(rows, width, seed):
    """Over all ways to shift which caption belongs to which drawn picture, chance is 0.5 exactly."""
    rng = np.random.default_rng(seed)
    drawn, real = rng.normal(size=(rows, width)), rng.integers(0, 3, (rows, width)).astype(float)
    shifted = [caption_ranks(np.roll(drawn, shift, 0), real, np.arange(rows)).mean() for shift in range(rows)]
    assert np.mean(shifted) == pytest.approx(0.5)


def test_figures_of_perfect_random_and_wrong_pictures():
    prepared = TASK.prepare(combinations(each=8), 0)
    test = prepared.test
    real = np.asarray(test["image"])
    perfect = TASK.score(Drawn.of(real), test, prepared.state)
    assert perfect.metrics["caption_rank"] == 1.0
    assert perfect.metrics["caption_rank_new"] == 1.0
    assert perfect.metrics["frechet"] == pytest.approx(0, abs=1e-6)
    shuffled = TASK.score(Drawn.of(np.random.default_rng(0).permutation(real)), test, prepared.state)
    assert 0.3 < shuffled.metrics["caption_rank"] < 0.7
    assert shuffled.metrics["frechet"] == pytest.approx(0, abs=1e-6)  # which does not see that they belong to others
    for scores in (perfect, shuffled):
        assert len(scores.per_example) == test.examples
        assert scores.per_example.mean() == pytest.approx(scores.metrics["caption_rank"])
        low, high = scores.intervals["caption_rank"]
        assert 0 <= low <= scores.metrics["caption_rank"] <= high <= 1
    assert TASK.primary_for(prepared.state) == ("caption_rank", True)


def test_classes_are_judged_where_there_are_some(monkeypatch):
    monkeypatch.setattr("papertrial.tasks._image_quality.STEPS", 60)
    pixels = np.asarray(combinations(each=11).pixels())
    data = Images.from_arrays(pixels, [*np.repeat(list(COLOURS), 44)])
    prepared = TASK.prepare(data, 0)
    assert Measures.find(prepared.state["measures"]).judge is not None
    real, label = np.asarray(prepared.test["image"]), np.asarray(prepared.test["label"])
    assert TASK.score(Drawn.of(real, label), prepared.test, prepared.state).metrics["class_accuracy"] > 0.6
    assert "class_accuracy" in TASK.score(Drawn.of(real[::-1], label), prepared.test, prepared.state).metrics


# ------------------------------------------------------------------------------------------------------ whole commands


def stored(folder, packed):
    """The combinations as webdataset tar or as a folder with COCO's captions."""
    data = combinations()
    files = {}
    for row, (pixels, caption) in enumerate(zip(np.asarray(data.pixels()), data.captions, strict=True)):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        files[f"{row:04}.png"] = stream.getvalue()
        if packed:
            files[f"{row:04}.txt"] = caption.encode()
    folder.mkdir()
    if packed:
        with tarfile.open(folder / "shapes.tar", "w") as archive:
            for name, content in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        return folder / "shapes.tar"
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "annotations.json").write_text(
        json.dumps(
            {
                "images": [{"id": row, "file_name": f"{row:04}.png"} for row in range(len(data))],
                "annotations": [{"image_id": row, "caption": text} for row, text in enumerate(data.captions)],
            }
        )
    )
    return folder


@pytest.mark.parametrize("packed", [False, True])
def test_look_says_what_fits(papertrial, tmp_path, packed):
    data = stored(tmp_path / "shapes", packed)
    code, out, err = papertrial("look", data)
    assert code == 0, err
    assert "80, 20 of them different" in out
    assert "image_text_generation" in out
    assert "fits" in out


def test_the_floors_from_data_to_pictures(papertrial, tmp_path):
    data, found = stored(tmp_path / "shapes", True), {}
    for name in ("nearest_caption", "random_picture"):
        run = tmp_path / name
        code, out, err = papertrial("fit", name, "--data", data, "--out", run, "--quiet", "--json")
        assert code == 0, err
        found[name] = json.loads(out)["metrics"]
        assert (run / "drawn.png").is_file()
    assert all(0 <= metrics["caption_rank"] <= 1 for metrics in found.values())
    code, out, err = papertrial("generate", tmp_path / "nearest_caption", "red left half", "-n", "2", "--quiet")
    assert code == 0, err
    assert len(list((tmp_path / "nearest_caption" / "pictures").glob("0*.png"))) == 2
    code, _, err = papertrial("generate", tmp_path / "random_picture", "--caption", "red left half")
    assert code == 2
    assert "random_picture takes no caption" in err
    code, out, err = papertrial("report", tmp_path / "nearest_caption", "--out", tmp_path / "page.html")
    assert code == 0, err
    page = (tmp_path / "page.html").read_text()
    assert "Training images and their captions" in page
    assert any(f"{colour} {shape}" in page for colour in COLOURS for shape in SHAPES)


def test_emoji(shared_data):
    from papertrial.data import open as open_data

    prepared = TASK.prepare(open_data(shared_data / "images/noto-emoji"), 0, size=16)
    test, train = set(texts(prepared.test)), set(texts(prepared.train)) | set(texts(prepared.valid))
    assert not test & train
    toned = [text for text in test if "skin tone" in text]
    assert len(toned) > 200
    assert sum(text.split(":")[0] in {known.split(":")[0] for known in train} for text in toned) > 150
    assert 0.6 < prepared.test["known"].mean() < 0.9
