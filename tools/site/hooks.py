"""What MkDocs calls while it builds the site (`hooks` in mkdocs.yml)."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
EVIDENCE = ROOT / "evidence"
#: files of the checkout that are pages of the site
FROM_ROOT = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
_MADE = re.compile(r"<!-- made: (\w+) -->")
_STUDY = ROOT / "src" / "papertrial" / "study"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Papers and layers come into the navigation by themselves."""
    sys.path[:0] = [str(ROOT), str(ROOT / "src")]  # this checkout, whatever is installed
    from tools.site import papers, reference

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    shelf = [{"All papers": "papers/index.md"}, *({name: f"papers/{name}.md"} for name in papers.names())]
    layers = [{name: f"api/{name}.md"} for name, _ in reference.pages()]
    for entry in config.nav or []:
        for title, inside in entry.items():
            if inside == "papers/":
                entry[title] = shelf
            elif inside == "api/":
                entry[title] = layers
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made, and the style and scripts of figures."""
    for name, content in [*_pages(), *_assets()]:
        files.append(File.generated(config, name, content=content))
    return files


def _pages() -> Iterator[tuple[str, str]]:
    from tools.site import papers, reference

    for source, name in FROM_ROOT.items():
        yield name, from_root((ROOT / source).read_text(encoding="utf-8"))
    yield "papers/index.md", papers.index(EVIDENCE)
    for name in papers.names():
        yield f"papers/{name}.md", papers.page(name, EVIDENCE)
    for name, text in reference.pages():
        yield f"api/{name}.md", text


def from_root(text: str) -> str:
    """Links of a file at the top of the checkout, as the site has them."""

    def moved(match: re.Match[str]) -> str:
        target, anchor = match[1], match[2] or ""
        paper = re.match(r"src/papertrial/papers/(\w+)(?:\.py|/__init__\.py)$", target)
        if paper:
            return f"](papers/{paper[1]}.md{anchor})"
        return f"]({FROM_ROOT.get(target, target.removeprefix('docs/'))}{anchor})"

    return re.sub(r"\]\((?!https?:|#)([^)#]+)(#[^)]*)?\)", moved, text)


def _assets() -> Iterator[tuple[str, str]]:
    from papertrial.study.html_page import plotly

    yield "assets/plotly.min.js", plotly()
    yield "assets/figures.js", (_STUDY / "page.js").read_text(encoding="utf-8")
    colours = (_STUDY / "page.css").read_text(encoding="utf-8").split("* {", 1)[0]
    yield "assets/site.css", colours + (Path(__file__).parent / "site.css").read_text(encoding="utf-8")


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    from tools.site.lists import LISTS

    def made(match: re.Match[str]) -> str:
        if match[1] not in LISTS:
            raise PluginError(f"{page.file.src_uri} asks for a list {match[1]!r} that nobody makes")
        return LISTS[match[1]]()

    return _MADE.sub(made, markdown)
