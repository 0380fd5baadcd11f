"""A trained model as a folder of plain PyTorch: one source file, the weights, and a loader. Nothing of papertrial is needed.

The source is the paper's own file and the blocks it uses, cut down to what this model needs. The folder is tried in a
process of its own in which papertrial cannot be imported: it gets its name only if its answers are the model's.
"""

from __future__ import annotations

import ast
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import papertrial
from papertrial.core import registry
from papertrial.core.arguments import typed
from papertrial.core.errors import Declined, PapertrialError
from papertrial.core.facts import Facts
from papertrial.core.files import disk_errors, write_json, write_text
from papertrial.core.offers import offers
from papertrial.core.ours import require_new
from papertrial.core.task import Split
from papertrial.nn.adapt import Adapted
from papertrial.nn.attention import attend
from papertrial.nn.heads import Supervised
from papertrial.tasks._images import Normalized
from papertrial.use import text_export, textloader
from papertrial.use.artifact import Artifact
from papertrial.use.asked import Run, loaded
from papertrial.use.card import network_of
from papertrial.use.gather import Place, gather, settled, source
from papertrial.use.predictor import Predictor, expected, foldable, input_meanings, inputs_of, predictor, sample, spread

#: largest difference allowed, of a probability or in spreads of a value; none is expected, but a processor may sum in
#: another order when memory is laid out otherwise
TOLERANCE = 1e-6
#: headings of a paper's page that speak of the method rather than of papertrial
_KEPT = ("The idea", "The equation", "What matters", "Notation")


@typed
def eject(run: Run, out: Path | str, data: Any = None) -> dict[str, Any]:
    """The model as a folder of plain PyTorch: source, weights and a loader that need no papertrial.

    run: its folder, or what `fit` or `load` returned. Writes `model.py`, `model.safetensors`, `config.json`, `load.py` and
    `README.md` into the new folder `out`.

    data: rows to compare the answers on, by default those of the run where they are at hand. Returns the content of
    config.json. Raises Declined for a method that is no network of papertrial's or of a package with its source,
    PapertrialError when `out` holds something, or when the folder's answers are not the model's.

        >>> import papertrial as pt
        >>> model = pt.fit("rtdl:mlp", "iris", budget="1steps", out="runs/mlp", progress=False)
        >>> about = pt.eject("runs/mlp", "mlp")
        >>> about["check"]["largest_difference"]
        0.0
    """
    artifact, out = loaded(run), Path(out)
    require_new(out)
    model = predictor(artifact)
    if model.answers == "score":
        raise Declined(
            f"a reranker such as {artifact.card['method']['name']} is not written out as source",
            "type: papertrial export RUN --to onnx",
        )
    if not isinstance(artifact.model, nn.Module):
        raise Declined(f"{artifact.card['method']['name']} is not a network", "type: papertrial export RUN --to onnx")
    if any(isinstance(module, Adapted) for module in artifact.model.modules()):
        name = network_of(artifact.card)[0]
        raise Declined(
            f"the source of {name} is not papertrial's to write out", "type: papertrial export RUN --to torch"
        )
    if artifact.card.get("reshaped"):
        changed = ", ".join(artifact.card["reshaped"])
        raise Declined(
            f"{changed} has changed the parts of the network, which are not written out as source",
            "type: papertrial export RUN --to torch",
        )
    rows, origin, notes = sample(artifact, data)
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        try:
            about = _write(temporary, artifact, model)
            gap = _compare(temporary, artifact, rows, model.answers)
            about["check"] = {"rows": origin, "largest_difference": gap, "notes": notes}
            write_json(temporary / "config.json", about)
            temporary.chmod(0o755)
            if out.exists():
                out.rmdir()
            temporary.rename(out)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return {"folder": out, **about}


def _write(folder: Path, artifact: Artifact, model: Predictor) -> dict[str, Any]:
    from safetensors.torch import save_file

    card = artifact.card
    inputs = input_meanings(artifact)
    about = {
        "answers": model.answers,
        "classes": card["state"].get("class_names"),
        "inputs": inputs,
        "method": card["method"],
        "backbone": card["backbone"],
        **{name: card[name] for name in ("task", "data", "settings", "backbone_settings", "optim", "budget", "seed")},
        **{name: card[name] for name in ("metrics", "intervals", "licence")},
        "written_by": {"papertrial": papertrial.__version__},
    }
    write_text(folder / "model.py", _source(artifact, model, inputs))
    save_file(
        {
            name: tensor.contiguous()
            for name, tensor in _written(model).state_dict().items()
            if "tokeniser." not in name  # which travels in a file of its own
        },
        folder / "model.safetensors",
    )
    if artifact.head:
        from safetensors.numpy import save_file as save_arrays

        save_arrays(artifact.head, folder / "probe.safetensors")
    write_json(folder / "config.json", about)
    tokeniser = text_export.tokeniser_json(artifact.model.encoder.tokeniser) if model.texts else None
    if tokeniser is not None:
        write_text(folder / "tokenizer.json", tokeniser)
    write_text(folder / "load.py", _loader(model, inputs, artifact))
    write_text(folder / "README.md", _readme(artifact, model, inputs))
    for name, text in _licences():
        write_text(folder / name, text)
    return about


def _written(model: Predictor) -> nn.Module:
    """The network that model.py builds."""
    return model.network.encoder if isinstance(model.network, text_export.Logits) else model.network


def _place(what: Any) -> Place:
    return what.__module__, what.__name__


#: what a model asks of the package, in so few words as its own file needs
_SHORTER = {
    _place(offers): '''class offers:
    """What a module has, None for what it does not have."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name, None)

    def exempt(self, place: str) -> set[str]:
        """The names of `no_decay` as a model knows them that holds this part at `place`."""
        return {f"{place}.{name}" for name in self.no_decay()} if self.no_decay else set()''',
    _place(attend): '''def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    causal: bool = False,
    dropout: float = 0.0,
    scale: float | None = None,
) -> Tensor:
    """softmax(scale q k^T + mask) v, over (B, heads, N, width of a head)."""
    return F.scaled_dot_product_attention(q, k, v, mask, dropout, causal, scale=scale)''',
}


def _source(artifact: Artifact, model: Predictor, inputs: list[dict[str, Any]]) -> str:
    """The text of model.py."""
    card, network = artifact.card, _written(model)
    name, config, settings = network_of(card)
    under = registry.method(name)
    config_class = under.module.Config
    encoder: Any = network.encoder if isinstance(network, Supervised) else network
    roots: list[Place] = [(under.module.__name__, "build"), (config_class.__module__, "Config"), _place(Facts)]
    body = [f"facts = {_facts(artifact.card['facts'])}", "network = build(Config(), facts)"]
    if isinstance(encoder, Normalized):
        roots.append(_place(Normalized))
        channels = card["facts"]["channels"]
        body.append(
            f"network = Normalized(network, {[0.0] * channels}, {[1.0] * channels})  # the weights hold the numbers"
        )
    arguments = offers(encoder).arguments
    if card["backbone"] and arguments is not None:  # what an objective puts around its backbone
        roots.append(_place(type(encoder)))
        named = ", ".join(f"{name}={_literal(value)}" for name, value in arguments.items())
        body.append(f"network = {type(encoder).__name__}(network, {named})")
    given = ", ".join(f"{entry['name']} {_shape(entry)} {entry['dtype']}" for entry in inputs)
    if isinstance(network, Supervised):
        roots.append(_place(Supervised))
        body.append(
            f"return Supervised(network, {card['facts']['outputs']}, {_literal(network.kind)}, {_literal(network.inputs)})"
        )
        gives = f"logits (B, {card['facts']['outputs']})" if network.kind == "classes" else "values (B,)"
    else:
        body.append("return network")
        gives = f"features (B, {encoder.width})"
    if model.texts:
        given = "ids (B, N) int64"
        gives = "a network with `logits(ids)` (B, N, V)" if model.answers == "logits" else gives
    written = {
        (config_class.__module__, "Config"): _config_text(config_class, config, settings),
        _place(Facts): _fields_only(Facts),
        **_SHORTER,
    }
    if model.texts:
        written |= textloader.stand_ins(artifact.model.encoder.tokeniser)
        written[under.module.__name__, "build"] = _build_text(under.module.__name__, config)
    packages = {"papertrial", under.module.__name__.partition(".")[0]}
    imports, definitions = gather(roots, sorted(packages), written)
    build = f'def build_model() -> nn.Module:\n    """{given} -> {gives}. The weights are in model.safetensors."""\n'
    build += textwrap.indent("\n".join(body), "    ")
    head = f'"""{_page(under.module)}\n\n{textwrap.fill(_origin(artifact), 118)}\n"""'
    return (
        f"{head}\n\nfrom __future__ import annotations\n\n{imports}\n\n{definitions}\n\n\n# this model\n\n\n{build}\n"
    )


def _shape(entry: Mapping[str, Any]) -> str:
    return f"(B, {', '.join(map(str, entry['shape']))})"


def _facts(facts: Mapping[str, Any]) -> str:
    found = Facts.from_json(dict(facts))
    named = {entry.name: getattr(found, entry.name) for entry in fields(Facts)}
    plain = Facts("", 0)
    said = [f"{name}={_literal(value)}" for name, value in named.items() if value != getattr(plain, name)]
    return f"Facts({', '.join(said)})"


def _literal(value: Any) -> str:
    """A setting as Python source."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple):
        return f"({', '.join(map(_literal, value))}{',' * (len(value) == 1)})"
    return repr(value)


def _config_text(cls: type, values: Mapping[str, Any], settings: Sequence[Mapping[str, Any]]) -> str:
    """The dataclass with the values of this run as defaults, each with its source as a comment."""
    found = source(cls.__module__)
    node: Any = found.definitions["Config"]
    where = {setting["name"]: setting["source"] for setting in settings}
    lines = ["@dataclass(frozen=True)", "class Config:", '    """The settings of this model."""', ""]
    for entry in node.body:
        if isinstance(entry, ast.AnnAssign) and isinstance(entry.target, ast.Name):
            name, value = entry.target.id, values[entry.target.id]
            value = tuple(value) if isinstance(value, list) else value
            lines += [f"    # {where[name]}", f"    {name}: {ast.unparse(entry.annotation)} = {_literal(value)}"]
        elif isinstance(entry, ast.FunctionDef):
            lines += ["", found.text(entry)]
    return "\n".join(lines)


def _build_text(module: str, config: Mapping[str, Any]) -> str:
    """The function `build` for these settings alone, which are those of weights that are there."""
    found = source(module)
    node = found.definitions["build"]
    text = settled(found.text(node), {**config, "pretrained": False})
    return re.sub(r"\) -> [^\n]+:\n", ") -> nn.Module:\n", text, count=1)


def _fields_only(cls: type) -> str:
    """A dataclass without its methods."""
    found = source(cls.__module__)
    node: Any = found.definitions[cls.__name__]
    last = next((entry for entry in node.body if isinstance(entry, ast.FunctionDef)), None)
    text = found.text(node)
    if last is None:
        return text
    cut = last.lineno - len(last.decorator_list) - node.lineno + len(node.decorator_list)
    return "\n".join(text.splitlines()[:cut]).rstrip()


def _page(module: Any) -> str:
    """The paper's page without the paragraphs on papertrial itself."""
    kept: list[str] = []
    keeping = True
    for line in (module.__doc__ or "").strip().splitlines():
        if line and not line.startswith(" ") and kept and not kept[-1]:
            keeping = line.startswith(_KEPT) or not any(entry.startswith(_KEPT) for entry in kept)
        if keeping:
            kept.append(line.rstrip())
    return "\n".join(kept).strip()


def _origin(artifact: Artifact) -> str:
    card = artifact.card
    by = f"{card['method']['name']} with {card['backbone']}" if card["backbone"] else card["method"]["name"]
    return (
        f"Written by papertrial {papertrial.__version__} from a model that was trained as {by} on {card['data']['name']} "
        f"({card['task']['name']}, seed {card['seed']}). Licence of this code: {card['licence']['code']}."
    )


_LOADER = '''"""From weights to answers. Needs torch, safetensors and numpy; README.md says what goes in."""

import json
from pathlib import Path

{imports}

HERE = Path(__file__).resolve().parent
CONFIG = json.loads((HERE / "config.json").read_text(encoding="utf-8"))
{weights}


@torch.no_grad()
def predict({arguments}):
    """{gives} for {takes}."""
    {steps}
'''
_SOFTMAX = [
    "raised = np.exp(logits - logits.max(1, keepdims=True))",
    "return raised / raised.sum(1, keepdims=True)",
]


def _loader(model: Predictor, inputs: list[dict[str, Any]], artifact: Artifact) -> str:
    """The text of load.py."""
    if model.texts:
        return textloader.loader(artifact, model.answers)
    names = [entry["name"] for entry in inputs]
    called = [f"torch.tensor({name})" for name in names]
    for at, dtype in model.absent.items():
        called.insert(at, f"torch.empty(len({names[0]}), 0, dtype={dtype})")
    out = f"MODEL({', '.join(called)})"
    imports = ["import torch", "from model import build_model", "from safetensors.torch import load_file"]
    if model.answers == "probabilities":
        imports.insert(0, "import numpy as np")
    weights = ["MODEL = build_model()", 'MODEL.load_state_dict(load_file(HERE / "model.safetensors"))', "MODEL.eval()"]
    place = foldable(model.network)
    if place is not None:
        part = f"MODEL.{place}".rstrip(".")
        weights.append(f"{part} = {part}.fold()  # the same answers, faster; leave it out to train on")
    if model.probed:
        imports.insert(-1, "from safetensors.numpy import load_file as load_arrays")
        weights.append('PROBE = load_arrays(HERE / "probe.safetensors")  # a linear probe on the features')
        steps = [
            f"features = {out}.double().numpy()",
            'standardised = (features - PROBE["mean"]) / PROBE["std"]',
            'logits = standardised @ PROBE["weight"].T.astype(np.float64) + PROBE["bias"]',
            *_SOFTMAX,
        ]
    elif model.answers == "probabilities":
        steps = [f"logits = {out}.double().numpy()", *_SOFTMAX]
    else:
        steps = [f"return {out}{'.double()' if model.answers == 'value' else ''}.numpy()"]
    gives = {
        "probabilities": 'Probabilities (B, classes) in the order of CONFIG["classes"]',
        "value": "Values (B,)",
        "features": "Features (B, width)",
    }[model.answers]
    return _LOADER.format(
        imports="\n".join(imports),
        weights="\n".join(weights),
        arguments=", ".join(names),
        gives=gives,
        takes=" and ".join(f"{entry['name']} {entry['dtype']} {_shape(entry)}" for entry in inputs),
        steps="\n    ".join(steps),
    )


def _readme(artifact: Artifact, model: Predictor, inputs: list[dict[str, Any]]) -> str:
    card = artifact.card
    method = card["method"]
    paper = f"*{method['title']}*" + (
        f", [arXiv {method['arxiv']}](https://arxiv.org/abs/{method['arxiv']})" if method["arxiv"] else ""
    )
    if model.texts:
        example, imports = textloader.example(artifact, model.answers), []
    else:
        zeros = ", ".join(f'np.zeros({(1, *entry["shape"])}, "{entry["dtype"]}")' for entry in inputs)
        example, imports = f"predict({zeros})      # {model.answers} of one row", ["    >>> import numpy as np"]
    packages = "torch safetensors numpy"
    if model.texts and text_export.tokeniser_about(artifact)["kind"] == "tokenizers":
        packages += " tokenizers"
    lines = [
        f"# {method['name']}" + (f" with {card['backbone']}" if card["backbone"] else ""),
        "",
        f"{paper}, trained on {card['data']['name']}. `model.py` is plain PyTorch; papertrial is not needed.",
        "",
        f"    pip install {packages}",
        "",
        "In this folder:",
        "",
        *imports,
        "    >>> from load import predict",
        f"    >>> {example}",
        "",
        "## What goes in",
        "",
    ]
    for entry in inputs:
        lines.append(f"- `{entry['name']}`, {entry['dtype']} {_shape(entry)}: {entry['meaning']}")
        columns = entry.get("columns", {})
        lines += [f"    - {_column(columns, name)}" for name in columns]
    if card["state"].get("class_names"):
        lines += ["", "Classes, in order: " + ", ".join(f"`{name}`" for name in card["state"]["class_names"])]
    lines += ["", "## Where it comes from", "", _origin(artifact), ""]
    lines += [f"- data: {card['data']['name']}, fingerprint `{card['data']['fingerprint']}`"]
    for name, value in card["metrics"].items():
        interval = card["intervals"].get(name)
        between = f", 95 % interval [{interval[0]:.4g}, {interval[1]:.4g}]" if interval else ""
        lines.append(f"- {name} on test rows: {value:.4g}{between}")
    lines += [f"- caveat: {caveat}" for caveat in method["caveats"]]
    lines += ["", "## Licence", ""]
    lines += [f"- {name}: {words}" for name, words in card["licence"].items()]
    return "\n".join(lines) + "\n"


def _column(columns: Any, name: str) -> str:
    return (
        f"`{name}`: " + ", ".join(f"`{category}`" for category in columns[name])
        if isinstance(columns, dict)
        else f"`{name}`"
    )


def _licences() -> list[tuple[str, str]]:
    """papertrial's own licence and notice, which go where its code goes: those of the checkout, or of the installation."""
    root = Path(papertrial.__file__).parents[2]
    if (root / "src" / "papertrial").is_dir():
        places = [root / name for name in ("LICENSE", "NOTICE")]
    else:
        files = importlib.metadata.files("papertrial") or []
        places = [Path(str(file.locate())) for file in files if file.name in ("LICENSE", "NOTICE")]
    return [(place.name, place.read_text(encoding="utf-8")) for place in places]


#: run by a bare interpreter: arguments are the folder, the rows, and where the answers go
_TRIAL = """
import importlib.abc, json, sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "papertrial":
            raise ModuleNotFoundError("papertrial is not there")

sys.meta_path.insert(0, Missing())
sys.path.insert(0, sys.argv[1])
import numpy as np
import torch
torch.set_num_threads(int(sys.argv[4]))
from load import predict
if sys.argv[2].endswith(".json"):
    with open(sys.argv[2], encoding="utf-8") as stream:
        columns = json.load(stream)
else:
    with np.load(sys.argv[2], allow_pickle=False) as rows:
        columns = [rows[name] for name in rows.files]
np.save(sys.argv[3], predict(*columns), allow_pickle=False)
"""


def _compare(folder: Path, artifact: Artifact, rows: Split, answers: str) -> float:
    """The largest difference of the answers given where papertrial cannot be imported; raises PapertrialError beyond
    the tolerance, and when the folder does not run."""
    with tempfile.TemporaryDirectory() as place:
        result = Path(place) / "answers.npy"
        if text_export.is_text(artifact):
            columns, wanted = textloader.asked(artifact, rows, answers)
            given = write_json(Path(place) / "rows.json", columns)
        else:
            given, wanted = Path(place) / "rows.npz", expected(artifact, rows)
            np.savez(given, *(tensor.numpy() for tensor in inputs_of(artifact, rows)))
        command = [sys.executable, "-I", "-B", "-c", _TRIAL, folder, given, result, torch.get_num_threads()]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise PapertrialError(f"the ejected file does not run ({last})", "please report it with the paper's file")
        found = np.load(result, allow_pickle=False)
    gap, allowed = float(np.abs(found - wanted).max()), TOLERANCE * spread(wanted, answers)
    if not gap <= allowed:
        raise PapertrialError(
            f"the ejected file answers differently (by {gap:.2g}, allowed are {allowed:.2g}), so it is not kept",
            "please report it",
        )
    return gap
