"""Ejected models of text run where only torch, safetensors, numpy and, for learnt tokenisers, tokenizers are."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from small_runs import data, run
from test_eject import check_text

from papertrial.core.errors import Declined
from papertrial.use import eject as ejecting
from papertrial.use.eject import eject
from papertrial.use.gather import gather, settled
from papertrial.use.predictor import predictor, sample
from papertrial.use.textloader import asked

NAMES = [
    "text_transformer", "bpe", "language:bpe", "language", "retriever", *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("byt5", "switch", "minilm", "simcse", "similar", "simcse:pairs", "language:switch")
    ),
]  # fmt: skip
LEARNT = ["bpe", "minilm", "simcse:pairs", "language:bpe", "retriever"]
TEXTS = """
import importlib.abc, sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in "papertrial accelerate typer".split():
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
import json, numpy as np, torch
torch.set_num_threads(1)
for place in sys.argv[1:]:
    sys.path.insert(0, place + "/out")
    import load
    with open(place + "/rows.json") as stream:
        np.save(place + "/answers.npy", load.predict(*json.load(stream)))
    if hasattr(load, "generate"):
        with open(place + "/written.json", "w") as stream:
            json.dump(load.generate("dull river, ", 12), stream)
    del sys.path[0], sys.modules["load"], sys.modules["model"]
"""


@pytest.fixture(scope="module")
def ejected(request, tmp_path_factory):
    """A folder per model that is asked about with `out`, the texts given, and `answers.npy` of one bare process that ran them all."""
    cases = [getattr(item, "callspec", None) for item in request.session.items if item.path == request.path]
    names = dict.fromkeys(case.params["name"] for case in cases if case and "name" in case.params)
    places = {name: tmp_path_factory.mktemp("ejected") for name in names}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ejecting, "_compare", lambda *arguments: 0.0)  # the test compares
        for name, place in places.items():
            eject(run(name), place / "out", data=data(name))
            (place / "rows.json").write_text(json.dumps(columns(name)[0]))
    command = [sys.executable, "-I", "-B", "-W", "error", "-c", TEXTS, *map(str, places.values())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return places


def columns(name):
    artifact = run(name)
    return asked(artifact, sample(artifact, data(name))[0], predictor(artifact).answers)


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_answers_to_texts_as_the_artifact(name, ejected):
    found, wanted = np.load(ejected[name] / "answers.npy"), columns(name)[1]
    assert found.shape == wanted.shape and found.dtype == np.float64
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_source_reads_like_a_file_that_somebody_wrote(name, ejected):
    check_text(ejected[name] / "out", run(name))
    assert (ejected[name] / "out" / "tokenizer.json").exists() == (name in LEARNT)
    readme = (ejected[name] / "out" / "README.md").read_text()
    assert ("numpy tokenizers" in readme) == (name in LEARNT)
    assert ">>> predict([" in readme


@pytest.mark.parametrize("name", ["language", "language:bpe"])
def test_a_language_model_goes_on_as_the_artifact_does(name, ejected):
    written = json.loads((ejected[name] / "written.json").read_text())
    assert written == run(name).generate("dull river, ", length=12, temperature=0)[0].text


def test_its_own_trial_compares_in_a_process_without_papertrial(tmp_path):
    about = eject(run("minilm"), tmp_path / "out", data=data("minilm"))
    assert about["check"]["largest_difference"] <= 1e-6
    assert about["check"]["rows"] == "64 texts of labelled.csv"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "LICENSE", "NOTICE", "README.md", "config.json", "load.py", "model.py", "model.safetensors", "tokenizer.json",
    ]  # fmt: skip


def test_a_reranker_is_declined_with_another_way(tmp_path):
    with pytest.raises(Declined, match="export RUN --to onnx"):
        eject(run("reranker"), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_branches_that_the_settings_do_not_take_are_left_out():
    text = (
        "def build(config):\n"
        "    if config.fetch:\n        get()\n    elif config.other:\n        pass\n"
        "    model = big(config) if config.writes else small(config)\n"
        "    if not config.fetch:\n        # why\n        model.ready = True\n        return model\n"
        "    return load(model)\n"
    )
    assert settled(text, {"fetch": False, "writes": False}) == (
        "def build(config):\n"
        "    if config.other:\n        pass\n"
        "    model = small(config)\n"
        "    model.ready = True\n    return model"
    )
    assert "get()" in settled(text, {"fetch": True, "writes": True})


def test_a_field_may_have_the_name_of_a_module_that_is_imported(tmp_path, monkeypatch):
    (tmp_path / "named_pkg").mkdir()
    (tmp_path / "named_pkg" / "__init__.py").touch()
    (tmp_path / "named_pkg" / "low.py").touch()
    (tmp_path / "named_pkg" / "high.py").write_text("from named_pkg import low\n\n\nclass Config:\n    low: int = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    _, text = gather([("named_pkg.high", "Config")], ["named_pkg"], {})
    assert "low: int = 1" in text
