"""The same value in another spelling: `1.0` for `1`, `True` for `yes`, ` red ` for `Red`, `1234` for `01234`."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from papertrial.core.wording import counted
from papertrial.data.tables.classes import look_up
from papertrial.data.tables.column_values import hash_text
from papertrial.data.tables.written import TRUTHS

_TRUE_OR_FALSE = frozenset(("true", "false", "yes", "no", "t", "f", "y", "n", "on", "off"))


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _number(text: str) -> str:
    """The number that a text is, "" where it is none."""
    if not text or not (text[-1].isdigit() or text[-1] == ".") or not text.isascii() or "_" in text:
        return ""
    try:
        value = float(text)
    except ValueError:
        return ""
    return text.lstrip("+0") or "0" if text.isdigit() and value >= 2**53 else repr(value + 0.0)


def _truth(text: str) -> str:
    value = TRUTHS.get(text.casefold())
    return "" if value is None else str(value)


def _folded(text: str) -> str:
    return _plain(text).casefold()


def alike(texts: Iterable[str], known: Sequence[str], *, fold: bool) -> dict[str, str]:
    """Which of the known values each text is in another spelling; texts that are none, or might be several, are left out.

    fold: whether case tells no values apart.
    """
    levels = [_by(_plain, known), _by(_number, known)]
    if all(_truth(one) for one in known) and any(one.casefold() in _TRUE_OR_FALSE for one in known):
        levels.append(_by(_truth, known))
    if fold:
        levels.append(_by(_folded, known))
    exact, cases = set(known), {one.casefold() for one in known}
    found = {}
    for text in texts:
        if text in exact or (not fold and text.casefold() in cases):
            continue
        for key, values in levels:
            if match := values.get(key(text)):
                found[text] = match
                break
    return found


def _by(key: Callable[[str], str], known: Sequence[str]) -> tuple[Callable[[str], str], dict[str, str]]:
    """Known values by a key that only one of them has."""
    values: dict[str, str] = {}
    for one in known:
        if name := key(one):
            values[name] = "" if name in values else one
    return key, values


def same(known: Sequence[str]) -> dict[str, str]:
    """Which of some values are others of them in another spelling: `1.0` beside `1`, `yes` beside `True`, never `01` beside `1`."""
    found: dict[str, str] = {}
    numbers: dict[str, str] = {}
    for one in sorted(known, key=lambda text: (len(text), text)):
        name = "" if one.lstrip("+-")[:1] == "0" and one.lstrip("+-")[1:2].isdigit() else _number(one)
        if name and numbers.setdefault(name, one) != one:
            found[one] = numbers[name]
    if known and all(_truth(one) for one in known) and any(one.casefold() in _TRUE_OR_FALSE for one in known):
        truths: dict[str, str] = {}
        for one in sorted(known, key=lambda text: (-len(text), text)):
            if truths.setdefault(_truth(one), one) != one:
                found[one] = truths[_truth(one)]
    return found


def merged(
    name: str, codes: np.ndarray, known: tuple[str, ...], note: Callable[[str], None]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Codes int32 into the categories of a column, and these, of which none is another in another spelling."""
    found = same(known)
    if not found:
        return codes, known
    some = ", ".join(f"{one!r} and {other!r}" for one, other in list(found.items())[:3])
    note(f"column {name!r}: {some} are the same value in two spellings")
    left = [one for one in known if one not in found]
    place = np.array([left.index(found.get(one, one)) for one in known] + [-1], np.int32)
    return place[codes], tuple(left)


def respelled(
    name: str,
    bits: np.ndarray,
    codes: np.ndarray,
    known: Sequence[str],
    texts: Callable[[], list[str]],
    note: Callable[[str], None],
    *,
    fold: bool,
) -> np.ndarray:
    """Codes int32 into the known values of a column, with those that are -1 only because a value is spelled otherwise here.

    bits: hashes of the texts, 0 for missing.  texts: asked for the distinct ones where any is not known.  fold: see `alike`.
    """
    lost = codes < 0
    if not (bits[lost] != 0).any():
        return codes
    other = alike(texts(), known, fold=fold)
    place = {one: index for index, one in enumerate(known)}
    found = look_up(bits, hash_text(other))
    again = np.array([*(place[one] for one in other.values()), -1], np.int32)[found]
    again[~lost] = -1
    if count := int((again >= 0).sum()):
        one, like = next(iter(other.items()))
        note(
            f"column {name!r}: {counted(count, 'value')} in another spelling than in training, such as {one!r} for {like!r}:"
            " taken as the same"
        )
    return np.where(lost, again, codes)
