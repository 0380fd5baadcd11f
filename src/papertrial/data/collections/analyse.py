"""From words to the terms that are counted: which words are left out, cut to their stem, or stripped of accents.

    stop   Leave out the words that say little: in English the 33 of Lucene's StandardAnalyzer, in other languages the
           commonest ones, by which `data.languages` knows them.
    stem   Cut each word to its stem with Snowball's algorithm for the language (Porter, 2001), in English Porter2.
    fold   Strip the accents of Latin, Greek and Cyrillic letters, so that `resume` finds `résumé`. Marks of other scripts
           are letters of their own and stay.

English words are folded before they are cut, as its algorithm knows no accents; others after, as theirs do.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from papertrial.core.errors import PapertrialError, did_you_mean
from papertrial.core.task import Ragged
from papertrial.data.languages import common_words, languages

PARTS = ("stop", "stem", "fold")
#: how the first stage of `retrieval` and an index make terms: nothing is left out
USUAL = "stem fold"
#: share of the documents whose language can be told that must be of one language for its rules to be followed
_MOST = 0.6
_ENGLISH = (
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these they this to"
    " was will with"
)
#: letters that Unicode does not take apart
_WHOLE = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ı": "i", "ħ": "h", "ŧ": "t"})


@dataclass(frozen=True)
class Analyser:
    """How words become terms. language: as `data.languages` names it, "" for none, which has no stems and no stop words.

    parts: of PARTS, separated by blanks; "" counts words as they are.  Raises PapertrialError for a part there is not.
    """

    language: str = ""
    parts: str = ""

    def __post_init__(self) -> None:
        for part in self.parts.split():
            if part not in PARTS:
                raise PapertrialError(f"words can't be made {part!r}", did_you_mean(part, PARTS))

    def terms(self, words: Sequence[str]) -> list[str]:
        """The terms of words in their order, without those that are left out."""
        return [term for word in words if (term := self.term(word))]

    def term(self, word: str) -> str:
        """The term of one word, lower case; empty where it is left out."""
        parts = self.parts.split()
        if "stop" in parts and word in stop_words(self.language):
            return ""
        first = "fold" in parts and self.language == "English"
        word = fold(word) if first else word
        if "stem" in parts and (cut := _stemmer(self.language)) is not None:
            word = cut.stemWord(word) or word
        return fold(word) if "fold" in parts and not first else word

    @property
    def key(self) -> str:
        """Differs where terms may differ: of the same words in another version of the stemmer, too."""
        if "stem" not in self.parts.split() or _stemmer(self.language) is None:
            return f"{self.language}:{self.parts}"
        import Stemmer

        return f"{self.language}:{self.parts}:snowball {Stemmer.version()}"

    def __str__(self) -> str:
        done = {"stop": "without stop words", "stem": "cut to their stems", "fold": "without accents"}
        able = [part for part in self.parts.split() if part == "fold" or rules(self.language)[part]]
        said = ", ".join(done[part] for part in able) or "as they are"
        return f"{self.language} words {said}" if self.language and able != ["fold"] else f"words {said}"


PLAIN = Analyser()


def usual(texts: Ragged) -> Analyser:
    """The analyser of documents: USUAL, by their language."""
    return Analyser(main_language(texts), USUAL)


def main_language(texts: Ragged) -> str:
    """The language of most of those texts whose language can be told; "" where they are of several.

    Names and titles tell nothing: in letters of ASCII alone they are taken for English.
    """
    shares = {name: share for name, share in languages([texts]).items() if name != "unknown"}
    if not shares:
        return "English" if not (texts.values >= 128).any() else ""
    name = next(iter(shares))
    return name if shares[name] >= _MOST * sum(shares.values()) else ""


def rules(language: str) -> dict[str, bool]:
    """Which of the parts that depend on the language are there for it."""
    return {"stop": bool(stop_words(language)), "stem": _stemmer(language) is not None}


@cache
def stop_words(language: str) -> frozenset[str]:
    """Lower case; none for a language without a list."""
    return frozenset(_ENGLISH.split()) if language == "English" else common_words(language)


def fold(word: str) -> str:
    """Without the accents of Latin, Greek and Cyrillic letters."""
    if word.isascii():
        return word
    bare = "".join(letter for letter in unicodedata.normalize("NFD", word) if not "\u0300" <= letter <= "\u036f")
    return unicodedata.normalize("NFC", bare).translate(_WHOLE)


@cache
def _stemmer(language: str) -> Any:
    """Of Snowball; None for a language it does not know."""
    import Stemmer

    name = language.lower()
    return Stemmer.Stemmer(name) if name in Stemmer.algorithms() else None
