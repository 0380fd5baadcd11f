"""Images as rows of patch embeddings."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F

from papertrial.core.errors import PapertrialError


class Patches(nn.Module):
    """Cut images into squares and map each linearly: `forward((B, C, H, W)) -> (B, N, width)`, row by row from the top left.

    count: N, the number of patches.  Raises PapertrialError when the patch does not divide both sides.
    """

    def __init__(self, channels: int, height: int, width: int, patch: int, out: int) -> None:
        super().__init__()
        if patch < 1 or height % patch or width % patch:
            fits = ", ".join(str(size) for size in divisors(height, width))
            raise PapertrialError(
                f"patches of {patch} pixels do not tile images of {height}x{width}", f"set patch to one of {fits}"
            )
        self.grid = (height // patch, width // patch)
        self.count = self.grid[0] * self.grid[1]
        self.size = (height, width)
        self.patch = patch
        self.project = nn.Conv2d(channels, out, kernel_size=patch, stride=patch)

    def forward(self, image: Tensor) -> Tensor:
        if tuple(image.shape[-2:]) != self.size:
            raise ValueError(f"built for images of {self.size}, got {tuple(image.shape[-2:])}")
        # as one product, which few images pass twice as fast as a convolution
        squares = image.unflatten(3, (-1, self.patch)).unflatten(2, (-1, self.patch)).permute(0, 2, 4, 1, 3, 5)
        return F.linear(squares.flatten(3).flatten(1, 2), self.project.weight.flatten(1), self.project.bias)


def divisors(height: int, width: int) -> list[int]:
    """Patch sizes that tile an image of height x width."""
    common = math.gcd(height, width)
    return [size for size in range(1, common + 1) if common % size == 0]


def suited_patch(height: int, width: int, tokens: int = 49) -> int | None:
    """The patch size that tiles the image into a number of patches nearest to `tokens` (on a log scale).

    None where the 16 pixels of the published models fit: sides of 112 and more that 16 divides.
    """
    if min(height, width) >= 112 and height % 16 == 0 and width % 16 == 0:
        return None
    return min(divisors(height, width), key=lambda size: abs(math.log(height * width / size**2 / tokens)))
