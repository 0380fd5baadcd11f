"""Words to terms: stems, stop words and accents by the language, against Lucene's list and Snowball's own examples."""

from __future__ import annotations

import numpy as np
import pytest

from papertrial.core.errors import PapertrialError
from papertrial.core.task import Ragged
from papertrial.data.collections import Collection
from papertrial.data.collections.analyse import PLAIN, Analyser, fold, main_language, rules, stop_words
from papertrial.data.collections.bm25 import Bm25, spans, words_of
from papertrial.data.collections.files import Document

TEXTS = ["the wings were being studied", "a study of wing flow", "cafés and résumés", "das ist nicht gut"]


@pytest.mark.parametrize(
    ("analyser", "terms"),
    [
        (PLAIN, ["the", "studies", "of", "résumés"]),
        (Analyser("English", "stop"), ["studies", "résumés"]),
        (Analyser("English", "stem"), ["the", "studi", "of", "résumé"]),
        (Analyser("English", "stem fold"), ["the", "studi", "of", "resum"]),
        (Analyser("English", "stop stem fold"), ["studi", "resum"]),
        (Analyser("", "stop stem fold"), ["the", "studies", "of", "resumes"]),
    ],
    ids=lambda value: str(value) if isinstance(value, Analyser) else "",
)
def test_terms(analyser, terms):
    assert words_of("The studies of résumés", analyser) == terms


def test_other_languages_are_cut_before_their_accents_go():
    french = Analyser("French", "stem fold")
    assert french.terms(["continuellement", "études", "étudiés"]) == ["continuel", "etud", "etudi"]
    assert Analyser("German", "stem fold").term("häuser") == "haus" == Analyser("German", "stem fold").term("haus")
    assert rules("French") == {"stop": True, "stem": True} and rules("Japanese") == {"stop": False, "stem": False}


def test_accents_are_those_of_three_scripts():
    assert [fold(word) for word in ("naïve", "łódź", "ποιότητα", "ёлка")] == ["naive", "lodz", "ποιοτητα", "елка"]
    assert [fold(word) for word in ("किताबें", "مُحَمَّد", "が", "plain")] == ["किताबें", "مُحَمَّد", "が", "plain"]


def test_english_stop_words_are_lucenes():
    bm25s = pytest.importorskip("bm25s.stopwords")
    assert stop_words("English") == set(bm25s.STOPWORDS_EN)


def test_counting_and_asking_agree():
    for parts in ("", "stop", "stem fold", "stop stem fold"):
        analyser = Analyser("English", parts)
        counted = Bm25.of(TEXTS, analyser)
        again = Bm25.of([" ".join(words_of(text, analyser)) for text in TEXTS])
        np.testing.assert_array_equal(
            counted.scores("Wing studies"), again.scores(" ".join(words_of("Wing studies", analyser)))
        )
        assert counted.lengths.tolist() == [len(words_of(text, analyser)) for text in TEXTS]
    assert Bm25.of(["the of", "a"], Analyser("English", "stop")).scores("the").tolist() == [0, 0]


def test_marks_stand_where_the_words_are():
    text = "Studied résumés"
    found = spans(
        text, set(words_of("study resume", Analyser("English", "stem fold"))), Analyser("English", "stem fold")
    )
    assert [text[first:last] for first, last in found] == ["Studied", "résumés"]


def test_the_language_is_that_of_most_documents():
    english, german = TEXTS[1] + " and that is what it was for", TEXTS[3] + " und die Wörter sind auch für dich"
    assert main_language(Ragged.of_texts([english] * 7 + [german] * 3)) == "English"
    assert main_language(Ragged.of_texts([english] * 5 + [german] * 5)) == ""
    assert [main_language(Ragged.of_texts([text])) for text in ("apple pie", "tarte été")] == ["English", ""]
    data = Collection("few", [Document(str(n), "", english) for n in range(3)])
    assert data.bm25.analyser == Analyser("English", "stem fold")
    assert str(data.bm25.analyser) == "English words cut to their stems, without accents"


def test_a_key_changes_with_what_may_change_a_term():
    keys = {Analyser(language, parts).key for language in ("", "English") for parts in ("", "stem", "stem fold")}
    assert len(keys) == 6 and "snowball" in Analyser("English", "stem").key
    assert "snowball" not in Analyser("Japanese", "stem").key
    with pytest.raises(PapertrialError, match="'stemm'; did you mean 'stem'"):
        Analyser("English", "stemm")


def test_stems_are_worth_points_on_cranfield(shared_data):
    """nDCG@10 of trec_eval's rule is checked in tests/tasks; here that stems find more, as with Lucene's analyser."""
    from papertrial.baselines.bm25 import Config, Ranker, ndcg

    folder = shared_data / "retrieval" / "cranfield"
    queries = Collection.from_beir(folder).queries(100)
    found = {}
    for parts in ("", "stem fold", "stop stem fold"):
        ranker = Ranker(Config())
        ranker.analyser = Analyser("English", parts)
        found[parts] = round(ndcg(ranker.outputs(queries), queries), 4)
    assert found == {"": 0.3494, "stem fold": 0.3727, "stop stem fold": 0.3722}
