"""The training data of a run, opened again for its report: pictures of each class, or the distribution of each column."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from papertrial.core import registry
from papertrial.core.errors import PapertrialError
from papertrial.core.task import Ragged
from papertrial.study.figures import colour
from papertrial.study.html_page import (
    Bars,
    Grid,
    Heading,
    Histogram,
    Legend,
    Picture,
    Pictures,
    Series,
    Sheet,
    Table,
    Text,
)
from papertrial.use.card import CARD

if TYPE_CHECKING:
    from papertrial.core.task import Prepared, Split

PER_CLASS, CLASSES, COLUMNS = 8, 20, 32
#: classes up to which columns are drawn by class
_TOLD_APART = 4
_BINS, _LEVELS, _ROWS = 24, 8, 100_000
#: texts of a class that are shown, and characters of each
_TEXTS, _LETTERS = 3, 200
#: sides up to which pictures are kept as they are; larger ones are compressed
_SMALL = 32
#: classes that a sheet of drawn pictures has rows for, and examples of each class from which all of them are in the test
_SHEET_ROWS, _PLENTY = 10, 100


def blocks(card: Mapping[str, Any]) -> list[Any]:
    """What the training rows look like, or a line that says why they cannot be shown."""
    origin = card["data"]
    if not origin.get("source"):
        return [_missing("the data were given from Python, so there is no place to read them from again")]
    try:
        prepared = _prepared(card)
    except PapertrialError as error:
        return [_missing(error.problem)]
    if prepared is None:
        return [_missing(f"what {origin['name']} holds has changed since the run")]
    kind = registry.kind(prepared.facts.kind)
    shown = kind.made("shown")
    return list(shown(prepared)) if shown else [_missing(f"the kind {kind.name} does not say how")]


def _missing(why: str) -> Text:
    return Text(f"The examples themselves are not shown: {why}.", "note")


def _prepared(card: Mapping[str, Any]) -> Prepared | None:
    """The rows of the run; None when the data at the recorded place are others now."""
    from papertrial.data import open as open_data
    from papertrial.use.choose import prepare

    origin = card["data"]
    numbers = origin["numbers"]
    options, columns = origin["options"], card.get("state", {}).get("columns") or {}
    opened = open_data(
        origin["source"], target=numbers.get("target"), group=options.get("group"), time=options.get("time"),
        like=columns if "forms" in columns else None,
    )  # fmt: skip
    if opened.fingerprint != origin["fingerprint"]:
        return None
    asked = {name: value for name, value in options.items() if name not in ("group", "time")}
    return prepare(registry.task(card["task"]["name"]), opened, card["seed"], **asked)


def pictures(prepared: Prepared) -> list[Any]:
    """Some images of each class, or with their captions."""
    if "text" in prepared.train:
        return _captioned(prepared.train)
    names = prepared.state["class_names"]
    label = np.asarray(prepared.train["label"])
    draw = np.random.default_rng(0)
    rows: list[tuple[str, list[Picture]]] = []
    for index in range(len(names)):
        own = np.flatnonzero(label == index)
        if len(own) and len(rows) < CLASSES:
            rows.append((names[index], _some(prepared.train, own, names[index], PER_CLASS, draw)))
    if not rows:
        rows = [("unlabelled", _some(prepared.train, np.arange(len(label)), "unlabelled", 3 * PER_CLASS, draw))]
    more = f", {CLASSES} of {len(names)} classes" if len(names) > len(rows) == CLASSES else ""
    height, width = prepared.train["image"].shape[1:3]
    words = f"Training images drawn at random{more}, as the models see them: {height} x {width} pixels."
    return [Heading("Training images"), Text(words, "note"), Pictures(rows)]


def _captioned(train: Split) -> list[Any]:
    chosen = np.sort(np.random.default_rng(0).permutation(train.examples)[: 2 * PER_CLASS])
    images = np.asarray(train["image"][chosen])
    captions = [_excerpt(train["text"], row) for row in chosen.tolist()]
    rows = [(caption, [_picture(pixels, caption)]) for caption, pixels in zip(captions, images, strict=True)]
    height, width = images.shape[1:3]
    words = f"Drawn at random, as the models see them: {height} x {width} pixels."
    return [Heading("Training images and their captions"), Text(words, "note"), Pictures(rows, captions=True)]


def _some(train: Split, rows: np.ndarray, label: str, most: int, draw: np.random.Generator) -> list[Picture]:
    chosen = np.sort(draw.choice(rows, min(most, len(rows)), replace=False))
    return [_picture(pixels, label) for pixels in np.asarray(train["image"][chosen])]


def _picture(pixels: np.ndarray, label: str) -> Picture:
    """pixels: (H, W, C), bytes or floats in [0, 1]."""
    from PIL import Image

    if pixels.dtype != np.uint8:
        pixels = (255 * np.clip(pixels, 0, 1)).round().astype(np.uint8)
    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
    kind = "png" if max(image.size) <= _SMALL else "jpeg"
    stream = io.BytesIO()
    image.save(stream, kind, quality=88)
    address = f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
    return Picture(address, label, *image.size)


def sheets(runs: Mapping[str, Path]) -> list[Any]:
    """What generators drew for some test rows, beside the test images themselves; nothing for other runs.

    runs: folder of a run by the name it is shown with. The pictures were kept when the run was judged.
    """
    kept = {name: folder / "drawn.png" for name, folder in runs.items() if (folder / "drawn.png").exists()}
    if not kept:
        return []
    test = next(iter(kept.values())).with_name("test.png")
    files = {"test images": test, **kept}
    rows = _rows_of(next(iter(runs.values())))
    drawn, unread = [], []
    for name, file in files.items():
        if file.exists():
            try:
                drawn.append(Sheet(name, _sheet(file, name, rows), rows))
            except (OSError, SyntaxError, ValueError) as error:  # as Pillow says of a file that is damaged
                unread.append(Text(f"Left out: {file} cannot be read ({error}).", "note"))
    words = (
        "Each generator drew one picture for each of these test images, of its class or from its caption where it takes"
        " them: the first ones, none picked out."
    )
    return [Text(words, "note"), Grid(drawn, 300), *unread] if drawn else unread


def _rows_of(folder: Path) -> list[str]:
    """The classes that the rows of a sheet show; none where rows may be something else (see `tasks._image_quality.shown`)."""
    card = CARD.read(folder / "card.json")
    names = card.get("state", {}).get("class_names") or []
    counts = card["data"]["numbers"].get("class_counts") or {}
    held = list(counts.values()) if isinstance(counts, dict) else list(counts)
    return list(names[:_SHEET_ROWS]) if len(names) > 1 and len(held) == len(names) and min(held) >= _PLENTY else []


def _sheet(file: Path, name: str, rows: Sequence[str]) -> Picture:
    from PIL import Image

    with Image.open(file) as image:
        width, height = image.size
    address = f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"
    words = f"{name}, a row for each class: {', '.join(rows)}" if rows else f"{name}, side by side"
    return Picture(address, words, width, height)


def texts(prepared: Prepared) -> list[Any]:
    """Texts of each class, pairs from all over the range of scores, or sentences that are no pairs."""
    train, draw = prepared.train, np.random.default_rng(0)
    names = prepared.state.get("class_names", [])
    rows: list[list[str]]
    if "text" in train:
        head = ["class", "text"] if names else ["text"]
        label = np.asarray(train["label"]) if names else np.full(train.examples, -1)
        chosen = [
            draw.permutation(np.flatnonzero(label == index))[:_TEXTS] for index in range(-1, min(len(names), CLASSES))
        ]
        rows = [
            [*([names[label[row]] if label[row] >= 0 else "unlabelled"] if names else []), _excerpt(train["text"], row)]
            for row in np.concatenate(chosen).astype(int).tolist()
        ]
    else:
        sides = [name for name in ("first", "second") if name in train]
        told = bool(sides)
        sides = sides or [name for name, column in train.items() if isinstance(column, Ragged)]
        scored = "target" in train and "target" not in sides
        target = np.asarray(train["target"] if scored else np.full(train.examples, np.nan), np.float64)
        head = [*(["score"] if scored or told else []), *sides]
        order = np.argsort(target, kind="stable")  # pairs without a score are the last
        spread = order[np.unique(np.linspace(0, len(order) - 1, 4 * _TEXTS).astype(np.int64))]
        rows = [
            [
                *(["none" if np.isnan(target[row]) else f"{target[row]:g}"] if scored or told else []),
                *(_excerpt(train[name], row) for name in sides),
            ]
            for row in spread.tolist()
        ]
    words = f"Training examples, the first {_LETTERS} characters of each."
    return [Heading("Training texts"), Text(words, "note"), Table(head, rows, words=len(head))]


def queries(prepared: Prepared) -> list[Any]:
    """Some queries, each beside a document that answers it best."""
    train, documents = prepared.train, prepared.train.documents["text"]  # type: ignore[attr-defined]
    chosen = np.random.default_rng(0).permutation(train.examples)[: 4 * _TEXTS].tolist()
    answers = [int(train["relevant"][row][train["grade"][row].argmax()]) for row in chosen]
    rows = [
        [_excerpt(train["text"], row), _excerpt(documents, answer)] for row, answer in zip(chosen, answers, strict=True)
    ]
    words = f"Training queries and a document that answers each, the first {_LETTERS} characters."
    return [Heading("Training queries"), Text(words, "note"), Table(["query", "document"], rows, words=2)]


def _excerpt(texts: Any, row: int) -> str:
    held = texts[row][: 4 * _LETTERS].tobytes().decode("utf-8", "ignore")
    return " ".join("".join(letter if letter.isprintable() else " " for letter in held).split())[:_LETTERS]


def columns(prepared: Prepared) -> list[Any]:
    """The distribution of each column, by class where there are few."""
    state, train = prepared.state, prepared.train
    classes = state.get("class_names", [])
    step = max(1, train.examples // _ROWS)
    apart = 1 < len(classes) <= _TOLD_APART
    label = np.asarray(train["label"][::step]) if apart else np.zeros(len(range(0, train.examples, step)), np.int64)
    drawn: list[Any] = []
    for index, name in enumerate(state["numeric"][:COLUMNS]):
        drawn.append(histogram(name, np.asarray(train["numeric"][::step, index], np.float64), label))
    for index, (name, categories) in enumerate(list(state["categories"].items())[: COLUMNS - len(drawn)]):
        drawn.append(_levels(name, np.asarray(train["categorical"][::step, index]), categories))
    total = len(state["numeric"]) + len(state["categories"])
    words = f"{total} columns" if total == len(drawn) else f"{len(drawn)} of {total} columns"
    found = [
        Heading("Columns of the training rows"),
        Text(
            f"{words}. Drawn from the 0.5 to the 99.5 % quantile; values beyond are in the first and last bar."
            + (" Shares within each class." if apart else ""),
            "note",
        ),
    ]
    if apart:
        found.append(Legend([(name, colour(index)) for index, name in enumerate(classes)]))
    if "target" in train:
        found.append(Grid([histogram(f"target: {state['target']}", np.asarray(train["target"][::step], np.float64))]))
    return [*found, Grid(drawn, 155)]


def histogram(name: str, values: np.ndarray, label: np.ndarray | None = None) -> Histogram:
    """values: (N,), NaN for missing.  label: (N,), the group each belongs to, numbered from 0."""
    label = np.zeros(len(values), np.int64) if label is None else label
    known = np.isfinite(values)
    missing = 1 - known.mean() if len(values) else 0.0
    note = f"{missing:.1%} missing" if missing else ""
    if not known.any():
        return Histogram(name, [], note=note)
    low, high = np.quantile(values[known], (0.005, 0.995))
    low, high = (low, high) if high > low else (values[known].min(), values[known].max())
    high = high if high > low else low + 1
    distinct = np.unique(values[known])
    bins = min(_BINS, max(2, len(distinct)))
    clipped = np.clip(values, low, high)
    groups = range(int(label.max()) + 1)
    counts = [np.histogram(clipped[known & (label == group)], bins, (low, high))[0] for group in groups]
    shares = [count / max(1, count.sum()) for count in counts]
    largest = max(float(share.max()) for share in shares) or 1.0
    series = [Series((share / largest).tolist(), colour(group)) for group, share in zip(groups, shares, strict=True)]
    return Histogram(name, series, (f"{low:.4g}", f"{high:.4g}"), note)


def _levels(name: str, codes: np.ndarray, categories: list[str]) -> Bars:
    """The commonest categories; code len(categories) means missing or rare."""
    counts = np.bincount(codes, minlength=len(categories) + 1)
    missing, counts = counts[len(categories)], counts[: len(categories)]
    order = np.argsort(-counts, kind="stable")
    shown = [(categories[place], int(counts[place])) for place in order[:_LEVELS]]
    if len(order) > _LEVELS:
        shown.append((f"{len(order) - _LEVELS} others", int(counts[order[_LEVELS:]].sum())))
    return shares(name, shown, f"{missing / max(1, len(codes)):.1%} missing" if missing else "")


def shares(title: str, counts: list[tuple[str, int]], note: str = "") -> Bars:
    """A bar chart of counts with their shares of the whole."""
    total = max(1, sum(count for _, count in counts))
    largest = max((count for _, count in counts), default=0) or 1
    rows = [(label, count / largest, f"{count:,} · {count / total:.1%}".replace(",", " ")) for label, count in counts]
    return Bars(title, rows, note)
