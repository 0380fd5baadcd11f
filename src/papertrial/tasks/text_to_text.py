"""Answer a text with a text: the second of a pair given the first, or the name of a label; or learn to from text alone.

Protocol, version 1
    Pairs       The source is the first text, the target the second one.
    Labels      The source is the text, the target the name of its class: an architecture that writes needs no head.
    Neither     Text without labels is there to learn from (`corrupt` of the architecture), and nothing is judged. A run on
                labelled data may start from such a run.
    Split       The test rows are those given, or a fifth, the same for every seed. The validation rows are those given, or
                a tenth of the rest, drawn by the seed. Equal sources stay on one side; empty ones are left out. Of more
                than MOST rows to judge, that many are judged, spread evenly.
    Answers     Written by the most probable token, or with the architecture's `beams`; as long as the longest training
                target at most.
    Metric      With labels the share of answers that are the target. With pairs chrF (Popović 2015), the mean over examples
                of the F2 of runs of one to six characters: answers of some length are seldom right as a whole, and a
                share of zero tells no two methods apart. Both are always there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from papertrial.core.budget import Budget
from papertrial.core.errors import DataError, Declined
from papertrial.core.facts import Facts
from papertrial.core.offers import offers
from papertrial.core.task import Prepared, Ragged, Scores, Split, Supports
from papertrial.core.wording import counted
from papertrial.data.belonging import joined
from papertrial.nn.decode import beam, complete
from papertrial.nn.modes import evaluating
from papertrial.nn.ranks import all_count, all_sum
from papertrial.nn.transformer import auxiliary
from papertrial.nn.views import Draw
from papertrial.tasks._choosing import chosen, unusual
from papertrial.tasks._common import Common
from papertrial.tasks._metrics import groups_of, primary, text_scores
from papertrial.tasks._split import require_fraction, some_of, split_rows, spread_evenly
from papertrial.tasks._texts import LONGEST, cut, features_of, fit_to, ids_of, require_tokeniser, sizes, stacked

#: most examples of a part that are judged
MOST = 500


class SourceToTarget(nn.Module):
    """An encoder-decoder that learns to write targets.

    backbone: has `encode`, `next`, `cache` and `start` as `nn.transformer.EncoderDecoder`, `losses(source (B, N), target
    (B, M)) -> (B, M)`, and, if it learns from text alone, `corrupt(ids (B, N), draw) -> (source, target)`.
    longest: bytes of an answer at most.
    """

    def __init__(self, backbone: nn.Module, longest: int) -> None:
        super().__init__()
        self.encoder: Any = backbone
        self.longest = longest

    def views(self, batch: Mapping[str, Tensor], draw: Draw) -> Mapping[str, Tensor]:
        """Of rows of text alone ("ids"), a source and a target."""
        if "ids" not in batch:
            return batch
        source, target = self.encoder.corrupt(batch["ids"], draw)
        return {"source": source, "target": target}

    def loss(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Mean nats of a target's token over the global batch, plus what the backbone adds, each of which is logged."""
        nats = self.encoder.losses(batch["source"], batch["target"])
        tokens = all_sum((batch["target"] != self.encoder.tokeniser.pad).sum())
        # ranks are weighed by their rows, and have more tokens or fewer
        mean = nats.sum() / len(nats) * (all_count(len(nats), nats.device) / tokens)
        added = auxiliary(self.encoder)
        return {"loss": sum(added.values(), mean), "nats_per_token": mean.detach(), **added}

    def write(self, texts: Ragged) -> list[str]:
        """An answer to each text, as in `eval()`."""
        with evaluating(self):
            rows = self._rows(ids_of(self, texts), offers(self.encoder).beams)
        return [self.encoder.tokeniser.decode(row) for row in rows]

    def _rows(self, ids: Ragged, beams: int) -> list[np.ndarray]:
        if beams > 1:
            return [found[0].ids for found in beam(self.encoder, ids, self.longest + 1, beams)]
        written = complete(self.encoder, ids, self.longest + 1)
        return [written[row] for row in range(len(written))]

    def no_decay(self) -> set[str]:
        return offers(self.encoder).exempt("encoder")


class TextToText(Common):
    """Columns "source" and "target" Ragged uint8 (UTF-8); models read both as token ids."""

    name = "text_to_text"
    version = 1
    kind = "text"
    kinds = ("text", "pairs")
    inputs = ("source",)
    references = ("t5", "nearest")
    floors = ("majority",)
    budget = Budget(seconds=60)
    trains_without_labels = True

    def primary_for(self, state: Mapping[str, Any]) -> tuple[str, bool]:
        metric = primary(state, "chrf")
        return metric.name, metric.higher

    def supports(self, look: Any) -> Supports:
        numbers = look.numbers
        if look.kind not in self.kinds:
            return Supports(False, f"it takes texts or pairs of them, and {look.name} is {look.what}")
        if look.kind == "pairs" and (numbers.get("scored") or numbers.get("classes")):
            return Supports(False, "its pairs have scores or labels: the second text is not an answer to the first")
        if numbers.get("labelled") and numbers.get("classes", 0) < 2:
            return Supports(False, "all labels are the same class")
        return Supports(True, judges=look.kind == "pairs" or bool(numbers.get("labelled")))

    def prepare(self, data: Any, seed: int = 0, fraction: float = 1.0, metric: str | None = None) -> Prepared:
        """fraction: share of the training rows that is used.  metric: what is judged by, in place of what the data call for.

        Raises DataError for data that `supports` declines or too few rows to hold some out, PapertrialError for a fraction
        out of range.
        """
        require_fraction(fraction)
        self.require(data, "cannot be answered with texts")
        if data.kind == "text" and not (data.labels >= 0).any():
            return self._without_targets(data, seed, float(fraction))
        source, target, known = _sides(data)
        groups = data.groups if data.kind == "text" else joined(data.sides[0], data.together)
        rows = np.flatnonzero(known & ~data.empty)
        notes = [f"left out: {counted(data.empty.sum(), 'row')} with an empty text"] if data.empty.any() else []
        parts = split_rows(
            _strata(data, target, rows),
            data.part[rows],
            groups[rows],
            seed,
            None,
            float(fraction),
            notes,
            "rows",
            needs_labels=True,
        )
        train, valid, test = (rows[part] for part in parts)
        valid, test = (_spread(part, name, notes) for part, name in ((valid, "validation"), (test, "test")))

        def part(index: np.ndarray) -> Split:
            return Split({"source": source[index], "target": target[index]})

        prepared, usual = part(train), "exact_match" if data.kind == "text" else "chrf"
        longest = int(prepared["target"].lengths.max(initial=0))
        state = {
            "kind": data.kind,
            "columns": data.columns,
            "target": data.columns.get("target"),
            "class_names": [str(name) for name in data.class_names],
            "metric": chosen(metric, "texts", usual),
            "longest": min(longest, LONGEST),
        }
        if longest > LONGEST:
            notes.append(f"the longest target has {longest:,} bytes: answers have {LONGEST} at most")
        tuned = unusual(state["metric"], usual)
        facts = Facts(data.kind, len(train), len(train), writes=True, metric=tuned, **sizes(prepared["source"]))
        choosing, judged = (part(rows).grouped(groups[rows]) for rows in (valid, test))
        return Prepared(prepared, choosing, judged, facts, state, tuple(notes))

    def strata(self, data: Any) -> np.ndarray:
        _, target, known = _sides(data)
        rows = np.flatnonzero(known & ~data.empty)
        strata = np.full(len(data.empty), -1, dtype=np.int64)
        strata[rows] = _strata(data, target, rows)
        return strata

    def _without_targets(self, data: Any, seed: int, fraction: float) -> Prepared:
        """The whole documents to learn from, besides those that are for the test."""
        free = np.flatnonzero((data.document_part if data.documents is not data.texts else data.part) != 2)
        if not len(free):
            raise DataError(f"all of {data.name} is for the test", "give text to learn from")
        texts = data.documents[some_of(free, fraction, seed)]
        none = Split({"source": texts[:0], "target": texts[:0]})
        state = {"kind": "text", "columns": data.columns, "target": None, "class_names": [], "metric": "exact_match"}
        facts = Facts("text", len(texts), writes=True, **sizes(texts))
        note = "no targets: a method can learn from the text, but nothing can be judged"
        return Prepared(Split({"source": texts}), none, none, facts, {**state, "longest": LONGEST}, (note,))

    def encode(self, state: Mapping[str, Any], data: Any) -> Split:
        """New sources, with their targets where they have any. A model of pairs also takes texts alone."""
        if data.kind == "pairs" and state["kind"] == "text":
            raise DataError(
                f"{data.name} holds pairs of texts, but this model was trained on single ones", "give texts"
            )
        source, target, known = _sides(data)
        columns: dict[str, Any] = {"source": source}
        if known.any():
            columns["target"] = target
            if data.kind == "text":
                columns["label"] = data.labels
        return Split(columns)

    def cut(self, model: Any, split: Split) -> list[str]:
        return cut(model, {"source": split["source"]})

    def build(self, method: Any, config: Any, optim: Any, prepared: Prepared, backbone: nn.Module | None = None) -> Any:
        """Raises Declined when the method is not for this task, writes nothing, or needs targets that are not there."""
        facts, kind = prepared.facts, method.paper.kind
        self.require_made_for(method)
        if kind == "estimator":
            if not facts.labelled:
                raise Declined(f"{method.id} learns from targets, and there are none")
            return method.module.build(config, facts)
        if kind != "architecture":
            raise self.cannot_train(method)
        built = method.module.build(config, facts)
        require_tokeniser(built, method.id)
        held = offers(built)
        if held.losses is None or held.encode is None:
            raise Declined(f"{method.id} as it is set here writes no text", "leave writes as it is")
        if not facts.labelled and held.corrupt is None:
            raise Declined(f"{method.id} learns from targets, and there are none")
        return SourceToTarget(built, prepared.state["longest"])

    def training(self, model: Any, prepared: Prepared) -> Split:
        """The texts for estimators, and their tokens for models; of text alone rows of as many tokens as the model reads."""
        train = prepared.train
        if not isinstance(model, nn.Module):
            return train
        backbone: Any = model.encoder
        if "target" not in train:
            fit_to(model, train["source"])
            return Split({"ids": _rows(backbone.tokeniser.encode(train["source"], specials=False), backbone.row)})
        fit_to(model, stacked([train["source"], train["target"]]))
        target = backbone.tokeniser.encode(train["target"], longest=LONGEST + 1)
        return Split({"source": ids_of(model, train["source"]), "target": target})

    def outputs(self, model: Any, head: Mapping[str, np.ndarray], split: Split) -> np.ndarray:
        """Answers (N,), str objects."""
        found = model.write(split["source"]) if isinstance(model, SourceToTarget) else model.outputs(split)
        return np.array(found, dtype=object)

    def embed(self, model: Any, split: Split) -> np.ndarray:
        """(N, width) float32: the mean of what the encoder makes of a source. Raises Declined for a model without features."""
        if not isinstance(model, SourceToTarget):
            raise Declined("this model has no features to give")
        return features_of(model, split["source"])

    def score(self, outputs: np.ndarray, split: Split, state: Mapping[str, Any]) -> Scores:
        metric, groups = primary(state, "chrf").name, groups_of(split)
        return text_scores(outputs.tolist(), split["target"].texts(), metric, groups)

    def answers(self, outputs: np.ndarray, state: Mapping[str, Any]) -> dict[str, np.ndarray]:
        return {"prediction": outputs}


TASK = TextToText()


def _sides(data: Any) -> tuple[Ragged, Ragged, np.ndarray]:
    """(sources, targets, whether a row has a target)."""
    if data.kind == "pairs":
        return data.first, data.second, np.ones(len(data.first), dtype=bool)
    names = Ragged.of_texts([*map(str, data.class_names), ""])
    return data.texts, names[data.labels], data.labels >= 0


def _strata(data: Any, target: Ragged, rows: np.ndarray) -> np.ndarray:
    """int64 (rows,): classes, or the longer and the shorter half of the targets, of each of which a share is held out."""
    if data.kind == "text":
        return np.asarray(data.labels, dtype=np.int64)[rows]
    place = np.argsort(np.argsort(target.lengths[rows], kind="stable"))
    return (place >= len(rows) / 2).astype(np.int64)


def _spread(rows: np.ndarray, name: str, notes: list[str]) -> np.ndarray:
    if len(rows) <= MOST:
        return rows
    notes.append(f"{name}: {MOST:,} of {len(rows):,} rows are judged, spread evenly")
    return spread_evenly(rows, MOST)


def _rows(ids: Ragged, longest: int) -> Ragged:
    """Documents cut into rows of `longest` tokens, the last of each shorter; those of a single token are left out."""
    lengths = ids.lengths
    count = -(-lengths // longest)
    place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    begin = np.repeat(ids.offsets[:-1], count) + place * longest
    rows = Ragged(ids.values, np.append(begin, ids.offsets[-1]), ids.pad)
    found = rows[np.flatnonzero(rows.lengths > 1)]
    if not len(found):
        raise DataError("the texts are too short to learn from", "give texts of two characters or more")
    return found
