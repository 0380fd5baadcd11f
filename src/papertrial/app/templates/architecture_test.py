"""my_paper against an implementation of its own, on awkward inputs too."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from papertrial.papers import my_paper


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("shift", [-3.0, 0.0, 3.0])
def test_values_and_gradients_equal_the_equation(scale, shift):
    x = torch.tensor(np.random.default_rng(0).normal(shift, 1, 50) * scale, requires_grad=True)
    y = my_paper.squared_relu(x)
    y.sum().backward()
    plain = np.where(x.detach().numpy() > 0, x.detach().numpy(), 0.0)
    np.testing.assert_allclose(y.detach().numpy(), plain**2, rtol=1e-14)
    np.testing.assert_allclose(x.grad.numpy(), 2 * plain, rtol=1e-14)
