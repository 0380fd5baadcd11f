"""The generators that papers are compared with: a game of two players in one loss, and a normal distribution over pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from papertrial.baselines import gan, pixel_gaussian
from papertrial.core.budget import Budget
from papertrial.core.facts import Facts
from papertrial.core.recipe import Optim
from papertrial.core.task import Split
from papertrial.nn.views import Draw
from papertrial.train.optim import make_optimizer

SMALL = gan.Config(noise=6, width=4, widest=8)


def facts(height=8, width=8, channels=1, classes=3):
    return Facts("images", 99, 99 if classes else 0, channels, height, width, classes=classes, outputs=classes)


def game(classes=3, dtype=torch.float64, **shape):
    torch.manual_seed(0)
    return gan.Gan(SMALL, facts(classes=classes, **shape)).to(dtype)


def batch(model, rows=12, dtype=torch.float64, **shape):
    about = facts(**shape)
    dice = torch.Generator().manual_seed(1)
    image = torch.rand(rows, about.channels, about.height, about.width, generator=dice, dtype=dtype)
    label = torch.arange(rows) % 4 - 1
    made = model.views({"image": image, "label": label}, Draw(0, 0, rows))
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in made.items()}


def test_each_player_descends_its_own_loss_alone():
    """Against the two optimisers of a textbook: the gradient of one player with the other held still."""
    model = game().eval()  # so that the power iteration stands still
    rows = batch(model)
    model.loss(rows)["loss"].backward()
    found = {name: weight.grad.clone() for name, weight in model.named_parameters()}

    with torch.no_grad():
        fake = model.generator(rows["noise"], rows["wanted"])
    critic = model.discriminator
    against = F.relu(1 - critic(rows["image"], rows["label"])).mean() + F.relu(1 + critic(fake, rows["wanted"])).mean()
    weights = list(critic.named_parameters())
    for (name, _), gradient in zip(weights, torch.autograd.grad(against, [w for _, w in weights]), strict=True):
        assert torch.allclose(found[f"discriminator.{name}"], gradient, rtol=1e-9, atol=1e-12), name
    liked = -critic(model.generator(rows["noise"], rows["wanted"]), rows["wanted"]).mean()
    weights = list(model.generator.named_parameters())
    for (name, _), gradient in zip(weights, torch.autograd.grad(liked, [w for _, w in weights]), strict=True):
        assert torch.allclose(found[f"generator.{name}"], gradient, rtol=1e-9, atol=1e-12), name
    parts = model.losses(rows)
    assert torch.allclose(parts["discriminator"], against) and torch.allclose(parts["generator"], liked)


def test_no_weight_of_the_discriminator_stretches_anything():
    model = game(dtype=torch.float32)
    rows = batch(model, dtype=torch.float32)
    for _ in range(60):
        model.loss(rows)
    for module in model.discriminator.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
            assert float(torch.linalg.matrix_norm(module.weight.detach().flatten(1), 2)) == pytest.approx(1, abs=2e-2)


def test_a_picture_is_its_seeds_and_its_class():
    model = game(dtype=torch.float32).eval()
    with torch.no_grad():
        some = model.draw([3, 9, 3, 4], labels=torch.tensor([0, 1, 2, -1]))
        assert some.dtype == torch.uint8 and some.shape == (4, 1, 8, 8)
        alone = model.draw([9], labels=torch.tensor([1]))
        assert (some[1].int() - alone[0].int()).abs().max() <= 1  # but for the order of a sum
        assert not torch.equal(some[0], some[2])
        free = model.draw([4, 5, 6, 7, 8, 9, 10, 11])
        chosen = [model.draw([4], labels=torch.tensor([label])) for label in range(3)]
    assert any((one[0].int() - free[0].int()).abs().max() <= 1 for one in chosen)
    assert len({picture.numpy().tobytes() for picture in free}) == 8
    assert model.draws == {"labels"} and game(classes=0).draws == frozenset()


def test_rows_without_a_class():
    model = game()
    rows = batch(model)
    unknown = rows["label"] < 0
    assert unknown.any() and (rows["wanted"] >= 0).all()
    assert torch.equal(rows["wanted"][~unknown], rows["label"][~unknown])
    critic = model.discriminator.eval()
    blank = critic(rows["image"], torch.full_like(rows["label"], -1))
    scores = critic(rows["image"], rows["label"])
    assert (
        torch.allclose(scores[unknown], blank[unknown]) and not torch.isclose(scores[~unknown], blank[~unknown]).any()
    )


@pytest.mark.parametrize(("height", "width", "channels"), [(4, 4, 1), (9, 12, 3), (28, 20, 1), (64, 64, 3), (5, 40, 1)])
def test_any_size(height, width, channels):
    shape = {"height": height, "width": width, "channels": channels}
    model = game(dtype=torch.float32, **shape)
    assert torch.isfinite(model.loss(batch(model, 5, torch.float32, **shape))["loss"])
    assert model.eval().draw([0, 1]).shape == (2, channels, height, width)


def test_the_generator_learns_more_slowly():
    groups = make_optimizer(game(), Optim(lr=1e-3, beta2=0.9, weight_decay=0.0)).param_groups
    assert [(group["lr"], group["betas"]) for group in groups] == [
        (1e-3, (SMALL.beta1, 0.9)),
        (1e-3 * SMALL.slower, (SMALL.beta1, 0.9)),
    ]


def bright(count, classes=2, seed=0):
    """Two correlated pixels that are brighter in the second class, and a third that is noise of its own."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, count)
    first = rng.normal(80 + 60 * label, 10)
    pixels = np.stack([first, 20 + 0.8 * first + rng.normal(0, 3, count), rng.normal(128, 20, count), 0 * first], -1)
    return Split({"image": pixels.round().clip(0, 255).astype(np.uint8).reshape(-1, 2, 2, 1), "label": label})


def gaussian(split, classes, **config):
    about = facts(2, 2, 1, classes)
    model = pixel_gaussian.build(pixel_gaussian.Config(**config), about)
    model.fit(split, split, about, Budget(), 0, None)
    return model


def test_pixels_have_the_mean_and_covariance_of_their_class():
    split = bright(3000)
    model = gaussian(split, 2)
    drawn = (
        model.draw(range(4000), labels=torch.arange(4000) % 2).permute(0, 2, 3, 1).numpy().reshape(-1, 4).astype(float)
    )
    for index in range(2):
        real = split["image"][split["label"] == index].reshape(-1, 4).astype(float)
        assert drawn[index::2].mean(0) == pytest.approx(real.mean(0), abs=1.5)
        assert np.cov(drawn[index::2].T) == pytest.approx(np.cov(real.T), rel=0.12, abs=12)
    few = gaussian(split, 2, components=1).draw(range(500), labels=torch.zeros(500, dtype=torch.int64))
    assert np.linalg.matrix_rank(np.cov(few.reshape(500, 4).numpy().T.astype(float)), tol=2) == 1


def test_classes_without_pictures_and_no_class_at_all(tmp_path):
    split = bright(200)
    model = gaussian(Split({"image": split["image"], "label": np.where(split["label"] == 1, -1, 0)}), 2)
    assert np.array_equal(model.mean[1], model.mean[2]) and not np.array_equal(model.mean[0], model.mean[2])
    pictures = model.draw([5, 6], labels=torch.tensor([1, -1]))
    assert torch.equal(pictures[0], model.draw([5])[0])
    model.save(tmp_path)
    again = pixel_gaussian.build(pixel_gaussian.Config(), facts(2, 2, 1, 2)).load(tmp_path)
    assert torch.equal(again.draw([5, 6], labels=torch.tensor([1, -1])), pictures)
    assert gaussian(split, 0).draws == frozenset()
    one = gaussian(split.take(slice(0, 1)), 2)  # a single picture has no covariance
    assert np.array_equal(one.outputs(split.take(slice(0, 3)))[0].ravel(), split["image"][0].ravel())
