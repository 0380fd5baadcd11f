"""Ask an index: by words (BM25), by meaning (vectors), by both (reciprocal rank fusion), reranked where a model is named."""

from __future__ import annotations

import string
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from papertrial.core.arguments import typed
from papertrial.core.errors import Declined, PapertrialError, did_you_mean
from papertrial.core.offers import offers
from papertrial.core.wording import counted
from papertrial.data.collections.analyse import PLAIN, Analyser
from papertrial.data.collections.bm25 import spans, words_of
from papertrial.discover import dense
from papertrial.discover.index_folder import Store, damaged, in_memory, read

MODES = ("hybrid", "bm25", "dense")
#: documents that each way of searching hands on
DEPTH = 100
_FUSION = 60  # k of reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009)
_SNIPPET = 200  # characters

#: (query, texts of the documents found, what BM25 gives each) -> a score for each
Reranker = Callable[[str, Sequence[str], np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Hit:
    """A document that was found. score: of the last stage.  marks: where in the snippet words of the query stand.

    places: by stage, from 1; a stage that did not find it is left out.
    """

    id: str
    title: str
    score: float
    snippet: str
    marks: tuple[tuple[int, int], ...] = ()
    places: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """The answer to one query. seconds: by stage.  notes: what to know of it, such as words that are not in the index."""

    query: str
    mode: str
    hits: tuple[Hit, ...]
    seconds: dict[str, float]
    documents: int
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Searcher:
    """An index that is open. encoder: in place of the one that the manifest names, made when it is first needed."""

    def __init__(self, store: Store, encoder: dense.TextEncoder | None = None) -> None:
        self.store, self._encoder = store, encoder
        self._nearest: dense.Nearest | None = None

    @property
    def modes(self) -> tuple[str, ...]:
        return MODES if self.store.vectors is not None else ("bm25",)

    def search(self, query: str, most: int = 10, mode: str | None = None, rerank: Reranker | None = None) -> Found:
        """The best documents. mode: hybrid where there are vectors, else bm25.

        Raises PapertrialError for an empty query or a mode that the index has not.
        """
        if not query.strip():
            raise PapertrialError("the query is empty", 'type: papertrial search INDEX "words to look for"')
        if mode is not None and mode not in MODES:
            raise PapertrialError(f"there is no mode {mode!r}", did_you_mean(mode, MODES))
        mode = mode or self.modes[0]
        if mode not in self.modes:
            raise PapertrialError(
                f"{self.store.folder} has no vectors to search by", "add them: papertrial index CORPUS --encoder minilm"
            )
        seconds: dict[str, float] = {}
        stages: dict[str, np.ndarray] = {}
        scores: dict[str, np.ndarray] = {}
        depth = max(DEPTH, most)
        if mode != "bm25":
            started = time.perf_counter()
            self._open()
            seconds["open"] = time.perf_counter() - started
        for name, find in (("bm25", self._by_words), ("dense", self._by_meaning)):
            if mode in (name, "hybrid"):
                started = time.perf_counter()
                stages[name], scores[name] = find(query, depth)
                seconds[name] = time.perf_counter() - started
        rows, score = next(iter(stages.values())), next(iter(scores.values()))
        if mode == "hybrid":
            rows, score = fused(list(stages.values()), self.store.place)
        if rerank is not None and len(rows):
            started = time.perf_counter()
            rows, score = self._reranked(query, rows[:depth], rerank)
            seconds["rerank"] = time.perf_counter() - started
            stages["rerank"] = rows
        places = {name: {int(row): place for place, row in enumerate(found, 1)} for name, found in stages.items()}
        hits = tuple(
            self._hit(
                int(row),
                float(value),
                query,
                {name: held[int(row)] for name, held in places.items() if int(row) in held},
            )
            for row, value in zip(rows[:most], score[:most], strict=True)
        )
        seconds["all"] = sum(seconds.values())
        return Found(query, mode, hits, seconds, len(self.store.ids), tuple(self._notes(query, mode)))

    def _by_words(self, query: str, most: int) -> tuple[np.ndarray, np.ndarray]:
        return self.store.bm25.top(query, most, self.store.place)

    def _by_meaning(self, query: str, most: int) -> tuple[np.ndarray, np.ndarray]:
        assert self._encoder is not None and self._nearest is not None
        return self._nearest(dense.unit(self._encoder.encode([query]))[0], most, self.store.place)

    def _open(self) -> None:
        """What searching by meaning needs, read when it is first needed."""
        vectors, about = self.store.vectors, self.store.manifest["dense"]
        assert vectors is not None
        if self._nearest is None:
            try:
                self._nearest = dense.Nearest(about, vectors, self.store.generation)
            except (ValueError, RuntimeError, OSError) as error:
                raise damaged(self.store.folder, str(error)) from None
        if self._encoder is None:
            self._encoder = dense.encoder(about["encoder"])
        if (self._encoder.version, self._encoder.width) != (about["version"], about["width"]):
            raise PapertrialError(
                f"{about['encoder']} is not what the index was made with",
                "bring it up to date: papertrial index CORPUS",
            )

    def _reranked(self, query: str, rows: np.ndarray, rerank: Reranker) -> tuple[np.ndarray, np.ndarray]:
        texts = [bytes(self.store.text[int(row)]).decode("utf-8", "replace") for row in rows]
        first = self.store.bm25.scores(query)[rows]
        scores = np.asarray(rerank(query, texts, first), dtype=np.float32)
        if scores.shape != rows.shape or not np.isfinite(scores).all():
            raise PapertrialError("the reranker's scores are not one finite number a document", "train it again")
        order = np.lexsort((-self.store.place[rows], -scores))
        return rows[order], scores[order]

    def _hit(self, row: int, score: float, query: str, places: dict[str, int]) -> Hit:
        document = self.store.document(row)
        words = set(words_of(query, self.store.bm25.analyser))
        snippet, marks = snippet_of(document.text or document.title, words, self.store.bm25.analyser)
        return Hit(document.id, document.title, score, snippet, tuple(marks), places)

    def _notes(self, query: str, mode: str) -> list[str]:
        words = {word: term for word in words_of(query) if (term := self._term(word))}
        missing = [word for word, term in words.items() if not self.store.bm25.having(term)]
        notes = [] if words_of(query) else ["the query has no word or number in it, so no document can have one"]
        for word in missing:
            meant, having = self._meant(word)
            again = f": did you mean {meant!r} ({counted(having, 'document')})?" if meant else ""
            notes.append(f"no document has the word {word!r}{again}")
        if words and len(missing) == len(words) and mode != "bm25":
            notes.append("only the vectors could find these documents: no word of the query is in the index")
        return notes

    def _term(self, word: str) -> str:
        """What is counted of a word; empty where it is left out."""
        return self.store.bm25.analyser.term(word)

    def _meant(self, word: str) -> tuple[str, int]:
        """The word in most documents that is one edit away, as one of them has it, and in how many; "" where there is none."""
        if not 4 <= len(word) <= 40:
            return "", 0
        letters = {*string.ascii_lowercase, *word} if word.isascii() else set(word)
        cuts = [(word[:at], word[at:]) for at in range(len(word) + 1)]
        near = {left + right[1:] for left, right in cuts if right}
        near |= {left + right[1] + right[0] + right[2:] for left, right in cuts if len(right) > 1}
        near |= {left + letter + right[1:] for left, right in cuts if right for letter in letters}
        near |= {left + letter + right for left, right in cuts for letter in letters}
        having = {term: self.store.bm25.having(term) for term in sorted(set(map(self._term, near)))}
        best = max(having, key=having.__getitem__)
        if not having[best]:
            return "", 0
        held = self.store.document(self.store.bm25.first(best))
        return next(found for found in words_of(f"{held.title}\n{held.text}") if self._term(found) == best), having[
            best
        ]

    def latency(self, queries: int = 20) -> dict[str, float]:
        """Median seconds of a search by words: the first words of some documents serve as queries."""
        rows = np.random.default_rng(0).permutation(len(self.store.ids))[:queries]
        asked = [" ".join(bytes(self.store.text[int(row)][:400]).decode("utf-8", "ignore").split()[:8]) for row in rows]
        taken = []
        for query in filter(None, asked):
            started = time.perf_counter()
            self._by_words(query, DEPTH)
            taken.append(time.perf_counter() - started)
        return {"bm25": float(np.median(taken))} if taken else {}


def fused(ranked: Sequence[np.ndarray], ties: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Reciprocal rank fusion: each ranking gives a document 1 / (60 + its place). Rows int64 and scores float64."""
    rows, inverse = np.unique(np.concatenate(ranked), return_inverse=True)
    shares = np.concatenate([1 / (_FUSION + np.arange(1, len(found) + 1)) for found in ranked])
    scores = np.bincount(inverse, weights=shares, minlength=len(rows))
    order = np.lexsort((-ties[rows], -scores))
    return rows[order].astype(np.int64), scores[order]


def snippet_of(text: str, words: set[str], analyser: Analyser = PLAIN) -> tuple[str, list[tuple[int, int]]]:
    """The part of a text with most words of the query, on one line, and where they stand in it."""
    text = " ".join(text[: 1 << 16].split())
    found = spans(text, words, analyser)
    begin = 0
    if len(text) > _SNIPPET and found:
        begin = max((first for first, _ in found), key=lambda at: (len(_inside(text, found, at, words)), -at))
        begin = text.rfind(" ", 0, max(0, begin - 20)) + 1
    end = begin + _SNIPPET
    space = text.rfind(" ", begin, end)
    if end < len(text) and space > begin + _SNIPPET // 2:
        end = space
    head, tail = "... " * (begin > 0), " ..." * (end < len(text))
    marks = [
        (first - begin + len(head), last - begin + len(head)) for first, last in found if begin <= first and last <= end
    ]
    return head + text[begin:end] + tail, marks


def _inside(text: str, found: Sequence[tuple[int, int]], begin: int, words: set[str]) -> set[str]:
    """The different words that a snippet from `begin` shows."""
    return {text[first:last].casefold() for first, last in found if begin <= first and last <= begin + _SNIPPET - 20}


def marked(snippet: str, marks: Sequence[tuple[int, int]], left: str = "*", right: str = "*") -> str:
    """The snippet with something around each word of the query."""
    for first, last in sorted(marks, reverse=True):
        snippet = snippet[:first] + left + snippet[first:last] + right + snippet[last:]
    return snippet


@typed
def search(
    index: Path | str,
    query: str,
    most: int = 10,
    *,
    mode: str | None = None,
    rerank: Path | str | Reranker | None = None,
) -> Found:
    """Find documents in an index: by their words, by meaning, or by both.

    index: its folder, or "list", the reading list.  query: what to look for.  most: documents to give.  mode: hybrid, bm25 or dense;
    by default hybrid where the index has vectors.  rerank: the folder of a reranker's run, or a function, which puts what was
    found into a new order.

    Raises PapertrialError where there is no index, for a mode that it has not, and where the run is no reranker.

        >>> import papertrial as pt
        >>> "rtdl" in [hit.id for hit in pt.search("list", "deep learning for tabular data").hits]
        True
    """
    searcher = reading_list() if str(index) == "list" and not Path("list").exists() else Searcher(read(index))
    chosen = reranker(rerank) if isinstance(rerank, str | Path) else rerank
    return searcher.search(query, most, mode, chosen)


def reranker(folder: Path | str) -> Reranker:
    """The model of a run, trained on the task retrieval, that gives a pair of query and document a score.

    Raises Declined for a model that scores no pairs.
    """
    from papertrial.core.task import Ragged, Split
    from papertrial.data.collections import Queries
    from papertrial.tasks.retrieval import pair_scores
    from papertrial.use.artifact import Artifact

    model = Artifact.load(folder).model
    if offers(model).score is None:
        raise Declined(
            f"{folder} holds no reranker: its model gives pairs no score", "train one: papertrial fit lce_reranker"
        )

    def scores(query: str, texts: Sequence[str], first: np.ndarray) -> np.ndarray:
        held: Mapping[str, Any] = {
            "text": Ragged.of_texts([query]),
            "candidates": np.arange(len(texts))[None],
            "first": np.asarray(first, dtype=np.float32)[None],
        }
        documents = Split({"text": Ragged.of_texts(list(texts))})
        no_words: Any = None  # scores of pairs need none
        return pair_scores(model, Queries(held, documents, no_words))[0]

    return scores


def reading_list() -> Searcher:
    """The papers of the reading list, by title, idea, tasks and authors; made anew, as they are few."""
    from papertrial.core import registry
    from papertrial.data.collections import Collection
    from papertrial.data.collections.files import Document

    papers = [row.paper for row in registry.reading_list()]
    texts = ["\n".join([paper.idea, ", ".join([*paper.tasks, *paper.tags]), paper.authors]) for paper in papers]
    return Searcher(
        in_memory(Collection("list", map(Document, *zip(*((p.id, p.title) for p in papers), strict=True), texts)))
    )
