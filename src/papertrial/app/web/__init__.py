"""`papertrial web`: the shelf, runs and comparisons as they go, search, and judgements, in one site."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from papertrial.app.site import make_site
from papertrial.core.errors import PapertrialError

if TYPE_CHECKING:
    from papertrial.app.site.site import Site


def make_web(
    runs: Path | None,
    *,
    host: str = "127.0.0.1",
    url: str | None = None,
    indexes: Sequence[Path] = (),
    judge: str | None = None,
    evidence: Path | None = None,
    token: str | None = None,
    data: Sequence[str] = (),
) -> Site:
    """The site, for a server bound to `host`.

    runs: the folder that may be read; None where there is none.  indexes: to be searched, beside those in `runs` and in
    the cache.  judge: database of judgements, which adds their pages.  evidence: folder of what is known of claims;
    by default that of this folder or of the checkout.  url, token: see `make_site`.  data: what fits and comparisons may be
    begun on from the page, by whoever has the token, which is then asked for on this machine, too.

    Raises PapertrialError for a folder that is not there or holds something else, and for a missing extra.
    """
    if data and token is None:
        token = secrets.token_urlsafe(24)
    if data and runs is None:
        raise PapertrialError("there is no folder of runs to write to", "name one: papertrial web FOLDER --data DATA")
    site = make_site("papertrial", host=host, url=url, token=token)
    from papertrial.app.web.routes import mount

    mount(site, runs, indexes, evidence if evidence is not None else _evidence(), data)
    if judge is not None:
        from papertrial.app.judge.routes import add_judge
        from papertrial.app.judge.store import Store

        add_judge(site, Store(judge))
    return site


def _evidence() -> Path:
    here = Path("evidence")
    return here if here.is_dir() else Path(__file__).parents[4] / "evidence"
