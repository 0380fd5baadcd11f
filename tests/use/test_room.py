"""Settings before anything is read or written: out of range, or of weights that no memory holds."""

from __future__ import annotations

import time

import pytest
import torch

import papertrial as pt
from papertrial.core.errors import PapertrialError
from papertrial.testing import bench
from papertrial.use import room

NOWHERE = "there/is/no/such/data.csv"


@pytest.mark.parametrize(
    ("method", "settings", "said"),
    [
        ("vit", {"heads": 0}, "the setting heads is 0, but it takes a whole number from 1 to 1024"),
        ("vit", {"depth": 2_000_000_000}, "the setting depth is 2000000000, but it takes"),
        ("vit", {"lr": "nan"}, "the setting lr is nan, but it takes"),
        ("barlow_twins", {"backbone.width": -4}, "the setting backbone.width is -4, but it takes"),
        ("vit", {"hats": 1}, "no setting 'hats'"),
    ],
)
@pytest.mark.parametrize("call", ["fit", "compare", "estimate"])
def test_settings_are_refused_before_the_data_are_opened(call, method, settings, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PapertrialError, match=said):
        getattr(pt, call)(
            method, NOWHERE, settings=settings, **({"backbone": "vit"} if method == "barlow_twins" else {})
        )
    assert not list(tmp_path.iterdir())


def test_techniques_are_looked_at_first_too():
    with pytest.raises(PapertrialError, match=r"the setting agc\.clip is 0, but it takes a number above 0"):
        pt.fit("vit", NOWHERE, techniques=["agc:clip=0"])


def test_weights_that_do_not_fit_are_refused_with_the_figure(tmp_path):
    begun = time.process_time()
    huge = {"width": 65536, "token_hidden": 65536, "channel_hidden": 262144, "depth": 64}
    with pytest.raises(
        PapertrialError, match=r"the weights of mlp_mixer would take about \d+ GB of memory, and .* are free"
    ):
        pt.fit("mlp_mixer", "digits", settings=huge, recipe="tiny", out=tmp_path / "run", progress=False)
    assert time.process_time() - begun < 30
    assert not (tmp_path / "run").exists()


def test_asking_for_room_changes_nothing(monkeypatch):
    b = bench("vit")
    before = torch.get_rng_state()
    room.require_room(b.task, b.resolved(), b.prepared)
    assert torch.equal(before, torch.get_rng_state())
    parts = [*b.model().parameters(), *b.model().buffers()]
    assert room.weights_of(b.task, b.resolved(), b.prepared) == sum(part.nbytes for part in parts)
    monkeypatch.setattr("papertrial.core.memory._WORTH_ASKING", 0)
    monkeypatch.setattr("papertrial.core.memory.free_memory", lambda *_: 1000)
    with pytest.raises(PapertrialError, match="and 1 kB are free"):
        room.require_room(b.task, b.resolved(), b.prepared)
