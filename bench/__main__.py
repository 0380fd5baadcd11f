"""Race papertrial against its peers; the rows go to bench/results.jsonl, the tables and the plot to docs/speed.md and .svg.

    python -m bench [PAPER ...] [--only TEXT] [--dtype float32 bfloat16] [--device cpu] [--threads 1] [--quick]
    python -m bench --page             # only writes docs/speed.md and docs/speed.svg anew from bench/results.jsonl

A paper's rows replace those that stood there for the same device and threads. --quick (5 rounds) and --only show rows
without touching a row they did not measure; --quick writes nothing. `make bench` installs the peers and runs everything.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

from bench import harness, results, shim

ROWS = Path(__file__).parent / "rows"
#: papers without rows, and why
WITHOUT: dict[str, str] = {}


def papers() -> list[str]:
    return sorted(file.stem for file in ROWS.glob("[!_]*.py"))


def race_paper(paper: str, given: argparse.Namespace) -> int:
    """Measure the rows of one paper, which are printed and written as they come; returns how many failed."""
    raced = [
        race
        for race in harness.races(paper)
        if given.only in f"{race.what} {race.peer}" and not (given.device != "cpu" and race.only_cpu)
    ]
    peaks = {}
    if given.device == "cpu" and not given.quick:
        for race in raced:
            with contextlib.suppress(Exception):  # which its rows will tell of
                peaks[race.what, race.peer] = harness.peaks_on_cpu(race)
    work: dict[tuple[str, ...], float] = {}
    failed = 0
    for race in raced:
        largest, found = peaks.get((race.what, race.peer), (None, {}))
        for label, dtype, compiled in race.cases():
            if (given.dtype and dtype not in given.dtype) or (given.eager and compiled):
                continue
            same = (race.what, race.peer, label, dtype)
            try:
                row = harness.measure(
                    paper, race, label, dtype, compiled,
                    rounds=harness.QUICK if given.quick else harness.ROUNDS,
                    threads=given.threads, device=given.device, work=work.get(same, 0.0),
                    peaks=found if (label, dtype, compiled) == largest else None,
                )  # fmt: skip
            except Exception as error:
                failed += 1
                words = f"{type(error).__name__}: {error}".splitlines()[0]
                print(f"FAILED {paper}: {race.what}, {race.peer}, {label}, {dtype}: {words}", flush=True)
                if given.traceback:
                    traceback.print_exc()
                continue
            work[same] = row.get("work", 0.0)
            with open(given.into, "a") as file:  # at once, so that nothing is lost with the process
                file.write(json.dumps(row) + "\n")
            print(results.line(row), flush=True)
    return failed


def noted(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What bounds a row is a note, which may be written once the row has been measured."""
    declared = {(paper, race.what, race.peer): race.bound for paper in papers() for race in harness.races(paper)}
    return [row | {"bound": declared.get((row["paper"], row["what"], row["peer"]), row["bound"])} for row in rows]


def one(paper: str, given: argparse.Namespace, words: list[str]) -> tuple[list[dict[str, Any]], int]:
    """A paper in a process of its own, so that what it leaves in memory slows no other."""
    with tempfile.NamedTemporaryFile("r", suffix=".jsonl") as file:
        command = [sys.executable, "-m", "bench", paper, *words, "--into", file.name]
        code = subprocess.run(command, cwd=harness.ROOT, check=False).returncode
        return [json.loads(text) for text in file], code


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("papers", nargs="*", metavar="PAPER", help=f"of {', '.join(papers())}")
    parser.add_argument("--only", default="", metavar="TEXT", help="races with TEXT in their work or their peer")
    parser.add_argument("--dtype", nargs="+", choices=("float64", "float32", "bfloat16"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--eager", action="store_true", help="no compiled rows")
    parser.add_argument("--quick", action="store_true", help=f"{harness.QUICK} rounds, and nothing is written")
    parser.add_argument("--traceback", action="store_true", help="of rows that fail")
    parser.add_argument("--page", action="store_true", help="write the page anew and race nothing")
    parser.add_argument("--into", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if wrong := [name for name in given.papers if name not in papers()]:
        parser.error(f"there are no rows for {', '.join(wrong)}; there are for {', '.join(papers())}")
    if given.into:
        shim.install()
        harness.start(given.threads)
        sys.exit(min(race_paper(given.papers[0], given), 100))
    failed = 0
    if not given.page:
        words = [word for word in sys.argv[1:] if word not in given.papers]
        for paper in given.papers or papers():
            rows, code = one(paper, given, words)
            failed += code != 0
            if not given.quick:
                whole = not (given.only or given.dtype or given.eager or code)
                results.save(noted(results.merge(results.load(), rows, whole=whole)))
    if not given.quick:
        results.save(noted(results.load()))
        results.write_page(results.load(), results.load(results.TOOL))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
