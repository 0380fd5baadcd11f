"""Exported files answer as the artifact does, for any number of rows, and no file is left that does not."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from small_runs import data, run
from torch import nn

from papertrial.core.errors import Declined, PapertrialError
from papertrial.nn.batches import to_tensors
from papertrial.nn.heads import Supervised
from papertrial.tasks._images import Normalized
from papertrial.use import export as exporting
from papertrial.use.export import TOLERANCE, _count_below, _normal_quantile, export
from papertrial.use.predictor import foldable, folded, sample

IN_TORCH = ["resnet", "vit", "rtdl:resnet", "rtdl:mlp", "linear:value"]
IN_ONNX = ["mlp_mixer", "nfnet", "barlow_twins", "rtdl", "linear"]


def rows(name, count):
    """Other rows than those the exporter tried the file on, and what the artifact answers."""
    artifact = run(name)
    split = artifact.encode(data(name)).split.take(slice(3, 3 + count))
    inputs = to_tensors({column: split[column] for column in artifact.task.inputs}).values()
    return [tensor for tensor in inputs if tensor.numel()], artifact.task.outputs(artifact.model, artifact.head, split)


def assert_same(found, wanted):
    scale = 1 if wanted.ndim == 2 else wanted.std() + 1e-9
    assert found.shape == wanted.shape
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE * max(scale, 1))


@pytest.mark.parametrize("name", IN_TORCH)
def test_a_torch_program_answers_as_the_artifact(name, tmp_path):
    about = export(run(name), "torch", out=tmp_path / "model.pt2", data=data(name))
    program = torch.export.load(tmp_path / "model.pt2").module()
    for count in (1, 2, 33):
        inputs, wanted = rows(name, count)
        assert_same(program(*inputs).detach().numpy(), wanted)
    assert about["check"]["largest_difference"] <= about["check"]["allowed"]
    assert about["check"]["batches"][0] == 1


@pytest.mark.parametrize("name", IN_ONNX)
def test_an_onnx_file_answers_as_the_artifact(name, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra export")
    about = export(run(name), "onnx", out=tmp_path / "model.onnx", data=data(name))
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    assert [entry.name for entry in session.get_inputs()] == [entry["name"] for entry in about["inputs"]]
    assert all(entry.shape[0] == "batch" for entry in [*session.get_inputs(), *session.get_outputs()])
    for count in (1, 2, 33):
        inputs, wanted = rows(name, count)
        given = {entry["name"]: tensor.numpy() for entry, tensor in zip(about["inputs"], inputs, strict=True)}
        assert_same(session.run(None, given)[0], wanted)
    assert json.loads(session.get_modelmeta().custom_metadata_map["papertrial"])["method"] == about["method"]


def test_a_network_that_can_be_folded_is_exported_folded(tmp_path):
    artifact = run("nfnet")
    held = {name: tensor.clone() for name, tensor in artifact.model.state_dict().items()}
    export(artifact, "torch", out=tmp_path / "model.pt2", data=data("nfnet"))
    program = torch.export.load(tmp_path / "model.pt2")
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert "aten.conv2d.default" in called and not any("var" in name for name in called)
    for count in (1, 2, 33):
        inputs, wanted = rows("nfnet", count)
        assert_same(program.module()(*inputs).detach().numpy(), wanted)
    left = artifact.model.state_dict()
    assert left.keys() == held.keys() and all(torch.equal(left[name], held[name]) for name in held)


class Foldable(nn.Module):
    """A backbone that merges two weights into one."""

    width = 3

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.one(x) + self.two(x)

    def fold(self):
        merged = nn.Linear(4, 3)
        merged.weight.data, merged.bias.data = self.one.weight + self.two.weight, self.one.bias + self.two.bias
        return merged


@pytest.mark.parametrize(
    ("wrap", "place"),
    [
        (lambda backbone: backbone, ""),
        (lambda backbone: Supervised(backbone, 2), "encoder"),
        (lambda backbone: Normalized(backbone, [0.5], [0.2]), "backbone"),
        (lambda backbone: Supervised(Normalized(backbone, [0.5], [0.2]), 2), "encoder.backbone"),
    ],
)
def test_a_backbone_is_folded_wherever_it_stands(wrap, place):
    torch.manual_seed(0)
    network, image = wrap(Foldable()), torch.rand(5, 1, 6, 4)
    made = folded(network)
    assert foldable(network) == place
    assert isinstance(made.get_submodule(place), nn.Linear) and isinstance(network.get_submodule(place), Foldable)
    torch.testing.assert_close(made(image), network(image))


def test_what_has_no_fold_stays_the_same_object():
    network = run("vit").model
    assert folded(network) is network and foldable(network) is None


def test_a_file_beside_it_says_what_goes_in_and_comes_out(tmp_path):
    export(run("rtdl"), "torch", out=tmp_path / "shop.pt2", data=data("rtdl"))
    about = json.loads((tmp_path / "shop.pt2.json").read_text())
    assert [entry["name"] for entry in about["inputs"]] == ["numeric", "categorical"]
    assert about["inputs"][0]["columns"] == ["price", "year", "price is missing"]
    assert about["inputs"][1]["columns"] == {"city": ["Lima", "Oslo", "Rome"], "kind": ["new", "used"]}
    assert about["outputs"] == [{"name": "probabilities", "dtype": "float32", "classes": ["no", "yes"]}]
    assert about["check"]["rows"] == "64 rows of mixed.csv"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shop.pt2", "shop.pt2.json"]


def test_rows_are_made_up_and_said_to_be_when_the_data_is_gone():
    split, words, _ = sample(run("rtdl"))
    assert words == "64 rows of random numbers"
    assert np.isnan(split["numeric"]).any() and split["categorical"].max() == 3  # missing and unseen are among them
    assert sample(run("vit"))[1] == "64 rows of digits"


def test_features_are_what_an_objective_without_labels_gives(tmp_path):
    artifact = run("barlow_twins")
    bare = type(artifact)(artifact.folder, artifact.card, artifact.task, artifact.model, {})
    about = export(bare, "torch", out=tmp_path / "model.pt2")
    assert about["outputs"] == [{"name": "features", "dtype": "float32"}]
    inputs, _ = rows("barlow_twins", 5)
    found = torch.export.load(tmp_path / "model.pt2").module()(*inputs)
    with torch.no_grad():
        torch.testing.assert_close(found.detach(), artifact.model.encoder(*inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("wrong", [0.01, float("nan")])
def test_no_file_is_left_whose_answers_differ(wrong, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "expected", lambda artifact, split: np.full((split.examples, 10), wrong))
    with pytest.raises(PapertrialError, match="answers differently"):
        export(run("mlp_mixer"), "torch", out=tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())


def test_what_is_no_network_is_declined(tmp_path):
    with pytest.raises(Declined, match=r"majority is not a network.*its own files.*estimator"):
        export(run("majority"), "torch", out=tmp_path / "model.pt2")


@pytest.mark.parametrize(
    ("to", "out", "message"),
    [("onxx", "model.onnx", "did you mean 'onnx'"), ("onnx", "model.pt2", "end it with .onnx"), ("torch", ".", ".pt2")],
)
def test_a_wrong_format_or_name_is_one_line(to, out, message, tmp_path):
    with pytest.raises(PapertrialError, match=message):
        export(run("mlp_mixer"), to, out=tmp_path / out)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_extra_is_one_line(package, tmp_path, monkeypatch):
    find = exporting.importlib.util.find_spec
    monkeypatch.setattr(exporting.importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(PapertrialError, match=rf"needs the package {package}.*papertrial\[export\]"):
        export(run("mlp_mixer"), "onnx", out=tmp_path / "model.onnx")


@pytest.mark.parametrize("right", [False, True])
def test_counting_by_halving_equals_searchsorted(right):
    generator = torch.Generator().manual_seed(0)
    for count in (1, 2, 17, 64, 1000):
        knots = torch.randint(0, max(count // 2, 1), (3, count), generator=generator).float().sort(-1).values
        values = torch.cat([knots[:, ::3], torch.randn(3, 50, generator=generator) * count], 1)
        wanted = torch.searchsorted(knots, values, right=right)
        torch.testing.assert_close(_count_below(knots, values, right=right), wanted, rtol=0, atol=0)


def test_the_normal_quantile_equals_torch():
    p = torch.cat([torch.linspace(1e-7, 1 - 1e-7, 20_001), 10.0 ** torch.linspace(-30, -1, 200)])
    torch.testing.assert_close(_normal_quantile(p), torch.special.ndtri(p), rtol=2e-6, atol=2e-6)
    assert _normal_quantile(torch.tensor([0.0, 1.0])).abs().min() > 5.2  # where the table models cut
