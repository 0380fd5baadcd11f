"""The changes that are tried, as replacements of one expression or statement in the text of a file.

Left alone is what holds no logic: docstrings, annotations, messages of errors, decorators, and what is written down as data with
its source (`PAPER`, `recipes`, `variants`, the value in `sourced(value, where)`), which a test could only repeat.
"""

from __future__ import annotations

import ast
import copy
import random
from collections.abc import Iterator
from dataclasses import dataclass

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
_NAMES = {
    "min": "max", "max": "min", "any": "all", "all": "any", "floor": "ceil", "ceil": "floor", "argmax": "argmin",
    "argmin": "argmax", "sum": "mean", "mean": "sum", "zeros": "ones", "ones": "zeros", "round": "int", "first": "last",
    "train": "eval", "minimum": "maximum", "maximum": "minimum", "append": "remove", "cos": "sin", "sin": "cos",
}  # fmt: skip
#: f(x) where x alone is the same but for its type
_CONVERSIONS = {"float", "int", "str", "list", "tuple", "dict", "bool", "len", "asarray"}
#: options of a call that change nothing while all is well; None: **options
_FORM = {None, "strict", "encoding", "stacklevel", "where", "auto"}
#: where the order of arguments says nothing, or where a swap is only an error
_SYMMETRIC = {"max", "min", "maximum", "minimum", "isinstance", "issubclass", "allclose", "equal", "zip", "cast"}
_DATA = {"PAPER", "recipes", "variants", "KIND", "__all__"}
_TEXT = (ast.JoinedStr, ast.List, ast.Tuple)
#: in these a replaced operand needs brackets of its own
_BINDING = (
    ast.BinOp,
    ast.BoolOp,
    ast.UnaryOp,
    ast.Compare,
    ast.Attribute,
    ast.Subscript,
    ast.Call,
    ast.Starred,
    ast.IfExp,
)
_LOOSE = (ast.BinOp, ast.BoolOp, ast.UnaryOp, ast.Compare, ast.IfExp, ast.Lambda)


_NO_LOGIC = {"annotation", "returns", "decorator_list", "bases", "ctx", "op", "ops"}


@dataclass(frozen=True)
class Change:
    """line: of the file, from 1.  last: the last line of the statement.  before, after: what stands there, on one line.

    source: the whole file with the change.  everywhere: runs when the file is imported, so that every test may notice.
    """

    line: int
    last: int
    before: str
    after: str
    source: str
    everywhere: bool

    def __str__(self) -> str:
        return f"line {self.line}: {self.before}  ->  {self.after}"


def sample(source: str, number: int, seed: int) -> tuple[list[Change], int]:
    """`number` of all changes to a file, no two of one statement while there are others; and how many there are."""
    found = list(changes(source))
    random.Random(seed).shuffle(found)
    taken: dict[int, int] = {}
    ranked = []
    for order, change in enumerate(found):
        ranked.append((taken.setdefault(change.line, 0), order, change))
        taken[change.line] += 1
    chosen = [change for *_, change in sorted(ranked, key=lambda one: one[:2])[:number]]
    return sorted(chosen, key=lambda change: (change.line, change.after)), len(found)


def changes(source: str) -> Iterator[Change]:
    """All changes to a file, in its order; each still compiles, and none is the file as it was."""
    tree = ast.parse(source)
    lines = source.encode().splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    whole = source.encode()
    seen = {source}
    for node, parent, statement, inside in _nodes(tree):
        bottom = node.end_lineno or node.lineno
        first, end = starts[node.lineno - 1] + node.col_offset, starts[bottom - 1] + (node.end_col_offset or 0)
        for new in _replacements(node, parent):
            text = ast.unparse(new)
            if isinstance(parent, _BINDING) and isinstance(new, _LOOSE):
                text = f"({text})"
            changed = (whole[:first] + text.encode() + whole[end:]).decode()
            if changed in seen or not _compiles(changed):
                continue
            seen.add(changed)
            begun, stop = starts[node.lineno - 1], starts[bottom]
            yield Change(
                node.lineno,
                bottom if isinstance(statement, _COMPOUND) else statement.end_lineno or bottom,
                _one_line(whole[begun:stop]),
                _one_line(whole[begun:first] + text.encode() + whole[end:stop]),
                changed,
                everywhere=not inside,
            )


_COMPOUND = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _one_line(text: bytes) -> str:
    return " ".join(text.decode().split())


def _compiles(source: str) -> bool:
    try:
        compile(source, "changed", "exec")
    except SyntaxError:
        return False
    return True


def _nodes(tree: ast.Module) -> Iterator[tuple[ast.expr | ast.stmt, ast.AST, ast.stmt, bool]]:
    """Every node that may be changed, with its parent, its statement, and whether a function's body holds it."""

    def walk(node: ast.AST, parent: ast.AST, statement: ast.stmt, inside: bool) -> Iterator[tuple]:
        if isinstance(node, ast.stmt):
            statement = node
        if isinstance(node, (ast.Raise, ast.Assert, ast.JoinedStr, ast.Import, ast.ImportFrom)) or _is_data(node):
            return
        if isinstance(node, (ast.expr, ast.stmt)):
            yield node, parent, statement, inside
        for name, value in ast.iter_fields(node):
            if name in _NO_LOGIC or (isinstance(node, ast.keyword) and node.arg in _FORM - {None, "auto"}):
                continue
            if name == "orelse" and isinstance(node, ast.If) and _type_checking(node):
                continue
            within = inside or (name == "body" and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and not _is_docstring(child) and not _is_sourced(node, child):
                    yield from walk(child, node, statement, within)

    for statement in tree.body:
        if not (isinstance(statement, ast.If) and _type_checking(statement)) and not _is_docstring(statement):
            yield from walk(statement, tree, statement, False)


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_data(node: ast.AST) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return any(isinstance(target, ast.Name) and target.id in _DATA for target in targets)


def _is_sourced(node: ast.AST, child: ast.AST) -> bool:
    return isinstance(node, ast.Call) and _name(node.func) == "sourced" and child in node.args


def _type_checking(node: ast.If) -> bool:
    return _name(node.test) == "TYPE_CHECKING"


def _name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _replacements(node: ast.AST, parent: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        yield ast.Compare(node.left, [_COMPARISONS[type(node.ops[0])]()], node.comparators)
    elif isinstance(node, ast.BinOp) and not any(isinstance(part, _TEXT) for part in (node.left, node.right)):
        if type(node.op) in _ARITHMETIC:
            yield ast.BinOp(node.left, _ARITHMETIC[type(node.op)](), node.right)
        if isinstance(node.right, ast.Constant):  # x + 1, x * 2
            yield node.left
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
        for left_out in range(len(node.values)):
            rest = node.values[:left_out] + node.values[left_out + 1 :]
            yield ast.BoolOp(node.op, rest) if len(rest) > 1 else rest[0]
    elif isinstance(node, ast.UnaryOp) and not isinstance(node.op, ast.UAdd):
        yield node.operand
    elif isinstance(node, ast.Constant):
        yield from _other_constants(node, parent)
    elif isinstance(node, ast.Call) and _name(node.func) != "sourced":
        yield from _other_calls(node)
    elif isinstance(node, ast.Subscript):
        yield from _other_places(node)
    elif isinstance(node, ast.IfExp):
        yield ast.IfExp(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
    elif isinstance(node, ast.AugAssign) and type(node.op) in _ARITHMETIC:
        yield ast.AugAssign(node.target, _ARITHMETIC[type(node.op)](), node.value)
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield ast.Pass()
    elif isinstance(node, ast.Return) and node.value is not None and not _is_none(node.value):
        yield ast.Return(ast.Constant(None))
    elif isinstance(node, (ast.Break, ast.Continue)):
        yield ast.Continue() if isinstance(node, ast.Break) else ast.Break()
    if isinstance(parent, ast.If) and node is parent.test and not isinstance(node, (ast.Compare, ast.UnaryOp)):
        yield ast.UnaryOp(ast.Not(), node)
    if isinstance(parent, (ast.For, ast.comprehension)) and node is parent.iter:
        yield ast.Call(ast.Name("reversed"), [ast.Call(ast.Name("list"), [node], [])], [])


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _other_constants(node: ast.Constant, parent: ast.AST) -> Iterator[ast.AST]:
    value = node.value
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield ast.Constant(value + 1)
        if value == 1:
            yield ast.Constant(0)
    elif isinstance(value, float):
        yield ast.Constant(value * 2 if value else 1.0)


def _other_calls(node: ast.Call) -> Iterator[ast.AST]:
    name = _name(node.func)
    if name in _NAMES:
        called = copy.copy(node.func)
        if isinstance(called, ast.Name):
            called.id = _NAMES[name]
        elif isinstance(called, ast.Attribute):
            called.attr = _NAMES[name]
        yield ast.Call(called, node.args, node.keywords)
    if isinstance(node.func, ast.Attribute) and not node.args:  # x.detach(), x.softmax(dim=-1)
        yield node.func.value
    plain = [argument for argument in node.args if not isinstance(argument, ast.Starred)]
    if len(plain) == len(node.args) >= 1 and name not in _CONVERSIONS and _may_stand_for_a_call(plain[0]):
        yield plain[0]  # f(x) -> x
    if len(plain) == len(node.args) >= 2 and name not in _SYMMETRIC:
        first, second, *rest = plain
        if ast.dump(first) != ast.dump(second):
            yield ast.Call(node.func, [second, first, *rest], node.keywords)
    for left_out, keyword in enumerate(node.keywords):
        if keyword.arg not in _FORM:
            yield ast.Call(node.func, node.args, node.keywords[:left_out] + node.keywords[left_out + 1 :])
    if name == "sorted" and not any(keyword.arg == "reverse" for keyword in node.keywords):
        yield ast.Call(node.func, node.args, [*node.keywords, ast.keyword("reverse", ast.Constant(True))])


def _may_stand_for_a_call(argument: ast.AST) -> bool:
    return isinstance(argument, (ast.Name, ast.Attribute, ast.Call, ast.BinOp, ast.Subscript))


def _other_places(node: ast.Subscript) -> Iterator[ast.AST]:
    where = node.slice
    if ast.dump(where) == ast.dump(ast.parse("x[-1]", mode="eval").body.slice):  # type: ignore[attr-defined]
        yield ast.Subscript(node.value, ast.Constant(0))
    if isinstance(where, ast.Slice):
        for part in ("lower", "upper", "step"):
            if getattr(where, part) is not None:
                other = copy.copy(where)
                setattr(other, part, None)
                yield ast.Subscript(node.value, other)
