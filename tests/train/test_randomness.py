"""The caller's random numbers go on as if nothing had been drawn, and trainings in two threads are those that follow each other."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest
import torch

import papertrial as pt
from papertrial.core.errors import PapertrialError
from papertrial.train.randomness import drawn_apart, own_randomness

JOBS = {
    "network": {"method": "rtdl:mlp", "data": "wine", "recipe": "tiny", "budget": "20steps", "settings": {"hidden_dropout": 0.5}},
    "other": {"method": "rtdl:mlp", "data": "wine", "recipe": "tiny", "budget": "20steps", "settings": {"hidden_dropout": 0.5}, "seed": 1},
    "estimator": {"method": "linear", "data": "iris"},
}  # fmt: skip


def state():
    name, words, *rest = np.random.get_state()  # noqa: NPY002
    return torch.get_rng_state().tolist(), random.getstate(), (name, words.tolist(), rest)


@pytest.fixture
def seeded():
    torch.manual_seed(3)
    np.random.seed(5)  # noqa: NPY002
    random.seed(7)
    return state()


def fitted(name, folder):
    return pt.fit(**JOBS[name], out=folder / name, progress=False)


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.safetensors")}


def test_what_trains_and_loads_gives_the_callers_numbers_back(seeded, tmp_path):
    for name in JOBS:
        fitted(name, tmp_path)
        assert state() == seeded, name
    model = pt.load(tmp_path / "network")
    model.predict("wine")
    assert state() == seeded
    with pytest.raises(PapertrialError):
        pt.fit("rtdl:mlp", "wine", recipe="tiny", settings={"lr": 1e30}, out=tmp_path / "bad", progress=False)
    assert state() == seeded


def test_trainings_in_threads_are_those_that_follow_each_other(seeded, tmp_path):
    for name in JOBS:
        fitted(name, tmp_path / "one")
    failed = []

    def work(name):
        try:
            fitted(name, tmp_path / "two")
            for _ in range(5):
                pt.load(tmp_path / "one" / "network")  # builds a network while another thread trains one
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in JOBS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert files(tmp_path / "one") == files(tmp_path / "two") and len(files(tmp_path / "one")) == len(JOBS)
    assert state() == seeded


def test_a_training_within_a_training_draws_on():
    """A comparison holds the numbers for all its runs; each of them begins with its own seed."""
    torch.manual_seed(0)
    before = state()
    with own_randomness():
        first = torch.rand(2)
        with own_randomness():
            second = torch.rand(2)
        assert not torch.equal(first, second) and not torch.equal(second, torch.rand(2))
        within = state()
        with drawn_apart():
            torch.rand(2)
        assert state() == within
    assert state() == before
