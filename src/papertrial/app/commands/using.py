"""`evaluate`, `predict`, `embed` and `generate`: a trained model on new data."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from papertrial.app import printing
from papertrial.app.commands.options import (
    Dates,
    Group,
    Json,
    Metric,
    Missing,
    Quiet,
    Replace,
    RunFolder,
    number_option,
    out_option,
    seed_option,
)
from papertrial.core.errors import Declined, PapertrialError
from papertrial.core.offers import offers
from papertrial.core.wording import counted


def evaluate(
    run: RunFolder,
    data: Annotated[str, typer.Argument(help="Labelled data.", show_default=False)],
    metric: Metric = None,
    group: Group = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Count rows whose label the model does not know as wrong.")
    ] = False,
    dates: Dates = None,
    missing: Missing = None,
    json: Json = False,
) -> None:
    """Judge a trained model on labelled data."""
    from papertrial.use.artifact import Artifact

    artifact = Artifact.load(run)
    scores = artifact.evaluate(data, metric=metric, group=group, strict=strict, dates=dates, missing=missing)
    judged = len(scores.per_example)
    if json:
        printing.document(
            {
                "metrics": scores.metrics,
                "intervals": scores.intervals,
                "floors": scores.floors,
                "remarks": scores.remarks,
                "examples": judged,
                "groups": scores.groups or judged,
                "rows_in": scores.rows,
                "left_out": scores.left_out,
                "notes": scores.notes,
            }
        )
        return
    printing.notes(scores.notes)
    of_all = f" of {counted(scores.rows, 'row')}" if judged < scores.rows else ""
    among = f" in {counted(scores.groups, 'group')}" if scores.groups else ""
    printing.say(
        *printing.remarks(scores.remarks),
        f"{counted(judged, 'example')}{among}{of_all} of {data}, with 95 % intervals",
        *printing.metrics(scores.metrics, scores.intervals, scores.floors),
    )


def predict(
    run: RunFolder,
    data: Annotated[str, typer.Argument(help="Data to answer for: a file, a folder, one image.", show_default=False)],
    out: Annotated[Path, out_option("File to write: .csv, .jsonl or .parquet.")] = Path("predictions.csv"),
    replace: Replace = False,
    dates: Dates = None,
    missing: Missing = None,
    json: Json = False,
) -> None:
    """What a trained model answers for new data."""
    from papertrial.use.answer_files import check_table_name, write_table
    from papertrial.use.artifact import Artifact

    check_table_name(out, replace)
    artifact = Artifact.load(run)
    given = artifact.encode(data, dates=dates, missing=missing)
    answers = artifact.answers(given)
    write_table(out, answers)
    rows = len(answers["prediction"])
    if json:
        printing.document({"file": out, "rows": rows, "columns": list(answers), **given.to_json()})
        return
    printing.notes(given.notes)
    head = ["example", "prediction"]
    printing.say(
        *printing.table(
            head,
            [
                [
                    printing.as_typed(
                        answers[name][row].item() if hasattr(answers[name][row], "item") else answers[name][row]
                    )
                    for name in head
                ]
                for row in range(min(5, rows))
            ],
        )
    )
    printing.say(f"{'... ' if rows > 5 else ''}{counted(rows, 'row')} in {out}{_without(given)}")


def embed(
    run: RunFolder,
    data: Annotated[str, typer.Argument(help="Data to embed.", show_default=False)],
    out: Annotated[Path, out_option("File to write: .npy or .parquet.")] = Path("embeddings.npy"),
    replace: Replace = False,
    dates: Dates = None,
    missing: Missing = None,
    json: Json = False,
) -> None:
    """Features of a trained model for new data, one row per example."""
    from papertrial.use.answer_files import check_array_name, write_array
    from papertrial.use.artifact import Artifact

    check_array_name(out, replace)
    artifact = Artifact.load(run)
    given = artifact.encode(data, dates=dates, missing=missing)
    features = artifact.embed(given)
    write_array(out, features, given.names.tolist())
    if json:
        printing.document({"file": out, "rows": features.shape[0], "width": features.shape[1], **given.to_json()})
        return
    printing.notes(given.notes)
    size = f"{counted(features.shape[0], 'row')} of {counted(features.shape[1], 'feature')}"
    printing.say(f"{size} in {out}{_without(given)}")


def _without(given: Any) -> str:
    """How many rows were left out and why, behind how many were answered."""
    left_out = [f"{count:,} {why}" for why, count in given.left_out.items()]
    return f"; left out of {given.rows:,}: {', '.join(left_out)}" if left_out else ""


def generate(
    context: typer.Context,
    run: RunFolder,
    prompt: Annotated[
        list[str] | None,
        typer.Argument(
            help="Texts to continue or to answer; captions, for pictures. When left out, a text begins from nothing.",
            show_default=False,
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="A text file that is the prompt.", show_default=False)
    ] = None,
    stdin: Annotated[bool, typer.Option("--stdin", help="Standard input is the prompt.")] = False,
    length: Annotated[
        int, number_option("length", "Maximum number of tokens (bytes, for a byte model).", "--length", "-l")
    ] = 200,
    temperature: Annotated[
        float | None,
        number_option(
            "temperature",
            "0 takes the most probable token, 1 samples from the model as it is (default for prompts; 0 for answers).",
            "--temperature",
            "-t",
            show_default=False,
        ),
    ] = None,
    top_k: Annotated[int, number_option("top_k", "Sample from the k most probable tokens; 0 for all.", "--top-k")] = 0,
    top_p: Annotated[
        float, number_option("top_p", "Sample from the fewest tokens whose probabilities add up to this.", "--top-p")
    ] = 1.0,
    beams: Annotated[
        int, number_option("beams", "Search for the most probable text with this many beams.", "--beams")
    ] = 1,
    length_penalty: Annotated[
        float, number_option("length_penalty", "With beams: larger values favour longer texts.")
    ] = 1.0,
    seed: Annotated[int, seed_option("Seed of the first text or picture; the others have the next ones.")] = 0,
    samples: Annotated[
        int | None,
        number_option(
            "samples",
            "Texts per prompt, 1 when left out; pictures per class or caption, 16 when left out.",
            "--samples",
            "--n",
            "-n",
            show_default=False,
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
        number_option("guidance", "Pictures: how strongly the class or caption is followed.", show_default=False),
    ] = None,
    steps: Annotated[
        int | None, number_option("steps", "Pictures: steps from noise to picture.", show_default=False)
    ] = None,
    start: Annotated[Path | None, typer.Option(help="Pictures: an image to begin from.", show_default=False)] = None,
    strength: Annotated[
        float | None, number_option("strength", "Pictures: how far from --start.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        out_option("Pictures: new folder to write; pictures in the run's folder when left out.", show_default=False),
    ] = None,
    replace: Replace = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Let a trained model write or draw: a text is printed as it is written, pictures go into a folder."""
    from papertrial.use.artifact import Artifact
    from papertrial.use.generate import generate as run_generate
    from papertrial.use.generate import unread, writer

    artifact = Artifact.load(run)
    drawing = offers(artifact.model).draw is not None
    _only_for(context, artifact, _OF_TEXTS if drawing else _OF_PICTURES)
    if drawing:
        _draw(
            artifact, out, quiet or json, json, replace=replace, seed=seed, labels=[name for text in label or [] for name in _names(artifact, text)],
            captions=[*(prompt or []), *(caption or [])], guidance=guidance, steps=steps, start=start, strength=strength,
            **({"samples": samples} if samples else {}),
        )  # fmt: skip
        return
    prompts, samples = _prompts(prompt or [], file, stdin), samples or 1
    answers = offers(writer(artifact)).encode is not None
    notes = unread(artifact, prompts, length)
    if not json:
        for line in _said_first(artifact):
            print(printing.shown(line), file=sys.stderr)
        printing.notes(notes)
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
        printing.document({"folder": run, "method": artifact.card["method"]["name"], "texts": texts, "notes": notes})


#: options of `generate` that go with one sort of model
_OF_TEXTS = ("file", "stdin", "length", "temperature", "top_k", "top_p", "beams", "length_penalty")
_OF_PICTURES = ("label", "caption", "guidance", "steps", "start", "strength", "out", "replace")


def _only_for(context: typer.Context, artifact: Any, others: tuple[str, ...]) -> None:
    """Decline options that go with another sort of model."""
    for name in others:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            does = "writes texts" if others is _OF_PICTURES else "draws pictures"
            raise Declined(f"{artifact.card['method']['name']} {does} and takes no --{name.replace('_', '-')}")


def _said_first(artifact: Any) -> list[str]:
    """What is to be known before anything is made with a model, such as that it does no better than chance."""
    return printing.remarks(artifact.card.get("said_first", ()))


def _names(artifact: Any, text: str) -> list[str]:
    """One class, or several between commas where no class has such a name."""
    known = artifact.card["state"].get("class_names", [])
    return [text] if text in known else [name.strip() for name in text.split(",") if name.strip()]


def _draw(artifact: Any, out: Path | None, quiet: bool, json: bool, **options: Any) -> None:
    from papertrial.use.pictures import Bar, save

    with Bar(not quiet) as heard:
        made = save(artifact, out, heard=heard, **options)
    if json:
        printing.document({"method": artifact.card["method"]["name"], **made})
        return
    printing.notes(made["notes"])
    printing.say(*_said_first(artifact))
    count = len(made["pictures"])
    printing.say(f"{count} picture{'s' if count > 1 else ''} in {made['folder']}, all of them in {made['grid']}")


def _prompts(given: list[str], file: Path | None, stdin: bool) -> list[str]:
    """The prompts from one of three places. A line end at the end of a file or of standard input is not part of it."""
    if bool(given) + (file is not None) + stdin > 1:
        raise PapertrialError("a prompt is an argument, a file or standard input", "give one of the three")
    if file is None and not stdin:
        return [text.encode("utf-8", "replace").decode() for text in given or [""]]
    try:
        text = (sys.stdin.buffer.read() if file is None else file.read_bytes()).decode("utf-8")
    except (OSError, UnicodeError) as error:
        raise PapertrialError(f"{file or 'standard input'} is not readable UTF-8 text ({error})") from None
    return [text.removesuffix("\n").removesuffix("\r")]
