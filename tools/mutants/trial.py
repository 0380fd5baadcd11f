"""Tries changes of a file against its tests.

The tests of `src/papertrial/LAYER/NAME.py` are `tests/LAYER/test_NAME*.py`, and those beside them that import it; where there are none,
all that import it. `--battery` adds the rows of a paper in the battery, which train it. All run once as the file is, which shows what
each costs and which lines it reaches. The files of tests are those of the checkout: leave them alone while changes are tried.
A change is tried by the tests that reach it, the quickest first, up to the first that fails; one that survives them is tried by the rest.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from tools.mutants.changes import Change

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "papertrial"
#: a change may take so many times what the tests took, and so many seconds more; what takes longer hangs, and was noticed
_TIMES, _MORE = 4.0, 20.0
#: gigabytes of data a change may ask for
_MEMORY = 8
_PASSED, _NONE_CHOSEN = 0, 5


class NoTests(Exception):
    """Nothing is known to test this file, or its tests fail as it is."""


def its_tests(file: Path, battery: bool = False) -> list[str]:
    """What pytest is given for a file of the package, as `path` or `path::name[` (the rows that begin so); see above."""
    parts = file.resolve().relative_to(PACKAGE).with_suffix("").parts
    layer, name = parts[0], parts[1] if len(parts) > 1 else parts[0]
    folder = ROOT / "tests" / layer
    names = {name, parts[-1].strip("_")} - {"init"}
    module = ".".join(["papertrial", *(part for part in parts if part != "__init__")])
    found = {test for one in names for test in folder.glob(f"test_{one}*.py")}
    if layer != "papers":  # whose tests all import what is common to papers
        found |= {test for test in folder.glob("test_*.py") if module in _imported(test)}
    found = found or {test for test in (ROOT / "tests").rglob("test_*.py") if module in _imported(test)}
    if not found:
        raise NoTests(f"no test has the name of {file} or imports it; name some: --tests tests/...")
    rows = [f"tests/test_every_paper.py::test_battery[{name}-"] if battery else []
    return [str(test.relative_to(ROOT)) for test in sorted(found)] + rows


def _imported(test: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(test.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


@dataclass
class Known:
    """What one run of the tests as they are says. seconds: of each test, by its id.  reached: lines of the file, likewise."""

    seconds: dict[str, float] = field(default_factory=dict)
    reached: dict[str, set[int]] = field(default_factory=dict)
    modules: list[str] = field(default_factory=list)

    def order_for(self, change: Change) -> tuple[list[str], list[str]]:
        """The tests that reach a change and the others, each with the quickest first."""
        lines = set(range(change.line, change.last + 1))
        order = sorted(self.seconds, key=self.seconds.__getitem__)
        first = [test for test in order if change.everywhere or lines & self.reached.get(test, set())]
        return first, [test for test in order if test not in set(first)]


class Watch:
    """A plugin of pytest: chooses and orders tests, and with `file` notes the lines of it that each test reaches."""

    def __init__(self, chosen: Callable[[str], bool], order: Sequence[str] = (), file: Path | None = None) -> None:
        self.chosen, self.order = chosen, {test: place for place, test in enumerate(order)}
        self.file = str(file) if file else ""
        self.known = Known()
        self.shared: dict[str, set[int]] = {}  # file of tests -> lines reached by fixtures, which others may share
        self.failed = ""

    def pytest_collection_modifyitems(self, config: Any, items: list) -> None:
        kept = [item for item in items if self.chosen(item.nodeid) and (not self.order or item.nodeid in self.order)]
        config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
        items[:] = sorted(kept, key=lambda item: self.order[item.nodeid]) if self.order else kept

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid
        if report.when == "call" and not report.skipped:
            self.known.seconds[report.nodeid] = 0.0
        if report.nodeid in self.known.seconds:
            self.known.seconds[report.nodeid] += report.duration

    def pytest_runtest_setup(self, item: Any) -> None:
        self._follow(self.shared.setdefault(item.nodeid.partition("::")[0], set()))

    def pytest_runtest_call(self, item: Any) -> None:
        self._follow(self.known.reached.setdefault(item.nodeid, set()))

    def pytest_runtest_teardown(self, item: Any) -> None:
        self._follow(None)

    def _follow(self, lines: set[int] | None) -> None:
        if not self.file:
            return

        def within(frame: Any, event: str, _: Any) -> Any:
            lines.add(frame.f_lineno)  # type: ignore[union-attr]
            return within

        def entered(frame: Any, event: str, _: Any) -> Any:
            if frame.f_code.co_filename != self.file:
                return None
            return within(frame, event, None)

        threading.settrace(entered if lines is not None else None)
        sys.settrace(entered if lines is not None else None)

    def result(self) -> Known:
        for test in self.known.seconds:
            self.known.reached.setdefault(test, set()).update(self.shared.get(test.partition("::")[0], ()))
        self.known.modules = sorted(_foreign())
        return self.known


def _foreign() -> Iterator[str]:
    """Packages from elsewhere that are imported by now."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""  # any module may lack it
        if "." not in name and "site-packages" in file and not name.startswith("_"):
            yield name


@dataclass
class Trial:
    """One file and its tests. lanes: copies of src in which changes are tried, one at a time each."""

    file: Path
    tests: list[str]
    lanes: int = 2
    slow: bool = False
    known: Known = field(default_factory=Known)

    def __enter__(self) -> Trial:
        self._folder = tempfile.TemporaryDirectory(prefix="mutants-")
        self.folders = [Path(self._folder.name) / str(lane) for lane in range(self.lanes)]
        for folder in self.folders:
            shutil.copytree(ROOT / "src", folder / "src")
            for compiled in folder.rglob(f"{self.file.stem}.*.pyc"):
                compiled.unlink()
        self.source = self.file.read_text(encoding="utf-8")
        self.within = self.file.resolve().relative_to(ROOT)
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def look(self, longest: float = float("inf")) -> None:
        """Run the tests as the file is; then import what they import, so that each change begins with it, and run them again
        in the way of a change, so that none fails for another reason than its own. longest: tests of more seconds are left out."""
        answer = self._folder.name + "/known.json"
        code, failed = self._run(self.folders[0], [], answer=answer)
        if code != _PASSED:
            raise NoTests(f"the tests of {self.within} fail as it is: {failed or 'pytest ended with ' + str(code)}")
        told = json.loads(Path(answer).read_text())
        self.known = Known(told["seconds"], {test: set(lines) for test, lines in told["reached"].items()})
        self.known.seconds = {test: took for test, took in self.known.seconds.items() if took <= longest}
        for name in told["modules"]:
            with warnings.catch_warnings(), contextlib.suppress(Exception):
                warnings.simplefilter("ignore")
                importlib.import_module(name)
        code, failed = self._run(self.folders[0], list(self.known.seconds))
        if code != _PASSED:
            output = (self.folders[0] / "output").read_text(encoding="utf-8", errors="replace")
            raise NoTests(f"the tests of {self.within} fail in another order: {failed or output[-2000:]}")

    def try_all(self, changes: Sequence[Change]) -> Iterator[tuple[Change, str]]:
        """Each change, as it ends, with the test that noticed it; "" where none did."""
        waiting = [(change, *self.known.order_for(change)) for change in changes]
        free, running = list(self.folders), dict[int, tuple]()
        try:
            yield from self._try(waiting, free, running)
        finally:
            for process, told, *_ in running.values():
                self._end(process, told)

    def _try(self, waiting: list, free: list[Path], running: dict[int, tuple]) -> Iterator[tuple[Change, str]]:
        while waiting or running:
            while waiting and free:
                change, tests, rest = waiting.pop(0)
                if not tests:
                    tests, rest = rest, []
                lane = free.pop()
                (lane / self.within).write_text(change.source, encoding="utf-8")
                process, told = self._start(lane, tests)
                limit = time.monotonic() + _MORE + 3 * _TIMES * sum(self.known.seconds[test] for test in tests)
                running[process.sentinel] = (process, told, lane, change, rest, limit)
            ended = set(wait(list(running), timeout=1.0))
            for sentinel, (process, told, lane, change, rest, limit) in list(running.items()):
                if sentinel not in ended and time.monotonic() < limit:
                    continue
                del running[sentinel]
                code, failed = self._end(process, told)
                (lane / self.within).write_text(self.source, encoding="utf-8")
                free.append(lane)
                if code == _PASSED and rest:
                    waiting.insert(0, (change, rest, []))
                else:
                    yield (
                        change,
                        "" if code in (_PASSED, _NONE_CHOSEN) else failed or "(no test could run, or none ended)",
                    )

    def _run(self, lane: Path, order: Sequence[str], answer: str = "") -> tuple[int, str]:
        process, told = self._start(lane, order, answer)
        process.join()
        return self._end(process, told)

    def _start(self, lane: Path, order: Sequence[str], answer: str = "") -> tuple[Any, Path]:
        told = lane / "failed"
        told.write_text("")
        seconds = 0 if answer else _MORE + _TIMES * sum(self.known.seconds[test] for test in order)
        process = multiprocessing.get_context("fork").Process(
            target=self._child, args=(lane, order, answer, told, seconds)
        )
        process.start()
        return process, told

    def _end(self, process: Any, told: Path) -> tuple[int, str]:
        """What it began goes with it: tests start processes of their own, and a change may make them wait for ever."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.join()
        return process.exitcode, told.read_text()

    def _child(self, lane: Path, order: Sequence[str], answer: str, told: Path, seconds: float) -> None:
        os.setsid()
        if seconds:
            resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds)))
            resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY << 30, _MEMORY << 30))
        os.environ |= {"PYTHONPATH": str(lane / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
        sys.path[:] = [str(lane / "src"), *(place for place in sys.path if Path(place) != ROOT / "src")]
        sys.dont_write_bytecode = True
        with open(lane / "output", "w") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        import pytest

        wanted = {test.partition("::")[0] for test in order}
        given = [test.partition("::")[0] for test in self.tests]
        # of a file from elsewhere pytest tells the end of its path alone
        files = [file for file in given if not order or any(f"/{file}".endswith(f"/{test}") for test in wanted)]
        rows = {test.partition("::")[0]: test for test in self.tests if "::" in test}

        def chosen(test: str) -> bool:
            return test.startswith(rows.get(test.partition("::")[0], ""))

        watch = Watch(chosen, order, lane / self.within if answer else None)
        options = f"-x -q --no-header -p no:cacheprovider -p no:xdist --basetemp={lane}/tmp".split()
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning", "-m", "" if self.slow else "not slow"]
        code = pytest.main(
            [*options, *files],
            plugins=[watch],
        )
        told.write_text(watch.failed)
        if answer:
            known = watch.result()
            reached = {test: sorted(lines) for test, lines in known.reached.items()}
            Path(answer).write_text(
                json.dumps({"seconds": known.seconds, "reached": reached, "modules": known.modules})
            )
        sys.stdout.flush()
        os._exit(int(code))
