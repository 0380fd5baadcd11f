"""What answers are judged by: the metric that the user names, else the one that the data call for; and tuning by it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from papertrial.core.errors import DataError
from papertrial.core.task import Split
from papertrial.tasks._metrics import RARE, classification_scores, metric_named, rarest, regression_scores

#: share of the labels of the commonest class from which macro F1 is the metric, and accuracy would praise what never changes
LOPSIDED = 0.75
ACCURACY, RMSE, MACRO_F1, PRECISION = "accuracy", "rmse", "macro_f1", "average_precision"


def chosen(asked: str | None, of: str, usual: str) -> str:
    """The name of the metric, of those for `of` (see METRICS). Raises PapertrialError for another one."""
    return usual if asked is None else metric_named(asked, of).name


def for_classes(
    asked: str | None,
    labels: np.ndarray,
    class_names: Sequence[Any],
    notes: list[str],
    what: str,
    of_two: bool = False,
) -> dict[str, Any]:
    """ "metric" and "positive" of the state of a task: average precision where the rarer of two classes has less than a tenth of
    the labels, macro F1 where one of more (of two too, with `of_two`) has three quarters, else accuracy; the rarest class.

    labels: int64 (N,), -1 for none.  notes: a line is added that says why.  what: the rows, in the words of a note.
    """
    counts = np.bincount(labels[labels >= 0], minlength=len(class_names))
    shares = counts / max(1, counts.sum())
    if not counts.any():
        return {"metric": chosen(asked, "classes", ACCURACY)}
    rare, common = rarest(labels[labels >= 0]), int(counts.argmax())
    usual = ACCURACY
    if (counts > 0).sum() == 2 and shares[rare] < RARE:
        usual = PRECISION
        why = (
            f"{shares[rare]:.1%} of the {what} are {class_names[rare]!s}: judged by average precision, where chance is"
            f" {shares[rare]:.3f}, with AUC beside it; accuracy would praise the answer that is always {class_names[common]!s}"
        )
    elif shares[common] > LOPSIDED and (of_two or (counts > 0).sum() > 2):
        usual, why = MACRO_F1, f"{shares[common]:.0%} of the labels are of one class: judged by macro F1"
    if asked is None and usual != ACCURACY:
        notes.append(why)
    return {"metric": chosen(asked, "classes", usual), "positive": rare}


def unusual(metric: str, usual: str) -> str:
    """What methods are told of the metric in their facts: nothing of the one they are tuned by anyway."""
    return "" if metric == usual else metric


def loss_by(metric: str, outputs: np.ndarray, split: Split) -> float | None:
    """How far answers are from good by a metric of classes or values, lower being better; None for no metric, and where it
    cannot be told of these rows.

    outputs: probabilities (N, classes) or values (N,).  split: has "label" or "target", all of them known.
    """
    if not metric:
        return None
    try:
        if "label" in split:
            scores = classification_scores(
                outputs, split["label"], [str(name) for name in range(outputs.shape[1])], metric
            )
        else:
            scores = regression_scores(outputs, split["target"], metric)
    except DataError:
        return None
    value = scores.metrics[metric]
    return -value if metric_named(metric).higher else value
