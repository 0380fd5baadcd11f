"""What the commands that use a trained model do, as functions: each loads the run that it is given, and asks it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from papertrial.core.arguments import Names, typed
from papertrial.core.wording import several
from papertrial.use import answer_files
from papertrial.use.account import Evaluation
from papertrial.use.artifact import Artifact

if TYPE_CHECKING:
    import pandas as pd

Run = Artifact | Path | str


@typed
def loaded(run: Run) -> Artifact:
    """The trained model in a run's folder, read back; an `Artifact` is returned as it is.

    run: the folder. Raises PapertrialError when it holds no finished run, or one of a newer format, and where its files are
    damaged.

        >>> import papertrial as pt
        >>> model = pt.fit("linear", "iris", out="runs/iris", progress=False)
        >>> pt.load("runs/iris")
        Artifact 'runs/iris': linear, trained for tabular
    """
    if isinstance(run, Artifact):
        return run
    return Artifact.load(run)


@typed
def predict(
    run: Run,
    data: Any,
    *,
    out: Path | str | None = None,
    replace: bool = False,
    dates: str | None = None,
    missing: Names | None = None,
) -> pd.DataFrame:
    """What a trained model answers for new data: the columns `example`, `prediction`, and `p(class)` for each class.

    run: its folder, or what `fit` or `load` returned.  data, dates, missing: as `papertrial.open` takes them.  out: a file to
    write the answers to as well, which ends in .csv, .jsonl or .parquet.  replace: a file that is there already.

    See `Artifact.predict` for the index and the types. Raises PapertrialError for a folder without a run and for an `out`
    that cannot be written, DataError for data that the model cannot read, Declined for a model that gives no answers.

        >>> import papertrial as pt
        >>> model = pt.fit("linear", "iris", out="runs/iris", progress=False)
        >>> pt.predict("runs/iris", "iris", out="answers.csv")["prediction"].iloc[0]
        'setosa'
    """
    if out is not None:
        answer_files.check_table_name(Path(out), replace)
    answers = loaded(run).predict(data, dates=dates, missing=missing)
    if out is not None:
        answer_files.write_table(Path(out), answers)
    return answers


@typed
def embed(
    run: Run,
    data: Any,
    *,
    out: Path | str | None = None,
    replace: bool = False,
    dates: str | None = None,
    missing: Names | None = None,
) -> np.ndarray:
    """Features of a trained model for new data, float32 (N, width).

    run: its folder, or what `fit` or `load` returned.  data, dates, missing: as `papertrial.open` takes them.  out: a file to
    write them to as well, which ends in .npy or .parquet.  replace: a file that is there already.

    Raises PapertrialError for a folder without a run and for an `out` that cannot be written, DataError for data that the model
    cannot read, Declined for a model without features.

        >>> import papertrial as pt
        >>> model = pt.fit("rtdl:resnet", "iris", budget="1steps", out="runs/resnet", progress=False)
        >>> len(pt.embed("runs/resnet", "iris"))
        150
    """
    if out is not None:
        answer_files.check_array_name(Path(out), replace)
    artifact = loaded(run)
    given = artifact.encode(data, dates=dates, missing=missing)
    features = artifact.embed(given)
    if out is not None:
        answer_files.write_array(Path(out), features, given.names.tolist())
    return features


@typed
def evaluate(
    run: Run,
    data: Any,
    *,
    metric: str | None = None,
    group: str | None = None,
    strict: bool = False,
    dates: str | None = None,
    missing: Names | None = None,
) -> Evaluation:
    """Judge a trained model on labelled data: metrics with their intervals, and what was lost on the way.

    run: its folder, or what `fit` or `load` returned.  data, group, dates, missing: as `papertrial.open` takes them.  metric: one
    that is told too, and judged by.  strict: count rows whose label the model does not know as wrong.

    Raises PapertrialError for a folder without a run and an unknown metric, DataError for data without labels, Declined for
    `strict` where nothing is classified.

        >>> import papertrial as pt
        >>> model = pt.fit("linear", "iris", out="runs/iris", progress=False)
        >>> pt.evaluate("runs/iris", "iris").metrics["accuracy"] > 0.8
        True
    """
    return loaded(run).evaluate(data, metric=metric, group=group, strict=strict, dates=dates, missing=missing)


@typed
def generate(
    run: Run,
    prompts: Names = (),
    *,
    out: Path | str | None = None,
    replace: bool = False,
    **options: Any,
) -> list[Any]:
    """Let a trained model write or draw: a list of texts (`use.generate.Written`) or of pictures (`use.pictures.Picture`).

    run: its folder, or what `fit` or `load` returned.  prompts: texts to continue or to answer, or captions; none begins a text
    from nothing.  out: of pictures, a new folder to write them to; nothing is written without it.  replace: pictures of an
    earlier call in `out` are replaced.  options: of texts `length`, `temperature`, `top_k`, `top_p`, `beams`, `length_penalty`,
    `samples` and `seed`, see `use.generate.generate`; of pictures `labels`, `captions`, `guidance`, `steps`, `start`, `strength`,
    `samples` and `seed`, see `use.pictures.generate`.

    Raises PapertrialError for a folder without a run and for a value out of its range, Declined for a model that makes nothing
    or takes no such option.

        >>> import papertrial as pt
        >>> model = pt.fit("linear", "iris", out="runs/iris", progress=False)
        >>> pt.generate("runs/iris", "Once upon a time")
        Traceback (most recent call last):
        papertrial.core.errors.Declined: linear in runs/iris generates nothing: ...
    """
    artifact = loaded(run)
    if out is None:
        return artifact.generate(prompts, **options)
    from papertrial.use import pictures

    captions = [*several(prompts), *options.pop("captions", ())]
    written = pictures.save(artifact, out, replace=replace, captions=captions, **options)
    return [pictures.read(Path(out), line) for line in written["pictures"]]
