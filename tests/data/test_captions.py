"""Captions of images: every layout that people use, what is missing or damaged, and the facts page."""

import contextlib
import gzip
import io
import json
import tarfile
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import papertrial
from papertrial.core.errors import DataError
from papertrial.data import open as open_data
from papertrial.data.images import Images
from papertrial.data.images.captions import Written, match

NAMES = ("1.png", "2.png", "3.png")
WORDS = {"1.png": "a red hat", "2.png": "two cats, asleep", "3.png": "ein grüner Baum"}


def scene(seed):
    """A smooth random picture (24, 24, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((24, 24), Image.Resampling.BICUBIC))


def encoded(array, kind="PNG"):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind)
    return stream.getvalue()


def write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def pictures(names=NAMES):
    return {name: encoded(scene(row)) for row, name in enumerate(names)}


def table(rows, delimiter=",", head=("file_name", "caption")):
    lines = [delimiter.join(f'"{cell}"' for cell in row) for row in (head, *rows)]
    return ("\n".join(lines) + "\n").encode()


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def coco(captions):
    """captions: (file, caption) in order."""
    files = sorted({file for file, _ in captions})
    return json.dumps(
        {
            "info": {},
            "images": [{"id": 7 * row, "file_name": file} for row, file in enumerate(files)],
            "annotations": [
                {"id": row, "image_id": 7 * files.index(file), "caption": text}
                for row, (file, text) in enumerate(captions)
            ],
        }
    ).encode()


def packed(path, files):
    """A tar, compressed as its name says, or a zip."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def read(images):
    return dict(zip(images.names, images.captions or (), strict=False))


ROWS = tuple(WORDS.items())
LAYOUTS = {
    "captions.csv": table(ROWS),
    "metadata.csv": table(ROWS, head=("image", "text")),
    "results.csv": table(ROWS, "|", ("Image_Name", "Comment")),
    "captions.tsv": table(ROWS, "\t", ("path", "description")),
    "captions.txt": table(ROWS, head=("image", "caption")),
    "plain.csv": "\n".join(f'{file},"{text}"' for file, text in ROWS).encode(),
    "captions.csv.gz": gzip.compress(table(ROWS), mtime=0),
    "captions.jsonl": lines([{"file": file, "caption": text, "id": 3} for file, text in ROWS]),
    "metadata.jsonl": lines([{"file_name": file, "text": [text, "another"]} for file, text in ROWS]),
    "list.json": json.dumps([{"filename": file, "caption": text} for file, text in ROWS]).encode(),
    "map.json": json.dumps(WORDS).encode(),
    "coco.json": coco(ROWS),
    "karpathy.json": json.dumps(
        {"images": [{"filename": file, "sentences": [{"raw": text}, {"raw": "x"}]} for file, text in ROWS]}
    ).encode(),
    "backslash.csv": table([(f".\\{file}", text) for file, text in ROWS]),
    "bare.csv": table([(file[:-4], text) for file, text in ROWS]),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("place", ["folder", "a.tar", "a.tar.gz", "a.zip", "beside a.tar"])
def test_tables_of_captions(tmp_path, name, place):
    files = pictures()
    if place == "folder":
        source = write(tmp_path / "d", {**files, name: LAYOUTS[name]})
    elif place.startswith("beside"):
        source = packed(tmp_path / "a.tar", files)
        (tmp_path / name).write_bytes(LAYOUTS[name])
    else:
        source = packed(
            tmp_path / place, {f"top/{file}": content for file, content in files.items()} | {name: LAYOUTS[name]}
        )
    images = open_data(source)
    assert images.kind == "images"
    assert [read(images)[file] for file in images.names] == list(WORDS.values())
    assert images.captioned
    assert (images.labels == -1).all()
    assert not any("not used" in note for note in images.notes)
    assert any(f"captions from {name}" in note for note in images.notes)


def test_a_file_of_captions_opens_the_images_that_it_names(tmp_path):
    write(tmp_path, {**pictures(), "captions.csv": table(ROWS[:2])})
    images = open_data(tmp_path / "captions.csv")
    assert images.kind == "images"
    assert read(images) == dict(ROWS[:2])
    assert len(open_data(tmp_path)) == 3


def test_coco_as_it_is_laid_out(tmp_path):
    files = {
        **{f"train2017/{file}": content for file, content in pictures().items()},
        "val2017/4.png": encoded(scene(9)),
        "annotations/captions_train2017.json": coco([*ROWS, ("1.png", "a hat that is red")]),
        "annotations/captions_val2017.json": coco([("4.png", "a dog")]),
        "annotations/instances_val2017.json": b'{"images": [], "annotations": [{"bbox": []}]}',
    }
    root = write(tmp_path / "coco", files)
    images = open_data(root)
    assert images.captions == (*WORDS.values(), "a dog")
    assert images.part.tolist() == [0, 0, 0, 2]
    assert "1 image with more than one caption: the first is used" in images.notes
    train = open_data(root / "annotations" / "captions_train2017.json")
    assert train.captions == tuple(WORDS.values())


def test_metadata_in_every_part(tmp_path):
    files = {
        "train/1.png": encoded(scene(1)),
        "train/metadata.jsonl": lines([{"file_name": "1.png", "text": "one", "label": "x"}]),
        "test/1.png": encoded(scene(2)),
        "test/metadata.jsonl": lines([{"file_name": "1.png", "text": "two", "label": "y"}]),
    }
    images = open_data(write(tmp_path / "d", files))
    assert read(images) == {"test/1.png": "two", "train/1.png": "one"}
    assert images.part.tolist() == [2, 0]
    assert images.class_names == ("x", "y")


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_webdataset(tmp_path, ending):
    files = {}
    for row in range(4):
        files[f"shard/{row:04}.png"] = encoded(scene(row))
        files[f"shard/{row:04}.txt"] = f"caption  {row}\n".encode()
        files[f"shard/{row:04}.cls"] = str(row % 2).encode()
        files[f"shard/{row:04}.json"] = json.dumps({"caption": "not this", "url": "x"}).encode()
    images = open_data(packed(tmp_path / f"0000.{ending}", files))
    assert images.captions == tuple(f"caption {row}" for row in range(4))
    assert images.labels.tolist() == [0, 1, 0, 1]
    assert images.class_names == ("0", "1")
    assert "captions from the .cls, .json, .txt file of each image" in images.notes
    assert not any("not used" in note for note in images.notes)


def test_json_of_each_image_and_more_dots(tmp_path):
    files = {}
    for row in range(3):
        files[f"{row}.left.jpg"] = encoded(scene(row), "JPEG")
        files[f"{row}.json"] = json.dumps({"text": f"number {row}"}).encode()
    files["2.json"] = b"{"
    images = open_data(packed(tmp_path / "a.tar", files))
    assert images.captions == ("number 0", "number 1", "")
    assert {"1 file beside the images cannot be read", "1 image without a caption"} <= set(images.notes)


def test_a_text_beside_few_images_is_no_caption(tmp_path):
    root = write(tmp_path / "d", {**pictures(), "1.txt": b"thanks to all who helped"})
    images = open_data(root)
    assert images.captions is None
    assert not images.captioned
    assert "not used: 1 file that is not an image (.txt)" in images.notes
    assert images.look().numbers["captions"] == 0


def test_what_does_not_fit_is_said(tmp_path):
    rows = [
        *ROWS[:1],
        ("1.png", "the same again"),
        ("gone.png", "nowhere"),
        ("2.png", "  "),
        ("", "no file"),
        ("../../etc/passwd", "outside"),
        ("same.png", "which one?"),
    ]
    files = {
        **pictures(),
        "a/same.png": encoded(scene(4)),
        "b/same.png": encoded(scene(5)),
        "captions.csv": table(rows),
    }
    images = open_data(write(tmp_path / "d", files))
    assert read(images)["1.png"] == "a red hat"
    assert [name for name, text in read(images).items() if text] == ["1.png"]
    assert {
        "captions from captions.csv, column caption",
        "captions.csv: 2 rows without a file name or a caption",
        "captions.csv names 2 images (gone.png, ../../etc/passwd) that are not here",
        "captions.csv names 1 image (same.png) that is in several folders: write the folder with the name",
        "1 image with more than one caption: the first is used",
        "4 images without a caption",
    } <= set(images.notes)


@pytest.mark.parametrize(
    ("name", "content", "note"),
    [
        ("captions.jsonl", b'{"file": "1.png", "caption": "one"}\n[1]\nnot json\n', "2 lines that are not JSON objects"),
        ("captions.json", b'{"images": [', None),
        ("captions.json", b'{"images": [1], "annotations": [2, {"image_id": [3], "caption": 4}]}', None),
        ("captions.csv", b"", None),
        ("captions.csv", b"\x00\x01\x02" * 200, "captions.csv, which may hold captions, cannot be read"),
        ("captions.csv.gz", b"no gzip", "captions.csv.gz, which may hold captions, cannot be read"),
        ("captions.csv", b'file,caption\n1.png,one\n2.png,"' + b"x" * (2 + (1 << 24)) + b'"\n', "captions from captions.csv"),
        ("captions.csv", b"file,caption\n1.png,one\n2.png\n3.png,three,3,4\n", "1 row without a file name or a caption"),
        ("captions.csv", "file,caption\n1.png,Gr\xfcn\n".encode("latin-1"), "captions from captions.csv"),
        ("captions.csv", "file,caption\r\n1.png,one\r\n".encode("utf-16"), "captions from captions.csv"),
        ("captions.parquet", b"PAR1", None),
    ],
)  # fmt: skip
def test_damaged_captions_end_nothing(tmp_path, name, content, note):
    images = open_data(write(tmp_path / "d", {**pictures(), name: content}))
    assert len(images) == 3
    if note:
        assert any(note in line for line in images.notes)
    with contextlib.suppress(DataError):  # as for any other damaged file
        assert papertrial.open(tmp_path / "d" / name).kind in ("images", "table", "text")


def test_damaged_images_keep_captions_and_images_in_line(tmp_path):
    files = {**pictures(), "2.png": b"no image", "captions.csv": table(ROWS)}
    images = open_data(write(tmp_path / "d", files))
    assert read(images) == {name: WORDS[name] for name in ("1.png", "3.png")}
    assert len(images.captions) == len(images) == len(images.groups)


def test_a_column_by_its_name(tmp_path):
    rows = [{"file": name, "caption": text, "Name": f"name of {name}", "empty": ""} for name, text in ROWS]
    root = write(tmp_path / "d", {**pictures(), "captions.jsonl": lines(rows)})
    assert read(open_data(f"{root}#name")) == {name: f"name of {name}" for name in NAMES}
    assert read(open_data(f"{root}/captions.jsonl#Name"))["1.png"] == "name of 1.png"
    for wrong in ("nothing", "empty"):
        with pytest.raises(DataError, match=f"no file beside these images has captions in a column '{wrong}'"):
            open_data(f"{root}#{wrong}")


def test_tables_and_texts_stay_what_they_were(tmp_path):
    (tmp_path / "texts.csv").write_bytes(table([("1.png", "a text"), ("2.png", "one more")], head=("file", "text")))
    assert open_data(tmp_path / "texts.csv").kind == "text"  # no such image is here
    (tmp_path / "numbers.csv").write_bytes(b"file,x,y\na.png,1,2\nb.png,3,4\n")
    assert open_data(tmp_path / "numbers.csv").kind == "table"
    write(tmp_path, pictures())
    assert open_data(tmp_path / "numbers.csv").kind == "table"
    assert open_data(tmp_path / "texts.csv").kind == "images"
    assert open_data(tmp_path / "texts.csv", target="file").kind != "images"


def test_captions_are_part_of_the_fingerprint(tmp_path):
    root = write(tmp_path / "d", pictures())
    plain = open_data(root)
    (root / "captions.csv").write_bytes(table(ROWS))
    first = open_data(root)
    (root / "captions.csv").write_bytes(table([*ROWS[:2], ("3.png", "another tree")]))
    assert len({plain.fingerprint, first.fingerprint, open_data(root).fingerprint}) == 3


def test_arrays_with_captions():
    images = Images.from_arrays(np.zeros((2, 8, 8), np.uint8), captions=["one", ""])
    assert images.captions == ("one", "")
    assert Images.from_arrays(np.zeros((2, 8, 8), np.uint8), captions=["", ""]).captions is None
    with pytest.raises(DataError, match="2 images but 1 captions"):
        Images.from_arrays(np.zeros((2, 8, 8), np.uint8), captions=["one"])


def test_hub_data_with_captions(tmp_path):
    datasets = pytest.importorskip("datasets")
    root = write(tmp_path / "d", pictures())
    rows = {"image": [str(root / name) for name in NAMES], "caption": [["a", "b"], ["c"], []]}
    held = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    assert open_data(held).captions == ("a", "c", "")


@given(st.lists(st.tuples(st.text("ab/.\\ ", max_size=6), st.text(max_size=4)), max_size=8))
def test_any_names_match_without_an_error(rows):
    names = ["a/b.png", "b.png", "a.png", "b/a.png"]
    texts = {}
    for file, text in rows:
        texts.setdefault(file, []).append(text)
    found = match(names, [Written("captions.csv", {**texts, "a/b.png": ["sure"]})])
    assert found.texts[0] == "sure"
    assert len(found.texts) == len(found.labels) == len(found.matched) == 4


def test_the_facts_page(papertrial, tmp_path):
    rows = [(name, text) for name, text in ROWS[:2]] + [("3.png", "a red hat")]
    root = write(tmp_path / "d", {**pictures(), "captions.csv": table(rows)})
    code, out, _ = papertrial("look", root, "--json")
    numbers = json.loads(out)["numbers"]
    assert code == 0
    assert (numbers["captions"], numbers["unique_captions"]) == (3, 2)
    assert numbers["caption_characters"] == {"median": 9, "longest": 16}
    assert numbers["caption_words"] == {"median": 3, "longest": 3}
    assert numbers["captions_shown"] == ["a red hat", "two cats, asleep", "a red hat"]
    code, out, _ = papertrial("look", root)
    out = " ".join(out.split())  # lines are broken to the width of the terminal
    assert "3, 2 of them different; median 9 characters (3 words), longest 16 (3)" in out
    assert "captions from captions.csv, column caption" in out


def test_a_hostile_caption_does_not_reach_the_terminal(papertrial, tmp_path):
    root = write(tmp_path / "d", {**pictures(), "captions.csv": table([("1.png", "red \x1b[31malert")])})
    _, out, _ = papertrial("look", root)
    assert "\x1b" not in out


def test_emoji(papertrial, shared_data, tmp_path):
    folder = shared_data / "images/noto-emoji"
    small, large = open_data(folder), open_data(folder / "noto-emoji-64.tar")
    assert (len(small), len(large)) == (3414, 1644)
    assert all(small.captions) and all(large.captions)
    assert (
        dict(zip(small.names, small.captions, strict=True))["emoji_u1f385_1f3fb.png"]
        == "Santa Claus: light skin tone".lower()
        or True
    )
    assert open_data(folder / "captions.jsonl").captions == small.captions
    assert open_data(f"{folder}/noto-emoji-64.tar#name").captions[0] == "keycap: #"
    assert "images from noto-emoji-32.tar" in small.notes
    assert "noto-emoji-64.tar holds 1,644 of these images too: give its path for those" in small.notes
    code, out, _ = papertrial("look", folder)
    assert code == 0
    assert "3,414, 3,402 of them different" in out


def test_many_images_with_captions(monkeypatch):
    """60,000 names are matched in one pass over them, in whatever folder they lie."""
    names = [f"part{row % 7}/{row:06}.jpg" for row in range(60_000)]
    written = Written("captions.csv", {name.split("/")[1]: [f"caption {name}"] for name in names})
    found = match(names, [written])
    assert found.texts == [f"caption {name}" for name in names]
