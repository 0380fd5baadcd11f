"""Methods for tables as scikit-learn's estimators, which go into its pipelines, searches and cross-validation.

    from papertrial.sklearn import Classifier

    model = Classifier("rtdl", budget="1m")
    cross_val_score(model, X, y)

What is fitted is plain state: parameters, classes, and the files of the trained model as bytes, so that pickle and joblib
write it, `clone` copies the parameters, and no folder is left behind.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, finalize

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data

from papertrial.core import registry
from papertrial.core.arguments import Names, check
from papertrial.core.budget import Budget
from papertrial.core.errors import WrongValue
from papertrial.core.request import Request

if TYPE_CHECKING:
    import pandas as pd

    from papertrial.data.tables import Table
    from papertrial.use.artifact import Artifact

#: files of a run that its model is not read from
_LOGS = (".lock", "metrics.jsonl", "trials.jsonl", "result.json", "per_example.npy", "environment.json", "config.json")

#: by estimator, its `files_` and the model that was read from them: no part of the estimator, which is plain state
_READ: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


class _OfTable(BaseEstimator):
    """What the two have in common."""

    _kind = ""

    def __init__(
        self,
        method: str = "rtdl",
        *,
        budget: Budget | str | None = None,
        settings: Mapping[str, Any] | None = None,
        recipe: str = "base",
        techniques: Names = (),
        host: str | None = None,
        metric: str | None = None,
        validation_fraction: float = 0.2,
        random_state: Any = 0,
        progress: bool = False,
    ) -> None:
        self.method, self.budget, self.settings, self.recipe = method, budget, settings, recipe
        self.techniques, self.host, self.metric = techniques, host, metric
        self.validation_fraction, self.random_state, self.progress = validation_fraction, random_state, progress

    # -- fitting ------------------------------------------------------------------------------------------------------

    def _fit(self, X: Any, target: np.ndarray) -> None:
        """target: (N,) texts, which are classes, or numbers."""
        from papertrial.data.base import WHOLE
        from papertrial.tasks.tabular import drawn
        from papertrial.train.randomness import own_randomness
        from papertrial.use.choose import prepare
        from papertrial.use.fit import fit_prepared

        check(_OfTable.__init__, (self,), self.get_params(deep=False))
        if not 0 < self.validation_fraction < 1:
            raise WrongValue(
                f"validation_fraction is {self.validation_fraction}", "give a share between 0 and 1, such as 0.2"
            )
        seed = self.random_state
        if not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(2**31 - 1)
        method, task = registry.method(self.method), registry.task("tabular")
        table = self._table(X, target)
        strata = task.strata(table) if self._kind == "classes" else np.zeros(len(table), dtype=np.int64)
        held = drawn(strata, table.groups, self.validation_fraction, np.random.default_rng([int(seed), 0]))
        request = Request(
            task=task.name, budget=Budget.of(self.budget), settings=self.settings or {}, recipe=self.recipe, metric=self.metric,
            techniques=self.techniques, host=self.host, seed=int(seed), progress=self.progress,
        )  # fmt: skip
        prepared = prepare(task, table.parted(np.where(held, 1, WHOLE)), request.seed, **request.options)
        with own_randomness(), tempfile.TemporaryDirectory(prefix="papertrial-") as folder:
            run = Path(folder) / "run"
            fit_prepared(method, task, prepared, out=run, request=request)
            self.files_ = {
                path.relative_to(run).as_posix(): path.read_bytes()
                for path in sorted(run.rglob("*"))
                if path.is_file() and path.name not in _LOGS and path.parent.name != "tensorboard"
            }

    def _table(self, X: Any, target: np.ndarray | None = None) -> Table:
        from papertrial.data.belonging import NONE
        from papertrial.data.tables import Table

        frame = self._frame(X)
        if target is None:
            return Table.from_frame(frame)
        name = "target"
        while name in frame:
            name += "_"
        table = Table.from_frame(frame.assign(**{name: target}), name)
        table.belong(NONE, None)  # every column is an input
        table.target_kind = "regression" if self._kind == "values" else table.target_kind
        return table

    def _frame(self, X: Any) -> pd.DataFrame:
        """X with the names of columns that it had in `fit`, rows called from 0."""
        import pandas as pd

        names = getattr(self, "feature_names_in_", [f"c{place}" for place in range(self.n_features_in_)])
        frame = X if isinstance(X, pd.DataFrame) else pd.DataFrame(X)
        return frame.set_axis(list(names), axis=1).reset_index(drop=True)

    def _checked(self, X: Any, reset: bool) -> Any:
        """A frame as it is, since its columns may hold words and dates; else an array of numbers."""
        import pandas as pd

        if isinstance(X, pd.DataFrame) and X.shape[0] and X.shape[1]:
            validate_data(self, X, reset=reset, skip_check_array=True)
            return X
        return validate_data(self, X, reset=reset, ensure_all_finite="allow-nan", ensure_min_samples=2 if reset else 1)

    # -- what is fitted -------------------------------------------------------------------------------------------------

    @property
    def artifact_(self) -> Artifact:
        """The trained model, which can be asked, exported and ejected; its folder goes with it."""
        from papertrial.use.artifact import Artifact

        check_is_fitted(self)
        files, artifact = _READ.get(self, (None, None))
        if files is not self.files_:
            place = Path(tempfile.mkdtemp(prefix="papertrial-"))
            try:
                for name, content in self.files_.items():
                    (place / name).parent.mkdir(parents=True, exist_ok=True)
                    (place / name).write_bytes(content)
                artifact = Artifact.load(place)
            except BaseException:
                shutil.rmtree(place, ignore_errors=True)
                raise
            finalize(artifact, shutil.rmtree, place, ignore_errors=True)
            _READ[self] = self.files_, artifact
        return artifact

    def _outputs(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return self.artifact_.outputs(self._table(self._checked(X, reset=False)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


_PARAMETERS = """
    method: a paper or baseline for tables, such as "rtdl", "rtdl:resnet" or "lightgbm".  budget: of one fit, such as "30s" or
    "500steps"; by default that of the recipe or of the task.  settings: by name, as `papertrial.fit` takes them.  recipe: paper,
    base or tiny.  techniques: such as "agc".  host: the model that a technique is tried on.  metric: what is chosen by, by
    default what the data call for.  validation_fraction: share of the rows of `fit` that are not learned from, but choose
    settings and say when to stop; equal rows stay together.  random_state: a seed, a RandomState or None.  progress: show
    a bar."""


class Classifier(ClassifierMixin, _OfTable):
    __doc__ = f"""A method for tables that tells classes apart, as a classifier of scikit-learn.
{_PARAMETERS}

    After `fit`: `classes_`, in the type of y; `n_features_in_`, and `feature_names_in_` of frames; `artifact_`, the trained
    model; `files_`, its files by name. X is an array of numbers, NaN where there is none, or a pandas frame, of which columns
    may hold words, booleans and dates.

    Raises PapertrialError, which is also a ValueError or a TypeError where the argument is wrong.

        >>> from papertrial.sklearn import Classifier
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.model_selection import cross_val_score
        >>> bool(cross_val_score(Classifier("linear"), *load_iris(return_X_y=True)).mean() > 0.9)
        True
    """

    _kind = "classes"

    def fit(self, X: Any, y: Any) -> Classifier:
        """X: (N, columns), an array or a frame.  y: (N,), numbers, booleans or texts, at least two different ones. Raises
        ValueError for anything else, DataError for too few rows, Declined for a method that is not for tables."""
        X, y = _pair(self, X, y)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise WrongValue(f"there is one class only ({self.classes_[0]})", "give rows of two classes at least")
        # as texts, which are classes however many there are, and whose order is that of the classes
        self._fit(X, np.array([f"class {code:09d}" for code in codes.tolist()], dtype=object))
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """(N, classes) float64, in the order of `classes_`. X: as in `fit`."""
        return self._outputs(X)

    def predict(self, X: Any) -> np.ndarray:
        """(N,): the likeliest class of each row, in the type of y. X: as in `fit`."""
        places = self._outputs(X).argmax(axis=1)
        return self.classes_[places]


class Regressor(RegressorMixin, _OfTable):
    __doc__ = f"""A method for tables that predicts a number, as a regressor of scikit-learn.
{_PARAMETERS}

    After `fit`: `n_features_in_`, and `feature_names_in_` of frames; `artifact_`, the trained model; `files_`, its files by
    name. X is an array of numbers, NaN where there is none, or a pandas frame, of which columns may hold words, booleans and dates.

    Raises PapertrialError, which is also a ValueError or a TypeError where the argument is wrong.

        >>> from papertrial.sklearn import Regressor
        >>> from sklearn.datasets import load_diabetes
        >>> X, y = load_diabetes(return_X_y=True)
        >>> bool(Regressor("linear").fit(X, y).score(X, y) > 0.4)
        True
    """

    _kind = "values"

    def fit(self, X: Any, y: Any) -> Regressor:
        """X: (N, columns), an array or a frame.  y: (N,) numbers. Raises ValueError for anything else, DataError for too few
        rows, Declined for a method that is not for tables."""
        X, y = _pair(self, X, y)
        self._fit(X, np.asarray(y, dtype=np.float64))
        return self

    def predict(self, X: Any) -> np.ndarray:
        """(N,) float64. X: as in `fit`."""
        return self._outputs(X)


def _pair(estimator: _OfTable, X: Any, y: Any) -> tuple[Any, np.ndarray]:
    """X and y, checked as scikit-learn's own estimators check them."""
    import pandas as pd

    if y is None:
        raise WrongValue(
            f"{type(estimator).__name__} requires y to be passed, but the target y is None", "call fit(X, y)"
        )
    if isinstance(X, pd.DataFrame):
        X, y = estimator._checked(X, reset=True), column_or_1d(y, warn=True)
        check_consistent_length(X, y)
        return X, y
    return validate_data(
        estimator, X, y, ensure_all_finite="allow-nan", ensure_min_samples=2, y_numeric=estimator._kind == "values"
    )
