"""What an analysis is let loose on: a model trained here, one from elsewhere, or one with fresh weights, and its inputs.

As one types it
    runs/vit-photos          the trained model in a run's folder, on the data it was trained on, or on --data
    vit, mlp_mixer:S/16      a method of the shelf with fresh weights, on --data
    hf:FOLDER                a Hugging Face model from its config.json, with the weights beside it where there are some
    package.module:factory   what `factory()` returns: a module, or (module, inputs)
In Python also an nn.Module itself.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from papertrial.core import registry
from papertrial.core.errors import DataError, Declined, PapertrialError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from papertrial.nn.adapt import HuggingFace


@dataclass(frozen=True)
class Subject:
    """What is measured: a module and what it is called with, by position or by name; on: words for the inputs.

    place: the folder a report goes to when the user names none; None: nowhere.  notes: on the data.
    """

    name: str
    model: nn.Module
    inputs: Any
    on: str
    place: Path | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """How many examples are looked at, how many tokens a random or text example has, and the seed of what is random."""

    examples: int = 16
    tokens: int = 32
    seed: int = 0


def find_subject(analysis: str, what: Any, data: Any, wanted: Wanted) -> Subject:
    """The model and its inputs, tried once. See `study.measure.measure` for the arguments and the errors."""
    subject = _find(analysis, what, data, wanted)
    device = next((parameter.device for parameter in subject.model.parameters()), "cpu")
    if isinstance(subject.inputs, Mapping):
        subject = replace(subject, inputs={name: entry.to(device) for name, entry in subject.inputs.items()})
    else:
        subject = replace(subject, inputs=tuple(entry.to(device) for entry in subject.inputs))
    _try(subject)
    return subject


def _try(subject: Subject) -> None:
    """Raise DataError when the model cannot be called with its inputs, which a user can mend. Leaves it as it was."""
    import torch

    modes = {module: module.training for module in subject.model.modules()}
    try:
        with torch.no_grad():
            subject.model.eval()
            if isinstance(subject.inputs, Mapping):
                subject.model(**subject.inputs)
            else:
                subject.model(*subject.inputs)
    except Exception as error:
        raise DataError(
            f"{subject.name} cannot be called with {subject.on} ({type(error).__name__}: {error})",
            "give inputs that it takes",
        ) from error
    finally:
        for module, mode in modes.items():
            module.training = mode


def _find(analysis: str, what: Any, data: Any, wanted: Wanted) -> Subject:
    from torch import nn

    from papertrial.use.artifact import Artifact

    if isinstance(what, nn.Module):
        return _module(what, data, wanted, type(what).__name__)
    words = str(what.folder if isinstance(what, Artifact) else what)
    place = Path("runs") / f"{analysis}-{slug(words)}"
    if (Path(words) / "card.json").exists() or (Path(words).is_dir() and words not in registry.entries()):
        return replace(_run(Path(words), data, wanted), place=Path(words) / analysis)
    if words.startswith("hf:"):
        return replace(_hugging_face(words.removeprefix("hf:"), data, wanted), place=place)
    if words.partition(":")[0] in registry.entries():
        return replace(_untrained(words, data, wanted), place=place)
    if ":" in words:
        return replace(_dotted(words, data, wanted), place=place)
    raise PapertrialError(
        f"there is no run and no method called {words!r}",
        f"{did_you_mean(words, registry.entries())} or give a run's folder, hf:FOLDER, or package.module:factory",
    )


def slug(words: str) -> str:
    """What is measured, as part of a folder's name."""
    if words.startswith("hf:"):
        words = Path(words.removeprefix("hf:").removesuffix("config.json")).name
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in words).strip("-") or "model"


def _run(folder: Path, data: Any, wanted: Wanted) -> Subject:
    from papertrial.data import open as open_data
    from papertrial.use.artifact import Artifact

    artifact = Artifact.load(folder)
    if data is None:
        origin = artifact.card["data"]
        trained_on = origin.get("source") or origin["name"]
        try:
            data = open_data(trained_on)
        except DataError:
            raise DataError(f"{trained_on}, which {folder} was trained on, is not here", "add --data DATA") from None
    given = artifact.encode(data)
    split, opened = given.split, given.opened
    if not split.examples:
        raise DataError(f"{opened.name} holds no examples", "give data with at least one")
    return Subject(
        f"{artifact.card['method']['name']} in {folder}",
        _encoder(artifact.model, artifact.card["method"]["name"]),
        _columns(split, artifact.task.inputs, wanted.examples),
        f"{min(wanted.examples, split.examples)} examples of {opened.name}",
        notes=tuple(given.notes),
    )


def _untrained(name: str, data: Any, wanted: Wanted) -> Subject:
    import torch

    from papertrial.data import open as open_data
    from papertrial.use.card import build_model
    from papertrial.use.choose import prepare, resolve_method, task_for

    method = registry.method(name)
    if data is None:
        raise PapertrialError(
            f"{name} has no weights here, and is built for the data it is to see", "add --data DATA, such as digits"
        )
    if method.paper.refusal:
        raise Declined(f"{name} has no layers: {method.paper.refusal}")
    opened = open_data(data)
    task = task_for(method, opened)
    prepared = prepare(task, opened, wanted.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(wanted.seed)
        model = build_model(task, resolve_method(method, prepared, task=task), prepared)
    encoder = _encoder(model, name)
    task.training(model, prepared)  # fits what the model takes from its inputs
    rows = prepared.test if prepared.test.examples else prepared.train
    return Subject(
        f"{name} with fresh weights",
        encoder,
        _columns(rows, task.inputs, wanted.examples),
        f"{min(wanted.examples, rows.examples)} examples of {opened.name}",
        notes=(*opened.notes, *prepared.notes),
    )


def _encoder(model: Any, name: str) -> nn.Module:
    from torch import nn

    if not isinstance(model, nn.Module):
        raise Declined(f"{name} is not a neural network, so it has no layers to measure")
    inner = getattr(model, "encoder", model)
    assert isinstance(inner, nn.Module)
    return inner


def _columns(split: Any, inputs: tuple[str, ...], examples: int) -> tuple[Any, ...]:
    """The input columns of `examples` rows, evenly spread over the split, in the order the model takes them."""
    from papertrial.nn.batches import to_tensors

    rows = np.unique(np.linspace(0, split.examples - 1, min(examples, split.examples)).round().astype(int))
    taken = to_tensors({name: split[name][rows] for name in inputs})
    return tuple(taken[name] for name in inputs)


def _dotted(words: str, data: Any, wanted: Wanted) -> Subject:
    import torch
    from torch import nn

    path, _, attribute = words.partition(":")
    with _working_folder_importable(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(wanted.seed)
        try:
            found = getattr(importlib.import_module(path), attribute)
            made = found if isinstance(found, nn.Module) else found()
        except Exception as error:  # the user's own code may raise anything
            raise PapertrialError(
                f"{words} cannot be imported or called ({type(error).__name__}: {error})",
                "write it as package.module:factory, from the folder it lies in",
            ) from error
    model, own = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(model, nn.Module):
        raise PapertrialError(
            f"{words} gave a {type(model).__name__}", "let it return a torch.nn.Module, or (module, inputs)"
        )
    return _module(model, own if data is None else data, wanted, words)


@contextmanager
def _working_folder_importable() -> Iterator[None]:
    sys.path.insert(0, "")
    try:
        yield
    finally:
        sys.path.remove("")


def _module(model: nn.Module, data: Any, wanted: Wanted, name: str) -> Subject:
    import torch

    if data is None:
        inputs, on = _made_up(model, wanted)
        return Subject(name, model, inputs, on)
    if isinstance(data, torch.Tensor):
        data = (data,)
    if isinstance(data, Mapping) and all(isinstance(entry, torch.Tensor) for entry in data.values()):
        return Subject(name, model, data, "the tensors given")
    if isinstance(data, tuple | list) and data and all(isinstance(entry, torch.Tensor) for entry in data):
        return Subject(name, model, tuple(data), "the tensors given")
    return Subject(name, model, *_images(data, wanted, None))


def _images(data: Any, wanted: Wanted, side: int | None) -> tuple[Any, str]:
    from papertrial.core.task import Split
    from papertrial.data import open as open_data

    opened = open_data(data)
    if opened.kind != "images":
        raise DataError(
            f"{opened.name} is a {opened.kind}, and a model from elsewhere says not how it reads one", "give tensors"
        )
    pixels = Split({"image": opened.pixels(side, side)})  # type: ignore[attr-defined]
    return _columns(
        pixels, ("image",), wanted.examples
    ), f"{min(wanted.examples, pixels.examples)} images of {opened.name}, in [0, 1]"


def _made_up(model: nn.Module, wanted: Wanted) -> tuple[Any, str]:
    """Random inputs for a model that shows what it takes: a Hugging Face config, or a first layer that says so."""
    import torch
    from torch import nn

    generator = torch.Generator().manual_seed(wanted.seed)
    examples, tokens = wanted.examples, wanted.tokens
    config = getattr(model, "config", None)
    words = getattr(config, "vocab_size", None)
    side, channels = getattr(config, "image_size", None), getattr(config, "num_channels", 3)
    first = next(
        part for part in model.modules() if isinstance(part, nn.MultiheadAttention) or not list(part.children())
    )
    if words is None and isinstance(first, nn.Embedding):
        words = first.num_embeddings
    if words:
        tokens = min(tokens, getattr(config, "max_position_embeddings", None) or tokens)
        ids = torch.randint(words, (examples, tokens), generator=generator)
        return ({"input_ids": ids} if config is not None else (ids,)), f"{examples} rows of {tokens} random tokens"
    if isinstance(side, int):
        pixels = torch.rand(examples, channels, side, side, generator=generator)
        return {"pixel_values": pixels}, f"{examples} images of noise"
    if isinstance(first, nn.MultiheadAttention):
        width = first.embed_dim
    elif isinstance(first, nn.LayerNorm):
        width = first.normalized_shape[-1]
    elif isinstance(first, nn.Linear):
        width = first.in_features
    else:
        raise PapertrialError(
            f"a {type(model).__name__} does not say what it takes",
            "add --data, or let the factory return (module, inputs)",
        )
    return (torch.randn(examples, tokens, width, generator=generator),), f"{examples} tables of {tokens} normal tokens"


def _hugging_face(words: str, data: Any, wanted: Wanted) -> Subject:
    import torch

    from papertrial.nn.adapt import HuggingFace

    found = HuggingFace("hf", words)
    config = found.settings()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(wanted.seed)
        model: Any = found.network(config, found.pretrained)
    if config.is_encoder_decoder:
        model = model.get_encoder()
    name = f"{type(model).__name__} of {found.model}" + ("" if found.pretrained else ", with fresh weights")
    if data is None:
        return Subject(name, model, *_made_up(model, wanted))
    if getattr(config, "image_size", None):
        (images,), on = _images(data, wanted, config.image_size)
        return Subject(name, model, {"pixel_values": images}, on)
    return Subject(name, model, *_text(found, Path(str(data)), wanted))


def _text(found: HuggingFace, file: Path, wanted: Wanted) -> tuple[Any, str]:
    """The text cut into rows of equal length, so that nothing is padded."""
    import torch

    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as text ({error})", "give a UTF-8 text file") from error
    ids = torch.tensor(found.tokeniser()(text, add_special_tokens=False, verbose=False)["input_ids"])
    tokens = wanted.tokens
    rows = min(wanted.examples, len(ids) // tokens)
    if not rows:
        raise DataError(
            f"{file} has {len(ids)} tokens, fewer than one row of {tokens}", "give a longer text, or fewer --tokens"
        )
    return {"input_ids": ids[: rows * tokens].view(rows, tokens)}, f"{rows} rows of {tokens} tokens of {file.name}"
