"""What methods are told about the data: a few numbers that `auto` rules, `supports` and `build` read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Facts:
    """Facts of a prepared data set. Zero or empty: not there or not known.

    kind: of the data, by the name of its `Kind`.  examples: training examples; labelled: how many of them carry a target.
    channels, height, width: of the images as the model sees them.  numeric: number of numeric columns.
    cardinalities: categories seen in training per categorical column (code `cardinality` means unseen).
    classes: number of classes, 0 for regression or without labels.  outputs: width of a supervised model's last layer.
    bytes: of all training texts; length: bytes of a text that 19 of 20 do not exceed.  causal: whether a position may see
    only those before it, as in language modelling.  metric: what answers are judged by, where it is not the usual metric of the
    task; what tunes itself tunes by it.  more: numbers that only some kinds have, such as frames of a video.
    """

    kind: str
    examples: int
    labelled: int = 0
    channels: int = 0
    height: int = 0
    width: int = 0
    numeric: int = 0
    cardinalities: tuple[int, ...] = ()
    classes: int = 0
    outputs: int = 0
    bytes: int = 0
    length: int = 0
    causal: bool = False
    writes: bool = False
    captions: bool = False
    metric: str = ""
    more: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Facts:
        return cls(**{**content, "cardinalities": tuple(content.get("cardinalities", ()))})
