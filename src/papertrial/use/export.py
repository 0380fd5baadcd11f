"""A trained model as one file that runs without papertrial: ONNX, or PyTorch's own exported program.

The file holds the whole predictor, from raw inputs to answers, for any number of rows, and a network that can be folded
is. One that reads text takes ids and a mask, in rows of any length; its tokeniser lies beside it. The file is read back
and compared with the model it came from before it gets its name: a file that answers differently is never left behind.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import papertrial
from papertrial.core.arguments import typed
from papertrial.core.budget import size_in_words
from papertrial.core.errors import PapertrialError, did_you_mean, missing_extra
from papertrial.core.files import to_json, write_json, write_text, write_with
from papertrial.core.memory import require
from papertrial.core.ours import require_free, will_write
from papertrial.core.task import Split
from papertrial.use import text_export
from papertrial.use.artifact import Artifact
from papertrial.use.asked import Run, loaded
from papertrial.use.predictor import Predictor, expected, folded, input_meanings, inputs_of, predictor, sample, spread

#: largest difference allowed: of a probability, or in standard deviations of values and features
TOLERANCE = 1e-4
#: batches a file is tried on, beside all rows at once
BATCHES = (1, 2, 7)
#: read by ONNX Runtime 1.17 (2024) and later
OPSET = 20
#: of the weights: folded, traced, written, and read back for the comparison
_COPIES = 4
SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}


@typed
def export(
    run: Run, to: str, out: Path | str | None = None, data: Any = None, *, replace: bool = False
) -> dict[str, Any]:
    """The model as one file, from raw inputs to answers, compared with the model before it is kept.

    run: its folder, or what `fit` or `load` returned. Writes `out` (by default `model.onnx` or `model.pt2` in the run's
    folder) and `<out>.json` beside it, and `<out>.tokenizer.json` where its texts go through a tokeniser of the
    `tokenizers` library.

    to: `onnx` or `torch`.  data: rows to compare the answers on, by default those of the run where they are at hand.
    replace: files that are there already and were not written into the run's folder by an earlier call. Returns what the
    JSON file says: inputs, answers, classes, and the largest difference met. Raises Declined for a method that is no network,
    PapertrialError when a package is missing, when the model cannot be traced, or when the file's answers differ by more
    than TOLERANCE.

        >>> import papertrial as pt
        >>> model = pt.fit("rtdl:mlp", "iris", budget="1steps", out="runs/mlp", progress=False)
        >>> about = pt.export("runs/mlp", "torch")
        >>> about["file"].name, about["check"]["largest_difference"] < 1e-4
        ('model.pt2', True)
    """
    artifact = loaded(run)
    if to not in SUFFIXES:
        raise PapertrialError(f"there is no format {to!r}", did_you_mean(to, SUFFIXES))
    path = Path(out) if out is not None else artifact.folder / f"model{SUFFIXES[to]}"
    if path.suffix != SUFFIXES[to] or path.is_dir():
        raise PapertrialError(f"{path} is not a file name for the format {to}", f"end it with {SUFFIXES[to]}")
    files = [path, *(path.with_name(f"{path.name}.{more}") for more in ("json", "tokenizer.json"))]
    for file in files:
        require_free(file, replace)
    for package in ("onnx", "onnxscript", "onnxruntime") if to == "onnx" else ():
        if importlib.util.find_spec(package) is None:
            raise missing_extra("export --to onnx", package, "export")
    size = (
        sum(tensor.nbytes for tensor in artifact.model.state_dict().values())
        if isinstance(artifact.model, nn.Module)
        else 0
    )
    fix = "export it on a machine with more memory"
    require(_COPIES * size, f"exporting {size_in_words(size)} of weights", fix)
    model = predictor(artifact)
    model.network = folded(model.network)
    rows, origin, notes = sample(artifact, data)
    about = _about(artifact, model, to, path)
    tokeniser = text_export.tokeniser_json(artifact.model.encoder.tokeniser) if model.texts else None
    write = {"onnx": _write_onnx, "torch": _write_torch}[to]
    read = {"onnx": _read_onnx, "torch": _read_torch}[to]

    def write_and_compare(temporary: Path) -> None:
        with _quiet():
            write(temporary, _traced(model, inputs_of(artifact, rows.take(slice(3))), about["inputs"]), about)
            about["check"] = {"rows": origin, **_compare(read(temporary), artifact, rows, about), "notes": notes}

    if out is None and not replace:
        will_write(artifact.folder, *(file.name for file in files))
    write_with(path, write_and_compare)
    if tokeniser is not None:
        write_text(path.with_name(f"{path.name}.tokenizer.json"), tokeniser)
    write_json(path.with_name(f"{path.name}.json"), about)
    return {"file": path, **about}


def _about(artifact: Artifact, model: Predictor, to: str, path: Path) -> dict[str, Any]:
    card, classes = artifact.card, artifact.card["state"].get("class_names")
    answers: dict[str, Any] = {"name": model.answers, "dtype": "float32"}
    if model.answers == "probabilities":
        answers["classes"] = classes
    texts = {}
    if model.texts:
        texts = {"tokeniser": text_export.tokeniser_about(artifact), "use": text_export.snippet(artifact, to, path)}
    return {
        "format": to,
        **({"opset": OPSET} if to == "onnx" else {}),
        "inputs": input_meanings(artifact),
        "outputs": [answers],
        **texts,
        "method": card["method"]["name"],
        "backbone": card["backbone"],
        "task": card["task"],
        "data": {name: card["data"].get(name) for name in ("name", "fingerprint")},
        "licence": card["licence"],
        "written_by": {"papertrial": papertrial.__version__, "torch": torch.__version__},
    }


def _traced(
    model: Predictor, inputs: tuple[Tensor, ...], meanings: list[dict[str, Any]]
) -> torch.export.ExportedProgram:
    """The program for any number of rows, and any number of what a word in a shape stands for."""
    dims = {"batch": torch.export.Dim("batch")}
    for entry in meanings:
        dims |= {word: torch.export.Dim(word, max=entry["longest"]) for word in _words(entry).values()}
    shapes = [{0: dims["batch"], **{at: dims[word] for at, word in _words(entry).items()}} for entry in meanings]
    try:
        with torch.no_grad():  # one entry: forward takes *inputs
            return torch.export.export(model, inputs, dynamic_shapes=(tuple(shapes),))
    except Exception as error:  # torch.export raises many types of its own
        raise PapertrialError(
            f"torch.export cannot trace this model ({_first_line(error)})",
            "papertrial eject writes it as PyTorch source",
        ) from error


def _words(entry: dict[str, Any]) -> dict[int, str]:
    """The axes of an input that may be of any length, by their number."""
    return {at: word for at, word in enumerate(entry["shape"], 1) if isinstance(word, str)}


def _write_torch(path: Path, program: torch.export.ExportedProgram, about: dict[str, Any]) -> None:
    held = io.BytesIO()  # torch's writer ends the process where the disk is full
    torch.export.save(program, held, extra_files={"papertrial.json": to_json(about)})
    path.write_bytes(held.getbuffer())


def _read_torch(path: Path) -> Callable[..., np.ndarray]:
    with path.open("rb") as stream:
        module = torch.export.load(stream).module()

    def answer(*inputs: Tensor) -> np.ndarray:
        with torch.no_grad():
            return module(*inputs).numpy()

    return answer


def _write_onnx(path: Path, program: torch.export.ExportedProgram, about: dict[str, Any]) -> None:
    import onnx

    names, answers = [entry["name"] for entry in about["inputs"]], about["outputs"][0]["name"]
    try:
        found = torch.onnx.export(
            program.run_decompositions(_IN_ONNX), dynamo=True, verbose=False, opset_version=OPSET, external_data=False,
            input_names=names, output_names=[answers],
        )  # fmt: skip
    except Exception as error:  # an operator without a counterpart, and what onnxscript makes of it
        raise PapertrialError(
            f"this model cannot be written as ONNX ({_first_line(error)})", "type: papertrial export RUN --to torch"
        ) from error
    assert found is not None  # as it is without a file to write to
    proto = found.model_proto
    named = {}
    for given, entry in zip(proto.graph.input, about["inputs"], strict=True):
        for at, word in {0: "batch", **_words(entry)}.items():
            named[given.type.tensor_type.shape.dim[at].dim_param] = word
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in named:
                dim.dim_param = named[dim.dim_param]
    onnx.helper.set_model_props(proto, {"papertrial": to_json(about)})
    onnx.checker.check_model(proto)
    path.write_bytes(proto.SerializeToString())


def _read_onnx(path: Path) -> Callable[..., np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def answer(*inputs: Tensor) -> np.ndarray:
        return session.run(None, dict(zip(names, (tensor.numpy() for tensor in inputs), strict=True)))[0]

    return answer


def _compare(
    answer: Callable[..., np.ndarray], artifact: Artifact, rows: Split, about: dict[str, Any]
) -> dict[str, Any]:
    """The largest difference from the artifact's answers over batches of several sizes, each of which it is asked for;
    raises PapertrialError beyond the tolerance."""
    sizes = sorted({min(size, rows.examples) for size in (*BATCHES, rows.examples)})
    gaps = []
    for size in sizes:  # all rows last
        some = rows.take(slice(-size, None)) if text_export.is_text(artifact) else rows.take(slice(size))
        wanted = expected(artifact, some)
        gaps.append(np.abs(answer(*inputs_of(artifact, some)) - wanted).max())
    allowed = TOLERANCE * spread(wanted, about["outputs"][0]["name"])
    largest = float(np.max(gaps))
    if not largest <= allowed:
        raise PapertrialError(
            f"the exported model answers differently (by {largest:.2g}, allowed are {allowed:.2g}), so no file is kept",
            "this is a defect of the exporter or the model; please report it",
        )
    return {"batches": sizes, "largest_difference": largest, "allowed": allowed}


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporters' own remarks (on packages they could also use) are no concern of the user's."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _first_line(error: BaseException) -> str:
    """The innermost cause: the exporters wrap it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _count_below(
    knots: Tensor, values: Tensor, *, out_int32: bool = False, right: bool = False, side: Any = None, sorter: Any = None
) -> Tensor:
    """`torch.searchsorted` by halving, in operators that ONNX has: how many of the sorted knots lie below each value."""
    count = knots.shape[-1]
    found = torch.zeros_like(values, dtype=torch.int64)
    for step in (2**power for power in reversed(range(count.bit_length()))):
        reach = found + step
        knot = knots.gather(-1, (reach - 1).clamp(max=count - 1))
        below = (knot <= values) if right else (knot < values)
        found = torch.where(below & (reach <= count), reach, found)
    return found


def _normal_quantile(p: Tensor) -> Tensor:
    """`torch.special.ndtri` in operators that ONNX has: PPND7 of Wichura (1988, algorithm AS 241), to one part in 10^7."""
    middle, tail = p - 0.5, (-torch.minimum(p, 1 - p).clamp_min(1e-38).log()).sqrt()
    square, near, far = 0.180625 - middle * middle, tail - 1.6, tail - 5
    inner = middle * _ratio(
        square,
        (3.3871327179, 50.434271938, 159.29113202, 59.109374720),
        (1.0, 17.895169469, 78.757757664, 67.187563600),
    )
    outer = torch.where(
        tail <= 5,
        _ratio(near, (1.4234372777, 2.7568153900, 1.3067284816, 0.17023821103), (1.0, 0.73700164250, 0.12021132975)),
        _ratio(far, (6.6579051150, 3.0812263860, 0.42868294337, 0.017337203997), (1.0, 0.24197894225, 0.012258202635)),
    )
    return torch.where(middle.abs() <= 0.425, inner, outer * middle.sign())


def _ratio(x: Tensor, above: tuple[float, ...], below: tuple[float, ...]) -> Tensor:
    """A quotient of polynomials, lowest power first."""
    top, bottom = torch.full_like(x, above[-1]), torch.full_like(x, below[-1])
    for coefficient in reversed(above[:-1]):
        top = top * x + coefficient
    for coefficient in reversed(below[:-1]):
        bottom = bottom * x + coefficient
    return top / bottom


def _reshaped(x: Tensor, size: list[Any]) -> Tensor:
    """`view` that copies where memory lies otherwise than when the program was traced, as that of attention does in ONNX."""
    return torch.ops.aten._unsafe_view.default(x.clone(memory_format=torch.contiguous_format), size)


_IN_ONNX = {
    torch.ops.aten.view.default: _reshaped,
    torch.ops.aten.searchsorted.Tensor: _count_below,
    torch.ops.aten.special_ndtri.default: _normal_quantile,
}
