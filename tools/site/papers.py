"""The page of a paper: its docstring, how to try it, its claims with their figures, its options, its caveats."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import dedent
from typing import Any

from papertrial.app.printing import as_typed
from papertrial.core import registry
from papertrial.core.paper import Paper
from papertrial.core.ranges import Range
from papertrial.core.recipe import Setting, ranges, resolve
from papertrial.study.evidence import Tried, of_paper
from papertrial.study.shelf_table import tally, use
from tools.site.markup import fence, inline, markdown, prose, table

#: headings whose text is aligned by hand
_AS_IT_IS = ("The equation", "Notation")
#: two commands on one line stand this far apart
_APART = re.compile(r"\s{4,}(?=papertrial )")


def names() -> list[str]:
    """The papers that have a page, in the order of the reading list."""
    return [listed.paper.id for listed in registry.reading_list() if listed.on_shelf]


def page(paper: str, evidence: Path) -> str:
    """The page as Markdown. evidence: the folder with its lines."""
    entry = registry.find(paper)
    module = registry.load(paper)
    sections = _docstring(ast.get_docstring(ast.parse(entry.file.read_text(encoding="utf-8"))) or "")
    tried = Tried.read(evidence, paper)
    parts = [f"# {paper}", prose(entry.paper.idea), _facts(entry.paper, tried)]
    parts += [f"## Try it\n\n{fence(_commands(sections.pop('Try')), 'sh')}"] if "Try" in sections else []
    parts += [f"## {title}\n\n{_body(title, text)}" for title, text in sections.items()]
    parts += [
        "## Claims",
        f"What the paper claims, and what came out here: {_counted(tried)}.",
        markdown(of_paper(tried), "../"),
    ]
    parts += ["## Options", *_options(paper, module)]
    parts.append(f"## Code\n\n::: {entry.module}\n    options:\n      show_root_heading: false\n      heading_level: 3")
    return "\n\n".join(part for part in parts if part) + "\n"


def index(evidence: Path) -> str:
    """All papers of the reading list: those on the shelf with their pages, and those that wait."""
    rows, waiting = [], []
    for listed in registry.reading_list():
        paper = listed.paper
        if listed.on_shelf:
            came = _counted(Tried.read(evidence, paper.id))
            tasks = ", ".join(f"`{task}`" for task in paper.tasks) or use(paper)
            rows.append(f"| [`{paper.id}`]({paper.id}.md) | {paper.month} | {prose(paper.idea)} | {came} | {tasks} |")
        else:
            waiting.append(f"| `{paper.id}` | {paper.month} | {prose(paper.idea)} |")
    return "\n".join(
        [
            "# Papers",
            "",
            f"The reading list: {len(rows) + len(waiting)} papers. {len(rows)} of them are on the shelf: you can train, compare and check them.",
            "",
            "| paper | selected | idea | claims | tasks |",
            "|---|---|---|---|---|",
            *rows,
            "",
            "## Not on the shelf yet",
            "",
            "| paper | selected | idea |",
            "|---|---|---|",
            *waiting,
            "",
        ]
    )  # fmt: skip


def _counted(tried: Tried) -> str:
    verdicts = [row["verdict"] for row in tried.newest.values()] + ["not run"] * len(tried.missing)
    return tally(verdicts) or "no claims"


def _docstring(text: str) -> dict[str, str]:
    """Heading -> text: a heading is a line at the left with indented lines under it."""
    found = re.findall(r"^(\S.*)\n((?:(?: {4}.*)?\n)+)", text + "\n", re.MULTILINE)
    return {title: dedent(body).strip("\n") for title, body in found if body.strip()}


def _body(title: str, text: str) -> str:
    if title in _AS_IT_IS and (title != "Notation" or re.search(r"\S {3,}\S", text)):
        return fence(text, "text")
    paragraphs = re.split(r"\n\s*\n", text)
    return "\n\n".join(
        fence(part, "text") if re.search(r"^\s+\S", part, re.MULTILINE) or re.search(r"\S {3,}\S", part) else prose(part)
        for part in paragraphs
    )  # fmt: skip


def _commands(text: str) -> str:
    """One command a line; what is said about them becomes a comment."""
    lines: list[str] = []
    for line in text.splitlines():
        for part in _APART.split(line.strip()):
            command = part.startswith("papertrial ")
            lines.append(part if command or not part else f"# {part.strip('()')}")
    return "\n".join(lines)


def _facts(paper: Paper, tried: Tried) -> str:
    dates = sorted(row["environment"]["date"][:10] for row in tried.newest.values())
    link = f'<a href="https://arxiv.org/abs/{paper.arxiv}">arXiv {paper.arxiv}</a>' if paper.arxiv else ""
    rows = [
        ("paper", ", ".join(filter(None, [inline(paper.title), link]))),
        ("authors", inline(paper.authors) + (f", {paper.year}" if paper.year else "")),
        ("selected", paper.month),
        ("kind", paper.kind),
        ("tasks", ", ".join(f"<code>{task}</code>" for task in paper.tasks) or inline(use(paper))),
        ("techniques", ", ".join(f"<code>--technique {name}</code>, with any model" for name in paper.techniques)),
        ("builds on", ", ".join(f'<a href="{name}.html">{name}</a>' for name in paper.builds_on)),
        ("their code", inline(paper.official) + (f" ({inline(paper.licence)})" if paper.licence else "")),
        ("needs", ", ".join(f"<code>pip install 'papertrial[{extra}]'</code>" for extra in paper.needs)),
        ("measured", dates[-1] if dates else ""),
    ]
    return table(["", ""], [list(row) for row in rows if row[1]], "facts")


def _options(paper: str, module: Any) -> Iterator[str]:
    entry = registry.find(paper)
    config = getattr(module, "Config", None)
    trains = config is not None and not entry.paper.refusal
    if config is not None:
        _, settings = resolve(config, None, {})
        flag = f"papertrial {'fit' if trains else 'measure'} {paper} ... --set name=value"
        yield f"Each is set with `{flag}`."
        yield settings_table(settings, ranges(config))
    if trains and entry.paper.kind != "estimator":
        yield "How it is trained is set in the same way: [options of training](../options.md)."
    for name in entry.paper.techniques:
        yield f"### --technique {name}"
        yield f"`--technique {name}:setting=value`, with any model that is trained by gradient steps."
        yield settings_table(registry.technique_defaults(name), registry.technique_ranges(name))
    variants = getattr(module, "variants", {})
    if variants:
        yield "### Variants"
        rows = [[f"<code>{paper}:{name}</code>", inline(_changes(changes))] for name, changes in variants.items()]
        yield table(["variant", "what it changes"], rows)
    recipes = getattr(module, "recipes", {})
    if recipes:
        yield "### Recipes"
        yield table(
            ["recipe", "what it changes", "source", "cost"],
            [
                [
                    f"<code>--recipe {recipe.name}</code>",
                    inline(_changes({**recipe.config, **recipe.optim}, recipe.techniques)),
                    inline(recipe.source),
                    inline(recipe.cost),
                ]
                for recipe in recipes.values()
            ],
        )


def _changes(values: Any, techniques: Sequence[str] = ()) -> str:
    told = [f"{name}={as_typed(value)}" for name, value in values.items()] + [
        f"--technique {text}" for text in techniques
    ]
    return ", ".join(told) or "nothing"


def settings_table(settings: Sequence[Setting], within: Mapping[str, Range]) -> str:
    """Name, default, range and source of each."""
    rows = [
        [
            f"<code>{row.name}</code>",
            f"<code>{inline(as_typed(row.value))}</code>",
            f"<code>{inline(str(within.get(row.name, 'any')))}</code>",
            inline(row.source),
        ]
        for row in settings
    ]
    return table(["option", "default", "range", "source"], rows)


def tries(paper: str) -> str:
    """What the docstring of a paper tells to try, as the block of its page."""
    found = _docstring(ast.get_docstring(ast.parse(registry.find(paper).file.read_text(encoding="utf-8"))) or "")
    return fence(_commands(found["Try"]), "sh") if "Try" in found else ""
