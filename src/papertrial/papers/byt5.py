"""ByT5 - a text-to-text Transformer on bytes, without a tokeniser to learn.

Linting Xue, Aditya Barua, Noah Constant, Rami Al-Rfou, Sharan Narang, Mihir Kale, Adam Roberts, Colin Raffel.
TACL 2022, arXiv 2105.13626.

The idea
    Feed the bytes of UTF-8 to a Transformer as they are. No vocabulary is learnt, any language and any misspelling can be
    read and written, and what a vocabulary took of the parameters goes into the layers: many to read, few to write.

The equation
    id = byte + 3, with 0 for padding, 1 for the end, 2 unknown.
    Source: the text with 15 % of its bytes, in spans of 20 on average, each replaced by a mask id 258, 257, ...
    Target: each mask id followed by the bytes it stands for, then the end.                         (sec. 3.1)

What matters
    Spans of 20 bytes are about as long as those of 3 to 5 subwords in T5. The encoder is three times as deep as the decoder.
    Rows are three to five times as long as with subwords, so that a step costs more. Without pre-training bytes are behind.

Requires / Offers
    Requires text; with targets, classes or scores where it is judged. Offers texts, embed (mean byte of the encoder), tokens
    (B, N, width). Text alone pre-trains it, and labelled data may start from there.

Relations
    The trunk of `t5`, which it is compared with. Charformer makes its rows shorter.

Try
    papertrial fit byt5 --data corpus.txt --task text_to_text --out runs/corpus
    papertrial fit byt5 --data pairs.csv --set pretrained=runs/corpus
    papertrial fit byt5:small --data pairs.csv --set pretrained=hf:google/byt5-small

Cost
    tiny: seconds on a CPU. base: minutes on a CPU. paper: 1M steps of 2^20 tokens on TPUs.

Notation
    B rows, N tokens of the text, M of the target, S spans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from papertrial.core.budget import Budget
from papertrial.core.doors import read_tensors
from papertrial.core.errors import PapertrialError
from papertrial.core.facts import Facts
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced
from papertrial.nn import pretrained
from papertrial.nn.tokenise import Bytes
from papertrial.nn.trunks import T5, T5Encoder
from papertrial.nn.views import Draw

PAPER = Paper(
    id="byt5",
    title="ByT5: Towards a token-free future with pre-trained byte-to-byte models",
    kind="architecture",
    method="ByT5",
    idea="A text-to-text Transformer reads and writes the bytes of UTF-8; most of its layers read.",
    authors="Linting Xue, Aditya Barua, Noah Constant, Rami Al-Rfou, Sharan Narang, Mihir Kale, Adam Roberts, Colin Raffel",
    year=2021,
    arxiv="2105.13626",
    month="2021-06",
    tasks=("text_to_text", "text_classification", "sentence_similarity"),
    tags=("text", "bytes", "encoder-decoder", "pre-training"),
    baselines=("t5", "tfidf", "nearest", "majority"),
    builds_on=("t5",),
    official="https://github.com/google-research/byt5",
    licence="Apache-2.0",
    caveats=(
        "The released weights were trained with mask ids that count down from 258. The <extra_id_0>, <extra_id_1>, ... of "
        "transformers count up from 259, which these weights have never seen (documentation of ByT5 in transformers).",
        "Mask ids are those of the highest bytes. Eleven of these (255 to 245) never occur in UTF-8; with more spans than "
        "that in a row, a mask and the first byte of a character can look the same.",
        "Tables have 384 rows, of which 259 are used (tokenizer of transformers, sizes of the released weights).",
        "Three to five times as many tokens as with subwords: writing is slower by more than that (sec. 6).",
        "From scratch, at minutes of a CPU, bytes are well behind subwords on clean text: see the claims.",
    ),
)

TABLE = 384


@checked
@dataclass(frozen=True)
class Config:
    width: int = sourced(1472, "table 1, small", "[1, 65536]")
    encoder_depth: int = sourced(12, "table 1, small", "[1, 256]")
    decoder_depth: int = sourced(4, "table 1, small", "[1, 256]")
    heads: int = sourced(6, "released weights, small", "[1, 1024]")
    head_width: int = sourced(64, "released weights", "[1, 4096]")
    hidden: int = sourced(3584, "table 1, small", "[1, 262144]")
    longest: int = sourced(1024, "sec. 3.2; bytes read of a source", "[2, 1000000]")
    dropout: float = sourced(0.0, "sec. 3.2, pre-training; the authors fine-tune with 0.1", "[0, 1)")
    share: float = sourced(0.15, "sec. 3.1; share of bytes that are masked in pre-training", "[0.001, 0.9]")
    span: float = sourced(20.0, "sec. 3.1; mean bytes of a masked span", "[1, 1000]")
    beams: int = sourced(1, "papertrial default; 1 writes the most probable byte", "[1, 64]")
    writes: bool = sourced(True, "the task; else the encoder alone", auto=lambda facts: facts.writes)
    pretrained: str = sourced("", "papertrial default; a run's folder, or hf:<id or folder>, of the same sizes", "any")


@dataclass(frozen=True)
class Spans:
    """Span corruption: which tokens are hidden, and what source and target are made of them.

    share: of the tokens that are hidden.  mean: tokens of a span.  mask: id of the first mask, further ones count down.
    end, pad: ids.  Raises ValueError for a share outside of (0, 1) or spans shorter than a token.
    """

    share: float = 0.15
    mean: float = 20.0
    # DIFF: transformers names 259 and up, which released weights were not trained with
    mask: int = Bytes.size - 1
    end: int = Bytes.end
    pad: int = Bytes.pad

    def __post_init__(self) -> None:
        if not 0 < self.share < 1 or self.mean < 1:
            raise ValueError(f"{self}: a share is between 0 and 1, a span has 1 token or more")

    def counts(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """int64 (B,) tokens of each row -> (hidden tokens, spans), both (B,). Neither side of a mask is ever empty."""
        hidden = (tokens.double() * self.share).round().long().clamp_min(1).minimum(tokens - 1)
        spans = (hidden.double() / self.mean).round().long().clamp(1, self.mask - Bytes.first).minimum(hidden)
        return hidden, spans.minimum(tokens - hidden)

    def row(self, longest: int) -> int:
        """The most tokens of a row whose source has at most `longest`, its end included: 1193 for 1024."""
        tokens = torch.arange(2, 2 + int(longest / (1 - self.share)), device="cpu")
        hidden, spans = self.counts(tokens)
        fitting = tokens[tokens - hidden + spans + 1 <= longest]
        return int(fitting.max()) if len(fitting) else 2

    def hide(self, tokens: Tensor, size: int, draw: Draw) -> Tensor:
        """bool (B, size): the hidden tokens of rows with `tokens` (B,) each. Rows begin with a token that is not hidden, and
        end with one that is; every way to place the spans is as likely as any other."""
        hidden, spans = self.counts(tokens)
        most = max(1, int(spans.max()))
        seen = _parts(tokens - hidden, spans, most, draw.uniform(size))
        unseen = _parts(hidden, spans, most, draw.uniform(size))
        ends = torch.stack([seen, unseen], 2).flatten(1).cumsum(1)  # of a part that is seen, of one that is not, ...
        place = torch.arange(size, device=tokens.device).repeat(len(tokens), 1)
        return (torch.searchsorted(ends, place, right=True) % 2 == 1) & (place < tokens[:, None])

    def corrupt(self, ids: Tensor, size: int, draw: Draw) -> tuple[Tensor, Tensor]:
        """ids (B, N) without an end, padded -> source (B, any) and target (B, any), padded, each with its end.

        size: at least N, the same on all ranks, so that they draw the same numbers.
        """
        tokens = (ids != self.pad).sum(1)
        hidden = self.hide(tokens, size, draw)[:, : ids.shape[1]]
        valid = torch.arange(ids.shape[1], device=ids.device) < tokens[:, None]
        begins = hidden & ~torch.nn.functional.pad(hidden, (1, 0))[:, :-1]
        masks = self.mask + 1 - begins.cumsum(1)
        source = self._closed(torch.where(begins, masks, ids), begins | (valid & ~hidden))
        both = torch.stack([masks, ids], 2).flatten(1)
        return source, self._closed(both, torch.stack([begins, hidden], 2).flatten(1))

    def _closed(self, values: Tensor, kept: Tensor) -> Tensor:
        """The kept values (B, any) of each row side by side, the end behind them, then padding."""
        lengths = kept.sum(1, keepdim=True)
        longest = int(lengths.max())
        place = torch.where(kept, kept.cumsum(1) - 1, longest + 1)
        rows = values.new_full((len(values), longest + 2), self.pad)
        return rows.scatter_(1, place, values).scatter_(1, lengths, self.end)[:, : longest + 1]


def _parts(total: Tensor, parts: Tensor, most: int, keys: Tensor) -> Tensor:
    """Whole numbers of at least 1 that add up to `total` (B,), `parts` (B,) of them, then zeros: int64 (B, most).

    keys: (B, any) random numbers, as many as `total` or more, which decide: all such rows are equally likely.
    """
    inside = torch.arange(keys.shape[1], device=keys.device) < (total - 1)[:, None]
    cuts = keys.masked_fill(~inside, 2.0).argsort(1)[:, : most - 1] + 1
    unused = torch.arange(most - 1, device=keys.device) >= (parts - 1)[:, None]
    cuts = torch.where(unused, total[:, None], cuts).sort(1).values
    edges = torch.cat([torch.zeros_like(total)[:, None], cuts, total[:, None]], 1)
    return edges.diff(dim=1)


def reassembled(source: Sequence[int], target: Sequence[int], mask: int = Bytes.size - 1) -> list[int]:
    """The ids that `Spans.corrupt` made a source and a target of, from a row of each, ends and padding included."""
    source, target = ([int(token) for token in row if token not in (Bytes.pad, Bytes.end)] for row in (source, target))
    spans: list[list[int]] = []
    for token in target:
        if token == mask - len(spans):
            spans.append([])
        else:
            spans[-1].append(token)
    whole: list[int] = []
    found = 0
    for token in source:
        hides = token == mask - found and found < len(spans)
        whole += spans[found] if hides else [token]
        found += hides
    return whole


class ByT5(T5):
    """Bytes to bytes; as a backbone the encoder, ids (B, N) int64 -> (B, width), the mean over bytes."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, Bytes(), TABLE)
        self.spans = Spans(config.share, config.span)
        self.row = self.spans.row(config.longest)

    def corrupt(self, ids: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        """Rows (B, N) of at most `row` bytes, without an end -> source and target of span corruption."""
        return self.spans.corrupt(ids, self.row, draw)


class ByT5Encoder(T5Encoder):
    """The encoder alone, for tasks that write nothing."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, Bytes(), TABLE)


def start_from(model: ByT5 | ByT5Encoder, source: str) -> None:
    """Put the weights of a checkpoint (`hf:<id or folder>`) or of an earlier run of byt5 (its folder) into the model.

    A model without a decoder leaves the decoder's out. Raises PapertrialError for weights of other sizes or of another model.
    """
    folder = Path(source).expanduser()
    if not source.startswith("hf:") and not folder.is_dir():
        raise PapertrialError(f"there is no folder {source} to start from", "name a run, or hf:<id or folder>")
    if (folder / "card.json").exists():
        weights = read_tensors(folder / "model.safetensors", "name another run, or train it again")
        held = {
            name.removeprefix("model.encoder."): value
            for name, value in weights.items()
            if name.startswith("model.encoder.")
        }
    else:
        held = pretrained.find(source).load(Bytes()).state_dict()
    if isinstance(model, ByT5Encoder):
        held |= {
            f"stack.{name.removeprefix('encoder.')}": value
            for name, value in held.items()
            if name.startswith("encoder.")
        }
    wanted = model.state_dict()
    for name, value in wanted.items():
        found = tuple(held[name].shape) if name in held else "not there"
        if found != tuple(value.shape):
            raise PapertrialError(
                f"{source} does not fit this byt5: {name} is {found}, here {tuple(value.shape)}",
                "choose the variant or the --set values that it was trained with, such as byt5:small",
            )
    model.load_state_dict({name: held[name] for name in wanted})


def licence(config: Config) -> str:
    """Whose weights training starts from."""
    if config.pretrained.startswith("hf:"):
        return f"{config.pretrained}: {pretrained.find(config.pretrained).licence()}"
    return f"those of {config.pretrained}" if config.pretrained else "fresh weights, so they are yours"


def build(config: Config, facts: Facts, backbone: nn.Module | None = None) -> ByT5 | ByT5Encoder:
    model = ByT5(config) if config.writes else ByT5Encoder(config)
    if config.pretrained:
        start_from(model, config.pretrained)
    return model


def _published(width: int, encoder: int, decoder: int, heads: int, hidden: int) -> dict[str, Any]:
    return {"width": width, "encoder_depth": encoder, "decoder_depth": decoder, "heads": heads, "hidden": hidden} | {
        "head_width": 64,
        "longest": 1024,
    }


variants = {  # table 1; heads of the released weights
    "small": _published(1472, 12, 4, 6, 3584),
    "base": _published(1536, 18, 6, 12, 3968),
    "large": _published(1536, 36, 12, 16, 3840),
    "xl": _published(2560, 36, 12, 32, 6720),
    "xxl": _published(4672, 36, 12, 64, 12352),
}

recipes = {
    "paper": Recipe(
        "paper",
        config=_published(1472, 12, 4, 6, 3584),
        # lr: Adafactor takes the smaller of it and 1 / sqrt(steps), so that it is constant for the first 10 000 steps
        optim={
            "optimizer": "adafactor",
            "lr": 0.01,
            "schedule": "constant",
            "warmup": 0.0,
            "weight_decay": 0.0,
            "clip": 0.0,
            "batch": 1024,
        },
        budget=Budget(steps=1_000_000),
        source="sec. 3.2: pre-training on mC4, 2^20 tokens a step",
        cost="TPUs for weeks",
        expect="XNLI zero-shot 69.1 (small, table 2)",
    ),
    "base": Recipe(
        "base",
        config={
            "width": 128,
            "encoder_depth": 6,
            "decoder_depth": 2,
            "heads": 4,
            "head_width": 32,
            "hidden": 256,
            "longest": 384,
        },
        optim={"lr": 3e-3, "weight_decay": 0.01, "batch": 32, "warmup": 0.1},
        source="small enough for minutes of a CPU, three times as deep to read as to write",
        cost="minutes on a CPU",
        expect="on clean text less than TF-IDF, unless it starts from weights that were pre-trained for long",
    ),
    "tiny": Recipe(
        "tiny",
        config={
            "width": 32,
            "encoder_depth": 3,
            "decoder_depth": 1,
            "heads": 2,
            "head_width": 16,
            "hidden": 48,
            "longest": 64,
        },
        optim={"lr": 1e-2, "batch": 16},
        budget=Budget(steps=100),
        source="small enough for tests",
        cost="seconds on a CPU",
    ),
}
