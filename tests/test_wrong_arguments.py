"""Whatever a program gets wrong ends in one line of papertrial's, which is a TypeError or a ValueError where it is one."""

from __future__ import annotations

import inspect
import io
import os
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

import papertrial as pt
from papertrial.core.arguments import check
from papertrial.core.errors import DataError, PapertrialError, WrongType, WrongValue

X = np.random.default_rng(0).normal(size=(60, 4))
Y = (X[:, 0] > 0).astype(int)
FRAME = pd.DataFrame(X, columns=list("abcd")).assign(y=Y)
IMAGES, LABELS = np.arange(40 * 64, dtype=np.uint8).reshape(40, 8, 8), np.arange(40) % 2


class Items(torch.utils.data.Dataset):
    """length: an int, or what is raised."""

    def __init__(self, length, item):
        self.length, self.item = length, item

    def __len__(self):
        if isinstance(self.length, Exception):
            raise self.length
        return self.length

    def __getitem__(self, row):
        return self.item(row)


def raising(row):
    if row == 7:
        raise RuntimeError("the disk\nis gone")
    return torch.zeros(1, 8, 8), row % 2


def short(row):
    if row >= 20:
        raise IndexError("no more")
    return torch.zeros(1, 8, 8), row % 2


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    FRAME.to_csv("t.csv", index=False)
    return tmp_path


def refused(call, kind, words):
    """One line that names what is wrong, and nothing left behind."""
    before = sorted(os.listdir("."))
    with pytest.raises(PapertrialError) as told:
        call()
    assert isinstance(told.value, kind)
    assert words in str(told.value) and "\n" not in str(told.value)
    assert told.value.fix or "it takes" in told.value.problem
    assert sorted(os.listdir(".")) == before


PUBLIC = {name: getattr(pt, name) for name in pt.__all__ if isinstance(getattr(pt, name), types.FunctionType)}
ARGUMENTS = [
    (name, argument)
    for name, function in PUBLIC.items()
    for argument, entry in inspect.signature(function).parameters.items()
    if entry.kind is not entry.VAR_KEYWORD and entry.annotation not in ("Any", inspect.Parameter.empty)
]


class Strange:
    """Nothing takes one."""


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_each_argument_of_each_function_has_a_type(name, argument):
    """Given the right values for all that must be given, and something strange for one."""
    function = PUBLIC[name]
    needed = [entry.name for entry in inspect.signature(function).parameters.values() if entry.default is entry.empty]
    given = {one: "t.csv" for one in needed if one not in ("options", argument)}
    refused(lambda: function(**{**given, argument: Strange()}), WrongType, f"{argument} is <")


@pytest.mark.parametrize("name", [name for name, function in PUBLIC.items() if inspect.signature(function).parameters])
def test_an_argument_that_there_is_none_of(name):
    if name == "generate":  # whose options are those of the model
        return
    refused(lambda: PUBLIC[name](sead=3), WrongType, "takes no argument 'sead'")
    refused(lambda: PUBLIC[name](*["x"] * 40), WrongType, "too many")


fit = pt.fit
CASES = {
    "budget": (lambda: fit("linear", (X, Y), budget=20), WrongType, "budget is 20, of the type int; give a budget such as '90s'"),
    "negative seed": (lambda: fit("linear", (X, Y), seed=-1), WrongValue, "seed is -1, but it takes"),
    "huge seed": (lambda: fit("linear", (X, Y), seed=10**23), WrongValue, "seed is 1"),
    "True as a seed": (lambda: fit("linear", (X, Y), seed=True), WrongType, "seed is True"),
    "method": (lambda: fit(["linear"], (X, Y)), WrongType, "method is ['linear'], of the type list; give a text"),
    "settings": (lambda: fit("linear", (X, Y), settings=["lr=1"]), WrongType, "give a mapping such as {'lr': 0.01}"),
    "names": (lambda: fit("linear", (X, Y), settings={1: 2}), WrongType, "settings is {1: 2}"),
    "nothing": (lambda: fit("linear", None), DataError, "of the type NoneType are not known"),
    "a generator": (lambda: fit("linear", (row for row in X)), DataError, "of the type generator are not known"),
    "one-hot": (lambda: fit("linear", (X, np.eye(2)[Y])), DataError, "one-hot, of shape (60, 2); give class numbers"),
    "one-hot images": (lambda: fit("majority", (IMAGES, np.eye(2)[LABELS])), DataError, "one-hot"),
    "bytes in memory": (lambda: fit("linear", io.BytesIO(b"a,b\n1,2")), DataError, "an open file (BytesIO)"),
    "sparse": (lambda: fit("linear", (scipy.sparse.csr_matrix(X), Y)), DataError, "X.toarray()"),
    "MultiIndex": (
        lambda: fit("linear", FRAME.set_axis(pd.MultiIndex.from_tuples([("x", c) for c in FRAME]), axis=1)),
        DataError,
        "MultiIndex of 2 levels; name each by one text",
    ),
    "an item raises": (lambda: fit("majority", Items(40, raising)), DataError, "item 7 of Items cannot be read (RuntimeError: the disk)"),
    "a wrong length": (lambda: fit("majority", Items(40, short)), DataError, "says that it has 40 items, and has no item 20"),
    "a length that raises": (lambda: fit("majority", Items(OSError("x"), short)), DataError, "has no length (OSError: x)"),
    "a negative length": (lambda: fit("majority", Items(-3, short)), DataError, "has no length"),
    "no items": (lambda: fit("majority", Items(0, short)), DataError, "is empty"),
    "one-hot items": (
        lambda: fit("majority", Items(20, lambda row: (torch.zeros(1, 8, 8), torch.eye(2)[row % 2]))),
        DataError,
        "the label of item 0 of Items has the shape (2,); give its class number: y.argmax()",
    ),
    "no grad": (lambda: torch.no_grad()(fit)("mlp_mixer", (IMAGES, LABELS)), WrongValue, "torch.no_grad(), where nothing"),
    "inference": (lambda: torch.inference_mode()(fit)("mlp_mixer", (IMAGES, LABELS)), WrongValue, "torch.inference_mode()"),
    "compare": (lambda: torch.no_grad()(pt.compare)("linear", (X, Y), echo=None), WrongValue, "methods are compared under"),
    "estimate": (lambda: torch.no_grad()(pt.estimate)("linear", (X, Y)), WrongValue, "under torch.no_grad()"),
    "seeds": (lambda: pt.estimate("linear", (X, Y), seeds=0), WrongValue, "seeds is 0, but it takes"),
    "cores": (lambda: pt.compare("linear", (X, Y), cores=0), WrongValue, "cores is 0"),
    "no run": (lambda: pt.predict("nowhere", X), PapertrialError, "nowhere holds no trained model"),
    "no argument": (lambda: pt.fit("linear"), WrongType, "missing a required argument: 'data'; it is called as fit(method, data, ...)"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_one_line(name):
    refused(*CASES[name])


@pytest.mark.parametrize("mode", ["r", "rb"])
def test_an_open_file(mode):
    with open("t.csv", mode) as stream:
        refused(lambda: fit("linear", stream), DataError, "; give the path of the file")


def test_a_model_is_asked_wrongly():
    made = fit("linear", (X, Y), progress=False)
    refused(lambda: made.predict(X, missing=3), WrongType, "missing is 3")
    refused(lambda: made.evaluate((X, Y), metric=3), WrongType, "metric is 3")
    refused(lambda: made.generate(3), WrongType, "prompts is 3")
    refused(lambda: made.generate("x", lenght=3), PapertrialError, "takes no lenght; did you mean 'length'?")
    refused(lambda: made.predict(X[:, :3]), DataError, "lacks column 'c3'")
    with torch.inference_mode():
        assert len(made.predict(X)) == len(X)


def test_what_is_right_is_taken():
    """numpy's numbers are numbers, paths and texts are paths, and columns may be called by numbers."""
    made = fit(
        "linear", pd.DataFrame(np.c_[X, Y]), target=4, seed=np.int64(3), out=Path("run"), progress=np.bool_(False)
    )
    assert made.card["state"]["target"] == "4"
    indexed = FRAME.set_axis(pd.MultiIndex.from_tuples([(1, row) for row in range(60)]), axis=0)
    answers = fit("linear", indexed, target="y", progress=False).predict(indexed)
    assert answers.index.equals(indexed.index)


def test_annotations_as_people_write_them():
    def called(a: int | None, b: str = "", *rest: int, c: float = 0.0):
        return None

    check(called, (None,), {})
    check(called, (np.int32(1), np.str_("x")), {"c": 3})
    for args, words in (((True,), "a is True"), ((1, 2), "b is 2"), ((1.0,), "a is 1.0")):
        with pytest.raises(WrongType, match=words):
            check(called, args, {})
