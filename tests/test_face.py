"""The Python face: what each command does is a function with its options, and each says what it takes, raises and gives."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
import subprocess
import sys
import types

import pytest
import typer

import papertrial as pt
from papertrial.app import cli

#: commands that are no function here, and what serves a program in their place
NO_FUNCTION = {
    "web": "papertrial.app.web:make_web",  # a server, which a program mounts
    "judge": "papertrial.study.people:boards",  # a server; what is made of the answers is a function
    "rasp": "papertrial.papers.rasp",  # a language with a prompt: the paper's own module
}
#: commands whose function is called otherwise
CALLED = {"list": "reading_list"}
#: options that mean something at a command line alone
OF_THE_TERMINAL = {"json", "quiet", "help"}
#: option -> the argument that serves, where it is called otherwise, or None with the reason
OTHERWISE = {
    "list": {"task": None, "shelf": None},  # a list is filtered where it stands: `row.paper.tasks`, `row.on_shelf`
    "look": {"every": None},  # all is there: the commands leaves out what is far from fitting
    "generate": {
        "prompt": "prompts",
        "file": None,  # `open(file).read()`
        "stdin": None,
        "label": "labels",
        "caption": "captions",
    },
    "compare": {"papers": "methods", "set_": "settings", "technique": "techniques"},
    "check": {"claim": "claims", "kind": "kinds", "evidence": "folder", "readme": None},  # of this repository
    "fit": {
        "paper": "method",
        "set_": "settings",
        "technique": "techniques",
        "from_": "comparison",
        "compile_": "settings",  # {"compile": True}
        "help_": None,
    },
    "estimate": {"paper": "method", "set_": "settings", "technique": "techniques"},
    "measure": {"set_": "settings"},
}


def _commands():
    return typer.main.get_command(cli.app).commands


def _function(name):
    return getattr(pt, CALLED.get(name, name))


def _taken(function):
    """The arguments of a function; those of `generate` are passed on to two others."""
    names = set(inspect.signature(function).parameters)
    if function is pt.generate:
        from papertrial.use import generate, pictures

        names |= set(inspect.signature(generate.generate).parameters) | set(
            inspect.signature(pictures.generate).parameters
        )
    return names


@pytest.mark.parametrize("name", _commands())
def test_each_command_has_its_function(name):
    if name in NO_FUNCTION:
        module, _, attribute = NO_FUNCTION[name].partition(":")
        assert not attribute or callable(getattr(importlib.import_module(module), attribute))
        assert name not in pt.__all__
        return
    function = _function(name)
    taken, otherwise = _taken(function), OTHERWISE.get(name, {})
    options = [entry.name for entry in _commands()[name].params if entry.name not in OF_THE_TERMINAL]
    lacking = [option for option in options if otherwise.get(option, option) not in taken and option not in otherwise]
    assert not lacking, f"papertrial.{name} takes no {lacking}"
    assert {served for served in otherwise.values() if served} <= taken
    assert set(otherwise) <= set(options), "an exception that is none any more"


PUBLIC = [name for name in pt.__all__ if isinstance(getattr(pt, name), types.FunctionType)]
#: what is no function: classes and modules, which say what they are
OTHERS = {"Artifact", "Budget", "PapertrialError", "papers", "sklearn"}


def test_all_names_are_known():
    assert {*PUBLIC} | OTHERS == {*pt.__all__}
    import papertrial.papers.rtdl  # which makes the package an attribute

    assert pt.papers()["rtdl"] and papertrial.papers.rtdl.PAPER.id == "rtdl"


@pytest.mark.parametrize("name", PUBLIC)
def test_each_function_says_all_of_it(name):
    """Every argument, what is raised, and an example."""
    function = getattr(pt, name)
    text = inspect.getdoc(function)
    for argument in inspect.signature(function).parameters:
        assert re.search(rf"\b{argument}\b", text), f"{name} does not say what {argument} is"
    if inspect.signature(function).parameters:
        assert "Raises" in text
    assert ">>> " in text


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL


def _examples():
    """The docstrings of the face, of an artifact's methods and of the estimators, by name."""
    found = {name: getattr(pt, name) for name in PUBLIC}
    found |= {f"Artifact.{name}": value for name, value in vars(pt.Artifact).items() if inspect.isfunction(value)}
    found["papers"] = pt.papers
    found |= {f"sklearn.{name}": getattr(pt.sklearn, name) for name in ("Classifier", "Regressor")}
    return {name: value for name, value in found.items() if ">>> " in (inspect.getdoc(value) or "")}


#: those that take seconds
DEAR = ("compare", "eject", "export")
EXAMPLES = [pytest.param(name, marks=pytest.mark.slow) if name in DEAR else name for name in _examples()]


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_example_runs(name, place, capsys):
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner(optionflags=FLAGS)
    test = parser.get_doctest(inspect.getdoc(_examples()[name]), {}, name, None, 0)
    assert test.examples
    runner.run(test, out=sys.stdout.write)
    assert runner.failures == 0, capsys.readouterr().out


def test_the_face_loads_nothing_heavy():
    code = (
        "import sys, papertrial as pt; dir(pt); assert not {'torch', 'numpy', 'pandas', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_unknown_names():
    with pytest.raises(AttributeError, match="no attribute 'predictt'"):
        pt.predictt  # noqa: B018
    assert set(dir(pt)) == set(pt.__all__)
