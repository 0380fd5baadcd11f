"""Technique papers of somebody else's package, as `pip install` leaves them."""

import shutil
import sys
from pathlib import Path

import pytest

from papertrial import testing
from papertrial.core import registry

PAPERS = Path(__file__).with_name("papers")
NAMES = sorted(file.stem for file in PAPERS.glob("*.py"))


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The folder they are imported from, one for all tests: ranks that know it stay for the next test."""
    site = tmp_path_factory.mktemp("site")
    for name in NAMES:
        shutil.copy(PAPERS / f"{name}.py", site)
    info = site / "papertrial_elsewhere-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: papertrial-elsewhere\nVersion: 0.1.0\n")
    points = "".join(f"{name} = {name}\n" for name in NAMES)
    (info / "entry_points.txt").write_text(f"[papertrial.papers]\n{points}")
    return site


@pytest.fixture
def elsewhere(site, tmp_path_factory, monkeypatch):
    """The papers beside this file can be found by the registry."""
    monkeypatch.syspath_prepend(site)
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))
    _forget()
    yield
    monkeypatch.undo()
    _forget()


def _forget():
    registry.entries.cache_clear()
    testing.bench.cache_clear()
    for name in NAMES:
        sys.modules.pop(name, None)
