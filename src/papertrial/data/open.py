"""One door for data: `open(source)` asks each kind whether the source is its own, and returns what that kind makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np

from papertrial.core import registry
from papertrial.core.arguments import Names, typed
from papertrial.core.errors import DataError, did_you_mean
from papertrial.core.kind import load
from papertrial.data import foreign, members
from papertrial.data.base import Data, accepted
from papertrial.data.belonging import NONE
from papertrial.data.given import Given


@typed
def open(
    source: Any,
    target: str | int | None = None,
    *,
    name: str | None = None,
    like: Mapping[str, Any] | None = None,
    group: str | None = None,
    time: str | None = None,
    dates: str | None = None,
    missing: Names | None = None,
) -> Data:
    """Images, a Table, Texts, Pairs, Judged outputs or a Collection from whatever `source` is, or data of another package's kind.

    - a path: a folder or archive (.tar, .tar.gz, .tar.xz, .zip) of images or texts; one image; idx files (MNIST) or
      CIFAR-10 binary batches, plain or packed; a text file, plain or packed, whose lines are the texts; CSV, TSV, JSON,
      JSON Lines or Parquet, or a folder of them, or one in a zip; .npy and .npz. Images may have captions beside them or in the archive
      (captions.jsonl, captions.csv, metadata.csv, COCO, a .txt per image), and a file of captions opens the images that
      it names; `images#name` takes the captions from the column `name`. A table in which all columns besides the target are text
      holds texts; `reviews.csv#body` names the column of text, `pairs.csv#first,second` two for pairs. One with the columns
      system, reference and output (and score) holds judged outputs
    - a file in a folder or archive of several: `sets.tar.gz#2012/test.tsv`, and `sets.zip#train.csv#body` with a column
    - a collection to search: a BEIR folder, SQuAD JSON, a table of questions, sentences and labels (where neither
      columns nor a target are named)
    - a name: digits, iris, wine, breast_cancer, diabetes, python-docs, python-source,
      python-lines, python-pairs, python-outputs, docstrings; `hf:<id>` or
      `hf:<id>:<configuration>` of the Hugging Face hub, or `hf:<folder>`
    - an object: arrays `X` or `(X, y)`, where two dimensions are a table and more are images; strings, or pairs of
      them, alone or with labels; a data frame; a torch Dataset of (image or vector, label) items; a Hugging Face data
      set; {"train": ..., "test": ...} of arrays, strings or frames; opened data itself

    source: the data.  target: the column to predict (tables, and data sets of the hub).  name: what to call the data.  like: `columns` of
    the texts or `read_as` of the table that a model was trained on, so that a table is read in the same way.
    group: the column that says which rows belong together (a patient, a user, a document), of the table or of a table beside
    the images; or a regular expression with one group in brackets, for the paths of files or the ids of queries; "none" for
    none, also where one would be guessed.  time: the column (or the like) that says when rows are from, numbers or dates:
    what is learnt is then tried on what came later.
    dates: `dmy` or `mdy`, which comes first in dates such as 3/4/2024 where a column does not tell.  missing: the texts that
    stand for a missing value in a table beside empty cells, such as "NA,-999", or "none"; the usual ones where left out.
    Raises DataError that says what was found and what is accepted. Pickles are never loaded.

        >>> import papertrial as pt
        >>> data = pt.open("iris")
        >>> len(data), data.target_kind
        (150, 'multiclass')
    """
    if isinstance(source, Data):
        if group or time:
            source = copy(source)
            source.belong(group, time)
        return source
    target = None if target is None else str(target)  # columns of frames may be called by numbers
    place, member, columns = _taken_apart(source)
    file = members.taken(Path(place).expanduser(), member) if member else place
    from papertrial.data.tables.reading import Reading  # pandas is not for those who only search

    given = Given(file, target, columns, like, Reading.of(dates, missing, like))
    try:
        data = _opened(given)
    except OSError as error:
        raise DataError(
            f"{source} cannot be read ({error.strerror or error})", "check the path and its rights"
        ) from error
    if columns and not data.takes_columns:
        raise DataError(
            f"{data.name} is not a table, so it has no column {columns[0]!r}", "leave # and what follows out"
        )
    table = data if data.kind == "table" else None
    if table is not None:
        if group or time:
            table.belong(group, time)
        data = _read_out(data, given)
    elif dates or missing is not None:
        raise DataError(f"{data.name} is not a table", f"leave --{'dates' if dates else 'missing'} out")
    data = _belonging(data, table, group, time)
    if target is not None and not data.target_is_column and not foreign.is_hub(source):
        raise DataError(f"{data.name} holds {data.kind}, whose labels are no column {target!r}", "leave the target out")
    data.name = name or (f"{Path(place).name}#{member}" if member else data.name)
    if isinstance(source, str | Path):
        path = Path(place).expanduser()
        data.source = str(path.resolve()) + str(source)[len(str(place)) :] if path.exists() else str(source)
    return data


def _taken_apart(source: Any) -> tuple[Any, str, tuple[str, ...]]:
    """`path#member#first,second` in three, where no file is called so: a folder or archive, a file in it, and columns."""
    if not isinstance(source, str | Path) or "#" not in str(source) or Path(source).expanduser().exists():
        return source, "", ()
    words = str(source)
    place, _, rest = words.partition("#")
    there = members.names_in(Path(place).expanduser())
    if rest in there:
        return place, rest, ()
    words, _, named = words.rpartition("#")
    columns = tuple(named.split(",")) if named else ()
    member = words[len(place) + 1 :] or rest
    endings = {Path(name).suffix for name in there} - {""}
    return (place, member, columns) if Path(member).suffix in endings else (words, "", columns)


def _opened(given: Given) -> Data:
    """The data of the first kind that knows the source as its own."""
    if given.path is not None and "://" in str(given.source):
        raise DataError(f"{given.source} is an address, and data is read from files", "download it, and give the file")
    if given.path is not None and (not str(given.source) or not given.path.exists()):
        return _built_in(str(given.source), given)
    for kind in registry.kinds().values():
        opens = kind.made("opens")
        data: Data | None = opens(given) if opens else None
        if data is not None:
            return data
    raise _unknown(given)


def _read_out(table: Data, given: Given) -> Data:
    """What a table holds, where a kind finds data of its own in it; else the table."""
    for kind in registry.kinds().values():
        reads = kind.made("reads")
        data: Data | None = reads(table, given) if reads else None
        if data is not None:
            return data
    return table


def _belonging(data: Data, table: Data | None, group: str | None, time: str | None) -> Data:
    """The data with the groups and times that the user named, or that were found in the table they come from."""
    if table is data:
        return data
    if table is None:
        data.belong(group, time)
        return data
    if data.kind == "collection":
        if group not in (None, NONE) or time:
            raise DataError(
                f"{data.name} holds questions, which have no column of groups or times", "leave --group and --time out"
            )
        return data
    rows = np.asarray(data.names) - 1  # of texts from a table: the rows of the table, from 1
    data.group, data.asked_group, data.time, data.dates = table.group, table.asked_group, table.time, table.dates
    data.together = None if table.together is None else table.together[rows]
    data.times = None if table.times is None else table.times[rows]
    if table.group_note:
        data.note(table.group_note)
        data.tell_straddling()
    return data


def _built_in(name: str, given: Given) -> Data:
    """Built-in data by name. Raises DataError for a name that is neither that nor a file."""
    samples = registry.samples()
    if name not in samples:
        assert given.path is not None
        beside = [entry.name for entry in given.path.parent.iterdir()] if given.path.parent.is_dir() else []
        known = [*samples, *beside] if given.path.name == name else beside
        words = did_you_mean(given.path.name, known) if known else ""
        raise DataError(
            f"there is no {name!r} here, and no built-in data of that name",
            words if words.startswith("did you mean") else accepted(),
        )
    data: Data = load(samples[name])()
    if given.target is not None and getattr(data, "target", given.target) != given.target:
        raise DataError(f"the target of {name} is {data.target!r}", "leave the target out")  # type: ignore[attr-defined]
    return data


def _unknown(given: Given) -> DataError:
    """What no kind knows, in words."""
    if given.arrays is not None and all(not x.ndim for x, _ in given.arrays.values()):
        return DataError(f"data of the type {type(given.source).__name__} are not known", accepted())
    if given.arrays is not None:
        shapes = ", ".join(str(x.shape) for x, _ in given.arrays.values())
        return DataError(f"an array of shape {shapes} is neither a table (2 axes) nor images (3 or 4)", accepted())
    if given.is_sheet:
        return DataError(f"{given.path} is a spreadsheet", "save it as CSV, and give that file")
    if given.is_pickle:
        return DataError(f"{given.path} is a pickle: it could run any code, so it is never loaded", accepted())
    return DataError(f"{given.path} is a file of a kind that is not known", accepted())
