"""How values are written: atoms, sequences, selectors as tables, and the lines the prompt shows for a result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from papertrial.papers.rasp.syntax import RaspError

if TYPE_CHECKING:
    from papertrial.papers.rasp.language import Session

NAME = 30  # letters of the longest name made from an expression; longer ones say what the value is


def atom(value: Any) -> str:
    """An atom as it is typed in."""
    return f'"{value}"' if isinstance(value, str) else str(value)


def brief(value: Any) -> str:
    """A value inside of a name; lists and dicts that are long are not written out."""
    if isinstance(value, list | dict):
        text = str(value)
        return text if len(text) <= NAME - 10 else f"({type(value).__name__})"
    return atom(value)


def item(value: Any) -> str:
    """An atom inside of a sequence: T and F for booleans, three decimals, strings without quotes."""
    if isinstance(value, bool):
        return "T" if value else "F"
    return str(round(value, 3)) if isinstance(value, float) else str(value)


def sequence(values: Any) -> str:
    """`[2, 1, 1] (ints)`, and `[3]*5 (ints)` when all are equal."""
    same = len(values) > 1 and all(value == values[0] for value in values)
    inside = f"[{item(values[0])}]*{len(values)}" if same else f"[{', '.join(map(item, values))}]"
    return f"{inside} ({values.kind}s)"


def table(matrix: Any, tokens: Any, indent: str = "") -> list[str]:
    """The matrix of a selector: a row for each query, a column for each key, 1 where it looks."""
    names = [str(token) for token in tokens]
    lines = [f"{indent}     {' '.join(names)}".replace("\n", " ")]
    for name, row in zip(names, matrix, strict=True):
        cells = " ".join(("1" if here else " ").rjust(len(key)) for key, here in zip(names, row, strict=True))
        lines.append(f"{indent} {name} | {cells}")
    return lines


def aligned(values: Any) -> list[str]:
    """`input:` and `output:` below each other; of booleans only the rarer ones are written."""
    rows = [_cells(values.tokens), _cells(values)]
    width = max(len(cell) for row in rows for cell in row)
    kinds = (f"({_kind(values.tokens)}s)", f"({values.kind}s)")
    return [
        f" \t\t{label} {' '.join(cell.rjust(width) for cell in row)} \t {kind}"
        for label, row, kind in zip(("input:  ", "output: "), rows, kinds, strict=True)
    ]


def _cells(values: list[Any]) -> list[str]:
    if isinstance(values[0], bool):
        trues = sum(map(bool, values))
        true, false = "T" if 2 * trues <= len(values) else "", "F" if 2 * trues >= len(values) else ""
        return [true if value else false for value in values]
    return [str(value) for value in values]


def _kind(tokens: list[Any]) -> str:
    kinds = {type(token) for token in tokens}
    return {"str": "string"}.get(name := kinds.pop().__name__, name) if len(kinds) == 1 else "float"


def result(name: str, value: Any, session: Session, indent: str = "", prefix: str = "") -> list[str]:
    """The lines of one result. name: what it is called, empty for a plain result."""
    from papertrial.papers.rasp.language import Function, Pattern, Program, Sequence
    from papertrial.papers.rasp.layers import Drawing

    if isinstance(value, Drawing):
        return list(value.lines)
    if isinstance(value, Pattern) and not name:
        return ["\t = ", *table(value.matrix, value.tokens, " \t\t\t")]
    if isinstance(value, Sequence) and not name:
        return _full("\t = ", value) if session.full else [f"\t =  {sequence(value)}"]
    head = f"{indent} {prefix} "
    if isinstance(value, Program):
        return [
            f"{head}   {'selector' if value.node.selects else 's-op'}: {name}",
            *_example(name, value, session, indent),
        ]
    if isinstance(value, Function):
        return [f"{head}   {value.scope.file} function: {value.name}({', '.join(value.arguments)})"]
    called = f"{name} = " if name else ""
    if isinstance(value, list | dict):
        return _container(value, f"{head}   {type(value).__name__}: {called}", session, indent)
    return [f"{head}   value: {called} {atom(value)}"]


def _example(name: str, program: Any, session: Session, indent: str) -> list[str]:
    kind = "selector" if program.node.selects else "s-op"
    if not session.shown[kind]:
        return []
    example = session.examples[kind]
    try:
        values = program(example)
    except RaspError as error:  # the program may be meant for another input
        return [f"{indent} \t Example: {name} fails on {atom(example)}", *error.page().splitlines()]
    if kind == "selector":
        return [f"{indent} \t Example:", *table(values.matrix, values.tokens, f"{indent} \t\t\t")]
    if session.full:
        called = f"{name}({atom(example)}) = " if all(value == values[0] for value in values) else ""
        return _full(f"{indent} \t Example: {called}", values)
    return [f"{indent} \t Example: {name}({atom(example)}) = {sequence(values)}"]


def _full(head: str, values: Any) -> list[str]:
    """A sequence below its input, unless one value says it all."""
    if all(value == values[0] for value in values):
        return [f"{head}{sequence(values)} [skipped full display: identical values]"]
    return [head.rstrip(" ") if head.strip() != "=" else head, *aligned(values)]


def _container(value: Any, head: str, session: Session, indent: str) -> list[str]:
    from papertrial.papers.rasp.language import Program

    inner = value.values() if isinstance(value, dict) else value
    if not any(isinstance(entry, list | dict | Program) for entry in inner):
        return [f"{head}{value}"]
    pairs = value.items() if isinstance(value, dict) else [(None, entry) for entry in value]
    lines = [head + ("{" if isinstance(value, dict) else "[")]
    for key, entry in pairs:
        prefix = f"{atom(key)} : " if isinstance(value, dict) else ""
        name = entry.name if isinstance(entry, Program) else ""
        lines += result(name, entry, session, f"{indent}\t\t\t", prefix)
    return [*lines, " " * 17 + ("}" if isinstance(value, dict) else "]")]
