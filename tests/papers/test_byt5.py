"""ByT5: equal to transformers in values and gradients, span corruption as T5 makes it, weights both ways, pre-training."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

import papertrial
from papertrial import testing
from papertrial.baselines import t5
from papertrial.claims import byt5 as claims
from papertrial.core.budget import Budget
from papertrial.core.errors import Declined, PapertrialError
from papertrial.core.task import Ragged
from papertrial.data.texts import Pairs, Texts
from papertrial.nn import pretrained
from papertrial.nn.tokenise import Bytes
from papertrial.nn.views import Draw
from papertrial.papers import byt5
from papertrial.papers.byt5 import ByT5, ByT5Encoder, Config, Spans, reassembled

TINY = {
    "width": 16, "encoder_depth": 3, "decoder_depth": 1, "heads": 2, "head_width": 5, "hidden": 24, "longest": 40,
}  # fmt: skip
THEIRS = {
    "vocab_size": 384, "d_model": 16, "num_layers": 3, "num_decoder_layers": 1, "num_heads": 2, "d_kv": 5, "d_ff": 24,
    "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "decoder_start_token_id": 0, "dropout_rate": 0.0,
}  # fmt: skip
WORDS = ["", "a", "Grüße, 世界 🌍", "</s> <extra_id_0>", "line\nbreak\x00"]


def peers():
    return pytest.importorskip("transformers")


@pytest.fixture
def all_digits(monkeypatch):
    """Their RMS norm takes the mean of squares in float32 whatever the model is in; here it keeps all digits."""
    peers()
    from transformers.models.t5 import modeling_t5

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)

    monkeypatch.setattr(modeling_t5.T5LayerNorm, "forward", forward)


def twins(scale=0.3):
    """Their model with random weights and ours with the same, in float64."""
    library = peers()
    torch.manual_seed(0)
    theirs = library.T5ForConditionalGeneration(library.T5Config(**THEIRS))
    theirs.lm_head = torch.nn.Linear(16, 384, bias=False)  # transformers 5 ties it whatever the configuration says
    theirs = theirs.double().eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(scale * torch.randn_like(parameter))
    names = json.loads(theirs.config.to_json_string(use_diff=False))
    ours = ByT5(Config(**TINY)).double().eval()
    found = pretrained.to_ours(theirs.state_dict(), pretrained.FAMILIES["t5"], names)
    ours.load_state_dict(found)
    return theirs, ours, names


def padded(texts):
    return torch.from_numpy(Bytes().encode(texts).padded().astype(np.int64))


@pytest.mark.parametrize("scale", [0.3, 0.02, 2.0], ids=["usual", "small", "large"])
def test_loss_and_gradients_equal_transformers(all_digits, scale):
    theirs, ours, names = twins(scale)
    source, target = padded(WORDS), padded(WORDS[::-1])
    nats = ours.losses(source, target)
    labels = target.masked_fill(target == 0, -100)
    expected = theirs(input_ids=source, attention_mask=(source != 0).long(), labels=labels)
    per_token = F.cross_entropy(expected.logits.flatten(0, 1), labels.flatten(), reduction="none").view(target.shape)
    assert torch.allclose(nats, per_token, rtol=1e-9, atol=1e-11)
    (nats.sum() / (target != 0).sum()).backward()
    expected.loss.backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    gradients = pretrained.to_ours(gradients, pretrained.FAMILIES["t5"], names)
    for name, parameter in ours.named_parameters():
        difference = (parameter.grad - gradients[name]).abs().max()
        assert difference <= 1e-9 * max(1e-3, float(gradients[name].abs().max())), name


def test_features_are_the_mean_of_their_encoder(all_digits):
    theirs, ours, _ = twins()
    source = padded(WORDS)
    mask = source != 0
    hidden = theirs.encoder(input_ids=source, attention_mask=mask.long()).last_hidden_state
    mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    assert torch.allclose(ours(source), mean, rtol=1e-9, atol=1e-11)
    alone = ByT5Encoder(Config(**TINY)).double().eval()
    alone.load_state_dict(
        {
            name: ours.state_dict()[name.replace("stack.", "encoder.", 1) if name.startswith("stack.") else name]
            for name in alone.state_dict()
        }
    )
    assert torch.allclose(alone(source), mean, rtol=1e-9, atol=1e-11)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=4))
def test_ids_are_those_of_their_tokeniser(texts):
    library = peers()
    theirs = library.ByT5Tokenizer(extra_ids=0)
    for text, row in zip(texts, Bytes().encode(texts), strict=True):
        if not any(special in text for special in ("<pad>", "</s>", "<unk>")):  # theirs takes typed specials for such
            assert row.tolist() == theirs(text).input_ids
        assert Bytes().decode(row) == text


def test_what_is_no_utf8_is_dropped():
    assert Bytes().decode([ord("a") + 3, 0xFF + 3, 0xC3 + 3, ord("b") + 3, 1, 300, 0]) == "ab"


# --- span corruption ----------------------------------------------------------------------------------------------------


def by_hand(row, hidden, mask=258):
    """Source and target of one row, token by token."""
    source, target, spans = [], [], -1
    for place, token in enumerate(row):
        if hidden[place]:
            if place == 0 or not hidden[place - 1]:
                spans += 1
                source.append(mask - spans)
                target.append(mask - spans)
            target.append(token)
        else:
            source.append(token)
    return [*source, 1], [*target, 1]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=5), st.floats(0.05, 0.8), st.floats(1, 30), st.integers(0, 99))
def test_corruption_equals_token_by_token(lengths, share, mean, seed):
    spans, size = Spans(share, mean), 96
    ids = (
        Ragged.of([[32 + (7 * place) % 90 for place in range(length)] for length in lengths]).padded().astype(np.int64)
    )
    source, target = spans.corrupt(torch.from_numpy(ids), size, Draw(seed, 0, len(lengths)))
    hidden = spans.hide(torch.tensor(lengths), size, Draw(seed, 0, len(lengths)))
    count, parts = spans.counts(torch.tensor(lengths))
    for row, length in enumerate(lengths):
        expected = by_hand(ids[row, :length].tolist(), hidden[row].tolist())
        for made, want in zip((source[row], target[row]), expected, strict=True):
            assert made[: len(want)].tolist() == want
            assert not made[len(want) :].any()
        assert hidden[row].sum() == count[row] and not hidden[row, 0] and not hidden[row, length:].any()
        begins = hidden[row, 1:] & ~hidden[row, :-1]
        assert begins.sum() == parts[row]
        assert reassembled(source[row].tolist(), target[row].tolist()) == ids[row, :length].tolist()


@pytest.mark.parametrize(("share", "mean"), [(0.15, 20.0), (0.15, 3.0), (0.5, 2.0)])
def test_as_many_are_hidden_as_in_t5(share, mean):
    """Rounded, not cut (T5's random_spans_noise_mask): 4 bytes of 24, in one span."""
    tokens = list(range(2, 400))
    hidden = [min(max(round(n * share), 1), n - 1) for n in tokens]
    spans = [min(max(round(h / mean), 1), h, n - h) for n, h in zip(tokens, hidden, strict=True)]
    found = Spans(share, mean).counts(torch.tensor(tokens))
    assert [column.tolist() for column in found] == [hidden, spans]


def test_every_placement_is_as_likely():
    spans, rows = Spans(0.5, 2.0), 6000  # six tokens, three hidden in two spans, or (2, 1): 2 x 2 ways
    hidden = spans.hide(torch.full((rows,), 6), 6, Draw(0, 0, rows))
    _, count = hidden.int().unique(dim=0, return_counts=True)
    assert len(count) == 4
    assert abs(count / rows - 1 / 4).max() < 0.03


@pytest.mark.parametrize("share", [0, 1, -0.1])
def test_a_share_is_between_none_and_all(share):
    with pytest.raises(ValueError, match="share"):
        Spans(share)


def test_ranks_hide_the_same():
    ids = torch.randint(40, 100, (8, 60))
    whole = Spans().corrupt(ids, 64, Draw(3, 5, 8))
    half = Spans().corrupt(ids[4:, :50], 64, Draw(3, 5, 8, 4, 4))
    again = Spans().corrupt(ids[4:, :50], 64, Draw(3, 5, 8, 4, 4))
    assert all(torch.equal(*pair) for pair in zip(half, again, strict=True))
    same = Spans().corrupt(ids[4:], 64, Draw(3, 5, 8, 4, 4))
    for made, all_rows in zip(same, whole, strict=True):
        assert torch.equal(made, all_rows[4:, : made.shape[1]])


# --- noise --------------------------------------------------------------------------------------------------------------


def test_noise_loses_doubles_and_replaces():
    texts = ["Grüße 世界", "", "x" * 4000]
    assert claims.noisy(texts, 0.0, 0) == texts
    made = claims.noisy(texts, 0.3, 0)
    assert made[1] == "" and claims.noisy(texts, 0.3, 0) == made != claims.noisy(texts, 0.3, 1)
    assert abs(len(made[2]) - 4000) < 150
    assert abs(made[2].count("x") - 4000 * 0.9) < 150  # a tenth is replaced; what is lost and doubled is as often
    assert all(char in "xabcdefghijklmnopqrstuvwyz" for char in made[2])


# --- weights from elsewhere, and from a run before ----------------------------------------------------------------------


def test_a_folder_of_transformers_is_read_and_written_back(tmp_path):
    library = peers()
    torch.manual_seed(0)
    theirs = library.T5ForConditionalGeneration(library.T5Config(**THEIRS))
    theirs.save_pretrained(tmp_path / "theirs")
    library.ByT5Tokenizer().save_pretrained(tmp_path / "theirs")
    config = Config(**TINY, pretrained=f"hf:{tmp_path / 'theirs'}")
    ours = byt5.build(config, None)
    assert torch.equal(ours.head.weight, theirs.lm_head.weight)
    assert "hf:" in byt5.licence(config)
    pretrained.save(ours, json.loads((tmp_path / "theirs" / "config.json").read_text()), tmp_path / "back")
    again = library.T5ForConditionalGeneration.from_pretrained(tmp_path / "back")
    for name, value in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    torch.nn.init.normal_(ours.head.weight)  # no longer what the table of inputs is
    pretrained.save(ours, json.loads((tmp_path / "theirs" / "config.json").read_text()), tmp_path / "untied")
    untied = byt5.build(Config(**TINY, pretrained=str(tmp_path / "untied")), None)
    for name, value in ours.state_dict().items():
        assert torch.equal(untied.state_dict()[name], value), name
    alone = byt5.build(Config(**TINY, writes=False, pretrained=config.pretrained), None)
    assert torch.equal(alone.stack.blocks[2].mlp.up.weight, theirs.encoder.block[2].layer[1].DenseReluDense.wi_1.weight)
    with pytest.raises(PapertrialError, match="does not fit this byt5"):
        byt5.build(Config(**{**TINY, "width": 24}, pretrained=config.pretrained), None)
    with pytest.raises(PapertrialError, match="no folder"):
        byt5.build(Config(**TINY, pretrained=str(tmp_path / "nothing")), None)


def test_labelled_data_starts_from_a_run_on_text_alone(tmp_path):
    (tmp_path / "corpus.txt").write_text("\n".join(f"the quick brown fox number {n} jumps" for n in range(300)))
    first = papertrial.fit(
        "byt5", tmp_path / "corpus.txt", task="text_to_text", recipe="tiny", out=tmp_path / "first", budget="20steps",
        progress=False,
    )  # fmt: skip
    assert first.card["metrics"] == {}
    assert any("no targets" in note for note in first.card["notes"])
    lines = [json.loads(line) for line in (tmp_path / "first" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["nats_per_token"] < lines[0]["nats_per_token"]
    texts = [f"{word} {n} and so on" for n in range(40) for word in ("brown", "white")]
    data = Texts.from_strings(texts, ["x", "y"] * 40)
    start = {"pretrained": str(tmp_path / "first")}
    for task in ("text_to_text", "text_classification"):
        made = papertrial.fit(
            "byt5",
            data,
            task=task,
            recipe="tiny",
            out=tmp_path / task,
            budget=Budget(steps=0),
            settings=start,
            progress=False,
        )
        weights = made.model.encoder.state_dict()
        for name in ("embed.table.weight", "blocks.0.mlp.up.weight"):
            before = first.model.encoder.state_dict()[name if "embed" in name else f"encoder.{name}"]
            prefix = "" if "embed" in name else "encoder." if task == "text_to_text" else "stack."
            assert torch.equal(weights[prefix + name], before)
    with pytest.raises(PapertrialError, match="does not fit"):
        papertrial.fit(
            "byt5", data, task="text_to_text", recipe="tiny", out=tmp_path / "wide", budget="1steps",
            settings={**start, "width": 48}, progress=False,
        )  # fmt: skip


def test_subwords_have_no_pre_training(tmp_path):
    data = Texts.from_strings(["some words to read", "and others"])
    with pytest.raises(Declined, match="learns from targets"):
        papertrial.fit("t5", data, task="text_to_text", recipe="tiny", out=tmp_path / "run", progress=False)


def test_the_base_recipes_have_as_many_parameters():
    counts = []
    for module in (byt5, t5):
        with torch.device("meta"):
            model = module.build(module.Config(**module.recipes["base"].config), None)
        counts.append(sum(p.numel() for p in model.parameters()))
    assert abs(counts[0] / counts[1] - 1) < 0.02


def test_the_paper_trains_with_adafactor():
    from papertrial.core.recipe import Optim
    from papertrial.train.optim import make_optimizer

    optim = Optim(**{name: value for name, value in byt5.recipes["paper"].optim.items() if name != "clip"})
    model = ByT5(Config(**TINY))
    optimizer = make_optimizer(model, optim)
    before = model.embed.table.weight.detach().clone()
    source = padded(["abc", "d"])
    for _ in range(3):
        optimizer.zero_grad()
        model.losses(source, source).mean().backward()
        optimizer.step()
    assert isinstance(optimizer, torch.optim.Adafactor) and not torch.equal(before, model.embed.table.weight)


def test_adafactor_goes_on_where_it_stopped(tmp_path):
    b = testing.bench("byt5")
    optim = replace(b.resolved().optim, optimizer="adafactor", lr=1e-2)
    whole, halved, resumed = b.model(), b.model(), b.model(seed=1)
    testing._train(b, whole, optim, 4, tmp_path / "whole")
    with testing._stopping_at(halved, 2), suppress(KeyboardInterrupt):
        testing._train(b, halved, optim, 4, tmp_path / "half")
    testing._train(b, resumed, optim, 4, tmp_path / "half")
    for ours, theirs in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_study_of_noise_runs_on_real_snippets(shared_data, monkeypatch):
    claims.language_accuracy.cache_clear()
    monkeypatch.setitem(claims._SCALES, "tiny", replace(claims._SCALES["tiny"], parts=()))
    _, found = claims.noise_costs_bytes_less("tiny", 0)
    assert found["bytes_0.0"] > 0.2  # an eighth is chance
    assert len(claims.noise_costs_bytes_less.plot([found]).curves) == 2
    _, again = claims.clean_text_is_read_as_well("tiny", 0)  # from the same runs
    assert again["bytes_0.4"] == found["bytes_0.4"]


def test_noise_is_judged_where_both_read_clean_text_as_well(monkeypatch):
    found = {"bytes_0.0": 0.6, "bytes_0.4": 0.45}
    monkeypatch.setattr(claims, "language_accuracy", lambda scale, seed: found)
    monkeypatch.setattr(claims, "_subwords_by_clean_accuracy", lambda scale, seed: [(0.9, 0.5), (0.5, 0.3), (0.7, 0.4)])
    held, measured = claims.noise_costs_bytes_less("base", 0)
    assert held and measured["subwords_at_equal_clean_accuracy"] == pytest.approx(0.35)  # not 0.5, that of the last
    assert measured["margin"] == pytest.approx(0.45 - 0.35 - 0.02)
    found["bytes_0.4"] = 0.36
    assert not claims.noise_costs_bytes_less("base", 0)[0]
    found["bytes_0.0"] = 0.45
    with pytest.raises(Declined, match="reads clean text as well"):
        claims.noise_costs_bytes_less("base", 0)


def test_without_the_snippets_the_claim_is_not_run(monkeypatch, tmp_path):
    monkeypatch.setenv("PAPERTRIAL_DATA", str(tmp_path))
    with pytest.raises(Declined, match="stsb"):
        claims.snippets("dev")


def test_pairs_are_written(tmp_path):
    pairs = Pairs.from_strings([(f"say {word} {n}", word) for n in range(30) for word in ("yes", "no")])
    made = papertrial.fit("byt5", pairs, task="text_to_text", recipe="tiny", out=tmp_path / "run", progress=False)
    assert made.card["metrics"]["chrf"] > 0.4
    found = made.predict(["say yes 99", "say no 3"])
    assert all(isinstance(text, str) for text in found["prediction"])
    beams = papertrial.fit(
        "byt5", pairs, task="text_to_text", recipe="tiny", out=tmp_path / "beams", progress=False, budget="5steps",
        settings={"beams": 3},
    )  # fmt: skip
    assert set(beams.card["metrics"]) == {"exact_match", "chrf"}
