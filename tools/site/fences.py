"""The fenced blocks of README and docs, and how each is tried.

A comment before a block says how; without one, the block is run with the tests of every change.

    <!-- block: slow -->               run by the tests that are marked slow
    <!-- block: not run: REASON -->    cannot run here; its commands and options must exist
    <!-- block: exact -->              console: the output shown is the output there is
    <!-- block: measured -->           console: the output has figures of a machine; it is run (slow) on a small budget, and every
                                       label at the left of what is shown must be in what came out

Languages: `sh` (commands), `console` (commands after `$ `, with output), `python`; `text` is no code; `json` and `toml` are parsed.
`SMALLER` is what the tests change in commands so that they take seconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LANGUAGES = ("sh", "console", "python", "text", "json", "toml")
#: what is tried smaller than it is written: pattern, replacement
SMALLER = (
    (r"--budget \S+", "--budget 2steps"),  # training, not how good it gets
    (r"\bbudget=\"[^\"]+\"", 'budget="2steps"'),  # the same in Python
    (r"--total \S+", "--budget 0.3s"),  # of a comparison each run gets as much
    (r"--seeds \d+", "--seeds 2"),  # fewer seeds give no verdict
    (r"(\bpt\.compare\((?!.*\b(?:seeds|folds)=).*)\)$", r'\1, seeds=2, folds="none")'),
    (r"^(papertrial (?:fit|compare) (?!.*(?:--budget|--total|--help)).*)", r"\1 --budget 2steps"),  # without a budget: minutes
    (r"^(papertrial compare (?!.*--seeds).*)", r"\1 --seeds 2"),
    (r"^(papertrial compare (?!.*--folds).*)", r"\1 --folds none"),
    (r"^(papertrial compare .*--budget )2steps(.*)", r"\g<1>0.3s\2"),  # steps bind no baseline that tunes itself
    (r"^(papertrial measure transfer_scaling \S+ --data \S+).*", r"\1 --recipe tiny"),  # a grid of models
    (r"^(papertrial (?:fit|compare) (?!.*--quiet)(?!.*--help).*)", r"\1 --quiet"),
)  # fmt: skip
#: what docstrings tell to try and what cannot run in the tests, with the reason; its options are checked all the same
NOT_HERE = {
    r"\bhf:": "fetches from a hub",
    r"^papertrial rasp$": "a prompt that waits for what is typed",
    r"FILE\.rasp|_folder/|noto-emoji": "a stand-in for data of the reader",
    r"runs/(?:dalle|guided_diffusion-photos|vit-photos)\b(?!.*--data)": "uses a run that the reader has",
}
_MARK = re.compile(r"<!-- block: (slow|exact|measured|not run: (.+?)) -->$")
_FENCE = re.compile(r"^( *)```(\w*)\s*$")


@dataclass(frozen=True)
class Block:
    """page: its path within the checkout.  line: of the fence, from 1.  mark: "" | slow | exact | measured | not run."""

    page: str
    line: int
    language: str
    text: str
    mark: str = ""
    reason: str = ""

    @property
    def commands(self) -> list[str]:
        """One a line, without comments, as they are written."""
        if self.language == "console":
            lines = [line[2:] for line in self.text.splitlines() if line.startswith("$ ")]
        else:
            lines = self.text.replace("\\\n", " ").splitlines() if self.language == "sh" else []
        return [command for line in lines if (command := _bare(line))]

    @property
    def shown(self) -> list[tuple[str, str]]:
        """Of a console block: each command with the output that is shown."""
        parts = re.split(r"^\$ (.+)\n?", self.text, flags=re.MULTILINE)[1:]
        return list(zip(map(_bare, parts[::2]), parts[1::2], strict=True))


def _bare(line: str) -> str:
    """Without the comment at its end: a # that stands alone."""
    return re.sub(r"(?:^|\s+)# .*$", "", line).strip()


def blocks(text: str, page: str) -> Iterator[Block]:
    """Raises ValueError for a fence without a language that is known, or a mark that is not."""
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        opened = _FENCE.match(lines[number])
        if not opened:
            number += 1
            continue
        if opened[2] not in LANGUAGES:
            raise ValueError(
                f"{page}:{number + 1}: a block in {opened[2] or 'no language'}, not one of {', '.join(LANGUAGES)}"
            )
        end = next(at for at in range(number + 1, len(lines)) if lines[at].strip() == "```")
        before = lines[number - 1].strip() if number else ""
        mark = _MARK.match(before)
        if before.startswith("<!-- block") and not mark:
            raise ValueError(f"{page}:{number}: {before} is no mark of a block")
        word, reason = (mark[1].split(":")[0], mark[2] or "") if mark else ("", "")
        body = "\n".join(line.removeprefix(opened[1]) for line in lines[number + 1 : end])
        yield Block(page, number + 1, opened[2], body, word, reason)
        number = end + 1


def pages(root: Path) -> list[Path]:
    """The files whose blocks are tried."""
    return [root / "README.md", root / "CONTRIBUTING.md", *sorted((root / "docs").rglob("*.md"))]


def smaller(text: str) -> str:
    """A command or a program as it is tried: see SMALLER."""
    for pattern, replacement in SMALLER:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return text
