"""Augmentations: in range, one set of random numbers per example, and the same ones however the batch is cut."""

from __future__ import annotations

import colorsys
from functools import partial

import numpy as np
import pytest
import torch

from papertrial.nn import views
from papertrial.nn.views import Draw

ALL = {
    "crop": views.random_resized_crop,
    "shift": partial(views.shift, pixels=3),
    "flip": views.flip,
    "greyscale": partial(views.greyscale, p=0.5),
    "jitter": views.colour_jitter,
    "blur": views.gaussian_blur,
    "solarise": partial(views.solarise, p=0.5),
}
EACH = pytest.mark.parametrize("change", ALL.values(), ids=ALL)


def images(rows=6, channels=3, height=12, width=9, seed=0):
    return torch.rand(rows, channels, height, width, generator=torch.Generator().manual_seed(seed))


@EACH
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("fill", ["random", "black", "white"])
def test_stays_in_range_and_shape(change, channels, fill):
    image = {
        "random": images(16, channels),
        "black": torch.zeros(16, channels, 12, 9),
        "white": torch.ones(16, channels, 12, 9),
    }[fill]
    out = change(image, Draw(0, 0, 16))
    assert out.shape == image.shape
    assert out.dtype == image.dtype
    assert torch.isfinite(out).all()
    assert float(out.min()) >= 0
    assert float(out.max()) <= 1


@EACH
def test_the_input_is_left_alone(change):
    image = images()
    before = image.clone()
    change(image, Draw(0, 0, 6))
    assert torch.equal(image, before)


@EACH
def test_cut_over_ranks_gives_the_same_images(change):
    image = images(7)
    whole = change(image, Draw(3, 5, 7))
    parts = [change(image[start:stop], Draw(3, 5, 7, start, stop - start)) for start, stop in ((0, 2), (2, 3), (3, 7))]
    torch.testing.assert_close(torch.cat(parts), whole)


@EACH
def test_examples_are_changed_each_in_its_own_way(change):
    same = images(1).expand(24, -1, -1, -1)
    out = change(same, Draw(0, 0, 24))
    assert len(torch.unique(out.flatten(1), dim=0)) > 1


@EACH
def test_an_example_does_not_depend_on_the_others(change):
    image = images()
    other = image.clone()
    other[1:] = 1 - other[1:]
    assert torch.equal(change(image, Draw(0, 0, 6))[0], change(other, Draw(0, 0, 6))[0])


@EACH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_runs_in_any_precision(change, dtype):
    assert change(images().to(dtype), Draw(0, 0, 6)).dtype == dtype


def test_draws_depend_on_seed_and_step():
    def numbers(*key):
        return Draw(*key, 4).uniform(3)

    assert torch.equal(numbers(1, 2), numbers(1, 2))
    distinct = {tuple(numbers(seed, step).flatten().tolist()) for seed in range(5) for step in range(5)}
    assert len(distinct) == 25


def test_draws_follow_their_distributions():
    draw = Draw(0, 0, 20_000)
    uniform, normal = draw.uniform(low=-2, high=4), draw.normal(2)
    assert (float(uniform.min()) >= -2, float(uniform.max()) < 4) == (True, True)
    assert float(uniform.mean()) == pytest.approx(1, abs=0.05)
    assert normal.shape == (20_000, 2)
    assert float(normal.std()) == pytest.approx(1, abs=0.02)
    assert float(draw.bernoulli(0.3).float().mean()) == pytest.approx(0.3, abs=0.02)
    counts = torch.bincount(draw.integers(-2, 2) + 2)
    assert len(counts) == 5
    assert counts.min() > 3_600


def test_rows_outside_the_global_batch_are_refused():
    with pytest.raises(ValueError, match="rows 3 to 6 are not within a global batch of 5"):
        Draw(0, 0, 5, 3, 3)


def test_hue_is_that_of_the_hsv_cone():
    colours = torch.rand(200, 3, generator=torch.Generator().manual_seed(0))
    colours = torch.cat(
        [colours, torch.tensor([[0.0, 0, 0], [1, 1, 1], [0.5, 0.5, 0.5], [1, 0, 0], [1, 1, 0], [0, 0, 1]])]
    )
    turns = torch.linspace(-0.5, 1.5, len(colours))
    ours = views.turn_hue(colours.view(-1, 3, 1, 1), turns.view(-1, 1, 1, 1))[..., 0, 0]
    for row, (colour, turn) in enumerate(zip(colours.tolist(), turns.tolist(), strict=True)):
        hue, saturation, value = colorsys.rgb_to_hsv(*colour)
        expected = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
        np.testing.assert_allclose(ours[row].numpy(), expected, atol=2e-6)


def test_luma_weighs_green_most():
    red, green, blue = (float(views.luma(torch.eye(3)[index].view(1, 3, 1, 1))) for index in range(3))
    assert (red, green, blue) == pytest.approx((0.299, 0.587, 0.114))
    assert float(views.luma(torch.full((1, 4, 1, 1), 0.3))) == pytest.approx(0.3)


def test_a_crop_of_everything_changes_nothing():
    image = images()
    torch.testing.assert_close(
        views.random_resized_crop(image, Draw(0, 0, 6), (1, 1), (0.75, 0.75)), image, atol=1, rtol=0
    )
    square = images(6, 3, 9, 9)
    torch.testing.assert_close(
        views.random_resized_crop(square, Draw(0, 0, 6), (1, 1), (1, 1)), square, atol=1e-5, rtol=0
    )


def test_a_crop_shows_a_window_of_the_image():
    ramp = torch.linspace(0, 1, 32).expand(200, 1, 32, 32)
    out = views.random_resized_crop(ramp, Draw(0, 0, 200), (0.25, 0.25), (1, 1))
    covered = out.amax((1, 2, 3)) - out.amin((1, 2, 3))
    assert float(covered.mean()) == pytest.approx(0.5, abs=0.03)  # half of each side
    assert float(out.mean()) == pytest.approx(0.5, abs=0.05)
    assert float(out.mean((1, 2, 3)).std()) > 0.1


def test_a_shift_moves_and_mirrors():
    ramp = torch.arange(5.0).expand(50, 1, 4, 5) / 4
    out = views.shift(ramp, Draw(0, 0, 50), 2)
    rows = {tuple((row * 4).round().int().tolist()) for row in out[:, 0, 0]}
    assert rows == {(0, 1, 2, 3, 4), (1, 2, 3, 4, 3), (2, 3, 4, 3, 2), (1, 0, 1, 2, 3), (2, 1, 0, 1, 2)}


def test_a_shift_is_smaller_than_the_image():
    assert views.shift(images(2, 1, 1, 3), Draw(0, 0, 2), 10).shape == (2, 1, 1, 3)


def test_blur_keeps_flat_images_and_spreads_points():
    flat = torch.full((4, 1, 9, 9), 0.3)
    torch.testing.assert_close(views.gaussian_blur(flat, Draw(0, 0, 4), 1.0), flat)
    point = torch.zeros(1, 1, 21, 21)
    point[..., 10, 10] = 1
    out = views.gaussian_blur(point, Draw(0, 0, 1), 1.0, (1.5, 1.5))[0, 0]
    place = torch.arange(21.0) - 10
    assert float(out.sum()) == pytest.approx(1, abs=1e-4)
    assert float((out.sum(0) * place**2).sum()) == pytest.approx(1.5**2, rel=0.01)


def test_solarise_inverts_the_bright_part():
    image = torch.tensor([0.0, 0.4, 0.5, 1.0]).view(1, 1, 1, 4)
    out = views.solarise(image, Draw(0, 0, 1), 1.0)
    assert out.flatten().tolist() == pytest.approx([0.0, 0.4, 0.5, 0.0])


def test_jitter_of_nothing_changes_nothing():
    image = images()
    torch.testing.assert_close(views.colour_jitter(image, Draw(0, 0, 6), 0, 0, 0, 0, 1.0), image)
