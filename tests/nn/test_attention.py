"""The two ways to attend are one: against torch's kernel, and which of them is taken where."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from papertrial.nn import attention
from papertrial.nn.attention import Attention, Within, attend
from papertrial.nn.modes import cpu_has_bf16, device_of, evaluating

B, H, M, N, D = 3, 2, 5, 7, 4


def given(queries=M, keys=N, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((queries, D), (keys, D), (keys, D + 1))
    return [torch.randn(B, H, *shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


def padded(blind=False):
    """bool (B, 1, 1, N): rows of three lengths; with `blind` the last row holds nothing that could be seen."""
    return (torch.arange(N) < torch.tensor([N, 3, 0 if blind else 1])[:, None])[:, None, None]


def bias(**holes):
    """A float mask that learns, (1, H, M, N), with holes where `padded` has them."""
    learnt = torch.randn(1, H, M, N, generator=torch.Generator().manual_seed(5), dtype=torch.float64).requires_grad_()
    return learnt, learnt.masked_fill(~padded(**holes), -torch.inf) if holes else learnt


def both(make, queries=M, keys=N, seed=3):
    """Values and gradients of the kernel and of the product written out, from the same inputs and draws."""
    found = []
    for function in (
        lambda q, k, v, mask, causal, dropout, scale: F.scaled_dot_product_attention(
            q, k, v, mask, dropout, causal, scale=scale
        ),
        attention._written_out,
    ):
        torch.manual_seed(seed)
        leaves, out = make(function, given(queries, keys))
        weight = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)
        found.append((out.detach(), *torch.autograd.grad((out * weight).sum(), leaves)))
    return zip(*found, strict=True)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("scale", [None, 1.0])
@pytest.mark.parametrize(
    "mask", ["none", "causal", "square", "padding", "blind", "bias", "bias and padding", "bias, blind"]
)
def test_written_out_is_the_kernel(mask, scale, dropout):
    def make(function, leaves):
        seen, learnt = None, []
        if mask in ("padding", "blind"):
            seen = padded(blind=mask == "blind")
        elif mask.startswith("bias"):
            learnt_bias, seen = bias(**({} if mask == "bias" else {"blind": "blind" in mask}))
            learnt = [learnt_bias]
        causal = mask in ("causal", "square")
        return [*leaves, *learnt], function(*leaves, seen, causal, dropout, scale)

    for kernel, ours in both(make, keys=M if mask == "square" else N):
        assert ours.isfinite().all()
        torch.testing.assert_close(ours, kernel, rtol=1e-12, atol=1e-12)


def test_a_query_that_sees_nothing_gets_nothing():
    q, k, v = given()
    out = attention._written_out(q, k, v, padded(blind=True), False, 0.0, None)
    assert (out[2] == 0).all() and (out[:2] != 0).all()
    out[2].sum().backward()
    assert all((leaf.grad[2] == 0).all() for leaf in (q, k, v))


def test_large_logits_stay_finite():
    q, k, v = (1e3 * leaf.detach() for leaf in given())
    out = attention._written_out(q, k, v, padded(), False, 0.0, None)
    torch.testing.assert_close(out, F.scaled_dot_product_attention(q, k, v, padded()), rtol=1e-12, atol=1e-12)


@pytest.fixture
def ways(monkeypatch):
    """Which way each call went; the processor has instructions for bfloat16 unless a test says otherwise."""
    taken = []
    written, kernel = attention._written_out, F.scaled_dot_product_attention
    monkeypatch.setattr(attention, "_CPU_HAS_BF16", True)
    monkeypatch.setattr(attention, "_written_out", lambda *args: taken.append("written out") or written(*args))
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: taken.append("kernel") or kernel(*a, **k))
    return taken


def test_where_the_kernel_is_left(ways, monkeypatch):
    attend(*given(dtype=torch.bfloat16))
    assert ways.pop() == "written out"
    frozen = [leaf.detach() for leaf in given(dtype=torch.bfloat16)]
    for few in (attend(*frozen), attend(frozen[0], frozen[1], given(dtype=torch.bfloat16)[2])):
        assert few.dtype == torch.bfloat16
    assert ways == ["kernel", "written out"]
    ways.clear()
    with torch.no_grad():
        attend(*given(dtype=torch.bfloat16))
    for dtype in (torch.float32, torch.float64):
        attend(*given(dtype=dtype))
    attend(*(leaf.to("meta") for leaf in given(dtype=torch.bfloat16)))
    for known in (False, None):
        monkeypatch.setattr(attention, "_CPU_HAS_BF16", known)
        attend(*given(dtype=torch.bfloat16))
    assert ways == ["kernel"] * 6


def test_autocast_counts_and_a_view_takes_the_same_way(ways):
    layer = Attention(8, 2, dropout=0.1)
    x = torch.randn(2, 4, 8)
    with torch.autocast("cpu", torch.bfloat16):
        layer(x).sum().backward()
        layer(x, view=Within(causal=True))
    assert ways == ["written out"] * 2
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())
    layer(x)
    assert ways[2:] == ["kernel"]


def test_bfloat16_is_as_near_to_the_truth_as_the_kernel():
    exact = [leaf.detach() for leaf in given(32, 32)]
    wanted = [*_step(F.scaled_dot_product_attention, exact)]
    short = [leaf.bfloat16() for leaf in exact]
    kernel = _step(F.scaled_dot_product_attention, short)
    ours = _step(lambda q, k, v: attention._written_out(q, k, v, None, False, 0.0, None), short)
    for truth, theirs, mine in zip(wanted, kernel, ours, strict=True):
        assert (mine.double() - truth).abs().mean() < 2 * (theirs.double() - truth).abs().mean()


def _step(function, inputs):
    leaves = [leaf.clone().requires_grad_() for leaf in inputs]
    out = function(*leaves)
    return [out.detach(), *torch.autograd.grad(out.square().sum(), leaves)]


@pytest.mark.parametrize(
    ("has", "known"),
    [
        ({"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": False}, False),
        ({"architecture": "x86_64", "avx512_bf16": True}, True),
        ({"architecture": "x86_64", "amx_bf16": True}, True),
        ({"architecture": "aarch64"}, None),
        ({}, None),
    ],
)
def test_what_the_processor_has(has, known, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has, raising=False)
    assert cpu_has_bf16() is known


def test_evaluating_leaves_a_frozen_part_in_eval():
    model = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 2))).train()
    model[1].eval()
    model[1][0].train()
    before = [module.training for module in model.modules()]
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == before == [True, True, False, True, False]
    with pytest.raises(IndexError), evaluating(model):
        model[2]
    assert [module.training for module in model.modules()] == before
    assert device_of(model) == device_of(nn.Dropout(0.1)) == torch.device("cpu")
