"""Types the commands of console blocks and writes what they print below them: those marked `exact`, and those `measured`."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.site.fences import Block, blocks, pages


def renew(root: Path, *, measured: bool) -> list[str]:
    """Write the outputs anew; the pages that changed. measured: also those that take minutes and depend on the machine.

    Raises RuntimeError when a command fails.
    """
    changed = []
    for file in pages(root):
        text = file.read_text(encoding="utf-8")
        name = file.relative_to(root).as_posix()
        lines = text.splitlines()
        for block in reversed(list(blocks(text, name))):
            if block.mark == "exact" or (measured and block.mark == "measured"):
                end = block.line + len(block.text.splitlines())
                lines[block.line : end] = _typed(block).splitlines()
        new = "\n".join(lines) + "\n"
        if new != text:
            file.write_text(new, encoding="utf-8")
            changed.append(name)
    return changed


def _typed(block: Block) -> str:
    parts = []
    with tempfile.TemporaryDirectory() as folder:
        for command, _ in block.shown:
            words = shlex.split(command)
            done = subprocess.run(
                [sys.executable, "-m", *words], cwd=folder, capture_output=True, text=True, encoding="utf-8", check=False
            )  # fmt: skip
            if done.returncode:
                raise RuntimeError(f"{block.page}:{block.line}: {command} ended with {done.returncode}\n{done.stderr}")
            parts.append(f"$ {command}\n{cut(done.stdout)}")
    return "\n".join(parts)


def cut(output: str) -> str:
    """Without the lines that tell how far a comparison is, of which `...` is left, and without blanks at the ends of lines."""
    output = re.sub(r"[ \t]+$", "", output, flags=re.MULTILINE)
    return re.sub(r"(?:^seed \d+ of \d+: .*\n)+\n?", "...\n", output, flags=re.MULTILINE).strip("\n")
