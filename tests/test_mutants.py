"""The tool that tries tests: the changes it makes, how it finds the tests of a file, what it says and when it fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tools.mutants import __main__ as command
from tools.mutants.changes import changes, sample
from tools.mutants.trial import Known, NoTests, its_tests

ROOT = Path(__file__).parents[1]
SOURCE = '''"""Doc 1 + 2."""
from x import f
LIMIT: int = 3
PAPER = Paper(1, 2)
def g(a: int, b=True) -> "1 + 1":
    """Doc < 3."""
    if not a < b and f(a, b, dim=-1):
        raise ValueError("a" * 3)
    for x in sorted(a[1:]):
        f(x)
    return -a + 1
'''


def test_each_change_is_one_line_that_compiles_and_leaves_alone_what_holds_no_logic():
    found = list(changes(SOURCE))
    assert len({change.source for change in found}) == len(found)
    for change in found:
        before, after = SOURCE.splitlines(), change.source.splitlines()
        assert len(after) == len(before)
        assert [number for number, pair in enumerate(zip(before, after, strict=True), 1) if pair[0] != pair[1]] == [
            change.line
        ]
        assert (change.before, change.after) == (
            " ".join(before[change.line - 1].split()),
            " ".join(after[change.line - 1].split()),
        )
    assert {change.line for change in found} == {3, 5, 7, 9, 10, 11}
    made = {change.after for change in found}
    assert {
        "LIMIT: int = 4", 'def g(a: int, b=False) -> "1 + 1":', "pass",
        "if (a < b) and f(a, b, dim=-1):", "if not (a <= b) and f(a, b, dim=-1):", "if not a < b or f(a, b, dim=-1):",
        "if not a < b and f(b, a, dim=-1):", "if not a < b and f(a, b):", "if not a < b and f(a, b, dim=1):",
        "for x in reversed(list(sorted(a[1:]))):", "for x in sorted(a[1:], reverse=True):", "for x in sorted(a[:]):",
        "return a + 1", "return -a - 1", "return -a", "return -a + 0", "return None",
    } <= made  # fmt: skip
    assert {change.line for change in found if change.everywhere} == {3, 5}


def test_a_sample_is_seeded_and_spread_over_the_lines():
    chosen, many = sample(SOURCE, 6, 0)
    assert many == len(list(changes(SOURCE)))
    assert sorted({change.line for change in chosen}) == [3, 5, 7, 9, 10, 11]
    assert sample(SOURCE, 6, 0)[0] == chosen != sample(SOURCE, 6, 1)[0]
    assert len(sample(SOURCE, 1000, 0)[0]) == many


def test_the_tests_of_a_file_have_its_name_or_import_it():
    src = ROOT / "src" / "papertrial"
    assert its_tests(src / "core/stats.py", False) == ["tests/core/test_stats.py"]
    assert {"tests/study/test_compare.py", "tests/study/test_folds.py"} <= {*its_tests(src / "study/compare.py", False)}
    assert its_tests(src / "papers/rasp/compiler.py", True) == [
        "tests/papers/test_rasp.py",
        "tests/papers/test_rasp_compiler.py",
        "tests/test_every_paper.py::test_battery[rasp-",
    ]
    assert "tests/train/test_train_resume.py" in its_tests(src / "train/loop.py", False)
    with pytest.raises(NoTests, match="--tests"):
        its_tests(src / "core/nothing.py", False)


def test_tests_that_reach_a_change_come_first_and_quick_ones_before_slow_ones():
    change = next(change for change in changes(SOURCE) if change.line == 10)
    known = Known({"slow": 3.0, "quick": 1.0, "far": 0.1}, {"slow": {9, 10}, "quick": {10}, "far": {3}})
    assert known.order_for(change) == (["quick", "slow"], ["far"])
    everywhere = next(change for change in changes(SOURCE) if change.line == 3)
    assert known.order_for(everywhere) == (["far", "quick", "slow"], [])


def test_what_is_explained_still_stands_in_the_file():
    for name in {one["file"] for one in command.entries()}:
        made = {(change.before, change.after) for change in changes((ROOT / name).read_text(encoding="utf-8"))}
        reasons = command.explained(name)
        assert reasons.keys() <= made and all(len(why) > 15 for why in reasons.values()), name


@pytest.mark.slow
def test_a_file_is_tried_and_what_survives_is_shown(tmp_path):
    """Against tests that only run the file, everything survives that does not crash; against its own, next to nothing."""
    weak = tmp_path / "test_weak.py"
    weak.write_text("from papertrial.core.wording import counted\n\ndef test_it_runs():\n    counted(2, 'seed')\n")
    file = "src/papertrial/core/wording.py"
    outcome = {}
    for name, options in {"own": [], "weak": ["--tests", str(weak)]}.items():
        said = subprocess.run(
            [sys.executable, "-m", "tools.mutants", file, *options],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
        )
        outcome[name] = said.returncode, said.stdout, said.stderr
    assert outcome["own"][0] == 0, outcome["own"]
    assert outcome["weak"][0] == 1 and "survived   line" in outcome["weak"][1] and "->" in outcome["weak"][1], outcome[
        "weak"
    ]
