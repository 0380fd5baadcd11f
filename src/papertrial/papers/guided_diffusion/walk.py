"""A drawing on its way: one step back with each sampler, the noise of each row, and the images that a cascade hands on.

Notation
    x_t and its noise (B, C, H, W) in the units of [-1, 1], t int64 (B,), a place in the tables of the chain.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from papertrial.core.errors import PapertrialError
from papertrial.papers.guided_diffusion.chain import Predicted, Process, at


def ancestral_step(
    process: Process, found: Predicted, xt: Tensor, t: Tensor, noise: Tensor, gradient: Tensor | None = None
) -> Tensor:
    """x_{t-1} of DDPM. gradient: s grad log p(y | x_t), which moves the mean by the variance (algorithm 1)."""
    mean = found.mean if gradient is None else found.mean + found.log_variance.exp() * gradient
    return mean + (t > 0).view(-1, 1, 1, 1) * (0.5 * found.log_variance).exp() * noise


def ddim_step(
    process: Process,
    found: Predicted,
    xt: Tensor,
    t: Tensor,
    noise: Tensor,
    gradient: Tensor | None = None,
    eta: float = 0.0,
) -> Tensor:
    """x_{t-1} of DDIM, with `eta` of DDPM's noise. gradient: s grad log p(y | x_t), which is taken off the noise (algorithm 2)."""
    x0 = found.x0
    guess = process.noise_of(xt, t, x0)
    if gradient is not None:
        guess = guess - at((1 - process.alpha_bar).sqrt(), t, xt) * gradient
        x0 = process.x0_of(xt, t, guess)
    kept, before = at(process.alpha_bar, t, xt), at(process.before, t, xt)
    spread = eta * ((1 - before) / (1 - kept) * (1 - kept / before)).sqrt()
    mean = before.sqrt() * x0 + (1 - before - spread.square()).clamp_min(0).sqrt() * guess
    return mean + (t > 0).view(-1, 1, 1, 1) * spread * noise


def as_bytes(x: Tensor, guidance: float = 0.0) -> Tensor:
    """[-1, 1] -> uint8. DIFF: rounded, where the authors cut off. Raises PapertrialError for what is not finite, which would
    be black."""
    if not bool(x.isfinite().all()):
        raise PapertrialError(
            "what is drawn is not numbers any more" + (f" at a guidance of {guidance:g}" if guidance else ""),
            "the authors guide by 0.5 to 10" if guidance else "its training may have diverged; train it again",
        )
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def low_size(low: int, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a cascade's first images, `low` on the longer side."""
    height, width = (max(1, round(side * low / max(size))) for side in size)
    return height, width


class Noise:
    """Numbers that each row draws from a generator of its own, on the CPU, so that no row depends on the others."""

    def __init__(self, seeds: Sequence[int], shape: tuple[int, ...], like: Tensor) -> None:
        self.shape, self.like = shape, like
        self.generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]

    def __call__(self) -> Tensor:
        """(n, *shape), standard normal."""
        return torch.stack([torch.randn(self.shape, generator=each) for each in self.generators]).to(self.like)

    def integers(self, high: int) -> Tensor:
        """int64 (n,) from 0 to high - 1."""
        return torch.cat([torch.randint(high, (1,), generator=each) for each in self.generators])


def sampler_step(name: str, eta: float) -> Callable[..., Tensor]:
    if name == "ddpm":
        return ancestral_step
    if name != "ddim" or not 0 <= eta <= 1:
        raise PapertrialError(
            f"the sampler {name!r} with eta {eta} is not known",
            "choose sampler=ddpm, or sampler=ddim with eta from 0 to 1",
        )
    return functools.partial(ddim_step, eta=eta)


def shrunk(image: Tensor, size: tuple[int, int]) -> Tensor:
    """What a cascade's first model draws of an image: means over areas (authors' code)."""
    return F.interpolate(image, size, mode="area")


def enlarged(image: Tensor, size: tuple[int, int]) -> Tensor:
    """How an upsampler is shown it (authors' code)."""
    return F.interpolate(image, size, mode="bilinear", align_corners=False)
