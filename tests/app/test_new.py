"""`papertrial new` writes files that work; that they pass the battery is in test_third_party.py."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from papertrial.app.new import KINDS, new
from papertrial.core import registry
from papertrial.core.errors import PapertrialError
from papertrial.core.registry import literal


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
def test_elsewhere_it_writes_a_package_with_an_entry_point(kind, here):
    files = new("tiny_net", kind)
    package = here / "papertrial-tiny-net"
    assert str(files[0]) == "papertrial-tiny-net/pyproject.toml"
    assert (
        '[project.entry-points."papertrial.papers"]\ntiny_net = "papertrial_tiny_net.tiny_net"'
        in (package / "pyproject.toml").read_text()
    )
    paper = literal(package / "src" / "papertrial_tiny_net" / "tiny_net.py")
    method = {"analysis": "measure", "technique": "Config"}.get(kind, "TinyNet")
    assert (paper.id, paper.kind, paper.method, paper.title) == ("tiny_net", kind, method, "Tiny Net")
    claims = (package / "src" / "papertrial_tiny_net" / "tiny_net_claims.py").read_text()
    assert "from papertrial_tiny_net import tiny_net as paper" in claims and "@claim(" in claims
    assert "@claim(" not in (package / "src" / "papertrial_tiny_net" / "tiny_net.py").read_text()
    assert "stand-in" in paper.caveats[0]
    test = (package / "tests" / "test_tiny_net.py").read_text()
    assert 'check_paper("tiny_net")' in test and "from papertrial_tiny_net import tiny_net" in test
    for file in files:
        assert "my_paper" not in file.read_text() and "MyPaper" not in file.read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_in_a_checkout_it_goes_to_the_shelf_as_the_linters_want_it(kind, here):
    (here / "src" / "papertrial" / "papers").mkdir(parents=True)
    source = Path(registry.__file__).parents[1]
    for file in [source / "__init__.py", *source.glob("[cnp]*/*.py")]:  # the linter asks which modules are ours
        place = here / "src" / "papertrial" / file.relative_to(source)
        place.parent.mkdir(exist_ok=True)
        place.touch()
    files = new("byol", kind) if kind == "objective" else new("tiny_net", kind)
    name = files[0].stem
    assert files == [
        here / "src" / "papertrial" / "papers" / f"{name}.py",
        here / "src" / "papertrial" / "claims" / f"{name}.py",
        here / "tests" / "papers" / f"test_{name}.py",
    ]
    assert f"from papertrial.papers import {name} as paper" in files[1].read_text()
    assert f"from papertrial.papers import {name}" in files[2].read_text()
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent)) or shutil.which("ruff")
    if ruff is not None:
        (here / "pyproject.toml").write_bytes((Path(__file__).parents[2] / "pyproject.toml").read_bytes())
        for words in (["format", "--check"], ["check"]):
            done = subprocess.run([ruff, *words, "--no-cache", "src", "tests"], capture_output=True, text=True)
            assert done.returncode == 0, done.stdout


def test_what_the_reading_list_knows_is_filled_in(here):
    paper = literal(new("dino", "objective")[3])
    assert paper.arxiv == "2104.14294" and paper.month and "Caron" in paper.authors
    assert "Mathilde Caron" in ast.get_docstring(
        ast.parse(Path("papertrial-dino/src/papertrial_dino/dino.py").read_text())
    )


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("mlp_mixer", "architecture", "mlp_mixer is taken"),
        ("resnet", "architecture", "resnet is taken"),
        ("my-paper", "architecture", "cannot be the name"),
        ("Dino", "architecture", "cannot be the name"),
        ("class", "architecture", "cannot be the name"),
        ("_x", "architecture", "cannot be the name"),
        ("fresh", "objectiv", "did you mean 'objective'"),
    ],
)
def test_a_name_that_cannot_be_is_one_line_and_writes_nothing(name, kind, message, here):
    with pytest.raises(PapertrialError, match=message):
        new(name, kind)
    assert not list(here.iterdir())


def test_files_that_are_there_are_never_touched(here):
    new("fresh", out=here / "mine")
    before = sorted(here.rglob("*"))
    with pytest.raises(PapertrialError, match="is there already"):
        new("fresh", out=here / "mine")
    test = here / "tests" / "papers" / "test_other.py"
    (here / "src" / "papertrial" / "papers").mkdir(parents=True)
    test.parent.mkdir(parents=True)
    test.write_text("mine")
    with pytest.raises(PapertrialError, match="is there already"):
        new("other")
    assert test.read_text() == "mine"
    assert not (here / "src" / "papertrial" / "papers" / "other.py").exists()
    assert set(before) <= set(here.rglob("*"))
