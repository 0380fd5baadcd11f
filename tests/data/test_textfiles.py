"""Bytes of any encoding to UTF-8: repaired, or refused with the reason."""

from __future__ import annotations

import gzip
import tarfile
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from papertrial.core.errors import DataError
from papertrial.data import textfiles
from papertrial.data.textfiles import Refused, Repairs, labelled_lines, lines_of, part_of, to_utf8, without_part

WRITTEN = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=60)


def held(content: bytes) -> np.ndarray:
    return np.frombuffer(content, np.uint8)


def read(content: bytes) -> tuple[str, Repairs]:
    repairs = Repairs()
    return bytes(to_utf8(held(content), repairs)).decode(), repairs


@given(WRITTEN)
def test_utf8_stays_as_it_is(text):
    assert read(text.encode()) == (text.removeprefix("\ufeff"), read(text.encode())[1])
    assert read(text.encode())[1].foreign == 0


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_names_the_encoding(encoding):
    found, repairs = read("naïve\r\n日本語 🎉".encode(encoding))
    assert found == "naïve\n日本語 🎉"
    assert len(repairs.notes()) == 1


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_a_mark_is_recognised(encoding):
    assert read("A plain English sentence.\n".encode(encoding))[0] == "A plain English sentence.\n"


@given(st.lists(st.sampled_from(["ordinary words", "café", "“quoted” text", "naïve – yes", "Straße"]), min_size=5))
def test_windows_1252_is_read_where_bytes_are_not_utf8(lines):
    text = "plain ascii beginning of the file\n" + "\n".join(lines)
    assert read(text.encode("cp1252"))[0] == text


def test_good_lines_of_a_mixed_file_are_kept():
    found, repairs = read("first line is café\n".encode() + "the second one is café too\n".encode("latin-1"))
    assert found == "first line is café\nthe second one is café too\n"
    assert (repairs.foreign, repairs.foreign_files) == (1, 1)
    assert "1 byte in 1 file that are not UTF-8 were read as Windows-1252" in repairs.notes()[0]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("Привет, мир! Это текст.".encode("koi8-r"), "encoding cannot be known"),
        ("日本語の文章です。".encode("shift-jis"), "encoding cannot be known"),
        ("I begynnelsen var mörkret över djupet, och allt är så".encode("cp850"), "encoding cannot be known"),
        (bytes(range(256)) * 4, "binary"),
        (gzip.compress(b"some text", mtime=0), "binary"),
        ("text".encode("utf-16")[:-1], "damaged UTF-16"),
    ],
)
def test_what_cannot_be_known_is_refused(content, why):
    with pytest.raises(Refused, match=why):
        read(content)


def test_content_is_the_same_in_blocks_of_any_size(monkeypatch):
    text = "ä line\r\nβeta 日本\rlast é\n" * 50
    for content in (text.encode(), text.replace("β", "b").replace("日本", "").encode("latin-1")):
        whole = read(content)[0]
        for size in (1, 2, 3, 7):
            monkeypatch.setattr(textfiles, "_BLOCK", size)
            assert read(content)[0] == whole
        monkeypatch.undo()


def test_clean_files_stay_on_disk_and_others_do_not(tmp_path):
    (tmp_path / "clean.txt").write_bytes(b"one\ntwo\n")
    (tmp_path / "dos.txt").write_bytes(b"one\r\ntwo\r\n")
    clean, dos = (textfiles.read_file(tmp_path / name, Repairs()) for name in ("clean.txt", "dos.txt"))
    assert isinstance(clean, np.memmap) and not isinstance(dos, np.memmap)
    assert bytes(clean) == bytes(dos)


@pytest.mark.parametrize("size", [1, 5, 1 << 20])
@given(st.lists(st.sampled_from(["", "  ", "\t", "word", "two words", "ünï"]), max_size=12))
def test_lines_are_those_that_hold_something(size, rows):
    before, textfiles._BLOCK = textfiles._BLOCK, size
    try:
        lines, numbers = lines_of(held("\n".join(rows).encode()))
    finally:
        textfiles._BLOCK = before
    assert lines.texts() == [row for row in rows if row.strip()]
    assert numbers.tolist() == [number for number, row in enumerate(rows, 1) if row.strip()]


def test_labels_are_taken_off_lines_that_all_have_one():
    def labelled(*rows):
        return labelled_lines(textfiles.joined([row.encode() for row in rows]))

    labels, texts = labelled("0 a film", "1 no film", "0 it is", "1 is it")
    assert (labels, texts.texts()) == (list("0101"), ["a film", "no film", "it is", "is it"])
    labels, texts = labelled(*["__label__good ok then", "__label__bad oh no"] * 3)
    assert labels[:2] == ["good", "bad"] and texts.texts()[1] == "oh no"
    assert labelled("0 a film", "1 no film", "0 it is", "is it") is None
    assert labelled("1 first", "2 second", "3 third", "4 fourth") is None  # a numbered list
    assert labelled("0 same", "0 label", "0 all", "0 over") is None
    assert labelled("The word", "a word", "The word", "a word") is None


@pytest.mark.parametrize(
    ("name", "part", "rest"),
    [
        ("train.txt", 0, ""),
        ("stsb-en-dev.csv", 1, "stsb-en-csv"),
        ("TREC.test.all", 2, "trec-all"),
        ("wiki.valid.txt.gz", 1, "wiki"),
        ("train-test.txt", None, ""),
        ("latest.txt", None, "latest"),
    ],
)
def test_parts_are_read_from_names(name, part, rest):
    assert part_of(name) == part
    assert without_part(name) == rest


def test_members_of_archives_and_folders(tmp_path):
    folder = tmp_path / "notes"
    (folder / ".git").mkdir(parents=True)
    (folder / ".git" / "config.txt").write_text("hidden")
    (folder / "b").mkdir()
    (folder / "a.txt").write_text("first")
    (folder / "b" / "c.md").write_text("second")
    with (
        zipfile.ZipFile(tmp_path / "notes.zip", "w") as zipped,
        tarfile.open(tmp_path / "notes.tar.gz", "w:gz") as tarred,
    ):
        tarred.add(folder, "notes")
        for file in sorted(folder.rglob("*")):
            zipped.write(file, file.relative_to(folder))
    expected = [("a.txt", b"first"), ("b/c.md", b"second")]
    assert [(name, get()) for name, get in textfiles.members(folder)] == expected
    assert [(name, get()) for name, get in textfiles.members(tmp_path / "notes.zip")] == expected
    packed = [(name.removeprefix("notes/"), get()) for name, get in textfiles.members(tmp_path / "notes.tar.gz")]
    assert sorted(packed) == expected
    (tmp_path / "broken.zip").write_bytes((tmp_path / "notes.zip").read_bytes()[:60])
    with pytest.raises(DataError, match="is damaged"):
        list(textfiles.members(tmp_path / "broken.zip"))
