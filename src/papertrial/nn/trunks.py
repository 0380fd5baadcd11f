"""Trunks of text that several methods share: tokenisers by name, the dense Transformer, and that of T5 1.1."""

from __future__ import annotations

from typing import Any

from torch import nn

from papertrial.core.errors import PapertrialError
from papertrial.nn.attention import Attention
from papertrial.nn.mlp import GatedMlp, Mlp
from papertrial.nn.position import Rotary
from papertrial.nn.tokenise import Bpe, Bytes, Tokeniser
from papertrial.nn.transformer import Encoder, EncoderDecoder, Layout, mesh_, t5_layout

TOKENISERS = ("bytes", "bpe")


def subwords(size: int) -> Bpe:
    """Raises PapertrialError for a size without room for the bytes."""
    try:
        return Bpe(size)
    except ValueError as error:
        raise PapertrialError(str(error), "give more with --set vocabulary=") from None


def tokeniser(kind: str, vocabulary: int) -> Tokeniser:
    """One of TOKENISERS, which learns from texts later. Raises PapertrialError for another name or too small a vocabulary."""
    if kind == "bytes":
        return Bytes()
    if kind != "bpe":
        raise PapertrialError(f"there is no tokeniser {kind!r}", f"choose one of {', '.join(TOKENISERS)}")
    return subwords(vocabulary)


def dense_layout(config: Any) -> Layout:
    """The layers: normalised inputs, rotary positions, a perceptron with GELU.

    config: has width, depth, heads, hidden and dropout.
    """
    return Layout(
        width=config.width,
        depth=config.depth,
        attention=lambda layer: Attention(config.width, config.heads, config.dropout, bias=False),
        mlp=lambda layer: Mlp(config.width, config.hidden, config.dropout, bias=False, hidden_dropout=0.0),
        norm=nn.LayerNorm,
        position=lambda: Rotary(config.width // config.heads),
        dropout=config.dropout,
    )


def t5_trunk(config: Any, depth: int, causal: bool = False) -> Layout:
    """`depth` layers of T5 1.1, of the sizes of the config: RMS norm before each branch, no bias, logits not scaled, 32
    buckets of distances up to 128 that the layers share, gated GELU."""

    def mlp(layer: int) -> nn.Module:
        return GatedMlp(config.width, config.hidden, config.dropout)

    return t5_layout(config.width, depth, config.heads, config.head_width, mlp, config.dropout, causal)


class T5(EncoderDecoder):
    """Texts to texts; as a backbone the encoder, ids (B, N) int64 -> (B, width), the mean over tokens.

    config: has the sizes: width, encoder_depth, decoder_depth, heads, head_width, hidden, vocabulary, longest and beams, and
    dropout.  tokeniser: `Bpe` of `config.vocabulary` ids where not given.  vocabulary: rows of both tables.
    """

    def __init__(self, config: Any, tokeniser: Tokeniser | None = None, vocabulary: int | None = None) -> None:
        encoder, decoder = t5_trunk(config, config.encoder_depth), t5_trunk(config, config.decoder_depth, causal=True)
        super().__init__(tokeniser or subwords(config.vocabulary), encoder, decoder, vocabulary, tied=False)
        self.longest, self.beams = config.longest, config.beams


class T5Encoder(Encoder):
    """The encoder alone, for tasks that write nothing."""

    def __init__(self, config: Any, tokeniser: Tokeniser | None = None, vocabulary: int | None = None) -> None:
        super().__init__(
            tokeniser or subwords(config.vocabulary), t5_trunk(config, config.encoder_depth), vocabulary=vocabulary
        )
        mesh_(self)
        self.longest = config.longest
