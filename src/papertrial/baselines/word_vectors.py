"""Word vectors - a backbone that reads words one by one: a table of vectors that stays as it is, and how much each counts.

The idea
    Much of relevance is which words of the query the document has, or words like them. A table of word vectors tells how
    alike two words are at the cost of a look-up, so what is learned on top of it is learned in seconds. The vectors are the
    input table of MiniLM-L6, a sentence encoder trained elsewhere on a billion pairs.

The equation
    e(x) = sum_t w_t v_t / sum_t w_t;  w_t = log((D + 1) / (n_t + 1/2)) * exp(<u, v_t>)

What matters
    Rare words count more. The correction u is learned and a function of the vector, so that words which training never saw
    have one too.

Requires / Offers
    Texts, and the extra `encoder`, whose weights come with it. Offers embed, and vectors and weights of single words.

Relations
    `static_words` is the same table without anything learned by gradients. The default backbone of rerankers.

Try
    papertrial fit word_vectors --data beir_folder/

Cost
    A second to read the table, seconds to learn; an artifact has 23 MB.

Notation
    v_t the vector of token t, of length one; n_t of the D training texts have it; u the one learned vector.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from papertrial.baselines.static_words import table
from papertrial.core.budget import Budget
from papertrial.core.facts import Facts
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced
from papertrial.nn.tokenise import Pretrained

PAPER = Paper(
    id="word_vectors",
    title="Weighted word vectors",
    kind="architecture",
    method="WordVectors",
    idea="Vectors of single words that stay as they are, and a learned weight for each.",
    tasks=("retrieval", "sentence_similarity", "text_classification"),
    tags=("text", "baseline", "pretrained"),
    builds_on=("static_words",),
    needs=("encoder", "text"),
)

#: shape of the table
_TOKENS, _WIDTH = 30_522, 384


@checked
@dataclass(frozen=True)
class Config:
    longest: int = sourced(512, "papertrial default; tokens read of a text", "[1, 1000000]")
    pretrained: bool = sourced(True, "what word_vectors stands for")


class WordVectors(nn.Module):
    """ids (B, N) int64 -> (B, 384). A token without a vector (padding, separators) has zeros and no weight.

    vectors: float16 (tokens, 384), rows of length one or zero.  `words`: its tokens do not see each other.
    """

    table: Tensor
    rarity: Tensor
    words = True

    def __init__(self, tokeniser: Pretrained, vectors: Tensor, longest: int = 512) -> None:
        super().__init__()
        self.tokeniser, self.width, self.longest = tokeniser, vectors.shape[1], longest
        self.register_buffer("table", vectors)
        self.register_buffer("rarity", torch.ones(len(vectors)))
        self.importance = nn.Parameter(torch.zeros(self.width))

    def fit_inputs(self, columns: Any) -> None:
        """Count in how many of the training texts, the column "text", each token is."""
        ids = self.tokeniser.encode(columns["text"], longest=self.longest)
        row = np.repeat(np.arange(len(ids)), ids.lengths)
        found = np.unique(row * len(self.table) + ids.values) % len(self.table)
        having = np.bincount(found, minlength=len(self.table))
        self.rarity.copy_(torch.from_numpy(np.log((len(ids) + 1) / (having + 0.5))).clamp(min=0))

    def tokens(self, ids: Tensor) -> Tensor:
        """(B, N, 384), each of length one or zero."""
        return F.embedding(ids, self.table).to(self.importance.dtype)

    def weights(self, ids: Tensor) -> Tensor:
        """(B, N): how much each token counts, at least zero."""
        x = self.tokens(ids)
        return self.rarity[ids] * torch.exp(x @ self.importance) * x.any(-1)

    def forward(self, ids: Tensor) -> Tensor:
        weight = self.weights(ids).unsqueeze(-1)
        return (self.tokens(ids) * weight).sum(1) / weight.sum(1).clamp(min=1e-6)


def build(config: Config, facts: Facts, backbone: nn.Module | None = None) -> WordVectors:
    """Raises PapertrialError without the extra `encoder`."""
    if not config.pretrained:  # the artifact has its own
        return WordVectors(Pretrained(), torch.zeros(_TOKENS, _WIDTH, dtype=torch.float16), config.longest)
    tokeniser, rows = table()
    vectors = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    vectors[tokeniser.encode([""]).values] = 0  # what every text has
    vectors[tokeniser.pad] = 0
    return WordVectors(copy.deepcopy(tokeniser), torch.from_numpy(vectors.astype(np.float16)), config.longest)


_OPTIM = {"lr": 1e-2, "weight_decay": 0.0}
recipes = {
    "base": Recipe("base", optim=_OPTIM, source="papertrial default, not tuned", cost="seconds on a CPU"),
    "tiny": Recipe("tiny", optim=_OPTIM | {"batch": 16}, budget=Budget(steps=30), source="small enough for tests"),
}
