"""Writing with a language model, token by token: by chance, by the most probable token, or by beams.

A model is one of nn/transformer.py, `Decoder` or `EncoderDecoder`, in `eval()`; or another with their `tokeniser`, `cache`
and `next`, and with `encode` and `start` where it reads a source first. A row is written as if it were alone: neither the
other rows of its batch nor their lengths change it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from papertrial.core.errors import PapertrialError
from papertrial.core.memory import require
from papertrial.core.offers import offers
from papertrial.core.task import Ragged
from papertrial.nn.cache import Cache


@dataclass(frozen=True)
class Choice:
    """How the next token is chosen. Raises ValueError for a value out of range.

    temperature: what logits are divided by; 0 takes the most probable token.  top_k: only the k most probable, 0 for all.
    top_p: of these the fewest that have this much probability together (nucleus sampling, 1904.09751), 1 for all.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.temperature < math.inf and self.top_k >= 0 and 0 < self.top_p <= 1):
            raise ValueError(f"{self}: temperature and top_k are 0 or more, top_p is above 0 and at most 1")

    def probabilities(self, logits: Tensor) -> Tensor:
        """(..., V) -> float64 (..., V), whose rows add up to 1."""
        logits = logits.double()
        if self.temperature == 0:
            return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
        logits = logits / self.temperature
        if 0 < self.top_k < logits.shape[-1]:
            logits = logits.masked_fill(logits < logits.topk(self.top_k).values[..., -1:], -torch.inf)
        found = logits.softmax(-1)
        if self.top_p < 1:
            ordered, order = found.sort(dim=-1, descending=True, stable=True)
            before = ordered.cumsum(-1) - ordered
            found = torch.zeros_like(found).scatter_(-1, order, ordered * (before < self.top_p))
        return found / found.sum(-1, keepdim=True)

    def take(self, logits: Tensor, at: Tensor) -> Tensor:
        """One token per row: logits (B, V), at float64 (B,) in [0, 1), where to cut the cumulated probabilities -> (B,)."""
        if self.temperature == 0:
            return logits.argmax(-1)
        reached = self.probabilities(logits).cumsum(-1)
        whole = reached[:, -1:]
        found = torch.searchsorted(reached, at[:, None] * whole, right=True)
        return torch.minimum(found, (reached < whole).sum(-1, keepdim=True))[:, 0]  # rounding leads to no token behind


GREEDY = Choice(temperature=0)


class Hypothesis(NamedTuple):
    """What a beam search found. ids: int64, the last one is the tokeniser's `end` where the text has one.  score: sum of
    the log probabilities over length ** length_penalty."""

    ids: np.ndarray
    score: float


@torch.no_grad()
def sample(
    model: Any,
    prompts: Ragged,
    length: int,
    choice: Choice = GREEDY,
    seeds: Sequence[int] = (0,),
    start: int | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Write up to `length` tokens after each prompt, or as the answer to each source, all of them step by step.

    Every prompt is gone on with once per seed: row i is prompt i // len(seeds) with seed i % len(seeds), and a seed draws
    the same whatever the batch. start: id that the model was trained to see before a text.  Yields after each step the
    rows that go on and their new tokens, both int64 (rows,); a row ends with its `tokeniser.end`.

    A model has `longest` places, or its positions have. Where a row has become longer, the half of that which is nearest
    is read anew, and so on: any length can be written, seeing at least that half.
    Raises PapertrialError for a model whose answers are not numbers.
    """
    if not len(prompts) or not seeds or length < 1:
        return
    writer, pad, end = _Writer(model, prompts, length, start), model.tokeniser.pad, model.tokeniser.end
    chance = np.stack([np.random.Generator(np.random.Philox(key=seed % 2**64)).random(length) for seed in seeds])
    rows = np.arange(len(prompts) * len(seeds))
    at = torch.from_numpy(chance[rows % len(seeds)])
    logits = writer.begin(torch.from_numpy(rows // len(seeds)))
    for step in range(length):
        tokens = choice.take(_without(logits, pad, end), at[rows, step])
        yield rows, tokens.numpy()
        going = torch.ones(len(rows), dtype=torch.bool) if end is None else tokens != end
        if step + 1 == length or not going.any():
            return
        if not going.all():
            writer.select(going.nonzero()[:, 0])
            rows, tokens = rows[going.numpy()], tokens[going]
        logits = writer.next(tokens)


def complete(
    model: Any,
    prompts: Ragged,
    length: int,
    choice: Choice = GREEDY,
    seeds: Sequence[int] = (0,),
    start: int | None = None,
    batch: int = 64,
) -> Ragged:
    """All that `sample` writes: int64 ids, a row per prompt and seed. batch: prompts taken together, similar lengths first."""
    written: list[list[int]] = [[] for _ in range(len(prompts) * len(seeds))]
    for taken in _batches(prompts, batch):
        for rows, tokens in sample(model, prompts[taken], length, choice, seeds, start):
            for row, token in zip(rows.tolist(), tokens.tolist(), strict=True):
                written[taken[row // len(seeds)] * len(seeds) + row % len(seeds)].append(token)
    return Ragged.of(written, dtype=np.int64, pad=model.tokeniser.pad or 0)


def beam(
    model: Any,
    prompts: Ragged,
    length: int,
    beams: int = 4,
    length_penalty: float = 1.0,
    start: int | None = None,
    batch: int = 16,
) -> list[list[Hypothesis]]:
    """The most probable texts of up to `length` tokens that a search with `beams` beams finds, best first, per prompt.

    length_penalty: exponent of the length that a sum of log probabilities is divided by; larger ones favour longer texts.
    A prompt is done when its `beams` finished texts all score at least as well as the best unfinished one does now, as
    `early_stopping=False` of transformers. Raises ValueError for fewer than one beam, PapertrialError as `sample`.
    """
    if beams < 1:
        raise ValueError(f"{beams} beams find nothing")
    found: list[list[Hypothesis]] = [[] for _ in range(len(prompts))]
    for taken in _batches(prompts, batch) if length > 0 else ():
        for row, best in zip(taken, _beams(model, prompts[taken], length, beams, length_penalty, start), strict=True):
            found[row] = best
    return found


@torch.no_grad()
def _beams(
    model: Any, prompts: Ragged, length: int, beams: int, penalty: float, start: int | None
) -> list[list[Hypothesis]]:
    writer, pad, end = _Writer(model, prompts, length, start), model.tokeniser.pad, model.tokeniser.end
    rows = torch.arange(len(prompts))  # of those not done; all tensors below have one row for each
    logits = writer.begin(rows.repeat_interleave(beams))
    scores = torch.full((len(rows), beams), -torch.inf, dtype=torch.float64)
    scores[:, 0] = 0.0  # the beams are still the same, so that one of them stands for all
    ids = torch.empty(len(rows), beams, 0, dtype=torch.int64)
    finished = _Finished(len(rows), beams, length)
    done: list[list[Hypothesis]] = [[] for _ in range(len(prompts))]
    for step in range(1, length + 1):
        reached = scores[..., None] + _without(logits.log_softmax(-1), pad, end).view(len(rows), beams, -1)
        # twice as many, because half of them may end here
        best, place = reached.flatten(1).topk(min(2 * beams, reached[0].numel()))
        parent, token = place // reached.shape[-1], place % reached.shape[-1]
        ids = torch.cat([_of_each(ids, parent), token[..., None]], -1)
        ends = (
            torch.full_like(token, step == length, dtype=torch.bool)
            if end is None
            else (token == end) | (step == length)
        )
        among_the_best = torch.arange(best.shape[1]) < beams
        finished.add(ids, (best / step**penalty).masked_fill(~(ends & among_the_best), -torch.inf))
        scores, kept = best.masked_fill(ends, -torch.inf).topk(beams)
        over = scores[:, 0] / step**penalty <= finished.scores[:, -1]
        for place in over.nonzero()[:, 0].tolist():
            done[rows[place]] = finished.of(place)
        if over.all():
            break
        going = (~over).nonzero()[:, 0]
        parent, token, ids = (_of_each(x, kept)[going] for x in (parent, token, ids))
        writer.select((going[:, None] * beams + parent).flatten())
        rows, scores = rows[going], scores[going]
        finished.select(going)
        logits = writer.next(token.flatten())
    return done


class _Finished:
    """The best texts that have ended, per row: ids (R, K, length), count (R, K) of them, scores (R, K) from high to low."""

    def __init__(self, rows: int, beams: int, length: int) -> None:
        self.ids = torch.zeros(rows, beams, length, dtype=torch.int64)
        self.count = torch.zeros(rows, beams, dtype=torch.int64)
        self.scores = torch.full((rows, beams), -torch.inf, dtype=torch.float64)

    def add(self, ids: Tensor, scores: Tensor) -> None:
        """ids (R, more, steps) with scores (R, more), of which -inf never counts."""
        longer = torch.zeros(*ids.shape[:2], self.ids.shape[2], dtype=torch.int64)
        longer[..., : ids.shape[2]] = ids
        count = torch.full_like(scores, ids.shape[2], dtype=torch.int64)
        self.scores, best = torch.cat([self.scores, scores], 1).topk(self.scores.shape[1])
        self.ids = _of_each(torch.cat([self.ids, longer], 1), best)
        self.count = _of_each(torch.cat([self.count, count], 1), best)

    def select(self, rows: Tensor) -> None:
        self.ids, self.count, self.scores = self.ids[rows], self.count[rows], self.scores[rows]

    def of(self, row: int) -> list[Hypothesis]:
        return [
            Hypothesis(ids[:count].numpy().copy(), float(score))
            for ids, count, score in zip(self.ids[row], self.count[row], self.scores[row], strict=True)
            if score > -torch.inf
        ]


class _Writer:
    """A model and what it reads of each row: all of it, or as much of its end as there are places for.

    held: int64 (R, any), prompts and what was written, without `start`.  first, count: (R,), where in `held` the part begins
    that is read, and where the row ends.
    """

    def __init__(self, model: Any, prompts: Ragged, length: int, start: int | None) -> None:
        self.model, self.device = model, next(model.parameters()).device
        self.lead, self.encoded = [] if start is None else [start], None
        # a row without ids begins with padding, which counts as a token in the first place
        rows = [row.tolist() or [model.tokeniser.pad or 0][len(self.lead) :] for row in prompts]
        if offers(model).encode:
            self.encoded = model.encode(self._padded(rows))
            self.lead, rows = [model.start], [[] for _ in rows]
        held = Ragged.of(rows, dtype=np.int64)
        self.held, self.count = held.padded(), held.lengths
        self.first, self.longest = np.zeros_like(self.count), places(model)
        self.needed = len(self.lead) + self.held.shape[1] + length - 1

    def begin(self, rows: Tensor) -> Tensor:
        """Read the prompts, and go on with these rows of them: logits (R, V) of their first tokens."""
        logits = self._read()
        self.select(rows)
        return logits[rows]

    def next(self, tokens: Tensor) -> Tensor:
        """Read one token per row, (R,) -> logits (R, V) of the next."""
        if self.count.max() == self.held.shape[1]:
            self.held = np.pad(self.held, ((0, 0), (0, 64)))
        self.held[np.arange(len(self.held)), self.count] = tokens.numpy()
        self.count = self.count + 1
        if self.cache.used == self.cache.longest:
            return self._read()
        return self._logits(tokens.to(self.device)[:, None])

    def select(self, rows: Tensor) -> None:
        """Go on with these rows, which may repeat."""
        if torch.equal(rows, torch.arange(len(self.held))):
            return
        taken = rows.numpy()
        self.held, self.first, self.count = self.held[taken], self.first[taken], self.count[taken]
        rows = rows.to(self.device)
        self.cache.select(rows)
        if self.encoded is not None:
            self.encoded = self.encoded.select(rows)

    def _read(self) -> Tensor:
        """Read all rows from their beginning, or from the last half of those that have become too long."""
        if self.longest is not None:
            long = self.count - self.first + len(self.lead) > self.longest
            self.first = np.where(long, self.count - self.longest // 2, self.first)
        rows = zip(self.held, self.first, self.count, strict=True)
        ids = self._padded([[*self.lead, *row[first:last].tolist()] for row, first, last in rows])
        self.cache = remembering(
            self.model, len(ids), self.needed if self.longest is None else min(self.needed, self.longest)
        )
        return self._logits(ids)

    def _padded(self, rows: list[list[int]]) -> Tensor:
        pad = self.model.tokeniser.pad
        ragged = Ragged.of(rows, dtype=np.int64, pad=pad or 0)
        if pad is None and len(set(ragged.lengths.tolist())) > 1:
            raise ValueError("rows of different length need a tokeniser with padding")
        return torch.from_numpy(ragged.padded()).to(self.device)

    def _logits(self, ids: Tensor) -> Tensor:
        source = () if self.encoded is None else (self.encoded,)
        logits = self.model.next(ids, *source, cache=self.cache).cpu().double()
        if logits.isnan().any():
            raise PapertrialError(
                "the model's logits are not numbers", "its training may have diverged; train it again"
            )
        return logits


def remembering(model: Any, rows: int, longest: int) -> Any:
    """The model's empty cache. Raises OutOfMemory, before it is taken, for a `Cache` that does not fit."""
    least = model.cache(1, 1)
    if isinstance(least, Cache):  # a model may have another of its own
        room = rows * longest * (least.keys.nbytes + least.values.nbytes)
        what = f"what {len(least.keys)} layers remember of {rows:,} texts of {longest:,} tokens"
        require(room, what, "ask for a smaller --length, --beams or --samples", least.keys.device)
    return model.cache(rows, longest)


def places(model: Any) -> int | None:
    """How many tokens a model reads at most: those it was trained with, or those it has positions for."""
    held = offers(model)
    stack = held.stack if held.decoder is None else held.decoder
    known = (held.longest, None if stack is None else offers(stack.position).longest)
    return min((most for most in known if most is not None), default=None)


def _of_each(values: Tensor, places: Tensor) -> Tensor:
    """values (R, K, ...), places (R, J) among K -> (R, J, ...)."""
    return values[torch.arange(len(values))[:, None], places]


def _without(logits: Tensor, pad: int | None, end: int | None) -> Tensor:
    """Padding is no answer: a model would not read it."""
    return logits if pad is None or pad == end else logits.index_fill(-1, torch.tensor([pad]), -torch.inf)


def _batches(prompts: Ragged, batch: int) -> Iterator[np.ndarray]:
    order = np.argsort(-prompts.lengths, kind="stable")
    return (order[begin : begin + batch] for begin in range(0, len(order), batch))
