"""Make an index, and keep it equal to a corpus: what changed is counted and encoded again, the rest is taken over."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from papertrial.core import memory, ours
from papertrial.core.arguments import Names, typed
from papertrial.core.budget import duration
from papertrial.core.errors import PapertrialError, did_you_mean
from papertrial.core.files import read_json, write_json, write_with
from papertrial.core.ours import Marked
from papertrial.core.task import Ragged
from papertrial.core.wording import counted, several
from papertrial.data.base import track
from papertrial.data.collections import Collection, texts_of
from papertrial.data.collections.analyse import USUAL, Analyser, main_language
from papertrial.data.collections.bm25 import Bm25
from papertrial.discover import dense
from papertrial.discover.index_folder import (
    ENCODED,
    FORMAT,
    MANIFEST,
    Chunks,
    Store,
    hashes_of,
    held,
    next_generation,
    read,
    require,
    rows_of,
    save,
    tidy,
    words_made,
)

_BATCH = 1024  # documents that are encoded, then kept on disk


@dataclass(frozen=True)
class Indexed:
    """What `index` did. seconds: by stage.  latency: median seconds of a search for words of the corpus, by mode.

    memory: bytes that searching the vectors takes.  recall: of the ten nearest vectors, against an exact search.
    """

    folder: str
    documents: int
    added: int
    changed: int
    removed: int
    kept: int
    encoded: int
    words: int
    bytes: int
    seconds: dict[str, float]
    latency: dict[str, float] = field(default_factory=dict)
    encoder: str | None = None
    kind: str | None = None
    memory: int | None = None
    recall: float | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@typed
def index(
    corpus: Path | str | Collection | None = None,
    out: Path | str = "index",
    *,
    encoder: str | dense.TextEncoder | None = None,
    kind: str | None = None,
    stem: bool | None = None,
    add: bool = False,
    delete: Names = (),
    fresh: bool = False,
    echo: Callable[[str], None] = lambda line: None,
) -> Indexed:
    """Make the index in `out`, or bring it up to date.

    corpus: a path that `Collection.from_path` takes, or a Collection; None only deletes.  Documents are known by their
    ids: new ones are added, those with another text replaced, and those that the corpus has no longer removed, unless
    `add` keeps them.  delete: ids to remove.  encoder: see `dense.encoder`; an index that has vectors keeps its encoder,
    "none" drops them.  kind: one of `dense.KINDS` instead of that by size.  stem: words of one stem and with other
    accents count as the same, by the language of most documents; True where it is left out.
    fresh: make it anew.  echo: takes the lines said on the way.

    Raises PapertrialError for an unknown kind, for an id to delete that is not there, when memory has no room, or while another process builds;
    DataError for a corpus that cannot be read.

        >>> import papertrial as pt
        >>> from pathlib import Path
        >>> Path("notes").mkdir()
        >>> Path("notes/sea.txt").write_text("The sea is deep.") > 0
        True
        >>> pt.index("notes", "notes.index").documents
        1
        >>> pt.search("notes.index", "deep").hits[0].id
        'sea.txt'
    """
    if kind is not None and kind not in dense.KINDS:  # before anything is read or made
        raise PapertrialError(f"there is no kind of index {kind!r}", did_you_mean(kind, dense.KINDS))
    folder = Path(out).expanduser()
    require(folder)
    data = Collection.from_path(Path(corpus).expanduser()) if isinstance(corpus, str | Path) else corpus
    if data is None and not delete:
        raise PapertrialError("there is nothing to index", "name a corpus, or ids with --delete")
    with held(folder) as mine:
        store = None if fresh else _held(folder, echo)
        if data is None and store is None:
            raise PapertrialError(f"{folder} holds no index to delete from", "type: papertrial index CORPUS")
        if store is not None:
            tidy(mine, store, encoded=False)
        try:
            return _Build(mine, store, data, encoder, kind, stem, add, several(delete), echo).run()
        except PapertrialError:
            if not ours.visible(folder):
                mine.delete()
            raise


def _held(folder: Path, echo: Callable[[str], None]) -> Store | None:
    """The index that is there, if any. A manifest that was damaged is written again from the copy beside the arrays."""
    if not (folder / MANIFEST).exists() and not any(folder.glob(f"generation-*/{MANIFEST}")):
        return None
    store = read(folder, whole=True)
    try:
        whole = read_json(folder / MANIFEST) == store.manifest
    except PapertrialError:
        whole = False
    if not whole:
        echo(f"{folder / MANIFEST} was damaged, and is written again from that of {store.generation.name}")
        write_json(folder / MANIFEST, store.manifest)
    return store


class _Build:
    """One build. rows: of the old index that stay; fresh: of the corpus that are new or have another text."""

    def __init__(
        self, mine: Marked, held: Store | None, data: Collection | None, encoder: Any, kind: str | None,
        stem: bool | None, add: bool, delete: Sequence[str], echo: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.mine, self.folder, self.held, self.data, self.echo = mine, mine.folder, held, data, echo
        self.seconds: dict[str, float] = {}
        before: dict[str, Any] = held.manifest if held else {"dense": None}
        self.analyser = self._analyser(stem)
        self.kind = kind or (before["dense"] or {}).get("asked")
        self.wanted = encoder or (before["dense"] or {}).get("encoder")
        self._compare(add, set(delete))

    def _analyser(self, stem: bool | None) -> Analyser:
        """How words are made: as in the index that is there, where nothing else is asked for."""
        if self.held is not None and (stem is None or bool(self.held.bm25.analyser.parts) == stem):
            return self.held.bm25.analyser
        if stem is False:
            return Analyser()
        source = self.data if self.data is not None else self.held
        assert source is not None
        return Analyser(main_language(source.text), USUAL)

    def _compare(self, add: bool, delete: set[str]) -> None:
        held = self.held
        old = {name: row for row, name in enumerate(held.ids.texts())} if held else {}
        names = list(self.data.ids) if self.data else []
        unknown = delete - old.keys() - set(names)
        if unknown:
            raise PapertrialError(f"there is no document {min(unknown)!r} to delete", "ids are those of the corpus")
        self.hashes = hashes_of(self.data) if self.data else np.empty((0, 16), np.uint8)
        places = np.array([old.get(name, -1) for name in names], dtype=np.int64)
        same = places >= 0
        if held:
            same[same] = (held.hashes[places[same]] == self.hashes[same]).all(axis=1)
        dropped = np.array([name in delete for name in names], dtype=bool)
        stays = np.full(len(old), add or self.data is None)
        stays[places[places >= 0]] = False
        stays[places[same & ~dropped]] = True
        stays[[old[name] for name in delete if name in old]] = False
        self.rows, self.fresh = np.flatnonzero(stays), np.flatnonzero(~same & ~dropped)
        self.changed = int((places[self.fresh] >= 0).sum())
        self.added = len(self.fresh) - self.changed
        self.removed = len(old) - len(self.rows) - self.changed

    @property
    def documents(self) -> int:
        return len(self.rows) + len(self.fresh)

    def run(self) -> Indexed:
        if not self.documents:
            raise PapertrialError("no document would be left in the index", f"remove the folder {self.folder} instead")
        coder = None if self.wanted in (None, "none") else self.wanted
        coder = dense.encoder(coder) if isinstance(coder, str) else coder
        chosen = self._plan(coder)
        if self._settled(coder, chosen):
            self.echo("nothing has changed")
            assert self.held is not None
            return self._done(self.held, 0)
        generation = next_generation(self.mine)
        manifest, arrays, encoded = self._arrays(coder, chosen, generation.name)
        if coder is not None:
            vectors = arrays.pop("vectors")
            manifest["dense"] |= self._timed("dense", lambda: dense.make(chosen or "flat", vectors, generation))
            arrays["vectors"] = vectors
        self._timed("write", lambda: save(self.mine, manifest, arrays))
        store = read(self.folder)
        tidy(self.mine, store, encoded=True)
        return self._done(store, encoded)

    def _plan(self, coder: dense.TextEncoder | None) -> str | None:
        """Say what will be kept and what it takes; returns how vectors are found."""
        self.echo(
            f"plan: {counted(self.documents, 'document')}: {self.added:,} new, {self.changed:,} changed, {self.removed:,} removed,"
            f" {len(self.rows):,} as they are"
        )
        if coder is None:
            return None
        chosen, why = dense.choose(self.documents, coder.width, self.kind)
        disk = 4 * self.documents * coder.width
        self.echo(f"vectors by {coder.name}: {why}; {disk / 1e6:,.0f} MB on disk")
        return chosen

    def _settled(self, coder: dense.TextEncoder | None, kind: str | None) -> bool:
        """Whether the index is what was asked for already."""
        if (
            self.held is None
            or len(self.fresh)
            or len(self.rows) != len(self.held.ids)
            or self.analyser.key != self.held.manifest["words"]["key"]
        ):
            return False
        before = self.held.manifest["dense"] or {}
        now = {} if coder is None else {"encoder": coder.name, "version": coder.version, "kind": kind}
        return all(before.get(name) == now.get(name) for name in ("encoder", "version", "kind"))

    def _arrays(
        self, coder: dense.TextEncoder | None, kind: str | None, generation: str
    ) -> tuple[dict[str, Any], dict[str, Any], int]:
        """The manifest and the arrays of the new generation, and how many documents were encoded."""
        held, data, rows, fresh = self.held, self.data, self.rows, self.fresh
        words = self._timed("words", self._count)
        ids = [held.id(int(row)) for row in rows] if held else []
        ids += [str(data.ids[row]) for row in fresh] if data else []
        place = np.empty(len(ids), dtype=np.int64)
        place[sorted(range(len(ids)), key=ids.__getitem__)] = np.arange(len(ids))
        named = Ragged.of_texts(ids)
        parts = [(source, taken) for source, taken in ((held, rows), (data, fresh)) if source is not None]
        lengths = np.concatenate([source.text.lengths[taken] for source, taken in parts])
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        hashes = np.concatenate([held.hashes[rows] if held else self.hashes[:0], self.hashes[fresh]])
        arrays = {
            "text": Chunks(
                (int(offsets[-1]),),
                np.uint8,
                (piece for source, taken in parts for piece in rows_of(source.text, taken)),
            ),
            "offsets": offsets,
            "title_bytes": np.concatenate([source.title_bytes[taken] for source, taken in parts]),
            "ids": named.values,
            "id_offsets": named.offsets,
            "place": place,
            "hashes": hashes,
            **words.arrays(),
        }
        manifest: dict[str, Any] = {
            "format": FORMAT,
            "generation": generation,
            "documents": self.documents,
            "corpus": {"name": data.name, "fingerprint": data.fingerprint}
            if data
            else held and held.manifest["corpus"],
            "words": words_made(words),
            "dense": None,
        }
        encoded = 0
        if coder is not None:
            manifest["dense"] = {
                "encoder": coder.name, "version": coder.version, "width": coder.width, "kind": kind, "asked": self.kind,
            }  # fmt: skip
            arrays["vectors"], encoded = self._timed("encode", lambda: self._vectors(coder))
        return manifest, arrays, encoded

    def _count(self) -> Bm25:
        """The words: of the new texts, joined to those that stay; all of them again where words are cut in another way."""
        held, analyser = self.held, self.analyser
        new = Bm25.of(track(self._texts(self.fresh), len(self.fresh), "counting words"), analyser)
        if held is None or not len(self.rows):
            return new
        if held.manifest["words"]["key"] != analyser.key:
            old = Bm25.of((bytes(held.text[int(row)]).decode("utf-8", "replace") for row in self.rows), analyser)
            return old.joined(np.arange(len(self.rows)), new)
        return held.bm25.joined(self.rows, new)

    def _texts(self, rows: np.ndarray) -> Any:
        return texts_of(self.data.text, rows) if self.data else iter(())

    def _vectors(self, coder: dense.TextEncoder) -> tuple[np.ndarray, int]:
        """float32 (documents, width): taken over where the text is the same, else encoded, batch by batch kept on disk."""
        held = self.held
        what = f"{self.documents:,} vectors of {coder.width} numbers"
        memory.require(4 * self.documents * coder.width, what, "index the folders one by one, or leave --encoder out")
        vectors = np.empty((self.documents, coder.width), dtype=np.float32)
        dense_before = (held.manifest["dense"] or {}) if held else {}
        known = (dense_before.get("encoder"), dense_before.get("version")) == (coder.name, coder.version)
        first = len(self.rows)
        todo = np.arange(first, self.documents)
        if known and held is not None and held.vectors is not None:
            vectors[:first] = held.vectors[self.rows]
        else:
            todo = np.arange(self.documents)
        hashes = np.concatenate([held.hashes[self.rows] if held else self.hashes[:0], self.hashes[self.fresh]])
        kept = _Kept(self.mine, coder)
        todo = kept.fill(vectors, hashes, todo)
        if len(todo):
            self._encode(coder, kept, vectors, hashes, todo)
        return vectors, len(todo)

    def _encode(
        self, coder: dense.TextEncoder, kept: _Kept, vectors: np.ndarray, hashes: np.ndarray, todo: np.ndarray
    ) -> None:
        held, first = self.held, len(self.rows)
        started = time.perf_counter()
        batches = range(0, len(todo), _BATCH)
        for number, begin in enumerate(track(batches, len(batches), "encoding")):
            some = todo[begin : begin + _BATCH]
            texts = (
                [bytes(held.text[int(self.rows[row])]).decode("utf-8", "replace") for row in some[some < first]]
                if held
                else []
            )
            texts += list(self._texts(self.fresh[some[some >= first] - first]))
            vectors[some] = dense.unit(coder.encode(texts))
            kept.keep(hashes[some], vectors[some])
            if not number and len(batches) > 1:
                rate = len(some) / (time.perf_counter() - started)
                left = (len(todo) - len(some)) / rate
                self.echo(
                    f"encoding {counted(len(todo), 'document')} at {rate:,.0f}/s: about {duration(left)}; may be stopped and goes on"
                )

    def _timed(self, stage: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        found = work()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started
        return found

    def _done(self, store: Store, encoded: int) -> Indexed:
        from papertrial.discover.search import Searcher

        about = store.manifest["dense"] or {}
        return Indexed(
            str(self.folder), self.documents, self.added, self.changed, self.removed, len(self.rows), encoded,
            len(store.bm25.words), store.bytes, self.seconds, Searcher(store).latency(), about.get("encoder"),
            about.get("kind"), about.get("memory"), about.get("recall"), tuple(self.data.notes if self.data else ()),
        )  # fmt: skip


class _Kept:
    """Vectors of a build that is not done, in files that a killed build leaves to the next."""

    def __init__(self, mine: Marked, coder: dense.TextEncoder) -> None:
        self.mine, self.coder = mine, coder
        self.mark = hashlib.blake2b(f"{coder.name}|{coder.version}|{coder.width}".encode(), digest_size=6).hexdigest()
        self.numbers = count()

    def fill(self, vectors: np.ndarray, hashes: np.ndarray, todo: np.ndarray) -> np.ndarray:
        """Fill in what an earlier build encoded; returns the rows that are left to do."""
        names = sorted(name for name in self.mine.entries if name.startswith(f"{ENCODED}/{self.mark}-"))
        self.numbers = count(len(names))
        files = [self.mine.folder / name for name in names if len(todo) and (self.mine.folder / name).exists()]
        found: dict[bytes, np.ndarray] = {}
        for file in files:
            held = load_file(file)
            found |= dict(zip(map(bytes, held["hashes"]), held["vectors"], strict=True))
        left = []
        for row in todo.tolist():
            vector = found.get(bytes(hashes[row])) if found else None
            if vector is None:
                left.append(row)
            else:
                vectors[row] = vector
        return np.array(left, dtype=np.int64)

    def keep(self, hashes: np.ndarray, vectors: np.ndarray) -> None:
        name = f"{ENCODED}/{self.mark}-{next(self.numbers):06d}.safetensors"
        self.mine.add(name)
        held = {"hashes": np.ascontiguousarray(hashes), "vectors": np.ascontiguousarray(vectors)}
        write_with(self.mine.folder / name, lambda path: save_file(held, path))
