"""`web` and `doctor`: the site on this machine, and whether the machine is ready."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from papertrial.app import printing
from papertrial.app.commands.options import Host, Json, Port, Proxy, data_option


def web(
    runs: Annotated[
        Path | None,
        typer.Argument(
            help="Folder of runs and comparisons to show; runs/ when left out. Nothing outside is read.",
            show_default=False,
        ),
    ] = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    url: Proxy = None,
    index: Annotated[
        list[Path] | None, typer.Option(help="Index to search; may be repeated.", show_default=False)
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="Database of judgements; its pages are under /judge.", show_default=False)
    ] = None,
    evidence: Annotated[
        Path | None, typer.Option(help="Folder with the evidence on claims.", show_default=False)
    ] = None,
    data: Annotated[
        list[str] | None,
        data_option(
            "Data that fits and comparisons may be begun on from the page, which then asks for a token; may be repeated."
        ),
    ] = None,
) -> None:
    """The shelf, runs as they go, search and judgements as a site on this machine. Ctrl-C ends it."""
    from papertrial.app.site import serve
    from papertrial.app.web import make_web

    folder = runs if runs is not None else Path("runs") if Path("runs").is_dir() else None
    site = make_web(folder, host=host, url=url, indexes=index or [], judge=judge, evidence=evidence, data=data or [])
    serve(site, host, port, lambda line: print(line, flush=True))


def doctor(json: Json = False) -> None:
    """Is this machine ready? Versions, threads, extras, cache and known traps."""
    from papertrial.use.doctor import checks

    found = checks()
    if json:
        printing.document(found)
    else:
        printing.say(
            *printing.table(
                ("check", "state", "what"), [(check["name"], check["state"], check["what"]) for check in found]
            )
        )
    if any(check["state"] == "broken" for check in found):
        raise typer.Exit(1)
