"""From text to statements: a lexer and a parser by recursive descent, with the place in the text of everything.

The grammar is the authors'. Two of its habits surprise: all binary operators group to the left, `a if c else b` among
them, and `not` binds tighter than any of them, so that `not a == b` is `(not a) == b`. From tight to loose:

    f(x)  x[i]      not - +      ^      * /      %      + -      == != < > <= >=      and or      if else      in
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from papertrial.core.errors import PapertrialError

COMPARISONS = ("==", "!=", "<", ">", "<=", ">=")
KEYWORDS = ("if", "else", "not", "and", "or", "def", "return", "for", "in")
_UNARY = 7
_LEVELS = {
    "^": 6, "*": 5, "/": 5, "%": 4, "+": 3, "-": 3, **dict.fromkeys(COMPARISONS, 2), "and": 1, "or": 1, "if": 0, "in": -1,
}  # fmt: skip
_LOOSEST = -1
_AROUND = 100  # letters of a line shown before and behind the place of an error
_READ: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "string": lambda text: text[1:-1]}
_TOKEN = re.compile(
    r"""(?P<space>\s+|\#[^\n]*)|(?P<float>\d+\.\d+)|(?P<int>\d+)|(?P<string>"[^"\r\n]*")|(?P<name>[A-Za-z_]\w*)
    |(?P<sign>==|!=|<=|>=|[-+*/%^<>=()\[\]{},:;])""",
    re.VERBOSE | re.ASCII,
)


@dataclass(frozen=True)
class Source:
    """A text with the name of its file, empty for what was typed."""

    text: str
    name: str = ""


@dataclass(frozen=True)
class Span:
    """The characters start .. end of a source."""

    source: Source
    start: int
    end: int

    def to(self, other: Span) -> Span:
        return Span(self.source, self.start, other.end)

    def caret(self) -> str:
        """The line of the source, and below it carets under the span; where the line is, when it is a file's."""
        text = self.source.text
        first = text.rfind("\n", 0, self.start) + 1
        line = text[first:].partition("\n")[0]
        column = self.start - first
        width = max(1, min(self.end, first + len(line)) - self.start)
        number = text.count("\n", 0, self.start) + 1
        head = f"{self.source.name}, line {number}, column {column + 1}\n" if self.source.name else ""
        cut = max(0, column - _AROUND)  # of a long line, what is around the place
        shown = line[cut : column + _AROUND]
        under = "".join("\t" if letter == "\t" else " " for letter in line[cut:column]) + "^" * width
        return f"{head}  {shown}\n  {under[: len(shown) + 1]}"


class RaspError(PapertrialError):
    """A program that cannot be read or run; `where` is the place in its text, when there is one."""

    def __init__(self, problem: str, where: Span | None = None, fix: str = "") -> None:
        super().__init__(problem, fix)
        self.where = where

    def page(self) -> str:
        """The message, and the line it is about with a caret under the place."""
        return f"error: {self}" + (f"\n{self.where.caret()}" if self.where else "")


class Unfinished(RaspError):
    """The text ends in the middle of a statement: more lines may complete it."""


@dataclass(frozen=True)
class Ast:
    """A statement or an expression. form: its kind, one method of `Session` each.  parts: what that method takes."""

    form: str
    parts: tuple[Any, ...]
    where: Span


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    where: Span


def parse(source: Source) -> list[Ast]:
    """The statements of a text.

    Raises Unfinished when it ends too early, RaspError at the first thing that fits nowhere.
    """
    return list(read(source))


def read(source: Source) -> Iterator[Ast]:
    """The statements of a text one by one, those before an error too; raises as `parse`."""
    parser = _Parser(source)
    try:
        while parser.next.kind != "end":
            yield parser.statement()
    except RecursionError:
        raise RaspError("this is nested too deeply", parser.next.where) from None


def _tokens(source: Source) -> list[_Token]:
    found: list[_Token] = []
    place = 0
    while place < len(source.text):
        match = _TOKEN.match(source.text, place)
        if match is None:
            letter = source.text[place]
            problem = "the string has no closing quote" if letter == '"' else f"{letter!r} means nothing here"
            return [*found, _Token("wrong", problem, Span(source, place, place + 1))]
        kind = str(match.lastgroup)
        if kind != "space":
            found.append(_Token(kind, match.group(), Span(source, place, match.end())))
        place = match.end()
    return [*found, _Token("end", "", Span(source, len(source.text.rstrip()), len(source.text.rstrip()) + 1))]


class _Parser:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.tokens = _tokens(source)
        self.place = 0

    # reading tokens

    @property
    def next(self) -> _Token:
        return self.tokens[self.place]

    def ahead(self, *texts: str) -> bool:
        """Whether the next tokens are these."""
        found = [token.text for token in self.tokens[self.place : self.place + len(texts)]]
        return found == list(texts)

    def take(self, *texts: str) -> _Token | None:
        """Step over the next tokens if they are these; the last of them."""
        if not self.ahead(*texts):
            return None
        self.place += len(texts)
        return self.tokens[self.place - 1]

    def need(self, text: str, after: str = "") -> _Token:
        return self.take(text) or self.fail(f"expected {text!r}{after}")

    def name(self) -> _Token:
        token = self.next
        if token.kind != "name" or token.text in KEYWORDS:
            self.fail("expected a name")
        self.place += 1
        return token

    def fail(self, expected: str) -> Any:
        token = self.next
        if token.kind == "wrong":
            raise RaspError(token.text, token.where)
        if token.kind == "end":
            raise Unfinished(f"{expected}, but the text ends here", token.where)
        raise RaspError(f"{expected}, not {token.text!r}", token.where)

    # statements

    def statement(self) -> Ast:
        start = self.next.where
        if self.take("def"):
            return self.definition(start)
        if self.take("for"):
            return self.loop(start)
        command = self.command(start)
        if command is not None:
            return command
        if self.ahead("load") and self.tokens[self.place + 1].kind == "string":
            self.take("load")
            path = self.expression()
            return self.closed(Ast("load", (path.parts[0],), path.where))
        names = self.targets()
        if names is not None:
            values = self.listed()
            return self.closed(Ast("assign", (names, values), start.to(values[-1].where)))
        value = self.expression()
        return self.closed(Ast("expression", (value,), value.where))

    def closed(self, statement: Ast) -> Ast:
        self.need(";", " at the end of the statement")
        return statement

    def targets(self) -> tuple[_Token, ...] | None:
        """The names of `a, b =`, stepped over; None, and nothing read, when this is no assignment."""
        place = self.place
        names = []
        while self.next.kind == "name" and self.next.text not in KEYWORDS:
            names.append(self.name())
            if self.take("="):
                return tuple(names)
            if not self.take(","):
                break
        self.place = place
        return None

    def block(self, end: str) -> tuple[Ast, ...]:
        found = []
        while not self.ahead(end):
            if self.next.kind == "end":
                self.fail(f"expected {end!r}")
            found.append(self.statement())
        return tuple(found)

    def definition(self, start: Span) -> Ast:
        name = self.name()
        self.need("(")
        arguments = () if self.ahead(")") else self.names()
        self.need(")")
        self.need("{")
        body = self.block("return")
        self.need("return")
        values = self.listed()
        self.need(";", " at the end of the statement")
        end = self.need("}", ": a function ends with its return")
        return Ast("define", (name, arguments, body, values), start.to(end.where))

    def loop(self, start: Span) -> Ast:
        names = self.names()
        self.need("in")
        iterable = self.expression()
        self.need("{")
        body = self.block("}")
        end = self.need("}")
        return Ast("loop", (names, iterable, body), start.to(end.where))

    def command(self, start: Span) -> Ast | None:
        """A command to the prompt, which ends with its line and needs no semicolon; None when this is none."""
        found = self.tokens[self.place : self.place + 8]
        line = self.source.text.find("\n", start.start)
        texts = [token.text for token in found if line < 0 or token.where.start < line]
        if texts[-1:] == [";"] or texts[-1:] == [""]:
            texts.pop()
        which = "both"
        if texts[:1] == ["selector"] or texts[1:2] == ["selector"]:
            which = "selector"
        elif texts[:3] == ["s", "-", "op"] or texts[1:4] == ["s", "-", "op"]:
            which = "s-op"
        words = " ".join(texts).replace("s - op ", "").replace("selector ", "")
        if words in ("examples on", "examples off", "full seq display on", "full seq display off", "show example"):
            command = Ast(words.rpartition(" ")[0], (which, words.rpartition(" ")[2] == "on"), start)
        elif words in ("exit", "quit", "exit ( )", "quit ( )"):
            command = Ast("exit", (), start)
        elif words.startswith("set example "):
            return self.set_example(which, start)
        else:
            return None
        self.place += len(texts)
        self.take(";")
        return command

    def set_example(self, which: str, start: Span) -> Ast:
        while not self.take("example"):
            self.place += 1
        depth, end = 0, self.place
        while self.tokens[end].kind != "end":  # up to the end of the line, further inside of brackets
            between = self.source.text[self.tokens[end - 1].where.end : self.tokens[end].where.start]
            if depth == 0 and "\n" in between:
                break
            depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(self.tokens[end].text, 0)
            end += 1
        after, self.tokens = self.tokens, [*self.tokens[:end], self.tokens[-1]]
        value = self.expression()
        self.take(";")
        if self.next.kind != "end":
            self.fail("expected the end of the line")
        self.tokens = after
        return Ast("set example", (which, value), start.to(value.where))

    # expressions

    def names(self) -> tuple[_Token, ...]:
        found = [self.name()]
        while self.take(","):
            found.append(self.name())
        return tuple(found)

    def listed(self) -> tuple[Ast, ...]:
        found = [self.expression()]
        while self.take(","):
            found.append(self.expression())
        return tuple(found)

    def expression(self, level: int = _LOOSEST) -> Ast:
        """An expression of operators that bind at least as tight as `level`."""
        left = self.prefix()
        while True:
            sign = self.next.text if self.next.kind in ("sign", "name") else ""
            if sign == "[":
                self.place += 1
                index = self.expression()
                left = Ast("item", (left, index), left.where.to(self.need("]").where))
            elif sign == "(":
                self.place += 1
                arguments = () if self.ahead(")") else self.listed()
                left = Ast("call", (left, arguments), left.where.to(self.need(")").where))
            elif sign in _LEVELS and _LEVELS[sign] >= level:
                self.place += 1
                if sign == "if":
                    condition = self.expression()
                    self.need("else")
                    right = self.expression(_LEVELS[sign] + 1)
                    left = Ast("choice", (left, condition, right), left.where.to(right.where))
                else:
                    right = self.expression(_LEVELS[sign] + 1)
                    form = sign if sign in ("and", "or", "in") else "binary"
                    left = Ast(form, (sign, left, right), left.where.to(right.where))
            else:
                return left

    def prefix(self) -> Ast:
        token = self.next
        if token.text in ("not", "-", "+"):
            self.place += 1
            operand = self.expression(_UNARY)
            return Ast("unary", (token.text, operand), token.where.to(operand.where))
        if token.text == "(":
            self.place += 1
            inner = self.expression()
            return Ast(inner.form, inner.parts, token.where.to(self.need(")").where))
        if token.text == "[":
            return self.list_or_comprehension()
        if token.text == "{":
            return self.dict_or_comprehension()
        if self.ahead("select", "("):
            return self.select()
        if token.kind in ("int", "float", "string"):
            self.place += 1
            return Ast("atom", (_READ[token.kind](token.text),), token.where)
        if token.kind == "name" and token.text not in KEYWORDS:
            self.place += 1
            return Ast("name", (token.text,), token.where)
        return self.fail("expected a value")

    def select(self) -> Ast:
        start = self.next.where
        self.take("select", "(")
        keys = self.expression()
        self.need(",")
        queries = self.expression()
        self.need(",")
        if self.next.text not in COMPARISONS:
            self.fail(f"expected one of {' '.join(COMPARISONS)}")
        sign = self.next.text
        self.place += 1
        return Ast("select", (sign, keys, queries), start.to(self.need(")").where))

    def list_or_comprehension(self) -> Ast:
        start = self.need("[").where
        if end := self.take("]"):
            return Ast("list", ((),), start.to(end.where))
        first = self.expression()
        if self.take("for"):
            names, iterable = self.names(), (self.need("in"), self.expression())[1]
            return Ast("list of", (first, names, iterable), start.to(self.need("]").where))
        rest = self.listed() if self.take(",") else ()
        return Ast("list", ((first, *rest),), start.to(self.need("]").where))

    def dict_or_comprehension(self) -> Ast:
        start = self.need("{").where
        if end := self.take("}"):
            return Ast("dict", ((),), start.to(end.where))
        first = self.pair()
        if self.take("for"):
            names, iterable = self.names(), (self.need("in"), self.expression())[1]
            return Ast("dict of", (first, names, iterable), start.to(self.need("}").where))
        pairs = [first]
        while self.take(","):
            pairs.append(self.pair())
        return Ast("dict", (tuple(pairs),), start.to(self.need("}").where))

    def pair(self) -> tuple[Ast, Ast]:
        key = self.expression()
        self.need(":")
        return key, self.expression()
