"""Writing files so that nothing is ever half-written: a temporary name in the same folder, flush to disk, rename."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import Any

from papertrial.core.errors import PapertrialError

_DIGITS = 4000  # fewer than Python's limit for reading a number
_NUMBER = re.compile(r"(?:\bos error |\(Error )(\d+)\b")  # of safetensors and CatBoost
#: what libraries write that tell no number: NumPy, SQLite, C++
_FULL = re.compile(
    r"no space left on device|disk quota exceeded|\bdisk is full\b|\d+ requested and \d+ written", re.IGNORECASE
)


@contextmanager
def disk_errors(path: Path | str) -> Iterator[None]:
    """Turn a full disk, a read-only folder, a missing right and the like into one clear line that names `path`."""
    try:
        yield
    except PapertrialError:
        raise
    except Exception as error:
        if disk_full(error):
            raise PapertrialError(
                f"no space left on the disk while writing {path}", "free some room and run the same command again"
            ) from error
        number = _number(error)
        if number is None:
            raise
        why = (os.strerror(number) if number else str(error)).lower()
        raise PapertrialError(f"cannot write {path}: {why}", "choose another place with --out") from error


def disk_full(error: BaseException) -> bool:
    """Whether an error says, in the words of whichever library, that a disk or a quota is full."""
    return not isinstance(error, PapertrialError) and (
        _number(error) in (errno.ENOSPC, errno.EDQUOT) or bool(_FULL.search(str(error)))
    )


def _number(error: BaseException) -> int | None:
    """The system's number of an error, 0 where it has none; None for one that is not the system's."""
    if isinstance(error, OSError):
        return error.errno or 0
    found = _NUMBER.search(str(error))  # of libraries that have exceptions of their own
    return int(found[1]) if found else None


def write_with(path: Path | str, write: Callable[[Path], None]) -> Path:
    """Call `write(temporary)` for a file that is there, empty, then move it to `path` in one step.

    It lies in a folder of its own, which takes what a writer puts beside it.  A failure leaves what stood at `path` before
    and removes the temporary. Raises PapertrialError when the disk is full or the place cannot be written.
    """
    path = Path(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        inside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
        temporary = inside / path.name
        try:
            temporary.touch()
            write(temporary)
            with open(temporary, "rb+") as stream:
                os.fsync(stream.fileno())
            temporary.chmod(0o666 & ~_umask())
            os.replace(temporary, path)
        finally:
            with suppress(OSError):  # listing a folder takes memory, of which there may be none
                temporary.unlink(missing_ok=True)
                inside.rmdir()
            shutil.rmtree(inside, ignore_errors=True)
    return path


def sweep(path: Path) -> None:
    """Remove the temporary folders that a process which was killed in `write_with` left of `path`; earlier versions left files."""
    for leftover in path.parent.glob(f".{escape(path.name)}.????????.tmp"):
        with suppress(OSError):
            leftover.unlink() if leftover.is_symlink() or not leftover.is_dir() else shutil.rmtree(leftover)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_bytes(path: Path | str, content: bytes) -> Path:
    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    return write_with(path, write)


def write_text(path: Path | str, content: str) -> Path:
    return write_bytes(path, content.encode())


def write_json(path: Path | str, content: Any) -> Path:
    return write_text(path, to_json(content, indent=2) + "\n")


def read_json(path: Path | str) -> Any:
    """Raises PapertrialError when the file is missing or is not JSON."""
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise PapertrialError(f"{path} is not there", "check the path") from None
    except (OSError, ValueError) as error:
        raise PapertrialError(
            f"{path} cannot be read as JSON ({error})", "it may be damaged; run the command that wrote it again"
        ) from None


def parse_json(text: str) -> Any:
    """The value of JSON that a person brings. Half a character of UTF-16, which no text can hold, becomes U+FFFD, and a number
    of more digits than Python reads a text.  Raises json.JSONDecodeError, also for what is nested too deeply."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise json.JSONDecodeError("nested too deeply", text, 0) from None
    except ValueError:
        value = json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < _DIGITS else digits)
    return _whole(value) if "\\ud" in text or "\\uD" in text else value


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_whole(key): _whole(held) for key, held in value.items()}
    return [_whole(held) for held in value] if isinstance(value, list) else value


def to_json(content: Any, indent: int | None = None) -> str:
    """JSON with numpy scalars and arrays, paths and `to_json` objects; a non-finite number becomes null (JSON has none)."""
    return json.dumps(_plain(content), indent=indent, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if hasattr(value, "to_json"):
        return _plain(value.to_json())
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(entry) for entry in value]
    if hasattr(value, "tolist"):  # numpy arrays and scalars, torch tensors
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int | bool):
        return value
    return str(value)
