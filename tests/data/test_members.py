"""One file of several in a folder or an archive, and what is said where it is not clear which."""

from __future__ import annotations

import random
import re
import shlex
import tarfile
import zipfile

import pytest

from papertrial.core.errors import DataError
from papertrial.data import open as open_data

WORDS = ["good", "bad", "fine", "great", "awful", "film", "the", "a", "story"]
DRAW = random.Random(0)


def prose():
    return " ".join(DRAW.choices(WORDS, k=8))


def pairs(rows=30):
    return "".join(f"{DRAW.random() * 5:.1f}\t{prose()}\t{prose()}\n" for _ in range(rows))


def numbers(*columns, rows=40):
    lines = [",".join(f"{DRAW.random():.3f}" for _ in columns[1:]) + f",{row % 2}" for row in range(rows)]
    return "\n".join([",".join(columns), *lines, ""])


YEARS = {
    f"{year}/{name}.{part}.tsv": pairs()
    for year, name in ((2012, "OnWN"), (2013, "FNWN"))
    for part in ("train", "test")
}


def laid(root, form, files):
    """The files in a folder, or packed."""
    folder = root / "sets"
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    if form == "folder":
        return folder
    packed = root / f"sets.{form}"
    if form == "zip":
        with zipfile.ZipFile(packed, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(packed, "w:gz" if form.endswith("gz") else "w") as archive:
            archive.add(folder, arcname=".")  # as `tar czf` of a folder does: names begin with ./
    return packed


FORMS = pytest.mark.parametrize("form", ["folder", "zip", "tar", "tar.gz"])


@FORMS
def test_the_refusal_names_all_and_what_it_says_to_type_works(form, tmp_path):
    path = laid(tmp_path, form, YEARS)
    with pytest.raises(DataError) as error:
        open_data(path)
    assert all(name in error.value.problem for name in YEARS)
    said = shlex.split(re.search(r"papertrial look (.*)", error.value.fix)[1])[0]
    data = open_data(said)
    assert (data.kind, len(data)) == ("pairs", 30) and data.name == f"{path.name}#{sorted(YEARS)[0]}"
    again = open_data(data.source)  # as another process would open it
    assert again.fingerprint == data.fingerprint == open_data(tmp_path / "sets" / sorted(YEARS)[0]).fingerprint


@FORMS
def test_columns_may_stand_behind_the_file(form, tmp_path):
    files = {
        "a.csv": f"id,one,two\n1,{prose()},{prose()}\n2,{prose()},{prose()}\n3,{prose()},{prose()}\n",
        "b.csv": numbers("x", "y"),
    }
    path = laid(tmp_path, form, files)
    assert open_data(f"{path}#a.csv#two").columns["text"] == ["two"]
    assert open_data(f"{path}#a.csv#one,two").kind == "pairs"


@FORMS
def test_a_file_that_is_not_there(form, tmp_path):
    path = laid(tmp_path, form, YEARS)
    with pytest.raises(
        DataError, match=r"sets\S* holds no file '2012/OnW.test.tsv'; did you mean '2012/OnWN.test.tsv'"
    ):
        open_data(f"{path}#2012/OnW.test.tsv")


@FORMS
def test_the_parts_of_one_table_are_one_table(form, tmp_path):
    files = {
        "train.csv": numbers("x", "y"),
        "test.csv": numbers("x", "y", rows=20),
        "sample_submission.csv": numbers("x", "y", rows=5),
    }
    table = open_data(laid(tmp_path, form, files))
    assert table.rows == 60 and (table.part == 2).sum() == 20
    assert "left out: sample_submission.csv, named after no part of a split" in table.notes


def test_tables_that_share_no_columns_are_not_put_together(tmp_path):
    path = laid(tmp_path, "folder", {"a.csv": numbers("x", "y"), "b.csv": numbers("p", "q", "r")})
    with pytest.raises(DataError, match=r"several tables: a.csv, b.csv"):
        open_data(path)
    pieces = laid(tmp_path / "more", "folder", {"a.csv": numbers("x", "y"), "b.csv": numbers("x", "y", "extra")})
    assert open_data(pieces).rows == 80


def test_tables_below_are_said(tmp_path):
    table = open_data(laid(tmp_path, "folder", {"a.csv": numbers("x", "y"), "old/a.csv": numbers("x", "y")}))
    assert table.rows == 40 and "left out: 1 table in folders below; name one behind #" in table.notes


def test_a_folder_of_zips_of_texts(tmp_path):
    for name in ("neg", "pos"):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            for number in range(5):
                archive.writestr(f"{number}.txt", f"{name} {prose()}")
    texts = open_data(tmp_path)
    assert texts.class_names == ("neg", "pos") and len(texts) == 10
    (tmp_path / "neg").mkdir()  # unpacked beside its archive: not taken twice
    (tmp_path / "neg" / "0.txt").write_text("neg unpacked")
    assert len(open_data(tmp_path)) == 6


def test_a_folder_of_zips_of_tables(tmp_path):
    for name in ("a", "b"):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            archive.writestr("x.csv", numbers("p", "q"))
    with pytest.raises(DataError, match=r"several tables: a/x.csv, b/x.csv"):
        open_data(tmp_path)
    assert open_data(f"{tmp_path}#b/x.csv").rows == 40


def test_names_that_would_leave_the_cache(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("../../../outside.csv", numbers("x", "y"))
        archive.writestr("/b.csv", numbers("p", "q"))
    assert open_data(f"{tmp_path / 'x.zip'}#/b.csv").rows == 40
    with pytest.raises(DataError):
        open_data(f"{tmp_path / 'x.zip'}#../../../outside.csv")  # hidden, as all below a folder that begins with a dot


def test_a_table_with_columns_of_text_says_how_they_open_and_that_works(tmp_path):
    rows = [f"{row},{prose()},{prose()},{row % 2},{row % 3}" for row in range(60)]
    path = laid(tmp_path, "folder", {"films.csv": "\n".join(["id,one,two,liked,genre", *rows, ""])}) / "films.csv"
    table = open_data(path)
    note = next(note for note in table.notes if "of no use to a table" in note)
    said = re.search(r"as such: (\S+) with --target liked or --target genre", note)[1]
    assert table.kind == "table" and shlex.split(said) == ["films.csv#one,two"]
    pairs = open_data(f"{path.parent}/{shlex.split(said)[0]}", target="genre")
    assert pairs.kind == "pairs" and pairs.columns == {"text": ["one", "two"], "target": "genre", "pairs": True}
