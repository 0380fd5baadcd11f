"""`compare`, `report`, `check` and `measure`: questions about methods, answered with evidence."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import Annotated

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
    Metric,
    Missing,
    Out,
    Quiet,
    RecipeName,
    Replace,
    Settings,
    Size,
    Target,
    TaskName,
    TechniqueHost,
    Techniques,
    Time,
    complete_analysis,
    complete_method,
    data_option,
    number_option,
    out_option,
    seed_option,
    seeds_option,
)  # fmt: skip
from papertrial.core import registry
from papertrial.core.budget import size_in_words
from papertrial.core.errors import PapertrialError


class ClaimLost(PapertrialError):
    """A claim that held before fails now."""

    exit_code = 1


def compare(
    papers: Annotated[
        list[str],
        typer.Argument(
            help="Papers to compare, such as mlp_mixer rtdl:resnet.",
            autocompletion=complete_method,
            show_default=False,
        ),
    ],
    data: Data,
    target: Target = None,
    group: Group = None,
    time: Time = None,
    dates: Dates = None,
    missing: Missing = None,
    metric: Metric = None,
    task: TaskName = None,
    budget: BudgetText = None,
    total: Annotated[
        str | None,
        typer.Option(help="Time for the whole comparison, shared equally by its runs: 10m, 1h.", show_default=False),
    ] = None,
    folds: Folds = None,
    seeds: Annotated[
        int | None, seeds_option("Paired seeds: 5, or 3 of folds, when left out.", show_default=False)
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="Baseline to compare with; by default the one with the best validation score.", show_default=False
        ),
    ] = None,
    host: TechniqueHost = None,
    backbone: Backbone = None,
    recipe: RecipeName = "base",
    set_: Settings = None,
    technique: Techniques = None,
    labels: Labels = None,
    size: Size = None,
    worth: Annotated[
        bool, typer.Option(help="Express gains as extra labels (trains the reference on subsets).")
    ] = True,
    engine: Annotated[str, typer.Option(help="local, or ray: spread the runs over a Ray cluster.")] = "local",
    address: Annotated[
        str | None,
        typer.Option(help="Ray cluster, such as auto; one is started here when left out.", show_default=False),
    ] = None,
    cores: Annotated[int, number_option("cores", "Cores per run on Ray.")] = 1,
    out: Out = None,
    fresh: Fresh = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Does it help on my data? Papers against strong baselines at an equal budget, with a verdict in words."""
    from papertrial.core.recipe import parse_settings
    from papertrial.study.compare import compare as run_compare

    def echo(line: str) -> None:
        print(printing.shown(line), file=sys.stderr if json else sys.stdout, flush=True)

    result = run_compare(
        papers, data, task=task, target=target, group=group, time=time, dates=dates, missing=missing, metric=metric, folds=folds,
        budget=budget, total=total, seeds=seeds, against=against, host=host, backbone=backbone, recipe=recipe,
        settings=parse_settings(set_ or []), techniques=technique or [],
        labels=labels, size=size, worth=worth, out=out, fresh=fresh, progress=not quiet and not json, echo=echo,
        engine=engine, address=address, cores=cores,
    )  # fmt: skip
    if json:
        printing.document(result)
        return
    printing.say("", *result.lines(), "", f"next        papertrial report {quote(result.folder)}")


def report(
    folder: Annotated[
        Path,
        typer.Argument(
            help="A run's or a comparison's folder, or evidence: the folder or one .jsonl file.", show_default=False
        ),
    ],
    out: Annotated[
        Path | None,
        out_option("File to write; by default report.html in the folder.", show_default=False),
    ] = None,
    data: Annotated[
        bool, typer.Option("--data/--no-data", help="Open the training data again and show some of them.")
    ] = True,
    replace: Replace = False,
    json: Json = False,
) -> None:
    """One HTML page that needs no network: the verdict, what it rests on, what it cost, how to reproduce it."""
    from papertrial.study.report import report as write_report

    written = write_report(folder, out, data=data, replace=replace)
    if json:
        printing.document(asdict(written))
        return
    printing.say(written.question, *written.answers, "", f"report      {written.file} ({size_in_words(written.size)})")


def check(
    papers: Annotated[
        list[str] | None,
        typer.Argument(
            help="Papers whose claims to run; all on the shelf when left out.",
            autocompletion=complete_method,
            show_default=False,
        ),
    ] = None,
    claim: Annotated[
        list[str] | None, typer.Option(help="Only this claim; may be repeated.", show_default=False)
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(help="Only claims of this kind: identity, property, trend, number.", show_default=False),
    ] = None,
    scale: Annotated[
        str, typer.Option(help="tiny (seconds, shows that it runs) or base (minutes, evidence).")
    ] = "tiny",
    seeds: Annotated[int | None, seeds_option("Seeds per claim.", show_default=False)] = None,
    evidence: Annotated[Path, typer.Option(help="Folder of the evidence.")] = Path("evidence"),
    jobs: Annotated[int, number_option("jobs", "Processes that run seeds side by side.")] = 1,
    readme: Annotated[
        Path | None, typer.Option(help="Also write the table of papers into this file.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Is it true? Run a paper's claims over seeds and keep the evidence. Exit code 1 when one that held now fails."""
    from papertrial.study import check as study

    chosen = papers or list(registry.papers())
    before = {paper: study.history(evidence, paper) for paper in chosen}
    results = study.check(
        chosen,
        claims=claim or (),
        kinds=kind or (),
        scale=scale,
        seeds=seeds,
        folder=evidence,
        jobs=jobs,
        echo=None if json else lambda line: print(printing.shown(line), flush=True),
    )
    lost = [
        f"{paper}: {name}"
        for paper in chosen
        for name in study.flipped(before[paper], [found for found in results if found.paper == paper])
    ]
    if readme is not None:
        from papertrial.study import shelf_table

        shelf_table.write_table(readme, evidence)
    if json:
        printing.document(results)
    else:
        counts = {word: sum(found.verdict == word for found in results) for word in study.VERDICTS}
        printing.say(
            "",
            ", ".join(f"{count} {word}" for word, count in counts.items() if count) or "no claims",
            f"evidence    {evidence}",
            f"next        papertrial report {quote(str(evidence))}",
        )
    if lost:
        raise ClaimLost(f"claims that held before fail now: {'; '.join(lost)}")


def measure(
    analysis: Annotated[
        str,
        typer.Argument(
            help="An analysis, such as rank_collapse.", autocompletion=complete_analysis, show_default=False
        ),
    ],
    what: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A run's folder, a method with fresh weights such as vit, hf:FOLDER, or package.module:factory; "
            "data, for an analysis that trains models of its own, such as transfer_scaling.",
            show_default=False,
        ),
    ],
    data: Annotated[
        str | None,
        data_option(
            "What the model looks at: data as for fit, or a text file; by default what it was trained on, or random."
        ),
    ] = None,
    examples: Annotated[int, number_option("examples", "Examples to look at.")] = 16,
    tokens: Annotated[int, number_option("tokens", "Tokens of each random or text example.")] = 32,
    recipe: RecipeName = "base",
    set_: Settings = None,
    seed: Annotated[int, seed_option("Seed of fresh weights and random inputs.")] = 0,
    out: Out = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """What does an analysis say about this model, or this data? A table, a sentence, report.json and plot.html."""
    from papertrial.core.recipe import parse_settings
    from papertrial.study.measure import measure as run_measure

    report = run_measure(
        analysis, what, data, out=out, recipe=recipe, settings=parse_settings(set_ or []), examples=examples, tokens=tokens, seed=seed,
        progress=not quiet and not json,
    )  # fmt: skip
    if json:
        printing.document(report)
        return
    printing.say(report.title, "", *printing.labelled(report.facts), "", *printing.table(report.head, report.rows), "")
    printing.say(*printing.labelled([("verdict", report.verdict), *(("caveat", line) for line in report.caveats)]))
    printing.say("", *(f"saved in {file}" for file in report.files))
