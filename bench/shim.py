"""torchvision beside a torch without CUDA.

Its wheel brings operators compiled for CUDA, which do not load there; and its import then fails, because it registers the
shapes of operators that nobody has declared. `install` declares them, so that timm, lightly and others, which import
torchvision for parts that no row uses, can be imported. The operators stay without a body: to call one is an error.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

#: those that torchvision 0.28 registers shapes for without asking whether they exist
_DECLARED = ("nms", "qnms")
_library: list[torch.library.Library] = []  # a declaration lives as long as its library


def install() -> None:
    """Call it before anything imports torchvision; does nothing where torchvision is absent or loads by itself."""
    found = importlib.util.find_spec("torchvision")
    if _library or found is None or found.origin is None or _loads(Path(found.origin).parent):
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in _DECLARED:
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _library.append(library)


def _loads(folder: Path) -> bool:
    try:
        for compiled in folder.glob("_C*"):
            torch.ops.load_library(compiled)
    except OSError:
        return False
    return hasattr(torch.ops.torchvision, "nms")
