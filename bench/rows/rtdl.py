"""FT-Transformer, ResNet and MLP against the authors' package, on columns that are scaled already, without dropout."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.harness import Case, Race, Side, inference, training
from papertrial.papers import rtdl

NUMERIC, CARDINALITIES, OUTPUTS = 12, (5, 20, 100, 3), 2
_BLOCK = {
    "attention.W_q": "attention.query",
    "attention.W_k": "attention.key",
    "attention.W_v": "attention.value",
    "attention.W_out": "attention.out",
    "attention_normalization": "attention_norm",
    "ffn_normalization": "ffn_norm",
    "ffn.linear1": "wide",
    "ffn.linear2": "narrow",
}
_RESNET = {"normalization": "0", "linear1": "1", "linear2": "4"}


class Headed(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.head = model, model.make_head(OUTPUTS)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.head(self.model(*inputs))


def fill(ours: nn.Module, theirs: nn.Module, names: dict[str, str]) -> None:
    """The authors' weights in ours; `names` maps their prefixes, and what they keep in parts is joined here."""
    joined: dict[str, list[Tensor]] = {}
    for name, value in theirs.state_dict().items():
        prefix = max((prefix for prefix in names if name.startswith(prefix)), key=len)
        joined.setdefault(names[prefix] + name[len(prefix) :], []).append(value)
    ours.load_state_dict({name: parts[0] if len(parts) == 1 else torch.cat(parts) for name, parts in joined.items()})


def transformers(depth: int = 3, width: int = 192) -> tuple[nn.Module, nn.Module]:
    from rtdl_revisiting_models import FTTransformer

    theirs = FTTransformer(
        n_cont_features=NUMERIC,
        cat_cardinalities=[size + 1 for size in CARDINALITIES],
        d_out=OUTPUTS,
        n_blocks=depth,
        d_block=width,
        attention_n_heads=8,
        attention_dropout=0.0,
        ffn_d_hidden_multiplier=4 / 3,
        ffn_dropout=0.0,
        residual_dropout=0.0,
    )
    ours = Headed(rtdl.FTTransformer(NUMERIC, CARDINALITIES, depth, width, 8, 4 / 3, 0.0, 0.0, 0.0))
    names = {
        "cls_embedding.weight": "model.tokenizer.cls",
        "cont_embeddings.weight": "model.tokenizer.weight",
        "cont_embeddings.bias": "model.tokenizer.bias",
        "cat_embeddings.bias": "model.tokenizer.bias",
        "backbone.output.normalization": "head.0",
        "backbone.output.linear": "head.2",
    }
    names |= {
        f"cat_embeddings.embeddings.{i}.weight": "model.tokenizer.categories.weight" for i in range(len(CARDINALITIES))
    }
    names |= {f"backbone.blocks.{i}.{a}": f"model.blocks.{i}.{b}" for i in range(depth) for a, b in _BLOCK.items()}
    fill(ours, theirs, names)
    return ours, theirs


def resnets() -> tuple[nn.Module, nn.Module]:
    from rtdl_revisiting_models import ResNet

    theirs = ResNet(
        d_in=NUMERIC, d_out=OUTPUTS, n_blocks=2, d_block=192, d_hidden_multiplier=2.0, dropout1=0.0, dropout2=0.0
    )
    ours = Headed(rtdl.ResNet(NUMERIC, 2, 192, 2.0, 0.0, 0.0))
    names = {"input_projection": "model.enter", "output.normalization": "head.0", "output.linear": "head.2"}
    names |= {f"blocks.{i}.{a}": f"model.blocks.{i}.{b}" for i in range(2) for a, b in _RESNET.items()}
    fill(ours, theirs, names)
    return ours, theirs


def mlps() -> tuple[nn.Module, nn.Module]:
    from rtdl_revisiting_models import MLP

    theirs = MLP(d_in=NUMERIC, d_out=OUTPUTS, n_blocks=2, d_block=384, dropout=0.0)
    ours = Headed(rtdl.MLP(NUMERIC, 2, 384, 0.0))
    fill(ours, theirs, {"blocks.0.linear": "model.layers.0", "blocks.1.linear": "model.layers.3", "output": "head"})
    return ours, theirs


def step(
    how: Callable[..., Side], networks: Callable[[], tuple[nn.Module, nn.Module]], codes: bool
) -> Callable[[Case], tuple[Side, Side]]:
    def build(case: Case) -> tuple[Side, Side]:
        ours, theirs = networks()
        inputs = [case.randn(case.size, NUMERIC)]
        if codes:
            inputs.append(torch.stack([case.randint(size + 1, case.size) for size in CARDINALITIES], 1))
        return how(case, case.place(ours), *inputs), how(case, case.place(theirs), *inputs)

    return build


def _rows(*counts: int) -> dict[str, int]:
    return {f"{count} rows": count for count in counts}


#: both sides call the same layers of torch, one after the other
_SAME = "the same products on both sides, which nothing but a faster product would shorten"

RACES = [
    Race(f"{name}, {what}", "rtdl_revisiting_models", step(how, networks, codes), _rows(*sizes), bound=_SAME)
    for name, networks, codes, sizes in (
        ("FT-Transformer", transformers, True, (8, 16, 32, 64)),
        ("ResNet", resnets, False, (128, 256, 512, 1024)),
        ("MLP", mlps, False, (128, 256, 512, 1024)),
    )
    for what, how in (("training step", training), ("inference", inference))
]  # fmt: skip
