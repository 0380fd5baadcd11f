"""The retrieval task: metrics against trec_eval, the split, the first stage, and the kinds of methods it takes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from papertrial.core import registry
from papertrial.core.errors import DataError, Declined, PapertrialError
from papertrial.core.recipe import Optim
from papertrial.core.task import Ragged
from papertrial.data import open as open_data
from papertrial.data.collections import Collection
from papertrial.data.collections.files import Document
from papertrial.nn.batches import Batches, to_tensors
from papertrial.tasks._metrics import ranking_scores
from papertrial.tasks.retrieval import TASK, BiEncoder, Grouped, groups, rerank
from papertrial.testing import bench


def words(number):
    return f"alpha{number % 7} beta{number % 5} gamma{number}"


def collection(queries=20, documents=40, **more):
    judged = [(f"q{n}", f"d{n}", 1 + n % 3) for n in range(queries)] + [
        (f"q{n}", f"d{n + 1}", 0) for n in range(queries)
    ]
    return Collection(
        "made",
        [Document(f"d{n}", f"title {n}", words(n)) for n in range(documents)],
        [(f"q{n}", words(n)) for n in range(queries)],
        more.get("judgements", {0: judged}),
    )


def trec_eval(run, qrels, measures):
    pytrec_eval = pytest.importorskip("pytrec_eval")
    return pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(run)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_metrics_are_those_of_trec_eval(data):
    """Graded, negative and unjudged documents, equal scores, and scores that differ in float64 alone."""
    names = [f"d{n}" for n in range(data.draw(st.integers(1, 30)))]
    qrels, run, ranked, judged = {}, {}, [], []
    for query in range(data.draw(st.integers(1, 4))):
        grades = data.draw(st.dictionaries(st.sampled_from(names), st.integers(-2, 4), min_size=1))
        if max(grades.values()) < 1:
            grades[names[0]] = 1
        scores = data.draw(
            st.dictionaries(st.sampled_from(names), st.sampled_from([0.5, 1.0, 1.0 + 1e-12, 2.0, -3.0]), min_size=1)
        )
        qrels[f"q{query}"], run[f"q{query}"] = grades, scores
        order = sorted(scores, key=lambda name: (np.float32(scores[name]), name), reverse=True)
        ranked.append(([grades.get(name, 0) for name in order] + [0] * 100)[:100])
        judged.append(list(grades.values()))
    ours = ranking_scores(np.array(ranked), Ragged.of(judged, np.int64))
    theirs = trec_eval(run, qrels, {"ndcg_cut_10", "recall_10", "recall_100", "recip_rank"})
    values = [theirs[f"q{query}"] for query in range(len(run))]
    np.testing.assert_allclose(ours.per_example, [value["ndcg_cut_10"] for value in values], atol=1e-12)
    for cut in (10, 100):
        expected = np.mean([value[f"recall_{cut}"] for value in values])
        assert ours.metrics[f"recall@{cut}"] == pytest.approx(expected, abs=1e-12)
    reciprocal = np.mean([value["recip_rank"] if value["recip_rank"] >= 0.1 else 0.0 for value in values])
    assert ours.metrics["mrr@10"] == pytest.approx(reciprocal, abs=1e-12)


def test_intervals_are_over_queries():
    rng = np.random.default_rng(0)
    ranked = (rng.random((50, 100)) < 0.05).astype(np.int64)
    scores = ranking_scores(ranked, Ragged.of([[1] * 6] * 50, np.int64))
    low, high = scores.intervals["ndcg@10"]
    half = 2.0096 * scores.per_example.std(ddof=1) / np.sqrt(50)
    assert (high - low) / 2 == pytest.approx(half, rel=1e-3)
    with pytest.raises(DataError, match="no judged queries"):
        ranking_scores(np.zeros((0, 100)), Ragged.of([], np.int64))


def test_bm25_on_cranfield_is_trec_evals(shared_data):
    data = open_data(shared_data / "retrieval" / "cranfield")
    split = TASK.encode({}, data)
    method = registry.method("bm25")
    model = method.module.build(method.module.Config(), None)
    outputs = TASK.outputs(model, {}, split)
    scores = TASK.score(outputs, split, {})
    run, qrels = {}, {}
    for row, name in enumerate(split["id"]):
        texts = split["text"].texts()
        values = data.bm25.scores(texts[row])
        run[name] = {data.ids[n]: float(values[n]) for n in np.flatnonzero(values > 0)}
        qrels[name] = {
            data.ids[n]: int(grade) for n, grade in zip(split["relevant"][row], split["grade"][row], strict=True)
        }
    theirs = trec_eval(run, qrels, {"ndcg_cut_10", "recall_100"})
    np.testing.assert_allclose(scores.per_example, [theirs[name]["ndcg_cut_10"] for name in split["id"]], atol=1e-9)
    assert scores.metrics["ndcg@10"] == pytest.approx(0.3727, abs=5e-5)


def test_test_queries_depend_on_the_data_alone():
    first, second = (TASK.prepare(collection(), seed) for seed in (0, 1))
    assert first.test["id"].tolist() == second.test["id"].tolist() and first.test.examples == 8
    assert first.valid["id"].tolist() != second.valid["id"].tolist()
    parts = [set(part["id"]) for part in (first.train, first.valid, first.test)]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2]) and sum(map(len, parts)) == 20
    half = TASK.prepare(collection(), 0, fraction=0.5)
    assert set(half.train["id"]) < parts[0] and half.test["id"].tolist() == first.test["id"].tolist()


def test_given_parts_are_kept():
    judged = {part: [(f"q{n}", f"d{n}", 1) for n in range(5 * part, 5 * part + 5)] for part in range(3)}
    prepared = TASK.prepare(collection(judgements=judged), 3)
    for place, part in enumerate((prepared.train, prepared.valid, prepared.test)):
        assert sorted(part["id"]) == sorted(f"q{n}" for n in range(5 * place, 5 * place + 5))
    alone = TASK.prepare(collection(judgements={2: judged[0] + judged[1] + judged[2]}), 0)  # as most of BEIR
    assert (alone.train.examples, alone.valid.examples, alone.test.examples) == (7, 2, 6)
    dev_alone = TASK.prepare(collection(judgements={1: judged[1], 2: judged[2]}), 0)
    assert len(dev_alone.test["id"]) == 5 and dev_alone.train.examples == 4 and dev_alone.valid.examples == 1


def test_copies_of_a_query_stay_on_one_side():
    data = Collection(
        "copies",
        [Document(f"d{n}", "", words(n)) for n in range(30)],
        [(f"q{n}", f"the  same {n // 3}" if n % 2 else f"the same {n // 3}") for n in range(30)],
        {0: [(f"q{n}", f"d{n}", 1) for n in range(30)]},
    )
    prepared = TASK.prepare(data, 0)
    sides = [
        {" ".join(text.split()) for text in part["text"].texts()}
        for part in (prepared.train, prepared.valid, prepared.test)
    ]
    assert not (sides[0] & sides[2] or sides[1] & sides[2] or sides[0] & sides[1])


def test_the_query_itself_is_never_an_answer():
    data = Collection(
        "arguments",
        [
            Document("a", "", "taxes are theft"),
            Document("b", "", "taxes are fair"),
            Document("c", "", "cats and taxes"),
        ],
        [("a", "taxes are  theft"), ("b", "cats")],
        {0: [("a", "b", 1), ("b", "c", 1)]},
    )
    assert data.itself.tolist() == [0, -1]
    assert 0 not in data.queries(100)["candidates"][0]
    assert data.queries(100)["candidates"][1].tolist()[:2] == [2, -1]


def test_a_query_in_another_script_is_said():
    data = collection()
    data = Collection(
        "scripts",
        [data.document(row) for row in range(40)],
        [(f"q{n}", "что это такое" if n == 3 else words(n)) for n in range(20)],
        {0: [(f"q{n}", f"d{n}", 1) for n in range(20)]},
    )
    prepared = TASK.prepare(data, 0)
    assert any("without a word of any document" in note and "что" in note for note in prepared.notes)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"fraction": 0}, "fraction"), ({"test_share": 1}, "test_share"), ({"valid_share": -1}, "valid_share")],
)
def test_shares_out_of_range(options, words):
    with pytest.raises(PapertrialError, match=words):
        TASK.prepare(collection(), 0, **options)


def test_too_little_to_judge():
    with pytest.raises(DataError, match="too few queries"):
        TASK.prepare(collection(queries=1), 0)
    with pytest.raises(DataError, match="no query has a relevant document"):
        TASK.prepare(collection(judgements={}), 0)
    assert "index" in TASK.supports(Collection("bare", [Document("a", "", "b")]).look()).why


class Letters(nn.Module):
    """A tokeniser of bytes."""

    pad = 0

    def encode(self, texts, longest=None):
        texts = Ragged.of_texts(texts) if isinstance(texts, list) else texts
        return Ragged.of([np.int32(texts[row][:longest]) + 3 for row in range(len(texts))], np.int32, self.pad)


class Encoder(nn.Module):
    """A bag of bytes."""

    def __init__(self):
        super().__init__()
        self.tokeniser, self.width = Letters(), 8
        self.table = nn.Embedding(259, self.width, padding_idx=0)

    def forward(self, ids):
        return self.table(ids).sum(1)


class Reranker(nn.Module):
    """Likes the document at the end of the first stage best."""

    lengths = (5, 9)

    def __init__(self):
        super().__init__()
        self.encoder, self.seen = Encoder(), []

    def loss(self, batch):
        return self.score(batch).logsumexp(1).mean()

    def score(self, batch):
        self.seen.append({name: column.shape for name, column in batch.items()})
        return -batch["first"] + 0 * self.encoder(batch["documents"].flatten(0, 1)).sum()


def test_a_reranker_reads_groups():
    prepared, model = TASK.prepare(collection(), 0), Reranker()
    rows = TASK.training(model, prepared)
    assert set(rows) == {"query", "documents", "first", "grade"}
    batch = Batches(rows, 4, 0).at(0)
    assert batch["documents"].shape == (4, 100, 9) and batch["query"].shape == (4, 5)
    assert batch["documents"].dtype == batch["grade"].dtype == torch.int64
    for row, name in enumerate(prepared.train["id"]):
        number = int(name[1:])
        assert rows["grade"][row, 0] == 1 + number % 3 and (rows["grade"][row, 1:] <= 0).all()
        empty = rows["grade"][row] == -1
        assert (rows["documents"].rows[row][empty] == -1).all() and (rows["first"][row][empty] == 0).all()
        assert (np.diff(rows["first"][row][1:][~empty[1:]]) <= 0).all()
        text = bytes(rows["documents"][np.array([row])][0, 0].astype(np.uint8) - 3).decode()
        assert text == f"title {number}\n{words(number)}"[:9]


def test_relevant_documents_that_the_first_stage_missed_are_learned_from():
    data = Collection(
        "missed",
        [Document(f"d{n}", "", "apple" if n < 6 else f"pear {n}") for n in range(12)],
        [(f"q{n}", f"apple {n}") for n in range(8)],
        {0: [(f"q{n}", f"d{n}", 2) for n in range(8)] + [(f"q{n}", f"d{11 - n}", 1) for n in range(8)]},
    )
    prepared = TASK.prepare(data, 0)
    rows = groups(Reranker(), prepared.train)
    for row, name in enumerate(prepared.train["id"]):
        number, grade = int(name[1:]), rows["grade"][row]
        assert grade[:2].tolist() == [2, 1] and (grade[2:] <= 0).all()
        values = data.bm25.scores(f"apple {number}")
        assert rows["first"][row, :2].tolist() == [values[number], values[11 - number]]
        assert len(set(prepared.train["candidates"][row]) - {-1} - {number, 11 - number}) == (grade == 0).sum()


def test_rerank_orders_the_first_stage():
    prepared, model = TASK.prepare(collection(), 0), Reranker()
    rows = rerank(model, prepared.test)
    assert model.training
    for query in range(prepared.test.examples):
        before, first = prepared.test["candidates"][query], prepared.test["first"][query]
        held = before >= 0
        place = prepared.test.documents["place"]
        expected = sorted(before[held], key=lambda row: (first[list(before).index(row)], -place[row]))
        assert rows[query][: held.sum()].tolist() == expected and (rows[query][held.sum() :] == -1).all()
    outputs = TASK.outputs(model, {}, prepared.test)
    assert outputs[0, 0] == prepared.test.documents["id"][rows[0, 0]] and outputs[0, -1] is None
    assert all(shapes["query"][1] <= 5 and shapes["documents"][2] <= 9 for shapes in model.seen)


def test_a_reranker_that_says_nothing_gets_the_order_of_the_ids():
    prepared, model = TASK.prepare(collection(), 0), Reranker()
    model.score = lambda batch: torch.zeros(batch["first"].shape)
    for ranked in TASK.outputs(model, {}, prepared.test):
        named = [name for name in ranked if name is not None]
        assert named == sorted(named, reverse=True)
    model.score = lambda batch: torch.full(batch["first"].shape, torch.nan)
    with pytest.raises(DataError, match="not all finite"):
        rerank(model, prepared.test)


def test_a_backbone_learns_from_pairs():
    prepared, model = TASK.prepare(collection(), 0), BiEncoder(Encoder())
    rows = TASK.training(model, prepared)
    assert rows.examples == prepared.train.examples  # one relevant document each
    batch = to_tensors(rows.take(slice(0, 6)))
    logits = torch.stack([
        torch.cosine_similarity(model.encoder(batch["query"])[:, None], model.encoder(batch["document"])[None], dim=-1)
    ])[0] / 0.05  # fmt: skip
    expected = nn.functional.cross_entropy(logits, torch.arange(6))
    torch.testing.assert_close(model.loss(batch), expected)
    batch["row"][1] = batch["row"][0]  # the same document twice is no negative of the other query
    assert model.loss(batch) < expected


def test_a_backbone_finds_by_cosine_among_all_documents():
    prepared, model = TASK.prepare(collection(), 0), BiEncoder(Encoder())
    outputs = TASK.outputs(model, {}, prepared.test)
    documents = TASK.embed(model, prepared.test.documents)
    queries = TASK.embed(model, prepared.test)
    cosine = queries @ documents.T / np.linalg.norm(queries, axis=1)[:, None] / np.linalg.norm(documents, axis=1)
    ids = prepared.test.documents["id"]
    for query, ranked in enumerate(outputs):
        assert [name for name in ranked if name] == [ids[row] for row in np.argsort(-cosine[query], kind="stable")]


def test_an_objective_without_scores_learns_from_the_documents():
    class Texts(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = Encoder()

    rows = TASK.training(Texts(), TASK.prepare(collection(), 0))
    assert list(rows) == ["ids"] and rows.examples == 40


def test_methods_that_cannot_retrieve():
    prepared = TASK.prepare(collection(), 0)
    method = registry.method("majority")
    with pytest.raises(Declined, match="not made for retrieval"):
        TASK.build(method, method.module.Config(), Optim(), prepared)


def test_grouped_rows():
    tokens = Ragged.of([[1, 2, 3], [4], [5, 6]], np.int32, pad=9)
    column = Grouped(tokens, np.array([[0, 1, -1], [2, -1, -1], [-1, -1, -1]]))
    assert column[np.array([1, 0])].tolist() == [[[5, 6, 9], [9] * 3, [9] * 3], [[1, 2, 3], [4, 9, 9], [9] * 3]]
    assert column[2:].tolist() == [[[9], [9], [9]]] and len(column) == 3


@pytest.mark.parametrize("name", ["bm25", "random_order"])
def test_baselines_on_the_built_in_collection(name, tmp_path):
    outcome = bench(name).run(tmp_path / "run")
    assert outcome.metrics["ndcg@10"] == pytest.approx(outcome.per_example.mean())
    assert (outcome.metrics["ndcg@10"] > 0.4) == (name == "bm25")
