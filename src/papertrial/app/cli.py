"""The command line: its commands in the order of `--help`, and how each of them ends.

Nothing heavy is imported before a command needs it: `papertrial list` imports no torch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from papertrial.app.commands import finding, making, reading, serving, studying, taking_away, training, using
from papertrial.app.judge.commands import judge
from papertrial.core.errors import PapertrialError, did_you_mean
from papertrial.core.memory import out_of_memory
from papertrial.core.wording import printable
from papertrial.train import processes

#: commands that go on where an earlier call of theirs was stopped
_RESUMING = ("fit", "compare", "index")


#: what asks for less memory, by command
_LESS = {
    **dict.fromkeys(
        ("fit", "compare", "estimate", "check"),
        "a smaller --set batch=..., --size or --recipe tiny needs less; so do fewer rows",
    ),
    **dict.fromkeys(("predict", "evaluate", "embed"), "give it a part of the rows at a time"),
    **dict.fromkeys(("export", "eject"), "name fewer rows with --data"),
    "generate": "ask for less: a smaller --length, --beams or --samples",
    "measure": "look at fewer with --examples or --tokens",
    "look": "give it a part of the data",
    "index": "index the folders one by one, or without --encoder",
}


class Interrupted(PapertrialError):
    """Ctrl-C, or the end of another process of this run."""

    exit_code = 130


class _Commands(TyperGroup):
    """typer turns an interrupt into a silent exit code; here it keeps its words."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise _interrupted(stop) from stop


def _interrupted(stop: KeyboardInterrupt) -> Interrupted:
    if str(stop):  # Stopped has words of its own
        return Interrupted(str(stop))
    resumes = sys.argv[1:2] and sys.argv[1] in _RESUMING
    return Interrupted("stopped", "the same command goes on from there" if resumes else "")


app = typer.Typer(
    name="papertrial",
    cls=_Commands,
    help="A reading list you can put on trial: look at your data, train a paper on it, compare it with strong baselines, use the result.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


#: the panels of `--help`
_GROUPS: dict[str, tuple[Callable[..., None], ...]] = {
    "Read": (reading.list_, reading.read, reading.look),
    "Train": (training.fit, training.estimate),
    "Study": (studying.compare, studying.report, studying.check, studying.measure),
    "Use a trained model": (using.predict, using.embed, using.generate, using.evaluate),
    "Take it away": (taking_away.export, taking_away.eject),
    "Find documents": (finding.index, finding.search),
    "Make": (making.new, making.rasp),
    "Web pages": (serving.web,),
    "This machine": (serving.doctor,),
}
for _panel, _commands in _GROUPS.items():
    for _command in _commands:
        # fit has a --help of its own, which shows the options of a paper
        _context: dict[str, Any] | None = {"help_option_names": []} if _command is training.fit else None
        app.command(_command.__name__.strip("_"), rich_help_panel=_panel, context_settings=_context)(_command)
app.add_typer(judge, rich_help_panel="Web pages")


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from papertrial import __version__

        print(f"papertrial {__version__}")
        raise typer.Exit


def main() -> None:
    """Run a command; whatever the user can mend ends in one line and the exit code that goes with it."""
    try:
        _run()
    except KeyboardInterrupt as stop:  # while nothing was running yet, or while another end was being told
        _stop(str(_interrupted(stop)), Interrupted.exit_code)


def _run() -> None:
    try:
        if processes.several():
            if sys.argv[1:2] != ["fit"]:
                raise PapertrialError("only fit runs in several processes", "start this command without torchrun")
            # DDP warns, below Python, of models that use all of their parameters; torch reads this when it is loaded
            os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        command = typer.main.get_command(app)
        sys.exit(command.main(sys.argv[1:], prog_name="papertrial", standalone_mode=False) or 0)
    except PapertrialError as error:
        _stop(str(error), error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if named := out_of_memory(error, "", _LESS.get(sys.argv[1] if sys.argv[1:] else "", "give it less at a time")):
            _stop(str(named), named.exit_code)
        if hasattr(error, "format_message"):  # a usage error of the command-line parser
            _stop(_usage(error), 2)
        if type(error).__name__ in ("Abort", "Exit"):
            sys.exit(getattr(error, "exit_code", 1))
        before = list(_chain(error))  # tidying up after an interrupt may fail by itself, and hide it
        for stop in before:
            if isinstance(stop, KeyboardInterrupt):
                _stop(str(_interrupted(stop)), Interrupted.exit_code)
        if any(processes.lost(one) for one in before):
            _stop(processes.ENDED, 1)
        if os.environ.get("PAPERTRIAL_DEBUG"):
            raise
        _stop(
            f"a defect of papertrial: {type(error).__name__}: {error}; PAPERTRIAL_DEBUG=1 shows where; please report it",
            1,
        )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those during whose handling it came up, the latest first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _usage(error: Any) -> str:
    message = " ".join(str(error.format_message()).split())
    if "No such command" in message and sys.argv[1:]:
        return f"there is no command {sys.argv[1]!r}; {did_you_mean(sys.argv[1], list(typer.main.get_command(app).commands))}"  # type: ignore[attr-defined]
    where = f"papertrial {sys.argv[1]} --help" if sys.argv[1:] else "papertrial --help"
    return f"{message.rstrip('.')}; type: {where}"


def _stop(message: str, code: int) -> None:
    if processes.may_speak():
        print(f"papertrial: {printable(' '.join(message.split()))}", file=sys.stderr)
    processes.leave(code)
