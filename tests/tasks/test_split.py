"""Which rows are for what: shares of each class, groups that stay together, what was given, and what the seed decides."""

from __future__ import annotations

import numpy as np
import pytest

from papertrial.core.errors import DataError, PapertrialError
from papertrial.core.task import Ragged
from papertrial.data.base import WHOLE
from papertrial.tasks._split import (
    at_least_one,
    pick,
    pick_together,
    require_fraction,
    require_shares,
    revealed_per_class,
    rounded,
    some_of,
    split_rows,
    spread_evenly,
)

TARGET = np.repeat([0, 1], [60, 40])
ALONE = np.arange(100)


def split(target=TARGET, part=None, groups=None, seed=0, revealed=None, fraction=1.0, needs_labels=True):
    notes: list[str] = []
    part = np.zeros(len(target), dtype=np.int8) if part is None else part
    groups = np.arange(len(target)) if groups is None else groups
    return *split_rows(target, part, groups, seed, revealed, fraction, notes, "images", needs_labels), notes


@pytest.mark.parametrize("value", [0, -0.1, 1.01, "2"])
def test_a_fraction_is_above_none_and_at_most_all(value):
    with pytest.raises(PapertrialError, match=f"fraction is {value}"):
        require_fraction(value)
    with pytest.raises(PapertrialError, match=f"fraction is {value}"):
        require_shares(value, 0.2, 0.1)
    for fine in (1, 1.0, "0.5", 1e-9):
        require_fraction(fine)
        require_shares(fine, 0.2, 0.1)


@pytest.mark.parametrize("name", ["test_share", "valid_share"])
def test_shares_that_are_held_out_leave_something(name):
    fine = {"fraction": 1, "test_share": 0.2, "valid_share": 0.1}
    for value in (0, 1, 1.5):
        with pytest.raises(PapertrialError, match=f"{name} is {value}, not between"):
            require_shares(**{**fine, name: value})
    require_shares(**{**fine, name: 0.999})


def test_some_rows_are_a_share_in_their_order_drawn_by_the_seed():
    rows = np.arange(100, 150)
    for fraction, count in ((0.5, 25), (0.01, 1), (0.03, 2), (1.0, 50), (1e-9, 1)):
        found = some_of(rows, fraction, 0)
        assert len(found) == count and np.isin(found, rows).all() and (np.diff(found) > 0).all()
    assert not np.array_equal(some_of(rows, 0.5, 0), some_of(rows, 0.5, 1))
    assert np.array_equal(some_of(rows, 0.5, 3), some_of(rows, 0.5, 3))
    assert not np.array_equal(some_of(rows, 0.5, 0), rows[:25])


def test_rows_are_spread_evenly():
    assert spread_evenly(np.arange(10), 4).tolist() == [0, 2, 5, 7]
    assert spread_evenly(np.arange(4), 4).tolist() == spread_evenly(np.arange(4), 9).tolist() == [0, 1, 2, 3]
    texts = Ragged.of_texts(["a", "b", "c", "d", "e", "f"])
    assert spread_evenly(texts, 3).texts() == ["a", "c", "e"]


def test_how_many_labels_are_shown():
    assert revealed_per_class(None, 10) == 10 and revealed_per_class(None, None) is None
    assert revealed_per_class("all", 10) is revealed_per_class("ALL", 10) is None
    assert revealed_per_class("7", 10) == revealed_per_class(7, None) == 7 and revealed_per_class(1, 10) == 1
    for wrong in (0, "-1", "few", 2.5):
        with pytest.raises(PapertrialError, match="labels=all"):
            revealed_per_class(wrong, 10)


def test_halves_go_up_and_none_is_one_where_it_must_be():
    assert rounded(np.array([1, 2, 3, 5, 25]), 0.1).tolist() == [0, 0, 0, 1, 3]
    assert at_least_one(np.array([1, 15, 25]), 0.1).tolist() == [1, 2, 3]


def test_so_many_of_each_out_of_those():
    groups, among = np.repeat([7, 3, 5], [10, 20, 5]), np.ones(35, dtype=bool)
    among[:4] = False
    mask = pick(groups, lambda count: np.minimum(count, 6) - 1, np.random.default_rng(0), among)
    assert [int(mask[groups == group].sum()) for group in (7, 3, 5)] == [5, 5, 4] and not mask[:4].any()
    seen = sum(pick(groups, lambda count: count // 2, np.random.default_rng(seed)) for seed in range(200))
    assert (seen > 60).all() and (seen < 140).all()  # any row as often as any other


def test_groups_are_chosen_whole_and_count_once():
    """Of 12 groups in class 0 and 8 in class 1, half of each class's groups, with all their rows wherever they stand."""
    groups = np.random.default_rng(0).permutation(np.repeat(np.arange(20), 3))
    target = (groups >= 12).astype(np.int64)
    among = np.ones(60, dtype=bool)
    among[groups == 0] = False
    mask = pick_together(target, groups, lambda count: count // 2, np.random.default_rng(0), among)
    chosen = np.unique(groups[mask])
    assert np.isin(groups, chosen).tolist() == mask.tolist()
    assert ((chosen < 12).sum(), (chosen >= 12).sum(), 0 in chosen) == (5, 4, False)


def test_a_fifth_of_each_class_is_for_the_test_and_a_tenth_of_the_rest_to_validate_on():
    train, valid, test, notes = split()
    assert np.bincount(TARGET[test]).tolist() == [12, 8]
    assert np.bincount(TARGET[valid]).tolist() == [5, 3]
    assert sorted([*train, *valid, *test]) == list(range(100))
    assert notes == ["test: 20 of 100 labelled images, the same for every seed"]
    again = split(seed=1)
    assert np.array_equal(test, again[2]) and not np.array_equal(valid, again[1])


def test_groups_never_straddle():
    groups = np.arange(100) // 4
    train, valid, test, _ = split(target=np.arange(100) % 2, groups=groups)
    parts = [set(groups[rows].tolist()) for rows in (train, valid, test)]
    assert all(parts) and not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]


def test_few_labels_limit_validation_and_a_fraction_what_is_learnt_from():
    train, valid, test, _ = split(revealed=2)
    assert np.bincount(TARGET[valid]).tolist() == [2, 2] and len(train) == 100 - 4 - len(test)
    few, same, _, _ = split(fraction=0.25)
    whole, valid, _, _ = split()
    assert np.array_equal(same, valid) and np.isin(few, whole).all()
    assert np.bincount(TARGET[few]).tolist() == [11, 7]  # of 43 and 29
    assert np.bincount(TARGET[split(fraction=0.001)[0]]).tolist() == [1, 1]
    assert not np.array_equal(split(fraction=0.25, seed=1)[0], few)


def test_what_was_given_is_kept():
    part = np.zeros(100, dtype=np.int8)
    part[[0, 1, 60, 61]], part[[2, 3, 4, 62, 63]], part[99] = 2, 1, -1
    train, valid, test, notes = split(part=part)
    assert (test.tolist(), valid.tolist(), notes) == ([0, 1, 60, 61], [2, 3, 4, 62, 63], [])
    assert sorted([*train, *valid, *test]) == list(range(99))
    train, valid, _, _ = split(
        part=part, revealed=1
    )  # more to validate on than a method may see: the rest is learnt from
    assert np.bincount(TARGET[valid]).tolist() == [1, 1] and part[valid].tolist() == [1, 1]
    assert sorted([*train, *valid]) == [row for row in range(99) if part[row] != 2]


def test_a_given_test_without_labels_is_learnt_from_and_another_is_drawn():
    target, part = TARGET.copy(), np.zeros(100, dtype=np.int8)
    target[:20], part[:20] = -1, 2
    train, valid, test, notes = split(target, part)
    assert set(range(20)) <= set(train.tolist()) and np.bincount(target[test]).tolist() == [8, 8]
    assert (target[valid] >= 0).all() and notes[0].startswith("test: 16 of 80 labelled images")
    target[0] = 0
    assert split(target, part)[2].tolist() == [0]  # one that has a label is the test


def test_rows_that_are_all_to_learn_from_are_not_split():
    train, valid, test, notes = split(part=np.full(100, WHOLE, dtype=np.int8))
    assert (train.tolist(), len(valid), len(test), notes) == (list(range(100)), 0, 0, [])


def test_without_labels_there_is_nothing_to_judge():
    none = np.full(10, -1)
    train, valid, test, notes = split(none, part=np.full(10, 2, dtype=np.int8), needs_labels=False)
    assert (len(train), len(valid), len(test)) == (10, 0, 0) and "nothing can be judged" in notes[0]
    with pytest.raises(DataError, match=r"no labels.*images of each class"):
        split(none)
    with pytest.raises(DataError, match="same class"):
        split(np.where(np.arange(10) < 5, 0, -1))
    with pytest.raises(DataError, match=r"too few labelled images.*at least 3"):
        split(np.array([0, 0, 1, 1]))
    assert len(split(np.array([0, 0, 0, 1, 1, 1]))[2]) == 2
