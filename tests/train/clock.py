"""A clock that a test holds: a millisecond passes whenever it is looked at, on a fast machine as on a slow one."""


class Clock:
    """Stands for the module `time` in the training loop."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        self.now += 0.001
        return self.now

    perf_counter = monotonic

    def pass_(self, seconds):
        self.now += seconds


def hold(monkeypatch):
    """Every clock of a training is this one from now on."""
    clock = Clock()
    for module in ("loop", "updates", "stages"):
        monkeypatch.setattr(f"papertrial.train.{module}.time", clock)
    return clock
