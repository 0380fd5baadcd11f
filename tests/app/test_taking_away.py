"""`export`, `eject` and `new` as a user types them."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from small_runs import run as small_run


def test_a_run_is_exported_and_ejected(papertrial):
    folder = small_run("vit").folder
    code, out, err = papertrial("export", folder, "--to", "torch", "--out", "vit.pt2")
    assert code == 0, err
    assert "takes       image float32 (batch, 1, 8, 8)" in out
    assert "64 rows of digits in batches of 1, 2, 7, 64: largest difference" in out
    code, out, err = papertrial("export", folder, "--to", "torch", "--out", "vit.pt2", "--json", "--replace")
    assert json.loads(out) == {"file": "vit.pt2", **json.loads(Path("vit.pt2.json").read_text())}
    code, out, err = papertrial("eject", folder, "--out", "plain", "--json")
    assert code == 0, err
    assert json.loads(out)["check"]["largest_difference"] == 0
    assert sorted(os.listdir()) == ["plain", "vit.pt2", "vit.pt2.json"]


def test_a_paper_is_started(papertrial):
    code, out, err = papertrial("new", "tiny_net")
    assert code == 0, err
    assert "wrote papertrial-tiny-net/pyproject.toml" in out
    assert "pip install -e papertrial-tiny-net" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["export", "RUN"], "Missing option '--to'"),
        (["export", "RUN", "--to", "onxx"], "did you mean 'onnx'"),
        (["export", "nowhere", "--to", "onnx"], "holds no trained model"),
        (["export", "RUN", "--to", "torch", "--data", "wine"], "was trained on images"),
        (["eject", "RUN", "--out", "RUN/card.json/new"], "card.json is a file"),
        (["eject", "nowhere", "--out", "x"], "holds no trained model"),
        (["new", "mlp_mixer"], "mlp_mixer is taken"),
        (["new", "x", "--kind", "analyses"], "no template of the kind"),
        (
            ["fit", "barlow_twins", "--data", "digits", "--backbone", "timm:resnet18:best"],
            "cannot read timm:resnet18:best",
        ),
        (["fit", "mlp_mixer", "--data", "digits", "--backbone", "timm:resnet18"], "takes no backbone"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(papertrial, words, message):
    code, out, err = papertrial(*(word.replace("RUN", str(small_run("vit").folder)) for word in words))
    assert code == 2, (out, err)
    assert len(err.strip().splitlines()) == 1 and err.startswith("papertrial: "), err
    assert re.search(message, err), err
    assert not os.listdir()
