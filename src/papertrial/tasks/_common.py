"""What tasks have in common besides their splits (`_split.py`) and metrics (`_metrics.py`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import nn

from papertrial.core.errors import DataError, Declined, PapertrialError
from papertrial.core.facts import Facts
from papertrial.core.offers import offers
from papertrial.core.task import Prepared, Split
from papertrial.nn.batches import forward_batches
from papertrial.nn.modes import device_of, evaluating


class Common:
    """What a task does where it has no reason to do otherwise."""

    name: str
    supports: Callable[[Any], Any]

    def require(
        self, data: Any, wrong: str = "cannot be learned from", fix: str = "type: papertrial look DATA"
    ) -> None:
        """Raise DataError for data that the task does not support."""
        supports = self.supports(data.look())
        if not supports:
            raise DataError(f"{data.name} {wrong}: {supports.why}", fix)

    def require_made_for(self, method: Any, *alike: str) -> None:
        """Raise Declined for a method that is neither made for the task nor for one `alike`."""
        if not {self.name, *alike} & set(method.paper.tasks):
            raise Declined(f"{method.id} is not made for the task {self.name}", "type: papertrial list")

    def cannot_train(self, method: Any) -> Declined:
        return Declined(f"{method.id} is of the kind {method.paper.kind}, which the task {self.name} cannot train")

    def finish(self, model: Any, prepared: Prepared, seed: int) -> dict[str, np.ndarray]:
        """Nothing is fitted after training."""
        return {}

    def extra_scores(self, model: Any, prepared: Prepared, seed: int) -> dict[str, float]:
        return {}

    def answers(self, outputs: np.ndarray, state: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """`prediction`, and `p(class)` for each class where there are classes."""
        if "class_names" not in state:
            return {"prediction": outputs}
        names = state["class_names"]
        return {
            "prediction": labels_of(state)[outputs.argmax(1)],
            **{f"p({n})": outputs[:, i] for i, n in enumerate(names)},
        }


def labels_of(state: Mapping[str, Any]) -> np.ndarray:
    """(classes,): the classes as the labels of the training data were, numbers and booleans among them."""
    return np.asarray(state.get("labels", state["class_names"]))


def objective(method: Any, config: Any, facts: Facts, backbone: nn.Module | None, around: Any = None) -> Any:
    """The objective of a method over a backbone. around: makes what the objective is given out of the backbone.

    Raises Declined without a backbone.
    """
    require_backbone(method, backbone)
    return method.module.build(config, facts, backbone if around is None else around(backbone))


def require_backbone(method: Any, backbone: nn.Module | None) -> None:
    if backbone is None:
        raise Declined(f"{method.id} trains a backbone, and none was given", "name one with --backbone")


def encoder_of(model: Any) -> Any:
    """The part of a model that gives features. Raises Declined for a model without one."""
    found = offers(model).encoder
    if found is None:
        raise Declined("this model has no features to give")
    return found


def estimated(model: Any, split: Split) -> np.ndarray:
    """What an estimator answers, float64."""
    return np.asarray(model.outputs(split), dtype=np.float64)


def through(model: nn.Module, part: Any, columns: Mapping[str, Any], batch: int = 256) -> np.ndarray:
    """`part` of the model, or a function that uses it, in `eval()`, on all rows of some columns: float32 (N, ...)."""
    with evaluating(model):
        return forward_batches(part, Split(columns), tuple(columns), batch, device_of(model))


def finite(features: np.ndarray) -> np.ndarray:
    """The features. Raises PapertrialError when they are not all finite numbers."""
    if not np.isfinite(features).all():
        raise PapertrialError(
            "the features of the model are not all finite numbers", "train again with a smaller --set lr="
        )
    return features


def known_labels(state: Mapping[str, Any], data: Any) -> np.ndarray:
    """int64 (N,): the labels of new data as the model counts classes, -1 for none and for a class it does not know."""
    known = {name: index for index, name in enumerate(state["class_names"])}
    codes = np.array([known.get(str(name), -1) for name in data.class_names] + [-1], dtype=np.int64)
    return codes[np.asarray(data.labels, dtype=np.int64)]
