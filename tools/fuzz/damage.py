"""What goes wrong with files: each damage takes a file's bytes and a random source, and gives other bytes and what it did, in words."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ESCAPES = "\x1b[31mred\x1b[0m \x1b]0;title\x07 \u202eback \x9b2J"
DEEP = "[" * 100_000
#: what stands where something else should
ODD: tuple[Any, ...] = (
    None, [], {}, 3, -1, 0, 1e308, 10**23, "x", "", True, [[]], [None], {"": None}, "../../elsewhere", "/etc/passwd", ESCAPES,
    "a" * 5000, "\ud800", 2**63, -(2**63) - 1, 0.5, "nan", [3] * 1000,
)  # fmt: skip
#: the same as it stands in JSON, where Python could not write it
RAW = (DEEP, "9" * 5000, "NaN", "-Infinity", "1e999", '"\\ud800"', "tru", '{"a":' * 50_000, "")
CELLS = (
    "", "nan", "1e999", "9" * 5000, ESCAPES, '"', '"open', "\x00", "a" * 200_000, "-", "=1+1", "\ufeff", "1,5", "inf", "-0",
    "2024-13-45", "\r", "é" * 1000, "😀", "0x10", "1_000", "1" * 400,
)  # fmt: skip

Damage = Callable[[bytes, random.Random], tuple[bytes, str]]


def empty(content: bytes, draw: random.Random) -> tuple[bytes, str]:
    return b"", "emptied"


def cut(content: bytes, draw: random.Random) -> tuple[bytes, str]:
    at = draw.randrange(len(content) + 1)
    return content[:at], f"cut at {at} of {len(content)}"


def flipped(content: bytes, draw: random.Random) -> tuple[bytes, str]:
    held = bytearray(content or b"\0")
    places = [draw.randrange(len(held)) for _ in range(draw.choice((1, 1, 1, 20)))]
    for place in places:
        held[place] ^= 1 << draw.randrange(8)
    return bytes(held), f"bits flipped at {places[:3]}"


def early_flipped(content: bytes, draw: random.Random) -> tuple[bytes, str]:
    """In what most formats keep their header."""
    changed, words = flipped(content[:128], draw)
    return changed + content[128:], words


def overwritten(content: bytes, draw: random.Random) -> tuple[bytes, str]:
    at, length = draw.randrange(len(content) + 1), draw.choice((1, 4, 64, 4096))
    what = draw.choice((bytes(length), b"\xff" * length, draw.randbytes(length)))
    return content[:at] + what + content[at + length :], f"{length} bytes from {at} overwritten"


def appended(content: bytes, draw: random.Random) -> tuple[bytes, str]:
    more = draw.choice((b"\xff\xfe", b"3\n", b"[]\n", b"null", b"\x00" * 100, DEEP.encode(), content, ESCAPES.encode()))
    return content + more, f"{more[:10]!r} appended"


def other(content: bytes, draw: random.Random) -> tuple[bytes, str]:
    """Another file altogether."""
    held = (b"[]", b"{}", b"3", b"null", b'"x"', b"\xff\xfe\x00", b"PK\x03\x04", b"\x89PNG\r\n\x1a\n", b"\x93NUMPY", b"\n" * 50,
            DEEP.encode(), ESCAPES.encode(), b"\x00" * 5000, b"<html></html>", b"\x1f\x8b\x08", b"SQLite format 3\x00")  # fmt: skip
    new = draw.choice(held)
    return new, f"became {new[:12]!r}"


def json_changed(content: bytes, draw: random.Random) -> tuple[bytes, str]:
    """A node of JSON is dropped, or becomes something else."""
    try:
        value = json.loads(content)
    except ValueError:
        return flipped(content, draw)
    changed, words = _changed(value, draw)
    return _json(changed), words


def line_changed(content: bytes, draw: random.Random) -> tuple[bytes, str]:
    """The same of one line of JSON Lines; or a line more."""
    lines = content.splitlines()
    at = draw.randrange(len(lines)) if lines else 0
    if not lines or draw.random() < 0.3:
        more = draw.choice((b"3", b"[]", b"null", b'{"step": null}', b"{}", b"\xff", DEEP.encode(), b"9" * 5000))
        return b"\n".join([*lines[:at], more, *lines[at:], b""]), f"line {at + 1} became {more[:15]!r}"
    lines[at], words = json_changed(lines[at], draw)
    return b"\n".join([*lines, b""]), f"in line {at + 1}: {words}"


def cell_changed(content: bytes, draw: random.Random) -> tuple[bytes, str]:
    """A cell of delimited text, a row more or less of its cells."""
    lines = content.decode("utf-8", "replace").split("\n")
    at = draw.randrange(len(lines)) if draw.random() < 0.7 else 0
    cells = re.split(r"[,\t;]", lines[at])
    mark = "\t" if "\t" in lines[at] else ","
    what = draw.choice(CELLS)
    place = draw.randrange(len(cells))
    how = draw.choice(("cell", "cell", "cell", "more", "less", "column"))
    if how == "column":
        lines = [mark.join([what, *line.split(mark)[1:]]) for line in lines]
    else:
        cells = {"cell": [*cells[:place], what, *cells[place + 1 :]], "more": [*cells, what], "less": cells[:place]}[
            how
        ]
        lines[at] = mark.join(cells)
    return "\n".join(lines).encode("utf-8", "surrogatepass"), f"{how} {place} of line {at + 1} became {what[:12]!r}"


def huge_cell(content: bytes, draw: random.Random) -> tuple[bytes, str]:
    at = content.find(b"\n") + 1
    return content[:at] + b"a" * 20_000_000 + content[at:], "a cell of 20 MB"


def npy_header(content: bytes, draw: random.Random) -> tuple[bytes, str]:
    """What the header of an array says of it."""
    shapes = ("(99999999999,)", "(-1,)", "()", "(1,2,3,4,5)", "(0,)", "'x'", "((1,),)", "(1e3,)", "(4,)", "(" * 300)
    kinds = ("'|O'", "'<i8'", "'<f4'", "'|S9'", "'<M8[s]'", "'|V9'", "[('a','<f4')]", "3", "'x'", "'<c16'", "'<U3'")
    header = f"{{'descr': {draw.choice(kinds)}, 'fortran_order': False, 'shape': {draw.choice(shapes)}, }}"
    size = int.from_bytes(content[8:10], "little")
    new = header.encode().ljust(max(size - 1, len(header))) + b"\n"
    return content[:8] + len(new).to_bytes(2, "little") + new + content[10 + size :], f"header {header[:70]}"


def tensors_header(content: bytes, draw: random.Random) -> tuple[bytes, str]:
    """What the header of safetensors says."""
    size = int.from_bytes(content[:8], "little")
    if draw.random() < 0.2:
        new = draw.choice((0, 1, size - 1, size + 1, 2**40, 2**63, 2**64 - 1))
        return new.to_bytes(8, "little") + content[8:], f"a header of {new} bytes"
    header, words = json_changed(content[8 : 8 + size], draw)
    return len(header).to_bytes(8, "little") + header + content[8 + size :], f"header: {words}"


def values_changed(content: bytes, draw: random.Random) -> tuple[bytes, str]:
    """The numbers behind a header, which stays whole."""
    at = max(len(content) - draw.choice((4, 8, 16, len(content) // 2)), len(content) // 4)
    fill = draw.choice((b"\xff", b"\x7f", b"\x00"))
    return content[:at] + fill * (len(content) - at), f"values from {at} became {fill!r}"


_ANY: tuple[Damage, ...] = (empty, cut, flipped, early_flipped, overwritten, appended, other)
_BY_SUFFIX: dict[str, tuple[Damage, ...]] = {
    ".json": (json_changed,) * 14,
    ".jsonl": (line_changed,) * 14,
    ".csv": (*(cell_changed,) * 13, huge_cell),
    ".tsv": (*(cell_changed,) * 13, huge_cell),
    ".npy": (*(npy_header,) * 5, *(values_changed,) * 5),
    ".safetensors": (*(tensors_header,) * 5, *(values_changed,) * 3),
    ".txt": (cell_changed,) * 4,
    ".bib": (cell_changed,) * 6,
}


def damages(file: Path) -> tuple[Damage, ...]:
    """What may happen to a file of this name, what is dearer for readers more often."""
    return (*_ANY, *_BY_SUFFIX.get(file.suffix, ()))


def _json(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=True)
    for place, raw in enumerate(RAW):
        text = text.replace(f'"raw-{place}-raw"', raw)
    return text.encode()


def _changed(value: Any, draw: random.Random) -> tuple[Any, str]:
    places = list(_places(value, ()))
    new = draw.choice(ODD) if draw.random() < 0.75 else f"raw-{draw.randrange(len(RAW))}-raw"
    words = f"{new!r}"[:30] if not str(new).startswith("raw-") else f"{RAW[int(new.split('-')[1])][:15]!r}"
    if not places:
        return new, f"all became {words}"
    where = draw.choice(places[:40] if draw.random() < 0.6 else places)
    held = value
    for step in where[:-1]:
        held = held[step]
    name = ".".join(map(str, where))[:60]
    if draw.random() < 0.35:
        del held[where[-1]]
        return value, f"{name} dropped"
    held[where[-1]] = new
    return value, f"{name} became {words}"


def _places(value: Any, at: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """The paths of all nodes, those at the top first."""
    level = [(value, at)]
    while level:
        below = []
        for held, path in level:
            steps = held.items() if isinstance(held, dict) else enumerate(held) if isinstance(held, list) else ()
            for step, inner in steps:
                yield (*path, step)
                below.append((inner, (*path, step)))
        level = below
