"""How often a verdict speaks where there is nothing to say, in simulated regimes: the table of docs/regimes.md.

    python -m tools.regimes          prints the table; --write puts it into the page

Every regime draws comparisons of two methods that are alike, and counts those that get a word, at a nominal 5 %. Beside it
stands the same count without the part of `core.stats` that is there for the regime.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import gamma

from papertrial.core.stats import FEW, HEAVY, SKEWED, by_group, half_width, long_tailed, mean_squares, tail
from papertrial.tasks import _influence
from papertrial.use.folds import assigned

PAGE = Path(__file__).parents[1] / "docs" / "regimes.md"
BEGIN, END = "<!-- table -->", "<!-- end -->"


@dataclass(frozen=True)
class Regime:
    """comparisons(count) gives pairs of differences (seeds, examples): as they are judged, and as they would be without what
    the regime calls for. bounded: whether the metric has bounds."""

    kind: str
    words: str
    comparisons: Callable[[int], Iterator[tuple[np.ndarray, np.ndarray]]]
    without: str = ""
    bounded: bool = False
    count: int = 2000

    def rates(self, count: int | None = None) -> tuple[float, float]:
        """The shares of comparisons with a word, as they are judged and without."""
        pairs = list(self.comparisons(count or self.count))
        return tuple(  # type: ignore[return-value]
            float(np.mean([speaks(pair[side], self.bounded, plain=bool(side)) for pair in pairs])) for side in (0, 1)
        )


def speaks(d: np.ndarray, bounded: bool, plain: bool = False) -> bool:
    """Whether one comparison gets a word. plain: without what is done for tails."""
    squares = mean_squares(d)
    side = 0.0 if bounded or plain else -np.sign(squares.mean)
    silent = side != 0 and squares.examples < FEW and abs(squares.skewness) > SKEWED
    return bool(not silent and abs(squares.mean) > half_width(squares, side=side))


def independent(rows: int, seeds: int, of_seeds: float, of_rows: float, rest: float) -> Callable[..., Iterator]:
    def draw(count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        rng = np.random.default_rng(0)
        for _ in range(count):
            d = of_seeds * rng.standard_normal((seeds, 1)) + of_rows * rng.standard_normal((1, rows))
            d = d + rest * rng.standard_normal((seeds, rows))
            yield d, d

    return draw


def right_or_wrong(rows: int, seeds: int, level: float) -> Callable[..., Iterator]:
    """Two methods that are right with the same chance in every row; rows differ in difficulty."""

    def draw(count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        rng = np.random.default_rng(1)
        for _ in range(count):
            own = level + 2 * rng.standard_normal(rows) + rng.standard_normal((2, 1, rows))
            own = own + 0.2 * rng.standard_normal((2, seeds, 1))
            first, second = (rng.random((2, seeds, rows)) < 1 / (1 + np.exp(-own))).astype(float)
            yield first - second, first - second

    return draw


def copies(groups: int, size: int, seeds: int, alike: bool) -> Callable[..., Iterator]:
    """Rows of a group are copies, judged by methods without chance; or alike, with noise and seeds."""

    def draw(count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        rng = np.random.default_rng(2)
        group = np.repeat(np.arange(groups), size)
        for _ in range(count):
            d = np.tile((rng.integers(0, 3, groups) - 1.0)[group], (seeds, 1))
            if alike:
                d = 0.5 * d + rng.standard_normal(d.shape) + 0.1 * rng.standard_normal((seeds, 1))
            yield by_group(d, group), d

    return draw


def heavy(rows: int, seeds: int) -> Callable[..., Iterator]:
    """A regressor whose errors have the tail of Student's t(2.5) against one with normal errors, judged by RMSE where no few
    rows decide it. Each metric is asked about errors that are alike in it."""
    freedom = 2.5
    absolute = 2 * np.sqrt(freedom / np.pi) * gamma((freedom + 1) / 2) / gamma(freedom / 2) / (freedom - 1)
    to_square, to_absolute = np.sqrt((freedom - 2) / freedom), np.sqrt(2 / np.pi) / absolute

    def draw(count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        rng, none = np.random.default_rng(3), np.zeros(rows)
        for _ in range(count):
            jitter = 1e-3 * rng.standard_normal((2, seeds, rows))
            long, short = rng.standard_t(freedom, rows) + jitter[0], rng.standard_normal(rows) + jitter[1]
            found = [np.array([sum(_influence.rmse(e, none)) for e in one]) for one in (to_square * long, short)]
            squares = found[0] - found[1]
            sizes = np.abs(to_absolute * long) - np.abs(short)
            decided = tail(squares)[0] > HEAVY or long_tailed(long, rows) or long_tailed(short, rows)
            yield (sizes if decided else squares), squares

    return draw


def skewed(rows: int, seeds: int, sigma: float) -> Callable[..., Iterator]:
    """Differences as lognormal numbers less their mean."""

    def draw(count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        rng = np.random.default_rng(4)
        for _ in range(count):
            d = np.exp(sigma * rng.standard_normal(rows)) - np.exp(sigma**2 / 2)
            d = d + 1e-3 * rng.standard_normal((seeds, rows))
            yield d, d

    return draw


def rare(rows: int, seeds: int, share: float, measure: Callable) -> Callable[..., Iterator]:
    """Two rankings of a rare class that are as good as each other, judged by what looks at that class."""

    def draw(count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        rng = np.random.default_rng(5)
        for _ in range(count):
            true = np.zeros(rows, dtype=bool)
            true[: round(share * rows)] = True
            shared = rng.standard_normal(rows) + 2 * true
            found = []
            for _method in range(2):
                own = shared + rng.standard_normal(rows)
                runs = [measure(own + 0.3 * rng.standard_normal(rows), true) for _ in range(seeds)]
                found.append(np.array([value + influence for value, influence in runs]))
            yield found[0] - found[1], found[0] - found[1]

    return draw


def folds(rows: int, repeats: int) -> Callable[..., Iterator]:
    """Two models on random halves of the columns of the same rows, each row a test row once in a repeat; and on one fifth."""
    from sklearn.linear_model import LogisticRegression

    def answers(x: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray) -> np.ndarray:
        return np.asarray(LogisticRegression(max_iter=30).fit(x[train], y[train]).predict(x[test]) == y[test])

    def draw(count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        rng = np.random.default_rng(6)
        for _ in range(count):
            x = rng.standard_normal((rows, 20))
            y = (x[:, :10].sum(1) + x[:, 10:].sum(1) + 2 * rng.standard_normal(rows) > 0).astype(int)
            columns = np.split(rng.permutation(20), 2)  # no half is better than the other, over data drawn anew
            d = np.zeros((repeats, rows))
            for repeat in range(repeats):
                fold = assigned(y, np.arange(rows), 5, repeat)
                for one in range(5):
                    test, train = np.flatnonzero(fold == one), np.flatnonzero(fold != one)
                    first, second = (answers(x[:, some], y, train, test) for some in columns)
                    d[repeat, test] = first.astype(float) - second
            fifth = np.flatnonzero(assigned(y, np.arange(rows), 5, 0) == 0)
            yield d, d[:, fifth]

    return draw


REGIMES = (
    Regime("independent", "300 rows, 5 seeds, seeds decide", independent(300, 5, 1.0, 0.1, 0.1)),
    Regime("independent", "300 rows, 3 seeds, rows decide", independent(300, 3, 0.1, 1.0, 1.0)),
    Regime("independent", "accuracy 0.7, 300 rows, 5 seeds", right_or_wrong(300, 5, 1.5), bounded=True),
    Regime("independent", "accuracy 0.95, 300 rows, 5 seeds", right_or_wrong(300, 5, 4.5), bounded=True),
    Regime("grouped", "50 cases x 20 copies, 5 seeds, methods without chance", copies(50, 20, 5, False), "by rows", True),
    Regime("grouped", "12 cases x 40 copies, 5 seeds, methods without chance", copies(12, 40, 5, False), "by rows", True),
    Regime("grouped", "50 patients x 20 rows that are alike, 5 seeds", copies(50, 20, 5, True), "by rows", True),
    Regime("grouped", "200 patients x 3 rows that are alike, 5 seeds", copies(200, 3, 5, True), "by rows", True),
    *(
        Regime("heavy tails", f"errors of Student's t(2.5), {rows:,} rows, 3 seeds", heavy(rows, 3), "RMSE", count=1000)
        for rows in (50, 100, 200, 300, 1000, 3000)
    ),
    *(
        Regime("few rows", f"lognormal differences, {rows:,} rows, 3 seeds", skewed(rows, 3, 1.5), "no allowance")
        for rows in (12, 20, 50, 200, 1000)
    ),
    *(
        Regime("rare class", f"{name}, {rows:,} rows, {count} of the class, 3 seeds", rare(rows, 3, count / rows, one), bounded=True, count=1000)
        for name, rows, count, one in (
            ("average precision", 600, 10, _influence.average_precision),
            ("average precision", 1000, 50, _influence.average_precision),
            ("AUC", 600, 10, _influence.auc),
            ("recall at a precision of 0.5", 1000, 50, _influence.recall_at(0.5)),
            ("precision at a recall of 0.9", 1000, 50, _influence.precision_at(0.9)),
        )
    ),
    Regime("folds", "200 rows, 5 folds x 3 repeats", folds(200, 3), bounded=True, count=200),
)  # fmt: skip


def table(count: int | None = None) -> list[str]:
    """Lines of Markdown."""
    lines = ["| regime | what | false words | without |", "|---|---|---|---|"]
    for regime in REGIMES:
        now, before = regime.rates(count)
        shown = f"{before:.1%} {regime.without}" if regime.without else ""
        lines.append(f"| {regime.kind} | {regime.words} | {now:.1%} | {shown} |".replace("%", " %"))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the table into docs/regimes.md")
    lines = table()
    if parser.parse_args().write:
        text = PAGE.read_text(encoding="utf-8")
        head, rest = text.split(BEGIN)[0], text.split(END)[1]
        PAGE.write_text("\n".join([head + BEGIN, *lines, END + rest]), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
