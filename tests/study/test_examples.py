"""Every kind of data shows some of its training examples in a report, whatever the task made of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from papertrial.core import registry
from papertrial.data import open as open_data
from papertrial.study.examples import blocks
from papertrial.study.html_page import Grid, Heading, Pictures, Table
from papertrial.use.choose import prepare


@pytest.mark.parametrize(
    ("source", "task", "title", "head"),
    [
        ("digits", "image_classification", "Training images", ()),
        ("wine", "tabular", "Columns of the training rows", ()),
        ("python-lines", "text_classification", "Training texts", ("class", "text")),
        ("python-lines", "text_to_text", "Training texts", ("source", "target")),
        ("python-docs", "language_modeling", "Training texts", ("text",)),
        ("python-docs", "sentence_similarity", "Training texts", ("score", "first")),
        ("python-pairs", "sentence_similarity", "Training texts", ("score", "first", "second")),
        ("python-outputs", "human_judgement", "Training texts", ("score", "reference", "output")),
        ("docstrings", "retrieval", "Training queries", ("query", "document")),
    ],
)
def test_a_report_shows_training_examples(source, task, title, head):
    data = open_data(source)
    prepared = prepare(registry.task(task), data, 0)
    card = {"data": {**prepared.origin, "options": {}}, "task": {"name": task}, "seed": 0}
    shown = blocks(card)
    assert [block.words for block in shown if isinstance(block, Heading)] == [title]
    tables = [block for block in shown if isinstance(block, Table)]
    if not head:
        drawn = next(block for block in shown if isinstance(block, Pictures | Grid))
        assert drawn.rows if isinstance(drawn, Pictures) else drawn.blocks
        return
    assert tuple(tables[0].head) == head
    assert len(tables[0].rows) >= 3
    assert all(len(row) == len(head) and all(row) for row in tables[0].rows)


def test_a_kind_that_shows_nothing_says_so(monkeypatch):
    prepared = prepare(registry.task("tabular"), open_data("wine"), 0)
    card = {"data": {**prepared.origin, "options": {}}, "task": {"name": "tabular"}, "seed": 0}
    kind = registry.kind("table")
    bare = replace(kind, shown="")
    monkeypatch.setattr(registry, "kind", lambda name: bare)
    (said,) = blocks(card)
    assert said.words == "The examples themselves are not shown: the kind table does not say how."
