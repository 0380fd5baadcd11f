"""The routes of the site. Each gathers what its page shows; the templates say how."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import Query, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from papertrial.app.site.site import Site
from papertrial.app.web import shelf, views
from papertrial.app.web.indexes import LIST, Indexes, link
from papertrial.app.web.jobs import Jobs
from papertrial.app.web.runs import MOST, RUNNING, Runs, mark
from papertrial.app.web.start import add_start
from papertrial.core import registry
from papertrial.core.errors import PapertrialError
from papertrial.data.base import cache_folder
from papertrial.discover.search import MODES
from papertrial.study.evidence import evidence_files
from papertrial.study.html_page import Page, plots_of

#: seconds between two looks at what is running
_EVERY = 2
_HITS = 20
_WORDS = {"hybrid": "words and meaning", "bm25": "words (BM25)", "dense": "meaning (vectors)"}
#: pictures of a run on its page; files that hold many of them; pixels of the screen that one of those, and another, is
#: enlarged to
_PICTURES = 24
_SHEETS = ("drawn.png", "grid.png", "test.png")
_SHEET, _SINGLE = 480, 144


def mount(site: Site, runs: Path | None, indexes: Sequence[Path], evidence: Path, data: Sequence[str] = ()) -> None:
    """Add the shelf, evidence, runs and search to a site, and with `data` what begins runs on them.

    Raises PapertrialError for a folder or data that cannot be used.
    """
    jobs = Jobs(runs, data) if runs is not None and data else None
    web = _Web(site, Runs(runs) if runs is not None else None, Indexes(indexes, _around(runs)), evidence, jobs)
    site.templates("web", Path(__file__).parent / "templates")
    site.menu += [("Shelf", "/"), ("Evidence", "/evidence"), ("Runs", "/runs"), ("Search", "/search")]
    if jobs is not None:
        add_start(site, jobs)
    for address, answer in (
        ("/", web.shelf),
        ("/papers/{name}", web.paper),
        ("/evidence", web.evidence_page),
        ("/side", web.side),
        ("/runs", web.runs),
        ("/runs/{path:path}", web.run),
        ("/reports/{path:path}", web.report),
        ("/pictures/{path:path}", web.picture),
        ("/search", web.search),
        ("/documents", web.document),
    ):
        site.app.add_api_route(address, answer, include_in_schema=False, response_class=Response)
    site.app.add_exception_handler(FileNotFoundError, site.missing)


def _around(runs: Path | None) -> list[Path]:
    return [*([runs] if runs is not None else []), cache_folder()]


class _Web:
    """What the pages are made from. Answers are made in threads, several at a time."""

    def __init__(
        self, site: Site, runs: Runs | None, indexes: Indexes, evidence: Path, jobs: Jobs | None = None
    ) -> None:
        self.site, self.folder, self.indexes, self.evidence, self.jobs = site, runs, indexes, evidence, jobs

    # -------------------------------------------------------------------------------------------------------- the shelf

    def shelf(self, request: Request, q: str = "", task: str = "", month: str = "", shelf_only: str = "") -> Response:
        found = shelf.lines(self.evidence, q[:200], task, month, bool(shelf_only))
        return self.site.page(
            request,
            "web/shelf.html",
            lines=found,
            asked={"q": q, "task": task, "month": month, "shelf_only": shelf_only},
            tasks=shelf.tasks(),
            months=shelf.months(),
        )

    def paper(self, request: Request, name: str) -> Response:
        row = next((row for row in registry.reading_list() if row.paper.id == name), None)
        if row is None:
            raise HTTPException(404)
        sections: list[Any] = []
        lead = ""
        if row.on_shelf:
            try:
                sections = shelf.sections(name, self.evidence, shelf.mark(self.evidence, name))
            except PapertrialError as error:
                lead = str(error)
        else:
            lead = "This paper is on the reading list but not on the shelf yet: it cannot be trained here."
        page = Page(f"paper · {name}", row.paper.title, [], sections, lead)
        return self._laid_out(request, page, above=shelf.about(row.paper), here="/")

    def evidence_page(self, request: Request) -> Response:
        """What is known of the claims of all papers, as `papertrial report evidence` has it."""
        files = evidence_files(self.evidence) if self.evidence.is_dir() else []
        if not files:
            return self._laid_out(request, Page("evidence", "There is no evidence on claims here", [], []))
        return self._laid_out(request, shelf.overview(self.evidence, tuple(files), tuple(map(mark, files))))

    # --------------------------------------------------------------------------------------------------------- the runs

    def runs(self, request: Request, q: str = "", state: str = "", sort: str = "") -> Response:
        asked = {"q": q[:200], "state": state, "sort": sort if sort in views.ORDERS else "changed"}
        every = self.folder.entries() if self.folder is not None else []
        found = views.chosen(every, **asked)
        busy = any(entry.state == RUNNING for entry in every)
        return self.site.page(
            request,
            "web/runs.html",
            folder=self.folder.root if self.folder is not None else None,
            entries=found[:MOST],
            left_out=len(found) - MOST,
            told=views.told(found),
            asked=asked,
            query=urlencode(asked),
            orders=views.ORDERS,
            tones=views.TONES,
            views=views,
            every=_EVERY if busy else 0,
        )

    def side(self, request: Request, run: list[str] = Query(default=[])) -> Response:  # noqa: B008
        """Two runs, or two comparisons, beside each other."""
        if self.folder is None:
            raise HTTPException(404)
        if len(run) != 2:
            raise PapertrialError(
                f"{len(run)} are chosen, and two stand side by side", "choose two in the list of runs"
            )
        found = [(self.folder.entry(path), self.folder.folder(path)) for path in run]
        return self._laid_out(request, views.side_by_side(*found), here="/runs", trail=[("Runs", "/runs")])

    def run(self, request: Request, path: str) -> Response:
        if self.folder is None:
            raise HTTPException(404)
        job = self.jobs.of(path) if self.jobs is not None else None
        entry, folder = self.folder.entry(path), self.folder.folder(path)
        try:
            page = views.page(entry, folder)
        except PapertrialError as error:  # it was there, and went while it was read
            raise HTTPException(404) from error
        up = path.split("/")[:-1]
        return self._laid_out(
            request,
            page,
            here="/runs",
            last=path.rpartition("/")[2],
            trail=[("Runs", "/runs"), *((part, views.address("/".join(up[: at + 1]))) for at, part in enumerate(up))],
            state=(entry.state, views.TONES[entry.state]),
            pictures=_gallery(self.folder.pictures(path), self.folder.shown_on),
            download=f"/reports/{quote(path)}" if entry.state == views.DONE else "",
            every=_EVERY if entry.state == RUNNING else 0,
            job=job,
            job_state=self.jobs.state(job) if job is not None and self.jobs is not None else "",
        )

    def picture(self, path: str) -> Response:
        if self.folder is None:
            raise HTTPException(404)
        headers = {"content-security-policy": "default-src 'none'; sandbox"}
        return Response(self.folder.picture(path), 200, headers, "image/png")

    def report(self, path: str) -> Response:
        """The report as one file to keep."""
        if self.folder is None:
            raise HTTPException(404)
        text = views.file_of(self.folder.entry(path), self.folder.folder(path))
        name = f"{path.replace('/', '-')}.html"
        headers = {
            "content-disposition": f"attachment; filename*=UTF-8''{quote(name)}",
            "content-security-policy": "default-src 'none'; sandbox",
        }
        return Response(text, 200, headers, "text/html; charset=utf-8")

    def _laid_out(self, request: Request, page: Page, **context: Any) -> Response:
        """A page of blocks, as a report is."""
        sections = [section for section in page.sections if section.blocks]
        name_of, plots = plots_of([block for section in sections for block in section.blocks])
        context = {
            "above": [],
            "trail": [],
            "last": "",
            "state": None,
            "pictures": [],
            "download": "",
            "every": 0,
            "job": None,
            "job_state": "",
        } | context
        return self.site.page(
            request, "web/page.html", page=page, sections=sections, name_of=name_of, plots=plots, live=True, **context
        )

    # ----------------------------------------------------------------------------------------------------------- search

    def search(self, request: Request, q: str = "", index: str = LIST, mode: str = "") -> Response:
        names = list(self.indexes.names())
        found, refusal = None, ""
        modes: Sequence[str] = MODES
        try:
            modes = self.indexes.searcher(index).modes
            if q.strip():
                found = self.indexes.search(index, q, mode if mode in modes else None, _HITS)
        except PapertrialError as error:
            refusal = str(error)
        hits = [
            (
                hit,
                link(index, hit),
                f"/documents?{urlencode({'index': index, 'id': hit.id})}",
                _cut(hit.snippet, hit.marks),
            )
            for hit in (found.hits if found else ())
        ]
        return self.site.page(
            request,
            "web/search.html",
            q=q,
            index=index,
            mode=mode,
            names=names,
            modes=modes,
            every_mode=_WORDS,
            found=found,
            hits=hits,
            refusal=refusal,
            from_list=index == LIST,
        )

    def document(self, request: Request, index: str, id: str) -> Response:
        document = self.indexes.document(index, id)
        if document is None:
            raise HTTPException(404)
        return self.site.page(
            request, "web/document.html", document=document, index=index, address=link(index, document), here="/search"
        )


def _cut(snippet: str, marks: Sequence[tuple[int, int]]) -> list[tuple[str, bool]]:
    """A snippet in pieces, with whether each is a word of the query."""
    pieces, end = [], 0
    for first, last in sorted(marks):
        pieces += [(snippet[end:first], False), (snippet[first:last], True)]
        end = last
    return [piece for piece in [*pieces, (snippet[end:], False)] if piece[0]]


def _gallery(
    found: Sequence[tuple[str, tuple[int, int]]], words: Callable[[str], str]
) -> list[tuple[str, str, str, int, int]]:
    """(address, name, what is on it, width, height) of the pictures to show, those of many pictures first; small ones as
    large as is seen."""
    shown = []
    sheets_first = sorted(found, key=lambda made: made[0].rpartition("/")[2] not in _SHEETS)
    for name, size in sheets_first[:_PICTURES]:
        wanted = _SHEET if name.rpartition("/")[2] in _SHEETS else _SINGLE
        times = max(1, wanted // max(*size, 1))
        shown.append((f"/pictures/{quote(name)}", name, words(name), size[0] * times, size[1] * times))
    return shown
