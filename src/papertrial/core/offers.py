"""What a model has, and what a task has, beyond what its kind must have: one record each, read off its attributes.

    offers(model).draw is not None      whether it draws pictures
    offers(model.encoder).longest       how many tokens of a text it reads at most, None where it does not say
    task_offers(task).kinds             the kinds of data that a task takes

Nothing inherits from anything of ours: a model offers a member by having an attribute of its name. `Offers` is the one
place that says what each of them is; the table "One method file" of docs/architecture.md says who uses which. A member
that is something else than it should be is an error at once, and not a surprise in the middle of a run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field, fields
from functools import cache
from numbers import Integral
from typing import Any

from papertrial.core.errors import PapertrialError

#: what a member may be: words for an error, and whether a value is such a thing
_METHOD = ("a method", callable)
_NUMBER = ("a whole number", lambda value: isinstance(value, Integral) and not isinstance(value, bool))
_FLAG = ("True or False", lambda value: isinstance(value, bool))
_NAMES = (
    "a tuple or a set of names",
    lambda value: isinstance(value, tuple | list | Set) and all(map(_is_name, value)),
)
_NUMBERS = ("a tuple of whole numbers", lambda value: isinstance(value, tuple) and all(map(_NUMBER[1], value)))
_SETTINGS = ("a mapping of names", lambda value: isinstance(value, Mapping) and all(map(_is_name, value)))
_PART = (
    "a part of the model",
    lambda value: not isinstance(value, str | bytes | int | float | Mapping | tuple | list | Set),
)

_ANYTHING = ("anything", lambda value: True)

Method = Callable[..., Any]


def _is_name(value: Any) -> bool:
    return isinstance(value, str)


def _member(what: tuple[str, Callable[[Any], bool]], default: Any = None) -> Any:
    return field(default=default, metadata={"what": what})


@dataclass(frozen=True)
class Offers:
    """The members of a model, None (or what is said here) for those that it does not have.

    Anything that is trained
    loss(batch) -> Tensor or {"loss": Tensor, name: number to log}.
    views(batch, draw) -> batch: random changes, drawn anew at each step.
    after_step(progress): once the optimiser has moved the weights; progress is the share of the training that is done.
    parameter_groups(optim): the parameters as optimisers take them.  no_decay() -> names of parameters without weight decay.
    stages() -> `Stage`s: a system of several trainings.
    row_source(rows) -> object with `collect` and `every`: learns from rows collected anew between steps (train/sources.py).
    losses: of a game, `losses(batch) -> {part: loss}`, the parameters of the submodule of that name descend its own loss
    alone; of a backbone that writes, `losses(source, target) -> (B, M)` nats.
    figures() -> {name: number}: numbers to log beside the loss, or to show beside the scores.
    inputs: names of the columns it is called with, in order.

    Backbones
    width: of its features, `forward(*inputs) -> (B, width)`.  tokens(*inputs) -> (B, N, width).
    encoder: the part of an objective or a supervised model that gives features.
    backbone: the part that what stands around it (a first step for images) hands on to.
    own_scale: whether it takes pixels in [0, 1] as they are and scales them itself, as pretrained weights want them.
    make_head(outputs) -> module from its features to outputs.  fit_inputs(columns): takes quantiles or a vocabulary from
    the training inputs.  fold() -> a copy that answers alike and faster.
    arguments: what the part that an objective puts around its backbone was made with, besides the backbone.

    Text
    tokeniser: module with `encode`, `decode`, `pad`, `end`, `size`.  longest: most tokens it reads.
    logits(ids (B, N)) -> (B, N, V): what follows each token.  next(ids, ...), cache(rows, longest): to write token by token.
    encode(ids): what it answers is read first, by an encoder.  corrupt(ids, draw) -> (source, target), to learn from text alone.
    start: the id that stands before every text; to a model that writes no texts it may mean something else.
    beams: with which it answers, 1 where it does not say.  paired: whether it learns from pairs that are alike.
    stack, decoder: the layers that write.

    too_long(texts) -> (bool (N,), what is read of one in words): of texts, or captions, those that are cut.

    Rerankers
    score(batch) -> (B, K), see `tasks.retrieval.groups`.  lengths: tokens of a query and of a document that it reads.
    scorer(encoder, query, document) -> (B,), and fusion, the weight of what the first stage gave: what `score` is made of.

    Generators
    draw(seeds, ...) -> uint8 (N, C, H, W).  draws: names of the options that `draw` takes.

    Estimators
    most_trials(budget) -> most configurations that `fit` would try, None where only time limits them.
    again(rows, seed, folders) -> Meter: learns from all rows, with what it chose in earlier runs, whose folders these are.
    as_module() -> torch module that answers alike.  represent(split) -> features float32 (N, width).
    shown(split) -> uint8 or float32 (N, H, W, C): the images that this module takes, where they are not those of the working
    size.  sees: their height and width.
    remarks: sentences on how it learned, for the card and the verdict.
    """

    loss: Method | None = _member(_METHOD)
    views: Method | None = _member(_METHOD)
    after_step: Method | None = _member(_METHOD)
    parameter_groups: Method | None = _member(_METHOD)
    no_decay: Method | None = _member(_METHOD)
    stages: Method | None = _member(_METHOD)
    row_source: Method | None = _member(_METHOD)
    losses: Method | None = _member(_METHOD)
    figures: Method | None = _member(_METHOD)
    inputs: tuple[str, ...] = _member(_NAMES, ())

    width: int | None = _member(_NUMBER)
    tokens: Method | None = _member(_METHOD)
    encoder: Any = _member(_PART)
    backbone: Any = _member(_PART)
    own_scale: bool = _member(_FLAG, False)
    make_head: Method | None = _member(_METHOD)
    fit_inputs: Method | None = _member(_METHOD)
    fold: Method | None = _member(_METHOD)
    arguments: Mapping[str, Any] | None = _member(_SETTINGS)

    tokeniser: Any = _member(_PART)
    longest: int | None = _member(_NUMBER)
    logits: Method | None = _member(_METHOD)
    next: Method | None = _member(_METHOD)
    cache: Method | None = _member(_METHOD)
    encode: Method | None = _member(_METHOD)
    corrupt: Method | None = _member(_METHOD)
    start: Any = _member(_ANYTHING)
    beams: int = _member(_NUMBER, 1)
    paired: bool = _member(_FLAG, False)
    stack: Any = _member(_PART)
    decoder: Any = _member(_PART)
    too_long: Method | None = _member(_METHOD)

    score: Method | None = _member(_METHOD)
    lengths: tuple[int, ...] = _member(_NUMBERS, ())
    scorer: Any = _member(_PART)
    fusion: Any = _member(_PART)

    draw: Method | None = _member(_METHOD)
    draws: Set[str] = _member(_NAMES, frozenset())

    most_trials: Method | None = _member(_METHOD)
    again: Method | None = _member(_METHOD)
    as_module: Method | None = _member(_METHOD)
    represent: Method | None = _member(_METHOD)
    shown: Method | None = _member(_METHOD)
    sees: tuple[int, ...] = _member(_NUMBERS, ())
    remarks: tuple[str, ...] = _member(_NAMES, ())

    @property
    def writes(self) -> bool:
        """Whether it can write texts, as `nn.decode` does it."""
        return self.tokeniser is not None and self.next is not None and self.cache is not None

    def exempt(self, place: str) -> set[str]:
        """The names of `no_decay` as a model knows them that holds this part at `place`."""
        return {f"{place}.{name}" for name in self.no_decay()} if self.no_decay else set()


@dataclass(frozen=True)
class TaskOffers:
    """The optional members of a task.

    kinds: all the kinds of data it takes, where there is more than its `kind`.
    bank: most training rows that `extra_scores` looks at.
    judged_without_labels: whether `score` needs no labels, as in language modelling.
    trains_without_labels: whether architectures learn there from data without labels.
    captions: whether it is made for images with captions.
    sheets(outputs, split) -> pictures uint8 (H, W, C) by file name that a run keeps to be looked at.
    keep(state, folder), recall(state, folder): files beside the weights that `score` needs where the data are not.
    unseen(state, split) -> lines on values of new rows that training did not have.
    cut(model, split) -> lines on what a model does not read to its end.
    strata(data) -> int64 (N,): what each row is held out with a share of (its class), -1 for rows that cannot be judged. Tasks
    that have it can be parted anew, by time and in folds.
    """

    kinds: tuple[str, ...] = _member(_NAMES, ())
    bank: float = _member(_NUMBER, math.inf)
    judged_without_labels: bool = _member(_FLAG, False)
    trains_without_labels: bool = _member(_FLAG, False)
    captions: bool = _member(_FLAG, False)
    sheets: Method | None = _member(_METHOD)
    keep: Method | None = _member(_METHOD)
    recall: Method | None = _member(_METHOD)
    unseen: Method | None = _member(_METHOD)
    cut: Method | None = _member(_METHOD)
    strata: Method | None = _member(_METHOD)


def offers(model: Any) -> Offers:
    """What `model` (a model, backbone, objective, system or estimator; None has nothing) offers.

    Raises PapertrialError for a member that is something else than `Offers` says.
    """
    return Offers(**_read(model, Offers, "model"))


def task_offers(task: Any) -> TaskOffers:
    """Raises PapertrialError for a member that is something else than `TaskOffers` says."""
    return TaskOffers(**{"kinds": (task.kind,)} | _read(task, TaskOffers, "task"))


def _read(holder: Any, record: type, what: str) -> dict[str, Any]:
    found = {}
    for name, (wanted, suits) in _members(record):
        value = getattr(holder, name, None)
        if value is None:
            continue
        if not suits(value):
            raise PapertrialError(
                f"{type(holder).__name__}.{name} is {value!r:.60}, not {wanted}",
                f"core/offers.py says what a {what} may offer, and so does 'One method file' in docs/architecture.md",
            )
        found[name] = frozenset(value) if name == "draws" else tuple(value) if wanted == _NAMES[0] else value
    return found


@cache
def _members(record: Any) -> tuple[tuple[str, tuple[str, Callable[[Any], bool]]], ...]:
    return tuple((entry.name, entry.metadata["what"]) for entry in fields(record))
