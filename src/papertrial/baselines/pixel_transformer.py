"""Pixel Transformer - pictures written pixel by pixel, each from those before it and what is asked for.

Mark Chen and others, "Generative Pretraining from Pixels" (iGPT), ICML 2020. On pixels in this order before it: Aaron van den Oord
and others, arXiv 1601.06759.

The idea
    A picture is a text whose letters are pixels: a Transformer learns what follows, line by line, after a caption or a class.

The equation
    log p(x | c) = sum_i log p(x_i | c, x_1, ..., x_(i-1)),   x_i one of K colours

What matters
    Every pixel is a token, so a picture of 32 pixels has 1,024 of them: training sees few pictures a second, and drawing takes as
    many passes as there are pixels. Keys and values of what is written are kept, so that a pass reads one pixel.
    Colours are a palette learned by k-means; grey has even levels.

Requires / Offers
    Requires images; captions or classes where there are some. Offers generate, from a caption or of a class.

Relations
    The reference that `dalle`, which writes 8 x 8 pixels at once, must beat at equal time.

Try
    papertrial fit pixel_transformer --data emoji/ --size 16 --budget 5m

Cost
    tiny: seconds on a CPU. base: minutes on a CPU at 16 pixels.

Notation
    B batch, T bytes of a caption, P pixels of a picture, K colours, c what is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from papertrial.core.budget import Budget
from papertrial.core.facts import Facts
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced
from papertrial.core.task import Ragged
from papertrial.nn.attention import Attention
from papertrial.nn.decode import Choice
from papertrial.nn.mlp import Mlp
from papertrial.nn.position import Position
from papertrial.nn.transformer import Decoder, Ids, Layout
from papertrial.nn.views import Draw

PAPER = Paper(
    id="pixel_transformer",
    title="Generative Pretraining from Pixels",
    kind="architecture",
    method="PixelTransformer",
    idea="A Transformer that writes a picture pixel by pixel, after a caption or a class.",
    authors="Mark Chen, Alec Radford, Rewon Child, Jeffrey Wu, Heewoo Jun, David Luan, Ilya Sutskever",
    year=2020,
    tasks=("image_generation", "image_text_generation"),
    tags=("vision", "text", "generative", "attention", "autoregressive"),
    caveats=(
        "iGPT is made for features and takes neither captions nor classes; here they stand before the pixels, as in DALL-E.",
        "Rows and columns have positions that add up (DALL-E, 2102.12092, fig. 11); iGPT learns one for each pixel, which takes "
        "more pictures.",
    ),
)

#: pixels that a palette is learned from, and rounds of k-means
_SEEN, _ROUNDS = 16_384, 20
_BYTES = 256
_PLAIN = Choice()


@checked
@dataclass(frozen=True)
class Config:
    width: int = sourced(64, "papertrial default, for minutes of a CPU; iGPT-S has 512", "[1, 65536]")
    depth: int = sourced(
        2, "papertrial default: on minutes of a CPU more steps are worth more than layers; iGPT-S has 24", "[1, 256]"
    )
    heads: int = sourced(2, "papertrial default; iGPT-S has 8 (README of openai/image-gpt)", "[1, 1024], divides width")
    hidden: int = sourced(256, "four times the width, as in openai/image-gpt, src/model.py", "[1, 262144]")
    colours: int = sourced(
        512,
        "iGPT: a palette of 9 bits, by k-means over the colours of pixels",
        "[2, 65536]",
        auto=lambda facts: 16 if facts.channels == 1 else 128 if facts.examples < 10_000 else None,
    )
    text: int = sourced(
        64,
        "papertrial default: bytes of a caption that are read",
        "[0, 65536]",
        auto=lambda facts: min(facts.length, 256) if facts.captions else 0,
    )
    dropped: float = sourced(
        0.1,
        "2207.12598, which finds 0.1 and 0.2 alike and 0.5 worse: share of the pictures that are learned without what is asked for, "
        "so that they can be drawn so",
        "[0, 1]",
    )


class Raster(Position):
    """Places of captions in a row, and behind them of pixels line by line: a learned vector for each place of a caption, and for
    each pixel that of its row plus that of its column. The place before the first pixel has the last vector of the captions."""

    def __init__(self, text: int, height: int, width: int, channels: int) -> None:
        super().__init__()
        self.text, self.across, self.longest = text, width, text + 1 + height * width
        self.before = nn.Embedding(text + 1, channels)
        self.rows, self.columns = nn.Embedding(height, channels), nn.Embedding(width, channels)

    def embed(self, at: Tensor) -> Tensor:
        pixel = (at - self.text - 1).clamp_min(0)
        inside = self.rows(pixel // self.across) + self.columns(pixel % self.across)
        return torch.where((at > self.text)[..., None], inside, self.before(at.clamp_max(self.text)))


class PixelTransformer(nn.Module):
    """ids: T bytes of the caption, 0 where it has none; 256 + 1 + class, 256 for any; then pixels, each the number of its colour.

    palette: float32 (K, C), colours from 0 to 255.
    """

    palette: Tensor

    def __init__(self, config: Config, facts: Facts) -> None:
        super().__init__()
        self.config, self.classes = config, 0 if config.text else facts.classes
        self.size = (facts.height, facts.width)
        self.first = _BYTES + 1 + self.classes
        layout = Layout(
            width=config.width,
            depth=config.depth,
            attention=lambda layer: Attention(config.width, config.heads, bias=False),
            mlp=lambda layer: Mlp(config.width, config.hidden, bias=False),
            position=lambda: Raster(config.text, *self.size, config.width),
        )
        self.decoder = Decoder(Ids(self.first + config.colours, pad=None), layout, tied=False)
        self.decoder.head = nn.Linear(config.width, config.colours)  # what follows is a pixel, never a letter
        nn.init.zeros_(self.decoder.head.weight)  # as in openai/image-gpt, src/model.py
        nn.init.zeros_(self.decoder.head.bias)
        grey = torch.linspace(0, 255, config.colours)[:, None]
        self.register_buffer("palette", grey.repeat(1, facts.channels))
        self.draws = frozenset({"captions"} if config.text else {"labels"} if self.classes else ())

    def fit_inputs(self, columns: Mapping[str, Any]) -> None:
        """Learn the palette of colour pictures uint8 (N, H, W, C) of the column "image"."""
        if self.palette.shape[1] > 1:
            rng = np.random.default_rng(0)
            some = np.asarray(columns["image"][np.sort(rng.permutation(len(columns["image"]))[: _SEEN // 16])])
            pixels = rng.permutation(some.reshape(-1, some.shape[-1]))[:_SEEN]
            self.palette.copy_(torch.from_numpy(palette(pixels, self.config.colours)))

    def quantised(self, image: Tensor) -> Tensor:
        """Pictures float (B, C, H, W) in [0, 1] -> the nearest colour of each pixel, int64 (B, P)."""
        pixels = 255 * image.flatten(2).transpose(1, 2)
        return torch.cdist(pixels, self.palette.to(pixels.dtype)).argmin(-1)

    def views(self, batch: Mapping[str, Tensor], draw: Draw) -> dict[str, Tensor]:
        """Some rows without what is asked for."""
        dropped = draw.bernoulli(self.config.dropped)
        found = {**batch, "label": batch["label"].masked_fill(dropped, -1)}
        return {**found, "text": batch["text"].masked_fill(dropped[:, None], 0)} if "text" in batch else found

    def nats(self, image: Tensor, text: Tensor | None = None, label: Tensor | None = None) -> Tensor:
        """Of each pixel (B, P). image: as `quantised` takes it.  text: bytes int64 (B, any), filled with 0.  label: int64 (B,),
        -1 for any."""
        pixels = self.quantised(image)
        asked = self._asked(len(image), text, label)
        ids = torch.cat([asked, self.first + pixels[:, :-1]], 1)
        logits = self.decoder.outputs(self.decoder.tokens(ids)[:, self.config.text :])
        return F.cross_entropy(logits.flatten(0, 1), pixels.flatten(), reduction="none").view(pixels.shape)

    def loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        return self.nats(batch["image"], batch.get("text"), batch["label"]).mean()

    def draw(
        self,
        seeds: Sequence[int],
        *,
        labels: Tensor | None = None,
        captions: Sequence[str] | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Tensor:
        """uint8 (N, C, H, W). labels: int64 (N,), -1 for any class.  captions: N texts, "" for any."""
        device = self.palette.device
        dice = [torch.Generator().manual_seed(seed) for seed in seeds]
        count = self.size[0] * self.size[1]
        at = torch.stack([torch.rand(count, generator=die, dtype=torch.float64) for die in dice])
        text = None if captions is None else torch.from_numpy(Ragged.of_texts(captions).padded().astype(np.int64))
        text, labels = (None if given is None else given.to(device) for given in (text, labels))
        asked = self._asked(len(dice), text, labels, device=device)
        cache = self.decoder.cache(len(dice), self.config.text + count)
        pixels = torch.empty(len(dice), count, dtype=torch.int64)
        logits = self.decoder.next(asked, cache)
        for place in range(count):
            pixels[:, place] = _PLAIN.take(logits.cpu(), at[:, place])
            if place + 1 < count:
                logits = self.decoder.next(self.first + pixels[:, place : place + 1].to(device), cache)
            if progress is not None and (place + 1) % self.size[1] == 0:
                progress((place + 1) / count)
        pictures = self.palette[pixels.to(device)].round().to(torch.uint8)
        return pictures.transpose(1, 2).unflatten(2, self.size)

    def too_long(self, texts: Ragged) -> tuple[np.ndarray, str]:
        """Which captions have more bytes than are read of one, bool (N,)."""
        return texts.lengths > self.config.text, f"{self.config.text:,} bytes"

    def _asked(
        self, rows: int, text: Tensor | None, label: Tensor | None, device: torch.device | None = None
    ) -> Tensor:
        """What stands before the pixels, int64 (rows, T + 1)."""
        places, device = self.config.text, self.palette.device if device is None else device
        if text is None or not places:
            text = torch.zeros(rows, places, dtype=torch.int64, device=device)
        text = F.pad(text[:, :places], (0, max(0, places - text.shape[1])))
        if label is None or not self.classes:
            label = torch.full((rows,), -1, device=device)
        return torch.cat([text, _BYTES + 1 + label[:, None]], 1)


def palette(pixels: np.ndarray, colours: int) -> np.ndarray:
    """`colours` colours for pixels uint8 (N, C), by k-means: float32 (colours, C). Fewer colours than that are kept as they are,
    and the first of them fills the rest."""
    distinct, counts = np.unique(pixels, axis=0, return_counts=True)
    if len(distinct) <= colours:
        return np.concatenate([distinct, np.repeat(distinct[:1], colours - len(distinct), 0)]).astype(np.float32)
    chosen = np.random.default_rng(0).choice(len(distinct), colours, replace=False, p=counts / counts.sum())
    held, centres = torch.from_numpy(distinct.astype(np.float64)), distinct[chosen].astype(np.float64)
    for _ in range(_ROUNDS):
        nearest = torch.cdist(held, torch.from_numpy(centres)).argmin(1).numpy()
        size = np.bincount(nearest, counts, colours)[:, None]
        total = np.stack([np.bincount(nearest, counts * channel, colours) for channel in distinct.T], 1)
        centres = np.where(size > 0, total / np.maximum(size, 1), centres)
    return centres.astype(np.float32)


def build(config: Config, facts: Facts, backbone: nn.Module | None = None) -> PixelTransformer:
    return PixelTransformer(config, facts)


recipes = {
    "paper": Recipe(
        "paper",
        config={"width": 512, "depth": 24, "heads": 8, "hidden": 2048},
        optim={"lr": 3e-3, "weight_decay": 0.0, "beta2": 0.95, "batch": 128, "warmup": 0.01},
        budget=Budget(steps=1_000_000),
        source="iGPT-S: layers, width and heads by the README of openai/image-gpt; by the paper a million steps of 128 pictures, a rate of "
        "0.003 that rises over one epoch, beta2 0.95, no weight decay",
        cost="weeks of a GPU",
    ),
    "base": Recipe(
        "base",
        optim={"lr": 5e-3, "weight_decay": 0.01, "beta2": 0.95, "batch": 8, "warmup": 0.1},
        source="chosen on MNIST and emoji at 16 pixels, at 40 and 100 s of one core",
        cost="minutes on a CPU at 16 pixels",
    ),
    "tiny": Recipe(
        "tiny",
        config={"width": 32, "depth": 2, "heads": 2, "hidden": 64, "colours": 8},
        optim={"lr": 1e-2, "weight_decay": 0.0, "batch": 16},
        budget=Budget(steps=60),
        source="small enough for tests",
        cost="seconds on a CPU",
    ),
}
