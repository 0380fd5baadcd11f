"""Numbers and names in sentences and columns, and how what the Python face returns is shown."""

from __future__ import annotations

import numpy as np
import pytest

import papertrial as pt
from papertrial.core.paper import Report
from papertrial.core.task import Scores
from papertrial.core.wording import aligned, counted, escaped, printable, several, shortened


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 queries"), (1, "1 query"), (2, "2 queries"), (1234567, "1,234,567 queries")]
)
def test_counted(number, words):
    assert counted(number, "query", "queries") == words
    assert counted(np.int64(number), "query", "queries") == words


def test_a_plural_is_an_s_where_nothing_else_is_said():
    assert (counted(1, "row"), counted(3, "row")) == ("1 row", "3 rows")


def test_columns():
    assert aligned([("a", 1), ("long", 22), ("", "")]) == ["a     1", "long  22", ""]
    assert aligned([]) == []


def test_several_names_or_one():
    assert several("agc") == ["agc"] and several(("a", "b")) == ["a", "b"] and several(()) == []


def test_what_the_face_returns_is_shown_in_a_few_lines(tmp_path):
    data = pt.open("iris")
    assert repr(data) == "Table 'iris': 150 examples; look() says more"
    assert repr(data.look()) == str(data.look()) and "examples  " in repr(data.look())
    model = pt.fit("linear", data=data, out=tmp_path / "run", progress=False)
    assert repr(model) == f"Artifact {str(tmp_path / 'run')!r}: linear, trained for tabular"
    shown = repr(model.evaluate("iris")).splitlines()
    assert shown[0] == "150 examples in 149 groups, with 95 % intervals" and shown[1].startswith(
        "accuracy           0.9"
    )
    assert repr(Scores({"rmse": 1.25}, np.ones(1))).splitlines() == ["1 example, with 95 % intervals", "rmse  1.250"]


def test_a_report_is_its_table_and_its_sentence():
    assert repr(Report("a title", "It is so.")).splitlines() == ["a title", "It is so."]
    report = Report("a title", "It is so.", (("of", "this"),), ("layer", "value"), (("1", "0.5"), ("12", "0.25")))
    assert repr(report).splitlines() == [
        "a title",
        "of  this",
        "layer  value",
        "1      0.5",
        "12     0.25",
        "It is so.",
    ]


@pytest.mark.parametrize("name", ["digits", "iris", "python-pairs", "docstrings", "python-lines"])
def test_every_kind_of_data_has_a_length(name):
    data = pt.open(name)
    assert len(data) > 0 and repr(data).startswith(f"{type(data).__name__} {name!r}: {len(data):,} examples")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Gr\u00fc\u00dfe, \u65e5\u672c \U0001f600", "Gr\u00fc\u00dfe, \u65e5\u672c \U0001f600"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("two\nlines\tand a bell\x07", "two\nlines\tand a bell\\x07"),
        ("\u00ff\x9b", "\u00ff\\x9b"),
        ("\u0100\u202eturned", "\u0100\\u202eturned"),
        ("half \ud83d of one", "half \\ud83d of one"),
        ("a\u00a0b\u200b", "a\u00a0b\u200b"),
        ("", ""),
    ],
)
def test_what_would_control_a_terminal_is_escaped(text, shown):
    assert printable(text) == shown
    assert printable("two\nlines", keep="") == "two\\x0alines"


def test_escapes_have_two_digits_or_four():
    assert [escaped(chr(code)) for code in (0, 255, 256)] == ["\\x00", "\\xff", "\\u0100"]


def test_long_texts_are_shown_by_their_beginning():
    assert shortened("a" * 2000) == "a" * 2000
    assert shortened("a" * 2001) == "a" * 1960 + "... (2,001 characters)"
    assert shortened("abc" * 20, most=50) == ("abc" * 20)[:10] + "... (60 characters)"
