"""The pixel Transformer against one written out, in values and gradients; its palette; drawing; the floors beside it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from papertrial.baselines import nearest_caption, random_picture
from papertrial.baselines.pixel_transformer import Config, PixelTransformer, palette
from papertrial.core.budget import Budget
from papertrial.core.facts import Facts
from papertrial.core.task import Ragged, Split
from papertrial.nn.views import Draw

COLOUR = Facts("images", 40, channels=3, height=3, width=4, length=6, captions=True)
GREY = Facts("images", 40, 40, channels=1, height=4, width=4, classes=3, outputs=3)


def made(facts=COLOUR, seed=0, **changes):
    """A small one with scattered weights, so that a swapped one shows."""
    given = {"width": 16, "depth": 2, "heads": 2, "hidden": 24, "colours": 5, "text": 6 * facts.captions}
    torch.manual_seed(seed)
    model = PixelTransformer(Config(**{**given, **changes}), facts).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
    if facts.channels == 3:
        model.palette.copy_(255 * torch.rand_like(model.palette))
    return model


def batch(facts, rows=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (rows, facts.channels, facts.height, facts.width), generator=generator) / 255
    text = torch.randint(1, 256, (rows, 4), generator=generator)
    text[0, 2:] = 0
    label = torch.arange(rows) % max(1, facts.classes) if facts.classes else torch.full((rows,), -1)
    label[-1] = -1
    return {"image": image, "label": label, **({"text": text} if facts.captions else {})}


def written_out(model, weights, image, text, label):
    """Nats of each pixel by loops and plain sums; weights: name -> tensor."""
    config, (height, width) = model.config, model.size
    colours = weights["palette"]
    pixels = [
        [((255 * image[row, :, y, x] - colours) ** 2).sum(-1).argmin() for y in range(height) for x in range(width)]
        for row in range(len(image))
    ]
    pixels = torch.tensor(pixels)
    lead = torch.zeros(len(image), config.text, dtype=torch.int64)
    if text is not None:
        lead[:, : text.shape[1]] = text[:, : config.text]
    kind = label if model.classes else torch.full((len(image),), -1)
    ids = torch.cat([lead, 257 + kind[:, None], 257 + model.classes + pixels[:, :-1]], 1)
    x = weights["decoder.embed.table.weight"][ids]
    for place in range(ids.shape[1]):
        pixel = place - config.text - 1
        if pixel < 0:
            x[:, place] = x[:, place] + weights["decoder.stack.position.before.weight"][place]
        else:
            x[:, place] = x[:, place] + weights["decoder.stack.position.rows.weight"][pixel // width]
            x[:, place] = x[:, place] + weights["decoder.stack.position.columns.weight"][pixel % width]

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])

    seen = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril()
    for layer in range(config.depth):
        names = {name.split(f"blocks.{layer}.")[1] for name in weights if f"blocks.{layer}." in name}
        norms = sorted({name.rpartition(".")[0] for name in names if "norm" in name})
        at = f"decoder.stack.blocks.{layer}"
        h = norm(x, f"{at}.{norms[0]}")
        q, k, v = (
            (h @ weights[f"{at}.attention.{part}.weight"].T).unflatten(-1, (config.heads, -1)).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        logits = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).masked_fill(~seen, -torch.inf)
        mixed = (logits.softmax(-1) @ v).transpose(1, 2).flatten(-2)
        x = x + mixed @ weights[f"{at}.attention.out.weight"].T
        h = norm(x, f"{at}.{norms[1]}") @ weights[f"{at}.mlp.up.weight"].T
        h = 0.5 * h * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (h + 0.044715 * h**3)))
        x = x + h @ weights[f"{at}.mlp.down.weight"].T
    x = norm(x, "decoder.stack.norm")[:, config.text :]
    logits = x @ weights["decoder.head.weight"].T + weights["decoder.head.bias"]
    return -logits.log_softmax(-1).gather(-1, pixels[..., None])[..., 0]


@pytest.mark.parametrize("facts", [COLOUR, GREY], ids=["captions", "classes"])
def test_equals_one_written_out(facts):
    model, rows = made(facts).double(), batch(facts)
    image, text, label = rows["image"].double(), rows.get("text"), rows["label"]
    ours = model.nats(image, text, label)
    weights = {name: value.clone() for name, value in model.state_dict().items() if torch.is_tensor(value)}
    learnt = {name: weights[name].requires_grad_() for name, _ in model.named_parameters()}
    theirs = written_out(model, weights, image, text, label)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    weigh = torch.randn_like(ours)
    (ours * weigh).sum().backward()
    (theirs * weigh).sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, learnt[name].grad, rtol=1e-8, atol=1e-11, msg=name)


def test_a_pixel_sees_what_is_before_it_and_what_is_asked_for():
    model, rows = made().double(), batch(COLOUR)
    image, text = rows["image"].double(), rows["text"]
    before = model.nats(image, text)
    other = image.clone()
    other[:, :, 1, 2] = 1 - other[:, :, 1, 2].round()  # pixel 6 of 12
    changed = (model.nats(other, text) != before).any(0)
    assert not changed[:6].any()
    assert changed[7:].all()
    assert (model.nats(image, text + 1) != before).all()
    torch.testing.assert_close(model.nats(image, F.pad(text, (0, 9))), before)  # padding is no caption


# ------------------------------------------------------------------------------------------------------------- drawing


@pytest.mark.parametrize("facts", [COLOUR, GREY], ids=["captions", "classes"])
def test_what_is_drawn_is_what_the_model_says_without_a_cache(facts):
    model = made(facts).double()
    seeds = [5, 3, 2**40]
    asked = {"captions": ["a", "", "more than six bytes"]} if facts.captions else {"labels": torch.tensor([2, -1, 0])}
    with torch.no_grad():
        pictures = model.draw(seeds, **asked)
    assert pictures.dtype == torch.uint8
    assert pictures.shape == (3, facts.channels, facts.height, facts.width)
    count = facts.height * facts.width
    colours = model.palette.round()
    text = torch.from_numpy(Ragged.of_texts(asked.get("captions", [""] * 3)).padded().astype(np.int64))
    for row, seed in enumerate(seeds):
        chance = torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        written = pictures[row].flatten(1).T.double()
        tokens = (written[:, None] - colours).abs().sum(-1).argmin(-1)
        assert (colours[tokens] == written).all()
        lead = model._asked(1, text[row : row + 1], asked.get("labels", torch.tensor([-1] * 3))[row : row + 1])
        ids = torch.cat([lead, model.first + tokens[None, :-1]], 1)
        with torch.no_grad():
            said = model.decoder.logits(ids)[0, model.config.text :].softmax(-1).cumsum(-1)
        assert torch.equal(torch.searchsorted(said, chance[:, None])[:, 0].clamp_max(4), tokens)


def test_a_picture_depends_on_its_seed_and_what_is_asked_for_alone():
    model = made(GREY)
    with torch.no_grad():
        together = model.draw([1, 2, 3], labels=torch.tensor([0, 1, 2]))
        alone = model.draw([2], labels=torch.tensor([1]))
        zero, any_class = (model.draw(range(10), labels=torch.full((10,), label)) for label in (0, -1))
    torch.testing.assert_close(together[1:2], alone)
    assert not torch.equal(zero, any_class)
    assert model.draws == {"labels"}
    assert made().draws == {"captions"}
    assert made(Facts("images", 40, channels=1, height=4, width=4)).draws == frozenset()


def test_progress_is_told_line_by_line():
    heard = []
    with torch.no_grad():
        made(GREY).draw([0], progress=heard.append)
    assert heard == [0.25, 0.5, 0.75, 1.0]


def test_some_pictures_are_learned_without_what_is_asked_for():
    rows = batch(COLOUR, 200)
    seen = made(dropped=0.25).views(rows, Draw(0, 0, 200))
    gone = (seen["text"] == 0).all(1)
    assert 30 < int(gone.sum()) < 70
    assert torch.equal(seen["text"][~gone], rows["text"][~gone])
    labels = made(GREY, dropped=1.0).views(batch(GREY, 20), Draw(0, 0, 20))["label"]
    assert (labels == -1).all()


def test_it_learns_what_a_caption_says():
    """Two captions, dark and bright; noise on top."""
    facts = Facts("images", 64, channels=1, height=4, width=4, length=6, captions=True)
    torch.manual_seed(0)
    model = PixelTransformer(Config(width=16, depth=1, heads=1, hidden=32, colours=4, text=6), facts)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    words = ["dark", "bright"]
    text = torch.from_numpy(Ragged.of_texts(words * 16).padded().astype(np.int64))
    generator = torch.Generator().manual_seed(0)
    for _ in range(120):
        image = torch.rand(32, 1, 4, 4, generator=generator) * 0.4 + torch.tensor([0.0, 0.6] * 16)[:, None, None, None]
        optimizer.zero_grad()
        model.loss({"image": image, "text": text, "label": torch.full((32,), -1)}).backward()
        optimizer.step()
    with torch.no_grad():
        drawn = model.eval().draw(range(20), captions=words * 10).float().mean((1, 2, 3))
    assert drawn[::2].max() < drawn[1::2].min()


# ------------------------------------------------------------------------------------------------------------- palette


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 3))
def test_few_colours_are_kept_as_they_are(pixels, colours, seed):
    held = np.random.default_rng(seed).integers(0, 256, (pixels, 3)).astype(np.uint8)
    found = palette(held, colours)
    assert found.shape == (colours, 3)
    assert np.isfinite(found).all()
    if len(np.unique(held, axis=0)) <= colours:
        assert {tuple(row) for row in found.tolist()} == {tuple(row) for row in held.tolist()}


def test_the_palette_is_about_as_good_as_scikit_learns():
    from sklearn.cluster import KMeans

    rng = np.random.default_rng(0)
    middles = rng.integers(20, 235, (12, 3))
    pixels = np.clip(middles[rng.integers(0, 12, 3000)] + rng.normal(0, 12, (3000, 3)), 0, 255).astype(np.uint8)

    def error(centres):
        return np.square(pixels[:, None] - centres[None].astype(np.float64)).sum(-1).min(1).mean()

    theirs = KMeans(16, n_init=3, random_state=0).fit(pixels).cluster_centers_
    assert error(palette(pixels, 16)) < 1.5 * error(theirs)


def test_colours_are_learned_and_grey_has_even_levels():
    rng = np.random.default_rng(0)
    image = rng.choice(np.array([[255, 255, 255], [10, 20, 30], [200, 0, 0]], np.uint8), (9, 3, 4))
    model = PixelTransformer(Config(width=16, heads=2, depth=1, colours=4, text=6), COLOUR)
    model.fit_inputs({"image": image})
    assert {tuple(row) for row in model.palette.tolist()} == {(255, 255, 255), (10, 20, 30), (200, 0, 0)}
    tokens = model.quantised(torch.from_numpy(image).permute(0, 3, 1, 2) / 255)
    assert np.array_equal(model.palette[tokens].numpy().reshape(image.shape), image)
    grey = made(GREY, colours=6)
    grey.fit_inputs({"image": image[..., :1]})
    assert grey.palette[:, 0].tolist() == [0, 51, 102, 153, 204, 255]
    levels = torch.tensor([0, 25, 26, 127, 128, 255]).view(1, 1, 2, 3) / 255
    assert grey.quantised(levels).tolist() == [[0, 0, 1, 2, 3, 5]]


# -------------------------------------------------------------------------------------------------------------- floors


def album(captions, facts=COLOUR):
    pictures = np.arange(len(captions), dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 4, 3), np.uint8)
    return Split({"image": pictures, "label": np.full(len(captions), -1), "text": Ragged.of_texts(captions)})


def fitted(module, captions, tmp_path=None):
    train = album(captions)
    model = module.build(module.Config(), COLOUR)
    model.fit(train, train, COLOUR, Budget(), 0, None)
    if tmp_path is None:
        return model
    model.save(tmp_path)
    return module.build(module.Config(), COLOUR).load(tmp_path)


def test_the_nearest_caption(tmp_path):
    captions = ["red hat", "blue hat", "two cats", "red hat", "ein Hut: grün", "#", ""]
    model = fitted(nearest_caption, captions, tmp_path)
    asked = ["a blue hat", "cats", "grüner Hut", "#", "RED HAT"]
    drawn = model.draw(range(5), captions=asked)[:, 0, 0, 0].tolist()
    assert drawn[:4] == [1, 2, 4, 5]
    assert drawn[4] in (0, 3)
    alike = {model.draw([seed], captions=["red hat"])[0, 0, 0, 0].item() for seed in range(30)}
    assert alike == {0, 3}
    nothing = {model.draw([seed], captions=["\u4e16"])[0, 0, 0, 0].item() for seed in range(60)}
    assert len(nothing) > 4  # no caption is nearer than another
    assert model.draws == {"captions"}
    assert model.draw([0]).shape == (1, 3, 3, 4)


def test_a_random_picture(tmp_path):
    model = fitted(random_picture, ["x"] * 9, tmp_path)
    drawn = model.draw(range(200))[:, 0, 0, 0]
    assert set(drawn.tolist()) == set(range(9))
    assert torch.equal(model.draw([7]), model.draw([3, 7])[1:])
    assert model.draws == frozenset()
    split = album(["a", "b", "c"])
    assert np.array_equal(model.outputs(split), model.draw(range(3)).permute(0, 2, 3, 1).numpy())


def test_an_album_keeps_no_more_than_it_has_room_for(monkeypatch):
    monkeypatch.setattr("papertrial.baselines._album._ROOM", 5 * 36)
    assert len(fitted(random_picture, ["x"] * 9).pictures) == 5


# ------------------------------------------------------------------------------------------------------ whole commands


@pytest.fixture
def emoji(tmp_path):
    """Forty pictures of 8 pixels with captions: a colour and a side."""
    from PIL import Image

    rng, lines = np.random.default_rng(0), []
    folder = tmp_path / "shapes"
    folder.mkdir()
    for row in range(40):
        colour, side = row % 4, row // 4 % 2
        pixels = np.full((8, 8, 3), 255, np.uint8)
        pixels[:, 4 * side : 4 * side + 4] = np.eye(4, 3)[colour] * 200 + rng.integers(0, 50, (8, 4, 3))
        Image.fromarray(pixels).save(folder / f"{row}.png")
        lines.append({"file": f"{row}.png", "caption": f"{['red', 'green', 'blue', 'black'][colour]} {side} {row}"})
    (folder / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_a_pixel_transformer_is_trained_and_draws(papertrial, emoji, tmp_path):
    run = tmp_path / "run"
    code, out, err = papertrial(
        "fit", "pixel_transformer", "--data", emoji, "--recipe", "tiny", "--budget", "20steps", "--out", run, "--quiet"
    )
    assert code == 0, err
    assert "image_text_generation" in out
    assert "caption_rank" in out
    code, out, err = papertrial("generate", run, "--caption", "red 0", "--caption", "blue 1", "-n", "2", "--quiet")
    assert code == 0, err
    assert len(list((run / "pictures").glob("*.png"))) == 5
    first = (run / "pictures" / "1-00000.png").read_bytes()
    code, _, err = papertrial("generate", run, "red 0", "-n", "1", "--out", tmp_path / "one", "--quiet")
    assert code == 0, err
    assert (tmp_path / "one" / "00000.png").read_bytes() == first
    code, _, err = papertrial("generate", run, "--label", "cat")
    assert code == 2
    assert "takes no label" in err
    code, out, err = papertrial("generate", run, "-n", "1", "--out", tmp_path / "any", "--quiet")
    assert code == 0, err
    code, out, err = papertrial("evaluate", run, emoji)
    assert code == 0, err
    assert "caption_rank" in out


def test_floors_are_compared(papertrial, emoji, tmp_path):
    code, out, err = papertrial(
        "compare", "pixel_transformer", "--data", emoji, "--task", "image_text_generation", "--recipe", "tiny",
        "--budget", "5steps", "--seeds", "1", "--out", tmp_path / "c", "--quiet",
    )  # fmt: skip
    assert code == 0, err
    assert "nearest_caption" in out
    assert "random_picture" in out
