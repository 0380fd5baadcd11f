"""Is this machine ready: versions, threads, extras, cache and the traps that cost users hours."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import shutil
import sys
from pathlib import Path

from papertrial.core.budget import UNKNOWN
from papertrial.core.registry import EXTRA_MODULES

Check = dict[str, str]


def checks() -> list[Check]:
    """Is this machine ready? One dict per check: name, state (ok | missing | warning | broken), what.

    >>> import papertrial as pt
    >>> pt.doctor()[0]["name"]
    'python'
    """
    found = [_check("python", "ok" if sys.version_info >= (3, 10) else "broken", sys.version.split()[0])]
    found += [
        *_torch(),
        _openmp(),
        _torchvision(),
        _energy(),
        *(_extra(name, modules) for name, modules in EXTRA_MODULES.items()),
        _cache(),
    ]
    return found


def _check(name: str, state: str, what: str) -> Check:
    return {"name": name, "state": state, "what": what}


def _torch() -> list[Check]:
    try:
        import torch
    except Exception as error:  # a broken install fails in many ways
        return [_check("torch", "broken", f"cannot be imported ({error}); type: pip install torch")]
    from papertrial.train.device import emulates_bf16

    device = (
        f"{torch.cuda.device_count()} GPU, {torch.cuda.get_device_name(0)}"
        if torch.cuda.is_available()
        else "no GPU, runs on the CPU"
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    on_cpu = "on this CPU fp32 is faster" if emulates_bf16() else "on this CPU --set precision=bf16 turns it on"
    bf16 = f"bf16 is used on GPUs that have it; {on_cpu}; fp16 on a CPU is refused (it is slow and overflows)"
    return [
        _check("torch", "ok", f"{torch.__version__}, {device}"),
        _check(
            "threads",
            "ok" if torch.get_num_threads() <= cores else "warning",
            f"torch uses {torch.get_num_threads()} of {cores} cores",
        ),
        _check("precision", "ok", bf16),
    ]


def _energy() -> Check:
    from papertrial.train.energy import energy_source

    source = energy_source()
    return _check("energy", "missing" if source.label == UNKNOWN else "ok", source.how or source.label)


def _openmp() -> Check:
    policy = os.environ.get("OMP_WAIT_POLICY", "")
    if policy.upper() == "PASSIVE":
        return _check(
            "openmp",
            "ok",
            "OMP_WAIT_POLICY=PASSIVE: torch and the boosting libraries do not busy-wait against each other",
        )
    return _check(
        "openmp",
        "warning",
        f"OMP_WAIT_POLICY={policy or 'unset'}: boosted trees can be 30 times slower beside torch; unset it or set PASSIVE",
    )


def _torchvision() -> Check:
    if importlib.util.find_spec("torchvision") is None:
        return _check("torchvision", "ok", "not installed, and not needed")
    try:
        importlib.import_module("torchvision")
    except Exception as error:  # built for another torch: any exception type
        return _check(
            "torchvision",
            "warning",
            f"does not load beside this torch ({str(error).splitlines()[0]}) and breaks transformers; type: pip uninstall torchvision",
        )
    return _check("torchvision", "ok", importlib.metadata.version("torchvision"))


def _extra(name: str, modules: tuple[str, ...]) -> Check:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        return _check(f"[{name}]", "missing", f"{', '.join(missing)}; type: pip install 'papertrial[{name}]'")
    return _check(f"[{name}]", "ok", ", ".join(modules))


def _cache() -> Check:
    from papertrial.data.base import cache_folder

    folder = cache_folder()
    probe = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(probe).free / 1e9
    if not os.access(probe, os.W_OK):
        return _check("cache", "warning", f"{folder} cannot be written; set PAPERTRIAL_CACHE to a folder that can")
    return _check("cache", "ok" if free > 2 else "warning", f"{folder}, {free:.0f} GB free on {Path(probe)}")
