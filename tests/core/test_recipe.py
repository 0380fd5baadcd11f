from __future__ import annotations

from dataclasses import dataclass

import pytest

from papertrial.core.errors import PapertrialError
from papertrial.core.facts import Facts
from papertrial.core.recipe import Optim, parse_settings, resolve, sourced, unknown_settings

FACTS = Facts("images", examples=100, height=28)


@dataclass(frozen=True)
class Config:
    patch: int = sourced(16, "table 1", auto=lambda facts: 4 if facts.height < 64 else None)
    rate: float = sourced(0.1, "sec. 3")
    flag: bool = sourced(False, "sec. 3")
    sizes: tuple[int, ...] = sourced((1, 2), "sec. 4")
    name: str = sourced("a", "sec. 5")
    limit: int | None = sourced(None, "sec. 6")


def sources(settings):
    return {row.name: row.source for row in settings}


def test_the_order_of_precedence_and_the_sources():
    config, settings = resolve(
        Config, FACTS, {"recipe base": {"rate": 0.2}, "variant S": {"patch": 8}, "you": {"rate": "0.3"}}
    )
    assert (config.patch, config.rate) == (8, 0.3)
    assert sources(settings)["patch"] == "variant S"
    assert sources(settings)["rate"] == "you"
    assert sources(settings)["flag"] == "sec. 3"


def test_rules_suit_the_data_and_say_so():
    config, settings = resolve(Config, FACTS, {})
    assert config.patch == 4
    assert "suited to this data" in sources(settings)["patch"]
    assert "16" in sources(settings)["patch"]
    config, settings = resolve(Config, Facts("images", examples=100, height=224), {})
    assert config.patch == 16
    assert sources(settings)["patch"] == "table 1"
    assert resolve(Config, None, {})[0].patch == 16


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("patch", "7", 7),
        ("patch", "1e2", 100),
        ("rate", "1e-3", 1e-3),
        ("flag", "true", True),
        ("flag", "no", False),
        ("sizes", "3,4", (3, 4)),
        ("sizes", "(5)", (5,)),
        ("limit", "none", None),
        ("limit", "3", 3),
    ],
)
def test_text_becomes_what_the_field_holds(name, text, value):
    assert getattr(resolve(Config, None, {"you": {name: text}})[0], name) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [("patch", "7.5"), ("patch", "big"), ("rate", "x"), ("flag", "maybe"), ("sizes", "a,b"), ("patch", "inf")],
)
def test_a_value_of_the_wrong_type_is_refused_by_name(name, text):
    with pytest.raises(PapertrialError, match=name):
        resolve(Config, None, {"you": {name: text}})


def test_unknown_settings_are_refused_with_a_suggestion():
    unknown_settings({"patch": 1, "lr": 2}, Config, Optim)
    with pytest.raises(PapertrialError, match="did you mean 'patch'"):
        unknown_settings({"pach": 1}, Config)
    for theirs, ours in (("learning_rate", "lr"), ("batch_size", "batch"), ("Patch_Size", "patch")):
        with pytest.raises(PapertrialError, match=f"no setting '{theirs}'; it is called '{ours}' here"):
            unknown_settings({theirs: 1}, Config, Optim)
    with pytest.raises(PapertrialError, match="known: "):
        unknown_settings({"d_model": 1}, Config)


def test_settings_are_read_from_the_command_line():
    assert parse_settings(["lr=1e-3", "name=a=b"]) == {"lr": "1e-3", "name": "a=b"}
    with pytest.raises(PapertrialError, match="name=value"):
        parse_settings(["lr"])
