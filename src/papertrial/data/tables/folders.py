"""Which files of a folder are one table, and in which part of a split each is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from papertrial.core.errors import DataError
from papertrial.data.members import names_in, several
from papertrial.data.tables.delimited import CsvFile
from papertrial.data.tables.files import ParquetFile, Source, is_table, source_of
from papertrial.data.textfiles import part_of


def files_of_one(folder: Path, named: Path, columns: Sequence[str] = ()) -> list[tuple[int, Source]]:
    """(part, source) of each: one file, pieces that share their columns, or train.*, test.* (and valid.*) files.

    named: what the user gave, where that is an archive, or a folder around this one.  columns: what they are called, where
    that is known.  Raises DataError for several tables, and where there is none.
    """
    files = sorted(entry for entry in folder.iterdir() if is_table(entry) and not entry.name.startswith("."))
    if not files:
        raise DataError(f"{named} holds no table", "known: csv, tsv, json, jsonl, parquet")
    parts = [part_of(file.name) for file in files]
    left: list[str] = []
    if 0 in parts and (1 in parts or 2 in parts):
        chosen = [(part, source_of(file, columns)) for part, file in zip(parts, files, strict=True) if part is not None]
        left = [file.name for part, file in zip(parts, files, strict=True) if part is None]
    else:
        chosen = [(0, source_of(file, columns)) for file in files]
    if not _are_pieces([source for _, source in chosen]):
        listed = {file.name for file in files}
        raise several(named, [name for name in names_in(named) if Path(name).name in listed], "tables")
    if left:
        chosen[0][1].notes.append(f"left out: {', '.join(left)}, named after no part of a split")
    return chosen


def _are_pieces(sources: Sequence[Source]) -> bool:
    """Whether files hold one table: each has half of the columns of the first, or more."""
    columns = [
        set(source.names if isinstance(source, CsvFile | ParquetFile) else next(source.pieces()).columns)
        for source in sources
    ]
    return all(len(columns[0] & own) >= len(columns[0]) / 2 for own in columns[1:])
