"""From judgements to boards: words, raters, those left out, correlations; simulated studies and real ratings."""

from __future__ import annotations

import csv
import gzip
import json
import math

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import kendalltau, pearsonr, spearmanr

from papertrial.core.errors import DataError, PapertrialError
from papertrial.core.files import to_json
from papertrial.core.judgement import Check, Judgements, Preference, Rating
from papertrial.study.people import (
    BETTER,
    CANNOT_TELL,
    WORSE,
    Difference,
    Limits,
    Rater,
    boards,
    by_output,
    correlations,
)


def study(
    quality: dict[str, float], items: int = 80, raters: int = 8, each: int = 2, seed: int = 0, careless: int = 0
) -> Judgements:
    """Five-point ratings; the careless answer at random, the test questions too."""
    rng = np.random.default_rng(seed)
    ratings = []
    for item in range(items):
        hard = rng.normal(0, 0.1)
        for system, mean in quality.items():
            for rater in rng.choice(raters, each, replace=False):
                value = rng.random() if rater < careless else mean + hard + rng.normal(0, 0.15)
                step = float(np.clip(np.round(4 * value), 0, 4) / 4)
                ratings.append(Rating(str(item), system, f"r{rater}", "quality", step, seconds=float(10 + rater)))
    checks = [
        Check(f"r{rater}", "quality", bool(rng.random() < (0.3 if rater < careless else 0.97)))
        for rater in range(raters)
        for _ in range(20)
    ]
    return Judgements(tuple(ratings), checks=tuple(checks))


def word(board, first: str, second: str) -> str:
    for d in board.differences:
        if (d.first, d.second) == (first, second):
            return d.word
        if (d.second, d.first) == (first, second):
            return {BETTER: WORSE, WORSE: BETTER}.get(d.word, d.word)
    raise AssertionError((first, second))


def test_a_board_of_ratings():
    (board,) = boards(study({"good": 0.75, "also good": 0.745, "bad": 0.4}))
    assert {row.system for row in board.rows[:2]} == {"good", "also good"} and board.rows[2].system == "bad"
    assert [row.rank for row in board.rows] == [1, 1, 3]
    assert word(board, "good", "also good") == CANNOT_TELL and word(board, "good", "bad") == BETTER
    assert word(board, "bad", "also good") == WORSE
    assert all(row.low < row.score < row.high and (row.answers, row.items) == (160, 80) for row in board.rows)
    assert board.alpha.low < board.alpha.value < board.alpha.high and board.answers == 480
    assert "leads, but cannot be told apart from" in board.verdict
    shown = board.report()
    assert len(shown.rows) == 3 and {len(row) for row in shown.rows} == {len(shown.head)}
    assert any("more answers would settle it" in words or "no reasonable number" in words for _, words in shown.facts)
    assert json.loads(to_json(board))["rows"][0]["rank"] == 1
    assert boards(study({"good": 0.75, "also good": 0.745, "bad": 0.4}))[0] == board


def test_the_score_is_the_mean_over_items_of_the_mean_over_raters():
    rows = [("1", "x", 1.0), ("1", "y", 0.0), ("2", "x", 1.0)]
    (board,) = boards(Judgements(tuple(Rating(item, "a", rater, "q", value) for item, rater, value in rows)))
    assert board.rows[0].score == pytest.approx((0.5 + 1) / 2)
    assert "nothing to compare it with" in board.verdict


def test_raters_who_miss_the_test_questions_are_left_out_and_named():
    judged = study({"good": 0.8, "bad": 0.5}, raters=10, careless=2)
    (board,) = boards(judged, limits=Limits())
    assert [name for name, _ in board.left_out] == ["r0", "r1"]
    assert all("noisy with probability" in why for _, why in board.left_out)
    assert board.full is not None and board.full.answers == len(judged.ratings) > board.answers
    assert board.alpha.value > board.full.alpha.value
    assert board.rows[0].score - board.rows[1].score > board.full.rows[0].score - board.full.rows[1].score
    careless = next(rater for rater in board.raters if rater.name == "r0")
    others = [rater for rater in board.raters if rater.name > "r1"]
    assert careless.agreement < min(rater.agreement for rater in others)
    assert careless.checks == 20 and careless.noisy > 0.99 and careless.seconds == 10.0
    facts = board.report().facts
    assert sum(label == "left out" for label, _ in facts) == 2 and any(label == "with all" for label, _ in facts)
    (kept,) = boards(judged)
    assert not kept.left_out and kept.full is None
    (strict,) = boards(judged, limits=Limits(noisy=None, right=0.5))
    assert [why.partition(" of ")[2] for _, why in strict.left_out] == ["20 test questions right"] * 2
    (agreed,) = boards(judged, limits=Limits(noisy=None, agreement=0.2))
    assert {"r0", "r1"} <= {name for name, _ in agreed.left_out}
    with pytest.raises(DataError, match="all raters"):
        boards(judged, limits=Limits(right=1.1))


def test_a_board_of_pairs():
    rng = np.random.default_rng(1)
    strength = {"a": 1.5, "b": 0.0, "c": -0.1, "d": -4.0}
    rows = []
    for item in range(300):
        first, second = rng.choice(list(strength), 2, replace=False)
        won = float(rng.random() < expit(strength[first] - strength[second]))
        rows.append(Preference(str(item), first, second, f"r{item % 20}", "better", 0.5 if rng.random() < 0.1 else won))
    (board,) = boards(Judgements(preferences=tuple(rows)))
    assert board.rows[0].system == "a" and board.rows[-1].system == "d"
    assert word(board, "a", "b") == BETTER and word(board, "b", "c") == CANNOT_TELL and word(board, "d", "c") == WORSE
    assert sum(row.strength for row in board.rows) == pytest.approx(0) and all(
        0 < row.low < row.high < 1 for row in board.rows
    )
    assert "two raters" in board.alpha.reason and any("half a win" in note for note in board.notes)
    assert "not known" in dict(board.report().facts)["agreement"]


def test_no_difference_is_seldom_found():
    """Four systems that are alike, 30 studies: no word in nearly all of them (5 % for all six pairs together)."""
    wrong = 0
    for seed in range(30):
        judged = study(dict.fromkeys("abcd", 0.6), items=40, raters=6, each=2, seed=seed)
        (board,) = boards(Judgements(judged.ratings), draws=100, seed=seed)
        wrong += any(d.word != CANNOT_TELL for d in board.differences)
    assert wrong <= 3


def test_one_rater_and_few_items_cannot_tell_and_say_why():
    (board,) = boards(study({"good": 0.9, "bad": 0.1}, raters=1, each=1))
    assert "one rater" in str(board.differences[0]) and any("one rater" in note for note in board.notes)
    assert board.rows[0].low < board.rows[0].score and board.verdict.startswith("Cannot tell")
    (board,) = boards(study({"good": 0.9, "bad": 0.1}, items=5))
    assert "too few items" in board.differences[0].reason
    (board,) = boards(Judgements((Rating("1", "a", "x", "q", 1.0), Rating("1", "b", "x", "q", 0.0))))
    assert math.isnan(board.rows[0].low) and board.differences[0].word == CANNOT_TELL
    (board,) = boards(Judgements(tuple(Rating(str(i), s, str(i % 3), "q", 1.0) for i in range(20) for s in "ab")))
    assert board.differences[0].word == CANNOT_TELL and board.rows[0].score == board.rows[0].high == 1.0


def test_ten_items_are_ten_and_uneven_ones_say_what_was_tested():
    def reasons(answers):
        told = [(str(i), r) for i, count in answers for r in "xyzuvw"[:count]]
        ratings = [Rating(item, s, r, "q", v) for item, r in told for s, v in (("a", 1.0), ("b", 0.0))]
        (board,) = boards(Judgements(tuple(ratings)), draws=50)
        return {d.reason for d in board.differences}

    for count in range(1, 40):
        ratings = [Rating(str(i), s, r, "q", 1.0) for i in range(count) for s in "abc" for r in "xyz"]
        (board,) = boards(Judgements(tuple(ratings)), draws=2)
        assert ("too few items" in board.verdict) == (count < 10), count
    assert reasons([(i, 3) for i in range(10)]) == {""}
    (uneven,) = reasons([(0, 6), *((i, 1) for i in range(1, 11))])
    assert uneven.startswith("too few items to judge by: answers lie so unevenly on 11 that they weigh as on 5.")


def test_a_share_of_right_answers_is_met_by_that_share():
    rater = Rater("x", 5, 0.07, 100, 7, None)
    assert Limits(None, right=0.07, agreement=0.07).broken(rater) == ""
    assert Limits(None, right=0.08).broken(rater) == "7 of 100 test questions right"


def test_genies_interval_takes_raters_as_given():
    judged = study({"good": 0.8, "bad": 0.5}, raters=3, each=3)
    (people,), (genie,) = boards(judged), boards(judged, interval="genie")
    assert genie.rows[0].score == people.rows[0].score
    assert genie.rows[0].high - genie.rows[0].low < people.rows[0].high - people.rows[0].low
    assert genie.differences == people.differences and any("GENIE" in note for note in genie.notes)
    with pytest.raises(PapertrialError, match="did you mean 'genie'"):
        boards(judged, interval="geni")
    with pytest.raises(DataError, match="no answers"):
        boards(Judgements(checks=judged.checks))


def test_a_board_for_each_question():
    ratings = study({"a": 0.7, "b": 0.3}).ratings
    other = [Rating(r.item, r.system, r.rater, "fluency", 1 - r.value) for r in ratings]
    pairs = (Preference("1", "a", "b", "r1", "better", 1.0),)
    found = boards(Judgements((*ratings, *other), pairs), draws=200)
    assert [(board.question, board.kind) for board in found] == [
        ("quality", "rating"),
        ("fluency", "rating"),
        ("better", "pair"),
    ]
    assert found[0].rows[0].system == "a" and found[1].rows[0].system == "b"


def test_correlations_are_those_of_scipy():
    rng = np.random.default_rng(0)
    keys = [(str(item), system) for item in range(60) for system in "abcde"]
    level = dict(zip("abcde", rng.random(5), strict=True))
    people = {key: level[key[1]] + rng.integers(4) / 4 for key in keys}
    metric = {key: value + rng.normal(0, 0.5) for key, value in people.items()}
    system, item = correlations(people, {"bleu": metric}, draws=200)
    x, y = np.array([people[key] for key in keys]), np.array([metric[key] for key in keys])
    for found, theirs in zip(
        (item.pearson, item.spearman, item.kendall), (pearsonr, spearmanr, kendalltau), strict=True
    ):
        assert found[0] == pytest.approx(theirs(x, y).statistic, abs=1e-12)
        assert found[1] < found[0] < found[2]
    means = np.stack([x.reshape(60, 5).mean(0), y.reshape(60, 5).mean(0)])
    assert system.count == 5 and system.pearson[0] == pytest.approx(pearsonr(*means).statistic)
    assert item.count == 300 and (system.level, item.level) == ("system", "item")
    with pytest.raises(DataError, match="no output that people judged"):
        correlations(people, {"bleu": {("x", "y"): 1.0}})
    with pytest.raises(DataError, match="not finite"):
        correlations(people, {"bleu": {keys[0]: math.nan}})
    two = {key: value for key, value in people.items() if key[1] in "ab"}
    assert math.isnan(correlations(two, {"bleu": metric}, draws=20)[0].pearson[0])


def test_means_over_raters_by_output():
    judged = Judgements(
        (Rating("1", "a", "x", "q", 1.0), Rating("1", "a", "y", "q", 0.5), Rating("2", "a", "x", "other", 0.0))
    )
    assert by_output(judged, "q") == {("1", "a"): 0.75}
    with pytest.raises(DataError, match="several questions"):
        by_output(judged)
    with pytest.raises(DataError, match="did you mean 'other'"):
        by_output(judged, "othr")


def test_a_difference_that_could_be_told_alone_says_so():
    words = {low: str(Difference("A", "B", "cannot tell", 0.06, low, 0.1, 0.02, 8_700)) for low in (0.02, -0.02)}
    assert (
        "+0.020, +0.100] (on its own it would count, but all pairs are compared at once: Holm); about 8,700"
        in words[0.02]
    )
    assert "Holm" not in words[-0.02]


def test_the_verdict_says_why_nothing_can_be_told():
    ratings = [Rating(f"i{i}", s, r, "q", v) for i in range(4) for s, v in (("A", 1.0), ("B", 0.0)) for r in "xy"]
    (board,) = boards(Judgements(tuple(ratings), (), ()), draws=50)
    assert board.verdict == "Cannot tell any two systems apart: too few items to judge by; at least 10 are needed."


# -- real ratings -----------------------------------------------------------------------------------------------


def test_the_ratings_of_xsum(shared_data):
    """Maynez et al. 2020: five systems (one the reference), 500 articles, three raters: hallucinated or not."""
    file = shared_data / "human-eval" / "xsum-hallucination" / "hallucination_annotations_xsum_summaries.csv.gz"
    judged = Judgements.read(
        file,
        columns={"item": "bbcid", "rater": "worker_id", "value": "hallucination_type"},
        words={"NULL": 1.0, "extrinsic": 0.0, "intrinsic": 0.0},
    )
    (board,) = boards(judged, draws=500)
    assert board.rows[0].system == "Gold" and len(board.rows) == 5 and len(board.raters) == 3
    assert board.alpha.value == pytest.approx(0.769, abs=0.001)
    # three raters say little of all raters: over items alone the intervals are narrow, over both they are not
    (narrow,) = boards(judged, draws=500, interval="genie")
    assert board.rows[0].high - board.rows[0].low > 2 * (narrow.rows[0].high - narrow.rows[0].low)


def test_answers_that_are_missing_in_the_file(shared_data):
    file = shared_data / "human-eval" / "xsum-hallucination" / "factuality_annotations_xsum_summaries.csv.gz"
    columns = {"item": "bbcid", "rater": "worker_id", "value": "is_factual"}
    judged = Judgements.read(file, columns=columns, words={"yes": 1, "no": 0, "NULL": None})
    assert len(judged.ratings) == 5564  # of 5597, 33 of which say neither
    (board,) = boards(judged, draws=200)
    assert board.rows[0].system == "BERTS2S" and 0.2 < board.alpha.value < 0.8


def test_metrics_against_people_on_xsum(shared_data):
    file = shared_data / "human-eval" / "xsum-hallucination" / "eval_scores_xsum_summaries.csv.gz"
    people, metrics = {}, {name: {} for name in ("R1", "BERTScore", "Entailment")}
    with gzip.open(file, "rt") as stream:
        for row in csv.DictReader(stream):
            system, _, item = row["system_bbcid"].rpartition("_")
            people[item, system] = float(row["Faithful"])
            for name, scores in metrics.items():
                scores[item, system] = float(row[name])
    found = {(c.metric, c.level): c for c in correlations(people, metrics, draws=50)}
    assert found["R1", "item"].count == 1992 and found["R1", "system"].count == 4
    # as the paper reports: entailment follows faithfulness, ROUGE and BERTScore hardly do (Table 4)
    assert found["Entailment", "item"].spearman[1] > found["R1", "item"].spearman[2]
    assert found["Entailment", "item"].spearman[0] == pytest.approx(0.431, abs=0.001)
    assert found["R1", "item"].spearman[0] == pytest.approx(0.197, abs=0.001)
