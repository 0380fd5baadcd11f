"""A site: one FastAPI application with its templates, its files and its menu."""

from __future__ import annotations

import gzip
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, FileSystemLoader, PrefixLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from papertrial.app.site.guard import Guard, policy
from papertrial.core.errors import PapertrialError
from papertrial.study.html_page import plotly, typeset

_HERE = Path(__file__).parent
_STUDY = Path(__file__).parents[2] / "study"
#: files by name, made of several: pages have the style of reports, and draw figures as they do
_FILES = {
    "site.css": (_STUDY / "page.css", _HERE / "static" / "site.css"),
    "site.js": (_STUDY / "page.js", _HERE / "static" / "site.js"),
    "htmx.min.js": (_HERE / "static" / "htmx.min.js",),
}
_MEDIA = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
#: nothing from texts is run, no style element is added, no page is kept in the browser's storage, and a connection that
#: says nothing for so many milliseconds is lost
_HTMX = '{"allowEval": false, "includeIndicatorStyles": false, "historyCacheSize": 0, "timeout": 20000}'
_KEPT = "public, max-age=31536000, immutable"


@dataclass(frozen=True)
class Asset:
    """A file that is served from memory. Its address changes with what is in it, so that a browser may keep it."""

    name: str
    content: bytes

    @cached_property
    def address(self) -> str:
        return f"/static/{self.name}?v={hashlib.sha256(self.content).hexdigest()[:12]}"

    @cached_property
    def packed(self) -> bytes:
        return gzip.compress(self.content, 6, mtime=0)


class Site:
    """What pages share. See `papertrial.app.site.make_site`.

    name: stands in every title.  app: the application that routes are added to.  guard: what is served: `app` behind
    its checks, among them `guard.public`, beginnings of paths that need no token, and `guard.limits`, bytes that a
    request may bring by the beginning of its path.  menu: (words, address) of the links at the top.
    """

    def __init__(self, name: str, token: str | None, hosts: Sequence[str], home: str | None = None) -> None:
        self.name = name
        self.app = FastAPI(title=name, docs_url=None, redoc_url=None, openapi_url=None)
        self.guard = Guard(self.app, token, hosts, home)
        self.menu: list[tuple[str, str]] = []
        self._assets: dict[str, Asset] = {}
        self._folders: dict[str, Any] = {}
        self.templates("site", _HERE / "templates")
        self.templates("study", _STUDY)
        for file, parts in _FILES.items():
            self.asset(file, b"\n".join(part.read_bytes() for part in parts))
        self.asset("plotly.min.js", plotly().encode())
        self.app.add_api_route("/static/{name}", self._static, include_in_schema=False)
        self.app.add_exception_handler(HTTPException, self._refused)
        self.app.add_exception_handler(PapertrialError, self._mendable)
        self.app.add_exception_handler(ClientDisconnect, self._dropped)
        self.app.add_exception_handler(Exception, self._defect)

    def templates(self, name: str, folder: Path) -> None:
        """Templates of a folder are called `name/file` from now on; they extend "site/base.html"."""
        self._folders[name] = FileSystemLoader(folder)

    def asset(self, name: str, content: bytes) -> None:
        """Serve a file from memory; in templates `asset(name)` is its address."""
        self._assets[name] = Asset(name, content)

    def page(self, request: Request, template: str, status: int = 200, **context: Any) -> HTMLResponse:
        """A template as an answer. It knows `request`, `path`, `site` and what is in the context, where `plots`, JSON of
        figures, brings Plotly to the page."""
        plots = context.setdefault("plots", "")
        text = self._environment.get_template(template).render(request=request, path=request.url.path, **context)
        body = text.encode("utf-8", "replace")  # a name on the disk or in a file may be no text
        return HTMLResponse(body, status, {"content-security-policy": policy(styles=True)} if plots else None)

    @cached_property
    def _environment(self) -> Environment:
        made = Environment(
            loader=PrefixLoader(self._folders),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        made.filters["typeset"] = typeset
        made.globals.update(site=self, asset=lambda name: self._assets[name].address, htmx_settings=_HTMX)
        return made

    def address(self, request: Request) -> str:
        """How other people reach the site: what its keeper said, or else how this visitor did."""
        return self.guard.home or str(request.base_url).rstrip("/")

    async def _static(self, request: Request, name: str) -> Response:
        """A file by its name; no path leads to the disk."""
        asset = self._assets.get(name)
        if asset is None:
            raise HTTPException(404)
        packed = "gzip" in request.headers.get("accept-encoding", "")
        headers = {"vary": "accept-encoding", "cache-control": _KEPT if request.query_params.get("v") else "no-cache"}
        headers |= {"content-encoding": "gzip"} if packed else {}
        return Response(asset.packed if packed else asset.content, 200, headers, _MEDIA[Path(name).suffix])

    async def _refused(self, request: Request, error: Any) -> Response:
        words = "There is no such page." if error.status_code == 404 else f"{HTTPStatus(error.status_code).phrase}."
        return self.page(request, "site/error.html", error.status_code, words=words, fix="")

    async def missing(self, request: Request, error: Exception) -> Response:
        """For applications whose FileNotFoundError means that there is no such page."""
        return await self._refused(request, HTTPException(404))

    async def _mendable(self, request: Request, error: Any) -> Response:
        return self.page(request, "site/error.html", 400, words=error.problem, fix=error.fix)

    async def _dropped(self, request: Request, error: Exception) -> Response:
        """Whoever sent it went away in the middle: nothing was kept, and nobody is there to be told."""
        print(
            f"{self.name}: {request.method} {request.url.path} was cut off on its way; nothing of it was kept",
            file=sys.stderr,
        )
        return Response(status_code=400)

    async def _defect(self, request: Request, error: Exception) -> Response:
        words = "This page cannot be shown: a defect of papertrial."
        return self.page(request, "site/error.html", 500, words=words, fix="The server has printed what happened.")
