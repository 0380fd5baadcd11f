"""The networks of ADM: a U-Net that predicts noise and variances, and half of one with a pooling head that names the class.

Modules carry the names that the authors' code gives them, so that a state dict of theirs is one of ours:
`input_blocks.N.M`, `middle_block`, `output_blocks.N.M`, `out`, `time_embed`, `label_emb`.

    ResBlock    h = conv(silu(norm(x)));  h = norm(h) (1 + scale) + shift, from the embedding;  x + conv0(dropout(silu(h)))
    Attention   x + out0(softmax(q k / sqrt(d)) v), over all places, after a norm
    a level     `blocks` of ResBlock and, at some levels, Attention; then half the side, by a ResBlock that resamples

conv0 and out0 start at zero, so a fresh network is the sum of its skip connections and says zero.

Notation
    B batch, C channels, H and W side of a feature map, T places of one (H W), D width of the embedding of time and class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from papertrial.core.errors import PapertrialError
from papertrial.nn.attention import attend


def time_embedding(time: Tensor, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """(B,) steps -> (B, width): cosines, then sines, of wavelengths from 2 pi to 20 000 pi; a zero where width is odd."""
    half = width // 2
    wave = torch.exp(-math.log(10_000) / half * torch.arange(half, dtype=dtype, device=time.device))
    angle = time.to(dtype)[:, None] * wave
    return F.pad(torch.cat([angle.cos(), angle.sin()], 1), (0, width % 2))


def zeroed(layer: nn.Module) -> nn.Module:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def halved(x: Tensor) -> Tensor:
    """Means of 2 x 2; an odd side is rounded up, and its last row is the mean of what there is."""
    return F.avg_pool2d(x, 2, ceil_mode=True)


def doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


class ResBlock(nn.Module):
    """(B, C, H, W) and an embedding (B, D) -> (B, out, H', W'), where H' is twice or half of H with `resample` "up" or "down".

    adaptive: the embedding scales and shifts the second norm (AdaGN); it is added before that norm where this is False.
    """

    def __init__(
        self,
        channels: int,
        embedding: int,
        out: int,
        groups: int = 32,
        dropout: float = 0.0,
        adaptive: bool = True,
        resample: str = "",
    ) -> None:
        super().__init__()
        self.adaptive = adaptive
        self.resample = {"up": doubled, "down": halved}[resample] if resample else None
        self.in_layers = nn.Sequential(
            nn.GroupNorm(groups, channels), nn.SiLU(), nn.Conv2d(channels, out, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, 2 * out if adaptive else out))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(groups, out), nn.SiLU(), nn.Dropout(dropout), zeroed(nn.Conv2d(out, out, 3, padding=1))
        )
        self.skip_connection = nn.Identity() if out == channels else nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.in_layers[1](self.in_layers[0](x))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = self.in_layers[2](h)
        signal = self.emb_layers(embedding)[:, :, None, None]
        if self.adaptive:
            scale, shift = signal.chunk(2, 1)
            h = torch.addcmul(shift, self.out_layers[0](h), 1 + scale)
        else:
            h = self.out_layers[0](h + signal)
        return self.skip_connection(x) + self.out_layers[3](self.out_layers[2](self.out_layers[1](h)))


def split_heads(qkv_BTC: Tensor, heads: int, qkv_first: bool) -> tuple[Tensor, Tensor, Tensor]:
    """(B, T, 3 C) -> query, key and value, (B, heads, T, C / heads) each.

    qkv_first: the channels hold all queries, then all keys and all values, each head by head; otherwise they hold the
    query, key and value of one head after the other, the older order of the authors' code.
    """
    parts = qkv_BTC.unflatten(2, (3, heads, -1) if qkv_first else (heads, 3, -1))
    query, key, value = parts.movedim(2 if qkv_first else 3, 0).transpose(2, 3)
    return query, key, value


class Attention(nn.Module):
    """Every place of a feature map (B, C, H, W) attends to every place. The maps are kept as convolutions of width 1."""

    def __init__(self, channels: int, heads: int, groups: int = 32, qkv_first: bool = False) -> None:
        super().__init__()
        self.heads, self.qkv_first = heads, qkv_first
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = zeroed(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        qkv_BTC = _pointwise(self.qkv, self.norm(x).flatten(2).mT)
        found_BTC = _pointwise(
            self.proj_out, attend(*split_heads(qkv_BTC, self.heads, self.qkv_first)).transpose(1, 2).flatten(2)
        )
        return x + found_BTC.mT.reshape(x.shape)


def _pointwise(layer: nn.Conv1d, x_BTC: Tensor) -> Tensor:
    """A convolution of width 1, with channels last."""
    return F.linear(x_BTC, layer.weight[..., 0], layer.bias)


class AttentionPool(nn.Module):
    """(B, C, H, W) -> (B, out): the mean of all places, as one more token, asks all of them once.

    Positions are learnt, so the side of the feature map is part of the weights.
    """

    def __init__(self, places: int, channels: int, heads: int, out: int) -> None:
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.randn(channels, places + 1) / channels**0.5)
        self.qkv_proj = nn.Conv1d(channels, 3 * channels, 1)
        self.c_proj = nn.Conv1d(channels, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        x_BTC = x.flatten(2).mT
        x_BTC = torch.cat([x_BTC.mean(1, keepdim=True), x_BTC], 1) + self.positional_embedding.mT
        query, key, value = split_heads(_pointwise(self.qkv_proj, x_BTC), self.heads, qkv_first=True)
        return _pointwise(self.c_proj, attend(query[:, :, :1], key, value).transpose(1, 2).flatten(2))[:, 0]


class Half(nn.Module):
    """Resamples with a convolution, as the authors did before the ResBlock of BigGAN."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Double(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(doubled(x))


class Block(nn.Sequential):
    """Layers in a row, of which ResBlocks are given the embedding."""

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:  # type: ignore[override]
        for layer in self:
            x = layer(x, embedding) if isinstance(layer, ResBlock) else layer(x)
        return x


@dataclass(frozen=True)
class Plan:
    """The sizes of a U-Net, or of half of one.

    channels: of the images.  width: what the multipliers, one a level, multiply.  blocks: ResBlocks a level.  attention: the
    levels that have it, from 0.  heads: of each attention; where it is 0, as many as are head_width wide.  qkv_first: see
    `split_heads`.  groups: of every norm.  adaptive: AdaGN.  biggan: ResBlocks resample, convolutions where it is False.
    """

    channels: int
    width: int
    multipliers: tuple[float, ...]
    blocks: int
    attention: tuple[int, ...]
    heads: int = 0
    head_width: int = 64
    qkv_first: bool = False
    groups: int = 32
    dropout: float = 0.0
    adaptive: bool = True
    biggan: bool = True

    @property
    def sizes(self) -> list[int]:
        """Channels of the feature maps, level by level."""
        return [int(multiplier * self.width) for multiplier in self.multipliers]

    def heads_of(self, channels: int) -> int:
        """Raises PapertrialError where the channels cannot be split evenly."""
        count = self.heads or max(1, channels // self.head_width)
        if channels % count or (not self.heads and count > 1 and channels % self.head_width):
            raise PapertrialError(
                f"{channels} channels cannot be split evenly into heads",
                "choose --set heads or head_width that divides them",
            )
        return count

    def res(self, channels: int, out: int, resample: str = "") -> ResBlock:
        """Raises PapertrialError for channels that the groups of a norm do not divide."""
        for size in (channels, out):
            if size % self.groups:
                raise PapertrialError(
                    f"{size} channels cannot be normalised in {self.groups} groups",
                    "choose --set width and groups so that groups divides width times every multiplier",
                )
        return ResBlock(channels, 4 * self.width, out, self.groups, self.dropout, self.adaptive, resample)

    def layers(self, channels: int, out: int, attention: bool) -> list[nn.Module]:
        if not attention:
            return [self.res(channels, out)]
        return [self.res(channels, out), Attention(out, self.heads_of(out), self.groups, self.qkv_first)]

    def resampling(self, channels: int, way: str) -> nn.Module:
        """way: "up" or "down"."""
        if self.biggan:
            return self.res(channels, channels, way)
        return Half(channels) if way == "down" else Double(channels)


class Down(nn.Module):
    """What U-Net and classifier share: the embedding of time, the way down, the middle."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan, embedding = plan, 4 * plan.width
        self.time_embed = nn.Sequential(nn.Linear(plan.width, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        size = plan.sizes[0]
        self.input_blocks = nn.ModuleList([Block(nn.Conv2d(plan.channels, size, 3, padding=1))])
        self.skips = [size]  # channels of what each block hands over to the way up
        for level, out in enumerate(plan.sizes):
            for _ in range(plan.blocks):
                self.input_blocks.append(Block(*plan.layers(size, out, level in plan.attention)))
                size = out
                self.skips.append(size)
            if level < len(plan.sizes) - 1:
                self.input_blocks.append(Block(plan.resampling(size, "down")))
                self.skips.append(size)
        self.middle_block = Block(*plan.layers(size, size, True), plan.res(size, size))

    def embed(self, time: Tensor) -> Tensor:
        """(B,) steps -> (B, D)."""
        dtype = next(self.time_embed.parameters()).dtype
        # an angle of 1000 needs more digits than half precision has
        wide = torch.promote_types(dtype, torch.float32)
        return self.time_embed(time_embedding(time, self.plan.width, wide).to(dtype))

    def down(self, x: Tensor, embedding: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The feature map after the middle, and what each block on the way gave."""
        # in bfloat16 a CPU takes less than a third of the time with the channels last
        if x.dtype == torch.bfloat16 or torch.is_autocast_enabled(x.device.type):
            x = x.contiguous(memory_format=torch.channels_last)
        held = []
        for block in self.input_blocks:
            x = block(x, embedding)
            held.append(x)
        return self.middle_block(x, embedding), held


class UNet(Down):
    """Images (B, channels, H, W) at steps (B,) -> (B, out, H, W); with `classes`, also labels int64 (B,), -1 for none.

    upsamples: whether half of its channels show it a smaller image, and it says as much of the others as any U-Net does.
    Any H and W do: where a side is odd, the way up is cut to the side of the skip connection that it meets.
    """

    def __init__(self, plan: Plan, out: int, classes: int = 0) -> None:
        super().__init__(plan)
        self.classes, self.channels_out = classes, out
        self.upsamples = out == plan.channels
        if classes:
            self.label_emb = nn.Embedding(classes, 4 * plan.width)
        skips, size = list(self.skips), self.skips[-1]
        self.output_blocks = nn.ModuleList()
        for level in reversed(range(len(plan.sizes))):
            for index in range(plan.blocks + 1):
                layers = plan.layers(size + skips.pop(), plan.sizes[level], level in plan.attention)
                size = plan.sizes[level]
                if level and index == plan.blocks:
                    layers.append(plan.resampling(size, "up"))
                self.output_blocks.append(Block(*layers))
        self.out = nn.Sequential(nn.GroupNorm(plan.groups, size), nn.SiLU(), zeroed(nn.Conv2d(size, out, 3, padding=1)))

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        embedding = self.embed(time)
        if self.classes and label is not None:
            named = self.label_emb(label.clamp_min(0))
            embedding = embedding + torch.where((label >= 0)[:, None], named, 0.0)
        x, held = self.down(x, embedding)
        for block in self.output_blocks:
            skip = held.pop()
            x = block(torch.cat([x[:, :, : skip.shape[2], : skip.shape[3]], skip], 1), embedding)
        return self.out(x)


class Classifier(Down):
    """Noised images (B, channels, H, W) at steps (B,) -> logits (B, classes): the way down of the U-Net, and attention pooling.

    places: of the last feature map (see `side_at`), part of the weights.
    """

    def __init__(self, plan: Plan, places: int, classes: int) -> None:
        super().__init__(plan)
        self.classes, size = classes, plan.sizes[-1]
        pool = AttentionPool(places, size, plan.heads_of(size), classes)
        self.out = nn.Sequential(nn.GroupNorm(plan.groups, size), nn.SiLU(), pool)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.out(self.down(x, self.embed(time))[0])


def side_at(side: int, level: int) -> int:
    """The side of feature maps at a level: half of it, rounded up, each time."""
    return -(-side // 2**level)
