"""`papertrial judge`: studies by people from the command line. What is heavy is imported by the command that needs it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from papertrial.app import printing
from papertrial.app.commands.options import Host, Json, Port, Proxy, number_option
from papertrial.core.errors import DataError, PapertrialError, did_you_mean, missing_extra
from papertrial.core.ours import require_free
from papertrial.core.wording import counted

if TYPE_CHECKING:
    from papertrial.app.judge.store import Store

judge = typer.Typer(
    name="judge",
    help="People compare or rate outputs, blinded and in random order, on a web page of your own.",
    no_args_is_help=True,
)

_FILE = "judgements.db"
_PORT = 8700
_URL = f"http://127.0.0.1:{_PORT}"
Database = Annotated[
    str,
    typer.Option(
        help="A SQLite file, or postgresql://user:password@host/database; also from PAPERTRIAL_JUDGE_DB, which keeps a password out of the list of processes.",
        envvar="PAPERTRIAL_JUDGE_DB",
        show_envvar=False,
    ),
]
Name = Annotated[str, typer.Argument(help="The study.", show_default=False)]
Address = Annotated[str, typer.Option("--url", help="How raters reach the server; links begin with it.")]


def _store(place: str, *, create: bool = False) -> Store:
    try:
        from papertrial.app.judge.store import Store
    except ImportError as error:
        raise missing_extra("judgement by people", error.name or "sqlmodel", "web") from None
    return Store(place, create=create)


def _home(url: str) -> str:
    from papertrial.app.site import home_of

    return home_of(url)


def _links(home: str, named: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name, f"{home}/judge/enter/{token}") for name, token in named]


def _tell(links: list[tuple[str, str]]) -> list[str]:
    width = max(len(name) for name, _ in links) + 2
    return [f"{name:<{width}}{address}" for name, address in links]


def _serve_line(db: str, home: str) -> str:
    where = "" if db == _FILE or "://" in db else f" --db {quote(db)}"
    return f"papertrial judge serve{where}" + (f" --url {home}" if home.startswith("https:") else "")


@judge.command("new")
def new(
    name: Annotated[str, typer.Argument(help="What the study is called; raters do not see it.", show_default=False)],
    outputs: Annotated[
        list[str],
        typer.Argument(
            help="JSONL or CSV with item, system and output (or text, or image: a path); or one file per system, SYSTEM=FILE.",
            show_default=False,
        ),
    ],
    db: Database = _FILE,
    template: Annotated[
        str, typer.Option(help="genie (five points), pairwise (side by side), or your own FILE.toml.")
    ] = "genie",
    raters: Annotated[int, number_option("raters", "Invitations to make.")] = 1,
    labels: Annotated[
        int,
        number_option(
            "labels_per_item",
            "Raters for each output or pair; GENIE advises more items rather than more labels.",
            "--labels-per-item",
        ),
    ] = 1,
    checks: Annotated[
        Path | None,
        typer.Option(
            help="Attention checks: as outputs, with `answer`; `first` and `second` for pairs.", show_default=False
        ),
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="For pairs: compare with this system only.", show_default=False)
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="Folder that image paths are relative to, if not the file's own.", show_default=False),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Show outputs as Markdown: no links, no pictures, no HTML.")
    ] = False,
    minutes: Annotated[
        float, number_option("minutes", "Minutes until an item that was left unanswered may go to another rater.")
    ] = 30,
    url: Address = _URL,
    json: Json = False,
) -> None:
    """Import outputs, and print the administrator's link and the invitations, this once: only their hashes are kept."""
    from papertrial.app.judge.outputs import clean, read
    from papertrial.core.judgement import template as find_template

    home = _home(url)
    called = " ".join(clean(name).split())
    if not called:
        raise PapertrialError("the study has no name", "type: papertrial judge new NAME OUTPUTS")
    if labels > raters:
        raise PapertrialError(
            f"{labels} labels per item need as many raters, but there are {raters}", f"type: --raters {labels}"
        )
    asked = find_template(template)
    if markdown:
        asked = replace(asked, format="markdown")
    material = read(outputs, asked, checks=checks, against=against, images=images)
    store = _store(db, create=True)
    study, token = store.add(called, asked, material, labels=labels, raters=raters, minutes=minutes)
    names = store.next_names(study.id or 0, raters)
    invited = store.invite(study.id or 0, names)
    administrator = _links(home, [("administrator", token)])
    links = _links(home, invited)
    if json:
        printing.document(
            {
                "study": called,
                "units": len(material.units),
                "labels": labels,
                "checks": len(material.checks),
                "notes": material.notes,
                "administrator": administrator[0][1],
                "raters": dict(links),
            }
        )
        return
    items = len({id(unit.entry) for unit in material.units})
    systems = {system for unit in material.units for system in unit.systems}
    what = "pair" if asked.kind == "pair" else "output"
    rows = [
        ("study", called),
        ("asks", f"{asked.name}: {'; '.join(question.text for question in asked.questions)}"),
        ("of", f"{counted(len(material.units), what)}: {counted(items, 'item')}, {', '.join(sorted(systems))}"),
        ("labels", f"{labels} each, {counted(study.share, what)} per rater"),
        ("checks", f"{len(material.checks)}, one in about {study.check_every}" if material.checks else "none: --checks FILE adds some"),
        ("kept in", store.name),
    ]  # fmt: skip
    _say(*printing.labelled(rows), *printing.labelled(("note", note) for note in material.notes))
    _say("", *_tell([*administrator, *links]), "", "These links are not kept: copy them now. Each is for one person.")
    _say("", f"next        {_serve_line(db, home)}")


@judge.command("serve")
def serve(
    db: Database = _FILE,
    host: Host = "127.0.0.1",
    port: Port = _PORT,
    url: Proxy = None,
) -> None:
    """Serve the pages of all studies in a database until Ctrl-C."""
    from papertrial.app.site import make_site
    from papertrial.app.site import serve as run

    store = _store(db)
    site = make_site(host=host, url=url)
    from papertrial.app.judge.routes import add_judge

    add_judge(site, store)
    site.app.add_api_route("/", _to_judge, include_in_schema=False)
    run(site, host, port)


def _to_judge() -> Any:
    from fastapi.responses import RedirectResponse

    return RedirectResponse("/judge", 303)


@judge.command("invite")
def invite(
    study: Name,
    raters: Annotated[int, number_option("raters", "How many, called rater 1, rater 2, ...")] = 1,
    name: Annotated[list[str] | None, typer.Option(help="A rater's name; may be repeated.", show_default=False)] = None,
    db: Database = _FILE,
    url: Address = _URL,
    json: Json = False,
) -> None:
    """Invite more raters; each link is printed this once."""
    from papertrial.app.judge.outputs import clean

    home = _home(url)
    store = _store(db)
    own = store.study(study).id or 0
    names = [" ".join(clean(one).split()) for one in name or []]
    if not all(names):
        raise PapertrialError("a rater has no name", "leave out --name to have them numbered")
    links = _links(home, store.invite(own, names or store.next_names(own, raters)))
    if json:
        printing.document(dict(links))
        return
    _say(*_tell(links), "", "These links are not kept: copy them now. Each is for one person.")


@judge.command("link")
def link(
    study: Name,
    rater: Annotated[
        str | None, typer.Argument(help="The rater it is for; the administrator when left out.", show_default=False)
    ] = None,
    db: Database = _FILE,
    url: Address = _URL,
) -> None:
    """A new link for one that is lost; the old one opens nothing any more."""
    home = _home(url)
    store = _store(db)
    own = store.study(study).id or 0
    known = {one.name: one.id for one in store.progress(own).raters}
    if rater is not None and rater not in known:
        raise PapertrialError(f"{study!r} has no rater {rater!r}", did_you_mean(rater, known))
    _say(_links(home, [store.renew(own, known[rater] if rater else None)])[0][1])


@judge.command("status")
def status(
    study: Annotated[str | None, typer.Argument(help="Only this study.", show_default=False)] = None,
    db: Database = _FILE,
    json: Json = False,
) -> None:
    """How far each study and each rater is."""
    store = _store(db)
    found = [store.study(study)] if study else store.studies()
    progress = {one.name: store.progress(one.id or 0) for one in found}
    if json:
        printing.document(
            {
                one.name: {
                    "state": one.state,
                    "template": one.template.name,
                    "labels": progress[one.name].labels,
                    "wanted": progress[one.name].wanted,
                    "undone": progress[one.name].undone,
                    "raters": [vars(rater) for rater in progress[one.name].raters],
                }
                for one in found
            }
        )
        return
    if not found:
        _say(f"{store.name} holds no study yet.")
    for index, one in enumerate(found):
        told = progress[one.name]
        if index:
            _say("")
        _say(
            f"{one.name}: {one.state}, {told.labels} of {told.wanted} labels, {counted(told.undone, 'answer')} taken back"
        )
        _say(
            *printing.table(
                ("rater", "done", "of", "checks passed", "seconds each", ""),
                [
                    (
                        rater.name,
                        str(rater.done),
                        str(rater.share),
                        f"{rater.passed} of {rater.checks}" if rater.checks else "-",
                        f"{rater.seconds:.1f}" if rater.seconds is not None else "-",
                        "revoked" if rater.revoked else "",
                    )
                    for rater in told.raters
                ],
            )
        )


@judge.command("export")
def export(
    study: Name,
    out: Annotated[Path, typer.Argument(help="FILE.jsonl or FILE.csv.", show_default=False)],
    db: Database = _FILE,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a file that is there.")] = False,
    json: Json = False,
) -> None:
    """Write every judgement, one row an answer, with the output and what was shown beside it: `compare bleu rouge --data
    FILE.csv` takes it where that holds a reference. Answers that were taken back are left out; the database keeps them."""
    require_free(out, replace)
    store = _store(db)
    own = store.study(study).id or 0
    judgements = store.judgements(own)
    undone = store.progress(own).undone
    judgements.write(out, store.shown(own))
    counts = {
        "ratings": len(judgements.ratings),
        "preferences": len(judgements.preferences),
        "checks": len(judgements.checks),
        "remarks": len(judgements.remarks),
        "left out": undone,
    }
    if json:
        printing.document({"file": out, **counts})
        return
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count and name != "left out")
    _say(
        f"{out}: {told or 'no judgements yet'}"
        + (f"; {counted(undone, 'answer')} taken back left out" if undone else "")
    )


@judge.command("results")
def results(
    study: Annotated[
        str,
        typer.Argument(
            help="A study of the database, or a .jsonl, .csv or .tsv file of judgements.", show_default=False
        ),
    ],
    columns: Annotated[
        list[str] | None,
        typer.Option(
            help="Of a file from elsewhere, OURS=THEIRS: item, system, rater, value, question (or first, second, outcome).",
            show_default=False,
        ),
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(help="Of a file from elsewhere, WORST-BEST: 1-5, or 7-1 where 1 is best.", show_default=False),
    ] = None,
    words: Annotated[
        list[str] | None,
        typer.Option(
            help="What answers in words are worth, 0 to 1: yes=1,no=0; an empty one is passed over: unsure=.",
            show_default=False,
        ),
    ] = None,
    db: Database = _FILE,
    everyone: Annotated[
        bool,
        typer.Option(
            "--everyone", help="Also count raters whose checks say that they are almost certainly noisy (GENIE: 0.99)."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """The board: scores with intervals over items and raters, agreement, and which differences can be told."""
    from papertrial.core.judgement import ENDINGS, Judgements
    from papertrial.study.people import Limits, boards

    if study.removesuffix(".gz").endswith(ENDINGS):
        judgements = Judgements.read(
            study,
            columns=_pairs("--columns", columns),
            words={word: _worth(worth) for word, worth in _pairs("--words", words).items()},
            scale=_ends(scale) if scale else None,
        )
    elif columns or scale or words:
        raise PapertrialError(
            f"{study} is a study of the database, whose columns and scale are known",
            "leave out --columns, --scale and --words, or name a .csv or .jsonl file",
        )
    else:
        store = _store(db)
        judgements = store.judgements(store.study(study).id or 0)
    if not judgements.ratings and not judgements.preferences:
        raise PapertrialError(
            f"nothing has been judged in {study}", "papertrial judge status shows how far the raters are"
        )
    try:
        found = boards(judgements, limits=None if everyone else Limits())
    except DataError as error:
        raise PapertrialError(error.problem, "type: --everyone to count them all") from None
    if json:
        printing.document(found)
        return
    for index, board in enumerate(found):
        told = board.report()
        _say(
            *([""] if index else []),
            told.title,
            "",
            *printing.labelled(told.facts),
            "",
            *printing.table(told.head, told.rows),
            "",
        )
        _say(*printing.labelled([("verdict", told.verdict), *(("caveat", line) for line in told.caveats)]))


def _pairs(option: str, given: list[str] | None) -> dict[str, str]:
    """`a=b,c=d`, given once or several times."""
    found = {}
    for part in (part for words in given or () for part in words.split(",") if part.strip()):
        name, equals, value = part.partition("=")
        if not equals or not name.strip():
            raise PapertrialError(f"{option} {part!r} is not NAME=VALUE", f"type: {option} item=id,value=score")
        found[name.strip()] = value.strip()
    return found


def _worth(value: str) -> float | None:
    try:
        return float(value) if value else None
    except ValueError:
        raise PapertrialError(f"--words: {value!r} is not a number", "type: --words yes=1,no=0") from None


def _ends(scale: str) -> tuple[float, float]:
    """(worst, best) of `1-5`, `5-1`, `-2-2`."""
    match = re.fullmatch(r"\s*(-?\d+(?:\.\d+)?)\s*-\s*(-?\d+(?:\.\d+)?)\s*", scale)
    if match is None or float(match[1]) == float(match[2]):
        raise PapertrialError(
            f"--scale {scale!r} is not WORST-BEST", "type: --scale 1-5, or --scale 5-1 where 1 is best"
        )
    return float(match[1]), float(match[2])


def _say(*lines: str) -> None:
    printing.say(*lines)
