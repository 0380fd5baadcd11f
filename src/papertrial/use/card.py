"""The artifact's card and weights: all that is needed to rebuild a trained model, and to judge where it came from."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import NotRequired, TypedDict

from papertrial.core import registry
from papertrial.core.budget import Budget
from papertrial.core.doors import Door, read_tensors, sums
from papertrial.core.errors import PapertrialError
from papertrial.core.files import disk_errors, write_with
from papertrial.core.offers import offers
from papertrial.core.recipe import Optim, Setting
from papertrial.core.registry import Method, Technique
from papertrial.core.run import AGAIN, Run, environment
from papertrial.core.task import Estimator, Prepared, Task

CARD_VERSION = 1
WEIGHTS, ESTIMATOR = "model.safetensors", "estimator"
Named = dict[str, Any]
Figures = dict[str, float | None]


class Spent(TypedDict):
    steps: int
    samples: int
    seconds: float
    trials: int
    peak_bytes: int | None
    kwh: float | None
    energy: str
    energy_how: str


class _Method(TypedDict):
    name: str
    title: str
    arxiv: str | None
    caveats: list[str]


class _Task(TypedDict):
    name: str
    version: int


class _Data(TypedDict):
    name: str
    fingerprint: str | None
    numbers: Named


class _Setting(TypedDict):
    name: str
    value: Any
    source: str


class _Place(TypedDict):
    date: str
    python: str
    versions: dict[str, str]
    cpu: str
    cores: int
    system: str


class Card(TypedDict):
    """What readers of card.json rely on; `card_of` writes it."""

    format: int
    method: _Method
    task: _Task
    data: _Data
    facts: Named
    state: Named
    config: Named
    optim: Named
    settings: list[_Setting]
    environment: _Place
    metrics: Figures
    intervals: dict[str, list[float | None]]
    licence: dict[str, str]
    notes: list[str]
    backbone: str | None
    backbone_config: Named | None
    backbone_settings: list[_Setting]
    weights: Named | None
    host: NotRequired[str]
    host_config: NotRequired[Named]
    techniques: NotRequired[Named]
    reshaped: NotRequired[list[str]]
    uses: NotRequired[list[str]]
    learned: NotRequired[list[str]]
    said_first: NotRequired[list[str]]
    threshold: NotRequired[Named]
    sums: NotRequired[dict[str, str]]


class Result(TypedDict):
    """What readers of the result.json of `fit` rely on."""

    method: str
    metrics: Figures
    intervals: dict[str, list[float | None]]
    extra: Figures
    valid: float | None
    cost: Spent
    floors: NotRequired[Figures]
    beside: NotRequired[list[str]]
    answers: NotRequired[Named]


class Asked(TypedDict):
    """What readers of the config.json of `fit` rely on."""

    method: str
    task: str
    data: Named
    seed: int
    budget: Figures
    config: Named
    optim: Named
    backbone: NotRequired[str | None]
    backbone_config: NotRequired[Named | None]


CARD, RESULT, ASKED = Door(Card, AGAIN, CARD_VERSION), Door(Result, AGAIN), Door(Asked, AGAIN)


@dataclass(frozen=True)
class Resolved:
    """A method with every setting decided. host: of a technique, the model it is tried on, with the backbone named here too."""

    method: Method
    config: Any
    optim: Optim
    settings: list[Setting]
    recipe: Any
    backbone: Method | None = None
    backbone_config: Any = None
    backbone_settings: tuple[Setting, ...] = ()
    techniques: tuple[Technique, ...] = ()
    host: Resolved | None = None

    @property
    def name(self) -> str:
        if self.host is not None:
            return f"{self.method.name}+{self.host.name}"
        return f"{self.method.name}+{self.backbone.name}" if self.backbone else self.method.name

    @property
    def network(self) -> tuple[Method, Any]:
        """Whose weights training starts from, with its config."""
        built = self.host or self
        return (built.backbone, built.backbone_config) if built.backbone else (built.method, built.config)


def build_model(task: Task, resolved: Resolved, prepared: Prepared) -> Any:
    """The model of a resolved method, with fresh weights. Raises Declined when the task refuses the method."""
    built = resolved.host or resolved
    backbone = built.backbone.module.build(built.backbone_config, prepared.facts) if built.backbone else None
    return task.build(built.method, built.config, built.optim, prepared, backbone)


def rebuilt(task: Task, card: dict[str, Any], prepared: Prepared) -> Any:
    """The model of a card, with the parts its weights need; they are not read yet."""
    model = build_model(task, _resolved(card), prepared)
    names = card.get("reshaped", ())
    if names:
        from papertrial.train.technique import attach_finished

        classes = {name: registry.technique_class(name) for name in names}
        attach_finished(model, [_dataclass(cls, card["techniques"][name]) for name, cls in classes.items()])
    return model


def network_of(card: Mapping[str, Any]) -> tuple[str, dict[str, Any], list[dict[str, Any]]]:
    """Of a card, the name of the method that builds the network, its config and its settings."""
    if card["backbone"]:
        return card["backbone"], card["backbone_config"], card["backbone_settings"]
    if not card.get("host"):
        return card["method"]["name"], card["config"], card["settings"]
    under = [entry for entry in card["settings"] if entry["name"].startswith("host.")]
    own = [{**entry, "name": entry["name"].removeprefix("host.")} for entry in under]
    return card["host"], card["host_config"], own


def card_of(
    task: Task,
    resolved: Resolved,
    prepared: Prepared,
    model: Any,
    budget: Budget,
    seed: int,
    licence: str,
    result: dict[str, Any],
    weights: Mapping[str, str],
    frozen: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of card.json. weights: SHA-256 of their files.  frozen: what was trained and what was proved unchanged,
    where a technique chose."""
    from papertrial.train.technique import reshapes

    paper = resolved.method.paper
    cautions = [made.made.caution(resolved.optim) for made in resolved.techniques if hasattr(made.made, "caution")]
    remarks = offers(model).remarks
    cautions += remarks
    if resolved.optim.precision == "bf16":
        from papertrial.train.device import emulates_bf16

        if emulates_bf16():
            cautions.append("this CPU has no instructions for bfloat16: --set precision=fp32 is faster")
    if frozen:
        cautions.append(
            f"{frozen['trained']:,} weights were trained; the other {frozen['kept']:,} are what they were"
            f" (sha256 {frozen['sha256'][:12]})"
        )
    optional: dict[str, Any] = {}
    if resolved.host:
        optional |= {"host": resolved.host.method.name, "host_config": asdict(resolved.host.config)}
    if frozen:
        optional["frozen"] = frozen
    if remarks:
        optional["learned"] = list(remarks)
    if shaped := [made.id for made in resolved.techniques if reshapes(made.made)]:
        optional["reshaped"] = shaped
    return {
        "format": CARD_VERSION,
        "method": {"name": resolved.method.name, "title": paper.title, "arxiv": paper.arxiv, "caveats": paper.caveats},
        "backbone": resolved.backbone.name if resolved.backbone else None,
        **optional,
        "task": {"name": task.name, "version": task.version},
        "data": prepared.origin,
        "facts": prepared.facts,
        "state": prepared.state,
        "notes": [*prepared.notes, *filter(None, cautions)],
        "recipe": resolved.recipe.name,
        "config": asdict(resolved.config),
        "backbone_config": asdict(resolved.backbone_config) if resolved.backbone else None,
        "optim": asdict(resolved.optim),
        "techniques": {made.id: asdict(made.made) for made in resolved.techniques},
        "settings": [asdict(setting) for setting in resolved.settings],
        "backbone_settings": [asdict(setting) for setting in resolved.backbone_settings],
        "budget": budget,
        "seed": seed,
        "weights": None
        if isinstance(model, Estimator)
        else {"file": WEIGHTS, "parameters": sum(p.numel() for p in model.parameters())},
        "sums": weights,
        "licence": {
            "weights": f"trained here from {licence}",
            "code": "Apache-2.0",
            "data": "not known to papertrial: what it asks holds for these weights too",
        },
        "environment": environment(),
        **{
            name: result[name]
            for name in (
                "valid",
                "metrics",
                "intervals",
                "floors",
                "ceilings",
                "said_first",
                "threshold",
                "test",
                "extra",
                "cost",
                "stages",
            )
            if name in result
        },
    }


def save_weights(run: Run, model: Any, head: Mapping[str, np.ndarray]) -> dict[str, str]:
    """`model.safetensors` with the model and the probe, or the folder `estimator` in the library's own format; returns the
    SHA-256 of each file."""
    from safetensors.torch import save_file

    if isinstance(model, Estimator):
        target, temporary = run.path(ESTIMATOR), run.path(f".{ESTIMATOR}.tmp")
        with disk_errors(target):
            for folder in (temporary, target):
                shutil.rmtree(folder, ignore_errors=True)
            temporary.mkdir()
            try:
                model.save(temporary)
                temporary.rename(target)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return sums(run.folder, [ESTIMATOR])
    import torch

    tensors = {
        f"model.{name}": tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()
    }
    tensors |= {f"head.{name}": torch.from_numpy(np.ascontiguousarray(array)) for name, array in head.items()}
    write_with(run.path(WEIGHTS), lambda temporary: save_file(tensors, str(temporary)))
    return sums(run.folder, [WEIGHTS])


def _resolved(card: dict[str, Any]) -> Resolved:
    """What builds the network of a card."""
    name, config = (card["host"], card["host_config"]) if card.get("host") else (card["method"]["name"], card["config"])
    method = registry.method(name)
    backbone = registry.method(card["backbone"]) if card["backbone"] else None
    return Resolved(
        method,
        _dataclass(method.module.Config, config),
        _dataclass(Optim, card["optim"]),
        [],
        None,
        backbone,
        _dataclass(backbone.module.Config, card["backbone_config"]) if backbone else None,
    )


def _dataclass(cls: type, values: dict[str, Any]) -> Any:
    """JSON has no tuples: lists become tuples again. Weights to start from are not fetched: the artifact has its own."""
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    try:
        return cls(**plain | {name: type(plain[name])() for name in ("pretrained",) if name in plain})
    except (TypeError, PapertrialError) as error:
        raise PapertrialError(
            f"the card's settings are not those of this version of papertrial ({error})",
            "train it again, or install the version the card names",
        ) from None


def loaded_estimator(model: Estimator, folder: Path) -> Any:
    """The estimator as its files say. Raises Damaged where they do not say it; a package that is missing is no damage."""
    try:
        return model.load(folder) or model
    except (PapertrialError, ImportError, MemoryError):
        raise
    except Exception as error:  # each library has errors of its own for a file that is damaged
        raise CARD.damaged(folder, f"{type(error).__name__}: {error}") from error


def load_weights(model: Any, file: Path) -> dict[str, np.ndarray]:
    tensors = read_tensors(file, CARD.repair(file))
    try:
        model.load_state_dict(
            {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")}
        )
    except RuntimeError as error:
        raise PapertrialError(
            f"the weights in {file} do not fit the model of the card ({error})", "both must come from one run"
        ) from None
    return {name.removeprefix("head."): tensor.numpy() for name, tensor in tensors.items() if name.startswith("head.")}
