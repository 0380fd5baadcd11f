"""The pictures of the gallery: each is made by commands, which stand beside it, and taken in a browser where it is a page.

Runs go to `FOLDER` (a temporary one when none is named); what is finished there is not trained again.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

_ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+/\S*")


@dataclass(frozen=True)
class Shot:
    """name: of the picture.  commands: what makes it.  file: the page or the PNG that they leave; or serve: a command that serves:
    the invitation that was printed last is opened, or its first page.  click: a button to press first.  element: a CSS selector of the
    part to show.  size: of the window."""

    name: str
    commands: tuple[str, ...]
    file: str = ""
    serve: str = ""
    click: str = ""
    element: str = ""
    size: tuple[int, int] = (1000, 760)


SHOTS = (
    Shot(
        "report",
        (
            "papertrial compare mlp_mixer --data digits --folds none --budget 5s --no-worth --out runs/demo",
            "papertrial report runs/demo",
        ),
        "runs/demo/report.html",
        size=(1000, 860),
    ),
    Shot(
        "evidence",
        ("papertrial report evidence --out evidence.html",),
        "evidence.html",
        element="#barlow-twins figure:has(.plot)",
    ),
    Shot(
        "drawn",
        (
            "papertrial fit guided_diffusion --data digits --budget 3m --out runs/digits",
            "papertrial generate runs/digits --samples 16 --guidance 2 --out drawn",
        ),
        "drawn/grid.png",
    ),
    Shot(
        "rank_collapse",
        (
            "papertrial fit vit --data digits --budget 30s --out runs/vit",
            "papertrial measure rank_collapse runs/vit",
        ),
        "runs/vit/rank_collapse/plot.html",
        element="figure:has(.plot)",
    ),
    Shot("web", (), serve="papertrial web runs", size=(1000, 700)),
    Shot(
        "judge",
        ("papertrial judge new summaries ours=ours.jsonl theirs=theirs.jsonl --template pairwise --raters 1",),
        serve="papertrial judge serve",
        click="Begin",
        size=(1000, 620),
    ),
)


def take(root: Path, names: Sequence[str] = (), folder: Path | None = None) -> list[str]:
    """Make the pictures (all, or those named) in docs/pictures; what was written. Raises RuntimeError when a command fails."""
    if folder is None:
        with tempfile.TemporaryDirectory() as made:
            return take(root, names, Path(made))
    _prepare(root, folder)
    written = []
    for shot in SHOTS:
        if not names or shot.name in names:
            picture = _small(_made(shot, folder))
            target = root / "docs" / "pictures" / f"{shot.name}.png"
            target.write_bytes(picture)
            written.append(f"{target.relative_to(root)}  {len(picture) // 1024} KB")
    return written


def _prepare(root: Path, folder: Path) -> None:
    """The evidence, and two systems' outputs for people to judge."""
    (folder / "evidence").mkdir(parents=True, exist_ok=True)
    for file in (root / "evidence").glob("*.jsonl"):
        (folder / "evidence" / file.name).write_bytes(file.read_bytes())
    source = "The committee met on Monday and again on Thursday, and decided to build the bridge after all."
    for name, output in (("ours", "The bridge will be built."), ("theirs", "The committee met twice this week.")):
        lines = [f'{{"item": {item}, "source": "{source}", "output": "{output}"}}\n' for item in (1, 2)]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "judgements.db").unlink(missing_ok=True)


def _made(shot: Shot, folder: Path) -> bytes:
    printed = ""
    for command in shot.commands:
        done = subprocess.run(
            _words(command), cwd=folder, capture_output=True, text=True, encoding="utf-8", check=False
        )
        if done.returncode:
            raise RuntimeError(f"{command} ended with {done.returncode}\n{done.stderr}")
        printed += done.stdout
    if shot.file.endswith(".png"):
        return (folder / shot.file).read_bytes()
    if shot.serve:
        with _served(shot.serve, folder) as address:
            invited = _ADDRESS.findall(printed)
            return _seen(invited[-1] if invited else address, shot)
    return _seen((folder / shot.file).as_uri(), shot)


def _words(command: str) -> list[str]:
    return [sys.executable, "-m", *command.split()]


@contextmanager
def _served(command: str, folder: Path) -> Iterator[str]:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    server = subprocess.Popen(
        _words(command), cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert server.stdout is not None
        said = ""
        for line in server.stdout:
            said += line
            found = _ADDRESS.search(line)
            if found:
                yield found[0]
                return
        raise RuntimeError(f"{command} served nothing: {said}")
    finally:
        server.terminate()
        server.wait()


def _seen(address: str, shot: Shot) -> bytes:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": shot.size[0], "height": shot.size[1]}, color_scheme="light")
        page.goto(address, wait_until="load")
        if shot.click:
            page.get_by_role("button", name=shot.click).or_(page.get_by_role("link", name=shot.click)).click()
        page.wait_for_timeout(1500)
        picture = page.locator(shot.element).first.screenshot() if shot.element else page.screenshot()
        browser.close()
    return picture


def _small(picture: bytes) -> bytes:
    """In 64 colours, which a page of text and lines does with; small pictures are enlarged, pixel by pixel."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    if image.width < 400:
        image = image.resize((image.width * 3, image.height * 3), Image.Resampling.NEAREST)
    out = io.BytesIO()
    image.quantize(64, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()
