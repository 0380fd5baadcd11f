"""What a trained model is good for, as commands that work: the same for its method and its task wherever they are named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from shlex import quote
from typing import TYPE_CHECKING, Any

import numpy as np

from papertrial.core.errors import Declined
from papertrial.core.offers import offers

if TYPE_CHECKING:
    from papertrial.use.artifact import Artifact

#: what stands behind the run's folder
_BEHIND = {"generate": "", "export": " --to onnx", "write": ' "how it begins"', "answer": ' "a text to answer"'}


def uses(artifact: Artifact) -> list[str]:
    """Commands in the order one would try them; `write` and `answer` are what `generate` does with texts."""
    if offers(artifact.model).draw:
        return ["generate", "evaluate"]
    writes = _writes(artifact)
    answers = _answers(artifact)
    found = ["predict"] if answers else []
    found += ["embed"] if not writes and _embeds(artifact) else []
    found += ["evaluate"] if writes == "write" or (answers and "embed" not in found and not writes) else []
    found += [writes] if writes else []
    found = found or ["evaluate"]  # such as counts of n-grams, which write nothing
    return [*found, *(["export"] if _is_network(artifact) and writes != "answer" else [])]


def commands(verbs: Sequence[str], folder: Any) -> list[str]:
    """Commands as one types them, with DATA for the data."""
    words = {"write": "generate", "answer": "generate"}
    return [f"papertrial {words.get(verb, verb)} {quote(str(folder))}{_BEHIND.get(verb, ' DATA')}" for verb in verbs]


def of_card(card: Mapping[str, Any]) -> list[str]:
    """What `uses` found when the run ended; of a run from before that was kept, what all models have."""
    return list(card.get("uses", ["evaluate"]))


def _writes(artifact: Artifact) -> str:
    from papertrial.use.generate import writer

    try:
        return "answer" if offers(writer(artifact)).encode else "write"
    except Declined:
        return ""


def _answers(artifact: Artifact) -> bool:
    """Whether it has an answer for each example: not a language model, nor an objective that met no labels."""
    from torch import nn

    from papertrial.nn.heads import Supervised

    model, state = artifact.model, artifact.card["state"]
    if artifact.task.kind == "images" and isinstance(model, nn.Module) and not isinstance(model, Supervised):
        return bool(artifact.head)
    try:
        artifact.task.answers(np.zeros((0, max(1, len(state.get("class_names", ()))))), state)
    except Declined:
        return False
    return True


def _embeds(artifact: Artifact) -> bool:
    from torch import nn

    return isinstance(artifact.model, nn.Module) and offers(artifact.model).encoder is not None


def _is_network(artifact: Artifact) -> bool:
    """Whether it can be taken away as one file."""
    from papertrial.use.predictor import predictor

    try:
        predictor(artifact)
    except Declined:
        return False
    return True
