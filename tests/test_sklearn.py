"""The estimators for scikit-learn pass its own checks, and go where its estimators go."""

from __future__ import annotations

import io
import os
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from papertrial.core.errors import PapertrialError, WrongType, WrongValue
from papertrial.sklearn import Classifier, Regressor

#: checks that do not apply, and why
SKIPPED = {"check_array_api_input": "scikit-learn runs it only where SCIPY_ARRAY_API is set"}
X, Y = load_iris(return_X_y=True)
ESTIMATORS = [
    Classifier("linear"),
    Regressor("linear"),
    pytest.param(Classifier("rtdl:mlp", budget="100steps"), marks=pytest.mark.slow),
    pytest.param(Regressor("rtdl:mlp", budget="100steps"), marks=pytest.mark.slow),
]


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_scikit_learns_own_checks(estimator):
    results = check_estimator(estimator, on_skip=None, on_fail=None)
    failed = {found["check_name"]: repr(found["exception"]) for found in results if found["status"] == "failed"}
    assert not failed
    skipped = {found["check_name"] for found in results if found["status"] == "skipped"}
    assert skipped <= SKIPPED.keys()
    assert sum(found["status"] == "passed" for found in results) >= 45


def test_in_pipelines_searches_and_cross_validation():
    assert cross_val_score(make_pipeline(StandardScaler(), Classifier("linear")), X, Y, cv=3).mean() > 0.9
    search = GridSearchCV(Classifier("linear"), {"method": ["linear", "majority"]}, cv=2).fit(X, Y)
    assert search.best_params_ == {"method": "linear"} and search.predict(X[:3]).tolist() == [0, 0, 0]
    values, target = load_diabetes(return_X_y=True)
    assert cross_val_score(Regressor("linear"), values, target, cv=3).mean() > 0.3


@pytest.mark.slow
def test_in_processes_of_joblib():
    """Each gets a copy, and gives one back: nothing of a model lies outside of it."""
    fitted = joblib.Parallel(n_jobs=2)(joblib.delayed(Classifier("linear").fit)(X, Y) for _ in range(2))
    assert (fitted[0].predict(X) == fitted[1].predict(X)).all()


@pytest.mark.parametrize(
    "labels",
    [Y, Y + 5, Y == 1, np.array(["setosa", "versicolor", "virginica"])[Y], Y.astype(float), -Y, Y * 10],
    ids=["codes", "from 5", "booleans", "words", "floats", "negative", "gaps"],
)
def test_labels_keep_their_type_and_order(labels):
    model = Classifier("linear").fit(X, labels)
    answers = model.predict(X)
    assert answers.dtype == labels.dtype and (answers == labels).mean() > (0.6 if labels.dtype == bool else 0.9)
    assert (model.classes_ == np.unique(labels)).all()
    probabilities = model.predict_proba(X)
    assert probabilities.shape == (150, len(model.classes_)) and np.allclose(probabilities.sum(1), 1)
    assert (model.classes_[probabilities.argmax(1)] == answers).all()


def test_many_classes_stay_in_order():
    """Twelve, of which the tenth stands behind the second as text."""
    draw = np.random.default_rng(0)
    labels = np.repeat(np.arange(12), 15)
    centres = draw.normal(scale=20, size=(12, 3))
    model = Classifier("linear").fit(centres[labels] + draw.normal(size=(180, 3)), labels)
    assert (model.predict(centres) == np.arange(12)).mean() > 0.9


def test_few_numbers_are_a_regression_all_the_same():
    target = (X[:, 0] > 5.8).astype(float)
    answers = Regressor("linear").fit(X, target).predict(X)
    assert len(np.unique(answers)) > 10


def test_state_is_plain(tmp_path):
    model = Classifier("linear").fit(X, Y)
    before = model.predict_proba(X)
    again = pickle.loads(pickle.dumps(model))
    joblib.dump(model, tmp_path / "model.joblib")
    for other in (again, joblib.load(tmp_path / "model.joblib")):
        assert (other.predict_proba(X) == before).all()
    assert {type(value) for value in model.files_.values()} == {bytes} and "card.json" in model.files_

    class Plain(pickle.Unpickler):
        def find_class(self, module, name):
            assert module.partition(".")[0] in ("papertrial", "numpy", "_codecs"), (module, name)
            assert module.startswith(("papertrial.sklearn", "numpy", "_codecs"))
            return super().find_class(module, name)

    assert Plain(io.BytesIO(pickle.dumps(model))).load().predict(X[:2]).tolist() == [0, 0]


def test_a_copy_knows_the_parameters_alone():
    model = Classifier("linear", settings={}, random_state=3).fit(X, Y)
    copied = clone(model)
    assert copied.get_params() == model.get_params()
    with pytest.raises(NotFittedError):
        copied.predict(X)


def test_another_fit_replaces_the_model():
    model = Classifier("linear").fit(X, Y)
    first = model.predict(X)
    assert (model.fit(X, 2 - Y).predict(X) == 2 - first).mean() > 0.9


def test_columns_of_a_frame_may_hold_anything():
    draw = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"size": draw.normal(size=120), "sort": draw.choice(["a", "b", None], 120), "target": draw.normal(size=120)}
    )
    labels = pd.Series(np.where(frame["sort"] == "a", "yes", "no"), index=frame.index)
    model = Classifier("linear").fit(frame, labels)
    assert model.feature_names_in_.tolist() == ["size", "sort", "target"]
    shuffled = frame.sample(frac=1, random_state=0)
    assert (model.predict(shuffled) == labels[shuffled.index]).mean() > 0.9
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame[["sort", "size", "target"]])


def test_the_model_inside_can_be_taken_out(tmp_path):
    model = Classifier("linear").fit(pd.DataFrame(X, columns=list("abcd")), Y)
    folder = model.artifact_.folder
    assert model.artifact_.export("torch", out=tmp_path / "model.pt2")["check"]["largest_difference"] < 1e-4
    assert folder.exists()
    del model
    assert not folder.exists()


def test_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    Classifier("linear").fit(X, Y).predict(X)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("wrong", "kind", "words"),
    [
        ({"budget": 20}, WrongType, "budget is 20"),
        ({"method": "rtdll"}, PapertrialError, "did you mean"),
        ({"method": "barlow_twins"}, PapertrialError, "could learn with on a table"),
        ({"validation_fraction": 1.0}, WrongValue, "validation_fraction is 1.0"),
        ({"validation_fraction": "x"}, WrongType, "validation_fraction is 'x'"),
        ({"settings": {"lr": 3}}, PapertrialError, "lr"),
    ],
    ids=str,
)
def test_wrong_parameters_are_said_by_fit(wrong, kind, words):
    model = Classifier(**{"method": "linear", **wrong})
    with pytest.raises(kind, match=words):
        model.fit(X, Y)


def test_wrong_data_are_said_as_scikit_learn_says_them():
    for labels, words in (
        (np.zeros(150), "one class"),
        (np.linspace(0, 1, 150), "Unknown label type"),
        (Y[:5], "inconsistent"),
    ):
        with pytest.raises(ValueError, match=words):
            Classifier("linear").fit(X, labels)
    with pytest.raises(ValueError, match="infinity"):
        Classifier("linear").fit(np.where(X > 5, np.inf, X), Y)
    missing = np.where(X > 6.5, np.nan, X)
    assert Classifier("linear").fit(missing, Y).score(missing, Y) > 0.8
