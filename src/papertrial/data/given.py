"""What `papertrial.open` was given, with the facts by which kinds of data tell whether it is theirs, each found once."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from papertrial.data import foreign, textfiles
from papertrial.data.arrays import Parts, array_of, numpy_parts, pair_of, target_of
from papertrial.data.layout import EXTENSIONS, PARTS

_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib")
_SHEETS = (".xlsx", ".xlsm", ".xls", ".ods")
_FRAMES = ("pandas", "polars", "pyarrow")
_HUB_FILES = ("dataset_info.json", "dataset_dict.json", "state.json")  # what `save_to_disk` of datasets writes


class Given:
    """A source, and how the user wants it read.

    source: without the `#columns` of its end.  path: the file or folder it names; None for objects and `hf:` names.
    target: the column to predict, as the user named it.  columns: those named behind `#`.  like: `columns` of the data
    that a model was trained on, which new data are to be read like.  reading: how tables are to be read.
    """

    def __init__(
        self,
        source: Any,
        target: str | None = None,
        columns: tuple[str, ...] = (),
        like: Mapping[str, Any] | None = None,
        reading: Any = None,
    ) -> None:
        self.reading = reading
        self.source, self.target, self.columns, self.like = source, target, columns, like or None
        words = isinstance(source, str | Path)
        self.path = Path(source).expanduser() if words and not foreign.is_hub(source) else None

    @property
    def name(self) -> str:
        """What to call the data: the last part of the path, else how arrays are called."""
        if self.path is None:
            return "arrays"
        return self.path.name or str(self.path.resolve())

    @property
    def column(self) -> str:
        """The columns behind `#` as they were written."""
        return ",".join(self.columns)

    # -- files ----------------------------------------------------------------------------------------------------

    @cached_property
    def is_folder(self) -> bool:
        return self.path is not None and self.path.is_dir()

    @cached_property
    def is_archive(self) -> bool:
        return self.path is not None and not self.is_folder and self.path.name.lower().endswith(textfiles.ARCHIVES)

    @cached_property
    def suffix(self) -> str:
        """The ending of a file in lower case, with its dot; "" for folders, archives and objects."""
        return "" if self.path is None or self.is_folder or self.is_archive else self.path.suffix.lower()

    @property
    def is_sheet(self) -> bool:
        return self.suffix in _SHEETS

    @property
    def is_pickle(self) -> bool:
        return self.suffix in _PICKLES

    @cached_property
    def files(self) -> list[Path]:
        """The files right in a folder, hidden ones left out."""
        if self.path is None or not self.is_folder:
            return []
        return [entry for entry in self.path.iterdir() if entry.is_file() and not entry.name.startswith(".")]

    @cached_property
    def members(self) -> list[str]:
        """Names of all files below a folder or in an archive, with "/" between folders."""
        return [name for name, _ in textfiles.members(self.path)] if self.path and self._holds_files else []

    @property
    def _holds_files(self) -> bool:
        return self.is_folder or self.is_archive

    @cached_property
    def tables(self) -> list[str]:
        """Names of the tables in a folder or archive; a .txt is a text."""
        from papertrial.data.tables.files import SUFFIXES

        plain = [name for name in self.members if ".txt" not in Path(name).suffixes]
        return [name for name in plain if Path(textfiles.bare_name(name.lower())).suffix in SUFFIXES]

    @cached_property
    def mostly(self) -> str:
        """What most files of a folder or an archive hold: `table`, `text`, or `images` where it is neither; "" for others."""
        if not self._holds_files:
            return ""
        pictures = sum(os.path.splitext(name)[1].lower() in EXTENSIONS for name in self.members)
        texts = sum(map(textfiles.is_text, self.members))
        tables = sum("/" not in name for name in self.tables) if self.is_folder else len(self.tables)
        if self.tables and (max(texts, pictures + self.is_archive) <= tables or not texts + pictures):
            return "table"
        if texts or pictures:
            return "text" if texts > pictures else "images"
        return "text" if any(textfiles.part_of(name) is not None for name in self.members) else "images"

    # -- objects --------------------------------------------------------------------------------------------------

    @cached_property
    def form(self) -> str:
        """What an object is: `hub`, `frame`, `dataset` (of torch), `parts` (of files or frames), `records`, `strings`, or
        else `arrays`; `path` for what is read from files, but data sets of the hub."""
        source, torch = self.source, sys.modules.get("torch")
        if foreign.is_hub(source) or any(file.name in _HUB_FILES for file in self.files):
            return "hub"
        if self.path is not None:
            return "path"
        if is_frame(source):
            return "frame"
        if torch is not None and isinstance(source, torch.utils.data.Dataset):
            return "dataset"
        if self._in_parts:
            if any(isinstance(value, str | Path) or is_frame(value) for value in source.values()):
                return "parts"
            return "strings" if self.strings else "arrays"
        if isinstance(source, Mapping) or (isinstance(source, list) and source and isinstance(source[0], Mapping)):
            return "records"
        if self.strings:
            return "strings"
        return "frame" if is_frame(pair_of(source)[0]) else "arrays"

    @cached_property
    def _in_parts(self) -> bool:
        source = self.source
        return isinstance(source, Mapping) and bool(source) and all(str(key).lower() in PARTS for key in source)

    @cached_property
    def _parted(self) -> dict[int, Any]:
        """An object by part: all of it is part 0 where it is not given in parts."""
        if not self._in_parts:
            return {0: self.source}
        return dict(sorted((PARTS[str(key).lower()], value) for key, value in self.source.items()))

    @cached_property
    def hub(self) -> foreign.Hub | None:
        """A data set of the hub, loaded: its splits and their features. Raises DataError when it cannot be."""
        if self.form != "hub":
            return None
        if not isinstance(self.source, str | Path):
            return foreign.hub_of(self.source, "data set")
        return foreign.load(str(self.source).removeprefix("hf:"))

    @cached_property
    def items(self) -> foreign.Items | None:
        """The items of a torch Dataset, read."""
        return foreign.items_of(self.source) if self.form == "dataset" else None

    @cached_property
    def strings(self) -> dict[int, tuple[Any, Any]] | None:
        """part -> (strings or pairs of strings, labels or None); None where that is not what an object holds."""
        split = {part: _texts_and_target(value) for part, value in self._parted.items()}
        return split if {_strings_of(texts) for texts, _ in split.values()} in ({"text"}, {"pairs"}) else None

    @property
    def in_pairs(self) -> bool:
        """Whether the strings are pairs."""
        return bool(self.strings) and all(_strings_of(texts) == "pairs" for texts, _ in (self.strings or {}).values())

    @cached_property
    def arrays(self) -> Parts | None:
        """Arrays of an object or of a .npy or .npz file; None where it is neither.

        Raises DataError for what is no array, and for a target of another length.
        """
        if self.suffix in (".npy", ".npz"):
            assert self.path is not None
            found: Mapping[int, tuple[Any, Any]] = numpy_parts(self.path)
        elif self.form == "arrays":
            found = {part: pair_of(value) for part, value in self._parted.items()}
        else:
            return None
        return {part: (array_of(x), None if y is None else target_of(x, y)) for part, (x, y) in found.items()}

    @property
    def axes(self) -> set[int]:
        """How many axes the arrays have."""
        return {x.ndim for x, _ in self.arrays.values()} if self.arrays is not None else set()


def is_frame(source: Any) -> bool:
    """Whether it is a frame of pandas, polars or Arrow."""
    return type(source).__module__.partition(".")[0] in _FRAMES


def _texts_and_target(value: Any) -> tuple[Any, Any]:
    if isinstance(value, tuple) and len(value) == 2 and _strings_of(value[0]) and not isinstance(value[0], str):
        return value
    return value, None


def _strings_of(values: Any) -> str:
    """`text` for a list (or array) of strings, `pairs` for one of pairs of strings, "" for anything else."""
    array = isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "UO"
    if array or type(values).__name__ == "Series":
        values = values.tolist()
    if not isinstance(values, list | tuple) or not values:
        return ""
    if all(isinstance(value, str) or value is None for value in values):
        return "text" if any(isinstance(value, str) for value in values) else ""
    pairs = all(isinstance(value, tuple | list) and len(value) == 2 for value in values)
    return "pairs" if pairs and all(isinstance(text, str) for value in values for text in value) else ""
