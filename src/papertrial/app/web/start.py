"""The pages that begin a fit or a comparison: what it would cost, then start, stop and go on. All of it behind the token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import Request
from fastapi.responses import RedirectResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from papertrial.app.site.form import form_of
from papertrial.app.site.site import Site
from papertrial.app.web.jobs import PLANNING, RUNNING, Job, Jobs
from papertrial.core import registry
from papertrial.core.errors import PapertrialError

_EVERY = 2  # seconds between two looks at what is at work
_MOST = 1 << 14  # bytes of a form
_FIELDS = ("kind", "method", "data", "target", "budget", "seeds")
_LISTED = 20


def add_start(site: Site, jobs: Jobs) -> None:
    pages = _Start(site, jobs)
    site.menu.append(("Start", "/start"))
    site.guard.limits["/start"] = _MOST
    gets: dict[str, Callable[..., Any]] = {"": pages.form, "/{name}": pages.job}
    posts: dict[str, Callable[..., Any]] = {"": pages.plan, "/{name}/start": pages.start, "/{name}/stop": pages.stop}
    for method, routes in (("GET", gets), ("POST", posts)):
        for path, answer in routes.items():
            site.app.add_api_route(
                f"/start{path}", answer, methods=[method], include_in_schema=False, response_class=Response
            )


class _Start:
    def __init__(self, site: Site, jobs: Jobs) -> None:
        self.site, self.jobs = site, jobs

    def form(self, request: Request) -> Response:
        return self._form(request, {})

    def _form(self, request: Request, asked: dict[str, str], refusal: str = "") -> Response:
        listed = sorted(self.jobs.all(), key=lambda job: -job.born)[:_LISTED]
        return self.site.page(
            request,
            "web/start.html",
            400 if refusal else 200,
            papers=[paper for paper in registry.papers().values() if paper.tasks],
            data=self.jobs.data,
            asked={name: asked.get(name, "") for name in _FIELDS},
            refusal=refusal,
            jobs=[(job, self.jobs.state(job)) for job in listed],
        )

    async def plan(self, request: Request) -> Response:
        form = await form_of(request)
        return await run_in_threadpool(self._plan, request, form)

    def _plan(self, request: Request, form: dict[str, str]) -> Response:
        asked = {name: form.get(name, "").strip() for name in _FIELDS}
        try:
            job = self.jobs.plan(**asked)
        except PapertrialError as error:
            return self._form(request, asked, str(error))
        return RedirectResponse(f"/start/{job.id}", 303)

    def job(self, request: Request, name: str) -> Response:
        job = self._job(name)
        state = self.jobs.state(job)
        return self.site.page(
            request,
            "web/job.html",
            job=job,
            state=state,
            said=self.jobs.said(job),
            shown=f"/runs/{job.out}" if (self.jobs.root / job.out).is_dir() else "",
            every=_EVERY if state in (PLANNING, RUNNING) else 0,
            here="/start",
        )

    def start(self, name: str) -> Response:
        self.jobs.start(self._job(name))
        return RedirectResponse(f"/start/{name}", 303)

    def stop(self, name: str) -> Response:
        self.jobs.stop(self._job(name))
        return RedirectResponse(f"/start/{name}", 303)

    def _job(self, name: str) -> Job:
        try:
            return self.jobs.job(name)
        except PapertrialError as error:
            raise HTTPException(404) from error
