"""BibTeX as documents: bibtexparser reads the entries, pylatexenc turns LaTeX into the text that people look for.

Accents are composed, commands that name other entries (`\\cite`, `\\ref`) are dropped, and Greek letters keep their names, since
these are what is typed into a search.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from papertrial.core.errors import DataError
from papertrial.core.wording import counted

for _library in ("bibtexparser", "pylatexenc"):  # what they would warn of is said here
    logging.getLogger(_library).setLevel(logging.ERROR)

_DROPPED = (
    "cite", "citep", "citet", "citealp", "citealt", "citeauthor", "citeyear", "parencite", "textcite", "autocite", "footcite",
    "ref", "eqref", "label", "thanks",
)  # fmt: skip
_GREEK = (
    "alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta", "vartheta", "iota", "kappa", "lambda",
    "mu", "nu", "xi", "pi", "rho", "sigma", "tau", "upsilon", "phi", "varphi", "chi", "psi", "omega",
)  # fmt: skip
_KEPT = (
    "emph", "textbf", "textit", "texttt", "textsc", "textrm", "textsf", "underline", "mathbb", "mathcal", "mathbf", "mathrm",
    "mathit", "mathsf", "operatorname",
)  # fmt: skip
_LATEX = re.compile(r"[\\{}$~]|``|''|--")


def entries_in(text: str, name: str, note: Callable[[str], None]) -> Iterator[tuple[str, dict[str, str]]]:
    """(key, fields in plain text by lower-case name) of each entry; one without a key has its number for it.

    `@string` names are replaced, and values joined by `#` put together. An entry with the key of an earlier one gets its line
    behind it. What cannot be read is left out and named.  Raises DataError where there is no entry.
    """
    from bibtexparser.model import DuplicateBlockKeyBlock, DuplicateFieldKeyBlock, Entry, ParsingFailedBlock
    from bibtexparser.splitter import Splitter

    library = Splitter(text).split()
    strings: dict[str, str] = {}
    for string in library.strings:
        strings[string.key.casefold()] = _joined(string.value, strings)
    broken, again, twice, found = [], 0, 0, 0
    for block in library.blocks:
        line = (block.start_line or 0) + 1
        repeated = isinstance(block, DuplicateBlockKeyBlock)
        twice += isinstance(block, DuplicateFieldKeyBlock)
        if isinstance(block, ParsingFailedBlock) and block.ignore_error_block is None:
            broken.append(f"line {line} ({' '.join((block.raw or '').split())[:40]!r})")
        entry = block.ignore_error_block if isinstance(block, ParsingFailedBlock) else block
        if not isinstance(entry, Entry):
            continue
        found, again = found + 1, again + repeated
        fields: dict[str, str] = {}
        for field in entry.fields:
            fields.setdefault(field.key.casefold(), plain(_joined(str(field.value), strings)))
        key = entry.key or str(found)
        yield (f"{key} (line {line})" if repeated else key), fields
    if broken:
        more = f" and {len(broken) - 3} more" if broken[3:] else ""
        note(
            f"{name}: left out {counted(len(broken), 'entry', 'entries')} that cannot be read, a brace or quote is not"
            f" closed: {', '.join(broken[:3])}{more}"
        )
    if again:
        note(f"{name}: {counted(again, 'entry', 'entries')} with the key of an earlier one, told apart by the line")
    if twice:
        note(f"{name}: {counted(twice, 'entry', 'entries')} with a field twice, of which the first is taken")
    if not found:
        why = f" that can be read; not closed: {broken[0]}" if broken else ""
        raise DataError(f"{name} holds no BibTeX entry{why}", "an entry looks like @article{key, title = {...}}")


def plain(value: str) -> str:
    """LaTeX as text on one line."""
    if not _LATEX.search(value):
        return " ".join(value.split())
    walker, text = _converters()
    try:
        nodes = walker(re.sub(r"(?<!\\)([%&])", r"\\\1", value))  # signs of LaTeX, and themselves in BibTeX
        value = text.nodelist_to_text(nodes)
    except Exception:  # pylatexenc has no error of its own for commands whose arguments are missing
        value = re.sub(r"\\[a-zA-Z]+\s*|[{}$\\]", "", value)
    return " ".join(value.replace("\xa0", " ").split())


@cache
def _converters() -> tuple[Callable[[str], Any], Any]:
    """(LaTeX -> nodes, what makes text of nodes)."""
    from pylatexenc import latex2text, latexwalker
    from pylatexenc.macrospec import std_macro

    def name_of(node: Any) -> str:
        return f"{node.macroname}{node.macro_post_space}"

    read, shown = latexwalker.get_default_latex_context_db(), latex2text.get_default_latex_context_db()
    arguments = [std_macro(name, "*[[{" if "cit" in name else "{") for name in _DROPPED]
    arguments += [std_macro(name, "{") for name in _KEPT] + [std_macro("url", "{"), std_macro("href", "{{")]
    read.add_context_category("papertrial", macros=arguments, prepend=True)
    replaced = [latex2text.MacroTextSpec(name, simplify_repl="") for name in _DROPPED]
    replaced += [latex2text.MacroTextSpec(name, simplify_repl="%(1)s") for name in (*_KEPT, "url")]
    replaced += [latex2text.MacroTextSpec("href", simplify_repl="%(2)s")]
    replaced += [
        latex2text.MacroTextSpec(name, simplify_repl=name_of) for name in (*_GREEK, *map(str.capitalize, _GREEK))
    ]
    shown.add_context_category("papertrial", macros=replaced, prepend=True)

    def nodes_of(value: str) -> Any:
        return latexwalker.LatexWalker(value, latex_context=read, tolerant_parsing=True).get_latex_nodes()[0]

    return nodes_of, latex2text.LatexNodes2Text(math_mode="text", latex_context=shown)


def _joined(value: str, strings: Mapping[str, str]) -> str:
    """A field's value without what encloses it: `{...}`, `"..."`, a number or the name of a string, joined by `#`."""
    pieces, begin, depth, quoted = [], 0, 0, False
    for at, letter in enumerate(value):
        if letter == '"' and not depth:
            quoted = not quoted
        elif letter in "{}":
            depth += 1 if letter == "{" else -1
        elif letter == "#" and not depth and not quoted:
            pieces.append(value[begin:at])
            begin = at + 1
    pieces = [piece.strip() for piece in (*pieces, value[begin:])]
    return "".join(strings.get(piece.casefold(), _without_ends(piece)) for piece in pieces)


def _without_ends(value: str) -> str:
    value = value.strip()
    return value[1:-1] if len(value) > 1 and value[0] + value[-1] in ("{}", '""') else value
