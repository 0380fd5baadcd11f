"""Which sources hold a collection to search."""

from __future__ import annotations

from papertrial.data.base import Data
from papertrial.data.collections import Collection, is_collection
from papertrial.data.given import Given


def opens(given: Given) -> Data | None:
    """A collection from files, where neither a target nor columns are named; None for anything else."""
    named = given.target is not None or given.columns
    if given.path is None or named or not is_collection(given.path):
        return None
    return Collection.from_path(given.path)
