"""Do probabilities mean what they say, and from which on is a class answered: reliability, and a threshold chosen on validation.

    ECE = sum over bins of (share of the examples) |share that is right - mean confidence|,   ten bins of equal width

over the confidence of the answer, the probability of the class that is answered (Guo et al., ICML 2017).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from papertrial.core.errors import DataError, PapertrialError
from papertrial.tasks._influence import Cuts
from papertrial.tasks._metrics import rarest

BINS = 10
_FORM = "write it as --threshold recall=0.9 or --threshold precision=0.8"


def reliability(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """`ece`, and of the bins that hold examples: `confidence`, `right` (means) and `count`.

    probabilities: (N, classes).  labels: int (N,).
    """
    said = probabilities.argmax(axis=1)
    confidence = probabilities[np.arange(len(said)), said]
    place = np.clip((confidence * BINS).astype(int), 0, BINS - 1)
    count = np.bincount(place, minlength=BINS)
    held = count > 0
    mean, right = (
        np.bincount(place, values, minlength=BINS)[held] / count[held] for values in (confidence, said == labels)
    )
    ece = float(count[held] @ np.abs(right - mean) / len(labels))
    return {"ece": ece, "confidence": mean.tolist(), "right": right.tolist(), "count": count[held].tolist()}


def asked(text: str) -> tuple[str, float]:
    """("recall" or "precision", value) of `recall=0.9`. Raises PapertrialError for anything else."""
    found = re.fullmatch(r"(recall|precision)=(0?\.\d+|1(?:\.0*)?)", text.strip().lower())
    if not found or not float(found[2]):
        raise PapertrialError(f"the threshold {text!r} is no recall or precision above 0", _FORM)
    return found[1], float(found[2])


def chosen(
    text: str, probabilities: np.ndarray, labels: np.ndarray, class_names: Sequence[str], positive: int | None = None
) -> dict[str, Any]:
    """The threshold on the probability of a class that meets `text` on validation rows and costs least of the other: the highest
    with that recall, the lowest with that precision. `class`, `at`, and the `recall` and `precision` there.

    probabilities: (N, 2).  labels: int (N,).  positive: the class; the rarer one where it is not given.
    Raises PapertrialError for more than two classes, DataError where no threshold meets it.
    """
    name, wanted = asked(text)
    if len(class_names) != 2:
        raise PapertrialError(
            f"a threshold is of two classes, and there are {len(class_names)}", "leave --threshold out"
        )
    positive = rarest(labels) if positive is None else positive
    true, scores = labels == positive, probabilities[:, positive]
    if not true.any():
        raise DataError(
            f"no validation row is {class_names[positive]!r}, so no threshold can be chosen", "give more rows"
        )
    cuts = Cuts(scores, true)
    found = {"recall": cuts.recall, "precision": cuts.precision}
    good = np.flatnonzero(found[name] >= wanted - 1e-12)
    if not len(good):
        best = found[name].max()
        raise DataError(
            f"no threshold reaches {name} {wanted:g} on the validation rows", f"{best:.3f} is the most there is"
        )
    at = good[0] if name == "recall" else good[-1]
    values = {key: float(value[at]) for key, value in found.items()}
    return {"asked": f"{name}={wanted:g}", "class": str(class_names[positive]), "at": float(cuts.scores[at]), **values}


def answered(probabilities: np.ndarray, class_names: Sequence[str], threshold: Mapping[str, Any]) -> np.ndarray:
    """int (N,): the class of the threshold from it on, and the other below."""
    positive = list(map(str, class_names)).index(threshold["class"])
    return np.where(probabilities[:, positive] >= threshold["at"], positive, 1 - positive)


def on_test(
    probabilities: np.ndarray, labels: np.ndarray, names: Sequence[str], held: Mapping[str, Any]
) -> dict[str, float]:
    """Recall and precision of the class on other rows, by the threshold that was chosen."""
    said = answered(probabilities, names, held)
    positive = list(map(str, names)).index(held["class"])
    hits = float(((said == positive) & (labels == positive)).sum())
    return {
        "recall_at_threshold": hits / max(1, int((labels == positive).sum())),
        "precision_at_threshold": hits / max(1, int((said == positive).sum())),
    }
