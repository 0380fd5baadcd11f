"""Whether training finds what a program says a transformer of so many layers and heads can do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from zlib import crc32

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from papertrial.papers.rasp.graph import Node
from papertrial.papers.rasp.run import Run

PAD = 0
_KEPT = 8  # of so many strings, one is kept for judging
_UNKNOWN = -100  # no value: padding, the token in front, and what no training string had; cross_entropy leaves it out


@dataclass(frozen=True)
class Setting:
    """letters, longest: of the strings, whose lengths are random; first: a token in front of each, whose value is not
    asked for.  strings, tested: how many to train and to judge on.  width, steps, batch, rate: of the training."""

    letters: str
    longest: int
    first: str = ""
    strings: int = 20000
    tested: int = 1000
    width: int = 64
    steps: int = 1500
    batch: int = 64
    rate: float = 2e-3


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


def learned(program: Node, layers: int, heads: int, setting: Setting, seed: int) -> float:
    """The share of the values on new strings that a transformer gets right after training on those of a program."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ids, targets, answers = _examples(program, setting)
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
            loss = F.cross_entropy(model(ids[rows]).flatten(0, 1), targets[rows].flatten(), ignore_index=_UNKNOWN)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.inference_mode():
        right = (model(test).argmax(-1) == test_targets) & (test_targets != _UNKNOWN)
    return float(right.sum() / (test_targets != _UNKNOWN).sum())


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
