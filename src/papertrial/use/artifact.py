"""A trained model as a folder: `model.safetensors` (or the estimator's own files) and `card.json`. Load it, ask it, judge it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from papertrial.core import registry
from papertrial.core.arguments import Names, typed
from papertrial.core.doors import check_sums
from papertrial.core.errors import DataError, Declined, PapertrialError, did_you_mean
from papertrial.core.facts import Facts
from papertrial.core.html import page
from papertrial.core.kind import load
from papertrial.core.memory import require
from papertrial.core.offers import offers, task_offers
from papertrial.core.task import Estimator, Prepared, Split, Task
from papertrial.core.wording import several
from papertrial.tasks._calibration import answered, on_test
from papertrial.tasks._common import labels_of
from papertrial.train.randomness import drawn_apart
from papertrial.use.account import (
    Encoded,
    Evaluation,
    counted_wrong,
    encoded,
    met,
    said_of_met,
    without_label,
)
from papertrial.use.card import CARD, ESTIMATOR, WEIGHTS, load_weights, loaded_estimator, rebuilt

if TYPE_CHECKING:
    import pandas as pd


class Artifact:
    """What `fit` leaves behind.

    folder: the run's folder.  card: the content of card.json.  model: an nn.Module in eval mode, or an estimator.
    """

    def __init__(self, folder: Path, card: dict[str, Any], task: Task, model: Any, head: dict[str, np.ndarray]) -> None:
        self.folder, self.card, self.task, self.model, self.head = folder, card, task, model, head
        self._answers: tuple[list[tuple[int, int]], Any] = ([], None)

    def __repr__(self) -> str:
        return f"Artifact {str(self.folder)!r}: {self.card['method']['name']}, trained for {self.task.name}"

    def _repr_html_(self) -> str:
        card = self.card
        ends = card.get("intervals", {})
        facts = [("folder", str(self.folder)), ("task", self.task.name), ("data", str(card["data"]["name"]))]
        rows = [
            (name, f"{value:.3f}", "[{:.3f}, {:.3f}]".format(*ends[name]) if name in ends else "")
            for name, value in card["metrics"].items()
        ]
        return page(
            card["method"]["name"], facts=facts, rows=rows, lines=[*card.get("said_first", ()), *card.get("notes", ())]
        )

    @classmethod
    def load(cls, folder: Path | str) -> Artifact:
        """Rebuild the model from the card and read its weights; nothing is unpickled.

        Raises PapertrialError when the folder holds no finished run, one of a newer format, or weights that are not those that
        were written.
        """
        folder = Path(folder)
        if not (folder / "card.json").exists():
            inside = sorted(path.parent for path in folder.glob("*/**/card.json"))[:1] if folder.is_dir() else []
            raise PapertrialError(
                f"{folder} holds no trained model",
                f"it holds several runs: name one, such as {inside[0]}"
                if inside
                else "type: papertrial fit PAPER --data DATA",
            )
        card = CARD.read(folder / "card.json")
        task = registry.task(card["task"]["name"])
        if task.version != card["task"]["version"]:
            raise PapertrialError(
                f"{folder} was made for version {card['task']['version']} of the task {task.name}, here it is {task.version}",
                "train it again",
            )
        check_sums(folder, card.get("sums", {}), CARD.repair(folder / "card.json"))  # earlier versions kept none
        if (folder / WEIGHTS).exists():
            size = (folder / WEIGHTS).stat().st_size
            require(2 * size, f"the weights in {folder}, read and put in their places,", "take a smaller model")
        with drawn_apart(), CARD.answers_for(folder / "card.json", card):
            prepared = Prepared(Split({}), Split({}), Split({}), Facts.from_json(card["facts"]), card["state"])
            model = rebuilt(task, card, prepared)
        head: dict[str, np.ndarray] = {}
        if isinstance(model, Estimator):
            model = loaded_estimator(model, folder / ESTIMATOR)
        else:
            head = load_weights(model, folder / WEIGHTS)
            model.eval()
        return cls(folder, card, task, model, head)

    def opened(self, data: Any, **how: Any) -> Any:
        """New data read as those were that the model was trained on. how: `dates` and the like, see `papertrial.open`."""
        from papertrial.data import open as open_data

        return open_data(data, like=self.card["state"].get("columns"), **how)

    def encode(self, data: Any, **how: Any) -> Encoded:
        """New data, anything `papertrial.open` takes, as the columns the model was trained on, with what was lost on the way.

        What `encode` returned is returned as it is, so that the other methods take it in place of the data. how: as `opened`
        takes it.
        """
        if isinstance(data, Encoded):
            return data
        opened = self.opened(data, **how)
        if opened.kind not in task_offers(self.task).kinds:
            raise DataError(
                f"{opened.name} is {opened.kind}, but this model was trained on {self.task.kind}",
                "give it data like that it was trained on",
            )
        return encoded(self.task, self.model, self.card["state"], opened)

    def _answering(self) -> Any:
        """The model as it answers fastest: what can be folded is folded, anew where weights have changed since."""
        from papertrial.use.predictor import foldable, folded

        if isinstance(self.model, Estimator) or foldable(self.model) is None:
            return self.model
        state = [(tensor.data_ptr(), tensor._version) for tensor in self.model.state_dict().values()]
        if state != self._answers[0]:
            self._answers = (state, folded(self.model))
        return self._answers[1]

    def outputs(self, data: Any) -> np.ndarray:
        """Probabilities (N, classes) or values (N,), float64."""
        return self.task.outputs(self._answering(), self.head, self.encode(data).split)

    @typed
    def predict(self, data: Any, *, dates: str | None = None, missing: Names | None = None) -> pd.DataFrame:
        """What the model answers for each example: the columns `example`, `prediction`, and a probability `p(class)` per class.

        data: anything `papertrial.open` takes, or what `encode` returned.  dates, missing: how a table is read, as
        `papertrial.open` takes them.

        `prediction` is of the type that the labels were of in training; a model with a threshold answers by that. The index is
        that of a pandas frame or series, the names of the files of a folder, and else counts the rows from 0; rows that are left
        out are not in it. What is worth saying of the data, such as pixels of another range than in training, is in
        `attrs["notes"]`, and is logged as warnings of the logger "papertrial".

        Raises DataError for data that the model cannot read or without examples, Declined for a model that
        draws pictures.

            >>> import papertrial as pt
            >>> model = pt.fit("linear", "iris", progress=False)
            >>> answers = model.predict("iris")
            >>> list(answers.columns)
            ['example', 'prediction', 'p(setosa)', 'p(versicolor)', 'p(virginica)']
        """
        from papertrial.use.framed import framed

        given = self.encode(data, dates=dates, missing=missing)
        frame = framed(self.answers(given), given.opened.kind, data)
        frame.attrs["notes"] = _told(given, data)
        return frame

    def answers(self, given: Encoded) -> dict[str, np.ndarray]:
        """The columns of `predict` by name, of data that were encoded."""
        if offers(self.model).draw:
            raise Declined(
                f"{self.card['method']['name']} draws pictures and gives no answer for each example",
                f"type: papertrial generate {self.folder}",
            )
        if not given.split.examples:
            raise DataError(f"{given.opened.name} holds no examples", "give data with at least one")
        outputs, state = self.task.outputs(self._answering(), self.head, given.split), self.card["state"]
        answers = self.task.answers(outputs, state)
        if held := self.card.get("threshold"):
            answers["prediction"] = labels_of(state)[answered(outputs, state["class_names"], held)]
        return {"example": given.names, **answers}

    @typed
    def evaluate(
        self,
        data: Any,
        metric: str | None = None,
        group: str | None = None,
        strict: bool = False,
        *,
        dates: str | None = None,
        missing: Names | None = None,
    ) -> Evaluation:
        """Metrics on labelled data, with what was lost on the way and whether the model has met these rows before.

        data: anything `papertrial.open` takes, or what `encode` returned.  metric: one that is told too, and judged by.
        group: as `papertrial.open` takes it, by default what the model was trained with, where the data have it. Intervals
        are over groups, where rows of the data belong together.
        strict: count rows whose label the model does not know as wrong, in place of leaving them out.  dates, missing: as
        `papertrial.open` takes them. Raises DataError when the data carry no labels, Declined for `strict` where nothing is
        classified.

            >>> import papertrial as pt
            >>> model = pt.fit("linear", "iris", progress=False)
            >>> scores = model.evaluate("iris")
            >>> scores.metrics["accuracy"] > 0.8
            True
        """
        given = self.encode(self._grouped(data, group, dates=dates, missing=missing))
        split, opened = given.split, given.opened
        if split.examples == len(opened.groups):
            split = split.grouped(opened.groups)
        state = self.card["state"] if metric is None else {**self.card["state"], "metric": metric}
        held = task_offers(self.task)
        without = held.judged_without_labels
        if not without and not any(len(split[name]) for name in ("label", "target", "relevant") if name in split):
            wanted = state.get("target") or registry.kind(self.task.kind).labelled
            raise DataError(
                f"{opened.name} has no labels to evaluate on (looked for {wanted})",
                "use predict for data without labels",
            )
        if strict and (without or "label" not in split or "class_names" not in state):
            raise Declined(f"{self.task.name} has no labels to be strict about", "leave --strict out")
        if held.recall:
            held.recall(state, self.folder)
        bare = strange = np.zeros(split.examples, dtype=bool)
        left_out: dict[str, int] = {}
        lines: list[str] = []
        if not without:
            bare, strange, left_out, lines = without_label(given, state, strict)
        if bare.all() and not without and not strict:
            raise DataError(
                f"no label of {opened.name} is one of the classes of this model",
                f"it knows: {', '.join(state['class_names'][:10])}",
            )
        lines += self._met(split, opened)
        model = self._answering()
        if strict and strange.any():
            split = split.take(np.flatnonzero(~bare | strange))
            outputs, split, state = counted_wrong(self.task.outputs(model, self.head, split), split, state)
        else:
            split = split.take(np.flatnonzero(~bare)) if bare.any() else split
            outputs = self.task.outputs(model, self.head, split)
        scores = self.task.score(outputs, split, state)
        if threshold := self.card.get("threshold"):
            at = on_test(outputs, np.asarray(split["label"]), state["class_names"], threshold)
            scores = replace(scores, metrics=scores.metrics | at)
        left_out = {**given.left_out, **left_out}
        notes = tuple(dict.fromkeys([*given.notes, *lines]))
        return Evaluation(**vars(scores), rows=given.rows, left_out=left_out, notes=notes)

    def _met(self, split: Split, opened: Any) -> list[str]:
        """A line where the model was trained on this data, or on some of its rows."""
        lines = said_of_met(met(self.folder, self.task, split), self.task, split)
        if opened.fingerprint and opened.fingerprint == self.card["data"].get("fingerprint"):
            name = self.task.primary_for(self.card["state"])[0]
            held_out = self.card["metrics"].get(name)
            value = "" if held_out is None else f"; {name} on the rows held out then: {held_out:.3f}"
            lines.insert(0, f"this is the data it was trained on{value}")
        return lines

    def _grouped(self, data: Any, group: str | None, **how: Any) -> Any:
        """The data, opened with their groups where any are named."""
        from papertrial.data.belonging import NONE

        if isinstance(data, Encoded):
            return data
        if group is not None:
            return self.opened(data, group=group, **how)
        known = self.card["data"].get("options", {}).get("group")
        if known and known != NONE:
            with suppress(DataError):  # other data need not say which of their rows belong together
                return self.opened(data, group=known, **how)
        return self.opened(data, **how)

    @typed
    def embed(self, data: Any, *, dates: str | None = None, missing: Names | None = None) -> np.ndarray:
        """Features of each example, float32 (N, width).

        data: anything `papertrial.open` takes, or what `encode` returned.  dates, missing: as `papertrial.open` takes them.
        Raises DataError for data that the model cannot read, Declined for a model without features.

            >>> import papertrial as pt
            >>> model = pt.fit("rtdl:resnet", "iris", budget="1steps", progress=False)
            >>> len(model.embed("iris"))
            150
        """
        given = self.encode(data, dates=dates, missing=missing)
        _told(given, data)
        return self.task.embed(self._answering(), given.split)

    @typed
    def generate(self, prompts: Names = (), **options: Any) -> list[Any]:
        """Texts that go on from prompts, or answer them; or pictures, of which the prompts are captions.

        prompts: one or several; none begins a text from nothing.  options: of texts those of `use.generate.generate`, such as
        `length`, `temperature`, `samples` and `seed`; of pictures those of `use.pictures.generate`, such as `labels`, `samples`
        and `seed`. Raises Declined for a model that makes nothing, or takes no such option.

            >>> import papertrial as pt
            >>> model = pt.fit("mlp_mixer", "digits", recipe="tiny", budget="1steps", progress=False)
            >>> model.generate("Once upon a time")
            Traceback (most recent call last):
            papertrial.core.errors.Declined: mlp_mixer in runs/mlp_mixer-digits generates nothing: ...
        """
        from papertrial.use import generate, pictures

        drawing = offers(self.model).draw is not None
        make: Callable[..., list[Any]] = pictures.generate if drawing else generate.generate
        if strange := options.keys() - signature(make).parameters.keys():
            raise Declined(
                f"{self.card['method']['name']} takes no {min(strange)}",
                did_you_mean(min(strange), signature(make).parameters),
            )
        if drawing:
            return make(self, captions=[*several(prompts), *options.pop("captions", ())], **options)
        return make(self, prompts or "", **options)

    def export(
        self, to: str, out: Path | str | None = None, data: Any = None, *, replace: bool = False
    ) -> dict[str, Any]:
        """The model as one file, from raw inputs to answers: see `papertrial.export`, which takes the same arguments."""
        from papertrial.use.export import export

        return export(self, to, out, data, replace=replace)

    def eject(self, out: Path | str, data: Any = None) -> dict[str, Any]:
        """The model as a folder of plain PyTorch: see `papertrial.eject`, which takes the same arguments."""
        from papertrial.use.eject import eject

        return eject(self, out, data)

    def report(self, out: Path | str | None = None, *, data: bool = True, replace: bool = False) -> Any:
        """The page of the run: see `papertrial.report`, which takes the same arguments."""
        return load("papertrial.study.report:report")(self.folder, out, data=data, replace=replace)


def _told(given: Encoded, data: Any) -> list[str]:
    """The notes on data that were encoded just now, said; those of what was encoded before are whoever's who did it."""
    if given is not data:
        for line in given.notes:
            logging.getLogger("papertrial").warning("%s", line)
    return given.notes
