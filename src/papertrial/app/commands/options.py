"""Options that several commands share, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from papertrial.core import registry
from papertrial.core.ranges import NUMBERS

DATA_HELP = (
    "Images or texts in a folder or archive, a table or text file, a built-in name such as digits, or hf:ID; "
    "FILE#COLUMN for a column of text."
)


def complete_method(incomplete: str) -> list[str]:
    return [name for name in registry.entries() if name.startswith(incomplete)]


def complete_analysis(incomplete: str) -> list[str]:
    papers = registry.papers()
    return [name for name, paper in papers.items() if paper.kind == "analysis" and name.startswith(incomplete)]


def complete_technique(incomplete: str) -> list[str]:
    return [name for name in registry.techniques() if name.startswith(incomplete)]


def complete_paper(incomplete: str) -> list[str]:
    """Papers of the reading list, also those that are not on the shelf yet."""
    return [row.paper.id for row in registry.reading_list() if row.paper.id.startswith(incomplete)]


# Options that mean something else to each command: name and type are the same, the help is the command's own.


def data_option(help: str = DATA_HELP) -> Any:
    return typer.Option("--data", "-d", help=help, show_default=False)


def out_option(help: str = "Where to write.", **more: Any) -> Any:
    return typer.Option("--out", "-o", help=help, **more)


def number_option(name: str, help: str, *flags: str, **more: Any) -> Any:
    """An option that is a number of `core.ranges.NUMBERS`, whose range is shown and kept."""

    def held(value: float | None) -> float | None:
        if value is not None:
            NUMBERS[name].require(name.replace("_", "-"), value, what="--")
        return value

    return typer.Option(*flags, help=help, metavar=str(NUMBERS[name]), callback=held, **more)


def seed_option(help: str) -> Any:
    return number_option("seed", help)


def seeds_option(help: str, **more: Any) -> Any:
    return number_option("seeds", help, **more)


Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Data = Annotated[str, data_option()]
DataArgument = Annotated[str, typer.Argument(help=DATA_HELP, show_default=False)]
Method = Annotated[str, typer.Argument(help="A paper or baseline.", autocompletion=complete_method, show_default=False)]
Target = Annotated[
    str | None,
    typer.Option(help="Column of a table to predict; when left out, it is guessed and named.", show_default=False),
]
Group = Annotated[
    str | None,
    typer.Option(
        "--group",
        help="Column that says which rows belong together (patient, user, document), or a pattern with one (group) for the paths "
        "of files; 'none' for what is guessed.",
        show_default=False,
    ),
]
Time = Annotated[
    str | None,
    typer.Option(
        "--time",
        help="Column of dates or numbers: learn from the past, be judged on the future. Or a pattern with one (group) for paths.",
        show_default=False,
    ),
]
Dates = Annotated[
    str | None,
    typer.Option(
        "--dates",
        help="Which comes first in dates such as 3/4/2024 where a column does not tell: dmy or mdy.",
        show_default=False,
    ),
]
Missing = Annotated[
    str | None,
    typer.Option(
        "--missing",
        help="Texts that stand for a missing value in a table beside empty cells, such as NA,-999; none for none.",
        show_default=False,
    ),
]
Metric = Annotated[
    str | None,
    typer.Option(
        "--metric",
        help="What to judge by, such as average_precision, balanced_accuracy or mae; chosen from the data when left out.",
        show_default=False,
    ),
]
Folds = Annotated[
    str | None,
    typer.Option(
        "--folds",
        help="Every row is a test row once, in so many folds, or none; chosen from the data when left out.",
        show_default=False,
    ),
]
Threshold = Annotated[
    str | None,
    typer.Option(
        "--threshold",
        help="Where the second of two classes begins, chosen on validation rows: recall=0.9, precision=0.8.",
        show_default=False,
    ),
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
Out = Annotated[Path | None, out_option(show_default=False)]
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
        autocompletion=complete_technique,
        show_default=False,
    ),
]
Backbone = Annotated[
    str | None,
    typer.Option(
        help="Architecture under an objective: mlp_mixer, vit, timm:resnet18[:pretrained], hf:ID or hf:FOLDER, or your own my_module:MyNet.",
        autocompletion=complete_method,
        show_default=False,
    ),
]
TechniqueHost = Annotated[
    str | None,
    typer.Option(
        help="What a technique is tried on; its task suggests one when left out.",
        autocompletion=complete_method,
        show_default=False,
    ),
]
RecipeName = Annotated[str, typer.Option("--recipe", help="paper, base or tiny.")]
Labels = Annotated[
    int | None,
    number_option("labels", "Labels per class a method may see (image_representation).", show_default=False),
]
Size = Annotated[
    int | None,
    number_option("size", "Side of the images in pixels; chosen from the data when left out.", show_default=False),
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start over when the folder holds an earlier run.")]
Replace = Annotated[bool, typer.Option("--replace", help="Replace what is in the place of --out.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]
RunFolder = Annotated[Path, typer.Argument(help="A run's folder.", show_default=False)]
Host = Annotated[
    str,
    typer.Option(
        help="Address to bind to; 0.0.0.0 lets in other machines, phones too (papertrial web then asks for the token it prints)."
    ),
]
Port = Annotated[int, typer.Option(help="Port; 0 takes any that is free.", min=0, max=65535)]
Proxy = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="Public address of the proxy in front, such as https://lab.example.org; cookies are then for https only.",
        show_default=False,
    ),
]
