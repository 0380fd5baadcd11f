"""One door for data: `open(source)` recognises what it is given and returns Images, a Table or a Collection."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from papertrial.core.errors import DataError, did_you_mean
from papertrial.data import binary, foreign
from papertrial.data.base import Data
from papertrial.data.collection import Collection, is_beir, judged_tables
from papertrial.data.collectionfiles import looks_like_squad
from papertrial.data.decode import EXTENSIONS, Folder
from papertrial.data.images import Images
from papertrial.data.layout import PARTS

_ARCHIVES = (".tar", ".tgz", ".tar.gz", ".txz", ".tar.xz", ".tbz2", ".tar.bz2", ".zip")
_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib")
_FRAMES = ("pandas", "polars", "pyarrow")
_HUB_FILES = ("dataset_info.json", "dataset_dict.json", "state.json")  # what `save_to_disk` of datasets writes
_ACCEPTED = (
    "give a folder or archive of images (a folder per class for labels), idx or CIFAR-10 files, "
    "a CSV, JSON Lines or Parquet file, .npy or .npz, a BEIR folder, hf:<data set>, or a built-in name"
)


def open(source: Any, target: str | None = None, *, name: str | None = None) -> Data:
    """Images, a Table or a Collection from whatever `source` is.

    - a path: a folder or archive (.tar, .tar.gz, .tar.xz, .zip) of images; one image; idx files (MNIST) or CIFAR-10
      binary batches, plain or packed; CSV, TSV, JSON Lines or Parquet, or a folder of them; .npy and .npz;
      a collection to search: a BEIR folder, SQuAD JSON, a table of questions, sentences and labels
    - a name: digits, iris, wine, breast_cancer, diabetes; `hf:<id>` or `hf:<id>:<configuration>` of the Hugging Face
      hub, or `hf:<folder>`
    - an object: arrays `X` or `(X, y)`, where two dimensions are a table and more are images; a data frame; a torch
      Dataset of (image or vector, label) items; a Hugging Face data set; {"train": ..., "test": ...} of arrays or
      frames; Images and Tables themselves

    target: the column to predict (tables, and data sets of the hub).  name: what to call the data.
    Raises DataError that says what was found and what is accepted. Pickles are never loaded.
    """
    if isinstance(source, Data):
        return source
    try:
        data = _from_words(source, target) if isinstance(source, str | Path) else _from_object(source, target)
    except OSError as error:
        raise DataError(
            f"{source} cannot be read ({error.strerror or error})", "check the path and its rights"
        ) from error
    if isinstance(data, Images) and target is not None and not _is_hub(source):
        raise DataError(f"{data.name} holds images, whose labels are no column {target!r}", "leave the target out")
    data.name = name or data.name
    if isinstance(source, str | Path):
        path = Path(source).expanduser()
        data.source = str(path.resolve()) if path.exists() else str(source)
    return data


def _is_hub(source: Any) -> bool:
    return str(source).startswith("hf:") or type(source).__module__.partition(".")[0] == "datasets"


def _from_words(source: str | Path, target: str | None) -> Data:
    from papertrial.data.toy import BUILT_IN

    words = str(source)
    if words.startswith("hf:"):
        return foreign.from_hub(words.removeprefix("hf:"), target)
    path = Path(words).expanduser()
    if not words or not path.exists():
        if words in BUILT_IN:
            return _built_in(words, target)
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        known = [*BUILT_IN, *beside] if path.name == words else beside
        raise DataError(f"there is no {words!r} here, and no built-in data of that name", _suggestion(path, known))
    return _from_folder(path, target) if path.is_dir() else _from_file(path, target)


def _suggestion(path: Path, known: list[str]) -> str:
    words = did_you_mean(path.name, known) if known else ""
    return words if words.startswith("did you mean") else _ACCEPTED


def _built_in(name: str, target: str | None) -> Data:
    from papertrial.data.table import Table
    from papertrial.data.toy import BUILT_IN

    data = BUILT_IN[name]()
    if isinstance(data, Table) and target not in (None, data.target):
        raise DataError(f"the target of {name} is {data.target!r}", "leave the target out")
    return data


def _from_file(path: Path, target: str | None) -> Data:
    from papertrial.data.table import Table
    from papertrial.data.tablefiles import is_table

    lower = path.name.lower()
    if lower.endswith(_ARCHIVES) or path.suffix.lower() in EXTENSIONS:
        return Images.from_files(path)
    if binary.is_idx(path):
        return binary.idx_images([path], path.name)
    if binary.is_cifar(path):
        return binary.cifar_images([path], path.name)
    if lower.endswith((".npy", ".npz")):
        return _from_parts(binary.numpy_parts(path), path.name)
    if judged_tables(path) or (lower.endswith(".json") and looks_like_squad(path)):
        return Collection.from_path(path)
    if is_table(path):
        return Table.from_file(path, target)
    if lower.endswith(_PICKLES):
        raise DataError(f"{path} is a pickle, which can run any code and is never loaded", _ACCEPTED)
    raise DataError(f"{path} is a file of a kind that is not known", _ACCEPTED)


def _from_folder(path: Path, target: str | None) -> Data:
    from papertrial.data.table import Table
    from papertrial.data.tablefiles import is_table

    if is_beir(path) or judged_tables(path):
        return Collection.from_path(path)
    files = [entry for entry in path.iterdir() if entry.is_file() and not entry.name.startswith(".")]
    idx = [file for file in files if binary.is_idx(file)]
    if idx:
        return binary.idx_images(_one_of_each(idx), path.name)
    batches = [file for file in files if binary.is_cifar(file)]
    if batches:
        return binary.cifar_images(_one_of_each(batches), path.name)
    if any(file.name in _HUB_FILES for file in files):
        return foreign.from_hub(str(path), target)
    tables = [file for file in files if is_table(file) and ".txt" not in file.suffixes]
    images = Folder(path)
    if tables and len(images.names) <= len(tables):
        return Table.from_file(path, target)
    if not images.names and not images.others:
        raise DataError(f"{path} is empty", _ACCEPTED)
    return Images.from_source(images, path.name or str(path.resolve()))


def _one_of_each(files: list[Path]) -> list[Path]:
    """The files, without packed copies of those that are there unpacked."""
    return list(
        {file.name.removesuffix(".gz").removesuffix(".xz"): file for file in sorted(files, reverse=True)}.values()
    )


def _from_object(source: Any, target: str | None) -> Data:
    from papertrial.data.table import Table

    if _is_hub(source):
        return foreign.from_datasets(source, "data set", target)
    if _is_frame(source):
        return Table.from_frame(source, target)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(source, torch.utils.data.Dataset):
        return foreign.from_torch(source)
    if isinstance(source, Mapping) and source and all(str(key).lower() in PARTS for key in source):
        pairs = {PARTS[str(key).lower()]: _pair(value) for key, value in source.items()}
        if any(isinstance(x, str | Path) or _is_frame(x) for x in source.values()):
            return Table.from_parts(source, target)
        return _from_parts(dict(sorted(pairs.items())), "arrays")
    if isinstance(source, Mapping) or (isinstance(source, list) and source and isinstance(source[0], Mapping)):
        import pandas as pd

        return Table.from_frame(pd.DataFrame(source), target)
    x, y = _pair(source)
    if _is_frame(x):
        return Table.from_arrays(x, y)
    return _from_parts({0: (x, y)}, "arrays")


def _is_frame(source: Any) -> bool:
    return type(source).__module__.partition(".")[0] in _FRAMES


def _pair(source: Any) -> tuple[Any, Any]:
    return source if isinstance(source, tuple) and len(source) == 2 else (source, None)


def _array(values: Any) -> np.ndarray:
    """Raises DataError for what is no array of numbers or words."""
    detached = values.detach().cpu() if hasattr(values, "detach") else values
    try:
        return np.asarray(detached)
    except (ValueError, TypeError):
        raise DataError(f"a {type(values).__name__} is no array of even rows", _ACCEPTED) from None


def _target(x: Any, y: Any) -> np.ndarray:
    """y as (N,). Raises DataError when it has another length than x or several columns."""
    values = _array(y)
    values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    if values.shape != (len(x),):
        raise DataError(f"{len(x)} examples but a target of shape {values.shape}", "give one value per example")
    return values


_PART_NAMES = ("train", "valid", "test")


def _from_parts(parts: Mapping[int, tuple[Any, Any]], name: str) -> Data:
    """Arrays by part: two dimensions are a table, three and four images."""
    from papertrial.data.table import Table

    pairs = {part: (_array(x), None if y is None else _target(x, y)) for part, (x, y) in parts.items()}
    axes = {x.ndim for x, _ in pairs.values()}
    labelled = any(y is not None for _, y in pairs.values())
    if axes == {2}:
        import pandas as pd

        if len(pairs) == 1:
            (x, y) = next(iter(pairs.values()))
            data = Table.from_arrays(x, y)
        else:
            frames = {}
            for part, (x, y) in pairs.items():
                columns = {f"c{index}": column for index, column in enumerate(x.T)}
                frames[_PART_NAMES[part]] = pd.DataFrame(columns if y is None else {**columns, "target": y})
            data = Table.from_parts(frames, "target" if labelled else None)
        data.name = name
        return data
    if axes - {3, 4}:
        shapes = ", ".join(str(x.shape) for x, _ in pairs.values())
        raise DataError(f"an array of shape {shapes} is neither a table (2 axes) nor images (3 or 4)", _ACCEPTED)
    targets = [np.full(len(x), None) if y is None else y for x, y in pairs.values()]
    rows = np.repeat(list(pairs), [len(x) for x, _ in pairs.values()])
    try:
        joined = np.concatenate([x for x, _ in pairs.values()])
        labels = np.concatenate(targets) if labelled else None
    except ValueError as error:
        raise DataError(f"the parts of {name} do not fit together ({error})", "give parts of equal shape") from None
    return Images.from_arrays(joined, labels, part=rows if len(pairs) > 1 else None, name=name)
