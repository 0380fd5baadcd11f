"""How strokes are shown in a report, and what an exported model of them takes."""

from __future__ import annotations

import numpy as np

from papertrial.study.html_page import Heading, Table


def shown(prepared):
    rows = [
        [prepared.state["class_names"][label], " ".join(f"{x:.1f},{y:.1f}" for x, y in points[:4])]
        for points, label in zip(prepared.train["points"][:6], prepared.train["label"][:6], strict=True)
    ]
    return [Heading("Training strokes"), Table(["class", "first points"], rows)]


def meanings(state, facts):
    shape = [state["points"], 2]
    return [{"name": "points", "dtype": "float32", "shape": shape, "meaning": "x and y, evenly along the stroke"}]


def made_up(facts, rows):
    shape = (rows, int(facts["more"]["points"]), 2)
    return {"points": np.random.default_rng(0).normal(size=shape).astype(np.float32)}
