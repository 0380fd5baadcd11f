"""What is released: wheel and sdist hold every file, and the wheel alone, without extras, works or says which extra is missing."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tools import wheel

import papertrial
from papertrial.core.registry import EXTRA_MODULES

ROOT = Path(__file__).parents[1]


def test_the_version_is_the_same_everywhere():
    found = {
        "pyproject.toml": re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1],
        "CITATION.cff": re.search(r"^version: (.+)", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)[1],
        "CHANGELOG.md": re.search(r"^## \[(\d.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1],
    }
    assert set(found.values()) == {papertrial.__version__}, found


def test_every_extra_is_tried_or_says_why_not():
    assert wheel.NEEDS.keys() | wheel.QUIET.keys() == EXTRA_MODULES.keys()
    assert not wheel.NEEDS.keys() & wheel.QUIET.keys()


@pytest.mark.slow
def test_wheel_and_sdist_hold_every_file_and_the_wheel_works_alone(tmp_path):
    dist, work = tmp_path / "dist", tmp_path / "work"
    work.mkdir()
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(dist), str(ROOT)], check=True, capture_output=True)
    assert list(wheel.missing_files(dist)) == []
    (built,) = dist.glob("*.whl")
    assert list(wheel.wrong(wheel.install(built, tmp_path / "alone"), work)) == []
    thinned = dist / "thin.whl"  # the check notices: without one template
    with zipfile.ZipFile(built) as whole, zipfile.ZipFile(thinned, "w") as less:
        for name in whole.namelist():
            if not name.endswith("page.css"):
                less.writestr(name, whole.read(name))
    thinned.replace(built)
    assert [line.split("lacks ")[1] for line in wheel.missing_files(dist)] == ["papertrial/study/page.css"]
