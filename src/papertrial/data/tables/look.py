"""The facts page of a table: what is in it, what is missing, what repeats, and what gives the target away."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from papertrial.core.wording import counted
from papertrial.data.base import Look
from papertrial.data.tables.row_hashes import DIGITS, combined, conflicting, repeated

if TYPE_CHECKING:
    from papertrial.data.tables import Table

SAMPLE = 20_000  # rows on which columns are tried against the target
_LEAST = 50  # labelled rows for such a trial
_NUMERIC = ("numeric", "boolean", "date", "checkbox")
_SUSPECT = r"(?i)^(target|label|labels|y|outcome|prediction|predictions|predicted|pred|y_?(true|pred|hat)|score|ground_?truth)$"


def look(table: Table) -> Look:
    """Examples, columns, missing values, target, split, repeats and leaks of a table, as words and as numbers."""
    page = Look(table.name, "table")
    numbers = page.numbers
    used = table.used
    numbers["kind"] = "table"
    numbers["examples"] = table.rows
    numbers["columns"] = len(table.columns)
    numbers["numeric"] = sum(column.type in _NUMERIC for column in used)
    numbers["categorical"] = sum(column.type == "categorical" for column in used)
    numbers["cardinalities"] = {column.name: len(column.categories) for column in used if column.type == "categorical"}
    page.facts.append(("examples", _number(table.rows)))
    types = [f"{sum(column.type == type_ for column in used)} {type_}" for type_ in (*_NUMERIC, "categorical")]
    page.facts.append(
        ("columns", ", ".join(words for words in types if words[0] != "0") or "none that a model could use")
    )
    _unused(table, page)
    _missing(table, page)
    _target(table, page)
    _parts(table, page)
    _repeats(table, page)
    _leaks(table, page)
    return page


def _unused(table: Table, page: Look) -> None:
    unused = [column for column in table.columns.values() if not column.use and column.name != table.target]
    page.numbers["unused"] = {column.name: column.why for column in unused}
    page.numbers["constant"] = [column.name for column in unused if column.type == "constant"]
    page.numbers["ids"] = [column.name for column in unused if column.type == "id"]
    if unused:
        page.facts.append(("not used", _listed([f"{column.name} ({column.why})" for column in unused], "; ")))
    cut = [column for column in table.used if column.why]
    page.notes += [f"column {column.name!r}: {column.why}" for column in cut]


def _missing(table: Table, page: Look) -> None:
    features = [column for column in table.columns.values() if column.name != table.target]
    total = sum(column.missing for column in features)
    page.numbers["missing"] = total
    worst = sorted((column for column in features if column.missing), key=lambda column: -column.missing)
    page.numbers["missing_columns"] = {column.name: column.missing for column in worst}
    if worst:
        named = [f"{column.name} {column.missing / table.rows:.1%}" for column in worst]
        words = (
            f"{_number(total)} values ({total / (table.rows * len(features)):.1%}); most in {_listed(named, ', ', 3)}"
        )
    else:
        words = "none"
    page.facts.append(("missing", words))


def _target(table: Table, page: Look) -> None:
    numbers = page.numbers
    numbers.update(target=table.target, target_kind=table.target_kind, classes=0, labelled=0)
    if table.target is None:
        page.facts.append(("target", "none"))
        return
    column = table.columns[table.target]
    numbers["labelled"] = table.rows - column.missing
    if table.target_kind is None:
        words = "one value only" if column.unique else "every value is missing"
    elif table.target_kind == "regression":
        values = table.values()
        known = values[~np.isnan(values)].astype(np.float64)
        low, middle, high = (float(np.quantile(known, at)) for at in (0, 0.5, 1))
        numbers.update(
            target_min=low,
            target_median=middle,
            target_max=high,
            target_mean=float(known.mean()),
            target_std=float(known.std()),
        )
        words = f"a number from {low:.6g} to {high:.6g}, half below {middle:.6g}"
    else:
        codes, classes = table.labels()
        counts = np.bincount(codes[codes >= 0], minlength=len(classes))
        numbers.update(classes=len(classes), class_names=list(classes), class_counts=counts.tolist())
        order = np.argsort(-counts, kind="stable")
        shares = [f"{classes[index]} {counts[index] / counts.sum():.1%}" for index in order]
        words = f"{len(classes)} classes: {_listed(shares, ', ', 6)}"
    if column.missing:
        words += f"; {counted(column.missing, 'row')} without"
    page.facts.append(("target", f"{table.target}: {words}"))


def _parts(table: Table, page: Look) -> None:
    counts = np.bincount(table.part[table.part >= 0], minlength=3).tolist()[:3]
    page.numbers.update(
        given_split=table.given_split, train=counts[0], valid=counts[1], test=counts[2], moved=table.moved
    )
    if counts[1] or counts[2]:
        named = [
            f"{_number(count)} {name}"
            for count, name in zip(counts, ("train", "validation", "test"), strict=True)
            if count
        ]
        words = f"given: {', '.join(named)}"
        if table.moved:
            words += f"; {_number(table.moved)} of them moved to train, being there already"
        page.facts.append(("split", words))


def _repeats(table: Table, page: Look) -> None:
    """Equal rows, rows equal to three digits, and equal features with different targets; ids and splits left out."""
    rows, numbers = table.rows, page.numbers
    numbers.update(duplicates=0, near_duplicates=0, conflicting=0)
    told = [
        column
        for column in table.columns.values()
        if column.type not in ("id", "empty", "constant")
        and column.name not in (table.split_column, table.group, table.time)
    ]
    if not table.used or not told:
        return
    views = [table.bits(column.name) if column.form == "text" else table.floats(column.name) for column in told]
    exact = repeated(combined(views, rows))
    near = repeated(combined(views, rows, DIGITS)) - exact
    numbers.update(duplicates=exact, near_duplicates=max(near, 0))
    usual = " (expected: the columns have few possible rows)" if table.repeats_expected else ""
    if exact or near > 0:
        page.facts.append(
            (
                "duplicates",
                f"{counted(exact, 'row')} like another; {_number(max(near, 0))} more agree to {DIGITS} digits{usual}",
            )
        )
    else:
        page.facts.append(("duplicates", "none"))
    if table.target is not None and table.columns[table.target].unique > 1:
        bits = table.bits(table.target)
        known = ~table.absent(table.target)
        numbers["conflicting"] = conflicting(table.row_hashes[known], bits[known])
        if numbers["conflicting"]:
            page.facts.append(
                ("conflicts", f"{counted(numbers['conflicting'], 'row')} with a twin of another target{usual}")
            )


def _leaks(table: Table, page: Look) -> None:
    """Columns that alone predict the target on held-out rows, and columns named like a target."""
    scores: dict[str, float] = leak_scores(table)
    page.numbers["leaks"] = {name: round(score, 4) for name, score in scores.items()}
    if scores:
        page.facts.append(
            (
                "leaks",
                f"{_listed(list(scores), ', ')} alone give the target away"
                if len(scores) > 1
                else f"{next(iter(scores))} alone gives the target away",
            )
        )
        page.notes.append(
            "a column that gives the target away is useless unless it is known when predicting: if not, remove it from the file"
        )
    suspects = [column.name for column in table.used if re.match(_SUSPECT, column.name) and column.name not in scores]
    page.numbers["suspects"] = suspects
    if suspects:
        page.notes.append(f"named like a target or a prediction, but used as input: {', '.join(suspects)}")


def leak_scores(table: Table) -> dict[str, float]:
    """{column: score} of the columns whose value alone predicts the target of held-out rows nearly without error.

    On half of at most 20 000 labelled rows the target is remembered per distinct value; the other half is predicted
    from the nearest remembered value (of text: the same one). Score: accuracy for classes, reported with at most one
    error in a thousand rows (or three) and 40 times fewer than the commonest class makes; explained share of the
    variance of ranks for numbers, reported from 0.999.
    """
    if table.target is None or table.target_kind is None:
        return {}
    known = np.flatnonzero(~table.absent(table.target))
    if len(known) < _LEAST:
        return {}
    draw = np.random.default_rng(0)
    chosen = np.sort(draw.choice(known, min(SAMPLE, len(known)), replace=False))
    learn = draw.permutation(len(chosen)) < len(chosen) // 2
    if table.target_kind == "regression":
        from scipy.stats import rankdata

        target = rankdata(table.floats(table.target)[chosen])[:, None]
        target -= target.mean()
    else:
        codes = _codes_of(table.bits(table.target)[chosen])
        if codes.max() >= 100:
            return {}
        target = np.eye(codes.max() + 1)[codes]
    found = {}
    for column in table.used:
        values: Any = table.bits(column.name)[chosen]
        if column.form != "text":
            values = np.nan_to_num(values.view(np.float64), nan=np.finfo(np.float64).max)
        predicted = _remembered(values[learn], target[learn], values[~learn], exact=column.form == "text")
        score = _score(predicted, target[~learn], target[learn].mean(0), table.target_kind)
        if score is not None:
            found[column.name] = score
    return found


def _codes_of(bits: np.ndarray) -> np.ndarray:
    return np.unique(bits, return_inverse=True)[1]


def _remembered(known: np.ndarray, target: np.ndarray, asked: np.ndarray, *, exact: bool) -> np.ndarray:
    """The mean target (len(asked), k) of the known value nearest to each asked one; with `exact`, of the same one only."""
    values, group = np.unique(known, return_inverse=True)
    sums = np.stack([np.bincount(group, column, len(values)) for column in target.T], axis=1)
    means = sums / np.bincount(group, minlength=len(values))[:, None]
    right = np.minimum(np.searchsorted(values, asked), len(values) - 1)
    if exact:
        return np.where((values[right] == asked)[:, None], means[right], target.mean(0))
    left = np.maximum(right - 1, 0)
    with np.errstate(over="ignore"):
        nearest = np.where(np.abs(asked - values[left]) <= np.abs(values[right] - asked), left, right)
    return means[nearest]


def _score(predicted: np.ndarray, target: np.ndarray, usual: np.ndarray, kind: str) -> float | None:
    if kind == "regression":
        score = 1.0 - float(((predicted - target) ** 2).sum() / max(float((target**2).sum()), 1e-12))
        return score if score >= 0.999 else None
    truth = target.argmax(1)
    wrong = int(np.count_nonzero(predicted.argmax(1) != truth))
    baseline = int(np.count_nonzero(usual.argmax() != truth))
    boundary = max(3.0, 0.001 * len(truth))  # rows beside a threshold whose nearest remembered row lies across it
    return 1.0 - wrong / len(truth) if wrong <= boundary and wrong <= 0.025 * baseline and baseline >= 5 else None


def _number(value: int) -> str:
    return f"{value:,}"


def _listed(words: list[str], between: str, most: int = 6) -> str:
    return between.join(words[:most]) + (f"{between}and {len(words) - most} more" if len(words) > most else "")
