"""One file out of a folder or an archive, named `FILE.zip#2012/train.tsv`."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from papertrial.core.errors import DataError, did_you_mean
from papertrial.core.files import write_bytes
from papertrial.data import textfiles
from papertrial.data.base import cache_folder, fingerprint

_SHOWN = 12


def names_in(path: Path) -> list[str]:
    """The files of a folder or archive, with "/" between folders; nothing for any other file."""
    if path.is_dir() or _is_archive(path):
        return [name for name, _ in textfiles.members(path)]
    return []


def taken_out(path: Path, names: list[str]) -> Path:
    """The folder in which the files `names` of a folder or archive lie, unpacked in the cache where it is an archive.

    Raises DataError for a name that is not there, or a damaged archive.
    """
    there = names_in(path)
    for name in names:
        if name not in there:
            raise DataError(f"{path} holds no file {name!r}", did_you_mean(name, there))
    if path.is_dir() and all((path / name).is_file() for name in names):
        return path
    archives = [file for file in sorted(path.rglob("*")) if _is_archive(file)] if path.is_dir() else [path]
    states = [(file, file.stat().st_size, file.stat().st_mtime_ns) for file in archives]
    folder = cache_folder() / "members" / fingerprint(path.resolve(), states)
    missing = {name for name in names if not (folder / _plain(name)).exists()}
    if missing:
        for name, read in textfiles.members(path):
            if name in missing:
                write_bytes(folder / _plain(name), read())
    return folder


def taken(path: Path, name: str) -> Path:
    """The file `name` of a folder or archive. Raises as `taken_out`."""
    folder = taken_out(path, [name])
    return folder / (name if folder == path else _plain(name))


def several(path: Path, names: list[str], what: str) -> DataError:
    """The error for a folder or archive of several things, with what to type for one of them."""
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if names[_SHOWN:] else "")
    return DataError(
        f"{path} holds several {what}: {shown}", f"name one behind #: papertrial look {quote(f'{path}#{names[0]}')}"
    )


def _is_archive(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(textfiles.ARCHIVES)


def _plain(name: str) -> Path:
    """A relative path that stays below its folder, whatever an archive calls its files."""
    return Path(*(word for word in name.replace("\\", "/").split("/") if word not in ("", ".", "..")))
