"""Which examples are for training, validation and test: what the tasks that classify have in common."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from papertrial.core.errors import DataError, PapertrialError
from papertrial.data.base import WHOLE

TEST_SHARE, VALID_SHARE, SPLIT_SEED = 0.2, 0.1, 20_210_100


def require_fraction(fraction: Any) -> None:
    """Raises PapertrialError for what is no share of the training rows."""
    if not 0 < float(fraction) <= 1:
        raise PapertrialError(f"fraction is {fraction}, not above 0 and at most 1", "write it as fraction=0.1")


def require_shares(fraction: Any, test_share: Any, valid_share: Any) -> None:
    """Raises PapertrialError for what is no share of the rows."""
    for name, share in (("fraction", fraction), ("test_share", test_share), ("valid_share", valid_share)):
        if not (0 < float(share) < 1 or (name == "fraction" and float(share) == 1)):
            raise PapertrialError(f"{name} is {share}, not between 0 and 1", f"write it as {name}=0.2")


def some_of(rows: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """A share of the training rows, drawn by the seed, in their order."""
    kept = np.random.default_rng([seed, 1]).permutation(rows)[: max(1, round(fraction * len(rows)))]
    return np.sort(kept)


def spread_evenly(rows: Any, most: int) -> Any:
    """At most so many of the rows (an array, or Ragged), at even distances."""
    return rows if len(rows) <= most else rows[np.arange(most) * len(rows) // most]


def revealed_per_class(labels: int | str | None, usual: int | None) -> int | None:
    """How many labels per class a method may see, None for all. Raises PapertrialError for what is neither a number nor `all`."""
    if labels is None:
        return usual
    if str(labels).lower() == "all":
        return None
    if not str(labels).isdigit() or int(labels) < 1:
        raise PapertrialError(
            f"labels is {labels!r}, not a number of labels per class", "write it as labels=10 or labels=all"
        )
    return int(labels)


def split_rows(
    target: np.ndarray,
    part: np.ndarray,
    groups: np.ndarray,
    seed: int,
    revealed: int | None,
    fraction: float,
    notes: list[str],
    what: str,
    needs_labels: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows (train, valid, test) of classified examples. Test rows depend on the data alone.

    target: int64 (N,), -1 = unlabelled.  part: int8 (N,), as given.  groups: equal for rows that stay together.
    revealed: labels per class that a method may see, which limits the validation rows; None for all.  fraction: share
    of the training rows to keep.  notes: lines are added.  what: the examples, in the words of notes and errors.
    Raises DataError where there is one class only, or too little to hold some out.
    """
    labelled = target >= 0
    if (part == WHOLE).any():
        return np.arange(len(target)), *2 * (np.zeros(0, dtype=np.int64),)
    if not labelled.any():
        if needs_labels:
            raise DataError("there are no labels", f"put the {what} of each class into a folder of its own")
        notes.append("no labels: a method can learn, but nothing can be judged")
        part = np.zeros_like(part)
    elif len(np.unique(target[labelled])) < 2:
        raise DataError("all labels are the same class", "two classes or more are needed")

    def draw(among: np.ndarray, wanted: Any, rng: np.random.Generator) -> np.ndarray:
        return pick_together(target, groups, wanted, rng, among)

    testing = part == 2
    if labelled.any() and not (testing & labelled).any():
        part = np.where(testing, 0, part)
        testing = draw(
            labelled & (part == 0), lambda count: rounded(count, TEST_SHARE), np.random.default_rng(SPLIT_SEED)
        )
        notes.append(f"test: {(testing & labelled).sum()} of {labelled.sum()} labelled {what}, the same for every seed")
        if not testing.any():
            raise DataError(
                f"there are too few labelled {what} to hold some out for the test",
                f"label at least 3 {what} of each class",
            )
    free = ~testing & (part >= 0)
    given = free & (part == 1) & labelled
    most = np.inf if revealed is None else revealed
    rng = np.random.default_rng([seed, 0])
    if given.any():
        valid = pick(target, lambda count: np.minimum(count, most), rng, given)
    else:
        valid = draw(free & labelled, lambda count: np.minimum(rounded(count, VALID_SHARE), most), rng)
    # given validation rows that are too many to choose with are there to learn from
    train = np.flatnonzero(free & ~valid)
    if fraction < 1:
        train = train[
            pick(
                target[train],
                partial(at_least_one, share=fraction),
                np.random.default_rng([seed, 1]),
            )
        ]
    return train, np.flatnonzero(valid & labelled), np.flatnonzero(testing & labelled)


def pick(groups: np.ndarray, wanted: Any, rng: np.random.Generator, among: np.ndarray | None = None) -> np.ndarray:
    """A mask with `wanted(counts)` random rows of each group, out of the rows `among`."""
    rows = rng.permutation(len(groups) if among is None else np.flatnonzero(among))
    rows = rows[np.argsort(groups[rows], kind="stable")]
    _, starts, counts = np.unique(groups[rows], return_index=True, return_counts=True)
    place = np.arange(len(rows)) - np.repeat(starts, counts)
    mask = np.zeros(len(groups), dtype=bool)
    mask[rows[place < np.repeat(wanted(counts), counts)]] = True
    return mask


def pick_together(
    target: np.ndarray, groups: np.ndarray, wanted: Any, rng: np.random.Generator, among: np.ndarray
) -> np.ndarray:
    """As `pick` from the classes of `target`, groups as a whole, chosen by the first row of each that is among them."""
    group = np.unique(groups, return_inverse=True)[1].reshape(-1)
    rows = np.flatnonzero(among)
    leads = np.zeros(len(target), dtype=bool)
    leads[rows[np.unique(group[rows], return_index=True)[1]]] = True
    return np.isin(group, group[pick(target, wanted, rng, leads)])


def rounded(count: np.ndarray, share: float) -> np.ndarray:
    return np.floor(count * share + 0.5)


def at_least_one(count: np.ndarray, share: float) -> np.ndarray:
    return np.maximum(rounded(count, share), 1)
