"""What is to be read of a paper or a baseline: its facts, and the page at the head of its file."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from papertrial.core import registry
from papertrial.core.arguments import typed
from papertrial.core.html import page
from papertrial.core.paper import Paper
from papertrial.core.wording import aligned


@dataclass(frozen=True)
class Page:
    """paper: its facts.  text: the docstring of its file, "" where it is not on the shelf yet, and `file` is None."""

    paper: Paper
    text: str = ""
    file: Path | None = None

    def facts(self) -> list[tuple[str, str]]:
        """Labels and words, in reading order; nothing that is empty."""
        paper = self.paper
        rows = [
            ("paper", paper.title),
            ("authors", paper.authors),
            ("arXiv", f"https://arxiv.org/abs/{paper.arxiv}" if paper.arxiv else ""),
            ("selected", paper.month),
            ("kind", paper.kind),
            ("tasks", ", ".join(paper.tasks)),
            *(("task", str(told)) for name, told in registry.declared_tasks().items() if name in paper.tasks),
            (
                "techniques",
                ", ".join(f"--technique {name}, with any model" for name in paper.offered) if self.file else "",
            ),
            ("idea", paper.idea),
            ("builds on", ", ".join(paper.builds_on)),
            ("code", paper.official + (f" ({paper.licence})" if paper.licence else "")),
        ]
        return [row for row in rows if row[1]]

    def to_json(self) -> dict[str, Any]:
        held = {
            "on_shelf": self.file is not None,
            "page": self.text or None,
            "file": str(self.file) if self.file else None,
        }
        return self.paper.to_json() | held

    def _repr_html_(self) -> str:
        caveats = [f"caveat: {caveat}" for caveat in self.paper.caveats if self.file]
        return page(self.paper.id, facts=self.facts(), lines=caveats)

    def __repr__(self) -> str:
        rows = [*self.facts(), *(("caveat", caveat) for caveat in self.paper.caveats if self.file)]
        return "\n".join([*aligned(rows), "", self.text or "on the reading list, not on the shelf yet"])


@typed
def read(paper: str) -> Page:
    """What a paper is: the idea, the equation, what its text hides, how to try it.

    paper: the id of a paper of the reading list, or of a baseline. Raises PapertrialError with a suggestion for any other.

        >>> import papertrial as pt
        >>> pt.read("mlp_mixer").paper.year
        2021
    """
    waiting = {row.paper.id: row.paper for row in registry.reading_list() if not row.on_shelf}
    if paper in waiting:
        return Page(waiting[paper])
    entry = registry.find(paper)
    return Page(entry.paper, ast.get_docstring(ast.parse(entry.file.read_text(encoding="utf-8"))) or "", entry.file)
