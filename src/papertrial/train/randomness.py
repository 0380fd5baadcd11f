"""The global random numbers of torch, NumPy and Python, borrowed from the caller and given back.

Models and layers draw from the global generators. A training seeds them for each of its steps (`device.seed_step`), so it is
enough that no other thread draws in the middle of one, and that in the end they are as the caller left them.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

_turns = threading.RLock()
_depth = 0
#: held by whoever draws, from seeding the global generators to the last number
drawing = threading.RLock()


@contextmanager
def own_randomness() -> Iterator[None]:
    """For what trains: the global random numbers are ours within it, and the caller's go on afterwards as if nothing had been
    drawn. Threads take turns, since precision and kernels are settings of the whole process too."""
    global _depth
    with _turns:
        if _depth:
            yield
            return
        _depth = 1
        try:
            with given_back():
                yield
        finally:
            _depth = 0


@contextmanager
def drawn_apart() -> Iterator[None]:
    """For what draws at once, such as building a model: no other thread draws meanwhile, and it leaves the numbers as they were."""
    with drawing, given_back():
        yield


@contextmanager
def given_back() -> Iterator[None]:
    """After it the global random numbers are where they were."""
    import torch

    seed, numbers = torch.initial_seed(), torch.get_rng_state()
    arrays, python = np.random.get_state(), random.getstate()  # noqa: NPY002
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        torch.set_rng_state(numbers)
        np.random.set_state(arrays)  # noqa: NPY002
        random.setstate(python)
        if gpus is not None:
            torch.cuda.set_rng_state_all(gpus)
        elif torch.cuda.is_initialized():  # since; this is the state of generators that nobody has drawn from
            torch.cuda.manual_seed_all(seed)
