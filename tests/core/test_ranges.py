"""Ranges of settings: the notation, what is in one, and the one line that refuses the rest."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import pytest

from papertrial.core.errors import PapertrialError
from papertrial.core.facts import Facts
from papertrial.core.ranges import NUMBERS, Range, require_numbers
from papertrial.core.recipe import Optim, checked, known_settings, ranges, resolve, sourced
from papertrial.core.request import Request


@checked
@dataclass(frozen=True)
class Config:
    width: int = sourced(64, "table 1", "[2, 4096], multiple of 2 heads")
    heads: int = sourced(4, "table 1", "[1, 64]")
    patch: int = sourced(4, "table 1", "[1, 64], divides image")
    share: float = sourced(0.5, "sec. 2", "(0, 1)")
    off: float = sourced(0.0, "sec. 2", "0 or [0.5, 2]")
    rate: float = sourced(1e-3, "sec. 2", "[1e-9, 10]")
    kind: str = sourced("a", "sec. 3", "a | b")
    most: int = sourced(0, "sec. 3", "[0, 99], at most heads if kind=b")
    depths: tuple[int, ...] = sourced((1, 2), "sec. 3", "1 to 4 of [1, 9]")
    widths: tuple[int, ...] = sourced((8, 8), "sec. 3", "1 to 4 of [1, 99], as many as depths")
    flag: bool = sourced(True, "sec. 3")
    limit: int | None = sourced(None, "sec. 4", "[1, 9]")
    place: str = sourced("", "yours", "any")


@pytest.mark.parametrize(
    ("text", "kind", "inside", "outside"),
    [
        ("[1, 64]", int, [1, 64, np.int64(7), 2.0], [0, 65, 1.5, math.nan, True, "7", None]),
        ("(0, 1]", float, [1e-300, 1, np.float32(0.5)], [0, -0.0, 1.001, math.nan, math.inf]),
        ("(0, inf]", float, [1.0, math.inf], [0.0, -math.inf, math.nan]),
        ("[0, 1)", float, [0, 0.999], [1, -1e-9]),
        ("0 or [0.5, 2]", float, [0, 0.5, 2], [0.1, -1, 3]),
        ("[-100, 100]", float, [-100, 0], [-101]),
        ("a | b-c", str, ["a", "b-c"], ["c", "a | b-c", 1]),
        ("any", str, ["", "x y"], [1, None, "a\0b"]),
        ("0 to 2 of [1, 9]", int, [(), (1,), (9, 9)], [(1, 1, 1), (0,), 1, "1"]),
    ],
)
def test_what_is_in_a_range(text, kind, inside, outside):
    within = Range.parse(text, kind)
    assert str(within) == text
    assert all(value in within for value in inside)
    assert not [value for value in outside if value in within]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("1 to 64", int),
        ("[2, 1]", int),
        ("[1, 2", int),
        ("a | b", int),
        ("[1, 2]", str),
        ("[1, 2], near width", int),
        ("", str),
    ],
)
def test_a_range_that_cannot_be_read_is_an_error_of_the_file(text, kind):
    with pytest.raises(ValueError, match=r"range|near width"):
        Range.parse(text, kind)


def test_the_record_says_how_to_search():
    found = ranges(Config)
    assert (found["rate"].scale, found["share"].scale, found["width"].scale) == ("log", "linear", "log")
    assert (found["width"].step, found["share"].step) == (1, None)
    assert (found["share"].open_low, found["share"].open_high) == (True, True)
    assert found["kind"].choices == ("a", "b") and found["flag"].choices == (False, True)
    assert found["depths"].entries == (1, 4) and found["limit"].optional and found["place"].free


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"heads": 0}, "the setting heads is 0, but it takes a whole number from 1 to 64; its default is 4"),
        ({"heads": 10**23}, "takes a whole number from 1 to 64"),
        (
            {"share": math.nan},
            "the setting share is nan, but it takes a number above 0 and below 1; its default is 0.5",
        ),
        ({"off": 0.1}, "off is 0.1, but it takes 0, or a number from 0.5 to 2"),
        ({"kind": "c"}, "the setting kind is 'c', but it takes a or b; known: a, b"),
        ({"flag": 2}, "the setting flag is 2, but it takes false or true"),
        ({"width": "64"}, "the setting width is '64', but it takes a whole number from 2 to 4096"),
        ({"depths": ()}, "the setting depths is (), but it takes 1 to 4 values, each a whole number from 1 to 9"),
        ({"heads": 5}, "the setting width is 64, but it must be a multiple of 2 heads, which is 10"),
        ({"most": 5, "kind": "b"}, "the setting most is 5, but it must be at most heads, which is 4 where kind is b"),
        ({"widths": (8,)}, "the setting widths is (8,), but it must have as many entries as depths, which is (1, 2)"),
        ({"heads": 10**5000}, "the setting heads is a number of thousands of digits, but"),
    ],
)
def test_a_value_out_of_range_is_refused_in_one_line_whoever_makes_it(wrong, said):
    with pytest.raises(PapertrialError) as made:
        Config(**wrong)
    with pytest.raises(PapertrialError) as changed:
        dataclasses.replace(Config(), **wrong)
    assert said in str(made.value) and str(made.value) == str(changed.value)
    assert "\n" not in str(made.value) and len(str(made.value)) < 250


def test_zero_and_other_kinds_are_held_to_nothing():
    assert Config(most=0, kind="b").most == 0
    assert Config(most=50).most == 50  # of kind a


def test_the_sides_of_the_images_are_known_with_the_data():
    facts = Facts("images", examples=10, height=12, width=18)
    with pytest.raises(
        PapertrialError, match=r"patch is 4.*divide both sides of the images, 12x18; choose one of 1, 2, 3, 6"
    ):
        resolve(Config, facts, {})
    assert resolve(Config, facts, {"you": {"patch": "6"}})[0].patch == 6


def test_settings_are_looked_at_before_there_are_data():
    known_settings({"heads": "8", "width": "4000"}, Config)  # what goes together is asked with the data
    with pytest.raises(PapertrialError, match=r"backbone.heads is 65, but it takes a whole number from 1 to 64"):
        known_settings({"heads": "65"}, Config, part="backbone.")
    with pytest.raises(PapertrialError, match="no setting 'hats'"):
        known_settings({"hats": "6"}, Config)


def test_a_relation_to_what_there_is_not_is_an_error_of_the_file():
    with pytest.raises(ValueError, match="depth is held to width, which it lacks"):

        @checked
        @dataclass(frozen=True)
        class Wrong:
            depth: int = sourced(1, "table 1", "[1, 9], divides width")


@pytest.mark.parametrize(
    "wrong", [{"lr": -1}, {"lr": math.nan}, {"clip": -1}, {"ema": 1e30}, {"label_smoothing": math.nan}, {"warmup": 2}]
)
def test_training_has_ranges_too(wrong):
    with pytest.raises(PapertrialError, match=f"the setting {next(iter(wrong))} is .* but it takes a number"):
        Optim(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"seed": -1}, {"seed": 10**23}, {"labels": 0}, {"size": 3}, {"fraction": 0.0}, {"fraction": math.nan}]
)
def test_so_have_the_numbers_of_a_request(wrong):
    name = next(iter(wrong))
    with pytest.raises(PapertrialError, match=f"^{name} is .*, but it takes a"):
        Request(**wrong)
    with pytest.raises(PapertrialError, match=f"^{name} is"):
        require_numbers(**wrong)
    assert str(NUMBERS["seed"]) == "[0, 2147483647]"
