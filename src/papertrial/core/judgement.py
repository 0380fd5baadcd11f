"""What people said of outputs: ratings, preferences between two, answers to test questions, remarks; and what they were asked.

Judgements are files of one answer a row, JSON Lines or CSV, whose columns are the fields of `Rating`, `Preference`, `Check`
and `Remark`, and `kind`, which says which of these a row is (without it, the columns say so):

    {"kind": "rating", "item": "12", "system": "t5", "rater": "ann", "question": "quality", "value": 0.75}
    {"kind": "preference", "item": "12", "first": "t5", "second": "bart", "rater": "ann", "question": "better", "outcome": 1}
    {"kind": "check", "rater": "ann", "question": "quality", "right": true}
    {"kind": "remark", "item": "12", "system": "t5", "rater": "ann", "remark": "it is in Dutch", "judged": false}

A study's own file holds what was judged, too: `output` (of a pair `first_output` and `second_output`), and what was shown
beside it, such as `reference`.

What is asked is a `Template`, a TOML file; those in the folder `templates` have names, and `genie` is the default.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from papertrial.core.errors import DataError, did_you_mean
from papertrial.core.files import parse_json, to_json, write_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: what a row may leave out: one question is the usual case, and files from elsewhere name none
QUESTION = "quality"
#: of files of judgements, plain or .gz
ENDINGS = (".jsonl", ".csv", ".tsv")
#: how the texts of outputs are shown
FORMATS = ("text", "markdown")
_TEMPLATES = Path(__file__).parent / "templates"
_YES, _NO = ("true", "yes", "1"), ("false", "no", "0")


@dataclass(frozen=True)
class Rating:
    """What a rater said of one output: the text or image that `system` made for `item`.

    value: 0 (worst) to 1 (best).  at: when, ISO 8601; empty when not known.  seconds: how long it took, 0 when not known.
    Raises DataError for a value outside of 0 to 1 and for an item, system or rater without a name.
    """

    item: str
    system: str
    rater: str
    question: str
    value: float
    at: str = ""
    seconds: float = 0.0

    def __post_init__(self) -> None:
        _named(self, "item", "system", "rater", "question")
        _timed(self)
        if not 0 <= self.value <= 1:
            raise DataError(
                f"a value of {self.value:g} is not between 0 and 1", "map the scale to 0 (worst) to 1 (best)"
            )


@dataclass(frozen=True)
class Preference:
    """Which of two systems' outputs for `item` a rater preferred.

    outcome: 1 the first, 0 the second, 0.5 neither.  first, second: in the order of the file, whatever the rater saw.
    Raises DataError for another outcome, a system compared with itself, and names that are missing.
    """

    item: str
    first: str
    second: str
    rater: str
    question: str
    outcome: float
    at: str = ""
    seconds: float = 0.0

    def __post_init__(self) -> None:
        _named(self, "item", "first", "second", "rater", "question")
        _timed(self)
        if self.outcome not in (0, 0.5, 1):
            raise DataError(
                f"{self.outcome:g} is not an outcome", "write 1 for the first, 0 for the second, 0.5 for a tie"
            )
        if self.first == self.second:
            raise DataError(f"{self.first!r} is compared with itself", "name two systems")


@dataclass(frozen=True)
class Check:
    """An answer to a test question, whose right answer is known. question: its type, not the single question."""

    rater: str
    question: str
    right: bool

    def __post_init__(self) -> None:
        _named(self, "rater", "question")


@dataclass(frozen=True)
class Remark:
    """What a rater added in words. judged: False where the words say why the output could not be judged.

    system: of an output; first, second: of a pair.
    """

    item: str
    rater: str
    remark: str
    judged: bool = True
    system: str = ""
    first: str = ""
    second: str = ""
    at: str = ""

    def __post_init__(self) -> None:
        _named(self, "item", "rater", "remark")


def _named(row: Any, *names: str) -> None:
    for name in names:
        if not str(getattr(row, name)).strip():
            raise DataError(f"no {name} is given", f"name the {name}")


def _timed(row: Any) -> None:
    if not (row.seconds >= 0 and math.isfinite(row.seconds)):
        raise DataError(f"{row.seconds:g} seconds are not a duration", "write 0 where it is not known")


_KINDS: dict[str, type] = {"rating": Rating, "preference": Preference, "check": Check, "remark": Remark}
#: the column that only rows of this kind have
_TELLING = {"right": "check", "outcome": "preference", "value": "rating", "remark": "remark"}
_COLUMNS = ("kind", *dict.fromkeys(field.name for kind in _KINDS.values() for field in fields(kind)))
#: columns that hold yes or no
_ANSWERS = ("right", "judged")


@dataclass(frozen=True)
class Judgements:
    """All answers of a study, in the order they were given."""

    ratings: tuple[Rating, ...] = ()
    preferences: tuple[Preference, ...] = ()
    checks: tuple[Check, ...] = ()
    remarks: tuple[Remark, ...] = ()

    def __len__(self) -> int:
        return len(self.ratings) + len(self.preferences) + len(self.checks) + len(self.remarks)

    @classmethod
    def read(
        cls,
        path: Path | str,
        *,
        columns: Mapping[str, str] | None = None,
        words: Mapping[str, float | None] | None = None,
        scale: tuple[float, float] | None = None,
    ) -> Judgements:
        """From .jsonl, .csv or .tsv, plain or .gz; columns that are not known are passed over.

        columns: names of ours -> names in the file, for files from elsewhere: `{"item": "bbcid", "rater": "worker_id"}`.
        words: what an answer in words is worth, for `value` and `outcome`: `{"yes": 1, "no": 0}`, or a `Scale.by_word`; a row
        whose word is worth None is passed over.
        scale: (worst, best) of the numbers in `value`, where these are not 0 and 1.
        Raises DataError that names the file and the line.
        """
        path = Path(path)
        for name in columns or {}:
            if name not in _COLUMNS:
                raise DataError(f"judgements have no column {name!r}", did_you_mean(name, _COLUMNS))
        found: dict[str, list[Any]] = {kind: [] for kind in _KINDS}
        unseen = set((columns or {}).values())
        for line, row in _rows(path):
            unseen -= row.keys()
            ours = {**row, **{name: row.get(theirs) for name, theirs in (columns or {}).items()}}
            if words and any(words.get(str(ours.get(name)).strip(), 0) is None for name in ("value", "outcome")):
                continue
            try:
                kind, answer = _answer(ours, words or {}, scale)
            except DataError as error:
                for theirs in sorted(unseen):
                    raise DataError(f"{path} has no column {theirs!r}", did_you_mean(theirs, row)) from None
                raise DataError(f"{path}, line {line}: {error.problem}", error.fix) from None
            found[kind].append(answer)
        if not any(found.values()):
            raise DataError(f"{path} holds no judgements", "give a file with one answer per row")
        return cls(*(tuple(some) for some in found.values()))

    def write(self, path: Path | str, shown: Mapping[str, Mapping[str, Mapping[str, str]]] | None = None) -> Path:
        """As .jsonl or .csv, by the name of the file, in one step. Raises DataError for another name.

        shown: item -> {"": what stood beside its outputs, by column; system: {"output": its text}}, which is written beside
        each answer. A column that an answer has too gets the name `shown_...`.
        """
        path = Path(path)
        parts: tuple[tuple[Any, ...], ...] = (self.ratings, self.preferences, self.checks, self.remarks)
        rows = [
            {"kind": kind, **asdict(row), **_beside(asdict(row), shown or {})}
            for kind, part in zip(_KINDS, parts, strict=True)
            for row in part
        ]
        if path.suffix == ".jsonl":
            return write_text(path, "".join(to_json(row) + "\n" for row in rows))
        if path.suffix == ".csv":
            head = list(dict.fromkeys(name for row in rows for name in row)) or ["kind"]
            text = io.StringIO()
            writer = csv.DictWriter(text, head, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            return write_text(path, text.getvalue())
        raise DataError(f"judgements are not written as {path.name}", "end the name in .jsonl or .csv")


def _beside(row: Mapping[str, Any], shown: Mapping[str, Mapping[str, Mapping[str, str]]]) -> dict[str, str]:
    """The columns that tell what an answer is about."""
    item = shown.get(row.get("item", ""), {})
    found = {
        f"shown_{name}" if name in (*_COLUMNS, "output") else name: text for name, text in item.get("", {}).items()
    }
    for of, named in (("system", ""), ("first", "first_"), ("second", "second_")):
        found |= {f"{named}{name}": text for name, text in item.get(row.get(of) or "\0", {}).items()}
    return found


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number of the line, row) of a file."""
    packed = path.suffix == ".gz"
    ending = path.with_suffix("").suffix if packed else path.suffix
    if ending not in ENDINGS:
        raise DataError(f"{path} is not a file of judgements", "give a .jsonl, .csv or .tsv file")
    try:
        content = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"there is no {path}", "check the path") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error})", "give a file in UTF-8") from None
    yield from _json_rows(text, path) if ending == ".jsonl" else _csv_rows(text, path, ending)


def _json_rows(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, words in enumerate(text.split("\n"), 1):
        if not words.strip():
            continue
        try:
            row = parse_json(words)
        except ValueError as error:
            raise DataError(f"{path}, line {line}: not JSON ({error})", "write one object per line") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {line}: a {type(row).__name__}, not an object", "write one object per line")
        yield line, row


def _csv_rows(text: str, path: Path, ending: str) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(1 << 30)  # a whole output may be one cell
    delimiter = "\t" if ending == ".tsv" else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    try:
        for row in reader:
            if None in row:
                raise DataError(
                    f"{path}, line {reader.line_num}: more cells than the head has", "put quotes around commas"
                )
            yield reader.line_num, {name: cell for name, cell in row.items() if cell not in (None, "")}
    except csv.Error as error:
        line = reader.reader.line_num  # `reader.line_num` counts whole rows alone
        raise DataError(f"{path}, line {line}: {error}", "mend the quotes") from None


def _answer(
    row: Mapping[str, Any], words: Mapping[str, float | None], scale: tuple[float, float] | None
) -> tuple[str, Any]:
    """The kind of a row and what it says."""
    row = {name: cell for name, cell in row.items() if cell is not None}
    guess = next((kind for column, kind in _TELLING.items() if column in row), "")
    kind = str(row.get("kind", guess))
    if kind not in _KINDS:
        problem = f"{kind!r} is not a kind of judgement" if kind else "no value, no outcome and no right"
        raise DataError(problem, did_you_mean(kind, _KINDS) if kind else f"the columns are {', '.join(sorted(row))}")
    row = {"question": QUESTION, **row}
    known = {field.name: field for field in fields(_KINDS[kind])}
    cells = {name: _cell(name, cell, words) for name, cell in row.items() if name in known}
    if scale is not None and kind == "rating" and "value" in cells:
        cells["value"] = _on_scale(cells["value"], scale)
    missing = [name for name, field in known.items() if name not in cells and field.default is MISSING]
    if missing:
        raise DataError(f"a {kind} without {', '.join(missing)}", f"the columns are {', '.join(sorted(row))}")
    return kind, _KINDS[kind](**cells)


def _on_scale(value: float, scale: tuple[float, float]) -> float:
    """0 for the worst and 1 for the best of the scale."""
    worst, best = scale
    if not min(scale) <= value <= max(scale):
        raise DataError(f"a value of {value:g} is not on the scale from {worst:g} to {best:g}", "mend the scale")
    return (value - worst) / (best - worst)


def _cell(name: str, cell: Any, words: Mapping[str, float | None]) -> Any:
    if name in _ANSWERS:
        written = str(cell).strip().lower()
        if written not in (*_YES, *_NO):
            raise DataError(f"{name} is {cell!r}, neither true nor false", "write true or false")
        return written in _YES
    if name in ("value", "outcome", "seconds"):
        worth = None if name == "seconds" else words.get(str(cell).strip())
        if worth is not None:
            return float(worth)
        try:
            return float(cell)
        except (TypeError, ValueError):
            known = did_you_mean(str(cell), words) if words else "write a number"
            raise DataError(f"the {name} {cell!r} is not a number", known) from None
    return str(cell).strip()


@dataclass(frozen=True)
class Scale:
    """The answers one may give, in the order they are shown, and what each is worth, 0 (worst) to 1 (best)."""

    words: tuple[str, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.words) != len(self.values) or len(self.words) < 2:
            raise DataError(
                f"a scale with {len(self.words)} words and {len(self.values)} values", "give two or more of each"
            )
        if len(set(self.words)) < len(self.words) or not all(word.strip() for word in self.words):
            raise DataError("two answers of a scale have the same words, or none", "give each its own words")
        if not all(0 <= value <= 1 for value in self.values):
            raise DataError("a value of a scale is not between 0 and 1", "let 1 be the best answer and 0 the worst")

    @property
    def by_word(self) -> dict[str, float]:
        return dict(zip(self.words, self.values, strict=True))


@dataclass(frozen=True)
class Question:
    """One question on an output, or on a pair of them."""

    name: str
    text: str
    scale: Scale


@dataclass(frozen=True)
class Template:
    """What raters see. kind: `rating` (one output at a time) or `pair` (two side by side, whose scale is worth 1 for the
    first, 0 for the second and 0.5 for neither).  guidelines: shown before the first item.  source: where it comes from.
    format: `text`, as it is, or `markdown`, rendered without links, pictures and HTML.

    Raises DataError for what does not fit together.
    """

    name: str
    kind: str
    questions: tuple[Question, ...]
    guidelines: str = ""
    source: str = ""
    format: str = "text"

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise DataError(f"{self.format!r} is no format of texts", did_you_mean(self.format, FORMATS))
        if self.kind not in ("rating", "pair"):
            raise DataError(f"{self.kind!r} is not a kind of template", "write rating or pair")
        names = [question.name for question in self.questions]
        if not names or len(set(names)) < len(names) or not all(name.strip() for name in names):
            raise DataError("a template without questions, or with two of one name", "name each question differently")
        values = {value for question in self.questions for value in question.scale.values}
        if self.kind == "pair" and values - {0, 0.5, 1}:
            raise DataError("an answer to a pair that is not worth 1, 0.5 or 0", "let 1 be the first and 0 the second")


def templates() -> tuple[str, ...]:
    """Names of the templates that are there."""
    return tuple(sorted(path.stem for path in _TEMPLATES.glob("*.toml")))


def template(name: str = "genie") -> Template:
    """The template of that name, or from the TOML file of that name. Raises DataError that names the file."""
    path = Path(name) if name.endswith(".toml") else _TEMPLATES / f"{name}.toml"
    if not name.endswith(".toml") and name not in templates():
        raise DataError(f"there is no template {name!r}", f"{did_you_mean(name, templates())} or give a .toml file")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"there is no {path}", "check the path") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as TOML ({error})", "mend the file") from None
    try:
        return _template(path.stem, content)
    except DataError as error:
        raise DataError(f"{path}: {error.problem}", error.fix) from None


def _template(name: str, content: Mapping[str, Any]) -> Template:
    _only(content, "a template", "kind", "questions", "guidelines", "source", "format")
    asked = content.get("questions")
    if not isinstance(asked, list) or not all(isinstance(entry, dict) for entry in asked):
        raise DataError("no questions", "write [[questions]] with name, text and scale")
    return Template(
        name,
        _text(content, "kind", "rating"),
        tuple(_question(entry) for entry in asked),
        guidelines=_text(content, "guidelines", "").strip(),
        source=_text(content, "source", ""),
        format=_text(content, "format", "text"),
    )


def _question(entry: Mapping[str, Any]) -> Question:
    _only(entry, "a question", "name", "text", "scale")
    scale = entry.get("scale")
    if not isinstance(scale, dict):
        raise DataError("a question without a scale", "write scale = { words = [...], values = [...] }")
    _only(scale, "a scale", "words", "values")
    words, values = scale.get("words", []), scale.get("values", [])
    if not all(isinstance(word, str) for word in words) or not all(isinstance(value, int | float) for value in values):
        raise DataError("a scale whose words are no text or whose values are no numbers", "mend the scale")
    return Question(
        _text(entry, "name"), _text(entry, "text"), Scale(tuple(words), tuple(float(value) for value in values))
    )


def _text(content: Mapping[str, Any], name: str, default: str | None = None) -> str:
    value = content.get(name, default)
    if not isinstance(value, str):
        raise DataError(f"{name} is {'missing' if value is None else 'no text'}", f'write {name} = "..."')
    return value


def _only(content: Mapping[str, Any], what: str, *known: str) -> None:
    for name in content:
        if name not in known:
            raise DataError(f"{what} has no {name!r}", did_you_mean(name, known))
