"""The facts page of texts and pairs: how much there is, in which languages, what repeats, what is damaged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from papertrial.core.budget import size_in_words
from papertrial.core.task import Ragged
from papertrial.core.wording import counted
from papertrial.data.base import Look
from papertrial.data.languages import languages
from papertrial.data.texts.utf8 import chunks, same

if TYPE_CHECKING:
    from papertrial.data.texts import Texts
    from papertrial.data.texts.pairs import Pairs

_SHOWN, _WIDTH = 3, 90  # examples shown, and characters of each
_LONG = 1 << 20  # bytes of one text that are worth a note
_IMBALANCE, _FEW = 10, 10
_SPACE = np.isin(np.arange(256), list(b" \t\n\r\x0b\x0c"))
_CONTROL = np.isin(np.arange(256), [*range(9), 11, *range(14, 32), 127])


def look(texts: Texts) -> Look:
    """Texts, size, languages, classes, split and duplicates, as words and as numbers, and a few examples."""
    numbers: dict[str, Any] = {"kind": "text", "examples": len(texts), "target": texts.columns.get("target")}
    page = Look(texts.name, "text", numbers=numbers)
    _amount(page, texts.texts, texts.unit, texts.names)
    _languages(page, [texts.texts])
    _classes(page, texts.labels, texts.class_names)
    _parts(page, texts)
    exact = same(texts.texts)
    _duplicates(page, exact, texts.copies)
    numbers["conflicting_labels"] = _conflicts(texts.copies, texts.labels)
    if numbers["conflicting_labels"]:
        page.notes.append(
            f"{counted(numbers['conflicting_labels'], 'text')} given more than once, with different labels"
        )
    _damage(page, texts.texts, texts.empty)
    _examples(page, [texts.texts], texts.labels, texts.class_names)
    page.notes += texts.notes
    return page


def look_pairs(pairs: Pairs) -> Look:
    """Pairs, size, languages, scores or classes, split and duplicates, as words and as numbers, and a few examples."""
    known = np.isfinite(pairs.scores)
    numbers: dict[str, Any] = {"kind": "pairs", "examples": len(pairs), "target": pairs.columns.get("target")}
    page = Look(pairs.name, "pairs", numbers=numbers)
    both = Ragged(
        np.concatenate([pairs.first.values, pairs.second.values]),
        np.concatenate([pairs.first.offsets, pairs.second.offsets[1:] + len(pairs.first.values)]),
    )
    _amount(page, both, "pair", np.concatenate([pairs.names, pairs.names]), len(pairs))
    numbers["distinct_texts"] = len(np.unique(pairs.sides))
    _languages(page, [pairs.first, pairs.second])
    _classes(page, pairs.labels, pairs.class_names)
    numbers["scored"] = int(known.sum())
    if known.any():
        low, middle, high = (float(np.quantile(pairs.scores[known], at)) for at in (0, 0.5, 1))
        numbers.update(
            labelled=numbers["scored"], score_min=low, score_median=middle, score_max=high, target_kind="regression"
        )
        missing = f"; {counted(len(pairs) - known.sum(), 'pair')} without" if not known.all() else ""
        page.facts.append(("scores", f"from {low:g} to {high:g}, half below {middle:g}{missing}"))
    _parts(page, pairs)
    exact = np.unique(np.stack([same(pairs.first), same(pairs.second)]), axis=1, return_inverse=True)[1].reshape(-1)
    _duplicates(page, exact, pairs.copies)
    _damage(page, both, pairs.empty)
    _examples(page, [pairs.first, pairs.second], pairs.labels, pairs.class_names, pairs.scores)
    page.notes += pairs.notes
    return page


def _amount(page: Look, texts: Ragged, unit: str, names: Any, count: int | None = None) -> None:
    """Bytes, characters, words, and how long the texts are."""
    lengths = texts.lengths
    characters = words = 0
    for some in map(texts.__getitem__, chunks(texts)):
        values = some.values[some.offsets[0] : some.offsets[-1]]
        characters += int(np.count_nonzero((values & 0xC0) != 0x80))
        filled = ~_SPACE[values]
        begins = np.ones(len(values) + 1, bool)
        begins[1:] = ~filled
        begins[some.offsets - some.offsets[0]] = True
        words += int(np.count_nonzero(filled & begins[:-1]))
    longest = int(lengths.argmax())
    where = names[longest]
    usual, most = int(np.median(lengths)), int(lengths[longest])
    page.numbers.update(
        bytes=texts.nbytes,
        characters=characters,
        words=words,
        median_bytes=usual,
        length=int(np.quantile(lengths, 0.95)),
        longest_bytes=most,
        longest_at=str(where),
    )
    number = len(texts) if count is None else count
    page.facts.append((f"{unit}s", f"{number:,}"))
    page.facts.append(("size", f"{size_in_words(texts.nbytes)}, {characters:,} characters, {words:,} words"))
    at = where if isinstance(where, str) else f"{unit} {where}"
    page.facts.append(
        (
            "length",
            f"median {size_in_words(usual)}, 95 % up to {size_in_words(page.numbers['length'])}, longest {size_in_words(most)} ({at})",
        )
    )
    if most > _LONG:
        page.notes.append(
            f"the longest text is {size_in_words(most)}: a model reads the beginning of what is longer than it takes"
        )


def _languages(page: Look, sides: Sequence[Ragged]) -> None:
    shares = languages(sides)
    page.numbers["languages"] = shares
    named = [f"{name} {share:.0%}" for name, share in shares.items() if share >= 0.01 and name != "unknown"]
    words = ", ".join(named[:5]) + (f", and {len(named) - 5} more" if len(named) > 5 else "")
    unknown = shares.get("unknown", 0.0)
    page.facts.append(
        (
            "languages",
            f"{words or 'unknown'}{f'; {unknown:.0%} unknown' if words and unknown >= 0.01 else ''} (a guess)",
        )
    )


def _classes(page: Look, labels: np.ndarray, class_names: Sequence[str]) -> None:
    known = labels[labels >= 0]
    counts = np.bincount(known, minlength=len(class_names))
    kinds = {0: None, 1: None, 2: "binary"}
    page.numbers.update(
        labelled=len(known),
        unlabelled=len(labels) - len(known),
        classes=len(class_names),
        class_names=list(class_names),
        class_counts=dict(zip(class_names, counts.tolist(), strict=True)),
        target_kind=kinds.get(len(class_names), "multiclass"),
    )
    if not len(known):
        return
    order = np.argsort(-counts, kind="stable")
    shares = [f"{class_names[index]} {counts[index] / len(known):.1%}" for index in order]
    words = (
        f"{len(class_names)}: " + ", ".join(shares[:6]) + (f", and {len(shares) - 6} more" if len(shares) > 6 else "")
    )
    page.facts.append(
        ("classes", words + (f"; {len(labels) - len(known):,} without a label" if len(known) < len(labels) else ""))
    )
    if len(class_names) == 1:
        page.notes.append(f"there is one class only ({class_names[0]}): nothing to tell apart")
    few = [class_names[index] for index in np.flatnonzero(counts < _FEW).tolist()]
    if few:
        page.notes.append(
            f"classes with fewer than {_FEW} texts: {', '.join(few[:5])}{', ...' if len(few) > 5 else ''}"
        )
    if counts.max() > _IMBALANCE * max(1, counts.min()):
        page.notes.append("the classes are imbalanced by more than 10 to 1: accuracy alone will look too good")


def _parts(page: Look, data: Texts | Pairs) -> None:
    counts = np.bincount(data.part[data.part >= 0], minlength=3).tolist()[:3]
    page.numbers.update(
        given_split=data.given_split, train=counts[0], valid=counts[1], test=counts[2], moved_duplicates=data.moved
    )
    if counts[1] or counts[2]:
        named = zip(counts, ("train", "validation", "test"), strict=True)
        page.facts.append(("split", "given: " + ", ".join(f"{count:,} {name}" for count, name in named if count)))


def _duplicates(page: Look, exact: np.ndarray, groups: np.ndarray) -> None:
    surplus = len(exact) - len(np.unique(exact))
    near = len(groups) - len(np.unique(groups)) - surplus
    page.numbers.update(exact_duplicates=surplus, near_duplicates=near)
    page.facts.append(
        (
            "duplicates",
            f"{surplus:,} exact, {near:,} but for case, blanks and punctuation" if surplus or near else "none",
        )
    )


def _conflicts(groups: np.ndarray, labels: np.ndarray) -> int:
    """How many different texts carry more than one label."""
    pairs = np.unique(np.stack([groups, labels], axis=1)[labels >= 0], axis=0)
    return int((np.bincount(pairs[:, 0]) > 1).sum()) if len(pairs) else 0


def _damage(page: Look, texts: Ragged, empty: np.ndarray) -> None:
    """Control characters, signs of text that was decoded wrongly before it came here, and empty examples."""
    controls = replaced = mangled = 0
    for some in map(texts.__getitem__, chunks(texts)):
        content = some.values[some.offsets[0] : some.offsets[-1]]
        controls += int(np.count_nonzero(_CONTROL[content]))
        held = content.tobytes()
        replaced += held.count("\ufffd".encode())
        mangled += held.count("Ã©".encode()) + held.count("â€™".encode()) + held.count("Ã¼".encode())
    page.numbers.update(
        control_characters=controls, replacement_characters=replaced, mangled=mangled, empty=int(empty.sum())
    )
    found = [
        (controls, "control character", ", kept in place"),
        (replaced, "character", " that an earlier program could not read (U+FFFD)"),
        (mangled, "letter", " decoded wrongly before, such as Ã©"),
        (int(empty.sum()), "empty example", ", skipped in training"),
    ]
    page.notes += [counted(count, word) + more for count, word, more in found if count]


def _examples(
    page: Look,
    sides: Sequence[Ragged],
    labels: np.ndarray,
    class_names: Sequence[str],
    scores: np.ndarray | None = None,
) -> None:
    """A few texts, spread over the data, or one of each class."""
    if (labels >= 0).any():
        rows = np.unique(labels, return_index=True)[1]
        rows = rows[labels[rows] >= 0][:_SHOWN]
    else:
        filled = np.flatnonzero(np.minimum.reduce([side.lengths for side in sides]) > 0)
        rows = filled[np.unique(np.linspace(0, len(filled) - 1, _SHOWN).astype(np.int64))] if len(filled) else filled
    shown = []
    for row in rows.tolist():
        words = " | ".join(_cut(side[row][: 4 * _WIDTH].tobytes().decode("utf-8", "ignore")) for side in sides)
        mark = f"{class_names[int(labels[row])]}: " if labels[row] >= 0 else ""
        mark = f"{scores[row]:g}: " if scores is not None and np.isfinite(scores[row]) else mark
        shown.append(mark + words)
    page.numbers["shown"] = shown
    page.facts += [("such as" if not place else "", words) for place, words in enumerate(shown)]


def _cut(text: str) -> str:
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    line = " ".join(line.split())
    return line if len(line) <= _WIDTH else line[: _WIDTH - 3] + "..."
