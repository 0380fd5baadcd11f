"""Energy spent while something runs: measured by the hardware's counters, else estimated by CodeCarbon's model, else unknown.

CPU     RAPL, the counters Linux shows under /sys/class/powercap (packages, and memory where it has a counter of its own);
        where they are missing or readable by root only, CodeCarbon's constant power for this CPU and its memory.
GPU     NVML's total energy of each GPU in use. There is no model to fall back on.

Both are of the whole machine, whoever else uses it. Parts add up by the rule of `core.budget.Energy`: the label is the
weakest of its parts, and one unknown part makes the sum unknown.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import torch

from papertrial.core.budget import ESTIMATED, MEASURED, Energy
from papertrial.core.errors import PapertrialError
from papertrial.core.files import read_json, write_json
from papertrial.data.base import cache_folder

POWERCAP = Path("/sys/class/powercap")
_JOULES = 3.6e6  # in a kWh
#: a counter of the smallest range in use, 65 kJ, goes round in four minutes at 250 W
_LOOK_EVERY = 30.0


class EnergyMeter:
    """Energy since it was made, or since the `with` began. `read()` may be called as often as one likes, from one thread.

    device: what the work runs on; the processes of this machine started by `torchrun` are taken to use a GPU each.
    """

    def __init__(self, device: torch.device | str = "cpu", powercap: Path = POWERCAP) -> None:
        self._parts = [_cpu(powercap), *_gpus(torch.device(device)), *_elsewhere()]

    def __enter__(self) -> EnergyMeter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self) -> Energy:
        energy = Energy()
        for part in self._parts:
            energy += part()
        return energy

    def close(self) -> None:
        """Stop watching the counters; what was read stays."""
        for part in self._parts:
            if isinstance(part, _Rapl):
                part.close()


def energy_source(powercap: Path = POWERCAP) -> Energy:
    """How energy is obtained on this machine: a reading of no length, for its label and words."""
    with EnergyMeter("cuda" if torch.cuda.is_available() else "cpu", powercap) as meter:
        return meter.read()


_Part = Callable[[], Energy]


def _cpu(powercap: Path) -> _Part:
    with contextlib.suppress(OSError, ValueError):
        zones = _zones(powercap)
        if zones:
            return _Rapl(zones)
    hidden = any(not os.access(file, os.R_OK) for file in powercap.glob("intel-rapl:*/energy_uj"))
    return _modelled(" (RAPL counters are here, but only root may read them)" if hidden else "")


def _zones(powercap: Path) -> list[Path]:
    """The counters that add up to CPU and memory, each counted once.

    `core` and `uncore` are parts of their package, `psys` contains it, and `intel-rapl-mmio` shows the same packages
    again; `dram` lies outside the package.
    """
    named = {zone: (zone / "name").read_text().strip() for zone in sorted(powercap.glob("intel-rapl:*"))}
    found = [zone for zone, name in named.items() if name.startswith("package") or name == "dram"]
    return found if any(named[zone].startswith("package") for zone in found) else []


class _Rapl:
    """The sum of some RAPL counters. They start over at a maximum, so a thread looks at them now and then."""

    def __init__(self, zones: Sequence[Path]) -> None:
        self._zones = zones
        self._range = [int((zone / "max_energy_range_uj").read_text()) for zone in zones]
        self._last = self._counters()
        if not any(self._last):
            raise ValueError("the counters do not move, as in some virtual machines")
        self._microjoules = 0
        names = ", ".join(dict.fromkeys((zone / "name").read_text().strip() for zone in zones))
        self._how = f"CPU measured by RAPL ({names})"
        self._lock, self._closed = threading.Lock(), threading.Event()
        threading.Thread(target=self._watch, name="papertrial-energy", daemon=True).start()

    def __call__(self) -> Energy:
        try:
            self.look()
        except (OSError, ValueError) as error:
            return Energy.unknown(f"CPU unknown: its RAPL counters could be read no longer ({error})")
        return Energy(self._microjoules / 1e6 / _JOULES, MEASURED, self._how)

    def look(self) -> None:
        """Add what was spent since the last look; right if no counter went round more than once meanwhile."""
        with self._lock:
            if self._closed.is_set():
                return
            now = self._counters()
            for before, after, whole in zip(self._last, now, self._range, strict=True):
                self._microjoules += after - before if after >= before else after - before + whole
            self._last = now

    def close(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.look()
        self._closed.set()

    def _counters(self) -> list[int]:
        return [int((zone / "energy_uj").read_text()) for zone in self._zones]

    def _watch(self) -> None:
        while not self._closed.wait(_LOOK_EVERY):
            with contextlib.suppress(OSError, ValueError):
                self.look()


def _modelled(hidden: str) -> _Part:
    """CodeCarbon's constant power times the seconds since now."""
    try:
        watts, how = _constant_power()
    except ImportError:
        why = f"CPU unknown{hidden}: no counter, and CodeCarbon's model is not installed (pip install 'papertrial[energy]')"
        return lambda: Energy.unknown(why)
    except Exception as error:  # whatever another version or an odd machine does to it, no training ends over this
        why = f"CPU unknown{hidden}: no counter, and CodeCarbon's model fails ({type(error).__name__}: {error})"
        return lambda: Energy.unknown(why)
    begun = time.monotonic()
    return lambda: Energy(watts * (time.monotonic() - begun) / _JOULES, ESTIMATED, f"CPU estimated{hidden}: {how}")


@cache
def _constant_power() -> tuple[float, str]:
    """Watts of CPU and memory by CodeCarbon's model in its constant mode, and the model in words.

    They are constant for a machine and a version of the package, which takes a second to find them: so they are kept in the
    cache, beside what they follow from. Raises ImportError.
    """
    follows = _what_power_follows_from()
    file = cache_folder() / "power.json"
    with contextlib.suppress(PapertrialError, KeyError, TypeError, ValueError):
        held = read_json(file)
        if held["follows_from"] == follows:
            return float(held["watts"]), str(held["how"])
    watts, how = _model_of_power()
    with contextlib.suppress(PapertrialError):  # a cache that cannot be written
        write_json(file, {"follows_from": follows, "watts": watts, "how": how})
    return watts, how


def _what_power_follows_from() -> dict[str, Any]:
    """The version of CodeCarbon, and all of the machine that its model looks at. Raises ImportError where it is missing."""
    processor = platform.processor()
    with contextlib.suppress(OSError, ValueError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), processor)
    return {
        "codecarbon": metadata.version("codecarbon"),
        "host": platform.node(),
        "machine": platform.machine(),
        "processor": processor,
        "cores": psutil.cpu_count(),
        "memory": psutil.virtual_memory().total,
        "job": os.environ.get("SLURM_JOB_ID"),  # CodeCarbon counts its cores and memory
    }


def _model_of_power() -> tuple[float, str]:
    """As CodeCarbon finds them: its tables and rules are read without its tracker, with no thread, no file, no network."""
    with _silent("codecarbon"):
        from codecarbon.core.cpu import DEFAULT_POWER_PER_CORE, TDP, count_cpus
        from codecarbon.external.hardware import CPU
        from codecarbon.external.ram import RAM

        found = TDP()
        cpu = CPU.from_utils(output_dir="", mode="constant", model=found.model, tdp=found.tdp).total_power().W
        memory = RAM(tracking_mode="machine").total_power().W
    guessed = found.tdp in (None, DEFAULT_POWER_PER_CORE * count_cpus())
    rule = "a guess: this CPU is not in its table" if guessed else f"half of its {found.tdp:g} W by design"
    version = metadata.version("codecarbon")
    return cpu + memory, f"CodeCarbon {version}, constant {cpu:g} W for {found.model} ({rule}), {memory:g} W for memory"


@contextlib.contextmanager
def _silent(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _gpus(device: torch.device) -> list[_Part]:
    if device.type == "cpu":
        return []
    if device.type != "cuda":
        return [lambda: Energy.unknown(f"GPU unknown: {device.type} has no energy counter that is read here")]
    try:
        import pynvml
    except ImportError:
        return [
            lambda: Energy.unknown("GPU unknown: NVML's Python package is missing (pip install 'papertrial[energy]')")
        ]
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    chosen = [device.index or 0] if here == 1 else list(range(here))
    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByUUID(_uuid(index)) for index in chosen]
        before = sum(map(pynvml.nvmlDeviceGetTotalEnergyConsumption, handles))
    except pynvml.NVMLError as error:
        why = f"GPU unknown: NVML gives no energy here ({error})"
        return [lambda: Energy.unknown(why)]
    return [lambda: _nvml(pynvml, handles, before)]


def _nvml(pynvml: Any, handles: list[Any], before: int) -> Energy:
    try:
        millijoules = sum(map(pynvml.nvmlDeviceGetTotalEnergyConsumption, handles)) - before
    except pynvml.NVMLError as error:
        return Energy.unknown(f"GPU unknown: NVML could be read no longer ({error})")
    return Energy(millijoules / 1e3 / _JOULES, MEASURED, "GPU measured by NVML")


def _uuid(index: int) -> str:
    """As NVML names it; torch counts only the GPUs this process may see."""
    uuid = str(torch.cuda.get_device_properties(index).uuid)
    return uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"


def _elsewhere() -> list[_Part]:
    """The other machines of a run on several: this process sees none of their counters."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if int(os.environ.get("LOCAL_WORLD_SIZE", world)) == world:
        return []
    return [lambda: Energy.unknown("other machines unknown: only the first is metered")]
