"""Shared fixtures: one thread per test process, real data where it is at hand, caches of their own."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import io
import sys
from pathlib import Path

import hypothesis
import pytest

from costs import Costs

# no test measures time, these neither: a busy machine draws and runs examples slowly
hypothesis.settings.register_profile(
    "papertrial", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("papertrial")


def pytest_configure(config):
    config.pluginmanager.register(Costs(), "papertrial-costs")


@pytest.fixture(scope="session", autouse=True)
def _quiet_machine(tmp_path_factory):
    import torch

    torch.set_num_threads(1)
    os.environ["PAPERTRIAL_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            os, "fsync", lambda file: None
        )  # no test cuts the power; test_torture.py has processes of its own
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside the checkout; tests that need it skip with a reason when it is absent."""
    folder = Path(os.environ.get("PAPERTRIAL_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    if not (folder / "manifest.json").exists():
        pytest.skip(f"needs the real data sets, which are not in {folder} (set PAPERTRIAL_DATA)")
    return folder


@pytest.fixture(autouse=True)
def _claims_find_the_shared_data(request, monkeypatch):
    """A test that asked for the real data has them where claims look for them, however the tests were started."""
    if "shared_data" in request.fixturenames:
        monkeypatch.setenv("PAPERTRIAL_DATA", str(request.getfixturevalue("shared_data")))


@pytest.fixture
def papertrial(capsys, monkeypatch, tmp_path):
    """Run a command in an empty folder, with what is typed into it; returns (exit code, stdout, stderr)."""
    from papertrial.app.cli import main

    monkeypatch.chdir(tmp_path)

    def run(*words, typed=""):
        monkeypatch.setattr(sys, "argv", ["papertrial", *map(str, words)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        with pytest.raises(SystemExit) as stop:
            main()
        out = capsys.readouterr()
        return stop.value.code or 0, out.out, out.err

    return run
