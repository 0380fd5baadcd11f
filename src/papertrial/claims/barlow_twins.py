"""The claims of Barlow Twins, and the experiments that try them."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from papertrial.claims._lab import data, trial
from papertrial.core.paper import Curve, Figure, Measured, claim
from papertrial.papers import barlow_twins as paper


def _embeddings(seed: int, rows: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    za_BD, zb_BD = (shared + torch.randn(rows, width, generator=generator, dtype=torch.float64) for _ in range(2))
    return za_BD, zb_BD


@claim(
    "The sum over products of rows equals the sum over the squared correlation matrix, in value and gradient.",
    where="eq. 1",
    kind="identity",
)
def short_form_is_exact(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    za_BD, zb_BD = (z.requires_grad_() for z in _embeddings(seed, 16, 48))
    short = paper.barlow_loss(za_BD, zb_BD)
    c_DD = paper.standardise(za_BD).T @ paper.standardise(zb_BD) / len(za_BD)
    weight_DD = torch.full_like(c_DD, 0.0051).fill_diagonal_(1.0)
    plain = (weight_DD * (c_DD - torch.eye(len(c_DD), dtype=c_DD.dtype)).square()).sum()
    value = float((short - plain).detach().abs() / plain.detach())
    gradients = [torch.autograd.grad(loss, za_BD, retain_graph=True)[0] for loss in (short, plain)]
    gradient = float((gradients[0] - gradients[1]).abs().max() / gradients[1].abs().max())
    return max(value, gradient) < 1e-9, {"value_gap": value, "gradient_gap": gradient}


@claim(
    "Scaling or shifting any coordinate of either embedding leaves the loss unchanged.", where="eq. 2", kind="property"
)
def blind_to_scale_and_shift(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    za_BD, zb_BD = _embeddings(seed, 64, 24)
    generator = torch.Generator().manual_seed(seed + 1)
    factor_D = 10 ** (torch.rand(24, generator=generator, dtype=torch.float64) * 3 + 1)
    offset_D = 1e3 * torch.randn(24, generator=generator, dtype=torch.float64)
    before, after = paper.barlow_loss(za_BD, zb_BD), paper.barlow_loss(za_BD * factor_D + offset_D, zb_BD)
    gap = float((before - after).abs() / before)
    return gap < 1e-4, {"relative_gap": gap}  # the eps of the normalisation is what is left


@claim(
    "Views that agree and coordinates that do not repeat each other give zero; each failing alone costs its own term.",
    where="eq. 1",
    kind="property",
)
def rewards_agreement_without_repetition(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(64, 9, generator=generator, dtype=torch.float64)
    basis = torch.linalg.qr(noise - noise.mean(0)).Q * 100  # centred, uncorrelated, far above the eps
    basis = basis - basis.mean(0)
    independent, repeated = basis[:, :8], basis[:, :1].expand(-1, 8)
    best = paper.terms(independent, independent)
    same = paper.terms(repeated, repeated)
    opposed = paper.terms(independent, -independent)
    measured = {"best": float(sum(best)), "repetition": float(same[1]), "disagreement": float(opposed[0])}
    held = (
        measured["best"] < 1e-6
        and abs(measured["repetition"] - 56) < 1e-3
        and abs(measured["disagreement"] - 32) < 1e-3
    )
    return held and float(same[0]) < 1e-6 and float(opposed[1]) < 1e-6, measured


def _accuracy(scale: str, seed: int, projector: int) -> float:
    """Probe accuracy on MNIST with 10 labels a class, after as many samples."""
    found = trial(
        "barlow_twins", "image_representation", data("images/mnist"), seed, samples={"tiny": 2_560}.get(scale, 25_600),
        config={"projector": projector}, optim={"batch": 256}, backbone="resnet", prepare={"size": 28},
    )  # fmt: skip
    return float(found.metrics["accuracy"])


def _over_widths(measured: Measured) -> Figure:
    return Figure(
        "Accuracy by width of the projector",
        "width of the projector",
        "probe accuracy",
        (Curve.over_seeds("Barlow Twins", measured, "width_{}"),),
        "A linear probe on what enters the projector, on MNIST with 10 labels a class.",
        log_x=True,
    )


@claim(
    "Wider projectors give better features: no step up in width costs more than a point.",
    where="fig. 4, there on ImageNet and up to 16384, here on MNIST and up to 512",
    kind="trend",
    cost={"tiny": "10 s cpu", "base": "3 min cpu"},
    plot=_over_widths,
)
def wider_projectors_are_better(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    measured = {f"width_{width}": _accuracy(scale, seed, width) for width in (32, 128, 512)}
    measured["margin"] = min(later - earlier for earlier, later in itertools.pairwise(measured.values())) + 0.01
    return measured["margin"] >= 0, measured


#: of LARS, tried for each size of a batch: what the thread on small batches has for 128 and for 1024
_RATES = (0.35, 1.0)


def _tuned(scale: str, seed: int, batch: int) -> float:
    """Probe accuracy on the test rows of MNIST after as many steps whatever the batch, at the rate that validates better."""
    trials = [
        trial(
            "barlow_twins", "image_representation", data("images/mnist"), seed, steps={"tiny": 10}.get(scale, 200),
            config={"projector": 512}, optim={"batch": batch, "lr": rate}, backbone="resnet", prepare={"size": 28},
        )
        for rate in _RATES
    ]  # fmt: skip
    best = max(trials, key=lambda each: each.scores(each.prepared.valid)["accuracy"])
    return float(best.metrics["accuracy"])


@claim(
    "Small batches are enough: after as many steps, in which a batch of 256 has seen four times the images, and each at the better "
    "of two learning rates, a batch of 64 stays within three points of it.",
    where="fig. 2, there on ImageNet, here on MNIST",
    kind="trend",
    cost={"tiny": "20 s cpu", "base": "5 min cpu"},
    reformed="2026-12-01: before, both had as many samples at one rate, so that the large batch had a quarter of the steps",
)
def small_batches_do(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    measured = {f"batch_{batch}": _tuned(scale, seed, batch) for batch in (64, 256)}
    measured["margin"] = measured["batch_64"] - measured["batch_256"] + 0.03
    return measured["margin"] >= 0, measured
