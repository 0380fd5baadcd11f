"""Switch layers against transformers, the order of their tokens, and processes that share experts."""

from __future__ import annotations

import json

import pytest
import switch_ranks
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from papertrial.core.facts import Facts
from papertrial.nn import pretrained
from papertrial.nn.heads import NextToken
from papertrial.nn.packing import Padded, rows_of
from papertrial.nn.transformer import Ids, auxiliary
from papertrial.papers import switch
from papertrial.papers.switch import Config, SwitchMlp, balance, dispatch, experts, room
from papertrial.papers.switch.experts import through
from papertrial.testing import in_ranks

AWKWARD = {
    "usual": lambda x: x,
    "tiny": lambda x: x * 1e-6,
    "huge": lambda x: x * 1e4,
    "shifted": lambda x: x + 50,
    "constant": lambda x: torch.ones_like(x),
}


def layer(experts=4, width=8, hidden=12, dtype=torch.float64, seed=0, **options):
    torch.manual_seed(seed)
    made = SwitchMlp(width, hidden, experts, **options).to(dtype)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    return made


def slow(made, tokens, places):
    """Token by token: what the layer does, written without sorting."""
    probabilities = F.linear(tokens, made.router.weight).softmax(-1)
    used = [0] * made.count
    out = []
    for token, chance in zip(tokens, probabilities, strict=True):
        expert = int(chance.argmax())
        used[expert] += 1
        hidden = (made.experts.up[expert] @ token).relu()
        out.append(chance[expert] * (made.experts.down[expert] @ hidden) * (used[expert] <= places))
    return torch.stack(out)


# --- transformers ------------------------------------------------------------------------------------------------------


def theirs():
    transformers = pytest.importorskip("transformers")
    from transformers.models.switch_transformers import modeling_switch_transformers

    return transformers, modeling_switch_transformers


def sparse(made, **options):
    """Their layer with our weights, in float64, router included."""
    transformers, models = theirs()
    experts, hidden, width = made.experts.up.shape
    config = transformers.SwitchTransformersConfig(
        d_model=width, d_ff=hidden, num_experts=experts, router_jitter_noise=0.0, dropout_rate=0.0, **options,
    )  # fmt: skip
    other = models.SwitchTransformersSparseMLP(config).double()
    other.router.dtype = torch.float64  # it is in float32 otherwise
    with torch.no_grad():
        other.router.classifier.weight.copy_(made.router.weight)
        for index in range(experts):
            other.experts[f"expert_{index}"].wi.weight.copy_(made.experts.up[index])
            other.experts[f"expert_{index}"].wo.weight.copy_(made.experts.down[index])
    return other


@pytest.mark.parametrize("capacity", [1, 3, 100])
@pytest.mark.parametrize("shape", AWKWARD)
def test_a_layer_equals_theirs_in_values_and_gradients(shape, capacity):
    made = layer(row_capacity=capacity)
    other = sparse(made, expert_capacity=capacity)
    x = AWKWARD[shape](torch.randn(3, 11, 8, dtype=torch.float64))
    weight = torch.randn(3, 11, 8, dtype=torch.float64)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    found, wanted = made(inputs[0]), other(inputs[1])
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-14)
    (found * weight).sum().backward()
    (wanted * weight).sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-9, atol=1e-13)
    torch.testing.assert_close(made.router.weight.grad, other.router.classifier.weight.grad, rtol=1e-9, atol=1e-13)
    for ours, name in ((made.experts.up, "wi"), (made.experts.down, "wo")):
        for index in range(4):
            gradient = getattr(other.experts[f"expert_{index}"], name).weight.grad
            gradient = torch.zeros_like(ours[index]) if gradient is None else gradient  # nobody came
            torch.testing.assert_close(ours.grad[index], gradient, rtol=1e-9, atol=1e-13)


def test_the_router_and_what_finds_room_equal_theirs():
    made = layer(row_capacity=2)
    other = sparse(made, expert_capacity=2).router
    x = torch.randn(2, 9, 8, dtype=torch.float64)
    chosen, gate, logits = other(x)
    probabilities = made.probabilities(x.flatten(0, 1)).view(2, 9, 4)
    torch.testing.assert_close(probabilities, logits.softmax(-1))
    torch.testing.assert_close(probabilities.max(-1, keepdim=True).values, gate)
    order, counts = dispatch(probabilities.flatten(0, 1).argmax(-1), 4, 2, group=torch.arange(18) // 9)
    kept = torch.zeros(18, dtype=torch.bool).index_fill(0, order, True)
    assert torch.equal(kept.view(2, 9), chosen.sum(-1) > 0)
    assert torch.equal(counts, chosen.sum((0, 1)))


def test_the_balance_loss_equals_theirs_in_values_and_gradients():
    _, models = theirs()
    logits = torch.randn(3, 17, 5, dtype=torch.float64)
    both = [logits.clone().requires_grad_() for _ in range(2)]
    expert = logits.argmax(-1)
    ours, other = balance(both[0].softmax(-1), expert), models.load_balancing_loss_func(both[1].softmax(-1), expert)
    torch.testing.assert_close(ours, other, rtol=1e-6, atol=0.0)  # theirs counts in float32
    ours.backward()
    other.backward()
    torch.testing.assert_close(both[0].grad, both[1].grad, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("sparse_layers", [(2, 1), (4, 2)])
def test_a_whole_model_equals_theirs(sparse_layers, packed, monkeypatch):
    """Random weights of the whole encoder-decoder, through the table of names; rows of different length."""
    transformers, models = theirs()

    def norm(self, x):  # theirs takes the mean of squares in float32 whatever the model is in
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)

    monkeypatch.setattr(models.SwitchTransformersLayerNorm, "forward", norm)
    torch.manual_seed(0)
    config = transformers.SwitchTransformersConfig(
        vocab_size=40, d_model=16, d_kv=4, d_ff=24, num_layers=4, num_decoder_layers=2, num_heads=4, num_experts=3,
        num_sparse_encoder_layers=sparse_layers[0], num_sparse_decoder_layers=sparse_layers[1], expert_capacity=3,
        decoder_start_token_id=0,
    )  # fmt: skip
    other = transformers.SwitchTransformersForConditionalGeneration(config).double().eval()
    for module in other.modules():
        if isinstance(module, models.SwitchTransformersTop1Router):
            module.dtype = torch.float64
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)
    values = json.loads(config.to_json_string(use_diff=False))
    mine = pretrained.build(values, Ids(40, 0), switch.FAMILIES).double().eval()
    state = pretrained.to_ours(other.state_dict(), switch.FAMILIES["switch_transformers"], values)
    mine.load_state_dict({name: state[name] for name in mine.state_dict()})
    source = torch.randint(3, 40, (3, 12)) * (torch.arange(12) < torch.tensor([12, 5, 9])[:, None])
    target = torch.randint(3, 40, (3, 7))
    wanted = other(input_ids=source, attention_mask=(source > 0).long(), decoder_input_ids=mine.shifted(target)).logits
    found = mine.decode(mine.shifted(target), mine.encode(source, packed=packed))
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-10)
    assert max(float(module.figures["dropped"]) for module in mine.modules() if isinstance(module, SwitchMlp)) > 0
    found.square().mean().backward()
    wanted.square().mean().backward()
    gradients = {name: p.grad for name, p in other.named_parameters() if p.grad is not None}
    for name, parameter in other.named_parameters():
        if "expert_" in name:
            gradients.setdefault(name, torch.zeros_like(parameter))  # nobody came
    gradients = pretrained.to_ours(gradients, switch.FAMILIES["switch_transformers"], values)
    for name, parameter in mine.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-8, atol=1e-10, msg=name)


# --- routing -------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=40), st.integers(0, 12), st.integers(1, 4))
def test_tokens_are_sent_as_one_by_one(wanted, places, rows):
    """In order of the experts and then of the tokens, at most `places` for each expert and row."""
    row = [index * rows // max(len(wanted), 1) for index in range(len(wanted))]
    used, kept = {}, []
    for token, key in enumerate(zip(wanted, row, strict=True)):
        used[key] = used.get(key, 0) + 1
        if used[key] <= places:
            kept.append((wanted[token], token))
    order, counts = dispatch(
        torch.tensor(wanted, dtype=torch.int64), 5, places, group=torch.tensor(row, dtype=torch.int64)
    )
    assert order.tolist() == [token for _, token in sorted(kept)]
    assert counts.tolist() == [sum(expert == index for expert, _ in kept) for index in range(5)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("factor", [1.0, 1.25, 2.0, 0.0])
def test_a_layer_equals_one_without_sorting(factor, dtype):
    made = layer(dtype=dtype, capacity=factor)
    x = torch.randn(64, 8, dtype=dtype, requires_grad=True)
    twin = x.detach().clone().requires_grad_()
    found, wanted = made(x), slow(made, twin, room(64, 4, factor))
    torch.testing.assert_close(found, wanted)
    found.square().sum().backward()
    gradients = [parameter.grad.clone() for parameter in made.parameters()]
    made.zero_grad()
    wanted.square().sum().backward()
    torch.testing.assert_close(x.grad, twin.grad)
    torch.testing.assert_close(gradients, [parameter.grad for parameter in made.parameters()])


@pytest.mark.parametrize("counts", [[3, 0, 4, 0], [0, 0, 0, 7], [0, 0, 0, 0], [2, 2, 2, 1]])
@pytest.mark.parametrize(
    ("width", "dtype"), [(5, torch.float32), (16, torch.float32), (16, torch.float64), (16, torch.bfloat16)]
)
def test_the_products_of_groups_equal_a_loop(counts, width, dtype, monkeypatch):
    """The grouped kernel takes a width of 16 in float32, and of bfloat16 what would leave slots empty."""
    monkeypatch.setattr(experts, "_has_products", lambda dtype, device: True)
    up, down = torch.randn(4, 8, width, dtype=dtype), torch.randn(4, width, 8, dtype=dtype)
    inputs = [torch.randn(sum(counts), width, dtype=dtype), up, down]
    inputs = [tensor.requires_grad_() for tensor in inputs]
    found = through(inputs[0], torch.tensor(counts), up, down, torch.relu)
    parts = inputs[0].split(counts)
    wanted = torch.cat([(part @ a.T).relu() @ b.T for part, a, b in zip(parts, up, down, strict=True)])
    torch.testing.assert_close(found, wanted)
    mix = torch.randn_like(found)
    ours = torch.autograd.grad((found * mix).sum(), inputs)
    torch.testing.assert_close(ours, torch.autograd.grad((wanted * mix).sum(), inputs))


@pytest.mark.parametrize("autocast", [False, True])
def test_without_instructions_for_16_bits_the_products_are_those_of_float32(autocast, monkeypatch):
    """Values and gradients are rounded once, at the end."""
    monkeypatch.setattr(experts, "_has_products", lambda dtype, device: dtype != torch.bfloat16)
    counts, dtype = torch.tensor([3, 0, 4]), torch.float32 if autocast else torch.bfloat16
    inputs = [torch.randn(*shape, dtype=dtype).requires_grad_() for shape in ((7, 16), (3, 8, 16), (3, 16, 8))]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = through(inputs[0], counts, *inputs[1:], torch.relu)
    assert found.dtype == torch.bfloat16
    twins = [tensor.detach().float().requires_grad_() for tensor in inputs]
    wanted = through(twins[0], counts, *twins[1:], torch.relu)
    torch.testing.assert_close(found, wanted.bfloat16(), rtol=0, atol=0)
    mix = torch.randn(found.shape).bfloat16()
    ours = torch.autograd.grad((found * mix).sum(), inputs)
    other = torch.autograd.grad((wanted * mix.float()).sum(), twins)
    torch.testing.assert_close(ours, tuple(gradient.to(dtype) for gradient in other), rtol=0, atol=0)


@pytest.mark.parametrize("row_capacity", [None, 2])
@pytest.mark.parametrize("training", [True, False])
def test_padding_takes_no_room_and_the_layout_does_not_matter(training, row_capacity):
    made = layer(row_capacity=row_capacity).train(training)
    lengths = [3, 12, 7, 1]
    valid = torch.arange(12) < torch.tensor(lengths)[:, None]
    x = torch.randn(4, 12, 8, dtype=torch.float64)
    tokens = x[valid]
    if row_capacity:
        alone = torch.cat([slow(made, part, row_capacity) for part in tokens.split(lengths)])
    else:
        alone = slow(made, tokens, room(23, 4, 1.25 if training else 2.0))
    padded = made(x, Padded(valid, torch.arange(12)))
    figures = made.figures
    torch.testing.assert_close(padded[valid], alone)
    assert not padded[~valid].any()
    rows = rows_of(valid, packed=True)
    torch.testing.assert_close(rows.unpack(made(rows.pack(x), rows)), padded)
    torch.testing.assert_close(made.figures, figures)


def test_the_router_keeps_float32_under_autocast():
    made = layer(dtype=torch.float32, width=16, hidden=32)
    x = torch.randn(40, 16)
    exact = made.probabilities(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(made.probabilities(x), exact)
        assert made(x).dtype == torch.float32
    assert made.probabilities(x.bfloat16()).dtype == torch.float32


def test_jitter_is_for_the_router_alone_and_for_training():
    made = layer(capacity=0.0, jitter=0.5, eval_capacity=0.0)
    x = torch.randn(200, 8, dtype=torch.float64)
    kept = x.clone()
    made.train()
    noisy = made(x)
    assert torch.equal(x, kept), "the input is changed in place"
    assert not torch.equal(noisy, made(x))
    made.eval()
    assert torch.equal(made(x), made(x))
    # with one expert the router has no say, so noise on its input changes nothing
    single = layer(experts=1, capacity=0.0, jitter=0.5).train()
    assert torch.equal(single(x), single(x))


def test_weights_start_at_a_tenth_of_the_variance():
    torch.manual_seed(0)
    model = switch.build(Config(width=64, hidden=256, heads=4, depth=2, experts=16, causal=True), Facts("text", 1))
    mlp = model.stack.blocks[1].mlp
    assert isinstance(mlp, SwitchMlp) and not isinstance(model.stack.blocks[0].mlp, SwitchMlp)
    for weight, inputs in ((mlp.experts.up, 64), (mlp.experts.down, 256), (mlp.router.weight, 64)):
        assert float(weight.detach().std() / (0.1 / inputs) ** 0.5) == pytest.approx(
            0.88, abs=0.05
        )  # cut at two deviations
        assert float(weight.detach().abs().max()) <= 2 * (0.1 / inputs) ** 0.5


def test_the_loss_adds_the_balance_of_every_layer_and_logs_it():
    torch.manual_seed(0)
    model = NextToken(
        switch.build(Config(width=16, hidden=32, heads=2, depth=4, experts=4, causal=True), Facts("text", 1))
    )
    found = model.loss({"ids": torch.randint(3, 259, (4, 20))})
    torch.testing.assert_close(found["loss"], found["nats_per_token"] + found["balance_loss"])
    assert {"load_most", "load_least", "dropped", "router_entropy"} <= found.keys()
    assert float(found["balance_loss"].detach()) == pytest.approx(2 * 0.01, rel=0.1)
    assert auxiliary(model) == {}, "what was added is forgotten"


def test_a_bigger_batch_of_the_same_rows_changes_nothing_without_a_limit():
    made = layer(eval_capacity=0.0).eval()
    x = torch.randn(6, 5, 8, dtype=torch.float64)
    torch.testing.assert_close(made(x), torch.cat([made(row[None]) for row in x]))


# --- processes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_processes_equal_one(world, tmp_path):
    """Values and gradients on 2 and 4 ranks, with the experts on each of them and laid over them."""
    in_ranks(switch_ranks.leave, str(tmp_path), count=world)()
    one = switch_ranks.outcome(layer_of_all=True)
    for kind in ("everywhere", "spread"):
        parts = [torch.load(tmp_path / f"{kind}-{rank}.pt", weights_only=True) for rank in range(world)]
        torch.testing.assert_close(torch.cat([part["out"] for part in parts]), one["out"], rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(torch.cat([part["x"] for part in parts]), one["x"], rtol=1e-11, atol=1e-14)
        torch.testing.assert_close(sum(part["loss"] for part in parts) / world, one["loss"], rtol=1e-12, atol=1e-14)
        for name in ("up", "down"):
            found = [part[name] for part in parts]
            whole = torch.cat(found) if kind == "spread" else sum(found) / world
            torch.testing.assert_close(whole, one[name], rtol=1e-11, atol=1e-14)
        torch.testing.assert_close(sum(part["router"] for part in parts) / world, one["router"], rtol=1e-11, atol=1e-14)
