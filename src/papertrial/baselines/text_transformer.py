"""Text Transformer - the dense Transformer that papers on text are compared with, as a language model or as an encoder.

Ashish Vaswani and others, NeurIPS 2017, arXiv 1706.03762; as a language model: Alec Radford and others, GPT-2, 2019.

The idea
    Every token looks at the others, those before it only where the next one is to be predicted, and is then changed by a
    perceptron; the same layer again and again.

The equation
    x += Attention(LN(x)); x += MLP(LN(x)); then LN, and logits of the next token, or the mean over tokens.

What matters
    The learning rate and the number of tokens seen. Bytes need no vocabulary, at four to five times the tokens of a
    large one; on minutes of a CPU and megabytes of text they do not do worse.

Requires / Offers
    Requires texts. Offers next tokens (`logits`, causal), embed (mean token; last token where causal), tokens (B, N, width).

Relations
    `switch` replaces its perceptron by experts. The default backbone of objectives on text.

Try
    papertrial fit text_transformer --data python-docs --task language_modeling

Cost
    tiny: seconds on a CPU. base: minutes on a CPU.

Notation
    B batch, N tokens, C width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from papertrial.core.budget import Budget
from papertrial.core.errors import PapertrialError
from papertrial.core.facts import Facts
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, sourced
from papertrial.nn.attention import Attention
from papertrial.nn.mlp import Mlp
from papertrial.nn.position import Rotary
from papertrial.nn.tokenise import Bpe, Bytes, Tokeniser
from papertrial.nn.transformer import Decoder, Encoder, Layout

PAPER = Paper(
    id="text_transformer",
    title="Attention Is All You Need",
    kind="architecture",
    method="TextTransformer",
    idea="A Transformer on the tokens of a text, causal where the next one is to be predicted.",
    authors="Ashish Vaswani, Noam Shazeer, Niki Parmar, Jakob Uszkoreit, Llion Jones, Aidan N. Gomez and others",
    year=2017,
    arxiv="1706.03762",
    tasks=("text_classification", "sentence_similarity", "language_modeling"),
    tags=("text", "attention", "language model"),
    caveats=(
        "Positions are rotary (2104.09864) and layers normalise their input, as today; the paper adds sines to the input "
        "and normalises after each sum.",
    ),
)

TOKENISERS = ("bytes", "bpe")


@dataclass(frozen=True)
class Config:
    width: int = sourced(128, "papertrial default, for minutes of a CPU; table 3 of the paper has 512")
    depth: int = sourced(2, "papertrial default; table 3 has 6")
    heads: int = sourced(4, "papertrial default; table 3 has 8")
    hidden: int = sourced(512, "sec. 3.3, four times the width")
    longest: int = sourced(512, "papertrial default; tokens of a row", auto=lambda facts: 128 if facts.causal else None)
    dropout: float = sourced(0.0, "papertrial default; few texts are seen twice within minutes. Table 3 has 0.1")
    tokeniser: str = sourced("bytes", "papertrial default; bytes or bpe")
    vocabulary: int = sourced(4096, "papertrial default; ids of the tokeniser bpe")
    causal: bool = sourced(False, "the task", auto=lambda facts: facts.causal)


def tokeniser(kind: str, vocabulary: int) -> Tokeniser:
    """One of TOKENISERS, which learns from texts later. Raises PapertrialError for another name or too small a vocabulary."""
    if kind == "bytes":
        return Bytes()
    if kind != "bpe":
        raise PapertrialError(f"there is not a tokeniser {kind!r}", f"choose one of {', '.join(TOKENISERS)}")
    try:
        return Bpe(vocabulary)
    except ValueError as error:
        raise PapertrialError(str(error), "give more with --set vocabulary=") from None


def dense_layout(config: Any) -> Layout:
    """The layers: normalised inputs, rotary positions, a perceptron with GELU. config: has the fields of `Config`."""
    return Layout(
        width=config.width,
        depth=config.depth,
        attention=lambda layer: Attention(config.width, config.heads, config.dropout, bias=False),
        mlp=lambda layer: Mlp(config.width, config.hidden, config.dropout, bias=False, hidden_dropout=0.0),
        norm=nn.LayerNorm,
        position=lambda: Rotary(config.width // config.heads),
        dropout=config.dropout,
    )


class TextTransformer(Encoder):
    """The backbone: ids (B, N) int64 -> (B, width), the mean over tokens that see each other."""

    def __init__(self, config: Config) -> None:
        super().__init__(tokeniser(config.tokeniser, config.vocabulary), dense_layout(config))
        self.longest = config.longest


class CausalTransformer(Decoder):
    """The same with tokens that see those before them: a language model; (B, width) is the last token."""

    def __init__(self, config: Config) -> None:
        super().__init__(tokeniser(config.tokeniser, config.vocabulary), dense_layout(config))
        self.longest = config.longest


def build(config: Config, facts: Facts, backbone: nn.Module | None = None) -> TextTransformer | CausalTransformer:
    return CausalTransformer(config) if config.causal else TextTransformer(config)


recipes = {
    # DIFF: the paper translates, with an encoder and a decoder; this is one of the two
    "paper": Recipe(
        "paper",
        config={"width": 512, "depth": 6, "heads": 8, "hidden": 2048, "longest": 512, "dropout": 0.1, "tokeniser": "bpe",
                "vocabulary": 37_000},
        optim={"lr": 7e-4, "weight_decay": 0.0, "batch": 49, "warmup": 0.04, "beta2": 0.98},
        budget=Budget(steps=100_000),
        source="table 3 and sec. 5, the base model: 25 000 tokens a step",
        cost="12 hours on 8 P100",
    ),
    "base": Recipe(
        "base",
        optim={"lr": 3e-3, "weight_decay": 0.1, "batch": 8, "warmup": 0.1, "beta2": 0.95},
        source="chosen on Python's documentation, at 30 s of one core",
        cost="minutes on a CPU",
    ),
    "tiny": Recipe(
        "tiny",
        config={"width": 32, "depth": 2, "heads": 2, "hidden": 64, "longest": 64},
        optim={"lr": 1e-2, "batch": 16, "beta2": 0.95},
        budget=Budget(steps=200),
        source="small enough for tests",
    ),
}  # fmt: skip
