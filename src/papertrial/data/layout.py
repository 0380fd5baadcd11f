"""What folders of images or texts mean: which folder is a class, which is a part of the split."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: the words for the parts of a split, as folders, keys of arrays and splits of the hub write them
PARTS = {
    **dict.fromkeys(("train", "training"), 0),
    **dict.fromkeys(("val", "valid", "validation", "dev"), 1),
    **dict.fromkeys(("test", "testing"), 2),
}
TRAIN, VALID, TEST = 0, 1, 2
#: endings of image files
EXTENSIONS = frozenset(
    f".{ending}"
    for ending in (
        "jpg",
        "jpeg",
        "jfif",
        "png",
        "bmp",
        "gif",
        "webp",
        "tif",
        "tiff",
        "ppm",
        "pgm",
        "pbm",
        "pnm",
        "tga",
        "avif",
    )
)
_UNLABELLED = ("unlabelled", "unlabeled", "unsup")
#: folders that are called after what is in them, and are no class where there is no other beside them
_AROUND = frozenset(
    ("images", "image", "imgs", "img", "photos", "photo", "pictures", "pics", "data", "dataset", "all", "files", "jpg",
     "jpeg", "jpegs", "png", "texts", "text", "txt", "documents", "docs")
)  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """labels: int64 (N,), -1 = unlabelled.  part: int8 (N,), 0 train or free, 1 valid, 2 test."""

    labels: np.ndarray
    class_names: tuple[str, ...]
    part: np.ndarray
    notes: tuple[str, ...]


def layout(names: Sequence[str], what: str = "images") -> Layout:
    """Read labels and split off the paths of N files ('/' between folders). what: the files, in the words of the notes.

    A folder is a class and its name the label, however deep the files lie below it. Folders called train, test and
    val (or the like, also train2017 as in COCO) are parts when there is train and another one, and nothing else beside them but a folder of
    unlabelled images; or all folders in those of the classes are called so. A single folder around everything else is passed
    over, and one that is called after what it holds (images, train) is no class.
    """
    notes: list[str] = []
    paths = _inside([name.split("/") for name in names])
    inner = {path[1].lower() if len(path) > 2 else "" for path in paths}
    if {0} < {PARTS.get(name, -1) for name in inner} <= {0, 1, 2} and len({path[0] for path in paths}) > 1:
        paths = [[path[1], path[0], *path[2:]] for path in paths]
    part = np.zeros(len(paths), np.int8)
    heads = {_undated(path[0]) if len(path) > 1 else "" for path in paths}
    parts = {PARTS[head] for head in heads if head in PARTS}
    if 0 in parts and len(parts) > 1 and all(head in PARTS or head in _UNLABELLED for head in heads):
        part = np.array([PARTS.get(_undated(path[0]), 0) for path in paths], np.int8)
        paths = [path[1:] if _undated(path[0]) in PARTS else path for path in paths]
        if 2 not in parts:
            part[part == 1] = 2
            notes.append("the validation folder serves as the test part, as there is none")
        paths = _inside(paths)
    classes = [path[0] if len(path) > 1 and path[0].lower() not in _UNLABELLED else None for path in paths]
    class_names = tuple(sorted({name for name in classes if name is not None}))
    around = len(class_names) == 1 and class_names[0].lower() in _AROUND
    if around or (class_names and {_undated(name) for name in class_names} <= {*PARTS}):
        named = ", ".join(map(repr, class_names))
        notes.append(
            f"the folder {named} is no class" if len(class_names) == 1 else f"the folders {named} are no classes"
        )
        classes, class_names = [None] * len(paths), ()
    code = {name: number for number, name in enumerate(class_names)}
    labels = np.array([-1 if name is None else code[name] for name in classes], np.int64)
    stray = sum(name is None and len(path) == 1 for name, path in zip(classes, paths, strict=True))
    if class_names and stray:
        beside = "the class folders" if len(class_names) > 1 else f"the folder {class_names[0]!r}"
        notes.append(f"{stray:,} {what} beside {beside} have no label")
    if (part == 2).any() and class_names and not (labels[part == 2] >= 0).any():
        part[part == 2] = 0
        notes.append(f"the test folder has no labels: its {what} count as unlabelled ones to learn from")
    seen = set(labels[(part == 0) & (labels >= 0)].tolist())
    unseen = [name for number, name in enumerate(class_names) if number not in seen]
    if unseen:
        notes.append(f"classes without training {what}: {', '.join(unseen[:5])}{', ...' if len(unseen) > 5 else ''}")
    return Layout(labels, class_names, part, tuple(notes))


def _inside(paths: list[list[str]]) -> list[list[str]]:
    """The paths without the folders around everything, as long as a folder is left for each file."""
    while paths and len({path[0] for path in paths}) == 1 and all(len(path) > 2 for path in paths):
        paths = [path[1:] for path in paths]
    return paths


def _undated(folder: str) -> str:
    """The name of a folder in lower case, without a year at its end."""
    return re.sub(r"(?<=[a-z])(19|20)\d\d$", "", folder.lower())
