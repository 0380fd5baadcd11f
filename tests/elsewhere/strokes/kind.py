"""Strokes of a pen: points in the order they were drawn, from files of lines {"label": ..., "points": [[x, y], ...]}."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from papertrial.core.errors import DataError
from papertrial.core.kind import Kind
from papertrial.data import Data, Look
from papertrial.data.base import fingerprint

KIND = Kind(
    name="strokes",
    data="strokes.kind:Strokes",
    words="strokes of a pen",
    opens="strokes.kind:opens",
    accepts="a .strokes file or a folder of them",
    samples={"scribbles": "strokes.kind:scribbles"},
    labelled="the key label",
    backbones={"strokes_net": ""},
    small_backbone="strokes_net",
    unsuitable="table",
    shown="strokes.pages:shown",
    meanings="strokes.pages:meanings",
    made_up="strokes.pages:made_up",
)


class Strokes(Data):
    """strokes: (points, 2) float arrays.  labels: int64 (N,), -1 = none.  class_names: sorted."""

    kind = "strokes"

    def __init__(self, strokes, labels, name, names=()):
        self.class_names = tuple(sorted({label for label in labels if label}))
        self.labels = np.array([self.class_names.index(label) if label else -1 for label in labels], np.int64)
        self.strokes = strokes
        self.names = list(names) or [str(row) for row in range(len(strokes))]
        super().__init__(name, fingerprint(*strokes, self.labels, *self.class_names))

    def __len__(self):
        return len(self.strokes)

    def look(self):
        labelled = int((self.labels >= 0).sum())
        points = [len(stroke) for stroke in self.strokes]
        facts = [
            ("strokes", f"{len(self):,} of {min(points)} to {max(points)} points"),
            ("classes", ", ".join(self.class_names) or "none"),
        ]
        numbers = {"examples": len(self), "labelled": labelled, "classes": len(self.class_names)}
        return Look(self.name, self.kind, facts, list(self.notes), numbers)


def opens(given):
    """A .strokes file or a folder of them."""
    files = [given.path] if given.suffix == ".strokes" else sorted(f for f in given.files if f.suffix == ".strokes")
    if not files:
        return None
    rows = [json.loads(line) for file in files for line in Path(file).read_text(encoding="utf-8").splitlines()]
    if not rows:
        raise DataError(f"{given.path} holds no strokes", "write one a line")
    return Strokes([np.array(row["points"], float) for row in rows], [row.get("label", "") for row in rows], given.name)


def drawn(count, seed=0):
    """Rings and dashes of a shaky hand: [(label, points)]."""
    draw = np.random.default_rng(seed)
    rows = []
    for row in range(count):
        along = np.linspace(0, 1, int(draw.integers(10, 30)))[:, None]
        ring = np.concatenate([np.cos(6 * along), np.sin(6 * along)], axis=1)
        dash = along * draw.normal(size=2)
        rows.append(
            ("ring" if row % 2 else "dash", (ring if row % 2 else dash) + 0.1 * draw.normal(size=(len(along), 2)))
        )
    return rows


def scribbles():
    rows = drawn(120)
    return Strokes([points for _, points in rows], [label for label, _ in rows], "scribbles")
