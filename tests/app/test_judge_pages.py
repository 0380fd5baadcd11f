"""The pages of judgement by people over HTTP: what a rater does, with htmx and without; what nobody may do; and a real
server under two hundred raters."""

from __future__ import annotations

import asyncio
import html
import io
import random
import re
import socket
import time

import httpx
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="needs fastapi (the extra web)")
pytest.importorskip("sqlmodel", reason="needs sqlmodel (the extra web)")

import judging
from judging import new_study, outputs, write_rows
from papertrial.app.judge.markdown import rendered
from papertrial.app.judge.routes import _keys, add_judge, enlarged, looks_like_code
from papertrial.app.judge.store import Store
from papertrial.app.site import make_site
from papertrial.core.files import read_json
from papertrial.core.judgement import Judgements, Question, Scale, Template, template
from papertrial.data.open import open as open_data

HOST = "http://127.0.0.1"
_ASSIGNMENT = re.compile(r'name="assignment" value="(\d+)">\s*<fieldset')


class Browser:
    """Requests as a browser makes them, with its cookies. htmx: asks for parts of pages."""

    def __init__(self, site, htmx: bool = False) -> None:
        self.transport = httpx.ASGITransport(site.guard)
        self.jar = httpx.Cookies()
        self.htmx = htmx

    def ask(self, method: str, path: str, data=None, *, follow=True, **headers) -> httpx.Response:
        async def ask():
            async with httpx.AsyncClient(
                transport=self.transport, base_url=HOST, cookies=self.jar, follow_redirects=follow
            ) as client:
                sent = {"origin": HOST, **({"hx-request": "true"} if self.htmx else {}), **headers}
                answer = await client.request(method, path, data=data, headers=sent)
                self.jar = client.cookies
                return answer

        return asyncio.run(ask())

    def get(self, path: str, **more) -> httpx.Response:
        return self.ask("GET", path, **more)

    def post(self, path: str, data=None, **more) -> httpx.Response:
        return self.ask("POST", path, data, **more)


def assignment(answer: httpx.Response) -> str:
    return _ASSIGNMENT.search(answer.text)[1]


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "x.db", create=True)
    yield opened
    opened.close()


@pytest.fixture
def site(store):
    made = make_site()
    add_judge(made, store)
    return made


@pytest.mark.parametrize("htmx", [False, True])
def test_a_rater_from_the_invitation_to_the_thanks(site, store, tmp_path, htmx):
    study, _, [(_, token)] = new_study(store, outputs(tmp_path, 2), raters=1)
    browser = Browser(site, htmx)
    page = browser.get(f"/judge/enter/{token}")
    assert page.url.path == f"/judge/r/{study.id}" and "Begin" in page.text and "4 items" in page.text
    page = browser.post(f"/judge/r/{study.id}/begin")
    for done in range(4):
        assert f"{done + 1} of 4" in page.text and ("<html" in page.text) != htmx
        page = browser.post(f"/judge/r/{study.id}/answer", {"assignment": assignment(page), "q0": "2"})
    assert "Thank you" in page.text and "4 answers are kept" in page.text
    page = browser.post(
        f"/judge/r/{study.id}/undo", {"assignment": re.search(r'name="assignment" value="(\d+)"', page.text)[1]}
    )
    assert "4 of 4" in page.text
    browser.post(f"/judge/r/{study.id}/answer", {"assignment": assignment(page), "q0": "5"})
    assert sorted(row.value for row in store.judgements(study.id).ratings) == [0, 0.75, 0.75, 0.75]
    assert page.headers["cache-control"] == "no-store"


def test_the_token_leaves_the_address_for_a_strict_cookie(site, store, tmp_path):
    study, _, [(_, token)] = new_study(store, outputs(tmp_path, 2), raters=1)
    browser = Browser(site)
    answer = browser.get(f"/judge/enter/{token}", follow=False)
    assert answer.status_code == 303 and token not in answer.headers["location"]
    cookie = answer.headers["set-cookie"]
    for part in ("HttpOnly", "SameSite=strict", f"Path=/judge/r/{study.id}"):
        assert part in cookie
    # a click on another site: no strict cookie comes with it, and a page of ours leads on
    stranger = Browser(site).get(f"/judge/r/{study.id}/start")
    assert stranger.status_code == 200 and f'content="0; url=/judge/r/{study.id}"' in stranger.text
    assert Browser(site).get("/judge/x/1/start").status_code == 403


def test_no_page_of_a_rater_tells_whose_an_output_is(site, store, tmp_path):
    file = outputs(tmp_path, 4)
    study, _, [(_, token)] = new_study(store, file, asked="pairwise", raters=1)
    browser = Browser(site)
    pages = [browser.get(f"/judge/enter/{token}"), browser.post(f"/judge/r/{study.id}/begin")]
    while _ASSIGNMENT.search(pages[-1].text):
        pages.append(browser.post(f"/judge/r/{study.id}/answer", {"assignment": assignment(pages[-1]), "q0": "1"}))
    assert len(pages) == 6
    for page in pages:
        assert "system-" not in page.text and study.name not in page.text and "system-" not in str(page.headers)
        assert not re.search(r"\bi\d\b", re.sub(r"<script.*?</script>", "", page.text))  # nor names of items


def test_pictures_are_reached_by_whoever_judges_them_and_by_no_path(site, store, tmp_path):
    for name in "ab":
        Image.new("RGB", (8, 6), (ord(name), 0, 0)).save(tmp_path / f"system-{name}.png")
    rows = [{"item": 1, "system": s, "image": f"system-{s}.png"} for s in "ab"]
    study, _, [(_, token), (_, other)] = new_study(store, write_rows(tmp_path / "o.jsonl", rows), asked="pairwise")
    browser, stranger = Browser(site), Browser(site)
    browser.get(f"/judge/enter/{token}")
    stranger.get(f"/judge/enter/{other}")
    page = browser.post(f"/judge/r/{study.id}/begin")
    addresses = re.findall(r'<img src="([^"]+)" width="256" height="192" class="enlarged"', page.text)
    assert len(addresses) == 2 and "system" not in page.text
    reds = set()
    for address in addresses:
        answer = browser.get(address)
        assert answer.headers["content-type"] == "image/png" and answer.headers["x-content-type-options"] == "nosniff"
        reds.add(Image.open(io.BytesIO(answer.content)).getpixel((0, 0))[0])
        assert stranger.get(address).status_code == 404 and Browser(site).get(address).status_code == 404
    assert reds == {ord("a"), ord("b")}
    begin = addresses[0].rsplit("/", 1)[0]
    for evil in (
        "2",
        "3",
        "-1",
        "00",
        "0x0",
        "../0",
        "..%2f0",
        "%2e%2e/%2e%2e/x.db",
        "0%00",
        "../../../../etc/passwd",
        "٠",
    ):
        assert browser.get(f"{begin}/{evil}").status_code in (400, 404)
    for evil in ("0", "-1", str(2**31), str(2**70), "a", "1;DROP TABLE judge_study", "1 OR 1=1"):
        assert browser.get(f"/judge/r/{study.id}/image/{evil}/0").status_code == 404
    assert len(store.studies()) == 1


def test_forged_tokens_and_those_of_another_study_open_nothing(site, store, tmp_path):
    one, admin, [(_, token)] = new_study(store, outputs(tmp_path, 2), raters=1)
    two, _, [(_, other)] = new_study(store, outputs(tmp_path, 2), raters=1)
    paths = [("GET", f"/judge/r/{one.id}"), ("POST", f"/judge/r/{one.id}/begin"), ("POST", f"/judge/r/{one.id}/undo")]
    own = [
        ("GET", ""),
        ("GET", "/progress"),
        ("GET", "/results"),
        ("GET", "/export.csv"),
        ("POST", "/invite"),
        ("POST", "/close"),
        ("POST", "/rater/1/revoke"),
    ]
    paths += [(method, f"/judge/a/{one.id}{path}") for method, path in own]
    for forged in ("", "x", token[:-1], token.swapcase(), other, "' OR 1=1 --", one.token, "%00"):
        for method, path in paths:
            assert Browser(site).ask(method, path, cookie=f"papertrial-judge={forged}").status_code == 403, (
                forged,
                path,
            )
    for method, path in paths[3:]:  # a rater is no administrator
        assert Browser(site).ask(method, path, cookie=f"papertrial-judge={token}").status_code == 403
    assert Browser(site).get(f"/judge/r/{one.id}", cookie=f"papertrial-judge={admin}").status_code == 403
    for path in (
        "/judge/enter/x",
        f"/judge/enter/{token}x",
        "/judge/enter/%27%20OR%201=1",
        "/judge/r/0",
        "/judge/r/a",
        "/judge/a/9999999999",
    ):
        assert Browser(site).get(path, cookie=f"papertrial-judge={token}").status_code == 403
    assert store.study(one.name).state == "open" and len(store.progress(two.id).raters) == 1


def test_what_comes_from_another_site_is_refused(site, store, tmp_path):
    study, _, [(_, token)] = new_study(store, outputs(tmp_path, 2), raters=1)
    browser = Browser(site)
    browser.get(f"/judge/enter/{token}")
    for origin in ("https://evil.example", "null", "http://127.0.0.1.evil.example"):
        assert browser.post(f"/judge/r/{study.id}/begin", origin=origin).status_code == 403
    assert browser.get(f"/judge/r/{study.id}", host="evil.example").status_code == 400
    assert browser.get(f"/judge/r/{study.id}/begin").status_code in (404, 405)  # a link changes nothing
    assert store.progress(study.id).raters[0].done == 0


def test_answers_that_no_form_gives(site, store, tmp_path):
    study, _, [(_, token)] = new_study(store, outputs(tmp_path, 2), raters=1)
    browser = Browser(site)
    browser.get(f"/judge/enter/{token}")
    own = assignment(browser.post(f"/judge/r/{study.id}/begin"))
    for choice in ("", "0", "6", "-1", "1e0", "NaN", "'; DROP TABLE judge_judgement; --", "9" * 400, "²"):
        answer = browser.post(f"/judge/r/{study.id}/answer", {"assignment": own, "q0": choice})
        assert answer.status_code == 409 and "no answer" in answer.text
    for other in ("", "0", "-1", str(2**31), str(10**30), "1 OR 1=1", "\x00", "x" * 1000):
        answer = browser.post(f"/judge/r/{study.id}/answer", {"assignment": other, "q0": "1"})
        assert answer.status_code == 409 and "not one of your items" in answer.text
    assert browser.post(f"/judge/r/{study.id}/drop").status_code == 404
    assert (
        browser.ask("POST", f"/judge/r/{study.id}/answer", {f"f{index}": "1" for index in range(2000)}).status_code
        == 409
    )
    assert not store.judgements(study.id).ratings


def test_a_double_click_two_tabs_and_the_back_button(site, store, tmp_path):
    study, _, [(_, token)] = new_study(store, outputs(tmp_path, 2), raters=1)
    tab, other = Browser(site), Browser(site, htmx=True)
    for browser in (tab, other):
        browser.get(f"/judge/enter/{token}")
    first = assignment(tab.post(f"/judge/r/{study.id}/begin"))
    assert assignment(other.post(f"/judge/r/{study.id}/begin")) == first  # both show the same item
    for browser in (tab, other, tab):
        page = browser.post(f"/judge/r/{study.id}/answer", {"assignment": first, "q0": "1"})
        assert assignment(page) != first
    assert [row.value for row in store.judgements(study.id).ratings] == [1.0]


def test_hostile_words_are_shown_to_the_letter(site, store, tmp_path):
    evil = [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "{{ 7 * 7 }}",
        "</div></section>",
        "&lt;b&gt;",
        "'; DROP TABLE judge_item; --",
    ]
    rows = [
        {"item": f"{i}{word}", "system": f"S{word}", "output": word, word: f"c{word}"} for i, word in enumerate(evil)
    ]
    study, admin, [(_, token)] = new_study(store, write_rows(tmp_path / "o.jsonl", rows), raters=1)
    store.invite(study.id, evil)
    browser = Browser(site)
    page = browser.get(f"/judge/enter/{token}")
    page = browser.post(f"/judge/r/{study.id}/begin")
    seen = set()
    while _ASSIGNMENT.search(page.text):
        assert "<script>alert" not in page.text and "onerror=alert(1)>" not in page.text.replace("&gt;", "")
        [shown] = re.findall(r'<div class="prose made" dir="auto">(.*?)</div>', page.text)
        seen.add(html.unescape(shown))
        page = browser.post(f"/judge/r/{study.id}/answer", {"assignment": assignment(page), "q0": "1"})
    assert seen == set(evil)
    owner = Browser(site)
    owner.get(f"/judge/enter/{admin}")
    for path in ("", "/results"):
        text = owner.get(f"/judge/a/{study.id}{path}").text
        assert "<script>alert" not in text and "<img" not in text and "{{ 7 * 7 }}" in text
    found = Judgements.read(_saved(owner.get(f"/judge/a/{study.id}/export.csv"), tmp_path / "all.csv"))
    assert {row.system for row in found.ratings} == {f"S{word}" for word in evil}


def _saved(answer: httpx.Response, path):
    path.write_bytes(answer.content)
    return path


def test_the_administrator_invites_revokes_pauses_and_takes_away(site, store, tmp_path):
    study, admin, [(rater, token)] = new_study(store, outputs(tmp_path, 12), raters=1)
    owner, browser = Browser(site), Browser(site)
    page = owner.get(f"/judge/enter/{admin}")
    assert (
        page.url.path == f"/judge/a/{study.id}" and "0 of 24 labels" in page.text and "/judge/enter/" not in page.text
    )
    page = owner.post(f"/judge/a/{study.id}/invite", {"count": "1", "names": "Ann\nBob <b>\n"})
    links = re.findall(r"<code>http://127.0.0.1(/judge/enter/[^<]+)</code>", page.text)
    assert len(links) == 2 and "Bob &lt;b&gt;" in page.text
    assert not re.search("/judge/enter/", owner.get(f"/judge/a/{study.id}").text)  # shown once
    assert owner.post(f"/judge/a/{study.id}/invite", {"names": "Ann"}).status_code == 409
    assert "Begin" in Browser(site).get(links[0]).text
    browser.get(f"/judge/enter/{token}")
    page = browser.post(f"/judge/r/{study.id}/begin")
    for index in range(24):
        page = browser.post(f"/judge/r/{study.id}/answer", {"assignment": assignment(page), "q0": str(1 + index % 2)})
    assert "24 of 24 labels" in owner.get(f"/judge/a/{study.id}/progress").text
    board = owner.get(f"/judge/a/{study.id}/results").text
    assert "system-a" in board and "annot tell" in board and "one rater" in board
    found = Judgements.read(_saved(owner.get(f"/judge/a/{study.id}/export.jsonl"), tmp_path / "all.jsonl"))
    assert found == store.judgements(study.id)
    assert owner.get(f"/judge/a/{study.id}/export.exe").status_code == 404
    owner.post(f"/judge/a/{study.id}/rater/{rater.id}/revoke")
    assert browser.get(f"/judge/r/{study.id}").status_code == 403
    page = owner.post(f"/judge/a/{study.id}/rater/{rater.id}/renew")
    [link] = re.findall(r"<code>http://127.0.0.1(/judge/enter/[^<]+)</code>", page.text)
    assert "Thank you" in browser.get(link).text
    assert owner.post(f"/judge/a/{study.id}/rater/999/revoke").status_code == 409
    for state, words in (("pause", "is paused"), ("close", "is closed"), ("open", "is open")):
        assert words in owner.post(f"/judge/a/{study.id}/{state}").text
    assert owner.post(f"/judge/a/{study.id}/explode").status_code == 404
    assert "24 of 24" in Browser(site).get("/judge").text


def test_no_results_before_there_are_answers(site, store, tmp_path):
    study, admin, _ = new_study(store, outputs(tmp_path, 2), raters=1)
    owner = Browser(site)
    owner.get(f"/judge/enter/{admin}")
    assert owner.get(f"/judge/a/{study.id}/results").status_code == 200


def test_several_questions_are_all_asked(site, store, tmp_path):
    (tmp_path / "two.toml").write_text(
        'kind = "rating"\n'
        '[[questions]]\nname = "a"\ntext = "A?"\nscale = { words = ["yes", "no"], values = [1, 0] }\n'
        '[[questions]]\nname = "b"\ntext = "B?"\nscale = { words = ["yes", "so", "no"], values = [1, 0.5, 0] }\n'
    )
    study, _, [(_, token)] = new_study(store, outputs(tmp_path, 1, "a"), asked=str(tmp_path / "two.toml"), raters=1)
    browser = Browser(site)
    browser.get(f"/judge/enter/{token}")
    page = browser.post(f"/judge/r/{study.id}/begin")
    assert page.text.count('type="radio"') == 5
    assert browser.post(f"/judge/r/{study.id}/answer", {"assignment": assignment(page), "q0": "1"}).status_code == 409
    browser.post(f"/judge/r/{study.id}/answer", {"assignment": assignment(page), "q0": "2", "q1": "2"})
    assert [(row.question, row.value) for row in store.judgements(study.id).ratings] == [("a", 0), ("b", 0.5)]


def test_what_cannot_be_judged_and_why_and_remarks_are_kept(site, store, tmp_path):
    study, admin, [(_, token), (other, _)] = new_study(store, outputs(tmp_path, 2, "a"))
    browser, owner = Browser(site), Browser(site)
    browser.get(f"/judge/enter/{token}")
    page = browser.post(f"/judge/r/{study.id}/begin")
    refused = {"assignment": assignment(page), "refuse": "1"}
    answer = browser.post(f"/judge/r/{study.id}/answer", {**refused, "remark": "  "})
    assert answer.status_code == 409 and "said why" in answer.text
    page = browser.post(f"/judge/r/{study.id}/answer", {**refused, "remark": "it is in <Dutch>\0"})
    assert "Thank you" in page.text and "1 answer is kept" in page.text  # the share of one, of two raters
    [remark] = store.remarks(study.id)
    assert (remark.remark, remark.judged, remark.system) == ("it is in <Dutch>\ufffd", False, "system-a")
    assert [one.refused for one in store.progress(study.id).raters] == [1, 0]
    # its unit is free for others, and never comes back to whoever refused it
    desk = store.take(other, 1)
    while desk.work:
        desk = store.answer(other, desk.work.assignment, {"quality": 1.0}, "good")
    owner.get(f"/judge/enter/{admin}")
    page = owner.get(f"/judge/a/{study.id}").text
    assert "it is in &lt;Dutch&gt;" in page and "cannot judge" in page and "could not judge 1" in page
    found = Judgements.read(_saved(owner.get(f"/judge/a/{study.id}/export.jsonl"), tmp_path / "all.jsonl"))
    assert found == store.judgements(study.id) and not found.remarks[0].judged
    assert "rater said why" in owner.get(f"/judge/a/{study.id}/results").text
    last = re.search(r'name="assignment" value="(\d+)"', browser.get(f"/judge/r/{study.id}").text)[1]
    browser.post(f"/judge/r/{study.id}/undo", {"assignment": last})
    assert all(one.judged for one in store.remarks(study.id)) and store.progress(study.id).raters[0].refused == 0


def test_a_refused_unit_is_given_to_another_rater_and_its_labels_stay_as_many(store, tmp_path):
    study, _, [(one, _), (two, _)] = new_study(store, outputs(tmp_path, 1, "a"))
    desk = store.take(one)
    store.refuse(one, desk.work.assignment, "empty")
    assert store.desk(one).state == "finished" and store.take(two).work is not None
    store.undo(one, desk.work.assignment)  # both hold it now
    for rater in (one, two):
        store.answer(rater, store.desk(rater).work.assignment, {"quality": 0.5})
    assert len(store.judgements(study.id).ratings) == 2 and store.progress(study.id).raters[0].refused == 0


def test_a_post_that_is_cut_off_is_one_line(site, capsys):
    async def cut():
        async def receive():
            return {"type": "http.disconnect"}

        async def send(message):
            pass

        headers = [(b"host", b"127.0.0.1"), (b"origin", b"http://127.0.0.1"), (b"content-length", b"99")]
        scope = {
            "type": "http", "method": "POST", "path": "/judge/r/1/answer", "raw_path": b"", "query_string": b"",
            "headers": headers, "scheme": "http", "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 1),
            "root_path": "", "http_version": "1.1",
        }  # fmt: skip
        await site.guard(scope, receive, send)

    asyncio.run(cut())
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and "POST /judge/r/1/answer was cut off" in said


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        ([str(number) for number in range(11)], [str(number) for number in range(11)]),
        (["-1 (worse)", "0", "\u22122", "2"], ["-1", "0", "-2", "2"]),
        (["1.5", "2.5"], ["1", "2"]),
        (["1st", "1 more"], ["1", "2"]),
        (["yes", "no"], ["1", "2"]),
    ],
)
def test_numbers_are_answered_by_their_own_keys(words, keys):
    question = Question("q", "?", Scale(tuple(words), tuple(place / len(words) for place in range(len(words)))))
    assert _keys(Template("t", "rating", (question,))) == [keys]


def test_a_pair_is_answered_by_arrows_and_by_numbers():
    assert _keys(template("pairwise")) == [["ArrowLeft 1", "Space 2", "ArrowRight 3"]]


def test_markdown_is_rendered_and_leads_nowhere():
    text = "# A\n**b** <script>x</script> [w](javascript:1) [l](http://x.y) ![p](http://x.y/p.png)\n\n<http://z.z>\n\n|a|\n|-|\n|1|"
    made = rendered(text)
    assert "<strong>b</strong>" in made and '<p class="heading h1">A</p>' in made and "<td>1</td>" in made
    assert "<u>l</u>" in made and "[picture: p]" in made and "&lt;script&gt;" in made
    for bad in ("<script", "<a", "<img", "href", "src=", "<h1"):
        assert bad not in made


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("def f():\n    return 1\n    # x\n", True),
        ("a\nb\nc", False),
        ("", False),
        ("Dear all,\n  hello", False),
        ("{\n\tx\n\ty\n}", True),
    ],
)
def test_code_is_told_from_prose(text, code):
    assert looks_like_code(text) is code


def test_small_pictures_are_enlarged_and_others_are_not():
    assert [enlarged(size) for size in ((8, 6), (32, 32), (33, 12), (200, 1), (256, 256), (2048, 9))] == [
        32,
        8,
        7,
        1,
        1,
        1,
    ]


# --------------------------------------------------------------------------------------------------------- a real server


@pytest.mark.slow
def test_two_hundred_raters_at_once_and_an_upload_of_a_gigabyte(tmp_path):
    bench = judging.bench()
    store, study, tokens = bench.study(str(tmp_path / "load.db"), 200, 300, 1, tmp_path)
    server, host, port = bench.serve(str(tmp_path / "load.db"), tmp_path)

    async def load():
        raters = [bench.Rater(host, port, token) for token in tokens]
        works = (
            rater.work(time.monotonic() + 300, 0.0, 1, random.Random(index), most=2)
            for index, rater in enumerate(raters)
        )
        await asyncio.gather(*works)
        return raters

    try:
        with socket.create_connection((host, port), timeout=30) as upload:
            head = f"POST /judge/r/1/answer HTTP/1.1\r\nHost: {host}:{port}\r\nOrigin: http://{host}:{port}\r\n"
            upload.sendall(f"{head}Content-Length: {1 << 30}\r\n\r\n".encode() + b"x" * 1000)
            assert upload.recv(12)[9:] == b"413"
        with socket.create_connection((host, port), timeout=30) as upload:  # without saying how much it will be
            head = f"POST /judge/a/1/invite HTTP/1.1\r\nHost: {host}:{port}\r\nOrigin: http://{host}:{port}\r\n"
            upload.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
            sent = 0
            try:
                while sent < 1 << 30:
                    upload.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                    sent += 65536
            except OSError:
                pass  # the server hangs up
            assert sent < 1 << 26
        raters = asyncio.run(load())
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()
    assert not [error for rater in raters for error in rater.errors]
    acknowledged = [own for rater in raters for own in rater.acknowledged]
    kept = store.judgements(study).ratings
    store.close()
    assert len(acknowledged) == len(set(acknowledged)) == len(kept) == 400
    assert len({(row.item, row.system) for row in kept}) == 400  # one label each
    assert (tmp_path / "errors.txt").read_text().splitlines() == [
        "papertrial: POST /judge/a/1/invite was cut off on its way; nothing of it was kept",
        "papertrial: stopped by SIGTERM",
    ]


# ------------------------------------------------------------------------------------------------------------ commands


def test_a_study_from_the_command_line(papertrial, tmp_path):
    file = outputs(tmp_path, 12)
    code, out, _ = papertrial("judge", "new", "night <b>", file, "--raters", 2, "--labels-per-item", 2, "--json")
    told = read_json(_text(tmp_path / "told.json", out))
    assert code == 0 and told["units"] == 24 and set(told["raters"]) == {"rater 1", "rater 2"}
    store = Store(tmp_path / "judgements.db")
    study = store.study("night <b>")
    assert store.enter(told["administrator"].rsplit("/", 1)[1]) == ("admin", study.id)
    code, out, err = papertrial("judge", "results", "night <b>")
    assert code == 2 and "nothing has been judged" in err
    for name, address in told["raters"].items():
        _, rater = store.rater(study.id, address.rsplit("/", 1)[1])
        assert rater.name == name
        desk = store.take(rater)
        while desk.work:
            desk = store.answer(
                rater, desk.work.assignment, {"quality": 1.0 if desk.work.outputs[0].text[0] == "b" else 0.25}
            )
    code, out, _ = papertrial("judge", "status")
    assert code == 0 and "48 of 48 labels" in out and "rater 2  24    24" in out
    code, out, _ = papertrial("judge", "results", "night <b>")
    assert code == 0 and "system-b is better than system-a" in out
    code, out, _ = papertrial("judge", "export", "night <b>", "all.csv")
    assert code == 0 and "48 ratings" in out
    assert (
        papertrial("judge", "results", "all.csv")[1].splitlines()[2:]
        == papertrial("judge", "results", "night <b>")[1].splitlines()[2:]
    )
    code, out, _ = papertrial("judge", "invite", "night <b>", "--name", "Ann", "--url", "http://host:1/")
    assert code == 0 and "Ann  http://host:1/judge/enter/" in out
    code, out, _ = papertrial("judge", "link", "night <b>", "Ann")
    assert store.enter(out.strip().rsplit("/", 1)[1]) == ("rater", study.id)
    code, out, _ = papertrial("judge", "link", "night <b>")
    assert store.enter(out.strip().rsplit("/", 1)[1]) == ("admin", study.id)
    store.close()
    for words, wanted in (
        (("new", "night <b>", file), "already has a study"),
        (("new", "", file), "has no name"),
        (("new", "x", file, "--labels-per-item", 3), "type: --raters 3"),
        (("new", "x", file, "--against", "y"), "only pairs"),
        (("new", "x", file, "--template", "pair"), "did you mean 'pairwise'"),
        (("new", "x", "none.jsonl"), "there is no none.jsonl"),
        (("status", "nigh"), "did you mean"),
        (("link", "night <b>", "Anna"), "did you mean 'Ann'"),
        (("export", "night <b>", "all.xlsx"), "end the name in"),
        (("serve", "--db", "none.db"), "is not there"),
    ):
        code, _, err = papertrial("judge", *words)
        assert code == 2 and wanted in err and len(err.splitlines()) == 1, (words, err)


def test_published_ratings_come_in_from_the_command_line(papertrial, tmp_path):
    rows = [f"{item}\t{system}\tr{item % 3}\t{vote}" for item in range(12) for system, vote in (("x", 1), ("y", 5))]
    _text(tmp_path / "published.tsv", "id\tmodel\tworker\tvote\n" + "\n".join(rows) + "\n")
    columns = ("--columns", "item=id,system=model", "--columns", "rater=worker,value=vote")
    code, out, _ = papertrial("judge", "results", "published.tsv", *columns, "--scale", "1-5", "--json")
    (board,) = read_json(_text(tmp_path / "told.json", out))
    assert code == 0 and [(row["system"], row["score"]) for row in board["rows"]] == [("y", 1.0), ("x", 0.0)]
    _, out, _ = papertrial("judge", "results", "published.tsv", *columns, "--scale", "5-1")
    assert "x is better than y" in out
    _, out, _ = papertrial("judge", "results", "published.tsv", *columns, "--words", "1=0,5=", "--json")
    assert [row["system"] for row in read_json(_text(tmp_path / "told.json", out))[0]["rows"]] == ["x"]
    for words, wanted in (
        ((*columns, "--scale", "1-4"), "a value of 5 is not on the scale from 1 to 4"),
        (("--columns", "item=ids"), "no column 'ids'; did you mean 'id'?"),
        (("--columns", "iten=id"), "did you mean 'item'"),
        (("--columns", "item"), "is not NAME=VALUE"),
        (("--scale", "5"), "is not WORST-BEST"),
        (("--words", "yes=x"), "not a number"),
    ):
        code, _, err = papertrial("judge", "results", "published.tsv", *words)
        assert code == 2 and wanted in err and len(err.splitlines()) == 1, (words, err)


def test_an_export_is_data_that_metrics_are_judged_on(papertrial, tmp_path):
    rows = [
        {
            "item": item,
            "system": system,
            "reference": f"the answer is {item}",
            "output": f"{words} {item}",
            "value": "v",
        }
        for item in range(8)
        for system, words in (("good", "the answer is"), ("bad", "no idea of"))
    ]
    checks = write_rows(tmp_path / "checks.jsonl", [{"output": "xx", "answer": "strongly disagree"}])
    store = Store(tmp_path / "judgements.db", create=True)
    study, _, [(rater, _)] = new_study(store, write_rows(tmp_path / "o.jsonl", rows), raters=1, checks=checks)
    desk = store.take(rater)
    while desk.work:
        desk = store.answer(
            rater, desk.work.assignment, {"quality": float("answer" in desk.work.outputs[0].text)}, "so"
        )
    name = study.name
    store.close()
    assert papertrial("judge", "export", name, "judged.csv")[0] == 0
    found = open_data("judged.csv")
    assert found.kind == "judged" and len(found) == 16 and found.systems == ("bad", "good")
    assert sorted(found.scores) == [0.0] * 8 + [1.0] * 8
    assert "the answer is 3" in found.first.texts() and "no idea of 3" in found.second.texts()
    assert len(Judgements.read("judged.csv").ratings) == 16 and "shown_value" in (tmp_path / "judged.csv").read_text()


def _text(path, content):
    path.write_text(content)
    return path
