from __future__ import annotations

import errno
import json
import os

import numpy as np
import pytest

from papertrial.core import files
from papertrial.core.errors import PapertrialError


def test_a_failure_keeps_what_was_there_and_leaves_nothing(tmp_path):
    path = files.write_text(tmp_path / "a.txt", "before")

    def fails(temporary):
        temporary.write_text("half")
        raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        files.write_with(path, fails)
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    ("code", "words"), [(errno.ENOSPC, "no space left"), (errno.EACCES, "cannot write"), (errno.EROFS, "cannot write")]
)
def test_the_disks_errors_become_one_line(tmp_path, monkeypatch, code, words):
    def fails(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files.os, "replace", fails)
    with pytest.raises(PapertrialError, match=words):
        files.write_text(tmp_path / "a.txt", "x")
    assert os.listdir(tmp_path) == []


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(PapertrialError, match="cannot write"):
        files.write_text(tmp_path / "file" / "a.txt", "x")


def test_json_takes_what_runs_hold():
    content = {"a": np.float32(1.5), "b": np.arange(3), "c": float("nan"), "d": (1, None, True), "e": {2: np.int64(3)}}
    assert json.loads(files.to_json(content)) == {
        "a": 1.5,
        "b": [0, 1, 2],
        "c": None,
        "d": [1, None, True],
        "e": {"2": 3},
    }


def test_damaged_json_is_named(tmp_path):
    (tmp_path / "card.json").write_text("{")
    with pytest.raises(PapertrialError, match=r"card\.json"):
        files.read_json(tmp_path / "card.json")
    with pytest.raises(PapertrialError, match="not there"):
        files.read_json(tmp_path / "nowhere.json")
