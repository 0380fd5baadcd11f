"""How alike two sentences are, as a number; judged by whether the ranks of the answers are those of people's scores.

Protocol, version 1
    Split       The test pairs are those given, or a fifth of the scored ones over the whole range of scores, the same for
                every seed. The validation pairs are those given, or a tenth of the rest, drawn by the seed. The same pair,
                also the other way round, stays on one side; sentences may occur in several pairs.
    Supervised  The cosine of the two embeddings is trained to be the score, scaled from its range to [0, 1], by squared
                error (arXiv 1908.10084, sec. 3). The answer is on the scale of the scores.
    Objectives  learn from the distinct sentences of the training pairs without their scores, and answer with the cosine.
                Those that want pairs (their attribute `paired`) are given the pairs that are alike, from 0.8 of the range of
                scores, or all where none is scored, with the third texts of triplets as "third". Sentences that are no
                pairs will do for the others; nothing is judged then.
    Metric      Spearman's rank correlation over all test pairs at once ("all" in arXiv 2104.08821).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from papertrial.core.budget import Budget
from papertrial.core.errors import DataError, Declined
from papertrial.core.facts import Facts
from papertrial.core.offers import offers
from papertrial.core.task import Prepared, Scores, Split, Supports
from papertrial.core.wording import counted
from papertrial.nn.contrastive import alignment, uniformity
from papertrial.tasks._choosing import chosen
from papertrial.tasks._common import Common, estimated, objective
from papertrial.tasks._metrics import groups_of, primary, spearman_scores
from papertrial.tasks._split import require_fraction, some_of, split_rows
from papertrial.tasks._texts import cut, features_of, fit_to, ids_of, reading, require_tokeniser, sizes, stacked, unit

#: share of the range of scores from which a pair counts as alike (4 on a scale of 5; arXiv 2104.08821, sec. 2)
ALIKE = 0.8
#: most sentences whose distances are taken for the uniformity
SPREAD = 2000
#: columns of text; the third stands beside pairs that are triplets
SIDES = ("first", "second", "third")
_STRATA = 5


class SupervisedPairs(nn.Module):
    """An encoder whose cosine is trained to be the score. `forward(first, second) -> (B,)`, on the scale of the scores.

    low, high: of the scores of the training pairs.
    """

    low: Tensor
    high: Tensor

    def __init__(self, encoder: nn.Module, low: float, high: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("low", torch.tensor(float(low)))
        self.register_buffer("high", torch.tensor(float(high)))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.low + (self.high - self.low) * self.cosine(first, second)

    def cosine(self, first: Tensor, second: Tensor) -> Tensor:
        return (unit(self.encoder(first)) * unit(self.encoder(second))).sum(-1)

    def loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        wanted = (batch["target"] - self.low) / (self.high - self.low)
        return F.mse_loss(self.cosine(batch["first"], batch["second"]), wanted)

    def no_decay(self) -> set[str]:
        return offers(self.encoder).exempt("encoder")


class SentenceSimilarity(Common):
    """Columns "first" and "second" Ragged uint8 (UTF-8) and "target" float32 (N,), NaN = no score; models read token ids."""

    name = "sentence_similarity"
    version = 1
    kind = "pairs"
    kinds = ("pairs", "text")
    inputs = ("first", "second")
    #: a pretrained encoder as it came is what training on top of it has to beat
    references = ("tfidf", "static_words", "untrained")
    floors = ("majority",)
    budget = Budget(seconds=60)

    def primary_for(self, state: Mapping[str, Any]) -> tuple[str, bool]:
        metric = primary(state, "spearman")
        return metric.name, metric.higher

    def supports(self, look: Any) -> Supports:
        if look.kind not in self.kinds:
            return Supports(False, f"it takes pairs of texts, and {look.name} is {look.what}")
        if look.kind == "text":
            return Supports(not look.numbers.get("labelled"), "its texts have labels and are not pairs", judges=False)
        if not look.numbers.get("scored"):
            return Supports(
                not look.numbers.get("classes"),
                "its pairs have labels, not scores" if look.numbers.get("classes") else "",
                judges=False,
            )
        if look.numbers.get("score_min") == look.numbers.get("score_max"):
            return Supports(False, "all scores are equal")
        return Supports(True)

    def prepare(self, data: Any, seed: int = 0, fraction: float = 1.0, metric: str | None = None) -> Prepared:
        """fraction: share of the training pairs that is used.  metric: what is judged by, Spearman's correlation by default.

        Without any scores all pairs are for training, and valid and test are empty. Raises DataError for too few scored
        pairs or scores that are all equal, PapertrialError for an option out of range.
        """
        require_fraction(fraction)
        if data.kind == "text":
            return self._sentences(data, seed, float(fraction))
        rows = np.flatnonzero(~data.empty)
        notes = [f"left out: {counted(data.empty.sum(), 'pair')} with an empty text"] if data.empty.any() else []
        scores = data.scores[rows]
        known = np.isfinite(scores)
        if known.any() and np.ptp(scores[known]) == 0:
            raise DataError(
                f"all scores of {data.name} are equal", "give pairs of which some are more alike than others"
            )
        parts = split_rows(
            _strata(scores),
            data.part[rows],
            data.groups[rows],
            seed,
            None,
            float(fraction),
            notes,
            "pairs",
            needs_labels=False,
        )
        train, valid, test = (rows[part] for part in parts)
        target = data.scores.astype(np.float32)

        def part(index: np.ndarray) -> Split:
            sides = {"first": data.first[index], "second": data.second[index]}
            third = {} if data.third is None else {"third": data.third[index]}
            return Split({**sides, **third, "target": target[index]})

        state: dict[str, Any] = {"columns": data.columns, "target": data.columns.get("target")}
        state["metric"] = chosen(metric, "agreement", "spearman")
        scored = np.isfinite(target[train])
        if known.any():
            if not scored.any() or np.ptp(target[train][scored]) == 0:
                raise DataError(
                    f"the scored training pairs of {data.name} are too few or all equal", "score more pairs"
                )
            state |= {"low": float(target[train][scored].min()), "high": float(target[train][scored].max())}
            met = np.isin(data.sides[:, test], data.sides[:, train]).any(axis=0).sum() / max(1, len(test))
            if met:
                notes.append(f"{met:.0%} of the test pairs have a sentence that is also in a training pair")
        prepared = part(train)
        facts = Facts(
            "pairs", len(train), int(scored.sum()), outputs=1, **sizes(stacked([prepared["first"], prepared["second"]]))
        )
        choosing, judged = (part(rows).grouped(data.groups[rows]) for rows in (valid, test))
        return Prepared(prepared, choosing, judged, facts, state, tuple(notes))

    def strata(self, data: Any) -> np.ndarray:
        """Fifths of the scored pairs by score; -1 without one."""
        return _strata(np.where(data.empty, np.nan, data.scores))

    def _sentences(self, data: Any, seed: int, fraction: float) -> Prepared:
        """All sentences to learn from, in the column "first"."""
        rows = np.flatnonzero(~data.empty)
        if not len(rows):
            raise DataError(f"{data.name} has no sentences", "give lines of text")
        train = data.texts[some_of(rows, fraction, seed)]
        facts = Facts("pairs", len(train), outputs=1, **sizes(train))
        none = Split(dict.fromkeys(self.inputs, train[:0]))
        notes = ("sentences alone: nothing is judged; score pairs of them to know what was learnt",)
        return Prepared(Split({"first": train}), none, none, facts, {"columns": data.columns, "target": None}, notes)

    def encode(self, state: Mapping[str, Any], data: Any) -> Split:
        """New pairs, with their scores where they have any; sentences alone stand as "first"."""
        if data.kind == "text":
            return Split({"first": data.texts})
        columns = {"first": data.first, "second": data.second}
        if np.isfinite(data.scores).any():
            columns["target"] = data.scores.astype(np.float32)
        return Split(columns)

    def cut(self, model: Any, split: Split) -> list[str]:
        return cut(model, {"text": stacked([split[name] for name in SIDES if name in split])})

    def build(self, method: Any, config: Any, optim: Any, prepared: Prepared, backbone: nn.Module | None = None) -> Any:
        """Raises Declined when the method is not for this task, or needs scores or a backbone that are not there."""
        kind, facts, state = method.paper.kind, prepared.facts, prepared.state
        self.require_made_for(method, "text_classification")  # one encoder serves both
        if kind != "objective" and "low" not in state:
            raise Declined(f"{method.id} learns from scores, and there are none")
        if kind == "estimator":
            return method.module.build(config, facts)
        if kind == "architecture":
            built = method.module.build(config, facts)
            require_tokeniser(built, method.id)
            return SupervisedPairs(built, state["low"], state["high"])
        if kind == "objective":
            return objective(method, config, facts, backbone, reading)
        raise self.cannot_train(method)

    def training(self, model: Any, prepared: Prepared) -> Split:
        train = prepared.train
        if not isinstance(model, nn.Module) or isinstance(model, SupervisedPairs):
            train = train.take(np.flatnonzero(np.isfinite(train["target"])))
        if not isinstance(model, nn.Module):
            return train
        sentences = stacked([train[name] for name in SIDES if name in train])
        fit_to(model, sentences)
        if isinstance(model, SupervisedPairs):
            return Split({**self._ids(model, train), "target": train["target"]})
        if offers(model).paired:
            if "second" not in train:
                raise Declined(
                    "pairs that are alike are wanted, and these are sentences alone", "leave --set paired out"
                )
            return Split(self._ids(model, train.take(np.flatnonzero(_alike(train["target"], prepared.state)))))
        return Split({"ids": ids_of(model, sentences[_distinct(sentences)])})

    @staticmethod
    def _ids(model: nn.Module, split: Split) -> dict[str, Any]:
        return {name: ids_of(model, split[name]) for name in SIDES if name in split}

    def outputs(self, model: Any, head: Mapping[str, np.ndarray], split: Split) -> np.ndarray:
        """(N,) float64: on the scale of the scores for supervised models, cosines for the others."""
        if "second" not in split:
            raise DataError("single sentences are not pairs to answer for", "give pairs, or embed them")
        if not isinstance(model, nn.Module):
            return estimated(model, split)
        first, second = (_unit(self._side(model, split, name)) for name in self.inputs)
        cosine = (first * second).sum(1)
        if isinstance(model, SupervisedPairs):
            low, high = float(model.low), float(model.high)
            return low + (high - low) * cosine
        return cosine

    def _side(self, model: nn.Module, split: Split, name: str) -> np.ndarray:
        return features_of(model, split[name])

    def embed(self, model: Any, split: Split) -> np.ndarray:
        """(N, 2 * width) float32: the features of the first text, then those of the second; (N, width) of sentences alone.

        Raises Declined for a model without features.
        """
        return np.concatenate([self._side(model, split, name) for name in self.inputs if name in split], axis=1)

    def score(self, outputs: np.ndarray, split: Split, state: Mapping[str, Any]) -> Scores:
        """Pairs without a score are left out."""
        judged = np.isfinite(split["target"])
        groups = groups_of(split, judged)
        return spearman_scores(outputs[judged], split["target"][judged], groups, primary(state, "spearman").name)

    def extra_scores(self, model: Any, prepared: Prepared, seed: int) -> dict[str, float]:
        """Alignment: mean squared distance of the unit embeddings of test pairs that are alike (from 0.8 of the range of
        scores). Uniformity: log of the mean of exp(-2 squared distance) over pairs of distinct test sentences, at most 2000
        of them. Both are better when lower (arXiv 2005.10242)."""
        if offers(model).encoder is None or not prepared.test.examples:
            return {}
        test, state = prepared.test, prepared.state
        sides = [_unit(self._side(model, test, name)) for name in self.inputs]
        alike = _alike(test["target"], state)
        found = {}
        if alike.any():
            found["alignment"] = float(alignment(*(torch.from_numpy(side[alike]) for side in sides)))
        rows = _distinct(stacked([test["first"], test["second"]]))
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, SPREAD).astype(np.int64))]
        if len(rows) > 1:
            found["uniformity"] = float(uniformity(torch.from_numpy(np.concatenate(sides)[rows])))
        return found


TASK = SentenceSimilarity()


def _strata(scores: np.ndarray) -> np.ndarray:
    """int64 (N,): fifths of the scored pairs by score (halves of few), -1 without a score; at least two where scores differ."""
    known = np.isfinite(scores)
    strata = np.full(len(scores), -1, dtype=np.int64)
    if known.any():
        count = int(np.clip(known.sum() // 10, 2, _STRATA))
        edges = np.quantile(scores[known], np.arange(1, count) / count)
        strata[known] = np.searchsorted(edges, scores[known])
        if len(np.unique(strata[known])) == 1:
            strata[known] = scores[known] > scores[known].min()
    return strata


def _alike(scores: np.ndarray, state: Mapping[str, Any]) -> np.ndarray:
    """bool (N,): which pairs count as alike; all where there are no scores to tell."""
    if "low" not in state:
        return np.ones(len(scores), dtype=bool)
    return scores >= state["low"] + ALIKE * (state["high"] - state["low"])


def _distinct(sentences: Any) -> np.ndarray:
    """Places of the first of each of the equal rows, in their order."""
    from papertrial.data.texts import same

    return np.sort(np.unique(same(sentences), return_index=True)[1])


def _unit(features: np.ndarray) -> np.ndarray:
    """Rows of length 1, float64; a row of zeros stays."""
    length = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    return features / np.where(length > 0, length, 1.0)
