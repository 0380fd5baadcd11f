"""What is ours: a folder that papertrial fills bears a marker, and only what the marker lists is ever replaced or removed.

`.papertrial.json` in the folder:
  kind, version, id   what the folder is, such as a run
  entries             names in the folder that are papertrial's; `scratch/` stands for a folder and all that is in it
  sum                 of the above: a marker that was changed counts as none

Names are listed before they are written, so a process that is killed leaves nothing behind that its marker does not know.
Whatever else lies in the folder is the user's. Nothing is followed through a link.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from papertrial.core.errors import PapertrialError
from papertrial.core.files import disk_errors, sweep, write_json

MARKER, LOCK, VERSION = ".papertrial.json", ".lock", 1

#: names of an unmarked folder that an earlier version wrote, by all that it holds; none where it is not such a folder
Recognise = Callable[[Path], Iterable[str]]


@dataclass
class Marked:
    """A folder of ours. made: folders that were made for it, the outermost first, by this process."""

    folder: Path
    kind: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    entries: set[str] = field(default_factory=set)
    version: int = VERSION
    made: tuple[Path, ...] = ()

    def add(self, *names: str) -> None:
        """List what is about to be written. Raises PapertrialError when such a file is there already and is not ours."""
        now = read(self.folder)
        if now is not None and now.id == self.id:
            self.entries |= now.entries
        new = sorted(set(names) - self.entries)
        if not new and now is not None:
            return
        for name in new:
            way = _way(self.folder, name)
            if way is None or os.path.lexists(way[-1]):
                raise not_ours(self.folder / name)
        self.entries |= set(new)
        self._write()

    def holds(self, name: str) -> bool:
        return name in self.entries

    def remove(self, *names: str) -> None:
        """Delete files and folders that are listed; those that are not stay."""
        for name in names:
            if name in self.entries:
                _remove(self.folder, name)

    def drop(self, *names: str) -> None:
        """Delete what is listed, and list it no longer."""
        self.remove(*names)
        if gone := self.entries & set(names):
            self.entries -= gone
            self._write()

    def sweep(self) -> None:
        """Remove what a process that was killed left half-written of what is listed."""
        for name in (MARKER, *self.entries):
            if (way := _way(self.folder, name)) is not None:
                sweep(way[-1])

    def clear(self) -> list[str]:
        """Delete all that is listed; the folder stays ours. Returns what is left, which is the user's."""
        self.remove(*sorted(self.entries))
        return visible(self.folder)

    def delete(self) -> list[str]:
        """Delete all that is listed and the marker, and the folders that were made for it where they are empty.

        Returns what is left, which is the user's.
        """
        left = self.clear()
        (self.folder / MARKER).unlink(missing_ok=True)
        _unmake(self.folder, self.made)
        return left

    def _write(self) -> None:
        content = {"kind": self.kind, "version": self.version, "id": self.id, "entries": sorted(self.entries)}
        write_json(self.folder / MARKER, {**content, "sum": _sum(content)})


def read(folder: Path | str) -> Marked | None:
    """What the marker says of a folder; None where there is no marker, or not as it was written."""
    try:
        content = json.loads((Path(folder) / MARKER).read_text(encoding="utf-8"))
        given = content.pop("sum")
        known = content["kind"], content["version"], content["id"]
        entries = set(content["entries"])
        if given != _sum(content) or not all(map(_inside, entries)):
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    kind, version, name = known
    return Marked(Path(folder), kind, name, entries, version)


def is_ours(folder: Path | str, kind: str) -> bool:
    """Whether papertrial marked the folder as one of this kind."""
    found = read(folder)
    return found is not None and found.kind == kind


def examine(folder: Path | str, kind: str, recognise: Recognise = lambda folder: ()) -> Marked | None:
    """The folder as one of this kind, or None where there is none yet. Changes nothing.

    Raises PapertrialError when what stands there is a file, the user's own, or of another kind.
    """
    folder = Path(folder)
    _require_folder(folder)
    with disk_errors(folder):
        found = read(folder)
        if found is not None:
            if found.version > VERSION:
                raise PapertrialError(
                    f"{folder} was written by a newer papertrial", "install that one, or choose another --out"
                )
            if found.kind != kind:
                raise PapertrialError(
                    f"{folder} holds {_a(found.kind)}, not {_a(kind)}", "choose another folder with --out"
                )
            return found
        if known := set(recognise(folder)) if folder.exists() else set():
            return Marked(folder, kind, entries=known)
        if names := visible(folder):
            raise PapertrialError(
                f"{folder} is not empty and not {_a(kind)} (it holds {names[0]})", "choose another folder with --out"
            )
        lock = folder / LOCK
        if os.path.lexists(lock) and (lock.is_symlink() or not lock.is_file() or lock.stat().st_size):
            raise not_ours(lock)
    return None


def claim(folder: Path | str, kind: str, names: Iterable[str] = (), recognise: Recognise = lambda folder: ()) -> Marked:
    """The folder, made and marked where it is new or empty.

    names: what may be written into it.  recognise: sees a folder of an earlier version, which is marked then, and said so
    on the error stream.  Raises PapertrialError as `examine` does, changing nothing.
    """
    folder = Path(folder)
    found = examine(folder, kind, recognise)
    if found is None:
        with disk_errors(folder):
            found = Marked(folder, kind, made=_make(folder))
    elif read(folder) is None:
        there = [name for name in sorted(found.entries) if (folder / name).exists()]
        print(
            f"{folder} is marked as {_a(kind)} of an earlier papertrial, known by {', '.join(there)}", file=sys.stderr
        )
        found.entries |= set(names)
    found.add(*names)
    return found


@contextmanager
def filled(
    folder: Path | str, kind: str, names: Iterable[str] = (), recognise: Recognise = lambda folder: ()
) -> Iterator[Marked]:
    """`claim`, for what is written in one go: where that fails, nothing is left of a folder that was new."""
    found = claim(folder, kind, names, recognise)
    try:
        yield found
    except PapertrialError:
        if found.made:
            found.delete()
        raise


@contextmanager
def held(
    folder: Path | str, kind: str, names: Iterable[str] = (), recognise: Recognise = lambda folder: ()
) -> Iterator[Marked]:
    """`claim`, while no other process has the folder; a second one is refused. The lock dies with the process."""
    from filelock import FileLock, Timeout

    folder = Path(folder)
    examine(folder, kind, recognise)
    with disk_errors(folder):
        made = _make(folder)
        if (folder / LOCK).is_symlink():
            raise not_ours(folder / LOCK)
        lock = FileLock(folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise PapertrialError(
                f"another process is using {folder}", "wait for it, or choose another folder with --out"
            ) from None
    try:
        try:
            found = claim(folder, kind, names, recognise)
        except PapertrialError:
            _unmake(folder, made)
            raise
        found.made = found.made or made
        found.sweep()
        yield found
    finally:
        lock.release()


def _unmake(folder: Path, made: Iterable[Path]) -> None:
    """Remove the lock, and the folders that were made, the innermost first, where they are empty."""
    (folder / LOCK).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # something lies there
        for each in reversed(tuple(made)):
            each.rmdir()


def require_new(folder: Path | str) -> None:
    """Raise PapertrialError where a folder could not be made: there is one that is not empty, or something else."""
    folder = Path(folder)
    _require_folder(folder)
    with disk_errors(folder):
        if folder.is_symlink() or (folder.exists() and any(folder.iterdir())):
            raise PapertrialError(f"{folder} is there already", "choose another --out")


def _require_folder(folder: Path) -> None:
    """Raise PapertrialError where a file, or a link to nothing, stands in the place of a folder or above it."""
    file = next((path for path in (folder, *folder.parents) if path.exists() and not path.is_dir()), None)
    if file is not None:
        raise PapertrialError(f"{file} is a file", "name a folder with --out")
    if folder.is_symlink() and not folder.exists():
        raise PapertrialError(f"{folder} is a link to nothing", "name a folder with --out")


def require_free(file: Path | str, replace: bool = False) -> None:
    """Raise PapertrialError where a file could not be written: one is there that is not ours, or the place takes none.

    replace: the user said that what is there may go. A file is ours where its folder's marker lists it.
    """
    file = Path(file)
    if file.is_dir():
        raise PapertrialError(f"{file} is a folder", "name a file with --out")
    marked = read(file.parent)
    if os.path.lexists(file) and not replace and not (marked is not None and marked.holds(file.name)):
        raise PapertrialError(f"{file} is there already", "choose another --out, or add --replace")
    above = next(folder for folder in file.absolute().parents if folder.exists())
    with disk_errors(file), tempfile.TemporaryFile(dir=above):  # tried now, not after an hour of work
        pass


def will_write(folder: Path | str, *names: str) -> None:
    """List what is about to be written into a folder, where that is ours; any other is left as it is."""
    if (marked := read(folder)) is not None:
        marked.add(*names)


def visible(folder: Path) -> list[str]:
    """Names in a folder that do not begin with a dot, sorted; none where it is not there."""
    return sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith(".")) if folder.exists() else []


def _make(folder: Path) -> tuple[Path, ...]:
    """Make a folder and those above it; returns those that were not there, the outermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return tuple(reversed(missing))


def _way(folder: Path, name: str) -> list[Path] | None:
    """From a folder to what is listed in it, each place on the way; None where a link or a file stands between."""
    way = [folder]
    for part in PurePosixPath(name).parts:
        if way[1:] and (way[-1].is_symlink() or (way[-1].exists() and not way[-1].is_dir())):
            return None
        way.append(way[-1] / part)
    return way


def _remove(folder: Path, name: str) -> None:
    """A file that is listed, or with a `/` behind its name a folder; then the folders on the way to it, where they are empty."""
    way = _way(folder, name)
    if way is None:
        return
    place = way[-1]
    with disk_errors(place):
        if place.is_dir() and not place.is_symlink():
            if name.endswith("/"):
                shutil.rmtree(place)
        elif os.path.lexists(place):
            place.unlink()  # of a link, the link alone
        sweep(place)
    with contextlib.suppress(OSError):  # something lies there
        for inner in reversed(way[1:-1]):
            inner.rmdir()


def _inside(name: Any) -> bool:
    """Whether a name in a marker is of something in the folder."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\\" not in name


def _sum(content: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


def not_ours(place: Path) -> PapertrialError:
    """The error for something in the way that papertrial did not write."""
    return PapertrialError(f"{place} is not papertrial's", "move it away, or choose another --out")


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
