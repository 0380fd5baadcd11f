"""Evidence as a page: every claim with its verdict, margin and seeds, the figures of those that have one, the caveats.

All of it is read from the lines of evidence (`study.check`); of a paper's file only its idea, its caveats, the claims that
were never run, and how a claim draws its figure.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from papertrial.core import registry
from papertrial.core.budget import duration
from papertrial.core.errors import PapertrialError
from papertrial.core.files import disk_errors
from papertrial.core.paper import Claim, Paper
from papertrial.core.wording import counted
from papertrial.study import code_marks
from papertrial.study.check import CANNOT_TELL, FAILS, HOLDS, NOT_RUN, VERDICTS, history, latest
from papertrial.study.html_page import (
    Answer,
    Code,
    Facts,
    Fold,
    Grid,
    Heading,
    Items,
    Link,
    Page,
    Section,
    Table,
    Tag,
    Text,
)
from papertrial.study.plot import draw
from papertrial.study.report_blocks import listed, number, sentence

TONES = {HOLDS: "good", FAILS: "bad", CANNOT_TELL: "open", NOT_RUN: "plain"}


def evidence_files(path: Path) -> list[Path]:
    """The files of evidence that `path` is or holds: those whose first line speaks of a claim and its verdict."""
    if path.suffix == ".jsonl":
        return [path] if path.is_file() and _is_evidence(path) else []
    return [file for file in sorted(path.glob("[!.]*.jsonl")) if _is_evidence(file)]


def _is_evidence(file: Path) -> bool:
    with disk_errors(file), open(file, encoding="utf-8", errors="replace") as stream:
        first = stream.readline()
    return '"claim"' in first and '"verdict"' in first


@dataclass(frozen=True)
class Tried:
    """A paper with its evidence. newest: the line of each claim that counts (see `check.latest`)."""

    id: str
    folder: Path
    newest: Mapping[str, dict[str, Any]]

    @classmethod
    def read(cls, folder: Path, paper: str) -> Tried:
        """Raises PapertrialError for a line that is not evidence."""
        return cls(paper, folder, latest(history(folder, paper)))

    @property
    def paper(self) -> Paper | None:
        """None for a paper of a package that is not installed here."""
        entry = registry.entries().get(self.id)
        return entry.paper if entry is not None else None

    @cached_property
    def claims(self) -> Mapping[str, Claim]:
        """Those of the paper's file, by name; none when it cannot be imported here."""
        try:
            return {claim.name: claim for claim in registry.claims(self.id)}
        except (PapertrialError, ImportError):
            return {}

    @cached_property
    def changed(self) -> set[str]:
        """Claims whose evidence is by other code, which gives other figures at tiny scale."""
        return code_marks.changed(self.folder, self.id) & self.newest.keys()

    @cached_property
    def untried(self) -> set[str]:
        """Claims whose code is another than that of their evidence, without a look at the figures yet."""
        return code_marks.untried(self.folder, self.id) & self.newest.keys()

    @property
    def missing(self) -> list[Claim]:
        return [claim for name, claim in self.claims.items() if name not in self.newest]

    @property
    def order(self) -> list[dict[str, Any]]:
        """The newest lines as the claims stand in the paper's file, then those that it has no more."""
        known = [self.newest[name] for name in self.claims if name in self.newest]
        return known + [row for name, row in self.newest.items() if name not in self.claims]

    def count(self, verdict: str) -> int:
        without = len(self.missing) if verdict == NOT_RUN else 0
        return sum(row["verdict"] == verdict for row in self.newest.values()) + without

    @property
    def seconds(self) -> float:
        return sum(row.get("seconds") or 0.0 for row in self.newest.values())

    def again(self, *words: str, scale: str = "base") -> str:
        """The command that runs the claims of this paper."""
        options = [] if self.folder == Path("evidence") else ["--evidence", str(self.folder)]
        return shlex.join(["papertrial", "check", self.id, *words, "--scale", scale, *options])


def page(path: Path, files: Sequence[Path]) -> Page:
    """The page of the evidence at `path`, which is one file or holds several, each of one paper, in the order of the
    reading list. files: as `evidence_files` finds them.

    Raises PapertrialError for a line that is not evidence.
    """
    places = {listed.paper.id: place for place, listed in enumerate(registry.reading_list())}
    found = [Tried.read(file.parent, file.stem) for file in files]
    found.sort(key=lambda tried: (places.get(tried.id, len(places)), tried.id))
    name = found[0].id if len(found) == 1 else counted(len(found), "paper")
    return Page(
        "papertrial evidence",
        f"Do the claims of {name} hold?",
        [_answer(found)],
        [
            Section("Overview", _overview(found) + ([_untried(found)] if path.is_dir() else [])),
            *(Section(tried.id, [*_about(tried.paper), *of_paper(tried)], _idea(tried)) for tried in found),
        ],
        foot="Made from the lines of evidence and nothing else. This page is a single file and loads nothing from the network.",
    )


def _answer(found: Sequence[Tried]) -> Answer:
    counts = {verdict: sum(tried.count(verdict) for tried in found) for verdict in VERDICTS}
    words = {FAILS: "fails" if counts[FAILS] == 1 else "fail", CANNOT_TELL: "cannot be told", NOT_RUN: "not run"}
    rest = [f"{counts[verdict]} {word}" for verdict, word in words.items() if counts[verdict]]
    # one claim of a hundred that fails is news, and no alarm
    tone = "bad" if counts[FAILS] > counts[HOLDS] else "open" if rest else "good"
    begin = f"{counts[HOLDS]} of {counted(sum(counts.values()), 'claim')} {'holds' if counts[HOLDS] == 1 else 'hold'}"
    return Answer(begin, f"; {listed(rest)}." if rest else ".", tone)


def _overview(found: Sequence[Tried]) -> list[Any]:
    rows = [
        [tried.id, *(str(tried.count(verdict) or "") or None for verdict in VERDICTS), duration(tried.seconds)]
        for tried in found
    ]
    blocks: list[Any] = [Table(["paper", *VERDICTS, "time"], rows, stacked=True)]
    for verdict, title in ((FAILS, "What does not hold"), (CANNOT_TELL, "What remains undecided")):
        lines = [f"{tried.id}: {row['text']}" for tried in found for row in tried.order if row["verdict"] == verdict]
        blocks += [Heading(title), Items(lines)] if lines else []
    if any(row["scale"] == "tiny" and row["kind"] == "trend" for tried in found for row in tried.order):
        blocks.append(Text("A trend at tiny scale only shows that the claim runs; evidence is at base scale.", "note"))
    blocks.append(
        Text(
            "The verdict is computed: identities and properties must hold for every seed; a trend by the 95 % interval of its"
            " margin over the seeds, or, without a margin, by all seeds alike.",
            "note",
        )
    )
    return blocks


def _untried(found: Sequence[Tried]) -> Text:
    rest = [name for name in registry.papers() if name not in {tried.id for tried in found}]
    return Text(
        f"There is no evidence here on {listed(rest)}." if rest else "Every paper on the shelf is here.", "note"
    )


def _idea(tried: Tried) -> str:
    return sentence(tried.paper.idea) if tried.paper is not None and tried.paper.idea else ""


def _about(paper: Paper | None) -> list[Any]:
    if paper is None:
        return []
    about = ", ".join(filter(None, (paper.title, paper.authors, str(paper.year or ""))))
    return [Link(about, f"https://arxiv.org/abs/{paper.arxiv}") if paper.arxiv else Text(about)]


def of_paper(tried: Tried) -> list[Any]:
    """What is known of a paper's claims: the table, the figures, the caveats, where it was run, every number."""
    blocks: list[Any] = []
    paper = tried.paper
    if paper is None:
        blocks.append(Text("This paper is not installed here: its evidence is shown without its figures.", "note"))
    elif not tried.claims:
        blocks.append(Text("Its file cannot be imported here: the evidence is shown without its figures.", "note"))
    blocks += [_table(tried), *_code(tried)]
    reasons = [f"{row['text']} {sentence(row['reason'])}" for row in tried.order if row.get("reason")]
    formed = [f"{row['text']} Re-formed {sentence(row['reformed'])}" for row in tried.order if row.get("reformed")]
    blocks += [Heading("Re-formed since they were first tried"), Items(formed)] if formed else []
    blocks += [Heading("Not run to the end"), Items(reasons)] if reasons else []
    gone = [row["claim"] for row in tried.order if row["claim"] not in tried.claims]
    if gone and tried.claims:
        blocks.append(Text(f"No longer among the paper's claims: {listed(gone)}.", "note"))
    blocks += _figures(tried)
    blocks += [Heading("Caveats"), Items(paper.caveats)] if paper is not None and paper.caveats else []
    blocks += [
        Heading("Where it was run"),
        _circumstances(tried),
        Fold("Every number, by seed", _numbers(tried)),
        Code(tried.again()),
    ]
    return blocks


def _table(tried: Tried) -> Table:
    head = ["claim", "where", "kind", "margin", "seeds", "scale", "time"]
    rows = [
        [
            _tag(tried, row),
            row["where"],
            row["kind"],
            _margin(row),
            str(len(row["seeds"])),
            row["scale"],
            duration(row.get("seconds") or 0.0),
        ]
        for row in tried.order
    ]
    rows += [
        [Tag(claim.text, NOT_RUN, TONES[NOT_RUN]), claim.where, claim.kind, None, None, None, None]
        for claim in tried.missing
    ]
    return Table(head, rows, words=3, stacked=True)


def _tag(tried: Tried, row: Mapping[str, Any]) -> Tag:
    if row["claim"] in tried.changed:
        return Tag(row["text"], f"{row['verdict']}, {code_marks.CHANGED}", TONES[CANNOT_TELL])
    return Tag(row["text"], row["verdict"], TONES[row["verdict"]])


def _code(tried: Tried) -> list[Any]:
    """Where the code behind the claims is not that of their evidence, and what to type."""
    blocks: list[Any] = []
    if tried.changed:
        words = f"The code behind {listed(sorted(tried.changed))} has changed since, and its figures at tiny scale are others."
        again = (word for name in sorted(tried.changed) for word in ("--claim", name))
        blocks += [Text(words), Code(tried.again(*again))]
    if tried.untried:
        words = f"The code behind {counted(len(tried.untried), 'claim')} has changed since; whether the figures have takes seconds:"
        blocks += [Text(words, "note"), Code(tried.again(scale="tiny"))]
    return blocks


def _margin(row: Mapping[str, Any]) -> str | None:
    if row.get("margin") is None:
        return None
    words = _signed(row["margin"])
    return words + (f" [{', '.join(map(_signed, row['interval']))}]" if row.get("interval") else "")


def _signed(value: float) -> str:
    return ("+" if value >= 0 else "") + number(value)


def _figures(tried: Tried) -> list[Any]:
    """The figures of the claims that have one, and why others are not drawn. What a paper's file does wrong costs its own
    figure, not the page."""
    drawn, without, older = [], [], []
    for row in tried.order:
        claim = tried.claims.get(row["claim"])
        if claim is None or claim.plot is None or not row["measured"]:
            continue
        try:
            figure = claim.plot(row["measured"])
            words = f"{row['claim']}: {row['verdict']}, {counted(len(row['seeds']), 'seed')}, {row['scale']} scale."
            drawn.append(draw(replace(figure, caption=f"{figure.caption} {words}".strip())))
        except LookupError:
            older.append(row["claim"])
        except Exception as error:
            without.append(f"{row['claim']}: its figure cannot be drawn ({type(error).__name__}: {error}).")
    if older:
        without.append(f"{listed(older)}: measured before there was a figure, so its points are not in the evidence.")
    blocks: list[Any] = [Heading("Figures")] if drawn or without else []
    if drawn:
        words = "Lines are means over the seeds, circles are single seeds, bands span the smallest to the largest."
        blocks += [Text(words, "note"), *([Grid(drawn, 400)] if drawn[1:] else drawn)]
    blocks += [Items(without)] if without else []
    blocks += [Code(tried.again(*(word for name in older for word in ("--claim", name))))] if older else []
    return blocks


def _circumstances(tried: Tried) -> Facts:
    """Day, machine, versions and commit; the claims are named where these are not the same for all."""
    groups: dict[tuple[str, str], list[str]] = {}
    for row in tried.order:
        place = row["environment"]
        versions = place.get("versions", {})
        words = [
            place.get("cpu"),
            counted(place["cores"], "core") if place.get("cores") else "",
            *(place.get("gpus") or []),
            *(f"{name} {versions[name]}" for name in ("papertrial", "torch") if name in versions),
            f"commit {row['commit']}" if row.get("commit") else "",
        ]
        told = ", ".join(filter(None, words))
        groups.setdefault((str(place.get("date", "unknown"))[:10], told), []).append(row["claim"])
    several = len(groups) > 1
    return Facts([(day, f"{told}: {listed(names)}" if several else told) for (day, told), names in groups.items()])


def _numbers(tried: Tried) -> list[Any]:
    blocks: list[Any] = []
    for row in tried.order:
        names = list(dict.fromkeys(name for measured in row["measured"] for name in measured))
        if names:
            head = [row["claim"], *(f"seed {seed}" for seed in row["seeds"])]
            cells = [[name, *(_cell(measured.get(name)) for measured in row["measured"])] for name in names]
            blocks.append(Table(head, cells))
    return blocks


def _cell(value: Any) -> str | None:
    return number(value) if isinstance(value, int | float) else None if value is None else str(value)
