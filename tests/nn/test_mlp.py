"""The tanh form of GELU against torch's: values, gradients, derivatives of gradients, transforms, and traced programs."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from papertrial.nn import mlp
from papertrial.nn.mlp import Mlp, TanhGelu, tanh_gelu


@pytest.fixture
def always(monkeypatch):
    """For small tensors too, which are left to torch otherwise."""
    monkeypatch.setattr(mlp, "_WORTH", 1)


def theirs(x):
    return F.gelu(x, approximate="tanh")


AWKWARD = torch.tensor([0.0, -0.0, 1e-38, -1e-37, 1e-20, 0.7, -0.75, 4.0, -4.0, 9.0, -9.0, 60.0, -60.0, 1e4, -1e4])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("numbers", ["drawn", "awkward", "none"])
def test_values_and_gradients_are_those_of_torch(always, dtype, numbers):
    drawn = 3 * torch.randn(31, 17, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = {"drawn": drawn, "awkward": AWKWARD, "none": torch.empty(0, 3)}[numbers].to(dtype)
    grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
    mine, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    first, second = tanh_gelu(mine), theirs(other)
    first.backward(grad)
    second.backward(grad)
    digits = 1e-12 if dtype == torch.float64 else 4e-6
    torch.testing.assert_close(first, second, rtol=digits, atol=digits)
    torch.testing.assert_close(mine.grad, other.grad, rtol=digits, atol=digits)
    assert mine.equal(x), "the input was overwritten"


def test_a_gradient_that_is_no_number_stays_one(always):
    x = torch.tensor([float("nan"), 1.0], requires_grad=True)
    tanh_gelu(x).sum().backward()
    assert x.grad.isnan().tolist() == [True, False]


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # which torch calls itself
@pytest.mark.parametrize("spread", [0.0, 1.0, 5.0])
def test_derivatives_of_both_orders_by_differences(always, spread):
    x = (spread * torch.randn(13, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(tanh_gelu, x, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(tanh_gelu, x)


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
def test_transforms_of_functions_and_views(always):
    x = torch.randn(6, 5, dtype=torch.float64)
    each = torch.func.vmap(torch.func.grad(lambda row: tanh_gelu(row).square().sum()))
    expected = torch.func.vmap(torch.func.grad(lambda row: theirs(row).square().sum()))
    torch.testing.assert_close(each(x), expected(x))
    torch.testing.assert_close(
        torch.func.hessian(lambda row: tanh_gelu(row).sum())(x[0]),
        torch.func.hessian(lambda row: theirs(row).sum())(x[0]),
    )
    torch.testing.assert_close(tanh_gelu(x.T[::2]), theirs(x.T[::2]))


def test_per_example_gradients_of_a_perceptron(always):
    torch.manual_seed(0)
    net, x = Mlp(4, 6).double(), torch.randn(5, 4, dtype=torch.float64)
    weights = dict(net.named_parameters())

    def loss(weights, row):
        return torch.func.functional_call(net, weights, (row,)).square().sum()

    found = torch.func.vmap(torch.func.grad(loss), (None, 0))(weights, x)
    for row in range(5):
        net.zero_grad()
        net(x[row]).square().sum().backward()
        for name, weight in net.named_parameters():
            torch.testing.assert_close(found[name][row], weight.grad)


def test_other_dtypes_and_small_tensors_are_left_to_torch():
    for x in (torch.randn(300, 300).bfloat16(), torch.randn(7)):
        assert tanh_gelu(x).equal(theirs(x))


def test_a_traced_program_has_the_gelu_of_torch_for_any_size():
    shapes = ({0: torch.export.Dim("rows")},)
    program = torch.export.export(nn.Sequential(TanhGelu()), (torch.randn(2, 300),), dynamic_shapes=shapes)
    assert [str(node.target) for node in program.graph.nodes if node.op == "call_function"] == ["aten.gelu.default"]
    x = torch.randn(200, 300)  # which is large enough for the other way
    torch.testing.assert_close(program.module()(x), tanh_gelu(x))
