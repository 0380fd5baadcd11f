"""The image tasks: one implementation, which differs between tasks in how many labels are revealed.

Protocol, version 1
    Split       The test rows are those given, or a fifth of the labelled rows of each class, the same for every seed.
                The validation rows are those given, or a tenth of the rest, drawn by the seed.
    Labels      Of each class `labels` training rows keep their label, drawn by the seed, and no more of them are used for
                validation (but for duplicates, which stay together): no method may choose with labels that the user is said not to have.
    Supervised  Architectures are trained on the labelled rows alone, all with the same augmentation (shifts; mirror
                images for colour photographs only, since a mirrored digit is another sign), and judged by their own head.
    Photographs Networks see images at the working size. A column "photo" holds those whose files are larger at 256 pixels, decoded
                when they are read: what a network that was trained on such photographs elsewhere looks at.
    Probe       Objectives may learn from all training rows without labels. They are judged by a logistic regression
                (L2, C = 1) on frozen features, standardised on the labelled rows it is fitted to.
    Metric      Accuracy; average precision where the rarer of two classes has less than a tenth of the labels, macro F1 where
                one of more has three quarters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from papertrial.core.budget import Budget
from papertrial.core.errors import DataError, Declined, PapertrialError
from papertrial.core.facts import Facts
from papertrial.core.offers import offers
from papertrial.core.task import Prepared, Scores, Split, Supports
from papertrial.data.images.arrays import usual_range, value_range
from papertrial.nn.heads import Supervised
from papertrial.nn.views import Draw, flip, shift
from papertrial.tasks._choosing import ACCURACY, for_classes, unusual
from papertrial.tasks._common import Common, encoder_of, estimated, finite, known_labels, objective, through
from papertrial.tasks._metrics import classification_scores, groups_of, primary
from papertrial.tasks._probe import fit_probe, nearest, probe_outputs, softmax
from papertrial.tasks._split import at_least_one, pick, require_fraction, revealed_per_class, split_rows

#: most training rows that k-NN and the probes of `extra_scores` look at
BANK = 10_000
_CHUNK = 512
#: side of what the column "photo" holds
PHOTO = 256


class Rows:
    """Some rows of an array, which may be memory-mapped, copied only when asked for. Reads like an array."""

    def __init__(self, array: np.ndarray, rows: np.ndarray) -> None:
        self.array, self.rows = array, rows
        self.shape, self.dtype, self.ndim = (len(rows), *array.shape[1:]), array.dtype, array.ndim

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.array[self.rows[index]]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.array[self.rows], dtype=dtype)


class Photos:
    """Images that their files hold larger than they are trained on, decoded when they are read: `read() -> uint8 (N, side, side, C)`,
    the shorter side scaled to `side` and the centre cut out. Indexing takes rows and decodes nothing."""

    def __init__(self, data: Any, rows: np.ndarray, side: int, channels: int) -> None:
        self.data, self.rows = data, rows
        self.shape, self.dtype, self.ndim = (len(rows), side, side, channels), np.dtype(np.uint8), 4

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Photos:
        return Photos(self.data, np.atleast_1d(self.rows[index]), self.shape[1], self.shape[3])

    def keys(self) -> list[str]:
        return self.data.keys(self.rows)

    def read(self) -> np.ndarray:
        return self.data.fresh(self.rows, *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.read(), dtype=dtype)


class Normalized(nn.Module):
    """A backbone whose first step takes the channel mean off its images and divides by the channel standard deviation.

    Part of the model, so that an exported one takes images in [0, 1]. Those of a backbone with a scale of its own stay as they are.
    mean, std: one number per channel, of the training images in [0, 1].  Is itself a backbone: `width`,
    `forward((B, C, H, W)) -> (B, width)`, and `tokens`, `make_head`, `no_decay` where the inner one has them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Any, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.backbone = backbone
        self.width = int(backbone.width)
        if offers(backbone).own_scale:
            mean, std = [0.0] * len(mean), [1.0] * len(std)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).clamp_min(1e-6).view(1, -1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        return self.backbone((image - self.mean) / self.std)

    def tokens(self, image: Tensor) -> Tensor:
        """(B, N, width); raises AttributeError when the backbone has no tokens."""
        tokens: Tensor = self.backbone.tokens((image - self.mean) / self.std)
        return tokens

    def make_head(self, outputs: int) -> nn.Module:
        make = offers(self.backbone).make_head
        return make(outputs) if make else nn.Linear(self.width, outputs)

    def no_decay(self) -> set[str]:
        return offers(self.backbone).exempt("backbone")


class SupervisedImages(Supervised):
    """A supervised image model with the augmentation that all of them share."""

    def __init__(self, backbone: nn.Module, outputs: int, flips: bool, label_smoothing: float = 0.0) -> None:
        super().__init__(backbone, outputs, "classes", ("image",), label_smoothing)
        self.flips = flips

    def views(self, batch: Mapping[str, Tensor], draw: Draw) -> dict[str, Tensor]:
        image = batch["image"]
        image = shift(image, draw, max(1, min(image.shape[-2:]) // 12))
        return {**batch, "image": flip(image, draw) if self.flips else image}


class ImageTask(Common):
    """What `image_classification` and `image_representation` share. `labels`: per class, None for all."""

    version = 1
    kind = "images"
    inputs = ("image",)
    floors = ("untrained", "majority")
    budget = Budget(seconds=60)
    bank = BANK

    def __init__(self, name: str, references: tuple[str, ...], labels: int | None, needs_labels: bool) -> None:
        self.name, self.references, self.labels, self.needs_labels = name, references, labels, needs_labels

    def primary_for(self, state: Mapping[str, Any]) -> tuple[str, bool]:
        metric = primary(state, "accuracy")
        return metric.name, metric.higher

    def supports(self, look: Any) -> Supports:
        if look.kind != self.kind:
            return Supports(False, f"it takes images, and {look.name} is {look.what}")
        if look.numbers.get("labelled", 0) == 0:
            return Supports(not self.needs_labels, "there are no labels" if self.needs_labels else "")
        if look.numbers.get("classes", 2) < 2:
            return Supports(False, "all labels are the same class")
        return Supports(True)

    def prepare(
        self,
        data: Any,
        seed: int = 0,
        labels: int | str | None = None,
        fraction: float = 1.0,
        size: int | tuple[int, int] | None = None,
        metric: str | None = None,
    ) -> Prepared:
        """labels: how many per class are revealed, or "all".  fraction: share of the
        training rows that is used, or of the labels a class where only some are revealed.
        size: side of the images in pixels, or (height, width).  metric: what is judged by, in place of what the data call for.

        Without any labels everything is for training, and valid and test are empty. Raises DataError for a single class,
        or too few labels to hold some out, PapertrialError for an option out of range.
        """
        revealed = revealed_per_class(labels, self.labels)
        require_fraction(fraction)
        if revealed is not None and fraction < 1:  # where labels are what is scarce, a fraction is one of labels
            revealed, fraction = max(1, round(revealed * float(fraction))), 1.0
        target = np.asarray(data.labels, dtype=np.int64)
        notes: list[str] = []
        train, valid, test = split_rows(
            target,
            np.asarray(data.part),
            data.groups,
            seed,
            revealed,
            float(fraction),
            notes,
            "images",
            self.needs_labels,
        )
        kept = train[
            pick(
                target[train],
                lambda count: count if revealed is None else np.minimum(count, revealed),
                np.random.default_rng([seed, 2]),
                target[train] >= 0,
            )
        ]
        shown = np.full(len(target), -1, dtype=np.int64)
        shown[kept] = target[kept]
        if len(np.unique(target[kept])) < 2 and (target >= 0).any():
            raise DataError(
                f"the labelled training images of {data.name} are of one class only",
                "label at least two images of each class",
            )
        if len(kept) < (target[train] >= 0).sum():
            notes.append(
                f"{revealed} labels per class are shown to methods: {len(kept)} of {len(train)} training images"
            )

        pixels = data.pixels(*working_size(size))
        state = pixel_state(pixels, train, data)
        state |= for_classes(metric, target, state["class_names"], notes, "images")
        pixels = as_trained(pixels, state)

        def rows(index: np.ndarray, label: np.ndarray, **more: np.ndarray) -> Split:
            return Split({"image": Rows(pixels, index), "label": label[index], **_photos(data, index, state), **more})

        count = len(state["class_names"])
        facts = Facts(
            "images",
            len(train),
            len(kept),
            state["channels"],
            state["height"],
            state["width"],
            classes=count,
            outputs=count,
            metric=unusual(state["metric"], ACCURACY),
        )
        # "hidden" holds all labels for the figures of `extra_scores`; `training` never hands it on
        return Prepared(
            rows(train, shown, hidden=target[train]),
            rows(valid, target).grouped(data.groups[valid]),
            rows(test, target).grouped(data.groups[test]),
            facts,
            state,
            tuple(notes),
        )

    def strata(self, data: Any) -> np.ndarray:
        return np.asarray(data.labels, dtype=np.int64)

    def encode(self, state: Mapping[str, Any], data: Any) -> Split:
        """New images at the size and with the channels of the model. Labels are kept where their class is known to the
        model, and -1 elsewhere. Raises DataError when the channels cannot be converted."""
        pixels = data.pixels(state["height"], state["width"], state["channels"])
        if told := other_range(pixels, state):
            data.note(told)
        columns: dict[str, Any] = {"image": as_trained(pixels, state)}
        columns |= _photos(data, np.arange(len(columns["image"])), state)
        label = known_labels(state, data)
        if (label >= 0).any():
            columns["label"] = label
        return Split(columns)

    def build(self, method: Any, config: Any, optim: Any, prepared: Prepared, backbone: nn.Module | None = None) -> Any:
        """Raises Declined when the method is not for this task, or needs labels or a backbone that are not there."""
        kind, facts, state = method.paper.kind, prepared.facts, prepared.state
        self.require_made_for(method, "image_classification", "image_representation")  # the columns are the same
        if kind != "objective" and facts.labelled == 0:
            raise Declined(f"{method.id} learns from labels, and there are none")
        if kind == "estimator":
            return method.module.build(config, facts)
        if kind == "architecture":
            inner = Normalized(method.module.build(config, facts), state["mean"], state["std"])
            return SupervisedImages(inner, facts.outputs, facts.channels == 3, optim.label_smoothing)
        if kind == "objective":
            return objective(
                method, config, facts, backbone, lambda inner: Normalized(inner, state["mean"], state["std"])
            )
        raise self.cannot_train(method)

    def training(self, model: Any, prepared: Prepared) -> Split:
        train = prepared.train
        if offers(model).encoder is None or isinstance(model, Supervised):
            labelled = np.flatnonzero(train["label"] >= 0)
            columns = {"image": _only(train["image"], labelled), "label": train["label"][labelled]}
            if "photo" in train and not isinstance(model, nn.Module):
                columns["photo"] = train["photo"][labelled]
            return Split(columns)
        return Split({"image": train["image"], "label": train["label"]})

    def finish(self, model: Any, prepared: Prepared, seed: int) -> dict[str, np.ndarray]:
        """The linear probe of an objective as arrays: mean, std (width,), weight (classes, width), bias (classes,)."""
        if not isinstance(model, nn.Module) or isinstance(model, Supervised) or prepared.facts.labelled == 0:
            return {}
        labelled = np.flatnonzero(prepared.train["label"] >= 0)
        features = self.embed(model, Split({"image": _only(prepared.train["image"], labelled)}))
        return fit_probe(features, prepared.train["label"][labelled], prepared.facts.classes)

    def outputs(self, model: Any, head: Mapping[str, np.ndarray], split: Split) -> np.ndarray:
        """Probabilities (N, classes). Raises Declined for an objective that met no labels."""
        if not isinstance(model, nn.Module):
            return estimated(model, split)
        if isinstance(model, Supervised):
            return softmax(through(model, model, {"image": split["image"]}, _CHUNK).astype(np.float64))
        if not head:
            raise Declined("this model was trained without labels, so it has features but no predictions", "use embed")
        return probe_outputs(head, self.embed(model, split))

    def embed(self, model: Any, split: Split) -> np.ndarray:
        """(N, width) float32. Raises Declined for a model without features."""
        if own := offers(model).represent:
            return finite(own(split))
        return finite(through(model, encoder_of(model), {"image": split["image"]}, _CHUNK))

    def score(self, outputs: np.ndarray, split: Split, state: Mapping[str, Any]) -> Scores:
        judged = split["label"] >= 0
        metric, groups = primary(state, "accuracy").name, groups_of(split, judged)
        names, positive = state["class_names"], state.get("positive")
        return classification_scores(outputs[judged], split["label"][judged], names, metric, groups, positive)

    def extra_scores(self, model: Any, prepared: Prepared, seed: int) -> dict[str, float]:
        """For `image_representation`: accuracy of weighted k-NN (k = 20, T = 0.07, cosine) and of probes on 10 labels a
        class and on 1, 10 and 100 % of the labels, from at most 10 000 training rows with all their labels."""
        if self.needs_labels or offers(model).encoder is None or prepared.facts.classes == 0:
            return {}
        rng = np.random.default_rng([seed, 3])
        known = np.flatnonzero(prepared.train["hidden"] >= 0)
        bank = np.sort(rng.permutation(known)[:BANK])
        label, truth, classes = prepared.train["hidden"][bank], prepared.test["label"], prepared.facts.classes
        features = self.embed(model, Split({"image": _only(prepared.train["image"], bank)}))
        tested = self.embed(model, prepared.test)
        found = {"knn": float((nearest(features, label, tested, classes).argmax(1) == truth).mean())}
        wanted = {"probe_10_per_class": lambda count: np.minimum(count, 10)}
        for percent in (1, 10, 100):
            wanted[f"probe_{percent}%"] = partial(at_least_one, share=percent / 100)
        for name, count in wanted.items():
            rows = pick(label, count, rng)
            probe = fit_probe(features[rows], label[rows], classes)
            found[name] = float((probe_outputs(probe, tested).argmax(1) == truth).mean())
        return found


def working_size(size: int | tuple[int, int] | None) -> tuple[int | None, int | None]:
    """(height, width) as asked for with `size`; None leaves them to the data. Raises PapertrialError for what is no size."""
    try:
        height, width = (size, size) if size is None or isinstance(size, int | str) else size
        if height is None or width is None:
            return None, None
        height, width = int(height), int(width)
    except (TypeError, ValueError):
        height = width = 0
    if min(height, width) < 4:
        raise PapertrialError(f"size is {size!r}, not a side of 4 pixels or more", "write it as size=32")
    return height, width


def pixel_state(pixels: np.ndarray, train: np.ndarray, data: Any) -> dict[str, Any]:
    """What new images are encoded with: class names, shape, and the range, mean and deviation of the rows `train`."""
    some = np.asarray(pixels[train[:: max(1, len(train) // 10_000)]], dtype=np.float32)
    if pixels.dtype == np.uint8:
        some /= 255
        low, high = 0.0, 1.0
    else:
        low, high = float(some.min()), float(some.max())
        if not np.isfinite([low, high]).all():
            raise DataError(f"{data.name} has pixels that are not finite numbers", "remove or mend these images")
        high = high if high > low else low + 1.0
    some = (some - low) / (high - low)
    return {
        "class_names": [str(name) for name in data.class_names],
        "columns": data.columns,
        "height": int(pixels.shape[1]),
        "width": int(pixels.shape[2]),
        "channels": int(pixels.shape[3]),
        "bytes": pixels.dtype == np.uint8,
        "low": low,
        "high": high,
        "mean": some.mean((0, 1, 2), dtype=np.float64).tolist(),
        "std": some.std((0, 1, 2), dtype=np.float64).tolist(),
    }


def _photos(data: Any, rows: np.ndarray, state: Mapping[str, Any]) -> dict[str, Photos]:
    """The column "photo", of colour or grey images that are larger than the `image` a model is trained on; none of others."""
    if not (state["bytes"] and state["channels"] in (1, 3) and data.larger):
        return {}
    return {"photo": Photos(data, rows, PHOTO, state["channels"])}


def _only(images: Any, rows: np.ndarray) -> Any:
    if len(rows) == len(images):
        return images
    return Rows(images.array, images.rows[rows]) if isinstance(images, Rows) else images[rows]


def as_trained(pixels: np.ndarray, state: Mapping[str, Any]) -> np.ndarray:
    """Bytes as they are where the model was trained on bytes; otherwise float32 in [0, 1], as the training images were."""
    if pixels.dtype == np.uint8 and state["bytes"]:
        return pixels
    low, high = state["low"], state["high"]
    values: np.ndarray = np.asarray(pixels, dtype=np.float32)
    if pixels.dtype == np.uint8:
        first, last = usual_range(low, high) or (0, 1)
        values = values / 255 * (last - first) + first
    elif state["bytes"] and values.size and values.max() > 1:
        values = values / 255
    return np.clip((values - low) / (high - low), 0, 1, dtype=np.float32)


def other_range(pixels: np.ndarray, state: Mapping[str, Any]) -> str:
    """A line where new images have values of another range than those that were trained on, "" where they do not."""
    if pixels.dtype == np.uint8 and state["bytes"]:
        return ""
    low, high = state["low"], state["high"]
    trained = (0, 255) if state["bytes"] else usual_range(low, high)
    before = "bytes from 0 to 255" if state["bytes"] else f"values from {low:g} to {high:g}"
    if pixels.dtype == np.uint8:
        first, last = trained or (0, 1)
        same = "" if trained else "; they may mean something else"
        return f"bytes are read as values from {first} to {last}, since the model was trained on {before}{same}"
    least, most = value_range(np.asarray(pixels))
    given = usual_range(least, most)
    if state["bytes"] and given == (0, 255):
        return f"values from {least:g} to {most:g} are divided by 255, since the model was trained on {before}"
    if trained is None:  # alike, as far as can be told
        beyond = 0.05 * (high - low)
        within = low - beyond <= least and most <= high + beyond and 2 * (most - least) >= high - low
    else:
        within = given == trained
    if within or (state["bytes"] and given == (0, 1)):
        return ""
    return f"values from {least:g} to {most:g}, where the model was trained on {before}: read on that scale, and what is beyond is cut off"
