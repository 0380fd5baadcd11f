"""N-gram - how often bytes followed each other, longer contexts first: the language model before there were networks.

Reinhard Kneser and Hermann Ney, ICASSP 1995; Stanley Chen and Joshua Goodman, 1998 (modified Kneser-Ney).

The idea
    Count what followed the last bytes. Take a little from every count, and give it to what followed fewer of them.

The equation
    p(w | h) = max(a(hw) - D(a(hw)), 0) / a(h) + g(h) p(w | h'),  g(h) = what the discounts D took from h, over a(h)
    with h' the context h without its first byte; below all contexts stands 1 / 256.

What matters
    Shorter contexts do not count how often w followed, but after how many different bytes hw' was seen: what is frequent
    in one context only says little about others. Text that repeats itself is predicted better than by small networks.

Requires / Offers
    Requires running text. Predicts the next byte.

Relations
    The reference that `text_transformer` must beat on the same text.

Try
    papertrial fit ngram --data python-docs --task language_modeling

Cost
    A second for each megabyte or two of text.

Notation
    w a byte, h the bytes before it, k the order: the bytes of h and w together; a counts, adjusted below the highest order.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from papertrial.core.budget import Budget, Meter
from papertrial.core.facts import Facts
from papertrial.core.files import write_with
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced
from papertrial.core.run import Run
from papertrial.core.task import Ragged, Split

PAPER = Paper(
    id="ngram",
    title="An Empirical Study of Smoothing Techniques for Language Modeling",
    kind="estimator",
    idea="Interpolated counts of what followed the last bytes, with modified Kneser-Ney discounts.",
    method="NGram",
    authors="Stanley F. Chen, Joshua Goodman",
    year=1998,
    tasks=("language_modeling",),
    tags=("text", "language model", "baseline"),
    caveats=(
        "The first bytes of a window have short contexts, which Kneser-Ney counts serve less well than plain ones would.",
    ),
)

_MOST_ORDER = 8  # bytes that fit into a whole number of 64 bits
_LEAST = 0.01  # taken from any count


@checked
@dataclass(frozen=True)
class Config:
    order: int = sourced(7, "papertrial default; longer ones gain little on megabytes of text", f"[1, {_MOST_ORDER}]")
    most: int = sourced(1 << 26, "papertrial default; bytes learned from, the first ones of more", "[1, 1e12]")


@dataclass(frozen=True)
class Table:
    """What is known at one order. A gram is its bytes as one number, the last byte lowest.

    grams: uint64 (G,), sorted.  share: float64 (G,), what is left of each after the discount, over its context's count.
    contexts: uint64 (H,), sorted.  rest: float64 (H,), the share left for shorter contexts.
    """

    grams: np.ndarray
    share: np.ndarray
    contexts: np.ndarray
    rest: np.ndarray

    def mix(self, grams: np.ndarray, shorter: np.ndarray) -> np.ndarray:
        """Probabilities (N,) of the last bytes of grams (N,), given those of one order less."""
        return (
            _at(self.share, self.grams, grams, 0.0)
            + _at(self.rest, self.contexts, grams >> np.uint64(8), 1.0) * shorter
        )


def discounts(counts: np.ndarray) -> np.ndarray:
    """float64 (4,): what is taken from a count of 0, 1, 2 and 3 or more (Chen and Goodman, eq. 26).

    Where there are no counts to estimate them from, half of a count of one and so on. Something is always taken, so that
    what was never seen keeps a chance, and never more than there is.
    """
    n = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].astype(np.float64)
    taken = np.array([0.0, 0.5, 1.0, 1.5])
    if (n > 0).all():
        rate = n[0] / (n[0] + 2 * n[1])
        taken[1:] = [k - (k + 1) * rate * n[k] / n[k - 1] for k in (1, 2, 3)]
    return np.clip(taken, [0.0, _LEAST, _LEAST, _LEAST], np.arange(4))


def table(grams: np.ndarray, counts: np.ndarray) -> Table:
    """grams: uint64 (G,), sorted.  counts: int (G,), adjusted or plain."""
    contexts, begins = np.unique(grams >> np.uint64(8), return_index=True)
    taken = discounts(counts)[np.minimum(counts, 3)]
    total, given = (np.add.reduceat(x, begins) if len(x) else x for x in (counts.astype(np.float64), taken))
    sizes = np.diff(np.append(begins, len(grams)))
    return Table(grams, (counts - taken) / np.repeat(total, sizes), contexts, given / total)


class NGram:
    """An Estimator that reads the bytes of the column "text"; its outputs are the bits of each row."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.arrays: dict[str, np.ndarray] = {}
        self.tables: list[Table] = []

    def fit(self, train: Split, valid: Split, facts: Facts, budget: Budget, seed: int, run: Run) -> Meter:
        started = time.perf_counter()
        text: Ragged = train["text"]
        text = Ragged(text.values, np.minimum(text.offsets, text.offsets[0] + self.config.most))
        order, place = self.config.order, _places(text)
        *_, (_, longest) = _grams(text, place, order)
        grams, counts = np.unique(longest[place >= order - 1], return_counts=True)
        begins = [np.unique(key[place == k - 1]) for k, key in _grams(text, place, order - 1)]
        self.arrays = {"grams": grams, "counts": counts.astype(np.uint32)}
        self.arrays |= {f"begins_{k}": key for k, key in enumerate(begins, 1)}
        self._tabulate()
        return Meter(samples=train.examples, seconds=time.perf_counter() - started, trials=1)

    def most_trials(self, budget: Budget) -> int:
        return 1

    def _tabulate(self) -> None:
        """The tables of all orders, the lowest first. A shorter gram counts the bytes seen before it, a beginning as one."""
        grams, counts = self.arrays["grams"], self.arrays["counts"].astype(np.int64)
        self.tables = [table(grams, counts)]
        for order in range(self.config.order - 1, 0, -1):
            suffixes = grams & np.uint64((1 << 8 * order) - 1)
            grams, counts = np.unique(np.concatenate([suffixes, self.arrays[f"begins_{order}"]]), return_counts=True)
            self.tables.insert(0, table(grams, counts))

    def outputs(self, split: Split) -> np.ndarray:
        """Bits of each row (N,), float64."""
        text: Ragged = split["text"]
        place = _places(text)
        chance = np.full(len(place), 1 / 256)
        for (order, key), held in zip(_grams(text, place, self.config.order), self.tables, strict=True):
            here = place >= order - 1
            chance[here] = held.mix(key[here], chance[here])
        bits = np.concatenate([[0.0], np.cumsum(-np.log2(chance))])
        return np.diff(bits[text.offsets - text.offsets[0]])

    def save(self, folder: Path | str) -> None:
        write_with(Path(folder) / "model.safetensors", lambda path: save_file(self.arrays, str(path)))

    def load(self, folder: Path | str) -> NGram:
        self.arrays = load_file(str(Path(folder) / "model.safetensors"))
        self._tabulate()
        return self


def _places(text: Ragged) -> np.ndarray:
    """int64 (bytes,): how many bytes stand before each in its row."""
    begins = text.offsets[:-1] - text.offsets[0]
    return np.arange(text.nbytes) - np.repeat(begins, text.lengths)


def _grams(text: Ragged, place: np.ndarray, order: int) -> Any:
    """For each order k from 1 to `order`: (k, the grams of k bytes that end at each byte); those that begin before their row
    are not meant."""
    values = text.values[text.offsets[0] : text.offsets[-1]].astype(np.uint64)
    key = np.zeros(len(values), dtype=np.uint64)
    for k in range(1, order + 1):
        key[k - 1 :] |= values[: max(len(values) - k + 1, 0)] << np.uint64(8 * (k - 1))
        yield k, key


def _at(values: np.ndarray, keys: np.ndarray, wanted: np.ndarray, missing: float) -> np.ndarray:
    """`values` where the sorted keys have what is wanted, `missing` elsewhere."""
    if not len(keys):
        return np.full(len(wanted), missing)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], missing)


def build(config: Config, facts: Facts, backbone: Any = None) -> NGram:
    return NGram(config)


recipes = {"base": Recipe("base"), "tiny": Recipe("tiny", config={"order": 4})}
