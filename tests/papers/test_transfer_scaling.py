"""What pre-training is worth: the estimator against scipy, what it never does, and the grid as a user runs it."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import curve_fit
from scipy.stats import t as student
from together import together

import papertrial as pt
from papertrial.app.cli import main
from papertrial.claims import transfer_scaling as claims
from papertrial.core.errors import DataError, Declined, PapertrialError
from papertrial.core.paper import claims_of
from papertrial.core.run import Run
from papertrial.core.task import Ragged, Split
from papertrial.papers import transfer_scaling
from papertrial.papers.transfer_scaling import Law, Point, compare_points, fit_transfer
from papertrial.papers.transfer_scaling.grid import Side, train_grid
from papertrial.study.measure import measure

CLAIMS = {claim.name: claim for claim in claims_of(claims)}
SMALL = {
    "sizes": "16x1,32x1", "amounts": "1e3,2e3", "curve": "4e3", "pretrain": 6, "steps": 6, "check": 3, "rows": 4, "longest": 32, "judged": 8,
}  # fmt: skip
CURVE = {100.0: 5.0, 300.0: 4.0, 1000.0: 3.0, 3000.0: 2.0}


def point(size, amount, transferred):
    return Point(size, amount, 3.0, 2.0, amount + transferred, math.inf, 1.0, 1e12)


def grid(transferred):
    return [point(n, d, transferred(d, n)) for n in (20_000, 100_000, 500_000) for d in (1e4, 3e4, 1e5)]


# -- the estimator


def test_coefficients_and_intervals_equal_scipy():
    rng = np.random.default_rng(0)
    points = grid(lambda d, n: 20 * d**0.4 * n**0.3 * math.exp(0.2 * rng.standard_normal()))
    law = fit_transfer(points)
    x = np.log([[p.amount for p in points], [p.size for p in points]])
    y = np.log([p.transferred for p in points])
    expected, covariance = curve_fit(lambda x, k, a, b: k + a * x[0] + b * x[1], x, y)
    half = student.ppf(0.975, len(points) - 3) * np.sqrt(np.diag(covariance))
    np.testing.assert_allclose([math.log(law.k), law.alpha, law.beta], expected, rtol=1e-6)
    np.testing.assert_allclose(law.intervals, np.stack([expected - half, expected + half], 1), rtol=1e-5, atol=1e-6)
    residual = y - np.log(law.transferred(np.exp(x[0]), np.exp(x[1])))
    assert law.r2 == pytest.approx(1 - residual.var() / y.var())
    assert law.points == 9


@given(st.floats(-0.5, 1.5), st.floats(-0.5, 1.5), st.floats(5, 10))
def test_any_law_is_found_again(alpha, beta, log_k):
    # so large a k keeps D_T above the rounding of D_E = D_F + D_T
    law = fit_transfer(grid(lambda d, n: math.exp(log_k) * d**alpha * n**beta))
    assert (law.alpha, law.beta) == pytest.approx((alpha, beta), abs=1e-6)


def test_three_points_fit_exactly_and_have_no_intervals():
    law = fit_transfer([point(1e4, 1e4, 100.0), point(1e4, 1e5, 200.0), point(1e5, 1e4, 300.0)])
    assert law.intervals is None
    assert law.r2 == pytest.approx(1)
    assert law.alpha == pytest.approx(math.log10(2))
    assert law.beta == pytest.approx(math.log10(3))


@pytest.mark.parametrize(
    "points",
    [
        [],
        [point(1e4, 1e4, 10.0)],
        [point(1e4, d, 10.0) for d in (1e3, 1e4, 1e5)],
        [point(n, 1e4, 10.0) for n in (1e3, 1e4, 1e5)],
        [point(1e4, 1e4, math.inf), point(1e4, 1e5, -5.0), point(1e5, 1e4, 0.0)],
    ],
)
def test_no_law_without_two_sizes_and_two_amounts(points):
    assert "two sizes and two amounts" in fit_transfer(points)


def test_what_is_censored_or_hurts_never_enters_the_law():
    points = grid(lambda d, n: 20 * d**0.4 * n**0.3)
    more = [point(2e4, 1e6, math.inf), point(1e5, 1e6, -1e6), point(5e5, 1e6, -10.0), point(5e5, 1e6, 0.0)]
    assert fit_transfer(points + more) == fit_transfer(points)


def test_a_law_can_be_written_and_the_order_of_points_is_nothing():
    rng = np.random.default_rng(1)
    points = grid(lambda d, n: 20 * d**0.4 * n**0.3 * math.exp(0.2 * rng.standard_normal()))
    law = fit_transfer(points)
    told = json.loads(json.dumps(asdict(law)))
    assert told["alpha"] == law.alpha and told["intervals"] == [list(ends) for ends in law.intervals]
    turned = fit_transfer(points[::-1])
    assert (turned.k, turned.alpha, turned.beta) == pytest.approx((law.k, law.alpha, law.beta))


def test_where_all_transfer_is_the_same_the_law_explains_it():
    law = fit_transfer(grid(lambda d, n: 500.0))
    assert (law.alpha, law.beta) == pytest.approx((0, 0), abs=1e-9) and law.r2 == 1.0


def test_points_come_in_the_order_of_their_amounts():
    losses = {3000.0: 1.95, 100.0: 4.9, 1000.0: 2.9}
    found = compare_points({7: CURVE}, {7: losses})
    assert [point.amount for point in found] == [100.0, 1000.0, 3000.0]


def test_less_than_a_unit_of_data_is_known_too():
    held = Point(7, 0.3, 3.0, 2.0, 0.6, math.inf, 0.1, 10.0)
    assert held.to_json()["equivalent"] == 0.6 and held.to_json()["multiplier"] == pytest.approx(2)


def test_where_on_the_curve_a_model_stands():
    losses = {"beyond": 1.9, "measured": 2.5, "nothing": 4.0, "hurts": 4.5}
    for state, loss in losses.items():
        (found,) = compare_points({7: CURVE}, {7: {300.0: loss}})
        assert found.state == state
    (found,) = compare_points({7: CURVE}, {7: {300.0: 2.5}})
    assert found.equivalent == pytest.approx(math.sqrt(1000 * 3000))
    assert found.transferred == pytest.approx(found.equivalent - 300)
    assert (found.scratch, found.tuned, found.least, found.most) == (4.0, 2.5, 100.0, 3000.0)


def test_nothing_is_extrapolated_into_the_report():
    for loss in (1.0, 9.0):
        (found,) = compare_points({7: CURVE}, {7: {300.0: loss}})
        told = found.to_json()
        assert told["equivalent"] is told["transferred"] is told["multiplier"] is None


@given(st.floats(0.01, 100), st.floats(0.01, 100), st.floats(1.0, 6.0))
def test_units_do_not_matter(of_loss, of_data, loss):
    (plain,) = compare_points({7: CURVE}, {7: {300.0: loss}})
    scaled = {amount * of_data: value * of_loss for amount, value in CURVE.items()}
    (other,) = compare_points({7: scaled}, {7: {300.0 * of_data: loss * of_loss}})
    assert other.state == plain.state or min(abs(loss - value) for value in CURVE.values()) < 1e-9
    if plain.state == other.state == "measured":
        assert other.transferred == pytest.approx(plain.transferred * of_data, rel=1e-6, abs=1e-6 * of_data)


# -- the grid


class Noting:
    """A trainer that trains nothing, and notes what it is asked for. The bits of a row are its first byte."""

    def __init__(self):
        self.task, self.optims, self.judged, self.validations, self.loaded = self, {}, [], [], []

    def outputs(self, network, state, split):
        self.judged.append(split)
        return np.array([len(split["text"])], dtype=np.float64)

    def train(self, network, rows, optim, budget, run, *, seed, validate, progress):
        kind = next(kind for kind in ("pre-trained", "from-scratch", "fine-tuned") if kind in run.folder.name)
        self.optims[kind] = (optim.lr, optim.patience, budget.steps)
        before = len(self.judged)
        for step in (1, 2, 3):
            run.log(step, validation=validate())
        self.validations += self.judged[before:]

    def save(self, model, file):
        file.write_bytes(b"weights")

    def load(self, model, file):
        self.loaded.append(file.parent.name)


def test_what_stops_early_looks_at_validation_rows_and_each_kind_has_its_rate(tmp_path):
    rows = np.zeros((40, 8), dtype=np.int32)
    sides = {
        name: Side(name, name, rows, *(Split({"text": Ragged.of([[1] * 8] * count, np.uint8)}) for count in counts))
        for name, counts in {"source": (2, 5), "target": (3, 7)}.items()
    }
    config = transfer_scaling.Config(
        sizes=("16x1",), amounts=(80.0,), curve=(), longest=8, rate=0.3, tuned_rate=0.1, stop=5, pretrain=6, steps=3
    )
    trainer = Noting()
    results = train_grid(sides, config, trainer, tmp_path, 0, progress=False)
    lengths = [len(split["text"]) for split in trainer.validations]
    assert lengths == [2, 2, 2, 3, 3, 3, 3, 3, 3]  # the validation rows of the source, then of the target twice
    tested = [len(split["text"]) for split in trainer.judged if len(split["text"]) in (5, 7)]
    assert tested == [5, 7, 7]
    assert trainer.optims == {"pre-trained": (0.3, 5, 6), "from-scratch": (0.3, 5, 3), "fine-tuned": (0.1, 5, 3)}
    assert len(trainer.loaded) == 1 and "pre-trained" in trainer.loaded[0]
    assert [result["still_improving"] for result in results.values()] == [False, False, False]
    assert [result["best_step"] for result in results.values()] == [1, 1, 1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(folder, report) of a grid trained in one go."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, measure(
        "transfer_scaling", "python-docs", "python-lines", out=folder, settings=SMALL, progress=False
    )


def test_the_report_says_what_was_measured(whole):
    folder, report = whole
    assert len(report.rows) == 4
    held = json.loads((folder / "report.json").read_text())
    assert {entry["state"] for entry in held["numbers"]["points"]} <= {"measured", "beyond", "hurts", "nothing"}
    assert set(held["numbers"]["from_scratch"]) == {"3168", "12480"}
    assert (folder / "plot.html").exists()
    assert len(list((folder / "models").iterdir())) == 12
    assert "worth" in report.title


def test_parameters_are_counted_without_the_embedding(whole):
    sizes = [int(size) for size in whole[1].numbers["from_scratch"]]
    for size, width in zip(sizes, (16, 32), strict=True):
        assert 0 < size - 12 * width**2 < 10 * width  # gains and offsets of the norms


def _measured_until_killed(folder):
    """In a process of its own, which is killed when three models are done."""
    finish = Run.finish

    def finish_and_die(self, *arguments, **more):
        finish(self, *arguments, **more)
        if len(list(folder.glob("models/*/result.json"))) == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    Run.finish = finish_and_die
    measure("transfer_scaling", "python-docs", "python-lines", out=folder, settings=SMALL, progress=False)


def test_killed_and_started_again_it_says_the_same(whole, tmp_path):
    said, out = tmp_path / "said", tmp_path / "run"
    assert together(_measured_until_killed, out, said=said, count=1) == [-signal.SIGKILL], said.read_text()
    kept = {file: file.stat().st_mtime_ns for file in out.glob("models/*/result.json")}
    report = measure("transfer_scaling", "python-docs", "python-lines", out=out, settings=SMALL, progress=False)
    assert report.numbers == whole[1].numbers
    assert len(kept) == 3
    assert all(file.stat().st_mtime_ns == before for file, before in kept.items()), "a finished model was trained again"


def test_one_more_amount_trains_two_models_for_each_size(whole, capsys):
    folder, before = whole
    report = measure(
        "transfer_scaling", "python-docs", "python-lines", out=folder, settings=SMALL | {"amounts": "500,1e3,2e3"}
    )
    assert len(list((folder / "models").iterdir())) == 16
    assert report.numbers["from_scratch"].keys() == before.numbers["from_scratch"].keys()
    for size, losses in before.numbers["fine_tuned"].items():
        assert losses.items() <= report.numbers["fine_tuned"][size].items()
    assert "left at most" in capsys.readouterr().err


def test_the_command(whole, capsys, monkeypatch):
    folder, report = whole
    words = [word for name, value in SMALL.items() for word in ("--set", f"{name}={value}")]
    command = [
        "papertrial",
        "measure",
        "transfer_scaling",
        "python-docs",
        "--data",
        "python-lines",
        "--out",
        str(folder),
    ]
    monkeypatch.setattr(sys, "argv", [*command, *words])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    out = capsys.readouterr().out
    assert report.verdict.split(";")[0].rstrip(".")[:60] in " ".join(out.split())
    assert "fine-tuned on" in out


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sizes": "32"}, "cannot read the size '32'"),
        ({"sizes": "20x2"}, "multiples of 16"),
        ({"sizes": "32x0"}, "cannot read the size"),
        ({"sizes": ""}, "sizes is .., but it takes 1 to 32 values"),
        ({"amounts": ""}, "amounts is .., but it takes 1 to 32 values"),
        ({"amounts": "1e9"}, "the smallest amount is 1 GB"),
        ({"size": "32x2"}, "did you mean 'sizes'"),
    ],
)
def test_settings_that_make_no_grid_are_refused(settings, message, tmp_path):
    with pytest.raises(PapertrialError, match=message):
        measure(
            "transfer_scaling",
            "python-docs",
            "python-lines",
            out=tmp_path / "x",
            settings=SMALL | settings,
            progress=False,
        )
    assert not (tmp_path / "x").exists()


def test_what_is_no_text_is_refused(tmp_path):
    with pytest.raises(PapertrialError, match="add --data"):
        measure("transfer_scaling", "python-docs", out=tmp_path)
    with pytest.raises(DataError, match="digits"):
        measure("transfer_scaling", "digits", "python-lines", out=tmp_path, progress=False)
    with pytest.raises(Declined, match="papertrial measure transfer_scaling SOURCE --data DATA"):
        pt.fit("transfer_scaling", data="python-lines", out=tmp_path / "x")


# -- the claims


def test_the_claim_on_a_planted_law_fails_where_the_curve_is_misread(monkeypatch):
    assert CLAIMS["a_planted_law_is_found"]("tiny", 1)[0]
    read = transfer_scaling.compare_points
    monkeypatch.setattr(
        transfer_scaling,
        "compare_points",
        lambda *tables: [replace(p, equivalent=1.5 * p.equivalent) for p in read(*tables)],
    )
    assert not CLAIMS["a_planted_law_is_found"]("tiny", 1)[0]


def test_the_claim_on_censoring_fails_where_it_is_extrapolated(monkeypatch):
    assert CLAIMS["beyond_the_curve_nothing_is_known"]("tiny", 1)[0]
    read = transfer_scaling.compare_points
    monkeypatch.setattr(
        transfer_scaling,
        "compare_points",
        lambda *tables: [replace(p, equivalent=min(p.equivalent, 1e12)) for p in read(*tables)],
    )
    assert not CLAIMS["beyond_the_curve_nothing_is_known"]("tiny", 1)[0]


def given_points(monkeypatch, points):
    monkeypatch.setattr(claims, "_measured", lambda scale, seed: (points, fit_transfer(points)))


def test_the_trends_are_told_from_their_opposites(monkeypatch):
    given_points(monkeypatch, grid(lambda d, n: 20 * d**0.4 * n**0.3))
    for name in ("pretraining_lowers_the_loss", "larger_models_transfer_more", "the_law_has_exponents_of_that_sign"):
        held, measured = CLAIMS[name]("base", 0)
        assert held
        assert measured["margin"] > 0
    lowers = CLAIMS["pretraining_lowers_the_loss"]
    assert [len(curve.x) for curve in lowers.plot([lowers("base", 0)[1]]).curves] == [3, 3, 3]
    given_points(monkeypatch, grid(lambda d, n: 1e5 * d**0.4 * n**-0.3))
    for name in ("larger_models_transfer_more", "the_law_has_exponents_of_that_sign"):
        assert not CLAIMS[name]("base", 0)[0]


def test_claims_that_cannot_be_tried_are_declined(monkeypatch):
    with pytest.raises(Declined, match="1e9 parameters"):
        CLAIMS["the_papers_exponents"]("base", 0)
    given_points(monkeypatch, [point(10, 1e4, math.inf), point(100, 1e4, 5.0)])
    with pytest.raises(Declined, match="a smaller model beats all"):
        CLAIMS["larger_models_transfer_more"]("base", 0)
    with pytest.raises(Declined, match="cannot be fitted"):
        CLAIMS["the_law_has_exponents_of_that_sign"]("base", 0)


def test_without_the_texts_the_trends_are_not_run(monkeypatch):
    monkeypatch.delenv("PAPERTRIAL_DATA", raising=False)
    with pytest.raises(Declined, match="wikitext-2"):
        claims._measured.__wrapped__("base", 0)


def test_law_is_what_it_says():
    assert Law(2.0, 0.5, 1.0, 1.0, 3, None).transferred(np.array([4.0, 9.0]), 10) == pytest.approx([40, 60])
