"""GENIE - a leaderboard on which people judge generated text, the same way for every system.

Daniel Khashabi, Gabriel Stanovsky, Jonathan Bragg, Nicholas Lourie, Jungo Kasai, Yejin Choi, Noah A. Smith, Daniel S. Weld.
EMNLP 2022, arXiv 2101.06561.

The idea
    Scores by people can be compared only if all systems were judged in one way. So the questions, the scale, the number of
    answers and their summary are fixed for a task, and raters who do not look are found by test questions whose answers
    are known.

The equation
    value(strongly agree .. strongly disagree) = 1, .75, .5, .25, 0;   score = mean over instances of their values
    [low, high] = percentiles 2.5 and 97.5 of the score over resampled instances
    right_w ~ sum_k pi_k BetaBinomial(total_w, a_k, b_k)                                              (test questions)
    threshold: noisy_w = P(p_w <= .9 | answers of w);   component: noisy_w = P(w is not of the component of highest mean)
    several types of questions: noisy_w = 1 - prod_t (1 - noisy_wt)

What matters
    One answer each for many instances (unilabelling) says more about a system than several for few. Act on a rater only
    when nearly certain (0.99): the model is sequential, and the next answers will tell.

Requires / Offers
    Requires answers of people. Offers a probability that a rater is noisy, and a score with an interval.

Relations
    `study.people` adds what the interval over instances leaves out: that other raters would have said other things.

Try
    papertrial judge results answers.jsonl

Cost
    The worker model takes under a second for 200 raters on a CPU.

Notation
    w raters, k components, p_w the share of test questions that rater w answers rightly, pi_k the share of component k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import betainc, digamma, gammaln, logsumexp

from papertrial.core.errors import PapertrialError
from papertrial.core.judgement import Check
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced

PAPER = Paper(
    id="genie",
    title="GENIE: Toward Reproducible and Standardized Human Evaluation for Text Generation",
    kind="system",
    command="papertrial judge",
    idea="People judge every text generator in the same way, and test questions find the raters who do not look.",
    authors="Daniel Khashabi, Gabriel Stanovsky, Jonathan Bragg, Nicholas Lourie, Jungo Kasai, Yejin Choi, Noah A. Smith, "
    "Daniel S. Weld",
    year=2021,
    arxiv="2101.06561",
    month="2021-01",
    tasks=("human_judgement",),
    tags=("evaluation", "people", "text"),
    official="https://github.com/allenai/genie-worker-scoring",
    licence="Apache-2.0",
    caveats=(
        "The interval over instances takes the raters as given. With 3 raters who answer everything it held the truth far less "
        "often than 95 % in our simulations (claim instances_alone_leave_the_raters_out); study.people resamples both.",
        "The authors' code gives NaN where nobody errs on the test questions: Minka's iteration takes b to 0. Here parameters "
        "stay above 1e-4.",
        "The threshold detector asks whether a rater is right on 90 % of the test questions or less, so an honest rater with "
        "hard test questions is noisy too.",
        "The authors publish the worker model, not the leaderboard: the rest follows the text.",
    ),
)


@checked
@dataclass(frozen=True)
class Config:
    detector: str = sourced("threshold", "authors' repository, the first of its two", "threshold | component")
    threshold: float = sourced(
        0.9, "authors' repository, ThresholdDetector.fit; share of right answers of a careful rater", "[0, 1]"
    )
    components: int = sourced(
        0, "authors' repository: 1 for the threshold detector, 2 for the component detector; 0 chooses so", "[0, 100]"
    )
    certain: float = sourced(
        0.99, "papertrial default; the authors' README asks for a high cut-off, such as 0.999", "[0, 1]"
    )
    starts: int = sourced(10, "authors' repository, n_initializations", "[1, 10000]")
    tolerance: float = sourced(1e-6, "authors' repository, rel_tol; a tenth of it within a step of EM", "[1e-15, 1]")
    draws: int = sourced(2000, "papertrial default: resamples of the instances", "[1, 10000000]")


#: parameters of a component stay within: MLEs may lie at 0 or at infinity
_LEAST, _MOST = 1e-4, 1e6
_STEPS, _INNER, _FURTHEST = 1000, 20, 3.0


def log_likelihood(right: np.ndarray, wrong: np.ndarray, a: Any, b: Any) -> np.ndarray:
    """log BetaBinomial(right | right + wrong, a, b), float64, by broadcasting."""
    total = right + wrong
    return (
        gammaln(total + 1) - gammaln(right + 1) - gammaln(wrong + 1)
        + gammaln(right + a) + gammaln(wrong + b) - gammaln(total + a + b)
        + gammaln(a + b) - gammaln(a) - gammaln(b)
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Mixture:
    """Of beta-binomials: share, a, b float64 (components,); leading axes are separate mixtures."""

    share: np.ndarray
    a: np.ndarray
    b: np.ndarray

    def log_likelihood(self, right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
        """float64 (raters,)."""
        return logsumexp(self._joint(right, wrong), axis=-1)

    def components(self, right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
        """Posterior probability of each component, float64 (raters, components)."""
        joint = self._joint(right, wrong)
        return np.exp(joint - logsumexp(joint, axis=-1, keepdims=True))

    def below(self, threshold: float, right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
        """Threshold detector: P(p <= threshold | answers), float64 (raters,)."""
        posterior = betainc(self.a + np.asarray(right)[:, None], self.b + np.asarray(wrong)[:, None], threshold)
        return (self.components(right, wrong) * posterior).sum(axis=-1)

    def not_best(self, right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
        """Component detector: P(not of the component of highest mean | answers), float64 (raters,)."""
        best = int(np.argmax(self.a / (self.a + self.b)))
        return np.delete(self.components(right, wrong), best, axis=-1).sum(axis=-1)

    def _joint(self, right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
        right, wrong = np.asarray(right, np.float64)[:, None], np.asarray(wrong, np.float64)[:, None]
        with np.errstate(divide="ignore"):  # a component may die out
            share = np.log(self.share)
        return share[..., None, :] + log_likelihood(right, wrong, self.a[..., None, :], self.b[..., None, :])


def fit_mixture(
    right: np.ndarray,
    wrong: np.ndarray,
    components: int = 1,
    *,
    starts: int = 10,
    tolerance: float = 1e-6,
    seed: int = 0,
) -> Mixture:
    """The most likely mixture for `right` and `wrong` answers (raters,) to test questions: EM from several random starts.

    The M-step of a component is T. Minka's fixed point ("Estimating a Dirichlet distribution", 2000). All starts go side by
    side, until none gains.  Raises PapertrialError without raters.
    """
    if not len(right):
        raise PapertrialError("nobody answered a test question", "add test questions whose answers are known")
    pairs, count = np.unique(np.stack([right, wrong]).astype(np.float64), axis=1, return_counts=True)
    rng = np.random.default_rng(seed)
    shape = (starts if components > 1 else 1, components)
    mean, size = rng.random(shape), rng.gamma(2.0, size=shape)  # as in the authors' repository
    mixture = Mixture(np.full(shape, 1 / components), _kept(mean * size), _kept((1 - mean) * size))
    before = mixture.log_likelihood(*pairs) @ count
    stretch = np.ones(shape[0])
    for _ in range(_STEPS):
        weight = count[:, None] * mixture.components(*pairs)
        ones, zeros = pairs[..., None]
        a, b = _maximised(ones, zeros, weight, mixture.a, mixture.b, tolerance / 10)
        near = Mixture(weight.sum(axis=-2) / count.sum(), a, b)
        # DIFF: and as far again in the same direction, for as long as that is more likely: answers that scatter less than
        # those of equal raters have their optimum at infinity, where single steps take thousands
        far = replace(near, a=_beyond(mixture.a, a, stretch), b=_beyond(mixture.b, b, stretch))
        now, further = (some.log_likelihood(*pairs) @ count for some in (near, far))
        go = further > now
        mixture = replace(near, a=np.where(go[:, None], far.a, a), b=np.where(go[:, None], far.b, b))
        now, stretch = np.maximum(now, further), np.where(go, 2 * stretch, 1.0)
        if (now - before <= tolerance * np.abs(before)).all():
            break
        before = now
    best = int(np.argmax(now))
    return Mixture(mixture.share[best], mixture.a[best], mixture.b[best])


def _maximised(
    right: np.ndarray, wrong: np.ndarray, weight: np.ndarray, a: np.ndarray, b: np.ndarray, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Minka's fixed point for all components at once, from where the last step of EM ended.

    right, wrong: (answers, 1).  weight: (starts, answers, components).  a, b: (starts, components).
    """
    # DIFF: the authors begin each M-step at a = b = 1 and go on to convergence; from here a few steps raise the likelihood
    # of the whole just as surely (generalised EM), in a tenth of the time
    before = -np.inf
    for _ in range(_INNER):
        a_, b_ = a[:, None], b[:, None]
        now = (weight * log_likelihood(right, wrong, a_, b_)).sum(axis=1)
        if (now - before <= tolerance * np.abs(now)).all():
            break
        before = now
        whole = (weight * (digamma(right + wrong + a_ + b_) - digamma(a_ + b_))).sum(axis=1)
        whole = np.maximum(whole, np.finfo(np.float64).tiny)
        a = _kept(a * (weight * (digamma(right + a_) - digamma(a_))).sum(axis=1) / whole)
        b = _kept(b * (weight * (digamma(wrong + b_) - digamma(b_))).sum(axis=1) / whole)
    return a, b


def _beyond(old: np.ndarray, new: np.ndarray, stretch: np.ndarray) -> np.ndarray:
    """On the line from old to new in logarithms, `stretch` (starts,) times their distance beyond new."""
    step = stretch[:, None] * (np.log(new) - np.log(old))
    return _kept(new * np.exp(np.clip(step, -_FURTHEST, _FURTHEST)))


def _kept(parameter: np.ndarray) -> np.ndarray:
    return np.clip(parameter, _LEAST, _MOST)


def noisy(checks: Sequence[Check], config: Config | None = None, seed: int = 0) -> dict[str, float]:
    """The probability that each rater who answered test questions is noisy: of any of their types, which are fitted apart."""
    config = config or Config()
    careful: dict[str, float] = {}
    for kind in dict.fromkeys(check.question for check in checks):
        of_kind = [check for check in checks if check.question == kind]
        names = list(dict.fromkeys(check.rater for check in of_kind))
        place = {name: row for row, name in enumerate(names)}
        rows = np.array([place[check.rater] for check in of_kind])
        right = np.bincount(rows, [check.right for check in of_kind], minlength=len(names))
        wrong = np.bincount(rows, minlength=len(names)) - right
        for name, chance in zip(names, _noisy(right, wrong, config, seed), strict=True):
            careful[name] = careful.get(name, 1.0) * (1 - float(chance))
    return {name: 1 - chance for name, chance in careful.items()}


def _noisy(right: np.ndarray, wrong: np.ndarray, config: Config, seed: int) -> np.ndarray:
    components = config.components or (1 if config.detector == "threshold" else 2)
    options: dict[str, Any] = {"starts": config.starts, "tolerance": config.tolerance, "seed": seed}
    mixture = fit_mixture(right, wrong, components, **options)
    if config.detector == "threshold":
        return mixture.below(config.threshold, right, wrong)
    return mixture.not_best(right, wrong)


def interval(
    instances: np.ndarray, draws: int = 2000, seed: int = 0, groups: np.ndarray | None = None
) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of `instances` (N,), resampled with replacement.

    groups: int (N,), resampled as wholes, such as the rater of each; every instance is one where they are left out.
    """
    count = np.ones(len(instances))
    if groups is not None:
        group = np.unique(groups, return_inverse=True)[1]
        instances, count = np.bincount(group, instances), np.bincount(group).astype(np.float64)
    rng = np.random.default_rng(seed)
    means = np.empty(draws)
    step = max(1, (1 << 22) // len(instances))
    for first in range(0, draws, step):  # some 30 MB of places at a time
        places = rng.integers(len(instances), size=(min(step, draws - first), len(instances)))
        means[first : first + step] = instances[places].sum(axis=1) / count[places].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


recipes = {
    "paper": Recipe("paper", source="authors' repository", cost="a second on a CPU; the crowd is what costs"),
    "base": Recipe("base", source="papertrial", cost="a second on a CPU"),
    "tiny": Recipe("tiny", config={"starts": 2, "draws": 200}, source="small enough for tests", cost="milliseconds"),
}
