"""Batches are a pure function of (seed, step), whatever the thread, the ranks, or where the rows lie."""

import numpy as np
import pytest
import torch

from papertrial.core.errors import DataError
from papertrial.core.task import Split
from papertrial.nn.batches import Batches, forward_batches, to_tensors


def numbered(rows):
    return Split({"row": np.arange(rows)})


def test_every_epoch_is_a_permutation():
    batches = Batches(numbered(103), 10, seed=5)
    assert (batches.per_epoch, batches.total) == (10, 10)
    for epoch in range(3):
        rows = np.concatenate([batches.rows(epoch * 10 + step) for step in range(10)])
        assert len(set(rows.tolist())) == 100
    left_out = [set(range(103)) - {int(r) for s in range(10) for r in batches.rows(10 * e + s)} for e in range(3)]
    assert len({frozenset(rows) for rows in left_out}) == 3


@pytest.mark.parametrize("threaded", [False, True])
def test_any_order_of_asking_gives_the_same(threaded, monkeypatch):
    from papertrial.nn import batches as module

    monkeypatch.setattr(module, "_WORTH_A_THREAD", 0 if threaded else 1 << 60)
    batches = Batches(numbered(50), 8, seed=1)
    assert (batches._thread is not None) == threaded
    forward = [batches.at(step)["row"] for step in range(14)]
    for step in (13, 0, 7, 6, 7, 12):
        assert torch.equal(batches.at(step)["row"], forward[step])
    fresh = Batches(numbered(50), 8, seed=1)
    assert torch.equal(fresh.at(9)["row"], forward[9])
    assert not torch.equal(Batches(numbered(50), 8, seed=2).at(9)["row"], forward[9])
    batches.close()
    fresh.close()


@pytest.mark.parametrize(("batch", "pieces", "spans"), [
    (12, 1, [[(0, 3)], [(3, 6)], [(6, 9)], [(9, 12)]]),
    (10, 1, [[(0, 2)], [(2, 5)], [(5, 7)], [(7, 10)]]),
    (18, 2, [[(0, 2), (9, 11)], [(2, 4), (11, 13)], [(4, 6), (13, 15)], [(6, 9), (15, 18)]]),
])  # fmt: skip
def test_ranks_share_the_global_batch(batch, pieces, spans):
    """Whole micro-batches are shared, so that a loss that looks across one sees the same rows on any number of ranks."""
    whole = Batches(numbered(64), batch, seed=3, pieces=pieces)
    parts = [Batches(numbered(64), batch, seed=3, rank=rank, world=4, pieces=pieces) for rank in range(4)]
    assert [part.spans for part in parts] == spans
    for step in (0, 2, 5, 11):
        together = torch.empty(batch, dtype=torch.int64)
        for part in parts:
            together[torch.cat([torch.arange(*span) for span in part.spans])] = part.at(step)["row"]
        assert torch.equal(together, whole.at(step)["row"])


@pytest.mark.parametrize(("rows", "world"), [(1, 1), (7, 1), (7, 2), (3, 3)])
def test_fewer_rows_than_the_batch(rows, world):
    parts = [Batches(numbered(rows), 100, seed=0, rank=rank, world=world, pieces=5) for rank in range(world)]
    assert {(part.total, part.per_epoch, len(part.spans)) for part in parts} == {(rows, 1, min(5, rows // world))}
    assert sum(len(part.at(5)["row"]) for part in parts) == rows
    assert min(last - first for part in parts for first, last in part.spans) >= 1


@pytest.mark.parametrize(("rows", "world"), [(0, 1), (3, 4)])
def test_not_a_row_for_each(rows, world):
    with pytest.raises(DataError, match=f"there are {rows} training rows"):
        Batches(numbered(rows), 8, seed=0, world=world)


def test_mapped_files_give_the_same_rows(tmp_path):
    values = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", values)
    mapped = Batches(Split({"x": np.load(tmp_path / "x.npy", mmap_mode="r")}), 16, seed=0)
    plain = Batches(Split({"x": values}), 16, seed=0)
    for step in range(5):
        assert torch.equal(mapped.at(step)["x"], plain.at(step)["x"])
    mapped.close()


def test_failure_in_the_thread_reaches_the_caller(monkeypatch):
    from papertrial.nn import batches as module

    monkeypatch.setattr(module, "_WORTH_A_THREAD", 0)
    batches = Batches(Split({"words": np.array(["a", "b"], dtype=object)}), 2, seed=0)
    with pytest.raises(DataError, match="'words' holds object"):
        batches.at(0)
    batches.close()


def test_tensors():
    pixels = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    columns = {
        "image": pixels,
        "label": np.array([1, -1], dtype=np.int32),
        "numeric": np.array([[np.nan], [1]], dtype=np.float64),
        "flag": np.array([True, False]),
        "bytes": np.array([0, 255], dtype=np.uint8),
        "codes": np.array([[1, 2], [3, 2**16 - 1]], dtype=">u2"),
    }
    made = to_tensors(columns)
    assert torch.equal(made["image"], torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255)
    assert made["image"].dtype == torch.float32
    assert made["image"].is_contiguous()
    assert made["label"].tolist() == [1, -1]
    assert made["label"].dtype == made["bytes"].dtype == made["codes"].dtype == torch.int64
    assert made["numeric"].dtype == torch.float32
    assert made["numeric"].isnan().tolist() == [[True], [False]]
    assert made["flag"].dtype == torch.bool
    assert made["bytes"].tolist() == [0, 255]
    assert made["codes"].tolist() == [[1, 2], [3, 65535]]


def test_float_images_keep_their_values():
    pixels = np.random.default_rng(0).random((2, 4, 5, 1))
    made = to_tensors({"image": pixels})["image"]
    assert torch.equal(made, torch.from_numpy(pixels).float().permute(0, 3, 1, 2))


def test_read_only_columns_are_copied():
    values = np.arange(3.0, dtype=np.float32)
    values.flags.writeable = False
    to_tensors({"x": values})["x"].zero_()
    assert values.tolist() == [0, 1, 2]


@pytest.mark.parametrize("rows", [1, 7, 8, 9])
def test_forward_in_chunks(rows):
    layer = torch.nn.Linear(3, 2)
    split = Split({"x": np.random.default_rng(0).normal(size=(rows, 3)), "unused": np.zeros(rows)})
    out = forward_batches(layer, split, ["x"], batch=4)
    whole = layer(torch.from_numpy(split["x"]).float()).detach().numpy()
    np.testing.assert_allclose(out, whole, rtol=1e-6)
    half = forward_batches(lambda x: layer(x).bfloat16(), split, ["x"], batch=4)
    assert half.dtype == np.float32


def test_forward_of_nothing():
    assert forward_batches(torch.nn.Identity(), Split({"x": np.zeros((0, 3))}), ["x"]).shape == (0,)
