"""The rules of the house, each a test (docs/architecture.md)."""

from __future__ import annotations

import ast
import dataclasses
import math
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import papertrial
from papertrial.core import registry
from papertrial.core.errors import PapertrialError
from papertrial.core.recipe import Optim, ranges

ROOT = Path(papertrial.__file__).parent
TESTS = Path(__file__).parent
LAYERS = {
    name: level
    for level, names in enumerate(
        [
            ["core"],
            ["nn"],
            ["data"],
            ["tasks"],
            ["train"],
            ["baselines"],
            ["use"],
            ["claims", "discover"],
            ["study"],
            ["testing", "app"],
        ]
    )
    for name in names
}
#: beside the ladder: a paper builds on these and on papers it cites, and everything from `claims` up may name it
LAYERS["papers"] = LAYERS["nn"]
#: files of papers that are longer than a page of a book, and why
LONG = {
    "nfnet.py": "the network and the clipping, each with the authors' many particulars, are one method",
    "rtdl.py": "three networks of one paper, with the quantiles that all of them need",
    "guided_diffusion": "the diffusion, its classifier and both samplers, beside the U-Net and the chain",
    "rank_collapse": "the measurement and its report are the method",
    "switch": "the layer, both trunks and the checkpoints of transformers",
    "rasp": "a language and its compiler, whose files are each one thing",
}
AIM = 400
FILES = sorted(ROOT.rglob("*.py"))


@cache
def imports(file: Path, top_level_only: bool = False) -> set[str]:
    """Modules of the package that a file imports, as dotted paths below `papertrial`."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def layer(module: str) -> str:
    return module.split(".")[1] if module.startswith("papertrial.") else ""


def own_layer(file: Path) -> str:
    parts = file.relative_to(ROOT).parts
    return parts[0] if len(parts) > 1 else file.stem


@pytest.mark.parametrize(
    "file", [file for file in FILES if own_layer(file) in LAYERS], ids=lambda file: str(file.relative_to(ROOT))
)
def test_imports_go_one_way(file):
    own = own_layer(file)
    level = LAYERS[own]
    wrong = {name for name in imports(file) if layer(name) in LAYERS and LAYERS[layer(name)] > level}
    if level < LAYERS["claims"] and own != "papers":
        wrong |= {name for name in imports(file) if layer(name) == "papers"}
    assert not wrong, f"{file.relative_to(ROOT)} imports upwards: {sorted(wrong)}"


@pytest.mark.parametrize(
    "command",
    [
        ["-c", "import papertrial"],
        ["-m", "papertrial", "list"],
        ["-m", "papertrial", "read", "mlp_mixer"],
        ["-m", "papertrial", "--help"],
    ],
)
def test_reading_imports_nothing_heavy(command):
    heavy = "torch|numpy|pandas|sklearn|accelerate|pyarrow"
    code = f"""
import runpy, sys
sys.argv = ['papertrial', *{command[2:]!r}]
try:
    {"import papertrial" if command[0] == "-c" else "runpy.run_module('papertrial', run_name='__main__')"}
except SystemExit as stop:
    assert not stop.code, stop.code
loaded = [name for name in '{heavy}'.split('|') if name in sys.modules]
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_only_a_feature_that_presents_a_paper_imports_it():
    """Everything else reaches papers through the registry, so that none is loaded before it is asked for."""
    found: dict[str, set[str]] = {}
    for file in FILES:
        if own_layer(file) in ("papers", "claims") or "templates" in file.parts:
            continue
        for module in imports(file):
            if module.startswith("papertrial.papers."):
                found.setdefault(file.relative_to(ROOT).as_posix(), set()).add(module.split(".")[2])
    assert found == {"study/people.py": {"genie"}, "app/rasp.py": {"rasp"}}


def test_papers_import_only_what_they_cite():
    graph = {}
    for name, entry in registry.entries().items():
        cited = {
            module.split(".")[2]
            for module in imports(entry.file, top_level_only=True)
            if module.startswith(("papertrial.papers.", "papertrial.baselines."))
        }
        cited = {other for other in cited if other in registry.entries() and other != name}
        assert cited <= set(entry.paper.builds_on), f"{name} imports {cited} but builds on {entry.paper.builds_on}"
        graph[name] = set(entry.paper.builds_on)

    def walk(name, path):
        assert name not in path, f"citations go in a circle: {' -> '.join([*path, name])}"
        for other in graph.get(name, ()):
            walk(other, [*path, name])

    for name in graph:
        walk(name, [])


def papers_files():
    return [file for file in FILES if own_layer(file) == "papers" and file.parent.name != "papertrial"]


@pytest.mark.parametrize("file", papers_files(), ids=lambda file: str(file.relative_to(ROOT)))
def test_a_paper_is_the_paper_alone(file):
    """Plain torch on `core` and `nn`: no claims, nothing that trains, no data; functions count as much as the top level."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    assert not [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and _is_claim(node)]
    allowed = {"core", "nn", "papers"}
    wrong = {name for name in imports(file) if name.startswith("papertrial.") and layer(name) not in allowed}
    assert not wrong, f"{file.relative_to(ROOT)} imports {sorted(wrong)}"


def _is_claim(node):
    return any(isinstance(call, ast.Call) and getattr(call.func, "id", "") == "claim" for call in node.decorator_list)


def test_claims_stand_under_the_name_of_their_paper():
    """`claims/<id>.py` has the claims of `papers/<id>` and of no other; what begins with _ serves them."""
    shelf = {name for name, entry in registry.entries().items() if entry.shelf == "papers"}
    files = {file.stem: file for file in (ROOT / "claims").glob("[!_]*.py")}
    assert files.keys() == shelf
    for name, file in files.items():
        tree = ast.parse(file.read_text(encoding="utf-8"))
        assert any(isinstance(node, ast.FunctionDef) and _is_claim(node) for node in tree.body), name
        reached = {module for module in imports(file) if layer(module) == "papers"}
        assert {module.split(".")[2] for module in reached if module != "papertrial.papers"} == {name}


def test_a_paper_is_short():
    """A reader opens one file and can read it to the end; those that are longer say why in LONG."""
    long = {
        file.relative_to(ROOT / "papers").parts[0]: lines
        for file in papers_files()
        if (lines := len(file.read_text(encoding="utf-8").splitlines())) > AIM
    }
    assert long.keys() == LONG.keys(), f"more than {AIM} lines: {long}"


def test_no_file_is_too_long():
    long = {
        str(file.relative_to(ROOT)): lines
        for file in FILES
        if (lines := len(file.read_text("utf-8").splitlines())) > 600
    }
    assert not long, "cut them along a seam"


def test_importing_a_paper_loads_nothing_that_trains():
    names = sorted(file.stem for file in (ROOT / "claims").glob("[!_]*.py"))
    code = f"""
import importlib, sys
for name in {names!r}:
    importlib.import_module(f'papertrial.papers.{{name}}')
heavy = ('accelerate', 'pandas', 'sklearn', *(f'papertrial.{{layer}}' for layer in ('data', 'tasks', 'train', 'use')))
loaded = [name for name in heavy if name in sys.modules]
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_block_has_two_users():
    """A block of nn/ is used by two methods, tasks or blocks that do; with one user it belongs in that user's file.

    The registry, which imports by name, counts where it names a block.
    """
    by_name = Path(registry.__file__)
    for block in sorted((ROOT / "nn").glob("[!_]*.py")):
        users = {
            file
            for file in FILES
            if file != block and any(name.startswith(f"papertrial.nn.{block.stem}") for name in imports(file))
        }
        users |= {by_name} if f'"papertrial.nn.{block.stem}"' in by_name.read_text(encoding="utf-8") else set()
        assert len(users) >= 2, f"nn/{block.name} has {len(users)} users: {[str(u.relative_to(ROOT)) for u in users]}"


@pytest.mark.parametrize("name", sorted(registry.entries()))
def test_names_agree(name):
    entry = registry.entries()[name]
    assert entry.file.stem in (name, "__init__")
    folder = TESTS / entry.shelf
    if entry.shelf == "papers":
        assert (folder / f"test_{name}.py").exists(), f"tests/papers/test_{name}.py is missing"


@pytest.mark.parametrize("name", sorted(registry.entries()))
def test_settings_share_one_namespace(name):
    module = registry.load(name)
    clash = {field.name for field in dataclasses.fields(module.Config)} & {
        field.name for field in dataclasses.fields(Optim)
    }
    if registry.find(name).paper.kind != "estimator":
        assert not clash, f"{name}: Config and Optim both have {clash}"
    for field in dataclasses.fields(module.Config):
        assert field.metadata.get("where"), f"{name}: the default of {field.name} has no source"


def settings_of(name):
    """The dataclasses of a method: its `Config`, and the techniques that its file offers."""
    return [
        registry.load(name).Config,
        *(registry.technique_class(one) for one in registry.find(name).paper.techniques),
    ]


@pytest.mark.parametrize("cls", [Optim, *(cls for name in sorted(registry.entries()) for cls in settings_of(name))])
def test_settings_state_their_ranges(cls):
    """Numbers their ends, words their choices or that any will do; and who makes one by hand is held to them."""
    found = ranges(cls)
    needed = {name: "given" for name, within in found.items() if within.free and not within.entries}
    for field in dataclasses.fields(cls):
        assert field.name in found, f"{cls.__module__}: {field.name} has no range"
        within = found[field.name]
        assert within.choices or within.free or within.low > -math.inf, f"{cls.__module__}: {field.name} has no end"
        assert field.default in within, f"{cls.__module__}: the default of {field.name} is outside of {within}"
        if not (within.free or within.entries):
            with pytest.raises(PapertrialError, match=f"the setting {field.name} is"):
                cls(**needed | {field.name: "no such value"})


@pytest.mark.parametrize("name", sorted(registry.entries()))
def test_published_sizes_and_recipes_lie_within_the_ranges(name):
    module = registry.load(name)
    for changes in getattr(module, "variants", {}).values():
        module.Config(**changes)
    for recipe in module.recipes.values():
        module.Config(**recipe.config)
        Optim(**recipe.optim)
        for text in recipe.techniques:
            registry.technique(text)


@pytest.mark.parametrize("name", sorted(registry.papers()))
def test_a_paper_names_known_tasks_and_has_a_tiny_recipe(name):
    paper = registry.papers()[name]
    assert set(paper.tasks) & set(registry.tasks()) or paper.kind == "technique" or paper.refusal
    assert paper.authors and paper.year and paper.idea and paper.month, (
        f"{name}: authors, year, month and idea are needed"
    )
    assert "tiny" in registry.load(name).recipes


def test_nothing_unfinished_is_left():
    marks = ("TO" + "DO", "FIX" + "ME", "XX" + "X")
    for file in FILES:
        text = file.read_text(encoding="utf-8")
        assert not any(f"{mark}" in text.split() for mark in marks), file
        assert "pickle.load" not in text and "allow_pickle=True" not in text and "weights_only=False" not in text, (
            f"{file} loads pickles"
        )
