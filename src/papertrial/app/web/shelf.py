"""The shelf as pages show it: what a paper is, how to use it, and what has become of its claims."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from papertrial.core import registry
from papertrial.core.errors import PapertrialError
from papertrial.core.paper import Paper
from papertrial.core.recipe import Optim, ranges, resolve
from papertrial.core.registry import Listed
from papertrial.study import code_marks
from papertrial.study.check import CANNOT_TELL, FAILS, HOLDS, NOT_RUN, VERDICTS
from papertrial.study.evidence import TONES, Tried, of_paper, page
from papertrial.study.html_page import Code, Facts, Fold, Heading, Link, Page, Section, Table, Text
from papertrial.study.report_blocks import listed, sentence, typed


@dataclass(frozen=True)
class Line:
    """A paper as the list shows it. claims: (words, tone), such as `3 hold`.  state: what it lacks.  reason: why nothing is
    known of its claims."""

    paper: Paper
    on_shelf: bool
    claims: tuple[tuple[str, str], ...] = ()
    state: str = ""
    reason: str = ""


def lines(evidence: Path, words: str = "", task: str = "", month: str = "", shelf: bool = False) -> list[Line]:
    """The papers that can be used, then those that cannot yet, less what was not asked for. words: all of them stand in the
    paper's facts."""
    wanted = words.casefold().split()
    found = [
        _line(row, evidence)
        for row in registry.reading_list()
        if (not task or task in row.paper.tasks)
        and (not month or row.paper.month == month)
        and (row.on_shelf or not shelf)
        and all(word in _told(row.paper) for word in wanted)
    ]
    return sorted(found, key=lambda line: not line.on_shelf)


def tasks() -> list[str]:
    return sorted({name for row in registry.reading_list() for name in row.paper.tasks})


def months() -> list[str]:
    return sorted({row.paper.month for row in registry.reading_list()} - {""})


def _told(paper: Paper) -> str:
    told = (paper.id, paper.title, paper.idea, paper.authors, *paper.tasks, *paper.tags, *paper.techniques)
    return " ".join(told).casefold()


def _line(row: Listed, evidence: Path) -> Line:
    if not row.on_shelf:
        return Line(row.paper, False, state="not yet")
    missing = registry.missing_package(row.paper)
    state = f"needs [{missing[1]}]" if missing else ""
    try:
        return Line(row.paper, True, _counts(row.paper.id, evidence, mark(evidence, row.paper.id)), state)
    except PapertrialError as error:
        return Line(row.paper, True, state=state, reason=str(error))


def mark(evidence: Path, paper: str) -> tuple[int, int]:
    """Changes with the evidence on a paper, and with what is known of the code behind it."""
    times, sizes = 0, 0
    for file in (evidence / f"{paper}.jsonl", code_marks.file_of(evidence, paper)):
        try:
            about = file.stat()
        except OSError:
            continue
        times, sizes = max(times, about.st_mtime_ns), sizes + about.st_size
    return times, sizes


@lru_cache(maxsize=256)
def _counts(paper: str, evidence: Path, state: tuple[int, int]) -> tuple[tuple[str, str], ...]:
    tried = Tried.read(evidence, paper)
    newest = tried.newest
    verdicts = [row["verdict"] for name, row in newest.items() if name not in tried.changed]
    verdicts += [NOT_RUN for name in _written(paper) if name not in newest]
    counts = ((verdict, verdicts.count(verdict)) for verdict in VERDICTS)
    told = [(f"{count} {_word(verdict, count)}", TONES[verdict]) for verdict, count in counts if count]
    old = [(f"{len(tried.changed)} {code_marks.CHANGED}", TONES[CANNOT_TELL])] if tried.changed else []
    return (*told, *old)


def _word(verdict: str, count: int) -> str:
    return {HOLDS: "hold", FAILS: "fail"}.get(verdict, verdict) if count > 1 else verdict


@cache
def _written(paper: str) -> tuple[str, ...]:
    """Names of a paper's claims, read without importing them."""
    files = registry.claim_files(paper)
    nodes = (node for each in files for node in ast.parse(each.read_text(encoding="utf-8")).body)
    return tuple(
        node.name
        for node in nodes
        if isinstance(node, ast.FunctionDef)
        and any(isinstance(call, ast.Call) and getattr(call.func, "id", "") == "claim" for call in node.decorator_list)
    )


@lru_cache(maxsize=4)
def overview(folder: Path, files: tuple[Path, ...], state: tuple[tuple[int, ...], ...]) -> Page:
    """Every claim that was tried. state: the marks of the files."""
    return page(folder, files)


@lru_cache(maxsize=64)
def sections(paper: str, evidence: Path, state: tuple[int, int]) -> list[Section]:
    """The page of a paper on the shelf. state: the mark of its evidence.

    Raises PapertrialError when an extra it needs is missing, or its evidence cannot be read.
    """
    tried = Tried.read(evidence, paper)
    module, facts = registry.load(paper), registry.find(paper).paper
    return [
        Section("How to use it", [Code("\n".join(commands(facts))), *_needs(facts)]),
        Section("Claims", of_paper(tried), _claims_lead(tried)),
        Section("What it is", _page(inspect.getdoc(module) or "")),
        Section(
            "Settings",
            _settings(module, facts.kind),
            "Every default, and where it comes from; --set NAME=VALUE changes one.",
        ),
    ]


def commands(paper: Paper) -> list[str]:
    """What one types to use it."""
    first = [
        f"papertrial read {paper.id}",
        *(f"papertrial check {paper.id} --scale base" for _ in _written(paper.id)[:1]),
    ]
    if paper.command:
        return [f"{paper.command} --help", *first]
    if paper.kind == "analysis":
        what = "SOURCE --data DATA" if paper.trains else "MODEL"
        return [f"papertrial measure {paper.id} {what}", *first]
    if paper.kind == "technique" or not paper.tasks:
        return [*(f"papertrial fit MODEL --data DATA --technique {name}" for name in paper.techniques), *first]
    own = [
        f"papertrial compare {paper.id} --data DATA",
        f"papertrial fit {paper.id} --data DATA --budget 10m",
        f"papertrial estimate {paper.id} --data DATA",
    ]
    return [*own, *(f"papertrial fit MODEL --data DATA --technique {name}" for name in paper.techniques), *first]


def _needs(paper: Paper) -> list[Any]:
    missing = registry.missing_package(paper)
    if missing:
        return [Text(f"It needs the package {missing[0]}: pip install 'papertrial[{missing[1]}]'")]
    return [Text(f"It needs the extra {listed(paper.needs)}, which is installed here.", "note")] if paper.needs else []


def _claims_lead(tried: Tried) -> str:
    return "" if tried.newest else "There is no evidence on this paper here: its claims were not run."


#: headings of what is set line by line
_SET = ("The equation", "Try", "Notation")


def _page(text: str) -> list[Any]:
    """The docstring by its headings, less its first lines, which stand at the top of the page."""
    blocks: list[Any] = []
    for part in text.split("\n\n")[2:]:
        head, _, body = part.partition("\n")
        if not body.startswith("    "):
            head, body = "", part
        body = textwrap.dedent(body)
        blocks += [Heading(head)] if head else []
        blocks.append(Code(body) if head in _SET else Text(" ".join(body.replace("`", "").split())))
    return blocks


def _settings(module: Any, kind: str) -> list[Any]:
    blocks = [_sourced(module.Config)]
    variants, recipes = getattr(module, "variants", {}), getattr(module, "recipes", {})
    if variants:
        changed = [(name, _changes(values) or "defaults") for name, values in variants.items()]
        blocks += [Heading("Variants"), Table(("variant", "what it sets"), changed, words=2, stacked=True)]
    if recipes:
        head = ("recipe", "what it sets", "budget", "where it comes from")
        rows = [
            (recipe.name, _changes({**recipe.config, **recipe.optim}) or "defaults", str(recipe.budget), recipe.source)
            for recipe in recipes.values()
        ]
        blocks += [Heading("Recipes"), Table(head, rows, words=4, stacked=True)]
    if kind in ("architecture", "objective"):
        blocks.append(Fold("How it is trained where no recipe says otherwise", [_sourced(Optim)]))
    return blocks


def _sourced(settings: type) -> Any:
    """The fields of a dataclass with their defaults, ranges and sources."""
    within = ranges(settings)
    rows = [
        (row.name, typed(row.value), str(within.get(row.name, "")), row.source)
        for row in resolve(settings, None, {})[1]
    ]
    if not rows:
        return Text("It has no settings of its own.")
    return Table(("setting", "default", "range", "where it comes from"), rows, words=4, stacked=True)


def _changes(values: Any) -> str:
    return ", ".join(f"{name}={typed(value)}" for name, value in values.items())


def about(paper: Paper) -> list[Any]:
    """Title, authors and the like."""
    rows: Sequence[tuple[str, str]] = [
        ("authors", paper.authors),
        ("year", str(paper.year or "")),
        ("selected", paper.month),
        ("kind", paper.kind),
        ("tasks", ", ".join(paper.tasks)),
        ("techniques", ", ".join(paper.techniques)),
        ("builds on", ", ".join(paper.builds_on)),
    ]
    links = [Link(f"arXiv {paper.arxiv}", f"https://arxiv.org/abs/{paper.arxiv}")] if paper.arxiv else []
    if paper.official.startswith("https://"):
        links.append(Link("The authors' code" + (f" ({paper.licence})" if paper.licence else ""), paper.official))
    return [Text(sentence(paper.idea)), *links, Facts([row for row in rows if row[1]])]
