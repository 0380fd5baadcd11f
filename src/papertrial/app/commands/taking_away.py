"""`export` and `eject`: a trained model without papertrial."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from papertrial.app import printing
from papertrial.app.commands.options import Json, Out, Replace, RunFolder, data_option, out_option

CheckData = Annotated[
    str | None,
    data_option("Rows to compare the answers on; by default those of the run, if they are found by name."),
]


def export(
    run: RunFolder,
    to: Annotated[str, typer.Option("--to", help="onnx, or torch (torch.export).", show_default=False)],
    data: CheckData = None,
    out: Out = None,
    replace: Replace = False,
    json: Json = False,
) -> None:
    """The model as one file, from raw inputs to answers, compared with the model before it is kept."""
    from papertrial.use.artifact import Artifact
    from papertrial.use.export import export as run_export

    about = run_export(Artifact.load(run), to, out=out, data=data, replace=replace)
    if json:
        printing.document(about)
        return
    check = about["check"]
    printing.notes(check["notes"])
    printing.say(
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
    printing.say(f"saved in {about['file']}, described in {about['file']}.json{beside}")
    if "use" in about:
        printing.say(
            "", "from a text to the answers:", "", *(f"    {line}".rstrip() for line in about["use"].splitlines())
        )


def _shape(entry: dict[str, Any]) -> str:
    return f"({', '.join(map(str, ['batch', *entry['shape']]))})"


def eject(
    run: RunFolder,
    out: Annotated[Path, out_option("New folder to write.", show_default=False)],
    data: CheckData = None,
    json: Json = False,
) -> None:
    """The model as a folder of plain PyTorch: source, weights and a loader that need no papertrial."""
    from papertrial.use.artifact import Artifact
    from papertrial.use.eject import eject as run_eject

    about = run_eject(Artifact.load(run), out, data=data)
    if json:
        printing.document(about)
        return
    check = about["check"]
    printing.notes(check["notes"])
    printing.say(
        f"check       {check['rows']}, without papertrial: largest difference {check['largest_difference']:.2g}"
    )
    printing.say(f"saved in {about['folder']}: " + ", ".join(sorted(os.listdir(about["folder"]))))
