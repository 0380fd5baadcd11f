"""Barlow Twins - self-supervised learning by redundancy reduction.

Jure Zbontar, Li Jing, Ishan Misra, Yann LeCun, Stéphane Deny. ICML 2021, arXiv 2103.03230.

The idea
    Show the same image twice, changed in two ways, and ask that the two embeddings agree in every coordinate while the
    coordinates say different things. Agreement is a correlation of one on the diagonal, difference one of zero off it.
    Nothing is predicted, nothing is contrasted, and neither large batches nor a second network are needed.

The equation
    L = sum_i (1 - C_ii)^2 + lam * sum_i sum_{j != i} C_ij^2                     (eq. 1)
    C_ij = corr over the batch of coordinate i of view a with j of view b        (eq. 2)

What matters
    Wide projectors help, wider than the features. Batch statistics are those of the global batch. The two views are not
    drawn alike: one is always blurred, the other seldom blurred and sometimes solarised. The loss grows with the
    projector: thousands are normal at the start, so the log holds its two terms per coordinate.

Requires / Offers
    Requires images, no labels, and a batch of 2 or more. Offers embed; a linear probe on it predicts.

Relations
    SimCLR without negatives, BYOL and MYOW without a teacher; VICReg replaces the correlation by variance and covariance.

Try
    papertrial fit barlow_twins --data photos/ --backbone resnet --budget 10m

Cost
    tiny: seconds on a CPU. base: 2 to 10 minutes on a CPU. paper: 1000 epochs of ImageNet on 32 GPUs, 124 hours.

Notation
    B rows of the global batch, D width of the projector, za and zb embeddings of the two views, C their correlation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from papertrial.core.budget import Budget
from papertrial.core.facts import Facts
from papertrial.core.paper import Paper
from papertrial.core.recipe import Optim, Recipe, checked, sourced
from papertrial.nn.ranks import BatchNorm, all_count, all_rows, all_sum, global_moments, world_size
from papertrial.nn.views import Draw, colour_jitter, flip, gaussian_blur, greyscale, random_resized_crop, solarise

PAPER = Paper(
    id="barlow_twins",
    title="Barlow Twins: Self-Supervised Learning via Redundancy Reduction",
    kind="objective",
    method="BarlowTwins",
    idea="Make the correlation matrix between the embeddings of two views of an image the identity.",
    authors="Jure Zbontar, Li Jing, Ishan Misra, Yann LeCun, Stéphane Deny",
    year=2021,
    arxiv="2103.03230",
    month="2021-04",
    tasks=("image_representation", "image_classification"),
    tags=("vision", "self-supervised"),
    baselines=("resnet", "untrained", "majority"),
    official="https://github.com/facebookresearch/barlowtwins",
    licence="MIT",
    caveats=(
        "The first version of the authors' code scaled the loss by 0.024, which the text does not say; later a learning "
        "rate of their own for biases and norms replaced it (facebookresearch/barlowtwins#7, #9).",
        "Learning rates that worked per batch size are known from a thread only: 0.7 at 128, 0.25 at 1024, 0.2 at 2048, "
        "each times batch / 256 (facebookresearch/barlowtwins#7).",
        "The loss grows with the projector, and thousands are normal; identical views do not give zero "
        "(facebookresearch/barlowtwins#16, #39).",
        "Across ranks the authors sum the correlation without passing gradients back through the sum, so their gradient is "
        "the global one divided by the number of ranks. LARS hides this for weights, not for biases.",
        "No error bars are reported (facebookresearch/barlowtwins#14).",
        "At small images the features depend on how hard the crops are; digits and other images whose mirror image means "
        "something else are not flipped here.",
    ),
)


@checked
@dataclass(frozen=True)
class Config:
    projector: int = sourced(
        8192, "sec. 2.2", "[1, 65536]", auto=lambda facts: 512 if facts.examples < 200_000 else None
    )
    projector_layers: int = sourced(3, "sec. 2.2", "[1, 100]")
    lam: float = sourced(0.0051, "authors' code; the text rounds it to 0.005", "[0, 1000]")
    bias_lr: float = sourced(
        0.024,
        "authors' code, 0.0048 / 0.2: learning rate of biases and norms, as a share of lr (lars only)",
        "[0, 1000]",
    )
    crop: float = sourced(
        0.08,
        "authors' code: least area of a crop",
        "(0, 1]",
        auto=lambda facts: 0.3 if 0 < facts.height <= 48 else None,
    )
    blur: float = sourced(
        2.0,
        "authors' code: widest blur in pixels, at 224",
        "[0.01, 100]",
        auto=lambda facts: min(2.0, facts.height / 32) if facts.height else None,
    )
    flips: bool = sourced(True, "authors' code", auto=lambda facts: facts.channels == 3)


def standardise(z_BD: Tensor, eps: float = 1e-5) -> Tensor:
    """Each coordinate with mean 0 and variance 1 over the global batch: `BatchNorm1d(affine=False)` in training.

    Half precision is computed in float32. A constant coordinate gives zeros.
    """
    z_BD = z_BD.float() if z_BD.dtype in (torch.float16, torch.bfloat16) else z_BD
    if world_size() == 1:
        return F.batch_norm(z_BD, None, None, training=True, eps=eps)
    mean, variance, _ = global_moments(z_BD)
    return (z_BD - mean) * torch.rsqrt(variance + eps)


def terms(za_BD: Tensor, zb_BD: Tensor) -> tuple[Tensor, Tensor]:
    """The two sums of eq. 1: sum_i (1 - C_ii)^2 and sum_{i != j} C_ij^2, of the global batch, the same on every rank.

    za, zb: embeddings (n, D) of this rank's rows, any float type, on any scale. Raises ValueError for a global batch of
    fewer than two rows or embeddings of different shape.
    """
    if za_BD.shape != zb_BD.shape or za_BD.ndim != 2:
        raise ValueError(
            f"two embeddings of one shape (rows, D) are needed, got {tuple(za_BD.shape)} and {tuple(zb_BD.shape)}"
        )
    with torch.autocast(za_BD.device.type, enabled=False):
        rows = all_count(len(za_BD), za_BD.device)
        if rows < 2:
            raise ValueError("a correlation needs a batch of two or more")
        a_BD, b_BD = standardise(za_BD), standardise(zb_BD)
        if 2 * rows < a_BD.shape[1]:
            # sum_ij C_ij^2 = sum((A A^T) * (B B^T)) / B^2: two products to B x B cost less than one to D x D
            diagonal_D = all_sum((a_BD * b_BD).sum(0)) / rows
            a_BD, b_BD = all_rows(a_BD), all_rows(b_BD)
            everything = ((a_BD @ a_BD.T) * (b_BD @ b_BD.T)).sum() / rows**2
        else:
            c_DD = all_sum(a_BD.T @ b_BD) / rows
            diagonal_D, everything = c_DD.diagonal(), c_DD.square().sum()
        return (1 - diagonal_D).square().sum(), everything - diagonal_D.square().sum()


def barlow_loss(za_BD: Tensor, zb_BD: Tensor, lam: float = 0.0051) -> Tensor:
    """Eq. 1, a scalar."""
    invariance, redundancy = terms(za_BD, zb_BD)
    return invariance + lam * redundancy


def projector(width: int, hidden: int, layers: int) -> nn.Sequential:
    """Linear, batch norm and ReLU, and a plain linear layer last, all without bias (sec. 2.2 and authors' code)."""
    blocks: list[nn.Module] = []
    for index in range(layers - 1):
        blocks += [nn.Linear(hidden if index else width, hidden, bias=False), BatchNorm(hidden), nn.ReLU(inplace=True)]
    return nn.Sequential(*blocks, nn.Linear(hidden if layers > 1 else width, hidden, bias=False))


class BarlowTwins(nn.Module):
    """The objective on any backbone. `loss({"view_a": (B, C, H, W), "view_b": ...})` gives the loss and its two terms."""

    def __init__(self, config: Config, backbone: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.encoder = backbone
        self.projector = projector(backbone.width, config.projector, config.projector_layers)

    def views(self, batch: Mapping[str, Tensor], draw: Draw) -> dict[str, Tensor]:
        """Two views of "image" (B, C, H, W) in [0, 1]: blur 1.0 and 0.1, solarise 0 and 0.2 (authors' code)."""
        image = batch["image"]
        return {
            "view_a": self._view(image, draw, blur=1.0, invert=0.0),
            "view_b": self._view(image, draw, blur=0.1, invert=0.2),
        }

    def _view(self, image: Tensor, draw: Draw, blur: float, invert: float) -> Tensor:
        # DIFF: the widest blur follows the size of the images; 2 pixels would wipe out a digit of 28
        # DIFF: bilinear crops where the authors' are bicubic, and a fixed order of the colour changes
        view = random_resized_crop(image, draw, scale=(self.config.crop, 1.0))
        if self.config.flips:
            view = flip(view, draw)
        view = colour_jitter(view, draw, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, p=0.8)
        if image.shape[1] == 3:
            view = greyscale(view, draw, 0.2)
        view = gaussian_blur(view, draw, blur, (min(0.1, self.config.blur), self.config.blur))
        return solarise(view, draw, invert)

    def loss(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # the views pass one after the other: statistics of batch norm must not mix them
        za_BD, zb_BD = (self.projector(self.encoder(batch[name])) for name in ("view_a", "view_b"))
        invariance, redundancy = terms(za_BD, zb_BD)
        per_coordinate = {
            "invariance": invariance.detach() / self.config.projector,
            "redundancy": redundancy.detach() / self.config.projector,
        }
        return {"loss": invariance + self.config.lam * redundancy, **per_coordinate}

    def parameter_groups(self, optim: Optim) -> list[dict[str, Any]]:
        """Weights, then biases and norms without weight decay; under LARS these also have a learning rate of their own."""
        weights = [p for p in self.parameters() if p.ndim > 1 and p.requires_grad]
        rest = [p for p in self.parameters() if p.ndim <= 1 and p.requires_grad]
        rest_lr = optim.lr * self.config.bias_lr if optim.optimizer == "lars" else optim.lr
        return [
            {"params": weights, "lr": optim.lr, "weight_decay": optim.weight_decay},
            {"params": rest, "lr": rest_lr, "weight_decay": 0.0},
        ]


def build(config: Config, facts: Facts, backbone: nn.Module | None = None) -> BarlowTwins:
    if backbone is None:
        raise ValueError("barlow_twins trains a backbone, and none was given")
    return BarlowTwins(config, backbone)


recipes = {
    "paper": Recipe(
        "paper",
        config={"projector": 8192, "crop": 0.08, "blur": 2.0, "flips": True},
        optim={
            "optimizer": "lars",
            "lr": 0.2 * 2048 / 256,
            "weight_decay": 1e-6,
            "batch": 2048,
            "warmup": 0.01,
            "end_lr": 0.001,
            "clip": 0.0,
            "epochs": 1000,
        },
        budget=Budget(samples=1000 * 1_281_167),
        source="sec. 2.2 and authors' code, ResNet-50 on ImageNet",
        cost="32 V100 GPUs for 124 hours",
        expect="73.2 % linear evaluation on ImageNet (table 1)",
    ),
    "base": Recipe(
        "base",
        optim={
            "optimizer": "lars",
            "lr": 0.7,
            "weight_decay": 1e-6,
            "warmup": 0.1,
            "end_lr": 0.001,
            "clip": 0.0,
        },
        source="chosen on Fashion-MNIST, where it beats AdamW; lr as the thread has it for small batches",
        cost="2 to 10 minutes on a CPU",
        expect="Fashion-MNIST with 10 labels a class: 70 % after 315 steps (100 s of one core), 43 % untrained",
    ),
    "tiny": Recipe(
        "tiny",
        config={"projector": 64},
        optim={"lr": 2e-3, "weight_decay": 1e-4, "batch": 64, "clip": 0.0},
        budget=Budget(steps=60),
        source="small enough for tests",
        cost="seconds on a CPU",
    ),
}
