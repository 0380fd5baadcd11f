"""Barlow Twins against a plain reading of the equations, on awkward inputs, and on two ranks against one."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from papertrial.baselines import resnet, vit
from papertrial.claims import barlow_twins as claims
from papertrial.core.facts import Facts
from papertrial.core.paper import claims_of
from papertrial.core.recipe import Optim, resolve
from papertrial.nn.ranks import BatchNorm
from papertrial.nn.views import Draw
from papertrial.papers import barlow_twins, mlp_mixer
from papertrial.papers.barlow_twins import BarlowTwins, Config, barlow_loss, standardise, terms
from papertrial.testing import in_ranks

FACTS = Facts("images", 1000, 100, 1, 8, 8, classes=10, outputs=10)


def numpy_loss(za, zb, lam):
    """Value and both gradients of eq. 1, written out by hand in numpy: no autograd, no shared code."""
    rows = len(za)
    moments = [(z.mean(0), np.sqrt(z.var(0) + 1e-5)) for z in (za, zb)]
    a, b = ((z - mean) / spread for z, (mean, spread) in zip((za, zb), moments, strict=True))
    c = np.einsum("ni,nj->ij", a, b) / rows
    identity = np.eye(c.shape[0])
    weight = np.where(identity == 1, 1.0, lam)
    slope = 2 * weight * (c - identity) / rows  # of the loss in each product a_ni b_nj
    into = [np.einsum("ij,nj->ni", slope, b), np.einsum("ij,ni->nj", slope, a)]
    gradients = [
        (g - g.mean(0) - z * (g * z).mean(0)) / spread for g, z, (_, spread) in zip(into, (a, b), moments, strict=True)
    ]
    return (weight * (c - identity) ** 2).sum(), gradients


def embeddings(kind, rows, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    za, zb = torch.randn(2, rows, width, generator=generator, dtype=torch.float64)
    zb = 0.7 * za + 0.3 * zb
    change = {
        "plain": lambda z: z,
        "wide": lambda z: z * 10 ** torch.linspace(-1, 4, width, dtype=torch.float64),
        "shifted": lambda z: z + 1e3,
        "constant": lambda z: torch.where(torch.arange(width) < 2, torch.tensor(3.0, dtype=torch.float64), z),
        "tiny": lambda z: z * 1e-4,
        "collapsed": lambda z: z[:, :1].expand(-1, width).clone(),
    }[kind]
    return change(za), change(zb)


KINDS = ["plain", "wide", "shifted", "constant", "tiny", "collapsed"]
SHAPES = [(12, 40), (40, 12), (16, 16), (2, 3)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_value_and_gradient_equal_the_written_out_equations(kind, shape):
    za, zb = (z.requires_grad_() for z in embeddings(kind, *shape))
    loss = barlow_loss(za, zb, 0.0051)
    loss.backward()
    value, gradients = numpy_loss(za.detach().numpy(), zb.detach().numpy(), 0.0051)
    assert float(loss.detach()) == pytest.approx(value, rel=1e-9)
    for ours, theirs in zip((za.grad.numpy(), zb.grad.numpy()), gradients, strict=True):
        # a difference of large terms near a minimum: relative to the largest, not to each
        np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-9 * max(np.abs(theirs).max(), 1e-9))


@pytest.mark.parametrize("shape", [(5, 7), (7, 5)], ids=str)
def test_gradient_by_finite_differences(shape):
    za, zb = (z.requires_grad_() for z in embeddings("plain", *shape))
    assert torch.autograd.gradcheck(lambda a, b: terms(a, b), (za, zb), rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES[:2], ids=str)
def test_single_precision_stays_close(kind, shape):
    za, zb = embeddings(kind, *shape)
    exact = terms(za, zb)
    single = terms(za.float(), zb.float())
    for wide, narrow in zip(exact, single, strict=True):
        scale = max(float(wide), shape[1])
        assert abs(float(narrow) - float(wide)) < 2e-3 * scale


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_single(dtype):
    za, zb = (z.to(dtype).requires_grad_() for z in embeddings("wide", 12, 40))
    with torch.autocast("cpu", torch.bfloat16):
        loss = barlow_loss(za, zb)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, barlow_loss(za.float(), zb.float()))
    loss.backward()
    assert torch.isfinite(za.grad).all()


def test_standardise_is_batch_norm():
    z, _ = embeddings("wide", 20, 6)
    norm = nn.BatchNorm1d(6, affine=False).double()
    torch.testing.assert_close(standardise(z), norm(z), rtol=1e-11, atol=1e-11)


def test_views_swapped_give_the_same_loss():
    za, zb = embeddings("plain", 12, 40)
    torch.testing.assert_close(barlow_loss(za, zb), barlow_loss(zb, za), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("za", "zb"), [((1, 3), (1, 3)), ((4, 3), (4, 2)), ((4, 3, 1), (4, 3, 1))])
def test_embeddings_without_a_correlation_are_refused(za, zb):
    with pytest.raises(ValueError, match=r"needed|two or more"):
        barlow_loss(torch.randn(za), torch.randn(zb))


@pytest.mark.parametrize("name", [c.name for c in claims_of(claims) if c.kind in ("identity", "property")])
@pytest.mark.parametrize("seed", [0, 1])
def test_exact_claims_hold(name, seed):
    held, measured = getattr(claims, name)("tiny", seed)
    assert held, measured


def test_claims_notice_a_wrong_loss(monkeypatch):
    right = barlow_twins.terms

    def opposite_sign(za, zb):
        invariance, redundancy = right(za, zb)
        return invariance, -redundancy

    def without_diagonal_taken_off(za, zb):
        invariance, redundancy = right(za, zb)
        return invariance, redundancy + za.shape[1]

    for wrong in (opposite_sign, without_diagonal_taken_off):
        monkeypatch.setattr(barlow_twins, "terms", wrong)
        assert not claims.short_form_is_exact("tiny", 0)[0]
        assert not claims.rewards_agreement_without_repetition("tiny", 0)[0]
    monkeypatch.setattr(barlow_twins, "terms", right)
    monkeypatch.setattr(barlow_twins, "standardise", lambda z: z)
    assert not claims.blind_to_scale_and_shift("tiny", 0)[0]


def _backbone(module, channels=1):
    facts = Facts("images", 1000, 100, channels, 8, 8, classes=10, outputs=10)
    config, _ = resolve(module.Config, facts, {"tiny": module.recipes["tiny"].config})
    return module.build(config, facts)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("module", [resnet, vit, mlp_mixer], ids=lambda module: module.PAPER.id)
def test_any_backbone_learns(module, channels):
    torch.manual_seed(0)
    model = BarlowTwins(Config(projector=32, crop=0.4, blur=0.5), _backbone(module, channels))
    image = torch.rand(32, channels, 8, 8)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(12):
        out = model.loss(model.views({"image": image}, Draw(0, 0, 32)))
        optimizer.zero_grad()
        out["loss"].backward()
        optimizer.step()
        losses.append(float(out["loss"].detach()))
    assert losses[-1] < 0.9 * losses[0]
    assert losses[-1] == pytest.approx(32 * float(out["invariance"] + 0.0051 * out["redundancy"]), rel=1e-5)
    assert model.encoder(image).shape == (32, model.encoder.width)


def test_projector_is_the_published_one():
    layers = barlow_twins.projector(2048, 8192, 3)
    kinds = [type(layer).__name__ for layer in layers]
    assert kinds == ["Linear", "BatchNorm", "ReLU", "Linear", "BatchNorm", "ReLU", "Linear"]
    assert [tuple(layer.weight.shape) for layer in layers if isinstance(layer, nn.Linear)] == [
        (8192, 2048),
        (8192, 8192),
        (8192, 8192),
    ]
    assert all(layer.bias is None for layer in layers if isinstance(layer, nn.Linear))


def test_one_view_in_five_of_the_second_is_inverted_and_none_of_the_first():
    """Bright images stay above a half whatever the colours do, unless they are solarised."""
    model = BarlowTwins(Config(projector=8, flips=False), _backbone(resnet, 3))
    image = torch.full((400, 3, 16, 16), 0.9)
    views = model.views({"image": image}, Draw(0, 0, 400))
    dark = {name: float((view.mean((1, 2, 3)) < 0.5).float().mean()) for name, view in views.items()}
    assert dark["view_a"] == 0 and dark["view_b"] == pytest.approx(0.2, abs=0.06)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_views_are_those_of_the_authors_code(channels, monkeypatch):
    asked = []

    def note(name):
        def change(images, draw, *values, **named):
            asked.append((name, *values, *named.items()))
            return images

        monkeypatch.setattr(barlow_twins, name, change)

    for name in ("random_resized_crop", "flip", "colour_jitter", "greyscale", "gaussian_blur", "solarise"):
        note(name)
    model = BarlowTwins(Config(projector=8, blur=2.0, flips=channels == 3), _backbone(resnet, channels))
    model.views({"image": torch.rand(4, channels, 8, 8)}, Draw(0, 0, 4))
    wanted = []
    for blur, invert in ((1.0, 0.0), (0.1, 0.2)):
        wanted.append(("random_resized_crop", ("scale", (0.08, 1.0))))
        wanted += [("flip",)] * (channels == 3)
        wanted.append(
            ("colour_jitter", ("brightness", 0.4), ("contrast", 0.4), ("saturation", 0.2), ("hue", 0.1), ("p", 0.8))
        )
        wanted += [("greyscale", 0.2)] * (channels == 3)
        wanted += [("gaussian_blur", blur, (0.1, 2.0)), ("solarise", invert)]
    assert asked == wanted


@pytest.mark.parametrize(
    ("examples", "channels", "height", "expected"),
    [(199_999, 1, 28, (512, 0.3, 0.875, False)), (200_000, 3, 48, (8192, 0.3, 1.5, True)), (9, 3, 49, (512, 0.08, 49 / 32, True)),
     (9, 3, 224, (512, 0.08, 2.0, True)), (9, 3, 0, (512, 0.08, 2.0, True))],
)  # fmt: skip
def test_settings_follow_the_data(examples, channels, height, expected):
    config, _ = resolve(Config, Facts("images", examples, examples, channels, height, height), {})
    assert (config.projector, config.crop, config.blur, config.flips) == expected


def test_views_differ_and_stay_in_range():
    model = BarlowTwins(Config(projector=8), _backbone(resnet, 3))
    image = torch.rand(64, 3, 8, 8)
    views = model.views({"image": image}, Draw(0, 0, 64))
    for view in views.values():
        assert view.shape == image.shape
        assert float(view.min()) >= 0
        assert float(view.max()) <= 1
    assert (views["view_a"] - views["view_b"]).abs().mean() > 0.01


def test_digits_are_not_mirrored_and_photographs_are():
    for channels, flips in ((1, False), (3, True), (4, False)):
        facts = Facts("images", 1000, 100, channels, 28, 28, classes=10, outputs=10)
        assert resolve(Config, facts, {})[0].flips is flips


def test_biases_have_a_rate_of_their_own_under_lars():
    model = BarlowTwins(Config(projector=8), _backbone(resnet))
    weights, rest = model.parameter_groups(Optim(optimizer="lars", lr=1.6, weight_decay=1e-6))
    assert rest["lr"] == pytest.approx(0.0048 * 2048 / 256)
    assert (weights["lr"], weights["weight_decay"], rest["weight_decay"]) == (1.6, 1e-6, 0.0)
    assert len(weights["params"]) + len(rest["params"]) == len(list(model.parameters()))
    assert model.parameter_groups(Optim(optimizer="adamw", lr=1e-3))[1]["lr"] == 1e-3


# ---------------------------------------------------------------------------------------------------- several ranks


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 4, 3)], ids=["1d", "2d"])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_batch_norm_is_that_of_pytorch_on_one_rank(shape, momentum):
    theirs_kind = nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d
    ours, theirs = BatchNorm(5, momentum=momentum).double(), theirs_kind(5, momentum=momentum).double()
    x = 100 + 3 * torch.randn(shape, dtype=torch.float64)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    for _ in range(2):
        out = [norm(value) for norm, value in zip((ours, theirs), inputs, strict=True)]
    torch.testing.assert_close(*out)
    for value in out:
        value.pow(3).sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    for name, buffer in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], buffer)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        BatchNorm(5)(torch.zeros(1, 5))


def _step(projector, rows, seed=0):
    """Gradients, buffers and loss of one step on `rows` of twelve examples, as DDP would average them."""
    torch.manual_seed(seed)
    model = BarlowTwins(Config(projector=projector), _backbone(resnet)).double()
    with torch.no_grad():  # away from the branches that start at zero
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    views = 3 + torch.randn(2, 12, 1, 8, 8, dtype=torch.float64)
    loss = model.loss({"view_a": views[0, rows], "view_b": views[1, rows]})["loss"]
    loss.backward()
    for parameter in model.parameters():
        if dist.is_initialized():
            dist.all_reduce(parameter.grad)
            parameter.grad /= dist.get_world_size()
    gradients = {f"gradient {name}": parameter.grad for name, parameter in model.named_parameters()}
    return {"loss": loss.detach(), **gradients, **dict(model.named_buffers())}


def _norm_step(rows, shape):
    """Output, input gradient and running statistics of a batch norm on `rows` of twelve examples."""
    torch.manual_seed(1)
    x, weight = 50 + torch.randn(2, 12, *shape, dtype=torch.float64)
    norm, x = BatchNorm(shape[0]).double(), x[rows].requires_grad_()
    out = norm(x)
    (out * weight[rows]).pow(2).sum().backward()
    return {"out": out.detach(), "into": x.grad, "mean": norm.running_mean, "variance": norm.running_var}


SLICES = (slice(0, 5), slice(5, 12))  # unequal shares of the global batch


def _rank(rank, folder):
    for projector in (8, 48):
        torch.save(_step(projector, SLICES[rank]), f"{folder}/{projector}-{rank}.pt")
    for shape in ((5,), (5, 4, 3)):
        torch.save(_norm_step(SLICES[rank], shape), f"{folder}/norm{len(shape)}-{rank}.pt")


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    in_ranks(_rank, str(folder))()
    return lambda name: [torch.load(folder / f"{name}-{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("projector", [8, 48], ids=["rows >= width", "rows < width"])
def test_two_ranks_take_the_step_of_one(two_ranks, projector):
    whole = _step(projector, slice(None))
    for part in two_ranks(str(projector)):
        for name, value in whole.items():
            scale = max(float(value.abs().max()), 1e-3)
            assert float((part[name] - value).abs().max()) < 1e-9 * scale, name


@pytest.mark.parametrize("shape", [(5,), (5, 4, 3)], ids=["1d", "2d"])
def test_batch_norm_on_two_ranks_is_batch_norm_on_all_rows(two_ranks, shape):
    whole = _norm_step(slice(None), shape)
    parts = two_ranks(f"norm{len(shape)}")
    for name in ("out", "into"):
        torch.testing.assert_close(torch.cat([part[name] for part in parts]), whole[name], rtol=1e-9, atol=1e-9)
    for part in parts:
        for name in ("mean", "variance"):
            torch.testing.assert_close(part[name], whole[name], rtol=1e-12, atol=1e-12)


def test_batches_are_compared_after_as_many_steps_each_at_its_better_rate(monkeypatch):
    scores = {(64, 0.35): (0.9, 0.70), (64, 1.0): (0.8, 0.95), (256, 0.35): (0.2, 0.9), (256, 1.0): (0.9, 0.72)}
    steps = []

    def trial(*names, optim, **rest):
        steps.append(rest["steps"])
        valid, test = scores[optim["batch"], optim["lr"]]
        prepared = SimpleNamespace(valid=None)
        return SimpleNamespace(metrics={"accuracy": test}, scores=lambda rows: {"accuracy": valid}, prepared=prepared)

    monkeypatch.setattr(claims, "trial", trial)
    monkeypatch.setattr(claims, "data", lambda name: name)
    held, measured = claims.small_batches_do("base", 0)
    assert held and measured["margin"] == pytest.approx(0.70 - 0.72 + 0.03) and len(set(steps)) == 1
    scores[256, 1.0] = (0.9, 0.74)
    assert not claims.small_batches_do("base", 0)[0]
