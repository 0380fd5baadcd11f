"""Writing: what is chosen, with what probability, batches against single rows, beams, and transformers' `generate`."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from papertrial.core.errors import PapertrialError
from papertrial.core.task import Ragged
from papertrial.nn import pretrained
from papertrial.nn.attention import Attention
from papertrial.nn.decode import GREEDY, Choice, beam, complete, sample
from papertrial.nn.mlp import Mlp
from papertrial.nn.position import Alibi, Learned, RelativeBias, Rotary
from papertrial.nn.transformer import Decoder, EncoderDecoder, Ids, Layout

WIDTH, HEADS, LONGEST = 16, 2, 40
POSITIONS = {
    "learned": lambda: Learned(LONGEST, WIDTH),
    "relative": lambda: RelativeBias(HEADS, two_sided=False),
    "rotary": lambda: Rotary(WIDTH // HEADS),
    "alibi": lambda: Alibi(HEADS),
}


def layout(position, depth=2):
    return Layout(
        WIDTH, depth, lambda layer: Attention(WIDTH, HEADS), lambda layer: Mlp(WIDTH, 32), position=POSITIONS[position]
    )


def spread(model):
    """Weights large enough that the next token depends on all that was read."""
    torch.manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                table = name.startswith("embed") or "position" in name
                parameter.normal_(std=1.0 if table else 2 * parameter.shape[-1] ** -0.5)
    return model.double().eval()


def causal(position="learned", end=4, size=12):
    return spread(Decoder(Ids(size, 0, end), layout(position), tied=False))


def translator(position="relative", end=1, size=12):
    return spread(EncoderDecoder(Ids(size, 0, end), layout(position), layout(position), tied=False))


class Fixed(nn.Module):
    """Answers with the row of a table that the last token names, whatever came before; counts what it reads."""

    def __init__(self, table, pad=None, end=None):
        super().__init__()
        self.table = nn.Parameter(torch.as_tensor(table, dtype=torch.float64))
        self.tokeniser = Ids(self.table.shape[1], pad, end)
        self.read = []

    used, longest = 0, None

    def cache(self, rows, longest):
        return self

    def select(self, rows):
        self.read.append(("select", rows.tolist()))

    def next(self, ids, cache):
        self.read.append(("next", tuple(ids.shape)))
        return self.table[ids[:, -1]]


PROMPTS = Ragged.of([[5, 6, 7, 8, 9, 10, 11], [3], [4, 4, 2], [], [7, 8, 9]])


def written(steps, rows):
    found = [[] for _ in range(rows)]
    for places, tokens in steps:
        for place, token in zip(places, tokens, strict=True):
            found[place].append(int(token))
    return found


# ------------------------------------------------------------------------------------------------------ what is chosen


@settings(max_examples=200)
@given(
    logits=st.lists(st.sampled_from([-3.0, -1.0, 0.0, 0.5, 0.5001, 2.0, 9.0, -math.inf]), min_size=1, max_size=9).filter(lambda row: max(row) > -math.inf),
    temperature=st.sampled_from([0.3, 1.0, 4.0]),
    top_k=st.integers(0, 10),
    top_p=st.sampled_from([1e-9, 0.213, 0.517, 0.931, 1.0]),
)  # fmt: skip
def test_filters_keep_what_they_say(logits, temperature, top_k, top_p):
    found = Choice(temperature, top_k, top_p).probabilities(torch.tensor([logits])).tolist()[0]
    plain = np.exp(np.array(logits) / temperature)
    kept = sorted(plain, reverse=True)[: top_k or None]
    wanted = np.where(plain >= kept[-1], plain, 0)
    wanted /= wanted.sum()
    mass, nucleus = 0.0, np.zeros_like(wanted)
    for place in np.argsort(-wanted, kind="stable"):
        if mass < top_p or top_p == 1:
            nucleus[place] = wanted[place]
        mass += wanted[place]
    assert np.allclose(found, nucleus / nucleus.sum(), atol=1e-12)
    assert found[int(np.argmax(logits))] > 0


def test_filters_are_those_of_transformers():
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    logits = torch.randn(20, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    for temperature, k, p in ((0.7, 10, 0.8), (1.5, 50, 0.5), (1.0, 1, 0.9), (2.0, 50, 0.999)):
        scores = logits
        for warper in (TemperatureLogitsWarper(temperature), TopKLogitsWarper(k), TopPLogitsWarper(p)):
            scores = warper(None, scores)
        found = Choice(temperature, k, p).probabilities(logits)
        assert torch.allclose(found, scores.softmax(-1), atol=1e-12)


@pytest.mark.parametrize("choice", [Choice(), Choice(0.5, 4, 0.9), Choice(2.0, 0, 0.7)])
def test_draws_follow_the_filtered_softmax(choice):
    logits = torch.tensor([0.3, 2.0, -1.0, 1.1, -math.inf, 0.9, 1.8])
    exact = choice.probabilities(logits[None])[0].numpy()
    model, count = Fixed(logits[None].expand(7, -1)), 4000
    tokens = np.concatenate(complete(model, Ragged.of([[0]]), 1, choice, seeds=range(count))[:].values.reshape(1, -1))
    seen = np.bincount(tokens, minlength=len(exact))
    assert not seen[exact == 0].any()
    assert stats.chisquare(seen[exact > 0], count * exact[exact > 0]).pvalue > 1e-3
    later = written(sample(model, Ragged.of([[0]]), count, choice, seeds=[5]), 1)[
        0
    ]  # along a row, as well as across rows
    seen = np.bincount(later, minlength=len(exact))
    assert stats.chisquare(seen[exact > 0], count * exact[exact > 0]).pvalue > 1e-3


def test_the_edges_of_chance_give_tokens_that_can_come():
    logits = torch.tensor([[-math.inf, 0.0, 0.0, -math.inf]]).expand(3, -1)
    at = torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)
    assert Choice().take(logits, at).tolist() == [1, 2, 2]
    assert GREEDY.take(torch.tensor([[0.0, 3.0, 1.0]]), at[:1]).tolist() == [1]
    assert GREEDY.probabilities(torch.tensor([[0.0, 3.0, 1.0]])).tolist() == [[0.0, 1.0, 0.0]]


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1}, {"temperature": math.nan}, {"top_k": -1}, {"top_p": 0}, {"top_p": 1.5}]
)
def test_a_choice_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match="at most 1"):
        Choice(**wrong)


# -------------------------------------------------------------------------------------------------- batches and single rows


@pytest.mark.parametrize("make", [*(lambda position=position: causal(position) for position in POSITIONS), translator])
@pytest.mark.parametrize("choice", [GREEDY, Choice(1.3), Choice(0.9, 5, 0.8)])
def test_a_batch_writes_what_each_row_writes_alone(make, choice):
    model, seeds = make(), (3, 4)
    together = complete(model, PROMPTS, 20, choice, seeds)
    assert len({tuple(together[row]) for row in range(len(together))}) > len(PROMPTS) // 2, "the prompts do not matter"
    for row in range(len(PROMPTS)):
        for place, seed in enumerate(seeds):
            alone = complete(model, PROMPTS[[row]], 20, choice, [seed])
            assert alone[0].tolist() == together[2 * row + place].tolist(), (row, seed)
    assert {tuple(row) for row in together.padded()} == {
        tuple(row) for row in complete(model, PROMPTS, 20, choice, seeds, batch=2).padded()
    }


@pytest.mark.parametrize("position", POSITIONS)
def test_the_cache_writes_what_reading_all_again_writes(position):
    model = causal(position, end=None)
    found = complete(model, PROMPTS, 12)
    for row in range(len(PROMPTS)):
        ids = PROMPTS[row].tolist() or [0]
        for token in found[row]:
            logits = model.logits(torch.tensor([ids]))[0, -1]
            logits[0] = -math.inf
            assert int(logits.argmax()) == token
            ids.append(int(token))


def test_a_translator_reads_its_source():
    model = translator(end=None)
    found = complete(model, PROMPTS, 8)
    for row in range(len(PROMPTS)):
        source = torch.tensor([PROMPTS[row].tolist() or [0]])
        ids = [model.start]
        for token in found[row]:
            logits = model.decode(torch.tensor([ids]), model.encode(source))[0, -1]
            logits[0] = -math.inf
            assert int(logits.argmax()) == token
            ids.append(int(token))


def test_a_seed_draws_the_same_for_any_length_and_any_batch():
    model = causal(end=None)
    one = written(sample(model, PROMPTS[[0]], 15, Choice(1.5), [9]), 1)[0]
    assert one[:6] == written(sample(model, PROMPTS[[0]], 6, Choice(1.5), [9]), 1)[0]
    assert one == written(sample(model, PROMPTS[[1, 0]], 15, Choice(1.5), [8, 9]), 4)[3]
    assert one != written(sample(model, PROMPTS[[0]], 15, Choice(1.5), [10]), 1)[0]


def test_rows_end_and_are_read_no_further():
    table = np.full((5, 5), -9.0)
    table[2, 3] = table[3, 1] = table[4, 4] = 9.0  # 2 -> 3 -> end, 4 for ever
    model = Fixed(table, pad=0, end=1)
    steps = list(sample(model, Ragged.of([[2], [4], [3]]), 4))
    assert [rows.tolist() for rows, _ in steps] == [[0, 1, 2], [0, 1], [1], [1]]
    assert written(steps, 3) == [[3, 1], [4, 4, 4, 4], [1]]
    assert [what for what in model.read if what[0] == "next"] == [("next", (count, 1)) for count in (3, 2, 1, 1)]
    model.read.clear()
    assert written(sample(model, Ragged.of([[2], [3]]), 50), 2) == [[3, 1], [1]]
    assert len([what for what in model.read if what[0] == "next"]) == 2  # all have ended


def test_tokens_come_before_the_next_are_computed():
    model = Fixed(np.zeros((3, 3)))
    steps = sample(model, Ragged.of([[0]]), 10)
    next(steps)
    assert len(model.read) == 1


def test_padding_is_never_written():
    table = np.zeros((3, 3))
    table[:, 0] = 50.0
    found = complete(Fixed(table, pad=0, end=1), Ragged.of([[2]]), 30, Choice(), seeds=range(5))
    assert 0 not in found.values
    assert {0} == set(
        complete(Fixed(table, pad=0, end=0), Ragged.of([[2]]), 30).values
    )  # unless it is what ends a text
    assert all(0 not in best.ids for best in beam(Fixed(table, pad=0, end=1), Ragged.of([[2]]), 4)[0])


def test_nothing_to_write():
    model = causal()
    assert (
        list(sample(model, Ragged.of([]), 5)) == [] == list(sample(model, PROMPTS, 0)) == beam(model, Ragged.of([]), 5)
    )
    assert complete(model, PROMPTS, 0).lengths.tolist() == [0] * 5 and beam(model, PROMPTS, 0) == [[]] * 5
    assert complete(model, Ragged.of([[], []]), 3)[0].tolist() == complete(model, Ragged.of([[0]]), 3)[0].tolist()


def test_what_a_model_cannot_write_is_refused():
    with pytest.raises(ValueError, match="padding"):
        complete(Fixed(np.zeros((3, 3))), Ragged.of([[1], [1, 2]]), 2)
    with pytest.raises(PapertrialError, match="not numbers"):
        complete(Fixed(np.full((3, 3), math.nan)), Ragged.of([[1]]), 2)


@pytest.mark.parametrize("start", [None, 3])
@pytest.mark.parametrize("how", ["positions", "training"])
def test_a_row_that_becomes_too_long_is_read_from_its_last_half(how, start):
    model = causal("learned" if how == "positions" else "rotary", end=None)
    longest = LONGEST if how == "positions" else 9
    model.longest = None if how == "positions" else longest
    prompts = Ragged.of([[5, 6, 7, 8], [3] * 3, [4, 6] * 25, []])
    found = complete(model, prompts, 60, Choice(0.8), seeds=[1], start=start)
    for row in range(len(prompts)):
        assert (
            complete(model, prompts[[row]], 60, Choice(0.8), seeds=[1], start=start)[0].tolist() == found[row].tolist()
        )
        lead = [] if start is None else [start]
        window = prompts[row].tolist() or ([] if lead else [0])
        at = np.random.Generator(np.random.Philox(key=1)).random(60)
        for step, token in enumerate(found[row].tolist()):
            if len(lead) + len(window) > longest:
                window = window[-(longest // 2) :]
            logits = model.logits(torch.tensor([lead + window]))[:, -1].detach()
            logits[0, 0] = -math.inf
            assert int(Choice(0.8).take(logits, torch.tensor([at[step]]))) == token
            window.append(token)
    beams = beam(model, prompts, 20, 2, start=start)
    assert [row[0].ids.tolist() for row in beams] == [
        beam(model, prompts[[row]], 20, 2, start=start)[0][0].ids.tolist() for row in range(4)
    ]


# ------------------------------------------------------------------------------------------------------------------- beams


def every_text(model, prompt, length, penalty):
    """All texts with their scores, best first."""
    open_texts, closed = [([], 0.0)], []
    for _ in range(length):
        grown = []
        for text, score in open_texts:
            logits = model.logits(torch.tensor([[*prompt, *text]]))[0, -1]
            grown += [
                ([*text, token], score + more) for token, more in enumerate(logits.log_softmax(-1).tolist()) if token
            ]
        closed += [entry for entry in grown if entry[0][-1] == model.tokeniser.end]
        open_texts = [entry for entry in grown if entry[0][-1] != model.tokeniser.end]
    return sorted(
        ((text, score / len(text) ** penalty) for text, score in closed + open_texts), key=lambda entry: -entry[1]
    )


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_wide_beams_find_the_best_of_all_texts(penalty):
    model = causal(end=1, size=5)
    wanted = every_text(model, [3, 4], 4, penalty)
    found = beam(model, Ragged.of([[3, 4]]), 4, beams=300, length_penalty=penalty)[0]
    assert found[0].ids.tolist() == wanted[0][0]
    for (ids, score), (text, exact) in zip(found[:20], wanted[:20], strict=True):
        assert ids.tolist() == text and score == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("make", [causal, translator])
def test_beams_of_a_batch_are_those_of_each_row_alone(make):
    model = make()
    together = beam(model, PROMPTS, 10, beams=3)
    assert len(together) == len(PROMPTS)
    for row in range(len(PROMPTS)):
        alone = beam(model, PROMPTS[[row]], 10, beams=3, batch=1)[0]
        assert [entry.ids.tolist() for entry in alone] == [entry.ids.tolist() for entry in together[row]]
        assert [entry.score for entry in alone] == pytest.approx([entry.score for entry in together[row]])
        assert sorted([entry.score for entry in alone], reverse=True) == [entry.score for entry in alone]
    assert any(len(entry.ids) < 10 for row in together for entry in row), "no text ends"


def test_one_beam_is_greedy():
    model = causal()
    found = [best[0].ids.tolist() for best in beam(model, PROMPTS, 10, beams=1)]
    assert found == [row.tolist() for row in (complete(model, PROMPTS, 10)[place] for place in range(5))]
    with pytest.raises(ValueError, match="0 beams"):
        beam(model, PROMPTS, 10, beams=0)


def test_few_tokens_leave_beams_empty():
    found = beam(Fixed(np.zeros((3, 3)), pad=0, end=1), Ragged.of([[2]]), 1, beams=5)[0]
    assert sorted(entry.ids.tolist() for entry in found) == [[1], [2]]


# ----------------------------------------------------------------------------------------------------------- transformers


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=30, n_positions=48, n_embd=16, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=1, initializer_range=0.6
    )  # fmt: skip
    torch.manual_seed(1)
    model = GPT2LMHeadModel(config)
    model.transformer.h[0].attn.c_proj.weight.data *= 3
    model.transformer.ln_f.bias.data.normal_()
    model.transformer.wte.weight.data[1] *= 2  # texts end now and then
    return model, Ids(30, 1, 1)


def t5():
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=30, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu",
        tie_word_embeddings=False, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1, initializer_factor=3.0,
    )  # fmt: skip
    torch.manual_seed(1)
    model = T5ForConditionalGeneration(config)
    model.lm_head.weight.data *= 0.5
    model.lm_head.weight.data[1] *= 3
    return model, Ids(30, 0, 1)


@pytest.fixture(scope="module", params=[gpt2, t5])
def both(request):
    """Their model, ours with its weights, and the arguments of their `generate`."""
    theirs, tokeniser = request.param()
    settings = theirs.config.to_dict()
    ours = pretrained.build(settings, tokeniser)
    pretrained.fill(ours, theirs.state_dict(), settings)
    more = {"pad_token_id": tokeniser.pad, "eos_token_id": 1, "do_sample": False}
    more |= {} if tokeniser.pad == 1 else {"suppress_tokens": [tokeniser.pad]}
    return theirs.double().eval(), ours.double().eval(), more


SOURCES = Ragged.of(np.split(np.random.default_rng(0).integers(2, 30, 60), [1, 4, 11, 13, 30, 48]))


def behind(out, row):
    """What their `generate` wrote: the prompt of a causal model, or the start of an answer, comes first."""
    return (
        out[len(SOURCES[row]) :]
        if len(out) > len(SOURCES[row]) and out[: len(SOURCES[row])] == SOURCES[row].tolist()
        else out[1:]
    )


def test_greedy_is_that_of_transformers(both):
    theirs, ours, more = both
    found = complete(ours, SOURCES, 20)
    for row in range(len(SOURCES)):
        wanted = theirs.generate(torch.tensor(SOURCES[[row]].padded()).long(), max_new_tokens=20, **more)[0].tolist()
        assert found[row].tolist() == behind(wanted, row)
    assert len(set(found.lengths)) > 1 and found.lengths.max() == 20, "some texts end and some do not"


@pytest.mark.parametrize(("beams", "penalty"), [(2, 1.0), (4, 1.0), (3, 0.0), (4, 2.0), (3, -1.0)])
def test_beams_are_those_of_transformers(both, beams, penalty):
    theirs, ours, more = both
    found = beam(ours, SOURCES, 15, beams, penalty)
    for row in range(len(SOURCES)):
        out = theirs.generate(
            torch.tensor(SOURCES[[row]].padded()).long(), max_new_tokens=15, num_beams=beams, num_return_sequences=beams,
            length_penalty=penalty, return_dict_in_generate=True, output_scores=True, **more,
        )  # fmt: skip
        for best, ids, score in zip(found[row], out.sequences.tolist(), out.sequences_scores.tolist(), strict=True):
            wanted = behind(ids, row)[: len(best.ids)]
            assert best.ids.tolist() == wanted
            assert set(behind(ids, row)[len(best.ids) :]) <= {
                more["pad_token_id"],
                1,
            }  # theirs fills a padding id of 0 with the end
            assert best.score == pytest.approx(score, rel=1e-4, abs=1e-5)
    assert len({len(best.ids) for row in found for best in row}) > 2, "texts of several lengths are compared"
