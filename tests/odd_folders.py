"""Odd folders of pictures and texts that people bring, each with what a right account of it is.

A case is a function that fills a folder; the name of what is to be opened, and how many files are put into it that somebody
could expect an answer for, come back. `odd` of a case: words that must be said of it.
"""

from __future__ import annotations

import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

KNOWN = ("day", "night")
EACH = 6


@dataclass(frozen=True)
class Case:
    """files: how many there are.  judged: how many carry a label the model knows.  said: what must be said somewhere."""

    make: Callable[[Path], Path]
    files: int = 2 * EACH
    judged: int = 2 * EACH
    said: tuple[str, ...] = ()


def pixels(row: int, label: str, side: int = 8) -> np.ndarray:
    draw = np.random.default_rng([row, len(label)])
    return draw.integers(0, 100, (side, side, 3), dtype=np.uint8) + np.uint8(140 * (label == KNOWN[0]))


def picture(path: Path, row: int, label: str, mode: str = "RGB", side: int = 8, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(row, label, side)).convert(mode).save(path, **options)
    return path


def classes(root: Path, name="{label}/{row}.png", labels=KNOWN, start: int = 0, **options) -> Path:
    for label in labels:
        for row in range(start, start + EACH):
            picture(root / name.format(label=label, row=row), row, label, **options)
    return root


def also(change: Callable[[Path], object], make: Callable[[Path], Path] = classes) -> Callable[[Path], Path]:
    """What `make` makes, and then something."""

    def made(root: Path) -> Path:
        found = make(root)
        change(root)
        return found

    return made


def written(name: str, content: bytes) -> Callable[[Path], object]:
    def write(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)

    return write


def packed(kind: str, make: Callable[[Path], Path] = classes) -> Callable[[Path], Path]:
    def made(root: Path) -> Path:
        make(root / "content")
        files = sorted(path for path in (root / "content").rglob("*") if path.is_file())
        place = root / f"packed.{kind}"
        if kind == "zip":
            with zipfile.ZipFile(place, "w") as archive:
                for file in files:
                    archive.write(file, file.relative_to(root / "content"))
        else:
            with tarfile.open(place, f"w:{kind.partition('.')[2]}") as archive:
                for file in files:
                    archive.add(file, file.relative_to(root / "content"))
        return place

    return made


def listed(
    name="labels.csv",
    head="filename,label",
    line="{file}.png,{label}",
    call=lambda label: label,
    skip=0,
    more=(),
    end="\n",
) -> Callable[[Path], Path]:
    """Pictures in one folder, and a table that gives their labels."""

    def made(root: Path) -> Path:
        lines = [head] if head else []
        for number, label in enumerate(KNOWN):
            for row in range(EACH):
                file = f"{number}{row:03}"
                picture(root / "images" / f"{file}.png", row, label)
                if number * EACH + row >= skip:
                    ones = ",".join(str(int(label == other)) for other in KNOWN)
                    lines.append(line.format(file=file, label=call(label), ones=ones))
        (root / name).write_text(end.join([*lines, *more]) + end, newline="")
        return root

    return made


def linked(root: Path) -> None:
    picture(root.parent / f"{root.name}-elsewhere" / "1.png", 50, "day")
    (root / "noon").symlink_to(root.parent / f"{root.name}-elsewhere")


def sixteen(root: Path) -> None:
    (root / "day").mkdir(exist_ok=True)
    Image.fromarray(pixels(60, "day")[..., 0].astype(np.uint16) * 256).save(root / "day" / "deep.png")


def animation(root: Path) -> None:
    frames = [Image.fromarray(pixels(row, "day")) for row in range(70, 73)]
    frames[0].save(root / "day" / "moving.gif", save_all=True, append_images=frames[1:])


def saved(form: str) -> Callable[[Path], Path]:
    """Arrays, not files."""

    def made(root: Path) -> Path:
        root.mkdir(parents=True, exist_ok=True)
        x = np.stack([pixels(row, label) for label in KNOWN for row in range(EACH)])
        y = np.repeat(KNOWN, EACH)
        if form == "npy":
            np.save(root / "x.npy", x)
            return root / "x.npy"
        np.savez(root / "x.npz", X=x, y=y)
        return root / "x.npz"

    return made


_TRUNCATED = b"\x89PNG\r\n\x1a\n" + b"\0" * 20
_BOTH = 2 * EACH
IMAGES = {
    "plain": Case(classes),
    "one class": Case(lambda root: classes(root, labels=KNOWN[:1]), EACH, EACH),
    "damaged": Case(also(written("day/bad.png", _TRUNCATED)), _BOTH + 1, said=("day/bad.png", "1 damaged file")),
    "empty file": Case(also(written("day/bad.png", b"")), _BOTH + 1, said=("day/bad.png (empty file)",)),
    "text as a picture": Case(also(written("night/a.jpg", b"hello")), _BOTH + 1, said=("night/a.jpg (not an image)",)),
    "many damaged": Case(
        also(lambda root: [written(f"day/bad{row}.png", b"x")(root) for row in range(9)]), _BOTH + 9, said=("9 damaged files",)
    ),
    "hidden file": Case(also(written("day/.bad.png", b"x")), said=("1 hidden file",)),
    "resource forks": Case(also(written("__MACOSX/day/._1.png", b"x"))),
    "thumbs": Case(also(written("day/Thumbs.db", b"x")), said=("1 file that is not an image (.db)",)),
    "notes": Case(also(written("README.md", b"# mine")), said=("1 file that is not an image (.md)",)),
    "telephone": Case(also(written("day/1.heic", b"x")), said=(".heic",)),
    "empty class": Case(also(lambda root: (root / "dusk").mkdir()), said=("1 folder without images: 'dusk'",)),
    "linked class": Case(also(linked), said=("link may lead anywhere: 'noon'",)),
    "linked file": Case(also(lambda root: (root / "day" / "l.png").symlink_to(root / "day" / "0.png")), _BOTH + 1, _BOTH + 1),
    "upper case endings": Case(lambda root: classes(root, "{label}/{row}.PNG")),
    "jpeg": Case(lambda root: classes(root, "{label}/{row}.jpeg")),
    "bmp": Case(lambda root: classes(root, "{label}/{row}.bmp")),
    "webp": Case(lambda root: classes(root, "{label}/{row}.webp")),
    "tiff": Case(lambda root: classes(root, "{label}/{row}.tiff")),
    "odd names": Case(lambda root: classes(root, "{label}/ein bild ünd {row} #1.png")),
    "deep": Case(lambda root: classes(root, "{label}/2024/07/{row}.png")),
    "around": Case(lambda root: classes(root, "photos/all/{label}/{row}.png")),
    "capitals": Case(lambda root: classes(root, labels=("Day", "night")), judged=EACH, said=("does not know: 'Day' (6)",)),
    "another class": Case(
        lambda root: classes(root, labels=(*KNOWN, "dusk")), 3 * EACH, said=("does not know: 'dusk' (6)",)
    ),
    "strays": Case(also(lambda root: picture(root / "stray.png", 40, "day")), _BOTH + 1, said=("beside the class folders",)),
    "unlabelled folder": Case(
        also(lambda root: picture(root / "unlabelled" / "1.png", 40, "day")), _BOTH + 1, said=("1 row has no label",)
    ),
    "parts": Case(
        lambda root: classes(classes(root, "train/{label}/{row}.png"), "test/{label}/{row}.png", start=20), 2 * _BOTH, 2 * _BOTH
    ),
    "parts inside": Case(
        lambda root: classes(classes(root, "{label}/train/{row}.png"), "{label}/test/{row}.png", start=20), 2 * _BOTH, 2 * _BOTH
    ),
    "test without labels": Case(
        also(lambda root: picture(root / "test" / "1.png", 40, "day"), lambda root: classes(root, "train/{label}/{row}.png")),
        _BOTH + 1, said=("the test folder has no labels",),
    ),
    "one folder": Case(lambda root: classes(root, "images/train/{label}{row}.png"), judged=0, said=("'train' is no class",)),
    "bare": Case(lambda root: classes(root, "{label}{row}.png"), judged=0),
    "in two classes": Case(
        also(lambda root: shutil.copy(root / "day" / "0.png", root / "night" / "copy.png")), _BOTH + 1, _BOTH + 1,
        said=("given more than once, with different labels: day/0.png (day), night/copy.png (night)",),
    ),
    "grey": Case(lambda root: classes(root, mode="L")),
    "transparent": Case(lambda root: classes(root, mode="RGBA")),
    "palette": Case(lambda root: classes(root, mode="P")),
    "cmyk": Case(lambda root: classes(root, "{label}/{row}.jpg", mode="CMYK")),
    "sixteen bits": Case(also(sixteen), _BOTH + 1, _BOTH + 1),
    "animated": Case(also(animation), _BOTH + 1, _BOTH + 1),
    "sizes": Case(also(lambda root: picture(root / "day" / "large.png", 40, "day", side=30)), _BOTH + 1, _BOTH + 1),
    "zip": Case(packed("zip")),
    "tar": Case(packed("tar")),
    "tar.gz": Case(packed("tar.gz")),
    "tar.xz": Case(packed("tar.xz")),
    "damaged in a zip": Case(
        packed("zip", also(written("day/bad.png", _TRUNCATED))), _BOTH + 1, said=("day/bad.png",)
    ),
    "hidden in a zip": Case(packed("zip", also(written("day/.bad.png", b"x"))), said=("1 hidden file",)),
    "table": Case(listed()),
    "table without endings": Case(listed(head="id,breed", line="{file},{label}")),
    "table with paths": Case(listed(line="images/{file}.png,{label}")),
    "table from windows": Case(listed(line="images\\{file}.png,{label}", end="\r\n")),
    "table without a header": Case(listed(head="")),
    "table with semicolons": Case(listed(head="filename;label", line="{file}.png;{label}")),
    "table with tabs": Case(listed("labels.tsv", head="filename\tlabel", line="{file}.png\t{label}")),
    "table of lines": Case(
        listed("labels.jsonl", head="", line='{{"file": "{file}.png", "label": "{label}"}}')
    ),
    "table with blanks": Case(listed(line=" {file}.png , {label} ")),
    "table with more columns": Case(listed(head="filename,width,label,who", line="{file}.png,3.5,{label},me"), said=("width, who",)),
    "a column a class": Case(listed(head=f"filename,{','.join(KNOWN)}", line="{file}.png,{ones}")),
    "table that misses some": Case(listed(skip=3), judged=_BOTH - 3, said=("3 images that no table gives a label",)),
    "table with more": Case(listed(more=("gone.png,day",)), said=("gone.png) that is not here",)),
    "table with two labels": Case(listed(more=("0000.png,night",)), said=("1 row with another label of an image",)),
    "table in capitals": Case(listed(call=lambda label: label.replace("d", "D")), judged=EACH, said=("'Day' (6)",)),
    "table with gaps": Case(listed(call=lambda label: "" if label == "day" else label), judged=EACH, said=("6 rows have no label",)),
    "table in a zip": Case(packed("zip", listed())),
    "numpy": Case(saved("npy"), judged=0),
    "numpy with labels": Case(saved("npz")),
}  # fmt: skip


def texts(root: Path, name="{label}/{row}.txt", labels=KNOWN, encoding="utf-8") -> Path:
    for label in labels:
        for row in range(EACH):
            path = root / name.format(label=label, row=row)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"it was a {label.lower()} of größe number {row} and so on".encode(encoding))
    return root


def lines(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    rows = [{"text": f"a {label} number {row}", "label": label} for label in KNOWN for row in range(EACH)]
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root / "rows.jsonl"


TEXTS = {
    "plain": Case(texts),
    "another class": Case(lambda root: texts(root, labels=("Day", "night")), judged=EACH, said=("'Day' (6)",)),
    "empty file": Case(also(written("day/none.txt", b""), texts), _BOTH + 1, said=("day/none.txt",)),
    "no text": Case(also(written("night/a.txt", bytes(range(256)) * 9), texts), _BOTH + 1, said=("night/a.txt",)),
    "old encoding": Case(lambda root: texts(root, encoding="cp1252"), said=("read as Windows-1252",)),
    "around": Case(lambda root: texts(root, "corpus/{label}/{row}.txt")),
    "one folder": Case(lambda root: texts(root, "texts/{label}{row}.txt"), judged=0, said=("'texts' is no class",)),
    "zip": Case(packed("zip", texts)),
    "tar.gz": Case(packed("tar.gz", texts)),
    "lines": Case(lines),
}
