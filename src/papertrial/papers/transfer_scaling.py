"""Scaling Laws for Transfer - what pre-training is worth, as an amount of data that need not be collected.

Danny Hernandez, Jared Kaplan, Tom Henighan, Sam McCandlish. 2021, arXiv 2102.01293.

The idea
    A model pre-trained on one text and fine-tuned on another is as good as a model of the same size that saw more of the
    other text and nothing else. How much more is what pre-training is worth, in bytes. It follows a power law in the
    amount of data to fine-tune on and in the size of the model.

The equation
    L_scratch(N, D_E) = L_tuned(N, D_F)          D_E: effective data
    D_T = D_E - D_F                              D_T: effective data transferred
    D_T = k D_F^alpha N^beta                     where data are few; fitted as log D_T = log k + alpha log D_F + beta log N

What matters
    The curve from scratch must be trained as far as it goes: one that is cut short by its steps makes D_T too large, which
    the report says. Each model is kept as it was when its validation loss was best. The same bytes are tokens on both
    sides. D_E is read off the curve between the amounts it was measured at (a line that never rises, straight in log D);
    a fine-tuned model that beats every model from scratch is censored and never extrapolated.

Requires / Offers
    Requires two texts. Offers measure, which trains the grid, and the estimator alone: compare_points and fit_transfer.

Relations
    "Worth x labels" of `compare` turns the same curve round (`core.curves`). The models are those of `text_transformer`.

Try
    papertrial measure transfer_scaling python-docs --data python-source
    papertrial measure transfer_scaling corpus.txt --data mine/ --set sizes=32x2,64x2,96x3 --set amounts=1e4,1e5

Cost
    tiny: seconds on a CPU. base: minutes on a CPU. Every model is a run that goes on where it was killed.

Notation
    N parameters outside the embedding, D bytes, D_F fine-tuned on, D_E effective, D_T transferred, L bits per byte.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from papertrial.baselines import text_transformer
from papertrial.core import registry
from papertrial.core.budget import Budget, duration, size_in_words
from papertrial.core.curves import fit_falling_line, fit_power_law
from papertrial.core.errors import DataError, Declined, PapertrialError
from papertrial.core.files import read_json, to_json
from papertrial.core.paper import Curve, Figure, Measured, Paper, Report, claim
from papertrial.core.recipe import Optim, Recipe, resolve, sourced
from papertrial.core.run import Run
from papertrial.core.task import Ragged, Split
from papertrial.data import open as open_data
from papertrial.data.toy import at_hand
from papertrial.nn.heads import NextToken
from papertrial.nn.tokenise import Bytes
from papertrial.tasks.language_modeling import windows
from papertrial.train import checkpoint
from papertrial.train.loop import train

PAPER = Paper(
    id="transfer_scaling",
    title="Scaling Laws for Transfer",
    kind="analysis",
    method="measure",
    idea="Measures what pre-training is worth as an amount of fine-tuning data, and finds that it follows a power law.",
    authors="Danny Hernandez, Jared Kaplan, Tom Henighan, Sam McCandlish",
    year=2021,
    arxiv="2102.01293",
    month="2021-03",
    tasks=("language_modeling",),
    tags=("theory", "text", "transfer", "scaling"),
    builds_on=("text_transformer",),
    caveats=(
        "No code was published.",
        "The paper's models have up to a billion parameters and are trained until they no longer improve; here they have "
        "tens of thousands and are limited by steps, so that the exponents are not those of the paper.",
        "A curve from scratch that is limited by its steps makes pre-training look worth more than it is.",
        "The law is about few data. With 25 and 99 thousand parameters and 300 steps it shows at 1 and 3 kB; at 10 kB the "
        "curves from scratch are limited by their steps, and the fitted alpha exceeds 1 (measured here, one seed).",
        "Points beyond the curve from scratch are left out of the fit, which drops the largest values of D_T.",
    ),
    trains=True,
)


@dataclass(frozen=True)
class Config:
    sizes: tuple[str, ...] = sourced(("32x2", "64x2"), "papertrial default; width x layers. The paper has 9 sizes")
    amounts: tuple[float, ...] = sourced((1e3, 3e3), "papertrial default; bytes to fine-tune on, few as sec. 2 asks")
    curve: tuple[float, ...] = sourced((1e4, 3e4), "papertrial default; further bytes to train on from scratch")
    pretrain: int = sourced(900, "papertrial default; steps of pre-training at most")
    steps: int = sourced(300, "papertrial default; of every other model at most")
    check: int = sourced(25, "papertrial default; steps from one validation to the next")
    stop: int = sourced(4, "papertrial default; validations without a better loss, after which a model is left")
    rows: int = sourced(16, "papertrial default; rows of a batch")
    longest: int = sourced(128, "papertrial default; bytes of a row. The paper has 2048 tokens")
    rate: float = sourced(5e-3, "papertrial default; learning rate from scratch and in pre-training")
    tuned_rate: float = sourced(2.5e-3, "papertrial default; learning rate of fine-tuning")
    judged: int = sourced(1000, "papertrial default; rows a model is judged on; it is validated on a fifth as many")


# ----------------------------------------------------------------------------------------------------- the estimator


_ROUNDING = 1e-9


@dataclass(frozen=True)
class Point:
    """A model of `size` parameters, fine-tuned on `amount` bytes.

    scratch, tuned: losses of the one trained on these bytes alone and of the one pre-trained before.  equivalent: D_E, inf
    beyond the curve from scratch and 0 before it.  by_law: the same on the power law through the curve, as "worth x
    labels" has it, inf where the law never comes down to the loss.  least, most: ends of the curve.
    """

    size: int
    amount: float
    scratch: float
    tuned: float
    equivalent: float
    by_law: float
    least: float
    most: float

    @property
    def transferred(self) -> float:
        """D_T; inf where it is censored. Negative where pre-training hurts."""
        return self.equivalent - self.amount

    @property
    def state(self) -> str:
        """measured, beyond (better than every model from scratch), nothing, or hurts (as good as with less data)."""
        if math.isinf(self.equivalent):
            return "beyond"
        if abs(self.transferred) < _ROUNDING * self.amount:
            return "nothing"
        return "measured" if self.transferred > 0 else "hurts"

    def to_json(self) -> dict[str, Any]:
        known = 0 < self.equivalent < math.inf
        return {
            **asdict(self),
            "equivalent": self.equivalent if known else None,
            "transferred": self.transferred if known else None,
            "multiplier": self.equivalent / self.amount if known else None,
            "state": self.state,
        }


def compare_points(
    scratch: Mapping[int, Mapping[float, float]], tuned: Mapping[int, Mapping[float, float]]
) -> list[Point]:
    """Where on the curve from scratch each fine-tuned model stands.

    scratch, tuned: size -> amount -> loss; the curve of a size holds the amounts that it is fine-tuned on. Amounts and
    losses may be in any units.
    """
    points = []
    for size, losses in tuned.items():
        amounts, curve = (np.array(column) for column in zip(*sorted(scratch[size].items()), strict=True))
        line, law = fit_falling_line(amounts, curve), fit_power_law(amounts, curve)
        points += [
            Point(
                size,
                amount,
                scratch[size][amount],
                loss,
                equivalent=float(line.labels(loss)),
                by_law=float(law.labels(loss)),
                least=float(amounts[0]),
                most=float(amounts[-1]),
            )
            for amount, loss in sorted(losses.items())
        ]
    return points


@dataclass(frozen=True)
class Law:
    """D_T = k D_F^alpha N^beta. intervals: 95 % of log k, alpha and beta; None where as many points as coefficients fit.

    r2: share of the variance of log D_T that is explained.
    """

    k: float
    alpha: float
    beta: float
    r2: float
    points: int
    intervals: tuple[tuple[float, float], ...] | None

    def transferred(self, amount: Any, size: Any) -> Any:
        return self.k * np.power(amount, self.alpha) * np.power(size, self.beta)


def fit_transfer(points: Sequence[Point]) -> Law | str:
    """Least squares in logarithms over the measured points, with Student intervals, or why there is no law.

    Censored points, and those where pre-training hurts, have no logarithm and are left out.
    """
    used = [point for point in points if point.state == "measured"]
    logs = np.log([(point.amount, point.size, point.transferred) for point in used]).reshape(-1, 3)
    middle = logs.mean(0) if used else np.zeros(3)  # amounts and sizes are far from 1, which would cost digits
    x = np.column_stack([np.ones(len(used)), (logs - middle)[:, :2]])
    if np.linalg.matrix_rank(x) < 3:
        return (
            f"it takes three points of two sizes and two amounts, and {len(used)} of {len(points)} points are measured"
        )
    y = logs[:, 2]
    inverse = np.linalg.inv(x.T @ x)
    coefficients = inverse @ x.T @ y
    residual, total = float(np.square(y - x @ coefficients).sum()), float(np.square(y - y.mean()).sum())
    at_one = np.array([1.0, -middle[0], -middle[1]])  # where D_F = N = 1
    log_k, (alpha, beta) = float(at_one @ coefficients), coefficients[1:].tolist()
    intervals = None
    if (free := len(used) - 3) > 0:
        from scipy.special import stdtrit

        variance = np.array([at_one @ inverse @ at_one, inverse[1, 1], inverse[2, 2]]) * residual / free
        half = (stdtrit(free, 0.975) * np.sqrt(variance)).tolist()
        intervals = tuple((value - h, value + h) for value, h in zip((log_k, alpha, beta), half, strict=True))
    return Law(math.exp(log_k), alpha, beta, 1 - residual / total if total else 1.0, len(used), intervals)


# ----------------------------------------------------------------------------------------------- the grid of models


@dataclass(frozen=True)
class _Side:
    """One of the two texts. rows: int32 (R, longest) ids in random order.  valid, test: what models are judged on."""

    name: str
    fingerprint: str
    rows: np.ndarray
    valid: Split
    test: Split

    @classmethod
    def of(cls, data: Any, config: Config, seed: int) -> _Side:
        """Raises DataError for data that is no text, or too little of it."""
        prepared = registry.task("language_modeling").prepare(data, seed)
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
class _Model:
    """One of the grid. amount: bytes it is trained on, None for all there are, of the text to pre-train on."""

    size: str
    kind: str  # pre-trained | from scratch | fine-tuned
    amount: float | None

    def __str__(self) -> str:
        return f"{self.size} {self.kind}" + ("" if self.amount is None else f" on {size_in_words(self.amount)}")


def measure(
    source: Any,
    target: Any,
    config: Config | None = None,
    *,
    folder: Path | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Report:
    """Train the grid and say how many bytes of `target` pre-training on `source` is worth.

    source, target: texts as `papertrial.open` gives them.  folder: where the runs lie, one for each model; a call that
    finds them there goes on.  Raises DataError for data that is no text or too little of it, PapertrialError for settings
    that make no grid.
    """
    config = config or Config()
    _sizes(config)
    sides = {"source": _Side.of(source, config, seed), "target": _Side.of(target, config, seed)}
    with tempfile.TemporaryDirectory() as aside:
        results = _grid(sides, config, Path(folder or aside), seed, progress)
    return _report(sides, config, results)


def _sizes(config: Config) -> dict[str, text_transformer.Config]:
    """size as the user writes it -> the model's settings."""
    found = {}
    for text in config.sizes:
        try:
            width, depth = (int(number) for number in text.split("x"))
        except ValueError:
            width = depth = 0
        if width < 16 or width % 16 or depth < 1:
            raise PapertrialError(f"cannot read the size {text!r}", "write sizes=32x2,64x2; widths are multiples of 16")
        found[text] = text_transformer.Config(
            width, depth, width // 16, 4 * width, config.longest, 0.0, "bytes", causal=True
        )
    if not found or not config.amounts:
        raise PapertrialError("there is nothing to train", "give sizes=32x2,64x2 and amounts=1e4,3e4")
    return found


def _models(config: Config, available: int) -> list[_Model]:
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
            _Model(size, "pre-trained", None),
            *(_Model(size, "from scratch", amount) for amount in curve),
            *(_Model(size, "fine-tuned", amount) for amount in tuned),
        )
    ]


def _grid(
    sides: Mapping[str, _Side], config: Config, folder: Path, seed: int, progress: bool
) -> dict[_Model, dict[str, Any]]:
    """The result of every model, trained one after the other, with a line for each and the time that is left."""
    settings = _sizes(config)
    models = _models(config, sides["target"].bytes)
    waiting = [model for model in models if not _run(folder, model, _asked(model, sides, config, seed)).done]
    work = {model: _steps(model, config) * _work(settings[model.size]) for model in waiting}
    results: dict[_Model, dict[str, Any]] = {}
    begun, total = time.monotonic(), sum(work.values())
    for model in models:
        results[model] = _trained(model, sides, config, settings[model.size], folder, seed, progress)
        left = sum(work[other] for other in waiting if other not in results)
        if progress and left and model in waiting:
            seconds = (time.monotonic() - begun) / (total - left) * left
            rest = f"{len(results)} of {len(models)} models, {duration(seconds)} left at most"
            print(f"transfer_scaling: {model} trained, {rest}", file=sys.stderr, flush=True)
    return results


def _steps(model: _Model, config: Config) -> int:
    return config.pretrain if model.kind == "pre-trained" else config.steps


def _work(size: text_transformer.Config) -> float:
    """Multiplications of a byte, those of the embedding table's logits among them."""
    return size.width * (12.0 * size.width * size.depth + 2.0 * size.longest * size.depth + Bytes.size)


def _trained(
    model: _Model,
    sides: Mapping[str, _Side],
    config: Config,
    size: text_transformer.Config,
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
            return dict(read_json(run.path("result.json")))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = NextToken(text_transformer.build(size, None))  # type: ignore[arg-type] # asks nothing of the facts
        if model.kind == "fine-tuned":
            before = _Model(model.size, "pre-trained", None)
            weights = _run(folder, before, _asked(before, sides, config, seed)).path("model.safetensors")
            checkpoint.load_model_tensors(network, checkpoint.load(weights)[0])
        steps = _steps(model, config)
        held = len(side.rows) if model.amount is None else max(1, int(model.amount) // config.longest)
        # an epoch, after which the model is validated, is `check` steps at least
        ids = side.rows[np.resize(np.arange(held), max(held, config.check * config.rows))]
        train(
            network,
            Split({"ids": ids}),
            _optim(config, model),
            Budget(steps=steps),
            run,
            seed=seed,
            validate=lambda: -_loss(network, side.valid),
            progress=progress,
        )
        if model.amount is None:
            checkpoint.save(run.path("model.safetensors"), checkpoint.model_tensors(network), {})
        validations = [(row["step"], row["validation"]) for row in run.history() if "validation" in row]
        last, best = validations[-1][0], max(validations, key=lambda pair: pair[1])[0]
        stack: Any = network.encoder.stack
        run.finish(
            {
                "model": str(model),
                "parameters": sum(parameter.numel() for parameter in stack.parameters()),
                "bits_per_byte": _loss(network, side.test),
                "steps": last,
                "best_step": best,
                "still_improving": best == steps,
            }
        )
    return dict(read_json(run.path("result.json")))


def _asked(model: _Model, sides: Mapping[str, _Side], config: Config, seed: int) -> dict[str, Any]:
    """All that the model depends on: other sizes and amounts in the grid leave its run as it is."""
    unread, read = {
        "pre-trained": (("steps", "tuned_rate"), ("source",)),
        "from scratch": (("pretrain", "tuned_rate"), ("target",)),
        "fine-tuned": ((), ("source", "target")),
    }[model.kind]
    return {
        "method": PAPER.id,
        "model": asdict(model),
        "settings": {
            name: value for name, value in asdict(config).items() if name not in {"sizes", "amounts", "curve", *unread}
        },
        "data": {name: sides[name].fingerprint for name in read},
        "seed": seed,
    }


def _run(folder: Path, model: _Model, asked: Mapping[str, Any]) -> Run:
    """Named by what it is, and by a key of what was asked for, so that other settings find another folder."""
    amount = "" if model.amount is None else f"-{model.amount:.0f}"
    key = sha256(to_json(asked).encode()).hexdigest()[:8]
    return Run(folder / "models" / f"{model.size}-{model.kind.replace(' ', '-')}{amount}-{key}")


def _optim(config: Config, model: _Model) -> Optim:
    rate = config.tuned_rate if model.kind == "fine-tuned" else config.rate
    return Optim(
        lr=rate, weight_decay=0.1, beta2=0.95, warmup=0.1, batch=config.rows, patience=config.stop, precision="fp32"
    )


def _loss(network: NextToken, split: Split) -> float:
    """Bits per byte."""
    bits = registry.task("language_modeling").outputs(network, {}, split)
    return float(bits.sum() / split["text"].lengths.sum())


# -------------------------------------------------------------------------------------------------------- the report


def _losses(results: Mapping[_Model, Mapping[str, Any]], kind: str) -> dict[int, dict[float, float]]:
    """parameters -> amount -> bits per byte."""
    found: dict[int, dict[float, float]] = {}
    for model, result in results.items():
        if model.kind == kind and model.amount is not None:
            found.setdefault(result["parameters"], {})[model.amount] = result["bits_per_byte"]
    return found


def _report(sides: Mapping[str, _Side], config: Config, results: Mapping[_Model, Mapping[str, Any]]) -> Report:
    scratch, tuned = _losses(results, "from scratch"), _losses(results, "fine-tuned")
    points = compare_points(scratch, tuned)
    law = fit_transfer(points)
    cut = [model for model, result in results.items() if model.kind == "from scratch" and result["still_improving"]]
    source, target = (side.name for side in sides.values())
    return Report(
        title=f"What is pre-training on {source} worth, in bytes of {target}?",
        verdict=_verdict(points, law, source, target),
        facts=(
            ("pre-training", f"{source}, {size_in_words(sides['source'].bytes)}"),
            ("fine-tuning", f"{target}, of {size_in_words(sides['target'].bytes)}"),
            ("models", f"{len(results)}, of {', '.join(f'{size:,}' for size in scratch)} parameters, {config.pretrain} and {config.steps} steps at most"),
        ),
        head=("parameters", "fine-tuned on", "from scratch", "fine-tuned", "effective", "transferred", "times", "power law"),
        rows=tuple(_row(point) for point in points),
        numbers={
            "points": [point.to_json() for point in points],
            "law": asdict(law) if isinstance(law, Law) else None,
            "no_law": "" if isinstance(law, Law) else law,
            "from_scratch": scratch,
            "fine_tuned": tuned,
            "still_improving": [str(model) for model in cut],
        },
        figures=tuple(figure for figure in (_loss_figure(scratch, tuned), _transfer_figure(points, law)) if figure.curves),
        caveats=_caveats(points, law, cut, sum(map(len, scratch.values()))),
    )  # fmt: skip


def _row(point: Point) -> tuple[str, ...]:
    if point.state == "beyond":
        reached = (
            f">{size_in_words(point.most)}",
            f">{size_in_words(point.most - point.amount)}",
            f">{point.most / point.amount:.2g}x",
        )
    elif point.equivalent == 0:
        reached = (f"<{size_in_words(point.least)}", "hurts", f"<{point.least / point.amount:.2g}x")
    else:
        worth = size_in_words(point.transferred) if point.transferred >= 0 else f"-{size_in_words(-point.transferred)}"
        reached = (size_in_words(point.equivalent), worth, f"{point.equivalent / point.amount:.3g}x")
    by_law = size_in_words(point.by_law) if point.least <= point.by_law <= point.most else "outside"
    return (
        f"{point.size:,}",
        size_in_words(point.amount),
        f"{point.scratch:.3f}",
        f"{point.tuned:.3f}",
        *reached,
        by_law,
    )


def _verdict(points: Sequence[Point], law: Law | str, source: str, target: str) -> str:
    states = [point.state for point in points]
    known = [point.transferred for point in points if point.state == "measured"]
    parts = []
    if known:
        worth = size_in_words(min(known)) + (f" to {size_in_words(max(known))}" if len(known) > 1 else "")
        parts.append(f"pre-training on {source} is worth {worth} of {target} ({len(known)} of {len(points)} points)")
    if beyond := states.count("beyond"):
        most = size_in_words(max(point.most for point in points))
        parts.append(
            f"at {beyond} it is better than all training from scratch, with up to {most}, and its worth unknown"
        )
    if hurt := states.count("hurts"):
        parts.append(f"at {hurt} it hurts (ossification)")
    if none := states.count("nothing"):
        parts.append(f"at {none} it changes nothing")
    if isinstance(law, Law):
        parts.append(f"D_T = {law.k:.3g} D_F^{_with_interval(law, 1)} N^{_with_interval(law, 2)}")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _with_interval(law: Law, index: int) -> str:
    value = (law.alpha, law.beta)[index - 1]
    if law.intervals is None:
        return f"{value:.2f}"
    low, high = law.intervals[index]
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _caveats(points: Sequence[Point], law: Law | str, cut: Sequence[_Model], scratch: int) -> tuple[str, ...]:
    found = ["One seed was trained: what differs between seeds is in no interval."]
    if cut:
        found.append(
            f"{len(cut)} of {scratch} models from scratch still improved at their last step; with more steps they would need "
            "less data, so that pre-training is worth less than it says here."
        )
    if isinstance(law, str):
        found.append(f"No power law: {law}.")
    else:
        left = len(points) - law.points
        if left:
            found.append(f"The law is fitted to {law.points} points; {left} have no logarithm or are not known.")
        if law.intervals is None:
            found.append("The law has as many coefficients as points: it fits whatever they are.")
    return tuple(found)


def _loss_figure(scratch: Mapping[int, Mapping[float, float]], tuned: Mapping[int, Mapping[float, float]]) -> Figure:
    curves = [
        Curve(f"{size:,} parameters, {kind}", tuple(sorted(losses)), tuple(losses[amount] for amount in sorted(losses)))
        for kind, table in (("from scratch", scratch), ("fine-tuned", tuned))
        for size, losses in table.items()
    ]
    return Figure(
        "Loss by the amount of data",
        "bytes trained or fine-tuned on",
        "bits per byte",
        tuple(curves),
        "The way to the right from a fine-tuned point to the curve from scratch is the data transferred.",
        log_x=True,
    )


def _transfer_figure(points: Sequence[Point], law: Law | str) -> Figure:
    curves = []
    for size in sorted({point.size for point in points}):
        own = [point for point in points if point.size == size and point.state == "measured"]
        if own:
            amounts = tuple(point.amount for point in own)
            curves.append(Curve(f"{size:,} parameters", amounts, tuple(point.transferred for point in own)))
            if isinstance(law, Law):
                fitted = tuple(float(law.transferred(amount, size)) for amount in amounts)
                curves.append(Curve(f"{size:,} parameters, power law", amounts, fitted))
    return Figure(
        "Effective data transferred",
        "bytes fine-tuned on",
        "bytes transferred",
        tuple(curves),
        "How many more bytes a model from scratch would have needed. Points that are censored are left out.",
        log=True,
        log_x=True,
    )


recipes = {
    "paper": Recipe(
        "paper",
        config={
            "sizes": ("128x4", "256x6", "512x8", "768x12", "1024x16"), "amounts": (1e5, 3e5, 1e6, 3e6, 1e7),
            "curve": (3e7, 1e8, 3e8, 1e9), "pretrain": 100_000, "steps": 100_000, "check": 500, "rows": 256, "longest": 2048, "rate": 1e-3,
            "tuned_rate": 3e-4, "judged": 10_000, "stop": 10,
        },
        source="as near to sec. 2 as two texts of gigabytes allow; the paper pre-trains once and tunes the rates",
        cost="days on several GPUs",
        expect="D_T = 1.9e4 D_F^0.18 N^0.38 from English to Python, D in characters (fig. 2)",
    ),
    "base": Recipe(
        "base",
        source="amounts and pre-training chosen among four by the outcome of seed 0 on WikiText-2 and Python's library",
        cost="minutes on a CPU",
    ),
    "tiny": Recipe(
        "tiny",
        config={
            "sizes": ("16x1", "32x1"), "amounts": (1e3, 2e3), "curve": (4e3,), "pretrain": 24, "steps": 24, "check": 8, "rows": 8,
            "longest": 64, "judged": 40,
        },
        source="small enough for tests",
        cost="seconds on a CPU",
    ),
}  # fmt: skip


# ----------------------------------------------------------------------------------------------------------- claims

#: a law to be found again, and the learning curve that hides it: bits per byte at D bytes
_TRUTH = {"k": 20.0, "alpha": 0.4, "beta": 0.3}
_FLOOR, _SCALE, _EXPONENT = 1.0, 30.0, 0.25


def _planted(rng: np.random.Generator, unit: float = 1.0) -> list[Point]:
    """Points of models whose losses follow the law, measured in `unit` bits and with amounts in `unit` bytes."""
    amounts, curve = rng.uniform(1e3, 1e5, 4), np.geomspace(1e2, 1e9, 400)

    def loss(amount: float, size: int) -> float:
        return unit * (_FLOOR + _SCALE / math.log(size) * amount**-_EXPONENT)

    scratch, tuned = {}, {}
    for size in (20_000, 100_000, 500_000):
        scratch[size] = {amount / unit: loss(amount, size) for amount in sorted({*amounts.tolist(), *curve.tolist()})}
        tuned[size] = {
            amount / unit: loss(amount + _TRUTH["k"] * amount ** _TRUTH["alpha"] * size ** _TRUTH["beta"], size)
            for amount in amounts.tolist()
        }
    return compare_points(scratch, tuned)


@claim(
    "Turning the curve from scratch round finds the law that was planted in the losses, in any units of loss and data.",
    where="sec. 1, the definition of D_T",
    kind="identity",
)
def a_planted_law_is_found(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    measured = {}
    for name, unit in (("", 1.0), ("_in_other_units", 1e3)):
        law = fit_transfer(_planted(np.random.default_rng(seed), unit))
        assert isinstance(law, Law)
        k = law.k * unit ** (1 - law.alpha)
        for coefficient, found in (("k", k), ("alpha", law.alpha), ("beta", law.beta)):
            measured[f"error_of_{coefficient}{name}"] = abs(found / _TRUTH[coefficient] - 1)
    return max(measured.values()) < 0.01, measured


@claim(
    "A fine-tuned model that beats every model from scratch is censored, and one that is worse than all of them hurts: "
    "neither enters the law.",
    where="sec. 2, D_E is read off the runs from scratch",
    kind="property",
)
def beyond_the_curve_nothing_is_known(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    rng = np.random.default_rng(seed)
    amounts = np.sort(rng.uniform(1e3, 1e6, 5)).tolist()
    curve = dict(zip(amounts, np.sort(rng.uniform(2.0, 4.0, 5))[::-1].tolist(), strict=True))
    best, worst = min(curve.values()), max(curve.values())
    points = [
        compare_points({9: curve}, {9: {amounts[2]: loss}})[0]
        for loss in (best - 1e-9, best, worst + 1e-9, curve[amounts[2]])
    ]
    states = [point.state for point in points]
    law = fit_transfer([points[0], points[2]])
    return states == ["beyond", "measured", "hurts", "nothing"] and isinstance(law, str), {
        "effective_at_the_end_of_the_curve": points[1].equivalent / amounts[-1]
    }


@cache
def _measured(scale: str, seed: int) -> tuple[list[Point], Law | str]:
    """WikiText-2 and the library of Python, once for all claims on them. Raises Declined where they are not at hand."""
    source = open_data(at_hand("text/wikitext-2/test.txt"))
    target = open_data(at_hand("text/python-stdlib/cpython-3.11.7-lib.jsonl.gz"))
    config, _ = resolve(Config, None, {scale: recipes[scale].config})
    sides = {"source": _Side.of(source, config, seed), "target": _Side.of(target, config, seed)}
    with tempfile.TemporaryDirectory() as folder:
        results = _grid(sides, config, Path(folder), seed, progress=False)
    points = compare_points(_losses(results, "from scratch"), _losses(results, "fine-tuned"))
    return points, fit_transfer(points)


def _gains(measured: Measured) -> Figure:
    sizes = sorted({int(name.split()[2]) for row in measured for name in row if name.startswith("gain of ")})
    return Figure(
        "What pre-training gains",
        "bytes fine-tuned on",
        "bits per byte",
        tuple(Curve.over_seeds(f"{size:,} parameters", measured, f"gain of {size} at {{}}") for size in sizes),
        "Loss from scratch less loss of the fine-tuned model, by what both are trained on.",
        log_x=True,
    )


@claim(
    "Fine-tuned models beat those from scratch of the same size at every amount of data.",
    where="fig. 1, there up to 1e9 parameters, here 25k and 99k, from WikiText-2 to Python's library",
    kind="trend",
    cost={"tiny": "10 s cpu", "base": "3 min cpu"},
    plot=_gains,
)
def pretraining_lowers_the_loss(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    points, _ = _measured(scale, seed)
    measured = {f"gain of {point.size} at {point.amount:.0f}": point.scratch - point.tuned for point in points}
    measured["margin"] = min(measured.values())
    return measured["margin"] > 0, measured


@claim(
    "Where data are fewest, more data are transferred to the larger model.",
    where="fig. 2, beta > 0; the same models",
    kind="trend",
    cost={"tiny": "10 s cpu", "base": "3 min cpu"},
)
def larger_models_transfer_more(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    points, _ = _measured(scale, seed)
    fewest = min(point.amount for point in points)
    first = sorted((point for point in points if point.amount == fewest), key=lambda point: point.size)
    if any(point.state == "beyond" for point in first[:-1]):
        raise Declined("a smaller model beats all from scratch, so that none is known to transfer more")
    # where the largest is beyond the curve, it transfers as much as to its end at the least
    measured = {f"transferred to {point.size}": min(point.equivalent, point.most) - fewest for point in first}
    measured["margin"] = min(after - before for before, after in pairwise(measured.values())) / fewest
    return measured["margin"] > 0, measured


@claim(
    "Data transferred grow with data and slower than they, and with the size: 0 < alpha < 1 and beta > 0.",
    where="fig. 2; the same models",
    kind="trend",
    cost={"tiny": "10 s cpu", "base": "3 min cpu"},
)
def the_law_has_exponents_of_that_sign(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    _, law = _measured(scale, seed)
    if isinstance(law, str):
        raise Declined(f"the law cannot be fitted: {law}")
    margin = min(law.alpha, 1 - law.alpha, law.beta)
    return margin > 0, {"alpha": law.alpha, "beta": law.beta, "r2": law.r2, "points": law.points, "margin": margin}


@claim(
    "From English to Python, k = 1.9e4, alpha = 0.18 and beta = 0.38, with D in characters.",
    where="fig. 2 and table 1",
    kind="number",
    cost={"base": "GPUs for days"},
)
def the_papers_exponents(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    raise Declined("needs models of up to 1e9 parameters, trained until they no longer improve on gigabytes of text")
