"""Clipped rows - gradients of single rows, clipped before they are averaged, with noise.
Abadi et al., CCS 2016, arXiv 1607.00133. The tests' own: small, and from outside of the package.

The idea      No single row moves the weights far.
The equation  g = (sum over rows of g_i min(1, C / |g_i|) + N(0, (s C)^2)) / B  (algorithm 1)
What matters  The clipping comes before the mean; B does not depend on the data.
Requires      A model whose loss takes rows one by one.
Offers        The technique `clipped_rows`.
Relations     With C = inf and s = 0 it is plain training.
Try           papertrial fit clipped_rows --data digits --host mlp_mixer
Cost          As many times the memory of the weights as there are rows in a piece.
Notation      B rows, C the bound, s the noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from papertrial.core.budget import Budget
from papertrial.core.paper import Paper, claim
from papertrial.core.recipe import Recipe, checked, sourced

PAPER = Paper(
    id="clipped_rows",
    title="Deep Learning with Differential Privacy",
    authors="Abadi et al.",
    year=2016,
    arxiv="1607.00133",
    kind="technique",
    idea="Clip the gradient of each row before the mean, and add noise.",
    tasks=("image_classification",),
    caveats=("No accountant is here: this is a test.",),
)


@checked
@dataclass(frozen=True)
class Config:
    bound: float = sourced(1.0, "sec. 5", "(0, 1000]")
    noise: float = sourced(0.0, "off, for tests", "[0, 1000]")
    poisson: bool = sourced(False, "algorithm 1 draws each row by itself")

    def draws(self, at, examples: int) -> np.ndarray:
        if not self.poisson:
            order = np.random.default_rng([at.seed, at.step]).permutation(examples)
            return order[: at.rows]
        drawn = torch.rand(examples, generator=at.generator(1)) < at.rows / examples
        return drawn.nonzero().flatten().numpy()

    def per_example(self, gradients: dict[str, Tensor], at) -> dict[str, Tensor]:
        return clipped(gradients, self.bound)

    def before_step(self, model: nn.Module, at) -> None:
        generator = at.generator(2)
        for parameter in model.parameters():
            if self.noise and parameter.grad is not None:
                noise = torch.randn(parameter.shape, generator=generator).to(parameter)
                parameter.grad += self.noise * self.bound / at.rows * noise


def clipped(gradients: dict[str, Tensor], bound: float) -> dict[str, Tensor]:
    """Each row's gradient (rows, ...) with a norm of at most `bound`."""
    norm = torch.stack([gradient.flatten(1).square().sum(1) for gradient in gradients.values()]).sum(0).sqrt()
    share = (bound / norm.clamp_min(1e-12)).clamp(max=1.0)
    return {name: g * share.view(-1, *(1,) * (g.ndim - 1)) for name, g in gradients.items()}


hosts = {"image_classification": "mlp_mixer"}
recipes = {
    "paper": Recipe("paper", config={"noise": 4.0, "poisson": True}),
    "base": Recipe("base"),
    "tiny": Recipe("tiny", optim={"lr": 3e-3, "batch": 32}, budget=Budget(steps=60)),
}


@claim("No row moves the weights by more than its bound.", where="sec. 3.1", kind="property")
def no_row_is_longer(scale, seed):
    rows = {"w": torch.randn(5, 3, 2, generator=torch.Generator().manual_seed(seed)) * 9}
    longest = float(clipped(rows, 0.5)["w"].flatten(1).norm(dim=1).max())
    return longest <= 0.5 + 1e-6, {"longest": longest}
