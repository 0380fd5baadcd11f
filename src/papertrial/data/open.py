"""One door for data: `open(source)` recognises what it is given and returns Images, a Table, Texts, Pairs or a Collection."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from papertrial.core.errors import DataError, did_you_mean
from papertrial.data import foreign, textfiles
from papertrial.data.base import Data
from papertrial.data.collections import Collection, is_collection
from papertrial.data.images import Images, binary, captions
from papertrial.data.images.decode import EXTENSIONS, Folder
from papertrial.data.layout import PARTS

_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib")
_SHEETS = (".xlsx", ".xlsm", ".xls", ".ods")
_FRAMES = ("pandas", "polars", "pyarrow")
_HUB_FILES = ("dataset_info.json", "dataset_dict.json", "state.json")  # what `save_to_disk` of datasets writes
_ACCEPTED = (
    "give a folder or archive of images or texts (a folder per class for labels, captions beside images), idx or CIFAR-10 files, a text file, "
    "a CSV, JSON Lines or Parquet file, .npy or .npz, a BEIR folder, hf:<data set>, or a built-in name"
)


def open(
    source: Any, target: str | None = None, *, name: str | None = None, like: Mapping[str, Any] | None = None
) -> Data:
    """Images, a Table, Texts, Pairs, Judged outputs or a Collection from whatever `source` is.

    - a path: a folder or archive (.tar, .tar.gz, .tar.xz, .zip) of images or texts; one image; idx files (MNIST) or
      CIFAR-10 binary batches, plain or packed; a text file, plain or packed, whose lines are the texts; CSV, TSV, JSON,
      JSON Lines or Parquet, or a folder of them, or one in a zip; .npy and .npz. Images may have captions beside them or in the archive
      (captions.jsonl, captions.csv, metadata.csv, COCO, a .txt per image), and a file of captions opens the images that
      it names; `images#name` takes the captions from the column `name`. A table in which all columns besides the target are text
      holds texts; `reviews.csv#body` names the column of text, `pairs.csv#first,second` two for pairs. One with the columns
      system, reference and output (and score) holds judged outputs
    - a collection to search: a BEIR folder, SQuAD JSON, a table of questions, sentences and labels (where neither
      columns nor a target are named)
    - a name: digits, iris, wine, breast_cancer, diabetes, python-docs, python-source,
      python-lines, python-pairs, python-outputs, docstrings; `hf:<id>` or
      `hf:<id>:<configuration>` of the Hugging Face hub, or `hf:<folder>`
    - an object: arrays `X` or `(X, y)`, where two dimensions are a table and more are images; strings, or pairs of
      them, alone or with labels; a data frame; a torch Dataset of (image or vector, label) items; a Hugging Face data
      set; {"train": ..., "test": ...} of arrays, strings or frames; opened data itself

    target: the column to predict (tables, and data sets of the hub).  name: what to call the data.  like: `columns` of
    the texts a model was trained on, so that a table is read in the same way.
    Raises DataError that says what was found and what is accepted. Pickles are never loaded.
    """
    if isinstance(source, Data):
        return source
    plain, text = _without_columns(source)
    try:
        data = _from_words(plain, target, text) if isinstance(source, str | Path) else _from_object(source, target)
    except OSError as error:
        raise DataError(
            f"{source} cannot be read ({error.strerror or error})", "check the path and its rights"
        ) from error
    data = _as_text(data, text, target, like)
    if (
        data.kind in ("images", "text")
        and target is not None
        and not getattr(data, "columns", None)
        and not _is_hub(source)
    ):
        raise DataError(f"{data.name} holds {data.kind}, whose labels are no column {target!r}", "leave the target out")
    data.name = name or data.name
    if isinstance(source, str | Path):
        path = Path(plain).expanduser()
        data.source = str(path.resolve()) + str(source)[len(str(plain)) :] if path.exists() else str(source)
    return data


def _without_columns(source: Any) -> tuple[Any, tuple[str, ...]]:
    """`path#column` or `path#first,second` in two, where no file is called so."""
    if not isinstance(source, str | Path) or "#" not in str(source) or Path(source).expanduser().exists():
        return source, ()
    words, _, columns = str(source).rpartition("#")
    return words, tuple(columns.split(",")) if columns else ()


def _as_text(data: Data, text: tuple[str, ...], target: str | None, like: Mapping[str, Any] | None) -> Data:
    """The texts, pairs or judged outputs that a table holds; other data as it is."""
    if data.kind != "table":
        if text and not (isinstance(data, Images) and data.captioned):  # whose column of captions it names
            raise DataError(
                f"{data.name} is not a table, so it has no column {text[0]!r}", "leave # and what follows out"
            )
        return data
    from papertrial.data.texts import from_table, judged

    if len(text) > 1 and ",".join(text) in data.columns:
        text = (",".join(text),)
    return judged.from_table(data, text, target, like or None) or from_table(data, text, target, like or None) or data


def _is_hub(source: Any) -> bool:
    return str(source).startswith("hf:") or type(source).__module__.partition(".")[0] == "datasets"


def _from_words(source: str | Path, target: str | None, text: tuple[str, ...]) -> Data:
    from papertrial.data.toy import BUILT_IN

    words = str(source)
    if words.startswith("hf:"):
        return foreign.from_hub(words.removeprefix("hf:"), target)
    if "://" in words:
        raise DataError(f"{words} is an address, and data is read from files", "download it, and give the file")
    path = Path(words).expanduser()
    if not words or not path.exists():
        if words in BUILT_IN:
            return _built_in(words, target)
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        known = [*BUILT_IN, *beside] if path.name == words else beside
        raise DataError(f"there is no {words!r} here, and no built-in data of that name", _suggestion(path, known))
    if target is None and not text and is_collection(path):
        return Collection.from_path(path)
    column = ",".join(text)
    if target is None and path.is_file() and (images := Images.from_captions(path, column)):
        return images
    return _from_folder(path, target, column) if path.is_dir() else _from_file(path, target, column)


def _suggestion(path: Path, known: list[str]) -> str:
    words = did_you_mean(path.name, known) if known else ""
    return words if words.startswith("did you mean") else _ACCEPTED


def _built_in(name: str, target: str | None) -> Data:
    from papertrial.data.tables import Table
    from papertrial.data.toy import BUILT_IN

    data = BUILT_IN[name]()
    if isinstance(data, Table) and target not in (None, data.target):
        raise DataError(f"the target of {name} is {data.target!r}", "leave the target out")
    return data


def _from_file(path: Path, target: str | None, column: str) -> Data:
    from papertrial.data.tables import Table
    from papertrial.data.tables.files import holds_prose, is_table, zipped
    from papertrial.data.texts import Texts

    lower = path.name.lower()
    if lower.endswith(textfiles.ARCHIVES):
        names = [name for name, _ in textfiles.members(path)]
        tables = zipped(path)
        if tables and _are_tables(names, len(tables)):
            if len(tables) > 1:
                raise DataError(
                    f"{path} holds several tables ({', '.join(tables[:5])})",
                    "unpack it, and give the folder or one of them",
                )
            return Table.from_file(path, target)
        return Texts.from_files(path) if _mostly_text(names) else Images.from_files(path, column)
    if path.suffix.lower() in EXTENSIONS:
        return Images.from_files(path)
    if binary.is_idx(path):
        return binary.idx_images([path], path.name)
    if binary.is_cifar(path):
        return binary.cifar_images([path], path.name)
    if lower.endswith((".npy", ".npz")):
        return _from_parts(binary.numpy_parts(path), path.name)
    plain = textfiles.bare_name(lower)
    if is_table(path) and not (plain.endswith(".txt") and holds_prose(path)):
        return Table.from_file(path, target)
    if lower.endswith(_SHEETS):
        raise DataError(f"{path} is a spreadsheet", "save it as CSV, and give that file")
    if lower.endswith(_PICKLES):
        raise DataError(f"{path} is a pickle: it could run any code, so it is never loaded", _ACCEPTED)
    if Path(plain).suffix in textfiles.SUFFIXES or textfiles.looks_like_text(path):
        return Texts.from_files(path)
    raise DataError(f"{path} is a file of a kind that is not known", _ACCEPTED)


def _texts_and_pictures(names: Sequence[str]) -> tuple[int, int]:
    pictures = sum(os.path.splitext(name)[1].lower() in EXTENSIONS for name in names)
    return sum(map(textfiles.is_text, names)), pictures


def _are_tables(names: Sequence[str], tables: int) -> bool:
    """Whether files, of which so many are tables, hold neither more texts nor more images."""
    return max(_texts_and_pictures(names)) <= tables


def _mostly_text(names: Sequence[str]) -> bool:
    """Whether of these files more hold text than images."""
    texts, pictures = _texts_and_pictures(names)
    if texts or pictures:
        return texts > pictures
    return any(textfiles.part_of(name) is not None for name in names)


def _from_folder(path: Path, target: str | None, column: str) -> Data:
    from papertrial.data.tables import Table
    from papertrial.data.tables.files import is_table
    from papertrial.data.texts import Texts

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
    if target is None and not images.names and any(file.name.lower().endswith(textfiles.ARCHIVES) for file in files):
        for name in captions.candidates(images):
            if packed := Images.from_captions(path / name, column):
                packed.name = path.name or str(path.resolve())
                return packed
    names = [name for name, _ in textfiles.members(path)]
    if tables and _are_tables(names, len(tables)):
        return Table.from_file(path, target)
    if _mostly_text(names):
        return Texts.from_files(path)
    if not images.names and not images.others:
        raise DataError(f"{path} is empty", _ACCEPTED)
    return Images.from_source(images, path.name or str(path.resolve()), column)


def _one_of_each(files: list[Path]) -> list[Path]:
    """The files, without packed copies of those that are there unpacked."""
    return list(
        {file.name.removesuffix(".gz").removesuffix(".xz"): file for file in sorted(files, reverse=True)}.values()
    )


def _from_object(source: Any, target: str | None) -> Data:
    from papertrial.data.tables import Table

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
        written = _from_strings({PARTS[str(key).lower()]: value for key, value in source.items()})
        return written or _from_parts(dict(sorted(pairs.items())), "arrays")
    if isinstance(source, Mapping) or (isinstance(source, list) and source and isinstance(source[0], Mapping)):
        import pandas as pd

        return Table.from_frame(pd.DataFrame(source), target)
    written = _from_strings({0: source})
    if written is not None:
        return written
    x, y = _pair(source)
    if _is_frame(x):
        return Table.from_arrays(x, y)
    return _from_parts({0: (x, y)}, "arrays")


def _from_strings(parts: Mapping[int, Any]) -> Data | None:
    """Texts or Pairs by part, each as strings or pairs of strings, alone or with labels or scores; else None."""
    from papertrial.data.texts import Pairs, Texts

    split = {part: _texts_and_target(value) for part, value in sorted(parts.items())}
    kinds = {_what(texts) for texts, _ in split.values()}
    if kinds not in ({"text"}, {"pairs"}):
        return None
    texts = [text for part, _ in split.values() for text in part]
    lengths = [len(texts) for texts, _ in split.values()]
    targets = [[None] * len(some) if target is None else list(target) for some, target in split.values()]
    for (some, _), target in zip(split.values(), targets, strict=True):
        if len(target) != len(some):
            raise DataError(f"{len(some)} examples but {len(target)} labels", "give one value per example")
    known = any(target is not None for _, target in split.values())
    joined = [value for target in targets for value in target] if known else None
    part = np.repeat(list(split), lengths).astype(np.int8) if len(split) > 1 else None
    if kinds == {"pairs"}:
        return Pairs.from_strings(texts, joined, part)
    labels = None if joined is None else np.array(joined, object if None in joined else None)
    return Texts.from_strings(texts, labels, part=part)


def _texts_and_target(value: Any) -> tuple[Any, Any]:
    if isinstance(value, tuple) and len(value) == 2 and _what(value[0]) and not isinstance(value[0], str):
        return value
    return value, None


def _what(values: Any) -> str:
    """`text` for a list (or array) of strings, `pairs` for one of pairs of strings, "" for anything else."""
    if (isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "UO") or type(
        values
    ).__name__ == "Series":
        values = values.tolist()
    if not isinstance(values, list | tuple) or not values:
        return ""
    if all(isinstance(value, str) or value is None for value in values):
        return "text" if any(isinstance(value, str) for value in values) else ""
    pairs = all(isinstance(value, tuple | list) and len(value) == 2 for value in values)
    return "pairs" if pairs and all(isinstance(text, str) for value in values for text in value) else ""


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
        raise DataError(f"a {type(values).__name__} is not an array of even rows", _ACCEPTED) from None


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
    from papertrial.data.tables import Table

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
