"""What a model and a task offer is one record, and a member of the wrong sort is told at once."""

from __future__ import annotations

import dataclasses
import math
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from papertrial.core import registry
from papertrial.core.errors import PapertrialError
from papertrial.core.offers import Offers, TaskOffers, offers, task_offers

ROOT = Path(__file__).parents[2]


class Painter:
    draws = ("labels", "steps")
    longest = None
    width = 3
    inputs = ["image"]  # noqa: RUF012 - a list will do

    def draw(self, seeds, **options):
        return seeds

    def no_decay(self):
        return {"bias", "norm.weight"}


def test_what_is_there_and_what_is_not():
    held = offers(Painter())
    assert held.draw([1, 2]) == [1, 2] and held.draws == {"labels", "steps"} and held.inputs == ("image",)
    assert held.draws | {"strength"} == {"labels", "steps", "strength"}
    assert held.width == 3 and held.longest is None and held.encoder is None and held.beams == 1
    assert held.exempt("encoder") == {"encoder.bias", "encoder.norm.weight"} and not held.writes
    assert offers(None) == offers(object()) == Offers() and Offers().exempt("encoder") == set()
    writer = SimpleNamespace(tokeniser=object(), next=print, cache=print)
    assert offers(writer).writes
    del writer.cache
    assert not offers(writer).writes
    with pytest.raises(dataclasses.FrozenInstanceError):
        held.width = 4


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("draws", "labels", "a tuple or a set of names"),
        ("draws", (1, 2), "a tuple or a set of names"),
        ("draw", 3, "a method"),
        ("width", 3.5, "a whole number"),
        ("longest", True, "a whole number"),
        ("paired", "yes", "True or False"),
        ("lengths", (64, 0.5), "a tuple of whole numbers"),
        ("arguments", ("width",), "a mapping of names"),
        ("tokeniser", "bytes", "a part of the model"),
        ("fit_inputs", {}, "a method"),
    ],
)
def test_a_member_of_the_wrong_sort_is_told(name, value, wanted):
    with pytest.raises(
        PapertrialError, match=rf"SimpleNamespace\.{name} is .*, not {wanted}; core/offers\.py says"
    ) as told:
        offers(SimpleNamespace(**{name: value}))
    assert "docs/architecture.md" in told.value.fix


def test_a_task_has_defaults_in_one_place():
    plain = task_offers(SimpleNamespace(kind="text"))
    assert plain == TaskOffers(kinds=("text",)) and plain.bank == math.inf and plain.keep is None
    both = task_offers(SimpleNamespace(kind="text", kinds=("text", "pairs"), bank=10, captions=True))
    assert both == TaskOffers(kinds=("text", "pairs"), bank=10, captions=True)
    with pytest.raises(
        PapertrialError, match=r"judged_without_labels is 'no', not True or False.*what a task may offer"
    ):
        task_offers(SimpleNamespace(kind="text", judged_without_labels="no"))


def test_every_task_and_what_it_offers():
    found = {name: task_offers(task) for name, task in registry.tasks().items()}
    assert all(task.kind in found[name].kinds for name, task in registry.tasks().items())
    assert found["image_text_generation"].captions and not found["image_generation"].captions
    assert found["language_modeling"].judged_without_labels and found["text_to_text"].trains_without_labels
    assert found["image_generation"].keep and found["image_generation"].recall and found["image_generation"].sheets
    assert found["image_representation"].bank == 10_000


@pytest.mark.parametrize("record", [Offers, TaskOffers])
def test_every_member_is_documented_where_it_is_declared(record):
    words = record.__doc__.replace("(", " ").replace(":", " ").replace(",", " ").replace(".", " ").split()
    assert {entry.name for entry in dataclasses.fields(record)} <= set(words)


def test_the_table_of_the_architecture_names_every_member_of_a_model():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text.partition("## One method file")[2].partition("\n## ")[0]
    missing = [entry.name for entry in dataclasses.fields(Offers) if f"`{entry.name}" not in section]
    assert not missing


#: files that ask other things by these names: the record itself, and models from elsewhere
OTHERS = {"core/offers.py", "nn/adapt.py", "study/model_source.py"}


def test_nobody_else_asks_by_name():
    """Outside of the record, `hasattr` and `getattr` ask what libraries and modules have, never a model."""
    names = "|".join(entry.name for record in (Offers, TaskOffers) for entry in dataclasses.fields(record))
    asked = re.compile(rf'\b(?:has|get)attr\([^"]*, "({names})"')
    package = ROOT / "src" / "papertrial"
    for file in package.rglob("*.py"):
        place = file.relative_to(package).as_posix()
        if place not in OTHERS and not place.startswith("papers/"):  # a paper knows its own parts
            assert not asked.findall(file.read_text(encoding="utf-8")), file
    assert asked.findall('getattr(getattr(model, "encoder", None), "longest", None)') == ["encoder"]


def test_asking_imports_no_torch():
    code = "import sys, papertrial.core.offers as o; o.offers(1); raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
