"""MiniLM - a small pretrained encoder of English sentences that a package carries, so that it needs no network.

Wenhui Wang, Furu Wei, Li Dong, Hangbo Bao, Nan Yang, Ming Zhou. NeurIPS 2020, arXiv 2002.10957. The weights are those of
all-MiniLM-L6-v2, which sentence-transformers trained further on a billion pairs of sentences.

The idea
    A BERT of six narrow layers learns to attend as a large one does.

The equation
    x = LN(x + Attention(x)); x = LN(x + MLP(x)); six times, then the mean over tokens.

What matters
    It was made to compare sentences by their cosine. Its first layers alone are a weaker encoder that has not been told
    what a sentence means: what training adds shows there, at a third of the cost.

Requires / Offers
    Requires English texts; others are read letter by letter. Offers embed (mean over tokens), tokens (B, N, 384).

Relations
    The default backbone of objectives on text where the extra `encoder` is installed. `minilm:2` has the first two layers.

Try
    papertrial fit minilm --data reviews.csv

Cost
    Reads some hundred sentences a second of one core.

Notation
    B batch, N tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from papertrial.core.budget import Budget
from papertrial.core.facts import Facts
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced
from papertrial.nn import pretrained
from papertrial.nn.tokenise import Pretrained
from papertrial.nn.transformer import Encoder, bert_layout

PAPER = Paper(
    id="minilm",
    title="MiniLM: Deep Self-Attention Distillation for Task-Agnostic Compression of Pre-Trained Transformers",
    kind="architecture",
    method="Encoder",
    idea="A small pretrained encoder of sentences, as a package carries it.",
    authors="Wenhui Wang, Furu Wei, Li Dong, Hangbo Bao, Nan Yang, Ming Zhou",
    year=2020,
    arxiv="2002.10957",
    tasks=("text_classification", "sentence_similarity"),
    tags=("text", "attention", "pretrained"),
    official="https://github.com/microsoft/unilm/tree/master/minilm",
    licence="Apache-2.0",
    caveats=(
        "The weights were trained on a billion pairs from the web: sentences of your test data may be among them.",
        "It reads lower-case English.",
    ),
)

#: of the weights, as their `config.json` has it, so that an artifact is read back without the package
WIDTH, HEADS, HIDDEN, PLACES, TOKENS, SEGMENTS = 384, 12, 1536, 512, 30_522, 2
LAYERS = 6


@checked
@dataclass(frozen=True)
class Config:
    depth: int = sourced(LAYERS, "sec. 4, the first layers of six", "[1, 6]")
    dropout: float = sourced(0.1, "config.json of the weights", "[0, 1)")
    frozen: bool = sourced(True, "papertrial default; the embeddings stay as they are: few texts hold few words")
    longest: int = sourced(256, "model card; tokens of a row", "[3, 512]")
    pretrained: bool = sourced(True, "what minilm stands for")


def build(config: Config, facts: Facts, backbone: nn.Module | None = None) -> nn.Module:
    """Raises PapertrialError without the extra `encoder`."""
    model: Any
    if config.pretrained:
        found = pretrained.find("minilm", depth=config.depth)
        masks = {"hidden_dropout_prob": config.dropout, "attention_probs_dropout_prob": config.dropout}
        model = replace(found, settings=found.settings | masks).load()
    else:
        layout = bert_layout(WIDTH, config.depth, HEADS, HIDDEN, PLACES, config.dropout)
        model = Encoder(Pretrained(), layout, vocabulary=TOKENS, segments=SEGMENTS, embed_norm=True)
    model.longest = config.longest
    model.embed.requires_grad_(not config.frozen)
    model.stack.position.requires_grad_(not config.frozen)
    return model


def licence(config: Config) -> str:
    return "minilm: apache-2.0" if config.pretrained else "minilm, fresh weights, so they are yours"


variants = {"2": {"depth": 2}, "3": {"depth": 3}}

recipes = {
    # DIFF: the paper distils; this is how its weights were trained further
    "paper": Recipe(
        "paper",
        config={"frozen": False, "longest": 128},
        optim={"lr": 2e-5, "batch": 1024, "warmup": 0.005},
        budget=Budget(steps=100_000),
        source="model card of all-MiniLM-L6-v2",
        cost="TPU v3-8",
    ),
    "base": Recipe(
        "base",
        optim={"lr": 2e-4, "weight_decay": 0.01, "batch": 32, "warmup": 0.1},
        source="papertrial default, for minutes of a CPU",
        cost="minutes on a CPU",
    ),
    "tiny": Recipe(
        "tiny",
        config={"depth": 1, "longest": 48},
        optim={"lr": 1e-3, "batch": 16},
        budget=Budget(steps=12),
        source="small enough for tests",
        cost="seconds on a CPU",
    ),
}
