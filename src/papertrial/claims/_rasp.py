"""Whether training finds what a program says a transformer of so many layers and heads can do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from papertrial.papers.rasp.graph import Node, constant, make
from papertrial.papers.rasp.layers import attention
from papertrial.papers.rasp.run import Run

PAD = 0
_KEPT = 8  # of so many strings, one is kept for judging
_UNKNOWN = -100  # no value: padding, the token in front, and what no training string had; cross_entropy leaves it out


@dataclass(frozen=True)
class Setting:
    """letters, longest: of the strings, whose lengths are random; first: a token in front of each, whose value is not
    asked for.  strings, tested: how many to train and to judge on.  width, steps, batch, rate: of the training.  told:
    weight of the squared distance from where the program's heads look.  region: a selector outside of which no head looks."""

    letters: str
    longest: int
    first: str = ""
    strings: int = 20000
    tested: int = 1000
    width: int = 64
    steps: int = 1500
    batch: int = 64
    rate: float = 2e-3
    told: float = 0.0
    region: Node | None = None


@dataclass(frozen=True)
class Learned:
    """On new strings: right, the share of the values; alike, the share of attention that is where the program's heads look,
    over the rows in which they look anywhere (0 where it was not asked for)."""

    right: float
    alike: float = 0.0


class Learner(nn.Module):
    """ids (B, N) int64 -> (B, N, answers): a plain transformer encoder with learned positions, PAD never looked at."""

    def __init__(self, ids: int, longest: int, width: int, layers: int, heads: int, answers: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(ids, width)
        self.positions = nn.Embedding(longest, width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, norm_first=True, batch_first=True)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.answers = nn.Linear(width, answers)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        padding = ids == PAD
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=padding)
        return self.answers(self.norm(x))

    def looking(self, ids: Tensor, region: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """The same with what each head looks at, (B, heads, N, N) for each layer.  region: bool (N, N), where they may."""
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        seen = (ids != PAD)[:, None, :].expand(-1, ids.shape[1], -1)
        if region is not None:
            seen = seen & region | torch.eye(ids.shape[1], dtype=torch.bool)  # a row of padding sees itself
        looks = []
        for layer in self.layers:
            within = layer.norm1(x)
            brought, weights = layer.self_attn(
                within, within, within, need_weights=True, average_attn_weights=False,
                attn_mask=~seen.repeat_interleave(layer.self_attn.num_heads, 0),
            )  # fmt: skip
            looks.append(weights)
            x = x + brought
            x = x + layer.linear2(layer.activation(layer.linear1(layer.norm2(x))))
        return self.answers(self.norm(x)), looks


def learned(program: Node, layers: int, heads: int, setting: Setting, seed: int) -> float:
    """The share of the values on new strings that a transformer gets right after training on those of a program."""
    return trained(program, layers, heads, setting, seed).right


def trained(program: Node, layers: int, heads: int, setting: Setting, seed: int, watched: bool = False) -> Learned:
    """A transformer after training on the values of a program; its heads are told where to look as `setting` says.

    watched: whether it is measured where they look; where they are told to, it always is.
    """
    watched = watched or setting.told > 0
    plain = not watched and setting.region is None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ids, targets, answers = _examples(program, setting)
        looks = _looks(program, ids, setting) if watched else []
        sight = None if setting.region is None else _sight(setting.region, ids.shape[1])
        test, test_targets = ids[-setting.tested :], targets[-setting.tested :]
        ids, targets = ids[: -setting.tested], targets[: -setting.tested]
        model = Learner(len(setting.letters) + 2, ids.shape[1], setting.width, layers, heads, answers)
        optimizer = torch.optim.AdamW(model.parameters(), lr=setting.rate, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: min(1.0, 20 * step / setting.steps) * 0.5 * (1 + math.cos(math.pi * step / setting.steps)),
        )
        for _ in range(setting.steps):
            rows = torch.randint(len(ids), (setting.batch,))
            logits, found = (model(ids[rows]), []) if plain else model.looking(ids[rows], sight)
            loss = F.cross_entropy(logits.flatten(0, 1), targets[rows].flatten(), ignore_index=_UNKNOWN)
            if setting.told:
                loss = loss + setting.told * _distance(found, [look[rows] for look in looks])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.inference_mode():
        logits, found = (model(test), []) if plain else model.looking(test, sight)
        right = (logits.argmax(-1) == test_targets) & (test_targets != _UNKNOWN)
    share = float(right.sum() / (test_targets != _UNKNOWN).sum())
    return Learned(share, _alike(found, [look[-setting.tested :] for look in looks]) if watched else 0.0)


def _distance(found: list[Tensor], wanted: list[Tensor]) -> Tensor:
    """Mean over layers of the squared distance between rows of attention (B, heads, N, N), over those that are wanted."""
    parts = []
    for ours, theirs in zip(found, wanted, strict=True):
        rows = theirs.sum(-1) > 0
        parts.append(((ours[:, : theirs.shape[1]] - theirs)[rows] ** 2).sum(-1).mean())
    return torch.stack(parts).mean()


def _alike(found: list[Tensor], wanted: list[Tensor]) -> float:
    """Mean over layers of the mass that rows of attention share, 1 less their total variation."""
    parts = []
    for ours, theirs in zip(found, wanted, strict=True):
        rows = theirs.sum(-1) > 0
        parts.append(torch.minimum(ours[:, : theirs.shape[1]], theirs).sum(-1)[rows].mean())
    return float(torch.stack(parts).mean())


def _looks(program: Node, ids: Tensor, setting: Setting) -> list[Tensor]:
    """Where the heads of the program look: for each layer (strings, heads, N, N), 0 at padding."""
    letters, size = setting.first + setting.letters, ids.shape[1]
    rows = [attention(program, [letters[token - 1] for token in row if token != PAD]) for row in ids.tolist()]
    padded = []
    for layer in range(len(rows[0])):
        block = np.zeros((len(rows), rows[0][layer].shape[0], size, size), dtype=np.float32)
        for place, row in enumerate(rows):
            count = row[layer].shape[-1]
            block[place, :, :count, :count] = row[layer]
        padded.append(torch.from_numpy(block))
    return padded


def _sight(region: Node, size: int) -> Tensor:
    """bool (N, N): the region, for positions alone."""
    return torch.from_numpy(Run([0] * size)(region))


def within(reach: int) -> Node:
    """The region of `reach` positions to both sides, and the first position, which programs count with."""
    index = make("input", "indices")
    sides = [
        make("select", sign, (index, make("map", way, (index, constant(reach)))))
        for sign, way in ((">=", "-"), ("<=", "+"))
    ]
    return make("either", "", (make("both", "", tuple(sides)), make("select", "==", (index, constant(0)))))


def _examples(program: Node, setting: Setting) -> tuple[Tensor, Tensor, int]:
    """Ids (strings, N), the place of each value (strings, N), and how many values there are; those to judge on come last.

    A string is kept for judging by its letters alone, so that none is among those to train on.
    """
    places: dict[object, int] = {}
    width = setting.longest + len(setting.first)
    total = setting.strings + setting.tested
    ids, targets = torch.full((total, width), PAD), torch.full((total, width), _UNKNOWN)
    row = 0
    while row < total:
        length = int(torch.randint(1, setting.longest + 1, ()))
        letters = "".join(setting.letters[place] for place in torch.randint(len(setting.letters), (length,)).tolist())
        if (crc32(letters.encode()) % _KEPT == 0) != (row >= setting.strings):
            continue
        tokens = setting.first + letters
        values = Run(tokens)(program).tolist()[len(setting.first) :]
        if row < setting.strings:
            for value in values:
                places.setdefault(value, len(places))
        ids[row, : len(tokens)] = torch.tensor([1 + (setting.first + setting.letters).index(token) for token in tokens])
        targets[row, len(setting.first) : len(tokens)] = torch.tensor([places.get(value, _UNKNOWN) for value in values])
        row += 1
    return ids, targets, len(places)
