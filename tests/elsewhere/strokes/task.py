"""Classify strokes: each is resampled to the same number of points."""

from __future__ import annotations

import numpy as np
import torch

from papertrial.core.budget import Budget
from papertrial.core.errors import Declined
from papertrial.core.facts import Facts
from papertrial.core.task import Prepared, Split, Supports
from papertrial.nn.batches import forward_batches
from papertrial.nn.heads import Supervised
from papertrial.tasks._metrics import classification_scores

POINTS = 16


class StrokeClassification:
    name = "stroke_classification"
    version = 1
    kind = "strokes"
    inputs = ("points",)
    references = ("majority",)
    floors = ("majority",)
    budget = Budget(seconds=10)

    def primary_for(self, state):
        return "accuracy", True

    def supports(self, look):
        if look.kind != self.kind:
            return Supports(False, f"it takes strokes, and {look.name} is {look.what}")
        return Supports(look.numbers["classes"] > 1, "there are no two classes")

    def prepare(self, data, seed=0):
        order = np.random.default_rng(0).permutation(len(data))
        test, free = order[: len(data) // 3], order[len(data) // 3 :]
        free = np.random.default_rng([seed, 1]).permutation(free)
        valid, train = free[: len(free) // 5], free[len(free) // 5 :]
        state = {"class_names": list(data.class_names), "points": POINTS}
        columns = self.encode(state, data)
        count = len(data.class_names)
        facts = Facts("strokes", len(train), len(train), classes=count, outputs=count, more={"points": POINTS})
        return Prepared(columns.take(train), columns.take(valid), columns.take(test), facts, state)

    def encode(self, state, data):
        at = np.linspace(0, 1, state["points"])
        points = [
            np.stack([np.interp(at, np.linspace(0, 1, len(stroke)), side) for side in stroke.T], 1)
            for stroke in data.strokes
        ]
        columns = {"points": np.stack(points).astype(np.float32)}
        if (data.labels >= 0).any():
            columns["label"] = np.array(
                [state["class_names"].index(data.class_names[code]) if code >= 0 else -1 for code in data.labels]
            )
        return Split(columns)

    def build(self, method, config, optim, prepared, backbone=None):
        made = method.module.build(config, prepared.facts)
        if method.paper.kind == "estimator":
            return made
        if method.paper.kind != "architecture":
            raise Declined(f"{method.id} is no network of strokes")
        return Supervised(made, prepared.facts.outputs, inputs=self.inputs)

    def training(self, model, prepared):
        return prepared.train

    def finish(self, model, prepared, seed):
        return {}

    def outputs(self, model, head, split):
        if not isinstance(model, torch.nn.Module):
            return np.asarray(model.outputs(split))
        model.eval()
        logits = forward_batches(model, split, self.inputs).astype(np.float64)
        return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)

    def embed(self, model, split):
        model.eval()
        return forward_batches(model.encoder, split, self.inputs)

    def score(self, outputs, split, state):
        return classification_scores(outputs, split["label"], state["class_names"])

    def extra_scores(self, model, prepared, seed):
        return {}

    def answers(self, outputs, state):
        return {"prediction": np.array(state["class_names"])[outputs.argmax(1)]}


TASK = StrokeClassification()
