"""Every command and program of README and docs is run, in a folder with a little of each kind of data; what cannot run here says
why, and its options exist. `tools.site.fences` says how a block is marked, and what is tried smaller than it is written."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import typer
from tools.site import papers
from tools.site.fences import NOT_HERE, Block, blocks, pages, smaller
from tools.site.outputs import cut

from papertrial.app import cli
from papertrial.core import registry
from workplace import furnish

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
#: output of past runs: figures, no commands
RECORDS = ("docs/tables.md", "docs/speed.md")


def _found() -> dict[str, list[Block]]:
    found = {}
    for file in pages(ROOT):
        name = file.relative_to(ROOT).as_posix()
        found[name] = list(blocks(file.read_text(encoding="utf-8"), name))
    for name in papers.names():  # what a docstring says under Try
        found[f"papers/{name}"] = list(blocks(papers.tries(name), f"papers/{name}"))
    return {name: inside for name, inside in found.items() if inside}


PAGES = _found()
_COMMANDS = typer.main.get_command(cli.app)


@pytest.fixture(scope="session")
def furnished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("furnished")
    furnish(folder)
    return folder


@pytest.fixture
def workplace(furnished, tmp_path, monkeypatch):
    """A folder to type commands in: the data, and nothing that another page left. Steps are measured for less than seconds."""
    folder = tmp_path / "work"
    shutil.copytree(furnished, folder)
    shutil.copytree(ROOT / "evidence", folder / "evidence", ignore=shutil.ignore_patterns("*.html", ".*"))
    monkeypatch.chdir(folder)
    monkeypatch.setattr("papertrial.study.estimate._WINDOW", 0.1)
    return folder


def _type(command: str) -> str:
    """What a command prints. It must end well."""
    words = shlex.split(command)
    assert words[0] == "papertrial", f"only papertrial is run here: {command}"
    out, err = io.StringIO(), io.StringIO()
    before = sys.argv
    sys.argv = words
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        sys.argv = before
    assert code == 0, f"{command}\nended with {code}\n{out.getvalue()[-1500:]}\n{err.getvalue()[-1500:]}"
    return out.getvalue()


def _try(block: Block) -> None:
    if block.language == "python":
        exec(compile(smaller(block.text), f"{block.page}:{block.line}", "exec"), {"__name__": "__main__"})
    elif block.mark == "exact":
        for command, shown in block.shown:
            assert cut(_type(command)) == shown.strip("\n"), (
                f"{block.page}:{block.line}: type python -m tools.site outputs"
            )
    elif block.mark == "measured":
        for command, shown in block.shown:
            labels = {line.split()[0] for line in shown.splitlines() if re.match(r"\w", line)} - {
                "plan:",
                "note",
                "seed",
            }
            came = {line.split()[0] for line in _type(smaller(command)).splitlines() if re.match(r"\w", line)}
            assert labels <= came, f"{block.page}:{block.line} shows {labels - came}, which no longer comes out"
    else:
        for command in block.commands:
            if not (block.page.startswith("papers/") and any(re.search(pattern, command) for pattern in NOT_HERE)):
                _type(smaller(command))


def _slow(block: Block) -> bool:
    return block.mark in ("slow", "measured")


def _runs(block: Block) -> bool:
    return block.mark != "not run" and block.language in ("sh", "console", "python")


QUICK = [name for name, inside in PAGES.items() if any(_runs(block) and not _slow(block) for block in inside)]
LONG = [name for name, inside in PAGES.items() if any(_runs(block) and _slow(block) for block in inside)]


@pytest.mark.parametrize("page", [name for name in QUICK if not name.startswith("papers/")])
def test_what_a_page_says_runs(page, workplace):
    """The blocks that take seconds; one may use what another one before it left, unless that is slow."""
    for block in PAGES[page]:
        if _runs(block) and not _slow(block):
            _try(block)


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted({*LONG, *(name for name in QUICK if name.startswith("papers/"))}))
def test_all_that_a_page_says_runs(page, workplace, shared_data):
    """All of it, in its order, and what the docstrings of papers tell to try."""
    for block in PAGES[page]:
        if _runs(block):
            _try(block)


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_options_exist(page):
    """Of every block, run or not: no command, option, target of make, method or task that is not there."""
    for block in PAGES[page]:
        for command in block.commands:
            _exists(command, f"{block.page}:{block.line}")


def _exists(command: str, where: str) -> None:
    words = shlex.split(command)
    if "papertrial" in words and words[0] in ("papertrial", "torchrun", "python"):
        words = words[words.index("papertrial") + 1 :]
        at = _COMMANDS
        while hasattr(at, "commands") and words and not words[0].startswith("-"):
            assert words[0] in at.commands, f"{where}: there is no command {words[0]}"
            at, words = at.commands[words[0]], words[1:]
        known = {name for parameter in at.params for name in (*parameter.opts, *parameter.secondary_opts)} | {
            "-h",
            "--help",
        }
        for word in words:
            if re.match(r"--?[a-zA-Z]", word):
                assert word.split("=")[0] in known, f"{where}: {at.name} has no option {word}"
    elif words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert set(words[1:]) <= set(targets), f"{where}: make knows {', '.join(targets)}"
    elif words[:2] == ["pip", "install"]:
        for extra in re.findall(r"papertrial\[([\w,]+)\]", command):
            assert set(extra.split(",")) <= registry.EXTRA_MODULES.keys(), f"{where}: there is no extra {extra}"
    else:
        raise AssertionError(f"{where}: nobody knows how to try {command!r}")


def test_nothing_is_left_out_silently():
    """Each block is run, says why it is not, or is no code; and code stands in fences only."""
    every = [block for inside in PAGES.values() for block in inside]
    run = [block for block in every if _runs(block)]
    declined = [block for block in every if block.mark == "not run"]
    data = [block for block in every if block not in run and block not in declined]
    assert len(run) + len(declined) + len(data) == len(every)
    assert len(run) >= 40, "fewer blocks than there were: are the pages read?"
    assert all(len(block.reason.split()) > 2 for block in declined)
    assert len(declined) <= len(run) / 3, "too much of the documentation is not run"
    tried = [command for block in every if block.page.startswith("papers/") for command in block.commands]
    for pattern in NOT_HERE:  # none without a command that it speaks of
        assert any(re.search(pattern, command) for command in tried), pattern
    for block in data:
        if block.language == "json":
            json.loads(block.text)
        elif block.language == "toml":
            tomllib.loads(block.text)
        else:
            assert block.language == "text" and not re.search(
                r"^\$|^papertrial |^make |^pip ", block.text, re.MULTILINE
            ), block
    for file in pages(ROOT):
        name = file.relative_to(ROOT).as_posix()
        if name not in RECORDS:
            text = re.sub(r"^ *```.*?^ *```$", "", file.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
            indented = re.findall(
                r"^    (?:\$ |papertrial |make |pip |python |import |from |torchrun ).*", text, re.MULTILINE
            )
            assert not indented, f"{name} has code without a fence: {indented}"


def test_a_block_without_a_language_or_with_an_unknown_mark_is_refused():
    with pytest.raises(ValueError, match=r"p:1: a block in no language"):
        list(blocks("```\nx\n```", "p"))
    with pytest.raises(ValueError, match="is no mark"):
        list(blocks("<!-- block: skip -->\n```sh\nx\n```", "p"))
    (block,) = blocks("<!-- block: not run: it has no end -->\n```sh\npapertrial web runs  # and a remark\n```", "p")
    assert (block.mark, block.reason, block.commands) == ("not run", "it has no end", ["papertrial web runs"])


def test_an_option_that_is_gone_is_noticed():
    with pytest.raises(AssertionError, match="has no option --bugdet"):
        _exists("torchrun -m papertrial fit rtdl --bugdet 1m", "here")
    with pytest.raises(AssertionError, match="no command fitt"):
        _exists("papertrial fitt rtdl", "here")
    with pytest.raises(AssertionError, match="no extra tabula"):
        _exists("pip install 'papertrial[tabula]'", "here")
