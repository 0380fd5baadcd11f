"""A bit that has changed in the weights is told whenever they are opened; weights from before sums were kept still open."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import papertrial as pt
from papertrial.core.errors import PapertrialError
from papertrial.train import checkpoint
from papertrial.use.fit import Outcome

METHODS = {
    "rtdl:mlp": "model.safetensors",
    "linear": "estimator/model.safetensors",
    "majority": "estimator/model.safetensors",
}
OPENING = ["predict RUN wine", "evaluate RUN wine", "embed RUN wine", "export RUN --to torch", "eject RUN --out ejected", "generate RUN"]  # fmt: skip


@pytest.fixture(scope="module", params=METHODS)
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    options = {"recipe": "tiny", "budget": "3steps"} if request.param == "rtdl:mlp" else {}
    pt.fit(request.param, "wine", out=folder, progress=False, **options)
    return folder, METHODS[request.param]


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 16
    path.write_bytes(content)


def test_a_flipped_bit_is_told_by_whatever_opens_the_run(run, papertrial, tmp_path):
    folder, weights = run
    shutil.copytree(folder, tmp_path / "run")
    flip(tmp_path / "run" / weights, -3)
    with pytest.raises(PapertrialError, match="checksum"):
        pt.load(tmp_path / "run")
    before = sorted(tmp_path.rglob("*"))
    for words in OPENING:
        code, out, err = papertrial(*words.replace("RUN", "run").split())
        assert code == 2 and out == "" and err.count("\n") == 1, (words, err)
        assert weights in err and "is damaged" in err and "remove run" in err, err
    assert sorted(tmp_path.rglob("*")) == before


def test_scores_of_test_rows_are_checked_before_they_decide(run, tmp_path):
    shutil.copytree(run[0], tmp_path / "run")
    Outcome.read(tmp_path / "run")
    flip(tmp_path / "run" / "per_example.npy", -1)
    with pytest.raises(PapertrialError, match=r"per_example\.npy is damaged"):
        Outcome.read(tmp_path / "run")


def test_a_run_from_before_sums_were_kept_opens(run, tmp_path):
    shutil.copytree(run[0], tmp_path / "run")
    for name in ("card.json", "result.json"):
        file = tmp_path / "run" / name
        content = json.loads(file.read_text())
        del content["sums"]
        content.pop("checksum", None)
        file.write_text(json.dumps(content))
    assert len(pt.load(tmp_path / "run").predict("wine")["prediction"]) == 178
    Outcome.read(tmp_path / "run")


TENSORS = {
    "a": torch.arange(6.0).view(2, 3), "half": torch.ones(3, dtype=torch.bfloat16), "count": torch.tensor(7),
    "mask": torch.tensor([True, False]), "none": torch.zeros(0, 4),
}  # fmt: skip


def test_every_byte_of_a_checkpoint_counts(tmp_path):
    """The header too, where names, shapes and the state are."""
    path = tmp_path / "c"
    checkpoint.save(path, TENSORS, {"step": 3})
    whole = path.read_bytes()
    found, state = checkpoint.load(path)
    assert state == {"step": 3} and all(torch.equal(found[name], TENSORS[name]) for name in TENSORS)
    silent = []
    for place in range(len(whole)):
        path.write_bytes(whole)
        flip(path, place)
        try:
            checkpoint.load(path)
            silent.append(whole[place : place + 1])
        except PapertrialError:
            pass
    # spaces that fill up the header, and the name under which the sum is kept
    assert set(silent) <= {bytes([sign]) for sign in b"sha256 "} and len(silent) <= 14, silent


def test_a_checkpoint_without_a_sum_opens(tmp_path):
    told = json.dumps({"format": 1, "step": 3})
    save_file(TENSORS, tmp_path / "c", metadata={"papertrial": told})
    assert checkpoint.load(tmp_path / "c")[1] == {"step": 3}
    assert load_file(tmp_path / "c").keys() == TENSORS.keys()
