"""The language: names, functions, lists, loops; statements in, lines of text out.

A `Session` holds what was defined and the example on which results are shown. The library (`library.rasp`) is there
from the start and its names are reserved; the paper's programs (`programs.rasp`) are there too and may be redefined.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from papertrial.core.errors import did_you_mean
from papertrial.papers.rasp import formatting, layers
from papertrial.papers.rasp.graph import EVERYWHERE, INPUTS, MAPS, Node, constant, make, restricted
from papertrial.papers.rasp.run import Run, kind_of
from papertrial.papers.rasp.syntax import Ast, RaspError, Source, Span, parse, read

FOLDER = Path(__file__).parent
BUILTINS = ("aggregate", "round", "indicator", "range", "zip", "len", "enumerate", "draw", "restrict")
_RESERVED = {"if", "else", "not", "and", "or", "out", "def", "return", "for", "in", "get", "select", "True", "False"}
_LONGEST_RANGE = 1_000_000
_ATOMS = (bool, int, float, str)


@dataclass(frozen=True)
class Program:
    """An s-op or a selector with the name it is shown by."""

    node: Node
    name: str

    def __call__(self, tokens: Any) -> Any:
        """Its values on a string or a list of atoms: a `Sequence`, or a `Pattern` for a selector."""
        values = Run(tokens)(self.node)
        return Pattern(values, list(tokens)) if self.node.selects else Sequence(values, list(tokens))


class Sequence(list[Any]):
    """The values of an s-op on an input: a list that knows its type and the input."""

    def __init__(self, values: Any, tokens: list[Any]) -> None:
        super().__init__(values.tolist())
        self.kind, self.tokens = kind_of(values), tokens


@dataclass(frozen=True)
class Pattern:
    """The matrix of a selector on an input, one row for each query."""

    matrix: Any
    tokens: list[Any]


@dataclass(frozen=True)
class Function:
    """A `def` with the names it was written among."""

    name: str
    arguments: tuple[str, ...]
    body: tuple[Ast, ...]
    values: tuple[Ast, ...]
    scope: Scope


class Scope:
    """Names and values, looked up outwards. fixed: names that the texts of this scope cannot set (their functions can)."""

    def __init__(self, outer: Scope | None = None, file: str = "console") -> None:
        self.values: dict[str, Any] = {}
        self.fixed: set[str] = set()
        self.outer, self.file = outer, file

    def chain(self) -> Iterator[Scope]:
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.outer

    def get(self, name: str, where: Span) -> Any:
        for scope in self.chain():
            if name in scope.values:
                return scope.values[name]
        hint = did_you_mean(name, {key for scope in self.chain() for key in scope.values})
        raise RaspError(f"{name} is not defined", where, hint if hint.startswith("did") else "")

    def put(self, name: str, value: Any, where: Span | None = None) -> None:
        if name in _RESERVED or name in BUILTINS or (self.outer and name in self.outer.fixed):
            raise RaspError(f"{name} is a reserved name and cannot be set", where)
        self.values[name] = value


class Session:
    """An interpreter with what it was told so far.

    example: input on which results are shown; selectors may have another.  base: what every text starts from, the
    library and the programs when left out.  folder: where `load` looks first.
    """

    def __init__(self, example: Any = "hello", base: Scope | None = None) -> None:
        self.base = base or _library()
        self.top = Scope(self.base)
        self.examples = {"s-op": example, "selector": example}
        self.shown = {"s-op": True, "selector": True}
        self.full = False
        self.ended = False
        self.folder = Path()
        self.loading: list[Path] = []
        self.loaded: list[tuple[str, Any]] = []  # what a file showed before its error
        self.report: Callable[[RaspError], None] | None = None
        if base is None:
            self.run(_packaged("programs.rasp"), into=self.top)

    # whole texts

    def run(
        self,
        source: Source,
        into: Scope | None = None,
        report: Callable[[RaspError], None] | None = None,
        found: list[tuple[str, Any]] | None = None,
    ) -> list[tuple[str, Any]]:
        """Run every statement; what there is to show, as (name, value) with no name for plain results.

        into: a file's statements run in a scope of their own, and what they define goes there, without what begins
        with an underscore.  report: takes each error and the run goes on; without it the first is raised.  found: a list
        that takes the results as they come, for those before an error.
        """
        self.report = report
        scope = self.top if into is None else Scope(self.base, str(Path(source.name).with_suffix("")))
        found = [] if found is None else found
        for statement in read(source):
            try:
                found += self.guarded(self.statement, statement, scope)
            except RaspError as error:
                found += self.loaded
                self.loaded = []
                if report is None:
                    raise
                report(error)
            if self.ended:
                break
        if into is not None:
            into.values.update({name: value for name, value in scope.values.items() if _public(name)})
            found = [(name, value) for name, value in found if _public(name) or isinstance(value, layers.Drawing)]
        return found

    def evaluate(self, text: str) -> Any:
        """The value of one expression, such as `reverse`, `reverse("abc")` or `selector_width(select(tokens, "a", ==))`."""
        statements = parse(Source(f"{text.strip().rstrip(';')};"))
        if len(statements) != 1 or statements[0].form != "expression":
            raise RaspError(f"{text!r} is not one expression", statements[0].where if statements else None)
        return self.guarded(self.value, statements[0].parts[0], self.top)

    def guarded(self, f: Callable[[Ast, Scope], Any], ast: Ast, scope: Scope) -> Any:
        try:
            return f(ast, scope)
        except RecursionError:
            problem = "this is nested too deeply, or a function calls itself, which RASP does not have"
            raise RaspError(problem, ast.where) from None

    def describe(self, name: str, value: Any) -> list[str]:
        """The lines that show a result, with what it is on the example."""
        try:
            return formatting.result(name, value, self)
        except ValueError as error:  # a number with too many digits to be written
            raise RaspError(str(error)) from None

    # statements

    def statement(self, ast: Ast, scope: Scope) -> list[tuple[str, Any]]:
        form, parts = ast.form, ast.parts
        if form == "expression":
            value = self.value(parts[0], scope)
            name = parts[0].parts[0] if parts[0].form == "name" else "out"
            if isinstance(value, Sequence | Pattern | layers.Drawing):
                return [("", value)]
            scope.values["out"] = value
            return [(name, value)]
        if form == "assign":
            return self.assign(ast, scope)
        if form == "define":
            name, arguments, body, values = parts
            made = Function(name.text, tuple(token.text for token in arguments), body, values, scope)
            scope.put(name.text, made, name.where)
            return [(name.text, made)]
        if form == "loop":
            names, iterable, body = parts
            for item in self.items(iterable, scope):
                self.unpack(names, item, scope)
                for inner in body:
                    self.statement(inner, scope)
            return []
        if form == "load":
            return self.load(ast, scope)
        return self.command(form, parts, scope)

    def assign(self, ast: Ast, scope: Scope) -> list[tuple[str, Any]]:
        names, expressions = ast.parts
        values = [self.value(expression, scope) for expression in expressions]
        if len(values) == 1 and len(names) > 1:
            values = values[0] if isinstance(values[0], list) else values
        elif len(names) == 1 and len(values) > 1:
            values = [values]
        if len(names) != len(values):
            raise RaspError(f"{len(names)} names but {len(values)} values", ast.where)
        out = []
        for token, value in zip(names, values, strict=True):
            value = Program(value.node, token.text) if isinstance(value, Program) else value
            scope.put(token.text, value, token.where)
            out.append((token.text, value))
        return out

    def load(self, ast: Ast, scope: Scope) -> list[tuple[str, Any]]:
        name = ast.parts[0]
        for folder in (self.folder, Path(), FOLDER):
            file = folder / f"{name}.rasp"
            if file.is_file():
                break
        else:
            raise RaspError(f"there is no file {name}.rasp", ast.where, "write the path without its ending .rasp")
        try:
            source = Source(file.read_text(encoding="utf-8"), str(file))
        except (OSError, UnicodeDecodeError) as error:
            raise RaspError(f"{file} cannot be read ({error})", ast.where) from None
        if file.resolve() in self.loading:
            raise RaspError(f"{name}.rasp loads itself", ast.where)
        self.loading.append(file.resolve())
        results: list[tuple[str, Any]] = []
        try:
            shown = self.run(source, into=scope, report=self.report, found=results)
        except RaspError:
            self.loaded = self.as_shown(results)
            raise
        finally:
            self.loading.pop()
        return self.as_shown(shown)

    def as_shown(self, results: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        """The results of a file as one drawing, the last of each name, without examples."""
        results = [(name, value) for name, value in results if _public(name) or isinstance(value, layers.Drawing)]
        last: dict[Any, tuple[str, Any]] = {}
        for place, (key, value) in enumerate(results):
            last.pop(key, None)
            last[key or place] = key, value
        shown, self.shown = self.shown, dict.fromkeys(self.shown, False)
        lines = [line for key, value in last.values() for line in self.describe(key, value)]
        self.shown = shown
        return [("", layers.Drawing(tuple(lines)))]

    def command(self, form: str, parts: tuple[Any, ...], scope: Scope) -> list[tuple[str, Any]]:
        if form == "exit":
            self.ended = True
            return []
        which = ("s-op", "selector") if parts[0] == "both" else (parts[0],)
        if form == "set example":
            example = self.value(parts[1], scope)
            if not isinstance(example, str | list) or not example:
                raise RaspError("an example is a string or a list of atoms, and not empty", parts[1].where)
            self.examples.update(dict.fromkeys(which, example))
        elif form == "examples":
            self.shown.update(dict.fromkeys(which, parts[1]))
        elif form == "full seq display":
            self.full = parts[1]
        else:
            return [
                (
                    "",
                    layers.Drawing(
                        tuple(f"\t{kind} example: {formatting.atom(self.examples[kind])}" for kind in which)
                    ),
                )
            ]
        return []

    # expressions

    def value(self, ast: Ast, scope: Scope) -> Any:
        return getattr(self, "_" + ast.form.replace(" ", "_"))(ast, scope)

    def _atom(self, ast: Ast, scope: Scope) -> Any:
        return ast.parts[0]

    def _name(self, ast: Ast, scope: Scope) -> Any:
        return scope.get(ast.parts[0], ast.where)

    def _unary(self, ast: Ast, scope: Scope) -> Any:
        sign, value = ast.parts[0], self.value(ast.parts[1], scope)
        if _is_selector(value) and sign == "not":
            return Program(make("neither", "", (value.node,), where=ast.where), "plain select")
        return _mapped({"-": "negative", "+": "positive"}.get(sign, sign), ast.where, value, shown=f"( {sign} {{}} )")

    def _binary(self, ast: Ast, scope: Scope) -> Any:
        sign, left, right = ast.parts
        return _mapped(
            sign, ast.where, self.value(left, scope), self.value(right, scope), shown=f"( {{}} {sign} {{}} )"
        )

    def _and(self, ast: Ast, scope: Scope) -> Any:
        sign = ast.parts[0]
        left, right = self.value(ast.parts[1], scope), self.value(ast.parts[2], scope)
        if _is_selector(left) and _is_selector(right):
            kind = "both" if sign == "and" else "either"
            return Program(make(kind, "", (left.node, right.node), where=ast.where), "plain select")
        if _is_selector(left) or _is_selector(right):
            raise RaspError(f"{sign!r} joins two selectors or two s-ops, not one of each", ast.where)
        if not isinstance(left, Program) and not isinstance(right, Program):
            return (left and right) if sign == "and" else (left or right)
        return _mapped(sign, ast.where, left, right, shown=f"( {{}} {sign} {{}} )")

    _or = _and

    def _choice(self, ast: Ast, scope: Scope) -> Any:
        left, condition, right = ast.parts
        chosen = self.value(condition, scope)
        if not isinstance(chosen, Program):
            return self.value(left if chosen else right, scope)
        values = self.value(left, scope), chosen, self.value(right, scope)
        return _mapped("choice", ast.where, *values, shown="{} if {} else {}")

    def _in(self, ast: Ast, scope: Scope) -> Any:
        sought, container = self.value(ast.parts[1], scope), self.value(ast.parts[2], scope)
        if _is_selector(sought) or _is_selector(container):
            raise RaspError("'in' looks for atoms, not in or for selectors", ast.where)
        if isinstance(container, list | dict) and isinstance(sought, Program):
            if not all(isinstance(item, _ATOMS) for item in container):
                raise RaspError("an s-op is looked for in a list of atoms", ast.parts[2].where)
            node = make("map", "in", (sought.node,), tuple(container), ast.where)
            return _program(node, f"{sought.name} in {_short(container)}")
        if isinstance(container, list | dict):
            return sought in container
        if isinstance(container, Program) and isinstance(sought, _ATOMS):
            equal = make("map", "indicator", (make("map", "==", (container.node, constant(sought)), where=ast.where),))
            share = make("aggregate", "", (EVERYWHERE, equal), where=ast.where)
            return _program(
                make("map", ">", (share, constant(0)), where=ast.where), f"{_short(sought)} in {container.name}"
            )
        raise RaspError("'in' looks for an atom in a list or an s-op, or for an s-op in a list of atoms", ast.where)

    def _select(self, ast: Ast, scope: Scope) -> Program:
        sign, keys, queries = ast.parts
        sides = tuple(_node(self.value(side, scope), side.where) for side in (keys, queries))
        return Program(make("select", sign, sides, where=ast.where), "plain select")

    def _list(self, ast: Ast, scope: Scope) -> list[Any]:
        return [self.value(item, scope) for item in ast.parts[0]]

    def _dict(self, ast: Ast, scope: Scope) -> dict[Any, Any]:
        return {self.key(key, scope): self.value(value, scope) for key, value in ast.parts[0]}

    def _list_of(self, ast: Ast, scope: Scope) -> list[Any]:
        value, names, iterable = ast.parts
        return [self.value(value, inner) for inner in self.each(names, iterable, scope)]

    def _dict_of(self, ast: Ast, scope: Scope) -> dict[Any, Any]:
        (key, value), names, iterable = ast.parts
        return {self.key(key, inner): self.value(value, inner) for inner in self.each(names, iterable, scope)}

    def each(self, names: Any, iterable: Ast, scope: Scope) -> Iterator[Scope]:
        for item in self.items(iterable, scope):
            inner = Scope(scope, scope.file)
            self.unpack(names, item, inner)
            yield inner

    def items(self, ast: Ast, scope: Scope) -> list[Any]:
        found = self.value(ast, scope)
        if not isinstance(found, list | dict):
            raise RaspError(f"a loop goes over a list or a dict, not {_kind(found)}", ast.where)
        return list(found)

    def unpack(self, names: Any, item: Any, scope: Scope) -> None:
        parts = [item] if len(names) == 1 else item
        if not isinstance(parts, list | str) or len(parts) != len(names):
            raise RaspError(f"{len(names)} names for {_short(item)}", names[0].where.to(names[-1].where))
        for token, part in zip(names, parts, strict=True):
            scope.put(token.text, part, token.where)

    def key(self, ast: Ast, scope: Scope) -> Any:
        key = self.value(ast, scope)
        if not isinstance(key, _ATOMS):
            raise RaspError(f"the keys of a dict are atoms, not {_kind(key)}", ast.where)
        return key

    def _item(self, ast: Ast, scope: Scope) -> Any:
        container, index = self.value(ast.parts[0], scope), self.value(ast.parts[1], scope)
        if isinstance(container, Program) and not container.node.selects:
            return self.position(container, index, ast)
        if not isinstance(container, list | dict | str):
            raise RaspError(f"{_kind(container)} has no items", ast.where)
        if isinstance(index, Program):
            detail = dict(container) if isinstance(container, dict) else tuple(container)
            node = make("map", "item", (_node(index, ast.parts[1].where),), detail, ast.where)
            return _program(node, f"{_short(container)}[{index.name}]")
        wanted = _ATOMS if isinstance(container, dict) else (int,)
        if not isinstance(index, wanted):
            raise RaspError(f"the index of {_kind(container)} is {_short(index)}", ast.parts[1].where)
        return _plain(operator.getitem, ast.where, container, index)

    def position(self, values: Program, index: Any, ast: Ast) -> Program:
        """`tokens[0]` or `tokens[-1]`: the value at one position, at every position."""
        if not isinstance(index, int):
            raise RaspError("the index of an s-op is a whole number", ast.parts[1].where)
        target = constant(index)
        if index < 0:
            length = self.base.values["length"].node
            target = make("map", "+", (length, target), where=ast.where)
        selector = make("select", "==", (INPUTS["indices"], target), where=ast.where)
        return _program(make("aggregate", "", (selector, values.node), where=ast.where), f"{values.name}[{index}]")

    # calls

    def _call(self, ast: Ast, scope: Scope) -> Any:
        called, expressions = ast.parts
        if called.form == "name" and called.parts[0] in BUILTINS:
            arguments = [self.value(expression, scope) for expression in expressions]
            return getattr(self, "_call_" + called.parts[0])(arguments, ast)
        function = self.value(called, scope)
        arguments = [self.value(expression, scope) for expression in expressions]
        if isinstance(function, Program):
            if len(arguments) != 1 or not isinstance(arguments[0], str | list | dict):
                raise RaspError(f"{function.name} runs on one input, a string or a list of atoms", ast.where)
            try:
                return function(arguments[0])
            except RaspError as error:  # what is wrong with the input has no place of its own
                raise RaspError(error.problem, error.where or ast.where, error.fix) from None
        if not isinstance(function, Function):
            raise RaspError(f"{_kind(function)} cannot be called", called.where)
        if len(arguments) != len(function.arguments):
            raise RaspError(
                f"{function.name} takes {len(function.arguments)} arguments ({', '.join(function.arguments)}) "
                f"and got {len(arguments)}",
                ast.where,
            )
        inner = Scope(function.scope, function.scope.file)
        for name, value in zip(function.arguments, arguments, strict=True):
            inner.put(name, value, ast.where)
        for statement in function.body:
            self.statement(statement, inner)
        values = [self.value(expression, inner) for expression in function.values]
        shown = f"{function.name}({' , '.join(_short(argument) for argument in arguments)})"
        if len(values) > 1:
            return values
        return _program(values[0].node, shown) if isinstance(values[0], Program) else values[0]

    def _call_aggregate(self, arguments: list[Any], ast: Ast) -> Program:
        _count(arguments, (2, 3), ast)
        selector, default = arguments[0], (*arguments, None)[2]
        if not _is_selector(selector):
            raise RaspError(f"aggregate takes a selector first, not {_kind(selector)}", ast.parts[1][0].where)
        if default is not None and not isinstance(default, _ATOMS):
            raise RaspError(f"the default of aggregate is an atom, not {_kind(default)}", ast.parts[1][2].where)
        values = _node(arguments[1], ast.parts[1][1].where)
        return Program(make("aggregate", "", (selector.node, values), default, ast.where), "s-op")

    def _call_round(self, arguments: list[Any], ast: Ast) -> Any:
        _count(arguments, (1,), ast)
        return _mapped("round", ast.where, arguments[0], shown="( round {} )")

    def _call_indicator(self, arguments: list[Any], ast: Ast) -> Any:
        _count(arguments, (1,), ast)
        if not isinstance(arguments[0], Program):
            raise RaspError(f"indicator takes an s-op, not {_kind(arguments[0])}", ast.parts[1][0].where)
        return _mapped("indicator", ast.where, arguments[0], shown="I({})")

    def _call_range(self, arguments: list[Any], ast: Ast) -> list[int]:
        _count(arguments, (1, 2, 3), ast)
        found = _plain(range, ast.where, *arguments)
        if len(found) > _LONGEST_RANGE:
            raise RaspError(f"this range has {len(found):,} numbers, and the longest has {_LONGEST_RANGE:,}", ast.where)
        return list(found)

    def _call_len(self, arguments: list[Any], ast: Ast) -> int:
        _count(arguments, (1,), ast)
        _lists(arguments, ast)
        return len(arguments[0])

    def _call_enumerate(self, arguments: list[Any], ast: Ast) -> list[Any]:
        _count(arguments, (1,), ast)
        _lists(arguments, ast)
        return [[place, item] for place, item in enumerate(arguments[0])]

    def _call_zip(self, arguments: list[Any], ast: Ast) -> list[Any]:
        _lists(arguments, ast)
        lengths = {len(argument) for argument in arguments}
        if len(lengths) != 1:
            raise RaspError("zip takes lists of one length", ast.where)
        return [list(items) for items in zip(*arguments, strict=True)]

    def _call_restrict(self, arguments: list[Any], ast: Ast) -> Program:
        _count(arguments, (2,), ast)
        program, region = arguments
        if not isinstance(program, Program):
            raise RaspError(f"restrict takes an s-op or a selector, not {_kind(program)}", ast.parts[1][0].where)
        if not _is_selector(region):
            raise RaspError(f"a region is a selector, not {_kind(region)}", ast.parts[1][1].where)
        try:
            node = restricted(program.node, region.node)
        except RaspError as error:
            raise RaspError(error.problem, ast.parts[1][1].where, error.fix) from None
        return _program(node, f"restrict({program.name} , {region.name})")

    def _call_draw(self, arguments: list[Any], ast: Ast) -> layers.Drawing:
        _count(arguments, (1, 2), ast)
        drawn = arguments[0]
        if not isinstance(drawn, Program):
            raise RaspError(f"draw takes an s-op or a selector, not {_kind(drawn)}", ast.parts[1][0].where)
        which = "selector" if drawn.node.selects else "s-op"
        return layers.draw(drawn.node, drawn.name, arguments[1] if len(arguments) == 2 else self.examples[which])


def _packaged(name: str) -> Source:
    return Source((FOLDER / name).read_text(encoding="utf-8"), name)


@cache
def _library() -> Scope:
    """The scope every text starts from: inputs, constants and the library, none of which can be set."""
    scope = Scope(file="library")
    scope.values = {"True": True, "False": False, **{name: Program(node, name) for name, node in INPUTS.items()}}
    scope.values["full_s"] = Program(EVERYWHERE, "full_s")
    session = Session(base=scope)
    for statement in parse(_packaged("library.rasp")):
        session.statement(statement, scope)
    scope.fixed = set(scope.values)
    scope.values["tokens"] = Program(INPUTS["tokens_str"], "tokens")
    return scope


def _public(name: str) -> bool:
    return name not in ("", "out") and not name.startswith("_")


def _is_selector(value: Any) -> bool:
    return isinstance(value, Program) and value.node.selects


def _node(value: Any, where: Span) -> Node:
    """The node of an s-op, or of the same atom everywhere."""
    if isinstance(value, Program) and not value.node.selects:
        return value.node
    if isinstance(value, _ATOMS):
        return constant(value)
    raise RaspError(f"expected an s-op or an atom, not {_kind(value)}", where)


def _mapped(f: str, where: Span, *values: Any, shown: str) -> Any:
    """An element-wise operation: a program when an argument is one, otherwise the plain value."""
    if any(_is_selector(value) for value in values):
        raise RaspError(f"{f!r} applies to s-ops, not to selectors", where)
    if not any(isinstance(value, Program) for value in values):
        return _plain(MAPS[f], where, *values)
    return _program(
        make("map", f, tuple(_node(value, where) for value in values), where=where), shown.format(*map(_short, values))
    )


def _plain(f: Callable[..., Any], where: Span, *values: Any) -> Any:
    try:
        return f(*values)
    except KeyError:
        raise RaspError(f"{_short(values[1])} is no key of the dict", where) from None
    except (TypeError, ValueError, ArithmeticError, IndexError) as error:
        raise RaspError(str(error), where) from None


def _program(node: Node, name: str) -> Program:
    return Program(node, name if len(name) <= formatting.NAME else "plain select" if node.selects else "s-op")


def _count(arguments: list[Any], allowed: tuple[int, ...], ast: Ast) -> None:
    if len(arguments) not in allowed:
        wanted = " or ".join(map(str, allowed))
        raise RaspError(f"{ast.parts[0].parts[0]} takes {wanted} arguments, not {len(arguments)}", ast.where)


def _lists(arguments: list[Any], ast: Ast) -> None:
    for argument, expression in zip(arguments, ast.parts[1], strict=True):
        if not isinstance(argument, list):
            raise RaspError(f"{ast.parts[0].parts[0]} takes lists, not {_kind(argument)}", expression.where)


def _short(value: Any) -> str:
    return value.name if isinstance(value, Program) else formatting.brief(value)


def _kind(value: Any) -> str:
    if isinstance(value, Program):
        return "a selector" if value.node.selects else "an s-op"
    return {list: "a list", dict: "a dict", Function: "a function", str: "a string"}.get(
        type(value), f"the value {value!r}"
    )
