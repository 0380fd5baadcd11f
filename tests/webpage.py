"""A page of papertrial taken apart, and opened in a browser."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from papertrial.app.site.serve import listen

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


OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
)


@contextmanager
def browser():
    """Chromium without a window. Skips where there is none."""
    if CHROMIUM is None:
        pytest.skip("needs chromium, which is not on this machine")
    browsers = pytest.importorskip("playwright.sync_api", reason="needs playwright (the extra dev)")
    with browsers.sync_playwright() as player:
        made = player.chromium.launch(executable_path=CHROMIUM, args=list(OPTIONS))
        yield made
        made.close()


def inspect(made, addresses, own: str, *, refused: bool = False) -> None:
    """Open each wide and narrow, light and dark: nothing is complained of, fetched from elsewhere than `own`, or wider than
    the screen, and every figure is drawn. refused: they are pages that say no, which browsers remark upon."""
    for width, scheme in ((1280, "light"), (390, "dark")):
        sheet = made.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        said, asked = [], []
        remark = "Failed to load resource: the server responded with a status of 4" if refused else "\0"
        sheet.on("console", lambda m, said=said, remark=remark: m.text.startswith(remark) or said.append(m.text))
        sheet.on("pageerror", lambda error, said=said: said.append(str(error)))
        sheet.on("dialog", lambda dialog, said=said: said.append(dialog.message) or dialog.dismiss())
        sheet.on("request", lambda request, asked=asked: asked.append(request.url))
        for address in addresses:
            sheet.goto(address)
            plots = sheet.locator(".plot").count()
            if plots:
                sheet.wait_for_selector("svg.main-svg", state="attached")
            assert not said, (address, width, said)
            assert not [url for url in asked if not url.startswith(("data:", own))]
            assert sheet.locator(".plot:has(svg.main-svg)").count() == plots
            wide = sheet.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{address} scrolls sideways: {wide} of {width}"
            ground = sheet.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, re.findall(r"\d+", ground)[:3])) < 200) == (scheme == "dark")
        sheet.close()


def look(file: Path) -> None:
    """A report that is one file, which asks for no other, has figures."""
    with browser() as made:
        inspect(made, [file.as_uri()], file.as_uri())
    assert 'class="plot"' in file.read_text(encoding="utf-8")


def until(sheet, expression: str, seconds: float = 30.0) -> None:
    """Wait for an expression to be true. The page's policy lets no text be run, so the page itself cannot wait for it."""
    for _ in range(int(10 * seconds)):
        if sheet.evaluate(expression):
            return
        sheet.wait_for_timeout(100)
    raise AssertionError(f"not in {seconds} s: {expression}")


def asked(app, path="/take", method="POST", headers=(), body=(), host="127.0.0.1:8000", raw_path=None, query=b""):
    """One request by hand. Returns status, headers and body, and how many pieces of `body` were asked for."""
    told = [(b"host", host.encode()), (b"origin", f"http://{host}".encode())]
    told += [(name.lower().encode(), value.encode()) for name, value in headers]
    scope = {
        "type": "http", "method": method, "path": path, "raw_path": raw_path or path.encode(), "query_string": query,
        "headers": told, "scheme": "http", "server": ("127.0.0.1", 8000), "client": ("127.0.0.1", 1), "root_path": "",
        "http_version": "1.1",
    }  # fmt: skip
    pieces, sent, count = iter(body), [], 0

    async def receive():
        nonlocal count
        piece = next(pieces, None)
        count += piece is not None
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    start, *rest = sent
    return (
        start["status"],
        {name.decode(): value.decode() for name, value in start["headers"]},
        b"".join(message.get("body", b"") for message in rest),
        count,
    )


@contextmanager
def serving(site) -> Iterator[str]:
    """A site answering on a free port of this machine; gives its address."""
    import uvicorn

    with listen("127.0.0.1", 0) as listening:
        server = uvicorn.Server(uvicorn.Config(site.guard, log_level="critical", ws="none"))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def passing_on(listening, home: str, folder: Path) -> Iterator[None]:
    """A proxy that ends TLS on a bound socket and passes the bytes on to `home`, as they are."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl, which is not on this machine")
    certificate = [f"{folder}/{name}.pem" for name in ("chain", "key")]
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    subprocess.run([*words, "-out", certificate[0], "-keyout", certificate[1]], check=True, capture_output=True)
    secure = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    secure.load_cert_chain(*certificate)
    inner, ended, loops = urlsplit(home), asyncio.Event(), []

    async def copy(reader, writer):
        with contextlib.suppress(OSError):
            while piece := await reader.read(1 << 16):
                writer.write(piece)
                await writer.drain()
        writer.close()

    async def pass_on(reader, writer):
        onward = await asyncio.open_connection(inner.hostname, inner.port)
        await asyncio.gather(copy(reader, onward[1]), copy(onward[0], writer))
        for each in (writer, onward[1]):
            with contextlib.suppress(OSError):
                await each.wait_closed()

    async def run():
        loops.append(asyncio.get_running_loop())
        server = await asyncio.start_server(pass_on, sock=listening, ssl=secure)
        await ended.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait(others, timeout=30) if others else None

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        yield
    finally:
        loops[0].call_soon_threadsafe(ended.set)
        thread.join()
