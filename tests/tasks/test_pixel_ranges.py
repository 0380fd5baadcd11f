"""Images whose values go from -1 to 1, or to 1000, are told how they were read, and so are new ones of another range."""

from __future__ import annotations

import numpy as np
import pytest

import papertrial as pt
from papertrial.tasks._images import as_trained, other_range

BYTES = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
BYTES[:, 0, 0], BYTES[:, 0, 1] = 0, 255
LABELS = np.arange(40) % 2
OF = {
    "bytes": BYTES,
    "whole numbers": BYTES.astype(np.int64),
    "unit": BYTES / 255,
    "wide": BYTES.astype(np.float64),
    "signed": BYTES / 127.5 - 1,
    "thousand": BYTES * (1000 / 255),
    "standardised": (BYTES - 128.0) / 30,
}
SAID = {
    "signed": "values from -1 to 1, not from 0 to 1",
    "thousand": "values from 0 to 1000, not from 0 to 1",
    "standardised": "values from -4.26",
}


@pytest.mark.parametrize("name", OF)
def test_how_values_are_read_is_said_when_they_are_opened(name):
    notes = pt.open((OF[name], LABELS)).look().notes
    told = [note for note in notes if note.startswith("values from")]
    assert len(told) == (name in SAID)
    assert all(SAID[name] in note for note in told)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    place = tmp_path_factory.mktemp("ranges")
    return {
        name: pt.fit("majority", (values, LABELS), out=place / name.replace(" ", "-"), progress=False)
        for name, values in OF.items()
    }


@pytest.mark.parametrize("before", OF)
@pytest.mark.parametrize("now", OF)
def test_another_range_than_in_training_is_told(trained, before, now):
    whole = {"bytes", "whole numbers"}
    given = trained[before].encode(OF[now])
    told = [note for note in given.notes if "model was trained on" in note]
    alike = before == now or {before, now} <= whole or (before in whole and now == "unit")
    assert bool(told) != alike, given.notes
    # what bytes mean is known, and so it is where values between 0 and 255 meet a model of bytes
    known = {*whole, "unit", "wide", "signed"}
    if (now in whole and before in known) or (before in whole and now in {*whole, "unit", "wide"}):
        own = trained[before].encode(OF[before]).split["image"]
        np.testing.assert_allclose(
            np.asarray(given.split["image"]) / given.split["image"].max(), own / own.max(), atol=1e-6
        )


def test_fit_and_card_say_it_too(trained):
    assert any("values from -1 to 1" in note for note in trained["signed"].card["notes"])


def test_values_of_training_are_read_as_before():
    """Images of the range that was trained on are scaled as they always were, bit for bit."""
    state = {"bytes": False, "low": 0.1, "high": 0.9}
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8, 1)
    expected = np.clip((values - 0.1) / (0.9 - 0.1), 0, 1, dtype=np.float32)
    assert (as_trained(values, state) == expected).all()
    pixels = (255 * values).astype(np.uint8)
    assert (as_trained(pixels, state) == np.clip((pixels.astype(np.float32) / 255 - 0.1) / (0.9 - 0.1), 0, 1)).all()
    assert not other_range(values, state)


def test_a_python_user_is_told(trained):
    answers = trained["bytes"].predict(OF["signed"])
    assert any("what is beyond is cut off" in note for note in answers.attrs["notes"])
