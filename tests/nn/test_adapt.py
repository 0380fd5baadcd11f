"""Networks from elsewhere as backbones: widths, channels, sizes, licences, and what is said when something is missing."""

from __future__ import annotations

import importlib.util
import sys
import types
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import papertrial as pt
import peers
from papertrial.core import registry
from papertrial.core.errors import Declined, PapertrialError
from papertrial.core.facts import Facts
from papertrial.core.recipe import resolve
from papertrial.nn import adapt
from papertrial.nn.adapt import Adapted, pooled
from papertrial.use.eject import eject
from papertrial.use.export import export

GREY = Facts("images", 100, 100, 1, 8, 8, classes=10, outputs=10)
COLOUR = Facts("images", 100, 100, 3, 12, 16, classes=10, outputs=10)


class Maps(nn.Module):
    """A map of features, as convolutions give."""

    def __init__(self, channels=3):
        super().__init__()
        self.layer = nn.Conv2d(channels, 6, 3)

    def forward(self, x):
        return self.layer(x)


def fit(tmp_path, method, backbone=None, **more):
    return pt.fit(
        method,
        "digits",
        backbone=backbone,
        recipe="tiny",
        budget="3steps",
        out=tmp_path / "run",
        progress=False,
        **more,
    )


def reloads(artifact):
    """The saved artifact answers as the one in memory, without the place its network came from."""
    rows = artifact.encode("digits").split.take(slice(0, 9))
    again = pt.load(artifact.folder)
    answers = [a.task.outputs(a.model, a.head, rows) for a in (artifact, again)]
    return np.array_equal(*answers)


# what a network returns


def test_features_are_pooled_from_whatever_comes_out():
    tokens = torch.randn(2, 5, 7)
    assert torch.equal(pooled(tokens), tokens.mean(1))
    assert torch.equal(pooled(tokens, "cls"), tokens[:, 0])
    maps = torch.randn(2, 7, 3, 4)
    assert torch.equal(pooled(maps), maps.mean((2, 3)))
    output = types.SimpleNamespace(last_hidden_state=tokens, pooler_output=tokens[:, 1])
    assert torch.equal(pooled(output), tokens[:, 1])
    assert torch.equal(pooled(output, "mean"), tokens.mean(1))
    for wrong in ((tokens, tokens), torch.randn(3), types.SimpleNamespace(logits=tokens)):
        with pytest.raises(Declined, match="returns neither"):
            pooled(wrong)
    with pytest.raises(Declined, match="no tokens"):
        pooled(maps, "cls")


def test_width_channels_and_size_are_found_and_adapted():
    assert Adapted(Maps(), COLOUR).width == 6
    grey = Adapted(Maps(), GREY, channels=3)
    image = torch.rand(4, 1, 8, 8)
    assert torch.equal(grey(image), grey(image).clone()) and grey(image).shape == (4, 6)
    with pytest.raises(Declined, match=r"takes images of 1 channels, these have 3"):
        Adapted(Maps(1), COLOUR, channels=1)
    resized = Adapted(nn.Flatten(), GREY, size=(4, 4))
    assert resized.width == 16
    with pytest.raises(Declined, match="does not take images of 1x8x8"):
        Adapted(Maps(), GREY)


def test_the_trial_image_leaves_a_network_as_it_was():
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    Adapted(network, GREY)
    assert network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


# the user's own


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's in the folder the command is called from."""
    (tmp_path / "own_networks.py").write_text(
        "from torch import nn\n\n\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self, in_chans, width=12):\n"
        "        super().__init__(nn.Conv2d(in_chans, width, 3, 2), nn.ReLU())\n\n\n"
        "def needy(vocabulary):\n    return nn.Identity()\n\n\n"
        "def number():\n    return 7\n\n\nTHING = 7\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("own_networks", None)


def test_a_dotted_path_goes_under_an_objective_and_reloads(own, capsys):
    artifact = fit(own, "barlow_twins", "own_networks:Net")
    assert artifact.model.encoder.width == 12
    assert artifact.card["backbone"] == "own_networks:Net"
    assert artifact.card["licence"]["weights"] == "trained here from own_networks:Net, yours"
    assert "weights     own_networks:Net, yours" in capsys.readouterr().err
    assert reloads(artifact)
    assert export(artifact, "torch", out=own / "model.pt2")["check"]["largest_difference"] < 1e-4
    with pytest.raises(Declined, match="source of own_networks:Net is not papertrial's"):
        eject(artifact, own / "out")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_networks:Nett", "no class or function 'Nett'"),
        ("own_networks:THING", "no class or function 'THING'"),
        ("own_networks:needy", "asks for 'vocabulary'"),
        ("own_networks:number", "returns a int"),
        ("own_netwrks:Net", "no paper, baseline or module called 'own_netwrks'"),
        ("mlp_mixr:B/16", "did you mean 'mlp_mixer'"),
        ("clip:B", "reading list but not on the shelf"),
    ],
)
def test_a_path_that_leads_nowhere_is_one_line(own, name, message):
    with pytest.raises(PapertrialError, match=message) as caught:
        fit(own, "barlow_twins", name)
    assert "\n" not in str(caught.value)
    assert not (own / "run").exists()


def test_the_features_can_be_chosen_by_name_only(own):
    with pytest.raises(PapertrialError, match=r"the setting backbone\.features is 'best', but it takes auto or"):
        fit(own, "barlow_twins", "own_networks:Net", settings={"backbone.features": "best"})


# timm


def test_a_network_of_timm_goes_under_an_objective_and_trains_alone(tmp_path, monkeypatch):
    peers.timm()
    artifact = fit(tmp_path / "a", "barlow_twins", "timm:test_resnet")
    assert artifact.card["method"]["name"] == "barlow_twins" and artifact.card["backbone"] == "timm:test_resnet"
    assert "fresh weights" in artifact.card["licence"]["weights"]
    assert reloads(artifact)
    alone = fit(tmp_path / "b", "timm:vit_tiny_patch16_224", size=32)  # built for the size of the data
    assert alone.card["config"]["pretrained"] is False
    assert alone.model.encoder.backbone.network.patch_embed.img_size == (32, 32)
    with pytest.raises(Declined, match=r"does not take images of 1x8x8|cannot be built"):
        fit(tmp_path / "c", "timm:vit_tiny_patch16_224")
    with pytest.raises(PapertrialError, match=r"timm has no model 'resnt18'; did you mean 'resnet18'"):
        fit(tmp_path / "d", "barlow_twins", "timm:resnt18")
    with pytest.raises(PapertrialError, match="write timm:resnet18 or timm:resnet18:pretrained"):
        fit(tmp_path / "e", "barlow_twins", "timm:resnet18:please")


def test_pretrained_weights_show_their_licence_before_they_are_fetched(tmp_path, capsys, monkeypatch):
    peers.timm()
    pytest.importorskip("huggingface_hub")
    unreachable(monkeypatch)
    with pytest.raises(PapertrialError, match=r"hub cannot be reached for timm/resnet18.*no network here") as caught:
        fit(tmp_path, "barlow_twins", "timm:resnet18:pretrained")
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().err == "weights     timm:resnet18:pretrained: apache-2.0\n"


@pytest.mark.parametrize(
    ("package", "error", "message"),
    [
        (
            "timm",
            ModuleNotFoundError("No module named 'torchvision'"),
            "torchvision is not installed; type: pip install",
        ),
        ("timm", RuntimeError("operator torchvision::nms does not exist"), "does not load beside torch"),
        ("transformers", RuntimeError("operator torchvision::nms does not exist"), "type: pip uninstall torchvision"),
        ("transformers", ImportError("no such symbol"), "cannot be imported .no such symbol."),
    ],
)
def test_a_broken_torchvision_is_one_line_with_its_cure(package, error, message, monkeypatch):
    def failing(name):
        raise error

    missing = isinstance(error, ModuleNotFoundError)
    found = {package: True, "torchvision": None if missing else True}
    monkeypatch.setattr(adapt.importlib.util, "find_spec", found.get)
    monkeypatch.setattr(adapt.importlib, "import_module", failing)
    with pytest.raises(PapertrialError, match=message) as caught:
        adapt._imported(package)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("package", ["timm", "transformers"])
def test_a_missing_package_is_one_line(package, monkeypatch):
    monkeypatch.setattr(adapt.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PapertrialError, match=rf"needs the package {package}.*papertrial\[backbones\]"):
        adapt._imported(package)


# Hugging Face


@pytest.fixture(scope="module")
def hugging_face(tmp_path_factory):
    """Folders as `save_pretrained` writes them: a ViT with and without weights, and a convolutional network."""
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("needs the extra backbones")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import AutoModel, ResNetConfig, ViTConfig
    place = tmp_path_factory.mktemp("hub")
    vit = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=8
    )
    vit.save_pretrained(place / "bare")
    torch.manual_seed(0)
    AutoModel.from_config(vit).save_pretrained(place / "vit")
    (place / "vit" / "README.md").write_text("---\ntags: [a]\nlicense: mit\n---\n# license: not this one\n")
    AutoModel.from_config(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])).save_pretrained(
        place / "resnet"
    )
    return place


def test_a_folder_with_weights_starts_from_them(hugging_face, tmp_path, capsys):
    from transformers import AutoModel

    method = registry.method(f"hf:{hugging_face / 'vit'}")
    config, _ = resolve(method.module.Config, GREY, {})
    network = method.module.build(config, GREY)
    stored = AutoModel.from_pretrained(hugging_face / "vit").state_dict()
    assert all(torch.equal(stored[name], tensor) for name, tensor in network.network.state_dict().items())
    assert (network.width, network.channels, network.size) == (16, 3, (16, 16))

    artifact = fit(tmp_path, "barlow_twins", f"hf:{hugging_face / 'vit'}", settings={"backbone.features": "mean"})
    assert artifact.card["licence"]["weights"] == f"trained here from hf:{hugging_face / 'vit'}: mit"
    assert f"hf:{hugging_face / 'vit'}: mit" in capsys.readouterr().err


def test_the_artifact_needs_the_folder_no_more(hugging_face, tmp_path):
    folder = tmp_path / "moved"
    (hugging_face / "bare").rename(folder)
    artifact = fit(tmp_path, "barlow_twins", f"hf:{folder}")
    assert artifact.model.encoder.backbone.channels == 1  # fresh weights take the channels of the data
    folder.rename(hugging_face / "bare")
    assert reloads(artifact)
    assert export(artifact, "torch", out=tmp_path / "model.pt2")["check"]["largest_difference"] < 1e-4


def test_weights_without_a_stated_licence_say_so(hugging_face):
    method = registry.method(f"hf:{hugging_face / 'resnet'}")
    assert "not stated" in method.module.licence(method.module.Config(pretrained=True))


def unreachable(monkeypatch):
    """The hub as it answers on a machine without a connection."""
    import huggingface_hub

    def ask(*arguments, **options):
        raise OSError("no network here")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", ask)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize("name", ["someone/some-model", "no_such_folder", "/no/such/folder"])
def test_what_is_neither_a_folder_nor_on_the_hub_is_one_line(name, hugging_face, tmp_path, monkeypatch):
    unreachable(monkeypatch)
    with pytest.raises(PapertrialError, match=r"cannot be reached|no public model") as caught:
        fit(tmp_path, "barlow_twins", f"hf:{name}")
    assert "\n" not in str(caught.value)


# in a comparison


def test_a_comparison_takes_a_network_from_elsewhere_as_backbone_and_as_entrant(own):
    result = pt.compare(
        ["own_networks:Net"], "digits", recipe="tiny", budget="2steps", seeds=2, folds="none", against="majority",
        baselines="none", worth=False, progress=False, echo=None, out=own / "compared",
    )  # fmt: skip
    assert (own / "compared" / "own_networks-Net" / "seed1" / "card.json").exists()
    assert "own_networks:Net" in "\n".join(result.lines())
