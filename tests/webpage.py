"""A page of papertrial taken apart, and opened in a browser."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
VOID = {"meta", "img", "br", "line", "rect", "path", "polygon", "wbr"}


class Read(HTMLParser):
    """A page taken apart: elements with their attributes, texts by element, and whether all that opens closes."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.inside: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(file.read_text(encoding="utf-8"))
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
            if tag in ("script", "style", "code", "h1", "h2", "h3", "title"):
                self.inside.setdefault(tag, []).append("")

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        for tag in ("script", "style", "code", "h1", "h2", "h3", "title"):
            if tag in self.open:
                self.inside[tag][-1] += data
        if not {"script", "style"} & set(self.open):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def plots(self) -> dict:
        return json.loads(self.inside["script"][0])


def look(file: Path) -> None:
    """Open it wide and narrow, light and dark: nothing is complained of, fetched, or wider than the screen, and every
    figure is drawn. Skips where there is no browser."""
    if CHROMIUM is None:
        pytest.skip("needs chromium, which is not on this machine")
    browsers = pytest.importorskip("playwright.sync_api", reason="needs playwright (the extra dev)")
    options = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--no-first-run",
    ]
    with browsers.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=options)
        for width, scheme in ((1280, "light"), (390, "dark")):
            sheet = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            said, asked = [], []
            sheet.on("console", lambda message, said=said: said.append(message.text))
            sheet.on("pageerror", lambda error, said=said: said.append(str(error)))
            sheet.on("dialog", lambda dialog, said=said: said.append(dialog.message) or dialog.dismiss())
            sheet.on("request", lambda request, asked=asked: asked.append(request.url))
            sheet.goto(file.as_uri())
            sheet.wait_for_selector("svg.main-svg")
            assert not said, (file.name, width, said)
            assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
            plots = sheet.locator(".plot").count()
            assert plots and sheet.locator(".plot:has(svg.main-svg)").count() == plots
            assert sheet.evaluate("document.documentElement.scrollWidth") <= width, "the page itself scrolls sideways"
            ground = sheet.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, re.findall(r"\d+", ground)[:3])) < 200) == (scheme == "dark")
            sheet.close()
        browser.close()
