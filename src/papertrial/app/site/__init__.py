"""The base of every page that papertrial serves: templates, files, the guard before them, and the server.

`make_site` gives a `Site`; a part of it (the shelf, `judge`) adds routes to `site.app`, a folder of templates, and links to
the menu. Pages are made here, on the server; htmx brings parts of them up to date; nothing is fetched from elsewhere.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from papertrial.app.site.guard import LOOPBACK
from papertrial.app.site.serve import home_of, is_loopback, names_of, serve
from papertrial.core.errors import missing_extra

if TYPE_CHECKING:
    from papertrial.app.site.site import Site

__all__ = ["LOOPBACK", "home_of", "make_site", "serve"]


def make_site(
    name: str = "papertrial", *, host: str = "127.0.0.1", url: str | None = None, token: str | None = None
) -> Site:
    """A site without pages, for a server bound to `host`.

    url: the address at which a proxy passes the server on; where it is https, so are the cookies.
    token: what visitors must show; one is drawn where other machines reach `host` or there is a `url`.
    Raises PapertrialError when a package of the extra `web` is missing, and for a `url` that is none.
    """
    try:
        from papertrial.app.site.site import Site
    except ImportError as error:
        raise missing_extra("a web page", error.name or "fastapi", "web") from None
    home = home_of(url) if url else None
    if token is None and (home or not is_loopback(host)):
        token = secrets.token_urlsafe(24)
    return Site(name, token, names_of(host, home), home)
