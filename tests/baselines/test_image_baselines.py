"""ResNet and ViT against timm's, in values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import peers
from papertrial.baselines import resnet, untrained, vit
from papertrial.core import registry
from papertrial.core.errors import PapertrialError
from papertrial.core.facts import Facts
from papertrial.data.images import Images
from papertrial.use.choose import resolve_method


def _scatter(model):
    torch.manual_seed(0)
    with torch.no_grad():  # every weight, so that a swapped one shows; near one where a norm scales
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
            else:
                nn.init.normal_(parameter, mean=float("norm" in name and name.endswith("weight")), std=0.2)
    return model


def _compare(ours, theirs, image, translate):
    theirs.load_state_dict({translate(name): value for name, value in ours.state_dict().items()})
    images = [image.clone().requires_grad_() for _ in range(2)]
    outputs = [model.train()(x) for model, x in zip((ours, theirs), images, strict=True)]
    torch.testing.assert_close(*outputs, rtol=1e-9, atol=1e-11)
    weight = torch.randn_like(outputs[0])
    for out in outputs:
        (out * weight).sum().backward()
    torch.testing.assert_close(images[0].grad, images[1].grad, rtol=1e-8, atol=1e-10)
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[translate(name)], rtol=1e-8, atol=1e-9, msg=name)
    with torch.no_grad():  # running statistics as well
        torch.testing.assert_close(ours.eval()(image), theirs.eval()(image), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("block", "depths"), [("basic", (2, 1, 1, 1)), ("bottleneck", (1, 2, 1, 1))])
def test_resnet_equals_timm(block, depths):
    timm_resnet = peers.timm("timm.models.resnet")
    config = resnet.Config(stem="large", block=block, width=64, depths=depths, stem_stride=2)
    ours = _scatter(resnet.ResNet(config, 3)).double()
    kind = timm_resnet.BasicBlock if block == "basic" else timm_resnet.Bottleneck
    theirs = timm_resnet.ResNet(kind, depths, num_classes=0)
    places = [f"layer{stage + 1}.{index}" for stage, depth in enumerate(depths) for index in range(depth)]

    def translate(name):
        part, rest = name.split(".", 1)
        if part == "stem":
            return rest.replace("0.", "conv1.", 1) if rest.startswith("0.") else rest.replace("1.", "bn1.", 1)
        place, kind, rest = rest.split(".", 2)
        index, leaf = rest.split(".", 1)
        inner = {
            "convolutions": f"conv{int(index) + 1}",
            "norms": f"bn{int(index) + 1}",
            "skip": f"downsample.{index}",
        }[kind]
        return f"{places[int(place)]}.{inner}.{leaf}"

    _compare(ours, theirs.double(), 3 * torch.randn(4, 3, 32, 32, dtype=torch.float64) + 1, translate)


@pytest.mark.parametrize(("variant", "millions"), [("18", 11.18), ("50", 23.51)])
def test_published_resnets_have_the_published_size(variant, millions):
    with torch.device("meta"):
        model = resnet.ResNet(resnet.Config(**resnet.variants[variant]), 3)
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)


def test_blocks_start_as_identities():
    torch.manual_seed(0)
    block, x = resnet.Block(6, 6, 1, "basic"), torch.rand(3, 6, 5, 5)
    torch.testing.assert_close(block(x), x)


def test_resnet_features_are_the_mean_token():
    model, image = resnet.ResNet(resnet.Config("small", "basic", 8, (1, 1), 1), 2).eval(), torch.rand(2, 2, 8, 6)
    tokens = model.tokens(image)
    assert tokens.shape == (2, 12, 16)
    torch.testing.assert_close(model(image), tokens.mean(1))


@pytest.mark.parametrize("wrong", [{"stem": "huge"}, {"block": "wide"}], ids=str)
def test_unknown_parts_are_refused(wrong):
    with pytest.raises(
        PapertrialError, match=r"stem is 'huge', but it takes large or small|block is 'wide', but it takes basic or"
    ):
        resnet.Config(**wrong)


def test_vit_equals_timm():
    timm_vit = peers.timm("timm.models.vision_transformer")
    config = vit.Config(patch=4, width=24, depth=2, heads=3, hidden=48)
    ours = _scatter(vit.VisionTransformer(config, 3, 12, 12)).double()
    theirs = timm_vit.VisionTransformer(
        img_size=12,
        patch_size=4,
        embed_dim=24,
        depth=2,
        num_heads=3,
        mlp_ratio=2,
        num_classes=0,
        class_token=False,
        global_pool="avg",
        fc_norm=False,
    ).double()
    with torch.no_grad():
        theirs.pos_embed.copy_(ours.positions)
        theirs.patch_embed.proj.load_state_dict(ours.patches.project.state_dict())
        theirs.norm.load_state_dict(ours.norm.state_dict())
        for layer, block in zip(ours.layers, theirs.blocks, strict=True):
            attention = layer.attention
            inputs = (attention.query, attention.key, attention.value)
            block.attn.qkv.weight.copy_(torch.cat([part.weight for part in inputs]))
            block.attn.qkv.bias.copy_(torch.cat([part.bias for part in inputs]))
            for mine, other in (
                (attention.out, block.attn.proj),
                (layer.norm_attention, block.norm1),
                (layer.norm_mlp, block.norm2),
                (layer.mlp.up, block.mlp.fc1),
                (layer.mlp.down, block.mlp.fc2),
            ):
                other.load_state_dict(mine.state_dict())
    image = torch.randn(4, 3, 12, 12, dtype=torch.float64)
    images = [image.clone().requires_grad_() for _ in range(2)]
    outputs = [model(x) for model, x in zip((ours, theirs), images, strict=True)]
    torch.testing.assert_close(*outputs, rtol=1e-9, atol=1e-11)
    for out in outputs:
        out.pow(3).sum().backward()
    torch.testing.assert_close(images[0].grad, images[1].grad, rtol=1e-8, atol=1e-10)


def test_mimetic_attention_looks_at_what_is_near():
    """At the beginning a token attends most to its own place, less to its neighbours, least to what is far; Xavier to all alike."""
    torch.manual_seed(0)
    maps = {}
    for init in ("xavier", "mimetic"):
        model = vit.VisionTransformer(vit.Config(patch=4, width=64, depth=1, heads=4, hidden=8, init=init), 3, 32, 32)
        layer = model.layers[0]
        tokens = layer.norm_attention(model.positions[None] + 0.1 * torch.randn(1, 64, 64))
        query, key = (
            part(tokens).unflatten(-1, (4, 16)).transpose(1, 2) for part in (layer.attention.query, layer.attention.key)
        )
        maps[init] = (query @ key.mT / 4).softmax(-1).mean((0, 1)).detach()
        product = (layer.attention.out.weight @ layer.attention.value.weight).detach()
        on, off = product.diagonal().mean(), product[~torch.eye(64, dtype=torch.bool)].mean()
        assert (abs(on + 0.4) < 0.1) == (init == "mimetic") and abs(off) < 0.05
    place = torch.stack(torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij"), -1).flatten(0, 1)
    far = torch.cdist(place, place)
    own, beside, away = (maps["mimetic"][chosen].mean() for chosen in (far == 0, far == 1, far > 5))
    assert own > 1.3 * beside and beside > 1.3 * away
    assert maps["xavier"][far == 0].mean() < 1.3 * maps["xavier"][far > 5].mean()
    with pytest.raises(PapertrialError, match="init is 'magic', but it takes xavier or mimetic"):
        vit.VisionTransformer(vit.Config(patch=4, width=8, depth=1, heads=2, hidden=8, init="magic"), 3, 8, 8)


@pytest.mark.parametrize(("name", "init"), [("vit", "mimetic"), ("vit:S/16", "xavier")])
def test_vit_begins_mimetic_but_published_sizes_as_published(name, init):
    images = Images.from_arrays(
        torch.rand(40, 16, 16, 3, generator=torch.Generator().manual_seed(0)).numpy(), [0, 1] * 20
    )
    prepared = registry.task("image_classification").prepare(images)
    assert resolve_method(registry.method(name), prepared).config.init == init


def test_positions_tell_every_patch_apart():
    positions = vit.sincos(5, 7, 16)
    assert positions.shape == (35, 16)
    assert float((torch.cdist(positions, positions) + 9 * torch.eye(35)).min()) > 0.1
    torch.testing.assert_close(positions[:7, :4], positions[:1, :4].expand(7, -1))  # one row, one height
    with pytest.raises(ValueError, match="4 divides"):
        vit.sincos(2, 2, 6)


def test_vit_refuses_a_patch_that_does_not_fit():
    with pytest.raises(PapertrialError, match="do not tile"):
        vit.VisionTransformer(vit.Config(patch=5), 1, 12, 12)


def test_untrained_learns_nothing():
    facts = Facts("images", 10, 10, 1, 8, 8, classes=2, outputs=2)
    backbone = resnet.ResNet(resnet.Config("small", "basic", 4, (1,), 1), 1)
    model = untrained.build(untrained.Config(), facts, backbone)
    loss = model.loss({"image": torch.rand(4, 1, 8, 8)})
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(not parameter.grad.any() for parameter in model.parameters())
    assert all(recipe.budget.steps == 0 for recipe in untrained.recipes.values())
