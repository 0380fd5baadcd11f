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
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from papertrial.core.curves import fit_falling_line, fit_power_law
from papertrial.core.paper import Paper, Report, Trainer
from papertrial.core.recipe import Recipe, checked, sourced
from papertrial.papers.transfer_scaling.grid import Side, losses_of, sizes, train_grid
from papertrial.papers.transfer_scaling.report import report

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


@checked
@dataclass(frozen=True)
class Config:
    sizes: tuple[str, ...] = sourced(
        ("32x2", "64x2"), "papertrial default; width x layers. The paper has 9 sizes", "1 to 32 of any"
    )
    amounts: tuple[float, ...] = sourced(
        (1e3, 3e3), "papertrial default; bytes to fine-tune on, few as sec. 2 asks", "1 to 32 of [1, 1e15]"
    )
    curve: tuple[float, ...] = sourced(
        (1e4, 3e4), "papertrial default; further bytes to train on from scratch", "0 to 32 of [1, 1e15]"
    )
    pretrain: int = sourced(900, "papertrial default; steps of pre-training at most", "[1, 100000000]")
    steps: int = sourced(300, "papertrial default; of every other model at most", "[1, 100000000]")
    check: int = sourced(25, "papertrial default; steps from one validation to the next", "[1, 1000000]")
    stop: int = sourced(
        4, "papertrial default; validations without a better loss, after which a model is left", "[1, 1000000]"
    )
    rows: int = sourced(16, "papertrial default; rows of a batch", "[1, 1000000]")
    longest: int = sourced(128, "papertrial default; bytes of a row. The paper has 2048 tokens", "[2, 65536]")
    rate: float = sourced(5e-3, "papertrial default; learning rate from scratch and in pre-training", "[1e-9, 1000]")
    tuned_rate: float = sourced(2.5e-3, "papertrial default; learning rate of fine-tuning", "[1e-9, 1000]")
    judged: int = sourced(
        1000, "papertrial default; rows a model is judged on; it is validated on a fifth as many", "[1, 100000000]"
    )


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


def measure(
    source: Any,
    target: Any,
    config: Config | None = None,
    *,
    trainer: Trainer,
    folder: Path | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Report:
    """Train the grid and say how many bytes of `target` pre-training on `source` is worth.

    source, target: texts as `papertrial.open` gives them.  trainer: what prepares them, trains and judges.  folder: where
    the runs lie, one for each model; a call that finds them there goes on.  Raises DataError for data that is no text or
    too little of it, PapertrialError for settings that make no grid.
    """
    config = config or Config()
    sizes(config)
    sides = {name: Side.of(data, config, trainer, seed) for name, data in (("source", source), ("target", target))}
    with tempfile.TemporaryDirectory() as aside:
        results = train_grid(sides, config, trainer, Path(folder or aside), seed, progress)
    points = compare_points(losses_of(results, "from scratch"), losses_of(results, "fine-tuned"))
    return report(sides, config, results, points, fit_transfer(points))


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
