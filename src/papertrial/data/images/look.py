"""The facts page of images: how many, of which classes and sizes, what repeats, and what may spoil training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from papertrial.core.task import Ragged
from papertrial.core.wording import counted
from papertrial.data.base import Look
from papertrial.data.images.decode import GREY_MODES, Headers
from papertrial.data.languages import languages
from papertrial.data.layout import TEST, TRAIN, VALID

if TYPE_CHECKING:
    from papertrial.data.images import Images

_FEW, _IMBALANCE = 10, 10  # labelled images of a class, and ratio of largest to smallest class, that look warns at
_SHOWN, _WIDTH = 3, 90  # captions shown, and characters of each
_MOSTLY = 0.5  # share of the captions in one language from which it is named
_NAMED = 5  # classes named in a note


def look(images: Images) -> Look:
    """The facts page; decodes everything once. Of 70 000 small images it takes seconds."""
    labels, part, found = images.labels, images.part, images._duplicates
    labelled = int((labels >= 0).sum())
    counts = np.bincount(labels[labels >= 0], minlength=len(images.class_names))
    exact, groups = found.surplus(found.exact), found.surplus(found.groups)
    working, rows = images.working_size, images._decoded[1]
    sizes = images._sizes[np.searchsorted(images._readable, rows)]
    by_area = np.argsort(sizes.prod(axis=1), kind="stable")
    numbers: dict[str, Any] = {
        "examples": len(labels),
        "labelled": labelled,
        "unlabelled": len(labels) - labelled,
        "train": int((part == TRAIN).sum()),
        "valid": int((part == VALID).sum()),
        "test": int((part == TEST).sum()),
        "given_split": images.given_split,
        "classes": len(images.class_names),
        "class_counts": dict(zip(images.class_names, counts.tolist(), strict=True)),
        "target_kind": {0: None, 1: None, 2: "binary"}.get(len(images.class_names), "multiclass"),
        "channels": images.channels,
        "height": images.height,
        "width": images.width,
        "uniform": images.uniform,
        "smallest": sizes[by_area[0]].tolist(),
        "largest": sizes[by_area[-1]].tolist(),
        "working_height": working[0],
        "working_width": working[1],
        "dtype": str(images._decoded[0].dtype),
        "modes": dict(Counter(images._headers.mode[row] for row in rows.tolist()).most_common()),
        "skipped": images.skipped,
        "exact_duplicates": exact,
        "near_duplicates": groups - exact,
        "moved_duplicates": images._moved[1],
        "conflicting_labels": _conflicts(found.exact, labels),
        "constant": int(found.constant.sum()),
        "alike": None if images.alike is None else len(images.alike),
        **_caption_numbers(images.captions or ()),
    }
    facts = [
        ("images", _examples_words(images, numbers)),
        ("classes", _class_words(numbers)),
        ("size", _size_words(images, numbers)),
        ("channels", _channel_words(images.channels, numbers)),
        ("duplicates", f"{exact:,} exact, {groups - exact:,} near"),
        *_caption_facts(numbers),
    ]
    if line := conflicts(images):
        images.note(line)
    warnings = [*_alike(images), *_warnings(numbers, images._headers)]
    return Look(images.name, images.kind, facts, [*images.notes, *warnings], numbers)


def _alike(images: Images) -> list[str]:
    """A line on photographs that are nearly the same, though their pixels are not."""
    pairs = images.alike
    if pairs is None or not len(pairs):
        return []
    some = ", ".join(f"{images.names[first]} and {images.names[second]}" for first, second in pairs[:2].tolist())
    given = images.given_split
    sides = int((images.part[pairs[:, 0]] != images.part[pairs[:, 1]]).sum()) if given else 0
    where = f"{sides:,} of them on two sides of the given split" if given else "a split may part them"
    return [
        f"{counted(len(pairs), 'pair')} of photographs look alike to a network from ImageNet (mirrored, cropped, lit anew or of one scene):"
        f" {some}{', ...' if len(pairs) > 2 else ''}; {where}, where --group keeps what belongs together on one side"
    ]


def _examples_words(images: Images, numbers: dict[str, Any]) -> str:
    words = f"{numbers['examples']:,}"
    if not numbers["labelled"]:
        return f"{words}, none with a label"
    if images.given_split:
        parts = (f"{numbers[name]:,} {name}" for name in ("train", "valid", "test") if numbers[name])
        words += f" ({', '.join(parts)}, as given)"
    return words + (f", {numbers['unlabelled']:,} without a label" if numbers["unlabelled"] else "")


def _size_words(images: Images, numbers: dict[str, Any]) -> str:
    typical, used = (images.height, images.width), images.working_size
    words = f"all {_by(typical)}" if images.uniform else f"{_by(numbers['smallest'])} to {_by(numbers['largest'])}"
    if not images.uniform:
        words += f", typically {_by(typical)}"
    return words + ("" if images.uniform and used == typical else f"; used at {_by(used)}") + " (height x width)"


def _by(size: Sequence[int]) -> str:
    return f"{size[0]} x {size[1]}"


def _class_words(numbers: dict[str, Any]) -> str:
    counts = numbers["class_counts"]
    if not counts:
        return "none"
    least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    if counts[least] == counts[most]:
        return f"{len(counts)} of {counted(counts[most], 'image')}"
    return f"{len(counts)}, from {counts[least]:,} ({least}) to {counts[most]:,} ({most}) images"


def _channel_words(channels: int, numbers: dict[str, Any]) -> str:
    name = {1: "grey", 3: "colour"}.get(channels, "")
    return f"{channels}{f' ({name})' if name else ''}, {numbers['dtype']}"


def _caption_numbers(captions: Sequence[str]) -> dict[str, Any]:
    """How many, how many different, how long, in which languages, and a few spread over the data."""
    given = [caption for caption in captions if caption]
    if not given:
        return {"captions": 0}
    characters, words = (np.array(list(map(count, given))) for count in (len, lambda caption: len(caption.split())))
    encoded = Ragged.of_texts(given)
    spread = np.unique(np.linspace(0, len(given) - 1, _SHOWN).astype(np.int64))
    return {
        "captions": len(given),
        "unique_captions": len(set(given)),
        "caption_characters": {"median": int(np.median(characters)), "longest": int(characters.max())},
        "caption_words": {"median": int(np.median(words)), "longest": int(words.max())},
        "caption_length": int(np.quantile(encoded.lengths, 0.95)),
        "caption_languages": languages([encoded]),
        "captions_shown": [given[row] for row in spread.tolist()],
    }


def _caption_facts(numbers: dict[str, Any]) -> list[tuple[str, str]]:
    if not numbers["captions"]:
        return []
    characters, words = numbers["caption_characters"], numbers["caption_words"]
    language, share = next(iter(numbers["caption_languages"].items()))
    guess = f"; {language} (a guess)" if language != "unknown" and share >= _MOSTLY else ""
    return [
        (
            "captions",
            f"{numbers['captions']:,}, {numbers['unique_captions']:,} of them different; median "
            f"{counted(characters['median'], 'character')} ({counted(words['median'], 'word')}), "
            f"longest {characters['longest']:,} ({words['longest']:,}){guess}",
        ),
        *(("such as" if not place else "", _cut(text)) for place, text in enumerate(numbers["captions_shown"])),
    ]


def _cut(text: str) -> str:
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return line if len(line) <= _WIDTH else f"{line[: _WIDTH - 3]}..."


def _conflicts(exact: np.ndarray, labels: np.ndarray) -> int:
    """Groups of equal images that carry more than one label."""
    return len(_conflicting(exact, labels))


def _conflicting(exact: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Which groups these are."""
    pairs = np.unique(np.stack([exact, labels], axis=1)[labels >= 0], axis=0)
    return np.flatnonzero(np.bincount(pairs[:, 0]) > 1) if len(pairs) else np.zeros(0, np.int64)


def conflicts(images: Images) -> str:
    """A line on equal images with different labels, the first of them by name; empty where there are none."""
    groups = _conflicting(images._duplicates.exact, images.labels)
    if not len(groups):
        return ""
    rows = np.flatnonzero((images._duplicates.exact == groups[0]) & (images.labels >= 0))
    named = ", ".join(f"{images.names[row]} ({images.class_names[images.labels[row]]})" for row in rows[:3].tolist())
    return f"{counted(len(groups), 'image')} given more than once, with different labels: {named}"


def _warnings(numbers: dict[str, Any], headers: Headers) -> list[str]:
    """Lines on what may spoil training."""
    lines, modes, counts = [], numbers["modes"], numbers["class_counts"]
    if len(counts) == 1:
        lines.append(f"there is one class only ({next(iter(counts))}): nothing to tell apart")
    for fewest, limit in (("fewer than 2", 2), (f"fewer than {_FEW}", _FEW)):
        few = [name for name, count in counts.items() if count < limit]
        if few:
            some = ", ".join(few[:_NAMED]) + (", ..." if len(few) > _NAMED else "")
            lines.append(f"{counted(len(few), 'class', 'classes')} with {fewest} images: {some}")
            break
    if len(counts) > 1 and max(counts.values()) > _IMBALANCE * max(1, min(counts.values())):
        lines.append("the classes are imbalanced by more than 10 to 1: accuracy alone will look too good")
    if numbers["constant"]:
        lines.append(f"{counted(numbers['constant'], 'image')} of a single colour")
    grey = sum(count for mode, count in modes.items() if mode in GREY_MODES or mode.startswith("I;16"))
    if numbers["channels"] == 3 and grey:
        lines.append(f"{counted(grey, 'grey image')} among colour ones: repeated over three channels")
    clear = sum(modes.get(mode, 0) for mode in ("RGBA", "LA", "PA", "RGBa", "La"))
    if clear:
        lines.append(f"{counted(clear, 'image')} with transparency: put on white")
    deep = sum(count for mode, count in modes.items() if mode in ("I", "F") or mode.startswith("I;16"))
    if deep:
        lines.append(f"{counted(deep, 'image')} of more than 8 bits per channel: reduced to 8")
    if headers.animated:
        lines.append(f"{counted(headers.animated, 'animation')}: the first frame is used")
    if headers.turned:
        lines.append(f"{counted(headers.turned, 'image')} turned upright as the camera noted")
    return lines
