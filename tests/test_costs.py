"""What the run of the tests says of its own cost counts each test for the right paper, and the processes it starts."""

from __future__ import annotations

import subprocess
import sys

import pytest

from costs import paper_of, processor_seconds


@pytest.mark.parametrize(
    ("nodeid", "paper"),
    [
        ("tests/test_every_paper.py::test_battery[lce_reranker-same_seed_same_bits]", "lce_reranker"),
        ("tests/papers/test_rtdl.py::test_an_exported_model[x-y]", "rtdl"),
        ("tests/claims/test_byt5.py::test_it", "byt5"),
        ("tests/app/test_cli.py::test_it", None),
    ],
)
def test_a_test_counts_for_its_paper(nodeid, paper):
    assert paper_of(nodeid) == paper


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes that go on are found as Linux lists them")
@pytest.mark.parametrize("ends", [True, False])
def test_work_in_another_process_counts(ends):
    work = "import time\nwhile time.process_time() < 0.5: pass\nprint(flush=True)\ninput()"
    begun = processor_seconds()
    with subprocess.Popen([sys.executable, "-c", work], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        if ends:
            child.communicate(b"\n")
        assert processor_seconds() - begun >= 0.45
        if not ends:
            child.communicate(b"\n")
