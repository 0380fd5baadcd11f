"""An index on disk: a folder with a manifest and the arrays of one generation.

index/
  manifest.json      what the index holds; written last, it names the generation that counts
  generation-3/      arrays, one .npy each, read by memory mapping; never changed once written
  encoded/           vectors of a build that is going on, batch by batch; removed when it is done

A build writes the next generation beside the one that is in use, then the manifest, then removes what it replaced. Killed
at any moment it leaves the old index as it was; what had been encoded until then is used by the next build. One process
at a time builds; searching needs no lock.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from papertrial.core.errors import PapertrialError, did_you_mean
from papertrial.core.files import disk_errors, read_json, write_json, write_with
from papertrial.core.task import Ragged
from papertrial.data.collections import Collection
from papertrial.data.collections.analyse import Analyser
from papertrial.data.collections.bm25 import Bm25
from papertrial.data.collections.files import Document

FORMAT = 2
MANIFEST, ENCODED = "manifest.json", "encoded"
_DOCUMENTS = ("text", "offsets", "title_bytes", "ids", "id_offsets", "place", "hashes")
_WORDS = ("words", "word_offsets", "starts", "documents", "counts", "lengths")
_BLOCK = 4096  # rows copied at a time


class Store:
    """What is in an index. manifest: the content of manifest.json.

    ids, text: Ragged UTF-8; a text is a title, a line break and the rest, `title_bytes` int64 (documents,) says where the
    title ends.  place: int64, of the id among all ids in ascending order.  hashes: uint8 (documents, 16), of the texts.
    bm25: the words.  vectors: float32 (documents, width), of length one, or None.
    """

    def __init__(self, folder: Path, manifest: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        self.folder, self.manifest = folder, dict(manifest)
        self.ids = Ragged(arrays["ids"], arrays["id_offsets"])
        self.text = Ragged(arrays["text"], arrays["offsets"])
        self.title_bytes, self.place, self.hashes = (arrays[name] for name in ("title_bytes", "place", "hashes"))
        self.bm25 = Bm25.from_arrays({name: arrays[name] for name in _WORDS}, Analyser(**manifest["words"]["made"]))
        self.vectors = arrays.get("vectors")
        rows = {len(self.ids), len(self.text), len(self.title_bytes), len(self.place), len(self.hashes), len(self.bm25)}
        rows |= set() if self.vectors is None else {len(self.vectors)}
        if rows != {manifest["documents"]}:
            raise ValueError(f"arrays of {sorted(rows)} rows for {manifest['documents']} documents")

    @property
    def generation(self) -> Path:
        return self.folder / self.manifest["generation"]

    def id(self, row: int) -> str:
        return bytes(self.ids[row]).decode("utf-8", "replace")

    def document(self, row: int) -> Document:
        text, title = self.text[row], int(self.title_bytes[row])
        rest = bytes(text[title:]).decode("utf-8", "replace")
        return Document(self.id(row), bytes(text[:title]).decode("utf-8", "replace"), rest[1:] if title else rest)

    @property
    def bytes(self) -> int:
        """Of all files of the index."""
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())


def in_memory(data: Collection) -> Store:
    """The documents of a collection as an index without files."""
    names = Ragged.of_texts(list(data.ids))
    arrays = {
        "text": data.text.values, "offsets": data.text.offsets, "title_bytes": data.title_bytes, "ids": names.values,
        "id_offsets": names.offsets, "place": data.documents["place"], "hashes": hashes_of(data), **data.bm25.arrays(),
    }  # fmt: skip
    return Store(Path(data.name), {"documents": len(names), "words": words_made(data.bm25), "dense": None}, arrays)


def words_made(bm25: Bm25) -> dict[str, Any]:
    """What the manifest keeps of how words are made. key: differs where they would be made in another way now."""
    return {"made": vars(bm25.analyser), "key": bm25.analyser.key}


def hashes_of(data: Collection) -> np.ndarray:
    """uint8 (documents, 16), of title and text."""
    found = np.empty((len(data.text), 16), dtype=np.uint8)
    for row in range(len(data.text)):
        content = data.text[row].tobytes() + int(data.title_bytes[row]).to_bytes(8, "little")
        found[row] = np.frombuffer(hashlib.blake2b(content, digest_size=16).digest(), dtype=np.uint8)
    return found


def read(folder: Path | str) -> Store:
    """The index in a folder. Raises PapertrialError when there is none, or it is damaged or of a newer format."""
    folder = Path(folder).expanduser()
    if not (folder / MANIFEST).is_file():
        raise _no_index(folder)
    for attempt in (0, 1):
        manifest = read_json(folder / MANIFEST)
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise PapertrialError(
                f"{folder / MANIFEST} is of no format that this papertrial reads ({FORMAT})",
                "type: papertrial index CORPUS --out INDEX --fresh",
            )
        try:
            wanted = (*_DOCUMENTS, *_WORDS, *(["vectors"] if manifest["dense"] else []))
            arrays = {name: _load(folder / Path(manifest["generation"]).name / f"{name}.npy") for name in wanted}
            return Store(folder, manifest, arrays)
        except FileNotFoundError as error:
            if attempt:  # the first time another process may have put a new generation in its place
                raise damaged(folder, f"{Path(error.filename).name} is missing") from None
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise damaged(folder, str(error)) from None
    raise AssertionError


def _no_index(folder: Path) -> PapertrialError:
    if folder.exists():
        return PapertrialError(f"{folder} is not an index", f"make one: papertrial index {folder} --out INDEX")
    beside = [entry.name for entry in folder.parent.iterdir() if entry.is_dir()] if folder.parent.is_dir() else []
    beside += ["list"] if folder.parent == Path() else []
    words = did_you_mean(folder.name, beside) if beside else ""
    return PapertrialError(
        f"there is no index {str(folder)!r}",
        words if words.startswith("did you mean") else "make one: papertrial index CORPUS --out INDEX",
    )


def damaged(folder: Path, why: str) -> PapertrialError:
    """The error for files that are not what was written."""
    return PapertrialError(
        f"the index {folder} is damaged ({why})", "type: papertrial index CORPUS --out INDEX --fresh"
    )


def _load(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:  # an empty array cannot be mapped
        return np.load(path, allow_pickle=False)


def save(folder: Path, manifest: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    """Write a new generation and let the manifest name it. An array may be `Chunks`, for one that is not in memory."""
    inside = folder / manifest["generation"]
    for name, array in arrays.items():
        chunks = array if isinstance(array, Chunks) else Chunks(array.shape, array.dtype, [array])
        write_with(inside / f"{name}.npy", chunks.write)
    write_json(folder / MANIFEST, manifest)
    tidy(folder)


def tidy(folder: Path) -> None:
    """Remove generations that the manifest does not name: those replaced, and what a killed build left."""
    held = read_json(folder / MANIFEST)["generation"] if (folder / MANIFEST).exists() else None
    with disk_errors(folder):
        for entry in folder.glob("generation-*"):
            if entry.name != held:
                shutil.rmtree(entry)


class Chunks:
    """An array given in pieces that follow each other, so that it need not fit into memory."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, pieces: Iterable[np.ndarray]) -> None:
        self.shape, self.dtype, self.pieces = shape, np.dtype(dtype), pieces

    def write(self, path: Path) -> None:
        header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": self.shape}
        with open(path, "wb") as stream:
            np.lib.format.write_array_header_1_0(stream, header)
            for piece in self.pieces:
                stream.write(np.ascontiguousarray(piece, dtype=self.dtype).reshape(-1).view(np.uint8).data)


def rows_of(column: Any, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Some rows of an array or the values of Ragged ones, in blocks."""
    for begin in range(0, len(rows), _BLOCK):
        taken = column[rows[begin : begin + _BLOCK]]
        yield taken.values if isinstance(taken, Ragged) else taken
