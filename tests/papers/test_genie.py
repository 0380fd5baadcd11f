"""The worker model against scipy, a general optimiser and simulated crowds; the interval; the claims."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp
from scipy.stats import beta as beta_distribution
from scipy.stats import betabinom, bootstrap

from papertrial.claims import genie as claims
from papertrial.core.errors import Declined, PapertrialError
from papertrial.core.judgement import Check
from papertrial.core.paper import claims_of
from papertrial.papers import genie
from papertrial.papers.genie import Config, Mixture, fit_mixture, interval, log_likelihood, noisy


@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (0.01, 3.0), (500.0, 2.0), (1e-4, 1e-4), (1e6, 1e5)])
def test_likelihood_is_that_of_scipy(a, b):
    total = np.arange(0, 61)
    right = total * 2 // 3
    assert log_likelihood(right, total - right, a, b) == pytest.approx(betabinom.logpmf(right, total, a, b), abs=1e-6)


def test_posteriors_by_hand():
    mixture = Mixture(np.array([0.3, 0.7]), np.array([2.0, 30.0]), np.array([3.0, 2.0]))
    right, wrong = np.array([0, 3, 10, 9]), np.array([0, 7, 0, 1])
    joint = np.array(
        [
            np.log(share) + betabinom.logpmf(right, right + wrong, a, b)
            for share, a, b in zip(mixture.share, mixture.a, mixture.b, strict=True)
        ]
    )
    assert mixture.log_likelihood(right, wrong) == pytest.approx(logsumexp(joint, axis=0), abs=1e-12)
    posterior = np.exp(joint - logsumexp(joint, axis=0))
    assert mixture.components(right, wrong) == pytest.approx(posterior.T)
    assert mixture.not_best(right, wrong) == pytest.approx(posterior[0])
    below = [beta_distribution.cdf(0.9, a + right, b + wrong) for a, b in zip(mixture.a, mixture.b, strict=True)]
    assert mixture.below(0.9, right, wrong) == pytest.approx((posterior * below).sum(axis=0))
    assert mixture.components(right[:1], wrong[:1])[0] == pytest.approx([0.3, 0.7])  # no answers: the prior


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_fit_is_the_most_likely_one(seed):
    rng = np.random.default_rng(seed)
    total = rng.integers(3, 40, 300)
    right = rng.binomial(total, rng.beta(6, 2, 300)).astype(float)
    wrong = total - right
    found = fit_mixture(right, wrong, 1, tolerance=1e-9)
    theirs = minimize(lambda x: -log_likelihood(right, wrong, *np.exp(x)).sum(), [0.0, 0.0], method="Nelder-Mead")
    assert found.log_likelihood(right, wrong).sum() == pytest.approx(-theirs.fun, abs=1e-3)
    assert [found.a[0], found.b[0]] == pytest.approx(np.exp(theirs.x), rel=0.02)


def test_a_mixture_is_found_again():
    rng = np.random.default_rng(0)
    careful = rng.random(3000) > 0.2
    p = np.where(careful, rng.beta(40, 3, 3000), rng.beta(5, 5, 3000))
    right = rng.binomial(30, p).astype(float)
    found = fit_mixture(right, 30 - right, 2, starts=3)
    order = np.argsort(found.a / (found.a + found.b))
    assert found.share[order] == pytest.approx([0.2, 0.8], abs=0.03)
    assert (found.a / (found.a + found.b))[order] == pytest.approx([0.5, 40 / 43], abs=0.03)
    true = Mixture(np.array([0.2, 0.8]), np.array([5.0, 40.0]), np.array([5.0, 3.0]))
    assert found.log_likelihood(right, 30 - right).sum() > true.log_likelihood(right, 30 - right).sum()
    assert np.array_equal(found.a, fit_mixture(right, 30 - right, 2, starts=3).a)


@pytest.mark.parametrize("detector", ["threshold", "component"])
def test_crowds_in_which_nothing_can_be_told(detector):
    """Nobody errs, all err, a single rater, no answers: probabilities, and never NaN."""
    config = Config(detector=detector, starts=2)
    for answers in ({"a": "1111", "b": "1111"}, {"a": "000", "b": "0"}, {"a": "1"}, {"a": "10" * 500, "b": "1"}):
        checks = [Check(name, "q", mark == "1") for name, marks in answers.items() for mark in marks]
        chances = noisy(checks, config)
        assert chances.keys() == answers.keys()
        assert all(0 <= chance <= 1 for chance in chances.values()), chances
    assert noisy([]) == {}
    with pytest.raises(PapertrialError, match="nobody answered"):
        fit_mixture(np.empty(0), np.empty(0))
    with pytest.raises(PapertrialError, match="detector is 'majority', but it takes threshold or component"):
        noisy([Check("a", "q", True)], Config(detector="majority"))


def crowd(questions: int, seed: int, kind: str = "q") -> list[Check]:
    rng = np.random.default_rng(seed)
    right = rng.random((40, questions)) < np.where(np.arange(40) < 36, 0.97, 0.4)[:, None]
    return [Check(f"r{row}", kind, bool(mark)) for row, marks in enumerate(right) for mark in marks]


@pytest.mark.parametrize("detector", ["threshold", "component"])
def test_the_careless_are_found(detector):
    chances = noisy(crowd(20, 0), Config(detector=detector))
    careless = [chances[f"r{row}"] for row in range(36, 40)]
    others = [chances[f"r{row}"] for row in range(36)]
    assert min(careless) > 0.99 and max(others) < 0.99


@pytest.mark.parametrize(
    ("detector", "components"),
    [("threshold", 0), ("threshold", 1), ("threshold", 3), ("component", 0), ("component", 3)],
)
def test_as_many_sorts_of_raters_as_the_config_says(detector, components):
    config = Config(detector=detector, components=components, starts=2)
    checks = crowd(12, 3)
    right, wrong = (
        np.array([sum(check.right is kind for check in checks if check.rater == f"r{row}") for row in range(40)])
        for kind in (True, False)
    )
    number = components or {"threshold": 1, "component": 2}[detector]
    fitted = fit_mixture(right, wrong, number, starts=2, tolerance=config.tolerance, seed=7)
    wanted = fitted.below(config.threshold, right, wrong) if detector == "threshold" else fitted.not_best(right, wrong)
    found = noisy(checks, config, seed=7)
    assert [found[f"r{row}"] for row in range(40)] == pytest.approx(list(wanted))


def test_the_fit_stops_by_a_share_of_the_likelihood():
    """A crowd a hundred times as large, of the same raters, takes the same steps."""
    rng = np.random.default_rng(1)
    right = rng.binomial(20, rng.beta(6, 2, 40)).astype(float)
    few, many = (
        fit_mixture(np.repeat(right, copies), 20 - np.repeat(right, copies), 1, tolerance=1e-4) for copies in (1, 100)
    )
    assert [many.a[0], many.b[0]] == pytest.approx([few.a[0], few.b[0]], rel=1e-9)


def test_a_step_that_goes_on_keeps_its_direction():
    old, new = np.array([[1.0, 4.0]]), np.array([[2.0, 2.0]])
    assert genie._beyond(old, new, np.array([1.0])) == pytest.approx(np.array([[4.0, 1.0]]))
    assert genie._beyond(old, new, np.array([2.0])) == pytest.approx(np.array([[8.0, 0.5]]))


def test_types_of_questions_combine():
    first, second = crowd(10, 0, "fluency"), crowd(10, 1, "truth")
    both, alone, other = noisy(first + second), noisy(first), noisy(second)
    for name, chance in both.items():
        assert chance == pytest.approx(1 - (1 - alone[name]) * (1 - other[name]))
    only = noisy([*first, Check("new", "truth", True)])
    assert only["r0"] == alone["r0"] and 0 <= only["new"] < 1


def test_the_interval_is_the_percentile_bootstrap():
    instances = np.random.default_rng(0).choice([0, 0.25, 0.5, 0.75, 1.0], 300)
    theirs = bootstrap((instances,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    assert interval(instances, 20_000) == pytest.approx((theirs.low, theirs.high), abs=0.003)
    assert interval(instances) == interval(instances) != interval(instances, seed=1)
    assert interval(np.ones(5)) == (1.0, 1.0)
    groups = np.repeat(np.arange(30), 10)
    low, high = interval(instances.reshape(30, 10).mean(1), 20_000)
    assert interval(instances, 20_000, groups=groups) == pytest.approx((low, high))  # groups of one size
    assert interval(instances, groups=np.arange(300)) == pytest.approx(interval(instances))


@pytest.mark.parametrize("claim", claims_of(claims), ids=lambda claim: claim.name)
def test_claims_run_small(claim, monkeypatch, shared_data):
    held, measured = claim("tiny", 0)
    assert isinstance(held, bool | np.bool_) and all(np.isfinite(value) for value in measured.values())
    if claim.plot:
        assert claim.plot([measured]).curves
    if claim.name in ("likelihood_is_beta_binomial", "one_answer_each_says_more", "one_real_answer_each_says_more"):
        assert held, measured


def test_without_the_real_answers_the_claim_is_declined(monkeypatch):
    monkeypatch.delenv("PAPERTRIAL_DATA", raising=False)
    with pytest.raises(Declined, match="xsum-hallucination"):
        next(claim for claim in claims_of(claims) if "real" in claim.name)("tiny", 0)
