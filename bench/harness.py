"""The one place where anything is timed: two sides that do the same work, in turns, in one process.

To add a row: write a `Race` into `RACES` of `bench/rows/<paper>.py`. Its `build` gets a `Case` (size, dtype, device) and
returns two `Side`s, ours and the peer's, with the same weights and inputs; `training` and `inference` make a side of a module:

    def mixer(case: Case) -> tuple[Side, Side]:
        import timm                                          # peers are imported here, never at the top
        ours, theirs = MlpMixer(...), timm.create_model(...)
        theirs.load_state_dict(renamed(ours.state_dict(), {...}))  # the same weights
        image = case.randn(case.size, 3, 224, 224)           # a value of `sizes`
        return training(case, ours, image), training(case, theirs, image)

    RACES = [Race("training step", "timm", mixer, sizes={"1 image": 1, "2 images": 2, "4 images": 4, "8 images": 8})]

`python -m bench PAPER --quick` shows it. A race becomes one row per size in float32, eager; and at `typical`, one for every
other dtype and one compiled for every dtype. Answers of both sides are compared before anything is timed: a row whose answers
are further apart than `tolerance` is an error, unless `differs` says why they must be.

What is measured. Seconds are those of the processor, of this process and of the children it waited for, so that other work
on the machine counts little; on CUDA, events around the work. A sample repeats the work until it takes 20 ms. Rounds take
both sides, and a bare product of matrices (or copy) of the same dtype, in changing order, with the collector off. The ratio
is the median over rounds of the peer's time by ours, above 1 where papertrial is faster; its interval covers the median with
95 %, whatever the distribution (order statistics). Peak memory is that of one step beyond what stays between steps, each side in a
fresh process.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import importlib
import importlib.metadata
import math
import os
import resource
import select
import signal
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from papertrial.core import run
from papertrial.nn.transformer import compile_
from papertrial.train.device import keep_memory

ROUNDS, QUICK = 20, 5
SAMPLE = 0.020  # seconds that a sample takes at the least
WARM = 2  # rounds that do not count
#: how far answers may be apart: norm of the difference over norm of the peer's
TOLERANCE = {"float64": 1e-9, "float32": 1e-4, "bfloat16": 0.05}
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Case:
    """One row to build: `size` is a value of the race's `sizes`."""

    size: Any
    dtype: torch.dtype = torch.float32
    device: torch.device = torch.device("cpu")
    compiled: bool = False

    def place(self, module: nn.Module) -> nn.Module:
        return module.to(self.device, self.dtype)

    def ready(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Compiled in a compiled row, a module as `papertrial fit --compile` does. `training` and `inference` do this themselves."""
        if self.compiled and isinstance(call, nn.Module):
            compile_(call)
        elif self.compiled:
            call = torch.compile(call)
        return call

    def randn(self, *shape: int) -> Tensor:
        return torch.randn(*shape).to(self.device, self.dtype)

    def randint(self, high: int, *shape: int, low: int = 0) -> Tensor:
        return torch.randint(low, high, shape).to(self.device)


@dataclass(frozen=True)
class Side:
    """`run` is what is timed; `answer` gives what is compared with the other side's (default: what `run` returns).

    An answer is a tensor, an array, a number, or a sequence of these; None is not compared.
    """

    run: Callable[[], Any]
    answer: Callable[[], Any] | None = None


@dataclass(frozen=True)
class Race:
    """One kind of work against one peer, at several sizes."""

    what: str
    peer: str  # the name of its distribution, or "" where only the physical limit stands beside
    build: Callable[[Case], Any]  # -> (ours, theirs), or only ours without a peer
    sizes: Mapping[str, Any]  # label: what `build` gets, growing
    grows: Callable[[Any], float] = float  # a size as the number that the work grows with
    typical: str = ""  # the label that is run in every dtype and compiled; default: the second
    dtypes: Sequence[str] = ("float32", "bfloat16")
    compiled: bool = True
    #: where answers must differ: why
    differs: str = ""
    tolerance: Mapping[str, float] = field(default_factory=dict)
    #: what keeps a ratio below 1, where it is
    bound: str = ""
    #: bytes that a size has to move at the least, for work that memory bounds; the limit is then a copy
    moves: Callable[[Any], float] | None = None
    #: "" , or why it is not run on CUDA
    only_cpu: str = ""

    def cases(self) -> Iterable[tuple[str, str, bool]]:
        """Label, dtype and whether it is compiled, of each row."""
        for label in self.sizes:
            yield label, self.dtypes[0], False
        typical = self.typical or list(self.sizes)[min(1, len(self.sizes) - 1)]
        for dtype in self.dtypes[1:]:
            yield typical, dtype, False
        if self.compiled:
            for dtype in self.dtypes:
                yield typical, dtype, True


def _loss(out: Any) -> Tensor:
    return out.float().square().mean()


def training(
    case: Case, module: nn.Module, *inputs: Any, loss: Callable[[Any], Tensor] = _loss, optimizer: bool = True
) -> Side:
    """A training step: forward, backward, and AdamW (at a learning rate of 0, so that the weights stay).

    The answer is the output and the norm of all gradients, which does not depend on how weights are packed.
    """
    module.train()
    call = case.ready(module)
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    adamw = torch.optim.AdamW(weights, lr=0.0, weight_decay=0.0, fused=True)

    def step() -> None:
        loss(call(*inputs)).backward()
        if optimizer:
            adamw.step()
        adamw.zero_grad(set_to_none=True)

    def answer() -> list[Tensor]:
        out = call(*inputs)
        loss(out).backward()
        norms = [weight.grad.float().norm() for weight in weights if weight.grad is not None]
        adamw.zero_grad(set_to_none=True)
        return [*_leaves(out), torch.stack(norms).norm()]

    return Side(step, answer)


def inference(case: Case, module: nn.Module, *inputs: Any) -> Side:
    """The forward pass in eval mode, without gradients."""
    module.eval()
    call = case.ready(module)

    def once() -> Any:
        with torch.no_grad():
            return call(*inputs)

    return Side(once)


def renamed(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Weights under the peer's names: each part of `names` replaced by what stands there, in order."""
    return {
        functools.reduce(lambda name, pair: name.replace(*pair), names.items(), name): w for name, w in state.items()
    }


def _leaves(answer: Any) -> list[Tensor]:
    if answer is None:
        return []
    if isinstance(answer, list | tuple):
        return [leaf for part in answer for leaf in _leaves(part)]
    return [answer.detach() if isinstance(answer, Tensor) else torch.as_tensor(answer, dtype=torch.float64)]


def apart(ours: Any, theirs: Any) -> float:
    """The largest relative distance between parts of two answers; infinite where they are not of one shape or not finite."""
    pairs = _leaves(ours), _leaves(theirs)
    if [tuple(leaf.shape) for leaf in pairs[0]] != [tuple(leaf.shape) for leaf in pairs[1]]:
        return math.inf
    worst = 0.0
    for a, b in zip(*pairs, strict=True):
        a, b = a.double().cpu(), b.double().cpu()
        gap = float((a - b).norm() / b.norm().clamp_min(1e-30))
        worst = max(worst, gap if math.isfinite(gap) else math.inf)
    return worst


# ---------------------------------------------------------------------------------------------------------- the clock


def seconds(device: torch.device) -> Callable[[Callable[[], Any], int], float]:
    """A clock: what `number` calls of `work` take."""

    def spent() -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.process_time() + children.ru_utime + children.ru_stime

    def on_cpu(work: Callable[[], Any], number: int) -> float:
        begun = spent()
        for _ in range(number):
            work()
        return spent() - begun

    def on_cuda(work: Callable[[], Any], number: int) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        begin.record()
        for _ in range(number):
            work()
        end.record()
        torch.cuda.synchronize(device)
        return begin.elapsed_time(end) / 1e3

    return on_cuda if device.type == "cuda" else on_cpu


@contextlib.contextmanager
def _no_collector() -> Iterable[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def in_turns(
    contestants: Mapping[str, Callable[[], Any]],
    clock: Callable[[Callable[[], Any], int], float],
    rounds: int,
    sample: float = SAMPLE,
) -> dict[str, list[float]]:
    """Seconds of one call of each, per round; the order turns round from one round to the next."""
    for work in contestants.values():
        work()
    number = {name: max(1, math.ceil(sample / max(clock(work, 1), 1e-7))) for name, work in contestants.items()}
    times: dict[str, list[float]] = {name: [] for name in contestants}
    with _no_collector():
        for turn in range(rounds + WARM):
            for name in list(contestants)[:: -1 if turn % 2 else 1]:
                taken = clock(contestants[name], number[name]) / number[name]
                if turn >= WARM:
                    times[name].append(taken)
    return times


# ------------------------------------------------------------------------------------------------------ the statistics


def median_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """(low, median, high): order statistics that hold the median with `level`, or the range where there are too few."""
    ordered, n = sorted(values), len(values)
    outside, rank = 0.0, 0  # the chance that fewer than `rank` values lie below the median
    for below in range(n // 2):
        outside += math.comb(n, below) / 2**n
        if 2 * outside > 1 - level:
            break
        rank = below + 1
    rank = max(rank, 1)
    return ordered[rank - 1], statistics.median(ordered), ordered[n - rank]


def growth(sizes: Sequence[float], times: Sequence[float]) -> tuple[float, float, float] | None:
    """(low, exponent, high) of time ~ size^exponent, least squares on logarithms, 95 %; None with fewer than 4 sizes."""
    n = len(sizes)
    if n < 4:
        return None
    from scipy import stats

    fit = stats.linregress([math.log(size) for size in sizes], [math.log(taken) for taken in times])
    # without spread there is no error either, and scipy says nan
    half = 0.0 if len(set(times)) == 1 else float(stats.t.ppf(0.975, n - 2) * fit.stderr)
    return float(fit.slope) - half, float(fit.slope), float(fit.slope) + half


# ----------------------------------------------------------------------------------------------------- limits, memory


def limit(case: Case, kind: str) -> tuple[Callable[[], Any], float]:
    """A bare product of matrices, or a copy, and how many FLOPs, or bytes read and written, one call of it is."""
    big = case.device.type == "cuda"
    if kind == "copy":
        source = torch.zeros((2**28 if big else 2**24), dtype=torch.float32, device=case.device)
        target = torch.empty_like(source)
        return lambda: target.copy_(source), 2.0 * source.numel() * source.element_size()
    side = 8192 if big else 512
    a, b = (torch.randn(side, side).to(case.device, case.dtype) for _ in range(2))
    # as a layer without bias, because torch has a slower way for `@` in bfloat16 where the processor cannot multiply it
    return lambda: nn.functional.linear(a, b), 2.0 * side**3


def flops(work: Callable[[], Any]) -> float:
    """FLOPs of one call, counted by torch; attention is counted as the products that define it."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        work()
    return float(counter.get_total_flops())


def _status(key: str) -> float:
    """A line of /proc/self/status in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {key}")


def peak_megabytes(work: Callable[[], Any], device: torch.device) -> float:
    """What a call takes at its peak beyond what stood before it, in MB, once everything lazy has been done."""
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before = _status("VmRSS")
        work()
        return _status("VmHWM") - before
    except OSError:  # not Linux: the peak of the whole process
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        work()
        return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


# ------------------------------------------------------------------------------------------------------------ one row


def build(race: Race, label: str, dtype: str, compiled: bool, device: str) -> tuple[Case, Side, Side | None]:
    torch._dynamo.reset()
    torch.manual_seed(0)
    case = Case(race.sizes[label], getattr(torch, dtype), torch.device(device), compiled)
    built = race.build(case)
    return (case, *built) if race.peer else (case, built, None)


@functools.cache
def facts(peer: str, threads: int) -> dict[str, Any]:
    """Hardware, versions, commit and date, the same in all rows of a run."""
    found = run.environment()
    versions = {"python": found["python"], "torch": torch.__version__}
    for name in (peer, "papertrial"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError, ValueError):
            versions[name] = importlib.metadata.version(name)
    hardware = {"cpu": found["cpu"], "cores": found["cores"], "gpus": found["gpus"]}
    return {"hardware": hardware, "versions": versions, "commit": found["commit"], "date": found["date"][:10]}


def memory_of(work: Callable[[], Any], device: torch.device, patience: float = 120.0) -> float | None:
    """`peak_megabytes` in a process of its own, a copy of this one; None where it failed or took longer than `patience`."""
    if device.type == "cuda":  # which does not survive a copy
        return peak_megabytes(work, device)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            torch.set_num_threads(1)  # a copy has no other threads
            os.write(writing, str(peak_megabytes(work, device)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading) as told:
        if not select.select([told], [], [], patience)[0]:
            os.kill(child, signal.SIGKILL)
        found = told.read()
    os.waitpid(child, 0)
    return round(float(found), 1) if found else None


def peaks_of(sides: Sequence[Side | None], device: torch.device) -> dict[str, float | None]:
    return {name: memory_of(side.run, device) for name, side in zip(("ours_mb", "peer_mb"), sides, strict=True) if side}


def peaks_on_cpu(race: Race) -> tuple[tuple[str, str, bool], dict[str, float | None]]:
    """The race's largest row, and the peaks of its sides. Call it before any backward pass: torch allows none in a copy then."""
    label, dtype = list(race.sizes)[-1], race.dtypes[0]
    case, *sides = build(race, label, dtype, False, "cpu")
    return (label, dtype, False), peaks_of(sides, case.device)


def measure(
    paper: str,
    race: Race,
    label: str,
    dtype: str,
    compiled: bool,
    *,
    rounds: int = ROUNDS,
    threads: int = 1,
    device: str = "cpu",
    work: float = 0.0,
    peaks: Mapping[str, float | None] | None = None,
) -> dict[str, Any]:
    """One row of the results. Raises ValueError where the two sides do not answer alike.

    work: the FLOPs of a compiled row, which torch counts in the eager row of the same size and dtype only.  peaks: what
    `peaks_on_cpu` found.
    """
    case, ours, theirs = build(race, label, dtype, compiled, device)
    distance = None
    if theirs is not None:
        answers = [(side.answer or side.run)() for side in (ours, theirs)]
        distance = apart(*answers)
        allowed = race.tolerance.get(dtype, TOLERANCE[dtype])
        if not race.differs and not distance <= allowed:
            raise ValueError(
                f"{race.what} ({label}, {dtype}): the answers are {distance:.2g} apart, {allowed:g} allowed"
            )
        del answers
    bare, amount = limit(case, "copy" if race.moves else "matmul")
    contestants = {"ours": ours.run, "limit": bare}
    if theirs is not None:
        contestants = {"ours": ours.run, "peer": theirs.run, "limit": bare}
    times = in_turns(contestants, seconds(case.device), rounds)
    middle = {name: statistics.median(taken) for name, taken in times.items()}
    row: dict[str, Any] = {
        "paper": paper,
        "what": race.what,
        "peer": race.peer,
        "size": label,
        "scale": race.grows(race.sizes[label]),
        "dtype": dtype,
        "mode": "compiled" if compiled else "eager",
        "threads": threads,
        "device": device,
        "rounds": rounds,
        "ours_ms": rounded(1e3 * middle["ours"]),
    }
    if theirs is not None:
        ratios = [peer / own for peer, own in zip(times["peer"], times["ours"], strict=True)]
        low, ratio, high = map(rounded, median_interval(ratios))
        row |= {"peer_ms": rounded(1e3 * middle["peer"]), "ratio": ratio, "low": low, "high": high}
    row |= peaks_of((ours, theirs), case.device) if case.device.type == "cuda" else peaks or {}
    work = race.moves(race.sizes[label]) if race.moves else work if compiled else flops(ours.run)
    if work:
        row |= {"work": work, "unit": "GB/s" if race.moves else "GFLOP/s"}
        row |= {"achieved": rounded(work / middle["ours"] / 1e9), "limit": rounded(amount / middle["limit"] / 1e9)}
        row["share"] = rounded(row["achieved"] / row["limit"])
    row |= {
        "apart": None if distance is None else float(f"{distance:.1g}"),
        "differs": race.differs,
        "bound": race.bound,
    }
    return row | facts(race.peer, threads)


def rounded(value: float) -> float:
    return float(f"{value:.4g}")


def start(threads: int) -> None:
    torch.set_num_threads(threads)
    keep_memory()  # as in every training of papertrial; for both sides alike
    warnings.filterwarnings("ignore")  # of peers


def races(paper: str) -> list[Race]:
    return list(getattr(importlib.import_module(f"bench.rows.{paper}"), "RACES", ()))
