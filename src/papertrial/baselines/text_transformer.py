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

from torch import nn

from papertrial.core.budget import Budget
from papertrial.core.facts import Facts
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced
from papertrial.nn.transformer import Decoder, Encoder
from papertrial.nn.trunks import dense_layout, tokeniser

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


@checked
@dataclass(frozen=True)
class Config:
    width: int = sourced(
        128, "papertrial default, for minutes of a CPU; table 3 of the paper has 512", "[1, 65536], multiple of 2 heads"
    )
    depth: int = sourced(2, "papertrial default; table 3 has 6", "[1, 256]")
    heads: int = sourced(4, "papertrial default; table 3 has 8", "[1, 1024]")
    hidden: int = sourced(512, "sec. 3.3, four times the width", "[1, 262144]")
    longest: int = sourced(
        512, "papertrial default; tokens of a row", "[2, 1000000]", auto=lambda facts: 128 if facts.causal else None
    )
    dropout: float = sourced(
        0.0, "papertrial default; few texts are seen twice within minutes. Table 3 has 0.1", "[0, 1)"
    )
    tokeniser: str = sourced("bytes", "papertrial default", "bytes | bpe")
    vocabulary: int = sourced(4096, "papertrial default; ids of the tokeniser bpe", "[258, 1000000]")
    causal: bool = sourced(False, "the task", auto=lambda facts: facts.causal)


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
