"""my_paper against an implementation of its own, on awkward inputs too."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from papertrial.papers import my_paper


@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("shape", [(1, 5), (4, 1), (3, 2, 3, 3)])
def test_the_gradient_is_the_equation(shape, offset):
    gradient = np.random.default_rng(0).normal(offset, 1, shape)
    wanted = np.stack([unit - 0.5 * unit.sum() / unit.size for unit in gradient])
    np.testing.assert_allclose(my_paper.centred(torch.from_numpy(gradient), 0.5), wanted, rtol=1e-12, atol=1e-10)


def test_a_step_sees_it_and_biases_are_left_alone():
    layer = nn.Linear(3, 2).double()
    layer(torch.tensor([[1.0, 2.0, 4.0]], dtype=torch.float64)).sum().backward()
    bias = layer.bias.grad.clone()
    my_paper.Config().before_step(layer)
    assert torch.allclose(layer.weight.grad.sum(1), torch.zeros(2, dtype=torch.float64), atol=1e-12)
    assert torch.equal(layer.bias.grad, bias)
