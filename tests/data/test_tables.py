"""Tables: what is read from awkward files, what columns and targets are taken for, and what the facts page finds."""

from __future__ import annotations

import gzip
import json
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from papertrial.core.errors import DataError
from papertrial.core.files import to_json
from papertrial.data import open as open_data
from papertrial.data import tables as table_module
from papertrial.data.tables import Table
from papertrial.data.tables import files as tablefiles
from papertrial.data.tables.reading import STRONG as MISSING
from papertrial.data.tables.row_hashes import combined, conflicting, mixed, repeated, rounded


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def read(tmp_path, text, target=None, name="t.csv", encoding="utf-8"):
    return Table.from_file(write(tmp_path / name, text, encoding), target)


def people(rows=400, seed=0):
    draw = np.random.default_rng(seed)
    age = draw.integers(18, 90, rows).astype(float)
    frame = pd.DataFrame(
        {
            "age": np.where(draw.random(rows) < 0.1, np.nan, age),
            "income": draw.lognormal(10, 1, rows).round(2),
            "town": draw.choice(["Åbo", "Lund", "a, b", 'say "hi"'], rows),
            "member": draw.choice(["true", "false"], rows),
            "since": pd.to_datetime("2001-02-03") + pd.to_timedelta(draw.integers(0, 5000, rows), unit="D"),
        }
    )
    frame["class"] = np.where(age + draw.normal(0, 20, rows) > 50, "old", "young")
    return frame


def types(table):
    return {column.name: column.type for column in table.columns.values()}


def assert_same(one, other):
    assert types(one) == types(other)
    assert (one.rows, one.target, one.target_kind, one.fingerprint) == (
        other.rows,
        other.target,
        other.target_kind,
        other.fingerprint,
    )
    for name, column in one.columns.items():
        assert column == other.columns[name]
        np.testing.assert_array_equal(one.bits(name), other.bits(name))


# -- real tables ------------------------------------------------------------------------------------------------


def test_real_tables_are_understood_without_help(shared_data):
    tasks = json.loads((shared_data / "tabular" / "tasks.json").read_text())
    for name, task in tasks.items():
        table = Table.from_file(shared_data / "tabular" / task["file"], task["target"])
        assert (table.rows, table.target_kind) == (task["rows"], task["task"]), name
        nothing = {column.name for column in table.columns.values() if column.type in ("constant", "empty")}
        numeric = {column.name for column in table.used if column.type == "numeric"}
        assert numeric == set(task["numeric"]) - nothing, name
        assert {column.name for column in table.used} - numeric == set(task["categorical"]) - nothing, name
        look = table.look()
        assert look.numbers["missing"] == task["missing"], name
        assert look.numbers["classes"] == (task["classes"] or 0), name
        assert not look.numbers["leaks"], name


def test_adult_keeps_its_split_and_moves_its_repeated_rows(shared_data):
    table = Table.from_file(shared_data / "tabular" / "adult.csv.gz", "income")
    raw = pd.read_csv(shared_data / "tabular" / "adult.csv.gz")
    features = raw.drop(columns=["split", "income"])
    in_train = set(map(tuple, features[raw["split"] == "train"].astype(str).to_numpy()))
    repeated_test = [row in in_train for row in map(tuple, features[raw["split"] == "test"].astype(str).to_numpy())]
    assert table.moved == sum(repeated_test) > 0
    assert np.count_nonzero(table.part == 2) == (raw["split"] == "test").sum() - sum(repeated_test)
    assert table.look().numbers["duplicates"] == raw.drop(columns="split").duplicated().sum()


# -- files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("packed", [False, True])
def test_delimiters_and_gzip(tmp_path, delimiter, packed):
    text = people().to_csv(index=False, sep=delimiter).encode()
    path = tmp_path / ("t.csv.gz" if packed else "t.csv")
    path.write_bytes(gzip.compress(text) if packed else text)
    table = Table.from_file(path, "class")
    assert types(table) == {
        "age": "numeric", "income": "numeric", "town": "categorical", "member": "boolean", "since": "date", "class": "categorical",
    }  # fmt: skip
    np.testing.assert_array_equal(table.numeric(["age"])[:, 0], people()["age"].to_numpy(np.float32))
    assert table.codes("town")[1] == ("Lund", "a, b", 'say "hi"', "Åbo")


def test_every_format_reads_alike(tmp_path):
    frame = people()
    frame["member"] = frame["member"] == "true"
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    frame.assign(since=frame["since"].astype(str)).to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    frame.assign(since=frame["since"].astype(str)).to_json(tmp_path / "t.json", orient="records")
    first = Table.from_file(tmp_path / "t.csv", "class")
    for name in ("t.parquet", "t.jsonl", "t.json"):
        assert_same(first, Table.from_file(tmp_path / name, "class"))
    assert_same(first, Table.from_frame(frame, "class"))
    assert_same(first, Table.from_frame(pa.Table.from_pandas(frame), "class"))


@pytest.mark.parametrize(("piece", "rows"), [(200, 600), (1000, 1500), (7000, 3000)])
def test_small_pieces_give_the_same_table(tmp_path, monkeypatch, piece, rows):
    frame = people(rows)
    frame["mostly"] = [str(value) if value % 200 else "n/a" if value % 400 else "unknown" for value in range(rows)]
    frame["codes"] = [str(value % 9) if value < rows - 10 else "X" for value in range(rows)]
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_json(tmp_path / "t.jsonl", orient="records", lines=True, date_format="iso")
    whole = [Table.from_file(tmp_path / name, "class") for name in ("t.csv", "t.jsonl")]
    monkeypatch.setattr(tablefiles, "PIECE_BYTES", piece)
    monkeypatch.setattr(tablefiles, "PIECE_ROWS", piece)
    pieces = [Table.from_file(tmp_path / name, "class") for name in ("t.csv", "t.jsonl")]
    assert_same(whole[0], pieces[0])
    assert_same(whole[1], pieces[1])
    assert whole[0].notes == pieces[0].notes
    assert types(whole[0])["mostly"] == "numeric"
    assert types(whole[0])["codes"] == "categorical"


def test_a_type_settles_over_the_whole_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tablefiles, "PIECE_BYTES", 1 << 12)
    lines = [f"{row % 50},{row % 2}" for row in range(20_000)]
    lines[19_990] = "oops,1"
    table = read(tmp_path, "a,y\n" + "\n".join(lines))
    assert types(table)["a"] == "numeric"
    assert (
        "column 'a': 1 of 20000 values is not a number and counts as missing; the first is 'oops' (line 19992)"
        in table.notes
    )
    assert np.isnan(table.numeric(["a"])[19_990, 0])
    text = read(tmp_path, "a,y\n" + "\n".join([*lines, *[f"word{row % 9},1" for row in range(900)]]))
    assert types(text)["a"] == "categorical"
    assert text.codes("a")[0][3] == text.columns["a"].categories.index("3")


def test_missing_markers_leave_numbers_numbers(tmp_path):
    markers = ["", "NA", "N/A", "nan", "null", "None", "?", "-", "  "]
    table = read(
        tmp_path,
        "a,b,y\n" + "\n".join(f" {i} ,w{i % 3},{i % 2}\n{marker},{marker},1" for i, marker in enumerate(markers)),
    )
    assert types(table)["a"] == "numeric"
    assert table.columns["a"].missing == table.columns["b"].missing == len(markers)
    assert table.columns["b"].categories == ("w0", "w1", "w2")


def test_encodings(tmp_path):
    text = "ort,y\n" + "Malmö,1\nÅbo,0\n" * 20
    first = read(tmp_path, text)
    assert first.columns["ort"].categories == ("Malmö", "Åbo")
    for name, encoding in (("bom", "utf-8-sig"), ("windows", "cp1252"), ("wide", "utf-16")):
        table = read(tmp_path, text, name=f"{name}.csv", encoding=encoding)
        assert_same(first, table)
        assert any("Windows-1252" in note for note in table.notes) == (name == "windows")
    latin = tmp_path / "latin.csv"
    latin.write_bytes(text.encode("latin-1").replace(b"Malm", b"M\x81lm"))
    assert any("Latin-1" in note for note in Table.from_file(latin).notes)


def same(table, frame):
    """Whether the columns of a table are those of a frame, by value."""
    assert list(table.columns) == list(frame.columns) and table.rows == len(frame)
    for name in frame.columns:
        codes, categories = table.codes(name)
        assert [categories[code] for code in codes] == [str(value) for value in frame[name]], name


THINGS = pd.DataFrame({"size": [3, 1, 2, 3], "colour": ["red", "blue", "red", "green"], "kept": ["y", "n", "n", "y"]})


@pytest.mark.parametrize("blank", ["", "\n"])
@pytest.mark.parametrize("packed", [False, True])
def test_remarks_before_a_table(tmp_path, blank, packed):
    path = tmp_path / ("t.csv.gz" if packed else "t.csv")
    content = f"# made by hand, in May\n#\n{blank}" + THINGS.to_csv(index=False)
    path.write_bytes(gzip.compress(content.encode()) if packed else content.encode())
    table = Table.from_file(path)
    same(table, THINGS)
    assert any("begins with 2 lines of remarks, such as '# made by hand, in May'" in note for note in table.notes)
    assert tablefiles.source_of(path).place(1) == f"line {5 + len(blank)}"
    write(tmp_path / "broken.csv", content + "1,2\n")
    with pytest.raises(DataError, match=f"line {8 + len(blank)}: 2 values, but there are 3 columns"):
        Table.from_file(tmp_path / "broken.csv")


def test_a_header_that_begins_with_a_hash_is_one(tmp_path):
    table = read(tmp_path, "#id,name\n" + "".join(f"{row},{'ab'[row % 2]}\n" for row in range(8)))
    assert list(table.columns) == ["#id", "name"] and table.rows == 8


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("form", ["list", "columns", "split", "index", "table", "under a name", "objects"])
def test_one_json_value_that_holds_a_table(tmp_path, form, indent):
    held = {
        "list": lambda: THINGS.to_dict("list"),
        "under a name": lambda: {"version": 1, "rows": THINGS.to_dict("records")},
        "objects": lambda: THINGS.to_dict("records"),
    }.get(form, lambda: json.loads(THINGS.to_json(orient=form)))()
    table = read(tmp_path, json.dumps(held, indent=indent), name="t.json")
    frame = THINGS.reset_index() if form == "table" else THINGS  # pandas writes the index there
    same(table, frame)


def test_json_columns_may_lack_values_and_an_object_may_be_a_row(tmp_path):
    table = read(tmp_path, '{"a": {"0": 1, "2": 3}, "b": {"0": "x", "1": "y", "2": "x"}}', name="t.json")
    assert table.rows == 3 and table.columns["a"].missing == 1
    assert read(tmp_path, '{"a": 1, "b": [1, 2]}', name="one.json").rows == 1
    with pytest.raises(DataError, match=r"short.json, line \d+: not JSON"):
        read(tmp_path, '{"a": [1,\n2,', name="short.json")


def zipped(path, **files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name if "/" in name else name.replace("__", "/").replace("_", "."), content)
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl", "tsv"])
def test_a_table_in_a_zip(tmp_path, kind):
    content = {
        "csv": THINGS.to_csv(index=False),
        "tsv": THINGS.to_csv(index=False, sep="\t"),
        "jsonl": THINGS.to_json(orient="records", lines=True),
    }[kind]
    path = zipped(tmp_path / "t.zip", **{f"data__t_{kind}": content, "README_txt": "words", "__MACOSX/t.csv": "x"})
    same(Table.from_file(path), THINGS)
    same(open_data(path), THINGS)
    same(open_data(path.rename(tmp_path / "T.ZIP")), THINGS)


def test_zips_that_hold_no_single_table(tmp_path):
    two = zipped(tmp_path / "two.zip", a_csv="x,y\n1,2\n", b_csv="p,q\n1,2\n")
    with pytest.raises(
        DataError, match=r"several tables: a.csv, b.csv; name one behind #: papertrial look '.*zip#a.csv'"
    ):
        open_data(two)
    with pytest.raises(DataError, match=r"b\.zip, line 2: 2 values, but there are 3 columns"):
        open_data(zipped(tmp_path / "b.zip", t_csv="a,b,c\n1,2\n1,2,3\n1,2,3\n"))
    (tmp_path / "cut.zip").write_bytes((tmp_path / "two.zip").read_bytes()[:-30])
    with pytest.raises(
        DataError, match=r"cut\.zip is damaged \(its end, where a zip lists its files, is not there\); is it"
    ):
        open_data(tmp_path / "cut.zip")


@pytest.mark.parametrize("ending", ["xlsx", "XLS", "ods"])
def test_a_spreadsheet_is_named(tmp_path, ending):
    (tmp_path / f"t.{ending}").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match="is a spreadsheet; save it as CSV"):
        open_data(tmp_path / f"t.{ending}")


def test_headers(tmp_path):
    table = read(tmp_path, "1,2.5,0\n" + "3,4,1\n" * 5)
    assert list(table.columns) == ["c0", "c1", "c2"]
    assert table.rows == 6
    assert any("no header" in note for note in table.notes)
    table = read(tmp_path, "\n\na,a,,a_2,y\n" + "1,2,3,4,0\n5,6,7,8,1\n", "y")
    assert list(table.columns) == ["a", "a_2", "unnamed_2", "a_2_2", "y"]
    assert table.numeric(["a", "a_2", "unnamed_2", "a_2_2"]).tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]


def test_quoted_line_breaks_blank_lines_and_line_numbers(tmp_path):
    rows = [f'{row},"one\ntwo",{row % 2}' for row in range(100)]
    rows[60] = '"bad",x,1'
    table = read(tmp_path, "n,text,y\r\n\r\n" + "\r\n".join(rows) + "\r\n")
    assert table.rows == 100
    assert set(table.columns["text"].categories) == {"one\ntwo", "x"}
    assert any("'bad' (line 123)" in note for note in table.notes)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n3\n4,5\n", r"t\.csv, line 3: 1 value, but there are 2 columns"),
        ("a,b\n1,2\n\n3,4,5\n", r"line 4: 3 values, but there are 2 columns"),
        ('a,b\n1,2\n1,"2\n3\n5,6\n', "line 3: a quote is never closed"),
        ("a,b\n", "no rows"),
        ("\n\n", "no rows"),
        ("", "is empty"),
        ("a\0b\n1\n", "binary"),
    ],
)
def test_damaged_text_is_refused_with_its_line(tmp_path, text, words):
    with pytest.raises(DataError, match=words):
        read(tmp_path, text)


def test_damaged_files_are_refused_by_name(tmp_path):
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(people(5000).to_csv(index=False).encode())[:-4000])
    (tmp_path / "t.parquet").write_bytes(b"PAR1 nothing")
    (tmp_path / "t.xlsx").write_bytes(b"PK")
    write(tmp_path / "t.jsonl", '{"a": 1}\n{"a": \n')
    write(tmp_path / "list.jsonl", '{"a": 1}\n[1]\n')
    for name, words in {
        "cut.csv.gz": "cannot be read", "t.parquet": "cannot be read", "t.xlsx": "known: .csv",
        "t.jsonl": "line 2: not JSON", "list.jsonl": "line 2: not an object", "none.csv": "not there",
    }.items():  # fmt: skip
        with pytest.raises(DataError, match=words) as caught:
            Table.from_file(tmp_path / name)
        assert name in str(caught.value)


def test_decimal_commas(tmp_path):
    text = "a;b;y\n" + "\n".join(f"{row};{row},5;{row % 2}" for row in range(30))
    table = read(tmp_path, text)
    np.testing.assert_array_equal(table.numeric(["b"])[:, 0], np.arange(30) + 0.5)
    assert "column 'b': numbers are written with a decimal comma" in table.notes


def test_one_column_and_thousands_of_columns(tmp_path):
    one = read(tmp_path, "a\n1\n\n2\n1\n")
    assert (one.rows, one.columns["a"].missing, one.target) == (4, 1, "a")
    assert one.look().numbers["numeric"] == 0
    wide = pd.DataFrame(np.random.default_rng(0).normal(size=(30, 3000)), columns=[f"x{i}" for i in range(3000)])
    wide["y"] = np.arange(30) % 2
    wide.to_csv(tmp_path / "w.csv", index=False)
    table = Table.from_file(tmp_path / "w.csv")
    np.testing.assert_allclose(table.numeric(list(wide.columns[:-1])), wide.to_numpy()[:, :-1], rtol=1e-6)
    assert table.look().numbers["numeric"] == 3000


def test_infinite_and_huge_numbers(tmp_path):
    table = read(
        tmp_path,
        "a,b,y\n"
        + "".join(f"{row},{2**60 + row},{row % 2}\n" for row in range(30))
        + "inf,1,0\n-Infinity,1,0\n1e300,2,1\n",
    )
    assert table.columns["a"].missing == 3
    assert any("'a': 3 values are infinite" in note for note in table.notes)
    assert any("'b': 29 whole numbers above 2^53" in note for note in table.notes)  # 2^60 is held as it is
    assert table.columns["b"].form == "text" and str(2**60 + 7) in table.columns["b"].categories


cells = st.one_of(st.none(), st.floats(-1e30, 1e30), st.integers(-(2**53), 2**53))
words = st.one_of(
    st.none(), st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\x85"), max_size=8)
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(cells, words, st.booleans()), min_size=1, max_size=60), st.sampled_from([40, 1 << 24]))
def test_any_frame_survives_the_round_trip(tmp_path, monkeypatch, rows, piece):
    monkeypatch.setattr(tablefiles, "PIECE_BYTES", max(piece, 8 * max(len(str(row)) for row in rows)))
    frame = pd.DataFrame(
        {
            "n": pd.Series([row[0] for row in rows], dtype=float),
            "w": [row[1] for row in rows],
            "y": [row[2] for row in rows],
        }
    )
    frame.to_csv(tmp_path / "t.csv", index=False)
    table = Table.from_file(tmp_path / "t.csv", "y")
    np.testing.assert_array_equal(table.numeric(["n"])[:, 0], frame["n"].to_numpy(np.float32))
    codes, categories = table.codes("w")
    markers = {None, *MISSING}
    for code, row in zip(codes, rows, strict=True):
        word = None if row[1] is None else row[1].strip(" \t")
        assert (categories[code] if code >= 0 else None) == (None if word in markers else word)
    np.testing.assert_array_equal(table.values(), frame["y"].to_numpy(np.float32))


# -- columns ----------------------------------------------------------------------------------------------------


def test_types_of_columns():
    rows = 200
    draw = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "zip": [f"{value:05d}" for value in draw.integers(0, 90, rows)],
            "few": draw.integers(0, 3, rows),
            "patient_id": draw.permutation(rows) + 1000,
            "key2": [f"k{value}" for value in range(rows)],
            "nr": np.arange(1, rows + 1),
            "remark": [f"a long remark that nobody wrote twice, number {value}" for value in range(rows)],
            "same": 7,
            "none": None,
            "flag": draw.random(rows) < 0.5,
            "day": pd.Timestamp("2020-01-01", tz="UTC") + pd.to_timedelta(np.arange(rows) % 17, unit="h"),
            "kind": pd.Categorical(draw.choice(["x", "y"], rows)),
            "y": draw.normal(size=rows),
        }
    )
    table = Table.from_frame(frame, "y")
    assert types(table) == {
        "zip": "categorical", "few": "numeric", "patient_id": "id", "key2": "id", "nr": "id", "remark": "text", "same": "constant",
        "none": "empty", "flag": "boolean", "day": "date", "kind": "categorical", "y": "numeric",
    }  # fmt: skip
    assert [column.name for column in table.used] == ["zip", "few", "flag", "day", "kind"]
    assert all(column.why for column in table.columns.values() if not column.use)
    assert table.floats("day")[1] == pytest.approx(18262 + 1 / 24)
    assert set(table.numeric(["flag"])[:, 0]) == {0.0, 1.0}


def test_text_dates_and_what_only_looks_like_one(tmp_path):
    lines = [f"2021-03-{day:02d},2021/3/{day} 12:00,2021-02-{day:02d},{day % 2}" for day in range(1, 32)]
    table = read(tmp_path, "a,b,c,y\n" + "\n".join(lines), "y")
    assert (types(table)["a"], types(table)["b"]) == ("date", "date")
    assert types(table)["c"] != "date"  # there is no 30 February
    assert table.floats("a")[0] == (np.datetime64("2021-03-01") - np.datetime64("1970-01-01")).astype(int)
    assert table.floats("b")[0] == table.floats("a")[0] + 0.5


def test_days_before_months_with_dots(tmp_path):
    lines = [f"{day}.3.2021;0{day % 9 + 1}.12.1999 08:30;{day}.{day}.2021;1.2.{day};{day % 2}" for day in range(1, 32)]
    table = read(tmp_path, "a;b;c;d;y\n" + "\n".join(lines), "y")
    assert [types(table)[name] for name in "ab"] == ["date", "date"]
    assert types(table)["c"] != "date" and types(table)["d"] != "date"  # there is no 13th month, and no year 7
    days = (np.datetime64("2021-03-01"), np.datetime64("1999-12-02"))
    assert [table.floats(name)[0] for name in "ab"] == [
        day.astype(int) + at for day, at in zip(days, (0, 8.5 / 24), strict=True)
    ]
    assert "column 'a': dates are read as day.month.year" in table.notes


def test_mixed_objects_are_read_like_text():
    table = Table.from_frame(pd.DataFrame({"a": [*range(60), "n/a", 2**70, 0.5, None], "y": [0, 1] * 32}), "y")
    assert types(table)["a"] == "numeric"
    assert table.columns["a"].missing == 2
    nested = Table.from_frame(pd.DataFrame({"a": [[1], [2, 3]] * 10, "y": [0, 1] * 10}), "y")
    assert nested.columns["a"].unique == 2


def test_many_categories_keep_the_commonest():
    values = [f"c{value}" for value in range(1500)] + [f"c{value}" for value in range(500, 1500)]
    table = Table.from_frame(pd.DataFrame({"c": values, "y": np.arange(2500) % 2}), "y")
    column = table.columns["c"]
    assert (column.unique, len(column.categories), column.use) == (1500, 1000, True)
    assert set(column.categories) == {f"c{value}" for value in range(500, 1500)}
    assert "1500 categories" in column.why
    codes, categories = table.codes("c")
    assert (codes[:500] == -1).all()
    assert [categories[code] for code in codes[500:520]] == values[500:520]
    assert set(table.codes("c", ("c3", "nowhere"))[0]) == {-1, 0}


def test_columns_serve_another_table_whatever_they_look_like_here(tmp_path):
    train = read(tmp_path, "n,c,y\n" + "\n".join(f"{row},{'12ab'[row % 4]},{row % 2}" for row in range(40)))
    _, categories = train.codes("c")
    new = read(tmp_path, "n,c\n5,1\n6,2\n", name="new.csv")
    codes, same = new.codes("c", categories)
    assert [same[code] for code in codes] == ["1", "2"]
    typed = Table.from_frame(pd.DataFrame({"n": ["5", " 6", None], "c": [1.0, 2.0, np.nan]}))
    np.testing.assert_array_equal(typed.numeric(["n"])[:, 0], [5, 6, np.nan])
    assert [*typed.codes("c", categories)[0]] == [*codes, -1]
    bad = read(tmp_path, "n,c\n5,1\nsix,2\n", name="bad.csv")
    with pytest.raises(DataError, match=r"column 'n': 'six' \(line 3\), text where numbers are expected"):
        bad.numeric(["n"])
    with pytest.raises(DataError, match=r"lacks column 'nn'; did you mean 'n'\?"):
        bad.numeric(["nn"])
    with pytest.raises(DataError, match=r"lacks 2 columns \(nn, mm\)"):
        bad.numeric(["nn", "mm"])
    with pytest.raises(DataError, match="has no column 'd'"):
        bad.codes("d")


# -- targets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0, 1] * 100, "binary"),
        ([-1, 1] * 100, "binary"),
        (["a", "b"] * 100, "binary"),
        ([True, False] * 100, "binary"),
        ([1, 2, 3, 4] * 50, "multiclass"),
        (["a", "b", "c", "d"] * 50, "multiclass"),
        ([3, 4, 6, 7] * 50, "regression"),
        (list(range(200)), "regression"),
        ([0.5, 1.5, 2.5, 3.5] * 50, "regression"),
        ([5] * 200, None),
        ([None] * 200, None),
    ],
)
def test_kind_of_target(values, kind):
    table = Table.from_frame(pd.DataFrame({"x": np.random.default_rng(0).normal(size=200), "y": values}), "y")
    assert table.target_kind == kind
    assert table.look().numbers["target_kind"] == kind
    if kind is None:
        with pytest.raises(DataError, match=r"one class only|no values"):
            table.labels()


def test_labels_names_and_unlabelled_rows():
    table = Table.from_frame(pd.DataFrame({"x": np.arange(7) * 0.5, "y": ["b", "a", None, "b", "a", "b", "rare"]}), "y")
    codes, names = table.labels()
    assert (codes.tolist(), names, codes.dtype) == ([1, 0, -1, 1, 0, 1, 2], ("a", "b", "rare"), np.int64)
    assert "classes with one row only: rare" in table.notes
    assert table.look().numbers["labelled"] == 6
    numbers = Table.from_arrays(np.arange(8.0).reshape(4, 2), np.array([1.0, 0.0, 2.0, np.nan]))
    assert numbers.labels("target")[1] == ("0", "1", "2")
    assert numbers.labels(classes=("2", "0"))[0].tolist() == [-1, 1, 0, -1]
    assert numbers.labels(classes=("a", "2"))[0].tolist() == [-1, -1, 1, -1]
    assert numbers.values().dtype == np.float32
    flags = Table.from_arrays(np.arange(4.0)[:, None], [True, False, True, True])
    assert flags.labels()[0].tolist() == [1, 0, 1, 1]
    assert flags.labels()[1] == ("false", "true")
    with pytest.raises(DataError, match="text where numbers"):
        table.values()


def test_guessed_and_wrong_targets(tmp_path):
    frame = people()
    assert "target guessed: 'class' (by its name); name another with --target" in Table.from_frame(frame).notes
    renamed = frame.rename(columns={"class": "group"}).assign(id=np.arange(len(frame)))
    assert "target guessed: 'group' (last column); name another with --target" in Table.from_frame(renamed).notes
    with pytest.raises(DataError, match=r"has no column 'clas' to predict; did you mean 'class'\?"):
        Table.from_frame(frame, "clas")
    with pytest.raises(DataError, match="looks like an id"):
        Table.from_frame(frame.assign(who=[f"p{row}" for row in range(len(frame))]), "who")
    assert Table.from_frame(frame.assign(c=frame["class"]), "c").columns["c"].why == "the target"


# -- parts ------------------------------------------------------------------------------------------------------


def test_given_files_and_folders(tmp_path):
    frame = people()
    frame.iloc[:300].to_csv(tmp_path / "train.csv", index=False)
    frame.iloc[300:].to_csv(tmp_path / "test.csv", index=False)
    one = Table.from_file(tmp_path, "class")
    assert one.given_split
    assert np.bincount(one.part).tolist() == [300, 0, 100]
    other = Table.from_parts({"train": frame.iloc[:300], "test": tmp_path / "test.csv"}, "class")
    np.testing.assert_array_equal(np.sort(one.part), np.sort(other.part))
    unlabelled = Table.from_parts({"train": frame.iloc[:300], "test": frame.iloc[300:].drop(columns="class")}, "class")
    assert (unlabelled.labels()[0][unlabelled.part == 2] == -1).all()
    assert any("'class' is not in every file" in note for note in unlabelled.notes)
    with pytest.raises(DataError, match=r"no part 'tets'; did you mean 'test'\?"):
        Table.from_parts({"train": frame, "tets": frame})
    shards = tmp_path / "shards"
    shards.mkdir()
    for index in range(4):
        frame.iloc[100 * index : 100 * index + 100].to_parquet(shards / f"{index}.parquet")
    assert Table.from_file(shards).rows == 400
    (shards / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="several tables"):
        Table.from_file(shards)


def test_split_column_and_moved_rows():
    frame = people().assign(Split=["train", "Test", "val", "train"] * 100)
    frame.loc[1] = frame.loc[0].where(frame.columns != "Split", "Test")
    frame.loc[2] = frame.loc[5].where(frame.columns != "Split", "val")
    table = Table.from_frame(frame, "class")
    assert not table.columns["Split"].use
    assert table.part[:6].tolist() == [0, 0, 1, 0, 0, 1]
    assert table.moved == 2
    assert table.look().numbers["moved"] == 2
    assert np.bincount(table.part).tolist() == [201, 101, 98]


def test_a_test_set_copied_from_training_is_not_used():
    frame = people(100)
    table = Table.from_parts({"train": frame, "test": frame.iloc[:50]}, "class")
    assert not table.given_split
    assert any("every test row is also a training row" in note for note in table.notes)
    few = pd.DataFrame({"a": list("xyz") * 100, "y": [0, 1] * 150})
    natural = Table.from_parts({"train": few, "test": few.iloc[:30]}, "y")
    assert natural.repeats_expected
    assert np.count_nonzero(natural.part == 2) == 30


# -- the facts page ---------------------------------------------------------------------------------------------


def test_look_finds_what_was_planted():
    frame = people(1000)
    draw = np.random.default_rng(1)
    frame["copy"] = frame["class"].map({"old": "yes", "young": "no"})
    frame["noise"] = draw.normal(size=1000)
    near = frame.iloc[:5].assign(noise=frame["noise"].iloc[:5] * (1 + 1e-9))
    conflict = frame.iloc[20:22].assign(**{"class": frame["class"].iloc[20:22].map({"old": "young", "young": "old"})})
    frame = pd.concat([frame, frame.iloc[100:107], near, conflict], ignore_index=True)
    look = Table.from_frame(frame, "class").look()
    numbers = look.numbers
    assert (numbers["examples"], numbers["duplicates"], numbers["near_duplicates"], numbers["conflicting"]) == (
        1014,
        7,
        5,
        4,
    )
    clean = Table.from_frame(frame.iloc[:1000], "class").look()
    assert list(clean.numbers["leaks"]) == ["copy"]
    assert ("leaks", "copy alone gives the target away") in clean.facts
    assert sum(numbers["class_counts"]) == 1014
    assert (numbers["numeric"], numbers["categorical"]) == (5, 2)
    assert json.loads(to_json(look.to_json()))["numbers"]["target"] == "class"


def test_leaks_of_numbers_and_thresholds():
    draw = np.random.default_rng(0)
    x = draw.normal(size=4000)
    frame = pd.DataFrame(
        {
            "fahrenheit": x * 1.8 + 32,
            "log": np.exp(3 * x),
            "good": x + draw.normal(0, 0.1, 4000),
            "noise": draw.normal(size=4000),
            "pred": draw.normal(size=4000),
            "ticket": [f"t{value}" for value in draw.integers(0, 3000, 4000)],
            "y": x,
        }
    )
    look = Table.from_frame(frame, "y").look()
    assert list(look.numbers["leaks"]) == ["fahrenheit", "log"]
    assert look.numbers["suspects"] == ["pred"]
    classes = Table.from_frame(
        frame.drop(columns=["fahrenheit", "log"]).assign(cut=x, y=(x > 1.5).astype(int)), "y"
    ).look()
    assert list(classes.numbers["leaks"]) == ["cut"]


def test_rare_classes_are_not_leaks():
    draw = np.random.default_rng(0)
    frame = pd.DataFrame({"x": draw.normal(size=5000), "y": (np.arange(5000) < 4).astype(int)})
    assert not Table.from_frame(frame, "y").look().numbers["leaks"]


def test_row_hashes():
    draw = np.random.default_rng(0)
    values = draw.integers(0, 3, (500, 4)).astype(float)
    columns = [values[:, index].copy().view(np.uint64) for index in range(4)]
    hashes = combined(columns, 500)
    assert len(np.unique(hashes)) == len(np.unique(values, axis=0))
    assert repeated(hashes) == 500 - len(np.unique(values, axis=0))
    assert len(np.unique(combined([columns[1], columns[0]], 500) == combined(columns[:2], 500))) == 2  # order matters
    assert len(np.unique(mixed(np.arange(100_000, dtype=np.uint64)))) == 100_000
    np.testing.assert_allclose(
        rounded(np.array([123456.0, -0.00123456, 0.0, np.nan]), 3), [123000, -0.00123, 0, np.nan]
    )
    assert conflicting(np.array([1, 1, 2, 2, 3], np.uint64), np.array([5, 6, 5, 5, 5], np.uint64)) == 2


# -- large tables -----------------------------------------------------------------------------------------------


def test_large_tables_live_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PAPERTRIAL_CACHE", str(tmp_path / "cache"))
    people().to_csv(tmp_path / "t.csv", index=False)
    small = Table.from_file(tmp_path / "t.csv", "class")
    monkeypatch.setattr(table_module, "IN_MEMORY", 100)
    large = Table.from_file(tmp_path / "t.csv", "class")
    assert isinstance(large.bits("age"), np.memmap)
    assert_same(small, large)
    monkeypatch.setattr(table_module, "see", None)
    monkeypatch.setattr(table_module, "convert", None)
    again = Table.from_file(tmp_path / "t.csv", "class")  # from the cache: the file is not read
    assert_same(small, again)
    assert again.notes == small.notes
    names = ["age", "income", "member", "since"]
    assert isinstance(again.numeric(names), np.memmap)
    np.testing.assert_array_equal(again.numeric(names), small.numeric(names))
    assert again.look().to_json() == small.look().to_json()
    monkeypatch.undo()


def test_tables_from_files_are_kept_long_before_they_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("PAPERTRIAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(table_module, "_WORTH_KEEPING", 100)
    people().to_csv(tmp_path / "t.csv", index=False)
    first = Table.from_file(tmp_path / "t.csv", "class")
    assert not isinstance(Table.from_frame(people(), "class").bits("age"), np.memmap)
    monkeypatch.setattr(table_module, "see", None)
    monkeypatch.setattr(table_module, "convert", None)
    assert_same(first, Table.from_file(tmp_path / "t.csv", "class"))


def test_fingerprint_follows_the_content(tmp_path):
    frame = people()
    one = Table.from_frame(frame, "class")
    assert one.fingerprint == Table.from_frame(frame.copy(), "class").fingerprint
    frame.loc[3, "town"] = "Lund" if frame.loc[3, "town"] != "Lund" else "Åbo"
    assert one.fingerprint != Table.from_frame(frame, "class").fingerprint


def test_arrays(tmp_path):
    draw = np.random.default_rng(0)
    table = Table.from_arrays(draw.normal(size=(50, 3)), draw.integers(0, 2, 50), names=["p", "q", "r"])
    assert (list(table.columns), table.target, table.target_kind) == (["p", "q", "r", "target"], "target", "binary")
    mixed_array = np.array([[1, "a"], [2, "b"], [3, "a"]], dtype=object)
    assert types(Table.from_arrays(mixed_array, [0.5, 1.5, 2.5])) == {
        "c0": "numeric",
        "c1": "categorical",
        "target": "numeric",
    }
    with pytest.raises(DataError, match="50 rows and y has 49"):
        Table.from_arrays(np.zeros((50, 2)), np.zeros(49))
    with pytest.raises(DataError, match="two dimensions, not 3"):
        Table.from_arrays(np.zeros((5, 2, 2)))
    with pytest.raises(DataError, match="1 names for 2 columns"):
        Table.from_arrays(np.zeros((5, 2)), names=["a"])


def test_parquet_with_nested_and_typed_columns(tmp_path):
    columns = {
        "decimal": pa.array([1, 2, None] * 10, pa.decimal128(10, 2)),
        "time": pa.array([1_000_000, 5, None] * 10, pa.timestamp("ms")),
        "large": pa.array(["a", "b", None] * 10, pa.large_string()),
        "coded": pa.array(["a", "b", "a"] * 10).dictionary_encode(),
        "list": pa.array([[1], [2], None] * 10),
        "y": pa.array([0, 1, 1] * 10, pa.int8()),
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet", row_group_size=7)
    table = Table.from_file(tmp_path / "t.parquet", "y")
    assert [*types(table).values()] == ["numeric", "date", "categorical", "categorical", "categorical", "numeric"]
    assert [column.missing for column in table.columns.values()] == [10, 10, 10, 0, 10, 0]


def test_parts_of_different_types_are_settled_together(tmp_path):
    frame = pd.DataFrame(
        {"a": np.arange(2000) * 0.5, "w": [f"w{row % 3}" for row in range(2000)], "y": np.arange(2000) % 2}
    )
    words = pd.DataFrame({"a": ["x", "y", "z"], "w": ["w0", "w1", "w7"], "y": ["1", "0", "1"]})
    frame.to_csv(tmp_path / "train.csv", index=False)
    words.to_parquet(tmp_path / "test.parquet")
    table = Table.from_file(tmp_path, "y")
    assert (types(table)["a"], table.columns["a"].missing, table.rows) == ("numeric", 3, 2003)
    assert any("3 of 2003 values are not numbers" in note and "'x' (row 1)" in note for note in table.notes)
    assert table.columns["w"].categories == ("w0", "w1", "w2", "w7")


@pytest.mark.parametrize("cell", ["9" * 400, "9" * 5000, "-" + "9" * 309, "a" * 200_000])
def test_a_cell_that_python_holds_as_no_number_is_read(tmp_path, cell):
    rows = [f"{place % 7},{'abc'[place % 3]}\n" for place in range(60)]
    (tmp_path / "d.csv").write_text("size,y\n" + "".join(rows) + f"{cell},a\n")
    table = open_data(tmp_path / "d.csv", "y")
    assert table.rows == 61 and table.look().facts
