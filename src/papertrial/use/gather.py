"""From definitions spread over modules to one plain file: what a set of names needs, in order, as it was written.

Sources are read with `ast` and copied line by line, so that comments stay. Imports of the given packages disappear,
because what they bring is in the file; imports from elsewhere move to the top.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from papertrial.core.errors import Declined

#: (module, name) of a definition
Place = tuple[str, str]


@dataclass(frozen=True)
class Source:
    """A parsed module. definitions: top-level statements by the name they bind.  imported: name -> (module, name there), or
    (module, "") where the module itself is bound."""

    lines: list[str]
    definitions: dict[str, ast.stmt]
    imported: dict[str, Place]

    def text(self, node: ast.stmt) -> str:
        """The lines of a statement with its decorators and the comment right above it."""
        first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
        while first > 1 and self.lines[first - 2].startswith("#"):
            first -= 1
        return "\n".join(self.lines[first - 1 : node.end_lineno])


@cache
def source(module: str) -> Source:
    """Raises Declined for a module without source."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        raise Declined(f"the source of {module} is not at hand, so it cannot be written out")
    text = Path(spec.origin).read_text(encoding="utf-8")
    tree = ast.parse(text)
    package = module if spec.submodule_search_locations else module.rpartition(".")[0]
    definitions: dict[str, ast.stmt] = {}
    imported: dict[str, Place] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            definitions[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            definitions |= {
                name.id: node for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)
            }
        elif isinstance(node, ast.Import):
            for alias in node.names:
                bound = alias.asname or alias.name.partition(".")[0]
                imported[bound] = (alias.name if alias.asname else bound, "")
        elif isinstance(node, ast.ImportFrom):
            origin = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            imported |= {alias.asname or alias.name: (origin, alias.name) for alias in node.names}
    return Source(text.splitlines(), definitions, imported)


@dataclass
class Gathered:
    """Pieces by place, the modules that each module needs, and what is imported from elsewhere by the name it binds."""

    packages: tuple[str, ...]
    written: Mapping[Place, str]
    pieces: dict[Place, str] = field(default_factory=dict)
    needs: dict[str, dict[str, None]] = field(default_factory=dict)
    elsewhere: dict[str, Place] = field(default_factory=dict)

    def need(self, module: str, name: str) -> None:
        if (module, name) in self.pieces:
            return
        found = source(module)
        if name in found.imported:
            self._imported(module, name, *found.imported[name])
            return
        if name not in found.definitions:
            raise Declined(f"{module}.{name} is not defined in a plain statement, so it cannot be written out")
        text = self.written.get((module, name)) or found.text(found.definitions[name])
        self.pieces[module, name] = text
        self.needs.setdefault(module, {})
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):  # a field may have an import's name
                if node.id in found.definitions or node.id in found.imported:
                    self.need(module, node.id)
            elif isinstance(node, ast.ImportFrom) and self._ours(node.module or ""):
                raise Declined(f"{module}.{name} imports {node.module} when it is called, so it cannot be written out")

    def modules(self) -> list[str]:
        """Each after those it needs."""
        order: dict[str, None] = {}

        def visit(module: str) -> None:
            for needed in self.needs[module]:
                visit(needed)
            order[module] = None

        for module in self.needs:
            visit(module)
        return list(order)

    def _imported(self, module: str, bound: str, origin: str, name: str) -> None:
        if not self._ours(origin):
            if self.elsewhere.setdefault(bound, (origin, name)) != (origin, name):
                raise Declined(
                    f"{bound!r} is two different imports in {module} and elsewhere; one file cannot hold both"
                )
        elif bound != name:
            raise Declined(f"{module} imports {origin} under another name ({bound}), so it cannot be written out")
        else:
            self.needs.setdefault(module, {})[origin] = None
            self.need(origin, name)

    def _ours(self, module: str) -> bool:
        return module.partition(".")[0] in self.packages


def gather(roots: Sequence[Place], packages: Sequence[str], written: Mapping[Place, str]) -> tuple[str, str]:
    """The imports and the definitions that `roots` need, as two texts.

    packages: whose modules are written out instead of imported.  written: definitions given instead of copied.
    Raises Declined when two definitions share a name, or one cannot be followed.
    """
    found = Gathered(tuple(packages), written)
    for root in roots:
        found.need(*root)
    owners: dict[str, str] = dict.fromkeys(found.elsewhere, "an import")
    for module, name in found.pieces:
        if name in owners:
            raise Declined(f"{name!r} is defined in {module} and by {owners[name]}; one file cannot hold both")
        owners[name] = module
    return _imports(found.elsewhere), "\n\n\n".join(_section(found, module) for module in found.modules())


def _section(found: Gathered, module: str) -> str:
    """The pieces of one module in the order of its file; a statement that binds several names is there once."""
    lines = source(module).definitions
    names = sorted((name for place, name in found.pieces if place == module), key=lambda name: lines[name].lineno)
    texts = dict.fromkeys(found.pieces[module, name] for name in names)
    return "\n\n\n".join([f"# from {module}", *texts])


def _imports(elsewhere: Mapping[str, Place]) -> str:
    """Standard library first, then the rest; `import x` before `from x import y`."""
    whole: list[tuple[str, str]] = []
    parts: dict[str, list[str]] = {}
    for bound, (module, name) in elsewhere.items():
        if name:
            parts.setdefault(module, []).append(name if name == bound else f"{name} as {bound}")
        else:
            whole.append((module, f"import {module}" + (f" as {bound}" if bound != module else "")))
    lines: dict[bool, list[str]] = {False: [], True: []}
    for module, line in sorted(whole):
        lines[module.partition(".")[0] not in sys.stdlib_module_names].append(line)
    for module, names in sorted(parts.items()):
        if module != "__future__":
            line = f"from {module} import {', '.join(sorted(names))}"
            lines[module.partition(".")[0] not in sys.stdlib_module_names].append(line)
    return "\n\n".join("\n".join(group) for group in lines.values() if group)


def settled(text: str, values: Mapping[str, Any]) -> str:
    """The source of a function of `config` without the branches that its values do not take.

    values: by the name of a field. What is decided are `config.name` and `not config.name`, and no `elif`.
    """
    while True:
        tree = ast.parse(text)
        for parent in ast.walk(tree):
            for node in ast.iter_child_nodes(parent):
                if isinstance(node, ast.If | ast.IfExp) and (holds := _truth(node.test, values)) is not None:
                    decided = _without_branch(text, node, holds, parent)
                    if decided is not None:
                        text = decided
                        break
            else:
                continue
            break
        else:
            return text


def _truth(test: ast.expr, values: Mapping[str, Any]) -> bool | None:
    """Whether a condition holds; None where the values do not tell."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        inner = _truth(test.operand, values)
        return None if inner is None else not inner
    if isinstance(test, ast.Attribute) and isinstance(test.value, ast.Name) and test.value.id == "config":
        return bool(values[test.attr]) if test.attr in values else None
    return None


def _without_branch(text: str, node: ast.If | ast.IfExp, holds: bool, parent: ast.AST) -> str | None:
    """The text with the branch that is taken in the place of the whole; None for an `elif`."""
    lines = text.splitlines()
    if isinstance(node, ast.IfExp):
        taken = ast.get_source_segment(text, node.body if holds else node.orelse) or ""
        first, last = lines[node.lineno - 1], lines[(node.end_lineno or 0) - 1]
        joined = first[: node.col_offset] + taken + last[node.end_col_offset :]
        return "\n".join([*lines[: node.lineno - 1], joined, *lines[node.end_lineno :]])
    if lines[node.lineno - 1].lstrip().startswith("elif"):
        return None
    branch = node.body if holds else node.orelse
    kept: list[str] = []
    if branch:
        deeper = branch[0].col_offset - node.col_offset
        kept = [line[deeper:] for line in lines[branch[0].lineno - 1 : branch[-1].end_lineno]]
        kept[0] = kept[0].replace("elif ", "if ", 1) if kept[0].lstrip().startswith("elif ") else kept[0]
    end = node.end_lineno or 0
    if branch and isinstance(branch[-1], ast.Return) and node in getattr(parent, "body", []):
        end = parent.body[-1].end_lineno  # type: ignore[attr-defined]  # nothing behind it is reached
    return "\n".join([*lines[: node.lineno - 1], *kept, *lines[end:]])
