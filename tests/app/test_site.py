"""The base of all pages: whatever should not pass is tried, and refused before it is read."""

from __future__ import annotations

import asyncio
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import warnings

import pytest

from papertrial.app.site import make_site
from papertrial.app.site.guard import MOST
from papertrial.app.site.serve import home_of, is_loopback, listen, serve
from papertrial.core.errors import PapertrialError
from webpage import asked

pytest.importorskip("fastapi", reason="needs the extra web")
from fastapi import Request
from fastapi.responses import PlainTextResponse
from starlette.testclient import TestClient

HOME = "http://127.0.0.1:8000"
EVIL = "<script>alert(1)</script>"


def site_with_routes(**options):
    site = make_site(**options)

    async def taken(request: Request):
        return PlainTextResponse(str(len(await request.body())))

    async def form(request: Request):
        async with request.form() as fields:
            return PlainTextResponse(",".join(fields))

    def mendable():
        raise PapertrialError(f"no {EVIL}", "do this")

    def defect():
        raise RuntimeError("a secret of the server")

    def looked():
        return PlainTextResponse("looked")

    for address, answer, methods in (
        ("/take", taken, ["POST"]),
        ("/form", form, ["POST"]),
        ("/mendable", mendable, ["GET"]),
        ("/defect", defect, ["GET"]),
        ("/look", looked, ["GET"]),
    ):
        site.app.add_api_route(address, answer, methods=methods)
    return site


@pytest.fixture
def site():
    return site_with_routes()


@pytest.fixture
def client(site):
    return TestClient(site.guard, base_url=HOME, raise_server_exceptions=False)


# --------------------------------------------------------------------------------------------------- names and addresses


@pytest.mark.parametrize(
    "host", ["evil.com", "evil.com:8000", "127.0.0.1.evil.com", "192.168.0.7", "a b", "", "[::1", "x@localhost"]
)
def test_another_name_is_refused(client, host):
    """A page elsewhere can make its own name point here; the browser then says that name."""
    assert client.get("/look", headers={"host": host}).status_code == 400


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "LOCALHOST:1", "localhost.", "[::1]:8000"])
def test_own_names_pass(client, host):
    assert client.get("/look", headers={"host": host}).text == "looked"


def test_two_host_headers_are_refused(site):
    assert asked(site.guard, "/look", "GET", [("host", "localhost")])[0] == 400


def test_on_all_addresses_numbers_and_the_machine_pass_and_names_do_not():
    site = site_with_routes(host="0.0.0.0", token="t")
    for host, status in (("192.168.0.7:8000", 401), (f"{socket.gethostname()}:8000", 401), ("evil.com", 400)):
        assert asked(site.guard, "/look", "GET", host=host)[0] == status


@pytest.mark.parametrize(
    ("path", "raw"),
    [
        ("/../etc/passwd", None),
        ("/a/../../b", None),
        ("/a/./b", None),
        ("/..", None),
        ("/a\\..\\b", None),
        ("/a\x00b", None),
        ("/a\nb", None),
        ("/a/b", b"/a%2Fb"),
        ("/a/b", b"/a%5cb"),
    ],
)
def test_strange_paths_are_refused(site, path, raw):
    assert asked(site.guard, path, "GET", raw_path=raw)[0] == 400


def test_a_websocket_is_refused(site):
    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(site.guard({"type": "websocket", "path": "/look", "headers": []}, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


# ------------------------------------------------------------------------------------------------------------ other sites


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "null"},
        {"origin": "http://evil.com"},
        {"origin": "http://127.0.0.1:8001"},
        {"origin": "http://127.0.0.1"},
        {"origin": HOME, "sec-fetch-site": "cross-site"},
        {"origin": HOME, "sec-fetch-site": "same-site"},
        {"origin": "http://127.0.0.1:8000@evil.com"},
        {"origin": "http://evil.com/://127.0.0.1:8000"},
        {"origin": "http://["},
        {"origin": "127.0.0.1:8000"},
    ],
)
def test_what_another_site_sends_is_refused(client, headers):
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert client.request(method, "/take", headers=headers).status_code == 403


def test_what_a_page_of_its_own_sends_passes(client):
    headers = {"origin": HOME, "sec-fetch-site": "same-origin"}
    assert client.post("/take", content=b"abc", headers=headers).text == "3"
    assert client.post("/form", data={"a": "1"}, headers=headers).text == "a"


def test_every_answer_tells_the_browser_what_it_may_do(client):
    answers = [
        client.get("/look"), client.get("/nowhere"), client.get("/defect"), client.get("/static/site.css"),
        client.post("/take"), client.post("/take", headers={"origin": HOME, "content-length": str(1 << 30)}),
        client.get("/look", headers={"host": "evil.com"}),
    ]  # fmt: skip
    assert [answer.status_code for answer in answers] == [200, 404, 500, 200, 403, 413, 400]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self';" in policy and "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy.replace("style-src-attr 'unsafe-inline'", "")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"


# ------------------------------------------------------------------------------------------------------------- size


def test_a_gigabyte_that_is_announced_is_never_read(site):
    status, headers, _, pieces = asked(site.guard, headers=[("content-length", str(1 << 30))], body=[b"x"] * 9)
    assert status == 413 and pieces == 0 and headers["connection"] == "close"


@pytest.mark.parametrize("path", ["/take", "/form"])
def test_a_gigabyte_that_is_not_announced_is_dropped(site, path):
    piece = bytes(1 << 16)
    many = (piece for _ in range(1 << 14))
    kind = ("content-type", "multipart/form-data; boundary=b")
    first = b'--b\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'
    body = (first if index == 0 and path == "/form" else each for index, each in enumerate(many))
    status, headers, text, pieces = asked(site.guard, path, headers=[kind], body=body)
    assert status == 413 and pieces <= MOST / len(piece) + 2
    assert b"too large" in text and "content-security-policy" in headers


def test_a_path_may_take_more_and_the_size_must_be_a_number(site):
    site.guard.limits["/take"] = 3 * MOST
    body = [bytes(1 << 20)] * 2
    assert asked(site.guard, body=body)[2] == str(2 << 20).encode()
    for length in ("-1", "1e3", "9" * 30, "x"):
        assert asked(site.guard, headers=[("content-length", length)])[0] == 400


# ------------------------------------------------------------------------------------------------------------ token


def test_a_token_is_asked_once_and_kept_as_a_cookie():
    site = site_with_routes(host="0.0.0.0")
    assert site.guard.token and len(site.guard.token) >= 32
    client = TestClient(site.guard, base_url="http://192.168.0.7:8000")
    refused = client.get("/look")
    assert refused.status_code == 401 and "looked" not in refused.text and 'type="password"' in refused.text
    assert client.get("/static/site.css").status_code == 200  # the page that asks has a style

    welcome = client.get("/look", params={"token": site.guard.token})
    assert welcome.status_code == 200 and 'content="0; url=/look"' in welcome.text
    cookie = welcome.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and site.guard.token not in cookie
    assert welcome.headers["cache-control"] == "no-store"
    assert client.get("/look").text == "looked"
    fresh = TestClient(site.guard, base_url="http://192.168.0.7:8000")
    origin = {"origin": "http://192.168.0.7:8000"}
    assert fresh.post("/take", data={"token": site.guard.token}, headers=origin).status_code == 200
    assert fresh.post("/take", content=b"ab", headers=origin).text == "2"


def test_forged_tokens_and_cookies_are_refused():
    site = site_with_routes(token="right")
    name, proof = site.guard.cookie, site.guard._proof()
    for query in ("token=wrong", "token=", "token=right&token=right", "token=right%00", "token=%ff"):
        assert TestClient(site.guard, base_url=HOME).get(f"/look?{query}").status_code == 401
    for cookie in (
        f"{name}=right",
        f"{name}={proof[:-1]}",
        f"{name}=",
        "x=y",
        f"other={proof}",
        f"{name}=\u00e9",
        "\x01=;;",
    ):
        headers = {"cookie": cookie.encode("utf-8")}
        assert TestClient(site.guard, base_url=HOME).get("/look", headers=headers).status_code == 401
    other = site_with_routes(token="another")
    assert (other.guard.cookie, other.guard._proof()) != (name, proof)
    headers = {"origin": HOME}
    assert (
        TestClient(site.guard, base_url=HOME).post("/take", content=b"x" * 10_000, headers=headers).status_code == 401
    )


def test_the_way_on_stays_on_the_site():
    site = site_with_routes(token="t")
    page = asked(site.guard, "//evil.com/", "GET", query=b"token=t")[2].decode()
    assert 'url=/evil.com/"' in page and "//evil.com" not in page
    page = TestClient(site.guard, base_url=HOME).get('/"><script>x</script>?token=t').text
    assert "<script" not in page


def test_public_paths_need_no_token():
    site = site_with_routes(token="t")
    site.guard.public.append("/look")
    assert TestClient(site.guard, base_url=HOME).get("/look").text == "looked"


@pytest.mark.parametrize(
    ("host", "alone"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("10.0.0.1", False)],
)
def test_a_token_is_drawn_where_others_reach_the_server(host, alone):
    assert is_loopback(host) is alone
    assert (make_site(host=host).guard.token is None) is alone


# ------------------------------------------------------------------------------------------------------ behind a proxy

FORGED = {
    "x-forwarded-proto": "https", "x-forwarded-host": "evil.com", "x-forwarded-for": "127.0.0.1", "x-forwarded-port": "443",
    "forwarded": "for=127.0.0.1;proto=https;host=evil.com", "x-scheme": "https", "front-end-https": "on",
}  # fmt: skip


def let_in(client, **headers):
    """The answer that hands out the cookie."""
    return client.get("/look", params={"token": "t"}, headers=headers)


def test_what_a_request_says_of_its_proxy_changes_nothing():
    plain, told = (
        let_in(TestClient(site_with_routes(token="t").guard, base_url=HOME), **more) for more in ({}, FORGED)
    )
    assert told.headers == plain.headers and told.text == plain.text and "Secure" not in told.headers["set-cookie"]
    site = site_with_routes(token="t", url="https://lab.example.org")
    insecure = {name: value.replace("https", "http") for name, value in FORGED.items()}
    for headers in ({}, FORGED, insecure):  # neither can anybody talk it out of https
        answer = let_in(TestClient(site.guard, base_url="http://lab.example.org"), **headers)
        assert answer.headers["set-cookie"].endswith("; Secure")
        assert TestClient(site.guard, base_url=HOME).get("/look", headers=headers).status_code == 401


def test_a_site_behind_a_proxy_asks_for_its_token_and_knows_its_name():
    site = site_with_routes(url="https://lab.example.org")
    assert site.guard.token  # bound to this machine, and yet others come in
    client = TestClient(site.guard, base_url="http://lab.example.org")
    assert client.get("/look").status_code == 401
    assert client.get("/look", headers={"host": "evil.example.org"}).status_code == 400
    assert asked(site.guard, "/look", "GET", host="lab.example.org:443")[0] == 401
    plain = site_with_routes(url="http://lab.example.org:8080", token="t")  # a proxy without TLS
    assert "Secure" not in let_in(TestClient(plain.guard, base_url="http://lab.example.org:8080")).headers["set-cookie"]


@pytest.mark.parametrize(
    "host", ["lab.example.org", "127.0.0.1:8000"]
)  # proxies pass on the name, or their own address
def test_what_a_page_behind_a_proxy_sends_passes_and_nothing_else(host):
    site = site_with_routes(url="https://Lab.example.org:443/")
    headers = {"cookie": f"{site.guard.cookie}={site.guard._proof()}", "host": host}
    client = TestClient(site.guard)
    assert client.post("/take", content=b"abc", headers={**headers, "origin": "https://lab.example.org"}).text == "3"
    for origin in ("https://evil.com", "https://lab.example.org.evil.com", "https://lab.example.org:444", "null", ""):
        assert client.post("/take", content=b"abc", headers={**headers, "origin": origin}).status_code == 403
    assert client.post("/take", content=b"abc", headers=headers).status_code == 403


@pytest.mark.parametrize(
    ("url", "home"),
    [
        ("https://lab.example.org", "https://lab.example.org"),
        ("https://LAB.example.org:443/", "https://lab.example.org"),
        ("http://10.0.0.7:8700", "http://10.0.0.7:8700"),
        ("https://[fd00::1]:8443", "https://[fd00::1]:8443"),
        ("https://b\u00fccher.example", "https://xn--bcher-kva.example"),
    ],
)
def test_an_address_is_told_as_browsers_tell_it(url, home):
    assert home_of(url) == home


@pytest.mark.parametrize(
    "url",
    [
        "", "lab.example.org", "ftp://lab.example.org", "https://", "https://lab.example.org/judge", "https://me:pw@lab",
        "https://lab?x=1", "https://lab#x", "https://lab:port", "https://lab:99999", "https://[::1", "https://a..b",
        "javascript:alert(1)",
    ],
)  # fmt: skip
def test_what_is_no_address_of_a_site_is_said_in_one_line(url):
    with pytest.raises(PapertrialError, match="is not the address of a site") as stop:
        home_of(url)
    assert len(str(stop.value).splitlines()) == 1


# ------------------------------------------------------------------------------------------------------ pages and files


def test_errors_are_pages_that_give_nothing_away(client, site):
    mendable = client.get("/mendable")
    assert mendable.status_code == 400 and "&lt;script&gt;" in mendable.text and EVIL not in mendable.text
    assert "do this" in mendable.text
    defect = client.get("/defect")
    assert defect.status_code == 500 and "secret" not in defect.text
    missing = client.get(f"/{EVIL}")
    assert missing.status_code == 404 and EVIL not in missing.text
    assert client.post("/look", headers={"origin": HOME}).status_code == 405


def test_files_come_from_memory_and_are_kept_by_the_browser(client):
    for name in ("site.css", "site.js", "htmx.min.js", "plotly.min.js"):
        page = client.get("/nowhere").text
        address = re.search(rf"/static/{re.escape(name)}\?v=\w+", page)
        answer = client.get(address[0] if address else f"/static/{name}")
        assert answer.status_code == 200 and answer.content
        assert ("immutable" in answer.headers["cache-control"]) == (address is not None)
    packed = client.get("/static/site.css", headers={"accept-encoding": "gzip"})
    plain = client.get("/static/site.css", headers={"accept-encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip" and packed.content == plain.content
    for name in ("site.css/..", "%2e%2e", "pages.py", "site.css%00"):
        assert client.get(f"/static/{name}").status_code in (400, 404)


def test_a_missing_extra_is_said(monkeypatch):
    monkeypatch.delitem(sys.modules, "papertrial.app.site.site")
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(PapertrialError, match=r"pip install 'papertrial\[web\]'"):
        make_site()


# -------------------------------------------------------------------------------------------------------------- server


def test_a_port_that_is_taken_is_said_in_one_line(site):
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PapertrialError, match=f"port {port} is taken"):
            serve(site, "127.0.0.1", port)


@pytest.mark.parametrize("host", ["203.0.113.7", "no such name", "300.0.0.1"])
def test_an_address_of_another_machine_is_said_in_one_line(site, host):
    with warnings.catch_warnings(), pytest.raises(PapertrialError, match="not an address of this machine"):
        serve(site, host, 0)


@pytest.mark.parametrize(
    ("host", "end", "code", "said"),
    [("127.0.0.1", signal.SIGINT, 0, ""), ("0.0.0.0", signal.SIGTERM, 143, "papertrial: stopped by SIGTERM\n")],
)
def test_the_command_serves_until_it_is_told_to_end(tmp_path, host, end, code, said):
    command = [sys.executable, "-m", "papertrial", "web", str(tmp_path), "--port", "0", "--host", host]
    environment = {**os.environ, "PAPERTRIAL_CACHE": str(tmp_path / "cache")}
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        line = server.stdout.readline()
        port = int(re.search(r":(\d+)/", line)[1])
        assert ("?token=" in line) == (host != "127.0.0.1")
        for path, length, status in (("/", 0, 200), ("/", 1 << 30, 413)):
            talk = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            talk.putrequest("POST" if length else "GET", path)
            talk.putheader("Content-Length", str(length))
            talk.putheader("Origin", f"http://127.0.0.1:{port}")
            talk.endheaders()
            answer = talk.getresponse()
            assert answer.status == (401 if host != "127.0.0.1" and not length else status)
            assert answer.getheader("server") is None
            talk.close()
        server.send_signal(end)
        out, err = server.communicate(timeout=60)
        assert (server.returncode, out, err) == (code, "", said)
    finally:
        server.kill()
        server.wait()
