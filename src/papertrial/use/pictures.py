"""What a trained generator draws: pictures by seed, of a class or from a caption, as arrays or as a folder of files."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from papertrial.core import memory, notebook, ours
from papertrial.core.budget import duration
from papertrial.core.errors import DataError, Declined, PapertrialError, did_you_mean
from papertrial.core.files import disk_errors, to_json, write_text
from papertrial.core.offers import offers
from papertrial.core.ranges import require_numbers
from papertrial.core.task import Ragged
from papertrial.core.wording import counted
from papertrial.nn.modes import evaluating
from papertrial.tasks._image_quality import ACROSS, grid
from papertrial.use.answer_files import write_picture
from papertrial.use.artifact import Artifact

#: pictures that are drawn where nobody says how many
SAMPLES = 16
#: pictures that are drawn together, always so many: a processor sums in another order for another number of rows, and a
#: picture must not depend on how many are asked for
TOGETHER = 4
GRID, LIST = "grid.png", "pictures.jsonl"
KIND = "folder of drawn pictures"
#: side in the grid below which every pixel of a picture becomes a square, so that pictures of 8 pixels can be looked at
LEAST_SIDE = 64
_BESIDE = 512  # bytes of a picture besides its pixels
_HARSH = 0.98  # share of the values at either end from which a picture has lost what is between
_LINE = 30.0  # seconds between two lines of progress where there is no terminal

#: is told what share of the pictures is drawn
Heard = Callable[[float], None]


@dataclass(frozen=True)
class Picture:
    """One picture that a generator drew. pixels: uint8 (H, W, C).  label, caption: what was asked for, if anything."""

    pixels: np.ndarray
    seed: int
    label: str | None = None
    caption: str | None = None


def generate(
    artifact: Artifact,
    *,
    samples: int = SAMPLES,
    labels: str | Sequence[str] = (),
    captions: Sequence[str] = (),
    guidance: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    start: Any = None,
    strength: float | None = None,
    heard: Heard | None = None,
) -> list[Picture]:
    """`samples` pictures of each class and from each caption that is asked for, or of any, by the seeds `seed`, `seed` + 1, ...

    A picture depends on its seed, its class or caption and the settings alone, bit for bit on one machine.
    labels: names of classes, or "all".  guidance, steps, strength: as the model takes them, its own where None.
    start: the image to begin from, anything that `papertrial.open` takes; its first image is used.
    heard: is told of the progress.  Raises Declined for an artifact that draws nothing or takes no such option,
    PapertrialError for options that cannot be.
    """
    options = {"guidance": guidance, "steps": steps, "strength": strength}
    given = {name: value for name, value in options.items() if value is not None}
    wanted = [labels] if isinstance(labels, str) else list(labels)
    asked = {"labels": wanted, "captions": captions, "start": start is not None}
    require(artifact, [*given, *(name for name, value in asked.items() if value)])
    require_numbers(samples=samples, seed=seed, steps=steps, guidance=guidance, strength=strength)
    if strength is not None and start is None:
        raise PapertrialError("strength goes with an image to start from", "add --start")
    if wanted and captions:
        raise PapertrialError("a picture is of a class or from a caption", "ask for one of them")
    codes = _codes(artifact, wanted)
    begin = None if start is None else _begin(artifact, start)

    kinds: list[tuple[str | None, str | None]] = [(name, None) for name in codes] or [(None, text) for text in captions]
    _require_room(artifact, samples * max(1, len(kinds)))
    rows = [(label, caption, seed + place) for label, caption in kinds or [(None, None)] for place in range(samples)]
    made = []
    with evaluating(artifact.model) if isinstance(artifact.model, torch.nn.Module) else ExitStack(), torch.no_grad():
        for first in range(0, len(rows), TOGETHER):
            some = rows[first : first + TOGETHER]
            full = some + some[-1:] * (TOGETHER - len(some))
            each: dict[str, Any] = dict(given)
            if codes:
                each["labels"] = torch.tensor([codes[str(label)] for label, _, _ in full])
            if captions:
                each["captions"] = [caption for _, caption, _ in full]
            if begin is not None:
                each["start"] = begin.expand(len(full), -1, -1, -1)
            if heard is not None:
                each["progress"] = _scaled(heard, first, len(some), len(rows))
            pixels = artifact.model.draw([number for _, _, number in full], **each)[: len(some)]
            pixels = pixels.permute(0, 2, 3, 1).cpu().contiguous().numpy()
            made += [Picture(one, number, label, text) for one, (label, text, number) in zip(pixels, some, strict=True)]
            if heard is not None:
                heard(len(made) / len(rows))
    return made


def _require_room(artifact: Artifact, count: int) -> None:
    """Raise OutOfMemory for more pictures than memory holds."""
    state = artifact.card["state"]
    needed = count * (state["height"] * state["width"] * state["channels"] + _BESIDE)
    fix = "ask for fewer --samples at a time, with another --seed and --out each"
    memory.require(2 * needed, f"{count:,} pictures", fix)  # the grid holds all of them again


def remarks(artifact: Artifact, made: Sequence[Picture], options: dict[str, Any]) -> list[str]:
    """Lines on what was drawn and is hardly what was asked for: captions that are cut, pictures without anything on them."""
    lines = []
    captions = list(dict.fromkeys(options.get("captions", ())))
    too_long = offers(artifact.model).too_long
    if captions and too_long:
        long, words = too_long(Ragged.of_texts(captions))
        which = "the caption is" if len(captions) == 1 else f"{long.sum()} of {len(captions)} captions are"
        lines += [f"{which} longer than the {words} that are read of one: the rest is cut off"] if long.any() else []
    strong = "" if options.get("guidance") is None else f": a guidance of {options['guidance']:g} may be too strong"
    plain = sum(bool((picture.pixels == picture.pixels[0, 0]).all()) for picture in made)
    harsh = sum(bool(((picture.pixels == 0) | (picture.pixels == 255)).mean() > _HARSH) for picture in made)
    if plain:
        lines.append(f"{plain:,} of {counted(len(made), 'picture')} of one colour all over{strong}")
    elif strong and 2 * harsh > len(made):
        lines.append(
            f"{harsh:,} of {counted(len(made), 'picture')} with hardly a pixel between black and white{strong}"
        )
    return lines


def require(artifact: Artifact, options: Sequence[str]) -> None:
    """Raise Declined for an artifact that draws nothing, or that does not take one of `options`."""
    name = artifact.card["method"]["name"]
    held = offers(artifact.model)
    if held.draw is None:
        raise Declined(f"{name} in {artifact.folder} draws nothing: it was trained for {artifact.task.name}")
    taken = held.draws | ({"strength"} if "start" in held.draws else set())
    words = {"labels": "label", "captions": "caption"}
    for option in options:
        if option not in taken:
            known = [f"--{words.get(held, held)}" for held in sorted(taken)]
            raise Declined(
                f"{name} takes no {words.get(option, option)}",
                f"it takes {', '.join(known)} and --seed" if known else "it takes a --seed and nothing else",
            )


def _codes(artifact: Artifact, labels: list[str]) -> dict[str, int]:
    """The classes that are asked for by name, in order. Raises PapertrialError for one that is not known."""
    known = {name: index for index, name in enumerate(artifact.card["state"].get("class_names", []))}
    if labels == ["all"] and "all" not in known:
        return known
    for name in labels:
        if name not in known:
            raise PapertrialError(f"there is no class {name!r}", did_you_mean(name, known))
    return {name: known[name] for name in dict.fromkeys(labels)}


def _begin(artifact: Artifact, start: Any) -> torch.Tensor:
    """The image to start from, uint8 (1, C, H, W) at the model's size."""
    given = artifact.encode(start)
    if not given.split.examples:
        raise DataError(f"{given.opened.name} holds no image", "give an image to start from")
    return torch.from_numpy(np.array(given.split["image"][:1])).permute(0, 3, 1, 2).contiguous()


def _scaled(heard: Heard, first: int, count: int, total: int) -> Heard:
    return lambda share: heard((first + share * count) / total)


# ------------------------------------------------------------------------------------------------------------ as files


def save(artifact: Artifact, out: Path | str | None = None, *, replace: bool = False, **options: Any) -> dict[str, Any]:
    """Draw as `generate` does, into a new folder: a PNG for each picture, named by class and seed, all of them in GRID, and a
    line of JSON for each in LIST. Returns folder, grid, pictures and notes.

    out: by default the first of `pictures`, `pictures-2`, ... in the run's folder that is not there yet.  replace: a folder
    that holds nothing but an earlier call's files, by its marker, as a whole. Raises PapertrialError for any other that
    is not empty, before anything is drawn.
    """
    out = Path(out) if out is not None else _free(artifact.folder / "pictures")
    _require_ours(out, replace)
    out = out.resolve() if out.is_symlink() else out
    made = generate(artifact, **options)
    settings = {name: options.get(name) for name in ("guidance", "steps", "start", "strength")}
    settings = {name: value for name, value in settings.items() if value is not None}
    captions = list(dict.fromkeys(picture.caption for picture in made))
    lines: list[dict[str, Any]] = []
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        new = temporary / "new"
        try:
            for picture in made:
                what = f"{_plain(picture.label)}-" if picture.label is not None else ""
                what = f"{captions.index(picture.caption) + 1}-" if len(captions) > 1 else what
                file = f"{what}{picture.seed:05d}.png"
                told = {"file": file, "seed": picture.seed, "label": picture.label, "caption": picture.caption}
                lines.append({**told, **settings})
            ours.claim(new, KIND, [GRID, LIST, *(line["file"] for line in lines)])
            for line, picture in zip(lines, made, strict=True):
                write_picture(new / line["file"], picture.pixels)
            each = sum((picture.label, picture.caption) == (made[0].label, made[0].caption) for picture in made)
            across = each if len(made) > each and each <= 2 * ACROSS else min(ACROSS, len(made))
            write_picture(new / GRID, grid(_enlarged(np.stack([picture.pixels for picture in made])), across))
            write_text(new / LIST, "".join(f"{to_json(line)}\n" for line in lines))
            _require_ours(out, replace)  # drawing took a while
            if out.exists():
                out.rename(temporary / "earlier")
            new.rename(out)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    notes = remarks(artifact, made, options)
    return {"folder": out, "grid": out / GRID, "pictures": lines, "notes": notes}


def read(folder: Path, line: dict[str, Any]) -> Picture:
    """A picture that `save` wrote, by its line in LIST."""
    with Image.open(folder / line["file"]) as held:
        pixels = np.asarray(held)
    return Picture(pixels if pixels.ndim == 3 else pixels[..., None], line["seed"], line["label"], line["caption"])


def _free(first: Path) -> Path:
    """The folder, or the first with a number behind it that is not there."""
    names = itertools.chain([first], (first.with_name(f"{first.name}-{count}") for count in itertools.count(2)))
    return next(path for path in names if not path.exists() or (path.is_dir() and not any(path.iterdir())))


def _enlarged(pictures: np.ndarray) -> np.ndarray:
    times = -(-LEAST_SIDE // max(pictures.shape[1:3]))
    return pictures.repeat(times, 1).repeat(times, 2)


def _require_ours(out: Path, replace: bool) -> None:
    """Raise PapertrialError where `out` holds something that `save` did not write, or did and shall not replace."""
    marked = ours.examine(out, KIND, _listed)
    if marked is None:
        return
    if other := sorted({path.name for path in out.iterdir()} - marked.entries - {ours.MARKER}):
        raise PapertrialError(f"{out} is there already and holds other things ({other[0]})", "choose another --out")
    if not replace:
        count = len(marked.entries - {GRID, LIST})
        raise PapertrialError(
            f"{out} holds {counted(count, 'picture')} of an earlier call", "choose another --out, or add --replace"
        )


def _listed(out: Path) -> list[str]:
    """What an earlier version wrote without a marker; none where the list is not one of `save`, or names what is not there."""
    try:
        lines = [json.loads(line) for line in (out / LIST).read_text(encoding="utf-8").splitlines()]
        named = [line["file"] for line in lines if line.keys() >= {"file", "seed", "label", "caption"}]
        by_seed = all(line["file"].endswith(f"{line['seed']:05d}.png") for line in lines)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []
    there = by_seed and len(named) == len(lines) and all((out / name).is_file() for name in (GRID, *named))
    return [GRID, LIST, *named] if there else []


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)


class Bar:
    """`with Bar(wanted) as heard:` shows what share is drawn and how long the rest takes, on the error stream: a bar on a
    terminal, a line now and then elsewhere. Quiet for what takes less than two seconds."""

    def __init__(self, wanted: bool = True) -> None:
        self.wanted, self.begun = wanted, time.monotonic()
        self.said = self.begun
        self.bar: Any = None
        self.line = notebook.Line() if notebook.inside() else None

    def __enter__(self) -> Heard:
        return self._hear

    def __exit__(self, *what: Any) -> None:
        if self.bar is not None:
            self.bar.stop()
        if self.line is not None:
            self.line.end()

    def _hear(self, share: float) -> None:
        now = time.monotonic()
        if not self.wanted or now - self.begun < 2 or share >= 1:
            return
        if sys.stderr.isatty():
            if self.bar is None:
                from rich.console import Console
                from rich.progress import Progress

                self.bar = Progress(console=Console(stderr=True), transient=True)
                self.bar.start()
                self.bar.add_task("drawing", total=1.0)
            self.bar.update(self.bar.task_ids[0], completed=share)
            return
        left = duration((now - self.begun) * (1 - share) / max(share, 1e-9))
        text = f"drawing: {share:.0%}, {left} left"
        if self.line is not None:
            self.line.show(text)
        elif now - self.said >= _LINE:
            self.said = now
            print(text, file=sys.stderr, flush=True)
