"""The claims of Rank collapse, and the experiments that try them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from papertrial.claims._lab import data, trial
from papertrial.core.paper import Curve, Figure, Measured, claim
from papertrial.nn.batches import to_tensors
from papertrial.papers import rank_collapse as paper

#: sizes of the networks in the claims below
_TOKENS, _WIDTH, _HEADS = 32, 64, 4


def _network(seed: int, depth: int, **parts: bool) -> tuple[paper.SelfAttentionNetwork, Tensor]:
    """Random weights, and tables (5, N, D) of independent normal tokens, float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = paper.SelfAttentionNetwork(_WIDTH, _HEADS, depth, **parts).double()
        return network, torch.randn(5, _TOKENS, _WIDTH, dtype=torch.float64)


def _residuals(seed: int, depth: int, **parts: bool) -> list[float]:
    """Mean relative residual before the first layer and after each."""
    network, x_BND = _network(seed, depth, **parts)
    tables = [x_BND]
    with torch.no_grad():
        for layer in network.layers:
            tables.append(layer(tables[-1]))
    return paper.relative_residual(torch.stack(tables)).mean(1).tolist()


@claim(
    "The output of attention layers is the sum over all paths through their heads.",
    where="sec. 2, path decomposition",
    kind="identity",
)
def paths_add_up(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    measured = {}
    for skip in (False, True):
        network, x_BND = _network(seed, 4, skip=skip)
        x_ND = x_BND[0]
        maps, weights, table = [], [], x_ND
        for layer in network.layers:
            p_HNN, w_HDD = paper.head_maps(layer.attention, table)
            maps.append(p_HNN)
            weights.append(w_HDD)
            table = layer(table[None])[0]
        terms = paper.path_terms(x_ND, maps, weights, skip)
        gap = float(((terms.sum(0) - table).abs().max() / table.abs().max()).detach())
        measured["gap_with_skips" if skip else "gap_without"] = gap
    return max(measured.values()) < 1e-12, measured


def _fall(of: str, measured: Measured, curves: Mapping[str, str]) -> Figure:
    """The residual by layer. curves: name -> key, as for `Curve.over_seeds`."""
    return Figure(
        f"How different tokens are after each layer of {of}",
        "layer",
        "relative residual",
        tuple(Curve.over_seeds(name, measured, key) for name, key in curves.items()),
        "At 0 all tokens are equal.",
        log=True,
        floor=64 * torch.finfo(torch.float64).eps,
    )


def _alone(measured: Measured) -> Figure:
    return _fall("random attention", measured, {"attention alone": "layer_{}"})


@claim(
    "Attention alone loses rank doubly exponentially: the logarithm of the residual doubles, or more, with every layer.",
    where="sec. 2 and fig. 2",
    kind="property",
    plot=_alone,
)
def attention_alone_loses_rank(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    curve = _residuals(seed, 6)
    rate = paper.growth(curve, 1e-14) or 0.0
    return rate >= 2 and curve[4] < 1e-6, {"growth": rate, **{f"layer_{i}": curve[i] for i in (1, 2, 3, 4)}}


@claim("Near equal tokens, a layer cubes the residual.", where="sec. 2, the bound for one layer", kind="property")
def a_layer_cubes_the_residual(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    network, x_BND = _network(seed, 1)
    common = x_BND[:1, :1]
    sizes = (1e-2, 1e-3)
    with torch.no_grad():
        after = [float(paper.relative_residual(network(common + size * x_BND)).mean()) for size in sizes]
    slope = math.log(after[0] / after[1]) / math.log(sizes[0] / sizes[1])
    return abs(slope - 3) < 0.1, {"exponent": slope}


def _by_layer(name: str, curve: Sequence[float]) -> dict[str, float]:
    return {f"{name} after {layer}": value for layer, value in enumerate(curve)}


def _random_networks(measured: Measured) -> Figure:
    curves = {"attention + skip": "with_skip after {}", "attention alone": "without after {}"}
    return _fall("random attention, with skip connections and without", measured, curves)


@claim(
    "Skip connections keep the rank where attention alone has lost it.",
    where="sec. 3 and fig. 2",
    kind="property",
    plot=_random_networks,
)
def skip_connections_keep_rank(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    curves = {"with_skip": _residuals(seed, 12, skip=True), "without": _residuals(seed, 12)}
    last = {name: curve[-1] for name, curve in curves.items()}
    held = last["with_skip"] > paper.KEPT and last["without"] < 1e-12
    return held, last | _by_layer("with_skip", curves["with_skip"]) | _by_layer("without", curves["without"])


@claim("Layer normalisation does not prevent the loss of rank.", where="sec. 3", kind="property")
def layer_norm_does_not_help(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    curve = _residuals(seed, 6, norm=True)
    rate = paper.growth(curve, 1e-14) or 0.0
    return rate >= 2 and curve[-1] < 1e-6, {"growth": rate, "layer_6": curve[-1]}


def _with_perceptrons(seed: int) -> tuple[list[float], list[float]]:
    """Residuals of one network without skip connections around attention, with its perceptrons and without."""
    network, x_BND = _network(seed, 6, mlp=True, skip=True)
    residuals = paper.measure(network, (x_BND,)).numbers["residual"]
    return residuals["attention + MLP"], residuals["attention alone"]


@claim("Perceptrons slow the loss of rank.", where="sec. 3", kind="trend", cost={"tiny": "1 second"})
def perceptrons_slow_it(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    with_mlp, without = _with_perceptrons(seed)
    digits = math.log10(with_mlp[3] / without[3])
    return digits > 0, {"digits_kept_at_layer_3": digits, "margin": digits}


@claim(
    "Perceptrons stop the loss of rank.",
    where="abstract; here with random weights",
    kind="trend",
    cost={"tiny": "1 second"},
)
def perceptrons_stop_it(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    with_mlp, without = _with_perceptrons(seed)
    margin = with_mlp[-1] - paper.KEPT
    return margin > 0, {"with_perceptrons": with_mlp[-1], "without": without[-1], "margin": margin}


def _over_lengths(measured: Measured) -> Figure:
    return Figure(
        "What one path through the attention maps keeps",
        "layers on the path",
        "relative residual",
        (Curve.over_seeds("one path", measured, "length_{}"),),
        "Means over random paths through six layers with random weights.",
        log=True,
    )


@claim(
    "The longer a path through the network, the less of the rank it keeps.",
    where="sec. 3",
    kind="property",
    plot=_over_lengths,
)
def long_paths_lose_rank(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    network, x_BND = _network(seed, 6, skip=True)
    kept = paper.measure(network, (x_BND,)).numbers["paths"]["residual"]
    falling = all(after < before for before, after in itertools.pairwise(kept))
    return falling, {f"length_{length}": value for length, value in enumerate(kept, 1)}


def _trained(measured: Measured) -> Figure:
    curves = {name: f"{name} after {{}}" for name in paper.VERSIONS}
    return _fall("a trained Vision Transformer, whole and with parts cut", measured, curves)


@claim(
    "A trained Transformer also collapses once its skip connections are cut, but not while it has them.",
    where="fig. 2, there pre-trained BERT, Albert and XLNet, here a Vision Transformer on digits",
    kind="trend",
    cost={"tiny": "10 seconds a seed", "base": "40 seconds a seed"},
    plot=_trained,
)
def trained_models_collapse_without_skips(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    depth, steps = (6, 300) if scale == "tiny" else (12, 800)
    found = trial(
        "vit", "image_classification", data("digits"), seed, steps=steps, recipe="",
        config={"patch": 2, "width": 48, "depth": depth, "heads": 4, "hidden": 96}, optim={"lr": 2e-3, "batch": 64, "warmup": 0.1},
    )  # fmt: skip
    model = found.model.eval()
    accuracy = found.metrics["accuracy"]
    images = to_tensors({"image": found.prepared.test["image"][:32]}, "cpu")["image"]
    report = paper.measure(model.encoder, (images,))
    curves = report.numbers["residual"]
    measured = {name.replace(" ", "_"): curve[-1] for name, curve in curves.items()}
    # decades beyond the two thresholds, whichever is nearer
    margin = math.log10(min(paper.COLLAPSED / measured["attention_alone"], measured["attention_+_skip"] / paper.KEPT))
    rate = report.numbers["growth"]["attention alone"] or 0.0
    layers = {word: value for name, curve in curves.items() for word, value in _by_layer(name, curve).items()}
    return margin > 0, {"accuracy": accuracy, "growth": rate, **measured, "margin": margin, **layers}
