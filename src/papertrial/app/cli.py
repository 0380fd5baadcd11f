"""The command line. Nothing heavy is imported before a command needs it: `papertrial list` imports no torch."""

from __future__ import annotations

import os
import sys
import textwrap
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from papertrial.app import printing
from papertrial.app.judge.commands import judge
from papertrial.core import registry
from papertrial.core.budget import duration, size_in_words
from papertrial.core.errors import Declined, PapertrialError, did_you_mean
from papertrial.core.files import to_json
from papertrial.core.wording import counted
from papertrial.train import processes

#: commands that go on where an earlier call of theirs was stopped
_GOES_ON = ("fit", "compare", "index")


class Interrupted(PapertrialError):
    """Ctrl-C, or the end of another process of this run."""

    exit_code = 130


class _Commands(TyperGroup):
    """typer turns an interrupt into a silent exit code; here it keeps its words."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise _interrupted(stop) from stop


def _interrupted(stop: KeyboardInterrupt) -> Interrupted:
    if str(stop):  # Stopped has words of its own
        return Interrupted(str(stop))
    on = sys.argv[1:2] and sys.argv[1] in _GOES_ON
    return Interrupted("stopped", "the same command goes on from there" if on else "")


app = typer.Typer(
    name="papertrial",
    cls=_Commands,
    help="A reading list you can put on trial: look at your data, train a paper on it, compare it with strong baselines, use the result.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


app.add_typer(judge)


def _complete_method(incomplete: str) -> list[str]:
    return [name for name in registry.entries() if name.startswith(incomplete)]


def _complete_analysis(incomplete: str) -> list[str]:
    return [
        name for name, paper in registry.papers().items() if paper.kind == "analysis" and name.startswith(incomplete)
    ]


def _complete_technique(incomplete: str) -> list[str]:
    return [name for name in registry.techniques() if name.startswith(incomplete)]


def _complete_listed(incomplete: str) -> list[str]:
    return [row.paper.id for row in registry.reading_list() if row.paper.id.startswith(incomplete)]


Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Data = Annotated[
    str,
    typer.Option(
        "--data",
        "-d",
        help="Images or texts in a folder or archive, a table or text file, a built-in name such as digits, or hf:ID; FILE#COLUMN for a column of text.",
        show_default=False,
    ),
]
Target = Annotated[
    str | None,
    typer.Option(help="Column to predict in a table; guessed and said when left out.", show_default=False),
]
TaskName = Annotated[
    str | None,
    typer.Option(
        "--task",
        help="Such as tabular or text_classification; chosen from the data when left out.",
        show_default=False,
    ),
]
BudgetText = Annotated[
    str | None,
    typer.Option(
        "--budget", "-b", help="What one run may spend: 90s, 10m, 500steps, 200ksamples, 20trials.", show_default=False
    ),
]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Where to write.", show_default=False)]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="name=value; may be repeated. 'papertrial fit PAPER --help' lists the names.", show_default=False
    ),
]
Techniques = Annotated[
    list[str] | None,
    typer.Option(
        "--technique",
        help="Technique to train with, such as agc or agc:clip=0.02; may be repeated.",
        autocompletion=_complete_technique,
        show_default=False,
    ),
]
Backbone = Annotated[
    str | None,
    typer.Option(
        help="Architecture under an objective: mlp_mixer, vit, timm:resnet18[:pretrained], hf:ID or hf:FOLDER, or your own my_module:MyNet.",
        autocompletion=_complete_method,
        show_default=False,
    ),
]
Host = Annotated[
    str | None,
    typer.Option(
        help="What a technique is tried on; its task suggests one when left out.",
        autocompletion=_complete_method,
        show_default=False,
    ),
]
RecipeName = Annotated[str, typer.Option("--recipe", help="paper, base or tiny.")]
Labels = Annotated[
    int | None,
    typer.Option(help="Labels per class a method may see (image_representation).", show_default=False, min=1),
]
Size = Annotated[
    int | None,
    typer.Option(
        help="Side of the images in pixels; chosen from the data when left out.", show_default=False, min=4, max=1024
    ),
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start over when the folder holds an earlier run.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]
RunFolder = Annotated[Path, typer.Argument(help="A run's folder.", show_default=False)]


def _say(*lines: str) -> None:
    for line in lines:
        print(line)


def _document(content: Any) -> None:
    print(to_json(content, indent=2))


@app.command("list")
def list_(
    task: Annotated[str | None, typer.Option(help="Only papers for this task.", show_default=False)] = None,
    shelf: Annotated[bool, typer.Option("--shelf", help="Only papers that can be used now.")] = False,
    json: Json = False,
) -> None:
    """The reading list: every paper, and whether it is on the shelf yet."""
    listed = registry.reading_list()
    known = sorted({name for row in listed for name in row.paper.tasks})
    if task is not None and task not in known:
        raise PapertrialError(f"no paper has the task {task!r}", did_you_mean(task, known))
    rows = [row for row in listed if (task is None or task in row.paper.tasks) and (row.on_shelf or not shelf)]
    if json:
        _document([{**row.paper.to_json(), "on_shelf": row.on_shelf, "state": _state(row)} for row in rows])
        return
    _say(
        *printing.table(
            ("month", "paper", "state", "idea"),
            [(row.paper.month, row.paper.id, _state(row), row.paper.idea) for row in rows],
            last_cut=True,
        )
    )
    here = sum(row.on_shelf for row in rows)
    _say("", f"{len(rows)} papers, {here} on the shelf.   papertrial read PAPER   papertrial look DATA")


def _state(row: registry.Listed) -> str:
    if not row.on_shelf:
        return "not yet"
    missing = registry.missing_package(row.paper)
    return f"needs [{missing[1]}]" if missing else "on the shelf"


@app.command()
def read(
    paper: Annotated[
        str, typer.Argument(help="A paper or baseline.", autocompletion=_complete_listed, show_default=False)
    ],
    json: Json = False,
) -> None:
    """What a paper is: the idea, the equation, what its text hides, how to try it."""
    import ast

    waiting = {row.paper.id: row.paper for row in registry.reading_list() if not row.on_shelf}
    entry = None if paper in waiting else registry.find(paper)
    facts = entry.paper if entry else waiting[paper]
    page = ast.get_docstring(ast.parse(entry.file.read_text(encoding="utf-8"))) if entry else None
    if json:
        _document(
            {**facts.to_json(), "on_shelf": entry is not None, "page": page, "file": str(entry.file) if entry else None}
        )
        return
    link = f"https://arxiv.org/abs/{facts.arxiv}" if facts.arxiv else ""
    rows = [
        ("paper", facts.title),
        ("authors", facts.authors),
        ("arXiv", link),
        ("selected", facts.month),
        ("kind", facts.kind),
        ("tasks", ", ".join(facts.tasks)),
        ("techniques", ", ".join(f"--technique {name}, with any model" for name in facts.offered)),
        ("idea", facts.idea),
    ]
    rows += [
        ("builds on", ", ".join(facts.builds_on)),
        ("code", facts.official + (f" ({facts.licence})" if facts.licence else "")),
    ]
    _say(*printing.labelled(row for row in rows if row[1]))
    if entry is None:
        _say("", "This paper is on the reading list but not on the shelf yet: it cannot be trained here.")
        return
    _say(*printing.labelled(("caveat", caveat) for caveat in facts.caveats))
    _say("", page or "", "", f"code        {entry.file}")
    _say(
        f"use         {facts.command or 'papertrial measure'} --help"
        if facts.refusal
        else f"options     papertrial fit {paper} --help"
    )


@app.command()
def look(
    data: Annotated[
        str,
        typer.Argument(
            help="Images or texts in a folder or archive, a table or text file, a built-in name such as digits, or hf:ID; FILE#COLUMN for a column of text.",
            show_default=False,
        ),
    ],
    target: Target = None,
    every: Annotated[bool, typer.Option("--all", help="Say of every task and paper why it does not fit.")] = False,
    json: Json = False,
) -> None:
    """The facts of your data before anything trains, the tasks it fits, and the papers that accept it."""
    from papertrial.data import open as open_data
    from papertrial.use.suitability import suits

    opened = open_data(data, target=target)
    facts = opened.look()
    if not json:  # before the tasks are asked, who take seconds to load
        _say(*printing.labelled(facts.facts))
        _say(*printing.labelled(("note", note) for note in facts.notes))
        sys.stdout.flush()
    fitting = suits(facts)
    if json:
        _document({**facts.to_json(), "tasks": fitting.tasks, "papers": fitting.papers})
        return
    accepted = [name for name, reason in fitting.papers.items() if reason == ""]
    tasks, papers = (fitting.tasks, fitting.papers) if every else (fitting.near_tasks, fitting.near_papers)
    aside = len(fitting.tasks) - len(tasks), len(fitting.papers) - len(papers)
    _say(
        "",
        *printing.labelled(("fits", name) for name, reason in tasks.items() if reason == ""),
        *printing.labelled(("no", line) for line in _by_reason(tasks)),
        *printing.labelled([("papers", ", ".join(accepted) or "none on the shelf")]),
        *printing.labelled(("declines", line) for line in _by_reason(papers)),
    )
    if any(aside):
        _say(*printing.labelled([("aside", f"{aside[0]} tasks and {aside[1]} papers for other uses: --all says why")]))
    if accepted:
        verb = "compare" if facts.numbers.get("labelled") else "fit"
        extra = f" --target {quote(target)}" if target else ""
        _say("", f"next        papertrial {verb} {accepted[0]} --data {quote(data)}{extra}")


@app.command(context_settings={"help_option_names": []})
def fit(
    paper: Annotated[
        str | None,
        typer.Argument(
            help="A paper or baseline, such as mlp_mixer, mlp_mixer:S/16 or rtdl:resnet.",
            autocompletion=_complete_method,
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            "-d",
            help="Images or texts in a folder or archive, a table or text file, a built-in name such as digits, or hf:ID; FILE#COLUMN for a column of text.",
            show_default=False,
        ),
    ] = None,
    target: Target = None,
    task: TaskName = None,
    budget: BudgetText = None,
    host: Host = None,
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
    seed: Annotated[int, typer.Option(help="Seed of weights, order and validation rows.", min=0)] = 0,
    out: Out = None,
    fresh: Fresh = False,
    shard: Annotated[
        bool, typer.Option("--shard", help="Under torchrun: split the weights over the processes (FSDP2).")
    ] = False,
    quiet: Quiet = False,
    json: Json = False,
    help_: Annotated[
        bool, typer.Option("--help", "-h", help="Show this, or with a PAPER its options with their sources.")
    ] = False,
) -> None:
    """Train one paper on your data. The same command resumes a run that was stopped; nothing is lost."""
    if paper is None and data is not None and not help_:
        raise PapertrialError("fit needs a paper", f"papertrial look {quote(data)} says which fit")
    if paper is None or help_:
        _fit_help(paper)
        return
    if data is None and not registry.find(paper.partition(":")[0]).paper.refusal:
        raise PapertrialError("fit needs data", f"type: papertrial fit {paper} --data FOLDER_OR_FILE")
    from papertrial.core.recipe import parse_settings
    from papertrial.use.fit import fit as run_fit

    method = registry.method(paper)
    given = parse_settings([*(set_ or []), *(["compile=true"] if compile_ else [])])
    artifact = run_fit(
        method.name, data, task=task, target=target, out=out, host=host, backbone=backbone, recipe=recipe, settings=given,
        techniques=technique or [], budget=budget, labels=labels, size=size, seed=seed, fresh=fresh,
        progress=not quiet and not json, shard=shard,
    )  # fmt: skip
    main = processes.is_main()
    processes.part()
    if not main:
        return
    card = artifact.card
    if json:
        _document(
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
    _say(*_run_lines(artifact))


def _run_lines(artifact: Any) -> list[str]:
    from papertrial.core.budget import Energy, duration

    card, cost = artifact.card, artifact.card["cost"]
    rows = [
        ("method", " on ".join(filter(None, (card["method"]["name"], card.get("host"), card["backbone"])))),
        ("task", f"{card['task']['name']} v{card['task']['version']}"),
        ("data", card["data"]["name"]),
    ]
    rows += [("note", note) for note in card["notes"]]
    lines = printing.labelled(rows)
    lines += ["settings", *printing.settings(_Row(**entry) for entry in card["settings"] + card["backbone_settings"])]
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
        ["on test rows, with 95 % intervals", *printing.metrics(card["metrics"], card["intervals"])]
        if card["metrics"]
        else ["no labelled test rows: nothing to judge it by"]
    )
    if card["extra"]:
        lines += ["also", *printing.metrics(card["extra"], {})]
    folder = quote(str(artifact.folder))
    return [
        *lines,
        "",
        f"saved in {artifact.folder}",
        f"next        {_uses(artifact, folder)}",
        f"            papertrial report {folder}{_export(artifact, folder)}",
    ]


def _writes(artifact: Any) -> str:
    """`answers` for a model from text to text, `on` for one that writes on, empty for one that writes nothing."""
    from papertrial.use.generate import writer

    try:
        return "answers" if hasattr(writer(artifact), "encode") else "on"
    except Declined:
        return ""


def _uses(artifact: Any, folder: str) -> str:
    """What a trained model is for, as commands."""
    if hasattr(artifact.model, "draw"):
        return f"papertrial generate {folder}    papertrial evaluate {folder} DATA"
    writes = _writes(artifact)
    if not writes:
        return f"papertrial predict {folder} DATA    papertrial embed {folder} DATA"
    begin = f"papertrial predict {folder} DATA" if writes == "answers" else f"papertrial evaluate {folder} DATA"
    return f'{begin}    papertrial generate {folder} "{"a text to answer" if writes == "answers" else "how it begins"}"'


def _export(artifact: Any, folder: str) -> str:
    """The command that takes a network away, where it turns inputs into answers."""
    network = hasattr(artifact.model, "state_dict") and not hasattr(artifact.model, "draw")
    network = network and _writes(artifact) != "answers"
    return f"    papertrial export {folder} --to onnx" if network else ""


class _Row:
    """A card's setting, read back."""

    def __init__(self, name: str, value: Any, source: str) -> None:
        self.name, self.value, self.source = name, value, source


def _fit_help(paper: str | None) -> None:
    context = typer.main.get_command(app).commands["fit"]  # type: ignore[attr-defined]
    _say(context.get_help(type(context).make_context(context, "papertrial fit", ["-"], resilient_parsing=True)))
    if paper is None:
        return
    from papertrial.core.recipe import Optim, Setting, resolve

    method = registry.method(paper)
    _say("", f"Options of {method.name}, each --set name=value (default, source):")
    _, settings = resolve(
        method.module.Config, None, {f"variant {method.variant}": method.overrides} if method.variant else {}
    )
    _say(*printing.settings(settings))
    if getattr(method.module, "variants", {}):
        _say("", f"Variants: {', '.join(f'{method.id}:{name}' for name in method.module.variants)}")
    for recipe in method.module.recipes.values():
        changes = ", ".join(
            f"{name}={printing.words(value)}" for name, value in {**recipe.config, **recipe.optim}.items()
        )
        changes += "".join(f", --technique {text}" for text in recipe.techniques)
        _say(
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
        _say(
            "",
            "Training, also --set name=value:",
            *printing.settings(Setting(row.name, row.value, row.source) for row in resolve(Optim, None, {})[1]),
        )
    for name in method.paper.techniques:
        _say(
            "",
            f"--technique {name}:setting=value, with any model:",
            *printing.settings(registry.technique(name).settings),
        )
    _say("", "Values marked with a rule are suited to your data; a run prints and keeps what was chosen and why.")


def _by_reason(refusals: dict[str, str]) -> list[str]:
    """One line for all that say no for the same reason."""
    reasons = dict.fromkeys(reason for reason in refusals.values() if reason)
    return [f"{', '.join(name for name, given in refusals.items() if given == reason)}: {reason}" for reason in reasons]


@app.command()
def estimate(
    paper: Annotated[
        str, typer.Argument(help="A paper or baseline.", autocompletion=_complete_method, show_default=False)
    ],
    data: Data,
    target: Target = None,
    task: TaskName = None,
    budget: BudgetText = None,
    host: Host = None,
    backbone: Backbone = None,
    recipe: RecipeName = "base",
    set_: Settings = None,
    technique: Techniques = None,
    labels: Labels = None,
    size: Size = None,
    seeds: Annotated[
        int | None,
        typer.Option(help="Also estimate a comparison with this many seeds.", min=1, max=200, show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """What would it cost? Minutes, memory and energy of a run, from ten of its steps, before it starts."""
    from papertrial.core.recipe import parse_settings
    from papertrial.study.estimate import estimate as run_estimate

    found = run_estimate(
        paper, data, task=task, target=target, budget=budget, host=host, backbone=backbone, recipe=recipe, settings=parse_settings(set_ or []),
        techniques=technique or [], labels=labels, size=size, seeds=seeds,
    )  # fmt: skip
    if json:
        _document(found)
        return
    _say(*printing.labelled(found.lines()))


@app.command()
def compare(
    papers: Annotated[
        list[str],
        typer.Argument(
            help="Papers to compare, such as mlp_mixer rtdl:resnet.",
            autocompletion=_complete_method,
            show_default=False,
        ),
    ],
    data: Data,
    target: Target = None,
    task: TaskName = None,
    budget: BudgetText = None,
    total: Annotated[
        str | None,
        typer.Option(help="Time for the whole comparison, shared equally by its runs: 10m, 1h.", show_default=False),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Paired seeds.", min=1, max=200)] = 5,
    against: Annotated[
        str | None,
        typer.Option(
            help="Baseline to measure differences to; by default the one that validates best.", show_default=False
        ),
    ] = None,
    host: Host = None,
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
    cores: Annotated[int, typer.Option(help="Cores of each run on Ray.", min=1)] = 1,
    out: Out = None,
    fresh: Fresh = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Does it help on my data? Papers against strong baselines at an equal budget, with a verdict in words."""
    from papertrial.core.recipe import parse_settings
    from papertrial.study.compare import compare as run_compare

    def echo(line: str) -> None:
        print(line, file=sys.stderr if json else sys.stdout, flush=True)

    result = run_compare(
        papers, data, task=task, target=target, budget=budget, total=total, seeds=seeds, against=against, host=host, backbone=backbone, recipe=recipe,
        settings=parse_settings(set_ or []), techniques=technique or [],
        labels=labels, size=size, worth=worth, out=out, fresh=fresh, progress=not quiet and not json, echo=echo,
        engine=engine, address=address, cores=cores,
    )  # fmt: skip
    if json:
        _document(result)
        return
    _say("", *result.lines(), "", f"next        papertrial report {quote(result.folder)}")


@app.command()
def report(
    folder: Annotated[
        Path,
        typer.Argument(
            help="A run's or a comparison's folder, or evidence: the folder or one .jsonl file.", show_default=False
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File to write; by default report.html in the folder.", show_default=False),
    ] = None,
    data: Annotated[
        bool, typer.Option("--data/--no-data", help="Open the training data again and show some of them.")
    ] = True,
    json: Json = False,
) -> None:
    """One HTML page that needs no network: the verdict, what it rests on, what it cost, how to get it again."""
    from papertrial.study.report import report as write_report

    written = write_report(folder, out, data=data)
    if json:
        _document(asdict(written))
        return
    _say(written.question, *written.answers, "", f"report      {written.file} ({size_in_words(written.size)})")


@app.command()
def check(
    papers: Annotated[
        list[str] | None,
        typer.Argument(
            help="Papers whose claims to run; all on the shelf when left out.",
            autocompletion=_complete_method,
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
    seeds: Annotated[int | None, typer.Option(help="Seeds per claim.", min=1, show_default=False)] = None,
    evidence: Annotated[Path, typer.Option(help="Folder of the evidence.")] = Path("evidence"),
    jobs: Annotated[int, typer.Option(help="Processes that run seeds side by side.", min=1)] = 1,
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
        echo=None if json else lambda line: print(line, flush=True),
    )
    lost = [
        f"{paper}: {name}"
        for paper in chosen
        for name in study.flipped(before[paper], [found for found in results if found.paper == paper])
    ]
    if readme is not None:
        study.write_table(readme, evidence)
    if json:
        _document(results)
    else:
        counts = {word: sum(found.verdict == word for found in results) for word in study.VERDICTS}
        _say(
            "",
            ", ".join(f"{count} {word}" for word, count in counts.items() if count) or "no claims",
            f"evidence    {evidence}",
            f"next        papertrial report {quote(str(evidence))}",
        )
    if lost:
        _stop(f"claims that held before fail now: {'; '.join(lost)}", 1)


@app.command()
def measure(
    analysis: Annotated[
        str,
        typer.Argument(
            help="An analysis, such as rank_collapse.", autocompletion=_complete_analysis, show_default=False
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
        typer.Option(
            "--data",
            "-d",
            help="What the model looks at: data as for fit, or a text file; by default what it was trained on, or random.",
            show_default=False,
        ),
    ] = None,
    examples: Annotated[int, typer.Option(help="Examples to look at.", min=1)] = 16,
    tokens: Annotated[int, typer.Option(help="Tokens of each random or text example.", min=2)] = 32,
    recipe: RecipeName = "base",
    set_: Settings = None,
    seed: Annotated[int, typer.Option(help="Seed of fresh weights and random inputs.", min=0)] = 0,
    out: Out = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """What does an analysis say of this model, or of this data? A table, a sentence, report.json and plot.html."""
    from papertrial.core.recipe import parse_settings
    from papertrial.study.measure import measure as run_measure

    report = run_measure(
        analysis, what, data, out=out, recipe=recipe, settings=parse_settings(set_ or []), examples=examples, tokens=tokens, seed=seed,
        progress=not quiet and not json,
    )  # fmt: skip
    if json:
        _document(report)
        return
    _say(report.title, "", *printing.labelled(report.facts), "", *printing.table(report.head, report.rows), "")
    _say(*printing.labelled([("verdict", report.verdict), *(("caveat", line) for line in report.caveats)]))
    _say("", *(f"saved in {file}" for file in report.files))


@app.command()
def evaluate(
    run: RunFolder, data: Annotated[str, typer.Argument(help="Labelled data.", show_default=False)], json: Json = False
) -> None:
    """Judge a trained model on labelled data."""
    from papertrial.use.artifact import Artifact

    scores = Artifact.load(run).evaluate(data)
    if json:
        _document({"metrics": scores.metrics, "intervals": scores.intervals, "examples": len(scores.per_example)})
        return
    _say(
        f"{counted(len(scores.per_example), 'example')} of {data}, with 95 % intervals",
        *printing.metrics(scores.metrics, scores.intervals),
    )


@app.command()
def predict(
    run: RunFolder,
    data: Annotated[str, typer.Argument(help="Data to answer for: a file, a folder, one image.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write: .csv, .jsonl or .parquet.")] = Path(
        "predictions.csv"
    ),
    json: Json = False,
) -> None:
    """Answers of a trained model for new data."""
    from papertrial.use.answer_files import check_table_name, write_table
    from papertrial.use.artifact import Artifact

    check_table_name(out)
    answers = Artifact.load(run).predict(data)
    write_table(out, answers)
    rows = len(answers["prediction"])
    if json:
        _document({"file": out, "rows": rows, "columns": list(answers)})
        return
    head = ["example", "prediction"]
    _say(
        *printing.table(
            head,
            [
                [
                    printing.words(
                        answers[name][row].item() if hasattr(answers[name][row], "item") else answers[name][row]
                    )
                    for name in head
                ]
                for row in range(min(5, rows))
            ],
        )
    )
    _say(f"{'... ' if rows > 5 else ''}{counted(rows, 'row')} in {out}")


@app.command()
def embed(
    run: RunFolder,
    data: Annotated[str, typer.Argument(help="Data to embed.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write: .npy or .parquet.")] = Path("embeddings.npy"),
    json: Json = False,
) -> None:
    """Features of a trained model for new data, one row per example."""
    from papertrial.use.answer_files import check_array_name, write_array
    from papertrial.use.artifact import Artifact

    check_array_name(out)
    artifact = Artifact.load(run)
    split, opened = artifact.encode(data)
    features = artifact.task.embed(artifact.model, split)
    write_array(out, features, opened.names)
    if json:
        _document({"file": out, "rows": features.shape[0], "width": features.shape[1]})
        return
    _say(f"{counted(features.shape[0], 'row')} of {counted(features.shape[1], 'feature')} in {out}")


@app.command()
def generate(
    context: typer.Context,
    run: RunFolder,
    prompt: Annotated[
        list[str] | None,
        typer.Argument(
            help="Texts to go on with or to answer, nothing to begin with when left out; captions of pictures.",
            show_default=False,
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="A text file that is the prompt.", show_default=False)
    ] = None,
    stdin: Annotated[bool, typer.Option("--stdin", help="Standard input is the prompt.")] = False,
    length: Annotated[
        int, typer.Option("--length", "-l", help="Most tokens of a text; bytes of a byte model.", min=1)
    ] = 200,
    temperature: Annotated[
        float | None,
        typer.Option(
            "--temperature",
            "-t",
            min=0,
            show_default=False,
            help="0 takes the most probable token, 1 draws as the model says (default for prompts; 0 for answers).",
        ),
    ] = None,
    top_k: Annotated[int, typer.Option("--top-k", help="Draw from the k most probable tokens; 0 for all.", min=0)] = 0,
    top_p: Annotated[
        float, typer.Option("--top-p", help="Draw from the fewest tokens that have this probability together.", max=1)
    ] = 1.0,
    beams: Annotated[
        int, typer.Option("--beams", help="Search for the most probable text with so many beams.", min=1)
    ] = 1,
    length_penalty: Annotated[float, typer.Option(help="Of beams: larger values favour longer texts.")] = 1.0,
    seed: Annotated[
        int, typer.Option(help="Seed of the first text or picture; the others have the next ones.", min=0)
    ] = 0,
    samples: Annotated[
        int | None,
        typer.Option(
            "--samples",
            "--n",
            "-n",
            min=1,
            show_default=False,
            help="Texts per prompt, 1 when left out; pictures of each class or caption, 16 when left out.",
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            "--label",
            help="Pictures: class to draw, or all; may be repeated or a list such as cat,dog.",
            show_default=False,
        ),
    ] = None,
    caption: Annotated[
        list[str] | None,
        typer.Option("--caption", help="Pictures: what to draw, in words; may be repeated.", show_default=False),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(help="Pictures: how strongly the class or caption is followed.", show_default=False, min=0),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Pictures: steps from noise to picture.", show_default=False, min=1)
    ] = None,
    start: Annotated[Path | None, typer.Option(help="Pictures: an image to begin from.", show_default=False)] = None,
    strength: Annotated[
        float | None, typer.Option(help="Pictures: how far from --start, above 0 to 1.", show_default=False, max=1)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Pictures: new folder to write; pictures in the run's folder when left out.",
            show_default=False,
        ),
    ] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Let a trained model make things: a language model writes, and the text is printed as it comes; a generator draws
    pictures into a folder."""
    from papertrial.use.artifact import Artifact
    from papertrial.use.generate import generate as run_generate
    from papertrial.use.generate import writer

    artifact = Artifact.load(run)
    drawing = hasattr(artifact.model, "draw")
    _only_for(context, artifact, _OF_TEXTS if drawing else _OF_PICTURES)
    if drawing:
        _draw(
            artifact, out, quiet or json, json, seed=seed, labels=[name for text in label or [] for name in _names(artifact, text)],
            captions=[*(prompt or []), *(caption or [])], guidance=guidance, steps=steps, start=start, strength=strength,
            **({"samples": samples} if samples else {}),
        )  # fmt: skip
        return
    prompts, samples = _prompts(prompt or [], file, stdin), samples or 1
    answers = hasattr(writer(artifact), "encode")
    heads = [
        (f"--- {place * samples + sample + 1} of {len(prompts) * samples}\n" if len(prompts) * samples > 1 else "")
        + ("" if answers else text)
        for place, text in enumerate(prompts)
        for sample in range(samples)
    ]
    try:
        texts = run_generate(
            artifact, prompts, length=length, temperature=temperature, top_k=top_k, top_p=top_p, beams=beams,
            length_penalty=length_penalty, seed=seed, samples=samples, heard=None if json else printing.InTurn(heads),
        )  # fmt: skip
    except KeyboardInterrupt:
        print()  # the prompt of the shell belongs on a line of its own
        raise
    if json:
        _document({"folder": run, "method": artifact.card["method"]["name"], "texts": texts})


#: options of `generate` that go with one sort of model
_OF_TEXTS = ("file", "stdin", "length", "temperature", "top_k", "top_p", "beams", "length_penalty")
_OF_PICTURES = ("label", "caption", "guidance", "steps", "start", "strength", "out")


def _only_for(context: typer.Context, artifact: Any, others: tuple[str, ...]) -> None:
    """Decline options that go with another sort of model."""
    for name in others:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            does = "writes texts" if others is _OF_PICTURES else "draws pictures"
            raise Declined(f"{artifact.card['method']['name']} {does} and takes no --{name.replace('_', '-')}")


def _names(artifact: Any, text: str) -> list[str]:
    """One class, or several between commas where no class has such a name."""
    known = artifact.card["state"].get("class_names", [])
    return [text] if text in known else [name.strip() for name in text.split(",") if name.strip()]


def _draw(artifact: Any, out: Path | None, quiet: bool, json: bool, **options: Any) -> None:
    from papertrial.use.pictures import Bar, save

    with Bar(not quiet) as heard:
        made = save(artifact, out, heard=heard, **options)
    if json:
        _document({"method": artifact.card["method"]["name"], **made})
        return
    count = len(made["pictures"])
    _say(f"{count} picture{'s' if count > 1 else ''} in {made['folder']}, all of them in {made['grid']}")


def _prompts(given: list[str], file: Path | None, stdin: bool) -> list[str]:
    """The prompts from one of three places. A line end at the end of a file or of standard input is not part of it."""
    if bool(given) + (file is not None) + stdin > 1:
        raise PapertrialError("a prompt is an argument, a file or standard input", "give one of the three")
    if file is None and not stdin:
        return [text.encode("utf-8", "replace").decode() for text in given or [""]]
    try:
        text = (sys.stdin.buffer.read() if file is None else file.read_bytes()).decode("utf-8")
    except (OSError, UnicodeError) as error:
        raise PapertrialError(f"{file or 'standard input'} is no UTF-8 text that can be read ({error})") from None
    return [text.removesuffix("\n").removesuffix("\r")]


CheckData = Annotated[
    str | None,
    typer.Option(
        "--data",
        "-d",
        help="Rows to compare the answers on; by default those of the run where they are found by name.",
        show_default=False,
    ),
]


@app.command()
def export(
    run: RunFolder,
    to: Annotated[str, typer.Option("--to", help="onnx, or torch (torch.export).", show_default=False)],
    data: CheckData = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """The model as one file, from raw inputs to answers, compared with the model before it is kept."""
    from papertrial.use.artifact import Artifact
    from papertrial.use.export import export as run_export

    about = run_export(Artifact.load(run), to, out=out, data=data)
    if json:
        _document(about)
        return
    check = about["check"]
    _say(
        *printing.labelled(
            [
                *(("takes", f"{entry['name']} {entry['dtype']} {_shape(entry)}") for entry in about["inputs"]),
                ("gives", about["outputs"][0]["name"]),
                (
                    "check",
                    f"{check['rows']} in batches of {', '.join(map(str, check['batches']))}: "
                    f"largest difference {check['largest_difference']:.2g}, allowed {check['allowed']:.2g}",
                ),
            ]
        )
    )
    beside = f" and {about['file']}.tokenizer.json" if about.get("tokeniser", {}).get("kind") == "tokenizers" else ""
    _say(f"saved in {about['file']}, described in {about['file']}.json{beside}")
    if "use" in about:
        _say("", "from a text to the answers:", "", *(f"    {line}".rstrip() for line in about["use"].splitlines()))


def _shape(entry: dict[str, Any]) -> str:
    return f"({', '.join(map(str, ['batch', *entry['shape']]))})"


@app.command()
def eject(
    run: RunFolder,
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder to write.", show_default=False)],
    data: CheckData = None,
    json: Json = False,
) -> None:
    """The model as a folder of plain PyTorch: source, weights and a loader that need no papertrial."""
    from papertrial.use.artifact import Artifact
    from papertrial.use.eject import eject as run_eject

    about = run_eject(Artifact.load(run), out, data=data)
    if json:
        _document(about)
        return
    check = about["check"]
    _say(f"check       {check['rows']}, without papertrial: largest difference {check['largest_difference']:.2g}")
    _say(f"saved in {about['folder']}: " + ", ".join(sorted(os.listdir(about["folder"]))))


@app.command()
def new(
    name: Annotated[
        str,
        typer.Argument(
            help="The paper's id, such as barlow_twins.", autocompletion=_complete_listed, show_default=False
        ),
    ],
    kind: Annotated[str, typer.Option(help="architecture or objective.")] = "architecture",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Folder of a package of its own, even inside of a checkout.", show_default=False
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Start a paper: its file and its test, which work and pass every check from the start."""
    from papertrial.app.new import new as write

    files = write(name, kind, out)
    if json:
        _document({"files": files})
        return
    _say(*(f"wrote {file}" for file in files))
    package = next((file.parent for file in files if file.name == "pyproject.toml"), None)
    install = f"pip install -e {package}    " if package else ""
    _say("", f"next        {install}papertrial fit {name} --data digits --recipe tiny")


@app.command()
def index(
    corpus: Annotated[
        str | None,
        typer.Argument(
            help="A BEIR folder, JSON Lines (arXiv metadata too), SQuAD JSON, CSV, BibTeX, or a folder of text files.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The index: a folder, made or brought up to date.", show_default=False),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Search by meaning too: minilm, hf:ID, or a run's folder; none drops the vectors.", show_default=False
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            help="How vectors are found: flat, hnsw, ivf or pq; by their number when left out.", show_default=False
        ),
    ] = None,
    stem: Annotated[
        bool | None,
        typer.Option("--stem/--no-stem", help="Take English plurals for their singular.", show_default=False),
    ] = None,
    add: Annotated[bool, typer.Option("--add", help="Keep documents that CORPUS does not have.")] = False,
    delete: Annotated[
        list[str] | None, typer.Option(help="Id of a document to remove; may be repeated.", show_default=False)
    ] = None,
    fresh: Fresh = False,
    json: Json = False,
) -> None:
    """Make documents searchable; the same command brings the index up to date, encoding only what has changed."""
    from papertrial.discover.index import index as run_index
    from papertrial.use.fit import default_folder

    if out is None and corpus is None:
        raise PapertrialError("index needs a corpus", "type: papertrial index CORPUS --out INDEX")
    done = run_index(
        corpus, out or default_folder("index", str(corpus)), encoder=encoder, kind=kind, stem=stem, add=add,
        delete=delete or [], fresh=fresh, echo=(lambda line: None) if json else lambda line: _say(line),
    )  # fmt: skip
    if json:
        _document(done)
        return
    rows = [
        ("documents", f"{done.documents:,}, {done.words:,} different words, {size_in_words(done.bytes)} on disk"),
        (
            "changes",
            f"{done.added:,} added, {done.changed:,} changed, {done.removed:,} removed, {done.kept:,} as they were",
        ),
    ]
    if done.encoder:
        found = "exact" if done.recall is None else f"recall@10 {done.recall:.3f} against an exact search"
        rows.append(("vectors", f"{done.encoded:,} encoded by {done.encoder}; {done.kind}, {found}"))
    rows += [
        ("time", ", ".join(f"{stage} {duration(seconds)}" for stage, seconds in done.seconds.items()) or "none"),
        ("latency", ", ".join(f"{1000 * seconds:.1f} ms by {mode}" for mode, seconds in done.latency.items())),
        *(("note", note) for note in done.notes),
    ]
    _say(*printing.labelled(row for row in rows if row[1]))
    _say("", f'next        papertrial search {quote(done.folder)} "words to look for"')


@app.command()
def search(
    index: Annotated[
        str, typer.Argument(help="An index, or list: the reading list.", show_default=False, metavar="INDEX")
    ],
    query: Annotated[str, typer.Argument(help="What to look for.", show_default=False)],
    most: Annotated[int, typer.Option("--most", "-k", help="Documents to show.", min=1)] = 10,
    mode: Annotated[
        str | None,
        typer.Option(help="hybrid, bm25 or dense; hybrid where the index has vectors.", show_default=False),
    ] = None,
    rerank: Annotated[
        Path | None, typer.Option(help="Run of a reranker that orders what was found anew.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Find documents in an index: by their words, by meaning, or by both."""
    from papertrial.discover.search import marked
    from papertrial.discover.search import search as run_search

    found = run_search(index, query, most, mode=mode, rerank=rerank)
    if json:
        _document(found)
        return
    on, off = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("*", "*")
    for place, hit in enumerate(found.hits, 1):
        _say(f"{place:>3}  {hit.title or hit.id}" + (f"  [{hit.id}]" if hit.title else ""))
        _say(
            *textwrap.wrap(
                marked(hit.snippet, hit.marks, on, off),
                printing.columns(),
                initial_indent="     ",
                subsequent_indent="     ",
            )
        )
    _say("" if found.hits else "nothing found", *printing.labelled(("note", note) for note in found.notes))
    took = ", ".join(f"{stage} {1000 * seconds:.1f} ms" for stage, seconds in found.seconds.items() if stage != "all")
    _say(f"{counted(found.documents, 'document')} by {found.mode}: {took}")


@app.command()
def rasp(
    file: Annotated[Path | None, typer.Argument(help="A program, FILE.rasp.", show_default=False)] = None,
    code: Annotated[str | None, typer.Option("-c", help="Statements to run, after FILE.", show_default=False)] = None,
    example: Annotated[str, typer.Option(help="Input on which results are shown.")] = "hello",
    interactive: Annotated[bool, typer.Option("--interactive", "-i", help="Then start the prompt.")] = False,
    compile_: Annotated[
        str | None,
        typer.Option("--compile", help="Program to compile to a PyTorch transformer in --out.", show_default=False),
    ] = None,
    vocabulary: Annotated[str, typer.Option(help="Letters the transformer reads.")] = "abcde",
    longest: Annotated[int, typer.Option(help="Longest input the transformer reads.", min=1)] = 16,
    out: Out = None,
    json: Json = False,
) -> None:
    """The language of "Thinking Like Transformers": a prompt, files, and programs compiled to transformers."""
    from papertrial.app import rasp as language

    if compile_ and out is None:
        raise PapertrialError("--compile needs a folder to write", "add --out FOLDER")
    if compile_ and out:
        language.compile_to(file, code, compile_, out, vocabulary, longest, json)
    else:
        language.run(file, code, example, interactive, json)


@app.command()
def web(
    runs: Annotated[
        Path | None,
        typer.Argument(
            help="Folder of runs and comparisons to show; runs/ when left out. Nothing outside is read.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to bind to; other machines reach 0.0.0.0, with the token it prints.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes any that is free.", min=0, max=65535)] = 8000,
    url: Annotated[
        str | None,
        typer.Option(
            help="The address at which a proxy passes the site on, such as https://lab.example.org; cookies are then for https alone.",
            show_default=False,
        ),
    ] = None,
    index: Annotated[
        list[Path] | None, typer.Option(help="Index to search; may be repeated.", show_default=False)
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="Database of judgements, whose pages stand under /judge.", show_default=False)
    ] = None,
    evidence: Annotated[Path | None, typer.Option(help="Folder of the evidence on claims.", show_default=False)] = None,
) -> None:
    """The shelf, runs as they go, search and judgements as a site on this machine. Ctrl-C ends it."""
    from papertrial.app.site import serve
    from papertrial.app.web import make_web

    folder = runs if runs is not None else Path("runs") if Path("runs").is_dir() else None
    site = make_web(folder, host=host, url=url, indexes=index or [], judge=judge, evidence=evidence)
    serve(site, host, port, lambda line: print(line, flush=True))


@app.command()
def doctor(json: Json = False) -> None:
    """Is this machine ready? Versions, threads, extras, cache and known traps."""
    from papertrial.use.doctor import checks

    found = checks()
    if json:
        _document(found)
    else:
        _say(
            *printing.table(
                ("check", "state", "what"), [(check["name"], check["state"], check["what"]) for check in found]
            )
        )
    if any(check["state"] == "broken" for check in found):
        raise typer.Exit(1)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from papertrial import __version__

        print(f"papertrial {__version__}")
        raise typer.Exit


def main() -> None:
    """Run a command; whatever the user can mend ends in one line and the exit code that goes with it."""
    try:
        _run()
    except KeyboardInterrupt as stop:  # while nothing was running yet, or while another end was being told
        _stop(str(_interrupted(stop)), Interrupted.exit_code)


def _run() -> None:
    try:
        if processes.several():
            if sys.argv[1:2] != ["fit"]:
                raise PapertrialError("only fit runs in several processes", "start this command without torchrun")
            # DDP warns, below Python, of models that use all of their parameters; torch reads this when it is loaded
            os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        command = typer.main.get_command(app)
        sys.exit(command.main(sys.argv[1:], prog_name="papertrial", standalone_mode=False) or 0)
    except PapertrialError as error:
        _stop(str(error), error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except MemoryError:
        _stop("out of memory; use a smaller --set batch=..., --size, or fewer rows", 2)
    except Exception as error:
        if hasattr(error, "format_message"):  # a usage error of the command-line parser
            _stop(_usage(error), 2)
        if type(error).__name__ in ("Abort", "Exit"):
            sys.exit(getattr(error, "exit_code", 1))
        if processes.lost(error):
            _stop(processes.ENDED, 1)
        if os.environ.get("PAPERTRIAL_DEBUG"):
            raise
        _stop(
            f"a defect of papertrial: {type(error).__name__}: {error}; PAPERTRIAL_DEBUG=1 shows where; please report it",
            1,
        )


def _usage(error: Any) -> str:
    message = " ".join(str(error.format_message()).split())
    if "No such command" in message and sys.argv[1:]:
        return f"there is no command {sys.argv[1]!r}; {did_you_mean(sys.argv[1], list(typer.main.get_command(app).commands))}"  # type: ignore[attr-defined]
    where = f"papertrial {sys.argv[1]} --help" if sys.argv[1:] else "papertrial --help"
    return f"{message.rstrip('.')}; type: {where}"


def _stop(message: str, code: int) -> None:
    if processes.may_speak():
        print(f"papertrial: {' '.join(message.split())}", file=sys.stderr)
    processes.leave(code)
