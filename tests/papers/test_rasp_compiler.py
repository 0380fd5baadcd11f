"""RASP: programs as transformers."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from papertrial.claims import _rasp
from papertrial.claims import rasp as claims
from papertrial.core.errors import PapertrialError
from papertrial.papers import rasp
from papertrial.papers.rasp import Config
from papertrial.papers.rasp.compiled import differences, load
from papertrial.papers.rasp.compiler import compile_program
from papertrial.papers.rasp.graph import INPUTS, constant, make, restricted
from papertrial.papers.rasp.language import Session
from papertrial.papers.rasp.layers import attention, plan
from papertrial.papers.rasp.network import BOS, PAD
from papertrial.papers.rasp.run import Run
from papertrial.papers.rasp.syntax import RaspError
from rasp_programs import booleans, numbers


def node(text: str):
    return Session().evaluate(text).node


@pytest.mark.parametrize("name", sorted(claims.KNOWN))
def test_weights_compute_the_program_on_any_string(name):
    """Also on strings that the program is not meant for, such as those without the token in front."""
    known = claims.KNOWN[name]
    compiled = rasp.as_transformer(name, known.first + known.letters, Config(longest=10))
    found = differences(compiled, rasp.program(name), 60, seed=1)
    assert found.different == 0 and found.compared > 150
    facts = compiled.facts()
    assert (facts["layers"], facts["heads"]) == (known.layers, known.heads)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["reverse", "hist2_bos", "sort_bos", "dyck2_ptf"])
def test_weights_compute_the_program_on_long_strings(name):
    known = claims.KNOWN[name]
    compiled = rasp.as_transformer(name, known.first + known.letters, Config(longest=32))
    assert differences(compiled, rasp.program(name), 30, seed=2, first=known.first or None).different == 0


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("indices", "ab"),  # no layer
        ("(-indices if tokens == \"b\" else 2 * indices) % 3", "ab"),  # letters and places together, before any layer
        ("length", "ab"),
        ("aggregate(full_s, indices)", "a"),  # fractions
        ("aggregate(select(indices, indices, <), indices, 2.5)", "ab"),  # a default that is no mean
        ("aggregate(select(tokens, \"b\", ==) and select(indices, 0, ==), tokens, \"-\")", "ab"),  # nothing selected
        ("aggregate(select(indices, indices, >), 1, 0) > 0", "a"),
        ("aggregate(not select(tokens, tokens, ==), indices)", "abc"),
        ("selector_width(select(tokens, tokens, !=) and not select(indices, indices, <))", "abc"),
        ("selector_width(not (select(tokens, \"a\", ==) and select(indices, indices, >)))", "ab"),
        ("tokens_int + 1", "013"),
        ("sort(tokens_int, -tokens_int)", "027"),
        ("shift(tokens_int, 2, -1)", "0379"),
        ("tokens_bool", [0, 1, 2]),
        ("shift(tokens, -1, \".\") + tokens", "ab"),
        ("{\"a\": 1, \"b\": 5}[tokens] - [3, 1, 2, 0, 9, 9][indices]", "ab"),
        ("average(tokens_asis)", [0.5, 1.25, -3]),
        ("tokens[1] == tokens", "ab"),
        ("count(tokens, \"a\") / length", "abc"),
        ("mark_first_instance(tokens, \"a\")", "ab"),
        ("aggregate(select_next_identical(tokens), indices, -1)", "ab"),
        ("round(aggregate(select(1, 2, ==), indices) - 0.5)", "a"),  # a selector that never selects
    ],
)  # fmt: skip
def test_other_programs(text, letters):
    program = node(text)
    compiled = rasp.as_transformer(program, letters, Config(longest=6))
    found = differences(compiled, program, 60, seed=0)
    assert found.different == 0 and found.compared > 50
    needed = plan(program)
    assert (compiled.facts()["layers"], compiled.facts()["heads"]) == (needed.layers, needed.heads)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(numbers(2) | booleans(3), st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=5))
def test_any_program_that_compiles_is_computed(program, inputs):
    try:
        compiled = compile_program(program, "abc", 4, 128.0, 512)
    except RaspError:
        assume(False)
    for text, found in zip(inputs, compiled(inputs), strict=True):
        assert found == pytest.approx(Run(text)(program).tolist(), rel=1e-9)


def test_without_settings_the_defaults_hold():
    compiled = rasp.as_transformer("length", "ab")
    assert compiled(["abb", "a" * Config().longest]) == [[3, 3, 3], [Config().longest] * Config().longest]


def test_it_is_a_plain_transformer():
    """Softmax attention over all that is not padding, and no interpreter: traced, it is operations of torch alone."""
    compiled = rasp.as_transformer("reverse", "abc", Config(longest=6))
    ids = compiled.encode(["abca", "ab"])
    assert ids[0, 0] == BOS and ids[1, 3:].tolist() == [PAD, PAD]
    traced = torch.export.export(compiled.model, (ids,), strict=False)
    targets = {str(step.target) for step in traced.graph.nodes if step.op == "call_function"}
    assert any("scaled_dot_product_attention" in target for target in targets)
    torch.testing.assert_close(traced.module()(ids), compiled.model(ids))
    doubled = compiled.model.double()
    assert doubled(ids).argmax(-1).equal(compiled.model.float()(ids).argmax(-1))


def test_padding_and_other_rows_change_nothing():
    compiled = rasp.as_transformer("hist_nobos", "abc", Config(longest=8))
    assert compiled(["abcabcab", "aab", "c"])[1:] == [[2, 2, 1], [1]] == [compiled([text])[0] for text in ("aab", "c")]


def test_saved_and_read_again(tmp_path):
    compiled = rasp.as_transformer("sort_bos", "§abc", Config(longest=5))
    compiled.save(tmp_path / "sorter")
    again = load(tmp_path / "sorter")
    assert again(["§cab"]) == compiled(["§cab"]) == [list("§abc")]
    with safe_open(tmp_path / "sorter" / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(compiled.model.state_dict())
    config = json.loads((tmp_path / "sorter" / "config.json").read_text())
    config["shape"]["width"] += 1
    (tmp_path / "sorter" / "config.json").write_text(json.dumps(config))
    with pytest.raises(PapertrialError, match="holds no compiled program"):
        load(tmp_path / "sorter")
    with pytest.raises(PapertrialError, match="not there"):
        load(tmp_path / "nowhere")


def test_inputs_it_does_not_read():
    compiled = rasp.as_transformer("reverse", "abc", Config(longest=3))
    with pytest.raises(RaspError, match="has 4 tokens"):
        compiled(["abca"])
    with pytest.raises(RaspError, match="does not read 'z'"):
        compiled(["az"])


@pytest.mark.parametrize("nothing", [[], [""], ["ab", ""], [[]]])
def test_no_input_is_refused_in_words(nothing):
    with pytest.raises(RaspError, match="reads one input or more, each of one token or more"):
        rasp.as_transformer("reverse", "abc", Config(longest=3))(nothing)


@pytest.mark.parametrize("name", ["reverse", "hist2_bos", "sort_bos", "dyck1_ptf"])
def test_the_heads_look_where_the_program_says(name):
    """What supervision is given as a target is what the compiled transformer does; where nothing is selected, it looks at BOS."""
    known = claims.KNOWN[name]
    program = rasp.program(name)
    compiled = rasp.as_transformer(name, known.first + known.letters, Config(longest=6))
    text = (known.first + known.letters * 3)[:6]
    ids, found = compiled.encode([text]), []

    def look(module, inputs):
        x = inputs[0][0]
        q, k = (part(x).unflatten(-1, (module.heads, -1)).transpose(0, 1) for part in (module.query, module.key))
        found.append((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)[:, 1:].detach())

    for layer in compiled.model.layers:
        layer.attention.register_forward_pre_hook(look)
    compiled.model(ids)
    for ours, wanted in zip(found, attention(program, text), strict=True):
        torch.testing.assert_close(ours[:, :, 1:].double(), torch.from_numpy(wanted), atol=1e-5, rtol=0)
        torch.testing.assert_close(ours[:, :, 0].double(), 1 - torch.from_numpy(wanted).sum(-1), atol=1e-5, rtol=0)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(numbers(2) | booleans(2), st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=4))
def test_restricted_programs_compile_to_what_they_compute(program, inputs):
    near = restricted(program, node("window(1) or select(indices, 0, ==)"))
    try:
        compiled = compile_program(near, "ab", 5, 128.0, 2000)
        wanted = [Run(text)(near).tolist() for text in inputs]
    except RaspError:
        assume(False)
    for found, values in zip(compiled(inputs), wanted, strict=True):
        assert found == pytest.approx(values, rel=1e-9)


# learning


def learner(heads=2):
    torch.manual_seed(0)
    return _rasp.Learner(5, 6, 16, 2, heads, 3).double().eval(), torch.tensor(
        [[1, 2, 3, 4, 2, 1], [2, 3, 1, PAD, PAD, PAD]]
    )


def test_what_heads_look_at_is_read_off_the_same_model():
    model, ids = learner()
    logits, looks = model.looking(ids)
    torch.testing.assert_close(logits[0], model(ids)[0], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(logits[1, :3], model(ids)[1, :3], rtol=1e-9, atol=1e-12)
    assert [look.shape for look in looks] == [(2, 2, 6, 6)] * 2
    assert (looks[0][1, :, :3, 3:] == 0).all() and torch.allclose(looks[0].sum(-1), torch.ones(2, 2, 6).double())


def test_no_head_looks_beyond_the_region():
    model, ids = learner()
    sight = _rasp._sight(_rasp.within(1), 6)
    assert sight.tolist() == [[j == 0 or abs(i - j) <= 1 for j in range(6)] for i in range(6)]
    logits, looks = model.looking(ids, sight)
    assert all((look[:, :, ~sight] == 0).all() for look in looks)
    far = ids.clone()
    far[0, 5] = 4  # out of reach of position 1, also through two layers
    other, _ = model.looking(far, sight)
    assert torch.equal(logits[0, 1], other[0, 1]) and not torch.equal(logits[0, 4], other[0, 4])
    assert not torch.equal(model(ids)[0, 1], model(far)[0, 1])


def test_the_distance_and_the_likeness_of_attention_written_out():
    wanted = [torch.tensor([[[[0.5, 0.5], [0.0, 0.0]]]])]  # the second row looks at nothing, and is not counted
    found = [torch.tensor([[[[1.0, 0.0], [0.3, 0.7]], [[0.1, 0.9], [0.5, 0.5]]]])]  # a head too many is not told
    assert float(_rasp._distance(found, wanted)) == pytest.approx(0.5)
    assert _rasp._alike(found, wanted) == pytest.approx(0.5)


def test_told_heads_look_where_the_program_does():
    setting = _rasp.Setting("ab", 4, "§", strings=300, tested=60, width=16, steps=120, batch=32, rate=5e-3)
    program = rasp.program("hist_bos")
    told, untold = (
        _rasp.trained(program, 1, 1, replace(setting, told=weight), 0, watched=True) for weight in (3.0, 0.0)
    )
    assert told.alike > untold.alike + 0.1 and told.alike > 0.8
    assert _rasp.trained(program, 1, 1, setting, 0).alike == 0.0


@pytest.mark.parametrize(
    ("text", "letters", "message"),
    [
        ("aggregate(full_s, indices)", "a", "takes more than"),
        ("tokens_int", "ab", "invalid literal"),
        ("1 / (indices * 0)", "a", "division by zero"),
        ("indices * 100 + aggregate(full_s, indicator(tokens == \"a\"))", "ab", "more than|too many"),
        ("selector_width(select(indices * aggregate(select(indices, indices, <=), indicator(tokens == \"a\")), indices, <))",
         "ab", "more than|too many"),
    ],
)  # fmt: skip
def test_what_does_not_compile_says_where(text, letters, message):
    with pytest.raises(RaspError, match=message):
        compile_program(node(text), letters, 24, 128.0, 100)


def test_means_that_float32_cannot_tell_apart():
    values = make("aggregate", "", (make("select", "==", (constant(1), constant(1))), INPUTS["tokens_asis"]))
    with pytest.raises(RaspError, match="too close"):
        compile_program(values, [0.0, 1e-6, 1000.0], 2, 128.0, 4096)


def test_a_transformer_too_large_for_memory_is_refused(monkeypatch):
    monkeypatch.setattr("papertrial.papers.rasp.compiler._LARGEST", 1000)
    with pytest.raises(RaspError, match="more than 1,000"):
        rasp.as_transformer("reverse", "abc", Config(longest=4))


def test_a_softer_attention_is_wrong():
    """The selection is in the weights: with a blunt softmax the same program fails."""
    program = rasp.program("hist_bos")
    blunt = compile_program(program, "§abc", 8, 2.0, 4096)
    assert differences(blunt, program, 20, seed=0, first="§").different > 0


def test_learning_beats_guessing_with_attention_only():
    _, measured = claims.histograms_take_one_layer("tiny", 0)
    assert measured["all_layers"] > measured["one_less"] + 0.1
