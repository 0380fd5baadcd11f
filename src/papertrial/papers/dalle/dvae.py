"""The first stage: pictures as a small grid of codes, and back (sec. 2.1 and appendix A; authors' code for the layers).

Notation: B rows, C channels of a picture, V codes, h x w the grid, W the width `hidden`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from papertrial.nn.ranks import BatchNorm, all_sum

#: pixels lie within this distance from 0 and 1, where the logit is infinite (appendix A.3)
MARGIN = 0.1
#: how weights and pictures lie in memory: convolutions are up to 1.6 times as fast as with the channels first
CHANNELS_LAST = torch.channels_last
#: standard deviation of the logits of each code where they are normalised
SPREAD = 2.0


def map_pixels(x: Tensor) -> Tensor:
    """Pixels from [0, 1] to [MARGIN, 1 - MARGIN]."""
    return (1 - 2 * MARGIN) * x + MARGIN


def unmap_pixels(x: Tensor) -> Tensor:
    """The way back, cut to [0, 1]."""
    return ((x - MARGIN) / (1 - 2 * MARGIN)).clamp(0, 1)


def logit_laplace(x: Tensor, mu: Tensor, log_b: Tensor) -> Tensor:
    """-ln f(x | mu, b) of eq. 2: x in (0, 1), any shape that broadcasts -> the same shape, in nats.

    f is the density of a sigmoid of a Laplace variable: 1 / (2 b x (1 - x)) exp(-|logit x - mu| / b).
    """
    return math.log(2) + log_b + torch.log(x * (1 - x)) + (torch.logit(x) - mu).abs() * torch.exp(-log_b)


def relaxed(logits: Tensor, gumbel: Tensor, tau: Tensor | float) -> Tensor:
    """The Gumbel-softmax relaxation of a draw from the codes: logits and gumbel (B, V, h, w) -> weights that add up to 1.

    With tau -> 0 the weights become one-hot at the largest of logits + gumbel, an exact draw.
    """
    return ((logits + gumbel) / tau).softmax(1)


def kl_to_uniform(logits: Tensor) -> Tensor:
    """KL(q || uniform) in nats at each place: (B, V, h, w) -> (B, h, w), from 0 to ln V.

    q is the softmax of the encoder's logits, whatever the temperature of the relaxation (the author in openai/DALL-E#26).
    """
    log_q = logits.log_softmax(1)
    return math.log(logits.shape[1]) + (log_q.exp() * log_q).sum(1)


def falling(progress: Tensor, end: float, share: float) -> Tensor:
    """From 1 to `end` along half a cosine over the first `share` of the training, then `end`. progress: in [0, 1]."""
    return end + (1 - end) * 0.5 * (1 + torch.cos(math.pi * (progress / share).clamp(max=1)))


def perplexity(counts: Tensor) -> Tensor:
    """exp of the entropy of the codes' shares: counts (V,) -> from 1, one code, to V, all alike. 1 where nothing was counted."""
    return torch.special.entr(counts / counts.sum().clamp_min(1)).sum().exp()


class Conv(nn.Module):
    """A convolution that keeps the size, with the authors' names and start: weights `w` of variance 1 / inputs, biases `b` 0.

    exact: in full precision also under autocast, as the authors' where logits or one-hot codes pass.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, exact: bool = False) -> None:
        super().__init__()
        self.exact = exact
        weight = torch.empty(outputs, inputs, kernel, kernel).normal_(std=(inputs * kernel**2) ** -0.5)
        self.w = nn.Parameter(weight.contiguous(memory_format=CHANNELS_LAST))
        self.b = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        padding = self.w.shape[-1] // 2
        if not self.exact:
            return F.conv2d(x, self.w, self.b, padding=padding)
        with torch.autocast(x.device.type, enabled=False):
            return F.conv2d(x.to(self.w.dtype), self.w, self.b, padding=padding)


class Block(nn.Module):
    """x + 1 / layers^2 times four convolutions of these kernels, through a quarter of the width (authors' code)."""

    def __init__(self, inputs: int, outputs: int, layers: int, kernels: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.gain = 1 / layers**2
        self.id_path = Conv(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        widths = [inputs, *[outputs // 4] * 3, outputs]
        self.res_path = nn.Sequential()
        for index, kernel in enumerate(kernels):
            self.res_path.add_module(f"relu_{index + 1}", nn.ReLU(inplace=index > 0))  # the first one's input is needed
            self.res_path.add_module(f"conv_{index + 1}", Conv(widths[index], widths[index + 1], kernel))

    def forward(self, x: Tensor) -> Tensor:
        return torch.add(self.id_path(x), self.res_path(x), alpha=self.gain)


def _groups(
    first: int, widths: list[int], blocks: int, kernels: tuple[int, int, int, int], between: nn.Module, name: str
) -> dict[str, nn.Module]:
    """Groups of blocks of these widths, with `between` behind each but the last."""
    made: dict[str, nn.Module] = {}
    for index, width in enumerate(widths):
        group = nn.Sequential()
        for place in range(blocks):
            inputs = width if place else widths[index - 1] if index else first
            group.add_module(f"block_{place + 1}", Block(inputs, width, len(widths) * blocks, kernels))
        if index + 1 < len(widths):
            group.add_module(name, between)
        made[f"group_{index + 1}"] = group
    return made


def _named(layers: Mapping[str, nn.Module]) -> nn.Sequential:
    sequence = nn.Sequential()
    for name, layer in layers.items():
        sequence.add_module(name, layer)
    return sequence


class Encoder(nn.Module):
    """Mapped pixels (B, C, H, W) -> logits of the codes (B, V, H / 2^(groups - 1), W / 2^(groups - 1)).

    The layers, names and start of `dall_e.Encoder`, which has C = 3, hidden 256, 8192 codes, 4 groups and 2 blocks.
    Raises ValueError for a width that four does not divide.
    """

    def __init__(
        self, channels: int = 3, hidden: int = 256, codes: int = 8192, groups: int = 4, blocks: int = 2
    ) -> None:
        super().__init__()
        _refuse_width(hidden)
        widths = [hidden * 2**group for group in range(groups)]
        self.blocks = _named(
            {
                "input": Conv(channels, hidden, 7),
                **_groups(hidden, widths, blocks, (3, 3, 3, 1), nn.MaxPool2d(2), "pool"),
                "output": _named({"relu": nn.ReLU(), "conv": Conv(widths[-1], codes, 1, exact=True)}),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x.contiguous(memory_format=CHANNELS_LAST))


class Decoder(nn.Module):
    """Weights of the codes (B, V, h, w) -> mu and ln b of the logit-Laplace density of each pixel, (B, 2 C, H, W).

    The layers, names and start of `dall_e.Decoder`, whose `first`, the width behind the codes, is 128.
    """

    def __init__(
        self,
        channels: int = 3,
        hidden: int = 256,
        codes: int = 8192,
        groups: int = 4,
        blocks: int = 2,
        first: int = 128,
    ) -> None:
        super().__init__()
        _refuse_width(hidden)
        widths = [hidden * 2**group for group in reversed(range(groups))]
        self.blocks = _named(
            {
                "input": Conv(codes, first, 1, exact=True),
                **_groups(first, widths, blocks, (1, 3, 3, 3), nn.Upsample(scale_factor=2), "upsample"),
                "output": _named({"relu": nn.ReLU(), "conv": Conv(hidden, 2 * channels, 1)}),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x.contiguous(memory_format=CHANNELS_LAST))


def _refuse_width(hidden: int) -> None:
    if hidden % 4 or hidden < 4:
        raise ValueError(f"a width of {hidden} has no quarter")


class DVAE(nn.Module):
    """The discrete VAE with its loss. `loss({"image": (B, C, H, W) in [0, 1]})` gives the loss, its terms and the use of codes.

    size: H and W of the pictures; where the grid does not divide them, their last rows and columns are repeated.
    reconstruction: "laplace", the paper's, or "mse".  normalise: give the logits of each code mean 0 and standard
    deviation SPREAD over the batch (a batch norm without weights), so that no code can be left out for good.
    tau_end, tau_share: the temperature falls from 1 to tau_end over tau_share of the steps.  kl, kl_share: the weight of
    the KL rises from 0 to kl over kl_share.  epoch: pictures that the use of the codes is counted over.
    Raises ValueError for another reconstruction.
    """

    def __init__(
        self,
        size: tuple[int, int],
        channels: int = 3,
        hidden: int = 256,
        codes: int = 8192,
        groups: int = 4,
        blocks: int = 2,
        first: int = 128,
        reconstruction: str = "laplace",
        normalise: bool = False,
        tau_end: float = 1 / 16,
        tau_share: float = 0.05,
        kl: float = 6.6,
        kl_share: float = 1 / 600,
        epoch: int = 1,
    ) -> None:
        super().__init__()
        if reconstruction not in ("laplace", "mse"):
            raise ValueError(f"there is no reconstruction {reconstruction!r}, only laplace and mse")
        self.encoder = Encoder(channels, hidden, codes, groups, blocks)
        self.decoder = Decoder(channels, hidden, codes, groups, blocks, first)
        self.norm = BatchNorm(codes, affine=False) if normalise else None
        self.size, self.channels, self.codes, self.factor = size, channels, codes, 2 ** (groups - 1)
        self.grid = (math.ceil(size[0] / self.factor), math.ceil(size[1] / self.factor))
        self.reconstruction, self.epoch = reconstruction, epoch
        self.tau_end, self.tau_share, self.kl, self.kl_share = tau_end, tau_share, kl, kl_share
        self.register_buffer("progress", torch.zeros(()))
        self.register_buffer("counted", torch.zeros((), dtype=torch.int64))
        # two rows: of the epoch that goes on, and of the last one that is complete
        self.register_buffer("counts", torch.zeros(2, codes, dtype=torch.int64))

    def logits(self, images: Tensor) -> Tensor:
        """Pictures (B, C, H, W) in [0, 1] -> (B, V, h, w)."""
        # DIFF: any size; the authors' pictures are 256 x 256
        more = [self.factor * cells - side for cells, side in zip(self.grid, self.size, strict=True)]
        if any(more):
            images = F.pad(images, (0, more[1], 0, more[0]), mode="replicate")
        logits = self.encoder(map_pixels(images))
        return logits if self.norm is None else SPREAD * self.norm(logits)

    def statistics(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Weights of the codes (B, V, h, w) -> mu and ln b, (B, C, H, W) each."""
        mu, log_b = self.decoder(weights)[..., : self.size[0], : self.size[1]].chunk(2, 1)
        return mu, log_b

    def encode(self, images: Tensor) -> Tensor:
        """Pictures (B, C, H, W) in [0, 1] -> the most probable codes, int64 (B, h, w)."""
        return self.logits(images).argmax(1)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes int64 (B, h, w) -> pictures (B, C, H, W) in [0, 1]: the sigmoid of mu, whatever b (appendix A.3)."""
        return unmap_pixels(self.statistics(self._one_hot(codes))[0].sigmoid())

    def views(self, batch: Mapping[str, Tensor], draw: Any) -> dict[str, Tensor]:
        """The pictures, and Gumbel noise (B, V, h, w) that depends on the row of the global batch alone."""
        # a generator per row: noise for all rows of the global batch on every process would take gigabytes at full size
        seeds = draw.integers(0, 2**62).tolist()
        image = batch["image"]
        uniform = torch.empty(len(image), self.codes, *self.grid, device=image.device)
        for row, seed in zip(uniform, seeds, strict=True):
            row.uniform_(generator=torch.Generator(image.device).manual_seed(seed))
        return {"image": image, "gumbel": -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 2**-24)))}

    def loss(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Without "gumbel" in the batch the codes are the most probable ones, as in use."""
        image = batch["image"]
        logits = self.logits(image)
        tau = falling(self.progress, self.tau_end, self.tau_share)
        mu, log_b = (part.to(logits.dtype) for part in self.statistics(self._weights(logits, batch.get("gumbel"), tau)))
        if self.reconstruction == "mse":
            fit = ((mu.sigmoid() - map_pixels(image)) / (1 - 2 * MARGIN)).square().mean()
        else:
            fit = logit_laplace(map_pixels(image), mu, log_b).mean()
        # all of the loss is divided by the pixels, so that the weight of the mean KL is kl / 192 at the paper's size
        kl = kl_to_uniform(logits).mean()
        weight = self.kl * (self.progress / self.kl_share).clamp(max=1) * math.prod(self.grid)
        loss = fit + (weight / (self.channels * math.prod(self.size))).to(kl.dtype) * kl
        if self.training:
            self._count(logits.detach().argmax(1))
        return {"loss": loss, "reconstruction": fit.detach(), "kl": kl.detach(), "tau": tau, **self.figures()}

    @torch.no_grad()
    def _count(self, codes: Tensor) -> None:
        """Count the codes of a batch, of all processes; a new epoch begins where one is full."""
        full = self.counted >= self.epoch
        self.counts[1] = torch.where(full, self.counts[0], self.counts[1])
        self.counts[0] *= ~full
        self.counted.mul_(~full)
        ones = torch.ones_like(codes.flatten())
        self.counts[0] += all_sum(torch.zeros_like(self.counts[0]).scatter_add_(0, codes.flatten(), ones))
        self.counted.add_(all_sum(torch.full_like(self.counted, len(codes))))

    def figures(self) -> dict[str, Tensor]:
        """How many codes were in use over the last whole epoch, and their perplexity; over what was seen in the first."""
        counts = torch.where(self.counts[1].any(), self.counts[1], self.counts[0]).double()
        return {"codes_used": (counts > 0).sum().double(), "codebook_perplexity": perplexity(counts)}

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        self.progress.fill_(progress)

    def _weights(self, logits: Tensor, gumbel: Tensor | None, tau: Tensor) -> Tensor:
        if gumbel is None:
            return self._one_hot(logits.argmax(1))
        return relaxed(logits, gumbel.to(logits.dtype), tau.to(logits.dtype))

    def _one_hot(self, codes: Tensor) -> Tensor:
        return F.one_hot(codes, self.codes).movedim(-1, 1).to(self.decoder.blocks.input.w.dtype)
