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

_FACE = {
    "Artifact": "papertrial.use.artifact:Artifact",
    "Budget": "papertrial.core.budget:Budget",
    "PapertrialError": "papertrial.core.errors:PapertrialError",
    "check": "papertrial.study.check:check",
    "compare": "papertrial.study.compare:compare",
    "doctor": "papertrial.use.doctor:checks",
    "eject": "papertrial.use.eject:eject",
    "embed": "papertrial.use.asked:embed",
    "estimate": "papertrial.study.estimate:estimate",
    "evaluate": "papertrial.use.asked:evaluate",
    "export": "papertrial.use.export:export",
    "fit": "papertrial.use.fit:fit",
    "generate": "papertrial.use.asked:generate",
    "index": "papertrial.discover.index:index",
    "load": "papertrial.use.asked:loaded",
    "look": "papertrial.use.suitability:look",
    "measure": "papertrial.study.measure:measure",
    "new": "papertrial.app.new:new",
    "open": "papertrial.data.open:open",
    "papers": "papertrial.papers",
    "predict": "papertrial.use.asked:predict",
    "read": "papertrial.core.page:read",
    "reading_list": "papertrial.core.registry:reading_list",
    "report": "papertrial.study.report:report",
    "search": "papertrial.discover.search:search",
    "sklearn": "papertrial.sklearn",
}
__all__ = [*_FACE]


def __getattr__(name: str) -> Any:
    if name not in _FACE:
        raise AttributeError(f"module 'papertrial' has no attribute {name!r}")
    from importlib import import_module

    module, _, attribute = _FACE[name].partition(":")
    held = import_module(module)
    return getattr(held, attribute) if attribute else held


def __dir__() -> list[str]:
    return sorted(__all__)
