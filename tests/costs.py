"""What a run of the tests says at its end: what it left out, and which papers ask for more than their share of time.

It prints and fails nothing: no test depends on the machine. Seconds are those of processors, of the test process and of all
processes below it, so that a busy machine says the same as a quiet one.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter
from pathlib import Path

import pytest

#: what a paper's battery and its own tests may take together, in seconds of processor time
SHARE = 20
#: the battery names its method, the tests of a paper and of its claims lie in a file of its name
_PAPER = re.compile(r"test_every_paper\.py::test_battery\[(\w+)-|(?:papers|claims)/test_(\w+)\.py::")


def paper_of(nodeid: str) -> str | None:
    """The paper or baseline that a test is about, or None."""
    found = _PAPER.search(nodeid)
    return found and (found[1] or found[2])


def processor_seconds() -> float:
    """Of this process, of its children that have ended, and, where /proc lists them, of all below it that have not."""
    return sum(os.times()[:4]) + sum(map(_seconds_below, _children("self")))


def _children(pid: str) -> list[str]:
    found: list[str] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += file.read_text().split()
    return found


def _seconds_below(pid: str) -> float:
    """Of a process and all below it, the ended ones too; 0 for one that has just gone."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, words[11:15])) / os.sysconf("SC_CLK_TCK") + sum(map(_seconds_below, _children(pid)))


class Costs:
    """A plugin for the process that reports and for those that run tests; under xdist these are not the same."""

    def __init__(self) -> None:
        self.begun, self.left_out = 0.0, 0
        self.seconds: Counter[str] = Counter()

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config, items):
        slow = sum(item.get_closest_marker("slow") is not None for item in items)
        if config.option.markexpr == "not slow":
            self.left_out = slow

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item):
        self.begun = processor_seconds()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        if call.when == "teardown":  # all of the test, and fixtures that others share at the first that asks
            report.user_properties.append(("processor_seconds", max(processor_seconds() - self.begun, 0.0)))
        return report

    def pytest_runtest_logreport(self, report):
        if report.when == "teardown" and (paper := paper_of(report.nodeid)):
            self.seconds[paper] += dict(report.user_properties).get("processor_seconds", 0.0)

    def pytest_sessionfinish(self, session):
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["left_out"] = self.left_out

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node, error):
        self.left_out = max(self.left_out, getattr(node, "workeroutput", {}).get("left_out", 0))

    def pytest_terminal_summary(self, terminalreporter):
        for paper, seconds in self.seconds.most_common():
            if seconds > SHARE:
                terminalreporter.write_line(
                    f"{paper}: its tests took {seconds:.0f} s of processor time, over {SHARE} s"
                )
        if self.left_out:
            terminalreporter.write_line(
                f"left out: {self.left_out} slow tests (make test-slow runs them, make test-all all)"
            )
