"""The BM25 baseline: what it tunes, and that it stays within its budget."""

from __future__ import annotations

import numpy as np

from papertrial.baselines.bm25 import Config, Ranker
from papertrial.core.budget import Budget
from papertrial.data import open as open_data
from papertrial.tasks.retrieval import TASK


def test_the_best_setting_outside_of_the_test_wins():
    prepared = TASK.prepare(open_data("docstrings"), 0)
    model = Ranker(Config(k1s=(1.5, 0.5), bs=(0.75, 0.0)))
    meter = model.fit(prepared.train, prepared.valid, prepared.facts, Budget(), 0, None)
    assert meter.trials == 4 == model.most_trials(Budget())
    scores = {
        (k1, b): sum(part.examples * model._ndcg(part, k1, b) for part in (prepared.train, prepared.valid))
        for k1 in (1.5, 0.5)
        for b in (0.75, 0.0)
    }
    assert (model.k1, model.b) == max(scores, key=scores.get)


def test_the_budget_is_kept():
    prepared = TASK.prepare(open_data("docstrings"), 0)
    model = Ranker(Config())
    assert model.fit(prepared.train, prepared.valid, prepared.facts, Budget(trials=3), 0, None).trials == 3
    assert model.fit(prepared.train, prepared.valid, prepared.facts, Budget(seconds=0), 0, None).trials == 1
    assert (model.k1, model.b) == (1.5, 0.75)


def test_plurals_can_be_cut(tmp_path):
    prepared = TASK.prepare(open_data("docstrings"), 0)
    plain, cut = (Ranker(Config(stem=stem)) for stem in (False, True))
    assert not np.array_equal(plain.outputs(prepared.test), cut.outputs(prepared.test))
    np.testing.assert_array_equal(plain.outputs(prepared.test), prepared.test["candidates"])
    cut.k1 = 2.0
    cut.save(tmp_path)
    assert Ranker(Config(stem=True)).load(tmp_path).k1 == 2.0
