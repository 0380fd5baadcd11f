"""Find the documents that answer a query; papers are measured against BM25 tuned on the validation queries, and a
pretrained encoder beside and joined with it.

Protocol, version 2
    Queries     Those with a relevant document take part. The test queries are those given, or two fifths, the same for
                every seed; the validation queries those given, or a fifth of the rest, drawn by the seed. Queries of the
                same words stay on one side. All of them search all documents.
    First stage The 100 documents that BM25 (k1 = 1.5, b = 0.75) finds first, the same for all methods; its words are cut
                to stems and without accents, by the language of most documents. A document that is the query itself, by id and text, is never an answer.
    Metric      nDCG@10 with graded gains, by query; MRR@10, recall@10 and @100 beside it. Equal scores (in float32) are
                ranked by id in descending order, as trec_eval does.

What a method may be, by what it offers
    estimator   `outputs(queries) -> int64 (N, 100)` rows of `queries.documents`, best first, -1 for none.
    backbone    a text encoder. It is trained with in-batch negatives (`BiEncoder`), and finds by cosine among all documents.
    objective with `score(batch) -> (B, K)`: a reranker. It puts the first stage's documents into a new order.
    objective without it: its `encoder` is trained on the documents alone and finds by cosine.
What a reranker's `loss(batch)` and `score(batch)` are called with: see `groups`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from papertrial.core.budget import Budget
from papertrial.core.errors import DataError, Declined
from papertrial.core.facts import Facts
from papertrial.core.offers import offers
from papertrial.core.task import Prepared, Ragged, Scores, Split, Supports
from papertrial.core.wording import counted
from papertrial.data.base import WHOLE
from papertrial.data.collections import Queries
from papertrial.data.collections.bm25 import K1, B, best
from papertrial.nn.ranks import all_rows
from papertrial.tasks._choosing import chosen
from papertrial.tasks._common import Common, require_backbone, through
from papertrial.tasks._metrics import DEPTH, groups_of, primary, ranking_scores
from papertrial.tasks._split import require_shares, some_of
from papertrial.tasks._texts import cut, features_of, fit_to, ids_of, require_tokeniser

TEST_SHARE, VALID_SHARE, SPLIT_SEED = 0.4, 0.2, 20_210_400
#: tokens of a query and of a document that a reranker reads, where it does not name `lengths` of its own
LENGTHS = (64, 256)
#: pairs of query and document that pass through a reranker at a time
_PAIRS = 512
_TEMPERATURE = 0.05


class Grouped:
    """A column of K documents a row, taken out of `documents` when rows are asked for.

    documents: Ragged int32 token ids.  rows: int64 (N, K) into it, -1 for an empty place.  Indexing gives an array
    (B, K, length of the longest), filled with `documents.pad`.
    """

    def __init__(self, documents: Ragged, rows: np.ndarray) -> None:
        self.documents, self.rows = documents, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        wanted = self.rows[index]
        taken = self.documents[wanted[wanted >= 0]].padded()
        held = np.full((*wanted.shape, max(1, taken.shape[1])), self.documents.pad, dtype=taken.dtype)
        held[wanted >= 0, : taken.shape[1]] = taken
        return held


class BiEncoder(nn.Module):
    """Queries and documents through one text encoder, trained so that a query is nearest to its own document.

    `loss({"query": int64 (B, N), "document": int64 (B, M), "row": int64 (B,)})`: softmax over the cosines to all
    documents of the global batch, divided by 0.05; the same document as another query's is no negative.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        query, document = (F.normalize(all_rows(self.encoder(batch[name])), dim=1) for name in ("query", "document"))
        row = all_rows(batch["row"])
        own = torch.eye(len(row), dtype=torch.bool, device=row.device)
        cosine = (query @ document.T / _TEMPERATURE).masked_fill((row[:, None] == row) & ~own, -torch.inf)
        return F.cross_entropy(cosine, torch.arange(len(row), device=row.device))

    def no_decay(self) -> set[str]:
        return offers(self.encoder).exempt("encoder")


class RetrievalTask(Common):
    """Rows are queries, with the columns of `data.collection.Collection.queries`, 100 candidates each."""

    name = "retrieval"
    version = 2
    kind = "collection"
    inputs = ("query", "documents", "first")
    references = ("bm25", "dense", "hybrid")
    floors = ("random_order",)
    budget = Budget(seconds=60)

    def primary_for(self, state: Mapping[str, Any]) -> tuple[str, bool]:
        metric = primary(state, "ndcg@10")
        return metric.name, metric.higher

    def supports(self, look: Any) -> Supports:
        if look.kind != self.kind:
            return Supports(False, f"it takes documents and queries, and {look.name} is {look.what}")
        if not look.numbers.get("examples"):
            return Supports(False, "there are no queries, so there is nothing to find; papertrial index searches it")
        if not look.numbers.get("labelled"):
            return Supports(False, "no query has a relevant document")
        return Supports(True)

    def prepare(
        self,
        data: Any,
        seed: int = 0,
        fraction: float = 1.0,
        test_share: float = TEST_SHARE,
        valid_share: float = VALID_SHARE,
        metric: str | None = None,
    ) -> Prepared:
        """fraction: share of the training queries that is used.  test_share, valid_share: sizes of the parts that the
        data does not give.  metric: what is judged by, nDCG@10 by default.

        Raises DataError when no query has a relevant document or there are too few, PapertrialError for a share out of
        range.
        """
        require_shares(fraction, test_share, valid_share)
        self.require(data)
        train, valid, test, notes = _parts(data, seed, float(fraction), float(test_share), float(valid_share))
        rows = data.queries(DEPTH)
        notes.append(f"BM25 counts {data.bm25.analyser}")
        silent = np.flatnonzero(rows["candidates"][:, 0] < 0)
        if len(silent):
            words = rows["text"][int(silent[0])].tobytes().decode("utf-8", "replace")[:60]
            notes.append(
                f"BM25 finds nothing for {counted(len(silent), 'query', 'queries')} without a word of any document: {words!r}"
            )
        lengths = data.text.lengths
        state = {"k1": K1, "b": B, "depth": DEPTH, "metric": chosen(metric, "rankings", "ndcg@10")}
        facts = Facts(
            self.kind, len(train), len(train), outputs=1,
            bytes=int(lengths.sum()), length=int(np.quantile(lengths, 0.95)),
        )  # fmt: skip
        choosing, judged = (rows.take(held).grouped(data.groups[held]) for held in (valid, test))
        return Prepared(rows.take(train), choosing, judged, facts, state, tuple(notes))

    def strata(self, data: Any) -> np.ndarray:
        """0 for queries with a relevant document, -1 for the others."""
        return np.where(data.labelled, 0, -1)

    def encode(self, state: Mapping[str, Any], data: Any) -> Queries:
        """All queries of a new collection. Raises DataError when it has none."""
        if not len(data.query):
            raise DataError(f"{data.name} has no queries", "papertrial index and search take documents alone")
        return data.queries(DEPTH)

    def cut(self, model: Any, split: Split) -> list[str]:
        assert isinstance(split, Queries)
        most = lengths_of(model) if offers(model).score else (None, None)
        columns = {"query": split["text"], "document": split.documents["text"]}
        return [
            line
            for (what, texts), limit in zip(columns.items(), most, strict=True)
            for line in cut(model, {what: texts}, limit)
        ]

    def build(self, method: Any, config: Any, optim: Any, prepared: Prepared, backbone: nn.Module | None = None) -> Any:
        """Raises Declined when the method is not for retrieval, or its network reads no text."""
        if self.name not in method.paper.tasks:
            raise Declined(f"{method.id} is not made for retrieval", "type: papertrial list")
        kind = method.paper.kind
        if kind == "estimator":
            return method.module.build(config, prepared.facts)
        if kind not in ("architecture", "objective"):
            raise self.cannot_train(method)
        if kind == "objective":
            require_backbone(method, backbone)
        model = method.module.build(config, prepared.facts, backbone)
        if kind == "architecture":
            model = BiEncoder(model)
        require_tokeniser(model.encoder, method.id if backbone is None else "the backbone")
        return model

    def training(self, model: Any, prepared: Prepared) -> Split:
        """Queries as they are for an estimator, `groups` for a reranker, (query, relevant document) pairs for a backbone,
        the documents as "ids" for an objective without `score`."""
        train = prepared.train
        assert isinstance(train, Queries)
        if not isinstance(model, nn.Module):
            return train
        fit_to(model, train.documents["text"])
        if offers(model).score:
            return groups(model, train)
        documents = ids_of(model, train.documents["text"])
        if not isinstance(model, BiEncoder):
            return Split({"ids": documents})
        relevant = train["grade"].values > 0
        query = np.repeat(np.arange(train.examples), train["grade"].lengths)[relevant]
        row = train["relevant"].values[relevant]
        return Split({"query": ids_of(model, train["text"])[query], "document": documents[row], "row": row})

    def outputs(self, model: Any, head: Mapping[str, np.ndarray], split: Split) -> np.ndarray:
        """Ids of the documents found, best first: object (N, 100), None where there is no further one."""
        assert isinstance(split, Queries)
        if not isinstance(model, nn.Module):
            rows = np.asarray(model.outputs(split), dtype=np.int64)
        elif offers(model).score:
            rows = rerank(model, split)
        else:
            rows = _nearest(self.embed(model, split), self.embed(model, split.documents), split)
        found: np.ndarray = split.documents["id"][rows]
        found[rows < 0] = None
        return found

    def embed(self, model: Any, split: Split) -> np.ndarray:
        """Features (N, width) of the queries, or of a Split of documents, float32. Raises Declined for a model without."""
        if not isinstance(model, nn.Module):
            raise Declined("this model has no features to give")
        return features_of(model, split["text"])

    def score(self, outputs: np.ndarray, split: Split, state: Mapping[str, Any]) -> Scores:
        """Queries without a relevant document are left out."""
        assert isinstance(split, Queries)
        place = {name: row for row, name in enumerate(split.documents["id"])}
        judged = [query for query in range(split.examples) if (split["grade"][query] > 0).any()]
        ranked = np.zeros((len(judged), outputs.shape[1]), dtype=np.int64)
        for row, query in enumerate(judged):
            grade = dict(zip(split["relevant"][query].tolist(), split["grade"][query].tolist(), strict=True))
            ranked[row] = [grade.get(place.get(name, -1), 0) for name in outputs[query]]
        rows = np.array(judged, dtype=np.int64)
        return ranking_scores(ranked, split["grade"][rows], primary(state, "ndcg@10").name, groups_of(split, rows))

    def answers(self, outputs: np.ndarray, state: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """`prediction`, the id of the best document, and the ids at the places 2 to 10; empty where there is none."""
        named = np.where(outputs == None, "", outputs)[:, :10]  # noqa: E711 - by element
        return {"prediction": named[:, 0], **{f"place {n + 1}": named[:, n] for n in range(1, named.shape[1])}}


TASK = RetrievalTask()


def groups(model: nn.Module, queries: Queries, learn: bool = True) -> Split:
    """What a reranker reads, one row per query with K documents each.

    "query": Ragged int32 token ids; in a batch int64 (B, N).  "documents": `Grouped`; in a batch int64 (B, K, M), rows
    filled with the tokeniser's pad; an empty place is nothing but pad.  "first": float32 (N, K), what BM25 gives the pair,
    0 for an empty place.  "grade", with `learn` alone: int64 (N, K), 1 or more: relevant, 0: judged not to be or not
    judged, -1: empty place.  With `learn` the relevant documents come first (at most half of the places, the first stage
    need not have found them), then what the first stage found besides, best first: the negatives that it makes. Without,
    the order is that of the first stage.
    """
    rows, first = queries["candidates"], queries["first"]
    columns: dict[str, Any] = {}
    if learn:
        rows, first, columns["grade"] = _with_relevant(queries)
    wanted = np.unique(rows[rows >= 0])
    place = np.zeros(queries.documents.examples, dtype=np.int64)
    place[wanted] = np.arange(len(wanted))
    documents = _tokens(model, queries.documents["text"][wanted], 1)
    return Split(
        {
            "query": _tokens(model, queries["text"], 0),
            "documents": Grouped(documents, np.where(rows >= 0, place[rows], -1)),
            "first": first,
            **columns,
        }
    )


def rerank(model: Any, queries: Queries) -> np.ndarray:
    """The candidates of each query in the order of `model.score`: int64 (N, K), -1 at the end."""
    rows = queries["candidates"]
    order = np.lexsort((-queries.documents["place"][rows], -pair_scores(model, queries)))
    return np.take_along_axis(rows, order, axis=1)


def pair_scores(model: Any, queries: Queries) -> np.ndarray:
    """What `model.score` gives each query and each of its candidates: float32 (N, K), -inf for an empty place.

    Reads the columns "text", "candidates" and "first" and the text of the documents alone.
    Raises DataError for scores that are not finite.
    """
    rows, split, inputs = queries["candidates"], groups(model, queries, learn=False), RetrievalTask.inputs
    scores = through(
        model,
        lambda *columns: model.score(dict(zip(inputs, columns, strict=True))),
        {name: split[name] for name in inputs},
        max(1, _PAIRS // rows.shape[1]),
    )
    if not np.isfinite(scores[rows >= 0]).all():
        raise DataError("the model's scores are not all finite numbers", "train again with a smaller --set lr=")
    return np.where(rows >= 0, scores.astype(np.float32), np.float32(-np.inf))


def lengths_of(model: Any) -> tuple[int, int]:
    """Tokens of a query and of a document that a reranker reads."""
    query, document = offers(model).lengths or LENGTHS
    return query, document


def _with_relevant(queries: Queries) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Documents (N, K), what BM25 gives them, and their grades, of training rows: see `groups`."""
    rows, first = np.full_like(queries["candidates"], -1), np.zeros_like(queries["first"])
    grades = np.full_like(rows, -1)
    for query in range(queries.examples):
        judged, grade, value = (queries[name][query] for name in ("relevant", "grade", "relevant_first"))
        order = np.argsort(-grade, kind="stable")[: rows.shape[1] // 2]
        order = order[grade[order] > 0]
        candidates = queries["candidates"][query]
        others = (candidates >= 0) & ~np.isin(candidates, judged[grade > 0])
        for column, relevant, rest in (
            (rows, judged[order], candidates[others]),
            (first, value[order], queries["first"][query][others]),
            (grades, grade[order], np.zeros(others.sum(), dtype=np.int64)),
        ):
            joined = np.concatenate([relevant, rest])[: rows.shape[1]]
            column[query, : len(joined)] = joined
    return rows, first, grades


def _parts(
    data: Any, seed: int, fraction: float, test_share: float, valid_share: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Rows of the training, validation and test queries."""
    part, group = np.where(data.labelled, data.part, -1), data.groups
    notes: list[str] = []
    if (part == WHOLE).any():
        return np.flatnonzero(part == WHOLE), *2 * (np.zeros(0, dtype=np.int64),), notes

    def draw(share: float, rng: np.random.Generator) -> np.ndarray:
        """A share of the free queries, but for copies, which come along; never all of them."""
        free = np.unique(group[part == 0])
        chosen = rng.permutation(free)[: min(max(1, round(share * len(free))), len(free) - 1)]
        return np.isin(group, chosen) & (part == 0)

    if not (part == 2).any() or not ((part == 0) | (part == 1)).any():  # test judgements alone are there to be parted
        part[part > 0] = 0
        part[draw(test_share, np.random.default_rng(SPLIT_SEED))] = 2
        notes.append(f"test: {(part == 2).sum()} of {(part >= 0).sum()} queries, the same for every seed")
    if not (part == 0).any():
        part[part == 1] = 0
    if not (part == 1).any():
        part[draw(valid_share, np.random.default_rng([seed, 0]))] = 1
    train, valid, test = (np.flatnonzero(part == index) for index in range(3))
    if not len(train) or not len(valid) or not len(test):
        raise DataError(
            f"{data.name} has too few queries with a relevant document ({data.labelled.sum()}) for training, validation"
            " and test",
            "give at least 5 of them",
        )
    if fraction < 1:
        train = some_of(train, fraction, seed)
    return train, valid, test, notes


def _tokens(model: Any, texts: Ragged, which: int) -> Ragged:
    """As the model reads them. which: 0 for queries, 1 for documents."""
    ids: Ragged = model.encoder.tokeniser.encode(texts, longest=lengths_of(model)[which])
    return ids


def _nearest(queries: np.ndarray, documents: np.ndarray, split: Queries) -> np.ndarray:
    """int64 (N, 100): the documents of the largest cosine, exactly."""
    keys = F.normalize(torch.from_numpy(documents).float(), dim=1).numpy()
    asked = F.normalize(torch.from_numpy(queries).float(), dim=1).numpy()
    rows = np.full((len(asked), DEPTH), -1, dtype=np.int64)
    for query in range(len(asked)):
        found = best(keys @ asked[query], DEPTH, split.documents["place"], int(split["itself"][query]))
        rows[query, : len(found)] = found
    return rows
