"""The claims of LCE reranker, and the experiments that try them."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import torch
from torch import nn

from papertrial.claims._lab import trial
from papertrial.core import registry
from papertrial.core.facts import Facts
from papertrial.core.paper import claim
from papertrial.core.task import Prepared
from papertrial.data.collections import Collection, Queries
from papertrial.data.collections.files import Document
from papertrial.data.toy import at_hand
from papertrial.nn.transformer import Encoder, bert_layout
from papertrial.papers import lce_reranker as paper

_LOSSES = {"lce": paper.lce, "bce": paper.bce}


@claim(
    "Adding a constant to the scores of a group leaves LCE unchanged; the pointwise loss changes.",
    where="eq. 4",
    kind="identity",
)
def blind_to_a_shift(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    generator = torch.Generator().manual_seed(seed)
    scores_BK = torch.randn(32, 8, generator=generator, dtype=torch.float64)
    shift_B1 = 3 * torch.randn(32, 1, generator=generator, dtype=torch.float64)
    changes = {name: float((f(scores_BK + shift_B1) - f(scores_BK)).abs().max()) for name, f in _LOSSES.items()}
    return changes["lce"] < 1e-12 and changes["bce"] > 0.1, changes


@claim(
    "A group of one costs nothing, whatever its score, and asks for no change; the pointwise loss goes on.",
    where="eq. 4",
    kind="property",
)
def nothing_to_win_alone(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    generator = torch.Generator().manual_seed(seed)
    scores_BK = torch.randn(32, 1, generator=generator, dtype=torch.float64).requires_grad_()
    slopes = {n: float(torch.autograd.grad(f(scores_BK).sum(), scores_BK)[0].abs().max()) for n, f in _LOSSES.items()}
    measured = {"loss": float(paper.lce(scores_BK).detach().abs().max()), **slopes}
    return measured["loss"] == 0 and slopes["lce"] == 0 and slopes["bce"] > 0.1, measured


@claim(
    "The gradient of a group pulls up the relevant document by as much as it pushes down all negatives together, each by "
    "its share of the softmax.",
    where="eq. 4",
    kind="identity",
)
def hard_negatives_weigh_more(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    generator = torch.Generator().manual_seed(seed)
    scores_BK = 3 * torch.randn(32, 8, generator=generator, dtype=torch.float64)
    slope_BK = torch.autograd.grad(paper.lce(scores_BK.requires_grad_()).sum(), scores_BK)[0]
    share_BK = torch.softmax(scores_BK.detach(), 1)
    measured = {
        "balance": float(slope_BK.sum(1).abs().max()),
        "share": float((slope_BK[:, 1:] - share_BK[:, 1:]).abs().max()),
    }
    return max(measured.values()) < 1e-12, measured


@cache
def sentences() -> Collection:
    """XQuAD's English questions, and the sentences of its paragraphs to find the one that holds the answer.

    Whole paragraphs are too easy: BM25 alone reaches an MRR@10 of 0.95.
    """
    articles = json.loads(at_hand("qa/xquad/xquad.en.json").read_text(encoding="utf-8"))["data"]
    documents, queries, judged = [], [], []
    for place, paragraph in enumerate(paragraph for article in articles for paragraph in article["paragraphs"]):
        text = paragraph["context"]
        begins = [0, *(found.end() for found in re.finditer(r"[.!?][\"')\]]*\s+(?=[A-Z\"'(\[])", text))]
        for begin, end in zip(begins, [*begins[1:], len(text)], strict=True):
            documents.append(Document(f"{place}-{begin}", "", text[begin:end].strip()))
        for asked in paragraph["qas"]:
            begin = max(begin for begin in begins if begin <= asked["answers"][0]["answer_start"])
            queries.append((asked["id"], asked["question"]))
            judged.append((asked["id"], f"{place}-{begin}", 1))
    return Collection("xquad-sentences", documents, queries, {0: judged})


#: documents of the first stage that are put into a new order, and those that negatives are drawn from
_FIRST = 16


@cache
def _prepared(seed: int) -> Prepared:
    return registry.task("retrieval").prepare(sentences(), seed)


def _candidates(prepared: Prepared) -> Queries:
    """The test queries with the first documents that BM25 finds."""
    test: Any = prepared.test
    cut = {name: test[name][:, :_FIRST] for name in ("candidates", "first")}
    return Queries({**test.columns, **cut}, test.documents, test.bm25)


def _bm25(seed: int) -> float:
    """MRR@10 of the first stage."""
    task, prepared = registry.task("retrieval"), _prepared(seed)
    test = _candidates(prepared)
    found = test.documents["id"][test["candidates"]]
    found[test["candidates"] < 0] = None
    return float(task.score(found, test, prepared.state).metrics["mrr@10"])


@cache
def _reranked(scale: str, seed: int, scratch: bool = False, **settings: Any) -> float:
    """MRR@10 after as many groups, and so pairs, whatever the settings. scratch: a cross-encoder of two fresh layers."""
    prepared = _prepared(seed)

    def backbone(facts: Facts) -> nn.Module:
        words = registry.method("word_vectors").module
        kernel: nn.Module = words.build(words.Config(), facts)
        layout = bert_layout(128, 2, 4, 512, 256)
        return Encoder(kernel.tokeniser, layout, segments=2, embed_norm=True) if scratch else kernel

    found = trial(
        "lce_reranker", "retrieval", prepared, seed, steps={"tiny": 20}.get(scale, 150 if scratch else 300),
        config={"fuse": False, "depth": _FIRST, "longest": 128, **settings}, optim={"lr": 1e-3} if scratch else {},
        backbone=backbone,
    )  # fmt: skip
    return float(found.scores(_candidates(prepared))["mrr@10"])


_DATA = "there MS MARCO and BERT, here XQuAD's sentences and kernel pooling"


@claim(
    "After as many pairs, the contrastive loss ranks better than the pointwise one, by a point of MRR@10.",
    where=f"table 2, {_DATA}",
    kind="trend",
    cost={"tiny": "5 s cpu", "base": "15 s cpu"},
)
def groups_beat_pairs(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    measured = {"lce": _reranked(scale, seed), "bce": _reranked(scale, seed, loss="bce")}
    measured["margin"] = measured["lce"] - measured["bce"] - 0.01
    return measured["margin"] >= 0, measured


@claim(
    "The reranker orders the first stage's documents better than BM25 does, by a point of MRR@10.",
    where=f"table 1, {_DATA}",
    kind="trend",
    cost={"tiny": "5 s cpu", "base": "10 s cpu"},
)
def better_than_the_first_stage(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    measured = {"lce": _reranked(scale, seed), "bm25": _bm25(seed)}
    measured["margin"] = measured["lce"] - measured["bm25"] - 0.01
    return measured["margin"] >= 0, measured


@claim(
    "Negatives from the retriever's first ranks teach more than those from the 10th to the 16th.",
    where=f"sec. 3.2, {_DATA}",
    kind="trend",
    cost={"tiny": "5 s cpu", "base": "15 s cpu"},
)
def hard_negatives_teach_more(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    measured = {"all_ranks": _reranked(scale, seed), "ranks_10_to_16": _reranked(scale, seed, skip=9)}
    measured["margin"] = measured["all_ranks"] - measured["ranks_10_to_16"]
    return measured["margin"] >= 0, measured


@claim(
    "A cross-encoder of two layers from scratch beats BM25.",
    where="no claim of the paper, whose cross-encoder is pretrained: what the loss alone does not give",
    kind="trend",
    cost={"tiny": "15 s cpu", "base": "90 s cpu"},
)
def scratch_beats_the_first_stage(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    measured = {"cross_encoder": _reranked(scale, seed, scratch=True), "bm25": _bm25(seed)}
    measured["margin"] = measured["cross_encoder"] - measured["bm25"]
    return measured["margin"] >= 0, measured
