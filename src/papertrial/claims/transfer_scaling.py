"""The claims of Scaling Laws for Transfer, and the experiments that try them."""

from __future__ import annotations

import math
import tempfile
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from papertrial.claims._lab import data
from papertrial.core.errors import Declined
from papertrial.core.paper import Curve, Figure, Measured, claim
from papertrial.core.recipe import resolve
from papertrial.papers import transfer_scaling as paper
from papertrial.papers.transfer_scaling.grid import Side, losses_of, train_grid
from papertrial.train.trainer import Trainer

#: a law to be found again, and the learning curve that hides it: bits per byte at D bytes
_TRUTH = {"k": 20.0, "alpha": 0.4, "beta": 0.3}


_FLOOR, _SCALE, _EXPONENT = 1.0, 30.0, 0.25


def _planted(rng: np.random.Generator, unit: float = 1.0) -> list[paper.Point]:
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
    return paper.compare_points(scratch, tuned)


@claim(
    "Inverting the curve from scratch recovers the law planted in the losses, in any units of loss and data.",
    where="sec. 1, the definition of D_T",
    kind="identity",
)
def a_planted_law_is_found(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    measured = {}
    for name, unit in (("", 1.0), ("_in_other_units", 1e3)):
        law = paper.fit_transfer(_planted(np.random.default_rng(seed), unit))
        assert isinstance(law, paper.Law)
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
        paper.compare_points({9: curve}, {9: {amounts[2]: loss}})[0]
        for loss in (best - 1e-9, best, worst + 1e-9, curve[amounts[2]])
    ]
    states = [point.state for point in points]
    law = paper.fit_transfer([points[0], points[2]])
    return states == ["beyond", "measured", "hurts", "nothing"] and isinstance(law, str), {
        "effective_at_the_end_of_the_curve": points[1].equivalent / amounts[-1]
    }


@cache
def _measured(scale: str, seed: int) -> tuple[list[paper.Point], paper.Law | str]:
    """WikiText-2 and the library of Python, once for all claims on them. Raises Declined where they are not at hand."""
    config, _ = resolve(paper.Config, None, {scale: paper.recipes[scale].config})
    texts = {"source": "text/wikitext-2/test.txt", "target": "text/python-stdlib/cpython-3.11.7-lib.jsonl.gz"}
    trainer = Trainer.of(paper.PAPER)
    sides = {name: Side.of(data(text), config, trainer, seed) for name, text in texts.items()}
    with tempfile.TemporaryDirectory() as folder:
        results = train_grid(sides, config, trainer, Path(folder), seed, progress=False)
    points = paper.compare_points(losses_of(results, "from scratch"), losses_of(results, "fine-tuned"))
    return points, paper.fit_transfer(points)


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
    "Where data are fewest, the larger model gains more data by transfer.",
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
    "Data transferred grow with data, but more slowly, and with model size: 0 < alpha < 1 and beta > 0.",
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
