"""The battery over the registry: every paper and every baseline, check by check."""

from __future__ import annotations

import pytest

from papertrial.core import registry
from papertrial.testing import bench, checks_for

CASES = [(name, check) for name in registry.entries() for check in checks_for(name)]


@pytest.mark.parametrize(("name", "check"), CASES, ids=[f"{name}-{check}" for name, check in CASES])
def test_battery(name, check):
    checks_for(name)[check](bench(name))
