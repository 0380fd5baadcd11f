"""How commands end whose output nobody reads, or cannot be written: in real processes, as a shell starts them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pipes and /dev/full are Linux's")

#: printed by us, by the parser, and by rich; long and short
PRINTING = ["list", "--help", "fit --help", "list --json", "nothing"]


@pytest.mark.parametrize("words", PRINTING)
def test_a_pipe_that_nobody_reads_is_no_error(words, tmp_path):
    """As `| head -1` leaves it; also the error stream, of `2>&1 | head -1`."""
    ours, theirs = os.pipe()
    os.close(ours)
    command = [sys.executable, "-m", "papertrial", *words.split()]
    whole = subprocess.run(command, stdout=theirs, stderr=theirs, cwd=tmp_path, timeout=120)
    told = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, cwd=tmp_path, timeout=120, text=True)
    os.close(theirs)
    code = 2 if words == "nothing" else 0  # an error stays one
    assert (whole.returncode, told.returncode) == (code, code), told.stderr
    assert "Error" not in told.stderr and "Exception" not in told.stderr


@pytest.mark.parametrize("words", ["list", "--help"])
def test_output_on_a_full_disk_is_one_line(words, tmp_path):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "papertrial", *words.split()]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, cwd=tmp_path, timeout=120, text=True)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith("papertrial: ") and "no space left" in line
