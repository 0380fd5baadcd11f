"""`python -m tools.mutants FILE`: what share of small bugs in a file its tests notice; `make mutants FILE=... N=30`."""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time
from pathlib import Path

from tools.mutants.changes import Change, changes, sample
from tools.mutants.trial import ROOT, NoTests, Trial, its_tests

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EXPLAINED = Path(__file__).parent / "explained.toml"
WANTED = 0.95


def entries() -> list[dict[str, str]]:
    """All of `explained.toml`: file, before, after, why."""
    return list(tomllib.loads(EXPLAINED.read_text(encoding="utf-8")).get("change", []))


def explained(file: str) -> dict[tuple[str, str], str]:
    """(line before, line after) -> why no test can notice, or none needs to, for one file."""
    return {(one["before"], one["after"]): one["why"] for one in entries() if one["file"] == file}


def main() -> int:
    asked = argparse.ArgumentParser(prog="python -m tools.mutants", description=__doc__)
    asked.add_argument("files", nargs="+", type=Path, help="of src/papertrial")
    asked.add_argument("-n", "--number", type=int, default=30, help="changes of a file that are tried (default 30)")
    asked.add_argument("--seed", type=int, default=0, help="which ones (default 0)")
    asked.add_argument("--tests", nargs="+", help="instead of those that have its name")
    asked.add_argument("--battery", action="store_true", help="of a paper: its rows of the battery too")
    asked.add_argument("--slow", action="store_true", help="the slow tests too")
    asked.add_argument(
        "--longest", type=float, default=float("inf"), help="leave out tests of more seconds; more survives"
    )
    asked.add_argument("--jobs", type=int, default=2, help="changes tried at a time (default 2)")
    asked.add_argument("--minutes", type=float, default=60, help="of a file; what was not tried by then is not counted")
    asked.add_argument("--match", default="", help="only changes whose line or replacement has this text")
    asked.add_argument("--list", action="store_true", help="show the changes and try none")
    given = asked.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was begun is ended
    enough = True
    for file in given.files:
        try:
            enough &= _one(file, given)
        except NoTests as problem:
            print(problem, file=sys.stderr)
            return 2
    return 0 if enough else 1


def _one(file: Path, given: argparse.Namespace) -> bool:
    source = file.read_text(encoding="utf-8")
    if given.match:
        chosen = [change for change in changes(source) if given.match in str(change)]
        chosen, many = chosen[: given.number], len(chosen)
    else:
        chosen, many = sample(source, given.number, given.seed)
    name = file.resolve().relative_to(ROOT).as_posix()
    print(f"{name}: {len(chosen)} of {many} changes, seed {given.seed}", flush=True)
    if given.list:
        print("\n".join(map(str, chosen)))
        return True
    tests = given.tests or its_tests(file, given.battery)
    reasons = explained(name)
    survived: list[Change] = []
    tried = 0
    with Trial(file, tests, given.jobs, given.slow) as trial:
        trial.look(given.longest)
        until = time.monotonic() + 60 * given.minutes
        seconds = sum(trial.known.seconds.values())
        print(f"{len(trial.known.seconds)} tests, {seconds:.0f} s: {' '.join(tests)}", flush=True)
        for change, noticed in trial.try_all(random.Random(given.seed).sample(chosen, len(chosen))):
            tried += 1
            if not noticed:
                survived.append(change)
                reason = reasons.get((change.before, change.after))
                print(f"{'explained' if reason else 'survived '}  {change}", flush=True)
            if time.monotonic() > until:
                break
    accounted = [change for change in survived if (change.before, change.after) in reasons]
    killed, counted = tried - len(survived), tried - len(accounted)
    share = killed / counted if counted else 1.0
    late = f", {len(chosen) - tried} not tried in {given.minutes:g} minutes" if tried < len(chosen) else ""
    print(f"{killed} of {counted} killed ({share:.0%}), {len(accounted)} explained{late}", flush=True)
    return share >= WANTED


if __name__ == "__main__":
    sys.exit(main())
