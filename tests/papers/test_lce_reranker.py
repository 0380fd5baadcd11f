"""LCE against torch's, transformers' and sentence-transformers' own, the draw of groups, pairs of ids, and whole commands."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from papertrial.baselines import word_vectors
from papertrial.baselines.static_words import table
from papertrial.core.errors import PapertrialError
from papertrial.core.facts import Facts
from papertrial.core.recipe import resolve
from papertrial.core.task import Ragged
from papertrial.data.collections import Collection
from papertrial.data.collections.files import Document
from papertrial.discover.index import index
from papertrial.discover.search import search
from papertrial.nn import pretrained
from papertrial.nn.tokenise import Bytes
from papertrial.nn.transformer import Encoder, bert_layout
from papertrial.nn.views import Draw
from papertrial.papers.lce_reranker import (
    CENTRES,
    FEATURES,
    STEP,
    Config,
    Join,
    KernelScorer,
    Reranker,
    bce,
    cosines,
    kernel_features,
    lce,
    sample,
)
from papertrial.use.fit import fit

FACTS = Facts("collection", 100, 100, outputs=1, bytes=10_000, length=200)


def config(**given):
    return resolve(Config, FACTS, {"test": given})[0]


def byte_encoder(width=16, depth=1):
    torch.manual_seed(0)
    return Encoder(Bytes(), bert_layout(width, depth, 2, 32, 128, dropout=0.0))


def batch(rows=3, places=5, seed=0, dtype=torch.float64):
    """Texts of letters, one empty place, and a row without negatives."""
    generator = torch.Generator().manual_seed(seed)
    grade = torch.zeros(rows, places, dtype=torch.int64)
    grade[:, 0] = 1
    grade[0, -1] = -1
    grade[-1, 1:] = -1
    documents = torch.randint(100, 120, (rows, places, 12), generator=generator)
    documents[..., 9:] = 0
    documents[:, 1::2, 5:] = 0
    return {
        "query": torch.randint(100, 120, (rows, 7), generator=generator),
        "documents": documents.masked_fill((grade < 0).unsqueeze(2), 0),
        "first": torch.rand(rows, places, generator=generator, dtype=dtype),
        "grade": grade,
        "held": grade >= 0,
    }


@pytest.mark.parametrize("change", ["plain", "wide", "shifted", "constant", "tiny"])
@pytest.mark.parametrize("temperature", [1.0, 0.05])
def test_lce_is_cross_entropy_of_the_group(change, temperature):
    scores = torch.randn(6, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scores = {
        "plain": scores, "wide": 1e3 * scores, "shifted": scores + 1e4, "constant": scores * 0 + 3, "tiny": 1e-9 * scores,
    }[change]  # fmt: skip
    ours, theirs = scores.clone().requires_grad_(), scores.clone().requires_grad_()
    loss = lce(ours, temperature=temperature).mean()
    expected = nn.CrossEntropyLoss()(theirs / temperature, torch.zeros(6, dtype=torch.int64))
    loss.backward()
    expected.backward()
    assert torch.allclose(loss, expected, rtol=1e-12, atol=1e-12)
    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-10, atol=1e-12)


def test_empty_places_take_no_part_in_either_loss():
    scores = torch.randn(4, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64, requires_grad=True)
    held = torch.ones(4, 6, dtype=torch.bool)
    held[:, 4:] = False
    for loss in (lce, bce):
        assert torch.allclose(loss(scores, held), loss(scores[:, :4]), rtol=1e-12)
        assert not torch.autograd.grad(loss(scores, held).sum(), scores)[0][:, 4:].any()


@pytest.mark.slow
def test_bce_is_that_of_sentence_transformers():
    """In float32, which theirs turns labels into."""
    losses = pytest.importorskip("sentence_transformers.cross_encoder.losses")
    scores = torch.randn(6, 8, generator=torch.Generator().manual_seed(3), requires_grad=True)
    target = torch.zeros_like(scores)
    target[:, 0] = 1

    class Given:
        """Stands for a cross-encoder whose logits are the scores."""

        device = torch.device("cpu")

        def preprocess(self, pairs, **options):
            return {"scores": scores}

        def __call__(self, inputs):
            return inputs

    theirs = losses.BinaryCrossEntropyLoss.__new__(losses.BinaryCrossEntropyLoss)  # its constructor wants a real one
    nn.Module.__init__(theirs)
    theirs.model, theirs.activation_fn, theirs.bce_with_logits_loss = Given(), nn.Identity(), nn.BCEWithLogitsLoss()
    expected = theirs([["query"] * 48, ["document"] * 48], target.flatten())
    ours = bce(scores).mean()
    assert torch.allclose(ours, expected, rtol=1e-6)
    gradients = [torch.autograd.grad(loss, scores, retain_graph=True)[0] for loss in (ours, expected)]
    assert torch.allclose(*gradients, rtol=1e-5, atol=1e-8)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_groups_hold_one_relevant_document_and_negatives_of_the_ranks(data):
    rows, places = data.draw(st.integers(1, 5)), data.draw(st.integers(2, 12))
    group, skip = data.draw(st.integers(2, 6)), data.draw(st.integers(0, 4))
    depth = data.draw(st.integers(skip + 1, 14))
    grades = []
    for _ in range(rows):
        relevant = data.draw(st.integers(1, places))
        negatives = data.draw(st.integers(0, places - relevant))
        grades.append([2] * relevant + [0] * negatives + [-1] * (places - relevant - negatives))
    grade = torch.tensor(grades)
    drawn = sample(grade, Draw(0, data.draw(st.integers(0, 99)), rows), group, skip, depth)
    assert drawn.shape == (rows, group)
    for row, chosen in zip(grade.tolist(), drawn.tolist(), strict=True):
        negatives = [place for place, value in enumerate(row) if value == 0][skip:depth]
        assert row[chosen[0]] > 0
        if not negatives:
            assert chosen[1:] == [-1] * (group - 1)
            continue
        assert set(chosen[1:]) <= set(negatives)
        assert len(set(chosen[1:])) == min(group - 1, len(negatives))


def test_groups_depend_on_seed_and_step_and_not_on_the_ranks():
    grade = torch.zeros(8, 20, dtype=torch.int64)
    grade[:, :2] = 1
    whole = sample(grade, Draw(3, 5, 8), 6)
    halves = [sample(grade[part], Draw(3, 5, 8, part.start, 4), 6) for part in (slice(0, 4), slice(4, 8))]
    assert torch.equal(whole, torch.cat(halves))
    assert torch.equal(whole, sample(grade, Draw(3, 5, 8), 6))
    assert not torch.equal(whole, sample(grade, Draw(3, 6, 8), 6))
    drawn = torch.stack([sample(grade, Draw(0, step, 8), 6) for step in range(200)])
    relevant = (drawn[..., 0] == 0).float().mean()
    assert 0.45 < relevant < 0.55
    counts = np.bincount(drawn[..., 1:].flatten().numpy(), minlength=20)[2:]
    assert counts.min() > 0.8 * counts.mean()


@pytest.mark.parametrize("kind", ["bert", "bytes"])
@pytest.mark.parametrize("longest", [40, 12])
def test_pairs_of_ids_are_those_of_the_tokeniser(kind, longest):
    """BERT's own `encode_pairs` cuts the longer text; where the document is the longer one the two agree."""
    tokeniser = table()[0] if kind == "bert" else Bytes()
    queries, documents = ["who", "who was it"], ["he was", "a rather longer text of words, and on it goes"]
    query, document = (torch.from_numpy(tokeniser.encode(t).padded()).long() for t in (queries, documents))
    found = Join(tokeniser)(query, document, longest)
    if kind == "bert":
        expected = tokeniser.encode_pairs(queries, documents, longest=longest)
    else:
        pairs = [
            np.concatenate([tokeniser.encode([text]).values for text in pair])
            for pair in zip(queries, documents, strict=True)
        ]
        expected = Ragged.of([np.append(row[: longest - 1], 1) if len(row) > longest else row for row in pairs])
    wanted = torch.from_numpy(expected.padded()).long()
    assert torch.equal(found[:, : wanted.shape[1]], wanted)
    assert not found[:, wanted.shape[1] :].any()


def test_the_cross_encoder_is_transformers_bert():
    """Logits and gradients of BertForSequenceClassification(num_labels=1), in float64, on pairs of different length."""
    transformers = pytest.importorskip("transformers")
    tokeniser = table()[0]
    torch.manual_seed(0)
    settings_ = transformers.BertConfig(
        vocab_size=tokeniser.size, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=32,
        max_position_embeddings=64, num_labels=1, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        attn_implementation="eager",
    )  # fmt: skip
    theirs = transformers.BertForSequenceClassification(settings_).double().eval()
    backbone = pretrained.build(settings_.to_dict() | {"tokeniser": "pretrained"}, tokeniser)
    body = {
        name.removeprefix("bert."): value for name, value in theirs.state_dict().items() if "classifier" not in name
    }
    pretrained.fill(
        backbone, {k: v for k, v in body.items() if "pooler" not in k}, settings_.to_dict(), dtype=torch.float64
    )
    ours = Reranker(config(loss="bce", fuse=False, dropout=0.0, longest=32), backbone).double()
    ours.scorer.pooler.load_state_dict(theirs.bert.pooler.dense.state_dict())
    ours.scorer.last.load_state_dict(theirs.classifier.state_dict())
    queries = ["what is a wing", "flow"]
    documents = [["lift of a wing", "heat"], ["boundary layer flow past a plate", "a"]]
    rows = [tokeniser.encode(row) for row in documents]
    longest = max(int(row.lengths.max()) for row in rows)
    held = np.full((2, 2, longest), tokeniser.pad)
    for place, row in enumerate(rows):
        held[place, :, : row.lengths.max()] = row.padded()
    scores = ours.score(
        {"query": torch.from_numpy(tokeniser.encode(queries).padded()).long(), "documents": torch.from_numpy(held)}
    )
    pairs = tokeniser.encode_pairs(
        [q for q in queries for _ in range(2)], [text for row in documents for text in row], longest=32
    )
    ids = torch.from_numpy(pairs.padded()).long()
    logits = theirs(
        input_ids=ids, attention_mask=(ids != tokeniser.pad).long(), token_type_ids=tokeniser.segments(ids)
    ).logits.view(2, 2)
    assert torch.allclose(scores, logits, rtol=1e-9, atol=1e-11)
    lce(scores).sum().backward()
    nn.CrossEntropyLoss(reduction="sum")(logits, torch.zeros(2, dtype=torch.int64)).backward()
    for mine, their in (
        (ours.scorer.pooler.weight, theirs.bert.pooler.dense.weight),
        (backbone.embed.table.weight, theirs.bert.embeddings.word_embeddings.weight),
    ):
        assert torch.allclose(mine.grad, their.grad, rtol=1e-8, atol=1e-11)


def test_kernel_features_are_those_written_out():
    generator = torch.Generator().manual_seed(0)
    cosine = torch.rand(2, 3, 4, generator=generator, dtype=torch.float64) * 2 - 1
    same = torch.rand(2, 3, 4, generator=generator) < 0.3
    held = torch.tensor([[True, True, True, False], [False] * 4])
    found = kernel_features(cosine, same, held)
    assert found.shape == (2, 3, FEATURES) and FEATURES == 21
    for p in range(2):
        for n in range(3):
            inside = [float(cosine[p, n, m]) for m in range(4) if held[p, m]]
            exact = sum(bool(same[p, n, m]) for m in range(4) if held[p, m])
            counts = [exact] + [sum(np.exp(-((c - mu) ** 2) / (2 * STEP**2)) for c in inside) for mu in CENTRES]
            shares = [32 * count / max(1, len(inside)) for count in counts]
            largest = max([*inside, 0.0]) if len(inside) < 4 else max(inside)
            expected = [*np.log1p(counts), *np.log1p(shares), largest]
            assert np.allclose(found[p, n].numpy(), expected, rtol=1e-12)


def test_words_looked_up_once_give_the_cosines_of_pairs():
    class Table(nn.Module):
        def __init__(self, words):
            super().__init__()
            self.words = words
            self.table = nn.Embedding(130, 8, padding_idx=0).double()

        def tokens(self, ids):
            return self.table(ids)

    torch.manual_seed(0)
    single, pairs = Table(True), Table(False)
    pairs.load_state_dict(single.state_dict())
    given_ = batch()
    query, document = given_["query"].repeat_interleave(5, 0), given_["documents"].flatten(0, 1)
    for ours, theirs in zip(cosines(single, query, document), cosines(pairs, query, document), strict=True):
        assert torch.allclose(ours.double(), theirs.double(), atol=1e-12)
    scorer = KernelScorer(8, bias=False).double()
    assert torch.allclose(scorer(single, query, document), scorer(pairs, query, document), rtol=1e-10)


def test_kernel_pooling_written_out():
    """The mean of the features over the tokens that were asked for, by their weight, then the perceptron: pair by pair."""

    class Weighed(nn.Module):
        words = True

        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(130, 8, padding_idx=0).double()

        def tokens(self, ids):
            return self.table(ids)

        def weights(self, ids):
            return 0.5 + (ids % 3).double()

    torch.manual_seed(0)
    encoder, scorer = Weighed(), KernelScorer(8, bias=True).double()
    query = torch.tensor([[101, 102, 0], [103, 105, 107], [104, 0, 0]])
    document = torch.tensor([[101, 109, 0, 0], [107, 108, 103, 105], [111, 112, 113, 0]])
    found = scorer(encoder, query, document)
    assert found.shape == (3,)
    cosine, asked, held = cosines(encoder, query, document)
    features = kernel_features(cosine, query.unsqueeze(2) == document.unsqueeze(1), held)
    for row in range(3):
        places = [place for place in range(3) if asked[row, place] > 0]
        weight = [0.5 + int(query[row, place]) % 3 for place in places]
        mean = sum(w * features[row, place] for w, place in zip(weight, places, strict=True)) / sum(weight)
        wanted = scorer.last(torch.relu(scorer.hidden(mean)))
        assert found[row].item() == pytest.approx(wanted.item(), rel=1e-12)
    assert scorer(encoder, query[:1], document[:1]).shape == (1,)


def test_a_cross_encoder_gives_one_score_a_pair():
    model = Reranker(config(scorer="cross"), byte_encoder()).double().eval()
    rows = batch()
    for count in (1, 3):
        given_ = rows["query"][:count], rows["documents"][:count, 0]
        assert model.scorer(model.encoder, *given_).shape == (count,)


def test_groups_of_empty_documents_keep_a_column():
    model = Reranker(config(group=3), byte_encoder()).double()
    rows = batch()
    rows["documents"].zero_()
    made = model.views(rows, Draw(0, 0, 3))
    assert made["documents"].shape == (3, 3, 1) and model.score(made).isfinite().all()


@pytest.mark.parametrize("scorer", ["cross", "kernel"])
@pytest.mark.parametrize("loss", ["lce", "bce"])
@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_two_passes_give_the_same_gradients(scorer, loss, chunk):
    whole = Reranker(config(scorer=scorer, loss=loss, dropout=0.0), byte_encoder()).double()
    cached = copy.deepcopy(whole)
    cached.config = config(scorer=scorer, loss=loss, dropout=0.0, chunk=chunk)
    rows = batch()
    for model in (whole, cached):
        model.loss(rows).backward()
    assert torch.equal(whole.score(rows).isfinite(), torch.ones(3, 5, dtype=torch.bool))
    for (name, ours), theirs in zip(whole.named_parameters(), cached.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None), name
        assert ours.grad is None or torch.allclose(ours.grad, theirs.grad, rtol=1e-10, atol=1e-13), name


@pytest.mark.parametrize("scorer", ["cross", "kernel"])
def test_a_score_belongs_to_its_pair(scorer):
    """Neither padding, nor the order, nor the other documents change it."""
    model = Reranker(config(scorer=scorer), byte_encoder()).double().eval()
    rows = batch()
    scores = model.score(rows)
    order = torch.tensor([3, 1, 0])
    wider = {
        "query": nn.functional.pad(rows["query"], (0, 4)),
        "documents": nn.functional.pad(rows["documents"], (0, 6))[:, order],
        "first": rows["first"][:, order],
    }
    assert torch.allclose(model.score(wider), scores[:, order], rtol=1e-10)


@pytest.mark.parametrize(("length", "longest"), [(0, 128), (512, 128), (516, 129), (2048, 512), (9999, 512)])
def test_as_much_of_a_document_is_read_as_there_usually_is(length, longest):
    assert resolve(Config, Facts("collection", 10, length=length), {})[0].longest == longest


def test_views_draw_the_group_and_cut_what_is_padding():
    model = Reranker(config(group=3), byte_encoder())
    rows = batch(dtype=torch.float32)
    made = model.views(rows, Draw(0, 0, 3))
    assert made["documents"].shape == (3, 3, 9) and made["held"].tolist() == [
        [True] * 3,
        [True] * 3,
        [True, False, False],
    ]
    assert not made["documents"][2, 1:].any() and not made["first"][2, 1:].any()
    assert torch.equal(made["documents"][:, 0], rows["documents"][:, 0, :9])
    for row, place in made["held"].nonzero().tolist():  # beside each document the score that the first stage gave it
        beside = (rows["documents"][row, :, :9] == made["documents"][row, place]).all(1)
        assert made["first"][row, place] in rows["first"][row, beside]
    assert float(lce(model.score(made), made["held"])[2].detach()) == 0


@pytest.mark.parametrize(
    "wrong", [{"loss": "hinge"}, {"scorer": "magic"}, {"group": 1}, {"skip": 100}, {"temperature": 0.0}, {"chunk": -1}]
)
def test_settings_that_make_no_sense_are_one_line(wrong):
    with pytest.raises(PapertrialError) as error:
        Reranker(config(**wrong), byte_encoder())
    assert "\n" not in str(error.value)


def test_a_run_reranks_a_search(tmp_path):
    """Trained and read back, it is what `search --rerank` calls; its answers are those of the model in memory."""
    corpus = Collection(
        "made",
        [
            Document(f"d{n}", "", f"apples number {n} with {'pears' if n % 2 else 'plums'} and item{n}")
            for n in range(24)
        ],
        [(f"q{n}", f"apples and {'pears' if n % 2 else 'plums'} item{n}") for n in range(12)],
        {0: [(f"q{n}", f"d{n}", 1) for n in range(12)]},
    )
    done = fit("lce_reranker", corpus, recipe="tiny", budget="4steps", out=tmp_path / "run", progress=False)
    assert isinstance(done.model.scorer, KernelScorer)
    index(corpus, tmp_path / "index")
    plain, reranked = (search(tmp_path / "index", "apples pears", rerank=run) for run in (None, tmp_path / "run"))
    assert reranked.hits and {hit.id for hit in reranked.hits} <= {f"d{n}" for n in range(24)}
    assert [hit.score for hit in reranked.hits] == sorted((hit.score for hit in reranked.hits), reverse=True)
    assert "rerank" in reranked.seconds and "rerank" not in plain.seconds


def test_a_cross_encoder_needs_more_than_single_words():
    facts = Facts("collection", 100, 100, outputs=1)
    backbone = word_vectors.build(word_vectors.Config(), facts)
    assert isinstance(Reranker(config(), backbone).scorer, KernelScorer)
    with pytest.raises(PapertrialError, match="one by one"):
        Reranker(config(scorer="cross"), backbone)


def test_word_vectors_count_texts_and_leave_out_what_every_text_has():
    model = word_vectors.build(word_vectors.Config(), Facts("collection", 3, 3))
    model.fit_inputs({"text": Ragged.of_texts(["wing wing flow", "flow", "heat flow"])})
    ids = torch.from_numpy(model.tokeniser.encode(["wing flow heat", "flow"]).padded()).long()
    weights = model.weights(ids)
    assert not weights[0, 0] and not weights[0, 4] and not weights[1, 2:].any()  # the specials, and padding
    assert torch.allclose(weights[0, 1:4], torch.log(4 / torch.tensor([1.5, 3.5, 1.5])), atol=1e-6)
    assert torch.allclose(model(ids)[1], model.tokens(ids)[1, 1], atol=1e-6)
    assert not model(torch.zeros(1, 3, dtype=torch.int64)).any()
