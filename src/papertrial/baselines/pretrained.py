"""Pretrained - a network from ImageNet: its frozen features under logistic regression, and trained further where time allows.

The idea
    What a network has learnt from a million photographs holds for others: a linear model on its features needs few labels. It is
    what one would do in practice, so a method for images has to beat it.

The equation
    p(class | x) = softmax(W (f(x) - m) / s + b) with penalty |W|^2 / 2C, f frozen; then f is trained too, from there

What matters
    The resolution: photographs are read from their files, the shorter side at 256 pixels and the centre of 224, not at the size
    that networks from scratch are trained at; small images are scaled up. The penalty, chosen on the validation rows, as is
    whether the network that was trained further is the better one.

Requires / Offers
    Colour or grey images with labels. The extra `vision`, whose weights come with it. Predicts, and embeds.

Relations
    `efficientnet_lite` is its network. The reference of image_classification and image_representation beside those from scratch.

Try
    papertrial fit pretrained --data photos/

Cost
    On one core 30 ms an image for the features, then seconds; a smaller side where the budget is short.

Notation
    f(x) features (width,), m and s their mean and standard deviation, C inverse strength of the penalty.
"""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from papertrial.baselines import efficientnet_lite
from papertrial.baselines.efficientnet_lite import EfficientNetLite
from papertrial.core import registry
from papertrial.core.budget import Budget, Meter
from papertrial.core.errors import DataError, PapertrialError
from papertrial.core.facts import Facts
from papertrial.core.files import disk_errors, read_json, write_json, write_with
from papertrial.core.offers import offers
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, resolve, sourced
from papertrial.core.run import Run
from papertrial.core.task import Split
from papertrial.core.wording import counted
from papertrial.data.base import track
from papertrial.nn.batches import to_tensors
from papertrial.nn.modes import evaluating
from papertrial.nn.views import Draw, flip, random_resized_crop, shift
from papertrial.tasks._images import PHOTO
from papertrial.tasks._probe import fit_probe, probe_outputs, softmax

PAPER = Paper(
    id="pretrained",
    title="A pretrained network with a linear probe",
    kind="estimator",
    method="Pretrained",
    idea="Frozen features of an ImageNet network under logistic regression, and the network trained further where time allows.",
    tasks=("image_classification", "image_representation"),
    tags=("vision", "pretrained", "baseline"),
    needs=("vision",),
    builds_on=("efficientnet_lite",),
    caveats=(
        "The weights were trained on ImageNet: photographs of your test data may be among its 1.28 million.",
        "It reads photographs from their files at 224 pixels, where methods from scratch see the working size.",
    ),
)

#: shares of the budget's seconds: for features, and for what is left until the network is trained further
_FEATURES, _FURTHER = 0.6, 0.85
#: sides that are tried, of those not above the one that is asked for
_SIDES = (224, 192, 160, 128, 96, 64, 48, 32)
#: images of a piece, and of a step where the network is trained further
_CHUNK, _BATCH = 64, 32
#: the network that is read without a hub
OWN = efficientnet_lite.PAPER.id
#: mean and deviation of the pixels of ImageNet by channel, with which networks from elsewhere were trained where they say nothing else
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_LOOKING = "looking at images"
#: of a photograph of PHOTO pixels that is looked at
_CENTRE = PHOTO * efficientnet_lite.SIDE // 256
#: features that frozen networks found in this process, and the seconds each took, by network with side and image; at most so many
_MEMORY: dict[tuple[str, str], tuple[np.ndarray, float]] = {}
_MOST = 40_000
#: what a step costs, for an image, beside its features alone
_STEP = 3.5
#: epochs below which training further is not worth its beginning
_LEAST_EPOCHS = 3


@checked
@dataclass(frozen=True)
class Config:
    side: int = sourced(
        efficientnet_lite.SIDE,
        "what the weights were trained at; pixels of the shorter side, fewer where seconds are",
        "[32, 1024]",
        auto=efficientnet_lite.suited_side,
    )
    weights: str = sourced(
        OWN,
        "the network that the extra `vision` carries; others: timm:resnet18:pretrained, hf:microsoft/resnet-18, hf:folder/",
        "any",
    )
    penalties: tuple[float, ...] = sourced(
        (0.01, 0.001, 0.1, 1.0), "papertrial default; values of C, tried in this order", "1 to 32 of [1e-9, 1e9]"
    )
    epochs: int = sourced(
        12,
        "papertrial default; most that the whole network is trained for, where seconds allow 3; 0 is none",
        "[0, 100000]",
    )
    lr: float = sourced(3e-4, "papertrial default; of the whole network, AdamW with a cosine", "[1e-9, 1000]")


class Elsewhere(nn.Module):
    """A network of a hub or a folder with the face of ours: images (B, 1 or 3, H, W) in [0, 1], scaled to `side` and by the
    statistics of ImageNet -> (B, width).

    pretrained: False makes one whose weights are read from an artifact; what it is made like is read from its place again.
    Raises PapertrialError for a name without weights, or weights that are not within reach.
    """

    def __init__(self, name: str, side: int, pretrained: bool) -> None:
        super().__init__()
        method = elsewhere(name)
        facts = Facts("images", 1, channels=3, height=side, width=side)
        config, _ = resolve(method.module.Config, facts, {"you": {"pretrained": pretrained}})
        self.inner, self.side = method.module.build(config, facts), side
        self.width: int = self.inner.width

    def forward(self, image: Tensor) -> Tensor:
        image = F.interpolate(image, (self.side, self.side), mode="bicubic", antialias=True, align_corners=False)
        mean, std = (image.new_tensor(values).view(1, 3, 1, 1) for values in (_MEAN, _STD))
        return self.inner((image.clamp(0, 1).expand(-1, 3, -1, -1) - mean) / std)


def elsewhere(name: str) -> registry.Method:
    """The network of that name, which starts from weights of somebody else. Raises PapertrialError for one that does not."""
    method = registry.method(name)
    settings = {entry.name: entry.default for entry in fields(method.module.Config)}
    if method.paper.kind != "architecture" or not settings.get("pretrained"):
        raise PapertrialError(
            f"{name} names no pretrained weights", "write it as weights=timm:resnet18:pretrained or weights=hf:..."
        )
    return method


class Answering(nn.Module):
    """Images (B, C, H, W) in [0, 1] -> logits (B, classes)."""

    def __init__(self, network: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.network, self.head = network, head

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.network(image))


class Pretrained:
    """An Estimator. probe: arrays of the linear model.  network: frozen, or trained further with `head` on top."""

    def __init__(self, config: Config, facts: Facts) -> None:
        self.config, self.facts, self.side = config, facts, config.side
        self.network: Any = self._fresh()
        self.probe: dict[str, np.ndarray] = {}
        self.head: nn.Linear | None = None
        self.remarks: tuple[str, ...] = ()
        self.chosen: dict[str, float] = {"penalty": config.penalties[0], "epochs": 0}
        self._folded: Any = None
        self.sees = (facts.height, facts.width)
        self._known: list[tuple[Split, np.ndarray]] = []
        self._remembers = False
        self._clock: _Clock | None = None

    def _fresh(self, pretrained: bool = False) -> Any:
        """The network, with the weights that were published or with some."""
        if self.config.weights != OWN:
            return Elsewhere(self.config.weights, self.config.side, pretrained)
        network = EfficientNetLite(self.facts.channels, self.config.side)
        return efficientnet_lite.load(network) if pretrained else network

    # --- learning -------------------------------------------------------------------------------------------------------

    def fit(self, train: Split, valid: Split, facts: Facts, budget: Budget, seed: int, run: Run) -> Meter:
        """Features, then the penalties, then the whole network, as far as the seconds of the budget go; goes on with the
        features that an interrupted call found. Raises DataError with a single class."""
        run.scratch.mkdir(parents=True, exist_ok=True)
        clock = _Clock(run.scratch / "plan.json", budget.seconds)
        if len(np.unique(train["label"])) < 2:
            raise DataError("the training images are of a single class", "give more images")
        self.network = self._fresh(pretrained=True).to(_device())
        self._clock, self._remembers = clock, True
        said = [self._size(train)]
        train, valid = self._within(train, valid, clock, seed, said)
        found = [self._kept(split, run.scratch / name, clock) for split, name in ((train, "train"), (valid, "valid"))]
        self._known = [(valid, found[1])]
        judged = 1 if valid.examples else 0  # without validation rows the first penalty stands
        truth = (train, valid)[judged]["label"]
        best, trials = (math.inf, math.inf), 0
        for penalty in self.config.penalties[: (budget.trials if valid.examples else 1)]:
            if trials and clock.late:
                break
            trials += 1
            probe = fit_probe(found[0], train["label"], facts.classes, penalty, iterations=100)
            loss = _loss(probe_outputs(probe, found[judged]), truth)
            if loss < best:
                best, self.probe = loss, probe
                self.chosen["penalty"] = penalty
        steps = self._further(train, valid, best, clock, seed, said) if valid.examples else 0
        self._clock = None
        self.remarks = tuple(said)
        samples = trials * train.examples + steps * _BATCH
        return Meter(steps=steps, samples=samples, seconds=clock.spent, trials=trials)

    def again(self, rows: Split, seed: int, found: Sequence[Path]) -> Meter:
        """Learn from all `rows` with the side, the penalty and the training of the whole network that most of the earlier runs
        in these folders chose. Raises PapertrialError without the extra `vision`."""
        started = time.perf_counter()
        earlier = [read_json(folder / "estimator" / "read.json") for folder in found]

        def usual(name: str) -> Any:
            return Counter(one[name] for one in earlier).most_common(1)[0][0]

        self.network = self._fresh(pretrained=True).to(_device())
        self.side = self.network.side = usual("side")
        self.chosen["penalty"] = usual("penalty")
        said = [self._size(rows)]
        self.probe = fit_probe(
            self._features(rows), rows["label"], self.facts.classes, self.chosen["penalty"], iterations=100
        )
        epochs = float(np.median([one["epochs"] for one in earlier]))
        steps = int(epochs * max(1, rows.examples // _BATCH))
        if steps:
            network, head, _ = self._trained(rows, steps, seed, None)
            self.network, self.head, self._folded, self.chosen["epochs"] = network, head, None, epochs
            said.append(f"its network was trained for {epochs:.0f} epochs too, as in most of the runs before")
        self.remarks = tuple(said)
        seconds = time.perf_counter() - started
        return Meter(steps=steps, samples=rows.examples + steps * _BATCH, seconds=seconds, trials=1)

    def most_trials(self, budget: Budget) -> int:
        return min(len(self.config.penalties), budget.trials or len(self.config.penalties))

    def _size(self, split: Split) -> str:
        height, width = split["image"].shape[1:3]
        if "photo" in split:
            self.sees = (_CENTRE, _CENTRE)
            return f"it reads the photographs at {self.side} pixels, methods from scratch at {height} x {width}"
        if min(height, width) >= self.side:
            return f"it reads the images at {self.side} pixels"
        grey = ", grey as colour" if split["image"].shape[3] == 1 else ""
        return f"it reads the images of {height} x {width} scaled up to {self.side} pixels{grey}, far from what its weights know"

    def _within(self, train: Split, valid: Split, clock: _Clock, seed: int, said: list[str]) -> tuple[Split, Split]:
        """The rows whose features the seconds allow, at the largest side that allows all of them, measured on a few rows."""
        total = train.examples + valid.examples
        held = clock.plan.get("side")
        if clock.seconds is None:
            return train, valid
        if held is None:
            # as many as cost what a few large ones do
            few = train.take(np.arange(min(_CHUNK, 8 * (_SIDES[0] // min(_SIDES[0], self.side)) ** 2, train.examples)))
            self._through(list(self._pieces(few)))  # the first call is slower
            started = time.perf_counter()
            pieces = list(self._pieces(few))
            reading = (time.perf_counter() - started) / few.examples
            self._through(pieces)
            seeing = max(0.0, (time.perf_counter() - started) / few.examples - reading)
            own = self.config.weights == OWN  # others may be built for one side
            sides = [side for side in _SIDES if own and side < self.config.side]
            costs = {s: reading + seeing * (s / self.config.side) ** 2 for s in (self.config.side, *sides)}
            room = _FEATURES * (clock.seconds - clock.spent)
            fitting = [s for s in costs if total * costs[s] <= room]
            side = fitting[0] if fitting else min(costs, key=lambda s: abs(s - min(64, self.config.side)))
            clock.keep(side=side, rows=total if fitting else max(1, int(room / costs[side])), cost=costs[side])
        if (side := clock.plan["side"]) != self.side:
            said[0] += f"; {self.config.side} pixels would not fit into {clock.seconds:g} s, so it was {side}"
            self.side = self.network.side = side
        share = clock.plan["rows"] / total
        if share >= 1:
            return train, valid
        rng = np.random.default_rng([seed, 5])
        least = min(train.examples, 4 * self.facts.classes)
        some = [
            split.take(np.sort(rng.permutation(split.examples)[: max(low, int(share * split.examples))]))
            for split, low in ((train, least), (valid, min(valid.examples, self.facts.classes)))
        ]
        said.append(
            f"it learnt from {some[0].examples:,} of {counted(train.examples, 'image')}: no more fit into {clock.seconds:g} s"
        )
        return some[0], some[1]

    def _further(
        self, train: Split, valid: Split, best: tuple[float, float], clock: _Clock, seed: int, said: list[str]
    ) -> int:
        """Train the whole network from the probe on, where at least three epochs fit; kept where the validation rows say so.
        The number of steps taken."""
        if clock.seconds is None or self.config.epochs < 1:
            return 0
        left = _FURTHER * (clock.seconds - clock.spent) / (_STEP * clock.plan["cost"] * train.examples)
        if left < _LEAST_EPOCHS:
            said.append(
                f"its network stayed frozen: {clock.seconds:g} s are too few to train it for {_LEAST_EPOCHS} epochs"
            )
            return 0
        per_epoch = max(1, train.examples // _BATCH)
        network, head, took = self._trained(train, max(1, int(min(left, self.config.epochs) * per_epoch)), seed, clock)
        frozen, known = self.network, self._known
        self.network, self.head, self._folded, self._known, self._remembers = network, head, None, [], False
        better = _loss(self.outputs(valid), valid["label"]) < best
        if better:
            self.chosen["epochs"] = took / per_epoch
        else:
            self.network, self.head, self._folded, self._known, self._remembers = frozen, None, None, known, True
        word = "and was better" if better else "but was no better"
        said.append(f"its network was trained for {took / per_epoch:.0f} epochs too, {word} on the validation rows")
        return took

    def _trained(self, train: Split, planned: int, seed: int, clock: _Clock | None) -> tuple[Any, nn.Linear, int]:
        """The whole network and a head, trained from the probe on for so many steps, or fewer where the clock says so."""
        network, head = copy.deepcopy(self.network), _head(self.probe).to(_device())
        groups = [{"params": list(network.parameters())}, {"params": list(head.parameters())}]
        optimizer = torch.optim.AdamW(groups, lr=self.config.lr, weight_decay=0.01)
        network.eval()  # norms keep the statistics of a million images, of which these are few
        took, begun = 0, time.perf_counter()
        order = np.zeros(0, dtype=np.int64)
        while took < planned:
            if len(order) < min(_BATCH, train.examples):
                order = np.random.default_rng([seed, 6, took]).permutation(train.examples)
            rows, order = np.sort(order[:_BATCH]), order[_BATCH:]
            for group in optimizer.param_groups:
                group["lr"] = (
                    self.config.lr * min(1.0, (took + 1) / 10) * 0.5 * (1 + math.cos(math.pi * took / planned))
                )
            self._step(network, head, optimizer, train.take(rows), Draw(seed, took, len(rows)))
            took += 1
            if clock is not None and clock.seconds is not None:
                if took == 3:  # now the cost of a step is known; validation and the weights take the rest
                    room = _FURTHER * (clock.seconds - clock.spent) / ((time.perf_counter() - begun) / took)
                    planned = min(planned, took + int(room))
                if clock.late:
                    break
        return network, head, took

    def _step(self, network: nn.Module, head: nn.Module, optimizer: Any, rows: Split, draw: Draw) -> None:
        images = torch.cat(list(self._pieces(rows, whole=True)))
        label = torch.from_numpy(np.asarray(rows["label"])).to(images.device)
        large = "photo" in rows
        most = max(1, min(images.shape[-2:]) // 12)
        images = random_resized_crop(images, draw, (0.35, 1.0)) if large else shift(images, draw, most)
        images = flip(images, draw) if self.facts.channels == 3 else images
        optimizer.zero_grad()
        F.cross_entropy(head(network(images)), label).backward()
        nn.utils.clip_grad_norm_([*network.parameters(), *head.parameters()], 1.0)
        optimizer.step()

    # --- features -------------------------------------------------------------------------------------------------------

    def _pieces(self, split: Split, whole: bool = False) -> Iterator[Tensor]:
        """Images float (b, C, H, W) in [0, 1]. whole: photographs with their margins, which are cut off otherwise."""
        for begin in range(0, split.examples, _CHUNK):
            some = split.take(slice(begin, begin + _CHUNK))
            pixels = some["photo"].read() if whole and "photo" in some else self.shown(some)
            yield to_tensors({"image": pixels}, _device())["image"]

    def shown(self, split: Split) -> np.ndarray:
        """The images that the network is shown (N, H, W, C): the centres of photographs, others as they are."""
        if "photo" not in split:
            return np.asarray(split["image"])
        rest = (PHOTO - _CENTRE) // 2
        return split["photo"].read()[:, rest : PHOTO - rest, rest : PHOTO - rest]

    def _through(self, pieces: list[Tensor]) -> np.ndarray:
        if self._folded is None:
            folds = offers(self.network).fold
            self._folded = folds() if folds else self.network
        self._folded.side = self.side
        with torch.no_grad(), evaluating(self._folded):
            parts = [self._folded(image).float().cpu().numpy() for image in pieces]
        return np.concatenate(parts) if parts else np.zeros((0, self.network.width), dtype=np.float32)

    def _features(self, split: Split) -> np.ndarray:
        """(N, width) float32."""
        for known, features in self._known:
            if known is split:
                return features
        starts = range(0, split.examples, _CHUNK)
        parts = [self._seen(split.take(slice(first, first + _CHUNK))) for first in track(starts, len(starts), _LOOKING)]
        return np.concatenate(parts) if parts else self._through([])

    def _seen(self, some: Split) -> np.ndarray:
        """The features of a few rows. A frozen network sees an image once in a process, whatever the seed or the fold; what it
        took then is counted again."""
        if not self._remembers:
            return self._through(list(self._pieces(some)))
        name = f"{self.config.weights}@{self.side}"
        keys = [(name, key) for key in (some["photo"].keys() if "photo" in some else _digests(some["image"]))]
        missing = np.array([row for row, key in enumerate(keys) if key not in _MEMORY], dtype=np.int64)
        remembered = sum(_MEMORY[key][1] for key in keys if key in _MEMORY)
        if len(missing):
            started = time.perf_counter()
            features = self._through(list(self._pieces(some.take(missing))))
            each = (time.perf_counter() - started) / len(missing)
            if len(_MEMORY) > _MOST:
                _MEMORY.clear()
            _MEMORY.update({keys[row]: (found, each) for row, found in zip(missing.tolist(), features, strict=True)})
            if len(missing) == len(keys):
                return features
        if self._clock is not None:
            self._clock.owed += remembered
        return np.stack([_MEMORY[key][0] for key in keys])

    def _kept(self, split: Split, file: Path, clock: _Clock) -> np.ndarray:
        """The features, written to a file on the way, from which a call that was interrupted goes on."""
        width, size = self.network.width, 4 * self.network.width
        done = min(split.examples, file.stat().st_size // size) if file.exists() else 0
        with file.open("r+b" if done else "wb") as stream:
            stream.truncate(done * size)
            stream.seek(0, 2)
            starts = range(done, split.examples, _CHUNK)
            for first in track(starts, len(starts), _LOOKING):
                seen = self._seen(split.take(slice(first, first + _CHUNK))).astype(np.float32).tobytes()
                with disk_errors(file):
                    stream.write(seen)
                    stream.flush()
                clock.keep()
        return np.fromfile(file, dtype=np.float32).reshape(split.examples, width)

    # --- answering ------------------------------------------------------------------------------------------------------

    def outputs(self, split: Split) -> np.ndarray:
        """Probabilities (N, classes), float64."""
        features = self._features(split)
        if self.head is None:
            return probe_outputs(self.probe, features)
        weight, bias = (part.detach().cpu().numpy().astype(np.float64) for part in (self.head.weight, self.head.bias))
        return softmax(features @ weight.T + bias)

    def represent(self, split: Split) -> np.ndarray:
        """(N, width) float32."""
        return self._features(split)

    def as_module(self) -> nn.Module:
        """The network, its norms folded, and the linear model on top: images (B, C, H, W) in [0, 1] of the size `sees` ->
        logits (B, classes)."""
        folds = offers(self.network).fold
        network = folds() if folds else copy.deepcopy(self.network)
        network.side = self.side
        return Answering(network, self.head or _head(self.probe)).cpu().eval()

    def save(self, folder: Path | str) -> None:
        tensors = {f"network.{name}": value.cpu() for name, value in self.network.state_dict().items()}
        tensors |= {f"probe.{name}": torch.from_numpy(value) for name, value in self.probe.items()}
        if self.head is not None:
            tensors |= {f"head.{name}": value.cpu() for name, value in self.head.state_dict().items()}
        contiguous = {name: value.contiguous() for name, value in tensors.items()}
        write_json(
            Path(folder) / "read.json",
            {"side": self.side, "sees": self.sees, "remarks": list(self.remarks), **self.chosen},
        )
        write_with(Path(folder) / "model.safetensors", lambda path: save_file(contiguous, str(path)))

    def load(self, folder: Path | str) -> Pretrained:
        held = read_json(Path(folder) / "read.json")
        self.side, self.remarks = held["side"], tuple(held["remarks"])
        self.sees = tuple(held.get("sees", self.sees))  # earlier versions were not exported
        self.chosen = {name: held[name] for name in self.chosen}
        tensors = load_file(str(Path(folder) / "model.safetensors"))
        parts: dict[str, dict[str, Tensor]] = {"network": {}, "probe": {}, "head": {}}
        for name, value in tensors.items():
            part, _, leaf = name.partition(".")
            parts[part][leaf] = value
        self.network.load_state_dict(parts["network"])
        self.network.side = self.side
        self.network.to(_device())
        self.probe = {name: value.numpy() for name, value in parts["probe"].items()}
        if parts["head"]:
            self.head = _head(self.probe)
            self.head.load_state_dict(parts["head"])
        return self


class _Clock:
    """What a run has spent, over interruptions, and what it decided by the clock: `plan`, kept in a file."""

    def __init__(self, file: Path, seconds: float | None) -> None:
        self.file, self.seconds = file, seconds
        self.plan: dict[str, Any] = read_json(file) if file.exists() else {}
        self._before, self._started = float(self.plan.get("spent", 0.0)), time.perf_counter()
        self.owed = 0.0  # for what another run in this process has found

    @property
    def spent(self) -> float:
        return self._before + self.owed + time.perf_counter() - self._started

    @property
    def late(self) -> bool:
        return self.seconds is not None and self.spent > self.seconds

    def keep(self, **decided: Any) -> None:
        self.plan |= {**decided, "spent": self.spent}
        write_json(self.file, self.plan)


def _head(probe: dict[str, np.ndarray]) -> nn.Linear:
    """A layer on raw features that answers as the probe does on standardised ones."""
    weight = probe["weight"] / probe["std"]
    head = nn.Linear(weight.shape[1], len(weight))
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        head.bias.copy_(torch.from_numpy(probe["bias"] - weight @ probe["mean"]))
    return head


def _digests(images: Any) -> list[str]:
    """A name for each of some images (N, H, W, C), equal for equal pixels."""
    return [hashlib.blake2b(image.tobytes(), key=str(image.shape).encode()).hexdigest() for image in np.asarray(images)]


def _loss(outputs: np.ndarray, label: np.ndarray) -> tuple[float, float]:
    """Share of wrong answers, then the log loss, which decides between equal ones."""
    own = outputs[np.arange(len(label)), label].clip(1e-16)
    return float((outputs.argmax(axis=1) != label).mean()), float(-np.log(own).mean())


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def build(config: Config, facts: Facts, backbone: Any = None) -> Pretrained:
    return Pretrained(config, facts)


def licence(config: Config) -> str:
    """Raises PapertrialError where the weights are not there."""
    if config.weights == OWN:
        return efficientnet_lite.licence(efficientnet_lite.Config())
    module = elsewhere(config.weights).module
    return f"{module.licence(module.Config())} (what they were trained on, their card says)"


recipes = {
    "base": Recipe("base"),
    "tiny": Recipe("tiny", config={"side": 32, "penalties": (0.01,), "epochs": 0}),
}
