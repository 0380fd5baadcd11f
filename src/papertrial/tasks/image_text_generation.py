"""Draw pictures from captions that no training picture has.

Protocol, version 1
    Captions  Those of the data; pictures without one are left out. Of data with classes and no captions, the name of the class.
    Split     As in image_generation, but captions stay together like duplicates: no caption of a test picture is met in
              training. So a test caption is made of known words in a new combination ("waving hand: dark skin tone"), or has
              words that are new. Where a caption stands for a whole class (ten pictures or more share one on average) a new one
              could only be guessed at: then pictures are held out, and `held=captions` asks for captions all the same.
    Drawing   One picture for each test row from its caption, by the seeds 0, 1, ...
    Metrics   `caption_rank`, which verdicts speak of: the share of the test pictures with another caption that are farther
              from the drawn picture than the one its caption is of. Pictures that ignore their captions have 0.5, whatever they
              look like, and the best is 1. `caption_rank_new`: over the captions whose words are all known.
              A mean over all that fits a caption ranks well and looks like nothing, so beside it stand the Frechet
              distance, precision, recall and class accuracy of image_generation, in the same space of features.
    Floors    `random_picture` and `nearest_caption` hand out training pictures. Their Frechet distance is that of real
              pictures, which nothing drawn can beat: what they are a floor for is `caption_rank`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from papertrial.core.errors import DataError, PapertrialError
from papertrial.core.offers import offers
from papertrial.core.task import Prepared, Ragged, Scores, Split, Supports
from papertrial.core.wording import counted
from papertrial.tasks._image_quality import LEAST, Drawn, Measures, draw, picture_scores
from papertrial.tasks._metrics import Z, at_floor
from papertrial.tasks._split import require_fraction
from papertrial.tasks._texts import cut
from papertrial.tasks.image_generation import ImageGeneration, ready

HELD = ("auto", "captions", "images")
#: pictures that share a caption, on average, from which it stands for a class
_SHARED = 10
_WORD = re.compile(r"\w+|[^\w\s]")


class ImageTextGeneration(ImageGeneration):
    """The columns of image_generation and "text", the captions as UTF-8; the test rows also have "known" bool (N,), whether all
    words of the caption are met in training. A generator's `draw` takes captions."""

    name = "image_text_generation"
    references = ("pixel_transformer",)
    floors = ("nearest_caption", "random_picture")
    captions = True

    def primary_for(self, state: Mapping[str, Any]) -> tuple[str, bool]:
        return "caption_rank", True

    def supports(self, look: Any) -> Supports:
        if look.kind != self.kind:
            return Supports(False, f"it takes images, and {look.name} is {look.what}")
        captions, named = look.numbers["captions"], look.numbers["classes"] > 1
        described = captions or (look.numbers["labelled"] if named else 0)
        if not described:
            return Supports(False, "there are no captions, nor classes whose names could be captions")
        if described < LEAST:
            return Supports(False, f"{described} images have a caption, and it takes {LEAST} or more")
        return Supports(True)

    def prepare(
        self,
        data: Any,
        seed: int = 0,
        fraction: float = 1.0,
        size: int | tuple[int, int] | None = None,
        held: str = "auto",
    ) -> Prepared:
        """fraction, size: as in image_generation.  held: out for the test, whole `captions` or single `images`; `auto` says
        which by how many share one. Raises DataError for too few images, PapertrialError for an option out of range."""
        require_fraction(fraction)
        self.require(data, fix="give more images")
        if held not in HELD:
            raise PapertrialError(f"held is {held!r}", f"write it as held={' or held='.join(HELD)}")
        notes: list[str] = []
        named = data.captions is None
        texts = _captions(data)
        rows = np.flatnonzero([bool(text) for text in texts])
        texts = [texts[row] for row in rows.tolist()]
        if named:
            notes.append("there are no captions: the name of its class is the caption of an image")
        if len(rows) < len(data):
            notes.append(f"left out: {counted(len(data) - len(rows), 'image')} without a caption")
        groups, part = data.groups[rows], np.asarray(data.part)[rows]
        caption = np.unique(texts, return_inverse=True)[1]
        together = held == "captions" or (held == "auto" and len(texts) < _SHARED * (caption.max() + 1))
        if together:
            groups = _joined(groups, caption)
            part = _on_one_side(part, groups, notes)
        prepared = ready(data, part, groups, seed, float(fraction), size, notes, rows, Ragged.of_texts(texts))
        train = {
            word for row in (prepared.train, prepared.valid) for text in row["text"].texts() for word in _words(text)
        }
        test = prepared.test["text"].texts()
        known = np.array([train.issuperset(_words(text)) for text in test], dtype=bool)
        if together:
            said = f"the {len(set(test)):,} captions of the test images are met nowhere else; of {known.mean():.0%} all words are"
        else:
            said = "images are held out, and their captions are met in training too"
        return Prepared(
            prepared.train, prepared.valid, Split({**prepared.test, "known": known & together}), prepared.facts,
            {**prepared.state, "captions": "names" if named else "given"}, (*prepared.notes, said),
        )  # fmt: skip

    def encode(self, state: Mapping[str, Any], data: Any) -> Split:
        """As image_generation, with the captions of the data or the names of its classes; images without one are left out."""
        texts = _captions(data)
        rows = np.flatnonzero([bool(text) for text in texts])
        if not len(rows):
            raise DataError(f"{data.name} has no captions", "give images with captions, or in a folder for each class")
        split = super().encode(state, data).take(rows)
        return Split({**split, "text": Ragged.of_texts([texts[row] for row in rows.tolist()]), "row": rows})

    def cut(self, model: Any, split: Split) -> list[str]:
        return cut(model, {"caption": split["text"]}) if "captions" in offers(model).draws else []

    def outputs(self, model: Any, head: Mapping[str, np.ndarray], split: Split) -> np.ndarray:
        """A picture for each row, `Drawn` uint8 (N, H, W, C)."""
        captions = {"captions": split["text"].texts()} if "captions" in offers(model).draws else {}
        return Drawn.of(draw(model, range(split.examples), **captions), np.asarray(split["label"]))

    def score(self, outputs: np.ndarray, split: Split, state: Mapping[str, Any]) -> Scores:
        """Raises PapertrialError where the networks that measure the pictures of this data are gone."""
        measures, real = Measures.find(state["measures"]), np.asarray(split["image"])
        pictures = picture_scores(outputs, real, measures)
        caption = np.unique(split["text"].texts(), return_inverse=True)[1]
        if caption.max() == 0:
            raise DataError("all test images have the same caption", "give images with other captions")
        ranks = caption_ranks(measures.space.features(outputs), measures.space.features(real), caption)
        metrics, intervals = {"caption_rank": float(ranks.mean())}, {"caption_rank": _interval(ranks)}
        known = np.asarray(split["known"]) if "known" in split else np.zeros(len(ranks), dtype=bool)
        if known.sum() >= LEAST:
            name = "caption_rank_new"
            metrics[name], intervals[name] = float(ranks[known].mean()), _interval(ranks[known])
        floors = dict.fromkeys(metrics, 0.5)  # where the captions play no part
        remarks = (*at_floor("caption_rank", metrics, intervals, floors), *pictures.remarks)
        return Scores(
            {**metrics, **pictures.metrics}, ranks, {**intervals, **pictures.intervals}, {**floors, **pictures.floors},
            remarks=remarks,
        )  # fmt: skip


TASK = ImageTextGeneration()


def caption_ranks(drawn: np.ndarray, real: np.ndarray, caption: np.ndarray) -> np.ndarray:
    """For each drawn row the share of the real rows of other captions that are farther from it than the real row it stands for,
    half of those that are as far: float64 (N,), of which the mean is 0.5 where the captions played no part.

    drawn, real: features (N, D).  caption: int64 (N,), equal for the same caption.
    """
    found = np.empty(len(drawn))
    for row, features in enumerate(np.asarray(drawn, dtype=np.float64)):
        apart = np.square(real - features).sum(1)
        others = apart[caption != caption[row]]
        found[row] = ((others > apart[row]) + 0.5 * (others == apart[row])).mean()
    return found


def _interval(values: np.ndarray) -> tuple[float, float]:
    mean, half = values.mean(), Z * values.std(ddof=1) / np.sqrt(len(values))
    return float(max(mean - half, 0.0)), float(min(mean + half, 1.0))


def _captions(data: Any) -> list[str]:
    """One for each image, "" for none."""
    if data.captions is not None:
        return list(data.captions)
    names = [*map(str, data.class_names), ""]  # -1 is no class
    return [names[label] for label in np.asarray(data.labels).tolist()]


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))


def _joined(groups: np.ndarray, caption: np.ndarray) -> np.ndarray:
    """Groups int64 (N,) of rows that a chain of equal groups and equal captions links."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    count = int(groups.max()) + 1
    size = count + int(caption.max()) + 1
    links = coo_matrix((np.ones(len(groups), dtype=bool), (groups, count + caption)), (size, size))
    return connected_components(links, directed=False)[1][groups].astype(np.int64)


def _on_one_side(part: np.ndarray, groups: np.ndarray, notes: list[str]) -> np.ndarray:
    """A split that came with the data, int8 (N,), with each group on its earliest side; dropped where no test row remains."""
    earliest = np.full(int(groups.max()) + 1, 2, dtype=part.dtype)
    np.minimum.at(earliest, groups, part)
    moved = earliest[groups]
    count = int((moved != part).sum())
    if count and (part == 2).any() and not (moved == 2).any():
        notes.append("every caption of the given test images is met in training: the given split is not used")
        return np.zeros_like(part)
    if count:
        notes.append(f"moved to training: {counted(count, 'image')} whose caption is met there")
    return moved
