"""Measure a model, or what one data set is worth for another, with an analysis from the shelf, and keep the report:
report.json and plot.html in one folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from papertrial.core import registry
from papertrial.core.arguments import typed
from papertrial.core.errors import PapertrialError, did_you_mean
from papertrial.core.files import read_json, write_json, write_text
from papertrial.core.ours import claim, examine, filled, visible
from papertrial.core.paper import Report
from papertrial.core.ranges import require_numbers
from papertrial.core.recipe import resolve, unknown_settings
from papertrial.core.registry import Method
from papertrial.study.model_source import Wanted, find_subject, slug
from papertrial.train.randomness import own_randomness

KIND, _FILES = "measurement", ("report.json", "plot.html")


@typed
@own_randomness()
def measure(
    analysis: str,
    what: Any,
    data: Any = None,
    *,
    out: Path | str | None = None,
    recipe: str = "base",
    settings: Mapping[str, Any] | None = None,
    examples: int = 16,
    tokens: int = 32,
    seed: int = 0,
    progress: bool = True,
) -> Report:
    """What an analysis says of a model, or of data: a table, a sentence, and the files report.json and plot.html.

    analysis: a paper of that kind, such as "rank_collapse".  what: a run's folder or an `Artifact`, a method with fresh
    weights such as "vit", "hf:FOLDER", "package.module:factory", or an nn.Module.  data: anything `papertrial.open` takes,
    a text file for a language model with a tokenizer, or for a module tensors: one, a tuple, or a mapping by name. Made up
    from the seed where it is left out and the model says what it takes. Of an analysis that trains models of its own,
    `what` and `data` are both data, as `papertrial.open` takes them; its runs lie in the folder, and the same call goes on
    with them when it was interrupted.  out: by default a folder beside the run, or below `runs`; nothing is written for an
    nn.Module without it.  recipe, settings: of the analysis.  examples: how many are looked at.  tokens: of each made-up or
    text example.  seed: of fresh weights and made-up examples.  progress: show bars.

    Raises PapertrialError when there is no such analysis or model, DataError for data that does not fit it, Declined when
    the analysis cannot measure it.

        >>> import papertrial as pt
        >>> report = pt.measure("rank_collapse", "vit", "digits", examples=4, out="collapse", progress=False)
        >>> len(report.rows) > 1
        True
    """
    method = registry.method(analysis)
    if method.paper.kind != "analysis":
        known = [name for name, paper in registry.papers().items() if paper.kind == "analysis"]
        raise PapertrialError(
            f"{analysis} is of the kind {method.paper.kind}, not an analysis", did_you_mean(analysis, known)
        )
    require_numbers(examples=examples, tokens=tokens, seed=seed)
    config = _config(method, recipe, dict(settings or {}))
    if method.paper.trains:
        return _trained(method, what, data, config, out, seed, progress)
    if out is not None:
        examine(out, KIND, _recognised)
    subject = find_subject(analysis, what, data, Wanted(examples, tokens, seed))
    report: Report = method.module.measure(subject.model, subject.inputs, config)
    report = replace(report, facts=(("model", subject.name), ("inputs", subject.on), *report.facts))
    report = replace(report, caveats=(*report.caveats, *dict.fromkeys(subject.notes)))
    place = Path(out) if out is not None else subject.place
    return report if place is None else write(report, place)


def _trained(
    method: Method, what: Any, data: Any, config: Any, out: Path | str | None, seed: int, progress: bool
) -> Report:
    """The analysis trains models on `what` and `data`."""
    from papertrial.data import open as open_data
    from papertrial.train.trainer import Trainer

    if data is None:
        raise PapertrialError(
            f"{method.id} measures what one data set is worth for another, and there is only {what}", "add --data DATA"
        )
    source, target = open_data(what), open_data(data)
    place = Path(out) if out is not None else Path("runs") / f"{method.id}-{slug(source.name)}-{slug(target.name)}"
    marked, trainer = claim(place, KIND, _FILES, _recognised), Trainer.of(method.paper)
    try:
        report: Report = method.module.measure(
            source, target, config, trainer=trainer, folder=place, seed=seed, progress=progress
        )
    except PapertrialError:
        if marked.made and not any(place.glob("models/*")):  # refused before the first model
            marked.delete()
        raise
    notes = [f"{opened.name}: {note}" for opened in (source, target) for note in opened.notes]
    report = replace(report, caveats=(*report.caveats, *dict.fromkeys(notes)))
    return write(report, place)


def write(report: Report, folder: Path) -> Report:
    """report.json and plot.html in `folder`; the report with `files` filled in."""
    from papertrial.study.plot import page

    with filled(folder, KIND, _FILES, _recognised):
        files = [folder / "report.json", write_text(folder / "plot.html", page(report))]
        report = replace(report, files=tuple(str(file) for file in files))
        write_json(files[0], report)
    return report


def _recognised(folder: Path) -> list[str]:
    """What an earlier version wrote without a marker: a report, whole, or the models of an analysis that trains some."""
    held = visible(folder)
    try:
        whole = (
            "report.json" in held
            and {"title", "facts", "head", "rows", "verdict"} <= read_json(folder / "report.json").keys()
        )
    except (PapertrialError, AttributeError):
        return []
    models = list((folder / "models").glob("*/config.json")) if held == ["models"] else []
    return [*_FILES] if whole or models else []


def _config(method: Method, recipe: str, settings: dict[str, Any]) -> Any:
    module = method.module
    if recipe not in module.recipes:
        raise PapertrialError(f"{method.id} has no recipe {recipe!r}", did_you_mean(recipe, module.recipes))
    unknown_settings(settings, module.Config)
    return resolve(module.Config, None, {f"recipe {recipe}": module.recipes[recipe].config, "you": settings})[0]
