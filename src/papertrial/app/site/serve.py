"""The server: bound before anything is promised, and ended by Ctrl-C without a trace."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import signal
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from papertrial.app.site.guard import LOOPBACK
from papertrial.core.errors import PapertrialError, missing_extra
from papertrial.core.stopping import SIGNALS, Stopped

if TYPE_CHECKING:
    from papertrial.app.site.site import Site

#: seconds that answers under way may take once the server is told to end
_PATIENCE = 3
#: seconds that a connection stays open between two requests: as long as a rater looks at an item
_KEPT_OPEN = 120


def is_loopback(host: str) -> bool:
    """Whether a server bound to `host` is reached from this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to `host` and `port`; 0 takes any that is free. Raises PapertrialError when it cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError, OverflowError):
        raise PapertrialError(
            f"{host} is not an address of this machine", "leave out --host for this machine alone"
        ) from None
    listening = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # elsewhere it would take a port from another server
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(2048)
    except OSError as error:
        listening.close()
        raise _refused(host, port, error) from None
    return listening


def _refused(host: str, port: int, error: OSError) -> PapertrialError:
    if error.errno == errno.EADDRINUSE:
        return PapertrialError(f"port {port} is taken", "choose another one, such as --port 0 for any that is free")
    if error.errno in (errno.EACCES, errno.EPERM):
        return PapertrialError(f"port {port} may not be used", "choose one above 1023")
    if error.errno == errno.EADDRNOTAVAIL:
        return PapertrialError(f"{host} is not an address of this machine", "leave out --host for this machine alone")
    return PapertrialError(f"{host}:{port} cannot be used: {(error.strerror or str(error)).lower()}")


def names_of(host: str, home: str | None = None) -> list[str]:
    """Names by which a browser reaches a server bound to `host`, and `home` where a proxy passes it on; numeric
    addresses are taken beside them."""
    names = [*LOOPBACK, host, *([urlsplit(home).hostname or ""] if home else [])]
    if not is_loopback(host):
        machine = socket.gethostname()
        names += [machine, f"{machine}.local", socket.getfqdn()]
    return list(dict.fromkeys(names))


def home_of(url: str) -> str:
    """An address of a whole site as browsers tell it as the origin of a page: `https://example.org`.

    Raises PapertrialError for anything else; a site that stands below a path of another one is none.
    """
    try:
        parts = urlsplit(url)
        name, port = (parts.hostname or "").encode("idna").decode(), parts.port
    except ValueError:
        parts, name, port = urlsplit(""), "", None
    more = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
    if parts.scheme not in ("http", "https") or not name or more:
        raise PapertrialError(
            f"{url!r} is not the address of a site",
            "name one such as https://judge.example.org, with nothing behind it",
        )
    usual = {"http": 80, "https": 443}[parts.scheme]
    name = f"[{name}]" if ":" in name else name
    return f"{parts.scheme}://{name}" + ("" if port in (None, usual) else f":{port}")


def _address(host: str, port: int) -> str:
    """What to type into a browser, here or on another machine of the network."""
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
            probe.connect(("192.0.2.1", 9))  # sends nothing; asks which address would be used
            host = probe.getsockname()[0]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def serve(site: Site, host: str, port: int, say: Callable[[str], None] = print) -> None:
    """Answer at `host` and `port` until Ctrl-C; the address is said first, with the token where there is one.

    port: 0 takes any that is free.  Raises PapertrialError when the port cannot be had, or uvicorn is missing.
    """
    try:
        import uvicorn
    except ImportError:
        raise missing_extra("a web page", "uvicorn", "web") from None
    with listen(host, port) as listening:
        token = site.guard.token
        bound = _address(host, listening.getsockname()[1])
        address = (f"{site.guard.home}/" if site.guard.home else bound) + (f"?token={token}" if token else "")
        passed = f"a proxy must pass it on to {bound}; " if site.guard.home else ""
        say(f"{site.name}: {address}   ({passed}Ctrl-C ends it)")
        config = uvicorn.Config(
            site.guard,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            timeout_graceful_shutdown=_PATIENCE,
            timeout_keep_alive=_KEPT_OPEN,
        )
        _run(uvicorn.Server(config), listening)


def _run(server: Any, listening: socket.socket) -> None:
    """Until Ctrl-C or a signal to end. The server has a thread of its own: uvicorn raises anew, in the middle of its own
    end, the signals that it catches on the main one."""

    came: list[int] = []

    def end(number: int, _: object) -> None:
        came.append(number)
        server.should_exit = True  # within `_PATIENCE`, however often it is told

    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    for each in (signal.SIGINT, *SIGNALS):  # until the process ends, which takes a moment more
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, end)
    thread.start()
    thread.join()
    if not server.started:
        raise PapertrialError("the site could not be started", "what is printed above says why")
    if came and came[0] in SIGNALS:
        raise Stopped(came[0])
