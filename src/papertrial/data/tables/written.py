"""Numbers, dates and times as people write them: `$5,123.40`, `(1.234,50)`, `47.3%`, `23/01/2024`, `2:05 PM`, `1h 30m`.

What a mark means is settled by all lines of a column, never by one: `1,234` is a thousand where `1,234,567` or `12.50` stands
beside it, and one and a bit beside `0,5`. How a column is written is its *form*:

    number              as Python reads it
    comma               with a decimal comma
    amount .UNIT        groups of thousands, a sign in brackets, a currency or a unit; `.` or `,` before decimals
    boolean             true and false, in new data also yes and no, 1 and 0
    date, date dmy, date mdy    days since 1970; with the day or the month first where only that tells `3/4/2024`
    hours               times of day and durations
    text                anything else
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^[+-]?(inf|Inf|INF)(inity)?$"
COMMA = r"^[+-]?\d*,\d+([eE][+-]?\d+)?$"
ISO = r"^\d{4}([-/])\d{1,2}([-/])\d{1,2}([T ]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?$"
DOTTED = r"^\d{1,2}\.\d{1,2}\.\d{4}( \d{1,2}:\d{2}(:\d{2})?)?$"  # day.month.year; with / or - it might be month first
FEW = 20  # numbers: a column with no more than this many distinct ones and some text is a column of codes
STRAYS = 0.02  # share of values that may not be read in a column of numbers, dates or times
_WORD_STRAYS, _KNOWN_STRAYS = 0.1, 0.5  # ... where they are few words, and where these are known to say "not known"
_FEW_WORDS = 3
_MOST = 60  # units, and texts that are not read, which are told apart
_CERTAIN = 5  # values such as 1.234 without which whole numbers below 1000 do not make thousands of them
_PLAUSIBLE = 0.5  # share of numbers, dates and times from which it is worth saying why a column is text all the same

_BLANKS = "\u00a0\u2009\u202f"
_CODES = "USD|EUR|GBP|CHF|JPY|CNY|INR|CAD|AUD|NZD|SEK|NOK|DKK|PLN|CZK|HUF|RUB|TRY|BRL|MXN|ZAR|KRW|SGD|HKD|Rs\\.?|kr\\.?|Kč|zł|Fr\\."
_CURRENCY = rf"(?:US|A|C|NZ|HK|S|R)?\p{{Sc}}|{_CODES}"
#: what a number may look like; groups by name are those of `pyarrow.compute.extract_regex`
_AMOUNT = (
    rf"^(?P<open>\()?\s?(?P<sign>[+\-\x{{2212}}\x{{2013}}])?\s?(?P<before>{_CURRENCY})?\s?(?P<inner>[+\-\x{{2212}}])?"
    rf"(?P<core>\d(?:[\d.,'\x{{2019}}{_BLANKS} ]*\d)?[.,]?|[.,]\d+)(?P<power>[eE][+-]?\d+)?"
    rf"[ {_BLANKS}]?(?P<after>[%‰°\p{{L}}\p{{Sc}}µ][^\d,;()\"']{{0,14}}[23]?)?(?P<close>\))?(?P<minus>-)?$"
)
_TIMES: Mapping[str, float] = {"k": 1e3, "K": 1e3, "M": 1e6, "mn": 1e6, "mln": 1e6, "B": 1e9, "bn": 1e9}
_GAP = rf"[ '\x{{2019}}{_BLANKS}]"
#: readings of the digits of a number
_CORES = {
    "whole": r"^\d+$",
    "point": r"^\d*\.\d*$",
    "point?": r"^[1-9]\d{0,2}\.\d{3}$",  # 1.234: with a decimal point, or a thousand
    "points": rf"^[1-9]\d{{0,2}}(\.\d{{3}}){{2,}}$|^[1-9]\d{{0,2}}(\.\d{{3}})+,\d+$|^[1-9]\d{{0,2}}({_GAP}\d{{3}})+,\d+$",
    "comma": r"^\d*,\d*$",
    "comma?": r"^[1-9]\d{0,2},\d{3}$",
    "commas": rf"^[1-9]\d{{0,2}}(,\d{{3}}){{2,}}$|^[1-9]\d{{0,2}}(,\d{{3}})+\.\d+$|^[1-9]\d?(,\d{{2}})+,\d{{3}}(\.\d+)?$|^[1-9]\d{{0,2}}({_GAP}\d{{3}})+\.\d+$",
    "gaps": rf"^[1-9]\d{{0,2}}({_GAP}\d{{3}})+$",
    "long": r"^\d{4,}",
}
_MONTHS = {
    name: place + 1
    for place, name in enumerate(("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"))
}
_MONTH = "(?i:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
_WEEKDAY = r"(?:(?i:mon|tue|wed|thu|fri|sat|sun)[a-z]{0,6}\.?,?\s)?"
_CLOCK = r"(?P<h>\d{1,2}):(?P<n>[0-5]\d)(?::(?P<s>[0-5]\d(?:[.,]\d+)?))?\s?(?P<half>[aApP]\.?[mM]\.?)?"
_TAIL = rf"(?:(?:,?\s|T|,){_CLOCK}\s?(?P<zone>Z|UTC|GMT|[+-]\d{{2}}:?\d{{2}})?(?:\s\([A-Z]+\))?)?$"
#: dates beside ISO and DOTTED that only one reading makes sense of, and those in which the day or the month may be first
_DATES = (
    rf"^(?P<y>\d{{4}})[-/.](?P<m>\d{{1,2}})[-/.](?P<d>\d{{1,2}}){_TAIL}",
    rf"^(?P<d>\d{{1,2}})\.\s?(?P<m>\d{{1,2}})\.\s?(?P<y>\d{{4}}|\d{{2}}){_TAIL}",
    rf"^{_WEEKDAY}(?P<d>\d{{1,2}})(?:st|nd|rd|th)?(?:\.?[\s-]|\sof\s|/)?(?P<month>{_MONTH})[\s,./-]{{0,2}}(?P<y>\d{{4}}|\d{{2}}){_TAIL}",
    rf"^{_WEEKDAY}(?P<month>{_MONTH})\.?[\s-](?P<d>\d{{1,2}})(?:st|nd|rd|th)?,?[\s-](?P<y>\d{{4}}){_TAIL}",
    rf"^(?P<month>{_MONTH})\.?,?[\s-](?P<y>\d{{4}})$",
    rf"^{_WEEKDAY}(?P<month>{_MONTH})\s{{1,2}}(?P<d>\d{{1,2}})\s{_CLOCK}\s(?P<zone>UTC|GMT|[+-]\d{{4}})?\s?(?P<y>\d{{4}})$",
)
_EITHER = tuple(rf"^(?P<a>\d{{1,2}}){mark}(?P<b>\d{{1,2}}){mark}(?P<y>\d{{4}}|\d{{2}}){_TAIL}" for mark in ("/", "-"))
_HOURS = (
    r"^(?P<minus>-)?(?:(?P<days>\d+)\s?d(?:ays?)?,?\s)?(?P<h>\d{1,4}):(?P<n>[0-5]\d)(?::(?P<s>[0-5]\d(?:[.,]\d+)?))?"
    r"\s?(?P<half>[aApP]\.?[mM]\.?)?$",
    r"^(?P<minus>-)?P(?:(?P<days>\d+)D)?(?:T(?:(?P<h>\d+)H)?(?:(?P<n>\d+)M)?(?:(?P<s>\d+(?:\.\d+)?)S)?)?$",
    r"^(?P<minus>-)?(?:(?P<days>\d+)\s?d(?:ays?)?[\s,]*)?(?:(?P<h>\d+)\s?h(?:(?:ou)?rs?)?[\s,]*)?"
    r"(?:(?P<n>\d+)\s?m(?:in(?:ute)?s?)?[\s,]*)?(?:(?P<s>\d+(?:\.\d+)?)\s?s(?:ec(?:ond)?s?)?)?$",
)
#: what is worth a closer look: it begins as a number, a date or a duration does
LIKELY = (
    rf"^\(?\s?[+\-\x{{2212}}\x{{2013}}]?\s?(?:{_CURRENCY})?\s?[+\-\x{{2212}}]?[.,]?\d.{{0,40}}$|^-?PT?\d.{{0,20}}$"
    rf"|^{_WEEKDAY}{_MONTH}[\s.,-].{{0,30}}$|^(?i:mon|tue|wed|thu|fri|sat|sun)[a-z]{{0,6}}\.?,?\s\d.{{0,40}}$"
)
#: words by which people say that a value is not known
_KNOWN = frozenset(
    (
        *(
            "unknown",
            "unk",
            "not known",
            "missing",
            "none",
            "nil",
            "n.a.",
            "n.a",
            "na",
            "n/a",
            "nan",
            "null",
            "not available",
        ),
        *(
            "not applicable",
            "unavailable",
            "undefined",
            "tbd",
            "tba",
            "tbc",
            "no data",
            "nodata",
            "empty",
            "blank",
            "(blank)",
        ),
        *("#value!", "#ref!", "#div/0!", "#name?", "#num!", "#null!", "error", "x", "xx", "xxx"),
        *(".", "..", "...", "*", "**", "--", "---", "\u2013", "\u2014"),
    )
)
TRUTHS = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0, "t": 1.0, "f": 0.0, "y": 1.0, "n": 0.0, "1": 1.0, "0": 0.0} | {
    "1.0": 1.0, "0.0": 0.0, "on": 1.0, "off": 0.0,
}  # fmt: skip


def matches(text: pa.StringArray, pattern: str) -> pa.BooleanArray:
    return pc.fill_null(pc.match_substring_regex(text, pattern), False)


def mask(truths: pa.BooleanArray) -> np.ndarray:
    return truths.to_numpy(zero_copy_only=False)


def read(text: pa.StringArray, form: str) -> np.ndarray:
    """Texts in a form other than number, comma and text as float64, NaN for what is missing or not in that form."""
    kind, _, how = form.partition(" ")
    if kind == "amount":
        return _amounts(text, how[0], how[1:])
    if kind == "hours":
        return _hours(text)
    if kind == "boolean":
        return np.array([TRUTHS.get((value or "").casefold(), np.nan) for value in text.to_pylist()], dtype=np.float64)
    return days(text, how)


# -- numbers --------------------------------------------------------------------------------------------------------


def _fields(text: pa.StringArray, pattern: str) -> tuple[dict[str, pa.Array], np.ndarray]:
    """The named groups of a pattern where it matches, and where that is."""
    found = pc.extract_regex(text, pattern)
    return {one.name: found.field(place) for place, one in enumerate(found.type)}, mask(found.is_valid())


def _unit(fields: Mapping[str, pa.Array]) -> tuple[list[str], np.ndarray]:
    """The currency or unit of each number, and by how much a `k` or `M` behind it multiplies."""
    after = [value or "" for value in fields["after"].to_pylist()]
    before = fields["before"].to_pylist()
    factor = np.array([_TIMES.get(value.strip(), 1.0) for value in after])
    units = [
        (first or "") + ("" if times != 1.0 else last.strip())
        for first, last, times in zip(before, after, factor, strict=True)
    ]
    return units, factor


def _amounts(text: pa.StringArray, decimal: str, unit: str) -> np.ndarray:
    fields, found = _fields(text, _AMOUNT)
    result = np.full(len(text), np.nan)
    plain = mask(matches(text, NUMBER)) if decimal == "." else np.zeros(len(text), bool)
    result[plain] = text.filter(pa.array(plain)).cast(pa.float64()).to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(found & ~plain)
    if not len(rows):
        return result
    held = {name: array.take(pa.array(rows)) for name, array in fields.items()}
    cores, units, factor = held["core"], *_unit(held)
    readable = readings(cores)[decimal] & np.array([one in ("", unit) for one in units])
    other = "," if decimal == "." else "."
    digits = pc.replace_substring_regex(cores, rf"[{_BLANKS}\x{{2019}}' ]", "")
    digits = pc.replace_substring(pc.replace_substring(digits, other, ""), decimal, ".")
    digits = pc.binary_join_element_wise(digits, pc.fill_null(held["power"], ""), "")
    digits = pc.if_else(pa.array(readable), digits, pa.scalar(None, pa.string()))
    values = digits.cast(pa.float64()).to_numpy(zero_copy_only=False) * factor
    brackets = _has(held["open"]) & _has(held["close"])
    signs = sum(
        (_in(held[name], "-\u2212\u2013").astype(int) for name in ("sign", "inner", "minus")), brackets.astype(int)
    )
    values = np.where(_has(held["open"]) == _has(held["close"]), values, np.nan)
    result[rows] = np.where(signs % 2 == 1, -values, values)
    return result


def _has(array: pa.Array) -> np.ndarray:
    return mask(pc.not_equal(pc.fill_null(array, ""), ""))


def _in(array: pa.Array, signs: str) -> np.ndarray:
    return mask(pc.is_in(array, pa.array(list(signs))))


def readings(cores: pa.StringArray) -> dict[str, np.ndarray]:
    """bool (n,) by the name of a reading in _CORES, and whether the digits make sense with a decimal `.` and `,`."""
    found = {name: mask(matches(cores, pattern)) for name, pattern in _CORES.items()}
    found["point"] &= ~found["point?"]
    found["comma"] &= ~found["comma?"]
    both = found["whole"] | found["gaps"] | found["point?"] | found["comma?"]
    return found | {".": both | found["point"] | found["commas"], ",": both | found["comma"] | found["points"]}


# -- dates and times ------------------------------------------------------------------------------------------------


def days(text: pa.StringArray, order: str = "") -> np.ndarray:
    """Dates and times as days since 1970 (UTC), NaN where there is no such day.

    order: `dmy` or `mdy`, how 3/4/2024 is read; such dates are not read where it is empty, those in DOTTED are day first.
    """
    known = _iso_days(text)
    rest = np.flatnonzero(np.isnan(known) & mask(text.is_valid()))
    if len(rest):
        left = text.take(pa.array(rest))
        found = np.full(len(rest), np.nan)
        for pattern in (*_DATES, *(_EITHER if order else ())):
            fields, there = _fields(left, pattern)
            rows = np.flatnonzero(there & np.isnan(found))
            if len(rows):
                found[rows] = _made({name: array.take(pa.array(rows)) for name, array in fields.items()}, order)
        known[rest] = found
    return known


def _iso_days(text: pa.StringArray) -> np.ndarray:
    """ISO dates and times, and day.month.year, as days since 1970 (UTC)."""
    dated = pc.or_(matches(text, ISO), matches(text, DOTTED))
    text = pc.if_else(dated, text, pa.scalar(None, pa.string()))
    for pattern, turned in (
        (r"^(\d)\.", r"0\1."),
        (r"^(\d\d)\.(\d)\.", r"\1.0\2."),
        (r"^(\d\d)\.(\d\d)\.(\d{4})", r"\3-\2-\1"),
    ):
        text = pc.replace_substring_regex(text, pattern, turned)
    series = pd.Series(pc.replace_substring(text, "/", "-").to_pandas(), dtype=object)
    times = pd.to_datetime(series, errors="coerce", format="ISO8601", utc=True)
    return micros_to_days(times.dt.tz_localize(None).to_numpy())


def micros_to_days(times: np.ndarray) -> np.ndarray:
    micros = times.astype("datetime64[us]")
    return np.where(np.isnat(micros), np.nan, micros.astype(np.int64) / 86_400e6)


def _numbers(array: pa.Array, otherwise: float = 0.0) -> np.ndarray:
    filled = pc.if_else(pc.equal(array, ""), pa.scalar(None, pa.string()), pc.replace_substring(array, ",", "."))
    return pc.fill_null(filled.cast(pa.float64()), otherwise).to_numpy(zero_copy_only=False)


def _made(fields: Mapping[str, pa.Array], order: str) -> np.ndarray:
    """Days since 1970 from the parts of dates."""
    short = mask(pc.equal(pc.utf8_length(fields["y"]), 2))
    year = _numbers(fields["y"])
    year = np.where(short, year + np.where(year < 69, 2000, 1900), year).astype(np.int64)
    if "month" in fields:
        month = np.array([_MONTHS[name[:3].lower()] for name in fields["month"].to_pylist()], np.int64)
        day = _numbers(fields["d"], 1.0) if "d" in fields else np.ones(len(year))
    else:
        first, second = ("m", "d") if "m" in fields else ("b", "a") if order == "dmy" else ("a", "b")
        month, day = _numbers(fields[first]).astype(np.int64), _numbers(fields[second])
    begins = ((year - 1970) * 12 + np.clip(month, 1, 12) - 1).astype("datetime64[M]")
    whole = begins.astype("datetime64[D]") + (day.astype(np.int64) - 1)
    right = (month >= 1) & (month <= 12) & (day >= 1) & (whole.astype("datetime64[M]") == begins)
    result = whole.astype(np.int64).astype(np.float64)
    if "h" in fields:
        hours = _clock(fields)
        result += hours / 24
        if "zone" in fields:
            result -= np.array([_offset(zone) for zone in fields["zone"].to_pylist()]) / 24
        right &= ~np.isnan(hours)
    return np.where(right, result, np.nan)


def _clock(fields: Mapping[str, pa.Array]) -> np.ndarray:
    """Hours since midnight, NaN for a time that no clock shows."""
    hours, half = _numbers(fields["h"]), [(value or "")[:1].lower() for value in fields["half"].to_pylist()]
    twelve = np.array([value != "" for value in half])
    later = np.array([value == "p" for value in half])
    right = np.where(twelve, (hours >= 1) & (hours <= 12), hours < 24)
    hours = np.where(twelve, hours % 12 + 12 * later, hours)
    return np.where(right, hours + _numbers(fields["n"]) / 60 + _numbers(fields["s"]) / 3600, np.nan)


def _offset(zone: str | None) -> float:
    if not zone or zone[0] not in "+-":
        return 0.0
    return (1 if zone[0] == "+" else -1) * (int(zone[1:3]) + int(zone[-2:]) / 60)


def _hours(text: pa.StringArray) -> np.ndarray:
    """Times of day and durations as hours, NaN for anything else."""
    result = np.full(len(text), np.nan)
    for pattern in _HOURS:
        fields, there = _fields(text, pattern)
        rows = np.flatnonzero(there & np.isnan(result))
        if not len(rows):
            continue
        held = {name: array.take(pa.array(rows)) for name, array in fields.items()}
        some = np.any([_has(held[name]) for name in ("days", "h", "n", "s")], axis=0)
        if "half" in held and _has(held["half"]).any():
            twelve = _has(held["half"])
            hours = np.where(twelve, _clock(held), _sum_of(held))
        else:
            hours = _sum_of(held)
        hours = np.where(_has(held["minus"]), -hours, hours)
        result[rows] = np.where(some, hours, np.nan)
    return result


def _sum_of(fields: Mapping[str, pa.Array]) -> np.ndarray:
    sizes = {"days": 24.0, "h": 1.0, "n": 1 / 60, "s": 1 / 3600}
    return sum((_numbers(fields[name]) * size for name, size in sizes.items()), np.zeros(len(fields["h"])))


# -- how a column is written ----------------------------------------------------------------------------------------


@dataclass
class Writing:
    """What has been seen of a column that is no plain one, over all its lines.

    spaced: whether the file is cut by something else than commas.  Counts are of rows.
    """

    spaced: bool = False
    values: int = 0
    plain: int = 0  # numbers as Python reads them
    infinite: int = 0
    commas: int = 0  # numbers with nothing but a decimal comma
    units: dict[str, Counter[str]] = field(default_factory=dict)  # reading -> rows, of numbers with each unit
    few: set[str] = field(default_factory=set)  # digits, up to FEW + 1 of them
    dates: Counter[str] = field(default_factory=Counter)
    hours: int = 0
    others: dict[str, Counter[str]] = field(default_factory=dict)  # by kind, the first texts that are not of it
    shown: dict[str, str] = field(default_factory=dict)  # by kind, the first text that needs it
    texts: set[str] = field(default_factory=set)  # up to FEW + 1

    def add(self, text: pa.StringArray) -> None:
        """Take in a piece."""
        counted = text.drop_null().value_counts()
        texts, counts = counted.field("values"), counted.field("counts").to_numpy()
        if not len(texts):
            return
        self.values += int(counts.sum())
        if len(self.texts) <= FEW:
            self.texts |= set(texts[: FEW + 1].to_pylist())
        numeric = self._add_numbers(texts, counts)
        self._add_dates(texts, counts, numeric)
        hours = ~np.isnan(_hours(texts))
        self.hours += int(counts[hours].sum())
        self._keep("hours", texts, counts, hours)
        if hours.any():
            self.shown.setdefault("hours", texts[int(np.flatnonzero(hours)[0])].as_py())

    def _add_numbers(self, texts: pa.StringArray, counts: np.ndarray) -> np.ndarray:
        plain = mask(matches(texts, NUMBER))
        fields, found = _fields(texts, _AMOUNT)
        self.plain += int(counts[plain].sum())
        self.infinite += int(counts[plain & ~found].sum())
        self.commas += int(counts[mask(matches(texts, COMMA))].sum())
        rows = np.flatnonzero(found)
        held = {name: array.take(pa.array(rows)) for name, array in fields.items()}
        found_as, weight = readings(held["core"]), counts[rows]
        units = pd.Series(_unit(held)[0])
        for unit, where in units.groupby(units).indices.items():
            if unit not in self.units and len(self.units) >= _MOST:
                continue
            seen = self.units.setdefault(str(unit), Counter())
            for name, held_so in found_as.items():
                seen[name] += int(weight[where][held_so[where]].sum())
        if len(self.few) <= FEW:
            self.few |= set(held["core"].filter(pa.array(found_as["."] | found_as[","]))[: FEW + 1].to_pylist())
        readable = np.zeros(len(texts), bool)
        readable[rows] = found_as["."] | found_as[","]
        readable |= plain
        self._keep("number", texts, counts, readable)
        special = np.flatnonzero(readable & ~plain)
        if len(special):
            self.shown.setdefault("number", texts[int(special[0])].as_py())
        dotted = rows[found_as["point?"]]
        if len(dotted):
            self.shown.setdefault("point?", texts[int(dotted[0])].as_py())
        return readable

    def _add_dates(self, texts: pa.StringArray, counts: np.ndarray, numeric: np.ndarray) -> None:
        alone = ~np.isnan(days(texts))
        either = mask(pc.or_(*(matches(texts, pattern) for pattern in _EITHER))) & ~alone
        self.dates["alone"] += int(counts[alone].sum())
        dated = alone.copy()
        if either.any():
            for order in ("dmy", "mdy"):
                told = ~np.isnan(days(texts.filter(pa.array(either)), order))
                self.dates[order] += int(counts[either][told].sum())
                dated[np.flatnonzero(either)[told]] = True
            self.shown.setdefault("either", texts[int(np.flatnonzero(either)[0])].as_py())
        self._keep("date", texts, counts, dated)
        there = np.flatnonzero(dated)
        if len(there):
            self.shown.setdefault("date", texts[int(there[0])].as_py())

    def _keep(self, kind: str, texts: pa.StringArray, counts: np.ndarray, of_it: np.ndarray) -> None:
        others = self.others.setdefault(kind, Counter())
        for row in np.flatnonzero(~of_it)[:_MOST].tolist():
            word = texts[row].as_py()
            if word in others or len(others) < _MOST:
                others[word] += int(counts[row])

    @property
    def ambiguous(self) -> bool:
        """Whether nothing but the other lines tells a decimal point from one between thousands."""
        seen = self.units.get("", Counter[str]())
        return bool(seen["point?"]) and not seen["point"] and not seen["points"]

    # -- settling -----------------------------------------------------------------------------------------------

    def _tolerable(self, kind: str, read: int) -> bool:
        """Whether what is not read is so little, or such words, that it may count as missing."""
        strays = self.values - read
        if strays <= STRAYS * self.values:
            return True
        words = self.others[kind]
        if sum(words.values()) < strays:
            return False  # more different ones than were kept
        if all(word.casefold() in _KNOWN or (kind == "date" and not word.strip("0/.: T-")) for word in words):
            return strays <= _KNOWN_STRAYS * self.values
        plain = not any(letter.isdigit() for word in words for letter in word)
        return plain and len(words) <= _FEW_WORDS and strays <= _WORD_STRAYS * self.values

    def number(self) -> tuple[str, int]:
        """The form as numbers and how many values it reads; "" where they are none."""
        unit = max(
            (one for one in self.units if one), key=lambda one: self.units[one]["."] + self.units[one][","], default=""
        )
        seen = self.units.get("", Counter[str]()) + (self.units.get(unit, Counter()) if unit else Counter())
        bare = self.units.get("", Counter[str]())["whole"] + self.units.get("", Counter[str]())["point"]
        if unit in ("%", "‰") and bare > STRAYS * self.values:
            return "", 0  # 47% beside 0.47
        decimal = self._decimal(seen)
        read = seen[decimal] + (self.infinite if decimal == "." else 0)
        currency = unit in ("%", "‰") or any(not letter.isalpha() for letter in unit[:1]) or unit in _CODES.split("|")
        if unit and not currency and len(self.few) <= FEW:
            return "", 0  # `3 rooms`, `4 rooms`: categories that lose nothing
        if (read < self.values and len(self.few) <= FEW) or not self._tolerable("number", read):
            return "", read
        if decimal == "." and not unit and self.plain >= read:
            return "number", read
        if decimal == "," and self.commas and self.commas + self.plain >= read and not seen["point?"]:
            return "comma", read
        return f"amount {decimal}{unit}", read

    def _decimal(self, seen: Counter[str]) -> str:
        """The mark before decimals, by all lines: what only one reading makes sense of decides."""
        point, comma = seen["point"] + seen["commas"], seen["comma"] + seen["points"]
        if point or comma:
            return "." if point >= comma else ","
        if seen["comma?"]:
            thousands = seen["whole"] > seen["long"] or not self.spaced
            return "." if thousands or seen["point?"] else ","
        if seen["point?"] >= _CERTAIN and seen["whole"] and not seen["long"]:
            return ","
        return "."

    def date(self, order: str = "") -> tuple[str, int]:
        """The form as dates and how many values it reads; "" where they are none, "?" where day and month cannot be told.

        order: to be used where the values do not tell.
        """
        alone, dmy, mdy = (self.dates[name] for name in ("alone", "dmy", "mdy"))
        read = alone + max(dmy, mdy)
        if not read or not self._tolerable("date", read):
            return "", read
        if not dmy and not mdy:
            return "date", read
        if dmy == mdy:
            return (f"date {order}" if order else "?"), read
        return f"date {'dmy' if dmy > mdy else 'mdy'}", read

    def settled(self, order: str = "") -> tuple[str, int]:
        """The form and how many values it reads: `text`, or "?" where day and month cannot be told."""
        for form, read in (self.number(), self.date(order)):
            if form:
                return form, read
        if self.hours and self._tolerable("hours", self.hours):
            return "hours", self.hours
        return "text", 0

    def cliff(self) -> str:
        """Why a column that seems to hold numbers, dates or times is text; "" where it does not seem so, or loses nothing."""
        if len(self.texts) <= FEW:
            return ""
        numbers, dates = sum(seen["."] for seen in self.units.values()), self.dates["alone"] + self.dates["dmy"]
        count, words = max((numbers, "numbers"), (dates, "dates"), (self.hours, "times"))
        if count < _PLAUSIBLE * self.values:
            return ""
        kind = {"numbers": "number", "dates": "date", "times": "hours"}[words]
        units = [one for one, seen in self.units.items() if seen["."] + seen[","] > STRAYS * self.values]
        if kind == "number" and len(units) > 1:
            listed = ", ".join(repr(one) if one else "none" for one in units[:4])
            return f"its numbers have several units ({listed}), so they are taken as texts"
        other = next(iter(self.others[kind]), "")
        if not other:
            return ""
        return f"{count} of {self.values} values are {words}, but others are not, such as {other!r}: all are taken as texts"
