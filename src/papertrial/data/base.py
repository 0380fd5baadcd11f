"""What every kind of data offers, the facts page, and the cache that decoded arrays live in."""

from __future__ import annotations

import contextlib
import copy
import csv
import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
from typing_extensions import TypedDict

from papertrial.core import notebook, registry
from papertrial.core.doors import Door
from papertrial.core.errors import DataError, PapertrialError
from papertrial.core.files import write_with
from papertrial.core.html import page
from papertrial.core.memory import free_memory
from papertrial.core.wording import aligned, counted
from papertrial.data.belonging import NONE, by_time, coded, found_in, is_pattern, joined, moments, when


class _Cached(TypedDict):
    content: Any
    checksum: str


_CACHED = Door(_Cached, "remove it")
csv.field_size_limit(1 << 30)  # of the whole process; a cell may be longer than Python's 128 KiB
T = TypeVar("T", bound="Data")
#: set to False to keep progress bars off the error stream
show_progress = True


@dataclass
class Look:
    """The facts page of a data set: what a person wants to know before training. Nothing here prints.

    facts: (label, words) in reading order.  notes: lines worth saying (what was skipped, moved, guessed).
    numbers: the raw values behind the words, JSON-able; every kind fills `examples` and `labelled`, other keys
    belong to the kind (`classes`, `channels`, `target_kind`, ...).
    """

    name: str
    kind: str
    facts: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)

    @property
    def what(self) -> str:
        """The kind, within a sentence. Raises PapertrialError for a kind that nobody registered."""
        return registry.kind(self.kind).words or self.kind

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "facts": dict(self.facts),
            "notes": self.notes,
            "numbers": self.numbers,
        }

    def __repr__(self) -> str:
        """As people read it, in a notebook too."""
        return "\n".join([f"{self.name} ({self.kind})", *aligned(self.table()), *(f"- {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        return page(f"{self.name} ({self.kind})", facts=self.table(), lines=self.notes)

    def table(self) -> list[tuple[str, str]]:
        """The facts as labels and words."""
        return self.facts


class Data:
    """Data of one kind. `fingerprint` changes with the content; `notes` are lines worth telling the user.

    source: what `papertrial.open` was given, paths made absolute, so that it can be opened again; "" for objects.
    target_is_column: whether a target that the user names is one of its columns.  takes_columns: whether the columns
    behind the `#` of a source mean something to it.  read_notes: those of `notes` that speak of reading and not of meaning,
    None where all may matter to a model that is there already.
    group, time: the columns or patterns that `together` and `times` come from, "" for none; asked_group: what the user named,
    which may be "none".  together: int64 (N,), equal for rows that the user puts together, -1 for rows of no such group; None
    for no groups.  times: float64 (N,), when each row is from (days since 1970 where `dates`), NaN where that is not known;
    None where no time was named.  part: int8 (N,), 0 = train or free, 1 = valid, 2 = test, -1 = left out, `WHOLE` = train,
    with no test.  own: see `own_labels`.
    """

    kind = ""
    source = ""
    target_is_column = False
    takes_columns = False
    read_notes: Any = None
    group = ""
    asked_group = ""
    time = ""
    dates = False
    group_note = ""
    together: np.ndarray | None = None
    times: np.ndarray | None = None
    part: Any
    names: Any
    own: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, name: str, fingerprint: str, notes: Iterable[str] = ()) -> None:
        self.name = name
        self.fingerprint = fingerprint
        self.notes = list(notes)

    def __len__(self) -> int:
        """Examples, of which a collection has as many as documents."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.name!r}: {counted(len(self), 'example')}; look() says more"

    def look(self) -> Look:
        """The facts page."""
        raise NotImplementedError

    @property
    def lost(self) -> dict[str, int]:
        """Why -> how many rows of the source are no examples."""
        return {}

    def label_words(self) -> list[str]:
        """The label of each example as it stands in the data, "" for none; empty where that is not known."""
        return []

    def own_labels(self) -> dict[str, Any]:
        """Name of a class -> what it is in the labels of the user: a number or a boolean. Empty where it is the name."""
        return dict(self.own)

    @property
    def copies(self) -> np.ndarray:
        """int64 (N,), equal for rows that are the same, or nearly; each is its own where a kind does not look."""
        return np.arange(len(self))

    @property
    def groups(self) -> np.ndarray:
        """int64 (N,), equal for rows that are no chance of their own: copies, and what the user puts together."""
        return joined(self.copies, self.together)

    def belong(self, group: str | None, time: str | None) -> None:
        """Set `together` and `times` from what the user named: columns, or patterns for the names of the rows.

        Raises DataError for what names nothing here.
        """
        self.asked_group = group or ""
        if group and group != NONE:
            self.group, self.together = group, coded(self._told(group, "group"))
            self._tell_groups(f"--group {group}")
            self.tell_straddling()
        if time:
            told = self._told(time, "time")
            self.time, self.times = time, moments(told)
            self.dates = any("-" in value[1:] for value in told)

    def _told(self, words: str, option: str) -> Sequence[str]:
        """By row what a column or a pattern says, "" for nothing."""
        if not is_pattern(words):
            raise DataError(
                f"{self.name} has no column {words!r}", f"give a pattern for its paths, as in --{option} '^([^_]+)_'"
            )
        return found_in([str(name) for name in self.names], words, option)

    def _tell_groups(self, by: str) -> None:
        assert self.together is not None
        alone = int((self.together < 0).sum())
        apart = f"; {counted(alone, 'row')} of no group stand for themselves" if alone else ""
        self.group_note = (
            f"{by}: {len(np.unique(self.together[self.together >= 0])):,} groups in {len(self.together):,} rows; a group stays on"
            f" one side of a split and counts once{apart}"
        )
        self.note(self.group_note)

    def tell_straddling(self) -> None:
        """Groups that a given split parts are not moved, since whoever made it may have had a reason."""
        testing = self.part == 2
        if self.together is None or not testing.any():
            return
        met = np.isin(self.together, self.together[(self.part >= 0) & ~testing]) & testing & (self.together >= 0)
        if met.any():
            self.note(
                f"the given split parts {counted(len(np.unique(self.together[met])), 'group')}: {met.sum():,} of"
                f" {testing.sum():,} test rows are of groups that are also trained on or chosen with, so figures may be too good"
            )

    def parted(self: T, part: np.ndarray) -> T:
        """The same data with other rows for training, validation and test."""
        twin = copy.copy(self)
        twin._take_part(np.asarray(part, dtype=np.int8))
        return twin

    def _take_part(self, part: np.ndarray) -> None:
        self.part = part

    def note(self, line: str) -> None:
        """Add a line to `notes` once."""
        if line not in self.notes:
            self.notes.append(line)


#: in `part`: rows to learn from where none are held out for a test
WHOLE = 3


def ordered(data: Data, judged: np.ndarray) -> tuple[Data, list[str]]:
    """The data parted by their times, and lines that say where; as they are where no time was named.

    judged: bool (N,), rows that can be tested on. Raises DataError where a side stays empty.
    """
    if data.times is None:
        return data, []
    part, later = by_time(data.times, data.groups, judged)
    sides = [data.times[(part == side) & judged] for side in range(3)]
    first, last = ([when(float(end(side)), data.dates) for side in sides] for end in (np.min, np.max))
    notes = [
        f"by {data.time}: trained on {first[0]} to {last[0]}, validated on {first[1]} to {last[1]}, tested on"
        f" {first[2]} to {last[2]}"
    ]
    unknown = int((~np.isfinite(data.times)).sum())
    if unknown:
        notes.append(f"{counted(unknown, 'row')} without a time: left out")
    if later:
        notes.append(f"{counted(later, 'row')} of groups that were met at an earlier time: left out")
    if (data.part == 2).any():
        notes.append("the split that came with the data is not used: --time makes another")
    return data.parted(part), notes


def fingerprint(*pieces: object) -> str:
    """A short hash of strings, numbers and arrays (their type, shape and bytes)."""
    digest = hashlib.blake2b(digest_size=12)
    for piece in pieces:
        if isinstance(piece, np.ndarray):
            digest.update(f"{piece.dtype.str}{piece.shape}".encode())
            content = piece.astype("U") if piece.dtype.kind == "O" else piece
            digest.update(np.ascontiguousarray(content).reshape(-1).view(np.uint8).data)
        else:
            digest.update(str(piece).encode("utf-8", "surrogateescape"))
        digest.update(b"\0")
    return digest.hexdigest()


def accepted() -> str:
    """What can be opened, in words, for the message on what cannot."""
    more = "".join(f"{kind.accepts}, " for kind in registry.kinds().values() if kind.accepts)
    return (
        "give a folder or archive of images or texts (a folder per class for labels, captions beside images), "
        "idx or CIFAR-10 files, a text file, a CSV, JSON Lines or Parquet file, .npy or .npz, a BEIR folder, "
        f"{more}hf:<data set>, or a built-in name"
    )


def cache_folder() -> Path:
    """$PAPERTRIAL_CACHE, else $XDG_CACHE_HOME/papertrial, else ~/.cache/papertrial. Everything in it can be deleted."""
    chosen = os.environ.get("PAPERTRIAL_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "papertrial"


def recall(name: str) -> Any:
    """A small result that is kept in the cache; None where there is none, or it is not as it was written."""
    with contextlib.suppress(PapertrialError):
        return _CACHED.read(cache_folder() / f"{name}.json")["content"]
    return None


def remember(name: str, content: Any) -> None:
    """Keep a small result; a cache that cannot be written costs time, nothing else."""
    with contextlib.suppress(PapertrialError, UnicodeEncodeError):
        _CACHED.write(cache_folder() / f"{name}.json", {"content": content})


def cached_array(
    name: str, shape: tuple[int, ...], dtype: Any, fill: Callable[[np.ndarray], None], note: Callable[[str], None]
) -> np.ndarray:
    """The array kept in the cache under `name`, memory-mapped read-only; `fill(array)` makes it the first time.

    Where the cache cannot be written or the disk is full, the array is made in memory, and `note` is told. Raises
    DataError when it does not fit there either.
    """
    path = cache_folder() / f"{name}.npy"
    with contextlib.suppress(OSError, ValueError):
        held = np.load(path, mmap_mode="r", allow_pickle=False)
        if held.shape == shape and held.dtype == np.dtype(dtype):
            return held
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize

    def write(temporary: Path) -> None:
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=shape)
        _reserve(temporary)
        fill(array)
        array.flush()

    try:
        write_with(path, write)
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except PapertrialError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        note(f"not cached, kept in memory: {error.problem}")
    available = free_memory()
    if size > 0.8 * available:
        raise DataError(
            f"{size / 1e9:.1f} GB are needed, the cache {path.parent} cannot take them and memory has {available / 1e9:.1f} GB",
            "set PAPERTRIAL_CACHE to a folder with room",
        )
    array = np.empty(shape, dtype)
    fill(array)
    return array


def _reserve(path: Path) -> None:
    """Claim the disk space of a sparse file now: writing to a memory map on a full disk would kill the process."""
    if hasattr(os, "posix_fallocate"):
        with open(path, "rb+") as stream:
            os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)


def track(steps: Iterable[Any], total: int | None, what: str) -> Iterator[Any]:
    """Pass `steps` on; after two seconds the error stream says how far it is: a bar on a terminal, a line in a notebook."""
    terminal, line = sys.stderr.isatty(), notebook.Line() if notebook.inside() else None
    if not (show_progress and (terminal or line)):
        yield from steps
        return
    started, bar = time.monotonic(), None
    try:
        for done, step in enumerate(steps, 1):
            yield step
            if time.monotonic() - started <= 2:
                continue
            if line is not None:
                line.show(f"{what}: {done:,}" + (f" of {total:,}" if total else ""))
                continue
            if bar is None:
                from rich.console import Console
                from rich.progress import Progress

                bar = Progress(console=Console(stderr=True), transient=True)
                bar.start()
                bar.add_task(what, total=total)
            bar.update(bar.task_ids[0], completed=done)
    finally:
        if bar is not None:
            bar.stop()
        if line is not None:
            line.end()
