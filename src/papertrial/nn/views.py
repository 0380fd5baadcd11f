"""Augmentations of image batches, vectorised: every example gets its own random numbers, on the device of the batch.

Images are float (B, C, H, W) in [0, 1], and stay so. `Draw` hands out the random numbers.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

#: ITU-R BT.601 luma, the grey of most image libraries
LUMA = (0.299, 0.587, 0.114)


class Draw:
    """Random numbers for one step that depend on (seed, step) and the row of the global batch, not on the number of ranks.

    Numbers are drawn for all `total` rows of the global batch, and this rank keeps `count` of them from `start` on
    (default: all). They are drawn on the CPU, so that a GPU sees the same ones. Every method returns (count, *shape).
    """

    def __init__(
        self,
        seed: int,
        step: int,
        total: int,
        start: int = 0,
        count: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.total, self.start, self.device = total, start, torch.device(device)
        self.count = total - start if count is None else count
        if start < 0 or self.count < 0 or start + self.count > total:
            raise ValueError(f"rows {start} to {start + self.count} are not within a global batch of {total}")
        state = np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0]
        self._generator = torch.Generator().manual_seed(int(state >> np.uint64(1)))

    def _mine(self, numbers: Tensor) -> Tensor:
        return numbers[self.start : self.start + self.count].to(self.device)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """float32 in [low, high)."""
        return self._mine(torch.rand(self.total, *shape, generator=self._generator)) * (high - low) + low

    def normal(self, *shape: int) -> Tensor:
        """float32, standard normal."""
        return self._mine(torch.randn(self.total, *shape, generator=self._generator))

    def bernoulli(self, p: float, *shape: int) -> Tensor:
        """bool, true with probability p."""
        return self.uniform(*shape) < p

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """int64 from low to high, both included."""
        return self._mine(torch.randint(low, high + 1, (self.total, *shape), generator=self._generator))


def _each(numbers: Tensor) -> Tensor:
    """(B,) as (B, 1, 1, 1)."""
    return numbers.view(-1, 1, 1, 1)


def random_resized_crop(
    images: Tensor, draw: Draw, scale: tuple[float, float] = (0.08, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3)
) -> Tensor:
    """Cut a window of random area and aspect out of each image and scale it back to the full size (bilinear).

    scale: share of the area.  ratio: width over height, drawn on a log scale. A window that is too long on one side is
    cut to the image, where torchvision draws again.
    """
    area = draw.uniform(low=scale[0], high=scale[1])
    aspect = draw.uniform(low=math.log(ratio[0]), high=math.log(ratio[1])).exp() * images.shape[-2] / images.shape[-1]
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    across, down = draw.uniform(low=-1), draw.uniform(low=-1)
    zero = torch.zeros_like(width)
    rows = [torch.stack([width, zero, across * (1 - width)], 1), torch.stack([zero, height, down * (1 - height)], 1)]
    grid = F.affine_grid(torch.stack(rows, 1).to(images.dtype), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False).clamp(0, 1)


def shift(images: Tensor, draw: Draw, pixels: int) -> Tensor:
    """Move each image by up to `pixels` in both directions; what comes in is mirrored at the edge."""
    height, width = images.shape[-2:]
    pixels = min(pixels, height - 1, width - 1)
    offsets = draw.integers(-pixels, pixels, 2)
    rows = _mirror(torch.arange(height, device=images.device) + offsets[:, :1], height)
    columns = _mirror(torch.arange(width, device=images.device) + offsets[:, 1:], width)
    batch = torch.arange(len(images), device=images.device)
    channels = torch.arange(images.shape[1], device=images.device)
    return images[_each(batch), channels[None, :, None, None], rows[:, None, :, None], columns[:, None, None, :]]


def _mirror(index: Tensor, size: int) -> Tensor:
    return size - 1 - (size - 1 - index.abs()).abs()


def flip(images: Tensor, draw: Draw, p: float = 0.5) -> Tensor:
    """Mirror left and right with probability p."""
    return torch.where(_each(draw.bernoulli(p)), images.flip(-1), images)


def luma(images: Tensor) -> Tensor:
    """(B, 1, H, W): brightness of RGB images, the mean over channels of others."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    return (images * images.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)


def greyscale(images: Tensor, draw: Draw, p: float = 0.2) -> Tensor:
    """Replace all channels by the luma with probability p."""
    return torch.where(_each(draw.bernoulli(p)), luma(images).expand_as(images), images)


def colour_jitter(
    images: Tensor,
    draw: Draw,
    brightness: float = 0.4,
    contrast: float = 0.4,
    saturation: float = 0.2,
    hue: float = 0.1,
    p: float = 0.8,
) -> Tensor:
    """Change brightness, contrast, saturation (factors 1 +- x) and hue (turns +- x) in this order, with probability p.

    Saturation and hue need RGB and are left out for other numbers of channels. torchvision draws the order of the
    four per image.
    """
    strengths = [draw.uniform(low=max(0.0, 1 - x), high=1 + x) for x in (brightness, contrast, saturation)]
    bright, strong, vivid = (_each(strength).to(images.dtype) for strength in strengths)
    turn, chosen = _each(draw.uniform(low=-hue, high=hue)).to(images.dtype), _each(draw.bernoulli(p))
    out = (images * bright).clamp(0, 1)
    out = torch.lerp(luma(out).mean((2, 3), keepdim=True), out, strong).clamp(0, 1)
    if images.shape[1] == 3:
        out = torch.lerp(luma(out), out, vivid).clamp(0, 1)
        out = turn_hue(out, turn)
    return torch.where(chosen, out, images)


def turn_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Rotate the hue of RGB images (B, 3, H, W) by `turns` (B, 1, 1, 1), in whole turns; value and saturation of HSV stay."""
    value, brightest = images.max(1, keepdim=True)
    chroma = value - images.min(1, keepdim=True).values
    red, green, blue = images.split(1, 1)
    safe = torch.where(chroma > 0, chroma, torch.ones_like(chroma))
    sector = torch.where(
        brightest == 0,
        (green - blue) / safe,
        torch.where(brightest == 1, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue = sector / 6 + turns
    # each channel is a trapezoid of the hue, the three a third of a turn apart
    place = (images.new_tensor([5.0, 3.0, 1.0]).view(1, 3, 1, 1) + 6 * hue) % 6
    return value - chroma * torch.minimum(place, 4 - place).clamp(0, 1)


def gaussian_blur(images: Tensor, draw: Draw, p: float = 0.5, sigma: tuple[float, float] = (0.1, 2.0)) -> Tensor:
    """Blur with a width of its own per image (in pixels), with probability p; the kernel is renormalised at the edge."""
    width, chosen = draw.uniform(low=sigma[0], high=sigma[1]), draw.bernoulli(p)
    down, across = (_blur_matrix(size, width).to(images.dtype).unsqueeze(1) for size in images.shape[-2:])
    return torch.where(_each(chosen), (down @ images @ across.transpose(-1, -2)).clamp(0, 1), images)


def _blur_matrix(size: int, sigma: Tensor) -> Tensor:
    """(B, size, size), rows sum to one: a one-dimensional Gaussian blur as a product."""
    place = torch.arange(size, device=sigma.device, dtype=sigma.dtype)
    distance = (place[:, None] - place[None, :]) / sigma.view(-1, 1, 1)
    return torch.softmax(-distance.square() / 2, -1)


def solarise(images: Tensor, draw: Draw, p: float = 0.2, threshold: float = 0.5) -> Tensor:
    """Invert what is at or above the threshold, with probability p."""
    return torch.where(_each(draw.bernoulli(p)) & (images >= threshold), 1 - images, images)
