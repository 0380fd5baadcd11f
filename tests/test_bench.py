"""The bench: its statistics on times that are given, its rows, its file and its page. Nothing here measures a time, and no peer is needed."""

from __future__ import annotations

import json
import math
import random
import re
import time
from dataclasses import replace
from itertools import count

import pytest
import torch
from bench import __main__ as command
from bench import harness, results
from bench.harness import Case, Race, Side
from torch import nn

from papertrial.core import registry


def row(**more):
    found = {
        "paper": "toy", "what": "step", "peer": "slow", "size": "1 row", "scale": 1.0, "dtype": "float32", "mode": "eager",
        "threads": 1, "device": "cpu", "rounds": 20, "ours_ms": 10.0, "peer_ms": 20.0, "ratio": 2.0, "low": 1.9, "high": 2.1,
        "differs": "", "bound": "", "hardware": {"cpu": "a cpu", "cores": 2, "gpus": []}, "versions": {"torch": "2"},
        "commit": "abc", "date": "2026-01-01",
    }  # fmt: skip
    return found | more


# ------------------------------------------------------------------------------------------------------ the statistics


def fed(durations):
    """A clock that says what it is told, and does the work."""

    def clock(work, number):
        name = work()
        return number * next(durations[name])

    return clock


def test_the_ratio_of_fed_times_is_theirs_by_ours():
    noise = random.Random(0)
    speeds = [noise.uniform(0.5, 3) for _ in range(200)]  # of the machine, which changes under both
    durations = {
        "ours": (0.010 * speed for speed in iter(speeds)),
        "peer": (0.025 * speed for speed in iter(speeds)),
    }
    times = harness.in_turns({name: lambda name=name: name for name in durations}, fed(durations), rounds=20)
    assert all(len(taken) == 20 for taken in times.values())
    ratios = [peer / ours for peer, ours in zip(times["peer"], times["ours"], strict=True)]
    assert harness.median_interval(ratios) == pytest.approx((2.5, 2.5, 2.5))


def test_sides_take_turns_in_changing_order_and_short_work_is_repeated():
    calls = []

    def work(name):
        return lambda: calls.append(name) or name

    durations = {"ours": iter([0.003] * 99), "peer": iter([0.05] * 99)}
    harness.in_turns({"ours": work("ours"), "peer": work("peer")}, fed(durations), rounds=4, sample=0.020)
    turns = calls[4:]  # one call to warm up and one to count, of each
    assert turns == ["ours", "peer", "peer", "ours"] * ((4 + harness.WARM) // 2)  # the fed clock calls once per sample

    numbers = []
    harness.in_turns({"ours": lambda: None}, lambda work, number: numbers.append(number) or 0.003 * number, rounds=2)
    assert numbers[0] == 1 and set(numbers[1:]) == {7}  # 7 x 3 ms are 20 ms or more


def test_the_collector_is_off_while_rounds_are_timed_and_on_again_after_a_failure():
    import gc

    seen = []

    def clock(work, number):
        seen.append(gc.isenabled())
        if len(seen) == 4:
            raise RuntimeError("lost")
        return 1.0

    with pytest.raises(RuntimeError, match="lost"):
        harness.in_turns({"ours": lambda: None}, clock, rounds=5)
    assert seen == [True, False, False, False] and gc.isenabled()


@pytest.mark.parametrize(
    ("n", "ranks"), [(5, (0, 4)), (6, (0, 5)), (9, (1, 7)), (20, (5, 14)), (21, (5, 15)), (100, (39, 60))]
)
def test_the_interval_of_a_median_is_that_of_the_tables(n, ranks):
    values = list(range(n))
    random.Random(n).shuffle(values)
    low, middle, high = harness.median_interval(values)
    assert (low, middle, high) == (ranks[0], (n - 1) / 2, ranks[1])


def test_the_interval_holds_the_median_as_often_as_it_says():
    noise, held = random.Random(1), 0
    for _ in range(2000):
        low, _, high = harness.median_interval([noise.expovariate(1) for _ in range(20)])
        held += low <= math.log(2) <= high
    assert 0.94 < held / 2000 < 0.98  # 0.9586 by the binomial distribution


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.5])
def test_growth_is_the_exponent(exponent):
    sizes = [1, 2, 4, 8, 16]
    low, found, high = harness.growth(sizes, [3 * size**exponent for size in sizes])
    assert found == pytest.approx(exponent) and low == pytest.approx(high)
    noise = random.Random(2)
    low, found, high = harness.growth(sizes, [3 * size**exponent * noise.uniform(0.8, 1.25) for size in sizes])
    assert low < exponent < high and low < found < high


def test_growth_needs_four_sizes():
    assert harness.growth([1, 2, 4], [1, 2, 4]) is None


# --------------------------------------------------------------------------------------------------------------- races


class Perceptron(nn.Module):
    """`layers` times the same layer: twice the layers are twice the work."""

    def __init__(self, layers):
        super().__init__()
        self.layer, self.layers = nn.Linear(64, 64, bias=False), layers

    def forward(self, x):
        for _ in range(self.layers):
            x = self.layer(x)
        return x


def toy(case):
    ours, theirs = (case.place(Perceptron(layers)) for layers in (1, 2))
    with torch.no_grad():
        for net in (ours, theirs):
            net.layer.weight.copy_(torch.eye(64))  # so that both say the same
    x = case.randn(case.size, 64)
    return harness.inference(case, ours, x), harness.inference(case, theirs, x)


TOY = Race("one layer", "two layers", toy, {"4 rows": 4, "8 rows": 8}, compiled=False)


def test_twice_the_work_counts_twice():
    _, ours, theirs = harness.build(TOY, "8 rows", "float32", False, "cpu")
    assert harness.flops(ours.run) == 2 * 8 * 64 * 64
    assert harness.flops(theirs.run) == 2 * harness.flops(ours.run)


def test_attention_counts_as_the_products_that_define_it():
    q = torch.randn(1, 2, 16, 8)
    assert harness.flops(lambda: nn.functional.scaled_dot_product_attention(q, q, q)) == 2 * 2 * 2 * 16 * 16 * 8


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_row_holds_what_the_page_needs(dtype, monkeypatch):
    clock = count(1)
    monkeypatch.setattr(harness, "seconds", lambda device: lambda work, number: work() is None or next(clock) * 1e-3)
    found = harness.measure("toy", TOY, "4 rows", dtype, False, rounds=3)
    assert set(results.KEY) <= set(found) and found["apart"] == 0 and found["scale"] == 4
    assert found["work"] == 2 * 4 * 64 * 64 and found["share"] > 0 and found["low"] <= found["ratio"] <= found["high"]
    assert json.loads(json.dumps(found)) == found
    assert "times faster" in results.line(found)
    assert found["hardware"]["cpu"] in results.page([found])


def test_sides_that_answer_otherwise_are_an_error_unless_the_row_says_why(monkeypatch):
    monkeypatch.setattr(harness, "seconds", lambda device: lambda work, number: 0.001)

    def wrong(case):
        x = case.randn(3)
        return Side(lambda: x), Side(lambda: x + 1e-3)

    race = replace(TOY, build=wrong, moves=lambda size: 1.0)
    with pytest.raises(ValueError, match=r"one layer \(4 rows, float32\): the answers are .* apart, 0.0001 allowed"):
        harness.measure("toy", race, "4 rows", "float32", False, rounds=3)
    said = harness.measure("toy", replace(race, differs="they add a bit"), "4 rows", "float32", False, rounds=3)
    assert said["differs"] == "they add a bit" and said["apart"] > 1e-4
    assert "answers differ, because they add a bit" in results.page([said])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(torch.zeros(2), torch.zeros(3)), (torch.tensor([math.nan]), torch.ones(1)), ([torch.ones(1)], [torch.ones(1), 2.0])],
)  # fmt: skip
def test_answers_of_another_shape_or_not_finite_are_infinitely_far(ours, theirs):
    assert harness.apart(ours, theirs) == math.inf


def test_answers_may_be_nested_and_numbers():
    assert harness.apart([torch.ones(2), (3.0, None)], [torch.ones(2), (3.0, None)]) == 0
    assert harness.apart(1 + 1e-12, 1.0) == pytest.approx(1e-12, rel=1e-3)


def test_a_training_step_leaves_weights_and_no_gradients():
    case, net = Case(4), Perceptron(2)
    before = net.layer.weight.detach().clone()
    side = harness.training(case, net, torch.randn(4, 64))
    side.run()
    assert torch.equal(net.layer.weight, before) and net.layer.weight.grad is None
    out, norm = side.answer()
    assert out.shape == (4, 64) and norm > 0 and net.layer.weight.grad is None


def test_the_peak_of_a_step_is_what_it_makes():
    def work():
        return torch.ones(30 * 2**18).sum()  # 30 MB

    assert 25 < harness.memory_of(work, torch.device("cpu")) < 45
    assert harness.memory_of(lambda: 1 / 0, torch.device("cpu")) is None
    assert harness.memory_of(lambda: time.sleep(60), torch.device("cpu"), patience=0.2) is None


def test_a_race_is_run_in_all_sizes_and_its_typical_one_in_all_ways():
    race = replace(TOY, sizes={"a": 1, "b": 2, "c": 3}, compiled=True)
    assert list(race.cases()) == [
        ("a", "float32", False), ("b", "float32", False), ("c", "float32", False),
        ("b", "bfloat16", False), ("b", "float32", True), ("b", "bfloat16", True),
    ]  # fmt: skip


def test_renamed_weights():
    assert set(harness.renamed({"a.up.w": 1, "b.w": 2}, {"a.": "x.", ".up.": ".fc."})) == {"x.fc.w", "b.w"}


# ------------------------------------------------------------------------------------------------------------ the file


def test_a_rerun_of_a_paper_replaces_only_its_rows():
    old = [row(), row(size="2 rows"), row(paper="other"), row(device="cuda"), row(threads=2)]
    new = [row(ratio=3.0)]
    merged = results.merge(old, new, whole=True)
    assert merged == [row(paper="other"), row(device="cuda"), row(threads=2), row(ratio=3.0)]
    part = results.merge(old, new, whole=False)
    assert part == [row(paper="other"), row(ratio=3.0), row(size="2 rows"), row(device="cuda"), row(threads=2)]
    assert results.merge([], new, whole=True) == new


def test_the_file_is_one_line_per_row_and_never_half_written(tmp_path, monkeypatch):
    file = tmp_path / "results.jsonl"
    rows = [row(), row(size="2 rows", ratio=math.inf)]
    results.save(rows, file)
    assert len(file.read_text().splitlines()) == 2
    assert results.load(file) == [row(), row(size="2 rows", ratio=None)]
    before = file.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("papertrial.core.files.os.replace", full)
    with pytest.raises(Exception, match="no space left"):
        results.save([row()], file)
    assert file.read_bytes() == before and [path.name for path in tmp_path.iterdir()] == ["results.jsonl"]


# ------------------------------------------------------------------------------------------------------------ the page


def test_the_page_tells_the_median_and_what_is_below_one():
    known = {"versions": {"timm": "1.0"}, "peer": "timm"}
    rows = [
        row(**known),
        row(size="2 rows", ratio=0.9, low=0.8, high=0.95, bound="memory", **known),
        row(size="3 rows", ratio=0.99, low=0.9, high=1.1, bound="memory", **known),
        row(mode="compiled", ratio=1.2, **known),
        row(peer="a loop", ratio=100.0),
        row(peer="", what="alone"),
    ]
    for name in ("ratio", "peer_ms", "low", "high"):
        del rows[5][name]
    text = results.page(rows)
    assert "5 rows against 2 peers: papertrial is 1.09 times as fast in the median row against a package" in text
    assert (
        "slower in 2 of all (goal: none): in 1 of them beyond what the interval leaves open, in 0 for no known" in text
    )
    assert "| all rows | 5 | 1.20 |" in text and "| against packages | 4 | 1.09 |" in text
    below = text.partition("## Rows below 1")[2].partition("##")[0]
    assert "| 0.90 [0.80, 0.95] | memory |" in below and "1.20" not in below
    assert "## Rows below 1" not in results.page([row()])
    assert "not known" in results.page([row(ratio=0.9)])


def test_the_page_tells_of_the_tool_what_a_row_holds():
    taken = row(paper="tool", what="search", ours_p99_ms=3.25, recall=0.98)
    waited = {
        name: kept for name, kept in row(paper="tool", what="fit", peer="", waiting=0.0123).items() if "_ms" not in name
    }
    del waited["ratio"]
    text = results.page([row()], [taken, waited]).partition("## The tool around the methods")[2]
    assert "| search | 1 row | slow | 10 | 20 | 2.00 [1.90, 2.10] |  |  | 99 % within 3.25 ms; recall 0.98 |" in text
    assert "| fit | 1 row |  |  |  | - |  |  | 1.23% of the training |" in text
    assert results.line(waited).endswith("; 1.23% of the training") and "ms" not in results.line(waited)
    assert "1 rows against 1 peers" in results.page(
        [row()], [taken, waited]
    )  # the papers' rows are counted, and no others


def test_the_page_tells_how_cost_grows():
    rows = [row(size=f"{n} rows", scale=n, ours_ms=float(n), peer_ms=float(n**2)) for n in (1, 2, 4, 8)]
    grown = results.page(rows).partition("## How cost grows")[2]
    assert "| 1.00 [1.00, 1.00] | 2.00 [2.00, 2.00] |" in grown


def test_only_what_stands_between_the_markers_changes(tmp_path):
    file = tmp_path / "speed.md"
    file.write_text(f"before\n{results.BEGIN}\nold\n{results.END}\nafter\n")
    results.write_page([row()], file=file, plot_file=None)
    text = file.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    results.write_page([row()], file=file, plot_file=None)
    assert file.read_text() == text
    file.write_text("no markers")
    with pytest.raises(ValueError, match="has lost its markers"):
        results.write_page([row()], file=file, plot_file=None)


def test_the_plot_has_a_dot_for_each_row_and_is_the_same_twice(tmp_path):
    rows = [row(), row(mode="compiled", ratio=0.5, low=0.4, high=0.6), row(paper="other", dtype="bfloat16")]
    files = [tmp_path / "a.svg", tmp_path / "b.svg"]
    for file in files:
        results.plot(rows, file)
    assert files[0].read_bytes() == files[1].read_bytes()
    text = files[0].read_text()
    assert "<!-- other -->" in text and "<!-- toy -->" in text and "<!-- median 2.00 -->" in text


def test_the_page_is_that_of_the_rows():
    text = results.PAGE.read_text()
    assert results.page(results.load(), results.load(results.TOOL)) in text, "run `python -m bench --page`"


def test_rows_that_are_kept_are_measured_in_full():
    for kept in results.load():
        assert kept["rounds"] >= harness.ROUNDS, kept
        assert not kept["commit"].endswith("+"), f"{kept['paper']} was measured on code that is in no commit"


# ----------------------------------------------------------------------------------------------------------- the shelf


def test_each_paper_is_raced_or_says_why_not():
    papers = {name for name, entry in registry.entries().items() if entry.shelf == "papers"}
    without = set(command.WITHOUT)
    assert papers - set(command.papers()) == without & papers
    assert all(command.WITHOUT.values())


@pytest.mark.parametrize("paper", command.papers())
def test_rows_are_declared_in_full(paper):
    races = harness.races(paper)
    assert races
    names = [(race.what, race.peer) for race in races]
    assert len(set(names)) == len(names)
    for race in races:
        assert all(race.grows(size) > 0 for size in race.sizes.values()), f"{race.what}: growth is fitted on logarithms"
        assert not race.typical or race.typical in race.sizes
        assert set(race.dtypes) <= set(harness.TOLERANCE)


def test_peers_are_pinned_once():
    root = harness.ROOT / "bench"
    lines = [
        line
        for name in ("peers.txt", "peers-alone.txt")
        for line in (root / name).read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    assert len({line.partition("==")[0].lower() for line in lines}) == len(lines)
