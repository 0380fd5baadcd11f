"""Decoding, working sizes, damaged files, duplicates and the facts page, on real and on awkward images."""

import json
import tarfile
import zipfile
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from papertrial.core.errors import DataError
from papertrial.core.files import to_json
from papertrial.data.base import track
from papertrial.data.images import Images, duplicates
from papertrial.data.images.decode import decode
from papertrial.data.layout import layout


def scene(seed, height=24, width=24, channels=3):
    """A smooth picture, different for every seed."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (5, 5, channels), dtype=np.uint8)
    planes = [
        Image.fromarray(coarse[..., c]).resize((width, height), Image.Resampling.BICUBIC) for c in range(channels)
    ]
    return np.stack([np.asarray(plane) for plane in planes], -1)


def encoded(array_or_image, kind="PNG", **options):
    image = array_or_image if isinstance(array_or_image, Image.Image) else Image.fromarray(array_or_image)
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


@pytest.fixture
def folder(tmp_path):
    """Two classes of eight and four images."""
    files = {f"cat/{n}.png": encoded(scene(n)) for n in range(8)}
    return write(tmp_path / "pets", files | {f"dog/{n}.png": encoded(scene(100 + n)) for n in range(4)})


def test_folder_of_classes(folder):
    images = Images.from_files(folder)
    assert images.class_names == ("cat", "dog")
    assert images.labels.tolist() == [0] * 8 + [1] * 4
    assert images.labels.dtype == np.int64
    assert images.names[0] == "cat/0.png"
    assert images.part.tolist() == [0] * 12
    assert (images.channels, images.height, images.width, images.uniform) == (3, 24, 24, True)
    assert not images.given_split
    pixels = images.pixels()
    assert pixels.shape == (12, 24, 24, 3)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels[9], scene(101))
    assert isinstance(pixels, np.memmap)


def test_second_opening_reads_the_cache(folder, monkeypatch):
    first = Images.from_files(folder)
    before = np.array(first.pixels())
    monkeypatch.setattr("papertrial.data.images.decode.decode", None)  # decoding again would fail
    again = Images.from_files(folder)
    assert again.fingerprint == first.fingerprint
    np.testing.assert_array_equal(again.pixels(), before)


def test_duplicates_of_many_images_are_found_once(folder, monkeypatch):
    write(folder, {"dog/again.png": encoded(scene(101))})
    first = Images.from_files(folder).look().numbers
    assert first["exact_duplicates"] == 1
    monkeypatch.setattr("papertrial.data.images._MANY", 4)
    assert Images.from_files(folder).look().numbers == first
    monkeypatch.setattr("papertrial.data.images.duplicates.find", None)  # finding them again would fail
    again = Images.from_files(folder)
    assert again.look().numbers == first
    assert again.groups.dtype == np.int64 and not isinstance(again.groups, np.memmap)
    write(folder, {"dog/third.png": encoded(scene(101))})
    with pytest.raises(TypeError):
        Images.from_files(folder).look()


def test_cache_half_deleted_is_made_again(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PAPERTRIAL_CACHE", str(tmp_path / "cache"))
    write(folder, {"dog/cut.png": encoded(scene(7, 60, 60))[:-400]})
    before = np.array(Images.from_files(folder).pixels())
    for file in (tmp_path / "cache").glob("*-bad.json"):
        file.unlink()
    np.testing.assert_array_equal(Images.from_files(folder).pixels(), before)


def test_changed_file_changes_fingerprint(folder):
    before = Images.from_files(folder).fingerprint
    write(folder, {"cat/0.png": encoded(scene(50, 30, 30))})
    assert Images.from_files(folder).fingerprint != before


def test_unwritable_cache_keeps_pixels_in_memory(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("PAPERTRIAL_CACHE", str(tmp_path / "file"))
    images = Images.from_files(folder)
    np.testing.assert_array_equal(images.pixels()[0], scene(0))
    assert any("kept in memory" in note for note in images.look().notes)


def test_full_disk_keeps_pixels_in_memory(folder, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("papertrial.data.base._reserve", full)
    write(folder, {"cat/new.png": encoded(scene(60))})
    images = Images.from_files(folder)
    assert len(images.pixels()) == 13
    assert any("no space left" in note for note in images.notes)


def test_damaged_files_are_named_and_left_out(folder):
    whole = encoded(scene(200, 60, 60), "JPEG")
    bomb = encoded(scene(201)).replace((24).to_bytes(4, "big") * 2, (60_000).to_bytes(4, "big") * 2, 1)
    files = {"cut.jpg": whole[: len(whole) // 2], "empty.png": b"", "text.jpg": b"hello", "bomb.png": bomb}
    write(folder / "dog", files)
    images = Images.from_files(folder)
    assert len(images) == len(images.labels) == len(images.names) == len(images.pixels()) == 12
    assert set(images.skipped) == {f"dog/{name}" for name in files}
    assert images.skipped["dog/empty.png"] == "empty file"
    assert images.skipped["dog/text.jpg"] == "not an image"
    np.testing.assert_array_equal(images.pixels(32, 32).shape, (12, 32, 32, 3))
    look = images.look()
    assert any("skipped 4 damaged files" in note and "dog/cut.jpg" in note for note in look.notes)
    assert len(Images.from_files(folder).skipped) == 4  # from the cache as well


def test_only_damaged_files(tmp_path):
    images = Images.from_files(write(tmp_path / "d", {"a/1.jpg": b"x", "b/2.jpg": b""}))
    with pytest.raises(DataError, match=r"none of the 2 images of d can be read .a/1.jpg: not an image"):
        images.look()


def test_file_lost_after_opening(folder):
    images = Images.from_files(folder)
    images.look()
    (folder / "cat/3.png").unlink()
    with pytest.raises(DataError, match=r"cat/3.png could be read before"):
        images.pixels(40, 40)


def test_modes_become_grey_or_colour(tmp_path):
    grey = scene(1, channels=1)[..., 0]
    alpha = np.concatenate([scene(2), np.zeros((24, 24, 1), np.uint8)], axis=2)
    deep = grey.astype(np.uint16) * 257
    files = {
        "1bit.png": encoded(Image.fromarray(grey).convert("1")),
        "cmyk.jpg": encoded(Image.fromarray(scene(3)).convert("CMYK"), "JPEG"),
        "deep.png": encoded(Image.fromarray(deep)),
        "float.tif": encoded(Image.fromarray((grey / 255).astype(np.float32)), "TIFF"),
        "grey.png": encoded(grey),
        "la.png": encoded(Image.fromarray(grey).convert("LA")),
        "palette.png": encoded(Image.fromarray(scene(4)).convert("P")),
        "rgba.png": encoded(alpha),
    }
    images = Images.from_files(write(tmp_path / "modes", files))
    assert images.channels == 3
    pixels = dict(zip(images.names, images.pixels(), strict=True))
    assert set(pixels) == set(files)
    for name in ("deep.png", "float.tif", "grey.png", "la.png"):
        np.testing.assert_array_equal(pixels[name], np.repeat(grey[..., None], 3, axis=2))
    assert set(np.unique(pixels["1bit.png"])) == {0, 255}
    assert (pixels["rgba.png"] == 255).all()  # fully transparent: the white below
    notes = " ".join(images.look().notes)
    for words in ("transparency", "more than 8 bits", "grey images among colour"):
        assert words in notes


def test_all_grey_stays_one_channel(tmp_path):
    deep = scene(5, channels=1)[..., 0].astype(np.uint16) * 256
    files = {"a.png": encoded(scene(4, channels=1)[..., 0]), "b.png": encoded(Image.fromarray(deep))}
    images = Images.from_files(write(tmp_path / "grey", files))
    assert images.pixels().shape == (2, 24, 24, 1)
    assert images.pixels(channels=3).shape == (2, 24, 24, 3)


def test_photographs_are_turned_upright(tmp_path):
    picture = np.zeros((40, 20, 3), np.uint8)
    picture[:20] = 255  # bright top
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side: turn by 90 degrees clockwise to show
    stored = Image.fromarray(np.rot90(picture))
    images = Images.from_files(write(tmp_path / "p", {"a.jpg": encoded(stored, "JPEG", exif=exif, quality=95)}))
    assert (images.height, images.width) == (40, 20)
    pixels = images.pixels()[0].astype(int)
    assert pixels[:16].min() > 200
    assert pixels[24:].max() < 50
    assert any("turned upright" in note for note in images.look().notes)


def test_damaged_exif_is_no_reason_to_refuse(tmp_path):
    content = encoded(scene(1), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7fgarbage")
    assert len(Images.from_files(write(tmp_path / "p", {"a.jpg": content})).pixels()) == 1


def test_animation_gives_its_first_frame(tmp_path):
    frames = [Image.fromarray(scene(n, channels=1)[..., 0]) for n in (1, 2, 3)]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    images = Images.from_files(write(tmp_path / "a", {"a.gif": content}))
    assert np.abs(images.pixels(channels=1)[0, ..., 0].astype(int) - scene(1, channels=1)[..., 0]).max() <= 2
    assert any("first frame" in note for note in images.look().notes)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(30, 25)] * 2, (32, 24)),
        ([(2, 64)] * 2, (4, 64)),
        ([(65, 65)] * 2, (64, 64)),
        ([(30, 30), (30, 31)], (64, 64)),
    ],
)
def test_working_size(tmp_path, sizes, expected):
    files = {f"{n}.png": encoded(scene(n, *size)) for n, size in enumerate(sizes)}
    images = Images.from_files(write(tmp_path / "s", files))
    assert images.working_size == expected
    assert images.pixels().shape == (2, *expected, 3)
    assert images.pixels(16).shape == (2, 16, 16, 3)
    look = images.look()
    assert (look.numbers["smallest"], look.numbers["largest"]) == (list(sizes[0]), list(sizes[1]))
    assert dict(look.facts)["size"].count(f"{sizes[0][0]} x {sizes[0][1]}") >= 1


def test_scaling_covers_and_crops_the_centre():
    wide = np.zeros((32, 96, 3), np.uint8)
    wide[:, 32:64] = 200  # the middle third is all that a square crop sees
    pixels = decode(encoded(wide), 16, 16, 3)
    assert pixels[:, 2:-2].min() == 200
    assert decode(encoded(np.full((1, 500, 3), 9, np.uint8)), 8, 8, 3).tolist() == np.full((8, 8, 3), 9).tolist()


def test_large_photographs_decode_like_a_full_decode(tmp_path):
    photo = scene(8, 1200, 1600)
    full = np.asarray(Image.fromarray(photo).crop((200, 0, 1400, 1200)).resize((64, 64), Image.Resampling.BICUBIC))
    files = {f"{n}.jpg": encoded(photo, "JPEG", quality=98, subsampling=0) for n in range(3)}
    images = Images.from_files(write(tmp_path / "big", files))
    assert np.abs(images.pixels()[0].astype(int) - full).max() <= 6


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tar.xz", "tgz", "zip"])
def test_archives_equal_the_folder(folder, tmp_path, ending):
    path = tmp_path / f"pets.{ending}"
    if ending == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(folder.rglob("*.png")):
                archive.write(file, f"pets/{file.relative_to(folder)}")
    else:
        with tarfile.open(path, f"w:{'gz' if ending in ('tgz', 'tar.gz') else ending.partition('.')[2]}") as archive:
            archive.add(folder, "pets")
    packed, plain = Images.from_files(path), Images.from_files(folder)
    assert packed.class_names == plain.class_names
    order = np.argsort(packed.names)
    np.testing.assert_array_equal(packed.labels[order], plain.labels)
    np.testing.assert_array_equal(packed.pixels()[order], plain.pixels())


def test_progress_passes_everything_on(monkeypatch, capsys):
    import rich.progress  # noqa: F401 - keeps the clock that it finds when it is loaded, for the tests after this one

    clock = iter(range(0, 1000, 3))  # seconds that pass between looks at the clock
    monkeypatch.setattr("papertrial.data.base.time.monotonic", lambda: next(clock))
    assert list(track(iter(range(5)), 5, "reading")) == list(range(5))
    assert capsys.readouterr().out == ""


def test_damaged_archive(folder, tmp_path):
    path = tmp_path / "pets.tar.xz"
    with tarfile.open(path, "w:xz") as archive:
        archive.add(folder, "pets")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match=r"pets.tar.xz is damaged after \d+ images"):
        Images.from_files(path)


def test_one_damaged_member_of_a_zip_is_skipped(folder, tmp_path):
    path = tmp_path / "pets.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for n in range(3):
            archive.writestr(f"{n}.png", encoded(scene(n)))
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 20] ^= 0xFF
    path.write_bytes(bytes(content))
    images = Images.from_files(path)
    assert list(images.skipped) == ["0.png"]
    assert len(images) == 2


def test_odd_names_hidden_files_links_and_depth(tmp_path):
    root = write(
        tmp_path / "o",
        {
            "Kätzchen 猫/ein bild.PNG": encoded(scene(1)),
            "Kätzchen 猫/tief/unten/2.png": encoded(scene(2)),
            "Kätzchen 猫/.hidden.png": encoded(scene(3)),
            ".git/x.png": encoded(scene(4)),
            "Kätzchen 猫/notes.txt": b"hello",
            "dog/1.png": encoded(scene(5)),
        },
    )
    (root / "dog/link.png").symlink_to(root / "dog/1.png")
    (root / "loop").symlink_to(root)
    images = Images.from_files(root)
    assert images.class_names == ("Kätzchen 猫", "dog")
    assert images.labels.tolist() == [0, 0, 1, 1]
    assert any("1 hidden file, 1 linked folder, 1 file that is not an image (.txt)" in note for note in images.notes)


@pytest.mark.parametrize(
    ("names", "labels", "part"),
    [
        (["a/1", "b/1"], [0, 1], [0, 0]),
        (["root/a/1", "root/b/1"], [0, 1], [0, 0]),
        (["1", "2"], [-1, -1], [0, 0]),
        (["a/1", "a/2"], [0, 0], [0, 0]),
        (["a/1", "b/1", "Unlabeled/1"], [0, 1, -1], [0, 0, 0]),
        (["a/1", "b/deep/er/1", "stray"], [0, 1, -1], [0, 0, 0]),
        (["train/a/1", "test/b/1"], [0, 1], [0, 2]),
        (["d/Train/a/1", "d/VAL/a/1", "d/test/a/1"], [0, 0, 0], [0, 1, 2]),
        (["train/a/1", "val/a/1"], [0, 0], [0, 2]),
        (["train/a/1", "test/1"], [0, -1], [0, 0]),
        (["train/a/1", "test/a/1", "unlabelled/1"], [0, 0, -1], [0, 2, 0]),
        (["train/1", "fail/1", "test/1"], [2, 0, 1], [0, 0, 0]),  # three classes that happen to be called so
    ],
)
def test_layout(names, labels, part):
    found = layout(names)
    assert found.labels.tolist() == labels
    assert found.part.tolist() == part


@pytest.mark.parametrize("shape", [(6, 9, 7), (6, 9, 7, 1), (6, 9, 7, 3), (6, 9, 7, 5), (6, 3, 9, 7)])
def test_arrays_of_any_shape(shape):
    images = Images.from_arrays(np.random.default_rng(0).random(shape, np.float32))
    channels = {3: 1}.get(len(shape), 3 if shape[1] == 3 else shape[-1])
    assert images.channels == channels
    assert images.pixels().shape == (6, 8, 8, channels)
    assert images.pixels().dtype == np.float32
    assert images.pixels(20, 12).shape == (6, 20, 12, channels)


def test_array_types():
    base = np.arange(2 * 8 * 8).reshape(2, 8, 8)
    assert Images.from_arrays(base).pixels().dtype == np.uint8
    np.testing.assert_array_equal(Images.from_arrays(base % 2 == 0).pixels().ravel(), np.tile([255, 0], 64))
    deep = Images.from_arrays((base * 500).astype(np.uint16))
    np.testing.assert_allclose(deep.pixels()[..., 0], base * 500 / 65535, rtol=1e-6)
    wide = base * np.float64(1e300)
    wide[0] = 0
    assert list(Images.from_arrays(wide).skipped) == ["1"]


def test_arrays_with_nan_are_skipped_and_bad_ones_refused():
    array = np.random.default_rng(0).random((4, 8, 8))
    array[2, 0, 0] = np.nan
    images = Images.from_arrays(array, [0, 1, 0, 1])
    assert images.labels.tolist() == [0, 1, 1]
    assert images.names == ("0", "1", "3")
    for wrong in (np.zeros((0, 8, 8)), np.zeros((3, 0, 8)), np.zeros((3, 8)), np.array([["a"]])):
        with pytest.raises(DataError):
            Images.from_arrays(wrong)
    with pytest.raises(DataError, match="fractions"):
        Images.from_arrays(np.zeros((2, 8, 8)), [0.5, 1.2])
    with pytest.raises(DataError, match="labels of shape"):
        Images.from_arrays(np.zeros((2, 8, 8)), [0, 1, 2])


@pytest.mark.parametrize(
    ("labels", "codes", "names"),
    [
        ([7, 3, -1], [1, 0, -1], ("3", "7")),
        ([1.0, np.nan, 0.0], [1, -1, 0], ("0", "1")),
        (["b", "a", None], [1, 0, -1], ("a", "b")),
        ([True, False, True], [1, 0, 1], ("0", "1")),
        (None, [-1, -1, -1], ()),
    ],
)
def test_labels(labels, codes, names):
    labels = np.array(labels, object) if labels is not None and None in labels else labels
    images = Images.from_arrays(np.random.default_rng(0).random((3, 8, 8)), labels)
    assert images.labels.tolist() == codes
    assert images.class_names == names


def test_duplicates_leave_the_test_part():
    pictures = np.stack([scene(n) for n in range(40)])
    noisy = (pictures[:6].astype(int) + np.random.default_rng(1).integers(-2, 3, pictures[:6].shape)).clip(0, 255)
    jpeg = np.stack(
        [
            np.asarray(Image.open(BytesIO(encoded(picture, "JPEG", quality=95, subsampling=0))))
            for picture in pictures[6:9]
        ]
    )
    test = np.concatenate([noisy.astype(np.uint8), jpeg, pictures[9:12], pictures[30:]])
    pixels = np.concatenate([pictures[:30], test])
    part = np.r_[np.zeros(30), np.full(len(test), 2)]
    labels = np.r_[np.arange(30) % 2, np.r_[np.arange(6), np.arange(6, 9), np.arange(10, 13), np.arange(10)] % 2]
    images = Images.from_arrays(pixels, labels.astype(int), part=part.astype(int))
    numbers = images.look().numbers
    assert numbers["exact_duplicates"] == 3
    assert numbers["near_duplicates"] == 9
    assert numbers["moved_duplicates"] == 12
    assert numbers["conflicting_labels"] == 3
    assert images.part.tolist() == [0] * 42 + [2] * 10
    np.testing.assert_array_equal(images.groups[30:42], np.arange(12))
    assert any("moved 12 duplicates" in note for note in images.notes)


def test_a_test_part_that_repeats_the_training_part_is_not_used():
    pictures = np.stack([scene(n) for n in range(5)])
    images = Images.from_arrays(np.concatenate([pictures] * 2), part=np.repeat([0, 2], 5))
    assert not images.given_split
    assert any("not used" in note for note in images.look().notes)


def test_exact_groups_agree_with_a_dictionary_of_bytes():
    random = np.random.default_rng(3)
    pixels = random.integers(0, 2, (3000, 3, 3, 1), dtype=np.uint8)  # 512 possible images, no multiple of 8 bytes
    seen: dict[bytes, int] = {}
    expected = [seen.setdefault(image.tobytes(), len(seen)) for image in pixels]
    assert duplicates.find(pixels).exact.tolist() == expected


def test_no_false_alarms():
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (3000, 16, 16, 3), dtype=np.uint8)
    assert duplicates.Duplicates.surplus(duplicates.find(noise).groups) == 0
    blank = np.arange(200, dtype=np.uint8)[:, None, None, None] + np.zeros((1, 16, 16, 1), np.uint8)
    found = duplicates.find(blank)
    assert duplicates.Duplicates.surplus(found.groups) == 0  # different greys are different images
    assert found.constant.all()
    assert len(duplicates.find(noise[:1]).groups) == 1
    floats = duplicates.find(np.repeat(random.random((50, 8, 8, 3), np.float32), 2, axis=0))
    assert duplicates.Duplicates.surplus(floats.exact) == 50


def test_hash_collisions_are_told_apart(monkeypatch):
    monkeypatch.setattr(duplicates, "_byte_hash", lambda images: np.zeros(len(images), np.uint64))
    noise = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
    assert duplicates.find(noise).exact.tolist() == list(range(20))


def test_look_warns(tmp_path):
    files = {f"many/{n}.png": encoded(scene(n)) for n in range(25)} | {
        "one/1.png": encoded(np.zeros((24, 24, 3), np.uint8))
    }
    look = Images.from_files(write(tmp_path / "w", files)).look()
    notes = " ".join(look.notes)
    for words in ("fewer than 2 images: one", "more than 10 to 1", "1 image of a single colour"):
        assert words in notes
    assert look.numbers["class_counts"] == {"many": 25, "one": 1}
    assert look.numbers["target_kind"] == "binary"
    assert json.loads(to_json(look))["numbers"]["examples"] == 26
    assert "classes" in str(look)


def test_one_class(tmp_path):
    look = Images.from_files(write(tmp_path / "one", {f"cat/{n}.png": encoded(scene(n)) for n in range(3)})).look()
    assert any("one class only (cat)" in note for note in look.notes)


def test_emoji_with_transparency(shared_data):
    images = Images.from_files(shared_data / "images/noto-emoji/noto-emoji-64.tar")
    pixels = images.pixels()
    assert pixels.shape == (1644, 64, 64, 3)
    assert (images.labels == -1).all()
    assert (pixels[:, 0, 0] == 255).all(axis=1).mean() > 0.9  # most corners are transparent
    look = images.look()
    assert any("1,644 images with transparency" in note for note in look.notes)
    assert look.numbers["exact_duplicates"] + look.numbers["near_duplicates"] < 40
