"""One Transformer for all papers: a stack of layers whose parts are swapped, and three models of text made of it.

    Layout          what the layers of a stack are made of: makers of attention, feed-forward, norm and position
    Block, Stack    one layer; the layers, their positions and the last norm: x -> x
    Encoder         ids -> vectors: one per token, or one per row
    Decoder         ids -> logits of what comes next, each token seeing those before it
    EncoderDecoder  a decoder that also sees what an encoder made of another text

What an encoder made, and what a decoder has read, are in `nn/cache.py`.

Notation: B rows, M tokens that ask (queries), N tokens that are seen (keys), T tokens of a packed batch, C width,
H heads, D width of a head, V vocabulary. Padding stands at the end of a row and never changes an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from papertrial.nn.attention import Across, Attention, View, Within, WithinPacked, causal_bias, joined
from papertrial.nn.cache import Cache, Encoded
from papertrial.nn.mlp import Mlp, TanhGelu
from papertrial.nn.packing import Packed, Padded, Rows, rows_of
from papertrial.nn.position import Learned, Position, RelativeBias


@dataclass(frozen=True)
class Layout:
    """What the layers of a stack are made of. The parts are makers, called once for each place a part goes to.

    width, depth: C, and the number of layers.
    attention: `layer index -> Attention`, or another module with its face; also makes cross-attention.
    mlp: `layer index -> module`, (..., C) -> (..., C). One that has `sees_rows = True` (a mixture of experts) is called
    as `mlp(x, rows)` and finds out from `rows` (packing.Rows) what is padding. It drops out what it returns itself. One
    that adds to the loss sets `self.aux = {"name": scalar}` in its forward pass (see `auxiliary`).
    norm: `width -> module`: nn.LayerNorm, nn.RMSNorm, partial(nn.LayerNorm, eps=1e-12); nn.Identity for none.
    position: `-> Position`.
    post_norm: normalise after the residual sum, as in 2017, and not the input of each branch.
    residual: False leaves the sums out, so that only the branches remain.
    dropout: on the embedded tokens, and on what attention returns.
    """

    width: int
    depth: int
    attention: Callable[[int], nn.Module]
    mlp: Callable[[int], nn.Module]
    norm: Callable[[int], nn.Module] = nn.LayerNorm
    position: Callable[[], Position] = Position
    post_norm: bool = False
    residual: bool = True
    dropout: float = 0.0


class Block(nn.Module):
    """One layer: attention within the rows, attention across to `seen` where there is any, a perceptron.

    `forward(x, rows, within, across=None, seen=None) -> x`, tokens as `rows` lays them out.
    """

    def __init__(self, layout: Layout, layer: int, cross: bool = False) -> None:
        super().__init__()
        self.post_norm, self.residual = layout.post_norm, layout.residual
        self.norm_attention = layout.norm(layout.width)
        self.attention = layout.attention(layer)
        if cross:
            self.norm_cross = layout.norm(layout.width)
            self.cross = layout.attention(layer)
        self.norm_mlp = layout.norm(layout.width)
        self.mlp = layout.mlp(layer)
        self.dropout = nn.Dropout(layout.dropout)

    def forward(
        self,
        x: Tensor,
        rows: Rows,
        within: View,
        across: View | None = None,
        seen: Tensor | tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        x = self._branch(x, self.norm_attention, lambda y: self.dropout(self.attention(y, view=within)))
        if across is not None:
            x = self._branch(x, self.norm_cross, lambda y: self.dropout(self.cross(y, seen, across)))
        sees_rows = getattr(self.mlp, "sees_rows", False)
        return self._branch(x, self.norm_mlp, lambda y: self.mlp(y, rows) if sees_rows else self.mlp(y))

    def _branch(self, x: Tensor, norm: nn.Module, branch: Callable[[Tensor], Tensor]) -> Tensor:
        change = branch(x if self.post_norm else norm(x))
        x = x + change if self.residual else change
        return norm(x) if self.post_norm else x


class Stack(nn.Module):
    """The layers with their positions: `forward(x, rows, seen=None, cache=None) -> x`, tokens as `rows` lays them out.

    causal: a token sees itself and those before it.  cross: layers also attend to `seen`.
    """

    def __init__(self, layout: Layout, causal: bool = False, cross: bool = False) -> None:
        super().__init__()
        self.width, self.causal = layout.width, causal
        self.position = layout.position()
        self.dropout = nn.Dropout(layout.dropout)
        self.blocks = nn.ModuleList(Block(layout, layer, cross) for layer in range(layout.depth))
        self.norm = nn.Identity() if layout.post_norm else layout.norm(layout.width)

    def forward(
        self,
        x: Tensor,
        rows: Rows,
        seen: Encoded | None = None,
        cache: Cache | None = None,
        kept: list[Tensor] | None = None,
    ) -> Tensor:
        """kept: is given what goes into the first layer and what comes out of each, before the last norm."""
        x = self.dropout(x)
        turn = self.position.turn(rows.at)
        within = self._view(rows, turn) if cache is None else None
        remembered = None if cache is None else self._remembered(rows, cache)
        across = None if seen is None else Across(rows, seen.rows)
        for layer, block in enumerate(self.blocks):
            if kept is not None:
                kept.append(x)
            if cache is not None:
                within = cache.view(layer, rows.at, remembered, turn)
            context = None if seen is None else seen.x if cache is None else cache.across(layer, block.cross, seen)
            x = block(x, rows, within, across, context)
        if kept is not None:
            kept.append(x)
        return self.norm(x)

    def _view(self, rows: Rows, turn: tuple[Tensor, Tensor] | None) -> View:
        """What each token sees without a cache."""
        if isinstance(rows, Packed):
            views = tuple(self._within(group.longest, group.valid, rows.at.device) for group in rows.groups)
            return WithinPacked(rows, views, turn)
        return self._within(rows.longest, rows.valid, rows.at.device, turn)

    def _within(self, longest: int, valid: Tensor | None, device: Any, turn: Any = None) -> Within:
        at = torch.arange(longest, device=device)
        bias = self.position.bias(at, at)
        if not self.causal:
            return Within(joined(None if valid is None else valid[:, None, None], bias), turn=turn)
        # what is padded stands behind every token, so the past needs no other mask
        if bias is None:
            return Within(causal=True, turn=turn)
        return Within(joined(causal_bias(at, at), bias), turn=turn)

    def _remembered(self, rows: Rows, cache: Cache) -> Tensor | None:
        """What the tokens of this step see of the cache, (B, H or 1, M, used); without B, and None where they see all of it,
        where all rows stand alike."""
        key_at = torch.arange(cache.used + rows.longest, device=rows.at.device)
        if rows.at.ndim == 1:
            seen = causal_bias(rows.at, key_at) if rows.longest > 1 else None
            return joined(seen, self.position.bias(rows.at, key_at))
        seen = causal_bias(rows.at, key_at)[:, None]
        return joined(seen, self.position.bias(rows.at, key_at.expand(len(rows.at), -1)))


def compile_(model: nn.Module, **options: Any) -> list[nn.Module]:
    """`torch.compile` in place: each `Block` by itself where an encoder reads, else the model as a whole; -> what was compiled.

    All layers alike share one trace, and what is around them runs as it is, so that rows of mixed lengths are packed. Traced
    as a whole, a model reads their padding too, since no shape of a traced program depends on values; decoders alone learn
    from rows that are full, where this costs nothing and saves some calls.
    """
    modules = list(model.modules())
    reads = any(isinstance(module, Stack) and not module.causal for module in modules)
    parts: list[nn.Module] = [module for module in modules if reads and isinstance(module, Block)] or [model]
    for part in parts:
        part.compile(**options)
    return parts


class Ids(nn.Module):
    """Stands where a tokeniser would when a model reads ids only: `size` of them, of which `pad` fills short rows."""

    def __init__(self, size: int, pad: int | None = 0, end: int | None = None, mask: int | None = None) -> None:
        super().__init__()
        self.size, self.pad, self.end, self.mask = size, pad, end, mask


class Embed(nn.Module):
    """What goes into the first layer: `forward(ids (...), where=None, types=None) -> (..., C)`, a vector per token, plus
    `where` (..., C) of the positions, plus, where there are `segments`, a vector per type (...) of token; then `norm`.

    vocabulary, segments: rows of the two tables.  norm: as BERT has it; nothing where not given.
    """

    def __init__(self, vocabulary: int, width: int, segments: int = 0, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary, width)
        self.segments = nn.Embedding(segments, width) if segments else None
        self.norm = norm or nn.Identity()

    def forward(self, ids: Tensor, where: Tensor | None = None, types: Tensor | None = None) -> Tensor:
        x = self.table(ids)
        if where is not None:
            x = x + where.to(x.dtype)
        if self.segments is not None:
            x = x + self.segments(types)
        return self.norm(x)


class _Reader(nn.Module):
    """What the three models share: a tokeniser, and from ids to the first layer."""

    tokeniser: Any
    embed: Embed

    def fit_inputs(self, columns: Mapping[str, Any]) -> None:
        """Let the tokeniser learn from the texts of the column "text", where it learns."""
        self.tokeniser.fit(columns["text"])

    def _held(self, ids: Tensor) -> Tensor:
        """bool (B, N): the places of a row up to its last id that is no padding, whatever is between."""
        pad = self.tokeniser.pad
        return torch.ones_like(ids, dtype=torch.bool) if pad is None else ids.ne(pad).flip(1).cumsum(1).flip(1) > 0

    def _rows(self, ids: Tensor, cache: Cache | None = None, packed: bool | None = None) -> Rows:
        """Where the tokens of ids (B, N) are. The first place of a row always holds one, so that no row is empty."""
        if ids.shape[1] == 0:
            raise ValueError(f"{len(ids)} rows without a place for a token: pad them to one")
        if cache is None:
            return rows_of(_first_too(self._held(ids)), packed)
        if cache.used + ids.shape[1] > cache.longest:
            raise ValueError(f"the cache has {cache.longest} places: {cache.used} used, {ids.shape[1]} wanted")
        at = torch.arange(ids.shape[1], device=ids.device)
        if self.tokeniser.pad is None:  # rows that cannot be padded are all of one length
            return Padded(None, cache.used + at)
        at = cache.length[:, None] + at
        return Padded(self._held(ids) | (at == 0), at)

    def _read(self, stack: Stack, ids: Tensor, rows: Rows, types: Tensor | None = None) -> Tensor:
        """ids (B, N) as they go into the first layer of a stack, laid out as `rows` says."""
        stack.position.check(rows.longest)
        if self.embed.segments is not None:
            told = getattr(self.tokeniser, "segments", torch.zeros_like)
            types = rows.pack(told(ids) if types is None else types)
        return self.embed(rows.pack(ids), stack.position.embed(rows.at), types)


POOLS = ("mean", "first", "last")


def pooled(encoded: Encoded, pool: str) -> Tensor:
    """One vector per row, (B, C): the mean over its tokens, its first, or its last one."""
    x, valid = encoded.rows.unpack(encoded.x), encoded.rows.valid
    if pool == "first":
        return x[:, 0]
    if pool == "last":
        return x[:, -1] if valid is None else x[torch.arange(len(x), device=x.device), valid.sum(1) - 1]
    return x.mean(1) if valid is None else x.sum(1) / valid.sum(1, keepdim=True).to(x.dtype)


class Encoder(_Reader):
    """A backbone for text: ids (B, N) int64 -> (B, width).

    tokeniser: has `size` and `pad`.  pool: one of POOLS.  vocabulary: rows of the embedding table, `tokeniser.size`
    where not given.  segments, embed_norm: see Embed; the segments of ids are `tokeniser.segments(ids)` where it tells.
    """

    def __init__(
        self,
        tokeniser: Any,
        layout: Layout,
        pool: str = "mean",
        vocabulary: int | None = None,
        segments: int = 0,
        embed_norm: bool = False,
    ) -> None:
        super().__init__()
        if pool not in POOLS:
            raise ValueError(f"there is no pool {pool!r}, only {', '.join(POOLS)}")
        self.tokeniser, self.width, self.pool = tokeniser, layout.width, pool
        norm = layout.norm(layout.width) if embed_norm else None
        self.embed = Embed(vocabulary or tokeniser.size, layout.width, segments, norm)
        self.stack = Stack(layout)
        normal_(self)

    def forward(self, ids: Tensor, segments: Tensor | None = None) -> Tensor:
        return pooled(self.encode(ids, segments), self.pool)

    def tokens(self, ids: Tensor, segments: Tensor | None = None) -> Tensor:
        """(B, N, width), with zeros at padding."""
        encoded = self.encode(ids, segments)
        return encoded.rows.unpack(encoded.x)

    def encode(self, ids: Tensor, segments: Tensor | None = None, packed: bool | None = None) -> Encoded:
        """The tokens as they are laid out inside. packed: where not given, what costs less."""
        rows = self._rows(ids, packed=packed)
        return Encoded(self.stack(self._read(self.stack, ids, rows, segments), rows), rows)

    def valid(self, ids: Tensor) -> Tensor:
        """bool (B, N): where a row holds a token, as its first place always does."""
        return _first_too(self._held(ids))

    def layers(self, ids: Tensor, segments: Tensor | None = None) -> list[Tensor]:
        """What goes into the first layer and what comes out of each, (B, N, width), without the last norm."""
        rows = self._rows(ids)
        kept: list[Tensor] = []
        self.stack(self._read(self.stack, ids, rows, segments), rows, kept=kept)
        return [rows.unpack(x) for x in kept]


class Decoder(_Reader):
    """A causal language model, and a backbone whose features are those of the last token.

    tied: the logits are products with the embedding table; else with a table of their own (`head`).
    """

    def __init__(self, tokeniser: Any, layout: Layout, vocabulary: int | None = None, tied: bool = True) -> None:
        super().__init__()
        self.tokeniser, self.width = tokeniser, layout.width
        self.vocabulary = vocabulary or tokeniser.size
        self.embed = Embed(self.vocabulary, layout.width)
        self.stack = Stack(layout, causal=True)
        self.head = None if tied else nn.Linear(layout.width, self.vocabulary, bias=False)
        normal_(self)

    def forward(self, ids: Tensor) -> Tensor:
        rows = self._rows(ids)
        return pooled(Encoded(self._tokens(ids, rows), rows), "last")

    def tokens(self, ids: Tensor) -> Tensor:
        """(B, N, width), with zeros at padding."""
        rows = self._rows(ids)
        return rows.unpack(self._tokens(ids, rows))

    def logits(self, ids: Tensor, cache: Cache | None = None) -> Tensor:
        """What follows each token: ids (B, N) -> (B, N, V). With a cache, ids are what follows what it holds."""
        rows = self._rows(ids, cache)
        logits = self.outputs(self._tokens(ids, rows, cache))
        return rows.unpack(logits) if isinstance(rows, Packed) else logits

    def next(self, ids: Tensor, cache: Cache | None = None) -> Tensor:
        """What follows the last token of each row: ids (B, N) -> (B, V)."""
        rows = self._rows(ids, cache)
        return self.outputs(pooled(Encoded(self._tokens(ids, rows, cache), rows), "last"))

    def losses(self, ids: Tensor) -> Tensor:
        """Nats of each token given those before it: ids (B, N) -> (B, N), 0 for the first of a row and at padding."""
        counted = self._held(ids)[:, 1:]
        rows = rows_of(_first_too(counted))
        losses = _losses(self.outputs(self._tokens(ids[:, :-1], rows)), rows, ids[:, 1:])
        return F.pad(losses * counted, (1, 0))

    def cache(self, rows: int, longest: int) -> Cache:
        """An empty cache for `rows` rows of at most `longest` tokens. Raises PapertrialError for more than there are places."""
        return _cache(self.stack, rows, longest)

    def outputs(self, x: Tensor) -> Tensor:
        """(..., width) -> logits (..., V)."""
        return F.linear(x, self.embed.table.weight) if self.head is None else self.head(x)

    def _tokens(self, ids: Tensor, rows: Rows, cache: Cache | None = None) -> Tensor:
        x = self.stack(self._read(self.stack, ids, rows), rows, cache=cache)
        if cache is not None:
            cache.grow(rows.valid, rows.longest)
        return x


class EncoderDecoder(_Reader):
    """Text to text: a decoder that sees what an encoder made of the source. As a backbone it is its encoder.

    encoder, decoder: layouts of one width.  start: the id every target begins with, `tokeniser.pad` where not given.
    tied: logits are products with the embedding table, divided by sqrt(width) as in T5; else with a table of their own.
    """

    def __init__(
        self,
        tokeniser: Any,
        encoder: Layout,
        decoder: Layout,
        vocabulary: int | None = None,
        tied: bool = True,
        start: int | None = None,
    ) -> None:
        super().__init__()
        self.tokeniser, self.width = tokeniser, encoder.width
        self.vocabulary = vocabulary or tokeniser.size
        self.start = tokeniser.pad if start is None else start
        self.embed = Embed(self.vocabulary, encoder.width)
        self.encoder = Stack(encoder)
        self.decoder = Stack(decoder, causal=True, cross=True)
        self.head = None if tied else nn.Linear(encoder.width, self.vocabulary, bias=False)
        mesh_(self)

    def forward(self, ids: Tensor) -> Tensor:
        return pooled(self.encode(ids), "mean")

    def tokens(self, ids: Tensor) -> Tensor:
        """(B, N, width) of the source, with zeros at padding."""
        encoded = self.encode(ids)
        return encoded.rows.unpack(encoded.x)

    def encode(self, ids: Tensor, packed: bool | None = None) -> Encoded:
        rows = self._rows(ids, packed=packed)
        return Encoded(self.encoder(self._read(self.encoder, ids, rows), rows), rows)

    def decode(self, ids: Tensor, encoded: Encoded, cache: Cache | None = None) -> Tensor:
        """What follows each token of the target so far, which begins with `start`: ids (B, M) -> (B, M, V)."""
        rows = self._rows(ids, cache)
        logits = self.outputs(self._tokens(ids, encoded, rows, cache))
        return rows.unpack(logits) if isinstance(rows, Packed) else logits

    def next(self, ids: Tensor, encoded: Encoded, cache: Cache | None = None) -> Tensor:
        """What follows the last token of each row: ids (B, M) -> (B, V)."""
        rows = self._rows(ids, cache)
        return self.outputs(pooled(Encoded(self._tokens(ids, encoded, rows, cache), rows), "last"))

    def losses(self, source: Tensor, target: Tensor) -> Tensor:
        """Nats of each token of target (B, M) given those before it and source (B, N): (B, M), 0 at padding."""
        counted = self._held(target)
        rows = rows_of(_first_too(counted))
        losses = _losses(self.outputs(self._tokens(self.shifted(target), self.encode(source), rows)), rows, target)
        return losses * counted

    def shifted(self, target: Tensor) -> Tensor:
        """What the decoder reads to predict target (B, M): `start`, and all but the last."""
        return F.pad(target[:, :-1], (1, 0), value=self.start)

    def cache(self, rows: int, longest: int) -> Cache:
        """An empty cache for `rows` targets of at most `longest` tokens."""
        return _cache(self.decoder, rows, longest)

    def outputs(self, x: Tensor) -> Tensor:
        """(..., width) -> logits (..., V)."""
        return F.linear(x * self.width**-0.5, self.embed.table.weight) if self.head is None else self.head(x)

    def _tokens(self, ids: Tensor, encoded: Encoded, rows: Rows, cache: Cache | None = None) -> Tensor:
        x = self.decoder(self._read(self.decoder, ids, rows), rows, encoded, cache)
        if cache is not None:
            cache.grow(rows.valid, rows.longest)
        return x


def t5_layout(
    width: int,
    depth: int,
    heads: int,
    head_width: int,
    mlp: Callable[[int], nn.Module],
    dropout: float = 0.0,
    causal: bool = False,
    buckets: int = 32,
    reach: int = 128,
    eps: float = 1e-6,
) -> Layout:
    """The layers of T5 and its kin (1910.10683): relative bias, RMS norm, no bias, logits not scaled. mlp is theirs to choose."""
    return Layout(
        width=width,
        depth=depth,
        attention=lambda layer: Attention(width, heads, dropout, bias=False, head_width=head_width, scale=1.0),
        mlp=mlp,
        norm=partial(nn.RMSNorm, eps=eps),
        position=lambda: RelativeBias(heads, buckets, reach, two_sided=not causal),
        dropout=dropout,
    )


def bert_layout(
    width: int,
    depth: int,
    heads: int,
    hidden: int,
    longest: int = 512,
    dropout: float = 0.1,
    attention_dropout: float | None = None,
    offset: int = 0,
    eps: float = 1e-12,
    activation: nn.Module | None = None,
) -> Layout:
    """The layers of BERT (1810.04805) and RoBERTa (offset 2): learned positions, normalised after each sum."""
    on_map = dropout if attention_dropout is None else attention_dropout
    return Layout(
        width=width,
        depth=depth,
        attention=lambda layer: Attention(width, heads, on_map),
        mlp=lambda layer: Mlp(width, hidden, dropout, "none", activation, hidden_dropout=0.0),
        norm=partial(nn.LayerNorm, eps=eps),
        position=lambda: Learned(longest, width, offset),
        post_norm=True,
        dropout=dropout,
    )


def gpt2_layout(
    width: int,
    depth: int,
    heads: int,
    hidden: int,
    longest: int = 1024,
    dropout: float = 0.1,
    attention_dropout: float | None = None,
    eps: float = 1e-5,
    activation: nn.Module | None = None,
) -> Layout:
    """The layers of GPT-2: those of BERT, normalised before each branch, with the GELU of tanh."""
    activation = TanhGelu() if activation is None else activation
    bert = bert_layout(width, depth, heads, hidden, longest, dropout, attention_dropout, 0, eps, activation)
    return replace(bert, post_norm=False)


def normal_(model: nn.Module, std: float = 0.02) -> None:
    """Initialise as GPT-2: weights normal with `std`, smaller by sqrt(2 depth) where a branch ends; biases zero."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=std)
            bias = getattr(module, "bias", None)
            if bias is not None:
                nn.init.zeros_(bias)
    for stack in model.modules():
        if isinstance(stack, Stack):
            for name, weight in stack.blocks.named_parameters():
                if name.endswith((".out.weight", ".down.weight")):
                    nn.init.normal_(weight, std=std / (2 * len(stack.blocks)) ** 0.5)


def mesh_(model: Any) -> None:
    """Initialise as T5: normal with the inverse root of the fan-in; queries also for unscaled logits; embeddings with 1."""
    for name, module in model.named_modules():
        if isinstance(module, Attention):
            width = module.query.in_features
            nn.init.normal_(module.query.weight, std=(width * module.head_width) ** -0.5)
        elif isinstance(module, RelativeBias):
            nn.init.normal_(module.table.weight, std=model.width**-0.5)
        elif isinstance(module, Embed):
            nn.init.normal_(module.table.weight, std=1.0)
        elif isinstance(module, nn.Linear) and not name.endswith(".query"):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)


def auxiliary(model: nn.Module) -> dict[str, Tensor]:
    """The losses that parts of the model added in the last forward pass, summed by name and then forgotten."""
    found: dict[str, Tensor] = {}
    module: Any
    for module in model.modules():
        aux = getattr(module, "aux", None)
        if aux:
            for name, value in aux.items():
                found[name] = found[name] + value if name in found else value
            module.aux = {}
    return found


def _cache(stack: Stack, rows: int, longest: int) -> Cache:
    stack.position.check(longest)
    first: Any = stack.blocks[0]
    attention: Attention = first.attention
    weight = attention.key.weight
    return Cache(len(stack.blocks), rows, longest, attention.heads, attention.head_width, weight.dtype, weight.device)


def _first_too(held: Tensor) -> Tensor:
    return held | (torch.arange(held.shape[1], device=held.device) == 0)


def _losses(logits: Tensor, rows: Rows, target: Tensor) -> Tensor:
    wanted = rows.pack(target)
    return rows.unpack(F.cross_entropy(logits.flatten(0, -2), wanted.flatten(), reduction="none").view(wanted.shape))
