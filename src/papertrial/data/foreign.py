"""Data sets of other libraries, read so far that a kind can tell whether they are its own: torch's, and those of the hub."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from papertrial.core.errors import DataError, missing_extra
from papertrial.data.arrays import one_hot
from papertrial.data.base import track
from papertrial.data.layout import PARTS


@dataclass(frozen=True)
class Hub:
    """A data set of the package datasets.

    splits: those called train, validation and test, or the like, by name.  notes: what was left aside.
    """

    name: str
    splits: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def features(self) -> Mapping[str, Any]:
        """Columns, and what each holds."""
        features: Mapping[str, Any] = next(iter(self.splits.values())).features
        return features

    def column(self, feature: str) -> str | None:
        """The first column that holds what `datasets` calls `feature`, such as Image; None where none does."""
        import datasets

        held = getattr(datasets, feature)
        return next((column for column, each in self.features.items() if isinstance(each, held)), None)


@dataclass(frozen=True)
class Items:
    """The items of a torch Dataset, read one after the other.

    arrays: of all items, stacked; None where they are Pillow images, which `item(row)` reads again.  tensors: whether
    they were tensors, which carry channels first.  labels: (N,), or None without.  digest: of the images.
    """

    name: str
    count: int
    arrays: np.ndarray | None
    tensors: bool
    labels: np.ndarray | None
    class_names: Any
    digest: str
    source: Any

    def item(self, row: int) -> Any:
        return _item(self.source, row)[0]


def told(error: Exception) -> str:
    """The type of an error of somebody else's code, and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__


def is_hub(source: Any) -> bool:
    """Whether it is the name of a data set of the hub, or one of its data sets."""
    words = isinstance(source, str | Path) and str(source).startswith("hf:")
    return words or type(source).__module__.partition(".")[0] == "datasets"


def items_of(source: Any) -> Items:
    """Read a map-style torch Dataset of (image or vector, label) items, or of images alone.

    Raises DataError for other items, and for tensors of different shapes.
    """
    name, count = type(source).__name__, _length(source)
    first, _ = _item(source, 0)
    labels, arrays, digest = [], [], hashlib.blake2b(digest_size=12)
    for row in track(range(count), count, f"reading {name}"):
        x, y = _item(source, row)
        labels.append(_label(y, row, name))
        if isinstance(x, Image.Image):
            digest.update(f"{x.mode}{x.size}".encode() + x.tobytes())
        else:
            arrays.append(np.asarray(x.detach().cpu() if hasattr(x, "detach") else x))
    y = None if all(label is None for label in labels) else np.array(labels, object if None in labels else None)
    stacked = None
    if arrays:
        if len(arrays) != len(labels) or len({array.shape for array in arrays}) > 1:
            raise DataError(f"the items of {name} have different shapes", "give tensors of one shape, or Pillow images")
        stacked = np.stack(arrays)
    class_names = getattr(source, "classes", None)
    tensors = hasattr(first, "detach")
    return Items(name, len(labels), stacked, tensors, y, class_names, digest.hexdigest(), source)


def _length(source: Any) -> int:
    """Raises DataError for a Dataset that is empty or has no length."""
    name = type(source).__name__
    try:
        count = len(source)
    except Exception as error:  # whatever the user's code raises
        why = "" if not hasattr(source, "__len__") else f" ({told(error)})"
        raise DataError(
            f"the {name} has no length{why}", "give a map-style Dataset with items (image, label)"
        ) from error
    if not count:
        raise DataError(f"the {name} is empty", "give one with items (image, label)")
    return count


def _label(value: Any, row: int, name: str) -> Any:
    """A label as a plain number or text. Raises DataError for one of several values."""
    held = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    if held.size != 1:
        hint = "give its class number: y.argmax()" if held.size and one_hot(held.reshape(1, -1)) else "give one value"
        raise DataError(f"the label of item {row} of {name} has the shape {held.shape}", hint)
    return held.item()


def _item(source: Any, row: int) -> tuple[Any, Any]:
    try:
        item = source[row]
    except IndexError as error:
        count = len(source)
        raise DataError(
            f"{type(source).__name__} says that it has {count} items, and has no item {row} ({told(error)})",
            "mend its __len__",
        ) from error
    except Exception as error:  # whatever the user's code raises
        raise DataError(
            f"item {row} of {type(source).__name__} cannot be read ({told(error)})", "mend its __getitem__"
        ) from error
    if isinstance(item, tuple | list) and len(item) in (1, 2):
        x, y = (*item, None)[:2]
    else:
        x, y = item, None
    if not (isinstance(x, Image.Image) or hasattr(x, "__array__")):
        found = type(item).__name__
        raise DataError(f"item {row} of {type(source).__name__} is a {found}", "items must be (image or vector, label)")
    return x, y


def load(words: str) -> Hub:
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
        raise DataError(
            f"hf:{words} cannot be loaded ({told(error)})",
            "check the id and the network; data downloaded once opens offline",
        ) from None
    return hub_of(held, local.name if local.is_dir() else key)


def hub_of(held: Any, name: str) -> Hub:
    """A `datasets.Dataset` or `DatasetDict`; splits train, validation and test are kept. Raises DataError for streams."""
    import datasets

    splits = dict(held) if isinstance(held, Mapping) else {"train": held}
    if any(not isinstance(split, datasets.Dataset) for split in splits.values()):
        raise DataError(f"{name} is a stream", "load it without streaming=True")
    named = {split: part for split, part in splits.items() if split.lower() in PARTS and len(part)}
    if not named:
        raise DataError(f"{name} has the splits {', '.join(splits) or '(none)'}", "name one of them train")
    aside = sorted(splits.keys() - named.keys())
    return Hub(name, named, (f"splits not used: {', '.join(aside)}",) if aside else ())
