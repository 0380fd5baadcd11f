"""`papertrial new`: a paper's file, its claims and its test, which pass every check before the first line is changed."""

from __future__ import annotations

import ast
import datetime
import json
import keyword
import os
import shutil
import tempfile
import textwrap
from dataclasses import fields, replace
from pathlib import Path

from papertrial.core import registry
from papertrial.core.arguments import typed
from papertrial.core.errors import PapertrialError, did_you_mean
from papertrial.core.files import disk_errors, write_text
from papertrial.core.ours import require_new
from papertrial.core.paper import Paper

KINDS = ("architecture", "objective", "technique", "analysis")
_TEMPLATES = Path(__file__).parent / "templates"
_TASKS = {
    "architecture": ("image_classification", "image_representation"),
    "objective": ("image_representation", "image_classification"),
    "technique": ("image_classification",),
    "analysis": (),
}
#: kind -> the public name of its file where that is no class called as the paper
_METHODS = {"technique": "Config", "analysis": "measure"}

_BATTERY = """

def test_battery():
    check_paper("my_paper")
"""
_PYPROJECT = """[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "papertrial-{dashed}"
version = "0.1.0"
description = "{title}, for papertrial."
requires-python = ">=3.10"
dependencies = ["papertrial"]

[project.entry-points."papertrial.papers"]
{name} = "papertrial_{name}.{name}"

[tool.hatch.build.targets.wheel]
packages = ["src/papertrial_{name}"]
"""
_README = """# {title}

A paper for papertrial: `src/papertrial_{name}/{name}.py`, its claims in `{name}_claims.py` beside it, and its test.

    pip install -e .
    pytest
    {command}
"""


@typed
def new(name: str, kind: str = "architecture", out: Path | str | None = None) -> list[Path]:
    """Start a paper: its file, its claims and its test, which pass every check from the start. Returns their paths.

    name: the paper's id.  kind: architecture, objective, technique or analysis.

    Inside of a checkout of papertrial they go to the two shelves, `papers` and `claims`, and the tests; elsewhere, or with `out`, into a package of
    their own in the folder `out` (by default `papertrial-<name>`) that offers the paper through an entry point.
    Raises PapertrialError for a name that is taken or cannot be one, an unknown kind, and files that are there already.

        >>> import papertrial as pt
        >>> sorted(file.name for file in pt.new("my_idea", out="my_idea") if file.suffix == ".py")
        ['__init__.py', 'my_idea.py', 'my_idea_claims.py', 'test_my_idea.py']
    """
    _check_name(name)
    if kind not in KINDS:
        raise PapertrialError(f"there is no template of the kind {kind!r}", did_you_mean(kind, KINDS))
    paper = _facts(name, kind)
    checkout = _checkout() if out is None else None
    if checkout is not None:
        places = [
            checkout / "src" / "papertrial" / "papers" / f"{name}.py",
            checkout / "src" / "papertrial" / "claims" / f"{name}.py",
            checkout / "tests" / "papers" / f"test_{name}.py",
        ]
        for place in places:
            if os.path.lexists(place):
                raise PapertrialError(f"{place} is there already", "choose another name, or edit it")
        templates = (kind, f"{kind}_claims", f"{kind}_test")
        return [write_text(place, _filled(template, paper)) for place, template in zip(places, templates, strict=True)]
    return _package(paper, Path(out or f"papertrial-{name.replace('_', '-')}"))


def _check_name(name: str) -> None:
    if not name.isidentifier() or not name.islower() or keyword.iskeyword(name) or name.startswith("_"):
        raise PapertrialError(
            f"{name!r} cannot be the name of a paper", "use lower-case letters, digits and _, such as barlow_twins"
        )
    known = registry.entries()
    if name in known:
        raise PapertrialError(f"{name} is taken: {known[name].file}", "choose another name, or edit that file")


def _facts(name: str, kind: str) -> Paper:
    """What the reading list knows of a paper of this name, and words that ask to be replaced for the rest."""
    listed = {row.paper.id: row.paper for row in registry.reading_list()}
    today = datetime.date.today()
    unknown = Paper(
        id=name,
        title=name.replace("_", " ").title(),
        kind=kind,
        idea="One sentence: what is new.",
        authors="Its authors",
        year=today.year,
        arxiv="0000.00000",
        month=f"{today:%Y-%m}",
    )
    return replace(
        listed.get(name, unknown),
        kind=kind,
        method=_METHODS.get(kind) or "".join(word.capitalize() for word in name.split("_")),
        tasks=_TASKS[kind],
        baselines=("resnet", "untrained", "majority") if kind in ("architecture", "objective") else (),
        caveats=("This is the stand-in that papertrial new writes, not the paper's method yet.",),
    )


def _checkout() -> Path | None:
    here = Path.cwd()
    return next((at for at in (here, *here.parents) if (at / "src" / "papertrial" / "papers").is_dir()), None)


def _filled(template: str, paper: Paper, package: str = "papertrial.papers") -> str:
    """A template with the names and facts of `paper`."""
    text = (_TEMPLATES / f"{template}.py").read_text(encoding="utf-8")
    node = next(
        (n for n in ast.parse(text).body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "PAPER"), None
    )
    if node is not None:
        lines = text.splitlines()
        lines[node.lineno - 1 : node.end_lineno] = [_literal(paper)]
        text = "\n".join(lines) + "\n"
    authors = paper.authors.split(", ")
    shown = ", ".join(authors[:4]) + (" and others" if authors[4:] else "")
    return (
        text.replace("from papertrial.papers import my_paper", f"from {package} import {paper.id}")
        .replace("my_paper", paper.id)
        .replace("MyPaper", paper.method)
        .replace("My Paper", paper.title)
        .replace("Its authors. Venue, arXiv 0000.00000.", f"{shown}. Venue, arXiv {paper.arxiv}.")
    )


def _literal(paper: Paper) -> str:
    """`PAPER = Paper(...)` with the fields that are filled, as the formatter would have it."""
    lines = ["PAPER = Paper("]
    for entry in fields(Paper):
        value = getattr(paper, entry.name)
        if isinstance(value, tuple) and value:
            lines += _tuple(entry.name, [_quoted(words) for words in value])
        elif isinstance(value, str) and value:
            fits = len(entry.name) + len(_quoted(value)) <= 114
            first, *rest = [value] if fits else textwrap.wrap(value, 100, drop_whitespace=False)
            lines += [f"    {entry.name}={_quoted(first)}", *(f"    {_quoted(words)}" for words in rest)]
            lines[-1] += ","
        elif value:
            lines.append(f"    {entry.name}={value!r},")
    return "\n".join([*lines, ")"])


def _tuple(name: str, entries: list[str]) -> list[str]:
    line = f"    {name}=({', '.join(entries)}{',' * (len(entries) == 1)}),"
    if len(line) <= 120:
        return [line]
    return [f"    {name}=(", *(f"        {entry}," for entry in entries), "    ),"]


def _quoted(words: str) -> str:
    return json.dumps(words, ensure_ascii=False)


def _package(paper: Paper, folder: Path) -> list[Path]:
    name, module = paper.id, f"papertrial_{paper.id}"
    require_new(folder)
    use = "measure {} MODEL" if paper.kind == "analysis" else "compare {} --data YOUR_DATA"
    words = {
        "command": f"papertrial {use.format(name)}",
        "name": name,
        "dashed": name.replace("_", "-"),
        "title": paper.title.replace('"', "'"),
    }
    test = _filled(f"{paper.kind}_test", paper, module)
    test = test.replace(f"\nfrom {module}", f"from papertrial.testing import check_paper\n\nfrom {module}")
    files = {
        "pyproject.toml": _PYPROJECT.format(**words),
        "README.md": _README.format(**words),
        f"src/{module}/__init__.py": f'"""{paper.title}, for papertrial."""\n',
        f"src/{module}/{name}.py": _filled(paper.kind, paper, module),
        f"src/{module}/{name}_claims.py": _filled(f"{paper.kind}_claims", paper, module).replace(
            f"\nfrom {module}", f"\n\nfrom {module}"
        ),
        f"tests/test_{name}.py": test + _BATTERY.replace("my_paper", name),
    }
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            for place, text in files.items():
                write_text(temporary / place, text)
            temporary.chmod(0o755)
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return [folder / place for place in files]
