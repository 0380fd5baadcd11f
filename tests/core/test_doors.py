"""Own files come back through a door: whole, or with one line that names the file and what is wrong."""

import json

import pytest
from typing_extensions import NotRequired, TypedDict

from papertrial.core.doors import Damaged, Door, check_sums, sums
from papertrial.core.errors import PapertrialError


class Sheet(TypedDict):
    name: str
    values: dict[str, float | None]
    notes: NotRequired[list[str]]


DOOR = Door(Sheet, "remove {folder}, and the same command makes it again", 3)
WHOLE = {"format": 3, "name": "é", "values": {"a": 1, "b": None, "c": 0.1}, "more": [1, {"x": []}]}


def test_what_is_written_comes_back_with_its_checksum(tmp_path):
    DOOR.write(tmp_path / "sheet.json", WHOLE)
    assert {name: value for name, value in DOOR.read(tmp_path / "sheet.json").items() if name != "checksum"} == WHOLE
    (tmp_path / "old.json").write_text(json.dumps(WHOLE))  # from before there were checksums
    assert DOOR.read(tmp_path / "old.json") == WHOLE


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "EOF"),
        (b"[]", "dictionary"),
        (b"3", "dictionary"),
        (b'{"format": 3}', "name: field required"),
        (b'{"format": 3, "name": "x", "values": {"a": "1"}}', "values.a: input should be a valid number"),
        (b'{"format": 3, "name": "x", "values": {}, "notes": "x"}', "notes: "),
        (b'{"format": 3, "name": "\xff", "values": {}}', "invalid unicode"),
        (b'{"format": 3, "name": "\\ud800", "values": {}}', "hex escape"),
        (b'{"format": 3, "name": "x", "values": {"a": NaN}}', "expected"),
        (b'{"format": 3, "name": "x", "values": {}, "more": ' + b"[" * 9000, "recursion"),
        (b'{"format": 3, "name": "x", "values": {}, "more": ' + b"9" * 9000, "out of range"),
        (b'{"format": 3, "name": "x", "values": {}, "checksum": "0"}', "checksum differs"),
    ],
)
def test_what_is_not_as_written_is_one_line_with_the_file_and_what_repairs_it(tmp_path, content, words):
    file = tmp_path / "sheet.json"
    file.write_bytes(content)
    with pytest.raises(PapertrialError) as found:
        DOOR.read(file)
    assert str(file) in str(found.value) and "\n" not in str(found.value) and len(found.value.problem) < 400
    if b"format" in content:
        assert (
            words in str(found.value) and found.value.fix == f"remove {tmp_path}, and the same command makes it again"
        )


def test_a_later_version_says_so_and_one_of_none_is_made_again(tmp_path):
    file = tmp_path / "sheet.json"
    file.write_text('{"format": 4}')
    with pytest.raises(PapertrialError, match="is of format 4, and this papertrial reads 3; type: pip install -U"):
        DOOR.read(file)
    file.write_text('{"format": "\\u001b[31m"}')
    with pytest.raises(PapertrialError, match=r"format \\x1b\[31m, .*; remove"):
        DOOR.read(file)


def test_one_flipped_digit_is_told(tmp_path):
    file = DOOR.write(tmp_path / "sheet.json", WHOLE)
    file.write_text(file.read_text().replace('"a": 1', '"a": 2'))
    with pytest.raises(Damaged, match="checksum"):
        DOOR.read(file)


def test_lines_that_are_whole_count_and_the_others_are_named(tmp_path):
    file = tmp_path / "log.jsonl"
    row = b'{"name": "x", "values": {"a": 1}}'
    file.write_bytes(b"\n".join([row, b"3", b"\xff", b"", row, b"[" * 9000, b'{"name": 1}', row, b'{"name": "cut']))
    rows, bad = Door(Sheet, "").rows(file, grows=True)
    assert len(rows) == 3 and len(Door(Sheet, "").rows(file)[1]) == len(bad) + 1
    assert [line.split(" of ")[0] for line in bad] == ["line 2", "line 3", "line 6", "line 7"]
    assert Door(Sheet, "").rows(tmp_path / "none") == ([], [])


def test_an_error_in_what_a_file_says_is_the_files_unless_its_checksum_says_that_it_is_whole(tmp_path):
    with pytest.raises(Damaged, match="KeyError"), DOOR.answers_for("x.json", {}):
        {}["class_names"]
    with pytest.raises(KeyError), DOOR.answers_for("x.json", {"checksum": ""}):
        {}["class_names"]


def test_sums_of_files_and_folders_find_what_changed(tmp_path):
    (tmp_path / "inner").mkdir()
    for name in ("a", "inner/b"):
        (tmp_path / name).write_text(name)
    kept = sums(tmp_path, ["a", "inner"])
    assert list(kept) == ["a", "inner/b"]
    check_sums(tmp_path, kept, "")
    (tmp_path / "inner/b").write_text("c")
    with pytest.raises(Damaged, match=r"inner/b is damaged .*checksum.*; again"):
        check_sums(tmp_path, kept, "again")
    (tmp_path / "a").unlink()
    with pytest.raises(Damaged, match=r"a is damaged .it is missing"):
        check_sums(tmp_path, kept, "")
