"""Checkpoints in our modules: equal to transformers in values and gradients from random weights, and back again."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from papertrial.core.errors import PapertrialError
from papertrial.nn import pretrained
from papertrial.nn.transformer import Ids

transformers = pytest.importorskip("transformers")

TINY_BERT = {
    "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 24,
    "max_position_embeddings": 20, "type_vocab_size": 2,
}  # fmt: skip
TINY_T5 = {
    "vocab_size": 40, "d_model": 16, "d_kv": 5, "d_ff": 24, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 12, "decoder_start_token_id": 0,
}  # fmt: skip
TINY_GPT2 = {
    "vocab_size": 40, "n_embd": 16, "n_layer": 3, "n_head": 4, "n_positions": 24, "bos_token_id": 1, "eos_token_id": 1,
}  # fmt: skip
ENCODERS = {
    "bert": ("BertModel", "BertConfig", TINY_BERT),
    "bert_relu": ("BertModel", "BertConfig", {**TINY_BERT, "hidden_act": "relu", "layer_norm_eps": 1e-3}),
    "bert_with_head": ("BertForMaskedLM", "BertConfig", TINY_BERT),
    "roberta": ("RobertaModel", "RobertaConfig", {**TINY_BERT, "type_vocab_size": 1, "pad_token_id": 1}),
    "xlm_roberta": ("XLMRobertaModel", "XLMRobertaConfig", {**TINY_BERT, "type_vocab_size": 1, "pad_token_id": 1}),
}
T5S = {
    "t5": {},
    "t5_1.1": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "gated_silu": {"feed_forward_proj": "gated-silu"},
    "one_layer": {"num_layers": 1, "num_decoder_layers": 1},
    "even_depth": {"num_layers": 2, "num_decoder_layers": None},
}


@pytest.fixture(autouse=True)
def all_digits(monkeypatch):
    """Their RMS norm takes the mean of squares in float32 whatever the model is in; here it keeps all digits."""
    from transformers.models.t5 import modeling_t5

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)

    monkeypatch.setattr(modeling_t5.T5LayerNorm, "forward", forward)


def theirs(model, config, settings, seed=0):
    """A model of transformers in float64 whose every weight is random, biases and norms too."""
    torch.manual_seed(seed)
    made = getattr(transformers, model)(getattr(transformers, config)(**settings)).double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)
    return made


def ours(model):
    settings = json.loads(model.config.to_json_string(use_diff=False))
    made = pretrained.build(settings, Ids(settings["vocab_size"], settings.get("pad_token_id")))
    pretrained.fill(made, model.state_dict(), settings)
    # `fill` gives float32: the float64 weights come after it, so that the comparison has all digits
    full = pretrained.to_ours(model.state_dict(), pretrained.FAMILIES[settings["model_type"]], settings)
    made = made.double().eval()
    made.load_state_dict({name: value for name, value in full.items() if name in made.state_dict()}, strict=False)
    if getattr(made, "head", None) is not None and "head.weight" not in full:
        made.load_state_dict({"head.weight": full["embed.table.weight"]}, strict=False)
    return made, settings


def padded(lengths, pad, vocabulary=40, seed=1):
    """Random ids without `pad`, rows filled with it at the end."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, vocabulary, (len(lengths), max(lengths)), generator=generator)
    valid = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return ids.masked_fill(~valid, pad), valid


def same_gradients(mine, model, settings):
    """Every gradient of theirs equals ours, by the tables of names; what theirs has beside our model has none."""
    family = pretrained.FAMILIES[settings["model_type"]]
    left = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    found = pretrained.to_ours(left, family, settings)
    own = {name: parameter.grad for name, parameter in mine.named_parameters() if parameter.grad is not None}
    if "head.weight" in own and "head.weight" not in found:  # transformers 5 ties what T5 1.1 does not
        own["embed.table.weight"] = own["embed.table.weight"] + own.pop("head.weight")
    assert own.keys() == found.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(own[name], gradient, rtol=1e-8, atol=1e-10, msg=name)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ENCODERS)
def test_an_encoder_equals_theirs(kind, packed):
    model = theirs(*ENCODERS[kind])
    mine, settings = ours(model)
    ids, valid = padded([7, 2, 12, 1], settings["pad_token_id"])
    weight = torch.randn(4, 12, 16, dtype=torch.float64) * valid[..., None]
    base = getattr(model, "bert", model)
    wanted = base(input_ids=ids, attention_mask=valid.long()).last_hidden_state
    (wanted * weight).sum().backward()
    encoded = mine.encode(ids, packed=packed)
    found = encoded.rows.unpack(encoded.x)
    (found * weight).sum().backward()
    torch.testing.assert_close(found, wanted * valid[..., None], rtol=1e-9, atol=1e-9)
    same_gradients(mine, model, settings)


def test_the_second_text_of_a_pair_is_told_apart():
    model = theirs(*ENCODERS["bert"])
    mine, _ = ours(model)
    ids, valid = padded([7, 4], 0)
    segments = (torch.arange(7) > 2).long().expand(2, -1)
    wanted = model(input_ids=ids, attention_mask=valid.long(), token_type_ids=segments).last_hidden_state
    torch.testing.assert_close(mine.tokens(ids, segments)[valid], wanted[valid], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", T5S)
def test_an_encoder_decoder_equals_theirs(kind):
    model = theirs("T5ForConditionalGeneration", "T5Config", {**TINY_T5, **T5S[kind]})
    mine, settings = ours(model)
    source, held = padded([9, 30, 1], 0)
    target, wanted_at = padded([5, 2, 8], 0, seed=2)
    labels = target.masked_fill(~wanted_at, -100)
    out = model(input_ids=source, attention_mask=held.long(), labels=labels)
    out.loss.backward()
    loss = mine.losses(source, target).sum() / wanted_at.sum()
    loss.backward()
    torch.testing.assert_close(loss, out.loss, rtol=1e-10, atol=1e-10)
    logits = mine.decode(mine.shifted(target), mine.encode(source))
    torch.testing.assert_close(logits[wanted_at], out.logits[wanted_at], rtol=1e-9, atol=1e-9)
    same_gradients(mine, model, settings)


def test_a_decoder_equals_theirs_with_and_without_cache():
    model = theirs("GPT2LMHeadModel", "GPT2Config", TINY_GPT2)
    mine, settings = ours(model)
    mine.tokeniser.pad = 0
    ids, valid = padded([7, 12, 3], 0)
    following = valid[:, 1:]
    out = model(input_ids=ids, attention_mask=valid.long())  # its own loss would be in float32
    wanted = F.cross_entropy(out.logits[:, :-1][following], ids[:, 1:][following])
    wanted.backward()
    loss = (mine.losses(ids[:, :-1], ids[:, 1:]) * following).sum() / following.sum()
    loss.backward()
    torch.testing.assert_close(loss, wanted, rtol=1e-10, atol=1e-10)
    same_gradients(mine, model, settings)
    cache = mine.cache(3, 12)
    with torch.no_grad():
        steps = torch.cat([mine.logits(part, cache) for part in ids.split([3, 1, 5, 1, 2], 1)], 1)
    torch.testing.assert_close(steps[valid], out.logits[valid], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["bert", "roberta", "t5", "t5_1.1", "gpt2"])
def test_names_go_both_ways_through_a_folder(kind, tmp_path):
    if kind == "gpt2":
        model = theirs("GPT2LMHeadModel", "GPT2Config", TINY_GPT2).float()
    elif kind in ENCODERS:
        model = theirs(*ENCODERS[kind]).float()
    else:
        model = theirs("T5ForConditionalGeneration", "T5Config", {**TINY_T5, **T5S[kind]}).float()
    model.save_pretrained(tmp_path / "theirs")
    found = pretrained.find(f"hf:{tmp_path / 'theirs'}")
    mine = found.load().eval()
    pretrained.save(mine, found.settings, tmp_path / "ours")
    back = type(model).from_pretrained(tmp_path / "ours").eval()
    ids, valid = padded([9, 4], found.settings.get("pad_token_id") or 0)
    more = {"decoder_input_ids": ids} if kind.startswith("t5") else {}
    with torch.no_grad():
        first = model(input_ids=ids, attention_mask=valid.long(), **more)[0]
        second = back(input_ids=ids, attention_mask=valid.long(), **more)[0]
    torch.testing.assert_close(first[valid], second[valid])
    again = pretrained.find(str(tmp_path / "ours")).load()
    for name, value in mine.state_dict().items():
        if torch.is_tensor(value):
            assert torch.equal(value, again.state_dict()[name]), name
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in again.parameters())
