"""The same value in another spelling: `1.0` for `1`, `True` for `yes`, ` red ` for `Red`, `1234` for `01234`."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence

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


def merged(known: Sequence[str]) -> dict[str, str]:
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
