"""Data sets of other libraries: torch `Dataset` objects, and `datasets` of the Hugging Face hub."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from papertrial.core.errors import DataError, missing_extra
from papertrial.data.base import Data, fingerprint, track
from papertrial.data.images import Images
from papertrial.data.images.captions import TEXT, first_caption
from papertrial.data.images.decode import Pictures
from papertrial.data.labels import as_labels
from papertrial.data.layout import PARTS

_PART_NAMES = ("train", "valid", "test")


def from_torch(source: Any) -> Data:
    """Images or a Table from a map-style torch Dataset of (image or vector, label) items, or of images alone.

    Raises DataError for other items, and for tensors of different shapes.
    """
    from papertrial.data.tables import Table

    name = type(source).__name__
    if not hasattr(source, "__len__") or len(source) == 0:
        raise DataError(f"the {name} is empty or has no length", "give a map-style Dataset with items (image, label)")
    first, _ = _item(source, 0)
    labels, arrays, digest = [], [], hashlib.blake2b(digest_size=12)
    for row in track(range(len(source)), len(source), f"reading {name}"):
        x, y = _item(source, row)
        labels.append(y.item() if hasattr(y, "item") else y)
        if isinstance(x, Image.Image):
            digest.update(f"{x.mode}{x.size}".encode() + x.tobytes())
        else:
            arrays.append(np.asarray(x.detach().cpu() if hasattr(x, "detach") else x))
    y = None if all(label is None for label in labels) else np.array(labels, object if None in labels else None)
    class_names = getattr(source, "classes", None)
    if not arrays:
        codes, names = as_labels(y, len(labels), class_names)
        rows = [str(row) for row in range(len(labels))]
        pictures = Pictures(rows, digest.hexdigest(), lambda row: _item(source, row)[0])
        return Images(pictures, codes, names, name=name)
    shapes = {array.shape for array in arrays}
    if len(arrays) != len(labels) or len(shapes) > 1:
        raise DataError(f"the items of {name} have different shapes", "give tensors of one shape, or Pillow images")
    stacked = np.stack(arrays)
    if stacked.ndim == 2:
        table = Table.from_arrays(stacked, y)
        table.name = name
        return table
    if stacked.ndim == 4 and hasattr(first, "detach"):  # tensors carry channels first
        stacked = stacked.transpose(0, 2, 3, 1)
    return Images.from_arrays(stacked, y, class_names, name=name)


def _item(source: Any, row: int) -> tuple[Any, Any]:
    item = source[row]
    if isinstance(item, tuple | list) and len(item) in (1, 2):
        x, y = (*item, None)[:2]
    else:
        x, y = item, None
    if not (isinstance(x, Image.Image) or hasattr(x, "__array__")):
        found = type(item).__name__
        raise DataError(f"item {row} of {type(source).__name__} is a {found}", "items must be (image or vector, label)")
    return x, y


def from_hub(words: str, target: str | None) -> Data:
    """`id`, `id:configuration` or a local folder, through the package datasets.

    Raises PapertrialError when the package is missing, DataError when the hub or the data set cannot be reached.
    """
    if importlib.util.find_spec("datasets") is None:
        raise missing_extra(f"hf:{words}", "datasets", "hub")
    import datasets

    local = Path(words).expanduser()
    key, _, configuration = words.partition(":")
    try:
        if local.is_dir():
            saved = any((local / name).exists() for name in ("dataset_dict.json", "state.json"))
            held = datasets.load_from_disk(str(local)) if saved else datasets.load_dataset(str(local))
        else:
            held = datasets.load_dataset(key, configuration or None)
    except Exception as error:  # the libraries behind it raise errors of many kinds
        lines = str(error).strip().splitlines()
        why = f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__
        raise DataError(
            f"hf:{words} cannot be loaded ({why})", "check the id and the network; data downloaded once opens offline"
        ) from None
    return from_datasets(held, local.name if local.is_dir() else key, target)


def from_datasets(held: Any, name: str, target: str | None) -> Data:
    """Images or a Table from a `datasets.Dataset` or `DatasetDict`; splits train, validation and test are kept."""
    import datasets

    splits = dict(held) if isinstance(held, Mapping) else {"train": held}
    if any(not isinstance(split, datasets.Dataset) for split in splits.values()):
        raise DataError(f"{name} is a stream", "load it without streaming=True")
    named = {split: part for split, part in splits.items() if split.lower() in PARTS and len(part)}
    if not named:
        raise DataError(f"{name} has the splits {', '.join(splits) or '(none)'}", "name one of them train")
    features = next(iter(named.values())).features
    image = next((column for column, feature in features.items() if isinstance(feature, datasets.Image)), None)
    notes = [f"splits not used: {', '.join(sorted(splits.keys() - named.keys()))}"] if len(named) < len(splits) else []
    if image is None:
        return _table(named, name, target, notes)
    return _images(named, name, image, target, notes)


def _images(splits: Mapping[str, Any], name: str, image: str, target: str | None, notes: list[str]) -> Images:
    import datasets

    features = next(iter(splits.values())).features
    label = target or next((column for column, kind in features.items() if isinstance(kind, datasets.ClassLabel)), None)
    label = label or ("label" if "label" in features else None)
    if label is not None and label not in features:
        raise DataError(f"{name} has no column {label!r}", f"its columns: {', '.join(features)}")
    raw = [split.cast_column(image, datasets.Image(decode=False)) for split in splits.values()]
    ends = np.cumsum([len(split) for split in raw])

    def item(row: int) -> Any:
        split = int(np.searchsorted(ends, row, side="right"))
        stored = raw[split][row - int(ends[split] - len(raw[split]))][image]
        if stored is None:
            return "no image"
        return stored["bytes"] if stored["bytes"] is not None else Path(stored["path"])

    codes: np.ndarray | None = None
    names: tuple[str, ...] = ()
    if label is not None:
        values = [value for split in raw for value in split[label]]
        classes = getattr(features[label], "names", None)
        codes, names = as_labels(np.array(values, object), len(values), classes)
    text = next((column for column in TEXT if column in features and column not in (image, label)), None)
    captions = None if text is None else [first_caption(value) for split in raw for value in split[text]]
    part = np.repeat([PARTS[split.lower()] for split in splits], [len(split) for split in raw])
    if len(splits) == 1:
        part[:] = 0
    elif not (part == 2).any():
        part[part == 1] = 2
        notes = [*notes, "the validation split serves as the test part, as there is none"]
    key = fingerprint(*(split._fingerprint for split in splits.values()))
    rows = [str(row) for row in range(int(ends[-1]))]
    return Images(Pictures(rows, key, item), codes, names, part, captions=captions, name=name, notes=notes)


def _table(splits: Mapping[str, Any], name: str, target: str | None, notes: list[str]) -> Data:
    from papertrial.data.tables import Table

    frames = {}
    for split, held in splits.items():
        frame = held.to_pandas()
        for column, feature in held.features.items():
            names = getattr(feature, "names", None)
            if names:  # class codes as the words they stand for; -1 is how datasets writes a missing label
                frame[column] = [names[code] if code is not None and code >= 0 else None for code in held[column]]
        frames[_PART_NAMES[PARTS[split.lower()]]] = frame
    table = (
        Table.from_parts(frames, target) if len(frames) > 1 else Table.from_frame(next(iter(frames.values())), target)
    )
    table.name = name
    for line in notes:
        table.note(line)
    return table
