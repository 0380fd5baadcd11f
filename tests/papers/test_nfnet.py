"""NFNet and AGC against timm's, the properties they must have, and claims that fail when the code is wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import peers
from papertrial.claims import nfnet as claims
from papertrial.core import registry
from papertrial.core.budget import Budget
from papertrial.core.errors import Declined, PapertrialError
from papertrial.core.facts import Facts
from papertrial.core.files import read_json
from papertrial.core.paper import claims_of
from papertrial.core.recipe import Optim, resolve
from papertrial.data import open as open_data
from papertrial.nn.heads import Supervised
from papertrial.nn.mlp import StochasticDepth
from papertrial.papers import nfnet
from papertrial.papers.nfnet import AGC, Config, NFNet, ScaledWSConv, SqueezeExcite, adaptive_clip_, standardise
from papertrial.testing import bench
from papertrial.train.optim import parameter_groups
from papertrial.use.choose import resolve_method
from papertrial.use.fit import fit_prepared

#: F0 in miniature, with what timm does otherwise set to timm's
SMALL = Config(
    widths=(64, 64, 128, 128), depths=(1, 2, 1, 1), group=16, activation="gelu_exact", stochastic_depth=0.0,
    head_dropout=0.0, batch_norm_eps=True,
)  # fmt: skip
RESNET = replace(
    SMALL, stem="pool", bottleneck=0.25, group=0, extra_conv=False, squeeze=0.0, final=0.0, activation="relu",
    same_padding=False,
)  # fmt: skip


def _scrambled(model, seed=0):
    """Every parameter away from where it starts, so that a swapped one shows."""
    torch.manual_seed(seed)
    model = model.double()
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, 1.0 if name.endswith("gain") else 0.0, 0.3)
    return model


def _small(config=SMALL, channels=3):
    return _scrambled(NFNet(config, channels))


# ------------------------------------------------------------------------------------- against timm's networks


def _timm_twin(ours, config):
    """timm's network with our weights, and our name of each of its parameters."""
    timm_nfnet = peers.timm("timm.models.nfnet")
    deep = config.stem == "deep"
    theirs = timm_nfnet.NormFreeNet(
        timm_nfnet.NfCfg(
            depths=config.depths, channels=config.widths, alpha=config.alpha, stem_type="deep_quad" if deep else "7x7_pool",
            stem_chs=config.widths[0] // (2 if deep else 4), group_size=config.group or None,
            attn_layer="se" if config.squeeze else None, attn_kwargs={"rd_ratio": config.squeeze, "rd_divisor": 1},
            bottle_ratio=config.bottleneck, num_features=int(config.widths[-1] * config.final),
            extra_conv=config.extra_conv, gamma_in_act=True, same_padding=config.same_padding, skipinit=True,
            act_layer=config.activation.removesuffix("_exact"),
        ),
        num_classes=0,
    ).double()  # fmt: skip
    names = {}
    layers = ["conv1", "conv2", "conv2b", "conv3"] if config.extra_conv else ["conv1", "conv2", "conv3"]
    places = [(stage, index) for stage, depth in enumerate(config.depths) for index in range(depth)]
    for name, _ in ours.named_parameters():
        part, *rest = name.split(".")
        if part == "stem":
            layer = f"conv{int(rest[0]) // 2 + 1}" if deep else "conv"
            names[name] = ".".join(["stem", layer, *rest[1:]])
        elif part == "final":
            names[name] = ".".join(["final_conv", *rest])
        else:
            stage, index = places[int(rest[0])]
            inner = {"convolutions": lambda r: [layers[int(r[0])], *r[1:]], "project": lambda r: ["downsample.conv", *r],
                     "squeeze": lambda r: ["attn_last", {"down": "fc1", "up": "fc2"}[r[0]], *r[1:]],
                     "skip_gain": lambda r: ["skipinit_gain"]}[rest[1]](rest[2:])  # fmt: skip
            names[name] = ".".join([f"stages.{stage}.{index}", *inner])
    shapes = {name: parameter.shape for name, parameter in theirs.named_parameters()}
    theirs.load_state_dict({names[name]: p.detach().view(shapes[names[name]]) for name, p in ours.named_parameters()})
    return theirs, names


@pytest.mark.parametrize(
    ("config", "height", "width"),
    [(SMALL, 32, 48), (SMALL, 33, 30), (RESNET, 32, 48), (replace(RESNET, activation="silu", squeeze=0.25), 33, 31)],
    ids=["F-series", "F-series odd", "NF-ResNet", "NF-SE-ResNet silu odd"],
)
@pytest.mark.parametrize("scale", [1.0, 100.0, 1e-3], ids=["plain", "wide", "tiny"])
def test_outputs_and_gradients_equal_timm(config, height, width, scale, monkeypatch):
    # timm scales in place what the backward pass of a ReLU needs unscaled, and cannot train such a network
    activation = peers.timm("timm.models.nfnet").GammaAct
    monkeypatch.setattr(activation, "forward", lambda self, x: self.act_fn(x) * self.gamma)
    ours = _small(config)
    theirs, names = _timm_twin(ours, config)
    image = scale * torch.randn(2, 3, height, width, dtype=torch.float64) + 0.3
    images = [image.clone().requires_grad_() for _ in range(2)]
    outputs = [ours(images[0]), theirs(images[1])]
    torch.testing.assert_close(*outputs, rtol=1e-9, atol=1e-12)
    weight = torch.randn_like(outputs[0])
    for out in outputs:
        (out * weight).sum().backward()
    torch.testing.assert_close(images[0].grad, images[1].grad, rtol=1e-8, atol=1e-10)
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    assert set(names.values()) == set(gradients)
    for name, parameter in ours.named_parameters():
        expected = gradients[names[name]].view(parameter.shape)
        torch.testing.assert_close(
            parameter.grad, expected, rtol=1e-8, atol=1e-9 * float(expected.abs().max()), msg=name
        )


@pytest.mark.parametrize("shift", [0.0, 100.0])
@pytest.mark.parametrize("scale", [1.0, 1e3, 1e-4])
def test_standardised_weights_and_gradients_equal_timm(scale, shift):
    std_conv = peers.timm("timm.layers.std_conv")
    torch.manual_seed(0)
    theirs = std_conv.ScaledStdConv2d(6, 8, 3, groups=2, eps=1e-5).double()
    weight = (shift + scale * torch.randn(8, 3, 3, 3, dtype=torch.float64)).requires_grad_()
    gain = torch.randn(8, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        theirs.weight.copy_(weight)
        theirs.gain.copy_(gain.view(-1, 1, 1, 1))
    image, direction = torch.randn(2, 6, 7, 7, dtype=torch.float64), torch.randn(2, 8, 7, 7, dtype=torch.float64)
    ours = nn.functional.conv2d(image, standardise(weight, gain, True), theirs.bias, padding=1, groups=2)
    torch.testing.assert_close(ours, theirs(image), rtol=1e-9, atol=1e-9 if shift else 1e-12)
    found = torch.autograd.grad((ours * direction).sum(), (weight, gain))
    (theirs(image) * direction).sum().backward()
    size = float(theirs.weight.grad.abs().max())
    torch.testing.assert_close(found[0], theirs.weight.grad, rtol=1e-7, atol=1e-8 * size)
    torch.testing.assert_close(found[1], theirs.gain.grad.flatten(), rtol=1e-9, atol=1e-9 if shift else 1e-12)


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e-2, 1e-4])
def test_standardised_weights_equal_the_authors_formula(scale):
    torch.manual_seed(0)
    weight, gain = 0.2 + scale * torch.randn(5, 4, 3, 3, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    expected = []
    for unit, factor in zip(weight, gain, strict=True):
        mean = sum(unit.flatten().tolist()) / 36
        variance = sum((value - mean) ** 2 for value in unit.flatten().tolist()) / 36
        expected.append((unit - mean) * float(factor) / max(variance * 36, 1e-4) ** 0.5)
    torch.testing.assert_close(standardise(weight, gain), torch.stack(expected), rtol=1e-10, atol=1e-12)
    assert torch.autograd.gradcheck(standardise, (weight.requires_grad_(), gain.requires_grad_()))


def test_constant_weights_stay_finite():
    weight = torch.full((2, 3, 3, 3), 7.0, requires_grad=True)
    out = standardise(weight, torch.ones(2))
    out.sum().backward()
    assert not out.any()
    assert torch.isfinite(weight.grad).all()


# --------------------------------------------------------------------------------------------------------- AGC


def _parameters(dtype=torch.float64, seed=0):
    """Weights of every shape with gradients from far below to far above the threshold, some of them zero."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for shape in [(6, 3, 3, 3), (5, 7), (4, 1, 1, 1), (3, 2, 5), (9,), (), (1, 8), (64, 16, 1, 1)]:
        sizes = [10 ** (8 * torch.rand(shape[:1], generator=generator) - 6) for _ in range(2)]
        sizes = [size.view(size.shape + (1,) * (len(shape) - size.ndim)) for size in sizes]
        weight, gradient = ((size * torch.randn(shape, generator=generator)).to(dtype) for size in sizes)
        found.append((weight, gradient))
    found.append((torch.zeros(3, 2, dtype=dtype), torch.ones(3, 2, dtype=dtype)))
    found.append((torch.ones(3, 2, dtype=dtype), torch.zeros(3, 2, dtype=dtype)))
    parameters = [nn.Parameter(weight) for weight, _ in found]
    for parameter, (_, gradient) in zip(parameters, found, strict=True):
        parameter.grad = gradient.clone()
    return parameters


@pytest.mark.parametrize("clip", [0.01, 0.3, 1e-4])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_clipped_gradients_equal_timm(clip, dtype, rtol):
    agc = peers.timm("timm.utils.agc")
    ours, theirs, before = _parameters(dtype), _parameters(dtype), _parameters(dtype)
    adaptive_clip_(ours, clip)
    agc.adaptive_clip_grad(theirs, clip)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=rtol, atol=0)
    changed = [not torch.equal(p.grad, q.grad) for p, q in zip(ours, before, strict=True)]
    assert any(changed)
    assert not all(changed)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_layout_of_a_gradient_does_not_matter(layout):
    parameter = nn.Parameter(torch.randn(8, 4, 3, 3).to(memory_format=layout))
    gradient = torch.randn(8, 4, 3, 3)
    parameter.grad = gradient.to(memory_format=layout)
    adaptive_clip_([parameter])
    sizes = 0.01 * parameter.detach().flatten(1).norm(dim=1) / gradient.flatten(1).norm(dim=1)
    torch.testing.assert_close(parameter.grad, gradient * sizes.view(-1, 1, 1, 1))
    assert parameter.grad.is_contiguous(memory_format=layout)


def test_half_precision_is_measured_in_float32():
    parameter = nn.Parameter(torch.ones(1, 4096, dtype=torch.bfloat16))  # bfloat16 cannot count to 4096 by ones
    parameter.grad = torch.ones_like(parameter)
    adaptive_clip_([parameter], 0.5)
    assert parameter.grad.dtype == torch.bfloat16
    assert parameter.grad.unique().tolist() == [0.5]


def test_broken_gradients_stay_broken():
    parameters = [nn.Parameter(torch.ones(2, 2)) for _ in range(2)]
    parameters[0].grad = torch.tensor([[float("nan"), 1.0], [1.0, 1.0]])
    parameters[1].grad = torch.tensor([[float("inf"), 1.0], [1.0, 1.0]])
    adaptive_clip_(parameters)
    for parameter in parameters:
        assert not torch.isfinite(parameter.grad[0]).all()
        assert torch.isfinite(parameter.grad[1]).all()


def test_nothing_to_clip_is_no_error():
    adaptive_clip_([])
    adaptive_clip_([nn.Parameter(torch.ones(2))])


def test_the_head_is_left_alone_and_nothing_else():
    b = bench("nfnet")
    model = b.model()
    assert isinstance(model, Supervised)
    before = {}
    for name, parameter in model.named_parameters():
        parameter.grad = 100 * torch.randn(parameter.shape)
        before[name] = parameter.grad.clone()
    AGC().before_step(model)
    kept = {name for name, parameter in model.named_parameters() if torch.equal(parameter.grad, before[name])}
    assert kept == {name for name in before if name.startswith("head.")}
    assert len(kept) == 2


def test_the_module_to_skip_can_be_named():
    model = nn.Sequential()
    model.add_module("fc", nn.Linear(3, 2))
    model.add_module("fcc", nn.Linear(2, 2))
    for skip, kept in (("fc", {"fc.weight", "fc.bias"}), ("", set())):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 100.0)
        AGC(skip=skip).before_step(model)
        assert {name for name, p in model.named_parameters() if (p.grad == 100).all()} == kept


# --------------------------------------------------------------------------------------------------- the network


def test_folding_keeps_every_bit_and_leaves_the_model_alone():
    b = bench("nfnet")
    model = _scrambled(b.model()).float().eval()
    held = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folded = nfnet.fold(model)
    image = torch.rand(7, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(folded(image), model(image))
    assert not any(isinstance(layer, ScaledWSConv) for layer in folded.modules())
    assert {name: torch.equal(tensor, held[name]) for name, tensor in model.state_dict().items()} == dict.fromkeys(
        held, True
    )
    assert sum(isinstance(layer, ScaledWSConv) for layer in model.modules()) > 3


@pytest.mark.parametrize("same", [True, False])
def test_folding_keeps_padding_and_groups(same):
    model = _small(replace(SMALL, same_padding=same)).eval()
    image = torch.randn(1, 3, 37, 42, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(model.fold()(image), model(image))


def test_a_trained_model_answers_folded_and_anew_when_its_weights_change(tmp_path, monkeypatch):
    import papertrial as pt

    model = pt.fit("nfnet", data="digits", recipe="tiny", budget="3steps", out=tmp_path / "run", progress=False)
    given = model.encode("digits")
    given.split = rows = given.split.take(range(40))
    monkeypatch.setattr(model, "encode", lambda data: given)

    def plain():
        return model.task.outputs(model.model, model.head, rows)

    assert (model.outputs(None) == plain()).all()
    first = model._answering()
    assert model._answering() is first and first is not model.model
    assert not any(isinstance(layer, ScaledWSConv) for layer in first.modules())
    before = model.outputs(None)
    with torch.no_grad():
        for weight in model.model.parameters():
            weight.mul_(1.1)
    assert (model.outputs(None) == plain()).all() and (model.outputs(None) != before).any()
    assert any(isinstance(layer, ScaledWSConv) for layer in model.model.modules()), "the model itself was folded"


def test_a_fresh_network_passes_its_shortcut_alone():
    torch.manual_seed(0)
    model = NFNet(replace(SMALL, depths=(3,), widths=(32,), stem="full", final=0.0), 3).double()
    image = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(model.blocks(model.stem(image)), model.stem(image))


def test_tokens_are_the_positions_and_features_their_mean():
    model, image = _small(), torch.randn(2, 3, 32, 64, dtype=torch.float64)
    tokens = model.tokens(image)
    assert tokens.shape == (2, 2, 256)
    torch.testing.assert_close(model(image), tokens.mean(1))


def test_blocks_are_divided_by_the_deviation_expected_of_their_input():
    model = _small(replace(SMALL, depths=(1, 3, 2, 1)))
    growth = [0, 1, 1, 2, 3, 1, 2]  # blocks since the last projection, whose own branch counts
    assert [block.beta for block in model.blocks] == pytest.approx([(1 + 0.04 * count) ** -0.5 for count in growth])


def test_stochastic_depth_rises_and_does_not_rescale():
    model = NFNet(replace(SMALL, stochastic_depth=0.25), 3)
    assert [block.depth.rate for block in model.blocks] == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
    torch.manual_seed(0)
    out = StochasticDepth(0.4, rescale=False)(torch.ones(20_000, 1))
    assert out.unique().tolist() == [0.0, 1.0]
    assert float(out.mean()) == pytest.approx(0.6, abs=0.02)


def test_gains_biases_and_skip_gains_are_not_decayed():
    model = Supervised(NFNet(SMALL, 3), 10)
    decayed, exempt = ({id(p) for p in group["params"]} for group in parameter_groups(model, Optim(weight_decay=0.1)))
    for name, parameter in model.named_parameters():
        assert (id(parameter) in exempt) == name.endswith(("gain", "bias")), name
        assert (id(parameter) in decayed) == name.endswith("weight"), name


def test_initialisation_is_that_of_the_authors():
    torch.manual_seed(0)
    model = NFNet(replace(SMALL, widths=(512,), depths=(1,), group=0), 3)
    for layer in model.modules():
        if isinstance(layer, ScaledWSConv):
            assert float(layer.weight.detach().std()) == pytest.approx(layer.weight[0].numel() ** -0.5, rel=0.1)
            assert (layer.gain == 1).all()
            assert not layer.bias.any()
        if isinstance(layer, SqueezeExcite):
            assert float(layer.down.weight.detach().std()) == pytest.approx(0.88 * 512**-0.5, rel=0.05)
    head = NFNet(replace(SMALL, head_dropout=0.4), 3).make_head(1000)
    assert float(head[1].weight.detach().std()) == pytest.approx(0.01, rel=0.02)
    assert not head[1].bias.any()
    assert head[0].p == 0.4


@pytest.mark.parametrize(
    ("height", "width", "stem"),
    [(8, 8, "full"), (24, 24, "full"), (8, 25, "half"), (96, 32, "half"), (97, 32, "deep"), (32, 97, "deep"), (224, 224, "deep"), (0, 0, "deep")],
)  # fmt: skip
def test_the_size_suits_the_images(height, width, stem):
    """Up to 96 pixels a small network of plain blocks; beyond, F0 of table 1."""
    config, _ = resolve(Config, Facts("images", 100, 100, 3, height, width, classes=2, outputs=2), {})
    published = Config()
    small = replace(
        published, stem=stem, widths=(64, 128, 256), depths=(2, 2, 2), group=0, extra_conv=False, final=0.0,
        activation="relu", stochastic_depth=0.0, head_dropout=0.0,
    )  # fmt: skip
    assert config == (published if stem == "deep" else small)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"stem": "wide"}, "stem is 'wide'.*deep or pool"), ({"activation": "tanh"}, "activation is 'tanh'.*gelu"), ({"depths": (1,)}, "as many entries")],
)  # fmt: skip
def test_what_does_not_exist_is_refused_in_a_line(change, words):
    with pytest.raises(PapertrialError, match=words):
        NFNet(replace(SMALL, **change), 3)


# ------------------------------------------------------------------------------- the technique, as a user names it


def test_a_technique_is_named_with_its_settings():
    made = registry.technique("agc:clip=0.02,skip=fc")
    assert made.made == AGC(clip=0.02, skip="fc")
    assert {row.name: row.source for row in made.settings}["agc.clip"] == "you"
    assert {row.name: row.source for row in made.settings}["agc.eps"].startswith("sec. 4")
    assert registry.techniques()["agc"] == "nfnet"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("agd", "no technique called 'agd'; did you mean 'agc'"),
        ("agc:clp=1", "no setting 'clp'; did you mean 'clip'"),
        ("agc:clip=much", "clip is 'much', but it takes a number"),
        ("agc:clip", "cannot read the setting 'clip'"),
        ("agc:clip=0", "clip is 0, but it takes a number above 0"),
        ("agc:eps=nan", "eps is nan, but it takes a number above 0"),
    ],
)
def test_a_technique_that_cannot_be_is_refused_in_a_line(text, words):
    with pytest.raises(PapertrialError, match=words):
        registry.technique(text)


def test_the_users_technique_takes_the_place_of_the_recipes():
    b = bench("nfnet")
    own = resolve_method(b.method, b.prepared, recipe="tiny")
    assert [made.made for made in own.techniques] == [AGC(clip=0.08)]
    assert {row.name: row.source for row in own.settings}["agc.clip"].startswith("recipe tiny")
    users = resolve_method(b.method, b.prepared, recipe="tiny", techniques=["agc:clip=0.5"])
    assert [made.made for made in users.techniques] == [AGC(clip=0.5)]


def test_a_method_without_gradient_steps_takes_no_technique():
    b = bench("majority")
    with pytest.raises(Declined, match="takes no gradient steps"):
        resolve_method(b.method, b.prepared, techniques=["agc"])


def test_a_run_trains_with_its_technique_and_says_so(tmp_path):
    b = bench("mlp_mixer")

    def run(folder, *techniques):
        return fit_prepared(
            b.method, b.task, b.prepared, out=tmp_path / folder, recipe="tiny", budget=Budget(steps=5),
            techniques=techniques, progress=False,
        )  # fmt: skip

    plain, clipped, off = run("plain"), run("clipped", "agc:clip=0.001"), run("off", "agc:clip=inf")
    weights = [outcome.folder.joinpath("model.safetensors").read_bytes() for outcome in (plain, clipped, off)]
    assert weights[0] != weights[1]
    assert weights[0] == weights[2]
    assert read_json(clipped.folder / "config.json")["techniques"] == {
        "agc": {"clip": 0.001, "eps": 0.001, "skip": "head"}
    }
    card = read_json(clipped.folder / "card.json")
    assert card["techniques"] == {"agc": {"clip": 0.001, "eps": 0.001, "skip": "head"}}
    assert any("agc was made for SGD" in note for note in card["notes"])
    assert any(row["name"] == "agc.clip" and row["source"] == "you" for row in card["settings"])
    with pytest.raises(PapertrialError, match="differs in techniques"):
        run("plain", "agc")


def test_under_sgd_there_is_no_warning():
    assert AGC().caution(Optim(optimizer="sgd")) == ""
    assert "498" in AGC().caution(Optim(optimizer="adamw"))


def test_a_comparison_gives_techniques_to_the_methods_asked_for_alone(tmp_path):
    from papertrial.study.compare import compare

    images = open_data("digits")
    result = compare(
        ["nfnet", "majority"], images, budget=Budget(steps=2), seeds=1, folds="none", baselines=["untrained"], recipe="tiny",
        techniques=["agc:clip=0.3"], out=tmp_path, worth=False, progress=False, echo=None,
    )  # fmt: skip
    assert "takes no gradient steps" in result.declined["majority"]
    assert read_json(tmp_path / "nfnet" / "seed0" / "card.json")["techniques"]["agc"]["clip"] == 0.3
    assert read_json(tmp_path / "untrained" / "seed0" / "card.json")["techniques"] == {}
    assert read_json(tmp_path / "comparison.json")["config"]["techniques"] == ["agc:clip=0.3"]


# ------------------------------------------------------------------------------------------------------- claims


@pytest.mark.parametrize("name", [c.name for c in claims_of(claims) if c.kind in ("identity", "property")])
@pytest.mark.parametrize("seed", [0, 1])
def test_exact_claims_hold(name, seed):
    held, measured = getattr(claims, name)("tiny", seed)
    assert held, measured


@pytest.mark.parametrize(
    ("claim", "name", "wrong"),
    [
        ("folded_equals_unfolded", "fold", lambda model: model),
        ("blind_to_scale_and_shift_of_weights", "standardise", lambda w, gain, eps=False: w * gain.view(-1, 1, 1, 1)),
        ("blind_to_scale_and_shift_of_weights", "standardise", lambda w, gain, eps=False: standardise(w, gain) * w[0].numel() ** 0.5),
        ("variance_is_as_assumed_at_any_depth", "GAMMA", dict.fromkeys(nfnet.GAMMA, 1.0)),
        ("clips_exactly_what_is_too_long", "_factors", lambda w, g, clip, eps: clip * w / g),
        ("clips_exactly_what_is_too_long", "_factors", lambda w, g, clip, eps: (clip * w / g).clamp(max=1).mean() + 0 * g),
        ("threshold_has_no_unit", "_factors", lambda w, g, clip, eps: (clip / g).clamp(max=1)),
    ],
)  # fmt: skip
def test_claims_notice_wrong_code(claim, name, wrong, monkeypatch):
    monkeypatch.setattr(nfnet, name, wrong)
    assert not getattr(claims, claim)("tiny", 0)[0]


def test_the_variance_claim_notices_a_beta_that_stays_at_one(monkeypatch):
    forward = nfnet.Block.forward

    def unscaled(self, x):
        self.true_beta, self.beta = self.beta, 1.0
        try:
            return forward(self, x)
        finally:
            self.beta = self.true_beta

    monkeypatch.setattr(nfnet.Block, "forward", unscaled)
    assert not claims.variance_is_as_assumed_at_any_depth("tiny", 0)[0]


def test_what_the_trend_trains_breaks_off_without_the_technique(monkeypatch):
    monkeypatch.setattr(AGC, "before_step", lambda self, model: None)
    assert claims._accuracy(0, 0.8, "agc", 0.01) == 0.0
