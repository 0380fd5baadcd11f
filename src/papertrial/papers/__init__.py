"""The shelf: one file per paper. Called, it gives the papers that can be used now, by id: `papertrial.papers()`.

>>> import papertrial as pt
>>> pt.papers()["mlp_mixer"].year
2021
"""

import sys
from types import ModuleType

from papertrial.core.paper import Paper
from papertrial.core.registry import papers


class _Shelf(ModuleType):
    """A package is an attribute of its parent once it is imported, so that a function could not keep the name."""

    def __call__(self) -> dict[str, Paper]:
        return papers()


sys.modules[__name__].__class__ = _Shelf
