"""MLP-Mixer against timm's, the properties it must have, and claims that fail when the model is wrong."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import peers
from papertrial.claims import mlp_mixer as claims
from papertrial.core.errors import Declined, PapertrialError
from papertrial.core.facts import Facts
from papertrial.core.paper import claims_of
from papertrial.core.recipe import resolve
from papertrial.nn import mlp
from papertrial.papers import mlp_mixer
from papertrial.papers.mlp_mixer import Config, MlpMixer

SMALL = Config(patch=4, width=24, depth=3, token_hidden=12, channel_hidden=40, stochastic_depth=0.0)


def _small(channels=3, height=12, width=12, config=SMALL, seed=0):
    torch.manual_seed(seed)
    model = MlpMixer(config, channels, height, width).double()
    for parameter in model.parameters():  # biases and norms too, so that a swapped one shows
        nn.init.normal_(parameter, std=0.3)
    return model


def _as_timm(name):
    for ours, theirs in (
        ("patches.project", "stem.proj"),
        ("norm_tokens", "norm1"),
        ("norm_channels", "norm2"),
        ("mix_tokens", "mlp_tokens"),
        ("mix_channels", "mlp_channels"),
        (".up.", ".fc1."),
        (".down.", ".fc2."),
    ):
        name = name.replace(ours, theirs)
    return name


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e-3], ids=["plain", "wide", "tiny"])
def test_outputs_and_gradients_equal_timm(scale):
    timm_mixer = peers.timm("timm.models.mlp_mixer")
    ours = _small()
    theirs = timm_mixer.MlpMixer(
        num_classes=0,
        img_size=12,
        patch_size=4,
        num_blocks=3,
        embed_dim=24,
        mlp_ratio=(12 / 24, 40 / 24 + 1e-9),
        act_layer=partial(nn.GELU, approximate="tanh"),
    ).double()
    theirs.load_state_dict({_as_timm(name): value for name, value in ours.state_dict().items()})
    image = scale * torch.randn(5, 3, 12, 12, dtype=torch.float64) + 0.3
    weight = torch.randn(5, 24, dtype=torch.float64)
    images = [image.clone().requires_grad_() for _ in range(2)]
    outputs = [model(x) for model, x in zip((ours, theirs), images, strict=True)]
    torch.testing.assert_close(*outputs, rtol=1e-9, atol=1e-12)
    for out in outputs:
        (out * weight).sum().backward()
    torch.testing.assert_close(images[0].grad, images[1].grad, rtol=1e-9, atol=1e-12)
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[_as_timm(name)], rtol=1e-9, atol=1e-10, msg=name)


def test_every_parameter_gets_a_gradient():
    model = _small()
    model(torch.randn(2, 3, 12, 12, dtype=torch.float64)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_features_are_the_mean_token():
    model, image = _small(), torch.randn(2, 3, 12, 12, dtype=torch.float64)
    tokens = model.tokens(image)
    assert tokens.shape == (2, 9, 24)
    torch.testing.assert_close(model(image), tokens.mean(1))


def test_tokens_run_row_by_row():
    model = _small()
    model.blocks = nn.Sequential()
    image = torch.zeros(1, 3, 8 + 4, 12, dtype=torch.float64)
    image[:, :, 4:8, 8:12] = 1.0  # second row, third column
    plain = model.tokens(torch.zeros_like(image))
    changed = (model.tokens(image) - plain).abs().sum(-1)[0]
    assert changed.argmax() == 5
    assert (changed > 1e-9).sum() == 1


@pytest.mark.parametrize(("height", "width"), [(8, 16), (16, 8), (4, 4)])
def test_images_need_not_be_square(height, width):
    model = _small(1, height, width)
    assert model(torch.randn(3, 1, height, width, dtype=torch.float64)).shape == (3, 24)


def test_a_patch_that_does_not_fit_is_refused_with_the_ones_that_do():
    with pytest.raises(PapertrialError, match=r"patches of 5 pixels do not tile images of 12x18.*1, 2, 3, 6"):
        MlpMixer(replace(SMALL, patch=5), 3, 12, 18)


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match=re.escape("built for images of (12, 12)")):
        _small()(torch.zeros(1, 3, 16, 16, dtype=torch.float64))


@pytest.mark.parametrize(
    ("height", "width", "patch"), [(28, 28, 4), (32, 32, 4), (64, 64, 8), (32, 64, 8), (8, 8, 1), (29, 29, 1)]
)
def test_the_patch_suits_the_image(height, width, patch):
    config, settings = resolve(Config, Facts("images", 100, 100, 1, height, width, classes=2, outputs=2), {})
    assert config.patch == patch
    assert {setting.name: setting.source for setting in settings}["width"].startswith("suited to this data")


@pytest.mark.parametrize(
    ("height", "width", "small"), [(28, 28, True), (96, 96, True), (96, 16, True), (64, 128, False), (128, 64, False), (224, 224, False), (0, 0, False)]
)  # fmt: skip
def test_small_images_get_a_small_model(height, width, small):
    config, _ = resolve(Config, Facts("images", 100, 100, 3, height, width, classes=2, outputs=2), {})
    sizes = (config.width, config.depth, config.token_hidden, config.channel_hidden, config.stochastic_depth)
    assert sizes == ((64, 4, 64, 256, 0.0) if small else (768, 12, 384, 3072, 0.1))
    assert mlp_mixer.build(SMALL, Facts("images", 9, 9, 1, 12, 20), None)(torch.rand(2, 1, 12, 20)).shape == (2, 24)


def test_the_papers_recipe_is_its_size_for_imagenet():
    facts = Facts("images", 1_281_167, 1_281_167, 3, 224, 224, classes=1000, outputs=1000)
    config, _ = resolve(Config, facts, {"paper": mlp_mixer.recipes["paper"].config})
    assert config == Config(**mlp_mixer.variants["B/16"], stochastic_depth=0.1)


def test_the_head_starts_at_zero():
    head = _small().make_head(7)
    assert head.weight.shape == (7, 24)
    assert not head.weight.any()
    assert not head.bias.any()


def test_initialisation_is_that_of_flax():
    model = MlpMixer(
        Config(patch=4, width=256, depth=1, token_hidden=64, channel_hidden=512, stochastic_depth=0.0), 3, 16, 16
    )
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            expected = layer.weight[0].numel() ** -0.5
            assert float(layer.weight.detach().std()) == pytest.approx(expected, rel=0.05), name
            assert layer.weight.abs().max() <= 2 * expected / 0.8796 + 1e-6, name
            assert not layer.bias.any(), name


def test_stochastic_depth_keeps_the_mean_and_is_off_in_eval():
    torch.manual_seed(0)
    depth = mlp.StochasticDepth(0.4)
    branch = torch.ones(20_000, 1, 2)
    out = depth(branch)
    assert out.unique().tolist() == pytest.approx([0.0, 1 / 0.6])
    assert float(out.mean()) == pytest.approx(1.0, abs=0.02)
    torch.testing.assert_close(out[..., 0], out[..., 1])
    torch.testing.assert_close(depth.eval()(branch), branch)
    assert mlp.depth_rates(0.3, 4) == pytest.approx([0, 0.1, 0.2, 0.3])
    assert mlp.depth_rates(0.3, 1) == [0.0]


def test_wide_inputs_stay_finite_in_bfloat16():
    model = _small().bfloat16()
    assert torch.isfinite(model(1e4 * torch.randn(2, 3, 12, 12, dtype=torch.bfloat16))).all()


@pytest.mark.parametrize("name", [c.name for c in claims_of(claims) if c.kind in ("identity", "property")])
@pytest.mark.parametrize("seed", [0, 1])
def test_exact_claims_hold(name, seed):
    held, measured = getattr(claims, name)("tiny", seed)
    assert held, measured


def test_claims_notice_a_wrong_model(monkeypatch):
    def only_channels(self, x):
        return x + self.mix_channels(self.norm_channels(x))

    def positions_added(self, x):
        x = x + torch.linspace(0, 1, x.shape[1], dtype=x.dtype)[None, :, None]
        return x + self.mix_tokens(self.norm_tokens(x).transpose(1, 2)).transpose(1, 2)

    monkeypatch.setattr(mlp_mixer.MixerBlock, "forward", only_channels)
    assert not claims.token_mixing_is_channel_mixing_transposed("tiny", 0)[0]
    monkeypatch.setattr(mlp_mixer.MixerBlock, "forward", positions_added)
    assert not claims.order_of_patches_is_a_convention("tiny", 0)[0]


def test_a_transformer_that_is_far_behind_is_no_rival(monkeypatch):
    """The better of two rates by validation counts, whatever it does on the test rows; and the margin is to the rival's."""
    scores = {
        ("vit", 1e-3): (0.9, 0.90),
        ("vit", 3e-3): (0.8, 0.95),
        ("mlp_mixer", 1e-3): (0.5, 0.99),
        ("mlp_mixer", 3e-3): (0.9, 0.88),
    }
    resnet = {"accuracy": 0.98}

    def trial(method, task, on, seed, optim, **rest):
        if method == "resnet":
            return SimpleNamespace(metrics=resnet)
        valid, test = scores[method, optim["lr"]]
        prepared = SimpleNamespace(valid=None)
        return SimpleNamespace(metrics={"accuracy": test}, scores=lambda rows: {"accuracy": valid}, prepared=prepared)

    monkeypatch.setattr(claims, "trial", trial)
    monkeypatch.setattr(claims, "data", lambda name: name)
    held, measured = claims.within_three_points_of_a_transformer("base", 0)
    assert held and measured["margin"] == pytest.approx(0.03 - (0.90 - 0.88))
    scores["mlp_mixer", 3e-3] = (0.9, 0.86)
    assert not claims.within_three_points_of_a_transformer("base", 0)[0]
    resnet["accuracy"] = 1.0 + 1e-9
    with pytest.raises(Declined, match="no rival"):
        claims.within_three_points_of_a_transformer("base", 0)
