"""`list`, `read` and `look`: what there is to try, and what one's data is fit for."""

from __future__ import annotations

import sys
from shlex import quote
from typing import Annotated

import typer

from papertrial.app import printing
from papertrial.app.commands.options import DataArgument, Dates, Json, Missing, Target, complete_paper
from papertrial.core import registry
from papertrial.core.errors import PapertrialError, did_you_mean
from papertrial.core.wording import counted


def list_(
    task: Annotated[str | None, typer.Option(help="Only papers for this task.", show_default=False)] = None,
    shelf: Annotated[bool, typer.Option("--shelf", help="Only papers that can be used now.")] = False,
    json: Json = False,
) -> None:
    """The reading list: every paper, and whether it is on the shelf yet."""
    listed = registry.reading_list()
    known = sorted({name for row in listed for name in row.paper.tasks})
    if task is not None and task not in known:
        raise PapertrialError(f"no paper has the task {task!r}", did_you_mean(task, known))
    rows = [row for row in listed if (task is None or task in row.paper.tasks) and (row.on_shelf or not shelf)]
    if json:
        printing.document([{**row.paper.to_json(), "on_shelf": row.on_shelf, "state": _state(row)} for row in rows])
        return
    printing.say(
        *printing.table(
            ("month", "paper", "state", "idea"),
            [(row.paper.month, row.paper.id, _state(row), row.paper.idea) for row in rows],
            last_cut=True,
        )
    )
    if task in registry.declared_tasks():
        printing.say("", *printing.labelled([("task", str(registry.declared_tasks()[task]))]))
    here = sum(row.on_shelf for row in rows)
    printing.say("", f"{len(rows)} papers, {here} on the shelf.   papertrial read PAPER   papertrial look DATA")


def _state(row: registry.Listed) -> str:
    if not row.on_shelf:
        return "not yet"
    missing = registry.missing_package(row.paper)
    return f"needs [{missing[1]}]" if missing else "on the shelf"


def read(
    paper: Annotated[
        str, typer.Argument(help="A paper or baseline.", autocompletion=complete_paper, show_default=False)
    ],
    json: Json = False,
) -> None:
    """What a paper is: the idea, the equation, what its text hides, how to try it."""
    from papertrial.core.page import read as read_page

    found = read_page(paper)
    if json:
        printing.document(found)
        return
    facts = found.paper
    printing.say(*printing.labelled(found.facts()))
    if found.file is None:
        printing.say("", "This paper is on the reading list but not on the shelf yet: it cannot be trained here.")
        return
    printing.say(*printing.labelled(("caveat", caveat) for caveat in facts.caveats))
    printing.say("", found.text, "", f"code        {found.file}")
    printing.say(
        f"use         {facts.command or 'papertrial measure'} --help"
        if facts.refusal
        else f"options     papertrial fit {paper} --help"
    )


def look(
    data: DataArgument,
    target: Target = None,
    dates: Dates = None,
    missing: Missing = None,
    every: Annotated[bool, typer.Option("--all", help="Say for every task and paper why it does not fit.")] = False,
    json: Json = False,
) -> None:
    """The facts of your data before anything trains, the tasks it fits, and the papers that accept it."""
    from papertrial.data import open as open_data
    from papertrial.use.suitability import suits

    opened = open_data(data, target=target, dates=dates, missing=missing)
    facts = opened.look()
    if not json:  # before the tasks are asked, who take seconds to load
        printing.say(*printing.labelled(facts.facts))
        printing.say(*printing.labelled(("note", note) for note in facts.notes))
        sys.stdout.flush()
    fitting = suits(facts)
    if json:
        printing.document({**facts.to_json(), "tasks": fitting.tasks, "papers": fitting.papers})
        return
    accepted = [name for name, reason in fitting.papers.items() if reason == ""]
    tasks, papers = (fitting.tasks, fitting.papers) if every else (fitting.near_tasks, fitting.near_papers)
    hidden = [(len(fitting.tasks) - len(tasks), "task"), (len(fitting.papers) - len(papers), "paper")]
    printing.say(
        "",
        *printing.labelled(("fits", name) for name, reason in tasks.items() if reason == ""),
        *printing.labelled(("no", line) for line in _by_reason(tasks)),
        *printing.labelled([("papers", ", ".join(accepted) or "none on the shelf")]),
        *printing.labelled(("declines", line) for line in _by_reason(papers)),
    )
    if left := " and ".join(counted(count, word) for count, word in hidden if count):
        printing.say(*printing.labelled([("not shown", f"{left} that need other data (list them with --all)")]))
    if accepted:
        verb = "compare" if facts.numbers.get("labelled") else "fit"
        asked = {"target": target, "dates": dates, "missing": missing}
        extra = "".join(f" --{name} {quote(value)}" for name, value in asked.items() if value)
        printing.say("", f"next        papertrial {verb} {accepted[0]} --data {quote(data)}{extra}")


def _by_reason(refusals: dict[str, str]) -> list[str]:
    """One line for all that say no for the same reason."""
    reasons = dict.fromkeys(reason for reason in refusals.values() if reason)
    return [f"{', '.join(name for name, given in refusals.items() if given == reason)}: {reason}" for reason in reasons]
