"""T5 - the encoder-decoder on subwords that byte models are compared with: text in, text out.

Colin Raffel, Noam Shazeer, Adam Roberts and others, JMLR 2020, arXiv 1910.10683; the trunk is that of version 1.1.

The idea
    Every task is the same one: read a text, write a text. An encoder reads, a decoder writes and looks at both.

The equation
    x += Attention(RMSNorm(x)); x += (GELU(xW) * xV)U of RMSNorm(x); logits of attention q . k + bias of the distance.

What matters
    Half of the layers read and half write. The vocabulary takes much of the parameters of a small model.

Requires / Offers
    Requires texts with targets, classes or scores. Offers texts, embed (mean token of the encoder), tokens (B, N, width).

Relations
    `byt5` has the same trunk on bytes, with a deeper encoder. The reference of text_to_text.

Try
    papertrial fit t5 --data pairs.csv --task text_to_text

Cost
    tiny: seconds on a CPU. base: minutes on a CPU.

Notation
    B batch, N tokens, q query, k key.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from papertrial.core.budget import Budget
from papertrial.core.facts import Facts
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced
from papertrial.nn.trunks import T5, T5Encoder

PAPER = Paper(
    id="t5",
    title="Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer",
    kind="architecture",
    method="T5",
    idea="An encoder-decoder on subwords: every task is to read a text and to write one.",
    authors="Colin Raffel, Noam Shazeer, Adam Roberts, Katherine Lee, Sharan Narang and others",
    year=2019,
    arxiv="1910.10683",
    tasks=("text_to_text", "text_classification", "sentence_similarity"),
    tags=("text", "attention", "encoder-decoder"),
    needs=("text",),
    official="https://github.com/google-research/text-to-text-transfer-transformer",
    licence="Apache-2.0",
    caveats=(
        "The trunk is that of T5 1.1 (gated GELU, an output table of its own), not that of the text.",
        "Nothing is pre-trained here, which is what the text is about.",
    ),
)


@checked
@dataclass(frozen=True)
class Config:
    width: int = sourced(512, "T5 1.1 small", "[1, 65536]")
    encoder_depth: int = sourced(8, "T5 1.1 small", "[1, 256]")
    decoder_depth: int = sourced(8, "T5 1.1 small", "[1, 256]")
    heads: int = sourced(6, "T5 1.1 small", "[1, 1024]")
    head_width: int = sourced(64, "T5 1.1 small", "[1, 4096]")
    hidden: int = sourced(1024, "T5 1.1 small", "[1, 262144]")
    vocabulary: int = sourced(32_128, "sec. 2.2; ids of a tokeniser learnt from the training texts", "[258, 1000000]")
    longest: int = sourced(512, "sec. 3.1.2; tokens read of a source", "[2, 1000000]")
    dropout: float = sourced(0.1, "sec. 3.1.2", "[0, 1)", auto=lambda facts: 0.0)
    beams: int = sourced(1, "sec. 3.1.2; 1 writes the most probable token", "[1, 64]")
    writes: bool = sourced(True, "the task; else the encoder alone", auto=lambda facts: facts.writes)


def build(config: Config, facts: Facts, backbone: nn.Module | None = None) -> T5 | T5Encoder:
    return T5(config) if config.writes else T5Encoder(config)


recipes = {
    "paper": Recipe(
        "paper",
        config={"dropout": 0.1},
        optim={
            "optimizer": "adafactor",
            "lr": 1e-3,
            "schedule": "constant",
            "warmup": 0.0,
            "weight_decay": 0.0,
            "clip": 0.0,
            "batch": 128,
        },
        budget=Budget(steps=2**18),
        source="sec. 3.1.3, fine-tuning; there from weights that were pre-trained",
        cost="hours on a GPU",
    ),
    "base": Recipe(
        "base",
        config={
            "width": 128,
            "encoder_depth": 2,
            "decoder_depth": 2,
            "heads": 4,
            "head_width": 32,
            "hidden": 224,
            "vocabulary": 3072,
            "longest": 128,
        },
        optim={"lr": 3e-3, "weight_decay": 0.01, "batch": 32, "warmup": 0.1},
        source="as many parameters as the base recipe of byt5",
    ),
    "tiny": Recipe(
        "tiny",
        config={
            "width": 32,
            "encoder_depth": 1,
            "decoder_depth": 1,
            "heads": 2,
            "head_width": 16,
            "hidden": 48,
            "vocabulary": 512,
            "longest": 32,
        },
        optim={"lr": 1e-2, "batch": 16},
        budget=Budget(steps=80),
        source="small enough for tests",
    ),
}
