"""A paper in somebody else's package is listed, checked and compared with no edit on our side."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from papertrial.app.new import new

#: what its own CI would run, in one process; the checks that take longest for one kind only
CHECKED = """
import papertrial as pt
from papertrial.testing import bench, check_paper, checks_for
from papertrial.use.eject import eject

check_paper("elsewhere_net")
for name in ("page", "recipes", "learns", "claims", "gradients"):
    checks_for("elsewhere_loss")[name](bench("elsewhere_loss"))
check_paper("elsewhere_rank")
check_paper("elsewhere_trick")
eject(pt.fit("elsewhere_net", "digits", recipe="tiny", budget="3steps", out="run", progress=False), "taken")
found = pt.compare(
    ["elsewhere_net"], "digits", recipe="tiny", budget="10steps", seeds=2, folds="none", baselines=["majority"],
    worth=False, out="compared", progress=False,
)
assert {row.name for row in found.rows} == {"elsewhere_net", "majority"}, found
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Four small packages as `pip install` leaves them: modules, and a dist-info folder that names the entry point.

    Returns a function that runs Python with them, in an empty folder.
    """
    place = tmp_path_factory.mktemp("elsewhere")
    site = place / "site"
    for name, kind in (
        ("elsewhere_net", "architecture"),
        ("elsewhere_loss", "objective"),
        ("elsewhere_rank", "analysis"),
        ("elsewhere_trick", "technique"),
    ):
        new(name, kind, out=place / name)
        shutil.copytree(place / name / "src", site, dirs_exist_ok=True)
        info = site / f"papertrial_{name}-0.1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: papertrial-{name.replace('_', '-')}\nVersion: 0.1.0\n"
        )
        (info / "entry_points.txt").write_text(f"[papertrial.papers]\n{name} = papertrial_{name}.{name}\n")

    def python(*words):
        paths = os.pathsep.join([str(site), *(path for path in sys.path if path)])
        done = subprocess.run(
            [sys.executable, "-W", "error", *map(str, words)],
            capture_output=True, text=True, cwd=place, env={**os.environ, "PYTHONPATH": paths},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return python


def test_it_is_listed(installed):
    rows = {row["id"]: row for row in json.loads(installed("-m", "papertrial", "list", "--shelf", "--json"))}
    assert rows["elsewhere_net"]["state"] == "on the shelf"
    assert rows["elsewhere_loss"]["kind"] == "objective"
    assert "mlp_mixer" in rows


def test_it_passes_the_battery_in_its_own_checks_and_can_be_taken_away_and_compared(installed):
    installed("-c", CHECKED)


def test_its_claims_stand_beside_it_and_leave_evidence_that_knows_its_code(installed):
    code = """
import json
from pathlib import Path
from papertrial.core import registry
from papertrial.study import code_marks
from papertrial.study.check import check

assert [file.name for file in registry.claim_files("elsewhere_rank")] == ["elsewhere_rank.py", "elsewhere_rank_claims.py"]
(found,) = check("elsewhere_rank", scale="base", folder="evidence")
assert found.verdict == "holds"
(kept,) = code_marks.read(Path("evidence"), "elsewhere_rank").values()
assert "papertrial_elsewhere_rank/elsewhere_rank.py" in kept["files"], kept["files"]
"""
    installed("-c", code)
    installed("-m", "papertrial", "check", "elsewhere_rank", "--evidence", "evidence")
