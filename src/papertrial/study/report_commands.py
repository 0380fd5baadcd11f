"""The command line that makes a run or a comparison again, as one would type it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from papertrial.core import registry
from papertrial.core.errors import PapertrialError
from papertrial.study import report_blocks
from papertrial.study.comparison import Comparison
from papertrial.study.report_blocks import Record


def fit_command(run: Record) -> str:
    """Of one run, with what was given from Python as a comment."""
    card, config = run.card, run.config
    assert card is not None
    options = card["data"]["options"]
    given = {entry["name"]: entry["value"] for entry in card["settings"] if entry["source"] == "you"}
    own = {name: value for name, value in given.items() if name.partition(".")[0] not in card["techniques"]}
    own |= {
        f"backbone.{entry['name']}": entry["value"] for entry in card["backbone_settings"] if entry["source"] == "you"
    }
    words = [
        "papertrial",
        "fit",
        card["method"]["name"],
        *report_blocks.data_words(card),
        *report_blocks.budget_words(card["budget"]),
    ]
    words += report_blocks.flags(
        host=card.get("host"),
        backbone=card["backbone"],
        recipe=None if config["recipe"] == "base" else config["recipe"],
        labels=options.get("labels"),
        size=options.get("size"),
        seed=card["seed"],
        **({"from": card["final"]["comparison"]} if card.get("final") else {}),
    )
    words += ["--final"] if card.get("final") else []
    words += _technique_words(card, config["recipe"])
    command = shlex.join([*words, *report_blocks.set_words(own), "--out", str(run.folder)])
    if "fraction" in options:
        command += f"\n# within a comparison, with fraction={options['fraction']} of the training rows"
    return command + report_blocks.given_from_python(card)


def compare_command(
    found: Comparison, config: Mapping[str, Any], asked: Mapping[str, Any], card: dict[str, Any], folder: Path
) -> str:
    """Of a comparison. card: of one of its runs."""
    methods = asked.get("methods") or [row.name for row in found.rows if row.role == "method"]
    words = ["papertrial", "compare", *methods, *report_blocks.data_words(card), "--seeds", str(found.seeds)]
    words += report_blocks.budget_words(config["budget"])
    words += report_blocks.flags(
        folds=asked.get("folds"),
        against=asked.get("against"),
        host=config.get("host"),
        backbone=config["backbone"],
        recipe=None if config["recipe"] == "base" else config["recipe"],
        labels=config["labels"],
        size=config["size"],
    )
    words += [word for text in config.get("techniques") or () for word in ("--technique", text)]
    words += report_blocks.set_words(config["settings"])
    words += [] if asked.get("worth", True) else ["--no-worth"]
    command = shlex.join([*words, "--out", str(folder)])
    if asked.get("baselines") is not None:
        command += f"\n# asked from Python, with baselines={asked['baselines']!r}"
    return command + report_blocks.given_from_python(card)


def _technique_words(card: dict[str, Any], recipe: str) -> list[str]:
    """`--technique NAME:setting=value` for each that the recipe does not bring as it is: settings that are not the defaults."""
    method = card["method"]["name"]
    brought: dict[str, dict[str, Any]] = {}
    with suppress(PapertrialError):  # a paper of a package that is not here any more
        made = map(registry.technique, registry.method(method).module.recipes[recipe].techniques)
        brought = {each.id: asdict(each.made) for each in made}
    words = []
    for name, values in card["techniques"].items():
        if name == method or brought.get(name) == values:
            continue
        usual: dict[str, Any] = {}
        with suppress(PapertrialError):
            usual = {row.name.removeprefix(f"{name}."): row.value for row in registry.technique_defaults(name)}
        own = [f"{key}={report_blocks.typed(value)}" for key, value in values.items() if usual.get(key) != value]
        words += ["--technique", f"{name}:{','.join(own)}" if own else name]
    return words
