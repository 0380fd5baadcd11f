"""Lists that pages written by hand hold: `<!-- made: name -->` is replaced by what the function of that name gives."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable

from papertrial.core import registry
from papertrial.core.recipe import Optim, ranges, resolve
from tools.site.markup import prose
from tools.site.papers import settings_table


def baselines() -> str:
    """What papers are compared with, by task."""
    rows = [
        f"| `{name}` | {prose(entry.paper.idea)} | {', '.join(f'`{task}`' for task in entry.paper.tasks)} | "
        f"{', '.join(f'`{extra}`' for extra in entry.paper.needs) or '-'} |"
        for name, entry in registry.entries().items()
        if entry.shelf == "baselines"
    ]
    return "\n".join(["| baseline | what it is | tasks | needs the extra |", "|---|---|---|---|", *rows])


def extras() -> str:
    """What each extra installs."""
    rows = [
        f"| `{name}` | {', '.join(f'`{module}`' for module in modules)} | `pip install 'papertrial[{name}]'` |"
        for name, modules in sorted(registry.EXTRA_MODULES.items())
    ]
    return "\n".join(["| extra | modules it brings | to install it |", "|---|---|---|", *rows])


def training() -> str:
    """How every method is trained that is trained by gradient steps."""
    return settings_table(resolve(Optim, None, {})[1], ranges(Optim))


def tasks() -> str:
    """What can be asked, in the words of each task's own file."""
    rows = []
    for name, task in sorted(registry.tasks().items()):
        file = importlib.util.find_spec(f"papertrial.tasks.{name}")
        words = importlib.import_module(file.name).__doc__ if file else type(task).__doc__
        first = (words or "").split("\n\n")[0]
        rows.append(f"| `{name}` | {task.version} | {prose(' '.join(first.split()))} |")
    return "\n".join(["| task | version | what is asked |", "|---|---|---|", *rows])


LISTS: dict[str, Callable[[], str]] = {
    "baselines": baselines,
    "extras": extras,
    "training": training,
    "tasks": tasks,
}
