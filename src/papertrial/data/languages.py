"""Which languages texts are written in, guessed from their letters and their commonest words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from papertrial.core.task import Ragged

_SAMPLE, _HEAD = 2000, 1000  # texts looked at for their language, and characters of each
_TELLING = 30  # characters from which a text is worth a guess at its language

_SCRIPTS = (
    ("Greek", "\u0370-\u03ff"),
    ("Hebrew", "\u0590-\u05ff"),
    ("Hindi", "\u0900-\u097f"),
    ("Bengali", "\u0980-\u09ff"),
    ("Tamil", "\u0b80-\u0bff"),
    ("Thai", "\u0e00-\u0e7f"),
    ("Georgian", "\u10a0-\u10ff"),
    ("Korean", "\u1100-\u11ff\uac00-\ud7af"),
    ("Japanese", "\u3040-\u30ff"),
    ("Arabic", "\u0600-\u06ff"),
    ("Cyrillic", "\u0400-\u04ff"),
    ("Chinese", "\u4e00-\u9fff"),
)
_LETTERS = [(name, re.compile(f"[{span}]")) for name, span in _SCRIPTS]
_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f\u1e00-\u1eff]")
_WORD = re.compile(r"[^\W\d_]+")
# words of two letters or more that are common in one language; one that stands in several counts for each of them
_COMMON = {
    "English": "the of and to in is that it was for with as his this be on not are have from you they which were their what",
    "German": "der die und das ist nicht ein eine zu den mit von auf sich für als auch dem dass wird sind wie oder",
    "French": "le la les des et est une un dans que qui pour pas sur au avec il elle sont du ce cette par",
    "Spanish": "el la los las de que en un una es por con para no se del al lo como más su está",
    "Italian": "il la di che un una per non sono con del della gli nel alla anche come questo più lo",
    "Portuguese": "os as de em que um uma não para com do da por mais dos das ao se está como",
    "Dutch": "de het een en van is dat niet op te zijn voor met die er aan ook als maar bij door",
    "Polish": "na nie się że do jest to jak po co tak od za oraz przez są dla ale był",
    "Swedish": "och att det som en är på för med av inte den till ett om har var jag från eller",
    "Danish": "og at det som en er på for med af ikke den til et om har var jeg fra eller",
    "Finnish": "ja on ei se että oli hän mutta ovat kun niin myös joka jos kuin sen tai mitä ole",
    "Turkish": "ve bir bu da de için ile çok olarak daha gibi ne kadar olan değil var ama en sonra",
    "Czech": "se na je že to do jako ale za by pro jsem byl které nebo také jsou",
    "Romanian": "și de la în cu că nu este un pe din sunt care mai pentru fost să",
    "Indonesian": "yang dan di itu dengan untuk tidak ini dari dalam akan pada juga saya ke karena ada",
    "Vietnamese": "và của là không có được cho trong một người này với đã các những khi đến",
}
_LANGUAGES_OF: dict[str, list[str]] = {}
for _name, _words in _COMMON.items():
    for _word in set(_words.split()):
        _LANGUAGES_OF.setdefault(_word, []).append(_name)


def common_words(name: str) -> frozenset[str]:
    """Words that are common in a language, lower case; none for one that is told by its script."""
    return frozenset(_COMMON.get(name, "").split())


def languages(sides: Sequence[Ragged]) -> dict[str, float]:
    """Language -> share of the texts, the commonest first, guessed from some of them."""
    found, short = Counter[str](), Counter[str]()
    for side in sides:
        rows = np.unique(np.linspace(0, len(side) - 1, min(_SAMPLE, len(side))).astype(np.int64))
        heads = np.minimum(side.lengths[rows], 4 * _HEAD)
        for row, length in zip(rows.tolist(), heads.tolist(), strict=True):
            head = side[row][:length].tobytes().decode("utf-8", "ignore")[:_HEAD]
            (short if len(head) < _TELLING else found)[language(head)] += 1
    found = found or short  # texts that are too short to tell are left out where there are others
    return {name: round(count / found.total(), 4) for name, count in found.most_common()}


def language(text: str) -> str:
    """A guess from the script and, in Latin letters, from common words; `unknown` where they say little."""
    latin = len(_LATIN.findall(text))
    counts = {name: len(letters.findall(text)) for name, letters in _LETTERS}
    name, count = max(counts.items(), key=lambda item: item[1])
    if counts["Japanese"] and counts["Japanese"] + counts["Chinese"] > latin:
        return "Japanese"
    if count > latin:
        return _cyrillic(text) if name == "Cyrillic" else _arabic(text) if name == "Arabic" else name
    votes = Counter[str]()
    for word in _WORD.findall(text.lower()):
        for candidate in _LANGUAGES_OF.get(word, ()):
            votes[candidate] += 1
    ranked = votes.most_common(2)
    if not ranked or (len(ranked) > 1 and ranked[0][1] == ranked[1][1]):
        return "unknown"
    return ranked[0][0]


def _cyrillic(text: str) -> str:
    if re.search("[іїєґ]", text.lower()):
        return "Ukrainian"
    return "Russian" if re.search("[ыэё]", text.lower()) else "Cyrillic"


def _arabic(text: str) -> str:
    return "Persian" if re.search("[پچژگ]", text) else "Arabic"
