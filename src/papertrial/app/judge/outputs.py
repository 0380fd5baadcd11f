"""What is to be judged: outputs of systems from JSONL and CSV files, as units for a template, without telling whose.

A row is one output: `item` (or `id`), `system`, and `output`, `text` or `image`, a path beside the file. All other
columns are shown with the item, but only those that say the same for all systems: a score, a name or a time that
differs would tell whose output it is. Pictures are decoded and written anew, so that no metadata comes with them.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from papertrial.core.errors import DataError, did_you_mean
from papertrial.core.files import parse_json
from papertrial.core.judgement import Template
from papertrial.data.images.decode import pillow_limits, reason

LARGEST_SIDE = 2048  # pixels; larger pictures are scaled down, since no rater's screen shows more
LONGEST_TEXT = 200_000  # characters
_ITEM, _SYSTEM, _OUTPUT = ("item", "id"), ("system", "model"), ("output", "text")
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")


@dataclass(frozen=True)
class Made:
    """An output: a text, or a picture as the bytes of a PNG."""

    text: str | None = None
    picture: bytes | None = None


@dataclass(eq=False)
class Entry:
    """An item with what is shown beside its outputs, and the outputs by system."""

    item: str
    context: dict[str, str]
    picture: bytes | None
    outputs: dict[str, Made]


@dataclass(frozen=True)
class Asked:
    """What is judged in one go: one output of an entry, or two. right: values that pass a check, by question."""

    entry: Entry
    systems: tuple[str, ...]
    right: dict[str, list[float]] | None = None


@dataclass
class Material:
    """All that a study asks about. notes: what a person who starts the study should know of the files."""

    units: list[Asked]
    checks: list[Asked] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read(
    files: Sequence[str],
    template: Template,
    *,
    checks: Path | None = None,
    against: str | None = None,
    images: Path | None = None,
) -> Material:
    """The units of a study from files, each `FILE` or `SYSTEM=FILE`.

    against: in pairs, only those with this system.  images: the folder that paths of pictures begin at, in place of the
    folder of each file.  Raises DataError that names the file and the line.
    """
    notes: list[str] = []
    entries = list(_entries(files, images, notes).values())
    systems = list(dict.fromkeys(system for entry in entries for system in entry.outputs))
    if template.kind == "pair":
        units = _pairs(entries, systems, against)
    elif against is not None:
        raise DataError("only pairs are judged against a system", "leave out --against, or use --template pairwise")
    else:
        units = [Asked(entry, (system,)) for entry in entries for system in entry.outputs]
    missing = sum(len(systems) - len(entry.outputs) for entry in entries)
    if missing:
        notes.append(f"{missing} outputs are missing: not every system has every item")
    made = _checks(checks, template, images) if checks else []
    return Material(units, made, notes)


def _pairs(entries: Sequence[Entry], systems: Sequence[str], against: str | None) -> list[Asked]:
    if len(systems) < 2:
        raise DataError("pairs need the outputs of two systems", "add a file, such as other=other.jsonl")
    if against is not None and against not in systems:
        raise DataError(f"no outputs are of {against!r}", did_you_mean(against, systems))
    pairs = [pair for pair in itertools.combinations(systems, 2) if against is None or against in pair]
    units = [Asked(entry, pair) for entry in entries for pair in pairs if entry.outputs.keys() >= set(pair)]
    if not units:
        raise DataError("no item has the outputs of two systems", "check that the files name their items alike")
    return units


# ----------------------------------------------------------------------------------------------------------------- files


def _entries(files: Sequence[str], images: Path | None, notes: list[str]) -> dict[str, Entry]:
    """Items by name, with the fields that all systems agree on."""
    entries: dict[str, Entry] = {}
    beside: dict[str, list[dict[str, str]]] = {}  # item -> the other fields of each of its rows
    for given in files:
        named, path = _named_file(given)
        for number, (where, row) in enumerate(rows(path), 1):
            among = textwrap.shorten(f"among {', '.join(row) or 'nothing'}", 100, placeholder=" ...")
            system = named or _pop(row, _SYSTEM)
            item = _pop(row, _ITEM) or (str(number) if named else "")
            if not system:
                raise DataError(f"{where}: no system {among}", f"add a column system, or name it: SYSTEM={path}")
            if not item:
                raise DataError(
                    f"{where}: no item {among}",
                    "add a column item, so that systems are compared on the same one",
                )
            made = _made(row, where, images or path.parent)
            own = _own_picture(row, where, images or path.parent)
            entry = entries.setdefault(item, Entry(item, {}, None, {}))
            if system in entry.outputs:
                raise DataError(f"{where}: {system!r} has an output for item {item!r} already", "leave one of them out")
            if own is not None and entry.picture not in (None, own):
                raise DataError(f"{where}: another image than before for item {item!r}", "an item has one image")
            entry.picture = entry.picture or own
            entry.outputs[system] = made
            beside.setdefault(item, []).append(row)
    if not entries:
        raise DataError("the files hold no outputs", "write one output per row")
    systems = {system for entry in entries.values() for system in entry.outputs}
    telling: dict[str, None] = {}
    for item, fields in beside.items():
        said: dict[str, set[str]] = {}
        for name, text in itertools.chain.from_iterable(row.items() for row in fields):
            said.setdefault(name, set()).add(text)
        telling |= {name: None for name, texts in said.items() if len(texts) > 1 or texts & systems}
        entries[item].context = {name: texts.pop() for name, texts in said.items() if len(texts) == 1}
    for entry in entries.values():
        entry.context = {name: text for name, text in entry.context.items() if name not in telling and text.strip()}
    shown = list(dict.fromkeys(name for entry in entries.values() for name in entry.context))
    notes.append(f"shown with each item: {', '.join(shown)}" if shown else "nothing is shown beside the outputs")
    if telling:
        notes.append(f"not shown, since it could tell the systems apart: {', '.join(telling)}")
    return entries


def _named_file(given: str) -> tuple[str, Path]:
    """("", file) or (system, file) of SYSTEM=FILE."""
    name, equals, file = given.partition("=")
    if not equals or Path(given).exists():
        return "", Path(given)
    if not clean(name).strip():
        raise DataError(f"{given} names no system", "write SYSTEM=FILE")
    return clean(name).strip(), Path(file)


def _pop(row: dict[str, str], names: Sequence[str]) -> str:
    """The value of the first of these columns that is there, taken out of the row; "" where none is."""
    return next((row.pop(name).strip() for name in names if name in row), "")


def _made(row: dict[str, str], where: str, folder: Path) -> Made:
    """The output of a row, taken out of it."""
    for name in _OUTPUT:
        if name in row:
            return Made(text=row.pop(name))
    made = _own_picture(row, where, folder)
    if made is None:
        raise DataError(f"{where}: no output", "add a column output, text or image")
    return Made(picture=made)


def _own_picture(row: dict[str, str], where: str, folder: Path, column: str = "image") -> bytes | None:
    """The image that a row names, taken out of it."""
    name = row.pop(column, "")
    return picture(name, where, folder) if name else None


def rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """(`file, line n`, columns as text) of a JSONL or CSV file. Raises DataError that names the line."""
    if path.suffix.lower() not in (".jsonl", ".csv"):
        raise DataError(f"{path} is not a file of outputs", "give a .jsonl or a .csv file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"there is no {path}", "check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error})", "give a file in UTF-8") from None
    parse = _csv_rows if path.suffix.lower() == ".csv" else _json_rows
    for line, row in parse(text, path):
        where = f"{path}, line {line}"
        columns = {clean(str(name)).strip(): _words(value) for name, value in row.items() if _is_there(value)}
        for name, words in columns.items():
            if len(words) > LONGEST_TEXT:
                raise DataError(f"{where}: {name} has {len(words)} characters", "nobody reads that much; cut it")
        yield where, columns


def _json_rows(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, words in enumerate(text.split("\n"), 1):
        if not words.strip():
            continue
        try:
            row = parse_json(words)
        except ValueError as error:
            raise DataError(f"{path}, line {line}: not JSON ({error})", "write one object per line") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {line}: not an object", 'write {"item": ..., "system": ..., "output": ...}')
        yield line, row


def _csv_rows(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(1 << 30)
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                raise DataError(
                    f"{path}, line {reader.line_num}: not as many cells as the head has", "put quotes around commas"
                )
            yield reader.line_num, row
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.reader.line_num}: {error}", "mend the quotes") from None


def _is_there(value: Any) -> bool:
    """Neither null nor NaN, which other libraries write for what is missing."""
    return value is not None and value == value


def _words(value: Any) -> str:
    """A cell as text; a list of texts (references) stands one below the other."""
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return clean("\n".join(value))
    return clean(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def clean(text: str) -> str:
    """Text that any database takes: no NUL, no half of a surrogate pair, line breaks of one kind."""
    whole = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    return whole.replace("\0", "\ufffd").replace("\r\n", "\n").replace("\r", "\n")


def picture(name: str, where: str, folder: Path) -> bytes:
    """An image file below a folder as the bytes of a PNG: upright, at most 2048 pixels a side, without metadata.

    Raises DataError for a path that leads out of the folder, and for a file that is no image.
    """
    inside = folder.resolve()
    try:
        path = (inside / name).resolve()
        if not path.is_relative_to(inside):
            raise DataError(
                f"{where}: {name} leads out of {folder}", "move the image there, or name its folder with --images"
            )
        if not path.is_file():
            raise DataError(f"{where}: there is no {name} in {folder}", "check the path")
        with pillow_limits(), Image.open(path, formats=_FORMATS) as image:
            image = ImageOps.exif_transpose(image)
            image.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
            mode = "RGBA" if image.has_transparency_data else "L" if image.mode in ("1", "L") else "RGB"
            # pixels alone: whatever else the file says stays behind
            bare = Image.frombytes(mode, image.size, image.convert(mode).tobytes())
    except DataError:
        raise
    except Exception as error:  # Pillow's readers raise nearly every type of exception on damaged files
        raise DataError(
            f"{where}: {name} cannot be shown ({reason(error)})", "give a PNG, JPEG or WebP image"
        ) from None
    kept = io.BytesIO()
    bare.save(kept, "PNG")
    return kept.getvalue()


# ---------------------------------------------------------------------------------------------------------------- checks


def _checks(path: Path, template: Template, images: Path | None) -> list[Asked]:
    """Units whose answers are known: columns as for outputs, or `first` and `second` for a pair, and `answer`."""
    made = []
    folder = images or path.parent
    for number, (where, row) in enumerate(rows(path), 1):
        right = _right(row.pop("answer", ""), template, where)
        _pop(row, _ITEM), _pop(row, _SYSTEM)
        pair = {side: _side(row, side, where, folder) for side in ("first", "second") if template.kind == "pair"}
        outputs = pair or {"output": _made(row, where, folder)}
        own = _own_picture(row, where, folder)
        context = {name: text for name, text in row.items() if text.strip()}
        made.append(Asked(Entry(f"check {number}", context, own, outputs), tuple(outputs), right))
    if not made:
        raise DataError(f"{path} holds no checks", 'write rows such as {"output": "xx", "answer": "strongly disagree"}')
    return made


def _side(row: dict[str, str], side: str, where: str, folder: Path) -> Made:
    if side in row:
        return Made(text=row.pop(side))
    made = _own_picture(row, where, folder, f"{side}_image")
    if made is None:
        raise DataError(f"{where}: no {side}", f"a check of a pair has {side} or {side}_image")
    return Made(picture=made)


def _right(answer: str, template: Template, where: str) -> dict[str, list[float]]:
    """Values that pass, by question: `agree`, `agree | strongly agree`, or {"question": "agree"} as JSON."""
    by_question = {question.name: question.scale.by_word for question in template.questions}
    try:
        named = json.loads(answer) if answer.lstrip().startswith("{") else dict.fromkeys(by_question, answer)
    except ValueError:
        raise DataError(f"{where}: the answer {answer!r} is not JSON", 'write {"question": "word"}') from None
    right = {}
    for name, told in named.items():
        if name not in by_question:
            raise DataError(f"{where}: no question {name!r}", did_you_mean(name, by_question))
        words = (
            told if isinstance(told, list) else [word.strip() for word in _words(told).replace("\n", "|").split("|")]
        )
        for word in words:
            if word not in by_question[name]:
                known = did_you_mean(word, by_question[name]) if word else f"one of {', '.join(by_question[name])}"
                raise DataError(f"{where}: {word!r} is not an answer to {name!r}", known)
        right[name] = [by_question[name][word] for word in words]
    return right
