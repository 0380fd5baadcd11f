"""Imports other people's implementations to compare ours with; nothing of theirs is needed otherwise."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
import warnings
from contextlib import contextmanager
from typing import ClassVar

import pytest


class _AnyAttribute(type):
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return f"{cls.__name__}.{name}"


class _Stub(types.ModuleType):
    """A module in which every name is an empty class."""

    __path__: ClassVar[list[str]] = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _AnyAttribute(name, (), {})


class _StubFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec):
        return _Stub(spec.name)

    def exec_module(self, module):
        pass


@contextmanager
def _stubbed_torchvision():
    """An empty torchvision for the time of an import; what was there before is there again afterwards."""

    def loaded():
        return [name for name in sys.modules if name.partition(".")[0] == "torchvision"]

    before = {name: sys.modules.pop(name) for name in loaded()}
    finder = _StubFinder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in loaded():
            del sys.modules[name]
        sys.modules.update(before)


def timm(module: str = "timm"):
    """A module of timm; skips the test where timm is not installed. timm imports torchvision for parts not used here."""
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed, so there is nothing to compare with")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if importlib.util.find_spec("torchvision") is not None:
            return importlib.import_module(module)
        with _stubbed_torchvision():
            return importlib.import_module(module)
