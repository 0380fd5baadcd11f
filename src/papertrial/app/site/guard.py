"""What stands before every page: whose request it is, where it came from, how much it brings, and what a browser may do
with the answer.

Plain ASGI, so that a request that is refused is never read: an upload of any size is dropped at its first bytes.
"""

from __future__ import annotations

import hashlib
import hmac
import html
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, quote

#: names by which a browser on the same machine reaches a server bound to loopback
LOOPBACK = ("localhost", "127.0.0.1", "::1")
#: bytes that a request may bring where nothing else is said
MOST = 1 << 20
_TOO_MUCH = (413, "This request is too large.")
_READS = ("GET", "HEAD", "OPTIONS")
#: what has no business in a path: parts that lead upwards, other separators, and characters that are not shown
_STRANGE = re.compile(r"(^|/)\.{1,2}(/|$)|[\\\x00-\x1f\x7f]")


def policy(*, styles: bool = False) -> str:
    """The content security policy of a page. Scripts are files of this server and nothing else.

    styles: also style elements, which Plotly makes.
    """
    inline = "style-src 'self' 'unsafe-inline'" if styles else "style-src 'self'; style-src-attr 'unsafe-inline'"
    return (
        f"default-src 'none'; script-src 'self'; {inline}; img-src 'self' data:; connect-src 'self';"
        " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


_HEADERS = {
    "content-security-policy": policy(),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # a stricter one would have browsers hide where a form was sent from, which is checked here
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "private, no-cache",
}


@dataclass
class Guard:
    """An ASGI application around another one.

    token: what a visitor shows once, in the address or the form, and then as a cookie; None asks nobody.
    hosts: names that the server goes by. Numeric addresses are names too where it is not bound to loopback alone: a
    page of another site can make its own name point here, but not a number.  cookie: its name, of which each token has
    one, since two servers of one machine share a jar whatever their ports.
    home: the address at which a proxy passes the server on, such as https://example.org; its name must be one of `hosts`.
    Cookies are then for https alone. What a request says of itself (X-Forwarded-Proto, Forwarded) is never asked, so
    there is nothing to forge.
    public: beginnings of paths that need no token.  limits: bytes that a request may bring, by the beginning of its path.
    """

    app: Callable[..., Any]
    token: str | None = None
    hosts: Iterable[str] = LOOPBACK
    home: str | None = None
    public: list[str] = field(default_factory=lambda: ["/static/"])
    limits: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.hosts = {name.lower() for name in self.hosts}
        self._numbers = not self.hosts <= set(LOOPBACK)
        self.cookie = f"papertrial-{_digest(f'name {self.token}')[:8]}"

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        reply = _guarded(send)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            return await _answer(reply, *refusal)
        if self.token is not None and not self._known(scope["path"], headers):
            return await self._ask(scope, receive, reply)
        await self._within(self._most(scope["path"]), scope, receive, reply)

    async def _within(self, most: int, scope: dict[str, Any], receive: Any, reply: Any) -> None:
        """Let the application answer, unless more than `most` bytes come: then what it says is dropped."""
        left, begun = most, False

        async def counted() -> dict[str, Any]:
            nonlocal left
            message: dict[str, Any] = {"type": "http.disconnect"} if left < 0 else await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                if message["type"] == "http.request" and not begun:
                    await _answer(reply, *_TOO_MUCH)
                return {"type": "http.disconnect"}
            return message

        async def told(message: dict[str, Any]) -> None:
            nonlocal begun
            if left >= 0:
                begun = True
                await reply(message)

        try:
            await self.app(scope, counted, told)
        except Exception:
            if left >= 0:
                raise

    def _most(self, path: str) -> int:
        return next((most for begin, most in self.limits.items() if path.startswith(begin)), MOST)

    def _refusal(self, scope: Mapping[str, Any], headers: Mapping[str, list[str]]) -> tuple[int, str] | None:
        """Status and words for a request that is not let through, whoever sends it."""
        host = headers.get("host", [])
        if len(host) != 1 or not self._own(host[0]):
            return 400, "This server is not known by that name."
        if _STRANGE.search(scope["path"]) or re.search(rb"%(2f|5c|00)", scope.get("raw_path") or b"", re.IGNORECASE):
            return 400, "There is no such address."
        if scope["method"] not in _READS:
            origin = headers.get("origin", [])
            own = len(origin) == 1 and origin[0].lower().partition("://")[2] == host[0].lower()
            if not own and [self.home] != [name.lower() for name in origin]:  # a proxy may leave out the name
                return 403, "This was sent from another site."
            if headers.get("sec-fetch-site", ["same-origin"]) != ["same-origin"]:
                return 403, "This was sent from another site."
        length = headers.get("content-length", ["0"])
        if len(length) != 1 or not re.fullmatch(r"\d{1,18}", length[0]):
            return 400, "The length of this request is not a number."
        if int(length[0]) > self._most(scope["path"]):
            return _TOO_MUCH
        return None

    def _own(self, host: str) -> bool:
        """Whether a Host header names this server."""
        match = re.fullmatch(r"\[([0-9a-fA-F:.]+)\](:\d{1,5})?|([^:\s/@\\]+)(:\d{1,5})?", host)
        if match is None:
            return False
        name = (match[1] or match[3]).lower().rstrip(".")
        return name in self.hosts or (self._numbers and _is_address(name))

    def _known(self, path: str, headers: Mapping[str, list[str]]) -> bool:
        """Whether the visitor may pass: the page is for all, or the cookie is right."""
        if any(path.startswith(begin) for begin in self.public):
            return True
        try:
            held = SimpleCookie("; ".join(headers.get("cookie", []))).get(self.cookie)
        except CookieError:
            return False
        return held is not None and hmac.compare_digest(held.value.encode(), self._proof().encode())

    def secure(self, scope: Mapping[str, Any]) -> bool:
        """Whether a cookie that answers this request is for https alone."""
        return str(self.home).startswith("https:") or scope.get("scheme") == "https"

    def _proof(self) -> str:
        """What the cookie holds: not the token, which is of use elsewhere."""
        return _digest(f"proof {self.token}")

    async def _ask(self, scope: Mapping[str, Any], receive: Any, reply: Any) -> None:
        """Take the token from the address or the form, or ask for it."""
        fields = scope["query_string"]
        if scope["method"] == "POST":
            fields, more = b"", True
            while more and len(fields) <= 4096:
                message = await receive()
                fields, more = fields + message.get("body", b""), message.get("more_body", False)
        given = parse_qs(fields.decode("latin-1")[:4096]).get("token", [])
        if len(given) != 1 or not hmac.compare_digest(given[0].encode(), str(self.token).encode()):
            wrong = "That is not it. " if given else ""
            return await _answer(reply, 401, f"{wrong}This page is for those who have its token.", _FORM)
        # A page that leads on instead of a redirect: browsers keep a strict cookie from one that another site began.
        cookie = f"{self.cookie}={self._proof()}; Path=/; HttpOnly; SameSite=Strict; Max-Age=2592000"
        cookie += "; Secure" if self.secure(scope) else ""
        address = html.escape("/" + quote(scope["path"].lstrip("/")))
        lead = f'<meta http-equiv="refresh" content="0; url={address}"><p><a href="{address}">Go on</a></p>'
        await _answer(reply, 200, "Welcome.", lead, {"set-cookie": cookie})


_FORM = """<form method="post"><input name="username" value="papertrial" autocomplete="username" hidden><p><label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
<button>Enter</button></p>
<p class="note">It was printed where the server was started.</p></form>"""


def _digest(text: str) -> str:
    return hashlib.sha256(f"papertrial {text}".encode()).hexdigest()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _guarded(send: Any) -> Any:
    """`send` with the headers that every answer has; those that a page sets itself stay."""

    async def reply(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            own = {name.lower() for name, _ in message.get("headers", ())}
            more = [(n.encode(), v.encode()) for n, v in _HEADERS.items() if n.encode() not in own]
            message = {**message, "headers": [*message.get("headers", ()), *more]}
        await send(message)

    return reply


async def _answer(
    reply: Any, status: int, words: str, more: str = "", headers: Mapping[str, str] | None = None
) -> None:
    """A short page of its own, which needs neither templates nor a request."""
    body = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>papertrial</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
        f'<link rel="icon" href="data:,"><link rel="stylesheet" href="/static/site.css"></head><body><main><h1>{words}</h1>{more}</main></body></html>'
    ).encode()
    told = {
        "content-type": "text/html; charset=utf-8",
        "content-length": str(len(body)),
        "cache-control": "no-store",
        **({} if status < 400 else {"connection": "close"}),
        **(headers or {}),
    }
    listed = [(name.encode(), value.encode()) for name, value in told.items()]
    await reply({"type": "http.response.start", "status": status, "headers": listed})
    await reply({"type": "http.response.body", "body": body})
