"""In every task rows that belong together stay on one side, test rows know their groups, and time and folds part anew."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from papertrial.core import registry
from papertrial.core.errors import PapertrialError
from papertrial.data import open as open_data
from papertrial.data.collections import Collection
from papertrial.data.collections.files import Document
from papertrial.data.images import Images
from papertrial.data.texts import Pairs, Texts
from papertrial.use.choose import prepare
from papertrial.use.folds import assigned, choice

GROUPS, EACH = 24, 5
ROWS = GROUPS * EACH


def told(data):
    """The data, as if a user had named their groups and times."""
    data.group, data.together = "who", np.repeat(np.arange(GROUPS), EACH)
    return data


def words(seed):
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(list("abcdefgh"), 6)) + f" {seed} {row}" for row in range(ROWS)]


def made(task):
    draw = np.random.default_rng(1)
    label = draw.integers(0, 2, ROWS)
    if task == "tabular":
        frame = pd.DataFrame(draw.normal(size=(ROWS, 3)), columns=list("abc")).assign(y=label)
        return told(open_data(frame, "y"))
    if task.startswith("image"):
        pixels = draw.integers(0, 256, (ROWS, 8, 8, 1), dtype=np.uint8)
        return told(Images.from_arrays(pixels, label))
    if task == "text_classification":
        return told(Texts.from_strings(words(0), label))
    if task == "sentence_similarity":
        return told(Pairs.from_strings(list(zip(words(0), words(1), strict=True)), draw.normal(size=ROWS)))
    if task == "text_to_text":
        return told(Pairs.from_strings(list(zip(words(0), words(1), strict=True))))
    documents = [Document(str(row), "", text) for row, text in enumerate(words(2))]
    queries = [(f"q{row}", text) for row, text in enumerate(words(3))]
    judged = [(f"q{row}", str(row), 1) for row in range(ROWS)]
    return told(Collection("made", documents, queries, {0: judged}))


TASKS = (
    "tabular",
    "image_classification",
    "image_representation",
    "text_classification",
    "sentence_similarity",
    "text_to_text",
    "retrieval",
)


def key(name, split):
    """What tells one row from another."""
    columns = {
        "tabular": "numeric",
        "text_classification": "text",
        "sentence_similarity": "first",
        "text_to_text": "source",
    }
    column = split[columns.get(name, "image" if name.startswith("image") else "text")]
    rows = [np.asarray(column[row]).tobytes() for row in range(split.examples)]
    assert len(set(rows)) == len(rows)
    return rows


@pytest.fixture(params=TASKS)
def world(request):
    task, data = registry.task(request.param), made(request.param)
    every = prepare(task, data, final=True).train
    place = {row: index for index, row in enumerate(key(request.param, every))}
    assert len(place) == ROWS  # a final model learns from every row
    return task, data, lambda split: np.array([place[row] for row in key(task.name, split)])


def test_no_group_stands_on_two_sides_and_test_rows_know_theirs(world):
    task, data, rows = world
    for seed in (0, 1):
        prepared = prepare(task, data, seed)
        sides = [set(data.groups[rows(split)]) for split in (prepared.train, prepared.valid, prepared.test)]
        assert all(sides) and not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
        group = prepared.test["group"]
        assert len(set(zip(group, data.groups[rows(prepared.test)], strict=True))) == len(set(group)) == len(sides[2])
    assert prepared.origin["options"]["group"] == "who"


def test_every_row_is_a_test_row_once_in_each_repeat_and_groups_stay_whole(world):
    task, data, rows = world
    seen = {}
    for repeat in (0, 1):
        tested = []
        for place in range(5):
            prepared = prepare(task, data, repeat, fold=(repeat, place, 5))
            mine = rows(prepared.test)
            found = assigned(task.strata(data), data.groups, 5, repeat)
            assert mine.tolist() == np.flatnonzero(found == place).tolist()
            tested += mine.tolist()
            assert not set(data.groups[mine]) & set(data.groups[rows(prepared.train)])
            assert not set(data.groups[mine]) & set(data.groups[rows(prepared.valid)])
        assert sorted(tested) == list(range(ROWS))
        seen[repeat] = tested
    assert seen[0] != seen[1]


def test_by_time_it_learns_from_the_past_and_is_judged_on_the_future(world):
    task, data, rows = world
    data.group, data.together = "", None
    data.time, data.times = "when", np.random.default_rng(5).permutation(ROWS).astype(float)
    data.times[0] = np.nan
    prepared = prepare(task, data)
    sides = [data.times[rows(split)] for split in (prepared.train, prepared.valid, prepared.test)]
    few = any(
        "labels per class" in line for line in prepared.notes
    )  # then some validation rows are there to learn from
    assert max(sides[0].max(), sides[1].max()) < sides[2].min() and (few or sides[0].max() < sides[1].min())
    assert any(line.startswith("by when: trained on ") for line in prepared.notes)
    assert "1 row without a time: left out" in prepared.notes
    if not few:
        assert sum(map(len, sides)) == ROWS - 1


def test_folds_are_chosen_by_how_many_rows_there_are():
    task, data = registry.task("tabular"), made("tabular")
    assert choice(task, data, None)[0] == 5 and "120 rows" in choice(task, data, None)[1]
    assert choice(task, data, "none") == (0, "") and choice(task, data, 3)[0] == 3
    given = data.parted(np.repeat([0, 2], ROWS // 2))
    assert choice(task, given, None) == (0, "")
    data.times = np.arange(ROWS)
    assert choice(task, data, None) == (0, "")
    for some, asked, why in (
        (given, 5, "comes with test rows"),
        (data, "5", "--time says"),
        (data, "many", "not a number"),
    ):
        with pytest.raises(PapertrialError, match=why):
            choice(task, some, asked)
    with pytest.raises(PapertrialError, match="24 groups are too few for 13 folds"):
        choice(task, made("tabular"), 13)
    large = open_data(pd.DataFrame({"a": np.random.default_rng(0).normal(size=2000), "y": np.arange(2000) % 2}), "y")
    assert choice(task, large, None) == (0, "")
    with pytest.raises(PapertrialError, match="language_modeling knows no folds"):
        choice(registry.task("language_modeling"), data, 5)


def test_classes_keep_their_shares_in_folds_and_a_lone_group_is_never_tested():
    draw = np.random.default_rng(0)
    strata = np.concatenate([np.zeros(100, int), np.ones(20, int), [2], [-1] * 4])
    strata = strata[draw.permutation(len(strata))]
    found = assigned(strata, np.arange(len(strata)), 5, 0)
    for label, count in ((0, 20), (1, 4)):
        assert np.bincount(found[strata == label], minlength=5).tolist() == [count] * 5
    assert (found[strata == 2] == -1).all() and (found[strata == -1] == -1).all()
