"""What a trained model makes: texts that go on from prompts, or that answer sources. They can be read while they are written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from papertrial.core.errors import Declined, PapertrialError
from papertrial.core.offers import offers
from papertrial.core.ranges import require_numbers
from papertrial.nn.decode import Choice, beam, places, sample
from papertrial.nn.heads import Supervised
from papertrial.use.artifact import Artifact

#: tokens of a text where nobody says how many
LENGTH = 200
#: prompts that are gone on with together
BATCH = 32

#: is told the place of a text and the whole characters that came to it, or None when it is complete
Heard = Callable[[int, "str | None"], None]


@dataclass(frozen=True)
class Written:
    """One text that a model wrote.

    prompt: what was given.  text: what follows it, or answers it.  seed: of its draws, None where nothing was drawn.
    tokens: how many were written.  ended: by the model, rather than by the length.  score: of a beam, see nn/decode.py.
    """

    prompt: str
    text: str
    seed: int | None
    tokens: int
    ended: bool
    score: float | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def writer(artifact: Artifact) -> Any:
    """The part of an artifact's model that writes, as nn/decode.py takes it. One that has `encode` answers sources, any
    other goes on with prompts. Raises Declined for an artifact that makes nothing."""
    model = artifact.model
    for part in () if isinstance(model, Supervised) else (model, offers(model).encoder):
        if offers(part).writes:
            return part
    raise Declined(
        f"{artifact.card['method']['name']} in {artifact.folder} generates nothing: it was trained for {artifact.task.name}",
        "give the run of a language model or of a generator of pictures",
    )


def generate(
    artifact: Artifact,
    prompts: str | Sequence[str],
    *,
    length: int = LENGTH,
    temperature: float | None = None,
    top_k: int = 0,
    top_p: float = 1.0,
    beams: int = 1,
    length_penalty: float = 1.0,
    seed: int = 0,
    samples: int = 1,
    heard: Heard | None = None,
) -> list[Written]:
    """`samples` texts per prompt, those of a prompt side by side. Each is what it would be alone.

    length: most tokens of a text.  temperature: 0 takes the most probable token; where not given, 1 for a model that goes on
    with prompts and 0 for one that answers.  top_k, top_p: see `Choice`.  beams: more than 1 search instead of drawing, and
    the `samples` best are given.  seed: of a prompt's first text; its others have the next ones.
    heard: is told of every text as it comes, by its place in the list that is returned.
    Raises Declined for an artifact that makes nothing, PapertrialError for options that do not go together.
    """
    require_numbers(
        length=length, temperature=temperature, top_k=top_k, top_p=top_p, beams=beams, length_penalty=length_penalty, seed=seed,
        samples=samples,
    )  # fmt: skip
    model = writer(artifact)
    given = [prompts] if isinstance(prompts, str) else list(prompts)
    drawn = temperature is not None or top_k != 0 or top_p != 1
    answers = offers(model).encode is not None
    choice = Choice((0.0 if answers else 1.0) if temperature is None else temperature, top_k, top_p)
    if beams > 1 and drawn:
        raise PapertrialError("beams search and draw nothing", "leave temperature, top_k and top_p out, or beams")
    if 1 < beams < samples:
        raise PapertrialError(f"{beams} beams cannot find {samples} texts", f"type --beams {samples} or fewer texts")
    if beams == 1 < samples and choice.temperature == 0:
        raise PapertrialError(f"the most probable text is the same {samples} times", "add --temperature 1 or --beams")

    start: int | None = offers(artifact.model).start
    seeds = range(seed, seed + samples)
    written: list[Written] = []
    steps: Iterable[tuple[np.ndarray, np.ndarray]]
    for begin in range(0, len(given), BATCH):
        some = given[begin : begin + BATCH]
        ids = model.tokeniser.encode(some, specials=answers)
        listeners = [
            _Listener(model.tokeniser, row[:0] if answers else row, length, begin * samples + place, heard)
            for place, row in enumerate(row for row in ids for _ in seeds)
        ]
        scores: list[float | None] = [None] * len(listeners)
        if beams > 1:
            best = [found for row in beam(model, ids, length, beams, length_penalty, start) for found in row[:samples]]
            scores = [found.score for found in best]
            steps = ((np.full(len(found.ids), place), found.ids) for place, found in enumerate(best))
        else:
            steps = sample(model, ids, length, choice, seeds, start)
        for rows, tokens in steps:
            for row, token in zip(rows.tolist(), tokens.tolist(), strict=True):
                listeners[row].hear(token)
        for place, (listener, score) in enumerate(zip(listeners, scores, strict=True)):
            drawn_with = seeds[place % samples] if beams == 1 and choice.temperature else None
            said = "".join(listener.said)
            written.append(Written(some[place // samples], said, drawn_with, listener.tokens, listener.ended, score))
    return written


def unread(artifact: Artifact, prompts: Sequence[str], length: int = LENGTH) -> list[str]:
    """Lines on what a model does not read of the prompts, or of the texts of `length` tokens that follow them."""
    model = writer(artifact)
    answers = offers(model).encode is not None
    most = offers(model).longest if answers else places(model)
    if most is None:
        return []
    lengths = model.tokeniser.encode(list(prompts), specials=answers).lengths
    long = int((lengths > most).sum())
    which = "the prompt is" if len(prompts) == 1 else f"{long} of {len(prompts)} prompts are"
    if answers:
        return [f"{which} longer than the {most:,} tokens it was trained to read of one"] if long else []
    if long:
        return [
            f"{which} longer than the {most:,} tokens the model reads: it goes on from the last {most // 2:,} alone"
        ]
    if lengths.max(initial=0) + length > most:
        return [
            f"the model reads {most:,} tokens: a text that has become longer goes on from its last {most // 2:,} alone"
        ]
    return []


class _Listener:
    """Turns the tokens of one text into characters and tells of them. after: ids of the text that comes before."""

    def __init__(self, tokeniser: Any, after: np.ndarray, length: int, place: int, heard: Heard | None) -> None:
        self.end, self.length, self.place, self.heard = tokeniser.end, length, place, heard
        self.said: list[str] = []
        self.tokens, self.ended = 0, False
        self._characters = tokeniser.stream()
        for token in after.tolist():  # whether a word begins with a blank depends on what is before it
            self._characters(token)

    def hear(self, token: int) -> None:
        self.ended = token == self.end
        self.tokens += not self.ended
        piece = "" if self.ended else self._characters(token)
        self.said.append(piece)
        if self.heard is not None:
            if piece:
                self.heard(self.place, piece)
            if self.ended or self.tokens == self.length:
                self.heard(self.place, None)
