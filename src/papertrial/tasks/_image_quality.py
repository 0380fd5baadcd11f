"""How drawn pictures are measured: what the tasks that generate images have in common.

    measures = Measures.of(pixels, labels, key)     trained once per data set, then read from the cache
    measures.space.features(pictures)               what pictures are compared in: 64 features each (photographs: _photo_space.py)
    measures.judge.classes(pictures)                which class each is of; judge is None without enough labels
    frechet(drawn_features, real_features)          the distance, and the influence of every row on it
    precision_recall(drawn_features, real_features)
    parts(...), draw(model, ...), picture_scores(...)   what a task that judges generators is made of

The networks are trained on a CPU by fixed seeds, so that every method and seed is measured alike. Figures of different data
sets do not compare with each other, nor with those of papers, which look through Inception.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from papertrial.core.errors import DataError, PapertrialError
from papertrial.core.files import write_with
from papertrial.core.task import Prepared, Scores
from papertrial.data.base import cache_folder, track
from papertrial.nn.modes import evaluating
from papertrial.tasks import _photo_space
from papertrial.tasks._metrics import Z, at_floor, wilson
from papertrial.tasks._photo_space import PhotoSpace
from papertrial.tasks._split import (
    SPLIT_SEED,
    TEST_SHARE,
    VALID_SHARE,
    pick,
    pick_together,
    rounded,
    some_of,
    spread_evenly,
)

#: features of a picture, and the size it is looked at when it is larger
WIDTH, SIDE = 64, 64
#: steps and rows of a step that a classifier is trained for
STEPS, BATCH = 400, 64
#: labelled pictures of a class, on average, below which no classifier is trained
LEAST_PER_CLASS = 10
_LR = 3e-3
_CHUNK = 256
#: part of the name in the cache: another recipe for the networks gets another number
_RECIPE = 1

LEARNT = "features of a small classifier of this data"
RANDOM = "features of random convolutions"


# ------------------------------------------------------------------------------------------------------------ measures


@dataclass(frozen=True)
class Frechet:
    """The distance of two clouds of features, and how far each row moves it.

    of_drawn (M,), of_real (N,): influence values with mean 0, float64: adding `of_real` to `value` gives numbers whose mean is
    the distance and whose differences between two generators have the spread of the difference, to first order.
    """

    value: float
    of_drawn: np.ndarray
    of_real: np.ndarray


def frechet(drawn: np.ndarray, real: np.ndarray) -> Frechet:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) of features drawn (M, D) and real (N, D) (Heusel et al. 2017, eq. 6).

    Covariances with M - 1 and N - 1. The square root is taken of symmetric matrices, so that covariances without full rank,
    as few pictures have, need no shift.  Raises ValueError for fewer than two rows or features that are not finite.
    """
    clouds = [np.asarray(features, dtype=np.float64) for features in (drawn, real)]
    if min(map(len, clouds)) < 2 or not all(np.isfinite(cloud).all() for cloud in clouds):
        raise ValueError("the distance takes two rows or more on each side, of finite numbers")
    means = [cloud.mean(0) for cloud in clouds]
    centred = [cloud - mean for cloud, mean in zip(clouds, means, strict=True)]
    spreads = [cloud.T @ cloud / (len(cloud) - 1) for cloud in centred]
    gap = means[0] - means[1]
    roots = [_power(spread, 0.5) for spread in spreads]
    # the singular values of the product of the roots are the eigenvalues of (S1 S2)^(1/2)
    both = np.linalg.svd(roots[0] @ roots[1], compute_uv=False).sum()
    value = float(gap @ gap + np.trace(spreads[0]) + np.trace(spreads[1]) - 2 * both)
    influences = []
    for own, other, direction in ((0, 1, 2 * gap), (1, 0, -2 * gap)):
        # dS moves the distance by tr((1 - T) dS), where T carries a Gaussian with covariance S onto that of the other
        whiten = _power(spreads[own], -0.5)
        carried = centred[own] @ whiten
        middle = _power(roots[own] @ spreads[other] @ roots[own], 0.5)
        quadratic = (centred[own] ** 2).sum(1) - ((carried @ middle) * carried).sum(1)
        influences.append(centred[own] @ direction + quadratic - quadratic.mean())
    return Frechet(max(value, 0.0), *influences)


def _power(matrix: np.ndarray, power: float) -> np.ndarray:
    """A power of a symmetric matrix without negative eigenvalues; those that are rounding noise stay 0."""
    values, vectors = np.linalg.eigh(matrix)
    kept = values > max(float(values[-1]), 0.0) * len(values) * np.finfo(np.float64).eps
    raised = np.where(kept, np.where(kept, values, 1.0) ** power, 0.0)
    return (vectors * raised) @ vectors.T


def precision_recall(drawn: np.ndarray, real: np.ndarray, k: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """(drawn rows that look real (M,), real rows that are covered (N,)), bool; their means are precision and recall.

    Kynkäänniemi et al. 2019 (arXiv 1904.06991, eq. 1): a row counts where it lies within a ball around a row of the other
    side that reaches to that row's k-th nearest neighbour on its own side. Raises ValueError for k rows or fewer.
    """
    ours, theirs = (torch.from_numpy(np.asarray(features, dtype=np.float64)) for features in (drawn, real))
    if min(len(ours), len(theirs)) <= k:
        raise ValueError(f"{k} neighbours take more than {k} rows")
    own, other = (_distances(side, side).kthvalue(k + 1, dim=1).values for side in (ours, theirs))
    between = _distances(ours, theirs)
    return (between <= other).any(1).numpy(), (between <= own[:, None]).any(0).numpy()


def _distances(rows: Tensor, columns: Tensor) -> Tensor:
    """Without matrix products, which would lose the distance of pictures that are nearly alike."""
    return torch.cdist(rows, columns, compute_mode="donot_use_mm_for_euclid_dist")


# ------------------------------------------------------------------------------------------------------------ networks


class Eye(nn.Module):
    """A small convolutional network: pictures float (B, C, H, W) in [0, 1] -> (features (B, WIDTH), logits (B, classes)).

    Stride-2 convolutions down to a side of 4; larger pictures than SIDE are averaged down to it first. The last norm has no
    weights, so that every feature has the variance 1 over the training pictures, trained or not.
    """

    def __init__(self, channels: int, height: int, width: int, classes: int) -> None:
        super().__init__()
        self.shape = (channels, height, width, classes)
        height, width = self.size = (min(height, SIDE), min(width, SIDE))
        stride, inputs = 2 if max(self.size) > 20 else 1, channels
        layers: list[nn.Module] = []
        while max(height, width) > 4 or not layers:
            outputs = 64 if layers else 32
            layers += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
            height, width, stride, inputs = -(-height // stride), -(-width // stride), 2, outputs
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(inputs * height * width, WIDTH, bias=False))
        self.norm = nn.BatchNorm1d(WIDTH, affine=False)
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        if image.shape[-2:] != self.size:
            image = F.adaptive_avg_pool2d(image, self.size)
        features = self.norm(self.layers(image - 0.5))
        return features, self.head(F.relu(features))

    def through(self, pictures: Any) -> tuple[np.ndarray, np.ndarray]:
        """Of pictures uint8 (N, H, W, C), in `eval()`: features float64 (N, WIDTH) and logits float32 (N, classes)."""
        with torch.no_grad():
            parts = [self(_tensor(pictures[first : first + _CHUNK])) for first in range(0, len(pictures), _CHUNK)]
        features, logits = (np.concatenate(part) for part in zip(*parts, strict=True))
        return features.astype(np.float64), logits


class Space:
    """What pictures are compared in. words: where its features come from, for a reader."""

    def __init__(self, eye: Eye) -> None:
        self.eye = eye
        self.words = LEARNT if eye.shape[-1] > 1 else RANDOM

    def features(self, pictures: np.ndarray) -> np.ndarray:
        """Of pictures uint8 (N, H, W, C): float64 (N, WIDTH)."""
        return self.eye.through(pictures)[0]


class Judge:
    """Which class a picture is of, by a classifier that neither the `Space` nor any method has a part in."""

    def __init__(self, eye: Eye) -> None:
        self.eye = eye

    def classes(self, pictures: np.ndarray) -> np.ndarray:
        """Of pictures uint8 (N, H, W, C): int64 (N,)."""
        return self.eye.through(pictures)[1].argmax(1)


@dataclass(frozen=True)
class Measures:
    """What measures the pictures of one data set: a space to compare them in, and a `Judge` where there are labels enough for one."""

    key: str
    space: Space | PhotoSpace
    judge: Judge | None

    @classmethod
    def of(cls, pixels: Any, labels: np.ndarray, key: str) -> Measures:
        """From the cache, or trained on pictures uint8 (N, H, W, C), an array or memory map, with labels int64 (N,), -1 =
        unlabelled, which takes seconds.

        key: of these pictures at this size. They must be the same for every seed, and hold no test rows. With fewer than
        LEAST_PER_CLASS labels a class the space is one of random convolutions, and there is no judge. Photographs are compared
        in what a network from ImageNet sees, where it is installed.
        """
        with suppress(PapertrialError):
            return cls.find(key)
        known = np.flatnonzero(labels >= 0)
        count = len(np.unique(labels[known]))
        learnt = count > 1 and len(known) >= LEAST_PER_CLASS * count
        rows, classes = (known, int(labels.max()) + 1) if learnt else (np.arange(len(labels)), 1)
        photo = PhotoSpace.of(pixels) if _photo_space.suits(pixels) else None
        eyes = {}
        for seed, name in enumerate(("space", "judge") if learnt else ("space",)):
            if photo is None or name == "judge":
                eyes[name] = _trained(pixels, labels, rows, classes, seed, STEPS if learnt else 0)
        made = _HELD[key] = cls._from(key, eyes, photo)
        with suppress(PapertrialError):  # a cache that cannot be written costs time, no more
            made.write(_file(key))
        return made

    @classmethod
    def find(cls, key: str, file: Path | None = None) -> Measures:
        """Those made under `key`, from memory, the cache, or a `file` that `write` wrote. Raises PapertrialError where there
        are none."""
        for place in (_file(key), file) if key not in _HELD else ():
            with suppress(OSError, SafetensorError, KeyError, RuntimeError, ValueError):
                _HELD[key] = cls._from(key, *_read(place))
                break
        if key not in _HELD:
            raise PapertrialError(
                "the networks that measured these pictures are not here any more", "run the command that trained again"
            )
        return _HELD[key]

    @classmethod
    def _from(cls, key: str, eyes: dict[str, Eye], photo: PhotoSpace | None) -> Measures:
        space = Space(eyes["space"]) if photo is None else photo
        return cls(key, space, Judge(eyes["judge"]) if "judge" in eyes else None)

    def write(self, file: Path) -> None:
        """As safetensors, whole or not at all."""
        eyes = {"judge": self.judge.eye} if self.judge else {}
        tensors: dict[str, Tensor] = {}
        if isinstance(self.space, PhotoSpace):
            tensors |= self.space.tensors()
        else:
            eyes = {"space": self.space.eye, **eyes}
        tensors |= {f"{name}.{part}": tensor for name, eye in eyes.items() for part, tensor in eye.state_dict().items()}
        shape = {"shape": ",".join(map(str, next(iter(eyes.values())).shape))} if eyes else {}
        write_with(file, lambda temporary: save_file(tensors, str(temporary), shape))


#: by key, those that this process has met
_HELD: dict[str, Measures] = {}


def _file(key: str) -> Path:
    return cache_folder() / f"measures-{_RECIPE}-{key}.safetensors"


def _read(file: Path | None) -> tuple[dict[str, Eye], PhotoSpace | None]:
    if file is None:
        raise FileNotFoundError
    tensors = load_file(str(file))
    photo = PhotoSpace(tensors.pop("photo.mean"), tensors.pop("photo.directions")) if "photo.mean" in tensors else None
    if not tensors:
        return {}, photo
    with safe_open(str(file), "pt") as held:
        shape = [int(number) for number in held.metadata()["shape"].split(",")]
    eyes = {}
    for name in dict.fromkeys(part.partition(".")[0] for part in tensors):
        eyes[name] = Eye(*shape).eval()
        eyes[name].load_state_dict(
            {part.partition(".")[2]: tensor for part, tensor in tensors.items() if part.startswith(f"{name}.")}
        )
    return eyes, photo


def _trained(pixels: Any, labels: np.ndarray, rows: np.ndarray, classes: int, seed: int, steps: int) -> Eye:
    """A new Eye that tells the classes of `rows` apart, or is left as it was born where steps is 0."""
    _, height, width, channels = pixels.shape
    rng = np.random.default_rng([seed, 4])
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(seed)
        eye = Eye(channels, height, width, classes)
        optimizer = torch.optim.AdamW(eye.parameters(), lr=_LR, weight_decay=0.05)
        for step in track(range(steps), steps, "training what measures pictures"):
            chosen = np.sort(rng.choice(rows, BATCH))
            optimizer.param_groups[0]["lr"] = _LR * min(1.0, (step + 1) / (0.1 * steps), (steps - step) / (0.9 * steps))
            optimizer.zero_grad()
            F.cross_entropy(eye(_tensor(pixels[chosen]))[1], torch.from_numpy(labels[chosen])).backward()
            optimizer.step()
        norms = [module for module in eye.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
        for norm in norms:  # the statistics of the network as it is now, not of the last steps
            norm.reset_running_stats()
            norm.momentum = None
        some = np.sort(rng.permutation(rows)[: 16 * _CHUNK])
        with torch.no_grad():
            for part in np.array_split(some, -(-len(some) // _CHUNK)):
                eye(_tensor(pixels[part]))
    return eye.eval()


def _tensor(pictures: Any) -> Tensor:
    """Pictures uint8 (N, H, W, C) as float32 (N, C, H, W) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 255


# --------------------------------------------------------------------------------------------- what tasks are made of

#: most rows that are judged on, and that are chosen with: a picture is drawn for each
MOST, MOST_VALID = 2000, 500
#: pictures below which there is nothing to judge with
LEAST = 20
#: pictures in a row of a sheet
ACROSS = 8
_DRAWN = 64  # pictures that are drawn at once
_FEWEST = 4  # pictures that a distance takes


class Drawn(np.ndarray):
    """Pictures uint8 (N, H, W, C) that were drawn.  asked: int64 (N,), the class each was to be of, -1 = any; None where
    the generator takes no classes."""

    asked: np.ndarray | None = None

    @classmethod
    def of(cls, pictures: np.ndarray, asked: np.ndarray | None = None) -> Drawn:
        made = np.asarray(pictures).view(cls)
        made.asked = asked
        return made


def parts(
    part: np.ndarray, groups: np.ndarray, seed: int, fraction: float, notes: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The rows (train, valid, test, known) of pictures; test and known, which are all that are not held out for the test,
    depend on the data alone.

    part: int8 (N,), as given.  groups: int64 (N,), equal for duplicates, which stay together.  fraction: share of the
    training rows to keep.  notes: lines are added.
    """
    everything = np.zeros(len(part), dtype=np.int64)
    testing = part == 2
    if not testing.any():
        rng = np.random.default_rng(SPLIT_SEED)
        testing = pick_together(everything, groups, lambda count: rounded(count, TEST_SHARE), rng, part == 0)
        notes.append(f"test: {testing.sum():,} of {len(part):,} images, the same for every seed")
    test, free = np.flatnonzero(testing), ~testing
    rng = np.random.default_rng([seed, 0])
    valid = free & (part == 1)
    if valid.any():
        valid = pick(everything, lambda count: np.minimum(count, MOST_VALID), rng, valid)
    else:
        wanted = min(MOST_VALID, max(_FEWEST, int(rounded(free.sum(), VALID_SHARE))))
        share = wanted / max(1, free.sum())  # of the groups, which may be large
        valid = pick_together(everything, groups, lambda count: np.maximum(rounded(count, share), 1), rng, free)
    train = np.flatnonzero(free & ~valid)
    if fraction < 1:
        train = some_of(train, fraction, seed)
    if len(test) > MOST:
        test = spread_evenly(test, MOST)
        notes.append(f"judged on {MOST:,} of the test images, spread evenly")
    return train, np.flatnonzero(valid), test, np.flatnonzero(free)


def draw(model: Any, seeds: Sequence[int], **options: Any) -> np.ndarray:
    """Pictures uint8 (N, H, W, C) by a generator, one for each seed, in `eval()`.

    options: what `model.draws` names. A row each: labels int64 (N,), captions (N strings); or one for all. Raises ValueError
    for what a generator should not give.
    """
    made = []
    rows = {name: options.pop(name) for name in ("labels", "captions") if options.get(name) is not None}
    with evaluating(model) if isinstance(model, nn.Module) else nullcontext(), torch.no_grad():
        for first in track(range(0, len(seeds), _DRAWN), -(-len(seeds) // _DRAWN), "drawing"):
            some = slice(first, first + _DRAWN)
            chosen = {name: values[some] for name, values in rows.items()}
            if "labels" in chosen:
                chosen["labels"] = torch.as_tensor(chosen["labels"])
            made.append(model.draw(list(seeds[some]), **chosen, **options).cpu())
    pictures = torch.cat(made)
    if pictures.dtype != torch.uint8 or pictures.ndim != 4 or len(pictures) != len(seeds):
        raise ValueError(f"draw gave {tuple(pictures.shape)} of {pictures.dtype}, not uint8 ({len(seeds)}, C, H, W)")
    return pictures.permute(0, 2, 3, 1).contiguous().numpy()


def picture_scores(drawn: np.ndarray, real: np.ndarray, measures: Measures) -> Scores:
    """`frechet`, `precision` and `recall` of pictures against real ones, both uint8 (N, H, W, C), and `class_accuracy` where
    `drawn` says which classes were asked for and there is a judge.

    The interval of the distance is over both sides; per_example: the distance and the influence of each real picture on it.
    Raises DataError for fewer than four pictures.
    """
    if min(len(drawn), len(real)) < _FEWEST:
        raise DataError(f"there are {len(real)} images, and a distance takes {_FEWEST} or more", "give more images")
    ours, theirs = measures.space.features(drawn), measures.space.features(real)
    distance = frechet(ours, theirs)
    sides = (distance.of_drawn, distance.of_real)
    half = Z * float(np.sqrt(sum(side.var(ddof=1) / len(side) for side in sides)))
    metrics = {"frechet": distance.value}
    intervals = {"frechet": (max(distance.value - half, 0.0), distance.value + half)}
    for name, hits in zip(("precision", "recall"), precision_recall(ours, theirs), strict=True):
        metrics[name], intervals[name] = float(hits.mean()), wilson(hits.mean(), len(hits))
    asked = getattr(drawn, "asked", None)
    if asked is not None and measures.judge is not None and (asked >= 0).any():
        right = measures.judge.classes(drawn[asked >= 0]) == asked[asked >= 0]
        metrics["class_accuracy"], intervals["class_accuracy"] = float(right.mean()), wilson(right.mean(), len(right))
    # pictures that are all alike: at best they lie in the middle of the real ones
    floors = {"frechet": float(np.var(theirs, axis=0, ddof=1).sum())}
    remarks = at_floor("frechet", metrics, intervals, floors)
    return Scores(metrics, distance.value + distance.of_real, intervals, floors, remarks=tuple(remarks))


def real_scores(prepared: Prepared, measures: Measures) -> dict[str, float]:
    """What the metrics are when training pictures stand in the place of drawn ones, and how often the judge is right on the
    test pictures: what a generator could attain."""
    some = np.random.default_rng(0).permutation(prepared.train.examples)[: prepared.test.examples]
    real = np.asarray(prepared.test["image"])
    if len(some) < _FEWEST:
        return {}
    found = picture_scores(np.asarray(prepared.train["image"][np.sort(some)]), real, measures).metrics
    label = np.asarray(prepared.test["label"])
    if measures.judge is not None and (label >= 0).any():
        known = label >= 0
        found["class_accuracy"] = float((measures.judge.classes(real[known]) == label[known]).mean())
    return {f"real_{name}": value for name, value in found.items()}


def grid(pictures: np.ndarray, columns: int, gap: int = 1) -> np.ndarray:
    """Pictures uint8 (N, H, W, C) side by side, row by row, on white: uint8 (H', W', C)."""
    count, height, width, channels = pictures.shape
    rows = -(-count // columns)
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, channels), 255, dtype=np.uint8)
    for place, picture in enumerate(pictures):
        row, column = divmod(place, columns)
        down, across = gap + row * (height + gap), gap + column * (width + gap)
        sheet[down : down + height, across : across + width] = picture
    return sheet


def shown(label: np.ndarray) -> tuple[np.ndarray, int]:
    """Which of many pictures to look at, and how many stand in a row: of up to ten classes a row each where there are
    labels int64 (N,), and up to 64 otherwise."""
    classes, counts = np.unique(label[label >= 0], return_counts=True)
    classes = classes[counts >= ACROSS // 2][:10]
    if len(classes) < 2:
        return np.arange(min(len(label), ACROSS**2)), ACROSS
    across = int(min(ACROSS, counts[np.isin(np.unique(label[label >= 0]), classes)].min()))
    return np.concatenate([np.flatnonzero(label == index)[:across] for index in classes]), across
