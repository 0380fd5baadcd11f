"""BM25 over word counts: what the first stage of retrieval, the baseline and `papertrial search` share.

Words are the runs of letters, digits and combining marks of the text in NFKC, case folded; in scripts that write no
spaces (Han, kana, Thai, Lao, Khmer, Burmese) each character with its marks is a word. What is counted are their terms, as
an `Analyser` makes them: cut to stems and without accents, or the words themselves.

The counts are kept, not the scores, so that k1 and b are chosen without counting again, and a document can come or go.
"""

from __future__ import annotations

import math
import re
import sys
import unicodedata
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from typing import Any

import numpy as np
from scipy import sparse

from papertrial.core.task import Ragged
from papertrial.data.collections.analyse import PLAIN, Analyser

#: the values of Lucene's formula that bm25s takes by default
K1, B = 1.5, 0.75
#: entries of words of earlier queries that are kept in memory, 12 bytes each
_KEPT = 4_000_000
_NO_SPACES = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"


@cache
def _word() -> re.Pattern[str]:
    """`re` knows no class for combining marks, without which the words of many scripts would fall apart."""
    marks = "".join(letter for letter in map(chr, range(0xFFFF)) if unicodedata.category(letter)[0] == "M")
    return re.compile(f"[{_NO_SPACES}][{marks}]*|(?:(?![{_NO_SPACES}])[^\\W_][{marks}]*)+")


_ASCII_WORD = re.compile("[a-z0-9]+")


def words_of(text: str, analyser: Analyser = PLAIN) -> list[str]:
    """The words of a text in their order, as they are counted."""
    found = _words(text)
    return analyser.terms(found) if analyser.parts else found


def spans(text: str, wanted: Collection[str], analyser: Analyser = PLAIN) -> list[tuple[int, int]]:
    """Where in a text, from and to, the words `wanted` stand, as `words_of` gives them."""
    found = re.finditer(r"[^\W_]+", text) if text.isascii() else _word().finditer(text)  # marks are part of their word
    return [match.span() for match in found if not set(words_of(match[0], analyser)).isdisjoint(wanted)]


def _words(text: str) -> list[str]:
    if text.isascii():  # the same words, six times as fast
        return _ASCII_WORD.findall(text.lower())
    return _word().findall(unicodedata.normalize("NFKC", text).casefold())


class _Numbers(dict[str, int]):
    """Numbers the terms of words as they come; -1: left out."""

    def __init__(self, analyser: Analyser) -> None:
        self.analyser = analyser
        self.known: dict[str, int] = {}

    def __missing__(self, word: str) -> int:
        term = self.analyser.term(word) if self.analyser.parts else word
        number = self[word] = self.known.setdefault(term, len(self.known)) if term else -1
        return number


class Bm25:
    """The words of some documents, and how often each document holds them.

    words: Ragged uint8, UTF-8, in the order of their bytes.  starts: int64 (words + 1,), where the entries of a word
    begin.  documents: int32 (entries,), ascending within a word; counts: unsigned (entries,).  lengths: int32
    (documents,), words of each.  All of them may be memory-mapped.
    """

    def __init__(
        self, words: Ragged, starts: np.ndarray, documents: np.ndarray, counts: np.ndarray, lengths: np.ndarray,
        analyser: Analyser = PLAIN,
    ) -> None:  # fmt: skip
        self.words, self.starts, self.documents, self.counts = words, starts, documents, counts
        self.lengths, self.analyser = lengths, analyser
        self._norm: tuple[float, float, np.ndarray] | None = None
        self._asked: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._room = _KEPT

    @classmethod
    def of(cls, texts: Iterable[str], analyser: Analyser = PLAIN) -> Bm25:
        """Count the words of `texts`, document after document."""
        numbers, ids, ends = _Numbers(analyser), array("i"), array("q", [0])
        leaves_out = "stop" in analyser.parts
        for text in texts:
            found = map(numbers.__getitem__, _words(text))
            ids.extend(number for number in found if number >= 0) if leaves_out else ids.extend(found)
            ends.append(len(ids))
        listed = list(numbers.known)
        order = sorted(range(len(listed)), key=listed.__getitem__)
        place = np.empty(len(listed), dtype=np.int32)
        place[order] = np.arange(len(listed), dtype=np.int32)
        offsets = np.frombuffer(ends, dtype=np.int64)
        lengths = np.diff(offsets).astype(np.int32)  # before scipy writes the offsets of the summed entries over these
        held = sparse.csr_array(
            (np.ones(len(ids), dtype=np.int32), place[np.frombuffer(ids, dtype=np.int32)], offsets),
            shape=(len(offsets) - 1, len(listed)),
        )
        held.sum_duplicates()
        by_word = held.tocsc()
        counts = by_word.data.astype(np.min_scalar_type(by_word.data.max(initial=0)))
        return cls(
            Ragged.of_texts([listed[index] for index in order]),
            by_word.indptr.astype(np.int64),
            by_word.indices.astype(np.int32),
            counts,
            lengths,
            analyser,
        )

    def __len__(self) -> int:
        """Number of documents."""
        return len(self.lengths)

    def scores(self, query: str, k1: float = K1, b: float = B) -> np.ndarray:
        """float32 (documents,): the sum over the query's words of idf * count / (count + k1 (1 - b + b length / mean)),
        with idf = log(1 + (documents - having + 0.5) / (having + 0.5)). Zero: no word in common."""
        total = np.zeros(len(self), dtype=np.float32)
        norm = self._norms(k1, b)
        for word, times in Counter(words_of(query, self.analyser)).items():
            holding, share = self._holding(word, norm)
            if len(holding):
                idf = math.log1p((len(self) - len(holding) + 0.5) / (len(holding) + 0.5))
                np.add.at(total, holding, np.float32(times * idf) * share)
        return total

    def top(
        self, query: str, most: int, ties: np.ndarray, k1: float = K1, b: float = B, without: int = -1
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best documents with a word of the query: rows int64, scores float32. See `best` for the arguments."""
        scores = self.scores(query, k1, b)
        rows = best(scores, most, ties, without)
        rows = rows[scores[rows] > 0]
        return rows, scores[rows]

    def joined(self, rows: np.ndarray, other: Bm25) -> Bm25:
        """The documents `rows` (ascending) of this one, then all of `other`, without counting a word again."""
        mine, theirs = self.words.texts(), other.words.texts()
        merged = sorted({*mine, *theirs})
        number = {word: index for index, word in enumerate(merged)}
        place = np.full(len(self), -1, dtype=np.int32)
        place[rows] = np.arange(len(rows), dtype=np.int32)
        moved = place[self.documents]
        kept = moved >= 0
        word = np.concatenate([
            np.repeat(np.array([number[name] for name in mine], dtype=np.int32), np.diff(self.starts))[kept],
            np.repeat(np.array([number[name] for name in theirs], dtype=np.int32), np.diff(other.starts)),
        ])  # fmt: skip
        documents = np.concatenate([moved[kept], other.documents + np.int32(len(rows))])
        counts = np.concatenate([self.counts[kept], other.counts])
        order = np.argsort(word, kind="stable")
        entries = np.bincount(word, minlength=len(merged))
        used = entries > 0
        return Bm25(
            Ragged.of_texts([name for name, there in zip(merged, used, strict=True) if there]),
            np.concatenate([[0], np.cumsum(entries[used])]),
            documents[order],
            counts[order],
            np.concatenate([self.lengths[rows], other.lengths]),
            self.analyser,
        )

    def having(self, word: str) -> int:
        """In how many documents a word, as `words_of` gives it, is."""
        first, last = self._entries(word)
        return last - first

    def first(self, word: str) -> int:
        """The first document with a word that some document has."""
        return int(self.documents[self._entries(word)[0]])

    def _entries(self, word: str) -> tuple[int, int]:
        wanted, letters, ends = word.encode(), memoryview(self.words.values), memoryview(self.words.offsets)  # type: ignore[arg-type]

        def held(index: int) -> bytes:
            return letters[ends[index] : ends[index + 1]].tobytes()

        place = bisect_left(range(len(self.words)), wanted, key=held)
        if place == len(self.words) or held(place) != wanted:
            return 0, 0
        return int(self.starts[place]), int(self.starts[place + 1])

    def _holding(self, word: str, norm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The documents with a word, int64, and count / (count + norm) in each, float32; kept for the next queries."""
        if word not in self._asked:
            first, last = self._entries(word)
            holding, counts = self.documents[first:last].astype(np.int64), self.counts[first:last].astype(np.float32)
            if len(holding) >= self._room:
                self._asked, self._room = {}, _KEPT
            self._room -= 1 + len(holding)
            self._asked[word] = holding, counts / (counts + norm.take(holding))
        return self._asked[word]

    def _norms(self, k1: float, b: float) -> np.ndarray:
        """k1 (1 - b + b length / mean) of each document, kept for the next query."""
        if self._norm is None or self._norm[:2] != (k1, b):
            mean = self.lengths.mean(dtype=np.float64) if len(self) else 1.0
            relative = self.lengths / max(mean, sys.float_info.min)
            self._norm = (k1, b, (k1 * (1 - b + b * relative)).astype(np.float32))
            self._asked, self._room = {}, _KEPT
        return self._norm[2]

    def arrays(self) -> dict[str, np.ndarray]:
        """What `from_arrays` reads back, for a file without pickles."""
        return {
            "words": np.ascontiguousarray(self.words.values),
            "word_offsets": self.words.offsets,
            "starts": self.starts,
            "documents": self.documents,
            "counts": self.counts,
            "lengths": self.lengths,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any], analyser: Analyser = PLAIN) -> Bm25:
        """Raises ValueError for arrays that do not fit together."""
        words = Ragged(arrays["words"], arrays["word_offsets"])
        starts, documents, counts, lengths = (arrays[name] for name in ("starts", "documents", "counts", "lengths"))
        entries = len(documents)
        if len(starts) != len(words) + 1 or starts[0] != 0 or starts[-1] != entries or len(counts) != entries:
            raise ValueError(
                f"{len(words)} words with {len(starts)} starts for {entries} entries, {len(counts)} counts"
            )
        return cls(words, starts, documents, counts, lengths, analyser)


def best(scores: np.ndarray, most: int, ties: np.ndarray, without: int = -1) -> np.ndarray:
    """int64: the rows of the highest scores, best first, at most `most`; of equal scores the higher in `ties` comes first.

    With `ties` the places of the ids in ascending order this is trec_eval's rule, which compares in float32 as here.
    without: a row that is passed over; -1: none.
    """
    scores = np.asarray(scores, dtype=np.float32)
    wanted = min(most + (without >= 0), len(scores))
    if not wanted:
        return np.empty(0, dtype=np.int64)
    floor = np.partition(scores, len(scores) - wanted)[len(scores) - wanted]
    above, level = np.flatnonzero(scores > floor), np.flatnonzero(scores == floor)
    level = level[np.argsort(-ties[level], kind="stable")[: wanted - len(above)]]
    rows = np.concatenate([above, level])
    rows = rows[np.lexsort((-ties[rows], -scores[rows]))]
    return rows[rows != without][:most]
