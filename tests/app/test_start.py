"""What the site begins: only what its keeper named, never before the cost is shown, one at a time, and nothing without the token."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs the extra web")
from starlette.testclient import TestClient

from papertrial.app.web import jobs as module
from papertrial.app.web import make_web
from papertrial.app.web.jobs import COMPARE, DONE, ENDED, FIT, PLANNED, REFUSED, RUNNING, Jobs
from papertrial.core.errors import PapertrialError
from papertrial.core.files import read_json

HOME = "http://127.0.0.1:8000"
#: stands for papertrial: estimates at once, and works until it is told to end
STUB = """
import sys, time
print(sys.argv[1:], flush=True)
if sys.argv[1] == "estimate":
    print("total       3 s" if "--target=none" not in sys.argv else "there is no column none", flush=True)
else:
    time.sleep(60)
"""


@pytest.fixture
def runs(tmp_path, monkeypatch):
    (tmp_path / "stub.py").write_text(STUB)
    monkeypatch.setattr(module, "_COMMAND", (sys.executable, str(tmp_path / "stub.py")))
    made = tmp_path / "runs"
    made.mkdir()
    yield made
    for process in module._OURS.values():
        process.kill()
        process.wait()
    module._OURS.clear()


def waited(jobs, job, *states):
    for _ in range(300):
        if jobs.state(jobs.job(job.id)) in states:
            return jobs.job(job.id)
        time.sleep(0.05)
    raise AssertionError(jobs.state(jobs.job(job.id)))


def test_a_fit_is_planned_started_stopped_and_gone_on_with(runs):
    jobs = Jobs(runs, ["digits"])
    job = waited(jobs, jobs.plan(FIT, "mlp_mixer", "digits", budget="1m"), PLANNED)
    assert "total       3 s" in jobs.said(job) and "'--data=digits', '--budget=1m'" in jobs.said(job)
    assert job.command == f"papertrial fit mlp_mixer --data=digits --budget=1m --out={runs}/mlp_mixer-digits --quiet"
    begun = jobs.start(job)
    assert (
        jobs.state(begun) == RUNNING and Jobs(runs, []).state(begun) == RUNNING
    )  # a site that was started anew sees it
    with pytest.raises(PapertrialError, match="cannot be started now"):
        jobs.start(begun)
    with pytest.raises(PapertrialError, match="two at once would falsify"):
        jobs.plan(FIT, "rtdl", "digits")
    Jobs(runs, []).stop(begun)
    waited(jobs, job, ENDED)
    again = jobs.start(jobs.job(job.id))
    assert again.words == begun.words and again.pid != begun.pid and jobs.of("mlp_mixer-digits") == again
    jobs.stop(again)
    waited(jobs, job, ENDED)
    other = waited(jobs, jobs.plan(COMPARE, "mlp_mixer", "digits", seeds="5"), PLANNED)
    assert other.out == "mlp_mixer-digits-2" and "--seeds=5" in other.words  # nothing that is there is written to


def test_what_has_no_plan_is_not_started(runs):
    jobs = Jobs(runs, ["digits"])
    job = waited(jobs, jobs.plan(FIT, "mlp_mixer", "digits", target="none"), REFUSED)
    with pytest.raises(PapertrialError, match="cannot be started"):
        jobs.start(job)
    assert "there is no column none" in jobs.said(job)


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({"kind": "eject"}, "neither a fit nor a comparison"),
        ({"method": "--help"}, "there is no paper '--help'"),
        ({"method": "mlp_mixe"}, "did you mean 'mlp_mixer'"),
        ({"data": "/etc/passwd"}, "is not among the data"),
        ({"data": "wine"}, "is not among the data"),
        ({"budget": "1m; reboot"}, "cannot read the budget"),
        ({"seeds": "2"}, "3 to 50 seeds"),
        ({"seeds": "5 --fresh"}, "3 to 50 seeds"),
    ],
)
def test_what_cannot_be_begun_is_said_and_no_process_is_made(runs, asked, wanted):
    usual = {"kind": COMPARE, "method": "mlp_mixer", "data": "digits", "seeds": "5"}
    with pytest.raises(PapertrialError, match=re.escape(wanted)):
        Jobs(runs, ["digits"]).plan(**{**usual, **asked})
    assert not (runs / ".jobs").exists()


def test_data_must_be_there(runs):
    with pytest.raises(PapertrialError, match=r"there is no none\.csv here"):
        Jobs(runs, ["none.csv"])


def test_words_are_never_options(runs):
    jobs = Jobs(runs, ["digits"])
    job = jobs.plan(FIT, "mlp_mixer", "digits", target="--fresh")
    assert "--target=--fresh" in job.words and "--fresh" not in job.words
    assert read_json(runs / ".jobs" / f"{job.id}.json")["words"] == list(job.words)


def test_a_damaged_file_or_a_strange_id_is_no_job(runs):
    jobs = Jobs(runs, ["digits"])
    job = waited(jobs, jobs.plan(FIT, "mlp_mixer", "digits"), PLANNED)
    (runs / ".jobs" / "0123456789abcdef.json").write_text("[]")
    (runs / "secret.json").write_text("{}")
    assert [one.id for one in jobs.all()] == [job.id]
    for name in ("0123456789abcdef", "../secret", "x", ""):
        with pytest.raises(PapertrialError):
            jobs.job(name)


def test_the_pages_need_the_token_and_the_origin(runs):
    site = make_web(runs, data=["digits"], evidence=runs)
    stranger = TestClient(site.guard, base_url=HOME)
    assert site.guard.token and stranger.get("/start").status_code == 401
    form = {"kind": "fit", "method": "mlp_mixer", "data": "digits", "budget": "1m"}
    assert stranger.post("/start", data=form, headers={"origin": HOME}).status_code == 401
    client = TestClient(site.guard, base_url=HOME)
    assert client.get(f"/start?token={site.guard.token}").status_code == 200
    for origin in ({}, {"origin": "http://evil.example"}, {"origin": HOME, "sec-fetch-site": "cross-site"}):
        assert client.post("/start", data=form, headers=origin).status_code == 403
    assert not (runs / ".jobs").exists()
    page = client.post("/start", data=form, headers={"origin": HOME})
    jobs, (name,) = Jobs(runs, []), [file.stem for file in (runs / ".jobs").glob("*.json")]
    assert page.url.path == f"/start/{name}"
    waited(jobs, jobs.job(name), PLANNED)
    page = client.get(f"/start/{name}").text
    assert "total       3 s" in page and "papertrial fit mlp_mixer" in page and "Start it" in page
    assert "Stop" in client.post(f"/start/{name}/start", headers={"origin": HOME}).text
    assert "two at once" in client.post("/start", data=form, headers={"origin": HOME}).text
    client.post(f"/start/{name}/stop", headers={"origin": HOME})
    waited(jobs, jobs.job(name), ENDED)
    assert "Go on with it" in client.get(f"/start/{name}").text
    refused = client.post("/start", data={**form, "data": "<b>/etc"}, headers={"origin": HOME})
    assert refused.status_code == 400 and "&lt;b&gt;/etc" in refused.text and "<b>/etc" not in refused.text
    assert client.get("/start/0000000000000000").status_code == 404


def test_without_data_nothing_can_be_begun(runs):
    client = TestClient(make_web(runs, evidence=runs).guard, base_url=HOME)
    assert client.get("/start").status_code == 404 and 'href="/start"' not in client.get("/runs").text
    assert client.post("/start", headers={"origin": HOME}).status_code == 404
    with pytest.raises(PapertrialError, match="no folder of runs"):
        make_web(None, data=["digits"])


@pytest.mark.slow
def test_a_real_fit_is_begun_stopped_and_ends_as_if_it_had_not_been(tmp_path):
    jobs = Jobs(tmp_path, ["digits"])

    def until(job, *states):
        for _ in range(1200):
            if jobs.state(jobs.job(job.id)) in states:
                return jobs.job(job.id)
            time.sleep(0.1)
        raise AssertionError(jobs.said(job))

    job = until(jobs.plan(FIT, "mlp_mixer", "digits", budget="60steps"), PLANNED)
    folder: Path = tmp_path / job.out
    jobs.start(job)
    while not (folder / "metrics.jsonl").exists() and jobs.state(jobs.job(job.id)) == RUNNING:
        time.sleep(0.05)
    jobs.stop(jobs.job(job.id))
    until(job, ENDED)
    jobs.start(jobs.job(job.id))
    until(job, ENDED, DONE)
    assert read_json(folder / "result.json")["cost"]["steps"] == 60, jobs.said(job)
