"""Collections: documents to search, and the queries with their judgements where there are some."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from papertrial.core.budget import size_in_words
from papertrial.core.errors import DataError
from papertrial.core.kind import Kind
from papertrial.core.task import Ragged, Split
from papertrial.core.wording import counted
from papertrial.data.base import Data, Look, fingerprint, track
from papertrial.data.collections.analyse import usual
from papertrial.data.collections.bm25 import Bm25, best
from papertrial.data.collections.files import (
    ACCEPTED,
    Document,
    documents_in,
    field,
    json_lines,
    looks_like_squad,
    rows_of,
    squad,
)
from papertrial.data.layout import PARTS

KIND = Kind(
    name="collection",
    data="papertrial.data.collections:Collection",
    words="a collection",
    opens="papertrial.data.collections.recognise:opens",
    order=10,
    samples={"docstrings": "papertrial.data.toy:docstrings"},
    labelled="qrels",
    backbones={"word_vectors": "encoder", "text_transformer": ""},
    small_backbone="word_vectors",
    unsuitable="table",
    tokenised=True,
    shown="papertrial.study.examples:queries",
)

_LONG = 1 << 20  # bytes of a document that is worth a line
_QUESTION = ("query", "question", "qtext")
_ANSWER = ("passage", "sentence", "document", "answer", "atext")
_GRADE = ("label", "relevance", "grade", "score")

#: (query id, document id, grade) of one part: 0 train, 1 valid, 2 test
Judgements = Mapping[int, Iterable[tuple[str, str, int]]]


class Queries(Split):
    """A Split whose rows are queries, and the documents that all of them search.

    documents: Split of "id" (str), "text" Ragged UTF-8 (title, line break, text) and "place" int64: that of the id among
    all ids in ascending order, which decides between equal scores.  bm25: the words of these documents.
    """

    def __init__(self, columns: Mapping[str, Any], documents: Split, bm25: Bm25) -> None:
        super().__init__(columns)
        self.documents, self.bm25 = documents, bm25

    def take(self, rows: np.ndarray | slice) -> Queries:
        return self._of(super().take(rows).columns)

    def _of(self, columns: Mapping[str, Any]) -> Queries:
        return Queries(columns, self.documents, self.bm25)


class Collection(Data):
    """Documents with ids, queries with ids, and which document answers which query.

    ids: str (documents,).  text: Ragged, title, a line break, text (or the text alone).  title_bytes: int64
    (documents,).  query_ids: str (queries,).  query: Ragged.  relevant, grade: Ragged int64, the judged documents of each
    query and how relevant they are (1 or more: relevant).  part: int8 (queries,), 0 = train or free, 1 = validation,
    2 = test.  given_split: whether the judgements came in parts.
    """

    kind = "collection"
    target_is_column = True

    def __init__(
        self,
        name: str,
        documents: Iterable[Document],
        queries: Iterable[tuple[str, str]] = (),
        judgements: Judgements | None = None,
        notes: Iterable[str] = (),
    ) -> None:
        """Raises DataError without documents, or where no judgement names a document and a query that are there."""
        super().__init__(name, "", notes)
        self._queries: dict[int, Queries] = {}  # shared by all ways to part them
        self._read(documents)
        self._ask(queries, judgements or {})
        self.fingerprint = fingerprint(
            *(Ragged.of_texts(list(names)).values for names in (self.ids, self.query_ids)),
            *(part for column in (self.text, self.query, self.relevant) for part in (column.values, column.offsets)),
            self.grade.values, self.part,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.ids)

    # -- from files ---------------------------------------------------------------------------------------------

    @classmethod
    def from_path(cls, path: Path) -> Collection:
        """Whatever `path` is: a BEIR folder, SQuAD JSON, questions with judged sentences, or documents alone."""
        if not path.exists():
            raise DataError(f"{path} is not there", "check the path")
        if _is_beir(path):
            return cls.from_beir(path)
        if _is_squad(path):
            return cls.from_squad(path)
        if judged_tables(path):
            return cls.from_tables(path)
        notes: list[str] = []
        made = cls(path.name, track(documents_in(path, notes.append), None, f"reading {path.name}"))
        made.notes = [*notes, *made.notes]
        return made

    @classmethod
    def from_beir(cls, path: Path) -> Collection:
        """corpus.jsonl, queries.jsonl and qrels/*.tsv, the first two also as .gz; queries and judgements may be missing.

        Judgements may lie beside the corpus too, as qrels.tsv or test.tsv; of other tables there it is said that they are not read.
        """
        notes: list[str] = []
        corpus, asked = _beir_file(path, "corpus"), _beir_file(path, "queries")
        queries = []
        if asked is not None:
            for number, row in json_lines(asked, notes.append):
                if "_id" not in row or "text" not in row:
                    raise DataError(f"{asked}, line {number}: a query needs _id and text", f"it has {', '.join(row)}")
                queries.append((str(row["_id"]), str(row["text"])))
        judgements: dict[int, list[tuple[str, str, int]]] = {}
        beside = {file: _part_of(file) for file in sorted(path.glob("*.tsv"))}
        notes += [
            f"{file.name} is neither qrels.tsv nor train, dev or test.tsv: it is not read"
            for file, part in beside.items()
            if part is None
        ]
        inside = sorted((path / "qrels").glob("*.tsv"))
        for file in (*inside, *(file for file, part in beside.items() if part is not None)):
            part = PARTS.get(_part_of(file) or "")
            if part is None:
                notes.append(f"{file.relative_to(path)} is none of train, dev and test: it counts as train")
            judgements.setdefault(part or 0, []).extend(_qrels(file))
        assert corpus is not None
        documents = track(documents_in(corpus, notes.append), None, f"reading {corpus.name}")
        made = cls(path.resolve().name, documents, queries, judgements)
        made.notes = [*notes, *made.notes]
        return made

    @classmethod
    def from_squad(cls, path: Path) -> Collection:
        """Paragraphs are documents, questions queries, and the paragraph a question was asked about answers it."""
        documents: dict[str, Document] = {}
        queries: list[tuple[str, str]] = []
        judged: list[tuple[str, str, int]] = []
        for place, article in enumerate(squad(path), 1):
            for number, paragraph in enumerate(article["paragraphs"], 1):
                text = paragraph["context"]
                held = documents.setdefault(text, Document(f"{place}-{number}", article.get("title") or "", text))
                for asked in paragraph.get("qas") or ():
                    key = str(asked.get("id", f"q{len(queries) + 1}"))
                    queries.append((key, asked["question"]))
                    judged.append((key, held.id, 1))
        return cls(path.name, documents.values(), queries, {0: judged})

    @classmethod
    def from_tables(cls, path: Path) -> Collection:
        """Rows of a question, a sentence and whether it answers it (TREC-QA); a folder holds train, dev and test files."""
        documents: dict[str, str] = {}
        queries: dict[str, str] = {}
        judgements: dict[int, list[tuple[str, str, int]]] = {}
        notes: list[str] = []
        for file in judged_tables(path):
            part = PARTS.get(file.name.partition(".")[0].lower(), 0) if path.is_dir() else 0
            for number, row in rows_of(file, notes.append):
                row = {name.strip().lower(): value for name, value in row.items() if name}
                asked, text, grade = (field(row, names) for names in (_QUESTION, _ANSWER, _GRADE))
                held = documents.setdefault(text, f"d{len(documents) + 1}")
                key = queries.setdefault(asked, f"q{len(queries) + 1}")
                judgements.setdefault(part, []).append((key, held, _grade(grade, file, number)))
        return cls(
            path.resolve().name,
            (Document(key, "", text) for text, key in documents.items()),
            [(key, text) for text, key in queries.items()],
            judgements,
            notes,
        )

    # -- what was read ------------------------------------------------------------------------------------------

    def _read(self, documents: Iterable[Document]) -> None:
        held, ends, titles = bytearray(), [0], []
        place: dict[str, int] = {}
        twice: list[str] = []
        for document in documents:
            if document.id in place:
                twice.append(document.id)
                continue
            place[document.id] = len(place)
            title = " ".join(document.title.split()).encode("utf-8", "replace")
            held += title + b"\n" * bool(title and document.text) + document.text.encode("utf-8", "replace")
            titles.append(len(title))
            ends.append(len(held))
        if not place:
            raise DataError(f"{self.name} holds no documents", ACCEPTED)
        self.ids = np.array(list(place), dtype=object)
        self.text = Ragged(np.frombuffer(held, dtype=np.uint8), np.array(ends))
        self.title_bytes = np.array(titles, dtype=np.int64)
        self._place = place
        if twice:
            self.note(
                f"{counted(len(twice), 'document')} with an id that is already taken, such as {twice[0]!r}: left out"
            )
        lengths = self.text.lengths
        if not lengths.any():
            raise DataError(f"all documents of {self.name} are empty", "check how it was made")
        empty = np.flatnonzero(lengths == 0)
        if len(empty):
            self.note(f"{counted(len(empty), 'document')} without text, such as {self.ids[empty[0]]!r}: never found")
        if lengths.max() > _LONG:
            row = int(lengths.argmax())
            self.note(f"document {self.ids[row]!r} has {lengths[row] / 1e6:.0f} MB: methods read only its beginning")

    def _ask(self, queries: Iterable[tuple[str, str]], judgements: Judgements) -> None:
        asked: dict[str, str] = {}
        twice = empty = 0
        for key, text in queries:
            if not text.strip():
                empty += 1
            elif key in asked:
                twice += 1
            else:
                asked[key] = text
        if empty:
            self.note(f"{counted(empty, 'query', 'queries')} without text left out")
        if twice:
            self.note(f"{counted(twice, 'query', 'queries')} with an id that is already taken left out")
        self.query_ids = np.array(list(asked), dtype=object)
        self.query = Ragged.of_texts(list(asked.values()))
        self.part = np.zeros(len(asked), dtype=np.int8)
        self.given_split = len(judgements) > 1
        if self.given_split and 2 not in judgements:
            judgements = {0: judgements[0], 2: judgements[1]}
            self.note("the validation queries serve as the test part, as there is none")
        place = {key: row for row, key in enumerate(asked)}
        judged: list[dict[int, int]] = [{} for _ in asked]  # by query: document and grade
        strangers: dict[str, list[str]] = {"query": [], "document": []}
        moved = known = 0
        for part in sorted(judgements):
            for key, document, grade in judgements[part]:
                if key not in place or document not in self._place:
                    strangers["query" if key not in place else "document"].append(key if key not in place else document)
                    continue
                row, known = place[key], known + 1
                if self.part[row] != part and judged[row]:
                    moved += 1
                self.part[row] = part
                held = judged[row].get(self._place[document], grade)
                judged[row][self._place[document]] = max(held, grade)
        for what, names in strangers.items():
            if names:
                self.note(
                    f"{counted(len(names), 'judgement')} of a {what} that is not there, such as {names[0]!r}: left out"
                )
        if not known and any(strangers.values()):
            self.note(
                "no judgement is about a query and a document that are here: do all files belong to one data set?"
            )
        if moved:
            self.note(f"{counted(moved, 'judgement')} of a query that is in another part too: kept in the later part")
        self.relevant = Ragged.of([list(row) for row in judged], np.int64)
        self.grade = Ragged.of([list(row.values()) for row in judged], np.int64)

    @property
    def names(self) -> np.ndarray:
        """Of the queries, which are the examples."""
        return self.query_ids

    @cached_property
    def copies(self) -> np.ndarray:
        """int64 (queries,), equal for queries of the same words."""
        words = np.array([" ".join(text.split()) for text in self.query.texts()], dtype=object).astype(str)
        return np.unique(words, return_inverse=True)[1].reshape(-1).astype(np.int64)

    @property
    def labelled(self) -> np.ndarray:
        """bool (queries,): those with a relevant document."""
        best = np.zeros(len(self.query), dtype=np.int64)
        rows = np.repeat(np.arange(len(self.query)), self.grade.lengths)
        np.maximum.at(best, rows, self.grade.values)
        return best > 0

    @cached_property
    def documents(self) -> Split:
        """Columns "id", "text" and "place", see `Queries`."""
        place = np.empty(len(self.ids), dtype=np.int64)
        place[sorted(range(len(self.ids)), key=self.ids.__getitem__)] = np.arange(len(self.ids))
        return Split({"id": self.ids, "text": self.text, "place": place})

    @cached_property
    def bm25(self) -> Bm25:
        """The words of the documents, as `analyse.usual` makes them, counted when they are first asked for."""
        return Bm25.of(texts_of(self.text), usual(self.text))

    @cached_property
    def itself(self) -> np.ndarray:
        """int64 (queries,): the document that is the query, with its id and its text (as in ArguAna); -1 for none."""
        rows = np.array([self._place.get(key, -1) for key in self.query_ids], dtype=np.int64)
        for query in np.flatnonzero(rows >= 0):
            document = self.document(int(rows[query]))
            asked = self.query[int(query)].tobytes().decode("utf-8", "replace").split()
            if asked not in (document.text.split(), f"{document.title} {document.text}".split()):
                rows[query] = -1
        return rows

    def queries(self, most: int) -> Queries:
        """The queries and what BM25 finds for each, at most `most` documents; found once, for every seed of a comparison.

        Columns "id" str, "text" Ragged UTF-8, "itself" int64 (the document that is the query, -1 for none), "candidates"
        int64 (queries, most), best first, -1 for none, and "first" float32, what BM25 gives them, 0 for none; "relevant",
        "grade" Ragged int64, and "relevant_first" Ragged float32, what BM25 gives the judged documents.
        """
        if most not in self._queries:
            rows = np.full((len(self.query), most), -1, dtype=np.int64)
            first = np.zeros(rows.shape, dtype=np.float32)
            judged = np.zeros(len(self.relevant.values), dtype=np.float32)
            place, offsets = self.documents["place"], self.relevant.offsets
            for query, text in enumerate(track(self.query.texts(), len(self.query), "searching")):
                scores = self.bm25.scores(text)
                judged[offsets[query] : offsets[query + 1]] = scores[self.relevant[query]]
                found = best(scores, most, place, int(self.itself[query]))
                found = found[scores[found] > 0]
                rows[query, : len(found)], first[query, : len(found)] = found, scores[found]
            columns = {
                "id": self.query_ids, "text": self.query, "itself": self.itself, "candidates": rows, "first": first,
                "relevant": self.relevant, "grade": self.grade, "relevant_first": Ragged(judged, offsets),
            }  # fmt: skip
            self._queries[most] = Queries(columns, self.documents, self.bm25)
        return self._queries[most]

    def document(self, row: int) -> Document:
        """One document as it came."""
        text = self.text[row].tobytes().decode("utf-8", "replace")
        title = self.text[row][: self.title_bytes[row]].tobytes().decode("utf-8", "replace")
        return Document(self.ids[row], title, text[len(title) :].removeprefix("\n") if title else text)

    def look(self) -> Look:
        judged = self.labelled
        lengths = self.text.lengths
        rows = [int(((self.part == part) & judged).sum()) for part in range(3)]
        texts = self.text.values[self.text.offsets[0] : self.text.offsets[-1]]
        copies = len(lengths) - len({self.text[row].tobytes() for row in range(len(lengths))})
        longest = int(lengths.argmax())
        facts = [
            ("documents", f"{len(self.ids):,}, {size_in_words(len(texts))} of text"),
            (
                "length",
                f"{np.median(lengths):,.0f} bytes for most, {lengths.max():,} the longest ({self.ids[longest]})",
            ),
            ("duplicates", f"{counted(copies, 'document')} with the text of another" if copies else "none"),
        ]
        if len(self.query):
            graded = self.grade.values[self.grade.values > 0]
            facts += [
                ("queries", f"{len(self.query):,}, {judged.sum():,} with a relevant document"),
                ("such as", self.query[0].tobytes().decode("utf-8", "replace")[:120]),
                (
                    "judgements",
                    f"{len(self.grade.values):,}, {len(graded):,} relevant, grades up to {graded.max(initial=0)}",
                ),
            ]
        if self.given_split:
            facts.append(
                (
                    "parts",
                    ", ".join(f"{n} {count:,}" for n, count in zip(("train", "valid", "test"), rows, strict=True)),
                )
            )
        numbers = {
            "examples": len(self.query),
            "labelled": int(judged.sum()),
            "documents": len(self.ids),
            "bytes": len(texts),
            "judgements": len(self.grade.values),
            "parts": rows if self.given_split else None,
            "duplicates": copies,
        }
        return Look(self.name, self.kind, facts, list(self.notes), numbers)


def texts_of(column: Ragged, rows: Iterable[int] | None = None) -> Iterator[str]:
    """The rows as strings, one at a time; some of them where `rows` are named."""
    for row in range(len(column)) if rows is None else rows:
        yield column[int(row)].tobytes().decode("utf-8", "replace")


def is_collection(path: Path) -> bool:
    """Whether a path holds documents with queries: a BEIR folder, SQuAD JSON, or questions with judged sentences."""
    return _is_beir(path) or _is_squad(path) or bool(judged_tables(path))


def _is_squad(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(".json") and looks_like_squad(path)


def _is_beir(path: Path) -> bool:
    return path.is_dir() and _beir_file(path, "corpus") is not None


def judged_tables(path: Path) -> list[Path]:
    """The CSV and TSV files at `path` whose header names a question, a sentence and a label; empty if one does not."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    files = [file for file in files if file.is_file() and not file.name.startswith(".")]
    if not files or not all(file.suffix.lower() in (".csv", ".tsv") for file in files):
        return []
    for file in files:
        with file.open("rb") as stream:
            head = stream.readline(4096).decode("utf-8-sig", "replace").lower()
        names = {name.strip().strip('"') for name in head.replace("\t", ",").replace(";", ",").split(",")}
        if not all(names & set(wanted) for wanted in (_QUESTION, _ANSWER, _GRADE)):
            return []
    return files


def _beir_file(path: Path, name: str) -> Path | None:
    return next((path / end for end in (f"{name}.jsonl", f"{name}.jsonl.gz") if (path / end).is_file()), None)


def _part_of(file: Path) -> str | None:
    """`test` of test.tsv and qrels.test.tsv, "" of qrels.tsv, None of a file that is not called as judgements are."""
    stem = file.stem.lower()
    rest = stem.removeprefix("qrels").strip("._-")
    return rest if rest in PARTS or not rest or file.parent.name == "qrels" else None


def _qrels(path: Path) -> list[tuple[str, str, int]]:
    """Lines of query, document and grade, with a header as in BEIR or without; TREC's four columns too."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1):
        cells = line.split("\t") if "\t" in line else line.split()
        if not line.strip() or (number == 1 and cells[-1].strip().lower() in ("score", "grade", "relevance", "label")):
            continue
        if len(cells) not in (3, 4):
            raise DataError(f"{path}, line {number}: {len(cells)} columns", "write query-id, corpus-id and score")
        found.append((cells[0].strip(), cells[-2].strip(), _grade(cells[-1], path, number)))
    return found


def _grade(text: str, path: Path, number: int) -> int:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value) or value != int(value):
        raise DataError(f"{path}, line {number}: the grade {text!r} is not a whole number", "grades are 0, 1, 2 ...")
    return int(value)
