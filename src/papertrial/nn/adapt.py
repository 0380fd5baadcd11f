"""Any network as a backbone: a name of timm, a Hugging Face model, or a dotted path to the user's own module.

    timm:resnet18                fresh weights          timm:resnet18:pretrained
    hf:facebook/dinov2-small     the hub's weights      hf:folder/       weights if the folder has them, else fresh
    my_module:MyNet              a class or a function that returns a module

What is returned reads like a method of the shelf, so that it goes wherever an architecture goes.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from papertrial.core.errors import Declined, PapertrialError, did_you_mean, missing_extra
from papertrial.core.facts import Facts
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced
from papertrial.core.registry import Method, entries
from papertrial.nn import hub
from papertrial.nn.modes import evaluating

FEATURES = ("auto", "pooled", "cls", "mean")
#: parameters of the user's own class or function that are filled in from the data
_FROM_FACTS: dict[str, Callable[[Facts], Any]] = {
    "facts": lambda facts: facts,
    **dict.fromkeys(("channels", "in_channels", "in_chans"), lambda facts: facts.channels),
    **dict.fromkeys(("img_size", "image_size"), lambda facts: facts.height),
}


class Adapted(nn.Module):
    """A network with the face of a backbone: images (B, channels, height, width) -> (B, width).

    features: `pooled` what the network itself pools, `cls` the first token, `mean` the mean over tokens or positions;
    `auto` the first of pooled and mean that there is.  channels: the network's own, to which grey images are repeated.
    size: (height, width) images are resized to, None for as they are.
    The width is found by passing an image through. Raises Declined when the network does not take such images.
    """

    def __init__(
        self,
        network: nn.Module,
        facts: Facts,
        features: str = "auto",
        channels: int | None = None,
        size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.network, self.features, self.channels = network, features, channels or facts.channels
        self.size = None if size == (facts.height, facts.width) else size
        if self.channels != facts.channels and facts.channels != 1:
            raise Declined(f"the network takes images of {self.channels} channels, these have {facts.channels}")
        try:
            with torch.no_grad(), evaluating(network):
                found = self(torch.zeros(2, facts.channels, facts.height, facts.width))
        except Declined:
            raise
        except Exception as error:  # somebody else's code: it may raise anything
            raise Declined(
                f"the network does not take images of {facts.channels}x{facts.height}x{facts.width} ({hub.first_line(error)})",
                "choose another --size or another network",
            ) from error
        self.width = found.shape[1]

    def forward(self, image: Tensor) -> Tensor:
        if image.shape[1] != self.channels:
            image = image.expand(-1, self.channels, -1, -1)
        if self.size is not None:
            shrinks = image.shape[-2] > self.size[0] or image.shape[-1] > self.size[1]
            image = F.interpolate(image, self.size, mode="bilinear", antialias=shrinks, align_corners=False)
        return pooled(self.network(image), self.features)


def pooled(out: Any, features: str = "auto") -> Tensor:
    """What a network returns as (B, width): a tensor (B, width), tokens (B, N, width), a map (B, width, H, W), or an
    output of transformers. Raises Declined for anything else."""
    own = getattr(out, "pooler_output", None)
    if not isinstance(out, Tensor):
        if features == "pooled" and own is None:
            raise Declined("the network pools nothing itself", "choose --set backbone.features=mean or cls")
        out = own if own is not None and features in ("auto", "pooled") else getattr(out, "last_hidden_state", None)
    if not isinstance(out, Tensor) or out.ndim not in (2, 3, 4):
        raise Declined("the network returns neither features, nor tokens, nor a map of features, for an image")
    if features == "cls" and out.ndim != 3:
        raise Declined("the network gives no tokens, so there is no first one", "choose --set backbone.features=mean")
    if out.ndim == 4:
        return out.mean((2, 3))
    if out.ndim == 3:
        return out[:, 0] if features == "cls" else out.mean(1)
    return out


def method(name: str) -> Method:
    """`timm:...`, `hf:...` or `module:attribute` as a method of kind architecture; nothing is imported or read yet.

    Its module has, beside what every method has, `licence(config) -> str`: whose weights training starts from.
    Raises PapertrialError for a name that cannot be read.
    """
    key, _, rest = name.partition(":")
    source: Any = {"timm": _Timm, "hf": HuggingFace}.get(key, _Own)(key, rest)

    @checked
    @dataclass(frozen=True)
    class Config:
        pretrained: bool = sourced(source.pretrained, f"what {name} stands for")
        features: str = sourced("auto", "papertrial default", " | ".join(FEATURES))
        architecture: str = sourced("", "the model's own configuration", "any", auto=source.architecture)

    def build(config: Config, facts: Facts, backbone: nn.Module | None = None) -> Adapted:
        return source.build(config, facts)

    def licence(config: Config) -> str:
        return f"{name}: {source.licence()}" if config.pretrained else f"{name}, {source.fresh}"

    recipes = {
        recipe: Recipe(recipe, optim={"lr": 1e-4} if source.pretrained else {}, source="papertrial default")
        for recipe in ("base", "tiny")
    }
    module: Any = SimpleNamespace(
        __name__=__name__, __doc__=source.__doc__, Config=Config, build=build, recipes=recipes, variants={rest: {}},
        licence=licence,
    )  # fmt: skip
    paper = Paper(
        id=key,
        title=name,
        kind="architecture",
        idea="A network from elsewhere.",
        tasks=("image_classification", "image_representation"),
        caveats=("images are normalised with the statistics of your data, not those the weights were trained with",)
        if source.pretrained
        else (),
    )
    return Method(key, rest, module, paper)


class _Timm:
    """A model of timm, at the size and with the channels of the data."""

    fresh = "fresh weights, so they are yours"

    def __init__(self, key: str, rest: str) -> None:
        self.model, _, how = rest.partition(":")
        self.pretrained = how == "pretrained"
        if how not in ("", "pretrained"):
            raise PapertrialError(
                f"cannot read timm:{rest}", f"write timm:{self.model} or timm:{self.model}:pretrained"
            )

    def architecture(self, facts: Facts) -> str:
        return self.model

    def licence(self) -> str:
        found = self._timm().get_pretrained_cfg(self.model)
        return (found.license if found is not None else "") or hub.NOT_STATED

    def build(self, config: Any, facts: Facts) -> Adapted:
        timm = self._timm()
        if not timm.is_model(self.model):
            close = timm.list_models(f"*{self.model}*")
            raise PapertrialError(
                f"timm has no model {self.model!r}",
                f"did you mean {close[0]!r}?" if close else did_you_mean(self.model, timm.list_models()),
            )
        if config.pretrained:
            self._have_weights(timm)
        given = {"pretrained": config.pretrained, "num_classes": 0, "in_chans": facts.channels}
        try:
            return Adapted(_created(timm, self.model, given), facts, config.features)
        except Declined as refusal:
            try:  # a network that is built for one size
                network = _created(timm, self.model, {**given, "img_size": (facts.height, facts.width)})
            except TypeError:  # one that has no size
                raise refusal from None
            return Adapted(network, facts, config.features)

    def _have_weights(self, timm: ModuleType) -> None:
        """Raises PapertrialError when there are none on the hub, or when they are neither cached nor within reach."""
        found = timm.get_pretrained_cfg(self.model)
        if found is None or not found.hf_hub_id:
            raise PapertrialError(f"timm has no weights for {self.model!r} on the hub", "leave :pretrained out")
        if not isinstance(hub.client("backbones").try_to_load_from_cache(found.hf_hub_id, "model.safetensors"), str):
            hub.reach(found.hf_hub_id, "backbones")

    @staticmethod
    def _timm() -> ModuleType:
        return _imported("timm")


class HuggingFace:
    """A model of the Hugging Face hub, or of a folder (or its config.json) that `save_pretrained` wrote. Only safetensors
    are read.

    folder: None for one of the hub.  pretrained: whether there are weights. Raises PapertrialError for a folder whose
    weights are pickles.
    """

    fresh = "fresh weights, so they are yours"

    def __init__(self, key: str, rest: str) -> None:
        path = Path(rest).expanduser()
        folder = path.parent if path.name == "config.json" else path
        self.model: str
        self.folder: Path | None
        self.model, self.folder = (str(folder), folder) if folder.is_dir() else (rest, None)
        self.pretrained = self.folder is None or any(folder.glob("*.safetensors"))
        if not self.pretrained and any(folder.glob("*.bin")):
            raise PapertrialError(
                f"the weights in {folder} are pickles, which can run any code and are never loaded",
                "save them as safetensors",
            )

    def settings(self) -> Any:
        """The configuration, as transformers reads it."""
        return self._read(_transformers().AutoConfig.from_pretrained)

    def network(self, settings: Any, pretrained: bool) -> nn.Module:
        """With the weights there are, in float32, or with fresh ones."""
        transformers = _transformers()
        if pretrained:
            return self._read(transformers.AutoModel.from_pretrained, use_safetensors=True, dtype=torch.float32)
        return transformers.AutoModel.from_config(settings)

    def tokeniser(self) -> Any:
        """The tokeniser of transformers beside it. Raises PapertrialError where the folder holds none."""
        names = [entry.name for entry in self.folder.iterdir()] if self.folder else ["tokenizer.json"]
        if not any(name.startswith(("tokenizer", "vocab")) for name in names):
            raise PapertrialError(f"{self.model} holds no tokenizer", "save one beside the model")
        return self._read(_transformers().AutoTokenizer.from_pretrained)

    def architecture(self, facts: Facts) -> str:
        """The configuration as JSON, so that the artifact needs neither hub nor folder. Without weights the channels are
        the data's; with them grey images are repeated to the channels of the network."""
        config = self.settings()
        if not self.pretrained and hasattr(config, "num_channels"):
            config.num_channels = facts.channels
        return json.dumps({**config.to_diff_dict(), "model_type": config.model_type}, sort_keys=True)

    def licence(self) -> str:
        """What the front matter of the model card says."""
        card = (
            self.folder / "README.md"
            if self.folder
            else Path(self._read(hub.client("backbones").hf_hub_download, "README.md"))
        )
        return hub.stated_licence(card.read_text(encoding="utf-8") if card.exists() else "")

    def build(self, config: Any, facts: Facts) -> Adapted:
        settings = _transformers().AutoConfig.for_model(**json.loads(config.architecture))
        network: Any = self.network(settings, config.pretrained)
        pooler = getattr(network, "pooler", None)
        if config.features in ("cls", "mean") and pooler is not None and any(True for _ in pooler.parameters()):
            network.pooler = None  # nothing would train it
        side = getattr(settings, "image_size", None)
        size = (side, side) if isinstance(side, int) else tuple(side) if side else None
        return Adapted(network, facts, config.features, getattr(settings, "num_channels", None), size)

    def _read(self, read: Callable[..., Any], *words: str, **options: Any) -> Any:
        """From the folder, else from the cache, else from the hub. Raises PapertrialError that says which failed."""
        with hub.quiet():
            if self.folder is None:
                try:
                    return read(self.model, *words, local_files_only=True, **options)
                except (OSError, ValueError):
                    hub.reach(self.model, "backbones")
            try:
                return read(self.model, *words, **options)
            except (OSError, ValueError, KeyError, ImportError) as error:
                raise PapertrialError(
                    f"hf:{self.model} cannot be read as a model of transformers ({hub.first_line(error)})",
                    "give a folder that save_pretrained wrote, or a model that has safetensors",
                ) from error


class _Own:
    """The user's own class, or a function that returns a module."""

    fresh = "yours"
    pretrained = False

    def __init__(self, key: str, rest: str) -> None:
        self.key, self.rest = key, rest
        here = str(Path.cwd())
        if here not in sys.path:  # the installed command does not look into the folder it is called from
            sys.path.insert(0, here)
        try:
            known = importlib.util.find_spec(key) is not None
        except (ImportError, ValueError):
            known = False
        if not known:
            raise PapertrialError(
                f"there is no paper, baseline or module called {key!r}", did_you_mean(key, [*entries(), "timm", "hf"])
            )

    def architecture(self, facts: Facts) -> str:
        return f"{self.key}:{self.rest}"

    def build(self, config: Any, facts: Facts) -> Adapted:
        make = getattr(_imported(self.key), self.rest, None)
        if not callable(make) or isinstance(make, nn.Module):
            raise PapertrialError(
                f"{self.key} has no class or function {self.rest!r}", "name one that returns a new torch.nn.Module"
            )
        given = {}
        for name, parameter in inspect.signature(make).parameters.items():
            if name in _FROM_FACTS:
                given[name] = _FROM_FACTS[name](facts)
            elif parameter.default is parameter.empty and parameter.kind not in (
                parameter.VAR_POSITIONAL,
                parameter.VAR_KEYWORD,
            ):
                raise Declined(
                    f"{self.key}:{self.rest} asks for {name!r}, which the data does not tell",
                    f"give it a default; known are {', '.join(_FROM_FACTS)}",
                )
        network = make(**given)
        if not isinstance(network, nn.Module):
            raise PapertrialError(
                f"{self.key}:{self.rest} returns a {type(network).__name__}", "return a torch.nn.Module"
            )
        return Adapted(network, facts, config.features)


def _created(timm: ModuleType, model: str, given: dict[str, Any]) -> nn.Module:
    """Raises Declined when the network cannot have this size, TypeError when it has none."""
    try:
        with hub.quiet():
            return timm.create_model(model, **given)
    except (AssertionError, ValueError, ArithmeticError, OSError, RuntimeError) as error:
        raise Declined(f"timm:{model} cannot be built for these images ({hub.first_line(error)})") from error


def _transformers() -> ModuleType:
    return _imported("transformers")


def _imported(package: str) -> ModuleType:
    """Import it; a torchvision that is missing or was built for another torch ends in one line with its cure."""
    if importlib.util.find_spec(package.partition(".")[0]) is None:
        raise missing_extra(f"a model of {package}", package, "backbones")
    try:
        if package == "transformers" and importlib.util.find_spec("torchvision") is not None:
            importlib.import_module("torchvision")  # a broken one shows only deep inside of transformers
        return importlib.import_module(package)
    except Exception as error:  # a broken install fails in many ways
        if "torchvision" not in str(error):
            raise PapertrialError(
                f"{package} cannot be imported ({hub.first_line(error)})", "mend it, or install it again"
            ) from error
        missing = importlib.util.find_spec("torchvision") is None
        raise PapertrialError(
            f"{package} cannot be imported: torchvision "
            + (
                "is not installed"
                if missing
                else f"does not load beside torch {torch.__version__} ({hub.first_line(error)})"
            ),
            "type: pip install torchvision"
            if missing
            else "type: pip uninstall torchvision"
            if package == "transformers"
            else "type: pip install --force-reinstall --no-deps torchvision, the build made for this torch",
        ) from error
