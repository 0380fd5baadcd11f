"""The models of the grid, each trained in a run folder of its own: pre-trained, from scratch, and fine-tuned."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from papertrial.core.budget import Budget, duration, size_in_words
from papertrial.core.errors import DataError, PapertrialError
from papertrial.core.files import to_json
from papertrial.core.paper import Trainer
from papertrial.core.recipe import Optim
from papertrial.core.run import RESULT, Run
from papertrial.core.task import Ragged, Split
from papertrial.nn.heads import NextToken
from papertrial.nn.tokenise import Bytes, windows
from papertrial.nn.transformer import Decoder
from papertrial.nn.trunks import dense_layout

if TYPE_CHECKING:
    from papertrial.papers.transfer_scaling import Config


@dataclass(frozen=True)
class Side:
    """One of the two texts. rows: int32 (R, longest) ids in random order.  valid, test: what models are judged on."""

    name: str
    fingerprint: str
    rows: np.ndarray
    valid: Split
    test: Split

    @classmethod
    def of(cls, data: Any, config: Config, trainer: Trainer, seed: int) -> Side:
        """Raises DataError for data that is no text, or too little of it."""
        prepared = trainer.task.prepare(data, seed)
        ids = Bytes().encode(prepared.train["text"]).values
        rows = ids[: len(ids) // config.longest * config.longest].reshape(-1, config.longest)
        judged = max(1, config.judged)
        return cls(
            data.name,
            data.fingerprint,
            rows[np.random.default_rng([seed, 2]).permutation(len(rows))],
            *(
                Split({"text": _spread(windows(part["text"], config.longest), most)})
                for part, most in ((prepared.valid, -(-judged // 5)), (prepared.test, judged))
            ),
        )

    @property
    def bytes(self) -> int:
        return self.rows.size


def _spread(column: Ragged, most: int) -> Ragged:
    return column if len(column) <= most else column[np.arange(most) * len(column) // most]


@dataclass(frozen=True)
class Model:
    """One of the grid. amount: bytes it is trained on, None for all there are, of the text to pre-train on."""

    size: str
    kind: str  # pre-trained | from scratch | fine-tuned
    amount: float | None

    def __str__(self) -> str:
        return f"{self.size} {self.kind}" + ("" if self.amount is None else f" on {size_in_words(self.amount)}")


@dataclass(frozen=True)
class Size:
    """A Transformer as the house's `text_transformer`: heads of 16, a perceptron of four times the width."""

    width: int
    depth: int
    longest: int
    dropout: float = 0.0

    @property
    def heads(self) -> int:
        return self.width // 16

    @property
    def hidden(self) -> int:
        return 4 * self.width

    def network(self) -> Decoder:
        decoder: Any = Decoder(Bytes(), dense_layout(self))
        decoder.longest = self.longest
        return decoder


def sizes(config: Config) -> dict[str, Size]:
    """size as the user writes it -> the model's settings."""
    found = {}
    for text in config.sizes:
        try:
            width, depth = (int(number) for number in text.split("x"))
        except ValueError:
            width = depth = 0
        if width < 16 or width % 16 or depth < 1:
            raise PapertrialError(f"cannot read the size {text!r}", "write sizes=32x2,64x2; widths are multiples of 16")
        found[text] = Size(width, depth, config.longest)
    return found


def _models(config: Config, available: int) -> list[Model]:
    """The grid; amounts that there is no text for are cut to all there is.

    Raises DataError where there is less than the smallest amount.
    """
    least = max(min(config.amounts), config.longest)
    if available < least:
        raise DataError(
            f"there are {size_in_words(available)} to train on, and the smallest amount is {size_in_words(least)}",
            "give more text, or smaller amounts with --set amounts=1e4,3e4",
        )
    tuned = sorted({float(min(amount, available)) for amount in config.amounts})
    curve = sorted({*tuned, *(float(min(amount, available)) for amount in config.curve)})
    return [
        model
        for size in config.sizes
        for model in (
            Model(size, "pre-trained", None),
            *(Model(size, "from scratch", amount) for amount in curve),
            *(Model(size, "fine-tuned", amount) for amount in tuned),
        )
    ]


def train_grid(
    sides: Mapping[str, Side], config: Config, trainer: Trainer, folder: Path, seed: int, progress: bool
) -> dict[Model, dict[str, Any]]:
    """The result of every model, trained one after the other, with a line for each and the time that is left."""
    settings = sizes(config)
    models = _models(config, sides["target"].bytes)
    waiting = [model for model in models if not _run(folder, model, _asked(model, sides, config, seed)).done]
    work = {model: _steps(model, config) * _work(settings[model.size]) for model in waiting}
    results: dict[Model, dict[str, Any]] = {}
    begun, total = time.monotonic(), sum(work.values())
    for model in models:
        results[model] = _trained(model, sides, config, settings[model.size], trainer, folder, seed, progress)
        left = sum(work[other] for other in waiting if other not in results)
        if progress and left and model in waiting:
            seconds = (time.monotonic() - begun) / (total - left) * left
            rest = f"{len(results)} of {len(models)} models, {duration(seconds)} left at most"
            print(f"transfer_scaling: {model} trained, {rest}", file=sys.stderr, flush=True)
    return results


def _steps(model: Model, config: Config) -> int:
    return config.pretrain if model.kind == "pre-trained" else config.steps


def _work(size: Size) -> float:
    """Multiplications of a byte, those of the embedding table's logits among them."""
    return size.width * (12.0 * size.width * size.depth + 2.0 * size.longest * size.depth + Bytes.size)


def _trained(
    model: Model,
    sides: Mapping[str, Side],
    config: Config,
    size: Size,
    trainer: Trainer,
    folder: Path,
    seed: int,
    progress: bool,
) -> dict[str, Any]:
    """The result of one model, in a run folder of its own, from where an earlier call left it."""
    side = sides["source" if model.amount is None else "target"]
    asked = _asked(model, sides, config, seed)
    run = _run(folder, model, asked)
    with run.locked():
        run.begin(asked)
        if run.done:
            return dict(RESULT.read(run.path("result.json")))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = NextToken(size.network())
        if model.kind == "fine-tuned":
            before = Model(model.size, "pre-trained", None)
            weights = _run(folder, before, _asked(before, sides, config, seed)).path("model.safetensors")
            trainer.load(network, weights)
        steps = _steps(model, config)
        held = len(side.rows) if model.amount is None else max(1, int(model.amount) // config.longest)
        # an epoch, after which the model is validated, is `check` steps at least
        ids = side.rows[np.resize(np.arange(held), max(held, config.check * config.rows))]
        trainer.train(
            network,
            Split({"ids": ids}),
            _optim(config, model),
            Budget(steps=steps),
            run,
            seed=seed,
            validate=lambda: -_loss(network, side.valid, trainer),
            progress=progress,
        )
        if model.amount is None:
            trainer.save(network, run.path("model.safetensors"))
        validations = [(row["step"], row["validation"]) for row in run.history() if "validation" in row]
        last, best = validations[-1][0], max(validations, key=lambda pair: pair[1])[0]
        stack: Any = network.encoder.stack
        run.finish(
            {
                "model": str(model),
                "parameters": sum(parameter.numel() for parameter in stack.parameters()),
                "bits_per_byte": _loss(network, side.test, trainer),
                "steps": last,
                "best_step": best,
                "still_improving": best == steps,
            }
        )
    return dict(RESULT.read(run.path("result.json")))


def _asked(model: Model, sides: Mapping[str, Side], config: Config, seed: int) -> dict[str, Any]:
    """All that the model depends on: other sizes and amounts in the grid leave its run as it is."""
    unread, read = {
        "pre-trained": (("steps", "tuned_rate"), ("source",)),
        "from scratch": (("pretrain", "tuned_rate"), ("target",)),
        "fine-tuned": ((), ("source", "target")),
    }[model.kind]
    return {
        "method": "transfer_scaling",
        "model": asdict(model),
        "settings": {
            name: value for name, value in asdict(config).items() if name not in {"sizes", "amounts", "curve", *unread}
        },
        "data": {name: sides[name].fingerprint for name in read},
        "seed": seed,
    }


def _run(folder: Path, model: Model, asked: Mapping[str, Any]) -> Run:
    """Named by what it is, and by a key of what was asked for, so that other settings find another folder."""
    amount = "" if model.amount is None else f"-{model.amount:.0f}"
    key = sha256(to_json(asked).encode()).hexdigest()[:8]
    return Run(folder / "models" / f"{model.size}-{model.kind.replace(' ', '-')}{amount}-{key}")


def _optim(config: Config, model: Model) -> Optim:
    rate = config.tuned_rate if model.kind == "fine-tuned" else config.rate
    return Optim(
        lr=rate, weight_decay=0.1, beta2=0.95, warmup=0.1, batch=config.rows, patience=config.stop, precision="fp32"
    )


def _loss(network: NextToken, split: Split, trainer: Trainer) -> float:
    """Bits per byte."""
    bits = trainer.task.outputs(network, {}, split)
    return float(bits.sum() / split["text"].lengths.sum())


def losses_of(results: Mapping[Model, Mapping[str, Any]], kind: str) -> dict[int, dict[float, float]]:
    """parameters -> amount -> bits per byte."""
    found: dict[int, dict[float, float]] = {}
    for model, result in results.items():
        if model.kind == kind and model.amount is not None:
            found.setdefault(result["parameters"], {})[model.amount] = result["bits_per_byte"]
    return found
