"""A trained model as one module from raw inputs to answers, what its inputs mean, and rows to try it on."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from papertrial.core import registry
from papertrial.core.errors import DataError, Declined, PapertrialError
from papertrial.core.offers import offers
from papertrial.core.task import Split
from papertrial.nn.batches import to_tensors
from papertrial.nn.heads import Supervised
from papertrial.use import text_export
from papertrial.use.account import Encoded
from papertrial.use.artifact import Artifact
from papertrial.use.card import ESTIMATOR

#: rows that a copy of a model is tried on
ROWS = 64


class Predictor(nn.Module):
    """Network, probe and softmax in one. `forward(*inputs)` takes the task's input columns in order and gives float32;
    of text the ids and the mask of each column, then any further input (see `reading`).

    answers: `probabilities` (B, classes), `value` (B,), `features` (B, width), `logits` (B, N, ids) with zeros at padding, or
    the `score` (B,) of a pair.  probe: of an objective, empty otherwise.
    absent: places and types of inputs without columns (a table without categories), which nobody should have to give.
    texts: how many columns of ids there are, and pad: what fills their short rows.
    """

    def __init__(
        self,
        network: nn.Module,
        answers: str,
        probe: Mapping[str, np.ndarray] | None = None,
        absent: Mapping[int, torch.dtype] | None = None,
        texts: int = 0,
        pad: int = 0,
    ) -> None:
        super().__init__()
        self.network, self.answers, self.probed, self.absent = network, answers, bool(probe), dict(absent or {})
        self.texts, self.pad = texts, pad
        self.mean: Tensor
        self.std: Tensor
        self.weight: Tensor
        self.bias: Tensor
        for name, array in (probe or {}).items():
            self.register_buffer(name, torch.from_numpy(np.array(array, dtype=np.float32)))

    def forward(self, *inputs: Tensor) -> Tensor:
        paired = 2 * self.texts
        ids = [inputs[at].masked_fill(~inputs[at + 1], self.pad) for at in range(0, paired, 2)]
        columns = [*ids, *inputs[paired:]]
        for place, dtype in self.absent.items():
            columns.insert(place, torch.zeros(inputs[0].shape[0], 0, dtype=dtype, device=inputs[0].device))
        out = self.network(*columns)
        if self.answers == "logits":
            out = out * inputs[1].unsqueeze(-1)
        if self.probed:
            out = F.linear((out - self.mean) / self.std, self.weight, self.bias)
        return (out.softmax(1) if self.answers == "probabilities" else out).float()


def predictor(artifact: Artifact) -> Predictor:
    """The predictor of an artifact, in `eval()`. Without labels an objective has features to give and no answers.

    Raises Declined for a method that is no network, or that makes pictures or texts.
    """
    if offers(artifact.model).draw:
        raise Declined(
            f"{artifact.card['method']['name']} draws pictures from a seed, which is not a module from inputs to answers",
            f"type: papertrial generate {artifact.folder}",
        )
    model, facts = artifact.model, artifact.card["facts"]
    if text_export.is_text(artifact) and isinstance(model, nn.Module):
        network, answers = text_export.network_of(artifact)
        texts, pad = len(text_export.longest_of(artifact)), artifact.model.encoder.tokeniser.pad
        return Predictor(network, answers, artifact.head, texts=texts, pad=pad).eval()
    absent = {}
    if artifact.task.inputs == ("numeric", "categorical"):
        widths = ((facts["numeric"], torch.float32), (len(facts["cardinalities"]), torch.int64))
        absent = {place: dtype for place, (width, dtype) in enumerate(widths) if not width}
    if isinstance(model, Supervised):
        found = Predictor(model, "probabilities" if model.kind == "classes" else "value", absent=absent)
    elif isinstance(model, nn.Module):
        found = Predictor(
            artifact.model.encoder, "probabilities" if artifact.head else "features", artifact.head, absent
        )
    elif as_module := offers(model).as_module:
        found = Predictor(as_module(), "probabilities" if facts["classes"] else "value", absent=absent)
    else:
        raise Declined(
            f"{artifact.card['method']['name']} is not a network, so there is nothing to take away but its own files",
            f"they are in {artifact.folder / ESTIMATOR}",
        )
    return found.eval()


def foldable(network: nn.Module, place: str = "") -> str | None:
    """The dotted name of the part of `network`, or of what it wraps, that has `fold()`; empty for itself, None where none has."""
    held = offers(network)
    if held.fold:
        return place
    for name, inner in (("encoder", held.encoder), ("backbone", held.backbone)):
        if isinstance(inner, nn.Module):
            return foldable(inner, f"{place}.{name}".lstrip("."))
    return None


def folded(network: nn.Module) -> nn.Module:
    """A copy of `network` in `eval()` in which that part is what its `fold()` gives; `network` itself where there is none."""
    place = foldable(network)
    if place is None:
        return network
    network = copy.deepcopy(network).eval()
    inner: Any = network.get_submodule(place)
    made: nn.Module = inner.fold()
    if not place:
        return made
    network.set_submodule(place, made)
    return network


def expected(artifact: Artifact, rows: Split) -> np.ndarray:
    """What the artifact itself answers: probabilities, values, or features where it has no answers."""
    if text_export.is_text(artifact):
        return text_export.expected(artifact, rows)
    if isinstance(artifact.model, nn.Module) and not isinstance(artifact.model, Supervised) and not artifact.head:
        return artifact.task.embed(artifact.model, rows)
    return artifact.task.outputs(artifact.model, artifact.head, rows)


def spread(answers: np.ndarray, kind: str) -> float:
    """What differences of answers are measured in: 1 for probabilities, else their standard deviation, and no less than a
    hundredth of the largest, since float32 holds no more digits."""
    return 1.0 if kind == "probabilities" else max(float(answers.std()), 0.01 * float(np.abs(answers).max()))


def input_meanings(artifact: Artifact) -> list[dict[str, Any]]:
    """One dict per input that has columns, in order: name, dtype, shape behind the batch, and what its numbers mean.

    A word in a shape stands for any number.
    """
    if text_export.is_text(artifact):
        return text_export.meanings(artifact)
    meanings = registry.kind(artifact.task.kind).made("meanings")
    if meanings is None:
        raise Declined(f"what the inputs of the task {artifact.task.name} mean is not known here")
    found: list[dict[str, Any]] = meanings(artifact.card["state"], _facts(artifact))
    return found


def _facts(artifact: Artifact) -> dict[str, Any]:
    """The facts on the data, with the size of the images that the model itself is shown."""
    size = dict(zip(("height", "width"), offers(artifact.model).sees, strict=False))
    return {**artifact.card["facts"], **size}


def sample(artifact: Artifact, data: Any = None) -> tuple[Split, str, list[str]]:
    """Up to ROWS rows to try a copy of the model on, words for where they come from, and the notes on `data`; of text the
    texts themselves.

    They are spread over `data`; when None, over the data of the run if it is still found by its name, else made up.
    Raises DataError when `data` has no rows.
    """
    given = _rows_of_the_run(artifact) if data is None else artifact.encode(data)
    split = None if given is None else given.split
    if given is not None and not given.split.examples:
        raise DataError(f"{given.opened.name} has no rows", "give data with at least one")
    notes = [] if given is None or data is None else list(given.notes)
    if held := artifact.card.get("threshold"):
        notes.append(
            f"the copy gives probabilities: answer {held['class']!r} from {held['at']:.4g} on, which was chosen for {held['asked']}"
        )
    if text_export.is_text(artifact):
        texts = text_export.rows_to_try(artifact, split, ROWS)
        return texts, f"{texts.examples} texts of " + ("random letters" if given is None else given.opened.name), notes
    if split is None or given is None:
        return _made_up(artifact), f"{ROWS} rows of random numbers", notes
    places = np.unique(np.linspace(0, split.examples - 1, ROWS).astype(np.int64))
    some, shown = split.take(places), offers(artifact.model).shown
    rows = {"image": shown(some)} if shown else {name: np.asarray(some[name]) for name in artifact.task.inputs}
    return (
        Split({name: _laid_out(column) for name, column in rows.items()}),
        f"{len(places)} rows of {given.opened.name}",
        notes,
    )


def inputs_of(artifact: Artifact, rows: Split) -> tuple[Tensor, ...]:
    """Rows of `sample` as the predictor takes them."""
    if text_export.is_text(artifact):
        return text_export.tensors(artifact, rows)
    return tuple(tensor for tensor in to_tensors(rows).values() if 0 not in tensor.shape[1:])


def _laid_out(column: np.ndarray) -> np.ndarray:
    """The column in the memory order and alignment of a plain torch tensor: the last bits of a sum depend on them."""
    images = column.ndim == 4  # (N, H, W, C), which models take as (N, C, H, W)
    tensor = torch.from_numpy(column.transpose(0, 3, 1, 2) if images else column)
    plain = tensor.clone(memory_format=torch.contiguous_format).numpy()
    return plain.transpose(0, 2, 3, 1) if images else plain


def _rows_of_the_run(artifact: Artifact) -> Encoded | None:
    from papertrial.data import open as open_data

    name = artifact.card["data"]["name"]
    if name not in registry.samples() and not Path(name).exists():
        return None
    try:
        opened = open_data(name)
        if opened.fingerprint == artifact.card["data"]["fingerprint"]:
            return artifact.encode(opened)
    except PapertrialError:  # another file of that name: it was only a guess
        pass
    return None


def _made_up(artifact: Artifact) -> Split:
    made_up = registry.kind(artifact.task.kind).made("made_up")
    if made_up is None:
        raise Declined(
            f"rows of the kind {artifact.task.kind} cannot be made up", "name data to compare on with --data"
        )
    columns = made_up(_facts(artifact), ROWS)
    return Split({name: _laid_out(column) for name, column in columns.items()})
