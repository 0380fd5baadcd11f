"""The doors through which papertrial's own files come back in: parsed, checked against the schema beside their writer, versioned.

A schema is a `TypedDict`; it names what readers rely on, and other keys may stand beside. A file that was written through a door
carries the checksum of its content, so that a changed digit is told as well as a missing bracket; files from before have none.
Whatever is wrong is `Damaged`: one line with the file, the place in it, and what repairs it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from papertrial.core.errors import PapertrialError
from papertrial.core.files import to_json, write_text

#: the key of the checksum, in the file itself
SUM = "checksum"
_MOST = 1 << 30  # bytes of a file that is read whole
_HEADER = 1 << 12  # bytes of an array without values


class Damaged(PapertrialError):
    """A file of papertrial's own that is not as it was written."""

    def __init__(self, path: Path | str, why: object, fix: str) -> None:
        words = " ".join(str(why).split())
        super().__init__(f"{path} is damaged ({words if len(words) <= 200 else words[:197] + '...'})", fix)


@dataclass(frozen=True)
class Door:
    """How a format of files is read and written.

    schema: what the content must be, a type that pydantic can check.  fix: what repairs a damaged file, in which "{file}" and
    "{folder}" stand for it and for the folder it lies in.  version: the one that is read, under the key "format".
    """

    schema: Any
    fix: str
    version: int | None = None

    def read(self, path: Path | str) -> Any:
        """The content.

        Raises Damaged for a file that is not as it was written, PapertrialError for one that is not there or of another version.
        """
        path = Path(path)
        try:
            held = path.stat().st_size
            if held > _MOST:
                raise self.damaged(path, f"it is {held:,} bytes long")
            content = parsed(path.read_bytes())
        except FileNotFoundError:
            raise PapertrialError(f"{path} is not there", "check the path") from None
        except OSError as error:
            raise PapertrialError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
        except ValueError as error:
            raise self.damaged(path, error) from None
        return self.checked(path, content)

    def checked(self, path: Path | str, content: Any) -> Any:
        """The content of a file that was parsed. Raises as `read` does."""
        if isinstance(content, dict) and SUM in content and content[SUM] != _sum(content):
            raise self.damaged(path, "its content is not what was written: the checksum differs")
        if self.version is not None and isinstance(content, dict) and content.get("format") != self.version:
            found = content.get("format", "none")
            newer = isinstance(found, int) and found > self.version
            raise PapertrialError(
                f"{path} is of format {_short(found)}, and this papertrial reads {self.version}",
                "type: pip install -U papertrial" if newer else self.repair(path),
            )
        if why := wrong(self.schema, content):
            raise self.damaged(path, why)
        return content

    def write(self, path: Path | str, content: Mapping[str, Any]) -> Path:
        """The content as JSON, with its checksum."""
        plain = json.loads(to_json(content))
        return write_text(path, to_json({**plain, SUM: _sum(plain)}, indent=2) + "\n")

    def rows(self, path: Path | str, grows: bool = False) -> tuple[list[Any], list[str]]:
        """The lines of a JSON Lines file that are whole, and for each other one a sentence with its number.

        grows: lines are appended, and a kill may cut the last one short, which is then left out in silence.  A file that is not
        there has no lines. Raises PapertrialError for one that cannot be read.
        """
        path = Path(path)
        try:
            lines = path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return [], []
        except OSError as error:
            raise PapertrialError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
        good, bad = [], []
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = parsed(line)
                why = wrong(self.schema, row)
            except ValueError as error:
                if grows and number == len(lines):
                    continue
                why = str(error)
            if why:
                bad.append(f"line {number} of {path} is damaged ({_short(why)})")
            else:
                good.append(row)
        return good, bad

    def damaged(self, path: Path | str, why: object) -> Damaged:
        return Damaged(path, why, self.repair(path))

    def repair(self, path: Path | str) -> str:
        """What repairs a file, for a line that ends in it."""
        return self.fix.replace("{file}", str(path)).replace("{folder}", str(Path(path).parent))

    @contextmanager
    def answers_for(self, path: Path | str, content: Any) -> Iterator[None]:
        """Around what is made of the content alone: an error there is the file's, unless its checksum says that it is whole."""
        try:
            yield
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            if isinstance(content, dict) and SUM in content:
                raise
            raise self.damaged(path, f"{type(error).__name__}: {error}") from error


def parsed(content: bytes) -> Any:
    """The value of JSON. Raises ValueError, also for what is no UTF-8, for numbers that JSON does not have, and for what is
    nested deeper than 200 levels."""
    from pydantic_core import from_json

    return from_json(content, allow_inf_nan=False)


def wrong(schema: Any, content: Any) -> str:
    """What is wrong with a value, and where in it, in words; empty where nothing is."""
    from pydantic import ValidationError

    try:
        _adapter(schema).validate_python(content, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        words = first["msg"][:1].lower() + first["msg"][1:]
        return f"{_short(where)}: {words}" if where else words
    return ""


def read_array(path: Path | str, fix: str, kinds: str = "", axes: int | None = None) -> Any:
    """An .npy file, mapped and read-only. kinds: of its dtype, such as "if"; all but objects where left out.

    Raises Damaged, with the fix, for a file that is missing or is no such array; nothing is unpickled.
    """
    import numpy as np

    try:
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError:  # an empty array cannot be mapped
            if Path(path).stat().st_size > _HEADER:
                raise
            array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise Damaged(path, "it is missing", fix) from None
    except OSError as error:
        raise PapertrialError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}", fix) from None
    except Exception as error:  # the header is Python, which fails in many ways
        raise Damaged(path, error, fix) from None
    if not isinstance(array, np.ndarray):
        raise Damaged(path, "it holds several arrays", fix)
    if (kinds and array.dtype.kind not in kinds) or (axes is not None and array.ndim != axes):
        raise Damaged(path, f"an array of {array.dtype} with {array.ndim} axes does not belong there", fix)
    return array


def read_tensors(path: Path | str, fix: str) -> dict[str, Any]:
    """The tensors of a safetensors file. Raises Damaged, with the fix, for a file that is missing or is none."""
    from safetensors.torch import load_file

    try:
        return dict(load_file(str(path)))
    except FileNotFoundError:
        raise Damaged(path, "it is missing", fix) from None
    except Exception as error:  # safetensors raises its own error type
        raise Damaged(path, error, fix) from None


def sums(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """SHA-256 of files in a folder, by name; a folder's are those of all files in it."""
    files = [file for name in names for file in _files(folder / name)]
    return {file.relative_to(folder).as_posix(): file_sum(file) for file in files}


def check_sums(folder: Path, kept: Mapping[str, str], fix: str) -> None:
    """Raise Damaged for the first file that is missing or has changed since its sum was kept."""
    for name, expected in kept.items():
        file = folder / name
        if not file.is_file():
            raise Damaged(file, "it is missing", fix)
        if file_sum(file) != expected:
            raise Damaged(file, "its content is not what was written: the checksum differs", fix)


def file_sum(file: Path) -> str:
    with open(file, "rb") as stream:
        return (
            hashlib.file_digest(stream, "sha256").hexdigest()
            if hasattr(hashlib, "file_digest")
            else _digest(stream.read)
        )


def _digest(read: Callable[[int], bytes]) -> str:
    """For Python 3.10."""
    digest = hashlib.sha256()
    while piece := read(1 << 20):
        digest.update(piece)
    return digest.hexdigest()


def _files(place: Path) -> list[Path]:
    return sorted(file for file in place.rglob("*") if file.is_file()) if place.is_dir() else [place]


def _sum(content: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in content.items() if name != SUM}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@cache
def _adapter(schema: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(schema)
