"""Ejected folders run where only torch, safetensors and numpy are, and answer as the artifact does, to the last bit."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file
from small_runs import data, run

from papertrial.core.errors import Declined, PapertrialError
from papertrial.nn.batches import to_tensors
from papertrial.use import eject as ejecting
from papertrial.use.eject import eject
from papertrial.use.gather import gather
from papertrial.use.predictor import sample

NAMES = ["mlp_mixer", "resnet", "vit", "nfnet", "barlow_twins", "rtdl", "rtdl:resnet", "rtdl:mlp"]
#: a bare environment: nothing that papertrial brings along, but for torch, safetensors and numpy
BARE = """
import importlib.abc, sys

class Missing(importlib.abc.MetaPathFinder):
    names = set("papertrial accelerate scipy sklearn pandas pyarrow PIL typer rich tensorboard timm transformers".split())

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
import numpy as np, torch
torch.set_num_threads(1)
for place in sys.argv[1:]:
    sys.path.insert(0, place + "/out")
    from load import predict
    with np.load(place + "/rows.npz") as rows:
        np.save(place + "/answers.npy", predict(*(rows[name] for name in rows.files)))
    del sys.path[0], sys.modules["load"], sys.modules["model"]
"""


@pytest.fixture(scope="module")
def ejected(tmp_path_factory):
    """A folder per model with `out`, the rows given, and `answers.npy` of one bare process that ran them all."""
    places = {name: tmp_path_factory.mktemp("ejected") for name in NAMES}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ejecting, "_compare", lambda *arguments: 0.0)  # ours is stricter
        for name, place in places.items():
            eject(run(name), place / "out")
            split, *_ = sample(run(name), data(name))
            np.savez(place / "rows.npz", *(t.numpy() for t in to_tensors(split).values() if t.numel()))
    command = [sys.executable, "-I", "-B", "-W", "error", "-c", BARE, *map(str, places.values())]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return places


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_runs_without_papertrial_and_answers_equally(name, ejected):
    artifact = run(name)
    split, *_ = sample(artifact, data(name))
    wanted = artifact.task.outputs(artifact.model, artifact.head, split)
    assert np.array_equal(np.load(ejected[name] / "answers.npy"), wanted)


@pytest.mark.parametrize("name", NAMES)
def test_the_source_reads_like_a_file_that_somebody_wrote(name, ejected):
    check_text(ejected[name] / "out", run(name))


def check_text(folder, artifact):
    """No papertrial, nothing unused, as the formatter has it, and provenance and licence beside it."""
    text = (folder / "model.py").read_text()
    tree = ast.parse(text)
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert imported <= {*sys.stdlib_module_names, "torch", "numpy"}
    for word in ("PAPER", "Recipe", "sourced", "@claim", "registry"):
        assert not re.search(rf"\b{word}\b", text), f"{word} is left in the file"
    ruff = shutil.which("ruff", path=str(sys.executable).rpartition("/")[0]) or "ruff"
    if shutil.which(ruff):
        for words in (["check", "--select", "F,E9,I"], ["format", "--check"]):
            done = subprocess.run(
                [ruff, *words, "--isolated", "--line-length", "120", str(folder)], capture_output=True, text=True
            )
            assert done.returncode == 0, done.stdout
    config = json.loads((folder / "config.json").read_text())
    assert config["method"]["name"] == artifact.card["method"]["name"]
    assert config["licence"] == artifact.card["licence"]
    assert "Apache License" in (folder / "LICENSE").read_text()
    readme = (folder / "README.md").read_text()
    assert artifact.card["data"]["fingerprint"] in readme
    assert "## Licence" in readme


def test_its_own_trial_compares_in_a_process_without_papertrial(tmp_path):
    about = eject(run("resnet"), tmp_path / "out")
    assert about["check"] == {"rows": "64 rows of digits", "largest_difference": 0.0, "notes": []}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "LICENSE", "NOTICE", "README.md", "config.json", "load.py", "model.py", "model.safetensors",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "message"), [("return raised * 1.01", "answers differently"), ("import papertrial", "does not run")]
)
def test_nothing_is_left_of_a_folder_that_fails_its_trial(wrong, message, tmp_path, monkeypatch):
    loader = ejecting._loader
    monkeypatch.setattr(
        ejecting,
        "_loader",
        lambda *arguments: loader(*arguments).replace("return raised", f"{wrong}\n    return raised"),
    )
    with pytest.raises(PapertrialError, match=message):
        eject(run("vit"), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_loader_folds_what_can_be_folded_and_the_source_can_still_be_trained(ejected):
    folds = {name for name, place in ejected.items() if ".fold()" in (place / "out" / "load.py").read_text()}
    assert folds == {"nfnet"}
    weights = load_file(ejected["nfnet"] / "out" / "model.safetensors")
    assert any(name.endswith(".gain") for name in weights)


def test_settings_are_those_of_the_run_with_their_sources(ejected):
    text = (ejected["barlow_twins"] / "out" / "model.py").read_text()
    assert "    # you\n    depths: tuple[int, ...] = (1, 1)\n" in text
    assert "class BarlowTwins" not in text  # what answers is the encoder and its probe
    assert "trained as barlow_twins with resnet on digits" in text.replace("\n", " ")


def test_a_folder_that_is_there_and_what_is_no_network_are_refused(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(PapertrialError, match="is there already"):
        eject(run("vit"), tmp_path / "out")
    with pytest.raises(Declined, match="linear is not a network"):
        eject(run("linear"), tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of two modules, written by the test."""

    def write(**modules):
        for name, text in modules.items():
            place = tmp_path / f"{tmp_path.name.replace('-', '_')}_pkg"
            place.mkdir(exist_ok=True)
            (place / "__init__.py").touch()
            (place / f"{name}.py").write_text(text.replace("PKG", place.name))
        monkeypatch.syspath_prepend(tmp_path)
        return place.name

    return write


def test_gathering_follows_names_keeps_comments_and_orders_by_need(package):
    name = package(
        low="import math\nfrom os import path as p\n\n\ndef unused():\n    return p\n\n\n# why two\nTWO = math.sqrt(4)\n",
        high="from PKG.low import TWO\n\n\ndef four():\n    return helper() ** 2\n\n\ndef helper():\n    return TWO  # two\n",
    )
    imports, text = gather([(f"{name}.high", "four")], [name], {})
    assert imports == "import math"
    assert "unused" not in text
    assert text.index("# why two\nTWO") < text.index("def four") < text.index("return TWO  # two")
    space: dict = {}
    exec(f"{imports}\n{text}", space)
    assert space["four"]() == 4


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        ("X = 1", "from PKG.low import X as Y\n\n\ndef top():\n    return Y", "under another name"),
        ("X = 1", "def top():\n    from PKG.low import X\n    return X", "imports .* when it is called"),
        ("def helper(): ...\n\n\ndef low():\n    helper()", "from PKG.low import low\n\n\ndef top():\n    low(), helper()\n\n\n"
         "def helper(): ...", "one file cannot hold both"),
        ("for X in range(3):\n    pass", "from PKG.low import X\n\n\ndef top():\n    return X", "not defined in a plain"),
    ],
)  # fmt: skip
def test_what_cannot_be_followed_is_declined(package, low, high, message):
    name = package(low=low, high=high)
    with pytest.raises(Declined, match=message):
        gather([(f"{name}.high", "top")], [name], {})
