"""Draw new images like those of the data, of a class that is asked for where there are classes.

Protocol, version 1
    Split     The test rows are those given, or a fifth, the same for every seed; of more than 2,000, that many, spread evenly.
              The validation rows are those given, or a tenth of the rest, drawn by the seed, 500 at most.
    Drawing   One picture for each test row, by the seeds 0, 1, ... A generator that takes classes is asked for the class of
              the row.
    Space     Pictures are compared as 64 features of a small classifier, trained on all rows that are not held out for the
              test, the same for every method and seed. Without labels enough for one they are features of random convolutions,
              which see texture and strokes but know no classes. Photographs (colour, 32 pixels or more, few equal neighbours) are
              compared in directions of what EfficientNet-Lite0 sees, which knows ImageNet, where the extra `vision` is there.
              A note of each run says which.
    Metrics   The Frechet distance, with an interval over drawn and test pictures; precision and recall with 3 neighbours;
              how often another classifier finds the class that was asked for. The influence of a test row on the distance
              pairs two generators.
    Floor     Few pictures are at a distance from their like: the figures `real_...` are those of training images in the place
              of drawn ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from papertrial.core.budget import Budget
from papertrial.core.errors import Declined, PapertrialError
from papertrial.core.facts import Facts
from papertrial.core.offers import offers
from papertrial.core.task import Prepared, Ragged, Scores, Split, Supports
from papertrial.data.base import fingerprint
from papertrial.data.images import alike
from papertrial.tasks import _photo_space
from papertrial.tasks._common import Common, known_labels, through
from papertrial.tasks._image_quality import (
    LEAST,
    Drawn,
    Measures,
    draw,
    grid,
    parts,
    picture_scores,
    real_scores,
    shown,
)
from papertrial.tasks._images import Rows, as_trained, other_range, pixel_state, working_size
from papertrial.tasks._split import require_fraction

#: what measures pictures, as a file of the artifact
MEASURES = "measures.safetensors"


class ImageGeneration(Common):
    """The columns "image" uint8 (N, H, W, C) and "label" int64 (N,), -1 = none. A generator is what has `draw`, see there."""

    name = "image_generation"
    version = 1
    kind = "images"
    inputs = ("image",)
    references: tuple[str, ...] = ("gan",)
    floors: tuple[str, ...] = ("pixel_gaussian",)
    budget = Budget(seconds=300)
    judged_without_labels = True
    trains_without_labels = True

    def primary_for(self, state: Mapping[str, Any]) -> tuple[str, bool]:
        return "frechet", False

    def supports(self, look: Any) -> Supports:
        if look.kind != self.kind:
            return Supports(False, f"it takes images, and {look.name} is {look.what}")
        if look.numbers["examples"] < LEAST:
            return Supports(False, f"there are {look.numbers['examples']} images, and it takes {LEAST} or more")
        return Supports(True)

    def prepare(
        self, data: Any, seed: int = 0, fraction: float = 1.0, size: int | tuple[int, int] | None = None
    ) -> Prepared:
        """fraction: share of the training images that is used.  size: side of the images in pixels, or (height, width).

        The first time, what measures the pictures is trained, which takes seconds. Raises DataError for too few images,
        PapertrialError for an option out of range.
        """
        require_fraction(fraction)
        self.require(data, fix="give more images")
        return ready(data, np.asarray(data.part), data.groups, seed, float(fraction), size, [])

    def encode(self, state: Mapping[str, Any], data: Any) -> Split:
        """New images at the size and with the channels of the model, with labels where it knows their class and -1
        elsewhere. Raises DataError when the channels cannot be converted."""
        pixels = data.pixels(state["height"], state["width"], state["channels"])
        if told := other_range(pixels, state):
            data.note(told)
        return Split({"image": _as_bytes(pixels, state), "label": known_labels(state, data)})

    def build(self, method: Any, config: Any, optim: Any, prepared: Prepared, backbone: nn.Module | None = None) -> Any:
        """Raises Declined when the method is not for this task, or what it makes draws nothing."""
        self.require_made_for(method)
        model = method.module.build(config, prepared.facts)
        if offers(model).draw is None:
            raise Declined(f"{method.id} as it is set here draws nothing")
        return model

    def training(self, model: Any, prepared: Prepared) -> Split:
        takes = offers(model).fit_inputs
        if takes:  # a palette, a vocabulary
            takes(prepared.train)
        return prepared.train

    def outputs(self, model: Any, head: Mapping[str, np.ndarray], split: Split) -> np.ndarray:
        """A picture for each row, `Drawn` uint8 (N, H, W, C)."""
        asked = np.asarray(split["label"]) if "labels" in offers(model).draws else None
        return Drawn.of(draw(model, range(split.examples), labels=asked), asked)

    def embed(self, model: Any, split: Split) -> np.ndarray:
        """(N, width) float32. Raises Declined for a generator without an encoder."""
        if offers(model).encoder is None:
            raise Declined("this generator draws pictures and has no features of them to give")
        return through(model, model.encoder, {"image": split["image"]})

    def score(self, outputs: np.ndarray, split: Split, state: Mapping[str, Any]) -> Scores:
        """Raises PapertrialError where the networks that measure the pictures of this data are gone."""
        return picture_scores(outputs, np.asarray(split["image"]), Measures.find(state["measures"]))

    def extra_scores(self, model: Any, prepared: Prepared, seed: int) -> dict[str, float]:
        own = offers(model).figures  # the use of a codebook
        return {**real_scores(prepared, Measures.find(prepared.state["measures"])), **(own() if own else {})}

    def sheets(self, outputs: np.ndarray, split: Split) -> dict[str, np.ndarray]:
        """Drawn pictures and the test pictures that they stand for, side by side: uint8 (H, W, C) by file name."""
        rows, across = shown(np.asarray(split["label"]))
        return {"drawn.png": grid(outputs[rows], across), "test.png": grid(np.asarray(split["image"][rows]), across)}

    def keep(self, state: Mapping[str, Any], folder: Path) -> None:
        Measures.find(state["measures"]).write(folder / MEASURES)

    def recall(self, state: Mapping[str, Any], folder: Path) -> None:
        with suppress(PapertrialError):  # `score` says it
            Measures.find(state["measures"], folder / MEASURES)

    def answers(self, outputs: np.ndarray, state: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Raises Declined: a generator answers nothing."""
        raise Declined(
            "a generator gives no answer for each example", "papertrial generate draws pictures, evaluate judges them"
        )


TASK = ImageGeneration()


def ready(
    data: Any,
    part: np.ndarray,
    groups: np.ndarray,
    seed: int,
    fraction: float,
    size: int | tuple[int, int] | None,
    notes: list[str],
    rows: np.ndarray | None = None,
    texts: Ragged | None = None,
) -> Prepared:
    """Pictures split, with what measures them.

    rows: ascending, the pictures that are used; all where not given.  part, groups, texts: of these, as `parts` takes them;
    texts become the column "text".  notes: what is known already; lines are added.
    """
    rows = np.arange(len(part)) if rows is None else rows
    train, valid, test, known = parts(part, groups, seed, fraction, notes)
    pixels = data.pixels(*working_size(size))
    state = pixel_state(pixels, rows[known], data)
    pixels = _as_bytes(pixels, state)
    label = np.asarray(data.labels, dtype=np.int64)[rows]
    seen = Rows(pixels, rows[known])
    named = (alike.NAME,) if _photo_space.suits(seen) else ()
    key = fingerprint(data.fingerprint, *pixels.shape, rows[known], *named)
    measures = Measures.of(seen, label[known], key)
    better = "" if named or not alike.photographs(seen) else f"; for photographs type: {_photo_space.INSTALL}"
    notes.append(f"measured in {measures.space.words}{better}")
    labelled = int((label[train] >= 0).sum())
    classes = len(state["class_names"]) if labelled and len(state["class_names"]) > 1 else 0
    lengths = np.zeros(1) if texts is None else texts[train].lengths
    facts = Facts(
        "images", len(train), labelled if classes else 0, state["channels"], state["height"], state["width"],
        classes=classes, outputs=classes, bytes=int(lengths.sum()), length=int(np.quantile(lengths, 0.95)),
        captions=texts is not None,
    )  # fmt: skip

    def split(index: np.ndarray) -> Split:
        columns = {"image": Rows(pixels, rows[index]), "label": label[index]}
        return Split(columns if texts is None else {**columns, "text": texts[index]})

    choosing, judged = (split(index).grouped(groups[index]) for index in (valid, test))
    return Prepared(split(train), choosing, judged, facts, {**state, "measures": key}, tuple(notes))


def _as_bytes(pixels: np.ndarray, state: Mapping[str, Any]) -> np.ndarray:
    """Pictures are drawn in 256 steps, so they are learned and measured in these, whatever the data came in."""
    held = as_trained(pixels, state)
    return held if held.dtype == np.uint8 else (255 * held).round().astype(np.uint8)
