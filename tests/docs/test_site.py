"""The site builds without a warning, asks nothing of other hosts, and shows the pictures that its commands made."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
import threading
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tools.site import lists, papers
from tools.site.fences import blocks
from tools.site.hooks import from_root
from tools.site.markup import markdown, prose
from tools.site.outputs import cut
from tools.site.pictures import SHOTS

from papertrial.core import registry
from papertrial.study import html_page
from papertrial.use.doctor import checks

ROOT = Path(__file__).parents[2]
#: a page's own links elsewhere are for readers; these fetch
_FETCHING = {
    ("link", "href"),
    ("script", "src"),
    ("img", "src"),
    ("iframe", "src"),
    ("source", "src"),
    ("object", "data"),
}


class _Fetched(HTMLParser):
    """What a browser asks for when it opens a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag == "link" and given.get("rel") in ("canonical", "prev", "next"):
            return
        self.addresses += [value for name, value in attrs if (tag, name) in _FETCHING and value]
        self.addresses += re.findall(r"url\(([^)]+)\)", given.get("style") or "")


def _fetched(page: str) -> list[str]:
    parser = _Fetched()
    parser.feed(page)
    return parser.addresses


def _elsewhere(address: str) -> bool:
    return bool(re.match(r"""["']?(?:https?:)?//""", address))


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_asks_nothing_of_other_hosts(tmp_path):
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert {page.stem for page in (tmp_path / "site" / "papers").glob("*.html")} == {*papers.names(), "index"}
    for page in pages:
        addresses = _fetched(page.read_text(encoding="utf-8"))
        assert addresses and not [address for address in addresses if _elsewhere(address)], page
        for address in addresses:  # and what it fetches is there
            if not address.startswith("data:"):
                file = (page.parent / re.split("[?#]", address)[0]) if not address.startswith("/") else page
                assert file.exists(), f"{page} fetches {address}"
    for style in (tmp_path / "site").rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        found = re.findall(r"url\(([^)]+)\)|@import\s+([^;]+)", text)
        assert not [pair for pair in found if _elsewhere(pair[0] or pair[1])], style
    if shutil.which("chromium"):
        _asks_only_itself(
            tmp_path / "site", ("index.html", "papers/barlow_twins.html", "api/core.html", "gallery.html")
        )


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *words):
        pass


def _asks_only_itself(site: Path, names: tuple[str, ...]) -> None:
    from playwright.sync_api import sync_playwright

    # as a reader sees it: from the file system browsers forbid the search its index
    handler = functools.partial(QuietHandler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, sync_playwright() as player:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        home = f"http://127.0.0.1:{server.server_port}/"
        browser = player.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        asked: list[str] = []
        wrong: list[str] = []
        for width in (390, 1280):
            page = browser.new_page(viewport={"width": width, "height": 800})
            page.on("request", lambda request: asked.append(request.url))
            page.on("pageerror", lambda error: wrong.append(str(error)))
            for name in names:
                page.goto(home + name)
                page.wait_for_timeout(500)
                assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{name} is wider than {width}"
                plots = page.locator(".plot")
                assert all(plots.nth(at).locator("svg").count() for at in range(plots.count())), f"{name}: no curves"
        assert not wrong
        assert all(url.startswith((home, "data:", "blob:")) for url in asked)
        browser.close()
        server.shutdown()


def test_what_a_page_fetches_from_elsewhere_is_noticed():
    page = '<script src="https://x.org/a.js"></script><img src="//x.org/a.png"><a href="https://x.org">read</a><link href="a.css">'
    assert [_elsewhere(address) for address in _fetched(page)] == [True, True, False]


@pytest.mark.parametrize("paper", papers.names())
def test_a_paper_has_a_page_with_all_there_is(paper):
    page = papers.page(paper, ROOT / "evidence")
    listed = registry.papers()[paper]
    assert page.startswith(f"# {paper}\n")
    for title in ("The idea", "The equation", "What matters", "Claims", "Options", "Code"):
        assert f"\n## {title}\n" in page, title
    assert "### Caveats" in page and f"arXiv {listed.arxiv}" in page
    assert 'class="verdict ' in page and "### Where it was run" in page
    config = getattr(registry.load(paper), "Config", None)
    for name in getattr(config, "__dataclass_fields__", {}):
        assert f"<code>{name}</code>" in page, name


def test_links_of_the_readme_lead_to_pages_of_the_site():
    assert from_root("[a](docs/data.md) [b](src/papertrial/papers/rtdl.py)") == "[a](data.md) [b](papers/rtdl.md)"
    assert (
        from_root("[a](docs/claims.md#rtdl) [b](https://x.org/docs/a)")
        == "[a](claims.md#rtdl) [b](https://x.org/docs/a)"
    )
    assert (
        from_root("![a](docs/pictures/report.png) [b](CHANGELOG.md)") == "![a](pictures/report.png) [b](changelog.md)"
    )


def test_links_within_the_checkout_lead_somewhere():
    for file in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", file.read_text(encoding="utf-8")):
            made = target.startswith("../api/")
            assert made or (file.parent / target).exists(), f"{file.relative_to(ROOT)} leads to {target}"


def test_text_is_never_taken_for_markup():
    assert prose("a_b * c `d_e*` <f>") == r"a\_b \* c `d_e*` \<f\>"
    made = markdown([html_page.Table(["a"], [["<b>1</b>"], [html_page.Tag("x", "holds", "good")], [None]])], "")
    assert "&lt;b&gt;1" in made and '<span class="verdict good">holds</span>' in made and "<td>-</td>" in made
    with pytest.raises(TypeError, match="Legend"):
        markdown([html_page.Legend([("a", "b")])], "")


def test_lists_on_pages_are_made():
    asked = {
        name for file in (ROOT / "docs").rglob("*.md") for name in re.findall(r"<!-- made: (\w+) -->", file.read_text())
    }
    assert asked == lists.LISTS.keys()
    assert "`lightgbm`" in lists.baselines() and "papertrial[tabular]" in lists.extras()
    assert "weight_decay" in lists.training() and "| `tabular` | 1 |" in lists.tasks()


def test_troubleshooting_knows_every_check_of_the_doctor():
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    unknown = [
        check["name"] for check in checks() if not check["name"].startswith("[") and f"`{check['name']}`" not in page
    ]
    assert not unknown


def test_the_gallery_shows_each_picture_below_the_commands_that_made_it():
    text = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    typed = [command for block in blocks(text, "gallery") for command in block.commands]
    pictures = re.findall(r"pictures/(\w+)\.png", text)
    assert pictures == [shot.name for shot in SHOTS]
    for shot in SHOTS:
        file = ROOT / "docs" / "pictures" / f"{shot.name}.png"
        assert file.stat().st_size < 100_000, f"{file.name} is large"
        for command in (*shot.commands, *filter(None, [shot.serve])):
            assert command in typed, command


def test_progress_is_cut_from_an_output_that_is_shown():
    assert cut("plan\nseed 1 of 2: a\nseed 2 of 2: a\n\nverdict  x\n") == "plan\n...\nverdict  x"
