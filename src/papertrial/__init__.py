"""papertrial: a reading list you can put on trial.

    import papertrial as pt

    data = pt.open("photos/")                                    # what is it, what fits it
    print(data.look())
    model = pt.fit("mlp_mixer", data="photos/", budget="2m")     # a run is a folder
    model.predict("more/")
    print(pt.compare(["mlp_mixer"], data="photos/", budget="1m"))  # the verdict

Importing papertrial imports no torch; the functions below import what they need when they are called.
"""

from __future__ import annotations

import os
import sys
from typing import Any

# Two OpenMP runtimes (torch's and a boosting library's) that busy-wait against each other turn seconds into minutes;
# the runtime reads this once, when it is loaded.
_in_time = "torch" not in sys.modules or os.environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
WAITS_PASSIVELY = _in_time and os.environ["OMP_WAIT_POLICY"].upper() == "PASSIVE"

__version__ = "0.2.0"
__all__ = ["Artifact", "compare", "estimate", "fit", "load", "measure", "open", "papers"]

_FACE = {
    "open": ("papertrial.data", "open"),
    "fit": ("papertrial.use.fit", "fit"),
    "compare": ("papertrial.study.compare", "compare"),
    "measure": ("papertrial.study.measure", "measure"),
    "estimate": ("papertrial.study.estimate", "estimate"),
    "Artifact": ("papertrial.use.artifact", "Artifact"),
    "papers": ("papertrial.core.registry", "papers"),
}


def load(folder: Any) -> Any:
    """The trained model in a run's folder; see `papertrial.use.artifact.Artifact`."""
    from papertrial.use.artifact import Artifact

    return Artifact.load(folder)


def __getattr__(name: str) -> Any:
    if name not in _FACE:
        raise AttributeError(f"module 'papertrial' has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _FACE[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
