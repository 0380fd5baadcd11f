"""LCE reranker - train a reranker on the mistakes of the retriever that it will stand behind.

Luyu Gao, Zhuyun Dai, Jamie Callan. ECIR 2021, arXiv 2101.08751.

The idea
    A reranker sees what a first stage found, so the negatives it learns from are drawn from the top of that same stage. The
    relevant document must win against them within its group, by a softmax over the group: what all its members share, such
    as the words of the query that made the first stage choose them, cancels out. A loss that judges each pair by itself
    learns exactly that first.

The equation
    L = mean_q -log( exp s(q, d+) / sum_{d in G_q} exp s(q, d) )               (eq. 4)
    G_q = {d+} and m - 1 negatives from the first stage's top k for q           (sec. 3.2)

What matters
    Groups are drawn anew each epoch. Negatives from lower ranks are easier and teach less; those from the very top may be
    relevant documents nobody has judged, which `skip` leaves out. A reranker finds nothing: recall@100 is the first stage's.

Requires / Offers
    Requires documents, queries and judgements. Offers score (pairs), ranks, `papertrial search INDEX QUERY --rerank RUN`.

Relations
    `loss=bce` is the pointwise loss it replaces. Two scorers: a cross-encoder as in the paper, on any text backbone that
    reads a pair at once; kernel pooling (K-NRM, 1706.06613) on a table of word vectors, which learns in seconds.

Try
    papertrial compare lce_reranker --data beir_folder/

Cost
    tiny: seconds on a CPU. base: a minute on a CPU. paper: BERT on MS MARCO documents, on GPUs; not run here.

Notation
    B queries of a batch, K candidates of a query, m size of a group, P pairs, N tokens of a query, M of a document, s score.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from papertrial.core.budget import Budget
from papertrial.core.errors import PapertrialError
from papertrial.core.facts import Facts
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced
from papertrial.nn.views import Draw

PAPER = Paper(
    id="lce_reranker",
    title="Rethink Training of BERT Rerankers in Multi-Stage Retrieval Pipeline",
    kind="objective",
    method="Reranker",
    idea="Trains a reranker on the mistakes of its own retriever, so that a better first stage ends in a better ranking.",
    authors="Luyu Gao, Zhuyun Dai, Jamie Callan",
    year=2021,
    month="2021-01",
    arxiv="2101.08751",
    tasks=("retrieval",),
    tags=("text", "retrieval", "ranking"),
    baselines=("bm25", "random_order"),
    builds_on=("word_vectors",),
    official="https://github.com/luyug/Reranker",
    licence="Apache-2.0",
    caveats=(
        "The top ranks hold relevant documents that nobody judged; as negatives they teach the wrong thing, and the paper "
        "does not measure how much. `skip` leaves out the first ones.",
        "The paper's own experiments are BERT on MS MARCO documents; nothing of that size is tried here.",
        "The pointwise loss starts here with the share of relevant documents in a group as its bias. So started, and with "
        "kernel pooling, it does not lose to LCE: see `groups_beat_pairs`.",
        "A query with more than 50 relevant documents takes part with 50 of them.",
    ),
)

LOSSES = ("lce", "bce")
SCORERS = ("auto", "cross", "kernel")


@checked
@dataclass(frozen=True)
class Config:
    loss: str = sourced("lce", "eq. 4; bce is eq. 2, which it is compared with", " | ".join(LOSSES))
    group: int = sourced(8, "authors' code: one relevant document and seven negatives", "[2, 1024]")
    depth: int = sourced(100, "sec. 4: negatives come from the first ranks of the first stage", "[1, 1000000]")
    skip: int = sourced(0, "papertrial default; ranks left out at the top", "[0, 1000000], below depth")
    temperature: float = sourced(1.0, "papertrial default: none", "[1e-6, 1000]")
    scorer: str = sourced(
        "auto", "kernel where the backbone reads words one by one, else cross, as sec. 3.1", " | ".join(SCORERS)
    )
    fuse: bool = sourced(True, "papertrial default: the score of the first stage takes part; the paper's does not")
    longest: int = sourced(
        128,
        "authors' code, for passages; 512 for documents. Tokens of a pair (cross) or of a document (kernel)",
        "[8, 65536]",
        auto=lambda facts: min(512, max(128, facts.length // 4)),
    )
    dropout: float = sourced(0.1, "BERT, before the last layer", "[0, 1)")
    hidden: int = sourced(32, "papertrial default; units of the kernel scorer", "[1, 65536]")
    chunk: int = sourced(0, "authors' code has a gradient cache: pairs that pass at a time, 0 is all", "[0, 1000000]")


def lce(scores_BK: Tensor, held_BK: Tensor | None = None, temperature: float = 1.0) -> Tensor:
    """Eq. 4, (B,): the cross-entropy of the first place of each group.

    held: bool, the places that are not empty; all where not given. A group of one costs nothing.
    """
    logits_BK = scores_BK / temperature
    if held_BK is not None:
        logits_BK = logits_BK.masked_fill(~held_BK, -torch.inf)
    return -logits_BK.log_softmax(1)[:, 0]


def bce(scores_BK: Tensor, held_BK: Tensor | None = None, temperature: float = 1.0) -> Tensor:
    """Eq. 2, (B,): each pair by itself, the first place of a group is relevant and the others are not; mean over a group."""
    held_BK = torch.ones_like(scores_BK, dtype=torch.bool) if held_BK is None else held_BK
    target_BK = torch.zeros_like(scores_BK)
    target_BK[:, 0] = 1
    each_BK = F.binary_cross_entropy_with_logits(scores_BK / temperature, target_BK, reduction="none")
    return (each_BK * held_BK).sum(1) / held_BK.sum(1)


def sample(grade_BK: Tensor, draw: Draw, group: int, skip: int = 0, depth: int | None = None) -> Tensor:
    """Places (B, group) of a relevant document and of negatives drawn without repetition; -1 where there is none.

    grade: int64, 1 or more: relevant, 0: a negative, best first, -1: an empty place.  Negatives are those of the ranks
    `skip` to `depth` among the negatives. Fewer than wanted are taken again in turn.
    """
    places = grade_BK.shape[1]
    relevant_BK, negative_BK = grade_BK > 0, grade_BK == 0
    rank_BK = negative_BK.cumsum(1) - 1
    eligible_BK = negative_BK & (rank_BK >= skip) & (rank_BK < (places if depth is None else depth))
    chance_BK = draw.uniform(places)
    first_B1 = chance_BK.masked_fill(~relevant_BK, -1).argmax(1, keepdim=True)
    order_BK = chance_BK.masked_fill(~eligible_BK, -1).argsort(1, descending=True)
    count_B1 = eligible_BK.sum(1, keepdim=True)
    # DIFF: the authors draw with repetition when there are too few; in turn is as fair, and needs no other branch
    turn_BG = torch.arange(group - 1, device=grade_BK.device) % count_B1.clamp(min=1)
    others_BG = order_BK.gather(1, turn_BG).masked_fill(count_B1 == 0, -1)
    return torch.cat([first_B1, others_BG], 1)


class Join:
    """From the ids of two texts to those of the pair, as `tokeniser.encode_pairs` writes it.

    What stands between the texts, and what of the second one is left out, is read off one pair; a tokeniser without
    `encode_pairs` puts one text behind the other.
    """

    def __init__(self, tokeniser: Any) -> None:
        self.pad, self.between, self.dropped = tokeniser.pad, (), 0
        if hasattr(tokeniser, "encode_pairs"):
            first, second, pair = (
                encoded.values.tolist()
                for encoded in (
                    tokeniser.encode(["a"]), tokeniser.encode(["b"]), tokeniser.encode_pairs(["a"], ["b"]),
                )
            )  # fmt: skip
            rest = pair[len(first) :]
            kept = next(n for n in range(len(second), -1, -1) if rest[len(rest) - n :] == second[len(second) - n :])
            self.between, self.dropped = tuple(rest[: len(rest) - kept]), len(second) - kept

    def __call__(self, query_PN: Tensor, document_PM: Tensor, longest: int) -> Tensor:
        """ids (P, L), at most `longest`: the document alone is cut, and keeps its last token, which ends the pair."""
        lengths_P, ends_P = ((ids != self.pad).sum(1, keepdim=True) for ids in (query_PN, document_PM))
        begins_P = lengths_P + len(self.between)
        total_P = torch.where(ends_P > 0, begins_P + ends_P - self.dropped, lengths_P)
        kept = torch.sym_max(document_PM.shape[1] - self.dropped, 0)  # sizes that a traced program leaves open
        width = torch.sym_min(longest, query_PN.shape[1] + len(self.between) + kept)
        total_P = total_P.clamp(max=longest)
        at_PL = torch.arange(width, device=query_PN.device).expand(query_PN.shape[0], -1)
        between = torch.tensor((*self.between, self.pad), dtype=query_PN.dtype, device=query_PN.device)
        inside_PL = (at_PL - begins_P + self.dropped).clamp(0, document_PM.shape[1] - 1)
        inside_PL = torch.where(at_PL == total_P - 1, (ends_P - 1).clamp(min=0), inside_PL)
        ids_PL = torch.where(
            at_PL < lengths_P,
            query_PN.gather(1, at_PL.clamp(max=query_PN.shape[1] - 1)),
            torch.where(
                at_PL < begins_P,
                between[(at_PL - lengths_P).clamp(0, len(self.between))],
                document_PM.gather(1, inside_PL),
            ),
        )
        return ids_PL.masked_fill(at_PL >= total_P, self.pad)


class CrossScorer(nn.Module):
    """Query and document are read at once: the first token through BERT's pooler and one last layer (sec. 3.1).

    `forward(encoder, query (P, N), document (P, M)) -> (P,)`. width: of the encoder.  bias: whether the last layer has one.
    arguments: what it was made with.
    """

    def __init__(self, width: int, longest: int, dropout: float, bias: bool) -> None:
        super().__init__()
        self.arguments = {"width": width, "longest": longest, "dropout": dropout, "bias": bias}
        self.longest = longest
        self.pooler = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(width, 1, bias=bias)

    def forward(self, encoder: Any, query_PN: Tensor, document_PM: Tensor) -> Tensor:
        join = Join(encoder.tokeniser)
        ids_PL = join(query_PN, document_PM, self.longest)
        told = getattr(encoder.tokeniser, "segmented", False)
        x_PLC = encoder.tokens(ids_PL, encoder.tokeniser.segments(ids_PL)) if told else encoder.tokens(ids_PL)
        return self.last(self.dropout(torch.tanh(self.pooler(x_PLC[:, 0])))).squeeze(1)


#: centres of the kernels, a step apart and of the width of a step
CENTRES, STEP = tuple(round(0.1 * n, 1) for n in range(1, 10)), 0.1
FEATURES = 2 * (1 + len(CENTRES)) + 1


def cosines(encoder: Any, query_PN: Tensor, document_PM: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of the vectors of single tokens: (P, N, M), and which tokens have one, bool (P, N) and (P, M).

    Where words are read one by one, each that occurs is looked up and compared once, however many pairs have it; not in a
    traced program, whose shapes must not depend on values.
    """
    if not getattr(encoder, "words", False) or torch.compiler.is_compiling():
        query_PNC, document_PMC = (F.normalize(encoder.tokens(ids), dim=2) for ids in (query_PN, document_PM))
        return query_PNC @ document_PMC.transpose(1, 2), query_PNC.any(2), document_PMC.any(2)
    (asked_U, at_PN), (known_V, at_PM) = (ids.unique(return_inverse=True) for ids in (query_PN, document_PM))
    asked_UC, known_VC = (F.normalize(encoder.tokens(ids.unsqueeze(0))[0], dim=1) for ids in (asked_U, known_V))
    cosine_PNM = (asked_UC @ known_VC.T)[at_PN.unsqueeze(2), at_PM.unsqueeze(1)]
    return cosine_PNM, asked_UC.any(1)[at_PN], known_VC.any(1)[at_PM]


def kernel_features(cosine_PNM: Tensor, same_PNM: Tensor, held_PM: Tensor) -> Tensor:
    """(P, N, 21), how well a document matches each token of a query.

    Of exact matches and of nine Gaussian bins of the cosine: log(1 + count), and the same of the count per 32 tokens of the
    document; and the largest cosine.  same: bool, equal tokens.  held: bool, the tokens of the document that take part.
    """
    held_PNM = held_PM.unsqueeze(1)
    counts = [(same_PNM & held_PNM).sum(2).to(cosine_PNM.dtype)]
    for centre in CENTRES:
        near_PNM = torch.exp((cosine_PNM - centre).square() / (-2 * STEP**2))
        counts.append((near_PNM * held_PNM).sum(2))
    count_PNF = torch.stack(counts, 2)
    length_P11 = held_PM.sum(1).clamp(min=1).to(cosine_PNM.dtype).view(-1, 1, 1)
    share_PNF = count_PNF * 32 / length_P11
    largest_PN1 = (cosine_PNM * held_PNM).amax(2, keepdim=True)
    return torch.cat([count_PNF.log1p(), share_PNF.log1p(), largest_PN1], 2)


class KernelScorer(nn.Module):
    """Kernel pooling: features of the cosines between single tokens, the mean over the query's tokens by their weight, and
    a small perceptron. `forward(encoder, query (P, N), document (P, M)) -> (P,)`. bias: whether the last layer has one.

    The encoder tells `tokens(ids)`, and `weights(ids)` of them where it has it; zeros take no part. arguments: what it was
    made with.
    """

    def __init__(self, hidden: int, bias: bool) -> None:
        super().__init__()
        self.arguments = {"hidden": hidden, "bias": bias}
        self.hidden, self.last = nn.Linear(FEATURES, hidden), nn.Linear(hidden, 1, bias=bias)

    def forward(self, encoder: Any, query_PN: Tensor, document_PM: Tensor) -> Tensor:
        cosine_PNM, asked_PN, held_PM = cosines(encoder, query_PN, document_PM)
        same_PNM = query_PN.unsqueeze(2) == document_PM.unsqueeze(1)
        features_PNF = kernel_features(cosine_PNM, same_PNM, held_PM)
        weigh = getattr(encoder, "weights", None)
        weight_PN = (weigh(query_PN) if weigh else 1) * asked_PN
        mean_PF = (features_PNF * weight_PN.unsqueeze(2)).sum(1) / weight_PN.sum(1, keepdim=True).clamp(min=1e-6)
        return self.last(F.relu(self.hidden(mean_PF))).squeeze(1)


class Reranker(nn.Module):
    """The objective on any text backbone; its batches are those of `tasks.retrieval.groups`.

    `views` draws the group of each query, `loss` is LCE or BCE over groups, `score(batch) -> (B, K)` is for all candidates.
    Raises PapertrialError for a cross-encoder on a backbone that reads words one by one.
    """

    def __init__(self, config: Config, backbone: Any) -> None:
        super().__init__()
        words = getattr(backbone, "words", False)
        scorer = config.scorer if config.scorer != "auto" else "kernel" if words else "cross"
        if scorer == "cross" and words:
            raise PapertrialError(
                "this backbone reads words one by one, not a pair at once", "take --set scorer=kernel"
            )
        self.config, self.encoder = config, backbone
        self.lengths = (64, config.longest)
        bias = config.loss == "bce"  # LCE does not see one, see `blind_to_a_shift`
        self.scorer = (
            KernelScorer(config.hidden, bias)
            if scorer == "kernel"
            else CrossScorer(backbone.width, config.longest, config.dropout, bias)
        )
        if bias:  # the class prior, so that no step is spent on finding it
            nn.init.constant_(self.scorer.last.bias, -float(np.log(config.group - 1)))
        self.fusion = nn.Parameter(torch.tensor(0.1)) if config.fuse else None

    def views(self, batch: Mapping[str, Tensor], draw: Draw) -> dict[str, Tensor]:
        """The group of each query: "documents" (B, m, M), "first" (B, m) and "held", bool (B, m)."""
        places = sample(batch["grade"], draw, self.config.group, self.config.skip, self.config.depth)
        held = places >= 0
        places = places.clamp(min=0)
        rows = torch.arange(len(places), device=places.device).unsqueeze(1)
        documents = batch["documents"][rows, places].masked_fill(~held.unsqueeze(2), self.encoder.tokeniser.pad)
        longest = int((documents != self.encoder.tokeniser.pad).any(0).any(0).sum())
        return {
            "query": batch["query"],
            "documents": documents[:, :, : max(longest, 1)],
            "first": batch["first"].gather(1, places) * held,
            "held": held,
        }

    def loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        each = (lce if self.config.loss == "lce" else bce)(self.score(batch), batch["held"], self.config.temperature)
        return each.mean()

    def score(self, batch: Mapping[str, Tensor]) -> Tensor:
        """(B, K), of "query" (B, N), "documents" (B, K, M) and, where scores are fused, "first" (B, K)."""
        documents = batch["documents"]
        query_PN, document_PM = batch["query"].repeat_interleave(documents.shape[1], 0), documents.flatten(0, 1)
        size = self.config.chunk
        if not size or not torch.is_grad_enabled():
            scores_P = self.scorer(self.encoder, query_PN, document_PM)
        else:  # forward keeps the scores alone, and backward does each chunk again: two passes, the same gradients
            scores_P = torch.cat(
                [
                    checkpoint(self.scorer, self.encoder, query, document, use_reentrant=False)
                    for query, document in zip(query_PN.split(size), document_PM.split(size), strict=True)
                ]
            )
        scores_BK = scores_P.view(documents.shape[:2])
        return scores_BK if self.fusion is None else scores_BK + self.fusion * batch["first"]

    def no_decay(self) -> set[str]:
        inner = getattr(self.encoder, "no_decay", None)
        return {f"encoder.{name}" for name in inner()} if inner else set()


def build(config: Config, facts: Facts, backbone: nn.Module | None = None) -> Reranker:
    if backbone is None:
        raise ValueError("lce_reranker trains a backbone, and none was given")
    return Reranker(config, backbone)


recipes = {
    "paper": Recipe(
        "paper",
        config={"fuse": False, "longest": 512, "depth": 100},
        optim={"lr": 1e-5, "batch": 16, "warmup": 0.1, "weight_decay": 0.0, "epochs": 2},
        budget=Budget(samples=2 * 367_013),
        source="authors' code, BERT-base on MS MARCO documents",
        cost="GPUs; not run here",
    ),
    "base": Recipe(
        "base",
        optim={"lr": 3e-3, "batch": 16, "warmup": 0.1, "weight_decay": 0.01},
        source="papertrial default for the kernel scorer, not tuned; a pretrained cross-encoder wants less, such as lr=2e-5",
        cost="a minute on a CPU",
    ),
    "tiny": Recipe(
        "tiny",
        config={"depth": 16},
        optim={"lr": 1e-2, "batch": 16, "warmup": 0.1},
        budget=Budget(steps=30),
        source="small enough for tests",
        cost="seconds on a CPU",
    ),
}
