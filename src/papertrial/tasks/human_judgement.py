"""Which automatic metric thinks of outputs as people do; methods are metrics, judged by the ranks of people's scores.

Protocol, version 1
    Split       The test outputs are those given, or those of half of the items, the same for every seed: most metrics learn
                nothing, and what is not for the test is not judged. The validation outputs are those given, or of a tenth of
                the rest, drawn by the seed. All outputs of an item stay on one side.
    Methods     give an output and its reference a number, higher is better. Those that learn see people's scores of the
                training outputs.
    Metric      Spearman's rank correlation with people's scores over all test outputs at once. The outputs of one item share
                its reference, so the interval takes items, not outputs, as independent. At the level of systems, and within
                items: further figures, on which no verdict rests, for systems are few.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy

from papertrial.core.budget import Budget
from papertrial.core.errors import DataError, Declined
from papertrial.core.facts import Facts
from papertrial.core.task import Prepared, Scores, Split, Supports
from papertrial.core.wording import counted
from papertrial.tasks._choosing import chosen
from papertrial.tasks._common import Common, estimated
from papertrial.tasks._metrics import groups_of, primary, spearman_scores
from papertrial.tasks._split import SPLIT_SEED, require_fraction, split_rows
from papertrial.tasks._texts import cut, sizes, stacked

TEST_SHARE = 0.5


class HumanJudgement(Common):
    """Columns "reference" and "output" Ragged uint8 (UTF-8), "system" and "item" int64, "target" float32 (N,), NaN = none."""

    name = "human_judgement"
    version = 1
    kind = "judged"
    inputs = ("reference", "output")
    references = ("rouge", "bleu")
    floors = ("length",)
    budget = Budget(seconds=60)

    def primary_for(self, state: Mapping[str, Any]) -> tuple[str, bool]:
        metric = primary(state, "spearman")
        return metric.name, metric.higher

    def supports(self, look: Any) -> Supports:
        if look.kind != self.kind:
            return Supports(
                False, f"it takes outputs of systems with references and scores, and {look.name} is {look.what}"
            )
        if not look.numbers.get("scored"):
            return Supports(False, "nobody has judged its outputs")
        if look.numbers["score_min"] == look.numbers["score_max"]:
            return Supports(False, "all scores are equal")
        return Supports(look.numbers["items"] > 3, "fewer than four items are too few to hold some out")

    def prepare(self, data: Any, seed: int = 0, fraction: float = 1.0, metric: str | None = None) -> Prepared:
        """fraction: share of the training outputs that is used.  metric: what is judged by, Spearman's correlation by default.

        Raises DataError where the scores of the test outputs are all equal, PapertrialError for an option out of range.
        """
        require_fraction(fraction)
        notes: list[str] = []
        known = np.isfinite(data.scores)
        if not known.all():
            notes.append(f"left out: {counted((~known).sum(), 'output')} without a score")
        rows = np.flatnonzero(known)
        item, part = data.groups[rows], data.part[rows]
        if not (part == 2).any():
            items = np.unique(item)
            test = np.random.default_rng(SPLIT_SEED).permutation(items)[: round(TEST_SHARE * len(items))]
            part = np.where(np.isin(item, test), 2, part)
            notes.append(f"test: the outputs of {len(test):,} of {len(items):,} items, the same for every seed")
        scores = data.scores[rows]
        # the better half and the rest, neither of them empty where scores differ
        above = (scores > min(float(np.median(scores)), float(np.nextafter(scores.max(), -np.inf)))).astype(np.int64)
        parts = split_rows(above, part, item, seed, None, float(fraction), notes, "outputs", needs_labels=True)
        train, valid, test = (rows[chosen] for chosen in parts)
        if np.ptp(data.scores[test]) == 0:
            raise DataError(f"all scores of the test outputs of {data.name} are equal", "judge more outputs")

        def columns(index: np.ndarray) -> Split:
            return self.encode({}, data).take(index)

        learned = columns(train)
        facts = Facts(
            self.kind, len(train), len(train), outputs=1, **sizes(stacked([learned["reference"], learned["output"]]))
        )
        state = {"columns": data.columns, "target": data.columns.get("target")}
        state["metric"] = chosen(metric, "agreement", "spearman")
        choosing, judged = (columns(rows).grouped(data.groups[rows]) for rows in (valid, test))
        return Prepared(learned, choosing, judged, facts, state, tuple(notes))

    def encode(self, state: Mapping[str, Any], data: Any) -> Split:
        """New outputs, with their scores where they have any."""
        columns = {"reference": data.first, "output": data.second, "system": data.system, "item": data.copies}
        if np.isfinite(data.scores).any():
            columns["target"] = data.scores.astype(np.float32)
        return Split(columns)

    def cut(self, model: Any, split: Split) -> list[str]:
        return cut(model, {name: split[name] for name in self.inputs})

    def build(self, method: Any, config: Any, optim: Any, prepared: Prepared, backbone: Any = None) -> Any:
        """Raises Declined for what is no metric."""
        if self.name not in method.paper.tasks:
            raise Declined(f"{method.id} is not a metric of texts", "type: papertrial list")
        if method.paper.kind != "estimator":
            raise self.cannot_train(method)
        return method.module.build(config, prepared.facts)

    def training(self, model: Any, prepared: Prepared) -> Split:
        return prepared.train

    def outputs(self, model: Any, head: Mapping[str, np.ndarray], split: Split) -> np.ndarray:
        """(N,) float64."""
        return estimated(model, split)

    def embed(self, model: Any, split: Split) -> np.ndarray:
        raise Declined("a metric of texts has no features to give")

    def score(self, outputs: np.ndarray, split: Split, state: Mapping[str, Any]) -> Scores:
        """Spearman's and Pearson's correlation, and Kendall's tau-b; outputs without a score are left out."""
        judged = np.isfinite(split["target"])
        values, targets = outputs[judged], np.asarray(split["target"], dtype=np.float64)[judged]
        groups = groups_of(split, judged)
        found = spearman_scores(
            values, targets, split["item"][judged] if groups is None else groups, primary(state, "spearman").name
        )
        found.metrics["kendall"] = _or_zero(scipy.stats.kendalltau, values, targets)
        return found

    def extra_scores(self, model: Any, prepared: Prepared, seed: int) -> dict[str, float]:
        """system_*: correlations over the means of systems, from three on.  within_items: the mean of Kendall's tau-b over the
        items that people gave different scores."""
        test = prepared.test
        values, targets = self.outputs(model, {}, test), np.asarray(test["target"], dtype=np.float64)
        systems, place = np.unique(test["system"], return_inverse=True)
        found = {}
        if len(systems) > 2:
            means = [np.bincount(place, column) / np.bincount(place) for column in (values, targets)]
            for name, function in (("pearson", "pearsonr"), ("spearman", "spearmanr"), ("kendall", "kendalltau")):
                found[f"system_{name}"] = _or_zero(getattr(scipy.stats, function), *means)
        order = np.argsort(test["item"], kind="stable")
        edges = np.flatnonzero(np.diff(test["item"][order])) + 1
        rows = [some for some in np.split(order, edges) if np.ptp(targets[some]) > 0]
        if rows:
            found["within_items"] = float(
                np.mean([_or_zero(scipy.stats.kendalltau, values[some], targets[some]) for some in rows])
            )
        return found


TASK = HumanJudgement()


def _or_zero(function: Any, values: np.ndarray, targets: np.ndarray) -> float:
    """A correlation; 0 where one side is constant."""
    if np.ptp(values) == 0 or np.ptp(targets) == 0:
        return 0.0
    return float(function(values, targets).statistic)
