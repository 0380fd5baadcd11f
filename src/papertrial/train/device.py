"""Where training runs: device, precision, processes, randomness and memory. Built on Accelerate."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, broadcast_object_list

from papertrial.core.errors import PapertrialError, did_you_mean
from papertrial.nn.modes import cpu_has_bf16

_PRECISIONS = ("auto", "fp32", "bf16")
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's mallopt


def accelerator(precision: str = "auto", device: str | torch.device | None = None) -> Accelerator:
    """Accelerate for this process: one CPU, one GPU, or one of several processes started by `torchrun`.

    precision: auto (bf16 on a GPU that has it, fp32 elsewhere), fp32 or bf16.  device: None takes a GPU where there
    is one.  Raises PapertrialError for fp16 and for a device that is not there.
    """
    kind = torch.device(device).type if device is not None and str(device) != "auto" else None
    if kind == "cuda" and not torch.cuda.is_available():
        raise PapertrialError("there is no CUDA device here", "leave --device out, or use --device cpu")
    on_gpu = kind in (None, "cuda") and torch.cuda.is_available()
    if precision in ("fp16", "float16", "half"):
        raise PapertrialError(
            "float16 is not offered: it overflows at 65504, and a CPU multiplies it hundreds of times slower",
            "use --set precision=bf16",
        )
    if precision not in _PRECISIONS:
        raise PapertrialError(f"there is no precision {precision!r}", did_you_mean(precision, _PRECISIONS))
    has_bf16 = not on_gpu or torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bf16" and not has_bf16:
        raise PapertrialError("this GPU does not compute in bfloat16", "use --set precision=fp32")
    use_bf16 = precision == "bf16" or (precision == "auto" and on_gpu and has_bf16)
    keep_memory()
    # Accelerate keeps one state per process and refuses a second precision or device; several trainings may follow
    # one another here.
    AcceleratorState._reset_state(reset_partial_state=True)
    # Models may leave parameters out at a step (stochastic depth), which plain DDP refuses.
    ddp = DistributedDataParallelKwargs(find_unused_parameters=True)
    return Accelerator(
        cpu=kind == "cpu" or (kind is None and not on_gpu and not torch.backends.mps.is_available()),
        mixed_precision="bf16" if use_bf16 else "no",
        kwargs_handlers=[ddp],
    )


def emulates_bf16() -> bool:
    """Whether training is on a CPU that is known to have no instructions for bfloat16, which it then emulates: float32 is faster."""
    return not torch.cuda.is_available() and cpu_has_bf16() is False


def keep_memory() -> None:
    """Let the C library keep the memory of large tensors from one step to the next.

    glibc maps what is larger than 32 MB anew each time, and gives the end of its heap back. The system then clears page after
    page again, which for the gradients of large layers takes longer than the products that make them. Other C libraries are
    left as they are.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, 2**30)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def return_memory(always: bool = False) -> None:
    """Give what the C library has kept back to the system, where it can; from now on at once, with `always`, until a training
    asks for the opposite: large tensors then leave no holes."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(None)
        library.malloc_trim(0)
        if always:
            library.mallopt(_MMAP_THRESHOLD, 2**20)
            library.mallopt(_TRIM_THRESHOLD, 2**20)


def from_main(accelerate: Accelerator, value: Any) -> Any:
    """What the main process holds, on every process."""
    return broadcast_object_list([value])[0] if accelerate.num_processes > 1 else value


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Deterministic kernels on a GPU for the time of a training; the CPU has only those."""
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        torch.utils.deterministic.fill_uninitialized_memory,
    )
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    torch.utils.deterministic.fill_uninitialized_memory = False  # costs a kernel per tensor and finds bugs only
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*deterministic.*")
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = before[2]
        torch.utils.deterministic.fill_uninitialized_memory = before[3]


def seed_step(seed: int, step: int, rank: int, device: torch.device) -> None:
    """Make what is drawn during `step` (dropout and the like) a function of (seed, step, rank).

    No generator state has to be kept for a resumed run, whatever the number of processes.
    """
    mixed = _mix(_mix(_mix(seed) ^ step) ^ rank)
    torch.default_generator.manual_seed(mixed)  # torch.manual_seed asks every backend first: 60 times slower
    if device.type == "cuda":
        torch.cuda.manual_seed(mixed)
    elif device.type == "mps":
        torch.mps.manual_seed(mixed)
    np.random.seed(mixed % 2**32)  # noqa: NPY002 - also for models that draw from numpy's global generator
    random.seed(mixed)


def _mix(value: int) -> int:
    """The finalizer of splitmix64: neighbouring numbers become unrelated ones."""
    mask = 2**64 - 1
    value = (value + 0x9E3779B97F4A7C15) & mask
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
    return value ^ (value >> 31)


class PeakMemory:
    """Most memory held since it was made: allocated on a GPU, resident in this process elsewhere."""

    def __init__(self, device: torch.device) -> None:
        self.device, self._sampled, self._kernel_counts = device, 0, False
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        with contextlib.suppress(OSError):  # Linux: 5 sets the high-water mark back to what is resident now
            Path("/proc/self/clear_refs").write_text("5")
            self._kernel_counts = True

    def sample(self) -> None:
        """Look now, on systems that keep no high-water mark."""
        if self.device.type != "cuda" and not self._kernel_counts:
            import psutil

            self._sampled = max(self._sampled, psutil.Process().memory_info().rss)

    def read(self) -> int:
        """Bytes."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        if self._kernel_counts:
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("VmHWM"):
                    return int(line.split()[1]) * 1024
        self.sample()
        return self._sampled
