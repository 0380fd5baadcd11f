"""What changes how any model is trained: the hooks of techniques, and the proof that what they do not train stays as it was.

A technique is an object with any of these methods; a missing one changes nothing (docs/architecture.md tells when to use which):

    attach(model)                       parts it adds to the network, before training and again when an artifact is read
    embed(table) -> module              what turns ids (B, N) into vectors in the place of the model's input embeddings
    prepare(model[, rows])              before training; rows: the Split that is learnt from
    parameters(model) -> parameters     only these are trained
    loss(model, batch, own)             in place of the model's loss, which is own(batch)
    draws(at, examples) -> int64 rows   which rows the step takes, in place of the next batch
    per_example(gradients, at)          gradients of single rows, {name: (rows, ...)}, in and out, before they are averaged
    share_gradients(model, at)          in place of the mean of gradients over ranks, which may differ from then on
    before_step(model[, at])            gradients are there, not yet clipped
    after_step(model[, at])
    finish(model)                       after training
    finished(model)                     what `finish` does to the network's parts, when an artifact is read
    caution(optim) -> str               what a user should know beforehand

What it carries from step to step are buffers that it registers in the model, so that a checkpoint holds them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import NotRequired, TypedDict

from papertrial.core.doors import Door
from papertrial.core.errors import Declined, PapertrialError
from papertrial.core.offers import offers
from papertrial.core.run import AGAIN, Run

#: file of a run with what was trained and what was not
FROZEN = "frozen.json"


class _Frozen(TypedDict):
    trained: int
    kept: int
    sha256: str
    sums: dict[str, str]
    unchanged: NotRequired[bool]


_PROOF = Door(_Frozen, AGAIN)


@dataclass(frozen=True)
class Moment:
    """Where a training is. step: from 0, of total.  rank, world: of the processes.  rows: of the global batch, nominally."""

    seed: int
    step: int
    total: int
    rank: int
    world: int
    rows: int
    device: torch.device

    def generator(self, what: int = 0) -> torch.Generator:
        """A generator on the CPU, the same on all ranks, for one step. what: another number for each thing that is drawn."""
        words = np.random.SeedSequence([self.seed, self.step, what]).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(words[0] >> np.uint64(1)))


class Techniques:
    """The techniques of one training, in order."""

    def __init__(self, techniques: Sequence[Any] = ()) -> None:
        self.all = tuple(techniques)
        for hook in ("draws", "share_gradients"):
            if len(self._having(hook)) > 1:
                raise Declined(f"two techniques want to decide {_DECIDES[hook]}", "train with one of them")
        self.per_example = self._having("per_example")
        self.shares = self._having("share_gradients")
        self.draws = self._having("draws")
        if self.draws and not self.per_example:
            raise ValueError(
                "a technique that draws the rows of a step needs `per_example`, which takes any number of them"
            )

    def _having(self, hook: str) -> list[Any]:
        return [technique for technique in self.all if hasattr(technique, hook)]

    def call(self, hook: str, model: nn.Module, at: Moment | None = None) -> None:
        """`hook(model)` or `hook(model, at)` of each that has it."""
        for technique in self._having(hook):
            _call(getattr(technique, hook), model, at)

    def loss(self, model: Any, batch: Mapping[str, Any]) -> Any:
        """The model's loss, as the techniques change it, the last one outermost."""
        own: Callable[[Mapping[str, Any]], Any] = model.loss
        for technique in self._having("loss"):
            own = _wrapped(technique.loss, model, own)
        return own(batch)

    def changed(self, gradients: dict[str, Tensor], at: Moment) -> dict[str, Tensor]:
        """Gradients of single rows, {name: (rows, ...)}, as the techniques change them."""
        for technique in self.per_example:
            gradients = technique.per_example(gradients, at)
        return gradients


_DECIDES = {"draws": "which rows a step takes", "share_gradients": "how gradients are shared over processes"}


def _call(hook: Callable[..., Any], *arguments: Any) -> Any:
    """With as many of the arguments as it takes."""
    return hook(*arguments[: len(signature(hook).parameters)])


def _wrapped(loss: Callable[..., Any], model: Any, own: Callable[..., Any]) -> Callable[..., Any]:
    return lambda batch: loss(model, batch, own)


def attach(model: nn.Module, techniques: Sequence[Any]) -> None:
    """Add the parts that techniques add to a network. Raises Declined where one feeds embeddings to a model that reads no ids."""
    for technique in techniques:
        if hasattr(technique, "attach"):
            technique.attach(model)
        if hasattr(technique, "embed"):
            parent, name = _input_embeddings(model)
            setattr(parent, name, technique.embed(getattr(parent, name)))


def _input_embeddings(model: nn.Module) -> tuple[nn.Module, str]:
    """Where the table stands that turns ids into vectors: the first one of the encoder."""
    encoder = offers(model).encoder or model
    for parent in encoder.modules() if offers(encoder).tokeniser else ():
        for name, child in parent.named_children():
            if isinstance(child, nn.Embedding):
                return parent, name
    raise Declined(
        f"{type(encoder).__name__} reads no tokens, so it has no input embeddings",
        "choose a model of texts with --host",
    )


def attach_finished(model: nn.Module, techniques: Sequence[Any]) -> None:
    """Give a fresh network the parts of one whose training is finished, so that it takes its weights."""
    attach(model, techniques)
    Techniques(techniques).call("finished", model)


def reshapes(technique: Any) -> bool:
    """Whether a network has other parts after training with it."""
    return any(hasattr(technique, hook) for hook in ("attach", "embed", "finished"))


def prepare(model: nn.Module, techniques: Sequence[Any], rows: Any = None) -> None:
    """What techniques do to a model before it is trained; all that none of them asks to train is frozen, if any asks.

    rows: what is learnt from.  Raises Declined where a technique asks for parameters and there are none.
    """
    attach(model, techniques)
    for technique in techniques:
        if hasattr(technique, "prepare"):
            _call(technique.prepare, model, rows)
    asked = [list(technique.parameters(model)) for technique in techniques if hasattr(technique, "parameters")]
    if not asked:
        return
    chosen = {id(parameter) for parameters in asked for parameter in parameters}
    if not chosen:
        raise Declined(
            "the model has none of the parameters that the technique trains", "choose another model with --host"
        )
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in chosen)


def finish(model: nn.Module, techniques: Sequence[Any]) -> None:
    """What they do to it afterwards; it ends in `eval()`."""
    model.eval()
    Techniques(techniques).call("finish", model)


class Proof:
    """That the parameters no technique asked to train end as they began: a checksum before the first step and after the last.

    Nothing is proved where no technique asks for parameters: then what else is frozen is a matter of the method.
    """

    def __init__(self, run: Run, model: nn.Module, techniques: Sequence[Any]) -> None:
        self.path, self.model = run.path(FROZEN), model
        self.on = any(hasattr(technique, "parameters") for technique in techniques)

    def begin(self) -> None:
        """Before the first step; a run that goes on keeps the sums of its beginning."""
        if self.on:
            count = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
            kept = [p for p in self.model.parameters() if not p.requires_grad]
            sums = self._sums()
            _PROOF.write(
                self.path,
                {"trained": count, "kept": sum(p.numel() for p in kept), "sha256": _joined(sums), "sums": sums},
            )

    def end(self) -> None:
        """Raise PapertrialError where a weight that was not to be trained has changed."""
        if not self.on:
            return
        held = _PROOF.read(self.path)
        sums = self._sums()
        changed = sorted(name for name in sums.keys() | held["sums"].keys() if sums.get(name) != held["sums"].get(name))
        if changed:
            raise PapertrialError(
                f"the weights {changed[0]} were not to be trained, and have changed",
                "report it: the technique or the model is wrong",
            )
        _PROOF.write(self.path, {**held, "unchanged": True})

    def _sums(self) -> dict[str, str]:
        return {name: _digest(p) for name, p in self.model.named_parameters() if not p.requires_grad}


def proofs(runs: Iterable[Run]) -> dict[str, Any] | None:
    """What the card of a run says of it: weights trained and kept, and the checksum of the kept ones; None where none is kept."""
    held = [_PROOF.read(run.path(FROZEN)) for run in runs if run.path(FROZEN).exists()]
    if not held:
        return None
    return {
        "trained": sum(entry["trained"] for entry in held),
        "kept": sum(entry["kept"] for entry in held),
        "sha256": held[0]["sha256"]
        if len(held) == 1
        else _joined({str(n): entry["sha256"] for n, entry in enumerate(held)}),
        "unchanged": all(entry.get("unchanged", False) for entry in held),
    }


def _digest(parameter: Tensor) -> str:
    values = parameter.detach().cpu().contiguous()
    return hashlib.sha256(
        values.view(torch.uint8).numpy() if values.ndim else values.reshape(1).view(torch.uint8).numpy()
    ).hexdigest()


def _joined(sums: Mapping[str, str]) -> str:
    """One checksum of names and sums."""
    return hashlib.sha256("".join(f"{name} {sums[name]}\n" for name in sorted(sums)).encode()).hexdigest()
