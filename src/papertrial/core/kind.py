"""What a kind of data is to papertrial: one record, which `look`, `fit`, `compare`, `report` and the battery read.

`KIND = Kind(...)` stands in the file where the kind lives, holds literals only, and is read with `ast`: nothing of the kind
is imported before its data are opened. What is code is named, as "package.module:function".
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Kind:
    """A kind of data. Only `name` and `data` are needed; what is left out, the kind does not offer.

    name: as in `Look.kind`, `Facts.kind` and the `kind` of a task.  data: the class, "module:Class", whose objects are
    like `papertrial.data.Data`.  words: within a sentence, such as "a table"; the name where it is empty.

    Recognising (see `papertrial.data.given.Given`):
    opens: "module:function" of (given) -> the data, or None where the source is of another kind.  order: kinds with the lower number are asked
    first.  reads: "module:function" of (table, given) -> the data that a table holds, or None where it is a table like
    others.  accepts: what it opens, for the message on what is not known, such as "a folder of .wav files".
    samples: small built-in data by name, "module:function" of () -> the data; the first is what the battery takes.
    labelled: what carries the labels of such data, for the message on data without.

    Methods:
    backbones: what objectives get where nobody names a backbone, each with the extra it needs ("" for none): the first whose
    extra is installed.
    pretrained: the architecture with weights from elsewhere that `--backbone pretrained` and `--host pretrained` name.
    small_backbone: what the battery puts under objectives, trained from scratch in seconds.
    unsuitable: a kind whose sample the tasks of this kind decline.
    tokenised: whether models see its texts through the tokeniser that is part of them.

    Showing and taking away:
    shown: "module:function" of (prepared) -> blocks of `papertrial.study.html_page` with a few training examples.
    meanings: "module:function" of (state, facts) -> a dict for each input of an exported model: name, dtype, shape behind
    the batch, and what its numbers mean.  made_up: "module:function" of (facts, rows) -> columns of made-up rows, on which
    an exported copy is compared where the data are not at hand.  Facts come as a dict, as in card.json.
    """

    name: str
    data: str
    words: str = ""
    opens: str = ""
    order: int = 0
    reads: str = ""
    accepts: str = ""
    samples: Mapping[str, str] = field(default_factory=dict)
    labelled: str = "labels"
    backbones: Mapping[str, str] = field(default_factory=dict)
    pretrained: str = ""
    small_backbone: str = ""
    unsuitable: str = ""
    tokenised: bool = False
    shown: str = ""
    meanings: str = ""
    made_up: str = ""

    def __post_init__(self) -> None:
        for name in ("data", "opens", "reads", "shown", "meanings", "made_up"):
            if getattr(self, name) and ":" not in getattr(self, name):
                raise ValueError(f"kind {self.name!r}: {name} is {getattr(self, name)!r}, not module:name")

    @property
    def sample(self) -> str:
        """The name of the built-in data that the battery takes; "" where there are none."""
        return next(iter(self.samples), "")

    def made(self, name: str) -> Any:
        """The class or function that the field `name` names, imported; None where it names none."""
        words = getattr(self, name)
        return load(words) if words else None


def load(words: str) -> Any:
    """What "module:name" names."""
    module, _, name = words.partition(":")
    return getattr(importlib.import_module(module), name)
