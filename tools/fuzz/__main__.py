"""`python -m tools.fuzz`: damaged files of all formats, people's and papertrial's own, through the commands that read them, and
settings at the ends of their ranges and beyond; `make fuzz`.

Every command must end well or with one line: no defect, no abort, nothing over a minute or 2 GiB, nothing written outside of its folder, and
nothing printed that controls a terminal. The damage is drawn from the seed, so a finding comes back with its number.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tools.fuzz.damage import damages
from tools.fuzz.samples import DATA, OWN, SETTINGS, Sample, made, setting
from tools.fuzz.trial import Ended, Started

#: what is in memory before the first fork; the processes begin with it
_IMPORTS = (
    "torch", "torch._dynamo", "torch.utils.tensorboard", "pandas", "pyarrow.parquet", "sklearn.linear_model", "sklearn.datasets",
    "scipy.stats", "lightgbm", "xgboost", "catboost", "starlette.testclient", "papertrial.app.cli", "papertrial.app.web",
    "papertrial.app.judge.store", "papertrial.train.loop", "papertrial.use.artifact", "papertrial.study.compare",
    "papertrial.study.report", "papertrial.data.tables", "papertrial.discover.index", "pydantic.type_adapter",
)  # fmt: skip


@dataclass
class Case:
    """A damaged copy of a sample, and the commands that still have to read it."""

    number: int
    sample: Sample
    folder: Path
    damage: str
    waiting: list[str]
    started: Started | None = None
    ended: list[Ended] = field(default_factory=list)


def cases(number: int, seed: int, wanted: list[Sample], whole: Path, place: Path, only: int | None) -> Iterator[Case]:
    """Copies in turn, each damaged by its own number; some files twice."""
    for at in range(number):
        if only is not None and at != only:
            continue
        sample, draw = wanted[at % len(wanted)], random.Random(f"{seed} {at}")
        folder = place / f"case-{at}"
        shutil.copytree(whole / sample.name, folder)
        words = []
        for _ in range(0 if sample.method else draw.choice((1, 1, 1, 2))):
            file = draw.choice(sample.files(folder))
            content = file.read_bytes()
            damaged, what = draw.choice(damages(file))(content, draw)
            file.write_bytes(damaged)
            words.append(f"{file.relative_to(folder)}: {what}")
        asked = setting(sample.method, draw) if sample.method else ""
        yield Case(
            at, sample, folder, asked or "; ".join(words), [line.replace("{set}", asked) for line in sample.after]
        )


def tried(waiting: Iterator[Case], jobs: int, until: float) -> Iterator[Case]:
    """Cases as they end, so many at a time."""
    running: list[Case] = []
    while True:
        while len(running) < jobs and time.monotonic() < until and (case := next(waiting, None)):
            running.append(case)
        if not running:
            return
        for case in list(running):
            if case.started is None:
                case.started = Started(case.waiting.pop(0).split(), case.folder)
            elif ended := case.started.ended():
                case.ended.append(ended)
                case.started = None
                if not case.waiting:
                    running.remove(case)
                    yield case
        time.sleep(0.005)


def main() -> int:
    asked = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    asked.add_argument("-n", "--number", type=int, default=400, help="damaged inputs (default 400)")
    asked.add_argument("--seed", type=int, default=0, help="other damage (default 0)")
    asked.add_argument("--jobs", type=int, default=2, help="at a time (default 2)")
    asked.add_argument("--minutes", type=float, default=30, help="what was not begun by then is not tried (default 30)")
    asked.add_argument("--match", default="", help="only samples whose name has this text")
    asked.add_argument("--case", type=int, help="only the one with this number")
    asked.add_argument("--keep", type=Path, help="folder for the inputs of findings")
    given = asked.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "COLUMNS": "120"}
    for module in _IMPORTS:
        importlib.import_module(module)
    gc.freeze()
    with tempfile.TemporaryDirectory(prefix="papertrial-fuzz-") as place:
        return _all(given, Path(place).resolve())


def _all(given: argparse.Namespace, place: Path) -> int:
    begun = time.monotonic()
    samples = [sample for sample in (*DATA, *OWN, *SETTINGS) if given.match in sample.name]
    samples_made = list(samples) if given.case is None else [samples[given.case % len(samples)]]
    findings = commands = inputs = 0
    for sample in samples_made:
        try:
            made(sample, place / "whole" / sample.name)
        except RuntimeError as error:
            findings += 1
            samples.remove(sample)
            print(error, flush=True)
    print(f"samples made in {time.monotonic() - begun:.0f} s", flush=True)
    slowest = peak = 0.0
    (place / "cases").mkdir()
    waiting = cases(given.number, given.seed, samples, place / "whole", place / "cases", given.case)
    for case in tried(waiting, given.jobs, begun + given.minutes * 60):
        inputs += 1
        commands += len(case.ended)
        slowest, peak = max([slowest, *(e.seconds for e in case.ended)]), max([peak, *(e.peak for e in case.ended)])
        wrong = [ended for ended in case.ended if ended.finding]
        findings += bool(wrong)
        for ended in wrong:
            last = ended.said.strip().splitlines()[-1:] or [""]
            print(
                f"\ncase {case.number}, {case.sample.name}: {case.damage!a}\n  papertrial {' '.join(ended.words)}\n  {ended.finding}: {ascii(last[0])[:300]}",
                flush=True,
            )
        if given.case is not None:
            for ended in case.ended:
                print(
                    f"{case.damage!a}\n$ papertrial {' '.join(ended.words)}   (exit {ended.code}, {ended.seconds:.1f} s)\n{ascii(ended.said)[:3000]}"
                )
        if wrong and given.keep:
            shutil.copytree(case.folder, given.keep / case.folder.name, dirs_exist_ok=True)
        shutil.rmtree(case.folder)
    left = f", {given.number - inputs} not tried in time" if given.case is None and inputs < given.number else ""
    print(
        f"\n{inputs} damaged inputs, {commands} commands in {time.monotonic() - begun:.0f} s{left}: {findings} findings;"
        f" the slowest took {slowest:.1f} s, the largest {peak / 2**20:.0f} MiB"
    )
    return 1 if findings or left else 0


if __name__ == "__main__":
    sys.exit(main())
