"""Reranking and search by words: a cross-encoder against sentence-transformers', BM25 against bm25s."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import nn

from bench.harness import Case, Race, Side
from papertrial.core.task import Ragged, Split
from papertrial.data import open as open_data
from papertrial.data.collections import Queries
from papertrial.data.collections.bm25 import K1, B, Bm25, words_of
from papertrial.nn import pretrained
from papertrial.papers.lce_reranker import Config, Reranker
from papertrial.tasks.retrieval import pair_scores

LONGEST = 128


def texts(count: int) -> list[str]:
    """Paragraphs of Python's documentation; beyond what there is, sentences of its words drawn at random."""
    data = open_data("python-pairs")
    found = list(dict.fromkeys([*data.first.texts(), *data.second.texts()]))
    words, draw = [word for text in found for word in text.split()], random.Random(0)
    while len(found) < count:
        found.append(" ".join(draw.choices(words, k=draw.randint(20, 80))))
    return found[:count]


def scoring(case: Case) -> tuple[Side, Side]:
    from sentence_transformers import CrossEncoder

    torch.manual_seed(0)
    place = pretrained.find("minilm").source
    theirs = CrossEncoder(place, num_labels=1, max_length=LONGEST, device=str(case.device), activation_fn=nn.Identity())
    ours = Reranker(Config(scorer="cross", fuse=False, longest=LONGEST), pretrained.find("minilm").load())
    bert = theirs.model if hasattr(theirs.model, "classifier") else theirs[0].auto_model
    with torch.no_grad():
        for mine, other in ((ours.scorer.pooler, bert.bert.pooler.dense), (ours.scorer.last, bert.classifier)):
            other.weight.copy_(mine.weight)
            other.bias.zero_() if mine.bias is None else other.bias.copy_(mine.bias)
    ours = case.place(ours).eval()
    query, *documents = texts(case.size + 1)
    held = {
        "text": Ragged.of_texts([query]),
        "candidates": np.arange(case.size)[None],
        "first": np.zeros((1, case.size), dtype=np.float32),
    }
    queries = Queries(held, Split({"text": Ragged.of_texts(documents)}), None)
    pairs = [(query, document) for document in documents]
    return (
        Side(lambda: pair_scores(ours, queries)[0]),
        Side(lambda: theirs.predict(pairs, batch_size=64, show_progress_bar=False)),
    )


def _bm25s(documents: list[str]):
    import bm25s

    engine = bm25s.BM25(method="lucene", k1=K1, b=B)
    engine.index([words_of(text) for text in documents], show_progress=False)
    return engine


def searching(case: Case) -> tuple[Side, Side]:
    documents, asked = texts(case.size), [text[:60] for text in texts(50)]
    ours, theirs = Bm25.of(documents), _bm25s(documents)
    place = np.arange(len(documents))

    def our_scores() -> list[np.ndarray]:
        return [ours.top(query, 10, place)[1] for query in asked]

    def their_scores() -> list[np.ndarray]:
        return [theirs.retrieve([words_of(query)], k=10, show_progress=False, n_threads=0).scores[0] for query in asked]

    return Side(our_scores), Side(their_scores)


def indexing(case: Case) -> tuple[Side, Side]:
    documents = texts(case.size)

    def words(found: int) -> list[int]:
        return [found]

    return (
        Side(lambda: Bm25.of(documents), lambda: words(len(Bm25.of(documents).words))),
        Side(lambda: _bm25s(documents), lambda: words(len(set(_bm25s(documents).vocab_dict) - {""}))),
    )


_DOCUMENTS = {f"{count} documents": count for count in (1000, 3000, 10_000, 30_000)}
_WORDS = {"dtypes": ("float32",), "compiled": False, "only_cpu": "numpy"}

RACES = [
    Race(
        "scoring the candidates of a query",
        "sentence-transformers",
        scoring,
        {f"{count} documents": count for count in (8, 16, 32, 64)},
        dtypes=("float32",),
        compiled=False,
    ),
    Race("50 queries, BM25", "bm25s", searching, _DOCUMENTS, **_WORDS),
    Race("indexing, BM25", "bm25s", indexing, _DOCUMENTS, **_WORDS),
]
