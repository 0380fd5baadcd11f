"""What methods are called in tables and verdicts, where the id of one says something else than what ran."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from papertrial.core.errors import PapertrialError
from papertrial.use.card import CARD

_AS_IT_CAME = "untrained"


def called(folder: Path, name: str) -> str:
    """What the method of a finished run is called: a pretrained network under `untrained` was trained, only not here."""
    if name.partition(":")[0] != _AS_IT_CAME:
        return name
    with suppress(PapertrialError):
        card = CARD.read(folder / "card.json")
        if card["backbone"] and (card["backbone_config"] or {}).get("pretrained"):
            return f"frozen {card['backbone']} " + ("+ probe" if "class_names" in card["state"] else "as it came")
    return name


def renamed(text: str, names: Mapping[str, str]) -> str:
    """A sentence with the methods called so; longer names first, since one may begin with another."""
    for name in sorted((name for name, words in names.items() if words != name), key=len, reverse=True):
        text = re.sub(rf"(?<![\w:+]){re.escape(name)}(?![\w+]|:\w)", lambda _, name=name: names[name], text)  # type: ignore[misc]
    return text
