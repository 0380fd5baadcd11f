"""Where the methods of a comparison start from, and what they have to say of how they learned, in words for its notes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from papertrial.core.errors import PapertrialError
from papertrial.study.entrants import Entrant
from papertrial.use.card import CARD

_OWN = ("fresh weights", "yours")


def origins(entrants: Sequence[Entrant]) -> list[str]:
    """A line for each entrant that starts from somebody's weights, what they were trained on and their licence, and one for
    what it remarked with its first seed."""
    lines = []
    for entrant in entrants:
        card: dict[str, Any] = {}
        with suppress(PapertrialError):  # a run without a card has nothing to say
            card = CARD.read(entrant.outcomes[0].folder / "card.json") if entrant.outcomes else {}
        weights = str(card.get("licence", {}).get("weights", "")).removeprefix("trained here from ")
        if weights and not any(word in weights for word in _OWN):
            lines.append(f"{entrant.name} starts from {weights}")
        lines += [f"{entrant.name}: {remark}" for remark in card.get("learned", ())]
    return lines
