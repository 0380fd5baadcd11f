"""Is evidence still about the code that is here? Each claim's figures at tiny scale are kept beside its base evidence.

    evidence/tiny/<paper>.jsonl     a line per claim: what the tiny scale with seed 0 gave, the files of code that ran, their mark

The mark covers every file of the package that the tiny run used: paper, claims, nn, train, tasks and what they import. Where
it differs now, hours of evidence are not thrown away: `papertrial check` repeats the tiny run, which takes seconds. The same
figures, and the evidence stands, with a remark; others, and it says "code changed since" until the claim is run at base scale
again. Figures are the same to a relative 1e-6, which is what other machines may differ by; those that a claim takes from the
clock (`Claim.clock`) are not compared.
"""

from __future__ import annotations

import ast
import hashlib
import json
import math
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

from typing_extensions import TypedDict

from papertrial.core import registry
from papertrial.core.doors import Door
from papertrial.core.errors import PapertrialError
from papertrial.core.files import to_json, write_text
from papertrial.core.paper import Claim

#: what a claim's base evidence says of its code
CHANGED = "code changed since"
_RELATIVE, _ABSOLUTE = 1e-6, 1e-9


class _Line(TypedDict):
    """A tiny run of a claim. changed: when other figures were found.  same: when the same ones were, by other code."""

    claim: str
    held: bool
    measured: dict[str, Any]
    files: list[str]
    mark: str
    date: str
    changed: str
    same: str


_LINES = Door(_Line, "")
#: paper -> files of code that ran under `watched` in this process
_RAN: dict[str, set[str]] = {}


def roots(paper: str) -> list[Path]:
    """The packages whose code the claims of a paper run: papertrial, and that of a paper from elsewhere."""
    ours, entry = Path(registry.__file__).parents[1], registry.entries().get(paper)
    if entry is None:
        return [ours]
    depth = entry.module.count(".") + (entry.file.name == "__init__.py")
    own = entry.file.parents[depth - 1] if depth else entry.file  # a module that lies in no package
    return list(dict.fromkeys([ours, own]))


def snapshot(folders: Iterable[Path]) -> dict[str, str]:
    """file -> a hash of what is in it, for all code in the packages, named from the folder that a package lies in."""
    found = {}
    for root in folders:
        for file in [root, *root.rglob("*")]:
            if file.is_file() and "__pycache__" not in file.parts:
                content = hashlib.blake2b(file.read_bytes(), digest_size=8).hexdigest()
                found[file.relative_to(root.parent).as_posix()] = content
    return found


def mark(files: Iterable[str], held: Mapping[str, str]) -> str:
    """Changes with the content of any of the files; `held` is a snapshot."""
    words = "\n".join(f"{file} {held.get(file, 'gone')}" for file in sorted(files))
    return hashlib.blake2b(words.encode(), digest_size=8).hexdigest()


def loaded(folders: Iterable[Path]) -> list[str]:
    """All files of the packages that this process has imported: more than a run has used, and never less."""
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    return _named({file for file in files if file}, folders)


@contextmanager
def watched(paper: str) -> Iterator[list[str]]:
    """Fills the list, when it ends, with the files of the packages whose functions ran, what those files import from the
    packages, and the data in the packages that they name.

    Claims of a paper share what they train within a process, so that the list has what earlier ones of it ran too.
    """
    folders, files = tuple(roots(paper)), _RAN.setdefault(paper, set())

    def seen(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            files.add(frame.f_code.co_filename)

    before = sys.getprofile()
    found: list[str] = []
    sys.setprofile(seen)
    threading.setprofile(seen)
    try:
        yield found
    finally:
        sys.setprofile(before)
        threading.setprofile(None)
        ran = _named(files - {__file__}, folders)
        beside = {other for file in ran for other in _needed(file, folders)}
        found += sorted({*ran, *beside})


def _named(files: Iterable[str], folders: Iterable[Path]) -> list[str]:
    found = set()
    for root in folders:
        inside = (file for file in files if file == str(root) or file.startswith(f"{root}{os.sep}"))
        found |= {Path(file).relative_to(root.parent).as_posix() for file in inside}
    return sorted(found)


def _needed(file: str, folders: tuple[Path, ...]) -> list[str]:
    path = next(root.parent for root in folders if Path(file).parts[0] == root.name) / file
    return _read(path, path.stat().st_mtime_ns, folders)


@cache
def _read(path: Path, changed: int, folders: tuple[Path, ...]) -> list[str]:
    """What a file takes from the packages: modules that it imports, and data beside it that it names."""
    text = path.read_text(encoding="utf-8")
    modules = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
    files = {str(other) for other in path.parent.iterdir() if other.suffix not in (".py", "") and other.name in text}
    for root in folders:
        for module in modules:
            if module.partition(".")[0] == root.name:
                place = root.parent.joinpath(*module.split("."))
                files |= {str(at) for at in (place.with_suffix(".py"), place / "__init__.py") if at.is_file()}
    return _named(files, folders)


def file_of(folder: Path, paper: str) -> Path:
    """Where the tiny figures beside the evidence on a paper lie."""
    return folder / "tiny" / f"{paper}.jsonl"


def read(folder: Path, paper: str) -> dict[str, dict[str, Any]]:
    """claim -> what is kept of its tiny run; none where nothing is. Raises PapertrialError for a file that is damaged."""
    file = file_of(folder, paper)
    if not file.exists():
        return {}
    rows, damaged = _LINES.rows(file)
    if damaged:
        raise PapertrialError(damaged[0], f"remove {file}, and check keeps the figures anew")
    return {row["claim"]: row for row in rows}


def keep(folder: Path, paper: str, claim: Claim, row: Mapping[str, Any], date: str) -> None:
    """Put down the tiny figures beside base evidence that was measured by the same code. row: as `check` gets it of a job."""
    _write(folder, paper, {"claim": claim.name, **_told(row), "date": date, "changed": "", "same": ""})


def compare(folder: Path, paper: str, claim: Claim, row: Mapping[str, Any], date: str) -> str:
    """What a new tiny run says of the base evidence of a claim, in words; nothing where the code is the same, or where no
    figures are kept. The answer is put down beside them."""
    kept, new = read(folder, paper).get(claim.name), _told(row)
    if kept is None or (kept["mark"] == new["mark"] and not kept["changed"]):
        return ""
    different = _different(claim, kept, new)
    if different:
        _write(folder, paper, {**kept, "changed": date})
        return f"{CHANGED}, and {', '.join(different)} differ at tiny scale: run it at base scale again"
    _write(folder, paper, {**kept, "files": new["files"], "mark": new["mark"], "changed": "", "same": date})
    return f"{CHANGED}, and the figures at tiny scale are the same: its evidence at base scale stands"


def _told(row: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a run, as JSON gives it back."""
    told: dict[str, Any] = json.loads(to_json({name: row[name] for name in ("held", "measured", "files", "mark")}))
    return told


def _different(claim: Claim, kept: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    before, now = ({"held": each["held"], **each["measured"]} for each in (kept, new))
    names = [name for name in dict.fromkeys([*before, *now]) if not any(fnmatchcase(name, by) for by in claim.clock)]
    return [name for name in names if not _same(before.get(name), now.get(name))]


def _same(before: Any, now: Any) -> bool:
    if isinstance(before, bool) or not all(isinstance(value, int | float) for value in (before, now)):
        return bool(before == now)
    return math.isclose(before, now, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)


def _write(folder: Path, paper: str, row: Mapping[str, Any]) -> None:
    rows = read(folder, paper) | {row["claim"]: dict(row)}
    write_text(file_of(folder, paper), "".join(f"{to_json(each)}\n" for each in rows.values()))


def changed(folder: Path, paper: str) -> set[str]:
    """The claims whose base evidence is by other code, with other figures at tiny scale."""
    return {claim for claim, kept in read(folder, paper).items() if kept["changed"]}


def untried(folder: Path, paper: str) -> set[str]:
    """The claims whose code differs from what their evidence is by, and nobody has looked yet whether the figures do."""
    kept = read(folder, paper)
    if not kept or paper not in registry.entries():
        return set()
    now = snapshot(roots(paper))
    return {claim for claim, row in kept.items() if not row["changed"] and row["mark"] != mark(row["files"], now)}
