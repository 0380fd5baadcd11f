"""Odd folders go through look, fit, predict and evaluate, and nothing is lost silently: rows in = rows judged + rows named."""

from __future__ import annotations

from contextlib import suppress

import pytest

import papertrial as pt
from odd_folders import IMAGES, TEXTS, classes, texts
from papertrial.core.errors import DataError, PapertrialError

CASES = {"images": IMAGES, "texts": TEXTS}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    made = {"images": classes(root / "images", start=90), "texts": texts(root / "texts")}
    return {kind: pt.fit("majority", on, out=root / f"run-{kind}", progress=False) for kind, on in made.items()}


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind, cases in CASES.items() for name in cases],
    ids=lambda word: word.replace(" ", "-"),
)
def test_rows_in_are_rows_judged_and_rows_named(kind, name, models, tmp_path):
    case, model = CASES[kind][name], models[kind]
    path = case.make(tmp_path / "odd")

    opened = pt.open(path)
    look = opened.look()
    assert look.numbers["examples"] + sum(opened.lost.values()) == case.files

    given = model.encode(path)
    answers = model.predict(given)
    assert len(answers["prediction"]) == len(answers["example"]) == given.split.examples
    assert given.rows == case.files
    said = [*given.notes, *look.notes]
    if case.judged:
        scores = model.evaluate(path)
        assert len(scores.per_example) == case.judged
        assert scores.rows == case.files == case.judged + sum(scores.left_out.values())
        said += scores.notes
    else:
        with pytest.raises(DataError, match="no labels to evaluate on"):
            model.evaluate(path)
    for words in case.said:
        assert any(words in note for note in said), (words, said)

    with suppress(PapertrialError):  # of one class, or without labels
        fitted = pt.fit("majority", path, out=tmp_path / "run", progress=False)
        assert set(opened.notes) <= set(fitted.card["notes"])
