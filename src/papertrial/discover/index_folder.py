"""An index on disk: a folder with a manifest and the arrays of one generation.

index/
  manifest.json      what the index holds; written last, it names the generation that counts
  generation-3/      arrays, one .npy each, read by memory mapping; never changed once written
  encoded/           vectors of a build that is going on, batch by batch; removed when it is done
  .papertrial.json   the marker that makes the folder an index, and lists all of the above (`core.ours`)

A build writes the next generation beside the one that is in use, then the manifest, then removes what it replaced. Killed
at any moment it leaves the old index as it was; what had been encoded until then is used by the next build. One process
at a time builds; searching needs no lock. Nothing is removed while the manifest or what it names cannot be read.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from typing_extensions import NotRequired, TypedDict

from papertrial.core import ours
from papertrial.core.doors import Damaged, Door, check_sums, read_array, sums
from papertrial.core.errors import PapertrialError, did_you_mean
from papertrial.core.files import read_json, write_with
from papertrial.core.ours import Marked
from papertrial.core.task import Ragged
from papertrial.data.collections import Collection
from papertrial.data.collections.analyse import Analyser
from papertrial.data.collections.bm25 import Bm25
from papertrial.data.collections.files import Document

FORMAT = 2
MANIFEST, ENCODED = "manifest.json", "encoded"
_WORDS = ("words", "word_offsets", "starts", "documents", "counts", "lengths")
#: the arrays, with the kinds of their numbers and how many axes they have
_KINDS = {
    "text": ("u", 1), "offsets": ("i", 1), "title_bytes": ("i", 1), "ids": ("u", 1), "id_offsets": ("i", 1), "place": ("i", 1),
    "hashes": ("u", 2), "words": ("u", 1), "word_offsets": ("i", 1), "starts": ("i", 1), "documents": ("i", 1),
    "counts": ("u", 1), "lengths": ("i", 1), "vectors": ("f", 2),
}  # fmt: skip
_FILES = (MANIFEST, *(f"{name}.npy" for name in _KINDS), "vectors.faiss")
_TEMPORARY = re.compile(r"\..+\..{8}\.tmp|\.tmp.{6}")
_BLOCK = 4096  # rows copied at a time
_CHECKED = 64 << 20  # bytes of files that are compared with their checksums each time


class _Words(TypedDict):
    made: dict[str, Any]
    key: str


class _Dense(TypedDict):
    encoder: str
    version: str
    kind: str


class Manifest(TypedDict):
    """manifest.json. sums: SHA-256 of the files of the generation, by name."""

    format: int
    generation: str
    documents: int
    words: _Words
    dense: _Dense | None
    corpus: NotRequired[dict[str, Any] | None]
    sums: NotRequired[dict[str, str]]


DOOR = Door(Manifest, "type: papertrial index CORPUS --out {folder} --fresh", FORMAT)


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


def read(folder: Path | str, whole: bool = False) -> Store:
    """The index in a folder; where its manifest is damaged, by the copy of it that each generation holds.

    whole: compare all files with their checksums; else those of an index so small that it takes no time.

    Raises PapertrialError when there is none, or it is damaged or of another format.
    """
    folder = Path(folder).expanduser()
    copies = sorted(folder.glob(f"generation-*/{MANIFEST}"), key=lambda file: number_of(file.parent.name), reverse=True)
    first: PapertrialError | None = None
    for file in (folder / MANIFEST, *copies):
        try:
            if file.is_file():
                return _read(folder, file, whole)
        except PapertrialError as error:
            first = first or error
    raise first or _no_index(folder)


def _read(folder: Path, file: Path, whole: bool) -> Store:
    for attempt in (0, 1):
        manifest = DOOR.read(file)
        inside = folder / Path(manifest["generation"]).name
        kinds = _KINDS if manifest["dense"] else {name: kind for name, kind in _KINDS.items() if name != "vectors"}
        try:
            arrays = {
                name: read_array(inside / f"{name}.npy", DOOR.repair(file), *kind) for name, kind in kinds.items()
            }
            if whole or sum(array.nbytes for array in arrays.values()) <= _CHECKED:
                check_sums(inside, manifest.get("sums", {}), DOOR.repair(file))
            return Store(folder, manifest, arrays)
        except Damaged:
            if attempt or all((inside / f"{name}.npy").exists() for name in kinds):
                raise
        except (LookupError, TypeError, ValueError) as error:
            raise damaged(folder, str(error)) from None
    raise AssertionError


def number_of(generation: str) -> int:
    """The number in the name of a generation; 0 for any other name."""
    number = generation.removeprefix("generation-")
    return int(number) if number != generation and number.isdecimal() else 0


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
    return DOOR.damaged(folder / MANIFEST, why)


@contextmanager
def held(folder: Path) -> Iterator[Marked]:
    """Own the folder as an index, made where it is not there. Raises PapertrialError where it is something else."""
    with ours.held(folder, "index", [MANIFEST], _recognised) as mine:
        yield mine


def require(folder: Path) -> None:
    """Raise PapertrialError where an index could not be made: other files lie there."""
    ours.examine(folder, "index", _recognised)


def _recognised(folder: Path) -> list[str]:
    """What an earlier version left without a marker, told by all the files of each generation and of the batches of vectors.

    What else is in the folder is the user's where a manifest says that it is an index; else there must be nothing.
    """
    known: dict[str, list[str]] = {}
    for place in (folder / name for name in ours.visible(folder)):
        files = sorted(place.iterdir()) if place.is_dir() and not place.is_symlink() else []
        made = [file for file in files if not _TEMPORARY.fullmatch(file.name)]
        if made and all(map(_is_batch if place.name == ENCODED else _is_array, made)):
            known[place.name] = [f"{place.name}/{file.name}" for file in files]
    names = [name for found in known.values() for name in found]
    manifest = _manifest(folder / MANIFEST)
    if manifest.get("generation") in known:
        return [MANIFEST, *names]
    first = any(name == ENCODED or f"{name}/text.npy" in found for name, found in known.items())
    return names if first and known.keys() >= {*ours.visible(folder)} - {MANIFEST} else []


def _is_array(file: Path) -> bool:
    """Whether a file is one of a generation, by its name, its folder's, and for the text also by what it holds."""
    if not number_of(file.parent.name) or file.name not in _FILES:
        return False
    try:
        return file.name != "text.npy" or read_array(file, "").dtype == np.uint8
    except PapertrialError:
        return False


def _is_batch(file: Path) -> bool:
    """Whether a file holds vectors of a build that was going on."""
    try:
        with safe_open(file, framework="numpy") as held:
            return set(held.keys()) == {"hashes", "vectors"}
    except (OSError, SafetensorError):
        return False


def _manifest(file: Path) -> dict[str, Any]:
    """A manifest of whatever format; empty where there is none, or it is not whole."""
    try:
        manifest = read_json(file)
    except PapertrialError:
        return {}
    whole = isinstance(manifest, dict) and {"format", "generation", "documents", "corpus", "dense"} <= manifest.keys()
    return manifest if whole and isinstance(manifest["generation"], str) else {}


def next_generation(mine: Marked) -> Path:
    """The folder of the next generation, with its files listed. A folder of that name that is not ours is passed over."""
    taken = [*(entry.partition("/")[0] for entry in mine.entries), *ours.visible(mine.folder)]
    generation = f"generation-{1 + max(map(number_of, taken), default=0)}"
    mine.add(*(f"{generation}/{name}" for name in _FILES))
    return mine.folder / generation


def save(mine: Marked, manifest: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    """Write a new generation and let the manifest name it. An array may be `Chunks`, for one that is not in memory."""
    inside = mine.folder / manifest["generation"]
    for name, array in arrays.items():
        chunks = array if isinstance(array, Chunks) else Chunks(array.shape, array.dtype, [array])
        write_with(inside / f"{name}.npy", chunks.write)
    content = {**manifest, "sums": sums(inside, [f"{name}.npy" for name in arrays])}
    for place in (inside, mine.folder):
        DOOR.write(place / MANIFEST, content)


def tidy(mine: Marked, store: Store, encoded: bool) -> None:
    """Remove generations that `store`, which could be read, has replaced, and what a killed build left of them.

    encoded: and the vectors of a build that was going on.
    """
    held = store.generation.name
    gone = {entry for entry in mine.entries if number_of(entry.partition("/")[0]) and entry.partition("/")[0] != held}
    mine.drop(*gone, *(entry for entry in mine.entries if encoded and entry.startswith(f"{ENCODED}/")))


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
