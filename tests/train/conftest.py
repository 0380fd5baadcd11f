"""A clock for trainings with a budget in seconds, so that their steps do not depend on the machine."""

import time

import pytest


class Clock:
    """Stands still but for what a training with it as a technique spends: 0.05 seconds a step."""

    now = 0.0

    def __call__(self):
        return self.now

    def before_step(self, model):
        self.now += 0.05


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock
