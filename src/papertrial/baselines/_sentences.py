"""Vectors of texts by MiniLM as it came, read once in a process: seeds and methods ask for the same texts again.

What was read before is charged again, at the mean seconds a text took, so that a method's cost does not depend on who asked
first.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from papertrial.core.budget import Budget, duration
from papertrial.core.errors import Declined
from papertrial.core.task import Ragged, Split
from papertrial.data.base import track
from papertrial.nn.batches import forward_batches

WIDTH = 384
#: tokens of a text that are read, as the model card says
LONGEST = 256
_KEPT = 60_000  # texts, 1.5 kB each
_BATCH, _PIECE = 64, 512
_PATIENCE = 600.0  # seconds


@dataclass
class _Reader:
    """model: of all its layers.  known: hash -> vector.  seconds, read: to read how many texts, so far."""

    model: Any
    known: dict[bytes, np.ndarray]
    seconds: float = 0.0
    read: int = 0


def vectors(texts: Ragged, budget: Budget | None = None) -> tuple[np.ndarray, float]:
    """float32 (N, 384), each of length one, and the seconds that reading them costs.

    Raises PapertrialError without the extra, and Declined where reading takes ten times the seconds of a budget, but ten
    minutes in any case.
    """
    reader = _reader()
    keys = [hashlib.blake2b(texts[row].tobytes(), digest_size=16).digest() for row in range(len(texts))]
    place = {key: row for row, key in enumerate(keys)}  # one row of each text
    missing = np.array([row for key, row in place.items() if key not in reader.known], dtype=np.int64)
    fresh: dict[bytes, np.ndarray] = {}
    begun, most = time.perf_counter(), np.inf
    if budget is not None:
        most = max(_PATIENCE, 10 * (budget.seconds or 0))
    pieces = range(0, len(missing), _PIECE)
    for first in track(pieces, len(pieces), "reading texts"):
        rows = missing[first : first + _PIECE]
        ids = reader.model.tokeniser.encode(texts[rows], longest=LONGEST)
        found = forward_batches(reader.model, Split({"ids": ids}), ("ids",), _BATCH)
        found = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        fresh.update(zip((keys[row] for row in rows.tolist()), found, strict=True))
        takes = (time.perf_counter() - begun) / (first + len(rows)) * len(missing)
        if takes > most:
            raise Declined(
                f"reading {len(missing):,} texts takes about {duration(takes)}",
                f"type: --budget {int(takes / 600) + 1}m",
            )
    reader.seconds, reader.read = reader.seconds + time.perf_counter() - begun, reader.read + len(missing)
    found = np.empty((len(texts), WIDTH), dtype=np.float32)
    for row, key in enumerate(keys):
        found[row] = fresh[key] if key in fresh else reader.known[key]
    reader.known.update(fresh)
    while len(reader.known) > _KEPT:
        reader.known.pop(next(iter(reader.known)))
    return found, reader.seconds / max(1, reader.read) * len(place)


@lru_cache(1)
def _reader() -> _Reader:
    from papertrial.nn import pretrained

    return _Reader(pretrained.find("minilm").load().eval(), {})
