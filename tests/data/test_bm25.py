"""BM25 against bm25s and a formula in plain Python; words in many scripts."""

from __future__ import annotations

import json
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from papertrial.core.task import Ragged
from papertrial.data.collections import bm25
from papertrial.data.collections.bm25 import Bm25, best, words_of

TEXTS = [
    "The quick brown fox jumps over the lazy dog",
    "the the the dog",
    "",
    "Straßenbahn und Straße",
    "a fox, a FOX and another fox",
]


def by_hand(texts, query, k1, b):
    held = [Counter(words_of(text)) for text in texts]
    mean = sum(sum(counts.values()) for counts in held) / len(held)
    scores = []
    for counts in held:
        total = 0.0
        for word in words_of(query):
            having = sum(word in other for other in held)
            idf = math.log(1 + (len(held) - having + 0.5) / (having + 0.5))
            count = counts[word]
            total += idf * count / (count + k1 * (1 - b + b * sum(counts.values()) / mean)) if count else 0.0
        scores.append(total)
    return np.array(scores)


@pytest.mark.parametrize(("k1", "b"), [(1.5, 0.75), (0.9, 0.4), (3.0, 1.0), (0.0, 0.0)])
@pytest.mark.parametrize("query", ["fox dog", "the the fox", "STRASSE", "nothing here", "", "das Straßen fox"])
def test_scores_are_the_formula(query, k1, b):
    np.testing.assert_allclose(Bm25.of(TEXTS).scores(query, k1, b), by_hand(TEXTS, query, k1, b), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kept", [0, 4, 1000])
def test_what_is_kept_of_earlier_queries_changes_no_score(kept, monkeypatch):
    monkeypatch.setattr(bm25, "_KEPT", kept)
    engine = Bm25.of(TEXTS)
    for k1 in (1.5, 0.9):
        for query in ("fox dog", "the dog", "fox dog nothing", "the fox", "fox dog"):
            np.testing.assert_allclose(engine.scores(query, k1), by_hand(TEXTS, query, k1, 0.75), rtol=1e-6, atol=1e-7)
            assert sum(len(holding) for holding, _ in engine._asked.values()) <= max(kept, len(TEXTS))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.text(alphabet="abc de\né1中", max_size=30), min_size=1, max_size=8), st.text("abc é1中", max_size=12)
)
def test_scores_are_the_formula_on_any_text(texts, query):
    np.testing.assert_allclose(Bm25.of(texts).scores(query), by_hand(texts, query, 1.5, 0.75), rtol=1e-6, atol=1e-7)


def test_equal_to_bm25s_on_cranfield(shared_data):
    bm25s = pytest.importorskip("bm25s")
    folder = shared_data / "retrieval" / "cranfield"
    texts, asked = (
        [json.loads(line)["text"] for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        for name in ("corpus", "queries")
    )
    ours = Bm25.of(texts)
    theirs = bm25s.BM25(k1=1.5, b=0.75, method="lucene")
    theirs.index([words_of(text) for text in texts], show_progress=False)
    for text in asked[:40]:
        # bm25s counts a repeated word of the query as often as it is there, as we do
        np.testing.assert_allclose(ours.scores(text), theirs.get_scores(words_of(text)), rtol=2e-5, atol=1e-5)


def test_words():
    assert words_of("Self-supervised_learning, 2.5x  naïve") == ["self", "supervised", "learning", "2", "5x", "naïve"]
    assert words_of("ﬁne ＡＢＣ Straße") == ["fine", "abc", "strasse"]
    assert words_of("किताबें पढ़ना") == ["किताबें", "पढ़ना"]
    assert words_of("مُحَمَّد") == ["مُحَمَّد"]
    assert words_of("机器学习 and AI") == ["机", "器", "学", "习", "and", "ai"]
    assert words_of("don't STOP\u00a0me") == ["don", "t", "stop", "me"]
    assert words_of("... !? \u200b") == []


def test_ascii_words_are_the_words_of_the_long_way():
    text = "".join(map(chr, range(128))) * 2 + " Foo_bar baz-9 x"
    assert words_of(text) == words_of(text + " é")[:-1]


def test_arrays_there_and_back():
    engine = Bm25.of(TEXTS)
    again = Bm25.from_arrays(engine.arrays())
    np.testing.assert_array_equal(again.scores("fox the"), engine.scores("fox the"))
    with pytest.raises(ValueError, match="entries"):
        Bm25.from_arrays(engine.arrays() | {"counts": engine.counts[1:]})


def test_nothing_counted():
    for texts in ([], ["", " ,"]):
        assert Bm25.of(texts).scores("fox").tolist() == [0.0] * len(texts)
        assert Bm25.of(texts).having("fox") == 0


@given(
    st.lists(st.sampled_from([0.0, 1.0, 1.0 + 1e-9, 2.5, -1.0]), max_size=30),
    st.integers(0, 35),
    st.integers(-1, 29),
    st.randoms(),
)
def test_best_is_a_full_sort(scores, most, without, random):
    ties = list(range(len(scores)))
    random.shuffle(ties)
    without = without if without < len(scores) else -1
    single = np.float32(scores)
    order = [row for row in sorted(range(len(scores)), key=lambda row: (-single[row], -ties[row])) if row != without]
    assert best(np.array(scores), most, np.array(ties, dtype=np.int64), without).tolist() == order[:most]


def test_top_leaves_out_what_shares_no_word():
    rows, scores = Bm25.of(TEXTS).top("fox", 10, np.arange(5))
    assert rows.tolist() == [4, 0] and scores.dtype == np.float32 and (scores > 0).all()
    assert Bm25.of(TEXTS).top("fox", 10, np.arange(5), without=4)[0].tolist() == [0]


def test_words_are_sorted_as_bytes():
    engine = Bm25.of(["b é a 中 z \U0001d7d8 ｚ"])
    assert isinstance(engine.words, Ragged) and engine.words.texts() == sorted(engine.words.texts(), key=str.encode)
