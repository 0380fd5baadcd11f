"""Small trained runs that the tests of this folder share, trained once per session."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import papertrial as pt

SMALL_RESNET = {"backbone.width": 8, "backbone.depths": "1,1"}
RUNS = {
    "mlp_mixer": ("mlp_mixer", "digits", {}),
    "resnet": ("resnet", "digits", {}),
    "vit": ("vit", "digits", {}),
    "nfnet": ("nfnet", "digits", {}),
    "barlow_twins": ("barlow_twins", "digits", {"backbone": "resnet", "settings": SMALL_RESNET}),
    "rtdl": ("rtdl", "mixed", {"settings": {"width": 16}}),
    "rtdl:resnet": ("rtdl:resnet", "wine", {}),
    "rtdl:mlp": ("rtdl:mlp", "diabetes", {}),
    "linear": ("linear", "mixed", {}),
    "linear:value": ("linear", "diabetes", {}),
    "majority": ("majority", "wine", {}),
}


@cache
def folder():
    return Path(tempfile.mkdtemp(prefix="papertrial-tests-"))


@cache
def mixed():
    """A table with missing numbers, categories, and a shifted column."""
    import numpy as np
    import pandas as pd

    draw = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "price": draw.gamma(2, 20, 200),
            "year": 1e4 + draw.integers(0, 30, 200),
            "city": draw.choice(["Oslo", "Rome", "Lima"], 200),
            "kind": draw.choice(["new", "used"], 200),
        }
    )
    frame["sold"] = np.where(frame["price"] + 20 * (frame["city"] == "Rome") + draw.normal(0, 9, 200) > 40, "yes", "no")
    frame.loc[draw.random(200) < 0.1, "price"] = np.nan
    frame.loc[draw.random(200) < 0.1, "city"] = None
    frame.to_csv(folder() / "mixed.csv", index=False)
    return folder() / "mixed.csv"


def data(name):
    """What a run was trained on."""
    source = RUNS[name][1]
    return mixed() if source == "mixed" else source


@cache
def run(name):
    """The artifact of a run after a few steps."""
    method, source, more = RUNS[name]
    out = folder() / name.replace(":", "-")
    target = "sold" if source == "mixed" else None
    return pt.fit(method, data(name), target=target, recipe="tiny", budget="5steps", out=out, progress=False, **more)
