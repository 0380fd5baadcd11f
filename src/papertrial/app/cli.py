"""The command line: its commands in the order of `--help`, and how each of them ends.

Nothing heavy is imported before a command needs it: `papertrial list` imports no torch.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Callable, Iterator
from functools import cache
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from papertrial.app.commands import finding, making, reading, serving, studying, taking_away, training, using
from papertrial.app.judge.commands import judge
from papertrial.core import stopping
from papertrial.core.errors import PapertrialError, did_you_mean
from papertrial.core.files import disk_full
from papertrial.core.memory import OutOfMemory, out_of_memory, within_the_machine
from papertrial.core.stopping import Stopped
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
    """Ctrl-C, a signal, or the end of another process of this run."""

    exit_code = 130


class _NobodyReads(Exception):
    """What this is piped into has ended, such as `head -1`."""


class _Commands(TyperGroup):
    """typer turns an interrupt and a broken pipe into silent exit codes; here they keep what they are."""

    def make_context(self, *arguments: Any, **more: Any) -> Any:
        with _as_they_are():
            return super().make_context(*arguments, **more)

    def invoke(self, ctx: Any) -> Any:
        with _as_they_are():
            return super().invoke(ctx)


@contextlib.contextmanager
def _as_they_are() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as stop:
        raise _interrupted(stop) from stop
    except BrokenPipeError as error:
        if _unread(sys.stdout) or _unread(sys.stderr):
            raise _NobodyReads from error
        raise RuntimeError(f"what was written to is gone: {error}") from error
    except SystemExit as end:  # rich has seen it first
        if any(isinstance(one, BrokenPipeError) for one in _chain(end)):
            raise _NobodyReads from end
        raise


def _interrupted(stop: KeyboardInterrupt) -> Interrupted:
    resumes = sys.argv[1:2] and sys.argv[1] in _RESUMING and not (isinstance(stop, Stopped) and stop.said)
    told = Interrupted(str(stop) or "stopped", "the same command goes on from there" if resumes else "")
    if isinstance(stop, Stopped):
        told.exit_code = stop.exit_code
    return told


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
for _panel, _members in _GROUPS.items():
    for _command in _members:
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


@cache
def _commands() -> Any:
    """All of them, read from the signatures above once in a process."""
    return typer.main.get_command(app)


def main() -> None:
    """Run a command; whatever the user can mend ends in one line and the exit code that goes with it."""
    with stopping.heard(), within_the_machine():
        try:
            try:
                _run()
            finally:
                _flush()
        except KeyboardInterrupt as stop:  # while nothing was running yet, or while another end was being told
            told = _interrupted(stop)
            _stop(str(told), told.exit_code)


def _run() -> None:
    try:
        if processes.several():
            if sys.argv[1:2] != ["fit"]:
                raise PapertrialError("only fit runs in several processes", "start this command without torchrun")
            # DDP warns, below Python, of models that use all of their parameters; torch reads this when it is loaded
            os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        sys.exit(_commands().main(sys.argv[1:], prog_name="papertrial", standalone_mode=False) or 0)
    except PapertrialError as error:
        named = None if isinstance(error, OutOfMemory) else out_of_memory(error, "", _less())
        _stop(str(named or error), (named or error).exit_code)
    except _NobodyReads:
        sys.exit(0)
    except Exception as error:
        if named := out_of_memory(error, "", _less()):
            _stop(str(named), named.exit_code)
        if hasattr(error, "format_message"):  # a usage error of the command-line parser
            _stop(_usage(error), 2)
        if type(error).__name__ in ("Abort", "Exit"):
            sys.exit(getattr(error, "exit_code", 1))
        before = list(_chain(error))  # tidying up after an interrupt may fail by itself, and hide it
        for stop in before:
            if isinstance(stop, KeyboardInterrupt):
                told = _interrupted(stop)
                _stop(str(told), told.exit_code)
        if any(processes.lost(one) for one in before):
            _stop(processes.ENDED, 1)
        if any(map(disk_full, before)):
            _stop("no space left on the disk; free some room and run the same command again", 2)
        if os.environ.get("PAPERTRIAL_DEBUG"):
            raise
        _stop(
            f"a defect of papertrial: {type(error).__name__}: {error}; PAPERTRIAL_DEBUG=1 shows where; please report it",
            1,
        )


def _less() -> str:
    return _LESS.get(sys.argv[1] if sys.argv[1:] else "", "give it less at a time")


def _flush() -> None:
    """Write what was printed, now, where what goes wrong can still be said: Python does it when all is over."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            if stream is sys.stdout and not isinstance(error, BrokenPipeError):
                _stop(f"the output could not be written: {(error.strerror or str(error)).lower()}", 2)


def _unread(stream: Any) -> bool:
    """Whether `stream` is a pipe at whose other end nobody reads."""
    if not hasattr(select, "poll"):
        return True
    watched = select.poll()
    watched.register(stream.fileno(), select.POLLOUT)
    return any(found & select.POLLERR for _, found in watched.poll(0))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those during whose handling it came up, the latest first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _usage(error: Any) -> str:
    message = " ".join(str(error.format_message()).split())
    if "No such command" in message and sys.argv[1:]:
        return f"there is no command {sys.argv[1]!r}; {did_you_mean(sys.argv[1], list(_commands().commands))}"
    where = f"papertrial {sys.argv[1]} --help" if sys.argv[1:] else "papertrial --help"
    return f"{message.rstrip('.')}; type: {where}"


def _stop(message: str, code: int) -> None:
    if processes.may_speak():
        with contextlib.suppress(BrokenPipeError):
            print(f"papertrial: {printable(' '.join(message.split()))}", file=sys.stderr)
    processes.leave(code)
