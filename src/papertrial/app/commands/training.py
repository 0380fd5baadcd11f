"""`fit` and `estimate`: one method on one's own data, and what that would cost."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from papertrial.app import printing
from papertrial.app.commands.options import (
    Backbone,
    BudgetText,
    Data,
    Dates,
    Folds,
    Fresh,
    Group,
    Json,
    Labels,
    Method,
    Metric,
    Missing,
    Out,
    Quiet,
    RecipeName,
    Settings,
    Size,
    Target,
    TaskName,
    TechniqueHost,
    Techniques,
    Threshold,
    Time,
    complete_method,
    data_option,
    seed_option,
    seeds_option,
)  # fmt: skip
from papertrial.core import registry
from papertrial.core.budget import Energy, duration, size_in_words
from papertrial.core.errors import PapertrialError
from papertrial.core.recipe import Setting
from papertrial.train import processes


def fit(
    context: typer.Context,
    paper: Annotated[
        str | None,
        typer.Argument(
            help="A paper or baseline, such as mlp_mixer, mlp_mixer:S/16 or rtdl:resnet.",
            autocompletion=complete_method,
            show_default=False,
        ),
    ] = None,
    data: Annotated[str | None, data_option()] = None,
    target: Target = None,
    group: Group = None,
    time: Time = None,
    dates: Dates = None,
    missing: Missing = None,
    metric: Metric = None,
    threshold: Threshold = None,
    task: TaskName = None,
    budget: BudgetText = None,
    host: TechniqueHost = None,
    backbone: Backbone = None,
    recipe: RecipeName = "base",
    set_: Settings = None,
    compile_: Annotated[
        bool,
        typer.Option("--compile", help="Compile the model with torch.compile, encoders of text layer by layer."),
    ] = False,
    technique: Techniques = None,
    labels: Labels = None,
    size: Size = None,
    seed: Annotated[int, seed_option("Seed of weights, order and validation rows.")] = 0,
    out: Out = None,
    fresh: Fresh = False,
    final: Annotated[
        bool,
        typer.Option(
            "--final", help="Learn from all rows, with the settings and for the steps that a comparison found."
        ),
    ] = False,
    from_: Annotated[
        Path | None,
        typer.Option(
            "--from", help="Folder of that comparison; by default that of the data in runs.", show_default=False
        ),
    ] = None,
    shard: Annotated[
        bool, typer.Option("--shard", help="Under torchrun: split the weights over the processes (FSDP2).")
    ] = False,
    quiet: Quiet = False,
    json: Json = False,
    help_: Annotated[
        bool, typer.Option("--help", "-h", help="Show this; with a PAPER also its options and where they come from.")
    ] = False,
) -> None:
    """Train one paper on your data. The same command resumes a run that was stopped; nothing is lost."""
    if paper is None and data is not None and not help_:
        raise PapertrialError("fit needs a paper", f"papertrial look {quote(data)} says which fit")
    if paper is None or help_:
        _fit_help(context, paper)
        return
    if data is None and not registry.find(paper.partition(":")[0]).paper.refusal:
        raise PapertrialError("fit needs data", f"type: papertrial fit {paper} --data FOLDER_OR_FILE")
    from papertrial.core.recipe import parse_settings
    from papertrial.use.fit import fit as run_fit

    method = registry.method(paper)
    given = parse_settings([*(set_ or []), *(["compile=true"] if compile_ else [])])
    artifact = run_fit(
        method.name, data, task=task, target=target, group=group, time=time, dates=dates, missing=missing, metric=metric, threshold=threshold, out=out,
        host=host, backbone=backbone, recipe=recipe, settings=given,
        techniques=technique or [], budget=budget, labels=labels, size=size, seed=seed, fresh=fresh,
        progress=not quiet and not json, shard=shard, final=final, comparison=from_,
    )  # fmt: skip
    main = processes.is_main()
    processes.part()
    if not main:
        return
    card = artifact.card
    if json:
        printing.document(
            {
                "folder": artifact.folder,
                **{
                    name: card[name]
                    for name in (
                        "method",
                        "backbone",
                        "task",
                        "data",
                        "techniques",
                        "notes",
                        "settings",
                        "backbone_settings",
                        "budget",
                        "seed",
                        "cost",
                        "metrics",
                        "intervals",
                        "extra",
                    )
                },
            }
        )
        return
    printing.say(*_run_lines(artifact))


def _run_lines(artifact: Any) -> list[str]:
    card, cost = artifact.card, artifact.card["cost"]
    rows = [
        ("method", " on ".join(filter(None, (card["method"]["name"], card.get("host"), card["backbone"])))),
        ("task", f"{card['task']['name']} v{card['task']['version']}"),
        ("data", card["data"]["name"]),
    ]
    rows += [("note", note) for note in card["notes"]]
    if held := card.get("threshold"):
        rows.append(("threshold", _threshold_words(held)))
    lines = [*printing.remarks(card.get("said_first", ())), *printing.labelled(rows)]
    lines += [
        "settings",
        *printing.settings(Setting(**entry) for entry in card["settings"] + card["backbone_settings"]),
    ]
    spent = (
        f"{duration(cost['seconds'])}, {cost['steps']} steps, {cost['samples']} examples seen"
        if cost["steps"]
        else f"{duration(cost['seconds'])}" + (f", {cost['trials']} trials" if cost["trials"] else "")
    )
    energy = Energy(cost["kwh"], cost["energy"], cost["energy_how"])
    peak = "unknown" if cost["peak_bytes"] is None else size_in_words(cost["peak_bytes"])
    rows = [("cost", f"{spent}, peak memory {peak}"), ("energy", energy.sentence())]
    lines += ["", *printing.labelled(rows)]
    lines += (
        [
            f"on test rows{_in_groups(card)}, with 95 % intervals",
            *printing.metrics(card["metrics"], card["intervals"], card.get("floors"), card.get("ceilings")),
        ]
        if card["metrics"]
        else printing.labelled([("expected", _expected(card["final"]))])
        if card.get("final")
        else ["no labelled test rows: nothing to judge it by"]
    )
    if card["extra"]:
        lines += ["also", *printing.metrics(card["extra"], {})]
    folder = quote(str(artifact.folder))
    return [
        *lines,
        "",
        f"saved in {artifact.folder}",
        *_next(artifact, folder),
    ]


def _threshold_words(held: dict[str, Any]) -> str:
    on = f"recall {held['recall']:.3f} and precision {held['precision']:.3f} on the validation rows"
    return f"{held['class']!r} from a probability of {held['at']:.3g} on, for {held['asked']}: {on}"


def _expected(final: dict[str, Any]) -> str:
    """What a comparison measured, of a model that nothing is left to judge."""
    ends = "" if final["interval"] is None else " [{:.3f}, {:.3f}]".format(*final["interval"])
    return f"{final['metric']} {final['expected']:.3f}{ends}, by the comparison in {final['comparison']}"


def _in_groups(card: dict[str, Any]) -> str:
    """How many chances the test rows are, where several rows are one."""
    test = card.get("test", {"rows": 0, "groups": 0})
    return f", {test['rows']:,} in {test['groups']:,} groups" if test["groups"] < test["rows"] else ""


def _next(artifact: Any, folder: str) -> list[str]:
    """Two commands a line, the report among them."""
    from papertrial.use.uses import commands, of_card

    typed = commands(of_card(artifact.card), artifact.folder)
    export = [typed.pop()] if typed[-1].endswith("--to onnx") else []
    lines = ["    ".join(typed), "    ".join([f"papertrial report {folder}", *export])]
    return [f"{'' if place else 'next':<12}{line}" for place, line in enumerate(filter(None, lines))]


def _fit_help(context: typer.Context, paper: str | None) -> None:
    printing.say(context.get_help())
    if paper is None:
        return
    from papertrial.core.recipe import Optim, ranges, resolve

    method = registry.method(paper)
    printing.say("", f"Options of {method.name}, each --set name=value (default, range, source):")
    _, settings = resolve(
        method.module.Config, None, {f"variant {method.variant}": method.overrides} if method.variant else {}
    )
    printing.say(*printing.settings(settings, ranges(method.module.Config)))
    if getattr(method.module, "variants", {}):
        printing.say("", f"Variants: {', '.join(f'{method.id}:{name}' for name in method.module.variants)}")
    for recipe in method.module.recipes.values():
        changes = ", ".join(
            f"{name}={printing.as_typed(value)}" for name, value in {**recipe.config, **recipe.optim}.items()
        )
        changes += "".join(f", --technique {text}" for text in recipe.techniques)
        printing.say(
            *printing.labelled(
                [
                    (
                        f"--recipe {recipe.name}",
                        "; ".join(filter(None, (changes or "defaults", recipe.source, recipe.cost))),
                    )
                ],
                width=16,
            )
        )
    if method.paper.kind != "estimator" and not method.paper.refusal:
        printing.say(
            "",
            "Training, also --set name=value:",
            *printing.settings(resolve(Optim, None, {})[1], ranges(Optim)),
        )
    for name in method.paper.techniques:
        printing.say(
            "",
            f"--technique {name}:setting=value, with any model:",
            *printing.settings(registry.technique_defaults(name), registry.technique_ranges(name)),
        )
    printing.say(
        "", "Values marked with a rule are suited to your data; a run prints and keeps what was chosen and why."
    )


def estimate(
    paper: Method,
    data: Data,
    target: Target = None,
    group: Group = None,
    time: Time = None,
    dates: Dates = None,
    missing: Missing = None,
    task: TaskName = None,
    budget: BudgetText = None,
    host: TechniqueHost = None,
    backbone: Backbone = None,
    recipe: RecipeName = "base",
    set_: Settings = None,
    technique: Techniques = None,
    labels: Labels = None,
    size: Size = None,
    seeds: Annotated[
        int | None, seeds_option("Also estimate a comparison with this many seeds.", show_default=False)
    ] = None,
    folds: Folds = None,
    json: Json = False,
) -> None:
    """What would it cost? Minutes, memory and energy of a run, from ten of its steps, before it starts."""
    from papertrial.core.recipe import parse_settings
    from papertrial.study.estimate import estimate as run_estimate

    found = run_estimate(
        paper, data, task=task, target=target, group=group, time=time, dates=dates, missing=missing, budget=budget,
        host=host, backbone=backbone, recipe=recipe, settings=parse_settings(set_ or []),
        techniques=technique or [], labels=labels, size=size, seeds=seeds, folds=folds,
    )  # fmt: skip
    if json:
        printing.document(found)
        return
    printing.say(*printing.labelled(found.lines()))
