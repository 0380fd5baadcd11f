"""Numbers, dates and times as people write them: what a column is taken for, by all its lines, and how new data is read alike."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from papertrial.core.errors import DataError, PapertrialError
from papertrial.data import open as open_data
from papertrial.data.tables import Table
from papertrial.data.tables import files as tablefiles
from papertrial.data.tables.alike import alike, same
from papertrial.data.tables.reading import Reading
from papertrial.data.tables.written import Writing, days, read
from papertrial.tasks.tabular import TASK


def settled(*values, spaced=False):
    writing = Writing(spaced)
    writing.add(pa.array(values))
    return writing.settled()[0]


def numbers(form, *values):
    return read(pa.array(values), form).tolist()


def table(values, target=None, name="v", **asks):
    """A frame with a column of texts, and a target that it decides."""
    frame = pd.DataFrame({name: values, "y": target or ["ab"[row % 2] for row in range(len(values))]})
    return open_data(frame, "y", **asks)


def csv(tmp_path, text, name="t.csv", target="y", **asks):
    (tmp_path / name).write_text(text)
    return open_data(tmp_path / name, target, **asks)


MANY = range(40)  # so many numbers that a word among them is no code


@pytest.mark.parametrize(
    ("values", "form", "first"),
    [
        ([f"${n * 1000 + 5:,}.40" for n in MANY], "amount .$", 5.4),
        ([f"{n},50 €" for n in MANY], "amount ,€", 0.5),
        (["1.234,50", "2.500.000,00", "-3,5"], "amount ,", 1234.5),
        (["1,234.50", "2,500,000", "-3.5"], "amount .", 1234.5),
        (["1,500", "900", "2,000"], "amount .", 1500),
        (["1 234", "12\u202f345", "5"], "amount .", 1234),
        (["1'234.5", "12'345.25"], "amount .", 1234.5),
        (["1,23,456", "99,999"], "amount .", 123456),
        (["(1,234)", "17"], "amount .", -1234),
        (["17-", "12"], "amount .", -17),
        (["\u22125", "5"], "amount .", -5),
        (["-$5", "$(3)", "$1"], "text", None),  # a bracket that is none
        ([f"{n / 2}%" for n in MANY], "amount .%", 0),
        (["€1.5M", "€900K", "€0"], "amount .€", 1.5e6),
        ([f"{n} kg" for n in MANY], "amount .kg", 0),
        (["3 rooms", "4 rooms"], "text", None),  # as categories they lose nothing
        ([f"{n} {'kg' if n % 2 else 'g'}" for n in MANY], "text", None),
        (["47%", "0.47", "50%"], "text", None),  # which may mean the same
        (["1st", "2nd", "3rd"], "text", None),
        (["2:1", "16:9"], "text", None),
        (["0,5", "1,25"], "comma", None),
        (["1e5", "inf", "3.5"], "number", None),
    ],
)
def test_numbers(values, form, first):
    assert settled(*values) == form
    if first is not None:
        assert numbers(form, values[0]) == [pytest.approx(first)]


def test_what_a_mark_means_is_told_by_all_lines():
    few = [f"{n}" for n in range(1, 900, 30)]
    assert settled(*few, "1.234", "5.678", "2.345", "1.111", "9.876", spaced=True) == "amount ,"
    assert settled(*few, "1.234", "5.678", "2.345", "1.111", "9.876", "1.5") == "number"
    assert settled("1.234", "5.678", "2.345") == "number"  # of a width, as measurements are
    assert settled(*few, "4321", "1.234", "5.678", "2.345", "1.111", "9.876") == "number"  # thousands without a dot
    assert settled("1,234", "5,678", spaced=True) == "comma"
    assert settled("1,234", "5,678") == "amount ."
    assert settled("1,234", "567", spaced=True) == "amount ."
    assert numbers("amount ,", "1.234", "567", "5,5") == [1234, 567, 5.5]


@pytest.mark.parametrize(
    ("text", "order", "day"),
    [
        ("23/01/2024", "dmy", "2024-01-23"),
        ("01/23/2024", "mdy", "2024-01-23"),
        ("3-1-99", "dmy", "1999-01-03"),
        ("3/1/24", "dmy", "2024-01-03"),
        ("23.01.2024", "", "2024-01-23"),
        ("23.1.24", "", "2024-01-23"),
        ("2024.01.23", "", "2024-01-23"),
        ("23-Jan-2024", "", "2024-01-23"),
        ("23 January 2024", "", "2024-01-23"),
        ("January 23rd, 2024", "", "2024-01-23"),
        ("Jan 2024", "", "2024-01-01"),
        ("2024-01-23T12:00:00Z", "", "2024-01-23T12"),
        ("2024-01-23 12:00:00+06:00", "", "2024-01-23T06"),
        ("Tue, 23 Jan 2024 12:00:00 -0600", "", "2024-01-23T18"),
        ("Tue Jan 23 18:00:00 2024", "", "2024-01-23T18"),
        ("01/23/2024 6:00 PM", "mdy", "2024-01-23T18"),
        ("01/23/2024 12:00 AM", "mdy", "2024-01-23"),
        ("9999-12-31", "", "9999-12-31"),
    ],
)
def test_dates(text, order, day):
    found = days(pa.array([text]), order)[0]
    assert found == pytest.approx(np.datetime64(day, "h").astype(int) / 24)


@pytest.mark.parametrize(
    "text", ["30/02/2024", "13/13/2024", "00/01/2024", "2024-13-01", "23-Jam-2024", "01/02/2024 25:00", "1.2.3"]
)
def test_what_is_no_date(text):
    assert np.isnan(days(pa.array([text]), "dmy")[0])


def test_the_order_of_a_date_is_told_by_all_lines_of_the_table():
    assert settled("23/01/2024", "02/03/2024") == "date dmy"
    assert settled("01/23/2024", "02/03/2024") == "date mdy"
    assert settled("01/02/2024", "02/03/2024") == "?"
    assert settled("23/01/2024", "01/23/2024") == "text"
    assert settled("23/01/2024", "2024-03-01", "1 May 2024") == "date dmy"
    either = [f"{1 + n % 12:02d}/{1 + n // 12:02d}/2024" for n in MANY]
    asked = table(either)
    assert asked.columns["v"].form == "text"
    assert any(
        "looks like dates ('01/01/2024'), day or month first? --dates dmy or --dates mdy" in note
        for note in asked.notes
    )
    for order, first in (("dmy", "2024-01-02"), ("mdy", "2024-02-01")):
        told = table(either, dates=order)
        assert told.columns["v"].type == "date"
        assert told.floats("v")[1] == np.datetime64(first).astype(int)
    frame = pd.DataFrame({"v": either, "w": [f"{1 + n % 28}/03/2023" for n in MANY], "y": [0, 1] * 20})
    as_the_other = open_data(frame, "y")
    assert as_the_other.columns["v"].type == "date"
    assert any("read day first, as those of 'w' must be" in note for note in as_the_other.notes)
    with pytest.raises(PapertrialError, match="--dates is 'ymd'; type --dates dmy"):
        table(either, dates="ymd")


def test_times():
    assert settled("14:05", "2:05 PM") == settled("1h 30m", "45m") == settled("PT1H30M", "PT5M") == "hours"
    found = numbers(
        "hours", "14:05", "2:05 PM", "12:00 am", "1h 30m", "90 min", "PT1H30M", "1 day, 2:00:00", "-1:30", "25:61"
    )
    assert found[:8] == pytest.approx([14 + 5 / 60, 14 + 5 / 60, 0, 1.5, 1.5, 1.5, 26, -1.5])
    assert np.isnan(found[8])


def test_few_words_among_numbers_are_missing_and_many_are_codes():
    told = table([*map(str, range(95)), *["unknown"] * 5], name="v")
    assert told.columns["v"].type != "numeric"  # a frame's texts are texts
    loose = [*range(95), *["unknown"] * 5]
    told = table(loose)
    assert (told.columns["v"].type, told.columns["v"].missing) == ("numeric", 5)
    assert (
        "column 'v': 5 of 100 values are not numbers and count as missing; the first is 'unknown' (row 96)"
        in told.notes
    )
    assert table([*range(60), *["low"] * 40]).columns["v"].type == "categorical"  # that many words say something
    assert table([*range(95), *(f"V{n}" for n in range(5))]).columns["v"].type != "numeric"  # many different ones
    assert table([*range(60), *["n.a."] * 40]).columns["v"].type == "numeric"  # a word for what is not known


def test_no_column_falls_from_numbers_to_texts_without_a_word():
    for values, words in (
        ([*range(40), *(f"V{n}" for n in range(20))], "40 of 60 values are numbers, but others are not, such as 'V0'"),
        ([f"{n} {'kg' if n % 2 else 'g'}" for n in range(60)], "its numbers have several units ('g', 'kg')"),
        ([f"2024-03-{1 + n % 28:02d}" for n in range(40)] + [f"week {n}" for n in range(20)], "values are dates"),
    ):
        assert any(words in note for note in table(values).notes), values[0]
    assert not table(["1", "2", "3", "A"] * 20).notes  # categories lose nothing


def test_zeros_in_front_and_large_numbers_make_codes(tmp_path):
    found = csv(tmp_path, "zip,big,n,y\n" + "".join(f"{n * 977:05d},{2**60 + 1 + n},{n},{n % 2}\n" for n in MANY))
    assert [found.columns[name].form for name in ("zip", "big", "n")] == ["text", "text", "number"]
    assert "00977" in found.columns["zip"].categories and str(2**60 + 1) in found.columns["big"].categories
    assert any("'zip': numbers that begin with a zero are codes" in note for note in found.notes)
    assert any("'big': 40 whole numbers above 2^53" in note for note in found.notes)
    ids = open_data(pd.DataFrame({"id": [2**60 + 1 + n // 2 for n in MANY], "y": [0, 1] * 20}), "y")
    assert ids.columns["id"].form == "text" and ids.columns["id"].unique == 20
    once = csv(tmp_path, "n,y\n" + "".join(f"{n},{n % 2}\n" for n in range(199)) + "007,1\n")
    assert once.columns["n"].type == "numeric"
    assert any("1 value that begin" in note or "begin with a zero are read as numbers" in note for note in once.notes)


# -- missing ----------------------------------------------------------------------------------------------------


def test_none_and_na_are_classes_where_no_number_is_missing_so(tmp_path):
    text = "n,alley,y\n" + "".join(f"{{}},{('None', 'NA', 'Grvl')[n % 3]},{('None', 'Pave')[n % 2]}\n" for n in MANY)
    alone = csv(tmp_path, text.replace("{}", "1.5"))
    assert alone.columns["alley"].categories == ("Grvl", "NA", "None") and alone.columns["alley"].missing == 0
    assert alone.labels()[1] == ("None", "Pave")
    assert any("'NA' (13 values in 'alley') is taken as a text; --missing 'NA'" in note for note in alone.notes)
    among = csv(tmp_path, text.replace("{}", "NA", 3).replace("{}", "1.5"))
    assert among.columns["alley"].categories == ("Grvl", "None") and among.columns["alley"].missing == 13
    assert any("taken for missing: 'NA' (16 values)" in note for note in among.notes)
    said = csv(tmp_path, text.replace("{}", "NA", 3).replace("{}", "1.5"), missing="None,Grvl")
    assert said.columns["alley"].categories == ("NA",)
    none = csv(tmp_path, text.replace("{}", "1.5"), missing="none")
    assert none.columns["alley"].missing == 0


def test_marks_may_be_numbers(tmp_path):
    text = "n,f,y\n" + "".join(
        f"{-999 if n % 4 == 0 else n},{'-999.0' if n % 5 == 0 else n + 0.5},{n % 2}\n" for n in MANY
    )
    assert csv(tmp_path, text).columns["n"].missing == 0
    told = csv(tmp_path, text, missing="NA,-999")
    assert (told.columns["n"].missing, told.columns["f"].missing) == (10, 8)
    frame = open_data(pd.DataFrame({"n": [-999, 1, 2, 3] * 10, "y": [0, 1] * 20}), "y", missing=["-999"])
    assert frame.columns["n"].missing == 10


def test_whether_a_value_is_there_is_an_input(tmp_path):
    high = [n % 3 == 0 for n in range(90)]
    frame = pd.DataFrame(
        {
            "box": ["x" if one else None for one in high],
            "one": [1.0 if one else np.nan for one in high],
            "size": [np.nan if one else n / 7 for n, one in enumerate(high)],
            "full": [n / 3 for n in range(90)],
            "y": ["hi" if one else "lo" for one in high],
        }
    )
    found = open_data(frame, "y")
    assert [column.type for column in found.columns.values()][:4] == ["checkbox", "checkbox", "numeric", "numeric"]
    assert ("columns", "2 numeric, 2 checkbox") in found.look().facts
    prepared = TASK.prepare(found)
    assert prepared.state["numeric"] == ["size", "full"] and prepared.state["missing"] == ["box", "one", "size"]
    assert prepared.facts.numeric == prepared.train["numeric"].shape[1] == 5
    label = prepared.train["label"]
    np.testing.assert_array_equal(prepared.train["numeric"][:, 2], label)  # hi is 0, and has the cross
    np.testing.assert_array_equal(prepared.train["numeric"][:, 4], 1 - label)
    again = TASK.encode(prepared.state, open_data(frame.drop(columns="y").head(7)))
    np.testing.assert_array_equal(again["numeric"][:, 2], [0, 1, 1, 0, 1, 1, 0])
    whole = TASK.prepare(open_data(frame[["full", "y"]], "y"))
    assert whole.state["missing"] == [] and whole.facts.numeric == 1  # at no cost where nothing is missing


# -- alike ------------------------------------------------------------------------------------------------------


def test_the_same_value_in_another_spelling():
    assert alike(["1.0", "2", "a", "x"], ["1", "2", "A"], fold=True) == {"1.0": "1", "a": "A"}
    assert alike(["1234", "1234.0"], ["01234", "00501"], fold=True) == {"1234": "01234", "1234.0": "01234"}
    assert alike(["1234.0"], ["01234", "1234"], fold=True) == {}  # which might be either
    assert alike(["True", "1", "1.0", "Y", "n"], ["no", "yes"], fold=True) == {
        "True": "yes", "1": "yes", "1.0": "yes", "Y": "yes", "n": "no",
    }  # fmt: skip
    assert alike(["red  wine", "Red Wine"], ["red wine"], fold=False) == {"red  wine": "red wine"}
    assert alike(["No", "True"], ["no", "yes"], fold=False) == {"True": "yes"}
    assert alike(["1"], ["a", "b"], fold=True) == alike([], [], fold=True) == {}
    assert same(["1", "1.0", "01", "2"]) == {"1.0": "1"}
    assert same(["True", "1", "no", "yes"])["1"] in ("True", "yes")
    assert same(["1", "0", "A"]) == {}


def test_a_code_that_comes_back_as_a_float(tmp_path):
    train = csv(tmp_path, "code,x,y\n" + "".join(f"{'123A'[n % 4]},{n * 0.37},{'pq'[n % 4 == 1]}\n" for n in range(80)))
    prepared = TASK.prepare(train)
    new = "code,x,y\n" + "".join(
        f"{'' if n == 0 else f'{n % 3 + 1}.0'},{n * 0.37},{'pq'[n % 3 == 1]}\n" for n in range(60)
    )
    opened = csv(tmp_path, new, "new.csv", None, like=prepared.state["columns"])
    split = TASK.encode(prepared.state, opened)
    listed = prepared.state["categories"]["code"]
    assert [listed[code] for code in split["categorical"][1:4, 0]] == ["2", "3", "1"]
    assert split["categorical"][0, 0] == len(listed)
    assert (
        "column 'code': 59 values in another spelling than in training, such as '1.0' for '1': taken as the same"
        in opened.notes
    )
    both = csv(tmp_path, "code,y\n" + "".join(f"{('1', '1.0', 'A')[n % 3]},{n % 2}\n" for n in range(60)))
    assert both.codes("code")[1] == ("1", "A")
    assert any("'1.0' and '1' are the same value in two spellings" in note for note in both.notes)


def test_new_data_is_read_in_the_form_that_a_column_was_trained_with(tmp_path):
    rows = [
        f'{1 + n % 28}/03/2024,"${n * 1000:,}",{n % 24}:30,{"None" if n % 2 else "Grvl"},{"ab"[n % 2]}' for n in MANY
    ]
    head = "when,price,at,alley,y\n"
    prepared = TASK.prepare(csv(tmp_path, head + "\n".join(rows)))
    known = prepared.state["columns"]
    assert known["forms"] == {"when": "date dmy", "price": "amount .$", "at": "hours", "alley": "text", "y": "text"}
    new = head + '2/1/2024,5,7:00,None,a\n3/1/2024,"$6,000",NA,Grvl,a\n'
    for asks in ({}, {"like": known}):  # opened as it is, and opened alike
        split = TASK.encode(prepared.state, csv(tmp_path, new, "new.csv", **asks))
        place = prepared.state["numeric"].index
        assert split["numeric"][0, place("when")] == np.datetime64("2024-01-02").astype(int)
        assert split["numeric"][:, place("price")].tolist() == [5, 6000]
        assert split["numeric"][0, place("at")] == 7 and np.isnan(split["numeric"][1, place("at")])
        assert [prepared.state["categories"]["alley"][code] for code in split["categorical"][:, 0]] == ["None", "Grvl"]
    other = csv(tmp_path, new, "new.csv", like=known, dates="mdy")
    assert TASK.encode(prepared.state, other)["numeric"][0, place("when")] == np.datetime64("2024-02-01").astype(int)
    typed = pd.DataFrame({"when": pd.to_datetime(["2024-01-02"]), "price": [5.5], "at": [7.0], "alley": ["None"]})
    assert TASK.encode(prepared.state, open_data(typed))["numeric"][0].tolist()[:3] == [19724, 5.5, 7]
    bare = csv(
        tmp_path,
        new.replace(head, ""),
        "bare.csv",
        None,
        like={**known, "forms": {f"c{n}": form for n, form in enumerate(known["forms"].values())}},
    )
    assert bare.rows == 2 and any("no header" in note for note in bare.notes)


@pytest.mark.parametrize(
    ("column", "words"),
    [("when", "dates"), ("price", "numbers"), ("at", "times"), ("ok", "true and false")],
)
def test_refusals_say_what_was_expected(tmp_path, column, words):
    rows = [f"{1 + n % 28}/03/2024,{n + 0.5},{n % 24}:30,{'true' if n % 3 else 'false'},{'ab'[n % 2]}" for n in MANY]
    names = ["when", "price", "at", "ok", "y"]
    prepared = TASK.prepare(csv(tmp_path, ",".join(names) + "\n" + "\n".join(rows)))
    new = dict(zip(names, rows[0].split(","), strict=True)) | {column: "soon"}
    frame = csv(tmp_path, ",".join(names) + "\n" + ",".join(new.values()) + "\n", "new.csv")
    with pytest.raises(DataError, match=rf"column '{column}': 'soon' \(line 2\), text where {words} are expected"):
        TASK.encode(prepared.state, frame)


def test_a_few_strays_in_new_data_are_missing_and_named(tmp_path):
    prepared = TASK.prepare(csv(tmp_path, "n,y\n" + "".join(f"{n / 2},{'ab'[n % 2]}\n" for n in MANY)))
    new = csv(tmp_path, "n\n1\n2\nsoon\n4\n", "new.csv", None)
    assert np.isnan(TASK.encode(prepared.state, new)["numeric"][2, 0])
    assert any(
        "1 of 4 values is not a number and counts as missing; the first is 'soon' (line 4)" in note
        for note in new.notes
    )
    flags = TASK.prepare(csv(tmp_path, "n,m,y\n" + "".join(f"{n % 2},{n / 3},{'ab'[n % 2]}\n" for n in MANY)))
    said = csv(tmp_path, "n,m\nTrue,1\nfalse,2\n", "said.csv", None)
    assert TASK.encode(flags.state, said)["numeric"][:, 0].tolist() == [1, 0]


@pytest.mark.parametrize("piece", [300, 2000])
def test_pieces_make_no_difference(tmp_path, monkeypatch, piece):
    rows = [f'"${n:,}",{1 + n % 28}/03/2024,{n:05d},{"NA" if n % 9 == 0 else n}' for n in range(400)]
    text = "a,b,c,y\n" + "\n".join(rows)
    whole = csv(tmp_path, text)
    monkeypatch.setattr(tablefiles, "PIECE_BYTES", piece)
    pieces = csv(tmp_path, text)
    assert whole.notes == pieces.notes and whole.fingerprint == pieces.fingerprint
    assert whole.read_as(["a", "b", "c"])["forms"] == {"a": "amount .$", "b": "date dmy", "c": "text"}


def test_what_a_user_says_overrules_what_was_settled():
    known = {
        "forms": {"d": "date dmy", "n": "number"},
        "words": ["NA"],
        "missing": ["x"],
        "dates": "dmy",
        "target": "y",
    }
    assert Reading.of(like=known) == Reading("dmy", ("x",), known["forms"], ("NA",), "y")
    assert Reading.of("mdy", "none", known) == Reading("mdy", (), {"d": "date mdy", "n": "number"}, None, "y")
    assert Reading.of(like={"text": ["a"], "target": None}) == Reading()
    assert Reading.of(missing="a, b").marks == ("", "a", "b")
    assert isinstance(Table.from_frame(pd.DataFrame({"a": [1.5, 2.5]})), Table)
