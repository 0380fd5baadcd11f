"""Which sources hold images, and how they are opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from papertrial.core.errors import DataError
from papertrial.data import textfiles
from papertrial.data.base import Data, accepted, fingerprint
from papertrial.data.foreign import Hub, Items
from papertrial.data.given import Given
from papertrial.data.images import Images, binary, captions
from papertrial.data.images.decode import Folder, Pictures
from papertrial.data.labels import as_labels, own_labels
from papertrial.data.layout import EXTENSIONS, PARTS


def opens(given: Given) -> Data | None:
    """Images from files, the hub, a torch Dataset or arrays of three and four axes; None for anything else."""
    if given.path is not None and (found := _from_files(given, given.path)):
        return found
    if given.hub is not None:
        column = given.hub.column("Image")
        return None if column is None else _from_hub(given.hub, column, given.target)
    if given.items is not None:
        return _from_items(given.items)
    return _from_arrays(given) if given.axes and given.axes <= {3, 4} else None


def _from_files(given: Given, path: Path) -> Images | None:
    if given.target is None and not given.is_folder:
        named = Images.from_captions(path, given.column) or (None if given.column else Images.from_labels(path))
        if named is not None:
            return named
    if given.is_folder:
        return _from_folder(given, path)
    if given.is_archive:
        return Images.from_files(path, given.column, given.target, _likely(given)) if given.mostly == "images" else None
    if given.suffix in EXTENSIONS:
        return Images.from_files(path)
    if binary.is_idx(path):
        return binary.idx_images([path], path.name)
    return binary.cifar_images([path], path.name) if binary.is_cifar(path) else None


def _from_folder(given: Given, path: Path) -> Images | None:
    """Binary files that are known by their names, images that a file of captions beside an archive names, else images where
    the folder holds no more tables or texts. Raises DataError for a folder in which nothing is."""
    for known, read in ((binary.is_idx, binary.idx_images), (binary.is_cifar, binary.cifar_images)):
        if chosen := [file for file in given.files if known(file)]:
            return read(_one_of_each(chosen), path.name)
    if given.form == "hub":
        return None
    images = Folder(path)
    packed = any(file.name.lower().endswith(textfiles.ARCHIVES) for file in given.files)
    if given.target is None and not images.names and packed:
        for name in captions.candidates(images):
            if found := Images.from_captions(path / name, given.column):
                found.name = given.name
                return found
    if given.mostly != "images":
        return None
    if not images.names and not images.others:
        raise DataError(f"{path} is empty", accepted())
    return Images.from_source(images, given.name, given.column, given.target, _likely(given))


def _likely(given: Given) -> str | None:
    """The column that held the labels a model was trained on."""
    return given.like.get("target") if given.like else None


def _one_of_each(files: list[Path]) -> list[Path]:
    """The files, without packed copies of those that are there unpacked."""
    return list(
        {file.name.removesuffix(".gz").removesuffix(".xz"): file for file in sorted(files, reverse=True)}.values()
    )


def _from_arrays(given: Given) -> Images:
    arrays = given.arrays or {}
    labelled = any(y is not None for _, y in arrays.values())
    targets = [np.full(len(x), None) if y is None else y for x, y in arrays.values()]
    rows = np.repeat(list(arrays), [len(x) for x, _ in arrays.values()])
    try:
        joined = np.concatenate([x for x, _ in arrays.values()])
        labels = np.concatenate(targets) if labelled else None
    except ValueError as error:
        raise DataError(
            f"the parts of {given.name} do not fit together ({error})", "give parts of equal shape"
        ) from None
    return Images.from_arrays(joined, labels, part=rows if len(arrays) > 1 else None, name=given.name)


def _from_items(items: Items) -> Images | None:
    """Images of a torch Dataset; None where its items are vectors."""
    if items.arrays is None:
        codes, names = as_labels(items.labels, items.count, items.class_names)
        pictures = Pictures([str(row) for row in range(items.count)], items.digest, items.item)
        images = Images(pictures, codes, names, name=items.name)
        images.own = own_labels(items.labels, names) if items.class_names is None else {}
        return images
    if items.arrays.ndim == 2:
        return None
    stacked = items.arrays
    if stacked.ndim == 4 and items.tensors:  # tensors carry channels first
        stacked = stacked.transpose(0, 2, 3, 1)
    return Images.from_arrays(stacked, items.labels, items.class_names, name=items.name)


def _from_hub(hub: Hub, image: str, target: str | None) -> Images:
    """Images from the column `image` of a data set of the hub, with its labels and captions."""
    import datasets

    features, splits, notes = hub.features, hub.splits, list(hub.notes)
    label = target or hub.column("ClassLabel") or ("label" if "label" in features else None)
    if label is not None and label not in features:
        raise DataError(f"{hub.name} has no column {label!r}", f"its columns: {', '.join(features)}")
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
    own: dict[str, Any] = {}
    if label is not None:
        values = [value for split in raw for value in split[label]]
        classes = getattr(features[label], "names", None)
        codes, names = as_labels(np.array(values, object), len(values), classes)
        own = own_labels(np.array(values, object), names) if classes is None else {}
    text = next((column for column in captions.TEXT if column in features and column not in (image, label)), None)
    told = None if text is None else [captions.first_caption(value) for split in raw for value in split[text]]
    part = np.repeat([PARTS[split.lower()] for split in splits], [len(split) for split in raw])
    if len(splits) == 1:
        part[:] = 0
    elif not (part == 2).any():
        part[part == 1] = 2
        notes.append("the validation split serves as the test part, as there is none")
    key = fingerprint(*(split._fingerprint for split in splits.values()))
    rows = [str(row) for row in range(int(ends[-1]))]
    images = Images(Pictures(rows, key, item), codes, names, part, captions=told, name=hub.name, notes=notes)
    images.own = own
    return images
