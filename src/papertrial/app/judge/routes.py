"""The pages of judgement by people, added to a site under /judge.

    /judge                    the studies, for whoever runs the server
    /judge/enter/TOKEN        an invitation, or the administrator's link: the token becomes a cookie and leaves the address
    /judge/r/STUDY            the rater's page: one item at a time
    /judge/a/STUDY            the administrator's page

What a rater gets holds no name of a system or of the study, nor an id from which one could be told. Only POST changes
anything. htmx brings in the next item; without JavaScript the same forms lead to the same pages.
"""

from __future__ import annotations

import re
import tempfile
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import Request
from fastapi.responses import RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from papertrial.app.judge.markdown import rendered
from papertrial.app.judge.outputs import clean
from papertrial.app.judge.scheduling import Desk, Refused
from papertrial.app.judge.store import Store
from papertrial.app.judge.tables import LARGEST_ID, Rater, Study
from papertrial.app.site.form import form_of
from papertrial.core.errors import DataError
from papertrial.core.judgement import Template

if TYPE_CHECKING:
    from papertrial.app.site.site import Site
    from papertrial.study.people import Board

_HERE = Path(__file__).parent
_COOKIE = "papertrial-judge"
_YEAR = 365 * 24 * 3600
_MOST = 1 << 16  # bytes of a form
_SEEN = 256  # pixels of a screen that a smaller picture is enlarged to
_FURTHER = 10  # units, for a rater who has done the share and asks for more
_REMARK = 4000  # characters of a remark
_REMARKS = 100  # of them that the administrator's page shows
_STATES = {"pause": "paused", "open": "open", "close": "closed"}


def add_judge(site: Site, store: Store) -> None:
    """Add the pages to a site. Raters and administrators have tokens of their own and need none of the site's."""
    pages = _Pages(site, store)
    site.templates("judge", _HERE / "templates")
    for name in ("judge.css", "judge.js"):
        site.asset(name, (_HERE / "static" / name).read_bytes())
    site.menu.append(("Judgements", "/judge"))
    site.guard.public += ["/judge/enter/", "/judge/r/", "/judge/a/"]
    site.guard.limits["/judge/"] = _MOST
    gets: dict[str, Callable[..., Any]] = {
        "": pages.index,
        "/enter/{token}": pages.enter,
        "/{who}/{study}/start": pages.start,
        "/r/{study}": pages.desk,
        "/r/{study}/image/{assignment}/{place}": pages.image,
        "/a/{study}": pages.admin,
        "/a/{study}/progress": pages.progress,
        "/a/{study}/results": pages.results,
        "/a/{study}/export.{kind}": pages.export,
    }
    posts: dict[str, Callable[..., Any]] = {
        "/r/{study}/{step}": pages.step,
        "/a/{study}/invite": pages.invite,
        "/a/{study}/rater/{rater}/{what}": pages.rater,
        "/a/{study}/{state}": pages.state,
    }
    for method, routes in (("GET", gets), ("POST", posts)):
        for path, answer in routes.items():
            site.app.add_api_route(f"/judge{path}", answer, methods=[method], include_in_schema=False)


class _Pages:
    def __init__(self, site: Site, store: Store) -> None:
        self.site, self.store = site, store
        self._boards: dict[int, tuple[int, Sequence[Board], str]] = {}
        self._counting = threading.Lock()

    # ------------------------------------------------------------------------------------------------------ coming in

    def index(self, request: Request) -> Response:
        return self.site.page(request, "judge/index.html", studies=self.store.overview())

    def enter(self, request: Request, token: str) -> Response:
        """The cookie is strict: no other site's page can have a browser show it."""
        found = self.store.enter(token)
        if found is None:
            return self._stranger(request)
        who, study = ("r" if found[0] == "rater" else "a"), found[1]
        answer = _to(f"/judge/{who}/{study}/start")
        answer.set_cookie(
            _COOKIE,
            token,
            max_age=_YEAR,
            path=f"/judge/{who}/{study}",
            secure=self.site.guard.secure(request.scope),
            httponly=True,
            samesite="strict",
        )
        return answer

    def start(self, request: Request, who: str, study: str) -> Response:
        """A step between: after a click on another site, a browser shows a strict cookie only from a page of ours."""
        if who not in ("r", "a") or not _number(study):
            return self._stranger(request)
        address = f"/judge/{who}/{_number(study)}"
        if _COOKIE in request.cookies:
            return _to(address)
        return self.site.page(request, "judge/start.html", address=address)

    def _stranger(self, request: Request) -> Response:
        return self._note(
            request,
            403,
            "This page needs an invitation.",
            "Open the link that you were sent, whole, to the last character. A link that was revoked opens nothing.",
        )

    def _note(self, request: Request, status: int, words: str, more: str = "", back: str = "") -> Response:
        return _kept_nowhere(self.site.page(request, "judge/note.html", status, words=words, more=more, back=back))

    def _rater(self, request: Request, study: str) -> tuple[Study, Rater] | None:
        return self.store.rater(_number(study), request.cookies.get(_COOKIE, ""))

    def _study(self, request: Request, study: str) -> Study | None:
        return self.store.administers(_number(study), request.cookies.get(_COOKIE, ""))

    # ------------------------------------------------------------------------------------------------------ the rater

    def desk(self, request: Request, study: str) -> Response:
        found = self._rater(request, study)
        if found is None:
            return self._stranger(request)
        return self._shown(request, *found, self.store.desk(found[1]))

    def _shown(self, request: Request, study: Study, rater: Rater, desk: Desk) -> Response:
        """The page, or for htmx the part of it that changes."""
        part = "desk" if "hx-request" in request.headers else "rate"
        template = study.template
        return _kept_nowhere(
            self.site.page(
                request,
                f"judge/{part}.html",
                base=f"/judge/r/{study.id}",
                desk=desk,
                asks=template,
                keys=_keys(template),
                looks_like_code=looks_like_code,
                enlarged=enlarged,
                rendered=rendered,
            )
        )

    async def step(self, request: Request, study: str, step: str) -> Response:
        """What a rater does: begin, answer, undo, more."""
        form = await form_of(request)
        return await run_in_threadpool(self._step, request, study, step, form)

    def _step(self, request: Request, study: str, step: str, form: dict[str, str]) -> Response:
        found = self._rater(request, study)
        if found is None:
            return self._stranger(request)
        own = found[1]
        steps: dict[str, Callable[[], Desk]] = {
            "begin": partial(self.store.take, own),
            "more": partial(self.store.take, own, _FURTHER),
            "undo": lambda: self.store.undo(own, _number(form.get("assignment", ""))),
            "answer": lambda: self._answered(found[0].template, own, form),
        }
        if step not in steps:
            return self._note(request, 404, "There is no such page.")
        try:
            desk = steps[step]()
        except Refused as refusal:
            return self._note(request, 409, _sentence(refusal.problem), _sentence(refusal.fix), f"/judge/r/{study}")
        if "hx-request" not in request.headers:
            return _to(f"/judge/r/{study}")
        return self._shown(request, *found, desk)

    def _answered(self, template: Template, rater: Rater, form: dict[str, str]) -> Desk:
        assignment, remark = _number(form.get("assignment", "")), clean(form.get("remark", "")).strip()[:_REMARK]
        if "refuse" in form:
            return self.store.refuse(rater, assignment, remark)
        return self.store.answer(rater, assignment, _answers(template, form), remark)

    def image(self, request: Request, study: str, assignment: str, place: str) -> Response:
        """A picture by where it lies on the rater's own desk. No path and no name leads to a file."""
        found = self._rater(request, study)
        content = (
            self.store.picture(found[1], _number(assignment), int(place))
            if found is not None and place in ("0", "1", "2")
            else None
        )
        if content is None:
            return self._note(request, 404, "There is no such picture.")
        return Response(content, media_type="image/png", headers={"cache-control": "private, max-age=86400, immutable"})

    # ---------------------------------------------------------------------------------------------- the administrator

    def admin(self, request: Request, study: str) -> Response:
        return self._administered(request, study, "admin", said=True)

    def progress(self, request: Request, study: str) -> Response:
        return self._administered(request, study, "progress")

    def _administered(self, request: Request, study: str, page: str, *, said: bool = False, **more: Any) -> Response:
        """said: with what raters wrote."""
        own = self._study(request, study)
        if own is None:
            return self._stranger(request)
        remarks = self.store.remarks(own.id or 0)[::-1] if said else ()
        return _kept_nowhere(
            self.site.page(
                request,
                f"judge/{page}.html",
                base=f"/judge/a/{own.id}",
                study=own,
                progress=self.store.progress(own.id or 0),
                ago=lambda at: ago(self.store.clock() - at),
                remarks=remarks[:_REMARKS],
                more_remarks=max(0, len(remarks) - _REMARKS),
                **{"links": [], **more},
            )
        )

    def results(self, request: Request, study: str) -> Response:
        """The board as the judgements stand. It takes seconds to count, so it is kept until there are new ones."""
        own = self._study(request, study)
        if own is None:
            return self._stranger(request)
        part = "board" if "hx-request" in request.headers else "results"
        boards, why = self._counted(own)
        return _kept_nowhere(
            self.site.page(request, f"judge/{part}.html", base=f"/judge/a/{own.id}", study=own, boards=boards, why=why)
        )

    def _counted(self, study: Study) -> tuple[Sequence[Board], str]:
        """The boards, and a sentence: why there are none, or why they count raters whom GENIE would leave out."""
        from papertrial.study.people import Limits, boards

        number = study.id or 0
        with self._counting:
            count = self.store.count(number)
            if number not in self._boards or self._boards[number][0] != count:
                judgements = self.store.judgements(number)
                found: Sequence[Board] = ()
                why = ""
                try:
                    found = boards(judgements, limits=Limits())
                except DataError as error:
                    why = _sentence(error.problem)
                    if judgements.ratings or judgements.preferences:
                        found, why = boards(judgements), f"{why} So all are counted."
                self._boards[number] = (count, found, why)
            return self._boards[number][1:]

    async def invite(self, request: Request, study: str) -> Response:
        form = await form_of(request)
        return await run_in_threadpool(self._invite, request, study, form)

    def _invite(self, request: Request, study: str, form: dict[str, str]) -> Response:
        own = self._study(request, study)
        if own is None:
            return self._stranger(request)
        number = own.id or 0
        names = [line.strip()[:200] for line in form.get("names", "").splitlines() if line.strip()]
        names = names or self.store.next_names(number, min(max(_number(form.get("count", "")), 1), 500))
        try:
            made = self.store.invite(number, names)
        except Refused as refusal:
            return self._note(request, 409, _sentence(refusal.problem), _sentence(refusal.fix), f"/judge/a/{study}")
        links = [(name, link(self.site.address(request), token)) for name, token in made]
        return self._administered(request, study, "admin", links=links)

    def rater(self, request: Request, study: str, rater: str, what: str) -> Response:
        """Take an invitation back, or make a new link for a rater."""
        own = self._study(request, study)
        if own is None:
            return self._stranger(request)
        number = own.id or 0
        try:
            if what == "revoke":
                self.store.revoke(number, _number(rater))
            elif what == "renew":
                name, token = self.store.renew(number, _number(rater))
                links = [(name, link(self.site.address(request), token))]
                return self._administered(request, study, "admin", links=links)
            else:
                return self._note(request, 404, "There is no such page.")
        except Refused as refusal:
            return self._note(request, 409, _sentence(refusal.problem), _sentence(refusal.fix), f"/judge/a/{study}")
        return _to(f"/judge/a/{own.id}")

    def state(self, request: Request, study: str, state: str) -> Response:
        own = self._study(request, study)
        if own is None:
            return self._stranger(request)
        if state not in _STATES:
            return self._note(request, 404, "There is no such page.")
        self.store.set_state(own.id or 0, _STATES[state])
        return _to(f"/judge/a/{own.id}")

    def export(self, request: Request, study: str, kind: str) -> Response:
        """Every judgement that was not undone, as a file."""
        own = self._study(request, study)
        if own is None:
            return self._stranger(request)
        if kind not in ("jsonl", "csv"):
            return self._note(request, 404, "There is no such page.")
        with tempfile.TemporaryDirectory() as folder:
            number = own.id or 0
            file = self.store.judgements(number).write(Path(folder) / f"all.{kind}", self.store.shown(number))
            content = file.read_bytes()
        headers = {"content-disposition": f'attachment; filename="judgements-{own.id}.{kind}"'}
        media = "text/csv; charset=utf-8" if kind == "csv" else "application/x-ndjson"
        return _kept_nowhere(Response(content, media_type=media, headers=headers))


# ---------------------------------------------------------------------------------------------------------- small steps


def link(base: str, token: str) -> str:
    """The address that an invitation or the administrator opens."""
    return f"{base.rstrip('/')}/judge/enter/{token}"


def ago(seconds: float) -> str:
    """`3 min ago`, as coarse as a person who looks on needs it."""
    for size, word in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {word} ago"
    return "just now"


def looks_like_code(text: str) -> bool:
    """Whether lines are indented, so that they are read best where all characters are as wide."""
    lines = text.split("\n")
    return len(lines) > 2 and sum(line.startswith(("  ", "\t")) for line in lines) >= 2


def enlarged(size: tuple[int, int]) -> int:
    """How many times as large a picture is shown: one of a few pixels is seen by nobody. Sharp, so it looks like what it is."""
    return max(1, _SEEN // max(size))


def _answers(template: Template, form: dict[str, str]) -> dict[str, float]:
    """The value of each question's answer, which a form names by its place. Raises Refused when one is missing."""
    values = {}
    for index, question in enumerate(template.questions):
        choice = _number(form.get(f"q{index}", "")) - 1
        if not 0 <= choice < len(question.scale.values):
            raise Refused("a question has no answer", "go back and answer every question")
        values[question.name] = question.scale.values[choice]
    return values


def _keys(template: Template) -> list[list[str]]:
    """The keys of each answer, the one that is shown first: the number it begins with where all answers do, else its place;
    and in a pair an arrow or the space bar where its worth says which."""
    arrows = {1.0: "ArrowLeft", 0.5: "Space", 0.0: "ArrowRight"}
    found = []
    for question in template.questions:
        values = question.scale.values
        numbers = _numbers(question.scale.words) or [str(place + 1) for place in range(len(values))]
        sided = template.kind == "pair"
        found.append(
            [
                f"{arrows[value]} {number}" if sided and values.count(value) == 1 else number
                for value, number in zip(values, numbers, strict=True)
            ]
        )
    return found


def _numbers(words: Sequence[str]) -> list[str]:
    """What the answers `0`, `1 (poor)`, ... `10` are called on the keyboard; empty unless each has a number of its own."""
    found = [re.match(r"\s*([-\u2212]?\d+)(?![\d.,]*\d)", word) for word in words]
    numbers = [match[1].replace("\u2212", "-") for match in found if match]
    return numbers if len(set(numbers)) == len(words) else []


def _number(text: str) -> int:
    """A positive number that any database takes, or 0."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 11 and int(text) <= LARGEST_ID else 0


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _to(address: str) -> RedirectResponse:
    return _kept_nowhere(RedirectResponse(address, 303))


def _kept_nowhere(answer: Any) -> Any:
    """Neither a cache nor the back button shows it again."""
    answer.headers["cache-control"] = "no-store"
    return answer
