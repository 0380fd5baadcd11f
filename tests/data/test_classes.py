"""Several labels in one row: a combination is one class, whatever the order they are written in."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from papertrial.core import registry
from papertrial.core.errors import DataError
from papertrial.data import open as open_data
from papertrial.data.tables.classes import label_sets

ROWS = 80
SETS = [("a", "b"), ("b", "a"), ("a",), ("c", "a"), ("b", "c"), ("c", "b")]
DRAWN = np.random.default_rng(0).integers(0, len(SETS), ROWS)
WRITTEN = {"|": "|".join, ";": "; ".join, ",": ", ".join, "json": lambda labels: json.dumps(list(labels))}


def frame(form, kind):
    words = ["good", "bad", "fine", "great", "awful", "film", "story", "slow"]
    draw = np.random.default_rng(1)
    column = [" ".join(draw.choice(words, 8)) for _ in range(ROWS)] if kind == "text" else draw.normal(size=ROWS)
    return pd.DataFrame(
        {"text" if kind == "text" else "x": column, "labels": [WRITTEN[form](SETS[row]) for row in DRAWN]}
    )


@pytest.mark.parametrize("form", WRITTEN)
@pytest.mark.parametrize("kind", ["text", "table"])
def test_the_order_of_labels_never_matters(form, kind, tmp_path):
    frame(form, kind).to_csv(tmp_path / "t.csv", index=False)
    data = open_data(tmp_path / "t.csv", "labels")
    codes, names = (data.labels, data.class_names) if kind == "text" else data.labels()
    glue = {"|": "|", ";": ";", ",": ", ", "json": "|"}[form]
    assert list(names) == sorted({glue.join(sorted(labels)) for labels in SETS})
    assert [names[code] for code in codes] == [glue.join(sorted(SETS[row])) for row in DRAWN]
    assert sum("holds several labels in a row: each combination is one class" in note for note in data.notes) == 1


@pytest.mark.parametrize("kind", ["text", "table"])
def test_new_data_may_write_them_in_another_order(kind, tmp_path):
    frame("|", kind).to_csv(tmp_path / "t.csv", index=False)
    task = registry.task("text_classification" if kind == "text" else "tabular")
    state = task.prepare(open_data(tmp_path / "t.csv", "labels")).state
    turned = frame("|", kind)
    turned["labels"] = ["|".join(reversed(value.split("|"))) for value in turned["labels"]]
    turned.to_csv(tmp_path / "new.csv", index=False)
    new = task.encode(state, open_data(tmp_path / "new.csv", "labels"))
    assert [state["class_names"][code] for code in new["label"]] == ["|".join(sorted(SETS[row])) for row in DRAWN]


def test_too_many_combinations_are_refused_in_words(tmp_path):
    draw = np.random.default_rng(0)
    tags = [f"t{index}" for index in range(12)]
    written = ["|".join(draw.permutation(tags)[: draw.integers(2, 8)]) for _ in range(200)]
    pd.DataFrame({"x": draw.normal(size=200), "tags": written}).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(
        DataError, match=r"holds several labels in a row, in \d+ combinations: too many.*a column for each label"
    ):
        open_data(tmp_path / "t.csv", "tags")


@pytest.mark.parametrize(
    "values",
    [
        ["Albany, NY", "Boston, MA", "Dallas, TX"],  # each part once
        ["yes", "no"],
        ["one", "two; three"],
        ["a sentence of many words, and more of them", "another one of these here, a sentence of many words"],
        ["[1, 2", "[2, 1"],
    ],
)
def test_what_is_no_set_of_labels(values):
    assert label_sets(values) == {}
