"""Exported models of text take ids and a mask in rows of any length, and what is beside them makes these of texts."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
import torch
from small_runs import data, run, sentences

from papertrial.core.errors import Declined
from papertrial.core.task import Ragged, Split
from papertrial.use import text_export
from papertrial.use.export import TOLERANCE, export


def slow(*names):
    """A program takes seconds to trace: each way to read a text and to answer is in one that is not marked."""
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


IN_TORCH = ["text_transformer", "language", *slow("minilm", "simcse", "reranker:cross")]
IN_ONNX = ["bpe", "retriever", "reranker", *slow("byt5", "switch", "simcse:pairs", "language:switch")]
ODD = ["", "a", "été 字 👍", "<pad> </s> [SEP]", "dull river, " * 40]
#: a user's interpreter: it has no papertrial
BARE = """
import importlib.abc, sys
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("papertrial", "transformers", "accelerate"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
"""


def rows(name, count):
    """Other rows than those the exporter tried the file on, odd ones among them."""
    texts = Ragged.of_texts([*ODD, *(text for text, _ in sentences(40, seed=9))][:count])
    if name.startswith("reranker"):
        other = Ragged.of_texts([text for text, _ in sentences(count, seed=11)])
        return Split({"query": other, "document": texts, "first": np.linspace(0, 9, count, dtype=np.float32)})
    return text_export.rows_to_try(run(name), Split({"text": texts}), count)  # experts serve the longest first


def assert_same(answer, name):
    artifact = run(name)
    for count in (1, 2, 23):
        given = rows(name, count)
        wanted = text_export.expected(artifact, given)
        found = answer(*text_export.tensors(artifact, given))
        assert found.shape == wanted.shape and found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE * max(1.0, float(wanted.std())))


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """name -> the file of its program, which is traced once, and what `export` said of it."""

    @cache
    def of(name):
        file = tmp_path_factory.mktemp("traced") / "model.pt2"
        return file, export(run(name), "torch", out=file, data=data(name))

    return of


@pytest.mark.parametrize("name", IN_TORCH)
def test_a_torch_program_answers_as_the_artifact(name, traced):
    file, about = traced(name)
    program = torch.export.load(file).module()
    assert_same(lambda *inputs: program(*inputs).detach().numpy(), name)
    assert about["check"]["largest_difference"] <= about["check"]["allowed"]


@pytest.mark.parametrize("name", IN_ONNX)
def test_an_onnx_file_answers_as_the_artifact(name, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra export")
    about = export(run(name), "onnx", out=tmp_path / "model.onnx", data=data(name))
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    assert [(entry.name, entry.shape) for entry in session.get_inputs()] == [
        (entry["name"], ["batch", *entry["shape"]]) for entry in about["inputs"]
    ]
    names = [entry["name"] for entry in about["inputs"]]
    assert_same(lambda *inputs: session.run(None, dict(zip(names, (x.numpy() for x in inputs), strict=True)))[0], name)


def test_what_stands_where_the_mask_is_false_changes_nothing(traced):
    program = torch.export.load(traced("text_transformer")[0]).module()
    ids, mask = text_export.tensors(run("text_transformer"), rows("text_transformer", 9))
    assert not mask.all()
    torch.testing.assert_close(program(ids.masked_fill(~mask, 77), mask), program(ids, mask), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["text_transformer", "bpe", *slow("minilm", "language", "language:bpe")])
def test_the_snippet_makes_the_ids_that_the_model_was_trained_on(name, traced):
    artifact, (file, about) = run(name), traced(name)
    place = file.parent
    learnt = name in ("bpe", "minilm", "language:bpe")
    assert (place / "model.pt2.tokenizer.json").exists() == learnt
    assert about["tokeniser"]["kind"] == ("tokenizers" if learnt else "bytes")
    assert json.loads((place / "model.pt2.json").read_text())["use"] == about["use"]
    texts = ODD + [text for text, _ in sentences(20)]
    asked = "\nids, mask = encode(json.load(open('texts.json')))\nnp.savez('ids.npz', ids=ids, mask=mask)\n"
    (place / "texts.json").write_text(json.dumps(texts))
    done = subprocess.run(
        [sys.executable, "-I", "-B", "-c", f"{BARE}\nimport json\n{about['use']}{asked}"],
        cwd=place, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ids, mask = (tensor.numpy() for tensor in text_export.tensors(artifact, Split({"text": Ragged.of_texts(texts)})))
    with np.load(place / "ids.npz") as found:
        assert np.array_equal(found["mask"], mask) and np.array_equal(found["ids"][mask], ids[mask])


def test_an_answer_that_is_written_token_by_token_is_declined(tmp_path):
    with pytest.raises(Declined, match=r"writes its answers token by token.*papertrial generate"):
        export(run("writer"), "torch", out=tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["text_transformer", "reranker"])
def test_texts_are_made_up_and_said_to_be_when_the_data_is_gone(name):
    given = text_export.rows_to_try(run(name), None, 20)
    assert given.examples == 20
    wanted = text_export.expected(run(name), given)
    assert np.isfinite(wanted).all()
