"""Files as people have them, and what becomes of their rows: all that go in are judged or named.

A case is an `Odd`; `through` sends it through look, fit, predict and evaluate. Other test files add cases of other kinds.
"""

from __future__ import annotations

import datetime
import gzip
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import papertrial
from papertrial.data import open as open_data

ROWS = 60


@dataclass(frozen=True)
class Odd:
    """name: of the file, with its ending.  content: text, bytes, or what writes the file or folder at a path.  rows: that a
    person counts in it.  right: least primary metric of a model on the rows it came from, where the file says it all.  says:
    what must be said.  asks: further arguments of `papertrial.open`."""

    name: str
    content: str | bytes | Callable[[Path], object]
    rows: int = ROWS
    target: str | None = "y"
    method: str = "linear"
    right: float | None = 0.9
    says: tuple[str, ...] = ()
    asks: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        path = folder / self.name
        if callable(self.content):
            self.content(path)
        else:
            path.write_bytes(self.content.encode() if isinstance(self.content, str) else self.content)
        return path


@dataclass(frozen=True)
class Account:
    """What became of the rows of a file, and the lines that say so."""

    seen: int
    judged: int
    answered: int
    value: float
    notes: tuple[str, ...]

    def named(self, without_target: bool = True) -> int:
        """Rows that some line says are left out, each line once."""
        kinds = [r"left out ([\d,]+) rows? (?:without any value|that repeat)"]
        if without_target:
            kinds.append(r"^([\d,]+) rows? without a (?:target|label)")
        found = [found[1] for note in dict.fromkeys(self.notes) for kind in kinds if (found := re.search(kind, note))]
        return sum(int(one.replace(",", "")) for one in found)


def through(case: Odd, folder: Path) -> Account:
    """Look at a file, train on it, and answer for and judge its rows, read anew as the model's data were."""
    path = case.write(folder)
    opened = open_data(path, case.target, **case.asks)
    page = opened.look()
    artifact = papertrial.fit(
        case.method, opened, target=case.target, out=folder / "run", budget="8trials", progress=False
    )
    again = open_data(path, like=artifact.card["state"].get("columns"))
    scores = artifact.evaluate(again)
    answers = artifact.predict(again)
    notes = (*page.notes, *opened.notes, *again.notes, *artifact.card["notes"])
    return Account(
        page.numbers["examples"],
        len(scores.per_example),
        len(answers["prediction"]),
        scores.metrics[artifact.task.primary_for(artifact.card["state"])[0]],
        notes,
    )


# -- what the cases are made of --------------------------------------------------------------------------------------

DRAW = np.random.default_rng(0)
NOISE = DRAW.normal(size=ROWS).round(4)
PLACES = DRAW.permutation(ROWS)  # a value for each row, of which half are high
HIGH = ["hi" if place >= ROWS // 2 else "lo" for place in PLACES]
DAYS = [
    datetime.datetime(2024, 1, 3) + datetime.timedelta(days=int(6 * place), hours=int(place % 24)) for place in PLACES
]


def lines(values, sep=",", label=None, head=("x", "v", "y")) -> str:
    """A table whose second column decides the third."""
    label = HIGH if label is None else label
    body = [sep.join(map(str, row)) for row in zip(NOISE, values, label, strict=True)]
    return "\n".join([*([sep.join(head)] if head else []), *body]) + "\n"


def quoted(values):
    return [f'"{value}"' for value in values]


def some(values, stray, every=20):
    return [stray if row % every == 7 else value for row, value in enumerate(values)]


def decided(name, written, **more) -> Odd:
    """By a number from 0 to 59, written in some way."""
    sep = more.pop("sep", ",")
    return Odd(name, lines([written(int(place)) for place in PLACES], sep), **more)


def numbers() -> Iterator[Odd]:
    yield decided("whole.csv", str)
    yield decided("broken.csv", lambda n: n / 7)
    yield decided("dollars.csv", lambda n: f'"${n * 173.5 + 900:,.2f}"', says=("is read as",))
    yield decided(
        "euros.csv",
        lambda n: f"{n * 173.5 + 900:,.2f} €".translate(str.maketrans(",.", ".,")),
        sep=";",
        says=("is read as",),
    )
    yield decided("codes_of_money.csv", lambda n: f"USD {n * 100}", says=("is read as",))
    yield decided(
        "brackets.csv",
        lambda n: f'"({1000 * (30 - n):,})"' if n < 30 else f'"{1000 * (n - 30):,}"',
        says=("is read as",),
    )
    yield decided("percent.csv", lambda n: f"{n * 1.7:.1f}%", says=("is read as",))
    yield decided("thousands.csv", lambda n: f'"{n * 97:,}"', says=("is read as",))
    yield decided("dots_between.csv", lambda n: f"{n * 97:,}".replace(",", "."), sep=";", says=("is read as",))
    yield decided("gaps.csv", lambda n: f"{n * 97:,}".replace(",", " "), says=("is read as",))
    yield decided("narrow_gaps.csv", lambda n: f"{n * 97:,}".replace(",", "\u202f"), says=("is read as",))
    yield decided("swiss.csv", lambda n: f"{n * 97:,}".replace(",", "'"), says=("is read as",))
    yield decided("indian.csv", lambda n: f'"{n + 1},23,456"', says=("is read as",))
    yield decided("decimal_comma.csv", lambda n: f"{n / 8}".replace(".", ","), sep=";", says=("decimal comma",))
    yield decided("decimal_comma_in_quotes.csv", lambda n: f'"{n / 8}"'.replace(".", ","), says=("decimal comma",))
    yield decided("units.csv", lambda n: f"{n} kg", says=("is read as",))
    yield decided("degrees.csv", lambda n: f"{n - 30}°C", says=("is read as",))
    yield decided("multiples.csv", lambda n: f"€{n * 100}K" if n < 10 else f"€{n / 10}M", says=("is read as",))
    yield decided("minus_behind.csv", lambda n: f"{30 - n}-" if n < 30 else n - 30, says=("is read as",))
    yield decided("true_minus.csv", lambda n: str(n - 30).replace("-", "\u2212"), says=("is read as",))
    yield decided("powers.csv", lambda n: f"{n * 1000:.3e}")
    yield decided("spaces.csv", lambda n: f"  {n} ")
    yield decided("hard_spaces.csv", lambda n: f"\u00a0{n}\u00a0")
    yield decided("in_quotes.csv", lambda n: f'"{n}"')
    for name, stray in {"unknown": "unknown", "formula": "#DIV/0!", "dot": ".", "stars": "**"}.items():
        yield Odd(f"{name}.csv", lines(some(PLACES, stray)), says=(f"the first is {stray!r}",))
    for name, mark in {"empty": "", "na": "NA", "none": "None", "null": "null", "dash": "-"}.items():
        yield Odd(
            f"{name}.csv", lines(some(PLACES, mark)), says=(f"taken for missing: {mark!r} (3 values)",) if mark else ()
        )
    yield Odd(
        "minus_999.csv", lines(some(PLACES, "-999")), asks={"missing": "-999"}, says=("taken for missing: '-999'",)
    )
    yield Odd("endless.csv", lines(some(PLACES, "inf")), says=("3 values are infinite",))


def moments() -> Iterator[Odd]:
    for name, form in {
        "iso": "%Y-%m-%d", "iso_slashes": "%Y/%m/%d", "iso_dots": "%Y.%m.%d", "day_first": "%d/%m/%Y", "month_first": "%m/%d/%Y",
        "dashes": "%d-%m-%Y", "dots": "%d.%m.%Y", "short_years": "%d/%m/%y", "names": "%d-%b-%Y", "whole_names": "%d %B %Y",
        "american": '"%b %d, %Y"', "zulu": "%Y-%m-%dT%H:%M:%SZ", "offset": "%Y-%m-%d %H:%M:%S+02:00", "half_days": "%m/%d/%Y %I:%M %p",
        "mail": '"%a, %d %b %Y %H:%M:%S +0000"', "unix": "%a %b %d %H:%M:%S %Y", "months": "%b %Y",
    }.items():  # fmt: skip
        yield Odd(f"{name}.csv", lines([day.strftime(form) for day in DAYS]), right=0.85 if name == "months" else 0.9)
    firsts = [f"{1 + place % 12:02d}/{1 + place // 12:02d}/2024" for place in PLACES]
    yield Odd("either_way.csv", lines(firsts), right=None, says=("day or month first? --dates dmy or --dates mdy",))
    yield Odd("told_which.csv", lines(firsts), right=None, asks={"dates": "mdy"}, says=("are read month first",))
    yield Odd("unknown_days.csv", lines(some([day.date() for day in DAYS], "unknown")), says=("are not dates",))
    yield Odd("no_days.csv", lines(some([day.date() for day in DAYS], "0000-00-00")), says=("are not dates",))
    yield decided("clock.csv", lambda n: f"{n // 3:02d}:{n % 3 * 20:02d}", says=("hours",))
    yield decided("seconds.csv", lambda n: f"{n // 3}:{n % 3 * 20:02d}:07", says=("hours",))
    yield decided(
        "pm.csv", lambda n: f"{(n // 3) % 12 or 12}:{n % 3 * 20:02d} {'AM' if n < 36 else 'PM'}", says=("hours",)
    )
    yield decided("durations.csv", lambda n: f"{n // 6}h {n % 6 * 10}m", says=("hours",))
    yield decided("iso_durations.csv", lambda n: f"PT{n // 6}H{n % 6 * 10}M", says=("hours",))
    yield decided("timedeltas.csv", lambda n: f"{n // 6} days 02:{n % 6 * 10:02d}:04", says=("hours",))


def codes() -> Iterator[Odd]:
    three = PLACES % 3
    odd = ["b" if place else "a" for place in three]
    yield Odd(
        "postcodes.csv",
        lines([("01234", "1234", "00501")[place] for place in three], label=odd),
        says=("begin with a zero are codes",),
    )
    yield Odd("large_ids.csv", lines([2**60 + 1 + place for place in three.tolist()], label=odd), says=("above 2^53",))
    yield Odd("letters.csv", lines([("7", "1", "A")[place] for place in three], label=odd))
    yield Odd(
        "two_spellings.csv",
        lines(
            ["A" if place == 2 else "1.0" if row % 2 else "1" for row, place in enumerate(three)],
            label=["b" if place == 2 else "a" for place in three],
        ),
        says=("same value in two spellings",),
    )
    yield Odd(
        "none_is_one.csv",
        lines(
            [("None", "NA", "Grvl")[place] for place in three],
            label=[("None", "Pave", "Grvl")[place] for place in three],
        ),
        says=("'None' (40 values in 'v', 'y') is taken as a text",),
    )
    for name, mark in {"cross": "x", "one": "1", "true": "TRUE"}.items():
        yield Odd(f"checkbox_{name}.csv", lines([mark if one == "hi" else "" for one in HIGH]))
    for name, (yes, no) in {"words": ("true", "false"), "capitals": ("Yes", "No"), "letters": ("Y", "N")}.items():
        yield Odd(f"flag_{name}.csv", lines([yes if one == "hi" else no for one in HIGH]))
    yield Odd(
        "flag_mixed.csv",
        lines(
            [
                ("1" if row % 2 else "True") if one == "hi" else ("0" if row % 2 else "false")
                for row, one in enumerate(HIGH)
            ]
        ),
    )
    yield Odd(
        "target_thousands.csv",
        lines(HIGH, label=[f'"{place * 100 + 100:,}"' for place in PLACES]),
        right=None,
        says=("is read as",),
    )
    yield Odd("no_target_in_some.csv", lines(PLACES, label=some(HIGH, "")), says=("3 rows without a target",))


def layouts() -> Iterator[Odd]:
    plain = lines(PLACES)
    yield Odd("sep.csv", "sep=;\n" + lines(PLACES, ";"))
    yield Odd("bom.csv", plain.encode("utf-8-sig"))
    yield Odd("wide.csv", plain.encode("utf-16"), says=())
    yield Odd(
        "western.csv",
        lines([f"é{place}" for place in PLACES % 4], label=["é" if place % 4 else "b" for place in PLACES]).encode(
            "cp1252"
        ),
        says=("Windows-1252",),
    )
    yield Odd("dos.csv", plain.replace("\n", "\r\n"))
    yield Odd("old_mac.csv", plain.replace("\n", "\r"))
    yield Odd("no_end.csv", plain.rstrip("\n"))
    yield Odd("no_header.csv", lines(PLACES, head=()), target="c2", says=("has no header line",))
    words = [("a", "b", "c")[place % 3] for place in PLACES]
    yield Odd(
        "no_header_of_words.csv",
        "".join(f"{word},{'u' if row % 2 else 'v'},{word * 2}\n" for row, word in enumerate(words)),
        target="c2",
        says=("has no header line",),
    )
    yield Odd(
        "years.csv",
        "1990,1991,y\n"
        + "".join(f"{place},{noise},{one}\n" for place, noise, one in zip(PLACES, NOISE, HIGH, strict=True)),
    )
    yield Odd(
        "ends_in_a_comma.csv", plain.replace("\n", ",\n").replace("y,\n", "y\n", 1), says=("lines end in a separator",)
    )
    yield Odd("all_end_in_a_comma.csv", plain.replace("\n", ",\n"), says=("has no name",))
    yield Odd(
        "row_names.csv",
        "x,v,y\n" + "".join(f'"{row}",{line}\n' for row, line in enumerate(plain.splitlines()[1:])),
        says=("is called 'row'",),
    )
    yield Odd(
        "blank_rows.csv", plain + ",,\n" * 1000, rows=ROWS + 1000, says=("left out 1,000 rows without any value",)
    )
    yield Odd("headers_inside.csv", plain + plain, rows=2 * ROWS + 1, says=("left out 1 row that repeat",), right=None)
    yield Odd("remarks.csv", "# made by hand\n#\n" + plain, says=("lines of remarks",))
    for name, sep in {"tabs.tsv": "\t", "pipes.csv": "|", "semicolons.csv": ";", "tabs.txt": "\t"}.items():
        yield Odd(name, lines(PLACES, sep))
    yield Odd("packed.csv.gz", gzip.compress(plain.encode()))
    yield Odd("twice.csv", lines(PLACES, head=("x", "x", "y")), says=("two columns are called",))
    yield Odd("nameless.csv", lines(PLACES // 2, head=("x", "", "y")), says=("has no name",))
    yield Odd("all_quoted.csv", pd.DataFrame({"x": NOISE, "v": PLACES, "y": HIGH}).to_csv(index=False, quoting=1))
    yield Odd("line_breaks.csv", lines([f'"{one}\nand more"' for one in HIGH]))
    yield Odd(
        "lone_quotes.tsv",
        lines([f'"{one}' if row % 9 == 0 else one for row, one in enumerate(HIGH)], "\t"),
        right=0.85,
        says=("quotes are part of the values",),
    )
    yield Odd("inches.csv", lines([f'{place}"' for place in PLACES]), right=None)
    yield Odd(
        "many_columns.csv",
        "".join(
            ",".join([*(f"n{n}" if row < 0 else str(row % 7 + n) for n in range(400)), "y" if row < 0 else HIGH[row]])
            + "\n"
            for row in range(-1, ROWS)
        ),
        right=None,
    )
    records = [
        {"x": float(noise), "v": int(place), "y": one} for noise, place, one in zip(NOISE, PLACES, HIGH, strict=True)
    ]
    yield Odd("records.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    yield Odd("records.json", json.dumps(records))
    yield Odd("columns.json", json.dumps({"x": NOISE.tolist(), "v": PLACES.tolist(), "y": HIGH}))
    yield Odd(
        "money.parquet",
        lambda path: pd.DataFrame({"x": NOISE, "v": [f"${place},000" for place in PLACES], "y": HIGH}).to_parquet(path),
        says=("is read as",),
    )

    def zipped(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("table.csv", plain)

    yield Odd("one.zip", zipped)


WORDS = {"pos": "good great lovely fine", "neg": "bad awful poor dull"}


def texts() -> Iterator[Odd]:
    draw = np.random.default_rng(1)
    label = ["pos" if place % 2 else "neg" for place in PLACES]
    said = [f"{' '.join(draw.choice(WORDS[one].split(), 5))} film number {row}" for row, one in enumerate(label)]
    how = {"method": "tfidf", "target": None, "right": 0.9}

    def of(name, rows, head="label\ttext\n", **more) -> Odd:
        return Odd(name, head + "".join(rows), **{**how, **more})

    yield of("labelled.tsv", [f"{one}\t{text}\n" for one, text in zip(label, said, strict=True)])
    yield of(
        "labelled.csv", [f'{one},"{text}, and so on"\n' for one, text in zip(label, said, strict=True)], "label,text\n"
    )
    yield of(
        "labelled_headless.tsv",
        [f"{one}\t{text}\n" for one, text in zip(label, said, strict=True)],
        "",
        says=("has no header",),
    )
    stray = [f'"{text}' if row % 10 == 3 else f'{text}"' if row % 10 == 6 else text for row, text in enumerate(said)]
    yield of(
        "labelled_quotes.tsv",
        [f"{one}\t{text}\n" for one, text in zip(label, stray, strict=True)],
        says=("quotes are part of the values",),
    )
    yield of(
        "labelled_quotes.txt",
        [f"{one}\t{text}\n" for one, text in zip(label, stray, strict=True)],
        says=("quotes are part of the values",),
    )
    yield of(
        "labelled_breaks.csv",
        [f'{one},"{text}\nsecond line"\n' for one, text in zip(label, said, strict=True)],
        "label,text\n",
    )
    long = [
        f'{one},"{text}{chr(10) * (15 if row == 5 else 1)}end"\n'
        for row, (one, text) in enumerate(zip(label, said, strict=True))
    ]
    yield of("labelled_long.csv", long, "label,text\n", says=("one value runs over 16 lines",))
    yield of(
        "label_none.tsv",
        [f"{'None' if one == 'neg' else one}\t{text}\n" for one, text in zip(label, said, strict=True)],
        says=("'None' (30 values in 'label') is taken as a text",),
    )
    score = [f"{5 * (place % 2)}.0" for place in PLACES]
    other = [text if one == "5.0" else said[row - 1] for row, (text, one) in enumerate(zip(said, score, strict=True))]
    pairs = {"method": "tfidf", "right": None}
    yield of(
        "pairs.tsv",
        [f"{a}\t{b}\t{c}\n" for a, b, c in zip(score, said, other, strict=True)],
        "score\tsentence1\tsentence2\n",
        **pairs,
    )
    yield of(
        "pairs_headless.tsv",
        [f"{a}\t{b}\t{c}\n" for a, b, c in zip(score, said, other, strict=True)],
        "",
        **pairs,
        says=("has no header",),
    )
    yield of(
        "pairs_quotes.tsv",
        [f"{a}\t{b}\t{c}\n" for a, b, c in zip(score, stray, other, strict=True)],
        "",
        **pairs,
        says=("quotes are part of the values",),
    )
    empty = ["", *score[1:]]
    yield of(
        "pairs_empty_score.tsv",
        [f"{a}\t{b}\t{c}\n" for a, b, c in zip(empty, said, other, strict=True)],
        "",
        **pairs,
        says=("has no header",),
    )
    yield of(
        "pairs.csv",
        [f'"{b}, yes","{c}",{a}\n' for a, b, c in zip(score, said, other, strict=True)],
        "sentence1,sentence2,score\n",
        **pairs,
    )


def cases() -> list[Odd]:
    return [*numbers(), *moments(), *codes(), *layouts(), *texts()]
