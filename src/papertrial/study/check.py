"""Is it true? The claims of a paper, run over seeds; the verdict is computed, and every run leaves a line of evidence.

    evidence/<paper>.jsonl     one line per claim and run: what was measured, the verdict, hardware, versions, commit, date

Identity and property claims must hold for every seed. A trend is judged by its margin (how far it holds, negative where it
does not): a 95 % interval over seeds decides between holds, fails and cannot tell. Where there is no margin, or the same one
with every seed, the signs are all there is, and a sign test at 5 % needs six seeds that agree: with three, what has no effect
"holds" once in eight times. What needs data or weights that are not here is `not run`, never copied. Whether the code
is still that of the evidence is told by `study.code_marks`.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from typing_extensions import NotRequired, TypedDict

from papertrial.core import ours, registry
from papertrial.core.arguments import Names, require_gradients, typed
from papertrial.core.doors import Damaged, Door
from papertrial.core.errors import Declined, PapertrialError, did_you_mean
from papertrial.core.files import to_json, write_text
from papertrial.core.paper import CLAIM_KINDS, Claim
from papertrial.core.ranges import require_numbers
from papertrial.core.run import commit, environment
from papertrial.core.stats import LEVEL
from papertrial.core.wording import several
from papertrial.study import code_marks
from papertrial.train.randomness import own_randomness

HOLDS, FAILS, CANNOT_TELL, NOT_RUN = "holds", "fails", "cannot tell", "not run"
VERDICTS = (HOLDS, FAILS, CANNOT_TELL, NOT_RUN)
SCALES = ("tiny", "base")
#: seeds of a claim when the user names none; a trend from fewer than three is no trend
SEEDS = {"identity": 1, "property": 3, "trend": 3, "number": 1}


class Line(TypedDict):
    """What readers of a line of evidence rely on; `Evidence` is what is written."""

    claim: str
    text: str
    where: str
    kind: str
    scale: Literal["tiny", "base"]
    seeds: list[int]
    held: list[bool]
    measured: list[dict[str, Any]]
    verdict: Literal["holds", "fails", "cannot tell", "not run"]
    environment: dict[str, Any]
    margin: NotRequired[float | None]
    interval: NotRequired[list[float] | None]
    seconds: NotRequired[float]
    commit: NotRequired[str]
    reason: NotRequired[str]
    reformed: NotRequired[str]


class _Finished(TypedDict):
    """A seed of a claim that is being checked, kept until all are there."""

    held: bool
    measured: dict[str, Any]
    seconds: float
    files: list[str]
    mark: str


LINES, _KEPT = Door(Line, "remove the line"), Door(_Finished, "remove it")
#: what is proved, not estimated over seeds
_EXACT = ("identity", "property")


@dataclass(frozen=True)
class Evidence:
    """One line of evidence.

    held: per seed.  measured: per seed, name -> number.  margin, interval: mean over seeds of how far a trend holds,
    with its 95 % interval; None where the claim has no margin.  reason: why it was not run.  reformed: see `Claim`.
    """

    paper: str
    claim: str
    text: str
    where: str
    kind: str
    scale: str
    seeds: tuple[int, ...]
    held: tuple[bool, ...]
    measured: tuple[dict[str, Any], ...]
    verdict: str
    margin: float | None
    interval: tuple[float, float] | None
    seconds: float
    environment: dict[str, Any]
    commit: str
    reason: str = ""
    reformed: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def judge(kind: str, held: Sequence[bool], margins: Sequence[float] | None) -> tuple[str, tuple[float, float] | None]:
    """The verdict over seeds, and the 95 % interval of the mean margin where there is one.

    held: per seed.  margins: per seed, or None.  No seeds: `not run`. A seed with a margin where the claim does not hold
    fails by something that the margin leaves out: then it does not hold as a whole.
    """
    if not held:
        return NOT_RUN, None
    if kind in _EXACT:
        return (HOLDS if all(held) else FAILS), None
    by_signs = FAILS if not any(held) else HOLDS if all(held) else CANNOT_TELL
    if kind == "trend" and 2 * 0.5 ** len(held) > LEVEL:
        by_signs = CANNOT_TELL
    if margins is None:
        return by_signs, None
    interval = _interval(margins)
    if interval is None or interval[0] <= 0 <= interval[1]:
        return CANNOT_TELL, interval
    if kind == "trend" and np.ptp(margins) <= 1e-9 * np.abs(margins).max():
        return by_signs, interval
    if interval[0] < 0:
        return FAILS, interval
    beyond = [holds for holds, margin in zip(held, margins, strict=True) if margin > 0]
    return (HOLDS if all(beyond) else by_signs), interval


def _interval(values: Sequence[float]) -> tuple[float, float] | None:
    from scipy.special import stdtrit

    x = np.asarray(values, dtype=np.float64)
    if len(x) < 2 or not np.isfinite(x).all():
        return None
    half = float(stdtrit(len(x) - 1, 0.975)) * float(x.std(ddof=1)) / math.sqrt(len(x))
    return float(x.mean()) - half, float(x.mean()) + half


@typed
def check(
    papers: Names | None = None,
    *,
    claims: Names = (),
    kinds: Names = (),
    scale: str = "tiny",
    seeds: int | None = None,
    folder: Path | str = "evidence",
    jobs: int = 1,
    echo: Callable[[str], None] | None = None,
) -> list[Evidence]:
    """Run the claims of papers and append a line of evidence for each, which is returned too.

    papers: ids, all on the shelf where left out.  claims: only those named.  kinds: only claims of these: identity,
    property, trend, number.  scale: tiny (seconds, shows that it runs) or base (minutes, evidence).  seeds: of each claim,
    by default as many as its kind needs.  folder: of the evidence.  jobs: processes that run seeds side by side; with
    several, each takes its share of the cores.  echo: takes the lines said on the way; None for silence. A check that was
    interrupted goes on with the seeds that were not finished. Raises PapertrialError for an unknown paper, claim or scale.

        >>> import papertrial as pt
        >>> [found.verdict for found in pt.check("mlp_mixer", claims="sizes_are_as_published")]
        ['holds']
    """
    require_gradients("claims are checked")
    say = echo or (lambda line: None)
    claims, kinds = several(claims), several(kinds)
    if scale not in SCALES:
        raise PapertrialError(f"there is no scale {scale!r}", did_you_mean(scale, SCALES))
    require_numbers(seeds=seeds, jobs=jobs)
    asked = [
        (paper, claim, seeds or SEEDS[claim.kind])
        for paper in several(registry.papers() if papers is None else papers)
        for claim in _asked(paper, claims, kinds)
    ]
    results = []
    place = Path(folder)
    marked = ours.claim(place, "folder of evidence", recognise=_recognised)
    rows = [[_Job(paper, claim, scale, seed, place) for seed in range(count)] for paper, claim, count in asked]
    # the tiny figures that are kept beside base evidence, by the same code
    tiny = [_Job(paper, claim, "tiny", 0, place) for paper, claim, _ in asked]
    marked.add(*(f"{job.paper}.jsonl" for job in tiny), *(job.file.name for row in [*rows, tiny] for job in row))
    with _runner(jobs, [job for row in rows for job in row] + (tiny if scale == "base" else [])) as promise:
        for (paper, claim, _), row, small in zip(asked, rows, tiny, strict=True):
            evidence = _gather(paper, claim, scale, [promise(job) for job in row], say)
            figures = promise(small)() if evidence.verdict != NOT_RUN else {}
            _append(place / f"{paper}.jsonl", evidence)
            say(f"{evidence.verdict:<12}{paper}: {claim.name} ({claim.kind}, {claim.where}){_margin_words(evidence)}")
            if "held" in figures and scale == "base":
                code_marks.keep(place, paper, claim, figures, evidence.environment["date"])
            elif "held" in figures:
                remark = code_marks.compare(place, paper, claim, figures, evidence.environment["date"])
                say(f"{'':<12}{paper}: {claim.name}: {remark}") if remark else None
            marked.drop(*(job.file.name for job in [*row, small]))
            results.append(evidence)
    return results


def _recognised(folder: Path) -> list[str]:
    """What an earlier version wrote without a marker: evidence, and the rows of a check that was interrupted."""
    names = []
    for file in sorted(folder.glob("*.jsonl")):
        with suppress(PapertrialError):
            names += [file.name] if history(folder, file.stem) else []
    for file in sorted(folder.glob(".*-*-*-*.json")):
        with suppress(PapertrialError):
            names += [file.name] if _KEPT.read(file) else []
    return names


def _asked(paper: str, names: Sequence[str], kinds: Sequence[str]) -> list[Claim]:
    found = {claim.name: claim for claim in registry.claims(paper)}
    for name in names:
        if name not in found:
            raise PapertrialError(f"{paper} has no claim {name!r}", did_you_mean(name, found))
    for kind in kinds:
        if kind not in CLAIM_KINDS:
            raise PapertrialError(f"there is no kind of claim {kind!r}", did_you_mean(kind, CLAIM_KINDS))
    wanted = [found[name] for name in names] if names else list(found.values())
    return [claim for claim in wanted if not kinds or claim.kind in kinds]


@dataclass(frozen=True)
class _Job:
    """One claim with one seed. Its row is kept in a file of its own until the line of evidence is written."""

    paper: str
    claim: Claim
    scale: str
    seed: int
    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / f".{self.paper}-{self.claim.name}-{self.scale}-{self.seed}.json"

    def run(self) -> dict[str, Any]:
        """What was measured, or the reason why it was not; and the code that measured it."""
        folders = code_marks.roots(self.paper)
        code = code_marks.snapshot(folders)
        if self.file.exists():
            with suppress(Damaged):  # it is measured again
                kept: dict[str, Any] = _KEPT.read(self.file)
                if kept["mark"] == code_marks.mark(kept["files"], code):
                    return kept
        begun = time.monotonic()
        try:
            with own_randomness():
                if (self.scale, self.seed) == ("tiny", 0):
                    with code_marks.watched(self.paper) as files:
                        held, measured = self.claim(self.scale, self.seed)
                else:  # hours are not to be slowed down
                    held, measured = self.claim(self.scale, self.seed)
                    files = code_marks.loaded(folders)
        except Declined as refusal:
            return {"reason": str(refusal)}
        seconds = time.monotonic() - begun
        row = {"held": bool(held), "measured": measured, "seconds": seconds, "files": files}
        row["mark"] = code_marks.mark(files, code)
        _KEPT.write(self.file, row)
        return row


def _run_elsewhere(
    paper: str, claims: Sequence[str], scale: str, seed: int, folder: Path, threads: int
) -> dict[str, dict[str, Any]]:
    """The same for claims of one paper and seed, in a process of its own, which finds them by their names."""
    import torch

    torch.set_num_threads(threads)
    return {claim.name: _Job(paper, claim, scale, seed, folder).run() for claim in _asked(paper, claims, ())}


@contextmanager
def _runner(jobs: int, work: Sequence[_Job]) -> Iterator[Callable[[_Job], Callable[[], dict[str, Any]]]]:
    """Gives a function that promises the row of a job. Alone, a job runs when its row is asked for. Side by side, the
    claims of a paper stay together seed by seed, so that what they share (a trained model, say) is made once."""
    if jobs == 1:
        yield lambda job: job.run
        return
    threads = max(1, (os.cpu_count() or 1) // jobs)
    others = set(multiprocessing.active_children())
    shared: dict[tuple[str, int, str], list[_Job]] = {}
    for job in work:
        shared.setdefault((job.paper, job.seed, job.scale), []).append(job)
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"))
    try:
        rows = {
            (paper, seed, scale): pool.submit(
                _run_elsewhere, paper, [job.claim.name for job in group], scale, seed, group[0].folder, threads
            )
            for (paper, seed, scale), group in shared.items()
        }
        yield lambda job: lambda: rows[job.paper, job.seed, job.scale].result()[job.claim.name]
    except BrokenProcessPool:
        raise PapertrialError(
            "a process that ran a claim was killed, perhaps for memory",
            "type the same command again: finished seeds are kept, and fewer --jobs need less memory",
        ) from None
    except KeyboardInterrupt:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _gather(
    paper: str, claim: Claim, scale: str, promised: Sequence[Callable[[], dict[str, Any]]], say: Callable[[str], None]
) -> Evidence:
    rows: list[dict[str, Any]] = []
    reason = ""
    for seed, row in enumerate(promised):
        say(f"{paper}: {claim.name}: seed {seed + 1} of {len(promised)}")
        found = row()
        if "reason" in found:
            reason = found["reason"]
            break
        rows.append(found)
    held = tuple(bool(row["held"]) for row in rows)
    margins = [margin_of(claim, row["measured"]) for row in rows]
    known = [float(margin) for margin in margins if margin is not None]
    with_margin = known if rows and len(known) == len(rows) else None
    verdict, interval = judge(claim.kind, held, with_margin)
    return Evidence(
        paper=paper,
        claim=claim.name,
        text=claim.text,
        where=claim.where,
        kind=claim.kind,
        scale=scale,
        seeds=tuple(range(len(rows))),
        held=held,
        measured=tuple(row["measured"] for row in rows),
        verdict=verdict,
        margin=float(np.mean(with_margin)) if with_margin else None,
        interval=interval,
        seconds=round(sum(row["seconds"] for row in rows), 2),
        environment=environment(),
        commit=commit(),
        reason=reason,
        reformed=claim.reformed,
    )


def margin_of(claim: Claim, measured: Mapping[str, Any]) -> float | None:
    """How far a claim holds with one seed; None where it has no margin, or what that takes was not measured."""
    if "margin" in measured or claim.margin is None:
        return measured.get("margin")
    with suppress(KeyError, TypeError):  # evidence from before it was measured, and numbers that were not finite
        return float(claim.margin(measured))
    return None


def again(claim: Claim, row: Mapping[str, Any]) -> dict[str, Any]:
    """A line of evidence as the rule of today judges it, from what was measured then."""
    margins = [margin_of(claim, measured) for measured in row["measured"]]
    known = [margin for margin in margins if margin is not None]
    whole = known if known and len(known) == len(margins) else None
    verdict, interval = judge(row["kind"], row["held"], whole)
    return {**row, "verdict": verdict, "margin": float(np.mean(whole)) if whole else None, "interval": interval}


def judge_again(folder: Path | str) -> list[str]:
    """Judge all trends in a folder of evidence by the rule of today, in place; the words that changed, a line each."""
    changed = []
    for paper in registry.papers():
        claims = {claim.name: claim for claim in registry.claims(paper)}
        rows = history(folder, paper)
        for place, row in enumerate(rows):
            if row["kind"] == "trend" and row["claim"] in claims and row["verdict"] != NOT_RUN:
                rows[place] = again(claims[row["claim"]], row)
                if rows[place]["verdict"] != row["verdict"]:
                    changed.append(f"{paper}.{row['claim']}: {row['verdict']}, now {rows[place]['verdict']}")
        if rows:
            write_text(Path(folder) / f"{paper}.jsonl", "".join(to_json(row) + "\n" for row in rows))
    return changed


def _append(path: Path, evidence: Evidence) -> None:
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    write_text(path, before + to_json(evidence) + "\n")


def _margin_words(evidence: Evidence) -> str:
    if evidence.reason:
        return f": {evidence.reason}"
    if evidence.margin is None or evidence.interval is None:
        return ""
    low, high = evidence.interval
    return f": margin {evidence.margin:+.3g} [{low:+.3g}, {high:+.3g}], {len(evidence.seeds)} seeds"


def history(folder: Path | str, paper: str) -> list[dict[str, Any]]:
    """The lines of evidence on `paper`, oldest first. Raises PapertrialError for a line that is not evidence."""
    path = Path(folder) / f"{paper}.jsonl"
    if not path.exists():
        return []
    rows, damaged = LINES.rows(path)
    if damaged:
        raise PapertrialError(damaged[0], "remove the line, or put the file back as it was")
    return rows


def latest(rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The newest line per claim. A run at base scale outranks any at tiny scale, which only shows that it runs; one that
    measured something outranks any that could not run for want of data; and one of a claim that was re-formed outranks all
    from before."""

    def rank(row: dict[str, Any]) -> tuple[str, bool, int]:
        day = row.get("reformed", "").partition(":")[0]
        return day, row["verdict"] != NOT_RUN, SCALES.index(row["scale"])

    newest: dict[str, dict[str, Any]] = {}
    for row in rows:
        held = newest.get(row["claim"])
        if held is None or rank(row) >= rank(held):
            newest[row["claim"]] = row
    return newest


def flipped(before: Iterable[dict[str, Any]], now: Iterable[Evidence]) -> list[str]:
    """Claims that held when last run at the same scale, and fail now."""
    earlier: dict[tuple[str, str], str] = {}
    for row in before:
        if row["verdict"] != NOT_RUN:
            earlier[row["claim"], row["scale"]] = row["verdict"]
    return [e.claim for e in now if e.verdict == FAILS and earlier.get((e.claim, e.scale)) == HOLDS]
