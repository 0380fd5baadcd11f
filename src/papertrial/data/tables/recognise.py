"""Which sources hold a table, and how they are opened."""

from __future__ import annotations

from pathlib import Path

from papertrial.core.wording import counted
from papertrial.data import members, textfiles
from papertrial.data.arrays import pair_of
from papertrial.data.base import Data
from papertrial.data.foreign import Hub
from papertrial.data.given import Given, is_frame
from papertrial.data.layout import PARTS
from papertrial.data.tables import Table
from papertrial.data.tables.files import holds_prose, is_table
from papertrial.data.tables.reading import Reading

_PART_NAMES = ("train", "valid", "test")


def opens(given: Given) -> Data | None:
    """A table from files, the hub, a torch Dataset of vectors, frames, records or arrays of two axes; None for anything else."""
    if given.form == "path" and given.path is not None and (found := _from_files(given, given.path)):
        return found
    if given.hub is not None:
        return _from_hub(given.hub, given.target, given.reading)
    if given.items is not None and given.items.arrays is not None:
        return _named(Table.from_arrays(given.items.arrays, given.items.labels), given.items.name)
    if given.form == "frame":
        x, y = pair_of(given.source)
        return (
            Table.from_frame(x, given.target, reading=given.reading)
            if is_frame(given.source)
            else Table.from_arrays(x, y)
        )
    if given.form == "parts":
        return Table.from_parts(given.source, given.target, given.reading)
    if given.form == "records":
        import pandas as pd

        return Table.from_frame(pd.DataFrame(given.source), given.target, reading=given.reading)
    return _from_arrays(given) if given.axes == {2} else None


def _from_files(given: Given, path: Path) -> Table | None:
    if given.is_folder or given.is_archive:
        return _from_several(given, path) if given.mostly == "table" else None
    plain = textfiles.bare_name(path.name.lower())
    if is_table(path) and not (plain.endswith(".txt") and holds_prose(path)):
        return Table.from_file(path, given.target, given.reading)
    return None


def _from_several(given: Given, path: Path) -> Table:
    """The table that the files of a folder or archive make. Raises DataError where they are several tables."""
    if given.is_archive and is_table(path):  # a zip of one, read as it is
        return Table.from_file(path, given.target, given.reading)
    right_there = [name for name in given.tables if "/" not in name]
    names = right_there or given.tables
    folders = {name.rpartition("/")[0] for name in names}
    if len(folders) > 1:
        raise members.several(path, given.tables, "tables")
    table = Table.from_folder(members.taken_out(path, names) / folders.pop(), given.target, path, given.reading)
    if below := len(given.tables) - len(names):
        line = f"left out: {counted(below, 'table')} in folders below; name one behind #"
        table.note(line)
        table.read_notes += (line,)
    return table


def _from_arrays(given: Given) -> Table:
    import pandas as pd

    arrays = given.arrays or {}
    if len(arrays) == 1:
        return _named(Table.from_arrays(*next(iter(arrays.values()))), given.name)
    frames = {}
    for part, (x, y) in arrays.items():
        columns = {f"c{index}": column for index, column in enumerate(x.T)}
        frames[_PART_NAMES[part]] = pd.DataFrame(columns if y is None else {**columns, "target": y})
    labelled = any(y is not None for _, y in arrays.values())
    return _named(Table.from_parts(frames, "target" if labelled else None), given.name)


def _named(table: Table, name: str) -> Table:
    table.name = name
    return table


def _from_hub(hub: Hub, target: str | None, reading: Reading | None) -> Table:
    frames = {}
    for split, held in hub.splits.items():
        frame = held.to_pandas()
        for column, feature in held.features.items():
            names = getattr(feature, "names", None)
            if names:  # class codes as the words they stand for; -1 is how datasets writes a missing label
                frame[column] = [names[code] if code is not None and code >= 0 else None for code in held[column]]
        frames[_PART_NAMES[PARTS[split.lower()]]] = frame
    table = (
        Table.from_parts(frames, target, reading)
        if len(frames) > 1
        else Table.from_frame(next(iter(frames.values())), target, reading=reading)
    )
    for line in hub.notes:
        table.note(line)
    return _named(table, hub.name)
