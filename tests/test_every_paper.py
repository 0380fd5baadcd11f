"""The battery over the registry: every paper and every baseline, check by check."""

from __future__ import annotations

import pytest

from papertrial.baselines import _sentences
from papertrial.core import registry
from papertrial.testing import bench, checks_for

CASES = [(name, check) for name in registry.entries() for check in checks_for(name)]


@pytest.fixture(scope="module", autouse=True)
def _encoders_read_beginnings():
    """What is checked of a method that asks MiniLM for the vectors of all built-in texts shows on the first words of each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_sentences, "LONGEST", 8)
        _sentences._reader.cache_clear()
        yield
        _sentences._reader.cache_clear()


@pytest.mark.parametrize(("name", "check"), CASES, ids=[f"{name}-{check}" for name, check in CASES])
def test_battery(name, check):
    checks_for(name)[check](bench(name))
