"""`open` recognises what it is given, or says in one line what it found and what it accepts."""

import gzip
import lzma
import pickle
import shutil
import sys
import tarfile
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from papertrial.core.errors import DataError, PapertrialError
from papertrial.data import open as open_data
from papertrial.data.collections.files import documents_in
from papertrial.data.images import Images
from papertrial.data.tables import Table

RANDOM = np.random.default_rng(0)
PICTURES = RANDOM.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
VECTORS = RANDOM.normal(size=(6, 4))


def png(array):
    stream = BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path):
    for n, picture in enumerate(PICTURES):
        path = tmp_path / "photos" / ("a" if n < 3 else "b") / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(picture))
    return tmp_path / "photos"


@pytest.fixture
def frame():
    return pd.DataFrame(VECTORS, columns=list("wxyz")).assign(kind=list("uvuvuv"))


def idx(array):
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def test_folder_and_archive(folder, tmp_path):
    images = open_data(folder)
    assert isinstance(images, Images)
    assert images.name == "photos"
    assert open_data(images) is images
    with tarfile.open(tmp_path / "photos.tar.gz", "w:gz") as archive:
        archive.add(folder, "photos")
    packed = open_data(str(tmp_path / "photos.tar.gz"), name="mine")
    assert packed.name == "mine"
    assert packed.class_names == images.class_names == ("a", "b")


def test_one_image(folder):
    image = open_data(folder / "a" / "0.png")
    np.testing.assert_array_equal(image.pixels(), PICTURES[:1])
    assert image.labels.tolist() == [-1]


@pytest.mark.parametrize("packed", ["", ".gz", ".xz"])
@pytest.mark.parametrize("dot", ["-", "."])
def test_idx_files(tmp_path, packed, dot):
    compress = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}[packed]
    for part, rows in (("train", slice(0, 4)), ("t10k", slice(4, 6))):
        (tmp_path / f"{part}-images{dot}idx3-ubyte{packed}").write_bytes(compress(idx(PICTURES[rows, ..., 0])))
        (tmp_path / f"{part}-labels{dot}idx1-ubyte{packed}").write_bytes(compress(idx(np.arange(6)[rows])))
    images = open_data(tmp_path)
    np.testing.assert_array_equal(images.pixels()[..., 0], PICTURES[..., 0])
    assert images.labels.tolist() == list(range(6))
    assert images.part.tolist() == [0, 0, 0, 0, 2, 2]
    test_only = open_data(tmp_path / f"t10k-images{dot}idx3-ubyte{packed}")
    assert test_only.class_names == ("4", "5")
    assert test_only.part.tolist() == [0, 0]
    (tmp_path / f"t10k-labels{dot}idx1-ubyte{packed}").unlink()
    assert open_data(tmp_path / f"t10k-images{dot}idx3-ubyte{packed}").labels.tolist() == [-1, -1]


@pytest.mark.parametrize(
    "content", [b"", b"\0\0\x08", b"\0\0\x0d\x03" + bytes(12), idx(PICTURES[..., 0])[:-1], b"\0\0\x08\x03ab"]
)
def test_damaged_idx_files(tmp_path, content):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataError, match="train-images-idx3-ubyte"):
        open_data(path)
    packed = tmp_path / "t10k-images-idx3-ubyte.gz"
    packed.write_bytes(gzip.compress(idx(PICTURES[..., 0]))[:-10])
    with pytest.raises(DataError, match="cannot be read"):
        open_data(packed)


def test_mnist(shared_data):
    images = open_data(shared_data / "images/mnist")
    assert len(images) == 70_000
    assert images.pixels().shape == (70_000, 28, 28, 1)
    assert (images.part == 2).sum() == 10_000
    assert np.bincount(images.labels[:60_000])[:3].tolist() == [5923, 6742, 5958]  # of the original training labels


def test_cifar_binary(shared_data, tmp_path):
    packed = shared_data / "images/cifar10/data_batch_1_first2000.bin.xz"
    images = open_data(packed)
    assert images.pixels().shape == (2000, 32, 32, 3)
    assert images.class_names[:2] == ("airplane", "automobile")
    content = lzma.decompress(packed.read_bytes())
    assert images.labels[0] == content[0]
    assert images.pixels()[0, 0, 1].tolist() == [content[2], content[1026], content[2050]]  # red, green, blue planes
    (tmp_path / "data_batch_1.bin").write_bytes(content[: 3073 * 40])
    (tmp_path / "test_batch.bin").write_bytes(content[3073 * 40 : 3073 * 50])
    both = open_data(tmp_path)
    np.testing.assert_array_equal(both.pixels(), images.pixels()[:50])
    assert both.part.tolist() == [0] * 40 + [2] * 10
    (tmp_path / "test_batch.bin").write_bytes(content[:3000])
    with pytest.raises(DataError, match="not records of 3073"):
        open_data(tmp_path)


def test_cifar_as_folders_in_a_tar(shared_data, tmp_path):
    small = tmp_path / "some.tar"
    with tarfile.open(shared_data / "images/cifar10/cifar10-jpeg.tar.xz") as source, tarfile.open(small, "w") as target:
        for number, member in enumerate(source):
            if number >= 400:
                break
            if member.isfile():
                part = "train" if number % 4 else "test"
                member.name = f"{part}/{'plane' if number % 3 else 'other'}/{number}.jpg"
                target.addfile(member, source.extractfile(member))
    images = open_data(small)
    assert images.given_split
    assert images.class_names == ("other", "plane")
    assert images.pixels().shape[1:] == (32, 32, 3)


def test_numpy_files(tmp_path):
    np.save(tmp_path / "x.npy", PICTURES)
    assert len(open_data(tmp_path / "x.npy")) == 6
    np.savez(
        tmp_path / "k.npz", x_train=PICTURES[:4], y_train=[[0], [1], [0], [1]], x_test=PICTURES[4:], y_test=[[1], [0]]
    )
    images = open_data(tmp_path / "k.npz")
    assert images.labels.tolist() == [0, 1, 0, 1, 1, 0]
    assert images.part.tolist() == [0, 0, 0, 0, 2, 2]
    np.savez(tmp_path / "m.npz", train_images=PICTURES[:4], val_images=PICTURES[4:5], test_images=PICTURES[5:])
    assert open_data(tmp_path / "m.npz").part.tolist() == [0, 0, 0, 0, 1, 2]
    np.savez(tmp_path / "t.npz", X=VECTORS, y=[0, 1, 0, 1, 0, 1])
    table = open_data(tmp_path / "t.npz")
    assert isinstance(table, Table)
    assert table.target == "target"
    np.savez(tmp_path / "odd.npz", foo=VECTORS)
    with pytest.raises(DataError, match="has the keys foo; name them x and y"):
        open_data(tmp_path / "odd.npz")
    np.save(tmp_path / "objects.npy", np.array([{}, 1], object))
    with pytest.raises(DataError, match="pickled objects"):
        open_data(tmp_path / "objects.npy")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "k.npz").read_bytes()[:-90])
    with pytest.raises(DataError, match=r"cut.npz"):
        open_data(tmp_path / "cut.npz")


def test_arrays_in_memory():
    images = open_data((PICTURES, [0, 1, 0, 1, 0, 1]))
    assert images.class_names == ("0", "1")
    assert open_data(PICTURES[..., 0]).channels == 1
    table = open_data((VECTORS, [0, 1, 0, 1, 0, 1]))
    assert (table.kind, table.rows, table.target_kind) == ("table", 6, "binary")
    split = open_data({"train": (VECTORS[:4], [0, 1, 0, 1]), "test": (VECTORS[4:], [0, 1])})
    assert split.part.tolist() == [0, 0, 0, 0, 2, 2]
    parts = open_data({"test": (PICTURES[4:], [0, 1]), "train": (PICTURES[:4], [0, 1, 0, 1])})
    assert parts.part.tolist() == [0, 0, 0, 0, 2, 2]
    pool = open_data({"train": (PICTURES[:4], list("abab")), "test": PICTURES[4:]})
    assert pool.labels.tolist() == [0, 1, 0, 1, -1, -1]
    one_hot = np.eye(2)[[0, 1, 0, 1, 0, 1]]
    for target in (one_hot, range(12), [], 3):
        for values in (PICTURES, VECTORS):
            with pytest.raises(DataError, match=r"6 examples but a target of shape|labels are one-hot"):
                open_data((values, target))
    for wrong in (np.zeros(3), np.zeros((2, 2, 2, 2, 2)), [[1, 2], [3]], 5, object()):
        with pytest.raises(DataError):
            open_data(wrong)


def test_frames(frame):
    assert open_data(frame, "kind").target == "kind"
    assert open_data((frame[["w", "x"]], frame["kind"])).target == "target"
    assert open_data({"a": [1.0, 2.0, 4.0], "b": ["u", "v", "u"]}).rows == 3
    assert open_data([{"a": 1.5, "b": "u"}, {"a": 2.5, "b": "v"}]).rows == 2
    assert open_data({"train": frame[:4], "test": frame[4:]}, "kind").part.tolist() == [0, 0, 0, 0, 2, 2]


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "tsv", "parquet", "jsonl"])
def test_table_files(frame, tmp_path, ending):
    path = tmp_path / f"rows.{ending}"
    if ending == "parquet":
        frame.to_parquet(path)
    elif ending == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False, sep="\t" if ending == "tsv" else ",")
    table = open_data(path, "kind")
    assert isinstance(table, Table)
    assert table.rows == 6


def test_folder_of_tables(frame, tmp_path):
    frame[:4].to_csv(tmp_path / "train.csv", index=False)
    frame[4:].to_csv(tmp_path / "test.csv", index=False)
    (tmp_path / "README.txt").write_text("about")
    (tmp_path / "plot.png").write_bytes(png(PICTURES[0]))
    assert sorted(open_data(tmp_path, "kind").part.tolist()) == [0, 0, 0, 0, 2, 2]


def test_torch_datasets():
    class Pictures(torch.utils.data.Dataset):
        classes = ("u", "v")

        def __init__(self, sizes):
            self.images = [Image.fromarray(PICTURES[n]).resize((size, size)) for n, size in enumerate(sizes)]

        def __len__(self):
            return len(self.images)

        def __getitem__(self, row):
            return self.images[row], row % 2

    images = open_data(Pictures([8, 8, 8]))
    np.testing.assert_array_equal(images.pixels(), PICTURES[:3])
    assert images.class_names == ("u", "v")
    assert open_data(Pictures([8, 20, 90])).pixels(32).shape == (3, 32, 32, 3)
    tensors = torch.from_numpy(PICTURES).permute(0, 3, 1, 2)
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    floats = open_data(torch.utils.data.TensorDataset(tensors / 255, labels))
    np.testing.assert_allclose(floats.pixels(), PICTURES / np.float32(255))
    assert floats.labels.tolist() == labels.tolist()
    assert open_data(torch.utils.data.TensorDataset(tensors)).labels.tolist() == [-1] * 6
    table = open_data(torch.utils.data.TensorDataset(torch.from_numpy(VECTORS), labels))
    assert table.target_kind == "binary"
    for wrong in ([], ["text"], [(1, 2, 3)], [(tensors[0], 0), (tensors[0, :, :4], 1)]):
        with pytest.raises(DataError):
            open_data(_Listed(wrong))


class _Listed(torch.utils.data.Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, row):
        return self.items[row]


@pytest.mark.parametrize(
    ("name", "kind", "examples", "target_kind"),
    [
        ("digits", "images", 1797, "multiclass"),
        ("iris", "table", 150, "multiclass"),
        ("wine", "table", 178, "multiclass"),
        ("breast_cancer", "table", 569, "binary"),
        ("diabetes", "table", 442, "regression"),
    ],
)
def test_built_in(name, kind, examples, target_kind):
    data = open_data(name)
    numbers = data.look().numbers
    assert (data.kind, data.name) == (kind, name)
    assert (numbers["examples"], numbers["target_kind"]) == (examples, target_kind)
    assert open_data(name).fingerprint == data.fingerprint


def test_digits_use_the_whole_range():
    pixels = open_data("digits").pixels()
    assert pixels.shape == (1797, 8, 8, 1)
    assert (pixels.min(), pixels.max()) == (0, 255)


def test_what_is_not_there(tmp_path, monkeypatch, folder):
    with pytest.raises(DataError, match="did you mean 'digits'"):
        open_data("digts")
    with pytest.raises(DataError, match="did you mean 'photos'"):
        open_data(tmp_path / "photo")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="did you mean 'photos'"):
        open_data("phtos")
    with pytest.raises(DataError, match="give a folder or archive"):
        open_data("/nowhere/at/all")
    with pytest.raises(DataError):
        open_data("")


@pytest.mark.parametrize("address", ["https://example.com/t.csv", "s3://bucket/t.parquet", "file:///tmp/t.csv"])
def test_an_address_is_no_file(address):
    with pytest.raises(DataError, match="is an address, and data is read from files; download it, and give the file"):
        open_data(address)


def test_what_is_not_accepted(tmp_path, folder):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="empty is empty; give a folder"):
        open_data(empty)
    for name in ("a.wav", "b.wav"):
        (empty / name).write_bytes(b"RIFF")
    with pytest.raises(DataError, match=r"no images in empty .it holds 2 files that are not images"):
        open_data(empty)
    for name in ("model.pkl", "weights.pt"):
        (tmp_path / name).write_bytes(pickle.dumps([1]))
        with pytest.raises(DataError, match="never loaded"):
            open_data(tmp_path / name)
    (tmp_path / "film.mp4").write_bytes(b"x")
    with pytest.raises(DataError, match="kind that is not known"):
        open_data(tmp_path / "film.mp4")
    (tmp_path / "broken.tar").write_bytes(b"nothing like a tar")
    with pytest.raises(DataError, match=r"broken.tar is damaged"):
        open_data(tmp_path / "broken.tar")
    with pytest.raises(DataError, match="no column 'kind'"):
        open_data(folder, "kind")
    with pytest.raises(DataError, match="target of iris is 'target'"):
        open_data("iris", "petal")


def test_hub_data_sets(tmp_path, folder, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="needs the extra: pip install 'papertrial[hub]'")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["u", "v"])})
    pictures = [Image.fromarray(picture) for picture in PICTURES]
    train = datasets.Dataset.from_dict({"image": pictures[:4], "label": [0, 1, 0, 1]}, features)
    test = datasets.Dataset.from_dict({"image": pictures[4:], "label": [1, None]}, features)
    both = datasets.DatasetDict({"train": train, "validation": test})
    both.save_to_disk(tmp_path / "saved")
    for source in (f"hf:{tmp_path / 'saved'}", tmp_path / "saved", both):
        images = open_data(source)
        np.testing.assert_array_equal(images.pixels(), PICTURES)
        assert images.labels.tolist() == [0, 1, 0, 1, 1, -1]
        assert images.class_names == ("u", "v")
        assert images.part.tolist() == [0, 0, 0, 0, 2, 2]
    shuffled = open_data(train.shuffle(seed=1))
    assert sorted(shuffled.labels.tolist()) == [0, 0, 1, 1]
    features = datasets.Features({"size": datasets.Value("float32"), "kind": datasets.ClassLabel(names=["u", "v"])})
    rows = datasets.Dataset.from_dict({"size": [1.5, 2.5, 4.0, 8.0], "kind": [0, 1, 1, -1]}, features)
    table = open_data(rows, "kind")
    assert table.codes("kind")[1] == ("u", "v")
    with pytest.raises(DataError, match="no column 'colour'"):
        open_data(both, "colour")
    frame_folder = tmp_path / "frames"
    frame_folder.mkdir()
    pd.DataFrame({"a": [1.5, 2.5, 3.5], "b": ["u", "v", "u"]}).to_csv(frame_folder / "train.csv", index=False)
    assert open_data(f"hf:{frame_folder}", "b").rows == 3


def test_hub_out_of_reach(monkeypatch):
    datasets = pytest.importorskip("datasets", reason="needs the extra: pip install 'papertrial[hub]'")

    def unreachable(*_):
        raise ConnectionError("Couldn't reach the hub\nlong traceback")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(
        DataError, match=r"hf:some/data cannot be loaded .ConnectionError: Couldn't reach the hub.; check the id"
    ):
        open_data("hf:some/data")


def test_hub_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(PapertrialError, match=r"pip install 'papertrial\[hub\]'"):
        open_data("hf:some/data")


def test_data_moves_with_its_fingerprint(folder, tmp_path):
    before = open_data(folder).fingerprint
    shutil.copytree(folder, tmp_path / "elsewhere")  # keeps the times of the files
    assert open_data(tmp_path / "elsewhere").fingerprint == before


@pytest.mark.parametrize("name", ["deep.json", "deep.jsonl", "deep.txt.json"])
def test_json_that_is_nested_too_deeply_is_no_defect(name, tmp_path):
    (tmp_path / name).write_text("[" * 50_000 + "]" * 50_000 + "\n")
    with pytest.raises(DataError, match="not JSON \\(nested too deeply"):
        open_data(tmp_path / name)
    with pytest.raises(DataError, match="nested too deeply"):
        list(documents_in(tmp_path / name, lambda line: None))


def test_json_may_hold_what_python_cannot(tmp_path):
    """A number of more digits than it reads, and half of a character."""
    (tmp_path / "t.jsonl").write_text(
        "".join(
            f'{{"id": {"7" * 5000}{row}, "half": "\\ud800 {row}", "pair": "\\ud83d\\ude00", "x": {row}.5, "y": {row % 2}}}\n'
            for row in range(9)
        )
    )
    table = open_data(tmp_path / "t.jsonl", "y")
    assert table.rows == 9 and table.columns["id"].unique == 9
    assert (
        table.texts(["half", "pair"])[0].texts()[3] == "\ufffd 3"
        and table.texts(["pair"])[0].texts()[0] == "\U0001f600"
    )
