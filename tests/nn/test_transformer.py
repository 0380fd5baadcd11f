"""The Transformer and its parts: against torch's and transformers', with and without padding, packing and cache."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from papertrial.core.errors import PapertrialError
from papertrial.nn.attention import Attention, turned
from papertrial.nn.mlp import GatedMlp, Mlp
from papertrial.nn.packing import Packed, Padded, rows_of
from papertrial.nn.position import Alibi, Learned, Position, RelativeBias, Rotary, Sinusoidal
from papertrial.nn.transformer import (
    Decoder,
    Encoder,
    EncoderDecoder,
    Ids,
    Layout,
    auxiliary,
    bert_layout,
    compile_,
    t5_layout,
)

WIDTH, HEADS, VOCABULARY = 12, 2, 30
POSITIONS = {
    "none": Position,
    "learned": lambda: Learned(40, WIDTH, offset=2),
    "sinusoidal": lambda: Sinusoidal(WIDTH),
    "rotary": lambda: Rotary(WIDTH // HEADS),
    "alibi": lambda: Alibi(HEADS),
    "relative": lambda: RelativeBias(HEADS, buckets=8, reach=10),
    "relative_one_sided": lambda: RelativeBias(HEADS, buckets=8, reach=10, two_sided=False),
}


def layout(position="none", **changes):
    plain = Layout(
        width=WIDTH,
        depth=2,
        attention=lambda layer: Attention(WIDTH, HEADS),
        mlp=lambda layer: Mlp(WIDTH, 16),
        position=POSITIONS[position],
    )
    return Layout(**{**vars(plain), **changes})


def ready(model, seed=0):
    """In float64, answering, every weight random."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3)
    return model


def batch(lengths, pad=0, seed=0, longest=None):
    generator = torch.Generator().manual_seed(seed)
    longest = longest or max([1, *lengths])
    ids = torch.randint(1, VOCABULARY, (len(lengths), longest), generator=generator)
    return ids.masked_fill(torch.arange(longest) >= torch.tensor(lengths)[:, None], pad)


def gradients(model, loss):
    named = dict(model.named_parameters())
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return dict(zip(named, found, strict=True))


def close(first, second, digits=1e-10):
    torch.testing.assert_close(first, second, rtol=digits, atol=digits)


# --- against others -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("post_norm", [False, True])
def test_an_encoder_and_a_decoder_equal_those_of_torch(post_norm):
    mine = ready(EncoderDecoder(Ids(VOCABULARY), layout(post_norm=post_norm), layout(post_norm=post_norm), tied=False))
    given = {"d_model": WIDTH, "nhead": HEADS, "dim_feedforward": 16, "dropout": 0.0, "batch_first": True}
    given |= {"norm_first": not post_norm, "activation": partial(F.gelu, approximate="tanh")}
    theirs = nn.ModuleDict(
        {"encoder": nn.ModuleList(nn.TransformerEncoderLayer(**given) for _ in range(2)),
         "decoder": nn.ModuleList(nn.TransformerDecoderLayer(**given) for _ in range(2))}
    ).double().eval()  # fmt: skip
    names = {"attention": "self_attn", "cross": "multihead_attn"}
    norms = {"encoder": ("attention", "mlp"), "decoder": ("attention", "cross", "mlp")}
    state = mine.state_dict()
    for side, order in norms.items():
        for index, layer in enumerate(theirs[side]):
            ours = f"{side}.blocks.{index}"
            wanted = {}
            for part in ("weight", "bias"):
                for own, their in names.items():
                    if f"{ours}.{own}.query.{part}" in state:
                        wanted[f"{their}.in_proj_{part}"] = torch.cat(
                            [state[f"{ours}.{own}.{name}.{part}"] for name in ("query", "key", "value")]
                        )
                        wanted[f"{their}.out_proj.{part}"] = state[f"{ours}.{own}.out.{part}"]
                wanted[f"linear1.{part}"] = state[f"{ours}.mlp.up.{part}"]
                wanted[f"linear2.{part}"] = state[f"{ours}.mlp.down.{part}"]
                for number, name in enumerate(order, 1):
                    wanted[f"norm{number}.{part}"] = state[f"{ours}.norm_{name}.{part}"]
            layer.load_state_dict(wanted)
    source, target = batch([7, 3, 1]), batch([4, 6, 2], seed=1)
    x = mine.embed.table(source)
    for layer in theirs["encoder"]:
        x = layer(x, src_key_padding_mask=source == 0)
    x = mine.encoder.norm(x)
    y = mine.embed.table(mine.shifted(target))
    past = torch.ones(6, 6, dtype=torch.bool).triu(1)
    for layer in theirs["decoder"]:
        y = layer(y, x, tgt_mask=past, memory_key_padding_mask=source == 0)
    wanted = mine.head(mine.decoder.norm(y))
    held = target != 0
    close(mine.decode(mine.shifted(target), mine.encode(source))[held], wanted[held])
    loss = F.cross_entropy(wanted[held], target[held], reduction="sum")
    close(mine.losses(source, target).sum(), loss)
    theirs_gradient = torch.autograd.grad(loss, theirs["encoder"][0].linear1.weight)[0]
    close(gradients(mine, mine.losses(source, target).sum())["encoder.blocks.0.mlp.up.weight"], theirs_gradient)


@pytest.mark.parametrize("two_sided", [True, False])
def test_buckets_are_those_of_t5(two_sided):
    from transformers.models.t5.modeling_t5 import T5Attention

    ahead = torch.arange(-300, 301)
    for buckets, reach in ((32, 128), (8, 20), (6, 7)):
        wanted = T5Attention._relative_position_bucket(ahead, two_sided, buckets, reach)
        assert torch.equal(RelativeBias(2, buckets, reach, two_sided).bucket(ahead), wanted)


@pytest.mark.parametrize("heads", [1, 2, 6, 8, 12])
def test_slopes_are_those_of_alibi(heads):
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    wanted = build_alibi_tensor(torch.ones(1, 5), heads, torch.float32).view(heads, 5)
    # theirs counts from the first key, which differs by a constant per query: the softmax is the same
    found = Alibi(heads).bias(torch.tensor([4]), torch.arange(5))[0, :, 0]
    close(found - found[:, :1], wanted - wanted[:, :1], 1e-6)


def test_turning_is_that_of_llama():
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    q, k = torch.randn(2, 1, 9, 3, 8, dtype=torch.float64)
    cos, sin = Rotary(8).turn(torch.arange(9))
    doubled = [torch.cat([part, part], -1)[None].double() for part in (cos, sin)]
    wanted = apply_rotary_pos_emb(q.transpose(1, 2), k.transpose(1, 2), *doubled)
    close(turned(q, (cos, sin)), wanted[0].transpose(1, 2))
    close(turned(k, (cos, sin)), wanted[1].transpose(1, 2))


def test_sines_are_those_of_the_formula():
    found = Sinusoidal(6).embed(torch.tensor([0, 3, 50]))
    for row, place in enumerate((0, 3, 50)):
        angles = [place / 10_000 ** (2 * i / 6) for i in range(3)]
        wanted = [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
        close(found[row], torch.tensor(wanted), 1e-5)


# --- padding, packing, cache ----------------------------------------------------------------------------------------

LENGTHS = st.lists(st.integers(0, 9), min_size=1, max_size=7)


@pytest.mark.parametrize("position", POSITIONS)
def test_packing_changes_neither_answers_nor_gradients(position):
    model = ready(Encoder(Ids(VOCABULARY), layout(position), segments=2, embed_norm=True))
    ids = batch([9, 2, 0, 9, 5, 1, 6])
    packed, padded = model.encode(ids, packed=True), model.encode(ids, packed=False)
    assert isinstance(packed.rows, Packed) and isinstance(padded.rows, Padded) and len(packed.rows.groups) > 2
    weight = torch.randn(7, 9, WIDTH, dtype=torch.float64)
    first, second = (encoded.rows.unpack(encoded.x) for encoded in (packed, padded))
    close(first, second)
    wanted = gradients(model, (second * weight).sum())
    for name, gradient in gradients(model, (first * weight).sum()).items():
        close(gradient, wanted[name])


@pytest.mark.parametrize("position", POSITIONS)
def test_a_causal_row_has_the_same_losses_alone_and_in_a_batch(position):
    model = ready(Decoder(Ids(VOCABULARY), layout(position)))
    lengths = [9, 2, 1, 4, 6]
    ids = batch(lengths)
    together = model.losses(ids)
    for row, length in enumerate(lengths):
        alone = ids[row : row + 1, :length]
        close(together[row, :length], model.losses(alone)[0])
        assert not together[row, length:].any()
        if length > 1:
            wanted = F.cross_entropy(model.logits(alone)[0, :-1], alone[0, 1:], reduction="none")
            close(together[row, 1:length], wanted)
    padded = model.logits(ids)
    loss = sum(
        F.cross_entropy(padded[row, : length - 1], ids[row, 1:length], reduction="sum")
        for row, length in enumerate(lengths)
        if length > 1
    )
    wanted = gradients(model, loss)
    for name, gradient in gradients(model, together.sum()).items():
        close(gradient, wanted[name])


@settings(max_examples=30)
@given(LENGTHS, st.integers(0, 4), st.sampled_from(["mean", "first", "last"]))
def test_more_padding_never_changes_an_answer(lengths, more, pool):
    model = ready(Encoder(Ids(VOCABULARY), layout("relative"), pool))
    ids = batch(lengths)
    longer = F.pad(ids, (0, more))
    with torch.no_grad():
        answers = model(ids)
        assert answers.isfinite().all()
        close(model(longer), answers)
        alone = torch.cat([model(ids[row : row + 1, : max(length, 1)]) for row, length in enumerate(lengths)])
    close(alone, answers)


@settings(max_examples=25)
@given(st.data(), st.sampled_from(sorted(POSITIONS)), st.sampled_from([0, None]))
def test_a_cache_read_in_any_pieces_gives_the_same(data, position, pad):
    model = ready(Decoder(Ids(VOCABULARY, pad), layout(position)))
    ids = batch([8, 8, 8])
    cuts = sorted(data.draw(st.sets(st.integers(1, 7))))
    sizes = [last - first for first, last in zip([0, *cuts], [*cuts, 8], strict=True)]
    cache = model.cache(3, 8)
    held = cache.keys.data_ptr()
    with torch.no_grad():
        pieces = [model.logits(piece, cache) for piece in ids.split(sizes, 1)]
        close(torch.cat(pieces, 1), model.logits(ids))
    assert cache.keys.data_ptr() == held and cache.used == 8 and cache.length.tolist() == [8, 8, 8]


@pytest.mark.parametrize("position", POSITIONS)
def test_rows_of_different_length_go_on_together(position):
    """Prompts are padded at the end; what is generated takes the place of the padding."""
    model = ready(Decoder(Ids(VOCABULARY), layout(position)))
    lengths = [5, 1, 3]
    ids, more = batch(lengths), batch([4, 4, 4], seed=3)
    cache = model.cache(3, 9)
    with torch.no_grad():
        found = [model.next(ids, cache)] + [model.next(more[:, step : step + 1], cache) for step in range(4)]
        for row, length in enumerate(lengths):
            whole = torch.cat([ids[row, :length], more[row]])[None]
            close(torch.stack([step[row] for step in found]), model.logits(whole)[0, length - 1 :])


def test_beams_are_chosen_from_the_cache():
    source, start = batch([6, 3]), torch.zeros(2, 1, dtype=torch.int64)
    model = ready(EncoderDecoder(Ids(VOCABULARY), layout("relative"), layout("relative_one_sided")))
    encoded, cache = model.encode(source), model.cache(2, 5)
    choices = torch.tensor([1, 0, 0])
    with torch.no_grad():
        model.next(start, encoded, cache)
        cache.select(choices)
        chosen = encoded.select(choices)
        first, second = torch.tensor([[4], [5], [6]]), torch.tensor([[7], [8], [9]])
        model.next(first, chosen, cache)
        again = torch.tensor([2, 0, 1])
        held = cache.keys.data_ptr()
        cache.select(again)
        assert cache.keys.data_ptr() == held
        found = model.next(second, chosen.select(again), cache)
        history = torch.cat([start.new_zeros(3, 1), first[again], second], 1)
        close(found, model.next(history, model.encode(source[choices[again]])))


def test_a_full_cache_and_a_long_row_are_refused():
    model = Decoder(Ids(VOCABULARY), layout("learned"))
    with pytest.raises(ValueError, match="the cache has 3 places: 0 used, 4 wanted"):
        model.logits(batch([4]), model.cache(1, 3))
    with pytest.raises(PapertrialError, match="a row has 41 tokens and the model has places for 40"):
        model.logits(batch([41]))
    with pytest.raises(PapertrialError, match="places for 40"):
        model.cache(1, 41)


def test_rows_of_one_token_and_of_none():
    model = ready(Decoder(Ids(VOCABULARY), layout("learned")))
    assert model.losses(batch([1, 1])).tolist() == [[0.0], [0.0]]
    with pytest.raises(ValueError, match="2 rows without a place for a token"):
        model(torch.zeros(2, 0, dtype=torch.int64))


def test_padding_inside_a_row_is_a_token():
    """A model may end its texts with the id it pads with (GPT-2)."""
    model = ready(Decoder(Ids(VOCABULARY, pad=7, end=7), layout("rotary")))
    ids = torch.tensor([[3, 7, 4, 5, 7, 7], [1, 2, 7, 7, 7, 7]])
    close(model.losses(ids)[0, :4], model.losses(ids[:1, :4])[0])
    assert (model.losses(ids) > 0).sum() == 3 + 1


def test_packing_is_left_out_where_it_saves_nothing():
    valid = torch.ones(4, 10, dtype=torch.bool)
    assert rows_of(valid).valid is None
    valid[0, 9] = False
    assert isinstance(rows_of(valid), Padded)
    valid[0, 2:] = False
    assert isinstance(rows_of(valid), Packed) and isinstance(rows_of(valid, packed=False), Padded)


# --- parts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"residual": False},
        {"norm": nn.Identity},
        {"norm": nn.RMSNorm, "mlp": lambda layer: GatedMlp(WIDTH, 8)},
        {"attention": lambda layer: Attention(WIDTH, 3, bias=False, head_width=2, scale=1.0)},
        {"mlp": lambda layer: Mlp(WIDTH, 8, activation=nn.ReLU(), bias=False)},
        {"residual": False, "norm": nn.Identity, "post_norm": True},
        {"depth": 0},
    ],
)
def test_parts_are_swapped(changes):
    model = ready(Encoder(Ids(VOCABULARY), layout(**changes)))
    assert model(batch([3, 5])).isfinite().all()
    if "residual" in changes and "post_norm" not in changes:
        x = torch.randn(1, 4, WIDTH, dtype=torch.float64)
        rows = rows_of(torch.ones(1, 4, dtype=torch.bool))
        by_hand = x
        for block in model.stack.blocks:
            by_hand = block.mlp(block.norm_mlp(block.attention(block.norm_attention(by_hand))))
        close(model.stack(x, rows), model.stack.norm(by_hand))


class Counting(nn.Module):
    """A feed-forward that looks at the rows and adds to the loss."""

    sees_rows = True

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x, rows):
        self.aux = {"tokens": self.weight * rows.unpack(torch.ones_like(x[..., 0])).sum()}
        return self.weight * x


@pytest.mark.parametrize("lengths", [[6, 1, 2], [6, 6, 6]])
def test_a_part_sees_the_rows_and_adds_to_the_loss(lengths):
    mixed = layout(mlp=lambda layer: Counting() if layer % 2 else Mlp(WIDTH, 8), depth=4)
    model = ready(Encoder(Ids(VOCABULARY), mixed))
    model(batch(lengths))
    weight = sum(module.weight for module in model.modules() if isinstance(module, Counting))
    found = auxiliary(model)
    close(found["tokens"], weight * sum(lengths))
    found["tokens"].backward()
    assert auxiliary(model) == {}


def test_what_goes_in_and_what_comes_out_of_each_layer():
    model = ready(Encoder(Ids(VOCABULARY), layout("learned")))
    ids = batch([4, 2])
    kept = model.layers(ids)
    assert len(kept) == 3
    held = (ids != 0)[..., None]
    close(kept[0], (model.embed.table(ids) + model.stack.position.table.weight[2:6]) * held)
    close(model.stack.norm(kept[-1]) * held, model.tokens(ids))


def test_dropout_happens_in_training_only():
    torch.manual_seed(0)
    model = Encoder(Ids(VOCABULARY), bert_layout(WIDTH, 2, HEADS, 16, dropout=0.5), embed_norm=True)
    ids = batch([5, 5])
    assert not torch.equal(model(ids), model(ids))
    model.eval()
    assert torch.equal(model(ids), model(ids))


def test_an_unknown_pool_and_heads_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="no pool 'max'"):
        Encoder(Ids(VOCABULARY), layout(), pool="max")
    with pytest.raises(ValueError, match="5 heads do not divide"):
        Attention(12, 5)
    for odd in (Sinusoidal, Rotary):
        with pytest.raises(ValueError, match="even"):
            odd(5)


# --- traced ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", ["learned", "rotary", "relative", "alibi"])
def test_an_encoder_is_exported_for_any_number_of_rows_and_tokens(position):
    model = Encoder(Ids(VOCABULARY), layout(position)).eval()
    shapes = ({0: torch.export.Dim("rows"), 1: torch.export.Dim("tokens", max=40)},)
    program = torch.export.export(model, (batch([5, 3]),), dynamic_shapes=shapes).module()
    for lengths in ([5, 3], [1], [9, 0, 2, 40]):
        ids = batch(lengths)
        close(program(ids), model(ids), 1e-5)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch looks at it while tracing, and hides its own warning
@pytest.mark.parametrize("kind", ["encoder", "both"])
def test_compiled_layer_by_layer_rows_stay_packed_and_few_programs_serve_all_lengths(kind):
    from torch._dynamo.testing import CompileCounter

    def made():
        ids = Ids(VOCABULARY)
        if kind == "encoder":
            return ready(Encoder(ids, layout("relative", depth=4)))
        t5 = partial(t5_layout, WIDTH, 3, HEADS, 5, lambda layer: GatedMlp(WIDTH, 8))
        return ready(EncoderDecoder(ids, t5(), t5(causal=True)))

    def value(model, lengths):
        ids = batch(lengths)
        assert isinstance(model.encode(ids).rows, Packed)
        return model(ids).square().sum() if kind == "encoder" else model.losses(ids, batch(lengths[::-1], seed=1)).sum()

    torch._dynamo.reset()
    plain, compiled = made(), made()
    counter = CompileCounter()
    parts = compile_(compiled, backend=counter)
    assert len(parts) == {"encoder": 4, "both": 6}[kind]
    seen = []
    for lengths in ([9, 2, 5], [4, 4, 1, 7], [3, 8], [30, 29, 2, 2], [11, 5, 1, 1, 1, 6], [2, 17]):
        losses = [value(model, lengths) for model in (plain, compiled)]
        close(losses[1], losses[0])
        theirs, mine = (gradients(model, loss) for model, loss in zip((plain, compiled), losses, strict=True))
        for name, gradient in theirs.items():
            assert (gradient is None) == (mine[name] is None)
            if gradient is not None:
                close(mine[name], gradient)
        seen.append(counter.frame_count)
    assert seen[0] > 0 and seen[2] == seen[-1] < 25, "programs traced anew for other lengths"


def test_what_does_not_read_rows_of_mixed_lengths_is_compiled_as_a_whole():
    net = nn.Sequential(nn.Linear(3, 2), nn.Tanh())
    assert compile_(net, backend="eager") == [net]
    x = torch.randn(4, 3)
    close(net(x), net[1](net[0](x)))
    model = ready(Decoder(Ids(VOCABULARY), layout("rotary")))
    assert compile_(model, backend="eager") == [model]


def test_a_compiled_decoder_answers_the_same():
    model = ready(Decoder(Ids(VOCABULARY), t5_layout(WIDTH, 2, HEADS, 5, lambda layer: Mlp(WIDTH, 8), causal=True)))
    compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=True)
    ids = batch([7, 2, 5])
    close(compiled(ids), model(ids))
