"""`papertrial rasp`: the prompt, files and one-liners of the RASP language, and its compiler.

At the prompt a statement may go over several lines; what was typed is remembered between sessions. An error shows the
line with carets under the place, and the session goes on; in a file and with -c it ends the command.
"""

from __future__ import annotations

import atexit
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import typer

from papertrial.core.errors import PapertrialError
from papertrial.core.files import to_json
from papertrial.papers.rasp.language import Function, Pattern, Program, Session
from papertrial.papers.rasp.layers import Drawing, plan
from papertrial.papers.rasp.syntax import RaspError, Source, Unfinished, parse

_HISTORY = 2000  # lines


def run(file: Path | None, code: str | None, example: str, interactive: bool, json: bool) -> None:
    """Run a file, then code, and show the results of the last; then the prompt, when there is neither or it is asked for."""
    session = Session(example or "hello")
    results: list[tuple[str, Any]] = []
    wrong: RaspError | None = None
    try:
        _start(session, file, code, results)
    except RaspError as error:
        wrong = error
    try:
        if json:
            print(to_json([_facts(name, value, session) for name, value in results], indent=2))
        else:
            for name, value in results:
                _say(session.describe(name, value))
    except RaspError as error:
        wrong = wrong or error
    if wrong:
        _stop(wrong)
    if json:
        return
    if interactive or (file is None and code is None):
        prompt(session)


def _start(session: Session, file: Path | None, code: str | None, results: list[tuple[str, Any]]) -> None:
    """Run both; `results` takes those of the last as they come, so that an error loses none of those before it."""
    if file is not None:
        session.folder = file.parent
        session.run(Source(_read(file), str(file)), found=results)
    if code is not None:
        results.clear()
        session.run(Source(code if code.rstrip().endswith((";", "}")) else f"{code};"), found=results)


def _stop(error: RaspError) -> NoReturn:
    """Show where a program fails, and end the command."""
    print(error.page(), file=sys.stderr)
    raise typer.Exit(error.exit_code)


def prompt(session: Session) -> None:
    """Read statements and show their results until the input or the session ends. Not a terminal: nothing is prompted."""
    terminal = sys.stdin.isatty()
    if terminal:
        _remember(session)
        print(
            'RASP. A statement ends with ";", this session with Ctrl-D. Try reverse; or reverse("abc"); or draw(reverse);'
        )
    held = ""
    while not session.ended:
        try:
            line = input(".. " if held else ">> ") if terminal else _next_line()
        except EOFError:
            break
        except KeyboardInterrupt:
            print()
            held = ""
            continue
        held = f"{held}\n{line}" if held else line
        try:
            parse(Source(held))
        except Unfinished:
            continue
        except RaspError as error:
            _report(error)
            held = ""
            continue
        _answer(session, held)
        held = ""
    if terminal:
        print()
    elif held.strip():
        try:
            parse(Source(held))
        except RaspError as error:
            _report(error)


def _answer(session: Session, text: str) -> None:
    try:
        results = session.run(Source(text), report=_report)
    except KeyboardInterrupt:
        print("stopped")
        return
    for name, value in results:
        try:
            _say(session.describe(name, value))
        except RaspError as error:
            _report(error)


def compile_to(
    file: Path | None, code: str | None, text: str, out: Path, vocabulary: str, longest: int, json: bool
) -> None:
    """Write the program `text`, which a file or code may define, as a PyTorch transformer, and compare the two first."""
    from papertrial.papers.rasp import Config, as_transformer
    from papertrial.papers.rasp.compiled import differences

    session = Session()
    try:
        _start(session, file, code, [])
        program = session.evaluate(text)
        if not isinstance(program, Program) or program.node.selects:
            raise RaspError(f"{text} is not an s-op, and only s-ops compile")
        compiled = as_transformer(program.node, vocabulary, Config(longest=longest))
        tried = differences(compiled, program.node, strings=100, seed=0)
    except RaspError as error:
        _stop(error)
    compiled.save(out)
    facts = {**compiled.facts(), "strings": tried.strings, "compared": tried.compared, "different": tried.different}
    if json:
        print(to_json({"folder": out, **facts}, indent=2))
        return
    print(f"{text}: {plan(program.node).sentence()}, width {facts['width']}, {facts['parameters']:,} weights")
    print(f"check       {tried.sentence()}")
    print(f"saved in {out}: model.safetensors, config.json")
    print("in Python   from papertrial.papers.rasp.compiled import load")
    asked = vocabulary[: min(4, longest)]
    print(f"            load({str(out)!r})([{asked!r}])   gives {compiled([asked])}")
    if tried.different:
        raise PapertrialError(
            f"the transformer differs from the interpreter on {tried.different} of {tried.compared} values"
        )


def _facts(name: str, value: Any, session: Session) -> dict[str, Any]:
    if isinstance(value, Program):
        kind = "selector" if value.node.selects else "s-op"
        found, example = plan(value.node), session.examples[kind]
        facts = {"name": name, "kind": kind, "layers": found.layers, "heads": found.heads, "example": example}
        try:
            values = value(example)
        except RaspError as error:
            return {**facts, "error": str(error)}
        return {**facts, "values": getattr(values, "matrix", values)}
    if isinstance(value, Function):
        return {"name": name, "kind": "function", "arguments": value.arguments}
    if isinstance(value, Pattern):
        return {"name": name, "kind": "selector", "example": value.tokens, "values": value.matrix}
    plain = value.lines if isinstance(value, Drawing) else value
    return {"name": name, "kind": type(value).__name__.lower(), "value": plain}


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise PapertrialError(f"{file} is not there", "check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise PapertrialError(f"{file} cannot be read ({error})", "RASP files are UTF-8 text") from None


def _next_line() -> str:
    try:
        line = sys.stdin.readline()
    except UnicodeDecodeError as error:
        raise PapertrialError(f"the input cannot be read ({error})", "RASP programs are UTF-8 text") from None
    if not line:
        raise EOFError
    return line.rstrip("\n")


def _say(lines: list[str]) -> None:
    for line in lines:
        print(line)


def _report(error: RaspError) -> None:
    print(error.page())


def _remember(session: Session) -> None:
    """History and completion of names, where the terminal has them."""
    try:
        import readline
    except ImportError:  # Windows
        return
    file = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "papertrial" / "rasp_history"

    def save() -> None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(file)
        except OSError:  # nothing that was asked for is lost
            return

    def complete(text: str, state: int) -> str | None:
        names = sorted({name for scope in session.top.chain() for name in scope.values if name.startswith(text)})
        return names[state] if state < len(names) else None

    if file.exists():
        readline.read_history_file(file)
    readline.set_history_length(_HISTORY)
    readline.set_completer(complete)
    readline.parse_and_bind("tab: complete")
    atexit.register(save)
