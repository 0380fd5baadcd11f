"""What the text tasks share: a model's tokeniser is fitted to the training texts, and each column is tokenised once.

Texts are cut after as many tokens as the backbone takes (its attribute `longest`), and after LONGEST in any case, so that
one text of 50 MB costs no more than a page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from torch import Tensor, nn

from papertrial.core.errors import Declined
from papertrial.core.offers import offers
from papertrial.core.task import Ragged
from papertrial.core.wording import counted
from papertrial.nn.heads import fit_inputs
from papertrial.nn.tokenise import longer
from papertrial.tasks import _common

#: most tokens of a text that a model reads
LONGEST = 512
#: the last columns that each tokeniser has encoded: validation asks for the same ones again and again
_ENCODED: WeakKeyDictionary[nn.Module, dict[int, tuple[Ragged, Ragged]]] = WeakKeyDictionary()
_COLUMNS = 2


def require_tokeniser(backbone: Any, name: str) -> None:
    """Raise Declined for a backbone that does not read text."""
    if not isinstance(offers(backbone).tokeniser, nn.Module):
        raise Declined(f"{name} does not read text: it has no tokeniser", "type: papertrial list")


def reading(backbone: nn.Module) -> nn.Module:
    """The backbone, which reads text. Raises Declined where it does not."""
    require_tokeniser(backbone, "the backbone")
    return backbone


def fit_to(model: Any, texts: Ragged) -> None:
    """Let the tokeniser of `model` learn from the training texts, where it does."""
    _ENCODED.pop(model.encoder.tokeniser, None)
    fit_inputs(model, {"text": texts})


def ids_of(model: Any, texts: Ragged) -> Ragged:
    """Token ids int32 of a column of texts, cut to what the model takes."""
    tokeniser: Any = model.encoder.tokeniser
    held = _ENCODED.setdefault(tokeniser, {})
    if id(texts) not in held:
        longest = most_tokens(model.encoder)
        while len(held) >= _COLUMNS:
            held.pop(next(iter(held)))
        held[id(texts)] = (texts, tokeniser.encode(texts, longest=longest))  # with the texts, whose id stays theirs
    return held[id(texts)][1]


def most_tokens(backbone: Any) -> int:
    """How many tokens of a text a backbone is given."""
    return min(offers(backbone).longest or LONGEST, LONGEST)


def cut(model: Any, columns: Mapping[str, Ragged], most: int | None = None) -> list[str]:
    """A line for each column of texts, by what one is called, in which some are longer than the model reads.

    most: tokens it reads, by default those of its encoder.
    """
    held = offers(model)
    lines = []
    for what, texts in columns.items():
        if held.too_long:
            long, words = held.too_long(texts)
        elif isinstance(model, nn.Module) and isinstance(offers(held.encoder).tokeniser, nn.Module):
            limit = most_tokens(held.encoder) if most is None else most
            long, words = longer(held.encoder.tokeniser, texts, limit), f"{limit:,} tokens"
        else:
            continue
        if long.any():
            lines.append(
                f"{long.sum():,} of {counted(len(texts), what, _plural(what))} longer than the {words} that are read of "
                "one: the rest is cut off"
            )
    return lines


def _plural(what: str) -> str:
    return f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"


def beyond_characters(texts: Ragged, most: int) -> tuple[np.ndarray, str]:
    """Which texts have more than `most` characters, as `too_long` of a model says it."""
    long = texts.lengths > most
    rows = np.flatnonzero(long)
    long[rows] = [len(text) > most for text in texts[rows].texts()]
    return long, f"{most:,} characters"


def through(model: nn.Module, part: nn.Module, columns: Mapping[str, Ragged]) -> np.ndarray:
    """`part` of the model, in `eval()`, on columns of token ids: float32 (N, ...)."""
    return _common.through(model, part, columns, _batch(columns))


def features_of(model: nn.Module, texts: Ragged) -> np.ndarray:
    """(N, width) float32: what the encoder of the model makes of texts. Raises Declined for a model without one."""
    encoder = _common.encoder_of(model)
    return _common.finite(through(model, encoder, {"ids": ids_of(model, texts)}))


def _batch(columns: Mapping[str, Ragged]) -> int:
    """Rows that are read at once: fewer where they are long."""
    longest = max(int(column.lengths.max(initial=1)) for column in columns.values())
    return int(np.clip(65_536 // max(longest, 1), 8, 512))


def sizes(texts: Ragged) -> dict[str, Any]:
    """`bytes` and `length` of the facts."""
    lengths = texts.lengths
    return {"bytes": int(lengths.sum()), "length": int(np.quantile(lengths, 0.95)) if len(lengths) else 0}


def stacked(columns: Sequence[Ragged]) -> Ragged:
    """Rows of several columns below each other."""
    values = np.concatenate([column.values[column.offsets[0] : column.offsets[-1]] for column in columns])
    lengths = np.concatenate([column.lengths for column in columns])
    return Ragged(values, np.concatenate([[0], np.cumsum(lengths)]), columns[0].pad)


def unit(features: Tensor) -> Tensor:
    """Rows (B, width) of length 1."""
    return nn.functional.normalize(features, dim=-1)
