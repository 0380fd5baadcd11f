"""DALL-E against independent implementations: its layers as formulas, its masks as loops, its pickles as torch wrote them."""

from __future__ import annotations

import builtins
import math
import os
import pickle
import sys
import types
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from papertrial.claims import dalle as claims
from papertrial.core.budget import Budget
from papertrial.core.errors import DataError, Declined, PapertrialError
from papertrial.core.facts import Facts
from papertrial.core.recipe import Optim, resolve
from papertrial.core.run import Run
from papertrial.core.task import Ragged, Split
from papertrial.nn.batches import to_tensors
from papertrial.nn.decode import GREEDY, Choice
from papertrial.nn.tokenise import Bytes
from papertrial.nn.views import Draw
from papertrial.papers import dalle
from papertrial.papers.dalle import checkpoints, dvae
from papertrial.papers.dalle import prior as transformer
from papertrial.train.stages import train_stages

CAPTIONS = ["a red bicycle", "Two CATS", "", "naïve 🐈"]


def facts(height=8, width=8, channels=1, **more):
    return Facts("images", 40, channels=channels, height=height, width=width, bytes=400, length=12, **more)


def tiny(of=None, recipe="tiny", **settings):
    of = of or facts()
    config, _ = resolve(dalle.Config, of, {"recipe": dalle.recipes[recipe].config, "test": settings})
    torch.manual_seed(0)
    return dalle.build(config, of)


def pictures(count=6, height=8, width=8, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize(
    ("height", "width", "codes", "groups"),
    [(8, 8, 64, 2), (15, 15, 64, 2), (16, 16, 64, 3), (16, 17, 64, 3), (17, 17, 256, 3), (63, 99, 256, 3), (64, 64, 256, 4), (99, 15, 64, 2)],
)  # fmt: skip
def test_codes_and_their_grid_follow_the_size_of_the_pictures(height, width, codes, groups):
    found, _ = resolve(dalle.Config, facts(height, width), {})
    assert (found.codes, found.groups) == (codes, groups)


@pytest.mark.parametrize(
    ("length", "tokeniser", "places"), [(0, "bpe", 256), (1, "bytes", 1), (16, "bytes", 16), (17, "bpe", 9), (511, "bpe", 256), (513, "bpe", 256)]
)  # fmt: skip
def test_places_of_text_follow_its_length(length, tokeniser, places):
    found, _ = resolve(dalle.Config, replace(facts(), length=length), {})
    assert (found.tokeniser, found.text) == (tokeniser, places)


@pytest.mark.parametrize(
    ("examples", "text", "batch", "vocabulary"),
    [(40, 400, 8, 512), (72, 0, 9, 16_384), (999_999, 256 * 513, 512, 513), (1_000_000, 10**9, 512, 16_384)],
)  # fmt: skip
def test_the_published_size_is_for_a_million_pictures(examples, text, batch, vocabulary):
    found, _ = resolve(dalle.Config, replace(facts(16, 16), examples=examples, bytes=text), {})
    sizes = (found.hidden, found.blocks, found.first, found.width, found.depth, found.heads, found.kernel, found.codes)
    assert sizes == ((48, 1, 64, 96, 4, 4, 5, 64) if examples < 1_000_000 else (256, 2, 128, 3968, 64, 62, 11, 8192))
    assert (found.dvae_batch, found.vocabulary) == (batch, vocabulary)


# --- the layers, as formulas ---------------------------------------------------------------------------------------------


def conv(weights, name, x):
    w, b = weights[f"{name}.w"], weights[f"{name}.b"]
    return F.conv2d(x, w, b, padding=(w.shape[2] - 1) // 2)


def block(weights, name, x, layers):
    y = x
    for index in (1, 2, 3, 4):
        y = conv(weights, f"{name}.res_path.conv_{index}", y.clamp(min=0))
    straight = conv(weights, f"{name}.id_path", x) if f"{name}.id_path.w" in weights else x
    return straight + y / layers**2


def by_formula(weights, x, groups, blocks, between):
    """Either net from nothing but its weights and their names."""
    x = conv(weights, "blocks.input", x)
    for group in range(1, groups + 1):
        for place in range(1, blocks + 1):
            x = block(weights, f"blocks.group_{group}.block_{place}", x, groups * blocks)
        x = between(x) if group < groups else x
    return conv(weights, "blocks.output.conv", x.clamp(min=0))


AWKWARD = {
    "usual": lambda x: x,
    "tiny": lambda x: x * 1e-6,
    "huge": lambda x: x * 1e4,
    "shifted": lambda x: x + 50,
    "constant": lambda x: torch.ones_like(x),
}


@pytest.mark.parametrize("kind", AWKWARD)
@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_layers_are_those_of_the_formula_in_value_and_gradient(side, kind):
    torch.manual_seed(1)
    if side == "encoder":
        net = dvae.Encoder(3, 8, 12, groups=3, blocks=2).double()
        x, between = torch.randn(2, 3, 16, 24, dtype=torch.float64), lambda x: F.max_pool2d(x, 2)
    else:
        net = dvae.Decoder(3, 8, 12, groups=3, blocks=2, first=4).double()
        x = torch.randn(2, 12, 4, 6, dtype=torch.float64)
        between = lambda x: x.repeat_interleave(2, 2).repeat_interleave(2, 3)  # noqa: E731
    for name, parameter in net.named_parameters():
        if name.endswith(".b"):
            nn.init.normal_(parameter)
    x = AWKWARD[kind](x).requires_grad_()
    twin = {name: p.detach().clone().requires_grad_() for name, p in net.named_parameters()}
    ours, theirs = net(x), by_formula(twin, x, 3, 2, between)
    assert torch.allclose(ours, theirs, rtol=1e-12, atol=1e-12)
    weight = torch.randn_like(ours)
    gradients = torch.autograd.grad((ours * weight).sum(), [x, *net.parameters()])
    expected = torch.autograd.grad((theirs * weight).sum(), [x, *twin.values()])
    for one, other in zip(gradients, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-10 * float(other.abs().max()))


def test_names_are_the_authors():
    names = list(dvae.Encoder(3, 8, 12).state_dict())
    assert names[:2] == ["blocks.input.w", "blocks.input.b"] and names[-1] == "blocks.output.conv.b"
    assert "blocks.group_1.block_1.res_path.conv_1.w" in names and "blocks.group_2.block_1.id_path.b" in names
    assert "blocks.group_1.block_1.id_path.w" not in names  # the width does not change there


def test_a_width_without_a_quarter_is_refused():
    for net in (dvae.Encoder, dvae.Decoder):
        with pytest.raises(ValueError, match="no quarter"):
            net(3, 10)


# --- the loss ------------------------------------------------------------------------------------------------------------


@given(st.floats(0.01, 0.99), st.floats(-30, 30), st.floats(-4, 4))
def test_logit_laplace_is_the_density_of_a_sigmoid_of_a_laplace_variable(x, mu, log_b):
    at = torch.tensor([x, mu, log_b], dtype=torch.float64)
    laplace = torch.distributions.Laplace(at[1], at[2].exp())
    transformed = torch.distributions.TransformedDistribution(laplace, [torch.distributions.SigmoidTransform()])
    assert float(dvae.logit_laplace(*at)) == pytest.approx(-float(transformed.log_prob(at[0])), rel=1e-9, abs=1e-9)


def test_gradients_of_the_pure_functions():
    torch.manual_seed(0)
    x = torch.rand(3, 4, dtype=torch.float64) * 0.8 + 0.1
    mu, log_b = (torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda mu, log_b: dvae.logit_laplace(x, mu, log_b), (mu, log_b))
    logits = torch.randn(2, 5, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(dvae.kl_to_uniform, (logits,))
    assert torch.autograd.gradcheck(lambda x: dvae.relaxed(x, torch.ones_like(x), 0.3), (logits,))


@given(st.integers(2, 50), st.floats(-100, 100))
def test_the_kl_lies_between_none_and_all(codes, shift):
    uniform = torch.full((1, codes, 1, 1), shift, dtype=torch.float64)
    assert float(dvae.kl_to_uniform(uniform)) == pytest.approx(0, abs=1e-12)
    sure = torch.zeros(1, codes, 1, 1, dtype=torch.float64)
    sure[0, codes // 2] = 1e4
    assert float(dvae.kl_to_uniform(sure)) == pytest.approx(math.log(codes))


def test_pixels_come_back_from_their_margin():
    x = torch.linspace(0, 1, 256, dtype=torch.float64)
    mapped = dvae.map_pixels(x)
    assert float(mapped.min()) == pytest.approx(0.1) and float(mapped.max()) == pytest.approx(0.9)
    assert torch.allclose(dvae.unmap_pixels(mapped), x, atol=1e-12)
    assert dvae.unmap_pixels(torch.tensor([0.0, 1.0])).tolist() == [0, 1]


def test_the_temperature_falls_along_half_a_cosine():
    at = torch.tensor([0.0, 0.25, 0.5, 0.9, 1.0], dtype=torch.float64)
    assert dvae.falling(at, 1 / 16, 0.5).tolist() == pytest.approx([1, (1 + 1 / 16) / 2, *[1 / 16] * 3])


@torch.no_grad()
def test_the_loss_is_its_terms_as_the_paper_scales_them():
    model = dvae.DVAE((16, 16), 3, 8, 12, groups=3, blocks=1, first=4, kl=6.6, kl_share=0.5).double()
    model.after_step(0.25)
    batch = model.views({"image": torch.rand(3, 3, 16, 16, dtype=torch.float64)}, Draw(0, 0, 3))
    found = model.loss(batch)
    x = 0.8 * batch["image"] + 0.1
    logits = model.encoder(x)
    z = F.softmax((logits + batch["gumbel"]) / found["tau"], 1)
    mu, log_b = model.decoder(z).split(3, 1)
    fit = (math.log(2) + log_b + (x * (1 - x)).log() + (x.logit() - mu).abs() / log_b.exp()).sum((1, 2, 3))
    q = logits.softmax(1)
    kl = (q * (q * 12).log()).sum((1, 2, 3))
    assert float(found["loss"]) == pytest.approx(float(((fit + 3.3 * kl) / (3 * 16 * 16)).mean()), rel=1e-5)
    assert float(found["kl"]) == pytest.approx(float(kl.mean()) / 16, rel=1e-9)


def test_the_weight_of_the_kl_is_beta_over_192_at_the_papers_size():
    model = dvae.DVAE((256, 256), 3, 4, 4, groups=4, blocks=1, first=4)
    assert model.kl * math.prod(model.grid) / (3 * 256 * 256) == pytest.approx(6.6 / 192)


@pytest.mark.parametrize("reconstruction", ["laplace", "mse"])
@pytest.mark.parametrize("size", [(8, 8), (9, 13), (30, 17)])
def test_pictures_of_any_size_come_back_in_it(size, reconstruction):
    model = dvae.DVAE(size, 3, 8, 12, groups=3, blocks=1, first=4, reconstruction=reconstruction, normalise=True)
    images = torch.rand(3, 3, *size)
    assert torch.isfinite(model.loss(model.views({"image": images}, Draw(0, 0, 3)))["loss"])
    model.eval()
    codes = model.encode(images)
    assert codes.shape == (3, math.ceil(size[0] / 4), math.ceil(size[1] / 4))
    assert model.decode(codes).shape == images.shape


def test_another_reconstruction_is_refused():
    with pytest.raises(ValueError, match="no reconstruction"):
        dvae.DVAE((8, 8), reconstruction="l1")
    with pytest.raises(PapertrialError, match="laplace or mse"):
        tiny(reconstruction="l1")


def test_normalised_logits_have_one_spread_for_every_code():
    model = dvae.DVAE((8, 8), 1, 8, 12, groups=2, blocks=1, first=4, normalise=True)
    with torch.no_grad():
        model.encoder.blocks.output.conv.b[3] = 100.0  # a code that would take everything
    logits = model.logits(torch.rand(32, 1, 8, 8))
    assert torch.allclose(logits.mean((0, 2, 3)), torch.zeros(12), atol=1e-4)
    assert torch.allclose(logits.std((0, 2, 3)), torch.full((12,), 2.0), atol=0.02)


def test_noise_depends_on_the_row_and_not_on_its_batch():
    model = dvae.DVAE((8, 8), 1, 8, 12, groups=2, blocks=1, first=4)
    images = torch.zeros(6, 1, 8, 8)
    whole = model.views({"image": images}, Draw(3, 7, 6))["gumbel"]
    part = model.views({"image": images[2:5]}, Draw(3, 7, 6, 2, 3))["gumbel"]
    assert torch.equal(whole[2:5], part) and torch.isfinite(whole).all()
    other = model.views({"image": images}, Draw(3, 8, 6))["gumbel"]
    assert not torch.equal(whole, other)
    many = model.views({"image": torch.zeros(400, 1, 8, 8)}, Draw(0, 0, 400))["gumbel"].double()
    assert float(many.mean()) == pytest.approx(0.57721566, abs=0.01)  # Euler's constant
    assert float(many.std()) == pytest.approx(math.pi / 6**0.5, abs=0.01)


def test_use_is_counted_over_an_epoch_and_not_over_a_batch():
    model = dvae.DVAE((8, 8), 1, 8, 12, groups=2, blocks=1, first=4, epoch=4)
    for codes in ([0, 1], [2, 3], [5, 5]):
        model._count(torch.tensor(codes)[:, None, None])
    assert model.counts[1].tolist() == [1] * 4 + [0] * 8 and model.counts[0][5] == 2 and int(model.counted) == 2
    assert {name: round(float(value), 6) for name, value in model.figures().items()} == {
        "codes_used": 4, "codebook_perplexity": 4,
    }  # fmt: skip
    assert float(dvae.perplexity(torch.zeros(5))) == 1
    assert float(dvae.perplexity(torch.tensor([7.0, 0, 0]))) == 1


# --- masks ---------------------------------------------------------------------------------------------------------------


def by_loop(kind, height, width, kernel):
    """The figure, square by square."""
    places = height * width
    sees = torch.zeros(places, places, dtype=torch.bool)
    for query in range(places):
        for key in range(query + 1):
            if kind == "row":
                sees[query, key] = key >= query - width
            elif kind == "column":
                sees[query, key] = key % width == query % width
            elif kind == "dense":
                sees[query, key] = True
            else:  # which of the kernel's squares, laid along the reading order, is the key
                half = kernel // 2
                sees[query, key] = any(
                    query - up * width + aside == key for up in range(half + 1) for aside in range(-half, half + 1)
                )
    return sees


@given(
    st.sampled_from(transformer.PATTERNS),
    st.integers(1, 7),
    st.integers(1, 7),
    st.sampled_from([1, 3, 5, 11]),
    st.integers(1, 4),
)
def test_masks_are_those_of_the_figure(kind, height, width, kernel, text):
    ours = transformer.mask(kind, text, height, width, kernel)
    assert torch.equal(ours[text:, text:], by_loop(kind, height, width, kernel))
    assert ours[text:, :text].all()  # every code sees all of the text
    assert torch.equal(ours[:text, :text], torch.ones(text, text).tril().bool()) and not ours[:text, text:].any()
    assert ours.diagonal().all() and not ours.triu(1).any()


def test_masks_of_the_papers_example():
    """Figure 11 has 6 places of text and a grid of 4 x 4, where a row is itself and the four before."""
    row = transformer.mask("row", 6, 4, 4)
    assert row[6 + 9].nonzero()[:, 0].tolist() == [*range(6), 6 + 5, 6 + 6, 6 + 7, 6 + 8, 6 + 9]
    assert transformer.mask("column", 6, 4, 4)[6 + 9].nonzero()[:, 0].tolist() == [*range(6), 6 + 1, 6 + 5, 6 + 9]
    around = transformer.mask("convolution", 6, 4, 4, 3)[6 + 9].nonzero()[:, 0].tolist()
    assert around == [*range(6), 6 + 4, 6 + 5, 6 + 6, 6 + 8, 6 + 9]


def test_which_layer_has_which_mask():
    found = [transformer.pattern(layer, 64) for layer in range(64)]
    assert found[:6] == ["row", "column", "row", "row", "row", "column"] and found[-1] == "convolution"
    assert found.count("column") == 16 and found.count("convolution") == 1
    with pytest.raises(ValueError, match="no mask"):
        transformer.picture_mask("diagonal", 4, 4)
    with pytest.raises(ValueError, match="no mask"):
        transformer.picture_mask("row", 4, 4, 2)


# --- the Transformer -----------------------------------------------------------------------------------------------------


def prior(depth=3, text=5, grid=(3, 4), codes=9, width=16, **options):
    torch.manual_seed(0)
    return transformer.Prior(Bytes(), text, grid, codes, width, depth, 2, kernel=3, **options).double().eval()


def inputs(model, rows=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 259, (rows, model.text), generator=generator)
    for row in range(rows):
        ids[row, model.text - row :] = model.tokeniser.pad
    return ids, torch.randint(9, (rows, model.places), generator=generator)


def reference(model, ids, codes, kinds):
    """The Transformer from its weights alone: masks by loops, softmax written out."""
    weights = {name: value.detach() for name, value in model.named_parameters()}
    text, (height, width) = model.text, model.grid
    rows = []
    for row, picture in zip(ids.tolist(), codes.tolist(), strict=True):
        x = [weights["start"]]
        for at, token in enumerate(row):
            word = weights["word.weight"][model.tokeniser.size + at if token == model.tokeniser.pad else token]
            x.append(word + weights["word_at.weight"][at])
        for at, code in enumerate(picture):
            where = weights["row.weight"][at // width] + weights["column.weight"][at % width]
            x.append(weights["code.weight"][code] + where)
        rows.append(torch.stack(x))
    x = torch.stack(rows)

    def linear(name, y):
        return y @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name, y):
        y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        return y * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    for layer, kind in enumerate(kinds):
        at = f"stack.blocks.{layer}"
        sees = torch.ones(1 + text + height * width, 1 + text + height * width).tril().bool()
        sees[1 + text :, 1 + text :] = by_loop(kind, height, width, 3)
        sees = sees[: x.shape[1], : x.shape[1]]
        y = norm(f"{at}.norm_attention", x)
        q, k, v = (linear(f"{at}.attention.{name}", y).unflatten(-1, (2, -1)) for name in ("query", "key", "value"))
        logits = torch.einsum("bmhd,bnhd->bhmn", q, k) / q.shape[-1] ** 0.5
        mixed = torch.einsum("bhmn,bnhd->bmhd", logits.masked_fill(~sees, -math.inf).softmax(-1), v).flatten(-2)
        x = x + linear(f"{at}.attention.out", mixed)
        y = linear(f"{at}.mlp.up", norm(f"{at}.norm_mlp", x))
        y = 0.5 * y * (1 + torch.tanh((2 / math.pi) ** 0.5 * (y + 0.044715 * y**3)))
        x = x + linear(f"{at}.mlp.down", y)
    x = norm("stack.norm", x)
    return linear("to_word", x[:, :text]), linear("to_code", x[:, text:])


@pytest.mark.parametrize("sparse", [True, False])
def test_the_transformer_is_the_one_of_the_formula(sparse):
    model = prior(depth=4, sparse=sparse)
    with torch.no_grad():  # far from its start, where everything is small
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    ids, codes = inputs(model)
    kinds = ["row", "column", "row", "convolution"] if sparse else ["dense"] * 4
    for ours, theirs in zip(model.logits(ids, codes[:, :-1]), reference(model, ids, codes[:, :-1], kinds), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_the_loss_weighs_words_and_codes():
    model = prior()
    ids, codes = inputs(model)
    words, pictures = model.logits(ids, codes[:, :-1])
    held = ids != model.tokeniser.pad
    text = -words.log_softmax(-1).gather(-1, ids[..., None])[..., 0][held].mean()
    image = -pictures.log_softmax(-1).gather(-1, codes[..., None]).mean()
    found = model.loss({"ids": ids, "codes": codes})
    assert float(found["loss"]) == pytest.approx(float(text / 8 + 7 * image / 8), rel=1e-6)
    empty = model.loss({"ids": torch.full_like(ids, model.tokeniser.pad), "codes": codes})
    assert float(empty["nats_per_word"]) == 0 and torch.isfinite(empty["loss"])


def test_words_and_codes_have_vocabularies_of_their_own():
    model = prior()
    words, pictures = model.logits(*inputs(model)[:1], inputs(model)[1][:, :-1])
    assert words.shape == (3, 5, 259) and pictures.shape == (3, 12, 9)


def test_nothing_sees_what_comes_after_it():
    model = prior()
    ids, codes = inputs(model)
    before = model.logits(ids, codes[:, :-1])[1]
    for place in range(model.places - 1):
        changed = codes.clone()
        changed[:, place] = (changed[:, place] + 1) % 9
        after = model.logits(ids, changed[:, :-1])[1]
        assert torch.equal(before[:, : place + 1], after[:, : place + 1])
        assert not torch.allclose(before[:, place + 1], after[:, place + 1])


def test_padding_has_a_vector_for_each_place():
    model = prior()
    ids, codes = inputs(model)
    short = ids.clone()
    short[:, 2:] = model.tokeniser.pad
    before = model.logits(short, codes[:, :-1])[1]
    with torch.no_grad():
        model.word.weight[model.tokeniser.size + 4] += torch.randn(16)
    assert not torch.allclose(before, model.logits(short, codes[:, :-1])[1])
    with torch.no_grad():  # the tokeniser's own padding is read nowhere
        before = model.logits(short, codes[:, :-1])[1]
        model.word.weight[model.tokeniser.pad] += torch.randn(16)
    assert torch.equal(before, model.logits(short, codes[:, :-1])[1])


@pytest.mark.parametrize("sparse", [True, False])
def test_with_a_cache_it_writes_what_it_writes_without(sparse):
    model = prior(depth=4, sparse=sparse)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    ids, _ = inputs(model)
    written = model.write(ids, [5, 6, 7], Choice(0.7, top_k=4))
    again = torch.empty(3, 0, dtype=torch.int64)
    chance = [np.random.Generator(np.random.Philox(key=seed)).random(model.places) for seed in (5, 6, 7)]
    for place in range(model.places):
        logits = model.logits(ids, again)[1][:, -1]
        code = Choice(0.7, top_k=4).take(logits, torch.tensor([row[place] for row in chance]))
        again = torch.cat([again, code[:, None]], 1)
    assert torch.equal(written, again)
    steps = []
    greedy = model.write(ids, [1, 2, 3], GREEDY, steps.append)
    assert torch.equal(greedy, model.write(ids, [4, 5, 6], GREEDY)) and steps[-1] == 1 and len(steps) == model.places
    full = model.logits(ids, greedy[:, :-1])[1]
    assert torch.equal(greedy, full.argmax(-1))


# --- the system ----------------------------------------------------------------------------------------------------------


def columns(count=12, height=8, width=8, channels=1, words=("one", "two", "three")):
    labels = np.arange(count) % len(words)
    return Split(
        {
            "image": pictures(count, height, width, channels),
            "label": labels,
            "text": Ragged.of_texts([words[label] for label in labels]),
        }
    )


def test_captions_that_are_cut_are_counted():
    model = tiny(text=6, tokeniser="bytes")
    long, words = model.too_long(Ragged.of_texts(["six by", "seven b", "", "é" * 4]))
    assert long.tolist() == [False, True, False, True] and words == "6 tokens"


def test_a_picture_depends_on_its_seed_and_caption_alone():
    model = tiny().eval()
    drawn = model.draw([3, 4, 5, 3], captions=CAPTIONS)
    assert drawn.shape == (4, 1, 8, 8) and drawn.dtype == torch.uint8
    for row, seed in enumerate([3, 4, 5, 3]):
        assert torch.equal(drawn[row], model.draw([seed], captions=[CAPTIONS[row]])[0])
    assert torch.equal(model.draw([2**70 + 1, 9], captions=["a", "b"]), model.draw([2**70 + 1, 9], captions=["A", "B"]))


def test_classes_are_drawn_by_their_names():
    model = tiny(facts(classes=3)).eval()
    assert model.draws == {"captions"}
    with pytest.raises(PapertrialError, match="no captions of their own"):
        model.draw([0], labels=torch.tensor([1]))
    model.fit_inputs(columns())
    assert model.draws == {"captions", "labels"}
    by_name = model.draw([1, 2, 3], captions=["two", "", "three"])
    assert torch.equal(by_name, model.draw([1, 2, 3], labels=torch.tensor([1, -1, 2])))
    with pytest.raises(ValueError, match="not both"):
        model.draw([0], labels=torch.tensor([0]), captions=["one"])
    several = tiny(facts(classes=3))
    several.fit_inputs(Split({**columns(), "text": Ragged.of_texts([f"picture {row}" for row in range(12)])}))
    assert several.draws == {"captions"}


def test_bpe_is_learnt_and_kept_with_the_weights():
    config = {"tokeniser": "bpe", "vocabulary": 300, "text": 6}
    model, twin = tiny(facts(classes=3), **config).eval(), tiny(facts(classes=3), **config).eval()
    model.fit_inputs(columns())
    twin.load_state_dict(model.state_dict())
    assert twin.draws == model.draws
    assert torch.equal(model.draw([1, 2], captions=["two", "three"]), twin.draw([1, 2], captions=["two", "three"]))


MERGING = {"tokeniser": "bpe", "vocabulary": 300, "text": 12}
WORDS = ("one red one", "two red twos", "three reds", "one one one", "two threes", "a red three")


def test_merges_are_left_out_in_training_alone():
    model, plain = (tiny(facts(channels=3), **MERGING, bpe_dropout=p) for p in (0.5, 0.0))
    for each in (model, plain):
        each.fit_inputs(columns(channels=3, words=WORDS))
    batch = to_tensors(model.stages()[1].rows(columns(channels=3, words=WORDS)), "cpu")
    first, again, next_step = (model.prior.views(batch, Draw(0, step, 12))["ids"] for step in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, next_step) and first.dtype == batch["ids"].dtype
    halves = [{name: value[part] for name, value in batch.items()} for part in (slice(6), slice(6, 12))]
    ranks = [model.prior.views(half, Draw(0, 0, 12, at, 6))["ids"] for half, at in zip(halves, (0, 6), strict=True)]
    assert torch.equal(torch.cat(ranks), first)  # as one process has it
    tokeniser, pad = model.prior.tokeniser, model.prior.tokeniser.pad
    for row, before in zip(first, batch["ids"], strict=True):
        held = int((row != pad).sum())
        assert held >= int((before != pad).sum()) and (row[held:] == pad).all()
        text = tokeniser.decode(before[before != pad])
        assert text.startswith(tokeniser.decode(row[row != pad])) and (
            held == 12 or tokeniser.decode(row[:held]) == text
        )
    assert torch.equal(model._ids(["one red two"]), model._ids(["one red two"]))  # what a drawing reads
    assert torch.equal(model._ids(list(WORDS)), plain._ids(list(WORDS)))
    assert torch.equal(plain.prior.views(batch, Draw(0, 0, 12))["ids"], batch["ids"])


def test_a_run_that_leaves_merges_out_goes_on_bit_for_bit(tmp_path):
    def train(folder, techniques=()):
        model = tiny(facts(classes=3), **MERGING, bpe_dropout=0.3)
        torch.manual_seed(0)
        model.fit_inputs(columns(words=WORDS))
        optim, budget = Optim(lr=1e-2, batch=6), Budget(steps=16)
        train_stages(
            model, columns(words=WORDS), optim, budget, Run(folder), seed=0, progress=False, techniques=techniques
        )
        return model.state_dict()

    whole = train(tmp_path / "whole")
    with pytest.raises(Stopping):
        train(tmp_path / "half", [Stops()])
    resumed = train(tmp_path / "half")
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_where_merges_are_left_out():
    """The paper's recipe has its 0.1; with fewer than a million pictures it is off, and bytes have no merges."""
    of = facts()
    settings = {
        name: resolve(dalle.Config, of, {"recipe": dalle.recipes[name].config})[0].bpe_dropout
        for name in ("paper", "base", "tiny")
    }
    assert settings == {"paper": 0.1, "base": 0.0, "tiny": 0.0}
    assert resolve(dalle.Config, None, {})[0].bpe_dropout == 0.1
    assert tiny(tokeniser="bytes", bpe_dropout=0.5).prior.bpe_dropout == 0.0
    with pytest.raises(PapertrialError, match=r"bpe_dropout is 1\.5"):
        tiny(**MERGING, bpe_dropout=1.5)


def test_the_second_stage_learns_from_the_codes_of_the_first():
    model = tiny(facts(channels=3))
    rows = columns(channels=3)
    first, second = model.stages()
    assert (first.name, second.name) == ("dvae", "prior") and first.share + second.share == 1
    assert set(first.rows(rows)) == {"image"} and first.optim["lr"] == 1e-2
    made = second.rows(rows)
    images = torch.from_numpy(rows["image"]).permute(0, 3, 1, 2)
    assert np.array_equal(made["codes"], model.encode(images).flatten(1).numpy())
    assert made["ids"].shape == (12, model.config.text) and made["ids"].dtype == np.int32
    assert model.prior.tokeniser.decode(made["ids"][2]) == "three"
    assert model.decode(model.encode(images)).shape == images.shape


def stage_batch(model, name, double=False):
    """A few rows of a stage as its model sees them in training."""
    stage = {stage.name: stage for stage in model.stages()}[name]
    rows = stage.rows(columns(words=("one", "two", "three", "four")))
    batch = to_tensors(rows, "cpu")
    batch = stage.model.views(batch, Draw(0, 0, 12)) if hasattr(stage.model, "views") else batch
    doubled = {key: value.double() if double and value.is_floating_point() else value for key, value in batch.items()}
    return (stage.model.double() if double else stage.model).train(), doubled


STAGES = pytest.mark.parametrize("name", ["dvae", "prior"])
LOSSES = pytest.mark.parametrize("reconstruction", ["laplace", "mse"])


@STAGES
@LOSSES
def test_gradients_are_the_slopes_of_the_loss(name, reconstruction):
    net, batch = stage_batch(tiny(reconstruction=reconstruction, kl=1.0), name, double=True)
    if name == "dvae":
        net.after_step(0.5)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    parameters = dict(net.named_parameters())
    net.loss(batch)["loss"].backward()
    assert not [key for key, p in parameters.items() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not [key for key, p in parameters.items() if not p.grad.any()]
    direction = {key: torch.randn_like(p) for key, p in parameters.items()}
    sides = []
    for step in (1e-6, -2e-6):
        with torch.no_grad():
            for key, p in parameters.items():
                p.add_(direction[key], alpha=step)
            sides.append(float(net.loss(batch)["loss"]))
    slope = sum(float((direction[key] * p.grad).sum()) for key, p in parameters.items())
    assert (sides[0] - sides[1]) / 2e-6 == pytest.approx(slope, rel=1e-5, abs=1e-6)


@STAGES
def test_the_loss_in_bfloat16_and_compiled(name):
    net, batch = stage_batch(tiny(), name)
    exact = net.loss(batch)["loss"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = net.loss(batch)["loss"]
    assert float(rounded.detach()) == pytest.approx(float(exact.detach()), rel=0.08)
    traced = torch.compile(lambda rows: net.loss(rows)["loss"], backend="eager")(batch)
    assert float(traced.detach()) == pytest.approx(float(exact.detach()), rel=1e-5)


class Stopping(Exception):
    pass


class Stops:
    """A technique that ends the training of the second stage in its middle."""

    def __init__(self):
        self.left = 4

    def after_step(self, model):
        self.left -= isinstance(model, transformer.Prior)
        if self.left == 0:
            raise Stopping


def test_a_run_that_was_stopped_goes_on_in_its_stage_bit_for_bit(tmp_path):
    def train(folder, techniques=(), seed=0):
        model = tiny(facts(classes=3))
        torch.manual_seed(seed)
        model.fit_inputs(columns())
        optim = Optim(lr=1e-2, batch=6)
        budget, run = Budget(steps=16), Run(folder)
        train_stages(model, columns(), optim, budget, run, seed=0, progress=False, techniques=techniques)
        return model

    whole = train(tmp_path / "whole")
    with pytest.raises(Stopping):
        train(tmp_path / "half", [Stops()])
    resumed = train(tmp_path / "half")
    for (key, ours), theirs in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), key
    assert 1 <= whole.figures()["codes_used"] <= 16 and whole.figures()["codebook_perplexity"] >= 1
    assert torch.equal(whole.draw([1, 2], captions=["one", "two"]), resumed.draw([1, 2], captions=["one", "two"]))


def test_pictures_are_ranked_by_any_scorer():
    model = tiny().eval()

    def brightest(drawn, captions):
        assert captions == ["a"] * len(drawn) and len(drawn) <= 64
        return drawn.float().mean((1, 2, 3))

    best, scores = dalle.ranked(model, "a", brightest, candidates=70, seed=5)
    assert best.shape == (70, 1, 8, 8) and (scores.diff() <= 0).all()
    assert torch.allclose(best.float().mean((1, 2, 3)), scores)
    drawn = model.draw(range(5, 75), captions=["a"] * 70)
    assert torch.equal(best[0], drawn[drawn.float().mean((1, 2, 3)).argmax()])


@pytest.mark.parametrize("side", [8, 16, 28, 32, 64, 100, 256])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("recipe", ["tiny", "base", "paper"])
def test_the_rules_fit_any_size(side, channels, recipe):
    with torch.device("meta"):
        model = tiny(facts(side, side + 3, channels, classes=4), recipe)
    assert max(model.dvae.grid) <= 33 and (recipe == "paper" or min(model.dvae.grid) >= 4)
    assert recipe == "paper" or sum(parameter.numel() for parameter in model.parameters()) < 3e6


def test_what_does_not_fit_is_declined():
    with pytest.raises(Declined, match="7 x 9"):
        tiny(facts(7, 9))
    with pytest.raises(PapertrialError, match="tokeniser is 'wordpiece', but it takes bpe or bytes"):
        tiny(tokeniser="wordpiece")


@pytest.mark.slow
def test_the_use_of_the_codebook_is_followed_and_drawn(monkeypatch):
    monkeypatch.delenv("PAPERTRIAL_DATA", raising=False)  # the digits of scikit-learn stand in
    claims.trials.digits.cache_clear()
    _, measured = claims.remedies_keep_the_codebook_in_use("tiny", 0)
    claims.trials.digits.cache_clear()
    assert all(1 <= value <= 16 for key, value in measured.items() if "_at_" in key)
    figure = claims.remedies_keep_the_codebook_in_use.plot([measured])
    assert [curve.x for curve in figure.curves] == [(20.0, 40.0)] * 4


# --- the authors' files --------------------------------------------------------------------------------------------------


@pytest.fixture
def authors(monkeypatch):
    """A package with the authors' names, whose modules torch pickles as it pickled theirs."""
    package = types.ModuleType("dall_e")
    package.encoder = types.ModuleType("dall_e.encoder")
    source = (
        "import torch\n"
        "class Module(torch.nn.Module):\n"
        "    def __init__(self, inner):\n"
        "        super().__init__()\n"
        "        self.blocks, self.device = inner.blocks, torch.device('cpu')\n"
    )
    package.encoder.__dict__["__name__"] = "dall_e.encoder"
    exec(source, package.encoder.__dict__)  # so that its classes belong to that module
    monkeypatch.setitem(sys.modules, "dall_e", package)
    monkeypatch.setitem(sys.modules, "dall_e.encoder", package.encoder)
    return package.encoder


def renamed(net):
    """The same net with classes of torch and of `dall_e` only, as the authors' file has."""
    for name, child in list(net.named_children()):
        setattr(net, name, renamed(child))
    if type(net).__module__.startswith("papertrial"):
        made = sys.modules["dall_e.encoder"].Module.__new__(sys.modules["dall_e.encoder"].Module)
        made.__dict__ = net.__dict__
        return made
    return net


def saved(net, path, monkeypatch):
    torch.save(renamed(net), path)
    for name in ("dall_e", "dall_e.encoder"):  # nothing of the file can be imported any more
        monkeypatch.delitem(sys.modules, name)
    return path


@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_pickled_modules_are_read_by_name(authors, tmp_path, monkeypatch, side):
    torch.manual_seed(0)
    made = {"encoder": (dvae.Encoder, {}), "decoder": (dvae.Decoder, {"first": 4})}[side]
    net = made[0](1, 8, 12, groups=3, blocks=2, **made[1])
    before = {name: value.clone() for name, value in net.state_dict().items()}
    path = saved(net, tmp_path / f"{side}.pkl", monkeypatch)
    loaded = (checkpoints.load_encoder if side == "encoder" else checkpoints.load_decoder)(path)
    assert not loaded.training and list(loaded.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in loaded.state_dict().items())
    assert "dall_e" not in sys.modules
    with pytest.raises(DataError, match=r"no (en|de)coder of DALL-E"):
        (checkpoints.load_decoder if side == "encoder" else checkpoints.load_encoder)(path)


class Calls:
    """A pickle of it calls a function when it is loaded."""

    def __init__(self, function, *arguments):
        self.called = (function, arguments)

    def __reduce__(self):
        return self.called


def archive(path, program, storage=b"", compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as made:
        made.writestr("archive/data.pkl", program)
        made.writestr("archive/data/0", storage)
    return path


HOSTILE = {
    "os.system": lambda mark: Calls(os.system, f"touch {mark}"),
    "eval": lambda mark: Calls(eval, f"open({str(mark)!r}, 'w')"),
    "exec": lambda mark: Calls(exec, f"open({str(mark)!r}, 'w')"),
    "getattr": lambda mark: Calls(getattr, "a", "upper"),
    "import": lambda mark: Calls(builtins.__import__, "os"),
    "open": lambda mark: Calls(open, str(mark), "w"),
    "nested": lambda mark: {"_modules": {"a": Calls(Calls, os.system, f"touch {mark}")}},
    "torch.load": lambda mark: Calls(torch.load, str(mark)),
    "a method": lambda mark: Calls(nn.Module.register_buffer, nn.Identity(), "a", None),
    "partial": lambda mark: Calls(types.SimpleNamespace, 1),
}


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_pickles_are_refused_and_not_run(tmp_path, kind, protocol):
    mark = tmp_path / "mark"
    program = pickle.dumps(HOSTILE[kind](mark), protocol=protocol)
    with pytest.raises(DataError):
        checkpoints.read_pickled(archive(tmp_path / "hostile.pkl", program))
    assert not mark.exists()


BY_HAND = {
    "system": b"cos\nsystem\n(S'touch {mark}'\ntR.",
    "posix": b"cposix\nsystem\n(S'touch {mark}'\ntR.",
    "instance": b"(S'touch {mark}'\nios\nsystem\n.",
    "object": b"(cos\nsystem\nS'touch {mark}'\no.",
    "dotted": b"\x80\x04\x8c\x0atorch.nn.modules.module\x8c\x09os.system\x93.",
    "the reader itself": b"cpapertrial.papers.dalle.checkpoints\nRecord\n.",
    "a memo without end": b"\x80\x02}r\xff\xff\xff\x7f.",
    "a string without end": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\x00\x00.",
    "a storage of nothing": b"\x80\x02(X\x07\x00\x00\x00storagec__builtin__\nset\nX\x01\x00\x00\x000tQ.",
    "a tensor of nothing": b"ctorch._utils\n_rebuild_tensor_v2\n(I1\nI0\n(I1\nt(I1\ntI00\nNtR.",
    "an extension": b"\x80\x02\x82\x01.",
    "nothing": b"",
    "an end": b".",
    "a number": b"I5\n.",
    "noise": bytes(range(256)),
}


@pytest.mark.parametrize("kind", BY_HAND)
def test_programs_written_by_hand_are_refused(tmp_path, kind):
    mark = tmp_path / "mark"
    program = BY_HAND[kind].replace(b"{mark}", str(mark).encode())
    with pytest.raises(DataError):
        checkpoints.read_pickled(archive(tmp_path / "hand.pkl", program))
    assert not mark.exists()


def test_archives_that_are_none_are_refused(authors, tmp_path, monkeypatch):
    (tmp_path / "text.pkl").write_text("not an archive")
    with pytest.raises(DataError, match="not an archive"):
        checkpoints.read_pickled(tmp_path / "text.pkl")
    with pytest.raises(DataError, match="no such file"):
        checkpoints.read_pickled(tmp_path / "none.pkl")
    with zipfile.ZipFile(tmp_path / "other.pkl", "w") as other:
        other.writestr("a.txt", "b")
    with pytest.raises(DataError, match="not an archive"):
        checkpoints.read_pickled(tmp_path / "other.pkl")
    with pytest.raises(DataError, match="compressed"):
        checkpoints.read_pickled(archive(tmp_path / "bomb.pkl", b"0" * 10**6, compression=zipfile.ZIP_DEFLATED))
    path = saved(dvae.Encoder(1, 8, 12, groups=2, blocks=1), tmp_path / "whole.pkl", monkeypatch)
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(tmp_path / "short.pkl", "w") as short:
        for entry in whole.namelist():
            held = whole.read(entry)
            short.writestr(entry, held[:-4] if "/data/" in entry else held)
    with pytest.raises(DataError, match="numbers"):
        checkpoints.read_pickled(tmp_path / "short.pkl")


def test_tensors_that_reach_beyond_their_numbers_are_refused():
    numbers = checkpoints.Numbers("FloatStorage", "0", 4)
    for offset, shape, stride in ((1, (4,), (1,)), (0, (2, 3), (3, 1)), (0, (10**12,), (0,))):
        with pytest.raises(DataError, match="beyond"):
            checkpoints._tensor(checkpoints.Strided(numbers, offset, shape, stride), torch.zeros(4))
    held = checkpoints._tensor(checkpoints.Strided(numbers, 0, (2, 2), (1, 2)), torch.arange(4.0))
    assert held.tolist() == [[0, 2], [1, 3]]
