"""Rows of different length: taken, padded, as texts, and through batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from papertrial.core.task import Ragged, Split
from papertrial.nn.batches import Batches, forward_batches

ROWS = st.lists(st.lists(st.integers(1, 9), max_size=6), max_size=8)


@given(ROWS, st.data())
def test_taking_rows_is_taking_them_from_a_list(rows, data):
    ragged = Ragged.of(rows)
    picked = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=10)) if rows else []
    taken = ragged[np.array(picked, dtype=np.int64)]
    assert [taken[i].tolist() for i in range(len(taken))] == [rows[i] for i in picked]
    half = ragged[len(rows) // 2 :]
    assert [half[i].tolist() for i in range(len(half))] == rows[len(rows) // 2 :]
    assert half.nbytes == 4 * sum(map(len, rows[len(rows) // 2 :]))


@given(ROWS, st.integers(0, 7))
def test_padding_fills_at_the_end_and_cuts_what_is_too_long(rows, longest):
    padded = Ragged.of(rows, pad=-1).padded(longest)
    width = max([min(len(row), longest) for row in rows], default=0)
    assert padded.tolist() == [(row[:longest] + [-1] * width)[:width] for row in rows]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_texts_come_back(texts):
    assert Ragged.of_texts(texts).texts() == texts
    assert Ragged.of_texts(texts)[::-1].texts() == texts[::-1]


def test_one_row_may_be_counted_from_the_end_and_none_beyond():
    ragged = Ragged.of([[1], [2, 3]])
    assert ragged[-1].tolist() == [2, 3]
    with pytest.raises(IndexError):
        ragged[2]


def test_offsets_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="offsets"):
        Ragged(np.zeros(3), np.array([0, 4]))
    with pytest.raises(ValueError, match="offsets"):
        Ragged(np.zeros(3), np.array([0, 2, 1]))


def test_a_lone_surrogate_becomes_a_question_mark():
    assert Ragged.of_texts(["a\ud800b"]).texts() == ["a?b"]


def test_batches_pad_to_their_own_longest_row():
    split = Split({"ids": Ragged.of([[1], [2, 2], [3, 3, 3], [4]], pad=7), "label": np.arange(4)})
    batch = Batches(split, 4, seed=0).at(0)
    assert batch["ids"].dtype == torch.int64 and batch["ids"].shape == (4, 3)
    for ids, label in zip(batch["ids"].tolist(), batch["label"].tolist(), strict=True):
        assert [i for i in ids if i != 7] == [label + 1] * [1, 2, 3, 1][label]


def test_answers_keep_the_order_of_the_rows():
    rows = [[length] * length for length in (3, 1, 9, 4, 4, 2)]
    seen = []

    def lengths(ids):
        seen.append(ids.shape[1])
        return (ids > 0).sum(1)

    out = forward_batches(lengths, Split({"ids": Ragged.of(rows)}), ["ids"], batch=2)
    assert out.tolist() == [3, 1, 9, 4, 4, 2] and seen == [9, 4, 2]
