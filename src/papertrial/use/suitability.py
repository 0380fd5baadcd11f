"""Which tasks data fits, and which papers accept it, each refusal with its reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from papertrial.core import registry
from papertrial.core.arguments import Names, typed
from papertrial.core.errors import missing_extra
from papertrial.core.offers import task_offers
from papertrial.data import open as open_data
from papertrial.data.base import Look

OTHER_TASKS = "for other tasks: papertrial read PAPER"


@dataclass(frozen=True)
class Suits:
    """Task and paper names with the reason they do not fit; an empty reason means they do.

    near_tasks, near_papers: those that fit, and those that take such data and miss something.
    """

    tasks: dict[str, str]
    papers: dict[str, str]
    near_tasks: dict[str, str]
    near_papers: dict[str, str]


def suits(look: Any) -> Suits:
    """Judge a facts page against every task, and every paper on the shelf against the tasks that fit."""
    tasks = {}
    for name, task in registry.tasks().items():
        supports = task.supports(look)
        tasks[name] = "" if supports else supports.why
    unlabelled = {name for name, task in registry.tasks().items() if task_offers(task).trains_without_labels}
    papers = {}
    for name, paper in registry.papers().items():
        missing = registry.missing_package(paper)
        if missing is not None:
            papers[name] = str(missing_extra(name, *missing))
            continue
        if paper.refusal:
            papers[name] = paper.refusal
            continue
        fitting = {task for task, reason in tasks.items() if reason == "" and paper.takes(task)}
        if fitting and paper.kind == "architecture" and look.numbers.get("labelled") == 0 and not fitting & unlabelled:
            papers[name] = "it learns from labels, and there are none"
        elif fitting:
            papers[name] = ""
        else:
            papers[name] = OTHER_TASKS
    of_kind = {name for name, task in registry.tasks().items() if look.kind in task_offers(task).kinds}
    near_tasks = {name: reason for name, reason in tasks.items() if reason == "" or name in of_kind}
    shelf = registry.papers()
    near_papers = {
        name: reason
        for name, reason in papers.items()
        if reason != OTHER_TASKS and not shelf[name].refusal and any(map(shelf[name].takes, of_kind))
    }
    return Suits(tasks, papers, near_tasks, near_papers)


@dataclass(repr=False)
class Suited(Look):
    """A facts page, with what the data are fit for. tasks, papers: see `Suits`."""

    tasks: dict[str, str] = field(default_factory=dict)
    papers: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "tasks": self.tasks, "papers": self.papers}

    def table(self) -> list[tuple[str, str]]:
        """The facts, and what fits, as labels and words."""
        fits = [
            (what, ", ".join(name for name, why in found.items() if not why) or "none")
            for what, found in (("tasks", self.tasks), ("papers", self.papers))
        ]
        return [*super().table(), *fits]


@typed
def look(
    data: Any, target: str | int | None = None, *, dates: str | None = None, missing: Names | None = None
) -> Suited:
    """The facts of your data before anything trains, the tasks they fit, and the papers that accept them.

    data, target, dates, missing: as `papertrial.open` takes them. `tasks` and `papers` of what is returned give for each name why
    it does not fit, "" where it does; `to_json()` has all of it. Raises DataError for data that cannot be opened.

        >>> import papertrial as pt
        >>> facts = pt.look("iris")
        >>> facts.numbers["examples"], facts.tasks["tabular"]
        (150, '')
    """
    page = open_data(data, target, dates=dates, missing=missing).look()
    found = suits(page)
    return Suited(page.name, page.kind, page.facts, page.notes, page.numbers, found.tasks, found.papers)
