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

import csv
import io
import itertools
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from papertrial.baselines import t5
from papertrial.baselines.t5 import T5, T5Encoder
from papertrial.core import registry
from papertrial.core.budget import Budget
from papertrial.core.errors import PapertrialError
from papertrial.core.facts import Facts
from papertrial.core.paper import Curve, Figure, Measured, Paper, claim
from papertrial.core.recipe import Optim, Recipe, sourced
from papertrial.core.run import Run
from papertrial.core.task import Ragged, Split
from papertrial.data.texts import Texts
from papertrial.data.toy import at_hand
from papertrial.data.views import Draw
from papertrial.nn import pretrained
from papertrial.nn.tokenise import Bytes
from papertrial.tasks.text_classification import TASK as CLASSIFICATION
from papertrial.train.loop import train

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


@dataclass(frozen=True)
class Config:
    width: int = sourced(1472, "table 1, small")
    encoder_depth: int = sourced(12, "table 1, small")
    decoder_depth: int = sourced(4, "table 1, small")
    heads: int = sourced(6, "released weights, small")
    head_width: int = sourced(64, "released weights")
    hidden: int = sourced(3584, "table 1, small")
    longest: int = sourced(1024, "sec. 3.2; bytes read of a source")
    dropout: float = sourced(0.0, "sec. 3.2, pre-training; the authors fine-tune with 0.1")
    share: float = sourced(0.15, "sec. 3.1; share of bytes that are masked in pre-training")
    span: float = sourced(20.0, "sec. 3.1; mean bytes of a masked span")
    beams: int = sourced(1, "papertrial default; 1 writes the most probable byte")
    writes: bool = sourced(True, "the task; else the encoder alone", auto=lambda facts: facts.writes)
    pretrained: str = sourced("", "papertrial default; a run's folder, or hf:<id or folder>, of the same sizes")


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
        held = {
            name.removeprefix("model.encoder."): value
            for name, value in load_file(str(folder / "model.safetensors")).items()
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


@claim(
    "Any text comes back from its bytes as it was, each id is the byte plus 3, and nobody can type a special id.",
    where="sec. 3.1",
    kind="property",
)
def bytes_lose_nothing(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    rng = np.random.default_rng(seed)
    texts = ["".join(map(chr, _characters(rng, size))) for size in rng.integers(0, 60, 200)] + ["", "</s><pad>\x00"]
    ids = Bytes().encode(texts)
    back = [Bytes().decode(row) for row in ids]
    wrong = sum(made != text for made, text in zip(back, texts, strict=True))
    shifted = all(
        (row[:-1] - 3).astype(np.uint8).tobytes() == text.encode() for row, text in zip(ids, texts, strict=True)
    )
    special = int(sum((row[:-1] < Bytes.first).sum() for row in ids))
    return not wrong and shifted and not special, {"texts": len(texts), "wrong": wrong, "special_ids": special}


def _characters(rng: np.random.Generator, size: int) -> list[int]:
    """Code points of one to four bytes, no surrogates."""
    found = rng.integers([0, 0x80, 0x800, 0x10000], [0x80, 0x800, 0xD800, 0x110000], (size, 4))
    return found[np.arange(size), rng.integers(0, 4, size)].tolist()


@claim(
    "Source and target together hold all of the text; 15 % of the bytes are hidden, in spans of 20 on average; 1024 bytes of "
    "source come with 189 of target.",
    where="sec. 3.1 and 3.2",
    kind="property",
)
def span_corruption_loses_nothing(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    rng, spans = np.random.default_rng(seed), Spans()
    size = spans.row(1024)
    texts = ["".join(map(chr, _characters(rng, 600))) for _ in range(16)]
    rows = Bytes().encode(texts, longest=size, specials=False)
    rows = Ragged(rows.values, rows.offsets, Bytes.pad)
    source, target = spans.corrupt(torch.from_numpy(rows.padded().astype(np.int64)), size, Draw(seed, 0, len(rows)))
    wrong = sum(
        reassembled(one.tolist(), other.tolist()) != row.tolist()
        for one, other, row in zip(source, target, rows, strict=True)
    )
    tokens = torch.full((64,), size)
    hidden = spans.hide(tokens, size, Draw(seed, 1, 64))
    begins = (hidden[:, 1:] & ~hidden[:, :-1]).sum() + hidden[:, 0].sum()
    full = [made.shape[1] for made in spans.corrupt(torch.full((1, size), 100), size, Draw(seed, 2, 1))]
    measured = {
        "wrong": wrong,
        "share": float(hidden.double().mean()),
        "span": float(hidden.sum() / begins),
        "source": full[0],
        "target": full[1],
    }
    held = not wrong and abs(measured["share"] - 0.15) < 0.002 and abs(measured["span"] - 20) < 0.5
    return held and full == [1024, 189], measured


#: billions of parameters (table 1)
PUBLISHED = {"small": 0.300, "base": 0.582, "large": 1.23, "xl": 3.74, "xxl": 12.9}


@claim("The five sizes have as many parameters as published, to three digits.", where="table 1", kind="identity")
def sizes_as_published(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    with torch.device("meta"):
        models = {name: ByT5(Config(**variant)) for name, variant in variants.items()}
    found = {name: sum(p.numel() for p in model.parameters()) / 1e9 for name, model in models.items()}
    return all(float(f"{count:.3g}") == PUBLISHED[name] for name, count in found.items()), found


LANGUAGES = ("en", "de", "es", "fr", "it", "nl", "pl", "pt")
NOISE = (0.0, 0.1, 0.2, 0.4)


@dataclass(frozen=True)
class _Scale:
    """What the study of noise trains. The encoder is the same for bytes and subwords."""

    width: int
    depth: int
    steps: int
    judged: int  # test snippets of a language
    vocabulary: int


_SCALES = {"tiny": _Scale(32, 2, 40, 40, 1000), "base": _Scale(96, 4, 1200, 400, 8192)}


def snippets(part: str) -> list[list[str]]:
    """Three words in a row, each once, of the sentences of STS-B in LANGUAGES; part: dev or test.

    Raises Declined where the data is not there.
    """
    english = at_hand(f"sts/stsb/stsb-en-{part}.csv").read_text(encoding="utf-8")
    with tarfile.open(at_hand("sts/stsb/stsb-10-languages-dev-test.tar.gz")) as archive:
        others = [archive.extractfile(f"stsb-{language}-{part}.csv") for language in LANGUAGES[1:]]
        files = [english, *(file.read().decode("utf-8") for file in others if file is not None)]
    found = []
    for file in files:
        words = [sentence.split() for row in csv.reader(io.StringIO(file)) for sentence in row[:2]]
        threes = (" ".join(row[at : at + 3]) for row in words for at in range(0, len(row) - 2, 3))
        found.append(sorted(set(threes)))
    return found


def noisy(texts: Sequence[str], share: float, seed: int) -> list[str]:
    """Texts of which a random `share` of the characters is lost, doubled or another small letter, each as often."""
    rng = np.random.default_rng(seed)
    points = np.frombuffer("".join(texts).encode("utf-32-le"), dtype=np.uint32)
    kind = np.where(rng.random(len(points)) < share, rng.integers(0, 3, len(points)), -1)
    letters = rng.integers(ord("a"), ord("z") + 1, len(points), dtype=np.uint32)
    copies = np.select([kind == 0, kind == 1], [0, 2], 1)
    made = np.repeat(np.where(kind == 2, letters, points), copies).tobytes().decode("utf-32-le")
    ends = np.concatenate([[0], np.cumsum(copies)])[np.cumsum([0, *map(len, texts)])].tolist()
    return [made[first:last] for first, last in itertools.pairwise(ends)]


@cache
def language_accuracy(scale: str, seed: int) -> dict[str, float]:
    """Accuracy of telling LANGUAGES by three words, `bytes_{noise}` and `subwords_{noise}`, after as many steps each."""
    size, rng = _SCALES[scale], np.random.default_rng(seed)
    known = snippets("dev")
    least = min(map(len, known))
    known = [[own[row] for row in rng.permutation(len(own))[:least]] for own in known]
    asked = [[own[row] for row in np.linspace(0, len(own) - 1, size.judged).astype(int)] for own in snippets("test")]
    texts = [text for own in (*known, *asked) for text in own]
    labels = [language for part in (known, asked) for language, own in zip(LANGUAGES, part, strict=True) for _ in own]
    part = np.repeat([0, 2], [least * len(LANGUAGES), size.judged * len(LANGUAGES)])
    prepared = CLASSIFICATION.prepare(Texts.from_strings(texts, labels, part=part), seed)
    judged, label = prepared.test["text"].texts(), prepared.test["label"]
    noise = {share: Ragged.of_texts(noisy(judged, share, seed)) for share in NOISE}
    shape = {"width": size.width, "encoder_depth": size.depth, "heads": 4, "head_width": size.width // 4, "longest": 64}
    shape |= {"hidden": 2 * size.width, "dropout": 0.0, "writes": False}
    configs = {"bytes": Config(**shape), "subwords": t5.Config(**shape, vocabulary=size.vocabulary)}
    optim = Optim(lr=2e-3, weight_decay=0.01, batch=64, warmup=0.1)
    found = {}
    for name, config in configs.items():
        torch.manual_seed(seed)
        model = CLASSIFICATION.build(registry.method("byt5" if name == "bytes" else "t5"), config, optim, prepared)
        rows = CLASSIFICATION.training(model, prepared)
        with tempfile.TemporaryDirectory(prefix="papertrial-byt5-") as folder:
            train(model, rows, optim, Budget(steps=size.steps), Run(folder), seed=seed, progress=False)
        for share, column in noise.items():
            answers = CLASSIFICATION.outputs(model, {}, Split({"text": column, "label": label})).argmax(1)
            found[f"{name}_{share}"] = float((answers == label).mean())
    return found


def _by_noise(measured: Measured) -> Figure:
    return Figure(
        "Telling eight languages by three words",
        "share of characters that are noise",
        "accuracy",
        tuple(Curve.over_seeds(name, measured, f"{name}_{{}}") for name in ("bytes", "subwords")),
        "The same encoder after as many steps; the snippets it was trained on are clean.",
    )


@claim(
    "Noise in the characters costs a model of bytes at most three quarters of the accuracy that it costs one of subwords, "
    "from none to 40 %.",
    where="sec. 5.1",
    kind="trend",
    cost={"base": "2 CPU minutes a seed"},
    plot=_by_noise,
)
def noise_costs_bytes_less(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    found = language_accuracy(scale, seed)
    lost = {name: found[f"{name}_{NOISE[0]}"] - found[f"{name}_{NOISE[-1]}"] for name in ("bytes", "subwords")}
    return lost["bytes"] <= 0.75 * lost["subwords"], {
        **found,
        **{f"lost_{name}": value for name, value in lost.items()},
    }


@claim(
    "On clean text a model of bytes is as good as one of subwords, within two points. (The authors say so of models that "
    "were pre-trained; here both are trained from scratch, for as many steps.)",
    where="sec. 4",
    kind="trend",
    cost={"base": "2 CPU minutes a seed"},
    plot=_by_noise,
)
def clean_text_is_read_as_well(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    found = language_accuracy(scale, seed)
    behind = found[f"subwords_{NOISE[0]}"] - found[f"bytes_{NOISE[0]}"]
    return behind <= 0.02, {**found, "behind": behind}
