"""What the inputs of an exported model of images mean, and rows to compare it on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def meanings(state: Mapping[str, Any], facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """See `Kind.meanings`."""
    low, high = state["low"], state["high"]
    scale = "pixel / 255" if state["bytes"] else f"(pixel - {low:g}) / {high - low:g}, cut to [0, 1]"
    shape = [facts["channels"], facts["height"], facts["width"]]
    if facts["height"] != state["height"]:  # a network that reads photographs from their files
        scale += f", the centre of a photograph whose shorter side is scaled to {facts['height'] * 8 // 7} pixels"
    return [{"name": "image", "dtype": "float32", "shape": shape, "meaning": scale}]


def made_up(facts: Mapping[str, Any], rows: int) -> dict[str, np.ndarray]:
    """Pixels at random."""
    shape = (rows, facts["height"], facts["width"], facts["channels"])
    return {"image": np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)}
