"""`new` and `rasp`: a paper of one's own, and programs in RASP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from papertrial.app import printing
from papertrial.app.commands.options import Json, Out, complete_paper, number_option, out_option
from papertrial.core.errors import PapertrialError


def new(
    name: Annotated[
        str,
        typer.Argument(help="The paper's id, such as barlow_twins.", autocompletion=complete_paper, show_default=False),
    ],
    kind: Annotated[str, typer.Option(help="architecture, objective, technique or analysis.")] = "architecture",
    out: Annotated[
        Path | None,
        out_option("Write a package of its own into this folder, even inside a checkout.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Start a paper: its file, its claims and its test, which pass every check from the start."""
    from papertrial.app.new import new as write

    files = write(name, kind, out)
    if json:
        printing.document({"files": files})
        return
    printing.say(*(f"wrote {file}" for file in files))
    package = next((file.parent for file in files if file.name == "pyproject.toml"), None)
    install = f"pip install -e {package}    " if package else ""
    use = f"measure {name} vit --data digits" if kind == "analysis" else f"fit {name} --data digits --recipe tiny"
    printing.say("", f"next        {install}papertrial {use}")


def rasp(
    file: Annotated[Path | None, typer.Argument(help="A program, FILE.rasp.", show_default=False)] = None,
    code: Annotated[str | None, typer.Option("-c", help="Statements to run, after FILE.", show_default=False)] = None,
    example: Annotated[str, typer.Option(help="Input to show results on.")] = "hello",
    interactive: Annotated[bool, typer.Option("--interactive", "-i", help="Start the prompt afterwards.")] = False,
    compile_: Annotated[
        str | None,
        typer.Option("--compile", help="Program to compile to a PyTorch transformer in --out.", show_default=False),
    ] = None,
    vocabulary: Annotated[str, typer.Option(help="Letters the transformer reads.")] = "abcde",
    longest: Annotated[int, number_option("longest", "Longest input the transformer reads.")] = 16,
    out: Out = None,
    json: Json = False,
) -> None:
    """The language of "Thinking Like Transformers": a prompt, files, and programs compiled to transformers."""
    from papertrial.app import rasp as language

    if compile_ and out is None:
        raise PapertrialError("--compile needs a folder to write", "add --out FOLDER")
    if compile_ and out:
        language.compile_to(file, code, compile_, out, vocabulary, longest, json)
    else:
        language.run(file, code, example, interactive, json)
