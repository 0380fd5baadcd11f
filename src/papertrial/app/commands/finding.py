"""`index` and `search`: finding documents."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from papertrial.app import printing
from papertrial.app.commands.options import Fresh, Json, number_option, out_option
from papertrial.core.budget import duration, size_in_words
from papertrial.core.errors import PapertrialError
from papertrial.core.wording import counted


def index(
    corpus: Annotated[
        str | None,
        typer.Argument(
            help="A BEIR folder, JSON Lines (arXiv metadata too), SQuAD JSON, CSV, BibTeX, or a folder of text files.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, out_option("The index: a folder, made or brought up to date.", show_default=False)
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Search by meaning too: minilm, hf:ID, or a run's folder; none drops the vectors.", show_default=False
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            help="Index of the vectors: flat, hnsw, ivf or pq; chosen by their number when left out.",
            show_default=False,
        ),
    ] = None,
    stem: Annotated[
        bool | None,
        typer.Option(
            "--stem/--no-stem",
            help="Treat words of one stem, and with other accents, alike: the default of a new index.",
            show_default=False,
        ),
    ] = None,
    add: Annotated[bool, typer.Option("--add", help="Keep documents that are not in CORPUS.")] = False,
    delete: Annotated[
        list[str] | None, typer.Option(help="Id of a document to remove; may be repeated.", show_default=False)
    ] = None,
    fresh: Fresh = False,
    json: Json = False,
) -> None:
    """Make documents searchable; the same command brings the index up to date, encoding only what has changed."""
    from papertrial.discover.index import index as run_index
    from papertrial.use.fit import default_folder

    if out is None and corpus is None:
        raise PapertrialError("index needs a corpus", "type: papertrial index CORPUS --out INDEX")
    done = run_index(
        corpus, out or default_folder("index", str(corpus)), encoder=encoder, kind=kind, stem=stem, add=add,
        delete=delete or [], fresh=fresh, echo=(lambda line: None) if json else lambda line: printing.say(line),
    )  # fmt: skip
    if json:
        printing.document(done)
        return
    rows = [
        ("documents", f"{done.documents:,}, {done.words:,} different words, {size_in_words(done.bytes)} on disk"),
        (
            "changes",
            f"{done.added:,} added, {done.changed:,} changed, {done.removed:,} removed, {done.kept:,} as they were",
        ),
    ]
    if done.encoder:
        found = "exact" if done.recall is None else f"recall@10 {done.recall:.3f} against an exact search"
        rows.append(("vectors", f"{done.encoded:,} encoded by {done.encoder}; {done.kind}, {found}"))
    rows += [
        ("time", ", ".join(f"{stage} {duration(seconds)}" for stage, seconds in done.seconds.items()) or "none"),
        ("latency", ", ".join(f"{1000 * seconds:.1f} ms by {mode}" for mode, seconds in done.latency.items())),
        *(("note", note) for note in done.notes),
    ]
    printing.say(*printing.labelled(row for row in rows if row[1]))
    printing.say("", f'next        papertrial search {quote(done.folder)} "words to look for"')


def search(
    index: Annotated[
        str, typer.Argument(help="An index, or list: the reading list.", show_default=False, metavar="INDEX")
    ],
    query: Annotated[str, typer.Argument(help="What to look for.", show_default=False)],
    most: Annotated[int, number_option("most", "Documents to show.", "--most", "-k")] = 10,
    mode: Annotated[
        str | None,
        typer.Option(help="hybrid, bm25 or dense; hybrid where the index has vectors.", show_default=False),
    ] = None,
    rerank: Annotated[
        Path | None, typer.Option(help="Run of a reranker that puts the results into a new order.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Find documents in an index: by their words, by meaning, or by both."""
    from papertrial.discover.search import marked
    from papertrial.discover.search import search as run_search

    found = run_search(index, query, most, mode=mode, rerank=rerank)
    if json:
        printing.document(found)
        return
    on, off = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("*", "*")
    for place, hit in enumerate(found.hits, 1):
        printing.say(f"{place:>3}  {hit.title or hit.id}" + (f"  [{hit.id}]" if hit.title else ""))
        printing.say(
            *textwrap.wrap(
                marked(hit.snippet, hit.marks, on, off),
                printing.terminal_width(),
                initial_indent="     ",
                subsequent_indent="     ",
            )
        )
    printing.say("" if found.hits else "nothing found", *printing.labelled(("note", note) for note in found.notes))
    took = ", ".join(f"{stage} {1000 * seconds:.1f} ms" for stage, seconds in found.seconds.items() if stage != "all")
    printing.say(f"{counted(found.documents, 'document')} by {found.mode}: {took}")
