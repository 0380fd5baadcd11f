"""Delimited files: how they are cut, what quotes mean and whether there is a header, by all lines."""

from __future__ import annotations

import pytest

from papertrial.core.errors import DataError
from papertrial.data import open as open_data
from papertrial.data.tables.delimited import CsvFile, is_header
from papertrial.data.tables.files import holds_prose


def source(tmp_path, text, name="t.csv", names=()):
    (tmp_path / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return CsvFile(tmp_path / name, names)


def rows(file):
    return [
        row for piece in file.pieces() for row in zip(*(c.to_pylist() for c in piece.columns.values()), strict=True)
    ]


LINES = [f"{n / 2}\tone sentence number {n}\tand the other {n * 7}" for n in range(40)]


@pytest.mark.parametrize("where", [0, 1, 20, 39])
@pytest.mark.parametrize("quote", ['"it begins so', 'it ends so"', '"all" of it', 'say "hi" to'])
def test_quotes_in_a_file_that_knows_none(tmp_path, where, quote):
    lines = list(LINES)
    lines[where] = f"1.5\t{quote} {where}\tand the other"
    lines[7] = '2.5\t"another start\tand no end'
    file = source(tmp_path, "\n".join(lines) + "\n", "t.tsv")
    found = rows(file)
    assert len(found) == 40 and not file.quoted
    assert found[where][1] == (f"{quote} {where}" if where != 7 else '"another start')
    assert any("quotes are part of the values" in note and "all lines have 3 values" in note for note in file.notes)
    pairs = open_data(tmp_path / "t.tsv")
    assert pairs.kind == "pairs" and len(pairs) == 40


def test_quotes_that_cut(tmp_path):
    text = 'a,b\n"x, y",1\n"two\nlines",2\n"say ""hi""",3\n'
    file = source(tmp_path, text)
    assert file.quoted and rows(file) == [("x, y", "1"), ("two\nlines", "2"), ('say "hi"', "3")]
    assert not file.notes
    whole = source(tmp_path, 'a,b\n"x",1\n"y",2\n' * 3)  # all of one width either way, and all closed
    assert whole.quoted and rows(whole)[0] == ("x", "1")
    one = source(tmp_path, 'text\n"a\nb"\n"c\nd"\n')
    assert rows(one) == [("a\nb",), ("c\nd",)]


def test_a_value_over_many_lines_is_named(tmp_path):
    text = "a,b\n" + "x,1\n" * 30 + '"' + "\n" * 20 + '",2\n' + "x,1\n" * 5
    file = source(tmp_path, text)
    assert any("one value runs over 21 lines (from line 32)" in note for note in file.notes)
    assert len(rows(file)) == 36


def test_a_separator_is_what_cuts_all_lines(tmp_path):
    lines = [f"label {n % 2}\tfirst, second" for n in range(80)] + [f"label {n % 2}\tno comma" for n in range(80)]
    assert source(tmp_path, "\n".join(lines), "t.tsv").delimiter == "\t"
    lines = [f"{n},5;{n},25;{n}" for n in range(100)] + [f"{n};{n};{n}" for n in range(100)]
    assert source(tmp_path, "\n".join(lines)).delimiter == ";"
    assert source(tmp_path, "sep=;\na,b;c\n1,5;2\n").delimiter == ";"
    file = source(tmp_path, '"sep=|"\r\na|b\r\n1|2\r\n')
    assert (file.names, rows(file), file.place(0)) == (["a", "b"], [("1", "2")], "line 3")


def test_a_text_file_with_lone_quotes_is_a_table_all_the_same(tmp_path):
    (tmp_path / "t.txt").write_text("\n".join(['1\t"a b c\td', *LINES]))
    assert not holds_prose(tmp_path / "t.txt")


@pytest.mark.parametrize(
    ("text", "headed"),
    [
        ("5.1,3.5,setosa\n4.9,3.0,setosa\n6.1,2.9,other\n6.0,1.0,other\n", False),
        ("39, State-gov, 77516\n50, Private, 83311\n38, Private, 215646\n53, Private, 1\n", False),
        ("p,x,s\ne,x,s\np,b,y\ne,x,y\n", False),
        ("age,work,id\n39,State-gov,77516\n50,Private,83311\n38,Private,215646\n", True),
        ("kind,colour\na,red\nb,blue\na,green\n", True),
        ("country,1990,1991\nFrance,1,2\nSpain,2,3\nItaly,3,4\n", True),
        ("country,2010\nFrance,1.5\nSpain,2.5\nItaly,3.5\n", True),
        ("n,\n1,a\n2,b\n3,a\n", True),
        ("x\n1\n2\n3\n", True),
        ("a,b\n1,2\n", True),
        (",A first sentence of words.\n1,A second sentence of words.\n2,And a third of them.\n", False),
        ("score,text\n,A first sentence of words.\n2,And another of them.\n", True),
    ],
)
def test_whether_the_first_line_is_a_header(tmp_path, text, headed):
    file = source(tmp_path, text)
    assert file.names[0].startswith("c0") != headed
    assert any("no header line" in note for note in file.notes) != headed
    assert len(rows(file)) == text.count("\n") - headed


def test_a_header_is_told_by_the_names_that_are_known(tmp_path):
    text = "1990,y\n1,a\n2,b\n3,a\n"
    assert source(tmp_path, text, names=["1990", "y"]).names == ["1990", "y"]
    assert source(tmp_path, "x,y\na,b\n", names=["c0", "c1"]).names == ["c0", "c1"]
    assert is_header(["other", "y"], [["1", "a"]] * 4, ["x", "z"])


def test_lines_and_headers_that_do_not_fit(tmp_path):
    assert source(tmp_path, "a,b\n1,2,\n3,4,\n").names == ["a", "b", "unnamed_2"]
    assert source(tmp_path, "a,b\n1,2,5\n3,4,6\n").names == ["row", "a", "b"]
    file = source(tmp_path, "a,b,\n1,2\n3,4\n")
    assert file.names == ["a", "b"] and rows(file) == [("1", "2"), ("3", "4")]
    with pytest.raises(DataError, match="line 3: 3 values, but there are 2 columns"):
        rows(source(tmp_path, "a,b\n1,2\n3,4,5\n6,7\n"))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_empty_rows_and_repeated_headers_are_left_out_and_named(tmp_path, end):
    text = end.join(["a,b,c", "1,2,3", ",,", "", "a,b,c", "4,5,oops", ",,", ",,"]) + end
    file = source(tmp_path, text)
    assert rows(file) == [("1", "2", "3"), ("4", "5", "oops")]
    assert [piece.rows for piece in file.pieces(["b"])] == [2]
    assert "t.csv: left out 3 rows without any value" in file.notes
    assert "t.csv: left out 1 row that repeat the header" in file.notes
    assert [file.place(row) for row in (0, 1)] == ["line 2", "line 6"]
    assert rows(source(tmp_path, text.rstrip(end))) == rows(file)


def test_standard_pairs_open_whatever_quotes_are_in_them(shared_data, tmp_path):
    folder = shared_data / "sts" / "stsb"
    for file in sorted(folder.glob("*.csv")):
        assert open_data(file).kind == "pairs"
    pairs = open_data(folder / "stsb-en-dev.csv")
    first, second = pairs.first.texts()[:300], pairs.second.texts()[:300]
    first[5], second[9] = f'"{first[5]}', f'{second[9]}"'
    lines = [f"{score}\t{a}\t{b}\n" for score, a, b in zip(pairs.scores, first, second, strict=False)]
    (tmp_path / "sts.txt").write_text("".join(["\t" + lines[0].partition("\t")[2], *lines[1:]]))
    found = open_data(tmp_path / "sts.txt")
    assert found.kind == "pairs" and len(found) == 300
    assert found.first.texts() == first and found.second.texts() == second
