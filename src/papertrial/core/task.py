"""The contract between data and method. A task owns columns, split, metric, protocol, baselines and budget, and has a version.

Arrays travel as `Split`s: named numpy columns of equal length. Metrics of one run on the test examples are a `Scores`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from papertrial.core.budget import Budget
from papertrial.core.facts import Facts
from papertrial.core.html import page
from papertrial.core.wording import aligned, counted

_PIECE = 1 << 22  # values of a Ragged that are taken together


@dataclass(frozen=True)
class Supports:
    """Whether something is accepted, and why not. Truthy when it is.

    judges: False where methods may learn from such data but nothing can be judged on it.
    """

    ok: bool
    why: str = ""
    judges: bool = True

    def __bool__(self) -> bool:
        return self.ok


class Ragged:
    """Rows of different length in one array: texts as UTF-8 bytes, or token ids.

    values: (total,), row after row.  offsets: int64 (rows + 1,), where each begins.  pad: what fills the short rows of a
    batch.  Indexing with a slice or an array takes rows, with one number gives that row. Raises ValueError for offsets
    that do not fit the values.
    """

    def __init__(self, values: np.ndarray, offsets: np.ndarray, pad: int = 0) -> None:
        self.values, self.offsets, self.pad = values, np.asarray(offsets, dtype=np.int64), pad
        if self.offsets[0] < 0 or self.offsets[-1] > len(values) or (np.diff(self.offsets) < 0).any():
            raise ValueError(f"offsets from {self.offsets[0]} to {self.offsets[-1]} for {len(values)} values")

    @classmethod
    def of(cls, rows: Sequence[Any], dtype: Any = np.int32, pad: int = 0) -> Ragged:
        """From rows of numbers."""
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)])
        parts = [np.asarray(row, dtype=dtype) for row in rows]
        return cls(np.concatenate(parts) if parts else np.empty(0, dtype=dtype), offsets, pad)

    @classmethod
    def of_texts(cls, texts: Sequence[str]) -> Ragged:
        """Texts as uint8; a lone surrogate, which UTF-8 cannot hold, becomes a question mark."""
        encoded = [text.encode("utf-8", "replace") for text in texts]
        offsets = np.concatenate([[0], np.cumsum([len(text) for text in encoded], dtype=np.int64)])
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets)

    def texts(self) -> list[str]:
        """The rows as strings; a character that is cut in half becomes U+FFFD."""
        begin = int(self.offsets[0])
        held = self.values[begin : self.offsets[-1]].tobytes()
        ends = (self.offsets - begin).tolist()
        return [held[first:last].decode("utf-8", "replace") for first, last in itertools.pairwise(ends)]

    @property
    def lengths(self) -> np.ndarray:
        """int64 (rows,)."""
        return np.diff(self.offsets)

    @property
    def nbytes(self) -> int:
        return int(self.offsets[-1] - self.offsets[0]) * self.values.itemsize

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[row] for row in range(len(self)))

    def __getitem__(self, rows: Any) -> Any:
        if isinstance(rows, int | np.integer):
            row = range(len(self))[rows]
            return self.values[self.offsets[row] : self.offsets[row + 1]]
        if isinstance(rows, slice) and rows.step in (None, 1):
            first, last, _ = rows.indices(len(self))
            return Ragged(self.values, self.offsets[first : max(first, last) + 1], self.pad)  # a view
        taken = np.arange(len(self))[rows]
        lengths = self.lengths[taken]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        values = np.empty(offsets[-1], dtype=self.values.dtype)
        first = 0
        while first < len(taken):  # in pieces: the places of the values take eight bytes each
            last = max(first + 1, int(np.searchsorted(offsets, offsets[first] + _PIECE, side="right")) - 1)
            here = slice(offsets[first], offsets[last])
            begins = offsets[first:last] - self.offsets[taken[first:last]]
            values[here] = self.values[np.arange(here.start, here.stop) - np.repeat(begins, lengths[first:last])]
            first = last
        return Ragged(values, offsets, self.pad)

    def padded(self, longest: int | None = None) -> np.ndarray:
        """(rows, length of the longest row): short rows are filled with `pad` at the end, rows over `longest` are cut."""
        lengths = self.lengths if longest is None else np.minimum(self.lengths, longest)
        width = int(lengths.max(initial=0))
        filled = np.full((len(self), width), self.pad, dtype=self.values.dtype)
        here = np.arange(width) < lengths[:, None]
        filled[here] = self.values[(self.offsets[:-1, None] + np.arange(width))[here]]
        return filled


class Split(Mapping[str, Any]):
    """Named columns of equal length, numpy arrays or Ragged; memory-mapped arrays stay on disk until rows are taken."""

    def __init__(self, columns: Mapping[str, Any]) -> None:
        self.columns = dict(columns)
        lengths = {name: len(column) for name, column in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns of different length: {lengths}")
        self.examples = next(iter(lengths.values()), 0)

    def __getitem__(self, name: str) -> Any:
        return self.columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        """Number of columns, as for any mapping; `examples` is the number of rows."""
        return len(self.columns)

    def take(self, rows: np.ndarray | slice) -> Split:
        return Split({name: column[rows] for name, column in self.columns.items()})

    def grouped(self, groups: np.ndarray) -> Split:
        """The same with the column "group", int64 from 0, equal for rows of one group, where any belong together.

        groups: int64 (N,).
        """
        found, group = np.unique(groups, return_inverse=True)
        together = {} if len(found) == len(groups) else {"group": group.reshape(-1)}
        return self._of({**self.columns, **together})

    def _of(self, columns: Mapping[str, Any]) -> Split:
        return Split(columns)


@dataclass(frozen=True)
class Prepared:
    """Data made ready for one task and one seed.

    train, valid, test: the rows a method may learn from, choose with, and is judged on.  state: JSON-able facts that
    turn new raw data into the same columns (class names, categories, image size), kept in the artifact.  valid and test have
    the column "group" where rows are no chance of their own.
    notes: lines worth saying (what was moved, dropped, guessed).  origin: name and fingerprint of the data, the
    options of the split, and the numbers of its facts page, for the run's record and the artifact's card.
    """

    train: Split
    valid: Split
    test: Split
    facts: Facts
    state: dict[str, Any]
    notes: tuple[str, ...] = ()
    origin: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scores:
    """Metrics of one model. per_example: one number per test example whose mean is the primary metric; paired
    differences of these give the interval of a comparison.

    floors: what the best answer gets that does not look at the inputs; ceilings: what is as good as the truth, where that
    is known of these data.  groups: how many chances the examples are, where several are one; 0: each is its own.
    beside: the same as per_example of metrics that a verdict may have to speak of instead.  remarks: what is to be said before
    any figure, such as that all answers are the same.
    """

    metrics: dict[str, float]
    per_example: np.ndarray
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    floors: dict[str, float] = field(default_factory=dict)
    ceilings: dict[str, float] = field(default_factory=dict)
    groups: int = 0
    beside: dict[str, np.ndarray] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return "\n".join([*self.remarks, self._head(), *aligned(self._rows())])

    def _repr_html_(self) -> str:
        return page(self._head(), rows=self._rows(), lines=self.remarks)

    def _head(self) -> str:
        among = f" in {counted(self.groups, 'group')}" if self.groups else ""
        return f"{counted(len(self.per_example), 'example')}{among}, with 95 % intervals"

    def _rows(self) -> list[tuple[str, str, str]]:
        ends = {name: "[{:.3f}, {:.3f}]".format(*pair) for name, pair in self.intervals.items()}
        return [(name, f"{value:.3f}", ends.get(name, "")) for name, value in self.metrics.items()]


@dataclass(frozen=True)
class Stage:
    """One of the trainings of a system, whose `stages()` gives them in order.

    model: the torch module that is trained, with `loss(batch)`; what it shares with the system is what later stages use.
    share: of the budget of the run; those of all stages add up to 1.  rows: makes what this stage learns from out of the
    run's training rows, once the stages before are trained: rows, or a source that collects them anew between steps
    (`train/sources.py`); the rows as they are where it is None.  optim: fields of
    `Optim` that are other than the run's.
    """

    name: str
    model: Any
    share: float
    rows: Callable[[Split], Any] | None = None
    optim: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Estimator(Protocol):
    """A method that is not trained by gradient steps (boosted trees, linear models, majority).

    `fit` may keep its progress with `run`; one that resumes puts the energy of all sittings into the Meter it returns.
    `save` writes files into a folder without pickling, `load` reads them back.  optional `most_trials(budget)`: most
    configurations `fit` would try, None where only time limits them.
    """

    def fit(self, train: Split, valid: Split, facts: Facts, budget: Budget, seed: int, run: Any) -> Any: ...
    def outputs(self, split: Split) -> np.ndarray: ...
    def save(self, folder: Any) -> None: ...
    def load(self, folder: Any) -> Any: ...


class Task(Protocol):
    """What every file in `tasks/` offers as `TASK`.

    kind: of the data it takes, by the name of its `Kind` (see core/kind.py).  inputs: columns a model is called with, in
    order.  references: baselines a verdict may be measured against; floors: baselines shown as the floor.  budget: of one
    run, when the user names none.
    optional kinds: all the kinds of data it takes, where there is more than `kind`.
    optional bank: most training rows that `extra_scores` looks at, all where it is missing.
    optional judged_without_labels: whether `score` needs no labels, as in language modelling.  optional
    trains_without_labels: whether architectures learn there from data without labels.
    optional captions: whether it is made for images with captions.
    optional sheets(outputs, split): pictures uint8 (H, W, C) by file name that a run keeps to be looked at.  optional
    keep(state, folder) and recall(state, folder): files beside the weights that `score` needs where the data are not.  optional
    unseen(state, split) and cut(model, split): lines on what new rows hold that training did not, and on what a model does not
    read to its end.
    """

    name: str
    version: int
    kind: str
    inputs: tuple[str, ...]
    references: tuple[str, ...]
    floors: tuple[str, ...]
    budget: Budget

    def primary_for(self, state: dict[str, Any]) -> tuple[str, bool]:
        """The metric a verdict speaks of, and whether higher is better."""

    def supports(self, look: Any) -> Supports:
        """Whether data that looks like `look` fits, and why not."""

    def prepare(self, data: Any, seed: int = 0, **options: Any) -> Prepared:
        """Split and encode. The test rows depend on the data alone, never on `seed`, so that seeds are paired."""

    def encode(self, state: dict[str, Any], data: Any) -> Split:
        """New raw data as the columns a model was trained on; the target column is there only if the data has it.

        A row for each example in their order, or the column "row" that says which of them are taken."""

    def build(self, method: Any, config: Any, optim: Any, prepared: Prepared, backbone: Any = None) -> Any:
        """What is trained: an nn.Module with `loss(batch)`, or an Estimator. Raises Declined with the reason."""

    def training(self, model: Any, prepared: Prepared) -> Split:
        """The rows `model` may learn from: labelled ones for supervised models, all for objectives without labels.

        Before that, `model` takes what it needs from its inputs (`fit_inputs`: quantiles, a vocabulary)."""

    def finish(self, model: Any, prepared: Prepared, seed: int) -> dict[str, np.ndarray]:
        """What is fitted after training and kept in the artifact (a linear probe); empty for supervised models."""

    def outputs(self, model: Any, head: dict[str, np.ndarray], split: Split) -> np.ndarray:
        """Probabilities (N, classes) or values (N,), float64."""

    def embed(self, model: Any, split: Split) -> np.ndarray:
        """Features (N, width), float32. Raises Declined for a model without features."""

    def score(self, outputs: np.ndarray, split: Split, state: dict[str, Any]) -> Scores:
        """Metrics, each with a 95 % interval over test examples."""

    def extra_scores(self, model: Any, prepared: Prepared, seed: int) -> dict[str, float]:
        """Other metrics that no verdict rests on (k-NN, probes at other label fractions)."""

    def answers(self, outputs: np.ndarray, state: dict[str, Any]) -> dict[str, np.ndarray]:
        """Outputs as named columns a person reads: prediction, and a probability per class."""
