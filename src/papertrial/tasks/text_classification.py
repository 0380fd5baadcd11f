"""Classify texts; papers are measured against a tuned TF-IDF with logistic regression, which is hard to beat on few labels,
and against the same with the vector of a pretrained encoder beside it.

Protocol, version 1
    Split       The test rows are those given, or a fifth of the labelled texts of each class, the same for every seed. The
                validation rows are those given, or a tenth of the rest, drawn by the seed. Texts that differ in case,
                blanks and punctuation only stay on one side; empty ones are left out.
    Labels      Of each class `labels` training texts keep their label, all where that is not asked for.
    Supervised  Architectures are trained on the labelled texts alone and judged by their own head.
    Probe       Objectives may learn from all training texts without labels. They are judged by a logistic regression (L2,
                C = 1) on frozen features, standardised on the labelled rows it is fitted to.
    Metric      Accuracy; average precision where the rarer of two classes has less than a tenth of the labels, and macro F1
                where one class has more than three quarters, since accuracy would then praise the answer that never changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from papertrial.core.budget import Budget
from papertrial.core.errors import DataError
from papertrial.core.facts import Facts
from papertrial.core.task import Prepared, Scores, Split, Supports
from papertrial.core.wording import counted
from papertrial.nn.heads import Supervised
from papertrial.tasks._choosing import ACCURACY, for_classes, unusual
from papertrial.tasks._common import Common, estimated, known_labels, objective
from papertrial.tasks._metrics import classification_scores, groups_of, primary
from papertrial.tasks._probe import fit_probe, probe_outputs, softmax
from papertrial.tasks._split import pick, require_fraction, revealed_per_class, split_rows
from papertrial.tasks._texts import cut, features_of, fit_to, ids_of, reading, require_tokeniser, sizes, through


class TextClassification(Common):
    """Columns "text" Ragged uint8 (UTF-8) and "label" int64 (N,), -1 = unlabelled; models read "ids" Ragged int32."""

    name = "text_classification"
    version = 1
    kind = "text"
    inputs = ("ids",)
    references = ("tfidf", "tfidf_minilm")
    floors = ("majority",)
    budget = Budget(seconds=60)

    def primary_for(self, state: Mapping[str, Any]) -> tuple[str, bool]:
        metric = primary(state, "accuracy")
        return metric.name, metric.higher

    def supports(self, look: Any) -> Supports:
        if look.kind != self.kind:
            return Supports(False, f"it takes texts, and {look.name} is {look.what}")
        if not look.numbers.get("labelled"):
            return Supports(False, "there are no labels")
        if look.numbers.get("classes", 0) < 2:
            return Supports(False, "all labels are the same class")
        return Supports(True)

    def prepare(
        self,
        data: Any,
        seed: int = 0,
        labels: int | str | None = None,
        fraction: float = 1.0,
        metric: str | None = None,
    ) -> Prepared:
        """labels: how many per class are revealed, by default all.  fraction: share of the training texts that is used.
        metric: what is judged by, in place of what the data call for.

        Raises DataError for a single class, or too few labels to hold some out, PapertrialError for an option out of range.
        """
        revealed = revealed_per_class(labels, None)
        require_fraction(fraction)
        rows = np.flatnonzero(~data.empty)
        target = np.asarray(data.labels, dtype=np.int64)[rows]
        notes = [f"left out: {counted(data.empty.sum(), 'empty text')}"] if data.empty.any() else []
        parts = split_rows(
            target,
            data.part[rows],
            data.groups[rows],
            seed,
            revealed,
            float(fraction),
            notes,
            "texts",
            needs_labels=True,
        )
        train, valid, test = (rows[part] for part in parts)
        shown = np.full(len(data.labels), -1, dtype=np.int64)
        most = np.inf if revealed is None else revealed
        labelled = data.labels[train] >= 0
        kept = train[
            pick(data.labels[train], lambda count: np.minimum(count, most), np.random.default_rng([seed, 2]), labelled)
        ]
        shown[kept] = data.labels[kept]
        if len(np.unique(shown[kept])) < 2:
            raise DataError(
                f"the labelled training texts of {data.name} are of one class only",
                "label two texts of each class or more",
            )
        if len(kept) < labelled.sum():
            notes.append(
                f"{revealed} labels per class are shown to methods: {len(kept)} of {len(train)} training texts"
            )
        class_names = [str(name) for name in data.class_names]
        state = {
            "class_names": class_names,
            "columns": data.columns,
            "target": data.columns.get("target"),
            **for_classes(metric, target, class_names, notes, "texts", of_two=True),
        }

        def part(index: np.ndarray, label: np.ndarray) -> Split:
            return Split({"text": data.texts[index], "label": label[index]})

        prepared = part(train, shown)
        classes = len(data.class_names)
        tuned = unusual(state["metric"], ACCURACY)
        read = sizes(prepared["text"])
        facts = Facts("text", len(train), len(kept), classes=classes, outputs=classes, metric=tuned, **read)
        choosing, judged = (part(rows, data.labels).grouped(data.groups[rows]) for rows in (valid, test))
        return Prepared(prepared, choosing, judged, facts, state, tuple(notes))

    def strata(self, data: Any) -> np.ndarray:
        return np.where(data.empty, -1, data.labels)

    def encode(self, state: Mapping[str, Any], data: Any) -> Split:
        """New texts. Labels are kept where their class is known to the model, and -1 elsewhere."""
        columns = {"text": data.texts}
        label = known_labels(state, data)
        if (label >= 0).any():
            columns["label"] = label
        return Split(columns)

    def cut(self, model: Any, split: Split) -> list[str]:
        return cut(model, {"text": split["text"]})

    def build(self, method: Any, config: Any, optim: Any, prepared: Prepared, backbone: nn.Module | None = None) -> Any:
        """Raises Declined when the method is not for this task, or needs labels or a backbone that are not there."""
        kind, facts = method.paper.kind, prepared.facts
        self.require_made_for(method)
        if kind == "estimator":
            return method.module.build(config, facts)
        if kind == "architecture":
            built = method.module.build(config, facts)
            require_tokeniser(built, method.id)
            return Supervised(built, facts.outputs, "classes", self.inputs, optim.label_smoothing)
        if kind == "objective":
            return objective(method, config, facts, backbone, reading)
        raise self.cannot_train(method)

    def training(self, model: Any, prepared: Prepared) -> Split:
        train = prepared.train
        if not isinstance(model, nn.Module) or isinstance(model, Supervised):
            train = train.take(np.flatnonzero(train["label"] >= 0))
        if not isinstance(model, nn.Module):
            return train
        fit_to(model, train["text"])
        return Split({"ids": ids_of(model, train["text"]), "label": train["label"]})

    def finish(self, model: Any, prepared: Prepared, seed: int) -> dict[str, np.ndarray]:
        """The linear probe of an objective as arrays: mean, std (width,), weight (classes, width), bias (classes,)."""
        if not isinstance(model, nn.Module) or isinstance(model, Supervised):
            return {}
        labelled = prepared.train.take(np.flatnonzero(prepared.train["label"] >= 0))
        return fit_probe(self.embed(model, labelled), labelled["label"], prepared.facts.classes)

    def outputs(self, model: Any, head: Mapping[str, np.ndarray], split: Split) -> np.ndarray:
        """Probabilities (N, classes), float64."""
        if not isinstance(model, nn.Module):
            return estimated(model, split)
        if isinstance(model, Supervised):
            return softmax(through(model, model, {"ids": ids_of(model, split["text"])}).astype(np.float64))
        return probe_outputs(head, self.embed(model, split))

    def embed(self, model: Any, split: Split) -> np.ndarray:
        """(N, width) float32. Raises Declined for a model without features."""
        return features_of(model, split["text"])

    def score(self, outputs: np.ndarray, split: Split, state: Mapping[str, Any]) -> Scores:
        judged = split["label"] >= 0
        metric, groups = primary(state, "accuracy").name, groups_of(split, judged)
        names, positive = state["class_names"], state.get("positive")
        return classification_scores(outputs[judged], split["label"][judged], names, metric, groups, positive)


TASK = TextClassification()
