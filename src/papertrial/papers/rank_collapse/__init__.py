"""Rank collapse - attention alone makes all tokens alike, doubly exponentially with depth.

Yihe Dong, Jean-Baptiste Cordonnier, Andreas Loukas. ICML 2021, arXiv 2103.03404.

The idea
    Self-attention replaces each token by an average of tokens. Layers of nothing but averages end in one point: the
    table of tokens comes near a table of equal rows, and the distance that is left is cubed by every layer. What keeps
    a Transformer alive is not its attention but the skip connections around it.

The equation
    res(X) = X - 1 x^T,  x = argmin ||X - 1 x^T||                 what keeps X from having equal rows      (sec. 2)
    ||res(SAN(X))|| <= c^((3^L - 1) / 2) ||res(X)||^(3^L)         c grows with the weights and with H       (sec. 2)
    SAN(X) = sum over paths of P_{h_L} .. P_{h_1} X W_{h_1} .. W_{h_L} + 1 b^T, a head h_l of every layer   (sec. 2)
    With skip connections a path may also pass a layer by (P = W = I), so that there are paths of length 0 .. L (sec. 3).
    ||A|| = sqrt(||A||_1 ||A||_inf), which is no norm: the triangle inequality fails.

What matters
    float64: in float32 the fall ends at 1e-7 and looks like a plateau. The residual is divided by the size of the table
    at the same layer. Layer normalisation does not help, perceptrons help a little, skip connections help: most of what
    leaves the network has taken a short path. The theorem is about attention without a mask.

Requires / Offers
    Requires any torch module whose layers take and return a table of tokens (B, N, D), and inputs for it. Offers measure.

Relations
    Over-smoothing of graph networks is the same effect with a fixed P. A Mixer has no attention and no theorem.

Try
    papertrial measure rank_collapse vit --data digits
    papertrial measure rank_collapse runs/vit-photos        papertrial measure rank_collapse hf:bert/config.json

Cost
    tiny and base: seconds on a CPU, four passes through the model. paper: the same on 32 texts of 128 tokens.

Notation
    B examples, N tokens, D width, L layers, H heads; P attention map, W value and output map of a head in one.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from papertrial.core.paper import Curve, Figure, Paper, Report
from papertrial.core.recipe import Recipe, checked, sourced
from papertrial.nn.attention import Attention
from papertrial.nn.mlp import Mlp
from papertrial.papers.rank_collapse.surgery import Inputs, find_layers, trace

PAPER = Paper(
    id="rank_collapse",
    title="Attention Is Not All You Need: Pure Attention Loses Rank Doubly Exponentially with Depth",
    kind="analysis",
    method="measure",
    idea="Proves that attention alone makes all tokens alike as depth grows, and that skip connections counteract it.",
    authors="Yihe Dong, Jean-Baptiste Cordonnier, Andreas Loukas",
    year=2021,
    arxiv="2103.03404",
    month="2021-04",
    tags=("theory", "attention"),
    official="https://github.com/twistedcubic/attention-rank-collapse",
    licence="Apache-2.0",
    caveats=(
        "The text defines the residual by the best x in its composite norm; the authors' code takes the mean token, which "
        "is the best x for the Frobenius norm (paper-plotting notebook). The mean is used here too.",
        "Only the skip connection around attention is cut in the authors' figures; the one around the perceptron stays "
        "(paper-plotting/surgery.py). The same is done here.",
        "The theorem is about attention without a mask. With a causal mask the first token attends to itself alone, and "
        "the fall is slower than doubly exponential.",
        "The authors measure in float32, where a residual below 1e-7 cannot be seen.",
        "The bound says nothing until the residual is small; the fall from the start is measured, not proven.",
        "The abstract has perceptrons stop the degeneration. With random weights they only slow it, by less than a decimal "
        "digit in three layers, and a fresh pre-norm Vision Transformer falls faster with them than without (measured here).",
    ),
)


@checked
@dataclass(frozen=True)
class Config:
    paths: int = sourced(100, "authors' code: random paths of each length", "[1, 1000000]")
    layers: str = sourced("", "papertrial default: pattern of the names of the layers, found when empty", "any")


def composite_norm(x: Tensor) -> Tensor:
    """sqrt(||x||_1 ||x||_inf) of matrices (..., N, D): largest column sum and largest row sum of |x|. (sec. 2)"""
    size = x.abs()
    return size.sum(-2).amax(-1).sqrt() * size.sum(-1).amax(-1).sqrt()


def residual(x: Tensor) -> Tensor:
    """What is left of a table (..., N, D) when its mean token is taken off every token. (sec. 2)"""
    # DIFF: the text takes the x that is best in the composite norm; the mean, as in the authors' code, has a closed form
    return x - x.mean(-2, keepdim=True)


def relative_residual(x: Tensor) -> Tensor:
    """||res(x)|| / ||x|| of tables (..., N, D), (...): 0 when all tokens are equal or zero. (fig. 2)"""
    return composite_norm(residual(x)) / composite_norm(x).clamp_min(torch.finfo(x.dtype).tiny)


def path_terms(x_ND: Tensor, maps: Sequence[Tensor], weights: Sequence[Tensor], skip: bool) -> Tensor:
    """The sum over all paths of each length: (L + 1, N, D), whose sum over lengths is the network's output. (sec. 2)

    maps: P of each layer (H, N, N), as in the real forward pass.  weights: W of each layer (H, D, D).  skip: whether
    paths may pass a layer by; without it only those of length L exist. There are (H + 1)^L paths, but a path of length
    k is one of length k or k - 1 through the layers before, so that L^2 H products are enough.
    """
    terms = x_ND.new_zeros(len(maps) + 1, *x_ND.shape)
    terms = torch.cat([x_ND[None], terms[1:]])
    for p_HNN, w_HDD in zip(maps, weights, strict=True):
        through = torch.einsum("hmn,knd,hde->kme", p_HNN, terms[:-1], w_HDD)
        longer = torch.cat([torch.zeros_like(terms[:1]), through])
        terms = terms + longer if skip else longer
    return terms


def head_maps(attention: Attention, x_ND: Tensor) -> tuple[Tensor, Tensor]:
    """P (H, N, N) and W (H, D, D) of one attention layer on the table x (N, D), so that it gives sum_h P_h x W_h."""
    q_HNd, k_HNd = (
        layer(x_ND).unflatten(-1, (attention.heads, -1)).transpose(0, 1) for layer in (attention.query, attention.key)
    )
    p_HNN = (q_HNd @ k_HNd.transpose(1, 2) / math.sqrt(q_HNd.shape[-1])).softmax(-1)
    value_HDd = attention.value.weight.T.unflatten(1, (attention.heads, -1)).transpose(0, 1)
    out_HdD = attention.out.weight.T.unflatten(0, (attention.heads, -1))
    return p_HNN, value_HDd @ out_HdD


def chained(maps_LBHNN: Tensor, length: int, paths: int, generator: torch.Generator) -> Tensor:
    """The relative residual of P_{h_k} .. P_{h_1} along random paths of `length` k through the maps: (paths,).

    Layers are drawn without repetition and kept in order, heads and examples at random, as in the authors' code.
    """
    layers, examples, heads = maps_LBHNN.shape[:3]
    order = torch.rand(paths, layers, generator=generator).argsort(1)[:, :length].sort(1).values
    head = torch.randint(heads, (paths, length), generator=generator)
    example = torch.randint(examples, (paths,), generator=generator)
    product = maps_LBHNN[order[:, 0], example, head[:, 0]]
    for step in range(1, length):
        product = maps_LBHNN[order[:, step], example, head[:, step]] @ product
    return relative_residual(product)


def growth(curve: Sequence[float], floor: float) -> float | None:
    """By what factor -log of the residual grows per layer, at the least, once it is below one half and above the floor.

    The theorem says 3 in the end; 2 or more is doubly exponential. None when no two layers lie in that range.
    """
    steps = [
        math.log(after) / math.log(before)
        for before, after in itertools.pairwise(curve)
        if before < 0.5 and min(before, after) > floor
    ]
    return min(steps, default=None)


class SelfAttentionNetwork(nn.Module):
    """Layers of attention, with or without skip connections, perceptrons and layer norms. (B, N, D) -> (B, N, D).

    Weights are normal with variance 1 / D. Without perceptrons and norms it is the SAN of the paper, without biases.
    """

    def __init__(
        self, width: int, heads: int, depth: int, skip: bool = False, mlp: bool = False, norm: bool = False
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(width, heads, skip, mlp, norm) for _ in range(depth))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)

    def forward(self, x_BND: Tensor) -> Tensor:
        for layer in self.layers:
            x_BND = layer(x_BND)
        return x_BND


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int, skip: bool, mlp: bool, norm: bool) -> None:
        super().__init__()
        self.skip = skip
        self.norm_attention, self.norm_mlp = (nn.LayerNorm(width) if norm else nn.Identity() for _ in range(2))
        self.attention = Attention(width, heads, bias=False)
        self.mlp = Mlp(width, 4 * width) if mlp else None

    def forward(self, x_BND: Tensor) -> Tensor:
        mixed_BND = self.attention(self.norm_attention(x_BND))
        x_BND = x_BND + mixed_BND if self.skip else mixed_BND
        return x_BND if self.mlp is None else x_BND + self.mlp(self.norm_mlp(x_BND))


#: what is cut from the model for each line of figure 2, by sort of branch (see Surgery)
VERSIONS = {
    "whole model": {},
    "attention + skip": {"other": "branch"},
    "attention + MLP": {"attention": "skip"},
    "attention alone": {"attention": "skip", "other": "branch"},
}
WITHOUT_ATTENTION = {"whole model": {}, "no skips": {"attention": "skip", "other": "skip"}}
#: a residual below COLLAPSED is a collapse, one above KEPT is none
COLLAPSED, KEPT = 1e-3, 0.1


def measure(model: nn.Module, data: Inputs, config: Config | None = None) -> Report:
    """The relative residual after every layer of `model`, as it is and with its skip connections or perceptrons cut.

    model: any module with layers of tokens; a copy in float64 and eval mode is measured.  data: what it is called
    with, by position or by name.  Raises Declined when it has no layers of tokens.
    """
    config = config or Config()
    model, data = copy.deepcopy(model).double().eval(), _floating(data, torch.float64)
    try:
        layers, shapes = find_layers(model, data, config.layers)
    except RuntimeError:  # a type written into the model's code
        model, data = model.float(), _floating(data, torch.float32)
        layers, shapes = find_layers(model, data, config.layers)
    whole = trace(model, data, layers, shapes)
    heads = whole.maps[0].shape[1] if whole.maps else 0
    versions = VERSIONS if whole.maps else WITHOUT_ATTENTION
    curves = {
        name: relative_residual(torch.stack((trace(model, data, layers, shapes, cut) if cut else whole).tables)).cpu()
        for name, cut in versions.items()
    }
    floor = 64 * whole.epsilon
    means = {name: curve.mean(1).tolist() for name, curve in curves.items()}
    examples, tokens, width = whole.tables[0].shape
    masked = any(bool((maps.mean((0, 1)) == 0).any()) for maps in whole.maps)
    numbers = {
        "layers": layers,
        "examples": examples,
        "tokens": tokens,
        "width": width,
        "attention_layers": len(whole.maps),
        "heads": heads,
        "masked": masked,
        "skips": whole.skips,
        "floor": floor,
        "residual": means,
        "growth": {name: growth(curve, floor) for name, curve in means.items()},
    }
    figures = [_layer_figure(curves, floor)]
    paths = _paths(whole.maps, config.paths, floor)
    if paths:
        numbers["paths"] = paths[0]
        figures.append(paths[1])
    outcome, sentence = _verdict(numbers)
    return Report(
        title="Does attention alone lose rank, and do skip connections keep it?",
        verdict=sentence,
        facts=_facts(numbers),
        head=("layer", *means),
        rows=tuple(
            (str(layer), *(_short(value, floor) for value in row))
            for layer, row in enumerate(zip(*means.values(), strict=True))
        ),
        numbers=numbers | {"outcome": outcome},
        figures=tuple(figures),
        caveats=_caveats(numbers),
    )


def _floating(data: Inputs, dtype: torch.dtype) -> Inputs:
    if isinstance(data, Mapping):
        return dict(zip(data, _floating(tuple(data.values()), dtype), strict=True))
    return tuple(tensor.to(dtype) if tensor.is_floating_point() else tensor for tensor in data)


def _layer_figure(curves: Mapping[str, Tensor], floor: float) -> Figure:
    return Figure(
        "How different the tokens are after each layer",
        "layer",
        "relative residual",
        tuple(
            Curve(
                name,
                tuple(range(len(curve))),
                tuple(curve.mean(1).tolist()),
                tuple(curve.amin(1).tolist()),
                tuple(curve.amax(1).tolist()),
            )
            for name, curve in curves.items()
        ),
        "At 0 all tokens are equal. Lines are means over the examples, bands span the smallest to the largest.",
        log=True,
        floor=floor,
    )


def _paths(maps: Sequence[Tensor], count: int, floor: float) -> tuple[dict[str, Any], Figure] | None:
    """What single paths through the model's own attention maps keep, by length; None where the maps do not chain."""
    if len(maps) < 2 or len({entry.shape for entry in maps}) > 1:
        return None
    generator = torch.Generator().manual_seed(0)
    stacked, depth, heads = torch.stack(list(maps)), len(maps), maps[0].shape[1]
    lengths = tuple(range(1, depth + 1))
    kept = [chained(stacked, length, count, generator) for length in lengths]
    shares = [math.comb(depth, length) * heads**length / (1 + heads) ** depth for length in lengths]
    mean = tuple(float(values.mean()) for values in kept)
    curve = Curve("one path", lengths, mean, tuple(float(v.amin()) for v in kept), tuple(float(v.amax()) for v in kept))
    figure = Figure(
        "What one path through the attention maps keeps",
        "layers on the path",
        "relative residual",
        (curve,),
        f"The residual of products of the model's own maps along {count} random paths of each length: mean and range.",
        log=True,
        floor=floor,
    )
    return {"length": lengths, "residual": mean, "share": shares}, figure


def _verdict(numbers: Mapping[str, Any]) -> tuple[str, str]:
    """(holds | fails | cannot tell | not run, sentence)."""
    residuals, floor = numbers["residual"], numbers["floor"]
    depth, whole = len(residuals["whole model"]) - 1, residuals["whole model"][-1]
    if not numbers["attention_layers"]:
        return "not run", (
            f"The model has no self-attention, so the claim is not about it; after {depth} layers its tokens keep a "
            f"residual of {_short(whole, floor)}, and {_short(residuals['no skips'][-1], floor)} with every skip connection cut."
        )
    if not numbers["skips"]["attention"]:
        return "not run", (
            f"No skip connection around attention was met, so there is nothing to cut; after {depth} layers the tokens "
            f"keep a residual of {_short(whole, floor)}."
        )
    alone, skip, rate = (
        residuals["attention alone"][-1],
        residuals["attention + skip"][-1],
        numbers["growth"]["attention alone"],
    )
    fell, fast = alone < COLLAPSED, rate is None or rate >= 2
    unknown = "faster than can be followed" if fell else "too high to tell how fast it falls"
    speed = unknown if rate is None else f"its logarithm grows at least {rate:.1f}-fold with a layer"
    lost = (
        f"Attention alone makes all tokens alike after {depth} layers (residual {_short(alone, floor)}, {speed})"
        if fell
        else f"Attention alone leaves a residual of {_short(alone, floor)} after {depth} layers ({speed})"
    )
    kept = f"with its skip connections it keeps {_short(skip, floor)}, and the whole model {_short(whole, floor)}"
    if fell and fast and skip > KEPT:
        return "holds", f"{lost}; {kept}. The claim holds here."
    if fell and skip > KEPT:
        return "fails", f"{lost}; {kept}. It collapses, but not doubly exponentially: the claim holds in part."
    if not fell and alone < skip:
        return "cannot tell", f"{lost}; {kept}. It falls, but too slowly to collapse within this depth."
    return "fails", f"{lost}; {kept}. The claim does not hold here."


def _facts(numbers: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    layers = numbers["layers"]
    mask = " with a mask" if numbers["masked"] else ""
    attention = f"{numbers['attention_layers']} maps of {numbers['heads']} heads{mask}" if numbers["heads"] else "none"
    return (
        (
            "layers",
            f"{len(numbers['residual']['whole model']) - 1}: {layers[0]}" + (f" .. {layers[-1]}" if layers[1:] else ""),
        ),
        ("tokens", f"{numbers['tokens']} of width {numbers['width']}, {numbers['examples']} examples"),
        ("attention", attention),
        (
            "skips",
            f"{numbers['skips']['attention']} around attention, {numbers['skips']['other']} around other branches",
        ),
    )


def _caveats(numbers: Mapping[str, Any]) -> tuple[str, ...]:
    found = []
    if numbers["masked"]:
        found.append(
            "The attention is masked; the theorem is about attention without a mask, and behind a causal mask the fall "
            "is slower, since the first token sees itself alone."
        )
    if numbers["floor"] > 1e-10:
        found.append(
            "The model computes in single precision inside, whatever it is converted to: residuals below "
            f"{numbers['floor']:.0e} are rounding."
        )
    if 0 < numbers["skips"]["attention"] < numbers["attention_layers"]:
        found.append(
            "Some attention layers have no skip connection that could be recognised; they are left as they are."
        )
    if numbers["attention_layers"] and not numbers["skips"]["other"]:
        found.append("No perceptron with a skip connection of its own was met, so none was taken out.")
    if numbers["attention_layers"]:
        found.append("Layer norms and biases stay when a skip connection or a perceptron is cut.")
    return tuple(found)


def _short(value: float, floor: float) -> str:
    if value <= floor:
        return f"<{floor:.0e}"
    return f"{value:.2f}" if value >= 0.095 else f"{value:.1e}"


recipes = {
    "paper": Recipe(
        "paper",
        config={"paths": 100},
        source="authors' code; give it --examples 32 --tokens 128",
        cost="minutes on a CPU for BERT base",
        expect="BERT, Albert and XLNet collapse without skip connections, at initialisation and pre-trained (fig. 2)",
    ),
    "base": Recipe("base", source="as the paper", cost="seconds on a CPU"),
    "tiny": Recipe("tiny", config={"paths": 16}, source="small enough for tests", cost="a second on a CPU"),
}
