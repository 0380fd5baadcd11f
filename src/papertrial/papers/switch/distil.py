"""Distillation of experts into a dense model (sec. 4.2), as a technique: `--technique distil:teacher=runs/switch-...`.

    loss = (1 - soft) * cross-entropy of the label + soft * cross-entropy of the teacher's probabilities

which is the cross-entropy of a target that is a quarter the teacher's and three quarters the label. The student starts from
the teacher's weights but those of experts and routers: teacher and student do equal work for a token, so the rest has one shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import TypedDict

from papertrial.core import registry
from papertrial.core.doors import Door
from papertrial.core.errors import Declined, PapertrialError
from papertrial.core.facts import Facts
from papertrial.core.offers import offers
from papertrial.core.recipe import checked, sourced
from papertrial.core.run import AGAIN
from papertrial.nn.heads import NextToken, Supervised
from papertrial.nn.transformer import auxiliary
from papertrial.papers.switch.experts import Experts

_TASKS = ("language_modeling", "text_classification")


@checked
@dataclass(frozen=True)
class Distil:
    """The technique. Raises PapertrialError without a teacher, and for one that is no finished run of `switch`; Declined, before
    training, for a student whose answers or tokens are not the teacher's.

    Classes are told apart by their order, so teacher and student learn from data with the same ones.
    """

    teacher: str = sourced("", "yours: the folder of a finished run of switch", "any")
    soft: float = sourced(0.25, "sec. 4.2; weight of the teacher's probabilities, the label has the rest", "[0, 1]")
    start: bool = sourced(True, "sec. 4.2; from the teacher's weights, experts and routers left out")

    def __post_init__(self) -> None:
        if not self.teacher:
            raise PapertrialError(
                "distil has no teacher", "type: --technique distil:teacher=RUN, a finished run of switch"
            )

    def caution(self, optim: Any) -> str:
        """What the card says of it."""
        return f"distilled from {self.teacher}, with {self.soft:g} of the loss from its probabilities"

    def prepare(self, model: nn.Module) -> None:
        """Start the student from the teacher, once they are known to fit."""
        teacher = self._model
        if type(model) is not type(teacher):
            raise Declined(
                f"{self.teacher} was trained for another task than the student",
                f"both learn one of {', '.join(_TASKS)}",
            )
        _require_alike(teacher, model, self.teacher)
        if self.start:
            start_from(teacher, model)

    def loss(self, model: Any, batch: Mapping[str, Tensor], own: Callable[..., Any]) -> dict[str, Tensor]:
        """In place of the model's own, whose cross-entropy is that of the label alone; what experts of a student add stays."""
        return distilled(self._model, model, batch, self.soft)

    @cached_property
    def _model(self) -> Any:
        return teacher_of(Path(self.teacher))


def answers(model: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """(logits (T, V), label int64 (T,)) of what a loss is the mean over: tokens that are no padding, or texts."""
    if isinstance(model, NextToken):
        ids = batch["ids"]
        held = model.held(ids)
        return model.logits(ids)[held], ids[held]
    return model.head(model.encoder(*(batch[name] for name in model.inputs))), batch["label"]


def distilled(teacher: Any, student: Any, batch: Mapping[str, Tensor], soft: float) -> dict[str, Tensor]:
    """The loss of the student, with `soft` of it from the teacher, which is in `eval()`; and what each part is, to log."""
    logits, label = answers(student, batch)
    with torch.no_grad():
        probabilities = answers(teacher.to(label.device), batch)[0].softmax(-1)
    smoothing = student.label_smoothing if isinstance(student, Supervised) else 0.0
    hard = F.cross_entropy(logits, label, label_smoothing=smoothing)
    from_teacher = F.cross_entropy(logits, probabilities.to(logits.dtype))
    added = auxiliary(student.encoder)
    loss = sum(added.values(), (1 - soft) * hard + soft * from_teacher)
    return {"loss": loss, "label_loss": hard.detach(), "teacher_loss": from_teacher.detach(), **added}


class _Card(TypedDict):
    method: dict[str, Any]
    task: dict[str, Any]
    config: dict[str, Any]
    facts: dict[str, Any]


_TEACHER = Door(_Card, AGAIN)


def teacher_of(folder: Path) -> NextToken | Supervised:
    """The model of a finished run of `switch`, in `eval()`. Raises PapertrialError where there is none, Declined for a run
    whose model gives no probabilities."""
    file = folder / "card.json"
    if not file.is_file():
        raise PapertrialError(f"the teacher {folder} holds no trained model", "type: papertrial fit switch --data DATA")
    card = _TEACHER.read(file)
    method = registry.method(card["method"]["name"])
    if method.id != "switch":
        raise PapertrialError(
            f"the teacher {folder} is a run of {method.id}, which has no experts", "name a run of switch"
        )
    if card["task"]["name"] not in _TASKS:
        raise Declined(
            f"the teacher {folder} was trained for {card['task']['name']}, which gives no probabilities",
            f"distil takes one of {', '.join(_TASKS)}",
        )
    try:
        held = load_file(str(folder / "model.safetensors"))
        weights = {name.removeprefix("model."): value for name, value in held.items() if name.startswith("model.")}
        encoder = method.module.build(method.module.Config(**card["config"]), Facts.from_json(card["facts"]))
        causal = card["task"]["name"] == "language_modeling"
        model = NextToken(encoder) if causal else Supervised(encoder, len(weights["head.weight"]), inputs=("ids",))
        model.load_state_dict(weights)
    except Exception as error:  # safetensors raises its own error type for a damaged file
        raise PapertrialError(f"the teacher {folder} cannot be read ({error})", "train it again") from None
    return model.eval().requires_grad_(False)


def start_from(teacher: nn.Module, student: nn.Module) -> list[str]:
    """Copy the weights that both have in one shape, experts and routers left out; the names of those that were copied."""
    apart = {f"{name}." for model in (teacher, student) for name, module in model.named_modules() if _routes(module)}
    given, taken = dict(teacher.named_parameters()), []
    with torch.no_grad():
        for name, weight in student.named_parameters():
            other = given.get(name)
            if other is not None and other.shape == weight.shape and not name.startswith(tuple(apart)):
                weight.copy_(other)
                taken.append(name)
    return taken


def _routes(module: nn.Module) -> bool:
    return any(isinstance(child, Experts) for child in module.children())


def _require_alike(teacher: Any, student: Any, folder: str) -> None:
    """Raise Declined where the two do not read the same ids, or do not answer with as many probabilities."""
    ours, theirs = (offers(model.encoder).tokeniser for model in (student, teacher))
    states = [] if ours is None else [tokeniser.state_dict() for tokeniser in (ours, theirs)]
    same = ours is not None and type(ours) is type(theirs) and states[0].keys() == states[1].keys()
    if not same or not all(torch.equal(states[0][name], states[1][name]) for name in states[0]):
        raise Declined(f"the student reads other tokens than {folder}", "train both on the same data, or on bytes")
    longest = [offers(model.encoder).longest for model in (student, teacher)]
    if None not in longest and longest[0] > longest[1]:
        raise Declined(
            f"the student reads rows of {longest[0]} tokens, and {folder} rows of {longest[1]}",
            f"--set longest={longest[1]}",
        )
    if isinstance(teacher, Supervised):
        classes = [model.head.weight.shape[0] if model.kind == "classes" else 0 for model in (student, teacher)]
        if classes[0] != classes[1]:
            raise Declined(
                f"the student has {classes[0]} classes, and {folder} has {classes[1]}", "train both on the same data"
            )
