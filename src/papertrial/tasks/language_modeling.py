"""Predict running text; methods are compared in bits per byte, whatever they take for a token.

Protocol, version 1
    Units     Documents; one that is longer than a fiftieth of all text is cut into blocks of that length, at line ends
              where there are some. Those that differ in case, blanks and punctuation only stay on one side.
    Split     The test documents are those given. Otherwise units are drawn until they hold a tenth of the bytes: the same
              units for every seed. The validation units are those given, or a tenth of the rest, drawn by the seed. Parts
              share no byte; blocks of one document may be neighbours. Lines that stand in both parts are told of.
    Windows   Test and validation text is cut into windows of about WINDOW bytes, where characters begin. A window
              is read on its own, from its first byte to its last, so that all methods know the same when they predict it.
              Of more than MOST windows, that many are judged, spread evenly.
    Training  The training text is tokenised once and cut into rows of as many tokens as the model reads.
    Metric    Bits per byte: all bits that a method needs for the windows over all their bytes. Ends of texts are not
              predicted. The example that intervals are over is a window.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from papertrial.core.budget import Budget
from papertrial.core.errors import DataError, Declined
from papertrial.core.facts import Facts
from papertrial.core.offers import offers
from papertrial.core.task import Prepared, Ragged, Scores, Split, Supports
from papertrial.data.textfiles import lines_of
from papertrial.data.texts import same
from papertrial.nn.heads import NextToken
from papertrial.nn.tokenise import windows
from papertrial.tasks._common import Common, encoder_of, estimated, through
from papertrial.tasks._metrics import groups_of, ratio_scores
from papertrial.tasks._split import require_fraction, spread_evenly
from papertrial.tasks._texts import stacked

WINDOW, MOST = 512, 1000
SHARE, PARTS, SPLIT_SEED = 0.1, 50, 20_210_301
#: bytes of text below which nothing is held out
LEAST = 2000
#: bytes of a line that is counted when it stands in two parts
LINE = 32
_TOKENS = 8192  # that are read at once when a model is judged


class LanguageModeling(Common):
    """The column "text" Ragged uint8 (UTF-8): documents to learn from, windows to be judged on. Models learn from the column
    "ids" (N, tokens of a row) int32."""

    name = "language_modeling"
    version = 1
    kind = "text"
    inputs = ("ids",)
    references = ("text_transformer", "ngram")
    floors = ("majority",)
    budget = Budget(seconds=60)
    judged_without_labels = True
    trains_without_labels = True

    def primary_for(self, state: Mapping[str, Any]) -> tuple[str, bool]:
        return "bits_per_byte", False

    def supports(self, look: Any) -> Supports:
        if look.kind != self.kind:
            return Supports(False, f"it takes texts, and {look.name} is {look.what}")
        if look.numbers["bytes"] < LEAST:
            return Supports(False, f"there are {look.numbers['bytes']:,} bytes of text, and it takes {LEAST:,} or more")
        return Supports(True)

    def prepare(self, data: Any, seed: int = 0, fraction: float = 1.0) -> Prepared:
        """fraction: share of the training text that is used.

        Raises DataError for less text than LEAST bytes, and where groups are named; PapertrialError for a fraction out of range.
        """
        require_fraction(fraction)
        if data.group:
            raise DataError(
                f"running text is parted by documents, so rows of one {data.group!r} cannot be kept together",
                "leave --group out, or add --group none where it was guessed",
            )
        self.require(data, fix="give more text")
        units, document = _units(data.documents)
        part, notes = _parts(data, units, document, seed)
        kept = _drawn(units, np.flatnonzero(part == 0), float(fraction), np.random.default_rng([seed, 1]))
        train = _joined(units, document, kept)
        _tell_repeats(train, _joined(units, document, part == 2), notes)
        judged = [spread_evenly(windows(_joined(units, document, part == index), WINDOW), MOST) for index in (1, 2)]
        total = int(train.lengths.sum())
        facts = Facts("text", -(-total // WINDOW), bytes=total, length=WINDOW, causal=True)
        valid, test = (Split({"text": column}) for column in judged)
        if test.examples == MOST:
            notes.append(f"judged on {MOST:,} windows, spread evenly over the test text")
        return Prepared(Split({"text": train}), valid, test, facts, {"window": WINDOW}, tuple(notes))

    def encode(self, state: Mapping[str, Any], data: Any) -> Split:
        """All of a new text as windows."""
        return Split({"text": windows(data.documents, state["window"])})

    def build(self, method: Any, config: Any, optim: Any, prepared: Prepared, backbone: nn.Module | None = None) -> Any:
        """Raises Declined when the method is not for this task, or sees what is to be predicted."""
        self.require_made_for(method)
        if method.paper.kind == "estimator":
            return method.module.build(config, prepared.facts)
        if method.paper.kind != "architecture":
            raise self.cannot_train(method)
        built = method.module.build(config, prepared.facts)
        if offers(built).logits is None:
            raise Declined(f"{method.id} as it is set here does not predict the next token", "leave causal as it is")
        return NextToken(built)

    def training(self, model: Any, prepared: Prepared) -> Split:
        """The text itself for estimators, and its tokens for models: texts one after the other, each with an end behind it.

        Tokens at the end that fill no row are left out. Raises Declined when a tokeniser does not give its text back.
        """
        texts = prepared.train["text"]
        if not isinstance(model, nn.Module):
            return prepared.train
        backbone: Any = model.encoder
        backbone.fit_inputs({"text": texts})
        ids = backbone.tokeniser.encode(texts)
        _require_whole(backbone.tokeniser, texts)
        longest = min(offers(backbone).longest or WINDOW, len(ids.values))
        rows = len(ids.values) // longest
        return Split({"ids": ids.values[: rows * longest].reshape(rows, longest)})

    def outputs(self, model: Any, head: Mapping[str, np.ndarray], split: Split) -> np.ndarray:
        """Bits of each window (N,), float64. What is longer than a model's rows is read in rows that overlap by a half."""
        if not isinstance(model, nn.Module):
            return estimated(model, split)
        backbone: Any = model.encoder
        ids = backbone.tokeniser.encode(split["text"], specials=False)
        rows, window, known = overlapping(ids, offers(backbone).longest or WINDOW)
        nats = _nats(model, rows, known)
        return np.bincount(window, weights=nats, minlength=split.examples) / math.log(2)

    def embed(self, model: Any, split: Split) -> np.ndarray:
        """(N, width) float32: features of the windows' last tokens. Raises Declined for a model without features."""
        encoder = encoder_of(model)
        ids = encoder.tokeniser.encode(split["text"], offers(encoder).longest, specials=False)
        return _through(model, encoder, {"ids": ids})

    def score(self, outputs: np.ndarray, split: Split, state: Mapping[str, Any]) -> Scores:
        """Bits per byte of all windows, and its interval over windows."""
        return ratio_scores("bits_per_byte", outputs, split["text"].lengths, groups_of(split))

    def answers(self, outputs: np.ndarray, state: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Raises Declined: a language model answers with text."""
        raise Declined(
            "a language model gives no answer for each example",
            "papertrial generate goes on with a text, evaluate judges one",
        )


TASK = LanguageModeling()


def overlapping(ids: Ragged, longest: int) -> tuple[Ragged, np.ndarray, np.ndarray]:
    """(rows of at most `longest` ids, the row of `ids` that each comes from, how many ids at its start are known before).

    The ids of a row that are not known before are those to predict; each id is predicted once.
    """
    step = max(1, longest // 2)
    lengths = ids.lengths
    count = 1 + np.maximum(0, -(-(lengths - longest) // step))
    source = np.repeat(np.arange(len(ids)), count)
    place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    begin = place * step
    size = np.minimum(longest, lengths[source] - begin)
    offsets = np.concatenate([[0], np.cumsum(size)])
    values = ids.values[np.arange(offsets[-1]) + np.repeat(ids.offsets[:-1][source] + begin - offsets[:-1], size)]
    return Ragged(values, offsets, ids.pad), source, np.where(place > 0, longest - step, 0)


def _units(documents: Ragged) -> tuple[Ragged, np.ndarray]:
    """(documents, long ones in blocks; the document that each is of); empty ones are left out."""
    longest = max(int(documents.lengths.sum()) // PARTS, 1)
    edges: list[int] = []
    document: list[int] = []
    for row in np.flatnonzero(documents.lengths):
        first, last = documents.offsets[row : row + 2].tolist()
        blocks = max(1, (last - first) // longest)
        cuts = [
            _line_end(documents.values, first + (last - first) * block // blocks, last) for block in range(1, blocks)
        ]
        edges += sorted({first, *cuts} - {last})
        document += [int(row)] * (len(edges) - len(document))
    return Ragged(documents.values, np.append(edges, documents.offsets[-1])), np.array(document)


def _line_end(values: np.ndarray, place: int, last: int) -> int:
    """The next place from `place` on behind a line break or, where none is near, at the beginning of a character."""
    near = values[place : min(place + WINDOW, last)]
    breaks = np.flatnonzero(near == 10)
    if len(breaks):
        return place + int(breaks[0]) + 1
    begins = np.flatnonzero((near & 0xC0) != 0x80)
    return place + int(begins[0]) if len(begins) else place


def _parts(data: Any, units: Ragged, document: np.ndarray, seed: int) -> tuple[np.ndarray, list[str]]:
    """int8 (units,): 0 = train, 1 = valid, 2 = test; and what to say about it."""
    given = data.part if data.documents is data.texts else data.document_part
    part, alike, notes = np.asarray(given)[document].copy(), same(units, fold=True), []
    if not (part == 2).any():
        part[part == 1] = 0
        part[_drawn(units, np.arange(len(units)), SHARE, np.random.default_rng(SPLIT_SEED), alike)] = 2
        held = units.lengths[part == 2].sum()
        notes.append(f"test: {held:,} of {units.lengths.sum():,} bytes, the same for every seed")
    if not (part == 1).any():
        free = np.flatnonzero(part == 0)
        part[_drawn(units, free, SHARE, np.random.default_rng([seed, 0]), alike)] = 1
    if len(np.unique(part)) < 3:
        raise DataError(f"{data.name} leaves nothing for one of the parts", "give more text")
    return part, notes


def _drawn(
    units: Ragged, among: np.ndarray, share: float, rng: np.random.Generator, groups: np.ndarray | None = None
) -> np.ndarray:
    """Random units out of `among` that hold `share` of their bytes or slightly more, those of a group together."""
    group = np.unique(among if groups is None else groups[among], return_inverse=True)[1].reshape(-1)
    order = rng.permutation(group.max(initial=-1) + 1)
    size = np.bincount(group, weights=units.lengths[among])[order]
    taken = np.zeros(len(order), dtype=bool)
    taken[order[np.cumsum(size) - size < share * size.sum() - 0.5]] = True
    return np.sort(among[taken[group]])


def _joined(units: Ragged, document: np.ndarray, chosen: np.ndarray) -> Ragged:
    """The chosen units in order, neighbours within a document as one text."""
    rows = np.arange(len(units))[chosen]
    taken = units[rows]
    first = np.ones(len(rows) + 1, dtype=bool)
    first[1:-1] = (np.diff(rows) != 1) | (np.diff(document[rows]) != 0)
    return Ragged(taken.values, taken.offsets[first])


def _tell_repeats(train: Ragged, test: Ragged, notes: list[str]) -> None:
    """Test text that also stands in the training text is not moved, since it may belong where it is, but it is told of."""
    lines = [lines_of(part.values)[0] for part in (train, test)]
    alike = same(stacked(lines))
    sizes = lines[1].lengths
    again = np.isin(alike[len(lines[0]) :], alike[: len(lines[0])]) & (sizes >= LINE)
    share = sizes[again].sum() / max(int(sizes.sum()), 1)
    if share >= 0.01:
        notes.append(f"{share:.0%} of the test text is in the training text too, line for line")


def _require_whole(tokeniser: Any, texts: Ragged) -> None:
    """Bits per byte mean nothing where the tokens do not hold the text."""
    some = texts[:8].texts()
    some = [text[:WINDOW] for text in some]
    for text, row in zip(some, tokeniser.encode(some, specials=False), strict=True):
        if tokeniser.decode(row) != text:
            raise Declined("the model's tokeniser loses some of the text, so its bits per byte would be too few")


def _nats(model: nn.Module, rows: Ragged, known: np.ndarray) -> np.ndarray:
    """Nats of the ids of each row that are not known before, float64 (rows,)."""

    def summed(ids: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        return (model(ids).double() * (torch.arange(ids.shape[1], device=ids.device) >= known[:, None])).sum(1)

    return _through(model, summed, {"ids": rows, "known": known})


def _through(model: nn.Module, function: Any, columns: Mapping[str, Any]) -> np.ndarray:
    """`function` of the columns of all rows, with the model in `eval()`."""
    return through(model, function, columns, max(1, _TOKENS // max(1, int(columns["ids"].lengths.max(initial=1)))))
