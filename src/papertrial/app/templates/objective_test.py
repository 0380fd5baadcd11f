"""my_paper against an implementation of its own, on awkward inputs too."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from papertrial.papers import my_paper


def numpy_uniformity(z):
    """Value and gradient, written out by hand."""
    rows = len(z)
    difference = z[:, None] - z[None]
    kernel = np.exp(-2 * (difference**2).sum(-1)) * (1 - np.eye(rows))
    gradient = 2 * (kernel[..., None] * -4 * difference).sum(1) / kernel.sum()
    return np.log(kernel.sum() / (rows * (rows - 1))), gradient


@pytest.mark.parametrize("concentration", [0.0, 3.0, 30.0])
@pytest.mark.parametrize("rows", [2, 5, 40])
def test_values_and_gradients_equal_the_equation(rows, concentration):
    draw = np.random.default_rng(0).normal(concentration, 1, (rows, 6))
    z = torch.tensor(draw / np.linalg.norm(draw, axis=1, keepdims=True), requires_grad=True)
    value = my_paper.uniformity(z)
    value.backward()
    wanted, gradient = numpy_uniformity(z.detach().numpy())
    np.testing.assert_allclose(value.item(), wanted, rtol=1e-9, atol=1e-12)
    # rows stay on the sphere: only the part of the gradient along it counts
    along = [
        g - (g * z.detach().numpy()).sum(1, keepdims=True) * z.detach().numpy() for g in (z.grad.numpy(), gradient)
    ]
    np.testing.assert_allclose(along[0], along[1], rtol=1e-8, atol=1e-10)
