"""Every row is a test row once: data parted anew into folds, into past and future, or with nothing held out.

One fifth of few rows can hardly tell anything. Repeat r cuts the rows anew into folds, and a method trained on the others
answers for each; partition and seed together are what chance is in a repeat.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from papertrial.core.budget import Budget
from papertrial.core.errors import PapertrialError
from papertrial.core.offers import task_offers
from papertrial.core.task import Task
from papertrial.core.wording import counted
from papertrial.data.base import WHOLE, ordered

#: rows that can be judged below which they are judged in folds, in how many, and how often they are cut anew
FEW, FOLDS, REPEATS = 2000, 5, 3
SEED = 20_241_130
#: seeds where none are asked for, of a comparison on one test part
SEEDS = 5
_LEAST = 5.0  # seconds that a run in folds has by default
#: repeat, which, of how many
Fold = tuple[int, int, int]


def assigned(strata: np.ndarray, groups: np.ndarray, folds: int, repeat: int) -> np.ndarray:
    """The fold of each row, int64 (N,), -1 for rows that are never tested: those that cannot be judged, and the only group of
    a stratum, without which nothing could be learnt of it.

    strata: int64 (N,), -1 for rows that cannot be judged.  groups: int64 (N,); a group stays whole, and is dealt out with the
    stratum of its first row that can be judged, the largest first, to the fold with the fewest rows of that stratum.
    """
    rng = np.random.default_rng([SEED, repeat])
    rows = np.flatnonzero(strata >= 0)
    _, first, group, size = np.unique(groups[rows], return_index=True, return_inverse=True, return_counts=True)
    stratum = strata[rows[first]]
    place = np.full(len(first), -1, dtype=np.int64)
    total = np.zeros(folds)
    for one in np.unique(stratum):
        own = rng.permutation(np.flatnonzero(stratum == one))
        if len(own) < 2:
            continue
        held, spread = np.zeros(folds), rng.random(folds)
        for index in own[np.argsort(-size[own], kind="stable")]:
            fold = np.lexsort((spread, total, held))[0]
            place[index] = fold
            held[fold] += size[index]
            total[fold] += size[index]
    found = np.full(len(strata), -1, dtype=np.int64)
    found[rows] = place[group.reshape(-1)]
    return found


def choice(task: Task, data: Any, asked: int | str | None) -> tuple[int, str]:
    """(folds, what to say of it), 0 folds for one test part. asked: a number, none, or None for what the data call for.

    Raises PapertrialError for folds that the task or the data do not allow.
    """
    wanted = "" if asked is None else str(asked).lower()
    if wanted not in ("", "none") and not (wanted.isdigit() and int(wanted) > 1):
        raise PapertrialError(f"folds is {asked!r}, not a number from 2 on", "write it as --folds 5 or --folds none")
    if wanted == "none":
        return 0, ""
    strata = task_offers(task).strata
    if strata is None:
        if wanted:
            raise PapertrialError(f"the task {task.name} knows no folds", "leave --folds out")
        return 0, ""
    refusal = ""
    if data.times is not None:
        refusal = "--time says which rows are the test"
    elif (np.asarray(data.part) == 2).any():
        refusal = f"{data.name} comes with test rows"
    if refusal:
        if wanted:
            raise PapertrialError(f"{refusal}, so there are no folds", "leave --folds out")
        return 0, ""
    judged = strata(data) >= 0
    rows, groups = int(judged.sum()), len(np.unique(data.groups[judged]))
    folds = int(wanted) if wanted else FOLDS
    if groups < 2 * folds:
        if wanted:
            raise PapertrialError(f"{counted(groups, 'group')} are too few for {folds} folds", "give fewer --folds")
        return 0, ""
    if wanted:
        return folds, ""
    if rows >= FEW:
        return 0, ""
    return (
        folds,
        f"{rows:,} rows to judge by are few, so each is a test row once in every repeat (--folds none: one fifth)",
    )


def rounds(seeds: int, folds: int) -> str:
    """`5 seeds`, or `3 repeats of 5 folds`."""
    return f"{counted(seeds, 'repeat')} of {folds} folds" if folds else counted(seeds, "seed")


def shared(usual: Budget, runs: int) -> Budget:
    """The budget of a run in folds, so that a comparison takes no longer than one of SEEDS runs on a single test part."""
    if usual.seconds is None:
        return usual
    return replace(usual, seconds=min(usual.seconds, max(_LEAST, usual.seconds * SEEDS / runs)))


def parted(task: Task, data: Any, fold: Fold | None, final: bool) -> tuple[Any, list[str]]:
    """The data as they are to be made ready, and what to say of it: by time where a time was named, with one fold for the
    test, or with nothing held out. Raises PapertrialError for a task that cannot be parted so."""
    strata = task_offers(task).strata
    if data.times is None and fold is None and not final:
        return data, []
    if strata is None:
        raise PapertrialError(
            f"the task {task.name} has one way to part its data", "leave --time, --folds and --final out"
        )
    if final:
        return data.parted(np.full(len(data.groups), WHOLE)), []
    judged = strata(data)
    if fold is None:
        return ordered(data, judged >= 0)
    repeat, place, folds = fold
    found = assigned(judged, data.groups, folds, repeat)
    testing = found == place
    met = np.isin(data.groups, data.groups[testing]) & ~testing  # of the groups that are tested, but not to be judged
    return data.parted(np.where(testing, 2, np.where(met, -1, 0))), []
